"""GraphNeT's SQLite files: a table of pulses and a table of truth, joined by event_no.

Parts are ranges of event_no, so several workers share one file and a conversion that
was stopped goes on at the next range; an index on the event column is all that is
needed to read a range of a file of any size. SQLite keeps a type with every value and
asks little of a column; Arrow, whose driver reads, wants one type a column. Nothing is
written into the user's file. Shape letters: B events, R runs of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import (
    PathLike,
    Wanted,
    check_same_pulse_map,
    check_tables,
    choose_columns,
    choose_tables,
    join_tables,
    list_files,
)
from graphnet_icecube2nd.store.readers.source import (
    SQLITE_SUFFIXES,
    EventChunk,
    Source,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.table_part import (
    TablePart,
    event_ranges,
    select,
)
from graphnet_icecube2nd.store.readers.tables import (
    GREATEST,
    LEAST,
    LONG_TEXT,
    JoinedTable,
    Runs,
    Table,
    is_number,
    is_string,
)

DUPLICATES = ("error", "renumber")
SOURCE_FILE = "source_file"  # which of several files an event is of, from 0
_OPTIONS = {"adbc.sqlite.query.batch_rows": str(2**16)}
# Which types of SQLite a column of a type may hold, and a value of that type.
_HOLDS = {"int64": ("'integer'", "0"), "string": ("'text'", "''")}
_NUMBERS = "'integer', 'real'", "0.5"


def sqlite_source(
    paths: PathLike | Sequence[PathLike],
    *,
    duplicates: str = "error",
    events_per_part: int | None = None,
    **options: Any,
) -> Source:
    """Read GraphNeT's SQLite files; `Wanted` says the further options.

    Events come in the order of event_no, file by file; pulses of an event in the order
    they were written. A row of truth without pulses is an event of no pulses. By
    default, truth is the table that has the angles, and the event column for its
    primary key if one has. Looking at the types of kept columns reads the tables once.
    """
    check_one_of("duplicates", duplicates, DUPLICATES)
    if events_per_part is not None and events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    wanted = Wanted(**{"event_column": "event_no", **options})
    event = str(wanted.event_column)
    tables, labels, pulse_maps = list[SqliteTable](), list[SqliteTable](), {}
    for path in list_files(paths, SQLITE_SUFFIXES):
        named = (*wanted.pulse_tables, wanted.truth)
        there = {
            name: table
            for name, table in list_tables(path, event).items()
            if name in named or not table.is_view
        }
        keyed = [name for name, table in there.items() if table.key == (event,)]
        chosen, truth, pulse_maps[path] = choose_tables(there, str(path), wanted, keyed)
        tables += [there[name] for name in chosen]
        several = len(chosen)
        labels += [there[truth]] if truth else []
    wanted = replace(wanted, pulse_map=check_same_pulse_map(pulse_maps))
    for table in (*tables, *labels):
        table.check_event_numbers()
    asked, tables = _with_types_of_pulses(tables, wanted)
    for table in labels:
        check_tables([table, *labels], [*table.types])
    labels = with_types(labels, [c for t in labels[:1] for c in t.types if c != event])
    # The tables of pulses of each file.
    grouped = [tables[i : i + several] for i in range(0, len(tables), several)]
    pulse_map = wanted.pulse_map
    joined = [join_tables(group, pulse_map) for group in grouped]
    selection = select(joined, labels, wanted)
    texts = [c for c in asked if c not in selection.columns]
    notes = [
        *filter(None, [table.index_note() for table in tables]),
        *(f"pulse column {c!r} left out: text is kept for events only" for c in texts),
        *selection.notes,
    ]
    kept_event = None
    if duplicates == "renumber":
        kept_event = "event_no" if event in RESERVED else event
        notes += [f"{SOURCE_FILE} {n} is {t.path}" for n, (t, *_) in enumerate(grouped)]
        known = selection.truth.columns if selection.truth else ()
        if clash := sorted({kept_event, SOURCE_FILE} & {*known}):
            raise ValueError(
                f"{tables[0].path}: the truth has a column {clash[0]!r} already, which "
                "renumbering would make"
            )
    parts: list[SqlitePart] = []
    first_number = 0
    for number, group in enumerate(grouped):
        counted = [labels[number]] if labels else group
        event_id = np.unique(np.concatenate([t.runs(event)[0] for t in counted]))
        ranges = event_ranges(event_id, events_per_part)
        for index, (low, high) in enumerate(ranges):
            rows = [replace(table, low=low, high=high) for table in group]
            which = f" (part {index + 1} of {len(ranges)})" if len(ranges) > 1 else ""
            of_tables = selection.part(
                join_tables(rows, pulse_map),
                replace(counted[0], low=low, high=high),
                name=f"{group[0].path}{which}",
            )
            part = SqlitePart(
                **of_tables,
                path=group[0].path,
                by_number=True,
                kept_event=kept_event,
                file_number=number,
                first_number=first_number + int(np.searchsorted(event_id, low)),
            )
            parts.append(part)
        first_number += len(event_id)
    return selection.source("graphnet-sqlite", parts, notes=tuple(notes))


def _with_types_of_pulses(
    tables: list[SqliteTable], wanted: Wanted
) -> tuple[tuple[str, ...], list[SqliteTable]]:
    """Return the columns that are asked for, and tables with the types of these.

    The store makes float32 of what it knows, but keeps an integer clock as it is.
    """
    pulse_map = wanted.pulse_map
    assert pulse_map is not None
    others = [column for column in tables[0].types if column != wanted.event_column]
    asked, _ = choose_columns(others, pulse_map, wanted.keep)
    check_tables(tables, asked)
    known = pulse_map.columns()
    if pulse_map.time_reference == "first_pulse":
        known = {c: quantity for c, quantity in known.items() if quantity != TIME}
    return asked, with_types(tables, [c for c in asked if c not in known])


@dataclass(kw_only=True, eq=False)
class SqlitePart(TablePart):
    """A range of events of a SQLite file."""

    path: Path
    # Truth column that keeps the event column where events get new numbers, or None.
    kept_event: str | None
    file_number: int  # place among the files
    first_number: int  # events in the parts before

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the events of the range, from one state of the file."""
        number = self.first_number
        with reading(self.path) as connection:

            def connected(table: Any) -> Any:
                if isinstance(table, JoinedTable):
                    return replace(table, tables=tuple(map(connected, table.tables)))
                return replace(table, connection=connection)

            part = replace(self, pulses=connected(self.pulses))
            if self.truth is not None:
                tables = tuple(map(connected, self.truth.tables))
                part.truth = replace(self.truth, tables=tables)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class SqliteTable(Table):
    """A table of a file, its rows in the order of the events and then of writing."""

    path: Path
    table: str  # what the file calls it
    types: dict[str, Any]  # Arrow type of each column, as far as it was looked at
    key: tuple[str, ...]  # columns of its primary key
    # Names, as SQL writes them, by which rows are in the order of writing.
    order: tuple[str, ...]
    event: str  # its event column
    is_view: bool
    low: int = LEAST  # first and last event that are read
    high: int = GREATEST
    connection: Any = None  # of Arrow's driver, where the file is open
    num_rows: None = None  # counting takes long

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return f"{self.path}, table {self.table!r}"

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""
        row = 0
        asked = [
            f"substr({quoted(c)}, 1, {LONG_TEXT + 1})"  # more is an error
            if is_string(self.types[c])
            else self._sql(c)
            for c in columns
        ]
        for batch in self._stream(columns, self._select(asked)):
            yield row, batch
            row += len(batch)

    def runs(self, column: str) -> Runs:
        """Return the rows of each event."""
        event, number = quoted(column), self._sql(column)
        what = [number, "count(*)", f"{event} != {number}"]
        query = self._select(what, f"GROUP BY {event} ORDER BY {event}")
        pieces = [np.empty((3, 0), np.int64)]
        for batch in self._stream([column, "", ""], query):
            pieces.append(np.stack([values.to_numpy() for values in batch.columns]))
        event_R, count_R, broken_R = np.concatenate(pieces, axis=1)
        if broken_R.any():
            self.check_event_numbers(f"{event} != {number}")
        return event_R, np.cumsum(count_R) - count_R, count_R

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether a file, its write-ahead log, or a range differs."""
        log = _log_of(self.path)
        state = file_fingerprint(log) if log.exists() else None
        return {**super().fingerprint(), "log": state}

    def at(self, row: int) -> str:
        """Return what messages call a row: rows have an event, but no number."""
        query = f"{self._select([self._sql(self.event)])} LIMIT 1 OFFSET {row}"
        with opened(self.path) as connection:
            return f"{self.name}, event {connection.execute(query).fetchone()[0]}"

    def check_event_numbers(self, bad: str = "") -> None:
        """See that every row names an event; whole numbers stored as reals will do.

        Numbers such as 2.5 are found later, where rows are counted.
        """
        event = quoted(self.event)
        # Text comes after all numbers.
        bad = bad or f"{event} IS NULL OR {event} > {GREATEST}"
        query = f"SELECT {event} FROM {quoted(self.table)} WHERE {bad} LIMIT 1"
        with opened(self.path) as connection:
            if found := connection.execute(query).fetchone():
                value = "NULL" if found[0] is None else repr(found[0])
                raise ValueError(
                    f"{self.name}: event column {self.event!r} holds {value}; it must "
                    "hold whole numbers"
                )

    def index_note(self) -> str:
        """Return a note if there is no index on the event column."""
        name, event = self.table, self.event
        with opened(self.path) as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM {quoted(name)} "
                f"WHERE {quoted(event)} >= 0 AND {quoted(event)} < 1"
            ).fetchall()
        if any("SEARCH" in step[3] for step in plan):
            return ""
        note = f"{self.name}: no index on {event!r}, so every part reads all of it"
        if self.is_view:
            return note
        return (
            f"{note}. Quicker, if you may write to the file: CREATE INDEX "
            f"{event}_{name} ON {name} ({event})"
        )

    def _select(self, what: Iterable[str], more: str = "") -> str:
        """Return the query for rows of the range, in order unless `more` is said."""
        event = quoted(self.event)
        return (
            f"SELECT {', '.join(what)} FROM {quoted(self.table)} "
            f"WHERE {event} BETWEEN {self.low} AND {self.high} "
            f"{more or 'ORDER BY ' + ', '.join([event, *self.order])}"
        )

    def _sql(self, column: str) -> str:
        name = quoted(column)
        return f"CAST({name} AS INTEGER)" if column == self.event else name

    def _stream(self, columns: Sequence[str], query: str) -> Iterator[Any]:
        """Yield the record batches of a query; unknown columns hold integers.

        The driver takes the type of a column from its first values and then insists on
        it, so there is a first row of the types that are asked for.
        """
        pa = import_pyarrow()
        kinds = [self.types.get(column, pa.int64()) for column in columns]
        first = ", ".join(_HOLDS.get(str(kind), _NUMBERS)[1] for kind in kinds)
        # Without a limit, SQLite may think that the order inside does not matter.
        query = f"SELECT {first} UNION ALL SELECT * FROM ({query} LIMIT -1)"
        skip = 1
        with reading(self.path, self.connection) as connection:
            try:
                with connection.cursor(adbc_stmt_kwargs=_OPTIONS) as cursor:
                    cursor.execute(query)
                    for batch in cursor.fetch_record_batch():
                        arrays = batch.slice(skip).columns
                        if [array.type for array in arrays] != kinds:
                            raise pa.ArrowTypeError(f"{batch.schema} is not {kinds}")
                        yield pa.record_batch(arrays, names=list(columns))
                        skip = 0
            except (pa.ArrowException, OSError) as error:
                self._check_types(columns)
                raise unreadable(self.path, error) from None

    def _check_types(self, columns: Sequence[str]) -> None:
        """See that values are of the columns' types; name the event of one if not."""
        with opened(self.path) as connection:
            for column in filter(self.types.get, columns):
                kind, value = self.types[column], self._sql(column)
                allowed, _ = _HOLDS.get(str(kind), _NUMBERS)
                bad = connection.execute(
                    self._select(
                        [quoted(self.event), value],
                        f"AND typeof({value}) NOT IN ('null', {allowed}) LIMIT 1",
                    )
                ).fetchone()
                if bad is not None:
                    raise ValueError(
                        f"{self.name}, event {bad[0]}: column {column!r} is "
                        f"{bad[1]!r}; it must hold "
                        f"{'numbers' if is_number(kind) else 'text'}"
                    )


@contextmanager
def reading(path: Path, connection: Any = None) -> Iterator[Any]:
    """Open a file with Arrow's driver, unless it is; see one state of it throughout."""
    if connection is not None:
        yield connection
        return
    dbapi = import_extra("adbc_driver_sqlite.dbapi", "SQLite files need", "data")
    try:
        with dbapi.connect(_uri(path)) as connection:
            yield connection
    except dbapi.Error as error:
        raise unreadable(path, error) from None


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading only, and see one state of it throughout."""
    try:
        uri = _uri(path)
        with closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.DatabaseError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> ValueError:
    """Return what to raise where SQLite cannot read a file."""
    why = str(error).partition("\n")[0]
    if "locked" in why:
        return ValueError(
            f"{path} cannot be read now, another program is writing to it: {why}"
        )
    return ValueError(
        f"{path} cannot be read as SQLite: {why}. It may be of another format, "
        "encrypted, or not a whole copy"
    )


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def list_tables(path: Path, event: str) -> dict[str, SqliteTable]:
    """Return the tables and views of a file by name, columns taken for numbers."""
    pa = import_pyarrow()
    tables = {}
    with opened(path) as connection:
        names = connection.execute(
            "SELECT name, type = 'view' FROM sqlite_master WHERE type IN ('table', "
            "'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        ).fetchall()
        for name, is_view in names:
            try:
                about = connection.execute(f"PRAGMA table_info({quoted(name)})")
                rows = about.fetchall()
            except sqlite3.OperationalError:  # a view of what is no longer there
                continue
            places = sorted((row[5], row[1]) for row in rows if row[5])
            key = tuple(column for _, column in places)
            order = tuple(map(quoted, key))  # of a view, and of a table WITHOUT ROWID
            with suppress(sqlite3.OperationalError):
                if not is_view:
                    connection.execute(f"SELECT _rowid_ FROM {quoted(name)} LIMIT 0")
                    order = ("_rowid_",)
            types = {row[1]: pa.float64() for row in rows}
            if event in types:
                types[event] = pa.int64()
            tables[name] = SqliteTable(
                path=path,
                table=name,
                types=types,
                key=key,
                order=order,
                event=event,
                is_view=bool(is_view),
            )
    return tables


def with_types(
    tables: Sequence[SqliteTable], columns: Sequence[str]
) -> list[SqliteTable]:
    """Look at the values of columns; return tables of one type a column in all files.

    Integers and reals in one column are reals; so is a column of NULL alone. Reads
    each table once.
    """
    pa = import_pyarrow()
    seen: dict[str, set[str]] = {column: set() for column in columns}
    for table in tables if columns else ():
        asked = [f"group_concat(DISTINCT typeof({quoted(c)}))" for c in columns]
        query = f"SELECT {', '.join(asked)} FROM {quoted(table.table)}"
        with opened(table.path) as connection:
            found = connection.execute(query).fetchone()
        for column, names in zip(columns, found, strict=True):
            types = seen[column]
            types.update({*(names or "null").split(",")} - {"null"})
            if "blob" in types or ("text" in types and len(types) > 1):
                raise ValueError(
                    f"{table.name}: column {column!r} holds "
                    f"{' and '.join(sorted(types))}; numbers or text alone can be read"
                )
    kinds = {
        column: pa.int64()
        if types == {"integer"}
        else (pa.string() if "text" in types else pa.float64())
        for column, types in seen.items()
    }
    return [replace(table, types={**table.types, **kinds}) for table in tables]


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
