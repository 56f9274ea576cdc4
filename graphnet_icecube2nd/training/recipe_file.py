"""Recipes as YAML, and overrides of the form `stages.1.lr_max=2e-5`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_icecube2nd.config import (
    dump_yaml,
    from_plain,
    load_yaml,
    set_value,
    to_plain,
)
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.training.recipe import Recipe


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML, all values included."""
    return dump_yaml(to_plain(recipe))


def write_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as YAML, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(recipe_text(recipe), encoding="utf-8")


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from YAML; what has a default may be left out.

    Raises:
        ValueError: It is no YAML, or no recipe; says which name and what is allowed.
        OSError: There is no such file.
    """
    with open(path, encoding="utf-8") as file:
        values = load_yaml(file.read(), str(path))
    try:
        return from_plain(Recipe, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def overridden(recipe: Recipe, overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
    """Return a recipe with some values replaced.

    Args:
        recipe: The recipe.
        overrides: Texts as `stages.1.lr_max=2e-5`, or values by such names.

    Raises:
        ValueError: No such name, with the nearest one; or a value is not allowed.
    """
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    values = to_plain(recipe)
    if not recipe.tasks and any(name.startswith("tasks.") for name in overrides):
        values["tasks"] = {Direction.name: {}}  # an option of a task adds that task
    for name, value in overrides.items():
        set_value(values, name, to_plain(value))
    return from_plain(Recipe, values)


def parse_override(text: str) -> tuple[str, Any]:
    """Return name and value of `name=value`; the value is as YAML has it.

    Raises:
        ValueError: There is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"overrides are of the form NAME=VALUE, got {text!r}")
    try:
        return name.strip(), load_yaml(value, name)
    except ValueError:  # a condition of the user's may be no YAML
        return name.strip(), value.strip()
