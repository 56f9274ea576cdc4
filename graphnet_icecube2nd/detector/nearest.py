"""The DOM nearest to a pulse: a search by cells, and its plain twin.

Shape letters: S DOMs (sensors), T pulses, H pulses in occupied cells, C occupied cells
of the search grid, E entries (a DOM in a cell it reaches into).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True, eq=False)
class CellGrid:
    """Cubic cells; each occupied one knows every DOM whose tolerance ball meets it."""

    position_S3: Tensor  # (S, 3) float64, m
    origin_3: Tensor  # (3,) float64, m, lower corner of cell (0, 0, 0)
    edge: float  # m, edge of a cell
    num_cells_3: Tensor  # (3,) int64, cells along each axis
    key_C: Tensor  # (C,) int64, ascending: occupied cells, numbered through the grid
    first_C: Tensor  # (C,) int64, where a cell's DOMs begin in sensor_id_E
    num_doms_C: Tensor  # (C,) int64
    sensor_id_E: Tensor  # (E,) int64, by cell, then ascending
    fullest: int  # DOMs in the fullest cell

    @classmethod
    def build(cls, position_S3: Tensor, tolerance: float) -> CellGrid:
        """Sort the DOMs (S, 3) into cells for one tolerance [m]."""
        # A little more than the tolerance, so that rounding loses no pulse on its edge.
        reach = 1.01 * tolerance
        origin_3 = position_S3.amin(0) - reach
        extent_3 = position_S3.amax(0) + reach - origin_3
        # An edge of 3 reach, so a ball meets at most two cells along each axis; and
        # at most 2^20 cells along each axis, so that cell numbers fit into 63 bits.
        edge = max(3 * reach, float(extent_3.max()) / 2**20)
        num_cells_3 = (extent_3 / edge).floor().long() + 1
        low_S3 = ((position_S3 - reach - origin_3) / edge).floor().long().clamp(min=0)
        high_S3 = ((position_S3 + reach - origin_3) / edge).floor().long()
        corner_83 = torch.tensor(list(product((False, True), repeat=3)))
        corner_83 = corner_83.to(position_S3.device)
        cell_8S3 = torch.where(corner_83[:, None], high_S3, low_S3)
        key_E = _cell_number(cell_8S3, num_cells_3).flatten()
        sensor_id_E = torch.arange(len(position_S3), device=key_E.device).repeat(8)
        entry_E2 = torch.unique(torch.stack([key_E, sensor_id_E], 1), dim=0)
        key_C, num_doms_C = entry_E2[:, 0].unique_consecutive(return_counts=True)
        return cls(
            position_S3=position_S3,
            origin_3=origin_3,
            edge=edge,
            num_cells_3=num_cells_3,
            key_C=key_C,
            first_C=num_doms_C.cumsum(0) - num_doms_C,
            num_doms_C=num_doms_C,
            sensor_id_E=entry_E2[:, 1].contiguous(),
            fullest=int(num_doms_C.max()),
        )

    def search(self, position_T3: Tensor, tolerance: float) -> Tensor:
        """sensor_id (T,) of the nearest DOM within the tolerance, -1 for none."""
        cell_T3 = ((position_T3 - self.origin_3) / self.edge).floor()
        inside_T = ((cell_T3 >= 0) & (cell_T3 < self.num_cells_3)).all(1)
        # NaN and infinity are not inside and become cell 0 before they become integers.
        cell_T3 = torch.where(inside_T[:, None], cell_T3, 0.0).long()
        key_T = _cell_number(cell_T3, self.num_cells_3)
        slot_T = torch.searchsorted(self.key_C, key_T).clamp(max=len(self.key_C) - 1)
        index_H = (inside_T & (self.key_C[slot_T] == key_T)).nonzero().squeeze(1)
        position_H3, slot_H = position_T3[index_H], slot_T[index_H]
        first_H, num_doms_H = self.first_C[slot_H], self.num_doms_C[slot_H]
        best_H = position_H3.new_full((len(index_H),), math.inf)
        nearest_H = torch.full_like(index_H, -1)
        for k in range(self.fullest):
            # Cells with fewer DOMs look at their last one again.
            sensor_id_H = self.sensor_id_E[first_H + (num_doms_H - 1).clamp(max=k)]
            gap_H3 = position_H3 - self.position_S3[sensor_id_H]
            distance_H = torch.linalg.vector_norm(gap_H3, dim=1)
            closer_H = (distance_H < best_H) & (distance_H <= tolerance)
            best_H = torch.where(closer_H, distance_H, best_H)
            nearest_H = torch.where(closer_H, sensor_id_H, nearest_H)
        nearest_T = index_H.new_full((len(position_T3),), -1)
        nearest_T[index_H] = nearest_H
        return nearest_T


def _cell_number(cell: Tensor, num_cells_3: Tensor) -> Tensor:
    """Number (...) int64 of a cell (..., 3), counted through the grid."""
    number = cell[..., 0] * num_cells_3[1] + cell[..., 1]
    return number * num_cells_3[2] + cell[..., 2]
