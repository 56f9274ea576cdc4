"""HDF5 files: flat tables with offsets, and those of icetray's hdfwriter."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.readers.hdf5 import hdf5_source
from graphnet_icecube2nd.store.readers.source import EventChunk, Source

pytest.importorskip("pyarrow")
h5py = pytest.importorskip("h5py")

LENGTHS = (3, 0, 5, 1)
EVENT = [("Run", "<u4"), ("Event", "<u4"), ("SubEvent", "<u4")]
EVENT += [("SubEventStream", "<i4"), ("exists", "u1")]


def kaggle_columns(num_pulses: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "sensor_id": rng.integers(0, 5160, num_pulses).astype(np.uint16),
        "time": np.sort(rng.integers(5000, 20_000, num_pulses)),
        "charge": rng.uniform(0.3, 3.0, num_pulses).astype(">f4"),
        "auxiliary": rng.random(num_pulses) < 0.5,
        "width": np.arange(num_pulses, dtype=np.uint32),
    }


def truth_columns(num_events: int, first_id: int = 100) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(num_events)
    return {
        "event_id": first_id + 2 * np.arange(num_events),
        "azimuth": rng.uniform(0, 6, num_events),
        "zenith": rng.uniform(0, 3, num_events),
        "kind": np.array([f"nu {i}".encode() for i in range(num_events)], "S8"),
    }


def compound(columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    table = np.zeros(
        len(next(iter(columns.values()))),
        [(name, values.dtype) for name, values in columns.items()],
    )
    for name, values in columns.items():
        table[name] = values
    return table


def borders(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.append(0, np.cumsum(lengths)).astype(np.int64)


def write(path: Path, tables: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            if isinstance(table, dict):
                for column, values in table.items():
                    file[f"{name}/{column}"] = values
            else:
                file[name] = table
    return path


def flat(path: Path, lengths: Sequence[int] = LENGTHS, **changes: Any) -> Path:
    tables: dict[str, Any] = {
        "pulses": kaggle_columns(sum(lengths)),
        "offsets": borders(lengths),
        "truth": truth_columns(len(lengths)),
    }
    tables.update(changes)
    return write(path, {k: v for k, v in tables.items() if v is not None})


def chunks_of(source: Source, max_pulses: int = 2**20) -> list[EventChunk]:
    return [chunk for part in source.parts for chunk in part.chunks(max_pulses)]


def joined(source: Source, max_pulses: int = 2**20) -> dict[str, Any]:
    chunks = chunks_of(source, max_pulses)
    assert all(len(c.columns["time"]) == c.offsets[-1] for c in chunks)
    return {
        "event_id": np.concatenate([c.event_id for c in chunks]),
        "lengths": np.concatenate([np.diff(c.offsets) for c in chunks]),
        **{
            name: np.concatenate([c.columns[name] for c in chunks])
            for name in source.pulse_columns
        },
        **{
            f"truth {name}": np.concatenate([c.truth[name] for c in chunks])
            for name in chunks[0].truth
        },
    }


@pytest.mark.parametrize("kind", ["groups", "compound", "root"])
def test_a_flat_table_with_offsets(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events.h5"
    pulses, truth = kaggle_columns(9), truth_columns(4)
    tables: dict[str, Any] = {"pulses": pulses, "truth": truth}
    if kind == "compound":
        tables = {"deep/pulses": compound(pulses), "truth": compound(truth)}
    if kind == "root":
        tables = {**pulses, **truth}
    source = hdf5_source(write(path, {**tables, "offsets": borders(LENGTHS)}))
    assert source.kind == "hdf5"
    assert source.pulse_map == PulseMap.kaggle()
    assert source.pulse_columns == ("time", "charge", "auxiliary", "sensor_id")
    assert source.left_out == ("width",)
    assert source.notes == ()
    found = joined(source)
    assert found["event_id"].tolist() == [100, 102, 104, 106]
    assert found["lengths"].tolist() == list(LENGTHS)
    for name in source.pulse_columns:
        np.testing.assert_array_equal(found[name], pulses[name])
        assert found[name].dtype.isnative
    np.testing.assert_array_equal(found["truth azimuth"], truth["azimuth"])
    assert found["truth kind"].tolist() == ["nu 0", "nu 1", "nu 2", "nu 3"]
    manifest = convert(source, tmp_path / "store", workers=1)
    assert (manifest.num_events, manifest.num_empty) == (4, 1)


def test_keep(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5")
    with h5py.File(path, "a") as file:
        file["pulses/label"] = np.array([b"x"] * 9)
        file["pulses/wave"] = np.zeros((9, 4))
        cube = np.zeros(9, [("charge", "f4"), ("cube", "f4", (2,))])
        file["other"] = cube
    source = hdf5_source(path, keep="all")
    assert source.pulse_columns[-1] == "width"
    assert source.left_out == ("label",)
    assert joined(source)["width"].tolist() == list(range(9))
    with pytest.raises(ValueError, match=r"column 'label' .*string"):
        hdf5_source(path, keep=("label",))


def test_first_and_number(tmp_path: Path) -> None:
    truth = truth_columns(3)
    truth |= {"first_pulse": np.array([2, 0, 6]), "n_pulses": np.array([3, 0, 2])}
    path = flat(tmp_path / "events.h5", offsets=None, truth=truth)
    source = hdf5_source(path)
    assert "4 of 9 pulses belong to no event" in source.notes[0]
    times = kaggle_columns(9)["time"]
    for max_pulses in (1, 4, 100):
        found = joined(source, max_pulses)
        assert found["lengths"].tolist() == [3, 0, 2]
        assert found["time"].tolist() == times[[2, 3, 4, 6, 7]].tolist()
        assert "truth first_pulse" not in found
    rows = [chunk.first_row for chunk in chunks_of(source, 3)]
    assert rows == [2, 6]
    (chunk,) = chunks_of(source, 100)
    assert chunk.first_row is None  # rows mean nothing where some are left out
    again = hdf5_source(path, offsets=("truth/first_pulse", "truth/n_pulses"))
    assert joined(again)["lengths"].tolist() == [3, 0, 2]
    with pytest.raises(ValueError, match="must be columns of one table"):
        hdf5_source(path, offsets=("truth/first_pulse", "pulses/time"))
    with pytest.raises(ValueError, match="one path or two"):
        hdf5_source(path, offsets=("truth/first_pulse",))


def test_offsets_of_another_name(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5", offsets=None, cuts={"at": borders(LENGTHS)})
    with pytest.raises(ValueError, match="--offsets-table"):
        hdf5_source(path)
    found = joined(hdf5_source(path, offsets="/cuts/at"))
    assert found["lengths"].tolist() == list(LENGTHS)
    with pytest.raises(ValueError, match="no dataset or column 'cuts/of'"):
        hdf5_source(path, offsets="cuts/of")
    with h5py.File(path, "a") as file:
        file["offsets"] = file["event_offsets"] = borders(LENGTHS)
    with pytest.raises(ValueError, match="/: offsets, /: event_offsets"):
        hdf5_source(path)


def test_an_event_that_stands_twice(tmp_path: Path) -> None:
    truth = truth_columns(4)
    truth["event_id"][3] = 102
    path = flat(tmp_path / "events.h5", truth=truth)
    for options in ({}, {"truth": False}):
        with pytest.raises(ValueError, match=r"events\.h5.*row 3: .* event 102 "):
            joined(hdf5_source(path, **options))


def test_empty_files_and_empty_beginnings(tmp_path: Path) -> None:
    """A part that begins with events of no pulses reads from its own pulses on."""
    path = flat(tmp_path / "b.h5", lengths=(3, 0, 0, 0, 2))
    flat(tmp_path / "a.h5", lengths=())
    source = hdf5_source([tmp_path / "a.h5", path], events_per_part=2)
    assert joined(source)["lengths"].tolist() == [3, 0, 0, 0, 2]
    assert [chunk.first_row for chunk in chunks_of(source, 100)] == [0, None, 3]
    path = flat(tmp_path / "c.h5", lengths=(3, 0, 0, 2))
    rows = [
        chunk.first_row for chunk in chunks_of(hdf5_source(path, events_per_part=2))
    ]
    assert rows == [0, 3]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 3, 2, 8, 9], "event 1 .* rows 3 to 2, .*decrease"),
        ([0, 3, 3, 8, 11], "event 3 .* rows 8 to 11, .* 9 rows"),
        ([-1, 3, 3, 8, 9], "event 0 .* rows -1 to 3, .* 9 rows"),
        ([0.0, 3.0, 3.0, 8.0, 9.0], "integers, found float64"),
    ],
)
def test_offsets_that_cannot_be(
    tmp_path: Path, offsets: list[float], message: str
) -> None:
    path = flat(tmp_path / "events.h5", offsets=np.array(offsets))
    with pytest.raises(ValueError, match=message) as caught:
        hdf5_source(path)
    assert "events.h5" in str(caught.value)


def test_rows_whose_end_is_beyond_int64(tmp_path: Path) -> None:
    truth = truth_columns(2)
    truth |= {"first_pulse": np.array([0, 2**63 - 1]), "n_pulses": np.array([3, 5])}
    path = flat(tmp_path / "events.h5", offsets=None, truth=truth)
    with pytest.raises(ValueError, match=f"event 1 .*rows {2**63 - 1}.* 9 rows"):
        hdf5_source(path)


def test_ranges_that_overlap(tmp_path: Path) -> None:
    truth = truth_columns(2)
    truth |= {"first_pulse": np.array([0, 2]), "n_pulses": np.array([3, 2])}
    path = flat(tmp_path / "events.h5", offsets=None, truth=truth)
    with pytest.raises(ValueError, match="overlap"):
        hdf5_source(path)


def test_offsets_end_before_the_pulses(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5", offsets=np.array([0, 3, 3, 8, 8]))
    source = hdf5_source(path)
    assert "1 of 9 pulses belong to no event" in source.notes[0]
    assert joined(source)["lengths"].tolist() == [3, 0, 5, 0]


def test_events_are_counted_without_event_id(tmp_path: Path) -> None:
    truth = truth_columns(4)
    ids = truth.pop("event_id")
    path = flat(tmp_path / "a.h5", truth=truth)
    source = hdf5_source(path, events_per_part=3)
    assert joined(source)["event_id"].tolist() == [0, 1, 2, 3]
    assert "numbered from 0" in source.notes[0]
    # through all files
    flat(tmp_path / "b.h5", truth=truth)
    assert joined(hdf5_source(tmp_path))["event_id"].tolist() == list(range(8))
    with h5py.File(path, "a") as file:
        file["ids/number"] = ids
        file["ids/real"] = ids + 0.5
    found = joined(hdf5_source(path, event_column="ids/number"))
    assert found["event_id"].tolist() == ids.tolist()
    with pytest.raises(ValueError, match=r"'real' must have integers"):
        joined(hdf5_source(path, event_column="ids/real"))
    with pytest.raises(ValueError, match="no dataset or column 'number'"):
        hdf5_source(path, event_column="number")
    with pytest.raises(ValueError, match=r"c.h5 and .*b.h5 .*separately"):
        hdf5_source([flat(tmp_path / "c.h5"), tmp_path / "b.h5"])


def test_which_table(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5")
    with h5py.File(path, "a") as file:
        file["copy"] = compound(kaggle_columns(9))
        file["bare/weight"] = np.ones(4)
        file["few/zenith"] = np.ones(3)
    with pytest.raises(ValueError, match="2 tables of pulses: copy, pulses"):
        hdf5_source(path)
    assert joined(hdf5_source(path, pulses="/copy"))["lengths"].tolist() == [3, 0, 5, 1]
    found = joined(hdf5_source(path, pulses="pulses", truth="bare"))
    assert found["truth weight"].tolist() == [1.0] * 4
    assert "truth zenith" not in found
    found = joined(hdf5_source(path, pulses="pulses", truth=False))
    assert not [name for name in found if name.startswith("truth")]
    assert found["event_id"].tolist() == [100, 102, 104, 106]
    with pytest.raises(ValueError, match=r"'few': .* 4 rows.* 3"):
        hdf5_source(path, pulses="pulses", truth="few")
    with pytest.raises(ValueError, match="no table 'none' for truth"):
        hdf5_source(path, pulses="pulses", truth="none")
    with pytest.raises(ValueError, match="no table of truth"):
        hdf5_source(path, pulses="pulses", pulse_map=PulseMap.kaggle(zenith="theta"))
    with pytest.raises(ValueError, match="no table of pulses: pulse map 'own' fits no"):
        hdf5_source(path, pulse_map=PulseMap.kaggle(name="own", time="t"))


def test_files_that_do_not_agree(tmp_path: Path) -> None:
    a = flat(tmp_path / "a.h5")
    truth = truth_columns(4, first_id=1)
    b = flat(tmp_path / "b.h5", truth={**truth, "more": np.ones(4)})
    with pytest.raises(ValueError, match=r"has no column 'more', which .*h5"):
        hdf5_source([a, b])
    pulses = kaggle_columns(9)
    pulses["width"] = pulses["width"] * 0.5
    c = flat(tmp_path / "c.h5", truth=truth, pulses=pulses)
    assert len(hdf5_source([a, c]).parts) == 2
    with pytest.raises(
        ValueError, match=r"'width' .*int64 in .*a\.h5.* float64 in .*c\.h5"
    ):
        hdf5_source([a, c], keep="all")
    pulses["time"] = pulses["time"] * 0.5
    own = PulseMap.kaggle(time_reference="first_pulse")
    d = flat(tmp_path / "d.h5", truth=truth, pulses=pulses)
    with pytest.raises(
        ValueError, match=r"'time' .*(float64|int64) in .* and (float64|int64) in"
    ):
        hdf5_source([a, d], pulse_map=own)


def test_angles_must_be_finite(tmp_path: Path) -> None:
    truth = truth_columns(4)
    truth["zenith"][2] = np.inf
    path = flat(tmp_path / "a.h5", truth=truth)
    with pytest.raises(ValueError, match=r"table 'truth', row 2: angle 'zenith' .*inf"):
        joined(hdf5_source(path))
    truth = truth_columns(4)
    truth["zenith"][2] = np.nan  # this event has no direction
    (chunk,) = chunks_of(hdf5_source(flat(tmp_path / "n.h5", truth=truth)))
    assert np.isnan(chunk.truth["zenith"]).tolist() == [False, False, True, False]
    assert "'zenith' is null or NaN in 1 of 4" in chunk.notes[0]
    truth = truth_columns(4)
    truth["energy"] = np.array([1, np.nan, 2, 3])
    (chunk,) = chunks_of(hdf5_source(flat(tmp_path / "b.h5", truth=truth)))
    assert "'energy' is null or NaN in 1 of 4" in chunk.notes[0]


@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=15),
    gaps=st.lists(st.integers(0, 5), min_size=15, max_size=15),
    events_per_part=st.integers(1, 6),
    max_pulses=st.integers(1, 12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_parts_chunks_and_gaps(
    tmp_path: Path,
    lengths: list[int],
    gaps: list[int],
    events_per_part: int,
    max_pulses: int,
) -> None:
    counts = np.array(lengths)
    gap = np.array(gaps[: len(lengths)])
    first = np.cumsum(counts + gap) - counts
    num_pulses = int((counts + gap).sum()) + 1
    truth = truth_columns(len(lengths))
    truth |= {"first_pulse": first, "n_pulses": counts}
    path = flat(
        tmp_path / "events.h5",
        offsets=None,
        pulses=kaggle_columns(num_pulses),
        truth=truth,
    )
    source = hdf5_source(path, keep="all", events_per_part=events_per_part)
    found = joined(source, max_pulses)
    expected = [
        row for f, n in zip(first, lengths, strict=True) for row in range(f, f + n)
    ]
    assert found["width"].tolist() == expected
    assert found["lengths"].tolist() == lengths
    np.testing.assert_array_equal(found["event_id"], truth["event_id"])
    for chunk in chunks_of(source, max_pulses):
        assert chunk.offsets[-1] <= max_pulses or len(chunk.event_id) == 1
        if chunk.first_row is not None and chunk.offsets[-1]:
            assert chunk.columns["width"][0] == chunk.first_row


def test_parts_pickle(tmp_path: Path) -> None:
    source = hdf5_source(flat(tmp_path / "events.h5"), events_per_part=3)
    names = [part.name for part in source.parts]
    assert names[1].endswith("events.h5 (events 3 to 3)")
    assert source.parts[0].fingerprint() != source.parts[1].fingerprint()
    icetray_file(tmp_path / "icetray.h5")
    (part,) = hdf5_source(tmp_path / "icetray.h5").parts
    assert pickle.loads(pickle.dumps(part)).fingerprint() == part.fingerprint()


def test_texts_of_many_bytes_are_left_out(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5")
    with h5py.File(path, "a") as file:
        texts = np.zeros(len(LENGTHS), "S100000")
        file.create_dataset("truth/long", data=texts, compression="gzip")
        file["truth/endless"] = ["x" * 70_000] * len(LENGTHS)
    with pytest.raises(ValueError, match=r"row 0: .*'endless' .*bytes"):
        joined(hdf5_source(path))
    with h5py.File(path, "a") as file:
        del file["truth/endless"]
    source = hdf5_source(path)
    assert "long" in " ".join([*source.notes, *source.left_out])
    assert "truth long" not in joined(source)


def test_a_compression_that_is_not_there(tmp_path: Path) -> None:
    """As of KM3NeT's files, which PyTables compresses with blosc."""
    path = flat(tmp_path / "events.h5")
    with h5py.File(path, "a") as file:
        del file["pulses/time"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((9,))
        layout.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)  # nobody's number
        space, kind = h5py.h5s.create_simple((9,)), h5py.h5t.NATIVE_DOUBLE
        made = h5py.h5d.create(file["pulses"].id, b"time", kind, space, layout)
        made.write_direct_chunk((0,), bytes(72), filter_mask=0)
    with pytest.raises(ValueError, match=r"events\.h5.*hdf5plugin"):
        joined(hdf5_source(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.h5"):
        hdf5_source(tmp_path / "nothing.h5")
    with pytest.raises(ValueError, match=r"no file that ends in \.h5 or \.hdf5"):
        hdf5_source(tmp_path)
    empty = write(tmp_path / "empty.h5", {})
    with pytest.raises(ValueError, match=r"empty\.h5 has no table of pulses"):
        hdf5_source(empty)
    with pytest.raises(ValueError, match="events_per_part must be 1 or more"):
        hdf5_source(empty, events_per_part=0)


def test_links_are_not_followed_in_circles(tmp_path: Path) -> None:
    path = flat(tmp_path / "events.h5")
    with h5py.File(path, "a") as file:
        file["truth/up"] = h5py.SoftLink("/")
        file["gone"] = h5py.SoftLink("/nowhere")
    assert joined(hdf5_source(path))["lengths"].tolist() == list(LENGTHS)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = flat(tmp_path / "events.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install graphnet-icecube2nd\[data\]"):
        hdf5_source(path)


@pytest.mark.parametrize("kind", ["groups", "compound"])
def test_joined_by_an_event_column(tmp_path: Path, kind: str) -> None:
    """Pulses may come in any order, truth as well; as KM3NeT's converters write."""
    pulses, truth = kaggle_columns(6), truth_columns(4)
    events = np.array([8, 8, 5, 8, 2, 5])
    del truth["event_id"]
    for columns, numbers in ((pulses, events), (truth, np.array([2, 5, 8, 9]))):
        columns["event_no"] = numbers.astype(np.uint32)
    tables: dict[str, Any] = {"hits": pulses, "truth": truth}
    if kind == "compound":
        tables = {name: compound(columns) for name, columns in tables.items()}
    path = write(tmp_path / "a.h5", {**tables, "other/truth": np.zeros(3)})
    for options in ({"event_column": "event_no"}, {}):
        source = hdf5_source(path, keep="all", **options)
        assert source.pulse_columns[-1] == "width"
        for max_pulses in (1, 100):
            found = joined(source, max_pulses)
            assert found["event_id"].tolist() == [8, 5, 2, 9]
            assert found["lengths"].tolist() == [3, 2, 1, 0]
            assert found["width"].tolist() == [0, 1, 3, 2, 5, 4]
            expected = truth["zenith"][[2, 1, 0, 3]]
            np.testing.assert_array_equal(found["truth zenith"], expected)
    with pytest.raises(ValueError, match=r"--event-column"):
        hdf5_source(path, event_column="number")
    b = flat(tmp_path / "b.h5", lengths=(2, 1))
    with pytest.raises(ValueError, match=r"a\.h5 and .*b\.h5 .*separately"):
        hdf5_source([path, b])


def test_blocks_of_pandas(tmp_path: Path) -> None:
    path = write(tmp_path / "fixed.h5", {"pulses/block0_values": np.zeros((9, 4))})
    with h5py.File(path, "a") as file:
        file["pulses/axis0"] = np.array([b"time", b"charge"])
        file["a link"] = h5py.SoftLink("/nowhere")
        file["pulses"].attrs["pandas_type"] = "frame"
    with pytest.raises(ValueError, match=r"fixed\.h5.*data_columns=True"):
        hdf5_source(path)


def test_string_and_om_of_antares(tmp_path: Path) -> None:
    def of_antares(tables: dict[str, NDArray[Any]]) -> None:
        tables["AntMCTree"] = tables["MCPrimary"]

    with pytest.raises(ValueError, match=r"i3\.h5 has AntMCTree.*x, y, z"):
        hdf5_source(icetray_file(tmp_path / "i3.h5", change=of_antares))


def icetray_file(
    path: Path,
    lengths: Sequence[int] = LENGTHS,
    change: Callable[[dict[str, NDArray[Any]]], None] | None = None,
) -> Path:
    """A file as hdfwriter makes it: no pulses in frame 1, which its index pads."""
    num_frames, num_pulses = len(lengths), sum(lengths)
    rng = np.random.default_rng(5)
    header = {
        "Run": np.full(num_frames, 7),
        "Event": 10 + np.arange(num_frames),
        "SubEvent": np.arange(num_frames) % 2,
    }
    frame = np.repeat(np.arange(num_frames), lengths)
    fields = [("vector_index", "<u4"), ("string", "<i4"), ("om", "<u4"), ("pmt", "<u4")]
    fields += [("time", "<f8"), ("width", "<f8"), ("charge", "<f8"), ("flags", "u1")]
    pulses = np.zeros(num_pulses, EVENT + fields)
    index = np.zeros(num_frames, [*EVENT, ("start", "<u8"), ("stop", "<u8")])
    primary = np.zeros(
        num_frames, [*EVENT, ("zenith", "<f8"), ("azimuth", "<f8"), ("energy", "<f8")]
    )
    for name, values in header.items():
        pulses[name], index[name], primary[name] = values[frame], values, values
    pulses["exists"] = primary["exists"] = 1
    pulses["string"] = rng.integers(1, 87, num_pulses)
    pulses["om"] = rng.integers(1, 61, num_pulses)
    pulses["time"] = np.sort(rng.uniform(9e3, 2e4, num_pulses))
    pulses["charge"] = rng.uniform(0.3, 2.0, num_pulses)
    pulses["flags"] = rng.integers(0, 8, num_pulses)
    index["exists"] = np.array(lengths) > 0
    index["start"] = np.where(index["exists"], borders(lengths)[:-1], 0)
    index["stop"] = np.where(index["exists"], borders(lengths)[1:], 0)
    primary["zenith"] = rng.uniform(0, 3, num_frames)
    primary["azimuth"] = rng.uniform(0, 6, num_frames)
    primary["energy"] = rng.uniform(1, 1e5, num_frames)
    tables = {
        "SplitInIcePulses": pulses,
        "MCPrimary": primary,
        "LineFit": primary,
        "__I3Index__/SplitInIcePulses": index,
        "__I3Index__/MCPrimary": index,
    }
    if change is not None:
        change(tables)
    return write(path, tables)


def test_icetray(tmp_path: Path) -> None:
    path = icetray_file(tmp_path / "i3.hdf5")
    with h5py.File(path) as file:
        pulses, primary = file["SplitInIcePulses"][:], file["MCPrimary"][:]
    source = hdf5_source(path, events_per_part=3)
    assert source.pulse_map.name == "icetray"
    assert source.pulse_columns == ("time", "charge", "hlc", "sensor_id")
    assert "the frames are numbered" in source.notes[0]
    found = joined(source)
    assert found["event_id"].tolist() == [0, 1, 2, 3]
    assert found["lengths"].tolist() == list(LENGTHS)
    string, om = pulses["string"].astype(int), pulses["om"].astype(int)
    assert found["sensor_id"].tolist() == (60 * (string - 1) + om - 1).tolist()
    assert found["hlc"].tolist() == (pulses["flags"] & 1).tolist()
    np.testing.assert_array_equal(found["charge"], pulses["charge"])
    for name in ("zenith", "azimuth", "energy", "Run", "Event", "SubEvent"):
        np.testing.assert_array_equal(found[f"truth {name}"], primary[name])
    convert(source, tmp_path / "store", workers=1)
    store = EventStore(tmp_path / "store")
    assert store.has_directions
    assert store.shards[0].pulses.column("sensor_id").dtype == np.int16
    source = hdf5_source(path, keep=("width", "string"))
    assert source.pulse_columns[-2:] == ("string", "width")
    assert joined(source)["string"].tolist() == pulses["string"].tolist()
    source = hdf5_source(path, keep="all")
    assert set(source.pulse_columns) == {
        *("time", "charge", "hlc", "sensor_id", "string", "om", "pmt", "width"),
        *("flags", "vector_index"),
    }
    (chunk,) = chunks_of(hdf5_source(path, truth=False))
    assert chunk.truth.keys() == {"Run", "Event", "SubEvent", "SubEventStream"}
    for column in ("Event", "__I3Index__/SplitInIcePulses/Event"):
        found = joined(hdf5_source(path, event_column=column))
        assert found["event_id"].tolist() == [10, 11, 12, 13]


def test_icetray_with_places(tmp_path: Path) -> None:
    """hdfwriter can write x, y, z; then any DOM will do."""

    def with_places(tables: dict[str, NDArray[Any]]) -> None:
        old = tables["SplitInIcePulses"]
        fields = [(name, "<f8") for name in "xyz"]
        new = np.zeros(len(old), old.dtype.descr + fields)
        for name in old.dtype.names:
            new[name] = old[name]
        new["om"] = 63
        new["z"] = np.arange(len(old))
        tables["SplitInIcePulses"] = new

    source = hdf5_source(icetray_file(tmp_path / "i3.h5", change=with_places))
    assert source.pulse_columns == ("x", "y", "z", "time", "charge", "hlc")
    assert source.pulse_map.sensor_id is None
    assert joined(source)["z"].tolist() == list(range(9))


def _icetop(tables: dict[str, NDArray[Any]]) -> None:
    tables["SplitInIcePulses"]["om"][4] = 62


def _with_weights(tables: dict[str, NDArray[Any]]) -> None:
    """The columns of neutrino-generator that simweights reads."""
    primary = tables["MCPrimary"]
    values = {
        "PrimaryNeutrinoType": np.array([14.0, -14.0, 14.0, -14.0]),
        "PrimaryNeutrinoEnergy": np.array([1e3, 2e3, 5e3, 9e3]),
        "PrimaryNeutrinoZenith": primary["zenith"],
        "TotalWeight": np.array([1e-6, 2e-6, 3e-6, 4e-6]),
        **{"MinZenith": 0.0, "MaxZenith": np.pi, "MinEnergyLog": 2.0},
        **{"MaxEnergyLog": 5.0, "PowerLawIndex": 2.0, "NEvents": 1000.0},
        **{"CylinderHeight": 1000.0, "CylinderRadius": 600.0, "TypeWeight": 0.5},
    }
    weights = np.zeros(len(primary), [*EVENT, *((name, "<f8") for name in values)])
    for name in ("Run", "Event", "SubEvent", "SubEventStream", "exists"):
        weights[name] = primary[name]
    for name, value in values.items():
        weights[name] = value
    tables["I3MCWeightDict"] = weights
    tables["PolyplopiaPrimary"] = primary


def test_weights_of_icetray_are_kept_for_simweights(tmp_path: Path) -> None:
    source = hdf5_source(icetray_file(tmp_path / "i3.h5", change=_with_weights))
    convert(source, tmp_path / "store", workers=1)
    store = EventStore(tmp_path / "store")
    tables = store.weight_tables()
    assert set(tables) == {"I3MCWeightDict", "PolyplopiaPrimary"}
    energy = store.whole_event_column("energy")
    assert tables["PolyplopiaPrimary"]["energy"].tolist() == energy.tolist()
    weights = tables["I3MCWeightDict"]
    assert weights["TotalWeight"].tolist() == [1e-6, 2e-6, 3e-6, 4e-6]
    assert "Run" not in weights
    assert store.has_directions  # the truth is that of the primary, too
    simweights = pytest.importorskip("simweights")
    weighter = simweights.NuGenWeighter(tables, nfiles=1)
    rate = weighter.get_weights(lambda energy: 1e-18 * (energy / 1e5) ** -2)
    # Generated events of a type per GeV, cm2 and sr: N E^-2 / (integral of E^-2), 4 pi,
    # and the area of the cylinder as seen along the direction.
    energy = weights["PrimaryNeutrinoEnergy"]
    density = 500 * energy**-2.0 / (1e-2 - 1e-5)
    radius, height = 600e2, 1000e2  # cm
    cosine = np.cos(weights["PrimaryNeutrinoZenith"])
    area = np.pi * radius**2 * abs(cosine)
    area += 2 * radius * height * np.sqrt(1 - cosine**2)
    expected = weights["TotalWeight"] * 1e-18 * (energy / 1e5) ** -2.0
    np.testing.assert_allclose(rate, expected * 4 * np.pi * area / density, rtol=1e-6)
    source = hdf5_source(tmp_path / "i3.h5", truth=False)
    assert not any("Weight" in name for name in joined(source))


@pytest.mark.parametrize("rows", [4, 2])
def test_weights_of_other_frames_are_left_out(tmp_path: Path, rows: int) -> None:
    def change(tables: dict[str, NDArray[Any]]) -> None:
        _with_weights(tables)
        tables["I3MCWeightDict"]["Event"][1] = 99
        tables["I3MCWeightDict"] = tables["I3MCWeightDict"][:rows]

    source = hdf5_source(icetray_file(tmp_path / "i3.h5", change=change))
    (note,) = [note for note in source.notes if "I3MCWeightDict" in note]
    assert "the 4 frames of '__I3Index__/SplitInIcePulses', in the same" in note
    found = joined(source)
    assert not any("Weight" in name for name in found)
    assert len(found["truth energy"]) == 4


def _back(tables: dict[str, NDArray[Any]]) -> None:
    tables["__I3Index__/SplitInIcePulses"]["start"][2] = 1


def _beyond(tables: dict[str, NDArray[Any]]) -> None:
    tables["__I3Index__/SplitInIcePulses"]["stop"][3] = 90


def _short(tables: dict[str, NDArray[Any]]) -> None:
    tables["MCPrimary"] = tables["MCPrimary"][:-1]


def _other(tables: dict[str, NDArray[Any]]) -> None:
    tables["MCPrimary"]["Event"][2] = 99


def _without_frames(tables: dict[str, NDArray[Any]], rows: list[int]) -> None:
    primary = tables["MCPrimary"]
    new = np.zeros(len(rows), [(name, "<f8") for name in ("zenith", "azimuth")])
    for name in new.dtype.names or ():
        new[name] = primary[name][rows]
    tables["MCPrimary"] = new


def _few(tables: dict[str, NDArray[Any]]) -> None:
    _without_frames(tables, [0, 1])


def _many(tables: dict[str, NDArray[Any]]) -> None:
    _without_frames(tables, [0, 1, 2, 3, 3])


def _missing(tables: dict[str, NDArray[Any]]) -> None:
    tables["MCPrimary"]["exists"][2] = 0


def _no_primary(tables: dict[str, NDArray[Any]]) -> None:
    del tables["MCPrimary"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_icetop, r"string \d+, om 62"),
        (_back, "event 2 .*overlap"),
        (_beyond, "event 3 .*rows 8 to 90, .* 9 rows"),
        (_short, r"'MCPrimary' .*the 4 frames.* 3 rows"),
        (_other, "'MCPrimary' .* in the same order"),
        (_few, r"'MCPrimary' .*the 4 frames.* 2 rows"),
        (_many, r"'MCPrimary' .*the 4 frames.* 5 rows"),
        (_missing, "event 2 .* has no truth.*truth=False"),
        (_no_primary, "has no table MCPrimary or .*LineFit.*truth=False"),
    ],
)
def test_icetray_files_that_cannot_be(
    tmp_path: Path, change: Callable[[dict[str, NDArray[Any]]], None], message: str
) -> None:
    path = icetray_file(tmp_path / "i3.h5", change=change)
    with pytest.raises(ValueError, match=message) as caught:
        joined(hdf5_source(path))
    assert "i3.h5" in str(caught.value)


def test_icetray_which_table(tmp_path: Path) -> None:
    def more(tables: dict[str, NDArray[Any]]) -> None:
        tables["SRTInIcePulses"] = tables["SplitInIcePulses"]
        index = tables["__I3Index__/SplitInIcePulses"]
        tables["__I3Index__/SRTInIcePulses"] = index

    path = icetray_file(tmp_path / "i3.h5", change=more)
    with pytest.raises(ValueError, match="2 tables of pulses: SRTInIceP"):
        hdf5_source(path)
    source = hdf5_source(path, pulses="SRTInIcePulses", truth="LineFit")
    assert joined(source)["lengths"].tolist() == list(LENGTHS)
    with pytest.raises(ValueError, match="offsets_table"):
        hdf5_source(path, offsets="offsets")


def test_icetray_truth_with_an_event_id(tmp_path: Path) -> None:
    """The numbers of the frames are the event_id, not a column of the truth."""

    def change(tables: dict[str, NDArray[Any]]) -> None:
        old = tables["MCPrimary"]
        new = np.zeros(len(old), [*old.dtype.descr, ("event_id", "<i8")])
        for name in old.dtype.names or ():
            new[name] = old[name]
        new["event_id"] = [3, 2, 1, 0]
        tables["MCPrimary"] = new

    path = icetray_file(tmp_path / "i3.h5", change=change)
    with h5py.File(path) as file:
        energy = file["MCPrimary"]["energy"]
    found = joined(hdf5_source(path))
    assert found["event_id"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found["truth energy"], energy)


def test_icetray_tables_with_different_columns(tmp_path: Path) -> None:
    """Each table has its own pulse map: one without flags does not take hlc away."""

    def change(tables: dict[str, NDArray[Any]]) -> None:
        old = tables["SplitInIcePulses"][:3]
        names = [name for name in old.dtype.names or () if name != "flags"]
        new = np.zeros(3, [(name, old.dtype[name]) for name in names])
        for name in names:
            new[name] = old[name]
        index = tables["__I3Index__/SplitInIcePulses"].copy()
        index["exists"] = index["start"] == 0
        index["exists"][1] = 0
        for name in ("start", "stop"):
            index[name][index["exists"] == 0] = 0
        tables["I3MCPulseSeriesMap"] = new
        tables["__I3Index__/I3MCPulseSeriesMap"] = index

    path = icetray_file(tmp_path / "i3.h5", change=change)
    with pytest.raises(ValueError, match="2 tables of pulses"):
        hdf5_source(path)
    source = hdf5_source(path, pulses="SplitInIcePulses")
    assert source.pulse_columns == ("time", "charge", "hlc", "sensor_id")
    source = hdf5_source(path, pulses="I3MCPulseSeriesMap")
    assert source.pulse_columns == ("time", "charge", "sensor_id")
    assert joined(source)["lengths"].tolist() == [3, 0, 0, 0]
