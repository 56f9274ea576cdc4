"""Photoelectrons into pulses: merging, coincidences, triggers, noise, efficiency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.events import (
    Pulses,
    draw_noise,
    find_triggers,
    make_pulses,
)
from graphnet_icecube2nd.simulation.light import (
    MUON_RADIATIVE_LOSS,
    cascade_arrival,
    muon_energy_after,
    track_arrival,
)
from graphnet_icecube2nd.simulation.particles import Particles, draw_particles
from graphnet_icecube2nd.simulation.photoelectrons import Photoelectrons, light_at_doms

DETECTOR = SimulatedDetector.icecube86()


def photoelectrons(rows: list[tuple[int, int, float]]) -> Photoelectrons:
    """Of (event, DOM, time)."""
    event, dom, time = zip(*rows, strict=True)
    return Photoelectrons(
        event_E=np.array(event),
        channel_E=np.array(dom),
        time_E=np.array(time, float),
        weight_E=np.ones(len(rows)),
    )


def pulses_of(rows: list[tuple[int, int, float]], spread: float = 0.0) -> Pulses:
    rng = np.random.default_rng(0)
    return make_pulses(photoelectrons(rows), DETECTOR, 10.0, spread, rng)


def test_photoelectrons_of_an_interval_are_one_pulse() -> None:
    """Counted from the first of the DOM; another DOM or event is another pulse."""
    times = [100.0, 104.0, 109.9, 110.1, 135.0]
    found = pulses_of([(0, 5, t) for t in times] + [(0, 6, 101.0), (1, 5, 101.0)])
    assert found.event_T.tolist() == [0, 0, 0, 0, 1]
    assert found.channel_T.tolist() == [5, 5, 5, 6, 5]
    np.testing.assert_allclose(found.time_T, [100.0, 110.1, 135.0, 101.0, 101.0])
    np.testing.assert_allclose(found.charge_T, [3.0, 1.0, 1.0, 1.0, 1.0])


def test_charges_scatter_around_the_number() -> None:
    rows = [(event, 7, 5.0 * k) for event in range(3000) for k in range(2)]
    found = pulses_of(rows, spread=0.3)
    assert len(found.charge_T) == 3000
    assert found.charge_T.mean() == pytest.approx(2.0, abs=0.03)
    assert found.charge_T.std() == pytest.approx(0.3 * np.sqrt(2), abs=0.03)
    steps = found.charge_T / 0.025
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert found.charge_T.min() > 0


@pytest.mark.parametrize(
    ("other", "delay", "coincident"),
    [
        (101, 999.0, True),  # the next DOM, in time
        (101, 1001.0, False),  # too late
        (101, -999.0, True),
        (102, 500.0, True),  # two DOMs away
        (98, 500.0, True),
        (103, 0.0, False),  # three
        (100, 500.0, False),  # itself
        (160, 0.0, False),  # the same height on another string
    ],
)
def test_local_coincidence(other: int, delay: float, coincident: bool) -> None:
    found = pulses_of([(0, 100, 5000.0), (0, other, 5000.0 + delay)])
    assert found.hlc_T.tolist() == [coincident] * 2


def test_no_coincidence_across_strings_or_events() -> None:
    """DOMs 59 and 60 have neighbouring numbers, but hang on two strings."""
    assert not pulses_of([(0, 59, 0.0), (0, 60, 0.0)]).hlc_T.any()
    assert not pulses_of([(0, 100, 0.0), (1, 101, 0.0)]).hlc_T.any()
    # The last DOM of an event and the first of the next.
    assert not pulses_of([(0, 5159, 0.0), (1, 0, 0.0)]).hlc_T.any()


def test_neighbours_follow_the_depth_not_the_number() -> None:
    neighbour = DETECTOR.neighbour_SN
    z = DETECTOR.position_S3[:, 2]
    assert neighbour[0].tolist().count(-1) == 2  # the topmost DOM has two below
    for dom in (0, 30, 59, 5100):
        for other in neighbour[dom][neighbour[dom] >= 0]:
            assert dom // 60 == other // 60
            assert 1 <= abs(dom - other) <= 2
            assert z[dom] != z[other]


def test_trigger_of_eight_doms() -> None:
    """Four pairs of neighbours within 5 us; at the first DOM it begins."""
    rows = [(0, 60 * s + k, 100.0 + 1600.0 * s) for s in range(4) for k in (0, 1)]
    begin, end = find_triggers(pulses_of(rows), 1, DETECTOR)
    assert begin.tolist() == [100.0]
    assert end.tolist() == [4900.0]
    late = [(0, 60 * s + k, 100.0 + 1700.0 * s) for s in range(4) for k in (0, 1)]
    begin, end = find_triggers(pulses_of(late), 1, DETECTOR)
    assert np.isnan(begin).all()
    assert np.isnan(end).all()
    # A DOM counts once, however many pulses it has.
    again = [(0, d, t) for d in (0, 1) for t in np.arange(0.0, 400.0, 100.0)]
    assert np.isnan(find_triggers(pulses_of(again), 1, DETECTOR)[0]).all()


def test_trigger_of_three_doms_in_deepcore_only() -> None:
    deepcore = 60 * 79 + 30  # of string 80
    rows = [(0, deepcore + k, 10.0 * k) for k in range(3)]
    begin, end = find_triggers(pulses_of(rows), 1, DETECTOR)
    assert begin.tolist() == [0.0]
    assert end.tolist() == [20.0]
    cap = [(0, 60 * 79 + k, 10.0 * k) for k in range(3)]  # above the dust
    assert np.isnan(find_triggers(pulses_of(cap), 1, DETECTOR)[0]).all()
    elsewhere = [(0, 60 * 10 + k, 10.0 * k) for k in range(3)]
    assert np.isnan(find_triggers(pulses_of(elsewhere), 1, DETECTOR)[0]).all()


def test_noise_has_its_rate_and_goes_with_rde() -> None:
    rng = np.random.default_rng(3)
    rows = [(event, 0, 0.0) for event in range(400)]
    noise = draw_noise(photoelectrons(rows), 401, 500.0, DETECTOR, rng)
    span = 4000.0 + 5000.0 + 6000.0  # ns, see draw_noise
    expected = 500e-9 * DETECTOR.rde_S.sum() * span
    assert np.bincount(noise.event_E, minlength=401)[:400].mean() == pytest.approx(
        expected, rel=0.02
    )
    assert (noise.event_E < 400).all()  # no noise where there is no light
    high = DETECTOR.rde_S > 1.2
    per_dom = np.bincount(noise.channel_E, minlength=5160)
    assert per_dom[high].mean() / per_dom[~high].mean() == pytest.approx(1.35, rel=0.05)
    assert noise.time_E.min() >= -9000.0
    assert noise.time_E.max() <= 6000.0
    assert np.abs(np.median(noise.time_E) + 1500.0) < 100.0


def event_of(**changes: object) -> Particles:
    """A cascade of 1 TeV in the clear ice, unless told otherwise."""
    rng = np.random.default_rng(0)
    drawn = draw_particles(np.array([2]), SimulationConfig(), DETECTOR.volume, rng)
    up = np.array([[0.0, 0.0, 1.0]])
    columns = {
        "direction_B3": up,
        "cascade_direction_BC3": np.stack([up, up], axis=1),
        "vertex_B3": np.array([[20.0, 10.0, -350.0]]),
        "cascade_energy_BC": np.array([[1e3, 0.0]]),
        **changes,
    }
    return replace(drawn, **columns)


def test_light_at_a_dom_goes_with_its_efficiency() -> None:
    plain = SimulatedDetector(
        replace(DETECTOR.geometry, rde_S=DETECTOR.geometry.rde_S * 0 + 1.0),
        DETECTOR.ice,
    )
    real, other = (light_at_doms(event_of(), d)[0] for d in (DETECTOR, plain))
    np.testing.assert_array_equal(real.dom_P, other.dom_P)
    np.testing.assert_allclose(real.mean, other.mean * DETECTOR.rde_S[real.dom_P])


def test_no_dom_that_sees_light_is_left_out() -> None:
    """Groups of DOMs are asked first: against asking every DOM."""
    cascade = light_at_doms(event_of(), DETECTOR)[0]
    everywhere = cascade_arrival(
        position=np.array([20.0, 10.0, -350.0]),
        direction=np.array([0.0, 0.0, 1.0]),
        time=np.array(0.0),
        energy=np.array(1e3),
        dom=DETECTOR.position_S3,
        medium=DETECTOR.medium,
    )
    check_all_light(cascade.dom_P, cascade.mean, everywhere.mean)
    track = event_of(
        topology_B=np.array([0]),
        vertex_B3=np.array([[-3000.0, 100.0, -200.0]]),
        track_direction_B3=np.array([[1.0, 0.0, 0.0]]),
        cascade_energy_BC=np.zeros((1, 2)),
        track_length_B=np.array([9000.0]),
        muons_B=np.ones(1),
        near_B=np.array([1500.0]),
        near_energy_B=muon_energy_after(np.array([2e4]), np.array([1500.0])),
        even_loss_B=np.array([MUON_RADIATIVE_LOSS]),
    )
    found = light_at_doms(track, DETECTOR)[0]
    everywhere = track_arrival(
        start=np.array([-3000.0, 100.0, -200.0]),
        direction=np.array([1.0, 0.0, 0.0]),
        time=np.array(0.0),
        length=np.array(9000.0),
        energy=np.array(2e4),
        muons=np.array(1.0),
        dom=DETECTOR.position_S3,
        medium=DETECTOR.medium,
    )
    check_all_light(found.dom_P, found.mean, everywhere.mean)


@pytest.mark.parametrize("height", [-140.0, -50.0, 430.0])
def test_no_light_is_lost_at_the_edges_of_dust(height: float) -> None:
    """Where the ice changes within a group of DOMs."""
    place = np.array([0.0, 0.0, height])
    bright = event_of(vertex_B3=place[None], cascade_energy_BC=np.array([[1e5, 0.0]]))
    found = light_at_doms(bright, DETECTOR)[0]
    everywhere = cascade_arrival(
        position=place,
        direction=np.array([0.0, 0.0, 1.0]),
        time=np.array(0.0),
        energy=np.array(1e5),
        dom=DETECTOR.position_S3,
        medium=DETECTOR.medium,
    )
    check_all_light(found.dom_P, found.mean, everywhere.mean)


def check_all_light(dom: np.ndarray, mean: np.ndarray, everywhere: np.ndarray) -> None:
    expected = everywhere * DETECTOR.rde_S
    left_out = np.ones(len(expected), bool)
    left_out[dom] = False
    assert expected[left_out].sum() < 0.01 * expected.sum() + 0.1
    assert expected[left_out].max() < 0.01
    np.testing.assert_allclose(mean, expected[dom], rtol=1e-2, atol=5e-4)


def test_a_configuration_without_noise_has_none() -> None:
    rng = np.random.default_rng(0)
    rows = photoelectrons([(0, 3, 0.0)])
    quiet = SimulationConfig(noise_rate=0.0)
    assert len(draw_noise(rows, 1, quiet.noise_rate, DETECTOR, rng).event_E) == 0
