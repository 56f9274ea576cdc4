"""HDF5 files: a flat table of pulses, and the rows of each event in it.

There are three layouts. The first has a table of pulses, a dataset of offsets (or
columns of first rows and numbers of pulses) and a table with one row per event. In the
second, pulses and truth have a column of the event number. The third is that of
icetray's hdfwriter. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers import icetray_hdf5 as icetray
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    PathLike,
    Wanted,
    check_same_pulse_map,
    check_tables,
    choose_columns,
    choose_pulses,
    choose_truth,
    list_files,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.hdf5_tables import (
    EventNumbers,
    H5Table,
    Ranges,
    find_column,
    find_ranges,
    find_tables,
    hint_at_pandas,
    known_offsets,
)
from graphnet_icecube2nd.store.readers.source import HDF5_SUFFIXES, Source
from graphnet_icecube2nd.store.readers.table_part import TablePart, select

# How the events of pulses are known if pulses have no event column.
WITH_ID, COUNTED = "rows of each event", "rows of each event without event_id"


def hdf5_source(
    paths: PathLike | Sequence[PathLike],
    *,
    offsets: str | Sequence[str] | None = None,
    events_per_part: int = 100_000,
    **options: Any,
) -> Source:
    """Open HDF5 files as a source.

    Events and pulses have the order of the file. A table is a compound dataset, or a
    group of columns; its name is its path, such as `pulses` or `events/truth`. The
    event column is a column of the truth, or a path; events without one are numbered.
    Without offsets it joins pulses and truth. The default truth of hdfwriter's files is
    the table of the primary (`MCPrimary`).

    Args:
        paths: Files or folders.
        offsets: Path of the B + 1 borders of events in the table of pulses, or paths of
            first rows and of numbers of pulses; not for hdfwriter's files.
        events_per_part: Number of events per part.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged or ambiguous, or lacks a table or column.
    """
    if events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    for name in ("pulses", "truth"):
        if isinstance(path := options.get(name), str):
            options[name] = path.strip("/") or "/"
    wanted, num_before = Wanted(**options), 0
    files: list[_File] = []
    for path in list_files(paths, HDF5_SUFFIXES):
        files.append(_look_at(path, wanted, offsets, num_before))
        num_before += files[-1].num_events
    first = files[0]
    for file in files:
        if file.told_by != first.told_by:
            raise ValueError(
                f"{first.path} and {file.path} have different layouts: pulses are "
                f"assigned to events by {first.told_by} and by {file.told_by}. Prepare "
                "them separately"
            )
    pulse_map = check_same_pulse_map({file.path: file.pulse_map for file in files})
    wanted = replace(wanted, pulse_map=pulse_map, event_column=first.key)
    tables = [file.pulses for file in files]
    labels = [file.events for file in files if file.events]
    if first.ranges:
        labels = [events for events in labels if events.rows]  # not of empty files
        for table in tables:
            columns, _ = choose_columns(table.types, pulse_map, wanted.keep)
            check_tables([table, *tables], columns, pulse_map)
        for table in labels:
            check_tables([table, *labels], [*table.types])
    selection = select(
        tables,
        labels if first.has_truth else [],
        wanted,
        events=labels,
        without=first.without,
    )
    parts: list[TablePart] = []
    notes = list[str]()
    for file in files:
        if file.ranges is None:
            parts.append(TablePart(**selection.part(file.pulses, file.events)))
            continue
        num_events, num_claimed = file.num_events, 0
        for low in range(0, num_events, events_per_part):
            rows = range(num_events)[low : low + events_per_part]
            pulses = file.pulses.between(rows.start, rows.stop)
            events = file.events and file.events.between(rows.start, rows.stop)
            which = f" (events {low} to {rows[-1]})" if len(rows) < num_events else ""
            name = f"{file.path}{which}"
            parts.append(TablePart(**selection.part(pulses, events, name=name)))
            num_claimed += int(file.ranges.read(rows)[1].sum())
        notes += file.notes(num_claimed)
    left_out = (*selection.left_out, *first.pulses.others)
    return selection.source("hdf5", parts, notes, left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class _File:
    """Tables of a file to read."""

    path: Path
    pulse_map: PulseMap
    pulses: H5Table  # with the event column
    events: H5Table | None  # one row per event, with the event column
    key: str  # the event column
    told_by: str  # how pulses are assigned to events, for messages
    has_truth: bool  # whether the events have columns of truth
    without: tuple[str, ...] = ()  # columns of the events that are not truth

    @property
    def ranges(self) -> Ranges | None:
        """Rows of the pulses of each event; None if pulses have an event column."""
        return self.pulses.ranges

    @property
    def num_events(self) -> int:
        """Number of rows of `events`."""
        return len(self.events.rows) if self.events else 0

    def notes(self, num_claimed: int) -> Iterator[str]:
        """Yield notes, given the number of pulses that belong to events."""
        are_frames = self.ranges and icetray.EXISTS in self.ranges.columns
        if self.told_by == COUNTED:
            what = "frames" if are_frames else "events"
            yield f"{self.path} has no event_id; the {what} are numbered from 0"
        # Frames without pulses have padding rows, which belong to no event.
        if not are_frames and num_claimed < (num_rows := len(self.pulses.rows)):
            yield (
                f"{self.path}: {num_rows - num_claimed} of {num_rows} pulses belong to "
                "no event and are left out"
            )


def _look_at(
    path: Path, wanted: Wanted, offsets: str | Sequence[str] | None, num_before: int
) -> _File:
    """Find the tables of a file; `num_before` events are in the files before."""
    place = str(path)
    found = find_tables(path)
    index = icetray.index_tables(found)
    if index and offsets is not None:
        raise ValueError(
            f"{place} is a file of icetray's hdfwriter, which has an index of the "
            "events. Leave --offsets-table (offsets_table) out"
        )
    # If several tables have one name, the longest is that of the pulses.
    found.sort(key=lambda table: len(table.rows))
    tables = {t.node: t for t in found if not t.node.startswith(icetray.INDEX)}
    candidates, recognise = tables, recognise_pulse_map
    if index:
        pulses_of_icetray = icetray.IcetrayPulses.of
        candidates = {n: pulses_of_icetray(tables[n]) for n in tables if n in index}
        recognise = icetray.recognise_pulses
    try:
        (name, *more), pulse_map = choose_pulses(candidates, place, wanted, recognise)
    except ValueError as error:
        raise ValueError(f"{error}{hint_at_pandas(path)}") from None
    if more:
        raise ValueError(
            f"{place}: HDF5 files need one table of pulses, got also "
            f"{', '.join(more)}. Name one"
        )
    pulses = candidates[name]
    key, ranges = "", None
    if not index and offsets is None:
        key = _find_key(found, pulses, wanted)
    if key:
        others = {n: t for n, t in tables.items() if key in t.types}
    elif index:
        icetray.check_detector(found, pulses, place)
        ranges = icetray.frame_ranges(index[name], len(pulses.rows))
        others = icetray.possible_truth(tables, wanted.truth, place)
    else:
        ranges = find_ranges(found, len(pulses.rows), offsets, place)
        others = _one_an_event(found, ranges.num_events, wanted.truth, place)
    others = {n: table for n, table in others.items() if table is not tables[name]}
    truth_name = choose_truth(others, place, wanted, pulse_map)
    truth = others[truth_name] if truth_name else None
    has_truth, without = truth is not None, tuple[str, ...]()
    told_by, events = f"column {key!r} of the pulses", truth
    if ranges is not None:
        if ranges.table is truth:
            without = tuple(ranges.columns.values())
        if index:
            truth, has_truth = icetray.frame_truth(ranges.table, truth), True
            others = {"": ranges.table}
        told_by, ids = WITH_ID, None
        if not index or wanted.event_column is not None:
            ids = _find_event_id([*others.values()], truth, wanted.event_column, place)
        if ids is None:
            told_by = COUNTED
            ids = EventNumbers.of(ranges.table, ranges.num_events, num_before)
        (key,) = ids.types
        events = truth.with_columns([key], ids) if truth else ids
        pulses = pulses.of_events(ranges, ids)
    return _File(
        path=path,
        pulse_map=pulse_map,
        pulses=pulses,
        events=events,
        key=key,
        told_by=told_by,
        has_truth=has_truth,
        without=without,
    )


def _find_key(tables: Sequence[H5Table], pulses: H5Table, wanted: Wanted) -> str:
    """Return the pulses' event column if there are no offsets, or ""."""
    names = [wanted.event_column] if wanted.event_column else EVENT_COLUMNS
    there = [column for column in names if column in pulses.types]
    return there[0] if there and not known_offsets(tables) else ""


def _one_an_event(
    tables: Sequence[H5Table], num_events: int, truth: str | bool | None, place: str
) -> dict[str, H5Table]:
    """Return the tables with one row per event; ValueError if the named one has not."""
    of_name = [len(table.rows) for table in tables if table.node == truth]
    if of_name and num_events not in of_name:
        raise ValueError(
            f"{place}, table {truth!r}: the truth must have {num_events} rows, one for "
            f"each event, found {of_name[0]}"
        )
    return {table.node: table for table in tables if len(table.rows) == num_events}


def _find_event_id(
    tables: Sequence[H5Table], truth: H5Table | None, wanted: str | None, place: str
) -> H5Table | None:
    """Return a table with the event_id only, or None if there is none."""
    first = [truth] if truth else []
    if wanted is None:
        there = [*first, *tables]
        found = [(t, c) for t in there for c in EVENT_COLUMNS if c in t.types]
    else:
        found = [(table, wanted) for table in first if wanted in table.types]
        found = found or [find_column(tables, wanted, place)]
    if not found:
        return None
    table, column = found[0]
    return replace(table, types={column: table.types[column]})
