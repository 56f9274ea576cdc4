"""The attention layers of the models: their parameters, and what calls what.

`SelfAttention` is the encoder's, `RelativeAttention` that of the blocks before it,
which can weigh pairs by their space-time interval. How tokens attend to each other
within events stands in event_attention.py, interval_attention.py and, for the class
token alone, class_attention.py.

Reference: the 2nd-place code (github.com/DrHB/icecube-2nd-place, src/models.py).
Shape letters: T tokens, B events, D width, N heads, H head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphnet_icecube2nd.nn.block import Branch
from graphnet_icecube2nd.nn.class_attention import collect
from graphnet_icecube2nd.nn.event_attention import attend
from graphnet_icecube2nd.nn.interval_attention import attend_with_interval


class SelfAttention(Branch):
    """Multi-head attention of all tokens of an event to each other.

    Args:
        dim: D.
        num_heads: N; divides D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer it ends in."""
        return self.output

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Attend within each event of the packing in `args`, (T, D)."""
        (packing,) = args
        qkv_T3NH = _split_heads(self.qkv(latent_TD), 3, self.num_heads)
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
    """Attention that can weigh pairs by their space-time interval.

    Args:
        dim: D.
        num_heads: N; divides D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer it ends in."""
        return self.output

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Attend within each event, (T, D).

        Args:
            latent_TD: The pulses.
            args: Their packing, and an `IntervalTerm` if the interval matters.
        """
        packing, term = args if len(args) == 2 else (*args, None)
        weight = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        qkv_T3NH = _split_heads(F.linear(latent_TD, weight), 3, self.num_heads)
        if term is None:
            attended_TNH = attend(qkv_T3NH, packing)
        else:
            attended_TNH = attend_with_interval(qkv_T3NH, term, packing)
        return attended_TNH.flatten(1)


def _split_heads(qkv_TE: Tensor, num_parts: int, num_heads: int) -> Tensor:
    return qkv_TE.view(len(qkv_TE), num_parts, num_heads, -1)
