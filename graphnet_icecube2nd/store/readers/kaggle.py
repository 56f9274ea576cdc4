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
from graphnet_icecube2nd.store.readers.columns import NO_TRUTH, Keep
from graphnet_icecube2nd.store.readers.flat_part import FlatPart, choose_pulse_columns
from graphnet_icecube2nd.store.readers.rows import ParquetRows
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.readers.truth import Truth, TruthTable, open_truth

WHICH = ("train", "test")
GEOMETRY = "sensor_geometry.csv"
ICE = "ice_transparency.txt"
PRESENT = "present"
BATCH = "batch_id"
PULSE_INDICES = ("first_pulse_index", "last_pulse_index")


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
    files = _numbered_files(folder / which, "batch")
    pulse_map = pulse_map or PulseMap.kaggle()
    meta = _find_meta(folder, which, pulse_map) if truth else None
    if meta is None and truth:
        notes.append(f"no {which}_meta.parquet; numbers of pulses are not checked")
    chosen = _choose(which, files, meta, batches)
    if meta is not None and (others := meta.batches - set(chosen)):
        notes.append(f"of {meta.name}, batches {compact(others)} are not taken")

    tables = [
        ParquetRows(path=files[number], name=f"{which}/{files[number].name}")
        for number in chosen
    ]
    columns = choose_pulse_columns(tables, pulse_map, None, keep)
    parts = []
    for number, rows in zip(chosen, tables, strict=True):
        part = KagglePart(
            name=rows.name,
            rows=rows,
            event_column=columns.event_column,
            columns=columns.taken,
            num_pulses=rows.num_rows,
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
        pulse_map=columns.pulse_map,
        parts=parts,
        pulse_columns=columns.taken,
        left_out=columns.left_out,
        geometry=geometry if geometry.exists() else None,
        ice=ice if ice.exists() else None,
        notes=(*notes, *(meta.notes if meta else ())),
    )


@dataclass(kw_only=True, eq=False)
class KagglePart(FlatPart):
    """A batch; the meta data say how many pulses each of its events has."""

    truth_columns: tuple[str, ...] = ()

    def check_truth(self, table: TruthTable, pulses_N: NDArray[np.int64]) -> TruthTable:
        """Compare the numbers of pulses; return the columns that are truth.

        Raises:
            ValueError: They differ, or a row is of another batch; names the event.
        """
        columns = table.columns

        def row_of(index: int) -> str:
            assert self.truth is not None
            rows, row = self.truth.find(table.event_id[index])[0]
            return rows.at(row)

        if BATCH in columns:
            wrong = np.flatnonzero(columns[BATCH] != self.batch)
            if len(wrong):
                raise ValueError(
                    f"{row_of(wrong[0])}: batch_id is {columns[BATCH][wrong[0]]} in "
                    f"the file of batch {self.batch}"
                )
        if set(PULSE_INDICES) <= set(columns):
            first_N, last_N = (columns[c].astype(np.int64) for c in PULSE_INDICES)
            wrong = np.flatnonzero(last_N - first_N + 1 != pulses_N)
            if len(wrong):
                row = wrong[0]
                raise ValueError(
                    f"{self.name}: event {table.event_id[row]} has {pulses_N[row]} "
                    f"pulses, but {row_of(row)}, says {last_N[row] - first_N[row] + 1} "
                    f"(first_pulse_index {first_N[row]}, last_pulse_index "
                    f"{last_N[row]}). Is the file truncated? ({len(wrong)} of "
                    f"{len(pulses_N)} events differ)"
                )
        kept = {column: columns[column] for column in self.truth_columns}
        return replace(table, columns=kept)


@dataclass(frozen=True, kw_only=True)
class _Meta:
    """The meta data: whole in one file, or split by batch."""

    name: str
    truth: Truth  # its columns and those below, if they are there
    truth_columns: tuple[str, ...]
    files: dict[int, ParquetRows]  # by number of the batch; empty where they are whole
    batches: set[int]  # that they have rows of
    notes: tuple[str, ...]

    def of_batch(self, number: int) -> tuple[Truth, tuple[str, int, int] | None]:
        """Return where the rows of a batch are, and how to tell them from others."""
        if not self.files:
            return self.truth, (BATCH, number, number)
        return replace(self.truth, rows=(self.files[number],)), None


def _find_meta(folder: Path, which: str, pulse_map: PulseMap) -> _Meta | None:
    """Look for the meta data of `train` or `test`; those of test may be missing."""
    stem = f"{which}_meta"
    whole_file = folder / f"{stem}.parquet"
    whole = ParquetRows(path=whole_file, name=whole_file.name)
    files = {}
    if not whole_file.exists():
        files = {
            number: ParquetRows(path=path, name=f"{stem}/{path.name}")
            for number, path in _numbered_files(folder / stem, stem).items()
        }
        if not files:
            if which == "test":
                return None
            raise ValueError(
                f"{folder} has neither train_meta.parquet nor "
                f"train_meta/train_meta_N.parquet. {NO_TRUTH} does without"
            )
    tables = list(files.values()) or [whole]
    own = (BATCH, *PULSE_INDICES)
    truth, _, notes = open_truth(tables, pulse_map, without=own)
    types = tables[0].types
    if which == "train" and not truth.angles:
        raise ValueError(f"{notes[-1]}. {NO_TRUTH} does without")
    if not files and BATCH not in types:
        raise ValueError(
            f"{whole.name} has no column {BATCH!r}; there is {', '.join(types)}"
        )
    helpers = [column for column in own if column in types]
    return _Meta(
        name=f"{stem}/" if files else whole.name,
        truth=replace(truth, columns=(*truth.columns, *helpers)),
        truth_columns=truth.columns,
        files=files,
        batches=set(files) or _batches_of(whole),
        notes=notes if truth.angles else notes[:-1],
    )


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
    there = [name for name in WHICH if _numbered_files(folder / name, "batch")]
    if which in there:
        return which, []
    if which is None and there:
        other = f"{folder} has test data too; which='test' takes them"
        return there[0], [other] if len(there) > 1 else []
    hint = ""
    if folder.is_dir() and _numbered_files(folder, "batch"):
        hint = f". Give the folder above, {folder.resolve().parent}"
    elif there:
        hint = f"; there is {there[0]}"
    wanted = f"{which}/" if which else "train/ or test/"
    raise ValueError(f"{folder} has no {wanted}batch_N.parquet{hint}")


def _numbered_files(folder: Path, stem: str) -> dict[int, Path]:
    """Return the files `STEM_N.parquet` of a folder, if there is one, by N."""
    files = folder.iterdir() if folder.is_dir() else ()
    pattern = re.compile(rf"{stem}_(0|[1-9]\d*)\.parquet")
    matches = [(pattern.fullmatch(path.name), path) for path in files]
    return {int(match[1]): path for match, path in matches if match}


def _batches_of(rows: ParquetRows) -> set[int]:
    """Return the batches that a file of 132 million rows names."""
    found: set[int] = set()
    unknown = []
    for group, ends in enumerate(rows.bounds(BATCH)):
        if ends is not None and ends[0] >= ends[1]:  # one batch, or no rows
            found.update(ends[:1] if ends[0] == ends[1] else ())
        else:
            unknown.append(group)
    part = ParquetRows(path=rows.path, name=rows.name, groups=tuple(unknown))
    for _, batch_ids in part.ids(BATCH):
        begins = np.append(True, batch_ids[1:] != batch_ids[:-1])  # of runs: few
        found.update(batch_ids[begins].tolist())
    return found


def _choose(
    which: str,
    files: dict[int, Path],
    meta: _Meta | None,
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
