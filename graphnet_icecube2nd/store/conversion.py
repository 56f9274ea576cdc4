"""Conversion of a source to a store: part by part, in parallel, resumable.

Shards get their names when they are complete, and a note is written when all shards of
a part exist. The manifest is written last. A folder without a manifest is not a store
yet; the next conversion continues it. Shape letters: B events.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.events.events import untriggered_note
from graphnet_icecube2nd.files import (
    copy_whole,
    foreign_entries,
    holds_json,
    locked_folder,
    read_json,
    remove_leftovers,
    write_json,
)
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.store.arrow_table import MappedTable, sha256_of
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    EVENTS_FILE,
    FIRST_PULSE,
    GEOMETRY_FILE,
    ICE_FILE,
    MANIFEST,
    SHARDS,
    Manifest,
    ShardRecord,
)
from graphnet_icecube2nd.store.readers.source import Part, Source
from graphnet_icecube2nd.store.shard_writer import (
    ERROR,
    MARK,
    ChunkCleaner,
    ShardWriter,
)
from graphnet_icecube2nd.version import __version__

PLAN_FILE = "conversion.json"
SHARD_PULSES = 2**23
CHUNK_PULSES = 2**20
IDS_AT_ONCE = 2**23  # event_ids compared at once, 64 MB
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """Everything that a worker needs to convert a part."""

    number: int
    part: Part
    source: Source
    folder: Path
    shard_pulses: int
    sort_pulses: bool
    bad_pulses: str

    @property
    def label(self) -> str:
        """Prefix of the part's shards."""
        return f"{self.number:05d}"

    @property
    def note_file(self) -> Path:
        """File that is written when the part is done."""
        return self.folder / f"part-{self.label}.json"


def convert(
    source: Source,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    shard_pulses: int = SHARD_PULSES,
    sort_pulses: bool = True,
    bad_pulses: str = ERROR,
    on_progress: Progress | None = None,
) -> Manifest:
    """Convert a source of events to an event store, or continue a conversion.

    Args:
        source: The source.
        out: Folder of the store, new or empty.
        workers: Number of parts that are converted at once, see `prepare`.
        shard_pulses: Maximum pulses per shard, unless one event has more. A process
            needs about 25 bytes of memory per pulse of a shard.
        sort_pulses: Whether the pulses of an event are sorted by time.
        bad_pulses: Rule for bad pulses, one of `BAD_PULSES`.
        on_progress: Function called with the numbers of new events and pulses.

    Raises:
        ValueError: An argument or a value of a file is not allowed; see `prepare`.
    """
    for name, value in (("workers", workers), ("shard_pulses", shard_pulses)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    folder = Path(out)
    plan = _plan(source, shard_pulses, sort_pulses, bad_pulses)
    with locked_folder(folder, "a store"):
        _begin(folder, plan)
        # The table of DOMs is read only once.
        modules = _copy_tables(source, folder)
        tasks = [
            PartTask(
                number=number,
                part=part,
                # Without the parts, which would be sent with each task.
                source=replace(source, geometry=modules, parts=()),
                folder=folder,
                shard_pulses=shard_pulses,
                sort_pulses=sort_pulses,
                bad_pulses=bad_pulses,
            )
            for number, part in enumerate(source.parts)
        ]
        notes = convert_parts(tasks, workers or available_cores(), on_progress)
        return _finish(source, folder, tasks, notes)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _plan(
    source: Source, shard_pulses: int, sort_pulses: bool, bad_pulses: str
) -> dict[str, Any]:
    """Return everything that must be the same to continue a conversion."""
    return {
        "version": VERSION,
        "kind": source.kind,
        "pulse_map": source.pulse_map.to_dict(),
        "pulse_columns": list(source.pulse_columns),
        "shard_pulses": shard_pulses,
        "sort_pulses": sort_pulses,
        **({} if bad_pulses == ERROR else {"bad_pulses": bad_pulses}),
        "tables": [table_digest(table) for table in (source.geometry, source.ice)],
        **({} if source.detector is None else {"detector": source.detector.to_dict()}),
        **({} if source.photons is None else {"photons": to_plain(source.photons)}),
        **({} if source.mask is None else {"mask": to_plain(source.mask)}),
        **(
            {}
            if source.event_list is None
            else {"event_list": hashlib.sha256(source.event_list.tobytes()).hexdigest()}
        ),
        "parts": [[part.name, part.fingerprint()] for part in source.parts],
    }


def table_digest(table: Path | DetectorGeometry | None) -> str | None:
    """Return a checksum of a user's table, or None if there is none."""
    if isinstance(table, DetectorGeometry):
        parts = (
            *(table.position_S3, table.string_S, table.rde_S),
            *([] if (pmts := table.pmt_direction_SP3) is None else [pmts]),
        )
        content = b"".join(part.numpy().tobytes() for part in parts)
        return hashlib.sha256(content).hexdigest()
    return None if table is None else sha256_of(table)


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Check that the folder can be used, and write the plan of the conversion."""
    path = folder / PLAN_FILE
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} is already an event store; choose another folder")
    if path.exists():
        without = {name: value for name, value in plan.items() if name != "bad_pulses"}
        if len(without) < len(plan) and holds_json(path, without):
            # A bad pulse stopped the conversion, and its error advised this option.
            shutil.rmtree(folder / SHARDS, ignore_errors=True)
            for note in folder.glob("part-*.json"):
                note.unlink()
            write_json(path, plan)
        elif _is_without_parts(folder):  # refused at once: the files are corrected now
            for table in (GEOMETRY_FILE, ICE_FILE):
                (folder / table).unlink(missing_ok=True)
            write_json(path, plan)
        elif not holds_json(path, plan):
            raise ValueError(
                f"{folder} has an unfinished conversion of other files, of files that "
                "have changed, with other options, or of another release. Remove it, "
                "or choose another folder"
            )
        return
    if others := foreign_entries(folder):
        raise ValueError(
            f"{folder} is not empty ({', '.join(others[:3])}); choose another folder"
        )
    write_json(path, plan)


def _is_without_parts(folder: Path) -> bool:
    """Return whether a conversion that began in a folder has written no shard."""
    shards = folder / SHARDS
    ours = (PLAN_FILE, SHARDS, GEOMETRY_FILE, ICE_FILE)
    if foreign_entries(folder, *ours) or (shards.is_dir() and foreign_entries(shards)):
        return False
    return b'"pulse_columns"' in (folder / PLAN_FILE).read_bytes()


def _copy_tables(source: Source, folder: Path) -> DetectorGeometry | None:
    """Check and write the user's tables of DOMs and ice; return the DOMs."""
    geometry = source.geometry
    if isinstance(geometry, Path):
        geometry = DetectorGeometry.from_file(geometry)
    if geometry is not None:
        geometry.to_csv(folder / GEOMETRY_FILE)  # csv for any format of the user's file
    if source.ice is not None:
        IceModel.from_file(source.ice)
        copy_whole(source.ice, folder / ICE_FILE)
    return geometry


def convert_parts(
    tasks: list[PartTask], workers: int, on_progress: Progress | None
) -> list[dict[str, Any]]:
    """Convert the parts that are not done; return the notes of all parts, in order."""
    open_tasks = []
    for task in tasks:
        if task.note_file.exists():
            done = read_json(task.note_file)
            if on_progress is not None:
                on_progress(done["num_events"], done["num_pulses"])
        else:
            open_tasks.append(task)
    workers = min(workers, len(open_tasks))
    if workers <= 1:
        for task in open_tasks:
            convert_part(task, on_progress)
    else:
        _convert_at_once(open_tasks, workers, on_progress)
    return [read_json(task.note_file) for task in tasks]


def _convert_at_once(
    tasks: list[PartTask], workers: int, on_progress: Progress | None
) -> None:
    """Convert parts in threads if all readers allow it, otherwise in processes.

    Processes need seconds to start, because each imports PyTorch.
    """
    # Spawned, because pyarrow's threads do not survive a fork.
    context = get_context("spawn")
    counters = context.Value("q", 0), context.Value("q", 0), context.Value("b", 0)
    events, pulses, stopped = counters
    before = 0, 0

    def report() -> None:
        nonlocal before
        now = events.value, pulses.value
        if on_progress is not None and now != before:
            on_progress(now[0] - before[0], now[1] - before[1])
        before = now

    pool: Executor
    if all(task.part.for_threads for task in tasks):
        pool = ThreadPoolExecutor(
            workers, initializer=_counters.set, initargs=(counters,)
        )
    else:
        pool = ProcessPoolExecutor(workers, context, _begin_process, (counters,))
    with pool:
        running = {pool.submit(_convert_counted, task) for task in tasks}
        try:
            while running:
                done, running = wait(running, 0.2, return_when=FIRST_COMPLETED)
                report()
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise OSError(
                "a process of the conversion ended early. If memory was short, run it "
                "again with fewer workers; finished parts are kept. If a script calls "
                "it at its top level, which each process runs again, put the call "
                "under `if __name__ == '__main__':` or use workers=1"
            ) from None
        except BaseException:
            stopped.value = 1
            pool.shutdown(cancel_futures=True)
            raise
    report()


# Counters that the workers of one conversion share: events, pulses, whether to stop.
_counters: ContextVar[tuple[Any, ...]] = ContextVar("counters")


def _begin_process(counters: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _counters.set(counters)


def _end_with_parent() -> None:
    """End this process when its parent ends, so that it does not disturb the next."""
    parent = parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _convert_counted(task: PartTask) -> None:
    *totals, stopped = _counters.get()

    def count(*numbers: int) -> None:
        if stopped.value:
            raise InterruptedError(
                f"{task.part.name}: another part cannot be converted"
            )
        for counter, number in zip(totals, numbers, strict=True):
            with counter.get_lock():
                counter.value += number

    convert_part(task, count)


def convert_part(task: PartTask, on_progress: Progress | None = None) -> None:
    """Convert one part, and write its note."""
    source, part = task.source, task.part
    geometry = source.modules()
    cleaner = ChunkCleaner(
        source.pulse_map,
        geometry,
        source.pulse_columns,
        task.sort_pulses,
        task.bad_pulses,
    )
    writer = ShardWriter(
        task.folder / SHARDS,
        task.label,
        part.name,
        part.batch,
        task.shard_pulses,
        part.file,
    )
    notes: list[str] = []
    num_changed = 0  # pulses of events that are not wanted, and photons without a pulse
    for chunk in part.chunks(min(CHUNK_PULSES, task.shard_pulses)):
        num_events, num_read = len(chunk.event_id), int(chunk.offsets[-1])
        notes.extend(chunk.notes)
        chunk = source.chunk_to_convert(chunk)
        num_changed += num_read - int(chunk.offsets[-1])
        if len(chunk.event_id):
            writer.add(*cleaner.clean(chunk, part.name))
        if on_progress is not None:
            on_progress(num_events, num_read)
    writer.close_shard()
    num_pulses = sum(record.num_pulses for record in writer.records)
    write_json(
        task.note_file,
        {
            "shards": [asdict(record) for record in writer.records],
            "types": writer.types,
            "notes": notes,
            "num_sorted": cleaner.num_sorted,
            "num_odd_angles": cleaner.num_odd_angles,
            "num_unknown_rde": cleaner.num_unknown_rde,
            "num_untriggered": cleaner.num_untriggered,
            "num_left_out": cleaner.num_left_out,
            "num_changed": num_changed,
            "faults": cleaner.faults,
            "first_fault": cleaner.first_fault,
            "num_events": sum(record.num_events for record in writer.records),
            "num_pulses": num_pulses,
        },
    )


def _finish(
    source: Source, folder: Path, tasks: list[PartTask], notes: list[dict[str, Any]]
) -> Manifest:
    shards = [ShardRecord(**shard) for note in notes for shard in note["shards"]]
    if not shards:
        raise ValueError("the input must have at least one event, found none")
    announced = [part.num_pulses for part in source.parts]
    num_left_out = sum(note["num_left_out"] for note in notes)
    num_changed = sum(note.get("num_changed", 0) for note in notes)
    num_pulses = sum(shard.num_pulses for shard in shards) + num_left_out
    num_read = num_pulses + num_changed
    if None not in announced and sum(filter(None, announced)) != num_read:
        raise ValueError(
            f"the files must have {sum(filter(None, announced))} pulses, found "
            f"{num_read}. Prepare again if a file has changed during the conversion"
        )
    pulse_types, event_types = _same_types(tasks, notes)
    check_unique_events(folder / SHARDS, shards)
    texts = [*source.notes, *(text for note in notes for text in note["notes"])]
    if source.event_list is not None:
        num_events = sum(shard.num_events for shard in shards)
        texts.append(
            f"{num_events:,} of {len(source.event_list):,} events of the list were in "
            "the files"
        )
    if source.photons is not None:
        options = ", ".join(f"{n} {v}" for n, v in to_plain(source.photons).items())
        texts.append(f"{num_pulses:,} pulses were made of photons ({options})")
    if num_sorted := sum(note["num_sorted"] for note in notes):
        texts.append(
            f"the pulses of {num_sorted} events were not in order of time; they were "
            "sorted"
        )
    if num_left_out:
        texts.append(_faults_note(tasks[0].bad_pulses == MARK, num_left_out, notes))
    if num_unknown := sum(note["num_unknown_rde"] for note in notes):
        texts.append(
            f"{source.pulse_map.rde} of {num_unknown} pulses is not above 0; that of "
            "the DOM is used"
        )
    if num_untriggered := sum(note.get("num_untriggered", 0) for note in notes):
        texts.append(untriggered_note(num_untriggered))
    if num_odd := sum(note["num_odd_angles"] for note in notes):
        labels = source.pulse_map.labels
        texts.append(
            f"{labels.zenith} or {labels.azimuth} of {num_odd} events is impossible "
            "(zeniths are 0 to pi); it is kept. Select events for training with "
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
    for written in (folder, folder / SHARDS):
        remove_leftovers(written)
    for task in tasks:
        task.note_file.unlink(missing_ok=True)
    (folder / PLAN_FILE).unlink(missing_ok=True)
    return manifest


def _faults_note(
    is_marked: bool, num_left_out: int, notes: Sequence[dict[str, Any]]
) -> str:
    """Return a text on the bad pulses: their number, the faults, and the first one."""
    faults: Counter[str] = Counter()
    for note in notes:
        faults.update(note["faults"])
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in faults.items())
    what = f"{num_left_out:,} bad pulses were left out"
    if is_marked:
        what = f"{faults.total():,} events have bad pulses and no answer"
    (first, *_) = filter(None, (note["first_fault"] for note in notes))
    return f"{what} ({reasons}); the first: {first}"


def _same_types(
    tasks: list[PartTask], notes: list[dict[str, Any]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the types of the columns; ValueError if two parts differ."""
    pairs = zip(tasks, notes, strict=True)
    # An empty part has no types.
    typed = [(task.part.name, n["types"]) for task, n in pairs if n["types"]]
    first_name, first = typed[0]
    for name, types in typed[1:]:
        for kind, ours, theirs in zip(("pulse", "truth"), first, types, strict=True):
            if ours != theirs:
                differing = sorted(set(ours.items()) ^ set(theirs.items()))
                raise ValueError(
                    f"{kind} columns must be the same in all files, but differ between "
                    f"{first_name} and {name}: "
                    f"{', '.join(f'{column} ({type_})' for column, type_ in differing)}"
                )
    pulse_types, event_types = first
    return pulse_types, event_types


def check_unique_events(
    folder: Path, shards: Sequence[ShardRecord], ids_at_once: int = IDS_AT_ONCE
) -> None:
    """Check that every event_id is only once in the shards of a folder.

    Only shards whose ranges of ids overlap are compared. This is done by the remainder
    of the ids, so that not more than `ids_at_once` are in memory.

    Raises:
        ValueError: An event_id is there twice.
    """

    def ids_of(shard: ShardRecord) -> NDArray[np.int64]:
        return MappedTable(folder / shard.name / EVENTS_FILE).column(EVENT_ID)

    for cluster in _overlapping(shards):
        num_events = sum(shard.num_events for shard in cluster)
        classes = max(1, -(-num_events // ids_at_once))
        for remainder in range(classes):
            pieces = [ids[ids % classes == remainder] for ids in map(ids_of, cluster)]
            ids = np.sort(np.concatenate(pieces))
            twice = ids[1:][ids[1:] == ids[:-1]]
            if not len(twice):
                continue
            before, num_given = dict[str, int](), Counter[str]()
            for shard in shards:
                before[shard.name] = num_given[shard.source]
                num_given[shard.source] += shard.num_events
            places = [
                f"{shard.source}, event {before[shard.name] + row}"
                for shard in cluster
                for row in np.flatnonzero(ids_of(shard) == twice[0])
            ]
            raise ValueError(
                f"each event_id must be there once, but event {twice[0]} is in "
                f"{' and in '.join(places)} (counted from 0). To number the events of "
                "several SQLite files again, use --duplicates renumber "
                "(duplicates='renumber')"
            )


def _overlapping(shards: Sequence[ShardRecord]) -> list[list[ShardRecord]]:
    """Group shards whose ranges of ids overlap."""
    clusters: list[list[ShardRecord]] = []
    last = 0
    with_events = (shard for shard in shards if shard.num_events)
    for shard in sorted(with_events, key=lambda shard: shard.first_id):
        if clusters and shard.first_id <= last:
            clusters[-1].append(shard)
            last = max(last, shard.last_id)
        else:
            clusters.append([shard])
            last = shard.last_id
    return clusters
