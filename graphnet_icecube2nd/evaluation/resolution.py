"""Opening angles of tables of directions, by topology and by energy.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable
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
    topologies = topologies_of(truth)
    decade_B = decades(truth.energy_B)
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"two tables have one name: {', '.join(sorted(names))}")
    if not len(truth.event_id):
        raise ValueError("there is no event to compare directions of")
    rows = []
    evaluated = [EvaluatedTable.of(table, truth) for table in tables]
    for topology in topologies:
        is_topology = (truth.topology_B == topology) | (topology == ALL)
        for decade in [ALL, *sorted({*decade_B[is_topology]} - {""}, key=first_number)]:
            chosen = is_topology & ((decade_B == decade) | (decade == ALL))
            rows += [_resolution(e, topology, decade, chosen) for e in evaluated]
    return rows


def as_markdown(rows: Sequence[Resolution]) -> str:
    """Return rows as a table in Markdown, a line for each."""
    lines = [
        "| topology | energy | events | table | mean, rad | median, deg | 68%, deg | "
        "pull | failed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pull = "-" if np.isnan(row.pull) else f"{row.pull:.2f}"
        lines.append(
            f"| {row.topology.replace('_', ' ')} | {row.energy} | {row.events:,} | "
            f"{row.table} | {row.mean:.3f} | {row.median:.1f} | {row.q68:.1f} | "
            f"{pull} | {row.failed} |"
        )
    return "\n".join(lines)


def as_dicts(rows: Sequence[Resolution]) -> list[dict[str, Any]]:
    """Return rows as plain values that JSON can hold."""
    return [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]


def topologies_of(truth: EventTruth) -> list[str]:
    """Return `all` and the topologies there are."""
    return [ALL, *(str(t) for t in np.unique(truth.topology_B) if t != ALL)]


def decades(energy_B: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the decade of each energy in words, (B,); empty where there is none."""
    names = []
    for energy in energy_B:
        if not energy > 0:
            names.append("")
            continue
        power = int(np.floor(np.log10(energy)))
        names.append(f"1e{power}-1e{power + 1} GeV")
    return np.array(names)


def first_number(decade: str) -> float:
    """Return where a decade of `decades` begins, GeV."""
    return float(decade.partition("-")[0])


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
