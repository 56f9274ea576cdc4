"""Opening a store: what it says, what it refuses, that it stays on the disk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.store.arrow_table import MappedTable, write_table
from graphnet_icecube2nd.store.conversion import check_unique_events
from graphnet_icecube2nd.store.event_store import (
    length_classes,
    length_histogram,
    length_quantiles,
    view_event,
)
from graphnet_icecube2nd.store.manifest import ShardRecord

MakeStore = Callable[..., EventStore]


def test_columns_are_where_the_file_is(make_store: MakeStore) -> None:
    """Zero-copy: torch reads the mapping, and writing never reaches the file."""
    store = make_store({1: [3, 4]})
    path = store.shards[0].folder / "pulses.arrow"
    before = path.read_bytes()
    time = store.shards[0].pulses.column("time")
    tensor = torch.from_numpy(time)
    assert tensor.data_ptr() == time.ctypes.data
    assert not time.flags.owndata
    tensor[0] = -1.0
    assert path.read_bytes() == before


def test_shards_and_numbers(make_store: MakeStore) -> None:
    store = make_store({1: [3, 4], 2: [5], 7: [6, 1, 2]}, shard_pulses=8)
    assert len(store) == 6
    assert store.shard_batches == (1, 2, 7, 7)
    assert store.shard_offsets.tolist() == [0, 2, 3, 5, 6]
    assert store.shard_of(np.array([0, 2, 5])).tolist() == [0, 1, 3]
    assert store.find(7006) == 5
    assert store.has_directions
    assert store.truth_columns == ("azimuth", "zenith")
    assert "6 events, 21 pulses" in repr(store)
    with pytest.raises(ValueError, match="no event number 6"):
        store.shard_of(np.array([6]))
    with pytest.raises(ValueError, match="no event with event_id 7001"):
        store.find(7001)
    with pytest.raises(ValueError, match="no event column 'energy'; it has event_id"):
        store.event_column("energy", 0)


def test_worker_processes_get_the_path_only(make_store: MakeStore) -> None:
    store = make_store({1: [3000, 4000]})
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    assert len(pickle.loads(pickled)) == 2


def test_users_geometry_and_ice_go_along(make_store: MakeStore, tmp_path: Path) -> None:
    geometry, ice = tmp_path / "doms.csv", tmp_path / "ice.txt"
    rows = "".join(f"{n},{n},0,{n / 9}\n" for n in range(5160))
    geometry.write_text("sensor_id,x,y,z\n" + rows)
    ice.write_text("depth scattering_len absorption_len\n1000 20 90\n2900 30 110\n")
    store = make_store({1: [3]}, geometry=geometry, ice=ice)
    geometry.unlink()
    ice.unlink()
    assert store.geometry.position_S3[7, 0] == 7
    assert store.ice.absorption_length_N.tolist() == [90, 110]
    store.verify()
    path = store.path / "geometry.csv"
    path.write_text("sensor_id,x,y,z\n" + rows.replace("7,7", "7,8", 1))
    with pytest.raises(ValueError, match=r"geometry.csv is damaged: its SHA-256"):
        EventStore(store.path).verify()
    path.unlink()  # IceCube-86 in its place would be another detector
    with pytest.raises(ValueError, match=r"geometry.csv is missing; the manifest"):
        EventStore(store.path)


class TestRefused:
    def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no"):
            EventStore(tmp_path / "nothing")
        with pytest.raises(ValueError, match=r"no event store.*`icecube2nd prepare"):
            EventStore(tmp_path)

    def test_other_version(self, make_store: MakeStore) -> None:
        store = make_store({1: [3]})
        path = store.path / "manifest.json"
        path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
        with pytest.raises(ValueError, match=r"version 9 of the store; .*version 1"):
            EventStore(store.path)

    @pytest.mark.parametrize("text", ["{", "[]", '{"format": "else"}', "\xff\xfe"])
    def test_damaged_manifest(self, make_store: MakeStore, text: str) -> None:
        path = make_store({1: [3]}).path
        (path / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"manifest.json is (damaged|no manifest)"):
            EventStore(path)

    def test_manifest_that_lacks_a_key(self, make_store: MakeStore) -> None:
        path = make_store({1: [3]}).path / "manifest.json"
        content = json.loads(path.read_text())
        for key in ("shards", "pulse_map", "pulse_columns"):
            path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
            with pytest.raises(ValueError, match=r"manifest.json is damaged"):
                EventStore(path.parent)

    def test_truncated_or_missing_file(self, make_store: MakeStore) -> None:
        store = make_store({1: [30]})
        path = store.shards[0].folder / "pulses.arrow"
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        with pytest.raises(ValueError, match=r"pulses.arrow is damaged: it has"):
            EventStore(store.path)
        path.unlink()
        with pytest.raises(ValueError, match=r"pulses.arrow is missing"):
            EventStore(store.path)

    def test_changed_byte_is_found_by_verify(self, make_store: MakeStore) -> None:
        store = make_store({1: [30]})
        store.verify()
        path = store.shards[0].folder / "events.arrow"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(ValueError, match=r"events.arrow is damaged: its SHA-256"):
            EventStore(store.path).verify()

    def test_foreign_file_in_place_of_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "pulses.arrow"
        for content in (b"", b"ARROW1", b"something else entirely"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="is damaged: it is no table"):
                MappedTable(path)


def test_tables_of_no_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t", {"a": np.empty(0, np.float32), "b": np.empty(0, str)})
    table = MappedTable(tmp_path / "t")
    assert table.num_rows == len(table.column("a")) == len(table.column("b")) == 0
    with pytest.raises(ValueError, match="no column 'c'; it has a, b"):
        table.column("c")


@pytest.mark.parametrize("ids_at_once", [2, 3, 100])
def test_duplicates_are_found_in_bounded_memory(
    tmp_path: Path, ids_at_once: int
) -> None:
    def shard(name: str, ids: list[int]) -> ShardRecord:
        (tmp_path / name).mkdir(exist_ok=True)
        write_table(tmp_path / name / "events.arrow", {"event_id": np.array(ids)})
        counts = {"num_events": len(ids), "num_pulses": 0, "num_empty": 0}
        borders = {"first_id": min(ids), "last_id": max(ids)}
        more = {"source": f"file {name}", "batch": None, "files": {}}
        return ShardRecord(name=name, **counts, **borders, **more)  # type: ignore[arg-type]

    apart = [shard("a", [1, 9, 5]), shard("b", [20, 2, 8]), shard("c", [30, 21])]
    check_unique_events(tmp_path, apart, ids_at_once)
    twice = [*apart, shard("d", [25, 8])]
    with pytest.raises(
        ValueError, match=r"event 8 .*in file b, event 2 and in file d, event 1"
    ):
        check_unique_events(tmp_path, twice, ids_at_once)


def test_summary(make_store: MakeStore) -> None:
    store = make_store({1: [1, 2, 3, 60, 70], 2: [200, 5000]}, shard_pulses=10)
    assert length_quantiles(store) == {
        "shortest": 1,
        "5%": 1,
        "25%": 2,
        "50%": 60,
        "75%": 200,
        "95%": 5000,
        "99%": 5000,
        "longest": 5000,
    }
    rows = dict(length_histogram(store))
    assert rows["1 to 7"] == 3
    assert rows["32 to 63"] == rows["64 to 95"] == rows["192 to 383"] == 1
    assert sum(rows.values()) == 7
    assert list(rows)[-1] == "3072 to 12287"
    assert length_classes(store) == {"total": 7, "short": 4, "medium": 1, "long": 2}
    view = view_event(store, 3)
    assert view.event_id == 1009
    assert len(view.pulses["time"]) == 60 == view.truth["n_pulses"]
