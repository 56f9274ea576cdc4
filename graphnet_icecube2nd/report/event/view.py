"""Content of an event's displays: DOMs with pulses, directions, and all answers.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT, TIME_ORIGIN, opening_angle
from graphnet_icecube2nd.detector.detector import SWAY
from graphnet_icecube2nd.detector.pulse_map import TRIGGER_MASK
from graphnet_icecube2nd.detector.site import SOUTH_POLE
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.store.event_store import EventStore, EventView, view_event
from graphnet_icecube2nd.tasks.direction.calibration import kappa_to_radius
from graphnet_icecube2nd.tasks.label import DIRECTION, make_label

Array = NDArray[np.float64]

TRUTH = "truth"
# Colours that the colour-blind can tell apart (Okabe and Ito, 2008,
# jfly.uni-koeln.de/color). The truth has the colour of text.
COLOURS = ("#d55e00", "#cc79a7", "#009e73", "#0072b2", "#e69f00")
RADIUS_50 = "radius_50"  # column of a table, rad
_PLACE = ("position_x", "position_y", "position_z")  # of the vertex, m
CASCADES = ("cascade", "double_cascade")
CLOCKS = {  # meaning of times, by time_reference
    "window": "time in the readout window",
    "first_pulse": "time since the first pulse",
    "first_triggered": "time since the first triggered pulse",
}


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words for a detector and its pulses."""

    module: str  # DOM in IceCube, module elsewhere; position if no module is known
    flag: str  # of pulses that are likely light
    noise: str  # name of the other pulses
    charge: str  # unit of the size of dots
    clock: str  # meaning of times

    @classmethod
    def of(cls, store: EventStore, pulses: EventPulses) -> Words:
        """Return the words for an event of a store, see `find_modules`."""
        pulse_map = store.pulse_map
        is_trigger = pulse_map.hlc == TRIGGER_MASK
        module = "DOM" if store.detector.site == SOUTH_POLE else "module"
        return cls(
            module=module if (pulses.dom_T >= 0).any() else "position",
            flag="triggered" if is_trigger else "HLC",
            noise="pulses without trigger"
            if is_trigger
            else "auxiliary pulses (not HLC)",
            charge="pulses" if pulse_map.charge is None else "p.e.",
            clock=CLOCKS[pulse_map.time_reference],
        )

    def amount(self, charge: float) -> str:
        """Return a charge, or a number of pulses, as text."""
        one = self.charge == "pulses" and charge == 1
        return "1 pulse" if one else f"{charge:.4g} {self.charge}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrow:
    """Direction and answers to draw; unknown values are None."""

    name: str
    is_truth: bool
    flight: Array | None  # (3,) unit vector of flight; None: only answers are known
    through: Array  # (3,) m, point on the line
    time: float | None = None  # ns, time at that point
    vertex_time: float | None = None  # ns, time of the vertex
    is_vertex: bool = False  # True for a cascade, which ends at its vertex
    opening_angle: float | None = None  # rad, from the true direction
    kappa: float | None = None
    radius_50: float | None = None  # rad, radius of the 50% cone
    colour: str | None = None  # colour of a reconstructed direction
    vertex: Array | None = None  # (3,) m, of a reconstruction
    vertex_sigma: float | None = None  # m, width of each coordinate
    vertex_time_sigma: float | None = None  # ns
    answers: tuple[str, ...] = ()  # of all tasks, with their widths, as texts


def read_event(store: EventStore, number: int) -> tuple[EventView, EventPulses]:
    """Return an event and its pulses; ValueError if it has none."""
    view = view_event(store, number)
    if not view.truth["n_pulses"]:
        raise ValueError(f"event {view.event_id} cannot be drawn: it has no pulses")
    return view, EventPulses.read(store, np.array([number]))


def find_modules(store: EventStore, pulses: EventPulses) -> EventPulses:
    """Return pulses with their module, and the same position for each module.

    The position is the mean of those of the module's PMTs with pulses. If most pulses
    are away from all modules, the store lacks the table of its detector: `dom_T` is -1.
    """
    dom_T = pulses.dom_T
    if (dom_T < 0).any():
        places = torch.from_numpy(pulses.position_T3)
        dom_T = store.geometry.nearest_dom(places, SWAY).numpy()
    if (dom_T >= 0).mean() <= 0.5:
        return replace(pulses, dom_T=np.full(len(dom_T), -1))
    found_T = dom_T >= 0
    _, first, row = np.unique(dom_T[found_T], return_index=True, return_inverse=True)
    offset_3 = pulses.position_T3[found_T][first]  # so that equal positions stay
    away = pulses.position_T3[found_T] - offset_3[row]
    mean = [np.bincount(row, away[:, i]) / np.bincount(row) for i in range(3)]
    position_T3 = pulses.position_T3.copy()
    position_T3[found_T] = (offset_3 + np.stack(mean, axis=1))[row]
    return replace(pulses, dom_T=dom_T, position_T3=position_T3)


def lit_doms(
    store: EventStore, pulses: EventPulses, with_auxiliary: bool
) -> tuple[EventPulses, bool]:
    """Return one row per DOM: its first pulse, with the total charge of the DOM.

    Also returns whether only HLC pulses count; they do if there are any, unless
    `with_auxiliary`.
    """
    only_hlc = has_hlc(store) and bool(pulses.hlc_T.any()) and not with_auxiliary
    kept = pulses.keep(pulses.hlc_T) if only_hlc else pulses
    return kept.first_of_doms(total_charge=True), only_hlc


def has_hlc(store: EventStore) -> bool:
    """Return whether the pulses of a store have an HLC flag."""
    return store.pulse_map.hlc is not None or store.pulse_map.auxiliary is not None


def find_arrows(
    store: EventStore, view: EventView, tables: Sequence[EventTable], doms: EventPulses
) -> list[Arrow]:
    """Return the true direction, if known, and directions and answers of the tables.

    An arrow without a vertex passes through the centre of the charge. A table without a
    result for the event has none. Raises ValueError if a table's radius_50 is not
    between 0 and pi.
    """
    centre = np.average(doms.position_T3, axis=0, weights=doms.charge_T)
    truth = _true_arrow(store, view, centre)
    found = [] if truth is None else [truth]
    colours = cycle(COLOURS)
    for table in tables:
        row = np.flatnonzero(table.event_id == view.event_id)
        if not len(row) or table.status_B[row[0]] != OK:
            continue
        known = {n: values[row[0]] for n, values in table.columns.items()}
        number = {n: _finite(value) for n, value in known.items() if _is_number(value)}
        vertex = np.array([known.get(f"vertex_{axis}", np.nan) for axis in "xyz"])
        vertex -= store.pulse_map.origin
        flight = kappa = radius = off = None
        if table.is_ok[row[0]] and np.isfinite(table.direction_B3[row[0]]).all():
            flight, kappa = -table.direction_B3[row[0]], float(table.kappa_B[row[0]])
            radius = _radius_50(table, int(row[0]))
            if truth is not None and truth.flight is not None:
                off = float(opening_angle(flight, truth.flight))
        answers = tuple(_answers(number, known.get("topology"), radius))
        found.append(
            Arrow(
                name=table.name,
                is_truth=False,
                flight=flight,
                through=centre,
                opening_angle=off,
                kappa=_finite(kappa),
                radius_50=radius,
                colour=next(colours),
                vertex=vertex if np.isfinite(vertex).all() else None,
                vertex_sigma=number.get("vertex_sigma"),
                vertex_time=number.get("vertex_time"),
                vertex_time_sigma=number.get("vertex_time_sigma"),
                answers=answers if flight is not None else ("no direction", *answers),
            )
        )
    return found


def _answers(
    number: Mapping[str, float | None], topology: str | None, radius: float | None
) -> Iterator[str]:
    """Yield the answers for an event, with their widths, one text a task."""
    zenith, azimuth = (number.get(name) for name in ("zenith", "azimuth"))
    if zenith is not None and azimuth is not None:
        angles = f"{math.degrees(zenith):.1f}, azimuth {math.degrees(azimuth):.1f}"
        text = f"zenith {angles} deg"
        ninety = number.get("radius_90")
        if radius is not None:
            text += f"; 50% within {math.degrees(radius):.1f} deg"
        if ninety is not None:
            text += f", 90% within {math.degrees(ninety):.1f} deg"
        yield text
    for name in ("energy", "visible_energy"):
        value = number.get(name)
        low, high = (number.get(f"{name}_{end}_68") for end in ("low", "high"))
        if value is not None:
            text = f"{name.replace('_', ' ')} {energy_text(value)}"
            if low is not None and high is not None:
                text += f" (68%: {energy_text(low)} to {energy_text(high)})"
            yield text
    place = [number.get(f"vertex_{axis}") for axis in "xyz"]
    if None not in place:
        text = "vertex " + ", ".join(f"{value:.0f}" for value in place)
        yield text + _width(number.get("vertex_sigma"), "m")
    if (time := number.get("vertex_time")) is not None:
        text = f"vertex time {time:.0f}"
        yield text + _width(number.get("vertex_time_sigma"), "ns")
    if topology is not None:
        score = number.get(f"p_{topology}")
        share = "" if score is None else f" ({100 * score:.0f}%)"
        yield f"{topology.replace('_', ' ')}{share}"
    for name in ("p_track", "p_neutrino"):
        if (score := number.get(name)) is not None:
            yield f"{name[2:]}: {100 * score:.0f}%"
    if (value := number.get("inelasticity")) is not None:
        sigma = number.get("inelasticity_sigma")
        yield f"inelasticity {value:.2f}" + ("" if sigma is None else f" ± {sigma:.2f}")


def _width(sigma: float | None, unit: str) -> str:
    return f" {unit}" if sigma is None else f" ± {sigma:.0f} {unit}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))


def _true_arrow(store: EventStore, view: EventView, centre: Array) -> Arrow | None:
    """Return the true direction; None if the store or the event has none."""
    pulse_map = store.pulse_map
    angles = (pulse_map.labels.zenith, pulse_map.labels.azimuth)
    columns = {name: np.array([view.truth.get(name, np.nan)]) for name in angles}
    flight = -make_label(DIRECTION, columns, pulse_map.labels)[0]
    if not np.isfinite(flight).all():
        return None
    place = [_finite(view.truth.get(name)) for name in _PLACE]
    if None in place:
        return Arrow(name=TRUTH, is_truth=True, flight=flight, through=centre)
    vertex = np.array(place, dtype=np.float64) - pulse_map.origin
    is_vertex = view.truth.get("topology") in CASCADES
    # Point of the true line nearest to the centre of charge.
    along = 0.0 if is_vertex else float((centre - vertex) @ flight)
    vertex_time = _finite(view.truth.get("vertex_time"))
    if vertex_time is not None:
        # If times count from the first pulse, the store has the time of that pulse.
        vertex_time -= float(view.truth.get(TIME_ORIGIN) or 0.0)
    return Arrow(
        name=TRUTH,
        is_truth=True,
        flight=flight,
        through=vertex + along * flight,
        time=None if vertex_time is None else vertex_time + along / SPEED_OF_LIGHT,
        vertex_time=vertex_time,
        is_vertex=is_vertex,
    )


def _finite(value: Any) -> float | None:
    """Return a finite number, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _radius_50(table: EventTable, row: int) -> float | None:
    """Return a table's 50% radius [rad], or else the radius of its kappa."""
    given = table.radii.get(RADIUS_50)
    if given is not None and math.isfinite(radius := float(given[row])):
        if not 0 <= radius <= math.pi:
            raise ValueError(
                f"table {table.name!r}: {RADIUS_50} of event {table.event_id[row]} "
                f"must be 0 to pi rad, found {radius:g}"
            )
        return radius
    kappa = float(table.kappa_B[row])
    return float(kappa_to_radius(kappa, 0.5)) if 0 <= kappa < math.inf else None


def inside_box(arrow: Arrow, low: Array, high: Array) -> tuple[float, float]:
    """Return the distances [m] from `through` at which a line enters and leaves a box.

    They are half a diagonal of the box away if the line misses it.
    """
    assert arrow.flight is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.stack([low - arrow.through, high - arrow.through]) / arrow.flight
    # 0 / 0: the line runs along a face, which counts as inside.
    steps = np.where(np.isnan(steps), np.array([[-np.inf], [np.inf]]), steps)
    begin, end = steps.min(axis=0).max(), steps.max(axis=0).min()
    half = float(np.linalg.norm(high - low)) / 2
    return (float(begin), float(end)) if begin < end else (-half, half)


def time_range(time_T: Array) -> tuple[float, float]:
    """Return the time range of the colours [ns]; very late pulses do not extend it."""
    first, last = np.quantile(time_T, [0.0, 0.95])
    return float(first), float(max(last, first + 10.0))


def energy_text(value: float) -> str:
    """Return an energy [GeV] as text with a suitable unit."""
    for unit, size in (("PeV", 1e6), ("TeV", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} GeV"


def known_truth(view: EventView) -> list[str]:
    """Return texts of an event's topology and energy, if known."""
    words = []
    if "topology" in view.truth:
        words.append(str(view.truth["topology"]).replace("_", " "))
    if (energy := _finite(view.truth.get("energy"))) is not None:
        words.append(energy_text(energy))
    return words
