"""The picture of a robustness report: differences with intervals, by perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from graphnet_icecube2nd.evaluation.bootstrap import LEVEL
from graphnet_icecube2nd.evaluation.robustness import RobustnessRow
from graphnet_icecube2nd.plots import new_figure

LINEAR = 0.01  # rad: the axis is linear up to here, logarithmic beyond
_HEADER = 1.1  # rows that a group's name takes
_ROW = 0.165  # inches


def draw_robustness(rows: Sequence[RobustnessRow], title: str = "") -> Any:
    """Return a matplotlib figure of the differences from the baseline.

    Black and white: filled marks are differences whose interval does not hold 0. The
    axis is linear near 0 and logarithmic beyond, for a mirrored truth costs a thousand
    times what a nanosecond does.

    Args:
        rows: The baseline first.
        title: Above the picture, followed by the baseline's mean opening angle.

    Raises:
        ImportError: matplotlib is not installed.
    """
    baseline, others = rows[0], rows[1:]
    places, borders = _places(others)
    figure = new_figure(6.5, 1.4 + _ROW * (places[-1] if places else 1))
    axes = figure.subplots()
    low, high = _range(others)
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.8)
    axes.set_xlim(low, high)
    ticks = [t for t in (-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0) if low <= t <= high]
    axes.set_xticks(
        ticks, [f"{tick:+g}" if tick else "0" for tick in ticks], fontsize=8
    )
    axes.minorticks_off()
    for tick in ticks:
        axes.axvline(tick, color="0.2" if tick == 0 else "0.85", lw=0.8, zorder=0)
    for place, row in zip(places, others, strict=True):
        _draw_row(axes, place, row)
    for number, (group, start, stop) in enumerate(borders):
        if number % 2:
            axes.axhspan(start, stop, color="0.95", zorder=-1)
        axes.text(
            -0.012,
            start + 0.5,
            group,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7.5,
            weight="bold",
        )
    axes.set_yticks(places, [row.strength for row in others], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(borders[-1][2] if borders else 1.0, borders[0][1] if borders else 0.0)
    axes.set_xlabel(
        "change of the mean opening angle, rad (above 0: worse)\n"
        f"bars: {LEVEL:.0%} of a paired bootstrap; open: the bar holds 0\n"
        f"axis linear to {LINEAR:g} rad, logarithmic beyond",
        fontsize=8,
    )
    axes.set_title(
        f"{title + '; ' if title else ''}baseline {baseline.mean:.4f} rad",
        fontsize=9,
    )
    return figure


def _draw_row(axes: Any, place: float, row: RobustnessRow) -> None:
    """Draw a difference with its interval, and write it at the right."""
    fill = "black" if row.low > 0 or row.high < 0 else "white"
    axes.plot([row.low, row.high], [place, place], color="black", lw=1.1)
    axes.plot(row.difference, place, "o", ms=4.5, mfc=fill, mec="black")
    axes.text(
        1.01,
        place,
        f"{row.difference:+.4f}",
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=7,
    )


def _places(
    rows: Sequence[RobustnessRow],
) -> tuple[list[float], list[tuple[str, float, float]]]:
    """Return heights of rows, downwards; and each group's name, start and stop."""
    places: list[float] = []
    borders: list[tuple[str, float, float]] = []
    height = 0.0
    for group, members in groupby(rows, key=lambda row: row.group):
        start, first = height, height + _HEADER + 0.5
        places += [first + number for number, _ in enumerate(members)]
        height = places[-1] + 0.5
        borders.append((group, start, height))
    return places, borders


def _range(rows: Sequence[RobustnessRow]) -> tuple[float, float]:
    """Return where the axis starts and ends, rad: all bars, and some of the line."""
    least = min((row.low for row in rows), default=0.0)
    most = max((row.high for row in rows), default=0.0)
    return min(1.5 * least, -1.2 * LINEAR), max(1.5 * most, 1.2 * LINEAR)
