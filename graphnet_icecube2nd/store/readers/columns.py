"""Which columns of a file are read: its pulse map, and what the user wants kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.arrow_values import is_number

EVENT_COLUMNS = ("event_id", "event_no")  # Kaggle's and GraphNeT's name of the key

Keep = Sequence[str]  # names of columns, or the one word below
KEEP_ALL = "all"

# What a file must have to be taken for one of these; the more particular come first.
_SIGNS = (
    ("kaggle", {"sensor_id", "time", "charge", "auxiliary"}),
    ("upgrade", {"dom_x", "dom_y", "dom_z", "dom_time", "pmt_dir_x"}),
    ("icecube86", {"dom_x", "dom_y", "dom_z", "dom_time"}),
    ("prometheus", {"sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"}),
    ("km3net", {"x", "y", "z", "t", "tot"}),
)


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
