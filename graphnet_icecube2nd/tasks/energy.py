"""Energy: the neutrino's, as the median and the width of log10(E / GeV).

It is the one task so far that answers with a number and its width; `WidthTask` is the
base of such tasks, and `WidthCalibration` makes their widths hold. A width is half of
the central 68%. Shape letters: B events, M models, N knots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import ENERGY
from graphnet_icecube2nd.tasks.section import (
    LEFT_OUT,
    Columns,
    Curve,
    Panel,
    Section,
    Tables,
    density,
    empty_section,
    judged_events,
    quantile_bins,
    quantile_curve,
    share_curve,
)
from graphnet_icecube2nd.tasks.task import (
    FEWEST,
    Calibration,
    Column,
    Task,
    finite_number,
    register_task,
)

Array = NDArray[np.float64]
SHARE = 0.68  # share of the events within one width of the median
BIN = 200  # fewest events of a bin
MOST_BINS = 20
# Sigmas of a normal distribution, and scales of the Student t, within which 68% lie.
NORMAL_WIDTH, STUDENT_WIDTH = 0.994457883, 1.1343966379740467
STUDENT_DOF = 4.0
LIKELIHOODS = ("student", "gaussian")
SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e2
PULL_EDGES = np.linspace(-5, 5, 51)
# Figures of a table that need predicted widths.
WIDTH_FIGURES = ("median_width_log10", "inside_68", "pull_68")


def student_nll(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the negative log-likelihood of a Student t of 4 degrees of freedom, (B,).

    Its tails are heavy, so that a few lost events do not set the widths of all.

    Source: K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling
    using the t distribution", J. Am. Stat. Assoc. 84 (1989) 881.
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


@dataclass(frozen=True, kw_only=True)
class WidthCalibration(Calibration):
    """Moves medians and scales widths, by the predicted value."""

    what: ClassVar[str] = "calibration of a width"

    values: tuple[float, ...]  # (N,) predicted, rising; beyond them the last one holds
    shifts: tuple[float, ...]  # (N,) added to the predicted value
    factors: tuple[float, ...]  # (N,) by which widths are multiplied
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

    def apply(self, value_B: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated values and widths, (B,) each."""
        plain_B = value_B.detach().cpu().double().numpy()
        shift_B = np.interp(plain_B, self.values, self.shifts)
        factor_B = np.interp(plain_B, self.values, self.factors)
        return (
            value_B + value_B.new_tensor(shift_B),
            width_B * width_B.new_tensor(factor_B),
        )


class WidthTask(Task):
    """Base of tasks whose outputs are median and ln(scale) of a number's likelihood.

    A subclass gives `target` (the number) and `answer` (the columns of a median and a
    width); arguments as `Energy`.
    """

    num_outputs: ClassVar[int] = 2
    calibration_class: ClassVar[type[Calibration]] = WidthCalibration
    centre: ClassVar[float] = 0.0  # the number that an output of 0 means
    error_name: ClassVar[str] = "error"  # name of the metric of predicted - true

    def __init__(self, likelihood: str = "student") -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"likelihood must be {' or '.join(LIKELIHOODS)}, got {likelihood!r}"
            )
        self.likelihood = likelihood

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return the columns, (B,) each, of medians and widths."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood, nat, (B,)."""
        value_B, scale_B = self._value_and_scale(output)
        nll = student_nll if self.likelihood == "student" else gaussian_nll
        return nll(value_B - target, scale_B)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns as the network has them."""
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
        """Return the size of the error, and whether the truth is in the interval."""
        value_B, width_B = self._value_and_width(output)
        error_B = (value_B - target).abs()
        return {self.error_name: error_B, "inside_68": (error_B <= width_B).float()}

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> WidthCalibration:
        """Fit shifts and factors in bins of equal numbers of events.

        In each bin the median of the residuals becomes 0, and 68% of them lie within
        the width. ValueError for fewer than 100 events with an answer and a label.
        """
        value_B, width_B = self._value_and_width(torch.from_numpy(output).double())
        values_3B = np.stack([value_B.numpy(), width_B.numpy(), target])
        value, width, target = values_3B[:, np.isfinite(values_3B).all(axis=0)]
        if len(value) < FEWEST:
            raise ValueError(f"a calibration needs {FEWEST} events, got {len(value)}")
        knots: list[tuple[float, float, float]] = []
        for rows in quantile_bins(value, MOST_BINS, BIN):
            residual = target[rows] - value[rows]
            shift = float(np.median(residual))
            pull = np.abs(residual - shift) / width[rows]
            centre = float(np.median(value[rows]))
            if not knots or centre > knots[-1][0]:
                factor = max(float(np.quantile(pull, SHARE)), 1e-6)
                knots.append((centre, shift, factor))
        values, shifts, factors = zip(*knots, strict=True)
        return WidthCalibration(
            values=values, shifts=shifts, factors=factors, num_events=len(value)
        )

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return mean and scale of the members' mixture, (B, 2).

        The mixture's variance is the mean of the members' variances and the variance of
        their medians: members that disagree make it wide. A member whose output is not
        finite for an event is left out there.
        """
        mean_BK = super().combine(outputs_MBK, weights)
        good_MB = outputs_MBK.isfinite().all(dim=2)
        share_MB = outputs_MBK.new_tensor(weights)[:, None] * good_MB
        share_MB = share_MB / share_MB.sum(dim=0)
        value_MB, scale_MB = self._value_and_scale(outputs_MBK)
        spread_MB = (value_MB - self.centre - mean_BK[:, 0]).square()
        # A Student t with n degrees of freedom has a variance of n / (n - 2) scale^2,
        # here 2 scale^2, a normal distribution of scale^2.
        if self.likelihood == "student":
            spread_MB = spread_MB * (STUDENT_DOF - 2) / STUDENT_DOF
        square_MB = (scale_MB.square() + spread_MB).where(good_MB, 0.0)
        log_scale_B = (share_MB * square_MB).sum(dim=0).log() / 2
        return torch.stack([mean_BK[:, 0], log_scale_B], dim=1)

    def _value_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and scale, (..., B), of outputs (..., B, 2)."""
        low, high = math.log(SMALLEST_SCALE), math.log(LARGEST_SCALE)
        return output[..., 0] + self.centre, output[..., 1].clamp(low, high).exp()

    def _value_and_width(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and width, (B,) each."""
        value_B, scale_B = self._value_and_scale(output)
        is_student = self.likelihood == "student"
        return value_B, scale_B * (STUDENT_WIDTH if is_student else NORMAL_WIDTH)


@register_task
class Energy(WidthTask):
    """Energy of the neutrino.

    Outputs are the median of log10(E / GeV), less 3, and the logarithm of the scale of
    its distribution.

    Args:
        likelihood: `student` (4 degrees of freedom: heavy tails) or `gaussian`.

    Raises:
        ValueError: Another likelihood.
    """

    name: ClassVar[str] = "energy"
    truth: ClassVar[tuple[str, ...]] = (ENERGY,)
    centre: ClassVar[float] = 3.0
    error_name: ClassVar[str] = "log10_error"
    # With 1 its early gradients are clipped for all, and directions wait for it.
    default_weight: ClassVar[float] = 0.1
    columns: ClassVar[tuple[Column, ...]] = (
        Column("energy", "GeV", "median of the neutrino's energy"),
        Column("energy_log10_sigma", "", "half of the central 68% of log10(E / GeV)"),
        Column("energy_low_68", "GeV", "lower end of the central 68% interval"),
        Column("energy_high_68", "GeV", "upper end of the central 68% interval"),
    )

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return log10(E / GeV), (B,); NaN where there is no energy above 0."""
        energy_B = truth[ENERGY]
        return torch.where(energy_B > 0, energy_B, torch.nan).log10()

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return energy [GeV], its width in log10 and the central 68% interval."""
        return {
            "energy": 10**value_B,
            "energy_log10_sigma": width_B,
            "energy_low_68": 10 ** (value_B - width_B),
            "energy_high_68": 10 ** (value_B + width_B),
        }

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return bias in log10 and the share of the truth in the 68% interval."""
        good_B = has_energy(columns)
        if not good_B.any():
            return {"bias_log10": float("nan"), "inside_68": float("nan")}
        residual = np.log10(columns["energy"][good_B]) - target[good_B]
        inside = np.abs(residual) <= columns["energy_log10_sigma"][good_B]
        return {
            "bias_log10": float(np.median(residual)),
            "inside_68": float(inside.mean()),
        }

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return bias, resolution, pulls and coverage against energy."""
        tables, target, missing = judged_events(tables, target, has_energy)
        if not len(target):
            return empty_section(self.name, "Energy", missing)
        rows: list[dict[str, Any]] = []
        bias, pulls, coverage = [], [], []
        for number, (name, table) in enumerate(tables.items()):
            value = np.log10(table["energy"])
            residual = value - target
            low, median, high = np.quantile(residual, [0.16, 0.5, 0.84])
            row = {
                "table": name,
                "events": len(residual),
                **missing[name],
                "bias_log10": float(median),
                "resolution_log10": float(high - low) / 2,
                "bias_percent": 100 * float(10**median - 1),
                **dict.fromkeys(WIDTH_FIGURES, float("nan")),
            }
            rows.append(row)
            curve = quantile_curve(target, residual, name, number)
            bias.append(replace(curve, x=10.0**curve.x))
            width = table.get("energy_log10_sigma")
            if width is None:  # energies of other software may have no widths
                continue
            pull = residual / width
            inside = np.abs(residual) <= width
            figures = (np.median(width), inside.mean(), np.quantile(abs(pull), SHARE))
            row.update(zip(WIDTH_FIGURES, map(float, figures), strict=True))
            pulls.append(pull_curve(pull, name, number))
            bins = quantile_bins(value)
            centre = 10.0 ** np.array([np.median(value[b]) for b in bins])
            coverage.append(share_curve(centre, inside, bins, name, number))
        panels: dict[str, tuple[Panel, ...]] = {
            "energy_bias": (
                Panel(
                    x_label="true energy [GeV]",
                    y_label="log10(predicted / true energy)",
                    curves=(*bias, horizontal_line(bias, 0.0)),
                    x_log=True,
                ),
            )
        }
        if pulls:
            panels["energy_widths"] = width_panels(pulls, coverage)
        return Section(
            task=self.name,
            title="Energy",
            text="The bias is the median of log10(predicted / true energy), the "
            "resolution half the width of its central 68%. The pull is that logarithm "
            "divided by the predicted width (half of the predicted central 68%): if "
            "the predicted widths are right, 68% of the pulls lie between -1 and 1, "
            "and 68% of the true energies in the predicted intervals. In the table, "
            "'inside 68%' is the second share, and 'pull 68%' the size of pull that "
            "68% of the events stay below: 1 if the widths are right, more if they are "
            "too small." + LEFT_OUT * any(missing.values()),
            figures=panels,
            captions={
                "energy_bias": "Median and central 68% of log10(predicted / true "
                "energy), in bins of equal numbers of events. Against the true energy "
                "the bias falls from positive to negative even where predictions are "
                "right: this is regression to the mean, because events that look alike "
                "have many energies of a steep spectrum, and the prediction is their "
                "median.",
                "energy_widths": "Left: distribution of the pulls; grey is a normal "
                "distribution whose central 68% lies between -1 and 1. Right: share of "
                "the events whose true energy lies in the predicted 68% interval, with "
                "one standard error.",
            },
            rows=rows,
        )


def has_energy(columns: Columns) -> NDArray[np.bool_]:
    """Return which events have an answer, (B,): energy and width above 0 and finite."""
    values = [columns[n] for n in ("energy", "energy_log10_sigma") if n in columns]
    good_B: NDArray[np.bool_] = np.all(
        [np.isfinite(value_B) & (value_B > 0) for value_B in values], axis=0
    )
    return good_B


def pull_curve(pull_B: Array, name: str, table: int) -> Curve:
    """Return the distribution of pulls: errors in units of the predicted width."""
    beyond = np.mean(abs(pull_B) > PULL_EDGES[-1])
    return Curve(
        x=PULL_EDGES,
        y=density(pull_B, PULL_EDGES),
        label=f"{name}: {beyond:.1%} beyond 5",
        style="steps",
        table=table,
    )


def width_panels(
    pulls: Sequence[Curve], coverage: Sequence[Curve]
) -> tuple[Panel, Panel]:
    """Return pulls beside a normal distribution, and coverage beside 68%."""
    grid = np.linspace(-5, 5, 201)
    normal = np.exp(-((grid * NORMAL_WIDTH) ** 2) / 2)
    normal *= NORMAL_WIDTH / np.sqrt(2 * np.pi)
    expected = Curve(x=grid, y=normal, label="normal distribution", style="reference")
    nominal = horizontal_line(coverage, SHARE, "68%")
    return (
        Panel(
            x_label="pull",
            y_label="density of events",
            curves=(*pulls, expected),
            title="Pulls",
        ),
        Panel(
            x_label="predicted energy [GeV]",
            y_label="share in the 68% interval",
            curves=(*coverage, nominal),
            x_log=True,
            y_range=(0.0, 1.0),
            title="Coverage",
        ),
    )


def horizontal_line(curves: Sequence[Curve], y: float, label: str = "") -> Curve:
    """Return a reference line that is as wide as curves."""
    x = np.concatenate([curve.x for curve in curves])
    ends = np.array([x.min(), x.max()])
    return Curve(x=ends, y=np.full(2, y), label=label, style="reference")
