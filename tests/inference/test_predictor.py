"""A network's directions of a store: every event once, in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, build_model
from graphnet_icecube2nd.inference import predictor
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import (
    predict_events,
)
from graphnet_icecube2nd.loading.reading import EventReader

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


@pytest.fixture
def model(fill_weights: Callable[..., Any]) -> Any:
    return fill_weights(build_model("t_sim", **SIZES))


def test_each_event_once_and_in_order(
    model: Any, simulated: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "WINDOW", 37)
    counted = [0, 0]

    def progress(events: int, pulses: int) -> None:
        counted[0] += events
        counted[1] += pulses

    asked = np.random.default_rng(3).permutation(len(simulated))[:101]
    table = predict_events(
        model,
        simulated,
        asked,
        options=InferenceConfig(batch_size=7, max_pulses=48),
        on_progress=progress,
    )
    ids = simulated.whole_event_column("event_id")
    assert table.event_id.tolist() == ids[asked].tolist()
    lengths = simulated.whole_event_column("n_pulses")[asked]
    assert counted == [101, int(lengths.sum())]
    reader = EventReader(simulated, max_pulses=48, truth=())
    with torch.no_grad():
        for row in (0, 50, 100):
            vector = model(reader.batch(asked[row : row + 1]))[0].double().numpy()
            kappa = np.linalg.norm(vector)
            np.testing.assert_allclose(table.kappa_B[row], kappa, rtol=1e-4)
            np.testing.assert_allclose(
                table.direction_B3[row], vector / kappa, atol=1e-4
            )


def test_events_without_pulses_and_without_numbers_have_rows(
    model: Any, make_store: Callable[..., EventStore]
) -> None:
    store = make_store({1: [5, 0, 9]})
    table = predict_events(model, store)
    empty = int((store.whole_event_column("n_pulses") == 0).argmax())
    expected = ["ok"] * 3
    expected[empty] = "no pulses"
    assert table.status_B.tolist() == expected
    assert np.isnan(table.direction_B3[empty]).all()
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    table = predict_events(model, store)
    assert sorted(table.status_B) == ["no pulses", "not finite", "not finite"]


def test_options_reach_the_reader(model: Any, simulated: EventStore) -> None:
    few = np.argsort(simulated.whole_event_column("n_pulses"))[-20:]
    plain = predict_events(
        model, simulated, few, options=InferenceConfig(max_pulses=32)
    )

    def differs(**options: Any) -> bool:
        given = InferenceConfig(**{"max_pulses": 32, **options})
        other = predict_events(model, simulated, few, options=given)
        return not np.allclose(plain.direction_B3, other.direction_B3, atol=1e-6)

    assert not differs()
    assert not differs(batch_size=3)
    assert differs(max_pulses=64)
    assert differs(selection="first")
    assert differs(seed=1)
    assert differs(precision="bfloat16")
    assert differs(positions="charge_centre")
    hybrid = build_model("s_gnn", **SIZES, knn_features=3)
    tables = [
        predict_events(
            hybrid,
            simulated,
            few,
            options=InferenceConfig(published_features=published),
        )
        for published in (False, True)
    ]
    assert not np.array_equal(tables[0].direction_B3, tables[1].direction_B3)
    with pytest.raises(ValueError, match="precision must be float32 or bfloat16"):
        InferenceConfig(precision="half")
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        InferenceConfig(batch_size=0)


def test_the_model_is_left_as_it_was(model: Any, simulated: EventStore) -> None:
    model.train()
    predict_events(model, simulated, [1, 2])
    assert model.training
