"""Events of a store as the tables that GraphNeT reads: pulses and truth by event_no.

Times are those of the source, and pulses with only a sensor_id get the position of
their DOM. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME_ORIGIN, X, Y, Z
from graphnet_icecube2nd.store.event_store import EventStore, Shard
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    N_PULSES,
)

PULSES_AT_ONCE = 2**18


class GraphNetTables:
    """Some or all events of a store, shard by shard.

    Args:
        store: The store.
        index_column: Name of the event_id in the tables; a column of the store with
            this name becomes `source_<name>`.
        events: Numbers of the events; None for all.
        with_empty: Whether events without pulses are included.

    Raises:
        ValueError: Two columns would have one name, or `events` are not valid.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        index_column: str,
        events: Sequence[int] | NDArray[np.integer[Any]] | None,
        with_empty: bool,
    ) -> None:
        self.store = store
        self.index_column = index_column
        self.with_empty = with_empty
        self._events = None if events is None else _numbers(events, store)
        places = [
            store.pulse_map.x or X,
            store.pulse_map.y or Y,
            store.pulse_map.z or Z,
        ]
        self._places = places if not set(places) <= set(store.pulse_columns) else []
        self.truth_columns = self._names(store.truth_columns, [])
        self.pulse_columns = self._names(store.pulse_columns, self._places)

    def _names(self, columns: Sequence[str], added: Sequence[str]) -> dict[str, str]:
        """Return the names of columns in the tables, by their names in the store."""
        index = self.index_column
        names = {c: f"source_{index}" if c == index else c for c in columns}
        all_names = [index, *names.values(), *added]
        if twice := sorted({name for name in all_names if all_names.count(name) > 1}):
            raise ValueError(
                f"{self.store.path}: two columns would have the name "
                f"{', '.join(twice)}. Give another index_column"
            )
        return names

    def shards(self) -> Iterator[tuple[Shard, NDArray[np.int64], int]]:
        """Yield each shard, the rows of its events, and the number left out."""
        offsets = self.store.shard_offsets
        for index, shard in enumerate(self.store.shards):
            rows = np.arange(shard.record.num_events)
            if self._events is not None:
                low, high = np.searchsorted(self._events, offsets[index : index + 2])
                rows = self._events[low:high] - offsets[index]
            wanted = len(rows)
            if not self.with_empty:
                rows = rows[shard.events.column(N_PULSES)[rows] > 0]
            yield shard, rows, wanted - len(rows)

    def ids(self, shard: Shard, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the event_ids of some events of a shard, (B,)."""
        ids: NDArray[np.int64] = shard.events.column(EVENT_ID)[rows]
        return ids

    def truth(self, shard: Shard, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the truth of some events of a shard, (B,) by column."""
        columns = {self.index_column: self.ids(shard, rows)}
        for column, name in self.truth_columns.items():
            columns[name] = shard.events.column(column)[rows]
        return columns

    def pulses(
        self, shard: Shard, rows: NDArray[np.int64]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the pulses of some events of a shard in tables, (T,) by column."""
        counts = shard.events.column(N_PULSES)[rows].astype(np.int64)
        # Tables have whole events: about `PULSES_AT_ONCE` pulses, or one event.
        group_B = (np.cumsum(counts) - 1).clip(0) // PULSES_AT_ONCE
        borders = np.flatnonzero(np.diff(group_B)) + 1
        for some in np.split(rows, borders):
            if len(some):
                yield self._pulses(shard, some)

    def _pulses(self, shard: Shard, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        events, pulse_map = shard.events, self.store.pulse_map
        count_B, row_T = shard.pulse_rows(rows)
        columns = {self.index_column: np.repeat(self.ids(shard, rows), count_B)}
        for column, name in self.pulse_columns.items():
            values = shard.pulses.column(column)[row_T]
            if column == pulse_map.time and TIME_ORIGIN in events.names:
                origin_B = events.column(TIME_ORIGIN)[rows]
                values = _absolute(values, np.repeat(origin_B, count_B))
            columns[name] = values
        if self._places:
            assert pulse_map.sensor_id is not None
            sensor_id_T = shard.pulses.column(pulse_map.sensor_id)[row_T]
            position_S3 = self.store.geometry.position_S3.numpy()
            for axis, name in enumerate(self._places):
                # coordinates of the file, as the pulse map reads them
                place_S = position_S3[:, axis] + pulse_map.origin[axis]
                columns[name] = place_S[sensor_id_T]
        return columns


def _numbers(
    events: Sequence[int] | NDArray[np.integer[Any]], store: EventStore
) -> NDArray[np.int64]:
    """Return event numbers in the order of the store."""
    given = np.asarray(events)
    if given.size and given.dtype.kind not in "iu":
        raise ValueError(f"events must be integers, got {given.dtype}")
    numbers = np.sort(given.astype(np.int64).ravel())
    store.shard_of(numbers)  # ValueError for unknown numbers
    twice = np.flatnonzero(np.diff(numbers) == 0)
    if len(twice):
        raise ValueError(
            f"events must have each number once, found {numbers[twice[0]]} twice"
        )
    return numbers


def _absolute(time_T: NDArray[Any], origin_T: NDArray[Any]) -> NDArray[Any]:
    """Add the time origin of the events, in its own type.

    An integer clock may count nanoseconds since 1970, which float64 cannot represent.
    """
    if origin_T.dtype.kind == "i":
        time_T = np.rint(time_T).astype(np.int64)
    absolute_T: NDArray[Any] = origin_T + time_T.astype(origin_T.dtype)
    return absolute_T
