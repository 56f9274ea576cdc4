"""Files of results: rows in batches into parquet, CSV, SQLite or a submission.

Each takes its name once it is whole. A SQLite file that has tables already, as a
GraphNeT database, keeps them: ours is added in one transaction.

Shape letters: B events.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.store.arrow_table import import_pyarrow

OK = "ok"  # the status of events with an answer
Columns = dict[str, NDArray[Any]]  # (B,) each
FORMATS = ("parquet", "csv", "sqlite", "submission")
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".db": "sqlite", ".sqlite": "sqlite"}
TABLE = "directions"  # of a SQLite file
METADATA_TABLE = "directions_metadata"
METADATA_KEY = "graphnet_icecube2nd"
OURS = {TABLE, METADATA_TABLE}
EVENT_NO = "event_no"  # what GraphNeT's databases call the event_id
# The competition demands a direction of every event: this one where there is none.
NO_DIRECTION = {"azimuth": 0.0, "zenith": math.pi / 2}
SUBMISSION_COLUMNS = ["event_id", *NO_DIRECTION]


def format_of(path: str | os.PathLike[str], format: str | None) -> str:
    """Return the format that is asked for, or that a file's ending says.

    Raises:
        ValueError: An unknown format or ending.
    """
    if format is not None:
        if format not in FORMATS:
            raise ValueError(
                f"format must be one of {', '.join(FORMATS)}; got {format!r}"
            )
        return format
    suffix = Path(path).suffix.lower()
    if Path(path).name == "submission.csv":
        return "submission"
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: results end in {', '.join(SUFFIXES)}, or name a format "
            f"({', '.join(FORMATS)}); got {suffix or 'no ending'!r}"
        )
    return SUFFIXES[suffix]


def check_replaceable(path: str | os.PathLike[str], format: str) -> None:
    """See that a file may be written: that it is not there, or holds results.

    So whoever mistakes a name loses no data: an input is no table of results.

    Args:
        path: The file.
        format: One of `FORMATS`.

    Raises:
        ValueError: It is something else.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; results go into a file")
    if not path.exists():
        return
    if format == "sqlite":
        _tables_of(path)
        return
    try:
        columns = _columns_of(path)
    except (OSError, ValueError):
        columns = []
    if {"event_id", "status"} <= set(columns) or columns == SUBMISSION_COLUMNS:
        return
    raise ValueError(
        f"{path} is there and holds no results ({', '.join(columns) or 'unknown'}): it "
        "stays as it is. Choose another name, or remove it"
    )


def _columns_of(path: Path) -> list[str]:
    """Return the names of the columns of a parquet file, or of a CSV's first line."""
    import_pyarrow()
    import pyarrow.parquet

    with open(path, "rb") as file:
        if file.read(4) == b"PAR1":
            return list(pyarrow.parquet.read_schema(path).names)
        file.seek(0)
        line = file.readline(10_000).decode("utf-8").strip()
    return [name.strip('"') for name in line.split(",")]


def _tables_of(path: Path) -> list[str]:
    """Return the names of a SQLite file's tables.

    Raises:
        ValueError: It is no such file.
    """
    with closing(sqlite3.connect(path)) as connection:
        try:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            return [name for (name,) in connection.execute(query)]
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} is there and is no SQLite file: {error}"
            ) from None


def write_results(
    path: str | os.PathLike[str],
    parts: Iterable[Columns],
    format: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write parts of a table one after the other, whole or not at all.

    Args:
        path: The file.
        parts: Columns of equal names and types.
        format: One of `FORMATS`. A submission has event_id, azimuth and zenith alone.
            SQLite gets a table `directions` with event_no in place of event_id, and an
            index of it, as GraphNeT's tables have; other tables of the file stay.
        metadata: What the file should say of itself, plain values: in parquet under the
            key `graphnet_icecube2nd` of the schema, in SQLite in the table
            `directions_metadata`; CSV has no place for it.

    Raises:
        ImportError: pyarrow or sqlite-utils is not installed.
        ValueError: The SQLite file is none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "submission":
        parts = (_submission(part) for part in parts)
    if format == "sqlite" and path.exists() and {*_tables_of(path)} - OURS:
        _write_sqlite(path, parts, metadata)
        return
    with write_whole(path) as temporary:
        if format == "sqlite":
            temporary.unlink(missing_ok=True)
            _write_sqlite(temporary, parts, metadata)
            return
        import_pyarrow()
        if format == "parquet":
            from pyarrow.parquet import ParquetWriter as Writer
        else:
            from pyarrow.csv import CSVWriter as Writer
        _write_tables(temporary, parts, Writer, metadata)


def read_part(path: Path) -> Columns:
    """Return the columns of a parquet file that `write_results` wrote."""
    import_pyarrow()
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = {n: table[n].to_numpy() for n in table.column_names}
    return {**columns, "status": columns["status"].astype(np.str_)}


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a parquet file that `write_results` wrote says of itself."""
    import_pyarrow()
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    values: dict[str, Any] = json.loads(metadata.get(METADATA_KEY.encode(), b"{}"))
    return values


def _tables(parts: Iterable[Columns]) -> Iterator[Any]:
    pa = import_pyarrow()
    for part in parts:
        yield pa.table({name: pa.array(column) for name, column in part.items()})


def _write_tables(
    path: Path,
    parts: Iterable[Columns],
    writer_class: Callable[..., Any],
    metadata: Mapping[str, Any] | None,
) -> None:
    writer = None
    try:
        for table in _tables(parts):
            if metadata is not None:
                text = json.dumps(metadata).encode()
                table = table.replace_schema_metadata({METADATA_KEY: text})
            if writer is None:
                writer = writer_class(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_sqlite(
    path: Path, parts: Iterable[Columns], metadata: Mapping[str, Any] | None
) -> None:
    try:
        import sqlite_utils
    except ImportError as error:
        raise ImportError(
            "SQLite files need sqlite-utils: pip install graphnet-icecube2nd[data]"
        ) from error
    # Transactions are ours alone: all of it, or the file as it was.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        table = sqlite_utils.Database(connection)[TABLE]
        if table.exists():
            table.drop()
        is_made = False
        for part in parts:
            named = {EVENT_NO if n == "event_id" else n: c for n, c in part.items()}
            if not is_made:
                table.create({name: _kind(column) for name, column in named.items()})
                table.create_index([EVENT_NO], unique=True)
                is_made = True
            names = ", ".join(f"[{name}]" for name in named)
            marks = ", ".join("?" for _ in named)
            rows = zip(*(_plain(column) for column in named.values()), strict=True)
            connection.executemany(
                f"INSERT INTO [{TABLE}] ({names}) VALUES ({marks})", rows
            )
        about = sqlite_utils.Database(connection)[METADATA_TABLE]
        if about.exists():
            about.drop()
        if metadata is not None:
            about.create({"name": str, "value": str})
            connection.executemany(
                f"INSERT INTO [{METADATA_TABLE}] VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in metadata.items()],
            )
        connection.execute("COMMIT")


def _kind(column: NDArray[Any]) -> type:
    if column.dtype.kind in "iub":
        return int
    return float if column.dtype.kind == "f" else str


def _plain(column: NDArray[Any]) -> list[Any]:
    """Return values for SQLite, which knows NULL and no NaN."""
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return [None if value != value else value for value in values]
    return values


def _submission(part: Columns) -> Columns:
    # An event with the status `ok` may have an energy and no direction.
    good_B = np.isfinite([part[name] for name in NO_DIRECTION]).all(axis=0)
    good_B &= part["status"] == OK
    return {
        "event_id": part["event_id"],
        **{
            name: np.where(good_B, part[name], instead)
            for name, instead in NO_DIRECTION.items()
        },
    }
