"""EventLoader: batches of a store, read one block ahead, resumable at any batch.

The sampler chooses the events of a batch. The reader reads a block of batches at once,
in a background thread or in worker processes. The loader yields the batches one by one
and counts them; a checkpoint holds this count.
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

from graphnet_icecube2nd.errors import check_whole
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler

Block = tuple[int, list[NDArray[np.int64]]]  # epoch, events of each batch


class EventLoader:
    """Iterates over the batches of a sub-epoch; the next iteration takes the next one.

    Args:
        reader: Reader of the events.
        sampler: Sampler of the batches; the loader starts at the sampler's position and
            then keeps its own.
        num_workers: Reading processes; 0 reads in the main process, which is faster
            than any model trains if the store is in the page cache.
        prefetch: Read the next block in a thread, if there are no workers. Default: if
            there is a GPU. Beside a model on the CPU the thread costs much more than
            reading: OpenMP puts its threads to sleep when there are more threads than
            cores (benchmarks/results/models_log.md).
        block_batches: Batches read at once.
        pin_memory: Return batches in page-locked memory, for GPUs.
        always_first_epoch: Repeat the first epoch in every iteration, with the same
            pulses of long events; for validation and prediction.
        iteration_batches: Batches per iteration. Each iteration continues where the
            last one stopped, across sub-epochs; for trainers, which ask for the number
            only once. Default: the number of the sub-epoch.
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
        check_whole("num_workers", num_workers, 0)
        check_whole("block_batches", block_batches, 1)
        if iteration_batches is not None:
            check_whole("iteration_batches", iteration_batches, 1)
        self.reader = reader
        # The name is not `sampler`, whose epoch Lightning would set. A copy, so that
        # another loader of the same sampler does not move its position.
        self.plan = copy(sampler)
        self.num_workers, self.prefetch = num_workers, prefetch
        self.block_batches, self.pin_memory = block_batches, pin_memory
        self.always_first_epoch = always_first_epoch
        self.iteration_batches = iteration_batches
        self._num_handed = 0  # batches yielded in this iteration, 0 after the last
        self._is_resumed = True  # the next iteration starts at this position

    def __len__(self) -> int:
        """Return the number of batches of a full iteration."""
        if self.iteration_batches is not None:
            return self.iteration_batches
        return len(self.plan)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Yield the batches of an iteration.

        After an iteration that stopped early, the next one takes the next sub-epoch, or
        with `iteration_batches` the next batch. After `load_state_dict` it continues at
        the position of the state.
        """
        if self._num_handed and not self._is_resumed:
            self._num_handed = 0
            if self.iteration_batches is None:
                self.plan.set_epoch(*self._following())
        self._is_resumed = False
        num_batches = len(self)
        with closing(self._endless()) as batches:
            for batch in islice(batches, num_batches - self._num_handed):
                # Counted before it is yielded, as in `_endless`.
                self._num_handed = (self._num_handed + 1) % num_batches
                yield batch.pin_memory() if self.pin_memory else batch

    def set_epoch(self, epoch: int, sub_epoch: int = 0) -> None:
        """Go to the start of a sub-epoch; ValueError if it does not exist."""
        self.plan.set_epoch(epoch, sub_epoch)
        self._num_handed = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the yielded batches, without batches read ahead."""
        return {**self.plan.state_dict(), "handed": self._num_handed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of a state; see `EventSampler.load_state_dict`."""
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
        """Yield the batches of this sub-epoch, the next one, and so on."""
        while True:
            num_batches = len(self.plan)
            for batch in self._batches(self._blocks()):
                # Counted before it is yielded: a state that is saved while a batch is
                # used includes this batch. No further batch may be asked for.
                self.plan.num_done += 1
                if self.plan.num_done == num_batches:
                    self.plan.set_epoch(*self._following())
                yield batch

    def _blocks(self) -> Iterator[Block]:
        epoch, sub_epoch = self.plan.epoch, self.plan.sub_epoch
        batches = self.plan.plan(epoch, sub_epoch, self.plan.num_done)
        # Independent sub-epochs may repeat an event in an epoch, with other pulses.
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
            # Own generator: the workers' seed does not change torch's random state.
            generator=torch.Generator(),
        )
        # Workers return full blocks in order: few tensors for many batches.
        for batches, sizes in loader:
            yield from batches.split(sizes)


class _Blocks(Dataset[tuple[PackedBatch, list[int]]]):
    """Blocks of batches for torch's loader, with the sizes of the batches."""

    def __init__(self, reader: EventReader) -> None:
        self.reader = reader

    def __getitem__(self, block: Block) -> tuple[PackedBatch, list[int]]:
        epoch, groups = block
        sizes = [len(group) for group in groups]
        return self.reader.batch(np.concatenate(groups), epoch), sizes
