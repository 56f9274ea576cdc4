"""Flat parquet files: pulses in one or several, truth in others."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from graphnet_icecube2nd import PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.readers.columns import (
    choose_columns,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.parquet import parquet_source

IDS, LENGTHS = [5, 3, 9], [4, 2, 3]


@pytest.fixture
def hits(tmp_path: Path, write: Callable[..., Path], pulses: Any) -> Path:
    return write(tmp_path / "hits.parquet", pulses(IDS, LENGTHS))


@pytest.fixture
def truth(tmp_path: Path, write: Callable[..., Path]) -> Path:
    columns = {
        "event_id": [3, 5, 9],
        "azimuth": [0.1, 0.2, 0.3],
        "zenith": [1.1, 1.2, 1.3],
        "flavour": ["e", "mu", "tau"],
        "track": [False, True, False],
        "path": [[1.0], [2.0, 3.0], []],
        "n_pulses": [2, 4, 3],
    }
    return write(tmp_path / "truth.parquet", columns)


class TestColumns:
    @pytest.mark.parametrize(
        ("columns", "name"),
        [
            ("sensor_id time charge auxiliary event_id", "kaggle"),
            ("sensor_id time charge auxiliary x y z", "kaggle"),
            ("dom_x dom_y dom_z dom_time charge", "icecube86"),
            ("dom_x dom_y dom_z dom_time pmt_dir_x hlc", "upgrade"),
            ("sensor_pos_x sensor_pos_y sensor_pos_z t sensor_id", "prometheus"),
            ("dom_id x y z t tot trig", "km3net"),
            ("x y z t", None),
            ("", None),
        ],
    )
    def test_recognised(self, columns: str, name: str | None) -> None:
        found = recognise_pulse_map(columns.split())
        assert found == (PulseMap.by_name(name) if name else None)

    def test_choice(self) -> None:
        available = ["width", "charge", "sensor_id", "time", "auxiliary", "fadc"]
        kaggle = PulseMap.kaggle()
        known = ("time", "charge", "auxiliary", "sensor_id")
        assert choose_columns(available, kaggle) == (known, ("width", "fadc"))
        assert choose_columns(available, kaggle, ["fadc", "time"]) == (
            (*known, "fadc"),
            ("width",),
        )
        assert choose_columns(available, kaggle, "all") == (
            (*known, "width", "fadc"),
            (),
        )
        assert choose_columns(available, kaggle, "width")[1] == ("fadc",)
        message = "no column 'widht' to keep (similar: 'width')"
        with pytest.raises(ValueError, match=re.escape(message)):
            choose_columns(available, kaggle, ["widht"])


class TestWhatIsRead:
    def test_pair(self, hits: Path, truth: Path, read: Any, pulses: Any) -> None:
        source = parquet_source(hits, truth)
        assert source.pulse_map == PulseMap.kaggle()
        assert source.kind == "parquet"
        assert source.left_out == ("path", "n_pulses")
        assert "left out: path" in " ".join(source.notes)
        assert "'n_pulses' is left out" in " ".join(source.notes)
        found = read(source, 5)
        assert (found.event_id, found.lengths) == (IDS, LENGTHS)
        assert found.sizes == [4, 5]
        assert found.first_rows == [0, 4]
        assert found.truth == {
            "azimuth": [0.2, 0.1, 0.3],
            "zenith": [1.2, 1.1, 1.3],
            "flavour": ["mu", "e", "tau"],
            "track": [True, False, False],
        }
        for column, values in found.columns.items():
            assert values.tolist() == pulses(IDS, LENGTHS)[column].tolist()

    def test_conversion(self, hits: Path, truth: Path, tmp_path: Path) -> None:
        source = parquet_source(hits, truth)
        manifest = convert(source, tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (3, 9)
        assert manifest.event_columns["flavour"] == "string"
        assert manifest.event_columns["track"] == "uint8"

    def test_truth_without_pulses(
        self, hits: Path, truth: Path, write: Any, read: Any
    ) -> None:
        table = pq.read_table(truth)
        extra = {**table.slice(1, 1).to_pylist()[0], "event_id": 4}
        write(truth, pa.concat_tables([table, pa.Table.from_pylist([extra])]))
        found = read(parquet_source(hits, truth))
        assert found.event_id == [*IDS, 4]
        assert found.lengths == [*LENGTHS, 0]
        assert found.truth["flavour"] == ["mu", "e", "tau", "mu"]
        assert "event 4 of " in found.notes[-1]
        assert "kept as events with 0 pulses" in found.notes[-1]

    def test_names_of_the_event_key(self, hits: Path, truth: Path, read: Any) -> None:
        def rename(path: Path, name: str) -> None:
            table = pq.read_table(path)
            names = [name if c == "event_id" else c for c in table.column_names]
            pq.write_table(table.rename_columns(names), path)

        rename(hits, "event_no")
        assert read(parquet_source(hits, truth)).event_id == IDS
        rename(truth, "event_no")
        assert read(parquet_source(hits, truth)).event_id == IDS
        rename_back = {"event_no": "number"}
        for path in (hits, truth):
            table = pq.read_table(path)
            names = [rename_back.get(c, c) for c in table.column_names]
            pq.write_table(table.rename_columns(names), path)
        with pytest.raises(ValueError, match="no column 'event_id' or 'event_no'"):
            parquet_source(hits, truth)
        assert read(parquet_source(hits, truth, event_column="number")).event_id == IDS

    def test_several_files(
        self, hits: Path, truth: Path, write: Any, read: Any, pulses: Any
    ) -> None:
        more = write(hits.parent / "more" / "a.parquet", pulses([30, 20], [1, 2], 1))
        columns = {
            "event_id": [20, 25, 30],
            "azimuth": [2.0, 2.5, 3.0],
            "zenith": [0.0, 0, 0],
        }
        labels = write(hits.parent / "more_truth.parquet", columns)
        first = pq.read_table(truth).select(["event_id", "azimuth", "zenith"])
        write(truth, first)
        source = parquet_source([hits, more.parent], [truth, labels])
        assert [part.name for part in source.parts][:2] == [str(hits), str(more)]
        found = read(pickle.loads(pickle.dumps(source)))
        assert found.event_id == [5, 3, 9, 30, 20, 25]
        assert found.lengths == [4, 2, 3, 1, 2, 0]
        assert found.truth["azimuth"] == [0.2, 0.1, 0.3, 3, 2, 2.5]
        assert "event 25 of" in found.notes[-1]
        manifest = convert(source, hits.parent / "store", workers=1)
        assert (manifest.num_events, manifest.num_empty) == (6, 1)

    def test_event_in_two_files(
        self, hits: Path, write: Any, pulses: Any, tmp_path: Path
    ) -> None:
        other = write(tmp_path / "other.parquet", pulses([9, 10], [1, 1]))
        source = parquet_source([hits, other])
        with pytest.raises(ValueError, match=r"event 9 .*hits.parquet.*other.parquet"):
            convert(source, tmp_path / "store", workers=1)

    def test_categories(self, hits: Path, truth: Path, read: Any) -> None:
        """As pandas stores them."""
        before = read(parquet_source(hits, truth))
        table = pq.read_table(truth)
        place = table.schema.get_field_index("flavour")
        codes = table["flavour"].dictionary_encode()
        pq.write_table(table.set_column(place, "flavour", codes), truth)
        assert read(parquet_source(hits, truth)).truth == before.truth

    def test_unknown_values_of_truth(self, hits: Path, truth: Path, read: Any) -> None:
        table = pq.read_table(truth)
        table = table.append_column("energy", pa.array([1.0, None, np.nan]))
        pq.write_table(table, truth)
        found = read(parquet_source(hits, truth))
        assert found.truth["energy"][1] == 1
        assert np.isnan(found.truth["energy"]).tolist() == [True, False, True]
        assert "column 'energy' is null or NaN in 2 of 3 rows" in found.notes[0]


class TestCuttingAFile:
    def test_events_across_row_groups(
        self, tmp_path: Path, write: Any, pulses: Any, read: Any
    ) -> None:
        ids, lengths = list(range(0, 40, 2)), [3] * 20
        path = write(tmp_path / "a.parquet", pulses(ids, lengths), row_group_size=10)
        source = parquet_source(path, part_rows=20)
        assert len(source.parts) == 3
        assert sum(part.num_pulses or 0 for part in source.parts) == 60
        found = read(source, 7)
        assert (found.event_id, found.lengths) == (ids, lengths)
        for column, values in found.columns.items():
            assert values.tolist() == pulses(ids, lengths)[column].tolist()
        assert found.notes == []
        prints = [str(part.fingerprint()) for part in source.parts]
        assert len(set(prints)) == 3
        manifest = convert(source, tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (20, 60)

    def test_an_event_id_beyond_int64(
        self, tmp_path: Path, write: Any, pulses: Any, read: Any
    ) -> None:
        columns = dict(pulses([1, 2, 3], [10] * 3))
        ids = np.repeat(np.array([1, 2, 2**63 + 5], np.uint64), 10)
        columns["event_id"] = ids
        path = write(tmp_path / "a.parquet", columns, row_group_size=10)
        with pytest.raises(ValueError, match=f"int64, found {2**63 + 5}"):
            read(parquet_source(path, part_rows=10))

    def test_not_cut_where_ids_are_out_of_order(
        self, tmp_path: Path, write: Any, pulses: Any
    ) -> None:
        ids = [5, 1, 6, 2]
        path = write(tmp_path / "a.parquet", pulses(ids, [10] * 4), row_group_size=10)
        assert len(parquet_source(path, part_rows=10).parts) == 1

    def test_not_cut_without_statistics(
        self, tmp_path: Path, write: Any, pulses: Any
    ) -> None:
        path = write(
            tmp_path / "a.parquet",
            pulses([1, 2, 3], [10] * 3),
            row_group_size=10,
            write_statistics=False,
        )
        assert len(parquet_source(path, part_rows=10).parts) == 1

    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_file(
        self, data: st.DataObject, tmp_path: Path, write: Any, pulses: Any, read: Any
    ) -> None:
        """Whatever the order of rows, row groups, chunks: each event once and whole."""
        lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
        ids = data.draw(
            st.lists(
                st.integers(-3, 60),
                min_size=len(lengths),
                max_size=len(lengths),
                unique=True,
            )
        )
        if data.draw(st.booleans()):
            ids.sort()
        table = pa.table(pulses(ids, lengths))
        table = table.append_column("row", pa.array(np.arange(len(table))))
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(table))))
            table = table.take(np.array(order))
        size = data.draw(st.integers(1, len(table)))
        path = write(tmp_path / "hits.parquet", table, row_group_size=size)
        empty = data.draw(st.sets(st.integers(100, 110), max_size=3))
        labels = data.draw(st.permutations([*ids, *empty]))
        truth = {
            "event_id": labels,
            "azimuth": [i / 64 for i in labels],
            "zenith": [1.0] * len(labels),
        }
        size = data.draw(st.integers(1, len(labels)))
        labels_path = write(tmp_path / "truth.parquet", truth, row_group_size=size)
        source = parquet_source(
            path,
            labels_path,
            keep=["row"],
            part_rows=data.draw(st.integers(1, len(table))),
        )
        found = read(source, data.draw(st.integers(1, 40)))
        assert sorted(found.event_id) == sorted(labels)
        assert found.truth["azimuth"] == [i / 64 for i in found.event_id]
        rows = {
            name: table[name].to_numpy(zero_copy_only=False)
            for name in table.column_names
        }
        for event in labels:
            inside = rows["event_id"] == event
            for column in source.pulse_columns:
                assert found.of(event, column) == rows[column][inside].tolist()
        assert any("0 pulses" in note for note in found.notes) == bool(empty)


class TestDamage:
    def test_no_pulse_map_fits(self, tmp_path: Path, write: Any) -> None:
        columns = {"event_id": [1], "px": [0.0], "t": [0.0]}
        path = write(tmp_path / "mine.parquet", columns)
        with pytest.raises(
            ValueError, match=r"no named pulse map fits its columns \(px"
        ):
            parquet_source(path)
        mine = PulseMap(name="mine", x="px", y="py", z="pz", time="t")
        with pytest.raises(ValueError, match=r"'mine' needs column py, pz.* px"):
            parquet_source(path, pulse_map=mine)

    def test_truth_twice(self, hits: Path, truth: Path, write: Any, read: Any) -> None:
        table = pq.read_table(truth)
        write(truth, table.take(np.array([0, 1, 2, 1])))
        with pytest.raises(
            ValueError, match=r"truth.parquet, row 3: .* event 5 is also in row 1"
        ):
            read(parquet_source(hits, truth))
        write(truth, table)
        other = write(truth.parent / "other.parquet", table.slice(2))
        message = r"other.parquet, row 0: .* event 9 is also in .*truth.parquet, row 2"
        with pytest.raises(ValueError, match=message):
            read(parquet_source(hits, [truth, other]))

    def test_angles(self, hits: Path, truth: Path, write: Any) -> None:
        table = pq.read_table(truth)
        write(truth, table.drop(["zenith"]))
        message = "column 'zenith', an angle of pulse map 'kaggle', is missing"
        message += r".*--column zenith=.*--without-truth"
        with pytest.raises(ValueError, match=message):
            parquet_source(hits, truth)
        write(truth, table.drop(["zenith", "azimuth"]))
        notes = parquet_source(hits, truth).notes
        assert "has no columns 'azimuth' and 'zenith'" in notes[-1]

    def test_no_files(self, hits: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no.parquet"):
            parquet_source(hits.parent / "no.parquet")
        empty = hits.parent / "empty"
        empty.mkdir()
        with pytest.raises(ValueError, match=r"no file that ends in \.parquet"):
            parquet_source(empty)

    def test_empty_truth(self, hits: Path, truth: Path, write: Any) -> None:
        write(truth, pq.read_table(truth).slice(0, 0))
        with pytest.raises(ValueError, match=r"truth.parquet must have rows"):
            parquet_source(hits, truth)

    def test_types_differ_between_files(
        self, hits: Path, write: Any, pulses: Any, tmp_path: Path
    ) -> None:
        columns = {**pulses([1], [4]), "width": np.ones(4)}
        a = write(tmp_path / "a.parquet", columns)
        b = write(tmp_path / "b.parquet", {**columns, "width": np.ones(4, np.int8)})
        assert len(parquet_source([a, b]).parts) == 2
        with pytest.raises(ValueError, match=r"'width' .*float64 in .*a.parquet"):
            parquet_source([a, b], keep="all")

    def test_kept_column(self, tmp_path: Path, write: Any, pulses: Any) -> None:
        columns = {**pulses([1], [2]), "kind": ["late", "early"]}
        path = write(tmp_path / "a.parquet", columns)
        with pytest.raises(ValueError, match=r"'kind' .*string"):
            parquet_source(path, keep=["kind"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "num_events", "num_pulses"),
    [
        ("orca_mcv6.0_numuCC_140ev", 140, 17923),
        ("orca_mcv5.0_elecCC_10ev", 10, 11183),
        ("arca_mcv5.1_anumuNC_10ev", 10, 38174),
        ("orca6_mc_v9.2_30ev", 30, 4589),
    ],
)
def test_km3net(
    shared_dir: Path, tmp_path: Path, name: str, num_events: int, num_pulses: int
) -> None:
    folder = shared_dir / "data" / "km3net"
    hits, truth = folder / f"{name}_hits.parquet", folder / f"{name}_truth.parquet"
    source = parquet_source(hits, truth)
    assert source.pulse_map == PulseMap.km3net()
    assert source.left_out == ("dom_id", "channel_id")
    manifest = convert(source, tmp_path / "store", workers=1)
    assert (manifest.num_events, manifest.num_pulses) == (num_events, num_pulses)
    assert {"azimuth_source", "zenith_source"} <= set(manifest.event_columns)
    assert manifest.event_columns["time_origin"] == "float64"
