"""HDF5 files: a flat table of pulses, and the rows of each event in it.

There are three layouts. The first has a table of pulses, a dataset of offsets (or
columns of first rows and numbers of pulses) and a table with one row per event. In the
second, pulses and truth have a column of the event number.

The third is that of icetray's hdfwriter. Each object of a frame is a compound table in
the root that begins with the columns Run, Event, SubEvent, SubEventStream, exists.
Pulses have one row each; the table of the same name in `__I3Index__` has one row per
frame with start and stop, and padding rows for frames without the object. An object
with one row per frame has padding itself, so row i is frame i. The source is icetray's
tableio, `I3Table.cxx` and `I3TableService.cxx`. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.conventions import CHARGE, HLC, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import WEIGHT_TABLES
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    NO_TRUTH,
    ChosenTables,
    FileTables,
    PathLike,
    Wanted,
    check_tables,
    choose_columns,
    list_files,
    same_pulse_map,
)
from graphnet_icecube2nd.store.readers.hdf5_tables import (
    EXISTS,
    FIRST,
    MADE_OF,
    STOP,
    H5Table,
    find_column,
    find_rows,
    find_tables,
    hint_at_pandas,
    known_offsets,
)
from graphnet_icecube2nd.store.readers.source import SUFFIXES, Source
from graphnet_icecube2nd.store.readers.table_part import TablePart, select

# How the events of pulses are known if pulses have no event column.
WITH_ID, COUNTED = "rows of each event", "rows of each event without event_id"
# Names of icetray's hdfwriter.
INDEX = "__I3Index__/"
FRAME = ("Run", "Event", "SubEvent", "SubEventStream")
HEADER = (*FRAME, "exists")
PRIMARIES = ("MCPrimary", "I3MCPrimary", "MCPrimary1", "MCInIcePrimary")


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
    wanted, num_before, files = Wanted(**options), 0, list[_File]()
    for path in list_files(paths, SUFFIXES["hdf5"]):
        files.append(_look_at(path, wanted, offsets, num_before))
        num_before += len(files[-1].truth.rows) if files[-1].truth else 0
    first = files[0]
    for file in files:
        if file.told_by != first.told_by:
            raise ValueError(
                f"{first.place} and {file.place} have different layouts: pulses are "
                f"assigned to events by {first.told_by} and by {file.told_by}. Prepare "
                "them separately"
            )
    pulse_map = same_pulse_map(files)
    wanted = replace(wanted, pulse_map=pulse_map, event_column=first.key)
    tables = [file.pulses for file in files]
    labels = [file.truth for file in files if file.truth]
    if first.pulses.events:
        labels = [events for events in labels if events.rows]  # not of empty files
        for table in tables:
            columns, _ = choose_columns(table.types, pulse_map, wanted.keep)
            for pair in ([tables[0], table], [table, tables[0]]):
                check_tables(pair, columns, pulse_map)
        for table in labels:
            for pair in ([labels[0], table], [table, labels[0]]):
                check_tables(pair, [*pair[0].types])
    source, part = select(
        "hdf5",
        tables,
        labels if first.has_truth else [],
        wanted,
        events=labels,
        without=first.without,
    )
    parts, notes = list[TablePart](), list[str]()
    for file in files:
        num_events = len(file.truth.rows) if file.truth else 0
        if file.pulses.events is None:
            parts.append(part.of(file.pulses, file.truth))
            continue
        num_used = 0
        for low in range(0, num_events, events_per_part):
            rows = range(num_events)[low : low + events_per_part]
            some = (rows.start, rows.stop)
            which = f" (events {low} to {rows[-1]})" if len(rows) < num_events else ""
            of_rows = part.of(
                file.pulses.between(*some),
                file.truth and file.truth.between(*some),
                name=f"{file.place}{which}",
            )
            parts.append(of_rows)
            # With the event before, so that an overlap is found across the border.
            before = min(low, 1)
            *_, count = file.pulses.between(low - before, rows.stop).runs(file.key)
            num_used += int(count[before:].sum())
        notes += file.notes
        if file.told_by == COUNTED:
            what = "frames" if file.of_icetray else "events"
            notes.append(
                f"{file.place} has no event_id; the {what} are numbered from 0"
            )
        num_rows = len(file.pulses.rows)
        lost = num_rows - num_used
        # Frames without pulses have padding rows, which belong to no event.
        if lost and not file.of_icetray:
            notes.append(
                f"{file.place}: {lost} of {num_rows} pulses belong to no event and are "
                "left out"
            )
    left_out = (*source.left_out, *first.pulses.others)
    notes = [*notes, *source.notes]
    return replace(source, parts=parts, notes=tuple(notes), left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class _File(ChosenTables):
    """Tables of a file to read, both with the event column."""

    pulses: H5Table
    truth: H5Table | None  # or only the event column, if there is no truth
    key: str  # the event column
    told_by: str  # how pulses are assigned to events, for messages
    has_truth: bool  # whether the events have columns of truth
    without: tuple[str, ...] = ()  # columns of the events that are not truth
    of_icetray: bool = False
    notes: tuple[str, ...] = ()


def _look_at(
    path: Path, wanted: Wanted, offsets: str | Sequence[str] | None, num_before: int
) -> _File:
    """Find the tables of a file; `num_before` events are in the files before."""
    place, found = str(path), find_tables(path)
    # If several tables have one name, the longest is that of the pulses.
    tables = {t.node: t for t in found if not t.node.startswith(INDEX)}
    index = {
        table.node.removeprefix(INDEX): table
        for table in found
        if table.node.startswith(INDEX)
        and {*FRAME[:2], "exists", "start", "stop"} <= {*table.types}
    }
    if index and offsets is not None:
        raise ValueError(
            f"{place} is a file of icetray's hdfwriter, which has an index of the "
            "events. Leave --offsets-table (offsets_table) out"
        )
    among = FileTables(tables=tables, place=place, wanted=wanted)
    if index:
        computed = {n: _with_computed(t) for n, t in tables.items() if n in index}
        among = replace(among, tables=computed, recognise=_recognise_icetray)
    try:
        (name,), pulse_map = among.find_pulses(several=False)
    except ValueError as error:
        raise ValueError(f"{error}{hint_at_pandas(path)}") from None
    pulses, key, rows = (computed if index else tables)[name], "", None
    if not index and offsets is None:
        key = _find_key(found, pulses, wanted)
    if key:
        others = {n: table for n, table in tables.items() if key in table.types}
    elif index:
        _check_detector(tables, pulses, place)
        table = index[name]
        rows = table.only({FIRST: "start", STOP: "stop", EXISTS: "exists"})
        others = _possible_truth(tables, wanted.truth, place)
    else:
        table, rows = find_rows(found, offsets, place)
        others = _one_an_event(found, len(rows.rows), wanted.truth, place)
    others = {n: table for n, table in others.items() if table is not tables[name]}
    truth_name = replace(among, tables=others).find_truth(pulse_map)
    truth = others[truth_name] if truth_name else None
    if rows is None:
        return _File(
            place=place,
            pulse_map=pulse_map,
            pulses=pulses,
            truth=truth,
            key=key,
            told_by=f"column {key!r} of the pulses",
            has_truth=truth is not None,
        )
    used = [place[:2] for place in rows.places.values()] if truth is table else []
    without = tuple(c for c, place in table.places.items() if place[:2] in used)
    has_truth = bool(truth or index)
    notes = list[str]()
    if index:
        weights = [tables[name] for name in WEIGHT_TABLES if name in tables]
        truth, others = _frame_truth(table, truth, weights, notes), {"": table}
    ids = None
    if not index or wanted.event_column is not None:
        ids = _find_event_id([*others.values()], truth, wanted.event_column, place)
    told_by = WITH_ID if ids else COUNTED
    if ids is None:
        types = {EVENT_COLUMNS[0]: import_pyarrow().int64()}
        ids = replace(rows, types=types, places={}, first_id=num_before)
    return _File(
        place=place,
        pulse_map=pulse_map,
        pulses=replace(
            pulses, types={**pulses.types, **ids.types}, events=rows.beside(ids)
        ),
        truth=truth.beside(ids) if truth else ids,
        key=next(iter(ids.types)),
        told_by=told_by,
        has_truth=has_truth,
        without=without,
        of_icetray=bool(index),
        notes=tuple(notes),
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
    return next((table.only({column: column}) for table, column in found), None)


def _with_computed(table: H5Table) -> H5Table:
    """Return icetray's pulses with sensor_id and hlc, without columns of the frame."""
    pa, types = import_pyarrow(), _without_header(table.types)
    computed = {SENSOR_ID: pa.int64(), HLC: pa.uint8()}
    if {X, Y, Z} <= types.keys():
        del computed[SENSOR_ID]
    for column, kind in computed.items():
        if column not in types and {*MADE_OF[column]} <= types.keys():
            types[column] = kind
    return replace(table, types=types)


def _recognise_icetray(columns: Collection[str]) -> PulseMap | None:
    """Return the pulse map of columns, computed ones included, or None."""
    placed = {X, Y, Z} <= set(columns)
    if not {TIME, CHARGE} <= set(columns) or not (placed or SENSOR_ID in columns):
        return None
    return PulseMap(
        name="icetray",
        x=X if placed else None,
        y=Y if placed else None,
        z=Z if placed else None,
        sensor_id=None if placed else SENSOR_ID,
        charge=CHARGE,
        hlc=HLC if HLC in columns else None,
    )


def _check_detector(tables: Collection[str], pulses: H5Table, place: str) -> None:
    """Check that pulses without positions are those of IceCube, not of ANTARES."""
    of_antares = [name for name in tables if name.startswith("Ant")]
    if of_antares and not {X, Y, Z} <= set(pulses.types):
        raise ValueError(
            f"{place} has {of_antares[0]}, a table of ANTARES, but its pulses have "
            "only string and om, which are read as those of IceCube-86. Let hdfwriter "
            "also write x, y, z of the modules, and give --detector or --geometry"
        )


def _possible_truth(
    tables: Mapping[str, H5Table], wanted: str | bool | None, place: str
) -> dict[str, H5Table]:
    """Return the tables that may be the truth: by default those of primaries.

    Reconstructions have angles too, but are not truth.
    """
    if wanted is not None:
        return dict(tables)
    primaries = {name: table for name, table in tables.items() if name in PRIMARIES}
    if not primaries:
        raise ValueError(
            f"{place} has no table {' or '.join(PRIMARIES)}; it has "
            f"{', '.join(tables) or 'no other'}. Name the table of truth: "
            f"--truth-table (truth_table=...), or leave truth out: {NO_TRUTH}"
        )
    return primaries


def _frame_truth(
    index: H5Table,
    truth: H5Table | None,
    weights: Sequence[H5Table],
    notes: list[str],
) -> H5Table:
    """Return a table of truth with the columns of the frame, or only these.

    The truth has the columns of the tables of weights, too, with the name of the table
    before them. Tables of weights of other frames are left out, with one of `notes`.
    """
    frame = index.only({column: column for column in FRAME if column in index.types})
    if truth is None:
        return frame
    for table in (truth, *weights):
        shared = [column for column in frame.types if column in table.types]
        fits = len(table.rows) == len(index.rows)
        if fits:
            ours, theirs = frame.whole(shared), table.whole(shared)
            fits = all(np.array_equal(ours[c], theirs[c]) for c in shared)
        found = (
            f"one row for each of the {len(index.rows)} frames of {index.node!r}, in "
            f"the same order; it has {len(table.rows)} rows"
        )
        if not fits and table is truth:
            raise ValueError(
                f"{table.name} must have {found}. Name another table: --truth-table "
                f"(truth_table=...), or leave truth out: {NO_TRUTH}"
            )
        if not fits:
            notes.append(f"{table.name} is left out: it must have {found}")
            continue
        if table is not truth:
            names = _without_header(table.types)
            if "exists" in table.types and not table.whole(["exists"])["exists"].all():
                names["exists"] = table.types["exists"]
            frame = frame.beside(table.only({f"{table.node}_{n}": n for n in names}))
    if "exists" in truth.types:
        exists = truth.whole(["exists"])["exists"] != 0
        if not exists.all():
            raise ValueError(
                f"{truth.name}: event {int(exists.argmin())} (counted from 0) has no "
                f"truth. Remove such events, or leave truth out: {NO_TRUTH}"
            )
    return replace(truth, types=_without_header(truth.types)).beside(frame)


def _without_header(types: Mapping[str, Any]) -> dict[str, Any]:
    return {column: kind for column, kind in types.items() if column not in HEADER}
