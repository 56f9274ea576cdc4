"""Truth: one row an event, found by event_id, read without loading a file whole.

Shape letters: N rows of truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.arrow_values import (
    ids_of,
    no_values,
    values_of,
)
from graphnet_icecube2nd.store.readers.rows import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthTable:
    """Rows of truth that were read, each event_id once.

    Args:
        name: What messages call it.
        event_id: (N,) int64.
        columns: (N,) numbers, booleans or strings.
        file_row: (N,) row of its file that each stands in.
        notes: What was found in it, in words.
    """

    name: str
    event_id: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    file_row: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return some rows of the columns."""
        return {column: values[rows] for column, values in self.columns.items()}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Tables of truth, which may lie in several files.

    Args:
        rows: The tables.
        event_column: The column of their event_id.
        columns: The columns to read.
        angles: Those of them that make up the direction, and must be finite.
    """

    rows: tuple[Rows, ...]
    event_column: str
    columns: tuple[str, ...]
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
            ValueError: An event that stands twice, a null, an angle that is not
                finite, or a damaged file; names file and row.
        """
        columns = self.columns if columns is None else columns
        pieces: list[dict[str, NDArray[Any]]] = []
        for index, rows in enumerate(self.rows):
            if where is not None:
                rows = rows.within(*where)
            pieces.extend(self._pieces(rows, index, where, columns))
        types = self.rows[0].types()
        names = (_ID, _ROW, _FILE, *columns)
        empty: dict[str, NDArray[Any]] = {
            name: np.empty(0, np.int64) for name in names[:3]
        } | {name: no_values(types[name]) for name in columns}
        table = {
            name: np.concatenate([piece[name] for piece in pieces or [empty]])
            for name in names
        }
        self._check_once(table)
        notes = []
        for column in columns:
            if table[column].dtype.kind != "f":
                continue
            if unknown := int(np.isnan(table[column]).sum()):
                notes.append(
                    f"{self.name}: column {column!r} is null or NaN in {unknown} of "
                    f"{len(table[column])} rows; kept as NaN"
                )
        return TruthTable(
            name=self.name,
            event_id=table[_ID],
            columns={column: table[column] for column in columns},
            file_row=table[_ROW],
            notes=tuple(notes),
        )

    def _pieces(
        self,
        rows: Rows,
        file: int,
        where: tuple[str, int, int] | None,
        columns: Sequence[str],
    ) -> list[dict[str, NDArray[Any]]]:
        pieces = []
        needed = [self.event_column, *([where[0]] if where else []), *columns]
        needed = list(dict.fromkeys(needed))
        for first, batch in rows.batches(needed):
            inside_N = np.ones(len(batch), bool)
            if where is not None:
                column, low, high = where
                place = needed.index(column)
                value_N = ids_of(batch.column(place), column, rows.name, first)
                inside_N = (value_N >= low) & (value_N <= high)
                if not inside_N.any():  # most of a large file
                    continue
            row_N = np.arange(first, first + len(batch))
            id_N = ids_of(batch.column(0), self.event_column, rows.name, first)
            piece = {_ID: id_N, _ROW: row_N, _FILE: np.full_like(row_N, file)}
            for column, array in zip(needed, batch.columns, strict=True):
                if column in columns:
                    nan = column not in self.angles
                    values = values_of(array, column, rows.name, first, nan=nan)
                    piece[column] = values
                    if not nan:
                        check_finite(values, column, rows.name, first)
            pieces.append({name: values[inside_N] for name, values in piece.items()})
        return pieces

    def _check_once(self, table: dict[str, NDArray[Any]]) -> None:
        id_N = table[_ID]
        order = np.argsort(id_N, kind="stable")
        twice = np.flatnonzero(np.diff(id_N[order]) == 0)
        if not len(twice):
            return
        first, second = order[twice[0]], order[twice[0] + 1]
        places = [
            (self.rows[table[_FILE][index]].name, int(table[_ROW][index]))
            for index in (first, second)
        ]
        before = f"in row {places[0][1]}"
        if places[0][0] != places[1][0]:
            before = f"in {places[0][0]}, row {places[0][1]},"
        raise ValueError(
            f"{places[1][0]}, row {places[1][1]}: event {id_N[first]} is {before} "
            f"already ({len(twice)} rows too many in all)"
        )


# Columns of our own among those of the file; no file has such names.
_ID, _ROW, _FILE = "\0id", "\0row", "\0file"


def check_finite(values: NDArray[Any], column: str, name: str, first_row: int) -> None:
    """See that angles are finite.

    Raises:
        ValueError: One is not; names file and row.
    """
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        row = int((~finite).argmax())
        raise ValueError(
            f"{name}, row {first_row + row}: angle {column!r} is {values[row]}; it "
            "must be finite"
        )
