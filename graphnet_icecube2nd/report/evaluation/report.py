"""An evaluation into a folder: the report, its pictures, its tables.

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
from graphnet_icecube2nd.report.evaluation.sections import (
    ENERGY_BY_TOPOLOGY,
    sections_of,
)
from graphnet_icecube2nd.report.evaluation.tables import (
    Row,
    bin_rows,
    coverage_table,
    expected_table,
    summary_rows,
)
from graphnet_icecube2nd.version import __version__

REPORT, FIGURES, TABLES = "report.html", "figures", "tables"


def write_evaluation(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    title: str = "Directions and the truth",
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
    looks = Looks.at(evaluation)
    tables = evaluation_tables(looks)
    figures = evaluation_figures(looks)
    said = {
        "events": _events(evaluation),
        **(context or {}),
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        + f" by graphnet_icecube2nd {__version__}",
    }
    sections = sections_of(evaluation, tables)
    page = report_page(
        title, [f"{name}: {text}" for name, text in said.items()], sections, figures
    )
    for name, figure in figures.items():
        for suffix in ("pdf", "png"):
            save_figure(figure, folder / FIGURES / f"{name}.{suffix}", dpi=160)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        _write(folder / TABLES / f"{name}.csv", as_csv(rows))
    plain = {"context": said, **{n: _plain(rows) for n, rows in tables.items()}}
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    _write(folder / TABLES / "evaluation.json", text)
    _write(folder / REPORT, page)
    return folder / REPORT


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """An evaluation looked at from all sides, once for tables and pictures.

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
    def at(cls, evaluation: Evaluation) -> Looks:
        """Look."""
        bins = {quantity: binned(evaluation, quantity) for quantity in QUANTITIES}
        return cls(
            evaluation=evaluation,
            views=tuple(CalibrationView(e) for e in evaluation.tables),
            bins={quantity: rows for quantity, rows in bins.items() if rows},
            energies=energy_by_topology(evaluation),
        )


def evaluation_tables(looks: Looks) -> dict[str, list[Row]]:
    """Return the tables of an evaluation by name; those without a row are left out."""
    views = looks.views
    tables = {"summary": summary_rows(looks.evaluation.summaries)}
    for quantity, rows in looks.bins.items():
        tables[_by(quantity)] = bin_rows(rows)
    tables[ENERGY_BY_TOPOLOGY] = bin_rows(looks.energies)
    tables["coverage"] = coverage_table([row for v in views for row in v.coverage()])
    tables["expected"] = expected_table([row for v in views for row in v.expected()])
    return {name: rows for name, rows in tables.items() if rows}


def evaluation_figures(looks: Looks) -> dict[str, Any]:
    """Return matplotlib figures of an evaluation by name, those that have something."""
    figures = {"distribution": draw_distribution(looks.evaluation)}
    for quantity, rows in looks.bins.items():
        draw = draw_topologies if quantity == TOPOLOGY else draw_bins
        figures[_by(quantity)] = draw(rows)
    if looks.energies:
        figures[ENERGY_BY_TOPOLOGY] = draw_energy_by_topology(looks.energies)
    views = [view for view in looks.views if view.ways]
    if views:
        figures["coverage"] = draw_coverage(views)
        figures["expected"] = draw_expected(views)
        figures["pulls"] = draw_pulls(views)
    return figures


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows of equal columns as CSV; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else value for name, value in row.items()}
        for row in _plain(rows)
    )
    return text.getvalue()


def _by(quantity: str) -> str:
    return f"by_{quantity.replace(' ', '_')}"


def _events(evaluation: Evaluation) -> str:
    text = f"{len(evaluation.truth.event_id):,}"
    if evaluation.left_out:
        text += f"; {evaluation.left_out:,} of the truth are not in every table"
    for name, number in evaluation.unknown.items():
        if number:
            text += f"; {number:,} of {name} are not judged"
    return text


def _plain(rows: Sequence[Row]) -> list[Row]:
    """Return rows with None for NaN, which JSON does not have."""
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


def _write(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
