"""Parts of a source into shards: one after the other, or in several processes."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.store.manifest import SHARDS, write_json
from graphnet_icecube2nd.store.readers.source import Part, Source
from graphnet_icecube2nd.store.shard_writer import ChunkCleaner, ShardWriter

CHUNK_PULSES = 2**20

Progress = Callable[[int, int], None]  # events and pulses since the last call


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """What a process needs to know to convert a part."""

    number: int
    part: Part
    source: Source
    folder: Path
    shard_pulses: int
    sort_pulses: bool

    @property
    def label(self) -> str:
        """Prefix of the part's shards."""
        return f"{self.number:05d}"

    @property
    def note_file(self) -> Path:
        """What is written when the part is done."""
        return self.folder / f"part-{self.label}.json"


def convert_parts(
    tasks: list[PartTask], workers: int, on_progress: Progress | None
) -> list[dict[str, Any]]:
    """Convert what is not done yet; return the notes of all parts, in order."""
    open_tasks = []
    for task in tasks:
        if task.note_file.exists():
            done = json.loads(task.note_file.read_text(encoding="utf-8"))
            if on_progress is not None:
                on_progress(done["num_events"], done["num_pulses"])
        else:
            open_tasks.append(task)
    workers = min(workers, len(open_tasks))
    if workers <= 1:
        for task in open_tasks:
            convert_part(task, on_progress)
    else:
        _convert_in_processes(open_tasks, workers, on_progress)
    return [json.loads(task.note_file.read_text(encoding="utf-8")) for task in tasks]


def _convert_in_processes(
    tasks: list[PartTask], workers: int, on_progress: Progress | None
) -> None:
    # Spawned: pyarrow's threads do not survive a fork.
    context = get_context("spawn")
    events, pulses = context.Value("q", 0), context.Value("q", 0)
    before = 0, 0

    def report() -> None:
        nonlocal before
        now = events.value, pulses.value
        if on_progress is not None and now != before:
            on_progress(now[0] - before[0], now[1] - before[1])
        before = now

    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_share, initargs=(events, pulses)
    ) as pool:
        running = {pool.submit(_convert_shared, task) for task in tasks}
        try:
            while running:
                done, running = wait(running, 0.2, return_when=FIRST_COMPLETED)
                report()
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise OSError(
                "a process of the conversion ended, perhaps killed for want of memory: "
                "what was finished stays, so run the same again with fewer workers. Or "
                "a script calls for it at its top level, which every process runs "
                "again: put the call under `if __name__ == '__main__':`, or say "
                "workers=1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    report()


_shared: list[Any] = []  # counters of a worker process: events, pulses


def _share(events: Any, pulses: Any) -> None:
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _shared[:] = [events, pulses]


def _end_with_parent() -> None:
    """End this process when the one that began it is gone, killed perhaps.

    It would go on writing where the next conversion writes already.
    """
    parent = parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _convert_shared(task: PartTask) -> None:
    def count(num_events: int, num_pulses: int) -> None:
        for counter, number in zip(_shared, (num_events, num_pulses), strict=True):
            with counter.get_lock():
                counter.value += number

    convert_part(task, count)


def convert_part(task: PartTask, on_progress: Progress | None = None) -> None:
    """Convert one part and note that it is done."""
    source, part = task.source, task.part
    geometry = source.modules()
    cleaner = ChunkCleaner(
        source.pulse_map, geometry, source.pulse_columns, task.sort_pulses
    )
    writer = ShardWriter(
        task.folder / SHARDS, task.label, part.name, part.batch, task.shard_pulses
    )
    notes: list[str] = []
    try:
        for chunk in part.chunks(min(CHUNK_PULSES, task.shard_pulses)):
            pulses, events = cleaner.clean(chunk, part.name)
            writer.add(pulses, events)
            notes.extend(chunk.notes)
            if on_progress is not None:
                on_progress(len(chunk.event_id), int(chunk.offsets[-1]))
        writer.close_shard()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"no space left while writing {part.name} to {task.folder}. What was "
            "finished stays: make room and run the same again to go on",
        ) from error
    num_pulses = sum(record.num_pulses for record in writer.records)
    write_json(
        task.note_file,
        {
            "shards": [asdict(record) for record in writer.records],
            "types": writer.types,
            "notes": notes,
            "num_sorted": cleaner.num_sorted,
            "num_odd_angles": cleaner.num_odd_angles,
            "num_events": sum(record.num_events for record in writer.records),
            "num_pulses": num_pulses,
        },
    )
