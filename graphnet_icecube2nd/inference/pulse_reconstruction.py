"""Pulses in memory to results: no store, no file, torch and numpy alone.

What an alert needs, or a module of a reconstruction chain. An event's answers are the
same as from a store: pulses in order of time, the same pulses kept of long events.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import SENSOR_ID, TIME
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.events import (
    auxiliary_of,
    event_order,
    since_first_pulse,
)
from graphnet_icecube2nd.events.feature_builder import FeatureBuilder
from graphnet_icecube2nd.events.features import check_pulses
from graphnet_icecube2nd.events.selection import select_pulses
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    STORED,
    GivenCalibration,
    ModelBundle,
    as_bundle,
)
from graphnet_icecube2nd.inference.predictor import (
    Progress,
    outputs_in_batches,
)
from graphnet_icecube2nd.inference.results import (
    ResultMaker,
    failed_tasks,
    without_full_columns,
)
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.results.result_files import Columns
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, checked_contours


class PulseReconstructor:
    """Reconstructs events whose pulses are at hand, one or many at a time.

    Make it once and call it for each event: tables of DOMs are made on construction.

    Args:
        model: A `ModelBundle`, what `load_bundle` takes, or a model as it is.
        detector: Whose pulses they are, and what the columns mean: a `Detector`, a
            `PulseMap`, or the name of one of either.
        geometry: With a pulse map: the DOMs; default IceCube-86.
        ice: With a pulse map: the ice; default IceCube's.
        options: How the model reads events; default: as it was trained.
        calibration: As `reconstruct` has it: `stored`, `none`, or another one.
        contours: Shares of the contours whose radii are wanted, as `reconstruct`.
        unknown_detector: Use the model on a detector or a clock that it was not trained
            on; its answers are then not calibrated.

    Raises:
        DomainError: The model was trained on another detector or clock, or its stored
            calibration was fitted with another `max_pulses` or selection.
        ValueError: No detector, pulse map or model of that name, a share that is none.
    """

    def __init__(
        self,
        model: ModelBundle | Model | str | os.PathLike[str],
        detector: Detector | PulseMap | str = "kaggle",
        *,
        pulse_map: PulseMap | str | None = None,
        geometry: DetectorGeometry | None = None,
        ice: IceModel | None = None,
        options: InferenceConfig | None = None,
        calibration: GivenCalibration = STORED,
        contours: Sequence[float] = CONTOURS,
        unknown_detector: bool = False,
    ) -> None:
        contours = checked_contours(contours)
        bundle = as_bundle(model).calibrated(calibration)
        self.model, self.options = bundle.model, options or bundle.options
        self.detector = as_detector(
            detector if pulse_map is None else pulse_map, geometry, ice
        )
        self.maker = ResultMaker.of(
            bundle,
            self.detector,
            self.options,
            contours,
            unknown_detector=unknown_detector,
        )
        for text in (*self.maker.domain.differences, *self.maker.reasons):
            warnings.warn(f"{text}: widths are not calibrated", stacklevel=2)
        self.pulse_map = self.detector.pulses
        features = self.detector
        if self.options.published_features:
            features = replace(features, pulses=features.pulses.as_published())
        self._features = FeatureBuilder(features)

    def __call__(
        self,
        columns: Mapping[str, Any],
        offsets: Any = None,
        event_id: Any = None,
        on_progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Return a row of results for each event, see `reconstruct`.

        Args:
            columns: (T,) arrays or tensors by column name, as the detector has them.
            offsets: (B + 1,) borders of the events, which may be empty; default: all
                pulses are of one event.
            event_id: (B,) whole numbers; default 0, 1, ... They choose which pulses of
                long events are kept, so give those that a store would have.
            on_progress: Called with new events and pulses.

        Returns:
            (B,) arrays by column; plain numbers and texts where no offsets are given.

        Raises:
            ValueError: A missing column, a value that cannot be true; names event and
                column. Offsets or numbers of events that are none.
        """
        is_one = offsets is None
        border = self._borders(columns, offsets)
        id_B = _event_ids(event_id, len(border) - 1)
        rows = self._rows(columns, border, id_B, on_progress)
        if is_one:
            return {name: values[0].item() for name, values in rows.items()}
        return rows

    def _rows(
        self,
        columns: Mapping[str, Any],
        border: NDArray[np.int64],
        id_B: NDArray[np.int64],
        on_progress: Progress | None,
    ) -> Columns:
        length_B = np.diff(border)
        outputs = {
            name: np.full((len(length_B), task.num_outputs), np.nan)
            for name, task in self.model.task_map.items()
        }
        inside_B = np.ones(len(length_B), bool)
        if len(length_B) and int(border[-1]):
            events, inside_B = self._events(columns, border, id_B)
            (outputs,) = outputs_in_batches(
                [self.model], length_B, events.batch, self.options, on_progress
            )
        rows = self.maker.rows(outputs, id_B, length_B, inside_B)
        return without_full_columns(rows, [*failed_tasks(rows)])

    def _borders(self, columns: Mapping[str, Any], offsets: Any) -> NDArray[np.int64]:
        """Return the borders of the events, checked."""
        if self.pulse_map.time not in columns:
            raise ValueError(
                f"pulse map {self.pulse_map.name!r} needs column "
                f"{self.pulse_map.time}; there is {', '.join(columns)}"
            )
        num_pulses = len(columns[self.pulse_map.time])
        if offsets is None:
            return np.array([0, num_pulses], np.int64)
        border = _whole(offsets, "offsets")
        if len(border) < 1 or border[0] != 0 or border[-1] != num_pulses:
            raise ValueError(
                f"offsets must run from 0 to the {num_pulses} pulses, got "
                f"{border[:1].tolist()} to {border[-1:].tolist()}"
            )
        if (np.diff(border) < 0).any():
            event = int((np.diff(border) < 0).argmax())
            raise ValueError(
                f"offsets must not fall; event {event} would end before it begins"
            )
        return border

    def _events(
        self, columns: Mapping[str, Any], border: NDArray[np.int64], id_B: Any
    ) -> tuple[_Events, NDArray[np.bool_]]:
        """Check the pulses, choose which are kept, make their features.

        Returns:
            The events, and which of them lie in the ranges of the training, (B,).
        """
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
        plain = {name: value.numpy() for name, value in raw.items()}
        order_T = torch.from_numpy(event_order(plain, event_T))
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
        kept = {name: value[kept_K] for name, value in raw.items()}
        features = self._features(kept)
        # Empty events own no pulses; batches never ask for them.
        owned_B = np.zeros(len(length_B), np.int64)
        owned_B[full_B] = kept_offsets.diff().numpy()
        borders = np.append(0, np.cumsum(owned_B))
        inside_B = self.maker.domain.check_values(
            {name: value.numpy() for name, value in kept.items()},
            borders,
            length_B,
            self.detector,
        )
        events = _Events(
            features,
            torch.from_numpy(borders),
            torch.from_numpy(length_B),
            self.pulse_map.feature_names,
        )
        return events, inside_B


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


def as_detector(
    given: Detector | PulseMap | str,
    geometry: DetectorGeometry | None = None,
    ice: IceModel | None = None,
) -> Detector:
    """Return a detector given as such, as a pulse map, or by name.

    Args:
        given: The detector.
        geometry: In place of its modules.
        ice: In place of its medium.

    Raises:
        ValueError: No detector of that name.
    """
    if isinstance(given, str):
        known = given in list_detectors()
        given = build_detector(given) if known else PulseMap.by_name(given)
    if isinstance(given, PulseMap):
        return Detector.of_pulses(given, geometry, ice)
    return given.with_tables(geometry, ice)


def _event_ids(event_id: Any, num_events: int) -> NDArray[np.int64]:
    """Return the numbers of the events, (B,), checked."""
    if event_id is None:
        return np.arange(num_events)
    id_B = np.atleast_1d(_whole(event_id, "event_id"))
    if id_B.shape != (num_events,):
        raise ValueError(f"event_id must have {num_events} entries, got {id_B.shape}")
    return id_B


def _whole(values: Any, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        numbers = np.asarray(values, np.float64)
        bad = ~(np.isfinite(numbers) & (numbers == np.floor(numbers)))
        if bad.any():
            raise ValueError(
                f"{name} must be whole numbers, got {numbers[bad].flat[0]}"
            )
        array = numbers
    return array.astype(np.int64)
