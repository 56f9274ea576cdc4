"""Commands that train: train, recipes, tune."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import machine_option, option

_published = partial(option, panel="As the published train.py")


def train(
    recipe: Annotated[
        str | None, option("Recipe: a name (see `icecube2nd recipes`) or a .yaml file.")
    ] = None,
    data: Annotated[
        Path | None, option("Event store; see `icecube2nd prepare`.")
    ] = None,
    out: Annotated[Path | None, option("Folder of the run.")] = None,
    tasks: Annotated[
        str | None,
        option(
            "Tasks to train, separated by commas: direction,energy,track (see "
            "`icecube2nd tasks`). Default: those of the recipe."
        ),
    ] = None,
    set: options.Replacements = None,
    resume: Annotated[
        bool,
        option(
            "Resume the run in OUT; on a CPU its weights are identical.", "--resume"
        ),
    ] = False,
    published: Annotated[
        bool,
        _published(
            "Steps every 128 events, random eighths, raw weights saved, the last go "
            "on, the approximate loss, and features with the published slips. What "
            "still differs (learning rates, sub-epochs, precision) is printed.",
            "--published",
        ),
    ] = False,
    config: Annotated[
        Path | None, _published("The published config.json in place of --recipe.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY VALUE]...",
            help="Values of --config: MODEL_KWARGS.depth 12 LR_MAX 5e-4",
            show_default=False,
        ),
    ] = None,
    accelerator: options.Accelerator = "auto",
    devices: Annotated[
        str, machine_option("Devices: auto, a number, or a list as 0,2.")
    ] = "auto",
    strategy: Annotated[
        str,
        machine_option(
            "Strategy of Lightning: auto, ddp, or ddp_find_unused_parameters_true for "
            "models that leave parameters out."
        ),
    ] = "auto",
    num_nodes: Annotated[int, machine_option("Machines that train together.")] = 1,
    workers: Annotated[
        int | None,
        machine_option("Processes that read events. Default: this one reads."),
    ] = None,
    logger: Annotated[
        list[str] | None,
        machine_option(
            "Logger, tensorboard or wandb, beside metrics.csv, which is always "
            "written; more than once for both."
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, machine_option("Minutes between checkpoints in a sub-epoch.")
    ] = 5.0,
    checkpoint_steps: Annotated[
        int | None,
        machine_option("Optimiser steps between checkpoints in a sub-epoch."),
    ] = None,
    progress: Annotated[
        bool, machine_option("Show a progress bar.", "--progress/--no-progress")
    ] = True,
    plot: Annotated[
        bool, machine_option("Draw OUT/curves.png.", "--plot/--no-plot")
    ] = True,
) -> None:
    """Train a model by a recipe: stages of one-cycles, resumable at any moment.

    Leaves in OUT the recipe, metrics.csv, curves.png, the weights of each stage, and
    model.safetensors. An interrupted run resumes with --resume, and ends with the same
    weights on a CPU.
    """
    from graphnet_icecube2nd.published.published_config import (
        as_store,
        published_notes,
        read_published_config,
    )
    from graphnet_icecube2nd.tasks.catalogue import distinct_tasks
    from graphnet_icecube2nd.training.history import validation_text
    from graphnet_icecube2nd.training.recipe import as_published
    from graphnet_icecube2nd.training.recipes import find_recipe
    from graphnet_icecube2nd.training.run import is_first_process
    from graphnet_icecube2nd.training.run import train as run
    from graphnet_icecube2nd.training.trainer import TrainerConfig

    num_workers = workers
    if config is not None:
        if recipe is not None:
            raise ValueError("give --recipe or --config, not both")
        asked = read_published_config(config, overrides or ())
        made, data, out = asked.recipe, data or asked.data, out or asked.out
        num_workers = asked.num_workers if workers is None else workers
    else:
        if overrides:
            raise ValueError(
                f"{overrides[0]!r}: KEY VALUE pairs go with --config; a recipe's "
                "values are replaced by --set NAME=VALUE"
            )
        for name, value in (("--recipe", recipe), ("--data", data), ("--out", out)):
            if value is None:
                raise ValueError(f"{name} must be given (see --help)")
        assert recipe is not None
        made = find_recipe(recipe)
    assert data is not None
    assert out is not None
    if tasks is not None:
        names = distinct_tasks(name.strip() for name in tasks.split(","))
        made = replace(made, tasks={name: made.tasks.get(name, {}) for name in names})
    if published:
        made = as_published(made)
    # Before several processes have met, each of them is here.
    if (published or config is not None) and is_first_process():
        for note in published_notes(find_recipe(made, set or ())):
            print(f"note: {note}")
    if config is not None:
        data = as_store(data)
    result = run(
        made,
        data,
        out,
        overrides=set or (),
        resume=resume,
        machine=TrainerConfig(
            accelerator=accelerator,
            devices=_devices(devices),
            strategy=strategy,
            num_nodes=num_nodes,
            num_workers=num_workers or 0,
            loggers=tuple(logger or ()),
            checkpoint_minutes=checkpoint_minutes,
            checkpoint_steps=checkpoint_steps,
            progress=progress,
            plot=plot,
        ),
    )
    if not is_first_process():
        return
    print(f"{result.path / 'model.safetensors'}: {validation_text(result.handed_over)}")


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe to print as YAML; default: list all.")
    ] = None,
    set: options.Replacements = None,
    published: Annotated[
        bool, option("Print the recipe that `train --published` uses.", "--published")
    ] = False,
) -> None:
    """List the recipes, or print one as YAML, which `train --recipe` reads."""
    from graphnet_icecube2nd.training import recipes as known
    from graphnet_icecube2nd.training.recipe import as_published, recipe_text

    if name is None:
        names = known.list_recipes()
        width = max(map(len, names))
        for each in names:
            print(f"{each:{width}}  {known.describe_recipe(each)}")
        return
    recipe = known.find_recipe(name)
    if published:  # first, as `train` does
        recipe = as_published(recipe)
    print(recipe_text(known.find_recipe(recipe, set or ())), end="")


def tune(
    recipe: Annotated[str, option("Recipe: a name or a .yaml file.")],
    data: Annotated[Path, option("Event store.")],
    space: Annotated[Path, option("YAML of what is searched; see README.")],
    out: Annotated[Path, option("Folder of the study: study.db, best.yaml, trials.")],
    trials: Annotated[int, option("Trials of the study in all, by all workers.")] = 20,
    workers: Annotated[int, option("Processes that try at the same time.")] = 1,
    seed: Annotated[int, option("Random seed of the sampler.")] = 0,
    set: options.Replacements = None,
    pruning: Annotated[
        bool, option("Stop trials that fall behind.", "--pruning/--no-pruning")
    ] = True,
    accelerator: options.Accelerator = "auto",
    devices: Annotated[
        str,
        machine_option(
            "Devices: 1, as a trial takes one; or a list as 0,2, one for each worker."
        ),
    ] = "1",
) -> None:
    """Search a recipe's values with Optuna.

    An interrupted search resumes when the command is run again.
    """
    from graphnet_icecube2nd.training.trainer import TrainerConfig
    from graphnet_icecube2nd.tuning.study import tune as search

    machine = TrainerConfig(
        accelerator=accelerator, devices=_devices(devices), progress=False, plot=False
    )
    result = search(
        recipe,
        data,
        space,
        out,
        num_trials=trials,
        workers=workers,
        seed=seed,
        overrides=set or (),
        pruning=pruning,
        machine=machine,
    )
    print(f"best of {result.num_trials} trials: {result.value:.4f}")
    for name, value in result.values.items():
        print(f"  {name} = {value}")
    print(f"its recipe: {result.recipe_path}")


def _devices(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
