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
from graphnet_icecube2nd.reconstruction.hypothesis import (
    BEFORE,
    STEP_DIRECTION,
    Hypotheses,
    Seed,
)
from graphnet_icecube2nd.reconstruction.likelihood import EventLikelihood
from graphnet_icecube2nd.reconstruction.line_fit import line_fit
from graphnet_icecube2nd.reconstruction.line_fit_table import for_line_fit
from graphnet_icecube2nd.simulation.medium import PHASE_INDEX, SPEED_IN_ICE
from graphnet_icecube2nd.simulation.pandel import import_scipy

Array = NDArray[np.float64]

DIRECTIONS = 96  # tried all over the sphere
REFINED = 5  # of the seeds
_DIFFERENCE = 1e-3  # of a number, for slopes
_CURVE = 0.05  # of a number, for curvatures


@dataclass(frozen=True, kw_only=True, eq=False)
class Maximum:
    """Where the likelihood of an event is largest.

    Args:
        topology: What the event was taken for.
        seed: The particles there.
        log_likelihood: There.
        covariance_22: (2, 2) of the direction in the plane across it, rad2, all other
            numbers left free; NaN where the maximum has no curvature.
        kappa: The concentration that belongs to it: 2 / trace; NaN likewise.
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
    refined: int = REFINED,
    further_seeds: tuple[Seed, ...] = (),
) -> Maximum:
    """Find the largest likelihood of an event, taken to be of a topology.

    Args:
        likelihood: Of the event.
        topology: One of `hypothesis.NUMBERS`.
        directions: How many are tried.
        refined: How many of them are followed to their maximum.
        further_seeds: Followed as well; the truth among them shows whether the search
            found the global maximum.

    Raises:
        ImportError: scipy is not installed.
    """
    seeds = _seeds(likelihood, topology, directions)
    value_K = likelihood.of_seeds(topology, seeds)
    chosen = [seeds[number] for number in np.argsort(-value_K)[:refined]]
    climbed = [
        _climb(likelihood, Hypotheses(topology, seed), turns=1)
        for seed in (*chosen, *further_seeds)
    ]
    best = max(climbed, key=lambda found: found[0])
    best = _climb(likelihood, Hypotheses(topology, best[1]), turns=5)
    covariance_22 = _covariance(likelihood, Hypotheses(topology, best[1]))
    trace = float(np.trace(covariance_22))
    return Maximum(
        topology=topology,
        seed=best[1],
        log_likelihood=best[0],
        covariance_22=covariance_22,
        kappa=2.0 / trace if trace > 0 else float("nan"),
    )


def sphere(num: int) -> Array:
    """Return unit vectors all over the sphere, evenly: a Fibonacci spiral, (num, 3)."""
    turn = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(num)
    z = 1.0 - (2.0 * np.arange(num) + 1.0) / num
    across = np.sqrt(1.0 - z**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1)


def _seeds(likelihood: EventLikelihood, topology: str, directions: int) -> list[Seed]:
    """Return seeds: the line fit's, and for each direction the best of a few."""
    pulses = for_line_fit(likelihood.pulses)
    flight, _ = line_fit(pulses.position_T3, pulses.time_T, pulses.offsets)
    tried = sphere(directions)
    if np.isfinite(flight).all():
        tried = np.concatenate([flight, tried])
    weight = np.maximum(pulses.charge_T, 0.1)
    centre = np.average(pulses.position_T3, axis=0, weights=weight)
    if topology in ("cascade", "double_cascade"):
        vertex, time = _vertex(likelihood, centre)
        return [
            Seed.of(vertex, time, direction, cascade=energy, second=energy / 2)
            for direction in tried
            for energy in (3e2, 3e3, 3e4, 3e5)
        ]
    found = []
    for direction in tried:
        step = pulses.position_T3 - centre
        along = step @ direction
        across = np.linalg.norm(step - along[:, None] * direction, axis=1)
        # The Cherenkov cone's time, of the earliest sixth of the pulses.
        lag = (along + across * np.sqrt(PHASE_INDEX**2 - 1)) / SPEED_OF_LIGHT
        time = float(np.quantile(pulses.time_T - lag, 1 / 6))
        begins = (BEFORE,)
        if topology != "muon_bundle":
            first = float(-along.min())
            begins = (BEFORE, first + 20.0, first - 0.25 * float(np.ptp(along)))
        found += [
            Seed.of(
                centre,
                time,
                direction,
                muon=energy,
                back=back,
                cascade=max(energy / 3, 30.0),
                muons=2.0 if topology == "muon_bundle" else 1.0,
            )
            for energy in (1e2, 1e3, 3e4)
            for back in begins
        ]
    return found


def _vertex(likelihood: EventLikelihood, centre: Array) -> tuple[Array, float]:
    """Return a point and a time from which light reaches most first pulses directly."""
    pulses = for_line_fit(likelihood.pulses)
    optimize = import_scipy("optimize")

    def misses(numbers: Array) -> Array:
        distance = np.linalg.norm(pulses.position_T3 - numbers[:3], axis=1)
        delay = pulses.time_T - numbers[3] - distance / SPEED_IN_ICE
        # Late light is common, early light does not exist.
        miss: Array = np.where(delay < 0, -delay / 15.0, np.sqrt(delay / 60.0))
        return miss

    begin = np.append(centre, np.quantile(pulses.time_T, 0.1) - 100.0)
    done = optimize.least_squares(
        misses, begin, x_scale=[20.0, 20.0, 20.0, 100.0], loss="soft_l1", max_nfev=60
    )
    return done.x[:3], float(done.x[3])


def _climb(
    likelihood: EventLikelihood, hypotheses: Hypotheses, turns: int
) -> tuple[float, Seed]:
    """Follow the slope to a maximum; begin anew there, until nothing is gained."""
    optimize = import_scipy("optimize")
    num = len(hypotheses.names)
    steps = np.concatenate([np.zeros((1, num)), _DIFFERENCE * np.eye(num)])
    steps = np.concatenate([steps, -steps[1:]])

    value = -np.inf
    for _ in range(turns):

        def loss(numbers: Array, around: Hypotheses) -> tuple[float, Array]:
            values = likelihood(around, numbers + steps)
            slope = (values[1 : num + 1] - values[num + 1 :]) / (2 * _DIFFERENCE)
            return -float(values[0]), -slope

        done = optimize.minimize(
            loss,
            np.zeros(num),
            args=(hypotheses,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 60, "ftol": 1e-9, "gtol": 1e-3},
        )
        gained = -float(done.fun) - value
        value = max(value, -float(done.fun))
        hypotheses = replace(hypotheses, seed=hypotheses.around(done.x))
        if gained < 0.05:
            break
    return value, hypotheses.seed


def _covariance(likelihood: EventLikelihood, hypotheses: Hypotheses) -> Array:
    """Return the covariance (2, 2) of the direction, of the curvature at the seed."""
    num = len(hypotheses.names)
    eye = _CURVE * np.eye(num)
    pairs = [(i, j) for i in range(num) for j in range(i, num)]
    points = []
    for i, j in pairs:
        points += [eye[i] + eye[j], eye[i] - eye[j], -eye[i] + eye[j], -eye[i] - eye[j]]
    values = likelihood(hypotheses, np.array(points)).reshape(len(pairs), 4)
    curve = np.zeros((num, num))
    for (i, j), (pp, pm, mp, mm) in zip(pairs, values, strict=True):
        curve[i, j] = curve[j, i] = -(pp - pm - mp + mm) / (4 * _CURVE**2)
    # What the data say nothing of must not make the rest worthless.
    strength, axes = np.linalg.eigh(curve)
    strength = np.maximum(strength, 1e-4)
    covariance = axes / strength @ axes.T
    place = [n for n, name in enumerate(hypotheses.names) if name == "direction"]
    found: Array = STEP_DIRECTION**2 * covariance[np.ix_(place, place)]
    return found
