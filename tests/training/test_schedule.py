"""The one-cycle schedule against fastai's formula, written out."""

from __future__ import annotations

import math

import pytest

from graphnet_icecube2nd.training.schedule import OneCycle


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
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0)
    steps, div, div_final = 200, 25.0, 10.0
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=1e-3,
        total_steps=steps + 1,
        pct_start=0.25,
        div_factor=div,
        final_div_factor=div_final / div,
        cycle_momentum=False,
    )
    ours = OneCycle(learning_rate=1e-3, div=div, div_final=div_final, pct_start=0.25)
    # torch rises for pct_start * total_steps - 1 steps.
    for step in (0, 49, 200):
        torchs.last_epoch = step - 1
        optimiser.step()
        torchs.step()
        if step != 49:
            found = torchs.get_last_lr()[0]
            assert found == pytest.approx(ours.learning_rate_at(step / steps), rel=1e-6)


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
