"""The pixels and contours of a sky map, and how much of the density a pixel holds.

Pixels are HEALPix's, all of one area (Gorski et al., ApJ 622 (2005) 759). Shape
letters: P pixels of the map, p some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

Array = NDArray[np.float64]

LOCAL, EQUATORIAL = COORDINATES = ("local", "equatorial")
LEVELS = (0.5, 0.9)
ORDERS = ("ring", "nested")
# By default: pixels within the 50% contour, and the smallest and largest NSIDE.
FEWEST_PIXELS, SMALLEST, LARGEST = 100, 64, 1024
# Pixels wider than this share of the distance from the direction, or of the radius of
# the 50% contour, are the mean of smaller ones: where the density bends.
COARSE = 0.2
FINEST = 2**26
CHUNK = 2**20  # pixels worked on at once


@dataclass(frozen=True, kw_only=True)
class Contour:
    """A contour of a sky map: the circle, and the pixels that make the same region.

    Args:
        level: Share of the probability within.
        radius: Of the circle, rad.
        area: Within the circle, square degrees.
        num_pixels: Fewest pixels that hold the share.
        pixel_area: Their area, square degrees.
        density: Least density among them, 1/sr.
    """

    level: float
    radius: float
    area: float
    num_pixels: int
    pixel_area: float
    density: float


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return levels as they are, each between 0 and 1 and none twice.

    Raises:
        ValueError: They are not so, or there is none.
    """
    chosen = tuple(float(level) for level in levels)
    if not chosen or not all(0 < level < 1 for level in chosen):
        raise ValueError(f"levels lie between 0 and 1, got {chosen}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"a level stands there twice: {chosen}")
    return chosen


def default_nside(law: RadialLaw) -> int:
    """Return the NSIDE with which the 50% contour covers 100 pixels or more.

    Powers of two from 64, which tools expect, to 1024, 12.6 million pixels.
    """
    half = 2 * np.sin(law.radius(0.5) / 2) ** 2
    wanted = np.sqrt(FEWEST_PIXELS / (6 * half))
    power = 1 << max(int(np.ceil(np.log2(wanted))), 0)
    return min(max(power, SMALLEST), LARGEST)


def import_maps(module: str) -> Any:
    """Return a module of the libraries of sky maps, astropy or astropy_healpix.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0].replace("_", "-")
        raise ImportError(
            f"sky maps need {library}: pip install graphnet-icecube2nd[maps]"
        ) from error


def check_grid(nside: int, order: str) -> None:
    """Raise ValueError if there is no such grid of pixels."""
    if not 1 <= nside <= 8192 or nside & (nside - 1):
        raise ValueError(f"nside must be a power of two from 1 to 8192, got {nside}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")


def mean_densities(law: RadialLaw, centre: Array, nside: int, order: str) -> Array:
    """Return mean densities of the pixels of a map, (P,), 1/sr.

    They are divided by their sum, so that they integrate to 1.

    Args:
        law: How the probability spreads around the direction.
        centre: (3,) the direction, a unit vector in the map's coordinates.
        nside: HEALPix's NSIDE.
        order: `ring` or `nested`.

    Raises:
        ImportError: astropy-healpix is not installed.
    """
    half = law.radius(0.5)
    density_P = np.empty(12 * nside**2)
    for start in range(0, len(density_P), CHUNK):
        pixel = np.arange(start, min(start + CHUNK, len(density_P)))
        density_P[pixel] = _means(law, centre, half, nside, order, pixel)
    total = float(density_P.sum()) * 4 * np.pi / len(density_P)
    density_P /= total
    return density_P


def _means(
    law: RadialLaw,
    centre: Array,
    half: float,
    nside: int,
    order: str,
    pixel: NDArray[np.int64],
) -> Array:
    """Return mean densities of pixels, (p,), 1/sr; of large ones from their quarters.

    Args:
        law: How the probability spreads around the direction.
        centre: (3,) the direction.
        half: Radius of the 50% contour, rad.
        nside: HEALPix's NSIDE.
        order: In which the pixels are counted.
        pixel: (p,) their numbers.
    """
    healpix = import_maps("astropy_healpix")
    x, y, z = healpix.healpix_to_xyz(pixel, nside, order=order)
    place = np.stack([x, y, z], axis=-1)
    u = np.minimum(((place - centre) ** 2).sum(axis=1) / 2, 2.0)
    mean = law.density(u)
    width = np.sqrt(np.pi / 3) / nside
    distance = 2 * np.arcsin(np.sqrt(u / 2))
    large = width > COARSE * np.maximum(distance, half)
    if large.any() and nside < FINEST:
        nested = pixel[large]
        if order != "nested":
            nested = healpix.xyz_to_healpix(*place[large].T, nside, order="nested")
        quarters = (4 * nested[:, None] + np.arange(4)).ravel()
        finer = _means(law, centre, half, 2 * nside, "nested", quarters)
        mean[large] = finer.reshape(-1, 4).mean(axis=1)
    return mean
