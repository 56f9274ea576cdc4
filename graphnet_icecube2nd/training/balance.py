"""Balance: weights of the training events that make energies or classes equally heavy.

Shape letters: B events, Q quantities, C cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.label import (
    ENERGY,
    NEUTRINO,
    TOPOLOGY,
    TRACK,
    VISIBLE_ENERGY,
    label_columns,
    make_label,
    missing_label,
)

ENERGIES = (ENERGY, VISIBLE_ENERGY)
QUANTITIES = (*ENERGIES, TOPOLOGY, TRACK, NEUTRINO)
BINS_PER_DECADE = 2
MOST = 20.0  # largest weight of an event over the mean


@dataclass(frozen=True, eq=False)
class Balance:
    """Factors on the weights of events, by cells of energies and classes.

    Each cell that has events gets the same total weight, up to the largest factor. An
    event without a label of one of the quantities has the factor 1.

    Args:
        quantities: Names of the labels, Q of them.
        lowest_Q: Smallest bin or class of each quantity.
        factors: Factors, with one axis for each quantity.
    """

    quantities: tuple[str, ...]
    lowest_Q: tuple[int, ...]
    factors: Tensor

    @classmethod
    def of(
        cls,
        quantities: Sequence[str],
        store: EventStore,
        events: EventSubset,
        event_weight: str | None = None,
    ) -> Balance:
        """Compute the factors for the events of a store.

        Args:
            quantities: Names of the labels, from `QUANTITIES`.
            store: Event store.
            events: Training events.
            event_weight: Column of the events' own weights; default: 1 each.

        Raises:
            ValueError: The store lacks a label, or no event has labels of all
                quantities.
        """
        codes, weights = [], []
        for shard in range(len(store.shards)):
            chosen_B = events.mask(store, shard)
            code_BQ = _codes(_labels(quantities, store, shard))
            known_B = chosen_B & np.isfinite(code_BQ).all(axis=1)
            codes.append(code_BQ[known_B].astype(np.int64))
            weight_B = np.ones(len(known_B))
            if event_weight is not None:
                weight_B = np.asarray(store.event_column(event_weight, shard), float)
            weights.append(weight_B[known_B])
        code_BQ, weight_B = np.concatenate(codes), np.concatenate(weights)
        if not weight_B.any():
            raise ValueError(
                f"balance: no training event of {store.path} has a weight and the "
                f"labels {', '.join(quantities)}: choose other quantities "
                "(data.balance) or events (data.events)"
            )
        lowest_Q, highest_Q = code_BQ.min(axis=0), code_BQ.max(axis=0)
        total = np.zeros(highest_Q - lowest_Q + 1)
        np.add.at(total, tuple((code_BQ - lowest_Q).T), weight_B)
        mean = total.sum() / np.count_nonzero(total)
        factors = np.minimum(mean / np.where(total > 0, total, np.inf), MOST)
        return cls(
            quantities=tuple(quantities),
            lowest_Q=tuple(lowest_Q.tolist()),
            factors=torch.from_numpy(factors).float(),
        )

    def __call__(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return the factors of events from their labels, (B,) by name."""
        label_BQ = torch.stack([truth[name].float() for name in self.quantities], 1)
        energetic = [name in ENERGIES for name in self.quantities]
        code_BQ = torch.where(
            label_BQ.new_tensor(energetic, dtype=torch.bool),
            (BINS_PER_DECADE * label_BQ.log10()).floor(),
            label_BQ,
        )
        known_B = code_BQ.isfinite().all(dim=1)
        index_BQ = code_BQ.where(known_B[:, None], 0.0) - code_BQ.new_tensor(
            self.lowest_Q
        )
        limit_Q = code_BQ.new_tensor(self.factors.shape) - 1
        index_BQ = index_BQ.clamp(min=0).minimum(limit_Q).long()
        factors = self.factors.to(code_BQ.device)
        return factors[tuple(index_BQ.unbind(1))].where(known_B, 1.0)


def _labels(
    quantities: Sequence[str], store: EventStore, shard: int
) -> dict[str, NDArray[np.float64]]:
    """Return labels of a shard's events, (B,) by name."""
    available, labels, found = store.event_columns, store.detector.labels, {}
    for name in quantities:
        chosen = label_columns(name, available, labels)
        if chosen is None:
            raise missing_label(name, available, labels, str(store.path))
        columns = {c: np.asarray(store.event_column(c, shard)) for c in chosen}
        found[name] = make_label(name, columns, labels)
    return found


def _codes(label: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the bin or the class of each event and quantity, (B, Q) whole or NaN."""
    codes = []
    for name, value_B in label.items():
        if name in ENERGIES:  # in float32, as in a batch
            log_B = np.log10(value_B.astype(np.float32))
            value_B = np.floor(BINS_PER_DECADE * log_B).astype(np.float64)
        codes.append(value_B)
    return np.stack(codes, axis=1)
