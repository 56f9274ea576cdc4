"""Weighted statistics against repeated events; bootstrap intervals; ROC curves."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd.statistics import (
    auc_error,
    density,
    effective_events,
    kolmogorov_smirnov,
    mean,
    paired_intervals,
    quantile,
    quantile_intervals,
    roc_area,
    roc_band,
    roc_curve,
    share_error,
    share_interval,
)


def test_as_wide_as_the_standard_error_says() -> None:
    """For many events the interval is mean +- 1.96 standard errors."""
    difference = np.random.default_rng(1).normal(0.3, 2.0, (1, 4000))
    low, high = paired_intervals(difference, resamples=2000)[0]
    mean, error = difference.mean(), difference.std() / np.sqrt(4000)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_one_level_and_another() -> None:
    difference = np.random.default_rng(1).normal(0.0, 1.0, (1, 1000))
    wide = np.diff(paired_intervals(difference, level=0.95)[0])[0]
    narrow = np.diff(paired_intervals(difference, level=0.68)[0])[0]
    # 1.96 and 0.994 standard deviations to either side.
    assert wide / narrow == pytest.approx(1.96 / 0.994, rel=0.1)


def test_rows_are_drawn_together() -> None:
    """A row that is another's double has the double interval, to the last bit."""
    one = np.random.default_rng(2).normal(0.0, 1.0, 50)
    intervals = paired_intervals(np.stack([one, 2 * one, 0 * one]), seed=5)
    np.testing.assert_allclose(intervals[1], 2 * intervals[0], rtol=1e-12)
    np.testing.assert_array_equal(intervals[2], [0.0, 0.0])
    again = paired_intervals(one[None], seed=5)
    np.testing.assert_allclose(again[0], intervals[0], rtol=1e-12)
    assert not np.allclose(paired_intervals(one[None], seed=6), again)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be 1 or more"):
        paired_intervals(np.zeros((1, 2)), resamples=0)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        paired_intervals(np.zeros((1, 2)), level=95)


def events(num: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, yes or no, and weights 0 to 5."""
    rng = np.random.default_rng(4)
    value = rng.normal(0, 1, num).round(1)  # with equal values
    weight = rng.integers(0, 6, num).astype(float)
    return value, rng.random(num) < 1 / (1 + np.exp(-2 * value)), weight


def test_weights_are_repeated_events() -> None:
    value, is_yes, weight = events()
    times = weight.astype(int)
    many, many_yes = np.repeat(value, times), np.repeat(is_yes, times)
    shares = [0.0, 0.16, 0.5, 0.68, 0.9, 1.0]
    for scale in (1.0, 1e-9):  # only ratios of weights matter
        given = scale * weight
        np.testing.assert_array_equal(
            quantile(value, shares, given),
            np.quantile(many, shares, method="averaged_inverted_cdf"),
        )
        assert quantile(value, [0.5], given)[0] == np.median(many)
        assert mean(is_yes, given) == pytest.approx(many_yes.mean())
        edges = np.linspace(-2, 2, 9)
        np.testing.assert_allclose(density(value, edges, given), density(many, edges))
        for found, expected in zip(
            roc_curve(value, is_yes, given), roc_curve(many, many_yes), strict=True
        ):
            np.testing.assert_allclose(np.interp(0.3, found, found), 0.3)
            np.testing.assert_allclose(np.unique(found), np.unique(expected))
        for most in (1.0, 0.1):
            assert roc_area(*roc_curve(value, is_yes, given), most) == pytest.approx(
                roc_area(*roc_curve(many, many_yes), most)
            )
        other = value + 0.1
        found = kolmogorov_smirnov(value, other, given, given[::-1])
        again = np.repeat(other, times[::-1])
        assert found[0] == pytest.approx(kolmogorov_smirnov(many, again)[0])
    equal = np.full(len(value), 3.0)
    np.testing.assert_array_equal(
        quantile(value, shares, equal), np.quantile(value, shares)
    )


def test_effective_events() -> None:
    assert effective_events(np.full(7, 0.2)) == pytest.approx(7)
    assert effective_events(np.array([1.0, 0.0, 0.0])) == 1
    assert effective_events(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_events(np.zeros(3)) == 0


def test_errors_of_weighted_figures_are_those_of_new_samples() -> None:
    """Intervals of one sample have the spread of many samples."""
    rng = np.random.default_rng(3)
    found: dict[str, list[float]] = {"median": [], "share": [], "auc": [], "q90": []}
    said: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(300):
        value = rng.normal(0, 1, 400)
        weight = np.exp(0.7 * value + 0.5 * rng.normal(0, 1, 400))
        is_yes = rng.random(400) < 1 / (1 + np.exp(-value))
        (median, q90), shares = quantile(value, [0.5, 0.9], weight), [0.5, 0.9]
        found["median"].append(median)
        found["q90"].append(q90)
        ends = quantile_intervals(value, shares, weight, resamples=200)
        said["median"].append(np.ptp(ends[0]) / 3.92)
        said["q90"].append(np.ptp(ends[1]) / 3.92)
        found["share"].append(mean(is_yes, weight))
        said["share"].append(share_error(is_yes, weight))
        found["auc"].append(roc_area(*roc_curve(value, is_yes, weight)))
        said["auc"].append(auc_error(value, is_yes, weight))
    for name, values in found.items():
        assert np.mean(said[name]) == pytest.approx(np.std(values), rel=0.15), name


def test_weighted_bootstrap_of_means() -> None:
    value, _, weight = events(2000)
    low, high = paired_intervals(value[None], weight)[0]
    error = share_error(value, weight)  # of any mean
    assert (high - low) / 3.92 == pytest.approx(error, rel=0.1)
    assert low < mean(value, weight) < high


def test_roc_curves_are_those_of_another_library() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    value, is_yes, weight = events()
    rates = roc_curve(value, is_yes, weight)
    given = {"sample_weight": weight}
    assert roc_area(*rates) == pytest.approx(
        metrics.roc_auc_score(is_yes, value, **given)
    )
    assert roc_area(*rates, 0.1) == pytest.approx(
        metrics.roc_auc_score(is_yes, value, max_fpr=0.1, **given)
    )
    grid = np.array([0.05, 0.2, 0.5])
    low, high = roc_band(value, is_yes, grid, weight)
    middle = np.interp(grid, *rates)
    assert (low < middle).all()
    assert (middle < high).all()
    share, num = middle[1], effective_events(weight[is_yes])
    assert (high - low)[1] > 3.92 * np.sqrt(share * (1 - share) / num)
    assert np.isnan(auc_error(value, np.ones(len(value), bool)))


def test_intervals_of_shares() -> None:
    assert share_interval(0.5, 1000)[0] == pytest.approx(0.469, abs=1e-3)
    low, high = share_interval(1.0, 20)
    assert (low, high) == (pytest.approx(0.8389, abs=1e-3), 1.0)
    assert share_interval(0.3, 0) == (0.0, 1.0)


def test_kolmogorov_smirnov_is_that_of_another_library() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 900), rng.normal(0.1, 1, 1100)
    expected = stats.ks_2samp(first, second, method="asymp")
    distance, p_value = kolmogorov_smirnov(first, second)
    assert distance == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue, rel=0.15)
    assert kolmogorov_smirnov(first, first) == (0.0, 1.0)
    # Weights of 1 or 0 are events that are there or not.
    half = (np.arange(900) % 2).astype(float)
    assert kolmogorov_smirnov(first, second, half) == pytest.approx(
        kolmogorov_smirnov(first[1::2], second)
    )
