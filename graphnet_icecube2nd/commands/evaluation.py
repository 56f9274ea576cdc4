"""The command that puts tables of results beside the truth."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.evaluation.metrics import Evaluation
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth

FIGURES_SHOWN = 4  # of each table, in the line of a task


def evaluate(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Tables of results (.parquet, .csv, .db), ours or GraphNeT's "
            "predictions; NAME=FILE gives a name. Others are compared with the first."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Option(
            help="Store of events, or table with event_id and what is known: azimuth "
            "and zenith in rad, energy in GeV, topology, n_pulses, ..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    truth_table: Annotated[
        str | None,
        typer.Option(
            help="Table of the truth in a SQLite file. Default: the only one with an "
            "event number and truth; tables of results are skipped."
        ),
    ] = None,
    truth_angles: Annotated[
        str | None,
        typer.Option(
            help="Meaning of the angles in a table of truth: origin or flight. "
            "Default: origin; a store knows its own."
        ),
    ] = None,
    result_angles: Annotated[
        str,
        typer.Option(help="Meaning of the directions in results: origin or flight."),
    ] = "origin",
    line_fit: Annotated[
        bool,
        typer.Option("--line-fit", help="Add the line fit; the truth must be a store."),
    ] = False,
    title: Annotated[str, typer.Option(help="Title of the report.")] = (
        "Results and truth"
    ),
    resamples: Annotated[
        int,
        typer.Option(
            help="Bootstrap resamples; fewer are used for very many events.", min=20
        ),
    ] = 1000,
) -> None:
    """Write a report that compares results with the truth.

    It has a section for each task that the results have columns of and the truth has
    labels for: opening angles and the calibration of kappa for directions, bias and
    resolution of energies, and so on. The report is one HTML page with everything
    inside; its figures are also saved as PDF and PNG, its tables as CSV and JSON.
    Several tables are judged by the events that all of them have.
    """
    import logging

    from graphnet_icecube2nd.evaluation import metrics
    from graphnet_icecube2nd.report.evaluation.report import write_evaluation
    from graphnet_icecube2nd.results.truth import EventTruth

    # Notes are printed below; without a handler they would be printed twice.
    metrics.LOGGER.addHandler(logging.NullHandler())
    known = EventTruth.load(truth, table=truth_table, angles=truth_angles)
    tables = [_table(given, result_angles) for given in results]
    if line_fit:
        tables.append(_line_fit(truth, tables, known))
    evaluation = metrics.evaluate(tables, known, resamples=resamples)
    page = write_evaluation(
        evaluation,
        out,
        title=title,
        context={
            "truth": str(truth),
            "tables": ", ".join(results),
            "command": shlex.join(["icecube2nd", *sys.argv[1:]]),
        },
    )
    _show(evaluation)
    print(page)


def _show(evaluation: Evaluation) -> None:
    """Print the directions' table, a line of each other task, what is left out."""
    from math import degrees

    from rich.console import Console
    from rich.table import Table

    shown = Table()
    for column in ("", "events", "mean, rad", "median, deg", "in 50%", "in 90%"):
        shown.add_column(column)
    for row in evaluation.summaries:
        inside = (row.inside_50, row.inside_90)
        shown.add_row(
            row.table,
            f"{row.events:,}",
            f"{row.mean.value:.4f} ({row.mean.low:.4f} to {row.mean.high:.4f})",
            f"{degrees(row.median.value):.2f}",
            *("-" if held != held else f"{held:.1%}" for held in inside),
        )
    if evaluation.tables:
        Console().print(shown)
    for task in evaluation.tasks:
        lines = [_figures(row) for row in task.section.rows]
        print(f"{task.task}: {len(task.event_id):,} events; {'; '.join(lines)}")
    for remark in evaluation.remarks:
        print(remark)


def _figures(row: Mapping[str, Any]) -> str:
    """Return the first figures of a row of a task's table, in words."""
    from graphnet_icecube2nd.report.evaluation.report import heading_of

    figures = [
        f"{heading_of(name)} {value:.3g}"
        for name, value in row.items()
        if isinstance(value, float) and value == value
    ]
    return f"{row.get('table', '')}: {', '.join(figures[:FIGURES_SHOWN])}"


def _table(given: str, angles: str) -> EventTable:
    from graphnet_icecube2nd.results.event_table import EventTable

    name, equals, path = given.partition("=")
    if not equals or Path(given).exists():
        name, path = Path(given).stem, given
    return EventTable.load(path, name, angles)


def _line_fit(truth: Path, tables: list[EventTable], known: EventTruth) -> EventTable:
    import numpy as np

    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.store.event_store import EventStore

    if not _is_store(truth):
        raise ValueError(f"--line-fit needs pulses, so a store as truth; got {truth}")
    wanted = np.ones(len(known), bool)
    for table in tables:
        wanted &= np.isin(known.event_id, table.event_id)
    return line_fit_events(EventStore(truth), np.flatnonzero(wanted))


def _is_store(path: Path) -> bool:
    from graphnet_icecube2nd.store.manifest import MANIFEST

    return (path / MANIFEST).is_file()
