"""Check, order and writing of chunks of a file as shards of a store.

A shard is a folder of two tables, pulses and events. It has a temporary name until it
is complete. Shape letters: T pulses, B events.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    HLC,
    RDE,
    SENSOR_ID,
    TIME,
    TIME_ORIGIN,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import PulseError
from graphnet_icecube2nd.events.events import (
    TIE_BREAKERS,
    clock_zeros,
    event_order,
    tie_moves,
)
from graphnet_icecube2nd.events.features import (
    check_pulses,
    event_faults,
    pulse_faults,
    read_quantities,
)
from graphnet_icecube2nd.files import write_whole_folder
from graphnet_icecube2nd.store.arrow_table import write_table
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    EVENTS_FILE,
    FIRST_PULSE,
    N_PULSES,
    NUM_LEFT_OUT,
    PULSE_FAULT,
    PULSES_FILE,
    RESERVED,
    ShardRecord,
)
from graphnet_icecube2nd.store.readers.source import EventChunk
from graphnet_icecube2nd.tasks.label import check_radians, possible_angles

POSITION_PRECISION = 1e-3  # m; positions of DOMs are known to centimetres
# Rule for pulses with impossible values: error; drop the pulse; or drop all pulses of
# the event and note the fault in its `PULSE_FAULT`.
BAD_PULSES = ERROR, DROP, MARK = ("error", "drop", "mark")


@dataclass
class ChunkCleaner:
    """Check of chunks, order of their pulses, and conversion to the store's types.

    Args:
        pulse_map: Meaning of the columns.
        geometry: DOMs that a sensor_id may name.
        pulse_columns: Pulse columns to keep; those not in the pulse map keep values.
        sort_pulses: Whether the pulses of an event are sorted by time.
        bad_pulses: Rule for bad pulses, one of `BAD_PULSES`.

    The other fields are counts: events whose pulses were sorted, events with impossible
    angles (such as a filler of -1), pulses that got the rde of their DOM, events
    without the pulse that the clock `first_triggered` needs, faults of bad pulses (with
    `MARK`, of their events), pulses left out, and the first fault.
    """

    pulse_map: PulseMap
    geometry: DetectorGeometry
    pulse_columns: tuple[str, ...]
    sort_pulses: bool
    bad_pulses: str = ERROR
    num_sorted: int = 0
    num_odd_angles: int = 0
    num_unknown_rde: int = 0
    num_untriggered: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    num_left_out: int = 0
    first_fault: str | None = None

    def clean(self, chunk: EventChunk, name: str) -> tuple[dict[str, Any], ...]:
        """Return the columns of pulses and of events of a chunk.

        Args:
            chunk: Chunk of a file.
            name: Name of the file for messages.

        Raises:
            ValueError: A value is impossible, or a column has a reserved name.
        """
        num_B = np.diff(chunk.offsets)
        chunk, fault_B = self._checked(self._with_rde(chunk), name)
        lengths = np.diff(chunk.offsets)
        full = lengths > 0
        offsets = np.append(0, np.cumsum(lengths[full]))
        rows, sources = self._moves(chunk, offsets)
        pulses: dict[str, Any] = {}
        events: dict[str, Any] = {
            EVENT_ID: chunk.event_id.astype(np.int64),
            N_PULSES: lengths.astype(np.int32),
        }
        if self.bad_pulses == MARK:
            events[PULSE_FAULT] = fault_B
            events[NUM_LEFT_OUT] = (num_B - lengths).astype(np.int32)
        known = self.pulse_map.columns()
        for column in self.pulse_columns:
            quantity, kind = known.get(column), None
            if quantity in (None, TIME):
                kind = chunk.with_nulls.get(column)
            values = np.asarray(chunk.columns[column], kind)
            if quantity == TIME and self.pulse_map.is_relative:
                values, events[TIME_ORIGIN] = self._relative(chunk, values, offsets)
            values = self._stored(column, quantity, values, name)
            values[rows] = values[sources]
            pulses[column] = values
        for column, values in chunk.truth.items():
            if column in RESERVED:
                raise ValueError(
                    f"{name}: the truth has a column {column!r}, which is a reserved "
                    "name of the store; rename it"
                )
            events[column] = values.astype(np.uint8) if values.dtype == bool else values
        self._check_angles(chunk, name)
        return pulses, events

    def _with_rde(self, chunk: EventChunk) -> EventChunk:
        """Return a chunk in which unknown efficiencies are those of the DOM."""
        columns, column = chunk.columns, self.pulse_map.rde
        if column is None or column not in columns:
            return chunk
        known_T = np.asarray(columns[column]) > 0
        if known_T.all():
            return chunk
        self.num_unknown_rde += int((~known_T).sum())
        raw = read_quantities(columns, len(known_T), self.pulse_map, self.geometry)
        return replace(chunk, columns={**columns, column: np.asarray(raw[RDE])})

    def _check_angles(self, chunk: EventChunk, name: str) -> None:
        """Check that angles are in rad; count events with impossible angles."""
        columns = (self.pulse_map.labels.zenith, self.pulse_map.labels.azimuth)
        if not set(columns) <= chunk.truth.keys():
            return
        for column in columns:
            where = chunk.truth_name or name
            check_radians(chunk.truth[column], column, chunk.event_id, where)
        zenith_B, azimuth_B = (chunk.truth[column] for column in columns)
        known_B = np.isfinite(zenith_B) & np.isfinite(azimuth_B)
        odd_B = known_B & ~possible_angles(zenith_B, azimuth_B)
        self.num_odd_angles += int(odd_B.sum())

    def _checked(
        self, chunk: EventChunk, name: str
    ) -> tuple[EventChunk, NDArray[np.str_]]:
        """Return a chunk without its bad pulses, and the faults of its events, (B,)."""
        length_B = np.diff(chunk.offsets)
        fault_B = np.full(len(length_B), "")
        full = length_B > 0
        if not full.any():
            return chunk, fault_B
        kept = chunk.with_nulls.keys() - self.pulse_map.columns().keys()
        nulls = {column: np.isnan(chunk.columns[column]) for column in sorted(kept)}
        try:
            check_pulses(
                chunk.columns,
                torch.from_numpy(np.append(0, np.cumsum(length_B[full]))),
                self.pulse_map,
                geometry=self.geometry,
                event_id=torch.from_numpy(chunk.event_id[full]),
            )
            for column, null_T in nulls.items():
                if null_T.any():
                    pulse = int(null_T.argmax())
                    row = np.searchsorted(chunk.offsets, pulse, side="right") - 1
                    event = f"event {chunk.event_id[row]}"
                    raise PulseError(f"{event}: column {column!r} is null", pulse)
        except PulseError as error:
            place = name
            if chunk.first_row is not None:
                place = f"{name}, row {chunk.first_row + error.pulse}"
            if self.bad_pulses == ERROR:
                raise ValueError(
                    f"{place}: {error}. Use --drop-bad-pulses (drop_bad_pulses=True) "
                    "to leave such pulses out"
                ) from None
            self.first_fault = self.first_fault or f"{place}: {error}"
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        else:
            return chunk, fault_B
        num_pulses = int(chunk.offsets[-1])
        _, fault_T = pulse_faults(
            chunk.columns, num_pulses, self.pulse_map, geometry=self.geometry
        )
        for column, null_T in nulls.items():
            fault_T = np.where(null_T & (fault_T == ""), f"bad {column}", fault_T)
        if self.bad_pulses == MARK:
            fault_B = event_faults(fault_T, length_B)
            fault_T = np.repeat(fault_B, length_B)
        found = fault_B if self.bad_pulses == MARK else fault_T
        self.faults.update(found[found != ""].tolist())
        kept_T = fault_T == ""
        self.num_left_out += int((~kept_T).sum())
        columns = {c: np.asarray(v)[kept_T] for c, v in chunk.columns.items()}
        offsets = np.append(0, np.cumsum(kept_T))[chunk.offsets]
        return replace(chunk, columns=columns, offsets=offsets), fault_B

    def _moves(
        self, chunk: EventChunk, offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows that change in sorting, and the rows of their new values."""
        time_T = np.asarray(chunk.columns[self.pulse_map.time])
        if not self.sort_pulses or len(time_T) < 2:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        back_T, same_T = time_T[1:] < time_T[:-1], time_T[1:] == time_T[:-1]
        for step_T in (back_T, same_T):
            step_T[offsets[1:-1] - 1] = False  # at borders of events
        known = self.pulse_map.columns()
        columns = {
            known[column]: np.asarray(values)
            for column, values in chunk.columns.items()
            if known.get(column) in TIE_BREAKERS
        }
        if not back_T.any():
            return tie_moves(columns, same_T)
        event_T = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.num_sorted += len(np.unique(event_T[1:][back_T]))
        # A copy, because torch warns about read-only arrays.
        order_T = event_order({**columns, TIME: np.array(time_T)}, event_T)
        rows = np.flatnonzero(order_T != np.arange(len(order_T)))
        return rows, order_T[rows]

    def _relative(
        self, chunk: EventChunk, time_T: NDArray[Any], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return times on the running clock, (T,), and the clocks' zeros, (B,).

        They are subtracted in float64 or as integers: KM3NeT's clock reaches 1e8 ns,
        where float32 has steps of 8 ns; nanoseconds since 1970 need integers. `offsets`
        are those of the events with pulses.
        """
        kind = np.int64 if time_T.dtype.kind in "iu" else np.float64
        known = self.pulse_map.columns()
        columns = {known[c]: v for c, v in chunk.columns.items() if c in known}
        columns[TIME] = time_T = time_T.astype(kind)
        zero, num_untriggered = clock_zeros(
            columns, offsets, self.pulse_map.time_reference
        )
        self.num_untriggered += num_untriggered
        origin_B = np.zeros(len(chunk.event_id), kind)
        origin_B[np.diff(chunk.offsets) > 0] = zero
        return time_T - np.repeat(zero, np.diff(offsets)), origin_B

    def _stored(
        self, column: str, quantity: str | None, values: NDArray[Any], name: str
    ) -> NDArray[Any]:
        if quantity is None:  # not in the pulse map
            return np.array(values, np.uint8 if values.dtype == bool else None)
        if quantity == SENSOR_ID:
            return values.astype(np.int16 if len(self.geometry) < 2**15 else np.int32)
        if quantity in (AUXILIARY, HLC):
            flag: NDArray[np.uint8] = (values != 0).astype(np.uint8)
            return flag
        stored: NDArray[np.float32] = values.astype(np.float32)
        if quantity in (X, Y, Z) and len(values):
            off = np.abs(stored - values.astype(np.float64)).max()
            if off > POSITION_PRECISION:
                far = float(np.abs(values).max())
                raise ValueError(
                    f"{name}: column {column!r} has values up to {far:g} m, which "
                    f"float32 of the store changes by {off:.2g} m. Subtract the "
                    "detector's centre from the positions first"
                )
        return stored


@dataclass
class ShardWriter:
    """Collection of cleaned chunks, which are written as shards.

    Args:
        folder: Folder `shards` of the store.
        part_name: Prefix of the shards' names.
        source: File, or part of a file, for the manifest and messages.
        batch: Number of the competition's batch.
        shard_pulses: Maximum pulses per shard, if no chunk has more.
        file: Path of the file, if the source is a part of it.
        records: Entries of the written shards for the manifest.
        types: Types of the columns of pulses and of events, None before the first
            chunk.
    """

    folder: Path
    part_name: str
    source: str
    batch: int | None
    shard_pulses: int
    file: str = ""
    records: list[ShardRecord] = field(default_factory=list)
    types: tuple[dict[str, str], dict[str, str]] | None = None
    _chunks: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    _num_pulses: int = 0

    def add(self, pulses: dict[str, Any], events: dict[str, Any]) -> None:
        """Add a chunk; write a shard first if it would become too large.

        Raises:
            ValueError: A column has another type than in the chunks before.
        """
        types = (_types(pulses), _types(events))
        if self.types is None:
            self.types = types
        elif types != self.types:
            old, new = (set({**a, **b}.items()) for a, b in (self.types, types))
            names = ", ".join(f"{name} ({kind})" for name, kind in sorted(old ^ new))
            raise ValueError(
                f"{self.source}: columns must have one type, found several: {names}"
            )
        num_pulses = int(events[N_PULSES].sum())
        if self._num_pulses + num_pulses > self.shard_pulses:
            self.close_shard()
        self._chunks.append((pulses, events))
        self._num_pulses += num_pulses

    def close_shard(self) -> None:
        """Write the collected chunks as a shard."""
        if not self._chunks:
            return
        events = _joined([chunk[1] for chunk in self._chunks])
        n_pulses = events[N_PULSES].astype(np.int64)
        events[FIRST_PULSE] = np.cumsum(n_pulses) - n_pulses
        pulses = _joined([chunk[0] for chunk in self._chunks])
        self._chunks, self._num_pulses = [], 0
        name = f"{self.part_name}-{len(self.records):04d}"
        final = self.folder / name
        shutil.rmtree(final, ignore_errors=True)  # left by a killed conversion
        with write_whole_folder(final) as folder:
            files = {
                PULSES_FILE: write_table(folder / PULSES_FILE, pulses),
                EVENTS_FILE: write_table(folder / EVENTS_FILE, events),
            }
        ids = events[EVENT_ID]
        self.records.append(
            ShardRecord(
                name=name,
                source=self.source,
                batch=self.batch,
                num_events=len(ids),
                num_pulses=int(n_pulses.sum()),
                num_empty=int((n_pulses == 0).sum()),
                first_id=int(ids.min()) if len(ids) else 0,
                last_id=int(ids.max()) if len(ids) else -1,
                files=files,
                file=self.file,
            )
        )


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Join chunks column by column, and free each piece at once."""
    if len(chunks) == 1:
        return dict(chunks[0])
    names = list(chunks[0])
    return {name: np.concatenate([c.pop(name) for c in chunks]) for name in names}


def _types(columns: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: "string" if values.dtype.kind in "OUS" else str(values.dtype)
        for name, values in columns.items()
    }
