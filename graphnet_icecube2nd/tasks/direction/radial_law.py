"""Share of the probability within an angle of a predicted direction.

A von Mises-Fisher distribution is one exponential in u = 1 - cos(angle); calibrated
contours have other radii. `RadialLaw` is a piecewise exponential; each piece contains a
given share, so that the given contours are exact. Its density normally falls from the
direction to its opposite, so that the smallest region with a given share is the cap
within the contour. It rises only if the radii make far directions more likely than near
ones, for example if directions were found the wrong way round.

Shape letters: K knots. Source of the distribution: Mardia and Jupp, Directional
Statistics (2000), chapter 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration, bisect

Array = NDArray[np.float64]

# Levels of a calibrated law besides the requested ones. More would follow the noise of
# the events of the fit.
USUAL_LEVELS = (0.5, 0.9, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.95, 0.99)
FLAT = 1e-12  # relative fall below which a piece is numerically flat
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class RadialLaw:
    """Share of the probability against u = 1 - cos(angle from the direction)."""

    u: tuple[float, ...]  # (K,) borders of the pieces, ascending, 0 to 2
    share: tuple[float, ...]  # (K,) probability within each border, ascending, 0 to 1
    rate: tuple[float, ...]  # (K - 1,) the density of a piece falls as exp(-rate * u)

    def __post_init__(self) -> None:
        if not len(self.u) == len(self.share) == len(self.rate) + 1 >= 2:
            raise ValueError(
                "a law needs as many shares as borders and one rate fewer, got "
                f"{len(self.share)}, {len(self.u)} and {len(self.rate)}"
            )
        for name, values, last in (("u", self.u, 2.0), ("share", self.share, 1.0)):
            rises = bool((np.diff(values) > 0).all())
            if not rises or values[0] != 0 or values[-1] != last:
                raise ValueError(
                    f"{name} must increase from 0 to {last:g}, got {values}"
                )
        if not all(0 <= rate < np.inf for rate in self.rate):
            raise ValueError(f"rate must be 0 or more, got {self.rate}")

    @classmethod
    def of_kappa(cls, kappa: float) -> RadialLaw:
        """Return the von Mises-Fisher law; kappa 0 is a uniform sky."""
        return cls(u=(0.0, 2.0), share=(0.0, 1.0), rate=(_checked(kappa),))

    @classmethod
    def through(cls, kappa: float, radii: Mapping[float, float]) -> RadialLaw:
        """Return a law with contours of given radii [rad] by level (0 to 1).

        The law is as close to von Mises-Fisher as they allow: radii of that
        distribution give that distribution. ValueError if a level is not between 0 and
        1, or radii do not increase.
        """
        kappa = _checked(kappa)
        levels = sorted(radii)
        if not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels must be between 0 and 1, got {levels}")
        u = [2 * float(np.sin(radii[level] / 2)) ** 2 for level in levels]
        borders, shares = np.array([0.0, *u, 2.0]), np.array([0.0, *levels, 1.0])
        if not _rises(radii) or not (np.diff(borders) > 0).all():
            words = ", ".join(
                f"{level:.0%} within {np.degrees(radii[level]):.4g} deg"
                for level in levels
            )
            raise ValueError(
                f"radii must increase with the level, from 0 to pi, got {words}"
            )
        return cls(
            u=tuple(borders.tolist()),
            share=tuple(shares.tolist()),
            rate=tuple(_rates(kappa, borders, shares)),
        )

    @classmethod
    def calibrated(
        cls,
        kappa: float,
        calibration: KappaCalibration,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> RadialLaw:
        """Return a law with the contours of a calibration, for a predicted kappa.

        The contours of `levels` are exactly those of the calibration. The usual
        contours (10% to 90%, 95%, 99%) are kept too if the density still falls.
        """
        kappa_B = np.array([_checked(kappa)])
        worth = float(calibration.kappa(kappa_B)[0])
        radii = {c: float(calibration.radius(kappa_B, c)[0]) for c in levels}
        law = cls.through(worth, radii)
        for level in USUAL_LEVELS:
            more = {level: float(calibration.radius(kappa_B, level)[0]), **radii}
            # Otherwise they follow the noise of the events of the fit.
            if _rises(more) and (finer := cls.through(worth, more)).falls:
                law, radii = finer, more
        return law

    @property
    def falls(self) -> bool:
        """Whether the density falls everywhere, so that contours are the smallest."""
        mean = np.diff(self.share) / np.diff(self.u)
        return bool((mean[1:] <= mean[:-1] * (1 + ROUNDING)).all())

    def density(self, u: ArrayLike) -> Array:
        """Return the probability density, 1/sr, at u = 1 - cos(angle)."""
        given = np.asarray(u, np.float64)
        piece = self._piece(given)
        borders, rates = np.array(self.u), np.array(self.rate)
        height = _height(rates, np.diff(borders), np.diff(self.share)) / (2 * np.pi)
        inner = np.maximum(given - borders[piece], 0.0)
        per_sr: Array = height[piece] * np.exp(-rates[piece] * inner)
        return per_sr

    def contained(self, u: ArrayLike) -> Array:
        """Return the share of the probability within u, 0 to 1; shape as u."""
        given = np.asarray(u, np.float64)
        piece = self._piece(given)
        borders, shares = np.array(self.u), np.array(self.share)
        width, rate = np.diff(borders)[piece], np.array(self.rate)[piece]
        inner = np.clip(given - borders[piece], 0.0, width)
        steep = rate * width > FLAT
        safe = np.where(steep, rate, 1.0)
        part = np.where(
            steep, np.expm1(-safe * inner) / np.expm1(-safe * width), inner / width
        )
        inside: Array = shares[piece] + np.diff(shares)[piece] * part
        return inside

    def radius(self, level: float) -> float:
        """Return the radius [rad] of the contour with a share, 0 to 1."""
        if not 0 < level < 1:
            raise ValueError(f"a level must be between 0 and 1, got {level}")
        piece = int(np.searchsorted(self.share, level, side="left")) - 1
        first, last = self.u[piece : piece + 2]
        low, high = self.share[piece : piece + 2]
        part, rate, width = (level - low) / (high - low), self.rate[piece], last - first
        if level == high:
            u = last
        elif rate * width <= FLAT:
            u = first + part * width
        else:
            u = first - float(np.log1p(part * np.expm1(-rate * width))) / rate
        return float(2 * np.arcsin(np.sqrt(min(u, last) / 2)))

    def _piece(self, u: Array) -> NDArray[np.intp]:
        return np.searchsorted(self.u[1:-1], u, side="right")


def cap_area(radius: float) -> float:
    """Return the area within a radius [rad] on the sphere, square degrees."""
    return float(np.degrees(np.degrees(4 * np.pi * np.sin(radius / 2) ** 2)))


def _checked(kappa: float) -> float:
    if not 0 <= kappa < np.inf:
        raise ValueError(f"kappa must be finite and 0 or more, got {kappa}")
    return float(kappa)


def _rises(radii: Mapping[float, float]) -> bool:
    """Return whether radii increase with their levels, from above 0 to below pi."""
    inner = [radii[level] for level in sorted(radii)]
    return bool((np.diff([0.0, *inner, np.pi]) > 0).all())


def _rates(kappa: float, borders: Array, shares: Array) -> list[float]:
    """Return rates for which the density falls, within pieces and across borders.

    The first choice for a piece is the rate of one exponential through its borders. It
    is kappa if they are those of a von Mises-Fisher distribution. Beyond the last
    contour the rate continues. If the density then rises across a border, both sides
    are made flatter, which does not affect other borders; if this is not enough, they
    are made flat.
    """
    exponent = -np.log1p(shares[:-1] * np.expm1(-2 * kappa))
    width, share = np.diff(borders), np.diff(shares)
    inner = np.diff(exponent) / width[:-1]
    rates = [*inner.tolist(), float(inner[-1]) if len(inner) else kappa]
    mean = share / width
    for left in range(len(rates) - 1):
        right = left + 1
        end = _end(rates[left], width[left], share[left])
        start = float(_height(rates[right], width[right], share[right]))
        if end >= start * (1 - ROUNDING):
            continue
        if mean[right] > mean[left]:
            rates[left] = rates[right] = 0.0
            continue
        meet = min(max(np.sqrt(end * start), mean[right]), mean[left])

        def ends_below(rate: float, left: int = left, meet: float = meet) -> bool:
            return _end(rate, width[left], share[left]) < meet

        def starts_above(rate: float, right: int = right, meet: float = meet) -> bool:
            return float(_height(rate, width[right], share[right])) > meet

        rates[left], _ = bisect(ends_below, 0.0, rates[left], 100)
        rates[right], _ = bisect(starts_above, 0.0, rates[right], 100)
    return rates


def _height(rate: ArrayLike, width: ArrayLike, share: ArrayLike) -> Array:
    """Return the density in u at the beginning of a piece."""
    fall = np.asarray(rate) * np.asarray(width)
    safe = np.where(fall > FLAT, fall, 1.0)
    steepness = np.where(fall > FLAT, -safe / np.expm1(-safe), 1.0)
    height: Array = np.asarray(share) / np.asarray(width) * steepness
    return height


def _end(rate: float, width: float, share: float) -> float:
    """Return the density in u at the end of a piece."""
    return float(_height(rate, width, share) * np.exp(-rate * width))
