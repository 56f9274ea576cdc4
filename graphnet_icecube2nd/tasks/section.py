"""A section of the report as plain data: tasks define its content, the report draws it.

So a task needs no plotting library, and all plots look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # (B,) each, by name
Tables = Mapping[str, Columns]  # columns of a task by results table
# End of the text of a section whose rows have `without_answer`.
LEFT_OUT = (
    " Events without an answer in one of the tables are left out of all tables; "
    "'without answer' is their number in each table."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A line or points of a panel.

    Args:
        x: Positions along x, (N,).
        y: Values, (N,).
        label: Name in the legend; default: no entry.
        low: Lower ends of intervals around y, (N,); default: none. Points show bars,
            lines a band.
        high: Upper ends of the intervals, (N,).
        style: Style: `line`, `points`, `joined` (points joined by lines), `steps` (y
            has N - 1 values, x the bin edges) or `reference` (thin and grey).
        table: Index of the results table, which selects the colour.
        dashed: Whether this is the second curve of a table, drawn with dashed steps, a
            dotted line or open points.
    """

    x: Array
    y: Array
    label: str = ""
    low: Array | None = None
    high: Array | None = None
    style: str = "line"
    table: int = 0
    dashed: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One plot.

    Args:
        x_label: Label of the x axis, with unit.
        y_label: Label of the y axis, with unit.
        curves: Curves to draw.
        title: Title of the plot.
        x_log: Whether the x axis is logarithmic.
        y_log: Whether the y axis is logarithmic.
        x_range: Limits of the x axis, each of which may be None; default: automatic.
        y_range: Limits of the y axis, each of which may be None; default: automatic.
        cells: Numbers (R, C) of a coloured table, drawn instead of curves.
        rows: Names of the rows of `cells`.
        columns: Names of the columns of `cells`; for curves, names of x = 0, 1, 2, ...
    """

    x_label: str
    y_label: str
    curves: tuple[Curve, ...] = ()
    title: str = ""
    x_log: bool = False
    y_log: bool = False
    x_range: tuple[float | None, float | None] | None = None
    y_range: tuple[float | None, float | None] | None = None
    cells: Array | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """The section of a task in the report.

    Args:
        task: Name of the task.
        title: Heading.
        text: Explanation for the reader, a few sentences.
        figures: Panels by figure name, drawn side by side.
        captions: Caption of each figure.
        rows: Rows of the table: plain values by column, with units in the names. The
            columns `mean_low_rad` and `mean_high_rad` are the interval of `mean_rad`.
        table: Name of the table; default: that of the task.
        shown: Columns of the table that the page shows; default: all.
    """

    task: str
    title: str
    text: str
    figures: Mapping[str, tuple[Panel, ...]] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    table: str = ""
    shown: tuple[str, ...] = ()


def quantile_bins(
    values: Array, most: int = 12, fewest: int = 20
) -> list[NDArray[np.int64]]:
    """Return rows of finite values in ascending bins of equal numbers of events."""
    order = np.argsort(values, kind="stable")
    num_bins = max(1, min(most, len(values) // fewest))
    return [part for part in np.array_split(order, num_bins) if len(part)]


def quantile_curve(x_B: Array, y_B: Array, label: str, table: int) -> Curve:
    """Return median and central 68% of y in bins of x, as points with bars."""
    bins = quantile_bins(x_B)
    quantiles = [np.quantile(y_B[rows], [0.16, 0.5, 0.84]) for rows in bins]
    low, median, high = np.transpose(quantiles)
    return Curve(
        x=np.array([np.median(x_B[rows]) for rows in bins]),
        y=median,
        low=low,
        high=high,
        label=label,
        style="points",
        table=table,
    )


def share_curve(
    x_N: Array,
    is_in_B: NDArray[np.bool_],
    bins: Sequence[NDArray[np.int64]],
    label: str,
    table: int,
) -> Curve:
    """Return the share of events in N bins with one standard error, as points."""
    share_N = np.array([is_in_B[rows].mean() for rows in bins])
    error_N = np.sqrt(share_N * (1 - share_N) / [len(rows) for rows in bins])
    return Curve(
        x=x_N,
        y=share_N,
        low=share_N - error_N,
        high=share_N + error_N,
        label=label,
        style="points",
        table=table,
    )


def density(value_B: Array, edges: Array) -> Array:
    """Return the density in bins; the total includes values outside the bins."""
    counts, _ = np.histogram(value_B, edges)
    per_unit: Array = counts / max(1, len(value_B)) / np.diff(edges)
    return per_unit


def residual_section(
    task: str, column: str, unit: str, values: Columns, target: Array
) -> Section:
    """Return a section on bias and resolution of values, (B,) by table, and labels."""
    unit_text = f" [{unit}]" if unit else ""
    suffix = f"_{unit}" if unit else ""
    rows, curves = [], []
    for number, (name, value) in enumerate(values.items()):
        residual = value - target
        low, median, high = np.quantile(residual, [0.16, 0.5, 0.84])
        rows.append(
            {
                "table": name,
                "events": len(residual),
                f"bias{suffix}": float(median),
                f"resolution_68{suffix}": float(high - low) / 2,
                f"rms{suffix}": float(np.sqrt(np.mean(residual**2))),
            }
        )
        curves.append(quantile_curve(target, residual, name, number))
    panel = Panel(
        x_label=f"true {column}{unit_text}",
        y_label=f"predicted minus true{unit_text}",
        curves=tuple(curves),
    )
    return Section(
        task=task,
        title=task.replace("_", " ").capitalize(),
        text="The bias is the median of predicted minus true, the resolution is half "
        "the width of the central 68%, and rms is the root mean square.",
        figures={f"{task}_residual": (panel,)},
        captions={
            f"{task}_residual": "Median and central 68% of predicted minus true, in "
            "bins of equal numbers of events."
        },
        rows=rows,
    )


def answered_events(
    tables: Tables, target: Array, has_answer: Callable[[Columns], NDArray[np.bool_]]
) -> tuple[dict[str, dict[str, Array]], Array, dict[str, dict[str, int]]]:
    """Leave out events without an answer in one of the tables.

    Returns tables and target of the other events. The third value has additional
    entries of each table's row: `without_answer`, or nothing if no event is left out.
    """
    answered = {name: has_answer(table) for name, table in tables.items()}
    good_B = np.all(list(answered.values()), axis=0)
    judged = {
        name: {column: values[good_B] for column, values in table.items()}
        for name, table in tables.items()
    }
    counts = {
        name: {} if good_B.all() else {"without_answer": int((~answered_B).sum())}
        for name, answered_B in answered.items()
    }
    return judged, target[good_B], counts


def empty_section(
    task: str, title: str, counts: Mapping[str, Mapping[str, int]]
) -> Section:
    """Return a section for the case that no event has an answer in all tables."""
    return Section(
        task=task,
        title=title,
        text="No event has an answer in all of the tables.",
        rows=[{"table": name, "events": 0, **more} for name, more in counts.items()],
    )
