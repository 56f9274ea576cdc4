"""The competition's folders, whole and damaged."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.readers.kaggle import (
    compact,
    kaggle_source,
)

BATCHES = {1: ([24, 41, 59], [3, 1, 5]), 2: ([60, 72], [2, 4]), 10: ([99], [7])}


@pytest.fixture
def folder(tmp_path: Path, write: Callable[..., Path], pulses: Any, meta: Any) -> Path:
    """Three batches, the whole meta data in small row groups, the geometry."""
    metas = []
    for number, (ids, lengths) in BATCHES.items():
        path = tmp_path / "train" / f"batch_{number}.parquet"
        write(path, pulses(ids, lengths, seed=number))
        metas.append(pa.table(meta(ids, lengths, number, seed=number)))
    table = pa.concat_tables(metas)
    write(tmp_path / "train_meta.parquet", table, row_group_size=2)
    (tmp_path / "sensor_geometry.csv").write_text(
        "sensor_id,x,y,z\n" + "".join(f"{i},0.0,0.0,{i}.0\n" for i in range(5160))
    )
    return tmp_path


def split_meta(folder: Path) -> pa.Table:
    """Put the meta data of each batch into a file of its own; return all of them."""
    whole = pq.read_table(folder / "train_meta.parquet")
    (folder / "train_meta").mkdir()
    for number in BATCHES:
        rows = whole.filter(pa.compute.field("batch_id") == number)
        pq.write_table(rows, folder / "train_meta" / f"train_meta_{number}.parquet")
    (folder / "train_meta.parquet").unlink()
    return whole


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    """Replace columns of a file; None takes one out."""
    table = pq.read_table(folder / name)
    for column, values in changes.items():
        index = table.schema.get_field_index(column)
        if values is None:
            table = table.remove_column(index)
        elif index < 0:
            table = table.append_column(column, pa.array(values))
        else:
            table = table.set_column(index, column, pa.array(values))
    pq.write_table(table, folder / name)


class TestWhatIsRead:
    def test_batches_in_the_order_of_their_numbers(
        self, folder: Path, read: Any, pulses: Any
    ) -> None:
        source = kaggle_source(folder)
        assert [part.batch for part in source.parts] == [1, 2, 10]
        assert [part.num_pulses for part in source.parts] == [9, 6, 7]
        assert source.parts[2].name == "train/batch_10.parquet"
        assert source.geometry == folder / "sensor_geometry.csv"
        assert source.ice is None
        assert source.notes == ()
        assert source.tables[1] == "truth: train_meta.parquet"
        found = read(source)
        assert found.event_id == [24, 41, 59, 60, 72, 99]
        assert found.lengths == [3, 1, 5, 2, 4, 7]
        whole = pa.concat_tables(
            [pa.table(pulses(*BATCHES[n], seed=n)) for n in BATCHES]
        )
        for column, values in found.columns.items():
            assert values.tolist() == whole[column].to_pylist(), column
        table = pq.read_table(folder / "train_meta.parquet")
        assert found.truth == {
            name: table[name].to_pylist() for name in ("azimuth", "zenith")
        }

    def test_parts_can_be_pickled(self, folder: Path, read: Any) -> None:
        source = kaggle_source(folder)
        again = pickle.loads(pickle.dumps(source))
        assert read(again).event_id == read(source).event_id
        prints = [part.fingerprint() for part in source.parts]
        assert [part.fingerprint() for part in again.parts] == prints

    def test_fingerprint_sees_what_is_read(self, folder: Path) -> None:
        def prints(**options: Any) -> list[dict[str, Any]]:
            return [
                part.fingerprint() for part in kaggle_source(folder, **options).parts
            ]

        before = prints()
        assert prints() == before
        assert prints(truth=False) != before
        rewrite(folder, "train_meta.parquet", energy=np.zeros(6))
        assert all(new != old for new, old in zip(prints(), before, strict=True))

    def test_conversion(self, folder: Path, tmp_path: Path) -> None:
        manifest = convert(kaggle_source(folder), tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (6, 22)
        assert [shard.batch for shard in manifest.shards] == [1, 2, 10]
        assert manifest.kind == "kaggle"

    def test_index_as_pandas_stores_it(self, folder: Path, read: Any) -> None:
        before = read(kaggle_source(folder))
        for path in (folder / "train").iterdir():
            frame = pq.read_table(path).to_pandas().set_index("event_id")
            frame.to_parquet(path)
        after = read(kaggle_source(folder))
        assert after.event_id == before.event_id
        assert set(after.columns) == {"sensor_id", "time", "charge", "auxiliary"}

    def test_split_meta(self, folder: Path, read: Any) -> None:
        before = read(kaggle_source(folder))
        whole = split_meta(folder)
        after = read(kaggle_source(folder))
        assert after.event_id == before.event_id
        assert after.truth == before.truth
        wrong = folder / "train_meta" / "train_meta_2.parquet"
        pq.write_table(whole.slice(0, 2), wrong)
        message = "train_meta_2.parquet, row 0: batch_id must be 2 .*found 1"
        rewrite(folder, "train_meta/train_meta_2.parquet", event_id=[60, 72])
        with pytest.raises(ValueError, match=message):
            read(kaggle_source(folder))

    def test_split_meta_of_the_chosen_batches(self, folder: Path, read: Any) -> None:
        split_meta(folder)
        rewrite(folder, "train_meta/train_meta_2.parquet", first_pulse_index=None)
        with pytest.raises(ValueError, match=r"train_meta_2\.parquet .*first_pulse"):
            kaggle_source(folder)
        assert read(kaggle_source(folder, batches=[1, 10])).event_id == [24, 41, 59, 99]

    def test_meta_in_one_row_group(self, folder: Path, read: Any) -> None:
        """Where statistics tell nothing, the values do."""
        before = read(kaggle_source(folder))
        table = pq.read_table(folder / "train_meta.parquet")
        shuffled = table.take(np.array([5, 0, 3, 1, 4, 2]))
        for statistics in (True, False):
            pq.write_table(
                shuffled,
                folder / "train_meta.parquet",
                write_statistics=statistics,
                row_group_size=3,
            )
            assert read(kaggle_source(folder)).truth == before.truth

    def test_without_truth(self, folder: Path, read: Any) -> None:
        (folder / "train_meta.parquet").unlink()
        found = read(kaggle_source(folder, truth=False))
        assert found.truth == {}
        assert found.lengths == [3, 1, 5, 2, 4, 7]

    def test_further_columns(self, folder: Path, read: Any) -> None:
        rewrite(folder, "train_meta.parquet", energy=np.arange(6.0))
        for path in (folder / "train").iterdir():
            table = pq.read_table(path)
            rewrite(
                folder,
                f"train/{path.name}",
                width=np.ones(len(table)),
                flag=np.zeros(len(table), bool),
            )
        source = kaggle_source(folder, keep=("width",))
        assert source.left_out == ("flag",)
        found = read(source)
        assert found.truth["energy"] == [0, 1, 2, 3, 4, 5]
        assert set(found.columns["width"]) == {1}
        assert kaggle_source(folder, keep="all").left_out == ()

    def test_ice_and_geometry(self, folder: Path) -> None:
        (folder / "ice_transparency.txt").write_text("depth scattering absorption\n")
        (folder / "sensor_geometry.csv").unlink()
        source = kaggle_source(folder)
        assert source.ice == folder / "ice_transparency.txt"
        assert source.geometry is None
        assert "IceCube-86" in source.notes[0]


class TestTestData:
    @pytest.fixture
    def test_data(self, folder: Path) -> Path:
        (folder / "train").rename(folder / "test")
        (folder / "train_meta.parquet").rename(folder / "test_meta.parquet")
        rewrite(folder, "test_meta.parquet", azimuth=None, zenith=None)
        return folder

    def test_no_truth(self, test_data: Path, read: Any) -> None:
        source = kaggle_source(test_data)
        assert source.parts[0].name == "test/batch_1.parquet"
        found = read(source)
        assert found.truth == {}
        assert found.lengths == [3, 1, 5, 2, 4, 7]

    def test_counts_are_checked(self, test_data: Path, read: Any) -> None:
        table = pq.read_table(test_data / "test" / "batch_2.parquet")
        pq.write_table(table.slice(0, 5), test_data / "test" / "batch_2.parquet")
        message = "test/batch_2.parquet: event 72 .*found 3 .*test_meta.parquet"
        with pytest.raises(ValueError, match=message):
            read(kaggle_source(test_data))

    def test_meta_may_be_missing(self, test_data: Path, read: Any) -> None:
        (test_data / "test_meta.parquet").unlink()
        source = kaggle_source(test_data)
        assert read(source).truth == {}
        assert "no test_meta.parquet" in source.notes[0]

    def test_both(self, folder: Path, write: Any, pulses: Any) -> None:
        write(folder / "test" / "batch_661.parquet", pulses([7], [3]))
        source = kaggle_source(folder)
        assert source.parts[0].name.startswith("train/")
        assert "test data" in source.notes[0]
        source = kaggle_source(folder, which="test")
        assert [part.batch for part in source.parts] == [661]


class TestBatches:
    def test_choice(self, folder: Path, read: Any) -> None:
        source = kaggle_source(folder, batches=[10, 1])
        assert read(source).event_id == [24, 41, 59, 99]
        assert "batches 2 of" in source.notes[0]

    def test_missing(self, folder: Path) -> None:
        (folder / "train" / "batch_2.parquet").unlink()
        (folder / "train" / "batch_10.parquet").unlink()
        message = "batches 2, 10 have no file train/batch_N.parquet. "
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            kaggle_source(folder)
        assert "--batches 1,2,5-9" in str(caught.value)
        source = kaggle_source(folder, batches="present")
        assert [part.batch for part in source.parts] == [1]
        message = "batch 2 has no file train/batch_N.parquet. There are batches 1"
        with pytest.raises(ValueError, match=message):
            kaggle_source(folder, batches=[1, 2])

    def test_without_meta_rows(self, folder: Path, write: Any, pulses: Any) -> None:
        write(folder / "train" / "batch_3.parquet", pulses([7], [3]))
        message = "batch 3 has no rows in train_meta.parquet"
        for batches in (None, "present", [3]):
            with pytest.raises(ValueError, match=message):
                kaggle_source(folder, batches=batches)

    def test_no_sense(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="numbers or 'present', got '1-2'"):
            kaggle_source(folder, batches="1-2")
        with pytest.raises(ValueError, match=r"There are batches"):
            kaggle_source(folder, batches=[])

    def test_two_files_of_one_number(self, folder: Path) -> None:
        train = folder / "train"
        (train / "batch_02.parquet").write_bytes(
            (train / "batch_2.parquet").read_bytes()
        )
        with pytest.raises(ValueError, match=r"batch_02\.parquet and batch_2\.parquet"):
            kaggle_source(folder)

    def test_compact(self) -> None:
        assert compact({1, 2, 3, 7, 9, 10}) == "1-3, 7, 9-10"
        assert compact(range(2, 661)) == "2-660"


class TestRepairs:
    def test_scattered_rows(self, folder: Path, read: Any, tmp_path: Path) -> None:
        before = read(kaggle_source(folder))
        table = pq.read_table(folder / "train" / "batch_1.parquet")
        order = np.array([0, 4, 1, 3, 5, 2, 6, 7, 8])  # within events in order
        pq.write_table(table.take(order), folder / "train" / "batch_1.parquet")
        for max_pulses in (1, 4, 100):
            after = read(kaggle_source(folder), max_pulses)
            for event in before.event_id:
                for column in before.columns:
                    assert after.of(event, column) == before.of(event, column)
            assert after.first_rows[0] is None
            assert after.notes == [
                "train/batch_1.parquet: the rows of 2 events (24, 59) were "
                "scattered; they were put together"
            ]
        manifest = convert(kaggle_source(folder), tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (6, 22)
        assert "scattered" in manifest.notes[0]

    def test_events_without_pulses(
        self, folder: Path, read: Any, tmp_path: Path
    ) -> None:
        """The meta data say so themselves, or do not say how many."""
        table = pq.read_table(folder / "train_meta.parquet")
        extra = table.slice(0, 1).to_pylist()[0]
        extra.update(event_id=50, first_pulse_index=3, last_pulse_index=2)
        longer = pa.concat_tables([table, pa.Table.from_pylist([extra])])
        pq.write_table(longer, folder / "train_meta.parquet")
        for lacking in ([], ["first_pulse_index", "last_pulse_index"]):
            rewrite(folder, "train_meta.parquet", **dict.fromkeys(lacking))
            found = read(kaggle_source(folder))
            assert found.event_id == [24, 41, 59, 50, 60, 72, 99]
            assert found.lengths == [3, 1, 5, 0, 2, 4, 7]
            assert found.truth["azimuth"][3] == extra["azimuth"]
            assert "event 50 of train_meta.parquet" in found.notes[0]
        manifest = convert(kaggle_source(folder), tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_empty) == (7, 1)


class TestDamage:
    def test_truncated_file_of_pulses(self, folder: Path) -> None:
        path = folder / "train" / "batch_2.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"train/batch_2.parquet cannot be read"):
            kaggle_source(folder)

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"sensor_id,time\n1,2\n" * 9])
    def test_foreign_file(self, folder: Path, content: bytes) -> None:
        for name in ("train/batch_2.parquet", "train_meta.parquet"):
            (folder / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name} cannot be read"):
                kaggle_source(folder)

    def test_any_byte(self, folder: Path, read: Any) -> None:
        """A flipped byte is an error that names a file, or does no harm to ids."""
        path = folder / "train" / "batch_2.parquet"
        table = pq.read_table(path)
        pq.write_table(table, path, write_page_checksum=True)
        content = bytearray(path.read_bytes())
        found, said = [], []
        for place in range(4, len(content), 37):
            damaged = content.copy()
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            try:
                found.append(read(kaggle_source(folder)))
            except ValueError as error:
                said.append(str(error))
        assert all("batch_2.parquet" in message for message in said)
        assert all(events.lengths == [3, 1, 5, 2, 4, 7] for events in found)
        assert len(said) > len(found)

    def test_missing_pulses(self, folder: Path, read: Any) -> None:
        table = pq.read_table(folder / "train" / "batch_1.parquet")
        pq.write_table(table.slice(0, 6), folder / "train" / "batch_1.parquet")
        words = "batch_1.parquet: event 59 .* 5 pulses, found 2 .*train_meta.* row 2"
        with pytest.raises(ValueError, match=words):
            read(kaggle_source(folder))
        pq.write_table(table.slice(0, 4), folder / "train" / "batch_1.parquet")
        with pytest.raises(ValueError, match=r"event 59 .*found 0"):
            read(kaggle_source(folder))

    def test_event_without_truth(self, folder: Path, read: Any) -> None:
        table = pq.read_table(folder / "train_meta.parquet")
        pq.write_table(
            table.take(np.array([0, 2, 3, 4, 5])), folder / "train_meta.parquet"
        )
        message = "train/batch_1.parquet, but lacks event 41"
        with pytest.raises(ValueError, match=message):
            read(kaggle_source(folder))

    def test_truth_twice(self, folder: Path, read: Any) -> None:
        table = pq.read_table(folder / "train_meta.parquet")
        order = np.array([0, 1, 2, 3, 4, 5, 4])
        pq.write_table(table.take(order), folder / "train_meta.parquet")
        message = "train_meta.parquet, row 6: .* event 72 is also in row 4"
        with pytest.raises(ValueError, match=message):
            read(kaggle_source(folder))

    def test_missing_columns(self, folder: Path) -> None:
        rewrite(folder, "train/batch_1.parquet", charge=None)
        message = (
            "train/batch_1.parquet: pulse map 'kaggle' needs column charge, found only "
            "sensor_id, time, auxiliary. For files without it: "
            "PulseMap.kaggle(charge=None)"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            kaggle_source(folder)

    def test_column_missing_later(self, folder: Path) -> None:
        rewrite(folder, "train/batch_10.parquet", time=None)
        message = "train/batch_10.parquet has no column 'time', which train/batch_1"
        with pytest.raises(ValueError, match=message):
            kaggle_source(folder)

    def test_no_event_id(self, folder: Path) -> None:
        rewrite(folder, "train/batch_1.parquet", event_id=None)
        with pytest.raises(ValueError, match="no column 'event_id' or 'event_no'"):
            kaggle_source(folder)

    @pytest.mark.parametrize("column", ["azimuth", "batch_id", "event_id"])
    def test_missing_meta_columns(self, folder: Path, column: str) -> None:
        rewrite(folder, "train_meta.parquet", **{column: None})
        with pytest.raises(ValueError, match=f"train_meta.parquet.*{column}"):
            kaggle_source(folder)

    def test_meta_without_truth(self, folder: Path) -> None:
        rewrite(folder, "train_meta.parquet", azimuth=None, zenith=None)
        with pytest.raises(ValueError, match="no columns 'azimuth' and 'zenith'"):
            kaggle_source(folder)

    def test_empty_batch(self, folder: Path) -> None:
        table = pq.read_table(folder / "train" / "batch_2.parquet")
        pq.write_table(table.slice(0, 0), folder / "train" / "batch_2.parquet")
        with pytest.raises(ValueError, match=r"train/batch_2.parquet must have rows"):
            kaggle_source(folder)

    @pytest.mark.parametrize(
        ("file", "column", "values", "message"),
        [
            (
                "train/batch_2.parquet",
                "time",
                ["a"] * 6,
                "'time' must have",
            ),
            ("train/batch_2.parquet", "event_id", [60.0] * 6, "must have integers"),
            (
                "train/batch_2.parquet",
                "event_id",
                [60, 60, None, 72, 72, 72],
                "train/batch_2.parquet, row 2: column 'event_id'",
            ),
            (
                "train/batch_2.parquet",
                "event_id",
                np.array([60, 60, 2**63, 72, 72, 72], np.uint64),
                "row 2: event column 'event_id' must fit into int64",
            ),
            (
                "train_meta.parquet",
                "azimuth",
                [1.0, 1, 1, np.inf, 1, 1],
                "train_meta.parquet, row 3: angle 'azimuth' must be finite, found inf",
            ),
            (
                "train_meta.parquet",
                "azimuth",
                ["north"] * 6,
                "column 'azimuth', an angle of pulse map 'kaggle', is string",
            ),
        ],
    )
    def test_wrong_values(
        self,
        folder: Path,
        read: Any,
        file: str,
        column: str,
        values: Any,
        message: str,
    ) -> None:
        rewrite(folder, file, **{column: values})
        with pytest.raises(ValueError, match=re.escape(message)):
            read(kaggle_source(folder))

    def test_events_without_a_direction(self, folder: Path, tmp_path: Path) -> None:
        rewrite(folder, "train_meta.parquet", zenith=[1.0, None, 1, 1, 1, 1])
        source = kaggle_source(folder)
        convert(source, tmp_path / "store", workers=1)
        zenith = EventStore(tmp_path / "store").whole_event_column("zenith")
        assert np.isnan(zenith).sum() == 1

    def test_angles_in_degrees_are_named_by_the_file_of_truth(
        self, folder: Path, tmp_path: Path
    ) -> None:
        rewrite(folder, "train_meta.parquet", zenith=[1.0, 1, 1, 90.0, 1, 1])
        with pytest.raises(ValueError, match=r"^train_meta\.parquet, event .*zenith"):
            convert(kaggle_source(folder), tmp_path / "store", workers=1)

    @pytest.mark.parametrize("charge", [-1.0, None])
    def test_wrong_value_is_named_by_row(
        self, folder: Path, tmp_path: Path, charge: float | None
    ) -> None:
        rewrite(folder, "train/batch_1.parquet", charge=[1.0] * 6 + [charge, 1, 1])
        message = "train/batch_1.parquet, row 6: event 59, pulse 2: column 'charge'"
        with pytest.raises(ValueError, match=message):
            convert(kaggle_source(folder), tmp_path / "store", workers=1)

    def test_folders(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no(thing|where) does not exist"):
            kaggle_source(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="Give the parent folder"):
            kaggle_source(folder / "train")
        with pytest.raises(ValueError, match=r"no test/batch_N.parquet; it has train"):
            kaggle_source(folder, which="test")
        with pytest.raises(ValueError, match="which must be train or test, got 'val'"):
            kaggle_source(folder, which="val")
        (folder / "train_meta.parquet").unlink()
        with pytest.raises(
            ValueError, match=r"neither train_meta.parquet nor .*truth="
        ):
            kaggle_source(folder)


@pytest.mark.data
class TestRealData:
    def test_sample(self, shared_dir: Path, tmp_path: Path, read: Any) -> None:
        source = kaggle_source(shared_dir / "data" / "kaggle_sample")
        found = read(source, 100)
        assert found.event_id == [24, 41, 59, 67, 72]
        assert found.lengths == [61, 51, 36, 142, 62]
        assert found.truth["azimuth"][0] == pytest.approx(5.029555, abs=1e-6)
        manifest = convert(source, tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (5, 352)
        assert manifest.num_empty == 0
        assert manifest.notes == ()
