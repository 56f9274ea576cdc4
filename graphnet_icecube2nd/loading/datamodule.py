"""EventDataModule: Lightning's data module for a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import distributed

from graphnet_icecube2nd.conventions import EVENT_ID
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.events.augmentation import Augmentation
from graphnet_icecube2nd.events.features import DETECTOR
from graphnet_icecube2nd.loading.loader import EventLoader
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler
from graphnet_icecube2nd.loading.subset import (
    EventSubset,
    LabelCounts,
    count_labels,
    default_split,
    label_groups,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.label import LABELS

try:
    from pytorch_lightning import LightningDataModule
except ImportError:  # the loaders work without Lightning
    LightningDataModule = object


class EventDataModule(LightningDataModule):  # type: ignore[misc]
    """Batches of a store for `pytorch_lightning.Trainer`, as `PackedBatch`.

    A Lightning epoch is one sub-epoch: with the default of 8, an eighth of the data.
    So validation and checkpoints come eight times per epoch of the data, as in the
    published recipe. Trainers ask for the number of batches only once, so every
    Lightning epoch has the mean number. If a sub-epoch has more or fewer batches, the
    next one begins in the following Lightning epoch or in the same one; no event is
    left out. Training resumes at any batch, because Lightning's checkpoints hold the
    loader's state. Every rank of a distributed run gets its share.

    Args:
        store: Event store, or its path.
        batch_size: Events per batch on one rank; default 32. Give either this or
            `pulse_budget`.
        pulse_budget: Pulses per batch on one rank.
        max_pulses: Maximum pulses per event; longer events are cut.
        selection: Selection of the kept pulses: `uniform`, `hlc_first` or `first`.
        length_class: Length class of training and validation events: `total`, `short`
            (below 64 pulses), `medium` (64 to 191) or `long` (192 or more).
        events: Condition on truth columns and n_pulses for training and validation
            events, such as `energy > 100`.
        train: Training events; default: all except validation events.
        validation: Validation events; default: the competition's batches 655 to 659
            if the store has them and others, or else a tenth by hash.
        validation_batch_size: Events per validation batch; default: `batch_size`.
        validation_max_pulses: Maximum pulses per validation event; default:
            `max_pulses`.
        num_sub_epochs: Number of parts of an epoch of the data.
        sub_epochs: `partition`, or `published` for independent random eighths.
        truth: Labels of the batches, such as `direction`, `energy`, `track`, and event
            columns of the store, such as weights; default: `direction`.
        labels: Groups of labels; a group holds the labels that one task needs. Events
            without a complete group are left out of training and validation
            (`train_labels` and `validation_labels` count them). Default: each label in
            `truth` is a group; empty: all events are used.
        augmentations: Augmentations of training events.
        positions: Point from which positions count: `detector`, its centre, or
            `charge_centre`, that of each event.
        published_features: Efficiency and ice features with the errors of the
            competition's code (`PulseMap.as_published`), for its weights.
        scales: Units of the features; default: those of the store's detector.
        step_batches: Batches per optimiser step. An iteration over the training events
            has a whole number of steps, so that its last step is complete.
        seed: Random seed of everything except the split.
        validation_fraction: Share of validation events in a split by hash, 0 to 1.
        split_seed: Seed of the split by hash. It does not depend on `seed`, so members
            of an ensemble, and runs that start from another run's weights, have
            validation events that none of them was trained on.
        num_workers: Reading processes of each loader; 0: the main process reads, in a
            thread if there is a GPU.
        pin_memory: Return batches in page-locked memory; default: if there is a GPU.

    Raises:
        ValueError: `EventStore`, `EventReader` or `EventSampler` refuses a value, or
            training and validation share events.
    """

    def __init__(
        self,
        store: EventStore | str | os.PathLike[str],
        *,
        batch_size: int | None = None,
        pulse_budget: int | None = None,
        max_pulses: int = 192,
        selection: str = "uniform",
        length_class: str = "total",
        events: str | None = None,
        train: EventSubset | None = None,
        validation: EventSubset | None = None,
        validation_batch_size: int | None = None,
        validation_max_pulses: int | None = None,
        num_sub_epochs: int = 8,
        sub_epochs: str = "partition",
        truth: Sequence[str] | None = None,
        labels: Sequence[str | Sequence[str]] | None = None,
        augmentations: Sequence[Augmentation] = (),
        positions: str = DETECTOR,
        published_features: bool = False,
        scales: Scales | None = None,
        step_batches: int = 1,
        seed: int = 0,
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        self.store = store if isinstance(store, EventStore) else EventStore(store)
        if batch_size is None and pulse_budget is None:
            batch_size = 32
        if (train is None) != (validation is None):
            raise ValueError("give both train and validation or neither, found one")
        if train is None or validation is None:
            train, validation = default_split(
                self.store, split_seed, validation_fraction
            )
        else:
            _check_apart(self.store, train, validation)
        train, validation = (
            narrowed(subset, length_class, events) for subset in (train, validation)
        )
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._training: dict[str, Any] = {
            "batch_size": batch_size,
            "pulse_budget": pulse_budget,
            "max_pulses": max_pulses,
            "seed": seed,
            "num_sub_epochs": num_sub_epochs,
            "sub_epochs": sub_epochs,
        }
        if validation_batch_size is not None:
            batch_size, pulse_budget = validation_batch_size, None
        self._validating: dict[str, Any] = {
            "batch_size": batch_size,
            "pulse_budget": pulse_budget,
            "max_pulses": validation_max_pulses or max_pulses,
            "seed": seed,
        }
        self.step_batches = step_batches
        self._train_loader: EventLoader | None = None
        self._resumed: dict[str, Any] | None = None
        reading: dict[str, Any] = {
            "selection": selection,
            "seed": seed,
            "truth": truth,
            "positions": positions,
            "published_features": published_features,
            "scales": scales,
        }
        self._train_reader = EventReader(
            self.store, max_pulses=max_pulses, augmentations=augmentations, **reading
        )
        self._validation_reader = EventReader(
            self.store, max_pulses=validation_max_pulses or max_pulses, **reading
        )
        if labels is None:
            labels = [name for name in self._train_reader.truth if name in LABELS]
        groups = label_groups(labels)
        self.train_events, self.train_labels = _with_labels(self.store, train, groups)
        self.validation_events, self.validation_labels = _with_labels(
            self.store, validation, groups
        )

    def train_dataloader(self) -> EventLoader:
        """Return the loader of shuffled training batches."""
        sampler = self._sampler(self.train_events, **self._training)
        loader = self._loader(
            self._train_reader,
            sampler,
            iteration_batches=self._whole_steps(_mean_batches(sampler)),
        )
        if self._resumed is not None:
            loader.load_state_dict(self._resumed)
            self._resumed = None
        self._train_loader = loader
        return loader

    def transfer_batch_to_device(
        self, batch: Any, device: Any, dataloader_idx: int
    ) -> Any:
        """Move a batch to a device, asynchronously if it is page-locked."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader, for checkpoints."""
        loader = self._train_loader
        return {} if loader is None else {"train": loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader continue at the position of a checkpoint."""
        self._resumed = state_dict.get("train")

    def sub_epoch_batches(self, world_size: int = 1) -> int:
        """Return the mean number of batches of a sub-epoch on each rank."""
        return _mean_batches(
            EventSampler(
                self.store,
                self.train_events,
                rank=0,
                world_size=world_size,
                **self._training,
            )
        )

    def fitting_step(self, wanted: int, world_size: int = 1) -> int:
        """Return the number of batches of a step that fills a sub-epoch best.

        Whole steps of the wanted size could make a sub-epoch of few steps a quarter
        longer or shorter. So the number of steps is rounded, and their size follows.
        """
        batches = self.sub_epoch_batches(world_size)
        steps = max(1, round(batches / wanted))
        return max(1, round(batches / steps))

    def iteration_batches(self, world_size: int = 1) -> int:
        """Return the number of batches of a training iteration, in whole steps."""
        return self._whole_steps(self.sub_epoch_batches(world_size))

    def val_dataloader(self) -> EventLoader:
        """Return the loader of validation events, with fixed order and pulses."""
        sampler = self._sampler(
            self.validation_events, **self._validating, shuffle=False
        )
        return self._loader(self._validation_reader, sampler, always_first_epoch=True)

    def predict_dataloader(self) -> EventLoader:
        """Return the loader of all events with pulses, in the store's order."""
        options = {**self._validating, "length_buckets": False, "shuffle": False}
        sampler = self._sampler(EventSubset(), **options)
        return self._loader(self._validation_reader, sampler, always_first_epoch=True)

    def _whole_steps(self, batches: int) -> int:
        return max(1, round(batches / self.step_batches)) * self.step_batches

    def _sampler(self, subset: EventSubset, **options: Any) -> EventSampler:
        """Return a sampler for this rank, taken from the trainer or else from torch."""
        rank, world_size = 0, 1
        trainer = getattr(self, "trainer", None)
        if trainer is not None:
            rank, world_size = trainer.global_rank, trainer.world_size
        elif distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        return EventSampler(
            self.store, subset, rank=rank, world_size=world_size, **options
        )

    def _loader(
        self, reader: EventReader, sampler: EventSampler, **options: Any
    ) -> EventLoader:
        pin_memory = self.pin_memory
        if pin_memory is None:
            pin_memory = torch.cuda.is_available()
        return EventLoader(
            reader,
            sampler,
            num_workers=self.num_workers,
            pin_memory=pin_memory,
            **options,
        )


def _mean_batches(sampler: EventSampler) -> int:
    parts = sampler.num_sub_epochs
    in_all = sum(sampler.num_batches(0, part) for part in range(parts))
    return -(-in_all // parts)


def _with_labels(
    store: EventStore, subset: EventSubset, groups: tuple[tuple[str, ...], ...]
) -> tuple[EventSubset, LabelCounts]:
    """Return a subset without unlabelled events, and their numbers.

    A fully labelled subset is returned unchanged, so that samplers recognise it.
    """
    if not groups:
        return subset, LabelCounts()
    counts = count_labels(store, subset, groups)
    return (replace(subset, labelled=groups) if counts.left_out else subset), counts


def _check_apart(
    store: EventStore, train: EventSubset, validation: EventSubset
) -> None:
    for shard in range(len(store.shards)):
        both_B = train.mask(store, shard) & validation.mask(store, shard)
        if both_B.any():
            event = store.event_column(EVENT_ID, shard)[both_B.argmax()]
            raise ValueError(
                f"event {event} must not be in both training ({train}) and "
                f"validation ({validation})"
            )


def narrowed(
    subset: EventSubset, length_class: str, expression: str | None
) -> EventSubset:
    """Return a subset that also has the user's length class and condition.

    Raises ValueError if the subset has another length class.
    """
    if length_class != "total":
        if subset.length_class not in ("total", length_class):
            raise ValueError(
                f"length_class must be the subset's, {subset.length_class!r}, or "
                f"'total', found {length_class!r}"
            )
        subset = replace(subset, length_class=length_class)
    if expression is not None:
        if subset.expression is not None:
            expression = f"({subset.expression}) and ({expression})"
        subset = replace(subset, expression=expression)
    return subset
