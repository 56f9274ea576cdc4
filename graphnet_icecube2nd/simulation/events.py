"""Simulated events: particles, their light, noise, pulses and trigger, in blocks.

A block of 256 events has its own random numbers, so events do not depend on the number
of events or on the process that makes them. Shape letters: B events, E photoelectrons,
T pulses, S DOMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    AZIMUTH,
    CHARGE,
    SENSOR_ID,
    TIME,
    TIME_OFFSET,
    ZENITH,
    X,
    Y,
    Z,
    unit_vector_to_angles,
)
from graphnet_icecube2nd.detector.module import Trigger
from graphnet_icecube2nd.detector.pulse_map import PMT_DIRECTIONS, TOT, TRIGGER_MASK
from graphnet_icecube2nd.events.events import event_order
from graphnet_icecube2nd.simulation.configuration import (
    BLOCK_EVENTS,
    TOPOLOGIES,
    SimulationConfig,
)
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.interactions import (
    astrophysical_flux,
    atmospheric_flux,
)
from graphnet_icecube2nd.simulation.modules import (
    THRESHOLD,
    draw_coincidences,
    find_module_triggers,
    may_trigger,
    time_over_threshold,
)
from graphnet_icecube2nd.simulation.particles import (
    Particles,
    bundle_flux,
    draw_particles,
    generation_weight,
)
from graphnet_icecube2nd.simulation.photoelectrons import (
    Light,
    Photoelectrons,
    draw_photoelectrons,
    light_at_doms,
)
from graphnet_icecube2nd.simulation.rows import Array, Index, Rows
from graphnet_icecube2nd.store.readers.source import EventChunk

TRIGGER_TIME = TIME_OFFSET  # ns, time of the trigger on the clock of an event
CHARGE_STEP = 0.025  # p.e., resolution of charges
_CLOCK = 2.0**24  # ns, longer than any event: separates DOMs in one sort key
FEWEST_DOMS = 3  # minimum DOMs with light; fewer do not make an event
# Truth in numbers besides the direction: rad, GeV, m, ns, p.e.; weights in GeV cm2 sr
# (generation_weight) and Hz. The mean of weight x flux over all events is a rate.
TRUTH_NUMBERS = (
    *("energy", "position_x", "position_y", "position_z", "vertex_time", "pid"),
    *("interaction_type", "inelasticity", "visible_energy", "energy_track"),
    *("energy_cascade", "track_length", "muon_zenith", "muon_azimuth", "light"),
    *("generation_weight", "weight_atmospheric", "weight_astrophysical"),
    *("scattering", "absorption", "dom_efficiency", "hole_ice"),
)
# Approximate share of events that trigger, by topology; sets how many are drawn.
_ACCEPTANCE = np.array([0.19, 0.53, 0.31, 0.95, 0.51])
_LARGEST_DRAW = 512
# Rounds of draws, or events drawn over those of the first round; and the largest round
# over one with the approximate share.
_MOST_DRAWS, _LARGEST_ROUND = 2000, 100


# Trigger of DeepCore, arXiv:1612.05093; without strings around DeepCore.
DEEPCORE = Trigger(modules=3, window=2500.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulses(Rows):
    """Pulses of many events, by event, DOM and time."""

    event_T: Index
    channel_T: Index  # DOM * PMTs of a DOM + PMT
    time_T: Array  # ns
    charge_T: Array  # p.e.
    span_T: Array  # ns, from the first to the last photoelectron
    # A neighbour within two DOMs has a pulse within 1 us; with several PMTs in a DOM:
    # the pulse is part of a trigger.
    hlc_T: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedEvents(EventChunk):
    """Events in the form that a store reads, with their particles.

    Columns are sensor_id, time [ns], charge [p.e.] and auxiliary, sorted by event and
    time; event_id counts the events of the simulation. The truth is azimuth and zenith
    [rad] of the origin, energy [GeV], position_x, _y, _z of the vertex [m], vertex_time
    [ns], topology, pid, interaction_type, inelasticity, visible_energy [GeV] and more;
    see docs/simulation.md.
    """

    particles: Particles  # sources of the light, on the clock of the pulses

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
    """Simulate the first `num_events` events of a block, from number 256 * block."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
    shares = [config.fractions.get(name, 0.0) for name in TOPOLOGIES]
    topology_B = rng.choice(len(TOPOLOGIES), size=BLOCK_EVENTS, p=shares)
    draws = _triggered(topology_B, config, detector, rng)
    # Sort events by their index in the block, and pulses as a store does.
    place_B = np.concatenate([draw.place_B for draw in draws])
    by_place = np.argsort(place_B)[:num_events]
    particles = Particles.join([draw.particles for draw in draws]).take(by_place)
    light_B = np.concatenate([draw.light_B for draw in draws])[by_place]
    per_event = _acceptance(topology_B, draws) / np.maximum(shares, 1e-300)
    pulses = Pulses.join([draw.pulses for draw in draws])
    pulses = pulses.take(pulses.event_T < num_events)
    lengths = np.bincount(pulses.event_T, minlength=num_events)
    columns = _columns(pulses, detector)
    if SENSOR_ID in columns:
        order_T = event_order(columns, pulses.event_T)
    else:
        order_T = np.lexsort((pulses.channel_T, pulses.time_T, pulses.event_T))
    return SimulatedEvents(
        columns={name: values_T[order_T] for name, values_T in columns.items()},
        offsets=np.append(0, np.cumsum(lengths)),
        event_id=block * BLOCK_EVENTS + np.arange(num_events),
        truth=_truth(particles, light_B, per_event[particles.topology_B], detector),
        particles=particles,
    )


def pulse_columns(detector: SimulatedDetector) -> tuple[str, ...]:
    """Return the names of the columns of pulses."""
    none = np.zeros(0, np.int64)
    empty: dict[str, Any] = dict.fromkeys((f.name for f in fields(Pulses)), none)
    return tuple(_columns(Pulses(**empty), detector))


def _columns(pulses: Pulses, detector: SimulatedDetector) -> dict[str, NDArray[Any]]:
    """Return the columns of pulses as a store has them."""
    num_pmts, written = detector.module.pmts, detector.written
    dom_T, pmt_T = np.divmod(pulses.channel_T, num_pmts)
    look_T3 = detector.pmt_direction_SP3[dom_T, pmt_T] if num_pmts > 1 else None
    if look_T3 is not None and written is not None and TOT in written.pulses.extra:
        origin = np.array(written.pulses.origin)
        place_T3 = detector.position_S3[dom_T] + detector.module.radius * look_T3
        tot_T = time_over_threshold(pulses.charge_T, pulses.span_T)
        # The types of KM3NeT's files; the channel of a PMT is its number.
        return {
            **dict(zip((X, Y, Z), (place_T3 + origin).T, strict=True)),
            written.pulses.time: pulses.time_T,
            TOT: np.maximum(np.round(tot_T), 1.0).astype(np.int32),
            **dict(zip(PMT_DIRECTIONS[1], look_T3.T, strict=True)),
            TRIGGER_MASK: pulses.hlc_T,
            "dom_id": dom_T.astype(np.int32),
            "channel_id": pmt_T.astype(np.int16),
        }
    sensor_type = np.int16 if len(detector) < 2**15 else np.int32
    columns: dict[str, NDArray[Any]] = {
        SENSOR_ID: dom_T.astype(sensor_type),
        TIME: pulses.time_T.astype(np.float32),
        CHARGE: pulses.charge_T.astype(np.float32),
        AUXILIARY: pulses.hlc_T == 0,
    }
    if look_T3 is not None:
        looks = look_T3.astype(np.float32).T
        columns |= dict(zip(PMT_DIRECTIONS[0], looks, strict=True))
    return columns


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draw:
    """Drawn events that triggered and have an index in the block."""

    particles: Particles
    light_B: Array
    place_B: Index
    pulses: Pulses  # with the index in the block as their event
    triggered_D: NDArray[np.bool_]  # of all drawn events D, in the order of the draw
    topology_D: Index


def _triggered(
    topology_B: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> list[_Draw]:
    """Draw until every index of the block has its event."""
    needed, several = detector.module.trigger.modules, detector.module.pmts > 1
    coincident = len(detector)
    if not several:
        coincident = int((detector.neighbour_SN >= 0).any(axis=1).sum())
    if coincident < needed:
        which = "" if several else "with a neighbour on their string "
        raise ValueError(
            f"detector {detector.geometry.name!r} cannot trigger: {needed} DOMs "
            f"{which}are needed, it has {coincident}"
        )
    # Bright events need much memory while they are drawn.
    brightness = max(config.energy_range[1] / 1e6, 1.0)
    most = max(8, int(_LARGEST_DRAW / brightness**0.75))
    open_B = topology_B.copy()  # topology still needed at each index; -1 if none
    draws: list[_Draw] = []
    acceptance, total, first = _ACCEPTANCE, 0.0, 0.0
    for _ in range(_MOST_DRAWS):
        wanted = np.bincount(open_B[open_B >= 0], minlength=len(TOPOLOGIES))
        if not wanted.any():
            return draws
        number, usual = (
            np.ceil(1.15 * wanted / share) + 2 * (wanted > 0)
            for share in (acceptance, _ACCEPTANCE)
        )
        number = np.minimum(number, _LARGEST_ROUND * usual)
        total, first = total + number.sum(), first or usual.sum()
        if total > _MOST_DRAWS * first:
            break
        drawn = np.repeat(np.arange(len(TOPOLOGIES)), number.astype(np.int64))
        for start in range(0, len(drawn), most):
            draw = _draw(drawn[start : start + most], open_B, config, detector, rng)
            open_B[draw.place_B] = -1
            draws.append(draw)
        if detector.medium.is_clear:
            acceptance = _share_of_triggers(draws)
    missing = [TOPOLOGIES[topology] for topology in np.unique(open_B[open_B >= 0])]
    raise ValueError(
        f"no event with {', '.join(missing)} triggered after {_MOST_DRAWS} draws: this "
        f"detector ({detector.geometry.name!r}, {len(detector)} DOMs) hardly sees such "
        "events at these energies; choose higher energies or other fractions"
    )


def _share_of_triggers(draws: Sequence[_Draw]) -> Array:
    """Return a guess of the share of drawn events that trigger, by topology."""
    topology = np.concatenate([draw.topology_D for draw in draws])
    triggered = np.concatenate([draw.triggered_D for draw in draws])
    drawn = np.bincount(topology, minlength=len(TOPOLOGIES))
    found = np.bincount(topology, triggered, minlength=len(TOPOLOGIES))
    # As if one of the first few events had triggered already.
    share: Array = (found + 1.0) / (drawn + 1.0 / _ACCEPTANCE)
    return share


def _draw(
    topology: Index,
    open_B: Index,
    config: SimulationConfig,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> _Draw:
    """Draw events; return those that trigger, with the pulses of their readout."""
    several = detector.module.pmts > 1
    particles = draw_particles(topology, config, detector.volume, rng)
    if several:  # light from below is no other light
        particles = replace(particles, side_B=np.zeros(len(topology)))
    num_events = len(particles)
    light = Light.join(light_at_doms(particles, detector))
    light_B = np.zeros(num_events)
    np.add.at(light_B, light.event_P, light.mean)
    photoelectrons = draw_photoelectrons(light, config.time_jitter, detector, rng)
    channel = photoelectrons.event_E * len(detector)
    channel += photoelectrons.channel_E // detector.module.pmts
    lit = np.bincount(np.unique(channel) // len(detector), minlength=num_events)
    possible_B = lit >= FEWEST_DOMS
    if several:
        possible_B &= may_trigger(
            photoelectrons.event_E, photoelectrons.channel_E, num_events, detector
        )
    kept_E = possible_B[photoelectrons.event_E]
    photoelectrons = photoelectrons.take(kept_E)
    noise = draw_noise(
        photoelectrons,
        num_events,
        config.noise_rate,
        detector,
        rng,
        jitter=config.time_jitter,
    )
    pulses = make_pulses(
        Photoelectrons.join([photoelectrons, noise]),
        detector,
        config.merge_time,
        config.charge_spread,
        rng,
    )
    if several:
        pulses = pulses.take(pulses.charge_T > THRESHOLD)
        hlc_T, begin_B, end_B = find_module_triggers(
            pulses.event_T, pulses.channel_T, pulses.time_T, num_events, detector
        )
        pulses = replace(pulses, hlc_T=hlc_T)
    else:
        begin_B, end_B = find_triggers(pulses, num_events, detector)
    before, after = detector.readout
    place_B = _places(np.where(np.isnan(begin_B), -1, topology), open_B)
    event_T = pulses.event_T
    read_T = place_B[event_T] >= 0
    read_T &= pulses.time_T >= begin_B[event_T] - before
    read_T &= pulses.time_T <= end_B[event_T] + after
    pulses = pulses.take(read_T)
    shift_B = TRIGGER_TIME - begin_B
    taken = np.flatnonzero(place_B >= 0)
    time_B = (particles.time_B + shift_B)[taken]
    return _Draw(
        triggered_D=np.isfinite(begin_B),
        topology_D=topology,
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
    """Return the index that each triggered event gets; -1 for surplus events."""
    place = np.full(len(topology), -1)
    for number in range(len(TOPOLOGIES)):
        free = np.flatnonzero(open_B == number)
        event = np.flatnonzero(topology == number)[: len(free)]
        place[event] = free[: len(event)]
    return place


def _acceptance(topology_B: Index, draws: Sequence[_Draw]) -> NDArray[np.float64]:
    """Return the share of drawn events that trigger, by topology; 0 if there is none.

    Events are drawn until k of a topology have triggered, with n draws to the last of
    them. The estimate (k - 1) / (n - 1) has no bias (1 or 0 if k is 1).
    """
    wanted = np.bincount(topology_B, minlength=len(TOPOLOGIES))
    share = np.zeros(len(TOPOLOGIES))
    for topology, k in enumerate(wanted):
        triggered = np.concatenate(
            [draw.triggered_D[draw.topology_D == topology] for draw in draws]
        )
        if k:
            n = np.flatnonzero(triggered)[k - 1] + 1
            share[topology] = (k - 1) / (n - 1) if n > 1 else 1.0
    return share


def _truth(
    particles: Particles,
    light_B: Array,
    per_event_B: Array,
    detector: SimulatedDetector,
) -> dict[str, NDArray[Any]]:
    """Return the truth of events; `per_event_B` is their part of the draws."""
    zenith, azimuth = unit_vector_to_angles(-particles.direction_B3)
    energy, pdg = particles.energy_B, particles.pdg_B
    volume, origin = detector.volume, np.zeros(3)
    if detector.written is not None:
        origin = np.array(detector.written.pulses.origin)
    x, y, z = (particles.vertex_B3 + origin).T
    is_neutrino = particles.interaction_B > 0
    has_muon = is_neutrino & (particles.muons_B > 0)
    muon_zenith, muon_azimuth = unit_vector_to_angles(-particles.track_direction_B3)
    generation = generation_weight(particles, volume) * per_event_B
    atmospheric = generation * atmospheric_flux(energy, np.cos(zenith.numpy()), pdg)
    atmospheric += np.where(
        is_neutrino,
        0.0,
        particles.generation_B * per_event_B * bundle_flux(particles, volume),
    )
    track = particles.muons_B * particles.track_energy_B
    return {
        AZIMUTH: azimuth.numpy(),
        ZENITH: zenith.numpy(),
        "energy": energy,
        "position_x": x,
        "position_y": y,
        "position_z": z,
        "vertex_time": particles.time_B,
        "topology": np.array(TOPOLOGIES)[particles.topology_B],
        "pid": pdg,
        "interaction_type": particles.interaction_B,
        "inelasticity": particles.inelasticity_B,
        "visible_energy": particles.visible_energy_B,
        "energy_track": track,
        "energy_cascade": np.where(is_neutrino, energy - track, 0.0),
        "track_length": particles.track_length_B,
        "muon_zenith": np.where(has_muon, muon_zenith.numpy(), np.nan),
        "muon_azimuth": np.where(has_muon, muon_azimuth.numpy(), np.nan),
        "light": light_B,
        "generation_weight": generation,
        "weight_atmospheric": atmospheric,
        "weight_astrophysical": generation * astrophysical_flux(energy, pdg),
        "scattering": particles.scattering_B,
        "absorption": particles.absorption_B,
        "dom_efficiency": particles.efficiency_B,
        "hole_ice": particles.side_B,
    }


def draw_noise(
    photoelectrons: Photoelectrons,
    num_events: int,
    rate: float,  # Hz, of a DOM of rde 1, or of a PMT where a DOM has several
    detector: SimulatedDetector,
    rng: np.random.Generator,
    jitter: float = 0.0,  # ns, of the pulses of a coincidence
) -> Photoelectrons:
    """Draw noise around the light of each event.

    It is uniform in time from the readout plus the longest trigger before the first
    photoelectron to the readout after the last, so that it fills any readout. A DOM's
    rate is proportional to its rde. DOMs of several PMTs have coincidences, too. Events
    without light get none.
    """
    first_B, last_B = np.full(num_events, np.inf), np.full(num_events, -np.inf)
    np.minimum.at(first_B, photoelectrons.event_E, photoelectrons.time_E)
    np.maximum.at(last_B, photoelectrons.event_E, photoelectrons.time_E)
    lit = np.flatnonzero(np.isfinite(first_B))
    (before, after), module = detector.readout, detector.module
    longest = module.trigger.window if module.pmts == 1 else module.trigger.extra
    begin = first_B[lit] - before - longest
    span = last_B[lit] + after - begin
    if module.pmts > 1:
        num_channels = len(detector) * module.pmts
        number = rng.poisson(rate * 1e-9 * num_channels * span)
        total = int(number.sum())
        time_E = np.repeat(begin, number) + rng.random(total) * np.repeat(span, number)
        channel_E = rng.integers(num_channels, size=total)
        more = draw_coincidences(lit, begin, span, detector, jitter, rng)
        event_E = np.concatenate([np.repeat(lit, number), more[0]])
        return Photoelectrons(
            event_E=event_E,
            channel_E=np.concatenate([channel_E, more[1]]),
            time_E=np.concatenate([time_E, more[2]]),
            weight_E=np.ones(len(event_E)),
        )
    share_S = np.cumsum(detector.rde_S)
    number = rng.poisson(rate * 1e-9 * share_S[-1] * span)
    total = int(number.sum())
    dom_E = np.searchsorted(share_S, rng.random(total) * share_S[-1], side="right")
    time_E = np.repeat(begin, number) + rng.random(total) * np.repeat(span, number)
    return Photoelectrons(
        event_E=np.repeat(lit, number),
        channel_E=np.minimum(dom_E, len(detector) - 1),
        time_E=time_E,
        weight_E=np.ones(total),
    )


def make_pulses(
    photoelectrons: Photoelectrons,
    detector: SimulatedDetector,
    merge_time: float,  # ns
    charge_spread: float,  # p.e., of the charge of one photoelectron
    rng: np.random.Generator,
) -> Pulses:
    """Merge photoelectrons into pulses, set their charges, find coincidences.

    Intervals of `merge_time` count from the first photoelectron of a PMT. The
    photoelectrons in one interval make one pulse at the time of the first. Its charge
    is normally distributed around their number, in steps of 0.025 p.e., at least one.
    """
    several = detector.module.pmts > 1
    num_channels = len(detector) * detector.module.pmts
    channel_E = photoelectrons.event_E * num_channels + photoelectrons.channel_E
    start = float(photoelectrons.time_E.min(initial=0.0))
    key_E = channel_E * _CLOCK + (photoelectrons.time_E - start)
    order = np.argsort(key_E)
    channel_E, time_E = channel_E[order], photoelectrons.time_E[order]
    new_channel = np.ones(len(order), bool)
    new_channel[1:] = channel_E[1:] != channel_E[:-1]
    begin = np.flatnonzero(new_channel)
    since = time_E - np.repeat(time_E[begin], np.diff(np.append(begin, len(order))))
    interval = (since / merge_time).astype(np.int64)
    new_pulse = new_channel.copy()
    new_pulse[1:] |= interval[1:] != interval[:-1]
    first = np.flatnonzero(new_pulse)
    count_T = np.zeros(0)
    if len(first):
        count_T = np.add.reduceat(photoelectrons.weight_E[order], first)
    spread = charge_spread * np.sqrt(count_T) * rng.standard_normal(len(first))
    steps = np.maximum(np.round((count_T + spread) / CHARGE_STEP), 1.0)
    channel_T, time_T = channel_E[first], time_E[first]
    last = np.append(first[1:], len(time_E)) - 1
    hlc_T = np.zeros(len(first), bool)
    if not several:
        hlc_T = find_coincidences(channel_T, time_T, steps * CHARGE_STEP, detector)
    return Pulses(
        event_T=channel_T // num_channels,
        channel_T=channel_T % num_channels,
        time_T=time_T,
        charge_T=steps * CHARGE_STEP,
        span_T=time_E[last] - time_T if len(first) else np.zeros(0),
        hlc_T=hlc_T,
    )


def find_coincidences(
    channel_T: Index, time_T: Array, charge_T: Array, detector: SimulatedDetector
) -> NDArray[np.bool_]:
    """Return which pulses have a neighbour, by the local-coincidence rule.

    A neighbour is a pulse on one of the next two DOMs below or above on the same
    string, within the module's window (1000 ns in IceCube). Channels are event *
    number of DOMs + DOM; pulses are sorted by channel and time.
    """
    least = detector.module.trigger.least_charge
    if least > 0:
        hlc_T = np.zeros(len(channel_T), bool)
        bright = np.flatnonzero(charge_T >= least)
        some = channel_T[bright], time_T[bright]
        hlc_T[bright] = _has_neighbour(*some, detector)
        return hlc_T
    return _has_neighbour(channel_T, time_T, detector)


def _has_neighbour(
    channel_T: Index, time_T: Array, detector: SimulatedDetector
) -> NDArray[np.bool_]:
    num_doms = len(detector)
    start = float(time_T.min(initial=0.0))
    key_T = channel_T * _CLOCK + (time_T - start)
    dom_T = channel_T % num_doms
    hlc_T, window = np.zeros(len(key_T), bool), detector.module.trigger.local_window
    for other_S in detector.neighbour_SN.T:
        asks = np.flatnonzero((other_S[dom_T] >= 0) & ~hlc_T)
        step = other_S[dom_T[asks]] - dom_T[asks]
        sought = key_T[asks] + step * _CLOCK
        place = np.searchsorted(key_T, sought - window)
        found = place < len(key_T)
        found[found] = key_T[place[found]] <= sought[found] + window
        hlc_T[asks[found]] = True
    return hlc_T


def find_triggers(
    pulses: Pulses, num_events: int, detector: SimulatedDetector
) -> tuple[Array, Array]:
    """Return when each event's trigger begins and ends, (B,) ns; NaN without trigger.

    It begins at the first DOM of the first fulfilled condition and ends at the last DOM
    of the last one.
    """
    begin_B, end_B = np.full(num_events, np.inf), np.full(num_events, -np.inf)
    hlc = pulses.take(pulses.hlc_T)
    channel = hlc.event_T * len(detector) + hlc.channel_T
    launches = hlc.take(np.unique(channel, return_index=True)[1])
    launches = launches.take(np.lexsort((launches.time_T, launches.event_T)))
    for trigger in (detector.module.trigger, DEEPCORE):
        counted = launches
        if trigger is DEEPCORE:
            counted = launches.take(detector.is_deepcore_S[launches.channel_T])
        last = trigger.modules - 1
        event, time = counted.event_T, counted.time_T
        if len(event) <= last:
            continue
        fulfilled = np.flatnonzero(
            (event[last:] == event[:-last])
            & (time[last:] - time[:-last] <= trigger.window)
        )
        np.minimum.at(begin_B, event[fulfilled], time[fulfilled])
        np.maximum.at(end_B, event[fulfilled], time[fulfilled + last])
    return (
        np.where(np.isfinite(begin_B), begin_B, np.nan),
        np.where(np.isfinite(end_B), end_B, np.nan),
    )
