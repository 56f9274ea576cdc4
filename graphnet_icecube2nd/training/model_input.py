"""How the events of a run are read, and the ranges of what its model saw.

Shape letters: B events, T kept pulses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.loading.datamodule import narrowed
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.subset import N_PULSES, EventSubset, default_split
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.training.recipe import Recipe

NUM_EVENTS = 2000  # about how many events the ranges are computed from
NUM_SHARDS = 50  # over how many shards those are spread, at most
QUANTILES = (0.001, 0.999)


def model_input(recipe: Recipe, store: EventStore) -> InputConfig:
    """Return how a recipe reads the events of a store, with the ranges it trains on.

    Args:
        recipe: The recipe.
        store: The store.
    """
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

    Args:
        events: Events of the store in physical units.
        store: The store.

    Returns:
        Low and high of `x`, `y`, `z` [m], `time` [ns, of the reader's clock], `charge`
        [p.e.] and `n_pulses`, as far as the store has them.
    """
    columns = dict(events.columns)
    if X not in columns and SENSOR_ID in columns:
        position_T3 = store.detector.places.lookup(columns[SENSOR_ID].long())
        columns.update(zip((X, Y, Z), position_T3.unbind(1), strict=True))
    values = {
        name: columns[name] for name in (X, Y, Z, TIME, CHARGE) if name in columns
    }
    values[N_PULSES] = events.n_pulses
    ranges = {}
    for name, value in values.items():
        low, high = np.quantile(value.to(torch.float64).numpy(), QUANTILES)
        ranges[name] = float(low), float(high)
    return ranges


def _spread_events(subset: EventSubset, store: EventStore) -> NDArray[np.int64]:
    """Return the numbers of some of a subset's events, spread over the store."""
    shards = _spread(np.arange(len(store.shards)), NUM_SHARDS)
    numbers = [
        _spread(subset.local_events(store, shard), -(-NUM_EVENTS // len(shards)))
        + store.shard_offsets[shard]
        for shard in shards.tolist()
    ]
    return np.concatenate(numbers) if numbers else np.empty(0, np.int64)


def _spread(values: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return a number of values, evenly spaced; all where there are no more."""
    if len(values) <= number:
        return values
    chosen = np.linspace(0, len(values) - 1, number).round().astype(np.int64)
    return values[chosen]
