"""Pages and pictures of evaluations, events, sky maps and robustness."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "SkyMap": "sky.map",
        "draw_sky_map": "sky.picture",
        "sky_map": "sky.map",
        "write_evaluation": "evaluation.report",
        "write_event_page": "event.page",
    },
)
