"""A sky map as a picture: the neighbourhood of the direction, and the whole sky.

The neighbourhood is seen along the predicted direction, distances and angles from it
are true (zenithal equidistant projection), so contours are circles with their radius in
degrees; the whole sky is drawn with areas true (Mollweide). Right ascension grows to
the left, as astronomers draw it, azimuth to the right. Projections: Calabretta and
Greisen, A&A 395 (2002) 1077. Shape legend: ``...`` any leading shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphnet_icecube2nd.conventions import opening_angle, unit_vector_to_angles
from graphnet_icecube2nd.plots import new_figure
from graphnet_icecube2nd.report.sky.contours import EQUATORIAL
from graphnet_icecube2nd.report.sky.map import SkyMap
from graphnet_icecube2nd.report.sky.panels import (
    Frame,
    draw_all_sky,
    draw_neighbourhood,
    sky_vector,
)
from graphnet_icecube2nd.tasks.direction.equatorial import mjd_to_time, to_equatorial

Array = NDArray[np.float64]

WIDEST = 180.0  # deg
FAR = 2.5  # truths farther off, in radii of the largest contour, are not shown


def draw_sky_map(sky_map: SkyMap, truth: ArrayLike | None = None) -> Any:
    """Draw a sky map with its contours.

    Left, the neighbourhood: colour is density, circles are contours, a cross is the
    predicted and a star the true direction; grey lines are coordinates. Right, the
    whole sky.

    Args:
        sky_map: The map.
        truth: (3,) the true direction in the detector's axes, if it is known.

    Returns:
        A matplotlib figure; `plots.save_figure` writes it.

    Raises:
        ValueError: The truth is no direction.
        ImportError: matplotlib or astropy-healpix is not installed.
    """
    figure = new_figure(13.0, 6.4)
    grid = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.3])
    near = figure.add_subplot(grid[0])
    whole = figure.add_subplot(grid[1], projection="mollweide")
    star = None if truth is None else _truth(sky_map, truth)
    contours = sky_map.contours()
    largest = max(np.degrees(contour.radius) for contour in contours)
    reach, off = 1.35 * largest, None
    if star is not None:
        off = math.degrees(float(opening_angle(star, sky_map.direction)))
        if off < FAR * largest:
            reach = max(reach, 1.15 * off)
    frame = Frame.of(sky_map, min(reach, WIDEST))
    colours = draw_neighbourhood(near, frame, sky_map, contours, star)
    draw_all_sky(whole, frame, sky_map, contours, star)
    figure.colorbar(
        colours, ax=near, label="probability density [1/sr]", shrink=0.85, pad=0.02
    )
    handles, labels = near.get_legend_handles_labels()
    if off is not None:
        labels = [f"{w}, {off:.3g} deg away" if w == "truth" else w for w in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(_title(sky_map))
    return figure


def _truth(sky_map: SkyMap, truth: ArrayLike) -> Array:
    """Return the true direction, (3,), in the map's coordinates."""
    direction = np.asarray(truth, np.float64)
    if direction.shape != (3,) or not np.isfinite(direction).all():
        raise ValueError(f"a true direction is (3,), got {direction.tolist()}")
    if sky_map.mjd is None:
        return direction / float(np.linalg.norm(direction))
    ra, dec = to_equatorial(direction, sky_map.mjd)
    return sky_vector(ra, dec)


def _title(sky_map: SkyMap) -> str:
    theta, phi = (
        math.degrees(float(a)) for a in unit_vector_to_angles(sky_map.direction)
    )
    event = "" if sky_map.event_id is None else f"event {sky_map.event_id}: "
    if sky_map.coordinates == EQUATORIAL:
        assert sky_map.mjd is not None
        place = f"RA {phi:.2f} deg, dec {90 - theta:+.2f} deg (ICRS)"
        place += f", {mjd_to_time(sky_map.mjd)[:19]} UTC"
    else:
        place = f"azimuth {phi:.2f} deg, zenith {theta:.2f} deg"
    return f"{event}{place}, kappa {sky_map.kappa:.4g}"
