"""What a run measured: a row for each sub-epoch, and a shorter one for each checkpoint.

Rows are kept in checkpoints. The files are written whole from them each time, so a run
that was killed and went on has each row once.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_icecube2nd.files import write_whole

Row = dict[str, Any]
# Columns of metrics.csv. Between these two groups stand the values of the validation
# that belong to a task, as TASK/loss and TASK/METRIC: `direction/opening_angle` is a
# mean in rad. Where an average of the weights is kept they are the average's, and
# `raw_...` those of the raw weights. `train_loss` is the mean of all steps since the
# row before; `train_loss` and `validation_loss` are weighted sums over the tasks.
FIRST_COLUMNS = (
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
)
LAST_COLUMNS = ("best", "memory_mb")
RAW = "raw_"
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
# Columns of release 0.1.0 by their present names; it knew the task direction only.
FORMER = {
    "validation_angle": "direction/opening_angle",
    "raw_validation_angle": "raw_direction/opening_angle",
}
FORMER_LOSSES = {
    "validation_loss": "direction/loss",
    "raw_validation_loss": "raw_direction/loss",
}


def column_of(name: str) -> str:
    """Return the column of a value of the validation: `loss`, or `TASK/METRIC`."""
    known = {"loss": "validation_loss", f"{RAW}loss": f"{RAW}validation_loss"}
    return known.get(name, name)


def task_columns(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the metrics in a row by task, without losses and those of raw weights."""
    found: dict[str, list[str]] = {}
    for name in row:
        task, slash, metric = name.partition("/")
        if slash and not task.startswith(RAW):
            metrics = found.setdefault(task, [])
            if metric != "loss":
                metrics.append(metric)
    return found


def metrics_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of metrics.csv: those of all rows, in a fixed order."""
    further = dict.fromkeys(
        name
        for row in rows
        for name in row
        if name not in FIRST_COLUMNS and name not in LAST_COLUMNS
    )
    raw = [name for name in further if name.startswith(RAW)]
    plain = [name for name in further if not name.startswith(RAW)]
    return [*FIRST_COLUMNS, *plain, *raw, *LAST_COLUMNS]


def write_history(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    columns: Sequence[str] | None = None,
) -> None:
    """Write rows as CSV, whole or not at all.

    Args:
        path: The file.
        rows: The rows.
        columns: Default: those of metrics.csv.
    """
    with (
        write_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns or metrics_columns(rows), restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: str | os.PathLike[str]) -> list[Row]:
    """Read what `write_history` wrote, in this release or an earlier one.

    Numbers are numbers again, gaps None.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return [
            renamed({name: _number(text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


def renamed(row: Row) -> Row:
    """Return a row with its columns by their present names."""
    if "validation_angle" not in row:
        return row
    made = {FORMER.get(name, name): value for name, value in row.items()}
    del made["validation_angle_deg"]
    for name, also in FORMER_LOSSES.items():
        if name in made:
            made[also] = made[name]
    return made


def validation_text(row: Row) -> str:
    """Return the first metric of each task in a row, in words."""
    texts = []
    for task, metrics in task_columns(row).items():
        metric = metrics[0] if metrics else "loss"
        value = row[f"{task}/{metric}"]
        texts.append(
            f"mean opening angle of the validation {value:.4f} rad = "
            f"{math.degrees(value):.2f} deg"
            if (task, metric) == ("direction", "opening_angle")
            else f"{task} {metric.replace('_', ' ')} of the validation {value:.4f}"
        )
    return ", ".join(texts)


def _number(text: str) -> int | float | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else float(text)
