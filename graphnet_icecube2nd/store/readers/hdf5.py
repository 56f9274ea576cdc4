"""HDF5: a flat table of pulses and where each event lies in it.

Two layouts are known. One has a table of pulses, a dataset of offsets (or columns of
first rows and numbers of pulses) and a table with one row an event. The other is that
of icetray's hdfwriter. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers import icetray_hdf5 as icetray
from graphnet_icecube2nd.store.readers.arrow_values import check_finite, nan_note
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    NO_TRUTH,
    Columns,
    Keep,
    PathLike,
    angle_columns,
    check_tables,
    choose_columns,
    choose_pulses,
    choose_truth,
    choose_truth_columns,
    list_files,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.hdf5_file import (
    H5Table,
    Ranges,
    find_column,
    find_ranges,
    find_tables,
    opened,
)
from graphnet_icecube2nd.store.readers.source import (
    HDF5_SUFFIXES,
    EventChunk,
    Part,
    Source,
    chunk_borders,
    file_fingerprint,
)


def hdf5_source(
    paths: PathLike | Sequence[PathLike],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    offsets: str | Sequence[str] | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str | None = None,
    keep: Keep = (),
    events_per_part: int = 100_000,
) -> Source:
    """Read HDF5 files.

    Events and pulses come in the order of the file. Tables are named by their path,
    such as `pulses` or `events/truth`.

    Args:
        paths: A file, several, or folders of files that end in .h5, .hdf5 or .hdf.
        pulses: Table of pulses: a compound dataset, or a group of columns; default
            the one that a named pulse map fits, or that hdfwriter wrote.
        truth: Table of truth, one row an event; default the one that has the angles,
            of hdfwriter's one called as the primary is (`MCPrimary`). False to do
            without.
        offsets: Path of the B + 1 borders of events in the table of pulses, or paths
            of first rows and numbers of pulses; default those of known names
            (`offsets`, `first_pulse` and `n_pulses`). Not for hdfwriter's files.
        pulse_map: What the columns mean. Of hdfwriter's pulses, `sensor_id` (of string
            and om) and `hlc` (of the flags) are columns too.
        event_column: Column of the truth, or path, of the event_id; default
            `event_id` or `event_no`, and else events are counted.
        keep: Further columns of the pulses to take, or `all`.
        events_per_part: Events that one process reads at a time.

    Raises:
        FileNotFoundError: No such file.
        ImportError: h5py is not installed.
        ValueError: A file is no HDF5 file or not whole, a table is missing or
            ambiguous, offsets cannot be true, files do not agree; names file and table.
    """
    if events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    if pulses is not None:
        pulses = pulses.strip("/") or "/"
    if isinstance(truth, str):
        truth = truth.strip("/") or "/"
    layouts = [
        _look_at(path, pulses, truth, offsets, pulse_map, event_column, keep)
        for path in list_files(paths, HDF5_SUFFIXES)
    ]
    parts, first_number = [], 0
    for layout in layouts:
        _check_agreement(layouts[0], layout)
        num_events = layout.ranges.num_events
        for low in range(0, num_events, events_per_part):
            high = min(low + events_per_part, num_events)
            parts.append(H5Part(layout, low, high, first_number))
        first_number += num_events
    return Source(
        kind="hdf5",
        pulse_map=layouts[0].pulse_map,
        parts=parts,
        pulse_columns=layouts[0].taken,
        left_out=layouts[0].left_out,
        notes=tuple(note for layout in layouts for note in layout.notes),
    )


@dataclass(frozen=True, kw_only=True)
class H5Layout:
    """What is read of one file."""

    path: Path
    pulses: H5Table  # table of pulses
    types: Mapping[str, Any]  # Arrow type of its columns, computed ones among them
    read: tuple[str, ...]  # its columns that are read
    taken: tuple[str, ...]  # columns that are handed on, computed ones among them
    ranges: Ranges  # where the pulses of each event lie
    # Tables with one row an event, and the columns to take of each.
    truth: tuple[tuple[H5Table, tuple[str, ...]], ...]
    # Table with a column that is 0 where an event has no truth, or None.
    truth_exists: H5Table | None = None
    # Table and column of the event_id; None counts the events.
    event_id: tuple[H5Table, str] | None
    pulse_map: PulseMap  # what the columns mean
    left_out: tuple[str, ...]  # columns that are not taken
    notes: tuple[str, ...]  # what there is to say


@dataclass(eq=False)
class H5Part(Part):
    """A range of events."""

    layout: H5Layout
    low: int  # first event, counted from 0
    high: int  # the one after the last
    first_number: int  # events in the files before, where events are counted

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        whole = self.high - self.low == self.layout.ranges.num_events
        events = "" if whole else f" (events {self.low} to {self.high - 1})"
        return f"{self.layout.path}{events}"

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether file, range or columns differ."""
        layout, ranges, key = self.layout, self.layout.ranges, self.layout.event_id
        return {
            **file_fingerprint(layout.path),
            "pulses": [layout.pulses.name, *layout.read],
            "ranges": [ranges.table.name, *ranges.columns],
            "truth": [[table.name, *columns] for table, columns in layout.truth],
            "event_id": key and [key[0].name, key[1]],
            "range": [self.low, self.high, self.first_number],
        }

    def at(self, row: int) -> str:
        """Return what messages call an event, counted from 0."""
        with opened(self.layout.path) as file:
            event_id = self._event_id(file, row, row + 1)[0]
        return f"{self.layout.path}, event {event_id}"

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
                if layout.read != layout.taken:
                    columns.update(icetray.compute(columns, place))
                low, high = self.low + events.start, self.low + events.stop
                truth, notes = self._truth(file, low, high)
                yield EventChunk(
                    columns={name: columns[name] for name in layout.taken},
                    offsets=offsets,
                    event_id=self._event_id(file, low, high),
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

    def _truth(
        self, file: Any, low: int, high: int
    ) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
        rows, table = slice(low, high), self.layout.truth_exists
        if table is not None:
            exists = table.read(file, [icetray.EXISTS], rows)[icetray.EXISTS] != 0
            if not exists.all():
                raise ValueError(
                    f"{self.layout.path}, {table.name!r}: event "
                    f"{low + int(exists.argmin())} (counted from 0) has no truth. Take "
                    f"such out, or do without truth: {NO_TRUTH}"
                )
        truth: dict[str, NDArray[Any]] = {}
        notes: tuple[str, ...] = ()
        for table, columns in self.layout.truth:
            truth.update(table.read(file, columns, rows))
        for column, values in truth.items():
            if column in angle_columns(self.layout.pulse_map):
                check_finite(values, column, self, low)
            notes += nan_note(values, column, str(self.layout.path))
        return truth, notes


def _look_at(
    path: Path,
    wanted: str | None,
    truth: str | bool | None,
    offsets: str | Sequence[str] | None,
    pulse_map: PulseMap | None,
    event_column: str | None,
    keep: Keep,
) -> H5Layout:
    """Find what is to be read of a file."""
    place = str(path)
    with opened(path) as file:
        index = icetray.index_tables(file)
        if index and offsets is not None:
            raise ValueError(
                f"{place} is of icetray's hdfwriter, which says itself where events "
                "lie; give no offsets"
            )
        tables = find_tables(file, skip=(icetray.INDEX,))
        # Of several tables of one name, that of the pulses is the longest.
        stored = {t.name: t for t in sorted(tables, key=lambda table: table.num_rows)}
        candidates = [
            replace(table, types={**table.types, **icetray.computed_columns(table)})
            for name, table in stored.items()
            if name in index
        ]
        chosen, pulse_map = choose_pulses(
            candidates if index else list(stored.values()),
            place=place,
            name=wanted,
            pulse_map=pulse_map,
            recognise=icetray.recognise_pulses if index else recognise_pulse_map,
        )
        pulses = stored[chosen.name]
        others = [table for table in tables if table is not pulses]
        if index:
            frames = index[chosen.name]
            ranges = icetray.frame_ranges(frames, pulses.num_rows)
            others = icetray.possible_truth(others, truth, place)
        else:
            ranges = find_ranges(tables, pulses, offsets, place)
            others = _one_an_event(others, ranges, truth, place)
        claimed = ranges.claimed(file, place)  # and checks them
        truth_table = choose_truth(others, place=place, name=truth, pulse_map=pulse_map)
        if index and truth_table is not None:
            icetray.check_same_frames(file, frames, truth_table, place)
    notes: list[str] = []
    if not index and claimed < pulses.num_rows:
        notes.append(
            f"{place}: {pulses.num_rows - claimed} of {pulses.num_rows} pulses belong "
            "to no event; left out"
        )
    event_id = None
    if not index or event_column is not None:
        event_id = _find_event_id(
            [ranges.table] if index else others, truth_table, event_column, place
        )
    if event_id is None:
        what = "frames" if index else "events"
        notes.append(f"{place}: no event_id; the {what} are counted from 0")
    header = (*icetray.EVENT, icetray.EXISTS) if index else ()
    available = {c: kind for c, kind in chosen.types.items() if c not in header}
    taken, left_out = choose_columns(available, pulse_map, keep)
    called = Columns(name=f"{place}, table {pulses.name!r}", types=chosen.types)
    check_tables([called], taken, pulse_map)
    tables_of_truth = []
    if index:
        tables_of_truth.append(
            (frames, tuple(c for c in icetray.EVENT if c in frames.types))
        )
    if truth_table is not None:
        without = {*header}
        if event_id is not None and event_id[0] is truth_table and not index:
            without.add(event_id[1])
        if ranges.table is truth_table:
            without.update(ranges.columns)
        columns, truth_left_out, more = choose_truth_columns(
            truth_table.types, pulse_map, place, without
        )
        tables_of_truth.append((truth_table, columns))
        left_out += truth_left_out
        notes += more
    exists = truth_table is not None and index and icetray.EXISTS in truth_table.types
    return H5Layout(
        path=path,
        pulses=pulses,
        types=chosen.types,
        read=icetray.needed_for(taken, pulses),
        taken=taken,
        ranges=ranges,
        truth=tuple(tables_of_truth),
        truth_exists=truth_table if exists else None,
        event_id=event_id,
        pulse_map=pulse_map,
        left_out=(*left_out, *pulses.others),
        notes=tuple(notes),
    )


def _one_an_event(
    tables: Sequence[H5Table], ranges: Ranges, truth: str | bool | None, place: str
) -> list[H5Table]:
    """Return the tables with one row an event, the wanted one among them."""
    of_name = [table.num_rows for table in tables if table.name == truth]
    if of_name and ranges.num_events not in of_name:
        raise ValueError(
            f"{place}, table {truth!r}: {of_name[0]} rows for {ranges.num_events} "
            "events; truth has one row an event"
        )
    return [table for table in tables if table.num_rows == ranges.num_events]


def _check_agreement(first: H5Layout, other: H5Layout) -> None:
    """See that two files can be read as one."""
    if first.pulse_map != other.pulse_map:
        raise ValueError(
            f"{first.path} fits pulse map {first.pulse_map.name!r}, {other.path} "
            f"{other.pulse_map.name!r}; read them one by one"
        )
    if (first.event_id is None) != (other.event_id is None):
        raise ValueError(
            f"{first.path} and {other.path}: only one of them has an event_id; read "
            "them one by one"
        )
    for layouts in permutations((first, other)):
        tables = [
            Columns(name=f"{layout.path}, {layout.pulses.name!r}", types=layout.types)
            for layout in layouts
        ]
        check_tables(tables, layouts[0].taken, first.pulse_map)
        tables = [
            Columns(
                name=str(layout.path),
                types={c: t.types[c] for t, columns in layout.truth for c in columns},
            )
            for layout in layouts
        ]
        check_tables(tables, [*tables[0].types])


def _find_event_id(
    tables: Sequence[H5Table], truth: H5Table | None, wanted: str | None, place: str
) -> tuple[H5Table, str] | None:
    """Return table and column of the event_id; None if there is none."""
    if wanted is not None:
        if truth is not None and wanted in truth.types:
            return truth, wanted
        return find_column(tables, wanted, place)
    for table in (*([truth] if truth else []), *tables):
        for column in EVENT_COLUMNS:
            if column in table.types:
                return table, column
    return None
