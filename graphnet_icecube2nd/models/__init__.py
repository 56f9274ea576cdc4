"""Backbones, models with tasks, and weights."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DeepIce": "deepice",
        "DeepIceGNN": "hybrid",
        "EnsembleModel": "together",
        "Model": "model",
        "TaskModel": "model",
        "build_backbone": "registry",
        "build_model": "pretrained",
        "list_models": "registry",
        "list_pretrained": "pretrained",
        "load_competition_weights": "weights",
        "load_model": "weights",
        "load_pretrained": "pretrained",
        "load_weights": "weights",
        "register_model": "registry",
        "save_model": "weights",
    },
)
