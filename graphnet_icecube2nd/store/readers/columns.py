"""Which tables and columns of a file are read, by what they hold and the user wants.

Whatever the format, a table has a name and columns with types; these are the rules
that all formats share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
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

EVENT_COLUMNS = ("event_id", "event_no")  # Kaggle's and GraphNeT's name of the key

Keep = Sequence[str]  # names of columns, or the one word below
KEEP_ALL = "all"

# What to write, for messages: what `prepare` calls the readers' arguments.
_PULSES = "pulses_table=... (--pulses-table)"
_TRUTH = "truth_table=... (--truth-table)"
NO_TRUTH = "with_truth=False (--without-truth)"

# What a file must have to be taken for one of these; the more particular come first.
_SIGNS = (
    ("kaggle", {"sensor_id", "time", "charge", "auxiliary"}),
    ("upgrade", {"dom_x", "dom_y", "dom_z", "dom_time", "pmt_dir_x"}),
    ("icecube86", {"dom_x", "dom_y", "dom_z", "dom_time"}),
    ("prometheus", {"sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"}),
    ("km3net", {"x", "y", "z", "t", "tot"}),
)


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
    """A table of which only name and columns matter."""

    name: str  # for messages
    types: Mapping[str, Any]  # Arrow type of each column


def recognise_pulse_map(columns: Collection[str]) -> PulseMap | None:
    """Return the named pulse map whose columns these are, or None."""
    for name, signs in _SIGNS:
        if signs <= set(columns):
            return PulseMap.by_name(name)
    return None


def settle_pulse_map(
    columns: Collection[str], pulse_map: PulseMap | None, name: str
) -> PulseMap:
    """Return the pulse map to read a file with: the user's, or the one recognised.

    Args:
        columns: Names of the pulse columns of the file.
        pulse_map: What the user says, or None to go by the columns.
        name: What messages call the file.

    Raises:
        ValueError: No named pulse map fits, or a column that it names is missing.
    """
    there = ", ".join(map(str, columns))
    settled = pulse_map or recognise_pulse_map(columns)
    if settled is None:
        near = _nearest(columns)
        raise ValueError(
            f"{name}: no named pulse map fits its columns ({there}){near}. "
            "Say what they mean: PulseMap(name=..., x=..., y=..., z=..., time=..., ...)"
        )
    given = [q for column, q in settled.columns().items() if column in columns]
    if missing := settled.missing(given):
        wanted = [settled.column(quantity) for quantity in missing]
        without = settled.how_without(missing[0])
        hint = f". For files without it: {without}" if missing[0] != "time" else ""
        raise ValueError(
            f"{name}: pulse map {settled.name!r} needs column {', '.join(wanted)}; "
            f"there is {there}{hint}"
        )
    return settled


def choose_columns(
    available: Mapping[str, Any] | Collection[str], pulse_map: PulseMap, keep: Keep = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the pulse columns to take: those of the pulse map, and those to be kept.

    Args:
        available: Pulse columns of the file, without the one that names the event;
            by their Arrow type, where `all` shall not keep what is no number.
        pulse_map: What the columns mean.
        keep: Further columns by name, or `all`.

    Returns:
        The columns to take, those of the pulse map first, and those left out.

    Raises:
        ValueError: A column to be kept that is not there.
    """
    known = [column for column in pulse_map.columns() if column in available]
    others = [column for column in available if column not in known]
    kept = others
    if keep == KEEP_ALL and isinstance(available, Mapping):
        kept = [column for column in others if is_number(available[column])]
    elif keep != KEEP_ALL:
        names = [keep] if isinstance(keep, str) else keep
        for name in names:
            if name not in available:
                near = get_close_matches(name, available, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"there is no column {name!r} to keep; {hint}there is "
                    f"{', '.join(available)}"
                )
        kept = [column for column in others if column in names]
    left_out = tuple(column for column in others if column not in kept)
    return (*known, *kept), left_out


def find_event_column(
    columns: Collection[str], wanted: str | None, name: str, like: str | None = None
) -> str:
    """Return the column that says which event a row is of.

    Args:
        columns: Columns of the file.
        wanted: The one the user says, or None to look for `event_id`, `event_no`.
        name: What messages call the file.
        like: One to be taken first if it is there, such as that of the pulses.

    Raises:
        ValueError: There is none.
    """
    candidates = [wanted] if wanted else [*([like] if like else []), *EVENT_COLUMNS]
    for column in candidates:
        if column in columns:
            return column
    raise ValueError(
        f"{name}: no column {' or '.join(map(repr, dict.fromkeys(candidates)))} that "
        f"says which event a row is of; there is {', '.join(map(str, columns))}"
    )


def _nearest(columns: Collection[str]) -> str:
    """Return, for messages, the pulse map that fits but for a column or two."""
    lost, name = min((len(signs - set(columns)), name) for name, signs in _SIGNS)
    if lost > 2:
        return ""
    missing = sorted(dict(_SIGNS)[name] - set(columns))
    return f"; for {name!r}, {', '.join(missing)} is missing"


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
        fitting = [_named(tables, name, place=place, argument="pulses")]
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
        return _named(tables, name, place=place, argument="truth")
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


def choose_tables(
    tables: Sequence[T],
    *,
    place: str,
    event: str,
    pulses: str | None,
    truth: str | bool | None,
    pulse_map: PulseMap | None,
    keyed: Collection[T] = (),
) -> tuple[T, T | None, PulseMap]:
    """Find the tables of pulses and truth that an event column joins.

    Args:
        tables: All tables.
        place: What messages call the file.
        event: The event column.
        pulses: Table of pulses that the user wants, or None to look for it.
        truth: The same of the truth; False to do without.
        pulse_map: What the user says of the columns of pulses, or None.
        keyed: Tables known to have one row an event, which are no pulses.

    Returns:
        Table of pulses, that of truth or None, and what the pulses' columns mean.

    Raises:
        ValueError: There is none, or more than one, or a wanted one has no event
            column; lists the tables.
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
    many = [table for table in with_event if table not in keyed]
    chosen, found = choose_pulses(
        many if pulses is None else tables,
        place=place,
        name=pulses,
        pulse_map=pulse_map,
    )
    if truth is not None:
        with_event = list(tables)
    elif any(has_angles(table, found) for table in keyed):
        with_event = list(keyed)
    others = [table for table in with_event if table is not chosen]
    labels = choose_truth(others, place=place, name=truth, pulse_map=found)
    return chosen, labels, found


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


def _named(tables: Sequence[T], name: str, *, place: str, argument: str) -> T:
    """Return the table of that name."""
    for table in tables:
        if table.name == name:
            return table
    raise ValueError(
        f"{place} has no table {name!r} for {argument}; there is "
        f"{_names(tables) or 'none'}"
    )


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
