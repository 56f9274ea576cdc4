"""From a store to batches: the numbers of `pulse_features`, whoever reads."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, PackedBatch, PulseMap
from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.events.augmentation import (
    AddNoise,
    Mirror,
    TimeJitter,
    TimeOffset,
)
from graphnet_icecube2nd.events.features import pulse_features
from graphnet_icecube2nd.events.selection import select_pulses
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store.event_store import view_event
from graphnet_icecube2nd.tasks.label import TOPOLOGIES

MakeStore = Callable[..., EventStore]
LENGTHS = {1: [3, 250, 17], 2: [1, 64, 500, 2], 5: [90]}


def plain_batch(
    store: EventStore, events: Sequence[int], max_pulses: int = 192, **options: Any
) -> PackedBatch:
    """The slow way: each event as its file had it, checked, selected, joined."""
    views = [view_event(store, event) for event in events]
    lengths = [view.truth["n_pulses"] for view in views]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    columns = {
        name: np.concatenate([view.pulses[name] for view in views])
        for name in store.pulse_columns
    }
    features = pulse_features(
        columns, offsets, store.pulse_map, geometry=store.geometry, ice=store.ice
    )
    event_id = torch.tensor([view.event_id for view in views])
    auxiliary = features[:, 5]
    kept, kept_offsets = select_pulses(
        offsets, max_pulses, auxiliary=auxiliary, event_id=event_id, **options
    )
    return PackedBatch(
        features=features[kept],
        offsets=kept_offsets,
        n_pulses=offsets.diff(),
        names=store.pulse_map.feature_names,
        event_id=event_id,
    )


def assert_same(found: PackedBatch, expected: PackedBatch) -> None:
    assert found.names == expected.names
    torch.testing.assert_close(found.features, expected.features, rtol=1e-6, atol=2e-7)
    for name in ("offsets", "n_pulses", "event_id"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=0, atol=0
        )


@pytest.mark.parametrize("selection", ["uniform", "hlc_first", "first"])
def test_reads_what_the_plain_way_gives(make_store: MakeStore, selection: str) -> None:
    store = make_store(LENGTHS, shard_pulses=200)
    assert len(store.shards) > 3
    reader = EventReader(store, selection=selection, seed=3)
    for events in ([0], [1], [5, 1, 0, 7, 3], [2, 2], list(range(8))):
        batch = reader.batch(np.array(events), epoch=2)
        plain = plain_batch(store, events, selection=selection, seed=3, epoch=2)
        assert_same(batch, plain)
        PackedBatch(  # would pass the checks that were spared
            features=batch.features,
            offsets=batch.offsets,
            n_pulses=batch.n_pulses,
            event_id=batch.event_id,
            truth=batch.truth,
        )


@settings(max_examples=25)
@given(
    events=st.lists(st.integers(0, 7), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 4), max_size=5),
)
def test_split_is_as_reading_one_by_one(
    events: list[int], cuts: list[int], shared_reader: EventReader
) -> None:
    borders = [0, *np.cumsum(cuts).tolist()]
    groups = [np.array(events[a:b]) for a, b in pairwise([*borders, None])]
    groups = [group for group in groups if len(group)]
    together = list(shared_reader.batches(groups, epoch=1))
    assert len(together) == len(groups)
    for batch, group in zip(together, groups, strict=True):
        alone = shared_reader.batch(group, epoch=1)
        assert torch.equal(batch.features, alone.features)
        assert torch.equal(batch.offsets, alone.offsets)
        assert torch.equal(batch.truth["direction"], alone.truth["direction"])
        assert torch.equal(batch.event_id, alone.event_id)


@pytest.fixture(scope="module")
def shared_reader(
    tmp_path_factory: pytest.TempPathFactory, make_kaggle_folder: Callable[..., Path]
) -> EventReader:
    from graphnet_icecube2nd import prepare

    folder = tmp_path_factory.mktemp("reader")
    make_kaggle_folder(folder / "in", LENGTHS)
    prepare(folder / "in", folder / "store", workers=1, shard_pulses=200)
    return EventReader(EventStore(folder / "store"))


@settings(max_examples=20)
@given(
    lengths=st.dictionaries(
        st.integers(1, 660),
        st.lists(st.integers(1, 300), min_size=1, max_size=8),
        min_size=1,
        max_size=3,
    ),
    shard_pulses=st.integers(1, 900),
    selection=st.sampled_from(["uniform", "hlc_first", "first"]),
    max_pulses=st.integers(1, 200),
    data=st.data(),
)
def test_random_stores(
    lengths: dict[int, list[int]],
    shard_pulses: int,
    selection: str,
    max_pulses: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
    make_kaggle_folder: Callable[..., Path],
) -> None:
    from graphnet_icecube2nd import prepare

    folder = tmp_path_factory.mktemp("random")
    make_kaggle_folder(folder / "in", lengths)
    prepare(folder / "in", folder / "store", workers=1, shard_pulses=shard_pulses)
    store = EventStore(folder / "store")
    numbers = st.lists(st.integers(0, len(store) - 1), min_size=1, max_size=9)
    events = data.draw(numbers)
    options = {"selection": selection, "seed": 5}
    reader = EventReader(store, max_pulses=max_pulses, **options)
    plain = plain_batch(store, events, max_pulses, **options)
    assert_same(reader.batch(np.array(events)), plain)


def test_a_reader_can_be_sent_to_another_process(shared_reader: EventReader) -> None:
    shared_reader.store.geometry.nearest_dom(torch.zeros(1, 3))  # makes a search grid
    sent = pickle.dumps(shared_reader)
    assert len(sent) < 2_000_000  # tables of the detector, no events
    events = np.array([1, 7])
    assert_same(pickle.loads(sent).batch(events), shared_reader.batch(events))


def test_published_switches(make_store: MakeStore) -> None:
    store = make_store({1: [60, 5]}, pulse_map=PulseMap.kaggle().as_published())
    assert store.pulse_map.ice == "mirrored"
    assert_same(EventReader(store).batch(np.array([0, 1])), plain_batch(store, [0, 1]))


def test_other_epoch_other_pulses_of_long_events(shared_reader: EventReader) -> None:
    def times(event: int, epoch: int) -> list[float]:
        batch = shared_reader.batch(np.array([event]), epoch)
        return batch.column("time").tolist()

    assert times(5, 0) == times(5, 0)
    assert times(5, 0) != times(5, 1)
    assert times(0, 0) == times(0, 1), "short events are whole"


class TestTruth:
    def test_direction_points_to_the_origin(self, make_store: MakeStore) -> None:
        store = make_store({1: [3, 4]})
        view = view_event(store, 1).truth
        expected = angles_to_unit_vector(view["zenith"], view["azimuth"]).float()
        batch = EventReader(store).batch(np.array([1]))
        assert batch.truth is not None
        torch.testing.assert_close(batch.truth["direction"][0], expected)

    def test_angles_of_flight_are_turned(self, make_store: MakeStore) -> None:
        store = make_store({1: [3, 4]}, angles="flight")
        view = view_event(store, 0).truth
        expected = -angles_to_unit_vector(view["zenith"], view["azimuth"]).float()
        batch = EventReader(store).batch(np.array([0]))
        assert batch.truth is not None
        torch.testing.assert_close(batch.truth["direction"][0], expected)

    def test_columns(self, make_store: MakeStore) -> None:
        store = make_store({1: [3, 4]})
        reader = EventReader(store, truth=("zenith", "n_pulses"))
        truth = reader.batch(np.array([1, 0])).truth
        assert truth is not None
        assert truth["zenith"].dtype == torch.float32
        assert truth["n_pulses"].tolist() == [4, 3]

    def test_store_without_truth(self, make_store: MakeStore) -> None:
        store = make_store({1: [3]}, with_truth=False)
        assert EventReader(store).batch(np.array([0])).truth == {}
        with pytest.raises(
            ValueError, match="'direction': it needs azimuth and zenith"
        ):
            EventReader(store, truth=("direction",))

    def test_unknown_column(self, make_store: MakeStore) -> None:
        store = make_store({1: [3]})
        with pytest.raises(ValueError, match="no label 'energy': it needs energy or"):
            EventReader(store, truth=("energy",))
        with pytest.raises(ValueError, match="no event column 'pid'; it has event_"):
            EventReader(store, truth=("pid",))

    def test_labels_of_events_without_are_nan(self, tmp_path: Path) -> None:
        """Fillers of -1, NaN, and interactions that say nothing."""
        store = labelled_store(tmp_path)
        names = ("direction", "energy", "track", "pid", "energy_loss")
        truth = EventReader(store, truth=names).batch(np.arange(4)).truth
        assert truth is not None
        assert truth["direction"].isfinite().all(1).tolist() == [True, True, False, 0]
        assert truth["energy"].isfinite().tolist() == [True, False, True, False]
        assert truth["track"].tolist()[:2] == [1.0, 0.0]
        assert truth["track"].isnan().tolist() == [False, False, True, True]
        assert all(truth[name].dtype == torch.float32 for name in names[:3])
        assert truth["pid"].tolist() == [14, 12, -1, -1], "columns are as they are"
        assert truth["energy_loss"].tolist() == [1.0, -1.0, -1.0, -1.0]

    def test_text_is_no_truth_but_its_label_is(
        self, simulated: EventStore, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=r"'generator' .* text"):
            EventReader(labelled_store(tmp_path), truth=("generator",))
        events = np.arange(40)[::-1].copy()
        truth = EventReader(simulated, truth=("track", "topology")).batch(events).truth
        assert truth is not None
        topology = simulated.whole_event_column("topology")[events]
        expected = ["cascade" not in text for text in topology.tolist()]
        assert truth["track"].tolist() == [float(one) for one in expected]
        codes = [TOPOLOGIES.index(text) for text in topology.tolist()]
        assert truth["topology"].tolist() == codes


def labelled_store(folder: Path) -> EventStore:
    """Four events: with all labels, without energy, with energy alone, with none."""
    pd = pytest.importorskip("pandas")
    from graphnet_icecube2nd.store import (
        prepare_frames,
    )

    count = [9, 8, 7, 6]
    event = np.repeat(np.arange(4), count)
    names = ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t")
    pulses = pd.DataFrame({name: np.arange(30.0) for name in names})
    pulses["event_no"] = event
    truth = pd.DataFrame(
        {
            "event_no": np.arange(4),
            "injection_azimuth": [1.0, 2.0, -1.0, -1.0],
            "injection_zenith": [0.5, 1.0, -1.0, -1.0],
            "energy": [100.0, -1.0, 5.0, 0.0],
            "pid": [14, 12, -1, -1],
            "interaction_type": [1, 2, -1, -1],
            "energy_loss": [1.0, -1.0, -1.0, -1.0],
            "generator": ["GENIE"] * 4,
        }
    )
    prepare_frames(pulses, truth, folder / "labelled")
    return EventStore(folder / "labelled")


class TestRefused:
    def test_bad_numbers(self, shared_reader: EventReader) -> None:
        for events in ([8], [-1], [0, 99]):
            with pytest.raises(ValueError, match=r"must be 0 to 7"):
                shared_reader.batch(np.array(events))
        with pytest.raises(ValueError, match="at least one event"):
            shared_reader.batch(np.array([], dtype=np.int64))

    def test_bad_options(self, make_store: MakeStore) -> None:
        store = make_store({1: [3]})
        with pytest.raises(ValueError, match="unknown selection 'best'"):
            EventReader(store, selection="best")
        with pytest.raises(ValueError, match="max_pulses must be"):
            EventReader(store, max_pulses=0)


def test_noise_wants_the_detectors_own_doms(
    make_store: MakeStore, tmp_path: Path
) -> None:
    pd = pytest.importorskip("pandas")
    from graphnet_icecube2nd.store import (
        prepare_frames,
    )

    EventReader(make_store({1: [3]}), augmentations=[AddNoise()])
    names = ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t", "event_no")
    pulses = pd.DataFrame({name: [1, 2] for name in names})
    prepare_frames(pulses, None, tmp_path / "s")
    with pytest.raises(ValueError, match=r"add_noise needs the DOMs .*--geometry"):
        EventReader(EventStore(tmp_path / "s"), augmentations=[AddNoise()])


def test_a_centre_elsewhere(make_store: MakeStore) -> None:
    """Only augmentations that use positions need it at 0."""
    pulse_map = PulseMap.kaggle(origin=(0.0, 0.0, -1948.0))
    store, events = make_store({1: [3, 40]}, pulse_map=pulse_map), np.arange(2)
    jitter = EventReader(store, augmentations=[TimeJitter(sigma=0.0)])
    assert_same(jitter.batch(events), EventReader(store).batch(events))
    for placed in (AddNoise(), Mirror(axis="z")):
        with pytest.raises(ValueError, match=f"{placed.kind} needs .*-1948"):
            EventReader(store, augmentations=[TimeJitter(sigma=1.0), placed])


def test_whole_events(make_store: MakeStore) -> None:
    reader = EventReader(make_store({1: [3, 900]}), max_pulses=None)
    assert reader.batch(np.array([1, 0])).lengths.tolist() == [900, 3]


def test_places_in_place_of_sensor_ids(tmp_path: Path) -> None:
    """A file with x, y, z, hlc, rde and an extra column, on a running clock."""
    pd = pytest.importorskip("pandas")
    from graphnet_icecube2nd import prepare

    rng = np.random.default_rng(0)
    geometry = DetectorGeometry.icecube86()
    dom = rng.integers(0, 5160, 40)
    position = geometry.position_S3.numpy()[dom]
    pulses = pd.DataFrame(
        {
            "event_no": np.repeat([4, 9], [15, 25]),
            "dom_x": position[:, 0],
            "dom_y": position[:, 1],
            "dom_z": position[:, 2],
            "dom_time": np.sort(rng.uniform(9e3, 2e4, 40)),
            "charge": rng.uniform(0.2, 5, 40),
            "hlc": rng.integers(0, 2, 40),
            "rde": rng.choice([1.0, 1.35], 40),
            "width": rng.choice([1.0, 8.0], 40),
        }
    )
    pulse_map = PulseMap.icecube86(
        time_reference="first_pulse", extra=("width",), extra_scale=(8.0,)
    )
    pulses.to_parquet(tmp_path / "pulses.parquet")
    prepare(tmp_path / "pulses.parquet", tmp_path / "s", pulse_map=pulse_map, workers=1)
    store = EventStore(tmp_path / "s")
    batch = EventReader(store).batch(np.array([1, 0]))
    assert batch.names[-1] == "width"
    assert_same(batch, plain_batch(store, [1, 0]))
    later = np.array(pulses["dom_time"][15:]) - pulses["dom_time"][15]
    np.testing.assert_allclose(
        batch.column("time")[:25].numpy() * 3e4, later, atol=1e-2
    )
    assert math.isclose(float(batch.column("qe").mean()), (pulses.rde > 1.1).mean())


def test_augmentations_leave_the_time_origin(make_store: MakeStore) -> None:
    """Also where selection has left the event's first pulse out."""
    pulse_map = PulseMap.kaggle(time_reference="first_pulse")
    store = make_store({1: [3, 900, 400, 190]}, pulse_map=pulse_map)
    events = np.arange(4)
    plain = EventReader(store, max_pulses=100).batch(events)
    assert float(plain.column("time").min()) == 0.0
    assert_same(
        EventReader(store, max_pulses=100, augmentations=[TimeJitter(sigma=0)]).batch(
            events
        ),
        plain,
    )
    first = [
        float(time[0]) for time in plain.column("time").split(plain.lengths.tolist())
    ]
    assert max(first) > 0, "a first pulse was left out"
    moved = EventReader(
        store, max_pulses=100, augmentations=[TimeOffset(sigma=1e4)]
    ).batch(events)
    torch.testing.assert_close(moved.features, plain.features, rtol=0, atol=1e-6)
