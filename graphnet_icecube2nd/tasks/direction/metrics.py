"""Figures that say how good predicted directions are.

Shape legend: B events, 3 = x, y, z; ``...`` any leading shape.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    TensorLike,
    at_least_float32,
    opening_angle,
    precise_dtype,
    to_tensor,
)

# kappa below which a vMF distribution is a uniform sky to the last digit.
UNIFORM_BELOW = 1e-20


@dataclass(frozen=True, kw_only=True)
class OpeningAngleSummary:
    """Opening angles of a set of events in five numbers, angles in rad."""

    num_events: int
    mean: float  # rad, the competition score
    median: float  # rad
    q68: float  # rad, 68% of the events are closer
    q90: float  # rad, 90% of the events are closer


def mean_opening_angle(prediction: TensorLike, direction: TensorLike) -> Tensor:
    """Return the competition score: the mean opening angle.

    A zero prediction counts as pi/2; one that is not finite makes the score NaN.

    Source: Kaggle, "IceCube - Neutrinos in Deep Ice", mean angular error.

    Args:
        prediction: vectors of any length, order x, y, z, shape (B, 3).
        direction: true directions, shape (B, 3).

    Returns:
        Mean opening angle, rad, shape ().

    Raises:
        ValueError: the shapes are not (B, 3) with B > 0.
    """
    return _event_angles(prediction, direction).mean()


def summarise_opening_angles(
    prediction: TensorLike, direction: TensorLike
) -> OpeningAngleSummary:
    """Return mean, median and quantiles of the opening angle.

    Quantiles are interpolated linearly. A prediction that is not finite makes all
    of them NaN.

    Args:
        prediction: vectors of any length, order x, y, z, shape (B, 3).
        direction: true directions, shape (B, 3).

    Returns:
        The summary, angles in rad.

    Raises:
        ValueError: the shapes are not (B, 3) with B > 0.
    """
    angle_B = _event_angles(prediction, direction).detach().cpu().double().numpy()
    # numpy, because torch.quantile refuses more than 2^24 events.
    median, q68, q90 = np.quantile(angle_B, [0.5, 0.68, 0.9]).tolist()
    return OpeningAngleSummary(
        num_events=angle_B.size,
        mean=float(angle_B.mean()),
        median=median,
        q68=q68,
        q90=q90,
    )


def kappa_to_radius(kappa: TensorLike, containment: TensorLike) -> Tensor:
    """Return the opening angle that contains a fraction of a vMF distribution.

    Exact for every kappa: the fraction inside theta is
    (1 - exp(-kappa u)) / (1 - exp(-2 kappa)) with u = 1 - cos(theta), solved for theta.
    Kappa 0 is a uniform sky, where half the sphere lies within pi/2; for large kappa
    and containment 0.39 the radius is the per-axis sigma 1 / sqrt(kappa).

    Args:
        kappa: concentration, not negative, shape (...).
        containment: fraction 0..1, shape (...); both broadcast.

    Returns:
        Radius, rad, 0..pi, shape (...), in the dtype of kappa, float32 at least.

    Raises:
        ValueError: a kappa is negative or a containment outside 0..1.
    """
    kappa = to_tensor(kappa)
    dtype = at_least_float32(kappa)
    kappa = kappa.to(precise_dtype(kappa.device))
    containment = to_tensor(containment).to(kappa)
    _check_range("kappa", kappa, 0, math.inf)
    _check_range("containment", containment, 0, 1)
    # Towards kappa 0 the two forms below become 0 / 0; their limit is 2 * containment.
    is_uniform = kappa < UNIFORM_BELOW
    positive = torch.where(is_uniform, 1.0, kappa)
    # -kappa u = ln(1 - shrink) = ln((1 - containment) + containment * exp(-2 kappa)):
    # the first form keeps its digits at small kappa, the second where 1 - shrink is
    # small, and neither overflows.
    shrink = -containment * torch.expm1(-2 * positive)
    minus_kappa_u = torch.where(
        shrink < 0.5,
        torch.log1p(-shrink),
        torch.logaddexp(
            torch.log1p(-containment), torch.log(containment) - 2 * positive
        ),
    )
    u = torch.where(is_uniform, 2 * containment, -minus_kappa_u / positive)
    # u = 2 sin^2(theta / 2); rounding may lift u above 2.
    return (2 * torch.asin(torch.sqrt((u / 2).clamp(0, 1)))).to(dtype)


def _event_angles(prediction: TensorLike, direction: TensorLike) -> Tensor:
    """Return the opening angle of every event, rad, shape (B,), B > 0."""
    prediction, direction = to_tensor(prediction), to_tensor(direction)
    shapes = tuple(prediction.shape), tuple(direction.shape)
    if len(shapes[0]) != 2 or shapes[0][1] != 3 or shapes[0] != shapes[1]:
        raise ValueError(
            "prediction and direction must both have shape (B, 3); "
            f"got {shapes[0]} and {shapes[1]}"
        )
    if shapes[0][0] == 0:
        raise ValueError("opening angles of 0 events have no mean; got shape (0, 3)")
    return opening_angle(prediction, direction)


def _check_range(name: str, values: Tensor, lowest: float, highest: float) -> None:
    """Name the first value outside lowest..highest; NaN passes and stays NaN."""
    is_bad = (values < lowest) | (values > highest)
    if is_bad.any():
        raise ValueError(
            f"{name} must lie in {lowest}..{highest}; got {values[is_bad][0].item()}"
        )
