"""Parquet files with one row per event and its pulses in lists.

There is one list per column, as from `groupby().agg(list)`; or a struct of lists, as
from GraphNeT's older extractions and Prometheus; or a list of structs. The lists become
a table of pulses, the other values a table of truth. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    FileTables,
    PathLike,
    Wanted,
    list_files,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import SUFFIXES, Source
from graphnet_icecube2nd.store.readers.table_part import select
from graphnet_icecube2nd.store.readers.tables import (
    ParquetTable,
    Table,
    is_list,
    is_number,
    is_string,
    is_struct,
    plain,
    plain_type,
)

LISTS, BESIDE = "pulses", "truth"  # names of the tables of columns without a struct
VALUES_AT_ONCE = 2**18  # about this many of a list column


def nested_source(path: PathLike | Sequence[PathLike], **options: Any) -> Source:
    """Open parquet files with one row per event as a source.

    Each struct is a table, and so are the columns without a struct. The event column is
    in any of them; without one, events are numbered by their row.

    Args:
        path: Files or folders.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged, or lacks a table or column.
    """
    wanted = Wanted(**options)
    paths = list_files(path, SUFFIXES["parquet"])
    files = [ParquetTable(path=file, name=str(file)) for file in paths]
    first, place = files[0], files[0].name
    lists, others = nested_tables(first, wanted.event_column)
    if not lists:
        raise ValueError(
            f"{place} must have lists of pulses, with one row per event; it has "
            f"{', '.join(first.types)}"
        )
    (name,), pulse_map = FileTables(
        tables=lists, place=place, wanted=wanted
    ).find_pulses(several=False)
    possible = {n: table for n, table in others.items() if n != name or n == BESIDE}
    truth = FileTables(tables=possible, place=place, wanted=wanted).find_truth(
        pulse_map
    )
    pulses, labels, num_before = list[Table](), list[Table](), 0
    for file in files:
        found, beside = nested_tables(file, wanted.event_column, num_before)
        if name not in found or (truth and truth not in beside):
            raise ValueError(
                f"{file.name} must have {name!r}{f' and {truth!r}' if truth else ''}, "
                f"as {place} has; it has {', '.join({**found, **beside})}"
            )
        pulses.append(found[name])
        # Without truth, the events are known from the pulses.
        labels.append(beside[truth] if truth else found[name].events())
        num_before += file.num_rows
    wanted = replace(wanted, pulse_map=pulse_map, event_column=lists[name].key)
    truths = labels if truth else []
    source, part = select(
        "nested-parquet", pulses, truths, wanted, events=labels, without=EVENT_COLUMNS
    )
    notes = source.notes
    if lists[name].counts_rows:
        note = f"{place} has no event_id; events are numbered by row, from 0"
        notes = (*notes, note)
    parts = [
        part.of(table, of, by_truth=True, name=file.name)
        for file, table, of in zip(files, pulses, labels, strict=True)
    ]
    return replace(source, parts=parts, notes=notes)


def is_nested(types: Mapping[str, Any]) -> bool:
    """Return whether columns are those of a file with one row per event."""
    kinds = [plain_type(kind) for kind in types.values()]
    values = [kind.value_type for kind in kinds if is_list(kind)]
    flat = [column for column, kind in types.items() if not is_list(kind)]
    has_structs = any(is_struct(kind) for kind in (*kinds, *values))
    return has_structs or (bool(values) and recognise_pulse_map(flat) is None)


@dataclass(frozen=True, kw_only=True)
class NestedTable(Table):
    """Table of pulses from the lists of a file, or table of truth from its values."""

    has_rows = False
    name: str  # for messages
    file: ParquetTable
    types: dict[str, Any]  # Arrow type of each value, and of the key
    # Column of each value in the file, and field of its struct if it has one.
    places: dict[str, tuple[str, ...]]
    key: str  # the event column, which the file may lack
    first_id: int  # number of the first event if it does
    num_rows: int | None  # None for pulses

    def events(self) -> NestedTable:
        """Return the table of the event column only, with one row per event."""
        types = {self.key: self.types[self.key]}
        return replace(self, types=types, num_rows=self.file.num_rows)

    @property
    def counts_rows(self) -> bool:
        """Whether the file has no event column."""
        return self.key not in self.places

    def at(self, row: int) -> str:
        """Return the text for a row or a pulse, for messages."""
        return f"{self.name}, {'pulse' if self.num_rows is None else 'row'} {row}"

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        pa, first = import_pyarrow(), 0
        from_pulse_map, needed = self.num_rows is None, dict.fromkeys(columns)
        if needed.keys() <= {self.key}:  # another column, for lengths or rows
            needed |= dict.fromkeys([*self.places][:1])
        paths = {self.places[column][0] for column in needed if column in self.places}
        for row, batch in self.file.batches([*paths], values=VALUES_AT_ONCE):
            arrays = {column: self._array(batch, column, row) for column in needed}
            if from_pulse_map:
                ids = arrays.pop(self.key, None)
                arrays, lengths = self._values(arrays, row)
                if ids is not None:
                    repeats = np.repeat(np.arange(len(batch)), lengths)
                    arrays[self.key] = plain(ids).take(pa.array(repeats))
            found = pa.record_batch([arrays[c] for c in columns], names=[*columns])
            yield first, found
            first += len(found)

    def _array(self, batch: Any, column: str, row: int) -> Any:
        """Return a column of a batch of the file, (B,)."""
        if column not in self.places:
            first = self.first_id + row
            return import_pyarrow().array(np.arange(first, first + len(batch)))
        name, *fields = self.places[column]
        array = plain(batch.column(name))
        if self.num_rows is None or fields:
            self._check_there(array, name, row)
        return array.field(fields[0]) if is_struct(array.type) else array

    def _values(
        self, lists: dict[str, Any], row: int
    ) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Return the values of lists, (T,), and lengths, (B,).

        Raises:
            ValueError: A list is null, or two lists of a row have different lengths.
        """
        lengths, arrays = np.empty(0, np.int64), dict[str, Any]()
        for column, array in lists.items():
            array = plain(array)
            self._check_there(array, column, row)
            borders = array.offsets.to_numpy().astype(np.int64)
            own = np.diff(borders)
            if arrays and not np.array_equal(own, lengths):
                event = int((own != lengths).argmax())
                raise ValueError(
                    f"{self.file.at(row + event)}: lists must have the same length, "
                    f"but {column!r} has {own[event]} values and "
                    f"{next(iter(arrays))!r} has {lengths[event]}"
                )
            flat, lengths = array.values.slice(borders[0], own.sum()), own
            if is_struct(flat.type):
                flat = import_pyarrow().compute.struct_field(
                    flat, self.places[column][1]
                )
            arrays[column] = flat
        return arrays, lengths

    def _check_there(self, array: Any, column: str, row: int) -> None:
        if array.null_count:
            null = row + int(np.asarray(array.is_null()).argmax())
            raise ValueError(
                f"{self.file.at(null)}: column {column!r} must not be null"
            )


def nested_tables(
    file: ParquetTable, event_column: str | None, first_id: int = 0
) -> tuple[dict[str, NestedTable], dict[str, NestedTable]]:
    """Return the tables of pulses, and those with one row per event, by name.

    Args:
        file: The file.
        event_column: Column of the event numbers; None for the known names.
        first_id: Number of the first event, if the file has no event column.

    Raises:
        ValueError: The file lacks the event column.
    """
    lists: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, kind in file.types.items():
        inner = plain_type(kind)
        is_listed = is_list(inner) and is_struct(inner.value_type)
        struct = inner.value_type if is_listed else inner
        columns: dict[str, Any] = {name: ((name,), kind)}
        tables = LISTS, BESIDE
        if is_struct(struct):
            columns = {field.name: ((name, field.name), field.type) for field in struct}
            tables = name, name
        for column, (place, found) in columns.items():
            number = found if is_listed else getattr(plain_type(found), "value_type", 0)
            are_pulses = number and (is_number(number) or is_string(number))
            if are_pulses:
                lists.setdefault(tables[0], {})[column] = place, number
            if not is_listed and not (are_pulses and len(place) == 1):
                values.setdefault(tables[1], {})[column] = place, found
    keys = {
        (column, table): found
        for column in ((event_column,) if event_column else EVENT_COLUMNS)
        for table, columns in values.items()
        if (found := columns.get(column)) and not is_list(found[1])
    }
    key = next(iter(keys), (EVENT_COLUMNS[0], ""))[0]
    if event_column and not keys:
        raise ValueError(
            f"{file.name} has no column {event_column!r} of event numbers; it has "
            f"{', '.join(file.types)}"
        )

    def table(name: str, of: dict[str, Any], num_rows: int | None) -> NestedTable:
        columns = {column: found for column, found in of.items() if column != key}
        own = (keys.get((key, at)) for at in (name, BESIDE, *values))
        if found := next(filter(None, own), None):
            columns[key] = found
        types = {column: kind for column, (_, kind) in columns.items()}
        return NestedTable(
            name=file.name if name in (LISTS, BESIDE) else f"{file.name}, {name}",
            file=file,
            types={**types, key: types.get(key, import_pyarrow().int64())},
            places={column: place for column, (place, _) in columns.items()},
            key=key,
            first_id=first_id,
            num_rows=num_rows,
        )

    return (
        {name: table(name, of, None) for name, of in lists.items()},
        {name: table(name, of, file.num_rows) for name, of in values.items()},
    )
