"""The folder of an evaluation: the report, its figures, its tables.

OUT/report.html             one file, pictures inside
OUT/figures/*.pdf, *.png    the same pictures
OUT/tables/*.csv            the same tables, and evaluation.json with all of them
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.evaluation.bins import (
    QUANTITIES,
    TOPOLOGY,
    BinRow,
    binned,
    energy_by_topology,
)
from graphnet_icecube2nd.evaluation.coverage import CalibrationView
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.plots import save_figure
from graphnet_icecube2nd.report.evaluation.calibration_figures import (
    draw_coverage,
    draw_expected,
    draw_pulls,
)
from graphnet_icecube2nd.report.evaluation.figures import (
    draw_bins,
    draw_distribution,
    draw_energy_by_topology,
    draw_topologies,
)
from graphnet_icecube2nd.report.evaluation.page import report_page
from graphnet_icecube2nd.report.evaluation.section_figures import draw_section_figure
from graphnet_icecube2nd.report.evaluation.sections import (
    ENERGY_BY_TOPOLOGY,
    sections_of,
)
from graphnet_icecube2nd.report.evaluation.tables import (
    BY,
    Row,
    bin_rows,
    coverage_table,
    expected_table,
    figure_names,
    summary_rows,
    table_name,
)
from graphnet_icecube2nd.version import __version__

REPORT, FIGURES, TABLES = "report.html", "figures", "tables"


def write_evaluation(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    title: str = "Results and truth",
    context: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of an evaluation; the page comes last.

    Args:
        evaluation: The tables beside the truth.
        folder: Where to; made where it is not there.
        title: Of the report.
        context: What the reader should know besides: files, model, command.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder = Path(folder)
    breakdown = Breakdown.of(evaluation)
    tables = evaluation_tables(breakdown)
    figures = evaluation_figures(breakdown)
    described = {
        "events": _events(evaluation),
        **(context or {}),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        + f" by graphnet_icecube2nd {__version__}",
    }
    sections = sections_of(evaluation, tables)
    lines = [f"{name}: {text}" for name, text in described.items()]
    page = report_page(title, lines, sections, figures)
    for name, figure in figures.items():
        for suffix in ("pdf", "png"):
            save_figure(figure, folder / FIGURES / f"{name}.{suffix}", dpi=160)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        _write(folder / TABLES / f"{name}.csv", as_csv(rows))
    plain = {"context": described, **{n: _plain(rows) for n, rows in tables.items()}}
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    _write(folder / TABLES / "evaluation.json", text)
    _write(folder / REPORT, page)
    return folder / REPORT


@dataclass(frozen=True, kw_only=True, eq=False)
class Breakdown:
    """An evaluation of directions by kappa and by bins, once for tables and figures.

    Args:
        evaluation: The tables beside the truth.
        views: Each table's kappas.
        bins: Rows by quantity; quantities that are not known are left out.
        energies: Rows of energy for each topology apart.
    """

    evaluation: Evaluation
    views: tuple[CalibrationView, ...]
    bins: Mapping[str, list[BinRow]]
    energies: list[BinRow]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Breakdown:
        """Break an evaluation down."""
        bins = {quantity: binned(evaluation, quantity) for quantity in QUANTITIES}
        return cls(
            evaluation=evaluation,
            views=tuple(CalibrationView(e) for e in evaluation.tables),
            bins={quantity: rows for quantity, rows in bins.items() if rows},
            energies=energy_by_topology(evaluation),
        )


def evaluation_tables(breakdown: Breakdown) -> dict[str, list[Row]]:
    """Return the tables of an evaluation by name; those without a row are left out."""
    views = breakdown.views
    tables = {"summary": summary_rows(breakdown.evaluation.summaries)}
    for quantity, rows in breakdown.bins.items():
        tables[_by(quantity)] = bin_rows(rows)
    tables[ENERGY_BY_TOPOLOGY] = bin_rows(breakdown.energies)
    tables["coverage"] = coverage_table([row for v in views for row in v.coverage()])
    tables["expected"] = expected_table([row for v in views for row in v.expected()])
    for evaluated in breakdown.evaluation.tasks:
        section = evaluated.section
        tables[table_name(section.task)] = [dict(row) for row in section.rows]
    return {name: rows for name, rows in tables.items() if rows}


def evaluation_figures(breakdown: Breakdown) -> dict[str, Any]:
    """Return matplotlib figures of an evaluation by name, those that have something."""
    figures: dict[str, Any] = {}
    if breakdown.evaluation.tables:
        figures["distribution"] = draw_distribution(breakdown.evaluation)
    for quantity, rows in breakdown.bins.items():
        draw = draw_topologies if quantity == TOPOLOGY else draw_bins
        figures[_by(quantity)] = draw(rows)
    if breakdown.energies:
        figures[ENERGY_BY_TOPOLOGY] = draw_energy_by_topology(breakdown.energies)
    views = [view for view in breakdown.views if view.ways]
    if views:
        figures["coverage"] = draw_coverage(views)
        figures["expected"] = draw_expected(views)
        figures["pulls"] = draw_pulls(views)
    for evaluated in breakdown.evaluation.tasks:
        names = figure_names(evaluated.section)
        for name, panels in evaluated.section.figures.items():
            figures[names[name]] = draw_section_figure(panels)
    return figures


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV; NaN and a column that a row lacks are empty cells."""
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else value for name, value in row.items()}
        for row in _plain(rows)
    )
    return text.getvalue()


def _by(quantity: str) -> str:
    return f"{BY}{quantity.replace(' ', '_')}"


def _events(evaluation: Evaluation) -> str:
    counts = [f"{e.task}: {len(e.event_id):,}" for e in evaluation.tasks]
    if evaluation.tables:
        counts.insert(0, f"{len(evaluation.truth):,}")
    parts = [", ".join(counts)]
    if evaluation.left_out:
        parts.append(f"{evaluation.left_out:,} of the truth are not in every table")
    parts += [
        f"{number:,} of {name} are not judged"
        for name, number in evaluation.unknown.items()
        if number
    ]
    return "; ".join([*parts, *evaluation.notes])


def _plain(rows: Sequence[Row]) -> list[Row]:
    """Return rows with None for NaN, which JSON does not have."""
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


def _write(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
