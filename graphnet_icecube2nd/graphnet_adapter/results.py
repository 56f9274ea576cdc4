"""Results of a GraphNeT pipeline: any direction model, any loader, in one pass.

What GraphNeT's `predict_as_dataframe` is for, which reads the data twice and needs them
in a fixed order. Shape letters: B events.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphnet.models import StandardModel
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import ANGLE_CONVENTIONS
from graphnet_icecube2nd.graphnet_adapter.prediction import (
    EventPredictions,
    direction_columns,
    evaluating,
    event_predictions,
)
from graphnet_icecube2nd.inference.predictor import (
    WINDOW,
    Progress,
)
from graphnet_icecube2nd.inference.reconstruction import Reconstruction
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import (
    Columns,
    check_replaceable,
    format_of,
    write_results,
)
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.direction import (
    CONTOURS,
    checked_contours,
    result_rows,
)


def predict_directions(
    model: StandardModel,
    dataloader: Iterable[Any],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    calibration: KappaCalibration | None = None,
    contours: Sequence[float] = CONTOURS,
    event_column: str = "event_no",
    angles: str = "origin",
    name: str | None = None,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Run a GraphNeT model once over a loader; a row of results for each event.

    Columns as `reconstruct` has them: event_id; direction_x, _y, _z, to where the
    neutrino came from; azimuth, zenith (rad); kappa; radius_50, radius_90 (rad);
    n_pulses, as the batch has it; status: `ok`, `not finite`, or `length 0`. Whatever
    has no direction has NaN (in SQLite NULL).

    Rows stand in the order of the loader, which may shuffle. Events that it drops, as
    GraphNeT's collate function does with those of one pulse, have none. Rows go into
    the file 8192 at a time; beside them memory holds 8 bytes an event.

    Args:
        model: A `StandardModel` of any backbone, one of whose tasks gives a direction
            and kappa, as `DirectionReconstructionWithKappa`. It runs on the device it
            is on, in evaluation mode, and is left as it was.
        dataloader: A loader of GraphNeT or torch, or of `StoreDataModule`. Batches need
            `n_pulses` and the event number.
        out: The file: .parquet, .csv, .db, or `submission.csv`; None: none.
        format: `parquet`, `csv`, `sqlite`, `submission`; default by the ending.
        calibration: Makes kappa and radii honest; see `calibrate_table`.
        contours: Shares of the contours whose radii are columns.
        event_column: What batches call the event number: the dataset's `index_column`.
        angles: What the model was trained to predict. `origin`, as with our
            `direction_label()`: to where the neutrino came from; `flight`: to where it
            flies, then directions are turned round.
        name: What the table is called; default the backbone's class.
        on_progress: Called with new events and pulses.

    Raises:
        ValueError: An event comes twice, a batch lacks event number or pulses, no task
            or several give a direction, an unknown format.
        TypeError: Not a `StandardModel`, or batches that are not PyG's.
        ImportError: pyarrow or sqlite-utils is not installed, and a file is wanted.
    """
    begun = time.monotonic()
    if angles not in ANGLE_CONVENTIONS:
        raise ValueError(
            f"angles must be one of {', '.join(ANGLE_CONVENTIONS)}, got {angles!r}"
        )
    if not (calibration is None or isinstance(calibration, KappaCalibration)):
        raise ValueError(
            f"calibration must be a KappaCalibration, got {type(calibration).__name__}"
        )
    direction_columns(model)  # before any work, as the file's format
    contours = checked_contours(contours)
    kind = None if out is None else format_of(out, format)
    if out is not None and kind is not None:
        check_replaceable(out, kind)
    statuses: Counter[str] = Counter()
    rows: Columns | None = None
    with evaluating(model):
        parts = _parts(
            _windows(event_predictions(model, dataloader, event_column), on_progress),
            -1.0 if angles == "flight" else 1.0,
            calibration,
            contours,
            statuses,
        )
        if out is None:
            found = list(parts)
            rows = {key: np.concatenate([p[key] for p in found]) for key in found[0]}
        else:
            assert kind is not None
            write_results(out, parts, kind)
    return Reconstruction(
        name=type(model.backbone).__name__ if name is None else name,
        path=None if out is None else Path(out),
        format=kind,
        num_events=sum(statuses.values()),
        statuses=dict(statuses),
        num_resumed=0,
        seconds=time.monotonic() - begun,
        in_memory=rows,
    )


def _parts(
    windows: Iterable[EventPredictions],
    sign: float,
    calibration: KappaCalibration | None,
    contours: Sequence[float],
    statuses: Counter[str],
) -> Iterator[Columns]:
    """Yield rows of results, and count their statuses."""
    seen = _Seen()
    for window in windows:
        seen.add(window.event_id)
        vector_B4 = window.vector_B4.copy()
        vector_B4[:, :3] *= sign
        # An infinite kappa leaves a direction of zeros, a NaN one whatever it likes.
        vector_B4[~np.isfinite(vector_B4).all(axis=1)] = np.nan
        table = EventTable.from_vectors("", window.event_id, vector_B4)
        rows = result_rows(table, window.n_pulses, calibration, contours)
        statuses.update(rows["status"].tolist())
        yield rows


def _windows(
    batches: Iterable[EventPredictions], on_progress: Progress | None
) -> Iterator[EventPredictions]:
    """Join batches to some thousands of events, and at least one window of none."""
    waiting: list[EventPredictions] = []
    num_waiting, is_first = 0, True
    for batch in batches:
        waiting.append(batch)
        num_waiting += len(batch.event_id)
        if on_progress is not None:
            on_progress(len(batch.event_id), int(batch.n_pulses.sum()))
        if num_waiting >= WINDOW:
            yield _joined(waiting)
            waiting, num_waiting, is_first = [], 0, False
    if waiting or is_first:
        yield _joined(waiting)


def _joined(batches: list[EventPredictions]) -> EventPredictions:
    none = np.empty(0, np.int64)
    return EventPredictions(
        event_id=np.concatenate([none, *(b.event_id for b in batches)]),
        n_pulses=np.concatenate([none, *(b.n_pulses for b in batches)]),
        vector_B4=np.concatenate([np.empty((0, 4)), *(b.vector_B4 for b in batches)]),
    )


class _Seen:
    """The event numbers that came, as sorted arrays of doubling lengths."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def add(self, event_id: NDArray[np.int64]) -> None:
        """Take new numbers, (B,).

        Raises:
            ValueError: One came before.
        """
        new = np.sort(event_id)
        again = new[1:][new[1:] == new[:-1]]
        for run in self._runs:
            place = np.searchsorted(run, new)
            known = place < len(run)
            known[known] = run[place[known]] == new[known]
            again = np.append(again, new[known])
        if len(again):
            raise ValueError(
                f"event {again[0]} comes twice from the loader: are event numbers of "
                "several files alike, or does a sampler draw events again?"
            )
        self._runs.append(new)
        # Few arrays to look through, and each number is merged a few times only.
        while len(self._runs) > 1 and len(self._runs[-2]) <= len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.append(self._runs[-1], last), kind="stable")
