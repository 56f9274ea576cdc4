"""Commands of event stores: prepare, inspect, export."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from graphnet_icecube2nd.commands.options import option
from graphnet_icecube2nd.commands.show import (
    first_with_pulses,
    progress,
    say_report,
    show_event,
    show_store,
)

_read = partial(option, panel="What to read")
_mean = partial(option, panel="What it means")
_write = partial(option, panel="How to write")


def prepare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="IN... OUT", help="Files or a folder, then the store."),
    ],
    format: Annotated[
        str | None,
        _read(
            "kaggle, graphnet-sqlite, graphnet-parquet, parquet, nested-parquet, hdf5. "
            "Default: recognised."
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None, _read("Parquet file of truth; more than once for several.")
    ] = None,
    with_truth: Annotated[
        bool,
        _read("Take the truth, where there is some.", "--with-truth/--without-truth"),
    ] = True,
    batches: Annotated[
        str | None, _read("Kaggle batches, as 1,2,5-9, or `present`: those there.")
    ] = None,
    which: Annotated[str | None, _read("train or test of Kaggle data.")] = None,
    pulses_table: Annotated[
        list[str] | None,
        _read(
            "Table (or struct) of pulses. More than once: the pulses of an event in "
            "all of them are joined."
        ),
    ] = None,
    truth_table: Annotated[str | None, _read("Table (or struct) of truth.")] = None,
    offsets_table: Annotated[
        str | None, _read("Dataset of the events' borders in HDF5.")
    ] = None,
    event_column: Annotated[str | None, _read("The event key, e.g. event_no.")] = None,
    keep: Annotated[
        list[str] | None, _read("Further pulse column to keep; `all` keeps all.")
    ] = None,
    duplicates: Annotated[
        str,
        _read(
            "`error`, or `renumber` event numbers that stand in several SQLite files."
        ),
    ] = "error",
    detector: Annotated[
        str | None,
        _mean(
            "The detector (see `icecube2nd detectors`): what the columns mean, its "
            "modules, medium and scales."
        ),
    ] = None,
    pulse_map: Annotated[
        str | None,
        _mean(
            "What the columns mean: kaggle, icecube86, upgrade, prometheus, km3net, "
            "or a JSON file. Default: known by the columns."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        _mean(
            "A column that differs from the pulse map's: x=pos_x; hlc=none does "
            "without. Also y, z, time, charge, auxiliary, rde, sensor_id, azimuth, "
            "zenith. More than once for several."
        ),
    ] = None,
    angles: Annotated[
        str | None,
        _mean(
            "The truth's angles name the `origin` or the `flight`. Default: as the "
            "pulse map says."
        ),
    ] = None,
    geometry: Annotated[
        Path | None, _mean("Table of DOMs in place of IceCube-86's.")
    ] = None,
    ice: Annotated[Path | None, _mean("Ice table in place of IceCube's.")] = None,
    workers: Annotated[int | None, _write("Processes. Default: one a core.")] = None,
    sort_pulses: Annotated[bool, _write("Put pulses into the order of time.")] = True,
    shard_pulses: Annotated[int, _write("Pulses of a shard.")] = 2**23,
) -> None:
    """Convert files of events into an event store.

    Reads the competition's data, GraphNeT's SQLite and parquet, parquet files, HDF5.
    An interrupted conversion resumes when the command is run again.
    """
    if len(paths) < 2:
        raise typer.BadParameter("give what to read, then the folder of the store")
    from graphnet_icecube2nd.store import preparation as preparing

    with progress() as (on_source, on_progress):
        report = preparing.prepare(
            paths[:-1],
            paths[-1],
            format=format,
            detector=detector,
            pulse_map=pulse_map,
            columns=parse_columns(column or []),
            angles=angles,
            truth=truth or None,
            with_truth=with_truth,
            pulses_table=pulses_table or None,
            truth_table=truth_table,
            offsets_table=offsets_table,
            event_column=event_column,
            keep="all" if keep == ["all"] else keep or (),
            batches=None if batches is None else parse_batches(batches),
            which=which,
            duplicates=duplicates,
            geometry=geometry,
            ice=ice,
            workers=workers,
            shard_pulses=shard_pulses,
            sort_pulses=sort_pulses,
            on_progress=on_progress,
            on_source=on_source,
        )
    say_report(report)


def inspect(
    store: Annotated[Path, typer.Argument(help="The store.")],
    event: Annotated[
        int | None, typer.Option(help="Show the event with this event_id.")
    ] = None,
    number: Annotated[
        int | None, typer.Option(help="Show the event with this place in the store.")
    ] = None,
    pulses: Annotated[int, typer.Option(help="Pulses of it to show.")] = 10,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all checksums.")
    ] = False,
) -> None:
    """Show what is in a store: columns, counts, lengths, and one event."""
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
        console.print("every file is as it was written (SHA-256)")


def export(
    store: Annotated[Path, typer.Argument(help="The store.")],
    out: Annotated[Path, typer.Argument(help="A .db file, or a folder.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="graphnet-sqlite, graphnet-parquet or kaggle. Default: SQLite if OUT "
            "ends in .db, else GraphNeT's parquet."
        ),
    ] = None,
    pulses_table: Annotated[str, typer.Option(help="Table of pulses.")] = "pulses",
    truth_table: Annotated[str, typer.Option(help="Table of truth.")] = "truth",
) -> None:
    """Write a store as GraphNeT's own datasets, or the competition's code, read it."""
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
            f"  {report.left_out:,} events have no pulses and were not written: "
            "such a file cannot hold them"
        )


def parse_batches(text: str) -> list[int] | str:
    """Return the batches that `1,2,5-9` names, or `present` as it is.

    Raises:
        ValueError: It is neither.
    """
    if text == "present":
        return text
    numbers: list[int] = []
    for piece in text.split(","):
        ends = piece.strip().split("-")
        if len(ends) > 2 or not all(end.isdigit() for end in ends):
            raise ValueError(f"batches must be like 1,2,5-9 or `present`, got {text!r}")
        numbers.extend(range(int(ends[0]), int(ends[-1]) + 1))
    return numbers


def parse_columns(texts: Sequence[str]) -> dict[str, str | None]:
    """Return columns by quantity of texts such as `x=pos_x` or `hlc=none`.

    Raises:
        ValueError: Another form, or a quantity twice.
    """
    columns: dict[str, str | None] = {}
    for text in texts:
        quantity, separator, column = text.partition("=")
        if not (quantity and separator and column) or quantity in columns:
            raise ValueError(
                f"--column must be QUANTITY=COLUMN, each quantity once, got {text!r}"
            )
        columns[quantity] = None if column == "none" else column
    return columns
