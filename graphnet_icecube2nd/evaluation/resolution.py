"""Opening angles of directions in bins of topology, energy, zenith and pulses.

`compare` gives plain numbers without intervals. `direction_sections` gives the sections
of an evaluation's report. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable, Evaluation
from graphnet_icecube2nd.evaluation.rows import (
    Row,
    columns,
    markdown_table,
    without_nan,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import ALL, EventTruth
from graphnet_icecube2nd.statistics import effective_events, mean, quantile
from graphnet_icecube2nd.tasks.bins import (
    ENERGY,
    FEWEST,
    IS_LOG,
    PULSES,
    QUANTITIES,
    TOPOLOGY,
    X_LABELS,
    ZENITH,
    bins_of,
    centre,
    energy_edges,
    split,
    weights_of,
)
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section

BOTH = "energy and topology"
INSIDE = ("inside_50", "inside_90")
EVENTS = ("table", "events", "effective_events")
# Heading and caption for each quantity.
BY = {
    TOPOLOGY: ("topology", "Mean opening angle by topology."),
    ENERGY: (
        "energy",
        "Opening angle against the energy of the neutrino, in half decades.",
    ),
    BOTH: (
        BOTH,
        "Mean opening angle against energy, for each topology. The mean over all "
        "topologies can rise with energy only because topologies with worse resolution "
        "are more frequent at high energy.",
    ),
    ZENITH: (
        "zenith",
        "Opening angle against the cosine of the true zenith: 1 means from above, -1 "
        "through the Earth.",
    ),
    PULSES: (
        "number of pulses",
        "Opening angle against the number of pulses of the event, before the selection "
        "of pulses.",
    ),
}

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Angular resolution of a table for some of the events."""

    table: str
    topology: str  # name, or `all`
    energy: str  # decade such as `1e3-1e4 GeV`, or `all`
    events: int  # including those without a direction
    failed: int  # events without a direction, which count as pi / 2
    mean: float  # opening angle, rad; the competition's score
    median: float  # opening angle, deg
    q68: float  # opening angle, deg
    pull: float  # median of angle * sqrt(kappa): 1.18 if kappa is calibrated; or NaN


def compare(tables: Sequence[EventTable], truth: EventTruth) -> list[Resolution]:
    """Return the resolution of tables: for all events, by topology, and by energy.

    Any reconstruction can be compared: put its directions into an `EventTable`.

    Args:
        tables: Tables of directions, each with all events of the truth.
        truth: True directions; events without one are left out.

    Raises:
        ValueError: A table lacks an event, two tables have one name, there is no event,
            or no event has a true direction.
    """
    truth = truth.with_directions()
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(
            f"tables must have different names, found {', '.join(sorted(names))}"
        )
    if not len(truth.event_id):
        raise ValueError("the truth must have at least one event, found none")
    evaluated = [EvaluatedTable.of(table, truth) for table in tables]
    everything = np.ones(len(truth), bool)
    topologies = {ALL: everything}
    names = sorted(set(np.unique(truth.topology_B).tolist()) - {ALL})
    topologies |= {t: truth.topology_B == t for t in names}
    decades = {ALL: everything}
    edges = energy_edges(truth.energy_B, per_decade=1)
    for low, high, in_decade_B in split(truth.energy_B, edges):
        first, last = round(np.log10(low)), round(np.log10(high))
        decades[f"1e{first}-1e{last} GeV"] = in_decade_B
    return [
        _resolution(one, topology, decade, is_topology_B & in_decade_B)
        for topology, is_topology_B in topologies.items()
        for decade, in_decade_B in decades.items()
        if (is_topology_B & in_decade_B).any()
        for one in evaluated
    ]


def as_markdown(rows: Sequence[Resolution]) -> str:
    """Return rows as a table in Markdown."""
    headings = ("topology", "energy", "events", "table", "mean, rad", "median, deg")
    cells = [
        (
            *(row.topology.replace("_", " "), row.energy, row.events, row.table),
            *(f"{row.mean:.3f}", f"{row.median:.1f}", f"{row.q68:.1f}"),
            "-" if np.isnan(row.pull) else f"{row.pull:.2f}",
            row.failed,
        )
        for row in rows
    ]
    return "\n".join(markdown_table((*headings, "68%, deg", "pull", "failed"), cells))


def as_dicts(rows: Sequence[Resolution]) -> list[Row]:
    """Return rows as dictionaries that JSON can hold."""
    return without_nan(asdict(row) for row in rows)


def binned(evaluation: Evaluation, quantity: str) -> list[Row]:
    """Return a row for each bin of a quantity and each table, bins in their order.

    A row has the quantity, name and borders of the bin (NaN for a topology) and the
    table's `Summary` of the bin's events. There are no rows if the truth does not have
    the quantity.
    """
    check_one_of("quantity", quantity, tuple(QUANTITIES))
    return [
        {"quantity": quantity, **some.to_row(), **summary.to_row()}
        for some in bins_of(evaluation.truth.known(), quantity)
        for summary in evaluation.summaries_of(some.chosen_B)
    ]


def energy_by_topology(evaluation: Evaluation) -> list[Row]:
    """Return rows of bins of energy for each topology."""
    known = evaluation.truth.known()
    weight_B = weights_of(known, len(evaluation.truth))
    energies, rows = list(bins_of(known, ENERGY)), []
    for kind in bins_of(known, TOPOLOGY):
        for some in energies:
            chosen_B = kind.chosen_B & some.chosen_B
            if effective_events(weight_B[chosen_B]) < FEWEST:
                continue
            here = {"quantity": ENERGY, "topology": kind.name, **some.to_row()}
            rows += [
                here | summary.to_row() for summary in evaluation.summaries_of(chosen_B)
            ]
    return rows


def _resolution(
    evaluated: EvaluatedTable, topology: str, energy: str, chosen_B: Chosen
) -> Resolution:
    angle, weight = evaluated.angle_B[chosen_B], evaluated.weight_B[chosen_B]
    median, q68 = np.degrees(quantile(angle, [0.5, 0.68], weight))
    return Resolution(
        table=evaluated.table.name,
        topology=topology,
        energy=energy,
        events=len(angle),
        failed=evaluated.num_failed(chosen_B),
        mean=mean(angle, weight),
        median=float(median),
        q68=float(q68),
        pull=evaluated.median_pull(chosen_B),
    )


def direction_sections(evaluation: Evaluation) -> list[Section]:
    """Return the sections of opening angles; none if no directions are evaluated."""
    if not evaluation.tables:
        return []
    bins = [_by(evaluation, quantity) for quantity in BY]
    return [_summary(evaluation), *(section for section in bins if section.rows)]


def _summary(evaluation: Evaluation) -> Section:
    """Return the section of all events: the summaries and the distribution."""
    curves, medians = [], []
    lowest = 90.0  # deg, also if all directions point the wrong way
    for number, evaluated in enumerate(evaluation.tables):
        order = np.argsort(evaluated.angle_B, kind="stable")
        weight = evaluated.weight_B[order]
        angle, share = np.degrees(evaluated.angle_B[order]), np.cumsum(weight)
        share = share / share[-1]
        median = quantile(angle, [0.5], weight)
        label = f"{evaluated.table.name}: median {median[0]:.3g} deg"
        curves.append(Curve(x=angle, y=share, label=label, table=number))
        half = np.array([0.5])
        medians.append(Curve(x=median, y=half, style="points", table=number))
        lowest = min(lowest, float(quantile(angle, [0.005], weight)[0]))
    angle = np.geomspace(max(lowest, 1e-3), 180.0, 300)
    guess = (1 - np.cos(np.radians(angle))) / 2
    references = (
        Curve(x=angle, y=guess, label="guessing", style="reference"),
        Curve(x=angle[[0, -1]], y=np.full(2, 0.5), style="reference"),
    )
    panel = Panel(
        x_label="opening angle [deg]",
        y_label="share of events with a smaller opening angle",
        curves=(*curves, *medians, *references),
        x_log=True,
        x_range=(angle[0], 180.0),
        y_range=(0.0, 1.0),
    )
    paired = ""
    rows = [summary.to_row() for summary in evaluation.summaries]
    shown = [*EVENTS, "failed", "mean_rad", "median_deg", "q68_deg"]
    if len(evaluation.tables) > 1:
        shown.insert(5, "difference_rad")
        paired = (
            "The difference is the mean minus the first table's mean, paired because "
            "all tables have the same events. "
        )
    return Section(
        task=DIRECTION,
        table="summary",
        title="Direction",
        text="The mean opening angle in rad is the competition's score. An event "
        "without a predicted direction (failed) counts as pi/2, the mean for random "
        "directions. "
        + paired
        + "The pull is the opening angle times the root of kappa; its median is 1.18 "
        "if kappa is calibrated and large. The last columns are the shares of true "
        "directions inside the 50% and 90% contours. Small numbers are the ends of 95% "
        "bootstrap intervals.",
        figures={"distribution": (panel,)},
        captions={
            "distribution": "Cumulative distribution of the opening angle. Marks are "
            "medians; the grey line is a random direction."
        },
        rows=rows,
        shown=_present(rows, (*shown, "q90_deg", "median_pull", *INSIDE)),
    )


def _by(evaluation: Evaluation, quantity: str) -> Section:
    """Return the section of bins of a quantity; it has no rows if it is not known."""
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
            name: f"{caption} Bars are 95% intervals. Bins with fewer than {FEWEST} "
            "events (with weights: effective events) are left out."
        },
        rows=rows,
        shown=_present(
            rows,
            (
                *(("topology",) if is_both else ()),
                *("bin", *EVENTS, "mean_rad", "median_deg", "q68_deg", *INSIDE),
            ),
        ),
    )


def _present(rows: Sequence[Row], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns that rows have."""
    return tuple(name for name in names if any(name in row for row in rows))


def _panels(rows: Sequence[Row], quantity: str) -> tuple[Panel, ...]:
    """Return the panels of opening angles against a quantity."""
    if quantity == BOTH:
        # The axis covers full decades, so that it has tick labels.
        low = 10 ** np.floor(np.log10(min(row["low"] for row in rows)))
        high = 10 ** np.ceil(np.log10(max(row["high"] for row in rows)))
        kinds = _unique(rows, "topology")
        apart = ([r for r in rows if r["topology"] == kind] for kind in kinds)
        panels = [_panel(some, "mean_rad", ENERGY) for some in apart]
        return tuple(
            replace(panel, title=kind, x_range=(float(low), float(high)))
            for panel, kind in zip(panels, kinds, strict=True)
        )
    mean_panel = replace(_panel(rows, "mean_rad", quantity), title="Mean")
    if quantity == TOPOLOGY:
        counts = {row["bin"]: f"{row['events']:,} events" for row in rows}
        names = ("\n".join([*kind.split(), text]) for kind, text in counts.items())
        limits = (-0.5, len(counts) - 0.5)
        return (replace(mean_panel, title="", x_range=limits, columns=tuple(names)),)
    median = _panel(rows, "median_deg", quantity)
    q68 = (
        replace(c, style="line", dashed=True, label="", low=None, high=None)
        for c in _panel(rows, "q68_deg", quantity).curves
    )
    title = "median (solid) and 68% quantile (dotted)"
    return mean_panel, replace(median, title=title, curves=(*median.curves, *q68))


def _panel(rows: Sequence[Row], column: str, quantity: str) -> Panel:
    """Return the panel of a column against bins, a curve for each table."""
    name, _, unit = column.rpartition("_")
    curves = []
    for number, table in enumerate(_unique(rows, "table")):
        mine = [row for row in rows if row["table"] == table]
        ends = (f"{name}_low_{unit}", f"{name}_high_{unit}")
        left, right, y, low, high = columns(mine, "low", "high", column, *ends)
        x = centre(quantity, left, right)
        style = "points" if quantity == TOPOLOGY else "joined"
        curves.append(
            Curve(x=x, y=y, low=low, high=high, label=table, style=style, table=number)
        )
    is_mean = unit == "rad"
    return Panel(
        x_label=X_LABELS[quantity],
        y_label=f"{'mean ' if is_mean else ''}opening angle [{unit}]",
        curves=tuple(curves),
        x_log=quantity in IS_LOG,
        y_log=not is_mean,
        y_range=(0.0, None) if is_mean else None,
    )


def _unique(rows: Sequence[Row], column: str) -> list[str]:
    """Return the values of a column, each once."""
    return list(dict.fromkeys(row[column] for row in rows))
