"""Many searches for a maximum side by side: one call of the likelihood for all.

The quasi-Newton method of Broyden, Fletcher, Goldfarb and Shanno, with three step
lengths tried at once. Shape letters: K searches, N numbers, M points of one search.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.likelihood.hypothesis import Hypotheses, Seed
from graphnet_icecube2nd.likelihood.photon_likelihood import EventLikelihood

Array = NDArray[np.float64]

_DIFFERENCE = 1e-3  # of a scaled number, for slopes
_LENGTHS = np.array([1.0, 0.3, 0.05])  # of a step
_LONGEST = 4.0  # step, in scaled numbers
_SMALLEST_GAIN = 1e-3


def climb_together(
    likelihood: EventLikelihood, topology: str, seeds: list[Seed], steps: int
) -> tuple[Array, list[Seed]]:
    """Follow each seed uphill.

    Args:
        likelihood: What is to become large.
        topology: One of `hypothesis.NUMBERS`.
        seeds: K of them.
        steps: At most.

    Returns:
        The likelihoods that were reached, (K,), and where.
    """
    start = Seed.stack(seeds)
    num = len(Hypotheses(topology, seeds[0]).names)

    def values(numbers_KMN: Array, which: NDArray[np.int64]) -> Array:
        """Return log L at points of some of the searches."""
        points = numbers_KMN.shape[1]
        some = start.take(np.repeat(which, points))
        flat = likelihood.of(topology, some, numbers_KMN.reshape(-1, num))
        return flat.reshape(len(which), points)

    every = np.arange(len(seeds))
    scale_KN, best_K = scale(values, every, num)
    at_KN = np.zeros((len(seeds), num))
    inverse_KNN = np.tile(np.eye(num), (len(seeds), 1, 1))
    slope_KN = np.zeros_like(at_KN)
    going = every
    ahead = np.concatenate([np.zeros((1, num)), _DIFFERENCE * np.eye(num)])
    slope_KN[going] = _slopes(values, at_KN, ahead, scale_KN, going)
    for _ in range(steps):
        step = np.einsum("kij,kj->ki", inverse_KNN[going], slope_KN[going])
        uphill = np.sum(step * slope_KN[going], axis=1) > 0
        step = np.where(uphill[:, None], step, slope_KN[going])
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12))
        tried = at_KN[going, None] + _LENGTHS[:, None] * step[:, None]
        value_KM = values(scale_KN[going, None] * tried, going)
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
        slope = _slopes(values, at_KN, ahead, scale_KN, going)
        bend = slope_KN[going] - slope
        slope_KN[going] = slope
        inverse_KNN[going] = _updated(inverse_KNN[going], went, bend)
    found = Hypotheses(topology, start).around(scale_KN * at_KN)
    return best_K, [found.take(k) for k in range(len(seeds))]


def scale(
    values: Callable[[Array, NDArray[np.int64]], Array],
    which: NDArray[np.int64],
    num: int,
) -> tuple[Array, Array]:
    """Return how far to go in each number to change log L by about a half.

    Args:
        values: log L (K, M) at points (K, M, N) of searches (K,).
        which: (K,) searches.
        num: N.

    Returns:
        (K, N), and log L where all numbers are 0, (K,).
    """
    step = 0.2 * np.eye(num)
    points = np.concatenate([np.zeros((1, num)), step, -step])
    value_KM = values(np.tile(points, (len(which), 1, 1)), which)
    bend_KN = 2 * value_KM[:, :1] - value_KM[:, 1 : num + 1] - value_KM[:, num + 1 :]
    size: Array = 1.0 / np.sqrt(np.clip(bend_KN / 0.2**2, 0.04, 100.0))
    return size, value_KM[:, 0]


def _slopes(
    values: Callable[[Array, NDArray[np.int64]], Array],
    at_KN: Array,
    ahead: Array,
    scale_KN: Array,
    which: NDArray[np.int64],
) -> Array:
    points = scale_KN[which, None] * (at_KN[which, None] + ahead)
    value_KM = values(points, which)
    slope: Array = (value_KM[:, 1:] - value_KM[:, :1]) / _DIFFERENCE
    return slope


def _updated(inverse_KNN: Array, went_KN: Array, bend_KN: Array) -> Array:
    """Return the inverse curvatures after a step, where it bent the right way."""
    product_K = np.sum(went_KN * bend_KN, axis=1)
    good_K = product_K > 1e-9
    rho_K = np.where(good_K, 1.0 / np.where(good_K, product_K, 1.0), 0.0)[:, None, None]
    eye = np.eye(went_KN.shape[1])
    left = eye - rho_K * went_KN[:, :, None] * bend_KN[:, None]
    updated = left @ inverse_KNN @ left.transpose(0, 2, 1)
    updated += rho_K * went_KN[:, :, None] * went_KN[:, None]
    result: Array = np.where(good_K[:, None, None], updated, inverse_KNN)
    return result
