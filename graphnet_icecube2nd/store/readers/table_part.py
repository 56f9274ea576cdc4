"""A part of a table of pulses, with one row per pulse, joined with its truth.

The rows of each event are found first; then the columns are read in chunks of whole
events. If the rows of an event are scattered, the table is read several times, and each
time a limited number of events is gathered. Shape letters: T pulses, B events, R runs
of rows with one event_id, N rows of truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import AZIMUTH, ZENITH
from graphnet_icecube2nd.detector.pulse_map import LabelColumns, PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import (
    ANGLES,
    KM3NET_ANGLES,
    NO_TRUTH,
    ChosenTables,
    Wanted,
    angle_columns,
    check_tables,
    choose_columns,
    find_event_column,
    same_pulse_map,
    settle_labels,
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
    JoinedTable,
    Runs,
    Table,
    is_number,
    is_string,
    members_of,
    no_values,
)

NO_DIRECTIONS = "no truth is read: the events have no directions"
PART_EVENTS = 4_096, 100_000  # minimum and maximum events per part; else eight parts
GATHERED_PULSES = 2**23  # pulses of scattered events that are gathered at once
EVENT_PULSES = 2**25  # maximum pulses per event
FAR = 2**22  # rows that are passed over instead of read


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthRows:
    """Rows of truth in memory, with each event_id once."""

    event_id: NDArray[np.int64]  # (N,)
    columns: dict[str, NDArray[Any]]  # (N,) numbers, booleans or strings
    notes: tuple[str, ...] = ()  # texts for the user


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Tables of truth with one row per event, in one or several files."""

    tables: tuple[Table, ...]
    event_column: str  # column of the event_id
    columns: tuple[str, ...]  # columns to read
    angles: tuple[str, ...] = ()  # those of the direction, finite or NaN
    left_out: tuple[str, ...] = ()  # columns that are not read
    notes: tuple[str, ...] = ()  # texts on the columns

    @property
    def name(self) -> str:
        """Name of the truth for messages."""
        return name_of(self.tables)

    def read(
        self,
        where: tuple[str, int, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> TruthRows:
        """Read rows of truth.

        Args:
            where: Integer column with least and greatest value of the rows to read;
                None for all rows.
            columns: Columns to read; default: all.

        Raises:
            ValueError: An event_id is there twice, or a value is not valid.
        """
        columns = self.columns if columns is None else columns
        key, types = self.event_column, self.tables[0].types
        needed = dict.fromkeys([*(where or ())[:1], key, *columns])
        ids = [np.empty(0, np.int64)]
        pieces = {column: [no_values(types[column])] for column in columns}
        for table in self.tables:
            fewer = table if where is None else table.within(*where)
            # pandas writes NaN as null.
            floats = [c for c in columns if no_values(table.types[c]).dtype.kind == "f"]
            for row, arrays in fewer.arrays([*needed], nan=floats):
                inside: Any = slice(None)
                if where is not None:
                    value_N = table.as_ids(arrays[where[0]], where[0], row)
                    inside = (value_N >= where[1]) & (value_N <= where[2])
                    if not inside.any():  # most pieces of a large file
                        continue
                ids.append(table.as_ids(arrays[key], key, row)[inside])
                for column in columns:
                    if column in self.angles:
                        table.check_angle(arrays[column], column, row)
                    pieces[column].append(arrays[column][inside])
        found = {column: np.concatenate(all_) for column, all_ in pieces.items()}
        event_id = np.concatenate(ids)
        self._check_once(event_id)
        notes = tuple(
            f"{self.name}: column {column!r} is null or NaN in {unknown} of "
            f"{len(values)} rows, which is kept as NaN"
            for column, values in found.items()
            if values.dtype.kind == "f" and (unknown := int(np.isnan(values).sum()))
        )
        if self.angles == KM3NET_ANGLES and columns:
            found |= _origin_of(*(found[column] for column in KM3NET_ANGLES))
            # Files without truth (data, noise) have fillers in all these columns.
            filler_B = np.isnan(found[ZENITH])
            for column, values in found.items():
                if column.startswith("true_") and values.dtype.kind == "f":
                    found[column] = np.where(filler_B, np.nan, values)
        return TruthRows(event_id=event_id, columns=found, notes=notes)

    def find(self, event: int) -> list[tuple[Table, int]]:
        """Return table and row of all rows of an event, for messages."""
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
        before = f"row {row}" if table is other else f"{table.name}, row {row}"
        raise ValueError(
            f"{other.name}, row {again}: each event must have one row, but event "
            f"{event} is also in {before} ({len(id_N) - len(ids)} rows too many)"
        )


def _origin_of(
    azimuth_N: NDArray[Any], zenith_N: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return angles of the origin from those of GraphNeT's converter; NaN for fillers.

    Its zenith is that of the flight, and its azimuth that of the origin.
    """
    with np.errstate(invalid="ignore"):
        known_N = (zenith_N >= 0) & (zenith_N <= np.pi) & (np.abs(azimuth_N) <= 7)
    return {
        AZIMUTH: np.where(known_N, azimuth_N % (2 * np.pi), np.nan),
        ZENITH: np.where(known_N, np.pi - zenith_N, np.nan),
    }


@dataclass(kw_only=True, eq=False)
class TablePart(Part):
    """Pulses of a table, with their truth.

    Args:
        name: Name for messages.
        pulses: Table of pulses.
        columns: Pulse columns to read.
        event_column: Event column of the pulses.
        truth: Truth of the events, or None.
        truth_where: Rows of truth to read: integer column, least and greatest value;
            default: those of the part's event_ids.
        num_pulses: Approximate number of pulses.
        batch: Number of the competition's batch.
        id_range: Least and greatest event_id to read.
        with_empty: Whether rows of truth without pulses become events; then all rows
            of truth are read.
        by_number: Whether events are sorted by number; otherwise those without pulses
            are the last.
        by_truth: Whether events have the order of the truth.
    """

    name: str
    pulses: Table
    columns: tuple[str, ...]
    event_column: str
    truth: Truth | None = None
    truth_where: tuple[str, int, int] | None = None
    num_pulses: int | None = None
    batch: int | None = None
    id_range: tuple[int, int] = LEAST, GREATEST
    with_empty: bool = True
    by_number: bool = False
    by_truth: bool = False

    @property
    def for_threads(self) -> bool:  # type: ignore[override]
        """Whether reading releases the interpreter most of the time."""
        return self.pulses.for_threads

    def of(self, pulses: Table, truth: Table | None = None, **more: Any) -> TablePart:
        """Return the part for other pulses, and for other truth if there is some."""
        labels = self.truth
        if labels is not None and truth is not None:
            labels = replace(labels, tables=(truth,))
        own = {"name": pulses.name, "num_pulses": pulses.num_rows, "truth": labels}
        return replace(self, pulses=pulses, **{**own, **more})

    def read_truth(
        self, event_id: NDArray[np.int64]
    ) -> tuple[TruthRows, NDArray[np.int64]] | None:
        """Return rows of truth, and the row of each event, (B,); None without truth.

        Raises:
            ValueError: An event has no row of truth.
        """
        if self.truth is None or not (self.with_empty or len(event_id)):
            return None
        where = self.truth_where
        if where is None and not self.with_empty:
            where = (self.truth.event_column, int(event_id.min()), int(event_id.max()))
        truth = self.truth.read(where)
        rows_B = _places(event_id, truth.event_id)
        if (rows_B < 0).any():
            raise ValueError(
                f"{self.truth.name} must have a row for each event of {self.name}, but "
                f"lacks {describe_ids(event_id[rows_B < 0])}. Complete the truth, "
                f"remove the pulses, or leave truth out: {NO_TRUTH}"
            )
        return truth, rows_B

    def check_truth(self, truth: TruthRows, pulses_N: NDArray[np.int64]) -> TruthRows:
        """Return the truth to keep, given the number of pulses of each row, (N,)."""
        return truth

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield chunks of at most `max_pulses` pulses or one event, see `Part`."""
        tables, notes = members_of(self.pulses), list[str]()
        runs = [self._runs(table) for table in tables]
        ids_R, _, length_R = map(np.concatenate, zip(*runs, strict=True))
        known = import_pyarrow().array(ids_R).dictionary_encode()
        event_id, event_R = known.dictionary.to_numpy(), known.indices.to_numpy()
        count = np.bincount(event_R, length_R, len(event_id)).astype(np.int64)
        if (large := np.flatnonzero(count > EVENT_PULSES)).size:
            raise ValueError(
                f"{self.name}: an event must have at most {EVENT_PULSES} pulses, event "
                f"{event_id[large[0]]} has {count[large[0]]}"
            )
        if len(event_id) < len(ids_R) and len(tables) == 1:
            scattered = event_id[np.bincount(event_R) > 1]
            notes.append(
                f"{self.name}: the rows of {describe_ids(scattered)} were scattered; "
                "they were put together"
            )
        labels, rows_B = dict[str, NDArray[Any]](), np.empty(0, np.int64)
        if self.truth and (joined := self.read_truth(event_id)):
            truth, rows_B = joined
            notes = [*truth.notes, *notes]
            pulses_N = np.zeros(len(truth.event_id), np.int64)
            pulses_N[rows_B] = count
            labels = self.check_truth(truth, pulses_N).columns
            unused = np.setdiff1d(np.arange(len(truth.event_id)), rows_B)
            if self.with_empty and len(unused):
                lost = truth.event_id[unused]
                notes.append(empty_note(lost, self.truth.name, self.name))
                rows_B = np.append(rows_B, unused)
                event_id, count = truth.event_id[rows_B], pulses_N[rows_B]
        if self.by_number or self.by_truth:
            order = np.argsort(rows_B if self.by_truth else event_id, kind="stable")
            event_id, count = event_id[order], count[order]
            rows_B = rows_B[order] if len(rows_B) else rows_B
            event_R = np.argsort(order)[event_R]
        types = {c: no_values(self.pulses.types[c]).dtype for c in self.columns}
        borders = np.cumsum([len(of[0]) for of in runs])
        runs = [
            (own_R, *of[1:])
            for own_R, of in zip(np.split(event_R, borders[:-1]), runs, strict=True)
        ]
        for events, first_row, columns in self._pulses(runs, count, max_pulses):
            floats = {name for name, v in columns.items() if v.dtype.kind == "f"}
            yield EventChunk(
                columns=columns,
                with_nulls={c: types[c] for c in floats if types[c].kind != "f"},
                offsets=np.append(0, np.cumsum(count[events])),
                event_id=event_id[events],
                truth={name: v[rows_B[events]] for name, v in labels.items()},
                truth_name=self.truth.name if self.truth else "",
                first_row=first_row,
                notes=tuple(notes),
            )
            notes = []

    def _runs(self, table: Table) -> Runs:
        """Return the runs of the part's events."""
        runs = table.runs(self.event_column)
        kept_R = (runs[0] >= self.id_range[0]) & (runs[0] <= self.id_range[1])
        ids_R, first_R, length_R = (values[kept_R] for values in runs)
        return ids_R, first_R, length_R

    def _pulses(
        self, runs: Sequence[Runs], count: NDArray[np.int64], max_pulses: int
    ) -> Iterator[tuple[slice, int | None, dict[str, NDArray[Any]]]]:
        """Yield events, their first row if rows are contiguous, and their pulses.

        Args:
            runs: Runs of each table, with the places of the events.
            count: Number of pulses of each event, (B,).
            max_pulses: Maximum pulses of several events.
        """
        borders = np.append(0, np.cumsum(count))
        readers = [_RowReader(table, self.columns) for table in members_of(self.pulses)]
        in_order = all((event_R[1:] > event_R[:-1]).all() for event_R, *_ in runs)
        at_once = max_pulses if in_order else max(max_pulses, GATHERED_PULSES)
        for some in chunk_borders(borders, at_once):
            pieces, places = list[dict[str, NDArray[Any]]](), list[NDArray[np.int64]]()
            for reader, (event_R, first_R, length_R) in zip(readers, runs, strict=True):
                own_R = (event_R >= some.start) & (event_R < some.stop)
                row_T = _rows_of(first_R[own_R], length_R[own_R])
                pieces += reader.take(row_T)
                places.append(np.repeat(event_R[own_R], length_R[own_R]))
            whole, row = _concatenated(pieces), None
            if len(readers) > 1:
                assert isinstance(self.pulses, JoinedTable)
                order_T = np.lexsort((whole[self.pulses.time], np.concatenate(places)))
            elif not in_order:
                order_T = np.argsort(places[0], kind="stable")
            else:
                if self.pulses.has_rows and _are_contiguous(row_T):
                    row = int(row_T[0])
                yield some, row, whole
                continue
            own = borders[some.start : some.stop + 1] - borders[some.start]
            for part in chunk_borders(own, max_pulses):
                rows = order_T[own[part.start] : own[part.stop]]
                events = slice(some.start + part.start, some.start + part.stop)
                yield events, None, {name: v[rows] for name, v in whole.items()}


class _RowReader:
    """Reading of some rows of a table, in one pass as long as they ascend."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.table, self.columns = table, columns
        self.arrays = {name: no_values(table.types[name]) for name in columns}
        self.pieces: Iterator[tuple[int, dict[str, NDArray[Any]]]] = iter(())
        self.first, self.stop = GREATEST, 0  # rows of the arrays

    def take(self, row_T: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
        """Return the columns of rows, which ascend, in one or more pieces.

        Raises:
            ValueError: The file has changed.
        """
        none = {name: values[:0] for name, values in self.arrays.items()}
        taken = [] if len(row_T) else [none]
        done = 0
        while done < len(row_T):
            self._seek(int(row_T[done]))
            stop = int(np.searchsorted(row_T, self.stop))
            own: Any = row_T[done:stop] - self.first
            if _are_contiguous(own):
                own = slice(own[0], own[-1] + 1)
            taken.append({name: values[own] for name, values in self.arrays.items()})
            done = stop
        return taken

    def _seek(self, row: int) -> None:
        """Read the piece with a row."""
        if row < self.first or row >= self.stop + FAR:
            # A missing value is a bad pulse, as NaN is.
            self.pieces = self.table.arrays(self.columns, nan=self.columns, start=row)
            self.stop = row
        while self.stop <= row:
            self.first, self.arrays = next(self.pieces, (GREATEST, {}))
            if self.first > row:
                raise ValueError(
                    f"{self.table.name} has changed during the reading; read it again"
                )
            self.stop = self.first + len(self.arrays[self.columns[0]])


def _rows_of(
    first_R: NDArray[np.int64], length_R: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of runs, (T,)."""
    shift_R = first_R - (np.cumsum(length_R) - length_R)
    rows: NDArray[np.int64] = np.arange(length_R.sum()) + np.repeat(shift_R, length_R)
    return rows


def _are_contiguous(row_T: NDArray[np.int64]) -> bool:
    return len(row_T) > 0 and int(row_T[-1] - row_T[0]) == len(row_T) - 1


def _concatenated(pieces: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def _places(values: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of values among other, distinct values; -1 if missing."""
    pa = import_pyarrow()
    import pyarrow.compute as pc

    found = pc.index_in(pa.array(values), value_set=pa.array(among))
    places: NDArray[np.int64] = found.fill_null(-1).to_numpy().astype(np.int64)
    return places


def select(
    kind: str,
    pulses: Sequence[Table],
    truth: Sequence[Table],
    wanted: Wanted,
    *,
    events: Sequence[Table] = (),
    without: Sequence[str] = (),
) -> tuple[Source, TablePart]:
    """Find the meaning of tables, and the columns to read.

    Args:
        kind: Format, see `Source`.
        pulses: Tables of pulses.
        truth: Tables of truth; may be empty.
        wanted: Options of the user.
        events: Tables with one row per event, which give the events without truth.
        without: Columns that are not truth.

    Returns:
        A source without parts, and a part as example of these.

    Raises:
        ValueError: A column is missing or not valid.
    """
    first = pulses[0]
    key = find_event_column(first.types, wanted.event_column, first.name)
    available = {c: kind for c, kind in first.types.items() if c != key}
    pulse_map = wanted.read_as(available)
    pulse_map = settle_pulse_map(available, pulse_map, first.name)
    columns, left_out = choose_columns(available, pulse_map, wanted.keep)
    check_tables(pulses, columns, pulse_map, key)
    labels: Truth | None = None
    notes: tuple[str, ...] = (NO_DIRECTIONS,)
    tables = [f"pulses: {name_of(pulses)}"]
    if truth:
        types, name = truth[0].types, truth[0].name
        truth_key = find_event_column(types, wanted.event_column, name, like=key)
        pulse_map = settle_labels(pulse_map, [types])
        labels = _open_truth(truth, pulse_map, truth_key, without)
        left_out, notes = (*left_out, *labels.left_out), labels.notes
        tables.append(f"truth: {labels.name}")
        if labels.angles == KM3NET_ANGLES:
            pulse_map = replace(pulse_map, labels=LabelColumns())
    elif events:
        labels = Truth(tables=tuple(events), event_column=key, columns=())
    source = Source(
        kind=kind,
        pulse_map=pulse_map,
        parts=(),
        pulse_columns=columns,
        left_out=tuple(dict.fromkeys(left_out)),
        tables=tuple(tables),
        notes=notes,
    )
    part = TablePart(
        name="", pulses=first, columns=columns, event_column=key, truth=labels
    )
    return source, part


def select_of_files(
    kind: str, files: Sequence[ChosenTables], wanted: Wanted, **more: Any
) -> tuple[Source, TablePart]:
    """Find the columns to read in files whose tables are known, see `select`."""
    pulses = [file.pulses for file in files]
    truth = [file.truth for file in files if file.truth is not None]
    wanted = replace(wanted, pulse_map=same_pulse_map(files))
    return select(kind, pulses, truth, wanted, **more)


def _open_truth(
    tables: Sequence[Table],
    pulse_map: PulseMap,
    event_column: str,
    without: Sequence[str] = (),
) -> Truth:
    """Return the truth: numbers, booleans and strings, without reserved columns."""
    name, types, wanted = tables[0].name, tables[0].types, angle_columns(pulse_map)
    rest = [c for c in types if c not in (event_column, *without)]
    notes = [
        f"{name}: column {column!r} is left out, because this name is reserved for the "
        "store"
        for column in rest
        if column in RESERVED
    ]
    nested = [c for c in rest if not (is_number(types[c]) or is_string(types[c]))]
    if nested:
        notes.append(
            f"{name}: columns without numbers or strings are left out: "
            f"{', '.join(nested)}"
        )
    taken = tuple(c for c in rest if c not in nested and c not in RESERVED)
    angles = tuple(column for column in wanted if column in taken)
    wrong = [c for c in wanted if c in types and not is_number(types[c])]
    if len(angles) == 1 or wrong:
        lost = wrong[0] if wrong else next(c for c in wanted if c not in taken)
        what = f"is {types[lost]}, not a number" if wrong else "is missing"
        raise ValueError(
            f"{name}: column {lost!r}, an angle of pulse map {pulse_map.name!r}, "
            f"{what}; it has {', '.join(types)}. Name the columns: {ANGLES}, or leave "
            f"truth out: {NO_TRUTH}"
        )
    if not angles:
        words = " and ".join(map(repr, wanted))
        notes.append(f"{name} has no columns {words}, so no directions")
    if angles == KM3NET_ANGLES:
        notes.append(
            f"{AZIMUTH} and {ZENITH} of the origin are computed from "
            f"{' and '.join(angles)}, which GraphNeT's converter defines differently"
        )
    check_tables(tables, taken, key=event_column)
    return Truth(
        tables=tuple(tables),
        event_column=event_column,
        columns=taken,
        angles=angles,
        left_out=tuple(c for c in rest if c not in taken),
        notes=tuple(notes),
    )


def event_ranges(
    event_id: NDArray[np.int64], events_per_part: int | None = None
) -> list[tuple[str, int, int]]:
    """Return text, least and greatest event_id of each part of a file.

    Each number is in one part.

    Args:
        event_id: Event_ids of a file, ascending, (B,).
        events_per_part: Number of events per part; default: an eighth, within limits.
    """
    step = events_per_part or int(np.clip(len(event_id) // 8 + 1, *PART_EVENTS))
    lows = [LEAST, *event_id[step::step].tolist()]
    highs = [*(low - 1 for low in lows[1:]), GREATEST]
    several = len(lows) > 1
    return [
        (f" (part {n + 1} of {len(lows)})" if several else "", low, high)
        for n, (low, high) in enumerate(zip(lows, highs, strict=True))
    ]


def name_of(tables: Sequence[Table]) -> str:
    """Return the name of one or several tables for messages."""
    others = len(tables) - 1
    return f"{tables[0].name} (and {others} more)" if others else tables[0].name


def empty_note(event_id: NDArray[np.int64], truth_name: str, pulses_name: str) -> str:
    """Return a note on rows of truth that became events without pulses."""
    return (
        f"{pulses_name} has no pulses of {describe_ids(event_id)} of {truth_name}, "
        "which are kept as events with 0 pulses"
    )
