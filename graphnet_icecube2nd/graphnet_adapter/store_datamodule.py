"""StoreDataModule: batches of a store as `StandardModel.fit` takes them.

`EventDataModule` for PyG: a batch holds the same tensors and is built at once, not
joined from one object for each event. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import distributed
from torch.utils.data import SequentialSampler
from torch_geometric.data import Batch, Data

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.loading.datamodule import EventDataModule
from graphnet_icecube2nd.loading.loader import EventLoader
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler


def as_pyg_batch(batch: PackedBatch, index_column: str = "event_no") -> Batch:
    """Return a packed batch as the PyG batch that GraphNeT's models read.

    Args:
        batch: The batch.
        index_column: What the event key is called there.

    Returns:
        `x` (T, F), `batch` (T,), `ptr` (B + 1,), `n_pulses` (B,), the event key (B,),
        and the truth under its names, `direction` (B, 3) among it.
    """
    num_events = len(batch)
    result = Batch(_base_cls=Data)
    one_each = torch.arange(num_events + 1)
    result.x = batch.features
    slices = {"x": batch.offsets}
    per_event = {"n_pulses": batch.n_pulses, **(batch.truth or {})}
    if batch.event_id is not None:
        per_event[index_column] = batch.event_id
    for name, values in per_event.items():
        result[name] = values
        slices[name] = one_each
    result.features = [list(batch.names)] * num_events
    slices["features"] = one_each
    event_B = torch.arange(num_events)
    result.batch = event_B.repeat_interleave(batch.lengths)
    result.ptr = batch.offsets
    # What PyG needs to take the batch apart again.
    result._num_graphs = num_events
    result._slice_dict = slices
    result._inc_dict = {
        name: None if name == "features" else torch.zeros(num_events, dtype=torch.int64)
        for name in slices
    }
    return result


class PygLoader:
    """An `EventLoader` whose batches are PyG's; it resumes like one.

    It serves the ranks that exist when it is made. `StandardModel.fit(gpus=[0, 1])`
    starts its ranks later, so each would get the same batches: that is an error.

    Args:
        loader: The loader.
        index_column: What the event key is called in the batches.

    Raises:
        ValueError: When batches are asked for: there are more ranks now than it was
            made for.
    """

    def __init__(self, loader: EventLoader, index_column: str = "event_no") -> None:
        self.loader = loader
        self.index_column = index_column

    def __len__(self) -> int:
        """Return the number of batches of the sub-epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Hand out the batches of the sub-epoch."""
        self._check_ranks()
        for batch in self.loader:
            yield as_pyg_batch(batch, self.index_column)

    def _check_ranks(self) -> None:
        is_distributed = distributed.is_available() and distributed.is_initialized()
        now = distributed.get_world_size() if is_distributed else 1
        made_for = self.loader.plan.rule.world_size
        if now > made_for:
            raise ValueError(
                f"the loader was made for {made_for} ranks, but training runs on "
                f"{now}, which would all train on the same events: give `fit` one "
                "device, or train on several with `icecube2nd train --devices`"
            )

    @property
    def dataset(self) -> range:
        """The events by number; their count is what GraphNeT asks for."""
        return range(self.loader.plan.num_events)

    @property
    def sampler(self) -> Any:
        """The sampler by which GraphNeT knows that batches come in a fixed order."""
        options = self.loader.plan.options()
        is_in_order = not options["shuffle"] and not options["length_buckets"]
        return SequentialSampler(self.dataset) if is_in_order else None

    batch_sampler = None  # Lightning asks for it where there is a sampler

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, as `EventLoader` does."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to the position of a state, as `EventLoader` does."""
        self.loader.load_state_dict(state)


class StoreDataModule(EventDataModule):
    """A store as data for GraphNeT's models, a whole batch at once.

    `model.fit(data.train_dataloader(), data.val_dataloader(), ...)`, and
    `model.predict_as_dataframe(data.predict_dataloader(), additional_attributes=
    ["event_no"])`. Backbones of this package read its batches; the data representation
    that `StandardModel` asks for is not used on them.

    Args:
        *arguments: As `EventDataModule`.
        index_column: What the event key is called in the batches.
        **options: As `EventDataModule`; labels (`direction`, `energy`, `track`) and
            columns named in `truth` come under their own names, NaN where an event has
            no such label.
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
