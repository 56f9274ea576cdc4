"""Arrival times: Pandel's gamma distribution, smeared by the photomultiplier.

The density of a delay t after the unscattered light is
rate**shape t**(shape - 1) exp(-rate t) / Gamma(shape): D. Pandel, diploma thesis
(Humboldt University Berlin, 1996); AMANDA, Nucl. Instrum. Meth. A 524 (2004) 169. With
a Gaussian time jitter it becomes a parabolic cylinder function: N. van Eijndhoven, O.
Fadiran and G. Japaridze, Astropart. Phys. 28 (2007) 456 (arXiv:0704.1706). Shape
letters: P photoelectrons; `...` any shape.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.simulation.rows import Array

if TYPE_CHECKING:
    from scipy.interpolate import RectBivariateSpline

# Range of the `_correction` table: shape 0.02 to 80, time -1000 to 1000 jitters.
_LOG_SHAPES = np.linspace(np.log(0.02), np.log(80.0), 60)
_TIMES = np.sinh(np.linspace(-np.arcsinh(1e3), np.arcsinh(1e3), 301))
_STEPS = 400  # of the integrals for the table


def draw_delays(
    rng: np.random.Generator, shape_P: Array, rate_P: Array, jitter: float
) -> Array:
    """Return a delay for each photoelectron, (P,) ns; rates in 1/ns, jitter in ns."""
    delay_P: Array = rng.standard_gamma(shape_P) / rate_P
    delay_P += jitter * rng.standard_normal(len(delay_P))
    return delay_P


def log_density(time: Array, shape: Array, rate: Array, jitter: float) -> Array:
    """Return the logarithm of the density of delays, including jitter, 1/ns.

    After completing the square, a function of two numbers remains:
    H(shape, x) = integral of s**(shape - 1) normal(x - s) ds over s above 0, with
    x = time / jitter - rate * jitter. It is computed as Laplace's approximation, which
    is exact for x far from 0, times a smooth tabulated correction; the result agrees
    with the integral within 1e-5. Times [ns] may be negative; shape and rate [1/ns] are
    arrays that broadcast with them.
    """
    special = import_scipy("special")
    x = time / jitter - rate * jitter
    density: Array = (
        shape * np.log(rate * jitter)
        - np.log(jitter)
        - special.gammaln(shape)
        - rate * time
        + 0.5 * (rate * jitter) ** 2
        + _laplace(shape, x)
    )
    density += _correction().ev(np.log(shape), np.arcsinh(x))
    return density


def import_scipy(module: str) -> Any:
    """Import a module of scipy, which the core does not need."""
    what = "the likelihood of simulated events needs"
    return import_extra(f"scipy.{module}", what, "simulation")


def _laplace(shape: Array, x: Array) -> Array:
    """Return the logarithm of H, expanded around its integrand's maximum in log s."""
    peak = _peak(shape, x)
    return shape * np.log(peak) - 0.5 * (x - peak) ** 2 - 0.5 * np.log(peak**2 + shape)


def _peak(shape: Array, x: Array) -> Array:
    root = np.sqrt(x**2 + 4.0 * shape)
    # The second form has no cancellation if x is far below 0.
    below = 2.0 * shape / (root - np.minimum(x, 0.0))
    return np.where(x < 0, below, 0.5 * (x + root))


@cache
def _correction() -> RectBivariateSpline:
    """Return the spline over (log shape, arcsinh x) of log H minus Laplace's.

    Outside the table its edge is used, because the correction falls as 1 / x**2.
    """
    shape_I1, x_1J = np.exp(_LOG_SHAPES)[:, None], _TIMES[None]
    peak_IJ = _peak(shape_I1, x_1J)
    width_IJ = 1.0 / np.sqrt(peak_IJ**2 + shape_I1)
    # H exp(-exponent at the peak), integrated over log s: from where the Gaussian is
    # flat, so that the rest of s**shape is known, to where the Gaussian ends.
    middle_IJ = np.log(peak_IJ)
    near_IJ = 12.0 * width_IJ
    bottom_IJ = np.minimum(-near_IJ, -np.log(1e4 * (1 + np.abs(x_1J))) - middle_IJ)
    top_IJ = np.minimum(near_IJ, np.log(np.maximum(x_1J, 0.0) + 12.0) - middle_IJ)
    borders = (bottom_IJ, -near_IJ, 0.0 * near_IJ, top_IJ)

    def integrand(log_s_IJ: Array) -> Array:
        s_IJ = np.exp(middle_IJ + log_s_IJ)
        gauss_IJ = 0.5 * (s_IJ - peak_IJ) * (2.0 * x_1J - s_IJ - peak_IJ)
        return np.exp(shape_I1 * log_s_IJ + gauss_IJ)

    total_IJ = integrand(bottom_IJ) / shape_I1
    for low_IJ, high_IJ in itertools.pairwise(borders):
        for step in range(_STEPS + 1):
            simpson = 1 if step in (0, _STEPS) else 4 if step % 2 else 2
            step_IJ = (high_IJ - low_IJ) / _STEPS
            total_IJ += simpson / 3 * step_IJ * integrand(low_IJ + step * step_IJ)
    table_IJ = np.log(total_IJ / width_IJ) - 0.5 * np.log(2.0 * np.pi)
    interpolate = import_scipy("interpolate")
    return interpolate.RectBivariateSpline(_LOG_SHAPES, np.arcsinh(_TIMES), table_IJ)
