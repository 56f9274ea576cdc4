"""The first pulses of DOMs, of events made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd.likelihood.event_pulses import EventPulses


@pytest.fixture
def two_events() -> EventPulses:
    """DOMs a, b, a, a, then b, b of another event."""
    a, b = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    return EventPulses(
        position_T3=np.array([a, b, a, a, b, b]),
        time_T=np.array([30.0, 10.0, 20.0, 40.0, 9.0, 8.0]),
        charge_T=np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]),
        hlc_T=np.array([True, False, False, True, True, False]),
        dom_T=np.array([7, 8, 7, 7, 8, 8]),
        offsets=np.array([0, 4, 6]),
        event_id=np.array([3, 5]),
    )


def test_the_first_pulse_of_each_dom(two_events: EventPulses) -> None:
    first = two_events.first_of_doms()
    assert first.time_T.tolist() == [10.0, 20.0, 8.0]
    assert first.charge_T.tolist() == [2.0, 4.0, 32.0]
    assert first.hlc_T.tolist() == [False, False, False]
    assert first.dom_T.tolist() == [8, 7, 8]
    assert first.offsets.tolist() == [0, 2, 3]


def test_it_may_have_the_charge_of_all(two_events: EventPulses) -> None:
    first = two_events.first_of_doms(total_charge=True)
    assert first.time_T.tolist() == [10.0, 20.0, 8.0]
    # 1 + 4 + 8 of DOM a; DOM b of the two events is not the same.
    assert first.charge_T.tolist() == [2.0, 13.0, 48.0]
