"""A section of the report as plain data: tasks say what is in it, the report draws it.

So a task needs no plotting library, and every panel looks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Ends the text of a section whose rows have `without_answer`.
LEFT_OUT = (
    " Events without an answer in one of the tables are judged in none of them; "
    "'without answer' is their number in each table."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A line or points of a panel.

    Args:
        x, y: (N,) values.
        label: For the legend; empty: none.
        low, high: (N,) ends of an interval around y; None: none. Points have bars,
            lines a band.
        style: `line`, `points`, `joined` (points with lines between them), `steps` (y
            has N - 1 values, x the bin edges) or `reference` (thin and grey).
        table: Number of the table of results that it is of: chooses the colour.
        dashed: A second curve of the same table: dashed steps, a dotted line, open
            points.
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
        x_label, y_label: With their units.
        curves: What is drawn.
        title: Above it.
        x_log, y_log: Logarithmic axes.
        x_range, y_range: Limits of the axes, each of which may be None; None: as the
            curves need.
        cells: (R, C) numbers to show as a coloured table instead of curves, with
            `rows` and `columns` as names.
        rows, columns: Names of the rows and columns of cells; for curves, `columns`
            are names for x = 0, 1, 2, ...
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
    """A task's part of the report.

    Args:
        task: Name of the task.
        title: Heading.
        text: What a reader must know to read it, a few sentences.
        figures: Panels by the name of their figure, drawn side by side.
        captions: Of each figure.
        rows: The table: plain values by column; units stand in the names. Of a column
            `mean_rad`, `mean_low_rad` and `mean_high_rad` are the ends of an interval.
        table: Name of the table; empty: the task's.
        shown: Columns of the table that the page shows; empty: all.
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
    """Return rows of the values in bins of equal numbers, rising, as indices.

    Args:
        values: (B,), finite.
        most: Bins at most.
        fewest: Events of a bin at least.
    """
    order = np.argsort(values, kind="stable")
    num_bins = max(1, min(most, len(values) // fewest))
    return [part for part in np.array_split(order, num_bins) if len(part)]


def running_quantiles(
    x: Array, y: Array, shares: Sequence[float] = (0.16, 0.5, 0.84)
) -> tuple[Array, Array]:
    """Return medians of x and quantiles of y, (N,) and (N, shares), in bins of x."""
    bins = quantile_bins(x)
    centre = np.array([np.median(x[rows]) for rows in bins])
    quantiles = np.array([np.quantile(y[rows], shares) for rows in bins])
    return centre, quantiles


def residual_section(
    task: str, column: str, unit: str, values: Mapping[str, Array], target: Array
) -> Section:
    """Return a section that compares a number with its label: bias and resolution.

    Args:
        task: Name of the task.
        column: What is compared.
        unit: Of it.
        values: (B,) by table.
        target: (B,).
    """
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
        centre, quantiles = running_quantiles(target, residual)
        curves.append(
            Curve(
                x=centre,
                y=quantiles[:, 1],
                low=quantiles[:, 0],
                high=quantiles[:, 2],
                label=name,
                style="points",
                table=number,
            )
        )
    panel = Panel(
        x_label=f"true {column}{unit_text}",
        y_label=f"predicted minus true{unit_text}",
        curves=tuple(curves),
    )
    return Section(
        task=task,
        title=task.replace("_", " ").capitalize(),
        text="The bias is the median of predicted minus true, the resolution half the "
        "width of the central 68%, and rms the root mean square.",
        figures={f"{task}_residual": (panel,)},
        captions={
            f"{task}_residual": "Median and central 68% of predicted minus true, in "
            "bins of equal numbers of events."
        },
        rows=rows,
    )


def judged_events(
    tables: Mapping[str, Mapping[str, Array]],
    target: Array,
    has_answer: Callable[[Mapping[str, Array]], NDArray[np.bool_]],
) -> tuple[dict[str, dict[str, Array]], Array, dict[str, dict[str, int]]]:
    """Leave out events without an answer in one of the tables.

    Args:
        tables: Columns, (B,) each, by table.
        target: (B, ...).
        has_answer: Says of the columns of a table which events have an answer, (B,).

    Returns:
        The tables and the target of the other events; and by table what a row of the
        section says of it: `without_answer`, or nothing where all events are judged.
    """
    answered = {name: has_answer(table) for name, table in tables.items()}
    good_B = np.all(list(answered.values()), axis=0)
    if good_B.all():
        plain = {name: dict(table) for name, table in tables.items()}
        return plain, target, {name: {} for name in tables}
    judged = {
        name: {column: values[good_B] for column, values in table.items()}
        for name, table in tables.items()
    }
    counts = {n: {"without_answer": int((~a).sum())} for n, a in answered.items()}
    return judged, target[good_B], counts


def empty_section(
    task: str, title: str, counts: Mapping[str, Mapping[str, int]]
) -> Section:
    """Return a section that says that no event has an answer in all of the tables.

    Args:
        task: Name of the task.
        title: Heading.
        counts: As `judged_events` gives them.
    """
    return Section(
        task=task,
        title=title,
        text="No event has an answer in all of the tables.",
        rows=[{"table": name, "events": 0, **more} for name, more in counts.items()],
    )
