"""What training does to weights: learning rates, their average, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore, load_model, simulate
from graphnet_icecube2nd.simulation import SimulationConfig
from graphnet_icecube2nd.training.module import TrainingModule
from graphnet_icecube2nd.training.recipe import Recipe, overridden
from graphnet_icecube2nd.training.run import first_model, train
from graphnet_icecube2nd.training.trainer import TrainerConfig


def one_stage(recipe: Recipe) -> Recipe:
    return replace(recipe, stages=recipe.stages[:1])


def test_the_average_follows_micro_batches(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fastxtend moves it with each of them; two make a step here."""
    step, seen = TrainingModule.optimizer_step, []

    def noted(self: TrainingModule, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        seen.append(self.model.class_token.detach().clone())

    monkeypatch.setattr(TrainingModule, "optimizer_step", noted)
    train(
        one_stage(tiny), simulated, tmp_path / "run", machine=quiet,
        overrides=["stages.0.ema=true", "stages.0.ema_decay=0.9"],
    )  # fmt: skip
    average = first_model(tiny).class_token.detach().clone()
    for weights in seen:
        for _ in range(2):
            average = 0.9 * average + 0.1 * weights
    assert len(seen) == 8
    kept = load_model(tmp_path / "run" / "stage_0" / "last.safetensors").class_token
    torch.testing.assert_close(kept, average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(kept, seen[-1], rtol=1e-3)


def test_every_step_has_its_learning_rate_and_momentum(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As AdamW has them when it steps: those of the one-cycle, stage by stage."""
    applied: list[list[tuple[float, float]]] = [[], []]
    step = TrainingModule.optimizer_step

    def noted(
        self: TrainingModule, epoch: int, index: int, optimizer: Any, closure: Any
    ) -> None:
        inner = optimizer.optimizer.step

        def stepped(closure: Any = None) -> Any:
            result = inner(closure)  # calls the closure first, as torch's does
            group = optimizer.optimizer.param_groups[0]
            stage = int(self.stage.ema)
            applied[stage].append((group["lr"], group["betas"][0]))
            return result

        optimizer.optimizer.step = stepped
        try:
            step(self, epoch, index, optimizer, closure)
        finally:
            optimizer.optimizer.step = inner

    monkeypatch.setattr(TrainingModule, "optimizer_step", noted)
    given = ["stages.0.pct_start=0.4", "stages.1.div_final=3"]
    recipe = overridden(tiny, given)
    run = train(recipe, simulated, tmp_path / "run", machine=quiet)
    for number, stage in enumerate(recipe.stages):
        cycle, steps = stage.schedule(), run.rows[2 * number + 1]["step"]
        assert steps == 8
        assert applied[number] == [
            (cycle.learning_rate_at(n / steps), cycle.momentum_at(n / steps))
            for n in range(steps)
        ]


def test_it_learns(tiny: Recipe, quiet: TrainerConfig, tmp_path: Path) -> None:
    """In a few seconds, from 200 muons from above: better than at first or a guess."""
    from_above = SimulationConfig(fractions={"muon_bundle": 1.0})
    simulate(tmp_path / "store", num_events=256, config=from_above, workers=1)
    run = train(
        one_stage(tiny), tmp_path / "store", tmp_path / "run",
        machine=replace(quiet, checkpoint_steps=None),
        overrides=[
            "stages.0.epochs=12",
            "stages.0.pct_start=0.2",
            "stages.0.accumulate_events=16",
            "data.num_sub_epochs=1",
        ],
    )  # fmt: skip
    angles = [row["direction/opening_angle"] for row in run.rows]
    losses = [row["train_loss"] for row in run.rows]
    assert losses[-1] < losses[0] - 0.3, losses
    assert run.handed_over["direction/opening_angle"] < angles[0] - 0.05, angles
    assert min(angles[-4:]) < 1.0, angles  # a guess: pi / 2
