"""The likelihood against what it is made of, on events made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.limit import configuration_of, truth_seed
from graphnet_icecube2nd.likelihood.photon_likelihood import (
    NUMBERS,
    EventLikelihood,
    Seed,
    displaced_seeds,
    number_names,
)
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import Arrival, cascade_arrival
from graphnet_icecube2nd.simulation.pandel import log_density
from graphnet_icecube2nd.store.event_store import view_event

CONFIG = SimulationConfig()
CASCADE = Seed.of(
    np.array([20.0, 10.0, -350.0]), 10000.0, np.array([0.0, 0.0, 1.0]), cascade=500.0
)
MakeEvent = Callable[..., EventPulses]


def light_of_cascade(detector: SimulatedDetector) -> Arrival:
    return cascade_arrival(
        position=CASCADE.place[0],
        direction=CASCADE.direction[0],
        time=CASCADE.time[0],
        energy=CASCADE.cascade[0],
        dom=detector.position_S3,
        medium=detector.medium,
    )


@pytest.fixture
def pulses(detector: SimulatedDetector, make_event: MakeEvent) -> EventPulses:
    """One photoelectron in each of the six brightest DOMs, and one of noise."""
    arrival = light_of_cascade(detector)
    doms = [*np.argsort(-arrival.mean)[:6].tolist(), 2100]
    times = [*(arrival.time[doms[:6]] + [2.0, 5.0, 12.0, 1.0, 40.0, 90.0]), 10900.0]
    return make_event(doms, times, detector)


def test_it_is_the_sum_it_says(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    """Single photoelectrons: a Poisson process in every DOM, against all DOMs."""
    likelihood = EventLikelihood(pulses, detector, CONFIG, near=1e4, far=1e4)
    found = float(likelihood.of_seeds("cascade", CASCADE)[0])
    arrival = light_of_cascade(detector)
    mean = arrival.mean * detector.rde_S
    expected = -float(mean.sum())
    for dom, time in zip(pulses.dom_T, pulses.time_T, strict=True):
        delay = np.array(time - arrival.time[dom])
        density = np.exp(
            log_density(
                delay, np.array(arrival.shape[dom]), np.array(arrival.rate[dom]), 3.0
            )
        )
        noise = 440e-9 * detector.rde_S[dom]
        expected += float(np.log(mean[dom] * density + noise))
    assert found == pytest.approx(expected, abs=1e-6)
    # Far DOMs in groups, and none beyond: half a percent of the light.
    usual = EventLikelihood(pulses, detector, CONFIG)
    assert float(usual.of_seeds("cascade", CASCADE)[0]) == pytest.approx(
        expected, rel=0.005
    )


def test_doms_without_pulses_speak(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    """More light than was seen is less likely, and a place with DOMs that are dark."""
    likelihood = EventLikelihood(pulses, detector, CONFIG)
    seeds = Seed.join([CASCADE, replace(CASCADE, cascade=np.array([5e4]))])
    value = likelihood.of_seeds("cascade", seeds)
    assert value[0] > value[1] + 50


def test_a_charge_may_be_several_photoelectrons(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    """Two in one interval: by charge 1 improbable, by charge 2 the better guess."""
    values = {}
    for charge in (1.0, 1.6, 2.0):
        charged = replace(pulses, charge_T=np.array([charge, *[1.0] * 6]))
        likelihood = EventLikelihood(charged, detector, CONFIG)
        bright = replace(CASCADE, cascade=np.array([2e3]))
        values[charge] = likelihood.of_seeds("cascade", Seed.join([CASCADE, bright]))
    gain = {charge: value[1] - value[0] for charge, value in values.items()}
    assert gain[2.0] > gain[1.6] > gain[1.0]


def test_seeds_and_numbers_agree(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    """Numbers around a seed are the seed that they lead to; any number at once."""
    rng = np.random.default_rng(2)
    likelihood = EventLikelihood(pulses, detector, CONFIG)
    for topology in NUMBERS:
        seed = replace(CASCADE, muon=np.array([300.0]), back=np.array([150.0]))
        numbers = rng.normal(0, 1, (70, len(number_names(topology))))
        values = likelihood.of(topology, seed, numbers)
        found = displaced_seeds(topology, seed, numbers)
        again = likelihood.of_seeds(topology, found)
        np.testing.assert_allclose(again, values, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found.direction, axis=1), 1.0)


def test_blurred_and_coarse_are_cheaper_views(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    likelihood = EventLikelihood(pulses, detector, CONFIG)
    too_early = replace(CASCADE, time=np.array([10040.0]))
    both = Seed.join([CASCADE, too_early])
    sharp = likelihood.of_seeds("cascade", both)
    soft = likelihood.blurred(15.0).of_seeds("cascade", both)
    assert sharp[0] - sharp[1] > soft[0] - soft[1]
    coarse = likelihood.coarse()
    assert len(coarse.dom_S) <= len(likelihood.dom_S)
    assert np.isfinite(coarse.of_seeds("cascade", CASCADE)).all()


def test_the_truth_is_likelier_than_another_direction(
    simulated: EventStore, detector: SimulatedDetector
) -> None:
    """For nearly all events with light: turned by 90 degrees they are less likely."""
    wins = 0
    numbers = np.flatnonzero(np.asarray(simulated.lengths(0)) > 80)[:25]
    for number in numbers:
        truth = view_event(simulated, int(number)).truth
        likelihood = EventLikelihood(
            EventPulses.read(simulated, np.array([number])),
            detector,
            configuration_of(simulated),
        )
        seed = truth_seed(truth)
        turned = np.roll(seed.direction, 1) * np.array([1.0, -1.0, 1.0])
        turned /= np.linalg.norm(turned)
        both = Seed.join([seed, replace(seed, direction=turned)])
        value = likelihood.of_seeds(str(truth["topology"]), both)
        wins += value[0] > value[1]
    assert wins >= 0.9 * len(numbers)


def test_it_needs_doms_and_one_event(
    detector: SimulatedDetector, pulses: EventPulses
) -> None:
    with pytest.raises(ValueError, match=r"event 7: the likelihood needs the DOM"):
        EventLikelihood(replace(pulses, dom_T=np.full(7, -1)), detector, CONFIG)
    two = replace(pulses, event_id=np.array([1, 2]), offsets=np.array([0, 2, 7]))
    with pytest.raises(ValueError, match="one event is needed, got 2"):
        EventLikelihood(two, detector, CONFIG)
