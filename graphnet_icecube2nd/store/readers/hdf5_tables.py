"""The tables of an HDF5 file, and where events lie in them.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. Events are told by offsets of B + 1 borders, first row and number, or first row
and the row after the last. Shape letters: R rows, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.table_part import starts_of
from graphnet_icecube2nd.store.readers.tables import Table, read_rows

OFFSETS = ("offsets", "event_offsets", "pulse_offsets")
ROWS_AT_ONCE = 2**20
FIRST_AND_COUNT = (
    ("first_pulse", "n_pulses"),
    ("first_pulse", "num_pulses"),
    ("first", "count"),
)


def import_h5py() -> Any:
    """Return h5py, or say what needs it.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files need h5py: pip install graphnet-icecube2nd[data]"
        ) from error
    return h5py


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no HDF5 file, damaged or not whole; names it.
    """
    h5py = import_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # h5py has no errors of its own
        raise ValueError(
            f"{path} cannot be read as HDF5: {error}. It may be of another format, or "
            "not a whole copy"
        ) from None


@dataclass(frozen=True, kw_only=True)
class H5Table(Table):
    """A table of a file, or a range of its rows."""

    path: Path
    node: str  # its path in the file, without the first slash; `/` for the root
    # Arrow type of the columns of numbers or text, one value a row.
    types: Mapping[str, Any]
    rows: range
    compound: bool  # whether it is one compound dataset
    others: tuple[str, ...] = ()  # columns that hold something else
    # A table of as many rows whose columns are read in place of its own.
    header: H5Table | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return f"{self.path}, table {self.node!r}"

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """How many rows there are."""
        return len(self.rows)

    def between(self, low: int, high: int) -> H5Table:
        """Return the rows low to high - 1 of the file."""
        return replace(self, rows=range(low, high))

    def whole(self, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return columns at once, (R,) each."""
        ((_, arrays),) = read_rows(self, columns, np.array([0, self.num_rows]))
        return arrays

    def arrays(
        self, columns: Sequence[str], *, nan: bool = False
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Yield columns piece by piece."""
        with opened(self.path) as file:
            for low in self.rows[::ROWS_AT_ONCE]:
                rows = slice(low, min(low + ROWS_AT_ONCE, self.rows.stop))
                yield low, self.read(file, columns, rows)

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of some columns, (R,) in the machine's byte order."""
        header = self.header.types if self.header else ()
        own = [column for column in columns if column not in header]
        node = file[self.node]
        table = node.fields(own)[rows] if self.compound and own else None
        arrays = {}
        for column in own:
            try:
                values = node[column][rows] if table is None else table[column]
                arrays[column] = _plain(values)
            except ValueError as error:
                raise ValueError(f"{self.name}, column {column!r}: {error}") from None
        if self.header:
            rest = [column for column in columns if column in header]
            arrays.update(self.header.read(file, rest, rows))
        return arrays


def find_tables(path: Path) -> list[H5Table]:
    """Return the tables of a file.

    A group whose datasets have several lengths is as many tables of one name.
    """
    h5py = import_h5py()
    tables: list[H5Table] = []

    def add(node: str, dtypes: dict[str, Any], num_rows: int, compound: bool) -> None:
        types = {column: _type(dtype) for column, dtype in dtypes.items()}
        table = H5Table(
            path=path,
            node=node,
            types={column: kind for column, kind in types.items() if kind},
            rows=range(num_rows),
            compound=compound,
            others=tuple(column for column, kind in types.items() if not kind),
        )
        tables.append(table)

    def look(group: Any, name: str) -> None:
        columns: dict[int, dict[str, Any]] = {}
        for key in group:
            child = group.get(key)  # None where a link leads nowhere
            node = f"{name}/{key}" if name else key
            if isinstance(child, h5py.Group):
                # A soft link may lead back to where it is.
                if isinstance(group.get(key, getlink=True), h5py.HardLink):
                    look(child, node)
            elif isinstance(child, h5py.Dataset) and child.ndim == 1:
                if child.dtype.names:
                    types = {field: child.dtype[field] for field in child.dtype.names}
                    add(node, types, len(child), True)
                else:
                    columns.setdefault(len(child), {})[key] = child.dtype
        for num_rows, types in columns.items():
            add(name or "/", types, num_rows, False)

    with opened(path) as file:
        look(file, "")
    return tables


def _type(dtype: Any) -> Any:
    """Return the Arrow type of what `_plain` makes of a column; None if it cannot."""
    pa = import_pyarrow()
    if import_h5py().check_string_dtype(dtype) is not None:
        return pa.string()
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
    """Return the table and column that a path such as `events/first_pulse` names.

    Raises:
        ValueError: There is none.
    """
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
    first: str  # column of first rows, or of B + 1 borders
    count: str | None = None  # column of numbers of pulses, or None
    # Column of the rows after the last, or None. Without both, `first` are borders.
    stop: str | None = None
    # Column that is 0 where the event has no pulses whatever the others say, or None.
    exists: str | None = None
    num_pulses: int  # rows of the table of pulses

    @property
    def num_events(self) -> int:
        """Number of events, B."""
        return self.table.num_rows - self._are_borders

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [c for c in (self.first, self.count, self.stop, self.exists) if c]

    @property
    def _are_borders(self) -> bool:
        return self.count is None and self.stop is None

    def read(self, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first row and number of pulses of events low to high, (B,) each.

        Raises:
            ValueError: A range goes back, or beyond the table.
        """
        before = max(low - 1, 0)  # its end, which the first may not lie before
        table = self.table.between(before, high + self._are_borders)
        values = {
            name: column.astype(np.int64)
            for name, column in table.whole(self.columns).items()
        }
        first = values[self.first]
        if self.count is not None:
            count = values[self.count]
        elif self.stop is not None:
            count = values[self.stop] - first
        else:
            first, count = first[:-1], np.diff(first)
        if self.exists is not None:
            # Rows of frames without the pulses are padding.
            first, count = (
                np.where(values[self.exists] != 0, v, 0) for v in (first, count)
            )
        self._check(first, count, before)
        return starts_of(first, count)[low - before :], count[low - before :]

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


def find_ranges(
    tables: Sequence[H5Table],
    num_pulses: int,
    offsets: str | Sequence[str] | None,
    place: str,
) -> Ranges:
    """Find what says where events lie, by `offsets` of the user or by known names.

    Raises:
        ValueError: There is none, or more than one.
    """
    if offsets is None:
        names: list[tuple[str, str | None]] = [(name, None) for name in OFFSETS]
        found = [
            Ranges(table=table, first=first, count=count, num_pulses=num_pulses)
            for table in tables
            for first, count in (*names, *FIRST_AND_COUNT)
            if {first, count or first} <= set(table.types)
        ]
        if len(found) != 1:
            several = [f"{ranges.table.node}: {ranges.first}" for ranges in found]
            raise ValueError(
                f"{place} has {', '.join(several) or 'nothing'} to say where the "
                "pulses of an event lie. Name one: offsets='PATH' of the borders, or "
                "offsets=('PATH of first rows', 'PATH of numbers of pulses')"
            )
        return found[0]
    if isinstance(offsets, str):
        table, column = find_column(tables, offsets, place)
        return Ranges(table=table, first=column, num_pulses=num_pulses)
    if len(offsets) != 2:
        raise ValueError(f"offsets are one path or two, got {list(offsets)}")
    (table, first), (other, count) = (
        find_column(tables, path, place) for path in offsets
    )
    if (table.node, table.num_rows) != (other.node, other.num_rows):
        raise ValueError(
            f"{place}: {offsets[0]!r} and {offsets[1]!r} must be columns of one table"
        )
    return Ranges(table=table, first=first, count=count, num_pulses=num_pulses)
