"""The one-cycle schedule: learning rate and momentum over a stage, as fastai has it.

Source: L. Smith, arXiv:1803.09820; the cosines and their end points are fastai's
`fit_one_cycle`, which the published training calls (github.com/DrHB/icecube-2nd-place,
train.py). PyTorch's `OneCycleLR` ends elsewhere: its `final_div_factor` counts from the
start of the cycle, so fastai's end is `final_div_factor = div_final / div` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


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
