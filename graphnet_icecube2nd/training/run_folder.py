"""The folder of a run: what it holds, and whether it is the one that goes on.

RUN/recipe.yaml          the recipe with its overrides, as it was trained
RUN/run.json             data, versions, how the events are read, and on what machines
RUN/metrics.csv          a row for each sub-epoch
RUN/training.csv         a row for each checkpoint
RUN/curves.png           the same as a picture, where matplotlib is installed
RUN/stage_0/resume.ckpt  the last checkpoint, while the stage trains
RUN/stage_0/last.safetensors, best.safetensors    after each sub-epoch
RUN/stage_0/finished.json    its rows, and the weights that go on, once it is over
RUN/model.safetensors    the model, once the last stage is over
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.config import WORDS, to_plain
from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import read_json, strangers, write_json
from graphnet_icecube2nd.loading.datamodule import narrowed
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.subset import EventSubset, default_split
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.training.history import Row, renamed
from graphnet_icecube2nd.training.recipe import Recipe, read_recipe, write_recipe
from graphnet_icecube2nd.version import __version__

LOGGER = logging.getLogger(__name__)
RECIPE, RUN = "recipe.yaml", "run.json"
RESUME, FINISHED = "resume.ckpt", "finished.json"  # of a stage
LAST, BEST = "last.safetensors", "best.safetensors"
# In run.json. Runs that earlier releases began lack some of these.
EVEN_STEPS = "even_steps"  # steps are sized so that they fill a sub-epoch
INPUT = "input"  # how events are read; the model has its detector's columns and scales
TRAINED_WITH = "trained_with"  # see `note_machine`
KNOWN = {"data": str, "num_events": int, "num_pulses": int, TRAINED_WITH: list}
# The ranges of what a model saw: from about so many events, of so many shards at most.
NUM_EVENTS, NUM_SHARDS, QUANTILES = 2000, 50, (0.001, 0.999)


def open_run(run: Path, recipe: Recipe, store: EventStore, resume: bool) -> None:
    """Check that the folder is new, or holds this very run; describe the run in it."""
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
    if strangers(run, RUN):  # a kill before the recipe was written may leave that
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
    """Return how many stages have a checkpoint, or are finished."""
    number, names = 0, (FINISHED, RESUME)
    while any((run / f"stage_{number}" / name).is_file() for name in names):
        number += 1
    return number


def finished_stage(run: Path, number: int) -> tuple[Path, list[Row]]:
    """Return the weights with which a stage ended, and all rows up to there."""
    folder = run / f"stage_{number}"
    with naming(folder / FINISHED):
        finished = read_json(folder / FINISHED)
        if (weights := finished["weights"]) not in (LAST, BEST):
            raise ValueError(f"weights must be {LAST} or {BEST}, got {weights!r}")
        return folder / weights, [renamed(row) for row in finished["rows"]]


def run_description(run: Path) -> dict[str, Any]:
    """Return what `run.json` holds.

    A rank may ask before the first one has made the file: then the run is new.
    """
    if (run / RUN).is_file():
        return _described(run)
    return {EVEN_STEPS: True, INPUT: None}


def note_machine(run: Path, trainer: Any) -> None:
    """Add to `run.json` on what machine a run goes on, and tell what has changed.

    Sums in floating point depend on the version of torch, threads, processes, device.
    """
    device = trainer.strategy.root_device.type
    machine: dict[str, Any] = {
        "torch": str(torch.__version__),
        "device": device,
        "processes": trainer.world_size,
    }
    if device == "cpu":  # known only now: Lightning shares cores among processes
        machine["threads"] = torch.get_num_threads()
    described = _described(run)
    before: list[dict[str, Any]] = described.get(TRAINED_WITH, [])
    # An earlier release kept torch's version only.
    last = before[-1] if before else {"torch": described.get("torch")}
    changed = [
        f"{name} {last[name]} before and {value} now"
        for name, value in machine.items()
        if name in last and last[name] != value
    ]
    if changed or not before:
        write_json(run / RUN, {**described, TRAINED_WITH: [*before, machine]})
    if changed:
        LOGGER.info(
            f"  {', '.join(changed)}: the run goes on, but its weights will not be to "
            "the bit those of a run that was left alone"
        )


def _described(run: Path) -> dict[str, Any]:
    """Return what `run.json` holds; ValueError where a value has another type."""
    described = read_json(run / RUN)
    for name, kind in KNOWN.items():
        found = described.get(name, [] if kind is list else None)
        if type(found) is not kind:
            raise ValueError(
                f"{run / RUN}: {name} must be {WORDS[kind]}, got {found!r}"
            )
    return described


def _check_same_run(run: Path, recipe: Recipe, described: dict[str, Any]) -> None:
    trained = with_whole_paths(read_recipe(run / RECIPE))
    if to_plain(trained) != to_plain(recipe):
        raise ValueError(
            f"{run} holds a run of another recipe: resume it with the options it was "
            f"begun with (they are in {run / RECIPE}), or choose another folder"
        )
    before = _described(run)
    for name in ("num_events", "num_pulses"):
        if before[name] != described[name]:
            raise ValueError(
                f"{run} was trained on a store with {name} {before[name]:,}; "
                f"{described['data']} has {described[name]:,}"
            )


def model_input(recipe: Recipe, store: EventStore) -> InputConfig:
    """Return how a recipe reads the events of a store, with the ranges it trains on."""
    options = recipe.data
    config = InputConfig.of(
        store.detector,
        max_pulses=options.validation_max_pulses or recipe.stages[-1].max_pulses,
        selection=options.selection,
        published_features=options.features == "published",
    )
    train, _ = default_split(store, options.split_seed, options.validation_fraction)
    train = narrowed(train, options.length_class, options.events)
    numbers = _spread_events(train, store)
    if not len(numbers):
        return config
    reader = EventReader(
        store, max_pulses=config.max_pulses, selection=config.selection, truth=()
    )
    return replace(config, ranges=input_ranges(reader.raw(numbers), store))


def input_ranges(events: Events, store: EventStore) -> dict[str, tuple[float, float]]:
    """Return the values between which 99.8% of the pulses, or events, lie.

    These are low and high of `x`, `y`, `z` [m], `time` [ns, of the reader's clock],
    `charge` [p.e.] and `n_pulses`, as far as the store has them.
    """
    columns = dict(events.columns)
    if X not in columns and SENSOR_ID in columns:
        position_T3 = store.detector.places.lookup(columns[SENSOR_ID].long())
        columns.update(zip((X, Y, Z), position_T3.unbind(1), strict=True))
    columns[N_PULSES] = events.n_pulses
    ranges = {}
    for name in (X, Y, Z, TIME, CHARGE, N_PULSES):
        if name in columns:
            value = columns[name].to(torch.float64).numpy()
            low, high = np.quantile(value, QUANTILES)
            ranges[name] = float(low), float(high)
    return ranges


def _spread_events(subset: EventSubset, store: EventStore) -> NDArray[np.int64]:
    """Return the numbers of some of a subset's events, spread over the store."""
    shards = _spread(np.arange(len(store.shards)), NUM_SHARDS)
    numbers = [np.empty(0, np.int64)]
    for shard in shards.tolist():
        events = _spread(
            subset.local_events(store, shard), -(-NUM_EVENTS // len(shards))
        )
        numbers.append(events + store.shard_offsets[shard])
    return np.concatenate(numbers)


def _spread(values: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return a number of values, evenly spaced; all where there are no more."""
    chosen = np.linspace(0, len(values) - 1, min(number, len(values)))
    return values[chosen.round().astype(np.int64)]
