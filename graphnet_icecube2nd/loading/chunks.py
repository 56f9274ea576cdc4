"""Chunks: runs of neighbouring events, the pieces in which a store is shuffled.

Events near each other in a file are near each other on disk, so reading a chunk's
events one after the other is cheap, and reading events from all over the store is
not. Nothing here is as long as the store. Shape letters: B events, C chunks,
K buckets.
"""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.batch_plan import BatchRule, check_whole
from graphnet_icecube2nd.loading.subset import EventIndex, EventSubset


class ChunkTable:
    """The chunks of a subset of a store, and how many events of each bucket they have.

    Making it looks at the lengths of all events once.

    Args:
        index: The store.
        subset: Which of its events; a chunk has only these.
        rule: Says which bucket a length belongs to.
        chunk_size: Events of a chunk at most. The events of a shard are divided into
            chunks of nearly equal size.

    Raises:
        ValueError: `chunk_size` is not allowed; for the subset see `EventSubset.mask`.
    """

    def __init__(
        self,
        index: EventIndex,
        subset: EventSubset,
        rule: BatchRule,
        chunk_size: int,
    ) -> None:
        check_whole("chunk_size", chunk_size, 1)
        self._index = index
        self._subset = subset
        self._rule = rule
        shards: list[int] = []
        pieces: list[tuple[int, int]] = []
        counts: list[int] = []
        # Of a chunk's many buckets few have events: only those are kept.
        filled: list[NDArray[np.int32]] = []
        filled_counts: list[NDArray[np.int32]] = []
        for shard in range(len(index.shard_offsets) - 1):
            local_B = subset.local_events(index, shard)
            if not len(local_B):
                continue
            bucket_B = rule.bucket(np.asarray(index.lengths(shard))[local_B])
            number = -(-len(local_B) // chunk_size)
            borders = [len(local_B) * i // number for i in range(number + 1)]
            for start, stop in pairwise(borders):
                shards.append(shard)
                pieces.append((int(local_B[start]), int(local_B[stop - 1]) + 1))
                counts.append(stop - start)
                histogram_K = np.bincount(
                    bucket_B[start:stop], minlength=rule.num_buckets
                )
                filled.append(np.flatnonzero(histogram_K).astype(np.int32))
                filled_counts.append(histogram_K[filled[-1]].astype(np.int32))
        self._shards = np.array(shards, dtype=np.int64)
        self._pieces = np.array(pieces, dtype=np.int64).reshape(-1, 2)
        self.counts_C = np.array(counts, dtype=np.int64)
        borders_C = np.cumsum([0, *(len(buckets) for buckets in filled)])
        self._borders = borders_C.astype(np.int64)
        none = np.zeros(0, dtype=np.int32)
        self._filled = np.concatenate([none, *filled])
        self._filled_counts = np.concatenate([none, *filled_counts])

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.counts_C)

    @property
    def num_events(self) -> int:
        """Events of all chunks."""
        return int(self.counts_C.sum())

    def events(self, chunk: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return a chunk's events in the order of the store, and their buckets.

        Returns:
            (B,) numbers in the store, and (B,) buckets.
        """
        shard = int(self._shards[chunk])
        start, stop = (int(border) for border in self._pieces[chunk])
        mask = self._subset.mask(self._index, shard, start, stop)
        local_B = np.flatnonzero(mask).astype(np.int64, copy=False)
        lengths_B = np.asarray(self._index.lengths(shard)[start:stop])[local_B]
        first = int(self._index.shard_offsets[shard]) + start
        return local_B + first, self._rule.bucket(lengths_B)

    def histogram(self, chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many events of each bucket some chunks have together, (K,)."""
        total_K = np.zeros(self._rule.num_buckets, dtype=np.int64)
        for chunk in chunks:
            here = slice(self._borders[chunk], self._borders[chunk + 1])
            total_K[self._filled[here]] += self._filled_counts[here]
        return total_K

    def fingerprint(self) -> int:
        """Return a number that changes with the events, or with their lengths."""
        value = 0
        for array in (
            *(self._index.shard_offsets, self._shards, self._pieces),
            *(self._filled, self._filled_counts),
        ):
            value = zlib.crc32(array.astype("<i8").tobytes(), value)
        return value
