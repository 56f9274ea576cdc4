"""The maximum of an event's likelihood, and how sharp it is.

Directions from all over the sphere are tried, the best are refined, and the best of
those is the answer; its curvature gives the error. Shape letters: K hypotheses, N
numbers of one, T pulses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.likelihood.batched_bfgs import climb_together, scale
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.hypothesis import (
    BEFORE,
    STEP_DIRECTION,
    Hypotheses,
    Seed,
)
from graphnet_icecube2nd.likelihood.line_fit import line_fit
from graphnet_icecube2nd.likelihood.line_fit_table import for_line_fit
from graphnet_icecube2nd.likelihood.photon_likelihood import EventLikelihood
from graphnet_icecube2nd.simulation.light import PHASE_INDEX, SPEED_IN_ICE
from graphnet_icecube2nd.simulation.pandel import import_scipy

Array = NDArray[np.float64]

DIRECTIONS = 96  # tried all over the sphere
SEARCHED = 32  # of the seeds are followed with the coarse likelihood,
REFINED = 4  # of those with the full one
SHAKEN, SHAKEN_SEEDS = 1, 12  # then so often so many from around the best
BLURRED_JITTER = 7.0  # ns
BRIGHTEST, VERTICES = 10, 2  # DOMs near which a cascade may be; points that are kept
_DIFFERENCE = 1e-3  # of a number, for slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class Maximum:
    """Where the likelihood of an event is largest.

    Args:
        topology: What the event was taken for.
        seed: The particles there.
        log_likelihood: There.
        covariance_22: (2, 2) of the direction in the plane across it, rad2, all other
            numbers left free. What is flat counts as a hundred steps wide.
        kappa: The concentration that belongs to it: 2 / trace. NaN where the
            likelihood is not finite all around.
    """

    topology: str
    seed: Seed
    log_likelihood: float
    covariance_22: Array
    kappa: float

    @property
    def direction(self) -> Array:
        """(3,) unit vector to the origin."""
        return -self.seed.direction


def find_maximum(
    likelihood: EventLikelihood,
    topology: str,
    *,
    directions: int = DIRECTIONS,
    searched: int = SEARCHED,
    refined: int = REFINED,
    shaken: int = SHAKEN,
    further_seeds: tuple[Seed, ...] = (),
) -> Maximum:
    """Find the largest likelihood of an event, taken to be of a topology.

    Args:
        likelihood: Of the event.
        topology: One of `hypothesis.NUMBERS`.
        directions: How many are tried; 0 leaves it at the further seeds.
        searched: How many seeds are followed with a coarse likelihood.
        refined: How many of them are followed to their maximum.
        shaken: How often the search begins anew around the best so far.
        further_seeds: Followed as well.

    Raises:
        ImportError: scipy is not installed.
    """
    found: list[Seed] = []
    if directions:
        coarse = likelihood.coarse()
        begin = _seeds(coarse, topology, directions)[:searched]
        _, found = climb_together(coarse, topology, begin, steps=25)
    # Where a pulse comes a little too early, the likelihood falls as from a cliff:
    # first among gentle slopes.
    blurred = likelihood.blurred(BLURRED_JITTER)
    if found:
        value_K = blurred.of_seeds(topology, found)
        found = [found[number] for number in np.argsort(-value_K)[:refined]]
    chosen = [*found, *further_seeds]
    _, near = climb_together(blurred, topology, chosen, steps=30)
    value_K, there = climb_together(likelihood, topology, near, steps=20)
    best = there[int(value_K.argmax())]
    for turn in range(shaken):
        shaken_seeds = _around(topology, best, SHAKEN_SEEDS, turn)
        _, near = climb_together(blurred, topology, shaken_seeds, steps=15)
        value_K, there = climb_together(likelihood, topology, [best, *near], steps=15)
        best = there[int(value_K.argmax())]
    value, best = _polish(likelihood, topology, best)
    covariance_22 = _covariance(likelihood, Hypotheses(topology, Seed.stack([best])))
    trace = float(np.trace(covariance_22))
    return Maximum(
        topology=topology,
        seed=best,
        log_likelihood=value,
        covariance_22=covariance_22,
        kappa=2.0 / trace if trace > 0 else float("nan"),
    )


def sphere(num: int) -> Array:
    """Return unit vectors all over the sphere, evenly: a Fibonacci spiral, (num, 3)."""
    turn = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(num)
    z = 1.0 - (2.0 * np.arange(num) + 1.0) / num
    across = np.sqrt(1.0 - z**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1)


def _seeds(coarse: EventLikelihood, topology: str, directions: int) -> list[Seed]:
    """Return a seed for each direction, those of large likelihood first."""
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
        groups = [
            _track_seeds(topology, direction, pulses, centre) for direction in tried
        ]
    best = [_best(coarse, topology, group) for group in groups]
    return [seed for _, seed in sorted(best, key=lambda scored: -scored[0])]


def _around(topology: str, seed: Seed, num: int, turn: int) -> list[Seed]:
    """Return seeds at random around one: metres to tens of them, degrees, decades."""
    hypotheses = Hypotheses(topology, Seed.stack([seed]))
    rng = np.random.default_rng(turn)
    spread_K1 = np.geomspace(1.0, 6.0, num)[:, None]
    drawn = spread_K1 * rng.standard_normal((num, len(hypotheses.names)))
    found = hypotheses.around(drawn)
    return [found.take(number) for number in range(num)]


def _best(
    likelihood: EventLikelihood, topology: str, seeds: list[Seed]
) -> tuple[float, Seed]:
    value_K = likelihood.of_seeds(topology, seeds)
    number = int(value_K.argmax())
    return float(value_K[number]), seeds[number]


def _track_seeds(
    topology: str, direction: Array, pulses: EventPulses, centre: Array
) -> list[Seed]:
    """Return tracks of a direction: of several energies, beginning here or there."""
    step = pulses.position_T3 - centre
    along = step @ direction
    across = np.linalg.norm(step - along[:, None] * direction, axis=1)
    # The Cherenkov cone's time, of the earliest sixth of the pulses.
    lag = (along + across * np.sqrt(PHASE_INDEX**2 - 1)) / SPEED_OF_LIGHT
    time = float(np.quantile(pulses.time_T - lag, 1 / 6))
    first = float(-along.min())
    begins = (BEFORE, first + 20.0, first - 0.25 * float(np.ptp(along)))
    if topology == "muon_bundle":
        return [
            Seed.of(centre, time, direction, muon=energy, muons=2.0)
            for energy in (1e2, 1e3, 3e4)
        ]
    return [
        Seed.of(
            centre, time, direction, muon=energy, back=back, cascade=max(energy / 3, 30)
        )
        for energy in (1e2, 1e3, 3e4)
        for back in begins
    ]


def _cascade_seeds(
    coarse: EventLikelihood,
    topology: str,
    tried: Array,
    pulses: EventPulses,
    centre: Array,
) -> list[list[Seed]]:
    """Return cascades of each direction, at the best of several points."""
    begin = []
    for vertex, time in _vertices(pulses, centre):
        group = [
            Seed.of(vertex, time, direction, cascade=energy, second=energy / 2)
            for direction in sphere(6)
            for energy in (1e2, 1e3, 1e4, 1e5)
        ]
        begin.append(_best(coarse, topology, group)[1])
    value_K, found = climb_together(coarse, topology, begin, steps=15)
    kept = [found[number] for number in np.argsort(-value_K)[:VERTICES]]
    return [
        [seed] if direction is None else [replace(seed, direction=direction)]
        for seed in kept
        for direction in (None, *tried)
    ]


def _vertices(pulses: EventPulses, centre: Array) -> list[tuple[Array, float]]:
    """Return points and times from which light reaches most first pulses directly."""
    optimize = import_scipy("optimize")

    def misses(numbers: Array) -> Array:
        distance = np.linalg.norm(pulses.position_T3 - numbers[:3], axis=1)
        delay = pulses.time_T - numbers[3] - distance / SPEED_IN_ICE
        # Late light is common, early light does not exist.
        miss: Array = np.where(
            delay < 0, -delay / 15.0, np.sqrt(np.maximum(delay, 0.0) / 60.0)
        )
        return miss

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
    # A little beside each bright DOM: at its very place, light is too bright.
    return found + [(place + np.array([8.0, 8.0, 0.0]), time) for place, time in beside]


def _polish(
    likelihood: EventLikelihood, topology: str, seed: Seed
) -> tuple[float, Seed]:
    """Follow the slope to the very top; begin anew there, until nothing is gained."""
    optimize = import_scipy("optimize")
    value = -np.inf
    num = len(Hypotheses(topology, seed).names)
    ahead = _DIFFERENCE * np.eye(num)
    around_KN = np.concatenate([np.zeros((1, num)), ahead, -ahead])

    def loss(numbers: Array, around: Hypotheses, scale_N: Array) -> tuple[float, Array]:
        values = likelihood(around, scale_N * (numbers + around_KN))
        slope = values[1 : num + 1] - values[num + 1 :]
        return -float(values[0]), -slope / (2 * _DIFFERENCE)

    for _ in range(5):
        hypotheses = Hypotheses(topology, Seed.stack([seed]))
        scale_N = _scale(likelihood, hypotheses)
        done = optimize.minimize(
            loss,
            np.zeros(num),
            args=(hypotheses, scale_N),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 60, "ftol": 1e-8, "gtol": 1e-2},
        )
        gained = -float(done.fun) - value
        value = max(value, -float(done.fun))
        seed = hypotheses.around(scale_N * done.x[None]).take(0)
        if gained < 0.05:
            break
    return value, seed


def _scale(likelihood: EventLikelihood, hypotheses: Hypotheses) -> Array:
    """Return how far to go in each number to change log L by about a half, (N,)."""

    def values(numbers_KMN: Array, _: NDArray[np.int64]) -> Array:
        return likelihood(hypotheses, numbers_KMN[0])[None]

    scale_KN, _ = scale(values, np.zeros(1, np.int64), len(hypotheses.names))
    found: Array = scale_KN[0]
    return found


def _covariance(likelihood: EventLikelihood, hypotheses: Hypotheses) -> Array:
    """Return the covariance (2, 2) of the direction, of the curvature at the seed."""
    num = len(hypotheses.names)
    # As far as log L changes by about a half: nearer by, single pulses make ripples.
    scale_N = _scale(likelihood, hypotheses)
    eye = np.eye(num)
    pairs = [(i, j) for i in range(num) for j in range(i, num)]
    points = []
    for i, j in pairs:
        points += [eye[i] + eye[j], eye[i] - eye[j], -eye[i] + eye[j], -eye[i] - eye[j]]
    values = likelihood(hypotheses, scale_N * np.array(points) / 2)
    curve = np.zeros((num, num))
    for (i, j), (pp, pm, mp, mm) in zip(pairs, values.reshape(-1, 4), strict=True):
        curve[i, j] = curve[j, i] = -(pp - pm - mp + mm)
    curve /= np.outer(scale_N, scale_N)
    if not np.isfinite(curve).all():
        return np.full((2, 2), np.nan)
    # What the data say nothing of must not make the rest worthless.
    strength, axes = np.linalg.eigh(curve)
    strength = np.maximum(strength, 1e-4)
    covariance = axes / strength @ axes.T
    place = [n for n, name in enumerate(hypotheses.names) if name == "direction"]
    found: Array = STEP_DIRECTION**2 * covariance[np.ix_(place, place)]
    return found
