"""prepare: formats recognised, angles settled, every real file read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import (
    EventStore,
    PulseMap,
    prepare,
)
from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.store import (
    prepare_frames,
)
from graphnet_icecube2nd.store.event_store import view_event
from graphnet_icecube2nd.store.preparation import recognise

MakeFolder = Callable[..., Path]


def pulses_of(store: EventStore) -> dict[str, Any]:
    """The pulses of a store by column, with event_id and times of the file."""
    shards = [
        {
            **{name: shard.pulses.column(name) for name in store.pulse_columns},
            **{
                name: np.repeat(
                    shard.events.column(name), shard.events.column("n_pulses")
                )
                for name in ("event_id", "time_origin")
                if name in store.manifest.event_columns
            },
        }
        for shard in store.shards
    ]
    columns = {name: np.concatenate([s[name] for s in shards]) for name in shards[0]}
    columns["time"] = columns["time"] + columns.pop("time_origin", 0)
    return columns


SQLITE, PARQUET = "graphnet/data/{}/sqlite/{}", "graphnet/data/{}/parquet/{}"
OSC, UPGRADE = "oscNext_genie_level7_v02", "upgrade_genie_step4_140028_000998"
FILES = {
    "kaggle": ("kaggle_sample", "kaggle", 5, 352, "origin"),
    "prometheus": (
        SQLITE.format("examples", "prometheus/prometheus-events.db"),
        *("graphnet-sqlite", 50, 1872, "origin"),
    ),
    "prometheus parquet": (
        PARQUET.format("examples", "prometheus/merged"),
        *("graphnet-parquet", 50, 1872, "origin"),
    ),
    "oscNext": (
        SQLITE.format("tests", f"{OSC}/{OSC}_first_5_frames.db"),
        *("graphnet-sqlite", 5, 56, "origin"),
    ),
    "oscNext parquet": (
        PARQUET.format("tests", f"{OSC}/merged"),
        *("graphnet-parquet", 5, 56, "origin"),
    ),
    "oscNext nested": (
        PARQUET.format("tests", f"{OSC}/{OSC}_first_5_frames.parquet"),
        *("nested-parquet", 5, 56, "origin"),
    ),
    "upgrade": (
        SQLITE.format("tests", f"{UPGRADE}_first_5_frames/{UPGRADE}_first_5_frames.db"),
        *("graphnet-sqlite", 5, 625, "origin"),
    ),
    "photons": (
        "graphnet/data/tests/prometheus/22980001_photons.parquet",
        *("nested-parquet", 10, 200, "flight"),
    ),
    "arca": (
        "km3net/arca_mcv5.1_anumuNC_10ev_hits.parquet",
        *("parquet", 10, 38174, "origin"),
    ),
    "orca6": ("km3net/orca6_mc_v9.2_30ev_hits.parquet", "parquet", 30, 4589, "origin"),
    "orca": (
        "km3net/orca_mcv5.0_elecCC_10ev_hits.parquet",
        *("parquet", 10, 11183, "origin"),
    ),
    "orca numu": (
        "km3net/orca_mcv6.0_numuCC_140ev_hits.parquet",
        *("parquet", 140, 17923, "origin"),
    ),
}


@pytest.mark.data
@pytest.mark.parametrize("name", FILES)
def test_every_real_file(name: str, shared_dir: Path, tmp_path: Path) -> None:
    """Format, counts and what the angles mean, without being told."""
    file, kind, events, pulses, angles = FILES[name]
    path = shared_dir / "data" / file
    options: dict[str, Any] = {}
    if kind == "parquet":
        options["truth"] = path.with_name(path.name.replace("_hits", "_truth"))
    report = prepare(path, tmp_path / "store", workers=1, **options)
    store = EventStore(tmp_path / "store")
    store.verify()
    assert (report.kind, report.num_events, report.num_pulses) == (kind, events, pulses)
    assert store.pulse_map.labels.angles == angles
    assert store.has_directions
    view = view_event(store, len(store) - 1)
    time = view.pulses[store.pulse_map.time]
    assert (np.diff(time) >= 0).all()


def angle_files(folder: Path, turn: float, pulse_map: str) -> tuple[Path, Path]:
    """Light that runs along (or, with -1, against) the angles of 60 events."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    zenith, azimuth = np.arccos(rng.uniform(-1, 1, 60)), rng.uniform(0, 6, 60)
    way = turn * np.stack(
        [
            np.sin(zenith) * np.cos(azimuth),
            np.sin(zenith) * np.sin(azimuth),
            np.cos(zenith),
        ],
        axis=1,
    )
    event, step = np.repeat(np.arange(60), 9), np.tile(np.arange(9.0), 60)
    place = 30 * step[:, None] * way[event]
    names = {
        "prometheus": ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"),
        "icecube86": ("dom_x", "dom_y", "dom_z", "dom_time"),
    }[pulse_map]
    pulses = {name: place[:, axis] for axis, name in enumerate(names[:3])}
    pulses |= {names[3]: 9e3 + 100 * step, "event_no": event}
    pulses |= {"charge": np.ones(540), "hlc": np.ones(540, int)}
    prefix = "injection_" if pulse_map == "prometheus" else ""
    truth = {"event_no": range(60), f"{prefix}zenith": zenith}
    truth[f"{prefix}azimuth"] = azimuth
    pd.DataFrame(pulses).to_parquet(folder / "pulses.parquet")
    pd.DataFrame(truth).to_parquet(folder / "truth.parquet")
    return folder / "pulses.parquet", folder / "truth.parquet"


class TestAngles:
    @pytest.mark.parametrize(("turn", "angles"), [(1, "flight"), (-1, "origin")])
    def test_prometheus_is_asked(
        self, tmp_path: Path, turn: float, angles: str
    ) -> None:
        pulses, truth = angle_files(tmp_path, turn, "prometheus")
        report = prepare(pulses, tmp_path / "s", truth=truth, workers=1)
        assert EventStore(tmp_path / "s").pulse_map.labels.angles == angles
        assert f"angles point to the {angles}" in report.notes[0]

    def test_the_user_knows_better(self, tmp_path: Path) -> None:
        pulses, truth = angle_files(tmp_path, 1, "prometheus")
        report = prepare(
            pulses, tmp_path / "s", truth=truth, angles="origin", workers=1
        )
        assert EventStore(tmp_path / "s").pulse_map.labels.angles == "origin"
        assert "indicate flight" in report.notes[0]

    def test_undecided_must_be_said(self, tmp_path: Path) -> None:
        pd = pytest.importorskip("pandas")
        pulses, truth = angle_files(tmp_path, 1, "prometheus")
        table = pd.read_parquet(truth)
        table["injection_azimuth"] = np.random.default_rng(1).permutation(
            table["injection_azimuth"]
        )
        table["injection_zenith"] = table["injection_zenith"].to_numpy()[::-1]
        table.to_parquet(truth)
        with pytest.raises(ValueError, match="--angles"):
            prepare(pulses, tmp_path / "s", truth=truth, workers=1)

    def test_icecube_files_that_contradict_are_noted(self, tmp_path: Path) -> None:
        pulses, truth = angle_files(tmp_path, 1, "icecube86")
        report = prepare(pulses, tmp_path / "s", truth=truth, workers=1)
        assert EventStore(tmp_path / "s").pulse_map.labels.angles == "origin"
        assert any("indicate flight" in note for note in report.notes)

    def test_no_such_convention(self, tmp_path: Path) -> None:
        pulses, truth = angle_files(tmp_path, 1, "icecube86")
        with pytest.raises(ValueError, match="must be one of origin, flight"):
            prepare(pulses, tmp_path / "s", truth=truth, angles="up", workers=1)


class TestFormats:
    def test_options_of_other_formats_are_refused(
        self, tmp_path: Path, make_kaggle_folder: MakeFolder
    ) -> None:
        folder = make_kaggle_folder(tmp_path / "in", {1: [3]})
        for option, formats in (
            ({"truth_table": "x"}, "graphnet-sqlite, graphnet-lmdb, graphnet-parquet"),
            ({"duplicates": "renumber"}, "graphnet-sqlite"),
        ):
            with pytest.raises(ValueError, match=f"only with {formats}"):
                prepare(folder, tmp_path / "s", workers=1, **option)
        with pytest.raises(ValueError, match="got 'root'"):
            prepare(folder, tmp_path / "s", format="root")

    def test_what_is_not_there_or_not_known(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no(thing|where) does not exist"):
            prepare(tmp_path / "nothing", tmp_path / "s")
        with pytest.raises(ValueError, match="at least one input"):
            prepare([], tmp_path / "s")
        (tmp_path / "x.lmdb").mkdir()
        (tmp_path / "x.lmdb/data.mdb").touch()
        with pytest.raises(ValueError, match=r"x\.lmdb.data\.mdb is damaged"):
            prepare(tmp_path / "x.lmdb", tmp_path / "s")
        (tmp_path / "x.root").touch()
        with pytest.raises(ValueError, match="unknown format"):
            prepare(tmp_path / "x.root", tmp_path / "s")
        (tmp_path / "x.parquet").touch()
        with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
            prepare(tmp_path / "x.parquet", tmp_path / "s")

    def test_a_store_is_no_input(
        self, tmp_path: Path, make_kaggle_folder: MakeFolder
    ) -> None:
        make_kaggle_folder(tmp_path / "in", {1: [3]})
        prepare(tmp_path / "in", tmp_path / "s", workers=1)
        with pytest.raises(ValueError, match="already an event store; `icecube2nd i"):
            recognise([tmp_path / "s"])
        with pytest.raises(ValueError, match="already an event store; choose another"):
            prepare(tmp_path / "in", tmp_path / "s", workers=1)

    @pytest.mark.parametrize("clock", [None, "first_pulse"])
    def test_a_part_of_a_store(
        self, clock: str | None, tmp_path: Path, make_kaggle_folder: MakeFolder
    ) -> None:
        make_kaggle_folder(tmp_path / "in", {1: [30, 1, 40, 1, 1, 1], 2: [50, 9]})
        prepare(tmp_path / "in", tmp_path / "s", workers=1, clock=clock)
        whole = EventStore(tmp_path / "s")
        strings = list(range(1, 44))
        chosen = {"only_strings": strings, "workers": 1}
        report = prepare(tmp_path / "s", tmp_path / "m", **chosen)
        part = EventStore(tmp_path / "m")
        assert any("43 strings of" in note for note in report.notes)
        assert part.detector.to_dict() == whole.detector.to_dict()
        assert part.shard_batches == whole.shard_batches
        all_T, left_T = pulses_of(whole), pulses_of(part)
        keep_T = whole.geometry.string_S.numpy()[all_T["sensor_id"]] <= 43
        for name, values in all_T.items():
            assert np.array_equal(values[keep_T], left_T[name]), name
        for name in ("event_id", "azimuth", "zenith"):
            ours, theirs = (s.whole_event_column(name) for s in (part, whole))
            assert np.array_equal(ours, theirs)
        kept = np.unique(left_T["event_id"])
        assert report.num_empty == len(whole) - len(kept)
        assert 0 < report.num_empty < len(whole)
        for wrong, words in (
            ({"only_strings": [87]}, "string 87"),
            ({"only_strings": "orca7"}, "orca7"),
            ({"only_strings": [1], "detector": "icecube86"}, "pulse_map"),
        ):
            with pytest.raises(ValueError, match=words):
                prepare(tmp_path / "s", tmp_path / "n", **wrong)
        assert not (tmp_path / "n").exists()

    def test_pulse_map_as_a_file(
        self, tmp_path: Path, make_kaggle_folder: MakeFolder
    ) -> None:
        make_kaggle_folder(tmp_path / "in", {1: [3]})
        path = tmp_path / "map.json"
        path.write_text(json.dumps(PulseMap.kaggle(ice="mirrored").to_dict()))
        prepare(tmp_path / "in", tmp_path / "s", pulse_map=str(path), workers=1)
        assert EventStore(tmp_path / "s").pulse_map.ice == "mirrored"
        deep = "[" * 100_000 + "]" * 100_000
        less = json.dumps({**PulseMap.kaggle().to_dict(), "x": 0})
        less = less.replace('"x": 0', f'"x": {deep[99_100:100_900]}')
        for text, message in (
            ("{", "JSON"),
            ("[1]", "list"),
            (f'{{"x": {deep}}}', "JSON"),
            (less, ""),
        ):
            path.write_text(text)
            with pytest.raises(ValueError, match=rf"map\.json.*{message}"):
                prepare(tmp_path / "in", tmp_path / "t", pulse_map=str(path))


def test_data_frames(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pulses, truth = angle_files(tmp_path, -1, "icecube86")
    report = prepare_frames(
        pd.read_parquet(pulses), pd.read_parquet(truth), tmp_path / "s"
    )
    prepare(pulses, tmp_path / "files", truth=truth, workers=1)
    assert report.num_events == 60
    ours, theirs = EventStore(tmp_path / "s"), EventStore(tmp_path / "files")
    for number in (0, 59):
        one, other = view_event(ours, number), view_event(theirs, number)
        assert one.truth == other.truth
        for name, values in one.pulses.items():
            np.testing.assert_array_equal(values, other.pulses[name])
    kinds = pd.read_parquet(truth).assign(kind=["numu", "nue", "nue"] * 20)
    prepare_frames(pd.read_parquet(pulses), kinds, tmp_path / "kinds")
    nue = EventSubset(expression="kind == 'nue'").counts(EventStore(tmp_path / "kinds"))
    assert nue.sum() == 40, "texts of a real store can be asked for"
    with pytest.raises(TypeError, match="DataFrame of pandas or polars"):
        prepare_frames([1, 2], None, tmp_path / "t")
