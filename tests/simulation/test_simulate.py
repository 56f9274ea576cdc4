"""simulate: stores, files of all formats, processes, kills; and the stream."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import (
    EventDataModule,
    EventStore,
    build_model,
    prepare,
    simulate,
)
from graphnet_icecube2nd.events.events import event_order
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.simulation import (
    SimulatedStream,
    SimulationConfig,
)
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.events import simulate_block
from graphnet_icecube2nd.simulation.production import simulated_source
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.writers import export, write_kaggle

NUM = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    folder = tmp_path_factory.mktemp("simulated") / "store"
    assert simulate(folder, num_events=NUM, seed=4, workers=1) == folder
    return EventStore(folder)


def column(store: EventStore, name: str) -> np.ndarray:
    pieces = [store.event_column(name, shard) for shard in range(len(store.shards))]
    return np.concatenate(pieces)


def test_store_holds_the_blocks(store: EventStore) -> None:
    assert len(store) == NUM
    block = simulate_block(SimulationConfig(), SimulatedDetector.icecube86(), 4, 0)
    raw = EventReader(store, max_pulses=None).raw(np.arange(256))
    event_T = np.repeat(np.arange(256), np.diff(block.offsets))
    order_T = event_order(block.columns, event_T)  # a store settles ties of time
    for name, values in block.columns.items():
        found = raw.columns[name].numpy()
        np.testing.assert_array_equal(found, values[order_T].astype(found.dtype))
    for name, values in block.truth.items():
        np.testing.assert_array_equal(column(store, name)[:256], values)
    assert store.manifest.kind == "simulation"
    assert any("not for physics results" in note for note in store.manifest.notes)
    assert any('"noise_rate": 440.0' in note for note in store.manifest.notes)


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same_store(
    store: EventStore, tmp_path: Path
) -> None:
    simulate(tmp_path / "two", num_events=NUM, seed=4, workers=2)
    two = EventStore(tmp_path / "two")
    files = [[shard.record.files for shard in s.shards] for s in (store, two)]
    assert files[0] == files[1]  # checksums


def test_doms_outside_the_ice_table_are_warned_of(tmp_path: Path) -> None:
    """Prometheus counts z from the surface of the ice."""
    path = tmp_path / "deep.geo"
    path.write_text("### Modules ###\n0\t0\t-1500\t0\t0\n0\t0\t-500\t0\t1\n")
    for _ in range(2):  # however often it was said before
        with pytest.warns(UserWarning, match=r"deep: 1 of 2 DOMs .* z from -1500"):
            simulated_source(NUM, 4, SimulationConfig(), geometry=path)


def test_killed_and_continued(store: EventStore, tmp_path: Path) -> None:
    source = simulated_source(NUM, 4, SimulationConfig())
    seen = []

    def stop(events: int, pulses: int) -> None:
        seen.append(events)
        if sum(seen) >= 256:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "killed", workers=1, on_progress=stop)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    simulate(tmp_path / "killed", num_events=NUM, seed=4, workers=1)
    again = EventStore(tmp_path / "killed")
    np.testing.assert_array_equal(column(again, "zenith"), column(store, "zenith"))


def test_kaggle_files_come_back_through_prepare(
    store: EventStore, tmp_path: Path
) -> None:
    report = write_kaggle(store.path, tmp_path / "kaggle", batch_events=120)
    assert (report.events, report.pulses) == (NUM, store.manifest.num_pulses)
    names = sorted(p.name for p in (tmp_path / "kaggle" / "train").iterdir())
    assert names == ["batch_1.parquet", "batch_2.parquet", "batch_3.parquet"]
    prepare(tmp_path / "kaggle", tmp_path / "back", workers=1)
    back = EventStore(tmp_path / "back")
    assert back.manifest.kind == "kaggle"
    for name in ("event_id", "azimuth", "zenith", "n_pulses"):
        np.testing.assert_allclose(column(back, name), column(store, name), atol=1e-12)
    ours, theirs = (
        EventReader(s, max_pulses=None).raw(np.arange(NUM)) for s in (store, back)
    )
    np.testing.assert_allclose(theirs.columns["time"], ours.columns["time"], atol=0.51)
    # Times are rounded, so pulses of one nanosecond change places.
    event_T = np.repeat(np.arange(NUM), ours.n_pulses.numpy())
    rounded = {**ours.columns, "time": ours.columns["time"].round()}
    order_T = event_order({n: v.numpy() for n, v in rounded.items()}, event_T)
    for name in ("sensor_id", "auxiliary"):
        same = theirs.columns[name].numpy() == ours.columns[name].numpy()[order_T]
        assert same.mean() > 0.98
    with open(tmp_path / "kaggle" / "sensor_geometry.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5160
    np.testing.assert_allclose(
        [float(rows[17][axis]) for axis in "xyz"], store.geometry.position_S3[17]
    )


def test_kaggle_files_have_the_competitions_types(
    store: EventStore, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    simulate(tmp_path / "kaggle", num_events=40, seed=4, format="kaggle", workers=1)
    schema = pq.read_schema(tmp_path / "kaggle" / "train" / "batch_1.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "sensor_id": "int16",
        "time": "int64",
        "charge": "double",
        "auxiliary": "bool",
        "event_id": "int64",
    }
    meta = pq.read_table(tmp_path / "kaggle" / "train_meta.parquet").to_pydict()
    assert list(meta) == [
        *("batch_id", "event_id", "first_pulse_index", "last_pulse_index"),
        *("azimuth", "zenith"),
    ]
    lengths = np.diff([-1, *meta["last_pulse_index"]])
    np.testing.assert_array_equal(lengths, column(store, "n_pulses")[:40])
    assert not list(tmp_path.glob(".*")), "the store in between is gone"
    # As in the competition's files, pandas finds the events as the index.
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(tmp_path / "kaggle" / "train" / "batch_1.parquet")
    assert frame.index.name == "event_id"
    assert len(frame.loc[7]) == lengths[7]


def test_what_is_there_is_noticed_before_anything_is_simulated(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="full is there already"):
        simulate(tmp_path / "full", num_events=3, format="kaggle")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_format_goes_on_from_the_store_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphnet_icecube2nd.simulation import production as module

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = {"num_events": 20, "seed": 4, "format": "graphnet", "workers": 1}
    with monkeypatch.context() as patched:
        patched.setattr(module, "export", killed)
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "a.db", **arguments)
    assert (tmp_path / ".a.db.store").exists()
    with pytest.raises(ValueError, match="left from another simulation; remove it"):
        simulate(tmp_path / "a.db", **{**arguments, "num_events": 21})
    simulate(tmp_path / "a.db", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("format", ["store", "graphnet"])
def test_a_second_simulation_into_the_same_is_refused(
    format: str, tmp_path: Path
) -> None:
    out = tmp_path / ("a.db" if format == "graphnet" else "a")
    refused = []

    def second(*_: int) -> None:
        for num_events in (20, 21):
            with pytest.raises(ValueError, match="is being written") as error:
                simulate(out, num_events=num_events, seed=4, format=format, workers=1)
            refused.append(error)

    simulate(out, num_events=20, seed=4, format=format, workers=1, on_progress=second)
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_export_says_what_it_cannot_do(store: EventStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'csv'"):
        export(store.path, tmp_path / "x", format="csv")
    with pytest.raises(ValueError, match="no option pulses_table"):
        export(store.path, tmp_path / "x", format="kaggle", pulses_table="p")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="full is there already"):
        export(store.path, tmp_path / "full", format="kaggle")


def test_kaggle_writer_needs_sensor_ids(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from graphnet_icecube2nd import (
        PulseMap,
    )
    from graphnet_icecube2nd.store import (
        prepare_frames,
    )

    pulses = pandas.DataFrame(
        {"event_id": [1, 1], "x": 0.0, "y": 0.0, "z": [0.0, 1.0], "time": [1.0, 2.0]}
    )
    prepare_frames(pulses, None, tmp_path / "s", pulse_map=PulseMap(name="xyz"))
    with pytest.raises(ValueError, match="has no sensor_id, which the competition's"):
        write_kaggle(tmp_path / "s", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_events": 0}, "events must be 1 or more, got 0"),
        ({"seed": -1}, "seed must be 0 or above, got -1"),
        ({"format": "root"}, "unknown format 'root'"),
    ],
)
def test_wrong_arguments(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "out", **{"num_events": 3, **changes})
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_none_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "doms.csv").write_text("sensor_id,x,y\n0,1,2\n")
    with pytest.raises(ValueError, match=r"doms\.csv"):
        simulate(tmp_path / "out", num_events=3, geometry=tmp_path / "doms.csv")
    assert not (tmp_path / "out").exists()


def test_a_store_is_not_written_over(store: EventStore) -> None:
    with pytest.raises(ValueError, match="is an event store already"):
        simulate(store.path, num_events=3)


def test_a_model_trains_on_it(store: EventStore) -> None:
    data = EventDataModule(
        store, batch_size=16, num_sub_epochs=1, events="topology == 'cascade'"
    )
    batch = next(iter(data.train_dataloader()))
    assert batch.features.shape[1] == 9
    assert torch.isfinite(batch.features).all()
    model = build_model("t_d32", depth=1, dim=32, dim_base=32)
    assert model(batch).shape == (len(batch), 3)


def test_stream_gives_the_events_of_the_store(store: EventStore) -> None:
    """The same features as reading the store, for the same choice of pulses."""
    stream = SimulatedStream(batch_size=100, seed=4, num_blocks=1, truth=("energy",))
    batches = list(stream)
    assert [len(batch) for batch in batches] == [100, 100, 56]
    reader = EventReader(store, seed=4)
    for number, batch in enumerate(batches[:2]):
        read = reader.batch(np.arange(100 * number, 100 * (number + 1)))
        torch.testing.assert_close(batch.features, read.features)
        torch.testing.assert_close(batch.truth["direction"], read.truth["direction"])
        torch.testing.assert_close(batch.n_pulses, read.n_pulses)
        torch.testing.assert_close(batch.event_id, read.event_id)
    energy = torch.cat([batch.truth["energy"] for batch in batches])
    np.testing.assert_array_equal(energy.numpy(), column(store, "energy")[:256])


def test_stream_shares_blocks_among_ranks_and_workers() -> None:
    options = {"batch_size": 128, "seed": 2, "num_blocks": 4}
    whole = [b.event_id[0].item() for b in SimulatedStream(**options)]
    assert whole == [128 * number for number in range(8)]
    ranks = [
        [
            b.event_id[0].item()
            for b in SimulatedStream(**options, rank=rank, world_size=2)
        ]
        for rank in (0, 1)
    ]
    assert ranks == [[0, 128, 512, 640], [256, 384, 768, 896]]
    later = SimulatedStream(batch_size=256, seed=2, first_block=1, num_blocks=1)
    assert next(iter(later)).event_id[0].item() == 256


@pytest.mark.slow
def test_stream_in_worker_processes() -> None:
    stream = SimulatedStream(batch_size=128, seed=2, num_blocks=3)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)
    found = {b.event_id[0].item(): b for b in loader}
    assert sorted(found) == [0, 128, 256, 384, 512, 640]
    for batch in stream:
        torch.testing.assert_close(
            found[batch.event_id[0].item()].features, batch.features
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 257}, "batch_size must be 1 to 256; got 257"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to 1; got 2"),
        ({"truth": ("colour",)}, "no truth colour; choose from energy"),
        ({"selection": "last"}, "last"),
        ({"num_blocks": 0}, "num_blocks must be 1 or more"),
        ({"num_blocks": 3, "world_size": 2}, "must be a multiple of world_size"),
    ],
)
def test_stream_says_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatedStream(**changes)


def test_several_processes_leave_the_tables_here_as_they_were(tmp_path: Path) -> None:
    """Arrays that view the tables of this process stay valid."""
    detector = SimulatedDetector.icecube86()
    views = (detector.position_S3, detector.rde_S)
    before = [view.copy() for view in views]
    simulate(tmp_path / "store", num_events=600, seed=1, workers=2)
    addresses = [detector.geometry.position_S3.data_ptr(), views[0].ctypes.data]
    assert addresses[0] == addresses[1]
    for view, copy in zip(views, before, strict=True):
        np.testing.assert_array_equal(view, copy)


def test_a_compressed_table_of_doms(tmp_path: Path) -> None:
    table = SimulatedDetector.icecube86().geometry
    lines = ["sensor_id,x,y,z"]
    lines += [
        f"{i},{x},{y},{z}"
        for i, (x, y, z) in enumerate(table.position_S3[:120].tolist())
    ]
    path = tmp_path / "doms.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    simulate(tmp_path / "store", num_events=5, seed=1, workers=1, geometry=path)
    assert len(EventStore(tmp_path / "store").geometry) == 120
