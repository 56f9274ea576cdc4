"""Tables of directions by energy, zenith, number of pulses and topology.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.results.truth import ALL, EventTruth

ENERGY, ZENITH, PULSES, TOPOLOGY = "energy", "cos zenith", "pulses", "topology"
QUANTITIES = (ENERGY, ZENITH, PULSES, TOPOLOGY)
FEWEST = 20  # events that a bin needs to be shown
NUM_ZENITH_BINS = 10

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]


def binned(evaluation: Evaluation, quantity: str) -> list[Row]:
    """Return a row for each bin of a quantity and each table, bins in their order.

    A row has the bin's quantity, name and borders (NaN for a topology), and the
    table's `Summary` in it. There is none where the truth does not have the quantity.

    Args:
        evaluation: The tables.
        quantity: One of `QUANTITIES`.

    Raises:
        ValueError: Another quantity.
    """
    if quantity not in QUANTITIES:
        raise ValueError(
            f"quantity must be one of {', '.join(QUANTITIES)}; got {quantity!r}"
        )
    return [
        {"quantity": quantity, **row}
        for here, chosen_B in _bins(evaluation.truth, quantity)
        for row in _rows(evaluation, here, chosen_B)
    ]


def energy_by_topology(evaluation: Evaluation) -> list[Row]:
    """Return rows of energy for each topology apart, which differ more than energies.

    Empty where the truth has no topology or no energy.

    Args:
        evaluation: The tables.
    """
    rows = []
    for kind, is_kind_B in _bins(evaluation.truth, TOPOLOGY):
        for here, in_bin_B in _bins(evaluation.truth, ENERGY):
            chosen_B = is_kind_B & in_bin_B
            if chosen_B.sum() >= FEWEST:
                head = {"quantity": ENERGY, "topology": kind["bin"], **here}
                rows += _rows(evaluation, head, chosen_B)
    return rows


def topologies_of(truth: EventTruth) -> list[str]:
    """Return the topologies there are."""
    return [str(t) for t in np.unique(truth.topology_B) if t != ALL]


def energy_edges(energy_B: Array, per_decade: int) -> Array:
    """Return borders of bins that hold all energies above 0, so many a decade, GeV."""
    known = energy_B[energy_B > 0]
    if not len(known):
        return np.empty(0)
    first = np.floor(per_decade * np.log10(known.min()))
    last = np.floor(per_decade * np.log10(known.max())) + 1
    edges: Array = 10 ** (np.arange(first, last + 1) / per_decade)
    return edges


def split(
    value_B: Array, edges: Array, fewest: int = FEWEST
) -> Iterator[tuple[float, float, Chosen]]:
    """Yield borders of bins with enough events, and which those are, (B,).

    The last bin holds its upper border.
    """
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        chosen_B = (value_B >= low) & (value_B < high)
        if high == edges[-1]:
            chosen_B |= value_B == high
        if chosen_B.sum() >= fewest:
            yield low, high, chosen_B


def _rows(evaluation: Evaluation, head: Row, chosen_B: Chosen) -> list[Row]:
    """Return a row of each table for some of the events, (B,) bool."""
    numbers = range(len(evaluation.tables))
    return [head | evaluation.summary(n, chosen_B).to_row() for n in numbers]


def _bins(truth: EventTruth, quantity: str) -> Iterator[tuple[Row, Chosen]]:
    """Yield name and borders of bins with enough events, and which those are, (B,)."""
    if quantity == TOPOLOGY:
        nan = float("nan")
        for name in topologies_of(truth):
            chosen_B = truth.topology_B == name
            if chosen_B.sum() >= FEWEST:
                yield {"bin": name.replace("_", " "), "low": nan, "high": nan}, chosen_B
        return
    if quantity == ENERGY:
        value_B = truth.energy_B
        edges = energy_edges(value_B, 2)
    elif quantity == ZENITH:
        value_B = truth.direction_B3[:, 2]
        edges = np.linspace(-1.0, 1.0, NUM_ZENITH_BINS + 1)
    else:
        value_B = truth.n_pulses_B.astype(np.float64)
        top = max(float(value_B.max(initial=1.0)), 1.0)
        edges = np.append(1.0, 2.0 ** np.arange(3, np.ceil(np.log2(top)) + 1.5))
    for low, high, chosen_B in split(value_B, edges):
        yield {"bin": _name(quantity, low, high), "low": low, "high": high}, chosen_B


def _name(quantity: str, low: float, high: float) -> str:
    """Return what a bin is called."""
    if quantity == PULSES:
        return f"{low:.0f} to {high - 1:.0f}"
    if quantity == ZENITH:
        return f"{low:.1f} to {high:.1f}"
    first, last = (f"{float(f'{value:.3g}'):,.0f}" for value in (low, high))
    return f"{first} to {last} GeV"
