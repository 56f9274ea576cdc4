"""Is kappa honest, and what makes it so.

A kappa is honest if contours that are said to hold a share of the probability hold that
share of the true directions. Three views: pulls (opening angle in units of the radius
that kappa promises), coverage of contours, and the level at which each true direction
lies, which is spread evenly if kappa is honest.

`fit_calibration` finds, on events that were not trained on, a better kappa for each
kappa, and the level to ask for so that a contour holds what it is asked to hold: real
errors have longer tails than a von Mises-Fisher distribution, so no single kappa makes
both the 50% and the 90% contour right.

Shape letters: B events, K knots. Source: the von Mises-Fisher mean resultant length,
Mardia and Jupp, Directional Statistics (2000), chapter 9; calibration of levels after
Kuleshov, Fenner and Ermon, arXiv:1807.00263.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.direction.metrics import kappa_to_radius

METHODS = ("none", "temperature", "isotonic")
NUM_BINS = 100  # of events in the order of kappa, for the isotonic map
FEWEST = 100  # events that a calibration needs
LEVELS = np.linspace(0.0, 1.0, 201)
# Radius in units of sigma = 1 / sqrt(kappa) that holds half of the events, for large
# kappa: the angle is Rayleigh distributed, median sqrt(2 ln 2).
HONEST_MEDIAN_PULL = float(np.sqrt(2 * np.log(2)))

Array = NDArray[np.float64]


def containment(kappa_B: Array, angle_B: Array) -> Array:
    """Return the level of the contour on which each true direction lies, (B,).

    Args:
        kappa_B: Concentrations.
        angle_B: Opening angles between prediction and truth, rad.

    Returns:
        0 at the predicted direction to 1 opposite it; evenly spread if kappa is honest.
    """
    kappa = np.maximum(np.asarray(kappa_B, np.float64), 1e-12)
    # 1 - cos, without losing small angles.
    u = 2 * np.sin(np.asarray(angle_B, np.float64) / 2) ** 2
    level: Array = np.expm1(-kappa * u) / np.expm1(-2 * kappa)
    return level


def coverage(kappa_B: Array, angle_B: Array, levels: Sequence[float] | Array) -> Array:
    """Return the share of true directions inside the contours of some levels.

    Args:
        kappa_B: Concentrations.
        angle_B: Opening angles, rad.
        levels: Nominal shares, 0 to 1.
    """
    level_B = np.sort(containment(kappa_B, angle_B))
    inside: Array = np.searchsorted(level_B, levels, side="right") / len(level_B)
    return inside


def pulls(kappa_B: Array, angle_B: Array) -> Array:
    """Return opening angles in units of 1 / sqrt(kappa), (B,).

    Their median is 1.177 if kappa is honest and large.
    """
    pull: Array = np.asarray(angle_B) * np.sqrt(np.asarray(kappa_B))
    return pull


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


@dataclass(frozen=True, kw_only=True)
class KappaCalibration:
    """A better kappa for each kappa, and the level to ask for.

    Args:
        method: `none`, `temperature` (one factor) or `isotonic` (a rising map).
        log_kappa: (K,) log10 of predicted kappas, rising.
        log_calibrated: (K,) log10 of what they are worth; between knots a straight
            line, beyond them the last factor.
        levels: Nominal shares, rising from 0 to 1.
        asked: The levels whose contours, with the calibrated kappa, hold those shares.
        num_events: Events it was fitted on.
    """

    method: str
    log_kappa: tuple[float, ...]
    log_calibrated: tuple[float, ...]
    levels: tuple[float, ...]
    asked: tuple[float, ...]
    num_events: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}; got {self.method!r}"
            )
        for name, other in (("log_kappa", "log_calibrated"), ("levels", "asked")):
            knots, values = np.array(getattr(self, name)), getattr(self, other)
            if len(knots) != len(values) or not len(knots):
                raise ValueError(
                    f"{name} and {other} must be of one length, got {len(knots)} and "
                    f"{len(values)}"
                )
            if (np.diff(knots) <= 0).any():
                raise ValueError(f"{name} must rise")

    def kappa(self, kappa_B: Array) -> Array:
        """Return calibrated concentrations, (B,); NaN stays NaN."""
        kappa = np.asarray(kappa_B, np.float64)
        with np.errstate(divide="ignore"):
            log = np.log10(np.maximum(kappa, 1e-12))
        knots, values = np.array(self.log_kappa), np.array(self.log_calibrated)
        shift = np.interp(log, knots, values - knots)
        calibrated: Array = np.where(kappa > 0, 10 ** (log + shift), kappa)
        return calibrated

    def radius(self, kappa_B: Array, level: float) -> Array:
        """Return the radius that holds a share of the true directions, rad, (B,).

        Args:
            kappa_B: Concentrations as predicted, not calibrated.
            level: 0 to 1.

        Raises:
            ValueError: The level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"a level lies between 0 and 1, got {level}")
        asked = float(np.interp(level, self.levels, self.asked))
        radius = kappa_to_radius(torch.from_numpy(self.kappa(kappa_B)), asked)
        found: Array = radius.numpy()
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and YAML can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KappaCalibration:
        """Rebuild what `to_dict` gave.

        Raises:
            ValueError: A value is missing, unknown or not allowed.
        """
        try:
            made: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            return cls(**made)
        except TypeError as error:
            raise ValueError(f"no calibration: {error}") from None


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
        levels=(0.0, 1.0),
        asked=(0.0, 1.0),
        num_events=len(kappa),
    )
    if not levels:
        return kappa_only
    level_B = containment(kappa_only.kappa(kappa), angle)
    asked = np.quantile(level_B, LEVELS)
    asked[0], asked[-1] = 0.0, 1.0
    return KappaCalibration(
        method=method,
        log_kappa=kappa_only.log_kappa,
        log_calibrated=kappa_only.log_calibrated,
        levels=tuple(LEVELS.tolist()),
        asked=tuple(np.maximum.accumulate(asked).tolist()),
        num_events=len(kappa),
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
