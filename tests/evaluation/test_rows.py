"""Rows as CSV and Markdown."""

from __future__ import annotations

import csv

from graphnet_icecube2nd.evaluation.rows import as_csv, markdown_table, without_nan

ROWS = [{"a": "x,y", "b": float("nan")}, {"b": 2, "c": True}]


def test_csv_has_every_column_and_no_nan() -> None:
    read = list(csv.reader(as_csv(ROWS).splitlines()))
    assert read == [["a", "b", "c"], ["x,y", "", ""], ["", "2", "True"]]
    assert without_nan(ROWS)[0]["b"] is None


def test_csv_has_no_formulas() -> None:
    """Which a spreadsheet would compute; numbers stay numbers."""
    harmful = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"]
    plain = [-1.5, "-1.5", "+2 ns", "a=b"]
    text = as_csv([{"a": value} for value in [*harmful, *plain]])
    cells = [row[0] for row in csv.reader(text.splitlines()[1:])]
    assert cells == [*(f"'{cell}" for cell in harmful), *map(str, plain)]


def test_markdown() -> None:
    lines = markdown_table(("name", "events"), [("a", 12345), ("b", "-")])
    assert lines == ["| name | events |", "|---|---|", "| a | 12,345 |", "| b | - |"]
