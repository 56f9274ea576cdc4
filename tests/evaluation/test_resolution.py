"""Tables side by side: by topology and energy, failures counted, pulls."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd import EventStore, EventTable
from graphnet_icecube2nd.evaluation.resolution import (
    as_dicts,
    as_markdown,
    compare,
)
from graphnet_icecube2nd.results.truth import EventTruth

NUM = 6
TRUTH = EventTruth(
    event_id=np.arange(NUM),
    direction_B3=np.tile([[0.0, 0.0, 1.0]], (NUM, 1)),
    energy_B=np.array([150.0, 200.0, 2e3, 3e3, 4e3, 5e3]),
    topology_B=np.array(["cascade", "cascade", "cascade", "track", "track", "track"]),
)


def tilted(name: str, angles: list[float], kappa: float = 100.0) -> EventTable:
    radians = np.radians(angles)
    vectors = np.stack([np.sin(radians), 0 * radians, np.cos(radians)], axis=1)
    return EventTable.from_vectors(name, np.arange(NUM), vectors, np.full(NUM, kappa))


def test_rows() -> None:
    table = tilted("model", [10.0, 20.0, 30.0, 1.0, 2.0, 3.0])
    rows = {(r.topology, r.energy): r for r in compare([table], TRUTH)}
    assert list(rows) == [
        *(("all", "all"), ("all", "1e2-1e3 GeV"), ("all", "1e3-1e4 GeV")),
        *(("cascade", "all"), ("cascade", "1e2-1e3 GeV"), ("cascade", "1e3-1e4 GeV")),
        *(("track", "all"), ("track", "1e3-1e4 GeV")),
    ]
    assert rows["all", "all"].mean == pytest.approx(np.radians(11.0))
    assert rows["track", "all"].median == pytest.approx(2.0)
    assert rows["cascade", "1e2-1e3 GeV"].events == 2
    assert rows["cascade", "1e3-1e4 GeV"].q68 == pytest.approx(30.0)
    assert rows["track", "all"].pull == pytest.approx(np.radians(2.0) * 10)


def test_a_missing_direction_counts_as_a_guess() -> None:
    table = EventTable.of_directions(
        name="half",
        event_id=np.arange(NUM),
        direction_B3=np.where(np.arange(NUM)[:, None] < 3, TRUTH.direction_B3, np.nan),
        kappa_B=np.full(NUM, np.nan),
        status_B=np.array(["ok"] * 3 + ["no fit"] * 3),
    )
    row = compare([table], TRUTH)[0]
    assert row.failed == 3
    assert row.mean == pytest.approx(np.pi / 4)
    assert np.isnan(row.pull)
    assert as_dicts([row])[0]["pull"] is None
    assert "| half | 0.785 |" in as_markdown([row])


def test_tables_stand_side_by_side_in_any_order_of_events() -> None:
    one = tilted("one", [10.0] * NUM)
    order = np.array([3, 1, 0, 5, 4, 2])
    two = tilted("two", [5.0] * NUM).of_events(order)
    rows = compare([one, two], TRUTH)
    assert [row.table for row in rows[:2]] == ["one", "two"]
    assert rows[1].mean == pytest.approx(np.radians(5.0))
    short = one.of_events(np.arange(5))
    with pytest.raises(ValueError, match="table 'one' has no event 5"):
        compare([short], TRUTH)


def test_what_is_refused() -> None:
    table = tilted("one", [10.0] * NUM)
    with pytest.raises(ValueError, match="different names, found one, one"):
        compare([table, table], TRUTH)
    nothing = EventTruth(
        event_id=np.empty(0, np.int64),
        direction_B3=np.empty((0, 3)),
        energy_B=np.empty(0),
        topology_B=np.empty(0, np.str_),
    )
    with pytest.raises(ValueError, match="at least one event"):
        compare([table], nothing)


def test_truth_of_a_store(simulated: EventStore) -> None:
    truth = EventTruth.of(simulated, [3, 100])
    np.testing.assert_array_equal(truth.event_id, [3, 100])
    np.testing.assert_allclose(np.linalg.norm(truth.direction_B3, axis=1), 1.0)
    whole = EventTruth.of(simulated)
    assert len(whole.event_id) == 256
    np.testing.assert_allclose(whole.direction_B3[[3, 100]], truth.direction_B3)
    assert set(whole.topology_B) >= {"cascade", "through_going_track"}
