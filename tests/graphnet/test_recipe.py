"""A stage of a recipe: GraphNeT's trainer and ours, on equal batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("graphnet.models")
pytest.importorskip("pyarrow")

import torch

from graphnet_icecube2nd import EventStore, load_model, save_model
from graphnet_icecube2nd.graphnet_adapter.recipe import AverageOfWeights, recipe_stage
from graphnet_icecube2nd.models.any_origin import load_weights
from graphnet_icecube2nd.training.module import DirectionModule
from graphnet_icecube2nd.training.recipe import DataOptions, Recipe, Stage
from graphnet_icecube2nd.training.recipe_file import write_recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.stage_run import first_model
from graphnet_icecube2nd.training.trainer import Machine

pytestmark = pytest.mark.graphnet

STAGE = Stage(
    lr_max=2e-3,
    pct_start=0.3,
    batch_size=16,
    max_pulses=32,
    accumulate_events=32,
    div_final=5,
    gradient_clip=0.5,
    ema=True,
    ema_decay=0.7,
)
SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        name="tiny",
        model=changes.pop("model", "t_sim"),
        model_kwargs=SIZES,
        stages=(replace(STAGE, **changes),),
        data=DataOptions(num_sub_epochs=2, validation_fraction=0.2),
    )


def fitted(stage: Any, folder: Path) -> list[float]:
    """Train there; return the loss of each micro-batch."""
    losses = []
    step = stage.model.shared_step

    def noted(batch: Any, index: int) -> Any:
        loss = step(batch, index)
        if stage.model.training:
            losses.append(float(loss.detach()))
        return loss

    stage.model.shared_step = noted
    stage.model.fit(
        stage.data.train_dataloader(),
        stage.data.val_dataloader(),
        logger=False,
        enable_checkpointing=False,
        default_root_dir=str(folder),
        **stage.fit_options,
    )
    return losses


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "combined", "ema": False}, {"model": "s_gnn", "loss": "angle"}],
    ids=["vmf", "combined", "hybrid"],
)
def test_equal_losses_in_both_worlds(
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    made = recipe(**changes)
    ours: list[float] = []
    step = DirectionModule.training_step

    def noted(self: DirectionModule, batch: Any, index: int) -> Any:
        loss = step(self, batch, index)
        ours.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(DirectionModule, "training_step", noted)
    machine = Machine(accelerator="cpu", progress=False, plot=False)
    run = train(made, simulated, tmp_path / "run", machine=machine)
    stage = recipe_stage(made, simulated)
    theirs = fitted(stage, tmp_path)
    assert len(ours) == len(theirs) == 16
    torch.testing.assert_close(
        torch.tensor(theirs), torch.tensor(ours), rtol=2e-4, atol=1e-5
    )
    last = load_model(tmp_path / "run" / "stage_0" / "last.safetensors")
    theirs_last = stage.model.backbone.model.class_token
    torch.testing.assert_close(theirs_last, last.class_token, rtol=2e-3, atol=2e-5)
    assert run.rows[-1]["step"] == 8


def test_reads_yaml_and_begins_with_weights(
    simulated: EventStore, tmp_path: Path
) -> None:
    made = recipe()
    write_recipe(made, tmp_path / "recipe.yaml")
    other = first_model(replace(made, seed=5))
    save_model(other, tmp_path / "start.safetensors")
    stage = recipe_stage(
        str(tmp_path / "recipe.yaml"),
        str(simulated.path),
        overrides=["stages.0.lr_max=1e-4", "stages.0.freeze=[embedding]"],
        weights=tmp_path / "start.safetensors",
    )
    assert stage.recipe.stages[0].lr_max == 1e-4
    assert torch.equal(stage.model.backbone.model.class_token, other.class_token)
    affine = stage.model._tasks[0]._affine
    assert torch.equal(affine.weight, other.head.weight)
    frozen = [p for p in stage.model.parameters() if not p.requires_grad]
    assert len(frozen) == 7
    optimiser = stage.model.configure_optimizers()["optimizer"]
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-4 / 25)
    with pytest.raises(ValueError, match="has stages 0 to 0, got 1"):
        recipe_stage(made, simulated, stage=1)


def test_the_average_is_left_in_the_model(
    simulated: EventStore, tmp_path: Path
) -> None:
    weights = []
    for keep in (True, False):
        stage = recipe_stage(recipe(save_ema=keep), simulated)
        fitted(stage, tmp_path)
        weights.append(stage.model.backbone.model.class_token.detach().clone())
        (average,) = (
            c for c in stage.fit_options["callbacks"] if isinstance(c, AverageOfWeights)
        )
        again = AverageOfWeights(stage.model, decay=0.5)
        again.load_state_dict(average.state_dict())
        ours, theirs = again.average.state_dict(), average.average.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(*weights)


def test_graphnets_state_dict_goes_back(simulated: EventStore, tmp_path: Path) -> None:
    """What GraphNeT trained is what the next stage begins with, in either world."""
    stage = recipe_stage(recipe(ema=False), simulated)
    fitted(stage, tmp_path)
    stage.model.save_state_dict(str(tmp_path / "weights.pth"))
    model = first_model(recipe())
    report = load_weights(model, tmp_path / "weights.pth")
    assert report.kind == "graphnet"
    assert (report.missing, report.unused, report.misshapen) == ((), (), ())
    backbone = stage.model.backbone.model
    assert torch.equal(model.class_token, backbone.class_token)
    assert torch.equal(model.head.weight, stage.model._tasks[0]._affine.weight)
    again = recipe_stage(recipe(), simulated, weights=tmp_path / "weights.pth")
    assert torch.equal(again.model.backbone.model.class_token, backbone.class_token)
