"""The curves of a run: a metric of each task, loss and learning rate.

All are drawn over the events that the run has seen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from graphnet_icecube2nd.plots import new_figure, save_figure
from graphnet_icecube2nd.tasks.task import TASKS
from graphnet_icecube2nd.training.history import RAW, Row, task_columns

ANGLE = "direction/opening_angle"  # drawn in degrees
WIDTH, HEIGHT, HEIGHT_OF_A_TASK = 7.5, 4.4, 2.6  # inches


def draw_curves(
    rows: Sequence[Row], title: str = "", points: Sequence[Row] = ()
) -> Any:
    """Return a figure of a run's measurements.

    Args:
        rows: Of metrics.csv, as `read_history` gives them.
        title: Above the curves.
        points: Of training.csv: the loss of the training between two rows.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is neither row nor point.
    """
    if not rows and not points:
        raise ValueError("a run without a finished sub-epoch has no curves")
    metrics = [
        f"{task}/{names[0] if names else 'loss'}"
        for task, names in task_columns(rows[-1] if rows else {ANGLE: None}).items()
    ]
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
            if metric == ANGLE
            else f"{metric.replace('/', ', ').replace('_', ' ')}\nof the validation"
        )
    for stage in starts:
        validated = [row for row in rows if row["stage"] == stage]
        # Runs of earlier releases have no points.
        trained = [row for row in points if row["stage"] == stage] or validated
        for here, name, text, style, colour in (
            (trained, "train_loss", "training, mean since the last", ".-", "#999999"),
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
    rate.set_xlabel("events seen, in thousands (dotted: a new stage)")
    for axes in (*panels, loss, rate):
        axes.grid(alpha=0.25)
        for place in list(starts.values())[1:]:
            axes.axvline(place, color="#999999", lw=0.8, ls=":")
    if title:
        panels[0].set_title(title)
    return figure


def _draw_metric(
    axes: Any, rows: Sequence[Row], metric: str, seen: Sequence[float]
) -> None:
    unit = math.degrees(1) if metric == ANGLE else 1.0
    values, raw = _values(rows, metric, unit), _values(rows, RAW + metric, unit)
    has_average = not all(map(math.isnan, raw))
    if has_average:
        axes.plot(seen, raw, "s--", ms=3, color="#d95f02", label="raw weights")
    label = "average of the weights, where kept" if has_average else "weights"
    axes.plot(seen, values, "o-", ms=3, color="#1b6ca8", label=label)
    sign = -1 if _is_higher_better(metric) else 1
    best = min(
        range(len(rows)),
        key=lambda n: math.inf if math.isnan(values[n]) else sign * values[n],
    )
    axes.plot(seen[best], values[best], "o", ms=8, mfc="none", color="#1b6ca8")
    text = f"best: {values[best]:.3f}"
    if metric == ANGLE:
        text = f"best: {values[best]:.1f}° = {values[best] / unit:.3f} rad"
    axes.legend(frameon=False, title=text)


def _values(rows: Sequence[Row], metric: str, unit: float) -> list[float]:
    """Return a metric of all rows in a unit; NaN where a row has none."""
    found = [row.get(metric) for row in rows]
    return [math.nan if value is None else unit * value for value in found]


def _is_higher_better(metric: str) -> bool:
    task, _, name = metric.partition("/")
    return task in TASKS.names() and name in TASKS.get(task).higher_is_better  # type: ignore[attr-defined]


def draw_curves_if_possible(
    rows: Sequence[Row], path: str | os.PathLike[str], points: Sequence[Row] = ()
) -> None:
    """Save the curves where matplotlib is installed; a training goes on without."""
    try:
        figure = draw_curves(rows, points=points)
    except ImportError:
        return
    save_figure(figure, path)


def _stage_starts(rows: Sequence[Row]) -> dict[int, float]:
    """Return thousands of events seen before each stage, by its number."""
    starts: dict[int, float] = {}
    seen = 0.0
    for stage in sorted({row["stage"] for row in rows}):
        starts[stage] = seen
        seen += max(row["events"] for row in rows if row["stage"] == stage) / 1000
    return starts


def _events_seen(rows: Sequence[Row], starts: dict[int, float]) -> list[float]:
    """Return thousands of events seen by each row, over all stages."""
    return [starts[row["stage"]] + row["events"] / 1000 for row in rows]
