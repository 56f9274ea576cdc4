"""A network's directions of the events of a store, read once, as a table.

Events are taken in windows, within one sorted by length so that batches hold events of
like lengths, and put back into their order: every event has exactly one row, whatever
the batches. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES

WINDOW = 8192  # events that are sorted together
Progress = Callable[[int, int], None]  # events and pulses since the last call


@torch.no_grad()
def network_events(
    model: DeepIce,
    store: EventStore,
    events: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    name: str = "network",
    max_pulses: int = 192,
    selection: str = "uniform",
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "float32",
    published_features: bool = False,
    on_progress: Progress | None = None,
) -> DirectionTable:
    """Reconstruct events of a store with a network.

    Args:
        model: On the device it is to run on.
        store: The store.
        events: Their numbers in the store; None for all.
        name: What the table is called.
        max_pulses: L, what longer events are cut to.
        selection: Which pulses are kept then: `uniform`, `hlc_first`, `first`.
        seed: Of that selection.
        batch_size: Events at once.
        precision: `float32`, or `bfloat16` (autocast).
        published_features: Efficiency and ice with the slips of the competition's code.
        on_progress: Called with new events and pulses.

    Returns:
        A row for each event, in the order asked for; status `no pulses` for events
        without any, `not finite` where the network gave no number.

    Raises:
        ValueError: A value that is not allowed.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, got {precision!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    length_B = store.whole_event_column(N_PULSES)[numbers]
    reader = EventReader(
        store,
        max_pulses=max_pulses,
        selection=selection,
        seed=seed,
        truth=(),
        published_features=published_features,
    )
    device = next(model.parameters()).device
    vectors_B3 = np.full((len(numbers), 3), np.nan)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(numbers), WINDOW):
            window = np.arange(first, min(first + WINDOW, len(numbers)))
            full = window[length_B[window] > 0]
            full = full[np.argsort(length_B[full], kind="stable")]
            for start in range(0, len(full), batch_size):
                some = full[start : start + batch_size]
                batch = reader.batch(numbers[some]).to(device)
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=precision == "bfloat16"
                ):
                    vectors = model(batch)
                vectors_B3[some] = vectors.cpu().double().numpy()
                if on_progress is not None:
                    on_progress(len(some), int(length_B[some].sum()))
    finally:
        model.train(was_training)
    table = DirectionTable.from_vectors(
        name, store.whole_event_column(EVENT_ID)[numbers], vectors_B3
    )
    status_B = np.where(length_B > 0, table.status_B, "no pulses")
    return replace(table, status_B=status_B)
