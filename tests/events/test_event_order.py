"""The order of pulses does not depend on the order of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphnet_icecube2nd.events.events import TIE_BREAKERS, event_order, tie_moves


@given(seed=st.integers(0, 10**6), num=st.integers(1, 60))
def test_rows_in_any_order_give_the_same_pulses(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {
        "time": rng.integers(0, 5, num),
        "sensor_id": rng.integers(0, 4, num),
        "charge": rng.integers(1, 3, num).astype(float),
        "auxiliary": rng.integers(0, 2, num),
    }
    event = np.sort(rng.integers(0, 3, num))

    def ordered(rows: np.ndarray) -> dict[str, list[float]]:
        order = event_order({n: v[rows] for n, v in columns.items()}, event[rows])
        assert sorted(order.tolist()) == list(range(num))
        return {n: v[rows][order].tolist() for n, v in columns.items()}

    expected = ordered(np.arange(num))
    assert ordered(rng.permutation(num)) == expected
    key = list(zip(event, expected["time"], strict=True))
    assert key == sorted(key)


def test_pulses_without_ties_stay_in_order_of_time() -> None:
    columns = {"time": np.array([3.0, 1.0, 2.0]), "charge": np.ones(3)}
    assert event_order(columns, np.zeros(3, np.int64)).tolist() == [1, 2, 0]


@given(
    seed=st.integers(0, 10**6),
    num=st.integers(1, 60),
    kind=st.sampled_from(["int16", "uint64", "float64"]),
)
def test_ties_are_settled_by_place_whatever_its_type(
    seed: int, num: int, kind: str
) -> None:
    """Without a sensor_id the place counts most; it may be a negative integer."""
    rng = np.random.default_rng(seed)
    low = 0 if kind == "uint64" else -3
    columns = {
        "time": rng.integers(0, 5, num),
        "x": rng.integers(low, 3, num).astype(kind),
        "y": rng.integers(low, 3, num).astype(kind),
        "charge": rng.integers(1, 3, num).astype(float),
    }
    event = np.sort(rng.integers(0, 3, num))
    keys = [columns[name] for name in ("charge", "y", "x", "time")]
    expected = np.lexsort((*keys, event))
    assert event_order(columns, event).tolist() == expected.tolist()


@given(
    seed=st.integers(0, 10**6),
    num=st.integers(2, 300),
    places=st.sampled_from([("sensor_id",), ("x", "y", "z"), ("x", "sensor_id")]),
    spread=st.integers(1, 6),
    is_sorted=st.booleans(),
)
def test_same_as_plain_lexsort(
    seed: int, num: int, places: tuple[str, ...], spread: int, is_sorted: bool
) -> None:
    """The plain twin: one `np.lexsort` over all columns."""
    rng = np.random.default_rng(seed)
    event = np.sort(rng.integers(0, 3, num))
    time = rng.integers(0, 4 * spread, num)
    if is_sorted:
        time = time[np.lexsort((time, event))]
    columns: dict[str, np.ndarray] = {
        name: rng.integers(-2, spread, num) / 2 for name in places
    }
    if "sensor_id" in columns:
        columns["sensor_id"] = rng.integers(0, 3 * spread, num).astype(np.int16)
    columns["charge"] = rng.integers(1, 3, num) / 4
    columns["auxiliary"] = rng.integers(0, 2, num).astype(bool)
    keys = [columns[name] for name in TIE_BREAKERS if name in columns]
    expected = np.lexsort((*keys, time, event))
    assert event_order({"time": time, **columns}, event).tolist() == expected.tolist()

    same_T = (time[1:] == time[:-1]) & (event[1:] == event[:-1])
    if is_sorted:
        rows, sources = tie_moves(columns, same_T)
        order = np.arange(num)
        order[rows] = sources
        assert order.tolist() == expected.tolist()
