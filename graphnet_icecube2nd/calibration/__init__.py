"""Calibration of the widths of results."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "calibrate": "fit",
        "calibrate_table": "fit",
        "unseen_events": "validation_split",
    },
)
