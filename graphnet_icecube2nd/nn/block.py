"""Transformer blocks: residual branches of attention and of an MLP.

`SelfAttention` is used in the encoder, `RelativeAttention` in the blocks before it; it
can weight pairs by their space-time interval. event_attention.py and
interval_attention.py compute the attention within events.

References: BEiT v2 (arXiv:2208.06366), as used in the 2nd-place code
(github.com/DrHB/icecube-2nd-place, src/models.py): norm first, GELU, and a learned
scale of every branch of the encoder. Shape letters: T tokens, B events, D width, N
heads, H head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphnet_icecube2nd.nn.event_attention import attend, collect
from graphnet_icecube2nd.nn.interval_attention import attend_with_interval
from graphnet_icecube2nd.nn.linear import linear_add, linear_gelu
from graphnet_icecube2nd.nn.packing import Packing


class Branch(nn.Module):
    """A map of tokens that ends with a linear layer.

    `Residual` calls the two parts separately, so that it can add in the same pass.
    """

    LAST = "output"  # name of the last layer

    @property
    def last(self) -> nn.Linear:
        """The last layer."""
        layer: nn.Linear = getattr(self, self.LAST)
        return layer

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return the input of the last layer, (T, E)."""
        raise NotImplementedError

    def first_before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return the same for the first token of every event only, (B, E)."""
        raise NotImplementedError

    def forward(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Map (T, D) to (T, D)."""
        result: Tensor = self.last(self.before_last(latent_TD, *args))
        return result


class Mlp(Branch):
    """Two linear layers with GELU between them; the hidden layer is 4 times as wide."""

    LAST = "contract"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return the input of the last layer, (T, 4 D)."""
        return linear_gelu(latent_TD, self.expand)


class SelfAttention(Branch):
    """Multi-head attention of all tokens of an event to each other."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Attend within each event of the packing in `args`, (T, D)."""
        (packing,) = args
        qkv_T3NH = _split_heads(self.qkv(latent_TD), self.num_heads)
        return attend(qkv_T3NH, packing).flatten(1)

    def first_before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Let the first token of each event attend to all of them, (B, D)."""
        (packing,) = args
        first_BD = latent_TD.index_select(0, packing.offsets[:-1])
        to_query, to_key, to_value = self.qkv.weight.chunk(3)
        query_bias, _, value_bias = self.qkv.bias.chunk(3)
        query_BD = F.linear(first_BD, to_query, query_bias)
        query_BNH = query_BD.view(len(query_BD), self.num_heads, -1)
        query_BNH = query_BNH * query_BNH.shape[-1] ** -0.5
        to_key_NHD = to_key.view(self.num_heads, -1, len(to_key))
        query_NBD = query_BNH.transpose(0, 1) @ to_key_NHD
        collected_BND = collect(
            query_NBD.transpose(0, 1).to(latent_TD.dtype), latent_TD, packing
        )
        to_value_NHD = to_value.view(self.num_heads, -1, len(to_value))
        value_NBH = collected_BND.transpose(0, 1) @ to_value_NHD.mT
        value_BD: Tensor = value_NBH.transpose(0, 1).flatten(1) + value_bias
        return value_BD


class RelativeAttention(Branch):
    """Attention that can weight pairs by their space-time interval."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Attend within each event, (T, D).

        `args` are the packing and, if the interval is used, an `IntervalTerm`.
        """
        packing, term = args if len(args) == 2 else (*args, None)
        weight = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        qkv_T3NH = _split_heads(F.linear(latent_TD, weight), self.num_heads)
        if term is None:
            attended_TNH = attend(qkv_T3NH, packing)
        else:
            attended_TNH = attend_with_interval(qkv_T3NH, term, packing)
        return attended_TNH.flatten(1)


class Residual(nn.Module):
    """x + scale * fn(norm(x)): every residual branch of the models.

    With `layer_scale` the scale is a learned vector, which starts at 1.
    """

    def __init__(self, dim: int, fn: Branch, *, layer_scale: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn
        self.scale = nn.Parameter(torch.ones(dim)) if layer_scale else None

    def forward(
        self, latent_TD: Tensor, *args: Any, first: Tensor | None = None
    ) -> Tensor:
        """Add the branch, (T, D), or, with `first`, the first tokens' rows only."""
        normed_TD = self.norm(latent_TD)
        if first is None:
            inner_TD = self.fn.before_last(normed_TD, *args)
        else:
            inner_TD = self.fn.first_before_last(normed_TD, *args)
            latent_TD = latent_TD.index_select(0, first)
        return linear_add(inner_TD, self.fn.last, self.scale, latent_TD)


class Block(nn.Module):
    """Attention, then an MLP, each a residual branch."""

    def __init__(self, dim: int, attention: Branch, *, layer_scale: bool) -> None:
        super().__init__()
        self.attention = Residual(dim, attention, layer_scale=layer_scale)
        self.mlp = Residual(dim, Mlp(dim), layer_scale=layer_scale)

    def forward(
        self,
        latent_TD: Tensor,
        packing: Packing,
        *args: Any,
        first_only: bool = False,
    ) -> Tensor:
        """Map tokens to tokens, (T, D), or to each event's first, (B, D).

        `first_only` selects the second form; `args` are passed to the attention.
        """
        first = packing.offsets[:-1] if first_only else None
        latent_TD = self.attention(latent_TD, packing, *args, first=first)
        result: Tensor = self.mlp(latent_TD)
        return result


def _split_heads(qkv_TE: Tensor, num_heads: int) -> Tensor:
    return qkv_TE.view(len(qkv_TE), 3, num_heads, -1)
