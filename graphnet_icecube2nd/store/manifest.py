"""The manifest of an event store: what is in it, of which version, how to check it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.files import write_whole

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
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
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
            known["pulse_map"] = PulseMap.from_dict(content["pulse_map"])
            known["shards"] = tuple(ShardRecord(**s) for s in content["shards"])
            known["notes"] = tuple(content["notes"])
            return cls(**known)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error!r}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all, also where the power fails."""
    with write_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
