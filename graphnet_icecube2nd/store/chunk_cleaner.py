"""A chunk of a file checked, put in order, and given the store's types.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    HLC,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import PulseError
from graphnet_icecube2nd.events.events import TIE_BREAKERS, event_order, tie_moves
from graphnet_icecube2nd.events.features import (
    check_pulses,
)
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    N_PULSES,
    RESERVED,
    TIME_ORIGIN,
)
from graphnet_icecube2nd.store.readers.source import EventChunk

ANGLE_PRECISION = 1e-3  # rad, by which rounding may leave the range
POSITION_PRECISION = 1e-3  # m; DOMs are known to centimetres


class ChunkCleaner:
    """Checks a chunk, puts it in order and into the store's types.

    Args:
        pulse_map: What the columns mean.
        geometry: The DOMs that a sensor_id may name.
        pulse_columns: Columns to store; those that the pulse map does not know are
            stored as they are.
        sort_pulses: Put the pulses of each event into the order of time.
    """

    def __init__(
        self,
        pulse_map: PulseMap,
        geometry: DetectorGeometry,
        pulse_columns: tuple[str, ...],
        sort_pulses: bool,
    ) -> None:
        self.pulse_map = pulse_map
        self.geometry = geometry
        self.pulse_columns = pulse_columns
        self.sort_pulses = sort_pulses
        self.num_sorted = 0  # events whose pulses were out of order
        self.num_odd_angles = 0  # events whose angles are none, such as a filler of -1

    def clean(self, chunk: EventChunk, name: str) -> tuple[dict[str, Any], ...]:
        """Return the columns of pulses and of events of a chunk.

        Raises:
            ValueError: A value cannot be true; the message names file, row, event.
        """
        lengths = np.diff(chunk.offsets)
        full = lengths > 0
        events: dict[str, Any] = {
            EVENT_ID: chunk.event_id.astype(np.int64),
            N_PULSES: lengths.astype(np.int32),
        }
        pulses, origin_B = self._pulses(chunk, lengths, full, name)
        if origin_B is not None:
            events[TIME_ORIGIN] = origin_B
        for column, values in chunk.truth.items():
            if column in RESERVED:
                raise ValueError(
                    f"{name}: a column of truth is called {column!r}, which the store "
                    "uses itself; rename it"
                )
            events[column] = values.astype(np.uint8) if values.dtype == bool else values
        self._check_angles(chunk, name)
        return pulses, events

    def _check_angles(self, chunk: EventChunk, name: str) -> None:
        """See that angles are in rad; count those that no direction has."""
        columns = (self.pulse_map.labels.zenith, self.pulse_map.labels.azimuth)
        if not set(columns) <= chunk.truth.keys():
            return
        for column in columns:
            angle_B = chunk.truth[column]
            if (angle_B > 2 * np.pi + ANGLE_PRECISION).any():
                event = int((angle_B > 2 * np.pi + ANGLE_PRECISION).argmax())
                raise ValueError(
                    f"{name}, event {chunk.event_id[event]}: angle {column!r} is "
                    f"{angle_B[event]:g}; it must be in rad, up to 2 pi"
                )
        zenith_B, azimuth_B = (chunk.truth[column] for column in columns)
        odd_B = (zenith_B < -ANGLE_PRECISION) | (zenith_B > np.pi + ANGLE_PRECISION)
        odd_B = odd_B | (azimuth_B < -2 * np.pi - ANGLE_PRECISION)
        self.num_odd_angles += int(odd_B.sum())

    def _pulses(
        self,
        chunk: EventChunk,
        lengths: NDArray[np.int64],
        full: NDArray[np.bool_],
        name: str,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
        offsets = np.append(0, np.cumsum(lengths[full]))
        if full.any():
            self._check(chunk, offsets, full, name)
        time_T = np.asarray(chunk.columns[self.pulse_map.time])
        moves = self._moves(chunk, time_T, offsets)
        columns: dict[str, NDArray[Any]] = {}
        origin_B = None
        known = self.pulse_map.columns()
        for column in self.pulse_columns:
            values = np.asarray(chunk.columns[column])
            quantity = known.get(column)
            if quantity == TIME and self.pulse_map.time_reference == "first_pulse":
                values, origin_B = _relative(values, offsets, full)
            columns[column] = self._stored(column, quantity, values, name)
        if moves is not None:
            rows, sources = moves
            for values in columns.values():
                values[rows] = values[sources]
        return columns, origin_B

    def _check(
        self,
        chunk: EventChunk,
        offsets: NDArray[np.int64],
        full: NDArray[np.bool_],
        name: str,
    ) -> None:
        try:
            check_pulses(
                chunk.columns,
                torch.from_numpy(offsets),
                self.pulse_map,
                geometry=self.geometry,
                event_id=torch.from_numpy(chunk.event_id[full]),
            )
        except PulseError as error:
            place = name
            if chunk.first_row is not None:
                place = f"{name}, row {chunk.first_row + error.pulse}"
            raise ValueError(f"{place}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _moves(
        self, chunk: EventChunk, time_T: NDArray[Any], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return the rows that change, and whose values they take; None: none does."""
        if not self.sort_pulses or len(time_T) < 2:
            return None
        back_T, same_T = time_T[1:] < time_T[:-1], time_T[1:] == time_T[:-1]
        for step_T in (back_T, same_T):
            step_T[offsets[1:-1] - 1] = False  # from one event to the next
        known = self.pulse_map.columns()
        columns = {
            known[column]: np.asarray(values)
            for column, values in chunk.columns.items()
            if known.get(column) in TIE_BREAKERS
        }
        if not back_T.any():
            return tie_moves(columns, same_T) if same_T.any() else None
        event_T = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.num_sorted += len(np.unique(event_T[1:][back_T]))
        # A file's times may not be written to, which a tensor of them would allow.
        order_T = event_order({**columns, TIME: np.array(time_T)}, event_T)
        rows = np.flatnonzero(order_T != np.arange(len(order_T)))
        return rows, order_T[rows]

    def _stored(
        self, column: str, quantity: str | None, values: NDArray[Any], name: str
    ) -> NDArray[Any]:
        if quantity is None:  # kept as it is
            return np.array(values, np.uint8 if values.dtype == bool else None)
        if quantity == SENSOR_ID:
            return values.astype(np.int16 if len(self.geometry) < 2**15 else np.int32)
        if quantity in (AUXILIARY, HLC):
            return values.astype(np.uint8)
        with np.errstate(over="ignore"):
            stored = values.astype(np.float32)
        self._check_stored(stored, column, quantity, name)
        if quantity in (X, Y, Z) and len(values):
            off = np.abs(stored - values.astype(np.float64)).max()
            if off > POSITION_PRECISION:
                far = float(np.abs(values).max())
                raise ValueError(
                    f"{name}: column {column!r} reaches {far:g} m, where the store's "
                    f"float32 is off by {off:.2g} m. Take the detector's centre off "
                    "the positions first"
                )
        return stored

    def _check_stored(
        self, stored: NDArray[Any], column: str, quantity: str, name: str
    ) -> None:
        """See that float32 holds the value, of which features will be made."""
        good = np.isfinite(stored)
        if quantity == CHARGE:
            good &= stored > 0
        if not good.all():
            raise ValueError(
                f"{name}: column {column!r} has a value too large or too small for "
                f"float32 ({int((~good).sum())} of {len(good)} pulses)"
            )


def _relative(
    time_T: NDArray[Any], offsets: NDArray[np.int64], full: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Take the first time of each event off, in the file's own type.

    In float64 or as integers: KM3NeT's clock reaches 1e8 ns, where float32 counts in
    steps of 8 ns; and nanoseconds since 1970 fit into integers only.
    """
    kind = np.int64 if time_T.dtype.kind in "iu" else np.float64
    time_T = time_T.astype(kind)
    origin_B = np.zeros(len(full), kind)
    if not full.any():
        return time_T, origin_B
    first = np.minimum.reduceat(time_T, offsets[:-1])
    origin_B[full] = first
    return time_T - np.repeat(first, np.diff(offsets)), origin_B
