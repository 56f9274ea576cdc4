"""What a run measured: a row for each sub-epoch, and a shorter one for each checkpoint.

Rows are kept in checkpoints. The files are written whole from them each time, so a run
that was killed and went on has each row once.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Any

from graphnet_icecube2nd.files import write_whole

Row = dict[str, Any]
# Columns of metrics.csv. Angles are mean opening angles in rad; where an average of the
# weights is kept the validation's are the average's, and `raw_*` the raw weights'.
# `train_loss` is the mean of all steps since the row before.
COLUMNS = (
    "stage",
    "sub_epoch",
    "step",
    "events",
    "pulses",
    "seconds",
    "learning_rate",
    "train_loss",
    "gradient_norm",
    "validation_loss",
    "validation_angle",
    "validation_angle_deg",
    "raw_validation_loss",
    "raw_validation_angle",
    "best",
    "memory_mb",
)
# Columns of training.csv, whose rows come with checkpoints; meant as above.
POINT_COLUMNS = (
    "stage",
    "step",
    "events",
    "seconds",
    "learning_rate",
    "train_loss",
    "gradient_norm",
)


def write_history(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    columns: Sequence[str] = COLUMNS,
) -> None:
    """Write rows as CSV, whole or not at all."""
    with (
        write_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: str | os.PathLike[str]) -> list[Row]:
    """Read what `write_history` wrote; numbers are numbers again, gaps None."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: _number(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _number(text: str) -> int | float | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else float(text)
