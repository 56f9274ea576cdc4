"""Arrow columns as numpy arrays, looked at so that errors name file and row.

Rows are counted from 0, as pandas counts them. Shape letters: T rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow


class Place(Protocol):
    """What values were read from, for messages."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def at(self, row: int) -> str:
        """Return what messages call a row."""


@contextmanager
def naming_damage(name: str) -> Iterator[None]:
    """Say which file it was if pyarrow cannot read it.

    Raises:
        ValueError: The file is damaged, or of another format.
    """
    pa = import_pyarrow()
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # The system's errors have a number: no such file, no rights, a broken disk.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{name} cannot be read: it is damaged, truncated or no parquet file "
            f"({str(error).strip()})"
        ) from None


def plain_type(arrow_type: Any) -> Any:
    """Return the type of the values: of an extension's storage, of a dictionary's."""
    pa = import_pyarrow()
    while isinstance(arrow_type, pa.BaseExtensionType):
        arrow_type = arrow_type.storage_type
    if pa.types.is_dictionary(arrow_type):
        return plain_type(arrow_type.value_type)
    return arrow_type


def plain(array: Any) -> Any:
    """Return an Arrow array without extension type and dictionary."""
    pa = import_pyarrow()
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    return array


def is_number(arrow_type: Any) -> bool:
    """Tell whether values are integers, floats or booleans."""
    types, kind = import_pyarrow().types, plain_type(arrow_type)
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    )


def is_string(arrow_type: Any) -> bool:
    """Tell whether values are strings."""
    return str(plain_type(arrow_type)) in ("string", "large_string", "string_view")


def is_list(arrow_type: Any) -> bool:
    """Tell whether values are lists of any length."""
    types, kind = import_pyarrow().types, plain_type(arrow_type)
    return bool(types.is_list(kind) or types.is_large_list(kind))


def no_values(arrow_type: Any) -> NDArray[Any]:
    """Return an empty array of the numpy type that `values_of` gives."""
    empty = import_pyarrow().array([], plain_type(arrow_type))
    values: NDArray[Any] = empty.to_numpy(zero_copy_only=False)
    return values


def values_of(
    array: Any, column: str, place: Place, first_row: int, *, nan: bool = False
) -> NDArray[Any]:
    """Return an Arrow array of numbers, booleans or strings as numpy.

    Args:
        array: (T,) Arrow array.
        column: What messages call it.
        place: Where it was read.
        first_row: Row of the file that the first value stands in.
        nan: A null among floats becomes NaN, which pandas writes as null.

    Raises:
        ValueError: A null.
    """
    array = plain(array)
    if not (nan and import_pyarrow().types.is_floating(array.type)):
        check_no_null(array, column, place, first_row)
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def ids_of(array: Any, column: str, place: Place, first_row: int) -> NDArray[np.int64]:
    """Return an Arrow array of event_ids as (T,) int64.

    Raises:
        ValueError: No integers, a null, or one that int64 cannot hold.
    """
    if not import_pyarrow().types.is_integer(plain_type(array.type)):
        raise ValueError(
            f"{place.name}: column {column!r} names the event and must hold integers; "
            f"it holds {array.type}"
        )
    ids_T = values_of(array, column, place, first_row)
    if ids_T.dtype == np.uint64 and (ids_T > np.iinfo(np.int64).max).any():
        row = int(ids_T.argmax())
        raise ValueError(
            f"{place.at(first_row + row)}: column {column!r} is {ids_T[row]}, more "
            "than int64 can hold"
        )
    return ids_T.astype(np.int64)


def check_no_null(array: Any, column: str, place: Place, first_row: int) -> None:
    """See that no value is null.

    Raises:
        ValueError: One is; names file and row.
    """
    if array.null_count:
        row = first_row + int(np.asarray(array.is_null()).argmax())
        raise ValueError(
            f"{place.at(row)}: column {column!r} is null ({array.null_count} of the "
            f"{len(array)} rows read are)"
        )


def check_finite(
    values: NDArray[Any], column: str, place: Place, first_row: int
) -> None:
    """See that angles are finite or NaN, which says that there is none.

    Raises:
        ValueError: One is not; names file and row.
    """
    if values.dtype.kind == "f" and (infinite := np.isinf(values)).any():
        row = int(infinite.argmax())
        raise ValueError(
            f"{place.at(first_row + row)}: angle {column!r} is {values[row]}; it must "
            "be finite"
        )


def nan_note(values: NDArray[Any], column: str, name: str) -> tuple[str, ...]:
    """Return a note on NaN in a column of truth, if there is any."""
    unknown = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if not unknown:
        return ()
    return (
        f"{name}: column {column!r} is null or NaN in {unknown} of {len(values)} "
        "rows; kept as NaN",
    )
