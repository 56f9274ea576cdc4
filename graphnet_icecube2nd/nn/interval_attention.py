"""Attention with the interval term, on packed batches, exact and in bounded memory.

With e_ij the C sinusoids of the space-time interval of pulses i and j, and R_ij =
W e_ij + b (embedding.py), the published attention is

    score_ij = (q_i / sqrt(H)) . (k_j + R_ij),   out_i = sum_j a_ij (v_j + R_ij).

Here W is applied outside the sum over pairs: q_i . W e_ij = (W^T q_i) . e_ij, and
sum_j a_ij W e_ij = W m_i with m_i = sum_j a_ij e_ij; b does not depend on j, so it does
not change the softmax. So W acts on whole batches, before and after the loop over
pairs. e_ij is a function of one number per pair: it is computed for a tile of query
rows, used, and dropped; the explicit backward pass below computes it again. No tensor
of the size of the pairs is stored, except `IntervalTerm.kept_P`. On a CPU a tile is an
event or some of its rows, without padding; on a GPU it is the same rows of all events.

`plain_interval_attention` applies the formula directly; it is the simple version.

Shape letters: T tokens, B events, L tokens of an event, l rows of a tile, N heads,
H head width, C channels of the interval, P all sinusoids of all pairs. On a GPU a
leading (B,) is added, with L the longest event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet_icecube2nd.nn.embedding import SpaceTimeInterval, interval_waves
from graphnet_icecube2nd.nn.packing import (
    Packing,
    empty_packed,
    event_slices,
    operation,
    wide,
)

# Numbers in one tile of sinusoids, 16 MB in float32.
TILE_NUMBERS = 2**22
# Most numbers stored for several blocks or models, 128 MB in float32.
KEPT_NUMBERS = 2**25


class IntervalTerm(NamedTuple):
    """The interval's map, and the positions and times of the pulses."""

    interval: SpaceTimeInterval  # the module with the map W, b
    places_T4: Tensor  # scaled x, y, z, time of all pulses
    kept_P: Tensor | None = (
        None  # `sinusoids_of_pairs`, if they are used more than once
    )


def attend_with_interval(
    qkv_T3NH: Tensor, term: IntervalTerm, packing: Packing
) -> Tensor:
    """Let every pulse attend to its event, with the interval's weights, (T, N, H).

    Queries, keys and values are not yet divided by sqrt(H).
    """
    if term.places_T4.requires_grad:
        # Rare, for example in a study of the inputs of a prediction.
        return plain_interval_attention(qkv_T3NH, term, packing)
    weight_HC, bias_H = term.interval.project.weight, term.interval.project.bias
    attended: Tensor = attend_by_tile(
        qkv_T3NH, weight_HC, bias_H, term.places_T4, packing.offsets, term.kept_P
    )
    return attended


def plain_interval_attention(
    qkv_T3NH: Tensor, term: IntervalTerm, packing: Packing
) -> Tensor:
    """Do the same as `attend_with_interval` by the formula, storing all R_ij."""
    q, k, v = packing.pad(qkv_T3NH).permute(2, 0, 3, 1, 4)
    places_BL4 = packing.pad(term.places_T4)
    relative_BLLC = term.interval(places_BL4, places_BL4)
    q = q * q.shape[-1] ** -0.5
    score = q @ k.mT + torch.einsum("bnih,bijh->bnij", q, relative_BLLC)
    score = score.masked_fill(~packing.valid_BL[:, None, None], -torch.inf)
    weight = score.softmax(-1)
    attended = weight @ v + torch.einsum("bnij,bijh->bnih", weight, relative_BLLC)
    return packing.unpad(attended.transpose(1, 2))


@torch.no_grad()
def sinusoids_of_pairs(
    places_T4: Tensor, packing: Packing, channels: int
) -> Tensor | None:
    """Return the sinusoids of all pairs, (P,), or None if they are too many."""
    layout = Layout.of(places_T4, packing.offsets)
    places = layout.arrange(places_T4)
    parts_4 = [places[part] for part in layout.parts]
    sizes = [num_waves(part, channels) for part in parts_4]
    if sum(sizes) > KEPT_NUMBERS:
        return None
    kept_P = places.new_empty(sum(sizes))
    for part, scratch_P in zip(parts_4, torch.split(kept_P, sizes), strict=True):
        interval_waves(part, part, channels, scratch_P)
    return kept_P


@operation
def attend_by_tile(
    qkv_T3NH: Tensor,
    weight_HC: Tensor,
    bias_H: Tensor,
    places_T4: Tensor,
    offsets: Tensor,
    kept_P: Tensor | None,
) -> Tensor:
    """Return the attention of every pulse, (T, N, H)."""
    kind = _kind(qkv_T3NH)
    layout = Layout.of(qkv_T3NH, offsets)
    qkv = layout.arrange(qkv_T3NH)
    weight_HC = weight_HC.to(kind)
    query = qkv[..., 0, :, :].to(kind) @ (weight_HC * qkv.shape[-1] ** -0.5)
    met = torch.empty_like(query)
    attended = qkv.new_empty((*qkv.shape[:-3], *qkv.shape[-2:]), dtype=kind)
    walk = layout.tables(qkv, places_T4, weight_HC.shape[1], kept_P)
    for part, table in walk:
        for rows, waves_lCL in table.tiles():
            attention_lNL = table.attend(rows, waves_lCL, query[part][..., rows, :, :])
            met[part][..., rows, :, :] = attention_lNL @ waves_lCL.mT
            seen_NlH = attention_lNL.transpose(-3, -2) @ table.v_NLH
            attended[part][..., rows, :, :] = seen_NlH.transpose(-3, -2)
    attended += F.linear(met, weight_HC, bias_H.to(kind))
    return layout.pack(attended).to(qkv_T3NH.dtype)


@operation
def attend_by_tile_backward(
    gradient_TNH: Tensor,
    qkv_T3NH: Tensor,
    weight_HC: Tensor,
    places_T4: Tensor,
    offsets: Tensor,
    kept_P: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return gradients for queries, keys and values, (T, 3, N, H), and for W."""
    kind = _kind(qkv_T3NH)
    layout = Layout.of(qkv_T3NH, offsets)
    qkv, gradient = layout.arrange(qkv_T3NH), layout.arrange(gradient_TNH).to(kind)
    of_weight_dtype, weight_HC = weight_HC.dtype, weight_HC.to(kind)
    scale = qkv.shape[-1] ** -0.5
    q = qkv[..., 0, :, :].to(kind) * scale
    query, of_met = q @ weight_HC, gradient @ weight_HC
    met, of_query = torch.empty_like(query), torch.empty_like(query)
    of_qkv = torch.zeros_like(qkv, dtype=kind)
    walk = layout.tables(qkv, places_T4, weight_HC.shape[1], kept_P)
    for part, table in walk:
        of_q_LNH, of_k_LNH, of_v_LNH = of_qkv[part].unbind(-3)
        for rows, waves_lCL in table.tiles():
            attention_lNL = table.attend(rows, waves_lCL, query[part][..., rows, :, :])
            attention_NlL = attention_lNL.transpose(-3, -2)
            gradient_NlH = gradient[part][..., rows, :, :].transpose(-3, -2)
            q_NlH = q[part][..., rows, :, :].transpose(-3, -2)

            # out = A v + met W^T + b with met = A e
            met[part][..., rows, :, :] = attention_lNL @ waves_lCL.mT
            of_v_LNH += (attention_NlL.mT @ gradient_NlH).transpose(-3, -2)
            of_attention_lNL = of_met[part][..., rows, :, :] @ waves_lCL
            of_attention_lNL += (gradient_NlH @ table.v_NLH.mT).transpose(-3, -2)
            of_score_lNL = torch._softmax_backward_data(
                of_attention_lNL, attention_lNL, -1, attention_lNL.dtype
            )

            # score = q k^T + (q W) e
            of_query[part][..., rows, :, :] = of_score_lNL @ waves_lCL.mT
            of_score_NlL = of_score_lNL.transpose(-3, -2)
            of_q_LNH[..., rows, :, :] = (of_score_NlL @ table.k_NLH).transpose(-3, -2)
            of_k_LNH += (of_score_NlL.mT @ q_NlH).transpose(-3, -2)
    of_q = of_qkv[..., 0, :, :]
    of_q += of_query @ weight_HC.mT
    of_q *= scale
    of_weight_HC = gradient.flatten(0, -2).mT @ met.flatten(0, -2)
    of_weight_HC += q.flatten(0, -2).mT @ of_query.flatten(0, -2)
    return layout.pack(of_qkv).to(qkv_T3NH.dtype), of_weight_HC.to(of_weight_dtype)


attend_by_tile.register_fake(
    lambda qkv_T3NH, *_: qkv_T3NH.new_empty(qkv_T3NH[:, 0].shape)
)
attend_by_tile_backward.register_fake(
    lambda gradient_TNH, qkv_T3NH, weight_HC, *_: (
        empty_packed(qkv_T3NH),
        torch.empty_like(weight_HC),
    )
)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    qkv_T3NH, weight_HC, bias_H, places_T4, offsets, kept_P = inputs
    ctx.save_for_backward(qkv_T3NH, weight_HC, places_T4, offsets, kept_P)
    ctx.bias_dtype = bias_H.dtype


def _gradient(ctx: Any, gradient_TNH: Tensor) -> tuple[Tensor | None, ...]:
    of_qkv_T3NH, of_weight_HC = attend_by_tile_backward(
        gradient_TNH, *ctx.saved_tensors
    )
    of_bias_H = gradient_TNH.sum((0, 1), dtype=wide(gradient_TNH)).to(ctx.bias_dtype)
    return of_qkv_T3NH, of_weight_HC, of_bias_H, None, None, None


attend_by_tile.register_autograd(_gradient, setup_context=_remember)


class Table(NamedTuple):
    """Pulses that attend to each other: an event, or padded events side by side."""

    q_NLH: Tensor  # divided by sqrt(H), in the type of the sums
    k_NLH: Tensor
    v_NLH: Tensor
    places_L4: Tensor
    absent_L: Tensor | None  # True for padding
    waves_P: Tensor  # all sinusoids, or memory that tiles overwrite one by one
    are_kept: bool
    channels: int

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of the table, and their sinusoids, (l, C, L)."""
        kind = self.q_NLH.dtype
        *batch, length, _ = self.places_L4.shape
        if self.are_kept:
            kept = self.waves_P.view(*batch, length, self.channels, length)
            yield slice(None), kept.to(kind)
            return
        num_rows = rows_of_tile(self.places_L4, self.channels)
        for start in range(0, length, num_rows):
            rows = slice(start, min(start + num_rows, length))
            places_l4 = self.places_L4[..., rows, :]
            waves_lCL = interval_waves(
                places_l4, self.places_L4, self.channels, self.waves_P
            )
            yield rows, waves_lCL.to(kind)

    def attend(self, rows: slice, waves_lCL: Tensor, query_lNC: Tensor) -> Tensor:
        """Return the softmax of the scores of some rows, (l, N, L)."""
        score_lNL = query_lNC @ waves_lCL
        score_lNL += (self.q_NLH[..., rows, :] @ self.k_NLH.mT).transpose(-3, -2)
        if self.absent_L is not None:
            score_lNL.masked_fill_(self.absent_L[..., None, None, :], -torch.inf)
        if score_lNL.dtype == wide(score_lNL):
            return torch._softmax(score_lNL, -1, False, out=score_lNL)
        return score_lNL.softmax(-1, dtype=torch.float32).to(score_lNL.dtype)


def rows_of_tile(places_L4: Tensor, channels: int) -> int:
    """Return the number of rows whose sinusoids fill a tile, at most L."""
    num = TILE_NUMBERS // (places_L4[..., 0].numel() * channels)
    return min(max(1, num), places_L4.shape[-2])


def num_waves(places_L4: Tensor, channels: int, num_rows: int | None = None) -> int:
    """Return the number of sinusoids of some rows of a table; None: of all rows."""
    num_rows = places_L4.shape[-2] if num_rows is None else num_rows
    return num_rows * places_L4[..., 0].numel() * channels


class Layout(NamedTuple):
    """Arrangement of a packed batch: event by event, or padded."""

    parts: list[slice]
    packing: Packing | None

    @classmethod
    def of(cls, packed: Tensor, offsets: Tensor) -> Layout:
        """Return the arrangement that suits the device."""
        if packed.device.type == "cpu":
            return cls(event_slices(offsets), None)
        return cls([slice(None)], Packing(offsets, len(packed)))

    def arrange(self, packed: Tensor) -> Tensor:
        """Return (T, ...) as (T, ...) or (B, L, ...)."""
        return packed if self.packing is None else self.packing.pad(packed)

    def pack(self, arranged: Tensor) -> Tensor:
        """Return an arranged tensor as (T, ...)."""
        return arranged if self.packing is None else self.packing.unpad(arranged)

    def tables(
        self, qkv: Tensor, places_T4: Tensor, channels: int, kept_P: Tensor | None
    ) -> Iterator[tuple[slice, Table]]:
        """Yield each part of the arranged tensors, and its table."""
        kind, places = _kind(qkv), self.arrange(places_T4)
        parts_4 = [places[part] for part in self.parts]
        are_kept = kept_P is not None
        if kept_P is None:
            sizes = [num_waves(p, channels, rows_of_tile(p, channels)) for p in parts_4]
            waves = [places.new_empty(max(sizes))] * len(parts_4)
        else:
            sizes = [num_waves(part, channels) for part in parts_4]
            waves = list(torch.split(kept_P, sizes))
        absent = None if self.packing is None else ~self.packing.valid_BL
        for part, part_4, own in zip(self.parts, parts_4, waves, strict=True):
            q, k, v = (t.transpose(-3, -2).to(kind) for t in qkv[part].unbind(-3))
            q = q * q.shape[-1] ** -0.5
            yield part, Table(q, k, v, part_4, absent, own, are_kept, channels)


def _kind(qkv: Tensor) -> torch.dtype:
    """Return the type of sums: on a CPU float32, as in event_attention.py."""
    return wide(qkv) if qkv.device.type == "cpu" else qkv.dtype
