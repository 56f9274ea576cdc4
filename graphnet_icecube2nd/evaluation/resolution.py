"""Opening angles of tables of directions in bins: topology, energy, zenith, pulses.

`compare` takes tables as they are and needs no intervals; `binned` and
`energy_by_topology` give the rows of an evaluation's report. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable, Evaluation
from graphnet_icecube2nd.evaluation.rows import Row, markdown_table, without_nan
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import ALL, EventTruth

ENERGY, ZENITH, PULSES, TOPOLOGY = "energy", "cos zenith", "pulses", "topology"
QUANTITIES = (ENERGY, ZENITH, PULSES, TOPOLOGY)
FEWEST = 20  # events that a bin needs to be shown
NUM_ZENITH_BINS = 10

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How far a table is off, for some of the events.

    Args:
        table: Its name.
        topology: `all`, or one.
        energy: `all`, or a decade as `1e3-1e4 GeV`.
        events: How many, those without a direction included.
        failed: How many have none: they count as pi / 2, what guessing gives.
        mean: Opening angle, rad: the competition's score.
        median, q68: deg.
        pull: Median of opening angle times the root of kappa: 1.18 if kappa is
            calibrated; NaN where the table has no kappa.
    """

    table: str
    topology: str
    energy: str
    events: int
    failed: int
    mean: float
    median: float
    q68: float
    pull: float


def compare(tables: Sequence[EventTable], truth: EventTruth) -> list[Resolution]:
    """Return how far tables are off: on the whole, by topology, and by energy in each.

    Whatever found a direction joins the comparison as an `EventTable`.

    Args:
        tables: Each with all events of the truth.
        truth: The events; those without a true direction are left out.

    Raises:
        ValueError: A table lacks an event, two have one name, there is no event, or
            none has a true direction.
    """
    truth = truth.with_directions()
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"two tables have one name: {', '.join(sorted(names))}")
    if not len(truth.event_id):
        raise ValueError("there is no event to compare directions of")
    evaluated = [EvaluatedTable.of(table, truth) for table in tables]
    everything = np.ones(len(truth), bool)
    topologies = {ALL: everything}
    topologies |= {t: truth.topology_B == t for t in _topologies(truth)}
    decades = {ALL: everything}
    for low, high, in_decade_B in _split(
        truth.energy_B, _energy_edges(truth.energy_B, 1), fewest=1
    ):
        first, last = round(np.log10(low)), round(np.log10(high))
        decades[f"1e{first}-1e{last} GeV"] = in_decade_B
    rows = []
    for topology, is_topology_B in topologies.items():
        for decade, in_decade_B in decades.items():
            chosen_B = is_topology_B & in_decade_B
            if chosen_B.any():
                rows += [_resolution(e, topology, decade, chosen_B) for e in evaluated]
    return rows


def as_markdown(rows: Sequence[Resolution]) -> str:
    """Return rows as a table in Markdown, a line for each."""
    headings = ("topology", "energy", "events", "table", "mean, rad", "median, deg")
    cells = [
        (
            row.topology.replace("_", " "),
            row.energy,
            row.events,
            row.table,
            f"{row.mean:.3f}",
            f"{row.median:.1f}",
            f"{row.q68:.1f}",
            "-" if np.isnan(row.pull) else f"{row.pull:.2f}",
            row.failed,
        )
        for row in rows
    ]
    return "\n".join(markdown_table((*headings, "68%, deg", "pull", "failed"), cells))


def as_dicts(rows: Sequence[Resolution]) -> list[Row]:
    """Return rows as plain values that JSON can hold."""
    return without_nan(asdict(row) for row in rows)


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


def _resolution(
    evaluated: EvaluatedTable, topology: str, energy: str, chosen_B: NDArray[np.bool_]
) -> Resolution:
    angle = evaluated.angle_B[chosen_B]
    median, q68 = np.degrees(np.quantile(angle, [0.5, 0.68]))
    return Resolution(
        table=evaluated.name,
        topology=topology,
        energy=energy,
        events=len(angle),
        failed=evaluated.num_failed(chosen_B),
        mean=float(angle.mean()),
        median=float(median),
        q68=float(q68),
        pull=evaluated.median_pull(chosen_B),
    )


def _topologies(truth: EventTruth) -> list[str]:
    """Return the topologies there are."""
    return [str(t) for t in np.unique(truth.topology_B) if t != ALL]


def _energy_edges(energy_B: Array, per_decade: int) -> Array:
    """Return borders of bins that hold all energies above 0, so many a decade, GeV."""
    known = energy_B[energy_B > 0]
    if not len(known):
        return np.empty(0)
    first = np.floor(per_decade * np.log10(known.min()))
    last = np.floor(per_decade * np.log10(known.max())) + 1
    edges: Array = 10 ** (np.arange(first, last + 1) / per_decade)
    return edges


def _split(
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
        for name in _topologies(truth):
            chosen_B = truth.topology_B == name
            if chosen_B.sum() >= FEWEST:
                yield {"bin": name.replace("_", " "), "low": nan, "high": nan}, chosen_B
        return
    if quantity == ENERGY:
        value_B = truth.energy_B
        edges = _energy_edges(value_B, 2)
    elif quantity == ZENITH:
        value_B = truth.direction_B3[:, 2]
        edges = np.linspace(-1.0, 1.0, NUM_ZENITH_BINS + 1)
    else:
        value_B = truth.n_pulses_B.astype(np.float64)
        top = max(float(value_B.max(initial=1.0)), 1.0)
        edges = np.append(1.0, 2.0 ** np.arange(3, np.ceil(np.log2(top)) + 1.5))
    for low, high, chosen_B in _split(value_B, edges):
        yield {"bin": _name(quantity, low, high), "low": low, "high": high}, chosen_B


def _name(quantity: str, low: float, high: float) -> str:
    """Return what a bin is called."""
    if quantity == PULSES:
        return f"{low:.0f} to {high - 1:.0f}"
    if quantity == ZENITH:
        return f"{low:.1f} to {high:.1f}"
    first, last = (f"{float(f'{value:.3g}'):,.0f}" for value in (low, high))
    return f"{first} to {last} GeV"
