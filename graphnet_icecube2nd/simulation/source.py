"""Simulated events as a source of the event store: parts that any process can make."""

from __future__ import annotations

import json
import os
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
from graphnet_icecube2nd.simulation.events import simulate_block
from graphnet_icecube2nd.store.conversion import table_digest
from graphnet_icecube2nd.store.readers.source import EventChunk, Part, Source

# Of a part, and so of a shard at most. Few, where few events shall keep all cores busy;
# never a matter of how many cores there are, or stores would differ.
MOST_BLOCKS, PARTS = 64, 16
# Goes up when the same seed gives other events.
VERSION = 1

PathLike = str | os.PathLike[str]


def load_detector(
    geometry: PathLike | DetectorGeometry | None = None,
    ice: PathLike | IceModel | None = None,
) -> SimulatedDetector:
    """Return IceCube-86 in its ice, or tables of the user's in place of either.

    Args:
        geometry: A geometry, or a file as `DetectorGeometry.from_csv` reads it.
        ice: A medium, or a file as `IceModel.from_file` reads it.

    Raises:
        OSError: A file cannot be read.
        ValueError: A table is not understood; names file, line and column.
    """
    icecube = SimulatedDetector.icecube86()
    if not isinstance(geometry, DetectorGeometry):
        known = icecube.geometry
        geometry = known if geometry is None else DetectorGeometry.from_csv(geometry)
    if not isinstance(ice, IceModel):
        ice = icecube.ice if ice is None else IceModel.from_file(ice)
    return SimulatedDetector(geometry, ice)


@dataclass(frozen=True)
class SimulatedPart(Part):
    """Some blocks of a simulation.

    Args:
        config: What is simulated.
        seed: 0 or above.
        first_block: The first block.
        num_events: Events, from the first of that block on.
        geometry: The user's DOM table, or None for IceCube-86.
        ice: The user's ice table, or None for IceCube's.
        medium: Of the detector; None: as `ice` says.
    """

    config: SimulationConfig
    seed: int
    first_block: int
    num_events: int
    geometry: Path | DetectorGeometry | None = None
    ice: Path | None = None
    medium: IceModel | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """What messages call it."""
        first = self.first_block * BLOCK_EVENTS
        return f"simulated events {first} to {first + self.num_events - 1}"

    def fingerprint(self) -> dict[str, Any]:
        """Return what the events follow from."""
        tables = [table_digest(table) for table in (self.geometry, self.ice)]
        return {
            "version": VERSION,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "events": [self.first_block, self.num_events],
            "tables": tables,
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Simulate, a block a chunk, however many pulses it has."""
        detector = load_detector(self.geometry, self.ice or self.medium)
        for first in range(0, self.num_events, BLOCK_EVENTS):
            events = simulate_block(
                self.config,
                detector,
                self.seed,
                self.first_block + first // BLOCK_EVENTS,
                min(BLOCK_EVENTS, self.num_events - first),
            )
            yield EventChunk(
                columns=events.columns,
                offsets=events.offsets,
                event_id=events.event_id,
                truth=events.truth,
            )


def simulated_source(
    num_events: int,
    seed: int,
    config: SimulationConfig,
    *,
    geometry: PathLike | None = None,
    ice: PathLike | None = None,
    detector: Detector | None = None,
) -> Source:
    """Return simulated events as what a store is made of.

    Args:
        num_events: 1 or more.
        seed: 0 or above.
        config: What is simulated.
        geometry: csv of DOMs in place of IceCube-86's.
        ice: Ice table in place of IceCube's.
        detector: The detector, which brings modules and medium; default IceCube-86.

    Raises:
        ValueError: No events, a seed below 0, a table that is not understood, a
            detector whose modules are not known.
    """
    if num_events < 1:
        raise ValueError(f"events must be 1 or more, got {num_events}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or above, got {seed}")
    tables: list[Any] = [None if t is None else Path(t) for t in (geometry, ice)]
    medium = None
    if detector is not None:
        if detector.modules is None and geometry is None:
            raise ValueError(
                f"the modules of detector {detector.name!r} are not known; name a "
                "table of them (geometry, --geometry)"
            )
        if detector.telescope != ICECUBE or detector.name == "deepcore":
            tables[0] = tables[0] or detector.modules
        medium = None if detector.medium == "ice" else detector.medium_optics
    load_detector(tables[0], tables[1])  # says now what is wrong with them
    num_blocks = -(-num_events // BLOCK_EVENTS)
    blocks = int(np.clip(num_blocks // PARTS, 1, MOST_BLOCKS))
    parts = [
        SimulatedPart(
            config,
            seed,
            first,
            min(num_events - first * BLOCK_EVENTS, blocks * BLOCK_EVENTS),
            geometry=tables[0],
            ice=tables[1],
            medium=medium,
        )
        for first in range(0, num_blocks, blocks)
    ]
    notes = (
        "a simplified simulation, for development, tests and comparisons, not for "
        "physics results",
        f"simulated with seed {seed}, version {VERSION}: "
        f"{json.dumps(config.to_dict())}",
    )
    return Source(
        kind="simulation",
        pulse_map=simulated_pulses(detector),
        parts=parts,
        pulse_columns=(SENSOR_ID, TIME, CHARGE, AUXILIARY),
        geometry=tables[0],
        ice=tables[1],
        notes=notes,
        detector=detector and as_simulated(detector),
    )


def simulated_pulses(detector: Detector | None = None) -> PulseMap:
    """Return the columns of simulated pulses; the ice is that of the detector."""
    ice = "correct" if detector is None or detector.pulses.ice != NO_ICE else NO_ICE
    return PulseMap.kaggle(name="simulated", ice=ice)


def as_simulated(detector: Detector) -> Detector:
    """Return a detector with the columns that the simulation writes."""
    return replace(
        detector, pulses=simulated_pulses(detector), vectors=(), extra_waves=()
    )
