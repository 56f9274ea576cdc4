"""The direction label, pointing to where the neutrino came from in any file."""

from __future__ import annotations

import math
from typing import Any

import torch
from graphnet.training.labels import Label
from torch_geometric.data import Data

from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.detector.pulse_map import ANGLE_CONVENTIONS


class OriginDirection(Label):
    """Unit vector (1, 3) to the origin, whatever the angles of the file mean.

    GraphNeT's `Direction` turns angles into a vector and leaves their meaning to the
    reader; here the meaning is an argument.

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
        if angles not in ANGLE_CONVENTIONS:
            raise ValueError(
                f"angles must be one of {', '.join(ANGLE_CONVENTIONS)}, got {angles!r}"
            )
        super().__init__(key=key)
        self._azimuth_key = azimuth_key
        self._zenith_key = zenith_key
        self._sign = 1.0 if angles == "origin" else -1.0

    def to_config(self) -> dict[str, Any]:
        """Return the label as GraphNeT's dataset configurations write one."""
        arguments = {
            "key": self.key,
            "azimuth_key": self._azimuth_key,
            "zenith_key": self._zenith_key,
            "angles": "origin" if self._sign > 0 else "flight",
        }
        return {"class_name": type(self).__name__, "arguments": arguments}

    def __call__(self, graph: Data) -> torch.Tensor:
        """Compute the label of one event.

        Raises:
            ValueError: An angle is missing, or cannot be one in rad.
        """
        zenith = self._angle(graph, self._zenith_key, 0.0, math.pi)
        azimuth = self._angle(graph, self._azimuth_key, -2 * math.pi, 2 * math.pi)
        return self._sign * angles_to_unit_vector(zenith, azimuth)

    def _angle(self, graph: Data, key: str, low: float, high: float) -> torch.Tensor:
        if key not in graph:
            raise ValueError(f"the label {self.key!r} needs the truth column {key!r}")
        angle: torch.Tensor = graph[key].reshape(-1)
        # A float32 pi is above pi.
        if not bool(((angle >= low - 1e-6) & (angle <= high + 1e-6)).all()):
            raise ValueError(
                f"truth column {key!r} is {angle.tolist()}; it must be an angle in "
                f"rad, {low:.4g} to {high:.4g}"
            )
        return angle
