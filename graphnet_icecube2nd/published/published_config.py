"""The published `config.json` with `KEY VALUE` overrides, as a recipe of one stage.

What the published code (github.com/DrHB/icecube-2nd-place, train.py) does otherwise
than its own configuration says is in the notes, in words, so that nobody wonders.

    asked = read_published_config("config.json", ["LR_MAX", "5e-4"])
    store, machine = as_store(asked.data), TrainerConfig(num_workers=asked.num_workers)
    train(asked.recipe, store, asked.out, machine=machine)

is `icecube2nd train --config config.json LR_MAX 5e-4`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import nearest
from graphnet_icecube2nd.models.weights import RUN_MODEL
from graphnet_icecube2nd.published.published_notes import SUB_EPOCHS, published_notes
from graphnet_icecube2nd.training.recipe import (
    OPENING_ANGLE,
    DataConfig,
    Recipe,
    Stage,
)
from graphnet_icecube2nd.training.recipe_file import read_recipe
from graphnet_icecube2nd.training.run_folder import RECIPE

# Their model classes: ours that it is, and their defaults where those are others.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DeepIceModel": ("s_d32", {"dim": 384, "dim_base": 128, "depth": 12}),
    "EncoderWithDirectionReconstructionV22": ("s_gnn", {"depth": 8, "head_size": 64}),
    "EncoderWithDirectionReconstructionV23": (
        "b_gnn",
        {"dim": 384, "dim_base": 128, "depth": 8, "head_size": 64},
    ),
}
LOSSES = {"loss_vms": "vmf", "loss_comb": "combined", "loss": "angle"}
DEFAULTS: dict[str, Any] = {  # of the published config.json
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


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """What a published configuration asks for.

    Args:
        recipe: Of one stage.
        data: PATH.
        out: OUT.
        num_workers: NUM_WORKERS.
        notes: Where the published code does otherwise, in words; `published_notes` has
            them of any recipe, as of one that was made `as_published`.
    """

    recipe: Recipe
    data: Path
    out: Path
    num_workers: int
    notes: tuple[str, ...]


def read_published_config(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> PublishedConfig:
    """Read a `config.json` and apply `KEY VALUE KEY VALUE ...`.

    Args:
        path: The file; keys that it lacks have the published values.
        overrides: As the published command line has them: `MODEL_KWARGS.depth 12`.

    Raises:
        ValueError: An unknown key, with the nearest one; a value that is not allowed;
            a key without a value; no JSON.
        OSError: There is no such file.
    """
    return _understood(read_values(path, overrides))


def read_values(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return all values of a `config.json`, overrides applied, by published key.

    Raises:
        ValueError: As `read_published_config`.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold names and values, got {given!r}")
    for key in given:
        _check_key(key)
    config = {**DEFAULTS, **given}
    if isinstance(config["MODEL_KWARGS"], dict):
        config["MODEL_KWARGS"] = dict(config["MODEL_KWARGS"])
    if len(overrides) % 2:
        raise ValueError(f"overrides are KEY VALUE pairs; {overrides[-1]!r} has none")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        room, _, name = key.partition(".")
        _check_key(room)
        if name and room != "MODEL_KWARGS":
            raise ValueError(f"{key}: {room} has no parts; only MODEL_KWARGS has")
        if name:
            config[room][name] = parse_value(value)
        else:
            config[room] = parse_value(value)
    return config


def _understood(config: Mapping[str, Any]) -> PublishedConfig:
    model, kwargs = _model(config["MODEL"], config["MODEL_KWARGS"])
    loss = _choice("LOSS_FUNC", config["LOSS_FUNC"], LOSSES)
    metric = _choice("METRIC", config["METRIC"], LOSSES)
    if metric not in ("angle", loss):
        raise ValueError(
            f"METRIC must be loss (the opening angle) or as LOSS_FUNC, got "
            f"{config['METRIC']!r}"
        )
    epochs, moms = _whole("EPOCHS", config["EPOCHS"]), config["MOMS"]
    momenta = (0.95, 0.85, 0.95)  # fastai's
    if moms:
        if not isinstance(moms, list) or len(moms) != 3:
            raise ValueError(f"MOMS must be false or three numbers, got {moms!r}")
        momenta = (float(moms[0]), float(moms[1]), float(moms[2]))
    weights = config["WEIGHTS"] or None
    if weights is not None and not isinstance(weights, str):
        raise ValueError(f"WEIGHTS must be false or a path, got {weights!r}")
    stage = Stage(
        lr_max=_number("LR_MAX", config["LR_MAX"]),
        epochs=epochs / SUB_EPOCHS,
        div=_number("DIV", config["DIV"]),
        div_final=_number("DIV_FINAL", config["DIV_FINAL"]),
        momenta=momenta,
        loss=loss,
        ema=_flag("EMA", config["EMA"]),
        batch_size=_whole("BS", config["BS"]),
        max_pulses=_whole("L", config["L"]),
        weights=weights and published_weights(weights),
        next_from="last",
    )
    recipe = Recipe(
        name=str(config["OUT"]),
        model=model,
        model_kwargs=kwargs,
        stages=(stage,),
        seed=_whole("SEED", config["SEED"], 0),
        data=DataConfig(
            length_class=config["SELECTION"],
            num_sub_epochs=SUB_EPOCHS,
            validation_batch_size=_whole("BS_VALID", config["BS_VALID"]),
            validation_max_pulses=_whole("L_VALID", config["L_VALID"]),
        ),
        monitor=OPENING_ANGLE if metric == "angle" else "loss",
    )
    return PublishedConfig(
        recipe=recipe,
        data=Path(str(config["PATH"])),
        out=Path(str(config["OUT"])),
        num_workers=_whole("NUM_WORKERS", config["NUM_WORKERS"], 0),
        notes=published_notes(recipe),
    )


def parse_value(text: str) -> Any:
    """Return a value as JSON has it, else as a text, as the published code does."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def published_weights(path: str) -> str:
    """Return a path of weights; OUT/models/model_7.pth of ours is OUT's model.

    The published code leaves weights of each of its eight sub-epochs there, and the
    README's commands name the last. A run of this package keeps its last ones under
    another name, and none of the sub-epochs before.

    Raises:
        ValueError: OUT is a run of this package, and the name is not that of its last
            weights.
    """
    asked = Path(path)
    run = asked.parent.parent
    ours = run / RUN_MODEL
    if asked.exists() or asked.parent.name != "models" or not ours.is_file():
        return path
    known = _names_of_last(run)
    if asked.name not in known:
        raise ValueError(
            f"WEIGHTS {path}: {run} is a run of this package, which keeps no "
            f"{asked.name}; its last weights are {' or '.join(known)} here, or {ours}"
        )
    return str(ours)


def _names_of_last(run: Path) -> list[str]:
    """Return what the published code calls the weights that a run ended with."""
    of_eight = last = SUB_EPOCHS - 1
    if (run / RECIPE).is_file():
        recipe = read_recipe(run / RECIPE)
        last = recipe.num_sub_epochs(len(recipe.stages) - 1) - 1
    # A shorter run has no eighth sub-epoch, so the README's name can mean one only.
    return [f"model_{number}.pth" for number in sorted({last, max(last, of_eight)})]


def _model(name: Any, kwargs: Any) -> tuple[str, dict[str, Any]]:
    if name not in MODELS:
        raise ValueError(f"MODEL {name!r} is unknown; {nearest(name, MODELS)}")
    if not isinstance(kwargs, dict):
        raise ValueError(f"MODEL_KWARGS must be names and values, got {kwargs!r}")
    model, defaults = MODELS[name]
    return model, {**defaults, **kwargs}


def _check_key(key: str) -> None:
    if key not in DEFAULTS:
        raise ValueError(f"{key} is unknown; {nearest(key, DEFAULTS)}")


def _choice(key: str, value: Any, allowed: Mapping[str, str]) -> str:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
    return allowed[value]


def _checked(key: str, value: Any, what: str, fits: Callable[[Any], bool]) -> Any:
    if isinstance(value, bool) or not fits(value):
        raise ValueError(f"{key} must be {what}, got {value!r}")
    return value


def _whole(key: str, value: Any, lowest: int = 1) -> int:
    return int(
        _checked(
            key,
            value,
            f"a whole number from {lowest}",
            lambda v: isinstance(v, int) and v >= lowest,
        )
    )


def _number(key: str, value: Any) -> float:
    return float(
        _checked(key, value, "a number", lambda v: isinstance(v, (int, float)))
    )


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, got {value!r}")
    return value
