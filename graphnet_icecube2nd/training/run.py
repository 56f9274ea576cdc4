"""A run: all stages of a recipe on a store, into a folder, resumable at any moment."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from graphnet_icecube2nd.config import nearest
from graphnet_icecube2nd.files import locked_folder, write_whole
from graphnet_icecube2nd.models.build import new_model
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.registry import MODELS
from graphnet_icecube2nd.models.weights import RUN_MODEL, load_model
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.training.history import Row, renamed
from graphnet_icecube2nd.training.module import freeze
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run_folder import (
    FINISHED,
    begun_stages,
    handed_over,
    open_run,
    with_whole_paths,
)
from graphnet_icecube2nd.training.stage_run import StageRun, first_model
from graphnet_icecube2nd.training.trainer import TrainerConfig


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
    say: Callable[[str], None] = print,
) -> TrainedRun:
    """Train a model by a recipe, stage by stage.

    Killed at any moment and begun again with `resume=True`, it ends with exactly the
    weights of a run that was left alone, with the same version of torch and as many
    threads (on a CPU; GPUs add up in an order of their own). With others it goes on
    too, and says so.

    Args:
        recipe: A recipe, or the name of one.
        data: A store with the labels of the recipe's tasks, or its path.
        out: The run's folder.
        overrides: As `stages.1.lr_max=2e-5`, or such names and values as a mapping.
        resume: Go on with the run in `out`; where there is none, begin.
        machine: Devices, loggers, checkpoints.
        on_row: Called with all measurements after each sub-epoch; what it raises ends
            the run.
        say: Called with what is worth knowing, in words.

    Raises:
        ValueError: An override or a value of the recipe is not allowed; the store has
            no label of a task; `out` holds another run, or one and `resume` is not
            asked.
        NonFiniteError: A loss, a gradient or a validation is not finite; events are in
            the stage's `not_finite_0.csv` (a file for each rank), for a gradient all
            events of the step.
        ImportError: Lightning is not installed.
    """
    recipe = with_whole_paths(find_recipe(recipe, overrides))
    run = Path(out)
    check_model(recipe, begun_stages(run))
    store = data if isinstance(data, EventStore) else EventStore(data)
    rows: list[Row] = []
    is_first = is_first_process()
    with locked_folder(run, "a run") if is_first else nullcontext():
        if is_first:
            open_run(run, recipe, store, resume)
        for number in range(len(recipe.stages)):
            finished = run / f"stage_{number}" / FINISHED
            if not finished.is_file():
                stage = StageRun(recipe, number, run, machine or TrainerConfig(), say)
                stage.train(store, rows, on_row)
            saved = json.loads(finished.read_text(encoding="utf-8"))["rows"]
            rows = [renamed(row) for row in saved]
        if is_first:
            last = run / f"stage_{len(recipe.stages) - 1}"
            with write_whole(run / RUN_MODEL) as temporary:
                shutil.copyfile(last / handed_over(last), temporary)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # or another rank might read too early
    return TrainedRun(path=run, recipe=recipe, rows=rows)


def check_model(recipe: Recipe, begun: int = 0) -> None:
    """See that the recipe's model can be built, without building it.

    Args:
        recipe: The recipe.
        begun: Stages whose `weights` are not asked for any more.

    Raises:
        ValueError: No such model or argument, with the nearest name; a value that is
            not allowed; nothing to freeze.
        FileNotFoundError: There are no such weights for a stage to begin with.
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
