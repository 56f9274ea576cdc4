"""Bins of events in energy, zenith, number of pulses and topology.

What is known of events are columns by name, (B,) each. A bin is used if it has enough
events, with weights: if their effective number is large enough. Shape letters: B
events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.statistics import effective_events

ENERGY, ZENITH, PULSES, TOPOLOGY = "energy", "cos zenith", "pulses", "topology"
# Quantities, and the columns of what is known of events.
QUANTITIES = {
    ENERGY: "energy",
    ZENITH: "cos_zenith",
    PULSES: "n_pulses",
    TOPOLOGY: "topology",
}
WEIGHT = "weight"  # column of the events' weights
X_LABELS = {
    ENERGY: "energy of the neutrino [GeV]",
    ZENITH: "cosine of the true zenith (1: from above)",
    PULSES: "pulses of the event",
    TOPOLOGY: "topology",
}
IS_LOG = (ENERGY, PULSES)
FEWEST = 20  # minimum events of a bin that is shown
NUM_ZENITH_BINS = 10
NO_TOPOLOGY = "all"  # in place of an unknown topology

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bin:
    """A bin with its name, its borders (NaN for a topology) and its events."""

    name: str
    low: float
    high: float
    chosen_B: Chosen

    def to_row(self) -> dict[str, Any]:
        """Return name and borders as columns of a table."""
        return {"bin": self.name, "low": self.low, "high": self.high}


def weights_of(known: Mapping[str, NDArray[Any]], num_events: int) -> Array:
    """Return the weights of events, (B,); 1 each if they are not known."""
    weight_B: Array = known.get(WEIGHT, np.ones(num_events))
    return weight_B


def bins_of(
    known: Mapping[str, NDArray[Any]], quantity: str, fewest: float = FEWEST
) -> Iterator[Bin]:
    """Yield the bins of a quantity that have enough events, in their order.

    There are none if the quantity is not known.
    """
    if QUANTITIES[quantity] not in known:
        return
    value_B = known[QUANTITIES[quantity]]
    weight_B = weights_of(known, len(value_B))
    if quantity == TOPOLOGY:
        nan = float("nan")
        for name in sorted({*np.unique(value_B).tolist()} - {NO_TOPOLOGY}):
            chosen_B = value_B == name
            if effective_events(weight_B[chosen_B]) >= fewest:
                words = name.replace("_", " ")
                yield Bin(name=words, low=nan, high=nan, chosen_B=chosen_B)
        return
    value_B = value_B.astype(np.float64)
    if quantity == ENERGY:
        edges = energy_edges(value_B, 2)
    elif quantity == ZENITH:
        edges = np.linspace(-1.0, 1.0, NUM_ZENITH_BINS + 1)
    else:
        top = max(float(value_B.max(initial=1.0)), 1.0)
        edges = np.append(1.0, 2.0 ** np.arange(3, np.ceil(np.log2(top)) + 1.5))
    for low, high, chosen_B in split(value_B, edges):
        if effective_events(weight_B[chosen_B]) >= fewest:
            name = _name(quantity, low, high)
            yield Bin(name=name, low=low, high=high, chosen_B=chosen_B)


def energy_edges(energy_B: Array, per_decade: int) -> Array:
    """Return borders of logarithmic bins that cover all energies above 0, GeV."""
    known = energy_B[energy_B > 0]
    if not len(known):
        return np.empty(0)
    first = np.floor(per_decade * np.log10(known.min()))
    last = np.floor(per_decade * np.log10(known.max())) + 1
    edges: Array = 10 ** (np.arange(first, last + 1) / per_decade)
    return edges


def split(value_B: Array, edges: Array) -> Iterator[tuple[float, float, Chosen]]:
    """Yield borders and events, (B,), of bins; the last one includes its upper border.

    Bins without events are left out.
    """
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        chosen_B = (value_B >= low) & (value_B < high)
        if high == edges[-1]:
            chosen_B |= value_B == high
        if chosen_B.any():
            yield low, high, chosen_B


def centre(quantity: str, bins_low: Array, bins_high: Array) -> Array:
    """Return where bins are drawn, (N,)."""
    if quantity == TOPOLOGY:  # ticks have names instead of borders
        return np.arange(len(bins_low), dtype=np.float64)
    if quantity in IS_LOG:
        middle: Array = np.sqrt(bins_low * bins_high)
        return middle
    return (bins_low + bins_high) / 2


def _name(quantity: str, low: float, high: float) -> str:
    """Return the name of a bin."""
    if quantity == PULSES:
        return f"{low:.0f} to {high - 1:.0f}"
    if quantity == ZENITH:
        return f"{low:.1f} to {high:.1f}"
    first, last = (f"{float(f'{value:.3g}'):,.0f}" for value in (low, high))
    return f"{first} to {last} GeV"
