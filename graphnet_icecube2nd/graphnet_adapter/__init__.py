"""GraphNeT components: detectors, backbones, tasks and data of this package.

No other folder imports graphnet or torch_geometric. The import of this package
registers its classes, so that GraphNeT's configuration files can name them.
"""

try:
    import graphnet.models as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"graphnet_icecube2nd.graphnet_adapter needs GraphNeT, found: {error}. Install "
        "GraphNeT from its source (`graphnet` of the package index is another "
        "library), and graphnet-icecube2nd[graphnet]"
    ) from error

from graphnet_icecube2nd.graphnet_adapter.registration import register
from graphnet_icecube2nd.lazy import lazy_names

register()

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AngularDistance": "tasks",
        "CombinedDirection": "tasks",
        "DeepIceBackbone": "backbones",
        "DeepIceGNNBackbone": "backbones",
        "DeepIcePulses": "representations",
        "ExactVonMisesFisher3DLoss": "tasks",
        "IceCube86PulseMapDetector": "detectors",
        "KagglePulseMapDetector": "detectors",
        "ModelBackbone": "backbones",
        "OriginDirection": "tasks",
        "PackedPulses": "representations",
        "PrometheusPulseMapDetector": "detectors",
        "PulseMapDetector": "detectors",
        "StoreDataModule": "store",
        "StoreDataset": "store",
        "TaskHead": "tasks",
        "TaskLabel": "tasks",
        "UpgradePulseMapDetector": "detectors",
        "as_pyg_batch": "store",
        "collate_events": "representations",
        "predict_directions": "results",
        "predict_events": "results",
        "register": "registration",
    },
)
