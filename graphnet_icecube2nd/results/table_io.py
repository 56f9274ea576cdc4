"""Tables of results and of truth back from their files: parquet, CSV, SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.results.result_files import SUFFIXES, TABLE, Columns
from graphnet_icecube2nd.store.arrow_table import import_pyarrow

EVENT_NAMES = ("event_id", "event_no")


def read_columns(
    path: str | os.PathLike[str],
    table: str | None = None,
    wanted: Sequence[str] = (),
    format: str | None = None,
) -> Columns:
    """Return the columns of a file with one row an event.

    Args:
        path: It ends in .parquet, .csv, .db or .sqlite.
        table: Of a SQLite file; default `directions`, else the only one with an
            event_id or event_no and one of the wanted columns.
        wanted: Columns that tell tables of a SQLite file apart.
        format: `parquet`, `csv` or `sqlite`; default: by the ending.

    Returns:
        (B,) arrays by name; NaN where a number is missing.

    Raises:
        OSError: There is no such file.
        ValueError: Another ending; no such file inside; no or several tables.
        ImportError: pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path}: tables end in {', '.join(SUFFIXES)}, got {path.suffix!r}"
        )
    if kind == "sqlite":
        return _read_sqlite(path, table, wanted)
    pa = import_pyarrow()
    try:
        if kind == "csv":
            import pyarrow.csv

            found = pyarrow.csv.read_csv(path)
        else:
            import pyarrow.parquet

            found = pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return {name: _array(found[name].to_numpy()) for name in found.column_names}


def sqlite_tables(path: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Return the columns of each table and view of a SQLite file.

    Raises:
        ValueError: It is no such file.
    """
    with _opened(Path(path)) as database:
        return _columns_of(database)


def _read_sqlite(path: Path, table: str | None, wanted: Sequence[str]) -> Columns:
    with _opened(path) as database:
        table = table or _only_table(_columns_of(database), path, wanted)
        rows = database.execute(f"SELECT * FROM {_quoted(table)}")
        names = [entry[0] for entry in rows.description]
        values = list(zip(*rows, strict=True)) or [()] * len(names)
    return {n: _array(np.array(v)) for n, v in zip(names, values, strict=True)}


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file for reading; its errors become ValueError."""
    address = f"file:{path.resolve().as_posix().replace('?', '%3f')}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            yield database
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: {error}") from None


def _columns_of(database: sqlite3.Connection) -> dict[str, set[str]]:
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
    names = [name for (name,) in database.execute(query)]
    info = {n: database.execute(f"PRAGMA table_info({_quoted(n)})") for n in names}
    return {name: {entry[1] for entry in rows} for name, rows in info.items()}


def _only_table(
    tables: Mapping[str, set[str]], path: Path, wanted: Sequence[str]
) -> str:
    if TABLE in tables:
        return TABLE
    per_event = [
        name
        for name, columns in tables.items()
        if columns & set(EVENT_NAMES) and (not wanted or columns & set(wanted))
    ]
    if len(per_event) != 1:
        raise ValueError(
            f"{path} has {len(per_event)} tables that it could be; say which "
            f"(table, --truth-table): {', '.join(tables) or 'there is none'}"
        )
    return per_event[0]


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _array(values: NDArray[Any]) -> NDArray[Any]:
    """Return texts as texts, and numbers with gaps as floats."""
    if values.dtype != object:
        return values
    if all(isinstance(value, str) for value in values):
        return values.astype(np.str_)
    if all(value is None or isinstance(value, int | float) for value in values):
        return np.array([np.nan if v is None else v for v in values], np.float64)
    return np.array(["" if v is None else str(v) for v in values], np.str_)
