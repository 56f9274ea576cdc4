"""The manifest of an event store: its content, version and checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import from_plain
from graphnet_icecube2nd.conventions import TIME_ORIGIN
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.files import read_json, write_json

FORMAT = "icecube2nd event store"
VERSION = 1
MANIFEST = "manifest.json"
SHARDS = "shards"  # folder of the shards, each a folder of two tables
PULSES_FILE = "pulses.arrow"
EVENTS_FILE = "events.arrow"
GEOMETRY_FILE = "geometry.csv"  # only with a geometry of the user
ICE_FILE = "ice.csv"

# Columns of the table of events that are not truth.
EVENT_ID = "event_id"
FIRST_PULSE = "first_pulse"  # row of the event's first pulse in its shard
N_PULSES = "n_pulses"
# For events whose pulses were dropped because one is bad: the fault and their number.
PULSE_FAULT, NUM_LEFT_OUT = "pulse_fault", "num_pulses_left_out"
RESERVED = (EVENT_ID, FIRST_PULSE, N_PULSES, TIME_ORIGIN, PULSE_FAULT, NUM_LEFT_OUT)

# icetray's tables of weights; their columns are truth, with the table's name before.
WEIGHT_TABLES = ("I3MCWeightDict", "CorsikaWeightMap", "PolyplopiaPrimary")

MEND = "copy the store again, or prepare the data again"  # advice after damage


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """Entry of the manifest for one shard.

    Args:
        name: Name of its folder in `shards/`.
        source: File, or part of a file, from which it was made.
        batch: Number of the competition's batch.
        num_events: Number of events, including those without pulses.
        num_pulses: Number of pulses.
        num_empty: Number of events without pulses.
        first_id: Smallest event_id; 0 if there is no event.
        last_id: Largest event_id; -1 if there is no event.
        files: `bytes` and `sha256` by file name.
        file: Path of the source's file, if the source is a part of a file.

    Raises:
        ValueError: A value is not allowed.
    """

    name: str
    source: str
    batch: int | None
    num_events: int
    num_pulses: int
    num_empty: int
    first_id: int
    last_id: int
    files: dict[str, dict[str, Any]]
    file: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name must be a name of a folder, got {self.name!r}")
        counts = self.num_events, self.num_pulses, self.num_empty
        if min(counts) < 0 or self.num_empty > self.num_events:
            raise ValueError(
                "num_events, num_pulses and num_empty must be 0 or more, and num_empty "
                f"at most num_events, got {counts}"
            )
        _check_files("files", self.files, (PULSES_FILE, EVENTS_FILE))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of an event store.

    Args:
        pulse_map: Meaning of the pulse columns, including the angle convention.
        pulse_columns: Numpy type of each pulse column.
        event_columns: Arrow type of each column of the table of events.
        shards: The shards, in the order of the events.
        kind: Format of the source: `kaggle`, `graphnet-sqlite`, ...
        tables: `bytes` and `sha256` of the user's DOM and ice tables by file name.
        notes: Texts on repairs and omissions.
        detector: `Detector.to_dict` of the named detector, or None.
        software: Version of this package that wrote the store.
        created: Time of writing, ISO 8601, UTC.

    Raises:
        ValueError: A value is not allowed.
    """

    pulse_map: PulseMap
    pulse_columns: dict[str, str]
    event_columns: dict[str, str]
    shards: tuple[ShardRecord, ...]
    kind: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    detector: dict[str, Any] | None = None
    software: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        _check_files("tables", self.tables, (GEOMETRY_FILE, ICE_FILE))
        names = [shard.name for shard in self.shards]
        if len(set(names)) < len(names):
            raise ValueError("shards: names must be different")
        for shard in self.shards:
            for name in (PULSES_FILE, EVENTS_FILE):
                if name not in shard.files:
                    raise ValueError(f"shards: {shard.name} has no {name}")
        for needed in (EVENT_ID, FIRST_PULSE, N_PULSES):
            if needed not in self.event_columns:
                raise ValueError(f"event_columns.{needed} must be given")

    @property
    def num_events(self) -> int:
        """Number of events, including those without pulses."""
        return sum(shard.num_events for shard in self.shards)

    @property
    def num_pulses(self) -> int:
        """Number of pulses."""
        return sum(shard.num_pulses for shard in self.shards)

    @property
    def num_empty(self) -> int:
        """Number of events without pulses, which are never part of a batch."""
        return sum(shard.num_empty for shard in self.shards)

    def digest(self) -> str:
        """Return a checksum of the data, which does not depend on the date or notes."""
        shards = [(r.name, r.num_events, r.files) for r in self.shards]
        read: list[Any] = [shards, self.pulse_map.to_dict(), self.tables]
        if self.detector is not None:
            read.append(self.detector)
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write it, completely or not at all."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "num_events": self.num_events,
            "num_pulses": self.num_pulses,
            **asdict(self),
            "pulse_map": self.pulse_map.to_dict(),
        }
        write_json(folder / MANIFEST, content)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a store.

        Raises:
            ValueError: The file is not a manifest, has another version or is damaged.
        """
        path = folder / MANIFEST
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise ValueError(f"{path} is not the manifest of an event store")
        if content.get("version") != VERSION:
            raise ValueError(
                f"{path}: the version of the store must be {VERSION}, found "
                f"{content.get('version')!r}. Prepare the data again, or use release "
                f"{content.get('software') or 'that wrote it'}"
            )
        try:
            names = [entry.name for entry in fields(cls)]
            known = {name: content[name] for name in names if name in content}
            known["pulse_map"] = PulseMap.from_dict(content.get("pulse_map", {}))
            manifest = from_plain(cls, known)
            for name in ("num_events", "num_pulses"):
                if content.get(name) != (found := getattr(manifest, name)):
                    said = content.get(name)
                    raise ValueError(f"{name} is {said!r}, but its shards have {found}")
            return manifest
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error} ({MEND})") from None


def _check_files(
    where: str, files: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]
) -> None:
    """Check the entries of files in a manifest: names, sizes and checksums."""
    for name, said in files.items():
        if name not in names:
            raise ValueError(f"{where}.{name} must be {' or '.join(names)}")
        size, digest = said.get("bytes"), said.get("sha256")
        if type(size) is not int or size < 0:
            raise ValueError(f"{where}.{name}.bytes must be a size, got {size!r}")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(
                f"{where}.{name}.sha256 must be a checksum, got {digest!r}"
            )
