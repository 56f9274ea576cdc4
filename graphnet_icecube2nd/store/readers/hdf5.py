"""HDF5: a flat table of pulses and where each event lies in it.

Two layouts are known. One has a table of pulses, a dataset of offsets (or columns of
first rows and numbers of pulses) and a table with one row an event. The other is that
of icetray's hdfwriter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.hdf5_file import opened
from graphnet_icecube2nd.store.readers.hdf5_flat import Looked, Wishes, look_at_flat
from graphnet_icecube2nd.store.readers.hdf5_part import H5Part
from graphnet_icecube2nd.store.readers.icetray_hdf5 import (
    index_tables,
    look_at_icetray,
)
from graphnet_icecube2nd.store.readers.source import HDF5_SUFFIXES, Source
from graphnet_icecube2nd.store.readers.tables import list_files


def hdf5_source(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    offsets: str | Sequence[str] | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str | None = None,
    keep: str | Sequence[str] = (),
    events_per_part: int = 100_000,
) -> Source:
    """Read HDF5 files.

    Events and pulses come in the order of the file. Tables are named by their path,
    such as `pulses` or `events/truth`.

    Args:
        paths: A file, several, or folders of files that end in .h5, .hdf5 or .hdf.
        pulses: Table of pulses: a compound dataset, or a group of columns; default
            the one that a named pulse map fits, or that hdfwriter wrote.
        truth: Table of truth, one row an event; default the one that has the angles,
            of hdfwriter's one called as the primary is (`MCPrimary`). False to do
            without.
        offsets: Path of the B + 1 borders of events in the table of pulses, or paths
            of first rows and numbers of pulses; default those of known names
            (`offsets`, `first_pulse` and `n_pulses`). Not for hdfwriter's files.
        pulse_map: What the columns mean. Of hdfwriter's pulses, `sensor_id` (of string
            and om) and `hlc` (of the flags) are columns too.
        event_column: Column of the truth, or path, of the event_id; default
            `event_id` or `event_no`, and else events are counted.
        keep: Further columns of the pulses to take, or `all`.
        events_per_part: Events that one process reads at a time.

    Raises:
        FileNotFoundError: No such file.
        ImportError: h5py is not installed.
        ValueError: A file is no HDF5 file or not whole, a table is missing or
            ambiguous, offsets cannot be true, files do not agree; names file and table.
    """
    if events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    wishes = Wishes(
        pulses=pulses if pulses is None else pulses.strip("/") or "/",
        truth=truth.strip("/") or "/" if isinstance(truth, str) else truth,
        offsets=offsets,
        pulse_map=pulse_map,
        event_column=event_column,
        keep=keep,
    )
    looked = [_look_at(path, wishes) for path in list_files(paths, HDF5_SUFFIXES)]
    for other in looked[1:]:
        _check_agreement(looked[0], other)
    parts, first_number = [], 0
    for layout in (look.layout for look in looked):
        for low in range(0, layout.num_events, events_per_part):
            high = min(low + events_per_part, layout.num_events)
            parts.append(H5Part(layout, low, high, first_number))
        first_number += layout.num_events
    return Source(
        kind="hdf5",
        pulse_map=looked[0].pulse_map,
        parts=parts,
        pulse_columns=looked[0].layout.taken,
        left_out=looked[0].left_out,
        notes=tuple(note for look in looked for note in look.notes),
    )


def _look_at(path: Path, wishes: Wishes) -> Looked:
    with opened(path) as file:
        index = index_tables(file)
        if not index:
            return look_at_flat(file, path, wishes)
        if wishes.offsets is not None:
            raise ValueError(
                f"{path} is of icetray's hdfwriter, which says itself where events "
                "lie; give no offsets"
            )
        return look_at_icetray(file, path, index, wishes)


def _check_agreement(first: Looked, other: Looked) -> None:
    """See that two files can be read as one."""

    def types(look: Looked) -> tuple[dict[str, str], dict[str, str]]:
        known = look.pulse_map.columns()
        pulses = look.layout.pulses.types
        # The store makes types of its own of what the pulse map names, but the clock
        # of an event may count in integers.
        kept = {*look.layout.taken} - {*known} | {look.pulse_map.time}
        return (
            {column: pulses[column] for column in kept if column in pulses},
            {
                column: table.types[column]
                for table, columns in look.layout.truth
                for column in columns
            },
        )

    ours, theirs = first.layout, other.layout
    for what, one, two in zip(
        ("pulse", "truth"), types(first), types(other), strict=True
    ):
        if one != two:
            differing = sorted({*one.items()} ^ {*two.items()})
            raise ValueError(
                f"{ours.path} and {theirs.path} have different {what} columns: "
                f"{', '.join(f'{name} ({type_})' for name, type_ in differing)}; read "
                "them one by one"
            )
    if first.pulse_map != other.pulse_map:
        raise ValueError(
            f"{ours.path} fits pulse map {first.pulse_map.name!r}, {theirs.path} "
            f"{other.pulse_map.name!r}; read them one by one"
        )
    if (ours.event_id is None) != (theirs.event_id is None):
        raise ValueError(
            f"{ours.path} and {theirs.path}: only one of them has an event_id; read "
            "them one by one"
        )
