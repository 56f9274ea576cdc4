"""One-cycle schedule, AdamW, and the average of the weights.

Source of the schedule: L. Smith, arXiv:1803.09820. Cosines and end points are those of
fastai's `fit_one_cycle`, which the published training calls
(github.com/DrHB/icecube-2nd-place, train.py). PyTorch's `OneCycleLR` has another end
point: its `final_div_factor` divides the initial learning rate. Here learning rate and
momentum depend only on the step, so that a resumed run has no state to restore.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.errors import check_positive

# Devices whose fused AdamW all supported versions of PyTorch have.
FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Learning rate and momentum at any point of a stage.

    A value that is out of its range raises ValueError.
    """

    learning_rate: float  # maximum learning rate
    div: float = 25.0  # maximum divided by the initial learning rate
    div_final: float = 25.0  # maximum divided by the final learning rate
    # AdamW's first beta at the start, at the maximum and at the end.
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)
    pct_start: float = 0.01  # share of the stage in which the learning rate rises

    def __post_init__(self) -> None:
        object.__setattr__(self, "momenta", tuple(self.momenta))
        for name in ("learning_rate", "div", "div_final"):
            check_positive(name, getattr(self, name))
        if len(self.momenta) != 3 or not all(0 <= m < 1 for m in self.momenta):
            raise ValueError(
                f"momenta must be three numbers from 0 to 1, 1 excluded; found "
                f"{self.momenta}"
            )
        if not 0 < self.pct_start < 1:
            raise ValueError(
                f"pct_start must be between 0 and 1, both excluded; found "
                f"{self.pct_start}"
            )

    def learning_rate_at(self, share: float) -> float:
        """Return the learning rate after a share of the stage, 0 to 1."""
        begin = self.learning_rate / self.div
        end = self.learning_rate / self.div_final
        return self._at(share, begin, self.learning_rate, end)

    def momentum_at(self, share: float) -> float:
        """Return the momentum after a share of the stage, 0 to 1."""
        return self._at(share, *self.momenta)

    def _at(self, share: float, begin: float, middle: float, end: float) -> float:
        if share < self.pct_start:
            return _cosine(share / self.pct_start, begin, middle)
        return _cosine((share - self.pct_start) / (1 - self.pct_start), middle, end)


def _cosine(share: float, begin: float, end: float) -> float:
    """Interpolate between two values along half a cosine."""
    share = min(max(share, 0.0), 1.0)
    return begin + (1 - math.cos(math.pi * share)) / 2 * (end - begin)


class OneCycleScheduler(torch.optim.lr_scheduler.LRScheduler):
    """PyTorch scheduler of `OneCycle`; call `step` after each optimiser step.

    It suits trainers that take a scheduler's class and arguments, such as GraphNeT's,
    with AdamW or another optimiser with `betas`; `schedule` has `OneCycle`'s arguments.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        total_steps: int,
        last_epoch: int = -1,
        **schedule: Any,
    ) -> None:
        if total_steps < 1:
            raise ValueError(f"total_steps must be 1 or more, found {total_steps}")
        self.schedule, self.total_steps = OneCycle(**schedule), total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each group, and set its momentum."""
        share = min(1.0, self.last_epoch / self.total_steps)
        for group in self.optimizer.param_groups:
            group["betas"] = (self.schedule.momentum_at(share), group["betas"][1])
        rate = self.schedule.learning_rate_at(share)
        return [rate] * len(self.optimizer.param_groups)


def make_adamw(
    parameters: Iterable[Any],
    *,
    learning_rate: float,
    weight_decay: float = 0.05,
    eps: float = 1e-8,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Return AdamW for the parameters that need a gradient, all with weight decay.

    `parameters` are tensors, or groups of them under `params`, with other entries that
    the optimiser keeps.

    The step is fused (one pass over parameter, gradient and both moments) if all
    parameters are floating-point numbers on a CPU or CUDA device; otherwise PyTorch
    chooses. With a gradient scaler `fused` must be False, because a fused step removes
    the scale only after gradients are clipped. The published training uses AdamW's
    default eps, because its wrapper ignores the requested 1e-7
    (github.com/DrHB/icecube-2nd-place, src/utils.py).
    """
    given = list(parameters)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    groups = [
        {**g, "params": [p for p in g["params"] if p.requires_grad]} for g in groups
    ]
    groups = [group for group in groups if group["params"]]
    trained = [p for group in groups for p in group["params"]]
    if not trained:
        raise ValueError("AdamW needs a parameter with requires_grad, found none")
    fused = fused and all(
        p.device.type in FUSED_DEVICES and p.is_floating_point() for p in trained
    )
    return torch.optim.AdamW(
        groups,
        lr=learning_rate,
        weight_decay=weight_decay,
        eps=eps,
        fused=fused or None,
    )


class WeightAverage(nn.Module):
    """Copy of a model with the exponential moving average of its weights.

    Source: fastxtend's `EMACallback`. The published training uses its default decay of
    0.9998 for each micro-batch, with or without an optimiser step.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    def update(self, model: nn.Module, num_batches: int = 1) -> None:
        """Update the average after an optimiser step.

        Weights do not change between two steps, so the `num_batches` micro-batches of
        a step give one update, with the decay to the power of their number.
        """
        share = 1 - self.decay**num_batches
        with torch.no_grad():
            ours, theirs = _floating(self.model), _floating(model)
            torch._foreach_lerp_(ours, theirs, share)

    def train(self, mode: bool = True) -> WeightAverage:
        """Stay in evaluation mode."""
        return self


def _floating(model: nn.Module) -> list[Tensor]:
    tensors = [*model.parameters(), *model.buffers()]
    return [t.detach() for t in tensors if t.is_floating_point()]
