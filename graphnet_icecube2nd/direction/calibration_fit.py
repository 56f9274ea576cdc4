"""Finds a calibration of kappa on events that were not trained on.

Shape letters: B events. Source: the von Mises-Fisher mean resultant length, Mardia and
Jupp, Directional Statistics (2000), chapter 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.direction.calibration import KappaCalibration, depth

NUM_BINS = 100  # of events in the order of kappa, for the isotonic map
FEWEST = 100  # events that a calibration needs
LARGEST_DEPTH = 1e12  # opposite the direction it is infinite, which no file holds
FEWEST_BEYOND = 3  # events that lie beyond the highest level that is fitted
LEVELS = np.append(np.linspace(0.0, 0.99, 199), [0.995, 0.998, 0.999, 0.9995, 0.9999])

Array = NDArray[np.float64]


def kappa_of_mean_cosine_defect(defect: Array | float) -> Array:
    """Return the kappa of which 1 - cos(angle) is so large on average.

    Solves 1 - coth(kappa) + 1 / kappa = defect; 0 where the defect is 1 or more, which
    a uniform sky has.
    """
    u = np.atleast_1d(np.asarray(defect, np.float64))
    u = np.clip(u, 1e-12, 1.0)
    kappa = 1.0 / u  # right to exp(-2 kappa)
    r = 1 - u
    rough = u > 0.02
    kappa[rough] = r[rough] * (3 - r[rough] ** 2) / np.maximum(1 - r[rough] ** 2, 1e-12)
    for _ in range(8):
        k = np.maximum(kappa[rough], 1e-6)
        coth = 1 / np.tanh(k)
        small = k < 1e-3
        mean = np.where(small, k / 3, coth - 1 / k)
        slope = np.where(small, 1 / 3, 1 - coth**2 + 1 / k**2)
        kappa[rough] = np.maximum(k - (mean - r[rough]) / slope, 0.0)
    kappa[r < 1e-9] = 0.0
    return kappa


def fit_calibration(
    kappa_B: Array, angle_B: Array, method: str = "isotonic", *, levels: bool = True
) -> KappaCalibration:
    """Fit a calibration to events that were not trained on.

    Args:
        kappa_B: Concentrations as predicted; events without one are left out.
        angle_B: Opening angles, rad.
        method: `none`: kappa stays; `temperature`: one factor for all, of largest
            likelihood; `isotonic`: a map that rises, of largest likelihood in bins.
        levels: Correct the levels of contours as well.

    Raises:
        ValueError: Fewer than 100 events, an unknown method, shapes that differ.
    """
    kappa, angle = np.asarray(kappa_B, np.float64), np.asarray(angle_B, np.float64)
    if kappa.shape != angle.shape or kappa.ndim != 1:
        raise ValueError(
            f"kappa and angle must be (B,), got {kappa.shape} and {angle.shape}"
        )
    good = np.isfinite(kappa) & np.isfinite(angle) & (kappa > 0)
    kappa, angle = kappa[good], angle[good]
    if len(kappa) < FEWEST:
        raise ValueError(
            f"a calibration needs {FEWEST} events with a kappa, got {len(kappa)}"
        )
    if method == "isotonic":
        knots, values = _isotonic(kappa, angle)
    else:
        factor = _factor(kappa, angle) if method == "temperature" else 1.0
        knots, values = np.zeros(1), np.log10([factor])
    kappa_only = KappaCalibration(
        method=method,
        log_kappa=tuple(knots.tolist()),
        log_calibrated=tuple(values.tolist()),
        levels=(0.0,),
        depths=(0.0,),
        num_events=len(kappa),
    )
    if not levels:
        return kappa_only
    depth_B = depth(kappa_only.kappa(kappa), angle)
    # A level that only the farthest few reach is left to the last difference.
    highest = 1 - FEWEST_BEYOND / len(kappa)
    known = LEVELS[highest >= LEVELS]
    depths = np.quantile(np.minimum(depth_B, LARGEST_DEPTH), known)
    depths[0] = 0.0
    return replace(
        kappa_only, levels=tuple(known.tolist()), depths=tuple(depths.tolist())
    )


def _factor(kappa: Array, angle: Array) -> float:
    """Return the factor on all kappas of largest likelihood."""
    u = 2 * np.sin(angle / 2) ** 2
    low, high = -6.0, 6.0  # of log10
    for _ in range(60):  # the likelihood has one maximum: where this changes its sign
        middle = (low + high) / 2
        scaled = kappa * 10**middle
        # d/dlog of sum(log(k / (1 - exp(-2 k))) - k u), per event.
        slope = 1 - 2 * scaled / np.expm1(np.minimum(2 * scaled, 700)) - scaled * u
        if slope.sum() > 0:
            low = middle
        else:
            high = middle
    return float(10 ** ((low + high) / 2))


def _isotonic(kappa: Array, angle: Array) -> tuple[Array, Array]:
    """Return knots and values, log10, of a rising map."""
    order = np.argsort(kappa, kind="stable")
    bins = np.array_split(order, min(NUM_BINS, max(2, len(kappa) // 50)))
    u = 2 * np.sin(angle / 2) ** 2
    centre = np.array([np.log10(kappa[b]).mean() for b in bins])
    defect = _pool([float(u[b].mean()) for b in bins], [len(b) for b in bins])
    worth = np.maximum(kappa_of_mean_cosine_defect(defect), 1e-6)
    keep = np.append(True, np.diff(centre) > 0)
    return centre[keep], np.log10(worth)[keep]


def _pool(values: Sequence[float], weights: Sequence[int]) -> Array:
    """Return the closest falling sequence: neighbours that rise are pooled."""
    pools: list[list[float]] = []  # mean, weight, members
    for value, weight in zip(values, weights, strict=True):
        pools.append([value, float(weight), 1.0])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            mean, heavy, members = pools.pop()
            before = pools[-1]
            total = before[1] + heavy
            before[0] = (before[0] * before[1] + mean * heavy) / total
            before[1], before[2] = total, before[2] + members
    return np.repeat([p[0] for p in pools], [int(p[2]) for p in pools])
