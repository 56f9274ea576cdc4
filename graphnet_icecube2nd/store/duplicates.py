"""Whether an event_id stands twice in a store, asked in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import MappedTable
from graphnet_icecube2nd.store.manifest import EVENTS_FILE, ShardRecord

IDS_AT_ONCE = 2**23  # 64 MB


def check_unique_events(
    folders: Sequence[Path],
    shards: Sequence[ShardRecord],
    ids_at_once: int = IDS_AT_ONCE,
) -> None:
    """See that every event_id stands in a store once.

    Shards whose ranges of ids do not overlap, as the competition's do not, cost one
    look each. Others are compared by remainder, one class of ids after the other, so
    that no more than `ids_at_once` are in memory. Each shard has a folder.
    """
    clusters = _overlapping(shards)
    for cluster in clusters:
        num_events = sum(shards[index].num_events for index in cluster)
        classes = max(1, -(-num_events // ids_at_once))
        for remainder in range(classes):
            _check_class(folders, shards, cluster, classes, remainder)


def _overlapping(shards: Sequence[ShardRecord]) -> list[list[int]]:
    """Group shards whose ranges of ids overlap."""
    order = sorted(
        (index for index, shard in enumerate(shards) if shard.num_events),
        key=lambda index: shards[index].first_id,
    )
    clusters: list[list[int]] = []
    last = 0
    for index in order:
        if clusters and shards[index].first_id <= last:
            clusters[-1].append(index)
            last = max(last, shards[index].last_id)
        else:
            clusters.append([index])
            last = shards[index].last_id
    return clusters


def _check_class(
    folders: Sequence[Path],
    shards: Sequence[ShardRecord],
    cluster: Sequence[int],
    classes: int,
    remainder: int,
) -> None:
    def ids_of(index: int) -> NDArray[np.int64]:
        ids = MappedTable(folders[index] / EVENTS_FILE).column("event_id")
        chosen: NDArray[np.int64] = ids[ids % classes == remainder]
        return chosen

    pieces = [ids_of(index) for index in cluster]
    ids = np.sort(np.concatenate(pieces))
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if not len(twice):
        return
    event = int(ids[twice[0]])
    places = [
        f"{shards[index].source}, event {row}"
        for index in cluster
        for row in _rows_in_source(folders, shards, index, event)
    ]
    raise ValueError(
        f"event {event} stands more than once, in {' and in '.join(places)} (from 0); "
        "an event_id names one event"
    )


def _rows_in_source(
    folders: Sequence[Path], shards: Sequence[ShardRecord], index: int, event: int
) -> list[int]:
    """Return the places of an event among those that a shard's source gave."""
    source = shards[index].source
    before = sum(s.num_events for s in shards[:index] if s.source == source)
    ids = MappedTable(folders[index] / EVENTS_FILE).column("event_id")
    return [before + int(row) for row in np.flatnonzero(ids == event)]
