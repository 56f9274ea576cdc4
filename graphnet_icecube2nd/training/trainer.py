"""Lightning's trainer for one stage, and the machine it runs on."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.recipe import Recipe

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

    None of it changes a recipe; but a stage's `batch_size` is that of one device, so
    more devices make larger steps where they are more than `accumulate_events` allows.

    Args:
        accelerator: `auto`, `cpu`, `gpu` (`cuda`, `mps`).
        devices: `auto`, a number, or a list of devices as `0,2`.
        strategy: `auto`, `ddp`, or `ddp_find_unused_parameters_true` (`_false`). Others
            of Lightning's part the weights between processes, or their results do not
            come back, so a run's files and clipping would be wrong.
        num_nodes: Machines that train together.
        num_workers: Processes that read events; 0: this one.
        loggers: Beside `metrics.csv`: `tensorboard`, `wandb`.
        checkpoint_minutes: A checkpoint within a sub-epoch after so many minutes.
        checkpoint_steps: And after so many optimiser steps.
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
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"strategy must be one of {', '.join(STRATEGIES)}; got "
                f"{self.strategy!r}"
            )
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
    rows: list[Row],
    machine: TrainerConfig,
    on_row: Callable[[list[Row]], None] | None = None,
    on_start: Callable[[Any], None] | None = None,
) -> tuple[Any, Any]:
    """Return Lightning's trainer of a stage and its recorder.

    Raises:
        ImportError: Lightning, or a logger, is not installed.
        ValueError: The device does not have the recipe's precision, or Lightning would
            start processes that leave nothing behind, as it does in a notebook.
    """
    try:
        from pytorch_lightning import Trainer
    except ImportError as error:
        raise ImportError(
            "training needs pytorch-lightning: pip install graphnet-icecube2nd[train]"
        ) from error
    from graphnet_icecube2nd.training.checkpoint import WholeCheckpointIO
    from graphnet_icecube2nd.training.curves import draw_curves_if_possible
    from graphnet_icecube2nd.training.progress import RateBar
    from graphnet_icecube2nd.training.recorder import StageRecorder

    stage = recipe.stages[number]

    def draw(rows: list[Row], points: list[Row]) -> None:
        draw_curves_if_possible(rows, run / "curves.png", points)

    recorder = StageRecorder(
        run,
        run / f"stage_{number}",
        number,
        rows,
        monitor=recipe.monitor,
        higher_is_better=recipe.higher_is_better,
        patience=stage.patience,
        every_minutes=machine.checkpoint_minutes,
        every_steps=machine.checkpoint_steps,
        on_start=on_start,
        on_row=on_row,
        draw=draw if machine.plot else None,
    )
    callbacks: list[Any] = [recorder]
    if machine.progress:
        callbacks.append(RateBar(number, len(recipe.stages)))
    with quiet_lightning():
        trainer = Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            strategy=machine.strategy,
            num_nodes=machine.num_nodes,
            precision=PRECISION[recipe.precision],
            max_epochs=recipe.num_sub_epochs(number),
            callbacks=callbacks,
            plugins=[WholeCheckpointIO()],
            logger=_loggers(machine.loggers, recipe, number, run) or False,
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


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning says about things that are meant so."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for text in MEANT_SO:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        logger.setLevel(level)


def close_loggers(trainer: Any) -> None:
    """End what the next stage must begin anew: W&B has one run a process."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger" and trainer.is_global_zero:
            logger.experiment.finish()


def _identity(run: Path) -> str:
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:12]


def _loggers(
    names: tuple[str, ...], recipe: Recipe, number: int, run: Path
) -> list[Any]:
    made: list[Any] = []
    for name in names:
        try:
            if name == "tensorboard":
                from pytorch_lightning.loggers import TensorBoardLogger

                made.append(
                    TensorBoardLogger(
                        run, name="tensorboard", version=f"stage_{number}"
                    )
                )
            else:
                from pytorch_lightning.loggers import WandbLogger

                made.append(
                    WandbLogger(
                        name=f"{run.name}-stage-{number}",
                        # The same after a kill, so that its curves go on.
                        version=f"{_identity(run)}-{number}",
                        save_dir=run,
                        project="icecube2nd",
                        group=run.name,
                        tags=[recipe.name],
                    )
                )
        except ImportError as error:
            raise ImportError(
                f"the {name} logger needs {name}: pip install {name}"
            ) from error
    return made
