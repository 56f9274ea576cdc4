"""The competition's files: batches of pulses, and a table of meta data.

FOLDER/train/batch_N.parquet or FOLDER/test/batch_N.parquet; train_meta.parquet whole,
or split into train_meta/train_meta_N.parquet; sensor_geometry.csv, and the
ice_transparency.txt that the competition code used. Shape letters: B events, N rows
of meta data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import (
    Keep,
    choose_columns,
    find_event_column,
    settle_pulse_map,
)
from graphnet_icecube2nd.store.readers.flat_part import FlatPart, check_pulse_tables
from graphnet_icecube2nd.store.readers.kaggle_meta import KaggleMeta
from graphnet_icecube2nd.store.readers.rows import ParquetRows
from graphnet_icecube2nd.store.readers.source import Runs, Source
from graphnet_icecube2nd.store.readers.truth_rows import TruthTable

WHICH = ("train", "test")
GEOMETRY = "sensor_geometry.csv"
ICE = "ice_transparency.txt"
PRESENT = "present"


def kaggle_source(
    folder: str | os.PathLike[str],
    *,
    which: str | None = None,
    batches: Sequence[int] | str | None = None,
    truth: bool = True,
    pulse_map: PulseMap | None = None,
    keep: Keep = (),
) -> Source:
    """Open a folder of the competition's data.

    Args:
        folder: Where `train` or `test` lie, with their meta data.
        which: `train` or `test`; None takes what is there, and train of both.
        batches: Numbers of the batches to take; `present` takes those that are there.
            None takes all, and all that the meta data name have to be there.
        truth: False leaves the meta data out.
        pulse_map: What the columns mean; default `PulseMap.kaggle()`.
        keep: Further pulse columns to keep, or `all`.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: Not the competition's layout, a batch that is missing, a column
            that is missing, or a damaged file.
    """
    folder = Path(folder)
    which, notes = _which(folder, which)
    files = _batch_files(folder / which)
    meta = KaggleMeta.find(folder, which, pulse_map or PulseMap.kaggle(), truth)
    if meta is None and truth:
        notes.append(f"no {which}_meta.parquet; numbers of pulses are not checked")
    chosen = _choose(which, files, meta, batches)
    if meta is not None and (others := meta.batches - set(chosen)):
        notes.append(f"of {meta.name}, batches {compact(others)} are not taken")

    tables = [
        ParquetRows(path=files[number], name=f"{which}/{files[number].name}")
        for number in chosen
    ]
    columns = tables[0].types()
    event_column = find_event_column(columns, None, tables[0].name)
    available = [column for column in columns if column != event_column]
    pulse_map = settle_pulse_map(
        available, pulse_map or PulseMap.kaggle(), tables[0].name
    )
    taken, left_out = choose_columns(available, pulse_map, keep)
    check_pulse_tables(tables, event_column, taken, pulse_map)
    parts = []
    for number, rows in zip(chosen, tables, strict=True):
        part = KagglePart(
            name=rows.name,
            rows=rows,
            event_column=event_column,
            columns=taken,
            num_pulses=rows.num_rows(),
            batch=number,
        )
        if meta is not None:
            part.truth, part.truth_where = meta.of_batch(number)
            part.truth_columns = meta.truth_columns
        parts.append(part)
    geometry, ice = folder / GEOMETRY, folder / ICE
    if not geometry.exists():
        notes.append(f"no {GEOMETRY}; the package's table of IceCube-86 is used")
    return Source(
        kind="kaggle",
        pulse_map=pulse_map,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        geometry=geometry if geometry.exists() else None,
        ice=ice if ice.exists() else None,
        notes=(*notes, *(meta.notes if meta else ())),
    )


@dataclass(kw_only=True, eq=False)
class KagglePart(FlatPart):
    """A batch; the meta data say how many pulses each of its events has."""

    truth_columns: tuple[str, ...] = ()

    def check_truth(
        self,
        table: TruthTable,
        runs: Runs,
        rows_B: NDArray[np.int64],
        unused: NDArray[np.int64],
    ) -> TruthTable:
        """Compare the numbers of pulses; return the columns that are truth.

        Raises:
            ValueError: They differ, or a row is of another batch; names the event.
        """
        columns = table.columns
        if "batch_id" in columns:
            wrong = np.flatnonzero(columns["batch_id"] != self.batch)
            if len(wrong):
                raise ValueError(
                    f"{table.name}, row {table.file_row[wrong[0]]}: batch_id is "
                    f"{columns['batch_id'][wrong[0]]} in the file of batch {self.batch}"
                )
        if {"first_pulse_index", "last_pulse_index"} <= set(columns):
            first_N = columns["first_pulse_index"].astype(np.int64)
            last_N = columns["last_pulse_index"].astype(np.int64)
            found_N = np.zeros(len(first_N), np.int64)
            found_N[rows_B] = np.diff(runs.offsets)
            wrong = np.flatnonzero(last_N - first_N + 1 != found_N)
            if len(wrong):
                row = wrong[0]
                raise ValueError(
                    f"{self.name}: event {table.event_id[row]} has {found_N[row]} "
                    f"pulses, but {table.name}, row {table.file_row[row]}, says "
                    f"{last_N[row] - first_N[row] + 1} (first_pulse_index "
                    f"{first_N[row]}, last_pulse_index {last_N[row]}). Is the file "
                    f"truncated? ({len(wrong)} of {len(found_N)} events differ)"
                )
        kept = {column: columns[column] for column in self.truth_columns}
        return replace(table, columns=kept)


def compact(numbers: Collection[int]) -> str:
    """Return numbers in few words: `1, 5-9`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(
        str(low) if low == high else f"{low}-{high}" for low, high in ranges
    )


def _which(folder: Path, which: str | None) -> tuple[str, list[str]]:
    """Return which of train and test to read, and what there is to say of it."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    if which not in (None, *WHICH):
        raise ValueError(f"which must be train or test, got {which!r}")
    there = [name for name in WHICH if _batch_files(folder / name)]
    if which in there:
        return which, []
    if which is None and there:
        other = f"{folder} has test data too; which='test' takes them"
        return there[0], [other] if len(there) > 1 else []
    hint = ""
    if folder.is_dir() and _batch_files(folder):
        hint = f". Give the folder above, {folder.resolve().parent}"
    elif there:
        hint = f"; there is {there[0]}"
    wanted = f"{which}/" if which else "train/ or test/"
    raise ValueError(f"{folder} has no {wanted}batch_N.parquet{hint}")


def _batch_files(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    found = {}
    for path in folder.iterdir():
        if match := re.fullmatch(r"batch_(0|[1-9]\d*)\.parquet", path.name):
            found[int(match[1])] = path
    return found


def _choose(
    which: str,
    files: dict[int, Path],
    meta: KaggleMeta | None,
    batches: Sequence[int] | str | None,
) -> list[int]:
    """Return the numbers of the batches to read."""
    hint = "Take fewer: batches=[...] or 'present' (--batches 1,2,5-9, or present)"
    if batches is None:
        chosen = set(files) | (meta.batches if meta else set())
    elif isinstance(batches, str):
        if batches != PRESENT:
            raise ValueError(f"batches are numbers or {PRESENT!r}, got {batches!r}")
        chosen = set(files)
    else:
        chosen = set(batches)
        hint = f"There are batches {compact(files)}"
        if not chosen:
            raise ValueError(f"batches is empty. {hint}")
    for lost, what in (
        (chosen - set(files), f"no file {which}/batch_N.parquet"),
        (chosen - meta.batches if meta else set(), f"no rows in {meta and meta.name}"),
    ):
        if lost:
            one = len(lost) == 1
            raise ValueError(
                f"batch{'' if one else 'es'} {compact(lost)} {'has' if one else 'have'}"
                f" {what}. {hint}"
            )
    return sorted(chosen)
