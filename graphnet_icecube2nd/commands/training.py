"""Commands that train: train, recipes, tune."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.training.trainer import TrainerConfig

MACHINE = "Machine"
PUBLISHED = "As the published train.py"


def _option(help: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


def train(
    recipe: Annotated[
        str | None,
        typer.Option(help="A name (see `icecube2nd recipes`) or a .yaml file."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A store; see `icecube2nd prepare`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks to train, separated by commas: direction,energy,track (see "
            "`icecube2nd tasks`). Default: those of the recipe.",
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Replace a value of the recipe: stages.2.lr_max=2e-5 (stages count "
            "from 0), tasks.energy.weight=0.1. More than once for several.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT, to the bit.")
    ] = False,
    published: Annotated[
        bool,
        _option(
            "Steps every 128 events, random eighths, raw weights saved, the last go "
            "on, the approximate loss, and features with the published slips. What "
            "still differs (learning rates, sub-epochs, precision) is printed.",
            PUBLISHED,
            "--published",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        _option("The published config.json in place of --recipe.", PUBLISHED),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY VALUE]...",
            help="With --config: MODEL_KWARGS.depth 12 LR_MAX 5e-4",
            show_default=False,
        ),
    ] = None,
    accelerator: Annotated[
        str, _option("auto, cpu, gpu, cuda, mps.", MACHINE)
    ] = "auto",
    devices: Annotated[
        str, _option("auto, a number, or a list as 0,2.", MACHINE)
    ] = "auto",
    strategy: Annotated[
        str,
        _option(
            "auto, ddp, or ddp_find_unused_parameters_true for models that leave "
            "parameters out.",
            MACHINE,
        ),
    ] = "auto",
    num_nodes: Annotated[int, _option("Machines that train together.", MACHINE)] = 1,
    workers: Annotated[
        int | None,
        _option("Processes that read events. Default: this one reads.", MACHINE),
    ] = None,
    logger: Annotated[
        list[str] | None,
        _option(
            "tensorboard or wandb, beside metrics.csv, which is always written.",
            MACHINE,
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, _option("A checkpoint within a sub-epoch after so long.", MACHINE)
    ] = 5.0,
    checkpoint_steps: Annotated[
        int | None, _option("And after so many optimiser steps.", MACHINE)
    ] = None,
    progress: Annotated[
        bool, _option("Show a progress bar.", MACHINE, "--progress/--no-progress")
    ] = True,
    plot: Annotated[
        bool, _option("Draw OUT/curves.png.", MACHINE, "--plot/--no-plot")
    ] = True,
) -> None:
    """Train a model by a recipe: stages of one-cycles, resumable at any moment.

    Leaves in OUT the recipe, metrics.csv, curves.png, the weights of each stage, and
    model.safetensors. Killed and begun again with --resume it ends with the same
    weights.
    """
    from graphnet_icecube2nd.notices import print_notices
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

    print_notices(always=True)
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
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Replace a value first."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="As `train --published` has it.")
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
    recipe: Annotated[str, typer.Option(help="A name or a .yaml file.")],
    data: Annotated[Path, typer.Option(help="A store.")],
    space: Annotated[Path, typer.Option(help="YAML of what is searched; see README.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the study: study.db, best.yaml, trials.")
    ],
    trials: Annotated[
        int, typer.Option(help="Trials of the study in all, by all workers.")
    ] = 20,
    workers: Annotated[
        int, typer.Option(help="Processes that try at the same time.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Replace a value of the recipe first."),
    ] = None,
    pruning: Annotated[
        bool,
        typer.Option("--pruning/--no-pruning", help="Stop trials that fall behind."),
    ] = True,
    accelerator: Annotated[
        str, _option("auto, cpu, gpu, cuda, mps.", MACHINE)
    ] = "auto",
    devices: Annotated[
        str,
        _option(
            "1, as a trial takes one; or a list as 0,2, one for each worker.", MACHINE
        ),
    ] = "1",
) -> None:
    """Search a recipe's values with Optuna; the same command goes on after a kill."""
    from graphnet_icecube2nd.notices import print_notices
    from graphnet_icecube2nd.training.trainer import TrainerConfig
    from graphnet_icecube2nd.tuning.study import tune as search

    print_notices(always=True)
    machine: TrainerConfig = TrainerConfig(
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
