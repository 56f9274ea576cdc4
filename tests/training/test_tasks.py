"""Several tasks: they learn, resume to the bit, and leave each other alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import (
    EventStore,
    PackedBatch,
    load_model,
    register_model,
    simulate,
)
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.registry import MODELS
from graphnet_icecube2nd.simulation import SimulationConfig
from graphnet_icecube2nd.tasks.task import TASKS, Column, Task, register_task
from graphnet_icecube2nd.training import module as module_room
from graphnet_icecube2nd.training.balance import Balance
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.run import (
    check_event_weight,
    first_model,
    make_data,
    train,
)
from graphnet_icecube2nd.training.trainer import TrainerConfig

Weights = Callable[[Path], dict[str, Any]]
TASKS_OF_THREE = {"direction": {}, "energy": {"weight": 0.5}, "track": {"weight": 1.0}}


@pytest.fixture
def three(tiny: Recipe) -> Recipe:
    """Two stages, the second with an average; the first weights are of one seed."""
    return replace(tiny, tasks=TASKS_OF_THREE)


def test_they_learn(
    three: Recipe,
    quiet: TrainerConfig,
    tmp_path: Path,
    notices: list[str],
) -> None:
    """Muons from above and bright cascades, which differ in everything."""
    config = SimulationConfig(
        fractions={"muon_bundle": 1.0, "cascade": 1.0}, energy_range=(5e3, 5e4)
    )
    simulate(tmp_path / "store", num_events=256, config=config, workers=1)
    simulated = EventStore(tmp_path / "store")
    first = replace(
        three.stages[0], epochs=8.0, pct_start=0.2, lr_max=4e-3, accumulate_events=16
    )
    recipe = replace(three, stages=(first,), data=replace(three.data, num_sub_epochs=1))
    machine = replace(quiet, checkpoint_steps=None)
    notices.clear()
    run = train(recipe, simulated, tmp_path / "run", machine=machine)
    rows = run.rows
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.2
    assert rows[-1]["energy/log10_error"] < 0.95 * rows[0]["energy/log10_error"]
    assert max(row["track/auc"] for row in rows) > 0.7
    assert "losses of 1 direction and 0.5 energy and 1 track" in notices[0]
    batch = next(iter(make_data(recipe, 0, simulated).val_dataloader()))
    with torch.no_grad():
        columns = run.model.predict(batch)
    assert {"direction_x", "energy", "p_track"} <= set(columns)


def test_columns_of_metrics(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    run = train(three, simulated, tmp_path / "run", machine=quiet)
    rows = read_history(run.path / "metrics.csv")
    names = [
        "direction/loss", "direction/opening_angle", "energy/loss",
        "energy/log10_error", "energy/inside_68", "track/loss", "track/accuracy",
        "track/auc",
    ]  # fmt: skip
    columns = list(rows[0])
    assert columns[9:18] == ["validation_loss", *names]
    assert columns[18:27] == ["raw_validation_loss", *(f"raw_{n}" for n in names)]
    for row in rows:
        total = row["direction/loss"] + 0.5 * row["energy/loss"] + row["track/loss"]
        assert row["validation_loss"] == pytest.approx(total, rel=1e-6)
        assert (row["raw_track/auc"] is None) == (row["stage"] == 0)
    # What the rows say of the weights that were saved.
    model = load_model(run.path / "stage_1" / "last.safetensors")
    errors, scores, tracks = [], [], []
    for batch in make_data(three, 1, simulated).val_dataloader():
        with torch.no_grad():
            outputs = model.outputs(batch)
        task = model.task_map["energy"]
        target = task.target(batch.truth)
        errors.append(task.metrics(outputs["energy"], target)["log10_error"])
        task_of_track = model.task_map["track"]
        scores.append(task_of_track.scores(outputs["track"]))
        tracks.append(batch.truth["track"])
    mean = float(torch.cat(errors).double().mean())
    assert rows[-1]["energy/log10_error"] == pytest.approx(mean, rel=1e-6)
    auc = task_of_track.collect()["auc"]
    auc.update(torch.cat(scores), torch.cat(tracks))
    assert rows[-1]["track/auc"] == pytest.approx(float(auc.compute()), abs=1e-6)


class Cut(Exception):
    """Stands for a kill, within this process."""


@pytest.mark.parametrize("step", [3, 11])
def test_with_learned_weights_they_go_on_to_the_bit(
    three: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    recipe = replace(three, weighting="learned", monitor="energy/log10_error")
    calm = train(recipe, simulated, tmp_path / "calm", machine=quiet)
    step_of, left = module_room.TrainingModule.optimizer_step, [step]

    def cut(self: Any, *args: Any, **kwargs: Any) -> None:
        step_of(self, *args, **kwargs)
        left[0] -= 1
        if not left[0]:
            raise Cut

    monkeypatch.setattr(module_room.TrainingModule, "optimizer_step", cut)
    with pytest.raises(Cut):
        train(recipe, simulated, tmp_path / "cut", machine=quiet)
    monkeypatch.undo()
    again = train(recipe, simulated, tmp_path / "cut", machine=quiet, resume=True)
    ours, expected = weights_of(again.path), weights_of(calm.path)
    assert set(ours) == set(expected)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert float(expected["log_variance.energy"]) != 0
    keys = [k for k in calm.rows[0] if k not in ("seconds", "memory_mb")]
    for row, other in zip(again.rows, calm.rows, strict=True):
        assert [row[k] for k in keys] == [other[k] for k in keys]


@pytest.mark.parametrize("beyond", [-2.3, 2.3])
def test_a_learned_weight_beyond_its_bounds_comes_back(
    three: Recipe, beyond: float
) -> None:
    model = first_model(replace(three, weighting="learned"))
    parameter = model.get_parameter("log_variance.energy")
    losses = dict.fromkeys(("direction", "energy", "track"), torch.tensor(1.0))
    with torch.no_grad():
        parameter.fill_(beyond)
    model.eval()
    value = model.weighted(losses)
    assert parameter == beyond, "only training moves it"
    model.train()
    loss = model.weighted(losses)
    assert loss == value
    loss.backward()
    # A loss of 1 has its least at 0, to which a step against the gradient leads.
    assert parameter.grad * beyond > 0


def test_larger_is_better_of_a_monitor(
    three: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = module_room.TrainingModule.on_validation_epoch_end
    pretended = iter((0.5, 0.7, 0.6, 0.8))

    def pretend(self: Any) -> None:
        ended(self)
        self.validation["track/auc"] = next(pretended)

    monkeypatch.setattr(module_room.TrainingModule, "on_validation_epoch_end", pretend)
    stage = replace(three.stages[0], epochs=2.0)
    recipe = replace(three, stages=(stage,), monitor="track/auc")
    run = train(recipe, simulated, tmp_path / "run", machine=quiet)
    assert [row["best"] for row in run.rows] == [1, 1, 0, 1]
    assert run.handed_over["track/auc"] == 0.8


def test_weights_of_events_come_from_a_column(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    recipe = replace(three, event_weight="light", stages=three.stages[:1])
    module = module_room.TrainingModule(
        first_model(recipe), recipe.stages[0], event_weight="light"
    )
    batch = next(iter(make_data(recipe, 0, simulated).train_dataloader()))
    assert batch.truth is not None
    truth, weight_B = module._truth(batch)
    outputs = module(batch)
    weighted = module.model.losses(outputs, truth, weight_B)
    for name, task in module.model.task_map.items():
        loss_B = task.loss(outputs[name], task.target(truth))
        light_B = batch.truth["light"].float()
        expected = (loss_B * light_B).sum() / light_B.sum()
        torch.testing.assert_close(weighted[name], expected)
    other_unit = module.model.losses(outputs, truth, 1e-12 * weight_B)
    torch.testing.assert_close(other_unit, weighted)
    nothing = module.model.losses(outputs, truth, 0 * weight_B)
    assert all(float(loss.detach()) == 0 for loss in nothing.values())
    run = train(recipe, simulated, tmp_path / "run", machine=quiet)
    plain = replace(recipe, event_weight=None)
    other = train(plain, simulated, tmp_path / "plain", machine=quiet)
    assert run.rows[-1]["train_loss"] != other.rows[-1]["train_loss"]
    # The validation, as if events were there as often as their weight says.
    batches = list(make_data(recipe, 0, simulated).val_dataloader())
    found = module_room.ValidationMetrics(module.model, torch.device("cpu"))
    repeated = module_room.ValidationMetrics(module.model, torch.device("cpu"))
    for batch in batches:
        outputs = {n: o.detach() for n, o in module.model.outputs(batch).items()}
        times_B = 1 + torch.arange(len(batch)) % 4
        found.update(outputs, batch.truth, times_B.float())
        repeated.update(
            {name: o.repeat_interleave(times_B, dim=0) for name, o in outputs.items()},
            {n: v.repeat_interleave(times_B, dim=0) for n, v in batch.truth.items()},
        )
    assert found.compute() == pytest.approx(repeated.compute(), rel=1e-6)


class TestBalance:
    def test_cells_have_the_same_weight(
        self, three: Recipe, simulated: EventStore
    ) -> None:
        names = ("energy", "topology")
        data = make_data(
            replace(three, data=replace(three.data, balance=names)), 0, simulated
        )
        balance = Balance.of(names, simulated, data.train_events)
        reader = EventReader(simulated, truth=names)
        rows = np.flatnonzero(data.train_events.mask(simulated, 0))
        truth = reader.batch(rows).truth
        assert truth is not None
        factor_B = balance(truth).numpy()
        cell_B = 10 * np.floor(2 * np.log10(truth["energy"].numpy()))
        cell_B += truth["topology"].numpy()
        cells, count = np.unique(cell_B, return_counts=True)
        total = np.array([factor_B[cell_B == cell].sum() for cell in cells])
        wanted = len(rows) / len(cells)
        expected = np.minimum(wanted, 20 * count)
        np.testing.assert_allclose(total, expected, rtol=1e-4)
        assert len(cells) > 10
        # With weights of the events, the weighted cells are equal.
        light = Balance.of(names, simulated, data.train_events, "light")
        weight_B = simulated.whole_event_column("light")[rows]
        both_B = light(truth).numpy() * weight_B
        total = np.array([both_B[cell_B == cell].sum() for cell in cells])
        capped = light(truth).numpy() > 19.99
        full = [not capped[cell_B == cell].any() for cell in cells]
        np.testing.assert_allclose(total[full], total[full][0], rtol=1e-4)

    def test_an_event_without_a_label_counts_once(self, simulated: EventStore) -> None:
        balance = Balance.of(("energy",), simulated, EventSubset())
        truth = {"energy": torch.tensor([torch.nan, 0.0, 1e-9, 1e30])}
        factors = balance(truth)
        assert factors[:2].tolist() == [1.0, 1.0]
        assert bool(factors.isfinite().all())

    def test_training_uses_it(
        self, three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
    ) -> None:
        first = replace(three, stages=three.stages[:1])
        recipe = replace(first, data=replace(three.data, balance=["topology"]))
        run = train(recipe, simulated, tmp_path / "run", machine=quiet)
        plain = train(first, simulated, tmp_path / "plain", machine=quiet)
        assert run.rows[0]["train_loss"] != plain.rows[0]["train_loss"]
        assert run.rows[0]["learning_rate"] == plain.rows[0]["learning_rate"]

    def test_wrong_names(self, three: Recipe, simulated: EventStore) -> None:
        with pytest.raises(ValueError, match=r"balance .*'zenith'"):
            replace(three.data, balance=("zenith",))
        with pytest.raises(ValueError, match="balance must be a list"):
            replace(three.data, balance="energy")


def test_a_weight_that_is_no_number_is_named(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    """The simulated muons have no inelasticity."""
    recipe = replace(three, event_weight="inelasticity")
    with pytest.raises(ValueError, match=r"event_weight: inelasticity .* nan"):
        train(recipe, simulated, tmp_path / "run", machine=quiet)
    assert not (tmp_path / "run").exists()
    dark = SimpleNamespace(
        path="dark",
        shards=[None],
        pulse_map=simulated.pulse_map,
        event_column=lambda name, shard: np.array(
            [1.0, 0.0] if name == "visible_energy" else [7, 8]
        ),
    )
    subset = SimpleNamespace(mask=lambda store, shard: np.array([True, True]))
    data: Any = SimpleNamespace(
        store=dark, train_events=subset, validation_events=subset
    )
    with pytest.raises(ValueError, match=r"visible_energy .* 0\.0 for event 8 of dark"):
        check_event_weight("visible_energy", data)
    dark.event_column = lambda name, shard: np.zeros(2)
    with pytest.raises(ValueError, match=r"above 0 for some event, .* training .*dark"):
        check_event_weight("weight", data)
    with pytest.raises(ValueError, match="no event column 'inelastic'"):
        train(
            replace(recipe, event_weight="inelastic"), simulated, tmp_path / "other",
            machine=quiet,
        )  # fmt: skip


class TestEventsWithoutALabel:
    def spoil(self, monkeypatch: pytest.MonkeyPatch, labels: dict[str, Any]) -> None:
        """Let every fourth event have no label of some, by its event_id."""
        from graphnet_icecube2nd.loading import reading, subset

        make = reading.make_label

        def spoilt(name: str, columns: Any, names: Any) -> Any:
            label = np.array(make(name, columns, names))
            (first, *_) = columns.values()
            gone = labels.get(name)
            if gone is not None:
                label[np.isin(np.asarray(first), gone)] = np.nan
            return label

        monkeypatch.setattr(reading, "make_label", spoilt)
        monkeypatch.setattr(subset, "make_label", spoilt)

    def test_gradients_of_the_others_stay(
        self, three: Recipe, simulated: EventStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches = []
        energy = simulated.whole_event_column("energy")
        for gone in ([], energy[::3]):
            self.spoil(monkeypatch, {"energy": np.asarray(gone)})
            reader = EventReader(
                simulated, truth=("direction", "energy", "track"), max_pulses=32
            )
            batches.append(reader.batch(np.arange(24)))
            monkeypatch.undo()
        assert batches[1].truth is not None
        assert int(batches[1].truth["energy"].isnan().sum()) == 8
        gradients = []
        for batch in batches:
            model = first_model(three)
            model.loss(model.outputs(batch), batch.truth).backward()
            gradients.append(
                {n: p.grad for n, p in model.named_parameters() if "tasks." in n}
            )
        for name, gradient in gradients[0].items():
            same = torch.equal(gradient, gradients[1][name])
            assert same == ("energy" not in name), name
            assert gradients[1][name].isfinite().all()

    def test_a_batch_without_any_label_of_a_task(
        self, three: Recipe, simulated: EventStore
    ) -> None:
        names = ("direction", "energy", "track")
        batch = EventReader(simulated, truth=names, max_pulses=32).batch(np.arange(8))
        truth = {**batch.truth, "track": torch.full((8,), torch.nan)}  # type: ignore[dict-item]
        model = first_model(three)
        losses = model.losses(model.outputs(batch), truth)
        assert float(losses["track"].detach()) == 0
        model.weighted(losses).backward()
        gradient = model.get_parameter("tasks.track.head.weight").grad
        assert gradient is not None
        assert not gradient.any()

    def test_a_learned_weight_does_not_move_without_labels(
        self, three: Recipe, simulated: EventStore
    ) -> None:
        model = first_model(replace(three, weighting="learned"))
        names = ("direction", "energy", "track")
        batch = EventReader(simulated, truth=names, max_pulses=32).batch(np.arange(8))
        assert batch.truth is not None
        truth = {**batch.truth, "track": torch.full((8,), torch.nan)}
        with torch.no_grad():
            model.get_parameter("log_variance.track").fill_(0.5)
        loss = model.loss(model.outputs(batch), truth)
        loss.backward()
        assert model.get_parameter("log_variance.track").grad == 0  # not None: DDP
        assert model.get_parameter("log_variance.energy").grad != 0
        others = {"direction": 1.0, "energy": 0.5}
        losses = model.losses(model.outputs(batch), truth)
        expected = sum(weight * losses[name] for name, weight in others.items())
        torch.testing.assert_close(loss, expected)

    def test_ranks_agree_on_which_tasks_have_labels(self, three: Recipe) -> None:
        """As one process does that has the events of both ranks."""
        model = first_model(replace(three, weighting="learned"))
        module = module_room.TrainingModule(model, three.stages[0])
        num_labels = [
            {"direction": 4, "energy": 4, "track": 0},
            {"direction": 4, "energy": 0, "track": 0},
        ]
        losses = [
            {"direction": 1.0, "energy": 3.0, "track": 0.0},
            {"direction": 2.0, "energy": 0.0, "track": 0.0},
        ]
        mean = torch.tensor([4.0, 2.0, 0.0])
        strategy = SimpleNamespace(reduce=lambda mine, reduce_op: mean)
        module._trainer = SimpleNamespace(world_size=2, strategy=strategy)
        for one, numbers in zip(losses, num_labels, strict=True):
            of_rank = module._shared(
                {name: torch.tensor(value) for name, value in one.items()},
                {name: torch.tensor(value) for name, value in numbers.items()},
            )
            (model.weighted(*of_rank) / 2).backward()
        gradients = {name: float(p.grad) for name, p in model.log_variance.items()}
        # weight * (1 - loss) where there are labels
        assert gradients == {"direction": -0.5, "energy": -1.0, "track": 0.0}

    def test_they_are_counted_aloud_and_left_out(
        self,
        three: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        notices: list[str],
    ) -> None:
        azimuth = simulated.whole_event_column("azimuth")
        energy = simulated.whole_event_column("energy")
        self.spoil(monkeypatch, {"direction": azimuth[:60], "energy": energy[40:100]})
        recipe = replace(
            three, tasks={"direction": {}, "energy": {}}, stages=three.stages[:1]
        )
        notices.clear()
        run = train(recipe, simulated, tmp_path / "run", machine=quiet)
        text = "\n".join(notices)
        assert "energy: 60 of 256 events have no label (energy above 0, GeV)" in text
        assert "direction: 60 of 256 events have no label" in text
        assert "20 of 256 events have no label of any task; they are left out" in text
        assert all(np.isfinite(row["validation_loss"]) for row in run.rows)
        data = make_data(recipe, 0, simulated)
        left_out = set(simulated.whole_event_column("event_id")[40:60].tolist())
        used = {
            number
            for loader in (data.train_dataloader(), data.val_dataloader())
            for batch in loader
            for number in batch.event_id.tolist()
        }
        assert not used & left_out

    def test_a_task_without_any_label_is_an_error(
        self,
        three: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        gone = simulated.whole_event_column("energy")
        self.spoil(monkeypatch, {"energy": gone})
        with pytest.raises(ValueError, match=r"'energy': .* training"):
            train(three, simulated, tmp_path / "run", machine=quiet)


def test_no_event_to_validate_on(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    few = replace(three, data=replace(three.data, validation_fraction=1e-9))
    with pytest.raises(ValueError, match=r"validation.*--set data\.validation_frac"):
        train(few, simulated, tmp_path / "new" / "run", machine=quiet)
    assert not (tmp_path / "new").exists()  # a refused run leaves nothing behind


def test_the_model_remembers_its_input(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    data = replace(three.data, validation_max_pulses=48, selection="hlc_first")
    recipe = replace(three, data=data)

    def stop(rows: Any) -> None:
        raise Cut

    run = tmp_path / "run"
    with pytest.raises(Cut):
        train(recipe, simulated, run, machine=quiet, on_row=stop)
    begun = json.loads((run / "run.json").read_text())["input"]
    done = train(recipe, simulated, run, machine=quiet, resume=True)
    for file in ("model.safetensors", "stage_0/best.safetensors",
                 "stage_1/last.safetensors"):  # fmt: skip
        config = load_model(run / file).input_config
        assert config is not None
        assert config.to_dict() == begun, "a run that goes on has the same"
    config = done.model.input_config
    assert config is not None
    assert (config.detector, config.max_pulses) == (simulated.detector.name, 48)
    assert config.selection == "hlc_first"
    ranges = config.ranges
    assert set(ranges) == {"x", "y", "z", "time", "charge", "n_pulses"}
    assert -600 < ranges["x"][0] < -300 < 300 < ranges["x"][1] < 600
    assert 5_000 < ranges["time"][0] < ranges["time"][1] < 40_000
    assert 0 < ranges["charge"][0] < 1 < ranges["charge"][1]
    assert ranges["n_pulses"][0] >= 1


def test_panels_of_the_tasks(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    run = train(three, simulated, tmp_path / "run", machine=quiet)
    rows = read_history(run.path / "metrics.csv")
    figure = draw_curves(rows, points=read_history(run.path / "training.csv"))
    titles = [axes.get_ylabel() for axes in figure.axes]
    assert [title.splitlines()[0] for title in titles] == [
        "mean opening angle of", "energy, log10 error", "track, accuracy",
        "loss of the stage", "learning rate",
    ]  # fmt: skip
    angle, energy, track, _, _ = figure.axes
    (degrees,) = circle_of(angle).get_ydata()
    best = min(row["direction/opening_angle"] for row in rows)
    assert np.deg2rad(degrees) == pytest.approx(best)
    for axes, name, choose in (
        (energy, "energy/log10_error", min),
        (track, "track/accuracy", max),
    ):
        (circled,) = circle_of(axes).get_ydata()
        assert circled == choose(row[name] for row in rows)
    _, height = figure.get_size_inches()
    assert min(axes.get_position().height * height for axes in figure.axes) > 0.7


def circle_of(axes: Any) -> Any:
    (circle,) = [line for line in axes.get_lines() if line.get_markersize() == 8]
    return circle


class MeanPool(nn.Module):
    """The mean of the features, through one layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(9, dim)

    def forward(self, batch: PackedBatch) -> Tensor:
        mean_BF = torch.segment_reduce(batch.features, "mean", lengths=batch.lengths)
        counts_B1 = batch.n_pulses[:, None].log10()
        return torch.cat([self.layer(mean_BF)[:, 1:], counts_B1], dim=1)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task and a backbone of somebody else's."""
    for registry, name in ((TASKS, "log_pulses"), (MODELS, "mean_pool")):
        known = dict(registry._entries)
        known.pop(name, None)  # of another test file
        monkeypatch.setattr(registry, "_entries", known)

    @register_model
    def mean_pool(dim: int = 8) -> nn.Module:
        return MeanPool(dim)

    @register_task
    class LogPulses(Task):
        name: ClassVar[str] = "log_pulses"
        truth: ClassVar[tuple[str, ...]] = ("n_pulses",)
        num_outputs: ClassVar[int] = 1
        columns: ClassVar[tuple[Column, ...]] = (Column("log_pulses"),)

        def target(self, truth: Mapping[str, Tensor]) -> Tensor:
            return truth["n_pulses"].float().log10()

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return (output[:, 0] - target).square()

        def predict(self, output: Tensor) -> dict[str, Tensor]:
            return {"log_pulses": output[:, 0]}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("tasks", [["log_pulses"], ["log_pulses", "track"], []])
def test_tasks_and_backbones_of_others(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    tasks: list[str],
) -> None:
    stage = replace(
        tiny.stages[0], lr_max=0.05, epochs=4.0, accumulate_events=16, pct_start=0.1
    )
    recipe = replace(
        tiny, model="mean_pool", model_kwargs={}, tasks=tasks, stages=(stage,)
    )

    def stop(rows: Any) -> None:
        if len(rows) == 3:
            raise Cut

    options: dict[str, Any] = {"machine": quiet}
    with pytest.raises(Cut):
        train(recipe, simulated, tmp_path / "run", on_row=stop, **options)
    run = train(recipe, simulated, tmp_path / "run", resume=True, **options)
    model: Model = load_model(run.path / "model.safetensors")
    assert list(model.task_map) == (tasks or ["direction"])
    if "log_pulses" in tasks:
        losses = [row["log_pulses/loss"] for row in run.rows]
        assert losses[-1] < 0.5 * losses[0]
        assert recipe.monitor == "loss"
    with pytest.raises(ValueError, match=r"model_kwargs\.dims is unknown.*dim"):
        train(
            recipe, simulated, tmp_path / "new", overrides=["model_kwargs.dims=3"],
            **options,
        )  # fmt: skip


def test_the_vertex_learns(
    three: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    """Also with events that are moved, and of which some have no time."""
    stage = replace(
        three.stages[0], epochs=10.0, pct_start=0.2, lr_max=4e-3, accumulate_events=16
    )
    data = replace(
        three.data, num_sub_epochs=1, augmentations=({"kind": "rotate_about_z"},)
    )
    recipe = replace(
        three, tasks=["vertex"], stages=(stage,), data=data,
        monitor="vertex/distance",
    )  # fmt: skip
    machine = replace(quiet, checkpoint_steps=None)
    run = train(recipe, simulated, tmp_path / "run", machine=machine)
    first, last = run.rows[0], run.rows[-1]
    assert last["vertex/loss"] < first["vertex/loss"] - 0.5
    assert last["vertex/time_error"] < 0.8 * first["vertex/time_error"]
    assert last["vertex/distance"] < 100
    assert 0.4 < last["vertex/inside_68"] < 0.95
