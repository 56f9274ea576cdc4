"""Simulated events: particles, their light, noise and trigger, block by block.

A block of 256 events is drawn from random numbers of its own, so events are the same
however many are asked for and whichever process makes them. Shape letters: B events,
T pulses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    AZIMUTH,
    CHARGE,
    SENSOR_ID,
    TIME,
    ZENITH,
    unit_vector_to_angles,
)
from graphnet_icecube2nd.simulation.configuration import (
    BLOCK_EVENTS,
    TOPOLOGIES,
    SimulationConfig,
)
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.particles import Particles, draw_particles
from graphnet_icecube2nd.simulation.photoelectrons import (
    Light,
    Photoelectrons,
    draw_photoelectrons,
    lights,
)
from graphnet_icecube2nd.simulation.pulses import (
    READOUT_AFTER,
    READOUT_BEFORE,
    TRIGGER_TIME,
    TRIGGERS,
    Pulses,
    draw_noise,
    find_triggers,
    make_pulses,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FEWEST_DOMS = 3  # with light; events with fewer are no events of the particle's
# About how many of the drawn events trigger, by topology: how many to draw at once.
_ACCEPTANCE = dict(zip(TOPOLOGIES, (0.19, 0.53, 0.31, 0.95, 0.51), strict=True))
_LARGEST_DRAW = 512
_MOST_DRAWS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedEvents:
    """Events as columns, and their truth.

    Args:
        columns: (T,) sensor_id, time [ns], charge [p.e.], auxiliary; by event and time.
        offsets: (B + 1,) int64, event `i` owns pulses `offsets[i]` to
            `offsets[i + 1] - 1`.
        event_id: (B,) int64, the place of the event in the simulation.
        truth: (B,) columns: azimuth and zenith [rad] of the origin, energy [GeV],
            position_x, _y, _z of the vertex [m], vertex_time [ns], topology,
            inelasticity, visible_energy [GeV], light [p.e.].
        particles: What made the light, on the clock of the pulses.
    """

    columns: dict[str, NDArray[Any]]
    offsets: Index
    event_id: Index
    truth: dict[str, NDArray[Any]]
    particles: Particles

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.event_id)


def simulate_block(
    config: SimulationConfig,
    detector: SimulatedDetector,
    seed: int,
    block: int,
    num_events: int = BLOCK_EVENTS,
) -> SimulatedEvents:
    """Simulate the events 256 * block and on.

    Args:
        config: What to simulate.
        detector: With which detector.
        seed: 0 or above.
        block: Which block.
        num_events: The first so many of the block's 256 events.

    Raises:
        ValueError: A topology hardly ever triggers, with this detector.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
    shares = [config.fractions.get(name, 0.0) for name in TOPOLOGIES]
    topology_B = rng.choice(len(TOPOLOGIES), size=BLOCK_EVENTS, p=shares)
    found = _triggered(topology_B, config, detector, rng)
    first = block * BLOCK_EVENTS
    return _as_events(found, np.arange(num_events), first, detector)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draw:
    """Drawn events that triggered: (B,) their particles, their pulses, their light."""

    particles: Particles
    pulses: Pulses
    light_B: Array

    def __len__(self) -> int:
        return len(self.particles)

    def without_others(self, events: Index) -> _Draw:
        """Return it without the pulses of events that are not among some."""
        wanted_B = np.zeros(len(self), bool)
        wanted_B[events] = True
        return replace(self, pulses=self.pulses.take(wanted_B[self.pulses.event_T]))


def _check_can_trigger(detector: SimulatedDetector) -> None:
    coincident = int((detector.neighbour_SN >= 0).any(axis=1).sum())
    if coincident < TRIGGERS[0].doms:
        raise ValueError(
            f"detector {detector.geometry.name!r} cannot trigger: {TRIGGERS[0].doms} "
            f"DOMs with a neighbour on their string are needed, it has {coincident}"
        )


def _triggered(
    topology_B: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> list[tuple[_Draw, Index, Index]]:
    """Draw until every place of the block has its event.

    Returns:
        Draws, the events of each that are taken, and the places they take.
    """
    open_places = [
        np.flatnonzero(topology_B == topology) for topology in range(len(TOPOLOGIES))
    ]
    _check_can_trigger(detector)
    # Bright events need much memory while they are drawn.
    brightness = max(config.energy_range[1] / 1e6, 1.0)
    most = max(8, int(_LARGEST_DRAW / brightness**0.75))
    found: list[tuple[_Draw, Index, Index]] = []
    for _ in range(_MOST_DRAWS):
        wanted = [len(places) for places in open_places]
        if not any(wanted):
            return found
        numbers = [
            int(np.ceil(1.15 * number / _ACCEPTANCE[name])) + 2 * (number > 0)
            for number, name in zip(wanted, TOPOLOGIES, strict=True)
        ]
        drawn = np.repeat(np.arange(len(TOPOLOGIES)), numbers)
        for start in range(0, len(drawn), most):
            draw = _draw(drawn[start : start + most], config, detector, rng)
            events, places = [], []
            for topology in range(len(TOPOLOGIES)):
                event = np.flatnonzero(draw.particles.topology_B == topology)
                place = open_places[topology][: len(event)]
                open_places[topology] = open_places[topology][len(event) :]
                events.append(event[: len(place)])
                places.append(place)
            taken = np.concatenate(events)
            found.append((draw.without_others(taken), taken, np.concatenate(places)))
    missing = [TOPOLOGIES[i] for i, places in enumerate(open_places) if len(places)]
    raise ValueError(
        f"after {_MOST_DRAWS} draws still no trigger of {', '.join(missing)}: this "
        f"detector ({detector.geometry.name!r}, {len(detector)} DOMs) hardly sees such "
        "events at these energies"
    )


def _draw(
    topology: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> _Draw:
    """Draw events and keep those that trigger, with the pulses of their readout."""
    particles = draw_particles(topology, config, detector.volume, rng)
    light = Light.join(lights(particles, detector))
    light_B = np.zeros(len(particles))
    np.add.at(light_B, light.event_P, light.arrival.mean)
    photoelectrons = draw_photoelectrons(light, config.time_jitter, rng)
    lit = _enough_doms(photoelectrons, len(particles), len(detector))
    kept_E = lit[photoelectrons.event_E]
    photoelectrons = Photoelectrons(
        event_E=photoelectrons.event_E[kept_E],
        dom_E=photoelectrons.dom_E[kept_E],
        time_E=photoelectrons.time_E[kept_E],
        weight_E=photoelectrons.weight_E[kept_E],
    )
    noise = draw_noise(photoelectrons, len(particles), config.noise_rate, detector, rng)
    pulses = make_pulses(
        Photoelectrons.join([photoelectrons, noise]),
        detector,
        config.merge_time,
        config.charge_spread,
        rng,
    )
    begin_B, end_B = find_triggers(pulses, len(particles), detector)
    event_T = pulses.event_T
    read = pulses.time_T >= begin_B[event_T] - READOUT_BEFORE
    read &= pulses.time_T <= end_B[event_T] + READOUT_AFTER
    pulses = pulses.take(read)
    triggered = np.flatnonzero(~np.isnan(begin_B))
    shift_B = TRIGGER_TIME - begin_B
    number_B = np.full(len(particles), -1)
    number_B[triggered] = np.arange(len(triggered))
    kept = particles.take(triggered)
    kept.time_B[:] += shift_B[triggered]
    return _Draw(
        particles=kept,
        pulses=Pulses(
            event_T=number_B[pulses.event_T],
            dom_T=pulses.dom_T,
            time_T=pulses.time_T + shift_B[pulses.event_T],
            charge_T=pulses.charge_T,
            hlc_T=pulses.hlc_T,
        ),
        light_B=light_B[triggered],
    )


def _enough_doms(
    photoelectrons: Photoelectrons, num_events: int, num_doms: int
) -> NDArray[np.bool_]:
    """Return which events have light in FEWEST_DOMS, (B,)."""
    channel = np.unique(photoelectrons.event_E * num_doms + photoelectrons.dom_E)
    number_B = np.bincount(channel // num_doms, minlength=num_events)
    return number_B >= FEWEST_DOMS


def _as_events(
    found: list[tuple[_Draw, Index, Index]],
    places: Index,
    first: int,
    detector: SimulatedDetector,
) -> SimulatedEvents:
    """Put the events into their places and their pulses into the order of time."""
    particles = Particles.join([draw.particles.take(taken) for draw, taken, _ in found])
    light_B = np.concatenate([draw.light_B[taken] for draw, taken, _ in found])
    place_B = np.concatenate([place for _, _, place in found])
    pulses = []
    for draw, taken, place in found:
        place_of = np.full(len(draw), -1)
        place_of[taken] = place
        place_T = place_of[draw.pulses.event_T]
        wanted = (place_T >= 0) & (place_T < len(places))
        some = draw.pulses.take(wanted)
        pulses.append((place_T[wanted], some))
    event_T = np.concatenate([place_T for place_T, _ in pulses])
    time_T = np.concatenate([some.time_T for _, some in pulses])
    order = np.lexsort((time_T, event_T))

    def column(name: str) -> NDArray[Any]:
        joined: NDArray[Any] = np.concatenate([getattr(p, name) for _, p in pulses])
        sorted_T: NDArray[Any] = joined[order]
        return sorted_T

    lengths = np.bincount(event_T, minlength=len(places))
    by_place = np.argsort(place_B)[: len(places)]
    particles, light_B = particles.take(by_place), light_B[by_place]
    whole = np.int16 if len(detector) < 2**15 else np.int32
    return SimulatedEvents(
        columns={
            SENSOR_ID: column("dom_T").astype(whole),
            TIME: time_T[order].astype(np.float32),
            CHARGE: column("charge_T").astype(np.float32),
            AUXILIARY: ~column("hlc_T"),
        },
        offsets=np.append(0, np.cumsum(lengths)),
        event_id=first + places,
        truth=_truth(particles, light_B),
        particles=particles,
    )


def _truth(particles: Particles, light_B: Array) -> dict[str, NDArray[Any]]:
    zenith, azimuth = unit_vector_to_angles(-particles.direction_B3)
    names = np.array(TOPOLOGIES)
    # What shines as much, as an electromagnetic cascade: a muon is not counted, as
    # most of its light is outside; `light` has it.
    visible = particles.cascade_energy_BC.sum(axis=1)
    x, y, z = particles.vertex_B3.T
    return {
        AZIMUTH: azimuth.numpy(),
        ZENITH: zenith.numpy(),
        "energy": particles.energy_B,
        "position_x": x,
        "position_y": y,
        "position_z": z,
        "vertex_time": particles.time_B,
        "topology": names[particles.topology_B],
        "inelasticity": particles.inelasticity_B,
        "visible_energy": visible,
        "light": light_B,
    }
