"""Clean events into the shards of a store.

A shard is a folder of two tables, pulses and events; it is written under a temporary
name and renamed when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.store.arrow_table import write_table
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    EVENTS_FILE,
    FIRST_PULSE,
    N_PULSES,
    PULSES_FILE,
    ShardRecord,
)


class ShardWriter:
    """Collects cleaned chunks and writes a shard when there is enough.

    Args:
        folder: `shards` of the store.
        part_name: Prefix of the shards' names.
        source: The file, as the manifest shall name it.
        batch: Number of the competition's batch, or None.
        shard_pulses: Pulses of a shard at most, if one chunk has no more.
    """

    def __init__(
        self,
        folder: Path,
        part_name: str,
        source: str,
        batch: int | None,
        shard_pulses: int,
    ) -> None:
        self.folder = folder
        self.part_name = part_name
        self.source = source
        self.batch = batch
        self.shard_pulses = shard_pulses
        self.records: list[ShardRecord] = []
        self.types: tuple[dict[str, str], dict[str, str]] | None = None
        self._chunks: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._num_pulses = 0

    def add(self, pulses: dict[str, Any], events: dict[str, Any]) -> None:
        """Take a chunk; before, write a shard if it would become too large."""
        types = (_types(pulses), _types(events))
        if self.types is None:
            self.types = types
        elif types != self.types:
            old, new = (set({**a, **b}.items()) for a, b in (self.types, types))
            differing = ", ".join(
                f"{name} ({kind})" for name, kind in sorted(old ^ new)
            )
            raise ValueError(f"{self.source}: columns change their type: {differing}")
        num_pulses = int(events[N_PULSES].sum())
        if self._num_pulses + num_pulses > self.shard_pulses:
            self.close_shard()
        self._chunks.append((pulses, events))
        self._num_pulses += num_pulses

    def close_shard(self) -> None:
        """Write what was collected."""
        if not self._chunks:
            return
        events = _joined([chunk[1] for chunk in self._chunks])
        n_pulses = events[N_PULSES].astype(np.int64)
        events[FIRST_PULSE] = np.cumsum(n_pulses) - n_pulses
        pulses = _joined([chunk[0] for chunk in self._chunks])
        self._chunks, self._num_pulses = [], 0
        name = f"{self.part_name}-{len(self.records):04d}"
        temporary, final = self.folder / f".{name}.tmp", self.folder / name
        for leftover in (temporary, final):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            files = {
                PULSES_FILE: write_table(temporary / PULSES_FILE, pulses),
                EVENTS_FILE: write_table(temporary / EVENTS_FILE, events),
            }
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        ids = events[EVENT_ID]
        self.records.append(
            ShardRecord(
                name=name,
                source=self.source,
                batch=self.batch,
                num_events=len(ids),
                num_pulses=int(n_pulses.sum()),
                num_empty=int((n_pulses == 0).sum()),
                first_id=int(ids.min()) if len(ids) else 0,
                last_id=int(ids.max()) if len(ids) else -1,
                files=files,
            )
        )


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Join columns chunk by chunk, giving each piece back as soon as it is joined."""
    if len(chunks) == 1:
        return dict(chunks[0])
    joined: dict[str, Any] = {}
    for name in list(chunks[0]) if chunks else []:
        joined[name] = np.concatenate([chunk.pop(name) for chunk in chunks])
    return joined


def _types(columns: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: "string" if values.dtype.kind in "OUS" else str(values.dtype)
        for name, values in columns.items()
    }
