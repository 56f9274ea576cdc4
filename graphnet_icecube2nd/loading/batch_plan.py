"""Division of events into batches of nearly equal length.

Events are sorted into buckets by their length, and full batches are taken from one
bucket. The remaining events are divided at the end, longest first. The number of
batches follows from the number of events in every bucket, so it is known before the
first batch.

A *super-batch* holds the events of all ranks of a distributed run in one step. Rank r
takes every `world_size`-th event from the r-th on. So several ranks together see the
same events as one rank with larger batches, and all have the same number of batches.

Shape letters: B events, K buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.errors import check_whole

Events = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchRule:
    """Size and content of a batch; the options are those of `EventSampler`.

    A batch exceeds the pulse budget only if it is a single event, or if it takes
    remaining events that are fewer than the ranks and longer than half the budget.
    Without length buckets the budget counts every event as `max_pulses`.
    """

    batch_size: int | None = None
    pulse_budget: int | None = None
    max_pulses: int = 192
    bucket_width: int = 4
    length_buckets: bool = True
    world_size: int = 1

    def __post_init__(self) -> None:
        if (self.batch_size is None) == (self.pulse_budget is None):
            raise ValueError(
                "give either batch_size, in events, or pulse_budget, in pulses, found "
                f"{self.batch_size!r} and {self.pulse_budget!r}"
            )
        size = "pulse_budget" if self.batch_size is None else "batch_size"
        for name in ("max_pulses", "bucket_width", "world_size", size):
            check_whole(name, getattr(self, name), 1)

    def bucket(self, lengths_B: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the bucket of each length, (B,)."""
        if not self.length_buckets:
            return np.zeros(len(lengths_B), dtype=np.int32)
        cut_B = np.minimum(lengths_B, self.max_pulses)
        return (cut_B // self.bucket_width).astype(np.int32, copy=False)

    @cached_property
    def longest_K(self) -> NDArray[np.int64]:
        """Pulses of the longest event that each bucket may hold, (K,), at least 1."""
        if not self.length_buckets:
            return np.array([self.max_pulses])
        ends_K = np.arange(self.max_pulses // self.bucket_width + 1) + 1
        return np.clip(ends_K * self.bucket_width - 1, 1, self.max_pulses)

    @property
    def num_buckets(self) -> int:
        """Number of buckets, K."""
        return len(self.longest_K)

    @cached_property
    def full_size_K(self) -> NDArray[np.int64]:
        """Events of a super-batch from each bucket, (K,)."""
        if self.pulse_budget is None:
            assert self.batch_size is not None
            return np.full(self.num_buckets, self.world_size * self.batch_size)
        return self.world_size * np.maximum(self.pulse_budget // self.longest_K, 1)

    def full_batches(self, events_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of super-batches from each bucket alone, (K,).

        Raises ValueError if there are fewer events than ranks.
        """
        if int(events_K.sum()) < self.world_size:
            raise ValueError(
                f"{self.world_size} ranks need at least one event each, found "
                f"{int(events_K.sum())} events"
            )
        full_K = events_K // self.full_size_K
        num_rest = int((events_K - full_K * self.full_size_K).sum())
        # If the remaining events are too few for all ranks or for half a batch, a full
        # batch joins them; otherwise few events would weigh as much as a full batch.
        fewest = self.world_size
        if self.batch_size is not None:
            fewest = max(fewest, (self.world_size * self.batch_size + 1) // 2)
        if 0 < num_rest < fewest and full_K.any():
            full_K[np.flatnonzero(full_K)[0]] -= 1
        return full_K

    def rest_sizes(self, rest_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of the remaining super-batches, last bucket first."""
        num_rest = int(rest_K.sum())
        if num_rest == 0:
            return np.zeros(0, dtype=np.int64)
        if self.batch_size is not None:
            # The sizes are as equal as possible. They depend only on
            # world_size * batch_size, except for batches of one event.
            full_size = self.world_size * self.batch_size
            count = max(min(-(-num_rest // full_size), num_rest // self.world_size), 1)
            return np.diff(np.arange(count + 1) * num_rest // count)
        return self._rest_sizes_by_pulses(rest_K)

    def num_batches(self, events_K: NDArray[np.int64]) -> int:
        """Return the number of batches of each rank, given (K,) events per bucket."""
        full_K = self.full_batches(events_K)
        rest_K = events_K - full_K * self.full_size_K
        return int(full_K.sum()) + len(self.rest_sizes(rest_K))

    def _rest_sizes_by_pulses(self, rest_K: NDArray[np.int64]) -> NDArray[np.int64]:
        # A row is one event for each rank and has the length of its first event. A
        # batch takes as many rows as the budget allows.
        assert self.pulse_budget is not None
        num_rest = int(rest_K.sum())
        cost = np.repeat(self.longest_K[::-1], rest_K[::-1])[:: self.world_size]
        spent = np.cumsum(cost)
        borders = [0]
        while borders[-1] < len(cost):
            before = int(spent[borders[-1] - 1]) if borders[-1] else 0
            border = int(np.searchsorted(spent, before + self.pulse_budget, "right"))
            borders.append(max(border, borders[-1] + 1))
        partial = num_rest % self.world_size and borders[-2] == len(cost) - 1
        if partial and len(borders) > 2:
            # The last batch is one row with too few events for all ranks. It gets a
            # row of the batch before; both stay within the budget.
            if borders[-2] - borders[-3] > 1:
                borders[-2] -= 1
            else:
                del borders[-2]
        ends = np.minimum(np.array(borders) * self.world_size, num_rest)
        sizes: NDArray[np.int64] = np.diff(ends)
        return sizes


class BatchCutter:
    """Takes super-batches from arriving events, and keeps the remaining events.

    `events_K` is the number of events of each bucket that will arrive, (K,).
    """

    def __init__(self, rule: BatchRule, events_K: NDArray[np.int64]) -> None:
        self.rule = rule
        self.to_come_K = rule.full_batches(events_K)
        self.kept: dict[int, Events] = {}

    def cut(self, events: Events, bucket: NDArray[np.int32]) -> list[Events]:
        """Add (B,) events with their buckets, and return the full batches."""
        # Few buckets fit into 16 bits, and those are sorted in linear time.
        small = bucket.astype(np.uint16) if len(self.to_come_K) < 2**16 else bucket
        order = np.argsort(small, kind="stable")
        events, bucket = events[order], bucket[order]
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        batches: list[Events] = []
        for start, stop in zip(starts, [*starts[1:], len(events)], strict=True):
            key = int(bucket[start])
            pile = events[start:stop]
            if key in self.kept:
                pile = np.concatenate([self.kept[key], pile])
            size = int(self.rule.full_size_K[key])
            count = min(len(pile) // size, int(self.to_come_K[key]))
            batches.extend(pile[: count * size].reshape(count, size))
            self.to_come_K[key] -= count
            # A copy, since a view would keep all of the pile in memory.
            self.kept[key] = pile[count * size :].copy()
        return batches

    def rest(self) -> list[Events]:
        """Return the batches of the remaining events, after the last events arrived."""
        assert not self.to_come_K.any(), "fewer events arrived than announced"
        left_K = np.zeros(len(self.to_come_K), dtype=np.int64)
        for key, events in self.kept.items():
            left_K[key] = len(events)
        sizes = self.rule.rest_sizes(left_K)
        if not len(sizes):
            return []
        pile = np.concatenate([self.kept[key] for key in sorted(self.kept)[::-1]])
        return np.split(pile, np.cumsum(sizes)[:-1])
