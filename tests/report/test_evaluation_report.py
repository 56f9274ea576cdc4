"""The report: one page that needs nothing else, pictures and tables beside it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.evaluation.metrics import Evaluation, evaluate
from graphnet_icecube2nd.report.evaluation.report import (
    evaluation_figures,
    sections_of,
    write_evaluation,
)
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import kappa_to_radius

HOSTILE = '<script>alert("x")</script> & "co"'


def made(num: int = 600, second: str = "line fit", **columns: Any) -> Evaluation:
    rng = np.random.default_rng(0)
    truth = EventTruth.from_columns(
        {
            "event_id": np.arange(num),
            "azimuth": rng.uniform(0, 6, num),
            "zenith": np.arccos(rng.uniform(-1, 1, num)),
            **columns,
        },
        "t",
    )
    kappa = 10 ** rng.uniform(1, 4, num)
    tables = []
    for name, wider in (("mine", 1.0), (second, 4.0)):
        angle = wider * kappa_to_radius(kappa, rng.uniform(0.01, 0.99, num)).numpy()
        angle = np.minimum(angle, 3.0)
        other = rng.normal(size=(num, 3))
        other -= (other * truth.direction_B3).sum(1, keepdims=True) * truth.direction_B3
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        tables.append(
            EventTable.of_directions(
                name=name,
                event_id=np.arange(num),
                direction_B3=cos * truth.direction_B3 + sin * other,
                kappa_B=kappa if wider == 1 else np.full(num, np.nan),
                status_B=np.full(num, "ok"),
            )
        )
    return evaluate(tables, truth, resamples=100)


def everything(num: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "energy": 10 ** rng.uniform(2, 5, num),
        "n_pulses": rng.integers(5, 500, num),
        "topology": rng.choice(["cascade", "track"], num),
    }


def test_all_of_it(tmp_path: Path) -> None:
    evaluation = made(600, HOSTILE, **everything(600))
    page = write_evaluation(
        evaluation, tmp_path / "r", title="My <report>", context={"model": HOSTILE}
    )
    text = page.read_text(encoding="utf-8")
    names = ["distribution", "by_topology", "by_energy", "by_cos_zenith", "by_pulses",
             "by_energy_and_topology", "coverage", "expected", "pulls",
             "coverage_inside_50", "coverage_inside_90"]  # fmt: skip
    assert text.count("data:image/svg+xml;base64,") == len(names)
    files = {path.name for path in (tmp_path / "r" / "figures").iterdir()}
    assert files == {f"{n}.{s}" for n in names for s in ("pdf", "png")}
    # Nothing of it comes from elsewhere, nothing of it runs.
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(link.startswith(("#", "data:image/svg")) for link in links)
    assert "<script" not in text
    assert "My &lt;report&gt;" in text
    assert "alert(&quot;x&quot;)" in text
    assert "600" in text
    # The tables beside it say the same.
    (mine, other) = csv.DictReader(
        (tmp_path / "r" / "tables" / "summary.csv").read_text().splitlines()
    )
    assert float(mine["mean_rad"]) == pytest.approx(evaluation.summaries[0].mean.value)
    assert float(mine["median_deg"]) == pytest.approx(
        np.degrees(evaluation.summaries[0].median.value)
    )
    assert f"{float(mine['mean_rad']):.4f}" in text
    assert other["table"] == HOSTILE
    assert other["median_pull"] == ""
    plain = json.loads((tmp_path / "r" / "tables" / "evaluation.json").read_text())
    assert plain["summary"][1]["median_pull"] is None
    assert plain["context"]["model"] == HOSTILE
    tables = {section.table for section in sections_of(evaluation) if section.rows}
    assert set(plain) - {"context"} == tables
    # Again over the same folder.
    write_evaluation(evaluation, tmp_path / "r")
    assert not list((tmp_path / "r").rglob("*.tmp"))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["perfect", "opposite"])
def test_directions_without_a_spread_are_drawn(sign: float) -> None:
    """Matplotlib has nothing to warn of, which would be an error here."""
    evaluation = made(600, **everything(600))
    truth = evaluation.truth
    table = EventTable.from_vectors("t", truth.event_id, sign * truth.direction_B3)
    kappa = {"kappa": np.geomspace(10, 1000, 600)}
    tables = [table, table.with_columns(kappa)]
    for one in tables:
        found = evaluate([one], truth, resamples=100)
        for figure in evaluation_figures(sections_of(found)).values():
            figure.draw_without_rendering()


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    evaluation = made(200)
    assert set(evaluation_figures(sections_of(evaluation))) == {
        *("distribution", "by_cos_zenith", "coverage", "expected", "pulls"),
        *("coverage_inside_50", "coverage_inside_90"),
    }
    text = write_evaluation(evaluation, tmp_path).read_text()
    assert "by energy" not in text
    assert "by topology" not in text


def test_axes_say_what_they_show() -> None:
    figures = evaluation_figures(sections_of(made(600, **everything(600))))
    for name, figure in figures.items():
        for axes in figure.axes:
            assert axes.get_xlabel(), name
        assert figure.axes[0].get_ylabel() or name == "by_topology"
    energy = figures["by_energy"].axes
    assert "[GeV]" in energy[0].get_xlabel()
    assert "[rad]" in energy[0].get_ylabel()
    assert "[deg]" in energy[1].get_ylabel()
    apart = figures["by_energy_and_topology"].axes
    assert [axes.get_title() for axes in apart] == ["cascade", "track"]
    assert "[GeV]" in apart[1].get_xlabel()
    assert "[rad]" in apart[0].get_ylabel()
    legend = figures["distribution"].axes[0].get_legend().get_texts()
    assert [t.get_text().partition(":")[0] for t in legend] == [
        *("mine", "line fit", "guessing")
    ]
