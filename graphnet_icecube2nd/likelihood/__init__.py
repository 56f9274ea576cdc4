"""Classic fits: line fit, photon likelihood, its maximum."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EventPulses": "event_pulses",
    },
)
