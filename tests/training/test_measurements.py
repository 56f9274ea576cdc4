"""The files of measurements, and when the curves are drawn."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.module import TrainingModule
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import TrainerConfig


def test_losses_are_means_since_the_row_before(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In metrics.csv of a sub-epoch, in training.csv from checkpoint to checkpoint."""
    losses: dict[int, list[float]] = {0: [], 1: []}
    step = TrainingModule.optimizer_step

    def noted(self: TrainingModule, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        losses[int(self.stage.ema)].append(self.step["train_loss"])

    monkeypatch.setattr(TrainingModule, "optimizer_step", noted)
    run = train(
        tiny, simulated, tmp_path / "run",
        machine=replace(quiet, checkpoint_steps=3),
    )  # fmt: skip
    for rows, per_stage in (
        (run.rows, {(0, 4), (4, 8)}),
        # A checkpoint after each third step of a sub-epoch, and after its validation.
        (read_history(run.path / "training.csv"), {(0, 3), (3, 4), (4, 7), (7, 8)}),
    ):
        assert len(rows) == 2 * len(per_stage)
        before = 0
        for row in rows:
            since = before if before < row["step"] else 0
            assert (since, row["step"]) in per_stage
            here = losses[row["stage"]][since : row["step"]]
            assert row["train_loss"] == pytest.approx(sum(here) / len(here), rel=1e-12)
            before = row["step"]
        assert all(0 < row["learning_rate"] <= 2e-3 for row in rows)
        assert all(row["gradient_norm"] > 0 for row in rows)


def test_curves_come_with_every_checkpoint(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from graphnet_icecube2nd.training import trainer

    drawn: list[tuple[int, list[int]]] = []

    def noted(rows: list[Any], points: list[Any]) -> None:
        drawn.append((len(rows), [point["step"] for point in points]))
        if len(drawn) == 6:
            raise ZeroDivisionError("stands for a kill")

    saved: list[Path] = []
    monkeypatch.setattr(trainer, "draw_curves", noted)
    monkeypatch.setattr(trainer, "save_figure", lambda _, path: saved.append(path))
    machine = replace(quiet, plot=True, checkpoint_steps=2)
    for resume in (False, True):
        with nullcontext() if resume else pytest.raises(ZeroDivisionError):
            train(
                tiny, simulated, tmp_path / "run", machine=machine, resume=resume,
            )  # fmt: skip
    assert drawn[:4] == [(0, [2]), (1, [2, 4]), (1, [2, 4, 6]), (2, [2, 4, 6, 8])]
    assert drawn[4] == (2, [2, 4, 6, 8, 2])
    # What was drawn of a sub-epoch that was then lost is not there twice.
    assert drawn[-1] == (4, [2, 4, 6, 8, 2, 4, 6, 8])
    assert set(saved) == {tmp_path / "run" / "curves.png"}
