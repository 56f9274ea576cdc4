"""A range of events of an HDF5 file, read in slices.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.hdf5_file import H5Table, opened
from graphnet_icecube2nd.store.readers.hdf5_ranges import Ranges
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    chunk_borders,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.tables import NO_TRUTH
from graphnet_icecube2nd.store.readers.truth_values import check_truth_values

Columns = Mapping[str, NDArray[Any]]
# Columns of the file -> further ones; a function of a module, so that it pickles.
Compute = Callable[[Columns, str], dict[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class H5Layout:
    """What is read of one file.

    Args:
        path: The file.
        pulses: Table of pulses.
        read: Its columns that are read.
        taken: Columns that are handed on, computed ones among them.
        compute: Makes further columns of those read, or None.
        ranges: Where the pulses of each event lie.
        truth: Tables with one row an event, and the columns to take of each.
        angles: Columns of the truth that must be finite.
        truth_exists: Table and column that are 0 where an event has no truth, or None.
        event_id: Table and column of the event_id; None counts the events.
        num_events: Events.
    """

    path: Path
    pulses: H5Table
    read: tuple[str, ...]
    taken: tuple[str, ...]
    compute: Compute | None
    ranges: Ranges
    truth: tuple[tuple[H5Table, tuple[str, ...]], ...]
    angles: tuple[str, ...]
    truth_exists: tuple[H5Table, str] | None
    event_id: tuple[H5Table, str] | None
    num_events: int


class H5Part(Part):
    """A range of events.

    Args:
        layout: The file and its tables.
        low, high: First event, counted from 0, and the one after the last.
        first_number: Events in the files before, where events are counted.
    """

    def __init__(
        self, layout: H5Layout, low: int, high: int, first_number: int
    ) -> None:
        self.layout = layout
        self.low = low
        self.high = high
        self.first_number = first_number
        self.name = str(layout.path)
        if high - low < layout.num_events:
            self.name += f" (events {low} to {high - 1})"

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether file, range or columns differ."""
        layout = self.layout
        return {
            **file_fingerprint(layout.path),
            "pulses": [layout.pulses.name, *layout.read],
            "ranges": [
                *(layout.ranges.table.name, layout.ranges.first, layout.ranges.count),
                *(layout.ranges.stop, layout.ranges.exists),
            ],
            "truth": [[table.name, *columns] for table, columns in layout.truth],
            "event_id": layout.event_id
            and [layout.event_id[0].name, layout.event_id[1]],
            "range": [self.low, self.high, self.first_number],
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the events of the range."""
        layout = self.layout
        place = f"{layout.path}, {layout.pulses.name!r}"
        with opened(layout.path) as file:
            first_B, count_B = layout.ranges.read(file, self.low, self.high, place)
            # Rows of no event between two are read with them and left out.
            stop = first_B[-1:] + count_B[-1:]
            for events in chunk_borders(np.append(first_B, stop), max_pulses):
                first, count = first_B[events], count_B[events]
                rows = slice(int(first[0]), int(first[-1] + count[-1]))
                columns = layout.pulses.read(file, layout.read, rows)
                offsets = np.append(0, np.cumsum(count))
                first_row: int | None = rows.start
                if offsets[-1] < rows.stop - rows.start:
                    first_row = None
                    # The T rows of the events among all that were read.
                    shift_B = first - rows.start - offsets[:-1]
                    row_T = np.arange(offsets[-1]) + np.repeat(shift_B, count)
                    columns = {name: v[row_T] for name, v in columns.items()}
                if layout.compute is not None:
                    columns.update(layout.compute(columns, place))
                low, high = self.low + events.start, self.low + events.stop
                event_id = self._event_id(file, low, high)
                truth = self._truth(file, low, high)
                notes = check_truth_values(
                    truth, event_id, layout.angles, str(layout.path)
                )
                yield EventChunk(
                    columns={name: columns[name] for name in layout.taken},
                    offsets=offsets,
                    event_id=event_id,
                    truth=truth,
                    first_row=first_row,
                    notes=notes,
                )

    def _event_id(self, file: Any, low: int, high: int) -> NDArray[np.int64]:
        if self.layout.event_id is None:
            return self.first_number + np.arange(low, high)
        table, column = self.layout.event_id
        ids = table.read(file, [column], slice(low, high))[column]
        if ids.dtype.kind not in "iu":
            raise ValueError(
                f"{self.layout.path}, {table.name!r}: event column {column!r} holds "
                f"{ids.dtype}; it must hold integers"
            )
        return ids.astype(np.int64)

    def _truth(self, file: Any, low: int, high: int) -> dict[str, NDArray[Any]]:
        rows = slice(low, high)
        if self.layout.truth_exists is not None:
            table, column = self.layout.truth_exists
            exists = table.read(file, [column], rows)[column] != 0
            if not exists.all():
                event = low + int(np.flatnonzero(~exists)[0])
                raise ValueError(
                    f"{self.layout.path}, {table.name!r}: event {event} (counted from "
                    f"0) has no truth. Take such out, or do without truth: {NO_TRUTH}"
                )
        made: dict[str, NDArray[Any]] = {}
        for table, columns in self.layout.truth:
            made.update(table.read(file, columns, rows))
        return made
