"""The calibration of kappa: do contours hold their share, and a map that makes them.

A kappa is calibrated if contours that are said to hold a share of the probability hold
that share of the true directions. Three views: pulls (opening angle in units of the
radius that kappa promises), coverage of contours, and the level at which each true
direction lies, which is uniform if kappa is calibrated.

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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.config import to_plain

METHODS = ("none", "temperature", "isotonic")
# Radius in units of sigma = 1 / sqrt(kappa) that holds half of the events, for large
# kappa: the angle is Rayleigh distributed, median sqrt(2 ln 2).
CALIBRATED_MEDIAN_PULL = float(np.sqrt(2 * np.log(2)))
AT_ONCE = 8192  # events
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
        0 at the predicted direction to 1 opposite it; uniform if kappa is calibrated.
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

    Their median is 1.177 if kappa is calibrated and large.
    """
    pull: Array = np.asarray(angle_B) * np.sqrt(np.asarray(kappa_B))
    return pull


@dataclass(frozen=True, kw_only=True)
class KappaCalibration:
    """A better kappa for each kappa, and the contour to ask for.

    Args:
        method: `none`, `temperature` (one factor) or `isotonic` (a rising map).
        log_kappa: (K,) log10 of predicted kappas, rising.
        log_calibrated: (K,) log10 of what they are worth; between knots a straight
            line, beyond them the last factor.
        levels: (L,) nominal shares, rising from 0 to below 1.
        log_group: (G,) log10 of predicted kappas, rising: where the tails were looked
            at. Lost events are not equally many at all kappas.
        depths: (G, L) depths of the contours that, with the calibrated kappa, hold
            those shares; in between by -ln(1 - level), beyond them the last difference.
        num_events: Events it was fitted on.
    """

    method: str
    log_kappa: tuple[float, ...]
    log_calibrated: tuple[float, ...]
    levels: tuple[float, ...] = (0.0,)
    log_group: tuple[float, ...] = (0.0,)
    depths: tuple[tuple[float, ...], ...] = ((0.0,),)
    num_events: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}; got {self.method!r}"
            )
        lengths = {
            "log_calibrated": (len(self.log_calibrated), len(self.log_kappa)),
            "depths": (len(self.depths), len(self.log_group)),
            **{
                f"depths[{n}]": (len(row), len(self.levels))
                for n, row in enumerate(self.depths)
            },
        }
        for name, (found, wanted) in lengths.items():
            if found != wanted or not found:
                raise ValueError(f"{name} must have {wanted} entries, got {found}")
        for name in ("log_kappa", "log_group", "levels"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise ValueError(f"{name} must rise")
        if not 0 <= min(self.levels) <= max(self.levels) < 1:
            raise ValueError("levels must lie from 0 to below 1")
        if (np.diff(self.depths, axis=1) < 0).any():
            raise ValueError("depths must not fall")

    def kappa(self, kappa_B: Array) -> Array:
        """Return calibrated concentrations, (B,); NaN stays NaN."""
        kappa = np.asarray(kappa_B, np.float64)
        log = _log10(kappa)
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
        nominal = -np.log1p(-np.array(self.levels))
        wanted = -float(np.log1p(-level))
        beyond = max(wanted - float(nominal[-1]), 0.0)
        depth_G = [np.interp(wanted, nominal, row) + beyond for row in self.depths]
        depth_B = np.interp(_log10(kappa_B), self.log_group, depth_G)
        return radius_of_depth(self.kappa(kappa_B), depth_B)

    def level(self, kappa_B: Array, angle_B: Array) -> Array:
        """Return the level of the calibrated contour through each truth, (B,).

        Args:
            kappa_B: Concentrations as predicted, not calibrated.
            angle_B: Opening angles, rad.
        """
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and YAML can hold."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KappaCalibration:
        """Rebuild what `to_dict` gave.

        Raises:
            ValueError: A value is missing, unknown or not allowed.
        """
        try:
            made = {k: _tuples(v) for k, v in values.items()}
            return cls(**made)
        except TypeError as error:
            raise ValueError(f"no calibration: {error}") from None


def _read_backwards(depth_B: Array, knots_BL: Array, nominal_L: Array) -> Array:
    """Return the nominal depth of each depth, (B,), by each event's own knots."""
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
    found: Array = np.where(below_B < len(nominal_L) - 1, between_B, beyond_B)
    return found


def _log10(kappa_B: Array) -> Array:
    log: Array = np.log10(np.maximum(np.asarray(kappa_B, np.float64), SMALLEST))
    return log


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
