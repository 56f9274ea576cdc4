"""EventTruth: what is known of events, as labels that answers of tasks are judged by.

Labels are made by `tasks.label`. Truth that cannot be a label (a filler such as -1,
NaN, an impossible angle) is NaN here: an event without that label.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import (
    EVENT_NAMES,
    SUFFIXES,
    event_ids,
    read_columns,
    rows_of,
    sqlite_tables,
    whole_counts,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.tasks.catalogue import (
    are_our_results,
    are_results,
    build_task,
    list_tasks,
)
from graphnet_icecube2nd.tasks.label import (
    DIRECTION,
    ENERGY,
    LABELS,
    TOPOLOGY,
    check_radians,
    has_label,
    label_columns,
    make_label,
    missing_label,
)
from graphnet_icecube2nd.tasks.task import Task

Array = NDArray[np.float64]
ALL = "all"
NO_DIRECTION = float(np.pi / 2)  # rad: what an event without one counts as, a guess's
TURNED = 0.7  # share of directions more than 90 degrees off: opposite, no doubt
# What truth tables call azimuth and zenith: the competition's and GraphNeT's name,
# Prometheus', NuBench's. Which way the latter point differs from file to file.
ANGLE_NAMES = (
    ("azimuth", "zenith"),
    ("injection_azimuth", "injection_zenith"),
    ("initial_state_azimuth", "initial_state_zenith"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTruth:
    """What is known of events.

    Args:
        event_id: (B,) int64.
        direction_B3: (B, 3) unit vectors to the origin; NaN where it is not known.
        energy_B: (B,) GeV; NaN where it is not known.
        topology_B: (B,) names; `all` where there are none.
        n_pulses_B: (B,) pulses; empty where they are not known.
        columns: (B,) by name, as the file has them: labels are made of these.
        labels: Names and meaning of the angles among the columns.
    """

    event_id: NDArray[np.int64]
    direction_B3: Array
    energy_B: Array
    topology_B: NDArray[np.str_]
    n_pulses_B: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: LabelColumns = field(default_factory=LabelColumns)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.event_id)

    @classmethod
    def of(
        cls, store: EventStore, events: Sequence[int] | NDArray[np.int64] | None = None
    ) -> EventTruth:
        """Read the truth of events of a store: what the registered tasks' labels need.

        Args:
            store: The store.
            events: Rows of the store; None for all.

        Raises:
            ValueError: The store has no label of any task.
        """
        rows = np.arange(len(store)) if events is None else np.asarray(events)
        labels = store.pulse_map.labels
        needed = _needed_columns(store.event_columns, labels)
        if not needed:
            raise ValueError(
                f"{store.path} has no truth to compare with: a label of a task "
                f"({', '.join(_label_names())}) was expected, found the columns "
                f"{', '.join(store.event_columns)}. Prepare the store with its truth"
            )
        names = {EVENT_ID, N_PULSES, *needed}
        names |= {TOPOLOGY} & set(store.event_columns)
        columns = {name: store.whole_event_column(name)[rows] for name in names}
        return cls.from_columns(columns, str(store.path), labels=labels)

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
                event_no), and what there is of azimuth and zenith (rad), energy (GeV),
                topology, n_pulses and other columns of which labels are made.
            table: Table of a SQLite file; default: the only one with an event number
                and truth. Of other files the only table is called as the file, without
                its ending. A table of results is taken only if it is named here.
            angles: `origin` or `flight`: what a file's angles mean; default `origin`,
                but required for Prometheus's and NuBench's. A store says it itself.

        Raises:
            OSError: There is no such file.
            ValueError: A column is missing, an angle is in degrees.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no {path}")
        if Path(path).is_dir():
            if angles is not None or table is not None:
                raise ValueError(f"{path} is a store, which has its own angles")
            return cls.of(EventStore(path))
        named, only = table is not None, Path(path).stem
        if SUFFIXES.get(Path(path).suffix.lower()) == "sqlite":
            table = table or _truth_table(path)
        elif table not in (None, only):
            raise ValueError(f"{path} has one table, {only!r}; found {table!r}")
        columns = read_columns(path, table)
        if not named and are_our_results(columns):
            raise ValueError(
                f"{path} must hold truth, found results ({', '.join(columns)}). Give "
                "the events' truth; to take results for it, name their table: "
                f"table={only!r} (--truth-table {only})"
            )
        return cls.from_columns(columns, os.fspath(path), angles)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        name: str,
        angles: str | None = None,
        labels: LabelColumns | None = None,
    ) -> EventTruth:
        """Take the truth of columns, or of a DataFrame.

        Args:
            columns: (B,) arrays by name, as `load` reads them.
            name: Name of the columns in messages.
            angles: `origin`, or `flight`: then directions are turned round. Default
                `origin`; required for Prometheus's and NuBench's columns.
            labels: Names and meaning of azimuth and zenith; default: names that are
                known, and `angles`.

        Raises:
            ValueError: There is no event number, an event stands twice, an angle is in
                degrees, `angles` is another word or is required.
        """
        if angles not in (None, "origin", "flight"):
            raise ValueError(f"angles must be origin or flight, got {angles!r}")
        found = {str(key): np.asarray(columns[key]) for key in columns}
        event_id = event_ids(found, name)
        if len(np.unique(event_id)) < len(event_id):
            raise ValueError(f"{name} has an event twice")
        labels = labels or _found_labels(found, name, angles)
        for column in (labels.azimuth, labels.zenith):
            if column in found:
                check_radians(found[column], column, event_id, name)
        num = len(event_id)
        direction_B3, energy_B = np.full((num, 3), np.nan), np.full(num, np.nan)
        with naming(name):
            if label_columns(DIRECTION, found.keys(), labels):
                direction_B3 = make_label(DIRECTION, found, labels)
            if label_columns(ENERGY, found.keys(), labels):
                energy_B = make_label(ENERGY, found, labels)
        counts = whole_counts(found[N_PULSES], name) if N_PULSES in found else None
        return cls(
            event_id=event_id,
            direction_B3=direction_B3,
            energy_B=energy_B,
            topology_B=found.get(TOPOLOGY, np.full(num, ALL)).astype(np.str_),
            n_pulses_B=np.empty(0, np.int64) if counts is None else counts,
            columns=found,
            labels=labels,
        )

    @property
    def knows_pulses(self) -> bool:
        """Whether the numbers of pulses are known."""
        return len(self.n_pulses_B) > 0

    def label(self, name: str) -> Array:
        """Return a label, (B,) or (B, 3) float64; NaN where an event has none.

        Args:
            name: One of `tasks.label`, or the name of a column.

        Raises:
            ValueError: The columns that it is made of are not there.
        """
        known = {DIRECTION: self.direction_B3, ENERGY: self.energy_B}.get(name)
        if known is not None and has_label(known).any():
            return known
        return make_label(name, self.columns, self.labels)

    def target(self, task: str | Task) -> Array:
        """Return the target of a task, (B, ...) float64; NaN where there is none.

        Args:
            task: A registered task's name, or a task.

        Raises:
            ValueError: A label that it needs cannot be made.
        """
        built = build_task(task) if isinstance(task, str) else task
        labels = {n: torch.from_numpy(self.label(n).copy()) for n in built.truth}
        target: Array = built.target(labels).detach().double().numpy()
        return target

    def has(self, task: str | Task) -> bool:
        """Return whether a task has a target of one event at least."""
        return self.lacking(task) is None

    def lacking(self, task: str | Task) -> str | None:
        """Return why a task has no target of any event; None where it has one.

        Args:
            task: A registered task's name, or a task.
        """
        built = build_task(task) if isinstance(task, str) else task
        try:
            good_B = has_label(self.target(built))
        except ValueError as error:
            return str(error)
        if good_B.any():
            return None
        return f"none of {len(self):,} events has {self.description(built)}"

    def description(self, task: Task) -> str:
        """Return what a task's label is made of here, and what values are allowed."""
        words = []
        for name in task.truth:
            columns = label_columns(name, self.columns.keys(), self.labels) or (name,)
            text = f"true {name} (column {', '.join(columns)}"
            if name in LABELS:
                text += f"; expected: {LABELS[name].description}"
            words.append(f"{text})")
        return " and ".join(words)

    def of_events(self, event_id: NDArray[np.int64]) -> EventTruth:
        """Return the truth of some events, in their order.

        Raises:
            ValueError: An event is not known.
        """
        row = rows_of(self.event_id, event_id, "the truth")
        return replace(
            self,
            event_id=self.event_id[row],
            direction_B3=self.direction_B3[row],
            energy_B=self.energy_B[row],
            topology_B=self.topology_B[row],
            n_pulses_B=self.n_pulses_B[row] if self.knows_pulses else self.n_pulses_B,
            columns={name: values[row] for name, values in self.columns.items()},
        )

    def with_directions(self) -> EventTruth:
        """Return the truth of the events that have a true direction.

        Raises:
            ValueError: There is none; says why.
        """
        good_B = has_label(self.direction_B3)
        if len(good_B) and not good_B.any():
            raise missing_direction(self)
        return self if good_B.all() else self.of_events(self.event_id[good_B])

    def check_finite(self) -> None:
        """Raise ValueError naming the first event without a true direction."""
        known_B = has_label(self.direction_B3)
        if not known_B.all():
            raise ValueError(
                f"event {self.event_id[known_B.argmin()]} has no true direction "
                f"({int((~known_B).sum())} of {len(known_B)} have none)"
            )

    def angles(self, table: EventTable) -> Array:
        """Return how far a table's directions are off, rad, (B,), in this order.

        An event without a direction in the table counts as pi / 2; one without a true
        direction is NaN.

        Raises:
            ValueError: The table lacks an event.
        """
        some = table.of_events(self.event_id)
        known_B = has_label(self.direction_B3)
        ok_B = some.is_ok & known_B
        angle_B = np.where(known_B, NO_DIRECTION, np.nan)
        angle_B[ok_B] = opening_angle(
            self.direction_B3[ok_B], some.direction_B3[ok_B]
        ).numpy()
        return angle_B


def turned_directions(angle_B: Array, name: str) -> str | None:
    """Return a sentence where a table's directions are worse than guesses, else None.

    Args:
        angle_B: (B,) opening angles, rad.
        name: Name of the table or the model.
    """
    share = float((angle_B > NO_DIRECTION).mean()) if len(angle_B) else 0.0
    if share <= TURNED:
        return None
    return (
        f"{share:.0%} of the directions of {name!r} are more than 90 degrees off: "
        "check whether they point along the flight of the neutrino (angles, "
        "--result-angles flight), or the truth does (--truth-angles flight)"
    )


def missing_direction(truth: EventTruth) -> ValueError:
    """Return the error that says why a truth has no directions."""
    columns = truth.columns.keys()
    if label_columns(DIRECTION, columns, truth.labels) is None:
        return missing_label(DIRECTION, columns, truth.labels, "the truth")
    return ValueError(f"the truth: {truth.lacking(DIRECTION)}")


def _label_names() -> list[str]:
    """Return the labels that the registered tasks need, each once."""
    names = [label for task in list_tasks() for label in build_task(task).truth]
    return list(dict.fromkeys(names))


def _needed_columns(available: Sequence[str], labels: LabelColumns) -> set[str]:
    """Return the columns of which the labels of the registered tasks are made."""
    choices = [label_columns(n, available, labels) for n in (*_label_names(), ENERGY)]
    return {column for chosen in choices if chosen for column in chosen}


def _truth_table(path: str | os.PathLike[str]) -> str:
    """Return the one table of a SQLite file that holds truth, and no results."""
    tables = sqlite_tables(path)
    results = [name for name, columns in tables.items() if are_results(columns)]
    candidates = {
        name: columns
        for name, columns in tables.items()
        if columns & set(EVENT_NAMES) and name not in results
    }
    angles = {name for pair in ANGLE_NAMES for name in pair}
    chosen = [name for name, columns in candidates.items() if columns & angles] or [
        name
        for name, columns in candidates.items()
        if any(label_columns(n, columns, LabelColumns()) for n in _label_names())
    ]
    if len(chosen) != 1:
        skipped = f" (tables of results: {', '.join(results)})" if results else ""
        raise ValueError(
            f"{path}: expected one table with an event number and truth, found "
            f"{len(chosen)} among {', '.join(tables) or 'no table'}{skipped}; say "
            "which it is (table, --truth-table)"
        )
    return chosen[0]


def _found_labels(
    columns: Mapping[str, Any], name: str, angles: str | None
) -> LabelColumns:
    """Return what the angles of a file are called, and mean."""
    pair = next((p for p in ANGLE_NAMES if set(p) <= set(columns)), ANGLE_NAMES[0])
    if angles is None and pair != ANGLE_NAMES[0]:
        raise ValueError(
            f"{name} has {' and '.join(pair)}, which point to the origin in some "
            "files and along the flight in others: say which (angles, --truth-angles)"
        )
    azimuth, zenith = pair
    return LabelColumns(azimuth=azimuth, zenith=zenith, angles=angles or "origin")
