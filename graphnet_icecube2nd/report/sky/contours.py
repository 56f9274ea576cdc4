"""Contours of a sky map, and the coordinates that it can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOCAL, EQUATORIAL = COORDINATES = ("local", "equatorial")
LEVELS = (0.5, 0.9)


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
