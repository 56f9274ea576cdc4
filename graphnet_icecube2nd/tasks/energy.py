"""Energies, as the median and the width of log10(E / GeV).

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import ENERGY
from graphnet_icecube2nd.tasks.section import (
    Columns,
    Residuals,
    Section,
    Tables,
    answered_events,
    empty_section,
    residuals_section,
)
from graphnet_icecube2nd.tasks.task import Column, register_task
from graphnet_icecube2nd.tasks.width import WidthTask

Array = NDArray[np.float64]


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
            heavy tails), `gaussian`, or `quantile` (no form is assumed).

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
        tables, target, known, missing = answered_events(
            tables, target, known, self.has_energy
        )
        if not len(target):
            return empty_section(self.name, words.capitalize(), missing)
        median, width = (column.name for column in self.columns[:2])
        answers = {}
        for name, table in tables.items():
            value = np.log10(table[median])
            found = Residuals(value=value, residual=value - target)
            if width in table:  # energies from other software may have no widths
                found = replace(
                    found,
                    width=table[width],
                    is_inside=np.abs(found.residual) <= table[width],
                    pull=found.residual / table[width],
                )
            answers[name] = found

        def in_percent(figures: dict[str, float]) -> dict[str, float]:
            ratio = 10 ** figures["bias_log10"]
            return figures | {"bias_percent": 100 * (ratio - 1)}

        return residuals_section(
            self.name,
            answers,
            target,
            known,
            missing,
            unit="log10",
            true_label=f"true {words} [GeV]",
            label=f"log10(predicted / true {words})",
            is_log10=True,
            caption="Against the true value the bias falls from positive to negative "
            "even for correct predictions. This is regression to the mean: events that "
            "look alike have many energies of a steep spectrum, and the prediction is "
            "their median.",
            figures=in_percent,
        )


@register_task
class Energy(EnergyTask):
    """Energy of the neutrino; see `EnergyTask`."""

    name: ClassVar[str] = "energy"
    truth: ClassVar[tuple[str, ...]] = (ENERGY,)
    columns: ClassVar[tuple[Column, ...]] = energy_columns(
        "energy", "neutrino's energy"
    )
