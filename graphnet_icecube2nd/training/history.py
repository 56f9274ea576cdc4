"""What a run measured: a row for each sub-epoch, kept in its checkpoints.

The file is written whole from the rows each time, so a run that was killed and went on
has each row once.
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


def write_history(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write rows as CSV, whole or not at all."""
    with (
        write_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, restval="")
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
