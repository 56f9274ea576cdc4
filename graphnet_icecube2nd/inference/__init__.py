"""Reconstruction with trained models."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DomainError": "domain",
        "InferenceConfig": "inference_config",
        "ModelBundle": "model_bundle",
        "PulseReconstructor": "pulse_reconstruction",
        "load_bundle": "model_bundle",
        "predict_events": "predictor",
        "reconstruct": "reconstruction",
    },
)
