"""What the class token alone collects, for the last block.

Nothing reads the other tokens after the last block, and one query per event and head
needs no keys: its score with a token x is (W_k^T q) . x, and what it collects is
W_v sum_j a_j x_j. So keys and values are never made, and the last block costs a few
hundredths of any other. (The key's bias adds the same to all scores of a query, which
the softmax does not see.)

Shape letters: T tokens, B events, L tokens of an event, N heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.nn.packing import Packing, event_slices, wide, without_autocast


def collect(query_BND: Tensor, latent_TD: Tensor, packing: Packing) -> Tensor:
    """Average each event's tokens, weighed by the softmax of their query . latent.

    Args:
        query_BND: Queries of each event and head, as wide as a token.
        latent_TD: The tokens.
        packing: The events.

    Returns:
        (B, N, D).
    """
    if latent_TD.device.type == "cpu":
        collected: Tensor = collect_by_event(query_BND, latent_TD, packing.offsets)
        return collected
    return padded_collect(query_BND, latent_TD, packing)


def padded_collect(query_BND: Tensor, latent_TD: Tensor, packing: Packing) -> Tensor:
    """The same as `collect`, with events side by side and padding masked away."""
    latent_BLD = packing.pad(latent_TD)
    score_BNL = query_BND @ latent_BLD.mT
    score_BNL = score_BNL.masked_fill(~packing.valid_BL[:, None], -torch.inf)
    weight_BNL = score_BNL.softmax(-1, dtype=wide(score_BNL)).to(latent_BLD.dtype)
    return weight_BNL @ latent_BLD


@torch.library.custom_op(
    "graphnet_icecube2nd::collect_by_event", mutates_args=(), device_types="cpu"
)
@without_autocast
def collect_by_event(query_BND: Tensor, latent_TD: Tensor, offsets: Tensor) -> Tensor:
    """Return what each event's queries collect, (B, N, D)."""
    collected_BND = torch.empty_like(query_BND, memory_format=torch.contiguous_format)
    for number, event in enumerate(event_slices(offsets)):
        latent_LD = latent_TD[event]
        weight_NL = _weigh(query_BND[number], latent_LD).to(latent_LD.dtype)
        torch.mm(weight_NL, latent_LD, out=collected_BND[number])
    return collected_BND


@collect_by_event.register_fake
def _(query_BND: Tensor, latent_TD: Tensor, offsets: Tensor) -> Tensor:
    return torch.empty_like(query_BND, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "graphnet_icecube2nd::collect_by_event_backward",
    mutates_args=(),
    device_types="cpu",
)
@without_autocast
def _collect_by_event_backward(
    gradient_BND: Tensor, query_BND: Tensor, latent_TD: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    of_query_BND = torch.empty_like(query_BND, memory_format=torch.contiguous_format)
    of_latent_TD = torch.empty_like(latent_TD, memory_format=torch.contiguous_format)
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


@_collect_by_event_backward.register_fake
def _(
    gradient_BND: Tensor, query_BND: Tensor, latent_TD: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(query_BND, memory_format=torch.contiguous_format),
        torch.empty_like(latent_TD, memory_format=torch.contiguous_format),
    )


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, gradient_BND: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*_collect_by_event_backward(gradient_BND, *ctx.saved_tensors), None)


collect_by_event.register_autograd(_gradient, setup_context=_remember)


def _weigh(query_ND: Tensor, latent_LD: Tensor) -> Tensor:
    score_NL = query_ND @ latent_LD.mT
    return score_NL.softmax(-1, dtype=wide(score_NL))
