"""simulate: events with known truth, as a store or as files others read.

A simplified simulation, for development, tests and comparisons, not for physics
results. The command `icecube2nd simulate` calls it and adds nothing of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.conventions import AUXILIARY, CHARGE, SENSOR_ID, TIME
from graphnet_icecube2nd.detector.detector import ICECUBE, Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import NO_ICE, PulseMap
from graphnet_icecube2nd.simulation.configuration import BLOCK_EVENTS, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.events import SimulatedEvents, simulate_block
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.store.conversion import convert, table_digest
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.exporter import FORMATS, check_output, export, format_of
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.part_conversion import Progress
from graphnet_icecube2nd.store.preparation import as_detector
from graphnet_icecube2nd.store.readers.source import Part, Source

STORE, GRAPHNET = "store", "graphnet"
OUTPUTS = (STORE, GRAPHNET, *FORMATS)
# Blocks of a part, and so of a shard, at most. They are fewer where few events shall
# keep all cores busy; never by the number of cores, or stores would differ.
MOST_BLOCKS, PARTS = 64, 16
VERSION = 1  # goes up when the same seed gives other events


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
    processes, change none. An interrupted call goes on when it is made again.

    Water has the scattering and absorption of ANTARES' site (`IceModel.water`) at every
    site, unless the detector has `optics` or `ice` is given; its Cherenkov angle and
    speed of light are those of ice. A note of the store says which medium it was.

    Args:
        out: Folder of the store, new or empty; or, with another format, the file or
            folder that `export` makes.
        num_events: Number of events, 1 or more.
        seed: Random seed, 0 or above; another one gives other events.
        config: Topologies, energies and noise; default: as the competition's data look.
        detector: Name of the detector (see `list_detectors`), or a `Detector`; default
            IceCube-86.
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
    # Another format goes by way of a store, which goes on where it was interrupted.
    store = out if format == STORE else out.with_name(f".{out.name}.store")
    if not (store / MANIFEST).exists():
        convert(source, store, workers=workers, on_progress=on_progress)
    elif not _is_of(EventStore(store), source, num_events):
        raise ValueError(f"{store} is left from another simulation; remove it")
    if format != STORE:
        export(store, out, format=format)
        shutil.rmtree(store)
    return out


@dataclass(frozen=True)
class SimulatedPart(Part):
    """Some blocks of a simulation, which any process can make."""

    config: SimulationConfig
    seed: int
    first_block: int
    num_events: int  # from the first of that block on
    geometry: Path | DetectorGeometry | None  # the user's modules; None: IceCube-86
    ice: Path | None  # the user's ice table
    medium: IceModel | None  # the detector's, where there is no table; None: IceCube's

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        first = self.first_block * BLOCK_EVENTS
        return f"simulated events {first} to {first + self.num_events - 1}"

    def fingerprint(self) -> dict[str, Any]:
        """Return what the events follow from."""
        return {
            "version": VERSION,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "events": [self.first_block, self.num_events],
            "tables": [table_digest(table) for table in (self.geometry, self.ice)],
        }

    def chunks(self, max_pulses: int) -> Iterator[SimulatedEvents]:
        """Simulate, a block a chunk, however many pulses it has."""
        detector = self.detector()
        for first in range(0, self.num_events, BLOCK_EVENTS):
            block = self.first_block + first // BLOCK_EVENTS
            num_events = min(BLOCK_EVENTS, self.num_events - first)
            yield simulate_block(self.config, detector, self.seed, block, num_events)

    def detector(self) -> SimulatedDetector:
        """Return IceCube-86 in its ice, with the user's tables in place of either.

        Raises:
            OSError: A file cannot be read.
            ValueError: A table is not understood; names file, line and column.
        """
        geometry, ice = self.geometry, self.medium
        if geometry is None:
            geometry = DetectorGeometry.icecube86()
        elif isinstance(geometry, Path):
            geometry = DetectorGeometry.from_csv(geometry)
        if self.ice is not None:
            ice = IceModel.from_file(self.ice)
        return SimulatedDetector(geometry, ice or IceModel.icecube())


def simulated_source(
    num_events: int,
    seed: int,
    config: SimulationConfig,
    *,
    geometry: str | os.PathLike[str] | None = None,
    ice: str | os.PathLike[str] | None = None,
    detector: Detector | None = None,
) -> Source:
    """Return simulated events as what a store is made of; arguments as `simulate`."""
    if num_events < 1:
        raise ValueError(f"events must be 1 or more, got {num_events}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or above, got {seed}")
    modules: Any = None if geometry is None else Path(geometry)
    table = None if ice is None else Path(ice)
    medium, pulses = None, PulseMap.kaggle(name="simulated")
    if detector is not None:
        if detector.modules is None and geometry is None:
            raise ValueError(
                f"the modules of detector {detector.name!r} are not known; name a "
                "table of them (geometry, --geometry)"
            )
        if detector.telescope != ICECUBE or detector.name == "deepcore":
            modules = modules or detector.modules
        medium = None if detector.medium == "ice" else detector.medium_optics
        # Pulses get the columns that the simulation writes.
        profile = NO_ICE if detector.pulses.ice == NO_ICE else "correct"
        pulses = PulseMap.kaggle(name="simulated", ice=profile)
        detector = replace(detector, pulses=pulses, vectors=(), extra_waves=())
    num_blocks = -(-num_events // BLOCK_EVENTS)
    blocks = int(np.clip(num_blocks // PARTS, 1, MOST_BLOCKS))
    parts = [
        SimulatedPart(
            config,
            seed,
            first,
            min(num_events - first * BLOCK_EVENTS, blocks * BLOCK_EVENTS),
            modules,
            table,
            medium,
        )
        for first in range(0, num_blocks, blocks)
    ]
    parts[0].detector()  # says now what is wrong with the tables
    notes = [
        "a simplified simulation, for development, tests and comparisons, not for "
        "physics results",
        f"simulated with seed {seed}, version {VERSION}: "
        f"{json.dumps(config.to_dict())}",
    ]
    if detector is not None and medium is not None and table is None:
        scattering = float(medium.scattering_length_N[0])
        absorption = float(medium.absorption_length_N[0])
        notes.append(
            f"light crosses {detector.medium} of {scattering:g} m scattering and "
            f"{absorption:g} m absorption length, with the Cherenkov angle and speed "
            "of light of ice"
        )
    return Source(
        kind="simulation",
        pulse_map=pulses,
        parts=parts,
        pulse_columns=(SENSOR_ID, TIME, CHARGE, AUXILIARY),
        geometry=modules,
        ice=table,
        notes=tuple(notes),
        detector=detector,
    )


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
