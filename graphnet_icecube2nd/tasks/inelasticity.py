"""Inelasticity y: the share of the neutrino's energy that goes to hadrons.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.tasks.label import INELASTICITY
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
    columns: ClassVar[tuple[Column, ...]] = (
        Column("inelasticity", "", "median of the inelasticity, 0 to 1"),
        Column("inelasticity_sigma", "", "half of the central 68% of the inelasticity"),
        Column("inelasticity_low_68", "", "lower end of the central 68% interval"),
        Column("inelasticity_high_68", "", "upper end of the central 68% interval"),
    )

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return ln(y / (1 - y)), (B,); NaN if y is not within 0 and 1."""
        return truth[INELASTICITY].logit(EDGE)

    def answer(self, value_B: Tensor, width_B: Tensor) -> dict[str, Tensor]:
        """Return y, its width and the central 68% interval."""
        low_B, high_B = (value_B - width_B).sigmoid(), (value_B + width_B).sigmoid()
        return {
            "inelasticity": value_B.sigmoid(),
            "inelasticity_sigma": (high_B - low_B) / 2,
            "inelasticity_low_68": low_B,
            "inelasticity_high_68": high_B,
        }

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return the bias and the share of true values in the 68% interval."""
        good_B = has_inelasticity(columns)
        if not good_B.any():
            return {"bias": float("nan"), "inside_68": float("nan")}
        columns = {name: values[good_B] for name, values in columns.items()}
        true = expit(target[good_B])
        return {
            "bias": float(np.median(columns["inelasticity"] - true)),
            "inside_68": float(_is_inside(columns, true).mean()),
        }

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return bias and resolution against y, pulls and coverage."""
        tables, target, known, missing = answered_events(
            tables, target, known, has_inelasticity
        )
        if not len(target):
            return empty_section(self.name, "Inelasticity", missing)
        true, answers = expit(target), {}
        for name, table in tables.items():
            value = table["inelasticity"]
            found = Residuals(value=value, residual=value - true)
            if "inelasticity_low_68" in table:  # other software may give no widths
                low, high = table["inelasticity_low_68"], table["inelasticity_high_68"]
                found = replace(
                    found,
                    width=(high - low) / 2,
                    is_inside=_is_inside(table, true),
                    pull=2 * (_logit(value) - target) / (_logit(high) - _logit(low)),
                )
            answers[name] = found
        return residuals_section(
            self.name,
            answers,
            true,
            known,
            missing,
            true_label="true inelasticity",
            text="Pulls are errors and widths of ln(y / (1 - y)).",
        )


def has_inelasticity(columns: Columns) -> NDArray[np.bool_]:
    """Return which events have an inelasticity within 0 and 1, (B,)."""
    good_B: NDArray[np.bool_] = np.all(
        [
            (columns[name] >= 0) & (columns[name] <= 1)  # False for NaN
            for name in ("inelasticity", "inelasticity_low_68", "inelasticity_high_68")
            if name in columns
        ],
        axis=0,
    )
    return good_B


def _is_inside(columns: Columns, true_B: Array) -> NDArray[np.bool_]:
    low_B, high_B = columns["inelasticity_low_68"], columns["inelasticity_high_68"]
    inside_B: NDArray[np.bool_] = (true_B >= low_B) & (true_B <= high_B)
    return inside_B


def expit(value: Array) -> Array:
    """Return the inelasticity of a label ln(y / (1 - y)), (B,)."""
    result: Array = 1 / (1 + np.exp(-value))
    return result


def _logit(share: Array) -> Array:
    share = np.clip(share, 1e-12, 1 - 1e-12)
    result: Array = np.log(share / (1 - share))
    return result
