"""Damages files in many ways, and sees how each reader of the package takes it.

    python tests/fuzz.py [--reader NAME] [--mutations 200] [--seconds 600] [--seed 0]

A reader may give the values of the good file, or others where nothing tells that they
were changed; else it must raise an error of the package that names the file. Faults
are a process that dies (`crash`), does not end (`hang`) or wants too much memory
(`memory`), an error of a library or without the file's name (`foreign`), and, where the
file has a checksum, other values (`other`). A mutation is the same whatever else is
run; `--keep FOLDER` keeps the files at fault. Readers run in processes of their own.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import lmdb
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from graphnet_icecube2nd import EventStore, PulseMap, load_model, prepare
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.inference import load_bundle
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.published.published_config import read_published_config
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipe import read_recipe
from graphnet_icecube2nd.training.run_folder import finished_stage, run_description
from graphnet_icecube2nd.training.trainer import WholeCheckpointIO
from graphnet_icecube2nd.tuning.study import read_space

FORMER = Path(__file__).parent / "release_0_1_0"
SECONDS, GIGABYTES = 20, 4  # of computing, and above what is loaded, for one mutation
STUCK = 300  # s after which a process that does not compute is taken to hang
FAULTS = ("crash", "hang", "memory", "foreign", "other")
KINDS = ("refused", "same", *FAULTS[::-1])
EVENTS, PULSES = 6, 5  # of a sample, and of an event
KAGGLE = "sensor_id time charge auxiliary"
ICECUBE = "dom_x dom_y dom_z dom_time charge hlc rde"
DEEP = "@DEEP@"
ODD = (
    *(None, True, -1, 0, 0.5, 2**31, 2**63, -(2**63), 10**400, 1e308, math.nan),
    *(math.inf, "", "odd", "0", "../../../x", "/etc/passwd", "a" * 10_000, "\0"),
    *([], {}, [None], [[]], {"a": 1}, [1, "a"], DEEP),
)


# Samples: each function writes a folder of good files.


def columns(names: str) -> dict[str, Any]:
    """Return columns of pulses of events 1 to EVENTS."""
    rng, num = np.random.default_rng(0), EVENTS * PULSES
    key = np.repeat(np.arange(1, EVENTS + 1), PULSES)
    known = {"event_id": key, "event_no": key, "rde": np.ones(num)}
    known |= {"sensor_id": rng.integers(0, 5160, num), "hlc": rng.integers(0, 2, num)}
    known |= {"time": 9000 + 10 * np.arange(num), "dom_time": 9e3 + np.arange(num)}
    known |= {"string": rng.integers(1, 87, num), "om": rng.integers(1, 61, num)}
    known |= {"auxiliary": rng.random(num) < 0.5, "flags": np.ones(num, "u1")}
    return {n: known.get(n, rng.uniform(1, 400, num)) for n in names.split()}


def truth(key: str) -> dict[str, Any]:
    """Return the truth of these events, with a text."""
    rng = np.random.default_rng(1)
    angles = {"azimuth": rng.uniform(0, 6, EVENTS), "zenith": rng.uniform(0, 3, EVENTS)}
    texts = [f"nu {number}" for number in range(EVENTS)]
    energy = rng.uniform(1, 1e5, EVENTS)
    return {key: np.arange(1, EVENTS + 1), **angles, "energy": energy, "type": texts}


def parquet(path: Path, content: Mapping[str, Any]) -> None:
    """Write a parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(content)), path)


def database(path: Path, content: Mapping[str, Mapping[str, Any]]) -> None:
    """Write tables of a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, table in content.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(table)})")
            marks = ", ".join("?" for _ in table)
            rows = zip(*(np.asarray(c).tolist() for c in table.values()), strict=True)
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)


def compound(content: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return columns as one array of structs."""
    arrays = {n: np.asarray(v) for n, v in content.items()}
    arrays = {n: v.astype("S") if v.dtype.kind == "U" else v for n, v in arrays.items()}
    return np.rec.fromarrays(list(arrays.values()), names=list(arrays))


def kaggle(folder: Path) -> None:
    """The competition's folder."""
    parquet(
        folder / "files" / "train" / "batch_1.parquet", columns(f"event_id {KAGGLE}")
    )
    first = PULSES * np.arange(EVENTS)
    meta = {"batch_id": np.ones(EVENTS, int), **truth("event_id")}
    meta |= {"first_pulse_index": first, "last_pulse_index": first + PULSES - 1}
    del meta["type"]
    parquet(folder / "files" / "train_meta.parquet", meta)


def flat(folder: Path) -> None:
    """Parquet files of pulses and truth, and a pulse map."""
    parquet(folder / "hits.parquet", columns(f"event_id {KAGGLE}"))
    parquet(folder / "truth.parquet", truth("event_id"))
    text = json.dumps(PulseMap.kaggle().to_dict())
    (folder / "pulse_map.json").write_text(text)


def graphnet(folder: Path) -> None:
    """GraphNeT's files: a folder of parquet, one of structs, a database."""
    pulses, known = columns(f"event_no {ICECUBE}"), truth("event_no")
    parquet(folder / HITS, pulses)
    parquet(folder / TRUTH, known)
    database(folder / "events.db", {"SRTInIcePulses": pulses, "truth": known})
    rows = [
        {n: v[PULSES * event :][:PULSES].tolist() for n, v in pulses.items()}
        | {"event_no": event + 1}
        for event in range(EVENTS)
    ]
    labels = [{n: v[event] for n, v in known.items()} for event in range(EVENTS)]
    parquet(folder / "nested.parquet", {"SRTInIcePulses": rows, "truth": labels})


def lmdb_files(folder: Path) -> None:
    """LMDB files, with values in pages of their own and in those of the keys."""
    pulses, known = columns(f"event_no {ICECUBE}"), truth("event_no")
    tables = {"SRTInIcePulses": pulses, "truth": known}
    for method, more in (
        ("json", {"data_representations": "x" * 3000}),
        ("msgpack", {}),
    ):
        with lmdb.open(str(folder / method)) as file, file.begin(write=True) as writing:
            writing.put(b"__meta_serialization__", method.encode())
            for event in range(EVENTS):
                value: dict[str, Any] = {}
                for name, table in tables.items():
                    rows = np.asarray(table["event_no"]) == event + 1
                    value[name] = {
                        c: np.asarray(v)[rows].tolist() for c, v in table.items()
                    }
                value |= more
                data = json.dumps(value).encode()
                writing.put(
                    str(event + 1).encode(), data if more else msgpack.packb(value)
                )


def hdf5(folder: Path) -> None:
    """HDF5 files: columns, arrays of structs, hdfwriter's."""
    pulses, known = columns(KAGGLE), truth("event_id")
    borders = PULSES * np.arange(EVENTS + 1)
    with h5py.File(folder / "columns.h5", "w") as file:
        for table, content in (("pulses", pulses), ("truth", known)):
            for name, values in content.items():
                file[f"{table}/{name}"] = values
        file["offsets"] = borders
    with h5py.File(folder / "compound.h5", "w") as file:
        file["pulses"], file["truth"] = compound(pulses), compound(known)
        file["offsets"] = borders
    names = "Run", "Event", "SubEvent", "SubEventStream", "exists"
    frames = dict(zip(names, np.ones((5, EVENTS), "u4"), strict=True))
    frames["Event"] = np.arange(EVENTS, dtype="u4")
    rows = {n: np.repeat(v, PULSES) for n, v in frames.items()}
    rows |= columns("string om time charge width flags")
    index = {**frames, "start": borders[:-1], "stop": borders[1:]}
    primary = {**frames, **{n: known[n] for n in ("zenith", "azimuth", "energy")}}
    with h5py.File(folder / "frames.hdf5", "w") as file:
        for name, table in (("SplitInIcePulses", rows), ("MCPrimary", primary)):
            file[name], file[f"__I3Index__/{name}"] = compound(table), compound(index)


def tables(folder: Path) -> None:
    """Tables of DOMs and ice."""
    path = folder / "geometry.csv"
    DetectorGeometry.icecube86().to_csv(path)
    path.write_text("\n".join(path.read_text().splitlines()[:301]) + "\n")
    (folder / "geometry.csv.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    rows = list(csv.reader(path.read_text().splitlines()))
    places = {n: [float(row[rows[0].index(n)]) for row in rows[1:]] for n in "xyz"}
    parquet(folder / "geometry.parquet", {"sensor_id": np.arange(300), **places})
    lines = [
        f"{x}\t{y}\t{z}\t{n // 60}\t{n % 60}"
        for n, (x, y, z) in enumerate(zip(*places.values(), strict=True))
    ]
    text = "### Metadata ###\nMedium:\tice\n### Modules ###\n" + "\n".join(lines)
    (folder / "array.geo").write_text(text)
    rows = [f"{1300 + 100 * n},{20 + n},{90 + n}\n" for n in range(12)]
    text = "depth,scattering_len,absorption_len\n" + "".join(rows)
    (folder / "ice.csv").write_text(text)


def store(folder: Path) -> None:
    """A store that has its own tables of DOMs and ice."""
    files = folder / "sources"
    files.mkdir()
    graphnet(files)
    tables(files)
    own = {"geometry": files / "geometry.csv", "ice": files / "ice.csv"}
    prepare(files / "events.db", folder / "store", workers=1, **own)
    shutil.rmtree(files)


def former(folder: Path) -> None:
    """What release 0.1.0 wrote, and truth and configurations."""
    shutil.copytree(FORMER, folder, dirs_exist_ok=True)
    state = load_model(folder / "run" / "model.safetensors").state_dict()
    torch.save(dict(state), folder / "weights.pth")
    known = truth("event_id")
    parquet(folder / "truth.parquet", known)
    database(folder / "truth.db", {"truth": known})
    rows = [known, *zip(*known.values(), strict=True)]
    (folder / "truth.csv").write_bytes(csv_text(rows))
    config = {"BS": 32, "L": 192, "MOMS": [0.9, 0.8, 0.9], "MODEL_KWARGS": {"dim": 96}}
    config |= {"LR_MAX": 5e-4, "EMA": True, "WEIGHTS": False, "LOSS_FUNC": "loss_vms"}
    (folder / "config.json").write_text(json.dumps(config))
    rate = {"low": 1e-5, "high": 1e-3, "log": True}
    space = {"stages.0.lr_max": rate, "stages.0.loss": {"choices": ["vmf", "combined"]}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))


# Readers: each reads all values of what is at a path.


def everything(path: Path) -> Any:
    """Read a store."""
    opened = EventStore(path)
    read: list[Any] = [opened.geometry, opened.ice, opened.pulse_map]
    read += [opened.whole_event_column(n).tolist() for n in opened.event_columns]
    for number, shard in enumerate(opened.shards):
        rows = shard.pulse_rows(np.arange(len(opened.lengths(number))))[1]
        read += [shard.pulses.column(name)[rows] for name in opened.pulse_columns]
    return read


def prepared(path: Path, **options: str) -> Any:
    """Convert a file or folder, with other files beside it, and read the store."""
    out = path.parent / "converted"
    given: dict[str, Any] = {n: path.parent / file for n, file in options.items()}
    prepare(path, out, workers=1, **given)
    return everything(out)


def bundle(path: Path) -> Any:
    """Read a model and its calibration: what their checksum is of."""
    read = load_bundle(path)
    calibrations = {name: asdict(c) for name, c in read.calibrations.items()}
    return read.model.kwargs(), read.model.state_dict(), calibrations


def filled(path: Path) -> Any:
    """Fill a model with weights of whatever origin."""
    model = load_model(FORMER / "run" / "model.safetensors")
    load_weights(model, path)
    return model.state_dict()


@dataclass(frozen=True)
class Reader:
    """A reader, and the file of its sample that is damaged."""

    sample: Callable[[Path], None]
    file: str
    read: Callable[[Path], Any]
    path: str = ""  # what is read; default: the file
    is_checked: bool = False  # the file has a checksum

    def __call__(self, folder: Path) -> Any:
        return self.read(folder / (self.path or self.file))


def finished(path: Path) -> Any:
    """Read the rows of a run's first stage."""
    return finished_stage(path, 0)[1]


SHARD = "store/shards/00000-0000/"
HITS, TRUTH = "files/Hits/Hits_0.parquet", "files/truth/truth_0.parquet"
MODEL, RECIPE = "run/model.safetensors", "run/recipe.yaml"
ENSEMBLE = "ensemble/other.safetensors", "ensemble/ensemble.yaml"
MAP = partial(prepared, pulse_map="pulse_map.json")
TRUE = partial(prepared, truth="truth.parquet")
CHECKPOINT, CHECK = "interrupted/stage_0/resume.ckpt", WholeCheckpointIO()
READERS = {
    "store pulses": Reader(store, f"{SHARD}pulses.arrow", everything, "store", True),
    "store events": Reader(store, f"{SHARD}events.arrow", everything, "store", True),
    "store geometry": Reader(store, "store/geometry.csv", everything, "store", True),
    "store ice": Reader(store, "store/ice.csv", everything, "store", True),
    "store manifest": Reader(store, "store/manifest.json", everything, "store"),
    "kaggle": Reader(kaggle, "files/train/batch_1.parquet", prepared, "files"),
    "kaggle meta": Reader(kaggle, "files/train_meta.parquet", prepared, "files"),
    "flat parquet": Reader(flat, "hits.parquet", TRUE),
    "flat parquet truth": Reader(flat, "truth.parquet", TRUE, "hits.parquet"),
    "pulse map": Reader(flat, "pulse_map.json", MAP, "hits.parquet"),
    "graphnet parquet": Reader(graphnet, HITS, prepared, "files"),
    "graphnet truth": Reader(graphnet, TRUTH, prepared, "files"),
    "nested parquet": Reader(graphnet, "nested.parquet", prepared),
    "sqlite": Reader(graphnet, "events.db", prepared),
    "lmdb json": Reader(lmdb_files, "json/data.mdb", prepared),
    "lmdb msgpack": Reader(lmdb_files, "msgpack/data.mdb", prepared),
    "hdf5 columns": Reader(hdf5, "columns.h5", prepared),
    "hdf5 compound": Reader(hdf5, "compound.h5", prepared),
    "hdf5 frames": Reader(hdf5, "frames.hdf5", prepared),
    "geometry": Reader(tables, "geometry.csv", DetectorGeometry.from_file),
    "geometry, packed": Reader(tables, "geometry.csv.gz", DetectorGeometry.from_file),
    "geometry parquet": Reader(tables, "geometry.parquet", DetectorGeometry.from_file),
    "geometry .geo": Reader(tables, "array.geo", DetectorGeometry.from_file),
    "ice": Reader(tables, "ice.csv", IceModel.from_file),
    "weights": Reader(former, MODEL, filled),
    "torch weights": Reader(former, "weights.pth", filled),
    "model": Reader(former, MODEL, bundle, "run", True),
    "calibration": Reader(former, "run/calibration.json", bundle, "run"),
    "former recipe": Reader(former, RECIPE, bundle, "run"),
    "ensemble member": Reader(former, ENSEMBLE[0], bundle, "ensemble", True),
    "ensemble": Reader(former, ENSEMBLE[1], bundle, "ensemble"),
    "recipe": Reader(former, RECIPE, read_recipe),
    "run": Reader(former, "run/run.json", run_description, "run"),
    "finished stage": Reader(former, "run/stage_0/finished.json", finished, "run"),
    "metrics": Reader(former, "run/metrics.csv", read_history),
    "training": Reader(former, "run/training.csv", read_history),
    "checkpoint": Reader(former, CHECKPOINT, CHECK.load_checkpoint, "", True),
    "results csv": Reader(former, "run_results.csv", EventTable.load),
    "results parquet": Reader(former, "run_results.parquet", EventTable.load),
    "results sqlite": Reader(former, "run_results.db", EventTable.load),
    "truth csv": Reader(former, "truth.csv", EventTruth.load),
    "truth parquet": Reader(former, "truth.parquet", EventTruth.load),
    "truth sqlite": Reader(former, "truth.db", EventTruth.load),
    "published config": Reader(former, "config.json", read_published_config),
    "search space": Reader(former, "space.yaml", read_space),
}


# Mutations.


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return other bytes, often changed near an end, where formats keep their head."""
    num = len(data)
    ends = (rng.randrange(min(num, 512)), num - 1 - rng.randrange(min(num, 512)))
    at = rng.choice((*ends, rng.randrange(num), rng.randrange(num)))
    long = min(rng.choice((1, 2, 4, 8, 64, 1000)), num - at)
    here, other = slice(at, at + long), rng.randrange(num - long + 1)
    there = slice(other, other + long)
    new = bytearray(data)
    what = rng.randrange(9)
    if what <= 1:
        new[at] ^= 1 << rng.randrange(8)
    elif what == 2:
        new[here] = rng.randbytes(long)
    elif what == 3:
        new[here] = rng.choice((b"\0", b"\xff", b"\x7f")) * long
    elif what == 4:
        del new[at:]
    elif what == 5:
        new[at:at] = rng.choice((rng.randbytes(long), b"\0" * long, b"[" * 100_000))
    elif what == 6:
        del new[here]
    elif what == 7:
        new[here], new[there] = data[there], data[here]
    else:
        new[at:at] = data[there]
    return bytes(new)


def damaged_values(values: Any, rng: random.Random) -> Any:
    """Return plain values with one of them, or its name, changed."""
    if isinstance(values, str) and values.startswith("{") and rng.random() < 0.9:
        return plain_text(damaged_values(json.loads(values), rng)).decode()
    if not isinstance(values, dict | list) or not values or rng.random() < 0.1:
        return rng.choice(ODD)
    new = dict(values) if isinstance(values, dict) else list(values)
    key = rng.choice(list(new) if isinstance(new, dict) else range(len(new)))
    what = rng.randrange(8)
    if what == 0:
        del new[key]
    elif what == 1 and isinstance(new, dict):
        new[rng.choice(("odd", "../x", ""))] = new.pop(key)
    elif what == 2 and isinstance(new, list):
        new.append(new[key])
    else:
        new[key] = damaged_values(new[key], rng)
    return new


def plain_text(values: Any) -> bytes:
    """Return plain values as JSON, which is YAML too."""
    deep = "[" * 100_000 + "]" * 100_000
    return json.dumps(values).replace(f'"{DEEP}"', deep).encode()


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """Change a value of JSON or YAML."""
    return plain_text(damaged_values(yaml.safe_load(data), rng))


def damaged_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header: metadata, names, types, shapes, places."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if "__metadata__" in header and rng.random() < 0.5:
        header["__metadata__"] = damaged_values(header["__metadata__"], rng)
    else:
        header = damaged_values(header, rng)
    text = plain_text(header)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def csv_text(rows: Any) -> bytes:
    """Return rows as csv."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def damaged_csv(data: bytes, rng: random.Random) -> bytes:
    """Change a cell, a row, a column or a name."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    row, place = rng.choice(rows), rng.randrange(len(rows[0]))
    what = rng.randrange(6)
    if what == 0:
        rows = [r[:place] + r[place + 1 :] for r in rows]
    elif what == 1:
        rows.remove(row)
    elif what == 2:
        rows.append(row)
    elif what == 3:
        row.append("1")
    else:
        row[place] = str(rng.choice(ODD))
    return csv_text(rows)


def damaged_parquet(data: bytes, rng: random.Random) -> bytes:
    """Change a column: its values, type, name, number."""
    table = pq.read_table(io.BytesIO(data))
    place = rng.randrange(table.num_columns)
    name, values = table.column_names[place], table.column(place).to_pylist()
    what = rng.randrange(8)
    if what == 0:
        table = table.remove_column(place)
    elif what == 1:
        table = table.append_column(name, table.column(place))
    elif what == 2:
        table = table.rename_columns([*table.column_names[:-1], "odd"])
    elif what == 3:
        table = table.slice(0, rng.randrange(len(values)))
    else:
        row, odd = rng.randrange(len(values)), rng.choice(ODD)
        one = [*values[:row], odd, *values[row + 1 :]]
        new = rng.choice((one, [odd] * len(values), [str(v) for v in values]))
        table = table.set_column(place, name, pa.array(new))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def damaged_sqlite(data: bytes, rng: random.Random) -> bytes:
    """Change a cell, a row, a column or a table."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        names = "SELECT name FROM sqlite_master WHERE type = 'table'"
        table = rng.choice(connection.execute(names).fetchall())[0]
        info = connection.execute(f"PRAGMA table_info({table})").fetchall()
        column = rng.choice(info)[1]
        where = "WHERE rowid = 2" if rng.random() < 0.7 else ""
        changes = (
            *(f"UPDATE {table} SET {column} = ?1 {where}",) * 4,
            f"DELETE FROM {table} {where}",
            f"INSERT INTO {table} SELECT * FROM {table} {where}",
            f"ALTER TABLE {table} RENAME COLUMN {column} TO odd",
            f"ALTER TABLE {table} RENAME TO odd",
            f"UPDATE sqlite_master SET sql = 'CREATE TABLE {table} (a, {column})'",
        )
        change = rng.choice(changes)
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(change, (rng.choice(ODD),) if "?1" in change else ())
        return connection.serialize()


def damaged_lmdb(data: bytes, rng: random.Random) -> bytes:
    """Change a value of JSON, a key, or how values are said to be made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.mdb"
        path.write_bytes(data)
        with lmdb.open(folder) as file, file.begin(write=True) as writing:
            pairs = dict(writing.cursor())
            key = rng.choice(list(pairs))
            value = pairs[key]
            if value.startswith(b"{") and rng.random() < 0.8:
                writing.put(key, damaged_text(value, rng))
            elif rng.random() < 0.5:
                writing.put(key, damaged_bytes(value, rng))
            else:
                writing.delete(key)
                writing.put(rng.choice((b"x", b"-1", b"01", b"9" * 19)), value)
        return path.read_bytes()


def damaged_hdf5(data: bytes, rng: random.Random) -> bytes:
    """Change a data set: its values, type, length; or take it away."""
    content, names = io.BytesIO(data), list[str]()
    with h5py.File(content, "r+") as file:
        file.visititems(
            lambda n, item: names.append(n) if hasattr(item, "dtype") else None
        )
        name = rng.choice(names)
        values = file[name][()]
        del file[name]
        fields = values.dtype.names or ()
        one = values[rng.choice(fields)] if fields else values
        what = rng.randrange(6)
        if what == 0:
            file[name] = values[: rng.randrange(len(values))]
        elif what == 1:
            file[name] = np.stack([values, values], 1)
        elif what == 2:
            file[name] = rng.choice((1, "odd", b"\xff", math.nan, [b"a"], [[1.0]]))
        elif what == 3:
            file[name] = one.astype("S")
        elif what == 4:
            one[rng.randrange(len(one))] = rng.choice((0, 1, 255, -1.0, math.nan))
            file[name] = values
    return content.getvalue()


FIELDS = {".json": damaged_text, ".yaml": damaged_text, ".csv": damaged_csv}
FIELDS |= {".safetensors": damaged_safetensors, ".parquet": damaged_parquet}
FIELDS |= {
    ".mdb": damaged_lmdb,
    ".db": damaged_sqlite,
    ".h5": damaged_hdf5,
    ".hdf5": damaged_hdf5,
}


def mutated(path: Path, rng: random.Random, number: int) -> bytes:
    """Return a mutation of a good file; the first two are an empty and a random one."""
    data, by_field = path.read_bytes(), FIELDS.get(path.suffix)
    if number < 2:
        return rng.randbytes(len(data)) if number else b""
    if by_field is not None and rng.random() < 0.6:
        with suppress(Exception):  # the format does not hold such a value
            if (new := by_field(data, rng)) != data:
                return new
    return damaged_bytes(data, rng)


# Processes that read.


def plain(value: Any) -> Any:
    """Return a value such that equal ones have equal texts, NaN included."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        kind = value.dtype.str if value.dtype.kind in "iufb" else ""
        return kind, value.shape, value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def judged(reader: Reader, folder: Path) -> tuple[str, str]:
    """Return `read` and a checksum of all values, or a kind of error and its text."""
    try:
        values = repr(plain(reader(folder)))
        return "read", hashlib.sha256(values.encode()).hexdigest()
    except MemoryError as error:
        return "memory", repr(error)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        is_named = Path(reader.file).name in text or str(folder) in text
        is_ours = type(error).__module__.startswith(("builtins", "graphnet_icecube2nd"))
        is_clear = isinstance(error, ValueError | OSError | ImportError) and is_ours
        is_clear &= not isinstance(error, UnicodeError)
        return ("refused" if is_clear and is_named else "foreign"), text


def work(pipe: Any) -> None:
    """Read folders that come through a pipe, and answer how it went."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    warnings.simplefilter("ignore")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + GIGABYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError):  # the end
        while True:
            name, folder = pipe.recv()
            end = int(time.process_time()) + 1 + SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
            pipe.send(judged(READERS[name], Path(folder)))


class Fuzz:
    """Good files in a folder, a process that reads, and what became of mutations."""

    def __init__(self, folder: Path, keep: Path | None, seed: int) -> None:
        self.folder, self.keep, self.seed = folder, keep, seed
        self.counts: dict[str, Counter[str]] = {}
        self._good: dict[str, str] = {}
        self._process: Any = None

    def prepare(self, name: str) -> None:
        """Write the good files of a reader, and read them."""
        sample = self.folder / READERS[name].sample.__name__
        if not sample.exists():
            sample.mkdir()
            READERS[name].sample(sample)
        kind, self._good[name] = self._read(name, None)
        if kind != "read":
            raise SystemExit(f"{name}: the good file is not read: {self._good[name]}")
        self.counts[name] = Counter()

    def count(self, name: str, number: int) -> None:
        """Count what becomes of a mutation; tell of a fault."""
        reader = READERS[name]
        path = self.folder / reader.sample.__name__ / reader.file
        data = mutated(path, random.Random(f"{self.seed} {name} {number}"), number)
        kind, text = self._read(name, data)
        if kind == "read":
            kind = "same" if text == self._good[name] else "other"
        self.counts[name][kind] += 1
        if not is_fault(reader, kind):
            return
        print(f"{name}, mutation {number}: {kind}: {text[:300]}", flush=True)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / f"{name} {number} {kind} {path.name}").write_bytes(data)

    def _read(self, name: str, data: bytes | None) -> tuple[str, str]:
        reader = READERS[name]
        with tempfile.TemporaryDirectory(dir=self.folder) as trial:
            folder = Path(trial) / "sample"
            shutil.copytree(self.folder / reader.sample.__name__, folder)
            if data is not None:
                (folder / reader.file).write_bytes(data)
            return self._answer(name, folder)

    def _answer(self, name: str, folder: Path) -> tuple[str, str]:
        """Ask the process; one that ended or hangs is replaced."""
        if self._process is None:
            context = multiprocessing.get_context("forkserver")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=work, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((name, str(folder)))
            if self._pipe.poll(STUCK):
                answer: tuple[str, str] = self._pipe.recv()
                return answer
            self._process.kill()
        except (EOFError, OSError):
            pass
        self._process.join()
        code, self._process = self._process.exitcode, None
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return "hang", "it did not end"
        return "crash", signal.Signals(-code).name if code < 0 else f"exit {code}"


def is_fault(reader: Reader, kind: str) -> bool:
    """Return whether this may not become of a reader's file."""
    return kind in FAULTS and (kind != "other" or reader.is_checked)


def main() -> int:
    """Run from the command line; return 1 if there were faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reader", action="append", choices=READERS, metavar="NAME")
    parser.add_argument("--mutations", type=int, default=200, help="of each reader")
    parser.add_argument("--seconds", type=float, default=600, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files at fault")
    asked = parser.parse_args()
    # For the processes, which are forked from one that imports everything anew.
    os.environ.update(OMP_NUM_THREADS="1", ARROW_NUM_THREADS="1")
    names = asked.reader or list(READERS)
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), asked.keep, asked.seed)
        for name in names:
            fuzz.prepare(name)
        for number in range(asked.mutations):
            for name in names:
                if time.monotonic() < end:
                    fuzz.count(name, number)
    print(f"{'reader (*: has a checksum)':28}{'files':>8}", end="")
    print("".join(f"{kind:>9}" for kind in KINDS))
    faults: Counter[str] = Counter()
    for name, count in fuzz.counts.items():
        reader = READERS[name]
        faults.update({k: n for k, n in count.items() if is_fault(reader, k)})
        cells = "".join(f"{count[kind]:9}" for kind in KINDS)
        print(f"{name + ' *' * reader.is_checked:28}{count.total():8}{cells}")
    total = sum(count.total() for count in fuzz.counts.values())
    print(f"{faults.total()} faults in {total} files: {dict(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
