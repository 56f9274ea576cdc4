"""Folder of a run: its files, and the check that a resumed run is the same one.

RUN/recipe.yaml          recipe with its overrides
RUN/run.json             data, versions, reading of the events, machines
RUN/metrics.csv          a row for each sub-epoch
RUN/training.csv         a row for each checkpoint
RUN/curves.png           plot of both tables, if matplotlib is installed
RUN/stage_0/resume.ckpt  last checkpoint, while the stage is trained
RUN/stage_0/last.safetensors, best.safetensors    weights, after each sub-epoch
RUN/stage_0/finished.json    all rows, and the file of the final weights, at the end
RUN/model.safetensors    trained model, after the last stage
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.config import WORDS, to_plain
from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import foreign_entries, read_json, write_json
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
RESUME, FINISHED = "resume.ckpt", "finished.json"  # files of a stage
LAST, BEST = "last.safetensors", "best.safetensors"
# Keys of run.json. Runs of earlier releases lack some of them.
EVEN_STEPS = "even_steps"  # the size of a step is adapted to the sub-epoch
INPUT = "input"  # `InputConfig`; the model has its detector's columns and scales
TRAINED_WITH = "trained_with"  # see `note_machine`
KNOWN = {"data": str, "num_events": int, "num_pulses": int, TRAINED_WITH: list}
# Input ranges: number of events (about), maximum number of shards, quantiles.
NUM_EVENTS, NUM_SHARDS, QUANTILES = 2000, 50, (0.001, 0.999)


def open_run(
    run: Path,
    recipe: Recipe,
    store: EventStore,
    resume: bool,
    note: Mapping[str, Any],
) -> None:
    """Check that the folder is new or holds this run, and describe the run in it."""
    described: dict[str, Any] = {
        **note,
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
                f"{run} already holds a run: resume it (resume=True, --resume), or "
                "choose another folder"
            )
        _check_same_run(run, recipe, described)
        return
    if foreign_entries(run, RUN):  # a killed run may have written only run.json
        raise ValueError(f"{run} is not empty and holds no run; choose another folder")
    described[INPUT] = model_input(recipe, store).to_dict()
    write_json(run / RUN, described)
    write_recipe(recipe, run / RECIPE)


def discard_unbegun(run: Path) -> None:
    """Remove the files of a new run if no stage has written anything."""
    stage = run / "stage_0"
    if foreign_entries(run, RUN, RECIPE, stage.name) or begun_stages(run):
        return
    with suppress(OSError):
        stage.rmdir()
    if not stage.exists():
        (run / RUN).unlink(missing_ok=True)
        (run / RECIPE).unlink(missing_ok=True)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return a recipe with absolute paths of `weights`."""
    stages = (
        stage
        if stage.weights is None
        else replace(stage, weights=os.path.abspath(stage.weights))
        for stage in recipe.stages
    )
    return replace(recipe, stages=tuple(stages))


def begun_stages(run: Path) -> int:
    """Return the number of stages that have a checkpoint or are finished."""
    number, names = 0, (FINISHED, RESUME)
    while any((run / f"stage_{number}" / name).is_file() for name in names):
        number += 1
    return number


def finished_stage(run: Path, number: int) -> tuple[Path, list[Row]]:
    """Return the final weights of a stage, and all rows up to its end."""
    folder = run / f"stage_{number}"
    with naming(folder / FINISHED):
        finished = read_json(folder / FINISHED)
        if (weights := finished["weights"]) not in (LAST, BEST):
            raise ValueError(f"weights must be {LAST} or {BEST}, found {weights!r}")
        return folder / weights, [renamed(row) for row in finished["rows"]]


def run_description(run: Path) -> dict[str, Any]:
    """Return the content of `run.json`; that of a new run if the file does not exist.

    A rank may call this before rank 0 has written the file.
    """
    if (run / RUN).is_file():
        return _described(run)
    return {EVEN_STEPS: True, INPUT: None}


def note_machine(run: Path, trainer: Any) -> None:
    """Add the machine of a run to `run.json`, and log differences to the last one.

    Floating-point sums depend on torch's version, threads, processes and device.
    """
    device = trainer.strategy.root_device.type
    machine: dict[str, Any] = {
        "torch": str(torch.__version__),
        "device": device,
        "processes": trainer.world_size,
    }
    if device == "cpu":  # Lightning has divided cores among processes
        machine["threads"] = torch.get_num_threads()
    described = _described(run)
    before: list[dict[str, Any]] = described.get(TRAINED_WITH, [])
    # An earlier release wrote only torch's version.
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
            f"  {', '.join(changed)}: the run resumes, but its weights will not be "
            "bitwise identical to those of an uninterrupted run"
        )


def _described(run: Path) -> dict[str, Any]:
    """Return the content of `run.json`; ValueError if a value has another type."""
    described = read_json(run / RUN)
    for name, kind in KNOWN.items():
        found = described.get(name, [] if kind is list else None)
        if type(found) is not kind:
            raise ValueError(
                f"{run / RUN}: {name} must be {WORDS[kind]}, found {found!r}"
            )
    return described


def _check_same_run(run: Path, recipe: Recipe, described: dict[str, Any]) -> None:
    trained = with_absolute_paths(read_recipe(run / RECIPE))
    if to_plain(trained) != to_plain(recipe):
        raise ValueError(
            f"{run} holds a run of another recipe: resume it with its own options "
            f"(see {run / RECIPE}), or choose another folder"
        )
    before = _described(run)
    for name in ("num_events", "num_pulses"):
        if before[name] != described[name]:
            raise ValueError(
                f"{run} needs a store with {name} {before[name]:,}, found "
                f"{described[name]:,} in {described['data']}"
            )


def detector_of(recipe: Recipe, store: EventStore) -> Detector:
    """Return the detector of a store with the units of a recipe's features."""
    scales = recipe.data.scales
    return store.detector if scales is None else replace(store.detector, scales=scales)


def model_input(recipe: Recipe, store: EventStore) -> InputConfig:
    """Return a recipe's input configuration for a store, with its input ranges."""
    options = recipe.data
    config = InputConfig.of(
        detector_of(recipe, store),
        max_pulses=options.validation_max_pulses or recipe.stages[-1].max_pulses,
        selection=options.selection,
        positions=options.positions,
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
    """Return the ranges that contain 99.8% of the pulses or events.

    They are low and high of `x`, `y`, `z` [m], `time` [ns, in the reader's clock],
    `charge` [p.e.] and `n_pulses`, as far as the store has them.
    """
    columns = dict(events.columns)
    if X not in columns and SENSOR_ID in columns:
        position_T3 = store.detector.modules_or_icecube86.lookup(
            columns[SENSOR_ID].long()
        )
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
    """Return rows of some events of a subset, spread over the store."""
    shards = _spread(np.arange(len(store.shards)), NUM_SHARDS)
    numbers = [np.empty(0, np.int64)]
    for shard in shards.tolist():
        events = _spread(
            subset.local_events(store, shard), -(-NUM_EVENTS // len(shards))
        )
        numbers.append(events + store.shard_offsets[shard])
    return np.concatenate(numbers)


def _spread(values: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return `number` values, evenly spaced, or all if there are fewer."""
    chosen = np.linspace(0, len(values) - 1, min(number, len(values)))
    return values[chosen.round().astype(np.int64)]
