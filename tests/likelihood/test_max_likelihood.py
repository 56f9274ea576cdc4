"""The maximum of the likelihood: of an event made by hand, and simulated ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("scipy")

from graphnet_icecube2nd import EventStore, prepare, simulate
from graphnet_icecube2nd.evaluation.resolution import compare
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.limit import configuration_of, limit_events
from graphnet_icecube2nd.likelihood.max_likelihood import (
    batched_bfgs,
    find_maximum,
    sphere,
)
from graphnet_icecube2nd.likelihood.photon_likelihood import EventLikelihood, Seed
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import track_arrival
from graphnet_icecube2nd.simulation.production import VERSION
from graphnet_icecube2nd.store.event_store import view_event

MakeEvent = Callable[..., EventPulses]
FLIGHT = np.array([0.36, 0.48, 0.8])
PLACE = np.array([30.0, -20.0, -250.0])


def ideal_track(detector: SimulatedDetector) -> tuple[list[int], list[float]]:
    """The DOMs that see more than half a photoelectron of a track, when it comes."""
    start = PLACE - 1000.0 * FLIGHT
    arrival = track_arrival(
        start=start,
        direction=FLIGHT,
        time=np.array(10000.0 - 1000.0 / 0.299792458),
        length=np.array(3000.0),
        energy=np.array(1e3),
        muons=np.array(1.0),
        dom=detector.position_S3,
        medium=detector.medium,
    )
    lit = np.flatnonzero(arrival.mean * detector.rde_S > 0.5)
    # The mean delay of each.
    delay = arrival.shape / arrival.rate
    times = arrival.time + np.minimum(delay, 20.0)
    return lit.tolist(), times[lit].tolist()


def test_a_track_made_by_hand_is_found_blindly(
    detector: SimulatedDetector, make_event: MakeEvent
) -> None:
    doms, times = ideal_track(detector)
    assert len(doms) > 15
    likelihood = EventLikelihood(
        make_event(doms, times, detector), detector, SimulationConfig()
    )
    best = find_maximum(likelihood, "through_going_track")
    off = np.degrees(np.arccos(np.clip(-best.direction @ FLIGHT, -1, 1)))
    assert off < 3.0
    np.testing.assert_allclose(best.direction, -best.seed.direction[0])
    step = best.seed.place[0] - PLACE
    across = step - (step @ FLIGHT) * FLIGHT
    assert np.linalg.norm(across) < 15.0
    assert best.kappa > 100.0
    assert np.linalg.eigvalsh(best.covariance_22).min() > 0
    # As sure as it is right, roughly.
    assert off < 5 * np.degrees(1 / np.sqrt(best.kappa)) + 1.0


def test_climbing_gains_and_stops(
    detector: SimulatedDetector, make_event: MakeEvent
) -> None:
    doms, times = ideal_track(detector)
    likelihood = EventLikelihood(
        make_event(doms, times, detector), detector, SimulationConfig()
    )
    tilted = FLIGHT + np.array([0.05, 0.0, -0.03])
    tilted /= np.linalg.norm(tilted)
    first = Seed.of(PLACE, 10000.0, tilted, muon=500.0, back=1000.0, cascade=1.0)
    second = Seed.of(PLACE + 20.0, 9950.0, FLIGHT, muon=2e3, back=1e3, cascade=1.0)
    seeds = Seed.join([first, second])
    before = likelihood.of_seeds("through_going_track", seeds)
    value, found = batched_bfgs(likelihood, "through_going_track", seeds, steps=30)
    assert (value > before + 1.0).all()
    again = likelihood.of_seeds("through_going_track", found)
    np.testing.assert_allclose(again, value, atol=1e-6)


def test_sphere_is_even() -> None:
    points = sphere(200)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)
    assert np.abs(points.mean(axis=0)).max() < 0.01
    nearest = np.sort(points @ points.T, axis=1)[:, -2]
    assert np.degrees(np.arccos(nearest)).min() > 8.0


@pytest.mark.slow
def test_the_limit_is_better_than_the_line_fit(simulated: EventStore) -> None:
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events

    events = np.flatnonzero(np.asarray(simulated.lengths(0)) < 400)[:16]
    seen = []
    report = limit_events(
        simulated, events, effort="quick", workers=1, on_progress=seen.append
    )
    assert sum(seen) == 16
    truth = EventTruth.of(simulated, events)
    line, limit = compare([line_fit_events(simulated, events), report.table], truth)[:2]
    assert (line.table, limit.table) == ("line fit", "limit")
    assert limit.median < 0.8 * line.median
    assert limit.mean < line.mean
    assert np.isfinite(report.log_likelihood_B).all()
    assert report.from_truth_B.mean() < 0.6
    np.testing.assert_array_equal(report.table.event_id, truth.event_id)
    # Nothing is random, and processes change nothing.
    some = limit_events(simulated, events[:2], effort="quick", workers=2)
    np.testing.assert_allclose(
        some.table.direction_B3, report.table.direction_B3[:2], atol=1e-9
    )


@pytest.mark.slow
def test_stores_without_noise_have_a_limit(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("quiet") / "store"
    config = SimulationConfig(noise_rate=0.0)
    simulate(folder, num_events=3, config=config, workers=1)
    report = limit_events(EventStore(folder), effort="quick", workers=1)
    assert report.table.is_ok.all()
    assert np.isfinite(report.log_likelihood_B).all()


def test_only_simulated_stores_have_a_limit(
    simulated: EventStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert configuration_of(simulated) == SimulationConfig()
    folder = tmp_path_factory.mktemp("kaggle")
    simulate(folder / "files", num_events=5, format="kaggle", workers=1)
    prepare(folder / "files", folder / "store", workers=1)
    with pytest.raises(ValueError, match=r"was not simulated \(it is from kaggle\)"):
        limit_events(EventStore(folder / "store"))
    note = f"simulated with version {VERSION}: {{" + "[" * 100_000
    manifest = replace(simulated.manifest, notes=(note,))
    damaged = SimpleNamespace(path=simulated.path, manifest=manifest)
    with pytest.raises(ValueError, match=rf"{simulated.path}.*JSON"):
        configuration_of(damaged)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="much"):
        limit_events(simulated, effort="much")
    with pytest.raises(ValueError, match="round"):
        limit_events(simulated, topology="round", from_truth=False)
    with pytest.raises(ValueError, match="from_truth"):
        limit_events(simulated, topology="cascade")
    simulate(
        folder / "varied",
        num_events=3,
        config=SimulationConfig(systematics=True),
        workers=1,
    )
    with pytest.raises(ValueError, match="systematics"):
        limit_events(EventStore(folder / "varied"))


def test_limit_finds_vertex_energy_and_the_better_hypothesis(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A bright cascade in twice as sensitive DOMs."""
    folder = tmp_path_factory.mktemp("bright") / "store"
    config = SimulationConfig(
        fractions={"cascade": 1.0}, energy_range=(2e3, 4e3), dom_efficiency=2.0
    )
    simulate(folder, num_events=40, config=config, workers=1)
    store = EventStore(folder)
    lengths = np.asarray(store.lengths(0))
    events = np.flatnonzero((lengths > 100) & (lengths < 300))[:2]
    assert len(events) == 2
    quick = {"effort": "quick", "workers": 1, "from_truth": False}
    cascade = limit_events(store, events, **quick)
    track = limit_events(store, events, topology="starting_track", **quick)
    assert (cascade.log_likelihood_B > track.log_likelihood_B - 5).all()
    for row, event in enumerate(events):
        truth = view_event(store, int(event)).truth
        columns = {n: c[row] for n, c in cascade.table.columns.items()}
        for axis in "xyz":
            assert columns[f"vertex_{axis}"] == pytest.approx(
                truth[f"position_{axis}"], abs=15.0
            )
        ratio = columns["visible_energy"] / truth["visible_energy"]
        assert 0.7 < ratio < 1.4
        assert columns["vertex_time"] == pytest.approx(truth["vertex_time"], abs=60.0)
