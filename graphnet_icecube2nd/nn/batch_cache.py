"""What several models make of the same batch, made once.

Members of an ensemble differ in weights, but the sinusoids of the pulses' features and
of the intervals between them, and the first graph of the hybrids, depend on the batch
alone. Models that are given the same `BatchCache` for a batch make these once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

BatchCache = dict[Hashable, Any]  # one for each batch; keys say what a value is
Made = TypeVar("Made")


def once(shared: BatchCache | None, key: Hashable, make: Callable[[], Made]) -> Made:
    """Return the value of a key, made now if it is new or nothing is shared."""
    if shared is None:
        return make()
    if key not in shared:
        shared[key] = make()
    made: Made = shared[key]
    return made
