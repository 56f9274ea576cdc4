"""Figures of the calibration of kappa: as given, and recalibrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnet_icecube2nd.evaluation.coverage import (
    GIVEN,
    PULL_EDGES,
    TEMPERATURE,
    CalibrationView,
    calibrated_pull_density,
)
from graphnet_icecube2nd.plots import Look, new_figure, plain_log
from graphnet_icecube2nd.report.evaluation.figures import GRID

NEAR = 1.5  # points off the nominal share: what the grey band shows


def draw_coverage(views: Sequence[CalibrationView]) -> Any:
    """Draw the share of true directions in contours, minus the nominal share."""
    figure = new_figure(9.5, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("as given", "recalibrated on other events")
    for axes, title in zip(panels, titles, strict=True):
        axes.axhspan(-NEAR, NEAR, color="0.9", label=f"within {NEAR} percentage points")
        axes.axhline(0.0, color="black", lw=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("nominal share of the contour [%]")
        axes.set_xlim(0, 100)
        axes.set_xticks([10, 30, 50, 70, 90, 99])
    for number, view in enumerate(views):
        look = Look.of(number)
        for way in view.ways:
            rows = [row for row in view.coverage() if row.way == way]
            level = np.array([100 * row.level for row in rows])
            off = np.array([100 * (row.held - row.level) for row in rows])
            error = np.array([196 * row.error for row in rows])
            is_given, is_plain = way == GIVEN, way == TEMPERATURE
            axes = panels[0] if is_given else panels[1]
            name = view.evaluated.name
            axes.plot(
                level,
                off,
                color=look.colour,
                ls=look.line if is_given else ":" if is_plain else "-",
                marker=look.marker,
                ms=3.5,
                mfc="white" if is_plain else look.colour,
                lw=1.2,
                label=name if is_given else f"{name}, {way}",
            )
            if not is_plain:
                axes.fill_between(
                    level, off - error, off + error, color=look.colour, alpha=0.15, lw=0
                )
    panels[0].set_ylabel("share inside minus nominal [percentage points]")
    for axes in panels:
        axes.grid(**GRID)
        axes.set_axisbelow(True)
        axes.legend(fontsize=7.5)
    return figure


def draw_pulls(views: Sequence[CalibrationView]) -> Any:
    """Draw the distribution of pulls, and what calibrated kappas give."""
    figure = new_figure(6.5, 4.0)
    axes = figure.subplots()
    middle = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2
    for number, view in enumerate(views):
        look = Look.of(number)
        density = view.pull_density(GIVEN)
        axes.stairs(
            density,
            PULL_EDGES,
            color=look.colour,
            ls=look.line,
            lw=1.4,
            label=f"{view.evaluated.name}: {_beyond(density):.1%} beyond 5",
        )
        axes.plot(
            middle,
            calibrated_pull_density(view.ways[GIVEN].kappa),
            color=look.colour,
            ls=":",
            lw=1.2,
            label=f"{view.evaluated.name}, if its kappa were calibrated",
        )
    axes.set_xlim(0, 5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pull: opening angle times the root of kappa")
    axes.set_ylabel("density of events")
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)
    return figure


def draw_expected(views: Sequence[CalibrationView]) -> Any:
    """Draw the median opening angle against the median that kappa predicts."""
    figure = new_figure(5.6, 5.2)
    axes = figure.subplots()
    ends = []
    for number, view in enumerate(views):
        look = Look.of(number)
        for way in view.ways:
            if way == TEMPERATURE:
                continue
            rows = [row for row in view.expected() if row.way == way]
            expected, observed, low, high = (
                np.degrees([getattr(row, n) for row in rows])
                for n in ("expected", "observed", "low", "high")
            )
            is_given = way == GIVEN
            axes.errorbar(
                expected,
                observed,
                np.clip([observed - low, high - observed], 0, None),
                color=look.colour,
                marker=look.marker,
                ms=5,
                mfc=look.colour if is_given else "white",
                ls=look.line if is_given else "none",
                lw=1.1,
                capsize=2,
                label=f"{view.evaluated.name}, {way}",
            )
            ends += [*expected.tolist(), *observed.tolist()]
    low, high = 0.8 * min(ends), 1.25 * max(ends)
    axes.plot([low, high], [low, high], color="black", lw=0.8, label="calibrated")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_aspect("equal")
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    axes.set_xlabel("median opening angle that kappa predicts [deg]")
    axes.set_ylabel("median opening angle [deg]")
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7.5)
    return figure


def _beyond(density: Any) -> float:
    """Return the share of events with pulls beyond the last edge."""
    return float(1 - (density * np.diff(PULL_EDGES)).sum())
