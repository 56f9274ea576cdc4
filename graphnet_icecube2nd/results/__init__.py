"""Tables of results and of truth, with one row per event."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EventTable": "event_table",
        "EventTruth": "truth",
    },
)
