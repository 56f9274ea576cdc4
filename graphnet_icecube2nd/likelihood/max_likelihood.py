"""The maximum of an event's likelihood, and its curvature.

Directions over the whole sphere are tried and the best are refined. The best of these
is the answer; its curvature gives the error. Searches run side by side, with one call
of the likelihood for all. They use the quasi-Newton method of Broyden, Fletcher,
Goldfarb and Shanno and try three step lengths at once. Shape letters: K searches or
hypotheses, N numbers of one, M points of one search, T pulses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.line_fit import for_line_fit, line_fit
from graphnet_icecube2nd.likelihood.photon_likelihood import (
    BEFORE,
    STEP_DIRECTION,
    EventLikelihood,
    Seed,
    displaced_seeds,
    number_names,
)
from graphnet_icecube2nd.simulation.light import Medium
from graphnet_icecube2nd.simulation.pandel import import_scipy
from graphnet_icecube2nd.simulation.rows import Array

DIRECTIONS = 96  # tried over the whole sphere
SEARCHED = 32  # seeds refined with the coarse likelihood,
REFINED = 4  # and of these with the full one
PERTURBED_ROUNDS, PERTURBED_SEEDS = 1, 12  # seeds per round
BLURRED_JITTER = 7.0  # ns
BRIGHTEST, VERTICES = 10, 2  # DOMs tried as cascade positions; points that are kept

_DIFFERENCE = 1e-3  # of a scaled number, for slopes
_LENGTHS = np.array([1.0, 0.3, 0.05])  # of a step
_LONGEST = 4.0  # step, in scaled numbers
_SMALLEST_GAIN = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Maximum:
    """The maximum of the likelihood of an event."""

    seed: Seed  # the particles at the maximum
    log_likelihood: float
    # (2, 2) of the direction in the plane perpendicular to it, rad2, with all other
    # numbers free. A flat number counts as a hundred steps wide.
    covariance_22: Array
    # The corresponding concentration: 2 / trace. NaN if the likelihood is not finite
    # in the neighbourhood.
    kappa: float

    @property
    def direction(self) -> Array:
        """Unit vector to the origin, (3,)."""
        return -self.seed.direction[0]


def find_maximum(
    likelihood: EventLikelihood,
    topology: str,
    *,
    directions: int = DIRECTIONS,  # 0: only the further seeds
    searched: int = SEARCHED,
    refined: int = REFINED,
    perturbed: int = PERTURBED_ROUNDS,
    further_seeds: tuple[Seed, ...] = (),
) -> Maximum:
    """Find the maximum likelihood of an event with a given topology."""
    # A pulse that is slightly too early makes the likelihood fall steeply, so the first
    # search uses a smoother likelihood.
    blurred = likelihood.blurred(BLURRED_JITTER)
    seeds = [*further_seeds]
    if directions:
        coarse = likelihood.coarse()
        begin = _seeds(coarse, topology, directions).take(slice(searched))
        _, found = batched_bfgs(coarse, topology, begin, steps=25)
        value_K = blurred.of_seeds(topology, found)
        seeds.insert(0, found.take(np.argsort(-value_K)[:refined]))
    _, near = batched_bfgs(blurred, topology, Seed.join(seeds), steps=30)
    value_K, there = batched_bfgs(likelihood, topology, near, steps=20)
    best = there.take([value_K.argmax()])
    for turn in range(perturbed):
        # Random seeds around the best: metres to tens of metres, degrees, decades.
        spread_K1 = np.geomspace(1.0, 6.0, PERTURBED_SEEDS)[:, None]
        size = (PERTURBED_SEEDS, len(number_names(topology)))
        drawn_KN = spread_K1 * np.random.default_rng(turn).standard_normal(size)
        _, near = batched_bfgs(
            blurred, topology, displaced_seeds(topology, best, drawn_KN), steps=15
        )
        near = Seed.join([best, near])
        value_K, there = batched_bfgs(likelihood, topology, near, steps=15)
        best = there.take([value_K.argmax()])
    value, best = _polish(likelihood, topology, best)
    covariance_22 = _covariance(likelihood, topology, best)
    trace = float(np.trace(covariance_22))
    return Maximum(
        seed=best,
        log_likelihood=value,
        covariance_22=covariance_22,
        kappa=2.0 / trace if trace > 0 else float("nan"),
    )


def batched_bfgs(
    likelihood: EventLikelihood, topology: str, seeds: Seed, steps: int
) -> tuple[Array, Seed]:
    """Maximise from each of K seeds, with a maximum number of steps.

    Returns the likelihoods reached, (K,), and the seeds there.
    """
    num = len(number_names(topology))
    scale_KN, best_K = _scale(likelihood, topology, seeds)
    at_KN = np.zeros((len(seeds), num))
    inverse_KNN = np.tile(np.eye(num), (len(seeds), 1, 1))
    ahead_MN = np.concatenate([np.zeros((1, num)), _DIFFERENCE * np.eye(num)])

    def values(at_KMN: Array, which: NDArray[np.int64]) -> Array:
        """Return log L (K, M) at points of some of the searches."""
        numbers_KMN = scale_KN[which, None] * at_KMN
        return _values(likelihood, topology, seeds.take(which), numbers_KMN)

    def slopes(which: NDArray[np.int64]) -> Array:
        value_KM = values(at_KN[which, None] + ahead_MN, which)
        return (value_KM[:, 1:] - value_KM[:, :1]) / _DIFFERENCE

    going = np.arange(len(seeds))
    slope_KN = slopes(going)
    for _ in range(steps):
        step = np.einsum("kij,kj->ki", inverse_KNN[going], slope_KN[going])
        uphill = np.sum(step * slope_KN[going], axis=1) > 0
        step = np.where(uphill[:, None], step, slope_KN[going])
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12))
        tried = at_KN[going, None] + _LENGTHS[:, None] * step[:, None]
        value_KM = values(tried, going)
        choice = value_KM.argmax(axis=1)
        row = np.arange(len(going))
        gain = value_KM[row, choice] - best_K[going]
        moved = gain > _SMALLEST_GAIN
        going, choice, row = going[moved], choice[moved], row[moved]
        if not len(going):
            break
        new_KN = tried[row, choice]
        went = new_KN - at_KN[going]
        at_KN[going], best_K[going] = new_KN, value_KM[row, choice]
        slope = slopes(going)
        bend = slope_KN[going] - slope
        slope_KN[going] = slope
        inverse_KNN[going] = _updated(inverse_KNN[going], went, bend)
    return best_K, displaced_seeds(topology, seeds, scale_KN * at_KN)


def _values(
    likelihood: EventLikelihood, topology: str, seeds: Seed, numbers_KMN: Array
) -> Array:
    """Return log L (K, M) at M points around each of K seeds."""
    num_seeds, num_points, num = numbers_KMN.shape
    some = seeds.take(np.repeat(np.arange(num_seeds), num_points))
    flat = likelihood.of(topology, some, numbers_KMN.reshape(-1, num))
    return flat.reshape(num_seeds, num_points)


def _scale(
    likelihood: EventLikelihood, topology: str, seeds: Seed
) -> tuple[Array, Array]:
    """Return the step of each number that changes log L by about one half, (K, N).

    The second value is log L of the seeds, (K,).
    """
    num = len(number_names(topology))
    step = 0.2 * np.eye(num)
    points_MN = np.concatenate([np.zeros((1, num)), step, -step])
    numbers_KMN = np.tile(points_MN, (len(seeds), 1, 1))
    value_KM = _values(likelihood, topology, seeds, numbers_KMN)
    bend_KN = 2 * value_KM[:, :1] - value_KM[:, 1 : num + 1] - value_KM[:, num + 1 :]
    size: Array = 1.0 / np.sqrt(np.clip(bend_KN / 0.2**2, 0.04, 100.0))
    return size, value_KM[:, 0]


def _updated(inverse_KNN: Array, went_KN: Array, bend_KN: Array) -> Array:
    """Return the inverse curvatures, updated after steps with positive curvature."""
    product_K = np.sum(went_KN * bend_KN, axis=1)
    good_K = product_K > 1e-9
    rho_K = np.where(good_K, 1.0 / np.where(good_K, product_K, 1.0), 0.0)[:, None, None]
    eye = np.eye(went_KN.shape[1])
    left = eye - rho_K * went_KN[:, :, None] * bend_KN[:, None]
    updated = left @ inverse_KNN @ left.transpose(0, 2, 1)
    updated += rho_K * went_KN[:, :, None] * went_KN[:, None]
    return np.where(good_K[:, None, None], updated, inverse_KNN)


def sphere(num: int) -> Array:
    """Return evenly distributed unit vectors, a Fibonacci spiral, (num, 3)."""
    turn = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(num)
    z = 1.0 - (2.0 * np.arange(num) + 1.0) / num
    across = np.sqrt(1.0 - z**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1)


def _seeds(coarse: EventLikelihood, topology: str, directions: int) -> Seed:
    """Return a seed for each direction, in order of falling likelihood."""
    pulses = for_line_fit(coarse.pulses)
    flight, _ = line_fit(pulses.position_T3, pulses.time_T, pulses.offsets)
    tried = sphere(directions)
    if np.isfinite(flight).all():
        tried = np.concatenate([flight, tried])
    weight = np.maximum(pulses.charge_T, 0.1)
    centre = np.average(pulses.position_T3, axis=0, weights=weight)
    if topology in ("cascade", "double_cascade"):
        groups = _cascade_seeds(coarse, topology, tried, pulses, centre)
    else:
        medium = coarse.detector.medium
        groups = [_track_seeds(topology, d, pulses, centre, medium) for d in tried]
    best = [_best(coarse, topology, group) for group in groups]
    best.sort(key=lambda scored: -scored[0])
    return Seed.join([seed for _, seed in best])


def _best(
    likelihood: EventLikelihood, topology: str, seeds: Seed
) -> tuple[float, Seed]:
    value_K = likelihood.of_seeds(topology, seeds)
    return float(value_K.max()), seeds.take([value_K.argmax()])


def _track_seeds(
    topology: str, direction: Array, pulses: EventPulses, centre: Array, medium: Medium
) -> Seed:
    """Return tracks of a direction with several energies and starting points."""
    step = pulses.position_T3 - centre
    along = step @ direction
    across = np.linalg.norm(step - along[:, None] * direction, axis=1)
    # The time of the Cherenkov cone, from the earliest sixth of the pulses.
    lag = (along + across * np.sqrt(medium.phase_index**2 - 1)) / SPEED_OF_LIGHT
    time = float(np.quantile(pulses.time_T - lag, 1 / 6))
    first = float(-along.min())
    begins = (BEFORE, first + 20.0, first - 0.25 * float(np.ptp(along)))
    energies = (1e2, 1e3, 3e4)
    if topology == "muon_bundle":
        sizes = [{"muon": energy, "muons": 2.0} for energy in energies]
    else:
        sizes = [
            {"muon": energy, "back": back, "cascade": max(energy / 3, 30)}
            for energy in energies
            for back in begins
        ]
    return Seed.join([Seed.of(centre, time, direction, **size) for size in sizes])


def _cascade_seeds(
    coarse: EventLikelihood,
    topology: str,
    tried: Array,
    pulses: EventPulses,
    centre: Array,
) -> list[Seed]:
    """Return cascades of each direction, at the best of several points."""
    begin = []
    for vertex, time in _vertices(pulses, centre, coarse.detector.medium):
        group = [
            Seed.of(vertex, time, direction, cascade=energy, second=energy / 2)
            for direction in sphere(6)
            for energy in (1e2, 1e3, 1e4, 1e5)
        ]
        begin.append(_best(coarse, topology, Seed.join(group))[1])
    value_K, found = batched_bfgs(coarse, topology, Seed.join(begin), steps=15)
    seeds = []
    for number in np.argsort(-value_K)[:VERTICES]:
        kept = found.take([number])
        seeds += [kept, *(replace(kept, direction=d[None]) for d in tried)]
    return seeds


def _vertices(
    pulses: EventPulses, centre: Array, medium: Medium
) -> list[tuple[Array, float]]:
    """Return points and times from which light reaches most first pulses directly."""
    optimize = import_scipy("optimize")

    def misses(numbers: Array) -> Array:
        distance = np.linalg.norm(pulses.position_T3 - numbers[:3], axis=1)
        delay = pulses.time_T - numbers[3] - distance / medium.speed
        # Late light is common, early light does not exist.
        return np.where(
            delay < 0, -delay / 15.0, np.sqrt(np.maximum(delay, 0.0) / 60.0)
        )

    early = float(np.quantile(pulses.time_T, 0.1)) - 100.0
    bright = np.argsort(-pulses.charge_T)[:BRIGHTEST]
    beside = [(pulses.position_T3[t], float(pulses.time_T[t]) - 50.0) for t in bright]
    found = []
    for place, time in ((centre, early), beside[0]):
        done = optimize.least_squares(
            misses,
            np.append(place, time),
            x_scale=[20.0, 20.0, 20.0, 100.0],
            loss="soft_l1",
            max_nfev=60,
        )
        found.append((done.x[:3], float(done.x[3])))
    # Slightly beside each bright DOM; light exactly at a DOM is too bright.
    return found + [(place + np.array([8.0, 8.0, 0.0]), time) for place, time in beside]


def _polish(
    likelihood: EventLikelihood, topology: str, seed: Seed
) -> tuple[float, Seed]:
    """Maximise to convergence; restart there until nothing is gained."""
    optimize = import_scipy("optimize")
    value = -np.inf
    num = len(number_names(topology))
    ahead = _DIFFERENCE * np.eye(num)
    step_KN = np.concatenate([np.zeros((1, num)), ahead, -ahead])

    def loss(numbers: Array, start: Seed, scale_N: Array) -> tuple[float, Array]:
        values = likelihood.of(topology, start, scale_N * (numbers + step_KN))
        slope = values[1 : num + 1] - values[num + 1 :]
        return -float(values[0]), -slope / (2 * _DIFFERENCE)

    for _ in range(5):
        scale_N = _scale(likelihood, topology, seed)[0][0]
        done = optimize.minimize(
            loss,
            np.zeros(num),
            args=(seed, scale_N),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 60, "ftol": 1e-8, "gtol": 1e-2},
        )
        gained = -float(done.fun) - value
        value = max(value, -float(done.fun))
        seed = displaced_seeds(topology, seed, scale_N * done.x[None])
        if gained < 0.05:
            break
    return value, seed


def _covariance(likelihood: EventLikelihood, topology: str, seed: Seed) -> Array:
    """Return the covariance (2, 2) of the direction from the curvature at the seed."""
    names = np.array(number_names(topology))
    num = len(names)
    # At steps that change log L by about one half; at smaller ones pulses make ripples.
    scale_N = _scale(likelihood, topology, seed)[0][0]
    eye = np.eye(num)
    pairs = [(i, j) for i in range(num) for j in range(i, num)]
    points = []
    for i, j in pairs:
        points += [eye[i] + eye[j], eye[i] - eye[j], -eye[i] + eye[j], -eye[i] - eye[j]]
    values = likelihood.of(topology, seed, scale_N * np.array(points) / 2)
    curve = np.zeros((num, num))
    for (i, j), (pp, pm, mp, mm) in zip(pairs, values.reshape(-1, 4), strict=True):
        curve[i, j] = curve[j, i] = -(pp - pm - mp + mm)
    curve /= np.outer(scale_N, scale_N)
    if not np.isfinite(curve).all():
        return np.full((2, 2), np.nan)
    # Numbers that the data do not constrain must not spoil the others.
    strength, axes = np.linalg.eigh(curve)
    strength = np.maximum(strength, 1e-4)
    covariance = axes / strength @ axes.T
    place = np.flatnonzero(names == "direction")
    return STEP_DIRECTION**2 * covariance[np.ix_(place, place)]
