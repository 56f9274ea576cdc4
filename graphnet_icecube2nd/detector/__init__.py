"""Detectors: the meaning of a pulse."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Detector": "detector",
        "DetectorGeometry": "geometry",
        "IceModel": "ice",
        "LabelColumns": "pulse_map",
        "PulseMap": "pulse_map",
        "Scales": "pulse_map",
        "Site": "site",
        "build_detector": "presets",
        "infer_angle_convention": "angles",
        "list_detectors": "presets",
        "register_detector": "detector",
    },
)
