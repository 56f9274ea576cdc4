"""An event store as a GraphNeT dataset: one event at a time, any data representation.

For people who keep GraphNeT's own data module and graphs. Whole batches at once, which
is many times faster, come from `StoreDataModule`. Shape letter: B events.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from graphnet.data.dataset import Dataset
from graphnet.exceptions.exceptions import ColumnMissingException
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from graphnet_icecube2nd.conventions import EVENT_ID, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import FIRST_PULSE, TIME_ORIGIN
from graphnet_icecube2nd.tasks.label import (
    LABELS,
    label_columns,
    make_label,
    missing_label,
)


class StoreDataset(Dataset):
    """A GraphNeT `Dataset` that reads an event store.

    A drop-in for `SQLiteDataset`, also as `GraphNeTDataModule(dataset_reference=...)`:
    `path` is the store, `pulsemaps` and `truth_table` may be called anything, and
    `index_column` gives the store's `event_id`. `truth` may name labels (`direction`,
    `energy`, `track`) besides columns of the store; an event without a label has NaN
    there. Events without pulses are left out.
    Where the store knows DOMs by sensor_id alone, x, y, z can be asked for as well.
    Times are those of the source, in float64. The arguments are GraphNeT's.

    Raises:
        ValueError: As `EventStore`; a selected event is not in the store, or the store
            lacks the columns that a label is made of.
    """

    _truth: list[str]

    def _init(self) -> None:
        self._missing_variables: dict[str, list[str]] = {}
        self._store = EventStore(self._path)
        self._known = self._store.pulse_map.columns()
        self._columns_of_label = {
            name: self._label_columns(name) for name in self._truth if name in LABELS
        }
        self._label_of_shard: dict[tuple[str, int], Tensor] = {}
        self._truth = [n for n in self._truth if n not in self._columns_of_label]

    def _post_init(self) -> None:
        events = self._indices
        ids = [i[0] if isinstance(i, list | tuple) else i for i in events]
        row = np.searchsorted(self._sorted_ids, ids)
        row = np.minimum(row, len(self._sorted_ids) - 1)
        found = self._sorted_ids[row] == np.asarray(ids)
        if not found.all():
            raise ValueError(
                f"event {np.asarray(ids)[~found][0]} is not in {self._path}, or has no "
                f"pulses ({int((~found).sum())} of {len(ids)} selected events)"
            )
        self._number_B = self._numbers[row]
        self._remove_missing_columns()

    def __getitem__(self, sequential_index: int) -> Data:
        """Return an event as the data representation makes it, with its labels."""
        graph = super().__getitem__(sequential_index)
        for name in self._columns_of_label:
            shard, event = self._place_of(sequential_index)
            graph[name] = self._label(name, shard)[event : event + 1]
        return graph

    def _label_columns(self, name: str) -> tuple[str, ...]:
        available, labels = self._store.event_columns, self._store.pulse_map.labels
        columns = label_columns(name, available, labels)
        if columns is None:
            raise missing_label(name, available, labels, str(self._path))
        return columns

    def _label(self, name: str, shard: int) -> Tensor:
        """Return a label of the events of a shard, (B, ...) float32."""
        if (name, shard) not in self._label_of_shard:
            columns = {
                column: np.asarray(self._store.event_column(column, shard))
                for column in self._columns_of_label[name]
            }
            label = make_label(name, columns, self._store.pulse_map.labels)
            self._label_of_shard[name, shard] = torch.from_numpy(label).float()
        return self._label_of_shard[name, shard]

    def _place_of(self, sequential_index: int) -> tuple[int, int]:
        """Return the shard of a selected event, and its row there."""
        number = self._number_B[sequential_index]
        shard = int(self._store.shard_of(np.array([number]))[0])
        return shard, int(number - self._store.shard_offsets[shard])

    def _get_all_indices(self) -> list[int]:
        order = np.argsort(self._numbers)
        return [int(number) for number in self._sorted_ids[order]]

    def _get_event_index(self, sequential_index: int | None) -> int:
        index = self._indices[sequential_index or 0]
        return int(index[0] if isinstance(index, list | tuple) else index)

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The event_ids in order, and the number in the store of each."""
        ids, numbers = [], []
        for shard, first in enumerate(self._store.shard_offsets[:-1]):
            full = np.flatnonzero(self._store.lengths(shard) > 0)
            ids.append(self._store.event_column(EVENT_ID, shard)[full])
            numbers.append(full + first)
        joined = np.concatenate(ids)
        order = np.argsort(joined)
        return joined[order], np.concatenate(numbers)[order]

    @property
    def _sorted_ids(self) -> NDArray[np.int64]:
        return self._index[0]

    @property
    def _numbers(self) -> NDArray[np.int64]:
        return self._index[1]

    def query_table(
        self,
        table: str,
        columns: list[str] | str,
        sequential_index: int | None = None,
        selection: str | None = None,
    ) -> NDArray[Any]:
        """Return columns of one event, or of the truth of all.

        Raises:
            ColumnMissingException: The store has no such column.
            ValueError: A selection of pulses, which stores do not know.
        """
        if selection and selection != "1=1":
            raise ValueError(
                f"an event store cannot select pulses by {selection!r}; "
                "string_selection works with GraphNeT's SQLite files"
            )
        names = [columns] if isinstance(columns, str) else list(columns)
        if sequential_index is None:
            return np.stack([self._truth_of_all(name) for name in names], axis=1)
        shard_number, event = self._place_of(sequential_index)
        shard = self._store.shards[shard_number]
        if table in self._pulsemaps:
            first = int(shard.events.column(FIRST_PULSE)[event])
            rows = slice(first, first + int(shard.events.column("n_pulses")[event]))
            pulses = [self._pulses(shard, name, rows, event) for name in names]
            return np.stack(pulses, axis=1)
        return np.array(
            [[self._truth_column(name, shard_number)[event] for name in names]]
        )

    def _pulses(self, shard: Any, name: str, rows: slice, event: int) -> NDArray[Any]:
        if name in self._store.pulse_columns:
            values = shard.pulses.column(name)[rows].astype(np.float64)
            if self._known.get(name) == TIME and TIME_ORIGIN in shard.events.names:
                values += shard.events.column(TIME_ORIGIN)[event]
            result: NDArray[Any] = values
            return result
        dom_columns = [c for c, q in self._known.items() if q == SENSOR_ID]
        if self._known.get(name) in (X, Y, Z) and dom_columns:
            dom = shard.pulses.column(dom_columns[0])[rows]
            axis = (X, Y, Z).index(self._known[name])
            place_S = self._store.geometry.position_S3.numpy()[:, axis]
            # in the coordinates of the file, as the pulse map reads them
            position: NDArray[Any] = place_S[dom] + self._store.pulse_map.origin[axis]
            return position
        raise ColumnMissingException(
            f"no pulse column {name!r} in {self._path}; it has "
            f"{', '.join(self._store.pulse_columns)}"
        )

    def _truth_column(self, name: str, shard: int) -> NDArray[Any]:
        name = EVENT_ID if name == self._index_column else name
        if name not in self._store.event_columns:
            raise ColumnMissingException(
                f"no event column {name!r} in {self._path}; it has "
                f"{', '.join(self._store.event_columns)}"
            )
        return self._store.event_column(name, shard)

    def _truth_of_all(self, name: str) -> NDArray[Any]:
        shards = range(len(self._store.shards))
        pieces = [
            self._truth_column(name, shard)[self._store.lengths(shard) > 0]
            for shard in shards
        ]
        return np.concatenate(pieces)
