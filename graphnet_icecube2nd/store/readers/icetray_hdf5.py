"""HDF5 files of icetray's hdfwriter: an index of rows frame by frame.

Each object of a frame is a compound table in the root that begins with Run, Event,
SubEvent, SubEventStream, exists. Pulses take as many rows as an event has; which rows
says the table of the same name in `__I3Index__`, one row a frame with start and stop,
padded with rows that do not exist. An object with one row a frame is padded itself, so
that row i is frame i. So it stands in icetray's tableio, `I3Table.cxx` and
`I3TableService.cxx`. Shape letters: T pulses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, HLC, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.geometry import DOMS_PER_STRING
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import NO_TRUTH
from graphnet_icecube2nd.store.readers.hdf5_file import (
    EVENTS_AT_ONCE,
    H5Table,
    Ranges,
    find_tables,
)

INDEX = "__I3Index__"
EVENT = ("Run", "Event", "SubEvent", "SubEventStream")
EXISTS = "exists"
PRIMARIES = ("MCPrimary", "I3MCPrimary", "MCPrimary1", "MCInIcePrimary")
STRINGS = 86
# Bit 0 of a pulse's flags: `LC = (1 << 0)` of PulseFlags in icetray's I3RecoPulse.h,
# which GraphNeT's feature extractor calls hlc too.
LC_FLAG = 1


def index_tables(file: Any) -> dict[str, H5Table]:
    """Return the tables of the index by the name of what they index; maybe none."""
    if INDEX not in file:
        return {}
    tables = find_tables(file[INDEX])
    return {
        table.name: replace(table, name=f"{INDEX}/{table.name}")
        for table in tables
        if {*EVENT[:2], EXISTS, "start", "stop"} <= set(table.types)
    }


def computed_columns(table: H5Table) -> dict[str, Any]:
    """Return the Arrow types of the columns that `compute` makes for a table."""
    pa = import_pyarrow()
    columns = set(table.types)
    made = {}
    if {"string", "om"} <= columns and not {X, Y, Z} <= columns:
        made[SENSOR_ID] = pa.int64()
    if "flags" in columns:
        made[HLC] = pa.uint8()
    return {column: kind for column, kind in made.items() if column not in columns}


def recognise_pulses(columns: Collection[str]) -> PulseMap | None:
    """Return what columns mean, computed ones too; None if they are no pulses."""
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


def needed_for(columns: tuple[str, ...], table: H5Table) -> tuple[str, ...]:
    """Return the columns of the file that are read to hand on `columns`."""
    needed = []
    for column in columns:
        if column in table.types:
            needed.append(column)
        elif column == SENSOR_ID:
            needed += ["string", "om"]
        else:
            needed.append("flags")
    return tuple(dict.fromkeys(needed))


def compute(columns: Mapping[str, NDArray[Any]], place: str) -> dict[str, NDArray[Any]]:
    """Make sensor_id of string and om, and hlc of the flags, where those were read.

    Raises:
        ValueError: A DOM that has no sensor_id of IceCube-86.
    """
    made: dict[str, NDArray[Any]] = {}
    if "string" in columns and "om" in columns:
        string_T = columns["string"].astype(np.int64)
        om_T = columns["om"].astype(np.int64)
        known_T = (string_T >= 1) & (string_T <= STRINGS)
        known_T &= (om_T >= 1) & (om_T <= DOMS_PER_STRING)
        if not known_T.all():
            pulse = int(np.flatnonzero(~known_T)[0])
            raise ValueError(
                f"{place}: a pulse in string {string_T[pulse]}, om {om_T[pulse]}; "
                f"IceCube-86 has strings 1 to {STRINGS} with oms 1 to "
                f"{DOMS_PER_STRING} in the ice. Take IceTop out, or have hdfwriter "
                "write x, y, z of the DOMs too"
            )
        made[SENSOR_ID] = DOMS_PER_STRING * (string_T - 1) + om_T - 1
    if "flags" in columns:
        made[HLC] = (columns["flags"].astype(np.int64) & LC_FLAG).astype(np.uint8)
    return made


def check_same_frames(file: Any, index: H5Table, truth: H5Table, place: str) -> None:
    """See that row i of the truth is frame i of the index.

    Raises:
        ValueError: It is not.
    """
    columns = [c for c in EVENT if c in index.types and c in truth.types]
    same = index.num_rows == truth.num_rows
    for low in range(0, index.num_rows if same else 0, EVENTS_AT_ONCE):
        rows = slice(low, low + EVENTS_AT_ONCE)
        ours, theirs = (table.read(file, columns, rows) for table in (index, truth))
        for column in columns:
            if same and not np.array_equal(ours[column], theirs[column]):
                same = False
    if not same:
        raise ValueError(
            f"{place}: table {truth.name!r} ({truth.num_rows} rows) has not one row "
            f"for each of the {index.num_rows} frames of {index.name!r}, in the same "
            f"order. Name a table that has: truth=..., or do without: {NO_TRUTH}"
        )


def frame_ranges(index: H5Table, num_pulses: int) -> Ranges:
    """Return where the events lie, by the index."""
    return Ranges(
        table=index, first="start", stop="stop", exists=EXISTS, num_pulses=num_pulses
    )


def possible_truth(
    tables: list[H5Table], wanted: str | bool | None, place: str
) -> list[H5Table]:
    """Return the tables that may be the truth, if the user names none: primaries.

    Reconstructions have angles too; only the primary's are truth.

    Raises:
        ValueError: There are none.
    """
    if wanted is not None:
        return tables
    primaries = [table for table in tables if table.name in PRIMARIES]
    if not primaries:
        raise ValueError(
            f"{place} has no table {' or '.join(PRIMARIES)}; there is "
            f"{', '.join(table.name for table in tables) or 'no other'}. Name the "
            f"table of truth: truth=..., or do without: {NO_TRUTH}"
        )
    return primaries
