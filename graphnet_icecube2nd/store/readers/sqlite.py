"""GraphNeT's SQLite files: a table of pulses and a table of truth, joined by event_no.

Parts are ranges of event_no, so several processes share one file and a conversion that
was stopped goes on at the next range; an index on the event column is all that is
needed to read a range of a file of any size. SQLite keeps a type with every value and
asks little of a column; Arrow wants one type a column. Nothing is written into the
user's file. Shape letters: B events, R rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import (
    Keep,
    PathLike,
    check_tables,
    choose_columns,
    choose_tables,
    list_files,
)
from graphnet_icecube2nd.store.readers.flat_part import FlatPart
from graphnet_icecube2nd.store.readers.rows import Rows
from graphnet_icecube2nd.store.readers.source import (
    SQLITE_SUFFIXES,
    EventChunk,
    Source,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.truth import open_truth

DUPLICATES = ("error", "renumber")
SOURCE_FILE = "source_file"  # which of several files an event is of, from 0
# As Python objects, before they become arrays; ten times as many take twice the time.
ROWS_AT_ONCE = 2**11


def sqlite_source(
    paths: PathLike | Sequence[PathLike],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str = "event_no",
    keep: Keep = (),
    duplicates: str = "error",
    events_per_part: int = 100_000,
) -> Source:
    """Read GraphNeT's SQLite files.

    Events come in the order of event_no, file by file; pulses of an event in the order
    they were written. A row of truth without pulses is an event of no pulses. Looking
    at the types of kept columns reads the tables once.

    Args:
        paths: A file, several, or folders of files that end in `.db`
            (`.sqlite`, `.sqlite3`).
        pulses: Table of pulses; default the one that a named pulse map fits.
        truth: Table of truth; default the one that has the angles, and the event
            column for its primary key if one has. False to do without.
        pulse_map: What the columns mean; default one of the named pulse maps.
        event_column: Joins pulses to truth.
        keep: Further columns of the pulses to take, or `all`.
        duplicates: What to do with an event_no that stands in two files: `error`, or
            `renumber` to count events through all files and keep the old number and
            the number of the file as truth columns `event_no` and `source_file`.
        events_per_part: Events that one process reads at a time.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file is no SQLite file or not whole, a table is missing or
            ambiguous, files do not agree; names file and table.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(
            f"duplicates must be one of {', '.join(DUPLICATES)}, got {duplicates!r}"
        )
    if events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    files = [
        _choose_tables(path, pulses, truth, pulse_map, event_column)
        for path in list_files(paths, SQLITE_SUFFIXES)
    ]
    tables = [rows for rows, _, _ in files]
    truth_tables = [rows for _, rows, _ in files if rows is not None]
    first, _, found = files[0]
    for table, _, other in files:
        if other != found:
            raise ValueError(
                f"{first.path} fits pulse map {found.name!r}, {table.path} "
                f"{other.name!r}; read them one by one"
            )
    others = [column for column in first.types if column != event_column]
    taken, _ = choose_columns(others, found, keep)
    check_tables(tables, taken)
    # The store makes float32 of what it knows, but keeps an integer clock as it is.
    known = found.columns()
    clock = found.time_reference == "first_pulse"
    asked = [c for c in taken if c not in known or (clock and known[c] == TIME)]
    tables = with_types(tables, asked)
    available = {column: tables[0].types[column] for column in others}
    wanted, (taken, left_out) = taken, choose_columns(available, found, keep)
    check_tables(tables, taken, found)
    notes = [table.index_note() for table in tables]
    notes += [
        f"pulse column {column!r} left out: text is kept for events only"
        for column in wanted
        if column not in taken
    ]
    labels, kept_event = None, None
    if truth_tables:
        for table in truth_tables[1:]:
            for pair in permutations((truth_tables[0], table)):
                check_tables(pair, [*pair[0].types])
        asked = [c for c in truth_tables[0].types if c != event_column]
        truth_tables = with_types(truth_tables, asked)
        labels, _, truth_notes = open_truth(
            truth_tables, found, event_column=event_column
        )
        notes += truth_notes
    if duplicates == "renumber":
        kept_event = "event_no" if event_column in RESERVED else event_column
        notes += [f"{SOURCE_FILE} {n} is {t.path}" for n, t in enumerate(tables)]
        clash = {kept_event, SOURCE_FILE} & set(labels.columns if labels else ())
        if clash:
            raise ValueError(
                f"{first.path}: the truth has a column {sorted(clash)[0]!r} already, "
                "which renumbering would make"
            )
    parts: list[SqlitePart] = []
    first_number = 0
    for number, rows in enumerate(tables):
        counted = truth_tables[number] if labels else rows
        borders, num_events = counted.borders(events_per_part)
        lows, highs = [None, *borders], [*borders, None]
        for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
            name = str(rows.path)
            if borders:
                name += f" (part {index + 1} of {len(borders) + 1})"
            part = SqlitePart(
                name=name,
                rows=replace(rows, low=low, high=high),
                event_column=event_column,
                columns=taken,
                by_number=True,
                kept_event=kept_event,
                file_number=number,
                first_number=first_number + index * events_per_part,
            )
            if labels is not None:
                part.truth = replace(
                    labels, rows=(replace(counted, low=low, high=high),)
                )
            parts.append(part)
        first_number += num_events
    return Source(
        kind="graphnet-sqlite",
        pulse_map=found,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        notes=tuple(filter(None, notes)),
    )


@dataclass(kw_only=True, eq=False)
class SqlitePart(FlatPart):
    """A range of events of a SQLite file."""

    rows: SqliteRows
    # Truth column that keeps the event column where events get new numbers, or
    # None.
    kept_event: str | None
    file_number: int  # place among the files
    first_number: int  # events in the parts before

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        renumbered = [self.kept_event, self.file_number, self.first_number]
        return {**super().fingerprint(), "renumbered": renumbered}

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the events of the range, from one state of the file."""
        number = self.first_number
        with opened(self.rows.path) as connection:
            part = replace(self, rows=replace(self.rows, connection=connection))
            if self.truth is not None:
                truth_rows: Any = self.truth.rows[0]
                truth_rows = replace(truth_rows, connection=connection)
                part.truth = replace(self.truth, rows=(truth_rows,))
            for chunk in super(SqlitePart, part).chunks(max_pulses):
                if self.kept_event is None:
                    yield chunk
                    continue
                num_events = len(chunk.event_id)
                old = {
                    self.kept_event: chunk.event_id,
                    SOURCE_FILE: np.full(num_events, self.file_number, np.int64),
                }
                yield replace(
                    chunk,
                    event_id=np.arange(number, number + num_events),
                    truth={**chunk.truth, **old},
                )
                number += num_events


def _choose_tables(
    path: Path,
    pulses: str | None,
    truth: str | bool | None,
    pulse_map: PulseMap | None,
    event: str,
) -> tuple[SqliteRows, SqliteRows | None, PulseMap]:
    """Return the tables of a file, and what the columns of the pulses mean."""
    with opened(path) as connection:
        tables = list_tables(connection)
    chosen, labels, found = choose_tables(
        tables,
        place=str(path),
        event=event,
        pulses=pulses,
        truth=truth,
        pulse_map=pulse_map,
        keyed=[table for table in tables if table.key == (event,)],
    )
    rows = SqliteRows(path=path, table=chosen, event=event)
    rows.check_event_numbers()
    truth_rows = None
    if labels is not None:
        truth_rows = replace(rows, table=labels)
        truth_rows.check_event_numbers()
    return rows, truth_rows, found


@dataclass(frozen=True, kw_only=True)
class SqliteTable:
    """A table of a SQLite file."""

    name: str  # what the file calls it
    types: dict[str, Any]  # Arrow type of each column, as far as it was looked at
    key: tuple[str, ...]  # columns of its primary key
    # Names, as SQL writes them, by which rows are in the order of writing.
    order: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SqliteRows(Rows):
    """The rows of a table, in the order of the events and then of writing."""

    path: Path
    table: SqliteTable  # the table
    event: str  # its event column
    # First event, and the first of the next part; None at the ends, so that no
    # row of the file is in no part.
    low: int | None = None
    high: int | None = None
    connection: sqlite3.Connection | None = None  # the file, where it is open

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return f"{self.path}, table {self.table.name!r}"

    @property
    def types(self) -> dict[str, Any]:
        """Arrow type of each column."""
        return {**self.table.types, self.event: import_pyarrow().int64()}

    @property
    def num_rows(self) -> None:
        """Not known; counting takes long."""

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""
        pa = import_pyarrow()
        row = 0
        with self._selected([self._sql(column) for column in columns]) as cursor:
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                values = zip(columns, zip(*rows, strict=True), strict=True)
                arrays = [self._array(column, list(v), row) for column, v in values]
                yield row, pa.record_batch(arrays, names=list(columns))
                row += len(rows)

    def runs(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the events, (R,), and borders of their rows (R + 1,)."""
        selected = [self._sql(column), "count(*)"]
        with self._selected(selected, group=True) as cursor:
            pairs = np.array(cursor.fetchall(), np.int64).reshape(-1, 2)
        return pairs[:, 0], np.append(0, np.cumsum(pairs[:, 1]))

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether a file, its write-ahead log, or a range differs."""
        log = _log_of(self.path)
        return {
            **file_fingerprint(self.path),
            "log": file_fingerprint(log) if log.exists() else None,
            "table": self.table.name,
            "types": {column: str(kind) for column, kind in self.types.items()},
            "range": [self.low, self.high],
        }

    def at(self, row: int) -> str:
        """Return what messages call a row: rows have an event, but no number."""
        with self._selected([self._sql(self.event)]) as cursor:
            for _ in range(row):
                cursor.fetchone()
            return f"{self.name}, event {cursor.fetchone()[0]}"

    def borders(self, events_per_part: int) -> tuple[list[int], int]:
        """Return the events that parts begin with, but for the first; and how many."""
        with self._selected([self._sql(self.event)], group=True) as cursor:
            ids = np.fromiter((row[0] for row in cursor), np.int64)
        return ids[events_per_part::events_per_part].tolist(), len(ids)

    def check_event_numbers(self) -> None:
        """See that every row names an event; whole numbers stored as reals will do.

        Raises:
            ValueError: One does not.
        """
        event = quoted(self.event)
        with opened(self.path) as connection:
            bad = connection.execute(
                f"SELECT {event} FROM {quoted(self.table.name)} WHERE {event} IS NULL "
                f"OR typeof({event}) IN ('text', 'blob') "
                f"OR {event} != CAST({event} AS INTEGER) LIMIT 1"
            ).fetchone()
        if bad is not None:
            value = "NULL" if bad[0] is None else repr(bad[0])
            raise ValueError(
                f"{self.name}: event column {self.event!r} holds {value}; it must hold "
                "whole numbers"
            )

    def index_note(self) -> str:
        """Return a note if there is no index on the event column."""
        name, event = self.table.name, self.event
        with opened(self.path) as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM {quoted(name)} "
                f"WHERE {quoted(event)} >= 0 AND {quoted(event)} < 1"
            ).fetchall()
        if any("SEARCH" in step[3] for step in plan):
            return ""
        return (
            f"{self.name}: no index on {event!r}, so every part reads all of it. "
            "Quicker, if you may write to the file: CREATE INDEX "
            f"{event}_{name} ON {name} ({event})"
        )

    @contextmanager
    def _selected(
        self, what: Sequence[str], group: bool = False
    ) -> Iterator[sqlite3.Cursor]:
        """Query the rows of the range, or one row an event."""
        event = quoted(self.event)
        bounds = [(">=", self.low), ("<", self.high)]
        terms = [f"{event} {sign} ?" for sign, limit in bounds if limit is not None]
        query = f"SELECT {', '.join(what)} FROM {quoted(self.table.name)}"
        query += f" WHERE {' AND '.join(terms)}" if terms else ""
        query += f" GROUP BY {event}" if group else ""
        order = [event] if group else [event, *self.table.order]
        query += f" ORDER BY {', '.join(order)}"
        limits = [limit for _, limit in bounds if limit is not None]
        if self.connection is not None:
            yield self.connection.execute(query, limits)
            return
        with opened(self.path) as connection:
            yield connection.execute(query, limits)

    def _sql(self, column: str) -> str:
        name = quoted(column)
        return f"CAST({name} AS INTEGER)" if column == self.event else name

    def _array(self, column: str, values: list[Any], first_row: int) -> Any:
        """Return values of one column as an Arrow array; NULL becomes null."""
        pa = import_pyarrow()
        kind = self.types[column]
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError):
            for row, value in enumerate(values):
                if value is not None and not isinstance(value, _VALUES[str(kind)]):
                    raise ValueError(
                        f"{self.at(first_row + row)}: column {column!r} is {value!r}; "
                        f"it must hold {'text' if kind == pa.string() else 'numbers'}"
                    ) from None
            return pa.array(np.array(values, kind.to_pandas_dtype()))


_VALUES: dict[str, Any] = {"int64": int, "double": int | float, "string": str}


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading only, and see one state of it throughout.

    Raises:
        ValueError: It is no SQLite file, encrypted, damaged or not whole; names it.
    """
    connection = None
    try:
        connection = sqlite3.connect(_uri(path), uri=True, isolation_level=None)
        connection.execute("BEGIN")
        yield connection
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise ValueError(
                f"{path} cannot be read now, another program is writing to it: {error}"
            ) from None
        raise ValueError(
            f"{path} cannot be read as SQLite: {error}. It may be of another format, "
            "encrypted, or not a whole copy"
        ) from None
    finally:
        if connection is not None:
            connection.close()


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def list_tables(connection: sqlite3.Connection) -> list[SqliteTable]:
    """Return the tables of a file, all columns taken for numbers."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall()
    return [_describe(connection, name) for (name,) in names]


def with_types(
    tables: Sequence[SqliteRows], columns: Sequence[str]
) -> list[SqliteRows]:
    """Look at the values of columns; return tables of one type a column in all files.

    Integers and reals in one column are reals; so is a column of NULL alone. Reads
    each table once.

    Raises:
        ValueError: Text among numbers, or values that are neither.
    """
    pa = import_pyarrow()
    names = ("integer", "real", "text", "blob")
    seen: dict[str, set[str]] = {column: set() for column in columns}
    for rows in tables if columns else ():
        asked = ", ".join(
            f"max(typeof({quoted(column)}) = '{name}')"
            for column in columns
            for name in names
        )
        with opened(rows.path) as connection:
            query = f"SELECT {asked} FROM {quoted(rows.table.name)}"
            found = iter(connection.execute(query).fetchone())
        for column in columns:
            types = seen[column]
            types.update([name for name in names if next(found)])
            if "blob" in types or ("text" in types and len(types) > 1):
                raise ValueError(
                    f"{rows.name}: column {column!r} holds "
                    f"{' and '.join(sorted(types))}; numbers or text alone can be read"
                )
    kinds = {
        column: pa.int64()
        if types == {"integer"}
        else (pa.string() if "text" in types else pa.float64())
        for column, types in seen.items()
    }
    return [
        replace(rows, table=replace(rows.table, types={**rows.types, **kinds}))
        for rows in tables
    ]


def _describe(connection: sqlite3.Connection, name: str) -> SqliteTable:
    pa = import_pyarrow()
    rows = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    key_places = sorted((row[5], row[1]) for row in rows if row[5])
    key = tuple(column for _, column in key_places)
    order: tuple[str, ...] = ("_rowid_",)
    try:
        connection.execute(f"SELECT _rowid_ FROM {quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:  # WITHOUT ROWID
        order = tuple(map(quoted, key))
    return SqliteTable(
        name=name,
        types={row[1]: pa.float64() for row in rows},
        key=key,
        order=order,
    )


def _uri(path: Path) -> str:
    """Return how to open a file so that nothing is written, beside it neither."""
    with open(path, "rb") as file:
        keeps_log = file.read(20)[18:19] == b"\x02"
    uri = f"{path.resolve().as_uri()}?mode=ro"
    # For a file that keeps a write-ahead log, but has none since nobody has it open,
    # SQLite would make one.
    return f"{uri}&immutable=1" if keeps_log and not _log_of(path).exists() else uri


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
