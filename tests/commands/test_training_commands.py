"""train, recipes, tune, as a user types them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")
pytest.importorskip("pytorch_lightning")

from graphnet_icecube2nd import (
    EventStore,
)
from graphnet_icecube2nd.commands import training
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.published import (
    as_store,
    read_published_config,
)
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.training import run as run_room
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipe import as_published, read_recipe, write_recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.trainer import TrainerConfig
from graphnet_icecube2nd.tuning import study as tune_room
from graphnet_icecube2nd.tuning.study import TuningResult, tune

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
TINY = (
    "model_kwargs={dim: 32, dim_base: 8, depth: 1, head_size: 16, depth_rel: 1}",
    "data.num_sub_epochs=2",
    "stages.0.epochs=0.5",
    "stages.1.epochs=0.5",
    "stages.2.epochs=0.5",
    "data.validation_fraction=0.2",
)
TINY_OPTIONS = [word for text in TINY for word in ("--set", text)]


def test_recipes_are_listed_and_printed(run: Run, tmp_path: Path) -> None:
    listed = run("recipes")
    assert listed.returncode == 0, listed.stderr
    assert "s_d32 " in listed.stdout
    assert "four stages" in listed.stdout
    given = "stages.2.accumulate_events=64"
    shown = run("recipes", "s_d32", "--set", given, "--published")
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    wanted = find_recipe(as_published(find_recipe("s_d32")), [given])
    assert read_recipe(tmp_path / "mine.yaml") == wanted
    wrong = run("recipes", "s_d33")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: no recipe named 's_d33'; did you mean s_d32")


@pytest.mark.slow
def test_train_and_resume(run: Run, simulated: EventStore, tmp_path: Path) -> None:
    words = ["train", "--recipe", "t_sim", "--data", simulated.path, "--out", "run"]
    words += [*TINY_OPTIONS, "--accelerator", "cpu", "--no-plot"]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "stage 2 of 3: combined loss" in done.stdout
    rows = read_history(tmp_path / "run" / "metrics.csv")
    said = (
        "mean opening angle of the validation "
        f"{rows[-1]['direction/opening_angle']:.4f} rad"
    )
    assert said in done.stdout
    assert "events/s=" in done.stdout + done.stderr
    assert not (tmp_path / "run" / "curves.png").exists()
    assert len(read_history(tmp_path / "run" / "metrics.csv")) == 3
    again = run(*words)
    assert again.returncode == 1
    assert "already holds a run" in again.stderr
    resumed = run(*words, "--resume", "--no-progress")
    assert resumed.returncode == 0, resumed.stderr
    assert "stage" not in resumed.stdout


@pytest.mark.slow
def test_the_published_command_line(
    run: Run, make_kaggle_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """README of the published code: two epochs, the second from the first's weights."""
    make_kaggle_folder(tmp_path / "data", {1: [40, 70, 200] * 30, 655: [30, 90] * 8})
    config = {
        "SELECTION": "total",
        "OUT": "BASELINE",
        "PATH": "data/",
        "NUM_WORKERS": 0,
        "SEED": 2023,
        "BS": 4,
        "BS_VALID": 8,
        "L": 32,
        "L_VALID": 48,
        "EPOCHS": 2,
        "LR_MAX": 5e-4,
        "MODEL": "DeepIceModel",
        "MOMS": [0.95, 0.95, 0.95],
        "DIV": 25,
        "DIV_FINAL": 25,
        "EMA": False,
        "MODEL_KWARGS": SMALL,
        "WEIGHTS": False,
        "LOSS_FUNC": "loss_vms",
        "METRIC": "loss",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    first = run(
        "train", "--config", "config.json", "--no-progress", "--accelerator", "cpu",
        "MODEL", "DeepIceModel", "MODEL_KWARGS.depth", "2", "OUT", "B_MODEL_32",
        "LR_MAX", "5e-4", "MOMS", "false",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert "learning rate to 1e-5 and ignores LR_MAX" in first.stdout
    assert "preparing data_store" in first.stdout
    made = read_recipe(tmp_path / "B_MODEL_32" / "recipe.yaml")
    assert made.model_kwargs["depth"] == 2
    assert made.stages[0].momenta == (0.95, 0.85, 0.95)
    second = run(
        "train", "--config", "config.json", "--no-progress", "--accelerator", "cpu",
        "MODEL_KWARGS.depth", "2", "OUT", "B_MODEL_32FT",
        "WEIGHTS", "B_MODEL_32/models/model_7.pth", "LR_MAX", "2e-5", "EMA", "true",
        "LOSS_FUNC", "loss_comb", "MODEL_KWARGS.dim_base", "8",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "using its store data_store" in second.stdout
    assert "B_MODEL_32/model.safetensors (own)" in second.stdout
    rows = read_history(tmp_path / "B_MODEL_32FT" / "metrics.csv")
    assert len(rows) == 2
    assert rows[0]["raw_direction/opening_angle"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "t_sim", "--out", "run"], "--data must be given"),
        (["--data", "x", "--out", "run"], "--recipe must be given"),
        (["--recipe", "t_sim", "LR_MAX", "1"], "KEY VALUE pairs need --config"),
        (
            ["--recipe", "t_sim", "--config", "config.json"],
            "--recipe or --config",
        ),
        (["--config", "config.json", "BSS", "1"], "BSS is unknown; did you mean BS"),
        (["--recipe", "t_sim", "--data", "x", "--out", "run"], "x does not exist"),
    ],
)
def test_wrong_words_say_what(
    run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = run("train", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_tune(run: Run, simulated: EventStore, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "space.yaml").write_text(
        "stages.0.lr_max: {low: 1e-4, high: 1e-2, log: true}\n"
    )
    done = run(
        "tune", "--recipe", "t_sim", "--data", simulated.path, "--space", "space.yaml",
        "--out", "study", "--trials", 2, "--seed", 4, *TINY_OPTIONS,
        "--accelerator", "cpu", "--no-pruning",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "best of 2 trials" in done.stdout
    best = read_recipe(tmp_path / "study" / "best.yaml")
    assert 1e-4 < best.stages[0].lr_max < 1e-2
    assert best.model_kwargs["dim"] == 32


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `train` was given, in place of a training."""
    given: dict[str, Any] = {}

    def instead(recipe: Any, data: Any, out: Any, **options: Any) -> Any:
        given.update(options, recipe=recipe, data=data, out=out)
        row = {"direction/opening_angle": 1.0}
        return SimpleNamespace(handed_over=row, path=Path("run"))

    monkeypatch.setattr(run_room, "train", instead)
    return given


def test_every_option_reaches_the_machine(given: dict[str, Any]) -> None:
    """Called as a function, with all options away from their defaults."""
    machine = {
        "accelerator": "cpu",
        "devices": "2",
        "strategy": "ddp",
        "num_nodes": 3,
        "checkpoint_minutes": 1.5,
        "checkpoint_steps": 9,
        "progress": False,
        "plot": False,
    }
    training.train(
        recipe="s_d32", data=Path("store"), out=Path("run"), set=["seed=1"],
        tasks=None, resume=True, published=True, config=None, overrides=None, workers=5,
        logger=["wandb"], **machine,
    )  # fmt: skip
    assert given["machine"] == TrainerConfig(
        **{**machine, "devices": 2}, num_workers=5, loggers=("wandb",)
    )
    assert given["resume"]
    assert given["overrides"] == ["seed=1"]
    assert given["recipe"] == as_published(find_recipe("s_d32"))


def test_tasks_are_those_of_the_recipe_with_its_options(given: dict[str, Any]) -> None:
    called(
        None, recipe="t_sim", data=Path("store"), out=Path("run"),
        tasks="direction, energy,track", set=["tasks.energy.weight=0.1"],
    )  # fmt: skip
    assert given["recipe"].tasks == {"direction": {}, "energy": {}, "track": {}}
    trained = find_recipe(given["recipe"], given["overrides"])
    assert trained.tasks["energy"] == {"weight": 0.1}
    with pytest.raises(ValueError, match=r"did you mean energy.*must be imported"):
        called(
            None, recipe="t_sim", data=Path("store"), out=Path("run"), tasks="energi"
        )  # fmt: skip
    with pytest.raises(ValueError, match="'direction' more than once"):
        called(
            None, recipe="t_sim", data=Path("store"), out=Path("run"),
            tasks="direction, direction",
        )  # fmt: skip


def test_every_option_of_a_search_reaches_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def instead(recipe: Any, data: Any, space: Any, out: Any, **options: Any) -> Any:
        given.update(options, recipe=recipe, data=data, space=space, out=out)
        return TuningResult(
            value=0.5, values={"seed": 3}, recipe_path=Path("best.yaml"), num_trials=7
        )

    monkeypatch.setattr(tune_room, "tune", instead)
    training.tune(
        recipe="s_d32", data=Path("store"), space=Path("space.yaml"), out=Path("study"),
        trials=7, workers=2, seed=5, set=["seed=1"], pruning=False, accelerator="gpu",
        devices="0,3",
    )  # fmt: skip
    machine = TrainerConfig(
        accelerator="gpu", devices="0,3", progress=False, plot=False
    )
    assert given == {
        "recipe": "s_d32",
        "data": Path("store"),
        "space": Path("space.yaml"),
        "out": Path("study"),
        "num_trials": 7,
        "workers": 2,
        "seed": 5,
        "overrides": ["seed=1"],
        "pruning": False,
        "machine": machine,
    }
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "best of 7 trials: 0.5000", "  seed = 3", "its recipe: best.yaml",
    ]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.json whose PATH has a store beside it."""
    store = tmp_path / "data_store"
    store.mkdir()
    (store / MANIFEST).touch()
    path = tmp_path / "config.json"
    values = {"PATH": str(tmp_path / "data"), "OUT": "mine", "NUM_WORKERS": 3}
    path.write_text(json.dumps(values))
    return path


def called(config: Path | None, **options: Any) -> None:
    """Call `train --config`, all else as it is by default."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(training.train).parameters.items()
    }
    training.train(**{**defaults, "config": config, **options})


def test_python_does_what_the_command_does(given: dict[str, Any], config: Path) -> None:
    called(config, overrides=["LR_MAX", "2e-5"])
    of_the_command = dict(given)
    given.clear()
    asked = read_published_config(config, ["LR_MAX", "2e-5"])
    store, machine = as_store(asked.data), TrainerConfig(num_workers=asked.num_workers)
    run_room.train(asked.recipe, store, asked.out, machine=machine)
    for name in ("recipe", "data", "out", "machine"):
        assert given[name] == of_the_command[name], name
    assert given["data"] == config.with_name("data_store")
    assert given["machine"].num_workers == 3
    called(config, workers=5)
    assert given["machine"].num_workers == 5


def test_what_still_differs_is_printed(
    given: dict[str, Any], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(config)
    plain = capsys.readouterr().out
    assert "learning rate to 1e-5 and ignores LR_MAX" in plain
    assert "independent random eighths" in plain
    called(config, published=True, set=["stages.0.lr_max=3e-5"])
    left = capsys.readouterr().out
    assert "ignores LR_MAX; here it is 3e-05" in left
    assert "here it is float32" in left
    assert "independent random eighths" not in left
    of_a_recipe = {"recipe": "s_d32", "data": Path("store"), "out": Path("run")}
    called(None, **of_a_recipe, published=True)
    assert "here it is 0.0005, 2e-05" in capsys.readouterr().out
    called(None, **of_a_recipe)
    assert "note:" not in capsys.readouterr().out


def test_only_the_first_process_speaks(
    given: dict[str, Any],
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    print_notices(always=True)  # as the program does
    called(config)
    shown = capsys.readouterr().out
    for text in ("note: ", "using its store", "mean opening angle"):
        assert text in shown
    monkeypatch.setenv("LOCAL_RANK", "1")
    given.clear()
    called(config)
    assert given["data"] == config.with_name("data_store")
    assert not capsys.readouterr().out


class TestAsStore:
    def test_a_store_is_itself(
        self, simulated: EventStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert as_store(simulated.path) == simulated.path
        assert not capsys.readouterr().out

    def test_files_become_one_once(
        self,
        make_kaggle_folder: Callable[..., Path],
        tmp_path: Path,
        notices: list[str],
    ) -> None:
        data = make_kaggle_folder(tmp_path / "data", {1: [4, 7], 655: [3]})
        for _ in range(2):
            assert as_store(data) == tmp_path / "data_store"
        assert len(EventStore(tmp_path / "data_store")) == 3
        assert "preparing " in notices[0]
        assert "using its store" in notices[1]
        assert len(notices) == 2

    def test_one_of_several_processes_makes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURM_PROCID", "3")
        with pytest.raises(ValueError, match=r"icecube2nd prepare .*data .*data_store"):
            as_store(tmp_path / "data")


def test_defaults_are_those_of_the_functions() -> None:
    command = inspect.signature(training.train).parameters
    for name in ("accelerator", "devices", "strategy", "num_nodes", "progress", "plot"):
        assert command[name].default == getattr(TrainerConfig(), name), name
    assert command["checkpoint_minutes"].default == TrainerConfig().checkpoint_minutes
    function = inspect.signature(tune).parameters
    search = inspect.signature(training.tune).parameters
    assert search["devices"].default == "1"
    assert search["trials"].default == function["num_trials"].default
    for name in ("workers", "seed", "pruning"):
        assert search[name].default == function[name].default


def test_yaml_files_are_recipes(run: Run, tmp_path: Path) -> None:
    write_recipe(find_recipe("t_sim"), tmp_path / "mine.yaml")
    shown = run("recipes", "mine.yaml")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == (tmp_path / "mine.yaml").read_text()


@pytest.mark.slow
def test_the_example(tmp_path: Path) -> None:
    """The training half of `make demo`, with fewer events; it can be run twice."""
    pytest.importorskip("scipy")
    script = Path(__file__).resolve().parents[2] / "examples"
    words = ["--events", "400", "--held-out", "60", "--sub-epochs", "1"]
    for further in ([], ["--resume"]):
        done = subprocess.run(
            [sys.executable, str(script / "03_train_and_reconstruct.py"),
             "--out", str(tmp_path / "demo"), *words, *further],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "t_sim: 60 events in" in done.stdout
    assert "on validation events" not in done.stdout, "it was resumed, not trained anew"
    rows = [line for line in done.stdout.splitlines() if line.startswith("| all | all")]
    assert [row.split("|")[4].strip() for row in rows] == [
        "line fit", "three minutes", "t_sim",
    ]  # fmt: skip
    page = tmp_path / "demo" / "report" / "report.html"
    assert f"report: {page}" in done.stdout
    assert "60 simulated test events" in page.read_text()


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    """Example 05 with few events: an ensemble, calibrated, in a report; twice."""
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    script = Path(__file__).resolve().parents[2] / "examples" / "05_whole_way.py"
    words = ["--events", "2000", "--held-out", "120", "--members", "2"]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(script), "--out", str(tmp_path / "w"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for name in ("ensemble, calibrated", "ensemble", "one member", "line fit"):
            assert f"\n{name}: mean " in done.stdout
    assert "rad on validation events" in done.stdout
    assert "stage 0 of 1" not in done.stdout, "it went on, and trained nothing anew"
    names = {path.name for path in (tmp_path / "w" / "ensemble").iterdir()}
    assert names == {
        *("ensemble.yaml", "calibration.json"),
        *("member_0.safetensors", "member_1.safetensors"),
    }
    assert (tmp_path / "w" / "report" / "report.html").is_file()
