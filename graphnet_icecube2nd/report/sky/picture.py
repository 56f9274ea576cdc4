"""Picture of a sky map: the neighbourhood of the direction, and the whole sky.

The neighbourhood is centred on the predicted direction in the zenithal equidistant
projection, which keeps distances and angles from the centre, so contours are circles
with their radius in degrees. The whole sky is in the Mollweide projection, which keeps
areas. Right ascension grows to the left, azimuth to the right. Projections: Calabretta
and Greisen, A&A 395 (2002) 1077. Shape legend: ``...`` any leading shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphnet_icecube2nd.conventions import (
    angles_to_unit_vector,
    opening_angle,
    unit_vector_to_angles,
)
from graphnet_icecube2nd.plots import new_figure
from graphnet_icecube2nd.report.sky.map import EQUATORIAL, Contour, SkyMap
from graphnet_icecube2nd.tasks.direction.equatorial import mjd_to_time, to_equatorial

Array = NDArray[np.float64]

WIDEST = 180.0  # deg
FAR = 2.5  # largest distance of a shown truth, in radii of the largest contour
COLOURS = "Blues"
LINES = ("-", "--", ":", "-.")
TRUTH = {"marker": "*", "mfc": "tab:orange", "mec": "black", "ls": "", "zorder": 5}
FOUND = {"marker": "P", "mfc": "white", "mec": "black", "ls": "", "zorder": 4}
GRID = {"color": "0.55", "lw": 0.6}
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45)  # deg
PICTURE = 500  # points along a side of the neighbourhood
CIRCLE = np.linspace(0, 2 * np.pi, 361)
FULL = np.linspace(-180, 180, 3601)


def draw_sky_map(sky_map: SkyMap, truth: ArrayLike | None = None) -> Any:
    """Draw a sky map with its contours.

    The left panel shows the neighbourhood: the colour is the density, circles are
    contours, the cross is the predicted direction, the star is the true direction, and
    grey lines are coordinates. The right panel shows the whole sky.

    Args:
        sky_map: Sky map.
        truth: True direction, (3,), in the detector's axes, if known.

    Returns:
        A matplotlib figure; `plots.save_figure` writes it.

    Raises:
        ValueError: The truth is no unit vector.
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
    frame = Frame(sky_map, min(reach, WIDEST))
    colours = _draw_neighbourhood(near, frame, contours, star)
    _draw_all_sky(whole, frame, contours, star)
    figure.colorbar(
        colours, ax=near, label="probability density [1/sr]", shrink=0.85, pad=0.02
    )
    handles, labels = near.get_legend_handles_labels()
    if off is not None:
        labels = [f"{w}, {off:.3g} deg away" if w == "truth" else w for w in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(_title(frame))
    return figure


def _truth(sky_map: SkyMap, truth: ArrayLike) -> Array:
    """Return the true direction, (3,), in the map's coordinates."""
    direction = np.asarray(truth, np.float64)
    if direction.shape != (3,) or not np.isfinite(direction).all():
        raise ValueError(
            f"truth must be a unit vector (3,), found {direction.tolist()}"
        )
    if sky_map.mjd is None:
        return direction / float(np.linalg.norm(direction))
    ra, dec = to_equatorial(direction, sky_map.mjd, sky_map.site)
    return sky_vector(ra, dec)


def _title(frame: Frame) -> str:
    sky_map = frame.sky_map
    event = "" if sky_map.event_id is None else f"event {sky_map.event_id}: "
    theta, phi = math.degrees(frame.zenith), math.degrees(frame.azimuth)
    if sky_map.mjd is None:
        place = f"azimuth {phi:.2f} deg, zenith {theta:.2f} deg"
    else:
        place = f"RA {phi:.2f} deg, dec {90 - theta:+.2f} deg (ICRS)"
        place += f", {mjd_to_time(sky_map.mjd)[:19]} UTC"
    return f"{event}{place}, kappa {sky_map.kappa:.4g}"


class Frame:
    """Projection of the sky around the map's direction onto a panel."""

    def __init__(self, sky_map: SkyMap, reach: float) -> None:
        self.sky_map = sky_map
        self.reach = reach  # deg, from the centre to the edges
        self.centre = sky_map.direction  # (3,)
        # Equatorial maps: right ascension and 90 deg - declination.
        self.zenith, self.azimuth = map(float, unit_vector_to_angles(self.centre))
        self.is_equatorial = sky_map.coordinates == EQUATORIAL
        up = -angles_to_unit_vector(self.zenith + np.pi / 2, self.azimuth).numpy()
        side = -1.0 if self.is_equatorial else 1.0
        sine, cosine = np.sin(self.azimuth), np.cos(self.azimuth)
        right = side * np.array([-sine, cosine, 0.0])
        # Rows: the panel's right, its top (towards zenith 0 or north), and forward.
        self.axes_33: Array = np.stack([right, up, self.centre])

    def to_panel(self, direction: ArrayLike) -> tuple[Array, Array]:
        """Return panel positions of unit vectors (..., 3): right and up, deg."""
        vector = np.asarray(direction, np.float64) @ self.axes_33.T
        across, along, ahead = np.moveaxis(vector, -1, 0)
        sine = np.hypot(across, along)
        factor = np.degrees(np.arctan2(sine, ahead)) / np.where(sine > 0, sine, 1.0)
        return across * factor, along * factor

    def to_sky(self, x: Array, y: Array) -> Array:
        """Return unit vectors (..., 3) of panel positions, deg; NaN beyond 180."""
        distance = np.radians(np.hypot(x, y))
        factor = np.radians(np.sinc(distance / np.pi))
        vector = np.stack([factor * x, factor * y, np.cos(distance)], axis=-1)
        return np.where(distance[..., None] <= np.pi, vector @ self.axes_33, np.nan)


def sky_vector(longitude: ArrayLike, latitude: ArrayLike) -> Array:
    """Return unit vectors (..., 3) of longitudes and latitudes on the sky, rad."""
    vector: Array = angles_to_unit_vector(
        np.pi / 2 - np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    ).numpy()
    return vector


def _circles(
    contours: Sequence[Contour],
) -> Iterator[tuple[Contour, Array, Array, dict[str, Any]]]:
    """Yield contours with their circle on the panel, deg, and its line style."""
    for number, contour in enumerate(contours):
        radius = float(np.degrees(contour.radius))
        style = {"color": "black", "ls": LINES[number % len(LINES)]}
        yield contour, radius * np.cos(CIRCLE), radius * np.sin(CIRCLE), style


def _draw_neighbourhood(
    axes: Any, frame: Frame, contours: Sequence[Contour], truth: Array | None
) -> Any:
    """Draw the neighbourhood of the direction; return the mesh for a colour bar."""
    edge, sky_map = frame.reach, frame.sky_map
    middle = (np.arange(PICTURE) + 0.5) / PICTURE * 2 * edge - edge
    place = frame.to_sky(*np.meshgrid(middle, middle))
    density = np.full(place.shape[:2], np.nan)
    there = np.isfinite(place[..., 0])
    density[there] = sky_map.density_at(place[there])
    colours = axes.imshow(
        density,
        origin="lower",
        extent=(-edge, edge, -edge, edge),
        cmap=COLOURS,
        vmin=0,
        vmax=sky_map.density_P.max(),
        interpolation="nearest",
    )
    _draw_grid(axes, frame)
    for contour, x, y, style in _circles(contours):
        label = f"{100 * contour.level:g}%: radius {np.degrees(contour.radius):.3g} deg"
        label += f", {area_in_words(contour.area)}"
        axes.plot(x, y, lw=1.5, label=label, **style)
    axes.plot(0, 0, ms=9, label="predicted", **FOUND)
    if truth is not None:
        axes.plot(*frame.to_panel(truth), ms=13, label="truth", **TRUTH)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    x_words, y_words = "right is towards larger azimuth", "up is towards zenith 0"
    if frame.is_equatorial:
        x_words, y_words = "right is west", "up is north"
    at_pole = np.hypot(*frame.centre[:2]) < 1e-6  # no side of the panel is north there
    for axis, words in ((axes.xaxis, x_words), (axes.yaxis, y_words)):
        axis.set_label_text("offset [deg]" if at_pole else f"offset, {words} [deg]")
    return colours


def _draw_all_sky(
    axes: Any, frame: Frame, contours: Sequence[Contour], truth: Array | None
) -> None:
    """Draw the whole sky, centred on 180 deg of right ascension or azimuth."""
    side, sky_map = -1.0 if frame.is_equatorial else 1.0, frame.sky_map
    x = np.linspace(-np.pi, np.pi, 721)
    y = np.linspace(-np.pi / 2, np.pi / 2, 361)
    middle_x, middle_y = np.meshgrid((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2)
    density = sky_map.density_at(sky_vector(np.pi + side * middle_x, middle_y))
    limits = {"vmin": 0, "vmax": sky_map.density_P.max()}
    axes.pcolormesh(x, y, density, cmap=COLOURS, rasterized=True, **limits)

    def place(direction: Array) -> tuple[Array, Array]:
        zenith, azimuth = (a.numpy() for a in unit_vector_to_angles(direction))
        return side * (azimuth - np.pi), np.pi / 2 - zenith

    for _, *circle, style in _circles(contours):
        across, along = place(frame.to_sky(*circle))
        seam = np.flatnonzero(np.abs(np.diff(across)) > np.pi) + 1
        line = (np.insert(part, seam, np.nan) for part in (across, along))
        axes.plot(*line, lw=1.2, **style)
    axes.plot(*place(frame.centre), ms=5, **FOUND)
    if truth is not None:
        axes.plot(*place(truth), ms=9, **TRUTH)
    ticks = np.arange(30, 360, 30)
    axes.set_xticks(np.radians(side * (ticks - 180.0)))
    axes.set_xticklabels([f"{t}" if t % 60 == 0 else "" for t in ticks], fontsize=8)
    heights = np.arange(-60, 61, 30)
    axes.set_yticks(np.radians(heights))
    names = [_height_in_words(float(h), frame.is_equatorial) for h in heights]
    axes.set_yticklabels(names, fontsize=8)
    axes.grid(**GRID)
    words = "right ascension and declination"
    words = words if frame.is_equatorial else "azimuth and zenith"
    axes.set_title(f"whole sky: {words} [deg]", fontsize=10)


def area_in_words(area: float) -> str:
    """Return an area [square degrees] as text with three digits: `2.86`, `2,370`."""
    return f"{float(f'{area:.3g}'):,.10g} deg²"


def _draw_grid(axes: Any, frame: Frame) -> None:
    """Draw labelled lines of equal longitude and latitude."""
    edge, zenith = frame.reach, math.degrees(frame.zenith)
    azimuth = math.degrees(frame.azimuth)
    latitude, to_pole = 90 - zenith, min(zenith, 180 - zenith)
    step = next((s for s in STEPS if s * 4 >= edge), STEPS[-1])
    wide, along, around = float(STEPS[-1]), np.linspace(-90, 90, 3601), FULL
    if to_pole > 1.5 * edge:
        # Lines of longitude are closer together far from the equator.
        narrow = float(np.sin(np.radians(to_pole)))
        wide = float(next((s for s in STEPS if s >= step / narrow), STEPS[-1]))
        along = latitude + np.linspace(-1.5, 1.5, 601) * edge
        around = np.linspace(-1.0, 1.0, 601) * min(2.5 * edge / narrow, 180)
    for longitude in np.arange(0, 360, wide):
        vector = sky_vector(np.radians(longitude), np.radians(along))
        # Labels stay away from the poles, where all lines meet.
        named = 90 - np.abs(along) > min(0.3 * edge, 30)
        _draw_line(axes, edge, frame.to_panel(vector), named, f"{longitude:g}°", 1)
    lowest = max(np.ceil((latitude - 1.5 * edge) / step) * step, -90 + step)
    for height in np.arange(lowest, min(90, latitude + 1.5 * edge), step):
        vector = sky_vector(np.radians(azimuth + around), np.radians(height))
        name = _height_in_words(float(height), frame.is_equatorial)
        _draw_line(axes, edge, frame.to_panel(vector), around == around, f"{name}°", 0)


def _height_in_words(height: float, is_equatorial: bool) -> str:
    """Return a latitude [deg] as text: a declination or a zenith."""
    value = round(height if is_equatorial else 90 - height, 6) + 0.0
    sign = "+" if is_equatorial and value > 0 else ""
    return f"{sign}{value:g}".replace("-", "−")  # noqa: RUF001


def _draw_line(
    axes: Any,
    edge: float,
    line: tuple[Array, Array],
    named: NDArray[np.bool_],
    name: str,
    axis: int,
) -> None:
    """Draw a line within the edges, labelled at its lowest or leftmost end."""
    inside = (np.abs(line[0]) < edge) & (np.abs(line[1]) < edge)
    if not inside.any():
        return
    x, y = (np.where(inside, part, np.nan) for part in line)
    axes.plot(x, y, **GRID)
    # Labels stay inside the edges; labels of latitudes leave the lowest row free.
    floor = -0.94 if axis else -0.85
    free = named & (np.abs(line[0]) < 0.94 * edge)
    free &= (line[1] > floor * edge) & (line[1] < 0.94 * edge)
    if not free.any():
        return
    end = int(np.argmin(np.where(free, line[axis], np.inf)))
    axes.annotate(
        name,
        (x[end], y[end]),
        xytext=(0, 3) if axis else (3, 0),
        textcoords="offset points",
        ha="center" if axis else "left",
        va="bottom" if axis else "center",
        fontsize=7,
        color="0.35",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.75},
    )
