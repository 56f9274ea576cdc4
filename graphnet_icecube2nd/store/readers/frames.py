"""Data frames in memory: pandas, polars or pyarrow, pulses and truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.arrow_values import plain
from graphnet_icecube2nd.store.readers.columns import EVENT_COLUMNS, Keep
from graphnet_icecube2nd.store.readers.flat_part import choose_pulse_columns
from graphnet_icecube2nd.store.readers.rows import BATCH_ROWS, Rows
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.readers.truth import NO_DIRECTIONS, open_truth


def frames_source(
    pulses: Any,
    truth: Any = None,
    *,
    pulse_map: PulseMap | None = None,
    event_column: str | None = None,
    keep: Keep = (),
    name: str = "frames",
) -> Source:
    """Open data frames.

    Args:
        pulses: One row a pulse: a DataFrame of pandas or polars, a table of pyarrow,
            or what else speaks Arrow. The event key may be the index.
        truth: The same with one row an event, or None.
        pulse_map: What the columns mean; default: recognised by their names.
        event_column: The event key of both; default `event_id` or `event_no`.
        keep: Further pulse columns to keep, or `all`.
        name: What messages and the store call them.

    Raises:
        TypeError: No data frame.
        ValueError: An empty frame, or a column that is missing or of a wrong type.
    """
    rows = FrameRows(name=f"{name}, pulses", table=_table(pulses, event_column, name))
    columns = choose_pulse_columns([rows], pulse_map, event_column, keep)
    part = columns.part(rows)
    left_out = columns.left_out
    notes: tuple[str, ...] = (NO_DIRECTIONS,)
    if truth is not None:
        key = columns.event_column
        table = _table(truth, event_column or key, name)
        part.truth, truth_left_out, notes = open_truth(
            [FrameRows(name=f"{name}, truth", table=table)],
            columns.pulse_map,
            event_column=event_column,
            like=key,
        )
        left_out += truth_left_out
    return Source(
        kind="frames",
        pulse_map=columns.pulse_map,
        parts=[part],
        pulse_columns=columns.taken,
        left_out=left_out,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameRows(Rows):
    """The rows of an Arrow table in memory."""

    name: str  # for messages
    table: Any  # the table

    @property
    def types(self) -> dict[str, Any]:
        """Arrow type of each column."""
        return {field.name: field.type for field in self.table.schema}

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""
        row = 0
        for batch in self.table.select(list(columns)).to_batches(BATCH_ROWS):
            yield row, batch
            row += len(batch)

    def fingerprint(self) -> dict[str, Any]:
        """Return shape, columns and a checksum of the content."""
        return self._fingerprint

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for column in self.table.columns:
            for piece in column.chunks:
                _hash(piece, digest)
        return {
            "rows": self.num_rows,
            "columns": {name: str(kind) for name, kind in self.types.items()},
            "sha256": digest.hexdigest(),
        }


def _hash(piece: Any, digest: Any) -> None:
    """Add the values of an Arrow array to a checksum, whatever it is a slice of."""
    array = plain(piece)
    digest.update(np.asarray(array.is_null()).tobytes())
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object:
        for value in values.tolist():
            digest.update(repr(value).encode() + b"\0")
    else:
        digest.update(values.tobytes())


def _table(frame: Any, event_column: str | None, name: str) -> Any:
    """Return a data frame as an Arrow table, its index a column if it is the key."""
    pa = import_pyarrow()
    if isinstance(frame, pa.Table):
        table = frame
    elif hasattr(frame, "iloc") and hasattr(frame, "index"):
        table = _of_pandas(frame, event_column, name)
    elif hasattr(frame, "to_arrow"):
        table = frame.to_arrow()
    elif hasattr(frame, "__arrow_c_stream__"):
        table = pa.table(frame)
    else:
        raise TypeError(
            f"{name}: a DataFrame of pandas or polars or a pyarrow.Table is needed, "
            f"got {type(frame).__name__}"
        )
    if twice := [c for c in table.column_names if table.column_names.count(c) > 1]:
        raise ValueError(f"{name}: column {twice[0]!r} is there twice")
    return table


def _of_pandas(frame: Any, event_column: str | None, name: str) -> Any:
    pa = import_pyarrow()
    columns = {str(column): frame.iloc[:, i] for i, column in enumerate(frame.columns)}
    if len(columns) != frame.shape[1]:
        raise ValueError(f"{name}: a column is there twice")
    keys = {*([event_column] if event_column else []), *EVENT_COLUMNS} - set(columns)
    for level, column in enumerate(frame.index.names):
        if column in keys:
            columns[column] = frame.index.get_level_values(level).to_series()
    arrays = []
    for column, values in columns.items():
        try:
            # NaN stays NaN: a null would be an error
            arrays.append(pa.array(values, from_pandas=False))
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"{name}: column {column!r}: {error}") from None
    return pa.table(arrays, names=list(columns))
