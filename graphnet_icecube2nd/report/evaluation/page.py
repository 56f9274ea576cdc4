"""The report of an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from math import isnan
from string import Template
from typing import Any

from graphnet_icecube2nd.report.evaluation.tables import Row

TEMPLATE = "evaluation.html"
SHARES = ("held", "level", "accuracy")  # columns shown in percent
LONG = 12  # rows beyond which a table is folded


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """A part of the report.

    Args:
        name: Its heading.
        text: What it says, plain text.
        figures: Names of pictures and what they show.
        table: Rows of a table; empty: none.
        columns: What the table shows: headings by column, or by a column with an
            interval (`mean_rad`, of which `mean_low_rad` and `mean_high_rad` are the
            ends).
    """

    name: str
    text: str
    figures: Mapping[str, str]
    table: Sequence[Row] = ()
    columns: Mapping[str, str] | None = None


def report_page(
    title: str,
    context: Sequence[str],
    sections: Sequence[PageSection],
    figures: Mapping[str, Any],
) -> str:
    """Return the report as HTML, pictures inside.

    Args:
        title: Of the report.
        context: What was evaluated on what, when, by which versions: a line each.
        sections: Its parts.
        figures: matplotlib's, by the names that the sections use.
    """
    data = files("graphnet_icecube2nd.report.evaluation") / "data" / TEMPLATE
    template = Template(data.read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        context="<br>\n".join(escape(line) for line in context),
        contents="\n".join(
            f'<a href="#part{number}">{escape(section.name)}</a>'
            for number, section in enumerate(sections)
        ),
        sections="\n".join(
            _section(number, section, figures)
            for number, section in enumerate(sections)
        ),
    )


def _section(number: int, section: PageSection, figures: Mapping[str, Any]) -> str:
    parts = [f'<section id="part{number}">', f"<h2>{escape(section.name)}</h2>"]
    if section.text:
        parts.append(f'<p class="soft">{escape(section.text)}</p>')
    for name, caption in section.figures.items():
        if name in figures:
            parts.append(_figure(figures[name], caption))
    if section.table and section.columns:
        table = _table(section.table, section.columns)
        if len(section.table) > LONG:
            table = f"<details><summary>The numbers</summary>{table}</details>"
        parts.append(table)
    return "\n".join([*parts, "</section>"])


def _figure(figure: Any, caption: str) -> str:
    picture = io.BytesIO()
    # Vectors: sharp on any screen and on paper. No date, so that a report made twice
    # is the same.
    figure.savefig(picture, format="svg", metadata={"Date": None})
    data = base64.b64encode(picture.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in columns.values())
    body = "\n".join(
        f"<tr>{''.join(f'<td>{_cell(row, column)}</td>' for column in columns)}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        return "-"
    name, _, unit = column.rpartition("_")
    low, high = f"{name}_low_{unit}", f"{name}_high_{unit}"
    if low in row:
        text = _number(value, unit)
        if row[low] == row[high] == value == 0:
            return "-"
        ends = f"{_number(row[low], unit)} to {_number(row[high], unit)}"
        return f"{text} <small>{ends}</small>"
    if isinstance(value, float):
        if isnan(value):
            return "-"
        share = column.startswith("inside") or column in SHARES
        return f"{value:.1%}" if share else f"{value:.3g}"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))


def _number(value: float, unit: str) -> str:
    return f"{value:.4f}" if unit == "rad" else f"{value:.2f}"
