"""Fused linear layers against the plain operations they stand for."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from graphnet_icecube2nd.nn import linear
from graphnet_icecube2nd.nn.linear import linear_add, linear_gelu

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def make_case(
    num_tokens: int, dtype: torch.dtype
) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    torch.manual_seed(num_tokens)
    layer = nn.Linear(24, 20)
    scale, values = torch.randn(20), torch.randn(num_tokens, 24)
    summed = torch.randn(num_tokens, 20)
    return layer.to(dtype), scale.to(dtype), values.to(dtype), summed.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_tokens", [1, 2, 37, 101])
@pytest.mark.parametrize("fused", [True, False])
def test_fused_is_plain(
    num_tokens: int,
    dtype: torch.dtype,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not fused:
        monkeypatch.setattr(linear, "_fused_works", lambda dtype: False)
    layer, scale, values, summed = make_case(num_tokens, dtype)
    bent_wanted = nn.functional.gelu(layer(values))
    added_wanted = {True: summed + scale * layer(values), False: summed + layer(values)}
    with torch.no_grad():
        bent = linear_gelu(values, layer)
        added = {
            True: linear_add(values, layer, scale, summed),
            False: linear_add(values, layer, None, summed),
        }
    limit = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(bent, bent_wanted.detach(), **limit)
    for scaled in (True, False):
        torch.testing.assert_close(
            added[scaled], added_wanted[scaled].detach(), **limit
        )


def test_the_kernels_are_used_where_they_can_be() -> None:
    """Without gradients, and not where a gradient is wanted."""
    if not linear._fused_works(torch.float32):
        pytest.skip("this PyTorch has no fused kernels")
    layer, scale, values, summed = make_case(5, torch.float32)
    with patch.object(linear.F, "linear", side_effect=AssertionError):
        with torch.no_grad():
            linear_gelu(values, layer)
            linear_add(values, layer, scale, summed)
        with pytest.raises(AssertionError):
            linear_add(values, layer, scale, summed)


def test_a_pytorch_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, scale, values, summed = make_case(5, torch.float32)
    monkeypatch.setattr(linear, "_fused_works", lambda dtype: False)
    with torch.no_grad():
        bent = linear_gelu(values, layer)
        added = linear_add(values, layer, scale, summed)
    assert torch.equal(bent, nn.functional.gelu(layer(values)))
    torch.testing.assert_close(added, summed + scale * layer(values))


@pytest.mark.parametrize("grad", [True, False])
def test_autocast_rounds_branches_never_the_sum(grad: bool) -> None:
    layer, scale, values, summed = make_case(37, torch.float32)
    summed *= 1000
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        assert linear_gelu(values, layer).dtype == torch.bfloat16
        added = linear_add(values, layer, scale, summed)
    assert added.dtype == torch.float32
    wanted = (scale * layer(values)).detach()
    torch.testing.assert_close(added.detach() - summed, wanted, rtol=2e-2, atol=3e-2)


def test_gradients() -> None:
    """The scale goes into the weight; gradients are those of scaling the branch."""
    layer, scale, values, summed = make_case(7, torch.float64)
    inputs = [layer.weight, layer.bias, scale.requires_grad_(), values.requires_grad_()]
    ways = (
        linear_add(values, layer, scale, summed),
        summed + scale * layer(values),
    )
    found, wanted = (torch.autograd.grad(w.square().sum(), inputs) for w in ways)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
