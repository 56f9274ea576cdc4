"""How events are cut into batches of nearly equal length.

Events go into buckets by their length, and full batches are cut from one bucket; what
is left at the end is cut together, longest first. How many batches that gives follows
from the number of events in every bucket, so it is known before the first batch.

A cut is a *super-batch*: the events that all ranks of a distributed run work on in one
step. Rank r takes every `world_size`-th event from the r-th on. So several ranks see
together what one rank with larger batches sees, and all have equally many batches.

Shape letters: B events, K buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Events = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchRule:
    """How large a batch is, and what may stand in it; options as of `EventSampler`.

    A batch exceeds the pulse budget only if it is a single event, or if a rest of fewer
    events than ranks can go nowhere else (events longer than half the budget). Without
    length buckets the budget counts every event as `max_pulses`.
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
                "give either batch_size, in events, or pulse_budget, in pulses; got "
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
        """(K,) pulses of the longest event that a bucket may hold, at least 1."""
        if not self.length_buckets:
            return np.array([self.max_pulses])
        ends_K = np.arange(self.max_pulses // self.bucket_width + 1) + 1
        return np.clip(ends_K * self.bucket_width - 1, 1, self.max_pulses)

    @property
    def num_buckets(self) -> int:
        """K."""
        return len(self.longest_K)

    @cached_property
    def full_size_K(self) -> NDArray[np.int64]:
        """(K,) events of a super-batch cut from one bucket."""
        if self.pulse_budget is None:
            assert self.batch_size is not None
            return np.full(self.num_buckets, self.world_size * self.batch_size)
        return self.world_size * np.maximum(self.pulse_budget // self.longest_K, 1)

    def full_batches(self, events_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many super-batches are cut from each bucket alone, (K,).

        Raises ValueError where there are fewer events than ranks.
        """
        if int(events_K.sum()) < self.world_size:
            raise ValueError(
                f"{int(events_K.sum())} events are too few for {self.world_size} "
                "ranks: each needs one at least"
            )
        full_K = events_K // self.full_size_K
        num_rest = int((events_K - full_K * self.full_size_K).sum())
        # A rest too small for all ranks, or for half a batch, whose few events would
        # weigh as much in training as a full batch, is filled up with one.
        fewest = self.world_size
        if self.batch_size is not None:
            fewest = max(fewest, (self.world_size * self.batch_size + 1) // 2)
        if 0 < num_rest < fewest and full_K.any():
            full_K[np.flatnonzero(full_K)[0]] -= 1
        return full_K

    def rest_sizes(self, rest_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the size of each super-batch of what is left, last bucket first."""
        num_rest = int(rest_K.sum())
        if num_rest == 0:
            return np.zeros(0, dtype=np.int64)
        if self.batch_size is not None:
            # As equal as can be. This depends on world_size * batch_size alone, but
            # for batches of one event.
            full_size = self.world_size * self.batch_size
            count = max(min(-(-num_rest // full_size), num_rest // self.world_size), 1)
            return np.diff(np.arange(count + 1) * num_rest // count)
        return self._rest_sizes_by_pulses(rest_K)

    def num_batches(self, events_K: NDArray[np.int64]) -> int:
        """Return how many batches each rank gets from (K,) events in each bucket."""
        full_K = self.full_batches(events_K)
        rest_K = events_K - full_K * self.full_size_K
        return int(full_K.sum()) + len(self.rest_sizes(rest_K))

    def _rest_sizes_by_pulses(self, rest_K: NDArray[np.int64]) -> NDArray[np.int64]:
        # A row is one event for each rank, as long as its first. As many rows go into
        # a batch as the budget holds.
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
            # The last batch is one row that does not reach all ranks. A row of the
            # batch before is longer, so with one of its rows the budget still holds.
            if borders[-2] - borders[-3] > 1:
                borders[-2] -= 1
            else:
                del borders[-2]
        ends = np.minimum(np.array(borders) * self.world_size, num_rest)
        sizes: NDArray[np.int64] = np.diff(ends)
        return sizes


class BatchCutter:
    """Cuts super-batches from events as they come, and keeps what is left.

    It is told beforehand how many events of each bucket will come, (K,).
    """

    def __init__(self, rule: BatchRule, events_K: NDArray[np.int64]) -> None:
        self.rule = rule
        self.to_come_K = rule.full_batches(events_K)
        self.kept: dict[int, Events] = {}

    def cut(self, events: Events, bucket: NDArray[np.int32]) -> list[Events]:
        """Take (B,) events and their buckets; return the batches that are full."""
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
        """Return the batches cut from what is left, after the last events came."""
        assert not self.to_come_K.any(), "fewer events came than were announced"
        left_K = np.zeros(len(self.to_come_K), dtype=np.int64)
        for key, events in self.kept.items():
            left_K[key] = len(events)
        sizes = self.rule.rest_sizes(left_K)
        if not len(sizes):
            return []
        pile = np.concatenate([self.kept[key] for key in sorted(self.kept)[::-1]])
        return np.split(pile, np.cumsum(sizes)[:-1])


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ValueError where an option is no whole number, or below the least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")
