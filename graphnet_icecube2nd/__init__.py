"""DeepIce, the 2nd place of "IceCube - Neutrinos in Deep Ice", for GraphNeT.

Pulses go in, a unit vector and its kappa come out. This core needs PyTorch, numpy and
safetensors; `graphnet_icecube2nd.graphnet_adapter` hands it to GraphNeT.
"""

from graphnet_icecube2nd.conventions import FEATURE_NAMES
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.direction.losses import (
    AngularDistanceLoss,
    CombinedDirectionLoss,
    VonMisesFisherLoss,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models import published as _registers_models  # noqa: F401
from graphnet_icecube2nd.models.competition import load_competition_weights
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.registry import build_model, list_models, register_model
from graphnet_icecube2nd.models.weights import load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "FEATURE_NAMES",
    "AngularDistanceLoss",
    "CombinedDirectionLoss",
    "DeepIce",
    "DeepIceGNN",
    "PackedBatch",
    "PulseMap",
    "VonMisesFisherLoss",
    "build_model",
    "list_models",
    "load_competition_weights",
    "load_model",
    "register_model",
    "save_model",
]
