"""Inelasticity y: the share of the neutrino's energy that goes to hadrons.

The visible inelasticity is the share of the visible energy; NuBench has its column.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import INELASTICITY, VISIBLE_INELASTICITY
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
EDGE = 1e-3  # values nearer to 0 or 1 count as this far from them


def _columns(name: str) -> tuple[Column, ...]:
    words = name.replace("_", " ")
    return (
        Column(name, "", f"median of the {words}, 0 to 1"),
        Column(f"{name}_sigma", "", f"half of the central 68% of the {words}"),
        Column(f"{name}_low_68", "", "lower end of the central 68% interval"),
        Column(f"{name}_high_68", "", "upper end of the central 68% interval"),
    )


@register_task
class Inelasticity(WidthTask):
    """Inelasticity of a neutrino's interaction, Bjorken y.

    The outputs are the median of ln(y / (1 - y)) and the logarithm of the scale of its
    distribution, so that values and intervals lie within 0 and 1.

    Args:
        likelihood: Distribution of ln(y / (1 - y)): `student` (4 degrees of freedom,
            with heavy tails) or `gaussian`.

    Raises:
        ValueError: The likelihood is unknown.
    """

    name: ClassVar[str] = "inelasticity"
    truth: ClassVar[tuple[str, ...]] = (INELASTICITY,)
    error_name: ClassVar[str] = "logit_error"
    default_weight: ClassVar[float] = 0.1
    columns: ClassVar[tuple[Column, ...]] = _columns(INELASTICITY)

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return ln(y / (1 - y)), (B,); NaN if y is not within 0 and 1."""
        return truth[self.truth[0]].logit(EDGE)

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return y, its width and the central 68% interval."""
        low_B, high_B = (value_B - width_B).sigmoid(), (value_B + width_B).sigmoid()
        values = value_B.sigmoid(), (high_B - low_B) / 2, low_B, high_B
        names = (column.name for column in self.columns)
        return dict(zip(names, values, strict=True))

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return the bias and the share of true values in the 68% interval."""
        good_B = self.has_answer(columns)
        if not good_B.any():
            return {"bias": float("nan"), "inside_68": float("nan")}
        columns = {name: values[good_B] for name, values in columns.items()}
        true = expit(target[good_B])
        return {
            "bias": float(np.median(columns[self.name] - true)),
            "inside_68": float(self._is_inside(columns, true).mean()),
        }

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return bias and resolution against y, pulls and coverage."""
        tables, target, known, missing = answered_events(
            tables, target, known, self.has_answer
        )
        words = self.name.replace("_", " ")
        if not len(target):
            return empty_section(self.name, words.capitalize(), missing)
        true, answers = expit(target), {}
        for name, table in tables.items():
            value = table[self.name]
            found = Residuals(value=value, residual=value - true)
            if f"{self.name}_low_68" in table:  # other software may give no widths
                low, high = self._interval(table)
                found = replace(
                    found,
                    width=(high - low) / 2,
                    is_inside=self._is_inside(table, true),
                    pull=2 * (_logit(value) - target) / (_logit(high) - _logit(low)),
                )
            answers[name] = found
        return residuals_section(
            self.name,
            answers,
            true,
            known,
            missing,
            true_label=f"true {words}",
            text="Pulls are errors and widths of ln(y / (1 - y)).",
        )

    def has_answer(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which events have an inelasticity within 0 and 1, (B,)."""
        good_B: NDArray[np.bool_] = np.all(
            [
                (columns[name] >= 0) & (columns[name] <= 1)  # False for NaN
                for name in (f"{self.name}{end}" for end in ("", "_low_68", "_high_68"))
                if name in columns
            ],
            axis=0,
        )
        return good_B

    def _interval(self, columns: Columns) -> tuple[Array, Array]:
        return columns[f"{self.name}_low_68"], columns[f"{self.name}_high_68"]

    def _is_inside(self, columns: Columns, true_B: Array) -> NDArray[np.bool_]:
        low_B, high_B = self._interval(columns)
        inside_B: NDArray[np.bool_] = (true_B >= low_B) & (true_B <= high_B)
        return inside_B


@register_task
class VisibleInelasticity(Inelasticity):
    """Visible inelasticity, as in NuBench's files; see `Inelasticity`."""

    name: ClassVar[str] = VISIBLE_INELASTICITY
    truth: ClassVar[tuple[str, ...]] = (VISIBLE_INELASTICITY,)
    columns: ClassVar[tuple[Column, ...]] = _columns(VISIBLE_INELASTICITY)


def expit(value: Array) -> Array:
    """Return the inelasticity of a label ln(y / (1 - y)), (B,)."""
    result: Array = 1 / (1 + np.exp(-value))
    return result


def _logit(share: Array) -> Array:
    share = np.clip(share, 1e-12, 1 - 1e-12)
    result: Array = np.log(share / (1 - share))
    return result
