"""The one-cycle schedule against fastai's formula, written out."""

from __future__ import annotations

import math

import pytest

from graphnet_icecube2nd.training.optimisation import OneCycle


def test_end_points() -> None:
    cycle = OneCycle(learning_rate=5e-4, div=25.0, div_final=10.0)
    assert cycle.learning_rate_at(0.0) == pytest.approx(2e-5)
    assert cycle.learning_rate_at(0.01) == pytest.approx(5e-4)
    assert cycle.learning_rate_at(1.0) == pytest.approx(5e-5)
    momenta = [cycle.momentum_at(share) for share in (0.0, 0.01, 1.0)]
    assert momenta == pytest.approx([0.95, 0.85, 0.95])


@pytest.mark.parametrize("share", [0.001, 0.006, 0.02, 0.37, 0.9])
def test_cosines(share: float) -> None:
    """fastai's combined_cos(pct, start, middle, end)."""
    cycle = OneCycle(learning_rate=1.0, div=4.0, div_final=8.0, pct_start=0.1)

    def cosine(position: float, begin: float, end: float) -> float:
        return begin + (1 + math.cos(math.pi * (1 - position))) * (end - begin) / 2

    if share < 0.1:
        expected = cosine(share / 0.1, 0.25, 1.0)
    else:
        expected = cosine((share - 0.1) / 0.9, 1.0, 0.125)
    assert cycle.learning_rate_at(share) == pytest.approx(expected)


def test_it_is_torchs_schedule_with_its_other_final_divisor() -> None:
    """Rates and momenta of all steps, where both rise for as many."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0)
    steps, rising, div, div_final = 200, 50, 25.0, 10.0
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=1e-3,
        total_steps=steps + 1,
        pct_start=(rising + 1) / (steps + 1),  # torch rises for one step less
        div_factor=div,
        final_div_factor=div_final / div,
        base_momentum=0.85,
        max_momentum=0.95,
    )
    ours = OneCycle(
        learning_rate=1e-3,
        div=div,
        div_final=div_final,
        momenta=(0.95, 0.85, 0.95),
        pct_start=rising / steps,
    )
    found = []
    for step in range(steps + 1):
        (group,) = optimiser.param_groups
        found.append(group["lr"])
        share = step / steps
        assert group["lr"] == pytest.approx(ours.learning_rate_at(share), rel=1e-6)
        assert group["betas"][0] == pytest.approx(ours.momentum_at(share), rel=1e-6)
        optimiser.step()
        if step < steps:
            torchs.step()
    assert max(found) == found[rising] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"div": -1.0}, "div must be above 0"),
        ({"momenta": (0.9, 1.0, 0.9)}, "momenta must be three numbers"),
        ({"momenta": (0.9, 0.8)}, "momenta must be three numbers"),
        ({"pct_start": 1.0}, "pct_start must be between 0 and 1"),
    ],
)
def test_wrong_values(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycle(**{"learning_rate": 1e-3, **changes})
