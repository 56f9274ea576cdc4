"""GraphNeT's SQLite files: a table of pulses and a table of truth, joined by event_no.

Parts are ranges of event_no, so several processes share one file and a conversion that
was stopped goes on at the next range. Nothing is written into the user's file. Shape
letters: T pulses, B events.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.manifest import RESERVED
from graphnet_icecube2nd.store.readers.columns import choose_columns
from graphnet_icecube2nd.store.readers.source import SQLITE_SUFFIXES, Source
from graphnet_icecube2nd.store.readers.sqlite_file import (
    REAL,
    TEXT,
    SqliteTable,
    check_event_numbers,
    kind_of,
    list_tables,
    opened,
    quoted,
    types_seen,
)
from graphnet_icecube2nd.store.readers.sqlite_part import (
    SOURCE_FILE,
    SqliteColumns,
    SqliteFile,
    SqlitePart,
)
from graphnet_icecube2nd.store.readers.tables import (
    check_event_column,
    choose_pulses,
    choose_truth,
    list_files,
    truth_columns,
)

DUPLICATES = ("error", "renumber")
TEXT_PULSES = "text is kept for events only"


def sqlite_source(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str = "event_no",
    keep: str | Sequence[str] = (),
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
        _look_at(path, pulses, truth, pulse_map, event_column)
        for path in list_files(paths, SQLITE_SUFFIXES)
    ]
    _check_agreement(files)
    found = files[0].pulse_map
    others = [column for column in files[0].pulses.columns if column != event_column]
    taken, left_out = choose_columns(others, found, keep)
    kept_event = None
    if duplicates == "renumber":
        kept_event = "event_no" if event_column in RESERVED else event_column
        if clash := {kept_event, SOURCE_FILE} & set(files[0].truth_taken):
            raise ValueError(
                f"{files[0].path}: the truth has a column {sorted(clash)[0]!r} "
                "already, which renumbering would make"
            )
    types = _types_of(files, taken, found, keep)
    columns = SqliteColumns(
        pulses={c: kind for c, kind in types[0].items() if kind != TEXT},
        truth=types[1],
        event=event_column,
        kept_event=kept_event,
    )
    text = tuple(column for column in taken if column not in columns.pulses)
    notes = [note for file in files for note in file.notes]
    notes += [f"pulse column {column!r} left out: {TEXT_PULSES}" for column in text]
    if kept_event is not None:
        notes += [f"{SOURCE_FILE} {n} is {file.path}" for n, file in enumerate(files)]
    return Source(
        kind="graphnet-sqlite",
        pulse_map=found,
        parts=_make_parts(files, columns, events_per_part),
        pulse_columns=tuple(columns.pulses),
        left_out=(*left_out, *text),
        notes=tuple(notes),
    )


def _look_at(
    path: Path,
    pulses: str | None,
    truth: str | bool | None,
    pulse_map: PulseMap | None,
    event: str,
) -> SqliteFile:
    place = str(path)
    with opened(path) as connection:
        tables = list_tables(connection)
        with_event = [table for table in tables if event in table.columns]
        check_event_column(tables, with_event, event, pulses, truth, place)
        many = [table for table in with_event if table.key != (event,)]
        chosen, found = choose_pulses(
            many if pulses is None else tables,
            place=place,
            name=pulses,
            pulse_map=pulse_map,
        )
        keyed = [table for table in with_event if table.key == (event,)]
        angles = {found.labels.azimuth, found.labels.zenith}
        if not any(angles <= set(table.columns) for table in keyed):
            keyed = with_event  # pandas writes tables without a key
        candidates = keyed if truth is None else tables
        chosen_truth = choose_truth(
            [table for table in candidates if table.name != chosen.name],
            place=place,
            name=truth,
            pulse_map=found,
        )
        assert isinstance(chosen, SqliteTable)
        assert chosen_truth is None or isinstance(chosen_truth, SqliteTable)
        taken: tuple[str, ...] = ()
        notes: tuple[str, ...] = ()
        if chosen_truth is not None:
            taken, notes = truth_columns(chosen_truth.columns, place, {event})
        for table in filter(None, (chosen, chosen_truth)):
            check_event_numbers(connection, table, event, place)
    if event not in chosen.indexed:
        name = chosen.name
        notes += (
            f"{place}, table {name!r}: no index on {event!r}, so every part reads all "
            f"of it. Quicker, if you may write to the file: CREATE INDEX "
            f"{event}_{name} ON {name} ({event})",
        )
    return SqliteFile(
        path=path,
        pulses=chosen,
        truth=chosen_truth,
        pulse_map=found,
        truth_taken=taken,
        notes=notes,
    )


def _check_agreement(files: Sequence[SqliteFile]) -> None:
    first = files[0]
    for file in files[1:]:
        if file.pulse_map != first.pulse_map:
            raise ValueError(
                f"{first.path} fits pulse map {first.pulse_map.name!r}, {file.path} "
                f"{file.pulse_map.name!r}; read them one by one"
            )
        if (file.truth is None) != (first.truth is None) or (
            set(file.truth_taken) != set(first.truth_taken)
        ):
            differing = set(file.truth_taken) ^ set(first.truth_taken)
            raise ValueError(
                f"{first.path} and {file.path} have different truth columns: "
                f"{', '.join(sorted(differing))}"
            )


def _types_of(
    files: Sequence[SqliteFile],
    taken: Sequence[str],
    pulse_map: PulseMap,
    keep: str | Sequence[str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the types of the columns of pulses and truth, the same for all files."""
    known = pulse_map.columns()
    # The store makes float32 of what it knows, but keeps an integer clock as it is.
    clock = pulse_map.time_reference == "first_pulse"
    asked = [c for c in taken if c not in known or (clock and known[c] == TIME)]
    seen: tuple[dict[str, set[str]], ...] = ({}, {})
    for file in files:
        if lost := set(taken) - set(file.pulses.columns):
            raise ValueError(
                f"{file.path}, table {file.pulses.name!r} has no column "
                f"{', '.join(sorted(lost))}, which {files[0].path} has"
            )
        with opened(file.path) as connection:
            for union, table, columns in (
                (seen[0], file.pulses, asked),
                (seen[1], file.truth, files[0].truth_taken),
            ):
                if table is None:
                    continue
                place = f"{file.path}, table {table.name!r}"
                for column, types in types_seen(connection, table, columns).items():
                    both = union.get(column, set()) | types
                    union[column] = both - {"integer"} if REAL in both else both
                    kind = kind_of(union[column], column, place)
                    if kind != TEXT or table is not file.pulses:
                        continue
                    if column in known or keep != "all":
                        raise ValueError(
                            f"{place}: column {column!r} of the pulses holds text; it "
                            "must hold numbers"
                        )
    kinds = [{c: kind_of(types, c, "") for c, types in union.items()} for union in seen]
    return {column: kinds[0].get(column, REAL) for column in taken}, kinds[1]


def _make_parts(
    files: Sequence[SqliteFile], columns: SqliteColumns, events_per_part: int
) -> list[SqlitePart]:
    parts: list[SqlitePart] = []
    first_number = 0
    for number, file in enumerate(files):
        borders, num_events = _borders(file, columns.event, events_per_part)
        lows: list[int | None] = [None, *borders]
        highs: list[int | None] = [*borders, None]
        for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
            name = str(file.path)
            if borders:
                name += f" (part {index + 1} of {len(borders) + 1})"
            parts.append(
                SqlitePart(
                    name=name,
                    file=file,
                    columns=columns,
                    low=low,
                    high=high,
                    file_number=number,
                    first_number=first_number + index * events_per_part,
                )
            )
        first_number += num_events
    return parts


def _borders(
    file: SqliteFile, event: str, events_per_part: int
) -> tuple[list[int], int]:
    """Return the events that parts begin with, but for the first, and their number."""
    name = quoted(event)
    table, distinct = file.truth, ""
    if table is None:
        table, distinct = file.pulses, "DISTINCT "
    borders, count = [], 0
    with opened(file.path) as connection:
        query = f"SELECT {distinct}{name} FROM {quoted(table.name)} ORDER BY {name}"
        for (value,) in connection.execute(query):
            if count and count % events_per_part == 0:
                borders.append(int(value))
            count += 1
    return borders, count
