"""Simulated events just in time: batches for training, and no files.

Shape letters: B events, T pulses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    AZIMUTH,
    ZENITH,
    angles_to_unit_vector,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.features import FeatureBuilder
from graphnet_icecube2nd.events.selection import check_selection, select_pulses
from graphnet_icecube2nd.simulation.configuration import BLOCK_EVENTS, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.events import SimulatedEvents, simulate_block

NUMBERS = ("energy", "inelasticity", "visible_energy", "light")  # truth that may be had


class SimulatedStream(IterableDataset[PackedBatch]):
    """Batches of simulated events, the same for the same seed; without end by default.

    Within one iteration no event comes twice. Every iteration begins at `first_block`:
    for an epoch of other events give another seed or a later first block.

    For `torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)`: each
    worker makes blocks of its own, so the events are those of one process and no event
    comes twice; batches of several workers take turns. Blocks of 256 events are cut
    into batches, so the last batch of a block may be smaller.

    A simplified simulation, for development, tests and comparisons.

    Args:
        batch_size: Events of a batch, 1 to 256.
        seed: Which events; 0 or above.
        config: What is simulated; default: as the competition's data look.
        detector: With which detector; default IceCube-86.
        max_pulses: Longer events are cut.
        selection: Which pulses are kept then: `uniform`, `hlc_first`, `first`.
        first_block: Where to begin, in blocks of 256 events; a resumed training goes on
            behind what it has seen.
        num_blocks: How many blocks, of all ranks together and the same number for
            each; None: no end.
        rank: Of this process among `world_size`, which share the blocks.
        world_size: Processes that train together.
        truth: Numbers of the truth beside `direction`.

    Raises:
        ValueError: An argument out of its range.
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
            ("seed", seed, 0, None),
            ("first_block", first_block, 0, None),
            ("num_blocks", num_blocks, 1, None),
            ("world_size", world_size, 1, None),
            ("rank", rank, 0, world_size - 1),
        ):
            if value is None:
                continue
            if value < low or (high is not None and value > high):
                limit = f"{low} or more" if high is None else f"{low} to {high}"
                raise ValueError(f"{name} must be {limit}; got {value}")
        if num_blocks is not None and num_blocks % world_size:
            raise ValueError(
                f"num_blocks must be a multiple of world_size, or ranks get different "
                f"numbers of batches; got {num_blocks} and {world_size}"
            )
        if unknown := sorted(set(truth) - set(NUMBERS)):
            raise ValueError(
                f"no truth {', '.join(unknown)}; choose from {', '.join(NUMBERS)}"
            )
        self.batch_size, self.seed = batch_size, seed
        self.config = config or SimulationConfig()
        self.detector = detector or SimulatedDetector.icecube86()
        self.max_pulses, self.selection = max_pulses, selection
        self.first_block, self.num_blocks = first_block, num_blocks
        self.rank, self.world_size = rank, world_size
        self.truth = truth
        self.pulse_map = PulseMap.kaggle(name="simulated")
        self._features = FeatureBuilder(
            Detector.of_pulses(
                self.pulse_map, self.detector.geometry, self.detector.ice
            )
        )

    def __iter__(self) -> Iterator[PackedBatch]:
        """Yield this process's and worker's batches."""
        worker = get_worker_info()
        turn = 0 if worker is None else worker.id
        step = 1 if worker is None else worker.num_workers
        block = self.rank + self.world_size * turn
        while self.num_blocks is None or block < self.num_blocks:
            yield from self._batches(self.first_block + block)
            block += self.world_size * step

    def _batches(self, block: int) -> Iterator[PackedBatch]:
        events = simulate_block(self.config, self.detector, self.seed, block)
        for first in range(0, len(events), self.batch_size):
            yield self._batch(events, first, min(first + self.batch_size, len(events)))

    def _batch(self, events: SimulatedEvents, first: int, stop: int) -> PackedBatch:
        begin = events.offsets[first]
        offsets = torch.from_numpy(events.offsets[first : stop + 1] - begin)
        event_id = torch.from_numpy(events.event_id[first:stop])
        here = slice(begin, events.offsets[stop])
        columns = {
            name: torch.from_numpy(np.ascontiguousarray(values[here]))
            for name, values in events.columns.items()
        }
        kept_T, kept_offsets = select_pulses(
            offsets,
            self.max_pulses,
            selection=self.selection,
            auxiliary=columns[AUXILIARY],
            event_id=event_id,
            seed=self.seed,
        )
        truth = {
            "direction": angles_to_unit_vector(
                events.truth[ZENITH][first:stop], events.truth[AZIMUTH][first:stop]
            ).float()
        }
        for name in self.truth:
            truth[name] = torch.from_numpy(events.truth[name][first:stop].copy())
        return PackedBatch.unchecked(
            features=self._features({n: c[kept_T] for n, c in columns.items()}),
            offsets=kept_offsets,
            n_pulses=offsets.diff(),
            names=self.pulse_map.feature_names,
            event_id=event_id,
            truth=truth,
        )
