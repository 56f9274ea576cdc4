"""Make our components known to GraphNeT's configuration files.

`Model.from_config`, `ModelConfig` and `DatasetConfig` find a class with
`graphnet.utilities.config.parsing.get_graphnet_classes`, which knows the classes of
modules below `graphnet`; a class of another package is a KeyError. `register` extends
that one function by our classes. GraphNeT reads labels of a dataset's configuration
from YAML but cannot write them; ours can be written.

The documentation of `GraphNeTDataModule` allows any dataset, but it accepts four
classes; `register` lets it accept `StoreDataset` too. GraphNeT's files stay untouched,
and `trust` is needed only where GraphNeT's own classes need it.
"""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import graphnet.data.dataset.dataset as dataset_module
import graphnet.models.task as small_package
from graphnet.data import GraphNeTDataModule
from graphnet.data.dataset import Dataset
from graphnet.models import Model
from graphnet.training.labels import Label
from graphnet.utilities.config import model_config, parsing
from ruamel.yaml.representer import SafeRepresenter

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.graphnet_adapter import (
    backbones,
    detectors,
    representations,
    store,
    tasks,
)
from graphnet_icecube2nd.graphnet_adapter.store import StoreDataset
from graphnet_icecube2nd.graphnet_adapter.tasks import OriginDirection, TaskLabel

MODULES = (backbones, detectors, representations, store, tasks)
# By name every public class of ours that is a model, label or dataset of GraphNeT's.
COMPONENTS: dict[str, type] = {
    name: component
    for name, component in sorted(ChainMap(*map(vars, MODULES)).items())
    if isinstance(component, type)
    and issubclass(component, Model | Label | Dataset)
    and component.__module__.startswith(__package__)
    and not name.startswith("_")
}
_MARK = "_knows_graphnet_icecube2nd"


def register() -> None:
    """Let GraphNeT's configurations find our classes by name.

    A second call does nothing.

    Raises:
        RuntimeError: GraphNeT finds classes in another way than expected; the message
            says what was expected where.
    """
    _wrap(parsing, "get_graphnet_classes", _with_components)
    _wrap(GraphNeTDataModule, "_validate_dataset_class", _passing_stores)
    for label in (TaskLabel, OriginDirection):
        SafeRepresenter.add_representer(
            label, lambda writer, label: writer.represent_dict(label.to_config())
        )
    SafeRepresenter.add_representer(
        PulseMap, lambda writer, pulse_map: writer.represent_dict(pulse_map.to_dict())
    )
    _check_that_it_works()


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Call `wrapper(function, ...)` in place of a function of GraphNeT, from now on."""
    function = getattr(owner, name, None)
    if function is None:
        raise _changed(f"{owner.__name__} has {name}")
    if not hasattr(function, _MARK):
        wrapped = functools.wraps(function)(
            lambda *arguments: wrapper(function, *arguments)
        )
        setattr(wrapped, _MARK, True)
        setattr(owner, name, wrapped)


def _with_components(lookup: Any, module: ModuleType) -> dict[str, type]:
    # A test sees to it that GraphNeT has no class of the same name.
    return {**COMPONENTS, **lookup(module)}


def _passing_stores(check: Any, data_module: Any) -> None:
    if data_module._dataset is not StoreDataset:
        check(data_module)


def _check_that_it_works() -> None:
    for module in (model_config, dataset_module):
        if getattr(module, "get_all_grapnet_classes", None) is not getattr(
            parsing, "get_all_grapnet_classes", module
        ):
            raise _changed(
                f"{module.__name__} looks classes up with "
                "graphnet.utilities.config.parsing.get_all_grapnet_classes"
            )
    found = parsing.get_all_grapnet_classes(small_package)
    missing = [name for name in COMPONENTS if found.get(name) is not COMPONENTS[name]]
    if missing:
        raise _changed(
            "graphnet.utilities.config.parsing.get_all_grapnet_classes asks "
            f"get_graphnet_classes for each module; not found: {', '.join(missing)}"
        )


def _changed(expected: str) -> RuntimeError:
    return RuntimeError(
        "GraphNeT has changed, so its configuration files or its data module would not "
        f"take graphnet_icecube2nd's components. Expected: {expected}."
    )
