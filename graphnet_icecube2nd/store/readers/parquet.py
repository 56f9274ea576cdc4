"""Parquet files with one row per pulse: flat files, and folders of GraphNeT.

GraphNeT's ParquetWriter makes one folder per table, `TABLE/FILE_TABLE.parquet` for each
file that it reads, or merged, `merged/TABLE/TABLE_CHUNK.parquet` for each chunk of
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
    FileTables,
    PathLike,
    Wanted,
    list_files,
    numbered_files,
    settle_labels,
)
from graphnet_icecube2nd.store.readers.source import (
    SUFFIXES,
    EventChunk,
    Part,
    Source,
)
from graphnet_icecube2nd.store.readers.table_part import (
    Truth,
    empty_note,
    select,
    select_of_files,
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
MERGED = "merged"  # folder of ParquetWriter's merged files


def parquet_source(
    pulses: PathLike | Sequence[PathLike],
    truth: PathLike | Sequence[PathLike] | bool | None = None,
    *,
    part_rows: int = PART_ROWS,
    **options: Any,
) -> Source:
    """Open flat parquet files of pulses and of truth as a source.

    A file longer than `part_rows` is split into parts by ranges of event_ids, if its
    row groups are in the order of the ids and have statistics; other files are one part
    each. All pulses of an event are in one part.

    Args:
        pulses: Files or folders of pulses.
        truth: Files of truth; False reads no truth. Default: those of `pulses` that
            have angles but no pulses; other files without pulses are left out.
        part_rows: Number of rows per part.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged or lacks a column.
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
            notes.append(
                f"files without pulses, and truth that is not read, are left out: "
                f"{names}"
            )
    source, example = select("parquet", tables, labels, wanted)
    key, truth_of = example.event_column, example.truth
    ranges = [(table, *cut) for table in tables for cut in _cut(table, key, part_rows)]
    parts: list[Part] = []
    for table, low, high, num_rows in ranges:
        part = example.of(table, num_pulses=num_rows)
        if num_rows < table.num_rows:
            part.pulses, part.id_range = table.within(key, low, high), (low, high)
        # A part of several does not know which events have no pulses.
        part.with_empty = len(ranges) == 1
        parts.append(part)
    if truth_of is not None and len(ranges) > 1:
        rest_of = EmptyEventsPart(
            name=truth_of.name,
            tables=tuple(tables),
            event_column=key,
            columns=source.pulse_columns,
            truth=truth_of,
        )
        parts.append(rest_of)
    return replace(source, parts=parts, notes=(*notes, *source.notes))


def _sorted(
    tables: Sequence[ParquetTable], wanted: Wanted
) -> tuple[list[ParquetTable], list[ParquetTable], list[ParquetTable]]:
    """Return the files of pulses, of truth, and the others, by their columns."""
    pulses = [table for table in tables if wanted.read_as(table.types)]
    if wanted.pulse_map is not None:
        time = wanted.pulse_map.time
        pulses = [table for table in tables if time in table.types]
    if not pulses:
        return [*tables], [], []  # the error is that of the first file
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
    """Events of the truth that have no pulses in any part."""

    name: str  # for messages
    tables: tuple[Table, ...]  # all tables of pulses
    event_column: str  # their column of event_ids
    columns: tuple[str, ...]  # the pulse columns of the other parts
    truth: Truth
    num_pulses: int | None = 0
    for_threads = True

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield these events, if there are any, with 0 pulses."""
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
    files = list_files(given, SUFFIXES["parquet"])
    return [ParquetTable(path=path, name=str(path)) for path in files]


def _cut(table: ParquetTable, key: str, part_rows: int) -> list[tuple[int, int, int]]:
    """Cut a file into ranges of event_ids with `part_rows` rows or more.

    A cut between two row groups is allowed at an id if no id before is greater and no
    id after is less; further rows of this id are read with those before the cut. Return
    least and greatest event_id of each range, and its approximate number of rows.
    """
    groups = table.row_groups(key)
    highest = np.maximum.accumulate([group.high for group in groups])
    lowest = np.minimum.accumulate([GREATEST, *(g.low for g in groups[:0:-1])])[::-1]
    ranges, low, num_rows = list[tuple[int, int, int]](), LEAST, 0
    for group, high, least in zip(groups, highest.tolist(), lowest, strict=True):
        num_rows += group.num_rows
        if num_rows >= part_rows and low <= high <= least:
            ranges.append((low, high, num_rows))
            low, num_rows = high + 1, 0
    if ranges and not num_rows:
        low, _, num_rows = ranges.pop()
    return [*ranges, (low, GREATEST, num_rows)]


def graphnet_tables(folder: Path) -> dict[str, dict[Any, Path]]:
    """Return the files of GraphNeT's folder by table, and by chunk or file."""
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
    """Open a folder of GraphNeT's parquet files as a source.

    Events and pulses have the order of the files, chunk by chunk; events without pulses
    are the last of their chunk.

    Args:
        folder: Folder with one folder per table, or with `merged/`.
        **options: Options of `Wanted`.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: A file is damaged or missing, or lacks a column.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    tables = {
        name: {key: ParquetTable(path=path, name=str(path)) for key, path in of.items()}
        for name, of in graphnet_tables(root).items()
    }
    firsts = {name: next(iter(files.values())) for name, files in tables.items()}
    if not firsts:
        raise ValueError(
            f"{root} must have files of GraphNeT's ParquetWriter, "
            "<table>/<file>_<table>.parquet or <table>/<table>_<chunk>.parquet, found "
            "none"
        )
    wanted = Wanted(**{"event_column": "event_no", **options})
    names = FileTables(tables=firsts, place=str(root), wanted=wanted).find_both().names
    for one, other in ((names[0], name) for name in names[1:]):
        for name, partner in ((one, other), (other, one)):
            alone = [key for key in tables[name] if key not in tables[partner]]
            if alone:
                raise ValueError(
                    f"{tables[name][alone[0]].name} has no partner in {partner}/ "
                    f"({len(alone)} of {len(tables[name])} files have none). Complete "
                    f"the copy, or leave truth out: {NO_TRUTH}"
                )
    files = [
        FileTables(
            tables={name: tables[name][key] for name in names},
            place=str(root),
            wanted=wanted,
        ).find_both()
        for key in tables[names[0]]
    ]
    source, part = select_of_files("graphnet-parquet", files, wanted)
    return replace(source, parts=[part.of(file.pulses, file.truth) for file in files])
