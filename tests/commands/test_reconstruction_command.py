"""reconstruct, as a user types it."""

from __future__ import annotations

import inspect
import json
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
from graphnet_icecube2nd.commands import ensemble, reconstruction
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
        (["--model", "t_sim", "--out", "r.csv", "--precision", "half"], "precision"),
        (["--out", "r.csv"], "give --model or --ensemble, one of them"),
        (["--model", "t_sim"], "--out must be given"),
        (["x", "--model", "t_sim", "--out", "r.csv"], "give one INPUT, got"),
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
        [str(simulated.path)], model=str(weights), out=Path("r.x"), format="csv",
        device="meta", **seen,
    )  # fmt: skip
    assert given["options"] == NetworkOptions(**seen)
    assert (given["format"], given["device"]) == ("csv", "meta")


def test_what_is_not_given_is_the_models_own() -> None:
    command = inspect.signature(reconstruction.reconstruct).parameters
    for field in fields(NetworkOptions):
        assert command[field.name].default is None, field.name


@pytest.fixture
def published(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The five checkpoints, small: published names and keys, weights of the golden
    rule."""
    from graphnet_icecube2nd.models import registry
    from graphnet_icecube2nd.reconstruction import competition

    small = {
        "b_d32": ("deepice_small", {"n_rel": 1}),
        "b_d64": ("deepice_small", {"n_rel": 1}),
        "b_d32_4rel": ("deepice_small_4rel", {}),
        "s_gnn": ("v22_small", {}),
        "b_gnn": ("v23_small", {}),
    }
    folder = tmp_path / "ice-cube-final-models"
    folder.mkdir()
    references = {name: golden(reference) for name, (reference, _) in small.items()}
    for name, file in competition.CHECKPOINTS.items():
        torch.save(references[name].state_dict, folder / file)
    monkeypatch.setattr(
        competition, "build_model", lambda name: references[name].empty_model()
    )
    assert registry.list_models("b_gnn")
    return folder


def test_the_published_ensemble_end_to_end(
    published: Path,
    make_kaggle_folder: Callable[..., Path],
    golden: Any,
    tmp_path: Path,
) -> None:
    """import-weights, then `predict.py config.json L 512 BS 32` on test files."""
    from graphnet_icecube2nd.reconstruction.ensemble import PUBLISHED_WEIGHTS

    out = tmp_path / "ensemble"
    ensemble.import_weights(published, out)
    data = make_kaggle_folder(
        tmp_path / "data", {661: [3, 70, 600, 40, 1]}, which="test"
    )
    config = {"PATH": str(data), "L": 192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = tmp_path / "submission.csv"
    reconstruction.reconstruct(
        ["L", "512", "BS", "2"], ensemble=out, out=made, which="test",
        config=tmp_path / "config.json", device="cpu",
    )  # fmt: skip
    found = pyarrow.csv.read_csv(made).to_pydict()

    # The same by hand: published features, cut to 512, weights, clipping, angles.
    from graphnet_icecube2nd import prepare
    from graphnet_icecube2nd.loading.reading import EventReader

    prepare(data, tmp_path / "store", which="test")
    store = EventStore(tmp_path / "store")
    reader = EventReader(store, max_pulses=512, truth=(), published_features=True)
    names = {
        "b_d32": "deepice_small", "b_d64": "deepice_small",
        "b_d32_4rel": "deepice_small_4rel", "s_gnn": "v22_small", "b_gnn": "v23_small",
    }  # fmt: skip
    share = torch.tensor([PUBLISHED_WEIGHTS[name] for name in names])
    share = share / share.sum()
    total = torch.zeros(5, 3)
    import numpy as np

    with torch.no_grad():
        for weight, reference in zip(share, names.values(), strict=True):
            model = golden(reference).model()
            vectors = [model(reader.batch(np.array([n])))[0] for n in range(5)]
            total += weight * torch.stack(vectors).nan_to_num().clip(-1000, 1000)
    azimuth = torch.atan2(total[:, 1], total[:, 0]) % (2 * torch.pi)
    zenith = torch.acos(total[:, 2] / total.norm(dim=1))
    ids = store.whole_event_column("event_id").tolist()
    assert found["event_id"] == ids
    off = (torch.tensor(found["azimuth"]) - azimuth + torch.pi) % (2 * torch.pi)
    assert (off - torch.pi).abs().max() < 1e-3
    assert torch.tensor(found["zenith"]).sub(zenith).abs().max() < 1e-3


def test_import_names_what_is_missing_and_writes_nothing(
    published: Path, tmp_path: Path
) -> None:
    (published / "V22FT6_1.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks V22FT6_1\.pth; see https"):
        ensemble.import_weights(published, tmp_path / "out")
    torch.save({"a": torch.ones(1)}, published / "V22FT6_1.pth")
    with pytest.raises(ValueError, match="does not fit the model"):
        ensemble.import_weights(published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_file_in_an_ensemble_is_refused(
    published: Path, simulated: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "ensemble"
    ensemble.import_weights(published, out)
    (out / "s_gnn.safetensors").write_bytes((out / "b_gnn.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"is not the file of s_gnn: its SHA-256 is"):
        reconstruction.reconstruct(
            [str(simulated.path)], ensemble=out, out=tmp_path / "r.csv"
        )
    (out / "ensemble.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match=r"ensemble\.yaml is no ensemble: 'members'"):
        reconstruction.reconstruct(
            [str(simulated.path)], ensemble=out, out=tmp_path / "r.csv"
        )
