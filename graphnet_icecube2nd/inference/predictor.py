"""A network's directions of events of a store, read once.

Events are sorted by length within a window, so that batches hold events of like
lengths, and put back into their order: every event has exactly one row, whatever the
batches. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graphnet_icecube2nd.events.augmentation import Augmentation
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES

WINDOW = 8192  # events that are sorted together
PRECISIONS = ("float32", "bfloat16")
NO_PULSES = "no pulses"
Progress = Callable[[int, int], None]  # events and pulses since the last call


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a network sees events.

    Args:
        max_pulses: L, what longer events are cut to.
        selection: Which pulses are kept then: `uniform`, `hlc_first`, `first`.
        seed: Of that selection.
        batch_size: Events at once.
        precision: `float32`, or `bfloat16` (autocast).
        published_features: Efficiency and ice with the slips of the competition's code,
            for its weights.

    Raises:
        ValueError: A value that is not allowed.
    """

    max_pulses: int = 192
    selection: str = "uniform"
    seed: int = 0
    batch_size: int = 64
    precision: str = "float32"
    published_features: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}"
            )
        for name in ("max_pulses", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


class NetworkReader:
    """Gives a network's vectors of events of one store.

    Args:
        model: `DeepIce` or an `EnsembleModel`, on the device it is to run on; put into
            evaluation mode meanwhile.
        store: The store.
        options: How events are seen.
        augmentations: Changes to the kept pulses, in this order.
    """

    def __init__(
        self,
        model: nn.Module,
        store: EventStore,
        options: InferenceConfig,
        augmentations: Sequence[Augmentation] = (),
    ) -> None:
        self.model, self.options = model, options
        self._reader = EventReader(
            store,
            max_pulses=options.max_pulses,
            selection=options.selection,
            seed=options.seed,
            truth=(),
            augmentations=augmentations,
            published_features=options.published_features,
        )

    def vectors(
        self,
        numbers: NDArray[np.int64],
        length_B: NDArray[np.integer[Any]],
        on_progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Return kappa times direction, (B, 3); NaN for events without pulses.

        Args:
            numbers: (B,) numbers of events in the store.
            length_B: Their pulses, as stored.
            on_progress: Called with new events and pulses.
        """
        return vectors_in_batches(
            self.model,
            length_B,
            lambda some: self._reader.batch(numbers[some]),
            self.options,
            on_progress,
        )


@torch.no_grad()
def vectors_in_batches(
    model: nn.Module,
    length_B: NDArray[np.integer[Any]],
    make_batch: Callable[[NDArray[np.int64]], PackedBatch],
    options: InferenceConfig,
    on_progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return a model's answers to events, (B, ...); NaN for those without pulses.

    Args:
        model: Gives (b, 3), kappa times direction, or several of it; put into
            evaluation mode meanwhile.
        length_B: Pulses of each event.
        make_batch: Gives the events at some places, (b,), none of them empty.
        options: Batch size and precision.
        on_progress: Called with new events and pulses.
    """
    device = next(model.parameters()).device
    vectors_B3 = np.full((len(length_B), 3), np.nan)
    was_training = model.training
    model.eval()
    full = np.flatnonzero(length_B > 0)
    # The longest first: what they leave in memory is large enough for all others. From
    # the shortest on, the process takes nearly three times as much.
    full = full[np.argsort(-length_B[full], kind="stable")]
    try:
        for start in range(0, len(full), options.batch_size):
            some = full[start : start + options.batch_size]
            batch = make_batch(some).to(device)
            is_short = options.precision == "bfloat16"
            with torch.autocast(device.type, torch.bfloat16, enabled=is_short):
                vectors = model(batch)
            answer = vectors.cpu().double().numpy()
            if answer.shape[1:] != vectors_B3.shape[1:]:
                vectors_B3 = np.full((len(length_B), *answer.shape[1:]), np.nan)
            vectors_B3[some] = answer
            if on_progress is not None:
                on_progress(len(some), int(length_B[some].sum()))
    finally:
        model.train(was_training)
    if on_progress is not None and len(full) < len(length_B):
        on_progress(len(length_B) - len(full), 0)
    return vectors_B3


def network_events(
    model: nn.Module,
    store: EventStore,
    events: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    name: str = "network",
    options: InferenceConfig | None = None,
    augmentations: Sequence[Augmentation] = (),
    on_progress: Progress | None = None,
) -> EventTable:
    """Reconstruct events of a store with a network, in memory.

    Args:
        model: On the device it is to run on.
        store: The store.
        events: Their numbers in the store; None for all.
        name: What the table is called.
        options: How the network sees events.
        augmentations: Changes to the kept pulses, in this order; seeded as selection.
        on_progress: Called with new events and pulses.

    Returns:
        A row for each event, in the order asked for; status `no pulses` for events
        without any, `not finite` where the network gave no number.
    """
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    length_B = store.whole_event_column(N_PULSES)[numbers]
    reader = NetworkReader(model, store, options or InferenceConfig(), augmentations)
    vectors = [
        reader.vectors(
            numbers[first : first + WINDOW],
            length_B[first : first + WINDOW],
            on_progress,
        )
        for first in range(0, len(numbers), WINDOW)
    ]
    return table_of_vectors(
        name,
        store.whole_event_column(EVENT_ID)[numbers],
        length_B,
        np.concatenate(vectors) if vectors else np.empty((0, 3)),
    )


def table_of_vectors(
    name: str,
    event_id: NDArray[np.int64],
    length_B: NDArray[np.integer[Any]],
    vectors_B3: NDArray[np.float64],
) -> EventTable:
    """Return a network's vectors as a table; events without pulses say so."""
    table = EventTable.from_vectors(name, event_id, vectors_B3)
    return replace(table, status_B=np.where(length_B > 0, table.status_B, NO_PULSES))
