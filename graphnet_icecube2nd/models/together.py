"""Several models on one batch: an ensemble, without doing work twice.

Shape letters: M members, B events, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.nn.batch_cache import BatchCache
from graphnet_icecube2nd.tasks.direction.combination import WEIGHTED, normalised
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Task


@torch.no_grad()
def outputs_together(
    models: Sequence[Model], batch: PackedBatch
) -> list[dict[str, Tensor]]:
    """Return the outputs of several models that share what they can.

    Fourier features, those of the intervals (where they are few enough to be kept) and
    the first graph of hybrids are made once for all members that agree on their sizes.
    The numbers are those that each model gives alone.

    Args:
        models: The members, in evaluation mode, on the device of the batch.
        batch: The events.

    Returns:
        M dicts, (B, K) by task.

    Raises:
        ValueError: There is no model.
    """
    if not models:
        raise ValueError("outputs_together needs at least one model")
    shared = BatchCache()
    return [model.outputs(batch, shared) for model in models]


class EnsembleModel(Model):
    """Members as one model; each task combines their outputs.

    Args:
        models: The members; tasks that all of them have are answered.
        weights: One for each; default all alike.
        method: How directions are combined, see `combination.combine`.

    Raises:
        ValueError: No member, members without a common task, weights that do not fit.
    """

    model_name = "ensemble"

    def __init__(
        self,
        models: Sequence[Model],
        weights: Sequence[float] | None = None,
        method: str = WEIGHTED,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.shares = tuple(normalised(weights, len(models)).tolist())
        self.method = method
        first, *others = models
        self._tasks: dict[str, Task] = {
            name: task
            for name, task in first.task_map.items()
            if all(name in other.task_map for other in others)
        }
        if not self._tasks:
            raise ValueError("the members of an ensemble have no task in common")
        if Direction.name in self._tasks:
            self._tasks[Direction.name] = Direction(method=method)
        self.input_config = first.input_config

    @property
    def models(self) -> list[Model]:
        """The members."""
        return list(self.members)  # type: ignore[arg-type]

    @property
    def task_map(self) -> Mapping[str, Task]:
        """The tasks that all members have."""
        return self._tasks

    def outputs(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> dict[str, Tensor]:
        """Return the combined outputs of each task, (B, K)."""
        members = outputs_together(self.models, batch)
        return {
            name: task.combine(
                torch.stack([outputs[name] for outputs in members]).float(),
                self.shares,
            )
            for name, task in self._tasks.items()
        }

    def forward(self, batch: PackedBatch) -> Tensor | dict[str, Tensor]:
        """Return (B, K) of a single task, of several a dict by task."""
        outputs = self.outputs(batch)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def describe(self) -> dict[str, Any]:
        """Return what, beside the weights, its answers depend on."""
        return {
            "members": [[type(m).__name__, m.kwargs()] for m in self.models],
            "shares": list(self.shares),
            "method": self.method,
        }
