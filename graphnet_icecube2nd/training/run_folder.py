"""The folder of a run: what it holds, and whether it is the one that goes on.

RUN/recipe.yaml          the recipe with its overrides, as it was trained
RUN/run.json             data, versions, how the events are read, and on what machines
RUN/metrics.csv          a row for each sub-epoch
RUN/training.csv         a row for each checkpoint
RUN/curves.png           the same as a picture, where matplotlib is installed
RUN/stage_0/...          see `recorder.py`; `finished.json` once the stage is over
RUN/model.safetensors    the model, once the last stage is over
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import LOCK_FILE
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.training.model_input import model_input
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipe_file import read_recipe, write_recipe
from graphnet_icecube2nd.training.recorder import RESUME
from graphnet_icecube2nd.version import __version__

RECIPE, RUN = "recipe.yaml", "run.json"
FINISHED = "finished.json"  # of a stage
EVEN_STEPS = "even_steps"  # in run.json: see `has_even_steps`
INPUT = "input"  # in run.json: see `run_input`
TRAINED_WITH = "trained_with"  # in run.json: see `note_machine`


def open_run(run: Path, recipe: Recipe, store: EventStore, resume: bool) -> None:
    """See that the folder is new, or holds this very run; write what it is."""
    described = {
        "data": str(store.path.resolve()),
        "num_events": len(store),
        "num_pulses": store.manifest.num_pulses,
        "software": __version__,
        "torch": torch.__version__,
        EVEN_STEPS: True,
    }
    if (run / RECIPE).is_file():
        if not resume:
            raise ValueError(
                f"{run} holds a run already: resume it (--resume), or choose another "
                "folder"
            )
        _check_same_run(run, recipe, described)
        return
    # A kill before the recipe was written may have left these.
    ours = (LOCK_FILE, RUN, f".{RUN}.tmp", f".{RECIPE}.tmp")
    if any(entry.name not in ours for entry in run.iterdir()):
        raise ValueError(f"{run} is not empty and holds no run; choose another folder")
    described[INPUT] = model_input(recipe, store).to_dict()
    write_json(run / RUN, described)
    write_recipe(recipe, run / RECIPE)


def with_whole_paths(recipe: Recipe) -> Recipe:
    """Return a recipe whose `weights` do not depend on the folder one stands in."""
    stages = (
        stage
        if stage.weights is None
        else replace(stage, weights=os.path.abspath(stage.weights))
        for stage in recipe.stages
    )
    return replace(recipe, stages=tuple(stages))


def begun_stages(run: Path) -> int:
    """Return how many stages have weights of their own: a checkpoint, or an end."""
    number, names = 0, (FINISHED, RESUME)
    while any((run / f"stage_{number}" / name).is_file() for name in names):
        number += 1
    return number


def handed_over(folder: Path) -> str:
    """Return the name of the weights with which a finished stage ended."""
    return str(_read_json(folder / FINISHED)["weights"])


def has_even_steps(run: Path) -> bool:
    """Return whether optimiser steps are sized so that they fill a sub-epoch.

    Runs that an earlier release began have them of the size that was asked for, and
    sub-epochs of another length; they go on as they began. A rank may ask before the
    first one has made the file: then the run is new.
    """
    return not (run / RUN).is_file() or EVEN_STEPS in _read_json(run / RUN)


def follows_detector(run: Path) -> bool:
    """Return whether the model has the columns and scales of the store's detector.

    Models of runs that release 0.1.0 began have them from the recipe alone. A rank may
    ask before the first one has made the file: then the run is new.
    """
    return not (run / RUN).is_file() or INPUT in _read_json(run / RUN)


def run_input(run: Path, recipe: Recipe, store: EventStore) -> InputConfig:
    """Return how the events of a run are read, as it was determined when it began."""
    described = _read_json(run / RUN) if (run / RUN).is_file() else {}
    if INPUT in described:
        return InputConfig.from_dict(described[INPUT])
    return model_input(recipe, store)


def note_machine(run: Path, machine: Mapping[str, Any]) -> str | None:
    """Add to `run.json` on what machine a run goes on.

    Args:
        run: Its folder.
        machine: What sums in floating point depend on: version of torch, threads,
            processes, device.

    Returns:
        In words, what is not as it was when the run was trained before; None: nothing.
    """
    described = _read_json(run / RUN)
    before: list[dict[str, Any]] = described.get(TRAINED_WITH, [])
    # An earlier release kept torch's version only.
    last = before[-1] if before else {"torch": described.get("torch")}
    changed = [
        f"{name} {last[name]} before and {value} now"
        for name, value in machine.items()
        if name in last and last[name] != value
    ]
    if changed or not before:
        noted = {**described, TRAINED_WITH: [*before, dict(machine)]}
        write_json(run / RUN, noted)
    if not changed:
        return None
    return (
        f"  {', '.join(changed)}: the run goes on, but its weights will not be to the "
        "bit those of a run that was left alone"
    )


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _check_same_run(run: Path, recipe: Recipe, described: dict[str, Any]) -> None:
    trained = with_whole_paths(read_recipe(run / RECIPE))
    if to_plain(trained) != to_plain(recipe):
        raise ValueError(
            f"{run} holds a run of another recipe: resume it with the options it was "
            f"begun with (they are in {run / RECIPE}), or choose another folder"
        )
    before = _read_json(run / RUN)
    for name in ("num_events", "num_pulses"):
        if before[name] != described[name]:
            raise ValueError(
                f"{run} was trained on a store with {name} {before[name]:,}; "
                f"{described['data']} has {described[name]:,}"
            )
