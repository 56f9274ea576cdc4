"""Tasks of the core in GraphNeT: any registered one as a task of a `StandardModel`.

Shape letters: B events, D width of the latent vectors, K outputs, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from graphnet.models.task import StandardLearnedTask
from torch import Tensor, nn

from graphnet_icecube2nd.models.model import mean_loss
from graphnet_icecube2nd.results.event_table import (
    ANGLE_NAMES,
    DIRECTION_NAMES,
    KAPPA_NAMES,
    PREDICTION,
    PREDICTION_NAMES,
)
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.label import TRACK
from graphnet_icecube2nd.tasks.task import Task

# What GraphNeT calls our columns; all others are ours with `_pred` appended.
GRAPHNET_NAMES = {
    **{ours: theirs for theirs, ours in PREDICTION_NAMES.items()},
    **dict(zip(*DIRECTION_NAMES[:2], strict=True)),
    **dict(zip(*ANGLE_NAMES[:2], strict=True)),
    KAPPA_NAMES[0]: KAPPA_NAMES[1],
}


def graphnet_name(column: str) -> str:
    """Return what a column of a task is called among GraphNeT's predictions."""
    return GRAPHNET_NAMES.get(column, f"{column}{PREDICTION}")


def result_name(prediction: str) -> str:
    """Return what a prediction of GraphNeT is called among results."""
    return PREDICTION_NAMES.get(prediction, prediction)


class TaskHead(StandardLearnedTask):
    """A registered task of the core, with its last layer, loss and columns.

    While a model trains and validates, its output is the task's raw output (B, K), and
    the loss is the task's, of the events that have a label. While a model predicts
    (`StandardModel.predict`), its output is the task's columns (B, C) in physical
    units, float64.

    Args:
        task: Name of the task, one of `list_tasks()`.
        hidden_size: D, `nb_outputs` of the backbone.
        options: Constructor arguments of the task.
        weight: Factor of the task's loss; GraphNeT adds up the losses of its tasks.
        target_labels: Where the batch has the task's labels, one for each of
            `Task.truth`; default: under their own names, as `TaskLabel` and
            `StoreDataModule` write them.
        prediction_labels: Names of the predictions; default: GraphNeT's where it has
            one (`energy_pred`, `dir_x_pred`, `target_pred`), else the task's with
            `_pred` appended.
        loss_weight: Attribute of the batch with a weight for each event.

    Raises:
        ValueError: An unknown task or argument, or another number of labels or names
            than the task has.
    """

    def __init__(
        self,
        task: str,
        hidden_size: int,
        options: dict[str, Any] | None = None,
        weight: float = 1.0,
        target_labels: list[str] | None = None,
        prediction_labels: list[str] | None = None,
        loss_weight: str | None = None,
    ) -> None:
        made = build_task(task, **(options or {}))
        self._truth = list(made.truth)
        self._num_outputs = made.num_outputs
        self._columns = list(made.predict(torch.ones(1, made.num_outputs)))
        for what, given, own in (
            ("target_labels", target_labels, self._truth),
            ("prediction_labels", prediction_labels, self._columns),
        ):
            if given is not None and len(given) != len(own):
                raise ValueError(
                    f"task {task!r}: {what} must be {len(own)} names, for "
                    f"{', '.join(own)}; got {', '.join(given)}"
                )
        super().__init__(
            hidden_size=hidden_size,
            loss_function=None,  # the task has its own
            disable_affine=True,  # and its own last layer
            target_labels=target_labels,
            prediction_labels=prediction_labels,
            loss_weight=loss_weight,
        )
        self._weight = weight
        # Named as in the core's `TaskModel`, so that weights are known by the task.
        self.tasks = nn.ModuleDict({task: made.attach(hidden_size)})

    @property
    def task(self) -> Task:
        """The task of the core."""
        (task,) = self.tasks.values()
        assert isinstance(task, Task)
        return task

    @property
    def nb_inputs(self) -> int:
        """The number of raw outputs, K."""
        return self._num_outputs

    @property
    def default_target_labels(self) -> list[str]:
        """The labels of the task."""
        return self._truth

    @property
    def default_prediction_labels(self) -> list[str]:
        """The columns of the task by GraphNeT's names."""
        return [graphnet_name(column) for column in self._columns]

    def _forward(self, x: Tensor) -> Tensor:
        output_BK: Tensor = self.task(x)
        if not self._inference:
            return output_BK
        columns = self.task.predict(output_BK)
        return torch.stack([columns[name].double() for name in self._columns], dim=1)

    def compute_loss(self, pred: Tensor, data: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of the events that have a label, ().

        Args:
            pred: (B, K) raw outputs.
            data: Labels by attribute of the batch, (B, ...), NaN for events without;
                and the weights of events, (B,) or (B, 1), if there are any.
        """
        names = zip(self._truth, self._target_labels, strict=True)
        truth = {name: _label(name, data[label]) for name, label in names}
        weight_B = None
        if self._loss_weight is not None:
            weight_B = data[self._loss_weight].reshape(-1)
        return self._weight * mean_loss(self.task, pred, truth, weight_B)


def _label(name: str, value: Tensor) -> Tensor:
    """Return a label as the core has it: (B,) or (B, N), no float64."""
    value = value.reshape(len(value), -1)
    value = value[:, 0] if value.shape[1] == 1 else value
    value = value.float() if value.is_floating_point() or name == TRACK else value
    if name == TRACK:  # GraphNeT's datasets write -1 where the truth has no `pid`
        value = value.where(value >= 0, torch.nan)
    return value
