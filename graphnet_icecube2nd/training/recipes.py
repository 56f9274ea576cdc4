"""The recipes by name, each a short function.

Learning rates and stages are those of the published README
(github.com/DrHB/icecube-2nd-place); what it leaves open is the default of `Stage`. Its
texts differ on momenta: its table and first commands say MOMS false, which is fastai's
0.95, 0.85, 0.95 and is taken here; the later commands leave MOMS to config.json, which
says 0.95 throughout (`--set stages.1.momenta=[0.95,0.95,0.95]`).
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
    """Make a recipe known under its function's name; ValueError where it is taken."""
    return RECIPES.add(function.__name__, function)


def list_recipes(pattern: str = "*") -> list[str]:
    """Return the names of the known recipes that match, `*` and `?` as in a shell."""
    return RECIPES.names(pattern)


def describe_recipe(name: str) -> str:
    """Return what a recipe is, in a line."""
    return (RECIPES.get(name).__doc__ or "").strip().splitlines()[0]


def find_recipe(
    recipe: Recipe | str, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Return a recipe by name, from a YAML file, or as it is; with overrides.

    Raises:
        ValueError: No such recipe, or no such value of it, with the nearest name; a
            value is not allowed.
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
    """S of the write-up, the published README's "B model 32": four stages."""
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
    """The same with the average from the second stage on, as the write-up has it."""
    recipe = s_d32()
    first, second, *rest = recipe.stages
    stages = (first, replace(second, ema=True), *rest)
    return replace(recipe, name="s_d32_early_ema", stages=stages)


@register_recipe
def b_d64() -> Recipe:
    """B with heads of 64: five stages."""
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
    """B with heads of 32, trained as b_d64."""
    return replace(b_d64(), name="b_d32", model="b_d32")


@register_recipe
def b_d32_4rel() -> Recipe:
    """B with the interval in four blocks, trained as b_d64."""
    return replace(b_d64(), name="b_d32_4rel", model="b_d32_4rel")


@register_recipe
def s_gnn() -> Recipe:
    """The small hybrid, published as V22, trained as b_d64."""
    return replace(b_d64(), name="s_gnn", model="s_gnn")


@register_recipe
def b_gnn() -> Recipe:
    """The large hybrid, published as V23, trained as b_d64."""
    return replace(b_d64(), name="b_gnn", model="b_gnn")


@register_recipe
def t_sim() -> Recipe:
    """Our own: a small model on simulated events, in minutes to hours on two cores."""
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
    # Ends at a learning rate at which the average of the weights is worth something.
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
