"""Losses between predicted and true directions, and summaries of opening angles.

A prediction is one vector per event, kappa * direction: its norm is the concentration
kappa of a von Mises-Fisher (vMF) distribution on the sphere, whose density is
kappa / (4 pi sinh kappa) * exp(prediction . direction). All losses are per event, in
plain torch without transfers to the CPU, and can be compiled.

Shape legend: B events, 3 = x, y, z; ``...`` any leading shape.

Source: Fisher, Proc. R. Soc. A 217 (1953) 295, for the distribution; the 2nd place of
the Kaggle IceCube competition (DrHB/icecube-2nd-place) for the choice of losses.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from graphnet_icecube2nd.conventions import (
    TensorLike,
    at_least_float32,
    opening_angle,
    precise_dtype,
    to_tensor,
)
from graphnet_icecube2nd.errors import check_one_of

NORMALISATIONS = ("exact", "published")
REDUCTIONS = ("mean", "none", "sum")

# ln(sinh k / k) as a series in k^2: 2^(2n) B_2n / (2n (2n)!), B_2n Bernoulli numbers.
SERIES_COEFFICIENTS = (
    1 / 6,
    -1 / 180,
    1 / 2835,
    -1 / 37800,
    1 / 467775,
    -691 / 3831077250,
    2 / 127702575,
)
# kappa^2 below which the series is used: it is accurate to 1e-13.
SERIES_LIMIT = 0.25
# kappa above which the published code uses its approximation.
PUBLISHED_SWITCH = 100.0


class DirectionLoss(nn.Module):
    """Base of the losses: checks shapes, and weights and reduces `loss_per_event`."""

    def forward(
        self,
        prediction_B3: Tensor,
        direction_B3: Tensor,
        reduction: str = "mean",
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Weights multiply the losses of the events. As in GraphNeT, "mean" divides by the
        number of events, not by the sum of the weights, so weights whose mean is not 1
        rescale the loss.

        Args:
            prediction_B3: Vectors kappa * direction, order x, y, z, shape (B, 3).
            direction_B3: True unit vectors, shape (B, 3); they are not normalised.
            reduction: Reduction over the events: "mean", "none" or "sum".
            weights_B: Weight of each event, shape (B,); default: equal weights.

        Returns:
            Loss of shape () or, for "none", (B,); float64 if an input is, else float32.

        Raises:
            ValueError: A shape does not fit, or the reduction is unknown.
        """
        check_one_of("reduction", reduction, REDUCTIONS)
        _check_shapes(prediction_B3, direction_B3, weights_B)
        loss_B = self.loss_per_event(prediction_B3, direction_B3)
        if weights_B is not None:
            loss_B = loss_B * weights_B
        if reduction == "mean":
            return loss_B.mean()
        if reduction == "sum":
            return loss_B.sum()
        return loss_B

    def loss_per_event(self, prediction_B3: Tensor, direction_B3: Tensor) -> Tensor:
        """Return the loss of every event, shape (B,)."""
        raise NotImplementedError


class VonMisesFisherLoss(DirectionLoss):
    """Negative log-likelihood of the true direction under the predicted vMF, in nat.

    Its minimum requires the right kappa as well as the right direction; see
    `von_mises_fisher_nll` for the two normalisations.
    """

    def __init__(self, normalisation: str = "exact") -> None:
        """Set the normalisation, "exact" or "published"; ValueError for others."""
        super().__init__()
        check_one_of("normalisation", normalisation, NORMALISATIONS)
        self.normalisation = normalisation

    def loss_per_event(self, prediction_B3: Tensor, direction_B3: Tensor) -> Tensor:
        """Return the negative log-likelihood of every event, nat, shape (B,)."""
        return von_mises_fisher_nll(prediction_B3, direction_B3, self.normalisation)

    def extra_repr(self) -> str:
        """Return the normalisation for the printed module."""
        return f"normalisation={self.normalisation!r}"


class AngularDistanceLoss(DirectionLoss):
    """Opening angle in rad; its mean is the competition score.

    It does not depend on kappa. Its gradient has length 1 / kappa, except where the
    vectors are parallel, opposite or zero: there it is zero, see `opening_angle`.
    """

    def loss_per_event(self, prediction_B3: Tensor, direction_B3: Tensor) -> Tensor:
        """Return the opening angle of every event, rad, shape (B,)."""
        return opening_angle(prediction_B3, direction_B3)


class CombinedDirectionLoss(VonMisesFisherLoss):
    """Opening angle plus vmf_weight times the vMF negative log-likelihood.

    The competition scores the angle. The small likelihood term keeps kappa meaningful
    and gives gradients where the angle has none. The published weight is 0.05.
    """

    def __init__(self, vmf_weight: float = 0.05, normalisation: str = "exact") -> None:
        """Set the weight and the normalisation of the likelihood.

        Args:
            vmf_weight: Weight of the likelihood, rad per nat, finite and not negative.
            normalisation: Normalisation, "exact" or "published"; see
                `von_mises_fisher_nll`.

        Raises:
            ValueError: The weight is negative or not finite, or the name is unknown.
        """
        super().__init__(normalisation)
        if not (math.isfinite(vmf_weight) and vmf_weight >= 0):
            raise ValueError(
                f"vmf_weight must be finite and not negative; got {vmf_weight}"
            )
        self.vmf_weight = vmf_weight

    def loss_per_event(self, prediction_B3: Tensor, direction_B3: Tensor) -> Tensor:
        """Return the combined loss of every event, shape (B,)."""
        angle_B = opening_angle(prediction_B3, direction_B3)
        nll_B = super().loss_per_event(prediction_B3, direction_B3)
        return angle_B + self.vmf_weight * nll_B

    def extra_repr(self) -> str:
        """Return weight and normalisation for the printed module."""
        return f"vmf_weight={self.vmf_weight}, {super().extra_repr()}"


def von_mises_fisher_nll(
    prediction: Tensor, direction: Tensor, normalisation: str = "exact"
) -> Tensor:
    """Return ln(4 pi) + ln(sinh kappa / kappa) - prediction . direction.

    It is computed in float64 for all inputs, because two numbers of size kappa cancel
    at large kappa; MPS has no float64, and the error there is about 1e-7 * kappa. Value
    and gradient are defined at kappa 0, where every direction is equally likely.

    "exact" is right for every kappa. "published" is exact below kappa 100 and above it
    the approximation of the competition code, which lacks a term ln(kappa): for a
    prediction 0.5 degrees off, the best kappa is 229 instead of 26,263. Use it for
    comparison only. At kappa 0 both are finite here; the published code gives NaN.

    Source of the approximation: Kumar and Tsvetkov, arXiv:1812.04616, section 8.2, for
    three dimensions -sqrt(4 + kappa^2), shifted to be continuous at kappa 100.

    Args:
        prediction: Vectors kappa * direction, order x, y, z, shape (..., 3).
        direction: Unit vectors, shape (..., 3), not normalised here; leading shapes
            broadcast.
        normalisation: Normalisation, "exact" or "published".

    Returns:
        Negative log-likelihood, nat, shape (...); float64 if an input is, else float32.

    Raises:
        ValueError: A last dimension is not 3, or the normalisation is unknown.
    """
    check_one_of("normalisation", normalisation, NORMALISATIONS)
    for name, vectors in (("prediction", prediction), ("direction", direction)):
        if vectors.ndim == 0 or vectors.shape[-1] != 3:
            raise ValueError(
                f"{name} must have shape (..., 3); got {tuple(vectors.shape)}"
            )
    dtype = at_least_float32(prediction, direction)
    prediction = prediction.to(precise_dtype(prediction.device))
    direction = direction.to(prediction.dtype)
    kappa_squared = (prediction * prediction).sum(dim=-1)
    # The square has a gradient at 0, unlike kappa.
    if normalisation == "exact":
        normaliser = log_sinh_ratio(kappa_squared)
    else:
        normaliser = _published_log_sinh_ratio(kappa_squared)
    projection = (prediction * direction).sum(dim=-1)
    return (math.log(4 * math.pi) + normaliser - projection).to(dtype)


def log_sinh_ratio(kappa_squared: Tensor) -> Tensor:
    """Return ln(sinh kappa / kappa), the vMF normalisation relative to a uniform sky.

    It uses a series in kappa^2 near 0 and a form without overflow elsewhere. The branch
    that is not used gets a harmless number, so that gradients stay finite.

    Args:
        kappa_squared: Square of kappa, not negative, shape (...), floating.

    Returns:
        Values >= 0, nat, shape (...), in the dtype of the input.
    """
    is_small = kappa_squared < SERIES_LIMIT
    small = torch.where(is_small, kappa_squared, 0.0)
    series = torch.zeros_like(small)
    for coefficient in reversed(SERIES_COEFFICIENTS):
        series = (series + coefficient) * small
    kappa = torch.sqrt(torch.where(is_small, 1.0, kappa_squared))
    log_sinh = kappa + torch.log1p(-torch.exp(-2 * kappa)) - math.log(2)
    return torch.where(is_small, series, log_sinh - torch.log(kappa))


def _published_log_sinh_ratio(kappa_squared: Tensor) -> Tensor:
    """Return ln(sinh kappa / kappa) as in the competition code; shapes as above."""
    is_small = kappa_squared < PUBLISHED_SWITCH**2
    # exp(-200) is far below float64 precision, so sinh is exp / 2 at the switch.
    at_switch = PUBLISHED_SWITCH - math.log(2 * PUBLISHED_SWITCH)
    offset = at_switch - math.sqrt(4 + PUBLISHED_SWITCH**2)
    approximation = torch.sqrt(4 + kappa_squared) + offset
    return torch.where(is_small, log_sinh_ratio(kappa_squared), approximation)


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
        prediction: Vectors of any length, order x, y, z, shape (B, 3).
        direction: True directions, shape (B, 3).

    Returns:
        Mean opening angle, rad, shape ().

    Raises:
        ValueError: The shapes are not (B, 3) with B > 0.
    """
    return _event_angles(prediction, direction).mean()


def summarise_opening_angles(
    prediction: TensorLike, direction: TensorLike
) -> OpeningAngleSummary:
    """Return mean, median and quantiles of the opening angle.

    Quantiles are interpolated linearly. A prediction that is not finite makes all of
    them NaN.

    Args:
        prediction: Vectors of any length, order x, y, z, shape (B, 3).
        direction: True directions, shape (B, 3).

    Returns:
        The summary, angles in rad.

    Raises:
        ValueError: The shapes are not (B, 3) with B > 0.
    """
    angle_B = _event_angles(prediction, direction).detach().cpu().double().numpy()
    # numpy is used because torch.quantile refuses more than 2^24 events.
    median, q68, q90 = np.quantile(angle_B, [0.5, 0.68, 0.9]).tolist()
    return OpeningAngleSummary(
        num_events=angle_B.size,
        mean=float(angle_B.mean()),
        median=median,
        q68=q68,
        q90=q90,
    )


def _event_angles(prediction: TensorLike, direction: TensorLike) -> Tensor:
    """Return the opening angle of every event, rad, shape (B,), B > 0."""
    prediction, direction = to_tensor(prediction), to_tensor(direction)
    _check_shapes(prediction, direction)
    if not len(prediction):
        raise ValueError("opening angles of 0 events have no mean; got shape (0, 3)")
    return opening_angle(prediction, direction)


def _check_shapes(
    prediction_B3: Tensor, direction_B3: Tensor, weights_B: Tensor | None = None
) -> None:
    """Raise ValueError unless shapes are (B, 3), (B, 3) and (B,), without broadcast."""
    shapes = tuple(prediction_B3.shape), tuple(direction_B3.shape)
    if len(shapes[0]) != 2 or shapes[0][1] != 3 or shapes[0] != shapes[1]:
        raise ValueError(
            "prediction and direction must both have shape (B, 3); "
            f"got {shapes[0]} and {shapes[1]}"
        )
    if weights_B is not None and weights_B.shape != prediction_B3.shape[:1]:
        raise ValueError(
            f"weights must have shape (B,) = {shapes[0][:1]}; "
            f"got {tuple(weights_B.shape)}"
        )
