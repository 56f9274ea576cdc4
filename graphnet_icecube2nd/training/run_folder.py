"""The folder of a run: what it holds, and whether it is the one that goes on.

RUN/recipe.yaml          the recipe with its overrides, as it was trained
RUN/run.json             data and versions
RUN/metrics.csv          a row for each sub-epoch
RUN/curves.png           the same as a picture, where matplotlib is installed
RUN/stage_0/...          see `recorder.py`; `finished.json` once the stage is over
RUN/model.safetensors    the model, once the last stage is over
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.files import LOCK_FILE
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.training.plain import to_plain
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipe_file import read_recipe, write_recipe
from graphnet_icecube2nd.version import __version__

RECIPE, RUN = "recipe.yaml", "run.json"
FINISHED = "finished.json"  # of a stage


def open_run(run: Path, recipe: Recipe, store: EventStore, resume: bool) -> None:
    """See that the folder is new, or holds this very run; write what it is."""
    described = {
        "data": str(store.path.resolve()),
        "num_events": len(store),
        "num_pulses": store.manifest.num_pulses,
        "software": __version__,
        "torch": torch.__version__,
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
    write_json(run / RUN, described)
    write_recipe(recipe, run / RECIPE)


def handed_over(folder: Path) -> str:
    """Return the name of the weights with which a finished stage ended."""
    finished = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    return str(finished["weights"])


def _check_same_run(run: Path, recipe: Recipe, described: dict[str, Any]) -> None:
    if to_plain(read_recipe(run / RECIPE)) != to_plain(recipe):
        raise ValueError(
            f"{run} holds a run of another recipe: resume it with the options it was "
            f"begun with (they are in {run / RECIPE}), or choose another folder"
        )
    before = json.loads((run / RUN).read_text(encoding="utf-8"))
    for name in ("num_events", "num_pulses"):
        if before[name] != described[name]:
            raise ValueError(
                f"{run} was trained on a store with {name} {before[name]:,}; "
                f"{described['data']} has {described[name]:,}"
            )
