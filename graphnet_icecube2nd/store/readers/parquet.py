"""Parquet files: flat files, folders of GraphNeT, and files with one row per event.

GraphNeT's ParquetWriter makes one folder per table, `TABLE/FILE_TABLE.parquet` for each
file that it reads, or merged, `merged/TABLE/TABLE_CHUNK.parquet` for each chunk of
events.

In files with one row per event, pulses are lists: one list per column, as from
`groupby().agg(list)`; or a struct of lists, as from GraphNeT's older extractions and
Prometheus; or a list of structs. The lists become a table of pulses, the other values a
table of truth. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    NO_TRUTH,
    FileTables,
    PathLike,
    Wanted,
    join_tables,
    list_files,
    numbered_files,
    recognise_pulse_map,
    settle_labels,
)
from graphnet_icecube2nd.store.readers.source import (
    SUFFIXES,
    EventChunk,
    Part,
    Source,
)
from graphnet_icecube2nd.store.readers.table_part import (
    Truth,
    empty_note,
    select,
    select_of_files,
)
from graphnet_icecube2nd.store.readers.tables import (
    GREATEST,
    LEAST,
    ParquetTable,
    Table,
    is_list,
    is_number,
    is_string,
    is_struct,
    no_values,
    plain,
    plain_type,
)
from graphnet_icecube2nd.tasks.catalogue import are_results

PART_ROWS = 2**24
MERGED = "merged"  # folder of ParquetWriter's merged files
LISTS, BESIDE = "pulses", "truth"  # names of the tables of columns without a struct
VALUES_AT_ONCE = 2**18  # about this many of a list column


def parquet_source(
    pulses: PathLike | Sequence[PathLike],
    truth: PathLike | Sequence[PathLike] | bool | None = None,
    *,
    part_rows: int = PART_ROWS,
    **options: Any,
) -> Source:
    """Open flat parquet files of pulses and of truth as a source.

    A file longer than `part_rows` is split into parts by ranges of event_ids, if its
    row groups are in the order of the ids and have statistics; other files are one part
    each. All pulses of an event are in one part.

    Args:
        pulses: Files or folders of pulses.
        truth: Files of truth; False reads no truth. Default: those of `pulses` that
            have angles but no pulses; other files without pulses are left out.
        part_rows: Number of rows per part.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged or lacks a column.
    """
    wanted, notes = Wanted(**options), list[str]()
    tables = _tables(pulses)
    labels = [] if truth is None or isinstance(truth, bool) else _tables(truth)
    if len(tables) > 1 and not labels:
        tables, found, rest = _sorted(tables, wanted)
        labels = [] if truth is False else found
        others = [*rest, *(found if truth is False else ())]
        if others:
            names = ", ".join(table.path.name for table in others)
            notes.append(
                f"files without pulses, and truth that is not read, are left out: "
                f"{names}"
            )
    source, example = select("parquet", tables, labels, wanted)
    key, truth_of = example.event_column, example.truth
    ranges = [(table, *cut) for table in tables for cut in _cut(table, key, part_rows)]
    parts: list[Part] = []
    for table, low, high, num_rows in ranges:
        part = example.of(table, num_pulses=num_rows)
        if num_rows < table.num_rows:
            part.pulses, part.id_range = table.within(key, low, high), (low, high)
        # A part of several does not know which events have no pulses.
        part.with_empty = len(ranges) == 1
        parts.append(part)
    if truth_of is not None and len(ranges) > 1:
        rest_of = EmptyEventsPart(
            name=truth_of.name,
            tables=tuple(tables),
            event_column=key,
            columns=source.pulse_columns,
            truth=truth_of,
        )
        parts.append(rest_of)
    return replace(source, parts=parts, notes=(*notes, *source.notes))


def _sorted(
    tables: Sequence[ParquetTable], wanted: Wanted
) -> tuple[list[ParquetTable], list[ParquetTable], list[ParquetTable]]:
    """Return the files of pulses, of truth, and the others, by their columns."""
    pulses = [table for table in tables if wanted.read_as(table.types)]
    if wanted.pulse_map is not None:
        time = wanted.pulse_map.time
        pulses = [table for table in tables if time in table.types]
    if not pulses:
        return [*tables], [], []  # the error is that of the first file
    others = [table for table in tables if table not in pulses]
    pulse_map = wanted.read_as(pulses[0].types)
    assert pulse_map is not None
    pulse_map = settle_labels(pulse_map, [table.types for table in others])
    angles = {pulse_map.labels.azimuth, pulse_map.labels.zenith}
    truth = [
        table
        for table in others
        if angles <= {*table.types} and not are_results(table.types)
    ]
    return pulses, truth, [table for table in others if table not in truth]


@dataclass(kw_only=True, eq=False)
class EmptyEventsPart(Part):
    """Events of the truth that have no pulses in any part."""

    name: str  # for messages
    tables: tuple[Table, ...]  # all tables of pulses
    event_column: str  # their column of event_ids
    columns: tuple[str, ...]  # the pulse columns of the other parts
    truth: Truth
    num_pulses: int | None = 0
    for_threads = True

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield these events, if there are any, with 0 pulses."""
        ids = [np.unique(i) for t in self.tables for _, i in t.ids(self.event_column)]
        known = self.truth.read(columns=())
        lost = np.setdiff1d(known.event_id, np.concatenate(ids))
        if not len(lost):
            return
        truth = self.truth.read((self.truth.event_column, int(lost[0]), int(lost[-1])))
        rows = np.flatnonzero(np.isin(truth.event_id, lost))
        types = self.tables[0].types
        yield EventChunk(
            columns={name: no_values(types[name]) for name in self.columns},
            offsets=np.zeros(len(rows) + 1, np.int64),
            event_id=truth.event_id[rows],
            truth={name: values[rows] for name, values in truth.columns.items()},
            truth_name=self.truth.name,
            notes=(empty_note(lost, self.truth.name, "the files of pulses"),),
        )


def _tables(given: PathLike | Sequence[PathLike]) -> list[ParquetTable]:
    files = list_files(given, SUFFIXES["parquet"])
    return [ParquetTable(path=path, name=str(path)) for path in files]


def _cut(table: ParquetTable, key: str, part_rows: int) -> list[tuple[int, int, int]]:
    """Cut a file into ranges of event_ids with `part_rows` rows or more.

    A cut between two row groups is allowed at an id if no id before is greater and no
    id after is less; further rows of this id are read with those before the cut. Return
    least and greatest event_id of each range, and its approximate number of rows.
    """
    groups = table.row_groups(key)
    highest = np.maximum.accumulate([group.high for group in groups])
    lowest = np.minimum.accumulate([GREATEST, *(g.low for g in groups[:0:-1])])[::-1]
    ranges, low, num_rows = list[tuple[int, int, int]](), LEAST, 0
    for group, high, least in zip(groups, highest.tolist(), lowest, strict=True):
        num_rows += group.num_rows
        if num_rows >= part_rows and low <= high <= least:
            ranges.append((low, high, num_rows))
            low, num_rows = high + 1, 0
    if ranges and not num_rows:
        low, _, num_rows = ranges.pop()
    return [*ranges, (low, GREATEST, num_rows)]


def graphnet_tables(folder: Path) -> dict[str, dict[Any, Path]]:
    """Return the files of GraphNeT's folder by table, and by chunk or file."""
    if (folder / MERGED).is_dir():
        folder = folder / MERGED
    tables: dict[str, dict[Any, Path]] = {}
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        name, files = entry.name, dict[Any, Path](numbered_files(entry, entry.name))
        end = f"_{name}.parquet"
        if not files:
            paths = sorted(path for path in entry.iterdir() if path.name.endswith(end))
            files = {path.name.removesuffix(end): path for path in paths}
        if files:
            tables[name] = files
    return tables


def graphnet_parquet_source(folder: PathLike, **options: Any) -> Source:
    """Open a folder of GraphNeT's parquet files as a source.

    Events and pulses have the order of the files, chunk by chunk; events without pulses
    are the last of their chunk.

    Args:
        folder: Folder with one folder per table, or with `merged/`.
        **options: Options of `Wanted`.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: A file is damaged or missing, or lacks a column.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    tables = {
        name: {key: ParquetTable(path=path, name=str(path)) for key, path in of.items()}
        for name, of in graphnet_tables(root).items()
    }
    firsts = {name: next(iter(files.values())) for name, files in tables.items()}
    if not firsts:
        raise ValueError(
            f"{root} must have files of GraphNeT's ParquetWriter, "
            "<table>/<file>_<table>.parquet or <table>/<table>_<chunk>.parquet, found "
            "none"
        )
    wanted = Wanted(**{"event_column": "event_no", **options})
    first = FileTables(tables=firsts, place=str(root), wanted=wanted).find_both()
    names, truth = first.names, first.names[-1] if first.truth else None
    for one, other in ((names[0], name) for name in names[1:]):
        for name, partner in ((one, other), (other, one)):
            alone = [key for key in tables[name] if key not in tables[partner]]
            if alone:
                raise ValueError(
                    f"{tables[name][alone[0]].name} has no partner in {partner}/ "
                    f"({len(alone)} of {len(tables[name])} files have none). Complete "
                    f"the copy, or leave truth out: {NO_TRUTH}"
                )
    of_pulses = [tables[name] for name in names if name != truth]
    files = [
        replace(
            first,
            pulses=join_tables([of[key] for of in of_pulses], first.pulse_map),
            truth=tables[truth][key] if truth else None,
        )
        for key in tables[names[0]]
    ]
    source, part = select_of_files("graphnet-parquet", files, wanted)
    return replace(source, parts=[part.of(file.pulses, file.truth) for file in files])


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
    files = _tables(path)
    first, place = files[0], files[0].name
    lists, others = _nested_tables(first, wanted.event_column)
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
        found, beside = _nested_tables(file, wanted.event_column, num_before)
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


def _nested_tables(
    file: ParquetTable, event_column: str | None, first_id: int = 0
) -> tuple[dict[str, NestedTable], dict[str, NestedTable]]:
    """Return the tables of pulses, and those with one row per event, by name.

    Events are numbered from `first_id` if the file has no event column.
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
