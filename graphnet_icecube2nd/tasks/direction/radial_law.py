"""How much of the probability lies within which angle of a predicted direction.

A von Mises-Fisher distribution is one exponential in u = 1 - cos(angle); calibrated
contours have other radii than its own. `RadialLaw` is exponential piece by piece, each
holding the share that it is said to hold, so that contours are exactly those asked for.
Its density falls all the way from the direction to its opposite, so that the smallest
region that holds a share is the cap within the contour; but where radii say that far
away is likelier than near, as with a direction found the wrong way round, it rises.

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

# Contours that a calibrated law keeps beside those asked for. More would follow the
# noise of the events that it was fitted on.
USUAL_LEVELS = (0.5, 0.9, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.95, 0.99)
FLAT = 1e-12  # a piece that falls by less is flat to the last digit
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class RadialLaw:
    """Shares of the probability against u = 1 - cos(angle from the direction)."""

    u: tuple[float, ...]  # (K,) borders of the pieces, rising, 0 to 2
    share: tuple[float, ...]  # (K,) probability within each border, rising, 0 to 1
    rate: tuple[float, ...]  # (K - 1,) a piece's density falls as exp(-rate * u)

    def __post_init__(self) -> None:
        if not len(self.u) == len(self.share) == len(self.rate) + 1 >= 2:
            raise ValueError(
                "a law has as many shares as borders and one rate less, got "
                f"{len(self.share)}, {len(self.u)} and {len(self.rate)}"
            )
        for name, values, last in (("u", self.u, 2.0), ("share", self.share, 1.0)):
            rises = bool((np.diff(values) > 0).all())
            if not rises or values[0] != 0 or values[-1] != last:
                raise ValueError(f"{name} must rise from 0 to {last:g}, got {values}")
        if not all(0 <= rate < np.inf for rate in self.rate):
            raise ValueError(f"rate must be 0 or more, got {self.rate}")

    @classmethod
    def of_kappa(cls, kappa: float) -> RadialLaw:
        """Return the von Mises-Fisher law; kappa 0 is the whole sky."""
        return cls(u=(0.0, 2.0), share=(0.0, 1.0), rate=(_checked(kappa),))

    @classmethod
    def through(cls, kappa: float, radii: Mapping[float, float]) -> RadialLaw:
        """Return a law with contours of some radii, rad, by level (0 to 1).

        It is von Mises-Fisher as far as they let it: radii of that distribution give it
        back. ValueError for levels not between 0 and 1, radii that do not rise.
        """
        kappa = _checked(kappa)
        levels = sorted(radii)
        if not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels lie between 0 and 1, got {levels}")
        u = [2 * float(np.sin(radii[level] / 2)) ** 2 for level in levels]
        borders, shares = np.array([0.0, *u, 2.0]), np.array([0.0, *levels, 1.0])
        if not _rises(radii) or not (np.diff(borders) > 0).all():
            words = ", ".join(
                f"{level:.0%} within {np.degrees(radii[level]):.4g} deg"
                for level in levels
            )
            raise ValueError(f"radii must rise from 0 to pi with levels, got {words}")
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
        """Return a law with the contours of a calibration, for a kappa as predicted.

        The contours of `levels` are exactly the calibration's. The usual ones (10% to
        90%, 95%, 99%) are kept, too, where they let the density fall.
        """
        kappa_B = np.array([_checked(kappa)])
        worth = float(calibration.kappa(kappa_B)[0])
        radii = {c: float(calibration.radius(kappa_B, c)[0]) for c in levels}
        law = cls.through(worth, radii)
        for level in USUAL_LEVELS:
            more = {level: float(calibration.radius(kappa_B, level)[0]), **radii}
            # Else there is noise of the events that it was fitted on.
            if _rises(more) and (finer := cls.through(worth, more)).falls:
                law, radii = finer, more
        return law

    @property
    def falls(self) -> bool:
        """Whether the density falls all the way, so that contours are the smallest."""
        mean = np.diff(self.share) / np.diff(self.u)
        return bool((mean[1:] <= mean[:-1] * (1 + ROUNDING)).all())

    def density(self, u: ArrayLike) -> Array:
        """Return the probability per steradian, 1/sr, at u = 1 - cos(angle)."""
        given = np.asarray(u, np.float64)
        piece = self._piece(given)
        borders, rates = np.array(self.u), np.array(self.rate)
        height = _height(rates, np.diff(borders), np.diff(self.share)) / (2 * np.pi)
        inner = np.maximum(given - borders[piece], 0.0)
        per_sr: Array = height[piece] * np.exp(-rates[piece] * inner)
        return per_sr

    def contained(self, u: ArrayLike) -> Array:
        """Return the share of the probability within u, 0 to 1; shape of u."""
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
        """Return the radius of the contour that holds a share, 0 to 1, rad."""
        if not 0 < level < 1:
            raise ValueError(f"a level lies between 0 and 1, got {level}")
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
    """Whether radii rise with their levels, from above 0 to below pi."""
    inner = [radii[level] for level in sorted(radii)]
    return bool((np.diff([0.0, *inner, np.pi]) > 0).all())


def _rates(kappa: float, borders: Array, shares: Array) -> list[float]:
    """Return rates with which the density falls, within pieces and across borders.

    A piece begins with the rate that joins its borders, as if they were contours of one
    exponential: kappa, if they are those of a von Mises-Fisher distribution. Beyond the
    last contour the rate goes on. Where the density would then rise across a border,
    both sides are made flatter, which no other border minds; and flat, if that is not
    enough.
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
    """Return the density in u where a piece begins."""
    fall = np.asarray(rate) * np.asarray(width)
    safe = np.where(fall > FLAT, fall, 1.0)
    steepness = np.where(fall > FLAT, -safe / np.expm1(-safe), 1.0)
    height: Array = np.asarray(share) / np.asarray(width) * steepness
    return height


def _end(rate: float, width: float, share: float) -> float:
    """Return the density in u where a piece ends."""
    return float(_height(rate, width, share) * np.exp(-rate * width))
