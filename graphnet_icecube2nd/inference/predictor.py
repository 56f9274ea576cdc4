"""A model's answers to events: outputs, and rows of results made of them.

Events are sorted by length within a window, so that batches hold events of like
lengths, and put back into their order: every event has exactly one row, whatever the
batches. Calibrations are applied where they hold.

Shape letters: B events, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
    """Return a reader of a store's events, without truth, as the options say."""
    return EventReader(
        store,
        max_pulses=options.max_pulses,
        selection=options.selection,
        seed=options.seed,
        truth=(),
        augmentations=augmentations,
        published_features=options.published_features,
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
    """Return the outputs of each model, and which events lie in the trained ranges.

    Events are named by their numbers in the store, (B,), with their lengths there, and
    read once for all models. A domain, where given, looks at their values.
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
    """Return the outputs of models for events, (B, K) by task, for each model.

    Models lie on one device and are in evaluation mode meanwhile. Events without pulses
    get NaN; `make_batch` gives the others at some places, (b,). Lengths with the pulses
    that are bad, where given, keep all others' answers the same to the bit.
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
    """Yield places of events with pulses, (b,), those of like lengths together."""
    for window in range(0, len(length_B), WINDOW):
        full = window + np.flatnonzero(length_B[window : window + WINDOW] > 0)
        # The longest first: what they leave in memory is large enough for all others.
        # From the shortest on, the process takes nearly three times as much.
        full = full[np.argsort(-length_B[full], kind="stable")]
        for start in range(0, len(full), batch_size):
            yield full[start : start + batch_size]


def _with_stand_ins(
    batch: PackedBatch,
    there_b: NDArray[np.bool_],
    length_b: NDArray[np.integer[Any]],
    max_pulses: int,
) -> PackedBatch:
    """Return a batch with the first event's pulses in place of events that it lacks.

    What a model says of an event depends on the shapes of its batch in the last digit,
    so an event that cannot be read leaves its length behind, (b,) before the cut.
    """
    events = iter(torch.split(batch.features, batch.lengths.tolist()))
    first = batch.features[: int(batch.lengths[0])]
    return PackedBatch.from_events(
        [
            next(events) if is_there else first[np.arange(length) % len(first)]
            for is_there, length in zip(
                there_b, np.minimum(length_b, max_pulses), strict=True
            )
        ],
        n_pulses=torch.from_numpy(length_b).to(batch.n_pulses.dtype),
        names=batch.names,
    )


def empty_outputs(model: Model, num_events: int) -> Outputs:
    """Return what a model says of events without pulses, (B, K) of NaN by task."""
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
        model: The model, on the device where it runs.
        store: The store.
        events: Numbers of the events in the store; None for all.
        name: The table's name.
        options: How events are read; default: as the model was trained.
        augmentations: Changes to the kept pulses, in this order; they have the seed of
            the selection.
        calibrations: Calibrations by task; None: widths are the model's own.
        contours: Shares of the contours whose radii are columns.
        on_progress: Called with new events and pulses.

    Returns:
        A row for each event, in the order asked for; status `no pulses` for events
        without any, `bad charge` and the like for those that `prepare` has marked, `not
        finite` where the model gave no number.
    """
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    options = options or InferenceConfig.of(model.input_config)
    outputs = event_outputs(model, store, numbers, options, augmentations, on_progress)
    length_B, fault_B = lengths_and_faults(
        store, lambda column: store.whole_event_column(column)[numbers]
    )
    return table_of_outputs(
        name,
        model.task_map,
        outputs,
        store.whole_event_column(EVENT_ID)[numbers],
        length_B,
        calibrations or {},
        contours,
        fault_B,
    )


def lengths_and_faults(
    store: EventStore, column: Callable[[str], NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.str_] | None]:
    """Return how many pulses the file has of events, (B,), and what is wrong with them.

    Of an event with a bad pulse the store may hold no pulses, but the reason (`prepare`
    with `mark_bad_events`). None: there are none of those. `column` gives a column of
    the events, (B,).
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
    """Return a model's outputs for events of a store, named by their numbers, (B,)."""
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

    An event's status is `ok` if one of its tasks has an answer; of several tasks the
    column `TASK_is_valid` says which have. A task without a calibration keeps its own
    widths. An event with a fault, (B,), of its pulses has that for its status.
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
        for column, value in predicted.items():
            values = value.numpy()
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
    """Makes rows of results of a model on data of one detector.

    It compares model and data, and chooses the calibrations that hold. A calibration
    holds for the detector and the reading that it was fitted on; one without a file
    holds for the detector of the training.

    Raises:
        DomainError: Another detector or clock, and `unknown_detector` is not set;
            another `max_pulses` or selection than the stored calibration's.
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
        config = bundle.model.input_config
        self.domain = Domain(
            config,
            detector,
            options,
            unknown_detector=unknown_detector,
            columns=columns,
        )
        # Why stored calibrations are not applied; empty: they are.
        self.reasons = bundle.read_otherwise(options)
        if bundle.source is not None:
            trained = {} if config is None else identity(config)
            fitted = {**trained, **bundle.source.fitted_on}
            self.reasons += [
                f"the calibration was fitted on data of {name} {fitted[name]!r}, the "
                f"data have {value!r}"
                for name, value in identity(detector).items()
                if name in fitted and fitted[name] != value
            ]
        elif bundle.calibrations:
            self.reasons += self.domain.faults
        self.calibrations = {} if self.reasons else bundle.calibrations

    def rows(
        self,
        outputs: Outputs,
        event_id: NDArray[np.int64],
        length_B: NDArray[np.integer[Any]],
        inside_B: NDArray[np.bool_],
        fault_B: NDArray[np.str_] | None = None,
    ) -> Columns:
        """Return the columns of results, (B,) by name; see `table_of_outputs`."""
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
        """Tasks that could be calibrated and are not."""
        return [
            name
            for name, task in self.bundle.model.task_map.items()
            if type(task).calibrate is not Task.calibrate
            and name not in self.calibrations
        ]

    @property
    def notices(self) -> list[str]:
        """What is worth a warning, in words."""
        texts = [*self.domain.notices, *self.domain.warnings()]
        if self.calibrations and self._not_calibrated:
            texts.append(
                f"the calibration says nothing of {', '.join(self._not_calibrated)}, "
                "so no row is called calibrated"
            )
        if self.reasons:
            texts.append(
                f"{'; '.join(self.reasons)}: the calibration is not applied. Calibrate "
                "for these data (icecube2nd calibrate)"
            )
        return texts

    def metadata(self) -> dict[str, Any]:
        """Return what a file of results should say of itself, plain values."""
        config = self.bundle.model.input_config
        return {
            "model": self.bundle.name,
            "weights": weights_digest(self.bundle.model),
            "tasks": list(self.bundle.model.task_map),
            "calibrated_tasks": sorted(self.calibrations),
            "input": None if config is None else config.to_dict(),
            "notices": self.notices,
            "software": __version__,
        }


def without_full_columns(
    columns: Columns, failed: Collection[str] | None = None
) -> Columns:
    """Return columns without `TASK_is_valid` of tasks other than the failed.

    Default: those that failed for some event, as the columns say.
    """
    failed = failed_tasks(columns) if failed is None else failed
    return {
        name: values
        for name, values in columns.items()
        if not name.endswith(VALID) or name.removesuffix(VALID) in failed
    }


def failed_tasks(columns: Columns) -> set[str]:
    """Return the tasks without an answer for some event that has others."""
    ok_B = columns["status"] == OK
    return {
        name.removesuffix(VALID)
        for name, values in columns.items()
        if name.endswith(VALID) and not values[ok_B].all()
    }
