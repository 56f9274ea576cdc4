"""The event store, and the conversion of files to it."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EventStore": "event_store",
        "export": "writers",
        "prepare": "preparation",
        "prepare_frames": "preparation",
    },
)
