"""One event as a picture: strings and pulses in space, and depth against time.

Colour is time, size is charge. Shape letters: T pulses, S DOMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.plots import new_figure
from graphnet_icecube2nd.report.event.view import (
    COLOURS,
    Arrow,
    energy_text,
    find_arrows,
    inside_box,
    lit_doms,
    read_event,
    time_range,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.summary import EventView

Array = NDArray[np.float64]

TRUTH_COLOUR = "black"
TIME_COLOURS = "turbo_r"  # red is early, as in the field's displays
VERTEX_STYLE = {"marker": "*", "markersize": 14, "ls": "", "zorder": 5}
_LEGEND_CHARGES = (1.0, 10.0, 100.0)


def draw_event(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> Any:
    """Draw an event of a store.

    Left, the detector in space: thin lines are strings, a dot is a DOM that saw light,
    at the time of its first pulse and with the charge of all. Right, the same dots,
    height against time, beside which a particle at the speed of light is a line.
    Arrows show where the neutrino flew.

    Args:
        store: The store.
        number: The event's place in it.
        tables: Reconstructed directions; those that have the event are drawn.
        with_auxiliary: Draw pulses that are not HLC, too; most are noise.

    Returns:
        A matplotlib figure; `plots.save_figure` writes it.

    Raises:
        ValueError: No such event, or one without pulses.
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(13.0, 6.6)
    view, pulses = read_event(store, number)
    doms, only_hlc = lit_doms(store, pulses, with_auxiliary)
    arrows = find_arrows(store, view, tables, doms)
    grid = figure.add_gridspec(1, 3, width_ratios=[1.0, 0.04, 0.95])
    space = figure.add_subplot(grid[0], projection="3d")
    times = figure.add_subplot(grid[2])
    _draw_space(space, store, doms, arrows)
    dots = _draw_times(times, doms, arrows)
    label = "time of the first pulse of a DOM [ns]"
    figure.colorbar(dots, ax=times, extend="max", label=label)
    figure.suptitle(_title(view, len(doms.time_T), only_hlc))
    return figure


def _coloured(arrows: Sequence[Arrow]) -> list[tuple[Arrow, str]]:
    """Return arrows with their colours, which begin anew where there are many."""
    others = cycle(COLOURS)
    return [(a, TRUTH_COLOUR if a.is_truth else next(others)) for a in arrows]


def _sizes(charge_T: Array) -> Array:
    """Return the area of dots, points squared: it grows with the root of the charge."""
    size: Array = 22.0 * np.sqrt(np.clip(charge_T, 0.1, 1e4))
    return size


def _time_norm(time_T: Array) -> Any:
    from matplotlib.colors import Normalize

    return Normalize(*time_range(time_T))


def _draw_space(
    axes: Any, store: EventStore, doms: EventPulses, arrows: list[Arrow]
) -> None:
    from matplotlib.lines import Line2D

    place_S3 = store.geometry.position_S3.numpy()
    string_S = store.geometry.string_S.numpy()
    for string in np.unique(string_S):
        x, y, z = place_S3[string_S == string].T
        axes.plot(
            [x[0], x[-1]], [y[0], y[-1]], [z.min(), z.max()], color="0.85", lw=0.6
        )
    x, y, z = doms.position_T3.T
    axes.scatter(
        x,
        y,
        z,
        c=doms.time_T,
        norm=_time_norm(doms.time_T),
        s=_sizes(doms.charge_T),
        cmap=TIME_COLOURS,
        depthshade=False,
        edgecolors="black",
        linewidths=0.3,
    )
    low, high = place_S3.min(axis=0) - 60.0, place_S3.max(axis=0) + 60.0
    handles = []
    for arrow, colour in _coloured(arrows):
        steps = inside_box(arrow, low, high)
        begin, end = (arrow.through + step * arrow.flight for step in steps)
        style = "-" if arrow.is_truth else "--"
        axes.plot(*np.stack([begin, end]).T, color=colour, ls=style, lw=1.6)
        if arrow.is_vertex:
            axes.plot(*arrow.through[:, None], color=colour, **VERTEX_STYLE)
        tip = 0.08 * float(np.linalg.norm(high - low))
        axes.quiver(
            *(end - tip * arrow.flight),
            *(tip * arrow.flight),
            color=colour,
            arrow_length_ratio=0.6,
        )
        label = f"{arrow.name}, flight"
        handles.append(Line2D([], [], color=colour, ls=style, label=label))
    for charge in _LEGEND_CHARGES:
        size = float(np.sqrt(_sizes(np.array([charge]))[0]))
        handles.append(
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                markersize=size,
                markerfacecolor="0.7",
                markeredgecolor="black",
                label=f"{charge:g} p.e.",
            )
        )
    axes.legend(handles=handles, loc="upper left", fontsize=8, labelspacing=0.9)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_zlim(low[2], high[2])
    axes.set_box_aspect(high - low)
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_zlabel("z [m]")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.98, 0.98, 0.98, 1.0))
        axis._axinfo["grid"].update(color="0.9", linewidth=0.5)
    axes.view_init(elev=12, azim=_viewpoint(arrows))


def _viewpoint(arrows: list[Arrow]) -> float:
    """Return the azimuth [deg] from which the first arrow is seen from the side."""
    if not arrows:
        return -60.0
    x, y, _ = arrows[0].flight
    return float(np.degrees(np.arctan2(y, x))) - 75.0


def _draw_times(axes: Any, doms: EventPulses, arrows: list[Arrow]) -> Any:
    dots = axes.scatter(
        doms.time_T,
        doms.position_T3[:, 2],
        c=doms.time_T,
        norm=_time_norm(doms.time_T),
        s=_sizes(doms.charge_T),
        cmap=TIME_COLOURS,
        edgecolors="black",
        linewidths=0.3,
    )
    first, last = float(doms.time_T.min()), float(doms.time_T.max())
    room = 0.05 * (last - first) + 50.0
    for arrow, colour in _coloured(arrows):
        if arrow.time is None:
            continue
        if arrow.is_vertex:
            place = [arrow.time], [arrow.through[2]]
            axes.plot(*place, color=colour, label="true vertex", **VERTEX_STYLE)
            axes.legend(loc="best", fontsize=8)
            first = min(first, arrow.time)
            continue
        when = np.array([first - room, last + room])
        height = arrow.through[2] + arrow.flight[2] * SPEED_OF_LIGHT * (
            when - arrow.time
        )
        axes.plot(when, height, color=colour, lw=1.2, label="true particle")
        axes.legend(loc="best", fontsize=8)
    z = doms.position_T3[:, 2]
    margin = 0.08 * float(np.ptp(z)) + 30.0
    axes.set_xlim(first - room, last + room)
    axes.set_ylim(z.min() - margin, z.max() + margin)
    axes.set_xlabel("time in the readout window [ns]")
    axes.set_ylabel("z [m]")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return dots


def _title(view: EventView, num_doms: int, only_hlc: bool) -> str:
    truth = view.truth
    parts = [f"event {view.event_id}"]
    if "topology" in truth:
        parts.append(str(truth["topology"]).replace("_", " "))
    if "energy" in truth:
        parts.append(f"{energy_text(float(truth['energy']))}")
    what = "DOMs with HLC pulses" if only_hlc else "DOMs with pulses"
    parts.append(f"{num_doms} {what}, {truth['n_pulses']} pulses in all")
    return ", ".join(parts)
