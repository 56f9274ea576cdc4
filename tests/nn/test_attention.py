"""Attention against its plain twin, `nn.MultiheadAttention`, and the formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphnet_icecube2nd.nn.attention import (
    IntervalTerm,
    RelativeAttention,
    SelfAttention,
    interval_attention,
    plain_interval_attention,
)
from graphnet_icecube2nd.nn.embedding import SpaceTimeInterval
from graphnet_icecube2nd.nn.packing import Packing

# Largest deviation of outputs and gradients, relative to their largest entry.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
EVERYTHING_AT_ONCE = 2**40
PRIMES = [1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]


class Case(NamedTuple):
    q_BNLH: Tensor
    k_BNLH: Tensor
    v_BNLH: Tensor
    valid_BL: Tensor
    term: IntervalTerm


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
    longest = max(lengths)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    shape = (len(lengths), num_heads, longest, head_size)
    q, k, v = (draw(*shape).requires_grad_() for _ in range(3))
    packing = make_packing(lengths)
    events_BL4 = 0.3 * draw(len(lengths), longest, 4)
    events_BL4 *= packing.valid_BL[..., None]
    interval = SpaceTimeInterval(head_size).to(dtype)
    with torch.no_grad():
        for parameter in interval.parameters():
            parameter.copy_(draw(*parameter.shape))
    return Case(q, k, v, packing.valid_BL, IntervalTerm(interval, events_BL4))


def run(
    attend: Callable[..., Tensor], case: Case, *further: int
) -> tuple[Tensor, list[Tensor]]:
    """Return the output at real tokens, and the gradients of a scalar of it."""
    out_BNLH = attend(*case, *further)
    at_tokens = out_BNLH.transpose(1, 2)[case.valid_BL]
    generator = torch.Generator().manual_seed(99)
    weight = torch.randn(at_tokens.shape, generator=generator, dtype=torch.float64)
    project = case.term.interval.project
    inputs = [case.q_BNLH, case.k_BNLH, case.v_BNLH, project.weight, project.bias]
    scalar = (at_tokens * weight.to(at_tokens)).sum()
    return at_tokens.detach(), list(torch.autograd.grad(scalar, inputs))


def deviation(found: Tensor, wanted: Tensor) -> float:
    size = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    return float((found - wanted).abs().max() / size)


def check_against_plain(case: Case, tile_numbers: int) -> None:
    tolerance = TOLERANCE[case.q_BNLH.dtype]
    wanted, wanted_gradients = run(plain_interval_attention, case)
    found, gradients = run(interval_attention, case, tile_numbers)
    assert found.dtype == case.q_BNLH.dtype
    assert deviation(found, wanted) < tolerance
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        # Of a one-pulse event q and k have no gradient at all: compare with 1 then.
        size = other.abs().max().clamp_min(1.0)
        assert (gradient - other).abs().max() < tolerance * size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("lengths", [[1], [2], [13], [17, 1, 5], [7, 11, 31, 2, 1]])
def test_fast_is_plain(lengths: list[int], rows: int, dtype: torch.dtype) -> None:
    """Rows of a tile: one, odd numbers that do not divide the length, all at once."""
    case = make_case(lengths, dtype=dtype)
    num_events, _, longest, head_size = case.q_BNLH.shape
    check_against_plain(case, rows * num_events * longest * head_size)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.sampled_from(PRIMES), min_size=1, max_size=5),
    num_heads=st.sampled_from([1, 2, 3]),
    head_size=st.sampled_from([2, 4, 6, 32]),
    tile_numbers=st.sampled_from([1, 997, 2**12, EVERYTHING_AT_ONCE]),
    seed=st.integers(0, 2**31),
)
def test_fast_is_plain_at_any_size(
    lengths: list[int], num_heads: int, head_size: int, tile_numbers: int, seed: int
) -> None:
    check_against_plain(make_case(lengths, seed, num_heads, head_size), tile_numbers)


def test_no_gradient_no_difference() -> None:
    case = make_case([11, 5])
    wanted = interval_attention(*case, 1)
    with torch.no_grad():
        assert torch.equal(interval_attention(*case, 1), wanted)


def test_formula() -> None:
    """Query by query, key by key, as the published code has it."""
    case = make_case([4, 2], num_heads=2)
    head_size = case.q_BNLH.shape[-1]
    with torch.no_grad():
        found = interval_attention(*case)
        relative_BLLC = case.term.interval(case.term.events_BL4, case.term.events_BL4)
        for event, length in ((0, 4), (1, 2)):
            for head in range(2):
                q, k, v = (t[event, head] for t in case[:3])
                for i in range(length):
                    scores = [
                        (q[i] / head_size**0.5) @ (k[j] + relative_BLLC[event, i, j])
                        for j in range(length)
                    ]
                    weight = torch.stack(scores).softmax(0)
                    wanted = sum(
                        weight[j] * (v[j] + relative_BLLC[event, i, j])
                        for j in range(length)
                    )
                    torch.testing.assert_close(found[event, head, i], wanted)


def test_padding_never_speaks() -> None:
    case = make_case([13, 5, 1], dtype=torch.float32)
    wanted, _ = run(interval_attention, case)
    silent_B1L1 = ~case.valid_BL[:, None, :, None]
    noisy = [
        torch.where(silent_B1L1, 1e3, tensor).detach().requires_grad_()
        for tensor in case[:3]
    ]
    events_BL4 = torch.where(silent_B1L1[:, 0], 1.7, case.term.events_BL4)
    term = IntervalTerm(case.term.interval, events_BL4)
    changed = Case(*noisy, case.valid_BL, term)
    found, (_, k_gradient, v_gradient, *_) = run(interval_attention, changed)
    assert torch.equal(found, wanted)
    for gradient in (k_gradient, v_gradient):
        assert (gradient.masked_fill(~silent_B1L1, 0.0) == 0).all()


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


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_no_table_of_pairs_is_remembered(rows: int) -> None:
    """Neither (B, L, L, C) nor (B, N, L, L), in one piece or in many."""
    case = make_case([127, 59], head_size=8, dtype=torch.float32)
    num_events, _, longest, head_size = case.q_BNLH.shape
    pairs = num_events * longest * longest
    tile_numbers = num_events * rows * longest * head_size
    assert numbers_remembered(interval_attention, *case, tile_numbers) < pairs
    # The hooks do see what the plain form keeps.
    assert numbers_remembered(plain_interval_attention, *case) >= pairs * head_size


def test_softmax_is_wide_enough_in_half_precision() -> None:
    case = make_case([31, 7], dtype=torch.float32, head_size=8)
    wanted, wanted_gradients = run(interval_attention, case)
    with torch.autocast("cpu", torch.bfloat16):
        found, gradients = run(interval_attention, case)
    # bfloat16 has 8 bits; scores of a few units are off by a few percent.
    assert deviation(found.float(), wanted) < 0.05
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert deviation(gradient, other) < 0.1


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
        events_BL4 = packing.pad(torch.randn(sum(lengths), 4, dtype=torch.float64))
        term = IntervalTerm(interval, events_BL4)
        torch.testing.assert_close(
            attention(latent_TD, packing, term), attention(latent_TD, packing)
        )

    def test_the_term_matters(self) -> None:
        torch.manual_seed(0)
        attention, interval = RelativeAttention(24, 3), SpaceTimeInterval(8)
        packing = make_packing([7, 5])
        latent_TD, events_T4 = torch.randn(12, 24), torch.randn(12, 4)
        without = attention(latent_TD, packing)
        term = IntervalTerm(interval, packing.pad(events_T4))
        assert not torch.allclose(attention(latent_TD, packing, term), without)

    def test_events_do_not_see_each_other(self) -> None:
        torch.manual_seed(0)
        attention, interval = RelativeAttention(24, 3), SpaceTimeInterval(8)
        lengths = [7, 1, 13]
        packing = make_packing(lengths)
        latent_TD, events_T4 = torch.randn(21, 24), torch.randn(21, 4)
        term = IntervalTerm(interval, packing.pad(events_T4))
        together = attention(latent_TD, packing, term).split(lengths)
        places = zip(latent_TD.split(lengths), events_T4.split(lengths), strict=True)
        for found, (latent, events) in zip(together, places, strict=True):
            alone = IntervalTerm(interval, events[None])
            wanted = attention(latent, make_packing([len(latent)]), alone)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
