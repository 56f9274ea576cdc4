"""Calibration of a model's widths, on events that it was not trained on.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.calibration.validation_split import (
    runs_behind,
    unseen_events,
    was_trained_on,
)
from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.inference.domain import identity
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    SEEN,
    CalibrationFile,
    ModelBundle,
    as_bundle,
)
from graphnet_icecube2nd.inference.predictor import (
    ResultMaker,
    event_outputs,
)
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth, flipped_directions_note
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.direction.calibration import (
    METHODS,
    KappaCalibration,
    containment,
    even_and_odd,
    fit_calibration,
)
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, Direction, radii_of
from graphnet_icecube2nd.tasks.label import has_label
from graphnet_icecube2nd.tasks.task import FEWEST, Calibration, Task
from graphnet_icecube2nd.training.run import validation_advice

Array = NDArray[np.float64]
LEVELS = (0.1, 0.5, 0.68, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class CalibrationCheck:
    """Fitted calibrations, with cross-fitted figures that check them."""

    file: CalibrationFile  # fitted on all events, to be stored
    # Share of true directions inside contours, by level. `before`: without calibration;
    # empty if there is no direction. `after`: each half of the events calibrated with
    # the other half; empty if there are too few events. `thirds`: as `after`, for the
    # thirds of the events with small, medium and large kappa.
    before: Mapping[float, float] = field(default_factory=dict)
    after: Mapping[float, float] = field(default_factory=dict)
    thirds: tuple[Mapping[float, float], ...] = ()
    # `Task.calibration_figures` of each other task, before and after (cross-fitted).
    tasks: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()  # tasks not calibrated or checked, missing labels
    what: str = ""  # description of the events of the fit


def calibrate(
    model: ModelBundle | str | os.PathLike[str],
    store: EventStore | str | os.PathLike[str] | None = None,
    events: NDArray[np.int64] | str | None = None,
    *,
    method: str = "isotonic",
    most: int | None = None,
    options: InferenceConfig | None = None,
    device: str = "cpu",
    unknown_detector: bool = False,
    on_progress: Progress | None = None,
) -> CalibrationCheck:
    """Fit calibrations of all tasks of a model, on events it was not trained on.

    If the model's run was trained on the store, only its validation events may be used.
    In another store, events that the run was trained on are excluded.

    Args:
        model: Model, or a name or path that `load_bundle` takes.
        store: Events with truth; default: the store that the run was trained on.
        events: Rows of the events in the store, or a condition such as `n_pulses >= 8`;
            default: all events that may be used.
        method: Calibration of the direction: `none` (levels only), `temperature` or
            `isotonic`; see `fit_calibration`.
        most: Maximum number of events; they are spread evenly.
        options: How events are read; default: the model's own options.
        device: Device of the model.
        unknown_detector: Accept a detector or clock that the model was not trained on.
        on_progress: Called with the numbers of new events and pulses.

    Raises:
        DomainError: The model was trained on another detector or clock.
        ValueError: The model was trained on some of the events, too few events have a
            label, no task can be calibrated, directions have the opposite sign, or the
            method is unknown. If only some tasks cannot be calibrated, `notices` say
            why.
    """
    check_one_of("method", method, METHODS)
    bundle = as_bundle(model).calibrated(None)
    places = [] if bundle.place is None else [bundle.place]
    store, numbers, what = unseen_events(places, store, events, most)
    if len(numbers) < FEWEST:
        runs = [run for place in places for run in runs_behind(place)]
        here = any(was_trained_on(run, store) for run in runs)
        advice = f"{validation_advice(len(store))}, or g" if here else "G"
        raise ValueError(
            f"a calibration needs {FEWEST} events, found {len(numbers)} ({what}). "
            f"{advice}ive other events (`store`, --data)"
        )
    options = options or bundle.options
    maker = ResultMaker(
        bundle, store.detector, options, unknown_detector=unknown_detector
    )
    bundle.model.to(device)
    outputs = event_outputs(
        bundle.model, store, numbers, options, on_progress=on_progress
    )
    truth = EventTruth.of(store, numbers)
    fitted: dict[str, Calibration] = {}
    figures: dict[str, dict[str, tuple[float, float]]] = {}
    notices: list[str] = [*maker.domain.differences]
    check = CalibrationCheck(file=CalibrationFile(calibrations={}))
    for name, task in bundle.model.task_map.items():
        if not truth.has(task):
            notices.append(f"{name} is not calibrated: the truth has no label")
            continue
        output, target = outputs[name], truth.target(task)
        good_B = task.is_valid(torch.from_numpy(output)).numpy() & has_label(target)
        if count := int((~has_label(target)).sum()):
            notices.append(f"{name}: {count:,} of {len(target):,} events have no label")
        output, target = output[good_B], target[good_B]
        if isinstance(task, Direction):
            angle_B = opening_angle(output, target).numpy()
            _check_way(angle_B, bundle.name)
            check = _of_angles(np.linalg.norm(output, axis=1), angle_B, method)
            notices += check.notices
            fitted.update(check.file.calibrations)
            continue
        try:
            calibration = task.calibrate(output, target)
        except ValueError as error:  # the other tasks are calibrated all the same
            notices.append(f"{name} is not calibrated: {error}")
            continue
        if calibration is None:
            notices.append(f"{name} is not calibrated: the task has no calibration")
        else:
            fitted[name] = calibration
            figures[name] = _figures(task, output, target)
            notices += _too_few(name, len(target))
    if not fitted:
        raise ValueError(f"nothing can be calibrated: {'; '.join(notices)}")
    file = CalibrationFile(
        calibrations=fitted,
        weights=weights_digest(bundle.model),
        fitted_on={
            "store": store.path.name,
            "store_digest": store.manifest.digest(),
            **identity(store.detector),
            "events": len(numbers),
            **{name: getattr(options, name) for name in SEEN},
        },
    )
    return replace(check, file=file, tasks=figures, notices=tuple(notices), what=what)


def _figures(
    task: Task, output: Array, target: Array
) -> dict[str, tuple[float, float]]:
    """Return a task's figures before and after a cross-fitted calibration."""
    plain = _plain_columns(task.predict(torch.from_numpy(output)))
    before = task.calibration_figures(plain, target)
    after: dict[str, Array] = {name: np.empty(len(target)) for name in plain}
    try:
        for here_B in even_and_odd(len(target)):
            fitted = task.calibrate(output[~here_B], target[~here_B])
            columns = task.predict_calibrated(torch.from_numpy(output[here_B]), fitted)
            for name, values in _plain_columns(columns).items():
                after[name][here_B] = values
    except ValueError:  # too few for two halves
        return {name: (value, float("nan")) for name, value in before.items()}
    calibrated = task.calibration_figures(after, target)
    return {name: (value, calibrated[name]) for name, value in before.items()}


def _plain_columns(columns: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in columns.items()}


def calibrate_table(
    table: EventTable, truth: EventTruth, *, method: str = "isotonic"
) -> CalibrationCheck:
    """Fit a calibration of the kappa of a results table of any reconstruction.

    Args:
        table: Directions with kappa, not calibrated yet.
        truth: Truth of events that the reconstruction was not trained on; events that
            the table does not have are left out.
        method: `none` (levels only), `temperature` or `isotonic`.

    Raises:
        ValueError: Too few events have a direction, the method is unknown, the contours
            are calibrated already, a true direction is not finite, or directions have
            the opposite sign.
    """
    if has_own_contours(table):
        raise ValueError(
            f"table {table.name!r} must not be calibrated yet, found contour radii "
            "that differ from those of its kappa. Reconstruct with --calibration none"
        )
    known_B = np.isin(truth.event_id, table.event_id) & has_label(truth.direction_B3)
    truth = truth.of_events(truth.event_id[known_B])
    some = table.of_events(truth.event_id)
    angle_B = truth.angles(some)
    _check_way(angle_B, table.name)
    good_B = some.is_ok & np.isfinite(some.kappa_B)
    check = _of_angles(some.kappa_B[good_B], angle_B[good_B], method)
    fitted_on = {"table": table.name, "events": len(truth)}
    return replace(check, file=replace(check.file, fitted_on=fitted_on))


def _of_angles(kappa_B: Array, angle_B: Array, method: str) -> CalibrationCheck:
    """Return the calibration of kappas with these opening angles, and its check."""
    calibration = fit_calibration(kappa_B, angle_B, method)
    check = CalibrationCheck(
        file=CalibrationFile(calibrations={Direction.name: calibration}),
        before=_held(containment(kappa_B, angle_B)),
        notices=_too_few(Direction.name, len(kappa_B)),
    )
    if check.notices:
        return check
    level_B = cross_fitted(kappa_B, angle_B, method).level
    parts = np.array_split(np.argsort(kappa_B, kind="stable"), 3)
    thirds = tuple(_held(level_B[part]) for part in parts)
    return replace(check, after=_held(level_B), thirds=thirds)


def _too_few(name: str, num_events: int) -> tuple[str, ...]:
    """Return a notice if halves are too small to be calibrated with each other."""
    if num_events >= 2 * FEWEST:
        return ()
    return (
        f"{name}: too few events to check the calibration ({num_events}; "
        f"{2 * FEWEST} needed)",
    )


def _check_way(angle_B: Array, name: str) -> None:
    """Raise ValueError if directions seem to have the opposite sign."""
    if note := flipped_directions_note(angle_B, name):
        raise ValueError(note)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibrated:
    """Kappas with their contours."""

    kappa: Array  # (B,)
    level: Array  # (B,) nominal level of the contour on which each truth lies
    median: Array  # (B,) rad, radius of the 50% contour


def cross_fitted(kappa_B: Array, angle_B: Array, method: str) -> Recalibrated:
    """Return cross-fitted kappas: each half is calibrated with the other half.

    In this way a calibration that fits noise does not look good.
    """
    columns = {n: np.empty(len(kappa_B)) for n in ("kappa", "level", "median")}
    for here_B in even_and_odd(len(kappa_B)):
        calibration = fit_calibration(kappa_B[~here_B], angle_B[~here_B], method)
        columns["kappa"][here_B] = calibration.kappa(kappa_B[here_B])
        columns["level"][here_B] = calibration.level(kappa_B[here_B], angle_B[here_B])
        columns["median"][here_B] = calibration.radius(kappa_B[here_B], 0.5)
    return Recalibrated(**columns)


def calibrated_table(table: EventTable, calibration: KappaCalibration) -> EventTable:
    """Return a table with calibrated kappa and contour radii."""
    kappa_B = np.where(table.is_ok, table.kappa_B, np.nan)
    radii = radii_of(kappa_B, calibration, tuple(table.levels) or CONTOURS)
    return table.with_columns({"kappa": calibration.kappa(table.kappa_B), **radii})


def has_own_contours(table: EventTable) -> bool:
    """Return whether a table has contour radii that differ from those of its kappa."""
    known_B = table.is_ok & np.isfinite(table.kappa_B) & (table.kappa_B >= 0)
    own = radii_of(table.kappa_B[known_B], None, tuple(table.levels))
    return not all(
        np.allclose(given_B[known_B], radius_B, rtol=1e-3, atol=1e-6, equal_nan=True)
        for given_B, radius_B in zip(table.levels.values(), own.values(), strict=True)
    )


def _held(level_B: Array) -> dict[float, float]:
    """Return the share of true directions inside the contours of `LEVELS`."""
    return {level: float((level_B <= level).mean()) for level in LEVELS}
