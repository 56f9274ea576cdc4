"""Predictions of a model for events: outputs, and rows of results.

Within a window, events are sorted by length for the batches, and the outputs are put
back into the original order. Calibrations are applied if they are valid for the data.

Shape letters: B events, b events of a batch, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.augmentation import Augmentation
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.inference.domain import Domain, identity
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import ModelBundle
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.event_table import CALIBRATED, VALID, EventTable
from graphnet_icecube2nd.results.result_files import OK, Columns
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import (
    EVENT_ID,
    N_PULSES,
    NUM_LEFT_OUT,
    PULSE_FAULT,
)
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, Direction
from graphnet_icecube2nd.tasks.task import Calibration, Task
from graphnet_icecube2nd.version import __version__

WINDOW = 8192  # events that are sorted together
NO_PULSES = "no pulses"
Outputs = dict[str, NDArray[np.float64]]  # (B, K) by task
Calibrations = Mapping[str, Calibration]


def event_reader(
    store: EventStore,
    options: InferenceConfig,
    augmentations: Sequence[Augmentation] = (),
) -> EventReader:
    """Return a reader of a store's events, without truth."""
    return EventReader(
        store,
        max_pulses=options.max_pulses,
        selection=options.selection,
        seed=options.seed,
        truth=(),
        augmentations=augmentations,
        positions=options.positions,
        published_features=options.published_features,
        scales=options.scales,
    )


def store_outputs(
    models: Sequence[Model],
    reader: EventReader,
    numbers: NDArray[np.int64],
    length_B: NDArray[np.integer[Any]],
    options: InferenceConfig,
    on_progress: Progress | None = None,
    domain: Domain | None = None,
    file_length_B: NDArray[np.integer[Any]] | None = None,
) -> tuple[list[Outputs], NDArray[np.bool_]]:
    """Return the outputs of each model, and True for events within the trained ranges.

    Args:
        models: The models; events are read once for all of them.
        reader: Reader of the store.
        numbers: Numbers of the events in the store, (B,).
        length_B: Numbers of pulses in the store, (B,).
        options: Reading of events.
        on_progress: Function called with the numbers of new events and pulses.
        domain: Domain guard that checks the values; None checks nothing.
        file_length_B: Numbers of pulses in the file, see `outputs_in_batches`.
    """
    inside_B = np.ones(len(numbers), bool)

    def make_batch(some: NDArray[np.int64]) -> PackedBatch:
        raw = reader.raw(numbers[some])
        if domain is not None:
            inside_B[some] = domain.check_values(
                {name: value.numpy() for name, value in raw.columns.items()},
                raw.offsets.numpy(),
                length_B[some],
            )
        return reader.packed(raw)

    outputs = outputs_in_batches(
        models, length_B, make_batch, options, on_progress, file_length_B
    )
    return outputs, inside_B


@torch.no_grad()
def outputs_in_batches(
    models: Sequence[Model],
    length_B: NDArray[np.integer[Any]],
    make_batch: Callable[[NDArray[np.int64]], PackedBatch],
    options: InferenceConfig,
    on_progress: Progress | None = None,
    file_length_B: NDArray[np.integer[Any]] | None = None,
) -> list[Outputs]:
    """Return the outputs of each model for all events, (B, K) by task.

    Models are on one device; they are in evaluation mode during the call. Events
    without pulses get NaN.

    Args:
        models: The models.
        length_B: Numbers of pulses, (B,).
        make_batch: Function that returns the batch of some events, given their indices
            (b,).
        options: Batch size and precision.
        on_progress: Function called with the numbers of new events and pulses.
        file_length_B: Numbers of pulses including events that were dropped because of a
            bad pulse, (B,). With it, outputs of the other events are bitwise the same
            as without bad pulses. Default: `length_B`.
    """
    file_length_B = length_B if file_length_B is None else file_length_B
    device = next(models[0].parameters()).device
    is_short = options.precision == "bfloat16"
    found = [empty_outputs(model, len(length_B)) for model in models]
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        for some in _batches(file_length_B, options.batch_size):
            there_b = length_B[some] > 0
            if not there_b.any():
                continue
            batch = make_batch(some[there_b])
            if not there_b.all():
                length_b = file_length_B[some]
                batch = _with_stand_ins(batch, there_b, length_b, options.max_pulses)
            batch, some = batch.to(device), some[there_b]
            with torch.autocast(device.type, torch.bfloat16, enabled=is_short):
                for model, outputs in zip(models, found, strict=True):
                    for name, output in model.outputs(batch).items():
                        outputs[name][some] = output.cpu().double().numpy()[there_b]
            if on_progress is not None:
                on_progress(len(some), int(length_B[some].sum()))
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    num_empty = int((length_B == 0).sum())
    if on_progress is not None and num_empty:
        on_progress(num_empty, 0)
    return found


def _batches(
    length_B: NDArray[np.integer[Any]],
    batch_size: int,
) -> Iterator[NDArray[np.int64]]:
    """Yield indices of events with pulses, (b,), with similar lengths in a batch."""
    for window in range(0, len(length_B), WINDOW):
        full = window + np.flatnonzero(length_B[window : window + WINDOW] > 0)
        # The longest first, so that their memory is used again for all others. The
        # other order needs nearly three times the memory.
        full = full[np.argsort(-length_B[full], kind="stable")]
        for start in range(0, len(full), batch_size):
            yield full[start : start + batch_size]


def _with_stand_ins(
    batch: PackedBatch,
    there_b: NDArray[np.bool_],
    length_b: NDArray[np.integer[Any]],
    max_pulses: int,
) -> PackedBatch:
    """Return a batch in which missing events have pulses of the first event.

    The last digit of an output depends on the shapes of the batch, so a missing event
    keeps its length, (b,) before the selection.
    """
    events = iter(torch.split(batch.features, batch.lengths.tolist()))
    first = batch.features[: int(batch.lengths[0])]
    made = PackedBatch.from_events(
        [
            next(events) if is_there else first[np.arange(length) % len(first)]
            for is_there, length in zip(
                there_b, np.minimum(length_b, max_pulses), strict=True
            )
        ],
        n_pulses=torch.from_numpy(length_b).to(batch.n_pulses.dtype),
        names=batch.names,
        units=batch.units,
    )
    if batch.centre is None:
        return made
    centre_b3 = batch.centre[:1].repeat(len(there_b), 1)
    centre_b3[torch.from_numpy(there_b)] = batch.centre
    return replace(made, centre=centre_b3)


def empty_outputs(model: Model, num_events: int) -> Outputs:
    """Return the outputs for events without pulses, (B, K) of NaN by task."""
    return {
        name: np.full((num_events, task.num_outputs), np.nan)
        for name, task in model.task_map.items()
    }


def predict_events(
    model: Model,
    store: EventStore,
    events: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    name: str = "network",
    options: InferenceConfig | None = None,
    augmentations: Sequence[Augmentation] = (),
    calibrations: Calibrations | None = None,
    contours: Sequence[float] = CONTOURS,
    on_progress: Progress | None = None,
) -> EventTable:
    """Reconstruct events of a store with a model, in memory.

    Args:
        model: The model, on its device.
        store: The store.
        events: Numbers of the events in the store; None for all.
        name: Name of the table.
        options: Reading of events; default: that of the training.
        augmentations: Changes to the kept pulses, in this order, with the seed of the
            selection.
        calibrations: Calibrations by task; None keeps the widths of the model.
        contours: Probabilities of the contours whose radii are columns.
        on_progress: Function called with the numbers of new events and pulses.

    Returns:
        One row per event, in the order of `events`. The status is `ok`, `no pulses`,
        the fault that `prepare` noted (such as `bad charge`), or `not finite`.
    """
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    options = options or InferenceConfig.of(model.input_config)
    outputs = event_outputs(model, store, numbers, options, augmentations, on_progress)
    length_B, fault_B = lengths_and_faults(
        store, lambda column: store.whole_event_column(column)[numbers]
    )
    table = table_of_outputs(
        name,
        model.task_map,
        outputs,
        store.whole_event_column(EVENT_ID)[numbers],
        length_B,
        calibrations or {},
        contours,
        fault_B,
    )
    return replace(table, clock=store.pulse_map.time_reference)


def lengths_and_faults(
    store: EventStore, column: Callable[[str], NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.str_] | None]:
    """Return the numbers of pulses in the file, (B,), and the faults of the events.

    A store of `prepare(mark_bad_events=True)` has no pulses of an event with a bad
    pulse, but its fault. The faults are None for other stores. `column` returns a
    column of the events, (B,).
    """
    length_B = np.asarray(column(N_PULSES), np.int64)
    if PULSE_FAULT not in store.event_columns:
        return length_B, None
    return length_B + column(NUM_LEFT_OUT), np.asarray(column(PULSE_FAULT), np.str_)


def event_outputs(
    model: Model,
    store: EventStore,
    numbers: NDArray[np.int64],
    options: InferenceConfig,
    augmentations: Sequence[Augmentation] = (),
    on_progress: Progress | None = None,
) -> Outputs:
    """Return a model's outputs for events of a store, given their numbers (B,)."""
    length_B = store.whole_event_column(N_PULSES)[numbers]
    reader = event_reader(store, options, augmentations)
    (outputs,), _ = store_outputs(
        [model], reader, numbers, length_B, options, on_progress
    )
    return outputs


def table_of_outputs(
    name: str,
    tasks: Mapping[str, Task],
    outputs: Outputs,
    event_id: NDArray[np.int64],
    length_B: NDArray[np.integer[Any]],
    calibrations: Calibrations,
    contours: Sequence[float] = CONTOURS,
    fault_B: NDArray[np.str_] | None = None,
) -> EventTable:
    """Return the outputs of tasks as a table of their columns.

    The status of an event is `ok` if one of its tasks has an answer. With several
    tasks, the columns `TASK_is_valid` tell which have one.

    Args:
        name: Name of the table.
        tasks: Tasks by name.
        outputs: Outputs (B, K) by task.
        event_id: Event numbers, (B,).
        length_B: Numbers of pulses, (B,).
        calibrations: Calibrations by task; other tasks keep the widths of the model.
        contours: Probabilities of the contours whose radii are columns.
        fault_B: Faults of the pulses, (B,), which become the status; `` for none.
    """
    columns: dict[str, NDArray[Any]] = {}
    valid: dict[str, NDArray[np.bool_]] = {}
    full_B = np.asarray(length_B) > 0
    status_B = np.where(full_B, "", NO_PULSES).astype(object)
    if fault_B is not None:
        status_B = np.where(fault_B == "", status_B, fault_B)
        full_B &= fault_B == ""
    for task_name, task in tasks.items():
        if isinstance(task, Direction):
            task = task.with_contours(contours)
        output = torch.from_numpy(outputs[task_name])
        valid_B = task.is_valid(output).numpy() & full_B
        valid[task_name] = valid_B
        predicted = task.predict_calibrated(output, calibrations.get(task_name))
        names = {column.name: column.names for column in task.columns}
        for column, value in predicted.items():
            values = value.numpy()
            if texts := names.get(column):
                values = np.where(valid_B, np.array(texts)[values], "")
            if values.dtype.kind == "f":
                values = np.where(valid_B, values.astype(np.float64), np.nan)
            columns[column] = values
        for row in np.flatnonzero(~valid_B & full_B & (status_B == "")):
            status_B[row] = task.failure(output[row])
    any_B = np.logical_or.reduce(list(valid.values()))
    status_B[any_B] = OK
    if len(tasks) > 1:
        columns.update({f"{task}{VALID}": valid_B for task, valid_B in valid.items()})
    return EventTable(
        name=name,
        event_id=np.asarray(event_id, np.int64),
        status_B=status_B.astype(np.str_),
        columns=columns,
        n_pulses_B=np.asarray(length_B).astype(np.int64),
    )


class ResultMaker:
    """Maker of the rows of results of a model on data of one detector.

    It compares model and data, and applies the calibrations that are valid. A
    calibration is valid for the detector and the reading of its fit; one without a file
    is valid for the detector of the training.

    Args:
        bundle: The model with its calibrations.
        detector: Detector of the data.
        options: Reading of the data.
        contours: Probabilities of the contours whose radii are columns.
        unknown_detector: Whether another detector or clock is allowed.
        columns: Pulse columns of the data, some of which the model may not read.

    Raises:
        DomainError: Detector or clock differ and `unknown_detector` is not set, or
            `max_pulses` or selection differ from those of the stored calibration.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        detector: Detector,
        options: InferenceConfig,
        contours: Sequence[float] = CONTOURS,
        *,
        unknown_detector: bool = False,
        columns: Collection[str] = (),
    ) -> None:
        self.bundle, self.options, self.contours = bundle, options, contours
        self.detector = detector
        config = bundle.model.input_config
        self.domain = Domain(
            config,
            detector,
            options,
            unknown_detector=unknown_detector,
            columns=columns,
        )
        # Reasons why the calibrations are not applied; empty if they are.
        self.reasons = bundle.read_otherwise(options)
        if bundle.source is not None:
            trained = {} if config is None else identity(config)
            fitted = {**trained, **bundle.source.fitted_on}
            self.reasons += [
                f"the calibration was fitted on data with {name.replace('_', ' ')} "
                f"{fitted[name]!r}, the data have {value!r}"
                for name, value in identity(detector).items()
                if name in fitted and fitted[name] != value
            ]
        elif bundle.calibrations:
            self.reasons += self.domain.faults + self.domain.lacking
        self.calibrations = {} if self.reasons else bundle.calibrations

    def rows(
        self,
        outputs: Outputs,
        event_id: NDArray[np.int64],
        length_B: NDArray[np.integer[Any]],
        inside_B: NDArray[np.bool_],
        fault_B: NDArray[np.str_] | None = None,
    ) -> Columns:
        """Return the columns of results, (B,) by name.

        Args:
            outputs: Outputs (B, K) by task.
            event_id: Event numbers, (B,).
            length_B: Numbers of pulses, (B,).
            inside_B: True for events within the trained ranges, (B,).
            fault_B: Faults of the pulses, (B,), see `table_of_outputs`.
        """
        table = table_of_outputs(
            "",
            self.bundle.model.task_map,
            outputs,
            event_id,
            length_B,
            self.calibrations,
            self.contours,
            fault_B,
        )
        is_calibrated = bool(self.calibrations) and not self._not_calibrated
        calibrated_B = inside_B & (table.status_B == OK) & is_calibrated
        return table.with_columns({CALIBRATED: calibrated_B}).to_columns()

    @property
    def _not_calibrated(self) -> list[str]:
        """Tasks that can be calibrated but have no calibration."""
        return [
            name
            for name, task in self.bundle.model.task_map.items()
            if type(task).calibrate is not Task.calibrate
            and name not in self.calibrations
        ]

    @property
    def notices(self) -> list[str]:
        """Texts of all notices and warnings."""
        texts = [*self.domain.notices, *self.domain.warnings()]
        if self.calibrations and self._not_calibrated:
            texts.append(
                f"there is no calibration of {', '.join(self._not_calibrated)}, so no "
                "row is marked as calibrated"
            )
        if self.reasons:
            texts.append(
                f"{'; '.join(self.reasons)}. The calibration is not applied. Calibrate "
                "for these data (icecube2nd calibrate)"
            )
        return texts

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of a file of results, as plain values."""
        config = self.bundle.model.input_config
        return {
            "model": self.bundle.name,
            "weights": weights_digest(self.bundle.model),
            "detector": {
                "name": self.detector.name,
                "site": to_plain(self.detector.site),
                "clock": self.detector.pulses.time_reference,
            },
            "tasks": list(self.bundle.model.task_map),
            "calibrated_tasks": sorted(self.calibrations),
            "input": None if config is None else config.to_dict(),
            "notices": self.notices,
            "software": __version__,
        }


def without_full_columns(
    columns: Columns, failed: Collection[str] | None = None
) -> Columns:
    """Return columns without the `TASK_is_valid` of tasks that did not fail.

    By default the failed tasks are those of `failed_tasks(columns)`.
    """
    failed = failed_tasks(columns) if failed is None else failed
    return {
        name: values
        for name, values in columns.items()
        if not name.endswith(VALID) or name.removesuffix(VALID) in failed
    }


def failed_tasks(columns: Columns) -> set[str]:
    """Return the tasks that lack an answer for some event with other answers."""
    ok_B = columns["status"] == OK
    return {
        name.removesuffix(VALID)
        for name, values in columns.items()
        if name.endswith(VALID) and not values[ok_B].all()
    }
