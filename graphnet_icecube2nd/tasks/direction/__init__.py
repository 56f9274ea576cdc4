"""Directions: losses to train with, metrics to judge by."""

from graphnet_icecube2nd.tasks.direction.calibration import kappa_to_radius
from graphnet_icecube2nd.tasks.direction.losses import (
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    OpeningAngleSummary,
    VonMisesFisherLoss,
    log_sinh_ratio,
    mean_opening_angle,
    summarise_opening_angles,
    von_mises_fisher_nll,
)

__all__ = [
    "AngularDistanceLoss",
    "CombinedDirectionLoss",
    "DirectionLoss",
    "OpeningAngleSummary",
    "VonMisesFisherLoss",
    "kappa_to_radius",
    "log_sinh_ratio",
    "mean_opening_angle",
    "summarise_opening_angles",
    "von_mises_fisher_nll",
]
