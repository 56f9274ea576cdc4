"""The picture of a run, and its file of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphnet_icecube2nd.training.history import read_history, write_history

ROWS: list[dict[str, Any]] = [
    {
        "stage": stage,
        "sub_epoch": part,
        "step": 10 * part,
        "events": 1000 * (part + 1),
        "pulses": 1,
        "seconds": 1.5,
        "learning_rate": 1e-3,
        "train_loss": 2.0 - 0.1 * (stage + part),
        "gradient_norm": 1.0,
        "validation_loss": 2.0 - 0.1 * (stage + part),
        "direction/opening_angle": 1.2 - 0.1 * (stage + part),
        "best": 1,
        **(
            {"raw_direction/opening_angle": 1.3, "raw_validation_loss": 1.0}
            if stage
            else {}
        ),
    }
    for stage in (0, 1)
    for part in (0, 1)
]


POINTS: list[dict[str, Any]] = [
    {
        "stage": stage,
        "step": 5 * (part + 1),
        "events": 500 * (part + 1),
        "seconds": 1.5,
        "learning_rate": 1e-3 / (part + 1),
        "train_loss": 3.0 - 0.1 * (2 * stage + part),
        "gradient_norm": 1.0,
    }
    for stage in (0, 1)
    for part in range(4)
]


def test_rows_come_back(tmp_path: Path) -> None:
    write_history(tmp_path / "metrics.csv", ROWS)
    rows = read_history(tmp_path / "metrics.csv")
    for row, known in zip(rows, ROWS, strict=True):
        assert {k: v for k, v in row.items() if v is not None} == known


def test_curves_show_all_stages() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    figure = draw_curves(ROWS)
    angle, loss, rate = figure.axes
    assert "deg" in angle.get_ylabel()
    assert rate.get_xlabel().startswith("training events")
    lines = {line.get_label(): line for line in angle.get_lines()}
    averaged = lines["average of the weights, if kept"]
    assert list(averaged.get_xdata()) == [1.0, 2.0, 3.0, 4.0]  # over both stages
    assert averaged.get_ydata()[-1] == pytest.approx(57.2958, rel=1e-4)
    assert "raw weights" in lines
    assert len(loss.get_lines()) >= 4  # a stage's loss is not joined to the next one's
    with pytest.raises(ValueError, match="curves"):
        draw_curves([])


def test_curves_show_what_came_between_two_rows() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    # In the second sub-epoch of the second stage, and in the first of all.
    for rows, points in ((ROWS[:3], POINTS[:7]), ([], POINTS[:1])):
        figure = draw_curves(rows, points=points)
        seen = [p["events"] / 1000 + 2 * p["stage"] for p in points]
        for axes, name in zip(
            figure.axes[1:], ("train_loss", "learning_rate"), strict=True
        ):
            lines = [line for line in axes.get_lines() if line.get_marker() == "."]
            assert [x for line in lines for x in line.get_xdata()] == seen
            shown = [y for line in lines for y in line.get_ydata()]
            assert shown == [point[name] for point in points]


def test_a_stage_without_points_is_drawn_from_its_rows() -> None:
    """Of a run that an earlier release began."""
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    figure = draw_curves(ROWS, points=POINTS[4:])
    label = "training, mean of steps"
    (first,) = [n for n in figure.axes[1].get_lines() if n.get_label() == label]
    assert list(first.get_xdata()) == [1.0, 2.0]


def test_without_an_average_there_is_one_line() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.history import draw_curves

    labels = [line.get_label() for line in draw_curves(ROWS[:2]).axes[0].get_lines()]
    assert "weights" in labels
    assert "raw weights" not in labels
