"""One stage of a run: from its start, or from its last checkpoint, to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.models.checkpoint_loading import LoadReport, load_weights
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.pretrained import build_model
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.module import (
    DirectionModule,
)
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recorder import BEST, LAST, RESUME
from graphnet_icecube2nd.training.run_folder import (
    FINISHED,
    handed_over,
    has_even_steps,
    note_machine,
)
from graphnet_icecube2nd.training.trainer import (
    TrainerConfig,
    close_loggers,
    make_trainer,
    quiet_lightning,
)

DataModule = TypeVar("DataModule", bound=EventDataModule)
WORTH_SAYING = 0.02  # by how much an epoch may differ from the events in silence


def first_model(recipe: Recipe) -> Model:
    """Return the recipe's model with its first, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return build_model(recipe.model, **recipe.model_kwargs)


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
        seed=recipe.seed + number,
        validation_fraction=options.validation_fraction,
        split_seed=options.split_seed,
        num_workers=num_workers,
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
        model, report = self._start()
        module = DirectionModule(model, self.stage, compile=self.recipe.compile)
        data: EventDataModule = make_data(
            self.recipe, self.number, store, self.machine.num_workers
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
        words = self._make_steps(trainer, data)
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

    def _start(self) -> tuple[Model, LoadReport | None]:
        """Return the model with the weights that the stage begins with.

        Where the stage has a checkpoint they come with that, and the file that it began
        with may be gone.
        """
        model = first_model(self.recipe)
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
        self.say(
            f"stage {self.number} of {len(self.recipe.stages)}: {stage.loss} loss, "
            f"lr_max {stage.lr_max:g}, L {stage.max_pulses}, {stage.epochs:g} epochs "
            f"in {self.recipe.num_sub_epochs(self.number)} sub-epochs"
            + (", average of the weights" if stage.ema else "")
        )
        if report is not None:
            self.say(f"  {report.text}")
