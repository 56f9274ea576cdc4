"""A part of a table of pulses, one row a pulse, joined with its truth.

Where the rows of each event lie is found out first; then the other columns come in
chunks whose borders are borders of events. Only where the rows of an event are
scattered is the part loaded whole, to be gathered. Shape letters: T pulses, B events,
R runs of rows with one event_id, N rows of truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    NO_TRUTH,
    Wanted,
    angle_columns,
    check_tables,
    choose_columns,
    choose_truth_columns,
    find_event_column,
    settle_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    Source,
    chunk_borders,
    describe_ids,
)
from graphnet_icecube2nd.store.readers.tables import (
    GREATEST,
    LEAST,
    Table,
    no_values,
)

NO_DIRECTIONS = "no truth is read: the events have no directions"


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthRows:
    """Rows of truth that were read, each event_id once."""

    event_id: NDArray[np.int64]  # (N,)
    columns: dict[str, NDArray[Any]]  # (N,) numbers, booleans or strings
    notes: tuple[str, ...] = ()  # what was found in it, in words


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Tables of truth, one row an event, which may lie in several files."""

    tables: tuple[Table, ...]
    # The column of their event_id; none: row i is that of event i of the part.
    event_column: str
    columns: tuple[str, ...]  # the columns to read
    # Those of them that make up the direction: finite, or NaN where there is none.
    angles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        first, others = self.tables[0].name, len(self.tables) - 1
        return f"{first} (and {others} more)" if others else first

    def read(
        self,
        where: tuple[str, int, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> TruthRows:
        """Read rows; `where` is an integer column, and least and greatest value."""
        columns = self.columns if columns is None else columns
        key, types = self.event_column, self.tables[0].types
        needed = dict.fromkeys([*(where or ())[:1], *([key] if key else []), *columns])
        ids = [np.empty(0, np.int64)]
        pieces = {column: [no_values(types[column])] for column in columns}
        for table in self.tables:
            fewer = table if where is None else table.within(*where)
            for row, arrays in fewer.arrays([*needed], nan=True):
                inside: Any = slice(None)
                if where is not None:
                    value_N = table.as_ids(arrays[where[0]], where[0], row)
                    inside = (value_N >= where[1]) & (value_N <= where[2])
                    if not inside.any():  # most of a large file
                        continue
                if key:
                    ids.append(table.as_ids(arrays[key], key, row)[inside])
                for column in columns:
                    if column in self.angles:
                        table.check_angle(arrays[column], column, row)
                    pieces[column].append(arrays[column][inside])
        found = {column: np.concatenate(all_) for column, all_ in pieces.items()}
        event_id = np.concatenate(ids)
        self._check_once(event_id)
        return TruthRows(
            event_id=event_id,
            columns=found,
            notes=tuple(
                f"{self.name}: column {column!r} is null or NaN in {unknown} of "
                f"{len(values)} rows; kept as NaN"
                for column, values in found.items()
                if values.dtype.kind == "f" and (unknown := int(np.isnan(values).sum()))
            ),
        )

    def find(self, event: int) -> list[tuple[Table, int]]:
        """Return where an event stands, for messages: table and row, once or more."""
        return [
            (table, first + int(place))
            for table in self.tables
            for first, ids_N in table.ids(self.event_column)
            for place in np.flatnonzero(ids_N == event)
        ]

    def _check_once(self, id_N: NDArray[np.int64]) -> None:
        ids, counts = np.unique(id_N, return_counts=True)
        if len(ids) == len(id_N):
            return
        event = ids[counts > 1][0]
        (table, row), (other, again) = self.find(event)[:2]
        before = f"row {row}" if table is other else f"{table.name}, row {row},"
        raise ValueError(
            f"{other.name}, row {again}: event {event} is in {before} already "
            f"({len(id_N) - len(ids)} rows too many in all)"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where the rows of each event of a part lie, in the order of the events."""

    event_id: NDArray[np.int64]  # (B,)
    first: NDArray[np.int64]  # (B,) first row
    num_pulses: NDArray[np.int64]  # (B,)
    # (T,) rows of the table in the order of the events, which `first` is then counted
    # in; None where they are in it.
    order_T: NDArray[np.int64] | None = None
    # The event_ids whose rows were not together, if there are any.
    scattered: NDArray[np.int64] | None = None

    @classmethod
    def of_runs(
        cls,
        ids_R: NDArray[np.int64],
        offsets_R: NDArray[np.int64],
        id_range: tuple[int, int],
    ) -> Layout:
        """Find out, for the events whose ids are in a range.

        Events come in the order of their first row, rows of an event in theirs.
        """
        kept = (ids_R >= id_range[0]) & (ids_R <= id_range[1])
        ids_R, starts_R, lengths_R = (
            values[kept] for values in (ids_R, offsets_R[:-1], np.diff(offsets_R))
        )
        known = import_pyarrow().array(ids_R).dictionary_encode()
        ids, event_R = known.dictionary.to_numpy(), known.indices.to_numpy()
        if len(ids) == len(ids_R):
            return cls(event_id=ids_R, first=starts_R, num_pulses=lengths_R)
        order_R = np.argsort(event_R, kind="stable")
        lengths = lengths_R[order_R]
        shift = starts_R[order_R] - (np.cumsum(lengths) - lengths)
        num_pulses = np.bincount(event_R, lengths_R).astype(np.int64)
        return cls(
            event_id=ids,
            first=np.cumsum(num_pulses) - num_pulses,
            num_pulses=num_pulses,
            order_T=np.arange(lengths.sum()) + np.repeat(shift, lengths),
            scattered=ids[np.bincount(event_R) > 1],
        )


@dataclass(kw_only=True, eq=False)
class TablePart(Part):
    """Pulses of a table, with their truth."""

    name: str
    pulses: Table
    columns: tuple[str, ...]  # pulse columns to read
    event_column: str = ""  # of the pulses
    truth: Truth | None = None
    # Rows of the truth to read: an integer column and least and greatest value. None
    # reads those of the part's event_ids.
    truth_where: tuple[str, int, int] | None = None
    num_pulses: int | None = None  # about
    batch: int | None = None  # of the competition
    id_range: tuple[int, int] = LEAST, GREATEST  # event_ids to take
    # Whether rows of truth without pulses become events; then all the truth is read.
    with_empty: bool = True
    # Whether these come in their place by number, where the others are in that order;
    # else after the others.
    by_number: bool = False

    def layout(self) -> Layout:
        """Return where the rows of each event lie."""
        return Layout.of_runs(*self.pulses.runs(self.event_column), self.id_range)

    def read_truth(
        self, event_id: NDArray[np.int64]
    ) -> tuple[TruthRows, NDArray[np.int64]] | None:
        """Return rows of truth, and which of them is that of each event, (B,)."""
        if self.truth is None or not (self.with_empty or len(event_id)):
            return None
        pa = import_pyarrow()
        import pyarrow.compute as pc

        where = self.truth_where
        if where is None and not self.with_empty:
            where = (self.truth.event_column, int(event_id.min()), int(event_id.max()))
        truth = self.truth.read(where)
        found = pc.index_in(pa.array(event_id), value_set=pa.array(truth.event_id))
        if found.null_count:
            lost = event_id[np.asarray(found.is_null())]
            raise ValueError(
                f"{self.name}: {describe_ids(lost)} without a row in "
                f"{self.truth.name}. Complete the truth, take the pulses out, or "
                f"prepare without truth: {NO_TRUTH}"
            )
        return truth, np.asarray(found).astype(np.int64)

    def check_truth(self, truth: TruthRows, pulses_N: NDArray[np.int64]) -> TruthRows:
        """Return the truth to be kept, if it agrees with the number of pulses."""
        return truth

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the part, in chunks of at most `max_pulses` pulses or one event."""
        layout, notes = self.layout(), list[str]()
        event_id, first, count = layout.event_id, layout.first, layout.num_pulses
        truth, rows_B = None, np.empty(0, np.int64)
        if joined := self.read_truth(event_id):
            truth, rows_B = joined
            notes += truth.notes
            pulses_N = np.zeros(len(truth.event_id), np.int64)
            pulses_N[rows_B] = count
            truth = self.check_truth(truth, pulses_N)
        if layout.scattered is not None:
            notes.append(
                f"{self.name}: the rows of {describe_ids(layout.scattered)} were not "
                "together; gathered"
            )
        unused = np.setdiff1d(np.arange(len(truth.event_id) if truth else 0), rows_B)
        if self.truth and truth and self.with_empty and len(unused):
            notes.append(empty_note(truth.event_id[unused], self.truth.name, self.name))
            rows_B = np.append(rows_B, unused)
            event_id, count = truth.event_id[rows_B], pulses_N[rows_B]
            first = np.append(first, np.zeros(len(unused), np.int64))
            if self.by_number:
                order = np.argsort(event_id)
                rows_B, event_id = rows_B[order], event_id[order]
                first, count = first[order], count[order]
        if not len(event_id):
            return
        first = starts_of(first, count)
        # Rows of no event between two are read with them and left out.
        borders = np.append(first, first[-1] + count[-1])
        slices = list(chunk_borders(borders, max_pulses))
        cuts = borders[[0, *(events.stop for events in slices)]]
        read = self._read(layout, cuts)
        for events, cut, (first_row, columns) in zip(slices, cuts, read, strict=False):
            offsets = np.append(0, np.cumsum(count[events]))
            if offsets[-1] < borders[events.stop] - cut:
                shift_B = first[events] - cut - offsets[:-1]
                row_T = np.arange(offsets[-1]) + np.repeat(shift_B, count[events])
                columns = {name: values[row_T] for name, values in columns.items()}
                first_row = None
            labels = truth.columns if truth else {}
            yield EventChunk(
                columns=columns,
                offsets=offsets,
                event_id=event_id[events],
                truth={name: v[rows_B[events]] for name, v in labels.items()},
                first_row=first_row,
                notes=tuple(notes),
            )
            notes = []

    def _read(
        self, layout: Layout, cuts: NDArray[np.int64]
    ) -> Iterator[tuple[int | None, dict[str, NDArray[Any]]]]:
        """Yield first row and columns of the pulses from cut to cut."""
        if layout.order_T is None:
            yield from self.pulses.read_rows(self.columns, cuts)
            return
        assert self.pulses.num_rows is not None  # else rows are in order
        everything = np.array([0, self.pulses.num_rows])
        ((_, whole),) = self.pulses.read_rows(self.columns, everything)
        for low, high in pairwise(cuts):
            order = layout.order_T[low:high]
            yield None, {name: values[order] for name, values in whole.items()}


def starts_of(
    first_B: NDArray[np.int64], count_B: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return first rows; events without pulses lie where the one before ends."""
    end_B = np.maximum.accumulate(np.where(count_B > 0, first_B + count_B, 0))
    return np.where(count_B > 0, first_B, np.append(0, end_B[:-1]))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is read of tables."""

    event_column: str  # of the pulses
    pulse_map: PulseMap
    columns: tuple[str, ...]  # pulse columns that are read
    truth: Truth | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def part(
        self, pulses: Table, truth: Table | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return what a part of a table is made of, maybe with a truth of its own."""
        labels = self.truth
        if labels is not None and truth is not None:
            labels = replace(labels, tables=(truth,))
        return {
            "name": pulses.name,
            "pulses": pulses,
            "columns": self.columns,
            "event_column": self.event_column,
            "truth": labels,
            "num_pulses": pulses.num_rows,
            **more,
        }

    def source(self, kind: str, parts: Sequence[Part], **more: Any) -> Source:
        """Return parts as a source."""
        return Source(
            kind=kind,
            pulse_map=self.pulse_map,
            parts=parts,
            pulse_columns=self.columns,
            **{"left_out": self.left_out, "notes": self.notes, **more},
        )


def select(
    pulses: Sequence[Table],
    truth: Sequence[Table],
    wanted: Wanted,
    *,
    is_joined: bool = True,
    without: Sequence[str] = (),
) -> Selection:
    """Find what tables mean, and which columns to read.

    An event column joins pulses and truth where `is_joined`. Columns `without` are no
    truth.
    """
    first = pulses[0]
    key = truth_key = ""
    if is_joined:
        key = find_event_column(first.types, wanted.event_column, first.name)
    available = {c: kind for c, kind in first.types.items() if c != key}
    pulse_map = settle_pulse_map(available, wanted.pulse_map, first.name)
    columns, left_out = choose_columns(available, pulse_map, wanted.keep)
    check_tables(pulses, columns, pulse_map, key)
    labels, notes = None, tuple[str, ...]()
    if truth:
        if is_joined:
            types, name = truth[0].types, truth[0].name
            truth_key = find_event_column(types, wanted.event_column, name, like=key)
        labels, rest, notes = open_truth(truth, pulse_map, truth_key, without)
        left_out += rest
    return Selection(
        event_column=key,
        pulse_map=pulse_map,
        columns=columns,
        truth=labels,
        left_out=left_out,
        notes=notes,
    )


def open_truth(
    tables: Sequence[Table],
    pulse_map: PulseMap,
    event_column: str,
    without: Sequence[str] = (),
) -> tuple[Truth, tuple[str, ...], tuple[str, ...]]:
    """Return truth, columns left out, and what there is to say."""
    first = tables[0]
    taken, left_out, notes = choose_truth_columns(
        first, pulse_map, (event_column, *without)
    )
    angles = tuple(c for c in angle_columns(pulse_map) if c in taken)
    if not angles:
        lost = " and ".join(map(repr, angle_columns(pulse_map)))
        notes = (*notes, f"{first.name} has no directions: no columns {lost}")
    check_tables(tables, taken, key=event_column)
    truth = Truth(
        tables=tuple(tables), event_column=event_column, columns=taken, angles=angles
    )
    return truth, left_out, notes


def empty_note(event_id: NDArray[np.int64], truth_name: str, pulses_name: str) -> str:
    """Return, for the user, which rows of truth have become events without pulses."""
    return (
        f"{describe_ids(event_id)} of {truth_name} without pulses in {pulses_name}; "
        "kept as events with 0 pulses"
    )
