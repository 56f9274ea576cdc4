"""Offline ROOT files of KM3NeT, compared with km3io and uproot value by value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd import EventStore, prepare
from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.detx import read_detector_file
from graphnet_icecube2nd.events.augmentation import RotateAboutZ, apply_augmentations
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference import DomainError, InferenceConfig
from graphnet_icecube2nd.inference.domain import Domain
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store.event_store import view_event
from graphnet_icecube2nd.store.readers.km3net import (
    FRAME,
    PARTICLE,
    OfflineFile,
    _pdg_codes,
    _tau_topology,
    km3net_source,
    opened,
)

pytest.importorskip("pyarrow")
km3io = pytest.importorskip("km3io")
awkward = pytest.importorskip("awkward")
data = pytest.importorskip("km3net_testdata")

ORCA6 = (
    "KM3NeT_00000049_00011291.mc.gsg_neutrinos.km3sim_sirene_merged.jterbr."
    "jppmuon_jppshower_static.offline.v9.2.sample.root"
)
ELECTRONS = (
    "mcv5.0.gsg_elec-CC_10-100GeV.km3sim.JDK.jte.jmergefit.orca.909.evtsample.root"
)
ANTINEUTRINOS = "mcv5.1.genhen_anumuNC.sirene.jte.jchain.aashower.sample.root"
MUONS = (
    "mcv6.0.gsg_muon_highE-CC_50-500GeV.km3sim.jterbr00008357.jorcarec.aanet.905.root"
)
ARCA = "mcv6.gsg_nue-CCHEDIS_1e4-1e6GeV.sirene.jte.jchain.aanet.1.root"
REAL = "km3net_offline.root"  # of ORCA, raw
SEA = "usr-sample.root"  # of ORCA; positions, but raw times
CORSIKA = "mcv5.0.DAT004340.propa.sirene.jte.jchain.aanet.4340.root"  # raw
# Number of events and of hits, PDG codes (PDG code: events), interaction.
FILES = {
    ORCA6: (30, 4589, "neutrino"),
    ELECTRONS: (10, 11183, "cc"),
    ANTINEUTRINOS: (10, 38174, "nc"),
    MUONS: (140, None, "cc"),
    ARCA: (31, None, "cc"),
}


def offline(name: str) -> Path:
    return Path(data.data_path(f"offline/{name}"))


def detx(name: str) -> Path:
    return Path(data.data_path(f"detx/{name}.detx"))


def column(store: EventStore, name: str) -> NDArray[Any]:
    return np.asarray(store.whole_event_column(name))


@pytest.mark.parametrize("name", FILES)
def test_values_of_km3io(tmp_path: Path, name: str) -> None:
    num_events, num_hits, kind = FILES[name]
    report = prepare(offline(name), tmp_path / "s", keep=["a", "tdc"], workers=1)
    reader, store = km3io.OfflineReader(str(offline(name))), EventStore(tmp_path / "s")
    assert report.kind == "km3net"
    assert report.num_events == len(reader) == num_events
    assert num_hits in (None, report.num_pulses)
    assert store.has_directions
    for event in (0, num_events // 2, num_events - 1):
        hits, found = reader[event].hits, view_event(store, event)
        order = np.argsort(np.asarray(hits.t), kind="stable")
        pulses = {c: np.asarray(v, np.float64) for c, v in found.pulses.items()}
        time = np.asarray(hits.t)[order]
        np.testing.assert_allclose(pulses["t"], time - time[0], atol=2e-3)
        for ours, theirs in {
            **{axis: f"pos_{axis}" for axis in "xyz"},
            **{f"dir_{axis}": f"dir_{axis}" for axis in "xyz"},
            **{name: name for name in ("tot", "dom_id", "channel_id", "a", "tdc")},
        }.items():
            wanted = np.asarray(getattr(hits, theirs), np.float64)[order]
            if len({*time}) == len(time):  # else equal times have an order of their own
                np.testing.assert_allclose(pulses[ours], wanted, rtol=1e-6, atol=1e-6)
            assert pulses[ours].sum() == pytest.approx(wanted.sum(), rel=1e-5, abs=1e-3)
        assert pulses["trig"].sum() == np.count_nonzero(hits.trig)
        for ours in ("run_id", "det_id", "frame_index", "trigger_counter"):
            assert found.truth[ours] == reader[ours][event]
        primary = {c: getattr(reader[event].mc_trks, c)[0] for c in ("pdgid", "E", "t")}
        assert found.truth["pid"] == primary["pdgid"]
        assert found.truth["energy"] == pytest.approx(primary["E"])
        flight = [getattr(reader[event].mc_trks, f"dir_{axis}")[0] for axis in "xyz"]
        origin = angles_to_unit_vector(found.truth["zenith"], found.truth["azimuth"])
        np.testing.assert_allclose(origin, -np.array(flight), atol=1e-5)
        for axis in "xyz":
            place = getattr(reader[event].mc_trks, f"pos_{axis}")[0]
            assert found.truth[f"position_{axis}"] == pytest.approx(place)
        # Light needs a microsecond or two to the last hit, noise comes before it.
        since = found.truth["interaction_time"] - time
        assert np.abs(since[np.asarray(hits.trig)[order] != 0]).max() < 6000
        time = reader.mc_t[event] - (reader.frame_index[event] - 1) * FRAME
        assert found.truth["interaction_time"] == pytest.approx(time, abs=1e-3)
        for i, weight in enumerate(reader.w[event]):
            assert found.truth[f"w{i + 1}"] == weight
    if kind in ("cc", "nc"):
        wanted_type = {"cc": 1, "nc": 2}[kind]
        assert (column(store, "interaction_type") == wanted_type).all()
        y = column(store, "inelasticity")
        assert ((y > 0) & (y < 1)).all()


def test_an_event_by_hand(tmp_path: Path) -> None:
    """The first event, as printed by uproot."""
    prepare(offline(ORCA6), tmp_path / "s", workers=1)
    event = view_event(EventStore(tmp_path / "s"), 0)
    assert event.event_id == 0
    assert len(event.pulses["t"]) == 99
    assert event.pulses["trig"].sum() == 25
    wanted = {
        **{"run_id": 11291, "det_id": 49, "frame_index": 73678},
        **{"trigger_counter": 1445, "utc_seconds": 1637172028, "pid": 14},
        **{"energy": 22.705013703, "zenith": np.arccos(0.0960302479)},
        **{"azimuth": np.arctan2(-0.6405253769, -0.7619090714) + 2 * np.pi},
        **{"position_x": 422.813634, "position_y": 572.779993, "position_z": 61.498743},
        **{"interaction_time": 68937169.83007812, "interaction_type": 1},
        **{"inelasticity": 0.9544526735, "w2list_by": 0.9544526735},
        "tau_topology": 3,
        **{"w1": 399926.059100288, "w4": 7.142857142857e-07, "w2list_ps": 13.74134152},
        **{"jmuon_energy": 5.6044778392, "jmuon_likelihood": 84.96231053},
        "jmuon_zenith": np.arccos(0.1004462146),
    }
    for name, value in wanted.items():
        assert event.truth[name] == pytest.approx(value), name


def test_taus_that_decay_to_muons() -> None:
    """The primary and the other particles of events; the last event has none."""
    codes = [[16, 111, 13], [-16, 211, -13], [-16, 13], [16, -211], [16], [14, 13], []]
    empty = {name: [[0.0] * len(some) for some in codes] for name in PARTICLE}
    file = object.__new__(OfflineFile)
    file.ak = awkward
    particles = awkward.Array(empty | {"pdgid": codes})
    file.reader = SimpleNamespace(mc_trks=awkward.zip(dict(
        zip(particles.fields, awkward.unzip(particles), strict=True)
    )))  # fmt: skip
    file.numbers = lambda branch, low, high: np.zeros(high - low)  # type: ignore
    primary = file.primary(0, len(codes))
    charged_B = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    assert _tau_topology(primary, charged_B).tolist() == [2, 2, 1, 1, -1, 3, 3]
    assert _tau_topology(primary, ~charged_B).tolist() == [3] * 7


def test_only_hits_of_the_trigger(tmp_path: Path) -> None:
    report = prepare(offline(ORCA6), tmp_path / "s", triggered_hits=True, workers=1)
    store = EventStore(tmp_path / "s")
    assert [len(view_event(store, e).pulses["t"]) for e in range(4)] == [25, 63, 85, 9]
    assert any("trigger" in note for note in report.notes)
    # A model of such hits does not take all hits for the same, and the other way round.
    prepare(offline(ORCA6), tmp_path / "all", workers=1, detector="orca6")
    detectors = store.detector, EventStore(tmp_path / "all").detector
    assert [one.pulses.only_triggered for one in detectors] == [True, False]
    options = InferenceConfig()
    for trained, given, word in zip(
        detectors, detectors[::-1], ("with --trig", "without --trig"), strict=True
    ):
        config = InputConfig.of(trained, telescope=given.telescope)
        config = InputConfig.from_dict(config.to_dict())
        Domain(config, replace(trained, telescope=given.telescope), options)
        with pytest.raises(DomainError, match=word):
            Domain(config, replace(given, scales=trained.scales), options)
        # Of hits from elsewhere it is not known.
        unknown = replace(given.pulses, only_triggered=None)
        Domain(config, replace(given, scales=trained.scales, pulses=unknown), options)
    with pytest.raises(ValueError, match="triggered_hits"):
        prepare(detx("detx_v1"), tmp_path / "t", format="hdf5", triggered_hits=True)


class TestRawHits:
    def test_detx_calibrates_them(self, tmp_path: Path) -> None:
        geometry = detx("km3net_offline")
        prepare(offline(REAL), tmp_path / "s", geometry=geometry, workers=1)
        store = EventStore(tmp_path / "s")
        assert len(store) == 10
        assert not store.has_directions
        assert len(store.geometry) == 90
        assert store.geometry.pmt_direction_SP3 is not None
        event = view_event(store, 0)
        assert len(event.pulses["t"]) == 176
        hits = km3io.OfflineReader(str(offline(REAL)))[0].hits
        # The module's line and that of its channel in the file.
        dom, channel = hits.dom_id[0], int(hits.channel_id[0])
        lines = geometry.read_text().splitlines()
        row = next(i for i, line in enumerate(lines) if line.split()[:1] == [str(dom)])
        numbers = np.array(lines[row + 1 + channel].split(), np.float64)
        time = (hits.t[0] + numbers[7]) - event.truth["time_origin"]
        pulse = int(np.abs(event.pulses["t"] - time).argmin())
        assert event.pulses["t"][pulse] == pytest.approx(time, abs=2e-3)
        names = ("x", "y", "z", "dir_x", "dir_y", "dir_z")
        found = [event.pulses[name][pulse] for name in names]
        np.testing.assert_allclose(found, numbers[1:7], atol=1e-3)
        assert event.pulses["dom_id"][pulse] == dom

    def test_they_need_a_detector_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=rf"{REAL}.*raw.*--geometry"):
            prepare(offline(REAL), tmp_path / "s")
        other = detx("detx_v1")
        with pytest.raises(ValueError, match=r"event 0 .*lacks channel \d+ of module"):
            prepare(offline(REAL), tmp_path / "s", geometry=other, workers=1)

    def test_raw_times_next_to_positions(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=rf"{SEA}.*calibrated times.*--geometry"):
            prepare(offline(SEA), tmp_path / "s", workers=1)
        geometry = detx("D_ORCA006_t.A02181836.p.A02181837.r.A02182001")
        prepare(offline(SEA), tmp_path / "s", geometry=geometry, workers=1)
        store = EventStore(tmp_path / "s")
        assert len(store) == 3
        assert not store.has_directions
        file = read_detector_file(geometry)
        event = view_event(store, 0)
        hits = km3io.OfflineReader(str(offline(SEA)))[0].hits
        module, channel = (np.asarray(v) for v in (hits.dom_id, hits.channel_id))
        pmt = file.find_pmts(module.astype(np.int64), channel.astype(np.int64))
        offset = file.time_offset_P[pmt]
        assert np.ptp(offset) > 1000
        time = np.sort(np.asarray(hits.tdc) + offset)
        np.testing.assert_allclose(event.pulses["t"], time - time[0], atol=2e-3)

    def test_calibrated_hits_stay(self, tmp_path: Path) -> None:
        geometry = detx("detx_v5")
        prepare(offline(ORCA6), tmp_path / "s", geometry=geometry, workers=1)
        prepare(offline(ORCA6), tmp_path / "t", workers=1)
        first, second = (view_event(EventStore(tmp_path / n), 0).pulses for n in "st")
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name])


def test_several_files(tmp_path: Path) -> None:
    """Events are numbered over all files; what a file lacks is NaN."""
    names = (ORCA6, ELECTRONS)
    prepare([offline(name) for name in names], tmp_path / "s", workers=2)
    store = EventStore(tmp_path / "s")
    assert column(store, "event_id").tolist() == list(range(40))
    w4, target = column(store, "w4"), column(store, "w2list_targeta")
    assert np.isnan(w4).tolist() == [False] * 30 + [True] * 10
    assert {*target[:30].tolist()} == {1.0, 16.0, 23.0, 35.0}  # H, O, Na, Cl
    assert np.isnan(target[30:]).all()
    assert column(store, "det_id")[[0, 30]].tolist() == [49, -1]
    source = km3net_source([offline(name) for name in names], part_pulses=500)
    assert len(source.parts) > 40 // 2
    ids = [c.event_id for part in source.parts for c in part.chunks(300)]
    assert np.concatenate(ids).tolist() == list(range(40))


def test_data_with_simulation(tmp_path: Path) -> None:
    """Data have no weights, air showers have no `w2list`."""
    files = [offline(name) for name in (REAL, CORSIKA)]
    detx_of_both(tmp_path / "both.detx", files)
    prepare(files, tmp_path / "s", geometry=tmp_path / "both.detx", workers=1)
    store = EventStore(tmp_path / "s")
    assert len(store) == 13
    assert np.isnan(column(store, "w2")).tolist() == [True] * 10 + [False] * 3
    for i, weights in enumerate(km3io.OfflineReader(str(files[1])).w):
        for number, weight in enumerate(weights, start=1):
            assert column(store, f"w{number}")[10 + i] == weight
    assert column(store, "pid")[10:].tolist() == [2212] * 3


def detx_of_both(path: Path, files: list[Path]) -> None:
    """Write a detx (version 1) with all modules of the hits of files."""
    hits = [km3io.OfflineReader(str(file)).hits for file in files]
    modules = np.unique(
        [dom for h in hits for doms in h.dom_id.to_list() for dom in doms]
    )
    lines = [f"1 {len(modules)}"]
    for number, module in enumerate(modules.tolist()):
        lines.append(f"{module} 1 {number} 31")
        lines += [f"{pmt} 0 0 {10 * number} 0 0 1 {pmt}" for pmt in range(31)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("offline/multiHead.root", "must have hits, found none in 10 events"),
        ("dst/orca6_sample.root", "must have hits"),
        ("offline/empty_events.root", "must have hits, found none in 0 events"),
        ("online/km3net_online.root", "KM3NET_EVENT"),
        ("gseagen/gseagen.root", "must have a tree E .*found .*Events"),
    ],
)
def test_files_without_hits(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(data.data_path(name), tmp_path / "s", workers=1)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file(tmp_path: Path, share: float) -> None:
    content = offline(ELECTRONS).read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.root"):
        prepare(path, tmp_path / "s", workers=1)


def test_air_showers(tmp_path: Path) -> None:
    """CORSIKA's code 14 is a proton; an air shower has no vertex in the sea."""
    (part,) = km3net_source(offline(CORSIKA), geometry=detx("detx_v5")).parts
    with opened(part.path) as file:
        primary = file.primary(0, 3)
    assert primary["pdgid"].tolist() == [14.0] * 3
    events = part._truth(primary, {}, np.zeros(0), np.zeros(4, np.int64), [])
    assert events["pid"].tolist() == [2212] * 3
    assert events["energy"].tolist() == [4169100.0, 27804000.0, primary["E"][2]]
    assert events["zenith"][0] == pytest.approx(np.arccos(0.506483), abs=1e-4)
    assert np.isnan(events["position_z"]).all()
    assert np.isnan(events["interaction_time"]).all()
    codes = np.array([1.0, 14.0, 402.0, 5626.0, 2212.0, 1000020040.0, np.nan])
    assert _pdg_codes(codes, is_corsika=True).tolist() == [
        *(22, 2212, 1000020040, 1000260560, 2212, 1000020040, 0)
    ]
    assert _pdg_codes(np.array([81.0, 14.0]), is_corsika=False).tolist() == [13, 14]


@pytest.mark.slow
@pytest.mark.parametrize("name", [ORCA6, ARCA, REAL])
def test_best_track_of_km3io(name: str) -> None:
    tracks = km3io.OfflineReader(str(offline(name))).trks
    best = km3io.tools.best_jmuon(tracks)
    with opened(offline(name)) as file:
        found = file.best_jmuon(0, len(file.offsets) - 1)
    for branch in ("E", "dir_z", "lik", "pos_x", "t"):
        wanted = [np.nan if v is None else v for v in getattr(best, branch).tolist()]
        np.testing.assert_array_equal(found[branch], wanted)


def test_a_rotation_turns_all_vectors(tmp_path: Path) -> None:
    """Places, PMT directions, truth and vertex keep their angles to each other."""
    prepare(offline(ORCA6), tmp_path / "s", workers=1)
    store = EventStore(tmp_path / "s")
    assert store.detector.vectors == (("dir_x", "dir_y", "dir_z"),)
    reader = EventReader(store, max_pulses=None, truth=("direction", "vertex"))
    before = reader.raw(np.arange(len(store)))
    for seed in range(5):
        after = apply_augmentations(
            before, [RotateAboutZ()], seed=seed, detector=store.detector
        )
        products = [_products(events) for events in (before, after)]
        for first, second in zip(*products, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-3, atol=0.05)
        assert not torch.allclose(before.columns["dir_x"], after.columns["dir_x"])
        torch.testing.assert_close(before.columns["dir_z"], after.columns["dir_z"])


def _products(events: Any) -> list[torch.Tensor]:
    """Return what a rotation keeps: products of the vectors of each hit, (T,) each."""
    lengths = events.offsets.diff()
    place, look = (
        torch.stack([events.columns[prefix + axis] for axis in "xyz"], 1).double()
        for prefix in ("", "dir_")
    )
    truth = events.truth["direction"].repeat_interleave(lengths, 0).double()
    vertex = events.truth["vertex"][:, :3].repeat_interleave(lengths, 0).double()
    known = vertex.isfinite().all(dim=1)
    assert known.any()
    pairs = [(place, look), (place, truth), (look, truth)]
    found = [(a * b).sum(1) for a, b in pairs]
    return [*found, ((place - vertex) * look).sum(1)[known]]
