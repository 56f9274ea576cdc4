"""The tables of an HDF5 file, and where events lie in them.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. Events are told by offsets of B + 1 borders, first row and number, or first row
and the row after the last. Shape letters: R rows, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import EVENT_COLUMNS
from graphnet_icecube2nd.store.readers.tables import LONG_TEXT, Runs, Table

# Names of the B + 1 borders of events, or of first rows and numbers of pulses.
KNOWN_OFFSETS: tuple[tuple[str, ...], ...] = (
    ("offsets",),
    ("event_offsets",),
    ("pulse_offsets",),
    ("first_pulse", "n_pulses"),
    ("first_pulse", "num_pulses"),
    ("first", "count"),
)
ROWS_AT_ONCE = 2**20


def import_h5py() -> Any:
    """Return h5py, or say what needs it."""
    return import_extra("h5py", "HDF5 files need", "data")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading."""
    h5py = import_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (KeyError, OSError, RuntimeError) as error:  # h5py has no errors of its own
        advice = "It may be of another format, or not a whole copy"
        if "filter" in str(error) or "plugin" in str(error):
            advice = (
                "It is compressed in a way that h5py does not know: set "
                "HDF5_PLUGIN_PATH to the plugins of hdf5plugin, or copy it with "
                "PyTables: ptrepack --complib zlib IN OUT"
            )
        raise ValueError(f"{path} cannot be read as HDF5: {error}. {advice}") from None


@dataclass(frozen=True, kw_only=True)
class H5Table(Table):
    """A table of a file, or a range of its rows."""

    for_threads = False  # HDF5 has one lock
    path: Path
    node: str  # its path in the file, without the first slash; `/` for the root
    # Arrow type of the columns of numbers or text, one value a row.
    types: Mapping[str, Any]
    rows: range
    compound: bool  # whether it is one compound dataset
    others: tuple[str, ...] = ()  # columns that hold something else
    # Columns that are read of other tables of as many rows.
    beside: Mapping[str, H5Table] = field(default_factory=dict)
    # Of pulses that lie event by event: where, and the events by their event column.
    ranges: Ranges | None = None
    events: H5Table | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return f"{self.path}, table {self.node!r}"

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """How many rows there are; of some events, only their ranges tell."""
        return None if self.ranges else len(self.rows)

    def between(self, low: int, high: int) -> H5Table:
        """Return the rows low to high - 1 of the file, or pulses of these events."""
        if self.events is not None:
            return replace(self, events=self.events.between(low, high))
        return replace(self, rows=range(low, high))

    def with_columns(self, columns: Sequence[str], table: H5Table) -> H5Table:
        """Return a table that has columns of another, before or in place of its own."""
        types = {column: table.types[column] for column in columns}
        beside = {**self.beside, **dict.fromkeys(columns, table)}
        return replace(self, types={**types, **self.types, **types}, beside=beside)

    def of_events(self, ranges: Ranges, events: H5Table) -> H5Table:
        """Return pulses that know by ranges of rows which event they are of."""
        types = {**self.types, **events.types}
        return replace(self, types=types, ranges=ranges, events=events)

    def runs(self, column: str) -> Runs:
        """Return the rows of each event, in the order of the events."""
        if self.ranges is None or self.events is None:
            return super().runs(column)
        ids = [np.empty(0, np.int64), *(ids for _, ids in self.events.ids(column))]
        return np.concatenate(ids), *self.ranges.read(self.events.rows)

    def whole(self, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return columns at once, (R,) each."""
        ((_, arrays),) = self.read_rows(columns, np.array([0, len(self.rows)]))
        return arrays

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of columns, each with the row it begins at."""
        with opened(self.path) as file:
            for low in self.rows[::ROWS_AT_ONCE]:
                rows = slice(low, min(low + ROWS_AT_ONCE, self.rows.stop))
                arrays = self.read(file, columns, rows)
                yield low, import_pyarrow().record_batch(arrays)

    def read_rows(
        self, columns: Sequence[str], borders: NDArray[np.int64]
    ) -> Iterator[tuple[int | None, dict[str, NDArray[Any]]]]:
        """Read the rows from border to border, straight from where they are."""
        with opened(self.path) as file:
            for low, high in pairwise((borders + self.rows.start).tolist()):
                yield low, self.read(file, columns, slice(low, high))

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of some columns, (R,) in the machine's byte order."""
        own = [column for column in columns if column not in self.beside]
        node = file[self.node]
        table = node.fields(own)[rows] if self.compound and own else None
        arrays = {}
        for column in own:
            try:
                values = node[column][rows] if table is None else table[column]
                arrays[column] = _plain(values)
            except ValueError as error:
                raise ValueError(f"{self.name}, column {column!r}: {error}") from None
        for column in self.beside.keys() & {*columns}:
            arrays |= self.beside[column].read(file, [column], rows)
        return arrays


@dataclass(frozen=True, kw_only=True)
class EventNumbers(H5Table):
    """A column of event_ids that no file has: events are counted."""

    first: int  # the event_id of row 0

    @classmethod
    def of(cls, table: H5Table, num_events: int, first: int) -> EventNumbers:
        """Return the numbers of the events that a table has."""
        return cls(
            path=table.path,
            node=table.node,
            types={EVENT_COLUMNS[0]: import_pyarrow().int64()},
            rows=range(num_events),
            compound=False,
            first=first,
        )

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of the column, (B,)."""
        ids = np.arange(self.first + rows.start, self.first + rows.stop)
        return {column: ids for column in columns}


def find_tables(path: Path) -> list[H5Table]:
    """Return the tables of a file.

    A group whose datasets have several lengths is as many tables of one name.
    """
    # By node, length, and whether they are compound.
    dtypes: dict[tuple[str, int, bool], dict[str, Any]] = {}
    with opened(path) as file:
        for node, dataset in _datasets(file, ""):
            group, _, column = node.rpartition("/")
            dtype, num_rows = dataset.dtype, len(dataset)
            if dtype.names:
                fields = {field: dtype[field] for field in dtype.names}
                dtypes[node, num_rows, True] = fields
            else:
                dtypes.setdefault((group or "/", num_rows, False), {})[column] = dtype
    tables = []
    for (node, num_rows, compound), columns in dtypes.items():
        types = {column: _type(dtype) for column, dtype in columns.items()}
        table = H5Table(
            path=path,
            node=node,
            types={column: kind for column, kind in types.items() if kind},
            rows=range(num_rows),
            compound=compound,
            others=tuple(column for column, kind in types.items() if not kind),
        )
        tables.append(table)
    return tables


def _datasets(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield path and dataset of all that have one dimension."""
    h5py = import_h5py()
    for key in group:
        child = group.get(key)  # None where a link leads nowhere
        if isinstance(child, h5py.Dataset) and child.ndim == 1:
            yield name + key, child
        # A soft link may lead back to where it is.
        is_below = isinstance(group.get(key, getlink=True), h5py.HardLink)
        if isinstance(child, h5py.Group) and is_below:
            yield from _datasets(child, f"{name}{key}/")


def _type(dtype: Any) -> Any:
    """Return the Arrow type of what `_plain` makes of a column; None if it cannot."""
    pa = import_pyarrow()
    if import_h5py().check_string_dtype(dtype) is not None:
        size = dtype.itemsize  # of a type that is left out, and named, where it is long
        return pa.string() if size <= LONG_TEXT else pa.binary(size)
    if dtype.kind not in "biuf" or dtype.shape:
        return None
    return pa.from_numpy_dtype(_plain(np.empty(0, dtype)).dtype)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the machine's byte order, and text as Python strings."""
    if values.dtype.kind in "SO":
        texts = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
            for v in values
        ]
        return np.array(texts, dtype=object)
    if values.dtype.itemsize > 8:  # long double, which Arrow does not know
        return values.astype(np.float64)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        # torch does little with unsigned integers
        if len(values) and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{values.max()} is more than int64 can hold")
        return values.astype(np.int64)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def find_column(
    tables: Sequence[H5Table], reference: str, place: str
) -> tuple[H5Table, str]:
    """Return the table and column that a path such as `events/first_pulse` names."""
    parts = reference.strip("/").split("/")
    node, column = "/".join(parts[:-1]) or "/", parts[-1]
    for table in tables:
        if table.node == node and column in table.types:
            return table, column
    raise ValueError(
        f"{place} has no dataset or column {reference!r}; there is "
        f"{', '.join(sorted({table.node for table in tables})) or 'nothing'}"
    )


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Where events lie in a table of pulses."""

    table: H5Table  # the table that says so
    # Its columns by what they are: `first` rows, and the `count` of pulses or the rows
    # after the last, `stop`; without both, `first` are B + 1 borders. Where `exists`
    # is 0, the event has no pulses whatever the others say.
    columns: dict[str, str]
    num_pulses: int  # rows of the table of pulses

    @property
    def num_events(self) -> int:
        """Number of events, B."""
        are_borders = not {"count", "stop"} & self.columns.keys()
        return len(self.table.rows) - are_borders

    def read(self, events: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first row and number of pulses of events, (B,) each."""
        low = events.start
        before = max(low - 1, 0)  # its end, which the first may not lie before
        past_last = events.stop + len(self.table.rows) - self.num_events
        arrays = self.table.between(before, past_last).whole([*self.columns.values()])
        values = {
            role: arrays[column].astype(np.int64)
            for role, column in self.columns.items()
        }
        first = values["first"]
        if "count" in values:
            count = values["count"]
        elif "stop" in values:
            count = values["stop"] - first
        else:
            first, count = first[:-1], np.diff(first)
        if "exists" in values:  # rows of frames without the pulses are padding
            first, count = (
                np.where(values["exists"] != 0, v, 0) for v in (first, count)
            )
        self._check(first, count, before)
        return first[low - before :], count[low - before :]

    def _check(
        self, first: NDArray[np.int64], count: NDArray[np.int64], before: int
    ) -> None:
        full = count > 0
        outside = full & ((first < 0) | (first + count > self.num_pulses))
        rows = np.flatnonzero(full)
        back = np.zeros(len(first), bool)
        back[rows[1:]] = first[rows[1:]] < (first + count)[rows[:-1]]
        for bad, why in (
            (count < 0, "offsets may not go back"),
            (outside, f"the table of pulses has {self.num_pulses}"),
            (back, "they begin before those of the event before end"),
        ):
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(
                    f"{self.table.name}: the pulses of event {before + row} (counted "
                    f"from 0) are rows {first[row]} to {first[row] + count[row]}; {why}"
                )


def known_offsets(tables: Sequence[H5Table]) -> list[tuple[H5Table, tuple[str, ...]]]:
    """Return tables with columns whose names say where events lie, with these."""
    return [
        (table, names)
        for table in tables
        for names in KNOWN_OFFSETS
        if {*names} <= {*table.types}
    ]


def hint_at_pandas(path: Path) -> str:
    """Return what to do if a file is of pandas, whose columns lie in blocks; or ""."""
    with opened(path) as file:
        nodes = filter(None, map(file.get, file))  # None where a link leads nowhere
        if not any("pandas_type" in node.attrs for node in nodes):
            return ""
    return (
        ". pandas wrote it, and keeps columns together in blocks: write it with "
        "to_hdf(..., format='table', data_columns=True), or with to_parquet"
    )


def find_ranges(
    tables: Sequence[H5Table],
    num_pulses: int,
    offsets: str | Sequence[str] | None,
    place: str,
) -> Ranges:
    """Find what says where events lie, by `offsets` of the user or by known names."""
    if offsets is None:
        found = known_offsets(tables)
        if len(found) != 1:
            several = [f"{table.node}: {names[0]}" for table, names in found]
            raise ValueError(
                f"{place} has {', '.join(several) or 'nothing'} to say where the "
                "pulses of an event lie. Name one: offsets='PATH' of the borders, or "
                "offsets=('PATH of first rows', 'PATH of numbers of pulses') "
                "(--offsets-table); or the column of the pulses that says which event "
                "they are of: event_column=... (--event-column)"
            )
        ((table, columns),) = found
    else:
        paths = [offsets] if isinstance(offsets, str) else list(offsets)
        if len(paths) > 2 or (not isinstance(offsets, str) and len(paths) < 2):
            raise ValueError(f"offsets are one path or two, got {paths}")
        named = [find_column(tables, path, place) for path in paths]
        table, columns = named[0][0], tuple(column for _, column in named)
        if any(other is not table for other, _ in named):
            raise ValueError(
                f"{place}: {paths[0]!r} and {paths[1]!r} must be columns of one table"
            )
    roles = dict(zip(("first", "count"), columns, strict=False))
    return Ranges(table=table, columns=roles, num_pulses=num_pulses)
