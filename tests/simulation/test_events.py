"""Whole simulated events: the same for ever, with the lengths of the competition's."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.simulation.configuration import (
    BLOCK_EVENTS,
    TOPOLOGIES,
    SimulationConfig,
)
from graphnet_icecube2nd.simulation.detector import (
    READOUT_AFTER,
    READOUT_BEFORE,
    SimulatedDetector,
)
from graphnet_icecube2nd.simulation.events import (
    TRIGGER_TIME,
    TRUTH_NUMBERS,
    SimulatedEvents,
    simulate_block,
)

CONFIG, DETECTOR = SimulationConfig(), SimulatedDetector.icecube86()
# Pulses per event of the competition: quartiles of all, the rest of its first batch.
PUBLISHED = {0.25: 48, 0.5: 63, 0.75: 89, 0.9: 144, 0.95: 219}


@pytest.fixture(scope="module")
def blocks() -> list[SimulatedEvents]:
    return [simulate_block(CONFIG, DETECTOR, 11, block) for block in range(24)]


def test_pulses_per_event_are_those_of_the_competition(
    blocks: list[SimulatedEvents],
) -> None:
    lengths = np.concatenate([np.diff(events.offsets) for events in blocks])
    assert len(lengths) == 24 * BLOCK_EVENTS
    for quantile, published in PUBLISHED.items():
        found = float(np.quantile(lengths, quantile))
        assert found == pytest.approx(published, rel=0.15), quantile
    assert 1130 / 1.5 < np.quantile(lengths, 0.99) < 1130 * 1.5


def test_columns(blocks: list[SimulatedEvents]) -> None:
    for events in blocks[:3]:
        sensor, time = events.columns["sensor_id"], events.columns["time"]
        assert sensor.min() >= 0
        assert sensor.max() < 5160
        assert (np.diff(events.offsets) > 0).all()
        inner = np.ones(len(time) - 1, bool)
        inner[events.offsets[1:-1] - 1] = False
        assert (np.diff(time)[inner] >= 0).all()
        assert time.min() >= TRIGGER_TIME - READOUT_BEFORE - 1e-2
        assert (events.columns["charge"] > 0).all()


def test_the_trigger_is_at_10000_ns(blocks: list[SimulatedEvents]) -> None:
    """An HLC pulse begins it, and the readout ends a while after the last of it."""
    for events in blocks[:3]:
        hlc = ~events.columns["auxiliary"]
        for first, stop in zip(events.offsets[:-1], events.offsets[1:], strict=True):
            time = events.columns["time"][first:stop]
            begins = time[hlc[first:stop]]
            assert np.abs(begins - TRIGGER_TIME).min() < 1e-2
            assert time.max() < begins.max() + READOUT_AFTER + 1.0


def test_charges_and_flags_look_like_data(blocks: list[SimulatedEvents]) -> None:
    """Median charge 1 p.e.; in a typical event six pulses of ten are auxiliary."""
    charge = np.concatenate([events.columns["charge"] for events in blocks])
    assert np.median(charge) == pytest.approx(1.08, abs=0.1)
    assert 1.2 < charge.mean() < 5.0
    shares = []
    for events in blocks:
        auxiliary = events.columns["auxiliary"].astype(float)
        shares.append(np.add.reduceat(auxiliary, events.offsets[:-1]))
        shares[-1] /= np.diff(events.offsets)
    assert 0.5 < np.median(np.concatenate(shares)) < 0.8


def test_topologies_have_their_shares(blocks: list[SimulatedEvents]) -> None:
    names = np.concatenate([events.truth["topology"] for events in blocks])
    for name in TOPOLOGIES:
        expected = CONFIG.fractions[name]
        spread = 5 * np.sqrt(expected * (1 - expected) / len(names))
        assert abs((names == name).mean() - expected) < spread


def test_truth_is_where_the_neutrino_came_from(blocks: list[SimulatedEvents]) -> None:
    """Pulses of bright tracks come later along the flight, which is its opposite."""
    later = []
    for events in blocks:
        direction = angles_to_unit_vector(
            events.truth["zenith"], events.truth["azimuth"]
        ).numpy()
        np.testing.assert_allclose(direction, -events.particles.direction_B3, atol=1e-9)
        bright = (events.truth["topology"] == TOPOLOGIES[0]) & (
            np.diff(events.offsets) > 150
        )
        for event in np.flatnonzero(bright):
            here = slice(events.offsets[event], events.offsets[event + 1])
            keep = ~events.columns["auxiliary"][here]
            doms = events.columns["sensor_id"][here][keep]
            along = DETECTOR.position_S3[doms] @ -direction[event]
            later.append(np.corrcoef(along, events.columns["time"][here][keep])[0, 1])
    assert len(later) > 50
    assert np.mean(np.array(later) > 0.3) > 0.9


def test_light_does_not_come_before_the_particle(
    blocks: list[SimulatedEvents],
) -> None:
    """HLC pulses of cascades: none much before light can be there."""
    early = num = 0
    for events in blocks:
        vertex = np.stack([events.truth[f"position_{a}"] for a in "xyz"], axis=1)
        for event in np.flatnonzero(events.truth["topology"] == "cascade"):
            here = slice(events.offsets[event], events.offsets[event + 1])
            keep = ~events.columns["auxiliary"][here]
            doms = events.columns["sensor_id"][here][keep]
            away = np.linalg.norm(DETECTOR.position_S3[doms] - vertex[event], axis=1)
            direct = events.truth["vertex_time"][event] + away / 0.22103
            early += (events.columns["time"][here][keep] < direct - 15.0).sum()
            num += keep.sum()
    assert early / num < 0.05  # what is left are coincidences of noise


def test_events_do_not_depend_on_how_many_there_are() -> None:
    whole = simulate_block(CONFIG, DETECTOR, 5, 3)
    some = simulate_block(CONFIG, DETECTOR, 5, 3, 100)
    assert len(some) == 100
    stop = whole.offsets[100]
    for name, values in some.columns.items():
        np.testing.assert_array_equal(values, whole.columns[name][:stop])
    for name, values in some.truth.items():
        np.testing.assert_array_equal(values, whole.truth[name][:100])
    np.testing.assert_array_equal(some.event_id, 3 * BLOCK_EVENTS + np.arange(100))
    other = simulate_block(CONFIG, DETECTOR, 6, 3, 100)
    assert not np.array_equal(other.truth["zenith"], some.truth["zenith"])


def test_another_detector() -> None:
    """Nine strings of 20 DOMs: no DeepCore, so the trigger needs eight DOMs."""
    x, y, z = np.meshgrid(np.arange(3) * 60.0, np.arange(3) * 60.0, np.arange(20) * 8.0)
    place = np.stack([x.ravel(), y.ravel(), z.ravel() - 400.0], axis=1)
    string = torch.from_numpy(np.unique(place[:, :2], axis=0, return_inverse=True)[1])
    geometry = DetectorGeometry(
        name="small",
        position_S3=torch.from_numpy(place),
        string_S=string.reshape(-1).long() + 1,
        rde_S=torch.ones(len(place), dtype=torch.float64),
    )
    detector = SimulatedDetector(geometry, IceModel.icecube())
    assert not detector.is_deepcore_S.any()
    events = simulate_block(
        SimulationConfig(fractions={"cascade": 1.0}), detector, 0, 0, 20
    )
    hlc = ~events.columns["auxiliary"]
    for first, stop in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        assert len(np.unique(events.columns["sensor_id"][first:stop])) >= 8
        assert hlc[first:stop].sum() >= 8


def test_a_detector_that_sees_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphnet_icecube2nd.simulation import events as module

    monkeypatch.setattr(module, "_MOST_DRAWS", 3)
    place = np.zeros((10, 3))
    place[:, 2] = 200.0 * np.arange(10)  # far apart
    sparse = DetectorGeometry(
        name="sparse",
        position_S3=torch.from_numpy(place),
        string_S=torch.ones(10, dtype=torch.int64),
        rde_S=torch.full((10,), 1e-6, dtype=torch.float64),
    )
    blind = SimulatedDetector(sparse, IceModel.icecube())
    with pytest.raises(ValueError, match=r"cascade.*'sparse', 10 DOMs"):
        simulate_block(CONFIG, blind, 0, 0, 5)
    geometry = DetectorGeometry(
        name="lonely",
        position_S3=torch.zeros(1, 3, dtype=torch.float64),
        string_S=torch.ones(1, dtype=torch.int64),
        rde_S=torch.ones(1, dtype=torch.float64),
    )
    lonely = SimulatedDetector(geometry, IceModel.icecube())
    with pytest.raises(ValueError, match=r"'lonely' cannot trigger: 8 DOMs"):
        simulate_block(CONFIG, lonely, 0, 0, 5)


def test_a_weighted_spectrum_is_a_drawn_one() -> None:
    """Triggered starting tracks of E^-1.5 with weights for E^-3, against E^-3."""
    rates, spectra = [], []
    borders = np.logspace(2.5, 4, 4)
    for index in (1.5, 3.0):
        config = SimulationConfig(
            fractions={"starting_track": 1.0},
            energy_range=(300.0, 1e4),
            spectral_index=index,
        )
        truths = [simulate_block(config, DETECTOR, 1, block).truth for block in (0, 1)]
        energy, weight = (
            np.concatenate([truth[name] for truth in truths])
            for name in ("energy", "generation_weight")
        )
        rate = weight * energy**-3.0
        # The mean over the events is the rate.
        effective = rate.sum() ** 2 / (rate**2).sum()
        rates.append((rate.mean(), rate.mean() / np.sqrt(effective)))
        spectra.append(np.histogram(energy, borders, weights=rate)[0] / rate.sum())
    (first, first_error), (second, second_error) = rates
    assert abs(first - second) < 4 * np.hypot(first_error, second_error)
    assert first_error < 0.2 * first
    np.testing.assert_allclose(*spectra, atol=0.1)


def test_truth_of_the_interaction_and_its_weights(
    blocks: list[SimulatedEvents],
) -> None:
    truth = {
        name: np.concatenate([events.truth[name] for events in blocks])
        for name in blocks[0].truth
    }
    assert {*TRUTH_NUMBERS, "azimuth", "zenith", "topology"} == set(truth)
    bundle = truth["topology"] == "muon_bundle"
    neutrino = ~bundle
    assert set(truth["pid"][bundle]) == {13}
    assert set(np.abs(truth["pid"][neutrino])) == {12, 14, 16}
    assert set(truth["interaction_type"][bundle]) == {0}
    assert (truth["generation_weight"][bundle] == 0).all()
    assert (truth["generation_weight"][neutrino] >= 0).all()
    assert (truth["weight_astrophysical"][bundle] == 0).all()
    # The detector's own rates: 2 to 3 kHz of muons, some 20 mHz of neutrinos.
    atmospheric = truth["weight_atmospheric"]
    assert 1e3 < atmospheric[bundle].sum() / len(bundle) < 6e3
    assert 5e-3 < atmospheric[neutrino].sum() / len(bundle) < 8e-2
    has_muon = np.isin(truth["topology"], ["through_going_track", "starting_track"])
    assert np.isfinite(truth["muon_zenith"][has_muon]).all()
    assert np.isnan(truth["muon_zenith"][~has_muon]).all()
    np.testing.assert_allclose(
        (truth["energy_track"] + truth["energy_cascade"])[has_muon],
        truth["energy"][has_muon],
    )
    assert (truth["visible_energy"] >= 0).all()


def test_events_of_icecube_stay_as_they_are() -> None:
    """The first events of seed 5, with which stores and weights were made."""
    events = simulate_block(CONFIG, DETECTOR, 5, 1, 64)
    assert len(events.columns["time"]) == 6711
    doms = events.columns["sensor_id"].astype("<i4").tobytes()
    found = hashlib.sha256(doms).hexdigest()
    assert found.startswith("6dd3876892987cf0")
