"""Training run: all stages of a recipe on a store, resumable at any time."""

from __future__ import annotations

import inspect
import logging
import math
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
from graphnet_icecube2nd.tasks.label import LABELS, make_label
from graphnet_icecube2nd.tasks.task import FEWEST
from graphnet_icecube2nd.training.balance import Balance
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.module import TrainingModule, freeze, layer_groups
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run_folder import (
    BEST,
    EVEN_STEPS,
    FINISHED,
    INPUT,
    LAST,
    RECIPE,
    RESUME,
    begun_stages,
    detector_of,
    discard_unbegun,
    finished_stage,
    model_input,
    open_run,
    run_description,
    with_absolute_paths,
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
LARGEST_VALIDATION = 0.5  # share of validation events that is recommended
ENOUGH_STEPS = 200  # optimiser steps of a run; fewer are logged
NOTICEABLE = 0.02  # relative change of an epoch's number of events that is logged


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """Finished training run."""

    path: Path  # folder of the run
    recipe: Recipe  # with its overrides
    rows: list[Row]  # measurements of each sub-epoch, by column of `metrics.csv`

    @property
    def handed_over(self) -> Row:
        """Measurements of the final weights."""
        stage = len(self.recipe.stages) - 1
        rows = [row for row in self.rows if row["stage"] == stage]
        if self.recipe.stages[stage].next_from == "last":
            return rows[-1]
        return [row for row in rows if row["best"]][-1]

    @property
    def model(self) -> Model:
        """Trained model, in evaluation mode."""
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
    """Train a model with a recipe, stage by stage.

    An interrupted run resumes with `resume=True`. On CPU, with the same version of
    torch and the same number of threads, a resumed run is bitwise identical to an
    uninterrupted one. On other machines it also resumes, and a notice tells the
    difference (GPUs do not add in a fixed order). Notices go to the logger
    `graphnet_icecube2nd`, and are printed if `logging` has no handler.

    Args:
        recipe: Recipe, or its name.
        data: Store with the labels of the recipe's tasks, or its path.
        out: Folder of the run.
        overrides: Texts such as `stages.1.lr_max=2e-5`, or a mapping of such names to
            values.
        resume: Resume the run in `out`; start a run if there is none.
        machine: Devices, loggers and checkpoints.
        on_row: Function that is called with all measurements after each sub-epoch; an
            exception that it raises ends the run.

    Raises:
        ValueError: An override or a value of the recipe is not allowed, the store has
            no label of a task, or `out` holds another run, or a run without `resume`.
        NonFiniteError: A loss, a gradient or a validation value is not finite. The
            stage's `not_finite_0.csv` (a file for each rank) lists the events; for a
            gradient these are all events of the step.
        ImportError: Lightning is not installed.
    """
    recipe = find_recipe(recipe, overrides)
    return run_recipe(
        recipe, data, out, resume=resume, machine=machine, on_row=on_row, note={}
    )


def run_recipe(
    recipe: Recipe,
    data: EventStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool,
    machine: TrainerConfig | None,
    on_row: Callable[[list[Row]], None] | None,
    note: Mapping[str, Any],
) -> TrainedRun:
    """Train a recipe as `train` does; `run.json` of a new run gets `note`."""
    print_notices()
    recipe = with_absolute_paths(recipe)
    run = Path(out)
    check_model(recipe, begun_stages(run))
    store = data if isinstance(data, EventStore) else EventStore(data)
    is_first = is_first_process()
    with locked_folder(run, "a run") if is_first else nullcontext():
        is_new = is_first and not (run / RECIPE).is_file()
        if is_first:
            open_run(run, recipe, store, resume, note)
        try:
            for number in range(len(recipe.stages)):
                if not (run / f"stage_{number}" / FINISHED).is_file():
                    stage = StageRun(recipe, number, run, machine or TrainerConfig())
                    stage.train(store, on_row)
        except Exception:
            if is_new:
                discard_unbegun(run)
            raise
        weights, rows = finished_stage(run, len(recipe.stages) - 1)
        if is_first:
            copy_whole(weights, run / RUN_MODEL)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # other ranks must not read earlier
    return TrainedRun(path=run, recipe=recipe, rows=rows)


def check_model(recipe: Recipe, begun: int = 0) -> None:
    """Check that the recipe's model can be built, without its memory.

    Raises ValueError if a model or argument does not exist (with the nearest name), a
    value is not allowed, or a prefix of `freeze` matches no parameter;
    FileNotFoundError if a stage that has not begun lacks its initial weights.
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
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for number, stage in enumerate(recipe.stages):
        if trained <= set(freeze(model, stage.freeze)):
            raise ValueError(
                f"stages.{number}.freeze leaves nothing to train: {list(stage.freeze)}"
            )
        layer_groups(model, stage.layer_decay)  # raises if there are no layers
        if number < begun or stage.weights is None:
            continue
        if not Path(stage.weights).exists():
            raise FileNotFoundError(
                f"stages.{number}.weights: found no weights at {stage.weights}"
            )


def _model_arguments(name: str) -> list[str]:
    """Return the known names of the arguments of a model."""
    parameters = inspect.signature(MODELS.get(name)).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return [*own, *new_model(name).describe()["kwargs"]]


def is_first_process() -> bool:
    """Return whether this process is rank 0, which writes the files.

    Before the ranks are connected, environment variables of launchers tell the rank.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def first_model(
    recipe: Recipe, number: int = 0, detector: Detector | None = None
) -> Model:
    """Return the recipe's model with its initial random weights.

    The weights are the same for all stages. The tasks have the options of stage
    `number`. The model reads events of `detector`; None: IceCube-86.
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
    """Return the data module of stage `number`, an object of class `kind`."""
    stage, options = recipe.stages[number], to_plain(recipe.data)
    augmentations = [augmentation_from_dict(v) for v in options.pop("augmentations")]
    tasks, _ = build_tasks(recipe.task_options(number))
    labels = [task.truth for task in tasks.values()]
    truth = [name for group in labels for name in group]
    truth += options.pop("balance")
    del options["scales"]
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
        scales=recipe.data.scales,
        **options,  # all others have the data module's names
    )


def label_texts(recipe: Recipe, data: EventDataModule) -> list[str]:
    """Return notices about events without labels and about few validation events.

    Raises ValueError if there is no validation event, or if no training event or no
    validation event has a label of a task.
    """
    counts = {"training": data.train_labels, "validation": data.validation_labels}
    if not counts["validation"].num_events:
        raise ValueError(
            f"{data.store.path}: the validation needs at least one event, found none "
            f"in a share of {recipe.data.validation_fraction:g} of "
            f"{len(data.store):,} events. Use a larger data.validation_fraction (--set "
            "data.validation_fraction=0.2), or a store with more events"
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
                    f"task {name!r}: expected labels ({wanted}), found none in the "
                    f"{count.num_events:,} {what} events of {data.store.path}. Remove "
                    "the task (tasks), or choose other events (data.events)"
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
            "are left out"
        )
    if (few := counts["validation"].num_events) < FEWEST:
        texts.append(
            f"  only {few} validation events: their mean values are uncertain, and a "
            f"calibration needs {FEWEST}. {validation_advice(len(data.store))}"
        )
    return texts


def validation_advice(num_events: int) -> str:
    """Return how a store's validation can have enough events for a calibration."""
    share = math.ceil(100 * 2 * FEWEST / num_events) / 100  # both halves of its check
    if share > LARGEST_VALIDATION:
        least = math.ceil(2 * FEWEST / LARGEST_VALIDATION)
        return f"{num_events:,} events are too few for this: take {least} or more"
    return f"Train with --set data.validation_fraction={share:g} or more"


def steps_texts(recipe: Recipe, num_events: int, num_ranks: int = 1) -> list[str]:
    """Return a notice if all stages together have few optimiser steps."""
    parts, steps = recipe.data.num_sub_epochs, 0
    for number, stage in enumerate(recipe.stages):
        batches = math.ceil(num_events / (parts * stage.batch_size * num_ranks))
        wanted = max(1, stage.accumulate_events // (stage.batch_size * num_ranks))
        steps += recipe.num_sub_epochs(number) * max(1, round(batches / wanted))
    if steps >= ENOUGH_STEPS:
        return []
    return [
        f"  about {steps} optimiser steps in all, which is few: raise stages.0.epochs "
        f"(--set stages.0.epochs=N; now {recipe.stages[0].epochs:g})"
    ]


def check_event_weight(name: str, data: EventDataModule) -> None:
    """Check that all events of a run have weights of 0 or more, and some above 0.

    The message of its ValueError has the column, the event and its value.
    """
    store = data.store
    for what, subset in (
        ("training", data.train_events),
        ("validation", data.validation_events),
    ):
        total = 0.0
        for shard in range(len(store.shards)):
            weight_B = store.event_column(name, shard)
            # A column with the name of a label is read as that label.
            used_B = make_label(name, {name: weight_B}, store.pulse_map.labels)
            chosen_B = subset.mask(store, shard)
            is_good_B = np.isfinite(used_B) & (used_B >= 0)
            wrong_B = chosen_B & ~is_good_B
            total += float(used_B[chosen_B & is_good_B].sum())
            if wrong_B.any():
                place = int(wrong_B.argmax())
                event_id = store.event_column(EVENT_ID, shard)[place]
                raise ValueError(
                    f"event_weight: {name} must be 0 or more"
                    f"{' and a possible label' * (name in LABELS)}, found "
                    f"{weight_B[place]} "
                    f"for event {event_id} of {store.path}. Choose other events "
                    "(data.events) or another column"
                )
        if not total > 0:
            raise ValueError(
                f"event_weight: {name} must be above 0 for some event, found 0 for "
                f"every {what} event of {store.path}. Choose other events "
                "(data.events) or another column"
            )


class StageRun:
    """One stage of a run, from its start or last checkpoint to its end."""

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
        balance = None
        if quantities := recipe.data.balance:
            balance = Balance.of(
                quantities, store, data.train_events, recipe.event_weight
            )
        model, report = self._start(store)
        module = TrainingModule(
            model,
            self.stage,
            event_weight=recipe.event_weight,
            balance=balance,
            compile=recipe.compile,
        )
        trainer, recorder = make_trainer(recipe, number, self.run, self.machine, on_row)
        # The batches of a step depend on the world size, which is known only now.
        if not number:
            num_events = data.train_labels.num_events - data.train_labels.left_out
            texts += steps_texts(recipe, num_events, trainer.world_size)
        texts = [*([] if number else texts), *self._make_steps(trainer, data)]
        device = trainer.strategy.root_device
        if recipe.precision == "bfloat16" and emulates_bfloat16(device):
            texts.append(
                "  this processor has no instructions for bfloat16, so float32 is "
                "faster: --set precision=float32"
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
        """Return the model with the initial weights of the stage.

        If the stage has a checkpoint, Lightning loads its weights later, and the file
        of the initial weights need not exist any more.
        """
        described = run_description(self.run)
        # Models of runs of release 0.1.0 depend only on the recipe.
        detector = detector_of(self.recipe, store) if INPUT in described else None
        model = first_model(self.recipe, self.number, detector)
        stage, report = self.stage, None
        if (self.folder / RESUME).is_file():
            pass
        elif stage.weights is not None:
            report = load_weights(model, stage.weights, partial=stage.partial)
        elif self.number:
            weights, _ = finished_stage(self.run, self.number - 1)
            report = load_weights(model, weights)
        # After the weights, whose file has an older input configuration.
        if given := described.get(INPUT):
            model.input_config = InputConfig.from_dict(given)
        else:
            model.input_config = model_input(self.recipe, store)
        return model, report

    def _make_steps(self, trainer: Any, data: EventDataModule) -> list[str]:
        """Set the number of batches per step; return notices about differences."""
        stage, ranks = self.stage, trainer.world_size
        batches, events = data.sub_epoch_batches(ranks), stage.batch_size * ranks
        wanted = max(1, stage.accumulate_events // events)
        # Runs of earlier releases keep the requested size of steps.
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
                f"  whole steps need {data.iteration_batches(ranks)} batches per "
                f"sub-epoch, not {batches}: {stage.epochs:g} epochs show "
                f"{share * stage.epochs:.3g} times the events"
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
                f"{error}; {path} lists the events. Start a new run without them "
                f"(data.events), or from the last weights in {self.folder} with a "
                "smaller lr_max",
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
