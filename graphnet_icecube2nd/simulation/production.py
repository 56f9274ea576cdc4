"""simulate: events with known truth, as a store or as files others read.

A simplified simulation, for development, tests and comparisons, not for physics
results. The command `icecube2nd simulate` calls it and adds nothing of its own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.source import simulated_source
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.part_conversion import Progress
from graphnet_icecube2nd.store.preparation import as_detector
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.writers import FORMATS, check_output, export, format_of

STORE, GRAPHNET = "store", "graphnet"
OUTPUTS = (STORE, GRAPHNET, *FORMATS)


def simulate(
    out: str | os.PathLike[str],
    *,
    num_events: int,
    seed: int = 0,
    config: SimulationConfig | None = None,
    detector: Detector | str | None = None,
    format: str = STORE,
    geometry: str | os.PathLike[str] | None = None,
    ice: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Simulate events and write them.

    Events follow from (seed, configuration, tables) alone: more of them, or more
    processes, change none. Killed in the middle, the same call goes on.

    Args:
        out: Folder of the store, new or empty; or, with another format, the file or
            folder that `export` makes.
        num_events: How many.
        seed: Which, 0 or above.
        config: What is simulated; default: as the competition's data look.
        detector: With which detector: its name (see `list_detectors`), or a `Detector`;
            default IceCube-86.
        format: `store`, or as `export`: `kaggle`, `graphnet-sqlite`,
            `graphnet-parquet`, or `graphnet`: SQLite if `out` ends in .db, else
            parquet.
        geometry: csv of DOMs in place of IceCube-86's.
        ice: Ice table in place of IceCube's.
        workers: Processes; None for one a core.
        on_progress: Called now and then with the events and pulses since the last call.

    Returns:
        `out`.

    Raises:
        FileExistsError, ValueError: The output is there already, or an argument is out
            of range.
        OSError: The disk is full.
        ImportError: A format's library is missing.
    """
    out = Path(out)
    if format not in OUTPUTS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(OUTPUTS)}")
    if format != STORE:
        format = format_of(out, None if format == GRAPHNET else format)
        check_output(out, format)
    if (out / MANIFEST).exists():
        raise ValueError(f"{out} is an event store already; choose another folder")
    source = simulated_source(
        num_events,
        seed,
        config or SimulationConfig(),
        geometry=geometry,
        ice=ice,
        detector=as_detector(detector),
    )
    if format == STORE:
        convert(source, out, workers=workers, on_progress=on_progress)
        return out
    # By way of a store, which goes on where it was killed.
    store = out.with_name(f".{out.name}.store")
    if not (store / MANIFEST).exists():
        convert(source, store, workers=workers, on_progress=on_progress)
    elif not _is_of(EventStore(store), source, num_events):
        raise ValueError(f"{store} is left from another simulation; remove it")
    export(store, out, format=format)
    shutil.rmtree(store)
    return out


def _is_of(store: EventStore, source: Source, num_events: int) -> bool:
    """Say whether a store holds the events of a source."""
    tables = {entry["sha256"] for entry in store.manifest.tables.values()}
    paths = [t for t in (source.geometry, source.ice) if isinstance(t, Path)]
    given = {sha256_of(path) for path in paths}
    detector = None if source.detector is None else source.detector.to_dict()
    return (
        store.manifest.notes == source.notes
        and len(store) == num_events
        and store.manifest.detector == detector
        and given <= tables
    )
