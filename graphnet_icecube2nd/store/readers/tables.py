"""Tables of files or in memory, read piece by piece as numpy columns.

Large files are not loaded at once: row groups without the wanted values are skipped by
their statistics, and the others are read in batches. Rows are counted from 0, as in
pandas. Shape letters: T rows, R runs of rows with one event_id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.source import fingerprint_of_fields

BATCH_ROWS = 2**18
# Limits that protect the memory: a file must not have more values than the first, and
# at the same time more values per byte than the second.
SMALL_VALUES, MOST_VALUES = 2**24, 256
# Bytes of one text; bytes of all texts of a column, and then bytes per text.
LONG_TEXT, SMALL_TEXTS, MEAN_TEXT = 2**16, 2**28, 256
# Runs of rows with one event_id: event_id, first row and number of rows, (R,) each.
Runs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
LEAST, GREATEST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


class Table(ABC):
    """A table of rows, with one type per column.

    Attributes:
        name: Name for messages.
        types: Arrow type of each column.
        num_rows: Number of rows, None if not known before.
        has_rows: Whether numbers of rows have a meaning for the user.
        for_threads: Whether reading releases the interpreter most of the time.
    """

    name: str
    types: Mapping[str, Any]
    num_rows: int | None
    has_rows = True
    for_threads = True

    @abstractmethod
    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns.

        Rows before `start` may be left out.
        """

    def arrays(
        self, columns: Sequence[str], *, nan: Collection[str] = (), start: int = 0
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Yield first row and columns, (T,) each, piece by piece.

        Args:
            columns: Columns to read.
            nan: Columns in which null becomes NaN. Integers with a null become floats,
                if floats can represent them.
            start: Rows before may be left out.

        Raises:
            ValueError: There is another null, or a text is too long; the message names
                file and row.
        """
        pa = import_pyarrow()
        floating, text_bytes = pa.types.is_floating, dict.fromkeys(columns, 0)
        for first, batch in self.batches(columns, start):
            arrays = {}
            for column in columns:
                array = batch.column(column)
                if is_string(array.type):
                    text_bytes[column] += self._check_texts(array, column, first)
                    rows = first + len(batch)
                    check_total(text_bytes[column], rows, f"{self.name}: {column!r}")
                array = plain(array)
                may_be_nan = column in nan and is_number(array.type)
                if array.null_count and may_be_nan and not floating(array.type):
                    with suppress(pa.ArrowInvalid):  # an integer too large for a float
                        array = array.cast(pa.float64())
                if array.null_count and not (may_be_nan and floating(array.type)):
                    null = first + int(np.asarray(array.is_null()).argmax())
                    raise ValueError(
                        f"{self.at(null)}: column {column!r} must not be null, found "
                        f"null in {array.null_count} of {len(array)} rows"
                    )
                arrays[column] = array.to_numpy(zero_copy_only=False)
            yield first, arrays

    def _check_texts(self, array: Any, column: str, row: int) -> int:
        """Return the bytes of texts; ValueError if one is too long."""
        pa = import_pyarrow()
        import pyarrow.compute as pc

        array = _storage(array)
        texts = array.dictionary if pa.types.is_dictionary(array.type) else array
        length = pc.binary_length(texts.cast(pa.large_string()))
        if texts is not array:
            length = length.take(array.indices)
        if (longest := pc.max(length).as_py() or 0) > LONG_TEXT:
            raise ValueError(
                f"{self.at(row + pc.index(length, longest).as_py())}: texts of column "
                f"{column!r} must have at most {LONG_TEXT} bytes, found more. "
                "Shorten the text, or remove the column from the file"
            )
        return pc.sum(pc.cast(length, pa.int64())).as_py() or 0

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that change if the rows change."""
        return fingerprint_of_fields(self)

    def within(self, column: str, low: int, high: int) -> Table:
        """Return a table with all rows whose integer `column` is low to high.

        It may have other rows, too.
        """
        return self

    def at(self, row: int) -> str:
        """Return the text for a row, for messages."""
        return f"{self.name}, row {row}"

    def ids(self, column: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield first row and event_ids, (T,), piece by piece."""
        for row, arrays in self.arrays([column]):
            yield row, self.as_ids(arrays[column], column, row)

    def whole(self, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return whole columns, (T,) each."""
        pieces = [{column: no_values(self.types[column]) for column in columns}]
        pieces += [arrays for _, arrays in self.arrays(columns)]
        return {c: np.concatenate([piece[c] for piece in pieces]) for c in columns}

    def runs(self, column: str) -> Runs:
        """Return the runs of rows with one event_id."""
        none = np.empty(0, np.int64)
        ids, firsts, stops = [none], [none], [none]
        for row, piece in self.ids(column):
            ends = np.flatnonzero(piece[1:] != piece[:-1]) + 1
            begins = np.append(0, ends)[: len(piece)]
            ids.append(piece[begins])
            firsts.append(begins + row)
            stops.append(np.append(ends, len(piece))[: len(piece)] + row)
        id_R, first_R, stop_R = map(np.concatenate, (ids, firsts, stops))
        # A run may go on in the next piece.
        new_R = np.append(True, (id_R[1:] != id_R[:-1]) | (first_R[1:] != stop_R[:-1]))
        new_R = new_R[: len(id_R)]
        last_R = np.append(new_R[1:], True)[: len(id_R)]
        first_R = first_R[new_R]
        return id_R[new_R], first_R, stop_R[last_R] - first_R

    def as_ids(self, values: NDArray[Any], column: str, row: int) -> NDArray[np.int64]:
        """Return values as event_ids, (T,).

        Args:
            values: The values, (T,).
            column: Their column, for messages.
            row: Their first row, for messages.

        Raises:
            ValueError: The values are not integers, or do not fit into int64.
        """
        if values.dtype.kind not in "iu":
            raise ValueError(
                f"{self.name}: event column {column!r} must have integers, found "
                f"{self.types[column]}"
            )
        if values.dtype == np.uint64 and (values > GREATEST).any():
            large = int(values.argmax())
            raise ValueError(
                f"{self.at(row + large)}: event column {column!r} must fit into int64, "
                f"found {values[large]}"
            )
        return values.astype(np.int64)

    def check_angle(self, values: NDArray[Any], column: str, row: int) -> None:
        """Check that angles are finite, or NaN if there is none; else ValueError."""
        if values.dtype.kind == "f" and (infinite := np.isinf(values)).any():
            first = int(infinite.argmax())
            raise ValueError(
                f"{self.at(row + first)}: angle {column!r} must be finite, found "
                f"{values[first]}"
            )


@dataclass(frozen=True, kw_only=True)
class JoinedTable(Table):
    """Several tables of pulses of the same events, each read by itself."""

    tables: tuple[Table, ...]
    time: str  # the column by which pulses of an event are sorted

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the tables for messages."""
        return " and ".join(table.name for table in self.tables)

    @cached_property
    def types(self) -> dict[str, Any]:  # type: ignore[override]
        """Arrow type of each column that all tables have."""
        first, *others = (table.types for table in self.tables)
        return {c: k for c, k in first.items() if all(c in types for types in others)}

    @property
    def for_threads(self) -> bool:  # type: ignore[override]
        """Whether reading all tables releases the interpreter most of the time."""
        return all(table.for_threads for table in self.tables)

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """Number of rows of all tables."""
        numbers = [table.num_rows for table in self.tables]
        return None if None in numbers else sum(filter(None, numbers))

    def batches(self, columns: Sequence[str], start: int = 0) -> Any:
        """Yield the record batches of one table after the other."""
        return chain.from_iterable(table.batches(columns) for table in self.tables)

    def within(self, column: str, low: int, high: int) -> Table:
        """Return tables with fewer rows, see `Table.within`."""
        fewer: Table = each_of(self, lambda table: table.within(column, low, high))
        return fewer


def each_of(table: Table, change: Callable[[Any], Any]) -> Any:
    """Return the result of a function for a table, or for each of joined tables."""
    if isinstance(table, JoinedTable):
        return replace(table, tables=tuple(map(change, table.tables)))
    return change(table)


def members_of(table: Table) -> tuple[Table, ...]:
    """Return the tables that are read one by one."""
    return table.tables if isinstance(table, JoinedTable) else (table,)


@dataclass(frozen=True, kw_only=True)
class ParquetTable(Table):
    """A parquet file, or some of its row groups."""

    path: Path
    name: str  # for messages
    groups: tuple[int, ...] | None = None  # row groups; None for all

    @cached_property
    def types(self) -> dict[str, Any]:  # type: ignore[override]
        """Arrow type of each column."""
        with opened_parquet(self.path, self.name) as file:
            return {field.name: field.type for field in file.schema_arrow}

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Number of rows of the row groups."""
        return sum(group.num_rows for group in self.row_groups())

    def batches(
        self, columns: Sequence[str], start: int = 0, values: int = BATCH_ROWS
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns.

        A batch has about `values` values per column, which in lists are more than rows.
        """
        groups = [g for g in self.row_groups() if g.first + g.num_rows > start]
        with opened_parquet(self.path, self.name, columns) as file:
            for group in groups:
                row, stop = group.first, group.first + group.num_rows
                most = max(
                    _num_values(file.metadata.row_group(group.number)), default=1
                )
                for batch in file.iter_batches(
                    max(1, values * group.num_rows // max(1, most)),
                    row_groups=[group.number],
                    columns=list(columns),
                    use_threads=False,  # parts are read side by side
                ):
                    yield row, batch
                    row += len(batch)
                if row != stop:
                    raise ValueError(
                        f"{self.name} is damaged: row group {group.number} must end at "
                        f"row {stop}, found {row}"
                    )

    def row_groups(self, column: str = "") -> list[RowGroup]:
        """Return the row groups, with bounds of an integer column."""
        groups, first = list[RowGroup](), 0
        with opened_parquet(self.path, self.name) as file:
            for index in range(file.num_row_groups):
                group = file.metadata.row_group(index)
                low, high = (LEAST, GREATEST) if group.num_rows else (GREATEST, LEAST)
                for chunk in map(group.column, range(group.num_columns)):
                    ends = chunk.path_in_schema == column and chunk.statistics
                    if ends and isinstance(ends.min, int) and isinstance(ends.max, int):
                        # Unsigned values above int64 are found by who reads them.
                        low = min(max(low, ends.min), GREATEST)
                        high = min(high, ends.max)
                if self.groups is None or index in self.groups:
                    groups.append(RowGroup(index, first, group.num_rows, low, high))
                first += group.num_rows
        return groups

    def within(self, column: str, low: int, high: int) -> ParquetTable:
        """Leave out the row groups that have no value of low to high."""
        groups = self.row_groups(column)
        fitting = [g.number for g in groups if g.low <= high and g.high >= low]
        return replace(self, groups=tuple(fitting))


class RowGroup(NamedTuple):
    """A row group of a parquet file."""

    number: int
    first: int  # row
    num_rows: int
    # Bounds of a column's values: all integers if they are not known, and the least
    # above the greatest if there is no row.
    low: int
    high: int


@contextmanager
def opened_parquet(
    path: Path, name: str, columns: Collection[str] = ()
) -> Iterator[Any]:
    """Open a parquet file for reading columns piece by piece.

    Texts are read as dictionaries, so that a repeated text needs memory once.
    """
    import_pyarrow()
    import pyarrow.parquet

    # With a buffer, pyarrow does not load a whole column of a row group.
    how: dict[str, Any] = {"buffer_size": 2**20, "page_checksum_verification": True}
    with ExitStack() as stack:
        stack.enter_context(naming_damage(name))
        file = stack.enter_context(pyarrow.parquet.ParquetFile(path, **how))
        paths = [file.schema.column(i).path for i in range(len(file.schema))]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(
                f"{name}: names of columns must be different, found {', '.join(twice)} "
                "more than once"
            )
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        num_values = sum(sum(_num_values(group)) for group in groups)
        if num_values > max(SMALL_VALUES, MOST_VALUES * path.stat().st_size):
            raise ValueError(
                f"{name} cannot be read: {num_values} values in "
                f"{path.stat().st_size} bytes are more than measurements can have"
            )
        texts = []
        for index, leaf in enumerate(paths):
            is_text = file.schema.column(index).physical_type == "BYTE_ARRAY"
            if is_text and leaf.partition(".")[0] in columns:
                texts.append(leaf)
                for group in map(file.metadata.row_group, range(file.num_row_groups)):
                    chunk = group.column(index)
                    size = chunk.total_uncompressed_size
                    check_total(size, chunk.num_values, f"{name}: {leaf!r}")
        if texts:
            how |= {"metadata": file.metadata, "read_dictionary": texts}
            file = stack.enter_context(pyarrow.parquet.ParquetFile(path, **how))
        yield file


def check_total(num_bytes: int, num_texts: int, name: str) -> None:
    """Raise ValueError if the texts of a column are too long in total."""
    if num_bytes > max(SMALL_TEXTS, MEAN_TEXT * num_texts):
        raise ValueError(
            f"{name}: texts must have at most {MEAN_TEXT} bytes on average, found "
            f"{num_bytes} bytes in {num_texts} texts. Remove the column from the file"
        )


def _num_values(group: Any) -> list[int]:
    """Return the numbers of values of the columns of a row group."""
    columns = map(group.column, range(group.num_columns))
    return [column.num_values for column in columns]


@contextmanager
def naming_damage(name: str) -> Iterator[None]:
    """Turn pyarrow's errors into ValueErrors that name the file."""
    pa = import_pyarrow()
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        # Errors of the system (missing file, permissions, disk) have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{name} cannot be read: it is damaged, incomplete or not a parquet file "
            f"({str(error).strip()})"
        ) from None


def plain_type(arrow_type: Any) -> Any:
    """Return the type of the values, without extension type and dictionary."""
    pa = import_pyarrow()
    while isinstance(arrow_type, pa.BaseExtensionType):
        arrow_type = arrow_type.storage_type
    if pa.types.is_dictionary(arrow_type):
        return plain_type(arrow_type.value_type)
    return arrow_type


def plain(array: Any) -> Any:
    """Return an Arrow array without extension type and dictionary."""
    array = _storage(array)
    if import_pyarrow().types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    return array


def _storage(array: Any) -> Any:
    """Return an Arrow array without extension type."""
    pa = import_pyarrow()
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array


def is_number(arrow_type: Any) -> bool:
    """Return whether values are integers, floats or booleans."""
    types, kind = import_pyarrow().types, plain_type(arrow_type)
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    )


def is_string(arrow_type: Any) -> bool:
    """Return whether values are strings."""
    return str(plain_type(arrow_type)) in ("string", "large_string", "string_view")


def is_list(arrow_type: Any) -> bool:
    """Return whether values are lists of any length."""
    types, kind = import_pyarrow().types, plain_type(arrow_type)
    return bool(types.is_list(kind) or types.is_large_list(kind))


def is_struct(arrow_type: Any) -> bool:
    """Return whether values are structs."""
    return bool(import_pyarrow().types.is_struct(arrow_type))


def no_values(arrow_type: Any) -> NDArray[Any]:
    """Return an empty array of the numpy type of the values, or of a list's values."""
    kind = plain_type(arrow_type)
    if is_list(kind):
        return no_values(kind.value_type)
    values: NDArray[Any] = (
        import_pyarrow().array([], kind).to_numpy(zero_copy_only=False)
    )
    return values
