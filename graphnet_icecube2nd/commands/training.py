"""Commands that train: train, pretrain, finetune, recipes, tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphnet_icecube2nd.commands import completion, options
from graphnet_icecube2nd.commands.options import machine_option, option

if TYPE_CHECKING:
    from graphnet_icecube2nd.training.run import TrainedRun
    from graphnet_icecube2nd.training.trainer import TrainerConfig

_published = partial(option, panel="Published training")


Resume = Annotated[
    bool,
    option(
        "Resume the interrupted run in OUT. On CPU the weights are bitwise those of an "
        "uninterrupted run.",
        "--resume",
    ),
]

Workers = Annotated[
    int | None,
    machine_option("Processes that read events. Default: the main process."),
]


def _machine_options(
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
    workers: Workers = None,
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
    """Declare the options of the machine; see `trains`."""


def _machine(values: Mapping[str, Any]) -> TrainerConfig:
    """Return the machine for the given options."""
    from graphnet_icecube2nd.training.trainer import TrainerConfig

    given = dict(values)
    if "devices" in given:
        given["devices"] = _devices(given["devices"])
    return TrainerConfig(
        num_workers=given.pop("workers", None) or 0,
        loggers=tuple(given.pop("logger", None) or ()),
        **given,
    )


def trains(command: Callable[..., None]) -> Any:
    """Add the options of the machine to a command, which gets them as `machine`.

    `machine` is a `TrainerConfig`.
    """
    return options.with_options(command, _machine_options, "machine", _machine)


@trains
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
    resume: Resume = False,
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
    workers: Workers = None,
    *,
    machine: Any,
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
    from graphnet_icecube2nd.training.recipe import as_published
    from graphnet_icecube2nd.training.recipes import find_recipe
    from graphnet_icecube2nd.training.run import is_first_process
    from graphnet_icecube2nd.training.run import train as run

    if config is not None:
        if recipe is not None:
            raise ValueError("give either --recipe or --config, found both")
        asked = read_published_config(config, overrides or ())
        made, data, out = asked.recipe, data or asked.data, out or asked.out
        workers = asked.num_workers if workers is None else workers
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
        machine=replace(machine, num_workers=workers or 0),
    )
    _say_result(result)


@trains
def pretrain(
    store: Annotated[Path, typer.Argument(help="Event store.", show_default=False)],
    out: Annotated[Path, option("Folder of the run.")],
    model: Annotated[
        str, option("Model whose backbone is trained (see `icecube2nd models`).")
    ] = "t_sim",
    set: options.Replacements = None,
    resume: Resume = False,
    *,
    machine: Any,
) -> None:
    """Train a model on events without truth, such as data, for `finetune`.

    A quarter of the pulses is masked, and the model learns to predict their position,
    or their time and charge. OUT has no answers; `finetune OUT STORE --tasks ...`
    trains the tasks.
    """
    from graphnet_icecube2nd.training.transfer import pretrain as train_first

    result = train_first(
        store,
        out,
        model=model,
        overrides=set or (),
        resume=resume,
        machine=machine,
    )
    _say_result(result)


@trains
def finetune(
    model: Annotated[
        str,
        typer.Argument(
            help="Weights of the package (t_sim.simulated), a run, or a file of "
            "weights.",
            show_default=False,
        ),
    ],
    store: Annotated[Path, typer.Argument(help="Event store.", show_default=False)],
    out: Annotated[Path, option("Folder of the run.")],
    tasks: Annotated[
        str | None,
        option(
            "Tasks to train, separated by commas, such as direction,energy (see "
            "`icecube2nd tasks`). Default: the model's tasks.",
            complete=completion.tasks,
        ),
    ] = None,
    method: Annotated[
        str,
        option(
            "Trained weights: `full`, all; `frozen`, only the tasks' last layers; "
            "`layer-wise`, all, with smaller learning rates in lower layers; `staged`, "
            "first the last layers, then the upper half of the backbone, too, then all."
        ),
    ] = "full",
    scales: Annotated[
        str,
        option(
            "Units of the features: `model`, those of its training, or `store`, those "
            "of the store's detector."
        ),
    ] = "model",
    set: options.Replacements = None,
    resume: Resume = False,
    *,
    machine: Any,
) -> None:
    """Train a model further: on other events, tasks, columns, or another detector.

    The backbone of MODEL is taken over, and the last layers of tasks that it has. Its
    answers at the start are those of MODEL, also if STORE has columns that MODEL does
    not know, such as PMT directions. OUT gets what `train` writes; its recipe.yaml
    shows the stages of the method, and --set replaces their values.
    """
    from graphnet_icecube2nd.training.transfer import finetune as tune_further

    names = None if tasks is None else [name.strip() for name in tasks.split(",")]
    result = tune_further(
        model,
        store,
        out,
        tasks=names,
        method=method,
        scales=scales,
        overrides=set or (),
        resume=resume,
        machine=machine,
    )
    _say_result(result)


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


def _say_result(result: TrainedRun) -> None:
    """Print the file and the validation of a finished run, on the first process."""
    from graphnet_icecube2nd.training.history import validation_text
    from graphnet_icecube2nd.training.run import is_first_process

    if is_first_process():
        text = validation_text(result.handed_over)
        print(f"{result.path / 'model.safetensors'}: {text}")


def _devices(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
