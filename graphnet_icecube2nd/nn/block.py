"""Residual branch, MLP, and the transformer block made of them.

Reference: BEiT v2 (arXiv:2208.06366), as the 2nd-place code uses it: norm first, GELU,
and in the encoder a learned scale of every branch. Shape letters: T tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.nn.linear import linear_add, linear_gelu
from graphnet_icecube2nd.nn.packing import Packing


class Branch(nn.Module):
    """A map of tokens that ends in a linear layer.

    The two are asked for one by one, so that `Residual` can add in the same pass.
    """

    @property
    def last(self) -> nn.Linear:
        """The layer it ends in."""
        raise NotImplementedError

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return what the last layer acts on, (T, E)."""
        raise NotImplementedError

    def first_before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return the same of the first token of every event only, (B, E)."""
        raise NotImplementedError

    def forward(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Map (T, D) to (T, D)."""
        result: Tensor = self.last(self.before_last(latent_TD, *args))
        return result


class Mlp(Branch):
    """Two linear layers with GELU between them.

    Args:
        dim: D.
        ratio: Width between the layers over D.
    """

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ratio * dim)
        self.contract = nn.Linear(ratio * dim, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer it ends in."""
        return self.contract

    def before_last(self, latent_TD: Tensor, *args: Any) -> Tensor:
        """Return what the last layer acts on, (T, ratio * D)."""
        return linear_gelu(latent_TD, self.expand)


class Residual(nn.Module):
    """x + scale * fn(norm(x)): every residual branch of the models.

    Args:
        dim: D.
        fn: The branch.
        layer_scale: Multiply the branch with a learned vector that starts at 1.
    """

    def __init__(self, dim: int, fn: Branch, *, layer_scale: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn
        self.scale = nn.Parameter(torch.ones(dim)) if layer_scale else None

    def forward(
        self, latent_TD: Tensor, *args: Any, first: Tensor | None = None
    ) -> Tensor:
        """Add the branch.

        Args:
            latent_TD: The tokens.
            args: For the branch.
            first: Places of the first tokens, (B,), if only theirs are wanted.

        Returns:
            (T, D), or (B, D) of the first tokens.
        """
        normed_TD = self.norm(latent_TD)
        if first is None:
            inner_TD = self.fn.before_last(normed_TD, *args)
        else:
            inner_TD = self.fn.first_before_last(normed_TD, *args)
            latent_TD = latent_TD.index_select(0, first)
        return linear_add(inner_TD, self.fn.last, self.scale, latent_TD)


class Block(nn.Module):
    """Attention, then an MLP, each a residual branch.

    Args:
        dim: D.
        attention: Its inputs are the tokens, their packing, and what `Block` is given.
        layer_scale: Learned scale of both branches.
    """

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
        """Map the tokens to tokens.

        Args:
            latent_TD: The tokens.
            packing: The events.
            args: For the attention.
            first_only: Compute the first token of every event only.

        Returns:
            (T, D), or (B, D) of the first tokens only.
        """
        first = packing.offsets[:-1] if first_only else None
        latent_TD = self.attention(latent_TD, packing, *args, first=first)
        result: Tensor = self.mlp(latent_TD)
        return result
