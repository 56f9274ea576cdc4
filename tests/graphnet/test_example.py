"""The example, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "01_train_deepice_graphnet.py"


def run_example(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    path = os.pathsep.join([environment.pop("first", ""), str(ROOT)])
    result = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout + result.stderr


def test_without_graphnet_it_says_how_to_get_it(tmp_path: Path) -> None:
    blocker = tmp_path / "blocked" / "graphnet"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError('blocked')")
    code, output = run_example(tmp_path, first=str(tmp_path / "blocked"))
    assert code != 0
    assert "github.com/graphnet-team/graphnet" in output
    assert "make demo GRAPHNET=" in output
    assert "blocked" in output
    assert "Traceback" not in output


@pytest.mark.graphnet
@pytest.mark.parametrize("fixture", ["database", "parquet_folder"])
def test_it_trains_and_reports_on_a_database(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(
        "graphnet.models",
        reason="GraphNeT is not installed; README.md says how to have it",
        exc_type=ImportError,
    )
    data = request.getfixturevalue(fixture)
    options = {
        "--data": data,
        "--columns": "icecube86",
        "--pulsemap": "pulses",
        "--truth-table": "truth",
        "--epochs": "1",
        "--out": "result",
    }
    code, output = run_example(
        tmp_path, *[word for option in options.items() for word in option]
    )
    assert code == 0, output
    assert "2 held-out events" in output
    assert "mean opening angle" in output
    written = {path.name for path in (tmp_path / "result").iterdir()}
    assert {"model.yml", "dataset.yml", "weights.pth", "predictions.csv"} <= written
    table = (tmp_path / "result" / "predictions.csv").read_text().splitlines()
    assert len(table) == 3
    assert table[0].startswith("dir_x_pred,dir_y_pred,dir_z_pred,direction_kappa")
