"""The detector in the simulation: DOMs, their neighbours, noise, the medium.

Shape letters: S DOMs, G groups of neighbouring DOMs, K DOMs of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import ICE, SUBSTANCES, IceModel, Substance
from graphnet_icecube2nd.detector.module import ICECUBE_DOM, Module
from graphnet_icecube2nd.detector.presets import DIRECTION_WAVES, as_detector
from graphnet_icecube2nd.detector.pulse_map import (
    NO_ICE,
    PMT_DIRECTIONS,
    TOT,
    LabelColumns,
    PulseMap,
)
from graphnet_icecube2nd.simulation.light import EFFECTIVE_AREA, Medium
from graphnet_icecube2nd.simulation.rows import Array, Index

NEIGHBOUR_STEPS = (-2, -1, 1, 2)  # DOMs of the same string for coincidences
DEEPCORE_STRINGS, DEEPCORE_DOMS = range(79, 87), 50
GROUP_DOMS = 4
REACH_LEVELS = 16
GROUP_LENGTH = 60.0  # m; the strings of DeepCore have gaps
READOUT_BEFORE = 4000.0  # ns, IceCube's readout before the trigger begins
READOUT_AFTER = 6000.0  # ns, readout after the trigger ends
GOLDEN_ANGLE = np.pi * (3.0 - 5.0**0.5)  # rad


def written_as(detector: Detector) -> Detector:
    """Return a detector with the columns that simulated events have.

    Those of its own pulses, if they have the time over threshold and the direction of
    the PMT; else those of the competition's files, with the direction of the PMT if a
    module has several.
    """
    pulses, several = detector.pulses, detector.module.pmts > 1
    if several and {TOT, *PMT_DIRECTIONS[1]} <= set(pulses.extra):
        pulses = replace(pulses, labels=LabelColumns(), only_triggered=False)
        return replace(detector, pulses=pulses)
    profile = NO_ICE if pulses.ice == NO_ICE else "correct"
    vectors = PMT_DIRECTIONS[:1] if several else ()
    extra = PMT_DIRECTIONS[0] if several else ()
    return replace(
        detector,
        pulses=PulseMap.kaggle(
            name="simulated", ice=profile, extra=extra, extra_scale=(1.0,) * len(extra)
        ),
        vectors=vectors,
        extra_waves=DIRECTION_WAVES if several else (),
    )


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
    density: float = SUBSTANCES[ICE].density  # g/cm3
    is_clear: bool = False  # see `Medium`

    @classmethod
    def enclosing(cls, position_S3: Array) -> Volume:
        """Return the smallest cylinder around DOMs."""
        x, y = (0.5 * (a.max() + a.min()) for a in position_S3[:, :2].T)
        radius = np.hypot(position_S3[:, 0] - x, position_S3[:, 1] - y).max()
        z = position_S3[:, 2]
        return cls(
            x=float(x),
            y=float(y),
            radius=float(radius),
            bottom=float(z.min()),
            top=float(z.max()),
        )

    @property
    def stopping(self) -> float:
        """Losses of muons per metre over those in ice."""
        return self.density / SUBSTANCES[ICE].density

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
        substance: Refractive indices and density of the medium.
        module: Properties of its modules.
        written: Detector whose columns the events have; default: IceCube-86 in the
            columns of the competition's files.
    """

    geometry: DetectorGeometry
    ice: IceModel
    surface: float = DETECTOR_CENTRE_DEPTH
    substance: Substance = SUBSTANCES[ICE]
    module: Module = ICECUBE_DOM
    written: Detector | None = None

    @classmethod
    def icecube86(cls) -> SimulatedDetector:
        """IceCube-86 in its ice."""
        return cls(DetectorGeometry.icecube86(), IceModel.icecube())

    @classmethod
    def of(cls, detector: Detector | str) -> SimulatedDetector:
        """Return a detector with modules, medium and module of a `Detector`.

        Its events have the columns that `written_as` gives.

        Raises:
            ValueError: The name is unknown, or the modules are not known.
        """
        detector = as_detector(detector)
        if detector.modules is None:
            raise ValueError(
                f"the modules of detector {detector.name!r} are not known; give a "
                "table of them (geometry, --geometry)"
            )
        return cls(
            detector.modules,
            detector.medium_optics,
            detector.depth or DETECTOR_CENTRE_DEPTH,
            detector.substance,
            detector.module,
            written_as(detector),
        )

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
    def efficiency_S(self) -> Array:
        """Light of each DOM over that of an IceCube DOM with rde 1, (S,)."""
        return self.rde_S * (self.module.area / EFFECTIVE_AREA)

    @cached_property
    def pmt_direction_SP3(self) -> Array:
        """Directions in which the PMTs look, (S, P, 3) unit vectors.

        They are those of the geometry, if it has them; else each module is turned about
        the vertical by another angle, as modules in the sea are.
        """
        known = self.geometry.pmt_direction_SP3
        if known is not None and known.shape[1] == self.module.pmts:
            return known.numpy()
        turn_S1 = GOLDEN_ANGLE * np.arange(len(self))[:, None]
        cosine, sine = np.cos(turn_S1), np.sin(turn_S1)
        x_P, y_P, z_P = self.module.directions_P3.T
        columns = cosine * x_P - sine * y_P, sine * x_P + cosine * y_P
        return np.stack([*columns, np.broadcast_to(z_P, columns[0].shape)], axis=-1)

    @cached_property
    def longest_lag(self) -> float:
        """Time that light needs from one end of the detector to the other, ns."""
        volume = self.volume
        longest = np.hypot(2 * volume.radius, volume.top - volume.bottom)
        return float(longest) / self.medium.speed

    @property
    def readout(self) -> tuple[float, float]:
        """Readout before a trigger begins and after it ends, ns.

        IceCube's; with several PMTs the time that light needs across the detector.
        """
        if self.module.pmts > 1:
            return self.longest_lag, self.longest_lag
        return READOUT_BEFORE, READOUT_AFTER

    @cached_property
    def medium(self) -> Medium:
        """The medium, with light paths through it."""
        return Medium(self.ice, self.substance)

    @cached_property
    def volume(self) -> Volume:
        """The cylinder around the DOMs."""
        return replace(
            Volume.enclosing(self.position_S3),
            surface=self.surface,
            density=self.substance.density,
            is_clear=self.medium.is_clear,
        )

    @cached_property
    def groups(self) -> DomGroups:
        """All DOMs in groups."""
        # Direct light is sharp: a group is a single DOM.
        group_doms = 1 if self.medium.is_clear else GROUP_DOMS
        rows: list[list[int]] = []
        for doms in self._strings.values():
            row: list[int] = []
            for dom in doms.tolist():
                lowest = row[0] if row else dom
                step_3 = self.position_S3[dom] - self.position_S3[lowest]
                is_far = np.linalg.norm(step_3) > GROUP_LENGTH
                if not row or is_far or len(row) == group_doms:
                    row = []
                    rows.append(row)
                row.append(dom)
        size_G = np.array([len(row) for row in rows])
        dom_GK = np.stack(
            [np.pad(r, (0, group_doms - len(r)), mode="edge") for r in rows]
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
