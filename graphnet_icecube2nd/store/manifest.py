"""The manifest of an event store: what is in it, of which version, how to check it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import from_plain
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.files import read_json, write_json

FORMAT = "icecube2nd event store"
VERSION = 1
MANIFEST = "manifest.json"
SHARDS = "shards"  # folder of the shards, each a folder of two tables
PULSES_FILE = "pulses.arrow"
EVENTS_FILE = "events.arrow"
GEOMETRY_FILE = "geometry.csv"  # only with a geometry of the user's
ICE_FILE = "ice.csv"

# Columns of the table of events that are not truth.
EVENT_ID = "event_id"
FIRST_PULSE = "first_pulse"  # where an event's pulses begin in its shard
N_PULSES = "n_pulses"
TIME_ORIGIN = "time_origin"  # what was taken off an event's times, ns
# Of events whose pulses were left out because one of them is bad: why, and how many.
PULSE_FAULT, NUM_LEFT_OUT = "pulse_fault", "num_pulses_left_out"
RESERVED = (EVENT_ID, FIRST_PULSE, N_PULSES, TIME_ORIGIN, PULSE_FAULT, NUM_LEFT_OUT)

MEND = "copy the store again, or prepare the data anew"  # what to do about damage


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the manifest says of one shard."""

    name: str  # its folder below `shards/`
    source: str  # the file it was made of, as the user named it
    batch: int | None  # number of the competition's batch
    num_events: int  # those without pulses included
    num_pulses: int
    num_empty: int  # events without pulses
    first_id: int  # smallest event_id; 0 if there is no event
    last_id: int  # largest event_id; -1 if there is no event
    files: dict[str, dict[str, Any]]  # `bytes` and `sha256` by file name

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name must be that of a folder, got {self.name!r}")
        counts = self.num_events, self.num_pulses, self.num_empty
        if min(counts) < 0 or self.num_empty > self.num_events:
            raise ValueError(f"num_events, num_pulses and num_empty cannot be {counts}")
        _check_files("files", self.files, (PULSES_FILE, EVENTS_FILE))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is in an event store."""

    pulse_map: PulseMap  # what the pulse columns mean, the angle convention included
    pulse_columns: dict[str, str]  # numpy type by column
    event_columns: dict[str, str]  # Arrow type by column of the table of events
    shards: tuple[ShardRecord, ...]  # in the order of the events
    kind: str  # what it was made of: `kaggle`, `graphnet-sqlite`, ...
    # `bytes` and `sha256` by file name of the user's DOM and ice tables
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was repaired, left out or worth knowing
    detector: dict[str, Any] | None = None  # `Detector.to_dict`, if one was named
    software: str = ""  # version of this package that wrote it
    created: str = ""  # ISO 8601, UTC

    def __post_init__(self) -> None:
        _check_files("tables", self.tables, (GEOMETRY_FILE, ICE_FILE))
        names = [shard.name for shard in self.shards]
        if len(set(names)) < len(names):
            raise ValueError("shards: two have one name")
        for shard in self.shards:
            for name in (PULSES_FILE, EVENTS_FILE):
                if name not in shard.files:
                    raise ValueError(f"shards: {shard.name} has no {name}")
        for needed in (EVENT_ID, FIRST_PULSE, N_PULSES):
            if needed not in self.event_columns:
                raise ValueError(f"event_columns.{needed} must be given")

    @property
    def num_events(self) -> int:
        """Events in the store, those without pulses included."""
        return sum(shard.num_events for shard in self.shards)

    @property
    def num_pulses(self) -> int:
        """Pulses in the store."""
        return sum(shard.num_pulses for shard in self.shards)

    @property
    def num_empty(self) -> int:
        """Events without pulses; they are never part of a batch."""
        return sum(shard.num_empty for shard in self.shards)

    def digest(self) -> str:
        """Return a checksum of what is read of the store, whenever it was written."""
        shards = [(r.name, r.num_events, r.files) for r in self.shards]
        read: list[Any] = [shards, self.pulse_map.to_dict(), self.tables]
        if self.detector is not None:
            read.append(self.detector)
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
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
        """Read it; ValueError if it is of another format or version, or damaged."""
        path = folder / MANIFEST
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise ValueError(f"{path} is no manifest of an event store")
        if content.get("version") != VERSION:
            raise ValueError(
                f"{path} is of version {content.get('version')!r} of the store; this "
                f"release reads version {VERSION}. Prepare the data anew, or read it "
                f"with release {content.get('software') or 'that wrote it'}"
            )
        try:
            names = [entry.name for entry in fields(cls)]
            known = {name: content[name] for name in names if name in content}
            known["pulse_map"] = PulseMap.from_dict(content.get("pulse_map", {}))
            manifest = from_plain(cls, known)
            for name in ("num_events", "num_pulses"):
                if content.get(name) != (found := getattr(manifest, name)):
                    said = content.get(name)
                    raise ValueError(f"{name} is {said!r}, its shards have {found}")
            return manifest
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error} ({MEND})") from None


def _check_files(
    where: str, files: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]
) -> None:
    """Check what a manifest says of files: their names, sizes and checksums."""
    for name, said in files.items():
        if name not in names:
            raise ValueError(f"{where}.{name} must be {' or '.join(names)}")
        size, digest = said.get("bytes"), said.get("sha256")
        if type(size) is not int or size < 0:
            raise ValueError(f"{where}.{name}.bytes must be a size, got {size!r}")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{where}.{name}.sha256 must be one, got {digest!r}")
