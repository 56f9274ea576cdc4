"""Light of particles at the DOMs, as photoelectrons with times.

Shape letters: B events, S DOMs, C cascades of an event, G groups of DOMs, R levels of
their reach, P pairs of event and DOM or group, E photoelectrons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.detector import DomGroups, SimulatedDetector
from graphnet_icecube2nd.simulation.light import (
    CASCADE_LENGTH,
    EFFECTIVE_AREA,
    NOMINAL,
    Arrival,
    Optics,
    cascade_arrival,
    muon_light,
    track_arrival,
)
from graphnet_icecube2nd.simulation.modules import brightest_side, draw_channels
from graphnet_icecube2nd.simulation.pandel import draw_delays
from graphnet_icecube2nd.simulation.particles import Particles
from graphnet_icecube2nd.simulation.rows import Array, Index, Rows

LEAST_LIGHT = 5e-3  # p.e.: DOMs with less are left out; 0.4% of all light
FAINTEST = 4.0  # p.e. in the whole detector, roughly; less never triggers
LEAST_SHOWER = 0.5  # GeV; dimmer showers along tracks are left out
ENERGY_STEP = 20.0  # m, in which the energy of a muon is constant
FARTHEST = 600.0  # m outside the detector, beyond which a cascade is not seen
NEAREST = np.float32(20.0)  # m, within which every DOM is included
LARGEST_SAMPLE = 1000  # photoelectrons per source and DOM; more share this sample
TILE_EVENTS = 48  # events computed together, so that intermediates fit into the cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Photoelectrons(Rows):
    """Photoelectrons of many events, unsorted."""

    event_E: Index
    channel_E: Index  # DOM * PMTs of a DOM + PMT
    time_E: Array  # ns, on the clock of the particles
    weight_E: Array  # number that each represents; 1 except in very bright DOMs


@dataclass(frozen=True, kw_only=True, eq=False)
class Light(Arrival):
    """Light (P,) of sources at the DOMs that may see it, with the DOM's efficiency."""

    event_P: Index
    dom_P: Index


def light_at_doms(particles: Particles, detector: SimulatedDetector) -> list[Light]:
    """Return the light of the tracks, and of all cascades and showers.

    Events with almost no light, which never trigger, are left out.
    """
    found = []
    for first in range(0, len(particles), TILE_EVENTS):
        tile = particles.take(slice(first, first + TILE_EVENTS))
        sources = _sources(tile, detector)
        bright_B = np.zeros(len(tile))
        for source in sources:
            np.add.at(bright_B, source.index_B[source.event_P], source.light_P)
        for source in sources:
            found.append(_at_doms(source, bright_B >= FAINTEST, first, detector))
    return found


def draw_photoelectrons(
    light: Light,
    jitter: float,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> Photoelectrons:
    """Draw photoelectrons of a light: Poisson numbers, Pandel's delays, jitter [ns].

    Where a DOM has several PMTs, the direction of the light decides which of them sees
    a photoelectron.
    """
    several = detector.module.pmts > 1
    mean_P = light.mean * brightest_side(detector) if several else light.mean
    number_P = rng.poisson(mean_P)
    pair = np.flatnonzero(number_P)
    drawn_P = np.minimum(number_P[pair], LARGEST_SAMPLE)
    weight_P = number_P[pair] / drawn_P
    pair_E = np.repeat(pair, drawn_P)
    weight_E, channel_E = np.repeat(weight_P, drawn_P), light.dom_P[pair_E]
    if several:
        channel_E = draw_channels(channel_E, light.flight[pair_E], detector, rng)
        seen = channel_E >= 0
        pair_E, weight_E, channel_E = pair_E[seen], weight_E[seen], channel_E[seen]
    delay_E = draw_delays(rng, light.shape[pair_E], light.rate[pair_E], jitter)
    return Photoelectrons(
        event_E=light.event_P[pair_E],
        channel_E=channel_E,
        time_E=light.time[pair_E] + delay_E,
        weight_E=weight_E,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    """One source of light of some events, at the groups of DOMs that may see it."""

    arrive: Callable[..., Arrival]  # light of events (P,) at places (P, 3)
    index_B: Index  # the events' indices in the tile
    begins_B: Array  # ns; times of `arrive` count from here
    event_P: Index  # pairs of event and group
    group_P: Index
    light_P: Array  # approximate photoelectrons of a group


def _sources(particles: Particles, detector: SimulatedDetector) -> list[_Source]:
    made = []
    has_track = np.flatnonzero(particles.muons_B > 0)
    if len(has_track):
        made.append(_tracks(particles, has_track, detector))
    showers = _showers(particles, detector)
    if len(showers):
        made.append(_cascades(particles, showers, detector))
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class _Showers(Rows):
    """Cascades, and showers along tracks, of all events."""

    event_P: Index
    along_P: Array  # m, from the vertex
    direction_P3: Array
    energy_P: Array  # GeV, electromagnetic


def _showers(particles: Particles, detector: SimulatedDetector) -> _Showers:
    """Return the showers that can be seen."""
    cascades = np.nonzero(particles.cascade_energy_BC > 0)
    losses = np.nonzero(particles.shower_energy_BL > LEAST_SHOWER)
    showers = _Showers.join(
        [
            _Showers(
                event_P=cascades[0],
                along_P=particles.cascade_distance_BC[cascades],
                direction_P3=particles.cascade_direction_BC3[cascades],
                energy_P=particles.cascade_energy_BC[cascades],
            ),
            _Showers(
                event_P=losses[0],
                along_P=particles.shower_distance_BL[losses],
                direction_P3=particles.track_direction_B3[losses[0]],
                energy_P=particles.shower_energy_BL[losses],
            ),
        ]
    )
    away_P3 = _place(particles, showers) - detector.volume.centre
    away_P = np.sqrt(np.sum(away_P3**2, axis=1))
    return showers.take(away_P < detector.volume.reach + FARTHEST)


def _place(particles: Particles, showers: _Showers) -> Array:
    """Return where showers start, (P, 3) m."""
    vertex_P3 = particles.vertex_B3[showers.event_P]
    place: Array = vertex_P3 + showers.along_P[:, None] * showers.direction_P3
    return place


def _tracks(particles: Particles, index: Index, detector: SimulatedDetector) -> _Source:
    tracks = particles.take(index)
    # Start near the detector, where single precision is sufficient.
    direction, skipped = tracks.track_direction_B3, tracks.near_B
    energy = tracks.near_energy_B
    arguments = {
        "start": _single(tracks.vertex_B3 + skipped[:, None] * direction),
        "direction": _single(direction),
        "length": _single(tracks.track_length_B - skipped),
        "energy": _single(energy),
        "muons": _single(tracks.muons_B),
        "radiative": _single(tracks.even_loss_B),
    }
    # The energy in steps along the track, which is constant where there is no track.
    longest = min(
        float(arguments["length"].max()), 2 * (detector.volume.reach + FARTHEST)
    )
    steps = int(longest / ENERGY_STEP) + 2
    place_BN = skipped[:, None] + ENERGY_STEP * (np.arange(steps) + 0.5)
    energies = _single(tracks.track_energy_at(place_BN)).ravel()

    def energy_after(event_P: Index, flown_P: Array) -> Array:
        step_P = (flown_P * np.float32(1 / ENERGY_STEP)).astype(np.int64)
        result: Array = energies.take(np.minimum(step_P, steps - 1) + event_P * steps)
        return result

    groups = detector.groups
    start_B3, direction_B3 = arguments["start"], arguments["direction"]
    along_BG = direction_B3 @ _single(groups.centre_G3).T
    along_BG -= np.sum(direction_B3 * start_B3, axis=1)[:, None]
    nearest_BG = np.maximum(along_BG, np.float32(0))
    nearest_BG = np.minimum(nearest_BG, arguments["length"][:, None])
    square_BG = _square(start_B3, groups)
    along_BG *= np.float32(2)
    np.subtract(nearest_BG, along_BG, out=along_BG)
    along_BG *= nearest_BG
    square_BG += along_BG
    # Light beside a line, see `light.line_light`; lengths in units of `reach`.
    medium = detector.medium
    bright = tracks.muons_B * muon_light(energy, tracks.even_loss_B)
    bright = bright * medium.light_per_metre
    reach_R = np.log(groups.reach_R)
    if medium.is_clear:
        bright = np.log(bright / (2 * np.pi * medium.sine))
        limit_BR = _farthest(bright, reach_R, power=1.0)
    else:
        limit_BR = _farthest(np.log(bright / 1.7), reach_R, power=0.5)
    return _source(
        track_arrival,
        arguments,
        _optics(particles, index),
        index,
        tracks.time_B + skipped / SPEED_OF_LIGHT,
        square_BG,
        limit_BR,
        detector,
        energy_after,
    )


def _cascades(
    particles: Particles, showers: _Showers, detector: SimulatedDetector
) -> _Source:
    events = showers.event_P
    arguments = {
        "position": _single(_place(particles, showers)),
        "direction": _single(showers.direction_P3),
        "energy": _single(showers.energy_P),
    }
    groups = detector.groups
    square_BG = _square(arguments["position"], groups)
    # Light around a point, see `light.point_light`.
    medium, reach_R = detector.medium, 2.0 * np.log(groups.reach_R)
    bright = medium.light_per_metre * CASCADE_LENGTH * showers.energy_P
    if medium.is_clear:
        most = float(medium.profile(np.array(medium.cosine))) / medium.profile_mean
        limit_BR = _farthest(np.log(bright * most / (4 * np.pi)), reach_R, power=2.0)
    else:
        limit_BR = _farthest(np.log(bright / 3.8), reach_R, power=1.0)
    return _source(
        cascade_arrival,
        arguments,
        _optics(particles, events),
        events,
        particles.time_B[events] + showers.along_P / SPEED_OF_LIGHT,
        square_BG,
        limit_BR,
        detector,
    )


def _source(
    function: Callable[..., Arrival],
    arguments: dict[str, Array],  # of the function: (B, ...) in single precision
    optics: Optics,  # (B,)
    index_B: Index,
    begins_B: Array,
    square_BG: Array,  # squared distances of the groups' centres, m2
    limit_BR: Array,  # largest distance of a group with light, in its `reach`
    detector: SimulatedDetector,
    energy_after: Callable[[Index, Array], Array] | None = None,
) -> _Source:
    """Find the groups of DOMs that see light."""

    def arrive(event_P: Index, place_P3: Array, with_flight: bool = False) -> Arrival:
        changes: dict[str, Any] = {}
        if optics is not NOMINAL:
            changes["optics"] = optics.take(event_P)
        if energy_after is not None:
            changes["energy_after"] = partial(energy_after, event_P)
        return function(
            **{name: np.take(a, event_P, axis=0) for name, a in arguments.items()},
            time=np.zeros(len(event_P), np.float32),
            dom=place_P3,
            medium=detector.medium,
            with_flight=with_flight,
            **changes,
        )

    groups = detector.groups
    # Light that fades over a longer distance reaches farther.
    if optics is not NOMINAL:
        is_clear = detector.medium.is_clear
        other = optics.absorption if is_clear else optics.scattering
        longer_B = np.sqrt(np.maximum(other * optics.absorption, 1.0))
        limit_BR *= longer_B[:, None]
    limit_BR *= _single(groups.reach_R)
    np.maximum(limit_BR, NEAREST, out=limit_BR)
    limit_BG = limit_BR.take(groups.level_G, axis=1)
    limit_BG += _single(groups.radius_G)
    limit_BG *= limit_BG
    near = np.flatnonzero(square_BG < limit_BG)
    event, group = np.divmod(near, len(groups.size_G))
    mean_P = arrive(event, np.take(_single(groups.centre_G3), group, axis=0)).mean
    away_P = np.sqrt(np.maximum(square_BG.ravel()[near], 0))
    brighter_P = _single(groups.fading_G)[group]
    brighter_P += _single(groups.clearing_G)[group] * away_P
    sees = mean_P * np.exp(np.minimum(brighter_P, np.float32(50))) > LEAST_LIGHT
    event, group, mean_P = event[sees], group[sees], mean_P[sees]
    return _Source(
        arrive=arrive,
        index_B=index_B,
        begins_B=begins_B,
        event_P=event,
        group_P=group,
        light_P=mean_P * groups.size_G[group] * (detector.module.area / EFFECTIVE_AREA),
    )


def _optics(particles: Particles, index: Index) -> Optics:
    """Return the optics of some events; NOMINAL, which costs nothing, if it is that."""
    optics = Optics(
        scattering=_single(particles.scattering_B[index]),
        absorption=_single(particles.absorption_B[index]),
        efficiency=_single(particles.efficiency_B[index]),
        side=_single(particles.side_B[index]),
    )
    is_nominal = all(
        np.all(getattr(optics, f.name) == np.float32(getattr(NOMINAL, f.name)))
        for f in fields(Optics)
    )
    return NOMINAL if is_nominal else optics


def _at_doms(
    source: _Source,
    is_bright_B: NDArray[np.bool_],
    first: int,
    detector: SimulatedDetector,
) -> Light:
    """Return the light at single DOMs, for bright events."""
    bright = is_bright_B[source.index_B[source.event_P]]
    event, group = source.event_P[bright], source.group_P[bright]
    size = detector.groups.size_G[group]
    event, group = np.repeat(event, size), np.repeat(group, size)
    place = np.arange(len(event)) - np.repeat(np.cumsum(size) - size, size)
    dom = detector.groups.dom_GK[group, place]
    arrival = source.arrive(
        event,
        np.take(_single(detector.position_S3), dom, axis=0),
        with_flight=detector.module.pmts > 1,
    )
    return Light(
        event_P=source.index_B[event] + first,
        dom_P=dom,
        mean=arrival.mean * detector.efficiency_S[dom],
        time=arrival.time + source.begins_B[event],
        shape=arrival.shape,
        rate=arrival.rate,
        flight=arrival.flight,
    )


def _farthest(bright_B: Array, fading_R: Array, power: float) -> Array:
    """Return u, or slightly more, where light has fallen to LEAST_LIGHT; (B, R).

    It solves u + power * ln(u) = bright - fading - ln(LEAST_LIGHT). `bright` and
    `fading` are logarithms of the light and of its divisor; light spreads with u to
    the power `power`.
    """
    bright_B = bright_B - np.log(LEAST_LIGHT)
    wanted = np.subtract.outer(_single(bright_B), _single(fading_R))
    np.maximum(wanted, np.float32(1.1), out=wanted)
    below = np.maximum(wanted - power * np.log(wanted), np.float32(0.5))
    return wanted - power * np.log(below)


def _square(from_B3: Array, groups: DomGroups) -> Array:
    """Return squared distances of the groups' centres, (B, G) m2."""
    to_G3 = _single(groups.centre_G3)
    square_BG: Array = from_B3 @ (np.float32(-2) * to_G3.T)
    square_BG += np.sum(from_B3**2, axis=1)[:, None]
    square_BG += np.sum(to_G3**2, axis=1)
    return square_BG


def _single(values: NDArray[Any]) -> Array:
    return values.astype(np.float32)
