"""Opening angles of tables of directions, by topology and by energy.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import angles_to_unit_vector, opening_angle
from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
from graphnet_icecube2nd.store.event_store import EventStore

ALL = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTruth:
    """What is known of events, to compare directions with.

    Args:
        event_id: (B,) int64.
        direction_B3: (B, 3) to the origin.
        energy_B: (B,) GeV; NaN where it is not known.
        topology_B: (B,) names; `all` where there are none.
    """

    event_id: NDArray[np.int64]
    direction_B3: NDArray[np.float64]
    energy_B: NDArray[np.float64]
    topology_B: NDArray[np.str_]

    @classmethod
    def of(
        cls, store: EventStore, events: Sequence[int] | NDArray[np.int64] | None = None
    ) -> EventTruth:
        """Read the truth of events of a store, by their numbers; None for all.

        Raises:
            ValueError: The store has no directions.
        """
        if not store.has_directions:
            raise ValueError(f"{store.path} has no azimuth and zenith to compare with")
        numbers = np.arange(len(store)) if events is None else np.asarray(events)

        def column(name: str) -> NDArray[Any]:
            chosen: NDArray[Any] = store.whole_event_column(name)[numbers]
            return chosen

        pulse_map, known = store.pulse_map, store.event_columns
        direction_B3 = angles_to_unit_vector(
            column(pulse_map.zenith).astype(float),
            column(pulse_map.azimuth).astype(float),
        ).numpy()
        num = len(numbers)
        return cls(
            event_id=column("event_id"),
            direction_B3=-direction_B3
            if pulse_map.angles == "flight"
            else direction_B3,
            energy_B=column("energy") if "energy" in known else np.full(num, np.nan),
            topology_B=(
                column("topology").astype(np.str_)
                if "topology" in known
                else np.full(num, ALL)
            ),
        )


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
        pull: Median of opening angle times the root of kappa: 1.18 if kappa is honest;
            NaN where the table has no kappa.
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


def compare(tables: Sequence[DirectionTable], truth: EventTruth) -> list[Resolution]:
    """Return how far tables are off: on the whole, by topology, and by energy in each.

    Whatever found a direction joins the comparison as a `DirectionTable`.

    Args:
        tables: Each with all events of the truth.
        truth: The events.

    Raises:
        ValueError: A table lacks an event, two have one name, or there is no event.
    """
    topologies = [ALL, *(t for t in np.unique(truth.topology_B) if t != ALL)]
    decade_B = _decades(truth.energy_B)
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"two tables have one name: {', '.join(sorted(names))}")
    if not len(truth.event_id):
        raise ValueError("there is no event to compare directions of")
    rows = []
    angles = {}
    for table in tables:
        some = table.of_events(truth.event_id)
        angle_B = np.full(len(some), np.pi / 2)
        ok = some.is_ok
        angle_B[ok] = opening_angle(
            truth.direction_B3[ok], some.direction_B3[ok]
        ).numpy()
        angles[table.name] = (some, angle_B)
    for topology in topologies:
        is_topology = (truth.topology_B == topology) | (topology == ALL)
        decades = [ALL, *sorted(set(decade_B[is_topology]) - {""}, key=_first_number)]
        for decade in decades:
            chosen = is_topology & ((decade_B == decade) | (decade == ALL))
            for name, (table, angle_B) in angles.items():
                rows.append(_resolution(name, topology, decade, table, angle_B, chosen))
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


def _decades(energy_B: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the decade of each energy in words, (B,); empty where there is none."""
    names = []
    for energy in energy_B:
        if not energy > 0:
            names.append("")
            continue
        power = int(np.floor(np.log10(energy)))
        names.append(f"1e{power}-1e{power + 1} GeV")
    return np.array(names)


def _first_number(decade: str) -> float:
    return float(decade.partition("-")[0])


def _resolution(
    name: str,
    topology: str,
    energy: str,
    table: DirectionTable,
    angle_B: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> Resolution:
    angle = angle_B[chosen]
    pull = (angle * np.sqrt(table.kappa_B[chosen]))[table.is_ok[chosen]]
    pull = pull[np.isfinite(pull)]
    median, q68 = np.degrees(np.quantile(angle, [0.5, 0.68]))
    return Resolution(
        table=name,
        topology=topology,
        energy=energy,
        events=len(angle),
        failed=int((~table.is_ok[chosen]).sum()),
        mean=float(angle.mean()),
        median=float(median),
        q68=float(q68),
        pull=float(np.median(pull)) if len(pull) else float("nan"),
    )
