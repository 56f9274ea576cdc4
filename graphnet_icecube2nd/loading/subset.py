"""Subsets of a store's events, and the split into training and validation.

Each condition concerns one event: its number of pulses, its truth columns, its batch or
the hash of its number. So a subset is computed for a part of a shard at a time and
never held for all events. Shape letter: B events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import EVENT_ID, LENGTH_CLASSES
from graphnet_icecube2nd.events.random_numbers import combine, mix, uniform
from graphnet_icecube2nd.loading.expression import Expression
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.label import (
    has_label,
    label_columns,
    make_label,
    missing_label,
)

# The published models were validated on these batches of the Kaggle data.
PUBLISHED_VALIDATION_BATCHES = frozenset(range(655, 660))


@dataclass(frozen=True)
class EventSubset:
    """Subset of a store's events; it never contains events without pulses.

    An event must pass all conditions.

    Args:
        length_class: One of `LENGTH_CLASSES`, for the stored number of pulses.
        expression: Condition on truth columns, `n_pulses` and `event_id`, see
            `Expression`.
        batches: Kaggle batches of the events; None: events of all batches and events
            without a batch.
        without_batches: Kaggle batches whose events are excluded.
        hash_range: Range of the hash of `event_id`, first <= hash < last, within 0 to
            1. Ranges that do not overlap share no event, and new events do not change
            the hash of others.
        hash_seed: Seed of the hash.
        labelled: Groups of labels (see `tasks.label`); a group holds the labels that
            one task needs. An event needs all labels of at least one group; empty: no
            labels are needed. A name alone is a group of one.

    Raises:
        ValueError: A value is not allowed; for the expression see `Expression`.
    """

    length_class: str = "total"
    expression: str | None = None
    batches: Collection[int] | None = None
    without_batches: Collection[int] = ()
    hash_range: tuple[float, float] | None = None
    hash_seed: int = 0
    labelled: tuple[tuple[str, ...], ...] = ()
    _condition: Expression | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.length_class not in LENGTH_CLASSES:
            raise ValueError(
                f"unknown length class {self.length_class!r}; choose from "
                f"{', '.join(LENGTH_CLASSES)}"
            )
        condition = None if self.expression is None else Expression(self.expression)
        object.__setattr__(self, "_condition", condition)
        if self.batches is not None:
            object.__setattr__(self, "batches", frozenset(self.batches))
        object.__setattr__(self, "without_batches", frozenset(self.without_batches))
        if self.hash_range is not None:
            first, last = self.hash_range
            if not 0 <= first < last <= 1:
                raise ValueError(
                    f"hash_range must rise within 0 to 1, found {self.hash_range}"
                )
            object.__setattr__(self, "hash_range", (float(first), float(last)))
        object.__setattr__(self, "labelled", label_groups(self.labelled))
        if not isinstance(self.hash_seed, int) or not 0 <= self.hash_seed < 2**64:
            raise ValueError(
                f"hash_seed must be a whole number from 0 below 2**64, found "
                f"{self.hash_seed!r}"
            )

    def mask(
        self, index: EventStore, shard: int, start: int = 0, stop: int | None = None
    ) -> NDArray[np.bool_]:
        """Return which events of a shard, or of a part of it, are in the subset.

        Args:
            index: Event store.
            shard: Number of the shard.
            start: First event of the part, counted within the shard.
            stop: End of the part, excluded; None: end of the shard.

        Raises:
            ValueError: The expression does not fit the columns, see `Expression`;
                `event_id` is not an integer; a label cannot be made from the columns.
        """
        lengths_B = np.asarray(index.lengths(shard)[start:stop])
        batch = index.shard_batches[shard]
        is_chosen = self.batches is None or batch in self.batches
        if not is_chosen or batch in self.without_batches:
            return np.zeros(len(lengths_B), dtype=np.bool_)
        shortest, longest = LENGTH_CLASSES[self.length_class]
        keep_B: NDArray[np.bool_] = lengths_B >= shortest
        if longest is not None:
            keep_B &= lengths_B <= longest
        column = _columns(index, shard, start, stop)
        if self.hash_range is not None:
            first, last = self.hash_range
            share_B = hash_share(column(EVENT_ID), self.hash_seed)
            keep_B &= (share_B >= first) & (share_B < last)
        if self._condition is not None:
            self._condition.check_names(index.event_columns)
            keep_B &= self._condition.evaluate(column, len(lengths_B))
        if self.labelled:
            has = [_has_labels(index, group, column) for group in self.labelled]
            keep_B &= np.logical_or.reduce(has)
        return keep_B

    def local_events(self, index: EventStore, shard: int) -> NDArray[np.int64]:
        """Return the subset's events of a shard, ascending, counted within it."""
        return np.flatnonzero(self.mask(index, shard)).astype(np.int64, copy=False)

    def counts(self, index: EventStore) -> NDArray[np.int64]:
        """Return the number of the subset's events in each shard, (S,)."""
        shards = range(len(index.shard_offsets) - 1)
        counts = [np.count_nonzero(self.mask(index, shard)) for shard in shards]
        return np.array(counts, dtype=np.int64)

    def __str__(self) -> str:
        """Return a description that is unique to the subset."""
        shortest, longest = LENGTH_CLASSES[self.length_class]
        text = f"{self.length_class} events"
        if longest is not None:
            text += f" of {shortest} to {longest} pulses"
        elif shortest > 1:
            text += f" of {shortest} pulses or more"
        if self.batches is not None:
            text += f", of batches {', '.join(map(str, sorted(self.batches)))}"
        if self.without_batches:
            without = ", ".join(map(str, sorted(self.without_batches)))
            text += f", not of batches {without}"
        if self.hash_range is not None:
            first, last = self.hash_range
            text += f", with event_id hashed into {first!r} to {last!r}"
            text += f" by seed {self.hash_seed}"
        if self._condition is not None:
            text += f", with {self._condition.text}"
        if self.labelled:
            groups = " or ".join(" and ".join(names) for names in self.labelled)
            text += f", with a label of {groups}"
        return text


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Numbers of events of a subset with and without labels."""

    num_events: int = 0
    unlabelled: tuple[int, ...] = ()  # events without a label, by group of labels
    left_out: int = 0  # events without a label of any group


def label_groups(
    labels: Sequence[str | Sequence[str]],
) -> tuple[tuple[str, ...], ...]:
    """Return groups of labels; a name alone is a group of one."""
    return tuple((g,) if isinstance(g, str) else tuple(g) for g in labels)


def count_labels(
    index: EventStore, subset: EventSubset, groups: Sequence[Sequence[str]]
) -> LabelCounts:
    """Count the events of a subset that have labels, by group (see `EventSubset`)."""
    num_events = left_out = 0
    unlabelled = np.zeros(len(groups), np.int64)
    for shard in range(len(index.shard_offsets) - 1):
        mask_B = subset.mask(index, shard)
        num_events += int(mask_B.sum())
        column = _columns(index, shard)
        has = [_has_labels(index, group, column) for group in groups]
        unlabelled += [np.count_nonzero(mask_B & ~one_B) for one_B in has]
        left_out += np.count_nonzero(mask_B & ~np.logical_or.reduce(has))
    return LabelCounts(
        num_events=num_events,
        unlabelled=tuple(unlabelled.tolist()),
        left_out=left_out,
    )


def _columns(
    index: EventStore, shard: int, start: int = 0, stop: int | None = None
) -> Callable[[str], NDArray[Any]]:
    """Return a function that returns a shard's column by name, (B,)."""
    return lambda name: np.asarray(index.event_column(name, shard)[start:stop])


def _has_labels(
    index: EventStore, group: Sequence[str], column: Callable[[str], NDArray[Any]]
) -> NDArray[np.bool_]:
    """Return which events have all labels of a group, (B,)."""
    names = index.detector.labels
    has = []
    for label in group:
        needed = label_columns(label, index.event_columns, names)
        if needed is None:
            raise missing_label(label, index.event_columns, names, "the store")
        values = {name: column(name) for name in needed}
        has.append(has_label(make_label(label, values, names)))
    all_B: NDArray[np.bool_] = np.logical_and.reduce(has)
    return all_B


def default_split(
    index: EventStore, seed: int = 0, fraction: float = 0.1
) -> tuple[EventSubset, EventSubset]:
    """Return the default training and validation events.

    If the store has validation batches of the published models and other data, these
    batches are the validation events and the rest are the training events. Otherwise
    the validation events are a share (`fraction`) chosen by the hash of `event_id` with
    a seed. No event is in both.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, found {fraction!r}")
    batches = set(index.shard_batches)
    validation = PUBLISHED_VALIDATION_BATCHES
    if batches & validation and batches - validation:
        return EventSubset(without_batches=validation), EventSubset(batches=validation)
    border = 1 - fraction
    return (
        EventSubset(hash_range=(0, border), hash_seed=seed),
        EventSubset(hash_range=(border, 1), hash_seed=seed),
    )


def hash_share(event_id_B: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Return the hash of `event_id` and seed for every event, from 0 up to 1."""
    if event_id_B.dtype.kind not in "iu":
        raise ValueError(f"event_id must be whole numbers, found {event_id_B.dtype}")
    key = mix(np.array([seed], dtype=np.uint64))
    return uniform(combine(key, event_id_B))
