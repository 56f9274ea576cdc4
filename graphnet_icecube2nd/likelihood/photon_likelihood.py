"""The likelihood of a simulated event: the simulation's own, in the form of the data.

Photoelectrons of a DOM are a Poisson process of the rate r(t) = light(t) + noise. A
pulse is the first of n photoelectrons in an interval, at t. The others come before the
interval ends, with an expected number R = integral of r(t). Only the charge q has
information on n. So

    log L = sum over pulses of log(r(t) sum over n of R**(n - 1) / (n - 1)! P(q | n))
            - sum over DOMs of light,

which includes both the arrival times and the DOMs without light.

A hypothesis on the event is a vector of numbers near 0, of about unit size at the scale
of a fit: steps from a seed in position, time and direction, and logarithms of energies.

Shape letters: K hypotheses, N numbers of one, S DOMs near light, G groups of the other
DOMs, T pulses, M those of them that may be several photoelectrons, X requested times, C
numbers of photoelectrons.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import (
    Arrival,
    Medium,
    cascade_arrival,
    muon_energy_after,
    muon_range,
    track_arrival,
)
from graphnet_icecube2nd.simulation.pandel import import_scipy, log_density
from graphnet_icecube2nd.simulation.particles import across
from graphnet_icecube2nd.simulation.rows import Array, Rows

NEAR, FAR = 100.0, 400.0  # m; larger values change the light by half a percent
LEAST_NOISE = 1.0  # Hz
COARSE_FAR = 200.0  # m
SURELY_ONE = 1.25  # p.e., up to which a pulse counts as one photoelectron
COARSE_PULSES = 3  # of each DOM
COARSE_JITTER = 15.0  # ns
_AT_ONCE = 2**15  # hypotheses x pulses, or x DOMs

# Size of one unit of a number.
STEP_PLACE = 5.0  # m
STEP_TIME = 10.0  # ns
STEP_DIRECTION = 0.05  # rad
STEP_ENERGY = 0.1  # decades
STEP_LENGTH = 5.0  # m

BEFORE = 1500.0  # m, maximum distance from the start of a track to its place
_ENERGIES = (0.0, 8.0)  # decades of GeV in a fit

# The numbers of each topology. `across` is a place in the plane perpendicular to the
# flight, where a muon has its energy; its track starts `back` before.
_TRACK = ("across", "time", "direction", "muon", "back", "cascade")
NUMBERS = {
    "through_going_track": _TRACK,
    "starting_track": _TRACK,
    "cascade": ("place", "time", "direction", "cascade"),
    "double_cascade": ("place", "time", "direction", "cascade", "second", "flown"),
    "muon_bundle": ("across", "time", "direction", "muon", "muons"),
}
_SIZES = {"across": 2, "place": 3, "direction": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Seed(Rows):
    """Starting points of K fits."""

    place: Array  # (K, 3) a point of the track, or the vertex, m
    time: Array  # (K,) time of the particle at the place, ns
    direction: Array  # (K, 3) flight, unit vector
    muon: Array  # (K,) energy of a muon at the place, GeV
    back: Array  # (K,) m from the start of the track to the place
    cascade: Array  # (K,) energy of the cascade, GeV
    second: Array  # (K,) energy of the second cascade, GeV
    flown: Array  # (K,) m between the cascades
    muons: Array  # (K,) number of muons

    @classmethod
    def of(cls, place: Array, time: float, direction: Array, **sizes: float) -> Seed:
        """Return one seed (K = 1), with defaults for the sizes that are not given."""
        usual = {"muon": 1e3, "back": BEFORE, "cascade": 1e3, "second": 1e3}
        every = {**usual, "flown": 10.0, "muons": 1.0, "time": time, **sizes}
        return cls(
            place=np.array([place], dtype=np.float64),
            direction=np.array([direction], dtype=np.float64),
            **{name: np.array([float(size)]) for name, size in every.items()},
        )


def number_names(topology: str) -> list[str]:
    """Return the names of the N numbers of a topology."""
    return [name for name in NUMBERS[topology] for _ in range(_SIZES.get(name, 1))]


def displaced_seeds(topology: str, seed: Seed, numbers_KN: Array) -> Seed:
    """Return the K seeds of vectors of numbers around one seed or K seeds.

    If all numbers are 0, it is the given seed.
    """
    names = np.array(number_names(topology))
    columns = {name: numbers_KN[:, names == name] for name in NUMBERS[topology]}
    a, b = across(seed.direction)
    turn = STEP_DIRECTION * columns["direction"]
    direction = seed.direction + turn[:, :1] * a + turn[:, 1:] * b
    if "place" in columns:
        place = seed.place + STEP_PLACE * columns["place"]
    else:
        step = STEP_PLACE * columns["across"]
        place = seed.place + step[:, :1] * a + step[:, 1:] * b
    sizes = {}
    for name in ("muon", "back", "cascade", "second", "flown", "muons"):
        size = np.broadcast_to(getattr(seed, name), len(numbers_KN))
        if name in columns:
            step = columns[name][:, 0]
            if name == "flown":
                size = np.abs(size + STEP_LENGTH * step)
            elif name == "back":
                size = np.clip(size + STEP_LENGTH * step, -BEFORE, BEFORE)
            else:
                decades = np.log10(size) + STEP_ENERGY * step
                size = 10.0 ** np.clip(decades, *_ENERGIES)
        sizes[name] = size
    return Seed(
        place=place,
        time=seed.time + STEP_TIME * columns["time"][:, 0],
        direction=direction / np.linalg.norm(direction, axis=1, keepdims=True),
        **sizes,
    )


def arrivals(
    topology: str, seeds: Seed, dom_S3: Array, medium: Medium
) -> list[Arrival]:
    """Return the light of each source of K seeds at DOMs [m], (K, S) each."""
    names = NUMBERS[topology]
    seeds = seeds.take((slice(None), None))  # (K, 1): the same for every DOM
    place, time, direction = seeds.place, seeds.time, seeds.direction
    found = []
    if "muon" in names:
        place = place - seeds.back[..., None] * direction
        time = time - seeds.back / SPEED_OF_LIGHT
        energy = np.maximum(
            muon_energy_after(seeds.muon, -medium.stopping * seeds.back), 0.1
        )
        found.append(
            track_arrival(
                start=place,
                direction=direction,
                time=time,
                length=muon_range(energy) / medium.stopping,
                energy=energy,
                muons=seeds.muons,
                dom=dom_S3,
                medium=medium,
            )
        )
    for name, along in (("cascade", np.zeros(())), ("second", seeds.flown)):
        if name in names:
            found.append(
                cascade_arrival(
                    position=place + along[..., None] * direction,
                    direction=direction,
                    time=time + along / SPEED_OF_LIGHT,
                    energy=getattr(seeds, name),
                    dom=dom_S3,
                    medium=medium,
                )
            )
    return found


class EventLikelihood:
    """The likelihood of one event, with the detector and noise of its simulation."""

    def __init__(
        self,
        pulses: EventPulses,
        detector: SimulatedDetector,
        config: SimulationConfig,
        *,
        near: float = NEAR,  # m around HLC pulses, where DOMs are computed one by one
        far: float = FAR,  # m, beyond which DOMs without pulses are left out
    ) -> None:
        if len(pulses.event_id) != 1:
            raise ValueError(f"one event is needed, got {len(pulses.event_id)}")
        if len(pulses.dom_T) and pulses.dom_T.min() < 0:
            raise ValueError(
                f"event {pulses.event_id[0]}: the likelihood needs the DOM (sensor_id) "
                "of every pulse"
            )
        self.pulses, self.detector, self.config = pulses, detector, config
        lit = pulses.hlc_T if pulses.hlc_T.any() else np.ones(len(pulses.dom_T), bool)
        anchor = detector.position_S3[np.unique(pulses.dom_T[lit])]
        groups = detector.groups
        tree = import_scipy("spatial").cKDTree(anchor)
        away_G = tree.query(groups.centre_G3)[0]
        is_near_G = away_G < near
        doms = groups.dom_GK[is_near_G].ravel()
        self.dom_S = np.unique(np.concatenate([doms, pulses.dom_T]))
        is_far_G = ~is_near_G & (away_G < far)
        # A DOM with pulses is computed alone, and not again with its group.
        lonely = ~np.isin(groups.dom_GK[is_far_G], self.dom_S)
        lonely &= np.arange(groups.dom_GK.shape[1]) < groups.size_G[is_far_G, None]
        rde_GK = np.where(lonely, detector.efficiency_S[groups.dom_GK[is_far_G]], 0.0)
        self._rde_G = rde_GK.sum(axis=1)
        self._place_G3 = groups.centre_G3[is_far_G]
        self._place_S3 = detector.position_S3[self.dom_S]
        self._rde_S = detector.rde_S[self.dom_S]
        self._light_S = detector.efficiency_S[self.dom_S]
        row_T = np.searchsorted(self.dom_S, pulses.dom_T)
        rest_T = _rest_of_interval(pulses.time_T, row_T, config.merge_time)
        several = np.flatnonzero(pulses.charge_T > SURELY_ONE)
        self._rest_M = np.maximum(rest_T[several], 1e-3)
        middle_M = pulses.time_T[several] + 0.5 * self._rest_M
        self._time_X = np.concatenate([pulses.time_T, middle_M])
        self._row_X = np.concatenate([row_T, row_T[several]])
        # Without noise a pulse that no light explains would be impossible.
        noise_rate = max(config.noise_rate, LEAST_NOISE)
        self._noise_X = noise_rate * 1e-9 * self._rde_S[self._row_X]
        charge_M = pulses.charge_T[several]
        self._more_MC, self._chance_MC = _numbers(charge_M, config.charge_spread)

    def coarse(self) -> EventLikelihood:
        """Return a much faster likelihood, good enough for a search.

        It uses the first HLC pulses of each DOM, groups of nearby DOMs without pulses,
        and blurred times.
        """
        pulses = self.pulses
        keep_T = pulses.hlc_T if pulses.hlc_T.any() else np.ones_like(pulses.hlc_T)
        pulses = pulses.keep(keep_T)
        order = np.lexsort((pulses.time_T, pulses.dom_T))
        dom_T = pulses.dom_T[order]
        place = np.arange(len(dom_T)) - np.searchsorted(dom_T, dom_T)
        keep_T = np.zeros(len(dom_T), bool)
        keep_T[order[place < COARSE_PULSES]] = True
        return EventLikelihood(
            pulses.keep(keep_T),
            self.detector,
            replace(self.config, time_jitter=COARSE_JITTER),
            near=0.0,
            far=COARSE_FAR,
        )

    def blurred(self, jitter: float) -> EventLikelihood:
        """Return it with another time jitter [ns]; a larger one makes it smoother."""
        other = copy(self)
        other.config = replace(self.config, time_jitter=jitter)
        return other

    def of_seeds(self, topology: str, seeds: Seed) -> Array:
        """Return log L of seeds, (K,), see `of`."""
        numbers_KN = np.zeros((len(seeds), len(number_names(topology))))
        return self.of(topology, seeds, numbers_KN)

    def of(self, topology: str, seed: Seed, numbers_KN: Array) -> Array:
        """Return log L (K,) of numbers around one common seed, or K seeds.

        Terms that are the same for all hypotheses are left out.
        """
        rows = max(1, _AT_ONCE // max(len(self._row_X), len(self.dom_S)))
        values = []
        for first in range(0, len(numbers_KN), rows):
            some = slice(first, first + rows)
            near = seed if len(seed) == 1 else seed.take(some)
            values.append(
                self._of(topology, displaced_seeds(topology, near, numbers_KN[some]))
            )
        return np.concatenate(values)

    def _of(self, topology: str, seeds: Seed) -> Array:
        medium, row_X = self.detector.medium, self._row_X
        light_K = np.zeros(len(seeds))
        rate_KX = np.broadcast_to(self._noise_X, (len(seeds), len(row_X))).copy()
        for arrival in arrivals(topology, seeds, self._place_S3, medium):
            mean_KS = arrival.mean * self._light_S
            light_K += mean_KS.sum(axis=1)
            rate_KX += mean_KS[:, row_X] * self._times(arrival)
        for arrival in arrivals(topology, seeds, self._place_G3, medium):
            light_K += arrival.mean @ self._rde_G
        log_KX = np.log(rate_KX)
        num = len(self.pulses.time_T)
        rest_KM1 = (log_KX[:, num:] + np.log(self._rest_M))[..., None]
        several_KMC = self._chance_MC + self._more_MC * rest_KM1
        largest_KM = several_KMC.max(axis=-1)
        several_KMC -= largest_KM[..., None]
        several_KM = largest_KM + np.log(np.exp(several_KMC).sum(axis=-1))
        return log_KX[:, :num].sum(axis=1) + several_KM.sum(axis=1) - light_K

    def _times(self, arrival: Arrival) -> Array:
        """Return the density of the light at each time, (K, X) 1/ns."""
        row_X, jitter = self._row_X, self.config.time_jitter
        delay_KX = self._time_X - arrival.time[:, row_X]
        rate_KX = np.broadcast_to(arrival.rate, arrival.time.shape)[:, row_X]
        # Far outside there is only noise, and the formula is not needed.
        asked = (delay_KX > -12 * jitter) & (delay_KX < 8000.0)
        density_KX = np.zeros(delay_KX.shape)
        shape_KX = arrival.shape[:, row_X]
        density_KX[asked] = np.exp(
            log_density(delay_KX[asked], shape_KX[asked], rate_KX[asked], jitter)
        )
        return density_KX


def _rest_of_interval(
    time_T: Array, row_T: NDArray[np.int64], merge_time: float
) -> Array:
    """Return the time from each pulse to the end of its interval, (T,) ns.

    Intervals count from the first pulse of the DOM.
    """
    begin_S = np.full(int(row_T.max(initial=0)) + 1, np.inf)
    np.minimum.at(begin_S, row_T, time_T)
    # A hundredth of a nanosecond, because times have single precision.
    interval = np.floor((time_T - begin_S[row_T] + 0.01) / merge_time)
    return begin_S[row_T] + (interval + 1.0) * merge_time - time_T


def _numbers(charge_M: Array, spread: float) -> tuple[Array, Array]:
    """Return possible numbers of photoelectrons after the first, by charge, (M, C).

    The second value is the logarithm (M, C) of P(charge | number) / number!.
    """
    near = np.maximum(np.rint(charge_M), 1.0)[:, None]
    number_MC = np.maximum(near + np.arange(-2.0, 3.0), 1.0)
    repeated = np.zeros(number_MC.shape, bool)
    repeated[:, 1:] = number_MC[:, 1:] == number_MC[:, :-1]
    width_MC = max(spread, 0.02) * np.sqrt(number_MC)
    chance_MC = -0.5 * ((charge_M[:, None] - number_MC) / width_MC) ** 2
    chance_MC -= np.log(width_MC)
    more_MC = number_MC - 1.0
    chance_MC -= import_scipy("special").gammaln(number_MC)
    return more_MC, np.where(repeated, -np.inf, chance_MC)
