"""Registration of this package's classes in GraphNeT's configuration files.

`Model.from_config`, `ModelConfig` and `DatasetConfig` find a class with
`graphnet.utilities.config.parsing.get_graphnet_classes`, which knows only modules of
`graphnet` and raises KeyError for others. `register` adds our classes to that function.
It also makes our labels writable to YAML, which GraphNeT's labels are not, and lets
`GraphNeTDataModule`, which accepts four classes of datasets, accept `StoreDataset`.

GraphNeT's files are not changed, and only GraphNeT's own classes need `trust`.
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
# Public classes of this package that are GraphNeT models, labels or datasets, by name.
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
    """Let GraphNeT's configuration files find our classes by name.

    A second call does nothing.

    Raises:
        RuntimeError: This version of GraphNeT finds classes in an unexpected way.
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
    """Replace a function of GraphNeT by `wrapper(function, ...)`."""
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
    # A test checks that GraphNeT has no class of the same name.
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
        "this version of GraphNeT cannot use the components of graphnet_icecube2nd in "
        f"configuration files or in its data module. Expected: {expected}."
    )
