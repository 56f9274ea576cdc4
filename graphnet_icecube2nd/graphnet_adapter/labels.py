"""Labels of GraphNeT's datasets, made by `tasks.label` from the truth of an event.

GraphNeT's `Direction` turns angles into a vector and leaves their meaning to the
reader; here the meaning is an argument.
"""

from __future__ import annotations

from typing import Any

import torch
from graphnet.training.labels import Label
from torch import Tensor
from torch_geometric.data import Data

from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.tasks.label import (
    DIRECTION,
    label_columns,
    make_label,
    missing_label,
)


class TaskLabel(Label):
    """A label of the core as GraphNeT's datasets add one.

    An event without the label (a missing value, a filler, an impossible angle) gets
    NaN: `TaskHead` leaves such an event out, GraphNeT's own tasks do not.

    Args:
        label: Name of the label (`direction`, `energy`, `track`, ...), or a column of
            the truth.
        key: Where the label goes, `data[key]`; default the label's name, which is where
            `TaskHead` looks for it.
        azimuth_key: Truth column of the azimuth, rad.
        zenith_key: Truth column of the zenith, rad.
        angles: `origin` if the angles say where the particle came from, `flight` if
            they say where it goes.

    Raises:
        ValueError: `angles` is neither.
    """

    def __init__(
        self,
        label: str,
        key: str | None = None,
        azimuth_key: str = "azimuth",
        zenith_key: str = "zenith",
        angles: str = "origin",
    ) -> None:
        super().__init__(key=label if key is None else key)
        self._label = label
        self._columns = LabelColumns(
            azimuth=azimuth_key, zenith=zenith_key, angles=angles
        )

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            "label": self._label,
            "key": self.key,
            "azimuth_key": self._columns.azimuth,
            "zenith_key": self._columns.zenith,
            "angles": self._columns.angles,
        }

    def to_config(self) -> dict[str, Any]:
        """Return the label as GraphNeT's dataset configurations write one."""
        return {"class_name": type(self).__name__, "arguments": self.arguments()}

    def __call__(self, graph: Data) -> Tensor:
        """Compute the label of one event, (1,) or (1, 3).

        Raises:
            ValueError: The event has none of the truth columns that the label is made
                of; the message names them.
        """
        names = list(graph.keys())
        chosen = label_columns(self._label, names, self._columns)
        if chosen is None:
            where = f"an event, for the label {self.key!r},"
            raise missing_label(self._label, names, self._columns, where)
        columns = {c: graph[c].detach().cpu().reshape(-1) for c in chosen}
        label = make_label(
            self._label, {c: v.numpy() for c, v in columns.items()}, self._columns
        )
        dtype = columns[chosen[0]].dtype
        dtype = dtype if dtype.is_floating_point else torch.float32
        return torch.from_numpy(label).to(dtype)


class OriginDirection(TaskLabel):
    """Unit vector (1, 3) to the origin, whatever the angles of the file mean.

    Args:
        key: Where the label goes, `data[key]`.
        azimuth_key: Truth column, rad.
        zenith_key: Truth column, rad.
        angles: `origin` if the angles say where the particle came from, `flight` if
            they say where it goes.

    Raises:
        ValueError: `angles` is neither.
    """

    def __init__(
        self,
        key: str = "direction",
        azimuth_key: str = "azimuth",
        zenith_key: str = "zenith",
        angles: str = "origin",
    ) -> None:
        super().__init__(DIRECTION, key, azimuth_key, zenith_key, angles)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {n: v for n, v in super().arguments().items() if n != "label"}

    def __call__(self, graph: Data) -> Tensor:
        """Compute the label of one event.

        Raises:
            ValueError: An angle is missing, or cannot be one in rad: GraphNeT's own
                tasks do not leave out events without a label.
        """
        direction_13 = super().__call__(graph)
        if not bool(direction_13.isfinite().all()):
            columns = (self._columns.azimuth, self._columns.zenith)
            found = ", ".join(f"{name!r} is {graph[name].tolist()}" for name in columns)
            raise ValueError(
                f"label {self.key!r}: angles must be in rad, zenith within 0 to pi and "
                f"azimuth within 2 pi of 0; truth column {found}"
            )
        return direction_13
