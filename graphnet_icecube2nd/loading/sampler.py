"""EventSampler: chooses the events of the batches, and keeps the position of a run.

The events of a store are shuffled in chunks of neighbouring events, which are close on
disk, so reading them is cheap. An epoch takes the chunks in random order; a sub-epoch
is a contiguous part of that order. Then several chunks, a window, are shuffled together
and divided into batches of nearly equal length (`batch_plan.py`). The result depends
only on (options, seed, epoch, sub-epoch), so a run resumes at any batch. Only one
window is in memory, for any number of events.

A random order sorts raw numbers of a bit generator, which numpy guarantees to be the
same on every platform and in every version; numpy's shuffles may change.

Shape letters: B events, C chunks, K buckets.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.errors import check_whole
from graphnet_icecube2nd.loading.batch_plan import BatchCutter, BatchRule
from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.store.event_store import EventStore

STATE_VERSION = 1
SUB_EPOCHS = ("partition", "published")

# Purpose of a random order: first number of its key, so that orders differ.
_CHUNKS, _EVENTS, _WINDOW, _BATCHES = range(4)


@dataclass(frozen=True)
class SubEpoch:
    """Part of an epoch: its chunks, and the range of events of each chunk."""

    epoch: int
    number: int
    chunks_C: NDArray[np.int64]
    start_C: NDArray[np.int64]
    stop_C: NDArray[np.int64]


class EventSampler:
    """Iterates over batches of event rows for one rank, a sub-epoch at a time.

    Iterating yields the batches of one sub-epoch and moves on to the next one. `plan`
    does the same without a state, for loaders that read ahead.

    Args:
        index: Event store.
        subset: Subset of its events; default: all events with pulses.
        batch_size: Events per batch on one rank. Give either this or `pulse_budget`.
        pulse_budget: Pulses per batch on one rank, after long events are cut; batches
            of short events then have more events.
        max_pulses: Maximum pulses per event; longer events are cut.
        length_buckets: Put events of nearly equal length into a batch; otherwise all
            lengths are mixed.
        bucket_width: Number of lengths that share a bucket.
        shuffle: Use a random order. Otherwise events come in the order of the store,
            exactly so if `length_buckets` is off.
        seed: Random seed.
        num_sub_epochs: Number of parts of an epoch.
        sub_epochs: `partition`: every event is in exactly one sub-epoch of an epoch.
            `published`: each sub-epoch is drawn independently from all events, as in
            the competition's code; with eight, an epoch shows 66% of the events.
        chunk_size: Maximum events per chunk; they are neighbours in the store.
        window: Number of chunks that are shuffled together.
        rank: Rank of this process in a distributed run, from 0.
        world_size: Number of ranks of the distributed run.

    Raises:
        ValueError: A value is not allowed, or a sub-epoch has fewer events than ranks;
            for the subset see `EventSubset.mask`.
    """

    def __init__(
        self,
        index: EventStore,
        subset: EventSubset | None = None,
        *,
        batch_size: int | None = None,
        pulse_budget: int | None = None,
        max_pulses: int = 192,
        length_buckets: bool = True,
        bucket_width: int = 4,
        shuffle: bool = True,
        seed: int = 0,
        num_sub_epochs: int = 1,
        sub_epochs: str = "partition",
        chunk_size: int = 8192,
        window: int = 16,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rule = BatchRule(
            batch_size=batch_size,
            pulse_budget=pulse_budget,
            max_pulses=max_pulses,
            bucket_width=bucket_width,
            length_buckets=length_buckets,
            world_size=world_size,
        )
        check_whole("rank", rank, 0)
        if rank >= world_size:
            raise ValueError(f"rank must be < world_size {world_size}, found {rank}")
        check_whole("chunk_size", chunk_size, 1)
        check_whole("seed", seed, 0)
        check_whole("num_sub_epochs", num_sub_epochs, 1)
        check_whole("window", window, 1)
        if sub_epochs not in SUB_EPOCHS:
            known = ", ".join(SUB_EPOCHS)
            raise ValueError(f"unknown sub_epochs {sub_epochs!r}; choose from {known}")
        if sub_epochs == "published" and not shuffle:
            raise ValueError("sub_epochs='published' needs shuffle=True, found False")
        self.rank, self.shuffle, self.seed = rank, shuffle, seed
        self.subset = EventSubset() if subset is None else subset
        self.chunk_size, self.window = chunk_size, window
        self.num_sub_epochs, self.sub_epochs = num_sub_epochs, sub_epochs
        self._chunks = ChunkTable(index, self.subset, self.rule, chunk_size)
        if self.num_events // num_sub_epochs < world_size:
            raise ValueError(
                f"{num_sub_epochs} sub-epochs need at least one event for each of "
                f"{world_size} ranks, found {self.num_events} events ({self.subset}). "
                "Use more events, or num_sub_epochs=1"
            )
        self._num_batches: dict[tuple[int, int], int] = {}
        self._first = 0  # first batch of the next iterator
        # Position of the iteration; loaders read ahead and keep their own.
        self.epoch = self.sub_epoch = self.num_done = 0

    @property
    def num_events(self) -> int:
        """Number of events of the subset, over all ranks and sub-epochs."""
        return int(self._chunks.counts_C.sum())

    def __len__(self) -> int:
        """Return the number of batches of the current sub-epoch."""
        return self.num_batches(self.epoch, self.sub_epoch)

    def num_batches(self, epoch: int, sub_epoch: int = 0) -> int:
        """Return the number of batches of a sub-epoch, the same on all ranks."""
        part = self._part(epoch, sub_epoch)
        if (epoch, sub_epoch) not in self._num_batches:
            number = self.rule.num_batches(self._histogram(part))
            self._num_batches[epoch, sub_epoch] = number
        return self._num_batches[epoch, sub_epoch]

    def plan(
        self, epoch: int, sub_epoch: int = 0, first_batch: int = 0
    ) -> Iterator[NDArray[np.int64]]:
        """Return the batches of a sub-epoch, independent of this object's position.

        Args:
            epoch: Number of the epoch, from 0.
            sub_epoch: Number of the sub-epoch, from 0.
            first_batch: First batch to yield. Earlier batches are planned and dropped;
                only lengths and the subset's columns are read from the store.

        Returns:
            Arrays of event rows in the store, one for each batch.

        Raises:
            ValueError: There is no such sub-epoch or batch.
        """
        num_batches = self.num_batches(epoch, sub_epoch)
        check_whole("first_batch", first_batch, 0)
        if first_batch > num_batches:
            raise ValueError(
                f"first_batch must be at most {num_batches}, the batches of sub-epoch "
                f"{sub_epoch} of epoch {epoch}, found {first_batch}"
            )
        super_batches = self._super_batches(epoch, sub_epoch)
        # Each rank plans for all ranks and copies its part; a view would keep all.
        return (
            events[self.rank :: self.rule.world_size].copy()
            for events in islice(super_batches, first_batch, None)
        )

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of the current sub-epoch, then move on to the next.

        After `load_state_dict` the first iterator starts at the position of the state.
        Any other starts at the start of the sub-epoch.
        """
        epoch, sub_epoch = self.epoch, self.sub_epoch
        first, self._first = self._first, 0
        self.num_done = first
        for batch in self.plan(epoch, sub_epoch, first):
            self.num_done += 1
            yield batch
        self.set_epoch(*self.following(epoch, sub_epoch))

    def following(self, epoch: int, sub_epoch: int) -> tuple[int, int]:
        """Return the epoch and sub-epoch that come next."""
        last = sub_epoch + 1 == self.num_sub_epochs
        return (epoch + 1, 0) if last else (epoch, sub_epoch + 1)

    def set_epoch(self, epoch: int, sub_epoch: int = 0) -> None:
        """Go to the start of a sub-epoch; ValueError if it does not exist."""
        self._part(epoch, sub_epoch)  # raises if it does not exist
        self.epoch, self.sub_epoch = epoch, sub_epoch
        self._first = self.num_done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the yielded batches."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "sub_epoch": self.sub_epoch,
            "batches": self.num_done,
            "options": self.options(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of a state; the following batches are the same.

        Raises:
            ValueError: The state has another version, or other options or events; the
                message names the differences.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the sampler's state must have version {STATE_VERSION}, found "
                f"{state.get('version')!r}"
            )
        theirs, ours = dict(state["options"]), self.options()
        changes = [
            f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}"
            for name in {**ours, **theirs}
            if theirs.get(name) != ours.get(name)
        ]
        if changes:
            raise ValueError(
                f"the sampler's state belongs to other batches: {'; '.join(changes)}. "
                "Use the same options and events, or start a sub-epoch with set_epoch"
            )
        epoch, sub_epoch = state["epoch"], state["sub_epoch"]
        batches = state["batches"]
        if batches == self.num_batches(epoch, sub_epoch):  # start of the next one
            epoch, sub_epoch = self.following(epoch, sub_epoch)
            batches = 0
        self.plan(epoch, sub_epoch, batches)  # raises if there is no such batch
        self.set_epoch(epoch, sub_epoch)
        self._first = self.num_done = batches

    def options(self) -> dict[str, Any]:
        """Return everything that the batches of all ranks depend on."""
        return {
            **asdict(self.rule),
            "shuffle": self.shuffle,
            "seed": self.seed,
            "num_sub_epochs": self.num_sub_epochs,
            "sub_epochs": self.sub_epochs,
            "chunk_size": self.chunk_size,
            "window": self.window,
            "subset": str(self.subset),
            "num_events": self.num_events,
            "lengths": self._chunks.fingerprint(),
        }

    def _super_batches(self, epoch: int, sub_epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of all ranks together."""
        part = self._part(epoch, sub_epoch)
        cutter = BatchCutter(self.rule, self._histogram(part))
        num_left = int((part.stop_C - part.start_C).sum())
        for number, (events_B, bucket_B) in enumerate(self._windows(part)):
            batches = cutter.cut(events_B, bucket_B)
            num_left -= len(events_B)
            if not num_left:
                batches.extend(cutter.rest())
            key = (_BATCHES, part.epoch, part.number, number)
            for place in self._order(len(batches), *key):
                yield batches[place]

    def _part(self, epoch: int, number: int) -> SubEpoch:
        """Return a sub-epoch; ValueError if it does not exist."""
        check_whole("epoch", epoch, 0)
        check_whole("sub_epoch", number, 0)
        if number >= self.num_sub_epochs:
            raise ValueError(
                f"sub_epoch must be below {self.num_sub_epochs}, found {number}"
            )
        count, parts = self.num_events, self.num_sub_epochs
        first, last = count * number // parts, count * (number + 1) // parts
        if self.sub_epochs == "published":
            first, last = 0, count // parts
        counts_C = self._chunks.counts_C
        order_C = self._order(len(counts_C), _CHUNKS, epoch, self._draw(number), 0)
        stop_C = np.cumsum(counts_C[order_C])
        start_C = stop_C - counts_C[order_C]
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

    def _histogram(self, part: SubEpoch) -> NDArray[np.int64]:
        """Return the number of events of each bucket in a sub-epoch, (K,)."""
        whole_C = part.stop_C - part.start_C == self._chunks.counts_C[part.chunks_C]
        events_K = self._chunks.histogram(part.chunks_C[whole_C])
        for place in np.flatnonzero(~whole_C):
            _, bucket_B = self._events(part, int(place))
            events_K += np.bincount(bucket_B, minlength=len(events_K))
        return events_K

    def _windows(
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
                order_B = self._order(len(events_B), *key)
                events_B, bucket_B = events_B[order_B], bucket_B[order_B]
            yield events_B, bucket_B

    def _events(
        self, part: SubEpoch, place: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the events of one chunk of a sub-epoch, and their buckets."""
        chunk = int(part.chunks_C[place])
        start, stop = int(part.start_C[place]), int(part.stop_C[place])
        events_B, bucket_B = self._chunks.events(chunk)
        if stop - start == len(events_B):
            return events_B, bucket_B  # the window is shuffled later
        # Both sub-epochs that share this chunk use the same order.
        key = (_EVENTS, part.epoch, self._draw(part.number), chunk)
        kept_B = self._order(len(events_B), *key)[start:stop]
        return events_B[kept_B], bucket_B[kept_B]

    def _draw(self, number: int) -> int:
        """Return the number of the random order that a sub-epoch is part of."""
        return number if self.sub_epochs == "published" else 0

    def _order(self, length: int, *key: int) -> NDArray[np.int64]:
        """Return a random order for the key, or the store's order without shuffle."""
        if not self.shuffle:
            return np.arange(length)
        seed = np.random.SeedSequence(self.seed, spawn_key=key)
        raw = np.asarray(np.random.PCG64(seed).random_raw(length))
        return np.argsort(raw, kind="stable").astype(np.int64, copy=False)


class ChunkTable:
    """The chunks of a subset, with the number of events of each bucket.

    The constructor reads the lengths of all events once, but keeps no array of this
    length. The events of a shard are divided into chunks of nearly equal size.
    """

    def __init__(
        self, index: EventStore, subset: EventSubset, rule: BatchRule, chunk_size: int
    ) -> None:
        self._index, self._subset, self._rule = index, subset, rule
        chunks: list[tuple[int, int, int, int]] = []  # shard, first, end, events
        # Most buckets of a chunk are empty; only the others are kept.
        filled = [np.zeros(0, dtype=np.int32)]
        filled_counts = [np.zeros(0, dtype=np.int32)]
        for shard in range(len(index.shard_offsets) - 1):
            local_B = subset.local_events(index, shard)
            if not len(local_B):
                continue
            bucket_B = rule.bucket(np.asarray(index.lengths(shard))[local_B])
            number = -(-len(local_B) // chunk_size)
            borders = [len(local_B) * i // number for i in range(number + 1)]
            for start, stop in pairwise(borders):
                first, end = int(local_B[start]), int(local_B[stop - 1]) + 1
                chunks.append((shard, first, end, stop - start))
                histogram_K = np.bincount(
                    bucket_B[start:stop], minlength=rule.num_buckets
                )
                filled.append(np.flatnonzero(histogram_K).astype(np.int32))
                filled_counts.append(histogram_K[filled[-1]].astype(np.int32))
        table = np.array(chunks, dtype=np.int64).reshape(-1, 4)
        self._shards, self._pieces = table[:, 0], table[:, 1:3]
        self.counts_C = table[:, 3]
        self._borders = np.cumsum([len(buckets) for buckets in filled])
        self._filled = np.concatenate(filled)
        self._filled_counts = np.concatenate(filled_counts)

    def events(self, chunk: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the store's rows of a chunk's events, and their buckets, (B,) each."""
        shard, (start, stop) = int(self._shards[chunk]), self._pieces[chunk].tolist()
        mask = self._subset.mask(self._index, shard, start, stop)
        local_B = np.flatnonzero(mask).astype(np.int64, copy=False)
        lengths_B = np.asarray(self._index.lengths(shard)[start:stop])[local_B]
        first = int(self._index.shard_offsets[shard]) + start
        return local_B + first, self._rule.bucket(lengths_B)

    def histogram(self, chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of events of each bucket in all given chunks, (K,)."""
        total_K = np.zeros(self._rule.num_buckets, dtype=np.int64)
        for chunk in chunks:
            here = slice(self._borders[chunk], self._borders[chunk + 1])
            total_K[self._filled[here]] += self._filled_counts[here]
        return total_K

    def fingerprint(self) -> int:
        """Return a checksum of the events and their lengths."""
        value = 0
        for array in (
            *(self._index.shard_offsets, self._shards, self._pieces),
            *(self._filled, self._filled_counts),
        ):
            value = zlib.crc32(array.astype("<i8").tobytes(), value)
        return value
