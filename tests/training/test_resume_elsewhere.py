"""A run that goes on elsewhere: another machine, folder, release, or weights gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore, build_model, save_model
from graphnet_icecube2nd.training.recipe import Recipe, read_recipe, write_recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import TrainerConfig

Weights = Callable[[Path], dict[str, Any]]


class Cut(Exception):
    """Stands for a kill, within this process."""


def stop(rows: list[dict[str, Any]]) -> None:
    raise Cut("after a sub-epoch")


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "before"),
    [(None, None), ("threads", 77), ("torch", "1.0"), ("processes", 2)],
)
def test_another_machine_is_said(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    name: str | None,
    before: Any,
    notices: list[str],
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Cut):
        train(tiny, simulated, run, machine=quiet, on_row=stop)
    described = json.loads((run / "run.json").read_text())
    now = {
        "torch": str(torch.__version__),
        "device": "cpu",
        "processes": 1,
        "threads": torch.get_num_threads(),
    }
    assert described["trained_with"] == [now]
    trained_with = [now]
    if name is not None:
        described["trained_with"] = [{**now, name: before}]
        (run / "run.json").write_text(json.dumps(described))
        trained_with = [{**now, name: before}, now]
    notices.clear()
    train(tiny, simulated, run, machine=quiet, resume=True)
    words = [text for text in notices if "bitwise" in text]
    expected = [] if name is None else [f"  {name} {before} before and {now[name]} now"]
    assert [text.partition(":")[0] for text in words] == expected, "once, in words"
    described = json.loads((run / "run.json").read_text())
    assert described["trained_with"] == trained_with


def test_a_run_of_an_earlier_release_goes_on_as_it_began(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    notices: list[str],
) -> None:
    """Its sub-epochs were whole steps of the size that was asked for."""
    stage = replace(tiny.stages[0], batch_size=4, accumulate_events=64)
    recipe = replace(tiny, stages=(stage,))
    steps = {}
    for release in ("this", "earlier"):
        run = tmp_path / release
        if release == "earlier":
            described = json.loads((tmp_path / "this" / "run.json").read_text())
            for key in ("even_steps", "trained_with"):
                del described[key]
            run.mkdir()
            (run / "run.json").write_text(json.dumps({**described, "torch": "1.0"}))
            write_recipe(recipe, run / "recipe.yaml")
        notices.clear()
        done = train(recipe, simulated, run, machine=quiet, resume=True)
        steps[release] = done.rows[-1]["step"]
        events = done.rows[-1]["events"] / done.rows[-1]["step"]
        if release == "earlier":
            assert events == pytest.approx(64, rel=0.1)
            assert any("torch 1.0 before and" in text for text in notices)
            assert any("times the events" in text for text in notices)
        else:
            assert events == pytest.approx(52, rel=0.1)
            assert not any("times the events" in text for text in notices)
    assert steps == {"this": 4, "earlier": 4}


class TestWeightsToStartFrom:
    @pytest.fixture
    def source(self, tiny: Recipe, tmp_path: Path) -> Path:
        torch.manual_seed(1)
        path = tmp_path / "start.safetensors"
        save_model(build_model(tiny.model, **tiny.model_kwargs), path)
        return path

    def test_are_not_asked_for_again(
        self,
        tiny: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        weights_of: Weights,
        source: Path,
    ) -> None:
        """Neither within the stage that began with them nor later."""
        first, second = tiny.stages
        recipe = replace(tiny, stages=(replace(first, weights=str(source)), second))
        calm = train(recipe, simulated, tmp_path / "calm", machine=quiet)
        run = tmp_path / "run"
        with pytest.raises(Cut):
            train(recipe, simulated, run, machine=quiet, on_row=stop)
        source.unlink()
        with pytest.raises(Cut):  # now in the second stage
            train(
                recipe, simulated, run, machine=quiet, resume=True,
                on_row=lambda rows: stop(rows) if rows[-1]["stage"] else None,
            )  # fmt: skip
        again = train(recipe, simulated, run, machine=quiet, resume=True)
        assert same(weights_of(run), weights_of(calm.path))
        assert [row["train_loss"] for row in again.rows] == [
            row["train_loss"] for row in calm.rows
        ]

    def test_of_a_stage_to_come_are(
        self,
        tiny: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        source: Path,
    ) -> None:
        first, second = tiny.stages
        recipe = replace(tiny, stages=(first, replace(second, weights=str(source))))
        run = tmp_path / "run"
        with pytest.raises(Cut):
            train(recipe, simulated, run, machine=quiet, on_row=stop)
        source.unlink()
        with pytest.raises(FileNotFoundError, match=r"stages\.1\.weights: "):
            train(recipe, simulated, run, machine=quiet, resume=True)

    def begun_beside_its_weights(
        self,
        tiny: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        run: Path,
        name: str,
    ) -> Recipe:
        """Begin a run whose first stage has its weights by name alone, and cut it."""
        recipe = replace(tiny, stages=(replace(tiny.stages[0], weights=name),))
        with pytest.raises(Cut):
            train(recipe, simulated, run, machine=quiet, on_row=stop)
        return recipe

    def test_do_not_depend_on_where_one_stands(
        self,
        tiny: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        source: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run = tmp_path / "run"
        monkeypatch.chdir(tmp_path)
        recipe = self.begun_beside_its_weights(tiny, quiet, simulated, run, source.name)
        assert read_recipe(run / "recipe.yaml").stages[0].weights == str(source)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match=r"elsewhere/start\.safetensors"):
            train(recipe, simulated, tmp_path / "new", machine=quiet)
        done = train(
            str(run / "recipe.yaml"), simulated, run, machine=quiet, resume=True,
        )  # fmt: skip
        assert len(done.rows) == 2

    def test_a_path_that_an_earlier_release_kept_as_it_was(
        self,
        tiny: Recipe,
        quiet: TrainerConfig,
        simulated: EventStore,
        tmp_path: Path,
        source: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run = tmp_path / "run"
        monkeypatch.chdir(tmp_path)
        recipe = self.begun_beside_its_weights(tiny, quiet, simulated, run, source.name)
        write_recipe(recipe, run / "recipe.yaml")
        done = train(recipe, simulated, run, machine=quiet, resume=True)
        assert len(done.rows) == 2
