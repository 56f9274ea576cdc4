"""A run: all stages of a recipe on a store, into a folder, resumable at any moment."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

from graphnet_icecube2nd.config import nearest, to_plain
from graphnet_icecube2nd.conventions import EVENT_ID
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import (
    copy_whole,
    locked_folder,
    write_json,
    write_text,
)
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.registry import MODELS, new_model
from graphnet_icecube2nd.models.weights import (
    RUN_MODEL,
    LoadReport,
    load_model,
    load_weights,
)
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.catalogue import build_tasks
from graphnet_icecube2nd.tasks.label import LABELS
from graphnet_icecube2nd.tasks.task import FEWEST
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.module import TrainingModule, freeze
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run_folder import (
    BEST,
    EVEN_STEPS,
    FINISHED,
    INPUT,
    LAST,
    RESUME,
    begun_stages,
    finished_stage,
    model_input,
    open_run,
    run_description,
    with_whole_paths,
)
from graphnet_icecube2nd.training.trainer import (
    TrainerConfig,
    close_loggers,
    emulates_bfloat16,
    make_trainer,
    quiet_lightning,
)

LOGGER = logging.getLogger(__name__)
DataModule = TypeVar("DataModule", bound=EventDataModule)
NOTICEABLE = 0.02  # share by which an epoch may differ from the events in silence


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run that came to its end."""

    path: Path  # its folder
    recipe: Recipe  # as it was trained
    rows: list[Row]  # measurements of each sub-epoch, by names as in `metrics.csv`

    @property
    def handed_over(self) -> Row:
        """The measurements of the weights that the run ended with."""
        stage = len(self.recipe.stages) - 1
        rows = [row for row in self.rows if row["stage"] == stage]
        if self.recipe.stages[stage].next_from == "last":
            return rows[-1]
        return [row for row in rows if row["best"]][-1]

    @property
    def model(self) -> Model:
        """The trained model, in evaluation mode."""
        return load_model(self.path / RUN_MODEL)


def train(
    recipe: Recipe | str,
    data: EventStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    machine: TrainerConfig | None = None,
    on_row: Callable[[list[Row]], None] | None = None,
) -> TrainedRun:
    """Train a model by a recipe, stage by stage.

    An interrupted run resumes with `resume=True`. On a CPU, with the same version of
    torch and as many threads, it ends with exactly the weights of a run that was left
    alone; elsewhere (GPUs add up in an order of their own) it resumes too, and says so.
    Notices go to the logger `graphnet_icecube2nd`, and are printed where no handler of
    `logging` is set up.

    Args:
        recipe: A recipe, or the name of one.
        data: A store with the labels of the recipe's tasks, or its path.
        out: Folder of the run.
        overrides: Texts as `stages.1.lr_max=2e-5`, or such names and values as a
            mapping.
        resume: Go on with the run in `out`; where there is none, begin.
        machine: Devices, loggers, checkpoints.
        on_row: Called with all measurements after each sub-epoch; what it raises ends
            the run.

    Raises:
        ValueError: An override or a value of the recipe is not allowed; the store has
            no label of a task; `out` holds another run, or one and `resume` is not
            asked.
        NonFiniteError: A loss, a gradient or a validation is not finite; events are in
            the stage's `not_finite_0.csv` (a file for each rank), for a gradient all
            events of the step.
        ImportError: Lightning is not installed.
    """
    print_notices()
    recipe = with_whole_paths(find_recipe(recipe, overrides))
    run = Path(out)
    check_model(recipe, begun_stages(run))
    store = data if isinstance(data, EventStore) else EventStore(data)
    is_first = is_first_process()
    with locked_folder(run, "a run") if is_first else nullcontext():
        if is_first:
            open_run(run, recipe, store, resume)
        for number in range(len(recipe.stages)):
            if not (run / f"stage_{number}" / FINISHED).is_file():
                stage = StageRun(recipe, number, run, machine or TrainerConfig())
                stage.train(store, on_row)
        weights, rows = finished_stage(run, len(recipe.stages) - 1)
        if is_first:
            copy_whole(weights, run / RUN_MODEL)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # or another rank might read too early
    return TrainedRun(path=run, recipe=recipe, rows=rows)


def check_model(recipe: Recipe, begun: int = 0) -> None:
    """Check that the recipe's model can be built, without building it.

    Raises ValueError where there is no such model or argument (with the nearest name),
    a value is not allowed, or nothing is to be frozen; FileNotFoundError where a stage
    that has not begun lacks the weights to begin with.
    """
    with torch.device("meta"):
        try:
            model = first_model(recipe)
        except TypeError as error:
            known = _model_arguments(recipe.model)
            for name in recipe.model_kwargs:
                if name not in known:
                    raise ValueError(
                        f"model_kwargs.{name} is unknown to {recipe.model}; "
                        f"{nearest(name, known)}"
                    ) from None
            raise ValueError(f"model_kwargs: {error}") from error
    for number, stage in enumerate(recipe.stages):
        freeze(model, stage.freeze)
        if number < begun or stage.weights is None:
            continue
        if not Path(stage.weights).exists():
            raise FileNotFoundError(
                f"stages.{number}.weights: there are no weights {stage.weights}"
            )


def _model_arguments(name: str) -> list[str]:
    """Return the names of the arguments of a model, as far as it tells them."""
    parameters = inspect.signature(MODELS.get(name)).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return [*own, *new_model(name).describe()["kwargs"]]


def is_first_process() -> bool:
    """Return whether this process is the one of all ranks that writes.

    Before the ranks have met, launchers tell it by the environment.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def first_model(
    recipe: Recipe, number: int = 0, detector: Detector | None = None
) -> Model:
    """Return the recipe's model with its first, random weights.

    The weights are the same for all stages; the tasks have the options of the stage of
    that number. The model reads events of the detector; None: those of IceCube-86.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return new_model(
            recipe.model,
            tasks=recipe.task_options(number),
            detector=detector,
            weighting=recipe.weighting,
            published=not recipe.tasks,
            **recipe.model_kwargs,
        )


def make_data(
    recipe: Recipe,
    number: int,
    store: EventStore,
    num_workers: int = 0,
    kind: Callable[..., DataModule] = EventDataModule,
) -> DataModule:
    """Return the data of a stage, by its number, as a data module of some kind."""
    stage, options = recipe.stages[number], to_plain(recipe.data)
    augmentations = [augmentation_from_dict(v) for v in options.pop("augmentations")]
    tasks, _ = build_tasks(recipe.task_options(number))
    labels = [task.truth for task in tasks.values()]
    truth = [name for group in labels for name in group]
    if recipe.event_weight is not None:
        truth.append(recipe.event_weight)
    return kind(
        store,
        batch_size=stage.batch_size,
        max_pulses=stage.max_pulses,
        published_features=options.pop("features") == "published",
        augmentations=augmentations,
        truth=tuple(dict.fromkeys(truth)),
        labels=labels,
        seed=recipe.seed + number,
        num_workers=num_workers,
        **options,  # all others have the data module's names
    )


def label_texts(recipe: Recipe, data: EventDataModule) -> list[str]:
    """Return, in words, how many events have no label of a task.

    Raises ValueError where there is no event to validate on, or where no event to train
    on, or none to validate on, has one.
    """
    counts = {"training": data.train_labels, "validation": data.validation_labels}
    if not counts["validation"].num_events:
        raise ValueError(
            f"{data.store.path}: none of its {len(data.store):,} events is for the "
            "validation, which has a share of "
            f"{recipe.data.validation_fraction:g}. Give it a larger one, "
            "data.validation_fraction (--set data.validation_fraction=0.2), or train "
            "on more events"
        )
    num_events = sum(count.num_events for count in counts.values())
    tasks, _ = build_tasks(recipe.task_options(0))
    texts = []
    for place, (name, task) in enumerate(tasks.items()):
        wanted = ", ".join(
            LABELS[label].description if label in LABELS else f"column {label}"
            for label in task.truth
        )
        for what, count in counts.items():
            if count.num_events and count.unlabelled[place] == count.num_events:
                raise ValueError(
                    f"task {name!r}: none of the {count.num_events:,} {what} events of "
                    f"{data.store.path} has a label ({wanted}); leave the task out "
                    "(tasks), or choose other events (data.events)"
                )
        if missing := sum(count.unlabelled[place] for count in counts.values()):
            then = "do not count for this task" if len(tasks) > 1 else "are left out"
            texts.append(
                f"  {name}: {missing:,} of {num_events:,} events have no label "
                f"({wanted}); they {then}"
            )
    left_out = sum(count.left_out for count in counts.values())
    if left_out and len(tasks) > 1:
        texts.append(
            f"  {left_out:,} of {num_events:,} events have no label of any task; they "
            "are left out entirely"
        )
    if (few := counts["validation"].num_events) < FEWEST:
        texts.append(
            f"  only {few} events to validate on: its figures say little, "
            f"and a calibration needs {FEWEST} (data.validation_fraction)"
        )
    return texts


def check_event_weight(name: str, data: EventDataModule) -> None:
    """Check that the events of a run have weights of 0 or more.

    The ValueError of one that has not names the column, the event and its value.
    """
    store = data.store
    for subset in (data.train_events, data.validation_events):
        for shard in range(len(store.shards)):
            weight_B = store.event_column(name, shard)
            is_good_B = np.isfinite(weight_B) & (weight_B >= 0)
            wrong_B = subset.mask(store, shard) & ~is_good_B
            if wrong_B.any():
                place = int(wrong_B.argmax())
                event_id = store.event_column(EVENT_ID, shard)[place]
                raise ValueError(
                    f"event_weight: {name} must be 0 or more, but of event {event_id} "
                    f"in {store.path} it is {weight_B[place]}; choose other events "
                    "(data.events) or another column"
                )


class StageRun:
    """One stage of a run: from its start, or from its last checkpoint, to its end."""

    def __init__(
        self, recipe: Recipe, number: int, run: Path, machine: TrainerConfig
    ) -> None:
        self.recipe, self.number, self.machine = recipe, number, machine
        self.run, self.folder = run, run / f"stage_{number}"
        self.stage = recipe.stages[number]

    def train(
        self, store: EventStore, on_row: Callable[[list[Row]], None] | None
    ) -> None:
        """Train the stage to its end."""
        recipe, number = self.recipe, self.number
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed + number)
        data: EventDataModule = make_data(
            recipe, number, store, self.machine.num_workers
        )
        texts = label_texts(recipe, data)
        if recipe.event_weight is not None:
            check_event_weight(recipe.event_weight, data)
        model, report = self._start(store)
        module = TrainingModule(
            model,
            self.stage,
            event_weight=recipe.event_weight,
            compile=recipe.compile,
        )
        trainer, recorder = make_trainer(recipe, number, self.run, self.machine, on_row)
        # World size is known only now: how many batches make a step, and a sub-epoch.
        texts = [*([] if number else texts), *self._make_steps(trainer, data)]
        device = trainer.strategy.root_device
        if recipe.precision == "bfloat16" and emulates_bfloat16(device):
            texts.append(
                "  this processor has no instructions for bfloat16, so it is slower "
                "than float32: --set precision=float32"
            )
        if trainer.is_global_zero:
            LOGGER.info(self._description())
            for text in [*([] if report is None else [f"  {report.text}"]), *texts]:
                LOGGER.info(text)
        self._fit(trainer, module, data)
        if trainer.is_global_zero:
            weights = BEST if self.stage.next_from == "best" else LAST
            write_json(
                self.folder / FINISHED, {"weights": weights, "rows": recorder.rows}
            )
            (self.folder / RESUME).unlink(missing_ok=True)
        close_loggers(trainer)
        trainer.strategy.barrier()

    def _start(self, store: EventStore) -> tuple[Model, LoadReport | None]:
        """Return the model with the weights that the stage begins with.

        Where the stage has a checkpoint they come with that, and the file that it began
        with may be gone.
        """
        described = run_description(self.run)
        # Models of runs that release 0.1.0 began follow the recipe alone.
        detector = store.detector if INPUT in described else None
        model = first_model(self.recipe, self.number, detector)
        stage, report = self.stage, None
        if (self.folder / RESUME).is_file():
            pass
        elif stage.weights is not None:
            report = load_weights(model, stage.weights, partial=stage.partial)
        elif self.number:
            weights, _ = finished_stage(self.run, self.number - 1)
            report = load_weights(model, weights)
        # After the weights, which tell how they were trained before.
        if given := described.get(INPUT):
            model.input_config = InputConfig.from_dict(given)
        else:
            model.input_config = model_input(self.recipe, store)
        return model, report

    def _make_steps(self, trainer: Any, data: EventDataModule) -> list[str]:
        """Set how many batches make a step; return what is not as it was asked for."""
        stage, ranks = self.stage, trainer.world_size
        batches, events = data.sub_epoch_batches(ranks), stage.batch_size * ranks
        wanted = max(1, stage.accumulate_events // events)
        # Runs of earlier releases go on with steps of the size that was asked for.
        data.step_batches = (
            data.fitting_step(wanted, ranks)
            if EVEN_STEPS in run_description(self.run)
            else min(wanted, batches)
        )
        trainer.accumulate_grad_batches = data.step_batches
        texts = []
        if data.step_batches != wanted:
            texts.append(
                f"  a sub-epoch has {batches} batches: optimiser steps come every "
                f"{data.step_batches * events} events, not {stage.accumulate_events}"
            )
        share = data.iteration_batches(ranks) / batches
        if abs(share - 1) > NOTICEABLE:
            texts.append(
                f"  whole steps make {data.iteration_batches(ranks)} batches of those "
                f"{batches}: {stage.epochs:g} epochs show {share * stage.epochs:.3g} "
                "times the events"
            )
        return texts

    def _fit(self, trainer: Any, module: Any, data: EventDataModule) -> None:
        resume = self.folder / RESUME
        try:
            with quiet_lightning():
                trainer.fit(
                    module,
                    datamodule=data,
                    ckpt_path=resume if resume.is_file() else None,
                )
        except NonFiniteError as error:
            path = self.folder / f"not_finite_{trainer.global_rank}.csv"
            lines = ["event_id", *map(str, error.event_id)]
            write_text(path, "\n".join(lines) + "\n")
            raise NonFiniteError(
                f"{error}; the events are in {path}. A new run can leave them out "
                "(data.events), or go on from the last weights in "
                f"{self.folder} with a smaller lr_max",
                error.event_id,
            ) from None
        if trainer.interrupted:
            raise KeyboardInterrupt

    def _description(self) -> str:
        stage = self.stage
        losses = f"{stage.loss} loss"
        if self.recipe.tasks:
            _, weights = build_tasks(self.recipe.task_options(self.number))
            losses = "losses of " + " and ".join(
                f"{weight:g} {name}" for name, weight in weights.items()
            )
        return (
            f"stage {self.number} of {len(self.recipe.stages)}: {losses}, "
            f"lr_max {stage.lr_max:g}, L {stage.max_pulses}, {stage.epochs:g} epochs "
            f"in {self.recipe.num_sub_epochs(self.number)} sub-epochs"
            + (", average of the weights" if stage.ema else "")
        )
