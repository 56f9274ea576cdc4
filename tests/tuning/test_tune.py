"""The search: spaces, trials, pruning, a study that goes on."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("optuna")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")

import optuna

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.training.recipe import Recipe, read_recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import check_model
from graphnet_icecube2nd.training.trainer import TrainerConfig
from graphnet_icecube2nd.tuning import study as room
from graphnet_icecube2nd.tuning.study import machines_of_workers, read_space, tune

SPACE = {
    "stages.0.lr_max": {"low": 1e-4, "high": 1e-2, "log": True},
    "stages.0.loss": {"choices": ["vmf", "combined"]},
    "model_kwargs.depth": {"low": 1, "high": 2},
}


@pytest.fixture
def small(tiny: Recipe) -> Recipe:
    return replace(tiny, stages=(replace(tiny.stages[0], epochs=1.0),))


def study_of(folder: Path) -> Any:
    storage = f"sqlite:///{folder / 'study.db'}"
    return optuna.load_study(study_name=room.STUDY, storage=storage)


def test_searches_and_goes_on(
    small: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    options: dict[str, Any] = {"machine": quiet, "pruning": False, "seed": 3}
    first = tune(small, simulated, SPACE, out, num_trials=2, **options)
    assert first.num_trials == 2
    again = tune(small, simulated, SPACE, out, num_trials=3, **options)
    assert again.num_trials == 3
    study = study_of(out)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    assert len({t.params["stages.0.lr_max"] for t in study.trials}) == 3
    assert again.value == min(t.value for t in study.trials)
    best = read_recipe(again.recipe_path)
    assert best.stages[0].lr_max == again.values["stages.0.lr_max"]
    assert best.stages[0].loss == again.values["stages.0.loss"]
    assert best.model_kwargs["depth"] == again.values["model_kwargs.depth"]
    assert best.name == "tiny"
    assert len(list((out / "trials").iterdir())) == 3
    with pytest.raises(ValueError, match="study of another space"):
        tune(small, simulated, {"seed": {"low": 1, "high": 2}}, out, **options)
    with pytest.raises(ValueError, match="study of another recipe"):
        tune(replace(small, seed=1), simulated, SPACE, out, **options)


def test_a_killed_trial_goes_on_where_it_stood(
    small: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process dies after the first sub-epoch of its second trial."""
    out, begun = tmp_path / "study", []
    train = room.train

    class Died(BaseException):
        pass

    def noted(recipe: Recipe, data: Any, folder: Path, **options: Any) -> Any:
        begun.append(folder.name)
        report = options["on_row"]

        def on_row(rows: Any) -> None:
            report(rows)
            if len(begun) == 2 and len(rows) == 1:
                raise Died

        return train(recipe, data, folder, **{**options, "on_row": on_row})

    monkeypatch.setattr(room, "train", noted)
    options: dict[str, Any] = {"machine": quiet, "pruning": False, "num_trials": 2}
    with pytest.raises(Died):
        tune(small, simulated, SPACE, out, **options)
    study = study_of(out)
    (left,) = [t for t in study.trials if t.state.name != "COMPLETE"]
    assert left.state.name == "RUNNING", "as after a kill, nobody told the study"
    done = tune(small, simulated, SPACE, out, **options)
    assert done.num_trials == 2
    assert begun == ["0000", "0001", "0001"]
    retried = study_of(out).trials[-1]
    assert retried.params == left.params


def test_trials_that_fall_behind_are_pruned(
    small: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Learning rates count as angles: whoever is above the median is stopped."""

    def pretend(recipe: Recipe, data: Any, folder: Path, **options: Any) -> Any:
        rows = []
        for _ in range(3):
            value = recipe.stages[0].lr_max
            rows.append({"stage": 0, "direction/opening_angle": value})
            options["on_row"](rows)
        return type("Run", (), {"rows": rows})

    monkeypatch.setattr(room, "train", pretend)
    space = {"stages.0.lr_max": SPACE["stages.0.lr_max"]}
    states = {}
    for pruning in (True, False):
        out = tmp_path / f"study_{pruning}"
        tune(
            small, simulated, space, out, num_trials=14, machine=quiet, pruning=pruning
        )  # fmt: skip
        states[pruning] = {t.state.name for t in study_of(out).trials}
    assert states == {True: {"COMPLETE", "PRUNED"}, False: {"COMPLETE"}}


def test_the_largest_counts_where_larger_is_better(
    small: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pretend(recipe: Recipe, data: Any, folder: Path, **options: Any) -> Any:
        rate = recipe.stages[0].lr_max
        rows = [{"stage": 0, "track/auc": auc} for auc in (rate, rate / 2)]
        return type("Run", (), {"rows": rows})

    monkeypatch.setattr(room, "train", pretend)
    recipe = replace(small, tasks=("direction", "track"), monitor="track/auc")
    space = {"stages.0.lr_max": SPACE["stages.0.lr_max"]}
    out = tmp_path / "study"
    done = tune(recipe, simulated, space, out, num_trials=4, machine=quiet)
    rates = [t.params["stages.0.lr_max"] for t in study_of(out).trials]
    assert done.value == done.values["stages.0.lr_max"] == max(rates)


@pytest.mark.slow
def test_workers_share_a_study(
    small: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    done = tune(
        small, simulated, SPACE, out, num_trials=4, workers=2, machine=quiet
    )  # fmt: skip
    assert done.num_trials >= 4
    trials = study_of(out).trials
    assert len(list((out / "trials").iterdir())) == len(trials)
    processes = {t.user_attrs[room.PROCESS] for t in trials}
    assert len(processes) == 2
    assert os.getpid() not in processes


class TestSpies:
    """With a training that only says what it was given."""

    @pytest.fixture(autouse=True)
    def pretend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machines: list[TrainerConfig] = []

        def instead(recipe: Recipe, data: Any, folder: Path, **options: Any) -> Any:
            self.machines.append(options["machine"])
            rows = [{"stage": 0, "direction/opening_angle": recipe.stages[0].lr_max}]
            return type("Run", (), {"rows": rows})

        monkeypatch.setattr(room, "train", instead)

    def test_the_seed_is_the_samplers(
        self, small: Recipe, simulated: EventStore, tmp_path: Path
    ) -> None:
        found = []
        for place, seed in enumerate((3, 3, 4)):
            out = tmp_path / str(place)
            tune(small, simulated, SPACE, out, num_trials=2, seed=seed)
            found.append([t.params for t in study_of(out).trials])
        assert found[0] == found[1] != found[2]

    def test_a_trial_has_one_device(
        self, small: Recipe, simulated: EventStore, tmp_path: Path
    ) -> None:
        for place, machine in enumerate(
            (None, TrainerConfig(), TrainerConfig(devices="2,"))
        ):
            tune(
                small, simulated, SPACE, tmp_path / str(place), num_trials=1,
                machine=machine,
            )  # fmt: skip
        assert [machine.devices for machine in self.machines] == [1, 1, "2,"]

    def test_each_worker_has_its_own_seed_and_device(
        self,
        small: Recipe,
        simulated: EventStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        given: list[Any] = []

        class InThisProcess:
            exitcode = 0

            def __init__(self, target: Any, args: tuple[Any, ...]) -> None:
                given.append(inspect.signature(target).bind(*args).arguments)
                self.start = partial(target, *args)

            def join(self) -> None:
                pass

        context = SimpleNamespace(Process=InThisProcess)
        monkeypatch.setattr(room.multiprocessing, "get_context", lambda method: context)
        threads = torch.get_num_threads()
        try:
            tune(
                small, simulated, SPACE, tmp_path / "study", num_trials=2, workers=2,
                seed=7, machine=TrainerConfig(accelerator="gpu", devices="1,3"),
            )  # fmt: skip
        finally:
            torch.set_num_threads(threads)
        assert [worker["machine"].devices for worker in given] == ["1,", "3,"]
        assert [worker["seed"] for worker in given] == [7, 8]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"devices": 2}, "devices must be 1, .* 2$"),
            ({"devices": -1}, "devices must be 1, .* -1$"),
            ({"devices": "0,1"}, "2 devices .0,1. for 1 workers"),
            ({"num_nodes": 2}, "num_nodes=1, found 2"),
        ],
    )
    def test_several_devices_of_a_trial_are_refused(
        self,
        small: Recipe,
        simulated: EventStore,
        tmp_path: Path,
        options: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(ValueError, match=message):
            tune(
                small,
                simulated,
                SPACE,
                tmp_path / "study",
                machine=TrainerConfig(**options),
            )
        assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("accelerator", "devices", "workers", "there", "expected"),
    [
        ("auto", "auto", 3, 2, ["0,", "1,", "0,"]),
        ("cuda", 1, 2, 4, ["0,", "1,"]),
        ("auto", "auto", 2, 0, [1, 1]),
        ("cpu", "auto", 2, 4, [1, 1]),
        ("auto", "auto", 1, 4, [1]),
        ("gpu", "0, 3", 4, 4, ["0,", "3,", "0,", "3,"]),
    ],
)
def test_devices_of_workers(
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    devices: str | int,
    workers: int,
    there: int,
    expected: list[str | int],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    machine = TrainerConfig(accelerator=accelerator, devices=devices)
    machines = machines_of_workers(machine, workers)
    assert [each.devices for each in machines] == expected
    assert {each.accelerator for each in machines} == {accelerator}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "names and ranges, .* {}"),
        ({"a": 3}, "a: .* low and high, or choices.* 3"),
        ({"a": {"lo": 1, "high": 2}}, r"a\.lo is unknown; did you mean a\.low|low"),
        ({"a": {"low": 2, "high": 1}}, "low must be below high, .* 2 and 1"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
        ({"a": {"choices": []}}, "a: choices must not be empty"),
        ({"a": {"choices": "vmf"}}, "a: choices must be a list"),
    ],
)
def test_bad_spaces_say_what(space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_space(space)


def test_a_space_is_tried_on_the_recipe_first(
    small: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("stages.0.lrmax: {low: 1e-5, high: 1e-3, log: true}\n")
    with pytest.raises(ValueError, match=r"did you mean stages\.0\.lr_max"):
        tune(small, simulated, path, tmp_path / "study", machine=quiet)
    assert not (tmp_path / "study").exists()
    assert read_space(path)["stages.0.lrmax"]["low"] == 1e-5


def test_the_space_of_the_examples_fits_its_recipe() -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "search_space.yaml"
    space = read_space(path)
    for place in (0, -1):
        values = {
            name: range_["choices"][place]
            if "choices" in range_
            else range_["low" if place == 0 else "high"]
            for name, range_ in space.items()
        }
        recipe = find_recipe("t_sim", values)
        assert recipe.stages[0].lr_max == values["stages.0.lr_max"]
        check_model(recipe)
