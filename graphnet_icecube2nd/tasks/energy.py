"""Energy: the neutrino's, as the median and the width of log10(E / GeV).

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import ENERGY
from graphnet_icecube2nd.tasks.section import (
    LEFT_OUT,
    Curve,
    Panel,
    Section,
    empty_section,
    judged_events,
    quantile_bins,
    running_quantiles,
)
from graphnet_icecube2nd.tasks.task import Calibration, Column, Task, register_task
from graphnet_icecube2nd.tasks.width import (
    NORMAL_WIDTH,
    SHARE,
    STUDENT_DOF,
    WidthCalibration,
    fit_width,
    gaussian_nll,
    student_nll,
    student_width,
)

Array = NDArray[np.float64]
LIKELIHOODS = ("student", "gaussian")
CENTRE = 3.0  # log10(E / GeV) that an output of 0 means
SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e2
# Figures of a table that need predicted widths.
WIDTH_FIGURES = ("median_width_log10", "inside_68", "pull_68")


@register_task
class Energy(Task):
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
    num_outputs: ClassVar[int] = 2
    # With 1 its early gradients are clipped for all, and directions wait for it.
    default_weight: ClassVar[float] = 0.1
    columns: ClassVar[tuple[Column, ...]] = (
        Column("energy", "GeV", "median of the neutrino's energy"),
        Column("energy_log10_sigma", "", "half of the central 68% of log10(E / GeV)"),
        Column("energy_low_68", "GeV", "lower end of the central 68% interval"),
        Column("energy_high_68", "GeV", "upper end of the central 68% interval"),
    )

    def __init__(self, likelihood: str = "student") -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"likelihood must be {' or '.join(LIKELIHOODS)}, got {likelihood!r}"
            )
        self.likelihood = likelihood

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return log10(E / GeV), (B,); NaN where there is no energy above 0."""
        energy_B = truth[ENERGY]
        return torch.where(energy_B > 0, energy_B, torch.nan).log10()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of log10(E / GeV), nat, (B,)."""
        value_B, scale_B = self._value_and_scale(output)
        nll = student_nll if self.likelihood == "student" else gaussian_nll
        return nll(value_B - target, scale_B)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return energy [GeV], its width in log10 and the central 68% interval."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the columns, with a `WidthCalibration` applied."""
        value_B, width_B = self._value_and_width(output.double())
        if calibration is not None:
            assert isinstance(calibration, WidthCalibration)
            value_B, width_B = calibration.apply(value_B, width_B)
        return {
            "energy": 10**value_B,
            "energy_log10_sigma": width_B,
            "energy_low_68": 10 ** (value_B - width_B),
            "energy_high_68": 10 ** (value_B + width_B),
        }

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the error in log10, and whether the truth is in the 68% interval."""
        value_B, width_B = self._value_and_width(output)
        error_B = (value_B - target).abs()
        return {"log10_error": error_B, "inside_68": (error_B <= width_B).float()}

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> WidthCalibration:
        """Fit a `WidthCalibration` of log10(E / GeV).

        Raises:
            ValueError: Fewer than 100 events.
        """
        value_B, width_B = self._value_and_width(torch.from_numpy(output).double())
        return fit_width(value_B.numpy(), width_B.numpy(), target)

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return mean and scale of the members' mixture, (B, 2).

        The mixture's variance is the mean of the members' variances and the variance of
        their medians: members that disagree make it wide. A member whose output is not
        finite for an event is left out there.

        Args:
            outputs_MBK: (M, B, 2).
            weights: M weights, 0 or more.
        """
        mean_BK = super().combine(outputs_MBK, weights)
        good_MB = outputs_MBK.isfinite().all(dim=2)
        share_MB = outputs_MBK.new_tensor(weights)[:, None] * good_MB
        share_MB = share_MB / share_MB.sum(dim=0)
        value_MB, scale_MB = self._value_and_scale(outputs_MBK)
        spread_MB = (value_MB - CENTRE - mean_BK[:, 0]).square()
        # A Student t with n degrees of freedom has a variance of n / (n - 2) scale^2,
        # here 2 scale^2, a normal distribution of scale^2.
        if self.likelihood == "student":
            spread_MB = spread_MB * (STUDENT_DOF - 2) / STUDENT_DOF
        square_MB = (scale_MB.square() + spread_MB).where(good_MB, 0.0)
        log_scale_B = (share_MB * square_MB).sum(dim=0).log() / 2
        return torch.stack([mean_BK[:, 0], log_scale_B], dim=1)

    def calibration_figures(
        self, columns: Mapping[str, Array], target: Array
    ) -> dict[str, float]:
        """Return bias in log10 and the share of the truth in the 68% interval."""
        good_B = has_energy(columns)
        if not good_B.any():
            return {"bias_log10": float("nan"), "inside_68": float("nan")}
        columns = {name: values[good_B] for name, values in columns.items()}
        target = target[good_B]
        residual = np.log10(columns["energy"]) - target
        inside = np.abs(residual) <= columns["energy_log10_sigma"]
        return {
            "bias_log10": float(np.median(residual)),
            "inside_68": float(inside.mean()),
        }

    def read_calibration(self, values: Mapping[str, Any]) -> WidthCalibration:
        """Rebuild a `WidthCalibration`."""
        return WidthCalibration.from_dict(values)

    def report_section(
        self,
        tables: Mapping[str, Mapping[str, Array]],
        target: Array,
        known: Mapping[str, Array],
    ) -> Section:
        """Return bias, resolution, pulls and coverage against energy."""
        tables, target, missing = judged_events(tables, target, has_energy)
        if not len(target):
            return empty_section(self.name, "Energy", missing)
        rows: list[dict[str, Any]] = []
        bias, pull, coverage = [], [], []
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
            centre, quantiles = running_quantiles(target, residual)
            bias.append(
                Curve(
                    x=10.0**centre,
                    y=quantiles[:, 1],
                    low=quantiles[:, 0],
                    high=quantiles[:, 2],
                    label=name,
                    style="points",
                    table=number,
                )
            )
            width = table.get("energy_log10_sigma")
            if width is None:  # energies of other software may have no widths
                continue
            pulls = residual / width
            inside = np.abs(residual) <= width
            figures = (np.median(width), inside.mean(), np.quantile(abs(pulls), SHARE))
            row.update(zip(WIDTH_FIGURES, map(float, figures), strict=True))
            edges = np.linspace(-5, 5, 51)
            counts, _ = np.histogram(pulls, edges)
            pull.append(
                Curve(
                    x=edges,
                    y=counts / len(pulls) / np.diff(edges),
                    label=f"{name}: {np.mean(abs(pulls) > edges[-1]):.1%} beyond 5",
                    style="steps",
                    table=number,
                )
            )
            bins = quantile_bins(value)
            share = np.array([inside[b].mean() for b in bins])
            error = np.sqrt(share * (1 - share) / [len(b) for b in bins])
            coverage.append(
                Curve(
                    x=10.0 ** np.array([np.median(value[b]) for b in bins]),
                    y=share,
                    low=share - error,
                    high=share + error,
                    label=name,
                    style="points",
                    table=number,
                )
            )
        unbiased = Curve(x=_span(bias), y=np.zeros(2), style="reference")
        figures_of: dict[str, tuple[Panel, ...]] = {
            "energy_bias": (
                Panel(
                    x_label="true energy [GeV]",
                    y_label="log10(predicted / true energy)",
                    curves=(*bias, unbiased),
                    x_log=True,
                ),
            )
        }
        if pull:
            grid = np.linspace(-5, 5, 201)
            normal = np.exp(-((grid * NORMAL_WIDTH) ** 2) / 2)
            normal *= NORMAL_WIDTH / np.sqrt(2 * np.pi)
            expected = Curve(
                x=grid, y=normal, label="normal distribution", style="reference"
            )
            nominal = Curve(
                x=_span(coverage),
                y=np.full(2, SHARE),
                label="68%",
                style="reference",
            )
            figures_of["energy_widths"] = (
                Panel(
                    x_label="pull",
                    y_label="density of events",
                    curves=(*pull, expected),
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
            figures=figures_of,
            captions={
                "energy_bias": "Median and central 68% of log10(predicted / true "
                "energy), in bins of equal numbers of events.",
                "energy_widths": "Left: distribution of the pulls; grey is a normal "
                "distribution whose central 68% lies between -1 and 1. Right: share of "
                "the events whose true energy lies in the predicted 68% interval, with "
                "one standard error.",
            },
            rows=rows,
        )

    def _value_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and scale of log10(E / GeV), (..., B), of (..., B, 2)."""
        low, high = np.log(SMALLEST_SCALE), np.log(LARGEST_SCALE)
        return output[..., 0] + CENTRE, output[..., 1].clamp(low, high).exp()

    def _value_and_width(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and half of the central 68%, (B,) each."""
        value_B, scale_B = self._value_and_scale(output)
        is_student = self.likelihood == "student"
        return value_B, scale_B * (student_width() if is_student else NORMAL_WIDTH)


def has_energy(columns: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which events have an answer, (B,): energy and width above 0 and finite.

    Args:
        columns: The task's columns, (B,) each; the width may be missing.
    """
    values = [columns[n] for n in ("energy", "energy_log10_sigma") if n in columns]
    found: NDArray[np.bool_] = np.all(
        [np.isfinite(v) & (v > 0) for v in values], axis=0
    )
    return found


def _span(curves: list[Curve]) -> Array:
    """Return the least and the largest x of curves, (2,)."""
    x = np.concatenate([curve.x for curve in curves])
    return np.array([x.min(), x.max()])
