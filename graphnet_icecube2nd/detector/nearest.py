"""The DOM nearest to a pulse: a search by cells, and its plain twin.

Shape letters: S DOMs (sensors), T pulses, H pulses in occupied cells, C occupied cells
of the search grid, E entries (a DOM in a cell it reaches into).
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor


def nearest_dom_plain(
    position_S3: Tensor, position_T3: Tensor, tolerance: float
) -> Tensor:
    """Compare every position with every DOM: the plain twin of `nearest_dom`."""
    nearest_T = []
    for chunk_T3 in torch.split(position_T3, max(1, 2**22 // len(position_S3))):
        # The matrix-product form of cdist loses centimetres at these distances.
        distance_TS = torch.cdist(
            chunk_T3, position_S3, compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance_T, sensor_id_T = distance_TS.min(dim=1)
        nearest_T.append(torch.where(distance_T <= tolerance, sensor_id_T, -1))
    return torch.cat(nearest_T)


class CellGrid:
    """Cubic cells; each occupied one knows every DOM whose tolerance ball meets it."""

    def __init__(self, position_S3: Tensor, tolerance: float) -> None:
        self.position_S3, self.tolerance = position_S3, tolerance
        # A little more than the tolerance, so that rounding loses no pulse on its edge.
        reach = 1.01 * tolerance
        self.origin_3 = position_S3.amin(0) - reach
        extent_3 = position_S3.amax(0) + reach - self.origin_3
        # An edge of 3 reach, so a ball meets at most two cells along each axis; and
        # at most 2^20 cells along each axis, so that cell numbers fit into 63 bits.
        self.edge = max(3 * reach, float(extent_3.max()) / 2**20)
        self.num_cells_3 = (extent_3 / self.edge).floor().long() + 1
        corner_83 = position_S3.new_tensor(list(product((-reach, reach), repeat=3)))
        corner_S83 = position_S3[:, None] + corner_83
        cell_S83 = ((corner_S83 - self.origin_3) / self.edge).floor().long()
        key_S8 = self._cell_number(cell_S83.clamp(min=0))
        sensor_id_S8 = torch.arange(len(position_S3)).to(key_S8)[:, None].expand(-1, 8)
        entry_E2 = torch.stack([key_S8, sensor_id_S8], -1).flatten(0, 1)
        entry_E2 = torch.unique(entry_E2, dim=0)
        # Occupied cells, numbered through the grid, ascending.
        self.key_C, self.num_doms_C = entry_E2[:, 0].unique_consecutive(
            return_counts=True
        )
        self.sensor_id_E = entry_E2[:, 1].contiguous()  # by cell, then ascending
        self.first_C = self.num_doms_C.cumsum(0) - self.num_doms_C  # in sensor_id_E

    def nearest(self, position_T3: Tensor) -> Tensor:
        """Return sensor_id (T,) of the nearest DOM, -1 for none."""
        if int(self.num_doms_C.max()) > 64:  # cells this full save nothing
            return nearest_dom_plain(self.position_S3, position_T3, self.tolerance)
        return torch.cat([self._search(t) for t in torch.split(position_T3, 2**17)])

    def _search(self, position_T3: Tensor) -> Tensor:
        cell_T3 = ((position_T3 - self.origin_3) / self.edge).floor()
        inside_T = ((cell_T3 >= 0) & (cell_T3 < self.num_cells_3)).all(1)
        # NaN and infinity are not inside and become cell 0 before they become integers.
        key_T = self._cell_number(torch.where(inside_T[:, None], cell_T3, 0.0).long())
        slot_T = torch.searchsorted(self.key_C, key_T).clamp(max=len(self.key_C) - 1)
        index_H = (inside_T & (self.key_C[slot_T] == key_T)).nonzero().squeeze(1)
        position_H3, slot_H = position_T3[index_H], slot_T[index_H]
        first_H, num_doms_H = self.first_C[slot_H], self.num_doms_C[slot_H]
        best_H = position_H3.new_full((len(index_H),), math.inf)
        nearest_H = torch.full_like(index_H, -1)
        for k in range(int(self.num_doms_C.max())):
            # Cells with fewer DOMs look at their last one again.
            sensor_id_H = self.sensor_id_E[first_H + (num_doms_H - 1).clamp(max=k)]
            gap_H3 = position_H3 - self.position_S3[sensor_id_H]
            distance_H = torch.linalg.vector_norm(gap_H3, dim=1)
            closer_H = (distance_H < best_H) & (distance_H <= self.tolerance)
            best_H = torch.where(closer_H, distance_H, best_H)
            nearest_H = torch.where(closer_H, sensor_id_H, nearest_H)
        nearest_T = torch.full_like(slot_T, -1)
        nearest_T[index_H] = nearest_H
        return nearest_T

    def _cell_number(self, cell: Tensor) -> Tensor:
        """Return the number (...) of a cell (..., 3), counted through the grid."""
        number = cell[..., 0] * self.num_cells_3[1] + cell[..., 1]
        return number * self.num_cells_3[2] + cell[..., 2]
