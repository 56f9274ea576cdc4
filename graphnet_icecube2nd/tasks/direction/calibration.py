"""Calibration of kappa and of the contours that it predicts.

A kappa is calibrated if a contour for a share of the probability contains that share of
the true directions. Three quantities show this: pulls (opening angle in units of the
radius predicted by kappa), coverage of contours, and the level of the contour through
each true direction, which is uniform if kappa is calibrated.

`KappaCalibration` has a corrected kappa for each kappa, and the contour to use for a
given share. Real errors have longer tails than a von Mises-Fisher distribution, so no
single kappa makes both the 50% and the 90% contour right. `fit_calibration` fits it on
events that were not trained on. Kappa is fitted to the core, the median opening angle,
which a few badly reconstructed events do not change; the tails set the depths of
contours, separately for small and large kappas.

The depth of a contour is -ln of the share outside: 0 at the predicted direction, about
kappa * (1 - cos(angle)) near it. In the far tail, where levels round to 1, depth still
distinguishes angles.

Shape letters: B events, K knots, G groups of similar kappa, L levels. Source: the von
Mises-Fisher distribution, Mardia and Jupp, Directional Statistics (2000), chapter 9;
calibration of levels after Kuleshov, Fenner and Ermon, arXiv:1807.00263.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    TensorLike,
    at_least_float32,
    precise_dtype,
    to_tensor,
)
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.tasks.task import FEWEST, Calibration

METHODS = ("none", "temperature", "isotonic")
# Radius that contains half of the events, in units of sigma = 1 / sqrt(kappa), for
# large kappa: the angle is Rayleigh distributed with median sqrt(2 ln 2).
CALIBRATED_MEDIAN_PULL = float(np.sqrt(2 * np.log(2)))
AT_ONCE = 8192  # events
SMALLEST = 1e-12  # kappa below which the sky is numerically uniform
UNIFORM_BELOW = 1e-20  # the same for `kappa_to_radius`
NUM_BINS, BIN = 100, 200  # maximum bins in kappa, minimum events per bin
NUM_GROUPS, GROUP = 10, 1000  # the same for the tails
LARGEST_DEPTH = 1e12  # replaces the infinity opposite the direction, for files
SMALLEST_KAPPA = 1e-6
FEWEST_BEYOND = 3  # events beyond the highest fitted level
LEVELS = np.append(np.linspace(0.0, 0.99, 199), [0.995, 0.998, 0.999, 0.9995, 0.9999])

Array = NDArray[np.float64]


def kappa_to_radius(kappa: TensorLike, containment: TensorLike) -> Tensor:
    """Return the opening angle that contains a fraction of a vMF distribution.

    It is exact for every kappa: the fraction inside theta is
    (1 - exp(-kappa u)) / (1 - exp(-2 kappa)) with u = 1 - cos(theta), solved for theta.
    Kappa 0 is a uniform sky, where half the sphere lies within pi/2; for large kappa
    and containment 0.39 the radius is the per-axis sigma 1 / sqrt(kappa).

    Args:
        kappa: Concentration, not negative, shape (...).
        containment: Fraction 0..1, shape (...); both broadcast.

    Returns:
        Radius, rad, 0..pi, shape (...), in the dtype of kappa, but at least float32.

    Raises:
        ValueError: A kappa is negative or a containment outside 0..1.
    """
    kappa = to_tensor(kappa)
    dtype = at_least_float32(kappa)
    kappa = kappa.to(precise_dtype(kappa.device))
    containment = to_tensor(containment).to(kappa)
    _check_range("kappa", kappa, 0, math.inf)
    _check_range("containment", containment, 0, 1)
    # At kappa 0 the two forms below become 0 / 0; their limit is 2 * containment.
    is_uniform = kappa < UNIFORM_BELOW
    positive = torch.where(is_uniform, 1.0, kappa)
    # -kappa u = ln(1 - shrink) = ln((1 - containment) + containment * exp(-2 kappa)):
    # the first form is accurate at small kappa, the second for small 1 - shrink;
    # neither overflows.
    shrink = -containment * torch.expm1(-2 * positive)
    minus_kappa_u = torch.where(
        shrink < 0.5,
        torch.log1p(-shrink),
        torch.logaddexp(
            torch.log1p(-containment), torch.log(containment) - 2 * positive
        ),
    )
    u = torch.where(is_uniform, 2 * containment, -minus_kappa_u / positive)
    # u = 2 sin^2(theta / 2); rounding may lift u above 2.
    return (2 * torch.asin(torch.sqrt((u / 2).clamp(0, 1)))).to(dtype)


def depth(kappa_B: Array, angle_B: Array) -> Array:
    """Return the depth of the contour through each true direction, (B,).

    Depth is -ln of the share of the probability outside the contour: 0 at the predicted
    direction, infinite opposite it. Angles between prediction and truth are in rad.
    """
    kappa = np.maximum(np.asarray(kappa_B, np.float64), SMALLEST)
    # 1 - cos, accurate for small angles.
    u = 2 * np.sin(np.asarray(angle_B, np.float64) / 2) ** 2
    with np.errstate(divide="ignore"):
        # The share outside is (exp(-kappa u) - exp(-2 kappa)) / (1 - exp(-2 kappa)).
        far = np.log(-np.expm1(-kappa * np.maximum(2 - u, 0.0)))
        depth_B: Array = kappa * u - far + np.log(-np.expm1(-2 * kappa))
    return np.maximum(depth_B, 0.0)


def radius_of_depth(kappa_B: Array, depth_B: Array | float) -> Array:
    """Return the radius [rad] of a contour of given depth, (B,); inverse of `depth`."""
    kappa = np.maximum(np.asarray(kappa_B, np.float64), SMALLEST)
    outside = -np.asarray(depth_B, np.float64) + np.log(-np.expm1(-2 * kappa))
    # kappa u is large if nearly everything is inside, and small if nearly nothing is.
    inside = -np.expm1(-2 * kappa) * -np.expm1(-np.asarray(depth_B, np.float64))
    near = -np.log1p(-np.minimum(inside, 0.5))
    product = np.where(inside < 0.5, near, -np.logaddexp(outside, -2 * kappa))
    radius: Array = 2 * np.arcsin(np.sqrt(np.clip(product / kappa / 2, 0.0, 1.0)))
    return radius


def containment(kappa_B: Array, angle_B: Array) -> Array:
    """Return the levels of the contours through the truths, (B,); uniform if right."""
    level: Array = -np.expm1(-depth(kappa_B, angle_B))
    return level


def pulls(kappa_B: Array, angle_B: Array) -> Array:
    """Return angles in units of 1 / sqrt(kappa), (B,); median 1.177 if calibrated."""
    pull: Array = np.asarray(angle_B) * np.sqrt(np.asarray(kappa_B))
    return pull


@dataclass(frozen=True, kw_only=True)
class KappaCalibration(Calibration):
    """A corrected kappa for each kappa, and the contour to use for a given share.

    Between knots the logarithm of calibrated kappa is linear; outside them the factor
    at the edge holds. Depths are interpolated in -ln(1 - level); beyond the last level
    the last difference holds. Groups of kappas have their own depths, because the share
    of badly reconstructed events depends on kappa.
    """

    method: str  # none, temperature (one factor) or isotonic (an increasing map)
    log_kappa: tuple[float, ...]  # (K,) log10 of predicted kappas, ascending
    log_calibrated: tuple[float, ...]  # (K,) log10 of calibrated kappas
    levels: tuple[float, ...] = (0.0,)  # (L,) nominal shares, ascending, 0 to below 1
    log_group: tuple[float, ...] = (0.0,)  # (G,) log10 of predicted kappas, ascending
    # (G, L) of the contours that, with calibrated kappa, contain the shares `levels`
    depths: tuple[tuple[float, ...], ...] = ((0.0,),)
    num_events: int = 0

    def __post_init__(self) -> None:
        check_one_of("method", self.method, METHODS)
        lengths = {
            "log_calibrated": (len(self.log_calibrated), len(self.log_kappa)),
            "depths": (len(self.depths), len(self.log_group)),
            **{
                f"depths[{n}]": (len(row), len(self.levels))
                for n, row in enumerate(self.depths)
            },
        }
        for name, (length, wanted) in lengths.items():
            if length != wanted or not length:
                raise ValueError(f"{name} must have {wanted} entries, got {length}")
        for name in ("log_kappa", "log_calibrated", "log_group", "levels", "depths"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} must be finite")
        for name in ("log_kappa", "log_group", "levels"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise ValueError(f"{name} must increase")
        if not 0 <= min(self.levels) <= max(self.levels) < 1:
            raise ValueError("levels must lie from 0 to below 1")
        if (np.diff(self.depths, axis=1) < 0).any():
            raise ValueError("depths must not decrease")

    def kappa(self, kappa_B: Array) -> Array:
        """Return calibrated concentrations, (B,); NaN stays NaN."""
        kappa = np.asarray(kappa_B, np.float64)
        log = _log10(kappa)
        knots, values = np.array(self.log_kappa), np.array(self.log_calibrated)
        shift = np.interp(log, knots, values - knots)
        calibrated: Array = np.where(kappa > 0, 10 ** (log + shift), kappa)
        return calibrated

    def radius(self, kappa_B: Array, level: float) -> Array:
        """Return radii [rad] for a share (0 to 1), (B,), from predicted kappa."""
        if not 0 < level < 1:
            raise ValueError(f"a level must be between 0 and 1, got {level}")
        nominal = -np.log1p(-np.array(self.levels))
        wanted = -float(np.log1p(-level))
        beyond = max(wanted - float(nominal[-1]), 0.0)
        depth_G = [np.interp(wanted, nominal, row) + beyond for row in self.depths]
        depth_B = np.interp(_log10(kappa_B), self.log_group, depth_G)
        return radius_of_depth(self.kappa(kappa_B), depth_B)

    def level(self, kappa_B: Array, angle_B: Array) -> Array:
        """Return the level of the calibrated contour through each truth, (B,)."""
        depth_B = depth(self.kappa(kappa_B), angle_B)
        nominal_L = -np.log1p(-np.array(self.levels))
        level_B = np.empty(len(depth_B))
        for start in range(0, len(depth_B), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            knots_BL = self._depths(np.asarray(kappa_B)[some])
            level_B[some] = _read_backwards(depth_B[some], knots_BL, nominal_L)
        return -np.expm1(-level_B)

    def _depths(self, kappa_B: Array) -> Array:
        """Return the depths of the levels for each kappa, (B, L)."""
        log, depths_GL = _log10(kappa_B), np.array(self.depths)
        columns = [np.interp(log, self.log_group, column) for column in depths_GL.T]
        return np.stack(columns, axis=1)


def _read_backwards(depth_B: Array, knots_BL: Array, nominal_L: Array) -> Array:
    """Return the nominal depth for each depth, (B,), from each event's own knots."""
    row = np.arange(len(depth_B))
    below_B = np.maximum((knots_BL <= depth_B[:, None]).sum(axis=1) - 1, 0)
    above_B = np.minimum(below_B + 1, len(nominal_L) - 1)
    low_B, high_B = knots_BL[row, below_B], knots_BL[row, above_B]
    part_B = np.divide(
        depth_B - low_B,
        high_B - low_B,
        out=np.zeros_like(depth_B),
        where=high_B > low_B,
    )
    between_B = nominal_L[below_B] + part_B * (nominal_L[above_B] - nominal_L[below_B])
    beyond_B = nominal_L[-1] + depth_B - knots_BL[:, -1]
    level_B: Array = np.where(below_B < len(nominal_L) - 1, between_B, beyond_B)
    return level_B


def _log10(kappa_B: Array) -> Array:
    log: Array = np.log10(np.maximum(np.asarray(kappa_B, np.float64), SMALLEST))
    return log


def fit_calibration(
    kappa_B: Array, angle_B: Array, method: str = "isotonic", *, levels: bool = True
) -> KappaCalibration:
    """Fit a calibration on events that were not trained on; all must have a kappa.

    Methods: `none` keeps kappa; `temperature` fits one factor; `isotonic` fits an
    increasing map. With the last two, half of the truths lie within the 50% contour.
    `levels` also corrects the levels of contours, for `isotonic` in groups of kappa.
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
            f"a calibration needs at least {FEWEST} events with a kappa, got "
            f"{len(kappa)}"
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
    # Levels that very few events exceed are left to the last difference.
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


def even_and_odd(num_events: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the masks of the two halves, (B,) each: even and odd events."""
    even_B = np.arange(num_events) % 2 == 0
    return even_B, ~even_B


def kappa_of_median(angle: Array | float) -> Array:
    """Return the kappa whose 50% contour has this radius [rad]; 0 from pi / 2."""
    median = np.asarray(angle, np.float64)
    low, high = np.full(median.shape, -8.0), np.full(median.shape, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        is_more = depth(10**middle, median) > np.log(2)
        low, high = np.where(is_more, low, middle), np.where(is_more, middle, high)
    kappa: Array = np.where(median < np.pi / 2, 10 ** ((low + high) / 2), 0.0)
    return kappa


def _factor(kappa: Array, angle: Array) -> float:
    """Return the factor on kappas for which half of the truths lie within 50%."""

    def is_too_large(log_factor: float) -> bool:
        depth_B = depth(kappa * 10**log_factor, angle)
        return bool(np.median(depth_B) > np.log(2))

    low, high = bisect(is_too_large, -8.0, 8.0, 60)
    return float(10 ** ((low + high) / 2))


def bisect(
    is_above: Callable[[float], bool], low: float, high: float, steps: int
) -> tuple[float, float]:
    """Return the interval of the first number that is above, after halving steps."""
    for _ in range(steps):
        middle = (low + high) / 2
        if is_above(middle):
            high = middle
        else:
            low = middle
    return low, high


def _isotonic(
    kappa: Array, angle: Array, order: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return knots and values, log10, of an increasing map."""
    bins = np.array_split(order, min(NUM_BINS, max(1, len(kappa) // BIN)))
    centre = np.array([np.log10(kappa[b]).mean() for b in bins])
    worth = kappa_of_median(np.array([np.median(angle[b]) for b in bins]))
    log = np.log10(np.maximum(worth, SMALLEST_KAPPA))
    rising = -_pool((-log).tolist(), [len(b) for b in bins])
    keep = np.append(True, np.diff(centre) > 0)
    return centre[keep], rising[keep]


def _pool(values: Sequence[float], weights: Sequence[int]) -> Array:
    """Return the closest non-increasing sequence, by pooling neighbours that rise."""
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


def _check_range(name: str, values: Tensor, lowest: float, highest: float) -> None:
    """Raise ValueError for the first value outside lowest..highest; NaN passes."""
    is_bad = (values < lowest) | (values > highest)
    if is_bad.any():
        raise ValueError(
            f"{name} must lie in {lowest}..{highest}; got {values[is_bad][0].item()}"
        )
