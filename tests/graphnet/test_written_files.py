"""GraphNeT reads what we wrote as it reads what we read."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)
pytest.importorskip("pyarrow")
pytest.importorskip("sqlite_utils")

from graphnet.data.dataset.parquet.parquet_dataset import ParquetDataset
from graphnet.data.dataset.sqlite.sqlite_dataset import SQLiteDataset
from graphnet.models.data_representation import KNNGraph
from graphnet.models.detector.icecube import IceCube86, IceCubeKaggle, IceCubeUpgrade
from graphnet.models.detector.prometheus import Prometheus

from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.readers.parquet import graphnet_parquet_source
from graphnet_icecube2nd.store.readers.sqlite import sqlite_source
from graphnet_icecube2nd.store.writers import (
    write_graphnet_parquet,
    write_graphnet_sqlite,
)

pytestmark = pytest.mark.graphnet

ICECUBE86 = ["dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde"]
PROMETHEUS = ["sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"]


def dataset(
    path: Path | str,
    detector: Any,
    features: list[str],
    truth: list[str],
    *,
    pulses: str = "pulses",
    truth_table: str = "truth",
) -> Any:
    """GraphNeT's dataset of a file or folder; read without worker processes."""
    kind = SQLiteDataset if str(path).endswith(".db") else ParquetDataset
    return kind(
        path=str(path),
        pulsemaps=pulses,
        features=list(features),
        truth=list(truth),
        truth_table=truth_table,
        data_representation=KNNGraph(
            detector=detector, input_feature_names=list(features)
        ),
    )


def by_event(data: Any, truth: list[str]) -> dict[int, tuple[Any, dict[str, float]]]:
    """Node features and truth of each event, nodes in an order of their own.

    ParquetDataset sorts without keeping the order of equal rows.
    """
    found = {}
    for graph in (data[index] for index in range(len(data))):
        rows = graph.x.numpy()
        rows = rows[np.lexsort(rows.T)]
        values = {name: float(graph[name]) for name in truth}
        found[int(graph["event_no"])] = (rows, values)
    return found


def assert_same(ours: Any, theirs: Any, truth: list[str], **tolerance: Any) -> None:
    found, expected = by_event(ours, truth), by_event(theirs, truth)
    assert found.keys() == expected.keys()
    for event, (rows, values) in expected.items():
        np.testing.assert_allclose(found[event][0], rows, **tolerance)
        assert found[event][1] == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("source_kind", ["sqlite", "parquet"])
def test_both_forms(
    database: str, parquet_folder: str, tmp_path: Path, source_kind: str
) -> None:
    if source_kind == "sqlite":
        source = sqlite_source(database)
    else:
        source = graphnet_parquet_source(parquet_folder)
    convert(source, tmp_path / "store", workers=1, shard_pulses=200)
    write_graphnet_sqlite(tmp_path / "store", tmp_path / "events.db")
    write_graphnet_parquet(tmp_path / "store", tmp_path / "events")
    truth = ["azimuth", "zenith", "weight"]
    original = dataset(
        database if source_kind == "sqlite" else parquet_folder,
        IceCube86(),
        ICECUBE86,
        truth,
    )
    for path in (tmp_path / "events.db", tmp_path / "events"):
        written = dataset(path, IceCube86(), ICECUBE86, truth)
        assert len(written) == len(original) == 10
        assert_same(written, original, truth, rtol=1e-6)


def test_events_without_pulses_are_not_in_graphnets_way(tmp_path: Path) -> None:
    """With them SQLiteDataset would fail, and ParquetDataset take the wrong pulses."""
    path = tmp_path / "given.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE pulses ({', '.join(ICECUBE86)}, event_no)")
        connection.execute(
            "CREATE TABLE truth (event_no INTEGER PRIMARY KEY, azimuth, zenith)"
        )
        for event in range(8):
            connection.execute("INSERT INTO truth VALUES (?, ?, 1)", [event, event / 2])
            rows = [
                (event, 0.0, 0.0, 1e4 + row, 1.0, 1, 1.0, event)
                for row in range(3 * (event % 3))
            ]
            places = ", ".join("?" * 8)
            connection.executemany(f"INSERT INTO pulses VALUES ({places})", rows)
    connection.close()
    convert(sqlite_source(path), tmp_path / "store", workers=1)
    for out, write in (
        ("events.db", write_graphnet_sqlite),
        ("events", write_graphnet_parquet),
    ):
        report = write(tmp_path / "store", tmp_path / out)
        assert (report.events, report.left_out) == (5, 3)
        data = dataset(tmp_path / out, IceCube86(), ICECUBE86, ["azimuth"])
        found = by_event(data, ["azimuth"])
        assert list(found) == [1, 2, 4, 5, 7]
        for event, (rows, truth) in found.items():
            assert len(rows) == 3 * (event % 3)
            assert truth["azimuth"] == event / 2
            assert rows[:, 0] == pytest.approx(event / 500)


def test_places_are_there_for_the_competitions_data(
    make_store: Any, tmp_path: Path
) -> None:
    store = make_store({1: (3, 8, 5)})
    write_graphnet_sqlite(store.path, tmp_path / "events.db")
    write_graphnet_parquet(store.path, tmp_path / "events")
    features = ["x", "y", "z", "time", "charge", "auxiliary"]
    position = DetectorGeometry.icecube86().position_S3
    sensor_id = torch.from_numpy(store.shards[0].pulses.column("sensor_id"))
    expected = position[sensor_id.long()][:3] / 500
    for path in (tmp_path / "events.db", tmp_path / "events"):
        data = dataset(path, IceCubeKaggle(), features, ["azimuth", "zenith"])
        assert [len(data[index].x) for index in range(3)] == [3, 8, 5]
        found = data[0].x[:, :3].double()
        assert sorted(found.tolist()) == [
            pytest.approx(row, abs=1e-6) for row in sorted(expected.tolist())
        ]


@pytest.mark.data
@pytest.mark.parametrize("name", ["oscNext", "upgrade", "prometheus", "parquet"])
def test_real_files(shared_dir: Path, tmp_path: Path, name: str) -> None:
    folder = shared_dir / "data" / "graphnet" / "data"
    truth = ["azimuth", "zenith", "energy", "interaction_type"]
    upgrade = [*ICECUBE86, "pmt_dir_x", "pmt_dir_y", "pmt_dir_z", "pmt_area", "string"]
    upgrade += ["pmt_number", "dom_number", "dom_type"]
    detector, features, pulses, truth_table = {
        "oscNext": (IceCube86(), [*ICECUBE86, "pmt_area"], "SRTInIcePulses", "truth"),
        "upgrade": (IceCubeUpgrade(), upgrade, "SplitInIcePulses", "truth"),
    }.get(name, (Prometheus(), PROMETHEUS, "total", "mc_truth"))
    tolerance: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7}
    pulse_map = None
    if truth_table == "mc_truth":
        truth = ["injection_zenith", "injection_azimuth", "total_energy", "dummy_pid"]
        pulse_map = PulseMap.prometheus(angles="origin")
    if name == "parquet":
        path = folder / "examples" / "parquet" / "prometheus" / "merged"
        source = graphnet_parquet_source(path, pulse_map=pulse_map, keep="all")
    else:
        (path,) = [file for file in folder.rglob("*.db") if name in file.name]
        source = sqlite_source(path, pulse_map=pulse_map, keep="all")
    convert(source, tmp_path / "store", workers=1, shard_pulses=100)
    original = dataset(
        path, detector, features, truth, pulses=pulses, truth_table=truth_table
    )
    for out, write in (
        (tmp_path / "events.db", write_graphnet_sqlite),
        (tmp_path / "events", write_graphnet_parquet),
    ):
        write(tmp_path / "store", out, pulses_table=pulses, truth_table=truth_table)
        written = dataset(
            out, detector, features, truth, pulses=pulses, truth_table=truth_table
        )
        assert_same(written, original, truth, **tolerance)
