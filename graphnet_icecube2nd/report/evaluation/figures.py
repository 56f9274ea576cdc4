"""Pictures of an evaluation: how far directions are off, on the whole and by bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bins import (
    ENERGY,
    PULSES,
    TOPOLOGY,
    ZENITH,
    BinRow,
)
from graphnet_icecube2nd.evaluation.metrics import Estimate, Evaluation
from graphnet_icecube2nd.plots import (
    Look,
    decades_only,
    new_figure,
    plain_log,
)

LABELS = {
    ENERGY: "energy of the neutrino [GeV]",
    ZENITH: "cosine of the zenith, 1: from above, -1: through the Earth",
    PULSES: "pulses of the event",
}
GRID = {"color": "0.9", "lw": 0.6}
MEAN_LABEL = "mean opening angle [rad]"
PANELS_ACROSS = 3


def draw_distribution(evaluation: Evaluation) -> Any:
    """Draw which share of the events is closer than an angle."""
    figure = new_figure(6.5, 4.2)
    axes = figure.subplots()
    share = (np.arange(len(evaluation.truth.event_id)) + 1) / len(
        evaluation.truth.event_id
    )
    lowest = 180.0
    for number, evaluated in enumerate(evaluation.tables):
        look = Look.of(number)
        angle = np.degrees(np.sort(evaluated.angle_B))
        median = float(np.median(angle))
        axes.plot(
            angle,
            share,
            color=look.colour,
            ls=look.line,
            label=f"{evaluated.name}: median {median:.3g} deg",
        )
        axes.plot([median], [0.5], look.marker, color=look.colour, ms=6)
        lowest = min(lowest, float(np.quantile(angle, 0.005)))
    axes.axhline(0.5, color="0.6", lw=0.6)
    angle = np.geomspace(max(lowest, 1e-3), 180.0, 300)
    guess = (1 - np.cos(np.radians(angle))) / 2
    axes.plot(angle, guess, color="0.6", lw=0.9, label="guessing")
    axes.set_xscale("log")
    axes.set_xlim(max(lowest, 1e-3), 180.0)
    plain_log(axes.xaxis)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("opening angle [deg]")
    axes.set_ylabel("share of the events that are closer")
    _finish(axes)
    return figure


def draw_bins(rows: Sequence[BinRow]) -> Any:
    """Draw mean and median opening angle against a quantity that has borders."""
    quantity = rows[0].bin.quantity
    figure = new_figure(9.5, 4.0)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(row.summary.table for row in rows))
    for number, name in enumerate(names):
        look, mine = Look.of(number), [r for r in rows if r.summary.table == name]
        low, high = (
            np.array([getattr(r.bin, e) for r in mine]) for e in ("low", "high")
        )
        middle = (low + high) / 2 if quantity == ZENITH else np.sqrt(low * high)
        # Side by side, or intervals would hide each other.
        step = (number - (len(names) - 1) / 2) * 0.08
        if quantity == ZENITH:
            middle = middle + step * (high - low)
        else:
            middle = middle * (high / low) ** step
        style = {"color": look.colour, "ls": look.line, "marker": look.marker, "ms": 4}
        for axes, field, unit in ((left, "mean", 1.0), (right, "median", 180 / np.pi)):
            found = [getattr(row.summary, field) for row in mine]
            value = unit * np.array([estimate.value for estimate in found])
            bars = unit * _bars(found)
            axes.errorbar(middle, value, bars, label=name, lw=1.2, capsize=2, **style)
        q68 = np.degrees([row.summary.q68.value for row in mine])
        right.plot(middle, q68, color=look.colour, ls=":", lw=0.9)
    for axes in (left, right):
        if quantity != ZENITH:
            axes.set_xscale("log", base=2 if quantity == PULSES else 10)
        if quantity == PULSES:
            edges = sorted(
                {row.bin.low for row in rows} | {row.bin.high for row in rows}
            )
            axes.set_xticks(edges, [f"{edge:.0f}" for edge in edges], fontsize=8)
            axes.minorticks_off()
        axes.set_xlabel(LABELS[quantity])
        _finish(axes, legend=axes is left)
    left.set_ylim(bottom=0.0)
    left.set_ylabel(MEAN_LABEL)
    right.set_yscale("log")
    plain_log(right.yaxis)
    right.set_ylabel("opening angle [deg]: median, and 68% (dotted)")
    return figure


def draw_energy_by_topology(rows: Sequence[BinRow]) -> Any:
    """Draw the mean opening angle against energy, a panel for each topology."""
    kinds = list(dict.fromkeys(row.bin.topology for row in rows))
    names = list(dict.fromkeys(row.summary.table for row in rows))
    across = min(len(kinds), PANELS_ACROSS)
    down = -(-len(kinds) // across)
    figure = new_figure(1.0 + 3.1 * across, 0.4 + 2.8 * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    # A decade at least, or its axis would have no number.
    edges = [edge for row in rows for edge in (row.bin.low, row.bin.high)]
    panels[0].set_xlim(
        10 ** np.floor(np.log10(min(edges))), 10 ** np.ceil(np.log10(max(edges)))
    )
    for place, (kind, axes) in enumerate(zip(kinds, panels, strict=False)):
        here = [row for row in rows if row.bin.topology == kind]
        for number, name in enumerate(names):
            mine = [row for row in here if row.summary.table == name]
            low, high = (
                np.array([getattr(r.bin, e) for r in mine]) for e in ("low", "high")
            )
            step = (number - (len(names) - 1) / 2) * 0.08
            middle = np.sqrt(low * high) * (high / low) ** step
            look, mean = Look.of(number), [row.summary.mean for row in mine]
            axes.errorbar(
                middle,
                [m.value for m in mean],
                _bars(mean),
                label=name,
                color=look.colour,
                ls=look.line,
                marker=look.marker,
                ms=4,
                lw=1.2,
                capsize=2,
            )
        axes.set_xscale("log")
        decades_only(axes.xaxis)
        axes.set_ylim(bottom=0.0)
        axes.set_title(kind, fontsize=10)
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel(LABELS[ENERGY], fontsize=9)
        if place % across == 0:
            axes.set_ylabel(MEAN_LABEL, fontsize=9)
        _finish(axes, legend=place == 0)
    for axes in panels[len(kinds) :]:
        axes.remove()
    return figure


def draw_topologies(rows: Sequence[BinRow]) -> Any:
    """Draw the mean opening angle of each topology as dots with intervals."""
    assert rows[0].bin.quantity == TOPOLOGY
    kinds = list(dict.fromkeys(row.bin.name for row in rows))
    names = list(dict.fromkeys(row.summary.table for row in rows))
    figure = new_figure(6.5, 1.2 + 0.28 * len(kinds) * (len(names) + 0.6))
    axes = figure.subplots()
    step = 0.75 / max(len(names), 1)
    for number, name in enumerate(names):
        look = Look.of(number)
        mine = [row for row in rows if row.summary.table == name]
        place = [
            kinds.index(r.bin.name) + (number - (len(names) - 1) / 2) * step
            for r in mine
        ]
        mean = [row.summary.mean for row in mine]
        axes.errorbar(
            [m.value for m in mean],
            place,
            xerr=_bars(mean),
            fmt=look.marker,
            color=look.colour,
            capsize=2,
            ms=5,
            label=name,
        )
    counts = {row.bin.name: row.summary.events for row in rows}
    axes.set_yticks(range(len(kinds)), [f"{k}\n{counts[k]:,} events" for k in kinds])
    axes.set_ylim(len(kinds) - 0.45, -0.55)
    axes.set_xlim(left=0.0)
    axes.set_xlabel(MEAN_LABEL)
    _finish(axes)
    return figure


def _bars(estimates: Sequence[Estimate]) -> NDArray[np.float64]:
    """Return how far the intervals reach below and above, (2, number of them)."""
    ends = [(e.value - e.low, e.high - e.value) for e in estimates]
    return np.clip(np.transpose(ends), 0.0, None)


def _finish(axes: Any, *, legend: bool = True) -> None:
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(fontsize=8, framealpha=0.9)
