"""A model's answers to events of a store, read once.

Events are sorted by length within a window, so that batches hold events of like
lengths, and put back into their order: every event has exactly one row, whatever the
batches. Shape letters: B events, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.events.augmentation import Augmentation
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.inference.domain import Domain
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.results.event_table import VALID, EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, Direction
from graphnet_icecube2nd.tasks.task import Calibration, Task

WINDOW = 8192  # events that are sorted together
NO_PULSES = "no pulses"
Progress = Callable[[int, int], None]  # events and pulses since the last call
Outputs = dict[str, NDArray[np.float64]]  # (B, K) by task
Calibrations = Mapping[str, Calibration]


class Predictor:
    """Gives a model's outputs for events of one store.

    The model stays on its device; a domain, where given, looks at the events' values.
    """

    def __init__(
        self,
        model: Model,
        store: EventStore,
        options: InferenceConfig,
        augmentations: Sequence[Augmentation] = (),
        domain: Domain | None = None,
    ) -> None:
        self.model, self.store, self.options = model, store, options
        self.domain = domain
        self._reader = EventReader(
            store,
            max_pulses=options.max_pulses,
            selection=options.selection,
            seed=options.seed,
            truth=(),
            augmentations=augmentations,
            published_features=options.published_features,
        )

    def outputs(
        self,
        numbers: NDArray[np.int64],
        length_B: NDArray[np.integer[Any]],
        on_progress: Progress | None = None,
    ) -> tuple[Outputs, NDArray[np.bool_]]:
        """Return outputs of events, and which lie in the ranges of the training, (B,).

        Outputs are (B, K) by task, NaN for events without pulses.

        Args:
            numbers: (B,) numbers of events in the store.
            length_B: Their pulses, as stored.
            on_progress: Called with new events and pulses.
        """
        inside_B = np.ones(len(numbers), bool)

        def make_batch(some: NDArray[np.int64]) -> PackedBatch:
            raw = self._reader.raw(numbers[some])
            if self.domain is not None:
                inside_B[some] = self.domain.check_values(
                    {name: value.numpy() for name, value in raw.columns.items()},
                    raw.offsets.numpy(),
                    length_B[some],
                    self.store.detector,
                )
            return self._reader.packed(raw)

        (outputs,) = outputs_in_batches(
            [self.model], length_B, make_batch, self.options, on_progress
        )
        return outputs, inside_B


@torch.no_grad()
def outputs_in_batches(
    models: Sequence[Model],
    length_B: NDArray[np.integer[Any]],
    make_batch: Callable[[NDArray[np.int64]], PackedBatch],
    options: InferenceConfig,
    on_progress: Progress | None = None,
) -> list[Outputs]:
    """Return the outputs of models for events, (B, K) by task, for each model.

    Args:
        models: On one device; put into evaluation mode meanwhile.
        length_B: Pulses of each event; those without get NaN.
        make_batch: Gives the events at some places, (b,), none of them empty.
        options: Batch size and precision.
        on_progress: Called with new events and pulses.
    """
    device = next(models[0].parameters()).device
    found = [empty_outputs(model, len(length_B)) for model in models]
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    full = np.flatnonzero(length_B > 0)
    # The longest first: what they leave in memory is large enough for all others. From
    # the shortest on, the process takes nearly three times as much.
    full = full[np.argsort(-length_B[full], kind="stable")]
    try:
        for start in range(0, len(full), options.batch_size):
            some = full[start : start + options.batch_size]
            batch = make_batch(some).to(device)
            is_short = options.precision == "bfloat16"
            with torch.autocast(device.type, torch.bfloat16, enabled=is_short):
                for model, outputs in zip(models, found, strict=True):
                    for name, output in model.outputs(batch).items():
                        outputs[name][some] = output.cpu().double().numpy()
            if on_progress is not None:
                on_progress(len(some), int(length_B[some].sum()))
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    if on_progress is not None and len(full) < len(length_B):
        on_progress(len(length_B) - len(full), 0)
    return found


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
        without any, `not finite` where the model gave no number.
    """
    numbers, outputs = event_outputs(
        model,
        store,
        events,
        options=options,
        augmentations=augmentations,
        on_progress=on_progress,
    )
    return table_of_outputs(
        name,
        model.task_map,
        outputs,
        store.whole_event_column(EVENT_ID)[numbers],
        store.whole_event_column(N_PULSES)[numbers],
        calibrations or {},
        contours,
    )


def event_outputs(
    model: Model,
    store: EventStore,
    events: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    options: InferenceConfig | None = None,
    augmentations: Sequence[Augmentation] = (),
    on_progress: Progress | None = None,
) -> tuple[NDArray[np.int64], Outputs]:
    """Return numbers of events, (B,), and a model's outputs; see `predict_events`."""
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    length_B = store.whole_event_column(N_PULSES)[numbers]
    options = options or InferenceConfig.of(model.input_config)
    predictor = Predictor(model, store, options, augmentations)
    windows = []
    for first in range(0, max(1, len(numbers)), WINDOW):
        some = slice(first, first + WINDOW)
        windows.append(predictor.outputs(numbers[some], length_B[some], on_progress)[0])
    return numbers, {
        task: np.concatenate([window[task] for window in windows])
        for task in model.task_map
    }


def table_of_outputs(
    name: str,
    tasks: Mapping[str, Task],
    outputs: Outputs,
    event_id: NDArray[np.int64],
    length_B: NDArray[np.integer[Any]],
    calibrations: Calibrations,
    contours: Sequence[float] = CONTOURS,
) -> EventTable:
    """Return the outputs of tasks as a table of their columns.

    An event's status is `ok` if one of its tasks has an answer; of several tasks the
    column `TASK_is_valid` says which have. A task without a calibration keeps its own
    widths.
    """
    columns: dict[str, NDArray[Any]] = {}
    valid: dict[str, NDArray[np.bool_]] = {}
    full_B = np.asarray(length_B) > 0
    status_B = np.where(full_B, "", NO_PULSES).astype(object)
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
