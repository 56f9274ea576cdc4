"""A part of a flat table: one row a pulse, events by their runs of rows.

The column of event_ids is read first and alone; then the others come in chunks whose
borders are borders of events. Only where the rows of an event are scattered is the
part loaded whole, to be gathered. Shape letters: T pulses, B events, R runs of rows
with one event_id, N rows of truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.columns import (
    Keep,
    check_tables,
    choose_columns,
    find_event_column,
    settle_pulse_map,
)
from graphnet_icecube2nd.store.readers.rows import Rows, read_rows
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    chunk_borders,
    describe_ids,
)
from graphnet_icecube2nd.store.readers.truth import Truth, TruthTable


@dataclass(kw_only=True, eq=False)
class FlatPart(Part):
    """Pulses of a flat table, with their truth."""

    name: str
    rows: Rows  # the table of pulses
    event_column: str
    columns: tuple[str, ...]  # pulse columns to read
    truth: Truth | None = None
    # Rows of the truth to read: an integer column and least and greatest value. None
    # reads those of the part's event_ids.
    truth_where: tuple[str, int, int] | None = None
    num_pulses: int | None = None  # about
    batch: int | None = None  # of the competition
    id_range: tuple[int, int] | None = None  # least and greatest event_id to take
    # Whether rows of truth without pulses become events; then all the truth is read.
    with_empty: bool = True
    # Whether these come in their place by number, where the others are in that order;
    # else after the others.
    by_number: bool = False

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
        layout = Layout.of(*self.rows.runs(self.event_column), self.id_range)
        event_id, num_pulses = layout.event_id, layout.num_pulses
        rows_B, notes = np.empty(0, np.int64), list[str]()
        table = self._read_truth(event_id)
        if table is not None:
            notes += table.notes
            rows_B, unused = table.rows_of(event_id, self.name)
            pulses_N = np.zeros(len(table.event_id), np.int64)
            pulses_N[rows_B] = num_pulses
            table = self.check_truth(table, pulses_N)
        if len(layout.scattered):
            notes.append(
                f"{self.name}: the rows of {describe_ids(layout.scattered)} were not "
                "together; gathered"
            )
        if table is not None and self.with_empty and len(unused):
            notes.append(empty_note(table.event_id[unused], table.name, self.name))
            rows_B = np.append(rows_B, unused)
            if self.by_number:
                rows_B = rows_B[np.argsort(table.event_id[rows_B])]
            event_id, num_pulses = table.event_id[rows_B], pulses_N[rows_B]
        borders = np.append(0, np.cumsum(num_pulses))
        slices = list(chunk_borders(borders, max_pulses))
        cuts = borders[[0, *(events.stop for events in slices)]]
        pulses = self._pulses(layout, cuts)
        for events, (first_row, columns) in zip(slices, pulses, strict=True):
            offsets = borders[events.start : events.stop + 1]
            yield EventChunk(
                columns=columns,
                offsets=offsets - offsets[0],
                event_id=event_id[events],
                truth=table.take(rows_B[events]) if table else {},
                first_row=first_row,
                notes=tuple(notes),
            )
            notes = []

    def check_truth(self, table: TruthTable, pulses_N: NDArray[np.int64]) -> TruthTable:
        """See whether truth and pulses agree; return the truth to be kept.

        Args:
            table: Rows of truth.
            pulses_N: (N,) pulses that the event of each has.

        Raises:
            ValueError: They do not.
        """
        return table

    def _read_truth(self, event_id: NDArray[np.int64]) -> TruthTable | None:
        """Return the truth of some events, or all of it."""
        if self.truth is None or not (self.with_empty or len(event_id)):
            return None
        where = self.truth_where
        if where is None and not self.with_empty:
            ends = int(event_id.min()), int(event_id.max())
            where = (self.truth.event_column, *ends)
        return self.truth.read(where)

    def _pulses(
        self, layout: Layout, cuts: NDArray[np.int64]
    ) -> Iterator[tuple[int | None, dict[str, NDArray[Any]]]]:
        """Yield first row and columns of the pulses from cut to cut."""
        if layout.order_T is None:
            yield from read_rows(self.rows, self.columns, cuts + layout.skipped)
            return
        assert self.rows.num_rows is not None  # else rows are in order
        everything = np.array([0, self.rows.num_rows])
        ((_, whole),) = read_rows(self.rows, self.columns, everything)
        for low, high in pairwise(cuts):
            order = layout.order_T[low:high]
            yield None, {name: values[order] for name, values in whole.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where the rows of each event of a part are.

    Events come in the order of their first row, rows of an event in theirs.
    """

    event_id: NDArray[np.int64]  # (B,) int64
    num_pulses: NDArray[np.int64]  # (B,) int64
    skipped: int = 0  # rows before the first event, where no order is needed
    # (T,) rows in the order of the events, or None where they are in it.
    order_T: NDArray[np.int64] | None = None
    scattered: NDArray[np.int64]  # the event_ids whose rows were not together

    @classmethod
    def of(
        cls,
        ids_R: NDArray[np.int64],
        offsets_R: NDArray[np.int64],
        id_range: tuple[int, int] | None,
    ) -> Layout:
        """Find out, for the events whose ids are in a range or for all."""
        low, high = id_range or (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
        kept = np.flatnonzero((ids_R >= low) & (ids_R <= high))
        ids_R, starts_R, lengths_R = (
            ids_R[kept],
            offsets_R[kept],
            np.diff(offsets_R)[kept],
        )
        ids, first, event_R = np.unique(ids_R, return_index=True, return_inverse=True)
        scattered = ids[np.bincount(event_R, minlength=len(ids)) > 1]
        if not len(kept) or (kept[-1] - kept[0] < len(kept) and not len(scattered)):
            skipped = int(starts_R[0]) if len(kept) else 0
            return cls(
                event_id=ids_R,
                num_pulses=lengths_R,
                skipped=skipped,
                scattered=scattered,
            )
        by_first = np.argsort(first)
        rank = np.empty_like(by_first)
        rank[by_first] = np.arange(len(ids))
        order_R = np.argsort(rank[event_R], kind="stable")
        lengths = lengths_R[order_R]
        shift = starts_R[order_R] - (np.cumsum(lengths) - lengths)
        return cls(
            event_id=ids[by_first],
            num_pulses=np.bincount(rank[event_R], lengths_R).astype(np.int64),
            order_T=np.arange(lengths.sum()) + np.repeat(shift, lengths),
            scattered=scattered,
        )


@dataclass(frozen=True, kw_only=True)
class PulseColumns:
    """What is read of flat tables of pulses."""

    event_column: str
    pulse_map: PulseMap
    taken: tuple[str, ...]  # pulse columns that are read
    left_out: tuple[str, ...]

    def part(self, rows: Rows, **more: Any) -> FlatPart:
        """Return a table as a part."""
        return FlatPart(
            name=rows.name,
            rows=rows,
            event_column=self.event_column,
            columns=self.taken,
            **{"num_pulses": rows.num_rows, **more},
        )


def choose_pulse_columns(
    tables: Sequence[Rows],
    pulse_map: PulseMap | None,
    event_column: str | None,
    keep: Keep,
) -> PulseColumns:
    """Find the event column of flat tables, what the others mean, and which to take.

    Raises:
        ValueError: A column is missing, is no number, or differs between tables.
    """
    first = tables[0]
    key = find_event_column(first.types, event_column, first.name)
    available = {c: kind for c, kind in first.types.items() if c != key}
    pulse_map = settle_pulse_map(available, pulse_map, first.name)
    taken, left_out = choose_columns(available, pulse_map, keep)
    check_tables(tables, taken, pulse_map, key)
    return PulseColumns(
        event_column=key, pulse_map=pulse_map, taken=taken, left_out=left_out
    )


def empty_note(event_id: NDArray[np.int64], truth_name: str, pulses_name: str) -> str:
    """Return, for the user, which rows of truth have become events without pulses."""
    return (
        f"{describe_ids(event_id)} of {truth_name} without pulses in {pulses_name}; "
        "kept as events with 0 pulses"
    )
