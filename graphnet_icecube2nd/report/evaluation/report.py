"""Report of an evaluation: one HTML file, with its figures and tables beside it.

OUT/report.html             page that contains its pictures and needs no other file
OUT/figures/*.pdf, *.png    the same pictures
OUT/tables/*.csv            the same tables; evaluation.json holds all of them
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from math import isnan
from pathlib import Path
from string import Template
from typing import Any

from graphnet_icecube2nd.evaluation.coverage import calibration_sections
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.evaluation.nubench import nubench_section
from graphnet_icecube2nd.evaluation.resolution import direction_sections
from graphnet_icecube2nd.evaluation.rows import as_csv, without_nan
from graphnet_icecube2nd.files import locked_folder, write_text
from graphnet_icecube2nd.plots import save_figure
from graphnet_icecube2nd.report.evaluation.section_figures import draw_section_figure
from graphnet_icecube2nd.tasks.section import UNITS, Section, ends, shown_columns
from graphnet_icecube2nd.version import __version__

REPORT, FIGURES, TABLES = "report.html", "figures", "tables"
# Names of tables and figures of directions, and the prefix of further ones. Other
# tasks cannot use them.
TAKEN = (
    *("overview", "outliers", "context", "summary", "distribution", "expected"),
    *("pulls", "coverage", "coverage_by_bin", "coverage_inside_50"),
    "coverage_inside_90",
)
BY = "by_"
SHARES = ("held", "level", "accuracy")  # columns shown in percent
HEADINGS = {
    "table": "",
    "way": "calibration",
    "held": "share inside",
    "inside_1_deg": "psi up to 1 deg",
    "inside_5_deg": "psi up to 5 deg",
}
NOT_MAIN = ("effective_events", "difference_rad")  # columns not in the overview
MAIN_FIGURES = 2  # for each task in the overview
LONG = 12  # maximum rows of a table that is not folded
DIGITS = {"rad": ".4f", "log10": ".3f", "auc": ".4f", "bias": ".3f", "rate": ".6g"}


def write_evaluation(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    title: str = "Results and truth",
    context: Mapping[str, str] | None = None,
    further: Sequence[Section] = (),
) -> Path:
    """Write the report of an evaluation; the page is written last.

    Args:
        evaluation: Evaluated results tables.
        folder: Folder of the report; created if need be.
        title: Title of the report.
        context: Further lines at the top of the page, such as files, model, command.
        further: Sections at the end of the page.

    Returns:
        Path of the page.

    Raises:
        ValueError: Another process is writing a report into the folder.
        ImportError: matplotlib is not installed.
    """
    described = {"events": _events(evaluation), **(context or {})}
    sections = [*sections_of(evaluation), *further]
    return write_report(sections, folder, "evaluation", title=title, context=described)


def write_report(
    sections: Sequence[Section],
    folder: str | os.PathLike[str],
    name: str,
    *,
    title: str,
    context: Mapping[str, str],
) -> Path:
    """Write a report of sections, with its figures and tables; the page comes last.

    Args:
        sections: Sections in their order.
        folder: Folder of the report; created if need be.
        name: Name of the JSON file with all tables.
        title: Title of the report.
        context: Lines at the top of the page; the date is added.

    Returns:
        Path of the page.

    Raises:
        ValueError: Another process is writing a report into the folder.
        ImportError: matplotlib is not installed.
    """
    folder = Path(folder)
    tables = {section.table: section.rows for section in sections if section.rows}
    figures = evaluation_figures(sections)
    described = {
        **context,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        + f" by graphnet_icecube2nd {__version__}",
    }
    lines = [f"{name}: {text}" for name, text in described.items()]
    page = report_page(title, lines, sections, figures)
    plain = {"context": described, **{n: without_nan(r) for n, r in tables.items()}}
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    with locked_folder(folder, "a report"):
        for figure_name, figure in figures.items():
            for suffix in ("pdf", "png"):
                path = folder / FIGURES / f"{figure_name}.{suffix}"
                save_figure(figure, path, dpi=160)
        for table_name, rows in tables.items():
            write_text(folder / TABLES / f"{table_name}.csv", as_csv(rows))
        write_text(folder / TABLES / f"{name}.json", text)
        write_text(folder / REPORT, page)
    return folder / REPORT


def sections_of(evaluation: Evaluation) -> list[Section]:
    """Return the sections of the report: directions, then each other task.

    The first one has the main figures of all tasks side by side, if there are several
    tasks. The names of tables and figures are unique among the sections.
    """
    whole = [evaluated.section for evaluated in evaluation.tasks]
    whole += [section] if (section := nubench_section(evaluation)) else []
    others = [
        _renamed(some) for section in whole for some in (section, *section.further)
    ]
    directions = [*direction_sections(evaluation), *calibration_sections(evaluation)]
    main = [directions[:1], *([section] for section in whole if section.rows)]
    return [*_overview([s for some in main for s in some]), *directions, *others]


def _overview(sections: Sequence[Section]) -> list[Section]:
    """Return a section with the main figures of each task, a row for each table."""
    if len(sections) < 2:
        return []
    tables: dict[str, dict[str, Any]] = {}
    for section in sections:
        columns = section.shown or shown_columns(section.rows)
        for row in section.rows:
            if "table" not in row:  # of a registered task
                continue
            figures = [
                name
                for name in columns
                if isinstance(row.get(name), float) and name not in NOT_MAIN
            ][:MAIN_FIGURES]
            here = tables.setdefault(row["table"], {"table": row["table"]})
            for name in figures:
                here[f"{section.task}_{name}"] = row[name]
    return [
        Section(
            task="overview",
            table="overview",
            title="Overview",
            text="The main figures of each task.",
            rows=list(tables.values()),
            shown=tuple(dict.fromkeys(name for row in tables.values() for name in row)),
        )
    ]


def evaluation_figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the matplotlib figures of sections by name."""
    return {
        name: draw_section_figure(panels)
        for section in sections
        for name, panels in section.figures.items()
    }


def report_page(
    title: str,
    context: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Any],
) -> str:
    """Return the report as HTML that contains its pictures.

    Args:
        title: Title of the report.
        context: Lines at the top of the page.
        sections: Sections in their order.
        figures: Matplotlib figures by the names that the sections use.
    """
    data = files("graphnet_icecube2nd.report.evaluation") / "data" / "evaluation.html"
    links, parts = [], []
    for number, section in enumerate(sections):
        links.append(f'<a href="#part{number}">{escape(section.title)}</a>')
        parts.append(_section(number, section, figures))
    return Template(data.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        context="<br>\n".join(escape(line) for line in context),
        contents="\n".join(links),
        sections="\n".join(parts),
    )


def heading_of(column: str) -> str:
    """Return a column's heading: words, and the unit at the end of its name.

    `bias_percent` becomes `bias [%]`, `bias_log10` becomes `bias [log10]`, and
    `inside_68` becomes `inside 68%`; the column `table` has no heading.
    """
    if column in HEADINGS:
        return HEADINGS[column]
    column = re.sub(r"(?<![a-z])q(\d+)(?!\d)", r"\1%", column)
    words, _, unit = column.rpartition("_")
    words = words.replace("_", " ")
    if words and unit in UNITS:
        return f"{words} [{'%' if unit == 'percent' else unit}]"
    return f"{words} {unit}{'%' if words and unit.isdigit() else ''}".strip()


def _section(number: int, section: Section, figures: Mapping[str, Any]) -> str:
    parts = [f'<section id="part{number}">', f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f'<p class="soft">{escape(section.text)}</p>')
    for name in section.figures:
        parts.append(_figure(figures[name], section.captions.get(name, "")))
    if section.rows:
        rows = section.rows[: section.most_shown]
        table = _table(rows, section.shown or shown_columns(section.rows))
        if len(rows) > LONG:
            table = f"<details><summary>Show the numbers</summary>{table}</details>"
        parts.append(table)
    return "\n".join([*parts, "</section>"])


def _figure(figure: Any, caption: str) -> str:
    picture = io.BytesIO()
    # Vector graphics are sharp on screen and on paper. Without a date, the same report
    # gives the same file.
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
    """Return a value as HTML, with its interval if it has one."""
    value = row.get(column)
    if value is None or (isinstance(value, float) and isnan(value)):
        return "-"
    low, high = (row.get(end) for end in ends(column))
    share = column.startswith("inside") or column in SHARES
    if low is not None and high is not None:
        if low == high == value == 0:
            return "-"
        digits = ".1%" if share else DIGITS.get(column.rpartition("_")[2], ".2f")
        value, low, high = (f"{v:{digits}}" for v in (value, low, high))
        return f"{value} <small>{low} to {high}</small>"
    if isinstance(value, float):
        if share:
            return f"{value:.1%}"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))


def _renamed(section: Section) -> Section:
    """Return a task's section, renamed where sections of directions use a name."""

    def own(name: str, other: str) -> str:
        taken = name in TAKEN or name.startswith(BY)
        return f"{section.task}_{other}" if taken else name

    return replace(
        section,
        table=own(section.table or section.task, "task"),
        figures={own(name, name): p for name, p in section.figures.items()},
        captions={own(name, name): text for name, text in section.captions.items()},
    )


def _events(evaluation: Evaluation) -> str:
    counts = [f"{e.task}: {len(e.event_id):,}" for e in evaluation.tasks]
    if evaluation.tables:
        counts.insert(0, f"{len(evaluation.truth):,}")
    return "; ".join([", ".join(counts), *evaluation.remarks])
