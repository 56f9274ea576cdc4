"""Source: the output of a reader, in parts that are read in chunks.

A part is a file, or a range of events of a large file, that one worker converts. It can
be pickled, has a fingerprint of its file, and yields whole events in chunks of bounded
size. Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap

# File name suffixes by which formats are recognised, and files are found in folders.
SUFFIXES = {
    "graphnet-lmdb": (".lmdb", ".mdb"),
    "graphnet-sqlite": (".db", ".sqlite", ".sqlite3"),
    "parquet": (".parquet",),
    "hdf5": (".h5", ".hdf5", ".hdf"),
    "km3net": (".root",),
}
LMDB_FILE = "data.mdb"  # file in a folder of LMDB
ROOT = b"root"  # first bytes of a ROOT file


@dataclass(frozen=True, kw_only=True, eq=False)
class EventChunk:
    """Some whole events, with the columns and values of their file.

    Args:
        columns: Pulses (T,) by column of the file.
        with_nulls: Original types of columns of integers or booleans that are floats
            here, because a null became NaN.
        offsets: Borders of the events, (B + 1,); an event may have no pulses.
        event_id: Event numbers, (B,).
        truth: Numbers, booleans or strings (B,) by column.
        truth_name: Name of the file of truth for messages; default: that of the part.
        first_row: Row of the first pulse in the file, for messages; None if rows have
            no meaning or were sorted.
        notes: Texts on repairs in this chunk.
    """

    columns: Mapping[str, NDArray[Any]]
    with_nulls: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    truth_name: str = ""
    first_row: int | None = None
    notes: tuple[str, ...] = ()


class Part(ABC):
    """A file, or a range of events of a file, that one worker converts.

    Attributes:
        name: Name for messages, such as `train/batch_1.parquet`.
        batch: Number of the competition's batch.
        num_pulses: Number of pulses, None if not known before. It may be wrong for
            parts of one file, but their sum is checked.
        for_threads: Whether reading releases the interpreter most of the time.
        file: Path of the file, if the part is a range of events; otherwise "".
    """

    name: str
    batch: int | None = None
    num_pulses: int | None = None
    for_threads: ClassVar[bool] = False
    file: ClassVar[str] = ""

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that change if the read data change."""
        return fingerprint_of_fields(self)

    @abstractmethod
    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield whole events in chunks of at most `max_pulses` pulses or one event.

        Raises:
            ValueError: The file is damaged or contradicts itself; the message names the
                row.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """Input of `prepare`.

    Args:
        kind: Format, a key of `FORMATS`, or `frames`.
        pulse_map: Meaning of the columns.
        parts: Parts in the order of the events.
        pulse_columns: Pulse columns to read.
        left_out: Columns of the files that are not read.
        tables: Texts on the tables that are read.
        geometry: DOMs of the user, or a file of them; None for IceCube-86.
        ice: Ice table of the user; None for IceCube's.
        notes: Texts on repairs and omissions.
        detector: Detector that the user named, or None.
        event_list: Event numbers to read, ascending; None for all.
        photons: Function that makes pulses of the photons of a chunk, or None (see
            `PhotonResponse`).
        mask: Function that removes pulses of a chunk, or None (see `StringMask`).
    """

    kind: str
    pulse_map: PulseMap
    parts: Sequence[Part]
    pulse_columns: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    geometry: Path | DetectorGeometry | None = None
    ice: Path | None = None
    notes: tuple[str, ...] = ()
    detector: Detector | None = None
    event_list: NDArray[np.int64] | None = None
    photons: Callable[[EventChunk, PulseMap], EventChunk] | None = None
    mask: Callable[[EventChunk, Source], EventChunk] | None = None

    def chunk_to_convert(self, chunk: EventChunk) -> EventChunk:
        """Return the wanted events and pulses of a chunk, pulses instead of photons."""
        if self.event_list is not None:
            chunk = _kept_events(chunk, np.isin(chunk.event_id, self.event_list))
        if self.photons is not None:
            chunk = self.photons(chunk, self.pulse_map)
        return chunk if self.mask is None else self.mask(chunk, self)

    def modules(self) -> DetectorGeometry:
        """Return the DOMs of the user's table, or those of IceCube-86."""
        if self.geometry is None:
            return DetectorGeometry.icecube86()
        if isinstance(self.geometry, DetectorGeometry):
            return self.geometry
        return DetectorGeometry.from_file(self.geometry)


def _kept_events(chunk: EventChunk, keep_B: NDArray[np.bool_]) -> EventChunk:
    """Return some events of a chunk."""
    if keep_B.all():
        return chunk
    length_B = np.diff(chunk.offsets)
    keep_T = np.repeat(keep_B, length_B)
    return replace(
        chunk,
        columns={name: np.asarray(v)[keep_T] for name, v in chunk.columns.items()},
        offsets=np.append(0, np.cumsum(length_B[keep_B])),
        event_id=chunk.event_id[keep_B],
        truth={name: values[keep_B] for name, values in chunk.truth.items()},
        first_row=None,
    )


def fingerprint_of_fields(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values, with fingerprints of files.

    Notes are left out: what is read does not depend on sentences for the user.
    """

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

    return {
        item.name: plain(getattr(instance, item.name))
        for item in fields(instance)
        if item.name != "notes"
    }


def file_fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, size and time of change of a file."""
    stat = os.stat(path)
    return {
        "file": os.path.abspath(path),
        "bytes": stat.st_size,
        "changed": stat.st_mtime_ns,
    }


def chunk_borders(offsets: NDArray[np.int64], max_pulses: int) -> Iterator[slice]:
    """Yield chunks of events with at most `max_pulses` pulses, or of one event."""
    event, num_events = 0, len(offsets) - 1
    while event < num_events:
        limit = offsets[event] + max_pulses
        stop = int(np.searchsorted(offsets, limit, side="right")) - 1
        stop = min(max(stop, event + 1), num_events)
        yield slice(event, stop)
        event = stop


def describe_ids(event_id: NDArray[np.int64]) -> str:
    """Return a text with the number of event_ids and the first few, for messages."""
    few = ", ".join(str(number) for number in event_id[:5])
    if len(event_id) == 1:
        return f"event {few}"
    return f"{len(event_id)} events ({few}{', ...' if len(event_id) > 5 else ''})"
