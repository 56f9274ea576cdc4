"""The formats that `prepare` reads: how each is recognised, what it can be told.

Readers are imported when they are needed: each brings a library of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.readers.source import (
    HDF5_SUFFIXES,
    SQLITE_SUFFIXES,
    Source,
)
from graphnet_icecube2nd.store.readers.tables import ParquetTable, is_struct


@dataclass(frozen=True)
class Format:
    """How a format is opened."""

    module: str  # the reader's module
    function: str  # what opens files in it
    # What the format can be told: `prepare`'s name of it by the reader's.
    arguments: Mapping[str, str]
    folder: bool = False  # whether the format is one folder


_TABLES = {
    "pulses": "pulses_table",
    "truth": "truth_table",
    "event_column": "event_column",
}
FORMATS = {
    "kaggle": Format(
        "kaggle", "kaggle_source", {"batches": "batches", "which": "which"}, True
    ),
    "graphnet-sqlite": Format(
        "sqlite", "sqlite_source", {**_TABLES, "duplicates": "duplicates"}
    ),
    "graphnet-parquet": Format("parquet", "graphnet_parquet_source", _TABLES, True),
    "parquet": Format(
        "parquet",
        "parquet_source",
        {"truth": "truth", "event_column": "event_column"},
    ),
    "nested-parquet": Format("nested_parquet", "nested_source", _TABLES),
    "hdf5": Format("hdf5", "hdf5_source", {**_TABLES, "offsets": "offsets_table"}),
}


def open_source(paths: Sequence[Path], *, format: str | None, **given: Any) -> Source:
    """Return the source of events that files are, by arguments of `prepare`."""
    format = format or recognise(paths)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")
    known = FORMATS[format]
    always = {"pulse_map", "keep", "with_truth"}
    for name, value in given.items():
        default = () if name == "keep" else "error" if name == "duplicates" else None
        if name not in {*known.arguments.values(), *always} and value != default:
            others = [f for f in FORMATS if name in FORMATS[f].arguments.values()]
            raise ValueError(
                f"{name}={value!r} means nothing for the format {format!r}; it is for "
                f"{', '.join(others)}"
            )
    if known.folder and len(paths) > 1:
        raise ValueError(f"the format {format!r} is one folder, got {len(paths)} paths")
    arguments = {name: given[ours] for name, ours in known.arguments.items()}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if not given["with_truth"]:
        arguments["truth"] = False
    module = import_module(f"{__package__}.readers.{known.module}")
    source: Source = getattr(module, known.function)(
        paths[0] if known.folder else paths,
        pulse_map=given["pulse_map"],
        keep=given["keep"],
        **arguments,
    )
    return source


def recognise(paths: Sequence[Path]) -> str:
    """Return the format of files or of a folder."""
    path = paths[0]
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in SQLITE_SUFFIXES:
            return "graphnet-sqlite"
        if suffix in HDF5_SUFFIXES:
            return "hdf5"
        if suffix == ".parquet":
            types = ParquetTable(path=path, name=str(path)).types
            is_nested = any(map(is_struct, types.values()))
            return "nested-parquet" if is_nested else "parquet"
    else:
        if (path / MANIFEST).exists():
            raise ValueError(
                f"{path} is an event store already; `icecube2nd inspect` shows it"
            )
        if any((path / which).is_dir() for which in ("train", "test")):
            return "kaggle"
        if any(next(path.glob(f"*{suffix}"), None) for suffix in SQLITE_SUFFIXES):
            return "graphnet-sqlite"
        for folder in (*path.glob("*/"), *path.glob("merged/*/")):
            if next(folder.glob(f"{folder.name}_*.parquet"), None) is not None:
                return "graphnet-parquet"
    raise ValueError(
        f"{path} is of no known format. Known are: a folder of the competition's data "
        "(train/ or test/, and the meta file); GraphNeT's SQLite files (.db) and "
        "parquet folders; parquet files, with `truth` for the file of truth; HDF5 "
        "files (.h5, .hdf5)"
    )
