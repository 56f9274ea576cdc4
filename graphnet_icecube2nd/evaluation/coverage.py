"""Calibration of kappa: coverage, pulls, expected and observed opening angles.

Recalibrated figures are of events that the calibration was not fitted on: each half of
the events is calibrated by the other. A table that brings contours of a calibration is
judged by those. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.calibration.fit import (
    Recalibrated,
    cross_fitted,
    has_own_contours,
)
from graphnet_icecube2nd.evaluation.bootstrap import resampled_quantiles
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable, Evaluation
from graphnet_icecube2nd.evaluation.rows import Row, columns
from graphnet_icecube2nd.tasks.direction.calibration import (
    containment,
    kappa_to_radius,
    pulls,
)
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section, density
from graphnet_icecube2nd.tasks.task import FEWEST

LEVELS = tuple(round(level / 100, 2) for level in (*range(10, 100, 5), 99))
GIVEN, TEMPERATURE, ISOTONIC = "as given", "temperature", "isotonic"
WAYS = (GIVEN, TEMPERATURE, ISOTONIC)
ENOUGH = 4 * FEWEST  # events that halves can be fitted and looked at
NUM_BINS = 12  # of events in the order of kappa
PULL_EDGES = np.linspace(0.0, 5.0, 51)
NEAR = 1.5  # points off the nominal share: what the grey band shows
MOST_KAPPAS = 2000  # that a density is averaged over

Array = NDArray[np.float64]


class CalibrationView:
    """A table's kappas against what they are worth."""

    def __init__(self, evaluated: EvaluatedTable) -> None:
        self.evaluated, self.name = evaluated, evaluated.table.name
        num = len(evaluated.kappa)
        # Kappa with contours of its own was calibrated: not once more.
        self.is_calibrated = has_own_contours(evaluated.table)
        can_be = num >= ENOUGH and not self.is_calibrated
        ways = () if num < FEWEST else WAYS if can_be else (GIVEN,)
        self.ways = {way: _recalibrated(evaluated, way) for way in ways}

    def coverage(self, way: str) -> list[Row]:
        """Return what contours hold, for each level.

        Columns: table, way (one of `WAYS`), events (that have a kappa), level (the
        share that contours are to hold), held (the share that they hold), error (its
        standard error).
        """
        rows = []
        level_B = self.ways[way].level
        # A calibrated table has the radii of some contours, and no kappa of others.
        own = tuple(self.evaluated.table.levels)
        for level in own if self.is_calibrated else LEVELS:
            held = float((level_B <= level).mean())
            if self.is_calibrated:
                held = self.evaluated.inside(level, self.evaluated.has_kappa_B)
            error = float(np.sqrt(held * (1 - held) / len(level_B)))
            row = {"table": self.name, "way": way, "events": len(level_B)}
            rows.append(row | {"level": level, "held": held, "error": error})
        return rows

    def expected(self, way: str) -> list[Row]:
        """Return how far events are off against what they say, in bins of kappa.

        Columns: table, way (one of `WAYS`), events (in the bin), kappa (median, as
        given or recalibrated), expected_deg (median opening angle that the kappas
        promise), observed_deg (median opening angle), low_deg and high_deg (ends of
        its 95% interval).
        """
        rows = []
        angle, of_way = np.degrees(self.evaluated.angle), self.ways[way]
        order = np.argsort(-of_way.kappa, kind="stable")
        for some in np.array_split(order, NUM_BINS):
            low, high = resampled_quantiles(angle[some], [0.5])[0].tolist()
            rows.append(
                {
                    "table": self.name,
                    "way": way,
                    "events": len(some),
                    "kappa": float(np.median(of_way.kappa[some])),
                    "expected_deg": float(np.degrees(np.median(of_way.median[some]))),
                    "observed_deg": float(np.median(angle[some])),
                    "low_deg": low,
                    "high_deg": high,
                }
            )
        return rows

    def pull_density(self, way: str) -> Array:
        """Return the density of pulls in the bins of `PULL_EDGES`, (50,)."""
        pull = pulls(self.ways[way].kappa, self.evaluated.angle)
        return density(pull, PULL_EDGES)


def _recalibrated(evaluated: EvaluatedTable, way: str) -> Recalibrated:
    """Return a table's kappas in one of the ways, for the events that have one."""
    kappa, angle = evaluated.kappa, evaluated.angle
    if way != GIVEN:
        return cross_fitted(kappa, angle, way)
    median = kappa_to_radius(kappa, 0.5).numpy()
    radius_B = evaluated.table.levels.get(0.5)
    if radius_B is not None:  # its own, of a calibration perhaps
        median = radius_B[evaluated.has_kappa_B]
    return Recalibrated(kappa=kappa, level=containment(kappa, angle), median=median)


def calibrated_pull_density(kappa: Array) -> Array:
    """Return the density of pulls of calibrated kappas, in the bins of `PULL_EDGES`.

    Large kappas follow Rayleigh's; a small one cannot be far off in its own units,
    because the sky ends opposite the direction.
    """
    some = np.sort(kappa)[:: max(1, len(kappa) // MOST_KAPPAS)]
    angle = np.minimum(PULL_EDGES[:, None] / np.sqrt(some), np.pi)
    inside = containment(np.broadcast_to(some, angle.shape), angle).mean(axis=1)
    per_unit: Array = np.diff(inside) / np.diff(PULL_EDGES)
    return per_unit


def calibration_sections(evaluation: Evaluation) -> list[Section]:
    """Return what contours hold, and what kappa promises; tables without are left."""
    views = [CalibrationView(evaluated) for evaluated in evaluation.tables]
    views = [view for view in views if view.ways]
    return [_coverage(views), _expected(views)] if views else []


def _coverage(views: Sequence[CalibrationView]) -> Section:
    """Return the section of contours: what they hold and what they are made for."""
    band = Curve(
        x=np.array([0.0, 100.0]),
        y=np.zeros(2),
        low=np.full(2, -NEAR),
        high=np.full(2, NEAR),
        label=f"within {NEAR} percentage points",
        style="reference",
    )
    rows: list[Row] = []
    given, recalibrated = [band], [band]
    for number, view in enumerate(views):
        name = view.name
        for way in view.ways:
            of_way = view.coverage(way)
            rows += of_way
            level, held, error = columns(of_way, "level", "held", "error")
            off, bar, is_plain = 100 * (held - level), 196 * error, way == TEMPERATURE
            (given if way == GIVEN else recalibrated).append(
                Curve(
                    x=100 * level,
                    y=off,
                    low=None if is_plain else off - bar,
                    high=None if is_plain else off + bar,
                    label=name if way == GIVEN else f"{name}, {way}",
                    table=number,
                    dashed=is_plain,
                )
            )
    panels = [
        Panel(
            x_label="nominal share of the contour [%]",
            y_label="share inside minus nominal [points]",
            curves=tuple(curves),
            title=title,
            x_range=(0.0, 100.0),
        )
        for title, curves in (
            (GIVEN, given),
            ("recalibrated on other events", recalibrated),
        )
        if len(curves) > 1
    ]
    return Section(
        task=DIRECTION,
        table="coverage",
        title="Calibration of kappa",
        text="Kappa is calibrated if each contour contains the share of true "
        "directions that it is made for. Recalibrated figures are of events that the "
        "calibration was not fitted on: each half of the events is calibrated by the "
        "other. A table that comes with calibrated contours is judged by these "
        "contours. Temperature is one factor on kappa, isotonic a rising function of "
        "kappa; both also correct the levels of the contours, because real errors have "
        "longer tails than a von Mises-Fisher distribution. The command icecube2nd "
        "calibrate stores a calibration with a model.",
        figures={"coverage": tuple(panels)},
        captions={
            "coverage": "Share of true directions in contours of 10% to 99%, minus "
            "that nominal share. Left: kappa as given. Right: recalibrated (dotted: "
            "temperature, others: isotonic). Below 0 the contours are too small. "
            "Shaded: 95% intervals."
        },
        rows=rows,
    )


def _expected(views: Sequence[CalibrationView]) -> Section:
    """Return the section of what kappa promises: opening angles and pulls."""
    rows: list[Row] = []
    angles, densities = [], []
    middle = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2
    for number, view in enumerate(views):
        name = view.name
        for way in view.ways:
            of_way = view.expected(way)
            rows += of_way
            if way == TEMPERATURE:
                continue
            names = ("expected_deg", "observed_deg", "low_deg", "high_deg")
            expected, observed, low, high = columns(of_way, *names)
            angles.append(
                Curve(
                    x=expected,
                    y=observed,
                    low=low,
                    high=high,
                    label=f"{name}, {way}",
                    style="joined" if way == GIVEN else "points",
                    table=number,
                    dashed=way != GIVEN,
                )
            )
        per_unit = view.pull_density(GIVEN)
        beyond = 1 - float((per_unit * np.diff(PULL_EDGES)).sum())
        densities += [
            Curve(
                x=PULL_EDGES,
                y=per_unit,
                label=f"{name}: {beyond:.1%} beyond 5",
                style="steps",
                table=number,
            ),
            Curve(
                x=middle,
                y=calibrated_pull_density(view.ways[GIVEN].kappa),
                label=f"{name}, if its kappa were calibrated",
                table=number,
                dashed=True,
            ),
        ]
    ends = [row[name] for row in rows for name in ("expected_deg", "observed_deg")]
    ends = [end for end in ends if end > 0]  # axes are logarithmic
    limits = (0.8 * min(ends), 1.25 * max(ends))
    diagonal = np.array(limits)
    line = Curve(x=diagonal, y=diagonal, label="calibrated", style="reference")
    return Section(
        task=DIRECTION,
        table="expected",
        title="Opening angles that kappa predicts",
        text="The events are in twelve bins of equal numbers, in the order of kappa.",
        figures={
            "expected": (
                Panel(
                    x_label="median opening angle that kappa predicts [deg]",
                    y_label="median opening angle [deg]",
                    curves=(*angles, line),
                    x_log=True,
                    y_log=True,
                    x_range=limits,
                    y_range=limits,
                ),
            ),
            "pulls": (
                Panel(
                    x_label="pull: opening angle times the root of kappa",
                    y_label="density of events",
                    curves=tuple(densities),
                    x_range=(0.0, 5.0),
                    y_range=(0.0, None),
                ),
            ),
        },
        captions={
            "expected": "Median opening angle against the median that kappa predicts, "
            "with 95% intervals. Above the line the errors are larger than predicted. "
            "Open marks: isotonic recalibration.",
            "pulls": "Distribution of opening angle times the root of kappa, as given; "
            "dotted: what the same kappas give if they are calibrated.",
        },
        rows=rows,
        shown=("table", "way", "events", "kappa", "expected_deg", "observed_deg"),
    )
