"""Opening a store: what it says, what it refuses, that it stays on the disk."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.store import verification
from graphnet_icecube2nd.store.arrow_table import (
    MappedTable,
    sha256_of,
    write_table,
)
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
    with pytest.raises(ValueError, match="got 6"):
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


@pytest.mark.parametrize("form", ["parquet", "geo"])
def test_a_geometry_of_another_form_is_kept_as_csv(
    make_store: MakeStore, tmp_path: Path, form: str
) -> None:
    table, rows = tmp_path / f"doms.{form}", range(5160)
    if form == "geo":
        lines = "".join(f"{n}\t{n}\t0.1\t{n // 60}\t{n % 60}\n" for n in rows)
        table.write_text("### Modules ###\n" + lines)
    else:
        places = {"x": np.array(rows, float), "y": np.array(rows, float)}
        places |= {"sensor_id": np.array(rows), "z": np.full(5160, 0.1)}
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pytest.importorskip("pyarrow").table(places), table)
    store = make_store({1: [3]}, geometry=table)
    store.verify()
    assert store.geometry.position_S3[5159].tolist() == [5159, 5159, 0.1]
    text = (store.path / "geometry.csv").read_text()
    assert text.startswith("sensor_id,string,x,y,z,rde\n")


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
    path.write_text(path.read_text().replace(",7.0,", ",8.0,", 1))
    with pytest.raises(ValueError, match=r"geometry.csv is damaged: its SHA-256"):
        EventStore(store.path).verify()
    path.unlink()  # IceCube-86 in its place would be another detector
    with pytest.raises(ValueError, match=r"geometry.csv is missing"):
        EventStore(store.path)


def rewrite(store: EventStore, name: str, columns: dict[str, Any]) -> None:
    """Write a table of the first shard anew, and its checksum into the manifest."""
    path = store.path / "manifest.json"
    content = json.loads(path.read_text())
    file = f"{name}.arrow"
    (store.shards[0].folder / file).unlink()  # it may be mapped
    written = write_table(store.shards[0].folder / file, columns)
    content["shards"][0]["files"][file] = written
    path.write_text(json.dumps(content))


DAMAGE = """
import hashlib, json, random, sys
from pathlib import Path
from graphnet_icecube2nd import EventStore
store, with_checksum = Path(sys.argv[1]), sys.argv[2] == "True"
path = store / "manifest.json"
content = json.loads(path.read_text())
dice, (record,) = random.Random(7), content["shards"]
for name in ("events", "pulses"):
    file = store / "shards" / record["name"] / f"{name}.arrow"
    whole = file.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        file.write_bytes(damaged)
        if with_checksum:
            digest = hashlib.sha256(damaged).hexdigest()
            record["files"][file.name]["sha256"] = digest
            path.write_text(json.dumps(content))
        try:
            table = getattr(EventStore(store).shards[0], name)
            values = [table.column(column).tolist() for column in table.names]
            print("accepted", name)
        except ValueError as error:
            assert str(error).startswith(f"{file} is damaged: "), error
            print("refused", name)
    file.write_bytes(whole)
"""


@pytest.mark.parametrize("with_checksum", [False, True])
def test_no_flipped_bit_crashes(make_store: MakeStore, with_checksum: bool) -> None:
    """In a process of its own, as a crash would end it; nor is one accepted.

    With the checksum of the damaged file in the manifest other numbers are accepted,
    but never other borders.
    """
    store = make_store({1: [3, 0, 70, 5]})
    texts = np.array(["muon", "", "électron", "tau"], object)
    events = store.shards[0].events
    columns = {name: events.column(name) for name in events.names}
    rewrite(store, "events", {**columns, "kind": texts})
    content = json.loads((store.path / "manifest.json").read_text())
    content["event_columns"]["kind"] = "string"
    (store.path / "manifest.json").write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(store.path), str(with_checksum)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = Counter(done.stdout.splitlines())
    assert sum(counts.values()) == 300
    assert with_checksum or counts == {"refused events": 150, "refused pulses": 150}


class TestVerifiedOnce:
    @pytest.fixture
    def hashed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
        """The files whose checksums were computed; all files are old."""
        seen: list[str] = []

        def counted(path: Path) -> str:
            seen.append(path.name)
            return sha256_of(path)

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(verification, "sha256_of", counted)
        monkeypatch.setattr(verification, "TICK", -3600.0)
        return seen

    def read(self, store: EventStore) -> None:
        for shard in EventStore(store.path).shards:
            _ = shard.events, shard.pulses

    @pytest.mark.parametrize("is_writable", [True, False])
    def test_each_file_once(
        self, make_store: MakeStore, hashed: list[str], is_writable: bool
    ) -> None:
        store = make_store({1: [30], 2: [5]})
        (store.path / ".verified").unlink()  # of the report on the new store
        hashed.clear()
        if not is_writable:  # for anybody, root too
            (store.path / ".verified").mkdir()
        _ = EventStore(store.path).shards[0].events
        assert hashed == ["events.arrow"], "nothing before it is looked at"
        self.read(store)
        self.read(store)
        assert sorted(hashed) == 2 * ["events.arrow"] + 2 * ["pulses.arrow"]
        EventStore(store.path).verify()
        assert len(hashed) == 8

    def test_a_file_that_changed_is_read_again(
        self, make_store: MakeStore, hashed: list[str]
    ) -> None:
        store = make_store({1: [30]})
        self.read(store)
        path = store.shards[0].folder / "pulses.arrow"
        status, content = path.stat(), bytearray(path.read_bytes())
        content[-300] ^= 1
        path.write_bytes(bytes(content))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(ValueError, match=r"pulses\.arrow is damaged: its SHA"):
            self.read(store)

    def test_a_file_just_written_is_not_remembered(
        self,
        make_store: MakeStore,
        hashed: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It may change again without another time."""
        monkeypatch.setattr(verification, "TICK", 3600.0)
        store = make_store({1: [30]})
        hashed.clear()
        self.read(store)
        self.read(store)
        assert len(hashed) == 4

    def test_odd_memories_do_no_harm(
        self, make_store: MakeStore, hashed: list[str], tmp_path: Path
    ) -> None:
        store = make_store({1: [30]})
        (store.path / ".verified").unlink()
        hashed.clear()
        victim = tmp_path / "victim"
        victim.write_bytes(b"\xff\0precious")
        (store.path / ".verified").symlink_to(victim)
        self.read(store)
        self.read(store)
        assert len(hashed) == 2, "remembered in the cache"
        assert victim.read_bytes() == b"\xff\0precious"


class TestRefused:
    def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no(thing|where) does not exist"):
            EventStore(tmp_path / "nothing")
        with pytest.raises(ValueError, match="`icecube2nd prepare"):
            EventStore(tmp_path)

    def test_other_version(self, make_store: MakeStore) -> None:
        store = make_store({1: [3]})
        path = store.path / "manifest.json"
        path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
        with pytest.raises(ValueError, match="must be 1, found 9"):
            EventStore(store.path)

    @pytest.mark.parametrize("text", ["{", "[]", '{"format": "else"}', "\xff\xfe"])
    def test_damaged_manifest(self, make_store: MakeStore, text: str) -> None:
        path = make_store({1: [3]}).path
        (path / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"manifest.json is (damaged|not )"):
            EventStore(path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("shards", None),
            ("shards", []),
            ("num_events", 2),
            ("num_pulses", None),
            ("shards", {}),
            ("shards.0", None),
            ("shards.0.name", "../other"),
            ("shards.0.name", "/etc"),
            ("shards.0.name", ""),
            ("shards.0.num_events", "1"),
            ("shards.0.num_pulses", -30),
            ("shards.0.files", {}),
            ("shards.0.files.pulses.arrow", None),
            ("shards.0.files.pulses.arrow.bytes", 1.5),
            ("shards.0.files.pulses.arrow.sha256", "0" * 63),
            ("pulse_columns", None),
            ("pulse_columns.time", 4),
            ("event_columns", {}),
            ("pulse_map", None),
            ("pulse_map", []),
            ("pulse_map.time", 7),
            ("pulse_map.origin", [None, 0, 0]),
            ("notes", [3]),
            ("tables", {"../geometry.csv": {}}),
            ("tables", {"geometry.csv": None}),
            ("detector", "orca"),
            ("kind", None),
        ],
    )
    def test_manifest_of_other_types(
        self, make_store: MakeStore, key: str, value: object
    ) -> None:
        path = make_store({1: [30]}).path / "manifest.json"
        content = json.loads(path.read_text())
        place, last = content, key
        for known in ("shards", "0", "files", "pulses.arrow", "pulse_map"):
            if last.startswith(f"{known}."):
                place = place[0 if known == "0" else known]
                last = last[len(known) + 1 :]
        if last.startswith("pulse_columns."):
            place, last = place["pulse_columns"], "time"
        place[0 if last == "0" else last] = value
        path.write_text(json.dumps(content))
        named = "name" if key.endswith("name") else key.split(".")[0].rstrip("s")
        with pytest.raises(ValueError, match=rf"manifest\.json is damaged: .*{named}"):
            EventStore(path.parent)

    @pytest.mark.parametrize("key", ["shards", "pulse_map", "pulse_columns", "kind"])
    def test_manifest_that_lacks_a_key(self, make_store: MakeStore, key: str) -> None:
        path = make_store({1: [3]}).path / "manifest.json"
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            EventStore(path.parent)

    def test_truncated_or_missing_file(self, make_store: MakeStore) -> None:
        store = make_store({1: [30]})
        path = store.shards[0].folder / "pulses.arrow"
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        with pytest.raises(ValueError, match=r"pulses.arrow is damaged"):
            EventStore(store.path)
        path.unlink()
        with pytest.raises(ValueError, match=r"pulses.arrow is missing"):
            EventStore(store.path)

    @pytest.mark.parametrize("name", ["events", "pulses"])
    def test_a_flipped_bit_is_found_on_opening(
        self, make_store: MakeStore, name: str
    ) -> None:
        store = make_store({1: [30]})
        path = store.shards[0].folder / f"{name}.arrow"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(ValueError, match=rf"{name}.arrow is damaged: its SHA-256"):
            getattr(EventStore(store.path).shards[0], name)
        with pytest.raises(ValueError, match=rf"{name}.arrow is damaged: its SHA-256"):
            EventStore(store.path).verify()

    @pytest.mark.parametrize(
        ("column", "row", "value"),
        [
            ("first_pulse", 1, -5),
            ("first_pulse", 1, 2**40),
            ("n_pulses", 0, 10**6),
            ("n_pulses", 0, -30),
            ("n_pulses", 0, 31),
            ("event_id", 0, 2**60),
        ],
    )
    def test_borders_that_cannot_be(
        self, make_store: MakeStore, column: str, row: int, value: int
    ) -> None:
        """Also where the manifest has the checksum of just that."""
        store = make_store({1: [30, 4]})
        table = store.shards[0].events
        columns = {name: table.column(name).copy() for name in table.names}
        columns[column][row] = value
        rewrite(store, "events", columns)
        with pytest.raises(ValueError, match=r"events\.arrow is damaged"):
            _ = EventStore(store.path).shards[0].events

    def test_columns_of_other_types(self, make_store: MakeStore) -> None:
        store = make_store({1: [30, 4]})
        table = store.shards[0].pulses
        columns = {name: table.column(name).copy() for name in table.names}
        rewrite(store, "pulses", {**columns, "time": np.zeros(34)})
        with pytest.raises(ValueError, match=r"pulses\.arrow is damaged: .*float64"):
            _ = EventStore(store.path).shards[0].pulses
        rewrite(store, "pulses", {name: c[:3] for name, c in columns.items()})
        with pytest.raises(ValueError, match=r"pulses\.arrow is damaged: .*3 rows"):
            _ = EventStore(store.path).shards[0].pulses

    def test_foreign_file_in_place_of_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "pulses.arrow"
        for content in (b"", b"ARROW1", b"something else entirely"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"pulses.arrow is damaged"):
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
