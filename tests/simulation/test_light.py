"""Light in ice, by cases made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.detector.geometry import depth_to_z
from graphnet_icecube2nd.detector.ice import (
    LAKE_WATER,
    SEA_WATER,
    SUBSTANCES,
    IceModel,
)
from graphnet_icecube2nd.simulation import light
from graphnet_icecube2nd.simulation.light import (
    LightPath,
    Medium,
    cascade_arrival,
    line_light,
    muon_energy_after,
    muon_light,
    muon_range,
    point_light,
    shower_depth,
    shower_light,
    track_arrival,
)

UP = np.array([0.0, 0.0, 1.0])


def uniform_ice(scattering: float, absorption: float) -> Medium:
    depth = torch.tensor([500.0, 3500.0], dtype=torch.float64)
    return Medium(
        IceModel(
            depth_N=depth,
            scattering_length_N=torch.full_like(depth, scattering),
            absorption_length_N=torch.full_like(depth, absorption),
        )
    )


ICE = uniform_ice(30.0, 120.0)


def path(scattering: float, absorption: float) -> LightPath:
    return LightPath(scattering=np.array(scattering), absorption=np.array(absorption))


def track(dom: list[float], medium: Medium = ICE, **changes: object) -> light.Arrival:
    """A 1 TeV muon that flies up the z axis from 500 m below, at 0 ns."""
    arguments = {
        "start": np.array([0.0, 0.0, -500.0]),
        "direction": UP,
        "time": np.array(0.0),
        "length": np.array(1000.0),
        "energy": np.array(1e3),
        "muons": np.array(1.0),
        **changes,
    }
    return track_arrival(dom=np.array(dom), medium=medium, **arguments)


def cascade(dom: list[float], medium: Medium = ICE, **changes: object) -> light.Arrival:
    """100 GeV at the origin, at 0 ns, flying up."""
    arguments = {
        "position": np.zeros(3),
        "direction": UP,
        "time": np.array(0.0),
        "energy": np.array(100.0),
        **changes,
    }
    return cascade_arrival(dom=np.array(dom), medium=medium, **arguments)


def test_speed_of_light_in_ice() -> None:
    assert ICE.speed == pytest.approx(0.221, abs=5e-4)  # m/ns
    # From the middle of a shower of 100 GeV, 3 m ahead of its start.
    depth = float(shower_depth(np.array(100.0)))
    assert depth == pytest.approx(3.05, abs=0.01)
    flown = depth / 0.299792458
    found = float(cascade([0.0, 0.0, 100.0 + depth]).time) - flown
    assert found == pytest.approx(100 / ICE.speed)
    # 452 ns for 100 m.
    found = float(cascade([100.0, 0.0, depth]).time) - flown
    assert found == pytest.approx(452.4, abs=0.1)


def test_cherenkov_angle() -> None:
    assert math.degrees(math.acos(ICE.cosine)) == pytest.approx(40.7, abs=0.1)


def test_cherenkov_time_of_a_known_track_at_a_known_dom() -> None:
    """A DOM 100 m beside the track, 500 m along it."""
    angle = math.acos(ICE.cosine)
    leaves = 500.0 - 100.0 / math.tan(angle)  # where the light leaves: 383.9 m
    flies = 100.0 / math.sin(angle)  # how far it goes: 153.3 m
    expected = leaves / 0.299792458 + flies / ICE.speed
    found = float(track([100.0, 0.0, 0.0]).time)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx(1974.2, abs=1.0)
    # No point of the track has light there earlier, if light flew at its phase speed.
    places = np.linspace(0.0, 1000.0, 100001)
    phase = 0.299792458 / 1.3195
    arrives = places / 0.299792458 + np.hypot(100.0, 500.0 - places) / phase
    assert places[arrives.argmin()] == pytest.approx(leaves, abs=0.05)


def test_light_from_a_track_that_begins_later_leaves_at_its_beginning() -> None:
    behind = track([100.0, 0.0, -500.0])  # beside the very beginning
    assert float(behind.time) == pytest.approx(100.0 / ICE.speed)
    ahead = track([0.0, 0.0, 600.0])  # 100 m behind the end
    expected = 1000.0 / 0.299792458 + 100.0 / ICE.speed
    assert float(ahead.time) == pytest.approx(expected)


def test_track_is_dark_far_outside_its_ends() -> None:
    beside = float(track([50.0, 0.0, 0.0]).mean)
    assert float(track([50.0, 0.0, -800.0]).mean) < 1e-3 * beside
    assert float(track([50.0, 0.0, 900.0]).mean) < 1e-3 * beside


@pytest.mark.parametrize("length", [1.0, 20.0, 200.0])
def test_a_track_has_as_much_light_as_it_is_long(length: float) -> None:
    """Summed along a line of DOMs beside it, against an endless track's."""
    z = np.arange(-1500.0, 1500.0, 0.5)
    for beside in (10.0, 80.0):
        doms = np.stack([0 * z + beside, 0 * z, z], axis=1).tolist()
        short = track(
            doms, start=np.zeros(3), length=np.array(length), energy=np.array(200.0)
        )
        step = float(short.mean.sum()) * 0.5
        middle = track([beside, 0.0, 0.0], energy=np.array(200.0 + 500 * 0.3))
        assert step == pytest.approx(length * float(middle.mean), rel=0.35)
    nothing = track([10.0, 0.0, 0.0], start=np.zeros(3), length=np.array(0.0))
    assert float(nothing.mean) < 1e-12


@pytest.mark.parametrize("scattering", [5.0, 30.0, 80.0])
def test_near_light_only_spreads_out(scattering: float) -> None:
    """1 / (4 pi d2) from a point, 1 / (2 pi sin(Cherenkov) d) from a line."""
    ice, near = path(scattering, 4 * scattering), np.array(0.01 * scattering)
    assert float(point_light(near, ice)) == pytest.approx(
        1 / (4 * math.pi * near**2), rel=0.01
    )
    sine = math.sin(math.acos(ICE.cosine))
    assert float(line_light(near, ice, ICE.sine)) == pytest.approx(
        1 / (2 * math.pi * sine * near), rel=0.03
    )


def test_far_light_is_diffuse() -> None:
    """What the diffusion equation gives, a line's as the sum of its points'."""
    ice = path(5.0, 200.0)
    fades = math.sqrt(5.0 * 200.0 / 3)
    # The mean of cosine squared 1/3, and of the few that are absorbed before.
    step = 5.0 / 3 * math.exp(5.0 / 200.0)
    far = np.array(150.0)
    expected = math.exp(-150.0 / fades) / (4 * math.pi * step * 150.0)
    assert float(point_light(far, ice)) == pytest.approx(expected, rel=1e-6)
    along = np.linspace(-2000.0, 2000.0, 400001)
    points = point_light(np.hypot(150.0, along), ice)
    total = float(np.sum(points) * (along[1] - along[0]))
    assert float(line_light(far, ice, ICE.sine)) == pytest.approx(total, rel=0.05)


def test_more_absorption_and_more_distance_are_less_light() -> None:
    """Also by how much: e-folds in units of the propagation length."""
    clear, dusty = uniform_ice(30.0, 120.0), uniform_ice(30.0, 30.0)
    dom = [150.0, 0.0, 0.0]
    assert float(cascade(dom, dusty).mean) < float(cascade(dom, clear).mean)
    assert float(track(dom, dusty).mean) < float(track(dom, clear).mean)
    distances = np.array([200.0, 250.0, 300.0])
    doms = np.stack([distances, 0 * distances, 0 * distances], axis=1)
    mean = cascade_arrival(
        position=np.zeros(3),
        direction=UP,
        time=np.array(0.0),
        energy=np.array(100.0),
        dom=doms,
        medium=clear,
    ).mean
    slope = np.diff(np.log(mean * distances)) / np.diff(distances)
    np.testing.assert_allclose(-1 / slope, math.sqrt(30.0 * 120.0 / 3), rtol=0.03)


def test_light_is_proportional_to_the_energy_of_a_cascade() -> None:
    dom = [40.0, 0.0, 10.0]
    once, twice = (
        cascade(
            dom,
            energy=np.array(e),
            position=np.array([0.0, 0.0, -float(shower_depth(np.array(e)))]),
        ).mean
        for e in (50.0, 100.0)
    )
    assert float(twice) == pytest.approx(2 * float(once))
    muons = [track(dom, muons=np.array(n)).mean for n in (1.0, 5.0)]
    assert float(muons[1]) == pytest.approx(5 * float(muons[0]))


def test_a_muon_loses_energy_and_shines_less() -> None:
    assert float(muon_range(np.array(1e3))) == pytest.approx(2630.0, rel=0.01)
    assert float(muon_energy_after(np.array(1e3), np.array(2650.0))) == 0.0
    # dE/dx = a + b E at the beginning.
    lost = 1e3 - float(muon_energy_after(np.array(1e3), np.array(1.0)))
    assert lost == pytest.approx(0.2375 + 0.333, rel=1e-3)
    # Bare muon and what it kicks out, 1.33; and 5.2 m/GeV of 0.333 GeV/m.
    assert float(muon_light(np.array(1e3))) == pytest.approx(1.33 + 1.735, rel=1e-3)
    early, late = track([30.0, 0.0, -400.0]), track([30.0, 0.0, 400.0])
    assert float(late.mean) < float(early.mean)


def test_hadronic_showers_shine_less() -> None:
    share = shower_light(np.array([1.0, 100.0, 1e6])) / np.array([1.0, 100.0, 1e6])
    assert (np.diff(share) > 0).all()
    assert 0.4 < share[0] < 0.6
    assert share[1] == pytest.approx(0.74, abs=0.01)
    assert 0.9 < share[2] < 1.0


def test_cascades_shine_forward_most_at_the_cherenkov_angle() -> None:
    angles = np.radians([0.0, 41.0, 90.0, 180.0])
    doms = 30.0 * np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=1)
    mean = cascade_arrival(
        position=np.zeros(3),
        direction=UP,
        time=np.array(0.0),
        energy=np.array(100.0),
        dom=doms,
        medium=uniform_ice(60.0, 120.0),
    ).mean
    # A DOM looks down, so light that comes from above counts less.
    assert mean.argmax() == 1
    assert mean[1] > 3 * mean[3]


def test_a_dom_looks_down() -> None:
    """The same light from below and from above."""
    above = cascade([0.0, 0.0, 40.0], direction=np.array([1.0, 0.0, 0.0]))
    below = cascade([0.0, 0.0, -40.0], direction=np.array([1.0, 0.0, 0.0]))
    assert float(above.mean) > 1.3 * float(below.mean)
    assert float(above.shape) < float(below.shape)  # from behind it scatters first


def test_the_dust_layer_is_at_its_depth() -> None:
    """2000 to 2100 m below the surface light fades soonest, z from -52 to -152 m."""
    medium = Medium(IceModel.icecube())
    depth = np.arange(1500.0, 2400.0, 10.0)
    z = depth_to_z(depth)
    fades = medium.between(z, z).propagation
    assert 2000.0 <= depth[fades.argmin()] <= 2100.0
    assert fades.min() < 9.0
    dusty, clear = float(depth_to_z(2050.0)), float(depth_to_z(2300.0))
    for function, key in ((cascade, "position"), (track, "start")):
        seen = []
        for height in (dusty, clear):
            where = np.array([0.0, 0.0, height - (250.0 if key == "start" else 0.0)])
            seen.append(function([60.0, 0.0, height], medium, **{key: where}).mean)
        assert float(seen[0]) < 0.3 * float(seen[1])


def test_ice_is_averaged_over_the_depths_that_light_crosses() -> None:
    depth = torch.tensor([1000.0, 1999.0, 2000.0, 3000.0], dtype=torch.float64)
    length = torch.tensor([10.0, 10.0, 40.0, 40.0], dtype=torch.float64)
    medium = Medium(
        IceModel(
            depth_N=depth, scattering_length_N=length, absorption_length_N=4 * length
        )
    )
    high, low = np.array(depth_to_z(1900.0)), np.array(depth_to_z(2100.0))
    crossed = medium.between(high, low)
    expected = 1 / (0.5 * (1 / 10 + 1 / 40))
    assert float(crossed.scattering) == pytest.approx(expected, rel=0.02)
    assert float(crossed.absorption) == pytest.approx(4 * expected, rel=0.02)
    back = medium.between(low, high)
    assert float(back.scattering) == pytest.approx(float(crossed.scattering))
    # Beyond the table its edges hold, at one height what is there.
    for depth_m, expected in ((500.0, 10.0), (1500.0, 10.0), (3500.0, 40.0)):
        place = np.array(depth_to_z(depth_m))
        assert float(medium.between(place, place).scattering) == pytest.approx(expected)


def test_single_precision_is_as_good() -> None:
    medium = Medium(IceModel.icecube())
    rng = np.random.default_rng(0)
    doms = rng.uniform(-500, 500, (500, 3))
    for precise, single in (
        (
            track(doms.tolist(), medium),
            track_arrival(
                start=np.float32([0, 0, -500]),
                direction=np.float32([0, 0, 1]),
                time=np.float32(0),
                length=np.float32(1000),
                energy=np.float32(1e3),
                muons=np.float32(1),
                dom=doms.astype(np.float32),
                medium=medium,
            ),
        ),
    ):
        assert single.mean.dtype == np.float32
        np.testing.assert_allclose(single.mean, precise.mean, rtol=2e-3, atol=1e-12)
        np.testing.assert_allclose(single.time, precise.time, atol=1e-2)


def test_amanda_scattering_is_that_of_the_table() -> None:
    ice = IceModel.icecube()
    there = (ice.depth_N >= 1500) & (ice.depth_N <= 2000)
    mean = float(1 / (1 / ice.scattering_length_N[there]).mean())
    assert mean == pytest.approx(light.AMANDA_SCATTERING, abs=0.1)


WATER = Medium(IceModel.water(), SUBSTANCES[SEA_WATER])


@pytest.mark.parametrize(
    ("name", "salt", "celsius", "pressure"),
    [(SEA_WATER, 38.44, 13.1, 300.0), (LAKE_WATER, 0.0, 3.5, 100.0)],
)
def test_refractive_indices_of_water(
    name: str, salt: float, celsius: float, pressure: float
) -> None:
    """At 460 nm, by the formula of Quan and Fry, in nm, permille, Celsius, atm."""

    def phase(nm: float) -> float:
        salty = 1.779e-4 - 1.05e-6 * celsius + 1.6e-8 * celsius**2
        slope = 15.868 + 0.01155 * salt - 0.00423 * celsius
        fresh = 1.31405 - 2.02e-6 * celsius**2 + 1.4e-5 * pressure
        return fresh + salty * salt + slope / nm - 4382 / nm**2 + 1.1455e6 / nm**3

    dispersion = (phase(461.0) - phase(459.0)) / 2
    group = phase(460.0) / (1 + 460.0 * dispersion / phase(460.0))
    assert SUBSTANCES[name].phase_index == pytest.approx(phase(460.0), abs=2e-4)
    assert SUBSTANCES[name].group_index == pytest.approx(group, abs=2e-4)


def test_light_in_clear_water_is_direct() -> None:
    """1 / (4 pi d2) from a point and the Cherenkov cone of a line, and absorption."""
    assert WATER.is_clear
    assert not Medium(IceModel.icecube()).is_clear
    far = np.array([20.0, 60.0, 150.0])
    sea = WATER.between(np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(
        point_light(far, sea), np.exp(-far / 60) / (4 * np.pi * far**2), rtol=1e-6
    )
    sine = WATER.sine
    np.testing.assert_allclose(
        line_light(far, sea, sine),
        np.exp(-far / sine / 60) / (2 * np.pi * sine * far),
        rtol=1e-6,
    )
    # A DOM beside a long track, and its light: photons per metre times area times that.
    beside = track([20.0, 0.0, 0.0], WATER)
    per_metre = 2 * np.pi / 137.036 * sine**2 * (1 / 300 - 1 / 600) * 1e9
    here = WATER.between(np.zeros(()), np.zeros(()))
    expected = per_metre * light.EFFECTIVE_AREA * line_light(far[0], here, sine)
    expected = expected * (1.0 + light.SIDE_SENSITIVITY * WATER.cosine)
    left = muon_energy_after(np.array(1e3), WATER.stopping * np.array(480.0))
    bright = float(muon_light(left))
    assert float(beside.mean) == pytest.approx(float(expected) * bright, rel=0.01)
    leaves, flies = 500.0 - 20.0 / WATER.tangent, 20.0 / sine
    time = leaves / 0.299792458 + flies * 1.3806 / 0.299792458
    assert float(beside.time) == pytest.approx(time, rel=1e-6)


def test_light_without_scattering_is_not_delayed() -> None:
    """The mean of Pandel's delays against the distance over the scattering length."""
    for scattering in (300.0, 3e4):
        clear = Medium(
            IceModel._uniform(scattering=scattering, absorption=60.0),
            SUBSTANCES[SEA_WATER],
        )
        found = cascade([0.0, 50.0, 0.0], clear)
        assert float(found.shape) < 50.0 / scattering
        assert float(found.shape / found.rate) < 50.0 / scattering * 60.0 / clear.speed


def test_flight_of_light() -> None:
    """Along the Cherenkov cone of a track, away from a shower; its share falls."""
    found = track([50.0, 0.0, 0.0], WATER, with_flight=True).flight
    share = math.exp(-50.0 / WATER.sine / 265.0)
    expected = np.array([WATER.sine, 0.0, WATER.cosine]) * share
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    depth = float(shower_depth(np.array(100.0))) / WATER.stopping
    dom = [30.0, 40.0, depth]
    found = cascade(dom, WATER, with_flight=True).flight
    share = math.exp(-50.0 / 265.0)
    np.testing.assert_allclose(found, np.array([0.6, 0.8, 0.0]) * share, atol=1e-6)
    assert track([50.0, 0.0, 0.0]).flight.shape == (0,)
