"""An event store into files that GraphNeT reads: SQLite and parquet."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.graphnet_tables import GraphNetTables
from graphnet_icecube2nd.store.readers.sqlite import quoted

Progress = Callable[[int, int], None]  # events and pulses since the last call
Events = Sequence[int] | NDArray[np.integer[Any]]  # their numbers in the store


@dataclass(frozen=True, kw_only=True)
class WriteReport:
    """What was written.

    Args:
        events: Events.
        pulses: Pulses.
        left_out: Events that have no pulses and were not written.
    """

    events: int
    pulses: int
    left_out: int


def write_graphnet_sqlite(
    store_path: str | os.PathLike[str],
    out_db: str | os.PathLike[str],
    *,
    pulses_table: str = "pulses",
    truth_table: str = "truth",
    index_column: str = "event_no",
    events: Events | None = None,
    with_empty: bool = False,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store as a SQLite file for GraphNeT's SQLiteDataset.

    The event_id becomes `index_column`, primary key of the truth and index of the
    pulses. Columns keep the names of the source; flags are 0 and 1. Times that were
    made relative are absolute again; x, y, z are added where pulses have only a
    sensor_id. The file takes its name when it is whole.

    Args:
        store_path: Folder of the store.
        out_db: The file, which must not be there; ends in `.db` as GraphNeT wants it.
        pulses_table: Name of the table of pulses.
        truth_table: Name of the table of truth.
        index_column: Name of the event_id. A column of the store that has this name is
            written as `source_<name>`.
        events: Numbers of the events in the store; None for all. They are written in
            the order of the store.
        with_empty: Write the truth of events without pulses, which GraphNeT fails on
            when it comes to them.
        on_progress: Called now and then with the events and pulses since the last call.

    Raises:
        FileExistsError: The file is there.
        ImportError: sqlite-utils is not installed.
        ValueError: The file's name does not end in `.db`, tables or columns would have
            one name, or an event number is not there.
        OSError: The disk is full.
    """
    sqlite_utils = import_sqlite_utils()
    if Path(out_db).suffix != ".db":
        raise ValueError(f"{out_db}: GraphNeT reads files that end in .db")
    if pulses_table.lower() == truth_table.lower():
        raise ValueError(f"pulses and truth cannot both be table {truth_table!r}")
    tables = GraphNetTables(
        EventStore(store_path),
        index_column=index_column,
        events=events,
        with_empty=with_empty,
    )
    num_events = num_pulses = left_out = 0
    made: set[str] = set()  # tables
    with temporary(Path(out_db)) as path, _naming_full_disk(out_db):
        database = sqlite_utils.Database(path)
        connection: sqlite3.Connection = database.conn
        try:
            # A file that is not whole is thrown away, so nothing has to be undone.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")

            def insert(name: str, columns: Mapping[str, NDArray[Any]]) -> None:
                if name not in made:
                    # sqlite-utils before 4 ends the transaction when it makes one.
                    connection.commit()
                    _create(database, name, columns, index_column, name == truth_table)
                    made.add(name)
                if not connection.in_transaction:
                    connection.execute("BEGIN")
                _insert(connection, name, columns)

            for shard, rows, empty in tables.shards():
                left_out += empty
                if not len(rows):
                    continue
                insert(truth_table, tables.truth(shard, rows))
                for columns in tables.pulses(shard, rows):
                    insert(pulses_table, columns)
                    new_pulses = len(columns[index_column])
                    num_pulses += new_pulses
                    if on_progress is not None:
                        on_progress(0, new_pulses)
                connection.commit()
                num_events += len(rows)
                if on_progress is not None:
                    on_progress(len(rows), 0)
            if not made:
                raise ValueError(f"{store_path}: there is no event to be written")
            database[pulses_table].create_index(
                [index_column], index_name=f"{index_column}_{pulses_table}"
            )
        finally:
            connection.close()
        with open(path, "rb+") as file:
            os.fsync(file.fileno())  # SQLite was told not to wait for the disk
    return WriteReport(events=num_events, pulses=num_pulses, left_out=left_out)


def write_graphnet_parquet(
    store_path: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    *,
    pulses_table: str = "pulses",
    truth_table: str = "truth",
    index_column: str = "event_no",
    events: Events | None = None,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store as parquet for GraphNeT's ParquetDataset.

    `<table>/<table>_<chunk>.parquet`, a chunk a shard, in the order of the event_id:
    ParquetDataset sorts both tables by it and takes row for row what belongs together.
    For that reason events without pulses, which the table of pulses does not know, are
    left out. Columns are as `write_graphnet_sqlite` has them. The folder takes its
    name when it is whole.

    Args:
        store_path: Folder of the store.
        out_folder: The folder, which must not be there, or be empty.
        pulses_table: Name of the table of pulses.
        truth_table: Name of the table of truth.
        index_column: Name of the event_id.
        events: Numbers of the events in the store; None for all.
        on_progress: Called now and then with the events and pulses since the last call.

    Raises:
        FileExistsError: The folder is there and not empty.
        ImportError: pyarrow is not installed.
        ValueError: Tables or columns would have one name, or an event number is not
            there.
        OSError: The disk is full.
    """
    pa = import_pyarrow()
    import pyarrow.parquet

    if pulses_table == truth_table:
        raise ValueError(f"pulses and truth cannot both be table {truth_table!r}")
    tables = GraphNetTables(
        EventStore(store_path),
        index_column=index_column,
        events=events,
        with_empty=False,
    )
    num_events = num_pulses = left_out = chunk = 0
    with temporary(Path(out_folder)) as folder:
        for name in (pulses_table, truth_table):
            (folder / name).mkdir(parents=True)
        for shard, rows, empty in tables.shards():
            left_out += empty
            if not len(rows):
                continue
            rows = rows[np.argsort(tables.ids(shard, rows))]
            truth = folder / truth_table / f"{truth_table}_{chunk}.parquet"
            pyarrow.parquet.write_table(pa.table(tables.truth(shard, rows)), truth)
            path = folder / pulses_table / f"{pulses_table}_{chunk}.parquet"
            writer = None
            try:
                for columns in tables.pulses(shard, rows):
                    table = pa.table(columns)
                    if writer is None:
                        writer = pyarrow.parquet.ParquetWriter(path, table.schema)
                    writer.write_table(table)
                    num_pulses += table.num_rows
                    if on_progress is not None:
                        on_progress(0, table.num_rows)
            finally:
                if writer is not None:
                    writer.close()
            # without gaps: ParquetDataset counts the files
            chunk += 1
            num_events += len(rows)
            if on_progress is not None:
                on_progress(len(rows), 0)
        if not chunk:
            raise ValueError(f"{store_path}: there is no event to be written")
    return WriteReport(events=num_events, pulses=num_pulses, left_out=left_out)


def import_sqlite_utils() -> Any:
    """Return sqlite-utils, or say what needs it."""
    try:
        import sqlite_utils
    except ImportError as error:
        raise ImportError(
            "writing SQLite files needs sqlite-utils: "
            "pip install graphnet-icecube2nd[data]"
        ) from error
    return sqlite_utils


def is_taken(path: Path) -> bool:
    """Say whether something is at a path that is not an empty folder."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


@contextmanager
def temporary(final: Path) -> Iterator[Path]:
    """Lend a path beside a file or folder, and give it that name if all went well.

    Raises:
        FileExistsError: The name is taken.
    """
    if is_taken(final):
        raise FileExistsError(
            f"{final} is there already; remove it, or choose another name"
        )
    final.parent.mkdir(parents=True, exist_ok=True)
    path = final.with_name(f".{final.name}.tmp")
    _remove(path)
    try:
        yield path
        os.rename(path, final)
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise OSError(errno.ENOSPC, f"no space left while writing {path}") from error


def _create(
    database: Any,
    name: str,
    columns: Mapping[str, NDArray[Any]],
    index_column: str,
    keyed: bool,
) -> None:
    lowered = [column.lower() for column in columns]
    if twice := [c for c in columns if lowered.count(c.lower()) > 1]:
        raise ValueError(
            f"table {name!r}: SQLite takes {', '.join(twice)} for one column"
        )
    types = {"i": int, "u": int, "f": float}
    database[name].create(
        {column: types.get(v.dtype.kind, str) for column, v in columns.items()},
        pk=index_column if keyed else None,
        not_null={index_column},
    )


def _insert(
    connection: sqlite3.Connection, name: str, columns: Mapping[str, NDArray[Any]]
) -> None:
    # sqlite-utils' own insert_all takes six times as long.
    places = ", ".join("?" for _ in columns)
    connection.executemany(
        f"INSERT INTO {quoted(name)} VALUES ({places})",
        zip(*(values.tolist() for values in columns.values()), strict=True),
    )
