"""Attention against its plain twin, `nn.MultiheadAttention`, and the formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphnet_icecube2nd.nn import event_attention, interval_attention
from graphnet_icecube2nd.nn.block import RelativeAttention, SelfAttention
from graphnet_icecube2nd.nn.embedding import SpaceTimeInterval
from graphnet_icecube2nd.nn.event_attention import (
    attend,
    collect,
    padded_attention,
    padded_collect,
)
from graphnet_icecube2nd.nn.interval_attention import (
    IntervalTerm,
    Layout,
    attend_with_interval,
    plain_interval_attention,
    sinusoids_of_pairs,
)
from graphnet_icecube2nd.nn.packing import Packing

# Largest deviation of outputs and gradients, relative to their largest entry.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
PRIMES = [1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]


class Case(NamedTuple):
    qkv_T3NH: Tensor
    term: IntervalTerm
    packing: Packing


def make_packing(lengths: list[int]) -> Packing:
    return Packing(torch.tensor([0, *lengths]).cumsum(0))


def make_case(
    lengths: list[int],
    seed: int = 0,
    num_heads: int = 3,
    head_size: int = 4,
    dtype: torch.dtype = torch.float64,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    qkv_T3NH = draw(sum(lengths), 3, num_heads, head_size).requires_grad_()
    places_T4 = 0.3 * draw(sum(lengths), 4)
    interval = SpaceTimeInterval(head_size).to(dtype)
    with torch.no_grad():
        for parameter in interval.parameters():
            parameter.copy_(draw(*parameter.shape))
    return Case(qkv_T3NH, IntervalTerm(interval, places_T4), make_packing(lengths))


def with_gradients(
    attended: Tensor, inputs: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the gradients of a scalar of it."""
    generator = torch.Generator().manual_seed(99)
    weight = torch.randn(attended.shape, generator=generator, dtype=torch.float64)
    scalar = (attended * weight.to(attended)).sum()
    return attended.detach(), list(torch.autograd.grad(scalar, inputs))


def run(attend: Callable[..., Tensor], case: Case) -> tuple[Tensor, list[Tensor]]:
    project = case.term.interval.project
    inputs = [case.qkv_T3NH, project.weight, project.bias]
    return with_gradients(attend(*case), inputs)


def deviation(found: Tensor, wanted: Tensor) -> float:
    size = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    return float((found - wanted).abs().max() / size)


def check_same(
    found: tuple[Tensor, list[Tensor]],
    wanted: tuple[Tensor, list[Tensor]],
    tolerance: float,
) -> None:
    assert found[0].dtype == wanted[0].dtype
    assert deviation(found[0], wanted[0]) < tolerance
    for gradient, other in zip(found[1], wanted[1], strict=True):
        # Of a one-pulse event q and k have no gradient at all: compare with 1 then.
        size = other.abs().max().clamp_min(1.0)
        assert (gradient - other).abs().max() < tolerance * size


class TestIntervalAttention:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("tile_numbers", [1, 97, 1009, 2**22])
    @pytest.mark.parametrize("lengths", [[1], [2], [13], [17, 1, 5], [7, 11, 31, 2, 1]])
    def test_fast_is_plain(
        self,
        lengths: list[int],
        tile_numbers: int,
        dtype: torch.dtype,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Rows of a tile: one, odd numbers that do not divide the length, all."""
        monkeypatch.setattr(interval_attention, "TILE_NUMBERS", tile_numbers)
        case = make_case(lengths, dtype=dtype)
        wanted = run(plain_interval_attention, case)
        check_same(run(attend_with_interval, case), wanted, TOLERANCE[dtype])

    @settings(max_examples=40)
    @given(
        lengths=st.lists(st.sampled_from(PRIMES), min_size=1, max_size=5),
        num_heads=st.sampled_from([1, 2, 3]),
        head_size=st.sampled_from([2, 4, 6, 32]),
        tile_numbers=st.sampled_from([1, 997, 2**12, 2**22]),
        kept=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def test_fast_is_plain_at_any_size(
        self,
        lengths: list[int],
        num_heads: int,
        head_size: int,
        tile_numbers: int,
        kept: bool,
        seed: int,
    ) -> None:
        case = make_case(lengths, seed, num_heads, head_size)
        wanted = run(plain_interval_attention, case)
        if kept:
            waves = sinusoids_of_pairs(case.term.places_T4, case.packing, head_size)
            case = case._replace(term=case.term._replace(kept_P=waves))
        with patch.object(interval_attention, "TILE_NUMBERS", tile_numbers):
            found = run(attend_with_interval, case)
        check_same(found, wanted, TOLERANCE[torch.float64])

    @pytest.mark.parametrize("kept", [False, True])
    @pytest.mark.parametrize("tile_numbers", [1, 1009, 2**22])
    def test_as_on_a_gpu(
        self, tile_numbers: int, kept: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Padded, rows of all events at once: what other devices than a CPU run."""
        monkeypatch.setattr(interval_attention, "TILE_NUMBERS", tile_numbers)
        case = make_case([7, 11, 31, 2, 1])
        wanted = run(plain_interval_attention, case)
        layout = Layout([slice(None)], case.packing)
        monkeypatch.setattr(Layout, "of", lambda packed, offsets: layout)
        if kept:
            waves = sinusoids_of_pairs(case.term.places_T4, case.packing, 4)
            case = case._replace(term=case.term._replace(kept_P=waves))
        check_same(run(attend_with_interval, case), wanted, TOLERANCE[torch.float64])

    def test_too_many_pairs_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        case = make_case([13, 2])
        monkeypatch.setattr(interval_attention, "KEPT_NUMBERS", (13**2 + 2**2) * 4)
        assert sinusoids_of_pairs(case.term.places_T4, case.packing, 4) is not None
        assert sinusoids_of_pairs(case.term.places_T4, case.packing, 6) is None

    def test_gradient_of_places(self) -> None:
        """A study of what a prediction hangs on gets the plain form."""
        case = make_case([5, 3])
        places_T4 = case.term.places_T4.requires_grad_()
        attended = attend_with_interval(*case)
        (gradient,) = torch.autograd.grad(attended.sum(), places_T4)
        assert (gradient != 0).any()

    def test_no_gradient_no_difference(self) -> None:
        case = make_case([11, 5])
        wanted = attend_with_interval(*case)
        with torch.no_grad():
            assert torch.equal(attend_with_interval(*case), wanted)

    def test_formula(self) -> None:
        """Query by query, key by key, as the published code has it."""
        case = make_case([4, 2], num_heads=2)
        head_size = case.qkv_T3NH.shape[-1]
        with torch.no_grad():
            found_TNH = attend_with_interval(*case)
            for start, stop in ((0, 4), (4, 6)):
                places = case.term.places_T4[None, start:stop]
                relative_LLC = case.term.interval(places, places)[0]
                for head in range(2):
                    q, k, v = case.qkv_T3NH[start:stop, :, head].unbind(1)
                    for i in range(stop - start):
                        key_LH = k + relative_LLC[i]
                        weight_L = (key_LH @ (q[i] / head_size**0.5)).softmax(0)
                        wanted = weight_L @ (v + relative_LLC[i])
                        torch.testing.assert_close(found_TNH[start + i, head], wanted)

    def test_softmax_is_wide_enough_in_half_precision(self) -> None:
        case = make_case([31, 7], dtype=torch.float32, head_size=8)
        wanted = run(attend_with_interval, case)
        half = case._replace(qkv_T3NH=case.qkv_T3NH.detach().bfloat16())
        half.qkv_T3NH.requires_grad_()
        attended, gradients = run(attend_with_interval, half)
        assert attended.dtype == torch.bfloat16
        # Only the inputs and the result are rounded: 8 bits.
        assert deviation(attended.float(), wanted[0]) < 0.05
        for gradient, other in zip(gradients, wanted[1], strict=True):
            assert deviation(gradient.float(), other) < 0.05


def numbers_remembered(attend: Callable[..., Tensor], *arguments: object) -> int:
    """How many numbers, in all, are kept for the backward pass."""
    numbers: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        numbers[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        attended = attend(*arguments)  # held, so that no address is used twice
    assert attended.requires_grad
    return sum(numbers.values())


def test_no_table_of_pairs_is_remembered() -> None:
    """Neither (B, L, L, C) nor (B, N, L, L), in one piece or in many."""
    case = make_case([127, 59], head_size=8, dtype=torch.float32)
    pairs = 127**2 + 59**2
    assert numbers_remembered(attend_with_interval, *case) < pairs
    assert numbers_remembered(attend, case.qkv_T3NH, case.packing) < pairs
    # The hooks do see what the plain form keeps.
    assert numbers_remembered(plain_interval_attention, *case) >= pairs * 8


class TestEventAttention:
    @pytest.mark.parametrize("longest_short", [0, 7, 256])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("lengths", [[1], [13], [17, 1, 5], [7, 11, 31, 2, 1]])
    def test_fast_is_plain(
        self,
        lengths: list[int],
        dtype: torch.dtype,
        longest_short: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Through batched products (short events), the tiled kernel (long), both."""
        monkeypatch.setattr(event_attention, "LONGEST_SHORT", longest_short)
        case = make_case(lengths, dtype=dtype)
        found, wanted = (
            with_gradients(way(case.qkv_T3NH, case.packing), [case.qkv_T3NH])
            for way in (attend, padded_attention)
        )
        check_same(found, wanted, TOLERANCE[dtype])

    @pytest.mark.parametrize("longest_short", [0, 256])
    def test_bfloat16(
        self, longest_short: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_attention, "LONGEST_SHORT", longest_short)
        case = make_case([31, 7], dtype=torch.float32, head_size=8)
        wanted = with_gradients(attend(case.qkv_T3NH, case.packing), [case.qkv_T3NH])
        half = case.qkv_T3NH.detach().bfloat16().requires_grad_()
        found = with_gradients(attend(half, case.packing), [half])
        assert found[0].dtype == torch.bfloat16
        assert deviation(found[0].float(), wanted[0]) < 0.05
        assert deviation(found[1][0].float(), wanted[1][0]) < 0.05


class TestClassAttention:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("lengths", [[1], [13], [7, 11, 31, 2, 1]])
    def test_fast_is_plain(self, lengths: list[int], dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        packing = make_packing(lengths)
        inputs = [
            torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()
            for shape in ((len(lengths), 3, 12), (sum(lengths), 12))
        ]
        found, wanted = (
            with_gradients(way(*inputs, packing), inputs)
            for way in (collect, padded_collect)
        )
        check_same(found, wanted, TOLERANCE[dtype])

    @pytest.mark.parametrize("lengths", [[1], [13, 1, 7]])
    def test_is_the_first_row_of_all(self, lengths: list[int]) -> None:
        """Keys and values that are never made change nothing."""
        torch.manual_seed(0)
        attention, packing = SelfAttention(24, 3).double(), make_packing(lengths)
        nn.init.normal_(attention.qkv.bias)
        latent_TD = torch.randn(sum(lengths), 24, dtype=torch.float64)
        latent_TD.requires_grad_()
        inputs = [latent_TD, attention.qkv.weight, attention.qkv.bias]
        first = attention.first_before_last(latent_TD, packing)
        every = attention.before_last(latent_TD, packing)
        wanted = with_gradients(every[packing.offsets[:-1]], inputs)
        check_same(with_gradients(first, inputs), wanted, 1e-10)


class TestSelfAttention:
    def test_is_torchs(self) -> None:
        lengths, dim, num_heads = [13, 1, 7], 24, 3
        torch.manual_seed(0)
        ours = SelfAttention(dim, num_heads).double()
        theirs = nn.MultiheadAttention(dim, num_heads, batch_first=True).double()
        with torch.no_grad():
            theirs.in_proj_weight.copy_(ours.qkv.weight)
            theirs.in_proj_bias.copy_(ours.qkv.bias)
            theirs.out_proj.weight.copy_(ours.output.weight)
            theirs.out_proj.bias.copy_(ours.output.bias)
        packing = make_packing(lengths)
        latent_TD = torch.randn(sum(lengths), dim, dtype=torch.float64)
        latent_TD.requires_grad_()
        found_TD = ours(latent_TD, packing)
        padded = packing.pad(latent_TD)
        wanted_BLD, _ = theirs(
            *(padded, padded, padded),
            key_padding_mask=~packing.valid_BL,  # torch masks what we keep
            need_weights=False,
        )
        wanted_TD = packing.unpad(wanted_BLD)
        torch.testing.assert_close(found_TD, wanted_TD, rtol=1e-10, atol=1e-12)
        weight = torch.randn_like(found_TD)
        for one, other in (
            (latent_TD, latent_TD),
            (ours.qkv.weight, theirs.in_proj_weight),
            (ours.output.weight, theirs.out_proj.weight),
        ):
            found, *_ = torch.autograd.grad(found_TD, one, weight, retain_graph=True)
            wanted, *_ = torch.autograd.grad(
                wanted_TD, other, weight, retain_graph=True
            )
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


class TestRelativeAttention:
    @pytest.mark.parametrize("lengths", [[1], [11], [7, 1, 13]])
    def test_without_the_term(self, lengths: list[int]) -> None:
        """A term whose map is zero is no term at all."""
        torch.manual_seed(0)
        attention = RelativeAttention(24, 3).double()
        packing = make_packing(lengths)
        latent_TD = torch.randn(sum(lengths), 24, dtype=torch.float64)
        interval = SpaceTimeInterval(8).double()
        nn.init.zeros_(interval.project.weight)
        nn.init.zeros_(interval.project.bias)
        term = IntervalTerm(interval, torch.randn(sum(lengths), 4, dtype=torch.float64))
        torch.testing.assert_close(
            attention(latent_TD, packing, term), attention(latent_TD, packing)
        )

    def test_the_term_matters(self) -> None:
        torch.manual_seed(0)
        attention, interval = RelativeAttention(24, 3), SpaceTimeInterval(8)
        packing = make_packing([7, 5])
        latent_TD, events_T4 = torch.randn(12, 24), torch.randn(12, 4)
        without = attention(latent_TD, packing)
        term = IntervalTerm(interval, events_T4)
        assert not torch.allclose(attention(latent_TD, packing, term), without)

    def test_events_do_not_see_each_other(self) -> None:
        torch.manual_seed(0)
        attention, interval = RelativeAttention(24, 3), SpaceTimeInterval(8)
        lengths = [7, 1, 13]
        packing = make_packing(lengths)
        latent_TD, events_T4 = torch.randn(21, 24), torch.randn(21, 4)
        term = IntervalTerm(interval, events_T4)
        together = attention(latent_TD, packing, term).split(lengths)
        places = zip(latent_TD.split(lengths), events_T4.split(lengths), strict=True)
        for found, (latent, events) in zip(together, places, strict=True):
            alone = IntervalTerm(interval, events)
            wanted = attention(latent, make_packing([len(latent)]), alone)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
