"""A model's directions of all events of a store, streamed into a file.

Events go through the model a window at a time and once; each window's rows are a file
of their own until all are there. A run that was killed goes on behind the last whole
window, and ends with the same file. Shape letters: B events.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.files import locked_folder
from graphnet_icecube2nd.inference.model_bundle import Network
from graphnet_icecube2nd.inference.predictor import (
    WINDOW,
    InferenceConfig,
    NetworkReader,
    Progress,
    table_of_vectors,
)
from graphnet_icecube2nd.memory import give_back_memory
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import (
    format_of,
    read_part,
    write_results,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, write_json
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, result_rows
from graphnet_icecube2nd.version import __version__

PLAN = "plan.json"


def reconstruct_store(
    store: EventStore,
    model: Network,
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    options: InferenceConfig,
    calibration: KappaCalibration | None = None,
    contours: Sequence[float] = CONTOURS,
    on_progress: Progress | None = None,
) -> tuple[dict[str, int], int]:
    """Reconstruct every event of a store into a file; see `reconstruct`.

    Returns:
        How many events by status, and how many rows an earlier call had found.
    """
    out = Path(out)
    kind = format_of(out, format)
    reader = NetworkReader(model, store, options)
    parts = out.with_name(f".{out.name}.parts")
    statuses: Counter[str] = Counter()
    num_resumed = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked_folder(parts, "what is done"):
        _open_parts(parts, _plan(store, model, options, calibration, contours))
        files, open_windows = [], []
        num_pulses = 0
        for number, window in enumerate(_windows(store)):
            path = parts / f"{number:06d}.parquet"
            files.append(path)
            if not path.exists():
                open_windows.append((path, window))
                continue
            columns = read_part(path)
            num_resumed += len(columns["status"])
            num_pulses += int(columns["n_pulses"].sum())
            statuses.update(columns["status"].tolist())
        if num_resumed and on_progress is not None:
            on_progress(num_resumed, num_pulses)  # at once: no part of any rate
        for path, (shard, first, stop) in open_windows:
            table, length_B = _window(reader, store, shard, first, stop, on_progress)
            columns = result_rows(table, length_B, calibration, contours)
            write_results(path, [columns], "parquet")
            give_back_memory()
            statuses.update(columns["status"].tolist())
        write_results(out, (read_part(path) for path in files), kind)
    shutil.rmtree(parts)
    return dict(statuses), num_resumed


def _windows(store: EventStore) -> Iterator[tuple[int, int, int]]:
    """Yield shard, first event and the one after the last, within the shard."""
    for shard in range(len(store.shards)):
        num_events = len(store.lengths(shard))
        for first in range(0, num_events, WINDOW):
            yield shard, first, min(first + WINDOW, num_events)


def _window(
    reader: NetworkReader,
    store: EventStore,
    shard: int,
    first: int,
    stop: int,
    on_progress: Progress | None,
) -> tuple[EventTable, NDArray[np.integer[Any]]]:
    """Return the directions of a window, and how many pulses its events have, (B,)."""
    length_B = np.asarray(store.lengths(shard)[first:stop])
    event_id = np.asarray(store.event_column(EVENT_ID, shard)[first:stop])
    numbers = np.arange(first, stop) + int(store.shard_offsets[shard])
    vectors_B3 = reader.vectors(numbers, length_B, on_progress)
    return table_of_vectors("", event_id, length_B, vectors_B3), length_B


def _plan(
    store: EventStore,
    model: Network,
    options: InferenceConfig,
    calibration: KappaCalibration | None,
    contours: Sequence[float],
) -> dict[str, Any]:
    """Return all that the rows depend on."""
    plan = {
        "weights": weights_digest(model),
        "model": [type(model).__name__, model.kwargs()],
        "options": asdict(options),
        "calibration": None if calibration is None else calibration.to_dict(),
        "contours": list(contours),
        "store": store.manifest.digest(),
        "window": WINDOW,
        "software": __version__,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(plan))
    return as_read


def _open_parts(parts: Path, plan: dict[str, Any]) -> None:
    """Keep what an earlier call of the same has left; else begin anew."""
    path = parts / PLAN
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == plan:
        return
    for file in parts.glob("*.parquet"):
        file.unlink()
    write_json(path, plan)
