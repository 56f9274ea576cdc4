"""The fused step against PyTorch's plain one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphnet_icecube2nd.training.optimisation import make_adamw


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3))
    model[0].bias.requires_grad_(False)
    return model


def test_fused_is_plain() -> None:
    fused, plain = make_model(), make_model()
    ours = make_adamw(fused.parameters(), learning_rate=1e-2)
    theirs = torch.optim.AdamW(
        [p for p in plain.parameters() if p.requires_grad],
        lr=1e-2,
        weight_decay=0.05,
        eps=1e-8,
        foreach=False,
    )
    assert ours.defaults["fused"]
    for step in range(20):
        values = torch.randn(11, 7, generator=torch.Generator().manual_seed(step))
        for model, optimiser in ((fused, ours), (plain, theirs)):
            optimiser.zero_grad()
            model(values).square().sum().backward()
            optimiser.step()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_arguments_are_used() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimiser = make_adamw([parameter], learning_rate=0.5, weight_decay=0.1, eps=1e-3)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.5, 0.1, 1e-3)


def test_frozen_parameters_are_left_out() -> None:
    model = make_model()
    (group,) = make_adamw(model.parameters(), learning_rate=1e-3).param_groups
    assert len(group["params"]) == 3


def test_not_fused_elsewhere() -> None:
    parameter = nn.Parameter(torch.ones(2, device="meta"))
    assert not make_adamw([parameter], learning_rate=1e-3).defaults["fused"]


def test_nothing_to_train() -> None:
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        make_adamw(model.parameters(), learning_rate=1e-3)
