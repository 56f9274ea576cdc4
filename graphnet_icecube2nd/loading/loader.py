"""EventLoader: batches of a store, one block read ahead, resumable at any batch.

The sampler says which events make a batch; the reader reads a block of batches at
once, in a background thread or in worker processes; the loader hands them out one by
one and knows how many were handed out, which is what a checkpoint has to hold.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler

Block = tuple[int, list[NDArray[np.int64]]]  # epoch, and the events of each batch


class EventLoader:
    """Iterates over the batches of a sub-epoch; the next iteration is the next one.

    Args:
        reader: Reads events.
        sampler: Says which, and in which batches; the loader begins at its place and
            counts for itself.
        num_workers: Processes that read; 0 reads in this one, which for a warm store
            is faster than any model trains.
        prefetch: Read the next block in a thread meanwhile, if there are no workers.
            Default: where there is a GPU to wait for. Beside a model on the CPU the
            thread costs much more than reading does: OpenMP lets its own threads sleep
            as soon as there are more than cores (benchmarks/results/models_log.md).
        block_batches: Batches read at once.
        pin_memory: Hand out batches in page-locked memory, for GPUs.
        always_first_epoch: Every iteration is that of the first epoch, with the same
            pulses of long events: for validation and prediction.
        iteration_batches: Batches of every iteration, which then goes on where the
            last one stopped, across the borders of sub-epochs; for trainers, which
            ask once how many there are. Default: those of the sub-epoch.
    """

    def __init__(
        self,
        reader: EventReader,
        sampler: EventSampler,
        *,
        num_workers: int = 0,
        prefetch: bool | None = None,
        block_batches: int = 32,
        pin_memory: bool = False,
        always_first_epoch: bool = False,
        iteration_batches: int | None = None,
    ) -> None:
        if num_workers < 0 or block_batches < 1:
            raise ValueError(
                "num_workers must be 0 or more and block_batches 1 or more, got "
                f"{num_workers} and {block_batches}"
            )
        if iteration_batches is not None and iteration_batches < 1:
            raise ValueError(
                f"iteration_batches must be 1 or more, got {iteration_batches}"
            )
        self.reader = reader
        # Not called `sampler`: Lightning looks for one and sets its epoch. A copy, so
        # that no other loader of the sampler moves its place.
        self.plan = copy(sampler)
        self.num_workers, self.prefetch = num_workers, prefetch
        self.block_batches, self.pin_memory = block_batches, pin_memory
        self.always_first_epoch = always_first_epoch
        self.iteration_batches = iteration_batches
        self._num_handed = 0  # batches of the iteration, 0 after its last
        self._is_resumed = True  # the next iteration begins where this stands

    def __len__(self) -> int:
        """Return the number of batches of an iteration, from its start."""
        if self.iteration_batches is not None:
            return self.iteration_batches
        return len(self.plan)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Hand out the batches of an iteration.

        An iteration that was left in the middle is over: the next one begins the next
        sub-epoch, or with `iteration_batches` the next batch. After `load_state_dict`
        it goes on where the state was taken.
        """
        if self._num_handed and not self._is_resumed:
            self._num_handed = 0
            if self.iteration_batches is None:
                self.plan.set_epoch(*self._following())
        self._is_resumed = False
        num_batches = len(self)
        with closing(self._endless()) as batches:
            for batch in islice(batches, num_batches - self._num_handed):
                # Counted before it is handed out, as in `_endless`.
                self._num_handed = (self._num_handed + 1) % num_batches
                yield batch.pin_memory() if self.pin_memory else batch

    def set_epoch(self, epoch: int, sub_epoch: int = 0) -> None:
        """Go to the start of a sub-epoch; ValueError where there is none."""
        self.plan.set_epoch(epoch, sub_epoch)
        self._num_handed = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where it is: the batches handed out, not those read ahead."""
        return {**self.plan.state_dict(), "handed": self._num_handed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was taken; see `EventSampler.load_state_dict`."""
        self.plan.load_state_dict(state)
        self._num_handed = self.plan.num_done
        if self.iteration_batches is not None:
            self._num_handed = int(state["handed"]) % self.iteration_batches
        self._is_resumed = True

    def _following(self) -> tuple[int, int]:
        if self.always_first_epoch:
            return 0, 0
        return self.plan.following(self.plan.epoch, self.plan.sub_epoch)

    def _endless(self) -> Generator[PackedBatch, None, None]:
        """Yield the batches of this sub-epoch, of the next, and so on."""
        while True:
            num_batches = len(self.plan)
            for batch in self._batches(self._blocks()):
                # Counted before it is handed out: who saves a state while using a
                # batch has had that batch. After the last nobody may ask for another.
                self.plan.num_done += 1
                if self.plan.num_done == num_batches:
                    self.plan.set_epoch(*self._following())
                yield batch

    def _blocks(self) -> Iterator[Block]:
        epoch, sub_epoch = self.plan.epoch, self.plan.sub_epoch
        batches = self.plan.plan(epoch, sub_epoch, self.plan.num_done)
        # Independent sub-epochs may show an event twice an epoch: with other pulses.
        shown = epoch
        if self.plan.sub_epochs == "published":
            shown = epoch * self.plan.num_sub_epochs + sub_epoch
        while groups := list(islice(batches, self.block_batches)):
            yield shown, groups

    def _batches(self, blocks: Iterator[Block]) -> Iterator[PackedBatch]:
        if self.num_workers:
            yield from self._from_workers(blocks)
        elif torch.cuda.is_available() if self.prefetch is None else self.prefetch:
            yield from self._from_thread(blocks)
        else:
            for epoch, groups in blocks:
                yield from self.reader.batches(groups, epoch)

    def _from_thread(self, blocks: Iterator[Block]) -> Iterator[PackedBatch]:
        def read() -> Iterator[PackedBatch] | None:
            block = next(blocks, None)
            return None if block is None else self.reader.batches(block[1], block[0])

        with ThreadPoolExecutor(1, thread_name_prefix="event-reader") as pool:
            ahead = pool.submit(read)
            while (batches := ahead.result()) is not None:
                ahead = pool.submit(read)
                yield from batches

    def _from_workers(self, blocks: Iterator[Block]) -> Iterator[PackedBatch]:
        loader: DataLoader[tuple[PackedBatch, list[int]]] = DataLoader(
            _Blocks(self.reader),
            sampler=blocks,  # an iterable is enough
            batch_size=None,
            num_workers=self.num_workers,
            # Its own, so that drawing a seed for workers leaves torch's where it is.
            generator=torch.Generator(),
        )
        # Workers hand back whole blocks, in order: a few tensors for many batches.
        for batches, sizes in loader:
            yield from batches.split(sizes)


class _Blocks(Dataset[tuple[PackedBatch, list[int]]]):
    """Blocks of batches, as torch's loader asks for them, and sizes of the batches."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader

    def __getitem__(self, block: Block) -> tuple[PackedBatch, list[int]]:
        epoch, groups = block
        sizes = [len(group) for group in groups]
        return self.reader.batch(np.concatenate(groups), epoch), sizes
