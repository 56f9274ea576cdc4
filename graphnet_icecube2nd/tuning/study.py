"""Search for the best values of a recipe, with Optuna.

The study is an SQLite file. A trial whose process died resumes at its last checkpoint.
A search space has names and ranges, as YAML or a mapping:

    stages.0.lr_max: {low: 1e-5, high: 1e-3, log: true}
    stages.0.loss: {choices: [vmf, combined]}
    model_kwargs.depth: {low: 4, high: 12, step: 2}

Names are those of overrides. A range between whole numbers has only whole numbers.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.config import dump_yaml, nearest, read_yaml, to_plain
from graphnet_icecube2nd.errors import NonFiniteError, naming
from graphnet_icecube2nd.files import locked_folder, write_text
from graphnet_icecube2nd.notices import only_from, print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.training.history import Row, column_of
from graphnet_icecube2nd.training.recipe import (
    Recipe,
    overridden,
    read_recipe,
    write_recipe,
)
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import check_model, train
from graphnet_icecube2nd.training.trainer import TrainerConfig

try:
    import optuna
except ImportError:
    optuna = None

LOGGER = logging.getLogger(__name__)
TRAINING = "graphnet_icecube2nd.training"  # name of the logger
STUDY, BEST, BASE = "icecube2nd", "best.yaml", "recipe.yaml"
SPACE = "space.yaml"
# User attributes of trials: folder of the trial that is resumed, and process id.
GOES_ON, PROCESS = "folder", "process"
KEYS = ("low", "high", "log", "step", "choices")  # keys of a range


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """Best trial of a search."""

    value: float  # value of the recipe's monitor
    values: dict[str, Any]  # values of the search space, by name
    recipe_path: Path  # YAML file of the recipe with these values
    num_trials: int  # finished trials of the study, including pruned ones


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
) -> TuningResult:
    """Search for the values of a recipe with the best validation.

    The result of a trial is the best value of the recipe's `monitor` in the last stage:
    the smallest, or the largest for metrics such as an accuracy.

    Args:
        recipe: Recipe, or its name.
        data: Event store, or its path.
        space: Names and ranges, or their YAML file: `{"stages.0.lr_max": {"low": 1e-5,
            "high": 1e-3, "log": True}}`; `choices` instead of low and high.
        out: Folder of the study; an existing study is continued.
        num_trials: Number of trials of the study, including earlier calls.
        workers: Number of parallel processes, which share the cores; each has its own
            GPU if there are enough.
        seed: Random seed of the sampler; with several workers trials differ from call
            to call.
        overrides: Overrides of the recipe before the search.
        pruning: Stop trials that are worse than the median of the others.
        machine: Device of each trial. `devices` is 1 (here also `auto`), or a list such
            as `0,2`, of which each worker takes one.

    Raises:
        ValueError: The space is malformed or has names that the recipe does not have,
            the study in `out` has another recipe or space, a trial would take several
            devices, or no trial finished.
        ImportError: Optuna is not installed.
    """
    if optuna is None:
        raise ImportError("tuning needs Optuna: pip install graphnet-icecube2nd[tune]")
    print_notices()
    if num_trials < 1 or workers < 1:
        raise ValueError(
            f"trials and workers must be 1 or more, found {num_trials} and {workers}"
        )
    machines = machines_of_workers(
        machine or TrainerConfig(progress=False, plot=False), workers
    )
    made = find_recipe(recipe, overrides)
    ranges = read_space(space)
    # One value of each range shows whether the recipe accepts it.
    some = {
        n: r["choices"][0] if "choices" in r else r["low"] for n, r in ranges.items()
    }
    check_model(overridden(made, some))
    store = data if isinstance(data, EventStore) else EventStore(data)
    folder = Path(out)
    with locked_folder(folder, "a study"):
        _open_study(folder, made, ranges)
        study = _study(folder, seed, pruning, made.higher_is_better)
        _take_up(study)
        arguments = (folder, store.path, num_trials, pruning)
        if workers == 1:
            _work(*arguments, machines[0], seed, None)
        else:
            _work_together(arguments, machines, seed)
        ended = _ended(study)
        if not any(t.state == optuna.trial.TrialState.COMPLETE for t in ended):
            raise ValueError(
                f"none of {len(ended)} trials finished without pruning; see {folder}"
            )
        best = study.best_trial
        write_recipe(overridden(made, best.params), folder / BEST)
    return TuningResult(
        value=best.value,
        values=dict(best.params),
        recipe_path=folder / BEST,
        num_trials=len(ended),
    )


def _work(
    folder: Path,
    data: Path,
    num_trials: int,
    pruning: bool,
    machine: TrainerConfig,
    seed: int,
    threads: int | None,
) -> None:
    """Run trials until the study has `num_trials`."""
    print_notices()
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = read_recipe(folder / BASE)
    ranges = read_space(folder / SPACE)

    def try_once(trial: Any) -> float:
        values = {n: _suggest(trial, n, range_) for n, range_ in ranges.items()}
        place = trial.user_attrs.get(GOES_ON, trial.number)
        trial.set_user_attr(PROCESS, os.getpid())

        def on_row(rows: list[Row]) -> None:
            trial.report(_value(rows, recipe), step=len(rows))
            if pruning and trial.should_prune():
                raise optuna.TrialPruned

        try:
            with only_from(TRAINING):
                run = train(
                    replace(overridden(recipe, values), name=f"{recipe.name}-{place}"),
                    data,
                    folder / "trials" / f"{place:04d}",
                    resume=True,
                    machine=machine,
                    on_row=on_row,
                )
        except NonFiniteError as error:  # the search continues
            raise optuna.TrialPruned(str(error)) from None
        last = [row for row in run.rows if row["stage"] == len(recipe.stages) - 1]
        best = max if recipe.higher_is_better else min
        value = best(_value([row], recipe) for row in last)
        LOGGER.info(f"trial {place}: {value:.4f}, {values}")
        return value

    enough = optuna.study.MaxTrialsCallback(num_trials, states=_ended_states())
    study = _study(folder, seed, pruning, recipe.higher_is_better)
    if len(_ended(study)) < num_trials:
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
    codes = [process.exitcode for process in processes]
    if any(codes):
        raise ValueError(
            f"a worker failed (exit codes {', '.join(map(str, codes))}); repeat the "
            "call to continue the study"
        )


def _open_study(folder: Path, recipe: Recipe, ranges: dict[str, Any]) -> None:
    if (folder / BASE).is_file():
        same = to_plain(read_recipe(folder / BASE)) == to_plain(recipe)
        if not same or read_space(folder / SPACE) != ranges:
            raise ValueError(
                f"{folder} holds a study of another "
                f"{'space' if same else 'recipe'}; choose another folder"
            )
        return
    write_text(folder / SPACE, dump_yaml(ranges))
    write_recipe(recipe, folder / BASE)


def _study(folder: Path, seed: int, pruning: bool, maximize: bool) -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    study = optuna.create_study(
        study_name=STUDY,
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize" if maximize else "minimize",
        pruner=pruner if pruning else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    # A continued study must not draw the same values again.
    drawn = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed + 1009 * drawn)
    return study


def _take_up(study: Any) -> None:
    """Queue interrupted trials again; the folder is locked, so no trial is running."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        if trial.params:
            place = trial.user_attrs.get(GOES_ON, trial.number)
            study.enqueue_trial(trial.params, user_attrs={GOES_ON: place})


def _ended(study: Any) -> list[Any]:
    ended: list[Any] = study.get_trials(deepcopy=False, states=_ended_states())
    return ended


def _ended_states() -> tuple[Any, Any]:
    return optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED


def _value(rows: Sequence[Row], recipe: Recipe) -> float:
    return float(rows[-1][column_of(recipe.monitor)])


def read_space(space: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checked search space; ValueError names a malformed range."""
    if isinstance(space, str | os.PathLike):
        with naming(space):
            return _checked_space(read_yaml(space))
    return _checked_space(space)


def _checked_space(space: Any) -> dict[str, Any]:
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"a search space must be names and ranges, found {space!r}")
    for name, range_ in space.items():
        if not isinstance(range_, Mapping):
            raise ValueError(
                f"{name}: a range must be low and high, or choices; found {range_!r}"
            )
        for key in range_:
            if key not in KEYS:
                raise ValueError(f"{name}.{key} is unknown; {nearest(key, KEYS)}")
        if "choices" in range_:
            if len(range_) > 1 or not isinstance(range_["choices"], list):
                raise ValueError(f"{name}: choices must be a list, without other keys")
            if not range_["choices"]:
                raise ValueError(f"{name}: choices must not be empty")
            continue
        low, high = range_.get("low", "nothing"), range_.get("high", "nothing")
        if not (_is_number(low) and _is_number(high) and low < high):
            raise ValueError(
                f"{name}: low must be below high, found {low!r} and {high!r}"
            )
        step = range_.get("step", 1)
        if not (_is_number(step) and step > 0):
            raise ValueError(f"{name}: step must be a number above 0, found {step!r}")
        if range_.get("log") and (low <= 0 or "step" in range_):
            raise ValueError(f"{name}: log needs low above 0, and no step")
    return {str(name): dict(range_) for name, range_ in space.items()}


def _suggest(trial: Any, name: str, range_: Mapping[str, Any]) -> Any:
    """Return the value that a trial chooses."""
    if "choices" in range_:
        return trial.suggest_categorical(name, range_["choices"])
    low, high, log = range_["low"], range_["high"], bool(range_.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        step = range_.get("step", 1)
        return trial.suggest_int(name, low, high, log=log, step=step)
    return trial.suggest_float(name, low, high, log=log, step=range_.get("step"))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def machines_of_workers(machine: TrainerConfig, workers: int) -> list[TrainerConfig]:
    """Return the machine of each worker, with one device, different ones if possible.

    Devices are a list such as `0,2`; with 1 or `auto` workers share all CUDA devices. A
    trial has one rank, because several ranks would have to agree on values and pruning.
    """
    if machine.num_nodes > 1:
        raise ValueError(f"a trial needs num_nodes=1, found {machine.num_nodes}")
    text = str(machine.devices)
    devices: list[str | int] = [1]
    if "," in text:
        # Lightning reads a number with a comma as the device of that number.
        devices = [f"{name.strip()}," for name in text.split(",") if name.strip()]
        if len(devices) > workers:
            raise ValueError(
                f"a trial needs one device, found {len(devices)} devices ({text}) for "
                f"{workers} workers"
            )
    elif text not in ("1", "auto"):
        raise ValueError(
            "a trial needs one device: devices must be 1, or a list such as 0,2 for "
            f"the same number of workers, found {text}"
        )
    elif workers > 1 and machine.accelerator in ("auto", "gpu", "cuda"):
        devices = [f"{number}," for number in range(torch.cuda.device_count())] or [1]
    return [
        replace(machine, devices=devices[number % len(devices)])
        for number in range(workers)
    ]
