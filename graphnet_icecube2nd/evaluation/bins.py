"""Tables of directions by energy, zenith, number of pulses and topology.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.metrics import Evaluation, Summary
from graphnet_icecube2nd.evaluation.resolution import topologies_of

ENERGY, ZENITH, PULSES, TOPOLOGY = "energy", "cos zenith", "pulses", "topology"
QUANTITIES = (ENERGY, ZENITH, PULSES, TOPOLOGY)
UNITS = {ENERGY: "GeV", ZENITH: "", PULSES: "", TOPOLOGY: ""}
FEWEST = 20  # events that a bin needs to be shown
NUM_ZENITH_BINS = 10

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Some of the events.

    Args:
        quantity: One of `QUANTITIES`.
        low, high: Its borders; NaN for a topology.
        name: What to call it.
        topology: The kind of event that it is of; empty: all.
    """

    quantity: str
    low: float
    high: float
    name: str
    topology: str = ""


@dataclass(frozen=True, kw_only=True)
class BinRow:
    """A table in a bin."""

    bin: Bin
    summary: Summary


def binned(evaluation: Evaluation, quantity: str) -> list[BinRow]:
    """Return a row for each bin of a quantity and each table, bins in their order.

    Empty where the truth does not have the quantity.

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
        BinRow(bin=here, summary=evaluation.summary(number, chosen_B))
        for here, chosen_B in _bins(evaluation, quantity)
        for number in range(len(evaluation.tables))
    ]


def energy_by_topology(evaluation: Evaluation) -> list[BinRow]:
    """Return rows of energy for each topology apart, which differ more than energies.

    Empty where the truth has no topology or no energy.

    Args:
        evaluation: The tables.
    """
    rows = []
    for kind, is_kind_B in _bins(evaluation, TOPOLOGY):
        for here, in_bin_B in _bins(evaluation, ENERGY):
            chosen_B = is_kind_B & in_bin_B
            if chosen_B.sum() >= FEWEST:
                rows += [
                    BinRow(
                        bin=replace(here, topology=kind.name),
                        summary=evaluation.summary(number, chosen_B),
                    )
                    for number in range(len(evaluation.tables))
                ]
    return rows


def _bins(
    evaluation: Evaluation, quantity: str
) -> Iterator[tuple[Bin, NDArray[np.bool_]]]:
    """Yield bins with enough events, and which those are, (B,)."""
    truth = evaluation.truth
    if quantity == TOPOLOGY:
        for name in topologies_of(truth)[1:]:
            chosen_B = truth.topology_B == name
            if chosen_B.sum() >= FEWEST:
                nan = float("nan")
                words = name.replace("_", " ")
                yield Bin(quantity=quantity, low=nan, high=nan, name=words), chosen_B
        return
    if quantity == ENERGY:
        value_B = truth.energy_B
        edges = _half_decades(value_B)
    elif quantity == ZENITH:
        value_B = truth.direction_B3[:, 2]
        edges = np.linspace(-1.0, 1.0, NUM_ZENITH_BINS + 1)
    else:
        if not truth.knows_pulses:
            return
        value_B = truth.n_pulses_B.astype(np.float64)
        top = max(float(value_B.max(initial=1.0)), 1.0)
        edges = 2.0 ** np.arange(3, np.ceil(np.log2(top)) + 1.5)
        edges = np.append(1.0, edges)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        chosen_B = (value_B >= low) & (value_B < high)
        if high == edges[-1]:
            chosen_B |= value_B == high
        if chosen_B.sum() >= FEWEST:
            name = _name(quantity, low, high)
            yield Bin(quantity=quantity, low=low, high=high, name=name), chosen_B


def _half_decades(energy_B: Array) -> Array:
    known = energy_B[energy_B > 0]
    if not len(known):
        return np.empty(0)
    first = np.floor(2 * np.log10(known.min()))
    last = np.floor(2 * np.log10(known.max())) + 1
    edges: Array = 10 ** (np.arange(first, last + 1) / 2)
    return edges


def _name(quantity: str, low: float, high: float) -> str:
    if quantity == PULSES:
        return f"{low:.0f} to {high - 1:.0f}"
    if quantity == ZENITH:
        return f"{low:.1f} to {high:.1f}"
    first, last = (f"{float(f'{value:.3g}'):,.0f}" for value in (low, high))
    return f"{first} to {last} GeV"
