"""Files of release 0.1.0 load and give the numbers that it gave."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import (
    DeepIce,
    EventStore,
    EventTable,
    load_model,
    reconstruct,
    train,
)
from graphnet_icecube2nd.inference import InferenceConfig, load_bundle
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.training.recipe import read_recipe

pytest.importorskip("pyarrow")

FILES = Path(__file__).parent / "release_0_1_0"
RUN = FILES / "run"


def numbers_of(path: Path) -> dict[str, Any]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, values in expected.items():
        if values.dtype.kind in "fi":
            np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=1e-6)
        else:
            assert found[name].tolist() == values.tolist()


def test_store() -> None:
    store = EventStore(FILES / "store")
    store.verify()
    assert len(store) == 40
    assert store.pulse_map.labels.angles == "origin"
    assert store.detector.telescope == "icecube86"
    assert store.has_directions


def test_weights_run_and_calibration(tmp_path: Path) -> None:
    bundle = load_bundle(RUN)
    assert isinstance(bundle.model, DeepIce)
    assert bundle.model.input_config is None
    assert bundle.options == InferenceConfig(max_pulses=32, selection="hlc_first")
    assert bundle.calibration is not None
    report = reconstruct(FILES / "store", bundle, tmp_path / "r.parquet")
    assert report.num_calibrated == 40
    assert_same(report.columns(), numbers_of(FILES / "run_results.parquet"))


def test_ensemble(tmp_path: Path) -> None:
    found = reconstruct(FILES / "store", FILES / "ensemble")
    assert_same(found.columns(), numbers_of(FILES / "ensemble_results.parquet"))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "db"])
def test_tables_of_results(suffix: str) -> None:
    expected = numbers_of(FILES / "run_results.parquet")
    table = EventTable.load(FILES / f"run_results.{suffix}")
    order = np.argsort(table.event_id)
    assert table.event_id[order].tolist() == expected["event_id"].tolist()
    np.testing.assert_allclose(table.kappa_B[order], expected["kappa"], rtol=1e-9)
    for name in ("radius_50", "radius_90"):
        np.testing.assert_allclose(table.radii[name][order], expected[name], rtol=1e-9)


def test_a_database_of_results_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("sqlite_utils")
    shutil.copyfile(FILES / "run_results.db", tmp_path / "r.db")
    reconstruct(FILES / "store", RUN, tmp_path / "r.db")
    with sqlite3.connect(tmp_path / "r.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM directions").fetchone()
    connection.close()
    assert count == 40


def test_recipe_and_measurements() -> None:
    recipe = read_recipe(RUN / "recipe.yaml")
    assert recipe.model == "t_sim"
    assert [stage.loss for stage in recipe.stages] == ["vmf", "combined"]
    from graphnet_icecube2nd.training.history import read_history

    rows = read_history(RUN / "metrics.csv")
    assert [row["stage"] for row in rows] == [0, 0, 1, 1]


def test_weights_fill_a_model_with_tasks() -> None:
    from graphnet_icecube2nd import build_model

    sizes = {"dim": 16, "dim_base": 8, "depth": 1, "head_size": 8, "depth_rel": 1}
    old = load_model(RUN / "model.safetensors")
    model = build_model("t_sim", tasks=["direction"], **sizes)
    load_weights(model, RUN / "model.safetensors")
    for name, value in old.state_dict().items():
        ours = f"tasks.direction.{name}" if "head" in name else f"backbone.{name}"
        assert torch.equal(model.state_dict()[ours], value)
    several = build_model("t_sim", tasks=["direction", "energy"], **sizes)
    report = load_weights(several, RUN / "model.safetensors", partial=True)
    assert all(name.startswith("tasks.energy") for name in report.missing)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    shutil.copytree(FILES / "store_of_run", tmp_path / "store")
    shutil.copytree(FILES / "interrupted", tmp_path / "run")
    recipe = read_recipe(FILES / "interrupted" / "recipe.yaml")
    done = train(recipe, tmp_path / "store", tmp_path / "run", resume=True)
    assert len(done.rows) == 4
    ours = done.model.state_dict()
    for name, value in load_model(RUN / "model.safetensors").state_dict().items():
        # The same machine and torch give the same bits; others nearly so.
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)
