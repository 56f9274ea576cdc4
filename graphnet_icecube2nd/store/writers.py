"""Export of an event store to files of GraphNeT and of the competition.

Each format has one function, which `export` finds by name. A file or folder gets its
name when it is complete. Shape letters: B events, T pulses.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME_ORIGIN, X, Y, Z, reverse_angles
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.files import (
    PathLike,
    check_new,
    write_whole,
    write_whole_folder,
)
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.event_store import EventStore, Shard
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.store.readers.sqlite import quoted

Events = Sequence[int] | NDArray[np.integer[Any]]  # their numbers in the store

BATCH_EVENTS = 200_000  # events per file, as in the competition
SQLITE_NEEDS = "writing SQLite files needs"
_ROWS = 2**20  # pulses of the competition's format written at once
PULSES_AT_ONCE = 2**18  # of GraphNeT's formats
# Columns of the competition's pulses, and metadata with which pandas reads event_id as
# the index.
_TYPES = {
    "sensor_id": "int16",
    "time": "int64",
    "charge": "float64",
    "auxiliary": "bool",
    EVENT_ID: "int64",
}
_PANDAS = {
    "index_columns": [EVENT_ID],
    "column_indexes": [],
    "columns": [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": kind,
            "metadata": None,
        }
        for name, kind in _TYPES.items()
    ],
    "pandas_version": "2.0.0",
}


@dataclass(kw_only=True)
class WriteReport:
    """Numbers of written events and pulses, and of events left out without pulses."""

    events: int = 0
    pulses: int = 0
    left_out: int = 0

    def add(self, events: int, pulses: int, on_progress: Progress | None) -> None:
        """Add written events and pulses, and report them to `on_progress`."""
        self.events += events
        self.pulses += pulses
        if on_progress is not None:
            on_progress(events, pulses)


def write_graphnet_sqlite(
    store_path: PathLike,
    out_db: PathLike,
    *,
    pulses_table: str = "pulses",
    truth_table: str = "truth",
    index_column: str = "event_no",
    events: Events | None = None,
    with_empty: bool = False,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store as a SQLite file (.db) for GraphNeT's SQLiteDataset.

    Args:
        store_path: Folder of the store.
        out_db: File to write.
        pulses_table: Name of the table of pulses.
        truth_table: Name of the table of truth.
        index_column: Column of the event_id, primary key of the truth and index of the
            pulses; see `GraphNetTables`.
        events: Numbers of the events, written in the order of the store; None for all.
        with_empty: Whether the truth of events without pulses is written. GraphNeT
            fails when it reads such events.
        on_progress: Function called with the numbers of new events and pulses.

    Raises:
        ValueError: The file name, a table or a column is not allowed, or there is no
            event.
        FileExistsError: The file exists.
        ImportError: sqlite-utils is not installed.
    """
    sqlite_utils = import_extra("sqlite_utils", SQLITE_NEEDS, "data")
    if Path(out_db).suffix != ".db":
        raise ValueError(f"out must end in .db, which GraphNeT needs; got {out_db}")
    _check_names(pulses_table, truth_table)
    tables = GraphNetTables(EventStore(store_path), index_column, events, with_empty)
    report = WriteReport()
    Path(out_db).parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out_db, new=True) as path:
        database = sqlite_utils.Database(path)
        connection: sqlite3.Connection = database.conn
        try:
            # An incomplete file is removed, so no journal is needed; `write_whole`
            # waits for the disk.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            for shard, rows in tables.shards(report):
                truth = tables.truth(shard, rows)
                if not report.events:
                    _create(database, truth_table, truth, index_column, keyed=True)
                _insert(connection, truth_table, truth)
                for columns in tables.pulses(shard, rows):
                    if pulses_table not in database.table_names():
                        # sqlite-utils before 4 commits when it makes a table.
                        connection.commit()
                        _create(database, pulses_table, columns, index_column)
                    _insert(connection, pulses_table, columns)
                    report.add(0, len(columns[index_column]), on_progress)
                connection.commit()
                report.add(len(rows), 0, on_progress)
            database[pulses_table].create_index(
                [index_column], index_name=f"{index_column}_{pulses_table}"
            )
        finally:
            connection.close()
    return report


def write_graphnet_parquet(
    store_path: PathLike,
    out_folder: PathLike,
    *,
    pulses_table: str = "pulses",
    truth_table: str = "truth",
    index_column: str = "event_no",
    events: Events | None = None,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store as a folder of parquet files for GraphNeT's ParquetDataset.

    The files are `<table>/<table>_<chunk>.parquet`, one chunk per shard, in the order
    of the event_id. ParquetDataset joins the sorted tables row by row, so events
    without pulses are left out.

    Args:
        store_path: Folder of the store.
        out_folder: Folder to write, new or empty.
        pulses_table: Name of the table of pulses.
        truth_table: Name of the table of truth.
        index_column: Column of the event_id, see `GraphNetTables`.
        events: Numbers of the events; None for all.
        on_progress: Function called with the numbers of new events and pulses.

    Raises:
        ValueError: A table or a column is not allowed, or there is no event.
        FileExistsError: The folder exists and is not empty.
    """
    pa = import_pyarrow()
    from pyarrow.parquet import ParquetWriter, write_table

    _check_names(pulses_table, truth_table)
    tables = GraphNetTables(EventStore(store_path), index_column, events)
    report = WriteReport()
    with write_whole_folder(out_folder) as folder:
        for name in (pulses_table, truth_table):
            (folder / name).mkdir()
        # Chunks are numbered without gaps, because ParquetDataset counts the files.
        for chunk, (shard, rows) in enumerate(tables.shards(report)):
            rows = rows[np.argsort(tables.ids(shard, rows))]
            truth = folder / truth_table / f"{truth_table}_{chunk}.parquet"
            write_table(pa.table(tables.truth(shard, rows)), truth)
            path = folder / pulses_table / f"{pulses_table}_{chunk}.parquet"
            pieces = map(pa.table, tables.pulses(shard, rows))
            first = next(pieces)
            with ParquetWriter(path, first.schema) as writer:
                for table in chain([first], pieces):
                    writer.write_table(table)
                    report.add(0, table.num_rows, on_progress)
            report.add(len(rows), 0, on_progress)
    return report


def write_kaggle(
    store_path: PathLike,
    out_folder: PathLike,
    *,
    batch_events: int = BATCH_EVENTS,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store with a sensor_id as a folder in the competition's format.

    The files are train/batch_N.parquet, train_meta.parquet and sensor_geometry.csv.
    Times are rounded to nanoseconds. The format has no truth besides azimuth and
    zenith, and no events without pulses; these are left out.

    Args:
        store_path: Folder of the store.
        out_folder: Folder to write, new or empty.
        batch_events: Number of events per batch.
        on_progress: Function called with the numbers of new events and pulses.

    Raises:
        ValueError: The store lacks a column that the format needs, has too many DOMs,
            or has no event.
        FileExistsError: The folder exists and is not empty.
    """
    pa = import_pyarrow()
    from pyarrow.parquet import ParquetWriter, write_table

    store = EventStore(store_path)
    _check_kaggle(store)
    schema = pa.schema(_TYPES.items(), metadata={"pandas": json.dumps(_PANDAS)})
    report = WriteReport(left_out=store.manifest.num_empty)
    meta: list[dict[str, NDArray[Any]]] = []
    with write_whole_folder(out_folder) as folder:
        (folder / "train").mkdir()
        pieces = _kaggle_pieces(store, batch_events)
        for batch, group in groupby(pieces, key=lambda piece: piece[0]):
            row = 0
            path = folder / "train" / f"batch_{batch}.parquet"
            with ParquetWriter(path, schema) as writer:
                for _, shard, events in group:
                    table = pa.table(
                        _kaggle_pulses(store, shard, events), schema=schema
                    )
                    writer.write_table(table)
                    meta.append(_kaggle_meta(store, shard, events, batch, row))
                    row += table.num_rows
                    report.add(len(events), table.num_rows, on_progress)
        joined = {
            name: np.concatenate([piece[name] for piece in meta]) for name in meta[0]
        }
        write_table(pa.table(joined), folder / "train_meta.parquet")
        lines = ["sensor_id,x,y,z"]
        for sensor, place in enumerate(store.geometry.position_S3.tolist()):
            lines.append(",".join([str(sensor), *(repr(round(p, 6)) for p in place)]))
        text = "\n".join(lines) + "\n"
        (folder / "sensor_geometry.csv").write_text(text, encoding="utf-8")
    return report


# Function of each format, and its arguments besides store and output.
FORMATS: dict[str, tuple[Callable[..., WriteReport], tuple[str, ...]]] = {
    "graphnet-sqlite": (write_graphnet_sqlite, ("pulses_table", "truth_table")),
    "graphnet-parquet": (write_graphnet_parquet, ("pulses_table", "truth_table")),
    "kaggle": (write_kaggle, ()),
}


def export(
    store: PathLike, out: PathLike, *, format: str | None = None, **options: Any
) -> WriteReport:
    """Write a store as files of GraphNeT or of the competition.

    Args:
        store: Folder of the store.
        out: File or folder to write; it must not exist, or be an empty folder.
        format: Format, `graphnet-sqlite`, `graphnet-parquet` or `kaggle`; default:
            SQLite if `out` ends in .db, else GraphNeT's parquet.
        **options: `on_progress`, a function called with the numbers of new events and
            pulses; for GraphNeT's formats also `pulses_table` and `truth_table`, names
            of the tables.

    Raises:
        FileExistsError: The output exists.
        ValueError: The format is unknown, or the store does not fit it.
        OSError: The disk is full.
        ImportError: The library of the format is missing.
    """
    format = format_of(out, format)
    write, known = FORMATS[format]
    unknown = set(options) - {*known, "on_progress"}
    if unknown:
        raise ValueError(
            f"format {format!r} has no option {', '.join(sorted(unknown))}; it has "
            f"{', '.join([*known, 'on_progress'])}"
        )
    return write(store, out, **options)


def format_of(out: PathLike, format: str | None = None) -> str:
    """Return the format of an output, by default from its name.

    Args:
        out: File or folder to write.
        format: Format, or None.

    Raises:
        ValueError: The format is unknown, or does not follow from the name.
    """
    suffix = Path(out).suffix
    if format is None:
        if suffix not in (".db", ""):
            raise ValueError(
                "out must end in .db for GraphNeT's SQLite, or be a folder for its "
                f"parquet, got {out}. Or give the format (--format)"
            )
        return "graphnet-sqlite" if suffix == ".db" else "graphnet-parquet"
    check_one_of("format", format, FORMATS)
    return format


def check_output(out: PathLike, format: str) -> None:
    """Check that an output can be written, before the work begins.

    Args:
        out: File or folder to write.
        format: Format of the output.

    Raises:
        FileExistsError: The output exists.
        ImportError: The library of the format is missing.
    """
    check_new(out)
    if format == "graphnet-sqlite":
        import_extra("sqlite_utils", SQLITE_NEEDS, "data")
    else:
        import_pyarrow()


def _check_names(pulses_table: str, truth_table: str) -> None:
    if pulses_table.lower() == truth_table.lower():
        raise ValueError(
            f"pulses_table and truth_table must be different, got twice {truth_table!r}"
        )


def _no_event(store: EventStore) -> ValueError:
    return ValueError(f"{store.path}: there is no event with pulses to write")


def _create(
    database: Any,
    name: str,
    columns: Mapping[str, NDArray[Any]],
    index_column: str,
    *,
    keyed: bool = False,
) -> None:
    lowered = [column.lower() for column in columns]
    if twice := [c for c in columns if lowered.count(c.lower()) > 1]:
        raise ValueError(
            f"table {name!r}: {', '.join(twice)} are one column in SQLite, which "
            "ignores case; rename all but one"
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
    if not connection.in_transaction:
        connection.execute("BEGIN")
    places = ", ".join("?" for _ in columns)
    connection.executemany(
        f"INSERT INTO {quoted(name)} VALUES ({places})",
        zip(*(values.tolist() for values in columns.values()), strict=True),
    )


def _check_kaggle(store: EventStore) -> None:
    if len(store.geometry) > 2**15:
        raise ValueError(
            f"{store.path} must have at most {2**15} DOMs for the competition's "
            f"format, found {len(store.geometry)}"
        )
    pulse_map = store.pulse_map
    flag = pulse_map.auxiliary or pulse_map.hlc
    named = {"sensor_id": pulse_map.sensor_id, "charge": pulse_map.charge, "flag": flag}
    for what, column in named.items():
        if column is None or column not in store.pulse_columns:
            raise ValueError(
                f"{store.path} has no {what}, which the competition's format needs; "
                f"it has {', '.join(store.pulse_columns)}"
            )
    if store.manifest.num_empty == len(store):
        raise _no_event(store)


def _kaggle_pieces(
    store: EventStore, batch_events: int
) -> Iterator[tuple[int, Shard, NDArray[np.int64]]]:
    """Yield batch, shard and events with pulses, with about `_ROWS` pulses each."""
    batch, room = 1, batch_events
    for shard in store.shards:
        count_B = shard.events.column(N_PULSES).astype(np.int64)
        events = np.flatnonzero(count_B > 0)
        while len(events):
            total = np.cumsum(count_B[events])
            most = max(1, int(np.searchsorted(total, _ROWS, side="right")))
            piece, events = np.split(events, [min(most, room)])
            yield batch, shard, piece
            room -= len(piece)
            if not room:
                batch, room = batch + 1, batch_events


def _kaggle_pulses(
    store: EventStore, shard: Shard, events: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    pulse_map = store.pulse_map
    count_B, row_T = shard.pulse_rows(events)

    def column(name: str | None) -> NDArray[Any]:
        assert name is not None
        return shard.pulses.column(name)[row_T]

    if pulse_map.auxiliary is not None:
        auxiliary_T = column(pulse_map.auxiliary) != 0
    else:
        auxiliary_T = column(pulse_map.hlc) == 0
    return {
        "sensor_id": column(pulse_map.sensor_id).astype(np.int16),
        "time": np.rint(column(pulse_map.time)).astype(np.int64),
        "charge": column(pulse_map.charge).astype(np.float64),
        "auxiliary": auxiliary_T,
        EVENT_ID: np.repeat(shard.events.column(EVENT_ID)[events], count_B),
    }


def _kaggle_meta(
    store: EventStore, shard: Shard, events: NDArray[np.int64], batch: int, row: int
) -> dict[str, NDArray[Any]]:
    """Return rows of the meta data; `row` is the first pulse in the file."""
    count_B = shard.events.column(N_PULSES)[events].astype(np.int64)
    last_B = row + np.cumsum(count_B) - 1
    columns: dict[str, NDArray[Any]] = {
        "batch_id": np.full(len(events), batch),
        EVENT_ID: shard.events.column(EVENT_ID)[events],
        "first_pulse_index": last_B - count_B + 1,
        "last_pulse_index": last_B,
    }
    if store.has_directions:
        azimuth, zenith = (
            shard.events.column(name)[events].astype(np.float64)
            for name in (store.pulse_map.labels.azimuth, store.pulse_map.labels.zenith)
        )
        if store.pulse_map.labels.angles == "flight":
            turned = reverse_angles(zenith, azimuth)
            zenith, azimuth = (angle.numpy() for angle in turned)
        columns |= {"azimuth": azimuth, "zenith": zenith}
    return columns


class GraphNetTables:
    """Some or all events of a store as GraphNeT's tables of pulses and truth.

    Times are those of the source, and pulses with only a sensor_id get the position of
    their DOM.

    Args:
        store: The store.
        index_column: Name of the event_id in the tables; a column of the store with
            this name becomes `source_<name>`.
        events: Numbers of the events; None for all.
        with_empty: Whether events without pulses are included.

    Raises:
        ValueError: Two columns would have one name, or `events` are not valid.
    """

    def __init__(
        self,
        store: EventStore,
        index_column: str,
        events: Events | None = None,
        with_empty: bool = False,
    ) -> None:
        self.store = store
        self.index_column = index_column
        self.with_empty = with_empty
        self._events = None if events is None else _event_numbers(events, store)
        places = [
            store.pulse_map.x or X,
            store.pulse_map.y or Y,
            store.pulse_map.z or Z,
        ]
        self._places = places if not set(places) <= set(store.pulse_columns) else []
        self.truth_columns = self._names(store.truth_columns, [])
        self.pulse_columns = self._names(store.pulse_columns, self._places)

    def _names(self, columns: Sequence[str], added: Sequence[str]) -> dict[str, str]:
        """Return the names of columns in the tables, by their names in the store."""
        index = self.index_column
        names = {c: f"source_{index}" if c == index else c for c in columns}
        all_names = [index, *names.values(), *added]
        if twice := sorted({name for name in all_names if all_names.count(name) > 1}):
            raise ValueError(
                f"{self.store.path}: two columns would have the name "
                f"{', '.join(twice)}. Give another index_column"
            )
        return names

    def shards(self, report: WriteReport) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Yield the shards with events to write, and the rows of these."""
        offsets = self.store.shard_offsets
        for index, shard in enumerate(self.store.shards):
            rows = np.arange(shard.record.num_events)
            if self._events is not None:
                low, high = np.searchsorted(self._events, offsets[index : index + 2])
                rows = self._events[low:high] - offsets[index]
            if not self.with_empty:
                full = shard.events.column(N_PULSES)[rows] > 0
                report.left_out += int((~full).sum())
                rows = rows[full]
            if len(rows):
                yield shard, rows
        if not report.events:
            raise _no_event(self.store)

    def ids(self, shard: Shard, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the event_ids of some events of a shard, (B,)."""
        ids: NDArray[np.int64] = shard.events.column(EVENT_ID)[rows]
        return ids

    def truth(self, shard: Shard, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the truth of some events of a shard, (B,) by column."""
        columns = {self.index_column: self.ids(shard, rows)}
        for column, name in self.truth_columns.items():
            columns[name] = shard.events.column(column)[rows]
        return columns

    def pulses(
        self, shard: Shard, rows: NDArray[np.int64]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the pulses of some events of a shard in tables, (T,) by column."""
        counts = shard.events.column(N_PULSES)[rows].astype(np.int64)
        # Tables have whole events: about `PULSES_AT_ONCE` pulses, or one event.
        group_B = (np.cumsum(counts) - 1).clip(0) // PULSES_AT_ONCE
        borders = np.flatnonzero(np.diff(group_B)) + 1
        for some in np.split(rows, borders):
            if len(some):
                yield self._pulses(shard, some)

    def _pulses(self, shard: Shard, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        events, pulse_map = shard.events, self.store.pulse_map
        count_B, row_T = shard.pulse_rows(rows)
        columns = {self.index_column: np.repeat(self.ids(shard, rows), count_B)}
        for column, name in self.pulse_columns.items():
            values = shard.pulses.column(column)[row_T]
            if column == pulse_map.time and TIME_ORIGIN in events.names:
                origin_B = events.column(TIME_ORIGIN)[rows]
                values = _absolute(values, np.repeat(origin_B, count_B))
            columns[name] = values
        if self._places:
            assert pulse_map.sensor_id is not None
            sensor_id_T = shard.pulses.column(pulse_map.sensor_id)[row_T]
            position_S3 = self.store.geometry.position_S3.numpy()
            for axis, name in enumerate(self._places):
                # coordinates of the file, as the pulse map reads them
                place_S = position_S3[:, axis] + pulse_map.origin[axis]
                columns[name] = place_S[sensor_id_T]
        return columns


def _event_numbers(events: Events, store: EventStore) -> NDArray[np.int64]:
    """Return event numbers in the order of the store."""
    given = np.asarray(events)
    if given.size and given.dtype.kind not in "iu":
        raise ValueError(f"events must be integers, got {given.dtype}")
    numbers = np.sort(given.astype(np.int64).ravel())
    store.shard_of(numbers)  # ValueError for unknown numbers
    twice = np.flatnonzero(np.diff(numbers) == 0)
    if len(twice):
        raise ValueError(
            f"events must have each number once, found {numbers[twice[0]]} twice"
        )
    return numbers


def _absolute(time_T: NDArray[Any], origin_T: NDArray[Any]) -> NDArray[Any]:
    """Add the time origin of the events, in its own type.

    An integer clock may count nanoseconds since 1970, which float64 cannot represent.
    """
    if origin_T.dtype.kind == "i":
        time_T = np.rint(time_T).astype(np.int64)
    absolute_T: NDArray[Any] = origin_T + time_T.astype(origin_T.dtype)
    return absolute_T
