"""Databases written for the tests, and GraphNeT kept from littering."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LENGTHS = (1, 2, 3, 7, 40, 61, 90, 192, 193, 700)  # one pulse; longer than the cut


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GraphNeT's logger writes to ./logs, Lightning to ./lightning_logs.
    monkeypatch.chdir(tmp_path)


def make_event(num_pulses: int, seed: int) -> dict[str, Any]:
    """One event with the columns of IceCube-86 frames."""
    rng = np.random.default_rng(seed)
    return {
        "dom_x": rng.uniform(-500, 500, num_pulses),
        "dom_y": rng.uniform(-500, 500, num_pulses),
        "dom_z": rng.uniform(-500, 500, num_pulses),
        "dom_time": np.sort(rng.uniform(9e3, 2e4, num_pulses)),
        "charge": rng.gamma(2.0, 0.6, num_pulses) + 0.05,
        "hlc": (rng.random(num_pulses) < 0.4).astype(float),
        "rde": rng.choice([1.0, 1.35], num_pulses),
    }


@pytest.fixture(scope="session")
def tables() -> tuple[Any, Any]:
    """Pulse and truth tables of ten events, 1 to 700 pulses."""
    pandas = pytest.importorskip("pandas")
    pulses = []
    for index, length in enumerate(LENGTHS):
        event = pandas.DataFrame(make_event(length, seed=index))
        event["event_no"] = 100 + index
        pulses.append(event)
    rng = np.random.default_rng(0)
    truth = pandas.DataFrame(
        {
            "event_no": 100 + np.arange(len(LENGTHS)),
            "azimuth": rng.uniform(0, 2 * np.pi, len(LENGTHS)),
            "zenith": np.arccos(rng.uniform(-1, 1, len(LENGTHS))),
            "weight": rng.uniform(0.1, 2.0, len(LENGTHS)),
        }
    )
    return pandas.concat(pulses, ignore_index=True), truth


@pytest.fixture(scope="session")
def database(tables: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tables as a GraphNeT SQLite file."""
    path = tmp_path_factory.mktemp("database") / "events.db"
    with sqlite3.connect(path) as connection:
        for name, table in zip(("pulses", "truth"), tables, strict=True):
            table.to_sql(name, connection, index=False)
    connection.close()
    return str(path)


@pytest.fixture(scope="session")
def parquet_folder(
    tables: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The tables as GraphNeT parquet: a folder a table, a file per two events."""
    folder = tmp_path_factory.mktemp("parquet")
    for name, table in zip(("pulses", "truth"), tables, strict=True):
        (folder / name).mkdir()
        for chunk in range(len(LENGTHS) // 2):
            events = [100 + 2 * chunk, 101 + 2 * chunk]
            part = table[table["event_no"].isin(events)].set_index("event_no")
            part.to_parquet(folder / name / f"{name}_{chunk}.parquet")
    return str(folder)
