"""Arrow files: their columns on a memory map, and their writing.

A file is in Arrow's IPC format, with one uncompressed record batch. Each column is one
contiguous piece of the file, so numpy and torch use it directly, and a table of any
size needs no memory. pyarrow writes the files and reads their structure. Shape letters:
R rows.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.lazy import import_extra


def import_pyarrow() -> Any:
    """Return pyarrow, with `pyarrow.ipc`.

    Raises:
        ImportError: pyarrow is not installed; the message names the extra.
    """
    import_extra("pyarrow.ipc", "event stores need", "data")
    return sys.modules["pyarrow"]


class MappedTable:
    """The columns of an Arrow file on a memory map.

    Numbers are arrays on a private map of the file: torch uses them without a copy, and
    changes of an array never reach the file.

    Args:
        path: The file.
        types: Types that the columns must have, numpy's names or `string`; None for
            any.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not such a table, or contradicts itself.
    """

    def __init__(
        self, path: str | os.PathLike[str], types: Mapping[str, str] | None = None
    ) -> None:
        pa = import_pyarrow()
        self.path = Path(path)
        try:
            raw = np.memmap(self.path, dtype=np.uint8, mode="c")
            reader = pa.ipc.open_file(pa.py_buffer(raw))
            if reader.num_record_batches != 1:
                raise ValueError(f"it has {reader.num_record_batches} record batches")
            batch = reader.get_batch(0)
            batch.validate(full=True)
            found = {field.name: _type_name(field.type) for field in batch.schema}
            if types is not None and (found != types or len(found) < len(batch.schema)):
                raise ValueError(f"its columns are {found}, not {dict(types)}")
            self._arrays = {
                name: _on_map(raw, column)
                for name, column in zip(found, batch.columns, strict=True)
                if found[name] != "string" and np.dtype(found[name]).kind in "iuf"
            }
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            text = " ".join(str(error).split())
            raise ValueError(
                f"{self.path} is damaged: it is not a complete table of an event "
                f"store: {text}"
            ) from None
        self.num_rows: int = batch.num_rows
        self._batch = batch

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self._batch.schema.names)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column, (R,): numbers on the map, other values as objects.

        Raises:
            ValueError: The table lacks the column.
        """
        if name in self._arrays:
            return self._arrays[name]
        if name not in self.names:
            raise ValueError(
                f"{self.path} has no column {name!r}; it has {', '.join(self.names)}"
            )
        column: NDArray[Any] = self._batch.column(name).to_numpy(zero_copy_only=False)
        return column

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows of a column; only these texts become objects."""
        if name in self._arrays or name not in self.names:
            return self.column(name)[rows]
        taken: NDArray[Any] = (
            self._batch.column(name).take(rows).to_numpy(zero_copy_only=False)
        )
        return taken


def write_table(path: Path, columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Write columns of one length as an Arrow file, and wait until it is on disk.

    Args:
        path: The file.
        columns: The columns, (R,) by name.

    Returns:
        Size and checksum of the file, as `bytes` and `sha256`.
    """
    pa = import_pyarrow()
    arrays = [pa.array(column) for column in columns.values()]
    batch = pa.record_batch(arrays, names=list(columns))
    with _HashingFile(path) as file:
        sink = pa.PythonFile(file, "w")  # closes the file when it is deleted
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": file.digest.hexdigest()}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**16):
            digest.update(piece)
    return digest.hexdigest()


class _HashingFile(io.BufferedWriter):
    """A new file with the checksum of the written data."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return super().write(data)


def _on_map(raw: NDArray[np.uint8], column: Any) -> NDArray[Any]:
    """Return an Arrow column of numbers as an array on the map of the file."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    data = column.buffers()[1]
    if column.null_count:
        raise ValueError("a column of numbers has nulls")
    if data is None or len(column) == 0:
        return np.empty(0, dtype)
    first = data.address - raw.ctypes.data + column.offset * dtype.itemsize
    stop = first + len(column) * dtype.itemsize
    if not 0 <= first <= stop <= len(raw):
        raise ValueError("a column is compressed")  # because it is not on the map
    return raw[first:stop].view(dtype).view(np.ndarray)


def _type_name(kind: Any) -> str:
    """Return numpy's name of an Arrow type, or `string`."""
    return "string" if str(kind) == "string" else str(np.dtype(kind.to_pandas_dtype()))
