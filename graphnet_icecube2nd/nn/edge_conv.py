"""The dynamic edge convolution on the nearest neighbours of each pulse.

References: EdgeConv (arXiv:1801.07829), GraphNeT's DynEdge (arXiv:2209.03042), and the
branch the 2nd-place code built of it (`DynEdgeFEXTRACTRO` in src/models.py). Every
pulse has the same number of neighbours at most, so edges are a table (T, K) and a sum
over edges is a sum over a dimension. Shape letters: T pulses, B events, L longest
event, l rows of a tile, K neighbours, F features, D width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphnet_icecube2nd.nn.batch_cache import BatchCache, once
from graphnet_icecube2nd.nn.neighbours import Neighbours, nearest_neighbours
from graphnet_icecube2nd.nn.packing import Packing


class EdgeConv(nn.Module):
    """Sum over edges of an MLP of (centre, neighbour - centre)."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.mlp = _normed_mlp(2 * dim_in, dim_hidden, dim_out)

    def forward(self, nodes_TF: Tensor, edges: Neighbours) -> Tensor:
        """Map (T, F) to (T, dim_out); a pulse without neighbours gets zero."""
        first, *others = self.mlp
        # A centre + B (neighbour - centre) is linear: once a pulse, not once an edge.
        assert isinstance(first, nn.Linear)
        of_centre, of_step = first.weight.chunk(2, dim=1)
        centre_TD = F.linear(nodes_TF, of_centre - of_step, first.bias)
        other_TD = F.linear(nodes_TF, of_step)
        # As an embedding, whose gradient adds up in a fixed order; that of indexing
        # does not with several threads, and a run could not be repeated to the bit.
        message = centre_TD[:, None] + F.embedding(edges.index_TK, other_TD)
        for layer in others:
            message = layer(message)
        message = message.masked_fill(~edges.valid_TK[..., None], 0.0)
        summed: Tensor = message.sum(1)
        return summed


class DynamicEdgeBranch(nn.Module):
    """A latent vector per pulse from four dynamic edge convolutions.

    Every node first learns its event's mean features, homophily (the share of edges
    that join equal x, y, z, time) and log10 of its pulses before selection. After a
    convolution the graph is built anew on the first three latent features. What all
    stages found is joined and sent through an MLP. The first graph is built on the
    first `knn_features` of a node: 3 are x, y, z (published V22), 4 with time (V23).
    """

    NUM_NEIGHBOURS = 8
    CONVOLUTIONS = ((128, 256), (336, 256), (336, 256), (336, 256))
    DIM_JOINED = 336
    DIM_READOUT = 128

    def __init__(self, num_features: int, dim: int, *, knn_features: int) -> None:
        super().__init__()
        self.knn_features = knn_features
        dim_nodes = num_features + (num_features + 4 + 1)
        dim_in, convolutions = dim_nodes, []
        for dim_hidden, dim_out in self.CONVOLUTIONS:
            convolutions.append(EdgeConv(dim_in, dim_hidden, dim_out))
            dim_in = dim_out
        self.convolutions = nn.ModuleList(convolutions)
        dim_all = dim_nodes + sum(dim_out for _, dim_out in self.CONVOLUTIONS)
        self.combine = _normed_mlp(dim_all, self.DIM_JOINED, dim)
        # The published checkpoints carry a read-out that their forward never calls.
        # It is kept, frozen, so that weights go in and out without loss.
        self.readout = nn.Sequential(
            nn.Linear(dim, self.DIM_READOUT), nn.LayerNorm(self.DIM_READOUT)
        ).requires_grad_(False)

    def forward(
        self,
        nodes_TF: Tensor,
        n_pulses_B: Tensor,
        packing: Packing,
        shared: BatchCache | None = None,
    ) -> Tensor:
        """Map scaled features (T, F), x, y, z, time first, to (T, dim).

        `n_pulses_B` are the pulses before selection; `shared` may hold the first graph.
        """
        points_TF = nodes_TF[:, : self.knn_features]
        edges = once(
            shared,
            ("neighbours", self.knn_features, self.NUM_NEIGHBOURS),
            lambda: nearest_neighbours(points_TF, packing, self.NUM_NEIGHBOURS),
        )
        global_BG = torch.cat(
            (
                event_means(nodes_TF, packing),
                homophily(nodes_TF[:, :4], edges, packing),
                n_pulses_B[:, None].to(nodes_TF.dtype).log10(),
            ),
            dim=1,
        )
        latent = torch.cat((nodes_TF, global_BG[packing.event_T]), dim=1)
        latent = latent.to(next(self.combine.parameters()).dtype)
        stages = [latent]
        for convolution in self.convolutions:
            if len(stages) > 1:
                edges = nearest_neighbours(latent[:, :3], packing, self.NUM_NEIGHBOURS)
            latent = convolution(latent, edges)
            stages.append(latent)
        combined: Tensor = self.combine(torch.cat(stages, dim=1))
        return combined


def event_means(values_TF: Tensor, packing: Packing) -> Tensor:
    """Return the mean over each event's pulses, (B, F)."""
    sums_BF = values_TF.new_zeros((len(packing.lengths_B), values_TF.shape[1]))
    sums_BF = sums_BF.index_add(0, packing.event_T, values_TF)
    return sums_BF / packing.lengths_B[:, None]


def homophily(values_TF: Tensor, edges: Neighbours, packing: Packing) -> Tensor:
    """Return the share of an event's edges that join equal values, (B, F).

    Zero for an event without edges, as torch_geometric has it.
    """
    equal_TKF = values_TF[edges.index_TK] == values_TF[:, None]
    equal_TF = (equal_TKF & edges.valid_TK[..., None]).sum(1).to(values_TF.dtype)
    num_T1 = edges.valid_TK.sum(1, keepdim=True).to(values_TF.dtype)
    # Both means are per pulse, so their ratio is per edge.
    num_B1 = event_means(num_T1, packing)
    return event_means(equal_TF, packing) / num_B1.where(num_B1 > 0, 1.0)


def _normed_mlp(*dims: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim_in, dim_out in pairwise(dims):
        layers += [nn.Linear(dim_in, dim_out), nn.LayerNorm(dim_out), nn.GELU()]
    return nn.Sequential(*layers)
