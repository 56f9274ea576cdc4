"""One event as a picture: strings and pulses in space, and depth against time.

Colour is time, size is charge. Shape letters: T pulses, S DOMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT, angles_to_unit_vector
from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
from graphnet_icecube2nd.reconstruction.event_pulses import EventPulses
from graphnet_icecube2nd.report.plots import new_figure
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.summary import EventView, view_event

Array = NDArray[np.float64]

TRUTH_COLOUR = "black"
COLOURS = ("tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
TIME_COLOURS = "turbo_r"  # red is early, as in the field's displays
VERTEX_STYLE = {"marker": "*", "markersize": 14, "ls": "", "zorder": 5}
_LEGEND_CHARGES = (1.0, 10.0, 100.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrow:
    """A direction to be drawn.

    Args:
        name: For the legend.
        flight: (3,) where the particle flies, unit vector.
        through: (3,) a point it passes, m.
        time: When it is there, ns; None where that is not known.
        is_vertex: Whether the particle ends there, in a cascade.
        colour: matplotlib's name.
    """

    name: str
    flight: Array
    through: Array
    time: float | None
    is_vertex: bool
    colour: str


def draw_event(
    store: EventStore,
    number: int,
    tables: Sequence[DirectionTable] = (),
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
    view = view_event(store, number)
    if not view.truth["n_pulses"]:
        raise ValueError(f"event {view.event_id} has no pulses to be drawn")
    pulses = EventPulses.read(store, np.array([number]))
    lit, pulse_map = pulses.hlc_T, store.pulse_map
    has_flag = pulse_map.hlc is not None or pulse_map.auxiliary is not None
    only_hlc = has_flag and bool(lit.any()) and not with_auxiliary
    if not only_hlc:
        lit = np.ones_like(lit)
    doms = _first_and_total(pulses.keep(lit))
    arrows = _arrows(store, view, tables, doms)
    grid = figure.add_gridspec(1, 3, width_ratios=[1.0, 0.04, 0.95])
    space = figure.add_subplot(grid[0], projection="3d")
    times = figure.add_subplot(grid[2])
    _draw_space(space, store, doms, arrows)
    dots = _draw_times(times, doms, arrows)
    label = "time of the first pulse of a DOM [ns]"
    figure.colorbar(dots, ax=times, extend="max", label=label)
    figure.suptitle(_title(view, len(doms.time_T), only_hlc))
    return figure


def _first_and_total(pulses: EventPulses) -> EventPulses:
    """Return one row a DOM: its first pulse, with the charge of all."""
    _, row_T = np.unique(pulses.position_T3, axis=0, return_inverse=True)
    row_T = row_T.ravel()
    order = np.lexsort((pulses.time_T, row_T))
    first = np.ones(len(order), bool)
    first[1:] = row_T[order][1:] != row_T[order][:-1]
    chosen = order[first]
    total = np.bincount(row_T, pulses.charge_T).astype(np.float64)
    return EventPulses(
        position_T3=pulses.position_T3[chosen],
        time_T=pulses.time_T[chosen],
        charge_T=total,
        hlc_T=pulses.hlc_T[chosen],
        dom_T=pulses.dom_T[chosen],
        offsets=np.array([0, len(chosen)]),
        event_id=pulses.event_id,
    )


def _arrows(
    store: EventStore,
    view: EventView,
    tables: Sequence[DirectionTable],
    doms: EventPulses,
) -> list[Arrow]:
    """Return the true and the reconstructed directions.

    A direction alone has no place: such an arrow passes the middle of the charge.
    """
    centre = np.average(doms.position_T3, axis=0, weights=doms.charge_T)
    found = []
    if store.has_directions:
        pulse_map = store.pulse_map
        direction = angles_to_unit_vector(
            float(view.truth[pulse_map.zenith]), float(view.truth[pulse_map.azimuth])
        ).numpy()
        flight = direction if pulse_map.angles == "flight" else -direction
        through, time, is_vertex = centre, None, False
        places = [view.truth.get(f"position_{axis}") for axis in "xyz"]
        if None not in places:
            vertex = np.array(places, dtype=np.float64) - pulse_map.origin
            # The point of the true line that is nearest to the light.
            along = float((centre - vertex) @ flight)
            if view.truth.get("topology") in ("cascade", "double_cascade"):
                along, is_vertex = 0.0, True
            through = vertex + along * flight
            if view.truth.get("vertex_time") is not None:
                time = float(view.truth["vertex_time"]) + along / SPEED_OF_LIGHT
        found.append(
            Arrow(
                name="truth",
                flight=flight,
                through=through,
                time=time,
                is_vertex=is_vertex,
                colour=TRUTH_COLOUR,
            )
        )
    for table, colour in zip(tables, _repeated(COLOURS), strict=False):
        row = np.flatnonzero(table.event_id == view.event_id)
        if len(row) and table.is_ok[row[0]]:
            found.append(
                Arrow(
                    name=table.name,
                    flight=-table.direction_B3[row[0]],
                    through=centre,
                    time=None,
                    is_vertex=False,
                    colour=colour,
                )
            )
    return found


def _repeated(colours: Sequence[str]) -> Any:
    from itertools import cycle

    return cycle(colours)


def _sizes(charge_T: Array) -> Array:
    """Return the area of dots, points squared: it grows with the root of the charge."""
    size: Array = 22.0 * np.sqrt(np.clip(charge_T, 0.1, 1e4))
    return size


def _time_norm(time_T: Array) -> Any:
    """Return the range of colours: what comes very late does not stretch it."""
    from matplotlib.colors import Normalize

    first, last = np.quantile(time_T, [0.0, 0.95])
    return Normalize(float(first), float(max(last, first + 10.0)))


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
    for arrow in arrows:
        begin, end = _inside(arrow, low, high)
        style = "-" if arrow.name == "truth" else "--"
        axes.plot(*np.stack([begin, end]).T, color=arrow.colour, ls=style, lw=1.6)
        if arrow.is_vertex:
            axes.plot(*arrow.through[:, None], color=arrow.colour, **VERTEX_STYLE)
        tip = 0.08 * float(np.linalg.norm(high - low))
        axes.quiver(
            *(end - tip * arrow.flight),
            *(tip * arrow.flight),
            color=arrow.colour,
            arrow_length_ratio=0.6,
        )
        label = f"{arrow.name}, flight"
        handles.append(Line2D([], [], color=arrow.colour, ls=style, label=label))
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


def _inside(arrow: Arrow, low: Array, high: Array) -> tuple[Array, Array]:
    """Return where a line enters and leaves a box (or comes near it)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.stack([low - arrow.through, high - arrow.through]) / arrow.flight
    steps = np.where(np.isfinite(steps), steps, np.array([[-np.inf], [np.inf]]))
    begin, end = steps.min(axis=0).max(), steps.max(axis=0).min()
    if begin >= end:  # it passes outside
        begin, end = -300.0, 300.0
    return arrow.through + begin * arrow.flight, arrow.through + end * arrow.flight


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
    for arrow in arrows:
        if arrow.time is None:
            continue
        if arrow.is_vertex:
            place = [arrow.time], [arrow.through[2]]
            axes.plot(*place, color=arrow.colour, label="true vertex", **VERTEX_STYLE)
            axes.legend(loc="best", fontsize=8)
            first = min(first, arrow.time)
            continue
        when = np.array([first - room, last + room])
        height = arrow.through[2] + arrow.flight[2] * SPEED_OF_LIGHT * (
            when - arrow.time
        )
        axes.plot(when, height, color=arrow.colour, lw=1.2, label="true particle")
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
        parts.append(f"{_energy(float(truth['energy']))}")
    what = "DOMs with HLC pulses" if only_hlc else "DOMs with pulses"
    parts.append(f"{num_doms} {what}, {truth['n_pulses']} pulses in all")
    return ", ".join(parts)


def _energy(value: float) -> str:
    for unit, size in (("PeV", 1e6), ("TeV", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} GeV"
