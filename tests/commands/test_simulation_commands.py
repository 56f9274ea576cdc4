"""simulate and show, as a user types them; the example; defaults that agree."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

from graphnet_icecube2nd import (
    EventStore,
    build_detector,
)
from graphnet_icecube2nd.commands.simulation import parse_fractions, simulate
from graphnet_icecube2nd.simulation import (
    SimulationConfig,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]


def test_simulate_and_show(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--seed", 3, "--workers", 1, "--fractions", "cascade=1,muon_bundle=3")
    options += ("--systematics", "--dom-efficiency", 1.5)
    done = run("simulate", "store", "--events", 30, *options)
    assert done.returncode == 0, done.stderr
    assert "store: 30 events" in done.stdout
    assert "simplified simulation" in " ".join(done.stdout.split())
    opened = EventStore(tmp_path / "store")
    names = set(opened.event_column("topology", 0))
    assert names == {"cascade", "muon_bundle"}
    efficiency = opened.event_column("dom_efficiency", 0)
    assert 1.35 <= efficiency.min() < efficiency.max() <= 1.65
    assert len(set(opened.event_column("hole_ice", 0))) == 30
    weight = opened.event_column("weight_atmospheric", 0)
    effective = weight.sum() ** 2 / (weight**2).sum()
    assert f"weight_atmospheric: {effective:,.1f} effective events" in done.stdout
    assert f"rate {weight.mean():.4g} Hz" in done.stdout
    done = run("show", "store", 7, "--line-fit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "event_7.png"
    assert (tmp_path / "event_7.png").read_bytes()[:4] == b"\x89PNG"
    done = run("show", "store", 7, "--out", "a.pdf", "--auxiliary")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.pdf").read_bytes()[:4] == b"%PDF"


def test_show_as_a_page(run: Run, tmp_path: Path) -> None:
    """Which needs no matplotlib; result files bring their own radius."""
    run("simulate", "store", "--events", 8, "--workers", 1)
    row = "7,0.1,0.2,50,0.4"
    (tmp_path / "mine.csv").write_text(
        f"event_id,azimuth,zenith,kappa,radius_50\n{row}"
    )
    done = run(
        *("show", "store", 7, "--line-fit", "--auxiliary"),
        *("--directions", "mine.csv", "--out", "pages/a.html"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pages/a.html"
    text = (tmp_path / "pages" / "a.html").read_text("utf-8")
    found = re.search(r'id="payload">(.*?)</script>', text)
    assert found is not None
    payload = json.loads(found[1])
    assert payload["title"] == "event 7"
    assert not payload["only_hlc"]
    mine = payload["arrows"][-1]
    assert (mine["name"], mine["kappa"]) == ("mine", 50)
    assert mine["radius_50"] == pytest.approx(math.degrees(0.4))


def test_options_change_what_is_simulated(run: Run, tmp_path: Path) -> None:
    options = {
        "--energy-min": 1e4,
        "--energy-max": 1e5,
        "--spectral-index": 1.0,
        "--noise-rate": 0,
        "--time-jitter": 5,
    }
    words = [word for option in options.items() for word in option]
    done = run("simulate", "store", "--events", 20, "--workers", 1, *words)
    assert done.returncode == 0, done.stderr
    store = EventStore(tmp_path / "store")
    energy = store.event_column("energy", 0)
    is_other = (store.event_column("topology", 0) == "double_cascade") | (
        store.event_column("topology", 0) == "muon_bundle"
    )
    assert energy[~is_other].min() >= 1e4
    assert energy[~is_other].max() <= 1e5
    note = next(n for n in store.manifest.notes if n.startswith("simulated with"))
    assert '"noise_rate": 0.0' in note
    assert '"time_jitter": 5.0' in note
    assert '"spectral_index": 1.0' in note


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fractions", "track=1"), "unknown topology track; choose from"),
        (
            ("--fractions", "cascade"),
            "--fractions must be",
        ),
        (("--energy-min", "1e7"), "the lower first; got 1e+07 and 1e+06"),
        (("--format", "root"), "unknown format 'root'; choose from store, graphnet,"),
        (("--geometry", "none.csv"), "none.csv"),
    ],
)
def test_wrong_options_are_one_line(
    words: tuple[str, str], message: str, run: Run, tmp_path: Path
) -> None:
    done = run("simulate", "store", "--events", 3, *words)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_show_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    run("simulate", "store", "--events", 3, "--workers", 1)
    done = run("show", "store", 99)
    assert done.returncode != 0
    assert "has no event with event_id 99" in done.stderr
    (tmp_path / "t.csv").write_text("event_id,azimuth,zenith\n1,0.1,0.2\n")
    done = run("show", "store", 0, "--directions", "t.csv")
    assert done.returncode != 0
    assert "t.csv" in done.stderr
    assert "event 0" in done.stderr


@pytest.mark.parametrize("name", [None, "orca6"])
def test_the_command_says_the_defaults_of_the_configuration(name: str | None) -> None:
    """They depend on the detector, so the options have none of their own."""
    config = SimulationConfig.of(None if name is None else build_detector(name))
    values = dict(
        zip(("energy_min", "energy_max"), config.energy_range, strict=True),
        **{n: getattr(config, n) for n in ("spectral_index", "noise_rate")},
        time_jitter=config.time_jitter,
    )
    for option, value in values.items():
        parameter = inspect.signature(simulate).parameters[option]
        assert parameter.default is None
        says = str(parameter.annotation).split("Default:")[1]
        assert f"{value:g}".replace("e+0", "e") in says


def test_fractions_as_text() -> None:
    assert parse_fractions("a=1, b=0.5") == {"a": 1.0, "b": 0.5}
    for text in ("", "a=x", "a=1,a=2", "a"):
        with pytest.raises(ValueError, match="--fractions must be"):
            parse_fractions(text)


@pytest.mark.slow
def test_the_example(tmp_path: Path) -> None:
    """`make demo`, with fewer events."""
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    script = ROOT / "examples" / "02_simulated_events.py"
    words = ["--events", "60", "--limit-events", "6", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path / "demo"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "simulated 60 events" in done.stdout
    assert "| limit |" in done.stdout
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"store", "line_fit.parquet", "limit.parquet", "resolution.md"} <= written
    assert len(list((tmp_path / "demo").glob("event_*.png"))) >= 1
