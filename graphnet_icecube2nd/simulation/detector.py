"""The detector as the simulation needs it: DOMs, their neighbours, noise, the ice.

Shape letters: S DOMs, G groups of neighbouring DOMs, K DOMs of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.simulation.medium import Medium
from graphnet_icecube2nd.simulation.particles import Volume

NEIGHBOUR_STEPS = (-2, -1, 1, 2)  # DOMs of the same string that make a coincidence
DEEPCORE_STRINGS, DEEPCORE_DOMS = range(79, 87), 50
GROUP_DOMS = 4
GROUP_LENGTH = 60.0  # m; the strings of DeepCore have gaps


@dataclass(frozen=True, kw_only=True, eq=False)
class DomGroups:
    """DOMs that hang one above the other, looked at together first.

    Args:
        dom_GK: (G, K) int64; the last group of a string repeats its last DOM.
        size_G: (G,) int64, DOMs without those repeated.
        centre_G3: (G, 3) m.
        radius_G: (G,) how far its DOMs are from the centre, m.
        reach_G: (G,) the largest `reach_S` of its DOMs, m.
        fading_G: (G,) e-folds that a DOM may be brighter than the centre, as it is
            nearer;
        clearing_G: (G,) and for each metre to the source, as its ice is clearer, 1/m.
    """

    dom_GK: NDArray[np.int64]
    size_G: NDArray[np.int64]
    centre_G3: NDArray[np.float64]
    radius_G: NDArray[np.float64]
    reach_G: NDArray[np.float64]
    fading_G: NDArray[np.float64]
    clearing_G: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SimulatedDetector:
    """A detector geometry in ice.

    Args:
        geometry: The DOMs.
        ice: The ice around them.
    """

    geometry: DetectorGeometry
    ice: IceModel

    @classmethod
    def icecube86(cls) -> SimulatedDetector:
        """IceCube-86 in its ice."""
        return cls(DetectorGeometry.icecube86(), IceModel.icecube())

    def __len__(self) -> int:
        """Return the number of DOMs."""
        return len(self.geometry.position_S3)

    @cached_property
    def position_S3(self) -> NDArray[np.float64]:
        """(S, 3) m."""
        return self.geometry.position_S3.numpy()

    @cached_property
    def rde_S(self) -> NDArray[np.float64]:
        """(S,) relative DOM efficiency."""
        return self.geometry.rde_S.numpy()

    @cached_property
    def medium(self) -> Medium:
        """The ice, to be asked for paths through it."""
        return Medium(self.ice)

    @cached_property
    def volume(self) -> Volume:
        """The cylinder around the DOMs."""
        return Volume.around(self.position_S3)

    @cached_property
    def reach_S(self) -> NDArray[np.float64]:
        """(S,) how slowly light that ends at a DOM can fade with distance, m."""
        return self.medium.farthest_propagation(self.position_S3[:, 2])

    @cached_property
    def groups(self) -> DomGroups:
        """All DOMs, in groups."""
        string_S, order = self._string_S, self._order
        rows: list[list[int]] = []
        for string in np.unique(string_S):
            rows.append([])
            for dom in order[string_S[order] == string]:
                low = self.position_S3[rows[-1][0]] if rows[-1] else None
                is_far = low is not None and (
                    np.linalg.norm(self.position_S3[dom] - low) > GROUP_LENGTH
                )
                if is_far or len(rows[-1]) == GROUP_DOMS:
                    rows.append([])
                rows[-1].append(int(dom))
        size_G = np.array([len(row) for row in rows])
        dom_GK = np.stack(
            [np.pad(r, (0, GROUP_DOMS - len(r)), mode="edge") for r in rows]
        )
        position_GK3 = self.position_S3[dom_GK]
        centre_G3 = 0.5 * (position_GK3.min(axis=1) + position_GK3.max(axis=1))
        away_GK = np.linalg.norm(position_GK3 - centre_G3[:, None], axis=-1)
        radius_G = away_GK.max(axis=1)
        z_GK = position_GK3[..., 2]
        local_GK = self.medium.between(z_GK, z_GK).propagation
        return DomGroups(
            dom_GK=dom_GK,
            size_G=size_G,
            centre_G3=centre_G3,
            radius_G=radius_G,
            reach_G=self.reach_S[dom_GK].max(axis=1),
            fading_G=radius_G / local_GK.min(axis=1),
            clearing_G=1 / local_GK.min(axis=1) - 1 / local_GK.max(axis=1),
        )

    @cached_property
    def neighbour_SN(self) -> NDArray[np.int64]:
        """(S, 4) the DOMs two and one below and above on the string; -1 where none."""
        string_S, order = self._string_S, self._order
        neighbour = np.full((len(order), len(NEIGHBOUR_STEPS)), -1)
        for column, step in enumerate(NEIGHBOUR_STEPS):
            other = np.arange(len(order)) + step
            inside = (other >= 0) & (other < len(order))
            here, there = order[inside], order[other[inside]]
            same = string_S[here] == string_S[there]
            neighbour[here[same], column] = there[same]
        return neighbour

    @cached_property
    def is_deepcore_S(self) -> NDArray[np.bool_]:
        """(S,) whether a DOM takes part in the trigger of three.

        IceCube-86: the lower 50 DOMs of each string of DeepCore, without its cap above
        the dust.
        """
        is_deepcore_S = np.zeros(len(self), bool)
        if self.geometry.name == "icecube86":
            for string in DEEPCORE_STRINGS:
                doms = self._order[self._string_S[self._order] == string]
                is_deepcore_S[doms[:DEEPCORE_DOMS]] = True
        return is_deepcore_S

    @property
    def _string_S(self) -> NDArray[np.int64]:
        return self.geometry.string_S.numpy()

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """(S,) the DOMs string by string, each from its lowest up."""
        order: NDArray[np.int64] = np.lexsort((self.position_S3[:, 2], self._string_S))
        return order
