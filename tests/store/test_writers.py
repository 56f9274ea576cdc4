"""Stores into GraphNeT's files and back."""

from __future__ import annotations

import errno
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store import writers
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.readers.parquet import graphnet_parquet_source
from graphnet_icecube2nd.store.readers.source import EventChunk, Part, Source
from graphnet_icecube2nd.store.readers.sqlite import sqlite_source
from graphnet_icecube2nd.store.writers import (
    WriteReport,
    write_graphnet_parquet,
    write_graphnet_sqlite,
)

pytest.importorskip("pyarrow")
pytest.importorskip("sqlite_utils")


class MemoryPart(Part):
    """Events that are there already."""

    name = "memory"

    def __init__(self, chunks: list[EventChunk]) -> None:
        self._chunks = chunks

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        yield from self._chunks


def kaggle_chunk(lengths: Mapping[int, int], **truth: Any) -> EventChunk:
    ids = np.array(list(lengths), np.int64)
    counts = np.array(list(lengths.values()), np.int64)
    num_pulses = int(counts.sum())
    rng = np.random.default_rng(num_pulses)
    times = [np.sort(rng.integers(5000, 20_000, n)) for n in counts]
    return EventChunk(
        columns={
            "sensor_id": rng.integers(0, 5160, num_pulses),
            "time": np.concatenate([np.empty(0, np.int64), *times]),
            "charge": rng.uniform(0.3, 3, num_pulses).astype(np.float32),
            "auxiliary": rng.random(num_pulses) < 0.5,
            "width": rng.random(num_pulses),
        },
        offsets=np.append(0, np.cumsum(counts)),
        event_id=ids,
        truth={
            "azimuth": rng.uniform(0, 6, len(ids)),
            "zenith": rng.uniform(0, 3, len(ids)),
            "pid": np.full(len(ids), 14),
            "kind": np.array([f"nu {event}" for event in ids.tolist()], object),
            **truth,
        },
    )


def make_store(
    folder: Path,
    chunks: list[EventChunk],
    pulse_map: PulseMap | None = None,
    shard_pulses: int = 2**20,
) -> Path:
    source = Source(
        kind="memory",
        pulse_map=pulse_map or PulseMap.kaggle(),
        parts=[MemoryPart(chunks)],
        pulse_columns=tuple(chunks[0].columns),
    )
    convert(source, folder, workers=1, shard_pulses=shard_pulses)
    return folder


LENGTHS = {9: 3, 4: 0, 7: 2, 5: 1, 1: 0, 2: 4}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six events in three shards, two of them without pulses."""
    items = list(LENGTHS.items())
    chunks = [kaggle_chunk(dict(items[i : i + 2])) for i in (0, 2, 4)]
    return make_store(tmp_path / "store", chunks, shard_pulses=1)


def rows_of(path: Path, table: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    return rows


def events_of(path: Path) -> dict[int, dict[str, Any]]:
    """Columns of pulses and truth of every event of a store."""
    store = EventStore(path)
    found = {}
    for shard in store.shards:
        ids = shard.events.column("event_id").tolist()
        for index, event in enumerate(ids):
            first = shard.events.column("first_pulse")[index]
            inside = slice(first, first + shard.events.column("n_pulses")[index])
            pulses: dict[str, NDArray[Any]] = {
                name: shard.pulses.column(name)[inside] for name in store.pulse_columns
            }
            truth = {
                name: shard.events.column(name)[index] for name in store.truth_columns
            }
            found[event] = {"pulses": pulses, "truth": truth}
    return found


def assert_same(
    found: dict[int, dict[str, Any]], expected: dict[int, dict[str, Any]]
) -> None:
    assert found.keys() == expected.keys()
    for event, values in expected.items():
        for name, column in values["pulses"].items():
            np.testing.assert_array_equal(found[event]["pulses"][name], column)
        for name, value in values["truth"].items():
            assert found[event]["truth"][name] == value, (event, name)


def test_sqlite(store: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = tmp_path / "out" / "events.db"
    report = write_graphnet_sqlite(
        store, path, on_progress=lambda *numbers: calls.append(numbers)
    )
    assert report == WriteReport(events=4, pulses=10, left_out=2)
    assert [sum(column) for column in zip(*calls, strict=True)] == [4, 10]
    assert [entry.name for entry in path.parent.iterdir()] == ["events.db"]
    truth = {row["event_no"]: row for row in rows_of(path, "truth")}
    assert list(truth) == [2, 5, 7, 9]
    assert truth[7]["kind"] == "nu 7"
    assert truth[7]["pid"] == 14
    assert truth[7].keys() == {"event_no", "azimuth", "zenith", "pid", "kind"}
    pulses = rows_of(path, "pulses")
    assert [row["event_no"] for row in pulses] == [9] * 3 + [7] * 2 + [5] + [2] * 4
    expected = events_of(store)
    position = DetectorGeometry.icecube86().position_S3
    for row in pulses:
        place = position[row["sensor_id"]].tolist()
        assert [row["x"], row["y"], row["z"]] == place
        assert row["auxiliary"] in (0, 1)
    for event in (9, 7, 5, 2):
        mine = [row for row in pulses if row["event_no"] == event]
        for name, values in expected[event]["pulses"].items():
            assert [row[name] for row in mine] == values.tolist()
    connection = sqlite3.connect(path)
    (index,) = connection.execute("PRAGMA index_list(pulses)").fetchall()
    assert index[1] == "event_no_pulses"
    (key,) = [row for row in connection.execute("PRAGMA table_info(truth)") if row[5]]
    assert (key[1], key[2]) == ("event_no", "INTEGER")
    assert not [
        row for row in connection.execute("PRAGMA table_info(pulses)") if row[5]
    ]
    connection.close()


def test_sqlite_with_events_without_pulses(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    report = write_graphnet_sqlite(store, path, with_empty=True)
    assert report == WriteReport(events=6, pulses=10, left_out=0)
    assert [row["event_no"] for row in rows_of(path, "truth")] == [1, 2, 4, 5, 7, 9]
    own = {"pulse_map": PulseMap.kaggle(), "keep": ("width",)}
    make = sqlite_source(path, **own)
    convert(make, tmp_path / "back", workers=1)
    assert_same(events_of(tmp_path / "back"), events_of(store))


def test_only_events_without_pulses(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [kaggle_chunk({3: 0})])
    path = tmp_path / "events.db"
    with pytest.raises(ValueError, match="no event with pulses"):
        write_graphnet_sqlite(store, path)
    with pytest.raises(ValueError, match="no event with pulses"):
        write_graphnet_parquet(store, tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    report = write_graphnet_sqlite(store, path, with_empty=True)
    assert report == WriteReport(events=1, pulses=0, left_out=0)
    assert rows_of(path, "pulses") == []


def test_parquet(store: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()  # an empty one will do
    report = write_graphnet_parquet(store, folder, pulses_table="hits")
    assert report == WriteReport(events=4, pulses=10, left_out=2)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.parquet")) == [
        *(f"hits/hits_{number}.parquet" for number in range(3)),
        *(f"truth/truth_{number}.parquet" for number in range(3)),
    ]
    ids = []
    for number in range(3):
        truth = pq.read_table(folder / "truth" / f"truth_{number}.parquet")
        pulses = pq.read_table(folder / "hits" / f"hits_{number}.parquet")
        event = truth["event_no"].to_pylist()
        assert event == sorted(event)
        assert list(dict.fromkeys(pulses["event_no"].to_pylist())) == event
        assert {"x", "y", "z", "sensor_id", "width"} <= set(pulses.column_names)
        ids.append(event)
    assert ids == [[9], [5, 7], [2]]
    source = graphnet_parquet_source(folder, keep=("width",))
    convert(source, tmp_path / "back", workers=1)
    full = {event: v for event, v in events_of(store).items() if LENGTHS[event]}
    assert_same(events_of(tmp_path / "back"), full)


def test_shards_without_events_leave_no_gap(tmp_path: Path) -> None:
    chunks = [kaggle_chunk({1: 2}), kaggle_chunk({2: 0, 3: 1}), kaggle_chunk({4: 3})]
    store = make_store(tmp_path / "store", chunks, shard_pulses=1)
    write_graphnet_parquet(store, tmp_path / "folder", events=[0, 1, 3])
    names = sorted(path.name for path in (tmp_path / "folder" / "truth").iterdir())
    assert names == ["truth_0.parquet", "truth_1.parquet"]


def test_some_events(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    report = write_graphnet_sqlite(store, path, events=np.array([5, 0, 1]))
    assert report == WriteReport(events=2, pulses=7, left_out=1)
    assert [row["event_no"] for row in rows_of(path, "truth")] == [2, 9]
    other = tmp_path / "other.db"
    for events, message in (
        ([0, 6], "got 6"),
        ([-1], "got -1"),
        ([2, 2], "found 2 twice"),
        ([0.5], "events must be integers, got float64"),
    ):
        with pytest.raises(ValueError, match=message):
            write_graphnet_sqlite(store, other, events=events)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no event with pulses"):
        write_graphnet_sqlite(store, other, events=[])
    assert not other.exists()


@pytest.mark.parametrize("clock", ["first_pulse", "first_triggered"])
def test_times_are_absolute_again(tmp_path: Path, clock: str) -> None:
    own = PulseMap(
        name="own", time="t", hlc="trig", time_reference=clock, zenith="th",
        azimuth="ph",
    )  # fmt: skip
    start = 1_700_000_000_000_000_001

    def chunk(time: NDArray[Any]) -> EventChunk:
        columns = {name: np.arange(4.0) for name in "xyz"}
        return EventChunk(
            columns={**columns, "t": time, "trig": np.array([2, 0, 1, 0])},
            offsets=np.array([0, 3, 3, 4]),
            event_id=np.array([1, 2, 3]),
        )

    whole = np.array([start + 5, start, start + 900, start - 10**15])
    store = make_store(tmp_path / "a", [chunk(whole)], own)
    write_graphnet_sqlite(store, tmp_path / "a.db")
    times = [row["t"] for row in rows_of(tmp_path / "a.db", "pulses")]
    assert times == [start, start + 5, start + 900, start - 10**15]
    assert "x" in rows_of(tmp_path / "a.db", "pulses")[0]
    real = np.array([1e8 + 0.25, 1e8 + 0.75, 1e8 + 300.5, 7.125])
    store = make_store(tmp_path / "b", [chunk(real)], own)
    write_graphnet_sqlite(store, tmp_path / "b.db")
    times = [row["t"] for row in rows_of(tmp_path / "b.db", "pulses")]
    assert times == real.tolist()


def test_places_in_the_coordinates_of_the_file(tmp_path: Path) -> None:
    """The pulse map takes its origin off x, y, z, so they come with it."""
    pulse_map = PulseMap.kaggle(origin=(1.0, 2.0, -100.0), x="px", y="py", z="pz")
    store = make_store(tmp_path / "store", [kaggle_chunk({1: 5})], pulse_map)
    write_graphnet_sqlite(store, tmp_path / "events.db")
    position = DetectorGeometry.icecube86().position_S3
    for row in rows_of(tmp_path / "events.db", "pulses"):
        x, y, z = position[row["sensor_id"]].tolist()
        assert [row["px"], row["py"], row["pz"]] == [x + 1, y + 2, z - 100]


def test_names_that_clash(tmp_path: Path) -> None:
    renumbered = kaggle_chunk({1: 2}, event_no=np.array([40]), Energy=np.array([1]))
    store = make_store(tmp_path / "store", [renumbered])
    path = tmp_path / "events.db"
    write_graphnet_sqlite(store, path)
    (row,) = rows_of(path, "truth")
    assert (row["event_no"], row["source_event_no"]) == (1, 40)
    with pytest.raises(ValueError, match="got twice 'Pulses'"):
        write_graphnet_sqlite(store, tmp_path / "a.db", truth_table="Pulses")
    with pytest.raises(ValueError, match="got twice 'pulses'"):
        write_graphnet_parquet(store, tmp_path / "a", truth_table="pulses")
    twice = kaggle_chunk({1: 2}, a=np.array([1]), source_a=np.array([1]))
    store = make_store(tmp_path / "two", [twice])
    with pytest.raises(ValueError, match="source_a"):
        write_graphnet_sqlite(store, tmp_path / "a.db", index_column="a")
    letters = kaggle_chunk({1: 2}, Energy=np.array([1]), energy=np.array([1]))
    store = make_store(tmp_path / "three", [letters])
    with pytest.raises(ValueError, match="Energy, energy are one column"):
        write_graphnet_sqlite(store, tmp_path / "a.db")
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))


def test_nothing_is_written_over(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"events\.db is there already"):
        write_graphnet_sqlite(store, path)
    assert path.read_text() == "precious"
    with pytest.raises(FileExistsError, match="is there already"):
        write_graphnet_parquet(store, store)
    with pytest.raises(ValueError, match=r"got .*events\.sqlite"):
        write_graphnet_sqlite(store, tmp_path / "events.sqlite")
    with pytest.raises(FileNotFoundError):
        write_graphnet_sqlite(tmp_path / "nothing", tmp_path / "a.db")


def test_what_a_killed_run_left_is_no_obstacle(store: Path, tmp_path: Path) -> None:
    for name in ("events.db", "folder"):
        (tmp_path / f".{name}.lock").touch()
    (tmp_path / ".events.db.0123456789abcdef.tmp").write_text("half")
    (tmp_path / ".folder.0123456789abcdef.tmp").mkdir()
    write_graphnet_sqlite(store, tmp_path / "events.db")
    write_graphnet_parquet(store, tmp_path / "folder")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("write", [write_graphnet_sqlite, write_graphnet_parquet])
def test_a_failure_leaves_nothing(
    store: Path, tmp_path: Path, write: Callable[..., WriteReport]
) -> None:
    def fail(events: int, pulses: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(store, tmp_path / "events.db", on_progress=fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_full_disk(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(writers, "_insert", full)
    with pytest.raises(OSError, match="no space left while writing") as caught:
        write_graphnet_sqlite(store, tmp_path / "events.db")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "events.db").exists()


def test_without_sqlite_utils(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlite_utils", None)
    with pytest.raises(ImportError, match=r"pip install graphnet-icecube2nd\[data\]"):
        write_graphnet_sqlite(store, tmp_path / "events.db")


@given(
    lengths=st.dictionaries(
        st.integers(0, 2**40), st.integers(0, 9), min_size=1, max_size=20
    ),
    cuts=st.integers(1, 6),
    shard_pulses=st.integers(1, 20),
    at_once=st.integers(1, 12),
    data=st.data(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_any_store_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    lengths: dict[int, int],
    cuts: int,
    shard_pulses: int,
    at_once: int,
    data: st.DataObject,
) -> None:
    monkeypatch.setattr(writers, "PULSES_AT_ONCE", at_once)
    folder = tmp_path_factory.mktemp("any")
    items = list(lengths.items())
    chunks = [
        kaggle_chunk(dict(items[i : i + cuts])) for i in range(0, len(items), cuts)
    ]
    store = make_store(folder / "store", chunks, shard_pulses=shard_pulses)
    numbers = data.draw(st.sets(st.integers(0, len(items) - 1), min_size=1))
    chosen = {items[number][0] for number in numbers}
    full = {event for event in chosen if lengths[event]}
    expected = {e: v for e, v in events_of(store).items() if e in chosen}
    own: dict[str, Any] = {"keep": ("width",)}
    report = write_graphnet_sqlite(
        store, folder / "all.db", events=sorted(numbers), with_empty=True
    )
    assert report.events == len(chosen)
    assert report.pulses == sum(lengths[event] for event in chosen)
    convert(sqlite_source(folder / "all.db", **own), folder / "back", workers=1)
    assert_same(events_of(folder / "back"), expected)
    if not full:
        return
    report = write_graphnet_parquet(store, folder / "parquet", events=sorted(numbers))
    assert report.left_out == len(chosen) - len(full)
    source = graphnet_parquet_source(folder / "parquet", **own)
    convert(source, folder / "back2", workers=1)
    expected = {event: v for event, v in expected.items() if event in full}
    assert_same(events_of(folder / "back2"), expected)


@pytest.mark.data
@pytest.mark.parametrize("name", ["oscNext", "upgrade", "prometheus", "parquet"])
@pytest.mark.parametrize("form", ["sqlite", "parquet"])
def test_real_files_come_back(
    shared_dir: Path, tmp_path: Path, name: str, form: str
) -> None:
    folder = shared_dir / "data" / "graphnet" / "data"
    pulse_map = None
    if name in ("prometheus", "parquet"):
        pulse_map = PulseMap.prometheus(angles="origin")
    if name == "parquet":
        folder = folder / "examples" / "parquet" / "prometheus"
        source = graphnet_parquet_source(folder, pulse_map=pulse_map, keep="all")
    else:
        (path,) = [file for file in folder.rglob("*.db") if name in file.name]
        source = sqlite_source(path, pulse_map=pulse_map, keep="all")
    store = tmp_path / "store"
    manifest = convert(source, store, workers=1, shard_pulses=100)
    options: dict[str, Any] = {"pulse_map": pulse_map, "keep": "all"}
    if form == "sqlite":
        report = write_graphnet_sqlite(store, tmp_path / "events.db")
        back = sqlite_source(tmp_path / "events.db", **options)
    else:
        report = write_graphnet_parquet(store, tmp_path / "events")
        back = graphnet_parquet_source(tmp_path / "events", **options)
    expected = WriteReport(
        events=manifest.num_events, pulses=manifest.num_pulses, left_out=0
    )
    assert report == expected
    convert(back, tmp_path / "back", workers=1)
    clock = source.pulse_map.time
    ours, theirs = events_of(store), events_of(tmp_path / "back")
    if source.pulse_map.time_reference == "first_pulse":
        # absolute times are rounded once more
        for event, values in ours.items():
            for each in (values, theirs[event]):
                each["time"] = each["pulses"].pop(clock)
            np.testing.assert_allclose(values["time"], theirs[event]["time"], rtol=1e-6)
    assert_same(theirs, ours)
