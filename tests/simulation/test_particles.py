"""What is drawn: directions, energies, places, by topology."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphnet_icecube2nd.simulation.configuration import TOPOLOGIES, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.interactions import (
    cross_section,
    muon_flux_underground,
)
from graphnet_icecube2nd.simulation.light import (
    muon_energy_after,
    muon_range,
    shower_light,
)
from graphnet_icecube2nd.simulation.muon_losses import even_loss
from graphnet_icecube2nd.simulation.particles import (
    MARGIN,
    Particles,
    _through_cylinder,
    bundle_flux,
    draw_particles,
    generation_weight,
)

CONFIG = SimulationConfig()
DETECTOR = SimulatedDetector.icecube86()
VOLUME = DETECTOR.volume
NUM = 4000


def draw(topology: str, config: SimulationConfig = CONFIG) -> Particles:
    which = np.full(NUM, TOPOLOGIES.index(topology))
    return draw_particles(which, config, VOLUME, np.random.default_rng(7))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_directions_are_unit_vectors_and_energies_in_range(topology: str) -> None:
    drawn = draw(topology)
    assert len(drawn) == NUM
    np.testing.assert_allclose(np.linalg.norm(drawn.direction_B3, axis=1), 1.0)
    if topology == "muon_bundle":
        assert np.isnan(drawn.inelasticity_B).all()
        assert (drawn.pdg_B == 13).all()
        return
    assert (drawn.pdg_B > 0).mean() == pytest.approx(0.5, abs=0.03)
    low, high = CONFIG.energy_range
    if topology == "double_cascade":
        low, high = CONFIG.double_cascade_range
    assert drawn.energy_B.min() >= low
    assert drawn.energy_B.max() <= high
    # E**-2.15: half lie below this.
    power = 1 - CONFIG.spectral_index
    middle = (0.5 * (low**power + high**power)) ** (1 / power)
    assert (drawn.energy_B < middle).mean() == pytest.approx(0.5, abs=0.03)
    # Isotropic.
    assert np.abs(drawn.direction_B3.mean(axis=0)).max() < 0.04
    assert (drawn.direction_B3[:, 2] < 0.5).mean() == pytest.approx(0.75, abs=0.03)


def test_bundles_come_from_above() -> None:
    drawn = draw("muon_bundle")
    assert (drawn.direction_B3[:, 2] < 0).all()
    assert drawn.muons_B.min() == 1
    assert drawn.muons_B.max() > 20
    np.testing.assert_allclose(drawn.energy_B, drawn.muons_B * drawn.track_energy_B)
    assert (drawn.cascade_energy_BC == 0).all()


def test_through_going_muons_come_from_outside_and_reach_the_cylinder() -> None:
    drawn = draw("through_going_track")
    x, y, z = drawn.vertex_B3.T
    grown = MARGIN - 1e-6
    inside = (
        (np.hypot(x - VOLUME.x, y - VOLUME.y) < VOLUME.radius + grown)
        & (z > VOLUME.bottom - grown)
        & (z < VOLUME.top + grown)
    )
    assert not inside.any()
    assert z.max() <= 1948.07 + 1e-6  # not from above the ice
    # At time 0 they enter: the point is on the cylinder's surface, and they get there.
    flown = -drawn.time_B * 0.299792458
    farthest = muon_range(drawn.track_energy_B, even_loss())
    assert (flown <= farthest + 1e-6).all()
    assert (drawn.generation_B > 0).all()
    enters = drawn.vertex_B3 + flown[:, None] * drawn.track_direction_B3
    across = np.hypot(enters[:, 0] - VOLUME.x, enters[:, 1] - VOLUME.y)
    on_side = np.abs(across - VOLUME.radius - MARGIN) < 1e-6
    on_lid = np.abs(enters[:, 2] - VOLUME.top - MARGIN) < 1e-6
    on_floor = np.abs(enters[:, 2] - VOLUME.bottom + MARGIN) < 1e-6
    assert (on_side | on_lid | on_floor).all()
    np.testing.assert_allclose(
        drawn.track_energy_B, (1 - drawn.inelasticity_B) * drawn.energy_B
    )


def test_starting_tracks_and_cascades_begin_inside_a_margin() -> None:
    for topology, margin in (
        ("starting_track", MARGIN),
        ("cascade", 4 * MARGIN),
        ("double_cascade", 4 * MARGIN),
    ):
        x, y, z = draw(topology).vertex_B3.T
        assert np.hypot(x - VOLUME.x, y - VOLUME.y).max() < VOLUME.radius + margin
        assert z.min() > VOLUME.bottom - margin
        assert z.max() < VOLUME.top + margin
    starting = draw("starting_track")
    np.testing.assert_allclose(
        starting.cascade_energy_BC[:, 0],
        shower_light(starting.inelasticity_B * starting.energy_B),
    )


def test_flavours_and_currents_of_cascades() -> None:
    drawn = draw("cascade")
    hadrons = shower_light(drawn.inelasticity_B * drawn.energy_B)
    neutral = drawn.interaction_B == 2
    light = drawn.cascade_energy_BC[:, 0]
    np.testing.assert_allclose(light[neutral], hadrons[neutral])
    assert (light[~neutral] > hadrons[~neutral]).all()
    assert neutral.mean() == pytest.approx(0.25, abs=0.03)
    assert (drawn.muons_B == 0).all()
    flavour = np.abs(drawn.pdg_B)
    for name in (12, 14, 16):
        assert (flavour[neutral] == name).mean() == pytest.approx(1 / 3, abs=0.05)
    # Tau neutrinos below the range of double cascades.
    assert set(flavour[~neutral]) == {12, 16}
    assert drawn.energy_B[~neutral & (flavour == 16)].max() < 3e4
    # An electron and its hadrons together go along the neutrino.
    electrons = ~neutral & (flavour == 12)
    np.testing.assert_array_equal(
        drawn.cascade_direction_BC3[electrons, 0], drawn.direction_B3[electrons]
    )
    np.testing.assert_allclose(
        light[electrons],
        (hadrons + (1 - drawn.inelasticity_B) * drawn.energy_B)[electrons],
    )


def test_taus_fly_50_metres_a_pev() -> None:
    drawn = draw("double_cascade")
    tau = (1 - drawn.inelasticity_B) * drawn.energy_B
    flown = drawn.cascade_distance_BC[:, 1]
    assert (flown / tau).mean() == pytest.approx(4.9e-5, rel=0.05)
    # 0.216 x 0.35 of electrons and 0.784 x 0.6 of hadrons, whose light is 10% less.
    share = drawn.cascade_energy_BC[:, 1] / tau
    assert share.mean() == pytest.approx(0.49, abs=0.03)
    assert share.max() <= 1.0


def test_muon_and_hadrons_balance_across_the_neutrino() -> None:
    for topology in ("starting_track", "through_going_track"):
        drawn = draw(topology)
        muon = (1 - drawn.inelasticity_B) * drawn.energy_B
        rest = drawn.energy_B[:, None] * drawn.direction_B3
        rest = rest - muon[:, None] * drawn.track_direction_B3
        rest /= np.linalg.norm(rest, axis=1, keepdims=True)
        np.testing.assert_allclose(rest, drawn.cascade_direction_BC3[:, 0], atol=1e-6)
        cosine = np.sum(drawn.track_direction_B3 * drawn.direction_B3, axis=1)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        near = (drawn.energy_B > 800) & (drawn.energy_B < 1250)
        assert np.median(angle[near]) == pytest.approx(0.7, abs=0.15)


def test_visible_energy_of_muons_is_what_they_lose_inside() -> None:
    bright = SimulationConfig(energy_range=(1e4, 1e6), spectral_index=1.0)
    drawn = draw("through_going_track", bright)
    to_detector = -drawn.time_B * 0.299792458
    enters = drawn.track_energy_at(to_detector[:, None])[:, 0]
    assert (drawn.visible_energy_B <= enters + 1e-6).all()
    # On their way through they lose the mean, with fluctuations.
    enter, leave = _through_cylinder(drawn.vertex_B3, drawn.track_direction_B3, VOLUME)
    np.testing.assert_allclose(enter, to_detector, atol=1e-6)
    mean = muon_energy_after(enters, leave - enter)
    expected = enters - mean
    far = (leave - enter > 500) & (enters > 1000)
    ratio = drawn.visible_energy_B[far] / expected[far]
    assert far.sum() > 300
    assert 0.6 < np.median(ratio) < 1.0
    assert ratio.mean() == pytest.approx(1.0, abs=0.15)
    starting = draw("starting_track")
    hadrons = starting.cascade_energy_BC[:, 0]
    assert (starting.visible_energy_B >= hadrons).all()
    muon = starting.track_energy_B
    assert (starting.visible_energy_B <= hadrons + muon + 1e-6).all()


@pytest.mark.parametrize("topology", ["starting_track", "through_going_track"])
def test_generation_weights_give_the_rate_of_a_flux(topology: str) -> None:
    """Nucleons x cross section x volume x solid angle x flux, whatever was drawn."""
    low, high = 200.0, 400.0  # GeV: the Earth is transparent
    rates = []
    for index in (1.0, 3.0):
        config = SimulationConfig(energy_range=(low, high), spectral_index=index)
        drawn = draw(topology, config)
        rate = generation_weight(drawn, VOLUME) * drawn.energy_B**-2.0
        error = rate.std() / np.sqrt(NUM)
        rates.append((rate.mean(), error))
    (first, first_error), (second, second_error) = rates
    assert abs(first - second) < 4 * np.hypot(first_error, second_error)
    if topology == "through_going_track":
        return
    energy = np.linspace(low, high, 1001)
    both = sum(
        cross_section(energy, np.full(1001, pdg), np.ones(1001, int))
        for pdg in (14, -14)
    )
    total = np.mean(both * energy**-2.0) * (high - low)
    radius, height = VOLUME.radius + MARGIN, VOLUME.top - VOLUME.bottom + 2 * MARGIN
    nucleons = np.pi * radius**2 * height * 1e6 * 0.92 * 6.022e23
    expected = 4 * np.pi * nucleons * total
    assert first == pytest.approx(expected, rel=0.05)


def test_lines_that_miss_the_cylinder() -> None:
    point = np.array([[5000.0, 0.0, 2000.0], [0.0, 0.0, 2000.0]])
    down = np.tile([0.0, 0.0, -1.0], (2, 1))
    enters, leaves = _through_cylinder(point, down, VOLUME)
    assert np.isinf(enters[0])
    assert np.isinf(leaves[0])
    assert enters[1] == pytest.approx(2000.0 - VOLUME.top - MARGIN)


def test_rates_at_other_depths() -> None:
    """At 3194 m of water, KM3NeT/ARCA, are some 9% of the muons at IceCube."""
    drawn = draw("muon_bundle")
    deep = replace(VOLUME, surface=3194.0, density=1.03)
    here, there = (
        (drawn.generation_B * bundle_flux(drawn, volume)).mean()
        for volume in (VOLUME, deep)
    )
    assert there / here == pytest.approx(0.09, rel=0.4)
    # All bundles that enter, not only those that trigger.
    total = muon_flux_underground(np.array([1388.0]), 150.0, 0.92)[0]
    lid = np.pi * (100 * (VOLUME.radius + MARGIN)) ** 2
    assert 0.3 < here / (total * lid) < 2.0


def test_systematics_are_drawn_for_each_event() -> None:
    drawn = draw("cascade", SimulationConfig(systematics=True, dom_efficiency=2.0))
    for name in ("scattering_B", "absorption_B", "efficiency_B"):
        values = getattr(drawn, name) / (2.0 if name == "efficiency_B" else 1.0)
        assert values.min() < 0.905
        assert values.max() > 1.095
        assert 0.9 <= values.min() <= values.max() <= 1.1
        assert values.mean() == pytest.approx(1.0, abs=0.01)
    assert 0.45 <= drawn.side_B.min() < 0.47
    nominal = draw("cascade")
    assert (nominal.scattering_B == 1).all()
    assert (nominal.side_B == 0.75).all()


def test_topologies_keep_their_places() -> None:
    order = np.array([4, 0, 2, 2, 1, 3, 0])
    drawn = draw_particles(order, CONFIG, VOLUME, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn.topology_B, order)
    assert (drawn.muons_B[[1, 4, 6]] == 1).all()
    assert (drawn.muons_B[[2, 3, 5]] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": {"track": 1.0}}, "unknown topology track"),
        ({"fractions": {"cascade": 0.0}}, "fractions .* above 0"),
        ({"fractions": {"cascade": -1.0, "muon_bundle": 2.0}}, "0 or above"),
        ({"fractions": {"cascade": float("nan")}}, "0 or above"),
        ({"energy_range": (1e3, 1e2)}, "the lower first; got 1000 and 100"),
        ({"energy_range": (0.0, 1e2)}, "energy_range must be two energies"),
        ({"noise_rate": -1.0}, "noise_rate must be from 0"),
        ({"time_jitter": 0.0}, "time_jitter must be from 0.1"),
        ({"dom_efficiency": 0.0}, "dom_efficiency must be from 0.1"),
        ({"spectral_index": float("nan")}, "spectral_index must be from 0"),
    ],
)
def test_configuration_says_what_is_wrong(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationConfig(**changes)


def test_configuration_as_plain_values() -> None:
    config = SimulationConfig(fractions={"cascade": 3.0, "starting_track": 1.0})
    assert config.fractions == {"starting_track": 0.25, "cascade": 0.75}
    assert SimulationConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="colour"):
        SimulationConfig.from_dict({"colour": 1})


def test_energies_of_any_index() -> None:
    flat = SimulationConfig(spectral_index=1.0, energy_range=(100.0, 1e4))
    energy = draw("cascade", flat).energy_B
    assert np.median(energy) == pytest.approx(1e3, rel=0.1)


def test_detectors_know_their_depth() -> None:
    for name, surface, density in (
        ("kaggle", 1948.07, 0.92),
        ("arca115", 3079.0, 1.03),
        ("prometheus_arca", 3194.0, 1.03),
        ("baikal_gvd", 1012.5, 1.0),
        ("orca150", 2344.55, 1.03),
        ("gen2", 1948.07, 0.92),
    ):
        volume = SimulatedDetector.of(name).volume
        found = (volume.surface, volume.density)
        assert found == pytest.approx((surface, density), abs=0.1)
    assert VOLUME.surface == pytest.approx(1948.07)
