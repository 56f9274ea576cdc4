"""HDF5: a flat table of pulses and where each event lies in it.

Three layouts are known. One has a table of pulses, a dataset of offsets (or columns of
first rows and numbers of pulses) and a table with one row an event. In another, pulses
and truth have a column of the event's number. The third is that of icetray's hdfwriter.
Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    H5Table,
    Ranges,
    find_column,
    find_ranges,
    find_tables,
    hint_at_pandas,
    known_offsets,
)
from graphnet_icecube2nd.store.readers.source import HDF5_SUFFIXES, Source
from graphnet_icecube2nd.store.readers.table_part import (
    Layout,
    TablePart,
    TruthRows,
    select,
)


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
    wanted = Wanted(**options)
    paths = list_files(paths, HDF5_SUFFIXES)
    files = [_look_at(path, wanted, offsets) for path in paths]
    pulse_map = check_same_pulse_map({file.path: file.pulse_map for file in files})
    wanted = replace(wanted, pulse_map=pulse_map)
    if any(file.ranges is None for file in files):
        return _joined(files, wanted)
    tables = [file.pulses for file in files]
    truths = [file.truth for file in files if file.truth is not None]
    for file in files:
        if (files[0].event_id is None) != (file.event_id is None):
            raise ValueError(
                f"{files[0].path} and {file.path}: only one of them has an event_id; "
                "read them one by one"
            )
        columns, _ = choose_columns(file.pulses.types, pulse_map, wanted.keep)
        check_tables([file.pulses, *tables], columns, pulse_map)
    for truth in truths:
        check_tables([truth, *truths], [*truth.types])
    without = files[0].without
    selection = select(tables, truths, wanted, is_joined=False, without=without)
    parts: list[H5Part] = []
    notes = list(selection.notes)
    first_number = 0
    for file in files:
        assert file.ranges is not None
        num_events, num_rows = file.ranges.num_events, file.pulses.num_rows
        num_claimed = 0
        for low in range(0, num_events, events_per_part):
            high = min(low + events_per_part, num_events)
            first, count = file.ranges.read(low, high)
            num_claimed += int(count.sum())
            rows = file.pulses.between(int(first[0]), int(first[-1] + count[-1]))
            truth_rows = file.truth and file.truth.between(low, high)
            part = H5Part(
                **selection.part(rows, truth_rows, num_pulses=None),
                ranges=file.ranges,
                events=range(low, high),
                first_number=first_number,
                event_id=file.event_id,
            )
            part.name = str(file.path)
            if high - low < num_events:
                part.name += f" (events {low} to {high - 1})"
            parts.append(part)
        first_number += num_events
        if file.event_id is None:
            what = "frames" if file.is_icetray else "events"
            notes.append(f"{file.path}: no event_id; the {what} are counted from 0")
        if not file.is_icetray and num_claimed < num_rows:
            notes.append(
                f"{file.path}: {num_rows - num_claimed} of {num_rows} pulses belong to "
                "no event; left out"
            )
    left_out = (*selection.left_out, *tables[0].others)
    return selection.source("hdf5", parts, left_out=left_out, notes=tuple(notes))


def _joined(files: Sequence[_File], wanted: Wanted) -> Source:
    """Return files whose pulses and truth an event column joins, one part each."""
    if {file.key for file in files} != {files[0].key} or files[0].ranges:
        lost = next(f for f in files if f.ranges or f.key != files[0].key)
        raise ValueError(
            f"{files[0].path} and {lost.path} say otherwise which event a pulse is of; "
            "read them one by one"
        )
    tables = [file.pulses for file in files]
    truths = [file.truth for file in files if file.truth is not None]
    selection = select(tables, truths, replace(wanted, event_column=files[0].key))
    parts = [TablePart(**selection.part(f.pulses, f.truth)) for f in files]
    left_out = (*selection.left_out, *tables[0].others)
    return selection.source("hdf5", parts, left_out=left_out)


@dataclass(kw_only=True, eq=False)
class H5Part(TablePart):
    """A range of events of a file."""

    ranges: Ranges
    events: range  # counted from 0 in the file
    first_number: int  # events in the files before, where events are counted
    # Table and column of the event_id; None counts the events.
    event_id: tuple[H5Table, str] | None

    def layout(self) -> Layout:
        """Return where the rows of each event lie."""
        low, high = self.events.start, self.events.stop
        first, count = self.ranges.read(low, high)
        event_id = self.first_number + np.arange(low, high)
        if self.event_id is not None:
            table, column = self.event_id
            values = table.between(low, high).whole([column])[column]
            event_id = table.as_ids(values, column, low)
        return Layout(event_id=event_id, first=first - first[0], num_pulses=count)

    def read_truth(
        self, event_id: NDArray[np.int64]
    ) -> tuple[TruthRows, NDArray[np.int64]] | None:
        """Return the rows of truth, which are those of the events one by one."""
        if self.truth is None:
            return None
        truth = replace(self.truth.read(), event_id=event_id)
        return truth, np.arange(len(event_id))


@dataclass(frozen=True, kw_only=True)
class _File:
    """What is read of a file."""

    path: Path
    pulses: H5Table
    pulse_map: PulseMap
    ranges: Ranges | None  # None where the column `key` tells the events
    key: str
    truth: H5Table | None
    without: tuple[str, ...]  # columns of it that are no truth
    event_id: tuple[H5Table, str] | None
    is_icetray: bool


def _look_at(path: Path, wanted: Wanted, offsets: str | Sequence[str] | None) -> _File:
    """Find what is to be read of a file."""
    place = str(path)
    found = find_tables(path)
    index = icetray.index_tables(found)
    if index and offsets is not None:
        raise ValueError(
            f"{place} is of icetray's hdfwriter, which says itself where events "
            "lie; give no offsets"
        )
    # Of several tables of one name, that of the pulses is the longest.
    found.sort(key=lambda table: table.num_rows)
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
    key = "" if index or offsets is not None else _find_key(found, pulses, wanted)
    if key:
        others = {n: t for n, t in tables.items() if key in t.types}
        others = {n: table for n, table in others.items() if table is not pulses}
        truth_name = choose_truth(others, place, wanted, pulse_map)
        return _File(
            path=path,
            pulses=pulses,
            pulse_map=pulse_map,
            ranges=None,
            key=key,
            truth=others[truth_name] if truth_name else None,
            without=(),
            event_id=None,
            is_icetray=False,
        )
    if index:
        icetray.check_detector(found, pulses, place)
        ranges = icetray.frame_ranges(index[name], pulses.num_rows)
        others = icetray.possible_truth(tables, wanted.truth, place)
    else:
        ranges = find_ranges(found, pulses.num_rows, offsets, place)
        others = _one_an_event(found, ranges.num_events, wanted.truth, place)
    others = {n: table for n, table in others.items() if table is not tables[name]}
    truth_name = choose_truth(others, place, wanted, pulse_map)
    truth = others[truth_name] if truth_name else None
    event_id, without = None, list[str]()
    if not index:
        event_id = _find_event_id([*others.values()], truth, wanted.event_column, place)
        if event_id and event_id[0] is truth:
            without.append(event_id[1])
        if ranges.table is truth:
            without += ranges.columns.values()
    elif wanted.event_column is not None:
        event_id = _find_event_id([ranges.table], truth, wanted.event_column, place)
    return _File(
        path=path,
        pulses=pulses,
        pulse_map=pulse_map,
        ranges=ranges,
        key="",
        truth=icetray.frame_truth(ranges.table, truth) if index else truth,
        without=tuple(without),
        event_id=event_id,
        is_icetray=bool(index),
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
    of_name = [table.num_rows for table in tables if table.node == truth]
    if of_name and num_events not in of_name:
        raise ValueError(
            f"{place}, table {truth!r}: {of_name[0]} rows for {num_events} events; "
            "truth has one row an event"
        )
    return {table.node: table for table in tables if table.num_rows == num_events}


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
