"""Calibration of kappa, on events whose errors are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphnet_icecube2nd.tasks.direction.calibration import (
    CALIBRATED_MEDIAN_PULL,
    KappaCalibration,
    containment,
    depth,
    fit_calibration,
    kappa_of_median,
    kappa_to_radius,
    pulls,
    radius_of_depth,
)

LEVELS = np.array([0.1, 0.3, 0.5, 0.68, 0.9, 0.99])


def drawn(kappa: np.ndarray, seed: int) -> np.ndarray:
    """Angles of vMF distributions: the level is even, its inverse is the radius."""
    level = np.random.default_rng(seed).random(len(kappa))
    return np.asarray(kappa_to_radius(kappa, level))


def kappas(num: int, seed: int = 0) -> np.ndarray:
    return 10 ** np.random.default_rng(seed).uniform(-0.5, 4.0, num)


def covered(kappa: np.ndarray, angle: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Shares of the truths within the contours of some levels."""
    shares: np.ndarray = (containment(kappa, angle)[:, None] <= levels).mean(axis=0)
    return shares


def test_levels_of_calibrated_kappas_are_even() -> None:
    kappa = kappas(200_000)
    angle = drawn(kappa, 1)
    level = containment(kappa, angle)
    np.testing.assert_allclose(np.quantile(level, LEVELS), LEVELS, atol=4e-3)
    np.testing.assert_allclose(covered(kappa, angle, LEVELS), LEVELS, atol=4e-3)
    large = kappa > 100
    median = np.median(pulls(kappa[large], angle[large]))
    assert median == pytest.approx(CALIBRATED_MEDIAN_PULL, rel=0.01)


@given(
    st.floats(1e-3, 1e6),
    st.floats(0.001, 0.999),
)
def test_containment_undoes_the_radius(kappa: float, level: float) -> None:
    radius = np.asarray(kappa_to_radius(np.array([kappa]), level))
    assert containment(np.array([kappa]), radius)[0] == pytest.approx(level, abs=1e-9)


@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e3))
def test_depth_undoes_its_radius_also_far_in_the_tail(
    kappa: float, deep: float
) -> None:
    radius = radius_of_depth(np.array([kappa]), deep)
    assert 0 < radius[0] <= np.pi
    if deep < 1.9 * kappa:  # beyond, all is within rounding of the opposite point
        assert depth(np.array([kappa]), radius)[0] == pytest.approx(
            deep, rel=1e-6, abs=1e-9
        )
    if deep < 30:
        expected = np.asarray(kappa_to_radius(np.array([kappa]), -np.expm1(-deep)))
        assert radius[0] == pytest.approx(expected[0], rel=1e-4)


def test_depth_by_hand() -> None:
    """Near the direction kappa * angle ** 2 / 2; nothing is farther off than pi."""
    found = depth(np.array([1e4, 1e4, 3.0]), np.array([0.01, np.pi / 2, np.pi]))
    assert found[:2] == pytest.approx([0.5, 1e4], rel=1e-4)
    assert found[2] == np.inf
    assert radius_of_depth(np.array([1e4, 3.0]), np.inf).tolist() == [np.pi, np.pi]


@given(st.floats(1e-3, 1e6))
def test_kappa_of_a_median(kappa: float) -> None:
    median = np.asarray(kappa_to_radius(np.array([kappa]), 0.5))
    assert kappa_of_median(median)[0] == pytest.approx(kappa, rel=1e-5, abs=1e-5)


def test_a_uniform_sky_has_kappa_zero() -> None:
    assert kappa_of_median(np.array([np.pi / 2, 2.0])).tolist() == [0.0, 0.0]


def test_lost_events_move_neither_kappa_nor_contours_of_the_others() -> None:
    """A few in a hundred anywhere, at all kappas: a calibrated kappa stays."""
    rng = np.random.default_rng(0)
    kappa = 10 ** rng.uniform(0.3, 4.0, 60_000)
    lost = rng.random(60_000) < 0.03
    angle = np.where(lost, np.arccos(rng.uniform(-1, 1, 60_000)), drawn(kappa, 1))
    fit, test = np.arange(60_000) % 2 == 0, np.arange(60_000) % 2 == 1
    calibration = fit_calibration(kappa[fit], angle[fit])
    assert calibration.kappa(np.array([9000.0]))[0] == pytest.approx(9000, rel=0.15)
    for low, high in ((2, 10), (10, 100), (100, 1000), (1000, 10_000)):
        some = test & (kappa >= low) & (kappa < high)
        for level in (0.5, 0.9):
            radius = calibration.radius(kappa[some], level)
            held = np.mean(angle[some] <= radius)
            assert held == pytest.approx(level, abs=0.025), (low, level)


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_temperature_finds_the_factor(factor: float) -> None:
    true = kappas(50_000)
    calibration = fit_calibration(true * factor, drawn(true, 2), "temperature")
    assert calibration.kappa(np.array([3.0]))[0] == pytest.approx(3 / factor, rel=0.02)


def test_isotonic_undoes_any_rising_map() -> None:
    true = kappas(100_000)
    predicted = 3 * true**1.4
    calibration = fit_calibration(predicted, drawn(true, 3), "isotonic")
    fresh = kappas(50_000, seed=5)
    found = calibration.kappa(3 * fresh**1.4)
    middle = (fresh > 1) & (fresh < 5000)
    ratio = found[middle] / fresh[middle]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert np.quantile(np.abs(np.log(ratio)), 0.9) < 0.12
    rising = calibration.kappa(np.logspace(-2, 7, 300))
    assert (np.diff(rising) >= 0).all()


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_contours_hold_what_they_say_also_with_long_tails(method: str) -> None:
    """A tenth of the events is much worse than its kappa says."""

    def events(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        kappa = kappas(num, seed)
        worse = np.random.default_rng(seed + 1).random(num) < 0.1
        return kappa, drawn(np.where(worse, kappa / 30, kappa), seed + 2)

    kappa, angle = events(60_000, 10)
    assert abs(covered(kappa, angle, np.array([0.9]))[0] - 0.9) > 0.03
    calibration = fit_calibration(kappa, angle, method)
    fresh, fresh_angle = events(60_000, 20)
    for level in (0.5, 0.9):
        inside = (fresh_angle <= calibration.radius(fresh, level)).mean()
        assert inside == pytest.approx(level, abs=0.01)
    if method != "none":
        bare = fit_calibration(kappa, angle, method, levels=False)
        inside = (fresh_angle <= bare.radius(fresh, 0.9)).mean()
        assert inside != pytest.approx(0.9, abs=0.01), "one kappa cannot do both"


def test_a_level_is_the_radius_read_backwards() -> None:
    """Also where a share of the events is lost, and of levels that were not fitted."""
    kappa = kappas(5000)
    rng = np.random.default_rng(1)
    lost = rng.random(5000) < 0.2
    angle = np.where(lost, rng.uniform(1.0, 2.0, 5000), drawn(kappa, 3))
    for method in ("none", "temperature", "isotonic"):
        calibration = fit_calibration(kappa, angle, method)
        for level in (0.01, 0.333, 0.5, 0.9, 0.9999, 0.999999):
            radius = calibration.radius(kappa, level)
            inner = radius < 3.1
            found = calibration.level(kappa[inner], radius[inner])
            np.testing.assert_allclose(found, level, rtol=1e-6)
    bare = fit_calibration(kappa, angle, "none", levels=False)
    np.testing.assert_allclose(
        bare.radius(kappa, 0.9), kappa_to_radius(kappa, 0.9), rtol=1e-9
    )


def test_it_can_be_written_down() -> None:
    true = kappas(2000)
    calibration = fit_calibration(true, drawn(true, 4))
    text = json.dumps(calibration.to_dict())
    assert KappaCalibration.from_dict(json.loads(text)) == calibration
    with pytest.raises(ValueError, match="calibration"):
        KappaCalibration.from_dict({"method": "none"})
    with pytest.raises(ValueError, match="method must be one of"):
        KappaCalibration.from_dict({**calibration.to_dict(), "method": "magic"})
    two = {"log_group": [0.0], "depths": [[0.0, 9.0]]}
    falling = {"log_group": [0.0], "depths": [[2.0, 1.0]]}
    with pytest.raises(ValueError, match="depths must have 2 entries, got 1"):
        KappaCalibration.from_dict(
            {**calibration.to_dict(), **two, "log_group": [0, 1]}
        )
    with pytest.raises(ValueError, match="levels must lie from 0 to below 1"):
        KappaCalibration.from_dict(
            {**calibration.to_dict(), "levels": [0.0, 1.0], **two}
        )
    with pytest.raises(ValueError, match="depths must not"):
        KappaCalibration.from_dict(
            {**calibration.to_dict(), "levels": [0.0, 0.5], **falling}
        )


def test_nan_stays_and_bad_input_says_so() -> None:
    true = kappas(500)
    calibration = fit_calibration(true, drawn(true, 6))
    found = calibration.kappa(np.array([np.nan, 0.0, 5.0]))
    assert np.isnan(found[0])
    assert found[1] == 0
    with pytest.raises(ValueError, match="100 events with a kappa, got 3"):
        fit_calibration(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="must be"):
        fit_calibration(np.ones(300), np.ones(200))
    with pytest.raises(ValueError, match=r"level .* 0 and 1, got 1\.5"):
        calibration.radius(true, 1.5)
    with pytest.raises(ValueError, match="method must be one of"):
        fit_calibration(true, true, "magic")
