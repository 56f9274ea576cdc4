"""EventSampler: which events make up the batches, and where in them a run stands.

An epoch goes through the store's chunks (`chunks.py`) in an order of its own
(`epoch_order.py`), and a window of them at a time is cut into batches of nearly equal
length (`batch_plan.py`). Everything follows from (options, seed, epoch, sub-epoch), so
a run can be taken up at any batch, and only a window is in memory, for any number of
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.batch_plan import BatchCutter, BatchRule, check_whole
from graphnet_icecube2nd.loading.chunks import ChunkTable
from graphnet_icecube2nd.loading.epoch_order import EpochOrder
from graphnet_icecube2nd.loading.subset import EventIndex, EventSubset

STATE_VERSION = 1


class EventSampler:
    """Batches of event numbers for one rank, a sub-epoch at a time.

    Iterating gives the batches of one sub-epoch and moves on to the next. `plan` does
    the same without a state, for loaders that draw ahead of what is consumed.

    Args:
        index: The store.
        subset: Which of its events; default: all that have pulses.
        batch_size: Events of a batch on one rank. Either this or `pulse_budget`.
        pulse_budget: Pulses of a batch on one rank, see `BatchRule`.
        max_pulses: What long events are cut to.
        length_buckets: Batches of events of nearly equal length.
        bucket_width: Lengths that share a bucket.
        shuffle: Random order; otherwise events come in the order of the store, and
            exactly in it where `length_buckets` is off.
        seed: Seed of all that is random.
        num_sub_epochs: Parts of an epoch.
        sub_epochs: `partition`: every event is in exactly one sub-epoch of an epoch.
            `published`: each sub-epoch is drawn anew from all events, as the
            competition's code did; with eight, an epoch shows 66% of the events.
        chunk_size: Events of a chunk at most; neighbours in the store.
        window: Chunks that are shuffled together.
        rank: Which rank of a distributed run this is, from 0.
        world_size: Ranks of that run.

    Raises:
        ValueError: A value is not allowed, or a sub-epoch has fewer events than there
            are ranks; for the subset see `EventSubset.mask`.
    """

    def __init__(
        self,
        index: EventIndex,
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
            raise ValueError(f"rank must be below world_size {world_size}, got {rank}")
        self.rank = rank
        self.subset = EventSubset() if subset is None else subset
        self.chunk_size = chunk_size
        self.num_sub_epochs, self.sub_epochs = num_sub_epochs, sub_epochs
        self.order = EpochOrder(
            ChunkTable(index, self.subset, self.rule, chunk_size),
            shuffle=shuffle,
            seed=seed,
            num_sub_epochs=num_sub_epochs,
            sub_epochs=sub_epochs,
            window=window,
        )
        if self.num_events // num_sub_epochs < world_size:
            raise ValueError(
                f"{self.num_events} events ({self.subset}) in {num_sub_epochs} sub-"
                f"epochs are too few for {world_size} ranks: each needs one at least. "
                "Ask for more events, or for num_sub_epochs=1"
            )
        self._num_batches: dict[tuple[int, int], int] = {}
        self._first = 0  # where the next iterator begins
        self._batches = 0  # what the last one has yielded
        self.epoch = self.sub_epoch = 0

    @property
    def num_events(self) -> int:
        """Events of the subset, over all ranks and sub-epochs."""
        return self.order.table.num_events

    def __len__(self) -> int:
        """Return the batches of the current sub-epoch, counted from its start."""
        return self.num_batches(self.epoch, self.sub_epoch)

    def num_batches(self, epoch: int, sub_epoch: int = 0) -> int:
        """Return the batches of a sub-epoch, the same number on all ranks.

        Raises:
            ValueError: There is no such sub-epoch.
        """
        part = self.order.sub_epoch(epoch, sub_epoch)
        if (epoch, sub_epoch) not in self._num_batches:
            number = self.rule.num_batches(self.order.histogram(part))
            self._num_batches[epoch, sub_epoch] = number
        return self._num_batches[epoch, sub_epoch]

    def plan(
        self, epoch: int, sub_epoch: int = 0, first_batch: int = 0
    ) -> Iterator[NDArray[np.int64]]:
        """Return the batches of a sub-epoch, whatever the state of this object.

        Args:
            epoch: Number of the epoch, from 0.
            sub_epoch: Number of the sub-epoch, from 0.
            first_batch: Where to begin. Batches before it are planned and dropped: of
                the store only lengths, and what the subset asks for, are looked at.

        Returns:
            One (events,) array for each batch: event numbers, as the store counts.

        Raises:
            ValueError: There is no such sub-epoch or batch.
        """
        num_batches = self.num_batches(epoch, sub_epoch)
        check_whole("first_batch", first_batch, 0)
        if first_batch > num_batches:
            raise ValueError(
                f"first_batch is {first_batch}, but sub-epoch {sub_epoch} of epoch "
                f"{epoch} has {num_batches} batches"
            )
        super_batches = self._super_batches(epoch, sub_epoch)
        # Each rank plans for all and takes its part; copied, as a view keeps it all.
        return (
            events[self.rank :: self.rule.world_size].copy()
            for events in islice(super_batches, first_batch, None)
        )

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of the current sub-epoch, then move on to the next.

        After `load_state_dict` the first iterator begins where the state was taken;
        any other at the start of the sub-epoch, also if one was left half-way.
        """
        epoch, sub_epoch = self.epoch, self.sub_epoch
        first, self._first = self._first, 0
        self._batches = first
        for batch in self.plan(epoch, sub_epoch, first):
            self._batches += 1
            yield batch
        self.set_epoch(*self.following(epoch, sub_epoch))

    def following(self, epoch: int, sub_epoch: int) -> tuple[int, int]:
        """Return the epoch and sub-epoch that come next."""
        last = sub_epoch + 1 == self.num_sub_epochs
        return (epoch + 1, 0) if last else (epoch, sub_epoch + 1)

    def set_epoch(self, epoch: int, sub_epoch: int = 0) -> None:
        """Go to the start of a sub-epoch.

        Raises:
            ValueError: There is no such sub-epoch.
        """
        self.order.sub_epoch(epoch, sub_epoch)  # raises where there is none
        self.epoch, self.sub_epoch = epoch, sub_epoch
        self._first = self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration stands, after the batches it has yielded."""
        return self.state_at(self.epoch, self.sub_epoch, self._batches)

    def state_at(self, epoch: int, sub_epoch: int, batches: int) -> dict[str, Any]:
        """Return the state after some batches of a sub-epoch.

        For loaders that draw ahead: `batches` is then what was consumed. The state is
        the same on all ranks, and made of numbers and texts only.
        """
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            "sub_epoch": sub_epoch,
            "batches": batches,
            "options": self.options(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was taken; the batches that follow are the same.

        A state after the last batch of a sub-epoch is the start of the next one.

        Raises:
            ValueError: The state is of another version, or of other options or events,
                in which case the message says what differs.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the sampler's state is of version {state.get('version')!r}; this "
                f"reads version {STATE_VERSION}"
            )
        theirs, ours = dict(state["options"]), self.options()
        changes = [
            f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}"
            for name in {**ours, **theirs}
            if theirs.get(name) != ours.get(name)
        ]
        if changes:
            raise ValueError(
                f"the sampler's state belongs to other batches: {'; '.join(changes)}; "
                "set_epoch begins a sub-epoch anew"
            )
        epoch, sub_epoch = state["epoch"], state["sub_epoch"]
        batches = state["batches"]
        if batches == self.num_batches(epoch, sub_epoch):
            epoch, sub_epoch = self.following(epoch, sub_epoch)
            batches = 0
        self.plan(epoch, sub_epoch, batches)  # raises where there is no such batch
        self.set_epoch(epoch, sub_epoch)
        self._first = self._batches = batches

    def options(self) -> dict[str, Any]:
        """Return all that the batches of all ranks together depend on."""
        order = self.order
        return {
            **asdict(self.rule),
            "shuffle": order.shuffle,
            "seed": order.seed,
            "num_sub_epochs": self.num_sub_epochs,
            "sub_epochs": self.sub_epochs,
            "chunk_size": self.chunk_size,
            "window": order.window,
            "subset": self.subset.description,
            "num_events": self.num_events,
            "lengths": order.table.fingerprint(),
        }

    def _super_batches(self, epoch: int, sub_epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of all ranks together."""
        part = self.order.sub_epoch(epoch, sub_epoch)
        cutter = BatchCutter(self.rule, self.order.histogram(part))
        num_left = int(part.stop_C.sum() - part.start_C.sum())
        for number, (events_B, bucket_B) in enumerate(self.order.windows(part)):
            batches = cutter.cut(events_B, bucket_B)
            num_left -= len(events_B)
            if not num_left:
                batches.extend(cutter.rest())
            for place in self.order.order_of_batches(part, number, len(batches)):
                yield batches[place]
