"""EventStore: a folder of memory-mapped events.

The folder has a manifest, shards of pulses and events as Arrow files, and the user's
DOM and ice tables, if any. Opening a store reads the manifest only; columns stay on
their memory maps, so a process loads only the pages that it reads. Shape letters: S
shards, B events, T pulses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import LENGTH_CLASSES
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import MappedTable
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    EVENTS_FILE,
    FIRST_PULSE,
    GEOMETRY_FILE,
    ICE_FILE,
    MANIFEST,
    MEND,
    N_PULSES,
    PULSES_FILE,
    RESERVED,
    SHARDS,
    WEIGHT_TABLES,
    Manifest,
    ShardRecord,
)
from graphnet_icecube2nd.store.verification import verify

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Borders of the histogram, among them those of the competition's length classes.
LENGTH_BORDERS = (0, 1, 8, 16, 32, 64, 96, 128, 192, 384, 768, 3072, 12288)


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard of a store; its tables are checked and mapped at their first use.

    A damaged table raises ValueError.

    Args:
        store: Folder of the store.
        record: Entry of the manifest.
        manifest: The manifest.
    """

    store: Path
    record: ShardRecord
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """Folder of the tables."""
        return self.store / SHARDS / self.record.name

    @cached_property
    def pulses(self) -> MappedTable:
        """The pulses, one event after the other."""
        table = self._table(PULSES_FILE, self.manifest.pulse_columns)
        if table.num_rows != self.record.num_pulses:
            raise self._damaged(PULSES_FILE, f"it has {table.num_rows} rows")
        return table

    @cached_property
    def events(self) -> MappedTable:
        """The events: event_id, first_pulse, n_pulses and truth."""
        table = self._table(EVENTS_FILE, self.manifest.event_columns)
        first_B, count_B = table.column(FIRST_PULSE), table.column(N_PULSES)
        stop_B = np.cumsum(count_B, dtype=np.int64)
        ids, total = table.column(EVENT_ID), int(stop_B[-1]) if len(stop_B) else 0
        found = (len(count_B), total, int((count_B == 0).sum()))
        record = self.record
        if found != (record.num_events, record.num_pulses, record.num_empty):
            raise self._damaged(
                EVENTS_FILE,
                f"it has {found[0]} events, {found[2]} of them empty, with {found[1]} "
                "pulses",
            )
        if (count_B < 0).any() or not np.array_equal(first_B, stop_B - count_B):
            raise self._damaged(EVENTS_FILE, "its events are not contiguous")
        if len(ids) and (ids.min(), ids.max()) != (record.first_id, record.last_id):
            raise self._damaged(EVENTS_FILE, f"its ids are {ids.min()} to {ids.max()}")
        return table

    def pulse_rows(
        self, events: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return numbers of pulses (B,) and rows of pulses (T,) of some events (B,)."""
        count_B = self.events.column(N_PULSES)[events].astype(np.int64)
        first_B = self.events.column(FIRST_PULSE)[events]
        shift_B = first_B - (np.cumsum(count_B) - count_B)
        return count_B, np.arange(count_B.sum()) + np.repeat(shift_B, count_B)

    def _table(self, name: str, types: Mapping[str, str]) -> MappedTable:
        """Open a table after its checksum, because damage may crash the reader."""
        path = self.folder / name
        verify(path, self.record.files[name]["sha256"], self.store)
        return MappedTable(path, types)

    def _damaged(self, name: str, what: str) -> ValueError:
        return ValueError(
            f"{self.folder / name} is damaged: {what}, which differs from the manifest "
            f"({MEND})"
        )


class EventStore:
    """A store of events, opened for reading.

    The number of an event is its position in the store, from 0; its `event_id` is the
    number in its file. A pickled store is only its path, so worker processes open it
    themselves.

    Args:
        path: Folder of the store.

    Attributes:
        manifest: Content and version of the store.
        shards: The S shards; their tables are mapped at their first use.
        shard_offsets: Number of the first event of each shard, (S + 1,).
        shard_batches: Number of the competition's batch of each shard, None for other
            data.
        pulse_columns: Columns of the pulses, with their names in the source.
        event_columns: Columns of the events: event_id, n_pulses, truth.
        truth_columns: Columns from the source's truth.
        has_directions: Whether the truth has the pulse map's azimuth and zenith.
        has_own_geometry: Whether the store has a DOM table of the user.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The folder is not a store, or is incomplete, or has another version;
            or a file is missing or has another size than in the manifest.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist")
        if not (self.path / MANIFEST).is_file():
            raise ValueError(
                f"{self.path} is not a complete event store: it has no {MANIFEST}. Run "
                "`icecube2nd prepare` (again)"
            )
        self.manifest = Manifest.load(self.path)
        records, columns = self.manifest.shards, self.manifest.event_columns
        self.shards: Sequence[Shard] = tuple(
            Shard(self.path, record, self.manifest) for record in records
        )
        self._check_sizes()
        counts = [record.num_events for record in records]
        self.shard_offsets = np.append(0, np.cumsum(counts, dtype=np.int64))
        self.shard_batches = tuple(record.batch for record in records)
        self.pulse_columns = tuple(self.manifest.pulse_columns)
        self.event_columns = tuple(c for c in columns if c != FIRST_PULSE)
        self.truth_columns = tuple(c for c in columns if c not in RESERVED)
        self.has_own_geometry = GEOMETRY_FILE in self.manifest.tables
        labels = self.pulse_map.labels
        self.has_directions = {labels.azimuth, labels.zenith} <= set(self.truth_columns)

    def __len__(self) -> int:
        """Return the number of events, including those without pulses."""
        return int(self.shard_offsets[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path."""
        return (EventStore, (self.path,))

    def __repr__(self) -> str:
        """Describe the content."""
        return (
            f"EventStore({str(self.path)!r}: {len(self)} events, "
            f"{self.manifest.num_pulses} pulses, pulse map {self.pulse_map.name!r})"
        )

    @property
    def pulse_map(self) -> PulseMap:
        """Meaning of the pulse columns, including the angle convention."""
        return self.manifest.pulse_map

    @cached_property
    def detector(self) -> Detector:
        """The detector that was named in the preparation, or that of the pulse map."""
        tables = self.manifest.tables
        for name, expected in tables.items():
            verify(self.path / name, expected["sha256"], self.path)
        geometry = optics = None
        if GEOMETRY_FILE in tables:
            geometry = DetectorGeometry.from_file(self.path / GEOMETRY_FILE)
        if ICE_FILE in tables:
            optics = IceModel.from_file(self.path / ICE_FILE)
        described = self.manifest.detector
        if described is None:
            return Detector.from_pulse_map(self.pulse_map, geometry, optics)
        try:
            return Detector.from_dict(described, self.pulse_map, geometry, optics)
        except ValueError as error:
            path = self.path / MANIFEST
            raise ValueError(f"{path} is damaged: {error} ({MEND})") from None

    @property
    def geometry(self) -> DetectorGeometry:
        """The DOMs of the store, or those of IceCube-86."""
        return self.detector.modules_or_icecube86

    @property
    def ice(self) -> IceModel:
        """Ice properties of the user's table, or those of the detector."""
        return self.detector.medium_optics

    def lengths(self, shard: int) -> NDArray[np.int32]:
        """Return the numbers of pulses of a shard's events, (B,), on the memory map."""
        return self.shards[shard].events.column(N_PULSES)

    def event_column(self, name: str, shard: int) -> NDArray[Any]:
        """Return a column of the events of a shard, (B,).

        Raises:
            ValueError: The store lacks the column.
        """
        if name not in self.event_columns:
            raise ValueError(
                f"{self.path} has no event column {name!r}; it has "
                f"{', '.join(self.event_columns)}"
            )
        return self.shards[shard].events.column(name)

    def whole_event_column(self, name: str) -> NDArray[Any]:
        """Return a column of all events, (B,), in memory.

        Raises:
            ValueError: The store lacks the column.
        """
        shards = range(len(self.shards))
        return np.concatenate([self.event_column(name, shard) for shard in shards])

    def weight_tables(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Return icetray's tables of weights, in the form that simweights takes.

        For example `simweights.NuGenWeighter(store.weight_tables(), nfiles=1)`. A table
        that was itself prepared as the truth is not among them: its columns have their
        own names.

        Returns:
            Columns (B,) by name for each table that the store has; empty if the store
            was not prepared from icetray's HDF5 files with weights.
        """
        found: dict[str, dict[str, NDArray[Any]]] = {}
        for table in WEIGHT_TABLES:
            of_table = [c for c in self.truth_columns if c.startswith(f"{table}_")]
            if of_table:
                found[table] = {
                    column.removeprefix(f"{table}_"): self.whole_event_column(column)
                    for column in of_table
                }
        return found

    def shard_of(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the shard of each event number, (B,).

        Raises:
            ValueError: A number is not that of an event.
        """
        bad = events[(events < 0) | (events >= len(self))]
        if len(bad):
            raise ValueError(
                f"{self.path}: event numbers must be 0 to {len(self) - 1}, got {bad[0]}"
            )
        return np.searchsorted(self.shard_offsets, events, side="right") - 1

    def find(self, event_id: int) -> int:
        """Return the number of the event with an event_id.

        Raises:
            ValueError: The store lacks the event.
        """
        for first, shard in zip(self.shard_offsets, self.shards, strict=False):
            if shard.record.first_id <= event_id <= shard.record.last_id:
                found = np.flatnonzero(shard.events.column(EVENT_ID) == event_id)
                if len(found):
                    return int(first + found[0])
        raise ValueError(f"{self.path} has no event with event_id {event_id}")

    def verify(self) -> None:
        """Check all files against their checksums, also those checked before.

        Raises:
            ValueError: A file is damaged.
        """
        for path, expected in self._files():
            verify(path, expected["sha256"], self.path, again=True)
        for shard in self.shards:
            _ = shard.events, shard.pulses

    def _check_sizes(self) -> None:
        for path, expected in self._files():
            if not path.is_file():
                raise ValueError(f"{path} is missing ({MEND})")
            if (found := path.stat().st_size) != expected["bytes"]:
                raise ValueError(
                    f"{path} is damaged: it must have {expected['bytes']} bytes, found "
                    f"{found} ({MEND})"
                )

    def _files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield each file with its size and checksum."""
        for name, expected in self.manifest.tables.items():
            yield self.path / name, expected
        for shard in self.shards:
            for name, expected in shard.record.files.items():
                yield shard.folder / name, expected


def length_counts(store: EventStore) -> NDArray[np.int64]:
    """Return the numbers of events with 0, 1, 2, ... pulses."""
    counts = np.zeros(1, np.int64)
    for shard in range(len(store.shards)):
        found = np.bincount(store.lengths(shard), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def length_quantiles(store: EventStore) -> dict[str, int]:
    """Return quantiles of the number of pulses, for events with pulses."""
    counts = length_counts(store)
    counts[0] = 0
    total = np.cumsum(counts)
    if total[-1] == 0:
        return {}
    ranks = [max(1, int(np.ceil(q * total[-1]))) for q in QUANTILES]
    lengths = np.searchsorted(total, ranks)
    names = ["shortest", *(f"{q:.0%}" for q in QUANTILES[1:-1]), "longest"]
    return dict(zip(names, lengths.tolist(), strict=True))


def length_classes(store: EventStore) -> dict[str, int]:
    """Return the number of events in each length class of the competition.

    These are the counts of the published `prepare_data.py`, for the whole store.
    """
    counts = length_counts(store)
    return {
        name: int(counts[shortest : None if longest is None else longest + 1].sum())
        for name, (shortest, longest) in LENGTH_CLASSES.items()
    }


def length_histogram(store: EventStore) -> list[tuple[str, int]]:
    """Return the number of events by range of pulses, without empty last ranges."""
    counts = length_counts(store)
    lengths, borders = np.arange(len(counts)), [*LENGTH_BORDERS, np.inf]
    numbers, _ = np.histogram(lengths, borders, weights=counts)
    ranges = [f"{low} to {stop - 1}" for low, stop in pairwise(LENGTH_BORDERS[1:])]
    labels = ["0", *ranges, f"{LENGTH_BORDERS[-1]} or more"]
    num_rows = max(np.flatnonzero(numbers), default=0) + 1
    return list(zip(labels, numbers.tolist(), strict=True))[:num_rows]


@dataclass(frozen=True, kw_only=True)
class EventView:
    """One event of a store.

    Args:
        number: Position in the store.
        event_id: Number in its file.
        truth: Event columns by name.
        pulses: Pulses (T,) by column.
    """

    number: int
    event_id: int
    truth: dict[str, Any]
    pulses: dict[str, NDArray[Any]]


def view_event(store: EventStore, number: int) -> EventView:
    """Return all columns of one event.

    Args:
        store: The store.
        number: Number of the event.

    Raises:
        ValueError: The store lacks the event.
    """
    shard_index = int(store.shard_of(np.array([number]))[0])
    local = number - int(store.shard_offsets[shard_index])
    shard = store.shards[shard_index]
    _, row_T = shard.pulse_rows(np.array([local]))
    event = {name: shard.events.column(name)[local] for name in store.event_columns}
    return EventView(
        number=number,
        event_id=int(event["event_id"]),
        truth={
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in event.items()
        },
        pulses={name: shard.pulses.column(name)[row_T] for name in store.pulse_columns},
    )
