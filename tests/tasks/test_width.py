"""Calibrations of widths, as they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from graphnet_icecube2nd.tasks.width import WidthCalibration

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("values", [NAN, 2.0], r"values\[0\] .* must be finite, found nan"),
        ("values", "12", r"values\[0\] .* must be a number, found '1'"),
        ("shifts", [0.0, "0.1"], r"shifts\[1\] .* must be a number, found '0.1'"),
        ("factors", [1.0, NAN], r"factors\[1\] .* must be finite"),
        ("num_events", "many", "num_events .* must be a number"),
    ],
)
def test_a_stored_calibration_is_made_of_numbers(
    name: str, values: Any, message: str
) -> None:
    good = {"values": [1, 2.0], "shifts": [0.0, 0.1], "factors": [1.0, 1.1]}
    assert WidthCalibration.from_dict(good).values == (1.0, 2.0)
    with pytest.raises(ValueError, match=message):
        WidthCalibration.from_dict({**good, name: values})
