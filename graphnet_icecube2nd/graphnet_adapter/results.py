"""Results of a GraphNeT pipeline: any model, any loader, all tasks, in one pass.

What GraphNeT's `predict_as_dataframe` is for, which reads the data twice and needs them
in a fixed order. Shape letters: B events.
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
from graphnet_icecube2nd.tasks.label import to_origin
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
    """Run a GraphNeT model once over a loader; a row of results for each event.

    Columns as `reconstruct` has them: event_id; those of every task; calibrated:
    whether the event's widths are; n_pulses, as the batch has it; status: `ok`, `no
    pulses`, `not finite`, or `length 0` of a direction; and TASK_is_valid where one of
    several tasks failed for some event. Whatever has no answer has NaN (in SQLite
    NULL).

    A `TaskHead` gives the columns of its task. A task of GraphNeT that gives a
    direction and kappa gives those of `direction`; its other tasks give their
    prediction_labels, by our names where there is one (`energy_pred` is `energy`).

    Rows stand in the order of the loader, which may shuffle. Behind them stand the
    events without pulses of a store that the loader reads whole, which it passes over;
    those that `prepare` has marked have the status `bad charge` and the like. Rows go
    into the file 8192 at a time; beside them memory holds 8 bytes an event.

    Args:
        model: A `StandardModel` of any backbone and tasks of events. It runs on the
            device it is on, in evaluation mode, and is left as it was.
        dataloader: A loader of GraphNeT or torch, or of `StoreDataModule`. Batches need
            `n_pulses` and the event number.
        out: The file: .parquet, .csv, .db, or `submission.csv`; None: none.
        format: `parquet`, `csv`, `sqlite`, `submission`; default by the ending.
        calibration: Makes widths hold: a `KappaCalibration` of the direction, or
            calibrations by task; see `calibrate_table`.
        contours: Shares of the contours whose radii are columns.
        event_column: Name of the event number in the batches, the dataset's
            `index_column`.
        angles: Directions that the model was trained to predict. `origin`: to where the
            neutrino came from, as with our `direction_label()`; `flight`: to where it
            flies, then directions are turned round.
        name: Name of the table; default the backbone's class.
        unknown_detector: Use the model on a detector or a clock that it was not trained
            on; widths are then not calibrated.
        on_progress: Called with new events and pulses.

    Warns:
        UserWarning: The loader gave fewer events than its dataset has; events are read
            otherwise than in the training, or lie outside its ranges.

    Raises:
        DomainError: The data are of another detector or clock than the model was
            trained on, see `domain_of`.
        ValueError: An event comes twice, a batch lacks event number or pulses, two
            tasks give the same column, an unknown format, a calibration of a task that
            the model lacks.
        TypeError: Not a `StandardModel`, or batches that are not PyG's.
        ImportError: pyarrow or sqlite-utils is not installed, and a file is wanted.
    """
    begun = time.monotonic()
    answers = answers_of(model)  # before any work, as the file's format
    check_one_of("angles", angles, ANGLE_CONVENTIONS)
    calibrations = _by_task(calibration, answers)
    contours = checked_contours(contours)
    kind = None if out is None else format_of(out, format)
    if out is not None and kind is not None:
        check_replaceable(out, kind)
    if kind == SUBMISSION and Direction.name not in {a.name for a in answers}:
        raise ValueError(
            "a submission needs a direction, but the model's tasks give "
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
    """Do what `predict_events` does, with a model that has a direction.

    Raises:
        ValueError: No task gives a direction; and as `predict_events`.
        TypeError: As `predict_events`.
    """
    if Direction.name not in [answer.name for answer in answers_of(model)]:
        tasks = "; ".join(
            f"{type(task).__name__}: {', '.join(task._prediction_labels)}"
            for task in model._tasks
        )
        raise ValueError(
            "a task must give dir_x_pred, dir_y_pred, dir_z_pred and direction_kappa, "
            f"as DirectionReconstructionWithKappa does; none does ({tasks}). For "
            "models without a direction use predict_events"
        )
    return predict_events(model, dataloader, out, **options)


def _by_task(
    calibration: KappaCalibration | Calibrations | None, answers: Sequence[Answer]
) -> Calibrations:
    """Return calibrations by task, all of tasks that the model has."""
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
            f"calibration of {', '.join(unknown)}: the model has no such task of this "
            f"package; it has {', '.join(known) or 'none'}"
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
            outputs[Direction.name] = to_origin(vector_B3, angles).numpy()
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
    """Yield parts without `TASK_is_valid` of tasks that failed in none of them.

    Parts wait in files, because the last one may be the first with a failure.
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
    """Return what is worth a warning: events of the dataset that never came."""
    try:
        expected = len(dataloader.dataset)
    except (AttributeError, TypeError):  # a list of batches, an iterable dataset
        return ()
    if num_events >= expected:
        return ()
    return (
        f"the loader gave {num_events} of the {expected} events of its dataset; the "
        "others have no row. GraphNeT's collate function leaves out events of fewer "
        "than two pulses: use collate_fn=collate_events. A sampler may leave out more",
    )


def _windows(
    batches: Iterable[EventPredictions],
    answers: Sequence[Answer],
    on_progress: Progress | None,
) -> Iterator[EventPredictions]:
    """Join batches to some thousands of events, and at least one window of none."""
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
            f"event {again[0]} comes twice from the loader: are event numbers of "
            "several files alike, or does a sampler draw events again?"
        )
    if len(new):
        runs.append(new)
    # Few runs to look through, and each number is merged a few times only.
    while len(runs) > 1 and len(runs[-2]) <= len(runs[-1]):
        runs.append(np.sort(np.append(runs.pop(), runs.pop()), kind="stable"))
