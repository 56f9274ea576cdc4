"""EventDataModule: a store as the data that Lightning trains and validates on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import distributed

from graphnet_icecube2nd.conventions import EVENT_ID
from graphnet_icecube2nd.events.augmentation import Augmentation
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
except ImportError:  # without Lightning its loaders can be had all the same
    LightningDataModule = object


class EventDataModule(LightningDataModule):  # type: ignore[misc]
    """Batches of a store for `pytorch_lightning.Trainer`, as `PackedBatch`.

    A Lightning epoch is one sub-epoch: with the default of 8, an eighth of the data,
    so that validation and checkpoints come eight times an epoch of the data, as in the
    published recipe. Trainers ask only once how many batches that is, so every epoch of
    theirs has the mean number: where a sub-epoch has more or fewer, the next one
    begins in the following epoch or in the same, and no event is left out. Training
    resumes in the middle of a sub-epoch and between two: the loader's state is in
    Lightning's checkpoints. Every rank of a distributed run gets its share.

    Args:
        store: The store, or its path.
        batch_size: Events of a batch on one rank; default 32. Either this or
            `pulse_budget`.
        pulse_budget: Pulses of a batch on one rank.
        max_pulses: Longer events are cut to this many pulses.
        selection: Pulses that are kept: `uniform`, `hlc_first`, `first`.
        length_class: `total`, `short` (below 64 pulses), `medium` (64 to 191) or
            `long` (192 or more): which events are trained and validated on.
        events: A condition on truth columns and n_pulses, such as `energy > 100`, for
            training and validation.
        train: Training events; default: all but those that validate.
        validation: Validation events; default: the competition's batches 655 to 659
            where they are there with others, else a tenth by hash.
        validation_batch_size: Events of a validation batch; default: as training.
        validation_max_pulses: Pulses that the validation cuts to; default: as training.
        num_sub_epochs: Parts of an epoch of the data.
        sub_epochs: `partition`, or `published`: independent random eighths.
        truth: Columns of the batches' truth: labels such as `direction`, `energy`,
            `track`, and any columns of the store's events, such as weights; default
            the direction.
        labels: Groups of labels, those that one task needs: events that have no group
            complete are neither trained nor validated on (`train_labels` and
            `validation_labels` count them). Default: the labels among `truth`, each a
            group; empty: all events are used.
        augmentations: Augmentations of training events.
        published_features: Efficiency and ice with the slips of the competition's code
            (`PulseMap.as_published`), for its weights.
        step_batches: Batches of an optimiser step: an iteration over the training has a
            whole number of steps, so that no step at its end sees fewer events.
        seed: Seed of all that is random but the split.
        validation_fraction: Share of the validation in a split by hash, 0 to 1.
        split_seed: Seed of the split by hash; the same for every `seed`, so that runs
            of an ensemble, or one that goes on from another, validate on events that
            none of them was trained on.
        num_workers: Processes that read, for each loader; 0: this one does, in a
            thread where there is a GPU to wait for.
        pin_memory: Hand out page-locked batches; default: where there is a GPU.

    Raises:
        ValueError: As `EventStore`, `EventReader`, `EventSampler`; or training and
            validation share events.
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
        published_features: bool = False,
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
            raise ValueError("give both train and validation, or neither")
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
            "published_features": published_features,
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
        """Return shuffled batches, of a sub-epoch's mean number an iteration."""
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
        """Move a batch, beside the computation where it is page-locked."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stands; Lightning puts it into checkpoints."""
        loader = self._train_loader
        return {} if loader is None else {"train": loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader go on where a checkpoint was written."""
        self._resumed = state_dict.get("train")

    def sub_epoch_batches(self, world_size: int = 1) -> int:
        """Return the mean number of batches of a sub-epoch on each of some ranks."""
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
        """Return about how many batches a step should have to fill a sub-epoch.

        Whole steps of the wanted size may make a sub-epoch a quarter longer or shorter
        where it has few of them. So their number is rounded, and their size follows.
        """
        batches = self.sub_epoch_batches(world_size)
        steps = max(1, round(batches / wanted))
        return max(1, round(batches / steps))

    def iteration_batches(self, world_size: int = 1) -> int:
        """Return the batches of an iteration over the training: whole steps."""
        return self._whole_steps(self.sub_epoch_batches(world_size))

    def val_dataloader(self) -> EventLoader:
        """Return the validation events, in a fixed order, the same pulses each time."""
        sampler = self._sampler(
            self.validation_events, **self._validating, shuffle=False
        )
        return self._loader(self._validation_reader, sampler, always_first_epoch=True)

    def predict_dataloader(self) -> EventLoader:
        """Return every event that has pulses, in the store's order."""
        options = {**self._validating, "length_buckets": False, "shuffle": False}
        sampler = self._sampler(EventSubset(), **options)
        return self._loader(self._validation_reader, sampler, always_first_epoch=True)

    def _whole_steps(self, batches: int) -> int:
        return max(1, round(batches / self.step_batches)) * self.step_batches

    def _sampler(self, subset: EventSubset, **options: Any) -> EventSampler:
        """Return a sampler for this rank, which the trainer knows, or else torch."""
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
    """Return a subset without the events that have no label, and how many those are.

    A subset of labelled events stays as it is, so that samplers know it again.
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
                f"event {event} is in training ({train}) and in validation "
                f"({validation})"
            )


def narrowed(
    subset: EventSubset, length_class: str, expression: str | None
) -> EventSubset:
    """Return a subset with a length class and a condition of the user's added.

    Raises ValueError where the subset has another length class already.
    """
    if length_class != "total":
        if subset.length_class not in ("total", length_class):
            raise ValueError(
                f"length_class is {length_class!r}, but the subset's is "
                f"{subset.length_class!r}"
            )
        subset = replace(subset, length_class=length_class)
    if expression is not None:
        if subset.expression is not None:
            expression = f"({subset.expression}) and ({expression})"
        subset = replace(subset, expression=expression)
    return subset
