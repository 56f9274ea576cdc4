"""GraphNeT's LMDB files: one value per event, with its tables in JSON or msgpack.

LMDB's library maps a file and does not check it, so a damaged file can end the process.
Here pages are read and checked one by one, without locking or writing. Shape letters:
B events.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.files import parse_json
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.columns import (
    ChosenTables,
    FileTables,
    PathLike,
    Wanted,
    list_files,
    recognise_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import (
    LMDB_FILE,
    SUFFIXES,
    Source,
    chunk_borders,
    describe_ids,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.table_part import (
    event_ranges,
    select_of_files,
)
from graphnet_icecube2nd.store.readers.tables import GREATEST, LEAST, Table

VALUES_AT_ONCE = 2**16  # of a column
# GraphNeT's keys: the serialization, the prefix of others, and a value without a table.
SERIALIZATION, FURTHER, NO_TABLE = (
    b"__meta_serialization__",
    b"__meta_",
    "data_representations",
)
NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
# Arrow's names of the types in JSON and msgpack.
TYPES: dict[Any, str] = {bool: "bool", int: "int64", float: "float64", str: "string"}

# For each table and column: the types of its values, each with an event that has it.
Types = dict[str, dict[str, dict[Any, int]]]

# The first two pages: magic number and version; size of a page; flags, depth, number of
# keys and root of the tree; number of the last change. The newer page is valid.
_META = struct.Struct("<16x 2I 16x I 48x 2H 24x 2Q 8x Q")
_MAGIC, _VERSION, _NO_ROOT, _DEEPEST = 0xBEEFC0DE, 1, 2**64 - 1, 32
# Other pages: number; type; ends of the free space, or number of pages of the value.
_PAGE, _BRANCH, _LEAF, _VALUE = struct.Struct("<Q2x3H"), 1, 2, 4
# An entry: halves of the value's size, flags, size of the key.
_ENTRY, _LONG = struct.Struct("<4H"), 1


def lmdb_source(paths: PathLike | Sequence[PathLike], **options: Any) -> Source:
    """Open LMDB files of GraphNeT's LMDBWriter as a source.

    Events have the order of their numbers, file by file, and include those without
    pulses. JSON and msgpack have a type for each value, so all files are read once
    before the conversion.

    Args:
        paths: Files, folders `X.lmdb` of a file, or folders of these.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged, has another serialization, or lacks a table or
            column.
    """
    wanted = Wanted(**{"event_column": "event_no", **options})
    key, notes, seen = str(wanted.event_column), list[str](), Types()
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    files = list_files([file for path in given for file in _files_of(Path(path))], ())
    contents = [_read_tables(file, key, seen) for file in files]
    types = {name: _arrow_types(seen[name]) | contents[0][0].types for name in seen}
    chosen = list[ChosenTables]()
    for file, (events, tables) in zip(files, contents, strict=True):
        tables = {n: replace(table, types=types[n]) for n, table in tables.items()}
        single = [
            name
            for name, table in tables.items()
            if table.count_B.max() == 1 and recognise_pulse_map(table.types) is None
        ]
        found = FileTables(tables=tables, place=str(file), wanted=wanted, keyed=single)
        chosen.append(found.find_both())
        known = [tables[name].event_B for name in chosen[-1].names]
        lost = np.setdiff1d(events.event_B, np.concatenate(known))
        if chosen[-1].truth and len(lost):
            notes.append(f"{file} has no pulses and truth of {describe_ids(lost)}")
    # Without truth, the events are known from the files.
    source, part = select_of_files(
        "graphnet-lmdb", chosen, wanted, events=[events for events, _ in contents]
    )
    if NO_TABLE in seen:
        notes.append(f"{NO_TABLE!r} of the events are left out")
    parts = []
    for of_file, (events, _) in zip(chosen, contents, strict=True):
        for _, low, high in event_ranges(events.event_B):
            both = (of_file.pulses, of_file.truth or events)
            rows = [table.within(key, low, high) for table in both]
            parts.append(part.of(*rows, by_number=True))
    return replace(source, parts=parts, notes=(*notes, *source.notes))


@dataclass(frozen=True, kw_only=True, eq=False)
class LmdbTable(Table):
    """A table of a file in the order of the events, or the events with one row each."""

    has_rows = False
    for_threads = False  # Python decodes each value
    path: Path
    table: str
    types: dict[str, Any]  # Arrow type of each column, and of the key
    key: str  # the column of event_ids, which are the keys of the file
    method: str  # serialization of the values
    # (B,) event_id, place and size of the value [bytes], and rows, for events with rows
    event_B: NDArray[np.int64]
    place_B: NDArray[np.int64]
    size_B: NDArray[np.int64]
    count_B: NDArray[np.int64]

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the table for messages."""
        return f"{self.path}, table {self.table!r}" if self.table else str(self.path)

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return int(self.count_B.sum())

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        pa = import_pyarrow()
        borders = np.append(0, np.cumsum(self.count_B))
        with open(self.path, "rb") as file:
            for some in chunk_borders(borders, VALUES_AT_ONCE):
                ids = np.repeat(self.event_B[some], self.count_B[some])
                values: dict[str, Any] = {c: [] for c in columns if c != self.key}
                for b in range(some.start, some.stop) if values else ():
                    found = self.read(file, b)[self.table]
                    for column in values:
                        values[column] += found[column]
                values[self.key] = ids
                try:
                    arrays = [pa.array(values[c], self.types[c]) for c in columns]
                except (ValueError, OverflowError, TypeError) as error:
                    raise ValueError(
                        f"{self.name}, {describe_ids(self.event_B[some])}: {error}"
                    ) from None
                yield (
                    int(borders[some.start]),
                    pa.record_batch(arrays, names=[*columns]),
                )

    def some(self, which: Any) -> LmdbTable:
        """Return some of the events."""
        arrays = ("event_B", "place_B", "size_B", "count_B")
        return replace(self, **{name: vars(self)[name][which] for name in arrays})

    def within(self, column: str, low: int, high: int) -> LmdbTable:
        """Return the rows of a range of events."""
        if column != self.key:
            return self
        first = int(np.searchsorted(self.event_B, low))
        stop = int(np.searchsorted(self.event_B, high, "right"))
        return self.some(slice(first, stop))

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that change if the rows change."""
        ends = [*self.event_B[:1].tolist(), *self.event_B[-1:].tolist()]
        return {**file_fingerprint(self.path), "table": self.table, "events": ends}

    def at(self, row: int) -> str:
        """Return the text for the event of a row, for messages."""
        b = np.searchsorted(np.cumsum(self.count_B), row, "right")
        return f"{self.name}, event {self.event_B[b]}"

    def read(self, file: Any, b: int) -> dict[str, dict[str, list[Any]]]:
        """Return the tables of event `b` by name, each as columns by name.

        Raises:
            ValueError: The value is damaged, or has another form.
        """
        place, size = int(self.place_B[b]), int(self.size_B[b])
        name = f"event {self.event_B[b]}"
        data = _read(self.path, file, place, size)
        if self.method == "json":
            value = parse_json(data, self.path, name)
        else:
            msgpack = import_extra("msgpack", "LMDB files of msgpack need", "data")
            try:
                value = msgpack.unpackb(data)
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise _damaged(self.path, f"{name} is not msgpack: {error}") from None
        tables = {}
        for table, columns in value.items() if isinstance(value, dict) else [("", 0)]:
            if table == NO_TABLE:
                columns = {}
            if not isinstance(columns, dict) or not all(
                isinstance(values, list) and isinstance(column, str)
                for column, values in columns.items()
            ):
                raise ValueError(
                    f"{self.path}, {name} must be tables of columns by name, as of "
                    f"LMDBWriter, {{table: {{column: [values]}}}}, found "
                    f"{repr(value)[:60]}"
                )
            lengths = {column: len(values) for column, values in columns.items()}
            if len({*lengths.values()}) > 1:
                raise ValueError(
                    f"{self.path}, {name}: columns of table {table!r} must have the "
                    f"same length, found {lengths}"
                )
            tables[table] = columns
        return tables


def _read_tables(
    path: Path, key: str, seen: Types
) -> tuple[LmdbTable, dict[str, LmdbTable]]:
    """Return the events of a file, and its tables by name, without types.

    The types of the values are added to those that were seen before.
    """
    found, method = list[tuple[int, int, int]](), None
    with open(path, "rb") as file:
        for entry, place, size in _entries(path, file):
            if entry == SERIALIZATION:
                text = _read(path, file, place, min(size, 20))
                method = text.decode(errors="replace")
            elif NUMBER.fullmatch(entry) and LEAST <= int(entry) <= GREATEST:
                found.append((int(entry), place, size))
            elif not entry.startswith(FURTHER):
                raise ValueError(
                    f"{path}: keys must be event numbers, as of LMDBWriter, found "
                    f"{entry!r}"
                )
        if method not in ("json", "msgpack"):
            raise ValueError(
                f"{path}: serialization must be json or msgpack, found {method!r}. "
                "Others could run code of the file. Write it again with "
                "LMDBWriter(serialization='msgpack'), or as SQLite or parquet"
            )
        event_B, place_B, size_B = np.array(sorted(found), np.int64).reshape(-1, 3).T
        events = LmdbTable(
            path=path,
            table="",
            types={key: import_pyarrow().int64()},
            key=key,
            method=method,
            event_B=event_B,
            place_B=place_B,
            size_B=size_B,
            count_B=np.ones(len(event_B), np.int64),
        )
        rows: dict[str, list[tuple[int, int]]] = {}
        for b, event in enumerate(events.event_B.tolist()):
            for name, columns in events.read(file, b).items():
                count = len(next(iter(columns.values()), ()))
                if columns.get(key, [event] * count) != [event] * count:
                    raise ValueError(
                        f"{path}, event {event}: column {key!r} of table {name!r} must "
                        f"be {event}, found another number"
                    )
                if count:
                    _note_types(seen.setdefault(name, {}), columns, event)
                    rows.setdefault(name, []).append((b, count))
                elif name == NO_TABLE:
                    seen[name] = {}
    tables = {}
    for name, pairs in rows.items():
        b, count_B = np.array(pairs, np.int64).T
        tables[name] = replace(events.some(b), table=name, count_B=count_B)
    return events, tables


def _note_types(
    known: dict[str, dict[Any, int]], columns: dict[str, list[Any]], event: int
) -> None:
    """Add the types of the columns of a table in an event; also missing columns."""
    before = next(iter(next(iter(known.values()), {}).values()), None)
    for column in {**known, **columns}:
        found = known.setdefault(column, {} if before is None else {"nothing": before})
        kinds = map(type, columns[column]) if column in columns else ["nothing"]
        for kind in {*kinds} - {type(None)}:
            found.setdefault(kind, event)


def _arrow_types(known: dict[str, dict[Any, int]]) -> dict[str, Any]:
    """Return the Arrow type of each column; mixed types give a union naming them."""
    pa, types = import_pyarrow(), {}
    for column, found in known.items():
        kinds = {*found} or {float}  # if all values are null
        if kinds == {int, float}:
            kinds = {float}
        if len(kinds) == 1 and kinds <= TYPES.keys():
            types[column] = pa.type_for_alias(TYPES[kinds.pop()])
            continue
        names = [
            f"{getattr(kind, '__name__', kind)} in event {event}"
            for kind, event in found.items()
        ]
        types[column] = pa.sparse_union([pa.field(name, pa.null()) for name in names])
    return types


def _files_of(path: Path) -> list[Path]:
    """Return the files of a path; ValueError if there are none."""
    if not path.is_dir():
        return [path]
    inside = [path, *sorted(path.iterdir())]
    files = [folder / LMDB_FILE for folder in inside if (folder / LMDB_FILE).exists()]
    files = files or [
        f for f in inside if f.suffix in SUFFIXES["graphnet-lmdb"] and f.is_file()
    ]
    if not files:
        raise ValueError(f"{path} has no LMDB file {LMDB_FILE} or X.lmdb/{LMDB_FILE}")
    return files


def _entries(path: Path, file: Any) -> Iterator[tuple[bytes, int, int]]:
    """Yield the keys in order, with place and size of their values [bytes]."""
    num, last, num_bytes = 0, b"", 0
    try:
        page_size = _META.unpack(_read(path, file, 0, _META.size))[2]
        pages = (_read(path, file, at, _META.size) for at in (0, page_size))
        metas = [_META.unpack(page) for page in pages]
        if any(meta[:2] != (_MAGIC, _VERSION) for meta in metas):
            raise _damaged(path, f"it is not LMDB of version {_VERSION}")
        *_, flags, depth, count, root, _ = max(metas, key=lambda meta: meta[-1])
        if flags:
            raise _damaged(path, f"the flags of its tree must be 0, found {flags}")
        none = root == _NO_ROOT
        for key, place, size in (
            () if none else _walk(path, file, page_size, root, depth)
        ):
            num, num_bytes = num + 1, num_bytes + size
            if key <= last or num_bytes > os.fstat(file.fileno()).st_size:
                raise _damaged(path, f"key {key!r} must not follow {last!r}")
            last = key
            yield key, place, size
    except struct.error as error:
        raise _damaged(path, str(error)) from None
    if num != count:
        raise _damaged(path, f"it must have {count} keys, found {num}")


def _walk(
    path: Path, file: Any, page_size: int, number: int, depth: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the entries of a page and of those below it.

    Each page has a key, so the walk ends also in a damaged file.
    """
    first, kind = number * page_size, _LEAF if depth == 1 else _BRANCH
    page = _read(path, file, first, page_size)
    found, flags, lower, _ = _PAGE.unpack_from(page)
    places = page[_PAGE.size : lower]
    if (found, flags) != (number, kind) or not places or depth > _DEEPEST:
        raise _damaged(path, f"page {number} does not belong to its tree")
    for (at,) in struct.iter_unpack("<H", places):
        low, high, flags, key_size = _ENTRY.unpack_from(page, at)
        size, start = low | high << 16, at + _ENTRY.size + key_size
        key = page[at + _ENTRY.size : start]
        if kind == _BRANCH:
            yield from _walk(path, file, page_size, size | flags << 32, depth - 1)
        elif not flags and len(key) == key_size and start + size <= page_size:
            yield key, first + start, size
        elif flags == _LONG:  # the value has its own pages
            (number,) = struct.unpack_from("<Q", page, start)
            head = _read(path, file, number * page_size, _PAGE.size)
            if _PAGE.unpack(head)[:2] != (number, _VALUE):
                raise _damaged(path, f"page {number} is not one of a value")
            yield key, number * page_size + _PAGE.size, size
        else:
            raise _damaged(path, f"entry {at} of page {number} is not valid")


def _read(path: Path, file: Any, place: int, size: int) -> bytes:
    """Return bytes of a file; ValueError if it is too short."""
    if place + size > (there := os.fstat(file.fileno()).st_size):
        raise _damaged(path, f"it must have {place + size} bytes, found {there}")
    file.seek(place)
    data: bytes = file.read(size)
    return data


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is damaged or incomplete: {why}. Copy it again")
