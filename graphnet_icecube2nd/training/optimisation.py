"""How weights move: the one-cycle schedule, AdamW, the average of the weights.

Source of the schedule: L. Smith, arXiv:1803.09820; cosines and end points are those of
fastai's `fit_one_cycle`, which the published training calls
(github.com/DrHB/icecube-2nd-place, train.py). PyTorch's `OneCycleLR` ends elsewhere:
its `final_div_factor` counts from the start of the cycle. Here learning rate and
momentum depend on the step alone, so that a resumed run has no state to restore.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Devices whose fused AdamW all supported versions of PyTorch have.
FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Learning rate and momentum at any point of a stage.

    Momentum is AdamW's first beta: at the beginning, at the largest learning rate, and
    at the end. A value out of its range is a ValueError.
    """

    learning_rate: float  # the largest
    div: float = 25.0  # the cycle begins at the largest divided by this,
    div_final: float = 25.0  # and ends at the largest divided by this
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)
    pct_start: float = 0.01  # share of the stage in which the learning rate rises

    def __post_init__(self) -> None:
        object.__setattr__(self, "momenta", tuple(self.momenta))
        for name in ("learning_rate", "div", "div_final"):
            check_positive(name, getattr(self, name))
        if len(self.momenta) != 3 or not all(0 <= m < 1 for m in self.momenta):
            raise ValueError(
                f"momenta must be three numbers from 0 to 1, 1 excluded; got "
                f"{self.momenta}"
            )
        if not 0 < self.pct_start < 1:
            raise ValueError(
                f"pct_start must be between 0 and 1, both excluded; got "
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
    """Go from one value to another along half a cosine."""
    share = min(max(share, 0.0), 1.0)
    return begin + (1 - math.cos(math.pi * share)) / 2 * (end - begin)


class OneCycleScheduler(torch.optim.lr_scheduler.LRScheduler):
    """`OneCycle` as a PyTorch scheduler, to be stepped after each optimiser step.

    Trainers that take a scheduler's class and arguments, as GraphNeT's does, use it
    with AdamW or another optimiser with `betas`; `schedule` is what `OneCycle` takes.
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
            raise ValueError(f"total_steps must be 1 or more, got {total_steps}")
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
    parameters: Iterable[Tensor],
    *,
    learning_rate: float,
    weight_decay: float = 0.05,
    eps: float = 1e-8,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Return AdamW for the parameters that want a gradient, with decay on each.

    The step is fused (one pass over parameter, gradient and both moments) where all
    parameters are real numbers on a CPU or CUDA device; else PyTorch chooses. With a
    gradient scaler it must not be fused: such a step takes the scale off by itself,
    after gradients were clipped with it. The published training gets AdamW's own eps:
    its wrapper drops the 1e-7 that is asked for
    (github.com/DrHB/icecube-2nd-place, src/utils.py).
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


class WeightAverage(nn.Module):
    """A copy of a model that holds the exponential moving average of its weights.

    Source: fastxtend's `EMACallback`, which the published training calls with its
    default decay of 0.9998 for each micro-batch, whether or not the optimiser stepped.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    def update(self, model: nn.Module, num_batches: int = 1) -> None:
        """Move towards a model's weights after an optimiser step.

        Weights stand still between two steps, so the micro-batches of one step come to
        a single move with the decay to the power of their number.
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


def check_positive(name: str, value: float) -> None:
    """Raise ValueError where an option is not above 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
