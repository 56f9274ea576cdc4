"""A section of the report as plain data: tasks define its content, the report draws it.

So a task needs no plotting library, and all plots look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.statistics import (
    density,
    effective_events,
    is_weighted,
    mean,
    quantile,
    quantile_intervals,
    share_error,
    share_interval,
)
from graphnet_icecube2nd.tasks.bins import (
    FEWEST,
    IS_LOG,
    QUANTITIES,
    TOPOLOGY,
    X_LABELS,
    bins_of,
    centre,
    weights_of,
)

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # (B,) each, by name
Tables = Mapping[str, Columns]  # columns of a task by results table
Row = Mapping[str, Any]
PULL_EDGES = np.linspace(-5, 5, 51)
NORMAL_WIDTH = 0.994457883  # half of a normal distribution's central 68%
UNITS = ("rad", "deg", "m", "ns", "GeV", "log10", "percent")  # at the end of names
# End of the text of a section whose rows have `without_answer`.
LEFT_OUT = (
    " Events without an answer in one of the tables are left out of all tables; "
    "'without answer' is their number in each table."
)
WIDTH_TEXT = (
    " The pull is the error divided by the predicted width, which is half of the "
    "predicted central 68%. If the predicted widths are right, 68% of the pulls lie "
    "between -1 and 1, and 68% of the true values lie in the predicted intervals. In "
    "the table, 'inside 68%' is the second share. 'pull 68%' is the absolute pull that "
    "68% of the events do not exceed: 1 if the widths are right, more if they are too "
    "small."
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
        below: Curves of a lower panel with the same x axis, such as ratios.
        below_label: Label of the y axis of the lower panel.
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
    below: tuple[Curve, ...] = ()
    below_label: str = ""


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
            columns of `ends` are the interval of a column.
        table: Name of the table; default: that of the task.
        shown: Columns of the table that the page shows; default: all but intervals.
        further: Sections that follow this one.
        most_shown: Number of rows that the page shows; default: all.
    """

    task: str
    title: str
    text: str
    figures: Mapping[str, tuple[Panel, ...]] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    table: str = ""
    shown: tuple[str, ...] = ()
    further: tuple[Section, ...] = ()
    most_shown: int | None = None


def ends(column: str) -> tuple[str, str]:
    """Return the columns of an interval: `mean_low_rad`, `mean_high_rad`, `auc_low`."""
    name, _, unit = column.rpartition("_")
    if name and unit in UNITS:
        return f"{name}_low_{unit}", f"{name}_high_{unit}"
    return f"{column}_low", f"{column}_high"


def with_interval(column: str, value: float, low: float, high: float) -> Row:
    """Return a figure and the ends of its 95% interval as columns of a row."""
    names = (column, *ends(column))
    return dict(zip(names, (float(value), float(low), float(high)), strict=True))


def event_counts(
    name: str, weight_B: Array, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the first columns of a row: table, events, and further ones.

    If events have different weights, the effective number of events is among them.
    """
    row: dict[str, Any] = {"table": name, "events": len(weight_B)}
    if is_weighted(weight_B):
        row["effective_events"] = effective_events(weight_B)
    return row | dict(more or {})


def quantile_bins(
    values: Array, most: int = 12, fewest: int = FEWEST
) -> list[NDArray[np.int64]]:
    """Return rows of finite values in ascending bins of equal numbers of events."""
    order = np.argsort(values, kind="stable")
    num_bins = max(1, min(most, len(values) // fewest))
    return [part for part in np.array_split(order, num_bins) if len(part)]


def _full(
    bins: Sequence[NDArray[np.int64]], weight_B: Array
) -> list[NDArray[np.int64]]:
    """Return the bins that have enough effective events, or else all with a weight."""
    counted = [rows for rows in bins if weight_B[rows].any()]
    full = [rows for rows in counted if effective_events(weight_B[rows]) >= FEWEST]
    return full or counted


def quantile_curve(
    x_B: Array, y_B: Array, label: str, table: int, weight_B: Array | None = None
) -> Curve:
    """Return median and central 68% of y in bins of x, as points with bars."""
    weight_B = np.ones(len(x_B)) if weight_B is None else weight_B
    bins = _full(quantile_bins(x_B), weight_B)
    quantiles = [quantile(y_B[b], [0.16, 0.5, 0.84], weight_B[b]) for b in bins]
    low, median, high = np.transpose(quantiles)
    return Curve(
        x=np.array([quantile(x_B[b], [0.5], weight_B[b])[0] for b in bins]),
        y=median,
        low=low,
        high=high,
        label=label,
        style="points",
        table=table,
    )


def share_curve(
    x_B: Array,
    is_in_B: NDArray[np.bool_],
    label: str,
    table: int,
    weight_B: Array | None = None,
    *,
    most: int = 12,
    at_mean: bool = False,
) -> Curve:
    """Return the share of events in bins of x with one standard error, as points.

    Points stand at the median of x in the bin, or at its mean.
    """
    weight_B = np.ones(len(x_B)) if weight_B is None else weight_B
    bins = _full(quantile_bins(x_B, most), weight_B)
    middle = mean if at_mean else lambda x, w: float(quantile(x, [0.5], w)[0])
    share_N = np.array([mean(is_in_B[b], weight_B[b]) for b in bins])
    error_N = np.array([share_error(is_in_B[b], weight_B[b]) for b in bins])
    return Curve(
        x=np.array([middle(x_B[b], weight_B[b]) for b in bins]),
        y=share_N,
        low=share_N - error_N,
        high=share_N + error_N,
        label=label,
        style="points",
        table=table,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Residuals:
    """Predicted values of a table beside the true ones, (B,) each.

    Args:
        value: Predicted values.
        residual: Predicted minus true values.
        width: Predicted half widths of the central 68%; default: unknown, as are the
            two others.
        is_inside: Whether the true values lie in the predicted 68% intervals.
        pull: Residuals in units of the predicted width.
    """

    value: Array
    residual: Array
    width: Array | None = None
    is_inside: NDArray[np.bool_] | None = None
    pull: Array | None = None

    def figures(
        self, chosen_B: NDArray[np.bool_], weight_B: Array, unit: str = ""
    ) -> dict[str, float]:
        """Return bias, resolution, containment, coverage and pull of chosen events.

        The unit is the end of the columns' names. Figures of unknown widths are NaN.
        """
        suffix, weight = f"_{unit}" if unit else "", weight_B[chosen_B]
        residual = self.residual[chosen_B]
        size, nan = np.abs(residual), float("nan")
        low, median, high = quantile(residual, [0.16, 0.5, 0.84], weight)
        held = quantile(size, [0.68, 0.9], weight)
        found = {
            **with_interval(
                f"bias{suffix}", median, *quantile_intervals(residual, [0.5], weight)[0]
            ),
            f"resolution{suffix}": float(high - low) / 2,
            f"rms{suffix}": float(np.sqrt(mean(residual**2, weight))),
            f"q68{suffix}": float(held[0]),
            f"q90{suffix}": float(held[1]),
            f"median_width{suffix}": nan,
            **with_interval("inside_68", nan, nan, nan),
            "pull_68": nan,
        }
        if self.width is not None:
            middle = quantile(self.width[chosen_B], [0.5], weight)
            found[f"median_width{suffix}"] = float(middle[0])
        if self.is_inside is not None:
            share = mean(self.is_inside[chosen_B], weight)
            interval = share_interval(share, effective_events(weight))
            found |= with_interval("inside_68", share, *interval)
        if self.pull is not None:
            size = np.abs(self.pull[chosen_B])
            found["pull_68"] = float(quantile(size, [0.68], weight)[0])
        return found


@dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A column of figures that is drawn against bins.

    Args:
        column: Name of the column.
        label: Label of the y axis, with unit.
        dashed: Second column, drawn as a dotted line; default: none.
        nominal: Value or values of grey lines; default: none.
        y_range: Limits of the y axis.
    """

    column: str
    label: str
    dashed: str = ""
    nominal: float | tuple[float, ...] = ()
    y_range: tuple[float | None, float | None] | None = None


COVERAGE_FIGURE = DrawnFigure(
    column="inside_68",
    label="share in the 68% interval",
    nominal=0.68,
    y_range=(0.0, 1.0),
)


def bins_section(
    task: str,
    title: str,
    tables: Sequence[str],
    known: Columns,
    figures: Callable[[str, NDArray[np.bool_]], Mapping[str, Any]],
    drawn: Mapping[str, DrawnFigure],
    captions: Mapping[str, str],
    num_events: int,
) -> Section | None:
    """Return a section on figures in bins of energy, zenith, pulses and topology.

    Args:
        task: Name of the task.
        title: Heading of the task's section.
        tables: Names of the results tables.
        known: Other truth of the events, (B,) each; see `Task.report_section`.
        figures: Returns figures of a table, by name, for chosen events, (B,), with
            their intervals as in `with_interval`.
        drawn: Columns to draw, by figure name.
        captions: Beginning of the caption of each figure.
        num_events: Number B of events.

    Returns:
        The section, or None if no bin has enough events.
    """
    weight_B = weights_of(known, num_events)
    rows = [
        {"quantity": quantity, **some.to_row()}
        | event_counts(name, weight_B[some.chosen_B])
        | dict(figures(name, some.chosen_B))
        for quantity in QUANTITIES
        for some in bins_of(known, quantity)
        for name in tables
    ]
    if not rows:
        return None
    panels = {name: bin_panels(rows, one) for name, one in drawn.items()}
    shown = [c for c in shown_columns(rows) if c not in ("low", "high")]
    return Section(
        task=task,
        table=f"{task}_by_bin",
        title=f"{title} in bins",
        text="Bins of what is known: the neutrino's energy, true zenith, number of "
        "pulses, topology.",
        figures={name: some for name, some in panels.items() if some},
        captions={
            name: f"{text} Bars are 95% intervals. Bins of fewer than {FEWEST} events "
            "(with weights: effective events) are not drawn."
            for name, text in captions.items()
        },
        rows=rows,
        shown=tuple(shown),
    )


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of rows without those of intervals."""
    names = list(dict.fromkeys(column for row in rows for column in row))
    intervals = {end for name in names for end in ends(name)}
    return [name for name in names if name not in intervals]


def bin_panels(rows: Sequence[Row], drawn: DrawnFigure) -> tuple[Panel, ...]:
    """Return a panel of a column for each quantity that has bins.

    Rows are those of `bins_section`.
    """
    panels = []
    for quantity in QUANTITIES:
        some = [row for row in rows if row["quantity"] == quantity]
        good = [row for row in some if row[drawn.column] == row[drawn.column]]
        if good:
            panels.append(_bin_panel(good, quantity, drawn))
    return tuple(panels)


def _bin_panel(rows: Sequence[Row], quantity: str, drawn: DrawnFigure) -> Panel:
    """Return the panel of a column against the bins of a quantity."""
    curves = []
    names = list(dict.fromkeys(row["bin"] for row in rows))
    for number, table in enumerate(dict.fromkeys(row["table"] for row in rows)):
        mine = [row for row in rows if row["table"] == table]
        left, right, y, low, high = (
            np.array([row.get(name, np.nan) for row in mine], np.float64)
            for name in ("low", "high", drawn.column, *ends(drawn.column))
        )
        x = centre(quantity, left, right)
        if quantity == TOPOLOGY:
            x = np.array([float(names.index(row["bin"])) for row in mine])
        style = "points" if quantity == TOPOLOGY else "joined"
        curve = Curve(
            x=x, y=y, low=low, high=high, label=table, style=style, table=number
        )
        curves.append(curve)
        if drawn.dashed:
            second = np.array([row[drawn.dashed] for row in mine], np.float64)
            plain = replace(curve, y=second, label="", low=None, high=None)
            style = "points" if quantity == TOPOLOGY else "line"
            curves.append(replace(plain, style=style, dashed=True))
    is_named = quantity == TOPOLOGY
    limits = (-0.5, len(names) - 0.5)
    x = np.concatenate([curve.x for curve in curves])
    x = np.array(limits) if is_named else np.array([x.min(), x.max()])
    for y in np.atleast_1d(drawn.nominal):
        curves.append(Curve(x=x, y=np.full(2, y), style="reference"))
    return Panel(
        x_label=X_LABELS[quantity],
        y_label=drawn.label,
        curves=tuple(curves),
        x_log=quantity in IS_LOG,
        x_range=limits if is_named else None,
        y_range=drawn.y_range,
        columns=tuple("\n".join(name.split()) for name in names) if is_named else (),
    )


def residual_section(
    task: str,
    column: str,
    unit: str,
    values: Columns,
    target: Array,
    known: Columns | None = None,
) -> Section:
    """Return a section on bias and resolution of values, (B,) by table, and labels."""
    text = f" [{unit}]" if unit else ""
    answers = {
        name: Residuals(value=value, residual=value - target)
        for name, value in values.items()
    }
    return residuals_section(
        task,
        answers,
        target,
        known or {},
        unit=unit,
        true_label=f"true {column}{text}",
        label=f"predicted minus true{text}",
    )


def residuals_section(
    task: str,
    answers: Mapping[str, Residuals],
    target: Array,
    known: Columns,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    *,
    unit: str = "",
    true_label: str,
    label: str = "predicted minus true",
    is_log10: bool = False,
    text: str = "",
    caption: str = "",
    figures: Callable[[dict[str, float]], dict[str, float]] = lambda found: found,
) -> Section:
    """Return a section on bias, resolution, pulls and coverage.

    Args:
        task: Name of the task.
        answers: Predicted values beside the true ones by table.
        target: True values, (B,).
        known: Other truth of the events, (B,) each.
        counts: Further columns of a table's row, as `answered_events` returns them.
        unit: Unit of the residuals, the end of the columns' names.
        true_label: Label of the axis of true values, beginning with `true`.
        label: Label of the axis of residuals.
        is_log10: Whether values are logarithms of what the axes show.
        text: Further sentences for the reader.
        caption: Further sentences below the figure of the bias.
        figures: Changes the figures of a row.
    """
    counts = counts or {}
    title, weight_B = (
        task.replace("_", " ").capitalize(),
        weights_of(known, len(target)),
    )
    everything_B, suffix = np.ones(len(target), bool), f"_{unit}" if unit else ""
    residual_name = f"{task}_{'bias' if is_log10 else 'residual'}"
    has_widths = any(answer.pull is not None for answer in answers.values())

    def row(name: str, chosen_B: NDArray[np.bool_]) -> dict[str, float]:
        found = figures(answers[name].figures(chosen_B, weight_B, unit))
        widths = (f"median_width{suffix}", "inside_68", *ends("inside_68"), "pull_68")
        return {n: v for n, v in found.items() if has_widths or n not in widths}

    def on_axis(curve: Curve) -> Curve:
        return replace(curve, x=10.0**curve.x) if is_log10 else curve

    bias, pulls, coverage = [], [], []
    for number, (name, answer) in enumerate(answers.items()):
        curve = quantile_curve(target, answer.residual, name, number, weight_B)
        bias.append(on_axis(curve))
        if answer.pull is not None and answer.is_inside is not None:
            pulls.append(pull_curve(answer.pull, name, number, weight_B))
            curve = share_curve(answer.value, answer.is_inside, name, number, weight_B)
            coverage.append(on_axis(curve))
    panels: dict[str, tuple[Panel, ...]] = {
        residual_name: (
            Panel(
                x_label=true_label,
                y_label=label,
                curves=(*bias, horizontal_line(bias, 0.0)),
                x_log=is_log10,
            ),
        )
    }
    captions = {
        residual_name: f"Median and central 68% of {label.split(' [')[0]}, in bins of "
        f"equal numbers of events. {caption}".strip()
    }
    drawn = {
        f"{task}_by_bin": DrawnFigure(
            column=f"bias{suffix}",
            label=label,
            dashed=f"resolution{suffix}",
            nominal=0.0,
        )
    }
    drawn_captions = {
        f"{task}_by_bin": "Bias (solid) and resolution (dotted, or open marks)."
    }
    if has_widths:
        predicted = true_label.replace("true", "predicted", 1)
        panels[f"{task}_widths"] = width_panels(pulls, coverage, predicted, is_log10)
        captions[f"{task}_widths"] = (
            "Left: distribution of the pulls; grey is a normal distribution whose "
            "central 68% lies between -1 and 1. Right: share of the events whose true "
            "value lies in the predicted 68% interval, with one standard error."
        )
        drawn[f"{task}_coverage_by_bin"] = COVERAGE_FIGURE
        drawn_captions[f"{task}_coverage_by_bin"] = (
            "Share of the events whose true value lies in the predicted 68% interval."
        )
    rows = [
        event_counts(name, weight_B, counts.get(name)) | row(name, everything_B)
        for name in answers
    ]
    by_bin = bins_section(
        task, title, list(answers), known, row, drawn, drawn_captions, len(target)
    )
    left_out = LEFT_OUT if any(counts.values()) else ""
    return Section(
        task=task,
        title=title,
        text=f"The bias is the median of {label.split(' [')[0]}, the resolution is "
        "half the width of the central 68%, and rms is the root mean square. 68% and "
        "90% are the absolute errors that so many events do not exceed."
        + WIDTH_TEXT * has_widths
        + f" {text}".rstrip()
        + left_out,
        figures=panels,
        captions=captions,
        rows=rows,
        further=(by_bin,) if by_bin else (),
    )


def pull_curve(
    pull_B: Array, name: str, table: int, weight_B: Array | None = None
) -> Curve:
    """Return the distribution of pulls: errors in units of the predicted width."""
    beyond = mean(abs(pull_B) > PULL_EDGES[-1], weight_B)
    return Curve(
        x=PULL_EDGES,
        y=density(pull_B, PULL_EDGES, weight_B),
        label=f"{name}: {beyond:.1%} beyond 5",
        style="steps",
        table=table,
    )


def width_panels(
    pulls: Sequence[Curve], coverage: Sequence[Curve], x_label: str, x_log: bool = False
) -> tuple[Panel, Panel]:
    """Return panels of pulls and of coverage, each with its expectation.

    `x_label` and `x_log` are those of the coverage.
    """
    grid = np.linspace(-5, 5, 201)
    normal = np.exp(-((grid * NORMAL_WIDTH) ** 2) / 2)
    normal *= NORMAL_WIDTH / np.sqrt(2 * np.pi)
    expected = Curve(x=grid, y=normal, label="normal distribution", style="reference")
    nominal = horizontal_line(coverage, 0.68, "68%")
    return (
        Panel(
            x_label="pull",
            y_label="density of events",
            curves=(*pulls, expected),
            title="Pulls",
        ),
        Panel(
            x_label=x_label,
            y_label="share in the 68% interval",
            curves=(*coverage, nominal),
            x_log=x_log,
            y_range=(0.0, 1.0),
            title="Coverage",
        ),
    )


def horizontal_line(curves: Sequence[Curve], y: float, label: str = "") -> Curve:
    """Return a horizontal reference line over the x range of curves."""
    x = np.concatenate([curve.x for curve in curves])
    ends = np.array([x.min(), x.max()])
    return Curve(x=ends, y=np.full(2, y), label=label, style="reference")


def answered_events(
    tables: Tables,
    target: Array,
    known: Columns,
    has_answer: Callable[[Columns], NDArray[np.bool_]],
) -> tuple[dict[str, dict[str, Array]], Array, Columns, dict[str, dict[str, int]]]:
    """Leave out events without an answer in one of the tables.

    Returns tables, target and other truth of the other events. The fourth value has
    additional entries of each table's row: `without_answer`, or nothing if no event is
    left out.
    """
    answered = {name: has_answer(table) for name, table in tables.items()}
    good_B = np.all(list(answered.values()), axis=0)
    if weights_of(known, len(good_B))[good_B].sum() == 0:
        good_B = np.zeros(len(good_B), bool)  # no figure without a weight
    evaluated = {
        name: {column: values[good_B] for column, values in table.items()}
        for name, table in tables.items()
    }
    counts = {
        name: {} if good_B.all() else {"without_answer": int((~answered_B).sum())}
        for name, answered_B in answered.items()
    }
    known = {name: values[good_B] for name, values in known.items()}
    return evaluated, target[good_B], known, counts


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
