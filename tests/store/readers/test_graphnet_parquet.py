"""GraphNeT's parquet folders: chunks, partners, and what the two tables say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.readers.parquet import graphnet_parquet_source
from graphnet_icecube2nd.store.readers.source import EventChunk, Source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Chunk = Sequence[tuple[int, int]]  # event_no and number of pulses


def pulse_table(chunk: Chunk) -> Any:
    event = np.repeat([e for e, _ in chunk], [n for _, n in chunk]).astype(np.int64)
    rng = np.random.default_rng(len(event))
    columns = {
        name: rng.uniform(-500, 500, len(event)) for name in ("dom_x", "dom_y", "dom_z")
    }
    return pa.table(
        {
            **columns,
            "dom_time": np.arange(len(event)) * 10.0,
            "charge": rng.uniform(0.5, 2, len(event)),
            "hlc": rng.integers(0, 2, len(event)),
            "rde": np.ones(len(event)),
            "width": np.arange(len(event)),
            "event_no": event,
        }
    )


def truth_table(events: Sequence[int]) -> Any:
    ids = np.array(events, np.int64)
    return pa.table(
        {
            "azimuth": 0.1 + ids % 6,
            "zenith": 0.2 + ids % 2,
            "kind": [f"nu {event}" for event in events],
            "event_no": ids,
        }
    )


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(chunks: dict[int, Chunk], below: str = "") -> Path:
        for number, chunk in chunks.items():
            for name, table in (
                ("SplitInIcePulses", pulse_table(chunk)),
                ("truth", truth_table([event for event, _ in chunk])),
            ):
                folder = tmp_path / "files" / below / name
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, folder / f"{name}_{number}.parquet")
        return tmp_path / "files"

    return make


def chunks_of(source: Source, max_pulses: int = 2**20) -> list[EventChunk]:
    return [chunk for part in source.parts for chunk in part.chunks(max_pulses)]


def lengths_of(source: Source) -> dict[int, int]:
    chunks = chunks_of(source, 5)
    return {
        int(event): int(length)
        for chunk in chunks
        for event, length in zip(chunk.event_id, np.diff(chunk.offsets), strict=True)
    }


CHUNKS: dict[int, Chunk] = {
    0: [(9, 2), (4, 3)],
    2: [(7, 6), (1, 1), (30, 2)],
    10: [(8, 4)],
}


@pytest.mark.parametrize("below", ["", "merged"])
def test_a_folder(make_folder: Callable[..., Path], below: str) -> None:
    folder = make_folder(CHUNKS, below)
    source = graphnet_parquet_source(folder)
    assert source.kind == "graphnet-parquet"
    assert source.pulse_map == PulseMap.icecube86()
    assert source.left_out == ("width",)
    # in the order of numbers, not of names
    names = [Path(part.name).name for part in source.parts]
    assert names == [f"SplitInIcePulses_{number}.parquet" for number in CHUNKS]
    assert [part.num_pulses for part in source.parts] == [5, 9, 4]
    assert lengths_of(source) == dict(e for chunk in CHUNKS.values() for e in chunk)
    first = chunks_of(source)[0]
    assert first.event_id.tolist() == [9, 4]
    assert first.truth["kind"].tolist() == ["nu 9", "nu 4"]
    assert first.columns["dom_time"].tolist() == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_keep(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(CHUNKS)
    source = graphnet_parquet_source(folder, keep="all")
    assert source.pulse_columns[-1] == "width"
    assert chunks_of(source)[0].columns["width"].dtype == np.int64
    manifest = convert(source, tmp_path / "store", workers=1)
    assert manifest.num_events == 6
    path = folder / "SplitInIcePulses" / "SplitInIcePulses_0.parquet"
    table = pq.read_table(path)
    wide = table.set_column(7, "width", pa.array(["wide"] * len(table)))
    for number in CHUNKS:
        pq.write_table(wide, path.with_name(f"SplitInIcePulses_{number}.parquet"))
    source = graphnet_parquet_source(folder, keep="all")
    assert "width" not in source.pulse_columns
    assert source.left_out == ("width",)
    with pytest.raises(ValueError, match=r"column 'width' .*string"):
        graphnet_parquet_source(folder, keep=("width",))


def test_truth_without_pulses_and_the_other_way(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder({0: [(5, 2), (3, 0), (4, 1)]})
    (chunk,) = chunks_of(graphnet_parquet_source(folder))
    assert chunk.event_id.tolist() == [5, 4, 3]
    assert np.diff(chunk.offsets).tolist() == [2, 1, 0]
    assert chunk.truth["kind"].tolist()[2] == "nu 3"
    assert any("event 3" in note and "0 pulses" in note for note in chunk.notes)
    path = folder / "truth" / "truth_0.parquet"
    pq.write_table(truth_table([4]), path)
    with pytest.raises(ValueError, match=r"lacks event 5.*truth=False"):
        chunks_of(graphnet_parquet_source(folder))
    (chunk,) = chunks_of(graphnet_parquet_source(folder, truth=False))
    assert chunk.truth == {}


def test_a_chunk_without_its_partner(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(CHUNKS)
    (folder / "truth" / "truth_2.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"SplitInIcePulses_2\.parquet has no partner in truth/"
    ):
        graphnet_parquet_source(folder)
    assert len(graphnet_parquet_source(folder, truth=False).parts) == 3
    make_folder({2: CHUNKS[2]})
    (folder / "SplitInIcePulses" / "SplitInIcePulses_0.parquet").unlink()
    with pytest.raises(ValueError, match=r"truth_0\.parquet has no partner"):
        graphnet_parquet_source(folder)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("SplitInIcePulses", "dom_time"),
        ("SplitInIcePulses", "event_no"),
        ("truth", "zenith"),
        ("truth", "event_no"),
    ],
)
def test_a_chunk_without_a_column(
    make_folder: Callable[..., Path], table: str, column: str
) -> None:
    path = make_folder(CHUNKS) / table / f"{table}_2.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(
        ValueError, match=rf"{table}_2\.parquet has no column '{column}'"
    ):
        graphnet_parquet_source(path.parent.parent)


def test_which_table(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(CHUNKS)
    other = folder / "Cleaned"
    other.mkdir()
    for number, chunk in CHUNKS.items():
        pq.write_table(pulse_table(chunk), other / f"Cleaned_{number}.parquet")
    with pytest.raises(ValueError, match="2 tables of pulses: Cleaned, SplitInIceP"):
        graphnet_parquet_source(folder)
    assert len(graphnet_parquet_source(folder, pulses="Cleaned").parts) == 3
    with pytest.raises(ValueError, match="no table 'Raw' for pulses; it has Clea"):
        graphnet_parquet_source(folder, pulses="Raw")
    with pytest.raises(ValueError, match="no table with event column 'event_id'"):
        graphnet_parquet_source(folder, event_column="event_id")
    own = PulseMap.icecube86(name="own", charge=None)
    source = graphnet_parquet_source(folder, pulses="Cleaned", pulse_map=own)
    assert source.pulse_map == own
    with pytest.raises(ValueError, match="no table of truth"):
        graphnet_parquet_source(
            folder, pulses="Cleaned", pulse_map=PulseMap.icecube86(zenith="theta")
        )


def test_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing is not a folder"):
        graphnet_parquet_source(tmp_path / "nothing")
    (tmp_path / "empty" / "truth").mkdir(parents=True)
    with pytest.raises(ValueError, match="ParquetWriter"):
        graphnet_parquet_source(tmp_path / "empty")


def test_nulls(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({0: [(5, 2), (3, 1)]})
    path = folder / "SplitInIcePulses" / "SplitInIcePulses_0.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("charge")
    null = table.set_column(place, "charge", pa.array([1.0, None, 1.0]))
    pq.write_table(null, path)
    chunks = chunks_of(graphnet_parquet_source(folder))  # the store refuses NaN
    charge = np.concatenate([chunk.columns["charge"] for chunk in chunks])
    assert np.isnan(charge).tolist() == [False, True, False]
    pq.write_table(table, path)
    path = folder / "truth" / "truth_0.parquet"
    table = pq.read_table(path)
    null = table.set_column(1, "zenith", pa.array([1.0, None]))
    pq.write_table(null, path)
    # An event of which nobody knows the direction is an event all the same.
    chunks = chunks_of(graphnet_parquet_source(folder))
    zenith = np.concatenate([chunk.truth["zenith"] for chunk in chunks])
    assert np.isnan(zenith).tolist() == [False, True]
    assert "'zenith' is null or NaN in 1 of 2" in str([c.notes for c in chunks])


@pytest.mark.data
def test_the_prometheus_example(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "data" / "graphnet" / "data" / "examples" / "parquet"
    source = graphnet_parquet_source(
        folder / "prometheus",
        keep="all",
        pulse_map=PulseMap.prometheus(angles="origin"),
    )
    assert len(source.parts) == 10
    manifest = convert(source, tmp_path / "store", workers=1)
    assert (manifest.num_events, manifest.num_pulses) == (50, 1872)
    store = EventStore(tmp_path / "store")
    merged = folder / "prometheus" / "merged"
    for number, shard in enumerate(store.shards):
        events, pulses = shard.events, shard.pulses
        truth = pq.read_table(merged / "mc_truth" / f"mc_truth_{number}.parquet")
        truth = truth.to_pandas().reset_index().set_index("event_no")
        rows = pq.read_table(merged / "total" / f"total_{number}.parquet")
        rows = rows.to_pandas().reset_index()
        for index, event in enumerate(events.column("event_id").tolist()):
            for column in store.truth_columns:
                assert events.column(column)[index] == truth.loc[event, column]
            expected = rows[rows["event_no"] == event]
            expected = expected.sort_values("t", kind="stable")
            first = events.column("first_pulse")[index]
            inside = slice(first, first + events.column("n_pulses")[index])
            time = expected["t"].to_numpy()
            assert events.column("time_origin")[index] == time.min()
            np.testing.assert_array_equal(
                pulses.column("t")[inside], (time - time.min()).astype(np.float32)
            )
            for column in ("sensor_id", "sensor_string_id"):
                np.testing.assert_array_equal(
                    pulses.column(column)[inside], expected[column]
                )
            np.testing.assert_array_equal(
                pulses.column("sensor_pos_z")[inside],
                expected["sensor_pos_z"].astype(np.float32),
            )
