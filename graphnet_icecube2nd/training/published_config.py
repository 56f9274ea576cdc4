"""The published `config.json` with `KEY VALUE` overrides, as a recipe of one stage.

What the published code (github.com/DrHB/icecube-2nd-place, train.py) does otherwise
than its own configuration says is in the notes, in words, so that nobody wonders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.models.any_origin import RUN_MODEL
from graphnet_icecube2nd.training.plain import nearest
from graphnet_icecube2nd.training.recipe import (
    PUBLISHED_EVENTS,
    DataOptions,
    Recipe,
    Stage,
)

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
SUB_EPOCHS = 8  # reduce_size=0.125 in the published train.py


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """What a published configuration asks for.

    Args:
        recipe: Of one stage.
        data: PATH.
        out: OUT.
        num_workers: NUM_WORKERS.
        notes: Where the published code does otherwise, in words.
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
        data=DataOptions(
            length_class=config["SELECTION"],
            num_sub_epochs=SUB_EPOCHS,
            validation_batch_size=_whole("BS_VALID", config["BS_VALID"]),
            validation_max_pulses=_whole("L_VALID", config["L_VALID"]),
        ),
        monitor="angle" if metric == "angle" else "loss",
    )
    return PublishedConfig(
        recipe=recipe,
        data=Path(str(config["PATH"])),
        out=Path(str(config["OUT"])),
        num_workers=_whole("NUM_WORKERS", config["NUM_WORKERS"], 0),
        notes=tuple(_notes(config, stage)),
    )


def parse_value(text: str) -> Any:
    """Return a value as JSON has it, else as a text, as the published code does."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def published_weights(path: str) -> str:
    """Return a path of weights; OUT/models/model_7.pth of ours is OUT's model.

    The published README's commands name what its code left there; a run of this package
    keeps the like under another name.
    """
    if Path(path).exists():
        return path
    run = Path(path).parent.parent
    ours = run / RUN_MODEL
    return str(ours) if Path(path).parent.name == "models" and ours.is_file() else path


def _notes(config: Mapping[str, Any], stage: Stage) -> list[str]:
    theirs = max(stage.batch_size, PUBLISHED_EVENTS // stage.batch_size)
    notes = [
        "the published code sets the largest learning rate to 1e-5 whatever LR_MAX "
        f"says; here it is {stage.lr_max:g}",
        "it trains 8 sub-epochs whatever EPOCHS says; here it is "
        f"{config['EPOCHS']} of 1/8 of the events each",
        "its sub-epochs are independent random eighths (66% of the events are seen in "
        "eight); here they part the events (data.sub_epochs=published for theirs)",
        f"its optimiser steps every {theirs} events, as fastai counts samples; here "
        f"every {stage.accumulate_events} (stages.0.accumulate_events={theirs})",
        "it computes in float16 under autocast; here in float32 (precision=float16)",
        "its vmf is an approximation above kappa 100; here it is exact "
        "(stages.0.normalisation=published)",
        "its efficiency and ice features, which only hybrids read, have slips; here "
        "they are mended (data.features=published)",
        "it asks for AdamW's eps of 1e-7 and gets 1e-8, as here (stages.0.eps)",
    ]
    if stage.ema:
        notes.append(
            "it validates the average of the weights and saves the raw ones; here the "
            "average is saved (stages.0.save_ema=false for theirs)"
        )
    return notes


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
