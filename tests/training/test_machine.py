"""What a machine's options do to a run, and to Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

import pytorch_lightning

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.loading.loader import EventLoader
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import (
    StageRecorder,
    TrainerConfig,
    make_trainer,
)

Weights = Callable[[Path], dict[str, Any]]


@pytest.fixture
def one_stage(tiny: Recipe) -> Recipe:
    return replace(tiny, stages=tiny.stages[:1])


def test_accelerator_devices_strategy_and_nodes_are_the_trainers(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU a trainer cannot tell what it was asked for."""
    given: dict[str, Any] = {}

    def instead(**options: Any) -> Any:
        given.update(options)
        return SimpleNamespace(precision="32-true", strategy=None)

    monkeypatch.setattr(pytorch_lightning, "Trainer", instead)
    options = {
        "accelerator": "gpu",
        "devices": "0,2",
        "strategy": "ddp_find_unused_parameters_true",
        "num_nodes": 3,
    }
    make_trainer(tiny, 0, tmp_path, TrainerConfig(progress=False, **options))
    assert {name: given[name] for name in options} == options


def test_processes_read_and_change_nothing(
    one_stage: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    read = EventLoader._from_workers

    def noted(self: EventLoader, blocks: Any) -> Any:
        asked.append(self.num_workers)
        return read(self, blocks)

    monkeypatch.setattr(EventLoader, "_from_workers", noted)
    weights = []
    for num_workers in (0, 1):
        machine = replace(quiet, num_workers=num_workers)
        run = tmp_path / str(num_workers)
        train(one_stage, simulated, run, machine=machine)
        weights.append(weights_of(run))
        assert set(asked) == ({1} if num_workers else set())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("minutes", "at_each_step"), [(1e-9, True), (60.0, False)])
def test_checkpoints_within_a_sub_epoch_come_by_the_clock(
    one_stage: Recipe,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    at_each_step: bool,
) -> None:
    """The two sub-epochs end with one anyway."""
    saved: list[int] = []
    save = StageRecorder._save

    def noted(self: StageRecorder, trainer: Any) -> None:
        saved.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(StageRecorder, "_save", noted)
    machine = TrainerConfig(
        accelerator="cpu", progress=False, plot=False, checkpoint_minutes=minutes
    )
    run = train(one_stage, simulated, tmp_path / "run", machine=machine)
    ends = [row["step"] for row in run.rows]
    assert ends[0] > 1
    assert saved == (list(range(1, ends[-1] + 1)) if at_each_step else ends)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under Lightning, with an average, and gone on with: all but the last kernels.

    The backend `eager` runs what was traced with torch's own operations.
    """
    train(tiny, simulated, tmp_path / "plain", machine=quiet)
    compile, calls = torch.compile, []

    def eagerly(function: Any, **options: Any) -> Any:
        traced = compile(function, **options, backend="eager")

        def counted(*args: Any) -> Any:
            calls.append(torch.is_grad_enabled())
            return traced(*args)

        return counted

    monkeypatch.setattr(torch, "compile", eagerly)

    class Cut(Exception):
        pass

    def cut(rows: Any) -> None:
        if len(rows) == 3:
            raise Cut

    options: dict[str, Any] = {
        "overrides": ["compile=true"],
        "machine": quiet,
    }
    run = tmp_path / "compiled"
    with pytest.raises(Cut):
        train(tiny, simulated, run, on_row=cut, **options)
    train(tiny, simulated, run, resume=True, **options)
    assert {True, False} == set(calls), "trained with it and validated with it"
    ours, plain = weights_of(run), weights_of(tmp_path / "plain")
    for name, weights in plain.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-5, atol=1e-5)
