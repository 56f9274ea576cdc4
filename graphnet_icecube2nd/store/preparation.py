"""prepare: conversion of the user's files to an event store.

It recognises the format, settles the meaning of columns and angles, converts, and
returns a report. The command `icecube2nd prepare` calls it. Readers are imported when
they are needed, because each needs its own library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.detector import ICECUBE, Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.presets import as_detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import check_one_of, naming
from graphnet_icecube2nd.files import read_json
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.store.angle_check import settle_angles
from graphnet_icecube2nd.store.conversion import SHARD_PULSES, convert
from graphnet_icecube2nd.store.event_store import EventStore, length_quantiles
from graphnet_icecube2nd.store.manifest import MANIFEST, Manifest
from graphnet_icecube2nd.store.masking import StringMask
from graphnet_icecube2nd.store.photons import PhotonResponse
from graphnet_icecube2nd.store.readers.columns import find_event_column
from graphnet_icecube2nd.store.readers.parquet import graphnet_tables, is_nested
from graphnet_icecube2nd.store.readers.source import (
    LMDB_FILE,
    ROOT,
    SUFFIXES,
    Source,
)
from graphnet_icecube2nd.store.readers.tables import ParquetTable
from graphnet_icecube2nd.store.shard_writer import DROP, ERROR, MARK

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Format:
    """Reader of a format.

    Args:
        module: Module of the reader.
        function: Function of the module that opens files.
        arguments: Names of the arguments in `prepare`, by their names in the reader.
        folder: Whether the input is one folder.
    """

    module: str
    function: str
    arguments: Mapping[str, str]
    folder: bool = False


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
    "graphnet-lmdb": Format("lmdb", "lmdb_source", _TABLES),
    "graphnet-parquet": Format("parquet", "graphnet_parquet_source", _TABLES, True),
    "parquet": Format(
        "parquet",
        "parquet_source",
        {"truth": "truth", "event_column": "event_column"},
    ),
    "nested-parquet": Format("parquet", "nested_source", _TABLES),
    "hdf5": Format("hdf5", "hdf5_source", {**_TABLES, "offsets": "offsets_table"}),
    "km3net": Format(
        "km3net",
        "km3net_source",
        {"geometry": "geometry", "triggered": "triggered_hits"},
    ),
    "store": Format("store", "store_source", {}, True),
}


@dataclass(frozen=True, kw_only=True)
class PreparationReport:
    """Report of `prepare`.

    Args:
        store: Folder of the store.
        kind: Format of the files.
        num_events: Number of events, including those without pulses.
        num_empty: Number of events without pulses.
        num_pulses: Number of pulses.
        num_bytes: Size of the shards, bytes.
        seconds: Duration, s.
        quantiles: Pulses per event by quantile, for events with pulses.
        tables: Texts on the tables of pulses and truth that were read.
        left_out: Columns of the files that are not in the store.
        notes: Texts on repairs and omissions.
    """

    store: Path
    kind: str
    num_events: int
    num_empty: int
    num_pulses: int
    num_bytes: int
    seconds: float
    quantiles: dict[str, int]
    tables: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def prepare(
    inputs: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    format: str | None = None,
    detector: Detector | str | None = None,
    pulse_map: PulseMap | str | None = None,
    columns: Mapping[str, str | None] | None = None,
    angles: str | None = None,
    clock: str | None = None,
    truth: PathLike | Sequence[PathLike] | None = None,
    with_truth: bool = True,
    pulses_table: str | Sequence[str] | None = None,
    truth_table: str | None = None,
    offsets_table: str | None = None,
    event_column: str | None = None,
    keep: str | Sequence[str] = (),
    batches: str | Sequence[int] | None = None,
    which: str | None = None,
    duplicates: str = "error",
    event_list: PathLike | None = None,
    only_strings: str | Sequence[int] | None = None,
    photons: Mapping[str, Any] | None = None,
    triggered_hits: bool = False,
    geometry: PathLike | DetectorGeometry | None = None,
    ice: PathLike | None = None,
    workers: int | None = None,
    shard_pulses: int = SHARD_PULSES,
    sort_pulses: bool = True,
    drop_bad_pulses: bool = False,
    mark_bad_events: bool = False,
    on_progress: Progress | None = None,
    on_source: Callable[[Source], None] | None = None,
) -> PreparationReport:
    """Convert files of events to an event store.

    An interrupted conversion resumes when it is called again with the same arguments.

    Args:
        inputs: A file or folder, or several files of one format; a store with
            `event_list` or `only_strings`, for a store of a part of it.
        out: Folder of the store, new or empty.
        format: Format of the files, one of `FORMATS`; default: recognised.
        detector: A `Detector`, or its name (see `list_detectors`). It gives the meaning
            of the columns, geometry, medium and scales.
        pulse_map: Meaning of the columns, if not that of the detector: a `PulseMap`, a
            name, or the path of a JSON file with the result of `PulseMap.to_dict`.
            Default: recognised by the columns.
        columns: Columns that differ from those of the pulse map, by quantity: `x`, `y`,
            `z`, `time`, `charge`, `auxiliary`, `hlc`, `rde`, `sensor_id`, `azimuth`,
            `zenith`. None means no column: `{"hlc": None}`.
        angles: Convention of the truth's angles, `origin` or `flight`; default: that of
            the pulse map. Prometheus files differ; their default is inferred from the
            pulses.
        clock: Clock of the times, see `time_reference` of `PulseMap`: `window`,
            `first_pulse` or `first_triggered`; default: that of the pulse map.
        truth: Files of truth that belong to parquet files of pulses.
        with_truth: Whether truth is read.
        pulses_table: Table of pulses in SQLite, LMDB, HDF5 and GraphNeT parquet files,
            or struct in a nested one; default: recognised. The pulses of several
            tables are joined event by event, in order of time.
        truth_table: Table or struct of the truth; default: recognised. A table of
            results is read as truth only if it is named here.
        offsets_table: Dataset of the events' borders in HDF5 files.
        event_column: Column of the event numbers; default: `event_id` or `event_no`.
        keep: Pulse columns to keep besides those of the pulse map; `all` keeps all.
        batches: Numbers of Kaggle batches; `present` for all that exist.
        which: Kaggle data, `train` or `test`; default: `train` if it exists.
        duplicates: Rule for event numbers that are in several SQLite files: `error`, or
            `renumber`, which numbers all events again and keeps the old numbers.
        event_list: Parquet file of the numbers of the events to read, such as a
            selection of NuBench; default: all events. It cannot be used with
            `duplicates="renumber"`.
        only_strings: Strings whose pulses are read: numbers, or the name of a smaller
            detector with such strings, as `MaskTo` finds them. An event may lose all
            pulses; it then is in the store as an event without pulses.
        photons: Options of the response of modules to single photons, such as
            `{"acceptance": 0.2, "time_spread": 2.0, "merge_time": 5.0, "seed": 1}` (see
            `PhotonResponse`). Default: every photon is a pulse.
        triggered_hits: Whether only hits that took part in the trigger are read from
            KM3NeT's ROOT files.
        geometry: DOMs, or a file of them (see `DetectorGeometry.from_file`), that
            replace those of IceCube-86 or of the input. A detx or datx file also gives
            positions, PMT directions and time offsets to raw hits of KM3NeT.
        ice: Table of ice properties that replaces that of IceCube or of the input.
        workers: Number of parts that are converted at once; default: one per core. HDF5
            and LMDB need one process each, other files one thread.
        shard_pulses: Maximum pulses per shard.
        sort_pulses: Whether the pulses of an event are sorted by time.
        drop_bad_pulses: Whether pulses with impossible values (a charge of 0, a time of
            NaN, an unknown sensor_id, ...) are dropped and counted in the notes; by
            default the first one is an error.
        mark_bad_events: Whether all pulses of an event with such a pulse are dropped;
            the column `pulse_fault` has the reason, which `reconstruct` uses as status.
        on_progress: Function called with the numbers of new events and pulses.
        on_source: Function called once with the source, before the conversion.

    Returns:
        A report of the conversion.

    Raises:
        FileNotFoundError: An input does not exist.
        ValueError: A file is damaged, contradicts itself or another file, or has an
            unknown format; the message names file and row.
        OSError: The disk is full. Free some space and call again.
        ImportError: The library of a format is missing.
    """
    begun = time.monotonic()
    if event_list is not None and duplicates == "renumber":
        raise ValueError(
            f"--event-list {event_list} (event_list) has the event numbers of the "
            "files, which --duplicates renumber (duplicates) replaces by others: "
            "leave one of them out, or prepare each file alone with its own list"
        )
    named = None if detector is None else as_detector(detector)
    paths = _paths(inputs)
    if (Path(out) / MANIFEST).exists():
        raise ValueError(f"{out} is already an event store; choose another folder")
    is_part = event_list is not None or only_strings is not None
    if format is None and is_part and (paths[0] / MANIFEST).is_file():
        format = "store"
    source = open_source(
        paths,
        format=format,
        pulse_map=_pulse_map(pulse_map, named),
        columns=dict(columns or {}),
        truth=None if truth is None else _paths(truth),
        with_truth=with_truth,
        pulses_table=pulses_table,
        truth_table=truth_table,
        offsets_table=offsets_table,
        event_column=event_column,
        keep=keep if isinstance(keep, str) else tuple(keep),
        batches=batches,
        which=which,
        duplicates=duplicates,
        triggered_hits=triggered_hits or None,
        geometry=geometry,
    )
    source = _settled(
        source, angles if with_truth else None, clock, geometry, ice, named
    )
    if event_list is not None:
        chosen = _event_list(Path(event_list), event_column)
        source = replace(source, event_list=chosen)
    if photons is not None:
        source = PhotonResponse.of(source, photons)
    if only_strings is not None:
        source = StringMask.of(source, only_strings)
    if on_source is not None:
        on_source(source)
    manifest = convert(
        source,
        out,
        workers=workers,
        shard_pulses=shard_pulses,
        sort_pulses=sort_pulses,
        bad_pulses=_bad_pulses(drop_bad_pulses, mark_bad_events),
        on_progress=on_progress,
    )
    return _report(Path(out), manifest, source, time.monotonic() - begun)


def prepare_frames(
    pulses: Any,
    truth: Any,
    out: PathLike,
    *,
    detector: Detector | str | None = None,
    pulse_map: PulseMap | str | None = None,
    columns: Mapping[str, str | None] | None = None,
    angles: str | None = None,
    clock: str | None = None,
    event_column: str | None = None,
    keep: str | Sequence[str] = (),
    geometry: PathLike | DetectorGeometry | None = None,
    ice: PathLike | None = None,
    sort_pulses: bool = True,
    drop_bad_pulses: bool = False,
) -> PreparationReport:
    """Convert data frames of pulses and truth to an event store.

    Arguments and errors are explained in `prepare`.

    Args:
        pulses: Table with one row per pulse: a DataFrame of pandas or polars, or a
            table of pyarrow. The event number may be the index.
        truth: Table with one row per event, or None.
        out: Folder of the store, new or empty.
        detector: A `Detector`, or its name.
        pulse_map: Meaning of the columns, if not that of the detector.
        columns: Columns that differ from those of the pulse map, by quantity.
        angles: Convention of the truth's angles; default: that of the pulse map.
        clock: Clock of the times; default: that of the pulse map.
        event_column: Column of the event numbers; default: `event_id` or `event_no`.
        keep: Pulse columns to keep besides those of the pulse map; `all` keeps all.
        geometry: DOMs, or a table of them, that replace those of IceCube-86.
        ice: Table of ice properties that replaces that of IceCube.
        sort_pulses: Whether the pulses of an event are sorted by time.
        drop_bad_pulses: Whether pulses with impossible values are dropped.

    Returns:
        A report of the conversion.

    Raises:
        ValueError: See `prepare`.
        TypeError: `pulses` or `truth` is not a data frame.
    """
    from graphnet_icecube2nd.store.readers.frames import frames_source

    begun = time.monotonic()
    named = None if detector is None else as_detector(detector)
    source = frames_source(
        pulses,
        truth,
        pulse_map=_pulse_map(pulse_map, named),
        columns=dict(columns or {}),
        event_column=event_column,
        keep=keep if isinstance(keep, str) else tuple(keep),
    )
    source = _settled(source, angles, clock, geometry, ice, named)
    manifest = convert(
        source,
        out,
        workers=1,
        sort_pulses=sort_pulses,
        bad_pulses=_bad_pulses(drop_bad_pulses),
    )
    return _report(Path(out), manifest, source, time.monotonic() - begun)


def _bad_pulses(drop: bool, mark: bool = False) -> str:
    if drop and mark:
        raise ValueError("give only one of drop_bad_pulses and mark_bad_events")
    return DROP if drop else MARK if mark else ERROR


def open_source(paths: Sequence[Path], *, format: str | None, **given: Any) -> Source:
    """Return the source of events in files, with arguments of `prepare`."""
    format = format or recognise(paths)
    check_one_of("format", format, FORMATS)
    known = FORMATS[format]
    always = {"pulse_map", "columns", "keep", "with_truth", "geometry"}
    for name, value in given.items():
        default = "error" if name == "duplicates" else None
        if name not in {*known.arguments.values(), *always} and value != default:
            others = [f for f in FORMATS if name in FORMATS[f].arguments.values()]
            raise ValueError(
                f"{name}={value!r} cannot be used with format {format!r}, only with "
                f"{', '.join(others)}. Leave it out"
            )
    if known.folder and len(paths) > 1:
        raise ValueError(
            f"the input of format {format!r} must be one folder, got {len(paths)} paths"
        )
    arguments = {name: given[ours] for name, ours in known.arguments.items()}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    names = arguments.get("pulses")
    if isinstance(names, list | tuple) and len(names) == 1:
        arguments["pulses"] = names[0]
    if not given["with_truth"]:
        arguments["truth"] = False
    module = import_module(f"{__package__}.readers.{known.module}")
    source: Source = getattr(module, known.function)(
        paths[0] if known.folder else paths,
        pulse_map=given["pulse_map"],
        columns=given["columns"],
        keep=given["keep"],
        **arguments,
    )
    return source


def recognise(paths: Sequence[Path]) -> str:
    """Return the format of files or of a folder; ValueError if it is unknown."""
    path = paths[0]
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    if path.is_dir():
        if (path / MANIFEST).exists():
            raise ValueError(
                f"{path} is already an event store; `icecube2nd inspect` shows it, and "
                "`prepare` with --only-strings (only_strings) or --event-list "
                "(event_list) takes a part of it"
            )
        if next(chain(path.glob(LMDB_FILE), path.glob(f"*/{LMDB_FILE}")), None):
            return "graphnet-lmdb"
        if any((path / which).is_dir() for which in ("train", "test")):
            return "kaggle"
    for format, suffixes in SUFFIXES.items():
        if format == "parquet" and path.is_dir() and graphnet_tables(path):
            return "graphnet-parquet"
        for file in candidates:
            if file.suffix.lower() in suffixes and (
                format != "km3net" or _is_root(file)
            ):
                return _parquet_of(file) if format == "parquet" else format
    raise ValueError(
        f"{path} has an unknown format. Known formats are: a folder of the "
        "competition's data (train/ or test/, and the meta file); GraphNeT's SQLite "
        "files (.db), parquet folders and LMDB (.lmdb); parquet files, or a folder of "
        "them, with --truth (truth) for the file of truth; HDF5 files (.h5, .hdf5); "
        "offline ROOT files of KM3NeT (.root)"
    )


def _is_root(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(ROOT)) == ROOT


def _parquet_of(path: Path) -> str:
    """Return the format of a parquet file."""
    nested = is_nested(ParquetTable(path=path, name=str(path)).types)
    return "nested-parquet" if nested else "parquet"


def _settled(
    source: Source,
    angles: str | None,
    clock: str | None,
    geometry: PathLike | DetectorGeometry | None,
    ice: PathLike | None,
    named: Detector | None,
) -> Source:
    """Return a source with the user's clock and tables, and its angle convention."""
    if clock is not None:
        pulse_map = replace(source.pulse_map, time_reference=clock)
        source = replace(source, pulse_map=pulse_map)
    if isinstance(geometry, str | os.PathLike):
        geometry = Path(geometry)
    modules, named = geometry or source.geometry, named or source.detector
    if named is not None:
        if modules is None and named.telescope != ICECUBE:
            modules = named.modules
        elif modules is not None:
            if isinstance(modules, Path):
                modules = DetectorGeometry.from_file(modules)
            named = named.with_tables(modules)
            modules = named.modules  # with the detector's centre as their zero
    ice = Path(ice) if ice else source.ice
    source = replace(source, detector=named, geometry=modules, ice=ice)
    return settle_angles(source, angles)


def _paths(given: PathLike | Sequence[PathLike]) -> list[Path]:
    several = [given] if isinstance(given, str | os.PathLike) else list(given)
    paths = [Path(path) for path in several]
    if not paths:
        raise ValueError("give at least one input file or folder")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    return paths


def _event_list(path: Path, column: str | None) -> NDArray[np.int64]:
    """Return the event numbers in a parquet file, ascending."""
    table = ParquetTable(path=path, name=str(path))
    key = find_event_column(table.types, column, str(path))
    numbers = [ids for _, ids in table.ids(key)]
    if not sum(map(len, numbers)):
        raise ValueError(f"{path} must have event numbers, found none")
    chosen: NDArray[np.int64] = np.unique(np.concatenate(numbers))
    return chosen


def _pulse_map(given: PulseMap | str | None, named: Detector | None) -> PulseMap | None:
    if given is None:
        return None if named is None else named.pulses
    if isinstance(given, PulseMap):
        return given
    path = Path(given)
    if path.suffix == ".json" or path.is_file():
        with naming(path):
            return PulseMap.from_dict(read_json(path))
    return PulseMap.by_name(given)


def _report(
    out: Path, manifest: Manifest, source: Source, seconds: float
) -> PreparationReport:
    files = [file for shard in manifest.shards for file in shard.files.values()]
    return PreparationReport(
        store=out,
        kind=manifest.kind,
        num_events=manifest.num_events,
        num_empty=manifest.num_empty,
        num_pulses=manifest.num_pulses,
        num_bytes=sum(file["bytes"] for file in files),
        seconds=seconds,
        quantiles=length_quantiles(EventStore(out)),
        tables=source.tables,
        left_out=source.left_out,
        notes=manifest.notes,
    )
