"""Parquet files of one row a pulse: flat files, folders of them, and GraphNeT's.

GraphNeT's ParquetWriter makes a folder a table: `TABLE/FILE_TABLE.parquet` of each
file that it read; merged, `merged/TABLE/TABLE_CHUNK.parquet`, a file a chunk of
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.store.readers.columns import (
    NO_TRUTH,
    PathLike,
    Wanted,
    choose_tables,
    join_tables,
    list_files,
    numbered_files,
    settle_labels,
)
from graphnet_icecube2nd.store.readers.source import (
    PARQUET_SUFFIXES,
    EventChunk,
    Part,
    Source,
)
from graphnet_icecube2nd.store.readers.table_part import (
    NO_DIRECTIONS,
    TablePart,
    Truth,
    empty_note,
    select,
)
from graphnet_icecube2nd.store.readers.tables import (
    GREATEST,
    LEAST,
    ParquetTable,
    Table,
    no_values,
)
from graphnet_icecube2nd.tasks.catalogue import are_results

PART_ROWS = 2**24
MERGED = "merged"  # where ParquetWriter puts what it merged


def parquet_source(
    pulses: PathLike | Sequence[PathLike],
    truth: PathLike | Sequence[PathLike] | bool | None = None,
    *,
    part_rows: int = PART_ROWS,
    **options: Any,
) -> Source:
    """Open flat parquet files with files of truth; `Wanted` says the options.

    Where no truth is named, the files among `pulses` that have the angles of the truth
    and no pulses are it; others that have no pulses are left out. Each file is a part.
    One longer than `part_rows` is cut into several by ranges of event_ids, where its
    row groups are in the order of the ids and their statistics say so; an event is in
    one part, also if its rows are in two row groups.
    """
    wanted, notes = Wanted(**options), list[str]()
    tables = _tables(pulses)
    labels = [] if truth is None or isinstance(truth, bool) else _tables(truth)
    if len(tables) > 1 and not labels:
        tables, found, rest = _sorted(tables, wanted)
        labels = [] if truth is False else found
        others = [*rest, *(found if truth is False else ())]
        if others:
            names = ", ".join(table.path.name for table in others)
            notes.append(f"no pulses and no truth that is read, left out: {names}")
    selection = select(tables, labels, wanted)
    key = selection.event_column
    ranges = [(table, *cut) for table in tables for cut in _cut(table, key, part_rows)]
    parts: list[Part] = []
    for table, low, high, num_rows in ranges:
        part = TablePart(**selection.part(table, num_pulses=num_rows))
        if num_rows < table.num_rows:
            part.pulses, part.id_range = table.within(key, low, high), (low, high)
        # Which events have no pulses is known to no single part of several.
        part.with_empty = len(ranges) == 1
        parts.append(part)
    if selection.truth is None:
        return selection.source("parquet", parts, notes=(*notes, NO_DIRECTIONS))
    if len(ranges) > 1:
        rest_of = EmptyEventsPart(
            name=selection.truth.name,
            tables=tuple(tables),
            event_column=key,
            columns=selection.columns,
            truth=selection.truth,
        )
        parts.append(rest_of)
    return selection.source("parquet", parts, notes=(*notes, *selection.notes))


def _sorted(
    tables: Sequence[ParquetTable], wanted: Wanted
) -> tuple[list[ParquetTable], list[ParquetTable], list[ParquetTable]]:
    """Return the files of pulses, those of truth, and the rest, by their columns."""
    pulses = [table for table in tables if wanted.read_as(table.types)]
    if wanted.pulse_map is not None:
        time = wanted.pulse_map.time
        pulses = [table for table in tables if time in table.types]
    if not pulses:
        return [*tables], [], []  # the message is that of the first
    others = [table for table in tables if table not in pulses]
    pulse_map = wanted.read_as(pulses[0].types)
    assert pulse_map is not None
    pulse_map = settle_labels(pulse_map, [table.types for table in others])
    angles = {pulse_map.labels.azimuth, pulse_map.labels.zenith}
    truth = [
        table
        for table in others
        if angles <= {*table.types} and not are_results(table.types)
    ]
    return pulses, truth, [table for table in others if table not in truth]


@dataclass(kw_only=True, eq=False)
class EmptyEventsPart(Part):
    """The events of the truth that have pulses in none of several parts."""

    name: str  # for messages
    tables: tuple[Table, ...]  # all tables of pulses
    event_column: str  # their column of event_ids
    columns: tuple[str, ...]  # the pulse columns of the other parts
    truth: Truth
    num_pulses: int | None = 0
    for_threads = True

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield them, if there are any, as events with 0 pulses."""
        ids = [np.unique(i) for t in self.tables for _, i in t.ids(self.event_column)]
        known = self.truth.read(columns=())
        lost = np.setdiff1d(known.event_id, np.concatenate(ids))
        if not len(lost):
            return
        truth = self.truth.read((self.truth.event_column, int(lost[0]), int(lost[-1])))
        rows = np.flatnonzero(np.isin(truth.event_id, lost))
        types = self.tables[0].types
        yield EventChunk(
            columns={name: no_values(types[name]) for name in self.columns},
            offsets=np.zeros(len(rows) + 1, np.int64),
            event_id=truth.event_id[rows],
            truth={name: values[rows] for name, values in truth.columns.items()},
            truth_name=self.truth.name,
            notes=(empty_note(lost, self.truth.name, "the files of pulses"),),
        )


def _tables(given: PathLike | Sequence[PathLike]) -> list[ParquetTable]:
    files = list_files(given, PARQUET_SUFFIXES)
    return [ParquetTable(path=path, name=str(path)) for path in files]


def _cut(table: ParquetTable, key: str, part_rows: int) -> list[tuple[int, int, int]]:
    """Cut a file into ranges of event_ids of `part_rows` rows or more.

    A cut is after an id that none before a row group is greater than, and none from
    there on is less: rows of that very id may follow, and are read with those before.
    Returns least and greatest event_id of each range, and its rows, about.
    """
    bounds = [*table.bounds(key).values()]
    ends = np.array([pair for pair in bounds if pair is not None]).reshape(-1, 2)
    if len(ends) < len(bounds):  # of some groups, the file says nothing
        return [(LEAST, GREATEST, table.num_rows)]
    highest = np.maximum.accumulate(ends[:, 1])
    lowest = np.append(np.minimum.accumulate(ends[::-1, 0])[::-1][1:], GREATEST)
    ranges, low, num_rows = [], LEAST, 0
    for index, (_, group) in enumerate(table.row_groups()):
        num_rows += group.num_rows
        high = int(highest[index])
        if num_rows >= part_rows and low <= high <= lowest[index]:
            ranges.append((low, high, num_rows))
            low, num_rows = high + 1, 0
    if ranges and not num_rows:
        low, _, num_rows = ranges.pop()
    return [*ranges, (low, GREATEST, num_rows)]


def graphnet_tables(folder: Path) -> dict[str, dict[Any, Path]]:
    """Return the files of a folder of GraphNeT's by table, and by chunk or file."""
    if (folder / MERGED).is_dir():
        folder = folder / MERGED
    tables: dict[str, dict[Any, Path]] = {}
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        name, files = entry.name, dict[Any, Path](numbered_files(entry, entry.name))
        end = f"_{name}.parquet"
        if not files:
            paths = sorted(path for path in entry.iterdir() if path.name.endswith(end))
            files = {path.name.removesuffix(end): path for path in paths}
        if files:
            tables[name] = files
    return tables


def graphnet_parquet_source(folder: PathLike, **options: Any) -> Source:
    """Read a folder of GraphNeT's parquet files; `Wanted` says the options.

    The folder holds a folder for each table, or `merged/` that does. Events come chunk
    by chunk in the order of the files, pulses of an event in the order they were
    written. A row of truth without pulses is an event of no pulses, and comes after
    the others of its chunk.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    tables = {
        name: {key: ParquetTable(path=path, name=str(path)) for key, path in of.items()}
        for name, of in graphnet_tables(root).items()
    }
    firsts = {name: next(iter(files.values())) for name, files in tables.items()}
    if not firsts:
        raise ValueError(
            f"{root} holds no GraphNeT parquet, which would be "
            "<table>/<file>_<table>.parquet, or <table>/<table>_<chunk>.parquet, as "
            "ParquetWriter makes it"
        )
    wanted = Wanted(**{"event_column": "event_no", **options})
    pulses, truth, pulse_map = choose_tables(firsts, str(root), wanted)
    first, *others = (*pulses, *([truth] if truth else []))
    for one, other in ((first, name) for name in others):
        for name, partner in ((one, other), (other, one)):
            alone = [key for key in tables[name] if key not in tables[partner]]
            if alone:
                raise ValueError(
                    f"{tables[name][alone[0]].name} has no partner in {partner}/ (nor "
                    f"have {len(alone) - 1} more). Complete the copy, or do without "
                    f"truth: {NO_TRUTH}"
                )
    rows = {
        key: join_tables([tables[name][key] for name in pulses], pulse_map)
        for key in tables[first]
    }
    labels = tables[truth] if truth else {}
    selection = select(
        [*rows.values()], [*labels.values()], replace(wanted, pulse_map=pulse_map)
    )
    parts = [
        TablePart(**selection.part(table, labels.get(key)))
        for key, table in rows.items()
    ]
    return selection.source("graphnet-parquet", parts)
