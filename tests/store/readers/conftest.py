"""Random pulses and truth, and what tests ask of every reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from graphnet_icecube2nd.store.readers.source import Part, Source  # noqa: E402


@dataclass
class Events:
    """Everything that a reader yielded, joined, in its order."""

    columns: dict[str, NDArray[Any]]
    event_id: list[int]
    lengths: list[int]
    truth: dict[str, list[Any]]
    notes: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # pulses of each chunk
    first_rows: list[int | None] = field(default_factory=list)

    def of(self, event: int, column: str) -> list[Any]:
        """The pulses of an event."""
        index = self.event_id.index(event)
        first = sum(self.lengths[:index])
        values: list[Any] = self.columns[column][
            first : first + self.lengths[index]
        ].tolist()
        return values


def join(parts: Sequence[Part], max_pulses: int = 1000) -> Events:
    chunks = [chunk for part in parts for chunk in part.chunks(max_pulses)]
    for chunk in chunks:
        assert chunk.offsets[0] == 0
        assert len(chunk.offsets) == len(chunk.event_id) + 1
        assert chunk.event_id.dtype == chunk.offsets.dtype == np.int64
        for values in chunk.columns.values():
            assert len(values) == chunk.offsets[-1]
        for values in chunk.truth.values():
            assert len(values) == len(chunk.event_id)
        assert chunk.offsets[-1] <= max_pulses or len(chunk.event_id) == 1
    return Events(
        columns={
            name: np.concatenate([chunk.columns[name] for chunk in chunks])
            for name in chunks[0].columns
        },
        event_id=[int(i) for chunk in chunks for i in chunk.event_id],
        lengths=[int(n) for chunk in chunks for n in np.diff(chunk.offsets)],
        truth={
            name: [value for chunk in chunks for value in chunk.truth[name].tolist()]
            for name in chunks[0].truth
        },
        notes=[note for chunk in chunks for note in chunk.notes],
        sizes=[int(chunk.offsets[-1]) for chunk in chunks],
        first_rows=[chunk.first_row for chunk in chunks],
    )


@pytest.fixture(scope="session")
def read() -> Callable[..., Events]:
    """`read(source, max_pulses=1000)`: all that its parts yield."""

    def read_source(source: Source, max_pulses: int = 1000) -> Events:
        return join(source.parts, max_pulses)

    return read_source


def make_pulses(
    event_id: Sequence[int], lengths: Sequence[int], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Pulses as in the competition's batches, times in order."""
    random = np.random.default_rng(seed)
    num_pulses = sum(lengths)
    time_T = random.integers(0, 30_000, num_pulses)
    event_T = np.repeat(np.arange(len(lengths)), lengths)
    return {
        "event_id": np.repeat(np.array(event_id, np.int64), lengths),
        "sensor_id": random.integers(0, 5160, num_pulses).astype(np.int16),
        "time": time_T[np.lexsort((time_T, event_T))],
        "charge": random.uniform(0.1, 5, num_pulses),
        "auxiliary": random.random(num_pulses) < 0.5,
    }


@pytest.fixture(scope="session")
def pulses() -> Callable[..., dict[str, NDArray[Any]]]:
    """`pulses(event_id, lengths, seed=0)`: columns of the competition's pulses."""
    return make_pulses


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """`write(path, columns, **options)`: a parquet file."""

    def write_file(path: Path, columns: Any, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path, **options)
        return path

    return write_file


def make_meta(
    event_id: Sequence[int],
    lengths: Sequence[int],
    batch: int | Sequence[int] = 1,
    seed: int = 0,
) -> dict[str, NDArray[Any]]:
    """Meta data as in the competition."""
    random = np.random.default_rng(seed)
    batch_B = np.broadcast_to(np.array(batch, np.int64), len(event_id))
    first = np.zeros(len(event_id), np.int64)
    for number in np.unique(batch_B):
        inside = batch_B == number
        ends = np.cumsum(np.array(lengths)[inside])
        first[inside] = np.append(0, ends[:-1])
    return {
        "batch_id": batch_B.copy(),
        "event_id": np.array(event_id, np.int64),
        "first_pulse_index": first,
        "last_pulse_index": first + np.array(lengths, np.int64) - 1,
        "azimuth": random.uniform(0, 2 * np.pi, len(event_id)),
        "zenith": random.uniform(0, np.pi, len(event_id)),
    }


@pytest.fixture(scope="session")
def meta() -> Callable[..., dict[str, NDArray[Any]]]:
    """`meta(event_id, lengths, batch=1, seed=0)`: columns of the meta data."""
    return make_meta
