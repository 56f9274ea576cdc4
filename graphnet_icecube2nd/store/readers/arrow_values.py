"""Arrow columns as numpy arrays, looked at so that errors name file and row.

Rows are counted from 0, as pandas counts them. Shape letters: T rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.arrow_table import import_pyarrow


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
    return values_of(import_pyarrow().array([], plain_type(arrow_type)), "", "", 0)


def values_of(
    array: Any, column: str, name: str, first_row: int, *, nan: bool = False
) -> NDArray[Any]:
    """Return an Arrow array of numbers, booleans or strings as numpy.

    Args:
        array: (T,) Arrow array.
        column: What messages call it.
        name: What messages call the file.
        first_row: Row of the file that the first value stands in.
        nan: A null among floats becomes NaN, which pandas writes as null.

    Raises:
        ValueError: A null.
    """
    pa = import_pyarrow()
    array = plain(array)
    if array.null_count and not (nan and pa.types.is_floating(array.type)):
        null_T = array.is_null().to_numpy(zero_copy_only=False)
        raise ValueError(
            f"{name}, row {first_row + int(null_T.argmax())}: column {column!r} is "
            f"null ({array.null_count} of the {len(array)} rows from row {first_row} "
            "on are)"
        )
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def ids_of(array: Any, column: str, name: str, first_row: int) -> NDArray[np.int64]:
    """Return an Arrow array of event_ids as (T,) int64.

    Raises:
        ValueError: No integers, a null, or one that int64 cannot hold.
    """
    types = import_pyarrow().types
    if not types.is_integer(plain_type(array.type)):
        raise ValueError(
            f"{name}: column {column!r} names the event and must hold integers; it "
            f"holds {array.type}"
        )
    ids_T = values_of(array, column, name, first_row)
    too_large_T = ids_T > np.iinfo(np.int64).max if ids_T.dtype == np.uint64 else None
    if too_large_T is not None and too_large_T.any():
        row = int(too_large_T.argmax())
        raise ValueError(
            f"{name}, row {first_row + row}: column {column!r} is {ids_T[row]}, more "
            "than int64 can hold"
        )
    return ids_T.astype(np.int64)
