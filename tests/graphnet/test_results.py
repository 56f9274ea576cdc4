"""Results of GraphNeT pipelines: what GraphNeT predicts, read once, event by event."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
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
from graphnet.data.dataset import SQLiteDataset
from graphnet.models import StandardModel
from graphnet.models.data_representation import KNNGraph
from graphnet.models.detector.prometheus import Prometheus
from graphnet.models.gnn import DynEdge
from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa
from graphnet.training.utils import collate_fn as collate_of_graphnet
from torch.utils.data import ConcatDataset, DataLoader, Dataset

import graphnet_icecube2nd.graphnet_adapter as icecube2nd
from graphnet_icecube2nd import (
    EventStore,
    EventTable,
    InputConfig,
    build_model,
    prepare,
    save_model,
    simulate,
)
from graphnet_icecube2nd.calibration.fit import (
    calibrate_table,
    calibrated_table,
)
from graphnet_icecube2nd.evaluation.metrics import evaluate
from graphnet_icecube2nd.graphnet_adapter import results
from graphnet_icecube2nd.graphnet_adapter.prediction import domain_of, event_predictions
from graphnet_icecube2nd.graphnet_adapter.results import predict_directions
from graphnet_icecube2nd.inference.domain import DomainError
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration

COLUMNS = ["event_id", "direction_x", "direction_y", "direction_z", "azimuth", "zenith"]
COLUMNS += ["kappa", "radius_50", "radius_90", "calibrated", "n_pulses", "status"]
VECTOR = ["direction_x", "direction_y", "direction_z"]
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
PULSES = icecube2nd.PackedPulses(icecube2nd.IceCube86PulseMapDetector(), seed=0)


def direction_task(hidden_size: int, **further: Any) -> Any:
    return DirectionReconstructionWithKappa(
        hidden_size=hidden_size,
        target_labels="direction",
        loss_function=icecube2nd.ExactVonMisesFisher3DLoss(),
        **further,
    )


def make_model(pulses: Any = PULSES, **further: Any) -> StandardModel:
    torch.manual_seed(0)
    backbone = icecube2nd.DeepIceBackbone(dim=32, dim_base=8, depth=1, head_size=16)
    task = direction_task(backbone.nb_outputs, **further)
    with torch.no_grad():  # directions that differ from event to event
        task._affine.weight.mul_(10)
    return StandardModel(data_representation=pulses, backbone=backbone, tasks=[task])


def make_dynedge(graph: Any) -> StandardModel:
    torch.manual_seed(0)
    backbone = DynEdge(
        nb_inputs=4,
        nb_neighbours=3,
        dynedge_layer_sizes=[(16, 16)],
        post_processing_layer_sizes=[16],
        readout_layer_sizes=[16],
        global_pooling_schemes=["mean", "max"],
    )
    task = direction_task(backbone.nb_outputs)
    return StandardModel(data_representation=graph, backbone=backbone, tasks=[task])


class Counted(Dataset[Any]):
    """A dataset that counts how often its events are read."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.reads = dataset, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.dataset[index]


def make_dataset(database: str, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "path": database,
        "pulsemaps": "pulses",
        "truth_table": "truth",
        "features": list(PULSES._detector.feature_map()),
        "truth": ["azimuth", "zenith"],
        "data_representation": PULSES,
    }
    return SQLiteDataset(**{**arguments, **changes})


def make_loader(dataset: Any, **options: Any) -> Any:
    options.setdefault("collate_fn", icecube2nd.collate_events)
    return DataLoader(dataset, batch_size=4, **options)


@pytest.fixture
def dataset(database: str) -> Counted:
    """Ten events, 100 to 109, of 1 to 700 pulses."""
    return Counted(make_dataset(database))


def radius_of(kappa: Any, level: float) -> Any:
    """Solve level = (1 - exp(-kappa u)) / (1 - exp(-2 kappa)), u = 1 - cos(radius)."""
    u = -np.log(1 - level * (1 - np.exp(-2 * kappa))) / kappa
    return np.arccos(1 - u)


class TestRealData:
    """The same numbers as GraphNeT's own way, with half the reading."""

    @pytest.fixture(params=["ours", "DynEdge"])
    def pipeline(
        self, request: pytest.FixtureRequest, shared_dir: Path
    ) -> tuple[Any, Any, Path]:
        examples = shared_dir / "data" / "graphnet" / "data" / "examples"
        path = examples / "sqlite" / "prometheus" / "prometheus-events.db"
        detector = icecube2nd.PrometheusPulseMapDetector(angles="origin")
        pulses: Any = icecube2nd.PackedPulses(detector, seed=0)
        if request.param == "DynEdge":
            pulses = KNNGraph(Prometheus(), nb_nearest_neighbours=2)
        dataset = make_dataset(
            str(path),
            pulsemaps="total",
            truth_table="mc_truth",
            features=["sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"],
            truth=["injection_azimuth", "injection_zenith"],
            data_representation=pulses,
        )
        make = make_model if request.param == "ours" else make_dynedge
        return make(pulses), Counted(dataset), path

    @pytest.mark.data
    def test_is_what_graphnet_predicts(
        self, pipeline: tuple[Any, Any, Path], tmp_path: Path
    ) -> None:
        model, dataset, path = pipeline
        found = predict_directions(model, make_loader(dataset), tmp_path / "r.parquet")
        assert dataset.reads == len(dataset) == 50, "one pass"
        assert found.statuses == {"ok": 50}
        assert found.name == type(model.backbone).__name__
        frame = model.predict_as_dataframe(
            make_loader(dataset),
            additional_attributes=["event_no", "n_pulses"],
            **QUIET,
        )
        assert dataset.reads == 50 + 2 * 50, "GraphNeT's way takes two"

        rows = found.columns()
        assert list(rows) == COLUMNS
        with sqlite3.connect(path) as connection:
            counts = connection.execute(
                "SELECT event_no, COUNT(*) FROM total GROUP BY event_no"
            ).fetchall()
        connection.close()
        assert rows["event_id"].tolist() == frame["event_no"].tolist()
        counted = dict(counts)
        expected = [counted[event] for event in rows["event_id"].tolist()]
        assert rows["n_pulses"].tolist() == expected == frame["n_pulses"].tolist()
        vector = frame[["dir_x_pred", "dir_y_pred", "dir_z_pred"]].to_numpy()
        ours = np.stack([rows[name] for name in VECTOR], axis=1)
        np.testing.assert_allclose(ours, vector, atol=2e-6)
        np.testing.assert_allclose(rows["kappa"], frame["direction_kappa"], rtol=1e-5)
        azimuth = np.arctan2(vector[:, 1], vector[:, 0]) % (2 * np.pi)
        np.testing.assert_allclose(rows["azimuth"], azimuth, atol=1e-4)
        np.testing.assert_allclose(rows["zenith"], np.arccos(vector[:, 2]), atol=1e-4)
        for name, level in (("radius_50", 0.5), ("radius_90", 0.9)):
            radius = radius_of(rows["kappa"], level)
            np.testing.assert_allclose(rows[name], radius, rtol=1e-4)

    @pytest.mark.data
    def test_graphnets_frame_is_a_table(self, pipeline: tuple[Any, Any, Path]) -> None:
        """Read as it is, and compared with the truth of the same file."""
        model, dataset, path = pipeline
        frame = model.predict_as_dataframe(
            make_loader(dataset), additional_attributes=["event_no"], **QUIET
        )
        table = EventTable.from_columns(frame, "GraphNeT")
        ours = predict_directions(model, make_loader(dataset), name="ours").table()
        assert table.event_id.tolist() == ours.event_id.tolist()
        np.testing.assert_allclose(table.direction_B3, ours.direction_B3, atol=2e-6)
        np.testing.assert_allclose(table.kappa_B, ours.kappa_B, rtol=1e-5)
        truth = EventTruth.load(path, table="mc_truth", angles="origin")
        with sqlite3.connect(path) as connection:
            angles = connection.execute(
                "SELECT event_no, injection_azimuth, injection_zenith FROM mc_truth"
            ).fetchall()
        connection.close()
        assert ours.name == "ours"
        for event, azimuth, zenith in angles[:5]:
            true = [
                np.sin(zenith) * np.cos(azimuth),
                np.sin(zenith) * np.sin(azimuth),
                np.cos(zenith),
            ]
            cosine = table.direction_B3[table.event_id == event][0] @ true
            angle = truth.angles(table)[truth.event_id == event][0]
            assert angle == pytest.approx(np.arccos(cosine), abs=1e-4)
        first, second = evaluate([table, ours], truth, resamples=20).summaries
        assert (first.events, first.failed) == (50, 0)
        assert first.mean.value == pytest.approx(truth.angles(table).mean(), abs=1e-9)
        assert second.difference.value == pytest.approx(0, abs=1e-4)

    @pytest.mark.data
    @pytest.mark.filterwarnings("ignore:.*outside the ice table:UserWarning")
    def test_icecube(self, shared_dir: Path) -> None:
        tests = shared_dir / "data" / "graphnet" / "data" / "tests" / "sqlite"
        (path,) = tests.glob("oscNext*/*.db")
        dataset = Counted(make_dataset(str(path), pulsemaps="SRTInIcePulses"))
        model = make_model()
        rows = predict_directions(model, make_loader(dataset)).columns()
        assert dataset.reads == 5
        frame = model.predict_as_dataframe(
            make_loader(dataset), additional_attributes=["event_no"], **QUIET
        )
        assert rows["event_id"].tolist() == frame["event_no"].tolist()
        np.testing.assert_allclose(rows["direction_z"], frame["dir_z_pred"], atol=2e-6)
        with sqlite3.connect(path) as connection:
            counts = connection.execute(
                "SELECT event_no, COUNT(*) FROM SRTInIcePulses GROUP BY event_no"
            ).fetchall()
        connection.close()
        found = zip(rows["event_id"].tolist(), rows["n_pulses"].tolist(), strict=True)
        assert sorted(found) == sorted(counts)


class TestOrder:
    def test_a_shuffling_loader_keeps_its_order_and_its_numbers(
        self, dataset: Counted
    ) -> None:
        model = make_model()
        straight = predict_directions(model, make_loader(dataset)).columns()
        assert straight["event_id"].tolist() == list(range(100, 110))
        assert straight["n_pulses"].tolist() == [1, 2, 3, 7, 40, 61, 90, 192, 193, 700]

        def shuffled() -> Any:
            generator = torch.Generator().manual_seed(3)
            return make_loader(dataset, shuffle=True, generator=generator)

        order = [int(event) for batch in shuffled() for event in batch.event_no]
        assert order != sorted(order)
        found = predict_directions(model, shuffled()).columns()
        assert found["event_id"].tolist() == order
        place = np.array(order) - 100
        for name in (*VECTOR, "kappa", "radius_90"):
            np.testing.assert_allclose(found[name], straight[name][place], atol=1e-5)
        assert found["n_pulses"].tolist() == straight["n_pulses"][place].tolist()
        assert np.ptp(straight["zenith"]) > 0.01, "events differ"

    def test_dropped_events_shift_nothing(self, dataset: Counted) -> None:
        """GraphNeT's collate function drops those of one pulse."""
        model = make_model()
        whole = predict_directions(model, make_loader(dataset)).table()
        loader = make_loader(dataset, collate_fn=collate_of_graphnet)
        with pytest.warns(UserWarning, match="gave 9 of the 10 events"):
            some = predict_directions(model, loader).table()
        assert some.event_id.tolist() == list(range(101, 110))
        expected = whole.of_events(some.event_id)
        np.testing.assert_allclose(some.direction_B3, expected.direction_B3, atol=1e-5)

    def test_batches_in_lists(self, dataset: Counted) -> None:
        """As GraphNeT's length buckets give them."""

        def in_two(events: list[Any]) -> list[Any]:
            last, rest = events[-1:], events[:-1]
            parts = (last, rest) if rest else (last,)
            return [icecube2nd.collate_events(part) for part in parts]

        model = make_model()
        whole = predict_directions(model, make_loader(dataset)).table()
        found = predict_directions(model, make_loader(dataset, collate_fn=in_two))
        table = found.table()
        order = [103, 100, 101, 102, 107, 104, 105, 106, 109, 108]
        assert table.event_id.tolist() == order
        expected = whole.of_events(table.event_id)
        np.testing.assert_allclose(table.direction_B3, expected.direction_B3, atol=1e-5)

    @pytest.mark.parametrize("way", ["module", "dataset", "some"])
    def test_events_of_a_store_without_pulses(
        self, database: str, way: str, tmp_path: Path
    ) -> None:
        """Those that a loader passes over have a row if it reads the whole store."""
        changed = tmp_path / "changed.db"
        shutil.copy(database, changed)
        with closing(sqlite3.connect(changed)) as connection, connection:
            connection.execute("UPDATE pulses SET charge = -1 WHERE event_no = 103")
            connection.execute("DELETE FROM pulses WHERE event_no = 105")
        store = tmp_path / "store"
        prepare(changed, store, mark_bad_events=True, workers=1)
        model = make_model()
        selection = [101, 102] if way == "some" else None
        loader: Any
        if way == "module":
            data = icecube2nd.StoreDataModule(store, batch_size=4)
            loader = data.predict_dataloader()
        else:
            loader = make_loader(
                icecube2nd.StoreDataset(
                    path=str(store), data_representation=PULSES, pulsemaps="any",
                    features=list(PULSES._detector.feature_map()), truth=["zenith"],
                    selection=selection,
                )
            )  # fmt: skip
        rows = icecube2nd.predict_events(model, loader).columns()
        found = dict(zip(rows["event_id"], rows["status"], strict=True))
        expected = dict.fromkeys(selection or range(100, 110), "ok")
        if selection is None:
            expected |= {103: "bad charge", 105: "no pulses"}
            assert rows["n_pulses"][rows["event_id"] == 103] == [7]
            assert rows["n_pulses"][rows["event_id"] == 105] == [0]
        assert found == expected
        assert (np.isfinite(rows["kappa"]) == (rows["status"] == "ok")).all()

    @pytest.mark.parametrize("window", [2, 8192])
    def test_an_event_that_comes_twice_is_named(
        self,
        dataset: Counted,
        window: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(results, "WINDOW", window)
        twice = torch.utils.data.Subset(dataset, [0, 1, 2, 5, 7, 3, 4, 8, 9, 5])
        with pytest.raises(ValueError, match="event 105 comes twice"):
            predict_directions(make_model(), make_loader(twice), tmp_path / "r.csv")
        assert list(tmp_path.glob("*r.csv*")) == [], "whole or not at all"

    def test_numbers_are_looked_up_among_all_that_came(self) -> None:
        numbers = np.random.default_rng(0).permutation(5000)
        seen: list[Any] = []
        for first in range(0, 5000, 70):
            results._note_new(seen, numbers[first : first + 70])
        assert sorted(np.concatenate(seen)) == list(range(5000))
        assert len(seen) < 13, "few arrays to look through"
        for number in (numbers[0], numbers[4999], 0, 4999):
            with pytest.raises(ValueError, match=f"event {number} comes twice"):
                results._note_new(seen, np.array([6000, number, 7000]))


class TestFiles:
    @pytest.mark.parametrize("suffix", ["parquet", "csv", "db"])
    def test_hold_the_rows(
        self,
        dataset: Counted,
        suffix: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        expected = predict_directions(make_model(), make_loader(dataset)).columns()
        monkeypatch.setattr(results, "WINDOW", 4)  # three parts
        path = tmp_path / f"r.{suffix}"
        found = predict_directions(make_model(), make_loader(dataset), path)
        assert (found.path, found.in_memory, found.num_events) == (path, None, 10)
        rows = found.columns()
        assert list(rows) == COLUMNS
        for name, values in expected.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(rows[name], values, rtol=1e-6)
            else:
                assert rows[name].tolist() == values.tolist()

    def test_format_may_be_named(self, dataset: Counted, tmp_path: Path) -> None:
        path = tmp_path / "answers.csv"
        predict_directions(
            make_model(), make_loader(dataset), path, format="submission"
        )
        header, *rows = path.read_text().splitlines()
        assert header.replace('"', "") == "event_id,azimuth,zenith"
        assert len(rows) == 10

    def test_rows_are_written_as_they_come(
        self, dataset: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read_when_written = []

        def write(path: Any, parts: Iterator[Any], *options: Any) -> None:
            for part in parts:
                read_when_written.append((len(part["event_id"]), dataset.reads))

        monkeypatch.setattr(results, "write_results", write)
        monkeypatch.setattr(results, "WINDOW", 4)
        steps = []
        predict_directions(
            make_model(),
            make_loader(dataset),
            tmp_path / "r.csv",
            on_progress=lambda events, pulses: steps.append((events, pulses)),
        )
        assert read_when_written == [(4, 4), (4, 8), (2, 10)]
        assert steps == [(4, 13), (4, 383), (2, 893)]

    def test_no_events_are_a_table_without_rows(self, tmp_path: Path) -> None:
        found = predict_directions(make_model(), [], tmp_path / "r.parquet")
        assert (found.num_events, found.statuses) == (0, {})
        assert [len(column) for column in found.columns().values()] == [0] * 12
        assert list(predict_directions(make_model(), []).columns()) == COLUMNS


class TestNumbers:
    def test_flight_turns_directions_round(self, dataset: Counted) -> None:
        model = make_model()
        origin = predict_directions(model, make_loader(dataset)).columns()
        flight = predict_directions(model, make_loader(dataset), angles="flight")
        turned = flight.columns()
        for name in VECTOR:
            np.testing.assert_allclose(turned[name], -origin[name], atol=1e-6)
        np.testing.assert_allclose(
            turned["zenith"], np.pi - origin["zenith"], atol=1e-5
        )
        half = (turned["azimuth"] - origin["azimuth"]) % (2 * np.pi)
        np.testing.assert_allclose(half, np.pi, atol=1e-5)
        np.testing.assert_allclose(turned["kappa"], origin["kappa"], rtol=1e-6)

    def test_calibration_reaches_kappa_and_radii(self, dataset: Counted) -> None:
        model = make_model()
        raw = predict_directions(model, make_loader(dataset)).columns()
        # A tenth of kappa; and to hold a share, contours of twice the depth are needed.
        calibration = KappaCalibration(
            method="temperature",
            log_kappa=(0.0,),
            log_calibrated=(-1.0,),
            levels=(0.0, 0.99),
            depths=((0.0, 2 * np.log(100)),),
            num_events=1000,
        )
        loader = make_loader(dataset)
        rows = predict_directions(model, loader, calibration=calibration).columns()
        np.testing.assert_allclose(rows["kappa"], raw["kappa"] / 10, rtol=1e-6)
        for name, level in (("radius_50", 0.5), ("radius_90", 0.9)):
            # Twice the depth leaves the square of the share outside.
            radius = radius_of(raw["kappa"] / 10, 1 - (1 - level) ** 2)
            np.testing.assert_allclose(rows[name], radius, rtol=1e-4)
        np.testing.assert_allclose(rows["zenith"], raw["zenith"], atol=1e-6)

    def test_what_is_no_number_says_so(self, dataset: Counted, tmp_path: Path) -> None:
        model = make_model()
        answers = torch.tensor(
            [
                [0.0, 0.0, 1.0, 5.0],
                [np.nan, 0.0, 1.0, 5.0],
                [0.6, 0.8, 0.0, np.nan],
                [0.0, 0.0, 0.0, np.inf],  # a vector that overflowed
                [0.0, 0.0, 0.0, 1e-7],
                [1.0, 0.0, 0.0, 0.0],
            ]
        )

        def answer(task: Any, inputs: Any, output: Any) -> Any:
            return answers[: len(output)]

        model._tasks[0].register_forward_hook(answer)
        first = torch.utils.data.Subset(dataset, range(6))
        loader = DataLoader(first, 6, collate_fn=icecube2nd.collate_events)
        found = predict_directions(model, loader, tmp_path / "r.db")
        assert found.statuses == {"ok": 2, "not finite": 3, "length 0": 1}
        rows = found.columns()
        assert rows["status"].tolist() == [
            *("ok", "not finite", "not finite", "not finite", "length 0", "ok")
        ]
        for name in (*VECTOR, "azimuth", "zenith", "kappa", "radius_50", "radius_90"):
            no_number = np.isnan(rows[name]).tolist()
            assert no_number == [False, True, True, True, True, False], name
        assert rows["zenith"][0] == pytest.approx(0.0)
        assert rows["radius_50"][5] == pytest.approx(np.pi / 2), (
            "kappa 0: any direction"
        )
        assert rows["n_pulses"].tolist() == [1, 2, 3, 7, 40, 61]
        with sqlite3.connect(tmp_path / "r.db") as connection:
            (nulls,) = connection.execute(
                "SELECT COUNT(*) FROM directions WHERE kappa IS NULL"
            ).fetchone()
        connection.close()
        assert nulls == 4

    def test_large_event_numbers_stay_whole(self, dataset: Counted) -> None:
        large = 2**60 + 1

        def collate(events: list[Any]) -> Any:
            batch = icecube2nd.collate_events(events)
            batch.event_no = batch.event_no.long() + large
            return batch

        loader = make_loader(dataset, collate_fn=collate)
        found = predict_directions(make_model(), loader).columns()
        assert found["event_id"].tolist() == [large + n for n in range(100, 110)]

    def test_tasks_undo_their_transformation(self, dataset: Counted) -> None:
        plain = predict_directions(make_model(), make_loader(dataset)).columns()
        triple = torch.tensor([1.0, 1.0, 1.0, 3.0])
        model = make_model(transform_inference=lambda answer: answer * triple)
        found = predict_directions(model, make_loader(dataset)).columns()
        np.testing.assert_allclose(found["kappa"], 3 * plain["kappa"], rtol=1e-5)


def inside_of(model: StandardModel, loader: Any) -> Any:
    domain = domain_of(model, loader, unknown_detector=False)
    parts = event_predictions(model, loader, domain=domain)
    return np.concatenate([part.inside for part in parts])


def on_a_running_clock() -> Any:
    pulses = replace(PULSES._detector.pulse_map, time_reference="first_pulse")
    return icecube2nd.PackedPulses(icecube2nd.PulseMapDetector(pulses.to_dict()))


class TestDomain:
    """The guard: is a model used on what it was trained on?"""

    def test_another_clock_is_an_error_that_names_both(self, database: str) -> None:
        loader = make_loader(
            make_dataset(database, data_representation=on_a_running_clock())
        )
        with pytest.raises(DomainError, match=r"'window'.*'first_pulse'"):
            predict_directions(make_model(), loader)

    def test_an_unknown_detector_can_be_asked_for(self, database: str) -> None:
        loader = make_loader(
            make_dataset(database, data_representation=on_a_running_clock())
        )
        calibration = KappaCalibration(
            method="temperature", log_kappa=(0.0,), log_calibrated=(-0.3,)
        )
        with pytest.warns(UserWarning, match="clock"):
            found = predict_directions(
                make_model(), loader, calibration=calibration, unknown_detector=True
            )
        assert found.num_events == 10
        columns = found.columns()
        assert not columns["calibrated"].any()
        with pytest.warns(UserWarning, match="clock"):
            plain = predict_directions(make_model(), loader, unknown_detector=True)
        # A calibration of other data is not applied.
        np.testing.assert_array_equal(columns["kappa"], plain.columns()["kappa"])

    def test_every_dataset_of_a_loader_is_looked_at(self, database: str) -> None:
        both = ConcatDataset(
            [
                make_dataset(database),
                make_dataset(database, data_representation=on_a_running_clock()),
            ]
        )
        with pytest.raises(DomainError, match="first_pulse"):
            predict_directions(make_model(), make_loader(both))

    def test_loaded_weights_say_what_they_were_trained_on(
        self, database: str, tmp_path: Path
    ) -> None:
        core = build_model("t_d32", dim=32, dim_base=8, depth=1, head_size=16)
        core.input_config = InputConfig(telescope="orca")
        save_model(core, tmp_path / "orca.safetensors")
        model = make_model()
        load_weights(model.backbone.model, tmp_path / "orca.safetensors", partial=True)
        loader = make_loader(make_dataset(database))
        with pytest.raises(DomainError, match="'orca'"):
            predict_directions(model, loader)
        # What is trained further here is of the data that it is trained on.
        model.train()
        model(next(iter(loader)))
        assert predict_directions(model, loader).num_events == 10

    def test_events_out_of_the_trained_ranges_are_not_calibrated(
        self, database: str
    ) -> None:
        model, loader = make_model(), make_loader(make_dataset(database))
        model.backbone.model.input_config = InputConfig.of(
            PULSES._reader.detector, ranges={"n_pulses": (1, 50)}
        )
        calibration = KappaCalibration(
            method="temperature", log_kappa=(0.0,), log_calibrated=(-0.3,)
        )
        with (
            pytest.warns(UserWarning, match="n_pulses: "),
            pytest.warns(UserWarning, match="not marked as calibrated"),
        ):
            found = predict_directions(model, loader, calibration=calibration)
        columns = found.columns()
        few_B = columns["n_pulses"] <= 50
        assert 0 < few_B.sum() < 10
        np.testing.assert_array_equal(columns["calibrated"], few_B)

    @pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (900.0, 0.0, 0.0)])
    def test_scaled_features_are_compared_in_physical_units(
        self, database: str, origin: tuple[float, float, float]
    ) -> None:
        pulse_map = replace(PULSES._detector.pulse_map, origin=origin).to_dict()
        pulses = icecube2nd.PackedPulses(icecube2nd.PulseMapDetector(pulse_map))
        dataset = make_dataset(database, data_representation=pulses)
        with sqlite3.connect(database) as connection:
            (low, high), (first, last), (dim, bright) = (
                connection.execute(f"SELECT min({c}), max({c}) FROM pulses").fetchone()
                for c in ("dom_x", "dom_time", "charge")
            )
        connection.close()
        edge = 1 + 1e-5
        ranges = {
            "x": (low - 0.01, high + 0.01),
            "time": (first - 0.1, last + 0.1),
            "charge": (dim / edge, bright * edge),
        }
        model = make_model()
        model.backbone.model.input_config = InputConfig.of(
            pulses._reader.detector, ranges=ranges
        )
        assert inside_of(model, make_loader(dataset)).all()
        shifted = {**ranges, "time": (first - 1e4, first - 1.0)}
        model.backbone.model.input_config = InputConfig.of(
            pulses._reader.detector, ranges=shifted
        )
        assert not inside_of(model, make_loader(dataset)).any()

    def test_a_store_of_another_detector(self, tmp_path: Path) -> None:
        simulate(tmp_path / "store", num_events=20, seed=1, workers=1)
        data = icecube2nd.StoreDataModule(tmp_path / "store", batch_size=4)
        model = make_model()
        model.backbone.model.input_config = replace(
            InputConfig.of(PULSES._reader.detector), telescope="orca"
        )
        with pytest.raises(DomainError, match="'orca'"):
            predict_directions(model, data.predict_dataloader())


def test_the_model_is_left_as_it_was(dataset: Counted) -> None:
    model = make_model().train()
    seen = []
    model._tasks[0].register_forward_hook(
        lambda task, inputs, output: seen.append((model.training, task._inference))
    )
    predict_directions(model, make_loader(dataset))
    with pytest.raises(ValueError, match="no 'event'"):
        predict_directions(model, make_loader(dataset), event_column="event")
    assert seen == [(False, True)] * 3
    assert all(module.training for module in model.modules())
    assert not model._tasks[0]._inference


def test_options_are_checked_before_any_work(dataset: Counted, tmp_path: Path) -> None:
    model, loader = make_model(), make_loader(dataset)
    with pytest.raises(TypeError, match="StandardModel of GraphNeT, got DeepIceBack"):
        predict_directions(model.backbone, loader)
    with pytest.raises(ValueError, match="origin, flight; got 'momentum'"):
        predict_directions(model, loader, angles="momentum")
    with pytest.raises(ValueError, match="calibrations by task, got str"):
        predict_directions(model, loader, calibration="own")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must end in \.parquet"):
        predict_directions(model, loader, tmp_path / "r.txt")
    with pytest.raises(ValueError, match="format must be one of"):
        predict_directions(model, loader, tmp_path / "r.csv", format="json")
    assert dataset.reads == 0


class TestStore:
    """From our stores, through both of our loaders."""

    @pytest.fixture
    def store(self, make_store: Callable[..., EventStore]) -> EventStore:
        return make_store({1: [3, 1, 17, 60, 33, 8], 2: [64, 190, 2, 30]})

    def test_batches_and_single_events_give_the_same(
        self, store: EventStore, tmp_path: Path
    ) -> None:
        pulses = icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector())
        model = make_model(pulses)
        data = icecube2nd.StoreDataModule(store, batch_size=3)
        batches = predict_directions(
            model, data.predict_dataloader(), tmp_path / "r.parquet"
        ).columns()
        single = icecube2nd.StoreDataset(
            path=str(store.path),
            pulsemaps="pulses",
            truth_table="truth",
            features=["x", "y", "z", "time", "charge", "auxiliary"],
            truth=["azimuth", "zenith"],
            data_representation=pulses,
        )
        ours = predict_directions(model, make_loader(single)).columns()
        expected = store.whole_event_column("event_id").tolist()
        lengths = store.whole_event_column("n_pulses").tolist()
        for rows in (batches, ours):
            assert rows["event_id"].tolist() == expected
            assert rows["n_pulses"].tolist() == lengths
        for name in (*VECTOR, "kappa", "radius_50"):
            np.testing.assert_allclose(batches[name], ours[name], rtol=1e-4, atol=1e-5)

    def test_another_name_of_the_event_key(self, store: EventStore) -> None:
        model = make_model(icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector()))
        data = icecube2nd.StoreDataModule(store, batch_size=3, index_column="event")
        loader = data.predict_dataloader
        found = predict_directions(model, loader(), event_column="event").columns()
        assert (
            found["event_id"].tolist() == store.whole_event_column("event_id").tolist()
        )
        with pytest.raises(ValueError, match=r"no 'event_no'; it has .*event, "):
            predict_directions(model, loader())

    def test_calibrated_on_some_events_and_used_on_all(
        self, simulated: EventStore
    ) -> None:
        pulses = icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector())
        model = make_model(pulses)
        loader = icecube2nd.StoreDataModule(simulated).predict_dataloader
        table = predict_directions(model, loader()).table()
        truth = EventTruth.of(simulated, np.arange(0, 256)[::-1][:210])
        check = calibrate_table(table, truth)
        calibration = check.file.calibration
        expected = calibrated_table(table, calibration)
        found = predict_directions(model, loader(), calibration=calibration).table()
        np.testing.assert_allclose(found.kappa_B, expected.kappa_B, rtol=1e-6)
        for name in ("radius_50", "radius_90"):
            np.testing.assert_allclose(found.radii[name], expected.radii[name])
        inside = (
            truth.angles(found) <= found.of_events(truth.event_id).radii["radius_50"]
        )
        assert inside.mean() == pytest.approx(0.5, abs=0.05)
        with pytest.raises(ValueError, match="100 events with a kappa, got"):
            calibrate_table(table.of_events(truth.event_id[:9]), truth)
