"""Which events a fit takes: those asked for, or those that runs were validated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphnet_icecube2nd.store.event_store import EventStore


def held_out_events(
    models: Sequence[str], data: Path | None, events: str | None, most: int
) -> tuple[EventStore, Any, str]:
    """Return a store, numbers of events with pulses, and what they are in words.

    Args:
        models: Runs, files of runs, ensembles of them, or other names of models.
        data: A store; None: the one that the runs were trained on.
        events: A condition besides. Of a store that runs were trained on, only what
            they were validated on is taken, whatever the condition; of another store
            what is not among the events that they were trained on.
        most: So many events at most, evenly spread.

    Raises:
        ValueError: No store is given and no run says one; runs that were validated on
            different events; no event is left.
    """
    import warnings

    import numpy as np

    from graphnet_icecube2nd.calibration.validation_split import (
        numbers_of,
        runs_behind,
        store_of_run,
        trained_on,
        validation_events,
        was_trained_on,
    )
    from graphnet_icecube2nd.loading.subset import EventSubset
    from graphnet_icecube2nd.store.event_store import EventStore

    runs = [run for model in models for run in runs_behind(model)]
    if data is None:
        stores = {store_of_run(run) for run in runs}
        if len(stores) != 1:
            found = ", ".join(map(str, sorted(stores))) or "none"
            raise ValueError(
                f"give --data, a store of events: those of the models' runs are {found}"
            )
        (data,) = stores
    store = EventStore(data)
    here = [run for run in runs if was_trained_on(run, store)]
    numbers, what = numbers_of(EventSubset(), store), "all events"
    for run in dict.fromkeys(runs):
        if run in here:
            continue
        try:
            known = trained_on(run, store)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
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
    if events is not None:
        chosen = numbers_of(EventSubset(expression=events), store)
        numbers, what = np.intersect1d(numbers, chosen), f"{what} with {events}"
    if not len(numbers):
        raise ValueError(f"{store.path}: no event is left ({what})")
    if len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]
        what = f"{most:,} of {what}"
    return store, numbers, f"{what} of {store.path}"
