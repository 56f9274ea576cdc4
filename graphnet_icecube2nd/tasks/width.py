"""Widths: central intervals that hold what they say, and their calibration.

Shape letters: B events, N knots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.tasks.section import quantile_bins

Array = NDArray[np.float64]
SHARE = 0.68  # of the events, within one width of the median
FEWEST = 100  # events that a calibration needs
BIN = 200  # events of a bin at least
MOST_BINS = 20
NORMAL_WIDTH = 0.994457883  # of a normal distribution: 68% lie within so many sigmas
STUDENT_DOF = 4.0


def student_nll(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the negative log-likelihood of a Student t with 4 degrees of freedom.

    Its tails are heavy, so that a few lost events do not set the widths of all.

    Source: K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling
    using the t distribution", J. Am. Stat. Assoc. 84 (1989) 881.

    Args:
        residual: (B,) predicted less true.
        scale: (B,) scale, above 0.
    """
    dof = STUDENT_DOF
    constant = (
        math.lgamma(dof / 2)
        - math.lgamma((dof + 1) / 2)
        + 0.5 * math.log(dof * math.pi)
    )
    square = (residual / scale).square() / dof
    return constant + scale.log() + (dof + 1) / 2 * torch.log1p(square)


def gaussian_nll(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the negative log-likelihood of a normal distribution, (B,)."""
    return 0.5 * math.log(2 * math.pi) + scale.log() + 0.5 * (residual / scale).square()


def student_width() -> float:
    """Return how many scales of the Student t hold 68% of its probability."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        # Closed form of the distribution function for 4 degrees of freedom.
        u = middle / math.sqrt(STUDENT_DOF + middle**2)
        inside = 1.5 * (u - u**3 / 3)
        low, high = (middle, high) if inside < SHARE else (low, middle)
    return (low + high) / 2


def finite_number(value: Any, name: str) -> float:
    """Return a number that a file gave.

    Args:
        value: What the file has.
        name: What it is, for the message.

    Raises:
        ValueError: It is no number, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, found {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, found {value}")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class WidthCalibration:
    """Moves medians and scales widths, by the predicted value.

    Args:
        values: (N,) predicted values, rising: knots; beyond them the last holds.
        shifts: (N,) added to the predicted value.
        factors: (N,) by which widths are multiplied.
        num_events: Events it was fitted on.

    Raises:
        ValueError: Lengths differ, a value is no finite number, values do not rise, a
            factor is not above 0.
    """

    values: tuple[float, ...]
    shifts: tuple[float, ...]
    factors: tuple[float, ...]
    num_events: int = 0

    def __post_init__(self) -> None:
        for name in ("values", "shifts", "factors"):
            numbers = tuple(
                finite_number(value, f"{name}[{row}] of a width calibration")
                for row, value in enumerate(getattr(self, name))
            )
            object.__setattr__(self, name, numbers)
            if len(numbers) != len(self.values) or not numbers:
                raise ValueError(
                    f"{name} must have {len(self.values)} entries, got {len(numbers)}"
                )
        finite_number(self.num_events, "num_events of a width calibration")
        if (np.diff(self.values) <= 0).any():
            raise ValueError("values of a width calibration must rise")
        if min(self.factors) <= 0:
            raise ValueError(f"factors must be above 0, got {min(self.factors)}")

    def apply(self, value: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated values and widths, (B,) each."""
        plain = value.detach().cpu().double().numpy()
        shift = np.interp(plain, self.values, self.shifts)
        factor = np.interp(plain, self.values, self.factors)
        return value + value.new_tensor(shift), width * width.new_tensor(factor)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WidthCalibration:
        """Rebuild what `to_dict` gave.

        Raises:
            ValueError: A value is missing, unknown or not allowed.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"no calibration of a width: {error}") from None


def fit_width(value_B: Array, width_B: Array, target_B: Array) -> WidthCalibration:
    """Fit shifts and factors in bins of equal numbers of events.

    In each bin the median of the residuals becomes 0, and 68% of them lie within the
    width.

    Args:
        value_B: Predicted values.
        width_B: Predicted widths.
        target_B: True values.

    Raises:
        ValueError: Fewer than 100 events with an answer and a label.
    """
    good = np.isfinite(value_B) & np.isfinite(width_B) & np.isfinite(target_B)
    value, width, target = value_B[good], width_B[good], target_B[good]
    if len(value) < FEWEST:
        raise ValueError(f"a calibration needs {FEWEST} events, got {len(value)}")
    values: list[float] = []
    shifts, factors = [], []
    for rows in quantile_bins(value, MOST_BINS, BIN):
        residual = target[rows] - value[rows]
        shift = float(np.median(residual))
        pull = np.abs(residual - shift) / width[rows]
        centre = float(np.median(value[rows]))
        if values and centre <= values[-1]:
            continue
        values.append(centre)
        shifts.append(shift)
        factors.append(max(float(np.quantile(pull, SHARE)), 1e-6))
    return WidthCalibration(
        values=tuple(values),
        shifts=tuple(shifts),
        factors=tuple(factors),
        num_events=len(value),
    )
