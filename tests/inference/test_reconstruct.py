"""Pulses in memory: as from a store, in the order they came."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")


from graphnet_icecube2nd import EventStore, PulseMap, build_model, prepare
from graphnet_icecube2nd.events.events import untriggered_note
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import ModelBundle
from graphnet_icecube2nd.inference.predictor import predict_events
from graphnet_icecube2nd.inference.pulse_reconstruction import (
    PulseReconstructor,
    group_pulses,
)
from graphnet_icecube2nd.inference.reconstruction import reconstruct
from graphnet_icecube2nd.tasks.direction.calibration import (
    fit_calibration,
    kappa_to_radius,
)

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


def test_in_memory_is_as_from_a_store(
    model: Any, simulated: EventStore, pulses: dict[str, Any], tmp_path: Path
) -> None:
    options = InferenceConfig(max_pulses=32, batch_size=7, seed=3)
    expected = reconstruct(simulated, model, options=options)
    found = reconstruct(pulses, model, options=options)
    assert found.path is None
    assert found.statuses == expected.statuses == {"ok": 256}
    for name, values in expected.columns().items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(
                found.columns()[name], values, rtol=2e-4, atol=2e-5
            )
        else:
            assert found.columns()[name].tolist() == values.tolist()
    # and a file of it
    for suffix in ("parquet", "csv", "db"):
        written = reconstruct(pulses, model, tmp_path / f"r.{suffix}", options=options)
        np.testing.assert_allclose(
            written.columns()["kappa"], found.columns()["kappa"], rtol=1e-6
        )
        assert written.table().status_B.tolist() == ["ok"] * 256
    for one in (expected, found, written):  # the table knows where its detector stands
        assert one.table().site == simulated.detector.site is not None
        assert one.table().clock == simulated.pulse_map.time_reference
    assert expected.table().detector == simulated.detector.name


def test_any_table_of_rows_in_any_order(model: Any, pulses: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    import pyarrow

    some = {name: value[:3000] for name, value in pulses.items()}
    expected = reconstruct(some, model).columns()
    frame = pandas.DataFrame(some)
    shuffled = frame.sample(frac=1.0, random_state=1)
    for table in (frame, frame.set_index("event_id"), pyarrow.table(some), shuffled):
        found = reconstruct(table, model).columns()
        order = np.argsort(found["event_id"])
        by_id = np.argsort(expected["event_id"])
        assert found["event_id"][order].tolist() == expected["event_id"][by_id].tolist()
        np.testing.assert_allclose(
            found["direction_x"][order], expected["direction_x"][by_id], atol=2e-4
        )
    first = dict.fromkeys(shuffled["event_id"].tolist())
    assert reconstruct(shuffled, model).columns()["event_id"].tolist() == list(first)
    made = reconstruct(frame, model).to_pandas()
    assert list(made.columns[:2]) == ["event_id", "direction_x"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), batch_size=st.integers(1, 13))
def test_every_event_once_and_in_the_order_asked_for(
    model: Any, data: st.DataObject, batch_size: int
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=20))
    ids = data.draw(
        st.lists(
            st.integers(0, 10**12),
            min_size=len(lengths),
            max_size=len(lengths),
            unique=True,
        )
    )
    rows = np.repeat(ids, lengths)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(rows))
    num = len(rows)
    pulses = {
        "event_id": rows[order].astype(np.int64),
        "sensor_id": rng.integers(0, 5160, num),
        "time": rng.uniform(6000, 20000, num),
        "charge": rng.uniform(0.1, 5, num),
        "auxiliary": rng.random(num) < 0.5,
    }
    options = InferenceConfig(batch_size=batch_size, max_pulses=16)
    found = reconstruct(pulses, model, options=options, events=ids).columns()
    assert found["event_id"].tolist() == ids
    assert found["n_pulses"].tolist() == lengths
    empty = np.array(lengths) == 0
    assert (found["status"] == "no pulses").tolist() == empty.tolist()
    assert np.isnan(found["azimuth"]).tolist() == empty.tolist()
    # and each on its own is the same
    one = int(np.argmax(lengths))
    if lengths[one]:
        mine = {n: v[pulses["event_id"] == ids[one]] for n, v in pulses.items()}
        alone = reconstruct(mine, model, options=options).columns()
        assert alone["direction_z"][0] == pytest.approx(
            found["direction_z"][one], abs=1e-4
        )


def test_options_and_calibration_are_the_models_own(
    model: Any, pulses: dict[str, Any]
) -> None:
    plain = reconstruct(pulses, model).columns()
    rng = np.random.default_rng(0)
    angle = np.asarray(
        kappa_to_radius(plain["kappa"] / 9, rng.uniform(0.01, 0.99, 256))
    )
    calibration = fit_calibration(plain["kappa"], angle, "temperature")
    options = InferenceConfig(max_pulses=16)
    trained = ModelBundle(
        name="mine",
        model=model,
        options=options,
        calibrations={"direction": calibration},
    )
    found = reconstruct(pulses, trained)
    assert found.name == found.table().name == "mine"
    short = reconstruct(pulses, model, options=options).columns()
    assert not np.allclose(short["kappa"], plain["kappa"], rtol=1e-3)
    np.testing.assert_allclose(
        found.columns()["kappa"], calibration.kappa(short["kappa"])
    )
    np.testing.assert_allclose(
        found.columns()["radius_90"], calibration.radius(short["kappa"], 0.9)
    )
    without = reconstruct(pulses, trained, calibration=None).columns()
    np.testing.assert_allclose(without["kappa"], short["kappa"])
    np.testing.assert_allclose(
        without["radius_90"], kappa_to_radius(short["kappa"], 0.9)
    )


def test_one_event_at_a_time(model: Any, pulses: dict[str, Any]) -> None:
    """As an alert has it: an event's columns and nothing else."""
    event = pulses["event_id"][0]
    mine = {n: v[pulses["event_id"] == event] for n, v in pulses.items()}
    expected = reconstruct(mine, model).columns()
    ours = PulseReconstructor(model, "kaggle")
    row = ours(mine, event_id=[event])
    assert row["event_id"] == event
    assert row["azimuth"] == pytest.approx(expected["azimuth"][0])
    assert f"{row['kappa']:.1f}, {row['status']}".endswith(", ok")
    nothing = {name: value[:0] for name, value in mine.items()}
    assert ours(nothing)["status"] == "no pulses"
    rows = ours(mine, [0, len(mine["time"])], [event])
    assert rows["azimuth"].tolist() == [row["azimuth"]]


@pytest.mark.parametrize(
    ("offsets", "event_id", "message"),
    [
        ([0, 0], None, "0 to 3 pulses, got 0 to 0"),
        ([3], None, r"for at least one event, got shape \(1,\)"),
        ([], None, r"for at least one event, got shape \(0,\)"),
        ([0, 1.5, 3], None, r"offsets must be whole numbers, got 1\.5"),
        ([0, 2, 1, 3], None, "event 1 would end before it"),
        ([0, 3], [1.7], r"event_id must be whole numbers, got 1\.7"),
        ([0, 3], [1, 2], r"event_id must have 1 entries.* got \(2,\)"),
    ],
)
def test_borders_and_numbers_of_events_are_checked(
    model: Any, offsets: Any, event_id: Any, message: str
) -> None:
    pulses = {
        "sensor_id": np.array([1, 2, 3]),
        "time": np.array([9e3, 1e4, 1.1e4]),
        "charge": np.ones(3),
        "auxiliary": np.zeros(3),
    }
    with pytest.raises(ValueError, match=message):
        PulseReconstructor(model)(pulses, offsets, event_id)


BAD = [
    ("charge", 0.0, "bad charge"),
    ("charge", -1.0, "bad charge"),
    ("charge", np.nan, "bad charge"),
    ("charge", 1e-60, "bad charge"),
    ("time", np.inf, "bad time"),
    ("sensor_id", 5160, "bad sensor_id"),
    ("auxiliary", 0.5, "bad auxiliary"),
]


@pytest.mark.parametrize(("column", "value", "status"), BAD)
def test_a_bad_pulse_costs_its_event_the_answer(
    model: Any,
    pulses: dict[str, Any],
    column: str,
    value: float,
    status: str,
    tmp_path: Path,
) -> None:
    """In memory and from files; the others' answers are what they were."""
    pandas = pytest.importorskip("pandas")
    good = {name: np.asarray(value[:3000], float) for name, value in pulses.items()}
    good["event_id"] = pulses["event_id"][:3000]
    expected = reconstruct(good, model).columns()
    bad_id = good["event_id"][1500]
    bad = {**good, column: np.where(np.arange(3000) == 1500, value, good[column])}
    path = tmp_path / "pulses.parquet"
    pandas.DataFrame(bad).to_parquet(path)
    ours = PulseReconstructor(model, "kaggle")
    ids, starts = np.unique(good["event_id"], return_index=True)
    order = np.argsort(starts)
    offsets = np.append(starts[order], 3000)
    with pytest.warns(UserWarning, match=rf"{status} 1.*event {bad_id}, pulse"):
        in_memory = reconstruct(bad, model).columns()
    with pytest.warns(UserWarning, match=f"{status} 1"):
        of_file = reconstruct(path, model, tmp_path / "r.db", workers=1).columns()
    for found in (in_memory, of_file, ours(bad, offsets, ids[order])):
        is_bad = found["event_id"] == bad_id
        assert found["event_id"].tolist() == expected["event_id"].tolist()
        assert found["status"].tolist() == np.where(is_bad, status, "ok").tolist()
        assert found["n_pulses"].tolist() == expected["n_pulses"].tolist()
        for name, values in expected.items():
            if values.dtype.kind == "f":
                assert np.isnan(found[name][is_bad]).all()
                np.testing.assert_allclose(
                    found[name][~is_bad], values[~is_bad], rtol=2e-4, atol=2e-5
                )
    mine = {name: v[bad["event_id"] == bad_id] for name, v in bad.items()}
    alone = ours(mine)
    assert (alone["status"], alone["n_pulses"]) == (status, len(mine["time"]))
    assert np.isnan(alone["azimuth"])
    dropped = reconstruct(path, model, workers=1, drop_bad_pulses=True).columns()
    assert set(dropped["status"]) == {"ok"}
    assert dropped["n_pulses"].sum() == 2999
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("suffix", ["parquet", "db", "h5"])
def test_beside_a_bad_event_the_others_are_the_same_to_the_bit(
    model: Any, pulses: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: value[:3000] for name, value in pulses.items()})
    bad_ids = frame["event_id"][[700, 1500]].tolist()

    def rows(name: str) -> dict[str, Any]:
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "db":
            with closing(sqlite3.connect(path)) as connection, connection:
                events = frame.rename(columns={"event_id": "event_no"})
                events.to_sql("pulses", connection, index=False)
        else:
            with pytest.importorskip("h5py").File(path, "w") as file:
                file["pulses"] = frame.to_records(index=False)
        found = reconstruct(
            path, model, options=InferenceConfig(batch_size=7), workers=1
        )
        return {"statuses": found.statuses, **found.columns()}

    good = rows("good")
    assert set(good.pop("statuses")) == {"ok"}
    frame.loc[700, "charge"], frame.loc[1500, "sensor_id"] = -1.0, 5160
    with pytest.warns(UserWarning, match="bad charge 1"):
        bad = rows("bad")
    assert bad.pop("statuses")["ok"] == len(good["status"]) - 2
    other_B = ~np.isin(good["event_id"], bad_ids)
    assert bad["event_id"].tolist() == good["event_id"].tolist()
    for name, values in good.items():
        np.testing.assert_array_equal(bad[name][other_B], values[other_B], name)


def test_a_second_call_for_the_same_file_is_refused(
    model: Any, pulses: dict[str, Any], tmp_path: Path
) -> None:
    """Also of other options or files: it leaves alone what the first is reading."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: value[:900] for name, value in pulses.items()})
    path, out = tmp_path / "pulses.parquet", tmp_path / "r.csv"
    frame.to_parquet(path)
    frame[:500].to_parquet(tmp_path / "others.parquet")
    refused: list[str] = []

    def second(_: int) -> None:
        for file, reading in (
            (path, {}),
            (path, {"drop_bad_pulses": True}),
            (tmp_path / "others.parquet", {}),
        ):
            with pytest.raises(ValueError, match=r"r\.csv is being written") as error:
                reconstruct(file, model, out, workers=1, **reading)
            refused.append(str(error.value))

    found = reconstruct(path, model, out, workers=1, on_start=second)
    assert len(refused) == 3
    assert found.num_events == frame["event_id"].nunique()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["others.parquet", "pulses.parquet", "r.csv"]


def test_files_that_cannot_be_read_leave_nothing(model: Any, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE odd (a)")
    with pytest.raises(ValueError, match=r"a\.db"):
        reconstruct(tmp_path / "a.db", model, tmp_path / "r.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_events_that_prepare_has_marked(
    model: Any, pulses: dict[str, Any], tmp_path: Path
) -> None:
    """Each way to the rows of a store gives them their status."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: value[:900] for name, value in pulses.items()})
    bad_id = frame["event_id"][300]
    frame.loc[300, "charge"] = 0.0
    frame.to_parquet(tmp_path / "pulses.parquet")
    prepare(
        *(tmp_path / "pulses.parquet", tmp_path / "store"),
        with_truth=False, mark_bad_events=True, workers=1,
    )  # fmt: skip
    store = EventStore(tmp_path / "store")
    table = predict_events(model, store, np.arange(len(store))[::-1])
    with pytest.warns(UserWarning, match="bad charge 1"):
        expected = reconstruct(store, model).table()
    assert table.event_id.tolist() == expected.event_id[::-1].tolist()
    assert table.status_B.tolist() == expected.status_B[::-1].tolist()
    assert table.n_pulses_B.tolist() == expected.n_pulses_B[::-1].tolist()
    is_bad = table.event_id == bad_id
    assert table.status_B[is_bad].tolist() == ["bad charge"]
    assert table.n_pulses_B[is_bad] == (frame["event_id"] == bad_id).sum()


def test_event_numbers_are_whole(model: Any) -> None:
    pulses = {"event_id": [5.0, 0.5], "sensor_id": [1, 2], "time": [1e4, 2e4]}
    with pytest.raises(ValueError, match=r"column 'event_id'.*whole numbers"):
        reconstruct(pulses, model)


def test_files_are_read_as_prepare_is_told(
    model: Any, pulses: dict[str, Any], tmp_path: Path
) -> None:
    """Tables, event column, event numbers that repeat; no truth, or an odd one."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: v[:900] for name, v in pulses.items()})
    num_events = frame["event_id"].nunique()
    frame = frame.rename(columns={"event_id": "number"})
    truth = pandas.DataFrame({"number": [*frame["number"].unique(), 10**9]})
    odd = truth.assign(azimuth=200.0, zenith=-999.0)
    for name in ("a.db", "b.db"):
        with sqlite3.connect(tmp_path / name) as connection:
            for table in ("first", "second"):
                frame.to_sql(table, connection, index=False)
            odd.to_sql("odd", connection, index=False)
            truth.to_sql("list", connection, index=False)
        connection.close()
    reading = {"pulses_table": "first", "event_column": "number", "workers": 1}
    one = reconstruct(tmp_path / "a.db", model, **reading).columns()
    assert len(one["event_id"]) == num_events
    both = reconstruct(tmp_path / "a.db", model, truth_table="list", **reading)
    assert both.statuses == {"ok": num_events, "no pulses": 1}
    with pytest.raises(ValueError, match="--duplicates renumber"):
        reconstruct(tmp_path, model, **reading)
    out = tmp_path / "r.parquet"
    found = reconstruct(tmp_path, model, out, duplicates="renumber", **reading)
    rows = found.columns()
    assert rows["event_id"].tolist() == list(range(2 * num_events))
    assert rows["source_event"].tolist() == [*one["event_id"], *one["event_id"]]
    files = [str(tmp_path / name) for name in ("a.db", "b.db")]
    assert rows["source_file"].tolist() == np.repeat(files, num_events).tolist()
    with pytest.raises(TypeError, match="no argument 'pulse_table'"):
        reconstruct(tmp_path, model, pulse_table="first")


def test_what_is_no_table(
    model: Any, simulated: EventStore, pulses: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match="a mapping of arrays, got list"):
        reconstruct([1, 2], model)
    with pytest.raises(ValueError, match=r"is a store.*pulse_map"):
        reconstruct(simulated, model, pulse_map="kaggle")
    with pytest.raises(ValueError, match=r"no column 'event_id' or 'event_no'"):
        group_pulses({"time": np.zeros(2)})
    with pytest.raises(ValueError, match=r"must be \(T,\) "):
        group_pulses({"event_id": np.zeros(2, int), "time": np.zeros(3)})
    with pytest.raises(ValueError, match="events must have all"):
        group_pulses(pulses, events=[1])
    with pytest.raises(ValueError, match="7 twice"):
        group_pulses(pulses, events=[7, 7])
    with pytest.raises(ValueError, match="no model 'nothing'"):
        reconstruct(pulses, "nothing")
    own = {"event_id": [1], **{name: [0.0] for name in ("x", "y", "z", "t")}}
    advice = r"rename the columns.*PulseMap\.icecube86\(x="
    with pytest.raises(ValueError, match=rf"given only for files; {advice}"):
        reconstruct(own, model, columns={"time": "t"})
    with pytest.raises(ValueError, match=rf"\(x, y, z, t\).*{advice}") as caught:
        reconstruct(own, model)
    assert "--column" not in str(caught.value)
    mine = PulseMap.icecube86(x="x", y="y", z="z", time="t", charge=None, hlc=None)
    assert reconstruct(own, model, pulse_map=mine).statuses == {"ok": 1}


@pytest.mark.parametrize("clock", ["first_pulse", "first_triggered"])
def test_another_detector(model: Any, clock: str) -> None:
    """Positions in place of DOM numbers, a clock that runs, a key of its own."""
    rng = np.random.default_rng(1)
    pulse_map = PulseMap(
        name="mine", x="x", y="y", z="z", time="t", charge=None, hlc="hlc",
        sensor_id=None, ice="none", qe="published", time_reference=clock,
    )  # fmt: skip
    frame = {
        "number": np.repeat([3, 1], 20),
        **{axis: rng.uniform(-100, 100, 40) for axis in "xyz"},
        "t": rng.uniform(0, 1e3, 40) + 1e8,
        "hlc": np.arange(40) % 3 == 0,
    }
    found = reconstruct(frame, model, pulse_map=pulse_map, event_column="number")
    assert found.columns()["event_id"].tolist() == [3, 1]
    later = {**frame, "t": frame["t"] + 7e8}
    moved = reconstruct(later, model, pulse_map=pulse_map, event_column="number")
    np.testing.assert_allclose(
        moved.columns()["direction_x"], found.columns()["direction_x"], atol=1e-3
    )
    noise = {**frame, "hlc": np.arange(40) < 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = reconstruct(noise, model, pulse_map=pulse_map, event_column="number")
    texts = [text for text in found.notices if "trigger" in text]
    assert texts == [untriggered_note(1)] * (clock == "first_triggered")


def test_a_submission_needs_directions(
    simulated: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("t_sim", tasks=["energy"], **SIZES)
    computed: list[Any] = []
    monkeypatch.setattr(type(model), "outputs", lambda *given: computed.append(given))
    for out, format in (("submission.csv", None), ("r.csv", "submission")):
        with pytest.raises(ValueError, match=r"'direction'.*energy"):
            reconstruct(simulated, model, tmp_path / out, format=format)
    assert not computed
    assert not list(tmp_path.iterdir())
