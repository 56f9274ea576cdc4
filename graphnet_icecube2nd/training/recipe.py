"""A recipe: all that a training depends on but its data; a list of stages.

Defaults are sensible; where the published code does otherwise, `as_published` turns
the switch. Source of both: github.com/DrHB/icecube-2nd-place, train.py and README, and
what fastai and fastxtend make of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphnet_icecube2nd.conventions import LENGTH_CLASSES
from graphnet_icecube2nd.events.augmentation import augmentation_from_dict
from graphnet_icecube2nd.events.selection import check_selection
from graphnet_icecube2nd.tasks.direction.losses import (
    NORMALISATIONS,
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    VonMisesFisherLoss,
)
from graphnet_icecube2nd.training.schedule import OneCycle

LOSSES = ("vmf", "combined", "angle")
PRECISIONS = ("float32", "bfloat16", "float16")
HAND_OVER = ("best", "last")
MONITORS = ("angle", "loss")
FEATURES = ("store", "published")
SUB_EPOCHS = ("partition", "published")
PUBLISHED_EVENTS = 4096


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One call of the published `train.py`: a one-cycle from weights to weights.

    Args:
        lr_max: Largest learning rate.
        epochs: Of the data; with 8 sub-epochs an eighth is the least.
        div: The learning rate begins at `lr_max / div` ...
        div_final: ... and ends at `lr_max / div_final`.
        momenta: AdamW's first beta at the beginning, at `lr_max`, and at the end.
        pct_start: Share of the stage in which the learning rate rises.
        loss: `vmf`, `combined` (opening angle + 0.05 vmf) or `angle`.
        normalisation: Of the vmf: `exact`, or `published`, off above kappa 100.
        ema: Keep an exponential moving average of the weights.
        ema_decay: For each micro-batch of any rank, as published.
        save_ema: The average is what is saved and goes on; false, as published: it is
            validated, and the raw weights go on.
        batch_size: Events of a micro-batch on one rank.
        max_pulses: L, what longer events are cut to.
        accumulate_events: Events, over all ranks, between two optimiser steps.
        gradient_clip: Largest norm of the gradient.
        weight_decay: Of AdamW, on every parameter.
        eps: Of AdamW.
        freeze: Parameters whose name begins with one of these are not trained.
        weights: File to start from; None: from the stage before, and in the first from
            random ones.
        partial: What of `weights` fits is taken, and the rest listed; else all must.
        next_from: The next stage begins with the `best` weights or with the `last`.
        patience: Stop after so many sub-epochs without a better validation; None: no.

    Raises:
        ValueError: A value out of its range; the message begins with its name.
    """

    lr_max: float
    epochs: float = 1.0
    div: float = 25.0
    div_final: float = 25.0
    momenta: tuple[float, float, float] = (0.95, 0.85, 0.95)
    pct_start: float = 0.01
    loss: str = "vmf"
    normalisation: str = "exact"
    ema: bool = False
    ema_decay: float = 0.9998
    save_ema: bool = True
    batch_size: int = 32
    max_pulses: int = 192
    accumulate_events: int = 4096
    gradient_clip: float = 3.0
    weight_decay: float = 0.05
    eps: float = 1e-8
    freeze: tuple[str, ...] = ()
    weights: str | None = None
    partial: bool = False
    next_from: str = "best"
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("momenta", "freeze"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("lr_max", "epochs", "gradient_clip", "eps"):
            _positive(name, getattr(self, name))
        for name in ("batch_size", "max_pulses", "accumulate_events"):
            _at_least(name, getattr(self, name), 1)
        self.schedule()  # raises where div, div_final, momenta or pct_start are off
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be from 0 to 1, got {self.ema_decay}")
        _one_of("loss", self.loss, LOSSES)
        _one_of("normalisation", self.normalisation, NORMALISATIONS)
        _one_of("next_from", self.next_from, HAND_OVER)

    def schedule(self) -> OneCycle:
        """Return its learning rates and momenta."""
        return OneCycle(
            learning_rate=self.lr_max,
            div=self.div,
            div_final=self.div_final,
            momenta=self.momenta,
            pct_start=self.pct_start,
        )

    def make_loss(self) -> DirectionLoss:
        """Return its loss."""
        if self.loss == "angle":
            return AngularDistanceLoss()
        if self.loss == "combined":
            return CombinedDirectionLoss(normalisation=self.normalisation)
        return VonMisesFisherLoss(normalisation=self.normalisation)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which events a recipe trains and validates on, and how they are read.

    Args:
        selection: Which pulses of long events are kept: `uniform`, `hlc_first`,
            `first`.
        length_class: `total`, `short`, `medium` or `long` events.
        events: A condition on truth columns and `n_pulses`, as `energy > 100`.
        num_sub_epochs: Parts of an epoch; each ends with a validation.
        sub_epochs: `partition`: every event once an epoch; `published`: independent
            random parts, of which eight show 66% of the events.
        validation_batch_size: Default: as training.
        validation_max_pulses: L of the validation; default: as training.
        features: `store`: of the store's pulse map; `published`: with the slips of the
            competition's code in efficiency and ice.
        augmentations: Of training events, each `kind` and its arguments, as
            `{kind: time_jitter, sigma: 2.0}`.
        validation_fraction: Share of the events that validate, where the competition's
            validation batches are not there.
        split_seed: Of that split.

    Raises:
        ValueError: A value out of its range; the message begins with its name.
    """

    selection: str = "uniform"
    length_class: str = "total"
    events: str | None = None
    num_sub_epochs: int = 8
    sub_epochs: str = "partition"
    validation_batch_size: int | None = None
    validation_max_pulses: int | None = None
    features: str = "store"
    augmentations: tuple[Mapping[str, Any], ...] = ()
    validation_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_selection(self.selection, 1)
        _one_of("length_class", self.length_class, tuple(LENGTH_CLASSES))
        _one_of("sub_epochs", self.sub_epochs, SUB_EPOCHS)
        _one_of("features", self.features, FEATURES)
        _at_least("num_sub_epochs", self.num_sub_epochs, 1)
        for name in ("validation_batch_size", "validation_max_pulses"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction must be between 0 and 1, both excluded; got "
                f"{self.validation_fraction}"
            )
        for values in self.augmentations:
            augmentation_from_dict(values)  # raises where there is no such one


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a training depends on but its data.

    Args:
        name: What it is called.
        model: One of `list_models()`.
        model_kwargs: Constructor arguments that replace the named model's.
        stages: One after the other.
        seed: Of first weights, order of events, and selection of pulses.
        data: Which events, and how they are read.
        monitor: What `best` and `patience` go by: mean opening `angle` or `loss` of the
            validation.
        precision: `float32`, `bfloat16` or `float16`.
        compile: Compile the model with `torch.compile`.

    Raises:
        ValueError: A value out of its range; the message begins with its name.
    """

    name: str
    model: str
    stages: tuple[Stage, ...]
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 2023
    data: DataConfig = field(default_factory=DataConfig)
    monitor: str = "angle"
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must have one at least")
        _at_least("seed", self.seed, 0)
        _one_of("monitor", self.monitor, MONITORS)
        _one_of("precision", self.precision, PRECISIONS)
        for number, stage in enumerate(self.stages):
            parts = stage.epochs * self.data.num_sub_epochs
            if parts < 0.999 or abs(parts - round(parts)) > 1e-3:
                raise ValueError(
                    f"stages.{number}.epochs must be a whole number of sub-epochs of "
                    f"1/{self.data.num_sub_epochs}, got {stage.epochs}"
                )

    def num_sub_epochs(self, stage: int) -> int:
        """Return after how many sub-epochs a stage ends."""
        return round(self.stages[stage].epochs * self.data.num_sub_epochs)


def published_step_events(batch_size: int) -> int:
    """Return the events between two optimiser steps of the published code.

    It asks for 4096 // BS batches, but fastai counts samples, and steps with the batch
    that makes them so many or more.
    """
    counted = PUBLISHED_EVENTS // batch_size
    return batch_size * max(1, -(-counted // batch_size))


def as_published(recipe: Recipe) -> Recipe:
    """Return a recipe with what the published code does otherwise.

    Optimiser steps every 128 events with batches of 32 (`published_step_events`); eight
    independent random eighths an epoch; the average validated but not saved; the last
    weights, not the best, go on; the approximate vmf above kappa 100; features with the
    published slips. Its autocast to float16 needs a GPU: `precision=float16`.
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


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _at_least(name: str, value: int, lowest: int) -> None:
    if not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be a whole number from {lowest}, got {value!r}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
