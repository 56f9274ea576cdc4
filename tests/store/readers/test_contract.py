"""The same events in every form give the same store; the same faults are named."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from graphnet_icecube2nd import EventStore, PulseMap, prepare
from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store import prepare_frames
from graphnet_icecube2nd.store.event_store import view_event
from graphnet_icecube2nd.store.photons import PhotonResponse
from graphnet_icecube2nd.store.readers.source import EventChunk

Write = Callable[[Path, Any, Any], Any]  # pulses and truth, returns what to prepare
EVENTS = [12, 3, 40, 7, 25, 31, 8, 19, 2, 16]
LENGTHS = [4, 1, 7, 3, 0, 5, 2, 6, 1, 3]


def make_events() -> tuple[Any, Any]:
    """Ten events, one of them without pulses, as GraphNeT's IceCube tables."""
    rng = np.random.default_rng(1)
    num = sum(LENGTHS)
    columns = {"event_no": np.repeat(EVENTS, LENGTHS)}
    columns |= {f"dom_{axis}": rng.uniform(-400, 400, num) for axis in "xyz"}
    columns |= {"dom_time": rng.uniform(9e3, 2e4, num), "charge": np.ones(num)}
    columns |= {"hlc": rng.integers(0, 2, num), "rde": np.ones(num)}
    columns |= {"width": np.arange(num)}
    truth = {
        "event_no": EVENTS,
        "azimuth": rng.uniform(0, 6, 10),
        "zenith": rng.uniform(0, 3, 10),
        "kind": ["numu", "nue"] * 5,
    }
    return pd.DataFrame(columns), pd.DataFrame(truth)


def flat(folder: Path, pulses: Any, truth: Any) -> Any:
    pulses.to_parquet(folder / "pulses.parquet", row_group_size=7)
    truth.to_parquet(folder / "truth.parquet")
    return folder / "pulses.parquet", {"truth": folder / "truth.parquet"}


def flat_folder(folder: Path, pulses: Any, truth: Any) -> Any:
    """Several files of pulses; which is the truth is known by its columns."""
    flat(folder, pulses, truth)
    half = pulses["event_no"].isin(EVENTS[:5])
    pulses[half].to_parquet(folder / "pulses.parquet")
    pulses[~half].to_parquet(folder / "more.parquet")
    return folder, {}


def merged(folder: Path, pulses: Any, truth: Any) -> Any:
    return _graphnet(folder, pulses, truth, "merged/{0}/{0}_{1}.parquet")


def unmerged(folder: Path, pulses: Any, truth: Any) -> Any:
    return _graphnet(folder, pulses, truth, "{0}/file-{1}_{0}.parquet")


def _graphnet(folder: Path, pulses: Any, truth: Any, pattern: str) -> Any:
    for number, events in enumerate((EVENTS[:6], EVENTS[6:])):
        for name, table in (("SplitPulses", pulses), ("truth", truth)):
            path = folder / pattern.format(name, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = table[table["event_no"].isin(events)].set_index("event_no")
            rows.to_parquet(path)
    return folder, {}


def lists(folder: Path, pulses: Any, truth: Any) -> Any:
    """As `groupby().agg(list)` makes it, with the truth beside the lists."""
    grouped = pulses.groupby("event_no").agg(list)
    wide = truth.join(grouped, on="event_no")
    for column in grouped:
        wide[column] = [v if isinstance(v, list) else [] for v in wide[column]]
    wide.to_parquet(folder / "lists.parquet", index=False)
    return folder / "lists.parquet", {}


def structs(folder: Path, pulses: Any, truth: Any) -> Any:
    """A struct of lists and a struct of truth."""
    wide = pq.read_table(lists(folder, pulses, truth)[0]).to_pylist()
    rows = [
        {
            "event_no": row["event_no"],
            "hits": {c: row[c] for c in pulses if c != "event_no"},
            "labels": {c: row[c] for c in truth},
        }
        for row in wide
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "structs.parquet")
    return folder / "structs.parquet", {}


def list_of_structs(folder: Path, pulses: Any, truth: Any) -> Any:
    names = [column for column in pulses if column != "event_no"]
    wide = pq.read_table(lists(folder, pulses, truth)[0])
    rows = [
        {**{c: row[c] for c in truth}, "hits": _transposed(row, names)}
        for row in wide.to_pylist()
    ]
    rows.sort(key=lambda row: not row["hits"])  # the type is that of the first
    order = [EVENTS.index(row["event_no"]) for row in rows]
    table = pa.Table.from_pylist(rows).take(np.argsort(order))
    pq.write_table(table, folder / "hits.parquet")
    return folder / "hits.parquet", {}


def _transposed(row: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    values = zip(*(row[name] for name in names), strict=True)
    return [dict(zip(names, pulse, strict=True)) for pulse in values]


def database(folder: Path, pulses: Any, truth: Any) -> Any:
    with sqlite3.connect(folder / "events.db") as connection:
        pulses.to_sql("SplitPulses", connection, index=False)
        truth.to_sql("truth", connection, index=False)
    return folder / "events.db", {}


def hdf5_with_events(folder: Path, pulses: Any, truth: Any) -> Any:
    """Pulses and truth with a column of the event number."""
    return _hdf5(folder, {"hits": pulses, "truth": truth})


def hdf5_with_rows(folder: Path, pulses: Any, truth: Any) -> Any:
    """The pulses of each event lie between offsets."""
    place = pd.Series(range(len(truth)), index=truth["event_no"])
    pulses = pulses[pulses["event_no"].isin(place.index)]
    event = pulses["event_no"].map(place)
    count = np.bincount(event, minlength=len(truth))
    pulses = pulses.iloc[np.argsort(event, kind="stable")].drop(columns="event_no")
    tables = {"hits": pulses, "truth": truth}
    return _hdf5(folder, tables, offsets=np.append(0, np.cumsum(count)))


def _hdf5(folder: Path, tables: dict[str, Any], **more: Any) -> Any:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "events.h5", "w") as file:
        for name, table in tables.items():
            for column, values in table.items():
                if values.isna().any() and str(values.dtype) == "Int64":
                    pytest.skip("integers of HDF5 have no null")
                is_text = not pd.api.types.is_numeric_dtype(values)
                file[f"{name}/{column}"] = values.tolist() if is_text else values
        for name, content in more.items():
            file[name] = content
    return folder / "events.h5", {}


def lmdb_json(folder: Path, pulses: Any, truth: Any) -> Any:
    return _lmdb(folder, pulses, truth, "json", lambda v: json.dumps(v).encode())


def lmdb_msgpack(folder: Path, pulses: Any, truth: Any) -> Any:
    packb = pytest.importorskip("msgpack").packb
    return _lmdb(folder, pulses, truth, "msgpack", packb)


def _lmdb(folder: Path, pulses: Any, truth: Any, method: str, dumps: Any) -> Any:
    """As GraphNeT's LMDBWriter: a value of all tables for each event."""
    tables = {"SplitPulses": pulses, "truth": truth}
    for number, events in enumerate((EVENTS[:6], EVENTS[6:])):
        values = {}
        for event in events:
            rows = {n: t[t["event_no"] == event] for n, t in tables.items()}
            values[event] = {n: t.to_dict("list") for n, t in rows.items() if len(t)}
        write_lmdb(folder / f"{number}.lmdb", values, method, dumps)
    return folder, {}


def write_lmdb(folder: Path, values: Any, method: str, dumps: Any) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=2**26) as file, file.begin(write=True) as txn:
        txn.put(b"__meta_serialization__", method.encode())
        for event, value in values.items():
            txn.put(str(event).encode(), dumps(value))


def frames(folder: Path, pulses: Any, truth: Any) -> Any:
    return (pulses, truth), {}


FORMS = [
    *(flat, flat_folder, merged, unmerged),
    *(lists, structs, list_of_structs, database, hdf5_with_events, hdf5_with_rows),
    *(lmdb_json, lmdb_msgpack, frames),
]


def made(form: Write, folder: Path, pulses: Any, truth: Any, **options: Any) -> Any:
    """Return report and store of events in a form."""
    (folder / "in").mkdir(parents=True)
    given, more = form(folder / "in", pulses, truth)
    if form is frames:
        report = prepare_frames(*given, folder / "store", **options)
    else:
        options = {"workers": 1, **more, **options}
        report = prepare(given, folder / "store", **options)
    return report, EventStore(folder / "store")


def kind_of(form: Write) -> str | None:
    kinds = {database: "graphnet-sqlite", lmdb_json: "graphnet-lmdb"}
    return kinds.get(form)


def files_in(*paths: Path) -> list[Path]:
    inside = [file for path in paths for file in (path, *path.rglob("*"))]
    return [file for file in inside if file.is_file() and file.name != "lock.mdb"]


def parts_of(form: Write, folder: Path, pulses: Any, truth: Any) -> list[Any]:
    sources: list[Any] = []
    made(form, folder, pulses, truth, on_source=sources.append)
    return [*sources[0].parts]


def contents(store: EventStore) -> dict[int, Any]:
    """Return pulses and truth by event."""
    views = [view_event(store, number) for number in range(len(store))]
    return {
        view.event_id: (
            {name: values.tolist() for name, values in view.pulses.items()},
            dict(view.truth),
        )
        for view in views
    }


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    def test_same_store(self, form: Write, tmp_path: Path) -> None:
        pulses, truth = make_events()
        report, store = made(form, tmp_path, pulses, truth, keep="width")
        assert (report.num_events, report.num_pulses, report.num_empty) == (10, 32, 1)
        assert store.pulse_map == PulseMap.icecube86()
        found = contents(store)
        assert sorted(found) == sorted(EVENTS)
        for event, own in pulses.groupby("event_no"):
            own = own.sort_values("dom_time").drop(columns="event_no")
            for column, values in own.items():
                expected = values.to_numpy().astype(np.float32)
                assert found[event][0][column] == expected.tolist(), column
        for row in truth.to_dict("records"):
            labels = found[row.pop("event_no")][1]
            assert {name: labels[name] for name in row} == row
        assert any("truth" in text for text in report.tables)

    def test_order_of_rows_does_not_matter(self, form: Write, tmp_path: Path) -> None:
        pulses, truth = make_events()
        _, before = made(form, tmp_path / "a", pulses, truth)
        mixed = pulses.sample(frac=1, random_state=3)
        _, after = made(form, tmp_path / "b", mixed, truth[::-1])
        assert contents(after) == contents(before)

    def test_columns_by_name(self, form: Write, tmp_path: Path) -> None:
        """A column of another name, and one that is not there."""
        pulses, truth = make_events()
        pulses = pulses.rename(columns={"charge": "light"}).drop(columns="hlc")
        with pytest.raises(ValueError, match=r"--column charge=none"):
            made(form, tmp_path / "a", pulses, truth)
        columns = {"charge": "light", "hlc": None}
        report, store = made(form, tmp_path / "b", pulses, truth, columns=columns)
        assert (store.pulse_map.charge, store.pulse_map.hlc) == ("light", None)
        assert report.num_pulses == 32
        with pytest.raises(ValueError, match="'lc'"):
            made(form, tmp_path / "c", pulses, truth, columns={"lc": None})
        with pytest.raises(ValueError, match=r"no column 'widht'.*'width'"):
            made(form, tmp_path / "d", pulses, truth, keep="widht", columns=columns)

    def test_parts_pickle_and_tell_changes(self, form: Write, tmp_path: Path) -> None:
        if form is frames:
            pytest.skip("frames are not sent to processes")
        pulses, truth = make_events()
        before = parts_of(form, tmp_path / "a", pulses, truth)
        again = [pickle.loads(pickle.dumps(part)) for part in before]
        prints = [part.fingerprint() for part in before]
        assert [part.fingerprint() for part in again] == prints
        assert len({*map(str, prints)}) == len(prints)
        json.dumps(prints)
        # What is read of the truth counts, sentences on it do not.
        if (truth_read := getattr(part := before[0], "truth", None)) is not None:
            for change, is_same in (
                ({"notes": ("so",)}, True),
                ({"columns": ()}, False),
            ):
                other = replace(part, truth=replace(truth_read, **change))
                assert (other.fingerprint() == part.fingerprint()) == is_same
        for one, other in zip(before, again, strict=True):
            ids = [
                [id for chunk in part.chunks(3) for id in chunk.event_id.tolist()]
                for part in (one, other)
            ]
            assert ids[0] == ids[1] != []
        for path in files_in(tmp_path / "a" / "in"):
            os.utime(path, (1, 1))
        changed = [part.fingerprint() for part in before]
        assert all(old != new for old, new in zip(prints, changed, strict=True))

    def test_files_cut_off_or_foreign(self, form: Write, tmp_path: Path) -> None:
        if form is frames:
            pytest.skip("frames are not files")
        pulses, truth = make_events()
        (tmp_path / "in").mkdir()
        given, more = form(tmp_path / "in", pulses, truth)
        options = {**more, "workers": 1, "format": kind_of(form)}
        for path in files_in(given, *more.values()):
            content = path.read_bytes()
            for damaged in (content[:-50], content[: len(content) // 2], b"PAR1" * 99):
                if path.suffix == ".mdb" and damaged == content[:-50]:
                    continue  # of the last page
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match=re.escape(path.name)):
                    prepare(given, tmp_path / "store", **options)
                shutil.rmtree(tmp_path / "store", ignore_errors=True)
            path.write_bytes(content)
        assert prepare(given, tmp_path / "store", **options).num_events == 10
        if Path(given).is_file():
            with pytest.raises(ValueError, match="is given twice"):
                prepare([given, given], tmp_path / "twice", **options)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dom_time": np.nan}, "event 40"),
            ({"charge": -1.0}, "event 40.*charge"),
            ({"dom_x": "left"}, "dom_x"),
        ],
    )
    def test_faults_of_pulses(
        self, form: Write, tmp_path: Path, change: Any, message: str
    ) -> None:
        pulses, truth = make_events()
        (column, value), *_ = change.items()
        if isinstance(value, str):
            pulses[column] = value
        else:
            pulses.loc[(pulses["event_no"] == 40).idxmax(), column] = value
        with pytest.raises(ValueError, match=message) as caught:
            made(form, tmp_path, pulses, truth)
        assert str(tmp_path) in str(caught.value) or form is frames

    @pytest.mark.parametrize("column", ["charge", "hlc", "width", "sensor_id", "time"])
    def test_nulls_of_integers(self, form: Write, tmp_path: Path, column: str) -> None:
        """A null costs its pulse; integers that are kept stay integers."""
        pulses, truth = make_events()
        pulse_map = PulseMap.icecube86()
        if column in ("sensor_id", "time"):
            places = [f"dom_{axis}" for axis in "xyz"]
            pulses = pulses.drop(columns=[*places, "hlc", "rde"])
            pulses = pulses.rename(columns={"dom_time": "time"})
            pulses["time"] = pulses["time"].astype("int64")
            pulses["sensor_id"], pulses["auxiliary"] = pulses["width"], 0
            pulse_map = PulseMap.kaggle(time_reference="first_pulse")
        pulses[column] = pulses[column].astype("Int64")
        row = (pulses["event_no"] == 40).idxmax() + 2
        lost = pulses.loc[row, "width"]
        pulses.loc[row, column] = pd.NA
        options = {"keep": "width", "pulse_map": pulse_map}
        with pytest.raises(ValueError, match=rf"event 40.*{column}.*--drop-bad") as why:
            made(form, tmp_path / "a", pulses, truth, **options)
        assert str(tmp_path) in str(why.value) or form is frames
        options["drop_bad_pulses"] = True
        report, store = made(form, tmp_path / "b", pulses, truth, **options)
        assert report.num_pulses == 31
        assert any(f"bad {column} 1)" in text for text in report.notes)
        widths = contents(store)[40][0]["width"]
        assert lost not in widths
        assert len(widths) == 6
        assert store.manifest.pulse_columns["width"] == "int64"
        if form is frames:
            return
        options = {**options, "drop_bad_pulses": False, "mark_bad_events": True}
        _, store = made(form, tmp_path / "c", pulses, truth, **options)
        assert contents(store)[40][1]["pulse_fault"] == f"bad {column}"
        assert len(contents(store)[3][0]["width"]) == 1

    @pytest.mark.parametrize(
        ("fault", "message"),
        [("lost", "lacks event 40"), ("degrees", "event 40.*zenith.*rad")],
    )
    def test_faults_of_truth(
        self, form: Write, tmp_path: Path, fault: str, message: str
    ) -> None:
        pulses, truth = make_events()
        if fault == "lost":
            if form in (lists, structs, list_of_structs, hdf5_with_rows):
                pytest.skip("each row has its truth")
            truth = truth[truth["event_no"] != 40]
        else:
            truth.loc[truth["event_no"] == 40, "zenith"] = 90.0
        with pytest.raises(ValueError, match=message) as caught:
            made(form, tmp_path, pulses, truth)
        assert str(tmp_path) in str(caught.value) or form is frames

    def test_without_truth(self, form: Write, tmp_path: Path) -> None:
        pulses, truth = make_events()
        if form is frames:
            report, store = made(form, tmp_path, pulses, None)
        else:
            report, store = made(form, tmp_path, pulses, truth, with_truth=False)
        assert report.num_pulses == 32
        assert not store.has_directions
        assert [text[:7] for text in report.tables] == ["pulses:"]


@pytest.mark.parametrize("form", [merged, unmerged, database])
def test_pulses_of_two_tables_are_joined(form: Write, tmp_path: Path) -> None:
    pulses, truth = make_events()
    _, one = made(form, tmp_path / "one", pulses, truth)
    (tmp_path / "in").mkdir()
    late = np.arange(len(pulses)) % 3 == 0
    form(tmp_path / "in", pulses[late], truth)
    if form is database:
        with sqlite3.connect(tmp_path / "in" / "events.db") as connection:
            connection.execute("ALTER TABLE SplitPulses RENAME TO Late")
            connection.execute("DROP TABLE truth")
    for path in sorted(tmp_path.glob("in/**/*SplitPulses*.parquet")):
        other = Path(str(path).replace("SplitPulses", "Late"))
        other.parent.mkdir(parents=True, exist_ok=True)
        path.rename(other)
    form(tmp_path / "in", pulses[~late], truth)
    with pytest.raises(ValueError, match="2 tables of pulses: Late, Split"):
        prepare(tmp_path / "in", tmp_path / "none", workers=1)
    both = ("SplitPulses", "Late")
    for sort in (True, False):
        out = tmp_path / f"both {sort}"
        report = prepare(
            tmp_path / "in", out, pulses_table=both, workers=1, sort_pulses=sort
        )
        assert report.num_pulses == 32
        assert all(name in report.tables[0] for name in both)
        assert contents(EventStore(out)) == contents(one)


class TestKM3NeT:
    """Tables of GraphNeT's KM3NeT converter."""

    @pytest.mark.parametrize("pulse_map", [None, "km3net"])
    def test_directions_and_triggers(
        self, tmp_path: Path, pulse_map: str | None
    ) -> None:
        rng = np.random.default_rng(0)
        event = np.repeat([5, 6], 6)
        names = [f"{kind}_{axis}" for kind in ("pos", "dir") for axis in "xyz"]
        pulses = pd.DataFrame({name: rng.uniform(-1, 1, 12) for name in names})
        pulses["event_no"], pulses["t"] = event, np.arange(12.0)
        pulses["tot"], pulses["trig"] = 30, [0, 1, 2, 4, 0, 8] * 2
        flight = np.array([[0.6, 0.0, -0.8], [0.0, 0.6, 0.8]])  # as the converter
        truth = pd.DataFrame(
            {"event_no": [5, 6], "true_zenith": np.arccos(flight[:, 2])}
        )
        truth["true_azimuth"] = np.arctan2(flight[:, 1], flight[:, 0]) + np.pi
        report, store = made(
            flat_folder_of_two, tmp_path, pulses, truth, pulse_map=pulse_map
        )
        found = contents(store)
        assert found[5][0]["trig"] == [0, 1, 1, 1, 0, 1]
        assert found[6][0]["dir_z"] == pytest.approx(pulses["dir_z"][6:].tolist())
        angles = [[found[e][1][n] for e in (5, 6)] for n in ("zenith", "azimuth")]
        origin = angles_to_unit_vector(*np.array(angles))
        np.testing.assert_allclose(origin, -flight, atol=1e-12)
        assert store.pulse_map.labels.angles == "origin"
        assert "true_azimuth" in " ".join(report.notes)

    def test_fillers_are_no_directions(self, tmp_path: Path) -> None:
        columns = {name: [0.0] for name in ("pos_x", "pos_y", "pos_z", "t")}
        columns |= {name: [1.0] for name in ("dir_x", "dir_y", "dir_z", "tot", "trig")}
        pulses = pd.DataFrame({"event_no": [1], **columns})
        truth = {"event_no": [1], "true_zenith": [888.0], "true_azimuth": [888.0]}
        names = ("E", "pdgid", "pos_x", "pos_y", "pos_z", "dir_x", "dir_y", "dir_z")
        truth |= {f"true_{name}": [888.0] for name in names}
        truth |= {"is_cc_flag": [888.0], "tau_topology": [888.0], "n_hits": [1]}
        _, store = made(flat_folder_of_two, tmp_path, pulses, pd.DataFrame(truth))
        assert np.isnan(contents(store)[1][1]["zenith"])
        labels = ("direction", "energy", "vertex", "topology", "track")
        batch = EventReader(store, truth=labels).batch(np.array([0]))
        assert all(bool(value.isnan().all()) for value in batch.truth.values())

    def test_labels(self, tmp_path: Path) -> None:
        """All truth columns of the converter's extractor."""
        columns = {name: [0.0] * 2 for name in ("pos_x", "pos_y", "pos_z", "t")}
        for name in ("dir_x", "dir_y", "dir_z", "tot", "trig"):
            columns[name] = [1.0] * 2
        pulses = pd.DataFrame({"event_no": [1, 2], **columns})
        truth = {"event_no": [1, 2], "true_zenith": [1.0, 2.0]}
        truth |= {"true_azimuth": [3.0, 4.0], "true_E": [30.0, 7.0]}
        truth |= {"true_pdgid": [14.0, -12.0], "is_cc_flag": [1, 0]}
        truth |= {f"true_pos_{axis}": [1.5, -2.5] for axis in "xyz"}
        truth |= {f"true_dir_{axis}": [0.0, 0.0] for axis in "xyz"}
        for name in ("run_id", "evt_id", "frame_index", "trigger_counter", "n_hits"):
            truth[name] = [3, 4]
        _, store = made(flat_folder_of_two, tmp_path, pulses, pd.DataFrame(truth))
        labels = ("energy", "vertex", "track", "neutrino")
        found = EventReader(store, truth=labels).batch(np.arange(2)).truth
        assert found["energy"].tolist() == [30.0, 7.0]
        assert found["track"].tolist() == [1.0, 0.0]
        assert found["neutrino"].tolist() == [1.0, 1.0]
        assert found["vertex"][:, :3].tolist() == [[1.5] * 3, [-2.5] * 3]
        assert store.detector.vectors == (("dir_x", "dir_y", "dir_z"),)


def flat_folder_of_two(folder: Path, pulses: Any, truth: Any) -> Any:
    flat(folder, pulses, truth)
    return folder, {}


class TestNuBench:
    """SQLite and parquet of NuBench: two tables of pulses, selections of events."""

    @pytest.mark.parametrize("form", [database, merged])
    def test_tables_and_selections(self, form: Write, tmp_path: Path) -> None:
        event = np.repeat([7, 19, 2], [2, 3, 1])
        pulses = pd.DataFrame({"event_no": event, "t": np.arange(6.0)})
        for axis in "xyz":
            pulses[f"sensor_pos_{axis}"] = np.arange(6) * 10.0
        pulses["charge"] = [1.0, 2.0, 1.0, 1.0, 3.0, 1.0]
        pulses["is_signal"], pulses["pmt_id"] = 1.0, 7
        truth = {"event_no": [7, 19, 2], "interaction": [1, 2, 1]}
        truth |= {f"initial_state_{axis}": [0.0, 5.0, 9.0] for axis in "xyz"}
        truth |= {"initial_state_type": 14, "initial_state_energy": [10.0, 20.0, 30.0]}
        truth |= {"initial_state_zenith": 1.0, "initial_state_azimuth": 2.0}
        truth |= {"bjorken_x": 0.5, "bjorken_y": [0.1, 0.2, 0.3]}
        truth |= {"visible_inelasticity": 0.5, "muon_azimuth": -1.0}
        truth |= {"muon_zenith": -1.0}
        made(form, tmp_path, pulses, pd.DataFrame(truth), angles="origin")
        options = {"angles": "origin", "detector": "nubench_triangle", "workers": 1}
        selection = tmp_path / "train_selection.parquet"
        pd.DataFrame({"event_no": [19, 2, 77]}).to_parquet(selection)
        path = tmp_path / "in"
        if form is database:
            with sqlite3.connect(path / "events.db") as connection:
                connection.execute("ALTER TABLE SplitPulses RENAME TO merged_photons")
                connection.execute(
                    "CREATE TABLE pulses_no_noise AS SELECT * FROM merged_photons "
                    "WHERE event_no = 19"
                )
            with pytest.raises(ValueError, match="merged_photons, pulses_no_noise"):
                prepare(path, tmp_path / "s", **options)
            options["pulses_table"] = "merged_photons"
            # The new numbers are not those of the list.
            both = {**options, "duplicates": "renumber", "event_list": selection}
            with pytest.raises(ValueError, match=r"--event-list .*renumber"):
                prepare(path, tmp_path / "s", **both)
        report = prepare(path, tmp_path / "s", event_list=selection, **options)
        store = EventStore(tmp_path / "s")
        assert sorted(store.whole_event_column("event_id").tolist()) == [2, 19]
        assert report.num_pulses == 4
        assert "2 of 3 events of the list" in " ".join(report.notes)
        found = contents(store)
        assert found[19][0]["charge"] == [1, 1, 3]
        labels = ("energy", "track", "inelasticity", "direction", "vertex")
        batch = EventReader(store, truth=labels).batch(np.arange(2))
        row = batch.event_id.tolist().index(2)
        assert batch.truth["energy"][row] == 30
        assert batch.truth["track"].tolist() == [row == 0, row == 1]
        assert float(batch.truth["inelasticity"][row]) == pytest.approx(0.3)
        pd.DataFrame({"number": [19]}).to_parquet(selection)
        with pytest.raises(ValueError, match=r"train_selection\.parquet.*number"):
            prepare(path, tmp_path / "t", event_list=selection, **options)


class TestPhotons:
    """Single photons of Prometheus become pulses."""

    @pytest.fixture
    def photons(self, tmp_path: Path) -> Path:
        """Two rows of a file: a module with a train of photons, and many photons."""
        rng = np.random.default_rng(2)
        times = ([0.0, 4.0, 8.0, 3.0, 20.0], rng.uniform(0, 500, 4000).tolist())
        modules = ([0, 0, 0, 1, 0], rng.integers(0, 9, 4000).tolist())
        rows = []
        for time, module in zip(times, modules, strict=True):
            place = {f"sensor_pos_{axis}": [10.0 * m for m in module] for axis in "xyz"}
            ids = {"string_id": module, "sensor_id": module, "id_idx": module}
            truth = {f"initial_state_{axis}": 1.0 for axis in "xyz"}
            truth |= {"interaction": 1, "initial_state_energy": 50.0, "bjorken_y": 0.25}
            truth |= {"initial_state_type": 14, "initial_state_zenith": 0.5}
            truth |= {"initial_state_azimuth": 1.0, "final_state_type": [13, 211]}
            rows.append({"photons": {**place, **ids, "t": time}, "mc_truth": truth})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "photons.parquet")
        return tmp_path / "photons.parquet"

    def read(self, path: Path, name: str, **photons: Any) -> tuple[Any, Any]:
        out = path.parent / name
        given = {"photons": photons} if photons else {}
        report = prepare(path, out, angles="flight", workers=1, **given)
        return report, EventStore(out)

    def test_they_are_merged_in_their_module(self, photons: Path) -> None:
        report, store = self.read(photons, "plain")
        assert report.num_pulses == 4005
        assert "charge" not in store.pulse_columns
        report, store = self.read(photons, "merged", merge_time=5.0)
        pulses, truth = contents(store)[0]
        # 8 is more than 5 after 0, where the first pulse began.
        assert pulses["t"] == [0, 1, 6, 18]
        assert pulses["charge"] == [2, 1, 1, 1]
        assert pulses["sensor_pos_x"] == [0, 10, 0, 0]
        assert truth["bjorken_y"] == 0.25
        assert store.detector.pulses.charge == "charge"
        total = store.shards[0].pulses.column("charge").sum()
        assert total == 4005
        assert any("pulses were made of photons" in note for note in report.notes)

    @pytest.mark.parametrize("absurd", [300.0, 1e14])
    def test_an_absurd_time_is_alone(self, absurd: float) -> None:
        rng = np.random.default_rng(0)
        offsets = np.array([0, 300, 300, 800])
        module, time = rng.integers(0, 5, 800), rng.uniform(0, 300, 800)
        time[5] = absurd
        columns = {f"sensor_pos_{axis}": 10.0 * module for axis in "xyz"}
        chunk = EventChunk(
            columns={**columns, "t": time}, offsets=offsets, event_id=np.arange(3)
        )
        found = PhotonResponse(merge_time=5.0)(chunk, PulseMap.prometheus())
        expected = []
        for event in range(3):
            here = slice(offsets[event], offsets[event + 1])
            pulses = []
            for place in range(5):
                late = np.sort(time[here][module[here] == place])
                while len(late):
                    together = late <= late[0] + 5.0
                    mean = late[0] + (late[together] - late[0]).mean()
                    pulses.append((mean, together.sum(), 10.0 * place))
                    late = late[~together]
            expected += sorted(pulses)
        for name, values in zip(
            ("t", "charge", "sensor_pos_x"), np.transpose(expected), strict=True
        ):
            np.testing.assert_allclose(found.columns[name], values, rtol=1e-12)

    def test_acceptance_and_times(self, photons: Path) -> None:
        """Drawn for each event by its number: the same whatever else is read."""
        options = {"acceptance": 0.25, "time_spread": 3.0, "seed": 1}
        report, store = self.read(photons, "one", **options)
        assert report.num_pulses == pytest.approx(1000, abs=100)
        again = self.read(photons, "again", **options)[1]
        assert contents(again) == contents(store)
        assert contents(self.read(photons, "b", **{**options, "seed": 2})[1]) != (
            contents(store)
        )
        _, smeared = self.read(photons, "smeared", time_spread=3.0)
        late = np.array(contents(smeared)[0][0]["t"]) + float(
            smeared.whole_event_column("time_origin")[0]
        )
        assert len(late) == 5
        assert set(late.tolist()).isdisjoint({0.0, 3.0, 4.0, 8.0, 20.0})
        assert np.abs(late - [0, 3, 4, 8, 20]).max() < 18
        pd.DataFrame({"event_no": [1]}).to_parquet(photons.parent / "list.parquet")
        out = photons.parent / "few"
        prepare(
            photons, out, angles="flight", workers=1, photons=options,
            event_list=photons.parent / "list.parquet",
        )  # fmt: skip
        assert contents(EventStore(out)) == {1: contents(store)[1]}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"acceptance": 0.0}, r"photons\.acceptance"),
            ({"merge_time": -1.0}, r"photons\.merge_time"),
            ({"window": 1.0}, r"photons\.window"),
        ],
    )
    def test_options(
        self, photons: Path, options: dict[str, float], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            self.read(photons, "x", **options)
        assert not (photons.parent / "x").exists()

    @pytest.mark.parametrize("absent", [{}, {"charge": None}, {"hlc": None}])
    def test_pulses_are_no_photons(
        self, tmp_path: Path, absent: dict[str, None]
    ) -> None:
        """Hits of KM3NeT have a flag but no charge."""
        pulses, truth = make_events()
        options = {"photons": {"merge_time": 2.0}, "columns": absent}
        with pytest.raises(ValueError, match="single photons"):
            made(flat, tmp_path, pulses, truth, **options)


class TestResults:
    """What was reconstructed is no truth unless it is named."""

    @pytest.mark.parametrize(
        "columns",
        [
            {"azimuth": 1.0, "zenith": 1.0, "kappa": 3.0, "status": "ok"},
            {"azimuth": 1.0, "zenith": 1.0, "zenith_pred": 1.0},
            {"azimuth": 1.0, "zenith": 1.0, "energy_reco": 1.0},
        ],
    )
    def test_results_are_no_truth(self, tmp_path: Path, columns: Any) -> None:
        pulses, truth = make_events()
        results = truth[["event_no"]].assign(**columns)
        flat(tmp_path, pulses, results)
        report = prepare(tmp_path, tmp_path / "store", workers=1)
        assert not EventStore(tmp_path / "store").has_directions
        assert "truth.parquet" in " ".join(report.notes)
        merged(tmp_path / "m", pulses, results)
        with pytest.raises(ValueError, match="not used as truth: truth"):
            prepare(tmp_path / "m", tmp_path / "s", workers=1)
        database(tmp_path, pulses, results)
        with pytest.raises(ValueError, match="not used as truth: truth"):
            prepare(tmp_path / "events.db", tmp_path / "s", workers=1)
        named = {"truth_table": "truth", "workers": 1}
        report = prepare(tmp_path / "m", tmp_path / "s", **named)
        assert "truth_0.parquet" in report.tables[1]

    def test_results_beside_a_truth(self, tmp_path: Path) -> None:
        pulses, truth = make_events()
        flat(tmp_path, pulses, truth)
        truth.assign(kappa=1.0, status="ok").to_parquet(tmp_path / "a_result.parquet")
        report = prepare(tmp_path, tmp_path / "store", workers=1)
        assert report.tables[1].endswith("truth.parquet")
        assert "a_result.parquet" in " ".join(report.notes)


class TestHostileFiles:
    """A small file does not take all memory."""

    @pytest.mark.parametrize("nested", [False, True])
    def test_more_values_than_a_file_can_hold(
        self, tmp_path: Path, nested: bool
    ) -> None:
        num = 3_000_000
        names = ("dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde")
        columns: dict[str, Any] = {name: pa.array(np.ones(num)) for name in names}
        ids = pa.array(np.ones(num, np.int64))
        if nested:
            borders = pa.array([0, num], pa.int32())
            columns = {
                name: pa.ListArray.from_arrays(borders, values)
                for name, values in columns.items()
            }
            ids = ids.slice(0, 1)
        path = tmp_path / "bomb.parquet"
        pq.write_table(pa.table({"event_no": ids, **columns}), path)
        assert path.stat().st_size < 50_000
        with pytest.raises(ValueError, match=r"bomb.parquet.* values in .* bytes"):
            prepare(path, tmp_path / "store", workers=1, with_truth=False)

    @pytest.mark.parametrize("form", [flat, structs, database, lmdb_json])
    def test_texts_that_are_too_long(self, form: Write, tmp_path: Path) -> None:
        """The second text stands in few bytes, for all events."""
        pulses, truth = make_events()
        truth.loc[3, "kind"] = "long " * 20_000
        with pytest.raises(ValueError, match=r"in.*'kind' .*65536 bytes"):
            made(form, tmp_path / "a", pulses, truth)
        truth["kind"] = "b" * 65_000
        made(form, tmp_path / "b", pulses, truth)

    @pytest.mark.parametrize("dictionary", [True, False])
    def test_many_texts_of_few_bytes(self, tmp_path: Path, dictionary: bool) -> None:
        num = 6_000
        path, column = tmp_path / "truth.parquet", ["b" * 60_000] * num
        known = {"event_no": range(num), "azimuth": np.ones(num), "kind": column}
        table = pa.table(known | {"zenith": np.ones(num)})
        pq.write_table(table, path, compression="zstd", use_dictionary=dictionary)
        assert path.stat().st_size < 200_000
        pulses, _ = make_events()
        pulses.to_parquet(tmp_path / "pulses.parquet")
        with pytest.raises(ValueError, match=r"truth.parquet: 'kind'"):
            prepare(tmp_path / "pulses.parquet", tmp_path / "s", truth=path, workers=1)

    def test_an_event_of_too_many_pulses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from graphnet_icecube2nd.store.readers import table_part

        monkeypatch.setattr(table_part, "EVENT_PULSES", 6)
        with pytest.raises(ValueError, match=r"pulses.parquet: .* event 40 has 7"):
            made(flat, tmp_path, *make_events())

    @pytest.mark.parametrize("far", [0, 2**22])
    def test_scattered_rows_are_read_again_and_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: int
    ) -> None:
        from graphnet_icecube2nd.store.readers import table_part

        pulses, truth = make_events()
        _, before = made(flat, tmp_path / "a", pulses, truth)
        monkeypatch.setattr(table_part, "GATHERED_PULSES", 1)
        monkeypatch.setattr(table_part, "FAR", far)
        mixed = pulses.sample(frac=1, random_state=3)
        options = {"shard_pulses": 5}
        _, after = made(flat, tmp_path / "b", mixed, truth, **options)
        assert contents(after) == contents(before)
