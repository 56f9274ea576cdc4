"""From a store to a file of directions: once, in order, after any kill."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow.csv
import pyarrow.parquet

from graphnet_icecube2nd import EventStore, EventTable, save_model
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference import reconstruction as room
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import as_bundle
from graphnet_icecube2nd.inference.predictor import (
    ResultMaker,
    predict_events,
)
from graphnet_icecube2nd.inference.reconstruction import reconstruct
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    fit_calibration,
    kappa_to_radius,
)

COLUMNS = [
    *("event_id", "direction_x", "direction_y", "direction_z", "azimuth", "zenith"),
    *("kappa", "radius_50", "radius_90", "calibrated", "n_pulses", "status"),
]


@contextmanager
def interrupted_at(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt whatever is inside when it comes to write a file of this name."""
    write = room.write_results

    def write_others(path: Any, *further: Any) -> None:
        if Path(path).name == name:
            raise KeyboardInterrupt
        write(path, *further)

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_results", write_others)
        with pytest.raises(KeyboardInterrupt):
            yield


def columns_of(path: Path) -> dict[str, Any]:
    return pyarrow.parquet.read_table(path).to_pydict()


def test_columns_and_values(model: Any, simulated: EventStore, tmp_path: Path) -> None:
    report = reconstruct(simulated, model, tmp_path / "new" / "r.parquet")
    assert report.num_events == 256
    assert report.statuses == {"ok": 256}
    assert report.num_resumed == 0
    found = columns_of(report.path)
    assert list(found) == COLUMNS
    expected = predict_events(model, simulated)
    for name, values in expected.to_columns().items():
        if name == "status":
            assert found[name] == values.tolist()
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    for name, level in (("radius_50", 0.5), ("radius_90", 0.9)):
        radius = kappa_to_radius(np.array(found["kappa"]), level)
        np.testing.assert_allclose(found[name], radius, rtol=1e-9)
    assert found["n_pulses"] == simulated.whole_event_column("n_pulses").tolist()
    assert [p.name for p in report.path.parent.iterdir()] == ["r.parquet"]
    assert len(EventTable.load(report.path)) == 256


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    batch_size=st.integers(1, 13),
    window=st.integers(1, 17),
)
def test_every_event_once_and_in_order(
    model: Any,
    make_kaggle_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
    batch_size: int,
    window: int,
) -> None:
    from graphnet_icecube2nd import prepare

    folder = tmp_path_factory.mktemp("case")
    if not any(lengths):
        lengths = [*lengths, 3]
    make_kaggle_folder(folder / "files", {1: lengths, 2: lengths[::-1]})
    prepare(folder / "files", folder / "store", workers=1)
    store = EventStore(folder / "store")
    monkeypatch.setattr(room, "WINDOW", window)
    options = InferenceConfig(batch_size=batch_size, max_pulses=16)
    report = reconstruct(store, model, folder / "r.parquet", options=options)
    found = columns_of(report.path)
    assert found["event_id"] == store.whole_event_column("event_id").tolist()
    empty = store.whole_event_column("n_pulses") == 0
    assert (np.array(found["status"]) == "no pulses").tolist() == empty.tolist()
    for name in COLUMNS[1:-3]:
        assert np.isnan(np.array(found[name], float)).tolist() == empty.tolist()
    assert sum(report.statuses.values()) == 2 * len(lengths)
    assert found["n_pulses"] == store.whole_event_column("n_pulses").tolist()
    # Each row is of its own event: what that one alone gives.
    alone = [
        predict_events(model, store, [number], options=options).direction_B3[0]
        for number in range(len(store))
    ]
    rows = np.stack([found[f"direction_{axis}"] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(rows.astype(float), alone, atol=1e-4)


@pytest.mark.parametrize(
    "suffix",
    ["parquet", *(pytest.param(s, marks=pytest.mark.slow) for s in ("csv", "db"))],
)
def test_memory_does_not_grow_with_the_store(
    suffix: str,
    model: Any,
    make_kaggle_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import gc
    import tracemalloc

    from graphnet_icecube2nd import prepare

    monkeypatch.setattr(room, "WINDOW", 64)
    peaks = {}
    for num in (192, 192, 1536):  # the first to warm up
        files, store = tmp_path / f"files_{num}", tmp_path / f"store_{num}"
        if not store.exists():
            make_kaggle_folder(files, {1: [30] * num})
            prepare(files, store, workers=1)
        opened = EventStore(store)
        gc.collect()
        tracemalloc.start()
        reconstruct(opened, model, tmp_path / f"r_{num}.{suffix}")
        peaks[num] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # What is made of a shard's ids and lengths for a moment is 54 bytes an event; a
    # kept row would be 130 besides, an event's pulses 1000.
    assert (peaks[1536] - peaks[192]) / (1536 - 192) < 100, peaks


def test_progress_counts_every_event(
    model: Any, make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without pulses as well, and at once those of an earlier call."""
    store = make_store({1: [5, 0, 9, 30, 0, 2, 7]})
    monkeypatch.setattr(room, "WINDOW", 3)
    calls: list[tuple[int, int]] = []

    def seen(events: int, pulses: int) -> None:
        calls.append((events, pulses))

    out = tmp_path / "r.parquet"
    reconstruct(store, model, out, on_progress=seen)
    assert np.sum(calls, axis=0).tolist() == [7, 53]
    with interrupted_at("000002.parquet", monkeypatch):
        reconstruct(store, model, out)
    calls.clear()
    assert reconstruct(store, model, out, on_progress=seen).num_resumed == 6
    first = store.whole_event_column("n_pulses")[:6]
    assert calls[0] == (6, first.sum())
    assert np.sum(calls, axis=0).tolist() == [7, 53]


def test_contours_that_are_asked_for(
    model: Any, simulated: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "r.parquet"
    wanted = (0.995, 0.1, 0.68)
    found = reconstruct(simulated, model, out, contours=wanted).columns()
    names = [name for name in found if name.startswith("radius_")]
    assert names == ["radius_10", "radius_68", "radius_99.5"]
    for name, level in zip(names, sorted(wanted), strict=True):
        radius = kappa_to_radius(found["kappa"], level)
        np.testing.assert_allclose(found[name], radius, rtol=1e-9)
    table = EventTable.load(out)
    assert list(table.levels) == sorted(wanted)
    for bad in ([], [0.5, 1.0], [0.0]):
        with pytest.raises(ValueError, match="shares between 0 and 1"):
            reconstruct(simulated, model, out, contours=bad)


@pytest.mark.filterwarnings("ignore:.*(range|not marked)")
@pytest.mark.parametrize("cut", [0, 1, 3, 6, 7])
def test_a_cut_goes_on_and_gives_the_identical_file(
    model: Any,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
) -> None:
    monkeypatch.setattr(room, "WINDOW", 40)
    # What is said of events outside the ranges is of all events, also after a cut.
    config = InputConfig(ranges={"n_pulses": (50, 100)})
    monkeypatch.setattr(model, "input_config", config)
    calm = reconstruct(simulated, model, tmp_path / "calm.parquet")
    assert any("n_pulses: " in notice for notice in calm.notices)
    write, left = room.write_results, [cut]

    class Cut(Exception):
        pass

    def cutting(*arguments: Any) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        write(*arguments)

    monkeypatch.setattr(room, "write_results", cutting)
    out = tmp_path / "cut.parquet"
    with pytest.raises(Cut):
        reconstruct(simulated, model, out)
    assert not out.exists()
    monkeypatch.setattr(room, "write_results", write)
    report = reconstruct(simulated, model, out)
    assert report.num_resumed == min(256, 40 * cut)
    assert out.read_bytes() == calm.path.read_bytes()
    assert report.statuses == calm.statuses
    assert report.notices == calm.notices


def test_what_was_found_with_other_options_is_not_taken(
    model: Any, simulated: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WINDOW", 100)
    with interrupted_at("r.parquet", monkeypatch):
        reconstruct(simulated, model, tmp_path / "r.parquet")
    other = InferenceConfig(max_pulses=8)

    def plan_of(options: InferenceConfig, contours: tuple[float, ...]) -> Any:
        bundle = as_bundle(model)
        maker = ResultMaker(bundle, simulated.detector, options, contours)
        return room._plan(simulated, maker)

    plan = plan_of(InferenceConfig(), (0.5,))
    assert plan != plan_of(other, (0.5,))
    assert plan != plan_of(InferenceConfig(), (0.6,))
    pulse_map = simulated.pulse_map
    labels = replace(pulse_map.labels, angles="flight")
    # The same pulses of other places, or with columns of another meaning.
    manifest = simulated.manifest
    for changed in (
        replace(manifest, tables={"geometry.csv": {"bytes": 1, "sha256": "1" * 64}}),
        replace(manifest, pulse_map=replace(pulse_map, labels=labels)),
    ):
        assert changed.digest() != manifest.digest()
    again = replace(manifest, created="later", software="0", notes=("more",))
    assert again.digest() == manifest.digest() == plan["store"]
    report = reconstruct(simulated, model, tmp_path / "r.parquet", options=other)
    assert report.num_resumed == 0


def test_other_formats(model: Any, make_store: Any, tmp_path: Path) -> None:
    pytest.importorskip("sqlite_utils")
    store = make_store({1: [5, 0, 9, 30]})
    expected = columns_of(reconstruct(store, model, tmp_path / "r.parquet").path)
    reconstruct(store, model, tmp_path / "r.csv")
    found = pyarrow.csv.read_csv(tmp_path / "r.csv").to_pydict()
    assert list(found) == COLUMNS
    assert found["event_id"] == expected["event_id"]
    np.testing.assert_allclose(
        np.array(found["kappa"], float), expected["kappa"], rtol=1e-12
    )
    for _ in range(2):  # a second time in place of the first
        done = reconstruct(store, model, tmp_path / "r.db")
    assert list(done.columns()) == COLUMNS
    assert done.columns()["event_id"].tolist() == expected["event_id"]
    with sqlite3.connect(tmp_path / "r.db") as connection:
        select = connection.execute("SELECT * FROM directions")
        assert [entry[0] for entry in select.description] == ["event_no", *COLUMNS[1:]]
        rows = select.fetchall()
        query = "PRAGMA index_list(directions)"
        assert [row[2] for row in connection.execute(query)] == [1]  # unique
    connection.close()
    assert [row[0] for row in rows] == expected["event_id"]
    empty = expected["status"].index("no pulses")
    (without,) = [row for row in rows if row[0] == expected["event_id"][empty]]
    assert without[1:] == (*[None] * 8, 0, 0, "no pulses")
    reconstruct(store, model, tmp_path / "submission.csv")
    found = pyarrow.csv.read_csv(tmp_path / "submission.csv").to_pydict()
    assert list(found) == ["event_id", "azimuth", "zenith"]
    assert found["zenith"][empty] == pytest.approx(np.pi / 2)
    others = [n for n in range(4) if n != empty]
    assert [found["azimuth"][n] for n in others] == [
        pytest.approx(expected["azimuth"][n]) for n in others
    ]
    with pytest.raises(ValueError, match=r"must end in .*found '\.txt'"):
        reconstruct(store, model, tmp_path / "r.txt")
    with pytest.raises(ValueError, match="format must be one of"):
        reconstruct(store, model, tmp_path / "r.csv", format="excel")


def test_calibration_reaches_kappa_and_radii(
    model: Any, simulated: EventStore, tmp_path: Path
) -> None:
    plain = columns_of(reconstruct(simulated, model, tmp_path / "a.parquet").path)
    kappa = np.array(plain["kappa"])
    angle = np.asarray(kappa_to_radius(kappa / 4, np.linspace(0.01, 0.99, 256)))
    calibration: KappaCalibration = fit_calibration(kappa, angle, "temperature")
    report = reconstruct(
        simulated, model, tmp_path / "b.parquet", calibration=calibration
    )
    found = columns_of(report.path)
    np.testing.assert_allclose(found["kappa"], calibration.kappa(kappa), rtol=1e-6)
    np.testing.assert_allclose(
        found["radius_90"], calibration.radius(kappa, 0.9), rtol=1e-6
    )
    assert found["azimuth"] == plain["azimuth"]


def test_a_database_keeps_its_other_tables(
    model: Any, make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlite_utils")
    from graphnet_icecube2nd.inference import reconstruction as room

    store = make_store({1: [5, 0, 9, 30]})
    path = tmp_path / "events.db"
    ids = store.whole_event_column("event_id").tolist()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE truth (event_no INTEGER PRIMARY KEY, energy)")
        database.executemany("INSERT INTO truth VALUES (?, 7.5)", [(i,) for i in ids])
    before = reconstruct(store, model, path)

    def rows() -> list[Any]:
        query = "SELECT energy, kappa FROM directions JOIN truth USING (event_no)"
        with closing(sqlite3.connect(path)) as database:
            return database.execute(query).fetchall()

    assert [energy for energy, _ in rows()] == [7.5] * 4
    kappas = {kappa for _, kappa in rows()}
    assert len(kappas) == 4

    # Cut in the middle: the table of before is still there, whole.
    def cut(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "without_full_columns", cut)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(store, model, path, options=InferenceConfig(max_pulses=4))
    assert {kappa for _, kappa in rows()} == kappas
    assert before.table().event_id.tolist() == ids


def test_what_holds_no_results_is_not_replaced(
    model: Any, make_store: Any, tmp_path: Path
) -> None:
    """A slip of the pen costs nobody an input."""
    store = make_store({1: [5, 9]})
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "notes.db").write_text("no database")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.csv").touch()
    (batch,) = (tmp_path / "files").rglob("batch_1.parquet")
    for path, words in (
        (tmp_path / "notes.csv", r"notes\.csv exists and holds no results \(a, b\)"),
        (tmp_path / "notes.db", "is no SQLite file"),
        (tmp_path / "folder.csv", "must be a file"),
        (tmp_path / "empty.csv", "holds no results"),
        (batch, r"holds no results \(.*sensor_id"),
    ):
        content = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ValueError, match=words):
            reconstruct(store, model, path)
        assert not path.is_file() or path.read_bytes() == content
    for name in ("r.parquet", "r.csv", "submission.csv"):  # results may be replaced
        for _ in range(2):
            reconstruct(store, model, tmp_path / name)


@pytest.mark.parametrize("file", ["events.arrow", "pulses.arrow"])
def test_a_damaged_store_leaves_nothing_behind(
    model: Any, simulated: EventStore, tmp_path: Path, file: str
) -> None:
    shutil.copytree(simulated.path, tmp_path / "store")
    path = next((tmp_path / "store").rglob(file))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        reconstruct(tmp_path / "store", model, tmp_path / "new" / "r.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


KILLED = """
import sys
from graphnet_icecube2nd import reconstruct
from graphnet_icecube2nd.models.weights import load_model
from graphnet_icecube2nd.inference import reconstruction as room
from graphnet_icecube2nd.inference.model_bundle import as_bundle
from graphnet_icecube2nd.inference.predictor import ResultMaker
room.WINDOW = 20
reconstruct(sys.argv[1], load_model(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "csv", "db"])
def test_a_killed_process_goes_on_and_gives_the_identical_file(
    model: Any,
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    """SIGKILL, wherever it finds the process once some windows are done."""
    monkeypatch.setattr(room, "WINDOW", 20)
    save_model(model, tmp_path / "m.safetensors")
    calm = reconstruct(simulated, model, tmp_path / f"calm.{suffix}")
    out, parts = tmp_path / f"r.{suffix}", tmp_path / f".r.{suffix}.parts"
    for wanted in (2, 7):
        words = [simulated.path, tmp_path / "m.safetensors", out]
        process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, words)])
        try:
            while len(list(parts.glob("*.parquet"))) < wanted and not out.exists():
                assert process.poll() is None or out.exists()
                time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert out.exists() == (not parts.exists())
        if out.exists():  # it was faster than the kill
            break
    assert calm.path is not None
    report = reconstruct(simulated, model, out)
    assert out.read_bytes() == calm.path.read_bytes()
    assert report.num_resumed >= 40 or process.returncode == 0
    assert not parts.exists()
