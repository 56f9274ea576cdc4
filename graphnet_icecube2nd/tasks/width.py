"""Tasks that answer with a number and its width, and their calibration.

A width is half of the central 68%. Shape letters: B events, M models, N knots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.tasks.losses import (
    HALF_WIDTHS,
    LIKELIHOODS,
    SHARE,
    STUDENT_DOF,
    WIDTH_LOSSES,
)
from graphnet_icecube2nd.tasks.section import quantile_bins
from graphnet_icecube2nd.tasks.task import FEWEST, Calibration, Task, finite_number

Array = NDArray[np.float64]
BIN = 200  # minimum events of a bin
MOST_BINS = 20
SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e2


@dataclass(frozen=True, kw_only=True)
class WidthCalibration(Calibration):
    """Shifts medians and scales widths.

    Shift and factor depend on the predicted value, and a further factor on the
    predicted width, so that the intervals are right for events that are easy and for
    those that are hard, such as cascades and tracks. Numbers between the knots are
    interpolated; beyond are those of the edge.
    """

    what: ClassVar[str] = "calibration of a width"

    values: tuple[float, ...]  # (N,) predicted values, ascending
    shifts: tuple[float, ...]  # (N,) added to the predicted value
    factors: tuple[float, ...]  # (N,) factors on the widths
    # Knots of the predicted width and factors for them; none in files of release 0.1.
    widths: tuple[float, ...] = ()
    width_factors: tuple[float, ...] = ()
    num_events: int = 0

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a width calibration must have values, got none")
        self.check_knots("values", "shifts", "factors")
        self.check_knots("widths", "width_factors")
        finite_number(self.num_events, "num_events of a width calibration")

    def apply(self, value_B: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated values and widths, (B,) each."""
        plain_B = value_B.detach().cpu().double().numpy()
        shift_B = np.interp(plain_B, self.values, self.shifts)
        factor_B = np.interp(plain_B, self.values, self.factors)
        if self.widths:
            plain_B = width_B.detach().cpu().double().numpy()
            factor_B = factor_B * np.interp(plain_B, self.widths, self.width_factors)
        return (
            value_B + value_B.new_tensor(shift_B),
            width_B * width_B.new_tensor(factor_B),
        )


class WidthTask(Task):
    """Base of tasks whose outputs are median and ln(scale) of a number's likelihood.

    A subclass defines `target` (the number) and `answer` (the columns from a median and
    a width); the arguments are those of `EnergyTask`.
    """

    num_outputs: ClassVar[int] = 2
    calibration_class: ClassVar[type[Calibration]] = WidthCalibration
    centre: ClassVar[float] = 0.0  # the number for an output of 0
    error_name: ClassVar[str] = "error"  # name of the metric of predicted - true

    def __init__(self, likelihood: str = "student") -> None:
        super().__init__()
        check_one_of("likelihood", likelihood, LIKELIHOODS)
        self.likelihood = likelihood

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return the columns, (B,) each, of medians and widths."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood, nat, or the quantile loss, (B,)."""
        value_B, scale_B = self._value_and_scale(output)
        return WIDTH_LOSSES[self.likelihood](value_B - target, scale_B)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns without calibration."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the columns, with a `WidthCalibration` applied."""
        value_B, width_B = self._value_and_width(output.double())
        if calibration is not None:
            assert isinstance(calibration, WidthCalibration)
            value_B, width_B = calibration.apply(value_B, width_B)
        return self.answer(value_B, width_B)

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the absolute error, and whether the truth is in the interval."""
        value_B, width_B = self._value_and_width(output)
        error_B = (value_B - target).abs()
        return {self.error_name: error_B, "inside_68": (error_B <= width_B).float()}

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> WidthCalibration:
        """Fit shifts and factors in bins of the predicted value, then of its width.

        Then the median of the residuals in each bin of the value is 0, and 68% of them
        lie within the width. ValueError if fewer than 100 events have an answer and a
        label.
        """
        value_B, width_B = self._value_and_width(torch.from_numpy(output).double())
        values_3B = np.stack([value_B.numpy(), width_B.numpy(), target])
        value, width, target = values_3B[:, np.isfinite(values_3B).all(axis=0)]
        if len(value) < FEWEST:
            raise ValueError(
                f"a calibration needs at least {FEWEST} events, got {len(value)}"
            )
        values, shifts, factors = width_knots(value, target - value, width)
        residual = target - value - np.interp(value, values, shifts)
        scaled = width * np.interp(value, values, factors)
        widths, _, width_factors = width_knots(width, residual, scaled, shifted=False)
        return WidthCalibration(
            values=values,
            shifts=shifts,
            factors=factors,
            widths=widths,
            width_factors=width_factors,
            num_events=len(value),
        )

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return mean and scale of the mixture of the members, (B, 2).

        The variance of the mixture is the mean of the members' variances plus the
        variance of their medians: members that disagree make it wide. A member whose
        output is not finite for an event is left out for that event.
        """
        mean_BK = super().combine(outputs_MBK, weights)
        good_MB = outputs_MBK.isfinite().all(dim=2)
        share_MB = outputs_MBK.new_tensor(weights)[:, None] * good_MB
        share_MB = share_MB / share_MB.sum(dim=0)
        value_MB, scale_MB = self._value_and_scale(outputs_MBK)
        spread_MB = (value_MB - self.centre - mean_BK[:, 0]).square()
        log_scale_B = mixture_log_scale(scale_MB, spread_MB, share_MB, self.likelihood)
        return torch.stack([mean_BK[:, 0], log_scale_B], dim=1)

    def _value_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and scale, (..., B), of outputs (..., B, 2)."""
        low, high = math.log(SMALLEST_SCALE), math.log(LARGEST_SCALE)
        return output[..., 0] + self.centre, output[..., 1].clamp(low, high).exp()

    def _value_and_width(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and width, (B,) each."""
        value_B, scale_B = self._value_and_scale(output)
        return value_B, scale_B * HALF_WIDTHS[self.likelihood]


def width_knots(
    by_B: Array, residual_B: Array, width_B: Array, *, shifted: bool = True
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return knots, shifts and factors that calibrate values and widths, (N,) each.

    They are fitted in bins of events of similar `by_B`: the shift is the median
    residual, and 68% of the shifted residuals lie within factor times width.

    Args:
        by_B: Quantity of the bins; knots are its medians, which increase.
        residual_B: True minus predicted values, (B,) or (B, A) for A that count
            together.
        width_B: Predicted widths.
        shifted: Whether residuals are shifted; otherwise shifts are 0.
    """
    knots: list[tuple[float, float, float]] = []
    for rows in _bins(by_B):
        residual, centre = residual_B[rows], float(np.median(by_B[rows]))
        shift = float(np.median(residual)) if shifted else 0.0
        pull = np.abs(residual - shift).T / width_B[rows]
        if not knots or centre > knots[-1][0]:
            factor = max(float(np.quantile(pull, SHARE)), 1e-6)
            knots.append((centre, shift, factor))
    centres, shifts, factors = zip(*knots, strict=True)
    return centres, shifts, factors


def _bins(by_B: Array) -> list[NDArray[np.int64]]:
    """Return rows in bins of equal numbers, the outer ones ever smaller.

    Energies fall steeply: most decades of the highest energies would be one bin.
    """
    first, *inner = quantile_bins(by_B, MOST_BINS, BIN)
    if not inner:
        return [first]
    last = inner.pop()
    while len(first) >= 2 * BIN:
        first, rest = np.array_split(first, 2)
        inner.insert(0, rest)
    while len(last) >= 2 * BIN:
        rest, last = np.array_split(last, 2)
        inner.append(rest)
    return [first, *inner, last]


def mixture_log_scale(
    scale_MB: Tensor, spread_MB: Tensor, share_MB: Tensor, likelihood: str
) -> Tensor:
    """Return the logarithm of the scale of a mixture of M distributions, (B,).

    Args:
        scale_MB: Scales of the distributions.
        spread_MB: Squared distances of their medians from the mixture's.
        share_MB: Shares of the distributions; 0 for one whose values are not finite.
        likelihood: Name of the distributions' form.
    """
    # The variance of a Student t with n degrees of freedom is n / (n - 2) scale^2, here
    # 2 scale^2; that of a normal distribution is scale^2.
    if likelihood == "student":
        spread_MB = spread_MB * (STUDENT_DOF - 2) / STUDENT_DOF
    square_MB = (scale_MB.square() + spread_MB).where(share_MB > 0, 0.0)
    return (share_MB * square_MB).sum(dim=0).log() / 2
