"""Truth of stores, files and frames; tables of results back from their files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from graphnet_icecube2nd import EventStore, EventTable
from graphnet_icecube2nd.results.table_io import read_columns
from graphnet_icecube2nd.results.truth import EventTruth

COLUMNS = {
    "event_no": np.array([4, 2, 9]),
    "azimuth": np.array([0.0, np.pi / 2, 0.0]),
    "zenith": np.array([np.pi / 2, np.pi / 2, 0.0]),
    "energy": np.array([1e3, 2e4, np.nan]),
    "topology": np.array(["cascade", "track", "track"]),
    "n_pulses": np.array([10, 20, 30]),
}
DIRECTIONS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with closing(sqlite3.connect(path)) as database:
            names = ", ".join(columns)
            database.execute(f"CREATE TABLE truth ({names})")
            rows = [
                tuple(None if v != v else v for v in row)
                for row in zip(*(v.tolist() for v in columns.values()), strict=True)
            ]
            marks = ", ".join("?" for _ in columns)
            database.executemany(f"INSERT INTO truth VALUES ({marks})", rows)
            database.execute("CREATE TABLE pulses (time)")
            database.commit()
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".db"])
def test_truth_of_files(tmp_path: Path, suffix: str) -> None:
    truth = EventTruth.load(write(tmp_path / f"t{suffix}", COLUMNS))
    assert truth.event_id.tolist() == [4, 2, 9]
    np.testing.assert_allclose(truth.direction_B3, DIRECTIONS, atol=1e-12)
    np.testing.assert_allclose(truth.energy_B, COLUMNS["energy"])
    assert truth.topology_B.tolist() == ["cascade", "track", "track"]
    assert truth.n_pulses_B.tolist() == [10, 20, 30]
    turned = EventTruth.load(tmp_path / f"t{suffix}", angles="flight")
    np.testing.assert_allclose(turned.direction_B3, -truth.direction_B3)
    some = truth.of_events(np.array([9, 4]))
    assert some.topology_B.tolist() == ["track", "cascade"]
    assert some.n_pulses_B.tolist() == [30, 10]
    with pytest.raises(ValueError, match=r"no event 5 \(1 of 2 are missing\)"):
        truth.of_events(np.array([4, 5]))


def test_truth_of_a_store(simulated: EventStore) -> None:
    truth = EventTruth.load(simulated.path)
    assert len(truth.event_id) == 256
    assert truth.n_pulses_B.tolist() == (
        simulated.whole_event_column("n_pulses").tolist()
    )
    assert set(truth.topology_B) > {"cascade"}


def test_angles_of_what_has_no_direction() -> None:
    truth = EventTruth.from_columns(COLUMNS, "t")
    table = EventTable.of_directions(
        name="mine",
        event_id=np.array([2, 4, 9]),
        direction_B3=np.array([[0.0, 1.0, 0.0], [np.nan] * 3, [0.0, 1.0, 0.0]]),
        kappa_B=np.ones(3),
        status_B=np.array(["ok", "no pulses", "ok"]),
    )
    np.testing.assert_allclose(
        truth.angles(table), [np.pi / 2, 0.0, np.pi / 2], atol=1e-7
    )


def test_what_lacks(tmp_path: Path) -> None:
    for lack in ("azimuth", "event_no"):
        some = {k: v for k, v in COLUMNS.items() if k != lack}
        with pytest.raises(ValueError, match=rf"t\.csv has no .*{lack}"):
            EventTruth.load(write(tmp_path / "t.csv", some))
    twice = {**COLUMNS, "event_no": np.array([4, 2, 4])}
    with pytest.raises(ValueError, match="has an event twice"):
        EventTruth.from_columns(twice, "t")
    with pytest.raises(ValueError, match="angles must be origin or flight, got 'Fli"):
        EventTruth.from_columns(COLUMNS, "t", "Flight")
    with pytest.raises(FileNotFoundError, match=r"there is no .*nothing"):
        EventTruth.load(tmp_path / "nothing")
    mine = {f"injection_{k}": COLUMNS[k] for k in ("azimuth", "zenith")}
    prometheus = {"event_no": COLUMNS["event_no"], **mine}
    with pytest.raises(ValueError, match="along the flight in others: say which"):
        EventTruth.from_columns(prometheus, "t")
    turned = EventTruth.from_columns(prometheus, "t", "flight")
    np.testing.assert_allclose(-turned.direction_B3, DIRECTIONS, atol=1e-12)
    nan = {**COLUMNS, "zenith": np.array([1.0, np.nan, 1.0])}
    with pytest.raises(ValueError, match=r"event 2 has no true direction \(1 of 3"):
        EventTruth.from_columns(nan, "t").check_finite()
    bare = {k: COLUMNS[k] for k in ("event_no", "azimuth", "zenith")}
    truth = EventTruth.from_columns(bare, "t")
    assert not truth.knows_pulses
    assert set(truth.topology_B) == {"all"}


def test_graphnets_predictions_as_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "dir_x_pred": [1.0, 0.0],
            "dir_y_pred": [0.0, 0.0],
            "dir_z_pred": [0.0, -1.0],
            "direction_kappa": [10.0, 3.0],
            "event_no": [7.0, 3.0],
        }
    )
    table = EventTable.from_columns(frame, "graphnet")
    assert table.event_id.tolist() == [7, 3]
    np.testing.assert_allclose(table.direction_B3, [[1, 0, 0], [0, 0, -1]])
    assert table.kappa_B.tolist() == [10.0, 3.0]
    turned = EventTable.from_columns(frame, "graphnet", "flight")
    np.testing.assert_allclose(turned.direction_B3, -table.direction_B3)
    angles = pandas.DataFrame(
        {"event_no": [1], "azimuth_pred": [0.0], "zenith_pred": [0.0]}
    )
    np.testing.assert_allclose(
        EventTable.from_columns(angles, "g").direction_B3, [[0, 0, 1]], atol=1e-12
    )
    with pytest.raises(ValueError, match="angles must be origin or flight"):
        EventTable.from_columns(frame, "graphnet", "back")


def test_numbers_of_pulses_with_gaps_are_not_known() -> None:
    columns = {**COLUMNS, "n_pulses": np.arange(len(COLUMNS["azimuth"]))}
    assert EventTruth.from_columns(columns, "t").knows_pulses
    columns["n_pulses"] = np.where(columns["n_pulses"] == 1, np.nan, 5.0)
    assert not EventTruth.from_columns(columns, "t").knows_pulses


def test_radii_travel_with_the_table(tmp_path: Path) -> None:
    table = EventTable.of_directions(
        name="mine",
        event_id=np.array([2, 4]),
        direction_B3=np.array(DIRECTIONS[:2]),
        kappa_B=np.ones(2),
        status_B=np.array(["ok", "ok"]),
        radii={"radius_50": np.array([0.1, 0.2])},
    )
    table.save(tmp_path / "t.parquet")
    back = EventTable.load(tmp_path / "t.parquet")
    assert back.of_events(np.array([4])).radii["radius_50"].tolist() == [0.2]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*t\.csv"):
        read_columns(tmp_path / "t.csv")
    (tmp_path / "t.txt").write_text("event_id\n1\n")
    with pytest.raises(ValueError, match=r"tables end in .*got '\.txt'"):
        read_columns(tmp_path / "t.txt")
    assert read_columns(tmp_path / "t.txt", format="csv")["event_id"].tolist() == [1]
    for suffix in ("parquet", "db"):
        path = tmp_path / f"t.{suffix}"
        path.write_text("nothing of that kind, and long enough to be read as a file")
        with pytest.raises(ValueError, match=rf"t\.{suffix}"):
            read_columns(path)
    path = write(tmp_path / "two.db", COLUMNS)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (event_no)")
        database.commit()
    with pytest.raises(ValueError, match=r"2 tables that it could be; say which"):
        read_columns(path)
    assert EventTruth.load(path).event_id.tolist() == [4, 2, 9]  # it has azimuth
    assert read_columns(path, "truth")["event_no"].tolist() == [4, 2, 9]
    with pytest.raises(ValueError, match="no such table"):
        read_columns(path, "nothing")
