"""The improved line fit: the usual first guess of a track's direction.

The model is a point that moves through the pulses. Late pulses are removed, and
distances have Huber's weights. Source: M. G. Aartsen et al. (IceCube), Nucl. Instrum.
Meth. A 736 (2014) 143 (arXiv:1308.5501). Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.simulation.rows import Array
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES

LATE_DISTANCE = 156.0  # m: a pulse this close to an earlier one ...
LATE_TIME = 778.0  # ns: ... and later by more than this is scattered light
HUBER_DISTANCE = 153.0  # m, above which distances count linearly
_TURNS = 50
_TILE = 2048  # pulses of an event that are compared at once
_EVENTS_AT_ONCE = 2048


def line_fit_events(
    store: EventStore, events: Sequence[int] | NDArray[np.int64] | None = None
) -> EventTable:
    """Fit a line to events of a store.

    It uses the first pulse of each DOM, from HLC pulses, or from all if fewer than
    three are HLC.

    Args:
        store: Store with the events.
        events: Indices of the events in the store; default: all.

    Returns:
        Directions to the origin. The status is `no pulses`, or `no fit` if all pulses
        have one position or time. kappa is NaN, because the fit gives no error.
    """
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    length_B = store.whole_event_column(N_PULSES)[numbers]
    direction_B3 = np.full((len(numbers), 3), np.nan)
    event_id = store.whole_event_column(EVENT_ID)[numbers]
    full = np.flatnonzero(length_B > 0)
    for first in range(0, len(full), _EVENTS_AT_ONCE):
        some = full[first : first + _EVENTS_AT_ONCE]
        pulses = for_line_fit(EventPulses.read(store, numbers[some]))
        flight_B3, _ = line_fit(pulses.position_T3, pulses.time_T, pulses.offsets)
        direction_B3[some] = -flight_B3
    status_B = np.where(np.isnan(direction_B3).any(axis=1), "no fit", OK)
    status_B = np.where(length_B > 0, status_B, "no pulses")
    return EventTable.of_directions(
        name="line fit",
        event_id=event_id,
        direction_B3=direction_B3,
        kappa_B=np.full(len(numbers), np.nan),
        status_B=status_B,
    )


def for_line_fit(pulses: EventPulses) -> EventPulses:
    """Return the pulses that a line fit uses."""
    num_events = len(pulses.event_id)
    event_T = np.repeat(np.arange(num_events), np.diff(pulses.offsets))
    enough_B = np.bincount(event_T[pulses.hlc_T], minlength=num_events) >= 3
    return pulses.keep(pulses.hlc_T | ~enough_B[event_T]).first_of_doms()


def line_fit(
    position_T3: Array, time_T: Array, offsets: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Fit a point with constant velocity to each event's pulses [m, ns].

    Returns flight directions, (B, 3) unit vectors, and speeds, (B,) m/ns. They are NaN
    if the pulses have fewer than two positions or times.
    """
    keep_T = _not_late(position_T3, time_T, offsets)
    event_T = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[keep_T]
    place_T3, when_T = position_T3[keep_T], time_T[keep_T].astype(np.float64)
    num_events = len(offsets) - 1
    weight_T = np.ones(len(event_T))
    velocity_B3 = np.full((num_events, 3), np.nan)
    for _ in range(_TURNS):
        total_B = np.maximum(np.bincount(event_T, weight_T, num_events), 1e-300)
        mean_B = np.bincount(event_T, weight_T * when_T, num_events) / total_B
        centre_B3 = _sums(event_T, weight_T, place_T3, num_events) / total_B[:, None]
        since_T = when_T - mean_B[event_T]
        step_T3 = place_T3 - centre_B3[event_T]
        spread_B = np.bincount(event_T, weight_T * since_T**2, num_events)
        pull_B3 = _sums(event_T, weight_T * since_T, step_T3, num_events)
        new_B3 = pull_B3 / np.where(spread_B > 1e-6, spread_B, np.nan)[:, None]
        miss_T = np.linalg.norm(step_T3 - new_B3[event_T] * since_T[:, None], axis=1)
        weight_T = HUBER_DISTANCE / np.maximum(miss_T, HUBER_DISTANCE)
        change_B = np.abs(new_B3 - velocity_B3).max(axis=1, initial=0.0)
        velocity_B3 = new_B3
        if not (change_B > 1e-7).any() and not np.isnan(change_B).all():
            break
    speed_B = np.linalg.norm(velocity_B3, axis=1)
    moves_B = speed_B > 1e-6
    speed_B = np.where(moves_B, speed_B, np.nan)
    return velocity_B3 / speed_B[:, None], speed_B


def _sums(event_T: NDArray[np.int64], weight_T: Array, a_T3: Array, num: int) -> Array:
    return np.stack(
        [np.bincount(event_T, weight_T * a_T, num) for a_T in a_T3.T], axis=1
    )


def _not_late(
    position_T3: Array, time_T: Array, offsets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which pulses have no earlier one nearby, (T,)."""
    keep_T = np.ones(len(time_T), bool)
    for first, stop in pairwise(offsets.tolist()):
        place, when = position_T3[first:stop], time_T[first:stop]
        for start in range(0, len(when), _TILE):
            some = slice(start, min(start + _TILE, len(when)))
            late = when[some, None] - when > LATE_TIME
            if not late.any():
                continue
            step = place[some, None] - place
            late &= (step**2).sum(axis=-1) <= LATE_DISTANCE**2
            keep_T[first + some.start : first + some.stop] = ~late.any(axis=1)
    return keep_T
