"""The registry of backbones; `models.build` builds models of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from graphnet_icecube2nd.registry import Registry

ModelBuilder = Callable[..., nn.Module]
MODELS: Registry[ModelBuilder] = Registry("model")


def register_model(builder: ModelBuilder) -> ModelBuilder:
    """Register a function that builds a backbone, under the function's name.

    Args:
        builder: Takes constructor arguments as keywords, which override its own.
            Returns a module with `dim`, whose `forward` makes latent vectors
            (B, dim) of a `PackedBatch`; and perhaps `pulse_latents(batch)`, (T, dim).

    Raises:
        ValueError: The name is taken.
    """
    return MODELS.add(builder.__name__, builder)
