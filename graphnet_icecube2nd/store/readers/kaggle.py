"""Files of the competition: batches of pulses, and a table of meta data.

The files are FOLDER/train/batch_N.parquet or FOLDER/test/batch_N.parquet;
train_meta.parquet, or train_meta/train_meta_N.parquet; sensor_geometry.csv, and the
ice_transparency.txt of the competition code. Shape letters: B events, N rows of meta
data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.store.readers.columns import (
    NO_TRUTH,
    PathLike,
    Wanted,
    check_tables,
    numbered_files,
)
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.readers.table_part import (
    TablePart,
    TruthRows,
    select,
)
from graphnet_icecube2nd.store.readers.tables import ParquetTable

WHICH = ("train", "test")
GEOMETRY = "sensor_geometry.csv"
ICE = "ice_transparency.txt"
PRESENT = "present"
BATCH = "batch_id"
PULSE_INDICES = ("first_pulse_index", "last_pulse_index")
CHECKED = (BATCH, *PULSE_INDICES)  # columns of the meta data that check the batches
WHOLE = -1  # number of a file with the meta data of all batches


def kaggle_source(
    folder: PathLike,
    *,
    which: str | None = None,
    batches: Sequence[int] | str | None = None,
    truth: bool = True,
    **options: Any,
) -> Source:
    """Open a folder of the competition's data as a source.

    Args:
        folder: The folder.
        which: Data to read, `train` or `test`; default: `train` if it exists.
        batches: Numbers of the batches, or `present` for all that exist. Default: all
            batches of the meta data, which must exist.
        truth: Whether the meta data are read.
        **options: Options of `Wanted`.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: A file is missing or damaged, or an option is not valid.
    """
    folder, wanted = Path(folder), Wanted(**options)
    pulse_map = wanted.pulse_map or PulseMap.kaggle()
    which, notes = _which(folder, which)
    files = numbered_files(folder / which, "batch")
    meta, there = _find_meta(folder, which) if truth else ({}, None)
    name = f"{which}_meta/" if meta and WHOLE not in meta else f"{which}_meta.parquet"
    if truth and not meta:
        notes.append(f"there is no {name}, so numbers of pulses are not checked")
    chosen = _choose(which, files, there, name, batches)
    if others := {*(there or ())} - {*chosen}:
        notes.append(f"batches {compact(others)} of {name} are left out")
    tables = [_table(folder, files[number]) for number in chosen]
    labels_of = meta if WHOLE in meta else {n: meta[n] for n in chosen if n in meta}
    source, example = select(
        "kaggle",
        tables,
        [*labels_of.values()],
        replace(wanted, pulse_map=pulse_map),
        without=CHECKED,
    )
    if (labels := example.truth) is not None:
        if which == "train" and not labels.angles:
            raise ValueError(f"{labels.notes[-1]}. Leave truth out: {NO_TRUTH}")
        checked = [c for c in CHECKED if c in labels.tables[0].types]
        check_tables(labels.tables, checked)
        example.truth = replace(labels, columns=(*labels.columns, *checked))
    parts = []
    for number, table in zip(chosen, tables, strict=True):
        of_batch = example.of(table, meta.get(number), batch=number)
        if WHOLE in meta:
            of_batch.truth_where = BATCH, number, number
        parts.append(KagglePart(**vars(of_batch)))
    geometry, ice = folder / GEOMETRY, folder / ICE
    if not geometry.exists():
        notes.append(
            f"there is no {GEOMETRY}, so the package's table of IceCube-86 is used"
        )
    return replace(
        source,
        parts=parts,
        notes=(*notes, *source.notes),
        geometry=geometry if geometry.exists() else None,
        ice=ice if ice.exists() else None,
    )


@dataclass(kw_only=True, eq=False)
class KagglePart(TablePart):
    """A batch; the meta data have the number of pulses of each event."""

    def check_truth(self, truth: TruthRows, pulses_N: NDArray[np.int64]) -> TruthRows:
        """Check the numbers of pulses; return the columns of truth.

        Raises:
            ValueError: A number of pulses or a batch differs from the meta data.
        """
        columns = truth.columns

        def row_of(index: int) -> str:
            assert self.truth is not None
            table, row = self.truth.find(truth.event_id[index])[0]
            return table.at(row)

        if BATCH in columns:
            wrong = np.flatnonzero(columns[BATCH] != self.batch)
            if len(wrong):
                raise ValueError(
                    f"{row_of(wrong[0])}: batch_id must be {self.batch} in this file, "
                    f"found {columns[BATCH][wrong[0]]}"
                )
        if set(PULSE_INDICES) <= set(columns):
            assert self.truth is not None
            with naming(self.truth.name):
                first_N, last_N = (columns[c].astype(np.int64) for c in PULSE_INDICES)
            wrong = np.flatnonzero(last_N - first_N + 1 != pulses_N)
            if len(wrong):
                row = wrong[0]
                raise ValueError(
                    f"{self.name}: event {truth.event_id[row]} must have "
                    f"{last_N[row] - first_N[row] + 1} pulses, found {pulses_N[row]} "
                    f"(first_pulse_index {first_N[row]}, last_pulse_index "
                    f"{last_N[row]} in {row_of(row)}). {len(wrong)} of "
                    f"{len(pulses_N)} events differ; check that the file is complete"
                )
        kept = {name: values for name, values in columns.items() if name not in CHECKED}
        return replace(truth, columns=kept)


def _table(folder: Path, path: Path) -> ParquetTable:
    return ParquetTable(path=path, name=str(path.relative_to(folder)))


def _find_meta(
    folder: Path, which: str
) -> tuple[dict[int, ParquetTable], set[int] | None]:
    """Return the meta data of `train` or `test` by batch, and the batches with rows.

    One file of all batches has the number `WHOLE`. Those of test may be missing.
    """
    stem = f"{which}_meta"
    whole = _table(folder, folder / f"{stem}.parquet")
    if whole.path.exists():
        if BATCH not in whole.types:
            raise ValueError(
                f"{whole.name} has no column {BATCH!r}; it has {', '.join(whole.types)}"
            )
        return {WHOLE: whole}, _batches_of(whole)
    files = numbered_files(folder / stem, stem)
    if not files and which == "train":
        raise ValueError(
            f"{folder} has neither train_meta.parquet nor "
            f"train_meta/train_meta_N.parquet. Add it, or leave truth out: {NO_TRUTH}"
        )
    meta = {number: _table(folder, path) for number, path in files.items()}
    return meta, set(meta) if meta else None


def compact(numbers: Collection[int]) -> str:
    """Return numbers as a short text: `1, 5-9`."""
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
    """Return `train` or `test`, whichever is read, and notes."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist")
    if which not in (None, *WHICH):
        raise ValueError(f"which must be train or test, got {which!r}")
    there = [name for name in WHICH if numbered_files(folder / name, "batch")]
    if which in there:
        return which, []
    if which is None and there:
        other = f"{folder} also has test data; use which='test' to read them"
        return there[0], [other] if len(there) > 1 else []
    hint = ""
    if folder.is_dir() and numbered_files(folder, "batch"):
        hint = f". Give the parent folder, {folder.resolve().parent}"
    elif there:
        hint = f"; it has {there[0]}"
    wanted = f"{which}/" if which else "train/ or test/"
    raise ValueError(f"{folder} has no {wanted}batch_N.parquet{hint}")


def _batches_of(meta: ParquetTable) -> set[int]:
    """Return the batches of a file, which may have 132 million rows."""
    groups = meta.row_groups(BATCH)
    found = {group.low for group in groups if group.low == group.high}
    unknown = [group.number for group in groups if group.low < group.high]
    for _, batch_ids in replace(meta, groups=tuple(unknown)).ids(BATCH):
        begins = np.append(True, batch_ids[1:] != batch_ids[:-1])  # few runs
        found.update(batch_ids[begins].tolist())
    return found


def _choose(
    which: str,
    files: dict[int, Path],
    with_rows: set[int] | None,
    meta: str,
    batches: Sequence[int] | str | None,
) -> list[int]:
    """Return the numbers of the batches to read; ValueError if one is missing."""
    hint = "Select batches: --batches 1,2,5-9 or present (batches=[...] or 'present')"
    if batches is None:
        chosen = set(files) | (with_rows or set())
    elif isinstance(batches, str):
        if batches != PRESENT:
            raise ValueError(f"batches must be numbers or {PRESENT!r}, got {batches!r}")
        chosen = set(files)
    else:
        chosen = set(batches)
        hint = f"There are batches {compact(files)}"
        if not chosen:
            raise ValueError(f"batches must have at least one number. {hint}")
    for there, what in (
        ({*files}, f"no file {which}/batch_N.parquet"),
        (with_rows, f"no rows in {meta}"),
    ):
        if there is not None and (lost := chosen - there):
            one = len(lost) == 1
            raise ValueError(
                f"batch{'' if one else 'es'} {compact(lost)} {'has' if one else 'have'}"
                f" {what}. {hint}"
            )
    return sorted(chosen)
