"""Two sets of events side by side: distributions, rates, runs, a classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet
import torch

from graphnet_icecube2nd import EventStore, simulate
from graphnet_icecube2nd.evaluation.data_comparison import (
    ComparedEvents,
    compare_data,
    comparison_sections,
)
from graphnet_icecube2nd.evaluation.event_quantities import (
    _quantities,
    event_quantities,
)
from graphnet_icecube2nd.events.events import Events

NUM = 4000


def write(path: Path, seed: int, **columns: Any) -> Path:
    """Write results: two correlated columns, weights and others."""
    rng = np.random.default_rng(seed)
    first = rng.normal(0, 1, NUM)
    table = {
        "event_id": np.arange(NUM),
        "kappa": np.exp(first),
        "zenith": 1.5 + 0.3 * first + 0.1 * rng.normal(0, 1, NUM),
        "n_pulses": rng.poisson(20, NUM),
        "constant": np.ones(NUM),
        "status": np.full(NUM, "ok"),
        **columns,
    }
    pyarrow.parquet.write_table(pa.table(table), path)
    return path


def load(path: Path, **kwargs: Any) -> ComparedEvents:
    return ComparedEvents.load(path, **kwargs)


def test_equal_sets_do_not_differ(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    sets = [load(write(tmp_path / f"{name}.parquet", n)) for n, name in enumerate("ab")]
    found = compare_data(*sets)
    assert {row["quantity"] for row in found.rows} == {"kappa", "zenith", "n_pulses"}
    assert all(row["p_value"] > 0.01 for row in found.rows)
    assert found.auc is not None
    _, low, high = found.auc
    assert low < 0.5 < high
    assert high - low < 0.04
    assert "constant" in found.notes[0]


def test_a_difference_that_only_the_classifier_sees(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    first = load(write(tmp_path / "a.parquet", 0))
    second = load(write(tmp_path / "b.parquet", 1))
    shuffled = np.random.default_rng(2).permutation(second.columns["zenith"])
    columns = {**second.columns, "zenith": shuffled}
    other = ComparedEvents(name="c", columns=columns, weight_B=second.weight_B)
    found = compare_data(first, other)
    assert all(row["p_value"] > 0.01 for row in found.rows)
    assert found.auc is not None
    assert found.auc[1] > 0.7


def test_weights_make_one_spectrum_the_other(tmp_path: Path) -> None:
    """Events drawn from a shifted distribution, weighted back."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(5)
    value = rng.normal(0.3, 1, NUM)
    weight = np.exp(-0.3 * value + 0.045) * 1e-6
    data = write(tmp_path / "data.parquet", 1, kappa=rng.normal(0, 1, NUM))
    simulation = write(tmp_path / "sim.parquet", 2, kappa=value, w=weight)
    data_set = load(data, weight="w", livetime=100.0)
    assert data_set.weight_name == ""
    for name, is_equal in ((None, False), ("w", True)):
        found = compare_data(data_set, load(simulation, weight=name))
        (kappa,) = (row for row in found.rows if row["quantity"] == "kappa")
        assert (kappa["p_value"] > 0.01) == is_equal
        assert found.auc is not None
        assert (found.auc[1] < 0.5) == is_equal
    rates = comparison_sections(found)[0].rows
    assert rates[0]["rate"] == pytest.approx(40.0)
    assert rates[1]["rate"] == pytest.approx(weight.sum())
    assert rates[1]["effective_events"] < NUM
    half = 1.96 * np.sqrt((weight**2).sum())
    assert rates[1]["rate_high"] == pytest.approx(weight.sum() + half, rel=1e-4)


def test_the_run_that_differs_is_found(tmp_path: Path) -> None:
    run = np.repeat([7, 8, 9, 10], NUM // 4)
    shift = np.where(run == 9, 0.5, 0.0)
    value = np.random.default_rng(3).normal(0, 1, NUM) + shift
    first = load(write(tmp_path / "a.parquet", 0, kappa=value, run_id=run))
    gauss = np.random.default_rng(4).normal(0, 1, NUM)
    second = load(write(tmp_path / "b.parquet", 1, kappa=gauss))
    found = compare_data(first, second, classifier=False)
    assert [row["run"] for row in found.runs] == [7, 8, 9, 10]
    assert [row["events"] for row in found.runs] == [NUM // 4] * 4
    differ = {row["run"]: row for row in found.runs if row["p_value"] < 1e-3}
    assert list(differ) == [9]
    assert differ[9]["largest_difference"] == "kappa"
    # The same run of the other set, where it has runs.
    other = load(write(tmp_path / "c.parquet", 2, kappa=value, run_id=run))
    rows = compare_data(first, other, classifier=False).runs
    assert all(row["p_value"] > 0.01 for row in rows)


def test_what_is_refused_or_left_out(tmp_path: Path) -> None:
    status = np.where(np.arange(NUM) < 5, "not finite", "ok")
    weight = np.ones(NUM)
    weight[17] = -1
    first = write(tmp_path / "a.parquet", 0, status=status, w=weight)
    with pytest.raises(ValueError, match=r"a.parquet, event 17: .*column w.*-1"):
        load(first, weight="w")
    one = load(first)
    assert len(one.weight_B) == NUM - 5
    assert "5 events of a" in one.notes[0]
    with pytest.raises(ValueError, match="different names"):
        compare_data(one, one)
    other = ComparedEvents(name="b", columns={"x": np.ones(3)}, weight_B=np.ones(3))
    with pytest.raises(ValueError, match="no column of numbers in common"):
        compare_data(one, other)
    with pytest.raises(ValueError, match=r"w.parquet must have events"):
        load(write(tmp_path / "w.parquet", 0, w=np.zeros(NUM)), weight="w")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[EventStore, Path]:
    pytest.importorskip("scipy")
    folder = tmp_path_factory.mktemp("stores")
    simulate(folder / "one", num_events=400, seed=1, workers=1)
    return EventStore(folder / "one"), folder


def test_quantities_by_hand(stores: tuple[EventStore, Path]) -> None:
    store, _ = stores
    found = event_quantities(store, np.array([3, 0]))
    from graphnet_icecube2nd.store.event_store import view_event

    pulses = view_event(store, 3).pulses
    hlc = pulses["auxiliary"] == 0
    charge, time = pulses["charge"].astype(float), pulses["time"].astype(float)
    place = store.geometry.position_S3.numpy()[pulses["sensor_id"][hlc]]
    weight = charge[hlc] / charge[hlc].sum()
    centre = weight @ place
    spread = np.sqrt(weight @ (time[hlc] - weight @ time[hlc]) ** 2)
    expected = {
        "n_pulses": len(hlc),
        "n_hlc": hlc.sum(),
        "n_doms": len(set(pulses["sensor_id"].tolist())),
        "charge_pe": charge.sum(),
        "hlc_charge_pe": charge[hlc].sum(),
        "duration_ns": np.ptp(time[hlc]),
        "time_spread_ns": spread,
        "charge_centre_r_m": np.hypot(*centre[:2]),
        "charge_centre_z_m": centre[2],
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, rel=1e-5), name


def test_stores_with_other_charges(stores: tuple[EventStore, Path]) -> None:
    """Sets of pulses whose charges are 20% larger."""
    _, folder = stores
    one = ComparedEvents.load(folder / "one", "nominal")
    columns = dict(one.columns)
    columns["charge_pe"] = 1.2 * columns["charge_pe"]
    columns["hlc_charge_pe"] = 1.2 * columns["hlc_charge_pe"]
    other = ComparedEvents(name="more", columns=columns, weight_B=one.weight_B)
    found = compare_data(one, other, classifier=False)
    first = found.rows[0]
    assert first["quantity"] in ("charge_pe", "hlc_charge_pe")
    assert first["mean_second"] == pytest.approx(1.2 * first["mean_first"])
    (n_pulses,) = (row for row in found.rows if row["quantity"] == "n_pulses")
    assert n_pulses["ks_distance"] == 0


@pytest.mark.parametrize("axes", [("x", "y", "z"), ()])
def test_the_centre_of_charge_is_that_of_the_detector(axes: tuple[str, ...]) -> None:
    position_S3 = np.array([[3.0, 4.0, -7.0], [3.0, 4.0, -5.0]])
    origin = (0.0, 10.0, -1000.0)
    columns = {"sensor_id": torch.tensor([0, 1])}
    if axes:  # as in the file
        columns = dict(zip(axes, torch.tensor(position_S3 + origin).T, strict=True))
    events = Events(
        columns=columns,
        offsets=torch.tensor([0, 2]),
        n_pulses=torch.tensor([2]),
        event_id=torch.tensor([1]),
        truth={},
    )
    found = _quantities(events, position_S3, origin)
    assert found["charge_centre_r_m"] == pytest.approx([5.0])
    assert found["charge_centre_z_m"] == pytest.approx([-6.0])


def test_the_rate_of_a_simulated_store_is_the_mean_weight(tmp_path: Path) -> None:
    simulate(tmp_path / "store", num_events=60, seed=1)
    table = load(write(tmp_path / "a.parquet", 0), livetime=2.0)
    store = load(tmp_path / "store", weight="weight_atmospheric")
    weight_B = EventStore(tmp_path / "store").whole_event_column("weight_atmospheric")
    both = replace(store, name="data", num_simulated=None)
    rates = comparison_sections(compare_data(both, store, classifier=False))[0].rows
    assert rates[1]["rate"] == pytest.approx(weight_B.mean())
    assert rates[0]["rate"] == pytest.approx(weight_B.sum())
    assert table.num_simulated is None


def test_runs_that_are_left_out_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    first = load(write(tmp_path / "a.parquet", 0, run_id=np.arange(NUM) // 10))
    second = load(write(tmp_path / "b.parquet", 1))
    found = compare_data(first, second, classifier=False)
    assert any("200 of the 400 runs" in note for note in found.notes)
    # A difference is also found with few events.
    some = [
        ComparedEvents(name=name, columns={"x": np.arange(150.0) + off}, weight_B=one)
        for name, off, one in (("a", 0.0, np.ones(150)), ("b", 300.0, np.ones(150)))
    ]
    few = compare_data(*some).auc
    assert few is not None
    assert few[0] > 0.9
