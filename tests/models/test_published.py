"""The named models are those of the competition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphnet_icecube2nd import DeepIce, DeepIceGNN, build_model

NUM_PARAMETERS = {
    "b_d32": 115_635_555,
    "b_d64": 115_638_659,
    "b_d32_4rel": 115_635_555,
    "s_gnn": 23_299_735,
    "b_gnn": 116_547_703,
    "s_d32": 29_286_179,  # the published README's "29.3M"
    "t_d32": 7_566_339,
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "b_d32": {"dim": 768, "dim_base": 192, "depth": 12, "head_size": 32, "n_rel": 1},
    "b_d64": {"dim": 768, "dim_base": 192, "depth": 12, "head_size": 64, "n_rel": 1},
    "b_d32_4rel": {
        **{"dim": 768, "dim_base": 192, "depth": 12, "head_size": 32, "n_rel": 4}
    },
    "s_gnn": {
        **{"dim": 384, "dim_base": 128, "depth": 8, "head_size": 32, "n_rel": 1},
        "knn_features": 3,
    },
    "b_gnn": {
        **{"dim": 768, "dim_base": 192, "depth": 12, "head_size": 64, "n_rel": 4},
        "knn_features": 4,
    },
    "s_d32": {"dim": 384, "dim_base": 128, "depth": 12, "head_size": 32, "n_rel": 1},
    "t_d32": {"dim": 192, "dim_base": 96, "depth": 12, "head_size": 32, "n_rel": 1},
}


def build_without_memory(name: str, **overrides: Any) -> DeepIce:
    with torch.device("meta"):
        return build_model(name, **overrides)


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_number_of_parameters(name: str) -> None:
    model = build_without_memory(name)
    assert sum(p.numel() for p in model.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    model = build_without_memory(name)
    assert model.kwargs().items() >= ARGUMENTS[name].items()
    assert model.kwargs()["depth_rel"] == len(model.local) == 4
    assert isinstance(model, DeepIceGNN) == name.endswith("_gnn")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_overrides(name: str) -> None:
    model = build_without_memory(name, depth=3, n_rel=2, dim=128)
    wanted = {**ARGUMENTS[name], "depth": 3, "n_rel": 2, "dim": 128}
    assert model.kwargs().items() >= wanted.items()
    assert len(model.encoder) == 3


def test_graph_of_a_hybrid_can_be_changed() -> None:
    assert build_without_memory("s_gnn", knn_features=4).kwargs()["knn_features"] == 4


def test_defaults_of_the_classes() -> None:
    """As in design.md; DeepIce's are those of the published class."""
    with torch.device("meta"):
        common = {"dim": 384, "dim_base": 128, "head_size": 32}
        relative = {"depth_rel": 4, "n_rel": 1}
        wanted = {**common, **relative, "depth": 12}
        assert DeepIce().kwargs().items() >= wanted.items()
        wanted = {**common, **relative, "depth": 8, "knn_features": 3}
        assert DeepIceGNN().kwargs().items() >= wanted.items()
