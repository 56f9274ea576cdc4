"""GraphNeT's SQLite files: a table of pulses and a table of truth, joined by event_no.

Parts are ranges of event_no, so several workers share one file, and an interrupted
conversion resumes at the next range. With an index on the event column, a range of any
file is read fast. SQLite has a type for each value, but Arrow's driver needs one type
per column. The user's file is never written. Shape letters: B events, R runs of rows.
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
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import (
    ChosenTables,
    FileTables,
    PathLike,
    Wanted,
    check_tables,
    choose_columns,
    list_files,
    same_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import (
    SUFFIXES,
    EventChunk,
    Source,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.table_part import (
    TablePart,
    event_ranges,
    select_of_files,
)
from graphnet_icecube2nd.store.readers.tables import (
    GREATEST,
    LEAST,
    LONG_TEXT,
    Runs,
    Table,
    each_of,
    is_string,
    members_of,
)

DUPLICATES = ("error", "renumber")
SOURCE_FILE = "source_file"  # column with the number of the event's file, from 0
_OPTIONS = {"adbc.sqlite.query.batch_rows": str(2**16)}
# For each Arrow type: types of SQLite that a column may have, and a value of the type.
_HOLDS = {"int64": ("'integer'", "0"), "string": ("'text'", "''")}
_NUMBERS = "'integer', 'real'", "0.5"


def sqlite_source(
    paths: PathLike | Sequence[PathLike],
    *,
    duplicates: str = "error",
    events_per_part: int | None = None,
    **options: Any,
) -> Source:
    """Open GraphNeT's SQLite files as a source.

    Events have the order of event_no, file by file; pulses of an event have the order
    of writing. Rows of truth without pulses are events without pulses. The default
    truth is the table with the angles, and with the event column as primary key if
    there is one. To find the types of kept columns, the tables are read once.

    Args:
        paths: Files or folders.
        duplicates: Rule for event numbers that are in several files, one of
            `DUPLICATES`.
        events_per_part: Number of events per part; default: see `event_ranges`.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged or lacks a table or column, or an option is not
            valid.
    """
    check_one_of("duplicates", duplicates, DUPLICATES)
    if events_per_part is not None and events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    wanted = Wanted(**{"event_column": "event_no", **options})
    event, files = str(wanted.event_column), list[ChosenTables]()
    for path in list_files(paths, SUFFIXES["graphnet-sqlite"]):
        named = (*wanted.pulse_tables, wanted.truth)
        there = {
            name: table
            for name, table in _list_tables(path, event).items()
            if name in named or not table.is_view
        }
        keyed = [name for name, table in there.items() if table.key == (event,)]
        tables = FileTables(tables=there, place=str(path), wanted=wanted, keyed=keyed)
        files.append(tables.find_both())
    pulses: list[Any] = [table for file in files for table in members_of(file.pulses)]
    labels: list[Any] = [file.truth for file in files if file.truth]
    for table in (*pulses, *labels):
        table.check_event_numbers()
    asked = _find_types_of_pulses(pulses, wanted, same_pulse_map(files))
    for table in labels:
        for pair in ([labels[0], table], [table, labels[0]]):
            check_tables(pair, [*pair[0].types])
    columns = labels[0].types if labels else ()
    _find_types(labels, [column for column in columns if column != event])
    source, example = select_of_files("graphnet-sqlite", files, wanted)
    notes = [
        *filter(None, (table.index_note() for table in pulses)),
        *(
            f"pulse column {c!r} is left out, because it has texts"
            for c in asked
            if c not in source.pulse_columns
        ),
    ]
    kept_event = None
    if duplicates == "renumber":
        kept_event = "event_no" if event in RESERVED else event
        notes += [f"{SOURCE_FILE} {n} is {file.place}" for n, file in enumerate(files)]
        known = example.truth.columns if example.truth else ()
        if clash := sorted({kept_event, SOURCE_FILE} & {*known}):
            raise ValueError(
                f"{files[0].place}: the truth already has a column {clash[0]!r}, which "
                "duplicates='renumber' adds; rename it"
            )
    parts: list[SqlitePart] = []
    first_number = 0
    for number, file in enumerate(files):
        counted = file.truth or file.pulses
        ids = [table.runs(event)[0] for table in members_of(counted)]
        event_id = np.unique(np.concatenate(ids))
        for which, low, high in event_ranges(event_id, events_per_part):
            of_range = example.of(
                file.pulses.within(event, low, high),
                counted.within(event, low, high),
                name=f"{file.place}{which}",
                by_number=True,
            )
            part = SqlitePart(
                **vars(of_range),
                path=Path(file.place),
                kept_event=kept_event,
                file_number=number,
                first_number=first_number + int(np.searchsorted(event_id, low)),
            )
            parts.append(part)
        first_number += len(event_id)
    return replace(source, parts=parts, notes=(*notes, *source.notes))


def _find_types_of_pulses(
    tables: Sequence[SqliteTable], wanted: Wanted, pulse_map: PulseMap
) -> tuple[str, ...]:
    """Find the types of pulses, and return the columns that were asked for.

    Columns of the pulse map are float64, except for an integer clock.
    """
    others = [column for column in tables[0].types if column != wanted.event_column]
    asked, _ = choose_columns(others, pulse_map, wanted.keep)
    check_tables(tables, asked)
    known = pulse_map.columns()
    if pulse_map.is_relative:
        known = {c: quantity for c, quantity in known.items() if quantity != TIME}
    _find_types(tables, [c for c in asked if c not in known])
    return asked


@dataclass(kw_only=True, eq=False)
class SqlitePart(TablePart):
    """A range of events of a SQLite file."""

    path: Path
    kept_event: str | None  # truth column of old numbers of renumbered events, or None
    file_number: int  # number of the file, from 0
    first_number: int  # number of events in the parts before

    @property
    def file(self) -> str:  # type: ignore[override]
        """Path of the file."""
        return str(self.path)

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield the events of the range, from one state of the file."""
        number = self.first_number
        with reading(self.path) as connection:

            def connected(table: Any) -> Any:
                return replace(table, connection=connection)

            part = replace(self, pulses=each_of(self.pulses, connected))
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
    """A table of a file, with rows in the order of the events and then of writing."""

    path: Path
    table: str  # name in the file
    types: dict[str, Any]  # Arrow type of each column, see `_find_types`
    key: tuple[str, ...]  # columns of the primary key
    order: tuple[str, ...]  # quoted columns that give the order of writing
    event: str  # event column
    is_view: bool
    low: int = LEAST  # first and last event to read
    high: int = GREATEST
    connection: Any = None  # connection of Arrow's driver, if the file is open
    num_rows: None = None  # not known, because counting takes long

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the table for messages."""
        return f"{self.path}, table {self.table!r}"

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        row = 0
        asked = [
            f"substr({quoted(c)}, 1, {LONG_TEXT + 1})"  # longer texts are an error
            if is_string(self.types[c])
            else self._sql(c)
            for c in columns
        ]
        for batch in self._stream(columns, self._select(asked)):
            yield row, batch
            row += len(batch)

    def within(self, column: str, low: int, high: int) -> SqliteTable:
        """Return the table with the events of a range only."""
        return replace(self, low=low, high=high) if column == self.event else self

    def runs(self, column: str) -> Runs:
        """Return the runs of rows of the events."""
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
        """Return JSON values that change with the file, its log, or the range."""
        log = _log_of(self.path)
        state = file_fingerprint(log) if log.exists() else None
        return {**super().fingerprint(), "log": state}

    def at(self, row: int) -> str:
        """Return the text for the event of a row, for messages."""
        query = f"{self._select([self._sql(self.event)])} LIMIT 1 OFFSET {row}"
        with opened(self.path) as connection:
            return f"{self.name}, event {connection.execute(query).fetchone()[0]}"

    def check_event_numbers(self, bad: str = "") -> None:
        """Check that event numbers are integers, or reals with integer values.

        Numbers such as 2.5 are found later by `runs`.

        Raises:
            ValueError: An event number is not valid.
        """
        event = quoted(self.event)
        # In SQLite, text is greater than all numbers.
        bad = bad or f"{event} IS NULL OR {event} > {GREATEST}"
        query = f"SELECT {event} FROM {quoted(self.table)} WHERE {bad} LIMIT 1"
        with opened(self.path) as connection:
            if found := connection.execute(query).fetchone():
                value = "NULL" if found[0] is None else repr(found[0])
                raise ValueError(
                    f"{self.name}: event column {self.event!r} must have integers, "
                    f"found {value}"
                )

    def index_note(self) -> str:
        """Return a note if there is no index on the event column, or ""."""
        name, event = self.table, self.event
        with opened(self.path) as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM {quoted(name)} "
                f"WHERE {quoted(event)} >= 0 AND {quoted(event)} < 1"
            ).fetchall()
        if any("SEARCH" in step[3] for step in plan):
            return ""
        note = f"{self.name} has no index on {event!r}, so every part reads all of it"
        if self.is_view:
            return note
        return (
            f"{note}. If you may write to the file, this makes it faster: CREATE INDEX "
            f"{event}_{name} ON {name} ({event})"
        )

    def _select(self, what: Iterable[str], more: str = "") -> str:
        """Return the query for rows of the range, in order unless `more` is given."""
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
        """Yield the record batches of a query; unknown columns are integers.

        The driver takes the type of a column from its first values, so the query begins
        with a row of the expected types.
        """
        pa = import_pyarrow()
        kinds = [self.types.get(column, pa.int64()) for column in columns]
        first = ", ".join(_HOLDS.get(str(kind), _NUMBERS)[1] for kind in kinds)
        # Without a limit, SQLite may ignore the order of the inner query.
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
        """Raise ValueError for the first value that has not the type of its column."""
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
                        f"{self.name}, event {bad[0]}: column {column!r} must have "
                        f"only {kind} values, found {bad[1]!r}"
                    )


@contextmanager
def reading(path: Path, connection: Any = None) -> Iterator[Any]:
    """Yield a connection of Arrow's driver, which reads one state of the file."""
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
    """Yield a read-only connection of sqlite3, which reads one state of the file."""
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
    """Return the ValueError for a file that SQLite cannot read."""
    why = str(error).partition("\n")[0]
    if "locked" in why:
        return ValueError(
            f"{path} cannot be read, because another program writes to it ({why}). Try "
            "again later"
        )
    return ValueError(
        f"{path} cannot be read as SQLite: {why}. It may have another format, be "
        "encrypted, or be an incomplete copy"
    )


def quoted(name: str) -> str:
    """Return a name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _list_tables(path: Path, event: str) -> dict[str, SqliteTable]:
    """Return the tables and views of a file by name, with all columns as numbers."""
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
            except sqlite3.OperationalError:  # a view of a removed table
                continue
            places = sorted((row[5], row[1]) for row in rows if row[5])
            key = tuple(column for _, column in places)
            order = tuple(map(quoted, key))  # for views, and tables WITHOUT ROWID
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


def _find_types(tables: Sequence[SqliteTable], columns: Sequence[str]) -> None:
    """Find the types of columns, which are the same in all tables.

    Integers and reals in one column are reals, and so is a column of only NULL. Other
    mixed types and blobs are errors. Each table is read once.
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
                    f"{table.name}: column {column!r} must have only numbers or only "
                    f"text, found {' and '.join(sorted(types))}"
                )
    for column, types in seen.items():
        number = pa.int64() if types == {"integer"} else pa.float64()
        for table in tables:
            table.types[column] = pa.string() if "text" in types else number


def _uri(path: Path) -> str:
    """Return the URI that opens a file without writing to it or beside it."""
    with open(path, "rb") as file:
        keeps_log = file.read(20)[18:19] == b"\x02"
    uri = f"{path.resolve().as_uri()}?mode=ro"
    # For a file with a write-ahead log that does not exist now, SQLite would make one.
    return f"{uri}&immutable=1" if keeps_log and not _log_of(path).exists() else uri


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
