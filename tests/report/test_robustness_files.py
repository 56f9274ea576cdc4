"""Files of a robustness report: whole, the same numbers in all, drawn as said."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.evaluation.robustness import RobustnessRow
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.report.robustness import (
    as_markdown,
    context_of,
    draw_robustness,
    save_robustness,
)

BASE = RobustnessRow(
    group="baseline",
    strength="as stored",
    events=1000,
    no_pulses=0,
    not_finite=0,
    mean=0.45,
    difference=0.0,
    low=0.0,
    high=0.0,
    median=11.5,
    pull=1.04,
    inside=0.7,
    published="",
)
WORSE = replace(
    BASE, group="DOMs off", strength="30%", no_pulses=7, mean=0.55, difference=0.1
)
WORSE = replace(WORSE, low=0.08, high=0.12, published="+5%, arXiv:0000.00000")
SAME = replace(BASE, group="DOMs off", strength="1%", low=-0.001, high=0.002)
BLIND = replace(SAME, group="blind", pull=float("nan"), inside=float("nan"))
ROWS = [BASE, SAME, WORSE, BLIND]


def test_files(simulated: EventStore, tmp_path: Path) -> None:
    options = InferenceConfig(max_pulses=96, seed=7)
    context = context_of("t_sim.simulated", simulated, ROWS, options)
    files = save_robustness(tmp_path / "a" / "report", ROWS, context)
    names = [f"robustness{s}" for s in (".csv", ".json", ".md", ".pdf", ".png")]
    assert [path.name for path in files] == names
    assert sorted(p.name for p in (tmp_path / "a" / "report").iterdir()) == names
    with open(files[0], encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table[2]["group"] == "DOMs off"
    assert float(table[2]["difference_rad"]) == 0.1
    assert float(table[2]["median_deg"]) == 11.5
    assert (table[3]["pull"], table[2]["no_pulses"]) == ("", "7")
    assert table[2]["published"] == "'+5%, arXiv:0000.00000"  # no formula
    stored = json.loads(files[1].read_text())
    assert stored["rows"][2]["low"] == 0.08
    assert stored["rows"][3]["pull"] is None
    assert stored["units"]["mean"] == "rad"
    found = stored["context"]
    assert (found["model"], found["seed"], found["events"]) == (
        *("t_sim.simulated", 7),
        1000,
    )
    assert found["events_in_store"] == 256
    assert found["options"]["max_pulses"] == 96
    assert set(found["versions"]) == {"graphnet_icecube2nd", "python", "torch", "numpy"}
    assert "simulated with seed 21" in found["store_notes"][1]
    assert files[3].read_bytes().startswith(b"%PDF")
    assert files[4].read_bytes().startswith(b"\x89PNG")


def test_markdown() -> None:
    text = as_markdown(ROWS, {"model": "m", "store": "s", "seed": 3, "date": "d"})
    lines = text.splitlines()
    assert lines[0] == "# Robustness of m"
    assert "1,000 events of s, seed 3; d; versions unknown." in text
    assert (
        "| DOMs off | 30% | 1,000 | 0.5500 | +0.1000 | +0.0800 to +0.1200 | 11.5 | "
        "1.04 | 70.0% | 7 | +5%, arXiv:0000.00000 |" in lines
    )
    baseline = next(line for line in lines if line.startswith("| baseline"))
    assert "| 0.4500 | - | - | 11.5 |" in baseline
    assert "| 11.5 | - | - | 0 |  |" in lines[-1]
    assert "not finite" not in text
    failed = as_markdown([BASE, replace(SAME, not_finite=4)], {})
    assert "4 results are not finite" in failed


def test_figure() -> None:
    figure = draw_robustness(ROWS, title="m, 1,000 events")
    axes = figure.axes[0]
    assert axes.get_title() == "m, 1,000 events; baseline 0.4500 rad"
    assert "rad" in axes.get_xlabel()
    assert [t.get_text() for t in axes.get_yticklabels()] == ["1%", "30%", "1%"]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["+0.0000", "+0.1000", "+0.0000", "DOMs off", "blind"]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert [0.08, 0.12] in [list(bar.get_xdata()) for bar in bars]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [m.get_markerfacecolor() for m in marks] == ["white", "black", "white"]
    low, high = axes.get_xlim()
    assert low < -0.001
    assert high > 0.12
    # Rows go downwards, and a group's name has a place of its own.
    heights = axes.get_yticks()
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] - heights[1] > heights[1] - heights[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_nothing_is_written_without_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        save_robustness(tmp_path / "report", [], {})
    assert not (tmp_path / "report").exists()
    assert draw_robustness([BASE]).axes[0].get_title() == "baseline 0.4500 rad"
