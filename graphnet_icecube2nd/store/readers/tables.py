"""Which table of a file holds the pulses and which the truth, and what is taken.

Whatever the format, a table has a name and columns with types; these are the rules
that all formats share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.arrow_values import (
    is_number,
    is_string,
    no_values,
)
from graphnet_icecube2nd.store.readers.columns import (
    recognise_pulse_map,
    settle_pulse_map,
)

# What to write, for messages: what `prepare` calls the readers' arguments.
_PULSES = "pulses_table=... (--pulses-table)"
_TRUTH = "truth_table=... (--truth-table)"
NO_TRUTH = "with_truth=False (--without-truth)"

PathLike = str | os.PathLike[str]


class Table(Protocol):
    """A table of a file."""

    @property
    def name(self) -> str:
        """What the file calls it."""

    @property
    def types(self) -> Mapping[str, Any]:
        """Arrow type of each column."""


T = TypeVar("T", bound=Table)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table of which only name and columns matter.

    Args:
        name: What messages call it.
        types: Arrow type of each column.
    """

    name: str
    types: Mapping[str, Any]


def choose_pulses(
    tables: Sequence[T],
    *,
    place: str,
    name: str | None,
    pulse_map: PulseMap | None,
    recognise: Callable[[Collection[str]], PulseMap | None] = recognise_pulse_map,
) -> tuple[T, PulseMap]:
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
        fitting = [table for table in tables if _fits(pulse_map, table.types)]
    else:
        fitting = [table for table in tables if recognise(table.types)]
    if len(fitting) == 1:
        (table,) = fitting
        called = f"{place}, table {table.name!r}"
        wanted = pulse_map or recognise(table.types)
        return table, settle_pulse_map(table.types, wanted, called)
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
    tables: Sequence[T], *, place: str, name: str | bool | None, pulse_map: PulseMap
) -> T | None:
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
    fitting = [table for table in tables if has_angles(table, pulse_map)]
    if len(fitting) == 1:
        return fitting[0]
    words = " and ".join(map(repr, angle_columns(pulse_map)))
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


def tables_with_event(
    tables: Sequence[T],
    event: str,
    pulses: str | None,
    truth: str | bool | None,
    place: str,
) -> list[T]:
    """Return the tables with the event column, the wanted ones among them.

    Args:
        tables: All tables.
        event: The event column.
        pulses: Table of pulses that the user wants, or None.
        truth: The same of the truth; or False.
        place: What messages call the file.

    Raises:
        ValueError: There are none, or a wanted one has no such column.
    """
    with_event = [table for table in tables if event in table.types]
    if not with_event:
        raise ValueError(
            f"{place} has no table with event column {event!r}; it has "
            f"{_with_columns(tables) or 'no table at all'}. Name the column: "
            "event_column=..."
        )
    for table in tables:
        if event not in table.types and table.name in (pulses, truth):
            raise ValueError(
                f"{place}, table {table.name!r}: there is no event column {event!r}; "
                f"there is {', '.join(table.types)}. Name the column: event_column=..."
            )
    return with_event


def named(tables: Sequence[T], name: str, *, place: str, argument: str) -> T:
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


def angle_columns(pulse_map: PulseMap) -> tuple[str, str]:
    """Return what the columns of the truth's angles are called."""
    return pulse_map.labels.azimuth, pulse_map.labels.zenith


def has_angles(table: Table, pulse_map: PulseMap) -> bool:
    """Tell whether a table has both angles."""
    return set(angle_columns(pulse_map)) <= set(table.types)


def choose_truth_columns(
    types: Mapping[str, Any],
    pulse_map: PulseMap,
    name: str,
    without: Collection[str | None] = (),
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Choose the columns of truth to take: numbers, booleans and strings.

    The store has columns of its own in the table of events; a column of the truth
    that has the name of one would take its place.

    Args:
        types: Arrow type by column.
        pulse_map: Says what the columns of the angles are called.
        name: What messages call the table.
        without: Columns that are not truth, such as that of the event_id.

    Returns:
        The columns to take, those left out, and what there is to say.

    Raises:
        ValueError: One of the two angles is missing, or is no number.
    """
    rest = {column: kind for column, kind in types.items() if column not in without}
    notes = [
        f"{name}: column {column!r} of the truth is left out, the store has one of "
        "its own under that name"
        for column in rest
        if column in RESERVED
    ]
    nested = [c for c, kind in rest.items() if not (is_number(kind) or is_string(kind))]
    if nested:
        notes.append(f"{name}: no numbers or strings, left out: {', '.join(nested)}")
    taken = tuple(c for c in rest if c not in nested and c not in RESERVED)
    angles = angle_columns(pulse_map)
    wrong = [c for c in angles if c in types and not is_number(types[c])]
    if len(set(angles) & set(taken)) == 1 or wrong:
        lost = wrong[0] if wrong else next(c for c in angles if c not in taken)
        what = f"is {types[lost]}, not a number" if wrong else "is not there"
        raise ValueError(
            f"{name}: column {lost!r}, an angle of pulse map {pulse_map.name!r}, "
            f"{what}; there is {', '.join(types)}. Name the columns of the angles: "
            "azimuth=..., zenith=... of the pulse map"
        )
    return taken, tuple(c for c in rest if c not in taken), tuple(notes)


def check_tables(
    tables: Sequence[Table],
    columns: Sequence[str],
    pulse_map: PulseMap | None = None,
    key: str | None = None,
) -> None:
    """See that tables can be read as one, before hours go into it.

    Args:
        tables: One or several.
        columns: Those that are read.
        pulse_map: Of tables of pulses, all of whose columns must be numbers.
        key: The event column.

    Raises:
        ValueError: An empty table, a missing column, one that does not hold numbers,
            or one that is of different types in two files.
    """
    first = tables[0]
    known = pulse_map.columns() if pulse_map else {}
    for table in tables:
        for column in (key, *columns) if key else columns:
            if column not in table.types:
                raise ValueError(
                    f"{table.name} has no column {column!r}, which {first.name} has; "
                    f"there is {', '.join(table.types)}"
                )
            if pulse_map and not is_number(table.types[column]):
                raise ValueError(
                    f"{table.name}: column {column!r} is {table.types[column]}; it "
                    "must hold numbers or booleans"
                )
        for column in columns:
            ours, theirs = (no_values(t.types[column]).dtype for t in (first, table))
            # The store has types of its own for what the pulse map knows. It counts
            # an origin of times in integers or in floats, though.
            same = ours == theirs or column in known
            if known.get(column) == TIME:
                same = (ours.kind == "f") == (theirs.kind == "f")
            if not same:
                raise ValueError(
                    f"column {column!r} is {ours} in {first.name}, but {theirs} in "
                    f"{table.name}"
                )
        if getattr(table, "num_rows", None) == 0:
            raise ValueError(f"{table.name} is empty: it has no rows")


def list_files(
    paths: PathLike | Sequence[PathLike], endings: Sequence[str]
) -> list[Path]:
    """Return the files that a user names: one or several, or those in folders.

    Raises:
        FileNotFoundError: One is not there.
        ValueError: None at all, or one is named twice.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ValueError("no file is given")
    files: list[Path] = []
    for path in map(Path, several):
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
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


def _fits(pulse_map: PulseMap, columns: Collection[str]) -> bool:
    given = [q for column, q in pulse_map.columns().items() if column in columns]
    return not pulse_map.missing(given)


def _names(tables: Sequence[Table]) -> str:
    return ", ".join(table.name for table in tables)


def _with_columns(tables: Sequence[Table]) -> str:
    return "; ".join(
        f"{table.name}: {', '.join([*table.types][:8])}"
        f"{', ...' if len(table.types) > 8 else ''}"
        for table in tables
    )
