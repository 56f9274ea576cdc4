"""Columns inside the structs of a nested file as numpy arrays.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.arrow_values import plain, values_of


def child_of(batch: Any, struct: str, name: str, first_row: int) -> Any:
    """Return a struct of a record batch.

    Raises:
        ValueError: It is null in a row.
    """
    array = plain(batch.column(batch.schema.get_field_index(struct)))
    _check_no_null(array, struct, name, first_row)
    return array


def scalar_values(
    struct: Any, column: str, name: str, first_row: int, *, nan: bool
) -> NDArray[Any]:
    """Return a column with one value an event, (B,); arguments as `values_of`."""
    return values_of(struct.field(column), column, name, first_row, nan=nan)


def list_values(
    struct: Any, columns: Sequence[str], name: str, first_row: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Return lists one after the other, (T,) by column, and borders (B + 1,).

    Raises:
        ValueError: Lists of one event differ in length, or something is null.
    """
    values: dict[str, NDArray[Any]] = {}
    offsets: NDArray[np.int64] = np.zeros(1, np.int64)
    for column in columns:
        array = plain(struct.field(column))
        _check_no_null(array, column, name, first_row)
        own = array.offsets.to_numpy().astype(np.int64)
        flat = plain(array.values.slice(own[0], own[-1] - own[0]))
        own = own - own[0]
        if flat.null_count:
            null_T = flat.is_null().to_numpy(zero_copy_only=False)
            event = int(np.searchsorted(own, null_T.argmax(), side="right")) - 1
            raise ValueError(
                f"{name}, row {first_row + event}: the list {column!r} holds a null"
            )
        if not values:
            offsets = own
        elif not np.array_equal(own, offsets):
            lengths, first = np.diff(own), np.diff(offsets)
            event = int((lengths != first).argmax())
            raise ValueError(
                f"{name}, row {first_row + event}: the list {column!r} has "
                f"{lengths[event]} values, but {columns[0]!r} has {first[event]}"
            )
        values[column] = values_of(flat, column, name, 0)
    return values, offsets


def _check_no_null(array: Any, column: str, name: str, first_row: int) -> None:
    if array.null_count:
        null_B = array.is_null().to_numpy(zero_copy_only=False)
        row = first_row + int(null_B.argmax())
        raise ValueError(f"{name}, row {row}: {column!r} is null")
