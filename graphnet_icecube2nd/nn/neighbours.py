"""Nearest neighbours in packed events, exactly and without torch-cluster.

On a CPU one event after the other, in as few calls as can be; on other devices events
side by side, in tiles of rows. Shape letters: T pulses, B events, L longest event (or
pulses of one), l rows of a tile, K neighbours, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet_icecube2nd.nn.packing import Packing, event_slices, operation

TILE_NUMBERS = 2**23  # pair distances of one tile, 64 MB as 8-byte keys
INFINITE_KEY = 0x7F800000 << 32  # the bits of an infinite float32


class Neighbours(NamedTuple):
    """The edges of a batch, from neighbour to centre."""

    index_TK: Tensor  # for each pulse the rows of its neighbours in the packed batch
    valid_TK: Tensor  # False where an event has fewer than K other pulses


@torch.no_grad()
def nearest_neighbours(points_TF: Tensor, packing: Packing, num: int) -> Neighbours:
    """Find the `num` nearest other pulses of the same event, exactly, nearest first.

    Distances are sums of squared differences, so coinciding points are at exactly
    zero; of equally distant pulses the earlier wins, whatever batch the event is in.
    """
    if points_TF.dtype in (torch.float16, torch.bfloat16):
        points_TF = points_TF.float()
    return Neighbours(*find_neighbours(points_TF, packing.offsets, num))


@operation
def find_neighbours(
    points_TF: Tensor, offsets: Tensor, num: int
) -> tuple[Tensor, Tensor]:
    """Return both tables of `Neighbours`: for `torch.compile` one operation."""
    if points_TF.device.type == "cpu":
        edges = _by_event(points_TF, offsets, num)
    else:
        packing = Packing(offsets, len(points_TF))
        edges = padded_nearest_neighbours(points_TF, packing, num)
    return edges.index_TK, edges.valid_TK


# Not len(), which would fix the number of pulses.
find_neighbours.register_fake(
    lambda points_TF, offsets, num: (
        offsets.new_empty((points_TF.shape[0], num)),
        offsets.new_empty((points_TF.shape[0], num), dtype=torch.bool),
    )
)


def padded_nearest_neighbours(
    points_TF: Tensor, packing: Packing, num: int
) -> Neighbours:
    """The same as `nearest_neighbours`, with events side by side."""
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
            # One table, and the keys name the pulse: as few calls as can be.
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
    """Return the places (B, L, K) of the nearest others, beyond L where none is."""
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
    """Return the places (B, l, K) of the smallest; ties go to the earlier.

    Infinite distances, which stand for no pulse, get a place beyond every event.
    """
    if distance_BlL.dtype == torch.float64:
        distance, place = distance_BlL.sort(dim=-1, stable=True)
        return place[..., :num].where(distance[..., :num].isfinite(), len(position_L))
    # topk is faster but does not say who wins a tie. The bits of a non-negative
    # float32 order like the number; with the position below them no two keys are equal.
    key_BlL = distance_BlL.view(torch.int32).long() << 32 | position_L
    key_BlK = key_BlL.topk(num, dim=-1, largest=False).values
    infinite = key_BlK >= INFINITE_KEY
    return (key_BlK & (2**32 - 1)).masked_fill_(infinite, len(position_L))
