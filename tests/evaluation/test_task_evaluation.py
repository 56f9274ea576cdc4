"""Evaluation by task: which events are judged, by which numbers, what is said aloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.evaluation.metrics import Evaluation, evaluate
from graphnet_icecube2nd.report.evaluation.report import sections_of
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.section import Section
from graphnet_icecube2nd.tasks.task import TASKS, Column, Task, register_task

NUM = 400


@pytest.fixture
def toy() -> Iterator[None]:
    """A task that is registered here, with the least that a plugin gives."""

    @register_task
    class LogHits(Task):
        name = "log_hits"
        truth = ("num_hits",)
        num_outputs = 1
        columns = (Column("log_hits", "", "log10 of the number of hits"),)

        def target(self, truth: Mapping[str, Tensor]) -> Tensor:
            return truth["num_hits"].log10()

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return (output[:, 0] - target).square()

        def predict(self, output: Tensor) -> dict[str, Tensor]:
            return {"log_hits": output[:, 0]}

    yield
    del TASKS._entries["log_hits"]


def table(name: str = "mine", ids: Any = None, **columns: Any) -> EventTable:
    ids = np.arange(NUM) if ids is None else ids
    return EventTable.from_columns({"event_id": ids, **columns}, name)


def known(**columns: Any) -> EventTruth:
    return EventTruth.from_columns({"event_id": np.arange(NUM), **columns}, "t")


def energies(seed: int = 0) -> np.ndarray:
    values: np.ndarray = 10 ** np.random.default_rng(seed).uniform(2, 5, NUM)
    return values


def test_energy_without_any_direction() -> None:
    true = energies()
    truth = known(energy=true, n_pulses=np.arange(NUM))
    off = 0.1 * np.random.default_rng(1).normal(size=NUM) + 0.05
    width = np.full(NUM, 0.1)
    mine = table(energy=true * 10**off, energy_log10_sigma=width)
    found = evaluate([mine], truth)
    assert (found.tables, found.summaries, found.notes) == ((), [], ())
    (energy,) = found.tasks
    assert energy.task == "energy"
    np.testing.assert_allclose(energy.target, np.log10(true))
    np.testing.assert_allclose(energy.known["energy"], true)
    assert energy.known["n_pulses"].tolist() == list(range(NUM))
    (row,) = energy.section.rows
    assert row["bias_log10"] == pytest.approx(np.median(off))
    assert row["inside_68"] == pytest.approx((np.abs(off) <= 0.1).mean())


def test_a_toy_task(toy: None) -> None:
    hits = np.arange(NUM)  # the first event has none: no label
    mine = table(log_hits=np.log10(np.maximum(hits, 1)) + 0.25)
    found = evaluate([mine], known(num_hits=hits))
    (task,) = found.tasks
    assert task.event_id.tolist() == list(range(1, NUM))
    assert task.section.rows[0]["bias"] == pytest.approx(0.25)
    assert f"1 of {NUM}" in found.notes[0]
    assert "num_hits" in found.notes[0]


def test_events_with_a_label_and_an_answer_in_all_tables_are_judged() -> None:
    true = energies()
    true[:3] = -1.0
    some, fewer = true.copy(), np.abs(true)[50:]
    some[7] = np.nan
    vectors = np.tile([0.0, 0.0, 1.0], (NUM, 1))
    pointing = EventTable.from_vectors("pointing", np.arange(NUM), vectors)
    tables = [
        table("some", energy=np.abs(some)),
        table("few", ids=np.arange(50, NUM), energy=fewer),
        pointing,
    ]
    truth = known(energy=true, azimuth=np.zeros(NUM), zenith=np.zeros(NUM))
    found = evaluate(tables, truth, resamples=20)
    assert [t.table.name for t in found.tables] == ["pointing"]
    assert len(found.truth) == NUM  # tables without directions do not count here
    (energy,) = found.tasks
    assert list(energy.tables) == ["some", "few"]
    assert energy.event_id.tolist() == list(range(50, NUM))
    found = evaluate(tables[:1], truth, resamples=20)
    assert found.tasks[0].event_id.tolist() == [3, 4, 5, 6, *range(8, NUM)]
    assert f"3 of {NUM}" in found.notes[0]
    assert "GeV" in found.notes[0]
    assert "'some'" in found.notes[1]


def test_what_the_truth_does_not_know_is_said() -> None:
    true = energies()
    mine = table(energy=true, p_track=np.full(NUM, 0.5))
    found = evaluate([mine], known(energy=true))
    assert [task.task for task in found.tasks] == ["energy"]
    (note,) = found.notes
    assert "track is not evaluated" in note
    assert "topology" in note
    with pytest.raises(ValueError, match=r"energy .* energy or .*; track .* topology"):
        evaluate([mine], known(other=true))
    with pytest.raises(ValueError, match=r"none of 400 events .*energy.*GeV"):
        evaluate([table(energy=true)], known(energy=np.full(NUM, -1.0)))


def test_tracks_by_hand() -> None:
    is_track = np.arange(NUM) % 2 == 0
    topology = np.where(is_track, "starting_track", "cascade")
    p_track = np.where(np.arange(NUM) < 300, is_track, ~is_track) * 0.8 + 0.1
    (row,) = (
        evaluate([table(p_track=p_track)], known(topology=topology))
        .tasks[0]
        .section.rows
    )
    assert row["tracks"] == 200
    assert row["accuracy"] == pytest.approx(0.75)
    assert row["auc"] == pytest.approx(0.75)
    assert row["brier_score"] == pytest.approx(0.75 * 0.01 + 0.25 * 0.81)
    # Events of one class only: no ROC curve, no warning.
    tracks = known(topology=np.full(NUM, "starting_track"))
    (one,) = evaluate([table(p_track=p_track)], tracks).tasks
    assert np.isnan(one.section.rows[0]["auc"])


def test_energies_without_widths_are_judged_all_the_same() -> None:
    true = energies()
    other = table("other", energy_pred=2 * true)
    with_width = table(energy=true, energy_log10_sigma=np.full(NUM, 0.1))
    found = evaluate([other, with_width], known(energy=true))
    first, second = found.tasks[0].section.rows
    assert first["bias_percent"] == pytest.approx(100.0)
    assert np.isnan(first["inside_68"])
    assert second["inside_68"] == 1.0
    alone = evaluate([other], known(energy=true)).tasks[0].section
    assert list(alone.figures) == ["energy_bias"]


def test_a_section_that_needs_a_column_that_a_table_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from graphnet_icecube2nd.tasks.energy import Energy

    true = energies()
    mine = table(energy=true, p_track=np.full(NUM, 0.5))
    truth = known(energy=true, topology=np.repeat(["cascade", "starting_track"], 200))
    monkeypatch.setattr(
        Energy,
        "report_section",
        lambda self, tables, *_: tables["mine"]["energy_low_68"],
    )
    found = evaluate([mine], truth)
    assert [task.task for task in found.tasks] == ["track"]
    assert "energy_low_68" in found.notes[0]


def test_no_event_in_common() -> None:
    true = energies()
    with pytest.raises(ValueError, match="'mine' has no event that the truth"):
        evaluate([table(ids=np.arange(NUM) + 1000, energy=true)], known(energy=true))
    with pytest.raises(ValueError, match=r"'mine'.*status ok.*no pulses"):
        evaluate([table(energy=true, status=np.full(NUM, "no pulses"))],
                 known(energy=true))  # fmt: skip


def test_targets_are_what_training_sees() -> None:
    true = energies()
    truth = known(energy=true)
    from graphnet_icecube2nd.tasks.catalogue import build_task

    expected = build_task("energy").target({"energy": torch.from_numpy(true)})
    np.testing.assert_array_equal(truth.target("energy"), expected.numpy())


@pytest.mark.parametrize(
    ("clock", "truth_clock", "offset", "bias"),
    [
        ("window", "window", 9e3, 20.0),
        ("first_pulse", "first_pulse", 0.0, 20.0),
        ("window", "first_pulse", 9e3, 20.0),  # converted
        ("window", "", 9e3, 20.0),  # a file with time_origin
        ("first_pulse", "", 0.0, 20.0),
        ("first_pulse", "window", 0.0, None),
        ("first_pulse", "first_triggered", 0.0, None),
        # Of results of other software the clock is not known.
        ("", "window", 9e3, 20.0),
        ("", "window", 0.0, None),
        ("", "first_pulse", 9e3, None),
    ],
)
def test_times_of_vertices_of_another_clock(
    clock: str, truth_clock: str, offset: float, bias: float | None, tmp_path: Path
) -> None:
    """Times are compared on one clock, or not at all, which is said."""
    place = {f"position_{axis}": np.zeros(NUM) for axis in "xyz"}
    columns = {**place, "vertex_time": 9e3 + np.linspace(0.0, 90.0, NUM)}
    if truth_clock != "window":
        columns["time_origin"] = np.full(NUM, 9e3)
    truth = replace(known(**columns), clock=truth_clock)
    results = {f"vertex_{axis}": np.ones(NUM) for axis in "xyz"}
    results["vertex_time"] = np.linspace(0.0, 90.0, NUM) + offset + 20.0
    replace(table(**results), detector="ring", clock=clock).save(tmp_path / "r.parquet")
    found = evaluate([EventTable.load(tmp_path / "r.parquet", "mine")], truth)
    (task,) = found.tasks
    assert task.section.rows[0]["distance_m"] == pytest.approx(3**0.5)
    assert any("times of vertices of table 'mine'" in n for n in found.notes) == (
        bias is None
    )
    assert task.section.rows[0].get("time_bias_ns") == (bias and pytest.approx(bias))


def weighted_case() -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Columns of results and of the truth, and integer weights from 0 to 4."""
    rng = np.random.default_rng(7)
    true, is_track = energies(), rng.random(NUM) < 0.4
    weight = rng.integers(0, 5, NUM).astype(float)
    weight[0] = 0.0
    inelasticity = rng.uniform(0.1, 0.9, NUM)
    results = {
        "azimuth": rng.uniform(1, 5, NUM),
        "zenith": np.linspace(0.5, 1.5, NUM),
        "kappa": rng.uniform(5, 50, NUM),
        "energy": true * 10 ** rng.normal(0.1, 0.3, NUM),
        "energy_log10_sigma": rng.uniform(0.2, 0.4, NUM),
        "inelasticity": np.clip(inelasticity + rng.normal(0, 0.1, NUM), 0.01, 0.99),
        "p_track": 1 / (1 + np.exp(-2 * is_track + 1 + rng.normal(0, 1, NUM))),
    }
    truth = {
        "azimuth": results["azimuth"] + rng.normal(0, 0.2, NUM),
        "zenith": results["zenith"] + rng.normal(0, 0.2, NUM),
        "energy": true,
        "inelasticity": inelasticity,
        "topology": np.where(is_track, "starting_track", "cascade"),
        "n_pulses": rng.integers(1, 60, NUM),
    }
    return results, truth, weight


def test_weighted_figures_are_those_of_repeated_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All sections and bins: each event as often as its weight says."""
    # Without weights, quantiles lie between two events; here they are events.
    plain = partial(np.quantile, method="averaged_inverted_cdf")
    monkeypatch.setattr(np, "quantile", plain)
    results, truth, weight = weighted_case()
    times = weight.astype(int)
    ids = {"event_id": np.arange(times.sum())}
    many = [
        ids | {name: np.repeat(values, times) for name, values in columns.items()}
        for columns in (results, truth)
    ]
    expected = evaluate(
        [EventTable.from_columns(many[0], "mine")],
        EventTruth.from_columns(many[1], "t"),
        resamples=20,
    )
    found = evaluate(
        [table(**results)], known(**truth, w=weight), weight="w", resamples=20
    )
    where = EventTable.from_columns({"event_id": np.arange(NUM), **results}, "mine")
    other = evaluate(
        [where.with_columns({"w": weight})], known(**truth), weight="w", resamples=20
    )
    kinds = ("bin", "table", "quantity", "topology", "way", "low", "high", "level")
    neither = ("events", "effective_events", "failed", "error", "tracks")
    compared = 0
    for one in (found, other):
        assert [task.task for task in one.tasks] == ["energy", "inelasticity", "track"]
        rows = {s.table or s.task: list(s.rows) for s in sections_of(one)}
        wanted = {s.table or s.task: list(s.rows) for s in sections_of(expected)}
        assert set(rows) == set(wanted)
        # Bins of `expected` have equal numbers of events.
        for name in set(rows) - {"expected", "overview"}:
            by_key = [
                {tuple(str(row.get(k)) for k in kinds): row for row in some}
                for some in (rows[name], wanted[name])
            ]
            assert set(by_key[0]) <= set(by_key[1])  # fewer than 20 effective events
            for key, row in by_key[0].items():
                if row.get("way", "as given") != "as given":
                    continue
                assert row["effective_events"] <= row["events"]
                for column, value in row.items():
                    is_end = "_low" in column or "_high" in column
                    if column in (*kinds, *neither) or is_end:
                        continue
                    again = by_key[1][key][column]
                    assert value == pytest.approx(again, nan_ok=True), column
                    compared += 1
    assert compared > 800
    (energy, *_) = found.tasks
    assert energy.section.rows[0]["effective_events"] == pytest.approx(
        weight.sum() ** 2 / (weight**2).sum()
    )


def test_bad_weights_are_refused_with_the_event() -> None:
    results, truth, weight = weighted_case()

    def judge(bad: Any, **columns: Any) -> Evaluation:
        return evaluate(
            [table(**columns or results)], known(**truth, w=bad), weight="w"
        )

    for value, text in ((np.nan, "nan"), (-0.5, "-0.5"), (np.inf, "inf")):
        bad = weight.copy()
        bad[17] = value
        for columns in ({}, {"energy": results["energy"]}):
            with pytest.raises(ValueError, match=rf"event 17.*column w.*{text}"):
                judge(bad, **columns)
    with pytest.raises(ValueError, match=r"column w.* all 0"):
        judge(0 * weight)
    with pytest.raises(ValueError, match="column w of the truth must be numbers"):
        judge(np.full(NUM, "x"))
    with pytest.raises(ValueError, match=r"'w' must be in the truth or .*n_pulses"):
        evaluate([table(**results)], known(**truth), weight="w")
    # A bad weight of an event that is not evaluated does not matter.
    bad = np.append(weight, np.nan)[:NUM]
    bad[0] = np.nan
    fewer = table(ids=np.arange(1, NUM), energy=results["energy"][1:])
    assert evaluate([fewer], known(**truth, w=bad), weight="w").tasks
    tables = [
        table(name, energy=results["energy"]).with_columns({"w": weight + shift})
        for name, shift in (("a", 0.0), ("b", 1.0))
    ]
    with pytest.raises(ValueError, match=r"event 0 .*one weight.*0 and.*'b', 1"):
        evaluate(tables, known(**truth), weight="w")


def test_a_section_that_leaves_weights_out_is_named(
    toy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits, weight = np.arange(1, NUM + 1), np.linspace(1, 2, NUM)
    mine = table(log_hits=np.log10(hits) + np.where(weight > 1.6, 0.5, 0.25))
    found = evaluate([mine], known(num_hits=hits, w=weight), weight="w")
    assert found.notes == ()
    assert found.tasks[0].section.rows[0]["effective_events"] < NUM
    monkeypatch.setattr(
        TASKS._entries["log_hits"],
        "report_section",
        lambda self, *_: Section(task="log_hits", title="", text="", rows=[{"a": 1}]),
    )
    found = evaluate([mine], known(num_hits=hits, w=weight), weight="w")
    assert "log_hits" in found.notes[0]
    assert "weights" in found.notes[0]
