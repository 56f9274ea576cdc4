"""Files of a robustness report: CSV, JSON, Markdown, PDF and PNG.

All are named `robustness`. CSV and JSON have a row for each perturbation, the baseline
first; JSON also has the context of the measurement. The picture shows the differences
with their intervals.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphnet_icecube2nd.evaluation.robustness import INSIDE, RobustnessRow
from graphnet_icecube2nd.evaluation.rows import as_csv, markdown_table, without_nan
from graphnet_icecube2nd.files import locked_folder, write_text
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.plots import new_figure, save_figure
from graphnet_icecube2nd.statistics import LEVEL
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.direction.calibration import CALIBRATED_MEDIAN_PULL
from graphnet_icecube2nd.version import __version__

STEM = "robustness"
LINEAR = 0.01  # rad, end of the linear part of the axis; it is logarithmic beyond
_HEADER = 1.1  # height of a group's name, in rows
_ROW = 0.165  # inches, height of a row
UNITS = dict.fromkeys(("mean", "difference", "low", "high"), "rad") | {"median": "deg"}
HEADINGS = (
    *("perturbation", "strength", "events", "mean, rad", "difference, rad"),
    *(f"{LEVEL:.0%} interval, rad", "median, deg", "pull", "inside", "no pulses"),
)
READING = f"""\
The mean is the mean opening angle, the competition's score. The difference is the mean
minus the baseline's; above 0 is worse. Its {LEVEL:.0%} interval comes from a paired
bootstrap: if it contains 0, these events show no difference. The pull is the median of
the opening angle times the root of kappa, {CALIBRATED_MEDIAN_PULL:.2f} if kappa is
calibrated and large. Inside is the share of true directions inside the {INSIDE:.0%}
contours. Both use the network's own kappa, without calibration. Events without pulses
count as pi / 2.
Pulses are selected first; then pulses are added to the selected ones or removed from
them. The rows of the window's start shift the first pulse to 0 ns or to the median of
these events. A network with absolute times has not been trained on times as at 0 ns.
The first pulse is mostly noise, the first HLC pulse is mostly light."""


def context_of(
    model: str,
    store: EventStore,
    rows: Sequence[RobustnessRow],
    options: InferenceConfig,
) -> dict[str, Any]:
    """Return the context of a measurement as plain values.

    `options` are those of the baseline; their seed is the seed of all random draws.
    """
    return {
        "model": model,
        "store": str(store.path),
        "store_from": store.manifest.kind,
        "store_notes": list(store.manifest.notes),
        "events": rows[0].events,
        "events_in_store": len(store),
        "seed": options.seed,
        "options": asdict(options),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {
            "graphnet_icecube2nd": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }


def save_robustness(
    folder: str | os.PathLike[str],
    rows: Sequence[RobustnessRow],
    context: Mapping[str, Any],
) -> list[Path]:
    """Write a report into a folder and return the paths of its files.

    Args:
        folder: Folder of the report; created if need be.
        rows: Rows of `measure_robustness`, the baseline first.
        context: Context of `context_of`.

    Raises:
        ValueError: There is no row, or another process is writing into the folder.
    """
    if not rows:
        raise ValueError("a robustness report needs at least one row, found none")
    title = f"{context.get('model', 'model')}, {rows[0].events:,} events"
    figure = draw_robustness(rows, title=title)  # fails before anything is written
    folder = Path(folder)
    plain = [asdict(row) for row in rows]
    stored = {"context": dict(context), "units": UNITS, "rows": without_nan(plain)}
    with_units = [
        {f"{n}_{UNITS[n]}" if n in UNITS else n: v for n, v in row.items()}
        for row in plain
    ]
    texts = {
        ".csv": as_csv(with_units),
        ".json": json.dumps(stored, indent=1, allow_nan=False) + "\n",
        ".md": as_markdown(rows, context),
    }
    with locked_folder(folder, "a report"):
        for suffix, text in texts.items():
            write_text(folder / f"{STEM}{suffix}", text)
        for suffix in (".pdf", ".png"):
            save_figure(figure, folder / f"{STEM}{suffix}")
    return [folder / f"{STEM}{suffix}" for suffix in (*texts, ".pdf", ".png")]


def as_markdown(rows: Sequence[RobustnessRow], context: Mapping[str, Any]) -> str:
    """Return a report as Markdown: context, explanation and table."""
    versions = ", ".join(f"{k} {v}" for k, v in context.get("versions", {}).items())
    headings = [*HEADINGS]
    cells = [_cells(row, row is rows[0]) for row in rows]
    if any(row.published for row in rows):
        headings.append("published")
        cells = [[*c, row.published] for c, row in zip(cells, rows, strict=True)]
    lines = [
        f"# Robustness of {context.get('model', 'a model')}",
        "",
        f"{rows[0].events:,} events of {context.get('store', 'a store')}, seed "
        f"{context.get('seed', 'unknown')}; {context.get('date', 'no date')}; "
        f"{versions or 'versions unknown'}.",
        "",
        READING,
        "",
        *markdown_table(headings, cells),
    ]
    failed = sum(row.not_finite for row in rows)
    if failed:
        lines += [
            "",
            f"{failed:,} results are not finite; they count as pi / 2 as well.",
        ]
    return "\n".join(lines) + "\n"


def _cells(row: RobustnessRow, is_baseline: bool) -> list[object]:
    """Return a row of the Markdown table."""
    return [
        row.group,
        row.strength,
        row.events,
        f"{row.mean:.4f}",
        "-" if is_baseline else f"{row.difference:+.4f}",
        "-" if is_baseline else f"{row.low:+.4f} to {row.high:+.4f}",
        f"{row.median:.1f}",
        "-" if np.isnan(row.pull) else f"{row.pull:.2f}",
        "-" if np.isnan(row.inside) else f"{row.inside:.1%}",
        row.no_pulses,
    ]


def draw_robustness(rows: Sequence[RobustnessRow], title: str = "") -> Any:
    """Return a matplotlib figure of the differences from the baseline, the first row.

    Filled marks are differences whose interval does not contain 0. The axis is linear
    near 0 and logarithmic beyond, because a mirrored truth changes the score a thousand
    times as much as a nanosecond does.
    """
    baseline, others = rows[0], rows[1:]
    places, borders = _places(others)
    figure = new_figure(6.5, 1.4 + _ROW * (places[-1] if places else 1))
    axes = figure.subplots()
    low = min([-1.2 * LINEAR, *(1.5 * row.low for row in others)])
    high = max([1.2 * LINEAR, *(1.5 * row.high for row in others)])
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.8)
    axes.set_xlim(low, high)
    ticks = [t for t in (-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:+g}" if t else "0" for t in ticks], fontsize=8)
    axes.minorticks_off()
    for tick in ticks:
        axes.axvline(tick, color="0.85" if tick else "0.2", lw=0.8, zorder=0)
    beside = {"transform": axes.get_yaxis_transform(), "va": "center"}
    for place, row in zip(places, others, strict=True):
        fill = "black" if row.low > 0 or row.high < 0 else "white"
        axes.plot([row.low, row.high], [place, place], color="black", lw=1.1)
        axes.plot(row.difference, place, "o", ms=4.5, mfc=fill, mec="black")
        axes.text(1.01, place, f"{row.difference:+.4f}", fontsize=7, **beside)
    for number, (group, start, stop) in enumerate(borders):
        if number % 2:
            axes.axhspan(start, stop, color="0.95", zorder=-1)
        style = {"ha": "right", "fontsize": 7.5, "weight": "bold", **beside}
        axes.text(-0.012, start + 0.5, group, **style)
    axes.set_yticks(places, [row.strength for row in others], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(borders[-1][2] if borders else 1.0, borders[0][1] if borders else 0.0)
    axes.set_xlabel(
        "change of the mean opening angle [rad] (above 0: worse)\n"
        f"bars: {LEVEL:.0%} intervals of a paired bootstrap; open marks: the interval "
        f"contains 0\naxis: linear to {LINEAR:g} rad, logarithmic beyond",
        fontsize=8,
    )
    title = f"{title}; " if title else ""
    axes.set_title(f"{title}baseline {baseline.mean:.4f} rad", fontsize=9)
    return figure


def _places(
    rows: Sequence[RobustnessRow],
) -> tuple[list[float], list[tuple[str, float, float]]]:
    """Return heights of rows, downwards, and each group's name, start and stop."""
    places: list[float] = []
    borders: list[tuple[str, float, float]] = []
    height = 0.0
    for group, members in groupby(rows, key=lambda row: row.group):
        start, first = height, height + _HEADER + 0.5
        places += [first + number for number, _ in enumerate(members)]
        height = places[-1] + 0.5
        borders.append((group, start, height))
    return places, borders
