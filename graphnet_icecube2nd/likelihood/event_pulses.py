"""Pulses of stored events, for the classic reconstructions.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import AUXILIARY, CHARGE, HLC, SENSOR_ID, TIME, X
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.simulation.rows import Array
from graphnet_icecube2nd.store.event_store import EventStore


@dataclass(frozen=True, kw_only=True, eq=False)
class EventPulses:
    """Pulses of events in physical units.

    Args:
        position_T3: DOM positions, (T, 3) m.
        time_T: Pulse times, (T,) ns.
        charge_T: Charges, (T,) p.e.; 1 if the store has none.
        hlc_T: HLC flags, (T,) bool; True if the store has none.
        dom_T: Rows in the geometry, (T,); -1 if unknown.
        offsets: Borders of the events, (B + 1,) int64.
        event_id: Number of each event, (B,) int64.
    """

    position_T3: Array
    time_T: Array
    charge_T: Array
    hlc_T: NDArray[np.bool_]
    dom_T: NDArray[np.int64]
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]

    @classmethod
    def read(cls, store: EventStore, events: NDArray[np.int64]) -> EventPulses:
        """Read events of a store by their indices (B,).

        Raises:
            ValueError: An event does not exist or has no pulses.
        """
        raw = EventReader(store, max_pulses=None, truth=()).raw(events)
        columns = {name: value.numpy() for name, value in raw.columns.items()}
        num = len(columns[TIME])
        dom_T = columns.get(SENSOR_ID, np.full(num, -1)).astype(np.int64)
        if X in columns:
            origin = np.array(store.pulse_map.origin)
            position_T3 = np.stack([columns[axis] for axis in "xyz"], axis=1) - origin
        else:
            position_T3 = store.geometry.position_S3.numpy()[dom_T]
        if AUXILIARY in columns:
            hlc_T = columns[AUXILIARY] < 0.5
        else:
            hlc_T = columns.get(HLC, np.ones(num)) > 0.5
        return cls(
            position_T3=position_T3.astype(np.float64),
            time_T=columns[TIME].astype(np.float64),
            charge_T=columns.get(CHARGE, np.ones(num)).astype(np.float64),
            hlc_T=hlc_T,
            dom_T=dom_T,
            offsets=raw.offsets.numpy(),
            event_id=raw.event_id.numpy(),
        )

    def keep(self, keep_T: NDArray[np.bool_]) -> EventPulses:
        """Return the events with some of their pulses; an event may lose all."""
        before = np.append(0, np.cumsum(keep_T))
        columns = ("position_T3", "time_T", "charge_T", "hlc_T", "dom_T")
        kept: dict[str, Any] = {name: getattr(self, name)[keep_T] for name in columns}
        return replace(self, **kept, offsets=before[self.offsets])

    def first_of_doms(self, *, total_charge: bool = False) -> EventPulses:
        """Return the events with only the first pulse at each position.

        Args:
            total_charge: Whether it gets the charge of all pulses of its event and
                position.
        """
        event_T = np.repeat(np.arange(len(self.event_id)), np.diff(self.offsets))
        _, place_T = np.unique(self.position_T3, axis=0, return_inverse=True)
        key_T = event_T * (int(place_T.max(initial=0)) + 1) + place_T.ravel()
        order = np.lexsort((self.time_T, key_T))
        key_D, first_D = np.unique(key_T[order], return_index=True)
        keep_T = np.zeros(len(order), bool)
        keep_T[order[first_D]] = True
        kept = self.keep(keep_T)
        if not total_charge:
            return kept
        dom_T = np.searchsorted(key_D, key_T)
        total_D = np.bincount(dom_T, self.charge_T)
        return replace(kept, charge_T=total_D[dom_T[keep_T]])
