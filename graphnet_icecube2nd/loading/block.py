"""Where the events of one read lie, and their columns from all shards at once.

Shape letters: B events, T kept pulses, C events of one shard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, FIRST_PULSE, N_PULSES


class EventBlock:
    """Events of a store, in any order, gathered from the shards they lie in.

    Args:
        store: The store.
        events: (B,) int64 numbers of events in it.

    Raises:
        ValueError: A number that no event has.
    """

    def __init__(self, store: EventStore, events: NDArray[np.int64]) -> None:
        self.store = store
        self.shard_B = store.shard_of(events)
        self.local_B = events - store.shard_offsets[self.shard_B]
        first, last = int(self.shard_B[0]), int(self.shard_B[-1])
        if first == last and bool((self.shard_B == first).all()):
            self._groups: list[tuple[int, Any]] = [(first, slice(None))]
        else:
            order_B = np.argsort(self.shard_B, kind="stable")
            shards, starts = np.unique(self.shard_B[order_B], return_index=True)
            groups = np.split(order_B, starts[1:])
            self._groups = list(zip(shards.tolist(), groups, strict=True))
        self.length_B = self.events(N_PULSES).astype(np.int64)
        self.first_B = self.events(FIRST_PULSE)
        self.id_B = self.events(EVENT_ID)
        self._row_T: Any = None

    def events(self, name: str) -> NDArray[Any]:
        """Return a column of the table of events, (B,)."""
        out: NDArray[Any] | None = None
        for shard, chosen in self._groups:
            table = self.store.shards[shard].events
            part = table.take(name, self.local_B[chosen])
            if len(self._groups) == 1:
                out = part
                break
            if out is None:
                out = np.empty(len(self.local_B), part.dtype)
            out[chosen] = part
        assert out is not None
        return out

    def pulses(
        self, column: str, position_T: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> NDArray[Any]:
        """Return a column of the kept pulses, (T,)."""
        if self._row_T is None:
            row_T = position_T + np.repeat(self.first_B, np.diff(offsets))
            self._row_T = [
                (shard, *_rows_of(chosen, offsets, row_T))
                for shard, chosen in self._groups
            ]
        out: NDArray[Any] | None = None
        for shard, place, row in self._row_T:
            values = self.store.shards[shard].pulses.column(column)
            # `clip` spares a look at every index; they come from the store itself
            part = values.take(row, mode="clip")
            if place is None:
                out = part
                break
            if out is None:
                out = np.empty(len(position_T), part.dtype)
            out[place] = part
        assert out is not None
        return out

    def pulses_of(self, event: int, column: str) -> NDArray[Any]:
        """Return a column of all pulses of one event, on the memory map."""
        values = self.store.shards[int(self.shard_B[event])].pulses.column(column)
        first = int(self.first_B[event])
        return values[first : first + int(self.length_B[event])]


def _rows_of(
    chosen: Any, offsets: NDArray[np.int64], row_T: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Return where the pulses of chosen events go, None for all, and their rows."""
    if isinstance(chosen, slice):
        return None, row_T
    length_C = offsets[chosen + 1] - offsets[chosen]
    end_C = np.cumsum(length_C)
    within = np.arange(end_C[-1]) - np.repeat(end_C - length_C, length_C)
    place = within + np.repeat(offsets[chosen], length_C)
    return place, row_T[place]
