"""GraphNeT's parquet: a folder a table, a file a chunk of events.

`FOLDER/<table>/<table>_<chunk>.parquet`, as GraphNeT's ParquetWriter merges them and
its ParquetDataset reads them; each chunk is a part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import (
    NO_TRUTH,
    choose_tables,
)
from graphnet_icecube2nd.store.readers.flat_part import choose_pulse_columns
from graphnet_icecube2nd.store.readers.rows import ParquetRows
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.readers.truth import open_truth

MERGED = "merged"  # where ParquetWriter puts what it merged


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """A table with its files by the number of the chunk."""

    name: str
    chunks: dict[int, ParquetRows]

    @property
    def types(self) -> dict[str, Any]:
        """Arrow type of each column."""
        return next(iter(self.chunks.values())).types


def graphnet_parquet_source(
    folder: str | os.PathLike[str],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str = "event_no",
    keep: str | Sequence[str] = (),
) -> Source:
    """Read a folder of GraphNeT's parquet files.

    Events come chunk by chunk in the order of the files, pulses of an event in the
    order they were written. A row of truth without pulses is an event of no pulses,
    and comes after the others of its chunk.

    Args:
        folder: What holds a folder for each table, or the folder above `merged/`.
        pulses: Table of pulses; default the one that a named pulse map fits.
        truth: Table of truth; default the one that has the angles. False to do
            without.
        pulse_map: What the columns mean; default one of the named pulse maps.
        event_column: Joins pulses to truth.
        keep: Further columns of the pulses to take, or `all`.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: A table is missing or ambiguous, a chunk of one table is not there
            for the other, a file is damaged or its columns are not those of the
            others; names file and table.
    """
    root, tables = _find_tables(Path(folder))
    place = str(root)
    pulse_table, truth_table, found = choose_tables(
        tables,
        place=place,
        event=event_column,
        pulses=pulses,
        truth=truth,
        pulse_map=pulse_map,
    )
    _check_partners(place, pulse_table, truth_table)
    columns = choose_pulse_columns(
        list(pulse_table.chunks.values()), found, event_column, keep
    )
    parts = {chunk: columns.part(rows) for chunk, rows in pulse_table.chunks.items()}
    left_out = columns.left_out
    notes: tuple[str, ...] = ()
    if truth_table is not None:
        labels, truth_left_out, notes = open_truth(
            list(truth_table.chunks.values()), found, event_column=event_column
        )
        left_out += truth_left_out
        for chunk, rows in truth_table.chunks.items():
            parts[chunk].truth = replace(labels, rows=(rows,))
    return Source(
        kind="graphnet-parquet",
        pulse_map=found,
        parts=list(parts.values()),
        pulse_columns=columns.taken,
        left_out=left_out,
        notes=notes,
    )


def _find_tables(folder: Path) -> tuple[Path, list[_Chunks]]:
    """Return the folder of the tables, and what is in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / MERGED).is_dir():
        folder = folder / MERGED
    tables = []
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        pattern = re.compile(re.escape(entry.name) + r"_(\d+)\.parquet")
        found = [(pattern.fullmatch(path.name), path) for path in entry.iterdir()]
        chunks = {
            number: ParquetRows(path=path, name=str(path))
            for number, path in sorted((int(m[1]), path) for m, path in found if m)
        }
        if chunks:
            tables.append(_Chunks(name=entry.name, chunks=chunks))
    if not tables:
        raise ValueError(
            f"{folder} holds no GraphNeT parquet, which would be "
            "<table>/<table>_<chunk>.parquet, as ParquetWriter.merge_files makes it"
        )
    return folder, tables


def _check_partners(place: str, pulses: _Chunks, truth: _Chunks | None) -> None:
    if truth is None:
        return
    for table, other in ((pulses, truth), (truth, pulses)):
        if alone := sorted(table.chunks.keys() - other.chunks.keys()):
            partner = f"{place}/{other.name}/{other.name}_{alone[0]}.parquet"
            raise ValueError(
                f"{table.chunks[alone[0]].name} has no partner {partner} (nor have "
                f"{len(alone) - 1} more). Complete the copy, or do without truth: "
                f"{NO_TRUTH}"
            )
