"""An HDF5 file opened for reading: the tables in it, and where events lie in them.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. Events are told by offsets of B + 1 borders, first row and number, or first row
and the row after the last. Shape letters: R rows, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow

OFFSETS = ("offsets", "event_offsets", "pulse_offsets")
FIRST_AND_COUNT = (
    ("first_pulse", "n_pulses"),
    ("first_pulse", "num_pulses"),
    ("first", "count"),
)
EVENTS_AT_ONCE = 2**20


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
class H5Table:
    """A table of an HDF5 file."""

    name: str  # its path, without the first slash; `/` for the root
    # Arrow type of the columns of numbers or text, one value a row.
    types: Mapping[str, Any]
    num_rows: int  # rows
    compound: bool  # whether it is one compound dataset
    others: tuple[str, ...] = ()  # columns that hold something else

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of some columns, (R,) in the machine's byte order."""
        if not columns:
            return {}
        node = file[self.name]
        table = node.fields(list(columns))[rows] if self.compound else None
        made = {}
        for column in columns:
            try:
                values = node[column][rows] if table is None else table[column]
                made[column] = _plain(values)
            except ValueError as error:
                raise ValueError(
                    f"{file.filename}, {self.name!r}, column {column!r}: {error}"
                ) from None
        return made


def find_tables(file: Any, skip: Sequence[str] = ()) -> list[H5Table]:
    """Return the tables of a file.

    A group whose datasets have several lengths is as many tables of one name.

    Args:
        file: The file.
        skip: Groups that are not looked into.
    """
    h5py = import_h5py()
    tables: list[H5Table] = []

    def look(node: Any, name: str) -> None:
        columns: dict[int, dict[str, Any]] = {}
        for key in node:
            child = node.get(key)  # None where a link leads nowhere
            path = f"{name}/{key}" if name else key
            if isinstance(child, h5py.Group):
                # A soft link may lead back to where it is.
                hard = isinstance(node.get(key, getlink=True), h5py.HardLink)
                if hard and path not in skip:
                    look(child, path)
            elif isinstance(child, h5py.Dataset) and child.ndim == 1:
                if child.dtype.names:
                    types = {field: child.dtype[field] for field in child.dtype.names}
                    tables.append(_table(path, types, len(child), True))
                else:
                    columns.setdefault(len(child), {})[key] = child.dtype
        for num_rows, types in columns.items():
            tables.append(_table(name or "/", types, num_rows, False))

    look(file, "")
    return tables


def _table(name: str, dtypes: dict[str, Any], num_rows: int, compound: bool) -> H5Table:
    types = {column: _type(dtype) for column, dtype in dtypes.items()}
    return H5Table(
        name=name,
        types={column: kind for column, kind in types.items() if kind},
        num_rows=num_rows,
        compound=compound,
        others=tuple(column for column, kind in types.items() if not kind),
    )


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
    name, column = "/".join(parts[:-1]) or "/", parts[-1]
    for table in tables:
        if table.name == name and column in table.types:
            return table, column
    raise ValueError(
        f"{place} has no dataset or column {reference!r}; there is "
        f"{', '.join(sorted({table.name for table in tables})) or 'nothing'}"
    )


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Where events lie."""

    table: H5Table  # the table that says so
    first: str  # column of first rows, or of B + 1 borders
    count: str | None = None  # column of numbers of pulses, or None
    # Column of the rows after the last, or None. Without both, `first` are
    # borders.
    stop: str | None = None
    # Column that is 0 where the event has no pulses whatever the others say, or
    # None.
    exists: str | None = None
    num_pulses: int  # rows of the table of pulses

    @property
    def num_events(self) -> int:
        """Number of events, B."""
        borders = self.count is None and self.stop is None
        return self.table.num_rows - 1 if borders else self.table.num_rows

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [c for c in (self.first, self.count, self.stop, self.exists) if c]

    def read(
        self, file: Any, low: int, high: int, place: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first row and number of pulses of events low to high, (B,) each.

        Events without pulses lie where the one before ends.

        Raises:
            ValueError: A range that goes back, or beyond the table.
        """
        before = max(low - 1, 0)  # its end, which the first may not lie before
        last = high + (self.count is None and self.stop is None)
        read = self.table.read(file, self.columns, slice(before, last))
        values = {name: column.astype(np.int64) for name, column in read.items()}
        first = values[self.first]
        if self.count is not None:
            count = values[self.count]
        elif self.stop is not None:
            count = values[self.stop] - first
        else:
            first, count = first[:-1], np.diff(first)
        if self.exists is not None:
            count = np.where(values[self.exists] != 0, count, 0)
            # Rows of frames without the pulses are padding.
            first = np.where(values[self.exists] != 0, first, 0)
        self._check(first, count, before, place)
        end = np.maximum.accumulate(np.where(count > 0, first + count, 0))
        first = np.where(count > 0, first, np.append(0, end[:-1]))
        return first[low - before :], count[low - before :]

    def claimed(self, file: Any, place: str) -> int:
        """Return how many pulses belong to an event, and check all ranges."""
        total = 0
        for low in range(0, self.num_events, EVENTS_AT_ONCE):
            high = min(low + EVENTS_AT_ONCE, self.num_events)
            total += int(self.read(file, low, high, place)[1].sum())
        return total

    def _check(
        self,
        first: NDArray[np.int64],
        count: NDArray[np.int64],
        before: int,
        place: str,
    ) -> None:
        def refuse(bad: NDArray[np.bool_], why: str) -> None:
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"{place}, {self.table.name!r}: the pulses of event {before + row} "
                    f"(counted from 0) are rows {first[row]} to "
                    f"{first[row] + count[row]}; {why}"
                )

        refuse(count < 0, "offsets may not go back")
        full = count > 0
        outside = (first < 0) | (first + count > self.num_pulses)
        refuse(full & outside, f"the table of pulses has {self.num_pulses}")
        rows = np.flatnonzero(full)
        back = np.zeros(len(first), bool)
        back[rows[1:]] = first[rows[1:]] < (first + count)[rows[:-1]]
        refuse(back, "they begin before those of the event before end")


def find_ranges(
    tables: Sequence[H5Table],
    pulses: H5Table,
    offsets: str | Sequence[str] | None,
    place: str,
) -> Ranges:
    """Find what says where events lie.

    Args:
        tables: The tables of the file.
        pulses: That of the pulses.
        offsets: The path of the borders, or the two paths of first rows and numbers of
            pulses; None to look for known names.
        place: What messages call the file.

    Raises:
        ValueError: There is none, or more than one; or borders that do not end where
            the pulses end.
    """
    if offsets is None:
        names: list[tuple[str, str | None]] = [(name, None) for name in OFFSETS]
        found = [
            Ranges(table=table, first=first, count=count, num_pulses=pulses.num_rows)
            for table in tables
            for first, count in (*names, *FIRST_AND_COUNT)
            if {first, count or first} <= set(table.types)
        ]
        if len(found) != 1:
            several = [f"{ranges.table.name}: {ranges.first}" for ranges in found]
            raise ValueError(
                f"{place} has {', '.join(several) or 'nothing'} to say where the "
                "pulses of an event lie. Name one: offsets='PATH' of the borders, or "
                "offsets=('PATH of first rows', 'PATH of numbers of pulses')"
            )
        return found[0]
    if isinstance(offsets, str):
        table, column = find_column(tables, offsets, place)
        return Ranges(table=table, first=column, num_pulses=pulses.num_rows)
    if len(offsets) != 2:
        raise ValueError(f"offsets are one path or two, got {list(offsets)}")
    (table, first), (other, count) = (
        find_column(tables, path, place) for path in offsets
    )
    if (table.name, table.num_rows) != (other.name, other.num_rows):
        raise ValueError(
            f"{place}: {offsets[0]!r} and {offsets[1]!r} must be columns of one table"
        )
    return Ranges(table=table, first=first, count=count, num_pulses=pulses.num_rows)
