"""Visible energy, inelasticity and neutrino: labels, answers, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import build_task
from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.tasks.label import make_label

NAN = float("nan")


@pytest.mark.parametrize(
    ("label", "columns", "expected"),
    [
        ("visible_energy", {"deposited_energy": [5.0, 0.0, NAN]}, [5.0, NAN, NAN]),
        (
            "visible_energy",
            {"energy": [1.0, 1.0], "visible_energy": [2.0, -1.0]},
            [2.0, NAN],
        ),
        ("inelasticity", {"bjorken_y": [0.0, 1.0, 1.2, -999.0]}, [0.0, 1.0, NAN, NAN]),
        (
            "visible_inelasticity",
            {"visible_inelasticity": [0.3, -1.0], "bjorken_y": [0.4, 0.4]},
            [0.3, NAN],
        ),
        (
            "inelasticity",
            {"visible_inelasticity": [0.3], "inelasticity": [0.4]},
            [0.4],
        ),
        (
            "neutrino",
            {"topology": ["muon_bundle", "cascade", "starting_track", "?"]},
            [0.0, 1.0, 1.0, NAN],
        ),
        ("neutrino", {"pid": [-14, 13, -13, 16, 11]}, [1.0, 0.0, 0.0, 1.0, NAN]),
        ("neutrino", {"initial_state_type": [12.0, NAN]}, [1.0, NAN]),
        (
            "track",
            {"topology": ["muon_bundle", "cascade", "starting_track", "?"]},
            [1.0, 0.0, 1.0, NAN],
        ),
        (
            "track",
            {
                "pid": [-14, 14, 12, -13, 11],
                "interaction_type": [1, 2, 1, 0, 1],
            },
            [1.0, 0.0, 0.0, 1.0, NAN],
        ),
    ],
)
def test_labels(label: str, columns: dict[str, list[Any]], expected: list[Any]) -> None:
    arrays = {name: np.array(values) for name, values in columns.items()}
    found = make_label(label, arrays, LabelColumns())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "name", ["visible_energy", "inelasticity", "visible_inelasticity"]
)
def test_widths_hold_after_calibration(name: str) -> None:
    """Widths three times too small: the calibrated intervals hold 68%."""
    task, rng = build_task(name), np.random.default_rng(3)
    centre, num = task.centre, 4000
    output = np.stack([rng.normal(size=num), np.full(num, np.log(0.1))], axis=1)
    target = output[:, 0] + centre + 0.3 * 1.134 * rng.normal(size=num)
    calibration = task.calibrate(output, target)
    before = task.predict(torch.from_numpy(output))
    after = task.predict_calibrated(torch.from_numpy(output), calibration)
    shares = [
        task.calibration_figures({n: v.numpy() for n, v in columns.items()}, target)[
            "inside_68"
        ]
        for columns in (before, after)
    ]
    assert shares[0] < 0.4
    assert shares[1] == pytest.approx(0.68, abs=0.02)


def test_inelasticity_stays_within_0_and_1() -> None:
    task = build_task("inelasticity")
    output = torch.tensor([[0.0, 0.0], [8.0, 3.0], [-30.0, 9.0]])
    columns = task.predict(output)
    low, high = columns["inelasticity_low_68"], columns["inelasticity_high_68"]
    assert float(columns["inelasticity"][0]) == 0.5
    assert bool((low >= 0).all())
    assert bool((high <= 1).all())
    assert bool((low <= columns["inelasticity"]).all())
    torch.testing.assert_close(columns["inelasticity_sigma"], (high - low) / 2)
    # The ends of the range have a finite label; nothing beyond has one.
    target = task.target({"inelasticity": torch.tensor([0.0, 0.5, 1.0, NAN])})
    assert target.isfinite().tolist() == [True, True, True, False]
    assert float(target[1]) == 0


def test_inelasticity_in_the_report() -> None:
    """Bias and resolution are those of y; bad answers are counted and left out."""
    task, true = build_task("inelasticity"), np.linspace(0.1, 0.9, 401)
    value = np.clip(true + 0.05, 0, 1)
    table = {
        "inelasticity": value,
        "inelasticity_sigma": np.full(401, 0.1),
        "inelasticity_low_68": value - 0.1,
        "inelasticity_high_68": np.clip(value + 0.1, 0, 1),
    }
    table["inelasticity"] = np.where(np.arange(401) == 7, NAN, value)
    other = {"inelasticity": true}
    logit = np.log(true / (1 - true))
    section = task.report_section({"ours": table, "other": other}, logit, {})
    ours, theirs = section.rows
    assert (ours["events"], ours["without_answer"], theirs["without_answer"]) == (
        *(400, 1, 0),
    )
    assert ours["bias"] == pytest.approx(0.05)
    assert theirs["bias"] == pytest.approx(0.0)
    assert ours["inside_68"] == 1.0
    assert np.isnan(theirs["inside_68"])
    assert {"inelasticity_residual", "inelasticity_widths"} == {*section.figures}
    assert {*section.captions} == {*section.figures}
    nothing = task.report_section(
        {"t": {"inelasticity": np.array([NAN])}}, logit[:1], {}
    )
    assert nothing.rows == [{"table": "t", "events": 0, "without_answer": 1}]


def test_visible_energy_beside_energy_has_columns_of_its_own() -> None:
    energy, visible = build_task("energy"), build_task("visible_energy")
    names = {c.name for c in energy.columns}, {c.name for c in visible.columns}
    assert not names[0] & names[1]
    found = visible.predict(torch.tensor([[1.0, 0.0]]))
    assert float(found["visible_energy"]) == pytest.approx(1e4)
    table = {name: value.numpy() for name, value in found.items()}
    section = visible.report_section({"t": table}, np.array([4.0]), {})
    assert section.title == "Visible energy"
    assert {*section.figures} == {"visible_energy_bias", "visible_energy_widths"}
