"""Energies, as the median and the width of log10(E / GeV).

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import ENERGY
from graphnet_icecube2nd.tasks.section import (
    LEFT_OUT,
    Columns,
    Panel,
    Section,
    Tables,
    answered_events,
    empty_section,
    quantile_bins,
    quantile_curve,
    share_curve,
)
from graphnet_icecube2nd.tasks.task import Column, register_task
from graphnet_icecube2nd.tasks.width import (
    SHARE,
    WidthTask,
    horizontal_line,
    pull_curve,
    width_panels,
)

Array = NDArray[np.float64]
# Metrics of a table that need predicted widths.
WIDTH_FIGURES = ("median_width_log10", "inside_68", "pull_68")


def energy_columns(name: str, what: str) -> tuple[Column, ...]:
    """Return the columns of an energy task; `what` describes the energy."""
    return (
        Column(name, "GeV", f"median of the {what}"),
        Column(f"{name}_log10_sigma", "", "half of the central 68% of log10(E / GeV)"),
        Column(f"{name}_low_68", "GeV", "lower end of the central 68% interval"),
        Column(f"{name}_high_68", "GeV", "upper end of the central 68% interval"),
    )


class EnergyTask(WidthTask):
    """Base of tasks that answer with an energy.

    The outputs are the median of log10(E / GeV) minus `centre`, and the logarithm of
    the scale of its distribution. A subclass defines `name`, `truth` (one label) and
    `columns` (see `energy_columns`).

    Args:
        likelihood: Distribution of the energy: `student` (4 degrees of freedom, with
            heavy tails) or `gaussian`.

    Raises:
        ValueError: The likelihood is unknown.
    """

    centre: ClassVar[float] = 3.0
    error_name: ClassVar[str] = "log10_error"
    # A weight of 1 would clip early gradients of all tasks and delay directions.
    default_weight: ClassVar[float] = 0.1

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return log10(E / GeV), (B,); NaN if there is no energy above 0."""
        energy_B = truth[self.truth[0]]
        return torch.where(energy_B > 0, energy_B, torch.nan).log10()

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return energy [GeV], its width in log10 and the central 68% interval."""
        median, width, low, high = (column.name for column in self.columns)
        return {
            median: 10**value_B,
            width: width_B,
            low: 10 ** (value_B - width_B),
            high: 10 ** (value_B + width_B),
        }

    def has_energy(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which events have energy and width above 0 and finite, (B,)."""
        values = [columns[c.name] for c in self.columns[:2] if c.name in columns]
        good_B: NDArray[np.bool_] = np.all(
            [np.isfinite(value_B) & (value_B > 0) for value_B in values], axis=0
        )
        return good_B

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return bias in log10 and the share of true values in the 68% interval."""
        good_B = self.has_energy(columns)
        if not good_B.any():
            return {"bias_log10": float("nan"), "inside_68": float("nan")}
        median, width = (columns[column.name][good_B] for column in self.columns[:2])
        residual = np.log10(median) - target[good_B]
        inside = np.abs(residual) <= width
        return {
            "bias_log10": float(np.median(residual)),
            "inside_68": float(inside.mean()),
        }

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return bias, resolution, pulls and coverage against energy."""
        words = self.name.replace("_", " ")
        title = words.capitalize()
        tables, target, missing = answered_events(tables, target, self.has_energy)
        if not len(target):
            return empty_section(self.name, title, missing)
        rows: list[dict[str, Any]] = []
        bias, pulls, coverage = [], [], []
        for number, (name, table) in enumerate(tables.items()):
            value = np.log10(table[self.columns[0].name])
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
            width = table.get(self.columns[1].name)
            if width is None:  # energies from other software may have no widths
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
            f"{self.name}_bias": (
                Panel(
                    x_label=f"true {words} [GeV]",
                    y_label=f"log10(predicted / true {words})",
                    curves=(*bias, horizontal_line(bias, 0.0)),
                    x_log=True,
                ),
            )
        }
        if pulls:
            panels[f"{self.name}_widths"] = width_panels(
                pulls, coverage, f"predicted {words} [GeV]", x_log=True
            )
        return Section(
            task=self.name,
            title=title,
            text=f"The bias is the median of log10(predicted / true {words}); the "
            "resolution is half the width of its central 68%. The pull is that "
            "logarithm divided by the predicted width (half of the predicted central "
            "68%). If the predicted widths are right, 68% of the pulls lie between -1 "
            "and 1, and 68% of the true energies lie in the predicted intervals. In "
            "the table, 'inside 68%' is the second share. 'pull 68%' is the absolute "
            "pull that 68% of the events do not exceed: 1 if the widths are right, "
            "more if they are too small." + LEFT_OUT * any(missing.values()),
            figures=panels,
            captions={
                f"{self.name}_bias": "Median and central 68% of log10(predicted / true "
                f"{words}), in bins of equal numbers of events. Against the true value "
                "the bias falls from positive to negative even for correct "
                "predictions. This is regression to the mean: events that look alike "
                "have many energies of a steep spectrum, and the prediction is their "
                "median.",
                f"{self.name}_widths": "Left: distribution of the pulls; grey is a "
                "normal distribution whose central 68% lies between -1 and 1. Right: "
                "share of the events whose true energy lies in the predicted 68% "
                "interval, with one standard error.",
            },
            rows=rows,
        )


@register_task
class Energy(EnergyTask):
    """Energy of the neutrino; see `EnergyTask`."""

    name: ClassVar[str] = "energy"
    truth: ClassVar[tuple[str, ...]] = (ENERGY,)
    columns: ClassVar[tuple[Column, ...]] = energy_columns(
        "energy", "neutrino's energy"
    )
