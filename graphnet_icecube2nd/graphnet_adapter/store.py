"""Event stores in GraphNeT: `StoreDataModule` and `StoreDataset`.

`StoreDataModule` gives whole batches for `StandardModel.fit`, with the tensors of
`EventDataModule`. `StoreDataset` makes one object for each event, in any data
representation, which is many times slower; it works with GraphNeT's own data module and
graphs. Shape letters: T pulses, B events, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from graphnet.data.dataset import Dataset
from graphnet.exceptions.exceptions import ColumnMissingException
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import SequentialSampler
from torch_geometric.data import Batch, Data

from graphnet_icecube2nd.conventions import (
    EVENT_ID,
    SENSOR_ID,
    TIME,
    TIME_ORIGIN,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.graphnet_adapter.representations import PackedPulses
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.loading.loader import EventLoader
from graphnet_icecube2nd.loading.reading import EventBlock, EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.label import (
    LABELS,
    label_columns,
    make_label,
    missing_label,
)


def as_pyg_batch(batch: PackedBatch, index_column: str = "event_no") -> Batch:
    """Return a packed batch as the PyG batch that GraphNeT's models read.

    Args:
        batch: The batch.
        index_column: Name of the event key in the PyG batch.

    Returns:
        A batch with `x` (T, F), `batch` (T,), `ptr` (B + 1,), `n_pulses` (B,), the
        event key (B,), and the truth by name, such as `direction` (B, 3).
    """
    num_events = len(batch)
    result = Batch(_base_cls=Data)
    one_each = torch.arange(num_events + 1)
    result.x = batch.features
    slices = {"x": batch.offsets}
    per_event = {"n_pulses": batch.n_pulses, **(batch.truth or {})}
    if batch.centre is not None:
        per_event["centre"] = batch.centre
    if batch.event_id is not None:
        per_event[index_column] = batch.event_id
    for name, values in per_event.items():
        result[name] = values
        slices[name] = one_each
    constant = {"features": list(batch.names), "units": batch.units}
    for name, value in constant.items():
        if value is not None:
            result[name] = [value] * num_events
            slices[name] = one_each
    event_B = torch.arange(num_events)
    result.batch = event_B.repeat_interleave(batch.lengths)
    result.ptr = batch.offsets
    # PyG needs these to split the batch again.
    result._num_graphs = num_events
    result._slice_dict = slices
    result._inc_dict = {
        name: None if name in constant else torch.zeros(num_events, dtype=torch.int64)
        for name in slices
    }
    return result


class PygLoader:
    """An `EventLoader` with PyG batches; it can be resumed.

    Its ranks are those that exist when it is made. `StandardModel.fit(gpus=[0, 1])`
    starts ranks later, which would all get the same batches; that is an error.

    Args:
        loader: The loader of packed batches.
        index_column: Name of the event key in the batches.
    """

    def __init__(self, loader: EventLoader, index_column: str = "event_no") -> None:
        self.loader = loader
        self.index_column = index_column

    def __len__(self) -> int:
        """Return the number of batches of the sub-epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the sub-epoch."""
        is_distributed = distributed.is_available() and distributed.is_initialized()
        now = distributed.get_world_size() if is_distributed else 1
        made_for = self.loader.plan.rule.world_size
        if now > made_for:
            raise ValueError(
                f"the loader was made for {made_for} ranks, but training runs on "
                f"{now}, which would all train on the same events. Give `fit` one "
                "device, or use `icecube2nd train --devices`"
            )
        for batch in self.loader:
            yield as_pyg_batch(batch, self.index_column)

    @property
    def dataset(self) -> range:
        """Range of the events; GraphNeT asks for its length."""
        return range(self.loader.plan.num_events)

    @property
    def sampler(self) -> Any:
        """Sequential sampler if the order is fixed, as GraphNeT checks, or None."""
        options = self.loader.plan.options()
        is_in_order = not options["shuffle"] and not options["length_buckets"]
        return SequentialSampler(self.dataset) if is_in_order else None

    batch_sampler = None  # Lightning asks for it if there is a sampler

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, as `EventLoader` does."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to the position of a state, as `EventLoader` does."""
        self.loader.load_state_dict(state)


class StoreDataModule(EventDataModule):
    """An event store as data of GraphNeT's models, in whole batches.

        model.fit(data.train_dataloader(), data.val_dataloader(), ...)
        predict_events(model, data.predict_dataloader())

    Its batches are for the backbones of this package; they do not use the data
    representation of the `StandardModel`.

    Args:
        *arguments: Arguments of `EventDataModule`.
        index_column: Name of the event key in the batches.
        **options: Options of `EventDataModule`. Batches have the labels (`direction`,
            `energy`, `track`) and columns of `truth` by name, NaN if an event has
            none.
    """

    def __init__(
        self, *arguments: Any, index_column: str = "event_no", **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.index_column = index_column

    def _loader(  # type: ignore[override]
        self, reader: EventReader, sampler: EventSampler, **options: Any
    ) -> PygLoader:
        loader = super()._loader(reader, sampler, **options)
        return PygLoader(loader, self.index_column)


class StoreDataset(Dataset):
    """A GraphNeT `Dataset` that reads an event store.

    It replaces `SQLiteDataset`, also in `GraphNeTDataModule(dataset_reference=...)`,
    and has its arguments. `path` is the store, `pulsemaps` and `truth_table` may have
    any name, and `index_column` is read from the store's `event_id`. `truth` may name
    labels (`direction`, `energy`, `track`) besides columns of the store; they are NaN
    for an event without the label. Events without pulses are left out. x, y and z are
    available also if the store has only sensor_id. Times are those of the source, in
    float64.

    Raises:
        ValueError: The store cannot be read (see `EventStore`), lacks a selected event,
            or lacks the columns of a label.
    """

    _truth: list[str]

    def _init(self) -> None:
        self._missing_variables: dict[str, list[str]] = {}
        self._store = EventStore(self._path)
        self._known = self._store.pulse_map.columns()
        # Events with pulses, in the order of the store and in the order of event_id.
        self._full = np.flatnonzero(self._store.whole_event_column(N_PULSES) > 0)
        ids = self._store.whole_event_column(EVENT_ID)[self._full]
        order = np.argsort(ids)
        self._sorted_ids, self._numbers = ids[order], self._full[order]
        self._label_names = [name for name in self._truth if name in LABELS]
        self._truth = [name for name in self._truth if name not in LABELS]

    def _post_init(self) -> None:
        events = self._indices
        ids = [i[0] if isinstance(i, list | tuple) else i for i in events]
        row = np.searchsorted(self._sorted_ids, ids)
        row = np.minimum(row, len(self._sorted_ids) - 1)
        found = self._sorted_ids[row] == np.asarray(ids)
        if not found.all():
            raise ValueError(
                f"{self._path} lacks {int((~found).sum())} of the {len(ids)} selected "
                "events, or they have no pulses; the first is event "
                f"{np.asarray(ids)[~found][0]}"
            )
        self._number_B = self._numbers[row]
        self._labels = {name: self._make_label(name) for name in self._label_names}
        self._remove_missing_columns()

    def __getitem__(self, sequential_index: int) -> Data:
        """Return an event in the data representation, with its labels."""
        if not 0 <= sequential_index < len(self):
            raise IndexError(
                f"index must be 0 to {len(self) - 1}, got {sequential_index}"
            )
        return self.__getitems__([sequential_index])[0]

    def __getitems__(self, sequential_indices: Sequence[int]) -> list[Data]:
        """Return events that are read together; torch's `DataLoader` calls this."""
        if self._node_truth or self._selection:  # GraphNeT reads these one by one
            one_by_one = super().__getitem__
            return [one_by_one(index) for index in sequential_indices]
        chosen_B = np.asarray(sequential_indices)
        block = EventBlock(self._store, self._number_B[chosen_B])
        offsets = np.append(0, np.cumsum(block.length_B))
        pulses_TC = self._pulses(block, self._features)
        truth_BC = self._events(block, self._truth)
        weight_B1 = None
        if self._loss_weight_column is not None:
            weight_B1 = self._events(block, [self._loss_weight_column])
        if isinstance(self._data_representation, PackedPulses):
            graphs = self._data_representation.graphs(
                pulses_TC,
                offsets,
                self._features,
                [self._truth_dicts(truth_C) for truth_C in truth_BC],
                self._label_fns,
                self._loss_weight_column,
                weight_B1,
                self._loss_weight_default_value,
                self._path,
            )
        else:
            graphs = [
                self._create_graph(
                    pulses_TC[offsets[b] : offsets[b + 1]],
                    truth_BC[b],
                    loss_weight=None if weight_B1 is None else weight_B1[b],
                )
                for b in range(len(chosen_B))
            ]
        for name, label_B in self._labels.items():
            parts = label_B[torch.from_numpy(chosen_B), None].unbind(0)
            for graph, part in zip(graphs, parts, strict=True):
                graph[name] = part
        return graphs

    def _truth_dicts(self, truth_C: NDArray[Any]) -> list[dict[str, Any]]:
        """Return the truth of one event as GraphNeT's `_create_graph` makes it."""
        columns = truth_C.reshape(-1, 1)
        truth = dict(zip(self._truth, columns, strict=True))
        return [self._get_labels(truth), truth]

    def _make_label(self, name: str) -> Tensor:
        """Return a label of the selected events, (B, ...) float32."""
        available, labels = self._store.event_columns, self._store.detector.labels
        chosen = label_columns(name, available, labels)
        if chosen is None:
            raise missing_label(name, available, labels, str(self._path))
        columns = {n: self._store.whole_event_column(n)[self._number_B] for n in chosen}
        return torch.from_numpy(make_label(name, columns, labels)).float()

    def _get_all_indices(self) -> list[int]:
        ids: list[int] = self._store.whole_event_column(EVENT_ID)[self._full].tolist()
        return ids

    def _get_event_index(self, sequential_index: int | None) -> int:
        index = self._indices[sequential_index or 0]
        return int(index[0] if isinstance(index, list | tuple) else index)

    def query_table(
        self,
        table: str,
        columns: list[str] | str,
        sequential_index: int | None = None,
        selection: str | None = None,
    ) -> NDArray[Any]:
        """Return columns of one event, or columns of the truth of all events.

        Args:
            table: A pulse map for columns of pulses; any other name for the truth.
            columns: Names of the columns.
            sequential_index: Index of the event; None for the truth of all events.
            selection: Selection of pulses, which a store does not support.

        Raises:
            ValueError: There is a selection.
            ColumnMissingException: The store lacks a column.
        """
        if selection and selection != "1=1":
            raise ValueError(
                f"an event store cannot select pulses, got {selection!r}. Use "
                "string_selection with GraphNeT's SQLite files"
            )
        names = [columns] if isinstance(columns, str) else list(columns)
        if sequential_index is None:
            whole = [self._store.whole_event_column(self._truth_name(n)) for n in names]
            return np.stack([column[self._full] for column in whole], axis=1)
        block = EventBlock(self._store, self._number_B[[sequential_index]])
        if table not in self._pulsemaps:
            return self._events(block, names)
        return self._pulses(block, names)

    def _events(self, block: EventBlock, names: Sequence[str]) -> NDArray[Any]:
        """Return columns of the truth of some events, (B, C)."""
        return np.stack([block.events(self._truth_name(name)) for name in names], 1)

    def _pulses(self, block: EventBlock, names: Sequence[str]) -> NDArray[Any]:
        """Return columns of all pulses of events, (T, C), as in the source file."""
        offsets = np.append(0, np.cumsum(block.length_B))
        position_T = np.arange(offsets[-1]) - np.repeat(offsets[:-1], block.length_B)
        columns, store = [], self._store
        dom_columns = [c for c, q in self._known.items() if q == SENSOR_ID]
        for name in names:
            quantity = self._known.get(name)
            if name in store.pulse_columns:
                value_T = block.pulses(name, position_T, offsets).astype(np.float64)
                if quantity == TIME and TIME_ORIGIN in store.event_columns:
                    value_T += np.repeat(block.events(TIME_ORIGIN), block.length_B)
            elif quantity in (X, Y, Z) and dom_columns:
                axis = (X, Y, Z).index(quantity)
                place_S = store.geometry.position_S3.numpy()[:, axis]
                dom_T = block.pulses(dom_columns[0], position_T, offsets)
                # coordinates of the file, as the pulse map reads them
                value_T = place_S[dom_T] + store.pulse_map.origin[axis]
            else:
                raise ColumnMissingException(
                    f"no pulse column {name!r} in {self._path}; it has "
                    f"{', '.join(store.pulse_columns)}"
                )
            columns.append(value_T)
        return np.stack(columns, axis=1)

    def _truth_name(self, name: str) -> str:
        """Return the store's name of a column of the truth."""
        name = EVENT_ID if name == self._index_column else name
        if name not in self._store.event_columns:
            raise ColumnMissingException(
                f"no event column {name!r} in {self._path}; it has "
                f"{', '.join(self._store.event_columns)}"
            )
        return name
