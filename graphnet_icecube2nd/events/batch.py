"""PackedBatch: the input of all models.

The pulses of all events of a batch are stored one after the other, without padding.
Shape letters: T pulses in the batch, B events, F features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import AUXILIARY, FEATURE_NAMES
from graphnet_icecube2nd.detector.detector import FeatureUnits


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch of events as one table of pulses and the borders between events.

    Args:
        features: Scaled features of all pulses, (T, F) float32.
        offsets: Borders of the events, (B + 1,) int64. Event `i` has pulses
            `offsets[i]` to `offsets[i + 1] - 1`; every event has at least one.
        n_pulses: Pulses of each event *before* selection, (B,) int64; models use their
            log10 as the length feature.
        names: Column names of `features`, F of them.
        event_id: Key that joins events to truth, (B,) int64.
        truth: Truth tensors (B, ...) by name, e.g. `direction` (B, 3).
        units: Meaning of the features, `detector.units`, for tasks that answer with a
            position or a time.
        centre: Point that was subtracted from the positions of each event, (B, 3) m
            (see `features.centre_positions`); None if nothing was.

    Raises:
        ValueError: A shape, type or value is wrong; the message names the event and the
            column. Values are checked on the CPU only, so that a batch on a GPU needs
            no synchronisation.
    """

    features: Tensor
    offsets: Tensor
    n_pulses: Tensor
    names: tuple[str, ...] = FEATURE_NAMES
    event_id: Tensor | None = None
    truth: Mapping[str, Tensor] | None = None
    units: FeatureUnits | None = None
    centre: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        _check_shapes(self)
        if self.features.device.type == "cpu":
            _check_values(self)

    @classmethod
    def from_events(
        cls,
        events: Sequence[Tensor],
        n_pulses: Tensor | None = None,
        names: Sequence[str] = FEATURE_NAMES,
        event_id: Tensor | None = None,
        truth: Mapping[str, Tensor] | None = None,
        units: FeatureUnits | None = None,
    ) -> PackedBatch:
        """Pack a list of events, each (pulses of the event, F).

        Args:
            events: Feature matrix of each event.
            n_pulses: Pulses before selection, (B,); default: the given pulses.
            names: Column names of the features, F of them.
            event_id: Key of each event, (B,) int64.
            truth: Truth tensors (B, ...) by name.
            units: Meaning of the features.

        Raises:
            ValueError: There is no event, or a value is wrong as for `PackedBatch`.
        """
        if not events:
            raise ValueError("a batch needs at least one event")
        lengths = torch.tensor([len(event) for event in events])
        offsets = torch.zeros(len(events) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=offsets[1:])
        return cls(
            features=torch.cat(list(events)),
            offsets=offsets,
            n_pulses=lengths if n_pulses is None else n_pulses,
            names=tuple(names),
            event_id=event_id,
            truth=truth,
            units=units,
        )

    @classmethod
    def unchecked(
        cls,
        *,
        features: Tensor,
        offsets: Tensor,
        n_pulses: Tensor,
        names: tuple[str, ...] = FEATURE_NAMES,
        event_id: Tensor | None = None,
        truth: Mapping[str, Tensor] | None = None,
        units: FeatureUnits | None = None,
        centre: Tensor | None = None,
    ) -> PackedBatch:
        """Make a batch from values that were checked before, such as a store's.

        Checking every value again costs more than reading it from a store.
        """
        made = object.__new__(cls)
        values = (features, offsets, n_pulses, names, event_id, truth, units, centre)
        for field, value in zip(fields(cls), values, strict=True):
            object.__setattr__(made, field.name, value)
        return made

    def split(self, sizes: Sequence[int]) -> list[PackedBatch]:
        """Split the batch into smaller batches; their tensors are views.

        Args:
            sizes: Number of events of each new batch; the sum is that of this batch.

        Raises:
            ValueError: A size is below 1 or the sum is wrong.
        """
        if sum(sizes) != len(self) or min(sizes, default=0) < 1:
            raise ValueError(
                f"sizes must be 1 or more and add up to {len(self)} events, got "
                f"{list(sizes)}"
            )
        firsts = [0, *itertools.accumulate(sizes)]
        borders = self.offsets[firsts].tolist()
        batches = []
        for index, (first, stop) in enumerate(itertools.pairwise(firsts)):
            begin, end = borders[index : index + 2]
            event_id = None if self.event_id is None else self.event_id[first:stop]
            truth = None
            if self.truth is not None:
                truth = {name: value[first:stop] for name, value in self.truth.items()}
            batches.append(
                PackedBatch.unchecked(
                    features=self.features[begin:end],
                    offsets=self.offsets[first : stop + 1] - begin,
                    n_pulses=self.n_pulses[first:stop],
                    names=self.names,
                    event_id=event_id,
                    truth=truth,
                    units=self.units,
                    centre=None if self.centre is None else self.centre[first:stop],
                )
            )
        return batches

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Pulses of each event in this batch, (B,) int64."""
        return self.offsets.diff()

    def column(self, name: str) -> Tensor:
        """Return one feature of all pulses, (T,)."""
        return self.features[:, self._index(name)]

    def columns(self, names: Sequence[str]) -> Tensor:
        """Return several features in the given order, (T, len(names))."""
        return self.features[:, [self._index(name) for name in names]]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """Return the batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        """Return the batch in page-locked memory, for copies that overlap with work."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> PackedBatch:
        # `copy` bypasses __init__: values that were checked need no second check.
        moved = copy(self)
        for name in ("features", "offsets", "n_pulses", "event_id", "centre"):
            tensor = getattr(self, name)
            if tensor is not None:
                object.__setattr__(moved, name, change(tensor))
        if self.truth is not None:
            truth = {name: change(tensor) for name, tensor in self.truth.items()}
            object.__setattr__(moved, "truth", truth)
        return moved

    def _index(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(
                f"no feature {name!r} in this batch; known are {', '.join(self.names)}"
            ) from None


def check_offsets(offsets: Tensor, num_pulses: int | None = None) -> None:
    """Raise ValueError unless these are borders (B + 1,) from 0 to the pulses' number.

    Empty events are allowed. Without a number of pulses the last border is not checked.
    """
    _check_offsets_shape(offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    num_pulses = last if num_pulses is None else num_pulses
    if first != 0 or last != num_pulses:
        raise ValueError(
            f"offsets must run from 0 to {num_pulses} pulses, got {first} to {last}"
        )
    lengths = offsets.diff()
    if int(lengths.min()) < 0:
        raise ValueError(
            f"offsets must not decrease; event {int(lengths.argmin())} would end "
            "before it begins"
        )


def _check_offsets_shape(offsets: Tensor) -> None:
    if not isinstance(offsets, Tensor):
        raise ValueError(f"offsets must be a tensor, got {type(offsets).__name__}")
    if offsets.ndim != 1 or offsets.dtype != torch.int64 or len(offsets) < 2:
        raise ValueError(
            "offsets must be (events + 1,) int64 for at least one event, got "
            f"shape {tuple(offsets.shape)} of {offsets.dtype}"
        )


@dataclass(frozen=True)
class EventNames:
    """Names of events in messages, and the event of each pulse."""

    offsets: Tensor  # (B + 1,) int64 borders of the events
    event_id: Sequence[Any] | Tensor | None = None  # B; default: index in the batch

    def name(self, index: int) -> str:
        """Return the name of an event in messages."""
        if self.event_id is None:
            return f"event {index} of the batch"
        name = self.event_id[index]
        return f"event {name.item() if isinstance(name, Tensor) else name}"

    def index_of(self, pulse: int) -> int:
        """Return the index of the event of a pulse."""
        return int(torch.searchsorted(self.offsets, pulse, right=True)) - 1

    def check_not_empty(self) -> None:
        """Raise ValueError naming the first event without pulses."""
        lengths = self.offsets.diff()
        if int(lengths.min()) < 1:
            raise ValueError(f"{self.name(int(lengths.argmin()))} has no pulses")


def _check_shapes(batch: PackedBatch) -> None:
    features, n_pulses = batch.features, batch.n_pulses
    for name, value in (("features", features), ("n_pulses", n_pulses)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    if len(set(batch.names)) < len(batch.names):
        raise ValueError(f"a name occurs twice in {', '.join(batch.names)}")
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            "features must be a floating point table (pulses, features), got "
            f"shape {tuple(features.shape)} of {features.dtype}"
        )
    if features.shape[1] != len(batch.names):
        raise ValueError(
            f"features has {features.shape[1]} columns, names has "
            f"{len(batch.names)}: {', '.join(batch.names)}"
        )
    _check_offsets_shape(batch.offsets)
    per_event = {"n_pulses": n_pulses, "event_id": batch.event_id}
    for name, tensor in per_event.items():
        if tensor is not None and tensor.dtype != torch.int64:
            raise ValueError(f"{name} must be int64, got {tensor.dtype}")
        if tensor is not None and tensor.ndim != 1:
            raise ValueError(f"{name} must be (events,), got {tuple(tensor.shape)}")
    centre = {} if batch.centre is None else {"centre": batch.centre}
    for name, tensor in {**per_event, **centre, **(batch.truth or {})}.items():
        if tensor is not None and tensor.shape[:1] != (len(batch),):
            entries = len(tensor) if tensor.ndim else "no"
            raise ValueError(f"{name} has {entries} entries for {len(batch)} events")


def _check_values(batch: PackedBatch) -> None:
    check_offsets(batch.offsets, len(batch.features))
    events = EventNames(batch.offsets, batch.event_id)
    events.check_not_empty()
    is_short_B = batch.n_pulses < batch.lengths
    if bool(is_short_B.any()):
        event = int(is_short_B.nonzero()[0])
        raise ValueError(
            f"{events.name(event)} holds {int(batch.lengths[event])} pulses but "
            f"n_pulses, the number before selection, is {int(batch.n_pulses[event])}"
        )
    finite_TF = batch.features.isfinite()
    if not bool(finite_TF.all()):
        pulse, column = (~finite_TF).nonzero()[0].tolist()
        raise ValueError(
            f"{events.name(events.index_of(pulse))}: feature {batch.names[column]!r} "
            f"is {float(batch.features[pulse, column])}; it must be finite"
        )
    if AUXILIARY in batch.names:
        flag_T = batch.column(AUXILIARY)
        wrong = ((flag_T != 0) & (flag_T != 1)).nonzero()
        if len(wrong):
            pulse = int(wrong[0])
            raise ValueError(
                f"{events.name(events.index_of(pulse))}: feature 'auxiliary' is "
                f"{float(flag_T[pulse]):g}; it must be 0 or 1"
            )
