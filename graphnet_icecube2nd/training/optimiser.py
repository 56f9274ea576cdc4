"""The optimiser, its step in one pass over the parameters where PyTorch can."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Devices whose fused AdamW all supported versions of PyTorch have.
FUSED_DEVICES = ("cpu", "cuda")


def make_adamw(
    parameters: Iterable[Tensor],
    *,
    learning_rate: float,
    weight_decay: float = 0.05,
    eps: float = 1e-8,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Return AdamW for the parameters that are trained.

    The step is fused (one pass over parameter, gradient and both moments) where all
    parameters are real numbers on a CPU or CUDA device; else PyTorch chooses.

    Args:
        parameters: Of a model; those that want no gradient are left out.
        learning_rate: At the start.
        weight_decay: On every parameter, 0.05 as published.
        eps: As it came to be in the published training: the wrapper there drops the
            1e-7 that is asked for (github.com/DrHB/icecube-2nd-place, src/utils.py).
        fused: False: never. With a gradient scaler, a fused step takes the scale off
            by itself, after gradients were clipped with it.

    Raises:
        ValueError: No parameter is trained.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ValueError("no parameter wants a gradient: nothing to train")
    fused = fused and all(
        p.device.type in FUSED_DEVICES and p.is_floating_point() for p in trained
    )
    return torch.optim.AdamW(
        trained,
        lr=learning_rate,
        weight_decay=weight_decay,
        eps=eps,
        fused=fused or None,
    )
