"""Batches of a store's events."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EventDataModule": "datamodule",
        "EventLoader": "loader",
        "EventReader": "reading",
        "EventSampler": "sampler",
        "EventSubset": "subset",
    },
)
