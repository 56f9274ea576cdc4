"""The search for a recipe's best values, with Optuna.

The study lies in SQLite. A trial whose process died is taken up where it stood.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import dump_yaml, to_plain
from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.files import locked_folder
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.training.history import Row, column_of
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipe_file import (
    overridden,
    read_recipe,
    write_recipe,
)
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import check_model, train
from graphnet_icecube2nd.training.trainer import TrainerConfig
from graphnet_icecube2nd.tuning.search_space import first_value, read_space, suggest
from graphnet_icecube2nd.tuning.trial_devices import machines_of_workers

STUDY, BEST, BASE = "icecube2nd", "best.yaml", "recipe.yaml"
SPACE = "space.yaml"
# User attributes of trials: the folder of another that is taken up, and who tried.
GOES_ON, PROCESS = "folder", "process"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Args:
        value: The recipe's monitor, of the best trial.
        values: Its values by name.
        recipe_path: Its recipe as YAML.
        num_trials: Trials of the study that came to an end, pruned ones included.
    """

    value: float
    values: dict[str, Any]
    recipe_path: Path
    num_trials: int


def tune(
    recipe: Recipe | str,
    data: EventStore | str | os.PathLike[str],
    space: Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    num_trials: int = 20,
    workers: int = 1,
    seed: int = 0,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    pruning: bool = True,
    machine: TrainerConfig | None = None,
) -> Tuned:
    """Search a recipe's values for the best validation.

    What counts is the recipe's `monitor`: its best value in the last stage, which is
    the smallest but of metrics such as an accuracy.

    Args:
        recipe: A recipe, or the name of one.
        data: A store.
        space: Names and ranges, or a YAML file of them, see `space.py`.
        out: Folder of the study; where it holds one, that one goes on.
        num_trials: Trials in all, of former calls too.
        workers: Processes that try at the same time, and share the cores; each has a
            GPU of its own where there are enough.
        seed: Of the sampler; several workers make its order their own.
        overrides: Replace values of the recipe first.
        pruning: Stop trials that fall behind the median of the others.
        machine: Of each trial, which takes one device: `devices` is 1 (as `auto` is
            here), or a list as `0,2`, of which each worker takes one.

    Raises:
        ValueError: The space is not understood, names what the recipe does not have,
            or the study in `out` is of another recipe or space; a trial would take
            several devices; no trial came to an end.
        ImportError: Optuna is not installed.
    """
    optuna = import_optuna()
    if num_trials < 1 or workers < 1:
        raise ValueError(f"trials and workers must be 1 or more, got {num_trials} and "
                         f"{workers}")  # fmt: skip
    machines = machines_of_workers(
        machine or TrainerConfig(progress=False, plot=False), workers
    )
    made = find_recipe(recipe, overrides)
    ranges = read_space(space)
    middle = {name: first_value(range_) for name, range_ in ranges.items()}
    check_model(overridden(made, middle))
    store = data if isinstance(data, EventStore) else EventStore(data)
    folder = Path(out)
    with locked_folder(folder, "a study"):
        _open_study(folder, made, ranges)
        study = _study(folder, seed, pruning, made.higher_is_better)
        _take_up(study, optuna)
        arguments = (folder, store.path, num_trials, pruning)
        if workers == 1:
            _work(*arguments, machines[0], seed, None)
        else:
            _work_together(arguments, machines, seed)
        ended = _ended(study, optuna)
        complete = optuna.trial.TrialState.COMPLETE
        if not any(t.state == complete for t in ended):
            raise ValueError(
                f"none of {len(ended)} trials came to an end; see {folder}"
            )
        best = study.best_trial
        write_recipe(overridden(made, best.params), folder / BEST)
    return Tuned(
        value=best.value,
        values=dict(best.params),
        recipe_path=folder / BEST,
        num_trials=len(ended),
    )


def import_optuna() -> Any:
    """Return Optuna.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "tuning needs Optuna: pip install graphnet-icecube2nd[tune]"
        ) from error
    return optuna


def _work(
    folder: Path,
    data: Path,
    num_trials: int,
    pruning: bool,
    machine: TrainerConfig,
    seed: int,
    threads: int | None,
) -> None:
    """Try until the study has so many trials."""
    optuna = import_optuna()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = read_recipe(folder / BASE)
    ranges = read_space(folder / SPACE)
    states = optuna.trial.TrialState

    def try_once(trial: Any) -> float:
        values = {n: suggest(trial, n, range_) for n, range_ in ranges.items()}
        place = trial.user_attrs.get(GOES_ON, trial.number)
        trial.set_user_attr(PROCESS, os.getpid())

        def on_row(rows: list[Row]) -> None:
            trial.report(_value(rows, recipe), step=len(rows))
            if pruning and trial.should_prune():
                raise optuna.TrialPruned

        try:
            run = train(
                replace(overridden(recipe, values), name=f"{recipe.name}-{place}"),
                data,
                folder / "trials" / f"{place:04d}",
                resume=True,
                machine=machine,
                on_row=on_row,
                say=lambda text: None,
            )
        except NonFiniteError as error:  # the search goes on
            raise optuna.TrialPruned(str(error)) from None
        last = [row for row in run.rows if row["stage"] == len(recipe.stages) - 1]
        best = max if recipe.higher_is_better else min
        value = best(_value([row], recipe) for row in last)
        print(f"trial {place}: {value:.4f}, {values}", flush=True)
        return value

    enough = optuna.study.MaxTrialsCallback(
        num_trials, states=(states.COMPLETE, states.PRUNED)
    )
    study = _study(folder, seed, pruning, recipe.higher_is_better)
    if len(_ended(study, optuna)) < num_trials:
        study.optimize(try_once, callbacks=[enough])


def _work_together(
    arguments: tuple[Any, ...], machines: Sequence[TrainerConfig], seed: int
) -> None:
    threads = max(1, (os.cpu_count() or 1) // len(machines))
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_work, args=(*arguments, machine, seed + number, threads))
        for number, machine in enumerate(machines)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        codes = ", ".join(str(process.exitcode) for process in processes)
        raise ValueError(f"a worker failed (exit codes {codes}); the same call goes on")


def _open_study(folder: Path, recipe: Recipe, ranges: dict[str, Any]) -> None:
    if (folder / BASE).is_file():
        same = to_plain(read_recipe(folder / BASE)) == to_plain(recipe)
        if not same or read_space(folder / SPACE) != ranges:
            raise ValueError(
                f"{folder} holds a study of another "
                f"{'space' if same else 'recipe'}; choose another folder"
            )
        return
    (folder / SPACE).write_text(dump_yaml(ranges), encoding="utf-8")
    write_recipe(recipe, folder / BASE)


def _study(folder: Path, seed: int, pruning: bool, maximize: bool) -> Any:
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    study = optuna.create_study(
        study_name=STUDY,
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize" if maximize else "minimize",
        pruner=pruner if pruning else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    # A study that goes on must not draw anew what it has drawn.
    drawn = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed + 1009 * drawn)
    return study


def _take_up(study: Any, optuna: Any) -> None:
    """Queue anew what died in the middle: the folder is ours, nobody is at work."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        if trial.params:
            place = trial.user_attrs.get(GOES_ON, trial.number)
            study.enqueue_trial(trial.params, user_attrs={GOES_ON: place})


def _ended(study: Any, optuna: Any) -> list[Any]:
    states = optuna.trial.TrialState
    ended: list[Any] = study.get_trials(
        deepcopy=False, states=(states.COMPLETE, states.PRUNED)
    )
    return ended


def _value(rows: Sequence[Row], recipe: Recipe) -> float:
    return float(rows[-1][column_of(recipe.monitor)])
