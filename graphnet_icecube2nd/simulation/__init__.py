"""Simulated events with known truth."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "SimulatedDetector": "detector",
        "SimulatedStream": "production",
        "SimulationConfig": "configuration",
        "simulate": "production",
    },
)
