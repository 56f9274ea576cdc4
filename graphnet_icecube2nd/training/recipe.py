"""Recipe: the stages of a training and all their options, without the data.

Defaults are our choice; `as_published` sets the options of the published code. Sources:
github.com/DrHB/icecube-2nd-place, train.py and README, and the behaviour of fastai and
fastxtend that they use.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from graphnet_icecube2nd.config import (
    dump_yaml,
    from_plain,
    load_yaml,
    nearest,
    read_yaml,
    set_value,
    to_plain,
)
from graphnet_icecube2nd.conventions import LENGTH_CLASSES
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.errors import check_one_of, check_positive, check_whole, naming
from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.events.features import DETECTOR, POSITIONS
from graphnet_icecube2nd.events.selection import check_selection
from graphnet_icecube2nd.files import write_text
from graphnet_icecube2nd.loading.sampler import SUB_EPOCHS
from graphnet_icecube2nd.models.model import FIXED, LEARNED, WEIGHTINGS
from graphnet_icecube2nd.tasks.catalogue import build_tasks, distinct_tasks, task_weight
from graphnet_icecube2nd.tasks.direction.direction import LOSSES, Direction
from graphnet_icecube2nd.tasks.direction.losses import NORMALISATIONS
from graphnet_icecube2nd.tasks.label import LABELS
from graphnet_icecube2nd.tasks.task import COVERAGE, TASKS, Task
from graphnet_icecube2nd.training.balance import QUANTITIES
from graphnet_icecube2nd.training.optimisation import OneCycle

PRECISIONS = ("float32", "bfloat16", "float16")
HAND_OVER = ("best", "last")
LOSS = "loss"  # sum over all tasks, or of one task
OPENING_ANGLE = f"{Direction.name}/opening_angle"  # rad; also shown in degrees
FORMER_MONITORS = {"angle": OPENING_ANGLE}  # names of release 0.1.0
TaskOptions = Mapping[str, Mapping[str, Any]]  # options by task, including `weight`
FEATURES = ("store", "published")
PUBLISHED_EVENTS = 4096  # events between two optimiser steps


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training: a one-cycle, one call of the published `train.py`.

    Args:
        lr_max: Maximum learning rate.
        epochs: Passes over the data; the minimum is one sub-epoch.
        div: `lr_max` divided by the initial learning rate.
        div_final: `lr_max` divided by the final learning rate.
        momenta: AdamW's first beta at the start, at `lr_max`, and at the end.
        pct_start: Share of the stage in which the learning rate rises.
        loss: Loss of the task direction: `vmf`, `combined` (opening angle + 0.05 vmf)
            or `angle`.
        normalisation: Normalisation of the vmf: `exact`, or `published`, which is
            inexact for narrow distributions.
        tasks: Options of tasks that replace the recipe's in this stage, such as
            `{energy: {weight: 0.2}}`.
        ema: Keep an exponential moving average of the weights.
        ema_decay: Decay of the average for each micro-batch of any rank, as published.
        save_ema: Save the average and start the next stage with it. If false, as
            published, the average is only validated, and the raw weights are used.
        batch_size: Events per micro-batch on one rank.
        max_pulses: Maximum pulses per event; longer events are cut.
        accumulate_events: Events, over all ranks, between two optimiser steps.
        gradient_clip: Maximum norm of the gradient.
        weight_decay: AdamW's weight decay, on every parameter.
        eps: AdamW's eps.
        layer_decay: Learning rate of a layer of the backbone divided by that of the
            layer above it. The last layers of the tasks have the full learning rate,
            the embedding the lowest; 1: all have the same.
        freeze: Modules, or prefixes of the names of parameters, that are not trained,
            such as `backbone`, `embedding` or `encoder.0`. Frozen modules are in
            evaluation mode.
        weights: File of the initial weights; None: the previous stage's, or random.
        partial: Load the matching part of `weights` and list the rest; otherwise all
            must match (see `load_weights`).
        next_from: Initial weights of the next stage: `best` or `last`.
        patience: Sub-epochs without a better validation after which the stage ends;
            None: all sub-epochs are trained.

    Raises:
        ValueError: A value is out of its range; the message begins with its name.
    """

    lr_max: float
    epochs: float = 1.0
    div: float = 25.0
    div_final: float = 25.0
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)
    pct_start: float = 0.01
    loss: str = "vmf"
    normalisation: str = "exact"
    tasks: TaskOptions = field(default_factory=dict)
    ema: bool = False
    ema_decay: float = 0.9998
    save_ema: bool = True
    batch_size: int = 32
    max_pulses: int = 192
    accumulate_events: int = 4096
    gradient_clip: float = 3.0
    weight_decay: float = 0.05
    eps: float = 1e-8
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()
    weights: str | None = None
    partial: bool = False
    next_from: str = "best"
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("momenta", "freeze"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("lr_max", "epochs", "gradient_clip", "eps"):
            check_positive(name, getattr(self, name))
        for name in ("batch_size", "max_pulses", "accumulate_events"):
            check_whole(name, getattr(self, name), 1)
        self.schedule()  # checks div, div_final, momenta and pct_start
        if self.patience is not None:
            check_whole("patience", self.patience, 1)
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be >= 0, found {self.weight_decay}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay must be above 0 and up to 1, found {self.layer_decay}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be from 0 to 1, found {self.ema_decay}")
        check_one_of("loss", self.loss, LOSSES)
        check_one_of("normalisation", self.normalisation, NORMALISATIONS)
        check_one_of("next_from", self.next_from, HAND_OVER)
        object.__setattr__(self, "tasks", _task_options(self.tasks))

    def schedule(self) -> OneCycle:
        """Return the learning rates and momenta of the stage."""
        return OneCycle(
            learning_rate=self.lr_max,
            div=self.div,
            div_final=self.div_final,
            momenta=self.momenta,
            pct_start=self.pct_start,
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Choice and reading of a recipe's training and validation events.

    Args:
        selection: Selection of the kept pulses: `uniform`, `hlc_first` or `first`.
        length_class: Length class of the events: `total`, `short`, `medium` or `long`.
        events: Condition on truth columns and `n_pulses`, such as `energy > 100`.
        num_sub_epochs: Number of parts of an epoch; each ends with a validation.
        sub_epochs: `partition`: every event once per epoch; `published`: independent
            random parts, of which eight show 66% of the events.
        validation_batch_size: Events per validation batch; default: the stage's.
        validation_max_pulses: Maximum pulses per validation event; default: the
            stage's.
        features: `store`: features of the store's pulse map; `published`: efficiency
            and ice features with the errors of the competition's code.
        positions: Point from which positions count: `detector`, its centre, or
            `charge_centre`, that of each event, for models that shall not know where in
            the detector an event is.
        scales: Units of the features; default: those of the store's detector. A model
            that was trained on another detector needs its own.
        augmentations: Augmentations of training events, each a `kind` with its
            arguments, such as `{kind: time_jitter, sigma: 2.0}` or `{kind: mask_to,
            detector: orca6}`.
        validation_fraction: Share of validation events, if the store does not have the
            competition's validation batches.
        split_seed: Random seed of that split.
        balance: Labels for which training events get further weights: `energy`,
            `visible_energy`, `topology`, `track`, `neutrino`. Each half decade of
            energy, each class, or each combination of several labels then has the same
            weight, but no event more than 20 times the mean. The validation does not
            use these weights.

    Raises:
        ValueError: A value is out of its range; the message begins with its name.
    """

    selection: str = "uniform"
    length_class: str = "total"
    events: str | None = None
    num_sub_epochs: int = 8
    sub_epochs: str = "partition"
    validation_batch_size: int | None = None
    validation_max_pulses: int | None = None
    features: str = "store"
    positions: str = DETECTOR
    scales: Scales | None = None
    augmentations: tuple[Mapping[str, Any], ...] = ()
    validation_fraction: float = 0.1
    split_seed: int = 0
    balance: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_selection(self.selection, 1)
        check_one_of("length_class", self.length_class, tuple(LENGTH_CLASSES))
        check_one_of("sub_epochs", self.sub_epochs, SUB_EPOCHS)
        check_one_of("features", self.features, FEATURES)
        check_one_of("positions", self.positions, POSITIONS)
        if isinstance(self.balance, str):
            raise ValueError(f"balance must be a list, found {self.balance!r}")
        object.__setattr__(self, "balance", tuple(dict.fromkeys(self.balance)))
        for name in self.balance:
            check_one_of("balance", name, QUANTITIES)
        check_whole("num_sub_epochs", self.num_sub_epochs, 1)
        for name in ("validation_batch_size", "validation_max_pulses"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction must be between 0 and 1, both excluded; found "
                f"{self.validation_fraction}"
            )
        for values in self.augmentations:
            augmentation_from_dict(values)  # raises if it does not exist


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training depends on, except its data.

    Args:
        name: Name of the recipe.
        model: Name of a model, see `list_models()`.
        model_kwargs: Constructor arguments that replace the model's.
        stages: Stages in their order.
        seed: Random seed of initial weights, order of events and selection of pulses.
        data: Choice and reading of the events.
        tasks: Options by name of the task: constructor arguments of the task, and
            `weight`, the factor of its loss (default: `Task.default_weight`). Names
            alone are allowed. Empty: only the direction, with the published model.
        weighting: Weighting of the losses: `fixed`, or `learned` (see `TaskModel`).
        event_weight: Column of the truth with the weight of each event, 0 or more, in
            the losses and in the metrics of the validation. Only ratios of weights
            count.
        monitor: Validation value that chooses the best weights and that `patience`
            watches: `TASK/METRIC`, `TASK/loss` or `loss`. Without a task direction the
            default is `loss`.
        precision: `float32`, `bfloat16` or `float16`.
        compile: Compile the model with `torch.compile`.

    Raises:
        ValueError: A value is out of its range; the message begins with its name.
    """

    name: str
    model: str
    stages: tuple[Stage, ...]
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 2023
    data: DataConfig = field(default_factory=DataConfig)
    tasks: TaskOptions = field(default_factory=dict)
    weighting: str = FIXED
    event_weight: str | None = None
    monitor: str = OPENING_ANGLE
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must have at least one stage, found none")
        check_whole("seed", self.seed, 0)
        check_one_of("precision", self.precision, PRECISIONS)
        for number, stage in enumerate(self.stages):
            parts = stage.epochs * self.data.num_sub_epochs
            if parts < 0.999 or abs(parts - round(parts)) > 1e-3:
                raise ValueError(
                    f"stages.{number}.epochs must be a whole number of sub-epochs of "
                    f"1/{self.data.num_sub_epochs}, found {stage.epochs}"
                )
        object.__setattr__(self, "tasks", _task_options(self.tasks))
        check_one_of("weighting", self.weighting, WEIGHTINGS)
        if self.weighting == LEARNED and not self.tasks:
            raise ValueError(
                "weighting 'learned' needs tasks, such as tasks={'direction': {}, "
                "'energy': {}}; without tasks only the direction is trained"
            )
        self._check_tasks()
        object.__setattr__(self, "monitor", self._checked_monitor())

    def task_options(self, stage: int) -> dict[str, dict[str, Any]]:
        """Return the options of each task in a stage, by its number."""
        chosen = self.stages[stage]
        options = {name: dict(given) for name, given in self.tasks.items()}
        options = options or {Direction.name: {}}
        if Direction.name in options:
            of_stage = {"loss": chosen.loss, "normalisation": chosen.normalisation}
            options[Direction.name] = {**of_stage, **options[Direction.name]}
        for name, given in chosen.tasks.items():
            options[name].update(given)
        return options

    @property
    def higher_is_better(self) -> bool:
        """True if larger values of the monitor are better."""
        name, _, metric = self.monitor.partition("/")
        if not metric:
            return False
        tasks, _ = build_tasks({name: self.task_options(0)[name]})
        return bool(_larger_is_better(tasks[name], metric))

    def _check_tasks(self) -> None:
        """Raise ValueError if a task or an option does not exist."""
        for name, given in self.tasks.items():
            _check_task(f"tasks.{name}", name, given)
        names = tuple(self.tasks) or (Direction.name,)
        for number, stage in enumerate(self.stages):
            where = f"stages.{number}.tasks."
            _check_names(where, stage.tasks, names)
            for name, given in stage.tasks.items():
                _check_task(f"{where}{name}", name, given)
            for option in ("loss", "normalisation"):
                ours = self.tasks.get(Direction.name, {}).get(option)
                theirs = getattr(stage, option)
                if ours is not None and theirs not in (getattr(Stage, option), ours):
                    raise ValueError(
                        f"tasks.direction.{option} is {ours!r}, but stages.{number}."
                        f"{option} is {theirs!r}; set only stages.{number}.{option}"
                    )
            try:
                _, weights = build_tasks(self.task_options(number))
            except ValueError as error:
                raise ValueError(f"stages.{number}: {error}") from None
            if not any(weights.values()):
                raise ValueError(
                    f"stages.{number}: the weight of a task must be above 0, found 0 "
                    f"for every task; set tasks.{names[0]}.weight"
                )

    def _checked_monitor(self) -> str:
        """Return the present name of the monitor; ValueError if it does not exist."""
        monitor = FORMER_MONITORS.get(self.monitor, self.monitor)
        options = self.task_options(0)
        if monitor == OPENING_ANGLE and Direction.name not in options:
            return LOSS
        tasks, _ = build_tasks(options)
        known = [LOSS]
        for name, task in tasks.items():
            metrics = (LOSS, *event_metric_names(task), *task.collect())
            known += [f"{name}/{metric}" for metric in metrics]
        if monitor not in known:
            raise ValueError(
                f"monitor {monitor!r} is unknown; {nearest(monitor, known)}"
            )
        name, _, metric = monitor.partition("/")
        if metric and _larger_is_better(tasks[name], metric) is None:
            raise ValueError(
                f"monitor must be a loss, an error or a score, found {monitor!r}, of "
                "which neither small nor large values are known to be better. Use "
                f"{name}/{LOSS}, or set the task's `higher_is_better`"
            )
        return monitor

    def num_sub_epochs(self, stage: int) -> int:
        """Return the number of sub-epochs of a stage."""
        return round(self.stages[stage].epochs * self.data.num_sub_epochs)


def published_step_events(batch_size: int) -> int:
    """Return the number of events between two optimiser steps of the published code.

    It asks for 4096 // BS batches, but fastai counts this number in samples and steps
    after the batch that reaches it.
    """
    counted = PUBLISHED_EVENTS // batch_size
    return batch_size * max(1, -(-counted // batch_size))


def as_published(recipe: Recipe) -> Recipe:
    """Return a recipe with the options of the published code.

    Optimiser steps come every 128 events with batches of 32 (`published_step_events`).
    An epoch is eight independent random eighths. The average is validated but not
    saved. The next stage starts with the last weights, not the best ones. The vmf of
    narrow distributions is approximate, and features have the published errors. The
    published autocast to float16 needs a GPU: `precision=float16`.
    """
    stages = tuple(
        replace(
            stage,
            accumulate_events=published_step_events(stage.batch_size),
            save_ema=False,
            next_from="last",
            normalisation="published",
        )
        for stage in recipe.stages
    )
    data = replace(recipe.data, sub_epochs="published", features="published")
    return replace(recipe, stages=stages, data=data)


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML with all values."""
    return dump_yaml(to_plain(recipe))


def write_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as YAML, atomically."""
    write_text(path, recipe_text(recipe))


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from YAML; values with a default may be left out."""
    with naming(path):
        return from_plain(Recipe, read_yaml(path))


def overridden(recipe: Recipe, overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
    """Return a recipe with some values replaced.

    Overrides are texts such as `stages.1.lr_max=2e-5`, or a mapping of such names to
    values.
    """
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    values = to_plain(recipe)
    if not recipe.tasks and any(name.startswith("tasks.") for name in overrides):
        values["tasks"] = {Direction.name: {}}  # an option of a task adds that task
    for name, value in overrides.items():
        set_value(values, name, to_plain(value))
    return from_plain(Recipe, values)


def parse_override(text: str) -> tuple[str, Any]:
    """Return name and value of `name=value`; the value is YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"an override must be NAME=VALUE, found {text!r}")
    try:
        return name.strip(), load_yaml(value, name)
    except ValueError:  # a condition need not be valid YAML
        return name.strip(), value.strip()


def _task_options(given: Any) -> dict[str, dict[str, Any]]:
    """Return options by task as dicts; task names or None have no options."""
    if not isinstance(given, Mapping):
        given = {task: {} for task in distinct_tasks(given or ())}
    for task, options in given.items():
        if not isinstance(options, Mapping):
            raise ValueError(
                f"tasks.{task} must be a mapping of options, found {options!r}"
            )
    return {task: dict(options) for task, options in given.items()}


def event_metric_names(task: Task) -> list[str]:
    """Return the names of the metrics that a task computes for each event."""
    truth = {
        name: torch.ones((1, size) if size > 1 else 1)
        for name in task.truth
        for size in (LABELS[name].size if name in LABELS else 1,)
    }
    output = torch.zeros(1, task.num_outputs)
    return list(task.metrics(output, task.target(truth)))


def _larger_is_better(task: Task, metric: str) -> bool | None:
    """Return whether larger values of a metric are better; None: unknown."""
    if metric in task.higher_is_better:
        return True
    if metric.startswith(COVERAGE):
        return None
    collected = task.collect()
    if metric in collected:  # None in torchmetrics means unknown
        known: bool | None = getattr(collected[metric], "higher_is_better", None)
        return known
    return False


def _check_task(where: str, name: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError if a task or one of its options does not exist."""
    try:
        arguments = inspect.signature(TASKS.get(name)).parameters
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    _check_names(f"{where}.", given, (*arguments, "weight"))
    task_weight(given.get("weight", 1.0), f"{where}.weight")


def _check_names(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{where}{name} is unknown; {nearest(name, known, where)}")
