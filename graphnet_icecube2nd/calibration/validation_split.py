"""Selection of events that a run was not trained on, for calibration and ensembles."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
from graphnet_icecube2nd.inference.model_bundle import is_ensemble
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, MANIFEST, N_PULSES
from graphnet_icecube2nd.training.recipe import read_recipe
from graphnet_icecube2nd.training.run import make_data
from graphnet_icecube2nd.training.run_folder import RECIPE, RUN, run_description


def runs_behind(model: str | os.PathLike[str]) -> list[Path]:
    """Return the runs that trained a model, if its files name them.

    Args:
        model: A run's folder, a file in it (such as stage_2/best.safetensors), an
            ensemble's folder or YAML, or another name of a model, which gives no run.
    """
    path = Path(model)
    for folder in [path, *path.parents[:2]] if path.is_file() else [path]:
        if (folder / RUN).is_file() and (folder / RECIPE).is_file():
            return [folder]
    if not is_ensemble(path):
        return []
    origins = [m.origin.get("from") for m in EnsembleFile.load(path).members]
    return [run for origin in origins if origin for run in runs_behind(origin)]


def validation_events(
    run: str | os.PathLike[str], store: EventStore
) -> NDArray[np.int64]:
    """Return the rows of a run's validation events in its store."""
    recipe = read_recipe(Path(run) / RECIPE)
    data: EventDataModule = make_data(recipe, len(recipe.stages) - 1, store)
    return numbers_of(data.validation_events, store)


def was_trained_on(run: Path, store: EventStore) -> bool:
    """Return whether a run was trained on a store, judged by the store's size."""
    described = run_description(run)
    return bool(
        described["num_events"] == len(store)
        and described["num_pulses"] == store.manifest.num_pulses
    )


def trained_on(run: Path, store: EventStore) -> NDArray[np.int64]:
    """Return the rows, in another store, of events that a run was trained on.

    Two events are the same if they agree in event_id, number of pulses, true direction
    and energy, as far as both stores have these. So two simulations that both count
    events from 0 share none. Raises ValueError if the run's store does not exist any
    more.
    """
    path = Path(run_description(run)["data"])
    if not (path / MANIFEST).is_file():
        raise ValueError(
            f"{path}, the store that {run} was trained on, was not found, so it is "
            f"unknown which events of {store.path} belong to it: bring the store back"
        )
    own = EventStore(path)
    was_seen = np.ones(len(own), bool)
    was_seen[validation_events(run, own)] = False
    id_B = store.whole_event_column(EVENT_ID)
    own_id = np.where(was_seen, own.whole_event_column(EVENT_ID), -1)
    both, theirs, ours = np.intersect1d(own_id, id_B, return_indices=True)
    theirs, ours = theirs[both != -1], ours[both != -1]
    same = np.ones(len(ours), bool)
    for name, other in (
        (N_PULSES, N_PULSES),
        (own.pulse_map.labels.azimuth, store.pulse_map.labels.azimuth),
        (own.pulse_map.labels.zenith, store.pulse_map.labels.zenith),
        ("energy", "energy"),
    ):
        if name in own.event_columns and other in store.event_columns:
            values = own.whole_event_column(name)[theirs]
            others = store.whole_event_column(other)[ours]
            same &= np.isclose(values, others, equal_nan=True)
    return np.sort(ours[same])


def numbers_of(subset: EventSubset, store: EventStore) -> NDArray[np.int64]:
    """Return the rows of a subset's events in the store, ascending."""
    numbers = [
        subset.local_events(store, shard) + store.shard_offsets[shard]
        for shard in range(len(store.shards))
    ]
    return np.concatenate(numbers)


def unseen_events(
    models: Sequence[str | os.PathLike[str]],
    data: EventStore | str | os.PathLike[str] | None,
    events: NDArray[np.int64] | str | None = None,
    most: int | None = None,
) -> tuple[EventStore, NDArray[np.int64], str]:
    """Return a store, the rows of events that may be used, and their description.

    If runs were trained on the store, only their validation events may be used. In
    another store, events that they were trained on are excluded.

    Args:
        models: Runs, files of runs, ensembles of runs, or other names of models.
        data: Event store; None: the one that the runs were trained on.
        events: Further condition on the events, or rows of events in the store.
        most: Maximum number of events; they are spread evenly.

    Raises:
        ValueError: No store is given and no run names one, runs were validated on
            different events, a run was trained on a given event, or no event is left.
    """
    runs = [run for model in models for run in runs_behind(model)]
    if data is None:
        stores = {Path(run_description(run)["data"]) for run in runs}
        if len(stores) != 1:
            found = ", ".join(map(str, sorted(stores))) or "none"
            raise ValueError(
                f"the models' runs must have one store, found {found}: give a store "
                "(`data`, --data)"
            )
        (data,) = stores
    store = data if isinstance(data, EventStore) else EventStore(data)
    numbers, what = _untouched(runs, store)
    if isinstance(events, str):
        chosen = numbers_of(EventSubset(expression=events), store)
        numbers, what = np.intersect1d(numbers, chosen), f"{what} with {events}"
    elif events is not None:
        chosen = np.asarray(events, np.int64)
        with_pulses = chosen[store.whole_event_column(N_PULSES)[chosen] > 0]
        seen = np.setdiff1d(with_pulses, numbers)
        if len(seen):
            raise ValueError(
                f"{store.path}: the model was trained on {len(seen)} of the "
                f"{len(chosen)} events, first on row {seen[0]}. Widths fitted on them "
                "would be too small: do not give `events`, so that allowed events are "
                "used, or give another store"
            )
        numbers, what = chosen, "given events"
    if not len(numbers):
        raise ValueError(f"{store.path}: at least one event is needed, found no {what}")
    if most is not None and len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]
        what = f"{most:,} of {what}"
    return store, numbers, f"{what} of {store.path}"


def _untouched(
    runs: Sequence[Path], store: EventStore
) -> tuple[NDArray[np.int64], str]:
    """Return the rows of events that no run was trained on, and their description."""
    here = [run for run in runs if was_trained_on(run, store)]
    numbers, what = numbers_of(EventSubset(), store), "all events"
    for run in dict.fromkeys(run for run in runs if run not in here):
        try:
            known = trained_on(run, store)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=3)
            continue
        if len(known):
            numbers = np.setdiff1d(numbers, known)
            what = "events that no run was trained on"
    if here:
        choices = [validation_events(run, store) for run in here]
        numbers, what = np.intersect1d(numbers, choices[0]), "validation events"
        if any(not np.array_equal(choices[0], other) for other in choices[1:]):
            raise ValueError(
                "all runs must have the same validation events in this store, found "
                "different ones: give another store (`data`, --data)"
            )
    return numbers, what
