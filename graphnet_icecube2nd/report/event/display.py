"""One event as a picture: strings and pulses in space, and depth against time.

Colour is time, size is charge. Shape letters: T pulses, S DOMs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.plots import new_figure
from graphnet_icecube2nd.report.event.view import (
    Arrow,
    Words,
    find_arrows,
    find_modules,
    inside_box,
    known_truth,
    lit_doms,
    read_event,
    time_range,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.simulation.particles import across
from graphnet_icecube2nd.store.event_store import EventStore, EventView

Array = NDArray[np.float64]

TRUTH_COLOUR = "black"
TIME_COLOURS = "turbo_r"  # red is early, as in the field's displays
VERTEX_STYLE = {"marker": "*", "markersize": 14, "ls": "", "zorder": 5}
ANSWER_WIDTH = 165  # characters of a line below the panels
MARGIN = 0.035  # around the detector in space, in units of its diagonal
WIDEST_CONE = 1.0  # rad; wider ones would fill the picture
_LEGEND_CHARGES = (1.0, 10.0, 100.0)


def draw_event(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> Any:
    """Draw an event of a store.

    The left panel shows the detector in space: thin lines are strings (none if the
    store does not know the detector's modules), and each dot is a DOM with pulses,
    coloured by the time of its first pulse and sized by its total charge. The right
    panel shows the height of the same dots against time; a particle at the speed of
    light is a line there. Arrows show the direction of flight, circles
    the 50% cone, stars a vertex with its width. Below are the answers of each table,
    which need not have directions.

    Args:
        store: Event store.
        number: Row of the event in the store.
        tables: Results; tables that have the event are drawn.
        with_auxiliary: Draw auxiliary pulses (not HLC) as well; most of them are noise.

    Returns:
        A matplotlib figure; `plots.save_figure` writes it.

    Raises:
        ValueError: The store has no such event, or the event has no pulses.
        ImportError: matplotlib is not installed.
    """
    view, pulses = read_event(store, number)
    pulses = find_modules(store, pulses)
    words = Words.of(store, pulses)
    doms, only_hlc = lit_doms(store, pulses, with_auxiliary)
    arrows = find_arrows(store, view, tables, doms)
    lines = list(_answer_lines(arrows))
    below = 0.21 * (len(lines) + 1) * bool(lines)  # inches
    figure = new_figure(13.0, 6.6 + below)
    grid = figure.add_gridspec(
        2, 3, width_ratios=[1.3, 0.04, 0.95], height_ratios=[6.6, max(below, 1e-3)]
    )
    space = figure.add_subplot(grid[0, 0], projection="3d")
    times = figure.add_subplot(grid[0, 2])
    # Pulses away from all DOMs belong to a detector whose table the store lacks.
    modules = store.geometry if (doms.dom_T >= 0).any() else None
    _draw_space(space, modules, doms, arrows, words)
    dots = _draw_times(times, doms, arrows, words)
    label = f"time of the first pulse of a {words.module} [ns]"
    figure.colorbar(dots, ax=times, extend="max", label=label)
    figure.suptitle(_title(view, len(doms.time_T), only_hlc, words))
    texts = figure.add_subplot(grid[1, :])
    texts.axis("off")
    for row, (text, colour) in enumerate(lines):
        height = 1.0 - (row + 0.5) / (len(lines) + 0.5)
        texts.text(
            0.0, height, text, color=colour, fontsize=9, va="center", in_layout=False
        )
    return figure


def _answer_lines(arrows: list[Arrow]) -> Iterator[tuple[str, str]]:
    """Yield lines with the answers of each table, and their colour."""
    for arrow in arrows:
        if arrow.answers:
            colour = arrow.colour or TRUTH_COLOUR
            text = f"{arrow.name}: {'; '.join(arrow.answers)}"
            for line in wrap(text, ANSWER_WIDTH, subsequent_indent="    "):
                yield line, colour


def _look(arrow: Arrow) -> dict[str, Any]:
    """Return the line style of an arrow."""
    return {"color": arrow.colour or TRUTH_COLOUR, "ls": "--" if arrow.colour else "-"}


def _sizes(charge_T: Array) -> Array:
    """Return the area of dots, points^2; it grows with the root of the charge."""
    size: Array = 22.0 * np.sqrt(np.clip(charge_T, 0.1, 1e4))
    return size


def _draw_dots(axes: Any, doms: EventPulses, *place_T: Array, **more: Any) -> Any:
    """Draw DOMs as dots with time as colour and charge as size."""
    from matplotlib.colors import Normalize

    return axes.scatter(
        *place_T,
        c=doms.time_T,
        norm=Normalize(*time_range(doms.time_T)),
        s=_sizes(doms.charge_T),
        cmap=TIME_COLOURS,
        edgecolors="black",
        linewidths=0.3,
        **more,
    )


def _draw_space(
    axes: Any,
    modules: DetectorGeometry | None,
    doms: EventPulses,
    arrows: list[Arrow],
    words: Words,
) -> None:
    """Draw strings, DOMs with pulses, and arrows in space."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    outline_S3 = doms.position_T3
    if modules is not None:
        place_S3, string_S = modules.position_S3.numpy(), modules.string_S.numpy()
        for string in np.unique(string_S):
            x, y, z = place_S3[string_S == string].T
            ends = [x[0], x[-1]], [y[0], y[-1]], [z.min(), z.max()]
            axes.plot(*ends, color="0.85", lw=0.6)
        outline_S3 = np.concatenate([place_S3, outline_S3])
    _draw_dots(axes, doms, *doms.position_T3.T, depthshade=False)
    low, high = outline_S3.min(axis=0), outline_S3.max(axis=0)
    margin = MARGIN * float(np.linalg.norm(high - low)) + 5.0
    low, high = low - margin, high + margin
    handles = []
    for arrow in arrows:
        look = _look(arrow)
        if arrow.vertex is not None:
            _draw_vertex(axes, arrow, look["color"])
        if arrow.flight is None:
            continue
        steps = inside_box(arrow, low, high)
        begin, end = (arrow.through + step * arrow.flight for step in steps)
        axes.plot(*np.stack([begin, end]).T, lw=1.6, **look)
        if arrow.is_vertex:
            axes.plot(*arrow.through[:, None], color=look["color"], **VERTEX_STYLE)
        if arrow.radius_50 is not None and arrow.radius_50 < WIDEST_CONE:
            rim_N3 = _cone_rim(arrow, abs(steps[0]))
            axes.plot(*rim_N3.T, color=look["color"], lw=0.9)
        tip = 0.08 * float(np.linalg.norm(high - low)) * arrow.flight
        axes.quiver(*(end - tip), *tip, color=look["color"], arrow_length_ratio=0.6)
        handles.append(Line2D([], [], label=f"{arrow.name}, flight", **look))
    dot: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "0.7", "mec": "black"}
    for charge in _LEGEND_CHARGES:
        size = float(np.sqrt(_sizes(np.array([charge]))[0]))
        handles.append(Line2D([], [], ms=size, label=words.amount(charge), **dot))
    # The legend stands left of the axes, where it covers neither ticks nor dots.
    outside: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (0.0, 1.0)}
    axes.legend(handles=handles, fontsize=8, labelspacing=0.9, **outside)
    axes.set_box_aspect(high - low)
    shares = (high - low) / (high - low).max()
    for name, *limits, share in zip("xyz", low, high, shares, strict=True):
        axes.set(**{f"{name}lim": limits, f"{name}label": f"{name} [m]"})
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(MaxNLocator(max(2, int(6 * share))))
        axis.set_pane_color((0.98, 0.98, 0.98, 1.0))
        axis._axinfo["grid"].update(color="0.9", linewidth=0.5)
    axes.view_init(elev=12, azim=_viewpoint(arrows))


def _draw_vertex(axes: Any, arrow: Arrow, colour: str) -> None:
    """Draw a reconstructed vertex with its width along x, y and z."""
    assert arrow.vertex is not None
    axes.plot(*arrow.vertex[:, None], color=colour, **VERTEX_STYLE)
    if arrow.vertex_sigma is not None:
        for axis_3 in np.eye(3):
            ends = [arrow.vertex + s * arrow.vertex_sigma * axis_3 for s in (-1, 1)]
            axes.plot(*np.stack(ends).T, color=colour, lw=1.2)


def _cone_rim(arrow: Arrow, length: float, num: int = 73) -> Array:
    """Return the rim of the 50% cone where the particle comes from, (N, 3) m."""
    assert arrow.radius_50 is not None
    assert arrow.flight is not None
    first, second = across(arrow.flight)
    turn_N1 = np.linspace(0.0, 2 * np.pi, num)[:, None]
    aside_N3 = np.cos(turn_N1) * first + np.sin(turn_N1) * second
    radius = arrow.radius_50
    rim: Array = length * (np.sin(radius) * aside_N3 - np.cos(radius) * arrow.flight)
    return arrow.through + rim


def _viewpoint(arrows: list[Arrow]) -> float:
    """Return the azimuth [deg] of a view from the side of the first direction."""
    flight = next((a.flight for a in arrows if a.flight is not None), None)
    if flight is None:
        return -60.0
    x, y, _ = flight
    return float(np.degrees(np.arctan2(y, x))) - 75.0


def _draw_times(axes: Any, doms: EventPulses, arrows: list[Arrow], words: Words) -> Any:
    """Draw height against time; return the dots."""
    z = doms.position_T3[:, 2]
    dots = _draw_dots(axes, doms, doms.time_T, z)
    first, last = float(doms.time_T.min()), float(doms.time_T.max())
    low, high = float(z.min()), float(z.max())
    room = 0.05 * (last - first) + 50.0
    for arrow in arrows:
        if arrow.vertex is not None and arrow.vertex_time is not None:
            colour = _look(arrow)["color"]
            axes.errorbar(
                arrow.vertex_time,
                arrow.vertex[2],
                xerr=arrow.vertex_time_sigma,
                yerr=arrow.vertex_sigma,
                color=colour,
                lw=1.2,
                capsize=2,
                label=f"{arrow.name}, vertex",
                **VERTEX_STYLE,
            )
            first = min(first, arrow.vertex_time)
            sigma = arrow.vertex_sigma or 0.0
            low = min(low, arrow.vertex[2] - sigma)
            high = max(high, arrow.vertex[2] + sigma)
            axes.legend(loc="best", fontsize=8)
        if arrow.time is None or arrow.flight is None:
            continue
        style: dict[str, Any] = {"color": _look(arrow)["color"]}
        if arrow.is_vertex:
            when, height = np.array([arrow.time]), arrow.through[2:]
            style |= {"label": "true vertex", **VERTEX_STYLE}
            first = min(first, arrow.time)
            low, high = min(low, height[0]), max(high, height[0])
        else:
            when = np.array([first - room, last + room])
            way = SPEED_OF_LIGHT * (when - arrow.time)
            height = arrow.through[2] + arrow.flight[2] * way
            style |= {"label": "true particle", "lw": 1.2}
        axes.plot(when, height, **style)
        axes.legend(loc="best", fontsize=8)
    margin = 0.1 * (high - low) + 10.0
    axes.set_xlim(first - room, last + room)
    axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel=f"{words.clock} [ns]", ylabel="z [m]")
    axes.locator_params(axis="x", nbins=6)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return dots


def _title(view: EventView, num_doms: int, only_hlc: bool, words: Words) -> str:
    what = f"{words.module}s with {words.flag} pulses"
    if not only_hlc:
        what = f"{words.module}s with pulses"
    count = f"{num_doms} {what}, {view.truth['n_pulses']} pulses in all"
    return ", ".join([f"event {view.event_id}", *known_truth(view), count])
