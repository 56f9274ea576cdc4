"""Which table of a file holds the pulses and which the truth, and what is taken.

SQLite, GraphNeT's parquet and HDF5 all hold named tables of columns; these are the
rules they share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import (
    recognise_pulse_map,
    settle_pulse_map,
)

# What to write, for messages: the readers' arguments, and what `prepare` calls them.
_PULSES = "pulses_table=... (--pulses-table)"
_TRUTH = "truth_table=... (--truth-table)"
NO_TRUTH = "with_truth=False (--without-truth)"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a file.

    Args:
        name: What the file calls it.
        columns: Its columns.
    """

    name: str
    columns: tuple[str, ...]


def fits(pulse_map: PulseMap, columns: Collection[str]) -> bool:
    """Tell whether columns hold all that a pulse map asks for."""
    given = [q for column, q in pulse_map.columns().items() if column in columns]
    return not pulse_map.missing(given)


def choose_pulses(
    tables: Sequence[Table],
    *,
    place: str,
    name: str | None,
    pulse_map: PulseMap | None,
    recognise: Callable[[Collection[str]], PulseMap | None] = recognise_pulse_map,
) -> tuple[Table, PulseMap]:
    """Find the table of pulses and what its columns mean.

    Args:
        tables: Those that may be it.
        place: What messages call the file.
        name: The one the user wants, or None to look for it.
        pulse_map: What the user says of the columns, or None to recognise them.
        recognise: What tells a pulse map by its columns.

    Raises:
        ValueError: None fits, or more than one; lists the tables.
    """
    if name is not None:
        fitting = [named(tables, name, place=place, argument="pulses")]
    elif pulse_map is not None:
        fitting = [table for table in tables if fits(pulse_map, table.columns)]
    else:
        fitting = [table for table in tables if recognise(table.columns)]
    if len(fitting) == 1:
        (table,) = fitting
        called = f"{place}, table {table.name!r}"
        wanted = pulse_map or recognise(table.columns)
        return table, settle_pulse_map(table.columns, wanted, called)
    if fitting:
        raise ValueError(
            f"{place} has {len(fitting)} tables of pulses: {_names(fitting)}. "
            f"Name one: {_PULSES}"
        )
    what = "no named pulse map fits any of its tables"
    if pulse_map is not None:
        what = f"pulse map {pulse_map.name!r} fits none of its tables"
    raise ValueError(
        f"{place} has no table of pulses: {what} ({_with_columns(tables)}). Name it "
        f"and say what its columns mean: {_PULSES}, pulse_map=PulseMap(...)"
    )


def choose_truth(
    tables: Sequence[Table],
    *,
    place: str,
    name: str | bool | None,
    pulse_map: PulseMap,
) -> Table | None:
    """Find the table of truth.

    Args:
        tables: Those that may be it, the table of pulses not among them.
        place: What messages call the file.
        name: The one the user wants, None to look for it, False to do without.
        pulse_map: Names the columns of the angles.

    Returns:
        The table, or None to do without.

    Raises:
        ValueError: None has the angles, or more than one has; lists the tables.
    """
    if name is False:
        return None
    if isinstance(name, str):
        return named(tables, name, place=place, argument="truth")
    if name is not None:
        raise ValueError(f"truth is the name of a table, False or None, got {name!r}")
    angles = {pulse_map.labels.azimuth, pulse_map.labels.zenith}
    fitting = [table for table in tables if angles <= set(table.columns)]
    if len(fitting) == 1:
        return fitting[0]
    words = " and ".join(repr(column) for column in sorted(angles))
    if fitting:
        raise ValueError(
            f"{place} has {len(fitting)} tables of truth, with columns {words}: "
            f"{_names(fitting)}. Name one: {_TRUTH}"
        )
    raise ValueError(
        f"{place} has no table of truth, with one row an event and columns {words}; "
        f"there is {_with_columns(tables) or 'no other table'}. Name it: {_TRUTH}, or "
        f"do without: {NO_TRUTH}"
    )


def check_event_column(
    tables: Sequence[Table],
    with_event: Sequence[Table],
    event: str,
    pulses: str | None,
    truth: str | bool | None,
    place: str,
) -> None:
    """See that there are tables with the event column, the wanted ones among them.

    Args:
        tables: All tables.
        with_event: Those with the event column.
        event: The event column.
        pulses: Table of pulses that the user wants, or None.
        truth: The same of the truth; or False.
        place: What messages call the file.

    Raises:
        ValueError: There are none, or a wanted one has no such column.
    """
    if not with_event:
        raise ValueError(
            f"{place} has no table with event column {event!r}; it has "
            f"{_with_columns(tables) or 'no table at all'}. Name the column: "
            "event_column=..."
        )
    without = {table.name for table in tables} - {table.name for table in with_event}
    for wanted in (pulses, truth):
        if wanted in without:
            table = next(table for table in tables if table.name == wanted)
            raise ValueError(
                f"{place}, table {wanted!r}: there is no event column {event!r}; there "
                f"is {', '.join(table.columns)}. Name the column: event_column=..."
            )


def named(tables: Sequence[Table], name: str, *, place: str, argument: str) -> Table:
    """Return the table of that name.

    Raises:
        ValueError: There is none; lists the tables.
    """
    for table in tables:
        if table.name == name:
            return table
    raise ValueError(
        f"{place} has no table {name!r} for {argument}; there is "
        f"{_names(tables) or 'none'}"
    )


def truth_columns(
    columns: Iterable[str], place: str, without: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which columns of the truth are taken, and notes on those that cannot be.

    The store has columns of its own in the table of events; a column of the truth
    that has the name of one would take its place.

    Args:
        columns: Columns of the truth.
        place: What notes call the table.
        without: Columns that are event_ids.
    """
    rest = [column for column in columns if column not in without]
    clash = [column for column in rest if column in RESERVED]
    notes = tuple(
        f"{place}: column {column!r} of the truth is left out, the store has one of "
        "its own under that name"
        for column in clash
    )
    return tuple(column for column in rest if column not in clash), notes


def list_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    endings: Sequence[str],
) -> list[Path]:
    """Return the files that a user names: one or several, or those in folders.

    Raises:
        ValueError: None at all, or one is named twice.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ValueError("no file is given")
    files: list[Path] = []
    for path in map(Path, several):
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in endings)
        if not inside:
            raise ValueError(f"{path} has no file that ends in {' or '.join(endings)}")
        files += inside
    places = [path.resolve() for path in files]
    for path, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{path} is given twice")
    return files


def _names(tables: Iterable[Table]) -> str:
    return ", ".join(table.name for table in tables)


def _with_columns(tables: Sequence[Table]) -> str:
    few = [f"{', '.join(table.columns[:8])}" for table in tables]
    more = [", ..." if len(table.columns) > 8 else "" for table in tables]
    return "; ".join(
        f"{table.name}: {first}{rest}"
        for table, first, rest in zip(tables, few, more, strict=True)
    )
