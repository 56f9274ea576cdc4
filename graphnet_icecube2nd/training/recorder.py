"""The recorder of a stage: checkpoints, weights and measurements into the run's folder.

A stage's folder holds `resume.ckpt` while it trains, `last.safetensors` and
`best.safetensors` after each sub-epoch, and `finished.json` once it is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.memory import give_back_memory, memory_mb
from graphnet_icecube2nd.models.weights import save_model
from graphnet_icecube2nd.training.history import (
    POINT_COLUMNS,
    Row,
    column_of,
    read_history,
    renamed,
    write_history,
)
from graphnet_icecube2nd.training.module import TrainingModule

try:
    from pytorch_lightning.callbacks import Callback
except ImportError:
    Callback = object

RESUME, LAST, BEST = "resume.ckpt", "last.safetensors", "best.safetensors"
HISTORY, POINTS = "metrics.csv", "training.csv"


class StageRecorder(Callback):  # type: ignore[misc]
    """Writes what a stage leaves behind, and what it needs to go on after a kill.

    Args:
        run: The run's folder.
        folder: The stage's.
        stage: Its number, from 0.
        rows: Measurements of the stages before.
        monitor: Value of the validation by which the best weights are chosen.
        higher_is_better: Whether larger values of it are better.
        patience: Ends the stage after so many sub-epochs without better ones.
        every_minutes: A checkpoint within a sub-epoch after so many minutes; each ends
            with one anyway.
        every_steps: A checkpoint after so many optimiser steps, besides.
        on_start: Called with the trainer when training begins.
        on_row: Called with the rows after each sub-epoch.
        draw: Called with the rows, and those of training.csv, at each checkpoint.
    """

    def __init__(
        self,
        run: Path,
        folder: Path,
        stage: int,
        rows: list[Row],
        *,
        monitor: str = "loss",
        higher_is_better: bool = False,
        patience: int | None = None,
        every_minutes: float = 5.0,
        every_steps: int | None = None,
        on_start: Callable[[Any], None] | None = None,
        on_row: Callable[[list[Row]], None] | None = None,
        draw: Callable[[list[Row], list[Row]], None] | None = None,
    ) -> None:
        self.run, self.folder, self.stage = run, folder, stage
        self.rows = list(rows)
        self.monitor, self.patience = monitor, patience
        self._sign = -1.0 if higher_is_better else 1.0
        self.every_seconds, self.every_steps = 60 * every_minutes, every_steps
        self.on_start, self.on_row, self.draw = on_start, on_row, draw
        self.points: list[Row] = []  # of this stage, in training.csv
        self._points_before: list[Row] = []  # of the stages before
        # Sum and number of the steps' losses since the last row, and the last point.
        self._losses = {"row": [0.0, 0], "point": [0.0, 0]}
        self.best = float("inf")  # of the monitor, negative where higher is better
        self._seen = [0, 0]  # events and pulses of this rank since they were added up
        self._total = [0, 0]  # of all ranks in the stage before that
        self._seconds = 0.0  # of training in former processes
        self._saved_at = self._begun = time.monotonic()
        self._saved_step = -1

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "rows": self.rows,
            "best": self.best,
            "total": list(self._total),
            "seconds": self._elapsed(),
            "points": self.points,
            "losses": {name: list(sums) for name, sums in self._losses.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        self.rows, self.best = [renamed(r) for r in state["rows"]], state["best"]
        self._total, self._seconds = list(state["total"]), state["seconds"]
        self.points = list(state.get("points", []))  # earlier releases had none
        for name, sums in state.get("losses", {}).items():
            self._losses[name] = list(sums)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Start the clock; a stage that was out of patience still is."""
        self._saved_at = self._begun = time.monotonic()
        self._saved_step = trainer.global_step
        trainer.should_stop = self._is_out_of_patience()
        if not trainer.is_global_zero:
            return
        if (self.run / POINTS).is_file():
            read = read_history(self.run / POINTS)
            self._points_before = [row for row in read if row["stage"] < self.stage]
        if self.on_start is not None:
            self.on_start(trainer)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: PackedBatch, index: int
    ) -> None:
        """Save, right after an optimiser step and never at the end of a sub-epoch."""
        self._seen[0] += len(batch)
        self._seen[1] += len(batch.features)
        if (index + 1) % trainer.accumulate_grad_batches:
            return  # in between gradients are half made
        for sums in self._losses.values():
            sums[0] += module.step["train_loss"]
            sums[1] += 1
        # At the end the validation is to come.
        is_last = index + 1 >= trainer.num_training_batches
        if not is_last and self._is_due(trainer):
            self._add_up(trainer, module)
            self.points.append(self._point(trainer, module))
            self._save(trainer)
            if trainer.is_global_zero:
                self._show()

    def on_train_epoch_end(self, trainer: Any, module: TrainingModule) -> None:
        """Write weights and measurements after the validation of a sub-epoch."""
        self._add_up(trainer, module)
        value = self._sign * module.validation[self.monitor]
        value = math.inf if math.isnan(value) else value
        has_best = any(row["best"] for row in self.rows_of_stage())
        is_best = value < self.best or not has_best
        if is_best:
            self.best = value
        self.rows.append(self._row(trainer, module, is_best))
        self.points.append(self._point(trainer, module))
        if trainer.is_global_zero:
            save_model(module.result, self.folder / LAST)
            if is_best:
                save_model(module.result, self.folder / BEST)
            write_history(self.run / HISTORY, self.rows)
            self._show()
            if self.on_row is not None:
                self.on_row(self.rows)
        trainer.should_stop = trainer.should_stop or self._is_out_of_patience()
        self._save(trainer)

    def rows_of_stage(self) -> list[Row]:
        """Return the measurements of this stage."""
        return [row for row in self.rows if row["stage"] == self.stage]

    def _is_out_of_patience(self) -> bool:
        if self.patience is None:
            return False
        last = self.rows_of_stage()[-self.patience :]
        return len(last) == self.patience and not any(row["best"] for row in last)

    def _add_up(self, trainer: Any, module: TrainingModule) -> None:
        """Add what all ranks have seen; a checkpoint holds one rank's state only."""
        seen = torch.tensor(self._seen, dtype=torch.float64, device=module.sums_device)
        new = trainer.strategy.reduce(seen, reduce_op="sum").tolist()
        self._total = [int(a + b) for a, b in zip(self._total, new, strict=True)]
        self._seen = [0, 0]

    def _save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.folder / RESUME)
        give_back_memory()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _show(self) -> None:
        points = [*self._points_before, *self.points]
        write_history(self.run / POINTS, points, POINT_COLUMNS)
        if self.draw is not None:
            self.draw(self.rows, points)

    def _is_due(self, trainer: Any) -> bool:
        steps = trainer.global_step - self._saved_step
        if self.every_steps is not None and steps >= self.every_steps:
            return True
        is_due = time.monotonic() - self._saved_at >= self.every_seconds
        if trainer.world_size > 1:  # all ranks save together, by the clock of the first
            is_due = trainer.strategy.broadcast(is_due)
        return is_due

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._begun

    def _mean_loss(self, since: str) -> float:
        """Return the mean loss since the last row or point, and begin anew."""
        in_all, steps = self._losses[since]
        self._losses[since] = [0.0, 0]
        return float(in_all / steps)

    def _point(self, trainer: Any, module: TrainingModule) -> Row:
        return {
            "stage": self.stage,
            "step": trainer.global_step,
            "events": self._total[0],
            "seconds": round(self._elapsed(), 1),
            **module.step,
            "train_loss": self._mean_loss("point"),
        }

    def _row(self, trainer: Any, module: TrainingModule, is_best: bool) -> Row:
        events, pulses = self._total
        return {
            "stage": self.stage,
            "sub_epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "events": events,
            "pulses": pulses,
            "seconds": round(self._elapsed(), 1),
            **module.step,
            "train_loss": self._mean_loss("row"),
            **{column_of(name): value for name, value in module.validation.items()},
            "best": int(is_best),
            "memory_mb": memory_mb(),
        }
