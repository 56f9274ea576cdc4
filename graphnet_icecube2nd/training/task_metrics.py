"""What a validation measures of each task: its loss, its metrics, their total.

Shape letters: B events, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.models.model import Model, is_labelled
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.task import Task

LOSS = "loss"
# Target of the events that have a label, and which those are; None: all of them.
Targets = Mapping[str, tuple[Tensor, Tensor | None]]


def event_metric_names(task: Task) -> list[str]:
    """Return the names of the metrics that a task computes for each event."""
    truth = {
        name: torch.ones((1, 3) if name == DIRECTION else 1) for name in task.truth
    }
    output = torch.zeros(1, task.num_outputs)
    return list(task.metrics(output, task.target(truth)))


def metric_names(task: Task) -> list[str]:
    """Return the names of all metrics of a task, those of each event first."""
    return [*event_metric_names(task), *task.collect()]


def labelled_targets(model: Model, truth: Mapping[str, Tensor]) -> Targets:
    """Return the targets of a batch by task, of the events that have a label."""
    targets: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, task in model.task_map.items():
        target = task.target(truth)
        labelled_B = is_labelled(target)
        if bool(labelled_B.all()):
            targets[name] = target, None
        else:
            targets[name] = target[labelled_B], labelled_B
    return targets


class ValidationMetrics:
    """Metrics of one model over one validation, over all ranks of a run.

    Args:
        model: The model.
        device: Where the sums are made, in float64.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        from torchmetrics import MeanMetric

        self.model, self.device = model, device
        self.means: dict[str, Any] = {}
        self.collected: dict[str, Any] = {}
        for name, task in model.task_map.items():
            for metric in (LOSS, *event_metric_names(task)):
                # `disable`: looking for NaN would wait for the device at each batch.
                mean = MeanMetric(nan_strategy="disable").to(device)
                self.means[f"{name}/{metric}"] = mean.set_dtype(torch.float64)
            for metric, collected in task.collect().items():
                self.collected[f"{name}/{metric}"] = collected.to(device)

    def update(
        self,
        outputs: Mapping[str, Tensor],
        targets: Targets,
        weight_B: Tensor | None = None,
    ) -> Tensor:
        """Add a batch; return which of its events have values that are not finite.

        Args:
            outputs: Raw outputs, (B, K) by task.
            targets: As `labelled_targets` gives them.
            weight_B: (B,) weights of the events' losses; metrics are not weighted.

        Returns:
            (B,) bool.
        """
        nonfinite_B = torch.zeros(
            len(next(iter(outputs.values()))),
            dtype=torch.bool,
            device=next(iter(outputs.values())).device,
        )
        for name, task in self.model.task_map.items():
            output, weight = outputs[name].float(), weight_B
            target, labelled_B = targets[name]
            if not len(target):
                continue
            if labelled_B is not None:
                output = output[labelled_B]
                weight = None if weight is None else weight[labelled_B]
            loss_B = task.loss(output, target)
            values = {
                LOSS: loss_B if weight is None else loss_B * weight,
                **task.metrics(output, target),
            }
            wrong = ~torch.stack([v.isfinite() for v in values.values()]).all(dim=0)
            if labelled_B is None:
                nonfinite_B |= wrong
            else:
                nonfinite_B[labelled_B] |= wrong
            for metric, value_B in values.items():
                self.means[f"{name}/{metric}"].update(value_B.to(self.device))
            for metric in task.collect():
                self.collected[f"{name}/{metric}"].update(
                    task.scores(output).to(self.device), target.to(self.device)
                )
        return nonfinite_B

    def compute(self) -> dict[str, float]:
        """Return the values over all ranks: `loss` and `TASK/METRIC`."""
        means = {name: float(mean.compute()) for name, mean in self.means.items()}
        weights_on = next(self.model.parameters()).device
        dtype = torch.float32 if weights_on.type == "mps" else torch.float64
        losses = {
            name: torch.tensor(means[f"{name}/{LOSS}"], dtype=dtype, device=weights_on)
            for name in self.model.task_map
        }
        values = {LOSS: float(self.model.weighted(losses))}
        for name in self.model.task_map:
            own = (n for n in (*means, *self.collected) if n.startswith(f"{name}/"))
            for metric in own:
                values[metric] = (
                    means[metric]
                    if metric in means
                    else float(self.collected[metric].compute())
                )
        return values
