"""Sky maps: densities, contours, place on the sky."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("astropy_healpix")

from astropy_healpix import healpy

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.report.sky.map import SkyMap, sky_map
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.equatorial import to_equatorial
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

ZENITH, AZIMUTH = 1.1, 4.2
DIRECTION = np.asarray(angles_to_unit_vector(ZENITH, AZIMUTH))
MJD = 56000.25
# Kappa is worth half; the 50% contour is then that of 35%, the 90% one of 97%.
LONG_TAILS = KappaCalibration(
    method="temperature",
    log_kappa=(0.0,),
    log_calibrated=(float(np.log10(0.5)),),
    levels=(0.0, 0.5, 0.9),
    depths=((0.0, float(-np.log(0.65)), float(-np.log(0.03))),),
    num_events=1000,
)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 20.0, 1000.0])
def test_densities_are_those_of_the_formula(kappa: float) -> None:
    """In both orders, at pixel centres, by an independent library function."""
    for order in ("ring", "nested"):
        made = sky_map(DIRECTION, kappa, nside=256, order=order)
        nested = order == "nested"
        place = np.stack(
            healpy.pix2vec(256, np.arange(12 * 256**2), nest=nested), axis=-1
        )
        with np.errstate(invalid="ignore"):
            peak = kappa / (2 * np.pi * -np.expm1(-2 * kappa))
        expected = (peak if kappa else 1 / (4 * np.pi)) * np.exp(
            kappa * (place @ DIRECTION - 1)
        )
        np.testing.assert_allclose(made.density_P, expected, rtol=2e-3, atol=1e-3)
        assert made.density_P.sum() * made.pixel_area == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kappa", [0.5, 20.0, 5000.0])
def test_areas_of_circles_and_of_pixels_agree(kappa: float) -> None:
    made = sky_map(DIRECTION, kappa)
    for contour in made.contours((0.3, 0.5, 0.9)):
        radius = float(kappa_to_radius(kappa, contour.level))
        assert contour.radius == pytest.approx(radius, rel=1e-9)
        cap = 41252.96125 * np.sin(radius / 2) ** 2
        assert contour.area == pytest.approx(cap, rel=1e-9)
        assert contour.num_pixels >= 60
        assert contour.pixel_area == pytest.approx(contour.area, rel=0.02)
        assert contour.pixel_area == pytest.approx(
            contour.num_pixels * 41252.96125 / (12 * made.nside**2)
        )
        inside = made.density_P >= contour.density
        assert inside.sum() == pytest.approx(contour.num_pixels, abs=2)
        share = made.density_P[inside].sum() * made.pixel_area
        assert share == pytest.approx(contour.level, abs=0.01)


def test_default_nside() -> None:
    """Half the sky, 15 deg, 1 deg, 0.02 deg within the 50% contour."""
    found = {k: sky_map(DIRECTION, k).nside for k in (0.0, 20.0, 5000.0)}
    assert found == {0.0: 64, 20.0: 64, 5000.0: 512}
    for kappa in (1500.0, 5000.0):
        assert sky_map(DIRECTION, kappa).contour(0.5).num_pixels >= 100


def test_pixels_wider_than_the_contour_hold_their_mean() -> None:
    """Kappa 1e6 on 768 pixels of 7 deg: all is in one, wherever in it."""
    made = sky_map(DIRECTION, 1e6, nside=8)
    pixel = healpy.vec2pix(8, *DIRECTION)
    assert made.density_P.argmax() == pixel
    assert made.density_P[pixel] * made.pixel_area == pytest.approx(1, abs=1e-6)
    # A direction on the equator where four pixels meet: their edges rise there with
    # dz / dphi = 8 / (3 pi) (Gorski et al. 2005, section 5.1).
    corner = np.array([1.0, 0.0, 0.0])
    four = np.sort(sky_map(corner, 1e6, nside=1, order="nested").density_P)[::-1]
    coarse = np.sort(sky_map(corner, 1e6, nside=2).density_P)[::-1]
    assert four[0] * 4 * np.pi / 12 == pytest.approx(1, abs=1e-6)
    upright = 0.5 - np.arctan(8 / (3 * np.pi)) / np.pi
    expected = np.array([upright, upright, 0.5 - upright, 0.5 - upright])
    np.testing.assert_allclose(coarse[:4] * 4 * np.pi / 48, expected, atol=5e-4)


def test_a_calibrated_map_has_calibrated_contours() -> None:
    made = sky_map(DIRECTION, 200.0, calibration=LONG_TAILS)
    plain = sky_map(DIRECTION, 200.0)
    for level, asked in ((0.5, 0.35), (0.9, 0.97)):
        radius = float(kappa_to_radius(100.0, asked))
        contour = made.contour(level)
        assert contour.radius == pytest.approx(radius, rel=1e-9)
        assert contour.radius != pytest.approx(plain.contour(level).radius, rel=0.05)
        assert contour.pixel_area == pytest.approx(contour.area, rel=0.03)
        # What the pixels within the circle hold.
        place = healpy.pix2vec(made.nside, np.arange(len(made.density_P)))
        within = np.stack(place, axis=-1) @ DIRECTION > np.cos(radius)
        share = made.density_P[within].sum() * made.pixel_area
        assert share == pytest.approx(level, abs=0.01)
    assert made.density_P.sum() * made.pixel_area == pytest.approx(1, abs=1e-12)
    # A level that bends between those that maps keep anyway.
    bent = replace(
        LONG_TAILS,
        levels=(0.0, 0.35, 0.37, 0.39, 0.9),
        depths=((0.0, 0.2, 0.3, 0.32, 3.5),),
    )
    odd = sky_map(DIRECTION, 200.0, calibration=bent, levels=(0.37,), nside=8)
    expected = float(bent.radius(np.array([200.0]), 0.37)[0])
    assert odd.contour(0.37).radius == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="a calibration or a law"):
        sky_map(DIRECTION, 1.0, calibration=LONG_TAILS, law=RadialLaw.of_kappa(1.0))


def test_equatorial_maps_lie_at_their_place() -> None:
    made = sky_map(DIRECTION, 2000.0, mjd=MJD)
    ra, dec = to_equatorial(DIRECTION, MJD)
    found = np.array(healpy.pix2ang(made.nside, made.density_P.argmax(), lonlat=True))
    np.testing.assert_allclose(found, np.degrees([ra, dec]), atol=0.3)
    assert (made.coordinates, made.mjd) == ("equatorial", MJD)
    local = sky_map(DIRECTION, 2000.0)
    theta, phi = healpy.pix2ang(local.nside, local.density_P.argmax())
    assert (theta, phi) == pytest.approx((ZENITH, AZIMUTH), abs=0.01)


def test_what_is_refused() -> None:
    for values, words in (
        ({"nside": 48}, "nside must be a power of two from 1 to 8192, found 48"),
        ({"nside": 16384}, "nside must be"),
        ({"order": "up"}, "order must be one of ring, nested; got 'up'"),
        ({"levels": ()}, "between 0 and 1"),
        ({"levels": (0.5, 50.0)}, "between 0 and 1"),
        ({"levels": (0.5, 0.5)}, "levels must be distinct"),
        ({"mjd": 5.0}, "mjd must lie in"),
        ({"kappa": -1.0}, "kappa must be finite"),
        ({"direction": [0.0, 0.0, 0.0]}, "direction must be a vector"),
        ({"direction": np.ones((2, 3))}, "direction must be a vector"),
    ):
        given: dict[str, Any] = {"direction": DIRECTION, "kappa": 1.0} | values
        with pytest.raises(ValueError, match=words):
            sky_map(given.pop("direction"), given.pop("kappa"), **given)
    with pytest.raises(ValueError, match="for equatorial maps"):
        SkyMap(
            nside=1,
            coordinates="equatorial",
            density_P=np.ones(12),
            direction=DIRECTION,
            kappa=1.0,
            law=RadialLaw.of_kappa(1.0),
        )
