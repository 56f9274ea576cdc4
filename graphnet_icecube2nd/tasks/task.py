"""Task: from the latent vector of an event to one answer.

A task contains everything about its answer: the label, the last layer, the loss,
metrics, columns of the results, calibration, combination of several models, and its
section of the report. A new task is one class:

    @register_task
    class LogPulses(Task):
        name = "log_pulses"
        truth = ("num_hits",)
        num_outputs = 1
        columns = (Column("log_pulses", unit="", description="log10 of the hits"),)

        def target(self, truth):
            return truth["num_hits"].log10()

        def loss(self, output, target):
            return (output[:, 0] - target).square()

        def predict(self, output):
            return {"log_pulses": output[:, 0]}

Shape letters: B events, D width of the latent vectors, K outputs, M models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from numbers import Real
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.registry import Registry
from graphnet_icecube2nd.tasks.section import Columns, Section, Tables, residual_section

Array = NDArray[np.float64]
Kind = TypeVar("Kind", bound="Calibration")
TASKS: Registry[Callable[..., Any]] = Registry("task")
COVERAGE = "inside_"  # prefix of metrics of coverage, best at a value in between
FEWEST = 100  # events that a calibration needs at least
# Attributes of a model for tasks and their weights, by name.
MODULE_NAMES = frozenset([*dir(nn.ModuleDict()), *dir(nn.ParameterDict())])


@dataclass(frozen=True)
class Column:
    """A column of the results.

    Args:
        name: Name of the column: the task's name, or one that begins with it if
            several tasks could have such a column.
        unit: Unit: `rad`, `m`, `ns`, `GeV`, or empty.
        description: Description in a few words.
        names: Names that results have in place of the values 0, 1, ...; default: the
            values are numbers.
    """

    name: str
    unit: str = ""
    description: str = ""
    names: tuple[str, ...] = ()


class Calibration:
    """Base of the results of `Task.calibrate`: frozen dataclasses that correct widths.

    Fields are numbers, texts and tuples of them.

    Attributes:
        what: Name in messages.
        num_events: Number of events of the fit.
    """

    what: ClassVar[str] = "calibration"
    num_events: int

    def check_knots(self, knots: str, *others: str, fewest: int = 0) -> None:
        """Check fields of knots, and of values at them, from a file.

        Args:
            knots: Name of the field of the knots, which must increase.
            others: Names of fields with an entry for each; factors are above 0.
            fewest: Minimum number of knots.

        Raises:
            ValueError: An entry is not allowed, or their numbers differ.
        """
        num = max(len(getattr(self, knots)), fewest)
        for name in (knots, *others):
            numbers = tuple(
                finite_number(value, f"{name}[{row}] of a {self.what}")
                for row, value in enumerate(getattr(self, name))
            )
            object.__setattr__(self, name, numbers)
            if len(numbers) != num:
                raise ValueError(
                    f"{name} of a {self.what} must have {num} entries, got "
                    f"{len(numbers)}"
                )
            if "factors" in name and min(numbers, default=1.0) <= 0:
                raise ValueError(f"{name} must be above 0, got {min(numbers)}")
        if (np.diff(getattr(self, knots)) <= 0).any():
            raise ValueError(f"{knots} of a {self.what} must increase")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls: type[Kind], values: Mapping[str, Any]) -> Kind:
        """Rebuild a calibration from `to_dict`; ValueError if the values do not fit."""
        try:
            return cls(**{name: _tuples(value) for name, value in values.items()})
        except TypeError as error:
            raise ValueError(f"this is not a {cls.what}: {error}") from None


def finite_number(value: Any, name: str) -> float:
    """Return a number from a file; ValueError, with its name, if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, found {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, found {value}")
    return float(value)


def _tuples(value: Any) -> Any:
    """Return a value with tuples instead of lists, also nested ones."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Task(nn.Module):
    """Base of all tasks. A subclass defines four class variables and three methods.

    The last layer is `head`, `Linear(dim, num_outputs)` in float32, made by `attach`.
    Constructor arguments must be plain values with defaults: they are saved with a
    model, and the task is rebuilt from them.

    Attributes:
        name: Public name; prefix of metrics and columns.
        truth: Labels from which the target is made: names in `tasks.label`, or columns
            of the truth table.
        num_outputs: Number K of outputs.
        columns: Columns of the results.
        higher_is_better: Names of metrics whose larger values are better.
        default_weight: Weight of the loss among other tasks; a single task has 1.
        calibration_class: Class that `calibrate` returns and files are read with.
        uses_first_light: Whether `forward` takes the first light of the events as its
            second argument, (B, 4), see `nn.first_light`.
        uses_pulses: Whether the task has `forward_pulses` in place of `forward`, which
            takes a function for the latent vectors of events and pulses, and the batch.
        options: Constructor arguments of this task.
    """

    name: ClassVar[str]
    truth: ClassVar[tuple[str, ...]]
    num_outputs: ClassVar[int]
    columns: ClassVar[tuple[Column, ...]]
    higher_is_better: ClassVar[tuple[str, ...]] = ()
    default_weight: ClassVar[float] = 1.0
    calibration_class: ClassVar[type[Calibration] | None] = None
    uses_first_light: ClassVar[bool] = False
    uses_pulses: ClassVar[bool] = False

    head: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.head = None
        self.options: dict[str, Any] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the constructor of a subclass record its arguments as `options`."""
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        make = cls.__init__
        known = signature(make)

        @wraps(make)
        def record(self: Task, *args: Any, **kwargs: Any) -> None:
            make(self, *args, **kwargs)
            if type(self).__init__ is not record:
                return  # called by a subclass, whose own arguments are recorded
            _, *given = known.bind(self, *args, **kwargs).arguments.items()
            for name, value in given:
                kind = known.parameters[name].kind
                self.options.update(
                    value if kind is Parameter.VAR_KEYWORD else {name: value}
                )

        cls.__init__ = record  # type: ignore[method-assign]

    def attach(self, dim: int) -> Task:
        """Make the last layer for latent vectors of width D; return the task."""
        self.head = nn.Linear(dim, self.num_outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        return self

    def forward(self, latent_BD: Tensor) -> Tensor:
        """Return the raw outputs of a batch, (B, K)."""
        assert self.head is not None, f"task {self.name!r} has no last layer"
        with torch.autocast(latent_BD.device.type, enabled=False):
            output_BK: Tensor = self.head(latent_BD.to(self.head.weight.dtype))
        return output_BK

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return the target, (B, ...), from labels by name; NaN if there is none."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each event, (B,), for events with a label only.

        Args:
            output: Raw outputs, (B, K).
            target: Finite targets, (B, ...).
        """
        raise NotImplementedError

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns, (B,) each, in physical units.

        Args:
            output: Raw outputs, (B, K).
        """
        raise NotImplementedError

    def is_valid(self, output: Tensor) -> Tensor:
        """Return which events have an answer, (B,) bool; default: finite outputs."""
        return output.isfinite().all(dim=1)

    def failure(self, output: Tensor) -> str:
        """Return the reason why an event has no answer, from its outputs (K,)."""
        return "not finite"

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return metrics of each event, (B,); the validation reports their means.

        Smaller values are better, unless `higher_is_better` has the name. Names that
        begin with `inside_` are coverages, for which neither holds.

        Args:
            output: Raw outputs, (B, K).
            target: Finite targets, (B, ...).
        """
        return {}

    def collect(self) -> dict[str, Any]:
        """Return torchmetrics metrics of whole validation sets, by name.

        Each is updated with `(scores(output), target)`, and with the weights of the
        events, (B,), if the training has any and `update` takes a third argument.
        """
        return {}

    def scores(self, output: Tensor) -> Tensor:
        """Return the input of the metrics of `collect`; default: the first output."""
        return output[:, 0]

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> Calibration | None:
        """Fit a calibration of the task's widths on events that were not trained on.

        Args:
            output: Raw outputs, (B, K).
            target: Finite targets, (B, ...).
            method: Name of one of the task's methods.

        Returns:
            The calibration, or None if the task has none.
        """
        return None

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return metrics of the widths' calibration, by name.

        Args:
            columns: Columns of the task, (B,) each, for events with an answer.
            target: Finite targets, (B, ...).
        """
        return {}

    def read_calibration(self, values: Mapping[str, Any]) -> Calibration:
        """Rebuild a calibration from its `to_dict`.

        Raises:
            ValueError: The task has no calibration, or the values do not fit.
        """
        if self.calibration_class is None:
            raise ValueError(f"task {self.name!r} has no calibration")
        return self.calibration_class.from_dict(values)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the columns with a calibration applied; None: as in `predict`."""
        return self.predict(output)

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return the weighted mean of several models' outputs, (B, K).

        A model whose output is not finite for an event is left out for that event.

        Args:
            outputs_MBK: Outputs of the models, (M, B, K).
            weights: Weights of the M models, 0 or more.
        """
        return weighted_mean(outputs_MBK, weights)

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return the task's section of the report.

        Args:
            tables: Columns of the task, (B,) each, by results table, for events with
                an answer and a label.
            target: Targets of the events, (B, ...).
            known: Other truth of the events, (B,) each, if available: `energy` (GeV),
                `direction` (B, 3) and its `cos_zenith`, `n_pulses`, `topology`, and
                `weight`, the weights that all figures must use (`tasks.section` has
                functions that do).
        """
        column = self.columns[0]
        values = {name: table[column.name] for name, table in tables.items()}
        return residual_section(
            self.name, column.name, column.unit, values, target, known
        )

    def describe(self) -> dict[str, Any]:
        """Return the arguments that rebuild this task."""
        return dict(self.options)


def weighted_mean(outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the mean of the models' finite outputs, (B, K)."""
    good_MB1 = outputs_MBK.isfinite().all(dim=2, keepdim=True)
    share_MB1 = outputs_MBK.new_tensor(weights)[:, None, None] * good_MB1
    total = (share_MB1 * outputs_MBK.where(good_MB1, 0.0)).sum(dim=0)
    return total / share_MB1.sum(dim=0)


def register_task(task: type[Task]) -> type[Task]:
    """Register a task class under its `name`.

    Raises:
        ValueError: The name is taken or not allowed, the class lacks a required
            attribute, or it cannot be built without arguments.
    """
    needed = ("name", "truth", "num_outputs", "columns")
    if missing := [n for n in needed if not hasattr(task, n)]:
        raise ValueError(f"task {task.__name__} lacks {', '.join(missing)}")
    if isinstance(task.truth, str):
        raise ValueError(f"task {task.name!r}: truth must be a tuple of names")
    if not task.num_outputs >= 1:
        raise ValueError(f"task {task.name!r}: num_outputs must be 1 or more")
    if task.name in MODULE_NAMES:
        raise ValueError(
            f"task {task.name!r}: torch's modules have an attribute of that name: "
            "choose another name"
        )
    # Tables and truth build every registered task; files use named arguments.
    for argument in signature(task).parameters.values():
        if argument.kind is Parameter.VAR_KEYWORD:
            continue
        if argument.default is argument.empty or (
            argument.kind is Parameter.POSITIONAL_ONLY
        ):
            raise ValueError(
                f"task {task.name!r}: constructor argument {argument.name!r} must be a "
                f"keyword with a default value: {argument.name}=..."
            )
    TASKS.add(task.name, task)
    return task
