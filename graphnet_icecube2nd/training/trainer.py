"""Lightning's trainer of a stage, its checkpoints and its progress bar."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.memory import give_back_memory, memory_mb
from graphnet_icecube2nd.models.weights import save_model
from graphnet_icecube2nd.notices import only_from
from graphnet_icecube2nd.plots import save_figure
from graphnet_icecube2nd.training.history import (
    FIRST_COLUMNS,
    POINT_COLUMNS,
    Row,
    column_of,
    draw_curves,
    first_metrics,
    read_history,
    renamed,
    write_history,
)
from graphnet_icecube2nd.training.module import TrainingModule
from graphnet_icecube2nd.training.recipe import OPENING_ANGLE, Recipe
from graphnet_icecube2nd.training.run_folder import (
    BEST,
    LAST,
    RESUME,
    finished_stage,
    note_machine,
)

try:
    from pytorch_lightning.callbacks import Callback, TQDMProgressBar
    from pytorch_lightning.plugins import CheckpointIO
except ImportError:
    Callback = CheckpointIO = TQDMProgressBar = object

HISTORY, POINTS, CURVES = "metrics.csv", "training.csv", "curves.png"
SHOWN = {"train_loss": ("loss", "{:.3f}"), "learning_rate": ("lr", "{:.1e}")}
LOGGERS = ("tensorboard", "wandb")  # beside metrics.csv, which is always written
STRATEGIES = (
    *("auto", "ddp"),
    *("ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"),
)
EXPECTED_WARNINGS = (
    r".*does not have many workers",
    r".*number of training batches",
    r".*isinstance\(treespec, LeafSpec\)",
    r".*GPU available but not used",
    r".*tensorboardX. has been removed",
    r".*module\(s\) in eval mode",  # the average of the weights
    r".*AMP with fp16 is not supported on CPU",  # raised below, as an error
    r".*No (positive|negative) samples in targets",  # in a small validation
    r".*``compute`` method of metric .* was called before the ``update``",  # on a rank
)
PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Devices, loggers and checkpoints of a run.

    These options do not change a recipe. But a stage's `batch_size` is that of one
    device, so very many devices make steps larger than `accumulate_events`.

    Args:
        accelerator: Kind of device: `auto`, `cpu` or `gpu` (`cuda`, `mps`).
        devices: Number of devices, a list of them such as `0,2`, or `auto`.
        strategy: Strategy of Lightning: `auto`, `ddp` or
            `ddp_find_unused_parameters_true` (`_false`). Others shard the weights, or
            their processes return no results, so files and clipping would be wrong.
        num_nodes: Number of machines that train together.
        num_workers: Reading processes; 0: the main process reads.
        loggers: Loggers besides `metrics.csv`: `tensorboard`, `wandb`.
        checkpoint_minutes: Minutes between checkpoints within a sub-epoch.
        checkpoint_steps: Optimiser steps between additional checkpoints.
        progress: Show a progress bar.
        plot: Draw `curves.png` with each checkpoint, if matplotlib is installed.

    Raises:
        ValueError: A logger or strategy does not exist, or a number is too small.
    """

    accelerator: str = "auto"
    devices: str | int = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    num_workers: int = 0
    loggers: tuple[str, ...] = ()
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None
    progress: bool = True
    plot: bool = True

    def __post_init__(self) -> None:
        for name in self.loggers:
            if name not in LOGGERS:
                raise ValueError(
                    f"loggers must be among {', '.join(LOGGERS)} (csv files are always "
                    f"written), found {name!r}"
                )
        check_one_of("strategy", self.strategy, STRATEGIES)
        if not self.checkpoint_minutes > 0:
            raise ValueError(
                f"checkpoint_minutes must be above 0, found {self.checkpoint_minutes}"
            )
        for name in ("num_nodes", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, found {value}")


def make_trainer(
    recipe: Recipe,
    number: int,
    run: Path,
    machine: TrainerConfig,
    on_row: Callable[[list[Row]], None] | None = None,
) -> tuple[Any, StageRecorder]:
    """Return Lightning's trainer of a stage and its recorder.

    Raises ValueError if the device does not support the recipe's precision, or if
    Lightning would start processes that return no results, as in a notebook.
    """
    lightning = import_extra("pytorch_lightning", "training needs", "train")
    recorder = StageRecorder(recipe, number, run, machine, on_row)
    callbacks: list[Any] = [recorder]
    if machine.progress:
        callbacks.append(RateBar(number, len(recipe.stages)))
    with quiet_lightning():
        loggers = [_logger(name, recipe, number, run) for name in machine.loggers]
        trainer = lightning.Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            strategy=machine.strategy,
            num_nodes=machine.num_nodes,
            precision=PRECISION[recipe.precision],
            max_epochs=recipe.num_sub_epochs(number),
            callbacks=callbacks,
            plugins=[WholeCheckpointIO()],
            logger=loggers or False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=machine.progress,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            # Lightning writes files on a signal, which belong to this stage only.
            default_root_dir=run / f"stage_{number}",
        )
    if trainer.precision != PRECISION[recipe.precision]:  # Lightning chose another
        raise ValueError(
            f"precision {recipe.precision} needs a GPU; use float32 or bfloat16 on "
            "this device"
        )
    launcher = getattr(trainer.strategy, "launcher", None)
    if "multiprocessing" in type(launcher).__module__:
        raise ValueError(
            f"strategy {machine.strategy!r} uses processes that return no results in a "
            "notebook: use devices=1, or ddp in a script"
        )
    return trainer, recorder


def emulates_bfloat16(device: torch.device) -> bool:
    """Return whether the processor emulates bfloat16, as far as torch knows."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if device.type != "cpu" or not is_x86:
        return False
    try:
        native = torch.cpu._is_avx512_bf16_supported()
        return not (native or torch.cpu._is_amx_tile_supported())
    except AttributeError:  # torch is older than these
        return False


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress messages of Lightning about intended behaviour."""
    with only_from("pytorch_lightning"), warnings.catch_warnings():
        for text in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=text)
        yield


def close_loggers(trainer: Any) -> None:
    """Finish the run of W&B, which allows one run at a time in a process."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger" and trainer.is_global_zero:
            logger.experiment.finish()


def _logger(name: str, recipe: Recipe, number: int, run: Path) -> Any:
    from pytorch_lightning import loggers

    # A resumed run has the same identity, so that its curves continue.
    identity = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:12]
    try:
        if name == "tensorboard":
            return loggers.TensorBoardLogger(run, name=name, version=f"stage_{number}")
        return loggers.WandbLogger(
            name=f"{run.name}-stage-{number}",
            version=f"{identity}-{number}",
            save_dir=run,
            project="icecube2nd",
            group=run.name,
            tags=[recipe.name],
        )
    except ImportError as error:
        raise ImportError(
            f"the {name} logger needs {name}: pip install {name}"
        ) from error


class StageRecorder(Callback):  # type: ignore[misc]
    """Writes the files of a stage, and the checkpoints from which it resumes.

    `on_row` is called with the rows of all stages after each sub-epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        run: Path,
        machine: TrainerConfig,
        on_row: Callable[[list[Row]], None] | None,
    ) -> None:
        self.run, self.folder, self.stage = run, run / f"stage_{number}", number
        self.rows = finished_stage(run, number - 1)[1] if number else []
        self.monitor, self.patience = recipe.monitor, recipe.stages[number].patience
        self._sign = -1.0 if recipe.higher_is_better else 1.0
        self.every_seconds = 60 * machine.checkpoint_minutes
        self.every_steps, self.plot = machine.checkpoint_steps, machine.plot
        self.on_row = on_row
        self.points: list[Row] = []  # rows of this stage in training.csv
        self._points_before: list[Row] = []  # rows of earlier stages
        # Sum and number of the steps' losses since the last row and the last point.
        self._losses = {"row": [0.0, 0], "point": [0.0, 0]}
        self.best = float("inf")  # best monitor, negated if higher is better
        self._seen = [0, 0]  # events and pulses of this rank since the last sum
        self._total = [0, 0]  # sum over all ranks in the stage until then
        self._seconds = 0.0  # training time in earlier processes
        self._saved_at = self._begun = time.monotonic()
        self._saved_step = -1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "rows": self.rows,
            "best": self.best,
            "total": list(self._total),
            "seconds": self._elapsed(),
            "points": self.points,
            "losses": {name: list(sums) for name, sums in self._losses.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.rows, self.best = [renamed(r) for r in state["rows"]], state["best"]
        self._total, self._seconds = list(state["total"]), state["seconds"]
        self.points = list(state.get("points", []))  # earlier releases had none
        for name, sums in state.get("losses", {}).items():
            self._losses[name] = list(sums)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Start the clock, and stop a resumed stage that was out of patience."""
        self._saved_at = self._begun = time.monotonic()
        self._saved_step = trainer.global_step
        trainer.should_stop = self._is_out_of_patience()
        if not trainer.is_global_zero:
            return
        if (self.run / POINTS).is_file():
            read = read_history(self.run / POINTS)
            self._points_before = [row for row in read if row["stage"] < self.stage]
        note_machine(self.run, trainer)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: PackedBatch, index: int
    ) -> None:
        """Save a checkpoint if due, after an optimiser step within a sub-epoch."""
        self._seen[0] += len(batch)
        self._seen[1] += len(batch.features)
        if (index + 1) % trainer.accumulate_grad_batches:
            return  # gradients are still being accumulated
        for sums in self._losses.values():
            sums[0] += module.step["train_loss"]
            sums[1] += 1
        # The validation follows the last batch.
        is_last = index + 1 >= trainer.num_training_batches
        if not is_last and self._is_due(trainer):
            self._add_point(trainer, module)
            self._save(trainer)
            if trainer.is_global_zero:
                self._show()

    def on_train_epoch_end(self, trainer: Any, module: TrainingModule) -> None:
        """Write weights and measurements after the validation of a sub-epoch."""
        self._add_point(trainer, module)
        value = self._sign * module.validation[self.monitor]
        value = math.inf if math.isnan(value) else value
        has_best = any(row["best"] for row in self._rows_of_stage())
        is_best = value < self.best or not has_best
        if is_best:
            self.best = value
        row = {
            **dict.fromkeys(FIRST_COLUMNS),  # for their order
            "sub_epoch": trainer.current_epoch,
            "pulses": self._total[1],
            **self._measured(trainer, module, since="row"),
            **{column_of(name): value for name, value in module.validation.items()},
            "best": int(is_best),
            "memory_mb": memory_mb(),
        }
        self.rows.append(row)
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

    def _rows_of_stage(self) -> list[Row]:
        return [row for row in self.rows if row["stage"] == self.stage]

    def _is_out_of_patience(self) -> bool:
        if self.patience is None:
            return False
        last = self._rows_of_stage()[-self.patience :]
        return len(last) == self.patience and not any(row["best"] for row in last)

    def _add_point(self, trainer: Any, module: TrainingModule) -> None:
        """Add a row of training.csv, with the events and pulses of all ranks.

        A checkpoint holds the state of one rank, so the ranks' numbers are summed here.
        """
        seen = torch.tensor(self._seen, dtype=torch.float64, device=module.sums_device)
        new = trainer.strategy.reduce(seen, reduce_op="sum").tolist()
        self._total = [int(a + b) for a, b in zip(self._total, new, strict=True)]
        self._seen = [0, 0]
        self.points.append(self._measured(trainer, module, since="point"))

    def _measured(self, trainer: Any, module: TrainingModule, since: str) -> Row:
        """Return the common columns of rows and points."""
        in_all, steps = self._losses[since]
        self._losses[since] = [0.0, 0]
        return {
            "stage": self.stage,
            "step": trainer.global_step,
            "events": self._total[0],
            "seconds": round(self._elapsed(), 1),
            **module.step,
            "train_loss": float(in_all / steps),
        }

    def _save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.folder / RESUME)
        give_back_memory()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _show(self) -> None:
        points = [*self._points_before, *self.points]
        write_history(self.run / POINTS, points, POINT_COLUMNS)
        if self.plot:
            with suppress(ImportError):  # matplotlib is optional
                save_figure(draw_curves(self.rows, points), self.run / CURVES)

    def _is_due(self, trainer: Any) -> bool:
        steps = trainer.global_step - self._saved_step
        if self.every_steps is not None and steps >= self.every_steps:
            return True
        is_due = time.monotonic() - self._saved_at >= self.every_seconds
        # All ranks save together, by the clock of rank 0.
        return bool(trainer.strategy.broadcast(is_due))

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._begun


class WholeCheckpointIO(CheckpointIO):  # type: ignore[misc]
    """Writes checkpoints atomically, and reads them without running their code."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,
    ) -> None:
        """Write a checkpoint; a process that is killed here leaves the previous one."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # An open file, because torch's own error for a path does not say "no space".
        with write_whole(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read tensors and plain values; ValueError for anything else."""
        try:
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"the checksum of {damaged} does not match")
            loaded: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True
            )
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} must be an undamaged checkpoint of tensors and plain values, "
                f"found {type(error).__name__}: {error}. Code from a file is never "
                "run. Remove the file and resume: the stage starts again"
            ) from error
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)


class RateBar(TQDMProgressBar):  # type: ignore[misc]
    """Lightning's progress bar with rates over about the last ten seconds."""

    def __init__(self, stage: int, num_stages: int) -> None:
        super().__init__(refresh_rate=10)
        self._title = f"stage {stage} of {num_stages}"
        self._since = time.monotonic()
        self._events = self._pulses = 0
        self.rates: dict[str, str] = {}

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: PackedBatch, index: int
    ) -> None:
        """Update the rates: those of rank 0 times the number of ranks."""
        self._events += len(batch) * trainer.world_size
        self._pulses += len(batch.features) * trainer.world_size
        seconds = time.monotonic() - self._since
        if seconds > 10 or not self.rates:
            self.rates = {
                "events/s": f"{self._events / max(seconds, 1e-3):,.0f}",
                "pulses/s": f"{self._pulses / max(seconds, 1e-3):,.0f}",
            }
            self._since, self._events, self._pulses = time.monotonic(), 0, 0
        super().on_train_batch_end(trainer, module, outputs, batch, index)

    def on_train_epoch_start(self, trainer: Any, *further: Any) -> None:
        """Show the numbers of stage and sub-epoch."""
        super().on_train_epoch_start(trainer, *further)
        self.train_progress_bar.set_description(
            f"{self._title}, sub-epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        )

    def get_metrics(self, trainer: Any, module: Any) -> dict[str, str]:
        """Return the values beside the bar."""
        shown = dict(self.rates)
        for name, (label, form) in SHOWN.items():
            if name in trainer.callback_metrics:
                shown[label] = form.format(float(trainer.callback_metrics[name]))
        for column in first_metrics(module.validation):
            value = module.validation[column]
            if column == OPENING_ANGLE:
                shown["angle"] = f"{value:.3f} rad = {math.degrees(value):.1f} deg"
            else:
                shown[column.partition("/")[0]] = f"{value:.3f}"
        return shown
