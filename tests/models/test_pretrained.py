"""Weights that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphnet_icecube2nd import (
    list_models,
)
from graphnet_icecube2nd.models import (
    list_pretrained,
    load_pretrained,
)
from graphnet_icecube2nd.models.pretrained import FOLDER


@pytest.mark.parametrize("name", list_pretrained())
def test_file_and_card(name: str) -> None:
    model = load_pretrained(name)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert name.split(".")[0] in list_models()
    assert Path(FOLDER / f"{name}.safetensors").stat().st_size <= 4_000_000
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for word in (
        "seed",
        "events",
        "line fit",
        "limit",
        "cascade",
        "licence",
        "GeV",
        "budget",
    ):
        assert word.lower() in card.lower(), word


def test_there_is_one() -> None:
    assert "t_sim.simulated" in list_pretrained()
    with pytest.raises(ValueError, match=r"no weights named 't_sim'.*t_sim\.simulated"):
        load_pretrained("t_sim")


@pytest.mark.slow
def test_it_beats_the_line_fit(tmp_path: Path) -> None:
    """On tracks and on all, of events that it was not trained on."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("scipy")
    from graphnet_icecube2nd import EventStore, simulate
    from graphnet_icecube2nd.evaluation.resolution import compare
    from graphnet_icecube2nd.inference.predictor import (
        predict_events,
    )
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.results.truth import EventTruth

    simulate(tmp_path / "store", num_events=1500, seed=77, workers=1)
    store = EventStore(tmp_path / "store")
    network = predict_events(load_pretrained("t_sim.simulated"), store)
    rows = compare([line_fit_events(store), network], EventTruth.of(store))
    means: dict[tuple[str, str], Any] = {
        (row.topology, row.table): row.mean for row in rows if row.energy == "all"
    }
    for topology in ("all", "through_going_track", "starting_track", "cascade"):
        assert means[topology, "network"] < means[topology, "line fit"], topology
