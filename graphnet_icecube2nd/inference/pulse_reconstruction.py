"""Pulses in memory to results: no store, no file, torch and numpy alone.

What an alert needs, or a module of a reconstruction chain. An event's answers are the
same as from a store: pulses in order of time, the same pulses kept of long events.

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
    since_first_pulse,
)
from graphnet_icecube2nd.events.features import (
    FeatureBuilder,
    check_pulses,
    event_faults,
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
    find_event_column,
    settle_pulse_map,
)
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, checked_contours

NAME = "the pulses"  # what messages call those of a table


class PulseReconstructor:
    """Reconstructs events whose pulses are at hand, one or many at a time.

    Make it once and call it for each event: tables of DOMs are made on construction.

    Args:
        model: A `ModelBundle`, what `load_bundle` takes, or a model as it is.
        detector: Whose pulses they are, and what the columns mean: a `Detector`, a
            `PulseMap`, or the name of one of either.
        pulse_map: Meaning of the columns, in place of `detector`.
        geometry: DOMs, or a table of them, in place of the detector's; a pulse map has
            IceCube-86's.
        ice: Ice, or its table, in place of the detector's; a pulse map has IceCube's.
        options: How the model reads events; default: as it was trained.
        calibration: Calibrations of the widths: `stored`, `none`, or others, see
            `reconstruct`.
        contours: Shares, 0 to 1, of the contours whose radii are wanted.
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
        self._features = FeatureBuilder(features)
        self.first_fault: str | None = None  # of the bad pulses so far, in words

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
            An event with a pulse whose values cannot be true has no numbers, and the
            column at fault in its status: `bad charge`, `bad time`, ...

        Raises:
            ValueError: A missing column, or one that is no numbers. Offsets or numbers
                of events that are none.
        """
        border = self._borders(columns, offsets)
        length_B = np.diff(border)
        id_B = np.arange(len(length_B))
        if event_id is not None:
            id_B = whole_numbers(np.atleast_1d(np.asarray(event_id)), "event_id")
        if id_B.shape != length_B.shape:
            raise ValueError(
                f"event_id must have {len(length_B)} entries, got {id_B.shape}"
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
                f"{self.pulse_map.time}; there is {', '.join(columns)}"
            )
        num_pulses = len(columns[self.pulse_map.time])
        if offsets is None:
            return np.array([0, num_pulses], np.int64)
        border = whole_numbers(offsets, "offsets")
        if num_pulses or border.tolist() != [0]:  # there may be no event at all
            check_offsets(torch.from_numpy(border), num_pulses)
        return border

    def _checked(
        self,
        columns: Mapping[str, Any],
        length_B: NDArray[np.int64],
        id_B: NDArray[np.int64],
    ) -> tuple[dict[str, torch.Tensor], NDArray[np.int64], NDArray[np.str_]]:
        """Return the good events' pulses by quantity, (T,) float64, and their lengths.

        An event with a bad pulse has length 0, and what is wrong in the faults, (B,).
        """
        fault_B = np.full(len(length_B), "")
        full_B = length_B > 0
        if not full_B.any():
            return {}, length_B, fault_B
        places = self.detector.places
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
        """Choose which pulses are kept, make their features.

        Returns what makes a batch of some events, and which lie in the trained ranges.
        """
        full_B = length_B > 0
        offsets = torch.from_numpy(np.append(0, np.cumsum(length_B[full_B])))
        event_id = torch.from_numpy(id_B[full_B])
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
        # Empty events own no pulses; batches never ask for them.
        kept_B = np.zeros(len(length_B), np.int64)
        kept_B[full_B] = kept_offsets.diff().numpy()
        borders = np.append(0, np.cumsum(kept_B))
        features_B = self._features(kept).tensor_split(borders[1:-1].tolist())
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
            )

        return make_batch, inside_B


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedPulses:
    """Pulses of events, one event after the other."""

    columns: Mapping[str, NDArray[Any]]  # (T,) by column name
    offsets: NDArray[np.int64]  # (B + 1,) borders of the events
    event_id: NDArray[np.int64]  # (B,)
    pulse_map: PulseMap  # what the columns mean
    unread: tuple[str, ...]  # names of the other columns of the table


def group_pulses(
    pulses: Any,
    *,
    events: Any = None,
    pulse_map: PulseMap | str | None = None,
    event_column: str | None = None,
) -> GroupedPulses:
    """Group the rows of a table of pulses by event; see `reconstruct`.

    Raises:
        TypeError: No table.
        ValueError: No or several pulse maps fit, a missing column, event numbers that
            are no whole numbers, pulses of an event that is not among `events`.
    """
    columns = _columns(pulses)
    key = find_event_column(columns, event_column, NAME)
    id_T = whole_numbers(columns.pop(key), f"column {key!r} of {NAME}")
    if isinstance(pulse_map, str):
        pulse_map = PulseMap.by_name(pulse_map)
    settled = settle_pulse_map(columns, pulse_map, NAME)
    known, first_B, known_T = np.unique(id_T, return_index=True, return_inverse=True)
    if events is None:
        event_id = known[np.argsort(first_B)]  # as they first come
    else:
        event_id = whole_numbers(events, "events")
        ids, counts = np.unique(event_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"events has {ids[counts > 1][0]} twice")
        if len(others := np.setdiff1d(known, event_id)):
            raise ValueError(
                f"{NAME} have event {others[0]}, which is not among events "
                f"({len(others)} are not)"
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
        raise ValueError(f"columns of {NAME} must be (T,) of one length, got {lengths}")
    return columns
