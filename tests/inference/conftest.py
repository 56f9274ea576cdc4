"""A model of random weights, and pulses in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import EventStore, build_model


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
    made = build_model("t_sim", **sizes)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def pulses(simulated: EventStore) -> dict[str, Any]:
    """The pulses of the simulated store as one would have them in memory."""
    names = simulated.pulse_columns
    columns = {
        name: np.concatenate([s.pulses.column(name) for s in simulated.shards])
        for name in names
    }
    lengths = simulated.whole_event_column("n_pulses")
    event_id = np.repeat(simulated.whole_event_column("event_id"), lengths)
    return {"event_id": event_id, **columns}
