"""A SQLite file opened for reading: its tables, the types of its columns, its rows.

SQLite keeps a type with every value and asks little of a column; numpy wants one type
a column. Shape letters: R rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.source import file_fingerprint
from graphnet_icecube2nd.store.readers.tables import Table

# As Python objects, before they become arrays; ten times as many take twice the time.
ROWS_AT_ONCE = 2**11
INTEGER, REAL, TEXT = "integer", "real", "text"
_DTYPES: dict[str, Any] = {INTEGER: np.int64, REAL: np.float64, TEXT: object}
_TYPES: dict[str, set[type]] = {INTEGER: {int}, REAL: {int, float}, TEXT: {str}}
_WORDS = {INTEGER: "whole numbers", REAL: "numbers", TEXT: "text"}


@dataclass(frozen=True, kw_only=True)
class SqliteTable(Table):
    """A table of a SQLite file.

    Args:
        key: Columns of its primary key.
        has_rowid: Whether rows have a number, in the order of writing.
        indexed: Columns that an index, or the primary key, begins with.
    """

    key: tuple[str, ...]
    has_rowid: bool
    indexed: frozenset[str]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading only, and see one state of it throughout.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no SQLite file, encrypted, damaged or not whole; names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
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


def _uri(path: Path) -> str:
    """Return how to open a file so that nothing is written, beside it neither."""
    with open(path, "rb") as file:
        keeps_log = file.read(20)[18:19] == b"\x02"
    uri = f"{path.resolve().as_uri()}?mode=ro"
    # For a file that keeps a write-ahead log, but has none since nobody has it open,
    # SQLite would make one.
    return f"{uri}&immutable=1" if keeps_log and not _log_of(path).exists() else uri


def fingerprint(path: Path) -> dict[str, Any]:
    """Return what tells whether a file, or its write-ahead log, has changed."""
    log = _log_of(path)
    return {
        **file_fingerprint(path),
        "log": file_fingerprint(log) if log.exists() else None,
    }


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def list_tables(connection: sqlite3.Connection) -> list[SqliteTable]:
    """Return the tables of a file."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall()
    return [_describe(connection, name) for (name,) in names]


def _describe(connection: sqlite3.Connection, name: str) -> SqliteTable:
    rows = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    columns = tuple(row[1] for row in rows)
    key_places = sorted((row[5], row[1]) for row in rows if row[5])
    key = tuple(column for _, column in key_places)
    try:
        connection.execute(f"SELECT _rowid_ FROM {quoted(name)} LIMIT 0")
        has_rowid = True
    except sqlite3.OperationalError:  # WITHOUT ROWID
        has_rowid = False
    indexed = set(key[:1])
    for index in connection.execute(f"PRAGMA index_list({quoted(name)})").fetchall():
        info = connection.execute(f"PRAGMA index_info({quoted(index[1])})").fetchall()
        partial = bool(index[4])
        if info and info[0][2] is not None and not partial:
            indexed.add(info[0][2])
    return SqliteTable(
        name=name,
        columns=columns,
        key=key,
        has_rowid=has_rowid,
        indexed=frozenset(indexed),
    )


def types_seen(
    connection: sqlite3.Connection, table: Table, columns: Sequence[str]
) -> dict[str, set[str]]:
    """Return SQLite's types of the values of columns; reads the table once.

    Integers and reals in one column are `real`. NULL is nothing seen.
    """
    if not columns:
        return {}
    names = ("integer", "real", "text", "blob")
    asked = ", ".join(
        f"max(typeof({quoted(column)}) = '{name}')"
        for column in columns
        for name in names
    )
    row = connection.execute(f"SELECT {asked} FROM {quoted(table.name)}").fetchone()
    found = iter(row)
    seen = {column: {name for name in names if next(found)} for column in columns}
    return {
        column: types - {INTEGER} if REAL in types else types
        for column, types in seen.items()
    }


def kind_of(types: set[str], column: str, place: str) -> str:
    """Return what a column is read as, from the types of its values.

    Raises:
        ValueError: Text among numbers, or values that are neither.
    """
    if "blob" in types or (TEXT in types and len(types) > 1):
        raise ValueError(
            f"{place}: column {column!r} holds {' and '.join(sorted(types))}; numbers "
            "or text alone can be read"
        )
    if types == {INTEGER}:
        return INTEGER
    return TEXT if TEXT in types else REAL


def check_event_numbers(
    connection: sqlite3.Connection, table: SqliteTable, event: str, place: str
) -> None:
    """See that every row names an event; whole numbers stored as reals will do.

    Raises:
        ValueError: One does not.
    """
    name = quoted(event)
    bad = connection.execute(
        f"SELECT {name} FROM {quoted(table.name)} WHERE {name} IS NULL "
        f"OR typeof({name}) IN ('text', 'blob') OR {name} != CAST({name} AS INTEGER) "
        "LIMIT 1"
    ).fetchone()
    if bad is not None:
        value = "NULL" if bad[0] is None else repr(bad[0])
        raise ValueError(
            f"{place}, table {table.name!r}: event column {event!r} holds {value}; it "
            "must hold whole numbers"
        )


def to_array(
    values: Sequence[Any],
    column: str,
    kind: str,
    ids: Sequence[int],
    place: str,
    *,
    nan: bool = False,
) -> NDArray[Any]:
    """Return values of one column as an array, (R,).

    Args:
        values: R Python objects as sqlite3 gives them.
        column: The column, for messages.
        kind: `integer`, `real` or `text`.
        ids: Event of each row, for messages.
        place: What messages call the table.
        nan: NULL among reals becomes NaN, which SQLite keeps as NULL.

    Raises:
        ValueError: NULL, or a value of another type; names table, event, column.
    """
    types = _TYPES[kind]
    if nan and kind == REAL:
        types = types | {type(None)}
    if set(map(type, values)) <= types:
        return np.array(values, dtype=_DTYPES[kind])
    row = next(i for i, value in enumerate(values) if type(value) not in types)
    found = "NULL" if values[row] is None else repr(values[row])
    hint = ""
    if values[row] is None:
        hint = ". Fill such values in, or take the event out"
    raise ValueError(
        f"{place}, event {ids[row]}: column {column!r} is {found}; it must hold "
        f"{_WORDS[kind]}{hint}"
    )


def fetch_columns(
    cursor: sqlite3.Cursor,
    num_rows: int,
    kinds: Mapping[str, str],
    place: str,
    nan: Collection[str] = (),
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Take the next rows of a query for the event and then the columns of `kinds`.

    Args:
        cursor: The query.
        num_rows: Most rows to take.
        kinds: Type by column.
        place: What messages call the table.
        nan: Columns of reals in which NULL becomes NaN.

    Returns:
        (R,) event_ids and (R,) arrays by column; fewer rows than asked for where the
        query ends.
    """
    ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    pieces: dict[str, list[NDArray[Any]]] = {
        column: [np.empty(0, _DTYPES[kind])] for column, kind in kinds.items()
    }
    while num_rows > 0:
        rows = cursor.fetchmany(min(num_rows, ROWS_AT_ONCE))
        if not rows:
            break
        num_rows -= len(rows)
        event_ids, *values = zip(*rows, strict=True)
        ids.append(np.array(event_ids, dtype=np.int64))
        for (column, kind), column_values in zip(kinds.items(), values, strict=True):
            array = to_array(
                column_values, column, kind, event_ids, place, nan=column in nan
            )
            pieces[column].append(array)
    joined = {column: np.concatenate(arrays) for column, arrays in pieces.items()}
    return np.concatenate(ids), joined
