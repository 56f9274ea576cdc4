"""FourierFeatures, the pulse embedding and the interval, against the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from graphnet_icecube2nd import FEATURE_NAMES, PackedBatch
from graphnet_icecube2nd.nn.embedding import (
    INTERVAL_LIMIT,
    INTERVAL_WAVES,
    FourierFeatures,
    PulseEmbedding,
    SpaceTimeInterval,
    interval_waves,
    signed_root,
    sinusoids,
)
from graphnet_icecube2nd.nn.packing import Packing


class TestSinusoids:
    def test_formula(self) -> None:
        value = torch.tensor([-3.7, 0.0, 1.0, 2.5], dtype=torch.float64)
        found = sinusoids(value, 6)
        for row, number in enumerate(value.tolist()):
            phases = [number * 1e4 ** (-i / 3) for i in range(3)]
            wanted = [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
            # The frequencies are those of the float32 weights.
            assert found[row].tolist() == pytest.approx(wanted, abs=1e-6)

    def test_half_precision_is_lifted_first(self) -> None:
        value = torch.tensor([4096.0, 1000.0], dtype=torch.bfloat16)
        assert torch.equal(sinusoids(value, 8), sinusoids(value.float(), 8))
        assert sinusoids(value, 8).dtype == torch.float32

    def test_learned_amplitude(self) -> None:
        layer = FourierFeatures(16, scaled=True)
        assert layer.scale is not None
        assert layer.scale.item() == pytest.approx(0.25)  # 1 / sqrt(16)
        value = torch.linspace(0, 1, 5)
        assert torch.equal(layer(value), sinusoids(value, 16) * layer.scale)
        assert FourierFeatures(16).scale is None

    @pytest.mark.parametrize("size", [1.0, 512.0, 4096.0])
    def test_float32_under_autocast(self, size: float) -> None:
        value = size * torch.linspace(-1, 1, 97)
        layer = FourierFeatures(32, scaled=True)
        plain, scaled = sinusoids(value, 32), layer(value)
        with torch.autocast("cpu", torch.bfloat16):
            found, found_scaled = sinusoids(value, 32), layer(value)
        assert found.dtype == found_scaled.dtype == torch.float32
        assert torch.equal(found, plain)
        assert torch.equal(found_scaled, scaled)


class TestPulseEmbedding:
    def test_joined_parts(self, make_batch: Callable[..., PackedBatch]) -> None:
        """What goes into the first linear layer, part by part, as published."""
        batch = make_batch([3, 1], n_pulses=[3, 700])
        embedding = PulseEmbedding(16, 24)
        seen: list[Tensor] = []
        embedding.project[0].register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        assert embedding(batch, Packing(batch.offsets)).shape == (4, 24)
        (joined_TC,) = seen
        feature = dict(zip(FEATURE_NAMES, batch.features.unbind(1), strict=True))
        counts_T = torch.tensor([3.0, 3.0, 3.0, 700.0])
        wanted = [
            *(sinusoids(4096 * feature[axis], 16) for axis in "xyz"),
            sinusoids(1024 * feature["charge"], 16),
            sinusoids(4096 * feature["time"], 16),
            embedding.auxiliary.weight[feature["auxiliary"].long()],
            sinusoids(counts_T.log10(), 8),
        ]
        torch.testing.assert_close(joined_TC, torch.cat(wanted, dim=1))

    def test_column_order_does_not_matter(
        self, make_batch: Callable[..., PackedBatch]
    ) -> None:
        batch = make_batch([5, 2])
        embedding = PulseEmbedding(16, 24)
        packing = Packing(batch.offsets)
        turned = PackedBatch(
            batch.features.flip(1),
            batch.offsets,
            batch.n_pulses,
            names=FEATURE_NAMES[::-1],
        )
        assert torch.equal(embedding(turned, packing), embedding(batch, packing))

    @pytest.mark.parametrize("scaled", [False, True])
    def test_extra_features(
        self, make_batch: Callable[..., PackedBatch], scaled: bool
    ) -> None:
        names = (*FEATURE_NAMES, "tot", "pmt_dir_z")
        batch = make_batch([4, 3], names=names)
        packing = Packing(batch.offsets)
        extra = ("pmt_dir_z", "tot")
        embedding = PulseEmbedding(16, 24, scaled=scaled, extra_features=extra)
        before = embedding(batch, packing)
        changed = batch.features.clone()
        changed[0, names.index("tot")] += 0.01
        after = embedding(
            PackedBatch(changed, batch.offsets, batch.n_pulses, names=names), packing
        )
        is_same_T = torch.isclose(before, after).all(dim=1)
        assert is_same_T.tolist() == [False] + 6 * [True]

    def test_a_missing_extra_feature_is_named(
        self, make_batch: Callable[..., PackedBatch]
    ) -> None:
        batch = make_batch([4])
        embedding = PulseEmbedding(16, 24, extra_features=["tot"])
        with pytest.raises(ValueError, match=r"no feature 'tot'.*absorption"):
            embedding(batch, Packing(batch.offsets))


def pairs(*rows: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """Events of one batch entry: (1, len(rows), 4)."""
    return torch.tensor([rows], dtype=dtype)


class TestInterval:
    def test_hand_made_pairs(self) -> None:
        origin, aside, later = [0.0] * 4, [0.3, 0.0, 0.4, 0.0], [0.0, 0.0, 0.0, 0.1]
        on_cone, far = [0.0, 1.8, 0.0, 0.1], [3.0, -4.0, 0.0, 0.0]
        much_later = [0.0, 0.0, 0.0, 1.0]
        events = pairs(
            origin, aside, later, on_cone, far, much_later, dtype=torch.float64
        )
        root = signed_root(events[:, :1], events)[0, 0]
        wanted = [0.0, 0.5, -1.8, 0.0, INTERVAL_LIMIT, -INTERVAL_LIMIT]
        assert root.tolist() == pytest.approx(wanted, abs=1e-7)

    def test_symmetric(self, make_batch: Callable[..., PackedBatch]) -> None:
        events = SpaceTimeInterval(16).places(make_batch([17]))[None]
        root = signed_root(events, events)
        assert torch.equal(root, root.transpose(1, 2))
        assert (root.diagonal(dim1=1, dim2=2) == 0).all()
        assert (root > 0).any()
        assert (root < 0).any()

    @pytest.mark.parametrize(
        "step", [[1e-4, 0, 0, 0], [0, -7e-5, 7e-5, 0], [0, 0, 0, 1e-4 / 18]]
    )
    def test_small_intervals_far_from_the_origin(self, step: list[float]) -> None:
        """By differences: the products of places would have lost all of it."""
        near = np.float32([1.0, -1.0, 0.9, 0.3])
        events = torch.from_numpy(np.stack([near, near + np.float32(step)])[None])
        found = signed_root(events, events)[0, 0, 1]
        exact = signed_root(events.double(), events.double())
        wanted = float(exact[0, 0, 1])
        assert abs(wanted) == pytest.approx(1e-4, rel=0.02)
        assert float(found) == pytest.approx(wanted, rel=1e-3)
        place = events[..., :3]
        squares = place.square().sum(-1)
        products = squares[:, :, None] + squares[:, None] - 2 * place @ place.mT
        assert float(products[0, 0, 1]) != pytest.approx(1e-8, rel=1e-3)

    def test_coinciding_pulses(self) -> None:
        events = pairs([0.7, -0.2, 0.1, 0.05], [0.7, -0.2, 0.1, 0.05])
        events.requires_grad_()
        interval = SpaceTimeInterval(8)
        assert (signed_root(events, events) == 0).all()
        interval(events, events).pow(2).sum().backward()
        assert events.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in interval.parameters())

    def test_gradient(self) -> None:
        generator = torch.Generator().manual_seed(3)
        events = torch.randn(1, 5, 4, generator=generator, dtype=torch.float64)
        events *= torch.tensor([1, 1, 1, 0.05])
        others = events + 0.1
        assert torch.autograd.gradcheck(
            signed_root,
            (events.requires_grad_(), others.detach().requires_grad_()),
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_waves_are_those_of_the_plain_form(
        self, make_batch: Callable[..., PackedBatch], dtype: torch.dtype
    ) -> None:
        places = SpaceTimeInterval(16).places(make_batch([31])).to(dtype)
        places[7] = places[3]
        for query in (places, places[5:12], places[None]):
            key = places[None] if query.ndim == 3 else places
            plain = sinusoids(INTERVAL_WAVES * signed_root(query, key), 6)
            scratch = torch.full((2 * plain.numel(),), torch.nan, dtype=dtype)
            found = interval_waves(query, key, 6, scratch)
            assert (found.mT - plain).abs().max() < (
                1e-11 if dtype == torch.float64 else 1e-3  # one place of the root
            )

    def test_float32_under_autocast(
        self, make_batch: Callable[..., PackedBatch]
    ) -> None:
        batch = make_batch([31])
        interval = SpaceTimeInterval(16)

        def results() -> list[Tensor]:
            events = interval.places(batch)[None]
            root = signed_root(events, events)
            scratch = torch.empty(31 * 31 * 16)
            return [events, root, interval_waves(events, events, 16, scratch)]

        wanted = results()
        with torch.autocast("cpu", torch.bfloat16):
            found = results()
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, other)

    def test_half_precision_batch_is_lifted(
        self, make_batch: Callable[..., PackedBatch]
    ) -> None:
        batch = make_batch([5])
        half = PackedBatch(batch.features.bfloat16(), batch.offsets, batch.n_pulses)
        assert SpaceTimeInterval(16).places(half).dtype == torch.float32
