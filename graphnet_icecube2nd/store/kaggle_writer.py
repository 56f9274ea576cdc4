"""An event store into files as the competition has them.

train/batch_N.parquet, train_meta.parquet and sensor_geometry.csv, which our reader of
the competition's files takes, and so does code written for the competition. Shape
letters: B events, T pulses.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import reverse_angles
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.event_store import EventStore, Shard
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.store.writers import Progress, WriteReport, temporary

BATCH_EVENTS = 200_000  # of a file, as in the competition
_ROWS = 2**20  # pulses written at once
# What pandas has to know to read event_id as the index, as in the competition's files.
_TYPES = {
    "sensor_id": "int16",
    "time": "int64",
    "charge": "float64",
    "auxiliary": "bool",
    EVENT_ID: "int64",
}
_PANDAS = {
    "index_columns": [EVENT_ID],
    "column_indexes": [],
    "columns": [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": kind,
            "metadata": None,
        }
        for name, kind in _TYPES.items()
    ],
    "pandas_version": "2.0.0",
}


def write_kaggle(
    store_path: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    *,
    batch_events: int = BATCH_EVENTS,
    on_progress: Progress | None = None,
) -> WriteReport:
    """Write a store as a folder of the competition's form.

    Times are rounded to whole nanoseconds, as there. Truth beside azimuth and zenith
    does not exist in that form and is left out; events without pulses too. The folder
    takes its name when it is whole.

    Args:
        store_path: Folder of the store, with a sensor_id.
        out_folder: The folder, which must not be there, or be empty.
        batch_events: Events of a file; batches are counted from 1.
        on_progress: Called now and then with the events and pulses since the last call.

    Raises:
        FileExistsError: The folder is there and not empty.
        ImportError: pyarrow is not installed.
        ValueError: The store has no sensor_id, charge or flag, or no event.
        OSError: The disk is full.
    """
    pa = import_pyarrow()
    import pyarrow.parquet

    store = EventStore(store_path)
    _check(store)
    schema = pa.schema(
        {
            "sensor_id": pa.int16(),
            "time": pa.int64(),
            "charge": pa.float64(),
            "auxiliary": pa.bool_(),
            EVENT_ID: pa.int64(),
        },
        metadata={"pandas": json.dumps(_PANDAS)},
    )
    meta: list[dict[str, NDArray[Any]]] = []
    num_events = num_pulses = left_out = batch = in_batch = rows = 0
    writer: Any = None
    with temporary(Path(out_folder)) as folder:
        (folder / "train").mkdir(parents=True)
        try:
            for shard in store.shards:
                full = np.flatnonzero(shard.events.column(N_PULSES) > 0)
                left_out += shard.record.num_events - len(full)
                while len(full):
                    if writer is None:
                        batch, in_batch, rows = batch + 1, 0, 0
                        path = folder / "train" / f"batch_{batch}.parquet"
                        writer = pyarrow.parquet.ParquetWriter(path, schema)
                    some, full = _cut(shard, full, batch_events - in_batch)
                    table = _pulses(store, shard, some)
                    writer.write_table(pa.table(table, schema=schema))
                    meta.append(_meta(store, shard, some, batch, rows))
                    in_batch += len(some)
                    rows += len(table[EVENT_ID])
                    num_events += len(some)
                    num_pulses += len(table[EVENT_ID])
                    if on_progress is not None:
                        on_progress(len(some), len(table[EVENT_ID]))
                    if in_batch == batch_events:
                        writer.close()
                        writer = None
        finally:
            if writer is not None:
                writer.close()
        if not meta:
            raise ValueError(f"{store_path}: there is no event to be written")
        joined = {
            name: np.concatenate([piece[name] for piece in meta]) for name in meta[0]
        }
        pyarrow.parquet.write_table(pa.table(joined), folder / "train_meta.parquet")
        _write_geometry(store, folder / "sensor_geometry.csv")
    return WriteReport(events=num_events, pulses=num_pulses, left_out=left_out)


def _check(store: EventStore) -> None:
    if len(store.geometry) > 2**15:
        raise ValueError(
            f"{store.path} has {len(store.geometry)} DOMs; the competition's form has "
            f"room for {2**15}"
        )
    pulse_map = store.pulse_map
    flag = pulse_map.auxiliary or pulse_map.hlc
    named = {"sensor_id": pulse_map.sensor_id, "charge": pulse_map.charge, "flag": flag}
    for what, column in named.items():
        if column is None or column not in store.pulse_columns:
            raise ValueError(
                f"{store.path} has no {what}, which the competition's form needs; it "
                f"has {', '.join(store.pulse_columns)}"
            )


def _cut(
    shard: Shard, events: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first events, `most` or about _ROWS pulses, and the rest."""
    total = np.cumsum(shard.events.column(N_PULSES)[events].astype(np.int64))
    number = min(most, max(1, int(np.searchsorted(total, _ROWS, side="right"))))
    return events[:number], events[number:]


def _pulses(
    store: EventStore, shard: Shard, events: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    pulse_map, pulses = store.pulse_map, shard.pulses
    count_B, row_T = shard.pulse_rows(events)
    assert pulse_map.sensor_id is not None
    assert pulse_map.charge is not None
    if pulse_map.auxiliary is not None:
        auxiliary_T = pulses.column(pulse_map.auxiliary)[row_T] != 0
    else:
        assert pulse_map.hlc is not None
        auxiliary_T = pulses.column(pulse_map.hlc)[row_T] == 0
    time_T = np.rint(pulses.column(pulse_map.time)[row_T]).astype(np.int64)
    return {
        "sensor_id": pulses.column(pulse_map.sensor_id)[row_T].astype(np.int16),
        "time": time_T,
        "charge": pulses.column(pulse_map.charge)[row_T].astype(np.float64),
        "auxiliary": auxiliary_T,
        EVENT_ID: np.repeat(shard.events.column(EVENT_ID)[events], count_B),
    }


def _meta(
    store: EventStore, shard: Shard, events: NDArray[np.int64], batch: int, row: int
) -> dict[str, NDArray[Any]]:
    count_B = shard.events.column(N_PULSES)[events].astype(np.int64)
    last_B = row + np.cumsum(count_B) - 1
    columns: dict[str, NDArray[Any]] = {
        "batch_id": np.full(len(events), batch),
        EVENT_ID: shard.events.column(EVENT_ID)[events],
        "first_pulse_index": last_B - count_B + 1,
        "last_pulse_index": last_B,
    }
    if store.has_directions:
        azimuth, zenith = (
            shard.events.column(name)[events].astype(np.float64)
            for name in (store.pulse_map.labels.azimuth, store.pulse_map.labels.zenith)
        )
        if store.pulse_map.labels.angles == "flight":
            turned = reverse_angles(zenith, azimuth)
            zenith, azimuth = (angle.numpy() for angle in turned)
        columns |= {"azimuth": azimuth, "zenith": zenith}
    return columns


def _write_geometry(store: EventStore, path: Path) -> None:
    lines = ["sensor_id,x,y,z"]
    for sensor, place in enumerate(store.geometry.position_S3.tolist()):
        lines.append(",".join([str(sensor), *(repr(round(p, 6)) for p in place)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
