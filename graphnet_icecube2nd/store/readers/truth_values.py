"""Values of truth that were read: angles are finite, and NaN is spoken of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_truth_values(
    truth: Mapping[str, NDArray[Any]],
    event_id: NDArray[np.int64],
    angles: Collection[str],
    place: str,
) -> tuple[str, ...]:
    """See that angles are finite numbers; return notes on NaN in other columns.

    Args:
        truth: (B,) by column.
        event_id: (B,) events, for messages.
        angles: Columns of the angles.
        place: What messages call the table.

    Raises:
        ValueError: One is not; names event and column.
    """
    notes = []
    for column, values in truth.items():
        if column in angles and values.dtype.kind not in "iuf":
            raise ValueError(
                f"{place}: angle {column!r} must be numbers, got {values.dtype}"
            )
        if values.dtype.kind != "f" or bool((finite_B := np.isfinite(values)).all()):
            continue
        if column in angles:
            event = int(np.flatnonzero(~finite_B)[0])
            raise ValueError(
                f"{place}, event {event_id[event]}: angle {column!r} is "
                f"{values[event]}; it must be finite"
            )
        if unknown := int(np.isnan(values).sum()):
            notes.append(
                f"{place}: column {column!r} is NULL or NaN in {unknown} of "
                f"{len(values)} rows; kept as NaN"
            )
    return tuple(notes)
