"""The command that puts tables of directions beside the truth."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth


def evaluate(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Tables of directions, .parquet, .csv, .db; NAME=FILE gives a name. "
            "Also GraphNeT's predictions. The first is what others are compared with."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Option(
            help="A store, or a table with event_id, azimuth, zenith and what there is "
            "of energy, topology, n_pulses."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    truth_table: Annotated[
        str | None, typer.Option(help="Of a SQLite file; default: the only one.")
    ] = None,
    truth_angles: Annotated[
        str | None,
        typer.Option(
            help="origin or flight: what angles of a table of truth mean. Default: "
            "origin; a store knows its own."
        ),
    ] = None,
    result_angles: Annotated[
        str, typer.Option(help="origin or flight: what the results' directions mean.")
    ] = "origin",
    line_fit: Annotated[
        bool,
        typer.Option("--line-fit", help="Add the line fit; the truth must be a store."),
    ] = False,
    title: Annotated[str, typer.Option(help="Of the report.")] = "Directions and truth",
    resamples: Annotated[
        int, typer.Option(help="Of the bootstrap; of very many events fewer.", min=20)
    ] = 1000,
) -> None:
    """Write a report: how far directions are off, and whether kappa is honest.

    One HTML page with everything inside, its pictures as PDF and PNG, its tables as CSV
    and JSON. Several tables are judged by the events that all of them have.
    """
    from math import degrees

    from rich.console import Console
    from rich.table import Table

    from graphnet_icecube2nd.evaluation.metrics import evaluate as run
    from graphnet_icecube2nd.report.evaluation.report import write_evaluation
    from graphnet_icecube2nd.results.truth import EventTruth

    known = EventTruth.load(truth, table=truth_table, angles=truth_angles)
    tables = [_table(given, result_angles) for given in results]
    if line_fit:
        tables.append(_line_fit(truth, tables, known))
    evaluation = run(tables, known, resamples=resamples)
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
    Console().print(shown)
    for name, number in evaluation.unknown.items():
        if number:
            print(f"{number:,} events of {name} are not judged")
    if evaluation.left_out:
        print(f"{evaluation.left_out:,} events of the truth are not in every table")
    print(page)


def _table(given: str, angles: str) -> EventTable:
    from graphnet_icecube2nd.results.event_table import EventTable

    name, equals, path = given.partition("=")
    if not equals or Path(given).exists():
        name, path = Path(given).stem, given
    return EventTable.load(path, name, angles)


def _line_fit(truth: Path, tables: list[EventTable], known: EventTruth) -> EventTable:
    import numpy as np

    from graphnet_icecube2nd.likelihood.line_fit_table import line_fit_events
    from graphnet_icecube2nd.store.event_store import EventStore

    if not _is_store(truth):
        raise ValueError(f"--line-fit needs pulses, so a store as truth; got {truth}")
    wanted = np.ones(len(known.event_id), bool)
    for table in tables:
        wanted &= np.isin(known.event_id, table.event_id)
    return line_fit_events(EventStore(truth), np.flatnonzero(wanted))


def _is_store(path: Path) -> bool:
    from graphnet_icecube2nd.store.manifest import MANIFEST

    return (path / MANIFEST).is_file()
