"""Where in a flat table the rows of each event are.

Shape letters: T rows, B events, R runs of rows with one event_id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.store.readers.source import Runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where the rows of each event of a part are.

    Args:
        runs: Each event once.
        skipped: Rows before the first event, where no order is needed.
        order_T: (T,) rows in the order of the events, or None where they are in it.
        scattered: The event_ids whose rows were not together.
    """

    runs: Runs
    skipped: int = 0
    order_T: NDArray[np.int64] | None = None
    scattered: NDArray[np.int64]

    @classmethod
    def of(cls, runs: Runs, id_range: tuple[int, int] | None) -> Layout:
        """Find out, for the events whose ids are in a range or for all."""
        inside_R = _inside(runs.event_id, id_range)
        kept = np.flatnonzero(inside_R)
        if not len(kept):
            return cls(runs=Runs.of([]), scattered=kept)
        begin, end = int(kept[0]), int(kept[-1]) + 1
        skipped = int(runs.offsets[begin])
        ours = Runs(
            event_id=runs.event_id[begin:end],
            offsets=runs.offsets[begin : end + 1] - skipped,
        )
        scattered = ours.scattered()
        if len(kept) == end - begin and not len(scattered):
            return cls(runs=ours, skipped=skipped, scattered=scattered)
        scattered = scattered[_inside(scattered, id_range)]
        all_runs, order_T = runs.gathered()
        inside_B = _inside(all_runs.event_id, id_range)
        lengths = np.diff(all_runs.offsets)
        runs = Runs(
            event_id=all_runs.event_id[inside_B],
            offsets=np.append(0, np.cumsum(lengths[inside_B])),
        )
        order_T = order_T[np.repeat(inside_B, lengths)]
        return cls(runs=runs, order_T=order_T, scattered=scattered)


def _inside(
    event_id: NDArray[np.int64], id_range: tuple[int, int] | None
) -> NDArray[np.bool_]:
    if id_range is None:
        return np.ones(len(event_id), bool)
    return (event_id >= id_range[0]) & (event_id <= id_range[1])
