"""The ice as light crosses it: mean scattering and absorption between two depths.

Shape letters: N rows of the table; `...` any shape, the same for all arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.detector.geometry import depth_to_z
from graphnet_icecube2nd.detector.ice import IceModel

PHASE_INDEX = 1.3195  # of ice at 400 nm: the Cherenkov angle; Price and Woschnagg 2001
GROUP_INDEX = 1.35634  # of ice at 400 nm: how fast light goes; the same source
SPEED_IN_ICE = SPEED_OF_LIGHT / GROUP_INDEX  # m/ns
CHERENKOV_COSINE = 1.0 / PHASE_INDEX
CHERENKOV_SINE = (1.0 - CHERENKOV_COSINE**2) ** 0.5
CHERENKOV_TANGENT = CHERENKOV_SINE / CHERENKOV_COSINE

Array = NDArray[np.floating[Any]]  # float32 or float64; results are alike
_STEP = 2.0  # m, of the table of integrals; the ice's own rows are 10 m apart


@dataclass(frozen=True, kw_only=True, eq=False)
class LightPath:
    """What the ice between source and DOM does to light.

    Args:
        scattering: (...) mean effective scattering length, m.
        absorption: (...) mean absorption length, m.
    """

    scattering: Array
    absorption: Array

    @property
    def propagation(self) -> Array:
        """(...) how fast diffuse light fades, m: sqrt(absorption * scattering / 3)."""
        length: Array = np.sqrt(self.absorption * self.scattering / 3.0)
        return length


class Medium:
    """An ice model to be asked for the ice between two depths.

    The lengths of `IceModel` are those at 400 nm of arXiv:1301.5361, scattering the
    effective one; they stand for the whole of the light.

    Coefficients (one over length) are averaged along the straight line, which in
    horizontal layers is their mean over the depths in between.

    Args:
        ice: The ice.
    """

    def __init__(self, ice: IceModel) -> None:
        self.ice = ice
        top, bottom = (float(depth_to_z(ice.depth_N[row])) for row in (0, -1))
        num = max(2, round((top - bottom) / _STEP) + 1)
        z_N = np.linspace(bottom, top, num)
        coefficient_N2 = 1.0 / ice.lengths_at(torch.from_numpy(z_N)).numpy()
        self._bottom, self._step = bottom, (top - bottom) / (num - 1)
        self._last = num - 2
        # The integral of each coefficient from the bottom of the table to its rows.
        middle_N2 = 0.5 * (coefficient_N2[1:] + coefficient_N2[:-1]) * self._step
        integral_N2 = np.vstack([np.zeros((1, 2)), np.cumsum(middle_N2, axis=0)])
        slope_N2 = np.diff(integral_N2, axis=0)
        self._rows = {
            dtype: [
                (integral.astype(dtype), slope.astype(dtype))
                for integral, slope in zip(integral_N2.T, slope_N2.T, strict=True)
            ]
            for dtype in (np.dtype(np.float32), np.dtype(np.float64))
        }

    def between(self, source_z: Array, dom_z: Array) -> LightPath:
        """Return the ice between two heights, which may be the same.

        Args:
            source_z: (...) m.
            dom_z: (...) m.
        """
        # Never nearer than a step: at one depth, the ice around that depth.
        middle, half = 0.5 * (source_z + dom_z), 0.5 * np.abs(dom_z - source_z)
        half = np.maximum(half, _STEP)
        low, high = self._place(middle - half), self._place(middle + half)
        span = 2.0 * half
        scattering, absorption = (
            span / (self._at(high, column) - self._at(low, column)) for column in (0, 1)
        )
        return LightPath(scattering=scattering, absorption=absorption)

    def farthest_propagation(self, dom_z: Array) -> Array:
        """Return the largest `propagation` of any light that ends at a DOM, m.

        Args:
            dom_z: (S,) m.
        """
        rise = np.arange(-500.0, 501.0, 10.0)
        dom_z = dom_z[:, None]
        bound: Array = self.between(dom_z + rise, dom_z).propagation.max(axis=1)
        return bound

    def _place(self, z: Array) -> tuple[NDArray[np.int32], Array]:
        """Return the row of the table below each z, and how many rows z is above it."""
        steps = (z - self._bottom) * (1.0 / self._step)
        row = np.minimum(np.maximum(steps.astype(np.int32), 0), self._last)
        return row, steps - row.astype(steps.dtype)

    def _at(self, place: tuple[NDArray[np.int32], Array], column: int) -> Array:
        """Return the integral; outside the table the coefficient at its edge holds."""
        row, steps = place
        integral, slope = self._rows[steps.dtype][column]
        value: Array = slope.take(row) * steps
        value += integral.take(row)
        return value
