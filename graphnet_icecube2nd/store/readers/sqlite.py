"""GraphNeT's SQLite files: a table of pulses and a table of truth, joined by event_no.

Parts are ranges of event_no, so several processes share one file and a conversion that
was stopped goes on at the next range; an index on the event column is all that is
needed to read a range of a file of any size. Shape letters: B events, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.arrow_values import is_string
from graphnet_icecube2nd.store.readers.columns import KEEP_ALL, Keep, choose_columns
from graphnet_icecube2nd.store.readers.flat_part import FlatPart
from graphnet_icecube2nd.store.readers.source import (
    SQLITE_SUFFIXES,
    EventChunk,
    Source,
)
from graphnet_icecube2nd.store.readers.sqlite_rows import (
    SqliteRows,
    list_tables,
    opened,
    with_types,
)
from graphnet_icecube2nd.store.readers.tables import (
    PathLike,
    check_tables,
    choose_pulses,
    choose_truth,
    has_angles,
    list_files,
    tables_with_event,
)
from graphnet_icecube2nd.store.readers.truth import open_truth

DUPLICATES = ("error", "renumber")
SOURCE_FILE = "source_file"  # which of several files an event is of, from 0


def sqlite_source(
    paths: PathLike | Sequence[PathLike],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str = "event_no",
    keep: Keep = (),
    duplicates: str = "error",
    events_per_part: int = 100_000,
) -> Source:
    """Read GraphNeT's SQLite files.

    Events come in the order of event_no, file by file; pulses of an event in the order
    they were written. A row of truth without pulses is an event of no pulses. Looking
    at the types of kept columns reads the tables once.

    Args:
        paths: A file, several, or folders of files that end in `.db`
            (`.sqlite`, `.sqlite3`).
        pulses: Table of pulses; default the one that a named pulse map fits.
        truth: Table of truth; default the one that has the angles, and the event
            column for its primary key if one has. False to do without.
        pulse_map: What the columns mean; default one of the named pulse maps.
        event_column: Joins pulses to truth.
        keep: Further columns of the pulses to take, or `all`.
        duplicates: What to do with an event_no that stands in two files: `error`, or
            `renumber` to count events through all files and keep the old number and
            the number of the file as truth columns `event_no` and `source_file`.
        events_per_part: Events that one process reads at a time.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file is no SQLite file or not whole, a table is missing or
            ambiguous, files do not agree; names file and table.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(
            f"duplicates must be one of {', '.join(DUPLICATES)}, got {duplicates!r}"
        )
    if events_per_part < 1:
        raise ValueError(f"events_per_part must be 1 or more, got {events_per_part}")
    files = [
        _choose_tables(path, pulses, truth, pulse_map, event_column)
        for path in list_files(paths, SQLITE_SUFFIXES)
    ]
    tables = [rows for rows, _, _ in files]
    truth_tables = [rows for _, rows, _ in files if rows is not None]
    first, _, found = files[0]
    for table, _, other in files:
        if other != found:
            raise ValueError(
                f"{first.path} fits pulse map {found.name!r}, {table.path} "
                f"{other.name!r}; read them one by one"
            )
    others = [column for column in first.types if column != event_column]
    taken, left_out = choose_columns(others, found, keep)
    check_tables(tables, taken)
    # The store makes float32 of what it knows, but keeps an integer clock as it is.
    known = found.columns()
    clock = found.time_reference == "first_pulse"
    asked = [c for c in taken if c not in known or (clock and known[c] == TIME)]
    tables = with_types(tables, asked)
    types = tables[0].types
    text = tuple(c for c in taken if is_string(types[c]) and c not in known)
    if keep == KEEP_ALL:
        taken = tuple(column for column in taken if column not in text)
    check_tables(tables, taken, found)
    notes = [table.index_note() for table in tables]
    if keep == KEEP_ALL:
        notes += [
            f"pulse column {column!r} left out: text is kept for events only"
            for column in text
        ]
        left_out = (*left_out, *text)
    labels, kept_event = None, None
    if truth_tables:
        truth_tables = _same_columns(truth_tables)
        labels, _, truth_notes = open_truth(
            truth_tables, found, event_column=event_column
        )
        notes += truth_notes
    if duplicates == "renumber":
        kept_event = "event_no" if event_column in RESERVED else event_column
        notes += [f"{SOURCE_FILE} {n} is {t.path}" for n, t in enumerate(tables)]
        clash = {kept_event, SOURCE_FILE} & set(labels.columns if labels else ())
        if clash:
            raise ValueError(
                f"{first.path}: the truth has a column {sorted(clash)[0]!r} already, "
                "which renumbering would make"
            )
    parts: list[SqlitePart] = []
    first_number = 0
    for number, rows in enumerate(tables):
        counted = truth_tables[number] if labels else rows
        borders, num_events = counted.borders(events_per_part)
        lows, highs = [None, *borders], [*borders, None]
        for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
            name = str(rows.path)
            if borders:
                name += f" (part {index + 1} of {len(borders) + 1})"
            part = SqlitePart(
                name=name,
                rows=replace(rows, low=low, high=high),
                event_column=event_column,
                columns=taken,
                by_number=True,
                kept_event=kept_event,
                file_number=number,
                first_number=first_number + index * events_per_part,
            )
            if labels is not None:
                part.truth = replace(
                    labels, rows=(replace(counted, low=low, high=high),)
                )
            parts.append(part)
        first_number += num_events
    return Source(
        kind="graphnet-sqlite",
        pulse_map=found,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        notes=tuple(filter(None, notes)),
    )


@dataclass(kw_only=True, eq=False)
class SqlitePart(FlatPart):
    """A range of events of a SQLite file.

    Args:
        kept_event: Truth column that keeps the event column where events get new
            numbers, or None.
        file_number: Place among the files.
        first_number: Events in the parts before.
    """

    rows: SqliteRows
    kept_event: str | None
    file_number: int
    first_number: int

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        renumbered = [self.kept_event, self.file_number, self.first_number]
        return {**super().fingerprint(), "renumbered": renumbered}

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the events of the range, from one state of the file."""
        number = self.first_number
        with opened(self.rows.path) as connection:
            part = replace(self, rows=replace(self.rows, connection=connection))
            if self.truth is not None:
                truth_rows: Any = self.truth.rows[0]
                truth_rows = replace(truth_rows, connection=connection)
                part.truth = replace(self.truth, rows=(truth_rows,))
            for chunk in super(SqlitePart, part).chunks(max_pulses):
                if self.kept_event is None:
                    yield chunk
                    continue
                num_events = len(chunk.event_id)
                old = {
                    self.kept_event: chunk.event_id,
                    SOURCE_FILE: np.full(num_events, self.file_number, np.int64),
                }
                yield replace(
                    chunk,
                    event_id=np.arange(number, number + num_events),
                    truth={**chunk.truth, **old},
                )
                number += num_events


def _choose_tables(
    path: Path,
    pulses: str | None,
    truth: str | bool | None,
    pulse_map: PulseMap | None,
    event: str,
) -> tuple[SqliteRows, SqliteRows | None, PulseMap]:
    """Return the tables of a file, and what the columns of the pulses mean."""
    place = str(path)
    with opened(path) as connection:
        tables = list_tables(connection)
    with_event = tables_with_event(tables, event, pulses, truth, place)
    keyed = [table for table in with_event if table.key == (event,)]
    chosen, found = choose_pulses(
        [t for t in with_event if t not in keyed] if pulses is None else tables,
        place=place,
        name=pulses,
        pulse_map=pulse_map,
    )
    if not any(has_angles(table, found) for table in keyed):
        keyed = with_event  # pandas writes tables without a key
    candidates = keyed if truth is None else tables
    labels = choose_truth(
        [table for table in candidates if table.name != chosen.name],
        place=place,
        name=truth,
        pulse_map=found,
    )
    rows = SqliteRows(path=path, table=chosen, event=event)
    rows.check_event_numbers()
    truth_rows = None
    if labels is not None:
        truth_rows = replace(rows, table=labels)
        truth_rows.check_event_numbers()
    return rows, truth_rows, found


def _same_columns(tables: Sequence[SqliteRows]) -> list[SqliteRows]:
    """Return tables of truth with the types of their columns, the same in all files."""
    first = tables[0]
    for table in tables:
        if differing := set(table.types) ^ set(first.types):
            raise ValueError(
                f"{first.path} and {table.path} have different truth columns: "
                f"{', '.join(sorted(differing))}"
            )
    return with_types(tables, [c for c in first.types if c != first.event])
