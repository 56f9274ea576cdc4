"""The one-cycle schedule: learning rate and momentum over a stage, as fastai has it.

Source: L. Smith, arXiv:1803.09820; the cosines and their end points are fastai's
`fit_one_cycle`, which the published training calls (github.com/DrHB/icecube-2nd-place,
train.py). PyTorch's `OneCycleLR` ends elsewhere: its `final_div_factor` counts from the
start of the cycle, so fastai's end is `final_div_factor = div_final / div` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Learning rate and momentum at any point of a stage.

    Args:
        learning_rate: The largest.
        div: It begins at the largest divided by this.
        div_final: It ends at the largest divided by this.
        momenta: Momentum (AdamW's first beta) at the beginning, at the largest learning
            rate, and at the end.
        pct_start: Share of the stage in which the learning rate rises.

    Raises:
        ValueError: A value out of its range; it says which and what is allowed.
    """

    learning_rate: float
    div: float = 25.0
    div_final: float = 25.0
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)
    pct_start: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "momenta", tuple(self.momenta))
        for name in ("learning_rate", "div", "div_final"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
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
    return begin + (1 - math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2 * (
        end - begin
    )


class OneCycleScheduler(torch.optim.lr_scheduler.LRScheduler):
    """`OneCycle` as a PyTorch scheduler, to be stepped after each optimiser step.

    For trainers that take a scheduler's class and arguments, as GraphNeT's do.

    Args:
        optimizer: AdamW or another with `betas`.
        total_steps: Optimiser steps of the stage.
        last_epoch: Steps done so far less one, as PyTorch counts.
        **schedule: Arguments of `OneCycle`.

    Raises:
        ValueError: As `OneCycle`; no steps.
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
