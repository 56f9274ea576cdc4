"""The competition's meta data: whole in one file, or split by batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import find_event_column
from graphnet_icecube2nd.store.readers.rows import ParquetRows
from graphnet_icecube2nd.store.readers.truth_columns import choose_truth_columns
from graphnet_icecube2nd.store.readers.truth_rows import Truth

BATCH = "batch_id"
PULSE_INDICES = ("first_pulse_index", "last_pulse_index")


@dataclass(frozen=True, kw_only=True)
class KaggleMeta:
    """Where the meta data of each batch are.

    Args:
        name: What messages call them.
        whole: The one file, or None where they are split.
        split: The files by number of the batch.
        batches: The batches they have rows of.
        event_column: The column of event_ids.
        columns: The columns to read.
        truth_columns: Those of them that are truth.
        angles: Those of them that make up the direction.
        notes: What there is to say.
    """

    name: str
    whole: ParquetRows | None
    split: dict[int, ParquetRows]
    batches: set[int]
    event_column: str
    columns: tuple[str, ...]
    truth_columns: tuple[str, ...]
    angles: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def find(
        cls, folder: Path, which: str, pulse_map: PulseMap, truth: bool
    ) -> KaggleMeta | None:
        """Look for the meta data of `train` or `test`.

        Returns:
            None if they are not wanted, or missing and not needed: those of test hold
            no truth.

        Raises:
            ValueError: Those of train are missing, or miss a column.
        """
        if not truth:
            return None
        whole_file = folder / f"{which}_meta.parquet"
        split_files = _split_files(folder / f"{which}_meta")
        whole = None
        split: dict[int, ParquetRows] = {}
        if whole_file.exists():
            whole = ParquetRows(path=whole_file, name=whole_file.name)
        else:
            split = {
                number: ParquetRows(path=path, name=f"{which}_meta/{path.name}")
                for number, path in split_files.items()
            }
        if not whole and not split:
            if which == "test":
                return None
            raise ValueError(
                f"{folder} has neither train_meta.parquet nor "
                "train_meta/train_meta_N.parquet. with_truth=False "
                "(--without-truth) does without"
            )
        any_file = whole or next(iter(split.values()))
        types = any_file.types()
        event_column = find_event_column(types, None, any_file.name)
        own = (event_column, BATCH, *PULSE_INDICES)
        taken, _, notes = choose_truth_columns(types, pulse_map, any_file.name, own)
        angle_names = (pulse_map.labels.azimuth, pulse_map.labels.zenith)
        angles = tuple(column for column in angle_names if column in taken)
        if which == "train" and not angles:
            raise ValueError(
                f"{any_file.name} has no columns {angle_names[0]!r} and "
                f"{angle_names[1]!r}; there is {', '.join(types)}. with_truth=False "
                "(--without-truth) does without"
            )
        if whole and BATCH not in types:
            raise ValueError(
                f"{whole.name} has no column {BATCH!r}; there is {', '.join(types)}"
            )
        helpers = [column for column in (BATCH, *PULSE_INDICES) if column in types]
        return cls(
            name=any_file.name if whole else f"{which}_meta/",
            whole=whole,
            split=split,
            batches=_batches_of(whole) if whole else set(split),
            event_column=event_column,
            columns=(*taken, *helpers),
            truth_columns=taken,
            angles=angles,
            notes=notes,
        )

    def of_batch(self, number: int) -> tuple[Truth, tuple[str, int, int] | None]:
        """Return where the rows of a batch are, and how to tell them from others."""
        rows = self.whole or self.split[number]
        truth = Truth(
            rows=(rows,),
            event_column=self.event_column,
            columns=self.columns,
            angles=self.angles,
        )
        return truth, (BATCH, number, number) if self.whole else None


def _split_files(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    pattern = re.compile(rf"{folder.name}_(0|[1-9]\d*)\.parquet")
    matches = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
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
