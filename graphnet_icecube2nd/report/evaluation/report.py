"""The folder of an evaluation: the report, its figures, its tables.

OUT/report.html             one file, pictures inside
OUT/figures/*.pdf, *.png    the same pictures
OUT/tables/*.csv            the same tables, and evaluation.json with all of them
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.evaluation.coverage import calibration_sections
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.evaluation.resolution import direction_sections
from graphnet_icecube2nd.evaluation.rows import as_csv, without_nan
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.plots import save_figure
from graphnet_icecube2nd.report.evaluation.page import report_page
from graphnet_icecube2nd.report.evaluation.section_figures import draw_section_figure
from graphnet_icecube2nd.tasks.section import Section
from graphnet_icecube2nd.version import __version__

REPORT, FIGURES, TABLES = "report.html", "figures", "tables"
# Tables and figures of directions, and what begins as some; those of another task
# never take their names.
TAKEN = ("summary", "distribution", "coverage", "expected", "pulls", "context")
BY = "by_"


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
    sections = sections_of(evaluation)
    tables, figures = evaluation_tables(sections), evaluation_figures(sections)
    described = {
        "events": _events(evaluation),
        **(context or {}),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        + f" by graphnet_icecube2nd {__version__}",
    }
    lines = [f"{name}: {text}" for name, text in described.items()]
    page = report_page(title, lines, sections, figures)
    for name, figure in figures.items():
        for suffix in ("pdf", "png"):
            save_figure(figure, folder / FIGURES / f"{name}.{suffix}", dpi=160)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        _write(folder / TABLES / f"{name}.csv", as_csv(rows))
    plain = {"context": described, **{n: without_nan(r) for n, r in tables.items()}}
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    _write(folder / TABLES / "evaluation.json", text)
    _write(folder / REPORT, page)
    return folder / REPORT


def sections_of(evaluation: Evaluation) -> list[Section]:
    """Return the sections of the report: those of directions, one of each other task.

    Each has a name for its table, and names of figures, that no other section has.
    """
    others = [_renamed(evaluated.section) for evaluated in evaluation.tasks]
    directions = [*direction_sections(evaluation), *calibration_sections(evaluation)]
    return [*directions, *others]


def evaluation_tables(
    sections: Sequence[Section],
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the tables of sections by name; those without a row are left out."""
    return {section.table: section.rows for section in sections if section.rows}


def evaluation_figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Return matplotlib figures of sections by name."""
    return {
        name: draw_section_figure(panels)
        for section in sections
        for name, panels in section.figures.items()
    }


def _renamed(section: Section) -> Section:
    """Return a task's section without names that those of directions have."""

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


def _write(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
