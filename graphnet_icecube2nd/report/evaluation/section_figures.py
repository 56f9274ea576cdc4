"""Figures of a task's section, drawn in one style for all tasks.

A task describes its panels (`tasks.section`); this module draws them side by side with
matplotlib. Legends stand below the panels, so that they never cover data. Shape
letters: R rows, C columns, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.plots import TableStyle, decades_only, new_figure, plain_log
from graphnet_icecube2nd.tasks.section import Curve, Panel

ACROSS = 30  # letters of the names below a coloured table that fit side by side
GRID = {"color": "0.9", "lw": 0.6}
PANELS_ACROSS = 3
WIDTHS = {1: 6.5, 2: 9.5, 3: 12.5}  # inches, by the number of panels side by side
HEIGHT = 3.7  # inches, row of panels without its legends
LEGEND_ROW = 0.2  # inches
DODGE = 4.0  # points between the marks of two tables at the same x
REFERENCE = "0.45"  # grey
MARKED = ("points", "joined")


def draw_section_figure(panels: Sequence[Panel]) -> Any:
    """Draw panels as a matplotlib figure, up to three in a row."""
    # Four panels are two rows of two.
    across = 2 if len(panels) == 4 else min(len(panels), PANELS_ACROSS)
    down = -(-len(panels) // across)
    rows_of_legend = max(sum(bool(c.label) for c in p.curves) for p in panels)
    height = down * (HEIGHT + LEGEND_ROW * rows_of_legend)
    figure = new_figure(WIDTHS[across], height)
    grid = figure.add_gridspec(down, across)
    for number, panel in enumerate(panels):
        place, lowest = grid[divmod(number, across)], None
        if panel.below:
            place, low = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
            lowest = figure.add_subplot(low)
        axes = figure.add_subplot(place)
        if panel.cells is None:
            drawn = _draw_curves(axes, panel)
        else:
            drawn = []
            _draw_cells(axes, panel, panel.cells)
        axes.set_ylabel(panel.y_label)
        if lowest is not None:
            _draw_below(axes, lowest, panel)
        _draw_legend(lowest or axes, panel, drawn)
        (lowest or axes).set_xlabel(panel.x_label)
        if panel.title:
            axes.set_title(panel.title, fontsize=10)
    return figure


def _draw_below(axes: Any, lowest: Any, panel: Panel) -> None:
    """Draw the lower panel, with the x axis of the upper one."""
    ratio = replace(panel, curves=panel.below, x_range=axes.get_xlim(), y_range=None)
    _draw_curves(lowest, ratio)
    lowest.set_ylabel(panel.below_label)
    axes.tick_params(labelbottom=False)


def _draw_curves(axes: Any, panel: Panel) -> list[Any]:
    """Draw the curves of a panel and its axes; return the legend's handles."""
    # A perfect table has only zeros, which a logarithmic axis cannot show.
    x_log = panel.x_log and any((curve.x > 0).any() for curve in panel.curves)
    y_log = panel.y_log and any((curve.y > 0).any() for curve in panel.curves)
    axes.set_xscale("log" if x_log else "linear")
    axes.set_yscale("log" if y_log else "linear")
    marked = [curve for curve in panel.curves if curve.style in MARKED]
    tables = sorted({curve.table for curve in marked})
    places = np.concatenate([curve.x for curve in marked]) if marked else np.empty(0)
    overlap = len(np.unique(places)) < len(places)
    drawn = []
    for curve in panel.curves:
        shift = 0.0
        if overlap and curve.style in MARKED:
            shift = DODGE * (tables.index(curve.table) - (len(tables) - 1) / 2)
        drawn.append(_draw_curve(axes, curve, shift, y_log))
    axes.autoscale_view()
    axes.set_xlim(*panel.x_range or (None, None))
    axes.set_ylim(*panel.y_range or (None, None))
    if panel.columns:
        axes.set_xticks(range(len(panel.columns)), list(panel.columns), fontsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            plain = high < 100 * low or (high < 3000 * low and high < 3000)
            (plain_log if plain else decades_only)(axis)
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    return drawn


def _draw_legend(axes: Any, panel: Panel, drawn: Sequence[Any]) -> None:
    """Draw a panel's legend below axes."""
    labels = [curve.label for curve in panel.curves]
    if not any(labels):
        return
    lines = max((name.count("\n") for name in panel.columns), default=0)
    drop = (-0.17 - 0.05 * lines) * (4 if panel.below else 1)
    axes.legend(
        [handle for handle, label in zip(drawn, labels, strict=True) if label],
        [label for label in labels if label],
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(0.0, drop),
        frameon=False,
        borderaxespad=0.0,
    )


def _draw_curve(axes: Any, curve: Curve, shift: float, y_log: bool) -> Any:
    """Draw one curve and return its legend handle.

    Marks move by `shift` points to the right, so that the marks of several tables stay
    visible. A logarithmic y axis leaves out zeros.
    """
    look = TableStyle.numbered(curve.table)
    if curve.style == "reference":
        line = axes.plot(curve.x, curve.y, color=REFERENCE, lw=1.0, zorder=1.5)[0]
        return _band(axes, curve, "0.9", 1.0) or line
    if curve.style == "steps":
        values = np.where(curve.y > 0, curve.y, np.nan) if y_log else curve.y
        ls, baseline = "--" if curve.dashed else "-", None if y_log else 0.0
        style = {"color": look.colour, "ls": ls, "lw": 1.4}
        return axes.stairs(values, curve.x, baseline=baseline, **style)
    if curve.style == "line":
        _band(axes, curve, look.colour, 0.15)
        ls = ":" if curve.dashed else look.line
        return axes.plot(curve.x, curve.y, color=look.colour, ls=ls, lw=1.4)[0]
    if curve.style not in MARKED:
        raise ValueError(
            f"curve {curve.label!r}: style must be line, points, joined, steps or "
            f"reference, found {curve.style!r}"
        )
    from matplotlib.transforms import ScaledTranslation

    moved = ScaledTranslation(shift / 72, 0.0, axes.figure.dpi_scale_trans)
    handle = axes.errorbar(
        curve.x,
        curve.y,
        _bars(curve),
        color=look.colour,
        marker=look.marker,
        mfc="white" if curve.dashed else look.colour,
        ms=4.5,
        ls=look.line if curve.style == "joined" else "none",
        lw=1.2,
        capsize=2,
        transform=axes.transData + moved,
    )
    # Artists with a transform of their own do not count for the limits.
    for y in (curve.y, curve.low, curve.high):
        if y is not None:
            axes.update_datalim(np.column_stack([curve.x, y]))
    return handle


def _band(axes: Any, curve: Curve, colour: str, alpha: float) -> Any:
    """Fill the interval around a curve, if it has one."""
    if curve.low is None or curve.high is None:
        return None
    style = {"color": colour, "alpha": alpha, "lw": 0, "zorder": 1.0}
    return axes.fill_between(curve.x, curve.low, curve.high, **style)


def _bars(curve: Curve) -> NDArray[np.float64] | None:
    """Return the lengths of the interval below and above, (2, N), or None."""
    if curve.low is None or curve.high is None:
        return None
    return np.clip([curve.y - curve.low, curve.high - curve.y], 0.0, None)


def _draw_cells(axes: Any, panel: Panel, cells_RC: NDArray[np.float64]) -> None:
    """Draw a table of numbers as coloured cells that show the numbers."""
    top = max(1.0, float(np.nanmax(cells_RC, initial=0.0)))
    axes.imshow(cells_RC, cmap="Blues", vmin=0.0, vmax=top, aspect="equal")
    for (row, column), value in np.ndenumerate(cells_RC):
        colour = "white" if value > 0.55 * top else "black"
        middle = {"ha": "center", "va": "center"}
        axes.text(column, row, f"{value:.3g}", color=colour, **middle)
    slant = {}
    if max(map(len, panel.columns), default=0) * cells_RC.shape[1] > ACROSS:
        slant = {"rotation": 30, "ha": "right"}
    axes.set_xticks(range(cells_RC.shape[1]), list(panel.columns), **slant)
    axes.set_yticks(range(cells_RC.shape[0]), list(panel.rows))
    axes.tick_params(length=0)
