"""LMDB files of GraphNeT's LMDBWriter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

lmdb = pytest.importorskip("lmdb")
pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, prepare  # noqa: E402
from graphnet_icecube2nd.store.event_store import view_event  # noqa: E402

METHOD = b"__meta_serialization__"


def event(number: int, num_pulses: int, **changes: Any) -> dict[str, Any]:
    """Tables of an event by name, columns by name."""
    rng = np.random.default_rng(abs(number))
    names = ("dom_x", "dom_y", "dom_z", "dom_time", "charge", "rde")
    pulses = {name: rng.uniform(1, 400, num_pulses).tolist() for name in names}
    pulses |= {"hlc": [1] * num_pulses, "event_no": [number] * num_pulses}
    truth = {"event_no": [number], "azimuth": [1.0], "zenith": [2.0], "kind": ["nue"]}
    return {"Pulses": pulses, "truth": truth} | changes


def write(folder: Path, values: dict[Any, Any], method: bytes = b"json") -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**28) as file, file.begin(write=True) as txn:
        txn.put(METHOD, method)
        for key, value in values.items():
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            txn.put(str(key).encode(), data)
    return folder


def read(path: Path | list[Path], out: Path, **options: Any) -> Any:
    """Return the report, and the pulses and truth of each event in order."""
    report = prepare(path, out, workers=1, **options)
    store = EventStore(out)
    return report, {
        view.event_id: view
        for view in (view_event(store, n) for n in range(len(store)))
    }


class TestValues:
    def test_many_events_in_the_order_of_their_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keys are texts, the tree has branches, values pages of their own."""
        from graphnet_icecube2nd.store.readers import lmdb as reader
        from graphnet_icecube2nd.store.readers import table_part

        monkeypatch.setattr(table_part, "PART_EVENTS", (100, 100))
        monkeypatch.setattr(reader, "VALUES_AT_ONCE", 50)
        numbers = [*range(1000), 10**18, -5]
        values = {n: event(n, abs(n) % 7 + 90 * (n % 10 == 0)) for n in numbers}
        path = write(tmp_path / "many.lmdb", values)
        report, found = read(path, tmp_path / "store")
        assert [*found] == sorted(numbers)
        assert report.num_empty == sum(n % 7 == 0 and n % 10 > 0 for n in range(1000))
        for n in (0, 1, 14, 999, 10**18, -5):
            expected = np.sort(values[n]["Pulses"]["dom_time"]).astype(np.float32)
            np.testing.assert_array_equal(found[n].pulses["dom_time"], expected)
        assert EventStore(tmp_path / "store").manifest.kind == "graphnet-lmdb"

    def test_paths(self, tmp_path: Path) -> None:
        """The file, its folder, several of these, a folder of them."""
        write(tmp_path / "in/a.lmdb", {3: event(3, 2)})
        write(tmp_path / "in/b.lmdb", {1: event(1, 2), 2: event(2, 0)})
        a, b = tmp_path / "in/a.lmdb", tmp_path / "in/b.lmdb"
        for n, path in enumerate((a / "data.mdb", a, [a, b], tmp_path / "in")):
            _, found = read(path, tmp_path / str(n))  # type: ignore[arg-type]
            assert [*found] == ([3] if n < 2 else [3, 1, 2])
        (a / "data.mdb").rename(tmp_path / "c.lmdb")
        assert [*read(tmp_path / "c.lmdb", tmp_path / "c")[1]] == [3]

    def test_joined_tables(self, tmp_path: Path) -> None:
        value = event(1, 5)
        half = {c: v[:2] for c, v in value["Pulses"].items()}
        rest = {c: v[2:] for c, v in value["Pulses"].items()}
        parts = {"A": half, "B": rest, "truth": value["truth"]}
        both = write(tmp_path / "both.lmdb", {1: parts})
        one = write(tmp_path / "one.lmdb", {1: value})
        with pytest.raises(ValueError, match="2 tables of pulses: A, B"):
            read(both, tmp_path / "none")
        _, joined = read(both, tmp_path / "joined", pulses_table=("A", "B"))
        _, whole = read(one, tmp_path / "whole")
        for column, values in whole[1].pulses.items():
            np.testing.assert_array_equal(joined[1].pulses[column], values)

    def test_types(self, tmp_path: Path) -> None:
        """Integers in one event and reals in another are reals; a null is NaN."""
        values = {n: event(n, 2) for n in (1, 2, 3)}
        for n, energy in ((1, 5), (2, 2.5), (3, None)):
            values[n]["truth"] |= {"energy": [energy], "n": [n], "vector": [[n]]}
        values[2]["truth"]["only"] = [1]
        report, found = read(write(tmp_path / "a.lmdb", values), tmp_path / "store")
        assert [found[n].truth["energy"] for n in (1, 2)] == [5.0, 2.5]
        assert np.isnan(found[3].truth["energy"])
        assert found[3].truth["n"] == 3
        assert {"vector", "only"} <= {*report.left_out}

    def test_what_is_no_table_and_lost_events(self, tmp_path: Path) -> None:
        values = {n: event(n, 2, data_representations={"G": "x"}) for n in (1, 2)}
        values[3] = {"data_representations": 1}
        path = write(tmp_path / "a.lmdb", values)
        report, found = read(path, tmp_path / "store")
        assert [*found] == [1, 2]
        notes = "\n".join(report.notes)
        assert notes.count("data_representations") == 1
        assert "truth of event 3" in notes
        report, found = read(path, tmp_path / "all", with_truth=False)
        assert [*found] == [1, 2, 3]
        assert report.num_empty == 1

    def test_events_of_one_pulse(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.lmdb", {n: event(n, 1) for n in (1, 2)})
        assert read(path, tmp_path / "store")[0].num_pulses == 2


class TestFaults:
    @pytest.mark.parametrize(
        "method", [b"pickle", b"dill", b"__custom__", b"\xff" * 99]
    )
    def test_what_could_run_code_is_refused(
        self, tmp_path: Path, method: bytes
    ) -> None:
        path = write(tmp_path / "a.lmdb", {1: b"cos\nsystem\n(S'false'\ntR."}, method)
        with pytest.raises(ValueError, match=r"a\.lmdb.*run code.*msgpack"):
            read(path, tmp_path / "store")

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("seven", event(7, 1), "seven"),
            ("07", event(7, 1), "07"),
            ("9" * 19, event(7, 1), "9999"),
            (7, [1], "event 7.*list"),
            (7, b"{", "event 7.*JSON"),
            (7, b"[" * 100_000, "event 7.*JSON"),
            (7, {"Pulses": [1]}, r"event 7.*LMDBWriter.*Pulses"),
            (7, {"Pulses": {"charge": 1.0}}, r"event 7.*LMDBWriter.*charge"),
            (7, {"Pulses": {"a": [1], "b": [1, 2]}}, r"event 7.*Pulses.*'b': 2"),
            (7, event(8, 1), "event 7.*'event_no' of table 'Pulses'"),
            (7, event(7, 2) | {"Pulses": {"dom_x": [1.0]}}, "dom_y.*event 7"),
            (7, event(7, 1, truth={}), r"lacks event 7"),
        ],
    )
    def test_faults_of_events(
        self, tmp_path: Path, key: Any, value: Any, message: str
    ) -> None:
        path = write(tmp_path / "a.lmdb", {1: event(1, 3), key: value})
        with pytest.raises(ValueError, match=message) as caught:
            read(path, tmp_path / "store")
        assert "a.lmdb" in str(caught.value)

    def test_values_that_fit_no_type(self, tmp_path: Path) -> None:
        for n, (column, odd) in enumerate(
            {"dom_x": "left", "charge": 10**400, "hlc": True}.items()
        ):
            value = event(7, 2)
            value["Pulses"][column][1] = odd
            path = write(tmp_path / f"{n}.lmdb", {1: event(1, 3), 7: value})
            with pytest.raises(ValueError, match=rf"{n}\.lmdb.*event.* 7"):
                read(path, tmp_path / "store")

    @pytest.mark.parametrize("method", [b"json", b"msgpack"])
    def test_damaged_msgpack(self, tmp_path: Path, method: bytes) -> None:
        pytest.importorskip("msgpack")
        path = write(tmp_path / "a.lmdb", {1: b"\xc1\x81"}, method)
        with pytest.raises(ValueError, match=r"a\.lmdb.*event 1"):
            read(path, tmp_path / "store")

    def test_what_is_no_lmdb(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.lmdb", {n: event(n, 40) for n in range(40)})
        data = (path / "data.mdb").read_bytes()
        for damaged in (b"", b"x" * 9000, data[:4096], data[: len(data) // 2]):
            (path / "data.mdb").write_bytes(damaged)
            with pytest.raises(ValueError, match=r"data\.mdb is damaged"):
                read(path, tmp_path / "store")
        (tmp_path / "no.lmdb").mkdir()
        with pytest.raises(ValueError, match=r"no\.lmdb has no LMDB"):
            read(tmp_path / "no.lmdb", tmp_path / "s", format="graphnet-lmdb")


@pytest.mark.graphnet
@pytest.mark.parametrize("method", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("merged", [True, False])
def test_what_graphnet_writes(tmp_path: Path, method: str, merged: bool) -> None:
    """The same as GraphNeT's own reading of what its writer wrote."""
    pd = pytest.importorskip("pandas")
    writers = pytest.importorskip("graphnet.data.writers.lmdb_writer")
    utilities = pytest.importorskip("graphnet.data.utilities.lmdb_utilities")

    def frames(name: str) -> list[Any]:
        return [pd.DataFrame(event(n, n)[name]) for n in (11, 2, 30)]

    tables: dict[str, Any] = {name: frames(name) for name in ("Pulses", "truth")}
    if merged:
        tables = {name: pd.concat(rows) for name, rows in tables.items()}
    writer = writers.LMDBWriter(map_size_bytes=2**26, serialization=method)
    writer._save_file(tables, str(tmp_path / "a.lmdb"), 3)
    if method == "pickle":
        with pytest.raises(ValueError, match="'pickle'"):
            read(tmp_path / "a.lmdb", tmp_path / "store")
        return
    _, found = read(tmp_path / "a.lmdb", tmp_path / "store", sort_pulses=False)
    assert [*found] == utilities.get_all_indices(str(tmp_path / "a.lmdb"))
    for number, view in found.items():
        theirs = utilities.query_database(str(tmp_path / "a.lmdb"), number)
        for column in ("dom_x", "dom_time", "charge"):
            expected = np.array(theirs["Pulses"][column], np.float32)
            np.testing.assert_array_equal(view.pulses[column], expected)
        assert view.truth["kind"] == theirs["truth"]["kind"][0]
