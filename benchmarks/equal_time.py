"""t_sim and GraphNeT's DynEdge, trained from scratch for the same time.

Both use the same events, batches, features, loss, optimiser and one-cycle (over the
time), on the same machine, one after the other. DynEdge has GraphNeT's defaults, the
four poolings of its examples, the graph of 8 nearest pulses in x, y, z, and the last
layer of GraphNeT's direction task. This compares models at equal time, not recipes.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphnet_icecube2nd import (
    EventDataModule,
    EventStore,
    PackedBatch,
    VonMisesFisherLoss,
    build_model,
    simulate,
)
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import (
    predict_events,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.training.optimisation import OneCycle, make_adamw

SEED = 20231101  # seed of the training events
BATCH_SIZE, MAX_PULSES, LEARNING_RATE = 64, 192, 1e-3


def train_both(
    store: EventStore,
    events: NDArray[np.int64],
    minutes: float,
    num_train: int,
) -> tuple[list[EventTable], str]:
    """Train both; return their directions of the test events, and a summary."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "train", num_events=num_train, seed=SEED)
        train = EventStore(Path(folder) / "train")
        torch.manual_seed(0)
        models: dict[str, nn.Module] = {"t_sim": build_model("t_sim")}
        try:
            models["GraphNeT DynEdge"] = dynedge()
        except ImportError as error:
            print(f"GraphNeT's DynEdge is not trained: {error}")
        tables, done = [], []
        for name, model in models.items():
            seen = train_for(model, train, 60 * minutes)
            called = f"{name}, {minutes:g} min"
            options = InferenceConfig(max_pulses=MAX_PULSES)
            tables.append(
                predict_events(model, store, events, name=called, options=options)
            )
            parameters = sum(p.numel() for p in model.parameters())
            done.append(f"{name}: {parameters:,} parameters, {seen:,} events seen")
    return tables, f"{minutes:g} minutes each; {'; '.join(done)}"


def train_for(model: nn.Module, store: EventStore, seconds: float) -> int:
    """Train for a given time; return the number of events."""
    data = EventDataModule(
        store,
        batch_size=BATCH_SIZE,
        max_pulses=MAX_PULSES,
        num_sub_epochs=1,
        validation_fraction=0.001,
    )
    loader, loss = data.train_dataloader(), VonMisesFisherLoss()
    schedule = OneCycle(learning_rate=LEARNING_RATE, pct_start=0.05, div_final=100)
    optimiser = make_adamw(model.parameters(), learning_rate=LEARNING_RATE / 25)
    model.train()
    seen, begun = 0, time.perf_counter()
    while True:
        for batch in loader:
            share = (time.perf_counter() - begun) / seconds
            if share >= 1:
                return seen
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate_at(share)
                group["betas"] = (schedule.momentum_at(share), 0.999)
            assert batch.truth is not None
            optimiser.zero_grad()
            loss(model(batch), batch.truth["direction"]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 3.0)
            optimiser.step()
            seen += len(batch)


def dynedge() -> nn.Module:
    """Return GraphNeT's DynEdge with the last layer of its direction task.

    Raises:
        ImportError: GraphNeT is not installed.
    """
    from graphnet.models.gnn import DynEdge
    from torch_geometric.nn import knn_graph

    from graphnet_icecube2nd.graphnet_adapter import as_pyg_batch

    class Direction(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pooling = ["min", "max", "mean", "sum"]
            self.backbone = DynEdge(nb_inputs=9, global_pooling_schemes=pooling)
            self.head = nn.Linear(self.backbone.nb_outputs, 3)

        def forward(self, batch: PackedBatch) -> Tensor:
            data = as_pyg_batch(batch)
            data.edge_index = knn_graph(data.x[:, :3], 8, data.batch)
            vectors: Tensor = self.head(self.backbone(data))
            return vectors

    return Direction()
