"""HDF5: a flat table of pulses and where each event lies in it.

Three layouts are known. One has a table of pulses, a dataset of offsets (or columns of
first rows and numbers of pulses) and a table with one row an event. In another, pulses
and truth have a column of the event's number. The third is that of icetray's hdfwriter.
Shape letters: T pulses, B events.
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

# What says which event a pulse is of, where no column of the pulses does.
WITH_ID, COUNTED = "rows of each event", "rows of each event without event_id"


def hdf5_source(
    paths: PathLike | Sequence[PathLike],
    *,
    offsets: str | Sequence[str] | None = None,
    events_per_part: int = 100_000,
    **options: Any,
) -> Source:
    """Read HDF5 files; `Wanted` says the further options.

    Events and pulses come in the order of the file. Tables are named by their path,
    such as `pulses` or `events/truth`; a table is a compound dataset, or a group of
    columns. `offsets` is the path of the B + 1 borders of events in the table of
    pulses, or paths of first rows and numbers of pulses; it is not for hdfwriter's
    files, whose truth is by default the table called as the primary is (`MCPrimary`).
    `event_column` is a column of the truth, or a path; events are counted where there
    is none. Without offsets it joins pulses and truth that both have it.
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
                f"{first.path} and {file.path} say otherwise which event a pulse is "
                f"of, by {first.told_by} and by {file.told_by}; read them one by one"
            )
    pulse_map = check_same_pulse_map({file.path: file.pulse_map for file in files})
    wanted = replace(wanted, pulse_map=pulse_map, event_column=first.key)
    tables = [file.pulses for file in files]
    labels = [file.events for file in files if file.events]
    if first.ranges:
        labels = [events for events in labels if events.rows]  # a file may have none
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
    notes = list(selection.notes)
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
    return selection.source("hdf5", parts, left_out=left_out, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class _File:
    """What is read of a file."""

    path: Path
    pulse_map: PulseMap
    pulses: H5Table  # with the event column
    events: H5Table | None  # one row an event, with the event column
    key: str  # the event column
    told_by: str  # what says which event a pulse is of
    has_truth: bool  # whether the events have columns of truth
    without: tuple[str, ...] = ()  # columns of theirs that are none

    @property
    def ranges(self) -> Ranges | None:
        """Where the pulses of events lie; None where a column tells."""
        return self.pulses.ranges

    @property
    def num_events(self) -> int:
        """Number of rows of `events`."""
        return len(self.events.rows) if self.events else 0

    def notes(self, num_claimed: int) -> Iterator[str]:
        """Yield what there is to say if so many pulses belong to events."""
        are_frames = self.ranges and icetray.EXISTS in self.ranges.columns
        if self.told_by == COUNTED:
            what = "frames" if are_frames else "events"
            yield f"{self.path}: no event_id; the {what} are counted from 0"
        # Frames without pulses are padded with rows of no event.
        if not are_frames and num_claimed < (num_rows := len(self.pulses.rows)):
            yield (
                f"{self.path}: {num_rows - num_claimed} of {num_rows} pulses belong to "
                "no event; left out"
            )


def _look_at(
    path: Path, wanted: Wanted, offsets: str | Sequence[str] | None, num_before: int
) -> _File:
    """Find what is to be read of a file; so many events are in those before."""
    place = str(path)
    found = find_tables(path)
    index = icetray.index_tables(found)
    if index and offsets is not None:
        raise ValueError(
            f"{place} is of icetray's hdfwriter, which says itself where events "
            "lie; give no offsets"
        )
    # Of several tables of one name, that of the pulses is the longest.
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
            f"{place}: of HDF5 one table of pulses is read, not {more} too"
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
    """Return the pulses' event column where no table says where events lie; or ""."""
    names = [wanted.event_column] if wanted.event_column else EVENT_COLUMNS
    there = [column for column in names if column in pulses.types]
    return there[0] if there and not known_offsets(tables) else ""


def _one_an_event(
    tables: Sequence[H5Table], num_events: int, truth: str | bool | None, place: str
) -> dict[str, H5Table]:
    """Return the tables with one row an event, the wanted one among them."""
    of_name = [len(table.rows) for table in tables if table.node == truth]
    if of_name and num_events not in of_name:
        raise ValueError(
            f"{place}, table {truth!r}: {of_name[0]} rows for {num_events} events; "
            "truth has one row an event"
        )
    return {table.node: table for table in tables if len(table.rows) == num_events}


def _find_event_id(
    tables: Sequence[H5Table], truth: H5Table | None, wanted: str | None, place: str
) -> H5Table | None:
    """Return the table of the event_id, with no other column; None if there is none."""
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
