"""Pulses in a data frame, or in arrays, as events: grouped, in the order they came.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    find_event_column,
    settle_pulse_map,
)

NAME = "the pulses"  # what messages call them


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedPulses:
    """Pulses of events, one event after the other.

    Args:
        columns: (T,) arrays by column name.
        offsets: (B + 1,) int64 borders of the events.
        event_id: (B,) int64, in the order in which they came.
        pulse_map: What the columns mean.
        unread: Names of the other columns of the table.
    """

    columns: Mapping[str, NDArray[Any]]
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]
    pulse_map: PulseMap
    unread: tuple[str, ...] = ()


def group_pulses(
    pulses: Any,
    *,
    events: Any = None,
    pulse_map: PulseMap | str | None = None,
    event_column: str | None = None,
) -> GroupedPulses:
    """Group the rows of a table of pulses by event.

    Args:
        pulses: One row a pulse, in any order: a DataFrame of pandas or polars, a table
            of pyarrow, or a mapping of arrays. With pandas the event key may be the
            index.
        events: (B,) numbers of the events that are wanted, also those without pulses,
            in the order in which results are to stand; default: as they first come.
        pulse_map: What the columns mean; default: recognised by their names.
        event_column: The event key; default `event_id` or `event_no`.

    Raises:
        TypeError: No table.
        ValueError: No or several pulse maps fit, a missing column, event numbers that
            are no whole numbers, pulses of an event that is not among `events`.
    """
    columns = _columns(pulses)
    key = find_event_column(columns, event_column, NAME)
    id_T = _whole_numbers(columns.pop(key), f"column {key!r} of {NAME}")
    if isinstance(pulse_map, str):
        pulse_map = PulseMap.by_name(pulse_map)
    settled = settle_pulse_map(columns, pulse_map, NAME)
    known, first_B, place_T = np.unique(id_T, return_index=True, return_inverse=True)
    place_T = place_T.ravel()
    if events is None:
        order = np.argsort(first_B)
        event_id = known[order]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
    else:
        event_id = _whole_numbers(np.asarray(events), "events")
        rank = _places(known, event_id)
    event_T = rank[place_T]
    row_T = np.argsort(event_T, kind="stable")
    wanted = [column for column in settled.columns() if column in columns]
    return GroupedPulses(
        columns={column: columns[column][row_T] for column in wanted},
        offsets=np.append(0, np.cumsum(np.bincount(event_T, minlength=len(event_id)))),
        event_id=event_id,
        pulse_map=settled,
        unread=tuple(name for name in columns if name not in wanted),
    )


def _places(known: NDArray[np.int64], event_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where in `event_id` each known event stands."""
    order = np.argsort(event_id, kind="stable")
    ordered = event_id[order]
    if (ordered[1:] == ordered[:-1]).any():
        twice = ordered[1:][ordered[1:] == ordered[:-1]][0]
        raise ValueError(f"events has {twice} twice")
    place = np.searchsorted(ordered, known)
    found = place < len(ordered)
    found[found] = ordered[place[found]] == known[found]
    if not found.all():
        raise ValueError(
            f"{NAME} have event {known[~found][0]}, which is not among events "
            f"({int((~found).sum())} are not)"
        )
    places: NDArray[np.int64] = order[place]
    return places


def _columns(pulses: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of any table as arrays."""
    if isinstance(pulses, Mapping):
        columns = {str(name): np.asarray(value) for name, value in pulses.items()}
    elif hasattr(pulses, "column_names"):  # pyarrow
        columns = {n: pulses[n].to_numpy() for n in pulses.column_names}
    elif hasattr(pulses, "columns"):  # pandas, polars
        index = getattr(getattr(pulses, "index", None), "names", None) or ()
        if any(name in EVENT_COLUMNS for name in index):
            pulses = pulses.reset_index()
        columns = {str(name): pulses[name].to_numpy() for name in pulses.columns}
    else:
        raise TypeError(
            "pulses must be a DataFrame of pandas or polars, a table of pyarrow or a "
            f"mapping of arrays, got {type(pulses).__name__}"
        )
    lengths = {name: value.shape for name, value in columns.items()}
    if len({*lengths.values()}) > 1 or any(len(s) != 1 for s in lengths.values()):
        raise ValueError(f"columns of {NAME} must be (T,) of one length, got {lengths}")
    return columns


def _whole_numbers(values: NDArray[Any], what: str) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and (values == np.floor(values)).all():
        return values.astype(np.int64)  # as a frame with gaps has them
    if values.dtype.kind not in "iu" and len(values):
        raise ValueError(f"{what} must be whole numbers, got {values.dtype}")
    return values.astype(np.int64)
