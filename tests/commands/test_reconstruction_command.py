"""reconstruct, as a user types it."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

import pyarrow.csv
import pyarrow.parquet
import torch

from graphnet_icecube2nd import EventStore, build_model, save_model
from graphnet_icecube2nd.commands import reconstruction
from graphnet_icecube2nd.reconstruction.network import NetworkOptions

Run = Callable[..., subprocess.CompletedProcess[str]]
SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(build_model("t_sim", **SIZES), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_a_store(
    run: Run, simulated: EventStore, weights: Path, tmp_path: Path
) -> None:
    done = run("reconstruct", simulated.path, "--model", weights, "--out", "r.parquet")
    assert done.returncode == 0, done.stderr
    assert "r.parquet: 256 events (ok 256) in" in done.stdout
    found = pyarrow.parquet.read_table(tmp_path / "r.parquet")
    ids = simulated.whole_event_column("event_id").tolist()
    assert found["event_id"].to_pylist() == ids
    assert {p.name for p in tmp_path.iterdir()} == {"r.parquet", "mine.safetensors"}


@pytest.mark.data
def test_the_competitions_files(
    run: Run, shared_dir: Path, weights: Path, tmp_path: Path
) -> None:
    """A submission of its own sample, in its format."""
    sample = shared_dir / "data" / "kaggle_sample"
    words = ("--model", weights, "--out", "submission.csv", "--max-pulses", 64)
    done = run("reconstruct", sample, *words)
    assert done.returncode == 0, done.stderr
    found = pyarrow.csv.read_csv(tmp_path / "submission.csv")
    assert found.column_names == ["event_id", "azimuth", "zenith"]
    assert found.num_rows > 0
    azimuth = found["azimuth"].to_numpy()
    assert ((azimuth >= 0) & (azimuth < 2 * torch.pi)).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "t_sim", "--out", "r.csv"], "t_sim is a model without weights"),
        (["--model", "nothing", "--out", "r.csv"], "no model 'nothing': no run, no"),
        (["--model", "nothing", "--out", "r.txt"], "results end in"),
        (["--model", "nothing", "--out", "r.csv", "--precision", "half"], "precision"),
    ],
)
def test_wrong_words_say_what(
    run: Run, simulated: EventStore, tmp_path: Path, words: list[str], message: str
) -> None:
    done = run("reconstruct", simulated.path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_every_option_reaches_the_function(
    monkeypatch: pytest.MonkeyPatch, simulated: EventStore, weights: Path
) -> None:
    from graphnet_icecube2nd.reconstruction import reconstruct as room

    given: dict[str, Any] = {}

    def instead(store: Any, model: Any, out: Any, **options: Any) -> Any:
        given.update(options, out=out)
        names = {"statuses": {}, "path": out, "num_events": 0, "seconds": 0.0}
        return type("Report", (), {**names, "num_resumed": 0})

    monkeypatch.setattr(room, "reconstruct", instead)
    seen = {
        "max_pulses": 7,
        "selection": "first",
        "seed": 3,
        "batch_size": 5,
        "precision": "bfloat16",
        "published_features": True,
    }
    assert set(seen) == {field.name for field in fields(NetworkOptions)}
    reconstruction.reconstruct(
        simulated.path, model=str(weights), out=Path("r.x"), format="csv",
        device="meta", **seen,
    )  # fmt: skip
    assert given["options"] == NetworkOptions(**seen)
    assert (given["format"], given["device"]) == ("csv", "meta")


def test_defaults_are_those_of_the_function() -> None:
    command = inspect.signature(reconstruction.reconstruct).parameters
    for field in fields(NetworkOptions):
        assert command[field.name].default == field.default, field.name
