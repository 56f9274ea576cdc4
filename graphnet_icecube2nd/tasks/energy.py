"""Energy: the neutrino's, as the median and the width of log10(E / GeV).

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import ENERGY
from graphnet_icecube2nd.tasks.section import (
    Curve,
    Panel,
    Section,
    quantile_bins,
    running_quantiles,
)
from graphnet_icecube2nd.tasks.task import Calibration, Column, Task, register_task
from graphnet_icecube2nd.tasks.width import (
    NORMAL_WIDTH,
    SHARE,
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

    def calibration_figures(
        self, columns: Mapping[str, Array], target: Array
    ) -> dict[str, float]:
        """Return bias in log10 and the share of the truth in the 68% interval."""
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
        rows: list[dict[str, Any]] = []
        bias, pull, coverage = [], [], []
        for number, (name, table) in enumerate(tables.items()):
            value = np.log10(table["energy"])
            width = table["energy_log10_sigma"]
            residual = value - target
            pulls = residual / width
            low, median, high = np.quantile(residual, [0.16, 0.5, 0.84])
            inside = np.abs(residual) <= width
            rows.append(
                {
                    "table": name,
                    "events": len(residual),
                    "bias_log10": float(median),
                    "resolution_log10": float(high - low) / 2,
                    "bias_percent": 100 * float(10**median - 1),
                    "median_width_log10": float(np.median(width)),
                    "inside_68": float(inside.mean()),
                    "pull_68": float(np.quantile(np.abs(pulls), SHARE)),
                }
            )
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
            edges = np.linspace(-5, 5, 51)
            counts, _ = np.histogram(pulls, edges, density=True)
            pull.append(
                Curve(x=edges, y=counts, label=name, style="steps", table=number)
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
        grid = np.linspace(-5, 5, 201)
        normal = np.exp(-((grid * NORMAL_WIDTH) ** 2) / 2)
        normal *= NORMAL_WIDTH / np.sqrt(2 * np.pi)
        pull.append(Curve(x=grid, y=normal, label="normal", style="reference"))
        span = np.array([coverage[0].x.min(), coverage[0].x.max()])
        held = Curve(x=span, y=np.full(2, SHARE), style="reference")
        return Section(
            task=self.name,
            title="Energy",
            text="Bias is the median of predicted less true log10(E / GeV), resolution "
            "half of the central 68%. A pull is that difference in units of the "
            "predicted width; 68% of the pulls lie within 1 if the widths hold.",
            figures={
                "energy_bias": (
                    Panel(
                        x_label="true energy [GeV]",
                        y_label="log10(predicted / true energy)",
                        curves=tuple(bias),
                        x_log=True,
                    ),
                ),
                "energy_widths": (
                    Panel(
                        x_label="pull",
                        y_label="density",
                        curves=tuple(pull),
                        title="Pulls",
                    ),
                    Panel(
                        x_label="predicted energy [GeV]",
                        y_label="share in the 68% interval",
                        curves=(*coverage, held),
                        x_log=True,
                        y_range=(0.0, 1.0),
                        title="Coverage",
                    ),
                ),
            },
            captions={
                "energy_bias": "Median and central 68% of predicted over true energy, "
                "in bins of equal numbers of events.",
                "energy_widths": "Left: pulls beside a normal distribution whose "
                "central 68% lies within 1. Right: share of the events whose true "
                "energy lies in the predicted 68% interval, with one standard error.",
            },
            rows=rows,
        )

    def _value_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and scale of log10(E / GeV), (B,) each."""
        low, high = np.log(SMALLEST_SCALE), np.log(LARGEST_SCALE)
        return output[:, 0] + CENTRE, output[:, 1].clamp(low, high).exp()

    def _value_and_width(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return median and half of the central 68%, (B,) each."""
        value_B, scale_B = self._value_and_scale(output)
        is_student = self.likelihood == "student"
        return value_B, scale_B * (student_width() if is_student else NORMAL_WIDTH)
