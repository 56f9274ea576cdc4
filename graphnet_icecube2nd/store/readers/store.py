"""An event store as a source, for a store of a part of it.

Shape letters: B events, T pulses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphnet_icecube2nd.conventions import TIME_ORIGIN
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, ICE_FILE, N_PULSES, RESERVED
from graphnet_icecube2nd.store.readers.columns import PathLike
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    Source,
    chunk_borders,
)


def store_source(path: PathLike, *, truth: bool = True, **options: Any) -> Source:
    """Open a store as a source; its detector and the meaning of its columns stay.

    Args:
        path: Folder of the store.
        truth: Whether truth is read.
        **options: Options of other readers, none of which may be given.

    Raises:
        ValueError: An option is given, or the store is damaged.
    """
    if given := [name for name, value in options.items() if value]:
        raise ValueError(
            f"{path} is a store, which knows its detector and the meaning of its "
            f"columns: leave {', '.join(given)} out (--detector, --pulse-map, --column)"
        )
    store = EventStore(path)
    parts = [
        StorePart(
            path=Path(path),
            shard=number,
            name=str(shard.folder),
            batch=shard.record.batch,
            num_pulses=shard.record.num_pulses,
            with_truth=truth,
        )
        for number, shard in enumerate(store.shards)
    ]
    has_ice = ICE_FILE in store.manifest.tables
    return Source(
        kind="store",
        pulse_map=store.pulse_map,
        parts=parts,
        pulse_columns=store.pulse_columns,
        left_out=tuple(name for name in RESERVED[4:] if name in store.event_columns),
        geometry=store.geometry if store.has_own_geometry else None,
        ice=store.path / ICE_FILE if has_ice else None,
        notes=store.manifest.notes,
        detector=store.detector if store.manifest.detector else None,
    )


@dataclass(frozen=True, kw_only=True)
class StorePart(Part):
    """A shard of a store."""

    for_threads: ClassVar[bool] = True
    path: Path
    shard: int
    name: str
    batch: int | None
    num_pulses: int
    with_truth: bool

    def fingerprint(self) -> dict[str, Any]:
        """Return the checksums of the shard's tables."""
        return dict(EventStore(self.path).shards[self.shard].record.files)

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield whole events in chunks of at most `max_pulses` pulses or one event."""
        store = EventStore(self.path)
        shard, time = store.shards[self.shard], store.pulse_map.time
        offsets = np.append(0, np.cumsum(store.lengths(self.shard), dtype=np.int64))
        truth = [name for name in store.truth_columns if self.with_truth]
        for events in chunk_borders(offsets, max_pulses):
            first, last = int(offsets[events.start]), int(offsets[events.stop])
            columns = {
                name: np.array(shard.pulses.column(name)[first:last])
                for name in store.pulse_columns
            }
            if TIME_ORIGIN in store.event_columns:  # the clock may begin elsewhere
                zero_B = shard.events.column(TIME_ORIGIN)[events]
                length_B = shard.events.column(N_PULSES)[events]
                times = columns[time].astype(np.float64)
                if zero_B.dtype.kind == "i":  # ns since 1970 need integers
                    times = np.rint(times).astype(np.int64)
                columns[time] = times + np.repeat(zero_B, length_B)
            yield EventChunk(
                columns=columns,
                offsets=offsets[events.start : events.stop + 1] - first,
                event_id=np.array(shard.events.column(EVENT_ID)[events]),
                truth={
                    name: np.array(shard.events.column(name)[events]) for name in truth
                },
            )
