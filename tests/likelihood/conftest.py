"""Events made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.simulation.detector import SimulatedDetector


@pytest.fixture(scope="session")
def make_event() -> Callable[..., EventPulses]:
    """`make_event(doms, times, detector, charges=None)`: pulses, all of them HLC."""
    return one_event


@pytest.fixture(scope="session")
def detector() -> SimulatedDetector:
    """IceCube-86."""
    return SimulatedDetector.icecube86()


def one_event(
    doms: Sequence[int],
    times: Sequence[float],
    detector: SimulatedDetector,
    charges: Sequence[float] | None = None,
) -> EventPulses:
    """Pulses, all of them HLC."""
    dom_T = np.asarray(doms, np.int64)
    num = len(dom_T)
    return EventPulses(
        position_T3=detector.position_S3[dom_T],
        time_T=np.asarray(times, float),
        charge_T=np.ones(num) if charges is None else np.asarray(charges, float),
        hlc_T=np.ones(num, bool),
        dom_T=dom_T,
        offsets=np.array([0, num]),
        event_id=np.array([7]),
    )
