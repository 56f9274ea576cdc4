"""What the report says of directions: sections of plain numbers, as other tasks have.

Shape letters: B events, N points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.coverage import (
    GIVEN,
    PULL_EDGES,
    TEMPERATURE,
    CalibrationView,
    calibrated_pull_density,
)
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.evaluation.resolution import (
    ENERGY,
    FEWEST,
    PULSES,
    TOPOLOGY,
    ZENITH,
    binned,
    energy_by_topology,
)
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section

Array = NDArray[np.float64]

BOTH = "energy and topology"
X_LABELS = {
    ENERGY: "energy of the neutrino [GeV]",
    ZENITH: "cosine of the zenith, 1: from above, -1: through the Earth",
    PULSES: "pulses of the event",
    TOPOLOGY: "topology",
}
INSIDE = ("inside_50", "inside_90")
NEAR = 1.5  # points off the nominal share: what the grey band shows
# Of each quantity: heading, and what its figure shows.
BY = {
    TOPOLOGY: ("topology", "Mean opening angle by topology."),
    ENERGY: (
        "energy",
        "Opening angle against the energy of the neutrino, in half decades.",
    ),
    BOTH: (
        BOTH,
        "Mean opening angle against energy, for each topology. Over all events it can "
        "rise with energy only because topologies with worse resolution are more "
        "frequent at high energy.",
    ),
    ZENITH: (
        "zenith",
        "Opening angle against the cosine of the true zenith: 1 is from above, -1 is "
        "through the Earth.",
    ),
    PULSES: (
        "number of pulses",
        "Opening angle against the number of pulses of the event, before any selection "
        "of pulses.",
    ),
}


def direction_sections(evaluation: Evaluation) -> list[Section]:
    """Return the sections of directions; none where no directions are evaluated.

    Args:
        evaluation: The tables beside the truth.
    """
    if not evaluation.tables:
        return []
    views = [CalibrationView(evaluated) for evaluated in evaluation.tables]
    views = [view for view in views if view.ways]
    sections = [
        _summary(evaluation),
        *(_by(evaluation, quantity) for quantity in BY),
        _coverage(views),
        _expected(views),
    ]
    return [section for section in sections if section.rows]


def _summary(evaluation: Evaluation) -> Section:
    """Return the section of all events: the summaries and the distribution."""
    several = len(evaluation.tables) > 1
    curves, medians = [], []
    share = (np.arange(len(evaluation.truth)) + 1) / len(evaluation.truth)
    lowest = 180.0
    for number, evaluated in enumerate(evaluation.tables):
        angle = np.degrees(np.sort(evaluated.angle_B))
        median = np.array([np.median(angle)])
        label = f"{evaluated.name}: median {median[0]:.3g} deg"
        curves.append(Curve(x=angle, y=share, label=label, table=number))
        half = np.array([0.5])
        medians.append(Curve(x=median, y=half, style="points", table=number))
        lowest = min(lowest, float(np.quantile(angle, 0.005)))
    angle = np.geomspace(max(lowest, 1e-3), 180.0, 300)
    guess = (1 - np.cos(np.radians(angle))) / 2
    references = (
        Curve(x=angle, y=guess, label="guessing", style="reference"),
        Curve(x=angle[[0, -1]], y=np.full(2, 0.5), style="reference"),
    )
    panel = Panel(
        x_label="opening angle [deg]",
        y_label="share of the events that are closer",
        curves=(*curves, *medians, *references),
        x_log=True,
        x_range=(angle[0], 180.0),
        y_range=(0.0, 1.0),
    )
    paired = (
        "The difference is that of the mean from the first table's, and paired: all "
        "tables are judged by the same events. "
    )
    difference = ("difference_rad",) if several else ()
    return Section(
        task=DIRECTION,
        table="summary",
        title="Direction",
        text="The mean opening angle in rad is the competition's score. An event "
        "without a predicted direction (failed) counts as pi/2, what guessing gives. "
        + (paired if several else "")
        + "The median pull, opening angle times the root of kappa, is 1.18 if kappa is "
        "calibrated and large. The last columns are the shares of true directions "
        "inside the 50% and 90% contours. Small numbers are the ends of 95% bootstrap "
        "intervals.",
        figures={"distribution": (panel,)},
        captions={
            "distribution": "Share of the events whose opening angle is smaller. Marks "
            "are medians; grey is what a random direction gives."
        },
        rows=[summary.to_row() for summary in evaluation.summaries],
        shown=(
            *("table", "events", "failed", "mean_rad", *difference, "median_deg"),
            *("q68_deg", "q90_deg", "median_pull", *INSIDE),
        ),
    )


def _by(evaluation: Evaluation, quantity: str) -> Section:
    """Return the section of bins of a quantity; without rows where it is not known."""
    is_both = quantity == BOTH
    rows = energy_by_topology(evaluation) if is_both else binned(evaluation, quantity)
    name = f"by_{quantity.replace(' ', '_')}"
    heading, caption = BY[quantity]
    return Section(
        task=DIRECTION,
        table=name,
        title=f"Direction by {heading}",
        text="",
        figures={name: _panels(rows, quantity) if rows else ()},
        captions={
            name: f"{caption} Bars are 95% intervals; bins of fewer than {FEWEST} "
            "events are left out."
        },
        rows=rows,
        shown=(
            *(("topology",) if is_both else ()),
            *("bin", "table", "events", "mean_rad", "median_deg", "q68_deg", *INSIDE),
        ),
    )


def _panels(rows: Sequence[Row], quantity: str) -> tuple[Panel, ...]:
    """Return opening angles against a quantity."""
    if quantity == BOTH:
        # Whole decades: else an axis could have no number.
        low = 10 ** np.floor(np.log10(min(row["low"] for row in rows)))
        high = 10 ** np.ceil(np.log10(max(row["high"] for row in rows)))
        kinds = _unique(rows, "topology")
        apart = ([r for r in rows if r["topology"] == kind] for kind in kinds)
        panels = [_panel(some, "mean_rad", ENERGY) for some in apart]
        return tuple(
            replace(panel, title=kind, x_range=(float(low), float(high)))
            for panel, kind in zip(panels, kinds, strict=True)
        )
    mean = replace(_panel(rows, "mean_rad", quantity), title="Mean")
    if quantity == TOPOLOGY:
        counts = {row["bin"]: f"{row['events']:,} events" for row in rows}
        names = ("\n".join([*kind.split(), text]) for kind, text in counts.items())
        limits = (-0.5, len(counts) - 0.5)
        return (replace(mean, title="", x_range=limits, columns=tuple(names)),)
    median = _panel(rows, "median_deg", quantity)
    q68 = (
        replace(c, style="line", dashed=True, label="", low=None, high=None)
        for c in _panel(rows, "q68_deg", quantity).curves
    )
    title = "Median, and 68% (dotted)"
    return mean, replace(median, title=title, curves=(*median.curves, *q68))


def _panel(rows: Sequence[Row], column: str, quantity: str) -> Panel:
    """Return a column with its intervals against bins, a curve for each table."""
    name, _, unit = column.rpartition("_")
    curves = []
    for number, table in enumerate(_unique(rows, "table")):
        mine = [row for row in rows if row["table"] == table]
        ends = (f"{name}_low_{unit}", f"{name}_high_{unit}")
        left, right, y, low, high = _columns(mine, "low", "high", column, *ends)
        x = (left + right) / 2 if quantity == ZENITH else np.sqrt(left * right)
        if quantity == TOPOLOGY:  # no borders, but a name for each whole number
            x = np.arange(len(mine), dtype=np.float64)
        style = "points" if quantity == TOPOLOGY else "joined"
        curves.append(
            Curve(x=x, y=y, low=low, high=high, label=table, style=style, table=number)
        )
    is_mean = unit == "rad"
    return Panel(
        x_label=X_LABELS[quantity],
        y_label=f"{'mean ' if is_mean else ''}opening angle [{unit}]",
        curves=tuple(curves),
        x_log=quantity in (ENERGY, PULSES),
        y_log=not is_mean,
        y_range=(0.0, None) if is_mean else None,
    )


def _unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the values of a column, each once."""
    return list(dict.fromkeys(row[column] for row in rows))


def _columns(rows: Sequence[Row], *names: str) -> list[Array]:
    """Return columns of rows as arrays."""
    return [np.array([row[name] for row in rows], np.float64) for name in names]


def _coverage(views: Sequence[CalibrationView]) -> Section:
    """Return the section of contours: what they hold and what they are made for."""
    rows = [row for view in views for row in view.coverage()]
    band = Curve(
        x=np.array([0.0, 100.0]),
        y=np.zeros(2),
        low=np.full(2, -NEAR),
        high=np.full(2, NEAR),
        label=f"within {NEAR} percentage points",
        style="reference",
    )
    given, recalibrated = [band], [band]
    for number, view in enumerate(views):
        name = view.evaluated.name
        for way in view.ways:
            mine = [r for r in rows if (r["table"], r["way"]) == (name, way)]
            level, held, error = _columns(mine, "level", "held", "error")
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
            ("as given", given),
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
    rows = [row for view in views for row in view.expected()]
    angles, densities = [], []
    middle = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2
    for number, view in enumerate(views):
        name = view.evaluated.name
        for way in view.ways:
            if way == TEMPERATURE:
                continue
            mine = [r for r in rows if (r["table"], r["way"]) == (name, way)]
            names = ("expected_deg", "observed_deg", "low_deg", "high_deg")
            expected, observed, low, high = _columns(mine, *names)
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
        density = view.pull_density(GIVEN)
        beyond = 1 - float((density * np.diff(PULL_EDGES)).sum())
        densities += [
            Curve(
                x=PULL_EDGES,
                y=density,
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
    limits = (0.8 * min(ends, default=1.0), 1.25 * max(ends, default=1.0))
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
