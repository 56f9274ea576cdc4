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
        "validation_angle": 1.2 - 0.1 * (stage + part),
        "validation_angle_deg": 60.0,
        "best": 1,
        **({"raw_validation_angle": 1.3, "raw_validation_loss": 1.0} if stage else {}),
    }
    for stage in (0, 1)
    for part in (0, 1)
]


def test_rows_come_back(tmp_path: Path) -> None:
    write_history(tmp_path / "metrics.csv", ROWS)
    rows = read_history(tmp_path / "metrics.csv")
    for row, known in zip(rows, ROWS, strict=True):
        assert {k: v for k, v in row.items() if v is not None} == known


def test_curves_show_all_stages() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.curves import draw_curves

    figure = draw_curves(ROWS, title="mine")
    angle, loss, rate = figure.axes
    assert angle.get_title() == "mine"
    assert "deg" in angle.get_ylabel()
    assert rate.get_xlabel().startswith("events seen, in thousands")
    lines = {line.get_label(): line for line in angle.get_lines()}
    averaged = lines["average of the weights, where kept"]
    assert list(averaged.get_xdata()) == [1.0, 2.0, 3.0, 4.0]  # over both stages
    assert averaged.get_ydata()[-1] == pytest.approx(57.2958, rel=1e-4)
    assert "raw weights" in lines
    assert len(loss.get_lines()) >= 4  # a stage's loss is not joined to the next one's
    with pytest.raises(ValueError, match="no curves"):
        draw_curves([])


def test_without_an_average_there_is_one_line() -> None:
    pytest.importorskip("matplotlib")
    from graphnet_icecube2nd.training.curves import draw_curves

    labels = [line.get_label() for line in draw_curves(ROWS[:2]).axes[0].get_lines()]
    assert "weights" in labels
    assert "raw weights" not in labels
