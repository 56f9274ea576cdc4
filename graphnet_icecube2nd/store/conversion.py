"""A source into a store: part by part, in parallel, to be killed and continued.

A part's shards are renamed into place when they are whole, and a note of the part is
written when all its shards are there. The manifest comes last; a folder without one is
no store yet, and converting again takes up where it ended. Shape letters: B events.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.files import LOCK_FILE, locked_folder
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.store.duplicates import check_unique_events
from graphnet_icecube2nd.store.manifest import (
    FIRST_PULSE,
    GEOMETRY_FILE,
    ICE_FILE,
    MANIFEST,
    SHARDS,
    Manifest,
    ShardRecord,
    write_json,
)
from graphnet_icecube2nd.store.part_conversion import PartTask, Progress, convert_parts
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.version import __version__

PLAN_FILE = "conversion.json"
SHARD_PULSES = 2**23
VERSION = 1


def convert(
    source: Source,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    shard_pulses: int = SHARD_PULSES,
    sort_pulses: bool = True,
    on_progress: Progress | None = None,
) -> Manifest:
    """Convert a source of events into an event store; see `prepare` for the arguments.

    An earlier conversion of the same source that did not finish is continued. A shard
    has `shard_pulses` at most, unless one event has more; what a process holds in
    memory grows with it (about 25 bytes a pulse).
    """
    for name, value in (("workers", workers), ("shard_pulses", shard_pulses)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    folder = Path(out)
    plan = _plan(source, shard_pulses, sort_pulses)
    with locked_folder(folder, "a store"):
        _begin(folder, plan)
        # The table of DOMs is read once, not for each part.
        modules = _copy_tables(source, folder)
        tasks = [
            PartTask(
                number=number,
                part=part,
                source=replace(source, geometry=modules),
                folder=folder,
                shard_pulses=shard_pulses,
                sort_pulses=sort_pulses,
            )
            for number, part in enumerate(source.parts)
        ]
        notes = convert_parts(tasks, workers or available_cores(), on_progress)
        return _finish(source, folder, tasks, notes)


def available_cores() -> int:
    """Return how many cores this process may use, which a batch system may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _plan(source: Source, shard_pulses: int, sort_pulses: bool) -> dict[str, Any]:
    """Return what must be the same for a conversion to be continued."""
    return {
        "version": VERSION,
        "kind": source.kind,
        "pulse_map": source.pulse_map.to_dict(),
        "pulse_columns": list(source.pulse_columns),
        "shard_pulses": shard_pulses,
        "sort_pulses": sort_pulses,
        "tables": [table_digest(table) for table in (source.geometry, source.ice)],
        **({} if source.detector is None else {"detector": source.detector.to_dict()}),
        "parts": [[part.name, part.fingerprint()] for part in source.parts],
    }


def table_digest(table: Path | DetectorGeometry | None) -> str | None:
    """Return a checksum of a user's table; None of none."""
    if isinstance(table, DetectorGeometry):
        parts = (table.position_S3, table.string_S, table.rde_S)
        content = b"".join(part.numpy().tobytes() for part in parts)
        return hashlib.sha256(content).hexdigest()
    return None if table is None else sha256_of(table)


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """See that a folder may be written to, and note what is being converted."""
    path = folder / PLAN_FILE
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} is an event store already; choose another folder")
    if path.exists():
        # as JSON brings it back: tuples become lists
        if json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(plan)):
            raise ValueError(
                f"{folder} holds an unfinished conversion of other files, or of files "
                "that changed, or with other options. Remove it, or choose another "
                "folder"
            )
        return
    ours = (LOCK_FILE, f".{PLAN_FILE}.tmp")  # the latter of a kill at the very start
    strangers = [entry.name for entry in folder.iterdir() if entry.name not in ours]
    if strangers:
        raise ValueError(
            f"{folder} is not empty ({', '.join(sorted(strangers)[:3])}); choose "
            "another folder"
        )
    write_json(path, plan)


def _copy_tables(source: Source, folder: Path) -> DetectorGeometry | None:
    """Copy the user's tables of DOMs and ice once they were read; return the DOMs."""
    geometry = source.geometry
    if isinstance(geometry, DetectorGeometry):
        geometry.to_csv(folder / GEOMETRY_FILE)
    elif geometry is not None:
        path, geometry = geometry, DetectorGeometry.from_csv(geometry)
        shutil.copyfile(path, folder / GEOMETRY_FILE)
    if source.ice is not None:
        IceModel.from_file(source.ice)
        shutil.copyfile(source.ice, folder / ICE_FILE)
    return geometry


def _finish(
    source: Source, folder: Path, tasks: list[PartTask], notes: list[dict[str, Any]]
) -> Manifest:
    shards = [ShardRecord(**shard) for note in notes for shard in note["shards"]]
    if not shards:
        raise ValueError("there is no event in the input")
    announced = [part.num_pulses for part in source.parts]
    num_read = sum(shard.num_pulses for shard in shards)
    if None not in announced and sum(filter(None, announced)) != num_read:
        raise ValueError(
            f"the files announced {sum(filter(None, announced))} pulses, but "
            f"{num_read} were read; did a file change meanwhile?"
        )
    pulse_types, event_types = _same_types(tasks, notes)
    check_unique_events([folder / SHARDS / shard.name for shard in shards], shards)
    texts = [*source.notes, *(text for note in notes for text in note["notes"])]
    if num_sorted := sum(note["num_sorted"] for note in notes):
        texts.append(
            f"the pulses of {num_sorted} events were not in the order of time; they "
            "were put in order"
        )
    if num_odd := sum(note["num_odd_angles"] for note in notes):
        labels = source.pulse_map.labels
        texts.append(
            f"{labels.zenith} or {labels.azimuth} of {num_odd} events is no angle of a "
            "direction (zeniths are 0 to pi); kept as it is. Train without: "
            f"{labels.zenith} >= 0"
        )
    manifest = Manifest(
        pulse_map=source.pulse_map,
        pulse_columns=pulse_types,
        event_columns={**event_types, FIRST_PULSE: "int64"},
        shards=tuple(shards),
        kind=source.kind,
        notes=tuple(texts),
        tables={
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in (folder / GEOMETRY_FILE, folder / ICE_FILE)
            if path.exists()
        },
        detector=None if source.detector is None else source.detector.to_dict(),
        software=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    manifest.save(folder)
    for task in tasks:
        task.note_file.unlink(missing_ok=True)
    (folder / PLAN_FILE).unlink(missing_ok=True)
    return manifest


def _same_types(
    tasks: list[PartTask], notes: list[dict[str, Any]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the types of the columns, which all parts must agree on."""
    pairs = zip(tasks, notes, strict=True)
    # An empty part has no types.
    typed = [(task.part.name, n["types"]) for task, n in pairs if n["types"]]
    first_name, first = typed[0]
    for name, types in typed[1:]:
        for kind, ours, theirs in zip(("pulse", "truth"), first, types, strict=True):
            if ours != theirs:
                differing = sorted(set(ours.items()) ^ set(theirs.items()))
                raise ValueError(
                    f"{first_name} and {name} have different {kind} columns: "
                    f"{', '.join(f'{column} ({type_})' for column, type_ in differing)}"
                )
    pulse_types, event_types = first
    return pulse_types, event_types
