"""Residual branch, MLP, and the transformer block made of them.

Reference: BEiT v2 (arXiv:2208.06366), as the 2nd-place code uses it: norm first, GELU,
and in the encoder a learned scale of every branch. Shape letters: T tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.nn.packing import Packing


class Mlp(nn.Module):
    """Two linear layers with GELU between them.

    Args:
        dim: D.
        ratio: Width between the layers over D.
    """

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ratio * dim)
        self.activate = nn.GELU()
        self.contract = nn.Linear(ratio * dim, dim)

    def forward(self, latent_TD: Tensor) -> Tensor:
        """Map (T, D) to (T, D)."""
        result: Tensor = self.contract(self.activate(self.expand(latent_TD)))
        return result


class Residual(nn.Module):
    """x + scale * fn(norm(x)): every residual branch of the models.

    Args:
        dim: D.
        fn: The branch.
        layer_scale: Multiply the branch with a learned vector that starts at 1.
    """

    def __init__(self, dim: int, fn: nn.Module, *, layer_scale: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn
        self.scale = nn.Parameter(torch.ones(dim)) if layer_scale else None

    def forward(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Add the branch; further arguments go to `fn`."""
        branch: Tensor = self.fn(self.norm(latent_TD), *args)
        return latent_TD + (branch if self.scale is None else self.scale * branch)


class Block(nn.Module):
    """Attention, then an MLP, each a residual branch.

    Args:
        dim: D.
        attention: Called as `attention(latent_TD, packing, *further)`.
        layer_scale: Learned scale of both branches.
    """

    def __init__(self, dim: int, attention: nn.Module, *, layer_scale: bool) -> None:
        super().__init__()
        self.attention = Residual(dim, attention, layer_scale=layer_scale)
        self.mlp = Residual(dim, Mlp(dim), layer_scale=layer_scale)

    def forward(self, latent_TD: Tensor, packing: Packing, *args: Any) -> Tensor:
        """Map (T, D) to (T, D); further arguments go to the attention."""
        latent_TD = self.attention(latent_TD, packing, *args)
        result: Tensor = self.mlp(latent_TD)
        return result
