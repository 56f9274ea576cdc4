"""Shares of the probability against the angle, and calibrated contours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    containment,
    fit_calibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw, cap_area

KAPPAS = [0.0, 1e-9, 0.5, 20.0, 5000.0, 1e6]
GRID = np.concatenate([[0.0], np.geomspace(1e-9, 2.0, 20_001)])
# The true distribution has 30% of far longer tails, as errors of networks have.
CORE, TAIL, TAIL_SHARE = 1.5, 0.1, 0.3


def integral(law: RadialLaw) -> float:
    """Of the density over the sphere, with a fine grid in log u."""
    height = law.density(GRID)
    strips = (height[1:] + height[:-1]) / 2 * np.diff(GRID)
    return float(2 * np.pi * strips.sum())


def tailed(kappa: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    is_tail = generator.random(len(kappa)) < TAIL_SHARE
    true = kappa * np.where(is_tail, TAIL, CORE)
    return np.asarray(kappa_to_radius(true, generator.random(len(kappa))))


@pytest.mark.parametrize("kappa", KAPPAS)
def test_von_mises_fisher(kappa: float) -> None:
    law = RadialLaw.of_kappa(kappa)
    assert integral(law) == pytest.approx(1, abs=1e-5)
    for level in (0.01, 0.5, 0.9, 0.999):
        assert law.radius(level) == pytest.approx(
            float(kappa_to_radius(kappa, level)), rel=1e-12
        )


def test_density_by_hand() -> None:
    """kappa / (4 pi sinh kappa) * exp(kappa cos(angle)), Mardia and Jupp (2000)."""
    law = RadialLaw.of_kappa(2.0)
    assert law.density(0.0) == pytest.approx(
        2 / (4 * np.pi * np.sinh(2.0)) * np.exp(2.0), rel=1e-14
    )
    assert law.density(1.0) == pytest.approx(2 / (4 * np.pi * np.sinh(2.0)), rel=1e-14)
    whole_sky = RadialLaw.of_kappa(0.0).density(np.array([[0.0], [2.0]]))
    np.testing.assert_allclose(whole_sky, np.full((2, 1), 1 / (4 * np.pi)))
    # At large kappa the peak is kappa / (2 pi), and nothing overflows.
    assert RadialLaw.of_kappa(1e6).density(0.0) == pytest.approx(1e6 / (2 * np.pi))


@given(st.floats(1e-3, 1e6), st.floats(0, np.pi))
def test_contained_is_the_calibrations_containment(kappa: float, angle: float) -> None:
    u = 2 * np.sin(angle / 2) ** 2
    expected = containment(np.array([kappa]), np.array([angle]))[0]
    assert RadialLaw.of_kappa(kappa).contained(u) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_its_own_radii_give_the_same_law(kappa: float) -> None:
    radii = {c: float(kappa_to_radius(kappa, c)) for c in (0.2, 0.5, 0.9)}
    law = RadialLaw.through(kappa, radii)
    np.testing.assert_allclose(
        law.density(GRID), RadialLaw.of_kappa(kappa).density(GRID), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    ("kappa", "radii"),
    [
        (1e4, {0.5: 0.5, 0.9: 20.0}),  # long tails
        (100.0, {0.5: 7.0, 0.9: 10.0}),  # short ones
        (1.0, {0.5: 40.0, 0.68: 60.0, 0.9: 120.0}),
        (1e6, {0.9: 60.0}),
    ],
)
def test_contours_are_those_asked_for(kappa: float, radii: dict[float, float]) -> None:
    law = RadialLaw.through(kappa, {c: np.radians(r) for c, r in radii.items()})
    for level, radius in radii.items():
        assert np.degrees(law.radius(level)) == pytest.approx(radius, rel=1e-12)
        u = 1 - np.cos(np.radians(radius))
        assert law.contained(u) == pytest.approx(level, abs=1e-9)
    assert integral(law) == pytest.approx(1, abs=2e-3)
    # Else the smallest region that holds a share would not be the cap.
    height = law.density(GRID)
    assert (np.diff(height) <= 1e-9 * height[:-1]).all()
    level = np.linspace(0.01, 0.99, 99)
    u = np.array([1 - np.cos(law.radius(c)) for c in level])
    np.testing.assert_allclose(law.contained(u), level, atol=1e-9)


def test_beyond_the_last_contour_it_falls_as_before() -> None:
    """By hand: the share outside is exp(-rate u) there, with one rate from 50% on."""
    near, far = 1 - np.cos(np.radians([0.5, 20.0]))
    law = RadialLaw.through(1e4, {0.5: np.radians(0.5), 0.9: np.radians(20.0)})
    rate = np.log(5) / (far - near)
    outside = 1 - law.contained(far + np.array([0.5, 1.0, 2.0]) / rate)
    np.testing.assert_allclose(outside, 0.1 * np.exp([-0.5, -1.0, -2.0]), rtol=1e-9)


def test_far_away_may_be_likelier_than_near() -> None:
    """A tenth within 26 deg of the opposite: likelier there than between."""
    law = RadialLaw.through(0.5, {0.5: np.radians(60), 0.9: np.radians(154)})
    assert not law.falls
    assert law.radius(0.9) == pytest.approx(np.radians(154), rel=1e-12)
    assert integral(law) == pytest.approx(1, abs=2e-3)
    u = 1 - np.cos(np.radians(154))
    assert law.density(2.0) == pytest.approx(0.1 / (2 - u) / (2 * np.pi))
    assert law.density(1.5) == pytest.approx(0.4 / (u - 0.5) / (2 * np.pi))
    assert RadialLaw.through(5.0, {0.5: np.radians(20)}).falls


def test_radii_that_do_not_rise() -> None:
    for radii in ({0.5: 0.2, 0.9: 0.1}, {0.5: 0.2, 0.9: 0.2}, {0.9: np.pi}, {0.1: 0.0}):
        with pytest.raises(ValueError, match=r"radii must .* got .*% within"):
            RadialLaw.through(100.0, radii)


def test_a_calibrated_law_holds_what_it_says() -> None:
    """On events that the calibration has not seen, at levels between its knots, too."""
    kappa = 10 ** np.random.default_rng(0).uniform(1, 4, 40_000)
    calibration = fit_calibration(kappa, tailed(kappa, 1), "temperature")
    same = np.full(20_000, 300.0)
    angle = tailed(same, 2)
    law = RadialLaw.calibrated(300.0, calibration)
    for level in (0.5, 0.9):
        expected = float(calibration.radius(np.array([300.0]), level)[0])
        assert law.radius(level) == pytest.approx(expected, rel=1e-12)
    for level in (0.3, 0.5, 0.75, 0.9, 0.97):
        assert (angle < law.radius(level)).mean() == pytest.approx(level, abs=0.02)
    # Without it the 90% contour is far too narrow.
    assert (angle < RadialLaw.of_kappa(300.0).radius(0.9)).mean() < 0.8
    assert (np.diff(law.density(GRID)) <= 1e-9 * law.density(GRID)[:-1]).all()


def test_levels_asked_for_are_knots() -> None:
    kappa = np.full(150, 30.0)
    noisy = fit_calibration(kappa, tailed(kappa, 3), "temperature")
    for levels in ((0.5, 0.9), (0.37, 0.68, 0.95)):
        law = RadialLaw.calibrated(30.0, noisy, levels)
        for level in levels:
            expected = float(noisy.radius(np.array([30.0]), level)[0])
            assert law.radius(level) == pytest.approx(expected, rel=1e-12)
        assert (np.diff(law.density(GRID)) <= 1e-9 * law.density(GRID)[:-1]).all()


def test_no_calibration_changes_nothing() -> None:
    calibration = KappaCalibration(
        method="none",
        log_kappa=(0.0,),
        log_calibrated=(0.0,),
        levels=(0.0,),
        depths=((0.0,),),
        num_events=0,
    )
    law = RadialLaw.calibrated(50.0, calibration)
    assert len(law.u) > 5
    np.testing.assert_allclose(
        law.density(GRID), RadialLaw.of_kappa(50.0).density(GRID), rtol=1e-9
    )


def test_areas() -> None:
    assert cap_area(np.pi) == pytest.approx(41252.96125)  # 4 pi (180 / pi)^2
    assert cap_area(np.pi / 2) == pytest.approx(41252.96125 / 2)
    assert cap_area(np.radians(1e-3)) == pytest.approx(np.pi * 1e-6, rel=1e-9)


@pytest.mark.parametrize("kappa", [-1.0, np.nan, np.inf])
def test_bad_kappas(kappa: float) -> None:
    with pytest.raises(ValueError, match="kappa must be finite and 0 or more"):
        RadialLaw.of_kappa(kappa)


@pytest.mark.parametrize("level", [0.0, 1.0, 50.0])
def test_bad_levels(level: float) -> None:
    with pytest.raises(ValueError, match=r"level .* 0 and 1"):
        RadialLaw.of_kappa(1.0).radius(level)
    with pytest.raises(ValueError, match=r"levels .* 0 and 1"):
        RadialLaw.through(1.0, {level: 1.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"u": (0.0, 1.0, 2.0)}, "as many shares as borders"),
        ({"u": (0.0, 1.9)}, "u must .* from 0 to 2"),
        ({"share": (0.1, 1.0)}, "share must .* from 0 to 1"),
        ({"rate": (-1.0,)}, "rate must be 0 or more"),
    ],
)
def test_bad_laws(values: dict[str, tuple[float, ...]], words: str) -> None:
    good = {"u": (0.0, 2.0), "share": (0.0, 1.0), "rate": (1.0,)}
    with pytest.raises(ValueError, match=words):
        RadialLaw(**(good | values))
