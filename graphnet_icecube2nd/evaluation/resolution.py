"""Opening angles of tables of directions, by topology and by energy.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bins import energy_edges, split, topologies_of
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable
from graphnet_icecube2nd.evaluation.rows import Row, markdown_table, without_nan
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import ALL, EventTruth


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How far a table is off, for some of the events.

    Args:
        table: Its name.
        topology: `all`, or one.
        energy: `all`, or a decade as `1e3-1e4 GeV`.
        events: How many, those without a direction included.
        failed: How many have none: they count as pi / 2, what guessing gives.
        mean: Opening angle, rad: the competition's score.
        median, q68: deg.
        pull: Median of opening angle times the root of kappa: 1.18 if kappa is
            calibrated; NaN where the table has no kappa.
    """

    table: str
    topology: str
    energy: str
    events: int
    failed: int
    mean: float
    median: float
    q68: float
    pull: float


def compare(tables: Sequence[EventTable], truth: EventTruth) -> list[Resolution]:
    """Return how far tables are off: on the whole, by topology, and by energy in each.

    Whatever found a direction joins the comparison as an `EventTable`.

    Args:
        tables: Each with all events of the truth.
        truth: The events; those without a true direction are left out.

    Raises:
        ValueError: A table lacks an event, two have one name, there is no event, or
            none has a true direction.
    """
    truth = truth.with_directions()
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"two tables have one name: {', '.join(sorted(names))}")
    if not len(truth.event_id):
        raise ValueError("there is no event to compare directions of")
    evaluated = [EvaluatedTable.of(table, truth) for table in tables]
    everything = np.ones(len(truth), bool)
    topologies = {ALL: everything}
    topologies |= {t: truth.topology_B == t for t in topologies_of(truth)}
    decades = {ALL: everything}
    for low, high, in_decade_B in split(
        truth.energy_B, energy_edges(truth.energy_B, 1), fewest=1
    ):
        first, last = round(np.log10(low)), round(np.log10(high))
        decades[f"1e{first}-1e{last} GeV"] = in_decade_B
    rows = []
    for topology, is_topology_B in topologies.items():
        for decade, in_decade_B in decades.items():
            chosen_B = is_topology_B & in_decade_B
            if chosen_B.any():
                rows += [_resolution(e, topology, decade, chosen_B) for e in evaluated]
    return rows


def as_markdown(rows: Sequence[Resolution]) -> str:
    """Return rows as a table in Markdown, a line for each."""
    headings = ("topology", "energy", "events", "table", "mean, rad", "median, deg")
    cells = [
        (
            row.topology.replace("_", " "),
            row.energy,
            row.events,
            row.table,
            f"{row.mean:.3f}",
            f"{row.median:.1f}",
            f"{row.q68:.1f}",
            "-" if np.isnan(row.pull) else f"{row.pull:.2f}",
            row.failed,
        )
        for row in rows
    ]
    return "\n".join(markdown_table((*headings, "68%, deg", "pull", "failed"), cells))


def as_dicts(rows: Sequence[Resolution]) -> list[Row]:
    """Return rows as plain values that JSON can hold."""
    return without_nan(asdict(row) for row in rows)


def _resolution(
    evaluated: EvaluatedTable, topology: str, energy: str, chosen_B: NDArray[np.bool_]
) -> Resolution:
    angle = evaluated.angle_B[chosen_B]
    median, q68 = np.degrees(np.quantile(angle, [0.5, 0.68]))
    return Resolution(
        table=evaluated.name,
        topology=topology,
        energy=energy,
        events=len(angle),
        failed=evaluated.num_failed(chosen_B),
        mean=float(angle.mean()),
        median=float(median),
        q68=float(q68),
        pull=evaluated.median_pull(chosen_B),
    )
