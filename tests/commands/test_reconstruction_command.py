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

from graphnet_icecube2nd import EventStore, list_models
from graphnet_icecube2nd.commands import ensemble, reconstruction, store
from graphnet_icecube2nd.files import only_writer
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.input_store import READING
from graphnet_icecube2nd.store import preparation

GOLDEN = Path(__file__).parents[1] / "golden"
# Scales are those of the model, without a choice.
OPTIONS = {field.name for field in fields(InferenceConfig)} - {"scales"}
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_store(
    run: Run, simulated: EventStore, weights: Path, tmp_path: Path
) -> None:
    done = run("reconstruct", simulated.path, "--model", weights, "--out", "r.parquet")
    assert done.returncode == 0, done.stderr
    assert "r.parquet: 256 events (ok 256) in" in done.stdout
    assert "256/256 events" in done.stderr
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
    (batch,) = (sample / "train").glob("batch_*.parquet")
    wanted = pyarrow.parquet.read_table(batch, columns=["event_id"])["event_id"]
    assert found["event_id"].to_pylist() == wanted.unique().to_pylist()
    zenith = found["zenith"].to_numpy()
    assert ((zenith >= 0) & (zenith <= torch.pi) & (zenith != torch.pi / 2)).all()
    azimuth = found["azimuth"].to_numpy()
    assert ((azimuth >= 0) & (azimuth < 2 * torch.pi)).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "t_sim", "--out", "r.csv"], "t_sim is a model without weights"),
        (["--model", "nothing", "--out", "r.csv"], "no model 'nothing'"),
        (["--model", "nothing", "--out", "r.txt"], "must end in"),
        (["--model", "t_sim", "--out", "r.csv", "--precision", "half"], "precision"),
        (["--out", "r.csv"], "--model or --ensemble"),
        (["--model", "t_sim"], "--out must be given"),
        (["--model", "t_sim", "--out", "r.csv", "--contours", "0,50"], "--contours"),
        (["--model", "t_sim", "--out", "r.csv", "--contours", "half"], "--contours"),
        (["x", "--model", "t_sim", "--out", "r.csv"], "give one INPUT"),
    ],
)
def test_wrong_words_say_what(
    run: Run, simulated: EventStore, tmp_path: Path, words: list[str], message: str
) -> None:
    done = run("reconstruct", simulated.path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_columns_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Each message advises what is missing, up to the command of the docs."""
    names = ("event_id", "x", "y", "z", "t", "q")
    rows = [(7, 0.0, 0.0, -100.0, 9900.0 + i, 1.0) for i in range(9)]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    pyarrow.parquet.write_table(table, tmp_path / "my.parquet")
    words = ["reconstruct", "my.parquet", "--model", "t_sim.simulated"]
    words += ["--out", "r.csv"]
    done = run(*words)
    assert "--column x=..." in done.stderr
    assert "--detector icecube86" in done.stderr
    for word in ("x=x", "y=y", "z=z", "time=t"):
        words += ["--column", word]
    done = run(*words)
    assert done.returncode == 1
    assert "IceCube-86, read them with --detector icecube86" in done.stderr
    words += ["--column", "charge=q", "--column", "hlc=none"]
    done = run(*words, "--detector", "icecube86")
    assert done.returncode == 0, done.stderr
    assert "1 events (ok 1)" in done.stdout
    for name in ("hlc", "rde"):
        assert f"no column {name}" in " ".join((done.stdout + done.stderr).split())
    found = pyarrow.csv.read_csv(tmp_path / "r.csv")
    assert found["calibrated"].to_pylist() == [False]


def test_every_option_reaches_the_function(
    monkeypatch: pytest.MonkeyPatch, simulated: EventStore, weights: Path
) -> None:
    from graphnet_icecube2nd.inference import reconstruction as room

    given: dict[str, Any] = {}

    def instead(data: Any, model: Any, out: Any, **options: Any) -> Any:
        given.update(options, out=out)
        names = {"statuses": {}, "path": out, "num_events": 0, "seconds": 0.0}
        return type("Report", (), {**names, "num_resumed": 0, "notices": ()})

    monkeypatch.setattr(room, "reconstruct", instead)
    seen = {
        "max_pulses": 7,
        "selection": "first",
        "seed": 3,
        "batch_size": 5,
        "precision": "bfloat16",
        "positions": "charge_centre",
        "published_features": True,
    }
    assert set(seen) == OPTIONS
    reconstruction.reconstruct(
        [str(simulated.path)], model=str(weights), out=Path("r.x"), format="csv",
        device="meta", contours="68,10", **seen,
    )  # fmt: skip
    assert given["options"] == InferenceConfig(**seen)
    assert sorted(given["contours"]) == [0.1, 0.68]
    assert (given["format"], given["device"]) == ("csv", "meta")
    assert not set(given) & set(READING), "what is not given is not passed on"
    read: dict[str, Any] = {name: f"some {name}" for name in READING}
    read |= {"batches": [2, 3], "columns": {"hlc": None}}
    read |= {"photons": {"acceptance": 0.5, "seed": 3}}
    words = read | {"batches": "2-3", "column": ["hlc=none"]}
    words |= {"photons": ["acceptance=0.5", "seed=3"]}
    del words["columns"]
    reconstruction.reconstruct(["x"], model=str(weights), out=Path("r.csv"), **words)
    assert {name: given[name] for name in READING} == read
    # They are options of `prepare`, too.
    assert set(words) <= set(inspect.signature(store.prepare).parameters)
    prepares = inspect.signature(preparation.prepare).parameters
    assert {*READING} - {"input_format"} <= set(prepares)


def test_which_and_the_input_as_output(
    simulated: EventStore,
    weights: Path,
    make_kaggle_folder: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="graphnet_icecube2nd")
    data = make_kaggle_folder(tmp_path / "data", {1: [3, 4]})
    make_kaggle_folder(data, {2: [5, 6, 7]}, which="test")

    def rows(out: str, **options: Any) -> int:
        reconstruction.reconstruct(
            [str(data)], model=str(weights), out=tmp_path / out, device="cpu", **options
        )
        return int(pyarrow.csv.read_csv(tmp_path / out).num_rows)

    assert rows("submission.csv") == 3  # of test
    assert rows("a.csv") == 2
    assert "test data" in caplog.text
    assert rows("b.csv", which="test") == 3
    with pytest.raises(ValueError, match=r"is a store.*which"):
        reconstruction.reconstruct(
            [str(simulated.path)], model=str(weights), out=tmp_path / "c.csv",
            which="test",
        )  # fmt: skip
    (batch,) = (data / "test").glob("batch_2.parquet")
    before = batch.read_bytes()
    with pytest.raises(ValueError, match="holds no results"):
        reconstruction.reconstruct([str(data)], model=str(weights), out=batch)
    assert batch.read_bytes() == before


def test_what_is_not_given_is_the_models_own() -> None:
    command = inspect.signature(reconstruction.reconstruct).parameters
    assert all(command[name].default is None for name in OPTIONS)


@pytest.fixture
def published(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The five checkpoints, small: published names and keys, weights of the golden
    rule."""
    from graphnet_icecube2nd.published import competition_ensemble as competition

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
    assert list_models("b_gnn")
    return folder


def test_the_published_ensemble_end_to_end(
    published: Path,
    make_kaggle_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """import-weights, then `predict.py config.json L 512 BS 2`: what that one gives."""
    import numpy as np

    with np.load(GOLDEN / "predict.npz") as arrays:
        known = dict(arrays)
    data = make_kaggle_folder(tmp_path / "data", {1: [3, 4]})  # train, not to be read
    (data / "test").mkdir()
    columns = ("sensor_id", "time", "charge", "auxiliary")
    ids = np.repeat(known["event_id"], known["lengths"])
    table = pyarrow.table({"event_id": ids} | {name: known[name] for name in columns})
    pyarrow.parquet.write_table(table, data / "test" / "batch_661.parquet")
    out = tmp_path / "ensemble"
    ensemble.import_weights(published, out)
    config = {"PATH": str(data), "L": 192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = tmp_path / "submission.csv"
    reconstruction.reconstruct(
        ["L", "512", "BS", "2"], ensemble=out, out=made,
        config=tmp_path / "config.json", device="cpu",
    )  # fmt: skip
    found = pyarrow.csv.read_csv(made).to_pydict()
    assert found["event_id"] == known["event_id"].tolist()
    off = np.array(found["azimuth"]) - known["azimuth"]
    assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).max() < 1e-3
    assert np.abs(np.array(found["zenith"]) - known["zenith"]).max() < 1e-3
    assert "train" not in capsys.readouterr().out
    # The same as any table of results has it: all of the vector, with its length.
    made = tmp_path / "all.parquet"
    reconstruction.reconstruct(
        [str(data)], ensemble=out, out=made, which="test", max_pulses=512, device="cpu"
    )
    rows = pyarrow.parquet.read_table(made).to_pydict()
    kappa = np.linalg.norm(known["vectors"], axis=1)
    np.testing.assert_allclose(rows["kappa"], kappa, rtol=1e-3)


def test_provenance_of_imported_weights(published: Path, tmp_path: Path) -> None:
    from hashlib import sha256

    from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
    from graphnet_icecube2nd.published.competition_ensemble import CHECKPOINTS

    ensemble.import_weights(published, tmp_path / "ensemble")
    for member in EnsembleFile.load(tmp_path / "ensemble").members:
        content = (published / CHECKPOINTS[member.name]).read_bytes()
        assert member.origin["file"] == CHECKPOINTS[member.name]
        assert member.origin["sha256"] == sha256(content).hexdigest()
        assert "kaggle.com" in member.origin["from"]


def test_import_names_what_is_missing_and_writes_nothing(
    published: Path, tmp_path: Path
) -> None:
    with (
        only_writer(tmp_path / "out"),
        pytest.raises(ValueError, match="out is being written by another process"),
    ):
        ensemble.import_weights(published, tmp_path / "out")
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
    with pytest.raises(ValueError, match=r"s_gnn must be"):
        reconstruction.reconstruct(
            [str(simulated.path)], ensemble=out, out=tmp_path / "r.csv"
        )
    (out / "ensemble.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match=r"ensemble\.yaml.* members"):
        reconstruction.reconstruct(
            [str(simulated.path)], ensemble=out, out=tmp_path / "r.csv"
        )
