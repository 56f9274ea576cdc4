from __future__ import annotations

from typing import Any

import pytest

from graphnet_icecube2nd import DeepIce, build_model, list_models, register_model
from graphnet_icecube2nd.models.registry import MODELS

TINY = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))


def test_a_model_of_ones_own() -> None:
    @register_model
    def x_d16(**overrides: Any) -> DeepIce:
        return DeepIce(**{**TINY, **overrides})

    assert "x_d16" in list_models()
    assert build_model("x_d16").kwargs()["head_size"] == 16
    assert build_model("x_d16", depth=2).kwargs()["depth"] == 2
    assert x_d16(depth=3).kwargs()["depth"] == 3  # still a function


def test_a_name_is_taken_once() -> None:
    def b_d32(**overrides: Any) -> DeepIce:
        return DeepIce(**overrides)

    with pytest.raises(ValueError, match=r"'b_d32' is already registered.*registry"):
        register_model(b_d32)
    assert build_model("b_d32", **TINY, n_rel=0).kwargs()["n_rel"] == 0
    assert MODELS.get("b_d32") is not b_d32


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"no model named 'b_d23'.*b_d32"):
        build_model("b_d23")
    with pytest.raises(ValueError, match=r"did you mean b_d32, .*, t_sim"):
        build_model("#")  # near to none: all are named


def test_unknown_argument() -> None:
    with pytest.raises(TypeError, match="num_heads"):
        build_model("t_d32", num_heads=3)
    with pytest.raises(TypeError, match="knn_features"):
        build_model("t_d32", knn_features=3)


def test_list() -> None:
    public = {"b_d32", "b_d32_4rel", "b_d64", "b_gnn", "s_d32", "s_gnn", "t_d32"}
    assert {*public, "t_sim"} <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("b_*") == ["b_d32", "b_d32_4rel", "b_d64", "b_gnn"]
    assert list_models("?_gnn") == ["b_gnn", "s_gnn"]
    assert list_models("s_d32") == ["s_d32"]
    assert list_models("nothing*") == []
