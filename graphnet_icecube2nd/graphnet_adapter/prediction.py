"""What a GraphNeT model says of each batch of a loader, with whose events those are.

One pass: numbers and pulses of the events come from the batch that is predicted, so
neither the order of the loader nor events that it drops can shift them. Shape letters:
B events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from graphnet.models import StandardModel
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torch_geometric.data import Data

from graphnet_icecube2nd.results.table_columns import (
    DIRECTION_NAMES,
    KAPPA_NAMES,
)
from graphnet_icecube2nd.store.manifest import N_PULSES


@dataclass(frozen=True, kw_only=True, eq=False)
class EventPredictions:
    """What a model says of some events.

    Args:
        event_id: (B,) int64.
        n_pulses: (B,) int64, before any selection of pulses.
        vector_B4: (B, 4) float64: direction x, y, z, as the task has it, and kappa.
    """

    event_id: NDArray[np.int64]
    n_pulses: NDArray[np.int64]
    vector_B4: NDArray[np.float64]


def direction_columns(model: StandardModel) -> tuple[int, tuple[int, ...]]:
    """Return which task gives directions, and its columns of x, y, z, kappa.

    A task's own names of its columns count before those that its user gave, which may
    be any.

    Raises:
        TypeError: Not a `StandardModel`.
        ValueError: No task gives x, y, z and kappa, or several do.
    """
    if not isinstance(model, StandardModel):
        raise TypeError(
            f"the model must be a StandardModel of GraphNeT, got {type(model).__name__}"
        )
    found = []
    for number, task in enumerate(model._tasks):
        for labels in (task.default_prediction_labels, task._prediction_labels):
            columns = _columns_of(list(labels))
            if columns is not None:
                found.append((number, columns))
                break
    if len(found) != 1:
        tasks = "; ".join(
            f"{type(task).__name__}: {', '.join(task._prediction_labels)}"
            for task in model._tasks
        )
        raise ValueError(
            f"one task must give {', '.join(DIRECTION_NAMES[1])} and {KAPPA_NAMES[1]}, "
            f"as DirectionReconstructionWithKappa does; {len(found)} do ({tasks})"
        )
    return found[0]


def _columns_of(labels: list[str]) -> tuple[int, ...] | None:
    for names in DIRECTION_NAMES:
        for kappa in KAPPA_NAMES:
            if {*names, kappa} <= set(labels):
                return tuple(labels.index(name) for name in (*names, kappa))
    return None


@contextmanager
def evaluating(model: StandardModel) -> Iterator[None]:
    """Put a model and its tasks into evaluation; afterwards each part is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    inferring = [(task, task._inference) for task in model._tasks]
    model.inference()  # tasks undo the transformations that they were trained with
    model.train(False)
    try:
        yield
    finally:
        # One by one: a frozen backbone stays in evaluation within a model in training.
        for module, mode in modes:
            module.training = mode
        for task, flag in inferring:
            task._inference = flag


def event_predictions(
    model: StandardModel, dataloader: Iterable[Any], event_column: str = "event_no"
) -> Iterator[EventPredictions]:
    """Yield the predictions of each batch, in the loader's order.

    Args:
        model: On the device it is to run on, in evaluation (see `evaluating`).
        dataloader: Gives PyG batches, or lists of them.
        event_column: What the batches call the numbers of the events.

    Raises:
        TypeError: Not such a loader.
        ValueError: A batch lacks an attribute, a number is no whole number, or there
            is not one prediction an event.
    """
    number, columns = direction_columns(model)
    if isinstance(dataloader, Dataset):
        raise TypeError(
            f"the data must come in batches: put the {type(dataloader).__name__} into "
            "a DataLoader, with collate_fn=collate_events"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for item in dataloader:
        batches = _batches(item)
        if not batches:  # a collate function that drops events may leave none
            continue
        # Before the model sees the batch: some change it.
        event_id = _whole_numbers(_per_event(batches, event_column), event_column)
        n_pulses = _whole_numbers(_per_event(batches, N_PULSES), N_PULSES)
        with torch.no_grad():
            moved = [batch.to(device) for batch in batches]
            answer = model(moved if isinstance(item, list | tuple) else moved[0])
        prediction = answer[number].cpu().double().numpy()
        is_table = prediction.ndim == 2 and prediction.shape[1] > max(columns)
        if not (is_table and len(prediction) == len(event_id) == len(n_pulses)):
            raise ValueError(
                f"a batch has {len(event_id)} {event_column} and {len(n_pulses)} "
                f"{N_PULSES}, and its prediction is {prediction.shape}; there must be "
                f"one row an event, and {max(columns) + 1} columns or more (a task of "
                "pulses gives more rows)"
            )
        vector_B4 = prediction[:, columns]
        _check_kappa(event_id, vector_B4[:, 3])
        yield EventPredictions(
            event_id=event_id, n_pulses=n_pulses, vector_B4=vector_B4
        )


def _batches(item: Any) -> list[Data]:
    batches = list(item) if isinstance(item, list | tuple) else [item]
    for batch in batches:
        if not isinstance(batch, Data):
            raise TypeError(
                "the loader must give batches of PyG, as GraphNeT's loaders and "
                f"StoreDataModule's do; got {type(batch).__name__}"
            )
    return batches


def _per_event(batches: Sequence[Data], name: str) -> NDArray[Any]:
    """Return an attribute of the events of some batches, (B,)."""
    values = []
    for batch in batches:
        if name not in batch:
            raise ValueError(
                f"the batch has no {name!r}; it has {', '.join(sorted(batch.keys()))}"
                + ("" if name == N_PULSES else " (event_column names another)")
            )
        value = batch[name]
        value = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        values.append(np.asarray(value).reshape(-1))
    return np.concatenate(values)


def _whole_numbers(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    if values.dtype.kind == "f":
        # Beyond, neighbouring numbers are one: float32 would mix up events.
        limit = 2.0 ** (np.finfo(values.dtype).nmant + 1)
        good_B = (values == np.floor(values)) & (np.abs(values) < limit)
        if not good_B.all():
            raise ValueError(
                f"{name} must be whole numbers that {values.dtype} can hold exactly, "
                f"got {values[~good_B][0]!r}"
            )
    elif values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, got {values.dtype}")
    return values.astype(np.int64)


def _check_kappa(event_id: NDArray[np.int64], kappa_B: NDArray[np.float64]) -> None:
    negative_B = kappa_B < 0
    if negative_B.any():
        raise ValueError(
            f"event {event_id[negative_B][0]}: kappa is {kappa_B[negative_B][0]:g}; "
            "a concentration is not below 0"
        )
