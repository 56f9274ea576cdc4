"""A model's directions of all events of a store, streamed into a file.

Events go through the model a window at a time and once; each window's rows are a file
of their own until all are there. A run that was killed goes on behind the last whole
window, and ends with the same file. Shape letters: B events.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.direction.calibration import KappaCalibration
from graphnet_icecube2nd.direction.metrics import kappa_to_radius
from graphnet_icecube2nd.files import locked_folder
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.reconstruction.ensemble_file import EnsembleModel
from graphnet_icecube2nd.reconstruction.network import (
    WINDOW,
    NetworkOptions,
    NetworkReader,
    Progress,
    table_of_vectors,
)
from graphnet_icecube2nd.reconstruction.result_files import (
    Columns,
    format_of,
    read_part,
    write_results,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, write_json

RADII = {"radius_50": 0.5, "radius_90": 0.9}
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class ReconstructionReport:
    """What a reconstruction came to.

    Args:
        path: The file of results.
        num_events: Rows in it: every event of the store.
        statuses: How many events by status.
        num_resumed: Rows that an earlier call had already found.
        seconds: It took.
    """

    path: Path
    num_events: int
    statuses: dict[str, int]
    num_resumed: int
    seconds: float


def reconstruct(
    store: EventStore | str | os.PathLike[str],
    model: DeepIce | EnsembleModel,
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    options: NetworkOptions | None = None,
    calibration: KappaCalibration | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> ReconstructionReport:
    """Reconstruct every event of a store into a file.

    Columns: event_id; direction_x, _y, _z, to where the neutrino came from; azimuth,
    zenith (rad); kappa; radius_50 and radius_90, of the contours that hold half and
    nine tenths (rad); n_pulses; status: `ok`, `no pulses`, `not finite`. Whatever has
    no direction has NaN (in SQLite NULL).

    Args:
        store: The store, or its path.
        model: The model, or an ensemble; moved to the device.
        out: The file: .parquet, .csv, .db, or `submission.csv`.
        format: `parquet`, `csv`, `sqlite`, `submission`; default by the ending.
        options: How the model sees events.
        calibration: Makes kappa and radii honest; None: those of the model itself.
        device: `cpu`, `cuda`, `mps`, ...
        on_progress: Called with new events and pulses.

    Raises:
        ValueError: Unknown format; another process is at work on this file.
    """
    begun = time.monotonic()
    store = store if isinstance(store, EventStore) else EventStore(store)
    options, out = options or NetworkOptions(), Path(out)
    kind = format_of(out, format)
    reader = NetworkReader(model.to(device), store, options)
    parts = out.with_name(f".{out.name}.parts")
    statuses: Counter[str] = Counter()
    num_resumed = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked_folder(parts, "what is done"):
        _open_parts(parts, _plan(store, model, options, calibration))
        files = []
        for number, (shard, first, stop) in enumerate(_windows(store)):
            path = parts / f"{number:06d}.parquet"
            files.append(path)
            if path.exists():
                columns = read_part(path)
                num_resumed += stop - first
            else:
                columns = _window(reader, store, shard, first, stop, calibration,
                                  on_progress)  # fmt: skip
                write_results(path, [columns], "parquet")
            statuses.update(Counter(columns["status"].tolist()))
        write_results(out, (read_part(path) for path in files), kind)
    shutil.rmtree(parts)
    return ReconstructionReport(
        path=out,
        num_events=len(store),
        statuses=dict(statuses),
        num_resumed=num_resumed,
        seconds=time.monotonic() - begun,
    )


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
    calibration: KappaCalibration | None,
    on_progress: Progress | None,
) -> Columns:
    """Return the rows of a window."""
    length_B = np.asarray(store.lengths(shard)[first:stop])
    event_id = np.asarray(store.event_column(EVENT_ID, shard)[first:stop])
    numbers = np.arange(first, stop) + int(store.shard_offsets[shard])
    vectors_B3 = reader.vectors(numbers, length_B, on_progress)
    table = table_of_vectors("", event_id, length_B, vectors_B3)
    columns = table.columns()
    columns["kappa"] = np.where(table.is_ok, columns["kappa"], np.nan)
    radii = _radii(columns["kappa"], table.is_ok, calibration)
    if calibration is not None:
        columns["kappa"] = calibration.kappa(columns["kappa"])
    status_B = columns.pop("status")
    return {
        **columns,
        **radii,
        "n_pulses": length_B.astype(np.int64),
        "status": status_B,
    }


def _radii(
    kappa_B: NDArray[np.float64],
    ok_B: NDArray[np.bool_],
    calibration: KappaCalibration | None,
) -> Columns:
    radii = {}
    for name, level in RADII.items():
        radius_B = np.full(len(kappa_B), np.nan)
        if calibration is not None:
            radius_B[ok_B] = calibration.radius(kappa_B[ok_B], level)
        else:
            radius_B[ok_B] = kappa_to_radius(kappa_B[ok_B], level).numpy()
        radii[name] = radius_B
    return radii


def _plan(
    store: EventStore,
    model: DeepIce | EnsembleModel,
    options: NetworkOptions,
    calibration: KappaCalibration | None,
) -> dict[str, Any]:
    """Return all that the rows depend on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    shards = [(r.name, r.num_events, r.files) for r in store.manifest.shards]
    plan = {
        "weights": digest.hexdigest(),
        "model": [type(model).__name__, model.kwargs()],
        "options": asdict(options),
        "calibration": None if calibration is None else calibration.to_dict(),
        "store": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
        "window": WINDOW,
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
