"""The events that a run was validated on: never trained on, so fit for calibration."""

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
    """Return the runs that a model comes from, as far as it says.

    It may be a run's folder, a file in it (as stage_2/best.safetensors), an ensemble's
    folder or YAML, or any other name, which comes from none.
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
    """Return the numbers of the events that a run was validated on, in its store."""
    recipe = read_recipe(Path(run) / RECIPE)
    data: EventDataModule = make_data(recipe, len(recipe.stages) - 1, store)
    return numbers_of(data.validation_events, store)


def was_trained_on(run: Path, store: EventStore) -> bool:
    """Return whether a run was trained on a store, by its size."""
    described = run_description(run)
    return bool(
        described["num_events"] == len(store)
        and described["num_pulses"] == store.manifest.num_pulses
    )


def trained_on(run: Path, store: EventStore) -> NDArray[np.int64]:
    """Return the numbers, in another store, of events that a run was trained on.

    Events are the same if event_id, number of pulses, true direction and energy are, as
    far as both stores have them: two simulations that both count from 0 have no event
    in common. Raises ValueError where the run's store is not there any more.
    """
    path = Path(run_description(run)["data"])
    if not (path / MANIFEST).is_file():
        raise ValueError(
            f"{path}, which {run} was trained on, is not there: whether {store.path} "
            "has events of it cannot be told"
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
    """Return the numbers of a subset's events in the store, ascending."""
    numbers = [
        subset.local_events(store, shard) + store.shard_offsets[shard]
        for shard in range(len(store.shards))
    ]
    return np.concatenate(numbers)


def held_out_events(
    models: Sequence[str | os.PathLike[str]],
    data: EventStore | str | os.PathLike[str] | None,
    events: NDArray[np.int64] | str | None = None,
    most: int | None = None,
) -> tuple[EventStore, NDArray[np.int64], str]:
    """Return a store, numbers of events that may be used, and what they are in words.

    If runs were trained on the store, only what they were validated on may be used; of
    another store, what is not among the events that they were trained on.

    Args:
        models: Runs, files of runs, ensembles of them, or other names of models.
        data: A store; None: the one that the runs were trained on.
        events: A further condition, or numbers of events.
        most: Maximum number of events, evenly spread.

    Raises:
        ValueError: No store is given and no run names one; runs that were validated on
            different events; numbers of events that a run was trained on; no event is
            left.
    """
    runs = [run for model in models for run in runs_behind(model)]
    if data is None:
        stores = {Path(run_description(run)["data"]) for run in runs}
        if len(stores) != 1:
            found = ", ".join(map(str, sorted(stores))) or "none"
            raise ValueError(
                f"give --data, a store of events: those of the models' runs are {found}"
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
                f"{len(seen)} of the {len(chosen)} events were used to train the "
                f"model, the first is number {seen[0]} of {store.path}. Widths fitted "
                "on them would be too small: leave events out to take those that may "
                "be used, or give another store"
            )
        numbers, what = chosen, "the events given"
    if not len(numbers):
        raise ValueError(f"{store.path}: no event is left ({what})")
    if most is not None and len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]
        what = f"{most:,} of {what}"
    return store, numbers, f"{what} of {store.path}"


def _untouched(
    runs: Sequence[Path], store: EventStore
) -> tuple[NDArray[np.int64], str]:
    """Return the events of a store that no run was trained on, and what they are."""
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
            what = "events that were not trained on"
    if here:
        choices = [validation_events(run, store) for run in here]
        numbers, what = np.intersect1d(numbers, choices[0]), "validation events"
        if any(not np.array_equal(choices[0], other) for other in choices[1:]):
            raise ValueError(
                "the runs were validated on different events of this store, so some "
                "have seen what others have not: give another store (--data)"
            )
    return numbers, what
