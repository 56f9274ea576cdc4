"""Losses of numbers with widths and of classes: values, minima, wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphnet_icecube2nd import build_task
from graphnet_icecube2nd.tasks.losses import (
    CLASS_LOSSES,
    HALF_WIDTHS,
    WIDTH_LOSSES,
    class_loss,
)


@pytest.mark.parametrize("name", WIDTH_LOSSES)
@pytest.mark.parametrize("dim", [1, 3])
def test_densities_and_quantiles(name: str, dim: int) -> None:
    """Student t and normal integrate to 1; each is least at the right scale."""
    loss, rng = WIDTH_LOSSES[name], np.random.default_rng(0)
    if name != "quantile":
        # Importance sampling with a wide normal distribution.
        wide = 6.0
        x = torch.from_numpy(wide * rng.standard_normal((400_000, dim)))
        log_sampled = -(x**2).sum(1) / (2 * wide**2) - dim * np.log(
            wide * np.sqrt(2 * np.pi)
        )
        density = torch.exp(-loss(x, torch.full((len(x),), 1.3)) - log_sampled)
        assert float(density.mean()) == pytest.approx(1.0, abs=0.02)
    noise = rng.standard_normal((40_000, dim))
    if name == "student":  # its own distribution
        noise /= np.sqrt(rng.chisquare(4, (40_000, 1)) / 4)
    residual = torch.from_numpy(2.0 * noise)
    scales = np.geomspace(1.0, 4.0, 41)
    values = [
        float(loss(residual, torch.full((len(noise),), scale)).mean())
        for scale in scales
    ]
    best = scales[int(np.argmin(values))] * HALF_WIDTHS[name]
    expected = float(np.quantile(np.abs(residual.numpy()), 0.68))
    assert best == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("task", ["energy", "visible_energy", "inelasticity", "vertex"])
def test_tasks_take_every_likelihood(task: str) -> None:
    for name in WIDTH_LOSSES:
        built = build_task(task, likelihood=name)
        assert built.describe() == {"likelihood": name}
    with pytest.raises(ValueError, match=r"likelihood .*'pinball'"):
        build_task(task, likelihood="pinball")


@pytest.mark.parametrize("task", ["track", "neutrino", "topology"])
def test_tasks_take_every_loss_of_classes(task: str) -> None:
    output = torch.randn(7, build_task(task).num_outputs)
    target = torch.tensor([0.0, 1, 1, 0, 1, 0, 0])
    losses = [build_task(task, loss=name).loss(output, target) for name in CLASS_LOSSES]
    assert all(one.shape == (7,) for one in losses)
    assert len({float(one.sum()) for one in losses}) == len(CLASS_LOSSES)
    with pytest.raises(ValueError, match=r"loss .*'hinge'"):
        build_task(task, loss="hinge")


def test_values_of_class_losses() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]])
    target = torch.tensor([1.0])
    value = {n: float(class_loss(n, p.log() + 5.0, target)) for n in CLASS_LOSSES}
    assert value["cross_entropy"] == pytest.approx(-np.log(0.2))
    assert value["focal"] == pytest.approx(-(0.8**2) * np.log(0.2))
    mean = np.mean(np.log([0.7, 0.2, 0.1]))
    assert value["smooth"] == pytest.approx(-0.9 * np.log(0.2) - 0.1 * mean)
    assert value["generalised"] == pytest.approx((1 - 0.2**0.7) / 0.7)
    # Sure and wrong: finite, with a gradient that is finite.
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)
    for name in CLASS_LOSSES:
        class_loss(name, logits, torch.tensor([1.0])).sum().backward()
    assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]


def test_a_robust_loss_stands_wrong_labels() -> None:
    """Of 10% of the labels the class is another one; the true ones are asked."""
    generator = torch.Generator().manual_seed(1)
    centre = 2.0 * torch.eye(3, 10)
    true = torch.randint(3, (900,), generator=generator)
    x = centre[true] + torch.randn(900, 10, generator=generator)
    train, test = slice(0, 300), slice(300, 900)
    moved = torch.rand(900, generator=generator) < 0.1
    label = torch.where(moved, (true + 1) % 3, true).float()
    rate = {}
    for name in ("cross_entropy", "generalised"):
        for labels, what in ((true.float(), "right"), (label, "wrong")):
            torch.manual_seed(0)
            layers = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
            optimiser = torch.optim.Adam(layers.parameters(), lr=0.01)
            for _ in range(300):
                optimiser.zero_grad()
                class_loss(name, layers(x[train]), labels[train]).mean().backward()
                optimiser.step()
            is_right = layers(x[test]).argmax(dim=1) == true[test]
            rate[name, what] = float(is_right.float().mean())
    lost = {
        name: rate[name, "right"] - rate[name, "wrong"]
        for name in ("cross_entropy", "generalised")
    }
    assert lost["cross_entropy"] > 0.04
    assert lost["generalised"] < 0.5 * lost["cross_entropy"]
