"""Rows: dataclasses of arrays that share their first axis, such as particles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 or float64; results have the same type
Index = NDArray[np.int64]
AnyRows = TypeVar("AnyRows", bound="Rows")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Arrays with a common first axis; a subclass has a field for each."""

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return len(getattr(self, fields(self)[0].name))

    def take(self: AnyRows, index: Any) -> AnyRows:
        """Return some of the rows, by number or by mask."""
        return type(self)(
            **{f.name: getattr(self, f.name)[index] for f in fields(self)}
        )

    @classmethod
    def join(cls: type[AnyRows], pieces: Sequence[AnyRows]) -> AnyRows:
        """Return the rows of several objects, one after the other."""
        names = [entry.name for entry in fields(cls)]
        return cls(
            **{n: np.concatenate([getattr(p, n) for p in pieces]) for n in names}
        )
