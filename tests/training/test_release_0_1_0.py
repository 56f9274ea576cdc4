"""Runs that release 0.1.0 left: they go on, and their files read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore, load_model
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipe import read_recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import TrainerConfig

FILES = Path(__file__).resolve().parents[1] / "release_0_1_0"


@pytest.fixture(scope="module")
def store() -> EventStore:
    return EventStore(FILES / "store_of_run")


def test_an_old_store_says_its_version_of_the_simulation(store: EventStore) -> None:
    assert len(store) == 400
    assert any("version 1:" in note for note in store.manifest.notes)
    pytest.importorskip("scipy")
    from graphnet_icecube2nd.likelihood.limit import limit_events

    with pytest.raises(ValueError, match="version"):
        limit_events(store)


def test_an_interrupted_run_goes_on(
    store: EventStore, quiet: TrainerConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(FILES / "interrupted", run)
    recipe = read_recipe(run / "recipe.yaml")
    done = train(recipe, store, run, machine=quiet, resume=True)
    expected = read_history(FILES / "run" / "metrics.csv")
    assert len(done.rows) == len(expected) == 4
    for ours, theirs in zip(done.rows, expected, strict=True):
        for name in ("step", "events", "pulses", "best"):
            assert ours[name] == theirs[name]
        for name in ("train_loss", "validation_loss", "direction/opening_angle"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    known = load_model(FILES / "run" / "model.safetensors").state_dict()
    for name, value in done.model.state_dict().items():
        # To the bit where threads and release of PyTorch are those of the fixture.
        torch.testing.assert_close(value, known[name], rtol=1e-3, atol=1e-3)
    assert done.model.input_config is not None
    assert done.model.input_config.selection == "hlc_first"


def test_files_of_a_run_read() -> None:
    rows = read_history(FILES / "run" / "metrics.csv")
    assert rows[0]["direction/opening_angle"] == 1.5674378232258122
    assert rows[0]["direction/loss"] == rows[0]["validation_loss"]
    assert rows[0]["raw_direction/opening_angle"] is None
    assert rows[3]["raw_direction/opening_angle"] == 1.5195277958381466
    assert not any("angle_deg" in name for name in rows[0])
    recipe = read_recipe(FILES / "run" / "recipe.yaml")
    assert (recipe.tasks, recipe.monitor) == ({}, "direction/opening_angle")


def test_a_finished_run_is_known(store: EventStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FILES / "run", run)
    shutil.copy(run / "model.safetensors", run / "stage_1" / "best.safetensors")
    recipe = read_recipe(run / "recipe.yaml")
    done: Any = train(recipe, store, run, resume=True)
    assert done.handed_over["direction/opening_angle"] == 1.523529448160311


def test_curves_of_a_run() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    rows = read_history(FILES / "run" / "metrics.csv")
    angle, _, _ = draw_curves(rows).axes
    assert "deg" in angle.get_ylabel()
    labels = [line.get_label() for line in angle.get_lines()]
    assert "raw weights" in labels
