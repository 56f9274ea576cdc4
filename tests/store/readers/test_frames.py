"""Data frames of pandas, polars and pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

import pyarrow as pa  # noqa: E402
import torch  # noqa: E402

from graphnet_icecube2nd import EventStore, PulseMap  # noqa: E402
from graphnet_icecube2nd.detector.geometry import DetectorGeometry  # noqa: E402
from graphnet_icecube2nd.events.features import (  # noqa: E402
    check_pulses,
    pulse_features,
)
from graphnet_icecube2nd.store.conversion import convert  # noqa: E402
from graphnet_icecube2nd.store.preparation import prepare_frames  # noqa: E402
from graphnet_icecube2nd.store.readers.frames import frames_source  # noqa: E402

IDS, LENGTHS = [5, 3, 9], [4, 2, 3]
TRUTH = {
    "event_id": [3, 5, 9, 2],
    "azimuth": [0.1, 0.2, 0.3, 0.4],
    "zenith": [1.1, 1.2, 1.3, 1.4],
    "flavour": ["e", "mu", "tau", "e"],
}


def of_pandas(columns: Any) -> Any:
    return pd.DataFrame(columns)


def with_index(columns: Any) -> Any:
    return pd.DataFrame(columns).set_index("event_id")


def of_polars(columns: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


@pytest.mark.parametrize("frame", [of_pandas, with_index, of_polars, pa.table])
class TestEveryLibrary:
    def test_pair(self, frame: Any, read: Any, pulses: Any) -> None:
        source = frames_source(frame(pulses(IDS, LENGTHS)), frame(TRUTH))
        assert source.kind == "frames"
        assert source.left_out == ()
        assert source.pulse_map == PulseMap.kaggle()
        found = read(source, 4)
        assert found.event_id == [*IDS, 2]
        assert found.lengths == [*LENGTHS, 0]
        assert found.truth["azimuth"] == [0.2, 0.1, 0.3, 0.4]
        assert found.truth["flavour"] == ["mu", "e", "tau", "e"]
        for column, values in found.columns.items():
            assert values.tolist() == pulses(IDS, LENGTHS)[column].tolist()
        assert "event 2 of frames, truth" in found.notes[0]

    def test_conversion(self, frame: Any, pulses: Any, tmp_path: Path) -> None:
        source = frames_source(frame(pulses(IDS, LENGTHS)), frame(TRUTH))
        manifest = convert(source, tmp_path / "store", workers=4)
        assert (manifest.num_events, manifest.num_pulses) == (4, 9)

    def test_fingerprint_is_of_the_content(self, frame: Any, pulses: Any) -> None:
        def prints(columns: Any, truth: Any = TRUTH) -> Any:
            (part,) = frames_source(frame(columns), frame(truth)).parts
            return part.fingerprint()

        columns = pulses(IDS, LENGTHS)
        before = prints(columns)
        assert prints(columns) == before
        for change in ({"charge": columns["charge"] * 2}, {"width": np.ones(9)}):
            assert prints({**columns, **change}) != before
        changed = {**TRUTH, "flavour": ["e", "mu", "tau", "mu"]}
        assert prints(columns, changed) != before

    def test_errors(self, frame: Any, read: Any, pulses: Any) -> None:
        columns = pulses(IDS, LENGTHS)
        del columns["charge"]
        with pytest.raises(ValueError, match="'kaggle' also needs charge"):
            frames_source(frame(columns))
        columns["charge"] = np.append(np.ones(8), np.nan)
        with pytest.raises(ValueError, match=r"charge.*finite"):
            convert_to_nowhere(frames_source(frame(columns)))
        twice = {name: [*values, values[0]] for name, values in TRUTH.items()}
        with pytest.raises(ValueError, match=r"row 4: .* event 3 is also in row 0"):
            read(frames_source(frame(pulses(IDS, LENGTHS)), frame(twice)))
        with pytest.raises(ValueError, match="frames, pulses must have rows"):
            frames_source(frame(pulses([], [])))


def convert_to_nowhere(source: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        convert(source, Path(folder) / "store", workers=1)


def test_pandas_of_its_own_types(read: Any, pulses: Any) -> None:
    frame = pd.DataFrame(pulses(IDS, LENGTHS))
    frame["time"] = frame["time"].astype("Int64")
    assert read(frames_source(frame)).columns["time"].dtype == np.int64
    frame.loc[4, "time"] = pd.NA
    chunk = read(frames_source(frame))
    assert np.flatnonzero(np.isnan(chunk.columns["time"])).tolist() == [4]
    frame.loc[5, "time"] = 2**60 + 1  # no float is equal to it
    with pytest.raises(ValueError, match="row 4: column 'time' must not be null"):
        read(frames_source(frame))


def test_columns_of_pandas(pulses: Any) -> None:
    frame = pd.DataFrame(pulses(IDS, LENGTHS))
    twice = pd.concat([frame, frame[["charge"]]], axis=1)
    with pytest.raises(ValueError, match="names of columns"):
        frames_source(twice)
    frame["comment"] = [1, "a"] * 4 + [2]
    with pytest.raises(ValueError, match="column 'comment'"):
        frames_source(frame)


def test_level_of_an_index(read: Any, pulses: Any) -> None:
    frame = pd.DataFrame(pulses(IDS, LENGTHS))
    frame = frame.rename(columns={"event_id": "number"})
    frame["pulse"] = np.arange(len(frame))
    frame = frame.set_index(["number", "pulse"])
    assert read(frames_source(frame, event_column="number")).event_id == IDS
    with pytest.raises(ValueError, match="no column 'event_id' or 'event_no'"):
        frames_source(frame)


def test_no_frame() -> None:
    with pytest.raises(TypeError, match="got dict"):
        frames_source({"event_id": [1]})


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_rows(data: st.DataObject, read: Any, pulses: Any) -> None:
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=10))
    ids = data.draw(st.permutations(range(len(lengths))))
    frame = pd.DataFrame(pulses(ids, lengths))
    frame = frame.iloc[data.draw(st.permutations(range(len(frame))))]
    found = read(frames_source(frame), data.draw(st.integers(1, 30)))
    assert sorted(found.event_id) == sorted(ids)
    for event in ids:
        rows = frame[frame["event_id"] == event]
        for column in found.columns:
            assert found.of(event, column) == rows[column].tolist()


@pytest.mark.parametrize("filler", [-1.0, 0.0, float("nan")])
def test_an_unknown_rde_is_that_of_the_dom(tmp_path: Path, filler: float) -> None:
    modules = DetectorGeometry.icecube86()
    dom_T = np.array([60 * 80 + 30, 0, 60 * 80 + 30, 7])  # the first is of high QE
    columns = dict(
        zip(
            ("dom_x", "dom_y", "dom_z"),
            modules.position_S3[dom_T].numpy().T.copy(),
            strict=True,
        )
    )
    columns |= {"dom_time": 1e4 + np.arange(4.0), "charge": np.ones(4)}
    columns |= {"hlc": np.ones(4), "rde": np.array([filler, filler, 1.0, 1.35])}
    columns["dom_x"][1] += 70.0  # far from any DOM
    expected = torch.tensor([modules.rde_S[dom_T[0]], 1.0, 1.0, 1.35])
    assert expected[0] > 1.1
    pulses = pd.DataFrame({"event_id": [1, 1, 1, 1], **columns})
    truth = pd.DataFrame({"event_id": [1], "azimuth": [1.0], "zenith": [2.0]})
    report = prepare_frames(pulses, truth, tmp_path / "store")
    assert any("rde of 2 pulses" in note for note in report.notes)
    stored = EventStore(tmp_path / "store").shards[0].pulses.column("rde")
    np.testing.assert_allclose(stored, expected)
    # what is in memory is read alike
    borders, pulse_map = torch.tensor([0, 4]), PulseMap.icecube86()
    found = check_pulses(columns, borders, pulse_map)["rde"]
    np.testing.assert_allclose(found, expected)
    flag = pulse_features(columns, borders, pulse_map)[
        :, pulse_map.feature_names.index("qe")
    ]
    assert flag.tolist() == [1.0, 0.0, 0.0, 1.0]
