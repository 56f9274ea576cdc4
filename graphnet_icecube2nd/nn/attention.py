"""Attention over packed events, with and without the interval term.

Reference: the 2nd-place code (github.com/DrHB/icecube-2nd-place, src/models.py),
where attention with the term reads

    score_ij = (q_i / sqrt(H)) . (k_j + R_ij),   out_i = sum_j a_ij (v_j + R_ij),
    R_ij = W e_ij + b,

e_ij the sinusoids of the space-time interval of pulses i and j. Here the map W acts
on what it meets instead of on every pair: q_i . W e_ij = (W^T q_i) . e_ij, and
sum_j a_ij W e_ij = W sum_j a_ij e_ij; b does not depend on j, so the softmax does not
see it. Pairs are visited in tiles of query rows, and a backward pass computes a tile
again instead of remembering it, so no (B, L, L, C) tensor is ever kept.

Shape letters: T tokens, B events, L longest event, l rows of a tile, D width,
N heads, H head width, C = H channels of the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from graphnet_icecube2nd.nn.embedding import SpaceTimeInterval
from graphnet_icecube2nd.nn.packing import Packing

# Numbers of one tile of pair sinusoids, 32 MB in float32: fits a cache level or two
# and is large enough that the loop over tiles costs nothing.
TILE_NUMBERS = 2**23


@dataclass(frozen=True)
class IntervalTerm:
    """What attention needs to know of the interval: the map and who is where.

    Args:
        interval: The module with the linear map of R_ij.
        events_BL4: (B, L, 4) scaled x, y, z, time of all pulses, zero-padded.
    """

    interval: SpaceTimeInterval
    events_BL4: Tensor


class SelfAttention(nn.Module):
    """Multi-head attention of all tokens of an event, as `nn.MultiheadAttention`.

    Args:
        dim: D.
        num_heads: N.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, latent_TD: Tensor, packing: Packing) -> Tensor:
        """Attend within each event, (T, D) to (T, D)."""
        qkv = packing.pad(self.qkv(latent_TD))
        q, k, v = (_split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=-1))
        mask = packing.valid_BL[:, None, None, :]
        attended_BNLH = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended_TD = packing.unpad(_join_heads(attended_BNLH))
        result: Tensor = self.output(attended_TD)
        return result


class RelativeAttention(nn.Module):
    """Multi-head attention that can weigh pairs by their space-time interval.

    Args:
        dim: D.
        num_heads: N; the interval has H = D / N channels.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(
        self, latent_TD: Tensor, packing: Packing, term: IntervalTerm | None = None
    ) -> Tensor:
        """Attend within each event, (T, D) to (T, D); `term` None: no interval."""
        q, k, v = (
            _split_heads(packing.pad(project(latent_TD)), self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        if term is None:
            mask = packing.valid_BL[:, None, None, :]
            attended_BNLH = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            attended_BNLH = interval_attention(q, k, v, packing.valid_BL, term)
        attended_TD = packing.unpad(_join_heads(attended_BNLH))
        result: Tensor = self.output(attended_TD)
        return result


def interval_attention(
    q_BNLH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    valid_BL: Tensor,
    term: IntervalTerm,
    tile_numbers: int = TILE_NUMBERS,
) -> Tensor:
    """Attention with the interval term, one tile of query rows at a time.

    Args:
        q_BNLH: Queries, not yet divided by sqrt(H).
        k_BNLH: Keys.
        v_BNLH: Values.
        valid_BL: True for a real token. Padding may listen but never speaks.
        term: The interval.
        tile_numbers: Numbers in a tile's sinusoids (B, l, L, C); sets l.

    Returns:
        (B, N, L, H).
    """
    num_events, _, longest, head_size = q_BNLH.shape
    rows = max(1, tile_numbers // (num_events * longest * head_size))
    tiles = []
    for start in range(0, longest, rows):
        stop = min(start + rows, longest)
        inputs = (
            q_BNLH[:, :, start:stop],
            k_BNLH,
            v_BNLH,
            valid_BL,
            term,
            term.events_BL4[:, start:stop],
        )
        if torch.is_grad_enabled():
            tile = checkpoint(
                _interval_tile, *inputs, use_reentrant=False, preserve_rng_state=False
            )
        else:
            tile = _interval_tile(*inputs)
        tiles.append(tile)
    return torch.cat(tiles, dim=2)


def _interval_tile(
    q_BNlH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    valid_BL: Tensor,
    term: IntervalTerm,
    rows_Bl4: Tensor,
) -> Tensor:
    q_BNlH = q_BNlH / math.sqrt(q_BNlH.shape[-1])
    weight, bias = term.interval.project.weight, term.interval.project.bias
    waves_BlLC = term.interval.waves(rows_Bl4, term.events_BL4).to(weight.dtype)
    waves_query_BlNC = (q_BNlH @ weight).transpose(1, 2)
    from_waves_BlNL = waves_query_BlNC @ waves_BlLC.transpose(-1, -2)
    score_BNlL = q_BNlH @ k_BNLH.transpose(-1, -2) + from_waves_BlNL.transpose(1, 2)
    score_BNlL = score_BNlL.masked_fill(~valid_BL[:, None, None], -torch.inf)
    wide = torch.promote_types(score_BNlL.dtype, torch.float32)
    attention_BNlL = score_BNlL.softmax(-1, dtype=wide).to(v_BNLH.dtype)
    met_BlNC = attention_BNlL.transpose(1, 2) @ waves_BlLC
    relative_BNlH = F.linear(met_BlNC, weight, bias).transpose(1, 2)
    return attention_BNlL @ v_BNLH + relative_BNlH


def plain_interval_attention(
    q_BNLH: Tensor,
    k_BNLH: Tensor,
    v_BNLH: Tensor,
    valid_BL: Tensor,
    term: IntervalTerm,
) -> Tensor:
    """The same as `interval_attention`, written as the formula, R_ij kept in full."""
    relative_BLLC = term.interval(term.events_BL4, term.events_BL4)
    q_BNLH = q_BNLH / math.sqrt(q_BNLH.shape[-1])
    score = q_BNLH @ k_BNLH.transpose(-1, -2)
    score = score + torch.einsum("bnih,bijh->bnij", q_BNLH, relative_BLLC)
    score = score.masked_fill(~valid_BL[:, None, None], -torch.inf)
    attention = score.softmax(-1)
    return attention @ v_BNLH + torch.einsum(
        "bnij,bijh->bnih", attention, relative_BLLC
    )


def _split_heads(padded_BLD: Tensor, num_heads: int) -> Tensor:
    num_events, longest, _ = padded_BLD.shape
    return padded_BLD.reshape(num_events, longest, num_heads, -1).transpose(1, 2)


def _join_heads(heads_BNLH: Tensor) -> Tensor:
    return heads_BNLH.transpose(1, 2).flatten(-2)
