"""What several models make of the same batch, made once.

Members of an ensemble differ in weights, but the sinusoids of the pulses' features and
of the intervals between them, and the first graph of the hybrids, hang on the batch
alone. Models that are given the same `BatchCache` for a batch make these once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Made = TypeVar("Made")


class BatchCache:
    """What was made of one batch, by what it hangs on. One object for each batch."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made under this key, or make it now."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def once(shared: BatchCache | None, key: Hashable, make: Callable[[], Made]) -> Made:
    """Return `shared.once(key, make)`, or what `make` gives where nothing is shared."""
    return make() if shared is None else shared.once(key, make)
