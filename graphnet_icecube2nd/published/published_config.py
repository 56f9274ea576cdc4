"""Published `config.json` with `KEY VALUE` overrides, as a recipe of one stage.

The notes explain where the published code (github.com/DrHB/icecube-2nd-place, train.py)
differs from its own configuration.

    asked = read_published_config("config.json", ["LR_MAX", "5e-4"])
    store, machine = as_store(asked.data), TrainerConfig(num_workers=asked.num_workers)
    train(asked.recipe, store, asked.out, machine=machine)

is `icecube2nd train --config config.json LR_MAX 5e-4`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import nearest
from graphnet_icecube2nd.errors import check_one_of, check_whole, naming
from graphnet_icecube2nd.files import read_json
from graphnet_icecube2nd.models.weights import RUN_MODEL
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.preparation import prepare
from graphnet_icecube2nd.training.recipe import (
    OPENING_ANGLE,
    DataConfig,
    Recipe,
    Stage,
    as_published,
    read_recipe,
)
from graphnet_icecube2nd.training.run import is_first_process
from graphnet_icecube2nd.training.run_folder import RECIPE

LOGGER = logging.getLogger(__name__)
LR_MAX, SUB_EPOCHS = 1e-5, 8  # constants of the published fit_one_cycle
# Their model classes: our model, and their defaults that differ from ours.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DeepIceModel": ("s_d32", {"dim": 384, "dim_base": 128, "depth": 12}),
    "EncoderWithDirectionReconstructionV22": ("s_gnn", {"depth": 8, "head_size": 64}),
    "EncoderWithDirectionReconstructionV23": (
        "b_gnn",
        {"dim": 384, "dim_base": 128, "depth": 8, "head_size": 64},
    ),
}
LOSSES = {"loss_vms": "vmf", "loss_comb": "combined", "loss": "angle"}
DEFAULTS: dict[str, Any] = {  # values of the published config.json
    "SELECTION": "total",
    "OUT": "BASELINE",
    "PATH": "data/",
    "NUM_WORKERS": 4,
    "SEED": 2023,
    "BS": 32,
    "BS_VALID": 32,
    "L": 192,
    "L_VALID": 192,
    "EPOCHS": 8,
    "LR_MAX": 5e-4,
    "MODEL": "DeepIceModel",
    "MOMS": [0.95, 0.95, 0.95],
    "DIV": 25,
    "DIV_FINAL": 25,
    "EMA": False,
    "MODEL_KWARGS": {"dim": 384, "dim_base": 128, "depth": 8, "head_size": 32},
    "WEIGHTS": False,
    "LOSS_FUNC": "loss_vms",
    "METRIC": "loss",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# Descriptions and checks of values that a recipe does not check.
ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("LR_MAX", "DIV", "DIV_FINAL"), ("a number", _is_number)),
    "EMA": ("true or false", lambda v: isinstance(v, bool)),
    "MOMS": (
        "false or three numbers",
        lambda v: (
            not v or (isinstance(v, list) and len(v) == 3 and all(map(_is_number, v)))
        ),
    ),
    "MODEL_KWARGS": ("names and values", lambda v: isinstance(v, dict)),
    "WEIGHTS": ("false or a path", lambda v: not v or isinstance(v, str)),
}


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """Content of a published configuration."""

    recipe: Recipe  # recipe of one stage
    data: Path  # PATH, the store or files of events
    out: Path  # OUT, the folder of the run
    num_workers: int  # reading processes
    notes: tuple[str, ...]  # differences to the published code


def read_published_config(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> PublishedConfig:
    """Read a `config.json` and apply `KEY VALUE KEY VALUE ...`.

    Args:
        path: JSON file; missing keys have the published values.
        overrides: Keys and values as on the published command line:
            `MODEL_KWARGS.depth`, `12`.

    Raises:
        ValueError: A key is unknown (the message has the nearest one) or has no value,
            a value is not allowed, or the file is not JSON.
        OSError: The file does not exist.
    """
    config = read_values(path, overrides)
    with naming(" ".join([str(path), *overrides])):
        return _asked(config)


def _asked(config: Mapping[str, Any]) -> PublishedConfig:
    """Return the recipe and paths of values by published key."""
    _check_values(config)
    model, defaults = MODELS[config["MODEL"]]
    loss, metric = LOSSES[config["LOSS_FUNC"]], LOSSES[config["METRIC"]]
    if metric not in ("angle", loss):
        raise ValueError(
            f"METRIC must be loss (the opening angle) or as LOSS_FUNC, found "
            f"{config['METRIC']!r}"
        )
    first, middle, last = map(float, config["MOMS"] or (0.95, 0.85, 0.95))  # fastai's
    weights = config["WEIGHTS"] or None
    stage = Stage(
        lr_max=float(config["LR_MAX"]),
        epochs=config["EPOCHS"] / SUB_EPOCHS,
        div=float(config["DIV"]),
        div_final=float(config["DIV_FINAL"]),
        momenta=(first, middle, last),
        loss=loss,
        ema=config["EMA"],
        batch_size=config["BS"],
        max_pulses=config["L"],
        weights=weights and published_weights(weights),
        next_from="last",
    )
    recipe = Recipe(
        name=str(config["OUT"]),
        model=model,
        model_kwargs={**defaults, **config["MODEL_KWARGS"]},
        stages=(stage,),
        seed=config["SEED"],
        data=DataConfig(
            length_class=config["SELECTION"],
            num_sub_epochs=SUB_EPOCHS,
            validation_batch_size=config["BS_VALID"],
            validation_max_pulses=config["L_VALID"],
        ),
        monitor=OPENING_ANGLE if metric == "angle" else "loss",
    )
    return PublishedConfig(
        recipe=recipe,
        data=Path(str(config["PATH"])),
        out=Path(str(config["OUT"])),
        num_workers=config["NUM_WORKERS"],
        notes=published_notes(recipe),
    )


def read_values(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return all values of a `config.json` with overrides, by published key."""
    with naming(path):
        given = read_json(path)
        for key in given:
            _check_key(key)
    config = {**DEFAULTS, **given}
    if isinstance(config["MODEL_KWARGS"], dict):
        config["MODEL_KWARGS"] = dict(config["MODEL_KWARGS"])
    if len(overrides) % 2:
        raise ValueError(f"overrides must be KEY VALUE, found only {overrides[-1]!r}")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        room, _, name = key.partition(".")
        _check_key(room)
        if name and room != "MODEL_KWARGS":
            raise ValueError(f"{key}: only MODEL_KWARGS has parts, found {room}")
        if name:
            config[room][name] = parse_value(value)
        else:
            config[room] = parse_value(value)
    return config


def parse_value(text: str) -> Any:
    """Return a text parsed as JSON, or else unchanged, like the published code."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def published_weights(path: str) -> str:
    """Return the path of weights, also for a published name in our runs.

    The published code writes the weights of each of its eight sub-epochs, and the
    README's commands use the last, OUT/models/model_7.pth. A run of this package writes
    its last weights under another name, which is returned, and not those of earlier
    sub-epochs, which raise ValueError.
    """
    asked = Path(path)
    run = asked.parent.parent
    ours = run / RUN_MODEL
    # `os.path` returns False for impossible paths, such as too long names.
    is_there = os.path.exists(asked)
    if is_there or asked.parent.name != "models" or not os.path.isfile(ours):
        return path
    of_eight = last = SUB_EPOCHS - 1
    if (run / RECIPE).is_file():
        recipe = read_recipe(run / RECIPE)
        last = recipe.num_sub_epochs(len(recipe.stages) - 1) - 1
    # In a shorter run, the README's name of the eighth sub-epoch means the last.
    known = [f"model_{number}.pth" for number in sorted({last, max(last, of_eight)})]
    if asked.name not in known:
        raise ValueError(
            f"WEIGHTS {path}: {run} is a run of this package, which has only its last "
            f"weights: use {' or '.join(known)}, or {ours}"
        )
    return str(ours)


def _check_key(key: str) -> None:
    if key not in DEFAULTS:
        raise ValueError(f"{key} is unknown; {nearest(key, DEFAULTS)}")


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a value has another type than its key, or is not allowed."""
    if (name := config["MODEL"]) not in MODELS:
        raise ValueError(f"MODEL {name!r} is unknown; {nearest(name, MODELS)}")
    for key in ("LOSS_FUNC", "METRIC"):
        check_one_of(key, config[key], LOSSES)
    for key in ("EPOCHS", "BS", "BS_VALID", "L", "L_VALID"):
        check_whole(key, config[key], 1)
    for key in ("SEED", "NUM_WORKERS"):
        check_whole(key, config[key], 0)
    for key, (wanted, is_good) in ALLOWED.items():
        if not is_good(config[key]):
            raise ValueError(f"{key} must be {wanted}, found {config[key]!r}")


def as_store(data: str | os.PathLike[str]) -> Path:
    """Return a store; other files are converted to a store beside them, once.

    Args:
        data: Store, or files that `prepare` reads, such as the competition's folder.
            The store of `data` is then `data_store`.

    Raises:
        ValueError: There is no store and this process is not rank 0, or `prepare`
            cannot read the files.
    """
    files = Path(data)
    if (files / MANIFEST).is_file():
        return files
    print_notices()
    store = files.with_name(f"{files.name}_store")
    if (store / MANIFEST).is_file():
        if is_first_process():
            LOGGER.info(f"{files} is not a store: using its store {store}")
        return store
    if not is_first_process():
        raise ValueError(
            f"several processes need a store, found none at {files}. Make it first: "
            f"icecube2nd prepare {files} {store}"
        )
    LOGGER.info(f"{files} is not a store: preparing {store}")
    prepare(files, store)
    return store


def published_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return the differences of the published code to a recipe, one sentence each.

    Notes also cover behaviour that the published configuration does not tell, and
    failures of the code before training. A recipe from `as_published` has fewer notes.
    Source: github.com/DrHB/icecube-2nd-place (train.py, src/loss.py), fastai 2.7.10.
    """
    stages, data = recipe.stages, recipe.data
    num_parts = [recipe.num_sub_epochs(number) for number in range(len(stages))]
    ours = _each(stage.accumulate_events for stage in stages)
    theirs = _each(stage.accumulate_events for stage in as_published(recipe).stages)
    eps = _each(f"{stage.eps:g}" for stage in stages)
    notes = {
        "sets the maximum learning rate to 1e-5 and ignores LR_MAX; here it is "
        f"{_each(f'{stage.lr_max:g}' for stage in stages)}": any(
            stage.lr_max != LR_MAX for stage in stages
        ),
        f"trains {SUB_EPOCHS} sub-epochs and ignores EPOCHS; here it is "
        f"{_each(num_parts)} of 1/{data.num_sub_epochs} of the events each": (
            {*num_parts, data.num_sub_epochs} != {SUB_EPOCHS}
        ),
        f"steps every {theirs} events, as fastai counts samples; here every {ours} "
        f"(stages.0.accumulate_events={theirs})": ours != theirs,
        "approximates the vmf above kappa 100; here it is exact "
        "(stages.0.normalisation=published)": any(
            s.loss != "angle" and s.normalisation != "published" for s in stages
        ),
        "validates the average of the weights but saves the raw weights; here the "
        "average is saved (stages.0.save_ema=false for theirs)": any(
            stage.ema and stage.save_ema for stage in stages
        ),
        "starts the next stage with the last weights, but its README says the best; "
        "here it starts with the best (stages.0.next_from=last for theirs)": any(
            stage.next_from == "best" for stage in stages[:-1]
        ),
        "sets AdamW's eps to 1e-7 but uses 1e-8; "
        f"{'as here' if eps == '1e-08' else f'here it is {eps}'} (stages.0.eps)": True,
        "divides a batch of BS events among all GPUs (DataParallel); here each device "
        "has BS events (stages.0.batch_size)": True,
        f"computes in float16 under autocast; here it is {recipe.precision} "
        "(precision=float16 for theirs)": recipe.precision != "float16",
        "draws independent random eighths (eight have 66% of the events); here "
        "sub-epochs share no event (data.sub_epochs=published for theirs)": (
            data.sub_epochs != "published"
        ),
        "has errors in its efficiency and ice features, which only hybrids read; here "
        "they are correct (data.features=published for theirs)": (
            data.features != "published"
        ),
        "does not import loss_comb in its train.py, so its commands with LOSS_FUNC "
        "loss_comb end in an AttributeError; here it is as in its src/loss.py": any(
            stage.loss == "combined" for stage in stages
        ),
        "stops if METRIC is not loss, as it saves weights by the metric loss; here the "
        "validation loss chooses the best weights": (recipe.monitor != OPENING_ANGLE),
    }
    return tuple(f"the published code {note}" for note, holds in notes.items() if holds)


def _each(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
