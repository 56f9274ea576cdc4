"""Predictions of a GraphNeT model for each batch of a loader.

Event numbers and numbers of pulses are read from the batch that is predicted, so the
order of the loader, and events that it drops, cannot shift them. Shape letters: B
events, P columns of a prediction, K outputs of a task of this package.
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
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from graphnet_icecube2nd.conventions import CHARGE, TIME, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.graphnet_adapter.representations import PulseReader
from graphnet_icecube2nd.graphnet_adapter.store import PygLoader, StoreDataset
from graphnet_icecube2nd.graphnet_adapter.tasks import TaskHead
from graphnet_icecube2nd.inference.domain import Domain
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import lengths_and_faults
from graphnet_icecube2nd.loading.subset import EventSubset
from graphnet_icecube2nd.results.event_table import (
    DIRECTION_NAMES,
    KAPPA_NAMES,
    PREDICTION_NAMES,
)
from graphnet_icecube2nd.results.result_files import whole_numbers
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.tasks.catalogue import build_task, list_tasks
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Column, Task

SMALLEST_KAPPA = 1e-150  # a vector of this length still has its direction


class GraphnetColumns(Task):
    """A GraphNeT task whose predictions become columns of results unchanged."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.columns = tuple(map(Column, names))  # type: ignore[misc]
        self.num_outputs = len(names)  # type: ignore[misc]

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns, (B,) each."""
        names = (column.name for column in self.columns)
        return dict(zip(names, output.unbind(1), strict=True))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Conversion of the prediction of a `StandardModel`'s task to columns of results.

    Args:
        name: Prefix of `_is_valid`.
        task: Task that makes columns from outputs (B, K).
        num_columns: P, columns of the prediction.
        direction_columns: Columns of x, y, z and kappa in the prediction; None if the
            prediction is the outputs.
    """

    name: str
    task: Task
    num_columns: int
    direction_columns: tuple[int, ...] | None = None

    def outputs(
        self,
        prediction: NDArray[np.float64] | None,
        event_id: NDArray[np.int64],
        full_B: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Return the outputs (B, K) of a prediction; NaN for events without pulses."""
        outputs = np.full((len(full_B), self.task.num_outputs), np.nan)
        if prediction is None:
            return outputs
        expected = (int(full_B.sum()), self.num_columns)
        if prediction.shape != expected:
            raise ValueError(
                f"the prediction of {self.name!r} must be {expected}, one row for each "
                "event and one column for each of the task's prediction_labels; found "
                f"{prediction.shape}. Tasks that predict pulses are not supported"
            )
        if self.direction_columns is not None:
            value_B4 = prediction[:, self.direction_columns]
            prediction = _vectors(value_B4, event_id[full_B])
        outputs[full_B] = prediction
        return outputs


@dataclass(frozen=True, kw_only=True, eq=False)
class EventPredictions:
    """Predictions of a model for B events."""

    event_id: NDArray[np.int64]  # (B,)
    n_pulses: NDArray[np.int64]  # (B,), before any selection of pulses
    outputs: dict[str, NDArray[np.float64]]  # (B, K) by answer; NaN without pulses
    inside: NDArray[np.bool_]  # (B,), within the ranges of the training
    fault: NDArray[np.str_]  # (B,), fault of the pulses such as `bad charge`, or ``


def domain_of(
    model: StandardModel, dataloader: Any, unknown_detector: bool
) -> Domain | None:
    """Return the domain guard of model and data; None if one of them is not known.

    The model's training is known from weights that `load_weights` put into
    `model.backbone.model`, or else from the model's data representation. The data are
    known from the representation of the loader's datasets, or from the store of a
    `StoreDataModule`. With a `StoreDataModule` the model's representation is not used,
    so a difference from it gives only a warning.

    Raises:
        DomainError: The data have another detector or clock than the training.
    """
    core = getattr(model.backbone, "model", None)
    config: InputConfig | None = getattr(core, "input_config", None)
    if config is None:
        unknown_detector = unknown_detector or isinstance(dataloader, PygLoader)
        own = _reading_of(model._data_representation)
        config = None if own is None else InputConfig.of(own[0], **own[1])
    if config is None:
        return None
    domains = [
        Domain(
            config,
            detector,
            InferenceConfig.of(config, scales=None, **options),
            unknown_detector=unknown_detector,
        )
        for detector, options in _readings_of_data(dataloader)
    ]
    # The datasets may differ; the one furthest from the training decides.
    return max(domains, key=lambda domain: len(domain.differences), default=None)


def _inside(
    domain: Domain, batches: Sequence[Data], n_pulses_B: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return True for events within the trained ranges, (B,)."""
    detector = domain.detector
    names = detector.pulses.feature_names
    # With other columns the model itself raises an error.
    is_read = all(batch.x.shape[1] == len(names) for batch in batches)
    if domain.config is None or not domain.config.ranges or not is_read or not batches:
        return np.ones(len(n_pulses_B), bool)
    lengths = [torch.diff(b.ptr).cpu() if "ptr" in b else [len(b.x)] for b in batches]
    offsets = np.append(0, np.cumsum(np.concatenate(lengths)))
    features_TF = torch.cat([batch.x.cpu().double() for batch in batches])
    columns = {}
    for quantity in (X, Y, Z, TIME, CHARGE):
        feature_T = features_TF[:, names.index(quantity)]
        value_T = detector.pulses.unscale(quantity, feature_T, detector.scales)
        columns[quantity] = value_T.numpy()
    if "centre" in batches[0]:  # ranges are those of positions in the detector
        centre_B3 = torch.cat([batch["centre"].cpu() for batch in batches]).numpy()
        for axis, quantity in enumerate((X, Y, Z)):
            columns[quantity] += np.repeat(centre_B3[:, axis], np.diff(offsets))
    return domain.check_values(columns, offsets, n_pulses_B)


def _reading_of(representation: Any) -> tuple[Detector, dict[str, Any]] | None:
    """Return detector and options of a data representation, or None if not known."""
    for part in (representation, getattr(representation, "_node_definition", None)):
        reader = getattr(part, "_reader", None)
        if isinstance(reader, PulseReader):
            names = ("max_pulses", "selection", "positions")
            return reader.detector, {name: getattr(reader, name) for name in names}
    return None


def _readings_of_data(data: Any) -> list[tuple[Detector, dict[str, Any]]]:
    """Return detector and options of the datasets of a loader, where known."""
    if isinstance(data, PygLoader):
        reader = data.loader.reader
        options: dict[str, Any] = {"positions": reader.positions}
        if reader.max_pulses is not None:
            options |= {"max_pulses": reader.max_pulses, "selection": reader.selection}
        return [(reader.store.detector, options)]
    if hasattr(data, "_data_representation"):
        reading = _reading_of(data._data_representation)
        return [] if reading is None else [reading]
    # Subsets and ensembles contain other datasets.
    inner = getattr(data, "datasets", None) or [getattr(data, "dataset", None)]
    return [r for one in inner if one is not None for r in _readings_of_data(one)]


def answers_of(model: StandardModel) -> list[Answer]:
    """Return one answer for each task of a model, in the order of the tasks.

    Tasks of this package give their own columns. A GraphNeT task that predicts x, y, z
    and kappa is a direction, also if the user renamed them. Other predictions get the
    name of this package if there is one (`energy_pred` is `energy`), or keep theirs.

    Raises:
        TypeError: The model is not a `StandardModel`.
        ValueError: Two tasks give the same column.
    """
    if not isinstance(model, StandardModel):
        raise TypeError(
            f"the model must be a StandardModel of GraphNeT, got {type(model).__name__}"
        )
    answers = [_answer(task) for task in model._tasks]
    givers: dict[str, str] = {}
    for task, answer in zip(model._tasks, answers, strict=True):
        giver = f"{type(task).__name__} ({', '.join(task._prediction_labels)})"
        outputs = torch.ones(1, answer.task.num_outputs)
        for column in {answer.name, *answer.task.predict(outputs)}:
            if column in givers:
                raise ValueError(
                    f"two tasks of the model give {column!r}: {givers[column]} and "
                    f"{giver}. Give one of them other prediction_labels, or use one "
                    "model for each"
                )
            givers[column] = giver
    return answers


def _answer(task: Any) -> Answer:
    if isinstance(task, TaskHead):
        ours = task.task
        return Answer(name=ours.name, task=ours, num_columns=ours.num_outputs)
    for labels in (task.default_prediction_labels, task._prediction_labels):
        columns = _direction_columns(list(labels))
        if columns is not None:
            return Answer(
                name=Direction.name,
                task=Direction(),
                num_columns=len(labels),
                direction_columns=columns,
            )
    names = [PREDICTION_NAMES.get(name, name) for name in task._prediction_labels]
    first_columns = {build_task(n).columns[0].name: n for n in list_tasks()}
    return Answer(
        name=first_columns.get(names[0], names[0]),
        task=GraphnetColumns(names),
        num_columns=len(names),
    )


def _direction_columns(labels: list[str]) -> tuple[int, ...] | None:
    """Return the columns of x, y, z and kappa, or None if one is missing."""
    for names in DIRECTION_NAMES:
        for kappa in KAPPA_NAMES:
            if {*names, kappa} <= set(labels):
                return tuple(labels.index(name) for name in (*names, kappa))
    return None


def _vectors(
    value_B4: NDArray[np.float64], event_id: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return kappa * direction, (B, 3); NaN where x, y, z or kappa is not finite."""
    direction_B3, kappa_B = value_B4[:, :3], value_B4[:, 3]
    negative_B = kappa_B < 0
    if negative_B.any():
        raise ValueError(
            f"event {event_id[negative_B][0]}: kappa must be 0 or more, found "
            f"{kappa_B[negative_B][0]:g}"
        )
    length_B = np.linalg.norm(direction_B3, axis=1)
    scale_B = np.maximum(kappa_B, SMALLEST_KAPPA) / np.where(length_B > 0, length_B, 1)
    with np.errstate(invalid="ignore"):
        vector_B3: NDArray[np.float64] = direction_B3 * scale_B[:, None]
    vector_B3[~np.isfinite(value_B4).all(axis=1)] = np.nan
    return vector_B3


@contextmanager
def evaluating(model: StandardModel) -> Iterator[None]:
    """Put a model and its tasks into evaluation mode, and restore all modes after."""
    modes = [(module, module.training) for module in model.modules()]
    inferring = [(task, task._inference) for task in model._tasks]
    model.inference()  # tasks undo the transformations of their labels
    model.train(False)
    for task in model._tasks:
        if isinstance(task, TaskHead):  # calibrations need its raw outputs
            task.train_eval()
    try:
        yield
    finally:
        # One by one: a frozen backbone may be in evaluation mode in a training model.
        for module, mode in modes:
            module.training = mode
        for task, flag in inferring:
            task._inference = flag


def event_predictions(
    model: StandardModel,
    dataloader: Iterable[Any],
    event_column: str = "event_no",
    domain: Domain | None = None,
) -> Iterator[EventPredictions]:
    """Yield the predictions of each batch, in the loader's order.

    The model must be in evaluation mode (see `evaluating`). It runs on its device, and
    gets no events without pulses.

    Args:
        model: A `StandardModel`.
        dataloader: A loader of PyG batches with `n_pulses` and the event number.
        event_column: Name of the event number in the batches.
        domain: Domain guard, see `domain_of`.

    Raises:
        TypeError: The loader does not give PyG batches.
        ValueError: A batch lacks event number or `n_pulses`, or a prediction does not
            have one row for each event.
    """
    answers = answers_of(model)
    if isinstance(dataloader, Dataset):
        raise TypeError(
            f"expected a loader of batches, got {type(dataloader).__name__}. Use a "
            "DataLoader of it with collate_fn=collate_events"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for item in dataloader:
        batches = _batches(item)
        if not batches:  # a collate function that drops events may leave none
            continue
        # Read before the model runs, because some models change the batch.
        event_id = whole_numbers(_per_event(batches, event_column), event_column)
        n_pulses = whole_numbers(_per_event(batches, N_PULSES), N_PULSES)
        if len(event_id) != len(n_pulses):
            raise ValueError(
                f"a batch must have one {event_column} and one {N_PULSES} for each "
                f"event, found {len(event_id)} and {len(n_pulses)}"
            )
        full_B = n_pulses > 0
        shown = batches if full_B.all() else _with_pulses(batches, full_B)
        inside_B = np.ones(len(full_B), bool)
        if domain is not None:
            inside_B[full_B] = _inside(domain, shown, n_pulses[full_B])
        predictions: list[Any] = [None] * len(answers)
        if shown:
            with torch.no_grad():
                moved = [batch.to(device) for batch in shown]
                found = model(moved if isinstance(item, list | tuple) else moved[0])
            predictions = [value.cpu().double().numpy() for value in found]
        yield EventPredictions(
            event_id=event_id,
            n_pulses=n_pulses,
            inside=inside_B,
            fault=np.full(len(full_B), ""),
            outputs={
                answer.name: answer.outputs(prediction, event_id, full_B)
                for answer, prediction in zip(answers, predictions, strict=True)
            },
        )


def without_pulses(data: Any, answers: Sequence[Answer]) -> EventPredictions | None:
    """Return the events that a loader of a whole store skips; None for other loaders.

    They have no pulses, or `prepare` dropped all their pulses because one was bad.
    """
    dataset = getattr(data, "dataset", None)
    if isinstance(data, PygLoader):
        store = data.loader.reader.store
        is_whole = data.loader.plan.subset == EventSubset()
    elif isinstance(dataset, StoreDataset):
        store = dataset._store
        is_whole = len(dataset) == len(dataset._full)
    else:
        return None
    empty = np.flatnonzero(store.whole_event_column(N_PULSES) == 0)
    if not is_whole or not len(empty):
        return None
    length_B, fault_B = lengths_and_faults(
        store, lambda column: store.whole_event_column(column)[empty]
    )
    return EventPredictions(
        event_id=store.whole_event_column(EVENT_ID)[empty],
        n_pulses=length_B,
        inside=np.ones(len(empty), bool),
        fault=np.full(len(empty), "") if fault_B is None else fault_B,
        outputs={
            answer.name: answer.outputs(None, empty, np.zeros(len(empty), bool))
            for answer in answers
        },
    )


def _with_pulses(batches: Sequence[Data], full_B: NDArray[np.bool_]) -> list[Data]:
    """Return batches without their empty events, and without empty batches."""
    kept, first = [], 0
    for batch in batches:
        num_events = len(batch[N_PULSES].reshape(-1))
        mask = torch.from_numpy(full_B[first : first + num_events])
        first += num_events
        if bool(mask.all()):
            kept.append(batch)
        elif bool(mask.any()):
            kept.append(Batch.from_data_list(batch.index_select(mask)))
    return kept


def _batches(item: Any) -> list[Data]:
    batches = list(item) if isinstance(item, list | tuple) else [item]
    for batch in batches:
        if not isinstance(batch, Data):
            raise TypeError(
                "the loader must give PyG batches, as the loaders of GraphNeT and of "
                f"StoreDataModule do; got {type(batch).__name__}"
            )
    return batches


def _per_event(batches: Sequence[Data], name: str) -> NDArray[Any]:
    """Return an attribute of all events of batches, (B,)."""
    values = []
    for batch in batches:
        if name not in batch:
            raise ValueError(
                f"the batch has no {name!r}; it has {', '.join(sorted(batch.keys()))}"
                + ("" if name == N_PULSES else ". Set event_column to the event number")
            )
        value = batch[name]
        value = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        values.append(np.asarray(value).reshape(-1))
    return np.concatenate(values)
