"""Rows: a flat table, of a parquet file or in memory, read piece by piece.

A file of 33 million rows is never loaded whole: row groups that cannot hold what is
asked for are passed over by their statistics, and the others come in batches. Shape
letters: T rows, G row groups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.arrow_values import (
    ids_of,
    naming_damage,
    no_values,
    values_of,
)
from graphnet_icecube2nd.store.readers.source import file_fingerprint

BATCH_ROWS = 2**18
_LEAST, _GREATEST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


class Rows(ABC):
    """The rows of a table.

    Attributes:
        name: What messages call it.
    """

    name: str

    @property
    @abstractmethod
    def types(self) -> Mapping[str, Any]:
        """Arrow type of each column."""

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if the rows differ."""

    @property
    @abstractmethod
    def num_rows(self) -> int | None:
        """How many there are; None if that is not known beforehand."""

    def within(self, column: str, low: int, high: int) -> Rows:
        """Return fewer rows, among them all whose integer `column` is in low to high.

        The others that remain have to be left out by their values.
        """
        return self

    def ids(self, column: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield a column of event_ids in pieces, each with the row it begins at."""
        for row, batch in self.batches([column]):
            yield row, ids_of(batch.column(0), column, self, row)

    def runs(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the event_ids of runs of rows with one, (R,), and borders (R + 1,)."""
        ids = [np.empty(0, np.int64)]
        starts = [np.empty(0, np.int64)]
        row, last = 0, None
        for _, piece in self.ids(column):
            begins = np.flatnonzero(piece[1:] != piece[:-1]) + 1
            if len(piece) and (last is None or piece[0] != last):
                begins = np.append(0, begins)
            ids.append(piece[begins])
            starts.append(begins + row)
            row, last = row + len(piece), piece[-1] if len(piece) else last
        return np.concatenate(ids), np.append(np.concatenate(starts), row)

    def at(self, row: int) -> str:
        """Return what messages call a row."""
        return f"{self.name}, row {row}"


@dataclass(frozen=True, kw_only=True)
class ParquetRows(Rows):
    """The rows of a parquet file, or of some of its row groups."""

    path: Path
    name: str  # for messages
    groups: tuple[int, ...] | None = None  # the row groups, or None for all

    @cached_property
    def types(self) -> dict[str, Any]:
        """Arrow type of each column."""
        with open_parquet(self.path, self.name) as file, naming_damage(self.name):
            return {field.name: field.type for field in file.schema_arrow}

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""
        sizes = [group.num_rows for group in self.row_groups()]
        starts = np.append(0, np.cumsum(sizes))
        with open_parquet(self.path, self.name) as file:
            for group in range(len(sizes)) if self.groups is None else self.groups:
                row = int(starts[group])
                with naming_damage(self.name):
                    for batch in file.iter_batches(
                        BATCH_ROWS,
                        row_groups=[group],
                        columns=list(columns),
                        use_threads=False,  # the processes share the cores
                    ):
                        # as asked for, not as in the file
                        yield row, batch.select(list(columns))
                        row += len(batch)
                if row != starts[group + 1]:
                    raise ValueError(
                        f"{self.name} is damaged: row group {group} ends at row {row}, "
                        f"not at {starts[group + 1]}"
                    )

    def fingerprint(self) -> dict[str, Any]:
        """Return name, size and time of change of the file, and the row groups."""
        groups = None if self.groups is None else list(self.groups)
        return {**file_fingerprint(self.path), "groups": groups}

    @property
    def num_rows(self) -> int:
        """How many rows the groups have."""
        groups = self.row_groups()
        taken = groups if self.groups is None else [groups[g] for g in self.groups]
        return sum(group.num_rows for group in taken)

    def row_groups(self) -> list[Any]:
        """Return Arrow's description of all row groups of the file."""
        import_pyarrow()
        import pyarrow.dataset
        import pyarrow.fs

        with naming_damage(self.name):
            fragment = pyarrow.dataset.ParquetFileFormat().make_fragment(
                str(self.path), pyarrow.fs.LocalFileSystem()
            )
            return list(fragment.row_groups)

    def bounds(self, column: str) -> list[tuple[int, int] | None]:
        """Return least and greatest of an integer column, group by group.

        None where the file does not say. A group without rows has a least that is
        greater than any greatest.
        """
        bounds: list[tuple[int, int] | None] = []
        for group in self.row_groups():
            ends = group.statistics.get(column, {"min": None, "max": None})
            low, high = ends["min"], ends["max"]
            known = isinstance(low, int) and isinstance(high, int)
            if not group.num_rows:
                bounds.append((_GREATEST, _LEAST))
            elif known and low >= _LEAST and high <= _GREATEST:
                bounds.append((low, high))
            else:
                bounds.append(None)
        return bounds

    def within(self, column: str, low: int, high: int) -> ParquetRows:
        """Leave out the row groups that cannot hold a value of low to high."""
        bounds = self.bounds(column)
        everything = range(len(bounds)) if self.groups is None else self.groups
        fitting = []
        for group in everything:
            ends = bounds[group]
            if ends is None or (ends[0] <= high and ends[1] >= low):
                fitting.append(group)
        return replace(self, groups=tuple(fitting))


def read_rows(
    rows: Rows, columns: Sequence[str], borders: NDArray[np.int64]
) -> Iterator[tuple[int | None, dict[str, NDArray[Any]]]]:
    """Read the rows between borders, in their order and each once.

    Args:
        rows: The table.
        columns: What to read.
        borders: Rows, counted from 0 among those that `rows` has.

    Yields:
        Row of the file that the first stands in, None where they do not stand
        together, and (T,) by column.

    Raises:
        ValueError: A value is null, or the file is damaged; names file and row.
    """
    batches = rows.batches(columns)
    row, rest = 0, None
    for index, num_rows in enumerate(np.diff(borders, prepend=0).tolist()):
        pieces = []
        while num_rows:
            if not rest:
                row, rest = next(batches, (0, None))
                if rest is None:
                    raise ValueError(f"{rows.name} changed while it was read")
            piece = rest.slice(0, num_rows)
            pieces.append((row, piece))
            row, rest = row + len(piece), rest.slice(len(piece))
            num_rows -= len(piece)
        if index == 0:  # before the first border
            continue
        joined = {}
        for place, column in enumerate(columns):
            values = [values_of(p.column(place), column, rows, r) for r, p in pieces]
            joined[column] = (
                values[0]
                if len(values) == 1
                else np.concatenate([no_values(rows.types[column]), *values])
            )
        ends = [r + len(p) for r, p in pieces]
        together = pieces and [r for r, _ in pieces[1:]] == ends[:-1]
        yield pieces[0][0] if together else None, joined


def open_parquet(path: Path, name: str) -> Any:
    """Open a parquet file for reading piece by piece.

    Raises:
        ValueError: It is damaged or of another format.
    """
    import_pyarrow()
    import pyarrow.parquet

    with naming_damage(name):
        # The buffer keeps pyarrow from loading a column of a row group whole.
        return pyarrow.parquet.ParquetFile(
            path, buffer_size=2**20, page_checksum_verification=True
        )
