"""Rows of tables as plain values, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Row = dict[str, Any]
QUANTITY = re.compile(r"[+-][\d.]+(e[+-]?\d+)?( ?[\w%]+)?")  # -0.5, +2 ns


def without_nan(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return rows with None for NaN, which JSON does not have."""
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; NaN and a column that a row lacks are empty cells.

    A text that a spreadsheet would read as a formula gets a leading apostrophe.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in without_nan(rows):
        writer.writerow({column: _no_formula(value) for column, value in row.items()})
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    is_text = isinstance(value, str) and not QUANTITY.fullmatch(value)
    is_formula = is_text and value.startswith(tuple("=+-@\t\r"))
    return f"'{value}" if is_formula else value


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]]
) -> list[str]:
    """Return the lines of a table in Markdown; integers get thousands separators."""
    lines = [headings, *rows]
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in lines]
    table = [f"| {' | '.join(row)} |" for row in cells]
    return [table[0], "|" + "---|" * len(headings), *table[1:]]


def columns(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Array]:
    """Return columns of rows as arrays."""
    return [np.array([row[name] for row in rows], np.float64) for name in names]
