"""The line fit, on points that fly and on simulated events."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.evaluation.resolution import compare
from graphnet_icecube2nd.likelihood.line_fit import line_fit, line_fit_events
from graphnet_icecube2nd.results.truth import EventTruth

DIRECTION = np.array([0.48, -0.6, 0.64])


def flying(num: int, speed: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    time = np.linspace(10000.0, 13000.0, num)
    start = np.array([-200.0, 300.0, -400.0])
    return start + speed * (time - 10000.0)[:, None] * DIRECTION, time


def test_a_flying_point_is_found_exactly() -> None:
    place, time = flying(12)
    direction, speed = line_fit(place, time, np.array([0, 12]))
    np.testing.assert_allclose(direction, DIRECTION[None], atol=1e-9)
    assert speed == pytest.approx([0.3])
    shuffled = np.random.default_rng(0).permutation(12)
    again, _ = line_fit(place[shuffled], time[shuffled], np.array([0, 12]))
    np.testing.assert_allclose(again, direction, atol=1e-9)


def test_late_pulses_are_taken_out() -> None:
    """Scattered light 778 ns and more after an earlier pulse within 156 m."""
    place, time = flying(12)
    late = place[:1] + np.array([[10.0, 0.0, 0.0]]), time[:1] + 900.0
    both = np.concatenate([place, late[0]]), np.concatenate([time, late[1]])
    direction, _ = line_fit(*both, np.array([0, 13]))
    np.testing.assert_allclose(direction, DIRECTION[None], atol=1e-9)
    # 700 ns later it stays, and pulls.
    both = both[0], np.append(time, time[0] + 700.0)
    pulled, _ = line_fit(*both, np.array([0, 13]))
    assert np.degrees(np.arccos(pulled @ DIRECTION)) > 0.05


def test_outliers_pull_less_than_in_least_squares() -> None:
    place, time = flying(12)
    noise = np.array([600.0, 600.0, 600.0])
    place, time = np.vstack([place, noise]), np.append(time, 10500.0)
    robust, _ = line_fit(place, time, np.array([0, 13]))
    since = time - time.mean()
    plain = since @ (place - place.mean(axis=0))
    plain /= np.linalg.norm(plain)
    off = [float(np.arccos(np.clip(v @ DIRECTION, -1, 1))) for v in (robust[0], plain)]
    assert off[0] < 0.6 * off[1]


def test_events_do_not_mix_and_hopeless_ones_have_no_direction() -> None:
    place, time = flying(6)
    still = np.zeros((4, 3))
    together = np.concatenate([still, place, place[:1], place])
    times = np.concatenate([[1.0, 2.0, 3.0, 4.0], time, [5.0], np.full(6, 9.0)])
    direction, speed = line_fit(together, times, np.array([0, 4, 10, 11, 17]))
    assert np.isnan(direction[[0, 2, 3]]).all()
    assert np.isnan(speed[[0, 2, 3]]).all()
    np.testing.assert_allclose(direction[1], DIRECTION, atol=1e-9)


def test_on_simulated_events(simulated: EventStore) -> None:
    table = line_fit_events(simulated)
    assert table.is_ok.all()
    rows = {
        row.topology: row
        for row in compare([table], EventTruth.of(simulated))
        if row.energy == "all"
    }
    # Tracks fly, cascades do not; guessing has 90 degrees.
    assert rows["through_going_track"].median < 15.0
    assert rows["muon_bundle"].median < 15.0
    assert 60.0 < rows["cascade"].median < 110.0
    np.testing.assert_array_equal(table.event_id, np.arange(256))
    some = line_fit_events(simulated, [5, 200, 17])
    np.testing.assert_array_equal(some.event_id, [5, 200, 17])
    np.testing.assert_allclose(
        some.direction_B3, table.direction_B3[[5, 200, 17]], atol=1e-9
    )
