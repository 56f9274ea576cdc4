"""A simulated store."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, simulate


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    """256 events."""
    folder = tmp_path_factory.mktemp("simulated") / "store"
    simulate(folder, num_events=256, seed=21, workers=1)
    return EventStore(folder)
