"""Neighbours, event means, homophily and EdgeConv against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd import PackedBatch
from graphnet_icecube2nd.nn import edge_conv
from graphnet_icecube2nd.nn.edge_conv import (
    DynamicEdgeBranch,
    EdgeConv,
    Neighbours,
    event_means,
    homophily,
    nearest_neighbours,
    padded_nearest_neighbours,
)
from graphnet_icecube2nd.nn.packing import Packing


def make_packing(lengths: list[int]) -> Packing:
    return Packing(torch.tensor([0, *lengths]).cumsum(0))


def plain_neighbours(
    points_TF: NDArray[np.float64], lengths: list[int], num: int
) -> list[list[int]]:
    """For each pulse its neighbours, nearest first, of equally near the lowest."""
    found = []
    for start, stop in pairwise(np.append(0, np.cumsum(lengths)).tolist()):
        for centre in range(start, stop):
            others = [other for other in range(start, stop) if other != centre]
            squares = ((points_TF[others] - points_TF[centre]) ** 2).sum(1)
            order = np.argsort(squares, kind="stable")[:num]
            found.append([others[i] for i in order])
    return found


def as_lists(edges: Neighbours) -> list[list[int]]:
    rows = zip(edges.index_TK, edges.valid_TK, strict=True)
    return [index[valid].tolist() for index, valid in rows]


@st.composite
def events_on_a_grid(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """Events of 1 to 12 pulses on few places, where many distances tie exactly."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    num_features = draw(st.integers(1, 4))
    size = draw(st.integers(0, 3))  # 0: all pulses coincide
    row = st.lists(
        st.integers(-size, size), min_size=num_features, max_size=num_features
    )
    rows = draw(st.lists(row, min_size=sum(lengths), max_size=sum(lengths)))
    return torch.tensor(rows, dtype=torch.float32) / 4, lengths


class TestNearestNeighbours:
    @settings(max_examples=150)
    @given(events=events_on_a_grid(), tile_numbers=st.sampled_from([1, 37, 2**23]))
    def test_is_plain_with_many_ties(
        self, events: tuple[Tensor, list[int]], tile_numbers: int
    ) -> None:
        points_TF, lengths = events
        with patch.object(edge_conv, "TILE_NUMBERS", tile_numbers):
            edges = nearest_neighbours(points_TF, make_packing(lengths), 8)
        wanted = plain_neighbours(points_TF.double().numpy(), lengths, 8)
        assert as_lists(edges) == wanted

    @settings(max_examples=50)
    @given(events=events_on_a_grid(), tile_numbers=st.sampled_from([1, 37, 2**23]))
    def test_padded_twin(
        self, events: tuple[Tensor, list[int]], tile_numbers: int
    ) -> None:
        """What other devices than a CPU run."""
        points_TF, lengths = events
        with patch.object(edge_conv, "TILE_NUMBERS", tile_numbers):
            edges = padded_nearest_neighbours(points_TF, make_packing(lengths), 8)
        assert as_lists(edges) == plain_neighbours(
            points_TF.double().numpy(), lengths, 8
        )

    @pytest.mark.parametrize("tile_numbers", [1, 1009, 2**23])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_plain_without_ties(
        self, monkeypatch: pytest.MonkeyPatch, tile_numbers: int, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr(edge_conv, "TILE_NUMBERS", tile_numbers)
        lengths = [97, 1, 2, 53, 8, 9]
        points_TF = torch.randn(sum(lengths), 3, dtype=dtype)
        points_TF += 100  # where |a|^2 + |b|^2 - 2 a.b would be lost
        edges = nearest_neighbours(points_TF, make_packing(lengths), 8)
        wanted = plain_neighbours(points_TF.double().numpy(), lengths, 8)
        assert as_lists(edges) == wanted

    @pytest.mark.parametrize("length", range(1, 11))
    def test_short_events_have_all_there_are(self, length: int) -> None:
        lengths = [length, 20]
        edges = nearest_neighbours(
            torch.randn(sum(lengths), 3), make_packing(lengths), 8
        )
        assert edges.index_TK.shape == edges.valid_TK.shape == (sum(lengths), 8)
        for centre, row in enumerate(as_lists(edges)[:length]):
            assert len(row) == min(8, length - 1)
            assert set(row) <= set(range(length)) - {centre}
        assert (edges.index_TK >= 0).all()
        assert (edges.index_TK < sum(lengths)).all()

    def test_coinciding_pulses_take_the_first(self) -> None:
        edges = nearest_neighbours(torch.zeros(12, 3), make_packing([12]), 8)
        found = as_lists(edges)
        assert found[0] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert found[4] == [0, 1, 2, 3, 5, 6, 7, 8]
        assert found[11] == [0, 1, 2, 3, 4, 5, 6, 7]

    def test_more_neighbours_than_pulses(self) -> None:
        edges = nearest_neighbours(torch.randn(4, 3), make_packing([3, 1]), 8)
        assert [sorted(row) for row in as_lists(edges)] == [[1, 2], [0, 2], [0, 1], []]

    def test_batch_does_not_matter(self) -> None:
        lengths = [5, 13, 1]
        points_TF = torch.randint(0, 3, (19, 3)).float()
        together = as_lists(nearest_neighbours(points_TF, make_packing(lengths), 8))
        first = 0
        for points in points_TF.split(lengths):
            alone = nearest_neighbours(points, make_packing([len(points)]), 8)
            wanted = [[first + other for other in row] for row in as_lists(alone)]
            assert together[first : first + len(points)] == wanted
            first += len(points)

    def test_float64_distances_are_not_rounded(self) -> None:
        # Distances 1 and 1 + 1e-9 are one number in float32.
        points_TF = torch.tensor([[0.0], [-1.0 - 1e-9], [1.0]], dtype=torch.float64)
        edges = nearest_neighbours(points_TF, make_packing([3]), 1)
        assert as_lists(edges)[0] == [2]

    def test_half_precision(self) -> None:
        points_TF = torch.randn(11, 3).bfloat16()
        edges = nearest_neighbours(points_TF, make_packing([11]), 4)
        wanted = plain_neighbours(points_TF.double().numpy(), [11], 4)
        assert as_lists(edges) == wanted

    def test_no_gradient_through_the_choice(self) -> None:
        points_TF = torch.randn(7, 3, requires_grad=True)
        edges = nearest_neighbours(points_TF, make_packing([7]), 3)
        assert not edges.index_TK.requires_grad


@settings(max_examples=50)
@given(events_on_a_grid())
def test_event_means(events: tuple[Tensor, list[int]]) -> None:
    values_TF, lengths = events
    found_BF = event_means(values_TF.double(), make_packing(lengths))
    wanted = [part.double().mean(0) for part in values_TF.split(lengths)]
    torch.testing.assert_close(found_BF, torch.stack(wanted))


@settings(max_examples=50)
@given(events_on_a_grid())
def test_homophily(events: tuple[Tensor, list[int]]) -> None:
    """The share of edges between equal values, counted edge by edge."""
    values_TF, lengths = events
    packing = make_packing(lengths)
    edges = nearest_neighbours(values_TF, packing, 8)
    found_BF = homophily(values_TF, edges, packing)
    neighbours = as_lists(edges)
    for event, (start, stop) in enumerate(pairwise(packing.offsets.tolist())):
        for feature in range(values_TF.shape[1]):
            equal = [
                bool(values_TF[centre, feature] == values_TF[other, feature])
                for centre in range(start, stop)
                for other in neighbours[centre]
            ]
            wanted = sum(equal) / len(equal) if equal else 0.0
            assert float(found_BF[event, feature]) == pytest.approx(wanted, abs=1e-6)


class TestEdgeConv:
    def test_is_a_loop_over_edges(self) -> None:
        torch.manual_seed(0)
        lengths = [11, 1, 3]
        packing = make_packing(lengths)
        convolution = EdgeConv(5, 7, 6).double()
        nodes_TF = torch.randn(15, 5, dtype=torch.float64)
        edges = nearest_neighbours(nodes_TF[:, :3], packing, 4)
        with torch.no_grad():
            found = convolution(nodes_TF, edges)
            for centre, row in enumerate(as_lists(edges)):
                wanted = torch.zeros(6, dtype=torch.float64)
                for other in row:
                    step = nodes_TF[other] - nodes_TF[centre]
                    wanted += convolution.mlp(torch.cat((nodes_TF[centre], step)))
                torch.testing.assert_close(found[centre], wanted)
        assert (found[11] == 0).all()  # the event of one pulse

    def test_absent_edges_have_no_gradient(self) -> None:
        convolution = EdgeConv(3, 4, 4)
        nodes_TF = torch.randn(2, 3, requires_grad=True)
        edges = nearest_neighbours(nodes_TF, make_packing([1, 1]), 8)
        convolution(nodes_TF, edges).sum().backward()
        assert (nodes_TF.grad == 0).all()


class TestDynamicEdgeBranch:
    @staticmethod
    def run(branch: DynamicEdgeBranch, batch: PackedBatch) -> Tensor:
        packing = Packing(batch.offsets)
        with torch.no_grad():
            return branch(batch.features, batch.n_pulses, packing)

    def test_global_features_join_every_node(
        self, make_batch: Callable[..., PackedBatch]
    ) -> None:
        batch = make_batch([7, 1, 12], n_pulses=[7, 1, 700])
        branch = DynamicEdgeBranch(9, 16, knn_features=3)
        seen: list[Tensor] = []
        branch.convolutions[0].register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        assert self.run(branch, batch).shape == (20, 16)
        (nodes_TF,) = seen
        packing = Packing(batch.offsets)
        edges = nearest_neighbours(batch.features[:, :3], packing, 8)
        events = nodes_TF.split([7, 1, 12])
        shares_BF = homophily(batch.features[:, :4], edges, packing)
        for event, (own, n_pulses) in enumerate(zip(events, [7, 1, 700], strict=True)):
            features = batch.features.split([7, 1, 12])[event]
            assert torch.equal(own[:, :9], features)
            wanted = features.mean(0).expand(len(own), -1)
            torch.testing.assert_close(own[:, 9:18], wanted)
            assert torch.equal(own[:, 18:22], shares_BF[event].expand(len(own), -1))
            assert own[:, 22].tolist() == pytest.approx([np.log10(n_pulses)] * len(own))

    @pytest.mark.parametrize("knn_features", [3, 4])
    def test_first_graph(
        self,
        make_batch: Callable[..., PackedBatch],
        monkeypatch: pytest.MonkeyPatch,
        knn_features: int,
    ) -> None:
        """The first graph is on places (and times), later ones on three latents."""
        batch = make_batch([7, 12])
        branch = DynamicEdgeBranch(9, 16, knn_features=knn_features)
        seen: list[Tensor] = []

        def spy(points_TF: Tensor, packing: Packing, num: int) -> Neighbours:
            assert num == 8
            seen.append(points_TF)
            return nearest_neighbours(points_TF, packing, num)

        monkeypatch.setattr(edge_conv, "nearest_neighbours", spy)
        latent: list[Tensor] = []
        for convolution in branch.convolutions:
            convolution.register_forward_hook(lambda *args: latent.append(args[2]))
        self.run(branch, batch)
        assert torch.equal(seen[0], batch.features[:, :knn_features])
        assert len(seen) == 4
        for points_TF, latent_TD in zip(seen[1:], latent[:3], strict=True):
            assert torch.equal(points_TF, latent_TD[:, :3])

    def test_coinciding_pulses(self) -> None:
        features = torch.zeros(9, 9)
        batch = PackedBatch.from_events([features, features[:1]])
        found = self.run(DynamicEdgeBranch(9, 16, knn_features=4), batch)
        assert found.isfinite().all()

    def test_read_out_is_kept_but_frozen(self) -> None:
        branch = DynamicEdgeBranch(9, 16, knn_features=3)
        frozen = [n for n, p in branch.named_parameters() if not p.requires_grad]
        assert frozen == [
            f"readout.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")
        ]
