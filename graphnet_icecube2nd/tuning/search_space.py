"""What a search looks through: names and ranges, as YAML or a mapping.

    stages.0.lr_max: {low: 1e-5, high: 1e-3, log: true}
    stages.0.loss: {choices: [vmf, combined]}
    model_kwargs.depth: {low: 4, high: 12, step: 2}

Names are those of overrides. Bounds that are whole numbers give whole numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import load_yaml, nearest

KEYS = ("low", "high", "log", "step", "choices")


def read_space(space: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """Return a search space, checked.

    Raises:
        ValueError: A range is not of the form above; says which.
        OSError: There is no such file.
    """
    if not isinstance(space, Mapping):
        space = load_yaml(Path(space).read_text(encoding="utf-8"), os.fspath(space))
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"a space is names and ranges, got {space!r}")
    for name, range_ in space.items():
        if not isinstance(range_, Mapping):
            raise ValueError(f"{name}: a range is low and high, or choices; got "
                             f"{range_!r}")  # fmt: skip
        for key in range_:
            if key not in KEYS:
                raise ValueError(f"{name}.{key} is unknown; {nearest(key, KEYS)}")
        if "choices" in range_:
            if len(range_) > 1 or not isinstance(range_["choices"], list):
                raise ValueError(f"{name}: choices are a list, and stand alone")
            if not range_["choices"]:
                raise ValueError(f"{name}: choices are empty")
            continue
        low, high = range_.get("low", "nothing"), range_.get("high", "nothing")
        if not (_is_number(low) and _is_number(high) and low < high):
            raise ValueError(
                f"{name}: low must be below high, got {low!r} and {high!r}"
            )
        if range_.get("log") and (low <= 0 or "step" in range_):
            raise ValueError(f"{name}: log needs low above 0, and no step")
    return {str(name): dict(range_) for name, range_ in space.items()}


def suggest(trial: Any, name: str, range_: Mapping[str, Any]) -> Any:
    """Let a trial choose a value."""
    if "choices" in range_:
        return trial.suggest_categorical(name, range_["choices"])
    low, high, log = range_["low"], range_["high"], bool(range_.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        step = range_.get("step", 1)
        return trial.suggest_int(name, low, high, log=log, step=step)
    return trial.suggest_float(name, low, high, log=log, step=range_.get("step"))


def first_value(range_: Mapping[str, Any]) -> Any:
    """Return a value of a range, to see whether a recipe takes it."""
    return range_["choices"][0] if "choices" in range_ else range_["low"]


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
