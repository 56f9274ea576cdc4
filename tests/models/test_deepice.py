"""What is peculiar to DeepIce and DeepIceGNN: their arguments and their switches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphnet_icecube2nd import DeepIce, DeepIceGNN, PackedBatch
from graphnet_icecube2nd.models.deepice import DeepIceConfig
from graphnet_icecube2nd.models.hybrid import NODE_FEATURES
from graphnet_icecube2nd.nn import edge_conv, interval_attention

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
MakeBatch = Callable[..., PackedBatch]
Fill = Callable[[DeepIce], DeepIce]


def predict(model: DeepIce, batch: PackedBatch) -> Tensor:
    with torch.no_grad():
        return model(batch)


class TestConfig:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dim": 0}, "dim must be at least 1, got 0"),
            ({"dim_base": -4}, "dim_base must be at least 1, got -4"),
            ({"depth": 0}, "depth must be at least 1, got 0"),
            ({"head_size": 0}, "head_size must be at least 1, got 0"),
            ({"depth_rel": 0, "n_rel": 0}, "depth_rel must be at least 1, got 0"),
            ({"head_size": 64, "dim": 96}, "divide dim=96, got 64"),
            ({"head_size": 3, "dim": 96}, "head_size must be even"),
            ({"dim_base": 30}, "dim_base must be a multiple of 4"),
            ({"n_rel": 5}, "n_rel must be 0 to depth_rel=4, got 5"),
            ({"n_rel": -1}, "n_rel must be 0 to depth_rel=4, got -1"),
            ({"n_rel": 3, "depth_rel": 2}, "n_rel must be 0 to depth_rel=2, got 3"),
        ],
    )
    @pytest.mark.parametrize("build", [DeepIceConfig, DeepIce, DeepIceGNN])
    def test_what_does_not_fit(
        self, build: Callable[..., Any], arguments: dict[str, int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            build(**{**SIZES, **arguments})

    @pytest.mark.parametrize("knn_features", [0, 2, 5])
    def test_graph(self, knn_features: int) -> None:
        message = f"knn_features must be 3 .* or 4 .*, got {knn_features}"
        with pytest.raises(ValueError, match=message):
            DeepIceGNN(**SIZES, knn_features=knn_features)

    def test_keywords_only_and_frozen(self) -> None:
        for build in (DeepIceConfig, DeepIce, DeepIceGNN):
            with pytest.raises(TypeError, match="positional"):
                build(384)  # type: ignore[misc]
        config = DeepIceConfig(extra_features=["tot"])  # a YAML file brings lists
        assert config.extra_features == ("tot",)
        with pytest.raises(FrozenInstanceError):
            config.dim = 3  # type: ignore[misc]


def test_no_interval_where_no_block_has_it(
    make_batch: MakeBatch, fill_weights: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n_rel=0 never computes an interval, n_rel=1 does and depends on it."""
    batch = make_batch([7, 3])
    models = [fill_weights(DeepIce(**SIZES, n_rel=n_rel)) for n_rel in (0, 1)]
    before = [predict(model, batch) for model in models]
    calls: list[Tensor] = []
    waves = interval_attention.interval_waves

    def doubled(query: Tensor, key: Tensor, *further: Any) -> Tensor:
        calls.append(query)
        return waves(2 * query, 2 * key, *further)

    monkeypatch.setattr(interval_attention, "interval_waves", doubled)
    assert torch.equal(predict(models[0], batch), before[0])
    assert not calls
    assert not torch.allclose(predict(models[1], batch), before[1], rtol=1e-2)
    assert calls


@pytest.mark.parametrize("n_rel", [1, 2, 3])
def test_the_first_blocks_have_the_interval(
    make_batch: MakeBatch, fill_weights: Fill, n_rel: int
) -> None:
    model = fill_weights(DeepIce(**SIZES, n_rel=n_rel))
    seen: list[object] = []
    for block in model.local:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    predict(model, make_batch([5]))
    assert [term is not None for term in seen] == [i < n_rel for i in range(4)]


def test_unread_features(make_batch: MakeBatch, fill_weights: Fill) -> None:
    """Efficiency and ice are read by the hybrids only."""
    batch = make_batch([9, 4])
    ice = [batch.names.index(name) for name in ("qe", "scattering", "absorption")]
    features = batch.features.clone()
    features[:, ice] += 0.3
    changed = replace(batch, features=features)
    plain = fill_weights(DeepIce(**SIZES))
    assert torch.equal(predict(plain, changed), predict(plain, batch))
    hybrid = fill_weights(DeepIceGNN(**SIZES))
    assert not torch.allclose(
        predict(hybrid, changed), predict(hybrid, batch), rtol=1e-3
    )


def test_node_features_have_the_published_order() -> None:
    order = "x y z time auxiliary qe charge scattering absorption"
    assert " ".join(NODE_FEATURES) == order
    assert DeepIceGNN(**SIZES).node_features == NODE_FEATURES


def test_graph_in_place_or_in_place_and_time(
    make_batch: MakeBatch, fill_weights: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch([30])
    nearest = edge_conv.nearest_neighbours
    first_graphs: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    for knn_features in (3, 4):
        seen = []

        def spy(*args: Any, seen: list[Any] = seen) -> edge_conv.Neighbours:
            seen.append(nearest(*args))
            return seen[-1]

        monkeypatch.setattr(edge_conv, "nearest_neighbours", spy)
        model = fill_weights(DeepIceGNN(**SIZES, knn_features=knn_features))
        outputs[knn_features] = predict(model, batch)
        first_graphs[knn_features] = seen[0].index_TK
    assert not torch.equal(first_graphs[3], first_graphs[4])
    assert not torch.allclose(outputs[3], outputs[4], rtol=1e-3)
    # Without times the two graphs are one.
    features = batch.features.clone()
    features[:, batch.names.index("time")] = 0.0
    timeless = replace(batch, features=features)
    models = [fill_weights(DeepIceGNN(**SIZES, knn_features=k)) for k in (3, 4)]
    first, second = (predict(model, timeless) for model in models)
    assert torch.equal(first, second)


@pytest.mark.parametrize("model_class", [DeepIce, DeepIceGNN])
def test_length_feature_counts_pulses_before_selection(
    make_batch: MakeBatch, fill_weights: Fill, model_class: type[DeepIce]
) -> None:
    model = fill_weights(model_class(**SIZES))
    short, long = make_batch([9, 4]), make_batch([9, 4], n_pulses=[9, 4000])
    assert torch.equal(short.features, long.features)
    before, after = predict(model, short), predict(model, long)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], rtol=1e-2)


def test_length_enters_as_its_logarithm(
    make_batch: MakeBatch, fill_weights: Fill
) -> None:
    model = fill_weights(DeepIceGNN(**SIZES))
    seen: list[Tensor] = []
    model.embedding.length.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    predict(model, make_batch([2, 1], n_pulses=[100, 1]))
    assert seen[0].tolist() == [2.0, 2.0, 0.0]


def test_output_is_x_y_z(make_batch: MakeBatch) -> None:
    """The head's rows are the components, in that order, and nothing is normalised."""
    model = DeepIce(**SIZES)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 2.0, -5.0]))
    assert predict(model, make_batch([3, 2])).tolist() == [[1.0, 2.0, -5.0]] * 2


def test_class_token_is_what_a_head_reads(
    make_batch: MakeBatch, fill_weights: Fill
) -> None:
    """Its place is in front of each event, after the local blocks."""
    model = fill_weights(DeepIce(**SIZES))
    seen: list[Tensor] = []
    model.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predict(model, make_batch([3, 2]))
    assert seen[0].shape == (7, 32)
    for row in (0, 4):
        assert torch.equal(seen[0][row], model.class_token[0])


def test_starts_as_the_published_code() -> None:
    """Linear weights of spread 0.02 and no bias; the encoder's query, key and value
    are drawn by Xavier, which the published initialisation does not reach."""
    model = DeepIceGNN(dim=64, dim_base=32, depth=2, head_size=32)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            spread = layer.weight.detach().std().item()
            is_xavier = name.endswith("qkv")
            wanted = (2 / (64 + 192)) ** 0.5 if is_xavier else 0.02
            assert spread == pytest.approx(wanted, rel=0.2), name
            assert layer.bias is None or (layer.bias == 0).all(), name
        if isinstance(layer, nn.LayerNorm):
            assert (layer.weight == 1).all(), name
            assert (layer.bias == 0).all(), name
    assert model.class_token.detach().std().item() == pytest.approx(0.02, rel=0.3)
    scales = [p for n, p in model.encoder.named_parameters() if n.endswith("scale")]
    assert len(scales) == 4
    assert all((scale == 1).all() for scale in scales)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": "192"}, "dim must be a whole number, got '192'"),
        ({"depth": 2.0}, r"depth must be a whole number, got 2\.0"),
        ({"extra_features": "pmt"}, "list of names, got 'pmt'"),
        ({"extra_features": ["x"]}, "has x, .* already"),
        ({"extra_features": ["a", "a"]}, "has a, .* already"),
    ],
)
def test_arguments_of_a_wrong_kind(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepIce(**changes)


def test_every_trained_parameter_is_used_also_without_the_interval(
    make_batch: MakeBatch,
) -> None:
    """Or distributed training would wait for a gradient that never comes."""
    model = DeepIce(dim=32, dim_base=8, depth=1, head_size=16, n_rel=0)
    model(make_batch([3, 4])).sum().backward()
    waiting = [k for k, p in model.named_parameters() if p.requires_grad]
    assert all(model.get_parameter(k).grad is not None for k in waiting)


@pytest.mark.parametrize("n_rel", [1, 4])
def test_sinusoids_are_made_once(
    make_batch: MakeBatch,
    fill_weights: Fill,
    n_rel: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks share them where no gradient is wanted and they are few enough."""
    batch = make_batch([13, 1, 5])
    model = fill_weights(DeepIce(**SIZES, n_rel=n_rel))
    wanted = model(batch).detach()
    calls: list[Tensor] = []
    waves = interval_attention.interval_waves

    def counted(query: Tensor, *further: Any) -> Tensor:
        calls.append(query)
        return waves(query, *further)

    monkeypatch.setattr(interval_attention, "interval_waves", counted)
    torch.testing.assert_close(predict(model, batch), wanted, rtol=1e-5, atol=1e-6)
    assert len(calls) == len(batch)
    monkeypatch.setattr(interval_attention, "KEPT_NUMBERS", 10)
    calls.clear()
    torch.testing.assert_close(predict(model, batch), wanted, rtol=1e-5, atol=1e-6)
    assert len(calls) == n_rel * len(batch)
