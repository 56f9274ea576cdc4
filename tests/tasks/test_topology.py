"""Topology: labels of several conventions, classes, results with text, calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import (
    EventStore,
    EventTable,
    build_detector,
    build_model,
    build_task,
    load_model,
    reconstruct,
    save_model,
)
from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.evaluation import evaluate
from graphnet_icecube2nd.inference.predictor import predict_events
from graphnet_icecube2nd.results import EventTruth
from graphnet_icecube2nd.tasks.catalogue import are_our_results, build_tasks
from graphnet_icecube2nd.tasks.label import TOPOLOGIES, TOPOLOGY_CODES, make_label

NAN = float("nan")
SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
ICECUBE = build_detector("icecube86").labels
CENTRED = build_detector("icecube86")
DEEP = replace(CENTRED, pulses=replace(CENTRED.pulses, origin=(0.0, 0.0, -2000.0)))


@pytest.mark.parametrize(
    ("labels", "columns", "expected"),
    [
        (
            LabelColumns(),
            {"topology": ["cascade", "muon_bundle", "?", "starting_track", "track"]},
            ["cascade", "muon_bundle", None, "starting_track", "track"],
        ),
        # GraphNeT: the interaction of a muon neutrino makes a track that begins there.
        (
            ICECUBE,
            {
                "pid": [12, -14, 14, 14, -16, 16, 13, 1000260560, -1, 14],
                "interaction_type": [1, 2, 1, 1, 2, 1, 0, 0, -1, 1],
                "position_x": [0, 0, 100, 900, 0, 0, 0, 0, -1, NAN],
                "position_y": [0.0] * 10,
                "position_z": [0.0, 0, 400, 0, 0, 0, 0, 0, -1, 0],
            },
            [
                *("cascade", "cascade", "starting_track", "through_going_track"),
                *("cascade", None, "muon_bundle", "muon_bundle", None, "track"),
            ],
        ),
        # Where the detector is not known, only that it is a track.
        (
            LabelColumns(),
            {
                "initial_state_type": [14, 14],
                "interaction": [1, 2],
                "initial_state_x": [0.0, 0.0],
                "initial_state_y": [0.0, 0.0],
                "initial_state_z": [0.0, 0.0],
            },
            ["track", "cascade"],
        ),
        # A tau that decays to a muon is a track; of the others two classes are left.
        (
            ICECUBE,
            {
                "pid": [16, -16, 16, 16, 14],
                "interaction_type": [1, 1, 2, 1, 1],
                "tau_topology": [2, 1, 2, -1, 3],
                **{f"position_{axis}": [0.0, 0, 0, 0, 900] for axis in "xyz"},
            },
            ["starting_track", None, "cascade", None, "through_going_track"],
        ),
        (LabelColumns(), {"pdgid": [14, -14], "is_cc_flag": [1, 0]},
         ["track", "cascade"]),
        # Positions of a file whose detector is not at 0.
        (
            DEEP.labels,
            {
                "injection_type": [14, 14],
                "injection_interaction_type": [1, 1],
                "injection_position_x": [0.0, 0.0],
                "injection_position_y": [0.0, 0.0],
                "injection_position_z": [-2000.0, 0.0],
            },
            ["starting_track", "through_going_track"],
        ),
    ],
)  # fmt: skip
def test_labels(labels: Any, columns: dict[str, Any], expected: list[Any]) -> None:
    arrays = {name: np.array(values) for name, values in columns.items()}
    found = make_label("topology", arrays, labels)
    names = [None if np.isnan(v) else TOPOLOGY_CODES[int(v)] for v in found]
    assert names == expected


def test_a_tau_to_muon_is_a_track() -> None:
    columns = {"pid": [16, -16, 16, 16], "interaction_type": [1, 1, 2, 1]}
    columns["tau_topology"] = [2, 1, 2, -1]
    arrays = {name: np.array(values) for name, values in columns.items()}
    assert make_label("track", arrays, LabelColumns()).tolist() == [1, 0, 0, 0]
    del arrays["tau_topology"]
    assert make_label("track", arrays, LabelColumns()).tolist() == [0, 0, 0, 0]


def test_a_vertex_far_outside_has_no_label_without_a_topology() -> None:
    columns = {f"position_{x}": np.zeros(3) for x in "xyz"}
    columns["position_x"] = np.array([0.0, 900.0, 1300.0])
    known = np.isfinite(make_label("vertex", columns, ICECUBE)).all(axis=1)
    assert known.tolist() == [True, True, False]
    plain = np.isfinite(make_label("vertex", columns, LabelColumns())).all(axis=1)
    assert plain.tolist() == [True] * 3
    columns["topology"] = np.array(["cascade"] * 3)
    assert np.isfinite(make_label("vertex", columns, ICECUBE)).all()


def test_cosmic_rays_are_no_neutrinos() -> None:
    pid = {"pid": np.array([2212, 1000260560, 12, -13])}
    assert make_label("neutrino", pid, LabelColumns()).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("name", ["track", "neutrino", "topology"])
def test_a_topology_is_text(name: str) -> None:
    track = {"topology": np.array(["track"])}
    expected = TOPOLOGY_CODES.index("track") if name == "topology" else 1
    assert make_label(name, track, LabelColumns()).tolist() == [expected]
    with pytest.raises(ValueError, match=r"topology .* must be text.* 13 in row 0"):
        make_label(name, {"topology": np.array([13, 14])}, LabelColumns())


class TestClasses:
    def test_names_and_groups(self) -> None:
        codes = {"topology": torch.tensor([*map(float, range(6)), NAN])}
        plain = build_task("topology").target(codes)
        assert plain[:5].tolist() == [0, 1, 2, 3, 4]
        assert plain[5:].isnan().all()
        task = build_task(
            "topology",
            classes={
                "shower": ["cascade", "double_cascade"],
                "muon": ["through_going_track", "starting_track"],
            },
        )
        # A track of unknown start is one of either kind; bundles are of no class.
        target = task.target(codes)
        names = [None if v != v else task.classes[int(v)] for v in target.tolist()]
        expected = dict(zip(TOPOLOGY_CODES, names, strict=False))
        assert expected == {
            "through_going_track": "muon",
            "starting_track": "muon",
            "cascade": "shower",
            "double_cascade": "shower",
            "muon_bundle": None,
            "track": "muon",
        }
        assert [c.name for c in task.columns] == ["p_shower", "p_muon", "topology"]
        two = build_task("topology", classes=["cascade", "starting_track"])
        assert two.num_outputs == 2
        assert two.attach(8)(torch.zeros(3, 8)).shape == (3, 2)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (["cascade"], "two at least, got 1"),
            ("cascade", "classes must be .*'cascade'"),
            (["cascade", "kascade"], "kascade"),
            ({"a": ["cascade"], "b": ["cascade"]}, "'cascade' .* 'a' and 'b'"),
            ({"a": [], "b": ["cascade"]}, "'a' must have a topology"),
        ],
    )
    def test_wrong_ones(self, classes: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_task("topology", classes=classes)

    def test_a_column_of_another_task(self) -> None:
        classes = {"track": ["starting_track"], "cascade": ["cascade"]}
        with pytest.raises(ValueError, match="p_track"):
            build_tasks({"topology": {"classes": classes}, "track": {}})

    def test_truth_is_not_taken_for_results(self) -> None:
        assert not are_our_results(["event_id", "topology", "status", "vertex_time"])
        assert are_our_results(["event_id", "topology", "p_cascade", "status"])


@pytest.fixture
def model() -> Any:
    torch.manual_seed(5)
    return build_model(
        "t_sim", tasks=["direction", "topology"], detector="kaggle", **SIZES
    ).eval()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "db"])
def test_results_have_the_name_of_the_class(
    model: Any, simulated: EventStore, tmp_path: Path, suffix: str
) -> None:
    save_model(model, tmp_path / "m.safetensors")
    out = tmp_path / f"r.{suffix}"
    reconstruct(simulated.path, tmp_path / "m.safetensors", out)
    table = EventTable.load(out)
    p_BC = np.stack([table.columns[f"p_{name}"] for name in TOPOLOGIES], axis=1)
    np.testing.assert_allclose(p_BC.sum(axis=1), 1.0, atol=1e-6)
    names = np.array(TOPOLOGIES)[p_BC.argmax(axis=1)]
    assert table.columns["topology"].tolist() == names.tolist()
    # As in the model that was saved, and its tensors.
    memory = predict_events(load_model(tmp_path / "m.safetensors"), simulated)
    assert memory.columns["topology"].tolist() == names.tolist()
    evaluation = evaluate([table], EventTruth.of(simulated), resamples=20)
    (found,) = [one for one in evaluation.tasks if one.task == "topology"]
    true = simulated.whole_event_column("topology")
    row = found.section.rows[0]
    assert row["accuracy"] == pytest.approx(np.mean(names == true))


def test_other_classes_are_saved_with_the_model(tmp_path: Path) -> None:
    classes = {"shower": ["cascade"], "other": ["starting_track", "muon_bundle"]}
    options = {"classes": classes, "loss": "focal"}
    model = build_model("t_sim", tasks={"topology": options}, **SIZES)
    save_model(model, tmp_path / "m.safetensors")
    task = load_model(tmp_path / "m.safetensors").task_map["topology"]
    assert task.describe() == options
    assert task.classes == ("shower", "other")


class TestCalibration:
    def outputs(self, num: int = 4000) -> tuple[Any, Any]:
        """Logits that are three times too large."""
        rng = np.random.default_rng(4)
        logits = rng.normal(0, 1.5, (num, 5))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        true = (rng.random((num, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=4)
        return 3 * logits, true.astype(float)

    def test_the_temperature_is_found(self) -> None:
        task = build_task("topology")
        output, target = self.outputs()
        calibration = task.calibrate(output, target)
        assert 1 / calibration.scale == pytest.approx(3.0, rel=0.06)
        figures = []
        for one in (None, calibration):
            columns = task.predict_calibrated(torch.from_numpy(output), one)
            plain = {name: value.numpy() for name, value in columns.items()}
            figures.append(task.calibration_figures(plain, target))
        assert figures[0]["overconfidence"] > 0.2
        assert abs(figures[1]["overconfidence"]) < 0.02
        assert figures[1]["cross_entropy"] < figures[0]["cross_entropy"]

    def test_too_little(self) -> None:
        task = build_task("topology")
        output, target = self.outputs(200)
        with pytest.raises(ValueError, match="at least 100 events, got 99"):
            task.calibrate(output[:99], target[:99])
        with pytest.raises(ValueError, match="only starting_track"):
            task.calibrate(output, np.ones(200))


def test_section_of_the_report() -> None:
    task, num = build_task("topology"), 300
    true = np.arange(num) % 3  # no double cascade, no bundle
    p = np.full((num, 5), 0.05)
    p[np.arange(num), true] = 0.8
    wrong = np.arange(num) < 30
    p[wrong] = np.roll(p[wrong], 1, axis=1)
    table = dict(zip((f"p_{name}" for name in TOPOLOGIES), p.T, strict=True))
    table["topology"] = np.full(num, "not read")
    table["p_cascade"] = np.where(np.arange(num) == 299, NAN, table["p_cascade"])
    known = {"energy": np.geomspace(10, 1e4, num)}
    section = task.report_section({"ours": table}, true.astype(float), known)
    (row,) = section.rows
    assert (row["events"], row["without_answer"]) == (num - 1, 1)
    assert row["accuracy"] == pytest.approx(269 / 299)
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert row["brier_score"] == pytest.approx(
        (269 * (0.2**2 + 4 * 0.05**2) + 30 * (0.95**2 + 0.8**2 + 3 * 0.05**2)) / 299
    )
    assert np.isnan(row["auc_double_cascade"])
    (confusion,) = section.figures["topology_confusion"]
    assert confusion.cells[0, 0] == pytest.approx(0.9)
    assert confusion.cells[0, 1] == pytest.approx(0.1)
    assert confusion.cells[3].sum() == 0
    assert {*section.captions} == {*section.figures}
    assert {one["quantity"] for one in section.further[0].rows} == {"energy"}
    # Only the wrong ones have a weight.
    weighted = task.report_section(
        {"ours": table}, true.astype(float), {"weight": wrong.astype(float)}
    )
    assert weighted.rows[0]["accuracy"] == 0.0
    nothing = {f"p_{name}": np.array([NAN]) for name in TOPOLOGIES}
    empty = task.report_section({"t": nothing}, np.zeros(1), {})
    assert empty.rows == [{"table": "t", "events": 0, "without_answer": 1}]
