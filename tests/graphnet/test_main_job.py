"""The main job: GraphNeT's data module and trainer drive our components."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)

from graphnet.data import GraphNeTDataModule
from graphnet.data.dataset import ParquetDataset, SQLiteDataset
from graphnet.models import StandardModel
from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa
from pytorch_lightning.callbacks import ModelCheckpoint

import graphnet_icecube2nd.graphnet_adapter as adapter

pytestmark = pytest.mark.graphnet

SMALL = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
LOADER = {
    "batch_size": 4,
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "collate_fn": adapter.collate_events,
}
QUIET = {"logger": False, "enable_model_summary": False}


def make_model(detector: Any, loss_weight: str | None = None) -> StandardModel:
    torch.manual_seed(0)
    columns = detector.pulse_map.extra
    backbone = adapter.DeepIceGNNBackbone(**SMALL, extra_features=list(columns))
    task = DirectionReconstructionWithKappa(
        hidden_size=backbone.nb_outputs,
        target_labels="direction",
        loss_function=adapter.CombinedDirection(),
        loss_weight=loss_weight,
    )
    return StandardModel(
        data_representation=adapter.PackedPulses(detector, seed=0),
        backbone=backbone,
        tasks=[task],
        optimizer_kwargs={"lr": 1e-3},
    )


def make_data(
    path: str,
    detector: Any,
    *,
    pulsemap: str = "pulses",
    truth_table: str = "truth",
    angles: tuple[str, str] = ("azimuth", "zenith"),
    **further: Any,
) -> GraphNeTDataModule:
    arguments = {
        "path": path,
        "pulsemaps": [pulsemap],
        "features": list(detector.feature_map()),
        "truth": list(angles),
        "truth_table": truth_table,
        "data_representation": adapter.PackedPulses(detector, seed=0),
        "labels": {
            "direction": adapter.OriginDirection(
                azimuth_key=angles[0], zenith_key=angles[1]
            )
        },
    }
    arguments.update(further.pop("dataset_args", {}))
    return GraphNeTDataModule(
        dataset_reference=SQLiteDataset if path.endswith(".db") else ParquetDataset,
        dataset_args=arguments,
        train_dataloader_kwargs=dict(LOADER),
        validation_dataloader_kwargs=dict(LOADER),
        test_dataloader_kwargs=dict(LOADER),
        **further,
    )


def fit(model: StandardModel, data: GraphNeTDataModule, **further: Any) -> None:
    settings = {"max_epochs": 1, "distribution_strategy": "auto", **QUIET, **further}
    settings["enable_progress_bar"] = False
    settings.setdefault("enable_checkpointing", "callbacks" in settings)
    settings.setdefault("callbacks", [])
    model.fit(data.train_dataloader, data.val_dataloader, **settings)


def predict(model: StandardModel, data: GraphNeTDataModule) -> Any:
    # For predicting, Lightning makes the loader anew and forgets num_workers=0, which
    # is torch's default; GraphNeT's loader then forks a worker, and polars, which
    # reads its parquet, hangs in a fork. A loader of torch's stays without workers.
    loader = torch.utils.data.DataLoader(
        data.test_dataloader.dataset, batch_size=4, collate_fn=adapter.collate_events
    )
    return model.predict_as_dataframe(
        loader,
        additional_attributes=["event_no", "n_pulses"],
        enable_checkpointing=False,
        **QUIET,
    )


def check_table(table: Any, num_events: int) -> None:
    assert len(table) == num_events
    norm = np.linalg.norm(table[["dir_x_pred", "dir_y_pred", "dir_z_pred"]], axis=1)
    np.testing.assert_allclose(norm, 1.0, atol=1e-4)
    assert (table["direction_kappa"] > 0).all()


def test_sqlite_trains_and_every_event_is_predicted_once_and_in_order(
    database: str,
) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    everything = list(range(100, 110))
    data = make_data(
        database, detector, selection=everything, test_selection=everything
    )
    model = make_model(detector)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    fit(model, data)
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, start[k])]
    frozen = [k for k in start if k not in changed]
    assert all("graph.readout" in key for key in frozen), frozen
    table = predict(model, data)
    check_table(table, 10)
    assert table["event_no"].tolist() == everything
    lengths = [1, 2, 3, 7, 40, 61, 90, 192, 193, 700]
    assert table["n_pulses"].tolist() == lengths, "before the cut"


def test_parquet_trains_and_predicts(parquet_folder: str) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    data = make_data(
        parquet_folder, detector, selection=[0, 1, 2], test_selection=[3, 4]
    )
    model = make_model(detector)
    fit(model, data)
    table = predict(model, data)
    check_table(table, 4)
    assert table["event_no"].tolist() == [106, 107, 108, 109]


def test_sqlite_and_parquet_give_the_same_events(
    database: str, parquet_folder: str
) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    sqlite = make_data(
        database, detector, selection=[100, 101], test_selection=[106, 107, 108, 109]
    )
    parquet = make_data(
        parquet_folder, detector, selection=[0, 1], test_selection=[3, 4]
    )
    model = make_model(detector)
    one, other = predict(model, sqlite), predict(model, parquet)
    np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-5, atol=1e-6)


def test_weights_of_events_reach_the_loss(database: str) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    loss_weight = {"loss_weight_table": "truth", "loss_weight_column": "weight"}
    data = make_data(
        database, detector, selection=[*range(100, 110)], dataset_args=loss_weight
    )
    batch = next(iter(data.train_dataloader))
    model = make_model(detector, loss_weight="weight")
    with torch.no_grad():
        prediction = model(batch)[0]
        loss = model.compute_loss([prediction], [batch])
        elements = adapter.CombinedDirection()(
            prediction, batch.direction, return_elements=True
        )
    expected = (elements * batch.weight.reshape(-1)).mean()
    torch.testing.assert_close(loss, expected)
    assert not torch.isclose(loss, elements.mean())


def test_resuming_ends_in_the_weights_of_one_run(database: str, tmp_path: Path) -> None:
    detector = adapter.IceCube86PulseMapDetector()

    def train(max_epochs: int, folder: str, ckpt_path: str | None = None) -> Any:
        data = make_data(database, detector, selection=[*range(100, 110)])
        model = make_model(detector)
        saver = ModelCheckpoint(dirpath=tmp_path / folder, save_last=True)
        fit(model, data, max_epochs=max_epochs, callbacks=[saver], ckpt_path=ckpt_path)
        return model

    straight = train(2, "straight")
    train(1, "first")
    resumed = train(2, "second", ckpt_path=str(tmp_path / "first" / "last.ckpt"))
    for key, value in straight.state_dict().items():
        torch.testing.assert_close(
            resumed.state_dict()[key], value, rtol=0, atol=0, msg=key
        )


def test_a_worker_sees_the_same_selection(database: str) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    data = make_data(
        database, detector, selection=[100, 101], test_selection=[108, 109]
    )
    here = data.test_dataloader
    # Spawned: polars, which GraphNeT has loaded, does not survive a fork.
    worker = torch.utils.data.DataLoader(
        here.dataset,
        batch_size=2,
        num_workers=1,
        collate_fn=adapter.collate_events,
        multiprocessing_context="spawn",
    )
    (other,), (one,) = list(worker), list(here)
    assert len(one.x) == 2 * 192
    assert torch.equal(one.x, other.x)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "pulsemap", "detector"),
    [
        (
            "oscNext_genie_level7_v02",
            "SRTInIcePulses",
            adapter.IceCube86PulseMapDetector,
        ),
        (
            "upgrade_genie_step4_140028_000998_first_5_frames",
            "SplitInIcePulses",
            adapter.UpgradePulseMapDetector,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*outside the ice table:UserWarning")
def test_real_icecube_databases(
    shared_dir: Path, folder: str, pulsemap: str, detector: Any
) -> None:
    files = shared_dir / "data" / "graphnet" / "data" / "tests" / "sqlite" / folder
    (path,) = files.glob("*.db")
    data = make_data(
        str(path),
        detector(),
        pulsemap=pulsemap,
        selection=[0, 1, 2, 3, 4],
        test_selection=[0, 1, 2, 3, 4],
        train_val_split=[0.6, 0.4],
    )
    model = make_model(detector())
    fit(model, data)
    table = predict(model, data)
    check_table(table, 5)
    with sqlite3.connect(path) as connection:
        counted = connection.execute(
            f"SELECT COUNT(*) FROM {pulsemap} GROUP BY event_no ORDER BY event_no"
        ).fetchall()
    connection.close()
    assert table["n_pulses"].tolist() == [count for (count,) in counted]


@pytest.mark.data
@pytest.mark.parametrize("backend", ["sqlite", "parquet"])
def test_prometheus_example_data(shared_dir: Path, backend: str) -> None:
    examples = shared_dir / "data" / "graphnet" / "data" / "examples"
    if backend == "sqlite":
        path = examples / "sqlite" / "prometheus" / "prometheus-events.db"
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT event_no FROM mc_truth").fetchall()
        connection.close()
        units = sorted(row[0] for row in rows)
    else:
        path = examples / "parquet" / "prometheus" / "merged"
        units = list(range(len(os.listdir(path / "mc_truth"))))
    detector = adapter.PrometheusPulseMapDetector(angles="origin")
    data = make_data(
        str(path),
        detector,
        pulsemap="total",
        truth_table="mc_truth",
        angles=("injection_azimuth", "injection_zenith"),
        selection=units[: len(units) // 2],
        test_selection=units[len(units) // 2 :],
    )
    model = make_model(detector)
    fit(model, data)
    table = predict(model, data)
    check_table(table, len(data.test_dataloader.dataset))
    charge = next(iter(data.test_dataloader)).x[:, 4]
    assert float(charge.abs().max()) == 0.0, "a missing charge counts as 1 p.e."
