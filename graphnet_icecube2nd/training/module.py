"""What a stage does with a batch: loss, optimiser step, average, validation.

Shape letters: B events.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.errors import NonFiniteError
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.training.ema import WeightAverage
from graphnet_icecube2nd.training.optimiser import make_adamw
from graphnet_icecube2nd.training.random_state import random_state, set_random_state
from graphnet_icecube2nd.training.recipe import Stage

try:
    from pytorch_lightning import LightningModule
except ImportError:  # the recipe and its parts can be had without Lightning
    LightningModule = object

RANDOM_STATE = "random_state"  # under which a checkpoint keeps it


class DirectionModule(LightningModule):  # type: ignore[misc]
    """Trains a model for one stage.

    Logs `train_loss`, `learning_rate`, `gradient_norm`, and of the validation `loss`
    and `angle` (mean opening angle, rad) as `validation_*`; with an average these are
    the average's, and `raw_*` those of the raw weights.

    Args:
        model: Takes a `PackedBatch`, gives (B, 3).
        stage: How it is trained.
        compile: Compile the model.
    """

    def __init__(self, model: Model, stage: Stage, *, compile: bool = False) -> None:
        super().__init__()
        # Before DDP looks for what wants a gradient.
        freeze(model, stage.freeze)
        self.model, self.stage = model, stage
        self.average = WeightAverage(model, stage.ema_decay) if stage.ema else None
        self.loss, self.schedule = stage.make_loss(), stage.schedule()
        # Bound methods, so that no second copy of the parameters is registered.
        self._run = torch.compile(model.forward, dynamic=True) if compile else None
        self._pending: list[tuple[Tensor, Tensor | None]] = []
        self._random_state: dict[str, Any] | None = None
        self.step: dict[str, float] = {}  # what the last optimiser step gave
        self.validation: dict[str, float] = {}  # what the last one gave
        # Which of the events of a validation are not finite, batch by batch.
        self._validated: list[tuple[Tensor, Tensor | None]] = []

    @property
    def result(self) -> Model:
        """The model that is saved and goes on."""
        if self.average is not None and self.stage.save_ema:
            averaged = self.average.model
            assert isinstance(averaged, Model)
            return averaged
        return self.model

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (B, 3), kappa * direction, of the raw weights."""
        prediction_B3: Tensor = (self._run or self.model)(batch)
        return prediction_B3

    def training_step(self, batch: PackedBatch, index: int) -> Tensor:
        """Return the loss of a micro-batch, the mean over the events of all ranks."""
        loss: Tensor = self.loss(self(batch), _direction(batch))
        if self.trainer.world_size > 1:
            # Gradients are averaged over ranks, whose batches may differ by an event.
            mine = torch.tensor(float(len(batch)), device=loss.device)
            mean = self.trainer.strategy.reduce(mine.clone(), reduce_op="mean")
            loss = loss * (mine / mean)
        self._pending.append((loss.detach(), batch.event_id))
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip, and see that all is finite before weights are changed."""
        norm = nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]],
            self.stage.gradient_clip,
        )
        losses = torch.stack([loss for loss, _ in self._pending])
        self._see_finite(losses, norm)
        loss = losses.mean()
        if self.trainer.world_size > 1:
            loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        self.step = {
            "learning_rate": optimizer.param_groups[0]["lr"],
            "train_loss": float(loss),  # the device was waited for just now
            "gradient_norm": float(norm),
        }
        for name, value in self.step.items():
            self.log(name, value, prog_bar=name != "gradient_norm")
        self._pending.clear()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Set learning rate and momentum of this step."""
        share = self.trainer.global_step / self.trainer.estimated_stepping_batches
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate_at(share)
            group["betas"] = (self.schedule.momentum_at(share), group["betas"][1])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            trainer = self.trainer
            num_batches = trainer.accumulate_grad_batches * trainer.world_size
            self.average.follow(self.model, num_batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW for what is not frozen."""
        return make_adamw(
            self.model.parameters(),
            learning_rate=self.schedule.learning_rate_at(0),
            weight_decay=self.stage.weight_decay,
            eps=self.stage.eps,
            fused=self._scaler is None,
        )

    def on_validation_epoch_start(self) -> None:
        """Begin to add up."""
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.sums_device)
        self._validated.clear()

    def validation_step(self, batch: PackedBatch, index: int) -> None:
        """Add up loss and angle of both sets of weights."""
        direction_B3 = _direction(batch)
        predictions = [self(batch)]
        if self.average is not None:
            predictions.append(self.average.model(batch))
        is_wild_B = torch.zeros(len(batch), dtype=torch.bool, device=self.device)
        for place, prediction_B3 in enumerate(predictions):
            prediction_B3 = prediction_B3.float()
            loss_B = self.loss(prediction_B3, direction_B3, reduction="none")
            angle_B = opening_angle(prediction_B3, direction_B3)
            self._sums[2 * place] += loss_B.sum().to(self._sums.device)
            self._sums[2 * place + 1] += angle_B.sum().to(self._sums.device)
            is_wild_B |= ~(loss_B + angle_B).isfinite()
        self._sums[4] += len(batch)
        self._validated.append((is_wild_B, batch.event_id))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all ranks; stop all of them where one is not finite."""
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        means = (sums[:4] / sums[4]).tolist()
        names = ["raw_loss", "raw_angle", "loss", "angle"]
        if self.average is None:
            names = ["loss", "angle"]
        self.validation = dict(zip(names, means, strict=False))
        if not all(map(math.isfinite, self.validation.values())):
            raise NonFiniteError(
                f"the validation is not finite after step {self.trainer.global_step}",
                [
                    number
                    for is_wild_B, events_B in self._validated
                    if events_B is not None
                    for number in events_B[is_wild_B].tolist()
                ],
            )
        self._validated.clear()
        for name, value in self.validation.items():
            self.log(f"validation_{name}", value, rank_zero_only=False)
        degrees = self.validation["angle"] * 180 / torch.pi
        self.log("validation_angle_deg", degrees, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states."""
        checkpoint[RANDOM_STATE] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the random states, for when training begins."""
        self._random_state = checkpoint.get(RANDOM_STATE)

    def on_train_start(self) -> None:
        """Put the random states back."""
        if self._random_state is not None:
            set_random_state(self._random_state)

    @property
    def _scaler(self) -> Any:
        """The scaler of float16's gradients, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def sums_device(self) -> torch.device:
        """Where sums in float64 can be made."""
        # MPS has no float64; sums on the CPU cost a wait there, and nowhere else.
        device: torch.device = self.device
        return torch.device("cpu") if device.type == "mps" else device

    def _see_finite(self, losses: Tensor, norm: Tensor) -> None:
        is_wild = ~losses.isfinite()
        wild_anywhere = is_wild.any().float()
        if self.trainer.world_size > 1:  # all ranks stop together
            wild_anywhere = self.trainer.strategy.reduce(wild_anywhere, reduce_op="sum")
        some = bool(wild_anywhere)
        if not some and bool(norm.isfinite()):
            return
        # float16 overflows now and then: its scaler then leaves the step out and halves
        # the scale. Where that does not help, it is no overflow.
        if not some and self._scaler is not None and self._scaler.get_scale() >= 1:
            return
        event_id = [
            number
            for (_, events), wild in zip(self._pending, is_wild.tolist(), strict=True)
            if (wild or not some) and events is not None
            for number in events.tolist()
        ]
        what = f"is not finite in step {self.trainer.global_step + 1}"
        if some:
            raise NonFiniteError(f"the loss {what}", event_id)
        raise NonFiniteError(
            f"the gradient {what}; which of the step's {len(event_id)} events it comes "
            "from is not known, so all are named",
            event_id,
        )


def _direction(batch: PackedBatch) -> Tensor:
    assert batch.truth is not None  # of a store that has directions
    return batch.truth["direction"]


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Let parameters whose name begins with a prefix want no gradient.

    Args:
        model: The model.
        prefixes: Beginnings of names, whole between dots, as `embedding`, `local.0`.

    Returns:
        The names of the frozen parameters.

    Raises:
        ValueError: No parameter begins so.
    """
    frozen = []
    for prefix in prefixes:
        names = [
            name
            for name, _ in model.named_parameters()
            if name == prefix or name.startswith(prefix.rstrip(".") + ".")
        ]
        if not names:
            rooms = dict.fromkeys(n.split(".")[0] for n, _ in model.named_parameters())
            raise ValueError(
                f"freeze: no parameter begins with {prefix!r}; the model has "
                f"{', '.join(rooms)}"
            )
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        frozen += names
    return frozen
