"""Calibration of kappa: coverage, pulls, expected and observed opening angles.

Recalibrated figures are cross-fitted: each half of the events is calibrated with the
other half. A table with calibrated contours is evaluated with these contours. Shape
letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.calibration.fit import (
    Recalibrated,
    cross_fitted,
    has_own_contours,
)
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable, Evaluation
from graphnet_icecube2nd.evaluation.rows import Row, columns
from graphnet_icecube2nd.statistics import (
    density,
    effective_events,
    mean,
    quantile,
    quantile_intervals,
    share_error,
    share_interval,
)
from graphnet_icecube2nd.tasks.bins import FEWEST as FEWEST_SHOWN
from graphnet_icecube2nd.tasks.bins import QUANTITIES, X_LABELS, ZENITH, bins_of
from graphnet_icecube2nd.tasks.direction.calibration import (
    containment,
    kappa_to_radius,
    pulls,
)
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.section import (
    Curve,
    DrawnFigure,
    Panel,
    Section,
    bin_panels,
    event_counts,
    shown_columns,
    with_interval,
)
from graphnet_icecube2nd.tasks.task import FEWEST

LEVELS = tuple(round(level / 100, 2) for level in (*range(10, 100, 5), 99))
GIVEN, TEMPERATURE, ISOTONIC = "as given", "temperature", "isotonic"
WAYS = (GIVEN, TEMPERATURE, ISOTONIC)
ENOUGH = 4 * FEWEST  # events needed to fit and evaluate halves
NUM_BINS = 12  # bins of equal numbers of events, ordered by kappa
PULL_EDGES = np.linspace(0.0, 5.0, 51)
NEAR = 1.5  # percentage points: half width of the grey band
MOST_KAPPAS = 2000  # maximum kappas that a density is averaged over

Array = NDArray[np.float64]


class CalibrationView:
    """Coverage, pulls and expected opening angles of one table."""

    def __init__(self, evaluated: EvaluatedTable) -> None:
        self.evaluated, self.name = evaluated, evaluated.table.name
        num = len(evaluated.kappa)
        # A table with contours of its own is calibrated already.
        self.is_calibrated = has_own_contours(evaluated.table)
        can_be = num >= ENOUGH and not self.is_calibrated
        is_known = num >= FEWEST and bool(evaluated.weight.any())
        ways = () if not is_known else WAYS if can_be else (GIVEN,)
        self.ways = {way: _recalibrated(evaluated, way) for way in ways}

    def coverage(self, way: str) -> list[Row]:
        """Return the coverage of the contours, a row for each level.

        Columns: table, way (one of `WAYS`), events (those with a kappa), level (nominal
        share of true directions inside the contour), held (observed share), error
        (standard error of `held`).
        """
        rows = []
        level_B = self.ways[way].level
        # A calibrated table has radii of some contours; its kappa does not give others.
        own, weight = self.evaluated.table.levels, self.evaluated.weight
        for level in own if self.is_calibrated else LEVELS:
            is_held = level_B <= level
            if self.is_calibrated:
                is_held = self.evaluated.angle <= own[level][self.evaluated.has_kappa_B]
            row = event_counts(self.name, weight, {"way": way, "level": level})
            row["held"] = mean(is_held, weight)
            row["error"] = share_error(is_held, weight)
            rows.append(row)
        return rows

    def expected(self, way: str) -> list[Row]:
        """Return expected and observed opening angles in bins of kappa.

        Columns: table, way (one of `WAYS`), events (number in the bin), kappa (median,
        as given or recalibrated), expected_deg (median opening angle that the kappas
        predict), observed_deg (median opening angle), low_deg and high_deg (ends of
        the 95% interval of `observed_deg`).
        """
        rows = []
        angle, of_way = np.degrees(self.evaluated.angle), self.ways[way]
        weight = self.evaluated.weight
        order = np.argsort(-of_way.kappa, kind="stable")
        for some in np.array_split(order, NUM_BINS):
            if not weight[some].any():
                continue
            low, high = quantile_intervals(angle[some], [0.5], weight[some])[0].tolist()
            kappa, expected, observed = (
                float(quantile(values[some], [0.5], weight[some])[0])
                for values in (of_way.kappa, of_way.median, angle)
            )
            rows.append(
                {
                    **event_counts(self.name, weight[some], {"way": way}),
                    "kappa": kappa,
                    "expected_deg": float(np.degrees(expected)),
                    "observed_deg": observed,
                    "low_deg": low,
                    "high_deg": high,
                }
            )
        return rows

    def pull_density(self, way: str) -> Array:
        """Return the density of pulls in the bins of `PULL_EDGES`, shape (50,)."""
        pull = pulls(self.ways[way].kappa, self.evaluated.angle)
        return density(pull, PULL_EDGES, self.evaluated.weight)


def _recalibrated(evaluated: EvaluatedTable, way: str) -> Recalibrated:
    """Return a table's kappas, as given or recalibrated, where events have one."""
    kappa, angle = evaluated.kappa, evaluated.angle
    if way != GIVEN:
        return cross_fitted(kappa, angle, way)
    median = kappa_to_radius(kappa, 0.5).numpy()
    radius_B = evaluated.table.levels.get(0.5)
    if radius_B is not None:  # the table has radii of its own
        median = radius_B[evaluated.has_kappa_B]
    return Recalibrated(kappa=kappa, level=containment(kappa, angle), median=median)


def calibrated_pull_density(kappa: Array, weight: Array | None = None) -> Array:
    """Return the density of pulls of calibrated kappas, in the bins of `PULL_EDGES`.

    Pulls of large kappas follow a Rayleigh distribution. Pulls of small kappas are
    bounded, because an opening angle is at most pi.
    """
    order = np.argsort(kappa, kind="stable")[:: max(1, len(kappa) // MOST_KAPPAS)]
    some = kappa[order]
    angle = np.minimum(PULL_EDGES[:, None] / np.sqrt(some), np.pi)
    inside = np.average(
        containment(np.broadcast_to(some, angle.shape), angle),
        axis=1,
        weights=None if weight is None else weight[order],
    )
    per_unit: Array = np.diff(inside) / np.diff(PULL_EDGES)
    return per_unit


def calibration_sections(evaluation: Evaluation) -> list[Section]:
    """Return the sections of coverage and of predicted opening angles."""
    views = [CalibrationView(evaluated) for evaluated in evaluation.tables]
    views = [view for view in views if view.ways]
    if not views:
        return []
    by_bin = _by_bin(evaluation)
    return [_coverage(views), _expected(views), *([by_bin] if by_bin.rows else [])]


def _by_bin(evaluation: Evaluation) -> Section:
    """Return the section of coverage and pulls in bins that an analysis can make.

    The zenith is the reconstructed one, so each table has its own events in a bin.
    """
    rows: list[Row] = []
    for quantity in QUANTITIES:
        for one in evaluation.tables:
            reconstructed = {QUANTITIES[ZENITH]: one.table.direction_B3[:, 2]}
            known = evaluation.truth.known() | reconstructed
            for some in bins_of(known, quantity):
                chosen_B = some.chosen_B & one.has_kappa_B
                weight = one.weight_B[chosen_B]
                num = effective_events(weight)
                if num < FEWEST_SHOWN:
                    continue
                row: Row = {"quantity": quantity, **some.to_row()}
                row |= event_counts(one.table.name, weight)
                for level in (0.5, 0.9):
                    share = one.inside(level, chosen_B)
                    column = f"inside_{100 * level:.0f}"
                    row |= with_interval(column, share, *share_interval(share, num))
                rows.append(row | {"median_pull": one.median_pull(chosen_B)})
    order = list(dict.fromkeys((row["quantity"], row["bin"]) for row in rows))
    rows.sort(key=lambda row: order.index((row["quantity"], row["bin"])))
    figures = {}
    for level in (0.5, 0.9):
        column = f"inside_{100 * level:.0f}"
        drawn = DrawnFigure(
            column=column,
            label=f"share inside the {level:.0%} contour",
            nominal=level,
        )
        figures[f"coverage_{column}"] = tuple(
            replace(panel, x_label="cosine of the reconstructed zenith")
            if panel.x_label == X_LABELS[ZENITH]
            else panel
            for panel in bin_panels(rows, drawn)
        )
    return Section(
        task=DIRECTION,
        table="coverage_by_bin",
        title="Coverage in bins",
        text="Bins of what is known: the neutrino's energy, reconstructed zenith, "
        "number of pulses, topology.",
        figures=figures,
        captions={
            name: "Share of true directions inside the contour; grey: the nominal "
            "share. Bars are 95% intervals. Bins with fewer than "
            f"{FEWEST_SHOWN} events (with weights: effective events) are not drawn."
            for name in figures
        },
        rows=rows,
        shown=tuple(c for c in shown_columns(rows) if c not in ("low", "high")),
    )


def _coverage(views: Sequence[CalibrationView]) -> Section:
    """Return the section of coverage: nominal and observed shares of the contours."""
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
            ("recalibrated (cross-fitted)", recalibrated),
        )
        if len(curves) > 1
    ]
    return Section(
        task=DIRECTION,
        table="coverage",
        title="Calibration of kappa",
        text="Kappa is calibrated if each contour contains its nominal share of the "
        "true directions. Two recalibrations are shown: 'temperature' multiplies kappa "
        "by one factor, 'isotonic' applies a monotonic function to kappa. Both also "
        "correct the levels of the contours, because real errors have longer tails "
        "than a von Mises-Fisher distribution. They are cross-fitted: each half of the "
        "events is calibrated with the other half. A table with calibrated contours is "
        "evaluated with these contours. Weights do not enter the recalibration, only "
        "its evaluation. The command icecube2nd calibrate stores a "
        "calibration with a model.",
        figures={"coverage": tuple(panels)},
        captions={
            "coverage": "Share of true directions inside the contours of 10% to 99%, "
            "minus the nominal share. Below 0 the contours are too small. Left: kappa "
            "as given. Right: recalibrated kappa (temperature dotted, isotonic solid). "
            "Shaded: 95% intervals."
        },
        rows=rows,
    )


def _expected(views: Sequence[CalibrationView]) -> Section:
    """Return the section of predicted opening angles and pulls."""
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
                y=calibrated_pull_density(
                    view.ways[GIVEN].kappa, view.evaluated.weight
                ),
                label=f"{name}, expected if kappa is calibrated",
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
        text="The events are sorted by kappa and divided into twelve equal bins.",
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
            "expected": "Median opening angle in each bin against the median that "
            "kappa predicts. Above the line errors are larger than predicted. "
            "Open marks: isotonic recalibration. Bars are 95% intervals.",
            "pulls": "Distribution of the pull, opening angle times the root of kappa, "
            "with kappa as given. Dotted: expected distribution if these kappas are "
            "calibrated.",
        },
        rows=rows,
        shown=tuple(c for c in rows[0] if c not in ("low_deg", "high_deg")),
    )
