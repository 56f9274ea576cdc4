"""What is in a store: how long its events are, and one of them in full."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import LENGTH_CLASSES
from graphnet_icecube2nd.store.event_store import EventStore

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Borders of the histogram: the competition's length classes end at 64 and 192.
LENGTH_BORDERS = (0, 1, 8, 16, 32, 64, 96, 128, 192, 384, 768, 3072, 12288)


def length_counts(store: EventStore) -> NDArray[np.int64]:
    """Return how many events have 0, 1, 2, ... pulses, shard by shard."""
    counts = np.zeros(1, np.int64)
    for shard in range(len(store.shards)):
        found = np.bincount(store.lengths(shard), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def length_quantiles(store: EventStore) -> dict[str, int]:
    """Return pulses per event at some quantiles, of the events that have pulses."""
    counts = length_counts(store)
    counts[0] = 0
    total = np.cumsum(counts)
    if total[-1] == 0:
        return {}
    ranks = [max(1, int(np.ceil(q * total[-1]))) for q in QUANTILES]
    lengths = np.searchsorted(total, ranks)
    names = ["shortest", *(f"{q:.0%}" for q in QUANTILES[1:-1]), "longest"]
    return dict(zip(names, lengths.tolist(), strict=True))


def length_classes(store: EventStore) -> dict[str, int]:
    """Return the number of events of each of the competition's length classes.

    What the published `prepare_data.py` counts, here for the whole store.
    """
    counts = length_counts(store)
    return {
        name: int(counts[shortest : None if longest is None else longest + 1].sum())
        for name, (shortest, longest) in LENGTH_CLASSES.items()
    }


def length_histogram(store: EventStore) -> list[tuple[str, int]]:
    """Return the number of events by range of pulses, empty ranges at the end cut."""
    counts = length_counts(store)
    lengths, borders = np.arange(len(counts)), [*LENGTH_BORDERS, np.inf]
    numbers, _ = np.histogram(lengths, borders, weights=counts)
    ranges = [f"{low} to {stop - 1}" for low, stop in pairwise(LENGTH_BORDERS[1:])]
    labels = ["0", *ranges, f"{LENGTH_BORDERS[-1]} or more"]
    num_rows = max(np.flatnonzero(numbers), default=0) + 1
    return list(zip(labels, numbers.tolist(), strict=True))[:num_rows]


@dataclass(frozen=True, kw_only=True)
class EventView:
    """One event of a store as its file had it."""

    number: int  # its place in the store
    event_id: int  # what its file calls it
    truth: dict[str, Any]  # event columns by name
    pulses: dict[str, NDArray[Any]]  # (T,) by column


def view_event(store: EventStore, number: int) -> EventView:
    """Return one event in full; ValueError if no event has this number."""
    shard_index = int(store.shard_of(np.array([number]))[0])
    local = number - int(store.shard_offsets[shard_index])
    shard = store.shards[shard_index]
    _, row_T = shard.pulse_rows(np.array([local]))
    event = {name: shard.events.column(name)[local] for name in store.event_columns}
    return EventView(
        number=number,
        event_id=int(event["event_id"]),
        truth={
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in event.items()
        },
        pulses={name: shard.pulses.column(name)[row_T] for name in store.pulse_columns},
    )
