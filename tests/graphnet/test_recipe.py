"""A stage of a recipe: GraphNeT's trainer and ours, on equal batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("graphnet.models")
pytest.importorskip("pyarrow")

import numpy as np
import torch
from graphnet.models import Model

from graphnet_icecube2nd import EventStore, build_detector, load_model, save_model
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.graphnet_adapter import store
from graphnet_icecube2nd.graphnet_adapter.recipe import AverageOfWeights, recipe_stage
from graphnet_icecube2nd.graphnet_adapter.tasks import AngularDistance
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.store import prepare_frames
from graphnet_icecube2nd.tasks.direction.direction import make_loss
from graphnet_icecube2nd.training.module import TrainingModule
from graphnet_icecube2nd.training.optimisation import OneCycleScheduler
from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, Stage, write_recipe
from graphnet_icecube2nd.training.run import first_model, make_data, train
from graphnet_icecube2nd.training.trainer import TrainerConfig

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


def recipe(tasks: Any = None, **changes: Any) -> Recipe:
    return Recipe(
        tasks=tasks or {},
        name="tiny",
        model=changes.pop("model", "t_sim"),
        model_kwargs=SIZES,
        stages=(replace(STAGE, **changes),),
        data=DataConfig(num_sub_epochs=2, validation_fraction=0.2),
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
    [
        {},
        {"loss": "combined", "ema": False},
        pytest.param({"model": "s_gnn", "loss": "angle"}, marks=pytest.mark.slow),
        {"tasks": {"direction": {}, "energy": {"weight": 0.1}, "track": {}}},
    ],
    ids=["vmf", "combined", "hybrid", "tasks"],
)
def test_equal_losses_in_both_worlds(
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    made = recipe(**changes)
    ours: list[float] = []
    step = TrainingModule.training_step

    def noted(self: TrainingModule, batch: Any, index: int) -> Any:
        loss = step(self, batch, index)
        ours.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", noted)
    machine = TrainerConfig(accelerator="cpu", progress=False, plot=False)
    run = train(made, simulated, tmp_path / "run", machine=machine)
    stage = recipe_stage(made, simulated)
    theirs = fitted(stage, tmp_path)
    assert len(ours) == len(theirs) == 16
    torch.testing.assert_close(
        torch.tensor(theirs), torch.tensor(ours), rtol=2e-4, atol=1e-5
    )
    last = load_model(tmp_path / "run" / "stage_0" / "last.safetensors")
    theirs_last = stage.model.backbone.model.class_token
    ours_last = getattr(last, "backbone", last).class_token
    torch.testing.assert_close(theirs_last, ours_last, rtol=2e-3, atol=2e-5)
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
    with pytest.raises(ValueError, match=r"0 to 0.*got 1"):
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


def test_the_model_comes_back_from_yaml(simulated: EventStore, tmp_path: Path) -> None:
    """With its weights, its loss, and the learning rates of the stage."""
    made = recipe(loss="combined", normalisation="published", ema=False)
    stage = recipe_stage(made, simulated)
    fitted(stage, tmp_path)
    stage.model.save_config(str(tmp_path / "model.yml"))
    stage.model.save_state_dict(str(tmp_path / "weights.pth"))
    again = Model.from_config(str(tmp_path / "model.yml"), trust=True)
    again.load_state_dict(str(tmp_path / "weights.pth"))
    batch = next(iter(stage.data.val_dataloader()))
    with torch.no_grad():
        losses = [m.eval().shared_step([batch], 0) for m in (stage.model, again)]
    assert torch.equal(*losses)
    optimisers = again.configure_optimizers()
    scheduler = optimisers["lr_scheduler"]["scheduler"]
    assert isinstance(scheduler, OneCycleScheduler)
    assert optimisers["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(scheduler.total_steps):
        rates += scheduler.get_last_lr()
        optimisers["optimizer"].step()
        scheduler.step()
    schedule, steps = made.stages[0].schedule(), scheduler.total_steps
    expected = [schedule.learning_rate_at(step / steps) for step in range(steps)]
    assert rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("columns", [{}, {"hlc": None}])
def test_scales_are_those_of_the_stores_detector(
    tmp_path: Path, columns: dict[str, None]
) -> None:
    """Also if its files have other columns than the detector's."""
    pd = pytest.importorskip("pandas")
    own = build_detector("orca6").pulses
    rng = np.random.default_rng(0)
    num = 40
    event = np.repeat(np.arange(num), 5)
    names = [own.x, own.y, own.z, own.time]
    pulses = {name: rng.uniform(1, 99, 5 * num) for name in names}
    for name in own.columns():
        pulses.setdefault(name, np.ones(5 * num))
    truth = {
        own.labels.azimuth: rng.uniform(0, 6, num),
        own.labels.zenith: rng.uniform(0, 3, num),
    }
    prepare_frames(
        pd.DataFrame({"event_no": event, **pulses}),
        pd.DataFrame({"event_no": np.arange(num), **truth}),
        tmp_path / "store",
        detector="orca6",
        columns=columns,
        angles="origin",
    )
    data = EventStore(tmp_path / "store")
    stage = recipe_stage(recipe(ema=False), data)
    stage.model.save_config(str(tmp_path / "model.yml"))
    again = Model.from_config(str(tmp_path / "model.yml"), trust=True)
    assert data.detector.scales != Scales()
    for model in (stage.model, again):
        found = model._data_representation._detector.detector
        assert found.units == data.detector.units
        assert found.to_dict() == data.detector.to_dict()


def test_a_later_stage_has_its_own_options(simulated: EventStore) -> None:
    first = recipe().stages[0]
    second = replace(first, lr_max=1e-4, max_pulses=16, loss="angle", epochs=0.5)
    made = replace(recipe(), stages=(first, second))
    stage = recipe_stage(made, simulated, stage=1)
    assert stage.fit_options["max_epochs"] == 1
    assert isinstance(stage.model._tasks[0]._loss_function, AngularDistance)
    (group,) = stage.model.configure_optimizers()["optimizer"].param_groups
    assert group["lr"] == pytest.approx(1e-4 / 25)
    ours = next(iter(make_data(made, 1, simulated).train_dataloader()))
    theirs = next(iter(stage.data.train_dataloader()))
    assert torch.equal(theirs["event_no"], ours.event_id)
    assert torch.equal(theirs.x, ours.features)
    of_the_first = next(iter(recipe_stage(made, simulated).data.train_dataloader()))
    assert not torch.equal(of_the_first["event_no"], theirs["event_no"])


def test_processes_that_read(simulated: EventStore) -> None:
    stage = recipe_stage(recipe(), simulated, num_workers=1)
    for loader in (stage.data.train_dataloader(), stage.data.val_dataloader()):
        assert loader.loader.num_workers == 1


@pytest.mark.parametrize("loss", ["vmf", "combined"])
def test_normalisation(simulated: EventStore, loss: str) -> None:
    """Above kappa 100 the two are two."""
    prediction_B4 = torch.tensor([[0.0, 0.6, 0.8, 300.0]])
    direction_B3 = torch.tensor([[0.0, 0.0, 1.0]])
    vector_B3 = prediction_B4[:, :3] * prediction_B4[:, 3:]
    found = []
    for normalisation in ("exact", "published"):
        made = recipe(loss=loss, normalisation=normalisation)
        stage = recipe_stage(made, simulated)
        function = stage.model._tasks[0]._loss_function
        found.append(float(function(prediction_B4, direction_B3)))
        ours = make_loss(loss, normalisation)(vector_B3, direction_B3)
        assert found[-1] == pytest.approx(float(ours), rel=1e-6)
    assert abs(found[0] - found[1]) > 1e-4


@pytest.mark.filterwarnings(
    "ignore:Precision bf16-mixed is not supported by the model s"
)
def test_precision(simulated: EventStore, tmp_path: Path) -> None:
    losses = [
        fitted(recipe_stage(replace(recipe(), precision=name), simulated), tmp_path)
        for name in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_tasks_have_their_options_and_come_back(
    simulated: EventStore, tmp_path: Path
) -> None:
    tasks = {
        "energy": {"likelihood": "gaussian", "weight": 0.5},
        "direction": {"loss": "combined"},
    }
    made = recipe(tasks=tasks, normalisation="published")
    stage = recipe_stage(made, simulated)
    energy, direction = stage.model._tasks
    assert energy.task.likelihood == "gaussian"
    assert energy._weight == 0.5
    stage.model.save_config(str(tmp_path / "model.yml"))
    again = Model.from_config(str(tmp_path / "model.yml"), trust=True)
    again.load_state_dict(stage.model.state_dict())
    batch = next(iter(stage.data.val_dataloader()))
    with torch.no_grad():
        losses = [m.eval().shared_step([batch], 0) for m in (stage.model, again)]
    assert torch.equal(*losses)
    core = first_model(made)
    vector_B3 = torch.tensor([[0.0, 0.6, 0.8]]) * 300
    truth = torch.tensor([[0.0, 0.0, 1.0]])
    expected = core.task_map["direction"].loss(vector_B3, truth)
    assert torch.equal(direction.task.loss(vector_B3, truth), expected)


@pytest.mark.parametrize(
    "override", ["stages.0.patience=3", "monitor=loss", "compile=true"]
)
def test_what_is_not_followed_is_said(simulated: EventStore, override: str) -> None:
    with pytest.warns(UserWarning, match=f"{override} of tiny"):
        recipe_stage(recipe(), simulated, overrides=[override])


def test_weights_of_direction_alone_are_not_divided_by_their_mean(
    simulated: EventStore,
) -> None:
    with pytest.warns(UserWarning, match="the mean of weight_astrophysical"):
        recipe_stage(
            recipe(), simulated, overrides=["event_weight=weight_astrophysical"]
        )


def test_batches_are_of_the_ranks_they_were_made_for(
    simulated: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GraphNeT's loaders are there before its ranks are."""
    loader = recipe_stage(recipe(), simulated).data.train_dataloader()
    ranks = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: 2,
    )
    monkeypatch.setattr(store, "distributed", ranks)
    with pytest.raises(ValueError, match="made for 1 ranks, but training runs on 2"):
        next(iter(loader))
