"""What a reader offers: a source of events in parts, each read in chunks.

A part is what one process converts at a time: a file, or a range of events of a large
one. Parts can be pickled, know what tells whether their file has changed, and yield
whole events in chunks of bounded size. Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap

# How files of a format end, by which they are recognised and found in folders.
PARQUET_SUFFIXES = (".parquet",)
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True, kw_only=True, eq=False)
class EventChunk:
    """Some whole events, with the columns and values of their file.

    Args:
        columns: (T,) pulses by file column.
        offsets: (B + 1,) int64 borders of the events; an event may have no pulses.
        event_id: (B,) int64.
        truth: (B,) by column: numbers, booleans or strings.
        first_row: Row of the file that pulse 0 stands in, for messages; None where
            rows mean nothing or were sorted.
        notes: What was repaired in this chunk, in words.
    """

    columns: Mapping[str, NDArray[Any]]
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    first_row: int | None = None
    notes: tuple[str, ...] = ()


class Part(ABC):
    """A file, or a range of events of one, that one process converts.

    Attributes:
        name: What messages call it, e.g. `train/batch_1.parquet`.
        batch: Number of the competition's batch, or None.
        num_pulses: Pulses in it, for progress; None if not known beforehand. Parts of
            one file may be off, their sum may not: it is checked.
    """

    name: str
    batch: int | None = None
    num_pulses: int | None = None

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""

    @abstractmethod
    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the part, in chunks of at most `max_pulses` pulses or one event.

        Raises:
            ValueError: A file is damaged or contradicts itself; names file and row.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `prepare` reads.

    Args:
        kind: The format: `kaggle`, `graphnet-sqlite`, `graphnet-parquet`, `parquet`,
            `hdf5`, `frames`.
        pulse_map: What the columns mean.
        parts: In the order of the events.
        pulse_columns: Pulse columns that are taken.
        left_out: Columns of the files that are not taken.
        geometry: The user's DOM table, a file or as such; None for IceCube-86.
        ice: The user's ice table, or None for IceCube's.
        notes: What there is to say beforehand.
        detector: The detector that the user named; None where only the pulse map is
            known.
    """

    kind: str
    pulse_map: PulseMap
    parts: Sequence[Part]
    pulse_columns: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    geometry: Path | DetectorGeometry | None = None
    ice: Path | None = None
    notes: tuple[str, ...] = ()
    detector: Detector | None = None

    def modules(self) -> DetectorGeometry:
        """Return the DOMs: the user's table, or IceCube-86."""
        if self.geometry is None:
            return DetectorGeometry.icecube86()
        if isinstance(self.geometry, DetectorGeometry):
            return self.geometry
        return DetectorGeometry.from_csv(self.geometry)


def file_fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, size and time of change of a file."""
    stat = os.stat(path)
    return {
        "file": os.path.abspath(path),
        "bytes": stat.st_size,
        "changed": stat.st_mtime_ns,
    }


def chunk_borders(offsets: NDArray[np.int64], max_pulses: int) -> Iterator[slice]:
    """Cut events into chunks of at most `max_pulses` pulses, or of one event.

    Args:
        offsets: (B + 1,) int64 borders of the events, from 0.
        max_pulses: Largest chunk.
    """
    event, num_events = 0, len(offsets) - 1
    while event < num_events:
        limit = offsets[event] + max_pulses
        stop = int(np.searchsorted(offsets, limit, side="right")) - 1
        stop = min(max(stop, event + 1), num_events)
        yield slice(event, stop)
        event = stop


def describe_ids(event_id: NDArray[np.int64]) -> str:
    """Return, for messages, a few of many event_ids and how many there are."""
    few = ", ".join(str(number) for number in event_id[:5])
    if len(event_id) == 1:
        return f"event {few}"
    return f"{len(event_id)} events ({few}{', ...' if len(event_id) > 5 else ''})"
