"""Commands `prepare`, `inspect` and `export` of event stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphnet_icecube2nd.commands.options import (
    FORMAT_HELP,
    file_option,
    option,
    parse_strings,
    reads_files,
)
from graphnet_icecube2nd.commands.show import (
    first_with_pulses,
    progress,
    say_report,
    show_event,
    show_store,
)


@reads_files
def prepare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="IN... OUT", help="Files or a folder, then the store."),
    ],
    reading: dict[str, Any],
    input_format: Annotated[str | None, file_option(FORMAT_HELP, "--format")] = None,
    truth: Annotated[
        list[Path] | None,
        option("Parquet file of truth. Repeat the option for several files."),
    ] = None,
    with_truth: Annotated[
        bool,
        option("Read the truth, if there is one.", "--with-truth/--without-truth"),
    ] = True,
    angles: Annotated[
        str | None,
        option(
            "Meaning of the truth's angles: `origin` or `flight`. Default: the pulse "
            "map's."
        ),
    ] = None,
    only_strings: Annotated[
        str | None,
        file_option(
            "Strings whose pulses are read: numbers, such as 1-6,9, or the name of a "
            "smaller detector with such strings, such as orca6. IN may then be a store."
        ),
    ] = None,
    sort_pulses: Annotated[bool, option("Sort the pulses of an event by time.")] = True,
    shard_pulses: Annotated[int, option("Maximum pulses per shard.")] = 2**23,
) -> None:
    """Convert files of events into an event store.

    It reads the competition's data, GraphNeT's SQLite, parquet and LMDB, other parquet
    files, HDF5 and KM3NeT's offline ROOT files, and with --only-strings or
    --event-list a store. An interrupted conversion resumes when the command is run
    again.
    """
    if len(paths) < 2:
        raise typer.BadParameter("give files or a folder, then the folder of the store")
    from graphnet_icecube2nd.store import preparation as preparing

    with progress() as (on_source, on_progress):
        report = preparing.prepare(
            paths[:-1],
            paths[-1],
            format=input_format,
            angles=angles,
            truth=truth or None,
            with_truth=with_truth,
            shard_pulses=shard_pulses,
            sort_pulses=sort_pulses,
            on_progress=on_progress,
            on_source=on_source,
            only_strings=parse_strings(only_strings),
            **reading,
        )
    say_report(report)


def inspect(
    store: Annotated[Path, typer.Argument(help="Event store.")],
    event: Annotated[
        int | None, typer.Option(help="event_id of the event to show.")
    ] = None,
    number: Annotated[
        int | None, typer.Option(help="Row of the event to show.")
    ] = None,
    pulses: Annotated[int, typer.Option(help="Number of its pulses to show.")] = 10,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all checksums.")
    ] = False,
) -> None:
    """Show the content of a store: columns, counts, lengths, and one event."""
    from rich.console import Console

    from graphnet_icecube2nd.store.event_store import EventStore

    opened = EventStore(store)
    console = Console(markup=False)  # names may have brackets
    show_store(console, opened)
    if event is not None:
        number = opened.find(event)
    if number is None:
        number = next(first_with_pulses(opened), None)
    if number is not None:
        show_event(console, opened, number, pulses)
    if verify:
        opened.verify()
        console.print("every file is unchanged (SHA-256)")


def export(
    store: Annotated[Path, typer.Argument(help="Event store.")],
    out: Annotated[Path, typer.Argument(help="File with the ending .db, or folder.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="Format: graphnet-sqlite, graphnet-parquet or kaggle. Default: SQLite "
            "if OUT ends in .db, otherwise GraphNeT's parquet."
        ),
    ] = None,
    pulses_table: Annotated[str, typer.Option(help="Table of pulses.")] = "pulses",
    truth_table: Annotated[str, typer.Option(help="Table of truth.")] = "truth",
) -> None:
    """Export a store to files for GraphNeT's datasets or the competition's code."""
    from graphnet_icecube2nd.store import writers

    format = writers.format_of(out, format)
    tables = {"pulses_table": pulses_table, "truth_table": truth_table}
    tables = {} if format == "kaggle" else tables  # the competition has no tables
    with progress() as (_, on_progress):
        report = writers.export(
            store, out, format=format, on_progress=on_progress, **tables
        )
    print(f"{out}: {report.events:,} events, {report.pulses:,} pulses")
    if report.left_out:
        print(
            f"  {report.left_out:,} events without pulses were not written: this "
            "format cannot hold them"
        )
