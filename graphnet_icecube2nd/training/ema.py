"""The exponential moving average of a model's weights.

Source: fastxtend's `EMACallback`, which the published training calls with its default
decay of 0.9998 for each micro-batch, whether or not the optimiser stepped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """A copy of a model that holds the moving average of its parameters.

    Args:
        model: What is averaged; the copy begins with its weights.
        decay: What remains of the average after one micro-batch, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    def update(self, model: nn.Module, num_batches: int = 1) -> None:
        """Move towards the model's weights.

        Weights stand still between two optimiser steps, so the micro-batches of one
        step come to a single move with the decay to the power of their number.

        Args:
            model: The model after an optimiser step.
            num_batches: Micro-batches of that step.
        """
        share = 1 - self.decay**num_batches
        with torch.no_grad():
            ours, theirs = _floating(self.model), _floating(model)
            torch._foreach_lerp_(ours, theirs, share)

    def train(self, mode: bool = True) -> WeightAverage:
        """Stay in evaluation mode."""
        return self


def _floating(model: nn.Module) -> list[Tensor]:
    tensors: Iterable[Tensor] = [*model.parameters(), *model.buffers()]
    return [t.detach() for t in tensors if t.is_floating_point()]
