"""Configurations and checkpoints that the competition's code published."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "as_store": "published_config",
        "import_weights": "competition_ensemble",
        "read_published_config": "published_config",
    },
)
