"""Directions of pulses in memory: no store, no file, torch and numpy alone.

What an alert needs, or a module of a reconstruction chain. An event's direction is the
same as from a store: pulses in order of time, the same pulses kept of long events.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import SENSOR_ID, TIME
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.events import (
    auxiliary_of,
    since_first_pulse,
    time_order,
)
from graphnet_icecube2nd.events.feature_builder import FeatureBuilder
from graphnet_icecube2nd.events.features import check_pulses
from graphnet_icecube2nd.events.selection import select_pulses
from graphnet_icecube2nd.inference.model_bundle import (
    STORED,
    Calibration,
    Network,
    TrainedModel,
    as_trained,
    warn_if_seen_otherwise,
)
from graphnet_icecube2nd.inference.predictor import (
    InferenceConfig,
    Progress,
    table_of_vectors,
    vectors_in_batches,
)
from graphnet_icecube2nd.results.result_files import Columns
from graphnet_icecube2nd.tasks.direction.direction import (
    CONTOURS,
    checked_contours,
    result_rows,
)


class PulseReconstructor:
    """Reconstructs events whose pulses are at hand, one or many at a time.

    Make it once and call it for each event: tables of DOMs are made on construction.

    Args:
        model: A `TrainedModel`, what `find_trained` takes, or a network as it is.
        pulse_map: What the columns mean: a `PulseMap` or the name of one.
        geometry: The DOMs; default IceCube-86.
        ice: The ice; default IceCube's.
        options: How the network sees events; default: the trained model's own.
        calibration: As `reconstruct` has it: `stored`, `none`, or another one.
        contours: Shares of the contours whose radii are wanted, as `reconstruct`.

    Raises:
        ValueError: No pulse map or model of that name, a share that is none.
    """

    def __init__(
        self,
        model: TrainedModel | Network | str | os.PathLike[str],
        pulse_map: PulseMap | str = "kaggle",
        *,
        geometry: DetectorGeometry | None = None,
        ice: IceModel | None = None,
        options: InferenceConfig | None = None,
        calibration: Calibration = STORED,
        contours: Sequence[float] = CONTOURS,
    ) -> None:
        self.contours = checked_contours(contours)
        trained = as_trained(model).calibrated(calibration)
        self.network, self.calibration = trained.network, trained.calibration
        self.options = options or trained.options
        warn_if_seen_otherwise(trained, self.options)
        if isinstance(pulse_map, str):
            pulse_map = PulseMap.by_name(pulse_map)
        self.pulse_map = (
            pulse_map.as_published() if self.options.published_features else pulse_map
        )
        self.detector = Detector.of_pulses(self.pulse_map, geometry, ice)
        self._features = FeatureBuilder(self.detector)

    def __call__(
        self,
        columns: Mapping[str, Any],
        offsets: Any = None,
        event_id: Any = None,
        on_progress: Progress | None = None,
    ) -> Columns:
        """Return a row of results for each event, see `result_rows`.

        Args:
            columns: (T,) arrays or tensors by column name, as the pulse map has them.
            offsets: (B + 1,) borders of the events, which may be empty; default: all
                pulses are of one event.
            event_id: (B,) whole numbers; default 0, 1, ... They choose which pulses of
                long events are kept, so give those that a store would have.
            on_progress: Called with new events and pulses.

        Raises:
            ValueError: A missing column, a value that cannot be true; names event and
                column.
        """
        if offsets is None:
            if self.pulse_map.time not in columns:
                raise ValueError(
                    f"pulse map {self.pulse_map.name!r} needs column "
                    f"{self.pulse_map.time}; there is {', '.join(columns)}"
                )
            offsets = [0, len(columns[self.pulse_map.time])]
        border = np.asarray(offsets, np.int64)
        length_B = np.diff(border)
        number_B = np.arange(len(length_B)) if event_id is None else event_id
        id_B = np.asarray(number_B, np.int64)
        vectors_B3 = np.full((len(length_B), 3), np.nan)
        if len(length_B) and int(border[-1]):
            events = self._events(columns, border, id_B)
            vectors_B3 = vectors_in_batches(
                self.network, length_B, events.batch, self.options, on_progress
            )
        table = table_of_vectors("", id_B, length_B, vectors_B3)
        return result_rows(table, length_B, self.calibration, self.contours)

    def _events(
        self, columns: Mapping[str, Any], border: NDArray[np.int64], id_B: Any
    ) -> _Events:
        """Check the pulses, choose which are kept, make their features."""
        length_B = np.diff(border)
        full_B = length_B > 0
        offsets = torch.from_numpy(np.append(0, np.cumsum(length_B[full_B])))
        event_id = torch.from_numpy(id_B[full_B])
        raw = check_pulses(
            columns,
            offsets,
            self.pulse_map,
            geometry=self.detector.places,
            event_id=event_id,
        )
        if self.pulse_map.time_reference == "first_pulse":
            raw[TIME] = since_first_pulse(raw[TIME], offsets)
        # As a store has them: in order of time, float32.
        event_T = np.repeat(np.arange(len(event_id)), length_B[full_B])
        order_T = time_order(raw[TIME], event_T)
        raw = {
            name: value[order_T].to(torch.int64 if name == SENSOR_ID else torch.float32)
            for name, value in raw.items()
        }
        kept_K, kept_offsets = select_pulses(
            offsets,
            self.options.max_pulses,
            selection=self.options.selection,
            auxiliary=auxiliary_of(raw),
            event_id=event_id,
            seed=self.options.seed,
        )
        features = self._features({name: value[kept_K] for name, value in raw.items()})
        # Empty events own no pulses; batches never ask for them.
        owned_B = np.zeros(len(length_B), np.int64)
        owned_B[full_B] = kept_offsets.diff().numpy()
        return _Events(
            features,
            torch.from_numpy(np.append(0, np.cumsum(owned_B))),
            torch.from_numpy(length_B),
            self.pulse_map.feature_names,
        )


class _Events:
    """Features of all events, to be had in batches."""

    def __init__(
        self, features: Tensor, offsets: Tensor, n_pulses: Tensor, names: Any
    ) -> None:
        self.features, self.offsets = features, offsets
        self.n_pulses, self.names = n_pulses, tuple(names)

    def batch(self, some: NDArray[np.int64]) -> PackedBatch:
        """Return the events at some places, (b,)."""
        event = torch.from_numpy(some)
        lengths = self.offsets.diff()[event]
        offsets = torch.zeros(len(some) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=offsets[1:])
        row_T = torch.arange(int(offsets[-1]))
        row_T += (self.offsets[event] - offsets[:-1]).repeat_interleave(lengths)
        return PackedBatch.unchecked(
            features=self.features[row_T],
            offsets=offsets,
            n_pulses=self.n_pulses[event],
            names=self.names,
        )
