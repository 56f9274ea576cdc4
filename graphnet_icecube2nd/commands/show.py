"""Tables, progress bars and descriptions of stores, as the commands print them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Column

    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.preparation import PreparationReport
    from graphnet_icecube2nd.store.readers.source import Source


@contextmanager
def progress() -> Iterator[tuple[Callable[[Source], None], Callable[[int, int], None]]]:
    """Show a progress bar: share, events, pulses per second, remaining time."""
    from rich.progress import TaskProgressColumn

    bars = _bars(
        TaskProgressColumn(),
        "{task.fields[events]:,} events",
        "{task.fields[rate]:.2f} M pulses/s",
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
def counting(total: int, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar over `total` events, with events per second."""
    with counting_later(what) as (on_start, on_progress):
        on_start(total)
        yield on_progress


@contextmanager
def counting_later(
    what: str,
) -> Iterator[tuple[Callable[[int], None], Callable[[int, int], None]]]:
    """Show a progress bar that starts when the number of events is known."""
    from rich.progress import MofNCompleteColumn

    bars = _bars(MofNCompleteColumn(), "events, {task.fields[rate]:,.0f}/s")
    task = bars.add_task(what, total=None, rate=0.0)

    def on_start(total: int) -> None:
        bars.reset(task, total=total)
        bars.start()

    def on_progress(new_events: int, _: int) -> None:
        bars.update(task, advance=new_events, rate=bars.tasks[0].speed or 0.0)

    try:
        yield on_start, on_progress
    finally:
        bars.stop()


def _bars(*middle: ProgressColumn | str) -> Progress:
    """Return a progress bar with these columns between the name and the times."""
    from rich import progress as rich
    from rich.console import Console

    times = (rich.TimeElapsedColumn(), "left", rich.TimeRemainingColumn())
    columns = ("{task.description}", rich.BarColumn(), *middle, *times)
    return rich.Progress(*columns, console=Console(stderr=True))


def print_table(
    header: Sequence[Column | str],
    rows: Iterable[Sequence[str]],
    console: Console | None = None,
    **options: Any,
) -> None:
    """Print a table; the options are those of rich's `Table`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, **options)
    for row in rows:
        table.add_row(*row)
    (console or Console()).print(table)


def say_report(report: PreparationReport) -> None:
    """Print what `prepare` wrote."""
    from graphnet_icecube2nd.store.event_store import EventStore

    print(
        f"{report.store}: {report.num_events:,} events, {report.num_pulses:,} pulses, "
        f"{report.num_bytes / 1e6:,.1f} MB, from {report.kind}, in "
        f"{report.seconds:.1f} s"
    )
    lengths = ", ".join(f"{name} {value}" for name, value in report.quantiles.items())
    print(f"  pulses per event: {lengths or 'no event has any'}")
    if report.num_empty:
        print(
            f"  {report.num_empty:,} events have no pulses: they stay in the store but "
            "enter no batch"
        )
    for text in report.tables:
        print(f"  {text}")
    print(f"  read as {_meaning(EventStore(report.store))}")
    if report.left_out:
        print(f"  columns left out (--keep keeps them): {', '.join(report.left_out)}")
    for text in report.notes:
        print(f"  {text}")
    print("  all events and pulses that were not left out are in the store")


def show_store(console: Console, store: EventStore) -> None:
    """Show columns, counts, pulse map, lengths and notes of a store."""
    from graphnet_icecube2nd.store.event_store import length_classes, length_histogram

    write = partial(console.print, highlight=False)
    left: dict[str, Any] = {"console": console, "title_justify": "left"}
    manifest, pulse_map = store.manifest, store.pulse_map
    write(str(store.path), style="bold", end="")
    write(
        f": {len(store):,} events, {manifest.num_pulses:,} pulses, "
        f"{len(store.shards)} shard(s), from {manifest.kind}, written by release "
        f"{manifest.software} on {manifest.created}"
    )
    known = pulse_map.columns()
    rows = [
        (name, kind, known.get(name, "extra column"))
        for name, kind in manifest.pulse_columns.items()
    ]
    print_table(("column", "stored as", "meaning"), rows, title="pulses", **left)
    columns = manifest.event_columns.items()
    print_table(("column", "stored as"), columns, title="events", **left)
    write(_meaning(store))
    classes = [f"{name} {number:,}" for name, number in length_classes(store).items()]
    meaning = "length classes: short below 64 pulses, long from 192"
    write(f"{', '.join(classes)} ({meaning})")
    lengths = length_histogram(store)
    most = max(1, *(number for _, number in lengths))
    bars = [(label, f"{n:,}", "█" * round(40 * n / most)) for label, n in lengths]
    print_table(("pulses", "events", ""), bars, title="length", **left)
    for text in _weights(store):
        write(text, markup=False)
    for note in manifest.notes:
        write(f"note: {note}", markup=False)


def _weights(store: EventStore) -> Iterator[str]:
    """Yield the effective number of events for each column `weight_...`."""
    import numpy as np

    from graphnet_icecube2nd.statistics import effective_events

    for name in store.truth_columns:
        if name.startswith("weight_"):
            weight_B = store.whole_event_column(name)
            if weight_B.dtype.kind not in "fiu":
                continue
            good_B = np.isfinite(weight_B)
            missing = f", {(~good_B).sum():,} have none" if not good_B.all() else ""
            weight_B = weight_B[good_B]
            # Only the simulation's own weights are known to be rates.
            is_rate = store.manifest.kind == "simulation" and len(weight_B)
            rate = f", rate {weight_B.mean():.4g} Hz" if is_rate else ""
            number = effective_events(weight_B)
            yield f"{name}: {number:,.1f} effective events{rate}{missing}"


def _value(number: Any) -> str:
    """Return a number as text; integers have all digits."""
    return f"{number:g}" if number.dtype.kind == "f" else str(number)


def _meaning(store: EventStore) -> str:
    """Return how the columns of a store are understood."""
    pulse_map = store.pulse_map
    return (
        f"pulse map {pulse_map.name}: time reference {pulse_map.time_reference}, angle "
        f"convention {pulse_map.labels.angles}, positions from {_positions(store)}"
    )


def _positions(store: EventStore) -> str:
    pulse_map = store.pulse_map
    if pulse_map.x in store.pulse_columns:
        return f"{pulse_map.x}, {pulse_map.y}, {pulse_map.z}"
    return f"{pulse_map.sensor_id} of {store.geometry.name}, {len(store.geometry)} DOMs"


def first_with_pulses(store: EventStore) -> Iterator[int]:
    """Yield the first event with pulses of each shard."""
    for shard in range(len(store.shards)):
        full = store.lengths(shard) > 0
        if full.any():
            yield int(store.shard_offsets[shard]) + int(full.argmax())


def show_event(console: Console, store: EventStore, number: int, pulses: int) -> None:
    """Show an event's truth and its first pulses."""
    from graphnet_icecube2nd.store.event_store import view_event

    view = view_event(store, number)
    console.print(f"event_id {view.event_id}, row {number} of the store", markup=False)
    truth = ", ".join(f"{name} {value}" for name, value in view.truth.items())
    console.print(f"  {truth}", highlight=False, markup=False)
    columns = view.pulses.values()
    length = len(next(iter(columns)))
    rows = [[_value(c[row]) for c in columns] for row in range(min(length, pulses))]
    print_table(list(view.pulses), rows, console)
    if length > pulses:
        console.print(f"  and {length - pulses} more pulses")
