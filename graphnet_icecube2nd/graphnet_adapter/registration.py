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
from types import ModuleType
from typing import Any

import graphnet.data.dataset.dataset as dataset_module
import graphnet.models.task as small_package
from graphnet.data import GraphNeTDataModule
from graphnet.utilities.config import model_config, parsing
from ruamel.yaml.representer import SafeRepresenter

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.graphnet_adapter.backbones import (
    DeepIceBackbone,
    DeepIceGNNBackbone,
    ModelBackbone,
)
from graphnet_icecube2nd.graphnet_adapter.detectors import (
    IceCube86PulseMapDetector,
    KagglePulseMapDetector,
    PrometheusPulseMapDetector,
    PulseMapDetector,
    UpgradePulseMapDetector,
)
from graphnet_icecube2nd.graphnet_adapter.labels import OriginDirection, TaskLabel
from graphnet_icecube2nd.graphnet_adapter.losses import (
    AngularDistance,
    CombinedDirection,
    ExactVonMisesFisher3DLoss,
)
from graphnet_icecube2nd.graphnet_adapter.representations import (
    DeepIcePulses,
    PackedPulses,
)
from graphnet_icecube2nd.graphnet_adapter.store_dataset import StoreDataset
from graphnet_icecube2nd.graphnet_adapter.tasks import TaskHead

COMPONENTS: dict[str, type] = {
    component.__name__: component
    for component in (
        AngularDistance,
        CombinedDirection,
        DeepIceBackbone,
        DeepIceGNNBackbone,
        DeepIcePulses,
        ExactVonMisesFisher3DLoss,
        IceCube86PulseMapDetector,
        KagglePulseMapDetector,
        ModelBackbone,
        OriginDirection,
        PackedPulses,
        PrometheusPulseMapDetector,
        PulseMapDetector,
        StoreDataset,
        TaskHead,
        TaskLabel,
        UpgradePulseMapDetector,
    )
}
_MARK = "_knows_graphnet_icecube2nd"


def register() -> None:
    """Let GraphNeT's configurations find our classes by name.

    A second call does nothing.

    Raises:
        RuntimeError: GraphNeT finds classes in another way than expected; the message
            says what was expected where.
    """
    lookup = getattr(parsing, "get_graphnet_classes", None)
    if lookup is None:
        raise _changed("graphnet.utilities.config.parsing has get_graphnet_classes")
    if not hasattr(lookup, _MARK):
        parsing.get_graphnet_classes = _with_components(lookup)
    check = getattr(GraphNeTDataModule, "_validate_dataset_class", None)
    if check is None:
        raise _changed("GraphNeTDataModule has _validate_dataset_class")
    if not hasattr(check, _MARK):
        GraphNeTDataModule._validate_dataset_class = _passing_stores(check)
    for label in (TaskLabel, OriginDirection):
        SafeRepresenter.add_representer(label, _represent_label)
    SafeRepresenter.add_representer(PulseMap, _represent_pulse_map)
    _check_that_it_works()


def _with_components(lookup: Any) -> Any:
    @functools.wraps(lookup)
    def get_graphnet_classes(module: ModuleType) -> dict[str, type]:
        # A test sees to it that GraphNeT has no class of the same name.
        classes: dict[str, type] = {**COMPONENTS, **lookup(module)}
        return classes

    setattr(get_graphnet_classes, _MARK, True)
    return get_graphnet_classes


def _passing_stores(check: Any) -> Any:
    @functools.wraps(check)
    def _validate_dataset_class(self: Any) -> None:
        if self._dataset is not StoreDataset:
            check(self)

    setattr(_validate_dataset_class, _MARK, True)
    return _validate_dataset_class


def _represent_label(representer: Any, label: TaskLabel) -> Any:
    return representer.represent_dict(label.to_config())


def _represent_pulse_map(representer: Any, pulse_map: PulseMap) -> Any:
    return representer.represent_dict(pulse_map.to_dict())


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
