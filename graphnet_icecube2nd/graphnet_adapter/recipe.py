"""A stage of a recipe as GraphNeT trains it: a `StandardModel` and arguments of `fit`.

    stage = recipe_stage("s_d32", "store/")      # or a Recipe, or a .yaml file
    stage.model.fit(
        stage.data.train_dataloader(), stage.data.val_dataloader(), **stage.fit_options
    )

First weights, batches, losses, AdamW, one-cycle and average of the weights are those of
`graphnet_icecube2nd.training`. With GraphNeT's trainer, training does not resume
bitwise, ends with the last weights instead of the best (`next_from`), runs on one
device, and ignores `patience`, `monitor`, `compile` and a learned `weighting`, with a
warning of `recipe_stage`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from graphnet.models import StandardModel
from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa
from graphnet.training.callbacks import ProgressBar
from pytorch_lightning.callbacks import Callback
from torch import nn

from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.graphnet_adapter.backbones import (
    DeepIceBackbone,
    DeepIceGNNBackbone,
    ModelBackbone,
)
from graphnet_icecube2nd.graphnet_adapter.detectors import PulseMapDetector
from graphnet_icecube2nd.graphnet_adapter.representations import PackedPulses
from graphnet_icecube2nd.graphnet_adapter.store import StoreDataModule
from graphnet_icecube2nd.graphnet_adapter.tasks import (
    AngularDistance,
    CombinedDirection,
    ExactVonMisesFisher3DLoss,
    TaskHead,
)
from graphnet_icecube2nd.models.model import LEARNED, Model, TaskModel
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.training.module import freeze
from graphnet_icecube2nd.training.optimisation import OneCycleScheduler, WeightAverage
from graphnet_icecube2nd.training.recipe import OPENING_ANGLE, Recipe
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import check_model, first_model, make_data
from graphnet_icecube2nd.training.run_folder import detector_of
from graphnet_icecube2nd.training.trainer import PRECISION


@dataclass(frozen=True, kw_only=True)
class RecipeStage:
    """A stage of a recipe, ready for GraphNeT's trainer.

    Args:
        model: The model with the first weights of the stage.
        data: The data of the stage.
        fit_options: Keyword arguments of `model.fit`.
        recipe: The whole recipe.
    """

    model: StandardModel
    data: StoreDataModule
    fit_options: dict[str, Any]
    recipe: Recipe


def recipe_stage(
    recipe: Recipe | str,
    store: EventStore | str,
    *,
    stage: int = 0,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    weights: str | Path | None = None,
    num_workers: int = 0,
) -> RecipeStage:
    """Return a stage of a recipe, to be trained with GraphNeT on one device.

    Args:
        recipe: A recipe, the name of one, or a YAML file.
        store: A store with the labels of the recipe's tasks.
        stage: Number of the stage, from 0.
        overrides: Values to replace, such as `stages.0.lr_max=2e-5`.
        weights: Initial weights if the recipe names none, such as those of the
            previous stage, in any form that `load_weights` reads. Default: random.
        num_workers: Number of processes that read events.

    Warns:
        UserWarning: GraphNeT's trainer ignores an option of the recipe.

    Raises:
        ValueError: The recipe does not have the stage or is not valid (see
            `find_recipe`).
    """
    made = find_recipe(recipe, overrides)
    check_model(made)
    if not 0 <= stage < len(made.stages):
        raise ValueError(
            f"stage must be 0 to {len(made.stages) - 1} for recipe {made.name}, "
            f"got {stage}"
        )
    chosen = made.stages[stage]
    _warn_of_what_is_not_kept(made, stage)
    store = store if isinstance(store, EventStore) else EventStore(store)
    core = first_model(made, stage, detector_of(made, store))
    if made.event_weight is not None and not isinstance(core, TaskModel):
        warnings.warn(
            f"GraphNeT's losses are means of weight times loss, which are not divided "
            f"by the mean of {made.event_weight}: its mean should be about 1, as it "
            "also scales gradients. icecube2nd train divides",
            stacklevel=2,
        )
    if source := chosen.weights or weights:
        load_weights(core, source, partial=chosen.partial)
    freeze(core, chosen.freeze)
    data = make_data(made, stage, store, num_workers, kind=StoreDataModule)
    wanted = max(1, chosen.accumulate_events // chosen.batch_size)
    data.step_batches = data.fitting_step(wanted)
    sub_epochs = made.num_sub_epochs(stage)
    steps = sub_epochs * len(data.train_dataloader()) // data.step_batches
    model = _standard_model(core, made, stage, store, steps)
    callbacks: list[Callback] = [ProgressBar()]
    if chosen.ema:
        callbacks.append(AverageOfWeights(model, chosen.ema_decay, chosen.save_ema))
    return RecipeStage(
        model=model,
        data=data,
        recipe=made,
        fit_options={
            "max_epochs": sub_epochs,
            "gradient_clip_val": chosen.gradient_clip,
            "accumulate_grad_batches": data.step_batches,
            "precision": PRECISION[made.precision],
            "callbacks": callbacks,
            "distribution_strategy": "auto",
            "num_sanity_val_steps": 0,
        },
    )


def _warn_of_what_is_not_kept(recipe: Recipe, stage: int) -> None:
    patience, decay = recipe.stages[stage].patience, recipe.stages[stage].layer_decay
    not_kept = {
        f"stages.{stage}.patience={patience}": patience is not None,
        f"stages.{stage}.layer_decay={decay}": decay != 1,
        f"monitor={recipe.monitor}": recipe.monitor != OPENING_ANGLE,
        "compile=true": recipe.compile,
        f"weighting={LEARNED}": recipe.weighting == LEARNED,
        f"data.balance={list(recipe.data.balance)}": bool(recipe.data.balance),
    }
    if names := [name for name, is_set in not_kept.items() if is_set]:
        warnings.warn(
            f"GraphNeT's trainer ignores {', '.join(names)} of {recipe.name}: it "
            "trains the stage to its end, does not compile, and keeps the last "
            "weights. Give `fit` your own callbacks, or use icecube2nd train",
            stacklevel=3,
        )


class AverageOfWeights(Callback):
    """Exponential moving average of the weights of a GraphNeT model.

    Validation uses the average.

    Args:
        model: The model that is trained.
        decay: Decay of the average for each micro-batch.
        keep: Whether the model has the averaged weights after training.
    """

    def __init__(self, model: StandardModel, decay: float, keep: bool = True) -> None:
        self._trained = nn.ModuleList([model.backbone, model._tasks])
        self.average = WeightAverage(self._trained, decay)
        self.keep = keep

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Move the average to the model's device."""
        self.average.to(pl_module.device)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *further: Any) -> None:
        """Update the average after an optimiser step."""
        num_batches = trainer.accumulate_grad_batches
        num_done = further[-1] + 1
        if num_done >= trainer.num_training_batches or num_done % num_batches == 0:
            self.average.update(self._trained, num_batches * trainer.world_size)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Swap the average and the raw weights, before and after validation."""
        self._swap()

    on_validation_end = on_validation_start

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the average into the model."""
        if self.keep:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for checkpoints."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average from a checkpoint."""
        self.average.load_state_dict(state_dict)

    def _swap(self) -> None:
        averages = self.average.model.parameters()
        with torch.no_grad():
            for raw, averaged in zip(self._trained.parameters(), averages, strict=True):
                kept = raw.detach().clone()
                raw.copy_(averaged)
                averaged.copy_(kept)


def _standard_model(
    core: Model, recipe: Recipe, number: int, store: EventStore, steps: int
) -> StandardModel:
    stage = recipe.stages[number]
    options = recipe.task_options(number)
    backbone: Any
    if not isinstance(core, TaskModel):  # a published model, with direction only
        published: Any = core
        kind = DeepIceGNNBackbone if published.is_hybrid else DeepIceBackbone
        backbone = kind(**_plain(core.kwargs()))
        given = options[Direction.name]
        task = _direction_task(given, published.dim, recipe.event_weight)
        _copy_weights(published.head, task._affine)
        _copy_weights(core, backbone.model)
        tasks = [task]
    else:
        kwargs = _plain(core.describe()["kwargs"])
        backbone = ModelBackbone(
            core.model_name,
            model_kwargs=kwargs,
            first_light=any(t.uses_first_light for t in core.task_map.values()),
        )
        _copy_weights(core.backbone, backbone.model)
        tasks = []
        for name, task in core.task_map.items():
            given = {n: v for n, v in _plain(options[name]).items() if n != "weight"}
            head = TaskHead(
                name,
                core.dim,
                options=given,
                weight=core.task_weights[name],
                loss_weight=recipe.event_weight,
            )
            _copy_weights(task, head.task)
            tasks.append(head)
    schedule = stage.schedule()
    return StandardModel(
        # Not used with a store's batches; it records how they are made.
        data_representation=PackedPulses(
            PulseMapDetector(_detector_of(store, recipe)),
            max_pulses=stage.max_pulses,
            selection=recipe.data.selection,
            positions=recipe.data.positions,
            seed=recipe.seed,
        ),
        backbone=backbone,
        tasks=tasks,
        optimizer_class=torch.optim.AdamW,
        optimizer_kwargs={
            "lr": schedule.learning_rate_at(0),
            "weight_decay": stage.weight_decay,
            "eps": stage.eps,
        },
        scheduler_class=OneCycleScheduler,
        scheduler_kwargs={
            "total_steps": steps,
            "learning_rate": stage.lr_max,
            "div": stage.div,
            "div_final": stage.div_final,
            "momenta": list(stage.momenta),
            "pct_start": stage.pct_start,
        },
        scheduler_config={"interval": "step"},
    )


def _direction_task(
    options: Mapping[str, Any], dim: int, event_weight: str | None
) -> DirectionReconstructionWithKappa:
    normalisation = options["normalisation"]
    losses = {
        "vmf": ExactVonMisesFisher3DLoss(normalisation),
        "combined": CombinedDirection(normalisation=normalisation),
        "angle": AngularDistance(),
    }
    return DirectionReconstructionWithKappa(
        hidden_size=dim,
        target_labels=Direction.name,
        loss_function=losses[options["loss"]],
        loss_weight=event_weight,
    )


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights that both have, and their `requires_grad`."""
    own = target.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in source.state_dict(keep_vars=True).items():
            if name in own:
                own[name].copy_(value)
                own[name].requires_grad_(value.requires_grad)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in types that GraphNeT's configuration files accept."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def _detector_of(store: EventStore, recipe: Recipe) -> Any:
    """Return a store's detector as plain values that `PulseMapDetector` accepts."""
    detector, pulses = detector_of(recipe, store), store.pulse_map
    if recipe.data.features == "published":
        pulses = pulses.as_published()
    if detector.name in list_detectors():
        known = build_detector(detector.name)
        if (known.to_dict(), known.pulses) == (detector.to_dict(), pulses):
            return detector.name
    return {**detector.to_dict(), "pulses": pulses.to_dict()}
