"""Nested parquet files: one row an event."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa

from graphnet_icecube2nd import PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.readers.parquet import nested_source

LISTS = ("dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde", "width")


def rows(lengths: Sequence[int], **truth: Any) -> dict[str, list[dict[str, Any]]]:
    """Structs as GraphNeT wrote them; the value of a pulse tells where it is."""
    pulses = [
        {
            "event_no": 7 * event,
            **{
                name: [100.0 * event + i + 0.5 * place for i in range(length)]
                for place, name in enumerate(LISTS)
            },
        }
        for event, length in enumerate(lengths)
    ]
    labels = [
        {
            "azimuth": event / 8,
            "zenith": 1.0,
            "sim_type": "numu",
            "event_no": 7 * event,
            "daughters": [1, 2],
            **truth,
        }
        for event in range(len(lengths))
    ]
    return {"SRTInIcePulses": pulses, "truth": labels}


@pytest.fixture
def file(tmp_path: Path, write: Callable[..., Path]) -> Callable[..., Path]:
    """`file(rows, name="nested.parquet", **options)`: written as it is."""

    def make(content: Any, name: str = "nested.parquet", **options: Any) -> Path:
        return write(tmp_path / name, content, **options)

    return make


class TestWhatIsRead:
    def test_graphnet(self, file: Any, read: Any) -> None:
        source = nested_source(file(rows([2, 0, 3])))
        assert source.pulse_map == PulseMap.icecube86()
        assert source.kind == "nested-parquet"
        assert source.left_out == ("width", "daughters")
        assert "left out: daughters" in source.notes[0]
        found = read(pickle.loads(pickle.dumps(source)))
        assert found.event_id == [0, 7, 14]
        assert found.lengths == [2, 0, 3]
        assert found.columns["dom_x"].tolist() == [0, 1, 200, 201, 202]
        assert found.columns["dom_time"].tolist() == [1.5, 2.5, 201.5, 202.5, 203.5]
        assert found.truth == {
            "azimuth": [0, 0.125, 0.25],
            "zenith": [1, 1, 1],
            "sim_type": ["numu"] * 3,
        }
        assert nested_source(file(rows([2])), keep="all").left_out == ("daughters",)

    @settings(
        max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_lengths(self, data: st.DataObject, file: Any, read: Any) -> None:
        lengths = data.draw(st.lists(st.integers(0, 6), max_size=15))
        lengths.insert(data.draw(st.integers(0, len(lengths))), 1)
        size = data.draw(st.integers(1, len(lengths)))
        content = rows(lengths)
        found = read(
            nested_source(file(content, row_group_size=size)),
            data.draw(st.integers(1, 30)),
        )
        assert found.lengths == lengths
        for name in set(LISTS) - {"width"}:
            whole = [v for row in content["SRTInIcePulses"] for v in row[name]]
            assert found.columns[name].tolist() == whole
        assert found.truth["azimuth"] == [i / 8 for i in range(len(lengths))]

    def test_large_events_are_read_fewer_at_once(
        self, file: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from graphnet_icecube2nd.store.readers import parquet

        (part,) = nested_source(file(rows([400, 0, 300, 5]))).parts
        read = part.pulses.batches
        assert [len(batch) for _, batch in read(["dom_x"])] == [705]
        monkeypatch.setattr(parquet, "VALUES_AT_ONCE", 1)
        assert [len(batch) for _, batch in read(["dom_x"])] == [400, 0, 300, 5]

    def test_prometheus_without_ids(self, file: Any, read: Any) -> None:
        names = ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t", "sensor_id")
        truth = {"initial_state_azimuth": 1.0, "initial_state_zenith": 2.0}
        content = {
            "photons": [{name: [1.0] * n for name in names} for n in (2, 1)],
            "mc_truth": [truth] * 2,
        }
        source = nested_source([file(content), file(content, "second.parquet")])
        assert source.pulse_map.labels.azimuth == "initial_state_azimuth"
        assert source.pulse_map.labels.angles == "flight"
        assert "events are numbered by row" in source.notes[-1]
        found = read(source)
        assert found.event_id == [0, 1, 2, 3]
        assert found.lengths == [2, 1, 2, 1]
        assert found.truth["initial_state_zenith"] == [2, 2, 2, 2]

    def test_ids_beside_the_structs(self, file: Any, read: Any) -> None:
        content: dict[str, Any] = rows([1, 2])
        for struct in content.values():
            for row in struct:
                del row["event_no"]
        content["event_id"] = [50, 40]
        assert read(nested_source(file(content))).event_id == [50, 40]
        content["number"] = content.pop("event_id")
        path = file(content)
        assert read(nested_source(path, event_column="number")).event_id == [50, 40]
        with pytest.raises(ValueError, match="no column 'id'"):
            nested_source(path, event_column="id")

    def test_without_truth(self, file: Any, read: Any) -> None:
        path = file({"SRTInIcePulses": rows([1, 2])["SRTInIcePulses"]})
        with pytest.raises(ValueError, match=r"no table of truth.*truth=False"):
            nested_source(path)
        found = read(nested_source(path, truth=False))
        assert (found.event_id, found.truth) == ([0, 7], {})

    def test_choice_of_structs(self, file: Any, read: Any) -> None:
        content: dict[str, Any] = rows([1, 2])
        content["RawPulses"] = content["SRTInIcePulses"]
        path = file(content)
        with pytest.raises(ValueError, match=r"2 tables of pulses: SRT.*, Raw"):
            nested_source(path)
        assert read(nested_source(path, pulses="RawPulses")).lengths == [1, 2]
        with pytest.raises(ValueError, match="no table 'Pulses' for pulses"):
            nested_source(path, pulses="Pulses")
        with pytest.raises(ValueError, match="no table 'labels' for truth"):
            nested_source(path, pulses="RawPulses", truth="labels")


class TestDamage:
    @pytest.mark.parametrize(
        ("event", "changes", "message"),
        [
            (
                1,
                {"charge": [1.0]},
                "row 1: .*charge' has 1 values",
            ),
            (2, {"charge": None}, "row 2: column .*charge'"),
            (1, {"event_no": 8}, "nested.parquet.* lacks event 8"),
            (
                1,
                {"event_no": None},
                "nested.parquet.*event_no' must not be null",
            ),
        ],
    )
    def test_pulses(
        self, file: Any, read: Any, event: int, changes: Any, message: str
    ) -> None:
        content = rows([2, 2, 3])
        content["SRTInIcePulses"][event].update(changes)
        with pytest.raises(ValueError, match=message):
            read(nested_source(file(content)))

    @pytest.mark.parametrize(
        ("truth", "message"),
        [
            (
                {"zenith": None},
                "column 'zenith', an angle of .*, is null",
            ),
            ({"zenith": np.inf}, "row 0: angle .*zenith' .*inf"),
            ({"zenith": "up"}, "column 'zenith', an angle of .*, is string"),
        ],
    )
    def test_truth(self, file: Any, read: Any, truth: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read(nested_source(file(rows([2, 2], **truth))))

    def test_null_event(self, file: Any, read: Any) -> None:
        content: Any = rows([2, 2])
        content["SRTInIcePulses"][1] = None
        with pytest.raises(ValueError, match="row 1: column 'SRTInIcePulses'"):
            read(nested_source(file(content)))

    def test_files(self, file: Any) -> None:
        with pytest.raises(ValueError, match="lists of pulses"):
            nested_source(file({"event_id": [1], "t": [0.0]}))
        table = pa.table(rows([2, 2]))
        with pytest.raises(ValueError, match=r"nested.parquet must have rows"):
            nested_source(file(table.slice(0, 0)))
        content = rows([2])
        del content["SRTInIcePulses"][0]["hlc"]
        with pytest.raises(ValueError, match=r"For files without it: .*\(hlc=None\)"):
            nested_source(file(content))
        del content["SRTInIcePulses"][0]["dom_x"]
        with pytest.raises(ValueError, match="no named pulse map fits"):
            nested_source(file(content))

    def test_second_file_of_other_columns(self, file: Any) -> None:
        content = rows([2])
        first = file(content)
        del content["truth"][0]["sim_type"]
        second = file(content, "second.parquet")
        message = r"second.parquet has no column 'sim_type', which .*nested"
        with pytest.raises(ValueError, match=message):
            nested_source([first, second])


@pytest.mark.data
class TestRealData:
    def test_graphnet(self, shared_dir: Path, tmp_path: Path) -> None:
        name = "oscNext_genie_level7_v02"
        folder = shared_dir / "data/graphnet/data/tests/parquet" / name
        source = nested_source(folder / f"{name}_first_5_frames.parquet")
        assert source.pulse_map == PulseMap.icecube86()
        manifest = convert(source, tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (5, 56)

    def test_prometheus(self, shared_dir: Path, tmp_path: Path) -> None:
        folder = shared_dir / "data/graphnet/data/tests/prometheus"
        source = nested_source(folder / "22980001_photons.parquet")
        manifest = convert(source, tmp_path / "store", workers=1)
        assert (manifest.num_events, manifest.num_pulses) == (10, 200)
        assert manifest.num_empty == 1
