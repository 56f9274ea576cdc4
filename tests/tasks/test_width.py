"""Calibrations of widths, as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.width import BIN, WidthCalibration, width_knots

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("values", [NAN, 2.0], r"values\[0\] .* must be finite, found nan"),
        ("values", "12", r"values\[0\] .* must be a number, found '1'"),
        ("shifts", [0.0, "0.1"], r"shifts\[1\] .* must be a number, found '0.1'"),
        ("factors", [1.0, NAN], r"factors\[1\] .* must be finite"),
        ("num_events", "many", "num_events .* must be a number"),
        ("widths", [0.1], "width_factors of a .* must have 1 entries, got 0"),
        ("values", [], "must have values"),
    ],
)
def test_a_stored_calibration_is_made_of_numbers(
    name: str, values: Any, message: str
) -> None:
    good = {"values": [1, 2.0], "shifts": [0.0, 0.1], "factors": [1.0, 1.1]}
    read = WidthCalibration.from_dict(good)  # as of release 0.1, without `widths`
    assert read.values == (1.0, 2.0)
    value, width = torch.tensor([2.0]), torch.tensor([1.0])
    assert [float(one) for one in read.apply(value, width)] == pytest.approx([2.1, 1.1])
    with pytest.raises(ValueError, match=message):
        WidthCalibration.from_dict({**good, name: values})


def test_intervals_hold_for_easy_and_for_hard_events() -> None:
    """Events of one energy whose widths are too large, or too small."""
    generator = np.random.default_rng(3)
    num = 8000
    value = generator.uniform(2, 4, num)
    is_hard = generator.random(num) < 0.5
    predicted = np.where(is_hard, 0.5, 0.1) * generator.uniform(0.8, 1.2, num)
    true_width = np.where(is_hard, 0.25, 0.2)
    target = value + true_width * generator.normal(size=num)
    task = build_task("energy", likelihood="gaussian")
    output = np.stack([value - task.centre, np.log(predicted)], axis=1)
    fitted = task.calibrate(output, target)
    columns = task.predict_calibrated(torch.from_numpy(output), fitted)
    pull = (columns["energy"].log10().numpy() - target) / columns["energy_log10_sigma"]
    inside = np.abs(pull.numpy()) <= 1
    for of_kind in (is_hard, ~is_hard):
        assert inside[of_kind].mean() == pytest.approx(0.68, abs=0.015)


def test_the_rare_largest_values_have_knots_of_their_own() -> None:
    """Of a falling spectrum whose highest decades are shifted."""
    generator = np.random.default_rng(3)
    value = 2 + generator.exponential(0.4, 40_000)
    residual = np.where(value > 4, 0.3, 0.0) + 0.1 * generator.normal(size=len(value))
    knots, shifts, _ = width_knots(value, residual, np.full(len(value), 0.1))
    assert (np.diff(knots) > 0).all()
    assert np.interp(4.6, knots, shifts) == pytest.approx(0.3, abs=0.03)
    assert np.interp(3.6, knots, shifts) == pytest.approx(0.0, abs=0.03)
    assert (value >= knots[-1]).sum() >= BIN / 2
