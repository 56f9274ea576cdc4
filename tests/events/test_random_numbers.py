"""Hashed random numbers: that they are random, and depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphnet_icecube2nd.events.random_numbers import (
    RandomKey,
    combine,
    draw_without_replacement,
    mix,
    normal,
    poisson,
    pulse_keys,
    uniform,
)


def make_keys(count: int, **key: int) -> NDArray[np.uint64]:
    return RandomKey(**{"seed": 1, **key}).of_events(np.arange(count))


def drawn(size: int, count: int, repeats: int, seed: int = 0) -> NDArray[np.int64]:
    """So many draws, (repeats, count), unsorted."""
    sizes, counts = np.full(repeats, size), np.full(repeats, count)
    keys = make_keys(repeats, seed=seed)
    return draw_without_replacement(sizes, counts, keys).reshape(repeats, count)


def test_splitmix64() -> None:
    """The first numbers of the published generator, seed 0."""
    gamma = 0x9E3779B97F4A7C15
    state = np.array([0, gamma, 2 * gamma % 2**64], dtype=np.uint64)
    wanted = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(state).tolist() == wanted


class TestKeys:
    def test_every_part_counts(self) -> None:
        keys = [
            make_keys(50, seed=seed, epoch=epoch, stream=stream)
            for seed in (0, 1, -1, 2**63)
            for epoch in (0, 1)
            for stream in (0, 1)
        ]
        assert len(np.unique(np.concatenate(keys))) == 16 * 50

    def test_ids_of_any_sign(self) -> None:
        ids = np.array([-(2**63), -1, 0, 1, 2**63 - 1])
        keys = RandomKey(seed=-(2**70)).of_events(ids)
        assert len(set(keys.tolist())) == 5
        assert RandomKey(seed=-(2**70)).of_events(ids[3:]).tolist() == keys[3:].tolist()

    def test_pulses_are_numbered_in_their_event(self) -> None:
        keys = pulse_keys(make_keys(3), np.array([0, 2, 2, 5]))
        assert keys[2:].tolist() == combine(make_keys(3)[2:], np.arange(3)).tolist()
        assert keys[:2].tolist() == combine(make_keys(3)[:1], np.arange(2)).tolist()


def test_uniform() -> None:
    number = uniform(make_keys(200_000))
    assert 0 <= number.min() < 1e-4
    assert 1 - 1e-4 < number.max() < 1
    counts = np.histogram(number, 100, (0, 1))[0]
    assert abs(((counts - 2000) ** 2 / 2000).sum() - 99) < 4 * (2 * 99) ** 0.5
    assert uniform(np.array([2**64 - 1], np.uint64))[0] < 1


def test_normal() -> None:
    number = normal(make_keys(200_000))
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (spread / len(number)) ** 0.5
        assert abs((number**power).mean() - moment) < 4 * error
    assert (number > 2).mean() == pytest.approx(0.02275, rel=0.05)
    extreme = normal(np.array([0, 2**64 - 1], np.uint64))
    assert np.isfinite(extreme).all()
    # Neighbouring counters have nothing in common.
    assert abs((number[1:] * number[:-1]).mean()) < 4 / len(number) ** 0.5


class TestPoisson:
    @pytest.mark.parametrize("mean", [0.01, 0.7, 5.0, 43.0, 499.0, 1234.5])
    def test_mean_and_variance(self, mean: float) -> None:
        number = poisson(np.full(20_000, mean), make_keys(20_000))
        error = (mean / 20_000) ** 0.5
        assert abs(number.mean() - mean) < 4 * error
        assert abs(number.var() - mean) < 4 * ((mean + 2 * mean**2) / 20_000) ** 0.5
        if mean < 1:
            assert (number == 0).mean() == pytest.approx(np.exp(-mean), abs=0.02)

    def test_nothing_of_nothing(self) -> None:
        assert poisson(np.zeros(5), make_keys(5)).tolist() == [0] * 5
        assert poisson(np.zeros(0), make_keys(0)).tolist() == []

    def test_not_on_the_others(self) -> None:
        mean = np.array([0.0, 3.0, 40.0, 700.0, 0.5, 2000.0])
        together = poisson(mean, make_keys(6))
        for event in range(6):
            one = slice(event, event + 1)
            assert poisson(mean[one], make_keys(6)[one]) == together[one]


class TestDrawWithoutReplacement:
    @settings(max_examples=60)
    @given(
        sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
        seed=st.integers(0, 2**64),
    )
    def test_bijection(self, sizes: list[int], seed: int) -> None:
        size = np.array(sizes)
        number = draw_without_replacement(size, size, make_keys(len(sizes), seed=seed))
        parts = np.split(number, np.cumsum(size)[:-1])
        for part, length in zip(parts, sizes, strict=True):
            assert sorted(part.tolist()) == list(range(length))

    def test_every_small_size(self) -> None:
        size = np.arange(1, 400)
        number = draw_without_replacement(size, size, make_keys(len(size)))
        for part in np.split(number, np.cumsum(size)[:-1]):
            assert sorted(part.tolist()) == list(range(len(part)))

    def test_not_on_the_others_nor_on_how_many(self) -> None:
        size, count = np.array([50, 7, 1000, 64, 1]), np.array([20, 3, 100, 0, 1])
        together = draw_without_replacement(size, count, make_keys(5))
        for event, part in enumerate(np.split(together, np.cumsum(count)[:-1])):
            one = slice(event, event + 1)
            alone = draw_without_replacement(size[one], size[one], make_keys(5)[one])
            assert alone[: count[event]].tolist() == part.tolist()

    # Sizes barely above those kept and above a power of four, and around where the
    # number of turns changes; as many draws as tell a bias of a percent or two.
    @pytest.mark.parametrize(
        ("size", "count"),
        [
            *((2, 1), (3, 2), (5, 2), (7, 3), (12, 6), (17, 8), (50, 20), (64, 20)),
            *((65, 20), (193, 192), (257, 192), (300, 20)),
        ],
    )
    def test_single_numbers_and_pairs(self, size: int, count: int) -> None:
        repeats = 40_000
        kept = np.zeros((repeats, size), np.float32)
        kept[np.arange(repeats)[:, None], drawn(size, count, repeats)] = 1
        assert (kept.sum(1) == count).all()
        share = count / size
        chi2 = ((kept.sum(0) - repeats * share) ** 2).sum()
        chi2 *= (size - 1) / size / (repeats * share * (1 - share))
        assert abs(chi2 - (size - 1)) < 4.5 * (2 * (size - 1)) ** 0.5
        if count == 1:
            return
        pairs = (kept.T @ kept)[np.triu_indices(size, 1)].astype(np.float64)
        share *= (count - 1) / (size - 1)
        error = (repeats * share * (1 - share)) ** 0.5
        assert np.abs(pairs - repeats * share).max() < 5.5 * error
        # The counts of pairs hang together, so their number is not that of degrees of
        # freedom; it tells how far apart events of one mean square may be.
        square = (((pairs - repeats * share) / error) ** 2).mean()
        assert abs(square - 1) < 6 / size**0.5 + 0.2

    @pytest.mark.parametrize(
        ("size", "count"),
        [(178_250, 192), (178_250, 1), (4097, 192), (16_385, 192), (2**20 + 1, 192)],
    )
    def test_large_sizes(self, size: int, count: int) -> None:
        number = drawn(size, count, 400_000 // count)
        repeats, bins = len(number), 64
        where = number * bins // size
        share = np.bincount(np.arange(size) * bins // size) / size
        counts = np.stack([(where == index).sum(1) for index in range(bins)], 1)
        wanted = repeats * count * share
        chi2 = ((counts.sum(0) - wanted) ** 2 / wanted).sum()
        assert abs(chi2 - (bins - 1)) < 4 * (2 * (bins - 1)) ** 0.5
        if count > 1:  # spread as without replacement: neither bunched nor combed
            spread = count * share * (1 - share) * (size - count) / (size - 1)
            ratio = (counts.var(0) / spread).mean()
            assert ratio == pytest.approx(1, abs=5 * (2 / repeats / bins) ** 0.5)

    @pytest.mark.parametrize("size", [4097, 16_385])
    def test_gaps(self, size: int) -> None:
        """Of one, and of a row of the rectangle inside: as often as others."""
        gap = np.diff(np.sort(drawn(size, 192, 4000), axis=1), axis=1)
        row = -(-size // int(np.ceil(size**0.5)))
        chance = 192 / size
        for length in (1, 2, row - 1, row, row + 1):
            wanted = gap.size * chance * (1 - chance) ** (length - 1)
            found = (gap == length).sum()
            assert abs(found - wanted) < 5 * wanted**0.5 + 0.03 * wanted
