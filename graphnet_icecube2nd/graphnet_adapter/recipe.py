"""A stage of a recipe as GraphNeT trains it: a `StandardModel` and arguments of `fit`.

    stage = recipe_stage("s_d32", "store/")      # or a Recipe, or a .yaml file
    stage.model.fit(
        stage.data.train_dataloader(), stage.data.val_dataloader(), **stage.fit_options
    )

The same first weights, batches, loss, AdamW, one-cycle and average of the weights as
`graphnet_icecube2nd.training` has. What only it has: resuming to the bit; stages handed
over without a line of code, with their best weights (`next_from`), where here a model
ends with its last; `patience`, `monitor`, `compile`, of which `recipe_stage` warns; and
training on several devices, which the loaders here refuse.
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

from graphnet_icecube2nd.graphnet_adapter.backbones import (
    DeepIceBackbone,
    DeepIceGNNBackbone,
)
from graphnet_icecube2nd.graphnet_adapter.detectors import PulseMapDetector
from graphnet_icecube2nd.graphnet_adapter.losses import (
    AngularDistance,
    CombinedDirection,
    ExactVonMisesFisher3DLoss,
)
from graphnet_icecube2nd.graphnet_adapter.representations import PackedPulses
from graphnet_icecube2nd.graphnet_adapter.store_datamodule import StoreDataModule
from graphnet_icecube2nd.models.checkpoint_loading import load_weights
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.training.ema import WeightAverage
from graphnet_icecube2nd.training.module import freeze
from graphnet_icecube2nd.training.recipe import OPENING_ANGLE, Recipe, Stage
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import check_model
from graphnet_icecube2nd.training.schedule import OneCycleScheduler
from graphnet_icecube2nd.training.stage_run import first_model, make_data
from graphnet_icecube2nd.training.trainer import PRECISION


@dataclass(frozen=True, kw_only=True)
class RecipeStage:
    """What GraphNeT needs to train a stage.

    Args:
        model: With the stage's first weights.
        data: The store's batches, as `StandardModel` reads them.
        fit_options: Keyword arguments of `model.fit`.
        recipe: The recipe.
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
    """Return a stage of a recipe for GraphNeT, to be trained on one device.

    Warns of options of the recipe that GraphNeT's trainer does not follow.

    Args:
        recipe: A recipe, the name of one, or a YAML file.
        store: A store with directions.
        stage: Which, from 0.
        overrides: As `stages.0.lr_max=2e-5`.
        weights: What the stage begins with, where the recipe names none: of the stage
            before, in any form that `load_weights` reads. Default: random ones.
        num_workers: Processes that read events.

    Raises:
        ValueError: No such stage; and as `find_recipe`.
    """
    made = find_recipe(recipe, overrides)
    check_model(made)
    if not 0 <= stage < len(made.stages):
        raise ValueError(
            f"{made.name} has stages 0 to {len(made.stages) - 1}, got {stage}"
        )
    chosen = made.stages[stage]
    _warn_of_what_is_not_kept(made, stage)
    store = store if isinstance(store, EventStore) else EventStore(store)
    core = first_model(made)
    if source := chosen.weights or weights:
        load_weights(core, source, partial=chosen.partial)
    freeze(core, chosen.freeze)
    data = make_data(made, stage, store, num_workers, kind=StoreDataModule)
    wanted = max(1, chosen.accumulate_events // chosen.batch_size)
    data.step_batches = data.fitting_step(wanted)
    sub_epochs = made.num_sub_epochs(stage)
    steps = sub_epochs * len(data.train_dataloader()) // data.step_batches
    model = _standard_model(core, made, chosen, store, steps)
    callbacks: list[Callback] = [ProgressBar()]
    if chosen.ema:
        callbacks.append(
            AverageOfWeights(model, decay=chosen.ema_decay, keep=chosen.save_ema)
        )
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
    patience = recipe.stages[stage].patience
    not_kept = {
        f"stages.{stage}.patience={patience}": patience is not None,
        f"monitor={recipe.monitor}": recipe.monitor != OPENING_ANGLE,
        "compile=true": recipe.compile,
    }
    if names := [name for name, is_set in not_kept.items() if is_set]:
        warnings.warn(
            f"GraphNeT's trainer does not follow {', '.join(names)} of {recipe.name}: "
            "the stage is trained to its end, not compiled, and leaves its last "
            "weights; give `fit` callbacks of your own, or use icecube2nd train",
            stacklevel=3,
        )


class AverageOfWeights(Callback):
    """Keeps the exponential moving average of a GraphNeT model's weights.

    It validates with the average, and leaves it in the model when training ends.

    Args:
        model: The model that is trained.
        decay: For each micro-batch.
        keep: Leave the average in the model at the end.
    """

    def __init__(self, model: StandardModel, decay: float, keep: bool = True) -> None:
        self._trained = _parts(model)
        self.average = WeightAverage(self._trained, decay)
        self.keep = keep

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Follow the model to its device."""
        self.average.to(pl_module.device)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *further: Any) -> None:
        """Follow, after an optimiser step."""
        num_batches = trainer.accumulate_grad_batches
        index = further[-1]
        is_last = index + 1 >= trainer.num_training_batches
        if is_last or not (index + 1) % num_batches:
            self.average.update(self._trained, num_batches * trainer.world_size)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Validate the average."""
        self._swap()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Go on with the raw weights."""
        self._swap()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the average in the model."""
        if self.keep:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for checkpoints."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self.average.load_state_dict(state_dict)

    def _swap(self) -> None:
        pairs = zip(
            self._trained.parameters(), self.average.model.parameters(), strict=True
        )
        with torch.no_grad():
            for raw, averaged in pairs:
                kept = raw.detach().clone()
                raw.copy_(averaged)
                averaged.copy_(kept)


def _parts(model: StandardModel) -> nn.Module:
    return nn.ModuleList([model.backbone, model._tasks])


def _standard_model(
    core: DeepIce, recipe: Recipe, stage: Stage, store: EventStore, steps: int
) -> StandardModel:
    is_hybrid = isinstance(core, DeepIceGNN)
    backbone = (DeepIceGNNBackbone if is_hybrid else DeepIceBackbone)(**core.kwargs())
    head = core.head
    loss: Any = {
        "vmf": lambda: ExactVonMisesFisher3DLoss(stage.normalisation),
        "combined": lambda: CombinedDirection(normalisation=stage.normalisation),
        "angle": AngularDistance,
    }[stage.loss]()
    task = DirectionReconstructionWithKappa(
        hidden_size=backbone.nb_outputs, target_labels="direction", loss_function=loss
    )
    with torch.no_grad():
        own = backbone.model.state_dict(keep_vars=True)
        for name, value in core.state_dict(keep_vars=True).items():
            if not name.startswith("head."):
                own[name].copy_(value)
                own[name].requires_grad_(value.requires_grad)
        task._affine.weight.copy_(head.weight)
        task._affine.bias.copy_(head.bias)
    pulse_map = store.pulse_map
    if recipe.data.features == "published":
        pulse_map = pulse_map.as_published()
    schedule = stage.schedule()
    return StandardModel(
        # Not asked while a store's own batches are trained on; it says what they are.
        data_representation=PackedPulses(
            PulseMapDetector(pulse_map),
            max_pulses=stage.max_pulses,
            selection=recipe.data.selection,
            seed=recipe.seed,
        ),
        backbone=backbone,
        tasks=[task],
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
