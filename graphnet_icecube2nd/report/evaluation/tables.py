"""The tables of an evaluation as plain rows: for CSV, JSON and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import degrees
from typing import Any

from graphnet_icecube2nd.evaluation.bins import BinRow
from graphnet_icecube2nd.evaluation.coverage import CoverageRow, ExpectedRow
from graphnet_icecube2nd.evaluation.metrics import Estimate, Summary

Row = dict[str, Any]


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
