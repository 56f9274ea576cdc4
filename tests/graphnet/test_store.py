"""A store in GraphNeT: its datasets, its data module, its trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)
pytestmark = pytest.mark.graphnet

import torch
from graphnet.data import GraphNeTDataModule
from graphnet.data.dataset import Dataset, SQLiteDataset
from graphnet.models import StandardModel
from graphnet.models.data_representation import KNNGraph
from graphnet.models.detector.icecube import IceCubeKaggle
from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa

import graphnet_icecube2nd.graphnet_adapter as icecube2nd
from graphnet_icecube2nd import EventStore, PulseMap, prepare
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store.writers import write_graphnet_sqlite

COLUMNS = ["x", "y", "z", "time", "charge", "auxiliary"]
LENGTHS = {1: [3, 1, 17, 60, 33, 8], 2: [64, 190, 2, 30], 655: [12, 40, 1]}
MakeStore = Callable[..., EventStore]


@pytest.fixture
def store(make_store: MakeStore) -> EventStore:
    return make_store(LENGTHS)


def make_dataset(path: Path | str, kind: Any = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "path": str(path),
        "pulsemaps": "pulses",
        "features": list(COLUMNS),
        "truth": ["azimuth", "zenith"],
        "data_representation": icecube2nd.PackedPulses(
            icecube2nd.KagglePulseMapDetector()
        ),
        "labels": {"direction": icecube2nd.OriginDirection()},
    }
    return (kind or icecube2nd.StoreDataset)(**{**arguments, **changes})


def make_model(pulses: Any) -> StandardModel:
    backbone = icecube2nd.DeepIceBackbone(dim=32, dim_base=16, depth=1, head_size=16)
    task = DirectionReconstructionWithKappa(
        hidden_size=backbone.nb_outputs,
        target_labels="direction",
        loss_function=icecube2nd.ExactVonMisesFisher3DLoss(),
    )
    return StandardModel(
        data_representation=pulses,
        backbone=backbone,
        tasks=[task],
        optimizer_class=torch.optim.AdamW,
    )


def ids_of(store: EventStore) -> list[int]:
    shards = range(len(store.shards))
    return np.concatenate([store.event_column("event_id", s) for s in shards]).tolist()


def assert_equal(ours: Any, theirs: Any) -> None:
    assert set(ours.keys()) == set(theirs.keys())
    for key in ("x", "direction", "n_pulses", "event_no", "azimuth", "zenith"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-6)


def assert_same(ours: Any, theirs: Any) -> None:
    assert set(ours.keys()) == set(theirs.keys())
    for key, value in theirs.to_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(ours[key], value), key
            assert ours[key].dtype == value.dtype, key
        else:
            assert ours[key] == value, key


class TestDataset:
    def test_gives_what_the_sqlite_we_wrote_gives(
        self, store: EventStore, tmp_path: Path
    ) -> None:
        write_graphnet_sqlite(store.path, tmp_path / "events.db")
        ours = make_dataset(store.path)
        theirs = make_dataset(tmp_path / "events.db", SQLiteDataset)
        assert len(ours) == len(theirs) == 13
        for index in range(13):
            assert_equal(ours[index], theirs[index])

    def test_any_representation_of_graphnets(
        self, store: EventStore, tmp_path: Path
    ) -> None:
        write_graphnet_sqlite(store.path, tmp_path / "events.db")
        graphs = {
            "data_representation": KNNGraph(IceCubeKaggle(), nb_nearest_neighbours=2)
        }
        ours = make_dataset(store.path, **graphs)
        theirs = make_dataset(tmp_path / "events.db", SQLiteDataset, **graphs)
        for index in (0, 3, 7):
            torch.testing.assert_close(ours[index].x, theirs[index].x)
            assert torch.equal(ours[index].edge_index, theirs[index].edge_index)

    def test_places_in_the_coordinates_of_the_file(
        self, make_store: MakeStore, tmp_path: Path
    ) -> None:
        pulse_map = PulseMap.kaggle(origin=(10.0, 0.0, -1948.0))
        store = make_store(LENGTHS, pulse_map=pulse_map)
        write_graphnet_sqlite(store.path, tmp_path / "s.db")
        ours = make_dataset(store.path)
        theirs = make_dataset(tmp_path / "s.db", SQLiteDataset, truth_table="truth")
        values = [d.query_table("pulses", ["x", "y", "z"], 2) for d in (ours, theirs)]
        np.testing.assert_allclose(*values, atol=1e-6)

    def test_selections(self, store: EventStore) -> None:
        chosen = make_dataset(store.path, selection=[2003, 1000])
        assert [int(event.event_no) for event in chosen] == [2003, 1000]
        by_text = make_dataset(store.path, selection="event_no > 2000 & zenith < 9")
        assert len(by_text) == 7 - 1
        with pytest.raises(ValueError, match="event 77"):
            make_dataset(store.path, selection=[77])

    @pytest.mark.parametrize("kind", ["PackedPulses", "KNNGraph"])
    def test_a_batch_is_its_events_made_one_by_one(
        self, store: EventStore, kind: str
    ) -> None:
        representation: Any = icecube2nd.PackedPulses(
            icecube2nd.KagglePulseMapDetector(), max_pulses=50, seed=3
        )
        if kind == "KNNGraph":
            representation = KNNGraph(IceCubeKaggle(), nb_nearest_neighbours=2)
        dataset = make_dataset(
            store.path,
            data_representation=representation,
            loss_weight_table="truth",
            loss_weight_column="zenith",
        )
        indices = [12, 0, 7, 3, 8, 0]  # of all shards
        together = dataset.__getitems__(indices)
        for index, event in zip(indices, together, strict=True):
            alone = Dataset.__getitem__(dataset, index)  # GraphNeT's way
            assert_same(event, alone)
            assert_same(dataset[index], alone)
        with pytest.raises(IndexError):
            dataset[13]

    def test_missing_columns_are_dropped_as_graphnet_does(
        self, store: EventStore
    ) -> None:
        dataset = make_dataset(
            store.path, features=[*COLUMNS, "rde"], truth=["azimuth", "zenith", "pid"]
        )
        assert "pid" not in dataset[0]

    def test_graphnets_data_module_takes_it(self, store: EventStore) -> None:
        loader = {
            "batch_size": 4,
            "num_workers": 0,
            "prefetch_factor": None,
            "persistent_workers": False,
            "collate_fn": icecube2nd.collate_events,
        }
        arguments = {
            "path": str(store.path),
            "pulsemaps": ["pulses"],
            "features": list(COLUMNS),
            "truth": ["azimuth", "zenith"],
            "data_representation": icecube2nd.PackedPulses(
                icecube2nd.KagglePulseMapDetector()
            ),
        }
        data = GraphNeTDataModule(
            dataset_reference=icecube2nd.StoreDataset,
            dataset_args=arguments,
            train_dataloader_kwargs=loader,
        )
        events = [
            int(number)
            for batches in (data.train_dataloader, data.val_dataloader)
            for batch in batches
            for number in batch.event_no
        ]
        expected = [
            n
            for s in range(len(store.shards))
            for n in store.event_column("event_id", s)
        ]
        assert sorted(events) == sorted(expected)

    def test_other_classes_are_still_refused(self, store: EventStore) -> None:
        with pytest.raises(TypeError, match="must be an instance"):
            GraphNeTDataModule(
                dataset_reference=dict, dataset_args={"path": str(store.path)}
            )

    def test_running_clocks_come_back(self, tmp_path: Path) -> None:
        pd = pytest.importorskip("pandas")
        pulses = pd.DataFrame(
            {
                "event_id": [5, 5, 5],
                "x": [1.0, 2, 3],
                "y": [0.0, 0, 0],
                "z": [0.0, 0, 0],
                "t": [1e8 + 0.5, 1e8 + 7, 1e8 + 9],
                "tot": np.array([20, 30, 40], np.uint8),
                "trig": [True, False, True],
            }
        )
        pulses.to_parquet(tmp_path / "hits.parquet")
        prepare(tmp_path / "hits.parquet", tmp_path / "s", workers=1)
        dataset = make_dataset(
            tmp_path / "s",
            truth=[],
            labels=None,
            features=["x", "t"],
            data_representation=KNNGraph(IceCubeKaggle(), nb_nearest_neighbours=1),
        )
        times = dataset.query_table("pulses", ["t"], 0)[:, 0]
        assert times.tolist() == [1e8 + 0.5, 1e8 + 7, 1e8 + 9]


@pytest.mark.parametrize("kind", ["the store", "SQLite that we wrote"])
def test_graphnet_trains_from(kind: str, store: EventStore, tmp_path: Path) -> None:
    """With its own data module and trainer."""
    path, dataset = store.path, icecube2nd.StoreDataset
    if kind != "the store":
        path, dataset = tmp_path / "events.db", SQLiteDataset
        write_graphnet_sqlite(store.path, path)
    pulses = icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector())
    data = GraphNeTDataModule(
        dataset_reference=dataset,
        dataset_args={
            "path": str(path),
            "pulsemaps": ["pulses"],
            "features": list(COLUMNS),
            "truth": ["azimuth", "zenith"],
            "data_representation": pulses,
            "labels": {"direction": icecube2nd.OriginDirection()},
        },
        train_dataloader_kwargs={
            "batch_size": 4,
            "num_workers": 0,
            "prefetch_factor": None,
            "persistent_workers": False,
            "collate_fn": icecube2nd.collate_events,
        },
    )
    model = make_model(pulses)
    before = [parameter.clone() for parameter in model.parameters()]
    model.fit(
        data.train_dataloader,
        data.val_dataloader,
        max_epochs=1,
        distribution_strategy="auto",
    )
    after = list(model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)


class TestBatches:
    def test_are_those_of_graphnets_collate(self, store: EventStore) -> None:
        events = np.arange(len(store))
        packed = EventReader(store, truth=("direction", "azimuth", "zenith")).batch(
            events
        )
        ours = icecube2nd.as_pyg_batch(packed)
        dataset = make_dataset(store.path)
        theirs = icecube2nd.collate_events([dataset[index] for index in events])
        for key in ("x", "batch", "ptr"):
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-6)
        for key in ("n_pulses", "event_no", "azimuth", "direction"):
            torch.testing.assert_close(
                ours[key].double(), theirs[key].double(), rtol=1e-6, atol=1e-6
            )
        assert ours.num_graphs == theirs.num_graphs == len(store)
        for one, other in zip(ours.to_data_list(), theirs.to_data_list(), strict=True):
            torch.testing.assert_close(one.x, other.x, rtol=1e-6, atol=1e-6)
            assert one.features == list(other.features)
        moved = ours.to("cpu")
        assert torch.equal(moved.ptr, ours.ptr)

    def test_standard_model_trains_and_predicts(self, store: EventStore) -> None:
        """Every event is predicted once, in the store's order, with its number."""
        data = icecube2nd.StoreDataModule(store, batch_size=3, num_sub_epochs=2)
        model = make_model(icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector()))
        before = [parameter.clone() for parameter in model.parameters()]
        model.fit(
            data.train_dataloader(),
            data.val_dataloader(),
            max_epochs=2,
            distribution_strategy="auto",
        )
        after = list(model.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        table = model.predict_as_dataframe(
            data.predict_dataloader(), additional_attributes=["event_no"]
        )
        expected = [
            n
            for s in range(len(store.shards))
            for n in store.event_column("event_id", s)
        ]
        assert table["event_no"].tolist() == expected
        assert np.isfinite(table["direction_kappa"]).all()
