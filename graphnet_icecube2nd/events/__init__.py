"""Events: pulses in physical units, their selection, features and batches."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Events": "events",
        "FeatureBuilder": "features",
        "InputConfig": "input_config",
        "PackedBatch": "batch",
        "check_pulses": "features",
        "pulse_features": "features",
        "select_pulses": "selection",
    },
)
