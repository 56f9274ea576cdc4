"""In what order an epoch goes through the events, and how it is divided.

The chunks of a store (`chunks.py`) come in random order, and so do the events of a
chunk; sub-epochs are runs of that order. Then several chunks, a window, are shuffled
as a whole. Random orders sort the raw numbers of a bit generator, which numpy keeps
the same on every platform and in every version; its shuffles it may change.

Shape letters: B events, C chunks, K buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.batch_plan import check_whole
from graphnet_icecube2nd.loading.chunks import ChunkTable

SUB_EPOCHS = ("partition", "published")

# What a random order is for: first number of its key, so that no two are the same.
_CHUNKS, _EVENTS, _WINDOW, _BATCHES = range(4)


@dataclass(frozen=True)
class SubEpoch:
    """A part of an epoch.

    Args:
        epoch: Number of the epoch.
        number: Number of the sub-epoch in it.
        chunks_C: (C,) its chunks, in order.
        start_C: (C,) the first event of each, in the order within the chunk.
        stop_C: (C,) the event after the last one.
    """

    epoch: int
    number: int
    chunks_C: NDArray[np.int64]
    start_C: NDArray[np.int64]
    stop_C: NDArray[np.int64]


class EpochOrder:
    """The order of the events of every epoch.

    Args:
        table: The chunks.
        shuffle: Random order; otherwise that of the store.
        seed: Seed of the random orders.
        num_sub_epochs: Parts of an epoch.
        sub_epochs: `partition` or `published`, see `EventSampler`.
        window: Chunks that are shuffled together.

    Raises:
        ValueError: A value is not allowed.
    """

    def __init__(
        self,
        table: ChunkTable,
        *,
        shuffle: bool,
        seed: int,
        num_sub_epochs: int,
        sub_epochs: str,
        window: int,
    ) -> None:
        check_whole("seed", seed, 0)
        check_whole("num_sub_epochs", num_sub_epochs, 1)
        check_whole("window", window, 1)
        if sub_epochs not in SUB_EPOCHS:
            known = ", ".join(SUB_EPOCHS)
            raise ValueError(f"unknown sub_epochs {sub_epochs!r}; choose from {known}")
        if sub_epochs == "published" and not shuffle:
            raise ValueError("sub_epochs='published' draws at random: shuffle is off")
        self.table = table
        self.shuffle = shuffle
        self.seed = seed
        self.num_sub_epochs = num_sub_epochs
        self.sub_epochs = sub_epochs
        self.window = window

    def sub_epoch(self, epoch: int, number: int) -> SubEpoch:
        """Return a sub-epoch.

        Raises:
            ValueError: There is none of that number.
        """
        check_whole("epoch", epoch, 0)
        check_whole("sub_epoch", number, 0)
        if number >= self.num_sub_epochs:
            raise ValueError(
                f"sub_epoch must be below {self.num_sub_epochs}, got {number}"
            )
        count, parts = self.table.num_events, self.num_sub_epochs
        first, last = count * number // parts, count * (number + 1) // parts
        if self.sub_epochs == "published":
            first, last = 0, count // parts
        order_C: NDArray[np.int64] = np.arange(len(self.table))
        if self.shuffle:
            order_C = self._random(len(order_C), _CHUNKS, epoch, self._draw(number), 0)
        stop_C = np.cumsum(self.table.counts_C[order_C])
        start_C = stop_C - self.table.counts_C[order_C]
        here = slice(
            int(np.searchsorted(stop_C, first, "right")),
            int(np.searchsorted(start_C, last, "left")),
        )
        return SubEpoch(
            epoch=epoch,
            number=number,
            chunks_C=order_C[here],
            start_C=np.maximum(first - start_C[here], 0),
            stop_C=np.minimum(last, stop_C[here]) - start_C[here],
        )

    def histogram(self, part: SubEpoch) -> NDArray[np.int64]:
        """Return how many events of each bucket a sub-epoch has, (K,)."""
        whole_C = part.stop_C - part.start_C == self.table.counts_C[part.chunks_C]
        events_K = self.table.histogram(part.chunks_C[whole_C])
        for place in np.flatnonzero(~whole_C):
            _, bucket_B = self._events(part, int(place))
            events_K += np.bincount(bucket_B, minlength=len(events_K))
        return events_K

    def windows(
        self, part: SubEpoch
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Yield the events of a sub-epoch and their buckets, (B,) each, by windows."""
        for first in range(0, len(part.chunks_C), self.window):
            places = range(first, min(first + self.window, len(part.chunks_C)))
            pieces = [self._events(part, place) for place in places]
            events_B = np.concatenate([events for events, _ in pieces])
            bucket_B = np.concatenate([bucket for _, bucket in pieces])
            if self.shuffle:
                key = (_WINDOW, part.epoch, part.number, first)
                order_B = self._random(len(events_B), *key)
                events_B, bucket_B = events_B[order_B], bucket_B[order_B]
            yield events_B, bucket_B

    def order_of_batches(
        self, part: SubEpoch, window: int, num_batches: int
    ) -> NDArray[np.int64]:
        """Return the order in which the batches cut from a window come."""
        if not self.shuffle:
            return np.arange(num_batches)
        return self._random(num_batches, _BATCHES, part.epoch, part.number, window)

    def _events(
        self, part: SubEpoch, place: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return what a sub-epoch has of one of its chunks."""
        chunk = int(part.chunks_C[place])
        start, stop = int(part.start_C[place]), int(part.stop_C[place])
        events_B, bucket_B = self.table.events(chunk)
        if stop - start == len(events_B):
            return events_B, bucket_B  # the window is shuffled anyhow
        order_B: NDArray[np.int64] = np.arange(len(events_B))
        if self.shuffle:
            # The same for the two sub-epochs that a border within the chunk parts.
            key = (_EVENTS, part.epoch, self._draw(part.number), chunk)
            order_B = self._random(len(events_B), *key)
        kept_B = order_B[start:stop]
        return events_B[kept_B], bucket_B[kept_B]

    def _draw(self, number: int) -> int:
        """Return which of an epoch's random orders a sub-epoch is a part of."""
        return number if self.sub_epochs == "published" else 0

    def _random(self, length: int, *key: int) -> NDArray[np.int64]:
        """Return a random order that depends on the seed and the key alone."""
        seed = np.random.SeedSequence(self.seed, spawn_key=key)
        raw = np.asarray(np.random.PCG64(seed).random_raw(length))
        return np.argsort(raw, kind="stable").astype(np.int64, copy=False)
