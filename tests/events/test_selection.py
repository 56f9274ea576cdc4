"""Which pulses are kept: how many, which, and what the choice depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.events.selection import (
    SELECTIONS,
    select_positions,
    select_pulses,
)

RANDOM = ("uniform", "hlc_first")


def make_offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def make_auxiliary(num_pulses: int, share: float = 0.8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_pulses, generator=generator) < share


def kept_of_one(length: int, max_pulses: int, **options: object) -> list[int]:
    kept, _ = select_pulses(make_offsets([length]), max_pulses, **options)  # type: ignore[arg-type]
    return kept.tolist()


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    max_pulses=st.integers(1, 45),
    selection=st.sampled_from(SELECTIONS),
    seed=st.integers(-(2**70), 2**70),
)
def test_what_is_kept(
    lengths: list[int], max_pulses: int, selection: str, seed: int
) -> None:
    """As many as there are or fit, in the order they came, whole events if short."""
    offsets = make_offsets(lengths)
    kept, kept_offsets = select_pulses(
        offsets,
        max_pulses,
        selection=selection,
        auxiliary=make_auxiliary(sum(lengths)),
        seed=seed,
    )
    assert kept.dtype == kept_offsets.dtype == torch.int64
    assert (kept.diff() > 0).all()
    wanted = [min(length, max_pulses) for length in lengths]
    assert kept_offsets.tolist() == make_offsets(wanted).tolist()
    event_of_pulse = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    event_of_kept = torch.arange(len(lengths)).repeat_interleave(torch.tensor(wanted))
    assert torch.equal(event_of_pulse[kept], event_of_kept)


def test_first() -> None:
    kept, offsets = select_pulses(make_offsets([5, 2, 4]), 3, selection="first")
    assert kept.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert offsets.tolist() == [0, 3, 5, 8]


def test_nothing_to_cut() -> None:
    offsets = make_offsets([3, 4])
    kept, kept_offsets = select_pulses(offsets, 4)
    assert kept.tolist() == list(range(7))
    assert torch.equal(kept_offsets, offsets)


class TestUniform:
    def test_every_pulse_is_as_likely(self) -> None:
        length, max_pulses, repeats = 50, 20, 4000
        counts = np.zeros(length)
        pairs = 0  # how often two neighbouring pulses are kept together
        for seed in range(repeats):
            kept = kept_of_one(length, max_pulses, seed=seed)
            counts[kept] += 1
            pairs += int((np.diff(kept) == 1).sum())
        share = max_pulses / length
        error = (share * (1 - share) / repeats) ** 0.5
        assert np.abs(counts / repeats - share).max() < 4.5 * error
        # Independent of each other too, as drawing without replacement has it.
        expected = (length - 1) * share * (max_pulses - 1) / (length - 1)
        assert pairs / repeats == pytest.approx(expected, rel=0.02)

    def test_share_of_hlc_is_that_of_the_event(self) -> None:
        """What the published code does, though it means to prefer HLC pulses."""
        length, max_pulses = 3000, 192
        auxiliary = make_auxiliary(length, share=0.85)
        share = 1 - float(auxiliary.float().mean())
        hlc = [
            int((~auxiliary[kept_of_one(length, max_pulses, seed=seed)]).sum())
            for seed in range(50)
        ]
        error = (share * (1 - share) / (50 * max_pulses)) ** 0.5
        assert np.sum(hlc) / (50 * max_pulses) == pytest.approx(share, abs=4 * error)
        assert np.ptp(hlc) > 0

    def test_flag_does_not_matter(self) -> None:
        offsets = make_offsets([100])
        without, _ = select_pulses(offsets, 30, seed=1)
        for auxiliary in (make_auxiliary(100), torch.ones(100)):
            kept, _ = select_pulses(offsets, 30, auxiliary=auxiliary, seed=1)
            assert torch.equal(kept, without)


class TestHlcFirst:
    @pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int64])
    def test_all_hlc_are_kept(self, kind: torch.dtype) -> None:
        auxiliary = make_auxiliary(500, share=0.9)
        hlc = set((~auxiliary).nonzero().flatten().tolist())
        assert 20 < len(hlc) < 100
        others = []
        for seed in range(20):
            kept = set(
                kept_of_one(
                    *(500, 100),
                    selection="hlc_first",
                    auxiliary=auxiliary.to(kind),
                    seed=seed,
                )
            )
            assert hlc <= kept
            others.append(frozenset(kept - hlc))
        assert len(set(others)) == 20  # the rest is drawn at random

    def test_only_hlc_where_there_are_enough(self) -> None:
        auxiliary = make_auxiliary(500, share=0.3)
        counts = np.zeros(500)
        for seed in range(1000):
            kept = kept_of_one(
                500, 100, selection="hlc_first", auxiliary=auxiliary, seed=seed
            )
            assert not auxiliary[kept].any()
            counts[kept] += 1
        num_hlc = int((~auxiliary).sum())
        shares = counts[(~auxiliary).numpy()] / 1000
        error = (100 / num_hlc * (1 - 100 / num_hlc) / 1000) ** 0.5
        assert np.abs(shares - 100 / num_hlc).max() < 4.5 * error


class TestWhatTheChoiceDependsOn:
    IDS = (24, 41, -5, 2**62, 0)
    LENGTHS = (300, 90, 150, 500, 101)

    def choices(self, events: list[int], **options: object) -> dict[int, list[int]]:
        """Positions kept in each event, by event id."""
        lengths = [self.LENGTHS[event] for event in events]
        auxiliary = [make_auxiliary(self.LENGTHS[e], seed=e) for e in events]
        offsets = make_offsets(lengths)
        kept, kept_offsets = select_pulses(
            *(offsets, 100),
            auxiliary=torch.cat(auxiliary),
            event_id=torch.tensor([self.IDS[event] for event in events]),
            **options,  # type: ignore[arg-type]
        )
        parts = kept.split(kept_offsets.diff().tolist())
        return {
            self.IDS[event]: (part - start).tolist()
            for event, part, start in zip(events, parts, offsets.tolist(), strict=False)
        }

    @pytest.mark.parametrize("selection", RANDOM)
    def test_not_on_the_batch(self, selection: str) -> None:
        options = {"selection": selection, "seed": 7, "epoch": 3}
        together = self.choices([0, 1, 2, 3, 4], **options)
        assert together == self.choices([3, 1, 4, 0, 2], **options)
        for event in range(5):
            alone = self.choices([event], **options)
            assert alone[self.IDS[event]] == together[self.IDS[event]]

    @pytest.mark.parametrize("selection", RANDOM)
    def test_on_seed_epoch_and_event(self, selection: str) -> None:
        seen = set()
        for seed in (0, 1, 2):
            for epoch in (0, 1, 2):
                options = {"selection": selection, "seed": seed, "epoch": epoch}
                chosen = self.choices([0, 3], **options)
                assert chosen == self.choices([0, 3], **options)
                seen |= {tuple(positions) for positions in chosen.values()}
        assert len(seen) == 18

    def test_events_of_one_length_differ(self) -> None:
        kept, offsets = select_pulses(make_offsets([200] * 5), 50, seed=0)
        positions = {tuple(p.tolist()) for p in (kept.reshape(5, 50) % 200)}
        assert offsets.tolist() == [0, 50, 100, 150, 200, 250]
        assert len(positions) == 5

    @pytest.mark.parametrize("selection", RANDOM)
    def test_on_nothing_global_when_a_seed_is_given(self, selection: str) -> None:
        before = torch.random.get_rng_state()
        first = self.choices([0, 3], selection=selection, seed=5)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(123)
        np.random.seed(123)  # noqa: NPY002
        assert self.choices([0, 3], selection=selection, seed=5) == first

    @pytest.mark.parametrize("selection", RANDOM)
    def test_on_torchs_generator_without_a_seed(self, selection: str) -> None:
        torch.manual_seed(1)
        first = self.choices([0, 3], selection=selection)
        second = self.choices([0, 3], selection=selection)
        assert first != second
        torch.manual_seed(1)
        assert self.choices([0, 3], selection=selection) == first
        assert self.choices([0, 3], selection=selection) == second

    def test_long_events_keep_their_speed_and_spread(self) -> None:
        kept = np.array(kept_of_one(178_250, 192, seed=0))
        assert len(kept) == 192
        thirds = np.histogram(kept, bins=3, range=(0, 178_250))[0]
        assert thirds.min() > 40


class TestPositions:
    """Long events only, from their lengths."""

    LENGTHS = np.array([5, 300, 193, 192, 4000])

    def test_shapes(self) -> None:
        for selection in ("uniform", "first"):
            long_E, position_EL = select_positions(
                self.LENGTHS, 192, selection=selection, seed=0
            )
            assert long_E.tolist() == [1, 2, 4]
            assert position_EL.shape == (3, 192)
            assert position_EL.dtype == long_E.dtype == np.int64
            assert (np.diff(position_EL, axis=1) > 0).all()
            assert position_EL.min() >= 0
            assert (position_EL[:, -1] < self.LENGTHS[long_E]).all()

    @pytest.mark.parametrize("selection", SELECTIONS)
    @pytest.mark.parametrize("kind", [np.int32, np.uint16, np.int64])
    def test_same_as_with_pulses(self, selection: str, kind: type) -> None:
        offsets = make_offsets(self.LENGTHS.tolist())
        auxiliary = make_auxiliary(int(offsets[-1]), share=0.9)
        ids = torch.tensor([9, -4, 2**60, 0, 3])
        options = {"selection": selection, "seed": 3, "epoch": 2}
        kept, kept_offsets = select_pulses(
            *(offsets, 100), auxiliary=auxiliary, event_id=ids, **options
        )
        parts = [
            part - start
            for part, start in zip(
                kept.split(kept_offsets.diff().tolist()), offsets.tolist(), strict=False
            )
        ]
        flags = auxiliary.split(self.LENGTHS.tolist())
        long_E, position_EL = select_positions(
            *(self.LENGTHS.astype(kind), 100),
            read_auxiliary=lambda event: flags[event].numpy(),
            event_id=ids.numpy(),
            **options,  # type: ignore[arg-type]
        )
        for event, position in zip(long_E, position_EL, strict=True):
            assert parts[event].tolist() == position.tolist()

    def test_flags_are_read_where_they_are_needed(self) -> None:
        asked = []

        def read(event: int) -> NDArray[np.bool_]:
            asked.append(event)
            return np.ones(self.LENGTHS[event], bool)

        select_positions(
            self.LENGTHS, 192, selection="hlc_first", read_auxiliary=read, seed=0
        )
        assert asked == [1, 2, 4]
        select_positions(self.LENGTHS, 192, read_auxiliary=read, seed=0)
        select_positions(self.LENGTHS, 192, selection="first", read_auxiliary=read)
        assert len(asked) == 3

    @settings(max_examples=60)
    @given(st.data())
    def test_hlc_first_like_its_plain_twin(self, data: st.DataObject) -> None:
        """HLC as many as fit, then others; whatever the mixture of events."""
        max_pulses = data.draw(st.integers(1, 12))
        shares = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=5))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        lengths = rng.integers(max_pulses + 1, 60, len(shares))
        flags = [rng.random(n) < p for n, p in zip(lengths, shares, strict=True)]
        _, position_EL = select_positions(
            *(lengths, max_pulses),
            selection="hlc_first",
            read_auxiliary=lambda event: flags[event],
            seed=data.draw(st.integers(0, 99)),
        )
        for flag, kept in zip(flags, position_EL, strict=True):
            assert (np.diff(kept) > 0).all()
            assert 0 <= kept[0] <= kept[-1] < len(flag)
            assert (~flag[kept]).sum() == min(max_pulses, (~flag).sum())

    def test_hlc_first_is_uniform_among_equals(self) -> None:
        flag = np.arange(70) % 7 > 0  # ten HLC pulses
        for max_pulses, equals, share in ((4, ~flag, 4 / 10), (25, flag, 15 / 60)):
            _, kept = select_positions(
                *(np.full(20_000, 70), max_pulses),
                selection="hlc_first",
                read_auxiliary=lambda event: flag,
                seed=1,
            )
            counts = np.bincount(kept.ravel(), minlength=70)
            chi2 = ((counts[equals] - 20_000 * share) ** 2).sum()
            freedom = equals.sum() - 1
            chi2 *= freedom / equals.sum() / (20_000 * share * (1 - share))
            assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5

    def test_a_million_long_pulses_cost_what_is_kept(self) -> None:
        """Nothing of the size of an event is made: this would not fit into memory."""
        _, position_EL = select_positions(np.full(100, 2**40), 192, seed=0)
        assert 0.4 < position_EL.mean() / 2**40 < 0.6

    @pytest.mark.parametrize("flag", [np.ones(6, bool), np.ones(300)])
    def test_wrong_flags(self, flag: NDArray[np.bool_]) -> None:
        with pytest.raises(ValueError, match=r"must give \(300,\) bool for event 0"):
            select_positions(
                *(np.array([300]), 192),
                selection="hlc_first",
                read_auxiliary=lambda event: flag,
            )

    def test_no_flags(self) -> None:
        with pytest.raises(ValueError, match="needs the auxiliary column"):
            select_positions(np.array([3]), 192, selection="hlc_first")


class TestErrors:
    def test_unknown_selection(self) -> None:
        with pytest.raises(
            ValueError, match=r"'last'; choose from uniform, hlc_first, first"
        ):
            select_pulses(make_offsets([3]), 2, selection="last")

    @pytest.mark.parametrize("max_pulses", [0, -1])
    def test_room_for_nothing(self, max_pulses: int) -> None:
        with pytest.raises(ValueError, match=f"at least 1, got {max_pulses}"):
            select_pulses(make_offsets([3]), max_pulses)

    @pytest.mark.parametrize("length", [5, 500])
    def test_no_flag_for_hlc_first(self, length: int) -> None:
        """Said whatever the events: not only once a long one comes by."""
        with pytest.raises(ValueError, match="needs the auxiliary column"):
            select_pulses(make_offsets([length]), 100, selection="hlc_first")
