"""Metrics of results: resolution, coverage, robustness."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"evaluate": "metrics", "measure_robustness": "robustness"}
)
