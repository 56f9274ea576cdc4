"""The report of an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isnan
from string import Template
from typing import Any

from graphnet_icecube2nd.tasks.section import Section

TEMPLATE = "evaluation.html"
SHARES = ("held", "level", "accuracy")  # columns shown in percent
LONG = 12  # rows beyond which a table is folded
UNITS = {"percent": "%", **{u: u for u in ("rad", "deg", "m", "ns", "GeV", "log10")}}


def report_page(
    title: str,
    context: Sequence[str],
    sections: Sequence[Section],
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
            f'<a href="#part{number}">{escape(section.title)}</a>'
            for number, section in enumerate(sections)
        ),
        sections="\n".join(
            _section(number, section, figures)
            for number, section in enumerate(sections)
        ),
    )


def heading_of(column: str) -> str:
    """Return a column's heading: words, and the unit that its name ends in.

    `bias_percent` becomes `bias [%]`, `bias_log10` becomes `bias [log10]`, and
    `inside_68` becomes `inside 68%`; the column `table` has none.
    """
    if column == "table":
        return ""
    words, _, unit = column.rpartition("_")
    words = re.sub(r"\bq(\d+)\b", r"\1%", words.replace("_", " "))
    if words and unit in UNITS:
        return f"{words} [{UNITS[unit]}]"
    return f"{words} {unit}{'%' if words and unit.isdigit() else ''}".strip()


def _section(number: int, section: Section, figures: Mapping[str, Any]) -> str:
    parts = [f'<section id="part{number}">', f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f'<p class="soft">{escape(section.text)}</p>')
    for name in section.figures:
        parts.append(_figure(figures[name], section.captions.get(name, "")))
    if section.rows:
        table = _table(section.rows, section.shown or tuple(section.rows[0]))
        if len(section.rows) > LONG:
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


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(heading_of(column))}</th>" for column in columns)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{_cell(row, column)}</td>' for column in columns)}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(row: Mapping[str, Any], column: str) -> str:
    """Return a value as HTML, with the ends of its interval if it has one."""
    value = row.get(column)
    if value is None or (isinstance(value, float) and isnan(value)):
        return "-"
    name, _, unit = column.rpartition("_")
    low, high = (row.get(f"{name}_{end}_{unit}") for end in ("low", "high"))
    if low is not None and high is not None:
        if low == high == value == 0:
            return "-"
        value, low, high = (
            f"{v:.4f}" if unit == "rad" else f"{v:.2f}" for v in (value, low, high)
        )
        return f"{value} <small>{low} to {high}</small>"
    if isinstance(value, float):
        share = column.startswith("inside") or column in SHARES
        return f"{value:.1%}" if share else f"{value:.3g}"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))
