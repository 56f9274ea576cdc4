"""Classic fits: line fit, photon likelihood, its maximum, limit of the resolution."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EventPulses": "event_pulses",
        "limit_events": "limit",
        "line_fit_events": "line_fit",
    },
)
