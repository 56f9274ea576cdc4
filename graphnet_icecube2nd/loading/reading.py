"""EventReader: reads the kept pulses of a store's events into batches.

One call reads a block of events. The kept pulses of long events follow from their
lengths, so other pulses are never read. Shape letters: B events, T kept pulses, E long
events, L pulses kept of each, C events of one shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import AUXILIARY, HLC, TIME
from graphnet_icecube2nd.detector.pulse_map import NO_ICE, Scales
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.augmentation import (
    PLACELESS,
    AddNoise,
    Augmentation,
    apply_augmentations,
    check_order,
    moved_truth,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.events import Events, auxiliary_of, clock_zeros
from graphnet_icecube2nd.events.features import (
    DETECTOR,
    POSITIONS,
    FeatureBuilder,
    placed_features,
)
from graphnet_icecube2nd.events.selection import (
    check_selection,
    select_positions,
    select_pulses,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, FIRST_PULSE, N_PULSES
from graphnet_icecube2nd.tasks.label import (
    DIRECTION,
    LABELS,
    label_columns,
    make_label,
    missing_label,
)


class EventReader:
    """Reads events of a store as input of the models.

    The result for an event depends only on (seed, epoch, event_id), not on its batch or
    on the process that reads it.

    Args:
        store: Event store.
        max_pulses: Maximum pulses per event; longer events are cut. None keeps all.
        selection: Selection of the kept pulses: `uniform`, `hlc_first` or `first`.
        seed: Random seed of selection and augmentations.
        truth: Content of `PackedBatch.truth`: labels (`direction` (B, 3), which points
            to the origin, `energy` [GeV], `track`; see `tasks.label`) in float32, NaN
            for events without the label; and unchanged columns of the store. Default:
            `direction` if the store has angles.
        augmentations: Augmentations of the kept pulses, in this order.
        positions: Point from which positions count: `detector` or `charge_centre`.
        published_features: Compute efficiency and ice features with the errors of the
            competition's code.
        scales: Units of the features; default: those of the store's detector.

    Raises:
        ValueError: The selection is unknown, a label cannot be made of the store's
            columns, or a column is unknown or text.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        max_pulses: int | None = 192,
        selection: str = "uniform",
        seed: int = 0,
        truth: Sequence[str] | None = None,
        augmentations: Sequence[Augmentation] = (),
        positions: str = DETECTOR,
        published_features: bool = False,
        scales: Scales | None = None,
    ) -> None:
        check_one_of("positions", positions, POSITIONS)
        check_selection(selection, 1 if max_pulses is None else max_pulses)
        self.store, self.seed, self.positions = store, seed, positions
        self.max_pulses, self.selection = max_pulses, selection
        self.augmentations = tuple(augmentations)
        check_order(self.augmentations)
        self._check_noise()
        placed = [a for a in self.augmentations if not isinstance(a, PLACELESS)]
        if placed and any(store.pulse_map.origin):
            raise ValueError(
                f"{getattr(placed[0], 'kind', type(placed[0]).__name__)} needs the "
                "detector's centre at 0, but the pulse map of "
                f"{store.path} has origin {store.pulse_map.origin}: subtract it from "
                "the positions before you make the store"
            )
        if truth is None:
            truth = (DIRECTION,) if store.has_directions else ()
        self.truth = (truth,) if isinstance(truth, str) else tuple(truth)
        self._label_columns = self._find_labels()
        known = store.pulse_map.columns()
        self._columns = {
            column: known[column] for column in store.pulse_columns if column in known
        }
        self._flag = next(
            (c for c, q in self._columns.items() if q in (AUXILIARY, HLC)), None
        )
        if selection == "hlc_first" and self._flag is None:
            raise ValueError(
                f"{store.path}: selection 'hlc_first' needs a column auxiliary or hlc, "
                f"found {', '.join(store.pulse_columns)}"
            )
        detector = store.detector
        if published_features:
            detector = replace(detector, pulses=detector.pulses.as_published())
        if scales is not None:
            detector = replace(detector, scales=scales)
        self._features = FeatureBuilder(detector)

    def batch(self, events: NDArray[np.int64], epoch: int = 0) -> PackedBatch:
        """Return events as one batch, in this order.

        Args:
            events: Rows of the events in the store, (B,) int64.
            epoch: Number of the epoch; other epochs keep other pulses of long events.

        Raises:
            ValueError: The store has no such row, or an event has no pulses.
        """
        return self.packed(self.raw(events, epoch))

    def packed(self, raw: Events) -> PackedBatch:
        """Return events of `raw` as a batch of features."""
        features_TF, centre_B3 = placed_features(
            self._features(raw.columns),
            raw.offsets,
            self._features.detector,
            self.positions,
        )
        return PackedBatch.unchecked(
            features=features_TF,
            offsets=raw.offsets,
            n_pulses=raw.n_pulses,
            names=self.store.pulse_map.feature_names,
            event_id=raw.event_id,
            truth=raw.truth,
            units=self._features.detector.units,
            centre=centre_B3,
        )

    def batches(
        self, groups: Sequence[NDArray[np.int64]], epoch: int = 0
    ) -> Iterator[PackedBatch]:
        """Return one batch for each group of events, all read at once."""
        together = self.batch(np.concatenate(groups), epoch)
        return iter(together.split([len(group) for group in groups]))

    def raw(self, events: NDArray[np.int64], epoch: int = 0) -> Events:
        """Return the kept pulses of `batch` in physical units, augmented."""
        events = np.asarray(events, dtype=np.int64)
        if not len(events):
            raise ValueError("a batch needs at least one event, found none")
        block = EventBlock(self.store, events)
        if int(block.length_B.min()) < 1:
            event = int(block.length_B.argmin())
            raise ValueError(
                f"event {block.id_B[event]} (row {events[event]} of the store) must "
                "have pulses to be in a batch, found none"
            )
        position_T, offsets = self._positions(block, epoch)
        columns = {
            quantity: torch.from_numpy(block.pulses(column, position_T, offsets))
            for column, quantity in self._columns.items()
        }
        read = Events(
            columns=columns,
            offsets=torch.from_numpy(offsets),
            n_pulses=torch.from_numpy(block.length_B),
            event_id=torch.from_numpy(block.id_B),
            truth={name: self._truth(name, block) for name in self.truth},
        )
        return self._augmented(read, epoch) if self.augmentations else read

    def _augmented(self, read: Events, epoch: int) -> Events:
        events = apply_augmentations(
            read,
            self.augmentations,
            seed=self.seed,
            epoch=epoch,
            detector=self.store.detector,
        )
        columns, offsets = dict(events.columns), events.offsets
        truth = events.truth
        if self.store.pulse_map.is_relative:
            # Times count from a pulse of the event, which may not be kept.
            clock = self.store.pulse_map.time_reference
            zero_B, before_B = (
                clock_zeros(of.columns, of.offsets.numpy(), clock)[0]
                for of in (events, read)
            )
            moved_B = torch.from_numpy(zero_B - before_B)
            columns[TIME] = columns[TIME] - moved_B.repeat_interleave(offsets.diff())
            truth = moved_truth(truth, time_B=-moved_B)
        if self.max_pulses is not None:  # added noise can make events too long
            kept, offsets = select_pulses(
                offsets,
                self.max_pulses,
                selection=self.selection,
                auxiliary=auxiliary_of(columns),
                event_id=events.event_id,
                seed=self.seed,
                epoch=epoch,
            )
            if len(kept) < int(events.offsets[-1]):
                columns = {name: value[kept] for name, value in columns.items()}
        return replace(events, columns=columns, truth=truth, offsets=offsets)

    def _positions(
        self, block: EventBlock, epoch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the index of each kept pulse in its event, (T,), and the offsets."""
        longest = int(block.length_B.max())
        limit = longest if self.max_pulses is None else self.max_pulses
        if any(getattr(a, "needs_all_pulses", False) for a in self.augmentations):
            limit = longest
        kept_B = np.minimum(block.length_B, limit)
        offsets = np.zeros(len(kept_B) + 1, np.int64)
        np.cumsum(kept_B, out=offsets[1:])
        position_T = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept_B)
        if longest > limit:
            long_E, chosen_EL = select_positions(
                block.length_B,
                limit,
                selection=self.selection,
                read_auxiliary=lambda event: self._is_auxiliary(block, event),
                event_id=block.id_B,
                seed=self.seed,
                epoch=epoch,
            )
            position_T[offsets[long_E, None] + np.arange(limit)] = chosen_EL
        return position_T, offsets

    def _is_auxiliary(self, block: EventBlock, event: int) -> NDArray[np.bool_]:
        assert self._flag is not None  # checked on construction
        is_set: NDArray[np.bool_] = block.pulses_of(event, self._flag) != 0
        return ~is_set if self._columns[self._flag] == HLC else is_set

    def _truth(self, name: str, block: EventBlock) -> Tensor:
        if name in self._label_columns:
            columns = {c: block.events(c) for c in self._label_columns[name]}
            label = make_label(name, columns, self.store.detector.labels)
            return torch.from_numpy(label).float()
        value = torch.from_numpy(block.events(name))
        return value.float() if value.is_floating_point() else value

    def _check_noise(self) -> None:
        """Check that the store has the DOMs of its detector, for noise."""
        store, pulse_map = self.store, self.store.pulse_map
        places_known = (
            store.has_own_geometry
            or pulse_map.sensor_id in store.pulse_columns
            or pulse_map.ice != NO_ICE
        )
        has_noise = any(isinstance(a, AddNoise) for a in self.augmentations)
        if has_noise and not places_known:
            raise ValueError(
                f"{store.path}: add_noise needs the DOMs of the detector, found none: "
                "prepare the store with geometry=... (--geometry)"
            )

    def _find_labels(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of each label of the truth; check the other columns."""
        store, found = self.store, {}
        available, names = store.event_columns, store.detector.labels
        for name in self.truth:
            if name in LABELS:
                columns = label_columns(name, available, names)
                if columns is None:
                    raise missing_label(name, available, names, str(store.path))
                found[name] = columns
            elif name not in available:
                raise ValueError(
                    f"{store.path} has no event column {name!r}; it has "
                    f"{', '.join(available)}, and labels are {', '.join(LABELS)}"
                )
            elif store.manifest.event_columns[name] == "string":
                raise ValueError(
                    f"{store.path}: event column {name!r} must be numbers, found text"
                )
        return found


class EventBlock:
    """(B,) events of a store, in any order, gathered from their shards."""

    def __init__(self, store: EventStore, events: NDArray[np.int64]) -> None:
        self.store = store
        self.shard_B = store.shard_of(events)
        self.local_B = events - store.shard_offsets[self.shard_B]
        first, last = int(self.shard_B[0]), int(self.shard_B[-1])
        if first == last and bool((self.shard_B == first).all()):
            self._groups: list[tuple[int, Any]] = [(first, slice(None))]
        else:
            order_B = np.argsort(self.shard_B, kind="stable")
            shards, starts = np.unique(self.shard_B[order_B], return_index=True)
            groups = np.split(order_B, starts[1:])
            self._groups = list(zip(shards.tolist(), groups, strict=True))
        self.length_B = self.events(N_PULSES).astype(np.int64)
        self.first_B = self.events(FIRST_PULSE)
        self.id_B = self.events(EVENT_ID)
        self._rows: list[tuple[int, Any, NDArray[np.int64]]] | None = None

    def events(self, name: str) -> NDArray[Any]:
        """Return a column of the table of events, (B,)."""
        parts = (
            (chosen, self.store.shards[shard].events.take(name, self.local_B[chosen]))
            for shard, chosen in self._groups
        )
        return _joined(parts, len(self.local_B))

    def pulses(
        self, column: str, position_T: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> NDArray[Any]:
        """Return a column of the kept pulses, (T,)."""
        if self._rows is None:
            row_T = position_T + np.repeat(self.first_B, np.diff(offsets))
            self._rows = [
                (shard, *_rows_of(chosen, offsets, row_T))
                for shard, chosen in self._groups
            ]
        shards = self.store.shards
        # `clip` skips the check of every index; the indices are valid
        parts = (
            (place, shards[shard].pulses.column(column).take(row, mode="clip"))
            for shard, place, row in self._rows
        )
        return _joined(parts, len(position_T))

    def pulses_of(self, event: int, column: str) -> NDArray[Any]:
        """Return a column of all pulses of one event, as a view of the memory map."""
        values = self.store.shards[int(self.shard_B[event])].pulses.column(column)
        first = int(self.first_B[event])
        return values[first : first + int(self.length_B[event])]


def _joined(parts: Iterable[tuple[Any, NDArray[Any]]], length: int) -> NDArray[Any]:
    """Return the values of all shards in the order of the block."""
    out: NDArray[Any] | None = None
    for place, values in parts:
        if isinstance(place, slice):
            return values
        if out is None:
            out = np.empty(length, values.dtype)
        out[place] = values
    assert out is not None
    return out


def _rows_of(
    chosen: Any, offsets: NDArray[np.int64], row_T: NDArray[np.int64]
) -> tuple[Any, NDArray[np.int64]]:
    """Return positions in the block and rows in the shard of the chosen pulses."""
    if isinstance(chosen, slice):
        return chosen, row_T
    length_C = offsets[chosen + 1] - offsets[chosen]
    end_C = np.cumsum(length_C)
    within = np.arange(end_C[-1]) - np.repeat(end_C - length_C, length_C)
    place = within + np.repeat(offsets[chosen], length_C)
    return place, row_T[place]
