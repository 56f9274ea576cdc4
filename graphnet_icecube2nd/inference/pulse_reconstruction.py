"""Reconstruction of pulses in memory, without files, with only torch and numpy.

It is for alerts and for modules of a reconstruction chain. The results are the same as
from a store: pulses are in order of time, and the same pulses of long events are kept.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SENSOR_ID, TIME
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.presets import as_detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import PulseError
from graphnet_icecube2nd.events.batch import PackedBatch, check_offsets
from graphnet_icecube2nd.events.events import (
    auxiliary_of,
    event_order,
    relative_times,
)
from graphnet_icecube2nd.events.features import (
    FeatureBuilder,
    check_pulses,
    event_faults,
    placed_features,
    pulse_faults,
)
from graphnet_icecube2nd.events.selection import select_pulses
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    STORED,
    GivenCalibration,
    ModelBundle,
    as_bundle,
)
from graphnet_icecube2nd.inference.predictor import (
    ResultMaker,
    empty_outputs,
    outputs_in_batches,
    without_full_columns,
)
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.result_files import rows_of, whole_numbers
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    OF_FRAMES,
    find_event_column,
    settle_pulse_map,
)
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, checked_contours

NAME = "the pulses"  # name of a table of pulses in messages


class PulseReconstructor:
    """Reconstruction of events whose pulses are in memory, one or many at a time.

    Make it once and call it for each event: the construction makes tables of DOMs.

    Args:
        model: A `ModelBundle`, a model, or a name for `load_bundle`.
        detector: Detector of the pulses, which gives the meaning of the columns: a
            `Detector`, a `PulseMap`, or the name of one.
        pulse_map: Meaning of the columns, replaces `detector`.
        geometry: DOMs, or a table of them, that replace those of the detector. The
            default of a pulse map is IceCube-86.
        ice: Ice, or a table of it, that replaces that of the detector. The default of
            a pulse map is IceCube's.
        options: Reading of events; default: that of the training.
        calibration: Calibrations of the widths: `stored`, `none`, or calibrations by
            task, see `reconstruct`.
        contours: Probabilities, 0 to 1, of the contours whose radii are columns.
        unknown_detector: Whether the model may run on a detector or a clock that it was
            not trained on; its answers are then not calibrated.

    Raises:
        DomainError: The model was trained on another detector or clock, or its stored
            calibration was fitted with another `max_pulses` or selection.
        ValueError: The detector, pulse map or model is unknown, or a probability is not
            between 0 and 1.
    """

    def __init__(
        self,
        model: ModelBundle | Model | str | os.PathLike[str],
        detector: Detector | PulseMap | str = "kaggle",
        *,
        pulse_map: PulseMap | str | None = None,
        geometry: DetectorGeometry | str | os.PathLike[str] | None = None,
        ice: IceModel | str | os.PathLike[str] | None = None,
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
        self.maker = ResultMaker(
            bundle,
            self.detector,
            self.options,
            contours,
            unknown_detector=unknown_detector,
        )
        for text in self.maker.domain.differences:
            if text not in self.maker.reasons:
                warnings.warn(text, stacklevel=2)
        for text in self.maker.reasons:
            warnings.warn(f"{text}: widths are not calibrated", stacklevel=2)
        self.pulse_map = self.detector.pulses
        features = self.detector
        if self.options.published_features:
            features = replace(features, pulses=features.pulses.as_published())
        if self.options.scales is not None:
            features = replace(features, scales=self.options.scales)
        self._features = FeatureBuilder(features)
        self.first_fault: str | None = None  # text of the first bad pulse so far
        # Events so far whose clock had to fall back to their first pulse.
        self.num_untriggered = 0

    def __call__(
        self,
        columns: Mapping[str, Any],
        offsets: Any = None,
        event_id: Any = None,
        on_progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Return one row of results per event, see `reconstruct`.

        Args:
            columns: Arrays or tensors (T,) by column name of the detector.
            offsets: Borders of the events, (B + 1,); events may be empty. Default: all
                pulses belong to one event.
            event_id: Event numbers, (B,) integers; default: 0, 1, ... The selection of
                pulses from long events depends on them, so use those of the store.
            on_progress: Function called with the numbers of new events and pulses.

        Returns:
            Arrays (B,) by column, or plain numbers and texts if there are no offsets.
            An event with an impossible value has no answers, and its status names the
            column: `bad charge`, `bad time`, ...

        Raises:
            ValueError: A column is missing or has values that are not numbers, or
                offsets or event numbers are not valid.
        """
        border = self._borders(columns, offsets)
        length_B = np.diff(border)
        id_B = np.arange(len(length_B))
        if event_id is not None:
            id_B = whole_numbers(np.atleast_1d(np.asarray(event_id)), "event_id")
        if id_B.shape != length_B.shape:
            raise ValueError(
                f"event_id must have {len(length_B)} entries, one for each event, got "
                f"{id_B.shape}"
            )
        outputs = empty_outputs(self.model, len(length_B))
        inside_B = np.ones(len(length_B), bool)
        raw, good_B, fault_B = self._checked(columns, length_B, id_B)
        if good_B.any():
            make_batch, inside_B = self._events(raw, good_B, id_B)
            (outputs,) = outputs_in_batches(
                [self.model], good_B, make_batch, self.options, on_progress, length_B
            )
        rows = self.maker.rows(outputs, id_B, length_B, inside_B, fault_B)
        rows = without_full_columns(rows)
        if offsets is None:
            return {name: values[0].item() for name, values in rows.items()}
        return rows

    def _borders(self, columns: Mapping[str, Any], offsets: Any) -> NDArray[np.int64]:
        """Return the borders of the events, checked."""
        if self.pulse_map.time not in columns:
            raise ValueError(
                f"pulse map {self.pulse_map.name!r} needs column "
                f"{self.pulse_map.time}, found only {', '.join(columns)}"
            )
        num_pulses = len(columns[self.pulse_map.time])
        if offsets is None:
            return np.array([0, num_pulses], np.int64)
        border = whole_numbers(offsets, "offsets")
        if num_pulses or border.tolist() != [0]:  # no event is allowed
            check_offsets(torch.from_numpy(border), num_pulses)
        return border

    def _checked(
        self,
        columns: Mapping[str, Any],
        length_B: NDArray[np.int64],
        id_B: NDArray[np.int64],
    ) -> tuple[dict[str, torch.Tensor], NDArray[np.int64], NDArray[np.str_]]:
        """Return pulses of good events by quantity, (T,) float64, lengths and faults.

        An event with a bad pulse has length 0, and its fault.
        """
        fault_B = np.full(len(length_B), "")
        full_B = length_B > 0
        if not full_B.any():
            return {}, length_B, fault_B
        places = self.detector.modules_or_icecube86
        try:
            raw = check_pulses(
                columns,
                torch.from_numpy(np.append(0, np.cumsum(length_B[full_B]))),
                self.pulse_map,
                geometry=places,
                event_id=torch.from_numpy(id_B[full_B]),
            )
        except PulseError as error:
            self.first_fault = self.first_fault or str(error)
        else:
            return raw, length_B, fault_B
        raw, fault_T = pulse_faults(
            columns, int(length_B.sum()), self.pulse_map, geometry=places
        )
        fault_B = event_faults(fault_T, length_B)
        kept_T = torch.from_numpy(np.repeat(fault_B == "", length_B))
        raw = {name: value[kept_T] for name, value in raw.items()}
        return raw, np.where(fault_B == "", length_B, 0), fault_B

    def _events(
        self,
        raw: dict[str, torch.Tensor],
        length_B: NDArray[np.int64],
        id_B: NDArray[np.int64],
    ) -> tuple[Callable[[NDArray[np.int64]], PackedBatch], NDArray[np.bool_]]:
        """Select pulses and make their features.

        Return a function that makes a batch of some events, and True for events within
        the trained ranges, (B,).
        """
        full_B = length_B > 0
        offsets = torch.from_numpy(np.append(0, np.cumsum(length_B[full_B])))
        event_id = torch.from_numpy(id_B[full_B])
        if self.pulse_map.is_relative:
            clock = self.pulse_map.time_reference
            raw[TIME], num_untriggered = relative_times(raw, offsets, clock)
            self.num_untriggered += num_untriggered
        # As in a store: in order of time, float32.
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
        # Empty events have no pulses; batches do not contain them.
        kept_B = np.zeros(len(length_B), np.int64)
        kept_B[full_B] = kept_offsets.diff().numpy()
        borders = np.append(0, np.cumsum(kept_B))
        features_TF, centre_B3 = placed_features(
            self._features(kept),
            torch.from_numpy(borders),
            self._features.detector,
            self.options.positions,
        )
        features_B = features_TF.tensor_split(borders[1:-1].tolist())
        inside_B = self.maker.domain.check_values(
            {name: value.numpy() for name, value in kept.items()},
            borders,
            length_B,
        )

        def make_batch(some: NDArray[np.int64]) -> PackedBatch:
            return PackedBatch.unchecked(
                features=torch.cat([features_B[event] for event in some]),
                offsets=torch.from_numpy(np.append(0, np.cumsum(kept_B[some]))),
                n_pulses=torch.from_numpy(length_B[some]),
                names=self.pulse_map.feature_names,
                units=self._features.detector.units,
                centre=None if centre_B3 is None else centre_B3[torch.from_numpy(some)],
            )

        return make_batch, inside_B


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedPulses:
    """Pulses of events, one event after the other.

    Args:
        columns: Pulses (T,) by column name.
        offsets: Borders of the events, (B + 1,).
        event_id: Event numbers, (B,).
        pulse_map: Meaning of the columns.
        unread: Names of the other columns of the table.
    """

    columns: Mapping[str, NDArray[Any]]
    offsets: NDArray[np.int64]
    event_id: NDArray[np.int64]
    pulse_map: PulseMap
    unread: tuple[str, ...]


def group_pulses(
    pulses: Any,
    *,
    events: Any = None,
    pulse_map: PulseMap | str | None = None,
    event_column: str | None = None,
) -> GroupedPulses:
    """Group the rows of a table of pulses by event; see `reconstruct`.

    Args:
        pulses: Table with one row per pulse.
        events: Numbers of all events, (B,); default: those of the table.
        pulse_map: Meaning of the columns; default: recognised by their names.
        event_column: Column of the event numbers; default: `event_id` or `event_no`.

    Raises:
        TypeError: `pulses` is not a table.
        ValueError: Not exactly one pulse map fits, a column is missing, event numbers
            are not integers, or an event with pulses is not among `events`.
    """
    columns = _columns(pulses)
    key = find_event_column(columns, event_column, NAME)
    id_T = whole_numbers(columns.pop(key), f"column {key!r} of {NAME}")
    if isinstance(pulse_map, str):
        pulse_map = PulseMap.by_name(pulse_map)
    settled = settle_pulse_map(columns, pulse_map, NAME, OF_FRAMES)
    known, first_B, known_T = np.unique(id_T, return_index=True, return_inverse=True)
    if events is None:
        event_id = known[np.argsort(first_B)]  # in order of their first pulse
    else:
        event_id = whole_numbers(events, "events")
        ids, counts = np.unique(event_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"events must have each number once, found {ids[counts > 1][0]} twice"
            )
        if len(others := np.setdiff1d(known, event_id)):
            raise ValueError(
                f"events must have all event numbers of {NAME}, but {len(others)} are "
                f"missing; the first is {others[0]}"
            )
    event_T = rows_of(event_id, known, "events")[known_T.ravel()]
    row_T = np.argsort(event_T, kind="stable")
    wanted = [column for column in settled.columns() if column in columns]
    return GroupedPulses(
        columns={column: columns[column][row_T] for column in wanted},
        offsets=np.append(0, np.cumsum(np.bincount(event_T, minlength=len(event_id)))),
        event_id=event_id,
        pulse_map=settled,
        unread=tuple(name for name in columns if name not in wanted),
    )


def _columns(pulses: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of any table as arrays."""
    if isinstance(pulses, Mapping):
        columns = {str(name): np.asarray(value) for name, value in pulses.items()}
    elif hasattr(pulses, "column_names"):  # pyarrow
        columns = {n: pulses[n].to_numpy() for n in pulses.column_names}
    elif hasattr(pulses, "columns"):  # pandas, polars
        index = getattr(getattr(pulses, "index", None), "names", None) or ()
        if any(name in EVENT_COLUMNS for name in index):
            pulses = pulses.reset_index()
        columns = {str(name): pulses[name].to_numpy() for name in pulses.columns}
    else:
        raise TypeError(
            "pulses must be a DataFrame of pandas or polars, a table of pyarrow or a "
            f"mapping of arrays, got {type(pulses).__name__}"
        )
    lengths = {name: value.shape for name, value in columns.items()}
    if len({*lengths.values()}) > 1 or any(len(s) != 1 for s in lengths.values()):
        raise ValueError(
            f"columns of {NAME} must be (T,) with the same length, got {lengths}"
        )
    return columns
