"""Is kappa honest, and what makes it so.

A kappa is honest if contours that are said to hold a share of the probability hold that
share of the true directions. Three views: pulls (opening angle in units of the radius
that kappa promises), coverage of contours, and the level at which each true direction
lies, which is spread evenly if kappa is honest.

`KappaCalibration` gives a better kappa for each kappa, and the contour to ask for so
that it holds what it is asked to hold: real errors have longer tails than a von
Mises-Fisher distribution, so no single kappa makes both the 50% and the 90% contour
right. `calibration_fit` finds one.

Contours are told by their depth, -ln of the share outside: 0 at the predicted
direction, kappa * (1 - cos(angle)) near it. Where a level is 1 to the last digit, far
in the tail, depth still tells one angle from another.

Shape letters: B events, K knots. Source: the von Mises-Fisher distribution, Mardia and
Jupp, Directional Statistics (2000), chapter 9; calibration of levels after Kuleshov,
Fenner and Ermon, arXiv:1807.00263.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("none", "temperature", "isotonic")
# Radius in units of sigma = 1 / sqrt(kappa) that holds half of the events, for large
# kappa: the angle is Rayleigh distributed, median sqrt(2 ln 2).
HONEST_MEDIAN_PULL = float(np.sqrt(2 * np.log(2)))
SMALLEST = 1e-12  # kappa below which a sky is uniform to the last digit

Array = NDArray[np.float64]


def depth(kappa_B: Array, angle_B: Array) -> Array:
    """Return the depth of the contour on which each true direction lies, (B,).

    Args:
        kappa_B: Concentrations.
        angle_B: Opening angles between prediction and truth, rad.

    Returns:
        -ln of the share of the probability farther off: 0 at the predicted direction,
        infinite opposite it.
    """
    kappa = np.maximum(np.asarray(kappa_B, np.float64), SMALLEST)
    # 1 - cos, without losing small angles.
    u = 2 * np.sin(np.asarray(angle_B, np.float64) / 2) ** 2
    with np.errstate(divide="ignore"):
        # The share outside is (exp(-kappa u) - exp(-2 kappa)) / (1 - exp(-2 kappa)).
        far = np.log(-np.expm1(-kappa * np.maximum(2 - u, 0.0)))
        found: Array = kappa * u - far + np.log(-np.expm1(-2 * kappa))
    return np.maximum(found, 0.0)


def radius_of_depth(kappa_B: Array, depth_B: Array | float) -> Array:
    """Return the radius of a contour by its depth, rad, (B,); undoes `depth`."""
    kappa = np.maximum(np.asarray(kappa_B, np.float64), SMALLEST)
    outside = -np.asarray(depth_B, np.float64) + np.log(-np.expm1(-2 * kappa))
    # Where nearly all is inside kappa u is large, and small where nearly nothing is.
    inside = -np.expm1(-2 * kappa) * -np.expm1(-np.asarray(depth_B, np.float64))
    near = -np.log1p(-np.minimum(inside, 0.5))
    product = np.where(inside < 0.5, near, -np.logaddexp(outside, -2 * kappa))
    radius: Array = 2 * np.arcsin(np.sqrt(np.clip(product / kappa / 2, 0.0, 1.0)))
    return radius


def containment(kappa_B: Array, angle_B: Array) -> Array:
    """Return the level of the contour on which each true direction lies, (B,).

    Args:
        kappa_B: Concentrations.
        angle_B: Opening angles between prediction and truth, rad.

    Returns:
        0 at the predicted direction to 1 opposite it; evenly spread if kappa is honest.
    """
    level: Array = -np.expm1(-depth(kappa_B, angle_B))
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


@dataclass(frozen=True, kw_only=True)
class KappaCalibration:
    """A better kappa for each kappa, and the level to ask for.

    Args:
        method: `none`, `temperature` (one factor) or `isotonic` (a rising map).
        log_kappa: (K,) log10 of predicted kappas, rising.
        log_calibrated: (K,) log10 of what they are worth; between knots a straight
            line, beyond them the last factor.
        levels: Nominal shares, rising from 0 to below 1.
        depths: Depths of the contours that, with the calibrated kappa, hold those
            shares; in between by -ln(1 - level), beyond them the last difference.
        num_events: Events it was fitted on.
    """

    method: str
    log_kappa: tuple[float, ...]
    log_calibrated: tuple[float, ...]
    levels: tuple[float, ...]
    depths: tuple[float, ...]
    num_events: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}; got {self.method!r}"
            )
        for name, other in (("log_kappa", "log_calibrated"), ("levels", "depths")):
            knots, values = np.array(getattr(self, name)), getattr(self, other)
            if len(knots) != len(values) or not len(knots):
                raise ValueError(
                    f"{name} and {other} must be of one length, got {len(knots)} and "
                    f"{len(values)}"
                )
            if (np.diff(knots) <= 0).any():
                raise ValueError(f"{name} must rise")
        if not 0 <= min(self.levels) <= max(self.levels) < 1:
            raise ValueError("levels must lie from 0 to below 1")
        if (np.diff(self.depths) < 0).any():
            raise ValueError("depths must not fall")

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
        return radius_of_depth(self.kappa(kappa_B), self._depth(level))

    def level(self, kappa_B: Array, angle_B: Array) -> Array:
        """Return the level of the calibrated contour through each truth, (B,).

        Args:
            kappa_B: Concentrations as predicted, not calibrated.
            angle_B: Opening angles, rad.
        """
        found = depth(self.kappa(kappa_B), angle_B)
        knots, nominal = np.array(self.depths), -np.log1p(-np.array(self.levels))
        beyond = np.maximum(found - knots[-1], 0.0)
        level: Array = -np.expm1(-np.interp(found, knots, nominal) - beyond)
        return level

    def _depth(self, level: float) -> float:
        """Return the depth of the contour that holds a share."""
        nominal = -np.log1p(-np.array(self.levels))
        wanted = -float(np.log1p(-level))
        beyond = max(wanted - float(nominal[-1]), 0.0)
        return float(np.interp(wanted, nominal, self.depths)) + beyond

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
