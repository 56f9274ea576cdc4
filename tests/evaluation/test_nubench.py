"""NuBench's metrics by its definitions, of its prediction files as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.evaluation.metrics import Evaluation, evaluate
from graphnet_icecube2nd.evaluation.nubench import nubench_section
from graphnet_icecube2nd.report.evaluation.report import write_evaluation
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.catalogue import list_tasks

NUM = 900


def file_of(path: Path, *, newer: bool = False) -> dict[str, np.ndarray]:
    """Write a prediction file with its truth, in one of two spellings.

    The newer one has `track_pred` as the logarithm of the odds and
    `visible_inelasticity_pred`.
    """
    rng = np.random.default_rng(0)
    energy = np.tile([50.0, 500.0, 5000.0], NUM // 3)
    zenith, azimuth = rng.uniform(0.3, 2.8, NUM), rng.uniform(0, 6, NUM)
    tilt = np.where(np.arange(NUM) % 2 == 0, 0.5, 3.0)  # deg
    turned = zenith + np.radians(tilt)
    is_track = np.arange(NUM) % 2 == 0
    logit = np.where(is_track, 2.0, -2.0) + 2 * rng.normal(size=NUM)
    y = rng.uniform(0, 1, NUM)
    visible = rng.uniform(0.2, 0.8, NUM)
    score, inelasticity = "target_pred", "inelasticity_pred"
    if newer:
        score, inelasticity = "track_pred", "visible_inelasticity_pred"
    columns = {
        "event_no": np.arange(NUM) + 7,
        "initial_state_energy": energy,
        "initial_state_type": np.full(NUM, -14),
        "interaction": np.where(is_track, 1, 2),
        "initial_state_zenith": zenith,
        "initial_state_azimuth": azimuth,
        "initial_state_x": rng.normal(0, 100, NUM),
        "initial_state_y": rng.normal(0, 100, NUM),
        "initial_state_z": rng.normal(0, 100, NUM),
        "bjorken_y": y,
        "visible_inelasticity": visible,
        "energy_pred": energy * np.where(is_track, 1.5, 0.9),
        "dir_x_pred": np.sin(turned) * np.cos(azimuth),
        "dir_y_pred": np.sin(turned) * np.sin(azimuth),
        "dir_z_pred": np.cos(turned),
        score: logit if newer else 1 / (1 + np.exp(-logit)),
        inelasticity: visible + 0.1,
    }
    for axis, off in zip("xyz", (3.0, 4.0, -12.0), strict=True):
        columns[f"position_{axis}_pred"] = columns[f"initial_state_{axis}"] + off
    pyarrow.parquet.write_table(pa.table(columns), path)
    return columns


def evaluated(path: Path) -> Evaluation:
    truth = EventTruth.load(path, angles="origin")
    return evaluate([EventTable.load(path, "mine")], truth, resamples=20)


@pytest.mark.parametrize("newer", [False, True], ids=["one name", "the other"])
def test_metrics_by_hand(tmp_path: Path, newer: bool) -> None:
    columns = file_of(tmp_path / "predictions.parquet", newer=newer)
    found = evaluated(tmp_path / "predictions.parquet")
    section = nubench_section(found)
    assert section is not None
    rows = {some.table: list(some.rows) for some in section.further}
    energy = rows["nubench_energy"]
    names = ["up to 100", "100 to 1,000", "1,000 to 100,000"]
    assert [row["energy_range"] for row in energy] == names
    for row in energy:  # half the events -50%, half +10%
        assert row["events"] == NUM / 3
        assert row["bias_percent"] == pytest.approx(-20.0)
        assert row["sigma_percent"] == pytest.approx(60.0)
    direction = rows["nubench_direction"]
    assert [row["interaction"] for row in direction] == ["CC", "NC"] * 2
    for row in direction:
        is_charged = row["interaction"] == "CC"
        assert row["median_psi_deg"] == pytest.approx(0.5 if is_charged else 3.0)
        assert row["inside_1_deg"] == is_charged
        assert row["inside_5_deg"] == 1
    track = rows["nubench_track"]
    assert [row["energy_range"] for row in track] == ["all", *names]
    metrics = pytest.importorskip("sklearn.metrics")
    score = columns["track_pred" if newer else "target_pred"]
    is_track = columns["interaction"] == 1
    assert track[0]["auc"] == pytest.approx(metrics.roc_auc_score(is_track, score))
    some = columns["initial_state_energy"] == 500
    assert track[2]["auc"] == pytest.approx(
        metrics.roc_auc_score(is_track[some], score[some])
    )
    inelasticity = rows[f"nubench_{'visible_' * newer}inelasticity"]
    assert {row["interaction"] for row in inelasticity} == {"CC"}
    for row in inelasticity:
        assert row["events"] == NUM / 6
        assert row["median_residual"] == pytest.approx(0.1)
        assert row["sigma"] == pytest.approx(0.0, abs=1e-9)
    if "vertex" in list_tasks():
        for row in rows["nubench_vertex"]:
            assert row["median_d_xyz_m"] == pytest.approx(13.0)
            assert row["median_d_z_m"] == pytest.approx(12.0)
            assert row["median_d_xy_m"] == pytest.approx(5.0)
    # What is not read as it stands is said.
    notes = "; ".join(found.remarks)
    assert ("track_pred has values outside 0 to 1" in notes) == newer
    # The visible inelasticity is compared with the visible one, not with Bjorken y.
    (task,) = (one for one in found.tasks if "inelasticity" in one.task)
    bias = task.section.rows[0]["bias"]
    assert (bias == pytest.approx(0.1)) == newer
    p_track = next(t for t in found.tasks if t.task == "track").tables["mine"][
        "p_track"
    ]
    expected = 1 / (1 + np.exp(-score)) if newer else score
    np.testing.assert_allclose(p_track, expected)


def test_the_report_has_the_metrics(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file_of(tmp_path / "p.parquet")
    found = evaluated(tmp_path / "p.parquet")
    text = write_evaluation(found, tmp_path / "r").read_text()
    assert "NuBench: energy" in text
    plain = json.loads((tmp_path / "r" / "tables" / "evaluation.json").read_text())
    assert plain["nubench_energy"][0]["bias_percent"] == pytest.approx(-20.0)


def test_no_metrics_without_the_interaction(tmp_path: Path) -> None:
    columns: dict[str, Any] = file_of(tmp_path / "p.parquet")
    columns.pop("interaction")
    truth = EventTruth.from_columns(columns, "t", "origin")
    tables = [EventTable.load(tmp_path / "p.parquet", "mine")]
    assert nubench_section(evaluate(tables, truth, resamples=20)) is None


def test_weights_count_in_the_metrics(tmp_path: Path) -> None:
    columns: dict[str, Any] = file_of(tmp_path / "p.parquet")
    columns["w"] = np.where(columns["interaction"] == 1, 3.0, 1.0)
    truth = EventTruth.from_columns(columns, "t", "origin")
    tables = [EventTable.load(tmp_path / "p.parquet", "mine")]
    found = evaluate(tables, truth, resamples=20, weight="w")
    section = nubench_section(found)
    assert section is not None
    (energy,) = (s for s in section.further if s.table == "nubench_energy")
    assert energy.rows[0]["bias_percent"] == pytest.approx(-50.0)
    assert energy.rows[0]["effective_events"] == pytest.approx(NUM / 3 * 0.8)


def test_two_columns_of_one_answer_are_refused(tmp_path: Path) -> None:
    columns = file_of(tmp_path / "p.parquet")
    both = {**columns, "track_pred": columns["target_pred"]}
    with pytest.raises(ValueError, match=r"track_pred and target_pred .*p_track"):
        EventTable.from_columns(both, "mine")
