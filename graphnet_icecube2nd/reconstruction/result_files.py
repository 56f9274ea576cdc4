"""Files of results: rows in batches into parquet, CSV, SQLite or a submission.

Each takes its name once it is whole. Shape letters: B events.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.reconstruction.direction_table import OK
from graphnet_icecube2nd.store.arrow_table import import_pyarrow

Columns = dict[str, NDArray[Any]]  # (B,) each
FORMATS = ("parquet", "csv", "sqlite", "submission")
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".db": "sqlite", ".sqlite": "sqlite"}
TABLE = "directions"  # of a SQLite file
# The competition demands a direction of every event: this one where there is none.
NO_DIRECTION = {"azimuth": 0.0, "zenith": math.pi / 2}


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


def write_results(
    path: str | os.PathLike[str], parts: Iterable[Columns], format: str
) -> None:
    """Write parts of a table one after the other, whole or not at all.

    Args:
        path: The file.
        parts: Columns of equal names and types.
        format: One of `FORMATS`. A submission has event_id, azimuth and zenith alone.

    Raises:
        ImportError: pyarrow or sqlite-utils is not installed.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if format == "submission":
        parts = (_submission(part) for part in parts)
    with write_whole(path) as temporary:
        if format == "sqlite":
            _write_sqlite(temporary, parts)
            return
        import_pyarrow()
        if format == "parquet":
            from pyarrow.parquet import ParquetWriter as Writer
        else:
            from pyarrow.csv import CSVWriter as Writer
        _write_tables(temporary, parts, Writer)


def read_part(path: Path) -> Columns:
    """Return the columns of a parquet file that `write_results` wrote."""
    import_pyarrow()
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = {n: table[n].to_numpy() for n in table.column_names}
    return {**columns, "status": columns["status"].astype(np.str_)}


def _tables(parts: Iterable[Columns]) -> Iterator[Any]:
    pa = import_pyarrow()
    for part in parts:
        yield pa.table({name: pa.array(column) for name, column in part.items()})


def _write_tables(
    path: Path, parts: Iterable[Columns], writer_class: Callable[..., Any]
) -> None:
    writer = None
    try:
        for table in _tables(parts):
            if writer is None:
                writer = writer_class(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_sqlite(path: Path, parts: Iterable[Columns]) -> None:
    try:
        import sqlite_utils
    except ImportError as error:
        raise ImportError(
            "SQLite files need sqlite-utils: pip install graphnet-icecube2nd[data]"
        ) from error
    path.unlink(missing_ok=True)
    database = sqlite_utils.Database(path)
    try:
        for part in parts:
            if TABLE not in database.table_names():
                kinds = {n: _kind(column) for n, column in part.items()}
                database[TABLE].create(kinds, pk="event_id")
            names = ", ".join(f"[{name}]" for name in part)
            marks = ", ".join("?" for _ in part)
            rows = zip(*(_plain(column) for column in part.values()), strict=True)
            with database.conn:
                database.conn.executemany(
                    f"INSERT INTO [{TABLE}] ({names}) VALUES ({marks})", rows
                )
    finally:
        database.close()


def _kind(column: NDArray[Any]) -> type:
    if column.dtype.kind in "iu":
        return int
    return float if column.dtype.kind == "f" else str


def _plain(column: NDArray[Any]) -> list[Any]:
    """Return values for SQLite, which knows NULL and no NaN."""
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return [None if value != value else value for value in values]
    return values


def _submission(part: Columns) -> Columns:
    ok_B = part["status"] == OK
    return {
        "event_id": part["event_id"],
        **{
            name: np.where(ok_B, part[name], instead)
            for name, instead in NO_DIRECTION.items()
        },
    }
