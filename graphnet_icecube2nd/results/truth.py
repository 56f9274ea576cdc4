"""What is known of events, to compare directions with.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import angles_to_unit_vector, opening_angle
from graphnet_icecube2nd.results.event_table import (
    EventTable,
    rows_of,
    whole_counts,
)
from graphnet_icecube2nd.results.table_io import EVENT_NAMES, read_columns
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES

ALL = "all"
NO_DIRECTION = float(np.pi / 2)  # rad: what an event without one counts as, a guess's
# What truth tables call the angles: the competition's and GraphNeT's, and Prometheus'.
# Which way the latter point differs from file to file, so it has to be said.
PROMETHEUS = ("injection_azimuth", "injection_zenith")
ANGLE_NAMES = (("azimuth", "zenith"), PROMETHEUS)
ENERGY_NAMES = ("energy", "injection_energy", "initial_state_energy")


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTruth:
    """What is known of events, to compare directions with.

    Args:
        event_id: (B,) int64.
        direction_B3: (B, 3) to the origin.
        energy_B: (B,) GeV; NaN where it is not known.
        topology_B: (B,) names; `all` where there are none.
        n_pulses_B: (B,) pulses; empty where they are not known.
    """

    event_id: NDArray[np.int64]
    direction_B3: NDArray[np.float64]
    energy_B: NDArray[np.float64]
    topology_B: NDArray[np.str_]
    n_pulses_B: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

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
        pulse_map = store.pulse_map
        names = {EVENT_ID, N_PULSES, pulse_map.labels.azimuth, pulse_map.labels.zenith}
        names |= {*ENERGY_NAMES, "topology"} & set(store.event_columns)
        columns = {name: store.whole_event_column(name)[numbers] for name in names}
        return cls.from_columns(
            columns,
            str(store.path),
            pulse_map.labels.angles or "origin",
            (pulse_map.labels.azimuth, pulse_map.labels.zenith),
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        table: str | None = None,
        angles: str | None = None,
    ) -> EventTruth:
        """Read the truth of a store, or of a parquet, CSV or SQLite file.

        Args:
            path: The store's folder, or a file with one row an event: event_id (or
                event_no), azimuth and zenith (rad), and what there is of energy (GeV),
                topology, n_pulses.
            table: Of a SQLite file; default: the only one with an event number.
            angles: `origin` or `flight`: what a file's angles mean; default `origin`,
                but has to be said of Prometheus's. A store says it itself.

        Raises:
            OSError: There is no such file.
            ValueError: A column is missing.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no {path}")
        if Path(path).is_dir():
            if angles is not None or table is not None:
                raise ValueError(f"{path} is a store, which has its own angles")
            return cls.of(EventStore(path))
        known = [name for names in ANGLE_NAMES for name in names]
        return cls.from_columns(
            read_columns(path, table, known), os.fspath(path), angles
        )

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        name: str,
        angles: str | None = None,
        angle_names: tuple[str, str] | None = None,
    ) -> EventTruth:
        """Take the truth of columns, or of a DataFrame.

        Args:
            columns: (B,) arrays by name, as `load` reads them.
            name: What messages call it.
            angles: `origin`, or `flight`: then directions are turned round. Default
                `origin`; of Prometheus's columns it has to be said.
            angle_names: Names of azimuth and zenith; default: those that are known.

        Raises:
            ValueError: A column is missing, an event stands twice, another word for
                angles.
        """
        if angles not in (None, "origin", "flight"):
            raise ValueError(f"angles must be origin or flight, got {angles!r}")
        found = {str(key): np.asarray(columns[key]) for key in columns}
        pairs = ANGLE_NAMES if angle_names is None else (angle_names,)
        pair = next((p for p in pairs if set(p) <= set(found)), None)
        key = next((k for k in EVENT_NAMES if k in found), None)
        if pair is None or key is None:
            lacking = (
                " and ".join(pairs[0]) if pair is None else " or ".join(EVENT_NAMES)
            )
            raise ValueError(f"{name} has no {lacking}; it has {', '.join(found)}")
        if angles is None and pair == PROMETHEUS:
            raise ValueError(
                f"{name} has {' and '.join(pair)}, which point to the origin in some "
                "files and along the flight in others: say which (angles)"
            )
        azimuth, zenith = (found[column].astype(float) for column in pair)
        direction_B3 = angles_to_unit_vector(zenith, azimuth).numpy()
        num = len(direction_B3)
        if len(np.unique(found[key])) < num:
            raise ValueError(f"{name} has an event twice")
        energy = next((found[n] for n in ENERGY_NAMES if n in found), None)
        topology = found.get("topology")
        return cls(
            event_id=found[key].astype(np.int64),
            direction_B3=-direction_B3 if angles == "flight" else direction_B3,
            energy_B=np.full(num, np.nan) if energy is None else energy.astype(float),
            topology_B=(
                np.full(num, ALL) if topology is None else topology.astype(np.str_)
            ),
            n_pulses_B=_counts(found.get(N_PULSES)),
        )

    @property
    def knows_pulses(self) -> bool:
        """Whether the numbers of pulses are known."""
        return len(self.n_pulses_B) > 0

    def of_events(self, event_id: NDArray[np.int64]) -> EventTruth:
        """Return the truth of some events, in their order.

        Raises:
            ValueError: An event is not known.
        """
        row = rows_of(self.event_id, event_id, "the truth")
        return EventTruth(
            event_id=self.event_id[row],
            direction_B3=self.direction_B3[row],
            energy_B=self.energy_B[row],
            topology_B=self.topology_B[row],
            n_pulses_B=self.n_pulses_B[row]
            if len(self.n_pulses_B)
            else self.n_pulses_B,
        )

    def check_finite(self) -> None:
        """Raise ValueError naming the first event without a true direction."""
        finite_B = np.isfinite(self.direction_B3).all(axis=1)
        if not finite_B.all():
            event = self.event_id[int(finite_B.argmin())]
            raise ValueError(
                f"event {event} has no true direction "
                f"({int((~finite_B).sum())} of {len(finite_B)} have none)"
            )

    def angles(self, table: EventTable) -> NDArray[np.float64]:
        """Return how far a table's directions are off, rad, (B,), in this order.

        An event without a direction counts as pi / 2.

        Raises:
            ValueError: The table lacks an event.
        """
        some = table.of_events(self.event_id)
        ok = some.is_ok
        angle_B = np.full(len(some), NO_DIRECTION)
        angle_B[ok] = opening_angle(
            self.direction_B3[ok], some.direction_B3[ok]
        ).numpy()
        return angle_B


def _counts(numbers: NDArray[Any] | None) -> NDArray[np.int64]:
    """Return numbers of pulses; none at all where one is missing."""
    found = None if numbers is None else whole_counts(numbers)
    return np.empty(0, np.int64) if found is None else found
