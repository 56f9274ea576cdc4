"""EventTruth: true labels of events, with which results of tasks are compared.

`tasks.label` makes the labels. Values that cannot be a label (a filler such as -1, NaN,
an impossible angle) are NaN here: the event has no such label.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME_ORIGIN, opening_angle
from graphnet_icecube2nd.detector.pulse_map import WINDOW, LabelColumns
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
from graphnet_icecube2nd.tasks.bins import (
    NO_TOPOLOGY,
    PULSES,
    QUANTITIES,
    WEIGHT,
    ZENITH,
)
from graphnet_icecube2nd.tasks.catalogue import (
    are_our_results,
    are_results,
    build_task,
    list_tasks,
)
from graphnet_icecube2nd.tasks.label import (
    DIRECTION,
    ENERGY,
    INTERACTION_COLUMNS,
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
ALL = NO_TOPOLOGY
NO_DIRECTION = float(np.pi / 2)  # rad: opening angle of an event without direction
TURNED = 0.7  # share of opening angles above 90 degrees that means opposite signs
# Names of azimuth and zenith in truth tables of the competition and GraphNeT, of
# Prometheus and of NuBench. The direction of the last two differs from file to file.
ANGLE_NAMES = (
    ("azimuth", "zenith"),
    ("injection_azimuth", "injection_zenith"),
    ("initial_state_azimuth", "initial_state_zenith"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTruth:
    """True labels of events.

    Args:
        event_id: Event numbers, (B,) int64.
        direction_B3: Unit vectors to the origin, (B, 3); NaN if unknown.
        energy_B: Energies, (B,) GeV; NaN if unknown.
        topology_B: Names of the topologies, (B,); `all` if unknown.
        n_pulses_B: Numbers of pulses, (B,); empty if unknown.
        columns: Columns of the file by name, (B,) each, from which labels are made.
        labels: Names and meaning of the angles among the columns.
        weight_B: Weights, (B,), 0 or more; None: all events count alike.
        weight_name: Column of the weights, for messages.
        clock: Clock of the times, see `PulseMap.time_reference`; empty for a file with
            `time_origin`, whose times count from some pulse of the event.
    """

    event_id: NDArray[np.int64]
    direction_B3: Array
    energy_B: Array
    topology_B: NDArray[np.str_]
    n_pulses_B: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: LabelColumns = field(default_factory=LabelColumns)
    weight_B: Array | None = None
    weight_name: str = WEIGHT
    clock: str = WINDOW

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.event_id)

    @classmethod
    def of(
        cls,
        store: EventStore,
        events: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        columns: Collection[str] = (),
    ) -> EventTruth:
        """Read the truth of a store's events for the labels of registered tasks.

        Args:
            store: Event store.
            events: Rows of the store; None: all.
            columns: Further columns to read if the store has them, such as weights.

        Raises:
            ValueError: The store has no label of any task.
        """
        rows = np.arange(len(store)) if events is None else np.asarray(events)
        labels = store.detector.labels
        needed = _needed_columns(store.event_columns, labels)
        if not needed:
            raise ValueError(
                f"{store.path} must have a label of a task "
                f"({', '.join(_label_names())}), found only the columns "
                f"{', '.join(store.event_columns)}. Prepare the store with its truth"
            )
        names = {EVENT_ID, N_PULSES, *needed}
        names |= {TOPOLOGY, *columns} & set(store.event_columns)
        values = {name: store.whole_event_column(name)[rows] for name in names}
        truth = cls.from_columns(values, str(store.path), labels=labels)
        return replace(truth, clock=store.pulse_map.time_reference)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        table: str | None = None,
        angles: str | None = None,
        columns: Collection[str] = (),
    ) -> EventTruth:
        """Read the truth of a store, or of a parquet, CSV or SQLite file.

        Args:
            path: Folder of a store, or file with one row per event: event_id (or
                event_no), and optional azimuth and zenith (rad), energy (GeV),
                topology, n_pulses and other columns from which labels are made.
            table: Table of a SQLite file; default: the only one with an event number
                and truth. The table of another file has the file's name without its
                ending. A table of results is read only if it is named here.
            angles: Meaning of a file's angles, `origin` or `flight`; default: `origin`,
                but required for those of Prometheus and NuBench. A store has its own.
            columns: Further columns of a store to read, such as weights; those of a
                file are all read.

        Raises:
            OSError: The file does not exist.
            ValueError: A column is missing, or an angle is in degrees.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no {path}")
        if Path(path).is_dir():
            if angles is not None or table is not None:
                raise ValueError(f"{path} is a store, which has its own angles")
            return cls.of(EventStore(path), columns=columns)
        named, only = table is not None, Path(path).stem
        if SUFFIXES.get(Path(path).suffix.lower()) == "sqlite":
            table = table or _truth_table(path)
        elif table not in (None, only):
            raise ValueError(f"{path} has one table, {only!r}; found {table!r}")
        found = read_columns(path, table)
        if not named and are_our_results(found):
            raise ValueError(
                f"{path} must hold truth, found results ({', '.join(found)}). Give "
                "the events' truth; to use results as truth, name their table: "
                f"table={only!r} (--truth-table {only})"
            )
        return cls.from_columns(found, os.fspath(path), angles)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        name: str,
        angles: str | None = None,
        labels: LabelColumns | None = None,
    ) -> EventTruth:
        """Make the truth from columns or from a DataFrame.

        Args:
            columns: Arrays by name, (B,) each, as in a file of `load`.
            name: Name of the columns in messages.
            angles: Meaning of the angles, `origin` or `flight`; default: `origin`, but
                required for columns of Prometheus and NuBench.
            labels: Names and meaning of azimuth and zenith; default: known names, and
                `angles`.

        Raises:
            ValueError: There is no event number, an event occurs twice, an angle is in
                degrees, or `angles` is unknown or missing.
        """
        if angles not in (None, "origin", "flight"):
            raise ValueError(f"angles must be origin or flight, found {angles!r}")
        found = {str(key): np.asarray(columns[key]) for key in columns}
        event_id = event_ids(found, name)
        if len(np.unique(event_id)) < len(event_id):
            raise ValueError(f"{name} must have each event once, found one twice")
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
            clock="" if TIME_ORIGIN in found else WINDOW,
        )

    def known(self) -> dict[str, NDArray[Any]]:
        """Return what bins and weights need, (B,) each, if it is known.

        Columns: energy (GeV or NaN), direction, (B, 3), and cos_zenith (or NaN),
        n_pulses, topology, weight.
        """
        found: dict[str, NDArray[Any]] = {}
        if np.isfinite(self.energy_B).any():
            found[QUANTITIES[ENERGY]] = self.energy_B
        if has_label(self.direction_B3).any():
            found[DIRECTION] = self.direction_B3
            found[QUANTITIES[ZENITH]] = self.direction_B3[:, 2]
        if self.knows_pulses:
            found[QUANTITIES[PULSES]] = self.n_pulses_B
        if (self.topology_B != ALL).any():
            found[QUANTITIES[TOPOLOGY]] = self.topology_B
        return found if self.weight_B is None else {**found, WEIGHT: self.weight_B}

    def check_weights(self) -> None:
        """Raise ValueError for weights that are negative, not finite, or all 0."""
        if self.weight_B is None:
            return
        bad_B = ~(np.isfinite(self.weight_B) & (self.weight_B >= 0))
        if bad_B.any():
            row = int(bad_B.argmax())
            raise ValueError(
                f"event {self.event_id[row]}: the weight (column {self.weight_name}) "
                "must be a finite number, 0 or more, found "
                f"{self.weight_B[row]:g} ({int(bad_B.sum()):,} of {len(bad_B):,} "
                "weights are bad)"
            )
        if not self.weight_B.any():
            raise ValueError(
                f"the weights (column {self.weight_name}) of the {len(self):,} events "
                "that can be evaluated are all 0"
            )

    @property
    def knows_pulses(self) -> bool:
        """True if the numbers of pulses are known."""
        return len(self.n_pulses_B) > 0

    def label(self, name: str) -> Array:
        """Return a label, (B,) or (B, 3) float64; NaN for events without it.

        Args:
            name: Name of a label in `tasks.label`, or of a column.

        Raises:
            ValueError: The columns of the label are missing.
        """
        known = {DIRECTION: self.direction_B3, ENERGY: self.energy_B}.get(name)
        if known is not None and has_label(known).any():
            return known
        return make_label(name, self.columns, self.labels)

    def target(self, task: str | Task) -> Array:
        """Return the target of a task, (B, ...) float64; NaN for events without it.

        Args:
            task: Task, or name of a registered task.

        Raises:
            ValueError: A label of the task cannot be made.
        """
        built = build_task(task) if isinstance(task, str) else task
        labels = {n: torch.from_numpy(self.label(n).copy()) for n in built.truth}
        target: Array = built.target(labels).detach().double().numpy()
        return target

    def has(self, task: str | Task) -> bool:
        """Return whether at least one event has the target of a task."""
        return self.lacking(task) is None

    def lacking(self, task: str | Task) -> str | None:
        """Return why no event has the target of a task; None if an event has it.

        Args:
            task: Task, or name of a registered task.
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
        """Return the columns of a task's labels and their allowed values, as a text."""
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
            ValueError: An event is unknown.
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
            weight_B=None if self.weight_B is None else self.weight_B[row],
        )

    def with_directions(self) -> EventTruth:
        """Return the truth of the events that have a true direction.

        Raises:
            ValueError: There is none; the message gives the reason.
        """
        good_B = has_label(self.direction_B3)
        if len(good_B) and not good_B.any():
            raise missing_direction(self)
        return self if good_B.all() else self.of_events(self.event_id[good_B])

    def check_finite(self) -> None:
        """Raise ValueError if an event has no true direction; the message names it."""
        known_B = has_label(self.direction_B3)
        if not known_B.all():
            raise ValueError(
                f"event {self.event_id[known_B.argmin()]} has no true direction "
                f"({int((~known_B).sum())} of {len(known_B)} have none)"
            )

    def angles(self, table: EventTable) -> Array:
        """Return the opening angles to a table's directions, (B,) rad, in this order.

        An event without a direction in the table has pi / 2, and one without a true
        direction has NaN.

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


def flipped_directions_note(angle_B: Array, name: str) -> str | None:
    """Return a warning if a table's directions are worse than guesses, or else None.

    Args:
        angle_B: Opening angles, (B,) rad.
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
    """Return an error with the reason why a truth has no directions."""
    columns = truth.columns.keys()
    if label_columns(DIRECTION, columns, truth.labels) is None:
        return missing_label(DIRECTION, columns, truth.labels, "the truth")
    return ValueError(f"the truth: {truth.lacking(DIRECTION)}")


def _label_names() -> list[str]:
    """Return the labels that the registered tasks need, each once."""
    names = [label for task in list_tasks() for label in build_task(task).truth]
    return list(dict.fromkeys(names))


def _needed_columns(available: Sequence[str], labels: LabelColumns) -> set[str]:
    """Return the columns from which the labels of the registered tasks are made."""
    choices = [label_columns(n, available, labels) for n in (*_label_names(), ENERGY)]
    needed = {column for chosen in choices if chosen for column in chosen}
    # Charged or neutral current.
    others = {name for names in INTERACTION_COLUMNS for name in names}
    return needed | (others & set(available) if needed else set())


def _truth_table(path: str | os.PathLike[str]) -> str:
    """Return the only table of a SQLite file that has truth, and no results."""
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
            f"{len(chosen)} among {', '.join(tables) or 'no table'}{skipped}: name it "
            "(table, --truth-table)"
        )
    return chosen[0]


def _found_labels(
    columns: Mapping[str, Any], name: str, angles: str | None
) -> LabelColumns:
    """Return the names and the meaning of a file's angles."""
    pair = next((p for p in ANGLE_NAMES if set(p) <= set(columns)), ANGLE_NAMES[0])
    if angles is None and pair != ANGLE_NAMES[0]:
        raise ValueError(
            f"{name} has {' and '.join(pair)}, which point to the origin in some files "
            "and along the flight in others: set angles (--truth-angles)"
        )
    azimuth, zenith = pair
    return LabelColumns(azimuth=azimuth, zenith=zenith, angles=angles or "origin")
