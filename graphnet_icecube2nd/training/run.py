"""A run: all stages of a recipe on a store, into a folder, resumable at any moment.

RUN/recipe.yaml          the recipe with its overrides, as it was trained
RUN/run.json             data, versions, how far it is
RUN/metrics.csv          a row for each sub-epoch
RUN/curves.png           the same as a picture, where matplotlib is installed
RUN/stage_0/...          see `recorder.py`
RUN/model.safetensors    the model, once the last stage is over
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.files import LOCK_FILE, locked_folder, write_whole
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.registry import build_model
from graphnet_icecube2nd.models.weights import load_model
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.module import DirectionModule, NotFinite, freeze
from graphnet_icecube2nd.training.plain import nearest, to_plain
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipe_file import read_recipe, write_recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.recorder import BEST, LAST, RESUME
from graphnet_icecube2nd.training.start import LoadReport, load_weights
from graphnet_icecube2nd.training.trainer import (
    Machine,
    close_loggers,
    make_trainer,
    quiet_lightning,
)
from graphnet_icecube2nd.version import __version__

RECIPE, RUN, MODEL, FINISHED = (
    "recipe.yaml",
    "run.json",
    "model.safetensors",
    "finished.json",
)

DataModule = TypeVar("DataModule", bound=EventDataModule)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a run came to.

    Args:
        path: Its folder.
        recipe: As it was trained.
        rows: Measurements, one for each sub-epoch; names as in `metrics.csv`.
    """

    path: Path
    recipe: Recipe
    rows: list[Row]

    @property
    def handed_over(self) -> Row:
        """The measurements of the weights that the run ended with."""
        stage = len(self.recipe.stages) - 1
        rows = [row for row in self.rows if row["stage"] == stage]
        if self.recipe.stages[stage].next_from == "last":
            return rows[-1]
        return [row for row in rows if row["best"]][-1]

    @property
    def model(self) -> DeepIce:
        """The trained model, in evaluation mode."""
        return load_model(self.path / MODEL)


def train(
    recipe: Recipe | str,
    data: EventStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    machine: Machine | None = None,
    on_row: Callable[[list[Row]], None] | None = None,
    say: Callable[[str], None] = print,
) -> TrainedRun:
    """Train a model by a recipe, stage by stage.

    Killed at any moment and begun again with `resume=True`, it ends with exactly the
    weights of a run that was left alone, on the same machine (on a CPU; GPUs add up in
    an order of their own).

    Args:
        recipe: A recipe, or the name of one.
        data: A store with directions, or its path.
        out: The run's folder.
        overrides: As `stages.1.lr_max=2e-5`, or such names and values as a mapping.
        resume: Go on with the run in `out`; where there is none, begin.
        machine: Devices, loggers, checkpoints: what changes no result.
        on_row: Called with all measurements after each sub-epoch; what it raises ends
            the run.
        say: Called with what is worth knowing, in words.

    Raises:
        ValueError: An override or a value of the recipe is not allowed; the store has
            no directions; `out` holds another run, or one and `resume` is not asked.
        NotFinite: A loss or gradient is not finite; the events are in the stage's
            `not_finite_0.csv` (a file for each rank).
        ImportError: Lightning is not installed.
    """
    recipe = find_recipe(recipe, overrides)
    check_model(recipe)
    store = data if isinstance(data, EventStore) else EventStore(data)
    run = Path(out)
    rows: list[Row] = []
    is_first = is_first_process()
    with locked_folder(run, "a run") if is_first else nullcontext():
        if is_first:
            _open_run(run, recipe, store, resume)
        for number in range(len(recipe.stages)):
            finished = run / f"stage_{number}" / FINISHED
            if not finished.is_file():
                stage = _StageRun(recipe, number, run, machine or Machine(), say)
                stage.train(store, rows, on_row)
            rows = json.loads(finished.read_text(encoding="utf-8"))["rows"]
        if is_first:
            last = run / f"stage_{len(recipe.stages) - 1}"
            with write_whole(run / MODEL) as temporary:
                shutil.copyfile(last / handed_over(last), temporary)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # or another rank might read too early
    return TrainedRun(path=run, recipe=recipe, rows=rows)


def check_model(recipe: Recipe) -> None:
    """See that the recipe's model can be built, without building it.

    Raises:
        ValueError: No such model or argument, with the nearest name; a value that is
            not allowed; nothing to freeze.
    """
    with torch.device("meta"):
        try:
            model = build_model(recipe.model, **recipe.model_kwargs)
        except TypeError as error:
            known = build_model(recipe.model).kwargs()
            for name in recipe.model_kwargs:
                if name not in known:
                    raise ValueError(
                        f"model_kwargs.{name} is unknown to {recipe.model}; "
                        f"{nearest(name, known)}"
                    ) from None
            raise ValueError(f"model_kwargs: {error}") from error
    for stage in recipe.stages:
        freeze(model, stage.freeze)
        if stage.weights is not None and not Path(stage.weights).exists():
            raise FileNotFoundError(f"there are no weights {stage.weights}")


def handed_over(folder: Path) -> str:
    """Return the name of the weights with which a finished stage ended."""
    finished = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    return str(finished["weights"])


def is_first_process() -> bool:
    """Return whether this process is the one of all ranks that writes.

    Before the ranks have met, launchers tell it by the environment.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


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


def first_model(recipe: Recipe) -> DeepIce:
    """Return the recipe's model with its first, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return build_model(recipe.model, **recipe.model_kwargs)


class _StageRun:
    """One stage of a run."""

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        run: Path,
        machine: Machine,
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
            self.recipe, self.number, self.run, rows, self.machine, on_row
        )
        # World size is known only now: how many batches make a step, and a sub-epoch.
        batches = data.sub_epoch_batches(trainer.world_size)
        events = self.stage.batch_size * trainer.world_size
        wanted = max(1, self.stage.accumulate_events // events)
        data.step_batches = min(wanted, batches)
        trainer.accumulate_grad_batches = data.step_batches
        if trainer.is_global_zero:
            self._say(report)
            if batches < wanted:
                self.say(
                    f"  a sub-epoch has {batches} batches: optimiser steps come every "
                    f"{batches * events} events, not {self.stage.accumulate_events}"
                )
        self._fit(trainer, module, data)
        if trainer.is_global_zero:
            weights = BEST if self.stage.next_from == "best" else LAST
            write_json(
                self.folder / FINISHED, {"weights": weights, "rows": recorder.rows}
            )
            (self.folder / RESUME).unlink(missing_ok=True)
        close_loggers(trainer)
        trainer.strategy.barrier()

    def _start(self) -> tuple[DeepIce, LoadReport | None]:
        """Return the model with the weights that the stage begins with."""
        model = first_model(self.recipe)
        if self.stage.weights is not None:
            return model, load_weights(
                model, self.stage.weights, partial=self.stage.partial
            )
        if not self.number:
            return model, None
        before = self.run / f"stage_{self.number - 1}"
        return model, load_weights(model, before / handed_over(before))

    def _fit(self, trainer: Any, module: Any, data: EventDataModule) -> None:
        resume = self.folder / RESUME
        try:
            with quiet_lightning():
                trainer.fit(
                    module,
                    datamodule=data,
                    ckpt_path=resume if resume.is_file() else None,
                )
        except NotFinite as error:
            path = self.folder / f"not_finite_{trainer.global_rank}.csv"
            with write_whole(path) as temporary:
                lines = ["event_id", *map(str, error.event_id)]
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            raise NotFinite(
                f"{error}; the events are in {path}. A new run can leave them out "
                "(data.events), or go on from the last weights in "
                f"{self.folder} with a smaller lr_max",
                error.event_id,
            ) from None
        if trainer.interrupted:
            raise KeyboardInterrupt

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


def _open_run(run: Path, recipe: Recipe, store: EventStore, resume: bool) -> None:
    """See that the folder is new, or holds this very run; write what it is."""
    described = {
        "data": str(store.path.resolve()),
        "num_events": len(store),
        "num_pulses": store.manifest.num_pulses,
        "software": __version__,
        "torch": torch.__version__,
    }
    if (run / RECIPE).is_file():
        if not resume:
            raise ValueError(
                f"{run} holds a run already: resume it (--resume), or choose another "
                "folder"
            )
        _check_same_run(run, recipe, described)
        return
    # A kill before the recipe was written may have left these.
    ours = (LOCK_FILE, RUN, f".{RUN}.tmp", f".{RECIPE}.tmp")
    if any(entry.name not in ours for entry in run.iterdir()):
        raise ValueError(f"{run} is not empty and holds no run; choose another folder")
    write_json(run / RUN, described)
    write_recipe(recipe, run / RECIPE)


def _check_same_run(run: Path, recipe: Recipe, described: dict[str, Any]) -> None:
    if to_plain(read_recipe(run / RECIPE)) != to_plain(recipe):
        raise ValueError(
            f"{run} holds a run of another recipe: resume it with the options it was "
            f"begun with (they are in {run / RECIPE}), or choose another folder"
        )
    before = json.loads((run / RUN).read_text(encoding="utf-8"))
    for name in ("num_events", "num_pulses"):
        if before[name] != described[name]:
            raise ValueError(
                f"{run} was trained on a store with {name} {before[name]:,}; "
                f"{described['data']} has {described[name]:,}"
            )
