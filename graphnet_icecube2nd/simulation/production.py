"""Events with known truth: `simulate` writes stores and files, a stream gives batches.

The simulation is simplified, for development, tests and comparisons, not for physics
results. Shape letters: B events, T pulses.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from graphnet_icecube2nd.conventions import (
    AZIMUTH,
    DETECTOR_CENTRE_DEPTH,
    HLC,
    TIME,
    ZENITH,
    angles_to_unit_vector,
)
from graphnet_icecube2nd.detector.detector import ICECUBE, Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import ICE, SUBSTANCES, IceModel
from graphnet_icecube2nd.detector.module import ICECUBE_DOM
from graphnet_icecube2nd.detector.presets import as_detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.events import auxiliary_of, clock_zeros
from graphnet_icecube2nd.events.features import FeatureBuilder
from graphnet_icecube2nd.events.selection import check_selection, select_pulses
from graphnet_icecube2nd.files import only_writer
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.simulation.configuration import BLOCK_EVENTS, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector, written_as
from graphnet_icecube2nd.simulation.events import (
    TRUTH_NUMBERS,
    SimulatedEvents,
    pulse_columns,
    simulate_block,
)
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.store.conversion import convert, table_digest
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.readers.source import Part, Source
from graphnet_icecube2nd.store.writers import FORMATS, check_output, export, format_of

STORE, GRAPHNET = "store", "graphnet"
OUTPUTS = (STORE, GRAPHNET, *FORMATS)
# Maximum blocks of a part, and so of a shard. Fewer are used if there are few events,
# to keep all cores busy. The number of cores has no effect, or stores would differ.
MOST_BLOCKS, PARTS = 64, 16
VERSION = 2  # increases if the same seed gives other events
_PLACE = ("position_x", "position_y", "position_z")  # of a vertex
_WHEN = "vertex_time"


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

    Events depend only on (seed, configuration, tables): the number of events or
    processes changes none. An interrupted call resumes when it is made again.

    Water has the scattering and absorption of ANTARES' site (`IceModel.water`) at every
    site, unless the detector has `optics` or `ice` is given. A note in the store names
    medium and modules. Pulses of KM3NeT have the columns of its files, with the time
    over threshold and the direction of the PMT; those of other detectors the columns of
    the competition, with the direction of the PMT if a module has several.

    Args:
        out: Folder of the store, new or empty; for another format, the file or folder
            that `export` makes.
        num_events: Number of events, 1 or more.
        seed: Random seed, 0 or above; each seed gives other events.
        config: Topologies, energies and noise; default: `SimulationConfig.of` the
            detector, which for IceCube-86 is like the competition's data.
        detector: Name of the detector (see `list_detectors`), or a `Detector`; default:
            IceCube-86.
        format: Format of the output: `store`, or a format of `export`: `kaggle`,
            `graphnet-sqlite`, `graphnet-parquet`, or `graphnet`, which is SQLite if
            `out` ends in .db and parquet otherwise.
        geometry: Table of DOMs that replaces the detector's, see
            `DetectorGeometry.from_file`. Positions count from the detector's centre or,
            as in `prepare`, from the zero of its files. A warning says if the ice table
            does not cover them.
        ice: Ice table that replaces IceCube's.
        workers: Number of processes; default: one per core.
        on_progress: Function called regularly with the events and pulses since the last
            call.

    Returns:
        `out`.

    Raises:
        FileExistsError: The output exists.
        ValueError: An argument is out of range.
        OSError: The disk is full.
        ImportError: The library of a format is missing.
    """
    out = Path(out)
    if format not in OUTPUTS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(OUTPUTS)}")
    if format != STORE:
        format = format_of(out, None if format == GRAPHNET else format)
        check_output(out, format)
    if (out / MANIFEST).exists():
        raise ValueError(f"{out} is an event store already; choose another folder")
    named = None if detector is None else as_detector(detector)
    source = simulated_source(
        num_events,
        seed,
        config or SimulationConfig.of(named),
        geometry=geometry,
        ice=ice,
        detector=named,
    )
    # Another format is made from a store, which resumes after an interruption.
    store = out if format == STORE else out.with_name(f".{out.name}.store")
    with only_writer(out):
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
    num_events: int  # from the first event of that block
    detector: SimulatedDetector
    tables: tuple[str | None, ...]  # digests of the user's modules and ice

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in messages."""
        first = self.first_block * BLOCK_EVENTS
        return f"simulated events {first} to {first + self.num_events - 1}"

    def fingerprint(self) -> dict[str, Any]:
        """Return all values on which the events depend."""
        found = {
            "version": VERSION,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "events": [self.first_block, self.num_events],
            "tables": list(self.tables),
        }
        detector = self.detector
        parts = detector.substance, detector.module
        if parts != (SUBSTANCES[ICE], ICECUBE_DOM):
            lengths = detector.ice.scattering_length_N, detector.ice.absorption_length_N
            found["medium"] = [repr(parts), *(n.tolist() for n in lengths)]
        return found

    def chunks(self, max_pulses: int) -> Iterator[SimulatedEvents]:
        """Simulate one block per chunk, with any number of pulses."""
        for first in range(0, self.num_events, BLOCK_EVENTS):
            yield simulate_block(
                self.config,
                self.detector,
                self.seed,
                self.first_block + first // BLOCK_EVENTS,
                min(BLOCK_EVENTS, self.num_events - first),
            )


def simulated_source(
    num_events: int,
    seed: int,
    config: SimulationConfig,
    *,
    geometry: str | os.PathLike[str] | None = None,
    ice: str | os.PathLike[str] | None = None,
    detector: Detector | None = None,
) -> Source:
    """Return simulated events as the source of a store; arguments as in `simulate`."""
    if num_events < 1:
        raise ValueError(f"events must be 1 or more, got {num_events}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or above, got {seed}")
    modules: Any = None if geometry is None else Path(geometry)
    table = None if ice is None else Path(ice)
    if detector is None:
        simulated = SimulatedDetector.icecube86()
        pulses = PulseMap.kaggle(name="simulated")
    else:
        detector = as_detector(detector, geometry)
        simulated = SimulatedDetector.of(detector)
        own = detector.telescope == ICECUBE and simulated.geometry.name == ICECUBE
        if geometry is not None or not own:
            modules = detector.modules
        detector = written_as(detector)
        pulses = detector.pulses
    notes = [
        "a simplified simulation, for development, tests and comparisons, not for "
        "physics results",
        f"simulated with seed {seed}, version {VERSION}: "
        f"{json.dumps(config.to_dict())}",
    ]
    medium = simulated.ice if table is None else IceModel.from_file(table)
    if detector is not None and detector.medium != ICE:
        pmts = simulated.module.pmts
        notes.append(
            f"light crosses {detector.medium} of "
            f"{float(medium.scattering_length_N[0]):g} m scattering and "
            f"{float(medium.absorption_length_N[0]):g} m absorption length to "
            f"modules {simulated.module.name!r}, each with {pmts} PMT{'s' * (pmts > 1)}"
        )
    places = simulated.geometry
    if detector is None and modules is not None:
        places = DetectorGeometry.from_file(modules)
    if uncovered := medium.uncovered(places.position_S3[:, 2]):
        warnings.warn(
            f"{places.name}: {uncovered}. Count z upwards from "
            f"{DETECTOR_CENTRE_DEPTH:g} m below the surface, or give an ice table that "
            "covers the DOMs (ice, --ice)",
            stacklevel=3,
        )
    simulated = replace(simulated, geometry=places, ice=medium)
    tables = tuple(table_digest(t) for t in (modules, table))
    num_blocks = -(-num_events // BLOCK_EVENTS)
    blocks = int(np.clip(num_blocks // PARTS, 1, MOST_BLOCKS))
    parts = []
    for first in range(0, num_blocks, blocks):
        some = min(num_events - first * BLOCK_EVENTS, blocks * BLOCK_EVENTS)
        parts.append(SimulatedPart(config, seed, first, some, simulated, tables))
    return Source(
        kind="simulation",
        pulse_map=pulses,
        parts=parts,
        pulse_columns=pulse_columns(simulated),
        geometry=modules,
        ice=table,
        notes=tuple(notes),
        detector=detector,
    )


def _is_of(store: EventStore, source: Source, num_events: int) -> bool:
    """Return whether a store contains the events of a source."""
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


class SimulatedStream(IterableDataset[PackedBatch]):
    """Batches of simulated events, reproducible by seed, endless by default.

    No event occurs twice within one iteration. Every iteration begins at `first_block`:
    set another seed or a later first block for an epoch with other events.

    Use it with `torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)`.
    Each worker makes its own blocks, so the events are those of one process and none
    occurs twice; the workers' batches alternate. Blocks of 256 events are divided into
    batches, so the last batch of a block may be smaller.

    The simulation is simplified, for development, tests and comparisons.

    Args:
        batch_size: Events per batch, 1 to 256.
        seed: Random seed, 0 or above; each seed gives other events.
        config: Topologies, energies and noise; default: `SimulationConfig.of` the
            detector, which for IceCube-86 is like the competition's data.
        detector: Detector of the events, see `SimulatedDetector.of`; default:
            IceCube-86.
        max_pulses: Maximum pulses per event; longer events are cut.
        selection: Rule for the pulses kept of longer events: `uniform`, `hlc_first` or
            `first`.
        first_block: First block of 256 events; a resumed training continues after the
            blocks that it has used.
        num_blocks: Number of blocks of all ranks together, the same for each; default:
            no end.
        rank: Index of this process among `world_size`, which share the blocks.
        world_size: Number of processes that train together.
        truth: Names of the truth besides `direction`. Positions of vertices count from
            the detector's centre and their times as those of the pulses.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        seed: int = 0,
        config: SimulationConfig | None = None,
        detector: SimulatedDetector | None = None,
        max_pulses: int = 192,
        selection: str = "uniform",
        first_block: int = 0,
        num_blocks: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        truth: tuple[str, ...] = (),
    ) -> None:
        check_selection(selection, max_pulses)
        for name, value, low, high in (
            ("batch_size", batch_size, 1, BLOCK_EVENTS),
            ("seed", seed, 0, math.inf),
            ("first_block", first_block, 0, math.inf),
            ("num_blocks", num_blocks, 1, math.inf),
            ("world_size", world_size, 1, math.inf),
            ("rank", rank, 0, world_size - 1),
        ):
            if value is not None and not low <= value <= high:
                limit = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise ValueError(f"{name} must be {limit}; got {value}")
        if num_blocks is not None and num_blocks % world_size:
            raise ValueError(
                f"num_blocks must be a multiple of world_size, so that ranks get equal "
                f"numbers of batches; got {num_blocks} and {world_size}"
            )
        if unknown := sorted(set(truth) - set(TRUTH_NUMBERS)):
            raise ValueError(
                f"no truth {', '.join(unknown)}; choose from {', '.join(TRUTH_NUMBERS)}"
            )
        self.batch_size, self.seed = batch_size, seed
        self.detector = detector or SimulatedDetector.icecube86()
        written = self.detector.written
        self.config = config or SimulationConfig.of(written)
        self.max_pulses, self.selection = max_pulses, selection
        self.first_block, self.num_blocks = first_block, num_blocks
        self.rank, self.world_size = rank, world_size
        self.truth = truth
        if written is None:
            written = Detector.from_pulse_map(
                PulseMap.kaggle(name="simulated"),
                self.detector.geometry,
                self.detector.ice,
            )
        self.pulse_map = written.pulses
        self._features = FeatureBuilder(written)

    def __iter__(self) -> Iterator[PackedBatch]:
        """Yield the batches of this process and worker."""
        worker = get_worker_info()
        turn = 0 if worker is None else worker.id
        step = 1 if worker is None else worker.num_workers
        block = self.rank + self.world_size * turn
        while self.num_blocks is None or block < self.num_blocks:
            number = self.first_block + block
            events = simulate_block(self.config, self.detector, self.seed, number)
            borders = [*range(0, len(events), self.batch_size), len(events)]
            yield from self._packed(events).split(np.diff(borders).tolist())
            block += self.world_size * step

    def _packed(self, events: SimulatedEvents) -> PackedBatch:
        offsets = torch.from_numpy(events.offsets)
        event_id = torch.from_numpy(events.event_id)
        names = self.pulse_map.columns()
        columns = {
            names[n]: torch.from_numpy(values)
            for n, values in events.columns.items()
            if n in names
        }
        if HLC in columns:  # with arithmetic, which booleans lack
            columns[HLC] = columns[HLC].to(torch.uint8)
        truth = {name: torch.from_numpy(events.truth[name]) for name in self.truth}
        for name, axis in zip(_PLACE, self.pulse_map.origin, strict=True):
            if name in truth:
                truth[name] = truth[name] - axis
        if self.pulse_map.is_relative:
            clock = self.pulse_map.time_reference
            zero_B = torch.from_numpy(clock_zeros(columns, events.offsets, clock)[0])
            columns[TIME] = columns[TIME] - zero_B.repeat_interleave(offsets.diff())
            if _WHEN in truth:
                truth[_WHEN] = truth[_WHEN] - zero_B
        kept_T, kept_offsets = select_pulses(
            offsets,
            self.max_pulses,
            selection=self.selection,
            auxiliary=auxiliary_of(columns),
            event_id=event_id,
            seed=self.seed,
        )
        direction = angles_to_unit_vector(events.truth[ZENITH], events.truth[AZIMUTH])
        return PackedBatch.unchecked(
            features=self._features({n: c[kept_T] for n, c in columns.items()}),
            offsets=kept_offsets,
            n_pulses=offsets.diff(),
            names=self.pulse_map.feature_names,
            event_id=event_id,
            truth={"direction": direction.float(), **truth},
            units=self._features.detector.units,
        )
