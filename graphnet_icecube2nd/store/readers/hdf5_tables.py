"""The tables of an HDF5 file, and the rows of events in them.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. The rows of events are known from B + 1 borders, from first row and number, or
from first row and last row + 1. Shape letters: R rows, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import EVENT_COLUMNS
from graphnet_icecube2nd.store.readers.tables import LONG_TEXT, Runs, Table

# Names of columns of the B + 1 borders, or of first rows and numbers of pulses.
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
    """Return h5py; ImportError names the extra."""
    return import_extra("h5py", "HDF5 files need", "data")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; ValueError if it cannot be read."""
    h5py = import_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (KeyError, OSError, RuntimeError) as error:  # h5py has no own errors
        advice = "It may have another format, or be an incomplete copy"
        if "filter" in str(error) or "plugin" in str(error):
            advice = (
                "Its compression is unknown to h5py: set HDF5_PLUGIN_PATH to the "
                "plugins of hdf5plugin, or copy it with PyTables: ptrepack --complib "
                "zlib IN OUT"
            )
        raise ValueError(f"{path} cannot be read as HDF5: {error}. {advice}") from None


@dataclass(frozen=True, kw_only=True)
class H5Table(Table):
    """A table of a file, or a range of its rows."""

    for_threads = False  # HDF5 has one lock
    path: Path
    node: str  # its path in the file, without the first slash; `/` for the root
    # Arrow type of the columns of numbers or text, with one value per row.
    types: Mapping[str, Any]
    rows: range
    compound: bool  # whether it is one compound dataset
    others: tuple[str, ...] = ()  # columns of other types
    # Columns that are read from other tables with the same number of rows.
    beside: Mapping[str, H5Table] = field(default_factory=dict)
    # For pulses without an event column: rows of each event, and the event column.
    ranges: Ranges | None = None
    events: H5Table | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the table for messages."""
        return f"{self.path}, table {self.node!r}"

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """Number of rows; None if only the ranges know it."""
        return None if self.ranges else len(self.rows)

    def between(self, low: int, high: int) -> H5Table:
        """Return rows low to high - 1, or the pulses of these events."""
        if self.events is not None:
            return replace(self, events=self.events.between(low, high))
        return replace(self, rows=range(low, high))

    def with_columns(self, columns: Sequence[str], table: H5Table) -> H5Table:
        """Return the table with columns of another, first or instead of its own."""
        types = {column: table.types[column] for column in columns}
        beside = {**self.beside, **dict.fromkeys(columns, table)}
        return replace(self, types={**types, **self.types, **types}, beside=beside)

    def of_events(self, ranges: Ranges, events: H5Table) -> H5Table:
        """Return the pulses with an event column that follows from ranges of rows."""
        types = {**self.types, **events.types}
        return replace(self, types=types, ranges=ranges, events=events)

    def runs(self, column: str) -> Runs:
        """Return the rows of each event, in the order of the events."""
        if self.ranges is None or self.events is None:
            return super().runs(column)
        ids = [np.empty(0, np.int64), *(ids for _, ids in self.events.ids(column))]
        return np.concatenate(ids), *self.ranges.read(self.events.rows)

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        with opened(self.path) as file:
            for low in self.rows[max(start - self.rows.start, 0) :: ROWS_AT_ONCE]:
                rows = slice(low, min(low + ROWS_AT_ONCE, self.rows.stop))
                arrays = self.read(file, columns, rows)
                yield low, import_pyarrow().record_batch(arrays)

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of columns, (R,) each, in the machine's byte order."""
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
    """A column of event_ids that is not in the file: events are numbered."""

    first: int  # the event_id of row 0

    @classmethod
    def of(cls, table: H5Table, num_events: int, first: int) -> EventNumbers:
        """Return the numbers of the events of a table, from `first`."""
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

    A group with datasets of several lengths gives several tables of one name.
    """
    # By node, length, and whether it is compound.
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
    """Yield path and dataset of all datasets with one dimension."""
    h5py = import_h5py()
    for key in group:
        child = group.get(key)  # None if a link has no target
        if isinstance(child, h5py.Dataset) and child.ndim == 1:
            yield name + key, child
        # A soft link may lead back to its own group.
        is_below = isinstance(group.get(key, getlink=True), h5py.HardLink)
        if isinstance(child, h5py.Group) and is_below:
            yield from _datasets(child, f"{name}{key}/")


def _type(dtype: Any) -> Any:
    """Return the Arrow type of a column after `_plain`, or None if it has none."""
    pa = import_pyarrow()
    if import_h5py().check_string_dtype(dtype) is not None:
        size = dtype.itemsize  # long texts get a type that is left out with a note
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
    if values.dtype.itemsize > 8:  # Arrow has no long double
        return values.astype(np.float64)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        # torch has few functions for unsigned integers
        if len(values) and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"values must fit into int64, found {values.max()}")
        return values.astype(np.int64)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def find_column(
    tables: Sequence[H5Table], reference: str, place: str
) -> tuple[H5Table, str]:
    """Return table and column of a path such as `events/first_pulse`."""
    parts = reference.strip("/").split("/")
    node, column = "/".join(parts[:-1]) or "/", parts[-1]
    for table in tables:
        if table.node == node and column in table.types:
            return table, column
    raise ValueError(
        f"{place} has no dataset or column {reference!r}; it has tables "
        f"{', '.join(sorted({table.node for table in tables})) or '(none)'}"
    )


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Rows of the events in a table of pulses.

    Args:
        table: Table with the rows of the events.
        columns: Its columns by role: `first` rows, and numbers of pulses (`count`) or
            last rows + 1 (`stop`); without both, `first` are B + 1 borders. An event
            with `exists` 0 has no pulses.
        num_pulses: Number of rows of the table of pulses.
    """

    table: H5Table
    columns: dict[str, str]
    num_pulses: int

    @property
    def num_events(self) -> int:
        """Number of events, B."""
        are_borders = not {"count", "stop"} & self.columns.keys()
        return len(self.table.rows) - are_borders

    def read(self, events: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first row and number of pulses of events, (B,) each.

        Raises:
            ValueError: Rows of events overlap or are outside the table.
        """
        low = events.start
        before = max(low - 1, 0)  # the event before, for the check of overlaps
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
        if "exists" in values:  # frames without pulses have padding rows
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
            (count < 0, "offsets must not decrease"),
            (outside, f"the table of pulses has {self.num_pulses} rows"),
            (back, "they overlap with those of the event before"),
        ):
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(
                    f"{self.table.name}: the pulses of event {before + row} (counted "
                    f"from 0) are rows {first[row]} to {first[row] + count[row]}, but "
                    f"{why}"
                )


def known_offsets(tables: Sequence[H5Table]) -> list[tuple[H5Table, tuple[str, ...]]]:
    """Return tables with columns of known names for the rows of events, and these."""
    return [
        (table, names)
        for table in tables
        for names in KNOWN_OFFSETS
        if {*names} <= {*table.types}
    ]


def hint_at_pandas(path: Path) -> str:
    """Return advice if a file was written by pandas with columns in blocks, or ""."""
    with opened(path) as file:
        nodes = filter(None, map(file.get, file))  # None if a link has no target
        if not any("pandas_type" in node.attrs for node in nodes):
            return ""
    return (
        ". It was written by pandas with columns in blocks, which cannot be read. "
        "Write it with to_hdf(..., format='table', data_columns=True) or to_parquet"
    )


def find_ranges(
    tables: Sequence[H5Table],
    num_pulses: int,
    offsets: str | Sequence[str] | None,
    place: str,
) -> Ranges:
    """Find the rows of the events, by `offsets` of the user or by known names.

    Args:
        tables: Tables of the file.
        num_pulses: Number of rows of the table of pulses.
        offsets: Path of the borders, paths of first rows and numbers, or None.
        place: Name of the file for messages.

    Raises:
        ValueError: Not exactly one table has the rows, or a path is not valid.
    """
    if offsets is None:
        found = known_offsets(tables)
        if len(found) != 1:
            several = [f"{table.node}: {names[0]}" for table, names in found]
            raise ValueError(
                f"{place} must have one dataset with the rows of each event, found "
                f"{', '.join(several) or 'none'}. Name it: --offsets-table PATH "
                "(offsets_table='PATH' of the borders, or ('PATH of first rows', 'PATH "
                "of numbers of pulses')), or name the event column of the pulses: "
                "--event-column (event_column=...)"
            )
        ((table, columns),) = found
    else:
        paths = [offsets] if isinstance(offsets, str) else list(offsets)
        if len(paths) > 2 or (not isinstance(offsets, str) and len(paths) < 2):
            raise ValueError(f"offsets must be one path or two, got {paths}")
        named = [find_column(tables, path, place) for path in paths]
        table, columns = named[0][0], tuple(column for _, column in named)
        if any(other is not table for other, _ in named):
            raise ValueError(
                f"{place}: {paths[0]!r} and {paths[1]!r} must be columns of one table"
            )
    roles = dict(zip(("first", "count"), columns, strict=False))
    return Ranges(table=table, columns=roles, num_pulses=num_pulses)
