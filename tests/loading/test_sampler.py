"""EventSampler: every event once, batches of equal length, the same again."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.batch_plan import BatchCutter, BatchRule
from graphnet_icecube2nd.loading.sampler import EventSampler
from graphnet_icecube2nd.loading.subset import EventSubset

# Pulses of the competition's events: quantiles, and the share of events below.
QUANTILES = [15, 30, 36, 40, 63, 89, 144, 219, 1130, 19553, 110517]
SHARES = [0, 0.01, 0.05, 0.10, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 1]


class FakeIndex:
    """A store's index in memory: the pulses of each event, and where shards end."""

    def __init__(self, lengths: Sequence[int], shards: Sequence[int] = ()) -> None:
        self.all_lengths = np.array(lengths, dtype=np.int32)
        borders = [0, *sorted(shards), len(lengths)]
        self.shard_offsets = np.array(borders, dtype=np.int64)
        self.shard_batches: list[int | None] = [None] * (len(borders) - 1)
        self.event_columns: tuple[str, ...] = ()
        self.looked_at: list[int] = []

    def lengths(self, shard: int) -> NDArray[np.int32]:
        self.looked_at.append(shard)
        start, stop = self.shard_offsets[shard : shard + 2]
        return self.all_lengths[start:stop]

    def event_column(self, name: str, shard: int) -> NDArray[Any]:
        assert name == "event_id"
        return np.arange(*self.shard_offsets[shard : shard + 2])


def kaggle_like(num_events: int, num_shards: int = 4) -> FakeIndex:
    share = np.random.default_rng(7).random(num_events)
    lengths = np.exp(np.interp(share, SHARES, np.log(QUANTILES))).astype(int)
    borders = [num_events * i // num_shards for i in range(1, num_shards)]
    return FakeIndex(lengths.tolist(), borders)


def listed(batches: Any) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@st.composite
def cases(draw: st.DrawFn, budget: bool = True) -> dict[str, Any]:
    """Options of a sampler, and a store with events enough for all ranks."""
    world_size = draw(st.integers(1, 4))
    num_sub_epochs = draw(st.integers(1, 3))
    least = world_size * num_sub_epochs
    pulses = st.one_of(st.integers(0, 12), st.integers(0, 60))
    lengths = draw(st.lists(pulses, max_size=120))
    lengths += draw(st.lists(st.integers(1, 60), min_size=least, max_size=least + 60))
    shards = draw(st.lists(st.integers(0, len(lengths)), max_size=3))
    size = {"batch_size": draw(st.integers(1, 9))}
    if budget and draw(st.booleans()):
        size = {"pulse_budget": draw(st.integers(1, 150))}
    return {
        "index": FakeIndex(lengths, shards),
        "max_pulses": draw(st.sampled_from([1, 7, 30, 64])),
        "bucket_width": draw(st.sampled_from([1, 4, 5, 100])),
        "length_buckets": draw(st.booleans()),
        "shuffle": draw(st.booleans()),
        "chunk_size": draw(st.integers(1, 20)),
        "window": draw(st.integers(1, 5)),
        "num_sub_epochs": num_sub_epochs,
        "world_size": world_size,
        "seed": draw(st.integers(0, 2**40)),
        **size,
    }


class TestEpoch:
    @settings(deadline=None, max_examples=200)
    @given(case=cases(), epoch=st.integers(0, 5))
    def test_each_event_once(self, case: dict[str, Any], epoch: int) -> None:
        """Over all ranks and sub-epochs, in equally many batches on all ranks."""
        index = case["index"]
        seen: list[int] = []
        ranks = [EventSampler(rank=r, **case) for r in range(case["world_size"])]
        for sub_epoch in range(case["num_sub_epochs"]):
            plans = [listed(sampler.plan(epoch, sub_epoch)) for sampler in ranks]
            for sampler, plan in zip(ranks, plans, strict=True):
                assert sampler.num_batches(epoch, sub_epoch) == len(plan)
            for step in zip(*plans, strict=True):
                sizes = [len(batch) for batch in step]
                assert min(sizes) >= 1
                assert max(sizes) - min(sizes) <= 1
                seen += itertools.chain(*step)
        assert sorted(seen) == np.flatnonzero(index.all_lengths > 0).tolist()
        assert ranks[0].num_events == len(seen)

    @settings(deadline=None, max_examples=200)
    @given(case=cases())
    def test_how_large_batches_are(self, case: dict[str, Any]) -> None:
        sampler = EventSampler(**case)
        world_size, most = case["world_size"], case["max_pulses"]
        cut = np.minimum(case["index"].all_lengths, most)
        longest = most if not case["length_buckets"] else int(cut.max())
        for batch in sampler.plan(0):
            if "batch_size" in case:
                # One event more only where batches of one cannot be divided.
                extra = case["batch_size"] == 1 and world_size > 1
                assert len(batch) <= case["batch_size"] + extra
            elif len(batch) > 1:
                # A rest of fewer events than ranks may have no other place.
                hard = world_size > 1 and 2 * longest > case["pulse_budget"]
                assert cut[batch].sum() <= case["pulse_budget"] or hard

    @settings(deadline=None, max_examples=100)
    @given(case=cases(budget=False))
    def test_several_ranks_see_what_one_sees(self, case: dict[str, Any]) -> None:
        case["batch_size"] += 1  # batches of one event cannot always be divided
        world_size = case["world_size"]
        ranks = [EventSampler(rank=r, **case) for r in range(world_size)]
        size = case["batch_size"] * world_size
        one = EventSampler(**{**case, "batch_size": size, "world_size": 1})
        steps = zip(*(sampler.plan(1) for sampler in ranks), strict=True)
        for step, alone in zip(steps, one.plan(1), strict=True):
            together = np.full(len(alone), -1)
            for rank, batch in enumerate(step):
                together[rank::world_size] = batch
            assert together.tolist() == alone.tolist()

    @settings(deadline=None, max_examples=50)
    @given(case=cases())
    def test_events_of_a_batch_share_a_bucket(self, case: dict[str, Any]) -> None:
        """All batches but those cut from what is left in the end."""
        case.update(length_buckets=True, num_sub_epochs=1)
        sampler = EventSampler(**case)
        rule, lengths = sampler.rule, case["index"].all_lengths
        bucket = rule.bucket(lengths)
        events_K = np.bincount(bucket[lengths > 0], minlength=rule.num_buckets)
        alike = [len(set(bucket[batch])) == 1 for batch in sampler.plan(0)]
        assert sum(alike) >= (events_K // rule.full_size_K).sum() - 1


class TestRule:
    @settings(deadline=None)
    @given(
        events_K=st.lists(st.integers(0, 40), min_size=16, max_size=16),
        budget=st.integers(1, 300),
        world_size=st.integers(1, 5),
    )
    def test_budget_by_longest_of_bucket(
        self, events_K: list[int], budget: int, world_size: int
    ) -> None:
        """Holds for the longest events a bucket may have; the exception is rare."""
        rule = BatchRule(
            pulse_budget=budget, max_pulses=63, bucket_width=4, world_size=world_size
        )
        count_K = np.array(events_K)
        if count_K.sum() < world_size:
            with pytest.raises(ValueError, match=f"^{world_size} ranks"):
                rule.full_batches(count_K)
            return
        cutter = BatchCutter(rule, count_K)
        bucket = np.repeat(np.arange(16, dtype=np.int32), count_K)
        lengths = rule.longest_K[bucket]
        batches = cutter.cut(np.arange(len(bucket)), bucket) + cutter.rest()
        assert len(batches) == rule.num_batches(count_K)
        assert sorted(itertools.chain(*batches)) == list(range(len(bucket)))
        for events in batches:
            assert len(events) >= world_size
            for rank in range(world_size):
                own = lengths[events[rank::world_size]]
                over = len(own) > 1 and own.sum() > budget
                assert not over or (own > budget / 2).sum() >= 1
                assert not over or len(events) < 2 * world_size

    def test_small_rests(self) -> None:
        """No batch of a few events, which would weigh as much as a full one."""
        rule = BatchRule(batch_size=4, world_size=2, length_buckets=False)
        sizes = {n: rule.rest_sizes(np.array([n])).tolist() for n in (7, 8, 9, 17)}
        assert sizes == {7: [7], 8: [8], 9: [4, 5], 17: [5, 6, 6]}
        assert rule.full_batches(np.array([25])).tolist() == [2]
        assert rule.full_batches(np.array([28])).tolist() == [3]
        ones = BatchRule(batch_size=1, world_size=4, length_buckets=False)
        assert ones.full_batches(np.array([11])).tolist() == [1]
        assert ones.rest_sizes(np.array([7])).tolist() == [7]

    def test_a_row_is_borrowed(self) -> None:
        """Two ranks, 20 pulses each: 10 + 10 | 10 + 10 and one left, of 9 pulses."""
        rule = BatchRule(pulse_budget=20, max_pulses=10, bucket_width=1, world_size=2)
        rest_K = np.zeros(11, dtype=np.int64)
        rest_K[[9, 10]] = 1, 4
        assert rule.rest_sizes(rest_K).tolist() == [2, 3]

    def test_longest_of_a_bucket(self) -> None:
        rule = BatchRule(pulse_budget=100, max_pulses=10, bucket_width=4)
        assert rule.longest_K.tolist() == [3, 7, 10]
        assert rule.full_size_K.tolist() == [33, 14, 10]
        lengths = np.array([1, 3, 4, 7, 8, 10, 5000], dtype=np.int32)
        assert rule.bucket(lengths).tolist() == [0, 0, 1, 1, 2, 2, 2]
        one = BatchRule(batch_size=2, max_pulses=1, bucket_width=1)
        assert one.longest_K.tolist() == [1, 1]


class TestPadding:
    def test_few_padded_pulses(self) -> None:
        """With the competition's lengths, 32 events cut to 192 pulses."""
        index = kaggle_like(200_000)
        cut = np.minimum(index.all_lengths, 192)
        sampler = EventSampler(index, batch_size=32, max_pulses=192)
        real = padded = 0
        for batch in sampler.plan(0):
            real += int(cut[batch].sum())
            padded += int(cut[batch].max()) * len(batch)
        assert real / padded >= 0.97
        assert real == cut.sum()

    def test_budget_is_used(self) -> None:
        index = kaggle_like(50_000)
        cut = np.minimum(index.all_lengths, 192)
        sampler = EventSampler(index, pulse_budget=6144, max_pulses=192)
        used = [int(cut[batch].sum()) for batch in sampler.plan(0)]
        assert max(used) <= 6144
        assert np.mean(used) >= 0.93 * 6144


class TestOrder:
    def test_batches_are_mixed(self) -> None:
        """A batch has events of many chunks, and batches of all lengths alternate."""
        index = kaggle_like(40_000)
        sampler = EventSampler(index, batch_size=32, chunk_size=1000, window=8)
        batches = list(sampler.plan(0))
        chunks = [len(set(batch // 1000)) for batch in batches]
        assert np.mean(chunks) > 6.5  # of 32 balls in 8 boxes 7.9 are hit
        for batch in batches[:20]:
            assert (np.diff(batch) < 0).any()
        lengths = np.array([index.all_lengths[batch].mean() for batch in batches])
        steps = np.corrcoef(np.log(lengths[:-1]), np.log(lengths[1:]))[0, 1]
        assert abs(steps) < 0.15
        # The epoch goes through all chunks, at random.
        first = np.array([np.median(batch) for batch in batches])
        assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.5
        places = np.concatenate(batches) // 1000
        halves = set(places[:20_000]), set(places[-20_000:])
        assert len(halves[0]) < 40, "an epoch reads the store window by window"

    def test_seed_and_epoch(self) -> None:
        index = kaggle_like(3000)
        plans = [
            listed(EventSampler(index, batch_size=8, seed=seed).plan(epoch))
            for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1), (2**32, 0), (0, 2**32))
        ]
        assert plans[0] == plans[1]
        for one, other in itertools.combinations(plans[1:], 2):
            together = {tuple(batch) for batch in one} & {tuple(b) for b in other}
            assert len(together) < 0.02 * len(one)

    def test_the_same_on_every_platform(self) -> None:
        index = FakeIndex([5, 9, 3, 8, 1, 7, 2, 6, 9, 9, 4, 8], [5])
        sampler = EventSampler(
            index, batch_size=4, bucket_width=5, chunk_size=3, window=2, seed=3
        )
        pinned = [[10, 2, 4, 6], [9, 11, 3, 5], [8, 7, 1, 0]]
        assert listed(sampler.plan(2)) == pinned

    def test_store_order(self) -> None:
        index = FakeIndex([3, 0, 5, 200, 1, 9, 0, 4, 4, 6, 2], [4, 4, 7])
        sampler = EventSampler(
            index,
            batch_size=3,
            shuffle=False,
            length_buckets=False,
            chunk_size=2,
            window=2,
        )
        batches = [[0, 2, 3], [4, 5, 7], [8, 9, 10]]
        assert listed(sampler.plan(0)) == listed(sampler.plan(5)) == batches
        sampler = EventSampler(
            index, batch_size=2, shuffle=False, bucket_width=4, window=2, chunk_size=3
        )
        # Full ones window by window, then the rest, longest first.
        assert listed(sampler.plan(0)) == [[0, 4], [2, 7], [8, 9], [3], [5, 10]]

    def test_windows_only(self) -> None:
        """Drawing a batch looks at one window, not at all of the store."""
        index = FakeIndex([5] * 100, list(range(10, 100, 10)))
        sampler = EventSampler(index, batch_size=5, chunk_size=10, window=2)
        index.looked_at.clear()
        next(sampler.plan(0))
        assert len(set(index.looked_at)) == 2

    def test_subset(self) -> None:
        index = kaggle_like(3000)
        subset = EventSubset("short", hash_range=(0, 0.5))
        sampler = EventSampler(index, subset, batch_size=7, chunk_size=100)
        wanted = [
            index.shard_offsets[shard] + subset.local_events(index, shard)
            for shard in range(4)
        ]
        found = np.concatenate(list(sampler.plan(0)))
        assert sorted(found) == np.concatenate(wanted).tolist()
        assert sampler.num_events == subset.counts(index).sum()


class TestSubEpochs:
    def test_published(self) -> None:
        """Independent eighths: of the events, 1 - (7/8)^8 are seen, or 66%."""
        index = kaggle_like(64_000)
        sampler = EventSampler(
            index,
            batch_size=16,
            num_sub_epochs=8,
            sub_epochs="published",
            chunk_size=50,
        )
        parts = [np.concatenate(list(sampler.plan(0, s))) for s in range(8)]
        assert [len(np.unique(part)) for part in parts] == [8000] * 8
        seen = np.unique(np.concatenate(parts))
        assert len(seen) / 64_000 == pytest.approx(1 - (7 / 8) ** 8, abs=0.02)
        assert set(parts[0]) != set(np.concatenate(list(sampler.plan(1, 0))))

    def test_partition_at_random(self) -> None:
        index = kaggle_like(8000)
        sampler = EventSampler(index, batch_size=16, num_sub_epochs=8, chunk_size=300)
        first = [set(np.concatenate(list(sampler.plan(e, 0)))) for e in range(2)]
        assert len(first[0]) == len(first[1]) == 1000
        assert len(first[0] & first[1]) < 600

    def test_iterating_goes_on(self) -> None:
        sampler = EventSampler(kaggle_like(100), batch_size=8, num_sub_epochs=2)
        for position in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
            assert (sampler.epoch, sampler.sub_epoch) == position
            length, plan = len(sampler), listed(sampler.plan(*position))
            assert listed(sampler) == plan
            assert length == len(plan)
        next(iter(sampler))
        assert listed(sampler) == listed(sampler.plan(2, 1)), "set_epoch"
        sampler.set_epoch(7)
        assert listed(sampler) == listed(sampler.plan(7, 0))


def state_at(sampler: EventSampler, epoch: int, batches: int) -> dict[str, Any]:
    """Return the state after some batches of an epoch's first part."""
    place = {"epoch": epoch, "sub_epoch": 0, "batches": batches}
    return {**sampler.state_dict(), **place}


class TestState:
    @settings(deadline=None, max_examples=40)
    @given(case=cases())
    def test_resume_anywhere(self, case: dict[str, Any]) -> None:
        sampler = EventSampler(rank=case["world_size"] - 1, **case)
        sampler.set_epoch(3)
        states, batches = [sampler.state_dict()], []
        for batch in sampler:
            states.append(sampler.state_dict())
            batches.append(batch.tolist())
        for done, state in enumerate(states):
            other = EventSampler(rank=case["world_size"] - 1, **case)
            assert listed(other.plan(3, 0, done)) == batches[done:]
            assert state == state_at(other, 3, done)
            other.load_state_dict(json.loads(json.dumps(state)))
            if done == len(batches):
                assert (other.epoch, other.sub_epoch) == other.following(3, 0)
            else:
                assert listed(other) == batches[done:]
            assert other.state_dict()["batches"] == 0

    def test_states_of_resumed_runs(self) -> None:
        sampler = EventSampler(kaggle_like(100), batch_size=8)
        sampler.load_state_dict(state_at(sampler, 2, 5))
        assert sampler.state_dict() == state_at(sampler, 2, 5)
        next(iter(sampler))
        assert sampler.state_dict() == state_at(sampler, 2, 6)
        assert listed(sampler) == listed(sampler.plan(2)), "resumed once, then anew"
        sampler.set_epoch(2)
        assert len(sampler) == sampler.num_batches(2) == 13

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": 1}, "seed was 0 and is 1"),
            ({"batch_size": 4}, "batch_size was 8 and is 4"),
            ({"batch_size": None, "pulse_budget": 9}, "pulse_budget was None and is 9"),
            ({"world_size": 2}, "world_size was 1 and is 2"),
            ({"window": 3, "shuffle": False}, "shuffle was .*; window was 16 and is 3"),
            ({"subset": EventSubset("short")}, "subset was 'total .* is 'short events"),
            ({"index": kaggle_like(101)}, "num_events was 100 and is 101; lengths"),
            ({"index": kaggle_like(100, 5)}, "other batches: lengths was"),
        ],
    )
    def test_other_options(self, change: dict[str, Any], message: str) -> None:
        options: dict[str, Any] = {"index": kaggle_like(100), "batch_size": 8}
        state = EventSampler(**options).state_dict()
        other = EventSampler(**{**options, **change})
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)

    def test_no_such_place(self) -> None:
        sampler = EventSampler(kaggle_like(100), batch_size=8, num_sub_epochs=2)
        with pytest.raises(ValueError, match=r"version.* 0"):
            sampler.load_state_dict({"version": 0})
        with pytest.raises(ValueError, match=r"first_batch .* 7.* 99"):
            sampler.load_state_dict(state_at(sampler, 0, 99))
        with pytest.raises(ValueError, match="sub_epoch must be below 2"):
            sampler.set_epoch(0, 2)
        with pytest.raises(ValueError, match="epoch must be a whole number from 0"):
            sampler.plan(-1)

    def test_pickle(self) -> None:
        sampler = EventSampler(kaggle_like(100), batch_size=8)
        again = pickle.loads(pickle.dumps(sampler))
        assert listed(again) == listed(sampler)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"batch_size": None}, "either batch_size.* or pulse_budget"),
            ({"pulse_budget": 100}, "either batch_size.* 8 and 100"),
            ({"batch_size": 0}, "batch_size .* from 1, .* 0$"),
            ({"batch_size": True}, "batch_size .* True"),
            ({"max_pulses": 1.5}, "max_pulses"),
            ({"bucket_width": 0}, "bucket_width"),
            ({"chunk_size": 0}, "chunk_size"),
            ({"window": 0}, "window"),
            ({"num_sub_epochs": 0}, "num_sub_epochs"),
            ({"seed": -1}, "seed must be a whole number from 0"),
            ({"rank": 2, "world_size": 2}, "rank .* world_size 2"),
            ({"sub_epochs": "all"}, "unknown sub_epochs 'all'.*partition, published"),
            ({"sub_epochs": "published", "shuffle": False}, "shuffle"),
            ({"world_size": 101}, "101 ranks.* 100 events"),
            ({"world_size": 26, "num_sub_epochs": 4}, "4 sub-epochs.* 26 ranks"),
            ({"subset": EventSubset(batches=[3])}, "0 events .*of batches 3"),
            ({"index": FakeIndex([])}, "0 events"),
        ],
    )
    def test_options(self, change: dict[str, Any], message: str) -> None:
        options = {"index": kaggle_like(100), "batch_size": 8, **change}
        with pytest.raises(ValueError, match=message):
            EventSampler(**options)
