"""GraphNeT components: detectors, backbones and tasks of the core for its pipelines.

The only folder that imports graphnet or torch_geometric. Importing it registers the
classes below, so that GraphNeT's configuration files can name them.
"""

try:
    import graphnet.models as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "graphnet_icecube2nd.graphnet_adapter needs GraphNeT, which is installed from "
        "its source (the package index's `graphnet` is another library), and "
        f"graphnet-icecube2nd[graphnet]; the import failed with: {error}"
    ) from error

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
from graphnet_icecube2nd.graphnet_adapter.registration import register
from graphnet_icecube2nd.graphnet_adapter.representations import (
    DeepIcePulses,
    PackedPulses,
    collate_events,
)
from graphnet_icecube2nd.graphnet_adapter.results import (
    predict_directions,
    predict_events,
)
from graphnet_icecube2nd.graphnet_adapter.store_datamodule import (
    StoreDataModule,
    as_pyg_batch,
)
from graphnet_icecube2nd.graphnet_adapter.store_dataset import StoreDataset
from graphnet_icecube2nd.graphnet_adapter.tasks import TaskHead

register()

__all__ = [
    "AngularDistance",
    "CombinedDirection",
    "DeepIceBackbone",
    "DeepIceGNNBackbone",
    "DeepIcePulses",
    "ExactVonMisesFisher3DLoss",
    "IceCube86PulseMapDetector",
    "KagglePulseMapDetector",
    "ModelBackbone",
    "OriginDirection",
    "PackedPulses",
    "PrometheusPulseMapDetector",
    "PulseMapDetector",
    "StoreDataModule",
    "StoreDataset",
    "TaskHead",
    "TaskLabel",
    "UpgradePulseMapDetector",
    "as_pyg_batch",
    "collate_events",
    "predict_directions",
    "predict_events",
    "register",
]
