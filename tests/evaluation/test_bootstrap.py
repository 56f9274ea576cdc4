"""Intervals of paired differences."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd.evaluation.bootstrap import paired_intervals


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
