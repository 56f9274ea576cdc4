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
from graphnet_icecube2nd.simulation.detector import Array, Index, SimulatedDetector
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
from graphnet_icecube2nd.store.readers.source import EventChunk

FEWEST_DOMS = 3  # with light; events with fewer are no events of the particle's
# About how many of the drawn events trigger, by topology: how many to draw at once.
_ACCEPTANCE = np.array([0.19, 0.53, 0.31, 0.95, 0.51])
_LARGEST_DRAW = 512
_MOST_DRAWS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedEvents(EventChunk):
    """Events as a store reads them, and their particles.

    Columns are sensor_id, time [ns], charge [p.e.] and auxiliary, by event and time;
    event_id counts the events of the simulation. The truth is azimuth and zenith [rad]
    of the origin, energy [GeV], position_x, _y, _z of the vertex [m], vertex_time [ns],
    topology, inelasticity, visible_energy [GeV], light [p.e.].
    """

    particles: Particles  # what made the light, on the clock of the pulses

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
    """Simulate the first `num_events` of the events 256 * block and on.

    Raises:
        ValueError: A topology hardly ever triggers, with this detector.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
    shares = [config.fractions.get(name, 0.0) for name in TOPOLOGIES]
    topology_B = rng.choice(len(TOPOLOGIES), size=BLOCK_EVENTS, p=shares)
    draws = _triggered(topology_B, config, detector, rng)
    event_id = block * BLOCK_EVENTS + np.arange(num_events)
    return _as_events(draws, event_id, detector)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draw:
    """Drawn events that triggered and found a place in the block."""

    particles: Particles
    light_B: Array
    place_B: Index
    pulses: Pulses  # their event is the place in the block


def _triggered(
    topology_B: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> list[_Draw]:
    """Draw until every place of the block has its event."""
    coincident = int((detector.neighbour_SN >= 0).any(axis=1).sum())
    if coincident < TRIGGERS[0].doms:
        raise ValueError(
            f"detector {detector.geometry.name!r} cannot trigger: {TRIGGERS[0].doms} "
            f"DOMs with a neighbour on their string are needed, it has {coincident}"
        )
    # Bright events need much memory while they are drawn.
    brightness = max(config.energy_range[1] / 1e6, 1.0)
    most = max(8, int(_LARGEST_DRAW / brightness**0.75))
    open_B = topology_B.copy()  # what each place waits for; -1 where it is taken
    draws: list[_Draw] = []
    for _ in range(_MOST_DRAWS):
        wanted = np.bincount(open_B[open_B >= 0], minlength=len(TOPOLOGIES))
        if not wanted.any():
            return draws
        number = np.ceil(1.15 * wanted / _ACCEPTANCE) + 2 * (wanted > 0)
        drawn = np.repeat(np.arange(len(TOPOLOGIES)), number.astype(np.int64))
        for start in range(0, len(drawn), most):
            draw = _draw(drawn[start : start + most], open_B, config, detector, rng)
            open_B[draw.place_B] = -1
            draws.append(draw)
    missing = [TOPOLOGIES[topology] for topology in np.unique(open_B[open_B >= 0])]
    raise ValueError(
        f"after {_MOST_DRAWS} draws still no trigger of {', '.join(missing)}: this "
        f"detector ({detector.geometry.name!r}, {len(detector)} DOMs) hardly sees such "
        "events at these energies"
    )


def _draw(
    topology: Index,
    open_B: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> _Draw:
    """Draw events and keep those that trigger, with the pulses of their readout."""
    particles = draw_particles(topology, config, detector.volume, rng)
    num_events = len(particles)
    light = Light.join(lights(particles, detector))
    light_B = np.zeros(num_events)
    np.add.at(light_B, light.event_P, light.mean)
    photoelectrons = draw_photoelectrons(light, config.time_jitter, rng)
    channel = photoelectrons.event_E * len(detector) + photoelectrons.dom_E
    lit = np.bincount(np.unique(channel) // len(detector), minlength=num_events)
    kept_E = (lit >= FEWEST_DOMS)[photoelectrons.event_E]
    photoelectrons = photoelectrons.take(kept_E)
    noise = draw_noise(photoelectrons, num_events, config.noise_rate, detector, rng)
    pulses = make_pulses(
        Photoelectrons.join([photoelectrons, noise]),
        detector,
        config.merge_time,
        config.charge_spread,
        rng,
    )
    begin_B, end_B = find_triggers(pulses, num_events, detector)
    place_B = _places(np.where(np.isnan(begin_B), -1, topology), open_B)
    event_T = pulses.event_T
    read_T = place_B[event_T] >= 0
    read_T &= pulses.time_T >= begin_B[event_T] - READOUT_BEFORE
    read_T &= pulses.time_T <= end_B[event_T] + READOUT_AFTER
    pulses = pulses.take(read_T)
    shift_B = TRIGGER_TIME - begin_B
    taken = np.flatnonzero(place_B >= 0)
    time_B = (particles.time_B + shift_B)[taken]
    return _Draw(
        particles=replace(particles.take(taken), time_B=time_B),
        light_B=light_B[taken],
        place_B=place_B[taken],
        pulses=replace(
            pulses,
            event_T=place_B[pulses.event_T],
            time_T=pulses.time_T + shift_B[pulses.event_T],
        ),
    )


def _places(topology: Index, open_B: Index) -> Index:
    """Return the open place that each triggered event takes; -1 for those too many."""
    place = np.full(len(topology), -1)
    for number in range(len(TOPOLOGIES)):
        free = np.flatnonzero(open_B == number)
        event = np.flatnonzero(topology == number)[: len(free)]
        place[event] = free[: len(event)]
    return place


def _as_events(
    draws: list[_Draw], event_id: Index, detector: SimulatedDetector
) -> SimulatedEvents:
    """Put the events into their places and their pulses into the order of time."""
    num_events = len(event_id)
    place_B = np.concatenate([draw.place_B for draw in draws])
    by_place = np.argsort(place_B)[:num_events]
    particles = Particles.join([draw.particles for draw in draws]).take(by_place)
    light_B = np.concatenate([draw.light_B for draw in draws])[by_place]
    pulses = Pulses.join([draw.pulses for draw in draws])
    pulses = pulses.take(pulses.event_T < num_events)
    pulses = pulses.take(np.lexsort((pulses.time_T, pulses.event_T)))
    lengths = np.bincount(pulses.event_T, minlength=num_events)
    sensor_type = np.int16 if len(detector) < 2**15 else np.int32
    return SimulatedEvents(
        columns={
            SENSOR_ID: pulses.dom_T.astype(sensor_type),
            TIME: pulses.time_T.astype(np.float32),
            CHARGE: pulses.charge_T.astype(np.float32),
            AUXILIARY: ~pulses.hlc_T,
        },
        offsets=np.append(0, np.cumsum(lengths)),
        event_id=event_id,
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
