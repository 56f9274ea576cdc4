"""What a reader offers: a source of events in parts, each read in chunks.

A part is what one worker converts at a time: a file, or a range of events of a large
one. Parts can be pickled, know what tells whether their file has changed, and yield
whole events in chunks of bounded size. Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap

# How files of a format end, by which they are recognised and found in folders.
PARQUET_SUFFIXES = (".parquet",)
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
LMDB_SUFFIXES = (".lmdb", ".mdb")
LMDB_FILE = "data.mdb"  # in the folder that LMDB makes of a name


@dataclass(frozen=True, kw_only=True, eq=False)
class EventChunk:
    """Some whole events, with the columns and values of their file."""

    columns: Mapping[str, NDArray[Any]]  # (T,) pulses by file column
    # The types of columns of integers and booleans that are floats here, since some
    # pulse has a null, which is NaN.
    with_nulls: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    # (B + 1,) borders of the events; an event may have no pulses.
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]  # (B,)
    # (B,) by column: numbers, booleans or strings.
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    truth_name: str = ""  # what messages call the file of the truth; the part's
    # Row of the file that pulse 0 stands in, for messages; None where rows mean
    # nothing or were sorted.
    first_row: int | None = None
    notes: tuple[str, ...] = ()  # what was repaired in this chunk, in words


class Part(ABC):
    """A file, or a range of events of one, that one worker converts."""

    name: str  # what messages call it, e.g. `train/batch_1.parquet`
    batch: int | None = None  # number of the competition's batch
    # Pulses in it, for progress; None if not known beforehand. Parts of one file may be
    # off, their sum may not: it is checked.
    num_pulses: int | None = None
    # Whether reading leaves the interpreter to other threads most of the time.
    for_threads: ClassVar[bool] = False

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return fingerprint_of_fields(self)

    @abstractmethod
    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read whole events in chunks of at most `max_pulses` pulses or one event.

        A file that is damaged or contradicts itself is a ValueError that names the row.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `prepare` reads."""

    kind: str  # the format, a key of `FORMATS`, or `frames`
    pulse_map: PulseMap  # what the columns mean
    parts: Sequence[Part]  # in the order of the events
    pulse_columns: tuple[str, ...]  # pulse columns that are taken
    left_out: tuple[str, ...] = ()  # columns of the files that are not taken
    tables: tuple[str, ...] = ()  # the tables that are read, in words
    # The user's DOM table, a file or as such; None for IceCube-86.
    geometry: Path | DetectorGeometry | None = None
    ice: Path | None = None  # the user's ice table, or None for IceCube's
    notes: tuple[str, ...] = ()  # what there is to say beforehand
    # The detector that the user named; None where only the pulse map is known.
    detector: Detector | None = None

    def modules(self) -> DetectorGeometry:
        """Return the DOMs: the user's table, or IceCube-86."""
        if self.geometry is None:
            return DetectorGeometry.icecube86()
        if isinstance(self.geometry, DetectorGeometry):
            return self.geometry
        return DetectorGeometry.from_file(self.geometry)


def fingerprint_of_fields(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values, of paths what the file is."""

    def plain(value: Any) -> Any:
        if hasattr(value, "fingerprint"):
            return value.fingerprint()
        if is_dataclass(value):
            return fingerprint_of_fields(value)
        if isinstance(value, Path):
            return file_fingerprint(value)
        if isinstance(value, Mapping):
            return {str(name): plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value if isinstance(value, int | float | None) else str(value)

    return {item.name: plain(getattr(instance, item.name)) for item in fields(instance)}


def file_fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, size and time of change of a file."""
    stat = os.stat(path)
    return {
        "file": os.path.abspath(path),
        "bytes": stat.st_size,
        "changed": stat.st_mtime_ns,
    }


def chunk_borders(offsets: NDArray[np.int64], max_pulses: int) -> Iterator[slice]:
    """Cut events, (B + 1,) borders, into chunks of `max_pulses` or of one event."""
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
