"""Truth: one row an event, found by event_id, read without loading a file whole.

Shape letters: B events, N rows of truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.arrow_values import (
    check_finite,
    ids_of,
    nan_note,
    no_values,
    values_of,
)
from graphnet_icecube2nd.store.readers.columns import (
    NO_TRUTH,
    angle_columns,
    check_tables,
    choose_truth_columns,
    find_event_column,
)
from graphnet_icecube2nd.store.readers.rows import Rows
from graphnet_icecube2nd.store.readers.source import describe_ids

NO_DIRECTIONS = "no truth is read: the events have no directions"


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthTable:
    """Rows of truth that were read, each event_id once."""

    name: str  # for messages
    event_id: NDArray[np.int64]  # (N,) int64
    columns: dict[str, NDArray[Any]]  # (N,) numbers, booleans or strings
    notes: tuple[str, ...] = ()  # what was found in it, in words

    def take(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return some rows of the columns."""
        return {column: values[rows] for column, values in self.columns.items()}

    def rows_of(
        self, event_id: NDArray[np.int64], pulses_name: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the row of each event, (B,), and the rows that no event asks for.

        Raises:
            ValueError: An event without a row.
        """
        pa = import_pyarrow()
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(event_id), value_set=pa.array(self.event_id))
        if found.null_count:
            lost = event_id[np.asarray(found.is_null())]
            raise ValueError(
                f"{pulses_name}: {describe_ids(lost)} without a row in {self.name}. "
                "Complete the truth, take the pulses out, or prepare without truth: "
                f"{NO_TRUTH}"
            )
        rows_B = np.asarray(found).astype(np.int64)
        return rows_B, np.setdiff1d(np.arange(len(self.event_id)), rows_B)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Tables of truth, which may lie in several files."""

    rows: tuple[Rows, ...]  # the tables
    event_column: str  # the column of their event_id
    columns: tuple[str, ...]  # the columns to read
    # Those of them that make up the direction: finite, or NaN where there is none.
    angles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        first = self.rows[0].name
        others = len(self.rows) - 1
        return f"{first} (and {others} more)" if others else first

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return {
            "tables": [rows.fingerprint() for rows in self.rows],
            "event_column": self.event_column,
            "columns": list(self.columns),
        }

    def read(
        self,
        where: tuple[str, int, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> TruthTable:
        """Read the rows that are asked for.

        Args:
            where: An integer column, and least and greatest value of the rows to read.
            columns: Fewer than those of this truth.

        Raises:
            ValueError: An event that stands twice, a null where none can be, an
                infinite angle, or a damaged file; names file and row.
        """
        columns = self.columns if columns is None else columns
        key, types = self.event_column, self.rows[0].types
        needed = list(dict.fromkeys((key, *(where or ())[:1], *columns)))
        ids = [np.empty(0, np.int64)]
        pieces = {column: [no_values(types[column])] for column in columns}
        for rows in self.rows:
            fewer = rows if where is None else rows.within(*where)
            for first, batch in fewer.batches(needed):
                inside: Any = slice(None)
                if where is not None:
                    value_N = ids_of(batch.column(where[0]), where[0], rows, first)
                    inside = (value_N >= where[1]) & (value_N <= where[2])
                    if not inside.any():  # most of a large file
                        continue
                ids.append(ids_of(batch.column(key), key, rows, first)[inside])
                for column in columns:
                    array = batch.column(column)
                    values = values_of(array, column, rows, first, nan=True)
                    if column in self.angles:
                        check_finite(values, column, rows, first)
                    pieces[column].append(values[inside])
        table = TruthTable(
            name=self.name,
            event_id=np.concatenate(ids),
            columns={column: np.concatenate(all_) for column, all_ in pieces.items()},
        )
        self._check_once(table.event_id)
        notes = [nan_note(v, c, self.name) for c, v in table.columns.items()]
        return replace(table, notes=tuple(note for some in notes for note in some))

    def find(self, event: int) -> list[tuple[Rows, int]]:
        """Return where an event stands, for messages: table and row, once or more."""
        return [
            (rows, first + int(place))
            for rows in self.rows
            for first, ids_N in rows.ids(self.event_column)
            for place in np.flatnonzero(ids_N == event)
        ]

    def _check_once(self, id_N: NDArray[np.int64]) -> None:
        ids, counts = np.unique(id_N, return_counts=True)
        if len(ids) == len(id_N):
            return
        event = ids[counts > 1][0]
        (rows, row), (other, again) = self.find(event)[:2]
        before = f"row {row}" if rows is other else f"{rows.name}, row {row},"
        raise ValueError(
            f"{other.name}, row {again}: event {event} is in {before} already "
            f"({len(id_N) - len(ids)} rows too many in all)"
        )


def open_truth(
    tables: Sequence[Rows],
    pulse_map: PulseMap,
    *,
    event_column: str | None = None,
    like: str | None = None,
    without: Sequence[str] = (),
) -> tuple[Truth, tuple[str, ...], tuple[str, ...]]:
    """Open tables of truth.

    Args:
        tables: One or several, of the same columns.
        pulse_map: Says what the columns of the angles are called.
        event_column: The column of event_ids, or None to look for it.
        like: What it is called in the table of pulses.
        without: Columns that are not truth.

    Returns:
        The truth, columns left out, and what there is to say.

    Raises:
        ValueError: An empty table, or a column that is missing or of another type.
    """
    first = tables[0]
    key = find_event_column(first.types, event_column, first.name, like)
    taken, left_out, notes = choose_truth_columns(
        first.types, pulse_map, first.name, (key, *without)
    )
    angles = tuple(c for c in angle_columns(pulse_map) if c in taken)
    if not angles:
        lost = " and ".join(map(repr, angle_columns(pulse_map)))
        notes = (*notes, f"{first.name} has no directions: no columns {lost}")
    check_tables(tables, taken, key=key)
    truth = Truth(rows=tuple(tables), event_column=key, columns=taken, angles=angles)
    return truth, left_out, notes
