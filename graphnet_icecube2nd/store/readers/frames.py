"""Data frames in memory: pandas, polars or pyarrow, pulses and truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    Wanted,
    find_event_column,
)
from graphnet_icecube2nd.store.readers.source import Source
from graphnet_icecube2nd.store.readers.table_part import select
from graphnet_icecube2nd.store.readers.tables import BATCH_ROWS, Table, plain


def frames_source(
    pulses: Any, truth: Any = None, *, name: str = "frames", **options: Any
) -> Source:
    """Open data frames as a source.

    Args:
        pulses: Table with one row per pulse.
        truth: Table with one row per event, or None.
        name: Name of the frames for messages.
        **options: Options of `Wanted`.

    Raises:
        TypeError: A table is not a data frame.
        ValueError: A column is missing or not valid.
    """
    wanted = Wanted(**options)
    key = wanted.event_column
    tables = [FrameTable(name=f"{name}, pulses", table=_table(pulses, key, name))]
    labels = []
    if truth is not None:
        key = find_event_column(tables[0].types, key, tables[0].name)
        labels = [FrameTable(name=f"{name}, truth", table=_table(truth, key, name))]
    source, part = select("frames", tables, labels, wanted)
    return replace(source, parts=[part.of(tables[0])])


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTable(Table):
    """An Arrow table in memory."""

    name: str  # for messages
    table: Any

    @property
    def types(self) -> dict[str, Any]:  # type: ignore[override]
        """Arrow type of each column."""
        return {field.name: field.type for field in self.table.schema}

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return int(self.table.num_rows)

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        row = 0
        for batch in self.table.select(list(columns)).to_batches(BATCH_ROWS):
            yield row, batch
            row += len(batch)

    def fingerprint(self) -> dict[str, Any]:
        """Return shape, columns and a checksum of the content."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        names = self.table.column_names
        for _, batch in self.batches(names):
            arrays = [plain(column) for column in batch.columns]
            digest.update(import_pyarrow().record_batch(arrays, names).serialize())
        return {
            "rows": self.num_rows,
            "columns": {name: str(kind) for name, kind in self.types.items()},
            "sha256": digest.hexdigest(),
        }


def _table(frame: Any, event_column: str | None, name: str) -> Any:
    """Return a data frame as an Arrow table; an index of event numbers is a column."""
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
            f"{name}: expected a DataFrame of pandas or polars or a pyarrow.Table, got "
            f"{type(frame).__name__}"
        )
    if twice := [c for c in table.column_names if table.column_names.count(c) > 1]:
        raise ValueError(
            f"{name}: names of columns must be different, found {twice[0]!r} twice"
        )
    return table


def _of_pandas(frame: Any, event_column: str | None, name: str) -> Any:
    pa = import_pyarrow()
    columns = {str(column): frame.iloc[:, i] for i, column in enumerate(frame.columns)}
    if len(columns) != frame.shape[1]:
        raise ValueError(f"{name}: names of columns must be different")
    keys = {*([event_column] if event_column else []), *EVENT_COLUMNS} - set(columns)
    for level, column in enumerate(frame.index.names):
        if column in keys:
            columns[column] = frame.index.get_level_values(level).to_series()
    arrays = []
    for column, values in columns.items():
        try:
            # NaN must not become null, which would be an error.
            arrays.append(pa.array(values, from_pandas=False))
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"{name}: column {column!r}: {error}") from None
    return pa.table(arrays, names=list(columns))
