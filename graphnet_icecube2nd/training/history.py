"""Measurements of a run: a row per sub-epoch, and a shorter one per checkpoint.

Checkpoints hold all rows, and the files are rewritten from them each time. So a run
that was killed and resumed has each row once. The curves show the same rows.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.plots import new_figure
from graphnet_icecube2nd.tasks.task import TASKS
from graphnet_icecube2nd.training.recipe import LOSS, OPENING_ANGLE

Row = dict[str, Any]
# Columns of metrics.csv. Between these two groups are the validation values of each
# task, TASK/loss and TASK/METRIC: `direction/opening_angle` is a mean in rad. With an
# average of the weights they belong to the average, and `raw_...` to the raw weights.
# `train_loss` is the mean of all steps since the previous row; `train_loss` and
# `validation_loss` are weighted sums over the tasks.
FIRST_COLUMNS = (
    *("stage", "sub_epoch", "step", "events", "pulses", "seconds", "learning_rate"),
    *("train_loss", "gradient_norm", "validation_loss"),
)
LAST_COLUMNS = ("best", "memory_mb")
RAW = "raw_"
WIDTH, HEIGHT, HEIGHT_OF_A_TASK = 7.5, 4.4, 2.6  # of the curves, inches
# Columns of training.csv, one row per checkpoint, with the same meaning.
POINT_COLUMNS = (
    *("stage", "step", "events", "seconds", "learning_rate"),
    *("train_loss", "gradient_norm"),
)
# Present names of the columns of release 0.1.0, which had only the task direction.
FORMER = {
    "validation_angle": OPENING_ANGLE,
    "raw_validation_angle": RAW + OPENING_ANGLE,
}
FORMER_LOSSES = {
    "validation_loss": "direction/loss",
    "raw_validation_loss": "raw_direction/loss",
}


def column_of(name: str) -> str:
    """Return the column of a validation value: `loss` or `TASK/METRIC`."""
    known = {LOSS: "validation_loss", f"{RAW}loss": f"{RAW}validation_loss"}
    return known.get(name, name)


def first_metrics(row: Mapping[str, Any]) -> list[str]:
    """Return the column of each task's first metric, or else of its loss.

    The curves and the printed summary show these columns.
    """
    first: dict[str, str] = {}
    for name in row:
        task, slash, metric = name.partition("/")
        if slash and not task.startswith(RAW) and first.get(task, LOSS) == LOSS:
            first[task] = metric
    return [f"{task}/{metric}" for task, metric in first.items()]


def metrics_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of all rows for metrics.csv, in a fixed order."""
    names = dict.fromkeys(name for row in rows for name in row)
    further = [n for n in names if n not in (*FIRST_COLUMNS, *LAST_COLUMNS)]
    further.sort(key=lambda name: name.startswith(RAW))  # raw weights last
    return [*FIRST_COLUMNS, *further, *LAST_COLUMNS]


def write_history(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    columns: Sequence[str] | None = None,
) -> None:
    """Write rows as CSV atomically; default: columns of metrics.csv."""
    with (
        write_whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns or metrics_columns(rows), restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: str | os.PathLike[str]) -> list[Row]:
    """Read rows of this or an earlier release; missing values are None."""
    with naming(path), open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file, strict=True)
        return [
            renamed(dict(zip(names, map(_number, row), strict=True))) for row in rows
        ]


def renamed(row: Row) -> Row:
    """Return a row with the present names of its columns."""
    if "validation_angle" not in row:
        return row
    made = {FORMER.get(name, name): value for name, value in row.items()}
    made.pop("validation_angle_deg", None)
    return made | {also: made[n] for n, also in FORMER_LOSSES.items() if n in made}


def validation_text(row: Row) -> str:
    """Return a text with the first metric of each task in a row."""
    texts = []
    for column in first_metrics(row):
        task, _, metric = column.partition("/")
        value = row[column]
        texts.append(
            f"mean opening angle of the validation {value:.4f} rad = "
            f"{math.degrees(value):.2f} deg"
            if column == OPENING_ANGLE
            else f"{task} {metric.replace('_', ' ')} of the validation {value:.4f}"
        )
    return ", ".join(texts)


def _number(text: str) -> int | float | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def draw_curves(rows: Sequence[Row], points: Sequence[Row] = ()) -> Any:
    """Return a figure of a run: a metric of each task, loss and learning rate.

    `rows` are those of metrics.csv. `points` are those of training.csv and show the
    training loss between two rows. Raises ImportError if matplotlib is not installed.
    """
    if not rows and not points:
        raise ValueError("curves need a run with a finished sub-epoch, found none")
    metrics = first_metrics(rows[-1]) if rows else [OPENING_ANGLE]
    figure = new_figure(WIDTH, HEIGHT + HEIGHT_OF_A_TASK * len(metrics))
    *panels, loss, rate = figure.subplots(
        len(metrics) + 2,
        1,
        sharex=True,
        gridspec_kw={"height_ratios": [*[3] * len(metrics), 3, 1.6]},
    )
    starts = _stage_starts([*rows, *points])
    for axes, metric in zip(panels, metrics, strict=True):
        if rows:
            _draw_metric(axes, rows, metric, _events_seen(rows, starts))
        axes.set_ylabel(
            "mean opening angle of\nthe validation, deg"
            if metric == OPENING_ANGLE
            else f"{metric.replace('/', ', ').replace('_', ' ')}\nof the validation"
        )
    for stage in starts:
        validated = [row for row in rows if row["stage"] == stage]
        # Runs of earlier releases have no points.
        trained = [row for row in points if row["stage"] == stage] or validated
        for here, name, text, style, colour in (
            (trained, "train_loss", "training, mean of steps", ".-", "#999999"),
            (validated, "validation_loss", "validation", "o-", "#1b6ca8"),
        ):
            loss.plot(
                _events_seen(here, starts),
                [row[name] for row in here],
                style,
                ms=3,
                color=colour,
                label="" if stage else text,
            )
        rate.semilogy(
            _events_seen(trained, starts),
            [row["learning_rate"] for row in trained],
            ".",
            color="#555555",
        )
    loss.set_ylabel("loss of the stage")
    loss.legend(frameon=False)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("training events, in thousands (dotted: start of a stage)")
    for axes in (*panels, loss, rate):
        axes.grid(alpha=0.25)
        for place in list(starts.values())[1:]:
            axes.axvline(place, color="#999999", lw=0.8, ls=":")
    return figure


def _draw_metric(
    axes: Any, rows: Sequence[Row], metric: str, seen: Sequence[float]
) -> None:
    unit = math.degrees(1) if metric == OPENING_ANGLE else 1.0
    # A missing value, None, becomes NaN.
    values, raw = (
        unit * np.array([row.get(name) for row in rows], np.float64)
        for name in (metric, RAW + metric)
    )
    has_average = not np.isnan(raw).all()
    if has_average:
        axes.plot(seen, raw, "s--", ms=3, color="#d95f02", label="raw weights")
    label = "average of the weights, if kept" if has_average else "weights"
    axes.plot(seen, values, "o-", ms=3, color="#1b6ca8", label=label)
    task, _, name = metric.partition("/")
    is_known = task in TASKS.names()
    sign = -1 if is_known and name in TASKS.get(task).higher_is_better else 1  # type: ignore[attr-defined]
    best = int(np.nan_to_num(sign * values, nan=np.inf).argmin())
    axes.plot(seen[best], values[best], "o", ms=8, mfc="none", color="#1b6ca8")
    text = f"best: {values[best]:.3f}"
    if metric == OPENING_ANGLE:
        text = f"best: {values[best]:.1f}° = {values[best] / unit:.3f} rad"
    axes.legend(frameon=False, title=text)


def _stage_starts(rows: Sequence[Row]) -> dict[int, float]:
    """Return the thousands of training events before each stage, by its number."""
    starts: dict[int, float] = {}
    seen = 0.0
    for stage in sorted({row["stage"] for row in rows}):
        starts[stage] = seen
        seen += max(row["events"] for row in rows if row["stage"] == stage) / 1000
    return starts


def _events_seen(rows: Sequence[Row], starts: dict[int, float]) -> list[float]:
    """Return the thousands of training events at each row, over all stages."""
    return [starts[row["stage"]] + row["events"] / 1000 for row in rows]
