"""The command evaluate on tables that were made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")
pytest.importorskip("matplotlib")

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

pytestmark = pytest.mark.usefixtures("blank_pictures")
NUM = 300
BINS = ("energy_by_bin", "track_by_bin", "overview")


def write(path: Path, **columns: Any) -> None:
    table = pa.table({"event_id": np.arange(NUM), **columns})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`t.csv` with truth, `a.parquet` with energies and tracks, and directions."""
    rng = np.random.default_rng(0)
    energy = 10 ** rng.uniform(2, 5, NUM)
    zenith = np.linspace(0.1, 3.0, NUM)
    true_zenith = zenith.copy()
    true_zenith[:12] = -1.0
    write(
        tmp_path / "t.csv",
        energy=energy,
        azimuth=np.zeros(NUM),
        zenith=true_zenith,
        topology=np.where(rng.random(NUM) < 0.5, "cascade", "starting_track"),
    )
    answers = {"energy": 2 * energy, "p_track": rng.random(NUM)}
    write(tmp_path / "a.parquet", **answers)
    write(
        tmp_path / "d.parquet",
        azimuth=np.full(NUM, np.pi),
        zenith=np.pi - zenith,
        **answers,
    )
    return tmp_path


def test_a_line_of_each_task(
    folder: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    done = run("evaluate", "mine=a.parquet", "--truth", "t.csv", "--out", "r")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (energy,) = [line for line in lines if line.startswith("energy: ")]
    assert "300 events; mine: " in energy
    assert "0.301" in energy
    assert len([line for line in lines if line.startswith("track: ")]) == 1
    assert lines[-1] == "r/report.html"
    assert "median, deg" not in done.stdout
    plain = json.loads((folder / "r" / "tables" / "evaluation.json").read_text())
    assert set(plain) == {"context", "energy", "track", *BINS}


def test_what_is_not_judged_is_printed_once(
    folder: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    words = ("evaluate", "d.parquet", "--truth", "t.csv", "--out", "r")
    done = run(*words, "--resamples", 20)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count("12 of 300 events") == 1
    assert said.count("--result-angles flight") == 1
    page = (folder / "r" / "report.html").read_text()
    assert "12 of 300 events" in page
    done = run(*words, "--resamples", 20, "--result-angles", "flight")
    assert "--result-angles flight)" not in done.stdout + done.stderr


def test_degrees_are_refused(
    folder: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    write(folder / "deg.csv", azimuth=np.full(NUM, 359.0), zenith=np.full(NUM, 90.0))
    for words in (("d.parquet", "--truth", "deg.csv"), ("deg.csv", "--truth", "t.csv")):
        done = run("evaluate", *words)
        assert done.returncode
        assert "azimuth" in done.stderr
        assert "359" in done.stderr
        assert not (folder / "report").exists()


def test_weights(folder: Path, run: Callable[..., CompletedProcess[str]]) -> None:
    """A column of the results, or of a store or table of truth."""
    truth = pyarrow.csv.read_csv(folder / "t.csv")
    weight = pa.array(np.linspace(0, 2, NUM))
    pyarrow.csv.write_csv(truth.append_column("flux", weight), folder / "w.csv")
    found = pyarrow.parquet.read_table(folder / "a.parquet")
    pyarrow.parquet.write_table(
        found.append_column("flux", weight), folder / "w.parquet"
    )
    texts = set()
    for results, known in (("w.parquet", "t.csv"), ("a.parquet", "w.csv")):
        out = Path(results).stem + "_report"
        words = ("evaluate", f"mine={results}", "--truth", known, "--out", out)
        done = run(*words, "--weight", "flux")
        assert done.returncode == 0, done.stderr
        assert "effective events 225" in done.stdout
        plain = json.loads((folder / out / "tables" / "evaluation.json").read_text())
        assert plain["context"]["weights"] == "column flux"
        texts.add(done.stdout.splitlines()[0])
    assert len(texts) == 1
    done = run("evaluate", "a.parquet", "--truth", "t.csv", "--weight", "flux")
    assert done.returncode
    assert "'flux' must be in the truth or in a table" in done.stderr
    assert not (folder / "report").exists()


def test_compare_data(folder: Path, run: Callable[..., CompletedProcess[str]]) -> None:
    pytest.importorskip("sklearn")
    words = ("compare-data", "data=a.parquet", "d.parquet", "--out", "c")
    done = run(*words, "--livetime", 10, 20)
    assert done.returncode == 0, done.stderr
    assert "classifier: AUC" in done.stdout
    assert done.stdout.splitlines()[-1] == "c/report.html"
    plain = json.loads((folder / "c" / "tables" / "comparison.json").read_text())
    assert {row["quantity"] for row in plain["quantities"]} == {"energy", "p_track"}
    assert [row["rate"] for row in plain["rates"]] == [NUM / 10, NUM / 20]
    assert (folder / "c" / "figures" / "distributions.pdf").exists()
    for words, text in (
        (("--weight", "w"), "--weight must be a column of"),
        (("--run", "r"), "--run must be a column of"),
        (("--livetime", "0", "1"), "--livetime must be above 0"),
    ):
        done = run("compare-data", "data=a.parquet", "d.parquet", *words)
        assert done.returncode
        assert text in done.stderr
        assert not (folder / "comparison").exists()
