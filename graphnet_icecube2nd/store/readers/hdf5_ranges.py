"""Where the pulses of each event lie in a flat table of an HDF5 file.

Offsets of B + 1 borders, first row and number, or first row and the row after the
last; read range by range. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.hdf5_file import H5Table, find_column

OFFSETS = ("offsets", "event_offsets", "pulse_offsets")
FIRST_AND_COUNT = (
    ("first_pulse", "n_pulses"),
    ("first_pulse", "num_pulses"),
    ("first", "count"),
)
EVENTS_AT_ONCE = 2**20


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Where events lie.

    Args:
        table: The table that says so.
        first: Column of first rows, or of B + 1 borders.
        count: Column of numbers of pulses, or None.
        stop: Column of the rows after the last, or None. Without both, `first` are
            borders.
        exists: Column that is 0 where the event has no pulses whatever the others say,
            or None.
        num_pulses: Rows of the table of pulses.
    """

    table: H5Table
    first: str
    count: str | None = None
    stop: str | None = None
    exists: str | None = None
    num_pulses: int

    @property
    def num_events(self) -> int:
        """Number of events, B."""
        borders = self.count is None and self.stop is None
        return self.table.num_rows - 1 if borders else self.table.num_rows

    def read(
        self, file: Any, low: int, high: int, place: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first row and number of pulses of events low to high, (B,) each.

        Events without pulses lie where the one before ends.

        Raises:
            ValueError: A range that goes back, or beyond the table.
        """
        names = [c for c in (self.first, self.count, self.stop, self.exists) if c]
        before = max(low - 1, 0)  # its end, which the first may not lie before
        last = high + (self.count is None and self.stop is None)
        read = self.table.read(file, names, slice(before, last))
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
        found = [
            Ranges(table=table, first=name, num_pulses=pulses.num_rows)
            for table in tables
            for name in OFFSETS
            if name in table.columns
        ] + [
            Ranges(table=table, first=first, count=count, num_pulses=pulses.num_rows)
            for table in tables
            for first, count in FIRST_AND_COUNT
            if {first, count} <= set(table.columns)
        ]
        if len(found) != 1:
            names = [f"{ranges.table.name}: {ranges.first}" for ranges in found]
            raise ValueError(
                f"{place} has {', '.join(names) or 'nothing'} to say where the pulses "
                "of an event lie. Name one: offsets='PATH' of the borders, or "
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
