"""A range of events of a SQLite file, read in chunks.

Pulses come through one query in the order of the events, so an index on the event
column is all that is needed to read a range of a file of any size. Shape letters: T
pulses, B events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.flat_part import empty_note
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    chunk_borders,
    rows_of_truth,
)
from graphnet_icecube2nd.store.readers.sqlite_file import (
    SqliteTable,
    fetch_columns,
    fingerprint,
    opened,
    quoted,
)
from graphnet_icecube2nd.store.readers.truth_values import check_truth_values

SOURCE_FILE = "source_file"  # which of several files an event is of, from 0


@dataclass(frozen=True, kw_only=True)
class SqliteFile:
    """What is read of one file."""

    path: Path
    pulses: SqliteTable
    truth: SqliteTable | None
    pulse_map: PulseMap
    truth_taken: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SqliteColumns:
    """What is read of every file.

    Args:
        pulses: Type by column of the pulses.
        truth: Type by column of the truth.
        event: The event column.
        kept_event: Truth column that keeps it where events get new numbers, or None.
    """

    pulses: Mapping[str, str]
    truth: Mapping[str, str]
    event: str
    kept_event: str | None


class SqlitePart(Part):
    """A range of events of a SQLite file.

    Args:
        name: What messages call it.
        file: The file and its tables.
        columns: What is read of them.
        low, high: First event_no, and the first of the next part; None at the ends, so
            that no pulse of the file is in no part.
        file_number: Place among the files.
        first_number: Events in the parts before.
    """

    def __init__(
        self,
        *,
        name: str,
        file: SqliteFile,
        columns: SqliteColumns,
        low: int | None,
        high: int | None,
        file_number: int,
        first_number: int,
    ) -> None:
        self.name = name
        self.file = file
        self.columns = columns
        self.low = low
        self.high = high
        self.file_number = file_number
        self.first_number = first_number

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether file, range or columns differ."""
        truth = self.file.truth
        return {
            **fingerprint(self.file.path),
            "tables": [self.file.pulses.name, truth.name if truth else None],
            "event_column": self.columns.event,
            "renumbered": self.columns.kept_event,
            "pulses": dict(self.columns.pulses),
            "truth": dict(self.columns.truth),
            "range": [self.low, self.high, self.first_number],
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the events of the range."""
        with opened(self.file.path) as connection:
            ids, offsets, truth, notes = self._events(connection)
            cursor = self._query(
                connection, self.file.pulses, self.columns.pulses, by_row=True
            )
            place = f"{self.file.path}, table {self.file.pulses.name!r}"
            for events in chunk_borders(offsets, max_pulses):
                borders = offsets[events.start : events.stop + 1]
                pulse_ids, pulses = fetch_columns(
                    cursor,
                    int(borders[-1] - borders[0]),
                    self.columns.pulses,
                    place,
                )
                expected = np.repeat(ids[events], np.diff(borders))
                assert np.array_equal(pulse_ids, expected)
                yield EventChunk(
                    columns=pulses,
                    offsets=borders - borders[0],
                    event_id=self._numbered(ids, events),
                    truth={name: values[events] for name, values in truth.items()},
                    notes=notes,
                )
                notes = ()

    def _events(
        self, connection: sqlite3.Connection
    ) -> tuple[
        NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[Any]], tuple[str, ...]
    ]:
        """Return ids, borders and truth of all events of the range, and notes."""
        event = quoted(self.columns.event)
        condition, limits = self._condition()
        counted = connection.execute(
            f"SELECT CAST({event} AS INTEGER), count(*) "
            f"FROM {quoted(self.file.pulses.name)}{condition} "
            f"GROUP BY {event} ORDER BY {event}",
            limits,
        ).fetchall()
        ids, counts = np.array(counted, dtype=np.int64).reshape(-1, 2).T
        truth: dict[str, NDArray[Any]] = {}
        notes: tuple[str, ...] = ()
        if self.file.truth is not None:
            place = f"{self.file.path}, table {self.file.truth.name!r}"
            cursor = self._query(connection, self.file.truth, self.columns.truth)
            angles = (
                self.file.pulse_map.labels.azimuth,
                self.file.pulse_map.labels.zenith,
            )
            truth_ids, truth = fetch_columns(
                cursor,
                2**62,
                self.columns.truth,
                place,
                nan=set(self.columns.truth) - set(angles),
            )
            notes = check_truth_values(truth, truth_ids, angles, place)
            rows, unused = rows_of_truth(
                ids,
                truth_ids,
                pulses_name=f"{self.file.path}, table {self.file.pulses.name!r}",
                truth_name=place,
            )
            of_event = np.zeros(len(truth_ids), np.int64)
            of_event[rows] = counts
            ids, counts = truth_ids, of_event
            if len(unused):
                notes += (empty_note(truth_ids[unused], place, self.name),)
        if self.columns.kept_event is not None:
            truth[self.columns.kept_event] = ids
            truth[SOURCE_FILE] = np.full(len(ids), self.file_number, np.int64)
        return ids, np.append(0, np.cumsum(counts)), truth, notes

    def _numbered(self, ids: NDArray[np.int64], events: slice) -> NDArray[np.int64]:
        if self.columns.kept_event is None:
            return ids[events]
        return self.first_number + np.arange(events.start, events.stop)

    def _query(
        self,
        connection: sqlite3.Connection,
        table: SqliteTable,
        columns: Mapping[str, str],
        by_row: bool = False,
    ) -> sqlite3.Cursor:
        """Select the event and columns, ordered by event, then as they were written."""
        event = quoted(self.columns.event)
        condition, limits = self._condition()
        order = [event]
        if by_row:
            order += ["_rowid_"] if table.has_rowid else map(quoted, table.key)
        selected = [f"CAST({event} AS INTEGER)", *map(quoted, columns)]
        return connection.execute(
            f"SELECT {', '.join(selected)} FROM {quoted(table.name)}{condition} "
            f"ORDER BY {', '.join(order)}",
            limits,
        )

    def _condition(self) -> tuple[str, list[int]]:
        event = quoted(self.columns.event)
        bounds = [(">=", self.low), ("<", self.high)]
        terms = [f"{event} {sign} ?" for sign, limit in bounds if limit is not None]
        limits = [limit for _, limit in bounds if limit is not None]
        return (f" WHERE {' AND '.join(terms)}" if terms else ""), limits
