"""Directions: losses for training, metrics, calibration, combination, sky positions."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AngularDistanceLoss": "losses",
        "CombinedDirectionLoss": "losses",
        "DirectionLoss": "losses",
        "OpeningAngleSummary": "losses",
        "VonMisesFisherLoss": "losses",
        "kappa_to_radius": "calibration",
        "log_sinh_ratio": "losses",
        "mean_opening_angle": "losses",
        "summarise_opening_angles": "losses",
        "von_mises_fisher_nll": "losses",
    },
)
