"""Nested parquet files: one row an event, its pulses as lists in a struct.

GraphNeT's older extractions and Prometheus write such files. A column of a struct is
named as in `truth.azimuth`. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    Columns,
    PathLike,
    Wanted,
    angle_columns,
    check_tables,
    choose_columns,
    choose_pulses,
    choose_truth,
    choose_truth_columns,
    has_angles,
    list_files,
)
from graphnet_icecube2nd.store.readers.source import (
    PARQUET_SUFFIXES,
    EventChunk,
    Part,
    Source,
    chunk_borders,
)
from graphnet_icecube2nd.store.readers.tables import (
    ParquetTable,
    is_list,
    is_number,
    is_struct,
    opened_parquet,
    plain,
    plain_type,
)

EVENTS_AT_ONCE, BYTES_AT_ONCE = 1024, 2**26  # at most, as the file counts bytes
# What Prometheus itself calls the angles that GraphNeT calls injection_...
_RAW_ANGLES = {"azimuth": "initial_state_azimuth", "zenith": "initial_state_zenith"}


def nested_source(path: PathLike | Sequence[PathLike], **options: Any) -> Source:
    """Open parquet files with one row an event; `Wanted` says the options.

    Tables are structs. The event key is beside the structs or in one of them; where
    there is none, events are numbered by their row.
    """
    wanted = Wanted(**options)
    files = list_files(path, PARQUET_SUFFIXES)
    tables = [NestedTable(path=file, name=str(file)) for file in files]
    for table in tables:
        if not table.structs:
            raise ValueError(
                f"{table.name} has no struct of lists, one row an event; there is "
                f"{', '.join(table.types)}"
            )
        if not table.num_rows:
            raise ValueError(f"{table.name} is empty: it has no rows")
    first, place = tables[0], tables[0].name
    structs = dict(first.structs)
    lists = {name: _lists_of(struct) for name, struct in structs.items()}
    with_lists = {name: struct for name, struct in lists.items() if struct.types}
    pulses, pulse_map = choose_pulses(with_lists, place, wanted)
    del structs[pulses]
    candidates = [t for n, t in structs.items() if wanted.truth in (None, n)]
    if pulse_map == PulseMap.prometheus() and not any(
        has_angles(struct, pulse_map) for struct in candidates
    ):
        raw = replace(pulse_map, labels=replace(pulse_map.labels, **_RAW_ANGLES))
        if any(has_angles(struct, raw) for struct in candidates):
            pulse_map = raw
    truth = choose_truth(structs, place, wanted, pulse_map)
    keys = _event_columns(first, [truth, pulses], wanted.event_column)
    key_names = {key.rpartition(".")[2] for key in keys}
    available = [c for c in lists[pulses].types if c not in key_names]
    taken, left_out = choose_columns(available, pulse_map, wanted.keep)
    notes: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    if truth is not None:
        scalars, truth_left_out, notes = choose_truth_columns(
            structs[truth], pulse_map, key_names
        )
        left_out += truth_left_out
    if not keys:
        notes += (f"{place} has no event_id: events are numbered by their row, from 0",)
    parts: list[NestedPart] = []
    first_id = 0
    for table in tables:
        part = NestedPart(
            name=table.name,
            table=table,
            columns={f"{pulses}.{column}": column for column in taken},
            truth={f"{truth}.{column}": column for column in scalars},
            angles=tuple(f"{truth}.{c}" for c in angle_columns(pulse_map)),
            keys=keys,
            first_id=first_id,
        )
        check_tables([first, table], [*part.columns, *part.truth, *keys])
        parts.append(part)
        first_id += table.num_rows
    return Source(
        kind="nested-parquet",
        pulse_map=pulse_map,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class NestedTable(ParquetTable):
    """A file of structs, the columns of which are columns of the table."""

    @cached_property
    def structs(self) -> dict[str, Columns]:
        """The structs by name."""
        return {
            name: Columns(
                name=f"{self.name}, {name}",
                types={field.name: field.type for field in kind},
            )
            for name, kind in self.schema().items()
            if is_struct(kind)
        }

    @cached_property
    def types(self) -> dict[str, Any]:  # type: ignore[override]
        """Arrow type of each column, such as `truth.azimuth`."""
        types = {n: kind for n, kind in self.schema().items() if not is_struct(kind)}
        for name, struct in self.structs.items():
            types |= {f"{name}.{column}": kind for column, kind in struct.types.items()}
        return types

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of these columns, each with the row it begins at."""
        pa = import_pyarrow()
        with opened_parquet(self.path, self.name) as file:
            row = 0
            for batch in file.iter_batches(
                _rows_at_once(file.metadata), columns=list(columns), use_threads=False
            ):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if is_struct(column.type):
                        self.check_no_null(column, name, row)
                flat = pa.Table.from_batches([batch]).flatten()
                yield row, flat.combine_chunks().to_batches()[0]
                row += len(batch)

    def values(
        self, batch: Any, column: str, row: int, *, nan: bool = False
    ) -> NDArray[Any]:
        """Return a column of a record batch that begins at a row; see `arrays`."""
        array = plain(batch.column(column))
        if not (nan and import_pyarrow().types.is_floating(array.type)):
            self.check_no_null(array, column, row)
        values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values

    def check_no_null(self, array: Any, column: str, row: int) -> None:
        """See that no value is null."""
        if array.null_count:
            null = row + int(np.asarray(array.is_null()).argmax())
            raise ValueError(f"{self.at(null)}: column {column!r} is null")


@dataclass(kw_only=True, eq=False)
class NestedPart(Part):
    """A nested parquet file."""

    name: str  # for messages
    table: NestedTable
    columns: dict[str, str]  # lists of pulses to read, and what they are called then
    truth: dict[str, str]  # the same of the columns of truth
    angles: tuple[str, ...]  # those of them that must be finite
    # Where event_ids are; all must agree. Without any, rows are counted.
    keys: tuple[str, ...]
    first_id: int  # number of the first row then

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the file, in chunks of at most `max_pulses` pulses or one event."""
        table = self.table
        for row, batch in table.batches([*self.columns, *self.truth, *self.keys]):
            columns, offsets = self._lists(batch, row)
            event_id = self._event_id(batch, row)
            truth = {}
            for column, called in self.truth.items():
                values = table.values(batch, column, row, nan=True)
                if column in self.angles:
                    table.check_angle(values, column, row)
                truth[called] = values
            for events in chunk_borders(offsets, max_pulses):
                borders = offsets[events.start : events.stop + 1]
                inside = slice(int(borders[0]), int(borders[-1]))
                yield EventChunk(
                    columns={name: values[inside] for name, values in columns.items()},
                    offsets=borders - borders[0],
                    event_id=event_id[events],
                    truth={name: values[events] for name, values in truth.items()},
                )

    def _lists(
        self, batch: Any, row: int
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Return lists one after the other, (T,) by column, and borders (B + 1,)."""
        table = self.table
        columns: dict[str, NDArray[Any]] = {}
        offsets: NDArray[np.int64] = np.zeros(1, np.int64)
        for column, called in self.columns.items():
            array = plain(batch.column(column))
            table.check_no_null(array, column, row)
            own = array.offsets.to_numpy().astype(np.int64)
            flat = plain(array.values.slice(own[0], own[-1] - own[0]))
            own = own - own[0]
            if flat.null_count:
                pulse = np.asarray(flat.is_null()).argmax()
                event = row + int(np.searchsorted(own, pulse, side="right")) - 1
                raise ValueError(f"{table.at(event)}: the list {column!r} holds a null")
            if columns and not np.array_equal(own, offsets):
                lengths, first = np.diff(own), np.diff(offsets)
                event = int((lengths != first).argmax())
                raise ValueError(
                    f"{table.at(row + event)}: the list {column!r} has "
                    f"{lengths[event]} values, but {next(iter(self.columns))!r} has "
                    f"{first[event]}"
                )
            offsets = own
            columns[called] = flat.to_numpy(zero_copy_only=False)
        return columns, offsets

    def _event_id(self, batch: Any, row: int) -> NDArray[np.int64]:
        if not self.keys:
            first = self.first_id + row
            return np.arange(first, first + len(batch), dtype=np.int64)
        table = self.table
        ids = [
            table.as_ids(table.values(batch, key, row), key, row) for key in self.keys
        ]
        for key, other in zip(self.keys[1:], ids[1:], strict=True):
            if len(wrong := np.flatnonzero(other != ids[0])):
                raise ValueError(
                    f"{table.at(row + int(wrong[0]))}: {self.keys[0]} is "
                    f"{ids[0][wrong[0]]}, but {key} is {other[wrong[0]]}"
                )
        return ids[0]


def _lists_of(struct: Columns) -> Columns:
    """Return the columns of a struct that are lists of numbers."""
    lists = {
        column: kind
        for column, kind in struct.types.items()
        if is_list(kind) and is_number(plain_type(kind).value_type)
    }
    return replace(struct, types=lists)


def _event_columns(
    table: NestedTable, structs: Sequence[str | None], wanted: str | None
) -> tuple[str, ...]:
    """Return where event_ids are: beside the structs, or in those given."""
    for column in (wanted,) if wanted else EVENT_COLUMNS:
        names = [column, *(f"{struct}.{column}" for struct in structs)]
        found = [n for n in names if n in table.types and not is_list(table.types[n])]
        if found:
            return tuple(found)
    if wanted:
        raise ValueError(f"{table.name} has no column {wanted!r} that names the event")
    return ()


def _rows_at_once(metadata: Any) -> int:
    """Return how many events to read at once: fewer where they are large."""
    groups = range(metadata.num_row_groups)
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in groups)
    fitting = BYTES_AT_ONCE * metadata.num_rows // max(num_bytes, 1)
    return int(min(max(fitting, 1), EVENTS_AT_ONCE))
