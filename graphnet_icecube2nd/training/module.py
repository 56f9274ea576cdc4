"""TrainingModule: losses, optimiser steps, average and validation of a stage.

Shape letters: B events, K outputs of a task.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.model import (
    Model,
    is_labelled,
    layers_of,
    weights_of,
)
from graphnet_icecube2nd.training.balance import Balance
from graphnet_icecube2nd.training.history import RAW, column_of
from graphnet_icecube2nd.training.optimisation import WeightAverage, make_adamw
from graphnet_icecube2nd.training.recipe import LOSS, Stage, event_metric_names

try:
    from pytorch_lightning import LightningModule
    from torchmetrics import MeanMetric
except ImportError:  # the recipe and its parts work without Lightning
    LightningModule = object

RANDOM_STATE = "random_state"  # key in checkpoints
FACTOR = "factor"  # on the learning rate of a group of parameters


class TrainingModule(LightningModule):  # type: ignore[misc]
    """Trains a model for one stage.

    Logs `train_loss`, `learning_rate` and `gradient_norm`, and after each validation
    `validation_loss` (the weighted sum of the tasks' losses) and `TASK/METRIC` of each
    task. With an average of the weights these belong to the average, and `raw_...` to
    the raw weights.

    Args:
        model: Model to train.
        stage: Options of the stage.
        event_weight: Column of the batches' truth with the weights of the events.
        balance: Further factors on the weights of training events.
        compile: Compile the model.
    """

    def __init__(
        self,
        model: Model,
        stage: Stage,
        *,
        event_weight: str | None = None,
        balance: Balance | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        # DDP collects the parameters that need a gradient after this.
        self._frozen = frozen_modules(model, freeze(model, stage.freeze))
        self.model, self.stage = model, stage
        self.event_weight, self.balance = event_weight, balance
        self.average = WeightAverage(model, stage.ema_decay) if stage.ema else None
        self.schedule = stage.schedule()
        # Bound methods, so that no second copy of the parameters is registered.
        self._run = torch.compile(model.forward, dynamic=True) if compile else None
        self._pending: list[tuple[Tensor, Tensor | None]] = []
        self._random_state: dict[str, Any] | None = None
        self.step: dict[str, float] = {}  # values of the last optimiser step
        self.validation: dict[str, float] = {}  # values of the last validation
        # Events with non-finite validation values, and all events, for each batch.
        self._nonfinite: list[tuple[Tensor, Tensor | None]] = []
        self.train()

    def train(self, mode: bool = True) -> TrainingModule:
        """Set the mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def result(self) -> Model:
        """Model that is saved and passed to the next stage."""
        if self.average is not None and self.stage.save_ema:
            averaged: Model = self.average.model
            return averaged
        return self.model

    def forward(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Return the raw outputs of each task for the raw weights, (B, K)."""
        if self._run is None:
            return self.model.outputs(batch)
        outputs: Tensor | dict[str, Tensor] = self._run(batch)
        if isinstance(outputs, Tensor):
            return dict.fromkeys(self.model.task_map, outputs)  # one task
        return outputs

    def training_step(self, batch: PackedBatch, index: int) -> Tensor:
        """Return the loss of a micro-batch, a mean over the events of all ranks."""
        truth, weight_B = self._truth(batch)
        if self.balance is not None:
            factor_B = self.balance(truth)
            weight_B = factor_B if weight_B is None else factor_B * weight_B
        losses = self.model.losses(self(batch), truth, weight_B)
        num_labels = self.model.num_labels(truth, weight_B)
        if self.trainer.world_size > 1:
            losses, num_labels = self._shared(losses, num_labels)
        loss = self.model.weighted(losses, num_labels)
        self._pending.append((loss.detach(), batch.event_id))
        return loss

    def _shared(
        self, losses: dict[str, Tensor], num_labels: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return losses whose mean over ranks is the mean over all ranks' events.

        DDP averages gradients over ranks, but ranks may differ in their numbers of
        labels (with weights: in the sums of these). The second value is the mean number
        of each task over the ranks, so that ranks agree on which tasks have any.
        """
        mine = torch.stack([num_labels[name] for name in losses]).float()
        mean = self.trainer.strategy.reduce(mine.clone(), reduce_op="mean")
        factors = (mine / mean).nan_to_num()  # 0 / 0 if no rank has a label
        shared = {
            name: loss * factor
            for (name, loss), factor in zip(losses.items(), factors, strict=True)
        }
        return shared, dict(zip(losses, mean, strict=True))

    def _truth(self, batch: PackedBatch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Return the labels of a batch, and the weights of its events, (B,) or None."""
        assert batch.truth is not None  # the data module asks for the labels
        if self.event_weight is None:
            return batch.truth, None
        return batch.truth, batch.truth[self.event_weight].float()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient, and check that loss and gradient are finite."""
        norm = nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]],
            self.stage.gradient_clip,
        )
        losses = torch.stack([loss for loss, _ in self._pending])
        self._check_finite(losses, norm)
        loss = self.trainer.strategy.reduce(losses.mean(), reduce_op="mean")
        self.step = {
            "learning_rate": optimizer.param_groups[0]["lr"],
            "train_loss": float(loss),  # the device has just been synchronised
            "gradient_norm": float(norm),
        }
        for name, value in self.step.items():
            self.log(name, value, prog_bar=name != "gradient_norm")
        self._pending.clear()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Set the learning rate and momentum of this step."""
        share = self.trainer.global_step / self.trainer.estimated_stepping_batches
        for group in optimizer.param_groups:
            rate = self.schedule.learning_rate_at(share)
            group["lr"] = rate * group.get(FACTOR, 1.0)
            group["betas"] = (self.schedule.momentum_at(share), group["betas"][1])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take an optimiser step, and update the average of the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            trainer = self.trainer
            num_batches = trainer.accumulate_grad_batches * trainer.world_size
            self.average.update(self.model, num_batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW for the parameters that are not frozen."""
        return make_adamw(
            layer_groups(self.model, self.stage.layer_decay),
            learning_rate=self.schedule.learning_rate_at(0),
            weight_decay=self.stage.weight_decay,
            eps=self.stage.eps,
            fused=self._scaler is None,
        )

    def on_validation_epoch_start(self) -> None:
        """Create the metrics of the raw weights and of their average."""
        models = [self.model]
        if self.average is not None:
            models.insert(0, self.average.model)
        self._metrics = [ValidationMetrics(m, self.sums_device) for m in models]
        self._nonfinite.clear()

    def validation_step(self, batch: PackedBatch, index: int) -> None:
        """Update the metrics of both sets of weights."""
        truth, weight_B = self._truth(batch)
        outputs = [self(batch)]
        if self.average is not None:
            outputs.insert(0, self.average.model.outputs(batch))
        nonfinite = [
            metrics.update(given, truth, weight_B)
            for metrics, given in zip(self._metrics, outputs, strict=True)
        ]
        self._nonfinite.append((torch.stack(nonfinite).any(dim=0), batch.event_id))

    def on_validation_epoch_end(self) -> None:
        """Log the values over all ranks; NonFiniteError if a mean is not finite."""
        self.validation = {}
        means = []
        for prefix, metrics in zip(("", RAW), self._metrics, strict=False):
            values = metrics.compute()
            means += [values[name] for name in (LOSS, *metrics.means)]
            self.validation |= {prefix + name: value for name, value in values.items()}
        if not all(map(math.isfinite, means)):
            raise NonFiniteError(
                f"the validation is not finite after step {self.trainer.global_step}",
                [
                    number
                    for nonfinite_B, events_B in self._nonfinite
                    if events_B is not None
                    for number in events_B[nonfinite_B].tolist()
                ],
            )
        self._metrics.clear()
        self._nonfinite.clear()
        for name, value in self.validation.items():
            self.log(column_of(name), value, rank_zero_only=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the random states to a checkpoint."""
        checkpoint[RANDOM_STATE] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the random states; `on_train_start` restores them."""
        self._random_state = checkpoint.get(RANDOM_STATE)

    def on_train_start(self) -> None:
        """Restore the random states."""
        if self._random_state is not None:
            set_random_state(self._random_state)

    @property
    def _scaler(self) -> Any:
        """Gradient scaler of float16, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def sums_device(self) -> torch.device:
        """Device for sums in float64: the CPU for MPS, which has no float64."""
        device: torch.device = self.device
        return torch.device("cpu") if device.type == "mps" else device

    def _check_finite(self, losses: Tensor, norm: Tensor) -> None:
        nonfinite = ~losses.isfinite()
        on_any_rank = nonfinite.any().float()
        if self.trainer.world_size > 1:  # all ranks stop together
            on_any_rank = self.trainer.strategy.reduce(on_any_rank, reduce_op="sum")
        some = bool(on_any_rank)
        if not some and bool(norm.isfinite()):
            return
        # float16 overflows now and then: its scaler then skips the step and halves the
        # scale. A scale below 1 means that this does not help.
        if not some and self._scaler is not None and self._scaler.get_scale() >= 1:
            return
        event_id = [
            number
            for (_, events), wrong in zip(
                self._pending, nonfinite.tolist(), strict=True
            )
            if (wrong or not some) and events is not None
            for number in events.tolist()
        ]
        what = f"is not finite in step {self.trainer.global_step + 1}"
        if some:
            raise NonFiniteError(f"the loss {what}", event_id)
        raise NonFiniteError(
            f"the gradient {what}; any of the step's {len(event_id)} events may be the "
            "cause, so all are listed",
            event_id,
        )


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Freeze parameters whose names begin with a prefix, and return their names.

    A prefix ends at a dot of the name, such as `embedding` or `local.0`; `backbone` is
    everything but the last layers. Raises ValueError if no parameter has a prefix.
    """
    frozen = []
    for prefix in prefixes:
        try:
            names = weights_of(model, prefix)
        except ValueError as error:
            raise ValueError(f"freeze {error}") from None
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        frozen += names
    return frozen


def frozen_modules(model: nn.Module, frozen: Collection[str]) -> list[nn.Module]:
    """Return the modules all of whose parameters are among the frozen ones."""
    modules = []
    for prefix, module in model.named_modules():
        begin = f"{prefix}." if prefix else ""
        names = {f"{begin}{name}" for name, _ in module.named_parameters()}
        if names and names <= set(frozen):
            modules.append(module)
    return modules


def layer_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return groups of parameters for `make_adamw`, with factors on the learning rate.

    The last layers have 1; each layer of the backbone has `decay` times the factor of
    the layer above it. The highest layer is the first group.
    """
    if decay == 1:
        return [{"params": list(model.parameters())}]
    return [
        {"params": [model.get_parameter(n) for n in names], FACTOR: decay**depth}
        for depth, names in enumerate(reversed(layers_of(model)))
    ]


class ValidationMetrics:
    """Metrics of one model over one validation and all ranks, summed in float64."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model, self.device = model, device
        self.metrics: dict[str, Any] = {}
        self.means: list[str] = []  # means over events
        self.weights: dict[str, Any] = {}  # mean weight of each task's events
        for name, task in model.task_map.items():
            self.weights[name] = self._mean()
            for metric in (LOSS, *event_metric_names(task)):
                self.metrics[f"{name}/{metric}"] = self._mean()
                self.means.append(f"{name}/{metric}")
            for metric, collected in task.collect().items():
                self.metrics[f"{name}/{metric}"] = collected.to(device)

    def update(
        self,
        outputs: Mapping[str, Tensor],
        truth: Mapping[str, Tensor],
        weight_B: Tensor | None = None,
    ) -> Tensor:
        """Add a batch of raw outputs, and return which events are not finite, (B,).

        Only events with a label count, with their weights.
        """
        first_BK = next(iter(outputs.values()))
        nonfinite_B = torch.zeros(
            len(first_BK), dtype=torch.bool, device=first_BK.device
        )
        for name, task in self.model.task_map.items():
            target = task.target(truth)
            labelled_B = is_labelled(target)
            output, target = outputs[name].float()[labelled_B], target[labelled_B]
            if not len(target):
                continue
            weight = torch.ones(len(target), dtype=torch.float64, device=self.device)
            if weight_B is not None:
                weight = weight_B[labelled_B].to(self.device, torch.float64)
            self.weights[name].update(weight)
            values = {LOSS: task.loss(output, target), **task.metrics(output, target)}
            wrong = ~torch.stack([v.isfinite() for v in values.values()]).all(dim=0)
            nonfinite_B[labelled_B] |= wrong
            for metric, value_B in values.items():
                product_B = value_B.to(self.device) * weight
                self.metrics[f"{name}/{metric}"].update(product_B)
            for metric in task.collect():
                collected = self.metrics[f"{name}/{metric}"]
                given = (task.scores(output).to(self.device), target.to(self.device))
                takes_weight = len(signature(collected.update).parameters) > 2
                weighted = takes_weight and weight_B is not None
                collected.update(*given, *((weight,) if weighted else ()))
        return nonfinite_B

    def compute(self) -> dict[str, float]:
        """Return the values over all ranks: `loss` and `TASK/METRIC`."""
        values = {name: float(one.compute()) for name, one in self.metrics.items()}
        for name in self.means:
            mean_weight = float(self.weights[name.partition("/")[0]].compute())
            values[name] /= mean_weight or math.nan
        weights_on = next(self.model.parameters()).device
        dtype = torch.float32 if weights_on.type == "mps" else torch.float64
        losses = {
            name: torch.tensor(values[f"{name}/{LOSS}"], dtype=dtype, device=weights_on)
            for name in self.model.task_map
        }
        return {LOSS: float(self.model.weighted(losses)), **values}

    def _mean(self) -> Any:
        """Return a mean over events, in float64.

        Weights are multiplied before, because torchmetrics drops them with `disable`,
        without which a check for NaN would synchronise the device at each batch.
        """
        mean = MeanMetric(nan_strategy="disable").to(self.device)
        return mean.set_dtype(torch.float64)


def random_state() -> dict[str, Any]:
    """Return the random states of Python, numpy and torch for a checkpoint.

    They are plain values and tensors, so that a checkpoint has no pickled objects.
    """
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore random states; those of CUDA if the number of devices is the same."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
