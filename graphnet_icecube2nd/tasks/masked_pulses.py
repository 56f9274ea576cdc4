"""Masked pulses: what a model learns from events without truth.

Part of the pulses is masked: of some the time and the light, of others the position.
From the latent vector of the pulse, and again from that of the event, a small layer
predicts what was masked, with widths. A model that was trained so has no answers; it
is where a fine-tuning begins. Reference for the idea: J. Devlin et al.,
arXiv:1810.04805.

Shape letters: T pulses in the batch, B events, M masked pulses, F features, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.conventions import (
    ABSORPTION,
    CHARGE,
    FEATURE_NAMES,
    QE,
    SCATTERING,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.tasks.losses import student_nll
from graphnet_icecube2nd.tasks.task import Column, Task

MASKED = -4.0  # value of a masked feature; pulses have none such
OF_PLACE = (QE, SCATTERING, ABSORPTION)  # features that would tell a masked position
# Units of the predictions in those of the features: 50 m, 300 ns and half a decade of
# charge with the scales of IceCube, and the usual width of an event in any.
POSITION_UNIT, TIME_UNIT, LIGHT_UNIT = 0.1, 0.01, 0.15
SMALLEST, LARGEST = math.log(1e-2), math.log(1e2)  # ln of scales, in these units
NUM_PREDICTED = 8  # position and ln(scale); time, light and ln(scale) of each


@dataclass(frozen=True, kw_only=True)
class MaskedBatch:
    """A batch with masked pulses, and what was masked.

    Args:
        batch: The batch without what is masked.
        index: Rows of the masked pulses, (M,).
        event: Their events, (M,).
        target: Position, time and light of the masked pulses relative to the mean of
            their events' other pulses, in units of the predictions, (M, 5).
        is_place: Whether the position is masked, or time and light, (M,) bool.
    """

    batch: PackedBatch
    index: Tensor
    event: Tensor
    target: Tensor
    is_place: Tensor


class MaskedPulses(Task):
    """Prediction of masked positions, times and light; no truth, no answers.

    Args:
        share: Share of the pulses that are masked.
        light: Feature that tells the light of a pulse, such as `charge` or `tot`;
            empty: none is predicted.

    Raises:
        ValueError: The share is not between 0 and 1.
    """

    name = "masked_pulses"
    truth = ("n_pulses",)  # which every store has
    num_outputs = 9
    columns: ClassVar[tuple[Column, ...]] = ()
    uses_pulses = True

    decode: nn.Sequential | None

    def __init__(self, share: float = 0.25, light: str = CHARGE) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share must be between 0 and 1, got {share}")
        self.share, self.light = share, light
        self.decode = None

    def attach(self, dim: int) -> Task:
        """Make the layers that predict from pulses and from events."""
        self.head = nn.Linear(dim, NUM_PREDICTED)
        # From the event and what is left of the pulse: position, time, light, mask.
        self.decode = nn.Sequential(
            nn.Linear(dim + 6, dim), nn.GELU(), nn.Linear(dim, NUM_PREDICTED)
        )
        return self

    def forward_pulses(
        self,
        latents: Callable[[PackedBatch], tuple[Tensor, Tensor]],
        batch: PackedBatch,
    ) -> Tensor:
        """Return the outputs, (B, 9): mean losses and errors of the masked pulses.

        They are the losses of position, time and light from the latent vectors of the
        pulses, the same from those of the events, and the mean errors of position [m],
        time [ns] and light [unit of the feature] from the pulses.

        Args:
            latents: Function that returns the latent vectors of events, (B, D), and
                pulses, (T, D), of a batch.
            batch: Batch of events.
        """
        assert self.head is not None
        assert self.decode is not None
        masked = self.mask(batch)
        latent_BD, latent_TD = latents(masked.batch)
        dtype = self.head.weight.dtype
        with torch.autocast(latent_TD.device.type, enabled=False):
            from_pulse_M8 = self.head(latent_TD[masked.index].to(dtype))
            left_M6 = self._left(masked)
            event_MD = latent_BD[masked.event].to(dtype)
            from_event_M8 = self.decode(torch.cat([event_MD, left_M6.to(dtype)], 1))
        parts_M9 = [
            *self._losses(from_pulse_M8, masked),
            *self._losses(from_event_M8, masked),
            *self._errors(from_pulse_M8, masked),
        ]
        return self._means(torch.stack(parts_M9, 1), masked, len(batch))

    def mask(self, batch: PackedBatch) -> MaskedBatch:
        """Return a batch with masked pulses, others at each call in training.

        In evaluation they are the same at each call.
        """
        names, features_TF = batch.names, batch.features
        if self.light and self.light not in names:
            raise ValueError(
                f"{self.name}: light must be a feature ({', '.join(names)}) or empty, "
                f"found {self.light!r}"
            )
        device, num = features_TF.device, len(features_TF)
        generator = None
        if not self.training:
            generator = torch.Generator(device).manual_seed(0)
        draw_T2 = torch.rand(num, 2, generator=generator, device=device)
        event_T = torch.arange(len(batch), device=device).repeat_interleave(
            batch.lengths, output_size=num
        )
        masked_T = draw_T2[:, 0] < self.share
        # An event needs another pulse, to which what is masked is relative.
        left_B = batch.lengths.new_zeros(len(batch)).index_add(
            0, event_T, (~masked_T).long()
        )
        masked_T &= (left_B > 0)[event_T]
        is_place_T = masked_T & (draw_T2[:, 1] < 0.5)
        value_T5 = self._values(batch)
        weight_T1 = (~masked_T)[:, None].to(value_T5.dtype)
        sums_B6 = value_T5.new_zeros(len(batch), 6).index_add(
            0, event_T, torch.cat([value_T5 * weight_T1, weight_T1], 1)
        )
        mean_B5 = sums_B6[:, :5] / sums_B6[:, 5:].clamp(min=1.0)
        index = masked_T.nonzero()[:, 0]
        changed_TF = features_TF.clone()
        of_place = [names.index(name) for name in (X, Y, Z)]
        of_light = [names.index(name) for name in (TIME, CHARGE)]
        # All extra columns are masked, too: most tell the light or the module.
        others = [n for n, name in enumerate(names) if name not in FEATURE_NAMES]
        for which_T, columns in (
            (is_place_T, of_place),
            (masked_T & ~is_place_T, of_light),
            (masked_T, others),
        ):
            for column in columns:
                changed_TF[:, column].masked_fill_(which_T, MASKED)
        for name in OF_PLACE:
            if name in names:
                changed_TF[:, names.index(name)].masked_fill_(is_place_T, 0.0)
        return MaskedBatch(
            batch=PackedBatch.unchecked(
                features=changed_TF,
                offsets=batch.offsets,
                n_pulses=batch.n_pulses,
                names=names,
                event_id=batch.event_id,
                units=batch.units,
                centre=batch.centre,
            ),
            index=index,
            event=event_T[index],
            target=(value_T5 - mean_B5[event_T])[index],
            is_place=is_place_T[index],
        )

    def _values(self, batch: PackedBatch) -> Tensor:
        """Return position, time and light of the pulses in units, (T, 5) float32."""
        columns = [batch.column(axis) / POSITION_UNIT for axis in (X, Y, Z)]
        columns.append(batch.column(TIME) / TIME_UNIT)
        light_T = batch.column(self.light) if self.light else columns[0] * 0
        return torch.stack([*columns, light_T / LIGHT_UNIT], 1).float()

    def _left(self, masked: MaskedBatch) -> Tensor:
        """Return what is left of the masked pulses, and which part, (M, 6)."""
        is_place = masked.is_place[:, None]
        place_M3 = masked.target[:, :3].masked_fill(is_place, 0.0)
        light_M2 = masked.target[:, 3:].masked_fill(~is_place, 0.0)
        return torch.cat([place_M3, light_M2, is_place.to(place_M3.dtype)], 1)

    def _losses(self, predicted_M8: Tensor, masked: MaskedBatch) -> list[Tensor]:
        """Return the losses of position, time and light, 0 where not masked, (M,)."""
        scale_M3 = predicted_M8[:, 5:].clamp(SMALLEST, LARGEST).exp()
        off_M5 = predicted_M8[:, :5] - masked.target
        residuals = (off_M5[:, :3], off_M5[:, 3], off_M5[:, 4])
        losses = [
            student_nll(residual, scale_M3[:, part])
            for part, residual in enumerate(residuals)
        ]
        return [
            loss * used for loss, used in zip(losses, self._used(masked), strict=True)
        ]

    def _errors(self, predicted_M8: Tensor, masked: MaskedBatch) -> list[Tensor]:
        """Return the errors of position, time and light, 0 where not masked, (M,)."""
        off_M5 = (predicted_M8[:, :5] - masked.target).detach()
        position = time = 1.0
        if (units := masked.batch.units) is not None:
            position, time = units.scales.position, units.scales.time
        errors = (
            off_M5[:, :3].norm(dim=1) * (POSITION_UNIT * position),
            off_M5[:, 3].abs() * (TIME_UNIT * time),
            off_M5[:, 4].abs() * LIGHT_UNIT,
        )
        return [
            error * used for error, used in zip(errors, self._used(masked), strict=True)
        ]

    def _used(self, masked: MaskedBatch) -> tuple[Tensor, Tensor, Tensor]:
        place = masked.is_place.float()
        return place, 1 - place, (1 - place) * float(bool(self.light))

    def _means(self, parts_M9: Tensor, masked: MaskedBatch, num_events: int) -> Tensor:
        """Return means over the masked pulses of each event, (B, 9)."""
        used_M3 = torch.stack(self._used(masked), 1)
        table_M12 = torch.cat([parts_M9, used_M3], 1)
        sums_B12 = table_M12.new_zeros(num_events, 12).index_add(
            0, masked.event, table_M12
        )
        return sums_B12[:, :9] / sums_B12[:, 9:].clamp(min=1.0).repeat(1, 3)

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return the number of pulses, (B,): every event has a label."""
        return truth["n_pulses"].float()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the losses, (B,) nat."""
        return output[:, :6].sum(1)

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the mean errors, (B,): of position [m], time [ns] and light."""
        names = ("distance", "time_error", *(["light_error"] if self.light else []))
        return {name: output[:, 6 + number] for number, name in enumerate(names)}

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return no columns."""
        return {}
