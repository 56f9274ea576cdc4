"""The line fit of all events of a store, as a table of directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.line_fit import line_fit
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES

_EVENTS_AT_ONCE = 2048


def line_fit_events(
    store: EventStore, events: Sequence[int] | NDArray[np.int64] | None = None
) -> EventTable:
    """Fit a line to events of a store.

    The first pulse of each DOM, of HLC pulses; of all where fewer than three are HLC.

    Args:
        store: The store.
        events: Their numbers in the store; None for all.

    Returns:
        Directions to the origin. Status `no pulses`, or `no fit` where all pulses are
        of one place or time; kappa is NaN: the fit does not know its error.
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
    """Return the pulses that a line fit looks at."""
    num_events = len(pulses.event_id)
    event_T = np.repeat(np.arange(num_events), np.diff(pulses.offsets))
    enough_B = np.bincount(event_T[pulses.hlc_T], minlength=num_events) >= 3
    return pulses.keep(pulses.hlc_T | ~enough_B[event_T]).first_of_doms()
