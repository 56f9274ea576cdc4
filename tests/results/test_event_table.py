"""Tables of directions: what goes in, what comes out, what is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventTable

VECTORS = np.array([[0.0, 0.0, 5.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])


def table() -> EventTable:
    return EventTable.from_vectors("model", [10, 30, 20], VECTORS)


def test_of_predictions() -> None:
    made = table()
    assert len(made) == 3
    assert made.status_B.tolist() == ["ok", "ok", "length 0"]
    np.testing.assert_allclose(made.direction_B3[:2], [[0, 0, 1], [0.6, 0.8, 0]])
    assert np.isnan(made.direction_B3[2]).all()
    np.testing.assert_allclose(made.kappa_B[:2], [5.0, 5.0])
    graphnet = np.array([[0.0, 1.0, 0.0, 42.0]])
    assert EventTable.from_vectors("g", [1], graphnet).kappa_B[0] == 42.0
    tensor = torch.tensor([[0.0, 2.0, 0.0]])
    assert EventTable.from_vectors("t", [1], tensor).kappa_B[0] == 2.0
    with pytest.raises(ValueError, match=r"shape \(B, 3\) or \(B, 4\)"):
        EventTable.from_vectors("x", [1], np.zeros((1, 2)))


def test_columns_have_angles() -> None:
    columns = table().to_columns()
    np.testing.assert_allclose(columns["zenith"][:2], [0.0, np.pi / 2])
    np.testing.assert_allclose(columns["azimuth"][1], np.arctan2(4, 3))
    assert np.isnan(columns["zenith"][2])


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_written_and_read(name: str, tmp_path: Path) -> None:
    table().save(tmp_path / name)
    back = EventTable.load(tmp_path / name, "model")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(back.event_id, [10, 30, 20])
    np.testing.assert_allclose(back.direction_B3[:2], table().direction_B3[:2])
    assert back.status_B.tolist() == ["ok", "ok", "length 0"]
    np.testing.assert_allclose(back.kappa_B, table().kappa_B)


def test_angles_alone_do(tmp_path: Path) -> None:
    path = tmp_path / "angles.csv"
    path.write_text("event_no,azimuth,zenith\n4,0.0,1.5707963267948966\n")
    back = EventTable.load(path)
    assert back.name == "angles.csv"
    np.testing.assert_allclose(back.direction_B3, [[1.0, 0.0, 0.0]], atol=1e-12)
    assert np.isnan(back.kappa_B).all()
    path.write_text("event_no,azimuth\n4,0.0\n")
    with pytest.raises(
        ValueError, match=r"angles\.csv: expected directions.*found event_no"
    ):
        EventTable.load(path)


def test_rows_of_events() -> None:
    some = table().of_events(np.array([30, 10]))
    np.testing.assert_array_equal(some.event_id, [30, 10])
    np.testing.assert_allclose(some.direction_B3[1], [0, 0, 1])
    with pytest.raises(ValueError, match=r"has no event 31 \(1 of 2 are missing\)"):
        table().of_events(np.array([30, 31]))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="event 10 twice"):
        EventTable.from_vectors("x", [10, 10], VECTORS[:2])
    with pytest.raises(ValueError, match=r"kappa must have shape \(2,\)"):
        EventTable.from_vectors("x", [1, 2], VECTORS[:2], kappa=[1.0])
    with pytest.raises(ValueError, match=r"direction of event 2 .*length 1, found 5"):
        EventTable.of_directions(
            name="x",
            event_id=np.array([1, 2]),
            direction_B3=np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 5.0]]),
            kappa_B=np.ones(2),
            status_B=np.array(["ok", "ok"]),
        )


@pytest.fixture
def one_fails() -> EventTable:
    """Three events with energies; of the second only the direction failed."""
    columns = {
        **dict(
            zip(("direction_x", "direction_y", "direction_z"), np.eye(3), strict=True)
        ),
        "kappa": np.array([4.0, np.nan, 9.0]),
        "azimuth": np.array([0.0, np.nan, 0.0]),
        "zenith": np.array([np.pi / 2, np.nan, 0.0]),
        "energy": np.array([10.0, 20.0, 30.0]),
        "direction_is_valid": np.array([True, False, True]),
        "energy_is_valid": np.ones(3, bool),
        "calibrated": np.array([True, True, False]),
    }
    for axis in "xyz":
        columns[f"direction_{axis}"][1] = np.nan
    return EventTable(
        name="t",
        event_id=np.arange(3),
        status_B=np.array(["ok"] * 3),
        columns=columns,
        n_pulses_B=np.array([5, 6, 7]),
    )


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.db"])
def test_an_event_keeps_its_energy_where_the_direction_failed(
    one_fails: EventTable, name: str, tmp_path: Path
) -> None:
    one_fails.save(tmp_path / name)
    back = EventTable.load(tmp_path / name)
    assert back.status_B.tolist() == ["ok", "ok", "ok"]
    assert back.is_ok.tolist() == [True, False, True]
    assert np.isnan(back.direction_B3[1]).all()
    assert np.isnan(back.columns["azimuth"][1])
    assert back.columns["energy"].tolist() == [10.0, 20.0, 30.0]
    assert back.has_answer("energy").all()
    assert back.columns["calibrated"].tolist() == [True, True, False]
    for axis in "xyz":
        np.testing.assert_array_equal(
            back.columns[f"direction_{axis}"], one_fails.columns[f"direction_{axis}"]
        )


def test_a_submission_has_the_horizon_where_the_direction_failed(
    one_fails: EventTable, tmp_path: Path
) -> None:
    path = tmp_path / "submission.csv"
    one_fails.save(path)
    rows = np.genfromtxt(path, delimiter=",", names=True)
    assert rows["azimuth"].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(rows["zenith"], [np.pi / 2, np.pi / 2, 0.0])


@pytest.mark.parametrize(
    "values",
    [
        [1.0, np.nan, 0.0],
        np.array([True, None, False], object),
        np.array([1, np.nan, 0], object),
        ["True", "", "False"],
        ["true", "nan", "false"],
    ],
)
def test_what_is_missing_is_not_true(one_fails: EventTable, values: Any) -> None:
    columns = {
        **one_fails.to_columns(),
        "calibrated": values,
        "energy_is_valid": values,
    }
    back = EventTable.from_columns(columns, "t")
    assert back.columns["calibrated"].tolist() == [True, False, False]
    assert back.columns["energy_is_valid"].tolist() == [True, False, False]


def test_a_database_whose_writer_was_killed(tmp_path: Path) -> None:
    """What the killed one left is taken back; the file's own tables stay."""
    pytest.importorskip("sqlite_utils")
    path = tmp_path / "events.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE pulses (event_no INTEGER, charge REAL)")
        database.execute("CREATE VIEW broken AS SELECT * FROM gone")
        database.commit()
    # A small cache, so that pages of a transaction reach the file before its end.
    script = (
        "import os, signal, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('PRAGMA cache_spill = 1')\n"
        "rows = [(i, 'x' * 1000) for i in range(5000)]\n"
        "database.execute('CREATE TABLE directions (event_no, text)')\n"
        "database.executemany('INSERT INTO directions VALUES (?, ?)', rows)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode < 0
    assert path.with_name("events.db-journal").exists()
    vectors = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    table = EventTable.from_vectors("mine", np.arange(4), vectors)
    table.save(path)
    with closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM directions").fetchone()
        assert count == 4
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert {"pulses", "broken", "directions"} <= names
