"""Metrics of results: resolution, coverage, robustness."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "compare_data": "data_comparison",
        "ComparedEvents": "data_comparison",
        "evaluate": "metrics",
        "measure_robustness": "robustness",
    },
)
