"""One stage of a run: from its start, or from its last checkpoint, to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from graphnet_icecube2nd.conventions import EVENT_ID
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.models.build import new_model
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.weights import LoadReport, load_weights
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.tasks.catalogue import build_tasks
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.label import LABELS
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.module import TrainingModule
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recorder import BEST, LAST, RESUME
from graphnet_icecube2nd.training.run_folder import (
    FINISHED,
    follows_detector,
    handed_over,
    has_even_steps,
    note_machine,
    run_input,
)
from graphnet_icecube2nd.training.trainer import (
    TrainerConfig,
    close_loggers,
    make_trainer,
    quiet_lightning,
)

DataModule = TypeVar("DataModule", bound=EventDataModule)
FEW = 100  # events that a validation should have
WORTH_SAYING = 0.02  # by how much an epoch may differ from the events in silence


def first_model(
    recipe: Recipe, number: int = 0, detector: Detector | None = None
) -> Model:
    """Return the recipe's model with its first, random weights.

    Args:
        recipe: The recipe.
        number: Number of the stage whose options the tasks have; the weights are the
            same for all.
        detector: Whose events it is to read; None: those of IceCube-86.
    """
    options = recipe.task_options(number)

    def build(tasks: dict[str, dict[str, Any]] | None) -> Model:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            return new_model(
                recipe.model,
                tasks=tasks,
                detector=detector,
                weighting=recipe.weighting,
                **recipe.model_kwargs,
            )

    if recipe.tasks:
        return build(options)
    model = build(None)
    if not isinstance(model, DeepIce):
        return build(options)
    tasks, _ = build_tasks(options)
    direction = tasks[Direction.name]
    assert isinstance(direction, Direction)
    model.set_task(direction)
    return model


def make_data(
    recipe: Recipe,
    number: int,
    store: EventStore,
    num_workers: int = 0,
    kind: Callable[..., DataModule] = EventDataModule,
) -> DataModule:
    """Return the data of a stage, by its number, as a data module of some kind."""
    stage = recipe.stages[number]
    options = recipe.data
    tasks, _ = build_tasks(recipe.task_options(number))
    labels = [task.truth for task in tasks.values()]
    truth = [name for group in labels for name in group]
    if recipe.event_weight is not None:
        truth.append(recipe.event_weight)
    return kind(
        store,
        batch_size=stage.batch_size,
        max_pulses=stage.max_pulses,
        selection=options.selection,
        length_class=options.length_class,
        events=options.events,
        validation_batch_size=options.validation_batch_size,
        validation_max_pulses=options.validation_max_pulses,
        num_sub_epochs=options.num_sub_epochs,
        sub_epochs=options.sub_epochs,
        augmentations=[augmentation_from_dict(v) for v in options.augmentations],
        published_features=options.features == "published",
        truth=tuple(dict.fromkeys(truth)),
        labels=labels,
        seed=recipe.seed + number,
        validation_fraction=options.validation_fraction,
        split_seed=options.split_seed,
        num_workers=num_workers,
    )


def label_texts(recipe: Recipe, data: EventDataModule) -> list[str]:
    """Return, in words, how many events have no label of a task.

    Raises:
        ValueError: No event to train on, or none to validate on, has a task's label.
    """
    counts = {"training": data.train_labels, "validation": data.validation_labels}
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
    if (few := counts["validation"].num_events) < FEW:
        texts.append(
            f"  only {few} events to validate on: its figures say little, "
            f"and a calibration needs {FEW} (data.validation_fraction)"
        )
    return texts


def check_event_weight(name: str, data: EventDataModule) -> None:
    """Check that the events of a run have weights of 0 or more.

    Raises:
        ValueError: One has not; names the column, the event and its value.
    """
    store = data.store
    for subset in (data.train_events, data.validation_events):
        for shard in range(len(store.shards)):
            weight_B = store.event_column(name, shard)
            wrong_B = subset.mask(store, shard) & ~(
                np.isfinite(weight_B) & (weight_B >= 0)
            )
            if wrong_B.any():
                place = int(wrong_B.argmax())
                event_id = store.event_column(EVENT_ID, shard)[place]
                raise ValueError(
                    f"event_weight: {name} must be 0 or more, but of event {event_id} "
                    f"in {store.path} it is {weight_B[place]}; choose other events "
                    "(data.events) or another column"
                )


class StageRun:
    """One stage of a run."""

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        run: Path,
        machine: TrainerConfig,
        say: Callable[[str], None],
    ) -> None:
        self.recipe, self.number, self.machine = recipe, number, machine
        self.run, self.folder = run, run / f"stage_{number}"
        self.stage = recipe.stages[number]
        self.say = say

    def train(
        self,
        store: EventStore,
        rows: list[Row],
        on_row: Callable[[list[Row]], None] | None,
    ) -> None:
        """Train from its start or its last checkpoint to its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.recipe.seed + self.number)
        data: EventDataModule = make_data(
            self.recipe, self.number, store, self.machine.num_workers
        )
        words = label_texts(self.recipe, data)
        if self.recipe.event_weight is not None:
            check_event_weight(self.recipe.event_weight, data)
        model, report = self._start(store)
        module = TrainingModule(
            model,
            self.stage,
            event_weight=self.recipe.event_weight,
            compile=self.recipe.compile,
        )
        trainer, recorder = make_trainer(
            self.recipe,
            self.number,
            self.run,
            rows,
            self.machine,
            on_row,
            self._note_machine,
        )
        # World size is known only now: how many batches make a step, and a sub-epoch.
        words = [*([] if self.number else words), *self._make_steps(trainer, data)]
        if trainer.is_global_zero:
            self._say(report)
            for text in words:
                self.say(text)
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
        detector = store.detector if follows_detector(self.run) else None
        model = first_model(self.recipe, self.number, detector)
        model.input_config = run_input(self.run, self.recipe, store)
        if (self.folder / RESUME).is_file():
            return model, None
        if self.stage.weights is not None:
            return model, load_weights(
                model, self.stage.weights, partial=self.stage.partial
            )
        if not self.number:
            return model, None
        before = self.run / f"stage_{self.number - 1}"
        return model, load_weights(model, before / handed_over(before))

    def _make_steps(self, trainer: Any, data: EventDataModule) -> list[str]:
        """Say how many batches make a step; return what is not as it was asked for."""
        stage, ranks = self.stage, trainer.world_size
        batches, events = data.sub_epoch_batches(ranks), stage.batch_size * ranks
        wanted = max(1, stage.accumulate_events // events)
        data.step_batches = (
            data.fitting_step(wanted, ranks)
            if has_even_steps(self.run)
            else min(wanted, batches)
        )
        trainer.accumulate_grad_batches = data.step_batches
        words = []
        if data.step_batches != wanted:
            words.append(
                f"  a sub-epoch has {batches} batches: optimiser steps come every "
                f"{data.step_batches * events} events, not {stage.accumulate_events}"
            )
        share = data.iteration_batches(ranks) / batches
        if abs(share - 1) > WORTH_SAYING:
            words.append(
                f"  whole steps make {data.iteration_batches(ranks)} batches of those "
                f"{batches}: {stage.epochs:g} epochs show {share * stage.epochs:.3g} "
                "times the events"
            )
        return words

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
            with write_whole(path) as temporary:
                lines = ["event_id", *map(str, error.event_id)]
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            raise NonFiniteError(
                f"{error}; the events are in {path}. A new run can leave them out "
                "(data.events), or go on from the last weights in "
                f"{self.folder} with a smaller lr_max",
                error.event_id,
            ) from None
        if trainer.interrupted:
            raise KeyboardInterrupt

    def _note_machine(self, trainer: Any) -> None:
        """Say so where the run goes on in another way than it was trained before."""
        device = trainer.strategy.root_device.type
        machine: dict[str, Any] = {
            "torch": str(torch.__version__),
            "device": device,
            "processes": trainer.world_size,
        }
        if device == "cpu":  # known only now: Lightning shares cores among processes
            machine["threads"] = torch.get_num_threads()
        if text := note_machine(self.run, machine):
            self.say(text)

    def _say(self, report: LoadReport | None) -> None:
        stage = self.stage
        losses = f"{stage.loss} loss"
        if self.recipe.tasks:
            options = self.recipe.task_options(self.number).items()
            losses = "losses of " + " and ".join(
                f"{given.get('weight', 1):g} {name}" for name, given in options
            )
        self.say(
            f"stage {self.number} of {len(self.recipe.stages)}: {losses}, "
            f"lr_max {stage.lr_max:g}, L {stage.max_pulses}, {stage.epochs:g} epochs "
            f"in {self.recipe.num_sub_epochs(self.number)} sub-epochs"
            + (", average of the weights" if stage.ema else "")
        )
        if report is not None:
            self.say(f"  {report.text}")
