"""A part of a flat table: one row a pulse, events by their runs of rows.

The column of event_ids is read first and alone; then the others come in chunks whose
borders are borders of events. Only where the rows of an event are scattered is the
part loaded whole, to be gathered. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.arrow_values import is_number, no_values
from graphnet_icecube2nd.store.readers.layout import Layout
from graphnet_icecube2nd.store.readers.rows import RowReader, Rows
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    Runs,
    chunk_borders,
    describe_ids,
    rows_of_truth,
)
from graphnet_icecube2nd.store.readers.truth_rows import Truth, TruthTable

NO_DIRECTIONS = "no truth is read: the events have no directions"


@dataclass(kw_only=True, eq=False)
class FlatPart(Part):
    """Pulses of a flat table, with their truth.

    Args:
        name: What messages call it.
        rows: The table of pulses.
        event_column: Its column of event_ids.
        columns: The pulse columns to read.
        truth: Where the truth is, or None.
        truth_where: Which rows of it to read: an integer column and least and
            greatest value. None reads those of the part's event_ids.
        num_pulses: How many pulses, about.
        batch: Number of the competition's batch.
        id_range: Least and greatest event_id to take; None takes all.
        with_empty: Whether rows of truth without pulses become events; then all the
            truth is read.
    """

    name: str
    rows: Rows
    event_column: str
    columns: tuple[str, ...]
    truth: Truth | None = None
    truth_where: tuple[str, int, int] | None = None
    num_pulses: int | None = None
    batch: int | None = None
    id_range: tuple[int, int] | None = None
    with_empty: bool = True

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return {
            "rows": self.rows.fingerprint(),
            "event_column": self.event_column,
            "columns": list(self.columns),
            "truth": self.truth and self.truth.fingerprint(),
            "truth_where": self.truth_where and list(self.truth_where),
            "id_range": self.id_range and list(self.id_range),
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the part, in chunks of at most `max_pulses` pulses or one event.

        Raises:
            ValueError: The file is damaged, or truth and pulses contradict each other.
        """
        layout = Layout.of(
            Runs.of(ids for _, ids in self.rows.ids(self.event_column)), self.id_range
        )
        runs = layout.runs
        table, rows_B, empty = self._join(runs)
        notes = list(table.notes) if table else []
        if len(layout.scattered):
            notes.append(
                f"{self.name}: the rows of {describe_ids(layout.scattered)} were not "
                "together; gathered"
            )
        if table and len(empty):
            notes.append(empty_note(table.event_id[empty], table.name, self.name))
        pulses = self._pulses(layout)
        for events in chunk_borders(runs.offsets, max_pulses):
            offsets = runs.offsets[events.start : events.stop + 1]
            first_row, columns = pulses(int(offsets[0]), int(offsets[-1]))
            yield EventChunk(
                columns=columns,
                offsets=offsets - offsets[0],
                event_id=runs.event_id[events],
                truth=table.take(rows_B[events]) if table else {},
                first_row=first_row,
                notes=tuple(notes),
            )
            notes = []
        if table and len(empty):
            types = self.rows.types()
            yield EventChunk(
                columns={name: no_values(types[name]) for name in self.columns},
                offsets=np.zeros(len(empty) + 1, np.int64),
                event_id=table.event_id[empty],
                truth=table.take(empty),
                notes=tuple(notes),
            )

    def check_truth(
        self,
        table: TruthTable,
        runs: Runs,
        rows_B: NDArray[np.int64],
        unused: NDArray[np.int64],
    ) -> TruthTable:
        """See whether truth and pulses agree; return the truth to be kept.

        Args:
            table: Rows of truth.
            runs: The events that have pulses.
            rows_B: Row of `table` of each.
            unused: The other rows of `table`.

        Raises:
            ValueError: They do not.
        """
        return table

    def _join(
        self, runs: Runs
    ) -> tuple[TruthTable | None, NDArray[np.int64], NDArray[np.int64]]:
        """Return the truth, its row for each event, its rows without pulses."""
        none = np.empty(0, np.int64)
        if self.truth is None:
            return None, none, none
        where = self.truth_where
        if where is None and not self.with_empty:
            if not len(runs.event_id):
                return None, none, none
            ends = int(runs.event_id.min()), int(runs.event_id.max())
            where = (self.truth.event_column, *ends)
        table = self.truth.read(where)
        rows_B, unused = rows_of_truth(
            runs.event_id,
            table.event_id,
            pulses_name=self.name,
            truth_name=table.name,
        )
        table = self.check_truth(table, runs, rows_B, unused)
        return table, rows_B, unused if self.with_empty else none

    def _pulses(
        self, layout: Layout
    ) -> Callable[[int, int], tuple[int | None, dict[str, NDArray[Any]]]]:
        """Return what reads pulses from one to another, each once and in order."""
        reader = RowReader(self.rows, self.columns)
        if layout.order_T is None:
            reader.skip(layout.skipped)

            def stream(first: int, stop: int) -> tuple[int | None, dict[str, Any]]:
                columns = reader.take(stop - first)
                return reader.first_row, columns

            return stream
        whole = {
            name: values[layout.order_T]
            for name, values in reader.take(self.rows.num_rows()).items()
        }

        def piece(first: int, stop: int) -> tuple[int | None, dict[str, Any]]:
            return None, {name: values[first:stop] for name, values in whole.items()}

        return piece


def empty_note(event_id: NDArray[np.int64], truth_name: str, pulses_name: str) -> str:
    """Return, for the user, which rows of truth have become events without pulses."""
    return (
        f"{describe_ids(event_id)} of {truth_name} without pulses in {pulses_name}; "
        "kept as events with 0 pulses"
    )


def check_pulse_tables(
    tables: Sequence[Rows],
    event_column: str,
    columns: Sequence[str],
    pulse_map: PulseMap,
) -> None:
    """See that tables of pulses can be read as one source, before hours go into it.

    Raises:
        ValueError: An empty table, a missing column, one that does not hold numbers,
            or one that is of different types in two files.
    """
    first = tables[0].types()
    known = pulse_map.columns()
    for rows in tables:
        types = rows.types()
        for column in (event_column, *columns):
            if column not in types:
                raise ValueError(
                    f"{rows.name} has no column {column!r}, which {tables[0].name} "
                    f"has; there is {', '.join(types)}"
                )
            if not is_number(types[column]):
                raise ValueError(
                    f"{rows.name}: column {column!r} is {types[column]}; it must hold "
                    "numbers or booleans"
                )
        for column in columns:
            ours, theirs = (
                no_values(first[column]).dtype,
                no_values(types[column]).dtype,
            )
            # The store has types of its own for what the pulse map knows. It counts
            # an origin of times in integers or in floats, though.
            same = ours == theirs
            if known.get(column) == TIME:
                same = (ours.kind == "f") == (theirs.kind == "f")
            if not same and known.get(column) in (None, TIME):
                raise ValueError(
                    f"column {column!r} is {ours} in {tables[0].name}, but {theirs} in "
                    f"{rows.name}"
                )
        if not rows.num_rows():
            raise ValueError(f"{rows.name} is empty: it has no rows")
