"""Nearest neighbours in packed events, and the dynamic edge convolution on them.

References: EdgeConv (arXiv:1801.07829), GraphNeT's DynEdge (arXiv:2209.03042), and the
branch of the 2nd-place code that uses it (`DynEdgeFEXTRACTRO` in src/models.py). Every
pulse has at most the same number of neighbours, so edges are a table (T, K) and a sum
over edges is a sum over a dimension.

Neighbours are found exactly and without torch-cluster: on a CPU event by event in few
calls, on other devices for all events side by side, in tiles of rows. Shape letters: T
pulses, B events, L longest event (or pulses of one), l rows of a tile, K neighbours, F
features, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphnet_icecube2nd.nn.packing import Packing, event_slices, operation

TILE_NUMBERS = 2**23  # pair distances of one tile, 64 MB as 8-byte keys
INFINITE_KEY = 0x7F800000 << 32  # bits of an infinite float32


class Neighbours(NamedTuple):
    """The edges of a batch, from neighbour to centre."""

    index_TK: Tensor  # rows of each pulse's neighbours in the packed batch
    valid_TK: Tensor  # False if the event has fewer than K other pulses


@torch.no_grad()
def nearest_neighbours(points_TF: Tensor, packing: Packing, num: int) -> Neighbours:
    """Find the `num` nearest other pulses of the same event, nearest first.

    Distances are sums of squared differences, so that of coinciding pulses is exactly
    zero. Among equal distances the earlier pulse is first, in any batch.
    """
    if points_TF.dtype in (torch.float16, torch.bfloat16):
        points_TF = points_TF.float()
    return Neighbours(*find_neighbours(points_TF, packing.offsets, num))


@operation
def find_neighbours(
    points_TF: Tensor, offsets: Tensor, num: int
) -> tuple[Tensor, Tensor]:
    """Return both tables of `Neighbours`, as one operation for `torch.compile`."""
    if points_TF.device.type == "cpu":
        edges = _by_event(points_TF, offsets, num)
    else:
        packing = Packing(offsets, len(points_TF))
        edges = padded_nearest_neighbours(points_TF, packing, num)
    return edges.index_TK, edges.valid_TK


# len() would fix the number of pulses.
find_neighbours.register_fake(
    lambda points_TF, offsets, num: (
        offsets.new_empty((points_TF.shape[0], num)),
        offsets.new_empty((points_TF.shape[0], num), dtype=torch.bool),
    )
)


def padded_nearest_neighbours(
    points_TF: Tensor, packing: Packing, num: int
) -> Neighbours:
    """Do the same as `nearest_neighbours`, with events side by side."""
    found = min(num, packing.longest)
    within_TK = packing.unpad(_nearest(packing.pad(points_TF), packing.valid_BL, found))
    within_TK = F.pad(within_TK, (0, num - found), value=packing.longest)
    valid_TK = within_TK < packing.lengths_B[packing.event_T, None]
    within_TK = within_TK.where(valid_TK, 0)
    return Neighbours(within_TK + packing.offsets[packing.event_T, None], valid_TK)


def _by_event(points_TF: Tensor, offsets: Tensor, num: int) -> Neighbours:
    index_TK = offsets.new_empty((len(points_TF), num))
    valid_TK = torch.ones_like(index_TK, dtype=torch.bool)
    place_T = torch.arange(len(points_TF))
    points_FT = points_TF.T.contiguous()
    for event in event_slices(offsets):
        length = event.stop - event.start
        found = min(num, length - 1)
        if found < num:
            index_TK[event, found:] = event.start
            valid_TK[event, found:] = False
        if found and length**2 <= TILE_NUMBERS and points_TF.dtype == torch.float32:
            # One table whose keys contain the pulse needs fewer calls.
            points_FL = points_FT[:, event]
            step_FLL = points_FL[:, :, None] - points_FL[:, None]
            distance_LL = step_FLL.square_().sum(0).fill_diagonal_(torch.inf)
            bits_LL = distance_LL.view(torch.int32)
            key_LL = torch.add(place_T[event], bits_LL, alpha=2**32)
            key_LK = key_LL.topk(found, largest=False).values
            torch.bitwise_and(key_LK, 2**32 - 1, out=index_TK[event, :found])
        elif found:
            within_1LK = _nearest(points_TF[None, event], None, found)
            torch.add(within_1LK[0], event.start, out=index_TK[event, :found])
    return Neighbours(index_TK, valid_TK)


def _nearest(points_BLF: Tensor, valid_BL: Tensor | None, num: int) -> Tensor:
    """Return positions (B, L, K) of the nearest others, at least L if there is none."""
    num_events, longest, _ = points_BLF.shape
    position_L = torch.arange(longest, device=points_BLF.device)
    points_FBL = points_BLF.movedim(-1, 0)
    rows = max(1, TILE_NUMBERS // (num_events * longest))
    tiles = []
    for start in range(0, longest, rows):
        tile_FBl = points_FBL[..., start : start + rows]
        distance_BlL = points_BLF.new_zeros(num_events, tile_FBl.shape[-1], longest)
        for tile_Bl, points_BL in zip(tile_FBl, points_FBL, strict=True):
            distance_BlL += (tile_Bl[..., None] - points_BL[:, None]).square_()
        itself = distance_BlL.diagonal(start, dim1=-2, dim2=-1)
        itself.fill_(torch.inf)
        if valid_BL is not None:
            distance_BlL.masked_fill_(~valid_BL[:, None], torch.inf)
        tiles.append(_smallest(distance_BlL, position_L, num))
    return torch.cat(tiles, dim=1)


def _smallest(distance_BlL: Tensor, position_L: Tensor, num: int) -> Tensor:
    """Return positions (B, l, K) of the smallest distances, equal ones in order.

    Infinite distances mean no pulse; they get a position beyond every event.
    """
    if distance_BlL.dtype == torch.float64:
        distance, place = distance_BlL.sort(dim=-1, stable=True)
        return place[..., :num].where(distance[..., :num].isfinite(), len(position_L))
    # topk is faster, but the order of equal values is undefined. The bits of a
    # non-negative float32 sort like the number; the position below makes keys unique.
    key_BlL = distance_BlL.view(torch.int32).long() << 32 | position_L
    key_BlK = key_BlL.topk(num, dim=-1, largest=False).values
    infinite = key_BlK >= INFINITE_KEY
    return (key_BlK & (2**32 - 1)).masked_fill_(infinite, len(position_L))


class EdgeConv(nn.Module):
    """Sum over edges of an MLP of (centre, neighbour - centre)."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.mlp = _normed_mlp(2 * dim_in, dim_hidden, dim_out)

    def forward(self, nodes_TF: Tensor, edges: Neighbours) -> Tensor:
        """Map (T, F) to (T, dim_out); a pulse without neighbours gives zero."""
        first, *others = self.mlp
        # A centre + B (neighbour - centre) is linear: B acts on pulses, not on edges.
        assert isinstance(first, nn.Linear)
        of_centre, of_step = first.weight.chunk(2, dim=1)
        centre_TD = F.linear(nodes_TF, of_centre - of_step, first.bias)
        other_TD = F.linear(nodes_TF, of_step)
        # An embedding's gradient is summed in a fixed order. That of indexing is not
        # with several threads, and a run could not be repeated bit by bit.
        message = centre_TD[:, None] + F.embedding(edges.index_TK, other_TD)
        for layer in others:
            message = layer(message)
        message = message.masked_fill(~edges.valid_TK[..., None], 0.0)
        summed: Tensor = message.sum(1)
        return summed


class DynamicEdgeBranch(nn.Module):
    """A latent vector per pulse from four dynamic edge convolutions.

    First each node gets its event's mean features, homophily (the share of edges that
    join equal x, y, z, time) and log10 of its pulses before selection. After each
    convolution the graph is built again from the first three latent features. An MLP
    joins the results of all stages. The first graph uses the first `knn_features` of a
    node: 3 are x, y, z (published V22), 4 include time (V23).
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
        # The published checkpoints have a read-out that their forward never calls. It
        # is kept, frozen, so that weights are loaded and saved without loss.
        self.readout = nn.Sequential(
            nn.Linear(dim, self.DIM_READOUT), nn.LayerNorm(self.DIM_READOUT)
        ).requires_grad_(False)

    def columns_of(self, features: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs that a branch of only these features has.

        The result has the columns of the weights that read nodes, by name of the
        weights.
        """
        weights = dict(self.named_parameters())
        dim_all = weights["combine.0.weight"].shape[1]
        dim_nodes = weights["convolutions.0.mlp.0.weight"].shape[1] // 2
        num = (dim_nodes - 5) // 2
        of_means = [num + place for place in features]
        nodes = torch.tensor([*features, *of_means, *range(2 * num, dim_nodes)])
        return {
            "convolutions.0.mlp.0.weight": torch.cat([nodes, dim_nodes + nodes]),
            "combine.0.weight": torch.cat([nodes, torch.arange(dim_nodes, dim_all)]),
        }

    def forward(self, nodes_TF: Tensor, n_pulses_B: Tensor, packing: Packing) -> Tensor:
        """Map scaled features (T, F), with x, y, z, time first, to (T, dim).

        `n_pulses_B` are the pulses before selection.
        """
        points_TF = nodes_TF[:, : self.knn_features]
        edges = packing.once(
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

    It is zero for an event without edges, as in torch_geometric.
    """
    equal_TKF = values_TF[edges.index_TK] == values_TF[:, None]
    equal_TF = (equal_TKF & edges.valid_TK[..., None]).sum(1).to(values_TF.dtype)
    num_T1 = edges.valid_TK.sum(1, keepdim=True).to(values_TF.dtype)
    # Both means are over pulses, so their ratio is a share of edges.
    num_B1 = event_means(num_T1, packing)
    return event_means(equal_TF, packing) / num_B1.where(num_B1 > 0, 1.0)


def _normed_mlp(*dims: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim_in, dim_out in pairwise(dims):
        layers += [nn.Linear(dim_in, dim_out), nn.LayerNorm(dim_out), nn.GELU()]
    return nn.Sequential(*layers)
