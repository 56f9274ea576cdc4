"""The tables of an evaluation as plain rows: for CSV, JSON and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import degrees
from typing import Any

from graphnet_icecube2nd.evaluation.bins import BinRow
from graphnet_icecube2nd.evaluation.coverage import CoverageRow, ExpectedRow
from graphnet_icecube2nd.evaluation.metrics import Estimate, Summary
from graphnet_icecube2nd.tasks.section import Section

Row = dict[str, Any]
# Tables and figures of directions; those of another task never take their names.
DIRECTION_TABLES = ("summary", "coverage", "expected", "context")
DIRECTION_FIGURES = ("distribution", "coverage", "expected", "pulls")
BY = "by_"  # and the quantity
UNITS = {"percent": "%", "rad": "rad", "deg": "deg", "m": "m", "ns": "ns", "GeV": "GeV"}


def table_name(task: str) -> str:
    """Return what a task's table is called: as the task, unless that is taken."""
    taken = task in DIRECTION_TABLES or task.startswith(BY)
    return f"{task}_task" if taken else task


def figure_names(section: Section) -> dict[str, str]:
    """Return what a section's figures are called in the report, by their names."""
    return {
        name: f"{section.task}_{name}"
        if name in DIRECTION_FIGURES or name.startswith(BY)
        else name
        for name in section.figures
    }


def heading_of(column: str) -> str:
    """Return a column's heading: words, and the unit that its name ends in.

    `bias_percent` becomes `bias [%]`, `bias_log10` becomes `bias [log10]`, and
    `inside_68` becomes `inside 68%`.
    """
    words = column.split("_")
    if len(words) == 1:
        return column
    if words[-1] in UNITS:
        return f"{' '.join(words[:-1])} [{UNITS[words[-1]]}]"
    if words[-1] == "log10":
        return f"{' '.join(words[:-1])} [log10]"
    if words[-1].isdigit():
        return f"{' '.join(words)}%"
    return " ".join(words)


def summary_rows(summaries: Sequence[Summary]) -> list[Row]:
    """Return a row for each table; units stand in the names of columns."""
    return [_summary(summary) for summary in summaries]


def bin_rows(rows: Sequence[BinRow]) -> list[Row]:
    """Return a row for each bin and table."""
    return [
        {
            "quantity": row.bin.quantity,
            **({"topology": row.bin.topology} if row.bin.topology else {}),
            "bin": row.bin.name,
            "low": row.bin.low,
            "high": row.bin.high,
            **_summary(row.summary),
        }
        for row in rows
    ]


def coverage_table(rows: Sequence[CoverageRow]) -> list[Row]:
    """Return a row for each table, way and level."""
    return [asdict(row) for row in rows]


def expected_table(rows: Sequence[ExpectedRow]) -> list[Row]:
    """Return a row for each table, way and bin of kappa, angles in deg."""
    return [
        {
            "table": row.table,
            "way": row.way,
            "events": row.events,
            "kappa": row.kappa,
            **{
                f"{name}_deg": degrees(getattr(row, name))
                for name in ("expected", "observed", "low", "high")
            },
        }
        for row in rows
    ]


def _summary(summary: Summary) -> Row:
    return {
        "table": summary.table,
        "events": summary.events,
        "failed": summary.failed,
        **_columns("mean", summary.mean, "rad"),
        **_columns("difference", summary.difference, "rad"),
        **_columns("median", summary.median, "deg"),
        **_columns("q68", summary.q68, "deg"),
        **_columns("q90", summary.q90, "deg"),
        "median_pull": summary.pull,
        "inside_50": summary.inside_50,
        "inside_90": summary.inside_90,
    }


def _columns(name: str, estimate: Estimate, unit: str) -> Row:
    values = asdict(estimate)
    if unit == "deg":
        values = {key: degrees(value) for key, value in values.items()}
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{end}_{unit}": values[key] for key, end in ends.items()}
