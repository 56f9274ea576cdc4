"""HDF5 files of icetray's hdfwriter, with an index of rows for each frame.

Each object of a frame is a compound table in the root that begins with the columns Run,
Event, SubEvent, SubEventStream, exists. Pulses have one row each; the table of the same
name in `__I3Index__` has one row per frame with start and stop, and padding rows for
frames without the object. An object with one row per frame has padding itself, so row i
is frame i. The source is icetray's tableio, `I3Table.cxx` and `I3TableService.cxx`.
Shape letters: T pulses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, HLC, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.geometry import DOMS_PER_STRING
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import NO_TRUTH
from graphnet_icecube2nd.store.readers.hdf5_tables import H5Table, Ranges

INDEX = "__I3Index__/"
EVENT = ("Run", "Event", "SubEvent", "SubEventStream")
EXISTS = "exists"
PRIMARIES = ("MCPrimary", "I3MCPrimary", "MCPrimary1", "MCInIcePrimary")
STRINGS = 86
# Bit 0 of a pulse's flags: `LC = (1 << 0)` of PulseFlags in icetray's I3RecoPulse.h,
# which is hlc also in GraphNeT's feature extractor.
LC_FLAG = 1
_MADE_OF = {SENSOR_ID: ("string", "om"), HLC: ("flags",)}


def index_tables(tables: Sequence[H5Table]) -> dict[str, H5Table]:
    """Return the tables of the index by the name of their object; may be empty."""
    return {
        table.node.removeprefix(INDEX): table
        for table in tables
        if table.node.startswith(INDEX)
        and {*EVENT[:2], EXISTS, "start", "stop"} <= set(table.types)
    }


@dataclass(frozen=True, kw_only=True)
class IcetrayPulses(H5Table):
    """A table of pulses with sensor_id (from string and om) and hlc (from flags)."""

    @classmethod
    def of(cls, table: H5Table) -> IcetrayPulses:
        """Return a table with the computed columns, without those of the frame."""
        pa = import_pyarrow()
        types = _without_header(table.types)
        computed = {SENSOR_ID: pa.int64(), HLC: pa.uint8()}
        if {X, Y, Z} <= set(types):
            del computed[SENSOR_ID]
        for column, kind in computed.items():
            if column not in types and {*_MADE_OF[column]} <= set(types):
                types[column] = kind
        given = {item.name: getattr(table, item.name) for item in fields(table)}
        return cls(**{**given, "types": types})

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of columns, (T,) each."""
        stored = file[self.node].dtype.names
        computed = [column for column in columns if column not in stored]
        needed = [column for column in columns if column in stored]
        needed += [source for column in computed for source in _MADE_OF[column]]
        arrays = super().read(file, [*dict.fromkeys(needed)], rows)
        if SENSOR_ID in computed:
            arrays[SENSOR_ID] = self._sensor_id(arrays["string"], arrays["om"])
        if HLC in computed:
            flags_T = arrays["flags"].astype(np.int64)
            arrays[HLC] = (flags_T & LC_FLAG).astype(np.uint8)
        return {column: arrays[column] for column in columns}

    def _sensor_id(
        self, string_T: NDArray[Any], om_T: NDArray[Any]
    ) -> NDArray[np.int64]:
        string_T, om_T = string_T.astype(np.int64), om_T.astype(np.int64)
        known_T = (string_T >= 1) & (string_T <= STRINGS)
        known_T &= (om_T >= 1) & (om_T <= DOMS_PER_STRING)
        if not known_T.all():
            pulse = int(known_T.argmin())
            raise ValueError(
                f"{self.name}: string must be 1 to {STRINGS} and om 1 to "
                f"{DOMS_PER_STRING} for IceCube-86, found string {string_T[pulse]}, om "
                f"{om_T[pulse]}. Remove IceTop; for another detector, let hdfwriter "
                "also write x, y, z of the modules"
            )
        sensor_id_T: NDArray[np.int64] = DOMS_PER_STRING * (string_T - 1) + om_T - 1
        return sensor_id_T


def check_detector(tables: Sequence[H5Table], pulses: H5Table, place: str) -> None:
    """Check that pulses without positions are those of IceCube, not of ANTARES."""
    of_antares = [table.node for table in tables if table.node.startswith("Ant")]
    if of_antares and not {X, Y, Z} <= set(pulses.types):
        raise ValueError(
            f"{place} has {of_antares[0]}, a table of ANTARES, but its pulses have "
            "only string and om, which are read as those of IceCube-86. Let hdfwriter "
            "also write x, y, z of the modules, and give --detector or --geometry"
        )


def recognise_pulses(columns: Collection[str]) -> PulseMap | None:
    """Return the pulse map of columns, computed ones included, or None."""
    placed = {X, Y, Z} <= set(columns)
    if not {TIME, CHARGE} <= set(columns) or not (placed or SENSOR_ID in columns):
        return None
    return PulseMap(
        name="icetray",
        x=X if placed else None,
        y=Y if placed else None,
        z=Z if placed else None,
        sensor_id=None if placed else SENSOR_ID,
        charge=CHARGE,
        hlc=HLC if HLC in columns else None,
    )


def frame_ranges(index: H5Table, num_pulses: int) -> Ranges:
    """Return the rows of the events from the index."""
    columns = {"first": "start", "stop": "stop", "exists": EXISTS}
    return Ranges(table=index, columns=columns, num_pulses=num_pulses)


def possible_truth(
    tables: Mapping[str, H5Table], wanted: str | bool | None, place: str
) -> dict[str, H5Table]:
    """Return the tables that may be the truth: by default those of primaries.

    Reconstructions have angles too, but are not truth.
    """
    if wanted is not None:
        return dict(tables)
    primaries = {name: table for name, table in tables.items() if name in PRIMARIES}
    if not primaries:
        raise ValueError(
            f"{place} has no table {' or '.join(PRIMARIES)}; it has "
            f"{', '.join(tables) or 'no other'}. Name the table of truth: "
            f"--truth-table (truth_table=...), or leave truth out: {NO_TRUTH}"
        )
    return primaries


def frame_truth(index: H5Table, truth: H5Table | None) -> H5Table:
    """Return a table of truth with the columns of the frame, or only these."""
    columns = [column for column in EVENT if column in index.types]
    if truth is None:
        return replace(index, types={column: index.types[column] for column in columns})
    shared = [column for column in columns if column in truth.types]
    same = len(index.rows) == len(truth.rows)
    if same:
        for (_, ours), (_, theirs) in zip(
            index.arrays(shared), truth.arrays(shared), strict=True
        ):
            same &= all(np.array_equal(ours[c], theirs[c]) for c in shared)
    if not same:
        raise ValueError(
            f"{truth.name} must have one row for each of the {len(index.rows)} frames "
            f"of {index.node!r}, in the same order; it has {len(truth.rows)} rows. "
            "Name another table: --truth-table (truth_table=...), or leave truth out: "
            f"{NO_TRUTH}"
        )
    if EXISTS in truth.types:
        exists = truth.whole([EXISTS])[EXISTS] != 0
        if not exists.all():
            raise ValueError(
                f"{truth.name}: event {int(exists.argmin())} (counted from 0) has no "
                f"truth. Remove such events, or leave truth out: {NO_TRUTH}"
            )
    truth = replace(truth, types=_without_header(truth.types))
    return truth.with_columns(columns, index)


def _without_header(types: Mapping[str, Any]) -> dict[str, Any]:
    return {c: kind for c, kind in types.items() if c not in (*EVENT, EXISTS)}
