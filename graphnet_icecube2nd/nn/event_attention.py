"""Attention of all tokens of an event, on packed batches.

On a CPU each event is computed alone, directly from the packed table into the packed
result, without padding, masks or copies. Short events are three batched products in
float32 for any input type; this is as fast as half precision at these sizes and keeps
the scores exact. Long events use PyTorch's tiled kernel, which stores no (L, L) table.
On a GPU one variable-length kernel handles half precision, and float32 is padded.
`padded_attention` is the simple version of all of them.

In the last block only the class token is used, and one query per event and head needs
no keys: its score with a token x is (W_k^T q) . x, and the attended value is
W_v sum_j a_j x_j. So keys and values are not computed, and the last block costs a few
hundredths of any other. (The key's bias adds the same to all scores of a query, which
does not change the softmax.) `collect` does this; `padded_collect` is its simple
version.

The operations are registered with PyTorch, so `torch.compile` treats each as one node
for all lengths.

Shape letters: T tokens, B events, L tokens of an event, N heads, H head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet_icecube2nd.nn.packing import (
    Packing,
    empty_packed,
    event_slices,
    operation,
    wide,
)

# Above this length the tiled kernel is faster, and a table of scores would be large.
LONGEST_SHORT = 256

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(qkv_T3NH: Tensor, packing: Packing) -> Tensor:
    """Let every token attend to all tokens of its event, (T, N, H).

    Queries, keys and values are not yet divided by sqrt(H).
    """
    if qkv_T3NH.device.type == "cpu":
        on_cpu: Tensor = attend_by_event(qkv_T3NH, packing.offsets)[0]
        return on_cpu
    kernel = variable_length_kernel()
    if kernel is not None and qkv_T3NH.dtype in (torch.float16, torch.bfloat16):
        borders, longest = packing.offsets.int(), packing.longest
        q, k, v = qkv_T3NH.unbind(1)
        attended: Tensor = kernel(q, k, v, borders, borders, longest, longest)
        return attended
    return padded_attention(qkv_T3NH, packing)


def padded_attention(qkv_T3NH: Tensor, packing: Packing) -> Tensor:
    """Do the same as `attend`, with events side by side and masked padding."""
    q, k, v = packing.pad(qkv_T3NH).permute(2, 0, 3, 1, 4)
    mask = packing.valid_BL[:, None, None, :]
    attended_BNLH = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return packing.unpad(attended_BNLH.transpose(1, 2))


@cache
def variable_length_kernel() -> Callable[..., Any] | None:
    """Return PyTorch's attention over packed sequences, if it has one (from 2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    kernel: Callable[..., Any] = varlen_attn
    return kernel


@operation
def attend_by_event(qkv_T3NH: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention of every token, (T, N, H), and a value for backward.

    That value is log(sum(exp(scores))), (T, N), set for long events only.
    """
    attended_TNH, logsum_TN = _empty_results(qkv_T3NH, offsets)
    scale = qkv_T3NH.shape[-1] ** -0.5
    for event in event_slices(offsets):
        part = qkv_T3NH[event]
        if len(part) <= LONGEST_SHORT:
            q, k, v = _heads_first(part.to(logsum_TN.dtype))
            weight_NLL = torch.bmm(q * scale, k.mT).softmax(-1)
            attended_TNH[event] = torch.bmm(weight_NLL, v).transpose(0, 1)
        else:
            attended, logsum = flash(*_heads_first(part)[:, None])
            attended_TNH[event] = attended[0].transpose(0, 1)
            logsum_TN[event] = logsum[0].T
    return attended_TNH, logsum_TN


def _empty_results(qkv_T3NH: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    num_tokens, _, num_heads, head_size = qkv_T3NH.shape
    attended_TNH = qkv_T3NH.new_empty(num_tokens, num_heads, head_size)
    logsum_TN = qkv_T3NH.new_empty(num_tokens, num_heads, dtype=wide(qkv_T3NH))
    return attended_TNH, logsum_TN


@operation
def attend_by_event_backward(
    gradient_TNH: Tensor,
    qkv_T3NH: Tensor,
    attended_TNH: Tensor,
    logsum_TN: Tensor,
    offsets: Tensor,
) -> Tensor:
    """Return the gradient with respect to queries, keys and values, (T, 3, N, H)."""
    scale = qkv_T3NH.shape[-1] ** -0.5
    result_T3NH = empty_packed(qkv_T3NH)
    for event in event_slices(offsets):
        part, gradient_LNH = qkv_T3NH[event], gradient_TNH[event]
        if len(part) <= LONGEST_SHORT:
            q, k, v = _heads_first(part.to(logsum_TN.dtype))
            q = q * scale
            gradient = gradient_LNH.to(logsum_TN.dtype).transpose(0, 1)
            weight = torch.bmm(q, k.mT).softmax(-1)
            of_weight = torch.bmm(gradient, v.mT)
            of_score = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            parts = (
                torch.bmm(of_score, k).mul_(scale),
                torch.bmm(of_score.mT, q),
                torch.bmm(weight.mT, gradient),
            )
        else:
            q, k, v = _heads_first(part)[:, None]
            attended = attended_TNH[event].transpose(0, 1)[None]
            logsum = logsum_TN[event].T[None]
            gradient = gradient_LNH.transpose(0, 1)[None]
            found = flash_backward(gradient, q, k, v, attended, logsum, 0.0, False)
            parts = tuple(one[0] for one in found)
        for number, one in enumerate(parts):
            result_T3NH[event, number] = one.transpose(0, 1)
    return result_T3NH


attend_by_event.register_fake(_empty_results)
attend_by_event_backward.register_fake(
    lambda gradient_TNH, qkv_T3NH, *_: empty_packed(qkv_T3NH)
)
attend_by_event.register_autograd(
    lambda ctx, gradient_TNH, _: (
        attend_by_event_backward(gradient_TNH, *ctx.saved_tensors),
        None,
    ),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(
        inputs[0], *output, inputs[1]
    ),
)


def _heads_first(part_L3NH: Tensor) -> Tensor:
    return part_L3NH.permute(1, 2, 0, 3)


def collect(query_BND: Tensor, latent_TD: Tensor, packing: Packing) -> Tensor:
    """Average each event's tokens with weights softmax(query . token), (B, N, D)."""
    if latent_TD.device.type == "cpu":
        collected: Tensor = collect_by_event(query_BND, latent_TD, packing.offsets)
        return collected
    return padded_collect(query_BND, latent_TD, packing)


def padded_collect(query_BND: Tensor, latent_TD: Tensor, packing: Packing) -> Tensor:
    """Do the same as `collect`, with events side by side and masked padding."""
    latent_BLD = packing.pad(latent_TD)
    score_BNL = query_BND @ latent_BLD.mT
    score_BNL = score_BNL.masked_fill(~packing.valid_BL[:, None], -torch.inf)
    weight_BNL = score_BNL.softmax(-1, dtype=wide(score_BNL)).to(latent_BLD.dtype)
    return weight_BNL @ latent_BLD


@operation
def collect_by_event(query_BND: Tensor, latent_TD: Tensor, offsets: Tensor) -> Tensor:
    """Return the averages of `collect`, (B, N, D), event by event."""
    collected_BND = empty_packed(query_BND)
    for number, event in enumerate(event_slices(offsets)):
        latent_LD = latent_TD[event]
        weight_NL = _weigh(query_BND[number], latent_LD).to(latent_LD.dtype)
        torch.mm(weight_NL, latent_LD, out=collected_BND[number])
    return collected_BND


@operation
def collect_by_event_backward(
    gradient_BND: Tensor, query_BND: Tensor, latent_TD: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to queries, (B, N, D), and tokens, (T, D)."""
    of_query_BND = empty_packed(query_BND)
    of_latent_TD = empty_packed(latent_TD)
    for number, event in enumerate(event_slices(offsets)):
        query_ND, gradient_ND = query_BND[number], gradient_BND[number]
        latent_LD = latent_TD[event]
        weight_NL = _weigh(query_ND, latent_LD)
        of_weight_NL = (gradient_ND @ latent_LD.mT).to(weight_NL.dtype)
        of_score_NL = torch._softmax_backward_data(
            of_weight_NL, weight_NL, -1, weight_NL.dtype
        ).to(latent_LD.dtype)
        torch.mm(of_score_NL, latent_LD, out=of_query_BND[number])
        of_latent_LD = torch.mm(weight_NL.to(latent_LD.dtype).mT, gradient_ND)
        torch.addmm(of_latent_LD, of_score_NL.mT, query_ND, out=of_latent_TD[event])
    return of_query_BND, of_latent_TD


collect_by_event.register_fake(lambda query_BND, *_: empty_packed(query_BND))
collect_by_event_backward.register_fake(
    lambda gradient_BND, query_BND, latent_TD, offsets: (
        empty_packed(query_BND),
        empty_packed(latent_TD),
    )
)
collect_by_event.register_autograd(
    lambda ctx, gradient_BND: (
        *collect_by_event_backward(gradient_BND, *ctx.saved_tensors),
        None,
    ),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def _weigh(query_ND: Tensor, latent_LD: Tensor) -> Tensor:
    score_NL = query_ND @ latent_LD.mT
    return score_NL.softmax(-1, dtype=wide(score_NL))
