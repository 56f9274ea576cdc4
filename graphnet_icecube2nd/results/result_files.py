"""Files with one row per event: results and truth.

Results are written in batches as parquet, CSV, SQLite or a submission. A file gets its
name only when it is complete. A SQLite file that has other tables, such as a GraphNeT
database, keeps them; our table is added in one transaction.

Shape letters: B events.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.files import naming_full_disk, parse_json, write_whole
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.sqlite import opened, quoted
from graphnet_icecube2nd.tasks.catalogue import are_results

OK = "ok"  # status of events with a result
Columns = dict[str, NDArray[Any]]  # (B,) each
SUBMISSION = "submission"
FORMATS = ("parquet", "csv", "sqlite", SUBMISSION)
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".db": "sqlite", ".sqlite": "sqlite"}
TABLE = "directions"  # table in a SQLite file
METADATA_TABLE = "directions_metadata"
KINDS = {"i": int, "u": int, "b": int, "f": float}  # types of columns; others are texts
METADATA_KEY = "graphnet_icecube2nd"
EVENT_NO = "event_no"  # name of event_id in GraphNeT's databases
EVENT_NAMES = ("event_id", EVENT_NO)
# A submission needs a direction for every event; failed events get this one.
NO_DIRECTION = {"azimuth": 0.0, "zenith": math.pi / 2}
SUBMISSION_COLUMNS = ["event_id", *NO_DIRECTION]


def format_of(path: str | os.PathLike[str], format: str | None) -> str:
    """Return the given format, or else the one of the file's ending."""
    if format is not None:
        check_one_of("format", format, FORMATS)
        return format
    suffix = Path(path).suffix.lower()
    if Path(path).name == "submission.csv":
        return SUBMISSION
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: the name of a results file must end in {', '.join(SUFFIXES)}, "
            f"found {suffix or 'no ending'!r}. Choose another name or give a format "
            f"(`format`, --format: {', '.join(FORMATS)})"
        )
    return SUFFIXES[suffix]


def check_replaceable(path: str | os.PathLike[str], format: str) -> None:
    """Raise ValueError if the file exists and holds no results.

    This protects input files from being overwritten after a mistake in a name.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} must be a file, found a folder: choose another name")
    if not path.exists():
        return
    if format == "sqlite":
        _names_of_tables(path)
        return
    try:
        columns = _columns_of(path)
    except (OSError, ValueError):
        columns = []
    if {"event_id", "status"} <= set(columns) or columns == SUBMISSION_COLUMNS:
        return
    raise ValueError(
        f"{path} exists and holds no results ({', '.join(columns) or 'unknown'}), so "
        "it is not overwritten: choose another name, or remove the file"
    )


def _columns_of(path: Path) -> list[str]:
    """Return the column names of a parquet file or a CSV."""
    import_pyarrow()
    import pyarrow.parquet

    with open(path, "rb") as file:
        if file.read(4) == b"PAR1":
            return list(pyarrow.parquet.read_schema(path).names)
        file.seek(0)
        line = file.readline(10_000).decode("utf-8").strip()
    return [name.strip('"') for name in line.split(",")]


def _names_of_tables(path: Path) -> set[str]:
    """Return the tables of a SQLite file to write to; ValueError if it is none.

    Opening it for writing rolls back the changes of an interrupted writer.
    """
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
    try:
        with closing(sqlite3.connect(path)) as connection:
            return {name for (name,) in connection.execute(query)}
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} exists and is no SQLite file: {error}") from None


def write_results(
    path: str | os.PathLike[str],
    parts: Iterable[Columns],
    format: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the parts of a table one after the other.

    A failed call leaves no partial file. A submission has only event_id, azimuth and
    zenith. SQLite gets a table `directions` with an indexed column event_no instead of
    event_id, as GraphNeT's tables have; other tables of the file stay. Metadata are
    plain values: parquet holds them under the key `graphnet_icecube2nd` of its schema,
    SQLite in the table `directions_metadata`; CSV does not hold them.

    Raises:
        ImportError: pyarrow or sqlite-utils is not installed.
        ValueError: An existing file is no SQLite file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == SUBMISSION:
        parts = (_submission(part) for part in parts)
    has_others = format == "sqlite" and path.exists()
    if has_others and _names_of_tables(path) - {TABLE, METADATA_TABLE}:
        with naming_full_disk(path):
            _write_sqlite(path, parts, metadata)
        return
    with write_whole(path) as temporary:
        if format == "sqlite":
            _write_sqlite(temporary, parts, metadata)
            return
        import_pyarrow()
        if format == "parquet":
            from pyarrow.parquet import ParquetWriter as Writer
        else:
            from pyarrow.csv import CSVWriter as Writer
        _write_arrow(temporary, parts, Writer, metadata)


def _write_arrow(
    path: Path,
    parts: Iterable[Columns],
    writer_class: Callable[..., Any],
    metadata: Mapping[str, Any] | None,
) -> None:
    pa = import_pyarrow()
    text = None if metadata is None else {METADATA_KEY: json.dumps(metadata).encode()}
    tables = (pa.table(part).replace_schema_metadata(text) for part in parts)
    first = next(tables)
    with writer_class(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _write_sqlite(
    path: Path, parts: Iterable[Columns], metadata: Mapping[str, Any] | None
) -> None:
    sqlite_utils = import_extra("sqlite_utils", "SQLite files need", "data")
    # One explicit transaction: a failure leaves the file unchanged.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        database = sqlite_utils.Database(connection)
        for name in (TABLE, METADATA_TABLE):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        for number, part in enumerate(parts):
            named = {EVENT_NO if n == "event_id" else n: c for n, c in part.items()}
            if number == 0:
                kinds = {n: KINDS.get(c.dtype.kind, str) for n, c in named.items()}
                database[TABLE].create(kinds).create_index([EVENT_NO], unique=True)
            names = ", ".join(map(quoted, named))
            marks = ", ".join("?" for _ in named)
            # SQLite stores NaN as NULL.
            rows = zip(*(column.tolist() for column in named.values()), strict=True)
            connection.executemany(
                f"INSERT INTO {TABLE} ({names}) VALUES ({marks})", rows
            )
        if metadata is not None:
            database[METADATA_TABLE].create({"name": str, "value": str})
            connection.executemany(
                f"INSERT INTO {METADATA_TABLE} VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in metadata.items()],
            )
        connection.execute("COMMIT")


def _submission(part: Columns) -> Columns:
    # An event with status `ok` may have an energy but no direction.
    good_B = np.isfinite([part[name] for name in NO_DIRECTION]).all(axis=0)
    good_B &= part["status"] == OK
    return {
        "event_id": part["event_id"],
        **{
            name: np.where(good_B, part[name], instead)
            for name, instead in NO_DIRECTION.items()
        },
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `write_results` wrote into a file; CSV has none."""
    kind = SUFFIXES.get(path.suffix.lower())
    text: str | bytes = "{}"
    if kind == "sqlite" and METADATA_TABLE in sqlite_tables(path):
        with opened(path) as database:
            rows = list(database.execute(f"SELECT name, value FROM {METADATA_TABLE}"))
        text = (
            f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in rows)}}}"
        )
    elif kind == "parquet":
        import_pyarrow()
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        text = metadata.get(METADATA_KEY.encode(), b"{}")
    return parse_json(text, path, "its metadata")


def read_columns(
    path: str | os.PathLike[str], table: str | None = None, format: str | None = None
) -> Columns:
    """Return the columns of a file with one row per event; missing numbers are NaN.

    The ending gives the format, unless it is named. If no table of a SQLite file is
    named, it is `directions`, or else the only table of results, or else the only table
    with an event_id or event_no.

    Raises:
        OSError: The file does not exist.
        ValueError: The ending is unknown, the file cannot be read, or there is no such
            table or more than one.
        ImportError: pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path}: the name of a table must end in {', '.join(SUFFIXES)}, found "
            f"{path.suffix!r}"
        )
    if kind == "sqlite":
        return _read_sqlite(path, table)
    pa = import_pyarrow()
    try:
        if kind == "csv":
            import pyarrow.csv

            found = pyarrow.csv.read_csv(path)
        else:
            import pyarrow.parquet

            found = pyarrow.parquet.read_table(path)
        return {name: _array(found[name].to_numpy()) for name in found.column_names}
    except (pa.ArrowException, KeyError, OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read; it may be damaged: {error}") from None


def sqlite_tables(path: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Return the columns of each table and view; ValueError if it is no SQLite file."""
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
    with opened(Path(path)) as database:
        names = [name for (name,) in database.execute(query)]
        info = {n: database.execute(f"PRAGMA table_info({quoted(n)})") for n in names}
        return {name: {entry[1] for entry in rows} for name, rows in info.items()}


def _read_sqlite(path: Path, table: str | None) -> Columns:
    tables = sqlite_tables(path)
    listed = ", ".join(tables) or "no table"
    if table is not None and table not in tables:
        raise ValueError(f"{path}: expected the table {table}, found {listed}")
    if table is None and TABLE not in tables:
        per_event = [n for n, columns in tables.items() if columns & {*EVENT_NAMES}]
        results = [n for n in per_event if are_results(tables[n])] or per_event
        if len(results) != 1:
            raise ValueError(
                f"{path}: expected results in a table {TABLE!r}, or in one table with "
                f"an event number, found {len(results)} among {listed}. Rename one"
            )
        table = results[0]
    with opened(path) as database:
        rows = database.execute(f"SELECT * FROM {quoted(table or TABLE)}")
        names = [entry[0] for entry in rows.description]
        values = list(zip(*rows, strict=True)) or [()] * len(names)
    return {n: _array(np.array(v)) for n, v in zip(names, values, strict=True)}


def _array(values: NDArray[Any]) -> NDArray[Any]:
    """Return texts as texts, and numbers with missing values as floats."""
    if values.dtype != object:
        return values
    if all(isinstance(value, str) for value in values):
        return values.astype(np.str_)
    if all(value is None or isinstance(value, int | float) for value in values):
        return np.array([np.nan if v is None else v for v in values], np.float64)
    return np.array(["" if v is None else str(v) for v in values], np.str_)


def rows_of(
    event_id: NDArray[np.int64], wanted: NDArray[np.int64], what: str
) -> NDArray[np.int64]:
    """Return the rows, (W,), of wanted events among a table's events, (B,).

    ValueError names a missing event; messages call the table `what`.
    """
    order = np.argsort(event_id)
    place = np.searchsorted(event_id[order], wanted)
    found = place < len(order)
    found[found] = event_id[order[place[found]]] == wanted[found]
    if not found.all():
        raise ValueError(
            f"{what} has no event {wanted[~found][0]} "
            f"({int((~found).sum())} of {len(wanted)} are missing)"
        )
    row: NDArray[np.int64] = order[place]
    return row


def event_ids(columns: Mapping[str, NDArray[Any]], what: str) -> NDArray[np.int64]:
    """Return the event numbers, (B,), of a table that messages call `what`."""
    key = next((name for name in EVENT_NAMES if name in columns), None)
    if key is None:
        raise ValueError(
            f"{what}: expected a column {' or '.join(EVENT_NAMES)}, found "
            f"{', '.join(columns)}"
        )
    return whole_numbers(columns[key], f"{what}: event numbers")


def whole_numbers(values: Any, what: str) -> NDArray[np.int64]:
    """Return integers as int64; ValueError, which calls them `what`, if they are none.

    Floats that are too large to tell neighbouring integers apart are refused.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    try:
        if array.dtype == bool:
            raise TypeError
        numbers = array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be whole numbers, got {array.dtype}") from None
    limit = 2.0 ** (np.finfo(numbers.dtype).nmant + 1)
    good = (numbers == np.floor(numbers)) & (np.abs(numbers) < limit)
    if not good.all():
        row = int(good.argmin())
        raise ValueError(
            f"{what} must be whole numbers, got {numbers.flat[row]} in row {row} "
            f"({numbers.dtype} holds them exactly below {limit:.0f})"
        )
    return numbers.astype(np.int64)


def real_numbers(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    """Return numbers as float64; ValueError, which calls them `what`, if not."""
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be numbers: {error}") from None


def whole_counts(numbers: NDArray[Any], what: str) -> NDArray[np.int64] | None:
    """Return numbers of pulses; None if one is missing."""
    values = real_numbers(numbers, f"{what}: n_pulses")
    return values.astype(np.int64) if np.isfinite(values).all() else None
