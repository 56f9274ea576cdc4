"""What is drawn: directions, energies, places, by topology."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd.simulation.configuration import TOPOLOGIES, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import muon_range, shower_light
from graphnet_icecube2nd.simulation.particles import (
    MARGIN,
    Particles,
    draw_particles,
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
        return
    low, high = CONFIG.energy_range
    if topology == "double_cascade":
        low, high = CONFIG.double_cascade_range
    assert drawn.energy_B.min() >= low
    assert drawn.energy_B.max() <= high
    assert drawn.inelasticity_B.mean() == pytest.approx(0.4, abs=0.02)
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
    assert (flown <= muon_range(drawn.track_energy_B) + 1e-6).all()
    enters = drawn.vertex_B3 + flown[:, None] * drawn.direction_B3
    across = np.hypot(enters[:, 0] - VOLUME.x, enters[:, 1] - VOLUME.y)
    on_side = np.abs(across - VOLUME.radius - MARGIN) < 1e-6
    on_lid = np.abs(enters[:, 2] - VOLUME.top - MARGIN) < 1e-6
    on_floor = np.abs(enters[:, 2] - VOLUME.bottom + MARGIN) < 1e-6
    assert (on_side | on_lid | on_floor).all()
    np.testing.assert_allclose(
        drawn.track_energy_B, (1 - drawn.inelasticity_B) * drawn.energy_B
    )


def test_starting_tracks_and_cascades_begin_inside_a_margin() -> None:
    for topology, margin in (("starting_track", MARGIN), ("cascade", 4 * MARGIN)):
        x, y, z = draw(topology).vertex_B3.T
        assert np.hypot(x - VOLUME.x, y - VOLUME.y).max() < VOLUME.radius + margin
        assert z.min() > VOLUME.bottom - margin
        assert z.max() < VOLUME.top + margin
    starting = draw("starting_track")
    np.testing.assert_allclose(
        starting.cascade_energy_BC[:, 0],
        shower_light(starting.inelasticity_B * starting.energy_B),
    )


def test_neutral_currents_show_their_hadrons_only() -> None:
    drawn = draw("cascade")
    hadrons = shower_light(drawn.inelasticity_B * drawn.energy_B)
    neutral = np.isclose(drawn.cascade_energy_BC[:, 0], hadrons)
    assert neutral.mean() == pytest.approx(0.25, abs=0.03)
    assert (drawn.muons_B == 0).all()


def test_taus_fly_50_metres_a_pev() -> None:
    drawn = draw("double_cascade")
    tau = (1 - drawn.inelasticity_B) * drawn.energy_B
    flown = drawn.cascade_distance_BC[:, 1]
    assert (flown / tau).mean() == pytest.approx(4.9e-5, rel=0.05)
    np.testing.assert_allclose(drawn.cascade_energy_BC[:, 1], 0.65 * tau)


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
