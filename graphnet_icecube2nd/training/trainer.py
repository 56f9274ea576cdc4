"""Lightning's trainer for one stage: its machine, its checkpoints, its bar."""

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
MEANT_SO = (
    r".*does not have many workers",
    r".*number of training batches",
    r".*isinstance\(treespec, LeafSpec\)",
    r".*GPU available but not used",
    r".*tensorboardX. has been removed",
    r".*module\(s\) in eval mode",  # the average of the weights
    r".*AMP with fp16 is not supported on CPU",  # said below, as an error
    r".*No (positive|negative) samples in targets",  # of a small validation
    r".*``compute`` method of metric .* was called before the ``update``",  # of a rank
)
PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Where and how a run is computed.

    Nothing here changes a recipe; but a stage's `batch_size` is that of one device, so
    more devices make larger steps where they are more than `accumulate_events` allows.

    Args:
        accelerator: `auto`, `cpu`, `gpu` (`cuda`, `mps`).
        devices: `auto`, a number, or a list of devices as `0,2`.
        strategy: `auto`, `ddp`, or `ddp_find_unused_parameters_true` (`_false`). Other
            strategies of Lightning part the weights between processes, or their results
            do not come back, so a run's files and clipping would be wrong.
        num_nodes: Machines that train together.
        num_workers: Processes that read events; 0: this one.
        loggers: Loggers beside `metrics.csv`: `tensorboard`, `wandb`.
        checkpoint_minutes: Minutes between checkpoints within a sub-epoch.
        checkpoint_steps: Optimiser steps between checkpoints, besides.
        progress: Show a progress bar.
        plot: Draw `curves.png` with each checkpoint, where matplotlib is installed.

    Raises:
        ValueError: No such logger or strategy, or a number below 0.
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
                    f"loggers: csv is always written; besides there are "
                    f"{', '.join(LOGGERS)}; got {name!r}"
                )
        check_one_of("strategy", self.strategy, STRATEGIES)
        if not self.checkpoint_minutes > 0:
            raise ValueError(
                f"checkpoint_minutes must be above 0, got {self.checkpoint_minutes}"
            )
        for name in ("num_nodes", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")


def make_trainer(
    recipe: Recipe,
    number: int,
    run: Path,
    machine: TrainerConfig,
    on_row: Callable[[list[Row]], None] | None = None,
) -> tuple[Any, StageRecorder]:
    """Return Lightning's trainer of a stage and its recorder.

    Raises ValueError where the device does not have the recipe's precision, or where
    Lightning would start processes that leave nothing behind, as in a notebook.
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
            # The stage's: what Lightning writes on a signal is for this stage only.
            default_root_dir=run / f"stage_{number}",
        )
    if trainer.precision != PRECISION[recipe.precision]:  # Lightning takes another
        raise ValueError(
            f"precision {recipe.precision} needs a GPU; on this device there are "
            "float32 and bfloat16"
        )
    launcher = getattr(trainer.strategy, "launcher", None)
    if "multiprocessing" in type(launcher).__module__:
        raise ValueError(
            f"strategy {machine.strategy!r} trains here, in a notebook, in processes "
            "whose results do not come back; take devices=1, or ddp in a script"
        )
    return trainer, recorder


def emulates_bfloat16(device: torch.device) -> bool:
    """Tell whether a processor computes bfloat16 in software, as far as torch knows."""
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
    """Keep back what Lightning says about things that are meant so."""
    with only_from("pytorch_lightning"), warnings.catch_warnings():
        for text in MEANT_SO:
            warnings.filterwarnings("ignore", message=text)
        yield


def close_loggers(trainer: Any) -> None:
    """End what the next stage must begin anew: W&B has one run a process."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger" and trainer.is_global_zero:
            logger.experiment.finish()


def _logger(name: str, recipe: Recipe, number: int, run: Path) -> Any:
    from pytorch_lightning import loggers

    # The same after a kill, so that its curves go on.
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
    """Writes what a stage leaves behind, and what it needs to go on after a kill.

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
        note_machine(self.run, trainer)

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
            **dict.fromkeys(FIRST_COLUMNS),  # in their order
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
        """Add a row of training.csv, over what all ranks have seen.

        A checkpoint holds one rank's state only, so their numbers are added up here.
        """
        seen = torch.tensor(self._seen, dtype=torch.float64, device=module.sums_device)
        new = trainer.strategy.reduce(seen, reduce_op="sum").tolist()
        self._total = [int(a + b) for a, b in zip(self._total, new, strict=True)]
        self._seen = [0, 0]
        self.points.append(self._measured(trainer, module, since="point"))

    def _measured(self, trainer: Any, module: TrainingModule, since: str) -> Row:
        """Return what rows and points have in common, the loss since the last one."""
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
            with suppress(ImportError):  # a training goes on without matplotlib
                save_figure(draw_curves(self.rows, points), self.run / CURVES)

    def _is_due(self, trainer: Any) -> bool:
        steps = trainer.global_step - self._saved_step
        if self.every_steps is not None and steps >= self.every_steps:
            return True
        is_due = time.monotonic() - self._saved_at >= self.every_seconds
        # All ranks save together, by the clock of the first.
        return bool(trainer.strategy.broadcast(is_due))

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._begun


class WholeCheckpointIO(CheckpointIO):  # type: ignore[misc]
    """Checkpoints that are whole or not there, and run no code when they are read."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,
    ) -> None:
        """Write a checkpoint; a process killed meanwhile finds the former one."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # To an open file: errors of a path are torch's own and do not say "no space".
        with write_whole(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read tensors and plain values; anything else is a ValueError."""
        try:
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"the checksum of {damaged} is another")
            loaded: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True
            )
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} is damaged, or no checkpoint of a run: it cannot be read as "
                f"tensors and plain values ({type(error).__name__}: {error}); code "
                "from a file is never run. Remove it and resume: the stage begins anew"
            ) from error
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)


class RateBar(TQDMProgressBar):  # type: ignore[misc]
    """Lightning's bar, with rates over the last ten seconds or so."""

    def __init__(self, stage: int, num_stages: int) -> None:
        super().__init__(refresh_rate=10)
        self._title = f"stage {stage} of {num_stages}"
        self._since = time.monotonic()
        self._events = self._pulses = 0
        self.rates: dict[str, str] = {}

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: PackedBatch, index: int
    ) -> None:
        """Count; all ranks do the like, so the first one's rate times their number."""
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
        """Show which stage and sub-epoch it is."""
        super().on_train_epoch_start(trainer, *further)
        self.train_progress_bar.set_description(
            f"{self._title}, sub-epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        )

    def get_metrics(self, trainer: Any, module: Any) -> dict[str, str]:
        """Return what stands behind the bar."""
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
