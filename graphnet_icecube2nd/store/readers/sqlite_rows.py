"""A SQLite file opened for reading: its tables, the types of its columns, its rows.

SQLite keeps a type with every value and asks little of a column; Arrow wants one type
a column. Nothing is written into the user's file. Shape letters: R rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.rows import Rows
from graphnet_icecube2nd.store.readers.source import file_fingerprint

# As Python objects, before they become arrays; ten times as many take twice the time.
ROWS_AT_ONCE = 2**11


@dataclass(frozen=True, kw_only=True)
class SqliteTable:
    """A table of a SQLite file.

    Args:
        name: What the file calls it.
        types: Arrow type of each column, as far as it was looked at.
        key: Columns of its primary key.
        order: Names, as SQL writes them, by which rows are in the order of writing.
        indexed: Columns that an index, or the primary key, begins with.
    """

    name: str
    types: dict[str, Any]
    key: tuple[str, ...]
    order: tuple[str, ...]
    indexed: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class SqliteRows(Rows):
    """The rows of a table, in the order of the events and then of writing.

    Args:
        path: The file.
        table: The table.
        event: Its event column.
        low, high: First event, and the first of the next part; None at the ends, so
            that no row of the file is in no part.
        connection: The file, where it is open.
    """

    path: Path
    table: SqliteTable
    event: str
    low: int | None = None
    high: int | None = None
    connection: sqlite3.Connection | None = None

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
        if self.event in self.table.indexed:
            return ""
        name, event = self.table.name, self.event
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
    indexed = set(key[:1])
    for index in connection.execute(f"PRAGMA index_list({quoted(name)})").fetchall():
        info = connection.execute(f"PRAGMA index_info({quoted(index[1])})").fetchall()
        partial = bool(index[4])
        if info and info[0][2] is not None and not partial:
            indexed.add(info[0][2])
    return SqliteTable(
        name=name,
        types={row[1]: pa.float64() for row in rows},
        key=key,
        order=order,
        indexed=frozenset(indexed),
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
