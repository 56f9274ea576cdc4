"""The picture of a sky map: what is drawn where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("astropy_healpix")
pytest.importorskip("matplotlib")

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.plots import save_figure
from graphnet_icecube2nd.report.sky.map import sky_map
from graphnet_icecube2nd.report.sky.picture import Frame, area_in_words, draw_sky_map
from graphnet_icecube2nd.tasks.direction.equatorial import (
    from_equatorial,
    to_equatorial,
)

MJD = 57000.1


def towards(zenith: float, azimuth: float) -> np.ndarray:
    """Degrees."""
    return np.asarray(angles_to_unit_vector(np.radians(zenith), np.radians(azimuth)))


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(axes: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    found = [one for one in axes.lines if one.get_label().startswith(label)]
    assert len(found) == 1
    x, y = found[0].get_data()
    return np.asarray(x), np.asarray(y)


def test_contours_are_circles_of_their_radius() -> None:
    made = sky_map(towards(60, 200), 500.0, levels=(0.5, 0.9, 0.99), nside=64)
    figure = draw_sky_map(made)
    near, whole, bar = figure.axes
    for contour in made.contours():
        x, y = line(near, f"{100 * contour.level:g}%")
        np.testing.assert_allclose(np.hypot(x, y), np.degrees(contour.radius))
    assert words(figure) == [
        "50%: radius 3.02 deg, 28.6 deg²",
        "90%: radius 5.5 deg, 95 deg²",
        "99%: radius 7.78 deg, 190 deg²",
        "predicted",
    ]
    assert bar.get_ylabel() == "probability density [1/sr]"
    assert whole.get_title() == "whole sky: azimuth and zenith [deg]"
    assert near.get_xlabel() == "offset, right is towards larger azimuth [deg]"
    assert "kappa 500" in figure.get_suptitle()
    low, high = near.get_xlim()
    assert -low == high > 7.78


def test_colours_are_the_maps_densities() -> None:
    made = sky_map(towards(60, 200), 500.0, nside=64)
    near, whole, _ = draw_sky_map(made).axes
    image = near.images[0]
    assert image.get_array().max() == made.density_P.max()
    assert image.get_clim() == (0, made.density_P.max())
    assert np.isin(np.asarray(image.get_array()), made.density_P).all()
    side = image.get_array().shape[0]
    middle = image.get_array()[side // 2, side // 2]
    assert middle == pytest.approx(made.density_at(made.direction), rel=0.1)
    # The whole sky: 360 by 720 cells, the brightest at the direction.
    cells = np.asarray(whole.collections[0].get_array()).reshape(360, 720)
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    assert (90 - (row / 2 - 90), column / 2) == pytest.approx((60, 200), abs=1.5)


def test_the_truth_is_a_star_at_its_place() -> None:
    made = sky_map(towards(60, 200), 500.0, nside=64)
    near, _, _ = (figure := draw_sky_map(made, truth=towards(63, 200))).axes
    x, y = line(near, "truth")
    assert (float(x[0]), float(y[0])) == pytest.approx((0, -3), abs=1e-6)
    assert words(figure)[-1] == "truth, 3 deg away"
    # Two degrees of azimuth, to the right.
    near = draw_sky_map(made, truth=towards(60, 202)).axes[0]
    x, y = line(near, "truth")
    assert float(x[0]) == pytest.approx(2 * np.sin(np.radians(60)), abs=0.01)
    # Farther off the panel grows, but not for one beyond the horizon.
    wider = draw_sky_map(made, truth=towards(60, 214)).axes[0]
    assert wider.get_xlim()[1] > 12.1 > near.get_xlim()[1]
    figure = draw_sky_map(made, truth=towards(150, 20))
    assert figure.axes[0].get_xlim() == near.get_xlim()
    assert words(figure)[-1] == "truth, 150 deg away"


def test_right_ascension_grows_to_the_left() -> None:
    ra, dec = np.radians(40.0), np.radians(-20.0)
    made = sky_map(from_equatorial(ra, dec, MJD), 500.0, mjd=MJD, nside=64)
    truth = from_equatorial(ra + np.radians(2), dec + np.radians(1), MJD)
    figure = draw_sky_map(made, truth=truth)
    near, whole, _ = figure.axes
    x, y = line(near, "truth")
    expected = (-2 * np.cos(np.radians(19.5)), 1.0)
    assert (float(x[0]), float(y[0])) == pytest.approx(expected, abs=0.03)
    assert near.get_xlabel() == "offset, right is west [deg]"
    assert whole.get_title() == "whole sky: right ascension and declination [deg]"
    assert figure.get_suptitle().startswith("RA 40.00 deg, dec -20.00 deg (ICRS), 2014")
    cells = np.asarray(whole.collections[0].get_array()).reshape(360, 720)
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    assert (row / 2 - 90, 360 - column / 2) == pytest.approx((-20, 40), abs=1.5)


@pytest.mark.parametrize("zenith", [0.0, 1e-4, 45.0, 180.0])
@pytest.mark.parametrize("mjd", [None, MJD])
def test_the_panel_and_the_sky(zenith: float, mjd: float | None) -> None:
    made = sky_map(towards(zenith, 300), 100.0, mjd=mjd, nside=8)
    frame = Frame(made, 180.0)
    assert frame.to_panel(frame.centre) == pytest.approx((0, 0), abs=1e-9)
    x, y = np.meshgrid(np.linspace(-120, 120, 7), np.linspace(-120, 120, 8))
    vector = frame.to_sky(x, y)
    np.testing.assert_allclose(np.linalg.norm(vector, axis=-1), 1)
    np.testing.assert_allclose(frame.to_panel(vector), (x, y), atol=1e-6)
    distance = np.degrees(np.arccos(np.clip(vector @ frame.centre, -1, 1)))
    np.testing.assert_allclose(distance, np.hypot(x, y), atol=1e-5)
    assert np.isnan(frame.to_sky(np.array([170.0]), np.array([100.0]))).all()


@pytest.mark.parametrize(
    ("zenith", "azimuth", "kappa", "mjd"),
    [
        (61.3, 214.2, 5000.0, MJD),
        (75.0, 140.0, 0.5, None),
        (75.0, 140.0, 0.0, MJD),
        (0.0, 0.0, 300.0, None),
        (179.9, 10.0, 800.0, MJD),
        (80.0, 359.2, 400.0, None),
    ],
)
def test_any_place_can_be_drawn(
    zenith: float, azimuth: float, kappa: float, mjd: float | None, tmp_path: Path
) -> None:
    """Poles, the seam, half of the sky and all: without a warning."""
    made = sky_map(towards(zenith, azimuth), kappa, mjd=mjd, nside=32)
    save_figure(draw_sky_map(made), tmp_path / "map.png", dpi=40)
    assert (tmp_path / "map.png").stat().st_size > 3000


def test_truths_that_are_none() -> None:
    made = sky_map(towards(60, 200), 500.0, nside=8)
    for truth in (np.ones(2), np.full(3, np.nan)):
        with pytest.raises(ValueError, match=r"unit vector \(3,\)"):
            draw_sky_map(made, truth=truth)
    # Whatever its length.
    far = draw_sky_map(made, truth=-5 * towards(60, 200))
    assert words(far)[-1] == "truth, 180 deg away"
    ra, dec = to_equatorial(towards(60, 200), MJD)
    assert np.isfinite([ra, dec]).all()


def test_areas_in_words() -> None:
    areas = (0.0142971, 2.8594, 2374.7, 41252.96)
    found = [area_in_words(area) for area in areas]
    assert found == ["0.0143 deg²", "2.86 deg²", "2,370 deg²", "41,300 deg²"]
