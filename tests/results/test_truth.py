"""Truth of stores, files and frames; tables of results back from their files."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from graphnet_icecube2nd import EventStore, EventTable
from graphnet_icecube2nd.results.result_files import read_columns
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.catalogue import are_results
from graphnet_icecube2nd.tasks.task import Column, Task

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
    some = {k: v for k, v in COLUMNS.items() if k != "event_no"}
    with pytest.raises(ValueError, match=r"t\.csv: expected .*event_no"):
        EventTruth.load(write(tmp_path / "t.csv", some))
    some = {k: v for k, v in COLUMNS.items() if k != "azimuth"}
    truth = EventTruth.load(write(tmp_path / "t.csv", some))
    assert not truth.has("direction")
    assert np.isnan(truth.direction_B3).all()
    assert "azimuth and zenith" in str(truth.lacking("direction"))
    with pytest.raises(ValueError, match="needs azimuth and zenith"):
        truth.with_directions()
    twice = {**COLUMNS, "event_no": np.array([4, 2, 4])}
    with pytest.raises(ValueError, match="each event once"):
        EventTruth.from_columns(twice, "t")
    with pytest.raises(ValueError, match=r"angles must be origin or flight, .*'Fli"):
        EventTruth.from_columns(COLUMNS, "t", "Flight")
    with pytest.raises(FileNotFoundError, match=r"there is no .*nothing"):
        EventTruth.load(tmp_path / "nothing")
    mine = {f"injection_{k}": COLUMNS[k] for k in ("azimuth", "zenith")}
    prometheus = {"event_no": COLUMNS["event_no"], **mine}
    with pytest.raises(ValueError, match=r"along the flight in others.*--truth-angles"):
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


class LogHits(Task):
    """A task of a column, as a plugin has it."""

    name = "log_hits"
    truth = ("num_hits",)
    num_outputs = 1
    columns = (Column("log_hits", "", "log10 of the hits"),)

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        return truth["num_hits"].log10()


MUON = {"pid": np.array([14, -14, 12, 14, 0]), "interaction_type": [1, 2, 1, 1, 1]}


def test_labels_of_tasks_from_tables() -> None:
    truth = EventTruth.from_columns(
        {
            "event_id": np.arange(5),
            "injection_energy": np.array([10.0, -1.0, np.nan, 1e3, 1.0]),
            "num_hits": np.array([1, 10, 100, 1000, 0]),
            **MUON,
        },
        "t",
    )
    np.testing.assert_array_equal(truth.label("track"), [1, 0, 0, 1, np.nan])
    np.testing.assert_array_equal(truth.target("track"), truth.label("track"))
    np.testing.assert_array_equal(truth.label("energy"), [10, np.nan, np.nan, 1e3, 1])
    np.testing.assert_allclose(truth.target("energy"), [1, np.nan, np.nan, 3, 0])
    assert truth.target(LogHits())[:4].tolist() == [0, 1, 2, 3]
    assert truth.has("track")
    assert truth.has(LogHits())
    assert not truth.has("direction")
    some = truth.of_events(np.array([3, 0]))
    assert some.target("energy").tolist() == [3.0, 1.0]
    assert some.target(LogHits()).tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match="'other'"):
        truth.label("other")
    text = EventTruth.from_columns({"event_id": [1], "num_hits": ["many"]}, "t")
    assert not text.has(LogHits())
    assert "num_hits" in str(text.lacking(LogHits()))


def test_labels_of_tasks_from_stores(simulated: EventStore) -> None:
    truth = EventTruth.of(simulated, [5, 3])
    energy = simulated.whole_event_column("energy")[[5, 3]]
    np.testing.assert_allclose(truth.target("energy"), np.log10(energy))
    topology = simulated.whole_event_column("topology")[[5, 3]]
    is_track = ["cascade" not in str(name) for name in topology]
    assert truth.target("track").tolist() == is_track
    np.testing.assert_array_equal(truth.target("direction"), truth.direction_B3)


def test_directions_are_those_of_the_convention_for_every_task() -> None:
    truth = EventTruth.from_columns(COLUMNS, "t", "flight")
    np.testing.assert_allclose(-truth.target("direction"), DIRECTIONS, atol=1e-12)
    np.testing.assert_array_equal(truth.label("direction"), truth.direction_B3)


def test_truth_that_cannot_be_a_label_is_none() -> None:
    fillers = {
        **COLUMNS,
        "zenith": np.array([-1.0, 3.5, 0.0]),
        "energy": np.array([-1.0, 0.0, 5.0]),
    }
    truth = EventTruth.from_columns(fillers, "t")
    assert np.isfinite(truth.direction_B3).all(axis=1).tolist() == [False, False, True]
    assert np.isfinite(truth.energy_B).tolist() == [False, False, True]
    assert truth.with_directions().event_id.tolist() == [9]
    table = EventTable.from_vectors("t", [9, 2, 4], [[0, 0, 1.0]] * 3)
    np.testing.assert_allclose(truth.angles(table), [np.nan, np.nan, 0], atol=1e-7)
    none = EventTruth.from_columns({**COLUMNS, "zenith": np.full(3, -1.0)}, "t")
    assert not none.has("direction")
    with pytest.raises(ValueError, match=r"none of 3 events .*zenith"):
        none.with_directions()


@pytest.mark.parametrize("column", ["azimuth", "zenith"])
def test_degrees_are_refused(column: str, tmp_path: Path) -> None:
    degrees = {**COLUMNS, column: np.array([1.0, 90.0, np.nan])}
    with pytest.raises(ValueError, match=rf"t\.csv, event 2: {column} .*rad.* 90"):
        EventTruth.load(write(tmp_path / "t.csv", degrees))
    with pytest.raises(ValueError, match=rf"t\.csv, event 2: {column} .*rad.* 90"):
        EventTable.load(tmp_path / "t.csv", "mine")
    with pytest.raises(ValueError, match=rf"'mine', event 2: {column} .*rad.* 90"):
        EventTable.from_columns(degrees, "mine")
    predicted = {"event_no": COLUMNS["event_no"]}
    for angle in ("azimuth", "zenith"):
        predicted[f"{angle}_pred"] = degrees[angle]
    with pytest.raises(ValueError, match=rf"event 2: {column}_pred .* 90"):
        EventTable.from_columns(predicted, "graphnet")
    text = {**COLUMNS, column: np.array(["a", "b", "c"])}
    with pytest.raises(ValueError, match=column):
        EventTruth.from_columns(text, "t")


def test_rounded_angles_are_labels(tmp_path: Path) -> None:
    """Files with few digits round pi up."""
    rounded = {**COLUMNS, "azimuth": [6.2832] * 3, "zenith": [3.142] * 3}
    truth = EventTruth.load(write(tmp_path / "t.csv", rounded))
    np.testing.assert_allclose(truth.direction_B3, [[0, 0, -1]] * 3, atol=1e-3)


def add_table(path: Path, name: str, columns: dict[str, Any]) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
        marks = ", ".join("?" for _ in columns)
        rows = list(zip(*columns.values(), strict=True))
        database.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
        database.commit()


def test_results_are_never_taken_for_truth(tmp_path: Path) -> None:
    path = write(tmp_path / "t.db", COLUMNS)
    angles = {"event_no": [4, 2, 9], "azimuth": [1.0] * 3, "zenith": [1.0] * 3}
    ok = ["ok"] * 3
    add_table(path, "directions", {**angles, "kappa": [1.0] * 3, "status": ok})
    add_table(path, "results", {**angles, "p_track": [0.5] * 3, "status": ok})
    add_table(path, "predictions", {**angles, "energy_pred": [1.0] * 3})
    truth = EventTruth.load(path)
    np.testing.assert_allclose(truth.direction_B3, DIRECTIONS, atol=1e-12)
    named = EventTruth.load(path, table="results")
    assert named.columns["zenith"].tolist() == [1.0] * 3
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE truth")
        database.commit()
    with pytest.raises(ValueError, match=r"found 0 .*directions.*results"):
        EventTruth.load(path)
    # A state of the truth, not of a reconstruction: no answer of a task beside it.
    energies = {"event_no": [4, 2, 9], "energy": [1.0, 2.0, 3.0], "status": [1, 1, 2]}
    add_table(path, "truth", energies)
    assert EventTruth.load(path).energy_B.tolist() == [1.0, 2.0, 3.0]
    add_table(path, "more", {"event_no": [4], "energy": [1.0]})
    with pytest.raises(ValueError, match=r"found 2 .*truth, more"):
        EventTruth.load(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_results_is_no_truth_unless_named(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"mine{suffix}"
    EventTable.from_vectors("m", COLUMNS["event_no"], DIRECTIONS).save(path)
    with pytest.raises(ValueError, match=rf"mine{suffix} .*--truth-table mine"):
        EventTruth.load(path)
    named = EventTruth.load(path, table="mine")
    np.testing.assert_allclose(named.direction_B3, DIRECTIONS, atol=1e-12)
    with pytest.raises(ValueError, match=r"one table, 'mine'; found 'other'"):
        EventTruth.load(path, table="other")


def test_truth_beside_predictions_is_no_answer(tmp_path: Path) -> None:
    """GraphNeT writes both; a file may be the truth and the results."""
    flat = np.full(3, np.pi / 2)
    marked = {"azimuth_pred": np.array([0.0, 0.0, 0.0]), "zenith_pred": flat}
    path = write(tmp_path / "t.csv", {**COLUMNS, **marked})
    table, truth = EventTable.load(path), EventTruth.load(path)
    np.testing.assert_allclose(truth.direction_B3, DIRECTIONS, atol=1e-12)
    np.testing.assert_allclose(table.direction_B3, [[1, 0, 0]] * 3, atol=1e-12)
    assert table.tasks == ["direction"]
    named = {"reco_azimuth": marked["azimuth_pred"], "reco_zenith": flat}
    other = EventTable.from_columns({**COLUMNS, **named}, "other")
    np.testing.assert_allclose(other.direction_B3, table.direction_B3)
    energies = {**COLUMNS, "energy_pred": np.ones(3)}
    assert EventTable.from_columns(energies, "energies").tasks == ["energy"]


def test_the_table_of_results_of_a_sqlite_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.db", COLUMNS)
    predicted = {"event_no": [4, 2, 9], "energy_pred": [1.0, 2.0, 3.0]}
    add_table(path, "mine", predicted)
    assert EventTable.load(path).columns["energy"].tolist() == [1.0, 2.0, 3.0]
    add_table(path, "yours", predicted)
    with pytest.raises(ValueError, match=r"t\.db: .*found 2 among .*mine, yours"):
        EventTable.load(path)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["event_no", "my_plugin", "calibrated", "status"], True),
        (["event_no", "azimuth", "zenith", "direction_x", "status"], True),
        (["event_no", "azimuth", "zenith", "kappa"], True),
        (["event_no", "energy", "energy_log10_sigma", "status"], True),
        (["event_no", "azimuth", "zenith", "zenith_pred"], True),
        (["event_no", "azimuth_RECO", "zenith_RECO"], True),
        (["event_no", "reco_azimuth", "reco_zenith"], True),
        (["event_no", "azimuth", "zenith", "energy", "topology"], False),
        (["event_no", "azimuth", "zenith", "track", "status"], False),
        (["event_no", "azimuth", "zenith", "predicted", "record"], False),
        (["event_id", "batch_id", "first_pulse_index", "azimuth", "zenith"], False),
    ],
)
def test_columns_of_results(columns: list[str], expected: bool) -> None:
    assert are_results(columns) is expected


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
    with pytest.raises(ValueError, match=r"must end in .*found '\.txt'"):
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
    with pytest.raises(ValueError, match=r"two\.db: .*found 2 "):
        read_columns(path)
    assert EventTruth.load(path).event_id.tolist() == [4, 2, 9]  # it has azimuth
    assert read_columns(path, "truth")["event_no"].tolist() == [4, 2, 9]
    with pytest.raises(ValueError, match="expected the table nothing"):
        read_columns(path, "nothing")
