"""Arrival times: the density against what it was made of, and against drawn numbers."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy import integrate, special

from graphnet_icecube2nd.simulation import pandel
from graphnet_icecube2nd.simulation.pandel import draw_delays, log_density


def smeared(time: float, shape: float, rate: float, jitter: float) -> float:
    """The gamma density convolved with a Gaussian, by quadrature."""

    def integrand(power: float) -> float:
        # s = power**(1 / shape) takes the edge off shapes below 1.
        delay = power ** (1 / shape)
        gauss = np.exp(-0.5 * ((time - delay) / jitter) ** 2)
        return float(np.exp(-rate * delay) * gauss)

    # Piece by piece, so that the narrow Gaussian is not overlooked.
    steps = time + jitter * np.array([-12.0, -6.0, -3.0, 0.0, 3.0, 6.0, 12.0])
    borders = np.unique(np.maximum(np.append(0.0, steps), 0.0)) ** shape
    pieces = [
        integrate.quad(integrand, low, high, limit=200)[0]
        for low, high in itertools.pairwise(borders)
    ]
    total = sum(pieces)
    norm = rate**shape / special.gamma(shape) / shape / (jitter * np.sqrt(2 * np.pi))
    return float(total * norm)


@pytest.mark.parametrize("shape", [0.05, 0.3, 1.0, 2.7, 12.0])
@pytest.mark.parametrize("rate", [0.002, 0.011])
@pytest.mark.parametrize("jitter", [3.0, 15.0])
def test_density_is_the_convolution(shape: float, rate: float, jitter: float) -> None:
    times = np.array([-25.0, -6.0, -1.0, 0.0, 2.0, 9.0, 40.0, 300.0, 1500.0])
    found = np.exp(log_density(times, np.array(shape), np.array(rate), jitter))
    expected = [smeared(time, shape, rate, jitter) for time in times]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-14)


def test_density_is_a_density() -> None:
    times = np.linspace(-100.0, 8000.0, 400001)
    for shape in (0.2, 1.0, 6.0):
        density = np.exp(log_density(times, np.array(shape), np.array(0.004), 3.0))
        assert integrate.trapezoid(density, times) == pytest.approx(1.0, abs=2e-3)


def test_far_from_zero_the_jitter_does_not_matter() -> None:
    times = np.array([500.0, 1000.0])
    shape, rate = 3.0, 0.004
    plain = (
        shape * np.log(rate)
        + (shape - 1) * np.log(times)
        - rate * times
        - special.gammaln(shape)
    )
    found = log_density(times, np.array(shape), np.array(rate), 3.0)
    np.testing.assert_allclose(found, plain, atol=1e-3)


def test_drawn_delays_follow_the_density() -> None:
    rng = np.random.default_rng(5)
    num, shape, rate, jitter = 200_000, 0.7, 0.005, 3.0
    drawn = draw_delays(rng, np.full(num, shape), np.full(num, rate), jitter)
    borders = np.array([-10.0, -3.0, 0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 900.0])
    seen, _ = np.histogram(drawn, borders)
    for low, high, number in zip(borders[:-1], borders[1:], seen, strict=True):
        times = np.linspace(low, high, 2001)
        density = np.exp(log_density(times, np.array(shape), np.array(rate), jitter))
        expected = num * float(integrate.trapezoid(density, times))
        assert abs(number - expected) < 5 * np.sqrt(expected) + 1e-3 * num


def test_it_says_what_needs_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"graphnet-icecube2nd\[simulation\]"):
        pandel.import_scipy("special")
