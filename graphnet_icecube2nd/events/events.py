"""Events: pulses of many events in physical units, before they become features.

Augmentations take and return them. Shape letters: T pulses in the batch, B events, N
new pulses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    HLC,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)

# Columns that order pulses of the same time; the first counts least.
TIE_BREAKERS = (AUXILIARY, HLC, CHARGE, Z, Y, X, SENSOR_ID)

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """The pulses of a batch of events as columns, with event numbers and truth.

    Nothing is checked: readers build it from values that were checked.

    Args:
        columns: Tensors (T,) in physical units by quantity, named as in `conventions`
            (x, y, z, time, charge, auxiliary, hlc, rde, sensor_id) or with an extra
            column's own name; not with the column names of a file.
        offsets: Borders of the events, (B + 1,) int64. Event `i` has pulses
            `offsets[i]` to `offsets[i + 1] - 1`; every event has at least one.
        n_pulses: Pulses of each event before selection, (B,) int64.
        event_id: Number of each event, (B,) int64.
        truth: Truth tensors (B, ...) by name, e.g. `direction` (B, 3).
    """

    columns: Mapping[str, Tensor]
    offsets: Tensor
    n_pulses: Tensor
    event_id: Tensor
    truth: Mapping[str, Tensor]


def keep_pulses(events: Events, keep_T: NDArray[np.bool_]) -> Events:
    """Return the events without some of their pulses.

    An event that would lose all pulses is not changed. `n_pulses` decreases by the
    number of removed pulses.
    """
    offsets = events.offsets.numpy()
    kept_B = _count(keep_T, offsets)
    if not kept_B.all():
        keep_T = keep_T | np.repeat(kept_B == 0, np.diff(offsets))
    if keep_T.all():
        return events
    index = torch.from_numpy(np.flatnonzero(keep_T))
    columns = {name: value[index] for name, value in events.columns.items()}
    return _with_lengths(events, columns, _count(keep_T, offsets))


def add_pulses(
    events: Events, columns: Mapping[str, NDArray[Any]], num_new_B: NDArray[np.int64]
) -> Events:
    """Return the events with more pulses, sorted by time within each event.

    `columns` must have all columns of the events, (N,) each, the first event first;
    they are converted to the types of those. `n_pulses` increases by the number of new
    pulses.
    """
    if not num_new_B.any():
        return events
    joined = {
        name: torch.cat([value, torch.from_numpy(columns[name]).to(value.dtype)])
        for name, value in events.columns.items()
    }
    length_B = np.diff(events.offsets.numpy())
    event = np.arange(len(length_B))
    order = time_order(
        joined[TIME],
        np.concatenate([np.repeat(event, length_B), np.repeat(event, num_new_B)]),
    )
    columns_T = {name: value[order] for name, value in joined.items()}
    return _with_lengths(events, columns_T, length_B + num_new_B)


def time_order(time_T: Tensor, event_T: NDArray[np.int64]) -> Tensor:
    """Return the order (T,) that sorts pulses by event and then by time.

    Pulses of one event with the same time keep their order.
    """
    time, when_T = time_T.numpy(), time_T.double().numpy()
    span = float(np.ptp(when_T)) + 1.0
    # One nearly sorted number per pulse sorts sixty times as fast as two keys. Two keys
    # are used if float64 is too coarse for it.
    order = np.argsort(when_T - when_T.min() + span * event_T, kind="stable")
    sorted_time, sorted_event = time[order], event_T[order]
    later = sorted_event[1:] > sorted_event[:-1]
    same = sorted_event[1:] == sorted_event[:-1]
    if not (later | (same & (sorted_time[1:] >= sorted_time[:-1]))).all():
        order = np.lexsort((time, event_T))
    return torch.from_numpy(order)


def event_order(
    columns: Mapping[str, NDArray[Any]], event_T: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the order that sorts pulses by event, time, and then by their content.

    Pulses of one event with the same time are ordered by DOM or position, charge and
    flag, so that their order in a file does not matter. `columns` are (T,) by quantity,
    with `time` and DOM or position.
    """
    order_T = time_order(torch.as_tensor(columns[TIME]), event_T).numpy()
    time_T, event_T = columns[TIME][order_T], event_T[order_T]
    same_T = (time_T[1:] == time_T[:-1]) & (event_T[1:] == event_T[:-1])
    if same_T.any():
        tied = np.flatnonzero(np.append(same_T, False) | np.append(False, same_T))
        place = order_T[tied]
        keys = {name: columns[name][place] for name in TIE_BREAKERS if name in columns}
        rows, sources = tie_moves(keys, same_T[tied[:-1]])
        order_T[tied[rows]] = place[sources]
    return order_T


def tie_moves(
    columns: Mapping[str, NDArray[Any]], same_T: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to change, (M,), and the rows they take values from, (M,).

    These moves order pulses of the same time. `columns` are (T,) in the order of event
    and time; `same_T`, (T - 1,), is True if a pulse has the event and the time of the
    next one.
    """
    if not same_T.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The first key counts most.
    keys = [columns[name] for name in reversed(TIE_BREAKERS) if name in columns]
    wrong_T = same_T & (keys[0][1:] < keys[0][:-1])
    equal = np.flatnonzero(same_T & (keys[0][1:] == keys[0][:-1]))
    for key in keys[1:]:
        before, after = key[equal], key[equal + 1]
        wrong_T[equal] = after < before
        equal = equal[after == before]
    # Runs of equal times with a pulse out of order.
    padded_T = np.concatenate([[False], same_T, [False]])
    border = np.flatnonzero(padded_T[1:] != padded_T[:-1])
    first, last = border[::2], border[1::2]
    mixed = np.logical_or.reduceat(wrong_T, first)
    first, length = first[mixed], (last - first + 1)[mixed]
    run = np.repeat(np.arange(len(first)), length)
    rows = np.arange(len(run)) + (first - (np.cumsum(length) - length))[run]
    return rows, _sorted_runs(rows, run, keys)


def _sorted_runs(
    rows: NDArray[np.int64], run: NDArray[np.int64], keys: Sequence[NDArray[Any]]
) -> NDArray[np.int64]:
    """Return the rows (M,), sorted by run and then by the keys, the first key first."""
    key = keys[0][rows]
    if not len(rows) or key.dtype.kind not in "iu":
        order = np.lexsort((*(key[rows] for key in reversed(keys)), run))
        sorted_rows: NDArray[np.int64] = rows[order]
        return sorted_rows
    # One nearly sorted integer per row, as in `time_order`; the other keys decide
    # between equal integers.
    low = int(key.min())
    code = run * (int(key.max()) - low + 1) + (key.astype(np.int64) - low)
    order = np.argsort(code, kind="stable")
    rows, code = rows[order], code[order]
    same = code[1:] == code[:-1]
    if same.any():
        equal = np.flatnonzero(np.append(same, False) | np.append(False, same))
        tied = rows[equal]
        others = [key[tied] for key in keys[:0:-1]]
        rows[equal] = tied[np.lexsort((*others, code[equal]))]
    return rows


def is_triggered(columns: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return whether pulses have the trigger flag, (T,): hlc, or not auxiliary.

    `columns` are arrays or tensors (T,) by quantity, one of them a flag.
    """
    flag = HLC if HLC in columns else AUXILIARY
    triggered_T: NDArray[np.bool_] = (np.asarray(columns[flag]) != 0) == (flag == HLC)
    return triggered_T


def clock_zeros(
    columns: Mapping[str, Any], offsets: NDArray[np.int64], clock: str
) -> tuple[NDArray[Any], int]:
    """Return the times at which the events' running clocks are 0, (B,), exactly.

    They are the times of the first pulse, or, for the clock `first_triggered`, of the
    first pulse with the trigger flag if an event has one.

    Args:
        columns: Arrays or tensors (T,) by quantity.
        offsets: Borders of the events, (B + 1,); every event has pulses.
        clock: `first_pulse` or `first_triggered`.

    Returns:
        The times in their own type, and the number of events without the pulse that
        the clock needs, whose times count from the first pulse.
    """
    time_T, start_B = np.asarray(columns[TIME]), offsets[:-1]
    if not len(start_B):
        return time_T[:0], 0
    first_B: NDArray[Any] = np.minimum.reduceat(time_T, start_B)
    if clock == "first_pulse":
        return first_B, 0
    triggered_T = is_triggered(columns)
    later_T = np.where(triggered_T, time_T, time_T.max())
    has_B = np.logical_or.reduceat(triggered_T, start_B)
    zero_B = np.where(has_B, np.minimum.reduceat(later_T, start_B), first_B)
    return zero_B, int((~has_B).sum())


def relative_times(
    columns: Mapping[str, Tensor], offsets: Tensor, clock: str
) -> tuple[Tensor, int]:
    """Return the times of a running clock, (T,); see `clock_zeros`.

    Use float64 or integers: KM3NeT's clock reaches 1e8 ns, where float32 has steps of
    8 ns.
    """
    zero_B, num_without = clock_zeros(columns, offsets.numpy(), clock)
    zero_T = torch.from_numpy(zero_B).repeat_interleave(offsets.diff())
    return columns[TIME] - zero_T, num_without


def untriggered_note(num_events: int) -> str:
    """Return the text on events without a pulse that has the trigger flag."""
    return (
        f"{num_events:,} events have no pulse with the trigger flag; their times count "
        "from their first pulse"
    )


def auxiliary_of(columns: Mapping[str, Tensor]) -> Tensor | None:
    """Return the auxiliary flag (T,) from columns by quantity; None without a flag."""
    if AUXILIARY in columns:
        return columns[AUXILIARY]
    return 1 - columns[HLC] if HLC in columns else None


def per_pulse(events: Events, value_B: NDArray[Number]) -> NDArray[Number]:
    """Return the value of each pulse's event, (T,), from values (B,)."""
    return np.repeat(value_B, np.diff(events.offsets.numpy()))


def with_columns(events: Events, columns: Mapping[str, Tensor]) -> Events:
    """Return the events with some columns, (T,) each, replaced."""
    return replace(events, columns={**events.columns, **columns})


def need_column(
    events: Events, kind: str, column: str, instead_of: str | None = None
) -> None:
    """Raise ValueError if the events lack a column that an augmentation needs."""
    if column not in events.columns:
        instead = "" if instead_of is None else f" (or {instead_of})"
        raise ValueError(
            f"{kind} needs column {column}{instead}; the events have "
            f"{', '.join(events.columns)}"
        )


def floating(value: Tensor) -> Tensor:
    """Return a float tensor unchanged, any other as float64."""
    return value if value.is_floating_point() else value.double()


def _count(keep_T: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    before = np.append(0, np.cumsum(keep_T))
    count_B: NDArray[np.int64] = np.diff(before[offsets])
    return count_B


def _with_lengths(
    events: Events, columns: dict[str, Tensor], length_B: NDArray[np.int64]
) -> Events:
    new_length = torch.from_numpy(length_B)
    offsets = torch.zeros_like(events.offsets)
    torch.cumsum(new_length, 0, out=offsets[1:])
    n_pulses = events.n_pulses + new_length - events.offsets.diff()
    return replace(events, columns=columns, offsets=offsets, n_pulses=n_pulses)
