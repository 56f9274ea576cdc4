"""Registered recipes, each a short function.

Learning rates and stages are those of the published README
(github.com/DrHB/icecube-2nd-place); options that it does not give are the defaults of
`Stage`. The README is not consistent on momenta. Its table and first commands say MOMS
false, which is fastai's 0.95, 0.85, 0.95 and is used here. The later commands leave
MOMS to config.json, which has 0.95, 0.95, 0.95 (`--set stages.1.momenta=...`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import nearest
from graphnet_icecube2nd.registry import Registry
from graphnet_icecube2nd.training.recipe import (
    DataConfig,
    Recipe,
    Stage,
    overridden,
    read_recipe,
)

RecipeFunction = Callable[[], Recipe]
RECIPES: Registry[RecipeFunction] = Registry("recipe")


def register_recipe(function: RecipeFunction) -> RecipeFunction:
    """Register a recipe under its function's name; ValueError if the name exists."""
    return RECIPES.add(function.__name__, function)


def list_recipes(pattern: str = "*") -> list[str]:
    """Return the names of registered recipes that match a shell pattern (`*`, `?`)."""
    return RECIPES.names(pattern)


def describe_recipe(name: str) -> str:
    """Return a description of a recipe in one line."""
    return (RECIPES.get(name).__doc__ or "").strip().splitlines()[0]


def find_recipe(
    recipe: Recipe | str, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Return a recipe with overrides.

    Args:
        recipe: Recipe, name of a registered recipe, or path of a YAML file.
        overrides: Texts such as `stages.1.lr_max=2e-5`, or a mapping of such names to
            values.

    Raises:
        ValueError: A name does not exist (the message has the nearest), or a value is
            not allowed.
    """
    if isinstance(recipe, Recipe):
        found = recipe
    elif Path(recipe).suffix in (".yaml", ".yml"):
        found = read_recipe(recipe)
    elif recipe in (known := RECIPES.names()):
        found = RECIPES.get(recipe)()
    else:
        raise ValueError(
            f"no recipe named {recipe!r}; {nearest(recipe, known)} (or a .yaml file)"
        )
    return overridden(found, overrides) if overrides else found


@register_recipe
def s_d32() -> Recipe:
    """S of the write-up, "B model 32" of the published README; four stages."""
    return Recipe(
        name="s_d32",
        model="s_d32",
        stages=(
            Stage(lr_max=5e-4),
            Stage(lr_max=2e-5),
            Stage(lr_max=1e-5, ema=True),
            Stage(lr_max=0.5e-5, ema=True, loss="combined"),
        ),
    )


@register_recipe
def s_d32_early_ema() -> Recipe:
    """s_d32 with the average from the second stage on, as in the write-up."""
    recipe = s_d32()
    first, second, *rest = recipe.stages
    stages = (first, replace(second, ema=True), *rest)
    return replace(recipe, name="s_d32_early_ema", stages=stages)


@register_recipe
def b_d64() -> Recipe:
    """B with heads of 64; five stages."""
    return Recipe(
        name="b_d64",
        model="b_d64",
        stages=(
            Stage(lr_max=1e-4),
            Stage(lr_max=1e-5),
            Stage(lr_max=0.5e-5, div=15.0, div_final=15.0, ema=True, loss="combined"),
            Stage(lr_max=0.35e-5, div=10.0, div_final=10.0, ema=True, loss="combined"),
            Stage(lr_max=1e-6, div=10.0, div_final=10.0, ema=True, loss="combined"),
        ),
    )


@register_recipe
def b_d32() -> Recipe:
    """B with heads of 32, trained like b_d64."""
    return replace(b_d64(), name="b_d32", model="b_d32")


@register_recipe
def b_d32_4rel() -> Recipe:
    """B with the interval in four blocks, trained like b_d64."""
    return replace(b_d64(), name="b_d32_4rel", model="b_d32_4rel")


@register_recipe
def s_gnn() -> Recipe:
    """Small hybrid, published as V22, trained like b_d64."""
    return replace(b_d64(), name="s_gnn", model="s_gnn")


@register_recipe
def b_gnn() -> Recipe:
    """Large hybrid, published as V23, trained like b_d64."""
    return replace(b_d64(), name="b_gnn", model="b_gnn")


@register_recipe
def t_sim() -> Recipe:
    """Small model for simulated events; trains in minutes to hours on two cores."""
    first = Stage(
        lr_max=1e-3,
        div_final=20.0,
        pct_start=0.05,
        epochs=6 / 16,
        batch_size=64,
        max_pulses=96,
        accumulate_events=128,
        ema_decay=0.999,
        ema=True,
    )
    long = replace(first, lr_max=3e-4, pct_start=0.02, epochs=2 / 16, max_pulses=192)
    # The final learning rate is large enough for the average of the weights to help.
    last = replace(long, epochs=4 / 16, loss="combined", div_final=6.0)
    return Recipe(
        name="t_sim",
        model="t_sim",
        stages=(first, long, last),
        data=DataConfig(
            num_sub_epochs=16, validation_fraction=0.005, validation_max_pulses=192
        ),
        precision="bfloat16",
    )
