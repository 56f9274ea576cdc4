"""Modules with several PMTs in water: directions, ToT, noise, triggers, stores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd import (
    Detector,
    EventStore,
    build_detector,
    list_detectors,
    prepare,
    simulate,
)
from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.detx import read_detector_file
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.module import ORCA_DOM
from graphnet_icecube2nd.events.augmentation import RotateAboutZ, apply_augmentations
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.likelihood.limit import limit_events
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.simulation import (
    SimulatedDetector,
    SimulatedStream,
    SimulationConfig,
    events,
)
from graphnet_icecube2nd.simulation.events import draw_noise, simulate_block
from graphnet_icecube2nd.simulation.modules import (
    acceptance,
    brightest_side,
    draw_channels,
    find_module_triggers,
    isotropic,
    time_over_threshold,
)
from graphnet_icecube2nd.simulation.photoelectrons import Photoelectrons
from graphnet_icecube2nd.simulation.production import simulated_source

ORCA = SimulatedDetector.of("orca6")
PMTS = 31


def test_directions_of_km3net() -> None:
    """Those of a detector file, in any order, and a module is turned as a whole."""
    data = pytest.importorskip("km3net_testdata")
    file = Path(data.data_path("detx/KM3NeT_-00000001_20171212.detx"))
    theirs_P3 = read_detector_file(file).direction_P3[:PMTS]
    cosine = ORCA_DOM.directions_P3 @ np.asarray(theirs_P3).T
    for axis in (0, 1):
        assert np.degrees(np.arccos(cosine.max(axis=axis).clip(max=1.0))).max() < 1.0
    apart = [look_P3 @ look_P3.T for look_P3 in ORCA.pmt_direction_SP3[:2]]
    np.testing.assert_allclose(*apart, atol=1e-12)
    assert np.abs(np.diff(ORCA.pmt_direction_SP3[:2], axis=0)).max() > 0.1


def test_acceptance_has_mean_one() -> None:
    cosine = np.linspace(-1.0, 1.0, 100_001)
    assert acceptance(cosine).mean() == pytest.approx(1.0, abs=1e-3)
    # KM3NeT's simulation: 1.62 in front, 0.52 at 60 degrees, 0.065 at 90.
    front, side = acceptance(np.array([1.0, 0.5])) / acceptance(np.array([1.0]))
    assert (front, side) == pytest.approx((1.0, 0.517 / 1.621), abs=0.02)


def test_light_is_seen_by_the_pmts_that_look_at_it() -> None:
    rng = np.random.default_rng(0)
    num, dom = 40_000, 7
    look_P3 = ORCA.pmt_direction_SP3[dom]
    for share in (1.0, 0.0):
        flight = np.tile([0.0, 0.6 * share, 0.8 * share], (num, 1))  # flies up
        channel = draw_channels(np.full(num, dom), flight, ORCA, rng)
        pmt = channel[channel >= 0] - dom * PMTS
        found = np.bincount(pmt, minlength=PMTS) * brightest_side(ORCA) / num
        expected = acceptance(-look_P3 @ np.array([0.0, 0.6, 0.8])) / PMTS
        if share == 0.0:
            expected = np.full(PMTS, 1 / PMTS)
        np.testing.assert_allclose(found, expected, atol=5 * math.sqrt(0.1 / num))


def test_time_over_threshold() -> None:
    charge = np.array([1.0, 2.0, 10.0, 1e4])
    found = time_over_threshold(charge)
    assert found[0] == pytest.approx(25.3, abs=0.3)
    assert np.diff(found).min() > 0
    assert found[2] - found[1] == pytest.approx(8 * 7.0, rel=0.2)
    assert found[3] == pytest.approx(210.0, abs=0.5)
    longer = time_over_threshold(charge, np.array([10.0, 0.0, 0.0, 300.0]))
    assert longer[0] == found[0] + 10.0
    assert longer[3] == 255


def test_noise_has_its_rates() -> None:
    """Single pulses of every PMT, and coincidences of two, three, ... in a module."""
    rng, events = np.random.default_rng(1), 400
    light = Photoelectrons(
        event_E=np.arange(events),
        channel_E=np.zeros(events, int),
        time_E=np.zeros(events),
        weight_E=np.ones(events),
    )
    span = 2 * ORCA.longest_lag + ORCA.module.trigger.extra
    noise = draw_noise(light, events, 7000.0, ORCA, rng)
    extra = sum(n * r for n, r in enumerate(ORCA.module.coincidence_rates, 2))
    rate = 7000.0 * PMTS + extra
    expected = rate * 1e-9 * len(ORCA) * span
    assert len(noise) / events == pytest.approx(expected, rel=0.02)
    # Without single pulses and jitter, the pulses of a decay have one time.
    decays = draw_noise(light, 400, 0.0, ORCA, rng)
    key = decays.event_E + 1e-6 * decays.channel_E // PMTS + 1j * decays.time_E
    _, number = np.unique(key, return_counts=True)
    assert number.min() >= 2
    pairs = 500.0 * 1e-9 * len(ORCA) * span * events
    assert (number == 2).sum() == pytest.approx(pairs, abs=5 * math.sqrt(pairs))
    assert len(np.unique(decays.channel_E + 1j * decays.time_E)) == len(decays)


def triggered(rows: list[tuple[int, int, float]]) -> tuple[list[bool], float]:
    """Flags of pulses (DOM, PMT, time) of one event, and the begin of its trigger."""
    dom, pmt, time = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(len(rows), int)
    flags, begin, _ = find_module_triggers(none, dom * PMTS + pmt, time, 1, ORCA)
    return flags.tolist(), float(begin[0])


def test_trigger_of_four_modules() -> None:
    """Two PMTs within 10 ns in each, as far apart in time as light may be."""
    lag = 9.6 / ORCA.medium.speed  # of the next module on the string
    pairs = [(dom, pmt, 100.0 + dom * lag + pmt) for dom in range(4) for pmt in (0, 5)]
    alone = (50, 3, 150.0)
    assert triggered([*pairs, alone]) == ([True] * 8 + [False], 100.0)
    few, begin = triggered(pairs[:6])
    assert not any(few)
    assert math.isnan(begin)
    late = [(dom, pmt, time + 500.0 * dom) for dom, pmt, time in pairs]
    assert not any(triggered(late)[0])
    same = [(dom, 0, time) for dom, _, time in pairs]  # one PMT is no coincidence
    assert not any(triggered(same)[0])
    slow = [(dom, pmt, time + 11.0 * (pmt > 0)) for dom, pmt, time in pairs]
    assert not any(triggered(slow)[0])


def test_trigger_of_eight_pulses_around_a_module() -> None:
    pair = [(5, 0, 100.0), (5, 9, 104.0)]
    others = [(dom, 2, 100.0) for dom in (3, 4, 6, 7)]
    others += [(5, 20, 115.0), (5, 21, 118.0)]
    assert all(triggered(pair + others)[0])
    assert not any(triggered(pair + others[:-1])[0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    path = tmp_path_factory.mktemp("water") / "orca6"
    simulate(path, num_events=60, seed=3, detector="orca6", workers=1)
    return EventStore(path)


def test_a_store_has_the_columns_of_files(store: EventStore) -> None:
    """Those that the reader of KM3NeT's files gives, so that models know both."""
    detector = build_detector("orca6")
    assert store.pulse_map.columns() == detector.pulses.columns()
    assert store.pulse_map.origin == detector.pulses.origin
    assert store.detector.telescope == "orca6"
    assert {"dom_id", "channel_id"} <= set(store.manifest.pulse_columns)
    block = simulate_block(SimulationConfig.of(detector), ORCA, 3, 0, 60)
    place = np.stack([block.columns[axis] for axis in "xyz"], axis=1)
    look = np.stack([block.columns[f"dir_{axis}"] for axis in "xyz"], axis=1)
    origin = np.array(detector.pulses.origin)
    module = ORCA.position_S3[block.columns["dom_id"]] + origin
    np.testing.assert_allclose(place, module + 0.2 * look, atol=1e-6)
    triggered_B = np.add.reduceat(block.columns["trig"], block.offsets[:-1])
    assert triggered_B.min() >= 8
    tot = block.columns["tot"]
    assert 22 < np.median(tot) < 29
    assert tot.max() <= 255
    inside = np.abs(block.truth["position_z"] - origin[2]) < 200
    assert inside.mean() > 0.5


def test_stream_of_km3net(store: EventStore) -> None:
    config = SimulationConfig.of(build_detector("orca6"))
    place = ("position_x", "position_y", "position_z")
    stream = SimulatedStream(
        batch_size=60,
        seed=3,
        detector=ORCA,
        num_blocks=1,
        truth=(*place, "vertex_time"),
    )
    assert stream.config == config
    batch = next(iter(stream))
    assert batch.names == store.pulse_map.feature_names
    assert torch.isfinite(batch.features).all()
    time_T = batch.features[:, batch.names.index("time")]
    assert float(time_T.min()) == 0.0
    # Vertices count as the pulses do: from the centre, from the first pulse.
    pick = {n: store.whole_event_column(n) for n in (*place, "vertex_time")}
    pick["vertex_time"] = pick["vertex_time"] - store.whole_event_column("time_origin")
    for name, origin in zip(place, store.pulse_map.origin, strict=True):
        pick[name] = pick[name] - origin
    for name, expected in pick.items():
        np.testing.assert_allclose(batch.truth[name].numpy(), expected, atol=0.01)


def test_a_geometry_is_moved_as_in_prepare(tmp_path: Path) -> None:
    """A table in the coordinates of KM3NeT's files counts from their zero."""
    detector = build_detector("orca6")
    assert detector.modules is not None
    table = detector.modules.moved([-x for x in detector.pulses.origin])
    table.to_csv(tmp_path / "orca.csv")
    simulate(
        tmp_path / "store",
        num_events=2,
        seed=3,
        detector="orca6",
        geometry=tmp_path / "orca.csv",
        workers=1,
    )
    found = EventStore(tmp_path / "store").geometry.position_S3
    torch.testing.assert_close(found, detector.modules.position_S3, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", list_detectors())
def test_rotating_an_event_turns_all_of_it(name: str) -> None:
    """Places, directions of PMTs and truth by one angle about the detector's centre."""
    detector = build_detector(name)
    rng = np.random.default_rng(5)
    centre = np.array(detector.pulses.origin)
    place, look, origin = (isotropic(20, rng) for _ in range(3))
    columns = dict(zip("xyz", (50.0 * place + centre).T, strict=True))
    columns["time"] = np.sort(rng.random(20)) * 100
    columns |= dict.fromkeys(("charge", "auxiliary", "hlc", "tot"), np.ones(20))
    for vector in detector.vectors:
        columns |= dict(zip(vector, look.T, strict=True))
    events = Events(
        columns={n: torch.from_numpy(c.copy()) for n, c in columns.items()},
        offsets=torch.tensor([0, 20]),
        n_pulses=torch.tensor([20]),
        event_id=torch.tensor([3]),
        truth={
            "direction": torch.from_numpy(origin[:1]),
            "vertex": torch.from_numpy(
                np.append([columns[n][0] for n in "xyz"], [0.0, 1.0])[None]
            ),
            "position_x": torch.from_numpy(columns["x"][:1].copy()),
            "position_y": torch.from_numpy(columns["y"][:1].copy()),
        },
    )
    turned = apply_augmentations(events, [RotateAboutZ()], seed=2, detector=detector)

    def angle(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
        one, two = (np.arctan2(v[:, 1], v[:, 0]) for v in (before, after))
        return (two - one) % (2 * np.pi)

    def column(names: tuple[str, ...]) -> NDArray[Any]:
        return np.stack([turned.columns[n].numpy() for n in names], axis=1)

    wanted = angle(origin[:1], turned.truth["direction"].numpy())
    assert 1e-3 < float(wanted[0]) < 2 * np.pi - 1e-3
    for number, axis in enumerate("xy"):  # a vertex at the first pulse stays there
        there = float(turned.columns[axis][0])
        for moved in (
            turned.truth[f"position_{axis}"][0],
            turned.truth["vertex"][0, number],
        ):
            assert float(moved) == pytest.approx(there, abs=1e-3)
    found = angle(place, column(("x", "y", "z")) - centre)
    np.testing.assert_allclose(found, wanted[0], atol=1e-5)
    for vector in detector.vectors:
        np.testing.assert_allclose(angle(look, column(vector)), wanted[0], atol=1e-5)


WATER = [
    name
    for name in list_detectors()
    if (found := build_detector(name)).medium != "ice" and found.modules is not None
]


@pytest.mark.slow
@pytest.mark.parametrize("name", WATER)
def test_every_detector_in_water_simulates(name: str, tmp_path: Path) -> None:
    simulate(tmp_path / "store", num_events=4, seed=1, detector=name, workers=1)
    store = EventStore(tmp_path / "store")
    detector = build_detector(name)
    assert len(store) == 4
    assert store.whole_event_column("n_pulses").min() >= 4
    has_looks = detector.module.pmts > 1
    assert bool(store.detector.vectors) == has_looks
    zenith, azimuth = (store.whole_event_column(n) for n in ("zenith", "azimuth"))
    assert torch.isfinite(angles_to_unit_vector(zenith, azimuth)).all()


@pytest.mark.parametrize("topology", ["starting_track", "through_going_track"])
def test_pulses_beside_km3nets_own_simulation(topology: str, tmp_path: Path) -> None:
    """Muons of 50 to 500 GeV in ORCA6: medians within a factor, and ToT."""
    pytest.importorskip("km3io")
    data = pytest.importorskip("km3net_testdata")
    file = (
        "offline/mcv6.0.gsg_muon_highE-CC_50-500GeV.km3sim.jterbr00008357.jorcarec."
        "aanet.905.root"
    )
    prepare(data.data_path(file), tmp_path / "theirs", workers=1)
    config = SimulationConfig.of(
        build_detector("orca6"),
        fractions={topology: 1.0},
        energy_range=(50.0, 500.0),
        spectral_index=2.0,
    )
    ours = simulate_block(config, ORCA, 1, 0)
    store = EventStore(tmp_path / "theirs")
    theirs = EventReader(store, max_pulses=None, truth=()).raw(np.arange(len(store)))
    found = []
    for trig_T, tot_T, offsets in (
        (ours.columns["trig"], ours.columns["tot"], ours.offsets),
        (*(theirs.columns[n].numpy() for n in ("hlc", "tot")), theirs.offsets.numpy()),
    ):
        triggered_T = trig_T.astype(bool)
        number_B = np.add.reduceat(triggered_T.astype(int), offsets[:-1])
        kinds = (tot_T[triggered_T], tot_T[~triggered_T])
        found.append([np.median(number_B), *(np.median(kind) for kind in kinds)])
    (number, *tots), (their_number, *their_tots) = found
    assert 1 / 1.6 < number / their_number < 1.6
    assert tots == pytest.approx(their_tots, abs=3.0)


def test_the_likelihood_does_not_know_pmts(store: EventStore) -> None:
    with pytest.raises(ValueError, match=r"orca6.*several PMTs"):
        limit_events(store)


def test_the_likelihood_needs_the_modules_of_the_simulation(tmp_path: Path) -> None:
    gvd = build_detector("gvd")
    other = replace(gvd, module=replace(gvd.module, name="other"))
    simulate(tmp_path / "gvd", num_events=1, seed=1, detector=other, workers=1)
    with pytest.raises(ValueError, match=r"modules that are not those of 'gvd'"):
        limit_events(EventStore(tmp_path / "gvd"))


def test_modules_and_medium_are_part_of_the_fingerprint() -> None:
    """An unfinished conversion goes on with the same ones only."""
    gvd = build_detector("gvd")
    config = SimulationConfig.of(gvd)

    def fingerprint(detector: Detector | None) -> str:
        part = simulated_source(2, 1, config, detector=detector).parts[0]
        return json.dumps(part.fingerprint(), allow_nan=False)

    found = {
        fingerprint(gvd),
        fingerprint(replace(gvd, module=replace(gvd.module, area=0.002))),
        fingerprint(replace(gvd, medium="water")),
        fingerprint(replace(gvd, optics=IceModel.water())),
    }
    assert len(found) == 4
    assert "medium" not in json.loads(fingerprint(None))  # as in earlier releases


def test_hopeless_draws_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muons of 1 GeV from outside never trigger; rounds of draws must not explode."""
    monkeypatch.setattr(events, "_MOST_DRAWS", 6)
    drawn = []

    def draw(topology: NDArray[np.int64], *others: Any) -> Any:
        drawn.append(len(topology))
        assert sum(drawn) < 20_000
        return real(topology, *others)

    real = events._draw
    monkeypatch.setattr(events, "_draw", draw)
    config = SimulationConfig(
        fractions={"through_going_track": 1.0}, energy_range=(1.0, 1.1)
    )
    with pytest.raises(ValueError, match=r"through_going_track.*orca6"):
        simulate_block(config, ORCA, 1, 0)
