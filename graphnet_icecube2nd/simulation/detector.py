"""The detector in the simulation: DOMs, their neighbours, noise, the medium.

Shape letters: S DOMs, G groups of neighbouring DOMs, K DOMs of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.simulation.light import Medium
from graphnet_icecube2nd.simulation.rows import Array, Index

NEIGHBOUR_STEPS = (-2, -1, 1, 2)  # DOMs of the same string for coincidences
DEEPCORE_STRINGS, DEEPCORE_DOMS = range(79, 87), 50
GROUP_DOMS = 4
REACH_LEVELS = 16
DENSITY = {"ice": 0.92, "water": 1.03, "lake water": 1.0}  # g/cm3, of each medium
GROUP_LENGTH = 60.0  # m; the strings of DeepCore have gaps


@dataclass(frozen=True, kw_only=True, eq=False)
class DomGroups:
    """Groups of DOMs on one string, which are checked for light before single DOMs."""

    dom_GK: Index  # the last group of a string repeats its last DOM
    size_G: Index  # number of DOMs, without repeated ones
    centre_G3: Array  # m
    radius_G: Array  # largest distance of a DOM from the centre, m
    # Longest fading length of light that arrives at a DOM, m, in a few levels R, each
    # rounded up, because functions of it are computed for every event.
    reach_R: Array
    level_G: Index  # level of each group
    # Maximum brightness of a DOM relative to the centre, in e-folds: because it is
    # nearer; and, for each metre to the source, because its ice is clearer, 1/m.
    fading_G: Array
    clearing_G: Array


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The cylinder around the DOMs, in which light can be seen."""

    x: float  # m, position of its axis
    y: float
    radius: float  # m
    bottom: float  # z, m
    top: float
    surface: float = DETECTOR_CENTRE_DEPTH  # z of the surface of ice or sea, m
    density: float = DENSITY["ice"]  # g/cm3

    @classmethod
    def enclosing(cls, position_S3: Array) -> Volume:
        """Return the smallest cylinder around DOMs."""
        x, y = (0.5 * (a.max() + a.min()) for a in position_S3[:, :2].T)
        radius = np.hypot(position_S3[:, 0] - x, position_S3[:, 1] - y).max()
        z = position_S3[:, 2]
        sizes = {"x": x, "y": y, "radius": radius, "bottom": z.min(), "top": z.max()}
        return cls(**{name: float(size) for name, size in sizes.items()})

    @property
    def centre(self) -> Array:
        """Centre of the cylinder, (3,) m."""
        return np.array([self.x, self.y, 0.5 * (self.bottom + self.top)])

    @property
    def reach(self) -> float:
        """Radius of the sphere around the cylinder, m."""
        return float(np.hypot(self.radius, 0.5 * (self.top - self.bottom)))


@dataclass(frozen=True, eq=False)
class SimulatedDetector:
    """A detector geometry in ice or water.

    Args:
        geometry: Geometry with the DOMs.
        ice: Medium around the DOMs; water is a model of constant lengths.
        surface: Height of the surface of ice or sea in the geometry's z, m.
        density: Density of the medium, g/cm3.
    """

    geometry: DetectorGeometry
    ice: IceModel
    surface: float = DETECTOR_CENTRE_DEPTH
    density: float = DENSITY["ice"]

    @classmethod
    def icecube86(cls) -> SimulatedDetector:
        """IceCube-86 in its ice."""
        return cls(DetectorGeometry.icecube86(), IceModel.icecube())

    def __len__(self) -> int:
        """Return the number of DOMs."""
        return len(self.geometry.position_S3)

    @cached_property
    def position_S3(self) -> Array:
        """DOM positions, (S, 3) m."""
        return self.geometry.position_S3.numpy()

    @cached_property
    def rde_S(self) -> Array:
        """Relative DOM efficiencies, (S,)."""
        return self.geometry.rde_S.numpy()

    @cached_property
    def medium(self) -> Medium:
        """The medium, with light paths through it."""
        return Medium(self.ice)

    @cached_property
    def volume(self) -> Volume:
        """The cylinder around the DOMs."""
        return replace(
            Volume.enclosing(self.position_S3),
            surface=self.surface,
            density=self.density,
        )

    @cached_property
    def groups(self) -> DomGroups:
        """All DOMs in groups."""
        rows: list[list[int]] = []
        for doms in self._strings.values():
            row: list[int] = []
            for dom in doms.tolist():
                lowest = row[0] if row else dom
                step_3 = self.position_S3[dom] - self.position_S3[lowest]
                is_far = np.linalg.norm(step_3) > GROUP_LENGTH
                if not row or is_far or len(row) == GROUP_DOMS:
                    row = []
                    rows.append(row)
                row.append(dom)
        size_G = np.array([len(row) for row in rows])
        dom_GK = np.stack(
            [np.pad(r, (0, GROUP_DOMS - len(r)), mode="edge") for r in rows]
        )
        position_GK3 = self.position_S3[dom_GK]
        centre_G3 = 0.5 * (position_GK3.min(axis=1) + position_GK3.max(axis=1))
        away_GK = np.linalg.norm(position_GK3 - centre_G3[:, None], axis=-1)
        radius_G = away_GK.max(axis=1)
        z_GK = position_GK3[..., 2]
        rise = np.arange(-500.0, 501.0, 10.0)  # m, possible heights of the source
        far = self.medium.between(z_GK[..., None] + rise, z_GK[..., None])
        reach_G = far.propagation.max(axis=(1, 2))
        reach_R = np.quantile(reach_G, np.linspace(0, 1, REACH_LEVELS + 1)[1:])
        local_GK = self.medium.between(z_GK, z_GK).propagation
        return DomGroups(
            dom_GK=dom_GK,
            size_G=size_G,
            centre_G3=centre_G3,
            radius_G=radius_G,
            reach_R=reach_R,
            level_G=np.searchsorted(reach_R, reach_G),
            fading_G=radius_G / local_GK.min(axis=1),
            clearing_G=1 / local_GK.min(axis=1) - 1 / local_GK.max(axis=1),
        )

    @cached_property
    def neighbour_SN(self) -> Index:
        """Next two DOMs below and above on the string, (S, 4); -1 if there is none."""
        neighbour_SN = np.full((len(self), len(NEIGHBOUR_STEPS)), -1)
        for doms in self._strings.values():
            padded = np.pad(doms, 2, constant_values=-1)
            place = 2 + np.arange(len(doms))
            neighbour_SN[doms] = padded[place[:, None] + NEIGHBOUR_STEPS]
        return neighbour_SN

    @cached_property
    def is_deepcore_S(self) -> NDArray[np.bool_]:
        """Whether a DOM is part of the trigger of three, (S,).

        In IceCube-86 these are the lower 50 DOMs of each DeepCore string, without its
        cap above the dust.
        """
        is_deepcore_S = np.zeros(len(self), bool)
        if self.geometry.name == "icecube86":
            for string in self._strings.keys() & set(DEEPCORE_STRINGS):
                is_deepcore_S[self._strings[string][:DEEPCORE_DOMS]] = True
        return is_deepcore_S

    @cached_property
    def _strings(self) -> dict[int, Index]:
        """DOMs of each string, in ascending order."""
        string_S = self.geometry.string_S.numpy()
        order = np.lexsort((self.position_S3[:, 2], string_S))
        return {int(n): order[string_S[order] == n] for n in np.unique(string_S)}
