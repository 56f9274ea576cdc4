"""Model: a backbone, its tasks, and the preparation of its events.

Training, reconstruction and files work with `Model`. `DeepIce` is one, with direction
as its only task and the published names of its weights. Any other backbone or set of
tasks is a `TaskModel`.

Shape letters: B events, K outputs of a task, D width of the latent vectors, T pulses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.nn.first_light import first_light
from graphnet_icecube2nd.nn.packing import BatchCache
from graphnet_icecube2nd.tasks.task import Task

FIXED, LEARNED = "fixed", "learned"
WEIGHTINGS = (FIXED, LEARNED)
BACKBONE = "backbone."  # prefix of the backbone's weights in a `TaskModel`
LARGEST_LOG_VARIANCE = 2.0  # of a learned weight; limits the effect of negative losses


class Model(nn.Module):
    """Base of models, which turn a `PackedBatch` into the answers of their tasks.

    Attributes:
        model_name: Registered name of the backbone.
        input_config: Preparation of the events it was trained on, or None if unknown.
    """

    model_name: str
    input_config: InputConfig | None = None

    @property
    def task_map(self) -> Mapping[str, Task]:
        """The tasks by name."""
        raise NotImplementedError

    @property
    def task_weights(self) -> Mapping[str, float]:
        """Weight of each task's loss."""
        return dict.fromkeys(self.task_map, 1.0)

    def outputs(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> dict[str, Tensor]:
        """Return the raw outputs of each task, (B, K) by name."""
        return self._by_task(self(batch, shared))

    def _by_task(self, outputs: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
        if isinstance(outputs, Tensor):
            (name,) = self.task_map
            return {name: outputs}
        return dict(outputs)

    def predict(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Return the columns of all tasks, (B,) each, in physical units."""
        outputs = self.outputs(batch)
        columns: dict[str, Tensor] = {}
        for name, task in self.task_map.items():
            columns.update(task.predict(outputs[name]))
        return columns

    def losses(
        self,
        outputs: Mapping[str, Tensor],
        truth: Mapping[str, Tensor],
        weight_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of each task, (); arguments as for `loss`."""
        return {
            name: mean_loss(task, outputs[name], truth, weight_B)
            for name, task in self.task_map.items()
        }

    def loss(
        self,
        outputs: Mapping[str, Tensor] | Tensor,
        truth: Mapping[str, Tensor],
        weight_B: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted sum of the tasks' losses, ().

        Args:
            outputs: Outputs by task (see `outputs`), or the tensor of a single task.
            truth: Labels (B, ...) by name; NaN means that an event has no label. Such
                an event counts for the other tasks.
            weight_B: Weights of the events, (B,), 0 or more; default: equal weights.
                Only their ratios count.
        """
        losses = self.losses(self._by_task(outputs), truth, weight_B)
        return self.weighted(losses, self.num_labels(truth, weight_B))

    def num_labels(
        self, truth: Mapping[str, Tensor], weight_B: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the number of events with a label of each task, ().

        With weights of the events, (B,), it is the sum of the weights.
        """
        labelled = {
            name: is_labelled(task.target(truth))
            for name, task in self.task_map.items()
        }
        return {
            name: (one_B if weight_B is None else weight_B.where(one_B, 0.0)).sum()
            for name, one_B in labelled.items()
        }

    def weighted(
        self,
        losses: Mapping[str, Tensor],
        num_labels: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the weighted sum of the tasks' losses, ().

        Args:
            losses: Losses by task, see `losses`.
            num_labels: Number of events with a label, (), by task, see `num_labels`.
                The learned weight of a task without labels is not trained. Default: all
                tasks have some.
        """
        weights = self.task_weights
        if list(weights.values()) == [1.0]:
            (loss,) = losses.values()
            return loss
        return torch.stack([weights[n] * loss for n, loss in losses.items()]).sum()

    def labels(self) -> tuple[str, ...]:
        """Return the labels that the tasks need from a batch's truth."""
        names = [name for task in self.task_map.values() for name in task.truth]
        return tuple(dict.fromkeys(names))

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `models.registry` rebuilds the model."""
        raise NotImplementedError

    def kwargs(self) -> dict[str, Any]:
        """Return plain values, besides the weights, on which the answers depend."""
        return self.describe()


class TaskModel(Model):
    """A backbone with tasks; it returns the outputs of each task by name.

    Args:
        backbone: Module with `dim` that returns latent vectors (B, D) of a
            `PackedBatch`.
        tasks: Tasks by name; the model makes their last layers.
        weights: Weights of the tasks' losses; default: 1 each.
        weighting: Weighting of the losses: `fixed`, or `learned`, which also weights
            each loss with a learned variance (A. Kendall, Y. Gal, R. Cipolla,
            arXiv:1705.07115).
        model_name: Registered name of the backbone.
        model_kwargs: Arguments with which the backbone was built.

    Raises:
        ValueError: The weighting is unknown, or the backbone has no `dim`, or no
            `pulse_latents` for a task that needs them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tasks: Mapping[str, Task],
        *,
        weights: Mapping[str, float] | None = None,
        weighting: str = FIXED,
        model_name: str = "",
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        of_pulses = [name for name, task in tasks.items() if task.uses_pulses]
        if of_pulses and not hasattr(backbone, "pulse_latents"):
            raise ValueError(
                f"task {of_pulses[0]!r} needs a backbone with latent vectors of pulses "
                f"(pulse_latents), which {type(backbone).__name__} does not have"
            )
        dim = getattr(backbone, "dim", None)
        if not isinstance(dim, int):
            raise ValueError(
                f"a backbone must have `dim`, the width of its latent vectors; "
                f"{type(backbone).__name__} has {dim!r}"
            )
        if weighting not in WEIGHTINGS:
            raise ValueError(
                f"weighting must be {' or '.join(WEIGHTINGS)}, got {weighting!r}"
            )
        self.backbone = backbone
        self.tasks = nn.ModuleDict(
            {name: task.attach(dim) for name, task in tasks.items()}
        )
        self.dim, self.weighting = dim, weighting
        self.model_name, self.model_kwargs = model_name, dict(model_kwargs or {})
        self._weights = {name: (weights or {}).get(name, 1.0) for name in tasks}
        self.log_variance = nn.ParameterDict()
        if weighting == LEARNED:
            self.log_variance.update(
                {name: nn.Parameter(torch.zeros(())) for name in tasks}
            )

    def forward(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> dict[str, Tensor]:
        """Return the raw outputs of each task, (B, K) by name.

        Args:
            batch: Batch of events.
            shared: Cache of values that other models computed from the same batch, for
                backbones with `takes_cache`.
        """
        takes_cache = getattr(self.backbone, "takes_cache", False)
        cache = (shared,) if takes_cache else ()
        outputs: dict[str, Tensor] = {}
        if not all(task.uses_pulses for task in self.task_map.values()):
            latent_BD = self.backbone(batch, *cache)
        for name, task in self.task_map.items():
            if task.uses_pulses:
                outputs[name] = task.forward_pulses(self.latents, batch)  # type: ignore[operator]
                continue
            light = (first_light(batch, shared),) if task.uses_first_light else ()
            outputs[name] = task(latent_BD, *light)
        return outputs

    @property
    def task_map(self) -> Mapping[str, Task]:
        """The tasks by name."""
        return dict(self.tasks.items())  # type: ignore[arg-type]

    @property
    def task_weights(self) -> Mapping[str, float]:
        """Weight of each task's loss, without learned weights."""
        return self._weights

    def weighted(
        self,
        losses: Mapping[str, Tensor],
        num_labels: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the weighted sum of the tasks' losses, (), see `Model.weighted`."""
        if self.weighting == FIXED:
            return super().weighted(losses)
        bounds = -LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE
        parts = []
        for name, loss in losses.items():
            log_variance: Tensor = self.log_variance[name]
            if self.training:
                # In place, because a clamped copy would have no gradient.
                log_variance.data.clamp_(*bounds)
            else:
                log_variance = log_variance.clamp(*bounds)
            part = torch.exp(-log_variance) * loss
            # The loss of a task without labels is 0 and has no information on its
            # variance. It is multiplied by 0, because DDP needs every gradient.
            has_labels = 1.0 if num_labels is None else num_labels[name] > 0
            parts.append(self._weights[name] * (part + has_labels * log_variance))
        return torch.stack(parts).sum()

    def pulse_latents(self, batch: PackedBatch) -> Tensor:
        """Return a latent vector of each pulse, (T, D), if the backbone has them.

        Raises:
            NotImplementedError: The backbone has no latent vectors of pulses.
        """
        give = getattr(self.backbone, "pulse_latents", None)
        if give is None:
            raise NotImplementedError(
                f"{type(self.backbone).__name__} has no latent vectors of pulses "
                "(pulse_latents)"
            )
        latent_TD: Tensor = give(batch)
        return latent_TD

    def latents(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return the latent vectors of events, (B, D), and of pulses, (T, D)."""
        give = getattr(self.backbone, "latents", None)
        if give is None:  # the backbone computes both one after the other
            return self.backbone(batch), self.pulse_latents(batch)
        latent_BD, latent_TD = give(batch)
        return latent_BD, latent_TD

    def describe(self) -> dict[str, Any]:
        """Return name and arguments of the backbone and of the tasks."""
        arguments: Callable[[], dict[str, Any]] | None
        arguments = getattr(self.backbone, "kwargs", None)
        return {
            "model": self.model_name,
            "kwargs": dict(arguments()) if arguments else dict(self.model_kwargs),
            "tasks": {
                name: {"weight": self._weights[name], **task.describe()}
                for name, task in self.task_map.items()
            },
            "weighting": self.weighting,
        }


def backbone_of(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the backbone of a model, and the prefix of its weights' names.

    A model with a last layer of its own is its own backbone.
    """
    return (model.backbone, BACKBONE) if isinstance(model, TaskModel) else (model, "")


def weights_of(model: nn.Module, name: str) -> list[str]:
    """Return the names of the parameters of a module, or of one parameter.

    `name` may also begin at the backbone, and `backbone` is everything but the last
    layers, whether or not the model has a module of this name. Raises ValueError if
    there is no such module.
    """
    known = [name for name, _ in model.named_parameters()]
    _, prefix = backbone_of(model)
    begin = name.rstrip(".") + "."
    if not prefix and begin == BACKBONE:
        return [n for n in known if not n.startswith("head.")]
    begin = begin if prefix else begin.removeprefix(BACKBONE)
    for start in (begin, f"{prefix}{begin}"):
        if found := [n for n in known if f"{n}.".startswith(start)]:
            return found
    parts = [n.removeprefix(prefix).split(".") for n in known]
    rooms = dict.fromkeys(
        ".".join(p[: 2 if p[1:2] and p[1].isdecimal() else 1]) for p in parts
    )
    raise ValueError(
        f"must name modules of the model ({BACKBONE[:-1]}, {', '.join(rooms)}), found "
        f"{name!r}"
    )


def layers_of(model: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each layer, the lowest first.

    The last layers of tasks, and all that is not in the backbone, are the highest.

    Raises:
        ValueError: The backbone does not name its layers, or not all of them.
    """
    backbone, prefix = backbone_of(model)
    give = getattr(backbone, "layers", None)
    if give is None:
        raise ValueError(
            f"{type(backbone).__name__} does not name its layers; a backbone needs "
            "`layers()`, which returns the names of its modules, the lowest layer first"
        )
    layers = [
        [found for name in names for found in weights_of(backbone, name)]
        for names in give()
    ]
    known = {name for layer in layers for name in layer}
    rest = [n for n, _ in backbone.named_parameters() if n not in known]
    if left := [n for n in rest if prefix or not n.startswith("head.")]:
        raise ValueError(
            f"{type(backbone).__name__}.layers() leaves out {', '.join(left)}"
        )
    within = [[f"{prefix}{name}" for name in layer] for layer in layers]
    known = {name for layer in within for name in layer}
    return [*within, [n for n, _ in model.named_parameters() if n not in known]]


def mean_loss(
    task: Task,
    output: Tensor,
    truth: Mapping[str, Tensor],
    weight_B: Tensor | None = None,
) -> Tensor:
    """Return the loss of a task, (), the weighted mean over the events with a label.

    `output` is (B, K); `truth` has labels (B, ...) by name, NaN if there is none. If no
    event has a label and a weight above 0, the loss is 0.
    """
    target = task.target(truth)
    labelled_B = is_labelled(target)
    if not bool(labelled_B.all()):
        output, target = output[labelled_B], target[labelled_B]
        weight_B = None if weight_B is None else weight_B[labelled_B]
    if not len(target):
        return output.sum()  # 0 of no event, with its gradient
    loss_B = task.loss(output, target)
    if weight_B is None:
        return loss_B.mean()
    total = weight_B.sum()
    return (loss_B * weight_B).sum() / total.where(total > 0, 1.0)


def is_labelled(target: Tensor) -> Tensor:
    """Return which events have a label (no NaN), (B,) bool."""
    return target.isfinite().reshape(len(target), -1).all(dim=1)
