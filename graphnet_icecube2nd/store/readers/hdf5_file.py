"""An HDF5 file opened for reading: the tables in it, and slices of their columns.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. Shape letters: R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.tables import Table

TEXT = "text"


def import_h5py() -> Any:
    """Return h5py, or say what needs it.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files need h5py: pip install graphnet-icecube2nd[data]"
        ) from error
    return h5py


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no HDF5 file, damaged or not whole; names it.
    """
    h5py = import_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # h5py has no errors of its own
        raise ValueError(
            f"{path} cannot be read as HDF5: {error}. It may be of another format, or "
            "not a whole copy"
        ) from None


@dataclass(frozen=True, kw_only=True)
class H5Table(Table):
    """A table of an HDF5 file.

    Args:
        name: Its path, without the first slash; `/` for the root.
        columns: Columns of numbers or text, one value a row.
        num_rows: Rows.
        compound: Whether it is one compound dataset.
        types: numpy type by column, `text` of text.
        others: Columns that hold something else.
    """

    num_rows: int
    compound: bool
    types: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def read(
        self, file: Any, columns: Sequence[str], rows: slice
    ) -> dict[str, NDArray[Any]]:
        """Return rows of some columns, (R,) in the machine's byte order."""
        if not columns:
            return {}
        node = file[self.name]
        table = node.fields(list(columns))[rows] if self.compound else None
        made = {}
        for column in columns:
            try:
                values = node[column][rows] if table is None else table[column]
                made[column] = _plain(values)
            except ValueError as error:
                raise ValueError(
                    f"{file.filename}, {self.name!r}, column {column!r}: {error}"
                ) from None
        return made


def find_tables(file: Any, skip: Sequence[str] = ()) -> list[H5Table]:
    """Return the tables of a file.

    A group whose datasets have several lengths is as many tables of one name.

    Args:
        file: The file.
        skip: Groups that are not looked into.
    """
    h5py = import_h5py()
    tables: list[H5Table] = []

    def look(node: Any, name: str) -> None:
        columns: dict[int, dict[str, Any]] = {}
        for key in node:
            child = node.get(key)  # None where a link leads nowhere
            path = f"{name}/{key}" if name else key
            if isinstance(child, h5py.Group):
                # A soft link may lead back to where it is.
                hard = isinstance(node.get(key, getlink=True), h5py.HardLink)
                if hard and path not in skip:
                    look(child, path)
            elif isinstance(child, h5py.Dataset) and child.ndim == 1:
                if child.dtype.names:
                    types = {field: child.dtype[field] for field in child.dtype.names}
                    tables.append(_table(path, types, len(child), True))
                else:
                    columns.setdefault(len(child), {})[key] = child.dtype
        for num_rows, types in columns.items():
            tables.append(_table(name or "/", types, num_rows, False))

    look(file, "")
    return tables


def _table(name: str, types: dict[str, Any], num_rows: int, compound: bool) -> H5Table:
    plain = {column: _type(dtype) for column, dtype in types.items()}
    return H5Table(
        name=name,
        columns=tuple(column for column, type_ in plain.items() if type_),
        num_rows=num_rows,
        compound=compound,
        types={column: type_ for column, type_ in plain.items() if type_},
        others=tuple(column for column, type_ in plain.items() if not type_),
    )


def _type(dtype: Any) -> str:
    """Return the type of what `_plain` makes of a column; nothing if it cannot."""
    if import_h5py().check_string_dtype(dtype) is not None:
        return TEXT
    if dtype.kind not in "biuf" or dtype.shape:
        return ""
    return str(_plain(np.empty(0, dtype)).dtype)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the machine's byte order, and text as Python strings."""
    if values.dtype.kind in "SO":
        texts = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
            for v in values
        ]
        return np.array(texts, dtype=object)
    if values.dtype.itemsize > 8:  # long double, which Arrow does not know
        return values.astype(np.float64)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        # torch does little with unsigned integers
        if len(values) and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{values.max()} is more than int64 can hold")
        return values.astype(np.int64)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def find_column(
    tables: Sequence[H5Table], reference: str, place: str
) -> tuple[H5Table, str]:
    """Return the table and column that a path such as `events/first_pulse` names.

    Raises:
        ValueError: There is none.
    """
    parts = reference.strip("/").split("/")
    name, column = "/".join(parts[:-1]) or "/", parts[-1]
    for table in tables:
        if table.name == name and column in table.columns:
            return table, column
    raise ValueError(
        f"{place} has no dataset or column {reference!r}; there is "
        f"{', '.join(sorted({table.name for table in tables})) or 'nothing'}"
    )
