"""Packed to padded and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphnet_icecube2nd.nn.packing import Packing

event_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def make_offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def make_values(num_tokens: int, width: int = 3) -> Tensor:
    """Numbers that are all different and never zero."""
    return torch.arange(1.0, 1 + num_tokens * width).reshape(num_tokens, width)


@given(event_lengths)
def test_pad_and_unpad(lengths: list[int]) -> None:
    offsets = make_offsets(lengths)
    packing = Packing(offsets)
    values_TF = make_values(sum(lengths))
    padded_BLF = packing.pad(values_TF)
    assert padded_BLF.shape == (len(lengths), max(lengths), 3)
    for event, (start, stop) in enumerate(pairwise(offsets.tolist())):
        length = stop - start
        assert torch.equal(padded_BLF[event, :length], values_TF[start:stop])
        assert (padded_BLF[event, length:] == 0).all()
        assert packing.valid_BL[event].tolist() == [
            slot < length for slot in range(max(lengths))
        ]
        assert (packing.event_T[start:stop] == event).all()
    assert torch.equal(packing.unpad(padded_BLF), values_TF)
    assert packing.lengths_B.tolist() == lengths
    assert packing.longest == max(lengths)


@given(event_lengths)
def test_any_further_dimensions(lengths: list[int]) -> None:
    packing = Packing(make_offsets(lengths))
    for shape in ((), (2,), (2, 1, 3)):
        values = torch.randn(sum(lengths), *shape)
        padded = packing.pad(values)
        assert padded.shape == (len(lengths), max(lengths), *shape)
        assert torch.equal(packing.unpad(padded), values)


@given(event_lengths)
def test_class_token(lengths: list[int]) -> None:
    offsets = make_offsets(lengths)
    packing = Packing(offsets)
    latent_TD, token_D = make_values(sum(lengths)), torch.tensor([-1.0, -2.0, -3.0])
    grown_TD = packing.prepend(token_D, latent_TD)
    with_token = packing.with_class_token()
    assert with_token.lengths_B.tolist() == [length + 1 for length in lengths]
    assert len(grown_TD) == int(with_token.offsets[-1])
    grown = grown_TD.split(with_token.lengths_B.tolist())
    for event, (start, stop) in enumerate(pairwise(offsets.tolist())):
        assert torch.equal(grown[event][0], token_D)
        assert torch.equal(grown[event][1:], latent_TD[start:stop])


def test_gradients_reach_every_token() -> None:
    packing = Packing(make_offsets([2, 1, 5]))
    values_TF = make_values(8).requires_grad_()
    packing.unpad(packing.pad(values_TF)).pow(2).sum().backward()
    torch.testing.assert_close(values_TF.grad, 2 * values_TF.detach())
    token_D, latent_TD = torch.ones(3, requires_grad=True), make_values(8)
    latent_TD.requires_grad_()
    packing.prepend(token_D, latent_TD).sum().backward()
    assert token_D.grad.tolist() == [3.0] * 3  # one for each event
    assert (latent_TD.grad == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.bool])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    packing = Packing(make_offsets([2, 3]))
    assert packing.pad(torch.ones(5, 2, dtype=dtype)).dtype == dtype


def test_a_token_takes_the_dtype_of_its_event() -> None:
    # Under autocast the pulses are bfloat16 and the class token is not.
    packing = Packing(make_offsets([2]))
    grown_TD = packing.prepend(torch.ones(3), torch.ones(2, 3, dtype=torch.bfloat16))
    assert grown_TD.dtype == torch.bfloat16
