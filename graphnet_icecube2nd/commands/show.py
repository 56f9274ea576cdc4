"""What the commands of event stores say on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.preparation import PreparationReport
    from graphnet_icecube2nd.store.readers.source import Source


@contextmanager
def progress(
    console: Console,
) -> Iterator[tuple[Callable[[Source], None], Callable[[int, int], None]]]:
    """Show how far it is: share, events, pulses a second, the time that remains."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TextColumn("{task.fields[rate]:.2f} M pulses/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    task = bars.add_task("reading", total=None, events=0, rate=0.0)
    events = 0

    def on_source(source: Source) -> None:
        numbers = [part.num_pulses for part in source.parts]
        total = None if None in numbers else sum(n for n in numbers if n is not None)
        bars.update(task, total=total, description=source.kind)

    def on_progress(new_events: int, new_pulses: int) -> None:
        nonlocal events
        events += new_events
        speed = bars.tasks[0].speed or 0.0
        bars.update(task, advance=new_pulses, events=events, rate=speed / 1e6)

    with bars:
        yield on_source, on_progress


@contextmanager
def counting(
    console: Console, total: int, what: str
) -> Iterator[Callable[[int, int], None]]:
    """Show how many events are done: share, events a second, the time that remains."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    task = bars.add_task(what, total=total, rate=0.0)

    def on_progress(new_events: int, _: int) -> None:
        bars.update(task, advance=new_events, rate=bars.tasks[0].speed or 0.0)

    with bars:
        yield on_progress


def say_report(report: PreparationReport) -> None:
    """Say what `prepare` did."""
    print(
        f"{report.store}: {report.num_events:,} events, {report.num_pulses:,} pulses, "
        f"{report.num_bytes / 1e6:,.1f} MB, from {report.kind}, in "
        f"{report.seconds:.1f} s"
    )
    lengths = ", ".join(f"{name} {value}" for name, value in report.quantiles.items())
    print(f"  pulses per event: {lengths or 'no event has any'}")
    if report.num_empty:
        print(
            f"  {report.num_empty:,} events have no pulses: kept, never part of a batch"
        )
    if report.left_out:
        print(f"  columns not taken (see --keep): {', '.join(report.left_out)}")
    for text in report.notes:
        print(f"  {text}")
    print("  every event and every pulse that was read is in the store")


def show_store(console: Console, store: EventStore) -> None:
    """Show columns, counts, pulse map, lengths and notes of a store."""
    from rich.table import Table

    from graphnet_icecube2nd.store.summary import length_classes, length_histogram

    manifest, pulse_map = store.manifest, store.pulse_map
    console.print(str(store.path), style="bold", highlight=False, end="")
    console.print(
        f": {len(store):,} events, {manifest.num_pulses:,} pulses, "
        f"{len(store.shards)} shard(s), from {manifest.kind}, by release "
        f"{manifest.software}, {manifest.created}",
        highlight=False,
    )
    table = Table("column", "stored as", "is", title="pulses", title_justify="left")
    known = pulse_map.columns()
    for name, kind in manifest.pulse_columns.items():
        table.add_row(name, kind, known.get(name, "kept, not read"))
    console.print(table)
    table = Table("column", "stored as", title="events", title_justify="left")
    for name, kind in manifest.event_columns.items():
        table.add_row(name, kind)
    console.print(table)
    console.print(
        f"pulse map {pulse_map.name}: times by {pulse_map.time_reference}, angles name "
        f"the {pulse_map.labels.angles}, places from {_places(store)}",
        highlight=False,
    )
    classes = length_classes(store)
    console.print(
        ", ".join(f"{name} {number:,}" for name, number in classes.items())
        + " (classes by length: short below 64 pulses, long from 192)",
        highlight=False,
    )
    rows = length_histogram(store)
    most = max(number for _, number in rows)
    table = Table("pulses", "events", "", title="length", title_justify="left")
    for label, events in rows:
        table.add_row(label, f"{events:,}", "█" * round(40 * events / max(1, most)))
    console.print(table)
    for note in manifest.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _value(number: Any) -> str:
    """Return a number in words: whole ones in full."""
    return f"{number:g}" if number.dtype.kind == "f" else str(number)


def _places(store: EventStore) -> str:
    pulse_map = store.pulse_map
    if pulse_map.x in store.pulse_columns:
        return f"{pulse_map.x}, {pulse_map.y}, {pulse_map.z}"
    return f"{pulse_map.sensor_id} of {store.geometry.name}, {len(store.geometry)} DOMs"


def first_with_pulses(store: EventStore) -> Iterator[int]:
    """Return the first event with pulses of each shard."""
    for shard in range(len(store.shards)):
        full = store.lengths(shard) > 0
        if full.any():
            yield int(store.shard_offsets[shard]) + int(full.argmax())


def show_event(console: Console, store: EventStore, number: int, pulses: int) -> None:
    """Show an event's truth and its first pulses."""
    from rich.table import Table

    from graphnet_icecube2nd.store.summary import view_event

    view = view_event(store, number)
    console.print(f"event {view.event_id}, number {number} in the store", markup=False)
    truth = ", ".join(f"{name} {value}" for name, value in view.truth.items())
    console.print(f"  {truth}", highlight=False, markup=False)
    table = Table(*view.pulses)
    length = len(next(iter(view.pulses.values())))
    for row in range(min(length, pulses)):
        table.add_row(*(_value(column[row]) for column in view.pulses.values()))
    console.print(table)
    if length > pulses:
        console.print(f"  and {length - pulses} more pulses")


def chosen_device(device: str) -> str:
    """Return the device that `auto` means, or the one that is named.

    Raises:
        ValueError: It cannot be used here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from None
    return device
