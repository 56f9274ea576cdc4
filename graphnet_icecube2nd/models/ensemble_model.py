"""Several models on one batch: an ensemble that computes nothing twice.

Shape letters: M members, B events, K outputs of a task.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.nn.packing import BatchCache
from graphnet_icecube2nd.tasks.direction.combination import WEIGHTED, normalised
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Task


@torch.no_grad()
def outputs_together(
    models: Sequence[Model], batch: PackedBatch
) -> list[dict[str, Tensor]]:
    """Return the outputs (B, K) of several models by task, as each returns them alone.

    Values that do not depend on weights are computed once (`BatchCache`). The models
    must be in evaluation mode and on the device of the batch.
    """
    if not models:
        raise ValueError("outputs_together needs at least one model")
    shared = BatchCache()
    return [model.outputs(batch, shared) for model in models]


class EnsembleModel(Model):
    """An ensemble as one model; each task combines the members' outputs.

    Tasks that only some members have are left out, and a warning names them.

    Args:
        models: Members of the ensemble.
        weights: Weight of each member; default: equal weights.
        method: Method to combine directions, see `combination.combine`.
        names: Names of the members in messages; default: `member 0`, ...

    Raises:
        ValueError: There is no member, weights do not fit, members have no common task,
            or they differ in telescope, clock or the options of a task.
    """

    model_name = "ensemble"

    def __init__(
        self,
        models: Sequence[Model],
        weights: Sequence[float] | None = None,
        method: str = WEIGHTED,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not models:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(models)
        self.shares = tuple(normalised(weights, len(models)).tolist())
        self.method = method
        names = names or [f"member {number}" for number in range(len(models))]
        self.input_config = _common_input(models, names)
        self._tasks = _common_tasks(models, names)
        if Direction.name in self._tasks:
            self._tasks[Direction.name] = Direction(method=method)

    @property
    def models(self) -> list[Model]:
        """The members."""
        return list(self.members)  # type: ignore[arg-type]

    @property
    def task_map(self) -> Mapping[str, Task]:
        """The tasks that all members have."""
        return self._tasks

    def forward(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Return the combined outputs (B, K) of a single task, or a dict by task."""
        members = outputs_together(self.models, batch)
        outputs = {
            name: task.combine(
                torch.stack([outputs[name] for outputs in members]).float(),
                self.shares,
            )
            for name, task in self._tasks.items()
        }
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def describe(self) -> dict[str, Any]:
        """Return values, besides the weights, on which the answers depend."""
        return {
            "members": [[type(m).__name__, m.kwargs()] for m in self.models],
            "shares": list(self.shares),
            "method": self.method,
        }


def _common_input(models: Sequence[Model], names: Sequence[str]) -> InputConfig | None:
    """Return the first member's InputConfig with the ranges common to all members."""
    known = {
        name: model.input_config
        for name, model in zip(names, models, strict=True)
        if model.input_config is not None
    }
    if not known:
        return None
    (first, config), *others = known.items()
    ranges = dict(config.ranges)
    for name, other in others:
        for what in ("telescope", "clock", "positions"):
            ours, theirs = getattr(config, what), getattr(other, what)
            if ours != theirs:
                raise ValueError(
                    f"the members of an ensemble must be trained on the same {what}: "
                    f"{first} has {what} {ours!r}, {name} has {theirs!r}. Make an "
                    "ensemble of each"
                )
        for quantity, (low, high) in other.ranges.items():
            ours_low, ours_high = ranges.get(quantity, (low, high))
            ranges[quantity] = max(low, ours_low), min(high, ours_high)
    return replace(config, ranges=ranges)


def _common_tasks(models: Sequence[Model], names: Sequence[str]) -> dict[str, Task]:
    """Return the tasks of all members; warn about tasks that only some have."""
    first, *others = models
    tasks = {
        name: task
        for name, task in first.task_map.items()
        if all(name in other.task_map for other in others)
    }
    having = "; ".join(
        f"{name} has {', '.join(model.task_map)}"
        for name, model in zip(names, models, strict=True)
    )
    if not tasks:
        raise ValueError(f"the members of an ensemble have no task in common: {having}")
    dropped = dict.fromkeys(n for m in models for n in m.task_map if n not in tasks)
    if dropped:
        warnings.warn(
            f"the ensemble does not answer {', '.join(dropped)}, which not all members "
            f"have: {having}",
            stacklevel=3,
        )
    for task in tasks:
        if task == Direction.name:  # options do not change the meaning of its outputs
            continue
        ours = _options(first.task_map[task])
        for name, model in zip(names[1:], others, strict=True):
            theirs = _options(model.task_map[task])
            if ours != theirs:
                raise ValueError(
                    f"the members of an ensemble must have the same options of task "
                    f"{task!r}: {names[0]} has {ours}, {name} has {theirs}. Leave one "
                    "of them out"
                )
    return tasks


def _options(task: Task) -> str:
    """Return the options of a task, including defaults, as text."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(task)).parameters.items()
        if parameter.default is not parameter.empty
    }
    # Options may be equal in another order, but classes in another order are not.
    columns = [column.name for column in task.columns]
    options = {**defaults, **task.describe(), "columns": columns}
    # As JSON, where a tuple equals the list that a file makes of it.
    return json.dumps(options, sort_keys=True, default=repr)
