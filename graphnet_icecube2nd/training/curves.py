"""The curves of a run: loss, angle and learning rate over the events it has seen."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from graphnet_icecube2nd.training.history import Row

DEGREES = 180 / math.pi
LOSS_LINES = (  # column, label, style, colour
    ("train_loss", "training, last step of a sub-epoch", ".", "#999999"),
    ("validation_loss", "validation", "o-", "#1b6ca8"),
)


def draw_curves(rows: Sequence[Row], title: str = "") -> Any:
    """Return a figure of a run's measurements.

    Args:
        rows: As `read_history` gives them.
        title: Above the curves.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no row.
    """
    from graphnet_icecube2nd.report.plots import new_figure

    if not rows:
        raise ValueError("a run without a finished sub-epoch has no curves")
    figure = new_figure(7.5, 7.0)
    angle, loss, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1.6]}
    )
    seen, borders = _events_seen(rows)
    _draw_angles(angle, rows, seen)
    for stage in sorted({row["stage"] for row in rows}):
        here = [n for n, row in enumerate(rows) if row["stage"] == stage]
        for name, text, style, colour in LOSS_LINES:
            loss.plot(
                [seen[n] for n in here],
                [rows[n][name] for n in here],
                style,
                ms=3,
                color=colour,
                label="" if stage else text,
            )
    loss.set_ylabel("loss of the stage")
    loss.legend(frameon=False)
    rate.semilogy(seen, [row["learning_rate"] for row in rows], ".", color="#555555")
    rate.set_ylabel("learning rate\nat the end")
    rate.set_xlabel("events seen, in thousands (dotted: a new stage)")
    for axes in (angle, loss, rate):
        axes.grid(alpha=0.25)
        for place in borders:
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
    axes.set_ylabel("mean opening angle of\nthe validation, deg")


def draw_curves_if_possible(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Save the curves where matplotlib is installed; a training goes on without."""
    from graphnet_icecube2nd.report.plots import save_figure

    try:
        figure = draw_curves(rows)
    except ImportError:
        return
    save_figure(figure, path)


def _events_seen(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return thousands of events seen by each row, over all stages, and the borders."""
    seen: list[float] = []
    borders: list[float] = []
    before = 0.0
    for number, row in enumerate(rows):
        if number and row["stage"] != rows[number - 1]["stage"]:
            before = seen[-1]
            borders.append(before)
        seen.append(before + row["events"] / 1000)
    return seen, borders
