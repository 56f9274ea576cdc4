"""Parquet files of one row an event, its pulses in lists.

The lists are columns of their own, as `groupby().agg(list)` writes them, or of a
struct, as GraphNeT's older extractions and Prometheus write them, or there is a list of
structs. The lists become a table of pulses, the values beside them one of truth. Shape
letters: T pulses, B events.
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
    PathLike,
    Wanted,
    choose_pulses,
    choose_truth,
    list_files,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import PARQUET_SUFFIXES, Source
from graphnet_icecube2nd.store.readers.table_part import (
    NO_DIRECTIONS,
    TablePart,
    Truth,
    select,
)
from graphnet_icecube2nd.store.readers.tables import (
    ParquetTable,
    Table,
    is_list,
    is_number,
    is_struct,
    plain,
    plain_type,
)

BESIDE = ("pulses", "truth")  # names of the tables of what is in no struct
VALUES_AT_ONCE = 2**18  # of a list column, about


def nested_source(path: PathLike | Sequence[PathLike], **options: Any) -> Source:
    """Open parquet files with one row an event; `Wanted` says the options.

    Tables are structs, and what is beside them. The event key is beside the structs or
    in one of them; where there is none, events are numbered by their row.
    """
    wanted = Wanted(**options)
    files = [
        ParquetTable(path=file, name=str(file))
        for file in list_files(path, PARQUET_SUFFIXES)
    ]
    first, place = files[0], files[0].name
    with_lists, others = nested_tables(first, wanted.event_column)
    if not with_lists:
        raise ValueError(
            f"{place} has no lists of pulses, one row an event; there is "
            f"{', '.join(first.types)}"
        )
    (pulses, *more), pulse_map = choose_pulses(with_lists, place, wanted)
    if more:
        raise ValueError(f"{place}: name one table of pulses, got {wanted.pulses}")
    if pulses not in BESIDE:
        others.pop(pulses, None)
    truth = choose_truth(others, place, wanted, pulse_map)
    chosen, labels, num_before = list[Table](), list[Table](), 0
    for file in files:
        one, other = nested_tables(file, wanted.event_column, num_before)
        for name, found in ((pulses, one), (truth, other)):
            if name is not None and name not in found:
                raise ValueError(f"{file.name} has no {name!r}, which {place} has")
        chosen.append(one[pulses])
        # Where no truth is read, the file still says which events there are.
        labels.append(other[truth] if truth is not None else one[pulses].events())
        num_before += file.num_rows
    key = with_lists[pulses].key
    selection = select(
        chosen,
        labels if truth is not None else [],
        replace(wanted, pulse_map=pulse_map, event_column=key),
        without=EVENT_COLUMNS,
    )
    notes = selection.notes
    if selection.truth is None:
        events = Truth(tables=(*labels,), event_column=key, columns=())
        selection, notes = replace(selection, truth=events), (NO_DIRECTIONS,)
    if with_lists[pulses].counts_rows:
        notes += (f"{place} has no event_id: events are numbered by their row, from 0",)
    parts = [
        TablePart(**{**selection.part(table, of, by_truth=True), "name": file.name})
        for file, table, of in zip(files, chosen, labels, strict=True)
    ]
    return selection.source("nested-parquet", parts, notes=notes)


def is_nested(types: Mapping[str, Any]) -> bool:
    """Tell whether columns are those of a file with one row an event."""
    lists = [column for column, kind in types.items() if is_list(kind)]
    flat = [column for column in types if column not in lists]
    return (
        any(map(is_struct, types.values()))
        or any(is_struct(plain_type(types[column]).value_type) for column in lists)
        or (bool(lists) and recognise_pulse_map(flat) is None)
    )


@dataclass(frozen=True, kw_only=True)
class NestedTable(Table):
    """Lists of a file with one row an event as pulses, or its values as truth."""

    has_rows = False
    name: str  # for messages
    file: ParquetTable
    types: dict[str, Any]  # Arrow type of each value, and of the key
    # The column of each in the file, with the field of its struct if it has one.
    places: dict[str, tuple[str, ...]]
    key: str  # the event key, which is there also where the file has none
    first_id: int  # number of the first row then
    num_rows: int | None  # None of pulses

    def events(self) -> NestedTable:
        """Return the table of the key alone, one row an event."""
        types = {self.key: self.types[self.key]}
        return replace(self, types=types, num_rows=self.file.num_rows)

    @property
    def counts_rows(self) -> bool:
        """Whether the file has no event key."""
        return self.key not in self.places

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield record batches of columns, each with the row it begins at."""
        pa = import_pyarrow()
        of_pulses, first = self.num_rows is None, 0
        needed = [*columns]
        if of_pulses and not {*columns} - {self.key}:
            needed += [column for column in self.types if column != self.key][:1]
        paths = {self.places[column][0] for column in needed if column in self.places}
        if self.counts_rows and not paths:
            paths = {next(iter(self.places.values()))[0]}
        for row, batch in self.file.batches([*paths], VALUES_AT_ONCE):
            arrays: dict[str, Any] = {}
            lengths = np.empty(0, np.int64)
            for column in needed:
                if column == self.key and of_pulses:
                    continue
                array = self._array(batch, column, row)
                if of_pulses:
                    arrays[column], own = self._values(array, column, row)
                    first_lengths = lengths if len(arrays) > 1 else own
                    lengths = self._same(own, first_lengths, column, row)
                else:
                    arrays[column] = array
            if of_pulses and self.key in columns:
                ids = plain(self._array(batch, self.key, row))
                self._check_no_null(ids, self.key, row)
                repeats = np.repeat(np.arange(len(batch)), lengths)
                arrays[self.key] = ids.take(pa.array(repeats))
            found = pa.record_batch([arrays[c] for c in columns], names=[*columns])
            yield first, found
            first += len(found)

    def at(self, row: int) -> str:
        """Return what messages call a row: of the file, or a pulse."""
        return f"{self.name}, {'row' if self.num_rows is not None else 'pulse'} {row}"

    def _array(self, batch: Any, column: str, row: int) -> Any:
        """Return a column of a batch of the file, (B,)."""
        if column not in self.places:
            first = self.first_id + row
            return import_pyarrow().array(np.arange(first, first + len(batch)))
        name, *fields = self.places[column]
        array = batch.column(name)
        for field in fields:
            if is_struct(array.type):
                self._check_no_null(array, name, row)
                array = array.field(field)
        return array

    def _values(
        self, array: Any, column: str, row: int
    ) -> tuple[Any, NDArray[np.int64]]:
        """Return the values of lists one after the other, (T,), and lengths, (B,)."""
        array = plain(array)
        self._check_no_null(array, column, row)
        borders = array.offsets.to_numpy().astype(np.int64)
        flat = array.values.slice(borders[0], borders[-1] - borders[0])
        if is_struct(flat.type):
            self._check_no_null_within(flat, column, row, borders)
            flat = flat.field(self.places[column][1])
        flat = plain(flat)
        self._check_no_null_within(flat, column, row, borders)
        return flat, np.diff(borders)

    def _same(
        self,
        own: NDArray[np.int64],
        lengths: NDArray[np.int64],
        column: str,
        row: int,
    ) -> NDArray[np.int64]:
        if not np.array_equal(own, lengths):
            event = int((own != lengths).argmax())
            raise ValueError(
                f"{self.file.at(row + event)}: the list {column!r} has {own[event]} "
                f"values, others of the event have {lengths[event]}"
            )
        return own

    def _check_no_null(self, array: Any, column: str, row: int) -> None:
        if array.null_count:
            null = row + int(np.asarray(array.is_null()).argmax())
            raise ValueError(f"{self.file.at(null)}: column {column!r} is null")

    def _check_no_null_within(
        self, flat: Any, column: str, row: int, borders: NDArray[np.int64]
    ) -> None:
        if flat.null_count:
            pulse = borders[0] + int(np.asarray(flat.is_null()).argmax())
            event = row + int(np.searchsorted(borders, pulse, side="right")) - 1
            raise ValueError(f"{self.file.at(event)}: the list {column!r} holds a null")


def nested_tables(
    file: ParquetTable, event_column: str | None, first_id: int = 0
) -> tuple[dict[str, NestedTable], dict[str, NestedTable]]:
    """Return the tables of pulses and those of one row an event of a file, by name."""
    lists: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {}
    values: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {}
    for name, kind in file.types.items():
        is_listed = is_list(kind) and is_struct(plain_type(kind).value_type)
        inner = plain_type(kind).value_type if is_listed else kind
        if not is_struct(inner):
            found = lists if _is_list_of_numbers(kind) else values
            found.setdefault(BESIDE[found is values], {})[name] = (name,), kind
            continue
        for field in inner:
            is_pulse = is_listed or _is_list_of_numbers(field.type)
            if not is_listed or is_number(field.type):
                found = lists if is_pulse else values
                found.setdefault(name, {})[field.name] = (name, field.name), field.type
            if is_pulse and not is_listed:  # a list beside values is no truth
                own = values.setdefault(name, {})
                own[field.name] = (name, field.name), field.type
    keys = {
        column: place
        for tables in (values, lists)
        for table in tables.values()
        for column, (place, kind) in table.items()
        if column in ((event_column,) if event_column else EVENT_COLUMNS)
        and not is_list(kind)
    }
    key = next(iter(keys), "")
    if event_column and not key:
        raise ValueError(
            f"{file.name} has no column {event_column!r} that names the event "
            "(event_column=..., --event-column)"
        )

    def table(name: str, of: Any, num_rows: int | None) -> NestedTable:
        own_key = values.get(name, {}).get(key) or values.get(BESIDE[1], {}).get(key)
        places = {column: place for column, (place, _) in of.items() if column != key}
        types = {column: kind for column, (_, kind) in of.items() if column != key}
        if num_rows is None:
            types = {c: getattr(k, "value_type", k) for c, k in types.items()}
        types[key or EVENT_COLUMNS[0]] = import_pyarrow().int64()
        if key:
            places[key] = own_key[0] if own_key else keys[key]
            types[key] = file.type_at(places[key])
        return NestedTable(
            name=file.name if name in BESIDE else f"{file.name}, {name}",
            file=file,
            types=types,
            places=places,
            key=key or EVENT_COLUMNS[0],
            first_id=first_id,
            num_rows=num_rows,
        )

    return (
        {name: table(name, of, None) for name, of in lists.items()},
        {name: table(name, of, file.num_rows) for name, of in values.items()},
    )


def _is_list_of_numbers(kind: Any) -> bool:
    return is_list(kind) and is_number(plain_type(kind).value_type)
