"""Tasks of this package in GraphNeT: labels, losses and heads.

GraphNeT's `Direction` turns angles into a vector without their convention; here the
convention is an argument. The losses act on GraphNeT's (B, 4) directions: unit vector
x, y, z and kappa. `TaskHead` is any registered task in a `StandardModel`.

Shape letters: B events, D width of the latent vectors, K outputs, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from graphnet.models.task import StandardLearnedTask
from graphnet.training.labels import Label
from graphnet.training.loss_functions import LossFunction
from torch import Tensor, nn
from torch_geometric.data import Data

from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.models.model import mean_loss
from graphnet_icecube2nd.results.event_table import (
    ANGLE_NAMES,
    DIRECTION_NAMES,
    KAPPA_NAMES,
    PREDICTION_NAMES,
)
from graphnet_icecube2nd.tasks.catalogue import PREDICTION, build_task
from graphnet_icecube2nd.tasks.direction.losses import (
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    VonMisesFisherLoss,
)
from graphnet_icecube2nd.tasks.label import (
    DIRECTION,
    TRACK,
    label_columns,
    make_label,
    missing_label,
)
from graphnet_icecube2nd.tasks.task import Task

# GraphNeT's names of our columns; the others get `_pred` appended.
GRAPHNET_NAMES = {
    **{ours: theirs for theirs, ours in PREDICTION_NAMES.items()},
    **dict(zip(*DIRECTION_NAMES[:2], strict=True)),
    **dict(zip(*ANGLE_NAMES[:2], strict=True)),
    KAPPA_NAMES[0]: KAPPA_NAMES[1],
}


def graphnet_name(column: str) -> str:
    """Return GraphNeT's name of a task's column among its predictions."""
    return GRAPHNET_NAMES.get(column, f"{column}{PREDICTION}")


class TaskLabel(Label):
    """A label of this package for GraphNeT's datasets.

    An event without the label (a missing value, a filler, an impossible angle) gets
    NaN. `TaskHead` leaves such events out of the loss; GraphNeT's own tasks do not.

    Args:
        label: Name of the label (`direction`, `energy`, `track`, ...), or a column of
            the truth.
        key: Name of the label in the event, `data[key]`; default: the label's name,
            which `TaskHead` expects.
        azimuth_key: Truth column of the azimuth, rad.
        zenith_key: Truth column of the zenith, rad.
        angles: Convention of the angles: `origin` if they point to where the particle
            came from, `flight` if they point to where it goes.

    Raises:
        ValueError: `angles` is unknown.
    """

    def __init__(
        self,
        label: str,
        key: str | None = None,
        azimuth_key: str = "azimuth",
        zenith_key: str = "zenith",
        angles: str = "origin",
    ) -> None:
        super().__init__(key=label if key is None else key)
        self._label = label
        self._arguments = {
            "label": label,
            "key": self.key,
            "azimuth_key": azimuth_key,
            "zenith_key": zenith_key,
            "angles": angles,
        }
        self._columns = LabelColumns(
            azimuth=azimuth_key, zenith=zenith_key, angles=angles
        )

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return dict(self._arguments)

    def to_config(self) -> dict[str, Any]:
        """Return the label in the form of GraphNeT's dataset configurations."""
        return {"class_name": type(self).__name__, "arguments": self.arguments()}

    def __call__(self, graph: Data) -> Tensor:
        """Return the label of one event, (1,) or (1, 3), from its truth columns.

        Raises:
            ValueError: The event lacks the truth columns.
        """
        names = list(graph.keys())
        chosen = label_columns(self._label, names, self._columns)
        if chosen is None:
            where = f"an event, for the label {self.key!r},"
            raise missing_label(self._label, names, self._columns, where)
        columns = {c: graph[c].detach().cpu().reshape(-1) for c in chosen}
        label = make_label(
            self._label, {c: v.numpy() for c, v in columns.items()}, self._columns
        )
        dtype = columns[chosen[0]].dtype
        dtype = dtype if dtype.is_floating_point else torch.float32
        return torch.from_numpy(label).to(dtype)


class OriginDirection(TaskLabel):
    """Unit vector (1, 3) to the neutrino's origin, for either convention of angles.

    Args:
        key: Name of the label in the event.
        azimuth_key: Truth column of the azimuth, rad.
        zenith_key: Truth column of the zenith, rad.
        angles: Convention of the angles, `origin` or `flight`.

    Raises:
        ValueError: `angles` is unknown.
    """

    def __init__(
        self,
        key: str = "direction",
        azimuth_key: str = "azimuth",
        zenith_key: str = "zenith",
        angles: str = "origin",
    ) -> None:
        super().__init__(DIRECTION, key, azimuth_key, zenith_key, angles)
        del self._arguments["label"]

    def __call__(self, graph: Data) -> Tensor:
        """Return the label of one event, (1, 3).

        Raises:
            ValueError: An angle is missing or impossible. GraphNeT's own tasks cannot
                leave out events without a label.
        """
        direction_13 = super().__call__(graph)
        if not bool(direction_13.isfinite().all()):
            columns = (self._columns.azimuth, self._columns.zenith)
            found = ", ".join(f"{name!r} is {graph[name].tolist()}" for name in columns)
            raise ValueError(
                f"label {self.key!r}: angles must be in rad, zenith within 0 to pi and "
                f"azimuth within 2 pi of 0; truth column {found}"
            )
        return direction_13


class _DirectionWithKappaLoss(LossFunction):
    """A loss of this package, computed from unit vector and kappa."""

    def __init__(self, loss: DirectionLoss) -> None:
        super().__init__()
        self._loss = loss

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weights: Tensor | None = None,
        return_elements: bool = False,
    ) -> Tensor:
        """Return the mean loss, or the loss of each event.

        Weights of GraphNeT's datasets are (B, 1). GraphNeT's own losses broadcast them
        to (B, B), so that they have no effect; here they have.

        Args:
            prediction: Unit vector and kappa, (B, 4).
            target: Unit vectors, (B, 3) or (B, 1, 3).
            weights: Weights of the events, (B,) or (B, 1).
            return_elements: Whether to return the loss of each event, (B,).

        Raises:
            ValueError: Prediction or target has another shape.
        """
        if weights is not None:
            weights = weights.reshape(-1)
        loss: Tensor = super().forward(prediction, target, weights, return_elements)
        return loss

    def _forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.ndim != 2 or prediction.shape[1] != 4:
            raise ValueError(
                "prediction must be (B, 4), unit vector and kappa, got "
                f"{tuple(prediction.shape)}"
            )
        if target.shape[-1] != 3 or target.numel() != 3 * len(prediction):
            raise ValueError(
                f"target must be ({len(prediction)}, 3) unit vectors, got "
                f"{tuple(target.shape)}"
            )
        vector_B3 = prediction[:, :3] * prediction[:, 3:]
        loss_B: Tensor = self._loss(vector_B3, target.reshape(-1, 3), reduction="none")
        return loss_B


class ExactVonMisesFisher3DLoss(_DirectionWithKappaLoss):
    """Negative log-likelihood of the 3D von Mises-Fisher distribution.

    It is exact at every kappa and runs on the GPU. GraphNeT's `VonMisesFisher3DLoss` is
    an approximation above kappa 100 before its pull request 915 (September 2026).

    Args:
        normalisation: Normalisation of the loss: `exact`, or `published` for
            comparison.
    """

    def __init__(self, normalisation: str = "exact") -> None:
        super().__init__(VonMisesFisherLoss(normalisation=normalisation))


class AngularDistance(_DirectionWithKappaLoss):
    """Opening angle, rad, the score of the competition. Kappa gets no gradient."""

    def __init__(self) -> None:
        super().__init__(AngularDistanceLoss())


class CombinedDirection(_DirectionWithKappaLoss):
    """Opening angle + `vmf_weight` times the von Mises-Fisher loss.

    Args:
        vmf_weight: Weight of the von Mises-Fisher loss; published: 0.05.
        normalisation: Normalisation of the loss: `exact`, or `published` for
            comparison.
    """

    def __init__(self, vmf_weight: float = 0.05, normalisation: str = "exact") -> None:
        super().__init__(
            CombinedDirectionLoss(vmf_weight=vmf_weight, normalisation=normalisation)
        )


class TaskHead(StandardLearnedTask):
    """A registered task of this package, with its last layer, loss and columns.

    In training and validation the output is the task's raw output (B, K), and the loss
    is the task's mean loss of events that have a label. In prediction
    (`StandardModel.predict`) the output is the task's columns (B, C) in physical units,
    float64.

    Args:
        task: Name of the task, one of `list_tasks()`.
        hidden_size: Width D of the latent vectors, `nb_outputs` of the backbone.
        options: Constructor arguments of the task.
        weight: Factor of the task's loss; GraphNeT adds up the losses of its tasks.
        target_labels: Names of the task's labels in the batch, one for each of
            `Task.truth`; default: the same names, as `TaskLabel` and
            `StoreDataModule` write them.
        prediction_labels: Names of the predictions, one for each column; default:
            GraphNeT's names (`energy_pred`, `dir_x_pred`, `target_pred`), or those of
            the task with `_pred` appended.
        loss_weight: Attribute of the batch with a weight for each event.

    Raises:
        ValueError: The task or an option is unknown, or the number of labels or names
            differs from the task's.
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
                    f"task {task!r}: {what} must have {len(own)} names, one for each "
                    f"of {', '.join(own)}; got {', '.join(given)}"
                )
        super().__init__(
            hidden_size=hidden_size,
            loss_function=None,  # the task has its own loss and last layer
            disable_affine=True,
            target_labels=target_labels,
            prediction_labels=prediction_labels,
            loss_weight=loss_weight,
        )
        self._weight, self._hidden_size = weight, hidden_size
        # The name of `TaskModel`, so that the keys of the weights are the same.
        self.tasks = nn.ModuleDict({task: made.attach(hidden_size)})

    @property
    def task(self) -> Task:
        """The task of this package."""
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
        """GraphNeT's names of the task's columns."""
        return [graphnet_name(column) for column in self._columns]

    def _forward(self, x: Tensor) -> Tensor:
        dim = self._hidden_size
        light = (x[:, dim:],) if self.task.uses_first_light else ()
        if light and light[0].shape[1] != 4:
            raise ValueError(
                f"task {self.task.name!r} needs the first light of the events: make "
                "the backbone with ModelBackbone(..., first_light=True)"
            )
        output_BK: Tensor = self.task(x[:, :dim], *light)
        if not self._inference:
            return output_BK
        columns = self.task.predict(output_BK)
        return torch.stack([columns[name].double() for name in self._columns], dim=1)

    def compute_loss(self, pred: Tensor, data: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of events with a label, (); NaN means no label."""
        names = zip(self._truth, self._target_labels, strict=True)
        truth = {name: _label(name, data[label]) for name, label in names}
        weight_B = None
        if self._loss_weight is not None:
            weight_B = data[self._loss_weight].reshape(-1)
        return self._weight * mean_loss(self.task, pred, truth, weight_B)


def _label(name: str, value: Tensor) -> Tensor:
    """Return a label as (B,) or (B, N), in float32 if it is floating-point."""
    value = value.reshape(len(value), -1)
    value = value[:, 0] if value.shape[1] == 1 else value
    value = value.float() if value.is_floating_point() or name == TRACK else value
    if name == TRACK:  # GraphNeT's datasets write -1 where the truth has no `pid`
        value = value.where(value >= 0, torch.nan)
    return value
