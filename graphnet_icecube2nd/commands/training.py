"""Commands that train: train, recipes, tune."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from graphnet_icecube2nd.commands import completion, options
from graphnet_icecube2nd.commands.options import machine_option, option

_published = partial(option, panel="Published training")


def train(
    recipe: Annotated[
        str | None,
        option(
            "Recipe: a name (see `icecube2nd recipes`) or a .yaml file.",
            complete=completion.recipe,
        ),
    ] = None,
    data: Annotated[
        Path | None, option("Event store, as `icecube2nd prepare` writes it.")
    ] = None,
    out: Annotated[Path | None, option("Folder of the run.")] = None,
    tasks: Annotated[
        str | None,
        option(
            "Tasks to train, separated by commas, such as direction,energy (see "
            "`icecube2nd tasks`). Default: the recipe's tasks.",
            complete=completion.tasks,
        ),
    ] = None,
    set: options.Replacements = None,
    resume: Annotated[
        bool,
        option(
            "Resume the interrupted run in OUT. On CPU the weights are bitwise those "
            "of an uninterrupted run.",
            "--resume",
        ),
    ] = False,
    published: Annotated[
        bool,
        _published(
            "Train as the published train.py does: optimiser steps of 128 events, "
            "random eighths of the data, raw instead of averaged weights, the last "
            "weights of a stage in the next one, the approximate loss, and the "
            "published feature errors. Remaining differences are printed.",
            "--published",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        _published("Published config.json, used instead of --recipe."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY VALUE]...",
            help="Values that replace those of --config: LR_MAX 5e-4",
            show_default=False,
        ),
    ] = None,
    accelerator: options.Accelerator = "auto",
    devices: Annotated[
        str, machine_option("Devices: auto, a count, or a list such as 0,2.")
    ] = "auto",
    strategy: Annotated[
        str,
        machine_option(
            "Lightning strategy: auto, ddp, or ddp_find_unused_parameters_true for "
            "models that do not use all their parameters."
        ),
    ] = "auto",
    num_nodes: Annotated[
        int, machine_option("Number of machines of a distributed run.")
    ] = 1,
    workers: Annotated[
        int | None,
        machine_option("Processes that read events. Default: the main process."),
    ] = None,
    logger: Annotated[
        list[str] | None,
        machine_option(
            "Logger used besides metrics.csv: tensorboard or wandb. Repeat the option "
            "for both."
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, machine_option("Minutes between checkpoints within a sub-epoch.")
    ] = 5.0,
    checkpoint_steps: Annotated[
        int | None,
        machine_option("Optimiser steps between checkpoints within a sub-epoch."),
    ] = None,
    progress: Annotated[
        bool, machine_option("Show a progress bar.", "--progress/--no-progress")
    ] = True,
    plot: Annotated[
        bool,
        machine_option("Draw the curves in OUT/curves.png.", "--plot/--no-plot"),
    ] = True,
) -> None:
    """Train a model with a recipe: stages, each with a one-cycle learning rate.

    OUT gets the recipe, metrics.csv, curves.png, the weights of each stage and
    model.safetensors. --resume continues an interrupted run at any step.
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
            raise ValueError("give either --recipe or --config, found both")
        asked = read_published_config(config, overrides or ())
        made, data, out = asked.recipe, data or asked.data, out or asked.out
        num_workers = asked.num_workers if workers is None else workers
    else:
        if overrides:
            raise ValueError(
                f"KEY VALUE pairs need --config, found {overrides[0]!r} without it: "
                "replace values of a recipe with --set NAME=VALUE"
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
    # The ranks are not connected yet: each of them runs this.
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
        str | None, typer.Argument(help="Recipe to print as YAML. Default: list all.")
    ] = None,
    set: options.Replacements = None,
    published: Annotated[
        bool,
        option("Print the recipe as `train --published` changes it.", "--published"),
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
    recipe: Annotated[
        str,
        option(
            "Recipe: a name (see `icecube2nd recipes`) or a .yaml file.",
            complete=completion.recipe,
        ),
    ],
    data: Annotated[Path, option("Event store.")],
    space: Annotated[Path, option("YAML file of the search space.")],
    out: Annotated[Path, option("Folder of the study: study.db, best.yaml, trials/.")],
    trials: Annotated[int, option("Total number of trials, of all workers.")] = 20,
    workers: Annotated[
        int, option("Number of processes that run trials in parallel.")
    ] = 1,
    seed: Annotated[int, option("Random seed of the sampler.")] = 0,
    set: options.Replacements = None,
    pruning: Annotated[
        bool, option("Stop unpromising trials early.", "--pruning/--no-pruning")
    ] = True,
    accelerator: options.Accelerator = "auto",
    devices: Annotated[
        str,
        machine_option(
            "Devices: 1, because a trial uses one device, or a list such as 0,2 with "
            "one device for each worker."
        ),
    ] = "1",
) -> None:
    """Search for the best values of a recipe with Optuna.

    The search space lists names of a recipe's values with their ranges. An interrupted
    search resumes when the command is run again.
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
