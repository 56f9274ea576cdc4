"""Finds a calibration of kappa on events that were not trained on.

Kappa is fitted to the core, the median of opening angles, which a few lost events do
not move; their tail is what the depths of contours are for, looked at for small and
large kappas apart. Shape letters: B events, G groups of like kappa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration, depth

NUM_BINS, BIN = 100, 200  # of events in the order of kappa: so many, of so many or more
NUM_GROUPS, GROUP = 10, 1000  # the same for the tails
FEWEST = 100  # events that a calibration needs
LARGEST_DEPTH = 1e12  # opposite the direction it is infinite, which no file holds
SMALLEST_KAPPA = 1e-6
FEWEST_BEYOND = 3  # events that lie beyond the highest level that is fitted
LEVELS = np.append(np.linspace(0.0, 0.99, 199), [0.995, 0.998, 0.999, 0.9995, 0.9999])

Array = NDArray[np.float64]


def fit_calibration(
    kappa_B: Array, angle_B: Array, method: str = "isotonic", *, levels: bool = True
) -> KappaCalibration:
    """Fit a calibration to events that were not trained on.

    Args:
        kappa_B: Concentrations as predicted; events without one are left out.
        angle_B: Opening angles, rad.
        method: `none`: kappa stays; `temperature`: one factor for all; `isotonic`: a
            map that rises. Of the last two half of the truths lie within 50%.
        levels: Correct the levels of contours as well; with `isotonic` for small and
            large kappas apart.

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
    order = np.argsort(kappa, kind="stable")
    if method == "isotonic":
        knots, values = _isotonic(kappa, angle, order)
    else:
        factor = _factor(kappa, angle) if method == "temperature" else 1.0
        knots, values = np.zeros(1), np.log10([factor])
    kappa_only = KappaCalibration(
        method=method,
        log_kappa=tuple(knots.tolist()),
        log_calibrated=tuple(values.tolist()),
        num_events=len(kappa),
    )
    if not levels:
        return kappa_only
    depth_B = np.minimum(depth(kappa_only.kappa(kappa), angle), LARGEST_DEPTH)
    is_apart = method == "isotonic"
    number = min(NUM_GROUPS, max(1, len(kappa) // GROUP)) if is_apart else 1
    groups = np.array_split(order, number)
    centre_G = np.array([np.log10(np.median(kappa[group])) for group in groups])
    apart = np.append(True, np.diff(centre_G) > 0)
    groups = [group for group, keep in zip(groups, apart, strict=True) if keep]
    # A level that only the farthest few reach is left to the last difference.
    highest = 1 - FEWEST_BEYOND / min(len(group) for group in groups)
    known = LEVELS[highest >= LEVELS]
    depths = np.array([np.quantile(depth_B[group], known) for group in groups])
    depths[:, 0] = 0.0
    return replace(
        kappa_only,
        levels=tuple(known.tolist()),
        log_group=tuple(centre_G[apart].tolist()),
        depths=tuple(tuple(row) for row in depths.tolist()),
    )


def kappa_of_median(angle: Array | float) -> Array:
    """Return the kappa whose 50% contour has this radius; 0 from pi / 2 on.

    Args:
        angle: Median opening angles, rad, any shape.
    """
    found = np.asarray(angle, np.float64)
    low, high = np.full(found.shape, -8.0), np.full(found.shape, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        is_more = depth(10**middle, found) > np.log(2)
        low, high = np.where(is_more, low, middle), np.where(is_more, middle, high)
    kappa: Array = np.where(found < np.pi / 2, 10 ** ((low + high) / 2), 0.0)
    return kappa


def _factor(kappa: Array, angle: Array) -> float:
    """Return the factor on all kappas with which half of the truths lie within 50%."""
    low, high = -8.0, 8.0  # of log10
    for _ in range(60):
        middle = (low + high) / 2
        if np.median(depth(kappa * 10**middle, angle)) > np.log(2):
            high = middle
        else:
            low = middle
    return float(10 ** ((low + high) / 2))


def _isotonic(
    kappa: Array, angle: Array, order: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return knots and values, log10, of a rising map."""
    bins = np.array_split(order, min(NUM_BINS, max(1, len(kappa) // BIN)))
    centre = np.array([np.log10(kappa[b]).mean() for b in bins])
    worth = kappa_of_median(np.array([np.median(angle[b]) for b in bins]))
    log = np.log10(np.maximum(worth, SMALLEST_KAPPA))
    rising = -_pool((-log).tolist(), [len(b) for b in bins])
    keep = np.append(True, np.diff(centre) > 0)
    return centre[keep], rising[keep]


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
