"""The curves of a run: loss, angle and learning rate over the events it has seen."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from graphnet_icecube2nd.training.history import Row

DEGREES = 180 / math.pi


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
    from graphnet_icecube2nd.plots import new_figure

    if not rows and not points:
        raise ValueError("a run without a finished sub-epoch has no curves")
    figure = new_figure(7.5, 7.0)
    angle, loss, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1.6]}
    )
    starts = _stage_starts([*rows, *points])
    if rows:
        _draw_angles(angle, rows, _events_seen(rows, starts))
    angle.set_ylabel("mean opening angle of\nthe validation, deg")
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
    for axes in (angle, loss, rate):
        axes.grid(alpha=0.25)
        for place in list(starts.values())[1:]:
            axes.axvline(place, color="#999999", lw=0.8, ls=":")
    if title:
        angle.set_title(title)
    return figure


def _draw_angles(axes: Any, rows: Sequence[Row], seen: Sequence[float]) -> None:
    degrees = [DEGREES * row["validation_angle"] for row in rows]
    raw = [row.get("raw_validation_angle") for row in rows]
    has_average = any(value is not None for value in raw)
    if has_average:
        shown = [float("nan") if v is None else DEGREES * v for v in raw]
        axes.plot(seen, shown, "s--", ms=3, color="#d95f02", label="raw weights")
    label = "average of the weights, where kept" if has_average else "weights"
    axes.plot(seen, degrees, "o-", ms=3, color="#1b6ca8", label=label)
    best = min(range(len(rows)), key=lambda n: degrees[n])
    axes.plot(seen[best], degrees[best], "o", ms=8, mfc="none", color="#1b6ca8")
    axes.legend(
        frameon=False,
        title=f"best: {degrees[best]:.1f}° = {rows[best]['validation_angle']:.3f} rad",
    )


def draw_curves_if_possible(
    rows: Sequence[Row], path: str | os.PathLike[str], points: Sequence[Row] = ()
) -> None:
    """Save the curves where matplotlib is installed; a training goes on without."""
    from graphnet_icecube2nd.plots import save_figure

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
