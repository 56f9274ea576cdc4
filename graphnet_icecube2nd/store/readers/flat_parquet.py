"""Flat parquet files: one row a pulse, and files of truth with one row an event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.arrow_values import no_values
from graphnet_icecube2nd.store.readers.columns import Keep, PathLike, list_files
from graphnet_icecube2nd.store.readers.flat_part import (
    FlatPart,
    choose_pulse_columns,
    empty_note,
)
from graphnet_icecube2nd.store.readers.rows import ParquetRows, Rows
from graphnet_icecube2nd.store.readers.source import (
    PARQUET_SUFFIXES,
    EventChunk,
    Part,
    Source,
)
from graphnet_icecube2nd.store.readers.truth import NO_DIRECTIONS, Truth, open_truth

PART_ROWS = 2**24
_LEAST, _GREATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def parquet_source(
    pulses: PathLike | Sequence[PathLike],
    truth: PathLike | Sequence[PathLike] | bool | None = None,
    *,
    pulse_map: PulseMap | None = None,
    event_column: str | None = None,
    keep: Keep = (),
    part_rows: int = PART_ROWS,
) -> Source:
    """Open flat parquet files.

    Each file is a part. A long one is cut into several by ranges of event_ids, where
    its row groups are in the order of the ids and their statistics say so; an event is
    in one part, also if its rows are in two row groups.

    Args:
        pulses: File or files of pulses, or folders of such.
        truth: File or files of truth, or folders of such; None or False for none.
        pulse_map: What the columns mean; default: recognised by their names.
        event_column: The event key of both; default `event_id` or `event_no`.
        keep: Further pulse columns to keep, or `all`.
        part_rows: Rows after which a file is cut.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is damaged or empty, or a column is missing.
    """
    tables = _tables(pulses)
    columns = choose_pulse_columns(tables, pulse_map, event_column, keep)
    left_out = columns.left_out
    notes: tuple[str, ...] = (NO_DIRECTIONS,)
    labels = None
    if truth is not None and not isinstance(truth, bool):
        labels, truth_left_out, notes = open_truth(
            _tables(truth),
            columns.pulse_map,
            event_column=event_column,
            like=columns.event_column,
        )
        left_out += truth_left_out
    flat_parts: list[FlatPart] = []
    for rows in tables:
        ranges = _cut(rows, columns.event_column, part_rows)
        for low, high, num_rows in ranges:
            part = columns.part(rows, truth=labels, num_pulses=num_rows)
            if len(ranges) > 1:
                part.rows = rows.within(columns.event_column, low, high)
                part.id_range = low, high
            flat_parts.append(part)
    parts: list[Part] = list(flat_parts)
    if labels is not None and len(flat_parts) > 1:
        # Which events have no pulses is known to no single part.
        for part in flat_parts:
            part.with_empty = False
        rest = EmptyEventsPart(
            name=labels.name,
            tables=tuple(tables),
            event_column=columns.event_column,
            columns=columns.taken,
            truth=labels,
        )
        parts.append(rest)
    return Source(
        kind="parquet",
        pulse_map=columns.pulse_map,
        parts=parts,
        pulse_columns=columns.taken,
        left_out=left_out,
        notes=notes,
    )


@dataclass(kw_only=True, eq=False)
class EmptyEventsPart(Part):
    """The events of the truth that have pulses in none of several parts."""

    name: str  # for messages
    tables: tuple[Rows, ...]  # all tables of pulses
    event_column: str  # Their column of event_ids
    columns: tuple[str, ...]  # the pulse columns of the other parts
    truth: Truth  # where the truth is
    num_pulses: int | None = 0

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return {
            "tables": [rows.fingerprint() for rows in self.tables],
            "columns": list(self.columns),
            "truth": self.truth.fingerprint(),
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield them, if there are any, as events with 0 pulses."""
        pieces = [
            np.unique(ids)
            for rows in self.tables
            for _, ids in rows.ids(self.event_column)
        ]
        table = self.truth.read(columns=())
        lost = np.setdiff1d(table.event_id, np.concatenate(pieces))
        if not len(lost):
            return
        ends = int(lost[0]), int(lost[-1])
        table = self.truth.read((self.truth.event_column, *ends))
        rows = np.flatnonzero(np.isin(table.event_id, lost))
        types = self.tables[0].types
        yield EventChunk(
            columns={name: no_values(types[name]) for name in self.columns},
            offsets=np.zeros(len(rows) + 1, np.int64),
            event_id=table.event_id[rows],
            truth=table.take(rows),
            notes=(empty_note(lost, table.name, "the files of pulses"),),
        )


def _tables(given: PathLike | Sequence[PathLike]) -> list[ParquetRows]:
    return [
        ParquetRows(path=path, name=str(path))
        for path in list_files(given, PARQUET_SUFFIXES)
    ]


def _cut(
    rows: ParquetRows, event_column: str, part_rows: int
) -> list[tuple[int, int, int]]:
    """Cut a file into ranges of event_ids of `part_rows` rows or more.

    A cut is after an id that none before a row group is greater than, and none from
    there on is less: rows of that very id may follow, and are read with those before.

    Returns:
        Least and greatest event_id of each range, and its rows, about.
    """
    sizes = [group.num_rows for group in rows.row_groups()]
    bounds = rows.bounds(event_column)
    ends = np.array([pair for pair in bounds if pair is not None]).reshape(-1, 2)
    ranges, low, num_rows = [], int(_LEAST), 0
    # Of groups that the file says nothing about, nothing can be known.
    known = len(ends) == len(bounds)
    highest = np.maximum.accumulate(ends[:, 1])
    lowest = np.minimum.accumulate(ends[::-1, 0])[::-1]
    for group, size in enumerate(sizes):
        num_rows += size
        last = group == len(sizes) - 1
        if last or (
            known and num_rows >= part_rows and highest[group] <= lowest[group + 1]
        ):
            high = int(_GREATEST) if last else int(highest[group])
            if high >= low:
                ranges.append((low, high, num_rows))
                low, num_rows = high + 1, 0
    return ranges
