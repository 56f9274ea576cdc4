"""Results of a GraphNeT pipeline: any model, any loader, all tasks, in one pass.

GraphNeT's `predict_as_dataframe` reads the data twice and needs a fixed order; these
functions do not. Shape letters: B events.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphnet.models import StandardModel
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import ANGLE_CONVENTIONS
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.graphnet_adapter.prediction import (
    Answer,
    EventPredictions,
    GraphnetColumns,
    answers_of,
    domain_of,
    evaluating,
    event_predictions,
    without_pulses,
)
from graphnet_icecube2nd.inference.predictor import (
    WINDOW,
    Calibrations,
    failed_tasks,
    table_of_outputs,
    without_full_columns,
)
from graphnet_icecube2nd.inference.reconstruction import Reconstruction
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.event_table import CALIBRATED
from graphnet_icecube2nd.results.result_files import (
    OK,
    SUBMISSION,
    Columns,
    check_replaceable,
    format_of,
    write_results,
)
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.direction import (
    CONTOURS,
    Direction,
    checked_contours,
)
from graphnet_icecube2nd.tasks.label import flip_to_origin
from graphnet_icecube2nd.version import __version__


def predict_events(
    model: StandardModel,
    dataloader: Iterable[Any],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    calibration: KappaCalibration | Calibrations | None = None,
    contours: Sequence[float] = CONTOURS,
    event_column: str = "event_no",
    angles: str = "origin",
    name: str | None = None,
    unknown_detector: bool = False,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Run a GraphNeT model once over a loader, with one row of results per event.

    The columns are those of `reconstruct`: event_id; the columns of every task;
    calibrated (whether the widths of the event are); n_pulses from the batch; status
    (`ok`, `no pulses`, `not finite`, or `length 0` of a direction); and TASK_is_valid
    if one of several tasks failed for some event. Missing answers are NaN (NULL in
    SQLite).

    A `TaskHead` gives the columns of its task. A GraphNeT task that predicts direction
    and kappa gives the columns of `direction`. Other GraphNeT tasks give their
    prediction_labels, renamed if this package has the column (`energy_pred` becomes
    `energy`).

    Rows have the order of the loader, which may shuffle. If the loader reads a whole
    store, the events without pulses follow, with the status that `prepare` noted (such
    as `bad charge`). 8192 rows are written at a time; besides them, memory holds 8
    bytes per event.

    Args:
        model: A `StandardModel` whose tasks predict events. It runs on its device in
            evaluation mode, and is not changed.
        dataloader: A loader of GraphNeT or torch, or of `StoreDataModule`. Batches need
            `n_pulses` and the event number.
        out: File to write: .parquet, .csv, .db, or `submission.csv`; None to keep the
            results in memory.
        format: `parquet`, `csv`, `sqlite` or `submission`; default: from the file name.
        calibration: Calibration of the widths: a `KappaCalibration` of the direction,
            or calibrations by task; see `calibrate_table`.
        contours: Probabilities of the contours whose radii are columns.
        event_column: Name of the event number in the batches, the dataset's
            `index_column`.
        angles: Convention of the directions that the model predicts: `origin` if they
            point to the neutrino's origin, as with our `direction_label()`; `flight`
            if they point along its flight, and are to be reversed.
        name: Name of the table; default: the class of the backbone.
        unknown_detector: Whether the model may run on a detector or a clock that it was
            not trained on; widths are then not calibrated.
        on_progress: Function called with the numbers of new events and pulses.

    Warns:
        UserWarning: The loader gave fewer events than its dataset has; or events are
            read differently than in the training, or are outside its ranges.

    Raises:
        DomainError: The data have another detector or clock than the training, see
            `domain_of`.
        ValueError: An event comes twice, a batch lacks event number or pulses, two
            tasks give the same column, the format is unknown, or the model lacks the
            task of a calibration.
        TypeError: The model is not a `StandardModel`, or the batches are not PyG's.
        ImportError: A file is to be written without pyarrow or sqlite-utils.
    """
    begun = time.monotonic()
    answers = answers_of(model)
    check_one_of("angles", angles, ANGLE_CONVENTIONS)
    calibrations = _by_task(calibration, answers)
    contours = checked_contours(contours)
    kind = None if out is None else format_of(out, format)
    if out is not None and kind is not None:
        check_replaceable(out, kind)
    if kind == SUBMISSION and Direction.name not in {a.name for a in answers}:
        raise ValueError(
            "a submission needs a direction, but the model's tasks give only "
            f"{', '.join(answer.name for answer in answers)}"
        )
    domain = domain_of(model, dataloader, unknown_detector)
    name = type(model.backbone).__name__ if name is None else name
    statuses: Counter[str] = Counter()
    num_calibrated = 0

    def counted(parts: Iterable[Columns]) -> Iterator[Columns]:
        nonlocal num_calibrated
        for part in parts:
            statuses.update(part["status"].tolist())
            num_calibrated += int(part[CALIBRATED].sum())
            yield part

    rows: Columns | None = None
    with evaluating(model):
        batches = event_predictions(model, dataloader, event_column, domain)
        others = without_pulses(dataloader, answers)
        more = [] if others is None else [others]
        windows = _windows(chain(batches, more), answers, on_progress)
        if domain is not None and domain.faults:
            calibrations = {}
        parts = counted(_parts(windows, answers, angles, calibrations, contours))
        if out is None:
            found = list(parts)
            rows = {key: np.concatenate([p[key] for p in found]) for key in found[0]}
            rows = without_full_columns(rows, [*failed_tasks(rows)])
        else:
            assert kind is not None
            if len(answers) > 1:
                parts = _without_full_columns(parts)
            metadata = {
                "model": name,
                "tasks": [answer.name for answer in answers],
                "calibrated_tasks": sorted(calibrations),
                "software": __version__,
            }
            write_results(out, parts, kind, metadata)
    num_events = sum(statuses.values())
    num_more = sum(len(other.event_id) for other in more)
    notices = _left_out(dataloader, num_events - num_more)
    if domain is not None:
        notices += (*domain.warnings(),)
    for text in notices:
        warnings.warn(text, stacklevel=2)
    return Reconstruction(
        name=name,
        path=None if out is None else Path(out),
        format=kind,
        num_events=num_events,
        statuses=dict(statuses),
        num_resumed=0,
        seconds=time.monotonic() - begun,
        num_calibrated=num_calibrated,
        notices=notices,
        in_memory=rows,
    )


def predict_directions(
    model: StandardModel,
    dataloader: Iterable[Any],
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Reconstruction:
    """Run `predict_events` with a model that predicts a direction.

    Args:
        model: A `StandardModel` with a task of the direction.
        dataloader: A loader, see `predict_events`.
        out: File to write, see `predict_events`.
        **options: Options of `predict_events`.

    Raises:
        ValueError: No task predicts a direction, or see `predict_events`.
        TypeError: See `predict_events`.
    """
    if Direction.name not in [answer.name for answer in answers_of(model)]:
        tasks = "; ".join(
            f"{type(task).__name__}: {', '.join(task._prediction_labels)}"
            for task in model._tasks
        )
        raise ValueError(
            "a task must give dir_x_pred, dir_y_pred, dir_z_pred and direction_kappa, "
            f"as DirectionReconstructionWithKappa does; found {tasks}. Use "
            "predict_events for models without a direction"
        )
    return predict_events(model, dataloader, out, **options)


def _by_task(
    calibration: KappaCalibration | Calibrations | None, answers: Sequence[Answer]
) -> Calibrations:
    """Return calibrations by task; ValueError if the model lacks one of the tasks."""
    if calibration is None:
        return {}
    if isinstance(calibration, KappaCalibration):
        calibration = {Direction.name: calibration}
    if not isinstance(calibration, Mapping):
        raise ValueError(
            "calibration must be a KappaCalibration or calibrations by task, got "
            f"{type(calibration).__name__}"
        )
    known = [a.name for a in answers if not isinstance(a.task, GraphnetColumns)]
    if unknown := [task for task in calibration if task not in known]:
        raise ValueError(
            f"calibration: the model has no task {', '.join(unknown)} that can be "
            f"calibrated; it has {', '.join(known) or 'none'}"
        )
    return calibration


def _parts(
    windows: Iterable[EventPredictions],
    answers: Sequence[Answer],
    angles: str,
    calibrations: Calibrations,
    contours: Sequence[float],
) -> Iterator[Columns]:
    """Yield rows of results."""
    tasks = {answer.name: answer.task for answer in answers}
    seen: list[NDArray[np.int64]] = []
    for window in windows:
        _note_new(seen, window.event_id)
        outputs = dict(window.outputs)
        if Direction.name in outputs:
            vector_B3 = torch.from_numpy(outputs[Direction.name])
            outputs[Direction.name] = flip_to_origin(vector_B3, angles).numpy()
        table = table_of_outputs(
            "",
            tasks,
            outputs,
            window.event_id,
            window.n_pulses,
            calibrations,
            contours,
            window.fault,
        )
        calibrated_B = (table.status_B == OK) & window.inside & bool(calibrations)
        yield table.with_columns({CALIBRATED: calibrated_B}).to_columns()


def _without_full_columns(parts: Iterable[Columns]) -> Iterator[Columns]:
    """Yield parts without the `TASK_is_valid` that are true in all of them.

    Parts are kept in files, because the last one may be the first with a failure.
    """
    failed: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="icecube2nd-") as folder:
        paths = []
        for number, part in enumerate(parts):
            failed |= failed_tasks(part)
            paths.append(Path(folder) / f"{number}.npz")
            np.savez(paths[-1], **part)
        for path in paths:
            with np.load(path) as part:
                yield without_full_columns(dict(part), [*failed])


def _left_out(dataloader: Any, num_events: int) -> tuple[str, ...]:
    """Return a warning if the loader left out events of its dataset."""
    try:
        expected = len(dataloader.dataset)
    except (AttributeError, TypeError):  # a list of batches, an iterable dataset
        return ()
    if num_events >= expected:
        return ()
    return (
        f"the loader gave {num_events} of the {expected} events of its dataset; the "
        "others have no row. GraphNeT's collate function leaves out events of fewer "
        "than two pulses: use collate_fn=collate_events. A sampler may also leave "
        "out events",
    )


def _windows(
    batches: Iterable[EventPredictions],
    answers: Sequence[Answer],
    on_progress: Progress | None,
) -> Iterator[EventPredictions]:
    """Join batches to windows of thousands of events; at least one, maybe empty."""
    none = EventPredictions(
        event_id=np.empty(0, np.int64),
        n_pulses=np.empty(0, np.int64),
        inside=np.empty(0, bool),
        fault=np.empty(0, np.str_),
        outputs={a.name: np.empty((0, a.task.num_outputs)) for a in answers},
    )
    waiting, num_waiting, is_first = [none], 0, True
    for batch in batches:
        waiting.append(batch)
        num_waiting += len(batch.event_id)
        if on_progress is not None:
            on_progress(len(batch.event_id), int(batch.n_pulses.sum()))
        if num_waiting >= WINDOW:
            yield _joined(waiting)
            waiting, num_waiting, is_first = [none], 0, False
    if len(waiting) > 1 or is_first:
        yield _joined(waiting)


def _joined(batches: list[EventPredictions]) -> EventPredictions:
    return EventPredictions(
        event_id=np.concatenate([b.event_id for b in batches]),
        n_pulses=np.concatenate([b.n_pulses for b in batches]),
        inside=np.concatenate([b.inside for b in batches]),
        fault=np.concatenate([b.fault for b in batches]),
        outputs={
            name: np.concatenate([b.outputs[name] for b in batches])
            for name in batches[0].outputs
        },
    )


def _note_new(runs: list[NDArray[np.int64]], event_id: NDArray[np.int64]) -> None:
    """Add event numbers to sorted runs; ValueError for one that came before."""
    new = np.sort(event_id)
    again = new[1:][new[1:] == new[:-1]]
    for run in runs:
        row = np.searchsorted(run, new).clip(max=len(run) - 1)
        again = np.append(again, new[run[row] == new])
    if len(again):
        raise ValueError(
            f"event {again[0]} comes twice from the loader. Check that no two files "
            "share event numbers, and that the sampler draws each event once"
        )
    if len(new):
        runs.append(new)
    # Merging runs of similar size keeps them few, and merges each number rarely.
    while len(runs) > 1 and len(runs[-2]) <= len(runs[-1]):
        runs.append(np.sort(np.append(runs.pop(), runs.pop()), kind="stable"))
