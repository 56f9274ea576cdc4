"""Runs: what every option changes, what a run leaves behind, what stops it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import (
    DeepIce,
    EventStore,
    InputConfig,
    build_model,
    load_model,
    save_model,
)
from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.training import trainer as trainer_room
from graphnet_icecube2nd.training.history import (
    LAST_COLUMNS,
    metrics_columns,
    read_history,
)
from graphnet_icecube2nd.training.module import (
    TrainingModule,
)
from graphnet_icecube2nd.training.recipe import (
    OPENING_ANGLE,
    Recipe,
    overridden,
    read_recipe,
)
from graphnet_icecube2nd.training.run import (
    first_model,
    make_data,
    steps_texts,
    train,
    validation_advice,
)
from graphnet_icecube2nd.training.run_folder import model_input
from graphnet_icecube2nd.training.trainer import TrainerConfig

Weights = Callable[[Path], dict[str, Any]]


def one_stage(recipe: Recipe) -> Recipe:
    return replace(recipe, stages=recipe.stages[:1])


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def base(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The last weights of the first stage as it is."""
    run = tmp_path_factory.mktemp("base") / "run"
    train(one_stage(tiny), simulated, run, machine=quiet)
    return last_of(run)


def last_of(run: Path) -> dict[str, Any]:
    return dict(load_model(run / "stage_0" / "last.safetensors").state_dict())


@pytest.mark.parametrize(
    "override",
    [
        "stages.0.lr_max=1e-3",
        "stages.0.epochs=0.5",
        "stages.0.div=2",
        "stages.0.div_final=50",
        "stages.0.momenta=[0.9, 0.8, 0.9]",
        "stages.0.pct_start=0.5",
        "stages.0.loss=combined",
        "stages.0.loss=angle",
        "stages.0.ema=true",
        "stages.0.batch_size=8",
        "stages.0.max_pulses=16",
        "stages.0.accumulate_events=64",
        "stages.0.gradient_clip=0.01",
        "stages.0.weight_decay=0.5",
        "stages.0.eps=1e-3",
        "stages.0.freeze=[embedding]",
        "seed=1",
        "data.selection=hlc_first",
        "data.length_class=short",
        "data.events=energy > 1000",
        "data.num_sub_epochs=1",
        "data.sub_epochs=published",
        "data.augmentations=[{kind: time_jitter, sigma: 50.0}]",
        "data.validation_fraction=0.5",
        "data.split_seed=1",
        "precision=bfloat16",
        "model_kwargs.n_rel=0",
    ],
)
def test_every_option_changes_the_weights(
    base: dict[str, Any],
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    override: str,
) -> None:
    train(
        one_stage(tiny), simulated, tmp_path / "run",
        overrides=[override], machine=quiet,
    )  # fmt: skip
    assert not same(last_of(tmp_path / "run"), base)


def test_decay_and_what_is_saved_of_an_average(
    base: dict[str, Any],
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
) -> None:
    weights, rows = {}, {}
    for name, options in {
        "fast": ["stages.0.ema_decay=0.1"],
        "slow": ["stages.0.ema_decay=0.9"],
        "raw": ["stages.0.ema_decay=0.9", "stages.0.save_ema=false"],
    }.items():
        run = train(
            one_stage(tiny), simulated, tmp_path / name,
            overrides=["stages.0.ema=true", *options], machine=quiet,
        )  # fmt: skip
        weights[name], rows[name] = last_of(run.path), run.rows[-1]
    assert same(weights["raw"], base)  # an average changes no training
    assert not same(weights["fast"], weights["slow"])
    assert not same(weights["slow"], base)
    assert (
        rows["raw"]["direction/opening_angle"]
        == rows["slow"]["direction/opening_angle"]
    )
    raw = [rows[name]["raw_direction/opening_angle"] for name in rows]
    assert raw[0] == raw[1] == raw[2] != rows["slow"]["direction/opening_angle"]


def test_published_features_reach_a_hybrid(tiny: Recipe, simulated: EventStore) -> None:
    batches = [
        next(iter(make_data(overridden(tiny, given), 0, simulated).train_dataloader()))
        for given in ([], ["data.features=published"])
    ]
    ours, theirs = (batch.features for batch in batches)
    assert torch.equal(ours[:, :6], theirs[:, :6])
    assert not torch.equal(ours[:, 6:], theirs[:, 6:])


def test_positions_are_saved_with_the_model(
    tiny: Recipe, simulated: EventStore
) -> None:
    recipe = overridden(tiny, ["data.positions=charge_centre"])
    batch = next(iter(make_data(recipe, 0, simulated).train_dataloader()))
    mean_3 = batch.features[: int(batch.lengths[0]), :3].mean(dim=0)
    assert float(mean_3.abs().max()) < 0.5
    assert float(batch.centre.abs().max()) > 50
    assert model_input(recipe, simulated).positions == "charge_centre"
    with pytest.raises(ValueError, match=r"positions.*'middle'"):
        overridden(tiny, ["data.positions=middle"])


def test_options_of_the_validation(tiny: Recipe, simulated: EventStore) -> None:
    given = ["data.validation_batch_size=5", "data.validation_max_pulses=7"]
    data = make_data(overridden(tiny, given), 0, simulated)
    assert all(len(b) <= 5 for b in data.val_dataloader())
    assert max(int(b.lengths.max()) for b in data.val_dataloader()) == 7
    plain = make_data(tiny, 0, simulated)
    assert max(len(b) for b in plain.val_dataloader()) == 16
    assert max(int(b.lengths.max()) for b in plain.val_dataloader()) == 32


def test_what_a_run_leaves(
    tiny: Recipe,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    notices: list[str],
) -> None:
    pytest.importorskip("matplotlib")
    notices.clear()
    machine = TrainerConfig(accelerator="cpu", progress=False)
    run = train(tiny, simulated, tmp_path / "run", machine=machine)
    assert sorted(p.name for p in run.path.iterdir()) == [
        "curves.png", "metrics.csv", "model.safetensors", "recipe.yaml", "run.json",
        "stage_0", "stage_1", "training.csv",
    ]  # fmt: skip
    for stage in ("stage_0", "stage_1"):
        files = sorted(p.name for p in (run.path / stage).iterdir())
        assert files == ["best.safetensors", "finished.json", "last.safetensors"]
    assert read_recipe(run.path / "recipe.yaml") == tiny
    described = json.loads((run.path / "run.json").read_text())
    assert described["num_events"] == 256
    rows = read_history(run.path / "metrics.csv")
    assert [(row["stage"], row["sub_epoch"]) for row in rows] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    assert list(rows[0]) == metrics_columns(run.rows)
    assert {"direction/loss", "direction/opening_angle", *LAST_COLUMNS} <= set(rows[0])
    assert rows[0]["raw_direction/opening_angle"] is None
    assert rows[-1]["events"] > 150
    assert rows[-1]["pulses"] > 20 * rows[-1]["events"]
    # What the rows say of the weights that were saved.
    data = make_data(tiny, 1, simulated)
    model = load_model(run.path / "stage_1" / "last.safetensors")
    with torch.no_grad():
        angles = [
            opening_angle(model(batch), batch.truth["direction"])
            for batch in data.val_dataloader()
            if batch.truth
        ]
    mean = float(torch.cat(angles).double().mean())
    assert rows[-1]["direction/opening_angle"] == pytest.approx(mean, rel=1e-6)
    best = min((row for row in rows if row["stage"] == 1), key=angle_of)
    kept = load_model(run.path / "stage_1" / "best.safetensors")
    assert same(weights_of(run.path), dict(kept.state_dict()))
    assert best["best"] == 1
    assert isinstance(run.model, DeepIce)
    assert notices[0].startswith("stage 0 of 2: vmf loss, lr_max 0.002, L 32")
    assert any("weights loaded from" in text for text in notices)


def angle_of(row: dict[str, Any]) -> float:
    return float(row["direction/opening_angle"])


@pytest.mark.parametrize("next_from", ["best", "last"])
def test_the_next_stage_begins_where_it_should(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    next_from: str,
) -> None:
    """The first sub-epoch is made the best one, so best and last are two."""
    ended = TrainingModule.on_validation_epoch_end

    def pretend(self: TrainingModule) -> None:
        ended(self)
        self.validation[OPENING_ANGLE] = 1.0 + 0.1 * self.trainer.current_epoch

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", pretend)
    begun: list[dict[str, Any]] = []
    start = TrainingModule.__init__

    def noted(self: TrainingModule, model: DeepIce, *args: Any, **kwargs: Any) -> None:
        begun.append({k: v.clone() for k, v in model.state_dict().items()})
        start(self, model, *args, **kwargs)

    monkeypatch.setattr(TrainingModule, "__init__", noted)
    given = [f"stages.{n}.next_from={next_from}" for n in (0, 1)]
    train(tiny, simulated, tmp_path / "run", overrides=given, machine=quiet)
    folder = tmp_path / "run" / "stage_0"
    best, last = (
        dict(load_model(folder / f"{name}.safetensors").state_dict())
        for name in ("best", "last")
    )
    assert not same(best, last)
    assert same(begun[1], best if next_from == "best" else last)
    assert same(begun[0], dict(first_model(tiny).state_dict()))


def test_monitor_tells_the_best(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = TrainingModule.on_validation_epoch_end

    def pretend(self: TrainingModule) -> None:
        ended(self)
        later = self.trainer.current_epoch
        self.validation.update({OPENING_ANGLE: 1.0 + later, "loss": 1.0 - later})

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", pretend)
    found = {}
    for monitor in ("angle", "loss"):
        run = train(
            one_stage(tiny), simulated, tmp_path / monitor,
            overrides=[f"monitor={monitor}"], machine=quiet,
        )  # fmt: skip
        found[monitor] = [row["best"] for row in run.rows]
    assert found == {"angle": [1, 0], "loss": [1, 1]}


def test_patience_ends_a_stage(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    """With no learning nothing gets better."""
    run = train(
        one_stage(tiny), simulated, tmp_path / "run", machine=quiet,
        overrides=["stages.0.epochs=4", "stages.0.patience=2", "stages.0.lr_max=1e-30"],
    )  # fmt: skip
    assert len(run.rows) == 3


def test_compile_is_asked_for(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    base: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def compiled(function: Any, **options: Any) -> Any:
        asked.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    train(
        one_stage(tiny), simulated, tmp_path / "run",
        overrides=["compile=true"], machine=quiet,
    )  # fmt: skip
    assert asked == [{"dynamic": True}]
    assert same(last_of(tmp_path / "run"), base)


def test_activation_checkpointing_is_asked_for(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    base: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from graphnet_icecube2nd.models import deepice

    calls = []
    checkpoint = deepice.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(deepice, "checkpoint", counted)
    train(
        one_stage(tiny), simulated, tmp_path / "run",
        overrides=["model_kwargs.use_checkpoint=true"], machine=quiet,
    )  # fmt: skip
    assert calls
    ours = last_of(tmp_path / "run")
    for name, weights in base.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-3, atol=1e-5)


class TestMachine:
    def made(self, tiny: Recipe, folder: Path, **options: Any) -> Any:
        machine = TrainerConfig(**{"accelerator": "cpu", "plot": False, **options})
        return trainer_room.make_trainer(tiny, 0, folder, machine)

    def test_devices_strategy_and_nodes(self, tiny: Recipe, tmp_path: Path) -> None:
        trainer, _ = self.made(
            tiny, tmp_path, devices=2, strategy="ddp", num_nodes=3, progress=False
        )
        assert (trainer.world_size, trainer.num_nodes) == (6, 3)
        assert type(trainer.strategy).__name__ == "DDPStrategy"

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_precision(self, tiny: Recipe, tmp_path: Path, precision: str) -> None:
        recipe = replace(tiny, precision=precision)
        trainer, _ = self.made(recipe, tmp_path)
        assert trainer.precision == trainer_room.PRECISION[precision]

    def test_float16_is_for_gpus(self, tiny: Recipe, tmp_path: Path) -> None:
        assert trainer_room.PRECISION["float16"] == "16-mixed"
        recipe = replace(tiny, precision="float16")
        with pytest.raises(ValueError, match="float16 needs a GPU"):
            self.made(recipe, tmp_path)

    def test_bar(self, tiny: Recipe, tmp_path: Path) -> None:
        with_bar, _ = self.made(tiny, tmp_path, progress=True)
        without, _ = self.made(tiny, tmp_path, progress=False)
        assert type(with_bar.progress_bar_callback).__name__ == "RateBar"
        assert without.progress_bar_callback is None

    def test_clocks(self, tiny: Recipe, tmp_path: Path) -> None:
        _, recorder = self.made(
            tiny, tmp_path, checkpoint_minutes=2.0, checkpoint_steps=7
        )
        assert (recorder.every_seconds, recorder.every_steps) == (120.0, 7)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loggers": ("csvs",)}, "tensorboard, wandb.* 'csvs'"),
            ({"checkpoint_minutes": 0.0}, "checkpoint_minutes must be above 0"),
            ({"checkpoint_steps": 0}, "checkpoint_steps must be 1 or more"),
            ({"num_nodes": 0}, "num_nodes must be 1 or more"),
            ({"strategy": "fsdp"}, "strategy must be one of auto, ddp,.* got 'fsdp'"),
            ({"strategy": "deepspeed_stage_2"}, "got 'deepspeed_stage_2'"),
            ({"strategy": "ddp_spawn"}, "got 'ddp_spawn'"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TrainerConfig(**options)

    def test_readers(self, tiny: Recipe, simulated: EventStore) -> None:
        loader = make_data(tiny, 0, simulated, num_workers=2).train_dataloader()
        assert loader.num_workers == 2


def test_bar_shows_rates_loss_and_angle(
    tiny: Recipe, simulated: EventStore, tmp_path: Path, capfd: Any
) -> None:
    machine = TrainerConfig(accelerator="cpu", plot=False)
    train(one_stage(tiny), simulated, tmp_path / "run", machine=machine)
    shown = capfd.readouterr()
    text = shown.out + shown.err
    for word in (
        "events/s=",
        "pulses/s=",
        "loss=",
        "lr=",
        " rad = ",
        " deg",
        "stage 0",
    ):
        assert word in text, word


def test_loggers_are_told_all(
    tiny: Recipe,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pytorch_lightning import loggers
    from pytorch_lightning.loggers.logger import DummyLogger

    made: list[Any] = []

    class WandbLogger(DummyLogger):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.options, self.names, self.finished = options, set(), 0
            made.append(self)

        def log_metrics(self, metrics: dict[str, float], step: Any = None) -> None:
            self.names |= set(metrics)

        @property
        def experiment(self) -> Any:
            return self

        def finish(self) -> None:
            self.finished += 1

    monkeypatch.setattr(loggers, "WandbLogger", WandbLogger)
    options = {"accelerator": "cpu", "progress": False, "plot": False}
    machine = TrainerConfig(**options, loggers=("wandb",))
    train(tiny, simulated, tmp_path / "run", machine=machine)
    assert [logger.options["name"] for logger in made] == ["run-stage-0", "run-stage-1"]
    assert len({logger.options["version"] for logger in made}) == 2
    for logger in made:
        assert logger.finished == 1, "or the next stage would go into this one's run"
        assert {
            "train_loss",
            "learning_rate",
            "direction/opening_angle",
        } <= logger.names


def test_tensorboard_writes(
    tiny: Recipe, simulated: EventStore, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    machine = TrainerConfig(
        accelerator="cpu", progress=False, plot=False, loggers=("tensorboard",)
    )
    train(one_stage(tiny), simulated, tmp_path / "run", machine=machine)
    assert list((tmp_path / "run" / "tensorboard" / "stage_0").glob("events*"))


def test_a_logger_that_is_not_installed_says_so(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytorch_lightning.loggers as loggers

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise ModuleNotFoundError("no tensorboard")

    monkeypatch.setattr(loggers, "TensorBoardLogger", missing)
    machine = TrainerConfig(accelerator="cpu", loggers=("tensorboard",))
    with pytest.raises(ImportError, match="needs tensorboard: pip install tensorboard"):
        trainer_room.make_trainer(tiny, 0, tmp_path, machine)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    step, ids = TrainingModule.training_step, []

    def broken(self: TrainingModule, batch: Any, index: int) -> Any:
        loss = step(self, batch, index)
        if self.trainer.global_step == 2 and index % 2:
            ids.extend(batch.event_id.tolist())
            if what == "gradient":
                head = next(self.model.head.parameters())
                return loss + 0 * torch.sqrt(0 * head.sum())
            self._pending[-1] = (loss.detach() * float("nan"), batch.event_id)
            return loss * float("nan")
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", broken)
    run = tmp_path / "run"
    with pytest.raises(
        NonFiniteError, match=f"the {what} is not finite in step 3"
    ) as error:
        train(tiny, simulated, run, machine=quiet)
    path = run / "stage_0" / "not_finite_0.csv"
    assert str(path) in str(error.value)
    saved = [int(line) for line in path.read_text().split()[1:]]
    if what == "loss":
        assert saved == ids
    else:  # which of a step's events it was is not known, and so said
        assert set(ids) < set(saved)
        assert f"of the step's {len(saved)} events" in str(error.value)
    # The weights of before are there, and finite; without the fault it goes on.
    monkeypatch.setattr(TrainingModule, "training_step", step)
    done = train(tiny, simulated, run, machine=quiet, resume=True)
    assert all(w.isfinite().all() for w in done.model.state_dict().values())


@pytest.mark.parametrize("stage", [0, 1])
def test_a_validation_that_is_not_finite_stops_the_run(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
) -> None:
    """Also in the first sub-epoch, and where it is the raw weights' of two."""
    forward, ids = TrainingModule.forward, []

    def broken(self: TrainingModule, batch: Any) -> Any:
        outputs = forward(self, batch)
        if self.training or bool(self.stage.ema) != bool(stage):
            return outputs
        ids.append(int(batch.event_id[-1]))
        prediction_B3 = outputs["direction"].clone()
        prediction_B3[-1, 1] = float("nan")
        return {"direction": prediction_B3}

    monkeypatch.setattr(TrainingModule, "forward", broken)
    run = tmp_path / "run"
    with pytest.raises(
        NonFiniteError, match="the validation is not finite after step 4"
    ):
        train(tiny, simulated, run, machine=quiet)
    saved = (run / f"stage_{stage}" / "not_finite_0.csv").read_text().split()[1:]
    assert [int(line) for line in saved] == ids
    assert len(ids) > 1
    assert not (run / f"stage_{stage}" / "best.safetensors").exists()
    monkeypatch.setattr(TrainingModule, "forward", forward)
    done = train(tiny, simulated, run, machine=quiet, resume=True)
    assert len(done.rows) == 4


@pytest.mark.parametrize(
    ("scale", "loss", "norm", "stops"),
    [
        (None, 1.0, 1.0, False),
        (None, 1.0, float("inf"), True),
        (1024.0, 1.0, float("inf"), False),  # an overflow: the scaler sees to it
        (0.5, 1.0, float("nan"), True),  # no scale helped
        (1024.0, float("nan"), 1.0, True),
    ],
)
def test_overflows_of_float16_are_left_to_its_scaler(
    tiny: Recipe, scale: float | None, loss: float, norm: float, stops: bool
) -> None:
    from types import SimpleNamespace

    module = TrainingModule(first_model(tiny), tiny.stages[0])
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    module._trainer = SimpleNamespace(
        world_size=1, global_step=4, precision_plugin=SimpleNamespace(scaler=scaler)
    )
    module._pending = [(torch.tensor(loss), torch.tensor([7, 8]))]
    if stops:
        with pytest.raises(NonFiniteError, match="in step 5") as error:
            module._check_finite(torch.tensor([loss]), torch.tensor(norm))
        assert error.value.event_id == [7, 8]
    else:
        module._check_finite(torch.tensor([loss]), torch.tensor(norm))
    # A fused step would take the scale off itself, after the clipping.
    optimiser = module.configure_optimizers()
    assert bool(optimiser.param_groups[0]["fused"]) == (scale is None)


def test_processes_whose_results_do_not_come_back_are_refused(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook Lightning forks where several devices are asked for."""
    from pytorch_lightning.trainer.connectors import accelerator_connector

    monkeypatch.setattr(accelerator_connector, "_IS_INTERACTIVE", True)
    machine = TrainerConfig(accelerator="cpu", devices=2)
    with pytest.raises(ValueError, match=r"in a notebook.* devices=1"):
        trainer_room.make_trainer(tiny, 0, tmp_path, machine)


def test_few_events_make_smaller_steps(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    notices: list[str],
) -> None:
    notices.clear()
    run = train(
        one_stage(tiny), simulated, tmp_path / "run", machine=quiet,
        overrides=["stages.0.accumulate_events=4096"],
    )  # fmt: skip
    assert "optimiser steps come every 112 events, not 4096" in notices[-1]
    assert "about 2 optimiser steps in all" in notices[-2]  # which is exact here
    assert run.rows[-1]["step"] == 2


def test_few_steps_are_counted_before_they_are_trained(tiny: Recipe) -> None:
    (text,) = steps_texts(tiny, 256)
    assert "stages.0.epochs" in text
    longer = overridden(tiny, {"stages.0.epochs": 100})
    assert steps_texts(longer, 256) == []


def test_shares_of_validation_events_are_enough_for_a_calibration() -> None:
    assert "validation_fraction=0.1 " in validation_advice(2000)
    assert "validation_fraction=0.41 " in validation_advice(490)
    assert "399 events are too few" in validation_advice(399)


def test_a_folder_holds_one_run(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    short = one_stage(tiny)
    train(short, simulated, run, machine=quiet)
    with pytest.raises(ValueError, match="already holds a run"):
        train(short, simulated, run, machine=quiet)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        train(
            short, simulated, run, machine=quiet, resume=True, overrides=["seed=9"],
        )  # fmt: skip
    before = (run / "model.safetensors").read_bytes()
    again = train(short, simulated, run, machine=quiet, resume=True)
    assert len(again.rows) == 2
    assert (run / "model.safetensors").read_bytes() == before
    described = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**described, "num_events": 300}))
    with pytest.raises(ValueError, match="num_events 300"):
        train(short, simulated, run, machine=quiet, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        train(short, simulated, tmp_path / "other", machine=quiet)
    with pytest.raises(ValueError, match=r"model_kwargs\.depht is unknown"):
        train(
            short, simulated, tmp_path / "new", machine=quiet,
            overrides=["model_kwargs.depht=1"],
        )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_lightning_keeps_quiet(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    capfd: Any,
) -> None:
    train(one_stage(tiny), simulated, tmp_path / "run", machine=quiet)
    shown = capfd.readouterr()
    assert not shown.out.strip()
    assert not shown.err.strip()
    assert logging.getLogger("pytorch_lightning").level != logging.WARNING


@pytest.mark.parametrize("is_native", [True, False])
def test_bfloat16_in_software_is_said(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    notices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_native: bool,
) -> None:
    monkeypatch.setattr(trainer_room.platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: is_native, raising=False)
    recipe = replace(one_stage(tiny), precision="bfloat16")
    train(recipe, simulated, tmp_path / "run", machine=quiet)
    told = [text for text in notices if "--set precision=float32" in text]
    assert len(told) == (not is_native)


def test_a_stage_starts_from_a_file_and_freezes(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    notices: list[str],
) -> None:
    torch.manual_seed(1)
    source = build_model("t_sim", **{**tiny.model_kwargs, "depth": 2})
    source.input_config = InputConfig(telescope="orca", max_pulses=77)
    save_model(source, tmp_path / "start.safetensors")
    stage = replace(
        tiny.stages[0],
        weights=str(tmp_path / "start.safetensors"),
        partial=True,
        freeze=("embedding", "head"),
    )
    notices.clear()
    run = train(
        replace(tiny, stages=(stage,)),
        simulated,
        tmp_path / "run",
        machine=quiet,
    )
    config = run.model.input_config
    assert config is not None
    assert config.telescope == simulated.detector.telescope, "that of this training"
    assert config.max_pulses != 77
    trained = run.model.state_dict()
    for name, value in source.state_dict().items():
        if name.startswith(("embedding.", "head.")):
            assert torch.equal(trained[name], value), name
    assert not torch.equal(trained["class_token"], source.state_dict()["class_token"])
    assert any("unused: 1" in text for text in notices), notices
