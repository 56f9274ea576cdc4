"""Sections of tasks in the report: figures, numbers, a task that is registered here."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.evaluation.metrics import Evaluation, evaluate
from graphnet_icecube2nd.report.evaluation.report import (
    _overview,
    heading_of,
    write_evaluation,
)
from graphnet_icecube2nd.report.evaluation.section_figures import draw_section_figure
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section
from graphnet_icecube2nd.tasks.task import TASKS, Column, Task, register_task

NUM = 600
HOSTILE = '=1+1 <script>alert("x")</script>'


@pytest.fixture
def toy() -> Iterator[None]:
    """A task whose name, `summary`, is that of a table of directions."""

    @register_task
    class Depth(Task):
        name = "summary"
        truth = ("depth_of_event",)
        num_outputs = 1
        columns = (Column("toy_depth", "m", "depth of the event"),)

        def target(self, truth: Mapping[str, Tensor]) -> Tensor:
            return truth["depth_of_event"]

    yield
    del TASKS._entries["summary"]


def fake(names: tuple[str, ...] = ("mine", HOSTILE), **more: Any) -> Evaluation:
    """Tables with energies and track scores of random events."""
    rng = np.random.default_rng(0)
    true = 10 ** rng.uniform(2, 5, NUM)
    is_track = rng.random(NUM) < 0.5
    truth = {
        "event_id": np.arange(NUM),
        "energy": true,
        "topology": np.where(is_track, "through_going_track", "cascade"),
        **more.pop("truth", {}),
    }
    tables = []
    for name in names:
        sigma = np.full(NUM, 0.2)
        value = np.log10(true) + sigma * rng.normal(size=NUM)
        logit = 2 * (2 * is_track - 1 + rng.normal(size=NUM))
        columns = {
            "event_id": np.arange(NUM),
            "energy": 10**value,
            "energy_log10_sigma": sigma,
            "p_track": 1 / (1 + np.exp(-logit)),
            **more,
        }
        tables.append(EventTable.from_columns(columns, name))
    return evaluate(tables, EventTruth.from_columns(truth, "t"), resamples=20)


def test_energy_and_track_without_directions(tmp_path: Path) -> None:
    evaluation = fake()
    page = write_evaluation(evaluation, tmp_path)
    text = page.read_text(encoding="utf-8")
    names = ["energy_bias", "energy_widths", "track_roc", "track_reliability"]
    names += ["energy_by_bin", "energy_coverage_by_bin", "track_by_bin"]
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {f"{name}.{s}" for name in names for s in ("pdf", "png")}
    assert text.count("data:image/svg+xml;base64,") == len(names)
    assert "<script" not in text
    assert "opening angle" not in text
    assert "log10" in text
    for evaluated in evaluation.tasks:
        for caption in evaluated.section.captions.values():
            assert caption.split(".")[0].replace("'", "&#x27;") in text
    plain = json.loads((tmp_path / "tables" / "evaluation.json").read_text())
    bins = {"energy_by_bin", "track_by_bin", "overview"}
    first, second = plain["overview"]
    assert (first["table"], second["table"]) == ("mine", HOSTILE)
    assert first["energy_bias_log10"] == plain["energy"][0]["bias_log10"]
    assert second["track_auc"] == plain["track"][1]["auc"]
    assert set(plain) == {"context", "energy", "track", *bins}
    for evaluated in evaluation.tasks:
        rows = plain[evaluated.task]
        assert [row["table"] for row in rows] == ["mine", HOSTILE]
        for row, expected in zip(rows, evaluated.section.rows, strict=True):
            assert row == pytest.approx(dict(expected))
        file = tmp_path / "tables" / f"{evaluated.task}.csv"
        read = list(csv.DictReader(file.read_text().splitlines()))
        assert read[1]["table"] == f"'{HOSTILE}"  # no formula for a spreadsheet
        assert float(read[0]["events"]) == NUM
    assert plain["energy"][0]["resolution_log10"] == pytest.approx(0.2, rel=0.2)
    assert plain["energy"][0]["inside_68"] == pytest.approx(0.68, abs=0.07)
    assert plain["track"][0]["auc"] > 0.8
    assert f"{plain['track'][0]['accuracy']:.1%}" in text
    assert "energy: 600, track: 600" in plain["context"]["events"]


def test_a_task_that_is_registered_here(toy: None, tmp_path: Path) -> None:
    depth = np.linspace(-500, 500, NUM)
    depth_of_event = np.where(np.arange(NUM) < 5, np.nan, depth)
    evaluation = fake(
        ("mine",), toy_depth=depth + 3.0, truth={"depth_of_event": depth_of_event}
    )
    text = write_evaluation(evaluation, tmp_path).read_text()
    plain = json.loads((tmp_path / "tables" / "evaluation.json").read_text())
    (row,) = plain["summary_task"]
    assert row["events"] == NUM - 5
    assert row["bias_m"] == pytest.approx(3.0)
    assert "bias [m]" in text
    assert (tmp_path / "figures" / "summary_residual.png").exists()
    assert f"5 of {NUM}" in plain["context"]["events"]
    assert "depth_of_event" in text


def test_directions_and_tasks_on_one_page(tmp_path: Path) -> None:
    zeros = np.zeros(NUM)
    up = {"direction_x": zeros, "direction_y": zeros, "direction_z": zeros + 1}
    angles = {"azimuth": zeros, "zenith": np.linspace(0, 1, NUM)}
    text = write_evaluation(fake(("mine",), **up, truth=angles), tmp_path).read_text()
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[:2] == ["Overview", "Direction"]
    more = " in bins"
    assert headings[-4:] == [
        *("Energy", "Energy" + more),
        *("Track or cascade", "Track or cascade" + more),
    ]
    assert len(set(headings)) == len(headings)
    plain = json.loads((tmp_path / "tables" / "evaluation.json").read_text())
    assert {"summary", "energy", "track"} <= set(plain)


def test_headings_have_units() -> None:
    assert heading_of("bias_percent") == "bias [%]"
    assert heading_of("resolution_68_m") == "resolution 68 [m]"
    assert heading_of("brier_score") == "brier score"
    assert heading_of("q90") == "90%"
    assert heading_of("q90_log10") == "90% [log10]"


def test_panels_show_all_of_their_curves() -> None:
    x = np.array([1.0, 10.0, 100.0])
    points = [
        Curve(x=x, y=0 * x, low=0 * x - 3, high=0 * x + 2, label=f"t{n}",
              style="points", table=n) for n in range(3)
    ]  # fmt: skip
    steps = Curve(x=np.arange(4.0), y=np.array([0.0, 5.0, 1.0]), label="s",
                  style="steps")  # fmt: skip
    line = Curve(x=x, y=x, low=x - 0.5, high=2 * x, label="l", style="line")
    reference = Curve(x=x, y=x, style="reference")
    cells = Panel(x_label="decided", y_label="true", cells=np.array([[0.9, 0.1]]),
                  rows=("a",), columns=("b", "c"))  # fmt: skip
    figure = draw_section_figure(
        [
            Panel(x_label="x", y_label="y", curves=tuple(points), x_log=True),
            Panel(x_label="x", y_label="n", curves=(steps,), y_log=True),
            Panel(x_label="x", y_label="y", curves=(line, reference), title="T"),
            cells,
        ]
    )
    first, second, third, fourth = figure.axes
    low, high = first.get_ylim()
    assert low < -3
    assert high > 2
    assert first.get_xscale() == "log"
    assert second.get_yscale() == "log"
    assert third.get_title() == "T"
    assert [t.get_text() for t in fourth.texts] == ["0.9", "0.1"]
    assert [t.get_text() for t in fourth.get_xticklabels()] == ["b", "c"]
    # A legend stands below its panel, and names what has a name.
    figure.canvas.draw()
    for axes, labels in ((first, ["t0", "t1", "t2"]), (second, ["s"]), (third, ["l"])):
        legend = axes.get_legend()
        assert [t.get_text() for t in legend.get_texts()] == labels
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    wavy = Panel(x_label="", y_label="", curves=(Curve(x=x, y=x, style="wavy"),))
    with pytest.raises(ValueError, match="'wavy'"):
        draw_section_figure([wavy])


def test_limits_names_and_bands() -> None:
    x, y = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    joined = [Curve(x=x, y=y, label=f"t{n}", style="joined", table=n) for n in range(2)]
    band = Curve(x=x, y=y, low=y - 1, high=y + 1, label="band", style="reference")
    names = Panel(x_label="x", y_label="y", curves=(*joined, band),
                  x_range=(-0.5, 1.5), y_range=(0.0, None),
                  columns=("a", "b"))  # fmt: skip
    apart = [
        Curve(x=x + n / 2, y=y, style="points", table=n, label=f"t{n}")
        for n in range(2)
    ]
    figure = draw_section_figure(
        [names, Panel(x_label="x", y_label="y", curves=tuple(apart))]
    )
    first, second = figure.axes
    assert first.get_xlim() == (-0.5, 1.5)
    assert first.get_ylim()[0] == 0
    assert [t.get_text() for t in first.get_xticklabels()] == ["a", "b"]
    assert [line.get_linestyle() for line in first.lines[:1]] == ["-"]
    assert len(first.get_legend().get_texts()) == 3

    def shifts(axes: Any) -> list[float]:
        """How far marks stand beside their places, in pixels."""
        marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
        places = [line.get_transform().transform((0, 0))[0] for line in marks]
        return [place - axes.transData.transform((0, 0))[0] for place in places]

    # Side by side where they would hide each other, else at their places.
    left, right = shifts(first)
    assert left == -right < 0
    assert shifts(second) == [0, 0]


def test_the_page_shows_what_a_section_names() -> None:
    from graphnet_icecube2nd.report.evaluation.report import report_page
    from graphnet_icecube2nd.tasks.section import Section

    rows = [
        {"table": HOSTILE, "a_rad": 0.5, "a_low_rad": 0.25, "a_high_rad": 0.75,
         "inside_50": 0.5, "b": float("nan"), "hidden": 17},
    ]  # fmt: skip
    section = Section(task="t", title="<T>", text="", rows=rows,
                      shown=("table", "a_rad", "inside_50", "b"))  # fmt: skip
    text = report_page("title", [], [section], {})
    assert "<script" not in text
    assert "&lt;T&gt;" in text
    assert "<th></th><th>a [rad]</th><th>inside 50%</th><th>b</th>" in text
    assert "0.5000 <small>0.2500 to 0.7500</small>" in text
    assert "<td>50.0%</td><td>-</td>" in text
    assert "17" not in text.partition("<section")[2]


def test_rows_of_a_section_need_no_table() -> None:
    sections = [
        Section(
            task=name, table=name, title=name, text="", rows=[{**more, "bias": 1.0}]
        )
        for name, more in (("own", {}), ("other", {"table": "mine"}))
    ]
    (overview,) = _overview(sections)
    assert overview.rows == [{"table": "mine", "other_bias": 1.0}]
