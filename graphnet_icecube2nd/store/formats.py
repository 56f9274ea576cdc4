"""The formats that `prepare` reads: how each is recognised, what it can be told.

Readers are imported when they are needed: each brings a library of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.readers.source import (
    HDF5_SUFFIXES,
    SQLITE_SUFFIXES,
    Source,
)


def open_source(paths: Sequence[Path], *, format: str | None, **given: Any) -> Source:
    """Return the source of events that files are, by their format.

    Args:
        paths: As `prepare`.
        format: As `prepare`.
        **given: The further arguments of `prepare` that say what is read.

    Raises:
        ValueError: Unknown format, an argument that the format does not know, or what
            the format's reader finds wrong.
    """
    format = format or recognise(paths)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")
    understood, open_format = FORMATS[format]
    always = {"pulse_map", "keep", "with_truth"}
    for name, value in given.items():
        default = () if name == "keep" else "error" if name == "duplicates" else None
        if name not in understood | always and value != default:
            raise ValueError(
                f"{name}={value!r} means nothing for the format {format!r}; it is for "
                f"{', '.join(f for f, (names, _) in FORMATS.items() if name in names)}"
            )
    source: Source = open_format(list(paths), given)
    return source


def recognise(paths: Sequence[Path]) -> str:
    """Return the format of files or of a folder.

    Raises:
        ValueError: It is none that is known.
    """
    path = paths[0]
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in SQLITE_SUFFIXES:
            return "graphnet-sqlite"
        if suffix in HDF5_SUFFIXES:
            return "hdf5"
        if suffix == ".parquet":
            return "nested-parquet" if _is_nested(path) else "parquet"
    else:
        if (path / MANIFEST).exists():
            raise ValueError(
                f"{path} is an event store already; `icecube2nd inspect` shows it"
            )
        if any((path / which).is_dir() for which in ("train", "test")):
            return "kaggle"
        if any(next(path.glob(f"*{suffix}"), None) for suffix in SQLITE_SUFFIXES):
            return "graphnet-sqlite"
        tables = [table for table in _subfolders(path) if _has_chunks(table)]
        tables += [
            table for table in _subfolders(path / "merged") if _has_chunks(table)
        ]
        if tables:
            return "graphnet-parquet"
    raise ValueError(
        f"{path} is of no known format. Known are: a folder of the competition's data "
        "(train/ or test/, and the meta file); GraphNeT's SQLite files (.db) and "
        "parquet folders; parquet files, with `truth` for the file of truth; HDF5 "
        "files (.h5, .hdf5)"
    )


def _kaggle(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.kaggle import kaggle_source

    return kaggle_source(
        _only(paths, "kaggle"),
        batches=given["batches"],
        which=given["which"],
        truth=given["with_truth"],
        pulse_map=given["pulse_map"],
        keep=given["keep"],
    )


def _sqlite(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.sqlite import sqlite_source

    return sqlite_source(
        paths,
        **_of_tables(given, "event_no"),
        duplicates=given["duplicates"],
    )


def _graphnet_parquet(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.graphnet_parquet import (
        graphnet_parquet_source,
    )

    return graphnet_parquet_source(
        _only(paths, "graphnet-parquet"),
        **_of_tables(given, "event_no"),
    )


def _parquet(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.flat_parquet import parquet_source

    return parquet_source(
        paths,
        given["truth"] if given["with_truth"] else None,
        pulse_map=given["pulse_map"],
        event_column=given["event_column"],
        keep=given["keep"],
    )


def _nested_parquet(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.nested_parquet import nested_source

    return nested_source(
        paths,
        **_of_tables(given),
    )


def _hdf5(paths: list[Path], given: dict[str, Any]) -> Source:
    from graphnet_icecube2nd.store.readers.hdf5 import hdf5_source

    return hdf5_source(
        paths,
        offsets=given["offsets_table"],
        **_of_tables(given),
    )


def _of_tables(
    given: dict[str, Any], event_column: str | None = None
) -> dict[str, Any]:
    """Return what readers of named tables are told, in their words."""
    return {
        "pulses": given["pulses_table"],
        "truth": given["truth_table"] if given["with_truth"] else False,
        "pulse_map": given["pulse_map"],
        "event_column": given["event_column"] or event_column,
        "keep": given["keep"],
    }


_TABLES = {"pulses_table", "truth_table"}
# What each format can be told, and what opens it.
FORMATS: dict[str, tuple[set[str], Callable[[list[Path], dict[str, Any]], Source]]] = {
    "kaggle": ({"batches", "which"}, _kaggle),
    "graphnet-sqlite": ({*_TABLES, "event_column", "duplicates"}, _sqlite),
    "graphnet-parquet": ({*_TABLES, "event_column"}, _graphnet_parquet),
    "parquet": ({"truth", "event_column"}, _parquet),
    "nested-parquet": ({*_TABLES, "event_column"}, _nested_parquet),
    "hdf5": ({*_TABLES, "offsets_table", "event_column"}, _hdf5),
}


def _only(paths: list[Path], format: str) -> Path:
    if len(paths) > 1:
        raise ValueError(f"the format {format!r} is one folder, got {len(paths)} paths")
    return paths[0]


def _is_nested(path: Path) -> bool:
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no parquet file, or not whole: {error}") from None
    return any(pa.types.is_struct(field.type) for field in schema)


def _subfolders(path: Path) -> list[Path]:
    return (
        [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
    )


def _has_chunks(folder: Path) -> bool:
    return next(folder.glob(f"{folder.name}_*.parquet"), None) is not None
