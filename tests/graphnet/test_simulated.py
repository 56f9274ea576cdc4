"""Simulated events in GraphNeT: its dataset, and the example that trains on them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)
pytestmark = pytest.mark.graphnet

import torch
from graphnet.data.dataset import ParquetDataset, SQLiteDataset

import graphnet_icecube2nd.graphnet_adapter as icecube2nd
from graphnet_icecube2nd import EventStore, simulate
from graphnet_icecube2nd.loading.reading import EventReader

COLUMNS = ["x", "y", "z", "time", "charge", "auxiliary"]


@pytest.mark.parametrize("name", ["events.db", "merged"])
def test_graphnets_datasets_read_all_columns(name: str, tmp_path: Path) -> None:
    simulate(tmp_path / name, num_events=12, seed=2, format="graphnet", workers=1)
    simulate(tmp_path / "store", num_events=12, seed=2, workers=1)
    store = EventStore(tmp_path / "store")
    batch = EventReader(store, max_pulses=None).batch(torch.arange(12).numpy())
    detector = icecube2nd.KagglePulseMapDetector()
    made = SQLiteDataset if name.endswith(".db") else ParquetDataset
    dataset = made(
        path=str(tmp_path / name),
        pulsemaps="pulses",
        features=COLUMNS,
        truth=["azimuth", "zenith", "energy", "light"],
        data_representation=icecube2nd.PackedPulses(detector, max_pulses=100_000),
        labels={"direction": detector.direction_label()},
    )
    assert len(dataset) == 12
    for number in (0, 5, 11):
        data = dataset[number]
        event = int(data["event_no"])
        first, stop = batch.offsets[event : event + 2].tolist()
        torch.testing.assert_close(
            data.x, batch.features[first:stop], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            data["direction"].flatten().float(), batch.truth["direction"][event]
        )


@pytest.mark.slow
def test_the_example_trains_on_simulated_events(tmp_path: Path) -> None:
    """`make demo-graphnet`, with fewer events."""
    import subprocess
    import sys

    script = Path(__file__).resolve().parents[2] / "examples"
    done = subprocess.run(
        [
            *(sys.executable, str(script / "01_train_deepice_graphnet.py")),
            *("--simulate", "40", "--epochs", "1", "--out", "result"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 test events" in done.stdout
    written = {path.name for path in (tmp_path / "result").iterdir()}
    assert {"simulated_40_0.db", "weights.pth", "predictions.csv"} <= written
