"""What the report says of directions: sections of plain numbers, as other tasks have.

Shape letters: B events, N points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bins import (
    ENERGY,
    PULSES,
    TOPOLOGY,
    ZENITH,
    binned,
    energy_by_topology,
)
from graphnet_icecube2nd.evaluation.coverage import (
    GIVEN,
    PULL_EDGES,
    TEMPERATURE,
    CalibrationView,
    calibrated_pull_density,
)
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section

Array = NDArray[np.float64]

X_LABELS = {
    ENERGY: "energy of the neutrino [GeV]",
    ZENITH: "cosine of the zenith, 1: from above, -1: through the Earth",
    PULSES: "pulses of the event",
    TOPOLOGY: "topology",
}
MEAN_LABEL = "mean opening angle [rad]"
ANGLES = ("mean_rad", "median_deg", "q68_deg")
SUMMARY = ("median_deg", "q68_deg", "q90_deg", "median_pull", "inside_50", "inside_90")
BINS = ("bin", "table", "events", *ANGLES, "inside_50", "inside_90")
NEAR = 1.5  # points off the nominal share: what the grey band shows
BARS = "Bars are 95% intervals; bins of fewer than 20 events are left out."
# Of each quantity: heading, and what its figure shows.
BY = {
    TOPOLOGY: ("topology", "Mean opening angle by topology."),
    ENERGY: (
        "energy",
        "Opening angle against the energy of the neutrino, in half decades.",
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
    sections = [_summary(evaluation)]
    for quantity, (heading, caption) in BY.items():
        rows = binned(evaluation, quantity)
        panels = _topologies(rows) if quantity == TOPOLOGY else _bins(rows, quantity)
        name = f"by_{quantity.replace(' ', '_')}"
        sections.append(_by(name, heading, caption, rows, panels))
        if quantity == ENERGY:
            rows = energy_by_topology(evaluation)
            caption = (
                "Mean opening angle against energy, for each topology. Over all events "
                "it can rise with energy only because topologies with worse resolution "
                "are more frequent at high energy."
            )
            heading, panels = "energy and topology", _energy_by_topology(rows)
            name = "by_energy_and_topology"
            sections.append(_by(name, heading, caption, rows, panels))
    views = [CalibrationView(evaluated) for evaluated in evaluation.tables]
    views = [view for view in views if view.ways]
    sections += [_coverage(views), _expected(views)]
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
    paired = "Differences are paired: all tables are judged by the same events. "
    difference = ("difference_rad",) if several else ()
    return Section(
        task=DIRECTION,
        table="summary",
        title="Direction",
        text="The mean opening angle in rad is the competition's score. An event "
        "without a predicted direction (failed) counts as pi/2, what guessing gives. "
        "The difference is that of the mean from the first table's. "
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
        shown=("table", "events", "failed", "mean_rad", *difference, *SUMMARY),
    )


def _by(
    name: str, heading: str, caption: str, rows: list[Row], panels: tuple[Panel, ...]
) -> Section:
    """Return a section of bins."""
    topology = ("topology",) if rows and "topology" in rows[0] else ()
    return Section(
        task=DIRECTION,
        table=name,
        title=f"Direction by {heading}",
        text="",
        figures={name: panels},
        captions={name: f"{caption} {BARS}"},
        rows=rows,
        shown=(*topology, *BINS),
    )


def _bins(rows: list[Row], quantity: str) -> tuple[Panel, ...]:
    """Return mean and median opening angle against a quantity that has borders."""
    x_log = quantity != ZENITH
    middle = _geometric if x_log else _arithmetic
    quantiles = [
        Curve(x=c.x, y=c.y, table=c.table, dashed=True)
        for c in _curves(rows, "q68_deg", middle)
    ]
    label = X_LABELS[quantity]
    mean = Panel(
        x_label=label,
        y_label=MEAN_LABEL,
        curves=tuple(_curves(rows, "mean_rad", middle)),
        title="Mean",
        x_log=x_log,
        y_range=(0.0, None),
    )
    median = Panel(
        x_label=label,
        y_label="opening angle [deg]",
        curves=(*_curves(rows, "median_deg", middle), *quantiles),
        title="Median, and 68% (dotted)",
        x_log=x_log,
        y_log=True,
    )
    return mean, median


def _energy_by_topology(rows: list[Row]) -> tuple[Panel, ...]:
    """Return the mean opening angle against energy, a panel for each topology."""
    edges = [row[end] for row in rows for end in ("low", "high")] or [1.0]
    # Decades: else an axis could have no number.
    low, high = np.floor(np.log10(min(edges))), np.ceil(np.log10(max(edges)))
    return tuple(
        Panel(
            x_label=X_LABELS[ENERGY],
            y_label=MEAN_LABEL,
            curves=tuple(
                _curves(
                    [row for row in rows if row["topology"] == kind],
                    "mean_rad",
                    _geometric,
                )
            ),
            title=kind,
            x_log=True,
            x_range=(10**low, 10**high),
            y_range=(0.0, None),
        )
        for kind in _unique(rows, "topology")
    )


def _topologies(rows: list[Row]) -> tuple[Panel, ...]:
    """Return the mean opening angle of each topology."""
    kinds = _unique(rows, "bin")
    counts = {row["bin"]: row["events"] for row in rows}
    curves = _curves(rows, "mean_rad", lambda row: kinds.index(row["bin"]), "points")
    panel = Panel(
        x_label=X_LABELS[TOPOLOGY],
        y_label=MEAN_LABEL,
        curves=tuple(curves),
        x_range=(-0.5, len(kinds) - 0.5),
        y_range=(0.0, None),
        columns=tuple(
            "\n".join([*kind.split(), f"{counts[kind]:,} events"]) for kind in kinds
        ),
    )
    return (panel,)


def _curves(
    rows: Sequence[Row],
    column: str,
    middle: Callable[[Row], float],
    style: str = "joined",
) -> list[Curve]:
    """Return a column with its intervals against the middle of bins, table by table."""
    name, _, unit = column.rpartition("_")
    curves = []
    for number, table in enumerate(_unique(rows, "table")):
        mine = [row for row in rows if row["table"] == table]
        y, low, high = (
            np.array([row[f"{name}{end}_{unit}"] for row in mine])
            for end in ("", "_low", "_high")
        )
        curves.append(
            Curve(
                x=np.array([middle(row) for row in mine], np.float64),
                y=y,
                low=low,
                high=high,
                label=table,
                style=style,
                table=number,
            )
        )
    return curves


def _geometric(row: Row) -> float:
    return sqrt(row["low"] * row["high"])


def _arithmetic(row: Row) -> float:
    return (float(row["low"]) + float(row["high"])) / 2


def _unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the values of a column, each once."""
    return list(dict.fromkeys(row[column] for row in rows))


def _of(rows: Sequence[Row], table: str, way: str) -> list[Row]:
    """Return the rows of a table and a way."""
    return [row for row in rows if row["table"] == table and row["way"] == way]


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
            mine = _of(rows, name, way)
            level, held, error = (
                100 * np.array([row[name] for row in mine], np.float64)
                for name in ("level", "held", "error")
            )
            off: Array = held - level
            is_plain = way == TEMPERATURE
            (given if way == GIVEN else recalibrated).append(
                Curve(
                    x=level,
                    y=off,
                    low=None if is_plain else off - 1.96 * error,
                    high=None if is_plain else off + 1.96 * error,
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
            mine = _of(rows, name, way)
            expected, observed, low, high = (
                np.array([row[f"{n}_deg"] for row in mine], np.float64)
                for n in ("expected", "observed", "low", "high")
            )
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
