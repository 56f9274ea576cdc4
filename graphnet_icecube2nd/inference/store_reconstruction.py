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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.files import locked_folder
from graphnet_icecube2nd.inference.predictor import (
    WINDOW,
    Predictor,
    Progress,
)
from graphnet_icecube2nd.inference.results import (
    ResultMaker,
    failed_tasks,
    without_full_columns,
)
from graphnet_icecube2nd.memory import give_back_memory
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.results.event_table import CALIBRATED
from graphnet_icecube2nd.results.result_files import (
    Columns,
    format_of,
    read_metadata,
    read_part,
    write_results,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, write_json
from graphnet_icecube2nd.version import __version__

PLAN = "plan.json"


def reconstruct_store(
    store: EventStore,
    maker: ResultMaker,
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    on_progress: Progress | None = None,
) -> tuple[dict[str, int], int, int]:
    """Reconstruct every event of a store into a file; see `reconstruct`.

    Returns:
        How many events by status, how many of them have calibrated widths, and how many
        rows an earlier call had found.
    """
    out = Path(out)
    kind = format_of(out, format)
    predictor = Predictor(maker.bundle.model, store, maker.options, domain=maker.domain)
    parts = out.with_name(f".{out.name}.parts")
    statuses: Counter[str] = Counter()
    failed: set[str] = set()
    num_resumed = num_calibrated = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked_folder(parts, "what is done"):
        _open_parts(parts, _plan(store, maker))
        files, open_windows = [], []
        num_pulses = 0
        for number, window in enumerate(_windows(store)):
            path = parts / f"{number:06d}.parquet"
            files.append(path)
            if not path.exists():
                open_windows.append((path, window))
                continue
            columns = read_part(path)
            maker.domain.add(read_metadata(path))
            num_resumed += len(columns["status"])
            num_pulses += int(columns["n_pulses"].sum())
            num_calibrated += int(columns[CALIBRATED].sum())
            failed |= failed_tasks(columns)
            statuses.update(columns["status"].tolist())
        if num_resumed and on_progress is not None:
            on_progress(num_resumed, num_pulses)  # at once: no part of any rate
        for path, (shard, first, stop) in open_windows:
            before = maker.domain.counts()
            columns = _window(predictor, maker, shard, first, stop, on_progress)
            # So that a resumed call knows of all events which are outside the ranges.
            counts = maker.domain.counts() - before
            write_results(path, [columns], "parquet", counts)
            give_back_memory()
            num_calibrated += int(columns[CALIBRATED].sum())
            failed |= failed_tasks(columns)
            statuses.update(columns["status"].tolist())
        write_results(
            out,
            (without_full_columns(read_part(path), [*failed]) for path in files),
            kind,
            maker.metadata(),
        )
    shutil.rmtree(parts)
    return dict(statuses), num_calibrated, num_resumed


def _windows(store: EventStore) -> Iterator[tuple[int, int, int]]:
    """Yield shard, first event and the one after the last, within the shard."""
    for shard in range(len(store.shards)):
        num_events = len(store.lengths(shard))
        for first in range(0, num_events, WINDOW):
            yield shard, first, min(first + WINDOW, num_events)


def _window(
    predictor: Predictor,
    maker: ResultMaker,
    shard: int,
    first: int,
    stop: int,
    on_progress: Progress | None,
) -> Columns:
    """Return the rows of a window."""
    store = predictor.store
    length_B = np.asarray(store.lengths(shard)[first:stop])
    event_id = np.asarray(store.event_column(EVENT_ID, shard)[first:stop])
    numbers = np.arange(first, stop) + int(store.shard_offsets[shard])
    outputs, inside_B = predictor.outputs_and_domain(numbers, length_B, on_progress)
    return maker.rows(outputs, event_id, length_B, inside_B)


def _plan(store: EventStore, maker: ResultMaker) -> dict[str, Any]:
    """Return all that the rows depend on."""
    model = maker.bundle.model
    plan = {
        "weights": weights_digest(model),
        "model": [type(model).__name__, model.kwargs()],
        "options": asdict(maker.options),
        "calibrations": {n: c.to_dict() for n, c in maker.calibrations.items()},
        "contours": list(maker.contours),
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
