"""A source into a store: what is written, what is refused, what a kill leaves."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, PulseMap, prepare
from graphnet_icecube2nd.events.events import untriggered_note
from graphnet_icecube2nd.store import shard_writer
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    Source,
    chunk_borders,
)
from graphnet_icecube2nd.store.readers.tables import ParquetTable


@dataclass
class ArrayPart(Part):
    """Arrays as a part."""

    name: str
    columns: dict[str, Any]
    lengths: list[int]
    event_id: list[int]
    truth: dict[str, Any]
    chunk_pulses: int = 50
    batch: int | None = None

    def fingerprint(self) -> dict[str, Any]:
        return {"lengths": self.lengths}

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        offsets = np.append(0, np.cumsum(self.lengths, dtype=np.int64))
        for events in chunk_borders(offsets, self.chunk_pulses):
            first, stop = offsets[events.start], offsets[events.stop]
            yield EventChunk(
                columns={k: np.asarray(v)[first:stop] for k, v in self.columns.items()},
                offsets=offsets[events.start : events.stop + 1] - first,
                event_id=np.asarray(self.event_id)[events],
                truth={k: np.asarray(v)[events] for k, v in self.truth.items()},
                first_row=int(first),
            )


def make_part(lengths: list[int], name: str = "a", first_id: int = 0) -> ArrayPart:
    rng = np.random.default_rng(len(lengths))
    total = sum(lengths)
    columns = {
        "sensor_id": rng.integers(0, 5160, total),
        "time": 1e4 + np.arange(total, dtype=float),
        "charge": rng.uniform(0.1, 9.0, total),
        "auxiliary": rng.random(total) < 0.5,
    }
    ids = [first_id + 7 * index for index in range(len(lengths))]
    truth = {"zenith": rng.uniform(0, 3, len(lengths)), "kind": ["x"] * len(lengths)}
    return ArrayPart(name, columns, lengths, ids, truth)


def make_source(*parts: Part, **changes: Any) -> Source:
    names = ("sensor_id", "time", "charge", "auxiliary")
    given = {"kind": "test", "pulse_map": PulseMap.kaggle(), "pulse_columns": names}
    return Source(parts=parts, **{**given, **changes})


def read_all(store: EventStore) -> dict[str, Any]:
    names = store.pulse_columns
    columns = {
        name: np.concatenate([shard.pulses.column(name) for shard in store.shards])
        for name in names
    }
    for name in store.event_columns:
        pieces = [store.event_column(name, s) for s in range(len(store.shards))]
        columns[name] = np.concatenate(pieces)
    return columns


@settings(max_examples=40)
@given(
    parts=st.lists(
        st.lists(st.integers(0, 60), min_size=1, max_size=9), min_size=1, max_size=4
    ),
    shard_pulses=st.integers(1, 200),
)
def test_what_goes_in_comes_out(
    parts: list[list[int]],
    shard_pulses: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Every event and pulse once and in order, in whatever pieces."""
    given_parts = [
        make_part(lengths, f"file {index}", first_id=1000 * index)
        for index, lengths in enumerate(parts)
    ]
    folder = tmp_path_factory.mktemp("convert") / "store"
    counted = np.zeros(2, int)

    def count(events: int, pulses: int) -> None:
        counted[:] += (events, pulses)

    manifest = convert(
        make_source(*given_parts),
        folder,
        workers=1,
        shard_pulses=shard_pulses,
        on_progress=count,
    )
    store = EventStore(folder)
    store.verify()
    found = read_all(store)
    lengths = [length for part in parts for length in part]
    assert len(store) == len(lengths) == manifest.num_events == counted[0]
    assert manifest.num_pulses == sum(lengths) == counted[1]
    assert manifest.num_empty == lengths.count(0)
    assert found["n_pulses"].tolist() == lengths
    assert found["event_id"].tolist() == [i for p in given_parts for i in p.event_id]
    assert found["kind"].tolist() == ["x"] * len(lengths)
    for name in ("sensor_id", "time", "charge", "auxiliary"):
        expected = np.concatenate([part.columns[name] for part in given_parts])
        np.testing.assert_array_equal(found[name], expected.astype(found[name].dtype))
    zenith = np.concatenate([part.truth["zenith"] for part in given_parts])
    np.testing.assert_array_equal(found["zenith"], zenith)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "shards"]


def test_types_are_small(tmp_path: Path) -> None:
    convert(make_source(make_part([3])), tmp_path / "store", workers=1)
    types = EventStore(tmp_path / "store").manifest.pulse_columns
    assert types == {
        "sensor_id": "int16",
        "time": "float32",
        "charge": "float32",
        "auxiliary": "uint8",
    }


class TestTimes:
    def test_running_clock_keeps_its_nanoseconds(self, tmp_path: Path) -> None:
        """Relative in the file's type before float32, and the origin is kept."""
        part = make_part([3, 0, 2])
        part.columns["time"] = np.array([1e8 + 0.25, 1e8 + 1, 1e8 + 9, 5.0, 6.5])
        pulse_map = PulseMap.kaggle(time_reference="first_pulse")
        convert(make_source(part, pulse_map=pulse_map), tmp_path / "s", workers=1)
        found = read_all(EventStore(tmp_path / "s"))
        assert found["time"].tolist() == [0, 0.75, 8.75, 0, 1.5]
        assert found["time_origin"].tolist() == [1e8 + 0.25, 0, 5.0]

    def test_times_since_the_first_triggered_pulse(self, tmp_path: Path) -> None:
        """Noise before the event has negative times; an event may be all noise."""
        part = make_part([3, 0, 2, 1])
        part.columns["time"] = np.array([1e8 - 4000, 1e8 + 0.25, 1e8 + 9, 5, 6.5, 70])
        part.columns["auxiliary"] = np.array([True, False, False, True, True, False])
        pulse_map = PulseMap.kaggle(time_reference="first_triggered")
        source = make_source(part, pulse_map=pulse_map)
        manifest = convert(source, tmp_path / "s", workers=1)
        found = read_all(EventStore(tmp_path / "s"))
        assert found["time"].tolist() == [-4000.25, 0, 8.75, 0, 1.5, 0]
        assert found["time_origin"].tolist() == [1e8 + 0.25, 0, 5.0, 70.0]
        assert [n for n in manifest.notes if "trigger" in n] == [untriggered_note(1)]

    def test_nanoseconds_since_1970_are_taken_off_as_integers(
        self, tmp_path: Path
    ) -> None:
        part = make_part([2])
        part.columns["time"] = 1_700_000_000_000_000_001 + np.array([0, 2])
        pulse_map = PulseMap.kaggle(time_reference="first_pulse")
        convert(make_source(part, pulse_map=pulse_map), tmp_path / "s", workers=1)
        found = read_all(EventStore(tmp_path / "s"))
        assert found["time"].tolist() == [0, 2]
        assert found["time_origin"].tolist() == [1_700_000_000_000_000_001]

    def test_unsorted_pulses_are_sorted_and_it_is_said(self, tmp_path: Path) -> None:
        part = make_part([3, 2, 2])
        part.columns["time"] = np.array([3.0, 1, 2, 8, 9, 5, 4])
        part.columns["charge"] = np.arange(1.0, 8.0)
        manifest = convert(make_source(part), tmp_path / "s", workers=1)
        found = read_all(EventStore(tmp_path / "s"))
        assert found["time"].tolist() == [1, 2, 3, 8, 9, 4, 5]
        assert found["charge"].tolist() == [2, 3, 1, 4, 5, 7, 6]
        assert any("2 events were not in order" in n for n in manifest.notes)

    def test_or_left_as_they_are(self, tmp_path: Path) -> None:
        part = make_part([3])
        part.columns["time"] = np.array([3.0, 1, 2])
        manifest = convert(
            make_source(part), tmp_path / "s", workers=1, sort_pulses=False
        )
        assert read_all(EventStore(tmp_path / "s"))["time"].tolist() == [3, 1, 2]
        assert manifest.notes == ()


class TestRefused:
    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            (
                "charge",
                -1.0,
                r"file x, row 61: event 7, pulse 1: column 'charge' is -1",
            ),
            ("charge", np.nan, r"file x, row 61: event 7, pulse 1: .*must be finite"),
            ("sensor_id", 5160, r"file x, row 61: .*0 to 5159"),
            ("time", 1e9, r"file x, row 61: .*running clock"),
        ],
    )
    def test_impossible_value(
        self, tmp_path: Path, column: str, value: float, message: str
    ) -> None:
        part = make_part([60, 9, 60], "file x")
        part.columns[column] = part.columns[column].copy()
        part.columns[column][61] = value
        with pytest.raises(ValueError, match=message):
            convert(make_source(part), tmp_path / "s", workers=1)
        with pytest.raises(ValueError, match="not a complete event store"):
            EventStore(tmp_path / "s")

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e300, 1e-60])
    def test_bad_pulses_can_be_left_out(self, tmp_path: Path, value: float) -> None:
        """Counted by reason, the first with its place; the rest is what it was."""
        part = make_part([60, 9, 0, 60], "file x")
        for column in ("charge", "time"):
            part.columns[column] = part.columns[column].astype(float)
        convert(make_source(part), tmp_path / "good", workers=1)
        part.columns["charge"][[61, 68]] = value
        part.columns["time"][[5, 61]] = np.nan
        with pytest.raises(ValueError, match=r"--drop-bad-pulses.*drop_bad_pulses"):
            convert(make_source(part), tmp_path / "strict", workers=1)
        manifest = convert(
            make_source(part), tmp_path / "s", workers=1, bad_pulses="drop"
        )
        found, good = (read_all(EventStore(tmp_path / n)) for n in ("s", "good"))
        assert found["n_pulses"].tolist() == [59, 7, 0, 60]
        kept = np.delete(np.arange(129), [5, 61, 68])
        for name in ("sensor_id", "time", "charge", "auxiliary"):
            assert found[name].tolist() == good[name][kept].tolist()
        (note,) = manifest.notes
        assert "3 bad pulses" in note
        assert "bad time 2" in note
        assert "bad charge 1" in note
        assert "file x, row 5: event 0, pulse 5: column 'time' is nan" in note

    def test_what_a_bad_pulse_stopped_can_be_converted_without(
        self, tmp_path: Path
    ) -> None:
        """Into the same folder, as the message advises."""
        parts = [make_part([2, 3]), make_part([4], "two", 9)]
        parts[1].columns["charge"] = np.array([1, 1, 0, 1.0])
        with pytest.raises(ValueError, match="--drop-bad-pulses"):
            convert(make_source(*parts), tmp_path / "s", workers=1)
        with pytest.raises(ValueError, match="unfinished conversion"):
            convert(make_source(parts[0]), tmp_path / "s", workers=1, bad_pulses="drop")
        convert(make_source(*parts), tmp_path / "s", workers=1, bad_pulses="drop")
        found = read_all(EventStore(tmp_path / "s"))
        assert found["n_pulses"].tolist() == [2, 3, 3]

    def test_bad_pulses_can_cost_their_event(self, tmp_path: Path) -> None:
        part = make_part([60, 9, 0, 60], "file x")
        part.columns["charge"] = part.columns["charge"].astype(float)
        part.columns["charge"][[61, 68]] = 0.0
        part.columns["sensor_id"][62] = -1
        manifest = convert(
            make_source(part), tmp_path / "s", workers=1, bad_pulses="mark"
        )
        found = read_all(EventStore(tmp_path / "s"))
        assert found["pulse_fault"].tolist() == ["", "bad charge", "", ""]
        assert found["n_pulses"].tolist() == [60, 0, 0, 60]
        assert found["num_pulses_left_out"].tolist() == [0, 9, 0, 0]
        (note,) = manifest.notes
        assert "bad charge 1" in note
        assert "file x, row 61" in note

    def test_positions_beyond_float32(self, tmp_path: Path) -> None:
        part = make_part([2])
        part.columns |= {"x": [4_000_000.1] * 2, "y": [0.0] * 2, "z": [0.0] * 2}
        source = make_source(part, pulse_columns=(*part.columns,))
        with pytest.raises(ValueError, match=r"'x' .*4e\+06 m.*float32"):
            convert(source, tmp_path / "s", workers=1)

    def test_event_that_stands_twice(self, tmp_path: Path) -> None:
        first, second = make_part([2, 3], "one"), make_part([1, 4, 2], "two", 7)
        with pytest.raises(
            ValueError,
            match="event 7 is in one, event 1 and in two, event 0",
        ):
            convert(make_source(first, second), tmp_path / "s", workers=1)

    def test_parts_of_different_columns(self, tmp_path: Path) -> None:
        first, second = make_part([2], "one"), make_part([1], "two", 7)
        second.truth = {"energy": np.ones(1)}
        with pytest.raises(ValueError, match=r"truth columns .* one and two"):
            convert(make_source(first, second), tmp_path / "s", workers=1)

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one event"):
            convert(make_source(make_part([])), tmp_path / "s", workers=1)

    def test_angles_in_degrees(self, tmp_path: Path) -> None:
        part = make_part([2, 3], "file x", 7)
        part.truth = {"zenith": np.array([3.1, 91.0]), "azimuth": np.array([6.2, 300])}
        with pytest.raises(ValueError, match=r"file x, event 14: zenith .* rad.* 91"):
            convert(make_source(part), tmp_path / "s", workers=1)

    def test_fillers_of_angles_are_said(self, tmp_path: Path) -> None:
        """GraphNeT writes -1 where an event has no truth."""
        part = make_part([2, 3])
        part.truth = {"zenith": np.array([3.1, -1.0]), "azimuth": np.array([6.2, -1.0])}
        manifest = convert(make_source(part), tmp_path / "s", workers=1)
        assert "zenith or azimuth of 1 events" in manifest.notes[-1]

    def test_options(self, tmp_path: Path) -> None:
        for name in ("workers", "shard_pulses"):
            with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
                convert(make_source(make_part([2])), tmp_path / "s", **{name: 0})
        assert not (tmp_path / "s").exists()

    @pytest.mark.slow
    def test_script_without_a_guard(self, tmp_path: Path) -> None:
        """Processes run it again; the error tells that from a lack of memory."""
        name = Path(__file__).stem
        script = tmp_path / "script.py"
        script.write_text(
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import {name} as t\n"
            "parts = t.make_part([2], 'one'), t.make_part([3], 'two', 7)\n"
            f"t.convert(t.make_source(*parts), {str(tmp_path / 's')!r}, workers=2)\n"
        )
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 1
        assert "put the call under `if __name__ == '__main__':`" in done.stderr

    def test_folder_of_other_things(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ValueError, match=r"not empty \(thesis.tex\)"):
            convert(make_source(make_part([2])), tmp_path, workers=1)
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="file is a file"):
            convert(make_source(make_part([2])), tmp_path / "file", workers=1)

    def test_finished_store(self, tmp_path: Path) -> None:
        convert(make_source(make_part([2])), tmp_path / "s", workers=1)
        with pytest.raises(ValueError, match="already an event store"):
            convert(make_source(make_part([2])), tmp_path / "s", workers=1)


class TestInterrupted:
    def fail_at(
        self, monkeypatch: pytest.MonkeyPatch, number: int, error: Exception
    ) -> None:
        """Let the writing of the table with this number fail."""
        write, calls = shard_writer.write_table, []

        def failing(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == number:
                raise error
            return write(*arguments)

        monkeypatch.setattr(shard_writer, "write_table", failing)

    def test_full_disk_and_then_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = make_source(make_part([5, 6], "one"), make_part([7], "two", 90))
        with monkeypatch.context() as patch:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.fail_at(patch, 4, full)
            with pytest.raises(OSError, match=r"no space left .*00001-0000"):
                convert(source, tmp_path / "s", workers=1)
        left = sorted(p.name for p in (tmp_path / "s" / "shards").iterdir())
        assert left == ["00000-0000"], "nothing half-written, what was done is kept"
        kept = (tmp_path / "s" / "shards" / "00000-0000").stat().st_mtime_ns
        counted = []
        convert(
            source,
            tmp_path / "s",
            workers=1,
            on_progress=lambda events, pulses: counted.append((events, pulses)),
        )
        assert counted == [(2, 11), (1, 7)]
        assert (tmp_path / "s" / "shards" / "00000-0000").stat().st_mtime_ns == kept
        assert read_all(EventStore(tmp_path / "s"))["n_pulses"].tolist() == [5, 6, 7]

    def test_other_input_does_not_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = make_source(make_part([5]), make_part([5], "two", 9))
        with monkeypatch.context() as patch:
            self.fail_at(patch, 4, RuntimeError("lightning"))
            with pytest.raises(RuntimeError, match="lightning"):
                convert(source, tmp_path / "s", workers=1)
        for other in (
            make_source(make_part([6])),
            replace(source, pulse_map=PulseMap.kaggle(angles="flight")),
        ):
            with pytest.raises(ValueError, match="unfinished conversion of other f"):
                convert(other, tmp_path / "s", workers=1)
        with pytest.raises(ValueError, match="unfinished conversion"):
            convert(source, tmp_path / "s", workers=1, sort_pulses=False)
        # Another sentence for the user is no other input.
        convert(replace(source, notes=("said otherwise",)), tmp_path / "s", workers=1)

    def test_a_refused_file_is_corrected(self, tmp_path: Path) -> None:
        """Into the same folder, for nothing of the refused file was kept."""
        bad, good = make_part([2, 3]), make_part([2, 3])
        bad.columns["charge"] = np.full(5, np.inf)
        with pytest.raises(ValueError, match="row 0"):
            convert(make_source(bad), tmp_path / "s", workers=1)
        convert(make_source(good), tmp_path / "s", workers=1)
        assert read_all(EventStore(tmp_path / "s"))["n_pulses"].tolist() == [2, 3]
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / "conversion.json").write_text("{}")  # of somebody else
        with pytest.raises(ValueError, match="unfinished"):
            convert(make_source(good), tmp_path / "o", workers=1)

    @pytest.mark.parametrize("in_threads", [True, False])
    def test_other_parts_stop_where_one_fails(
        self, tmp_path: Path, in_threads: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the error is there, nothing goes on writing."""
        monkeypatch.setattr(ArrayPart, "for_threads", in_threads)
        bad, good = make_part([2], "bad", 9), make_part([50] * 2000, "good", 100)
        bad.columns["charge"] = np.full(2, np.inf)
        with pytest.raises(ValueError, match="bad, row 0"):
            convert(make_source(good, bad), tmp_path / "s", workers=2)
        before = sorted(tmp_path.rglob("*"))
        assert not list((tmp_path / "s").glob("part-00000*"))
        time.sleep(0.2)
        assert sorted(tmp_path.rglob("*")) == before

    def test_second_process_is_kept_out(self, tmp_path: Path) -> None:
        fcntl = pytest.importorskip("fcntl")
        (tmp_path / "s").mkdir()
        with open(tmp_path / "s" / ".lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(ValueError, match="being written by another process"):
                convert(make_source(make_part([5])), tmp_path / "s", workers=1)
        convert(make_source(make_part([5])), tmp_path / "s", workers=1)

    @pytest.mark.slow
    def test_killed_at_random_moments(
        self, tmp_path: Path, make_kaggle_folder: Callable[..., Path]
    ) -> None:
        """Ends in the very store of a conversion that nobody disturbed."""
        lengths = [40] * 300
        files = make_kaggle_folder(tmp_path / "in", {n: lengths for n in range(1, 13)})
        prepare(files, tmp_path / "calm", workers=1, shard_pulses=4000)
        code = (
            "import sys, time\n"
            "from graphnet_icecube2nd import prepare\n"
            "if __name__ == '__main__':\n"
            "    print('begun', flush=True)\n"
            "    prepare(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]),\n"
            "            shard_pulses=4000,\n"
            "            on_progress=lambda *_: time.sleep(0.02))\n"
        )
        (tmp_path / "run.py").write_text(code)
        out = tmp_path / "killed"
        dice, kills = random.Random(3), 0
        for attempt in range(40):
            workers = "2" if attempt % 3 == 2 else "1"
            command = [sys.executable, str(tmp_path / "run.py"), str(files), str(out)]
            process = subprocess.Popen(
                [*command, workers], stdout=subprocess.PIPE, start_new_session=True
            )
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + dice.uniform(0.01, 0.6)
            if attempt < 8:
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
            else:
                process.wait()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                assert not (out / "manifest.json").exists() or EventStore(out)
            process.wait()
            process.stdout.close()
            if process.returncode == 0:
                break
        assert kills >= 3
        calm, killed = EventStore(tmp_path / "calm"), EventStore(out)
        killed.verify()
        assert killed.manifest.shards == calm.manifest.shards
        assert not list(out.glob("**/.*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_their_parent(
    tmp_path: Path,
) -> None:
    """Killed alone, it leaves no process that writes where the next one will."""
    code = (
        "import sys\n"
        "from graphnet_icecube2nd import simulate\n"
        "if __name__ == '__main__':\n"
        "    simulate(sys.argv[1], num_events=9999, seed=1, workers=2,\n"
        "            on_progress=lambda *_: print('going', flush=True))\n"
    )
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()
    told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(told.split()) >= 2
    deadline = time.monotonic() + 60
    while alive := [pid for pid in told.split() if is_running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("in_threads", [True, False])
def test_workers_write_the_same_store(
    tmp_path: Path,
    make_kaggle_folder: Callable[..., Path],
    in_threads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ParquetTable, "for_threads", in_threads)
    files = make_kaggle_folder(
        tmp_path / "in", {1: [3, 70, 5], 2: [9, 200], 3: [4, 4, 4]}
    )
    counted = np.zeros(2, int)

    def count(events: int, pulses: int) -> None:
        counted[:] += (events, pulses)

    for workers in (1, 2):
        prepare(files, tmp_path / str(workers), workers=workers, on_progress=count)
    one, two = (EventStore(tmp_path / str(workers)) for workers in (1, 2))
    assert one.manifest.shards == two.manifest.shards
    assert counted.tolist() == [2 * 8, 2 * 299]


def test_manifest_is_json_with_checksums(tmp_path: Path) -> None:
    convert(make_source(make_part([2, 0])), tmp_path / "s", workers=1)
    content = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert content["format"] == "icecube2nd event store"
    assert content["version"] == 1
    assert (content["num_events"], content["num_pulses"]) == (2, 2)
    assert content["pulse_map"]["angles"] == "origin"
    (shard,) = content["shards"]
    assert shard["source"] == "a"
    assert len(shard["files"]["pulses.arrow"]["sha256"]) == 64
