"""Detector: the meaning of a pulse. Columns, geometry, medium, vectors, scales, site.

A new detector is one short function:

    @register_detector
    def ring() -> Detector:
        return Detector(
            name="ring",
            pulses=PulseMap(name="ring", time="t", sensor_id="om"),
            geometry="ring.csv",
            medium="water",
            scales=Scales(position=100.0, time=6000.0),
        )

`prepare(..., detector="ring")`, `simulate(..., detector="ring")` and
`build_model(..., detector="ring")` then accept it, in a script and in a plugin.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.config import from_plain, to_plain
from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import (
    ICE,
    LAKE_WATER,
    SEA_WATER,
    SUBSTANCES,
    IceModel,
    Substance,
)
from graphnet_icecube2nd.detector.module import ICECUBE_DOM, Module
from graphnet_icecube2nd.detector.pulse_map import (
    NO_ICE,
    PMT_DIRECTIONS,
    LabelColumns,
    PulseMap,
    Scales,
)
from graphnet_icecube2nd.detector.site import SOUTH_POLE, Site
from graphnet_icecube2nd.registry import Registry

MEDIA = tuple(SUBSTANCES)
ICECUBE = "icecube86"
MEDIUM_OF = {"km3net": SEA_WATER}
SWAY = 8.0  # m; modules in water move by the current, and surveys differ
ROUNDED_SOUTH_POLE = -89.99  # latitude of IceCube in stores that lack the bearing
# Fields of `to_dict`; a manifest has pulses, geometry and optics elsewhere.
_PLAIN = ("name", "medium", "vectors", "scales", "extra_waves", "site", "telescope")

Table = DetectorGeometry | str | os.PathLike[str] | Mapping[str, Any]
DetectorFunction = Callable[[], "Detector"]
DETECTORS: Registry[DetectorFunction] = Registry("detector")


def register_detector(function: DetectorFunction) -> DetectorFunction:
    """Register a function that returns a detector under the function's name.

    Raises:
        ValueError: The name is already registered.
    """
    return DETECTORS.add(function.__name__, function)


@dataclass(frozen=True, kw_only=True)
class FeatureUnits:
    """Meaning of features: with it, their physical values can be computed.

    Args:
        pulses: Columns of the pulses and their clock.
        scales: Units of the features.
    """

    pulses: PulseMap
    scales: Scales

    def physical(self, quantity: str, value_T: Tensor) -> Tensor:
        """Return the values of a feature in m, ns or p.e., see `PulseMap.unscale`."""
        return self.pulses.unscale(quantity, value_T, self.scales)


@dataclass(frozen=True, kw_only=True)
class DetectorLabels(LabelColumns):
    """Truth columns of a detector, and the volume in which interactions are seen.

    Args:
        modules: Modules of the detector, or None if they are not known.
        origin: Detector centre in the file's coordinates, m.
    """

    modules: DetectorGeometry | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """A detector as models and files need it.

    Args:
        name: Public name.
        pulses: Columns of its pulses and of their truth.
        geometry: Table of its optical modules: a `DetectorGeometry`, the path of a
            file (see `DetectorGeometry.from_file`), columns by name, or None if it is
            not known.
        medium: `ice`, `water` (of the sea) or `lake water`.
        optics: Scattering and absorption of the medium; default: IceCube's ice, or
            water (see `IceModel.water`, `IceModel.lake_water`).
        vectors: Triples of pulse columns that are vectors, such as PMT directions.
            They rotate with the event.
        scales: Units of the features.
        extra_waves: Factor on each extra column before its Fourier features (see
            `DeepIce`); default: the factor of positions.
        site: Position on the Earth and bearing of the axes, or None if not known.
        telescope: Name of the physical telescope. Detectors of one telescope, such as
            two file formats of IceCube-86, can share a model. Default: `name`.
        pmts: Photomultipliers (PMTs) of a module; the largest number if modules differ.
            Default: those of `module`.
        module: Properties of a module that simulations need: light, noise, trigger.
        source: Source of the positions of the modules, for lists.

    Raises:
        ValueError: The medium is unknown, or a vector has a column that pulses lack.
    """

    name: str
    pulses: PulseMap
    geometry: Table | None = None
    medium: str = "ice"
    optics: IceModel | None = None
    vectors: tuple[tuple[str, str, str], ...] = ()
    scales: Scales = field(default_factory=Scales)
    extra_waves: tuple[float, ...] = ()
    site: Site | None = None
    telescope: str = ""
    pmts: int = 0
    module: Module = ICECUBE_DOM
    source: str = ""

    def __post_init__(self) -> None:
        vectors = tuple(tuple(vector) for vector in self.vectors)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "extra_waves", tuple(self.extra_waves))
        object.__setattr__(self, "telescope", self.telescope or self.name)
        object.__setattr__(self, "pmts", self.pmts or self.module.pmts)
        for problem in self._problems():
            raise ValueError(f"detector {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        extra = self.pulses.extra
        if self.medium not in MEDIA:
            yield f"medium must be one of {', '.join(MEDIA)}, got {self.medium!r}"
        for vector in self.vectors:
            if len(vector) != 3 or not set(vector) <= set(extra):
                yield (
                    "a vector is three extra columns of its pulses "
                    f"({', '.join(extra) or 'it has none'}), found {', '.join(vector)}"
                )
        if self.extra_waves and len(self.extra_waves) != len(extra):
            yield f"{len(extra)} extra columns, but {len(self.extra_waves)} extra_waves"

    @property
    def labels(self) -> LabelColumns:
        """Truth columns of the direction, their convention, and where the DOMs are."""
        return DetectorLabels(
            **vars(self.pulses.labels),
            modules=self.modules,
            origin=self.pulses.origin,
        )

    @property
    def units(self) -> FeatureUnits:
        """Meaning of the features of its pulses."""
        return FeatureUnits(pulses=self.pulses, scales=self.scales)

    @property
    def clock(self) -> str:
        """Clock of its pulse times, see `PulseMap`."""
        return self.pulses.time_reference

    @cached_property
    def modules(self) -> DetectorGeometry | None:
        """The geometry as a table of modules; None if it is not known.

        Raises:
            OSError: The file does not exist.
            ValueError: The table is not understood; the message names file, line and
                column.
        """
        if self.geometry is None or isinstance(self.geometry, DetectorGeometry):
            return self.geometry
        if isinstance(self.geometry, Mapping):
            return DetectorGeometry.from_columns(self.geometry, self.name)
        return DetectorGeometry.from_file(self.geometry)

    @cached_property
    def modules_or_icecube86(self) -> DetectorGeometry:
        """Modules that give a pulse its position; IceCube-86 if they are not known."""
        return self.modules or DetectorGeometry.icecube86()

    @cached_property
    def medium_optics(self) -> IceModel:
        """Scattering and absorption of the medium."""
        if self.optics is not None:
            return self.optics
        if self.medium == LAKE_WATER:
            return IceModel.lake_water()
        return IceModel.icecube() if self.medium == ICE else IceModel.water()

    @property
    def substance(self) -> Substance:
        """Refractive indices and density of the medium."""
        return SUBSTANCES[self.medium]

    @property
    def depth(self) -> float | None:
        """Depth of the centre below the surface of ice or water, m; None if unknown."""
        origin_z = float(self.pulses.origin[2])
        if origin_z < 0:  # z of the files counts from the surface
            return -origin_z
        if self.site is None:
            return DETECTOR_CENTRE_DEPTH if self.telescope == ICECUBE else None
        if self.site.height < 0:  # z of the files counts from the sea floor
            return -self.site.height - origin_z
        return DETECTOR_CENTRE_DEPTH if self.site == SOUTH_POLE else None

    def model_kwargs(self) -> dict[str, Any]:
        """Return constructor arguments of a backbone for this detector."""
        kwargs: dict[str, Any] = {}
        if self.pulses.extra:
            kwargs["extra_features"] = self.pulses.extra
            if self.extra_waves:
                kwargs["extra_waves"] = self.extra_waves
        if self.scales.interval_speed != Scales().interval_speed:
            kwargs["interval_speed"] = self.scales.interval_speed
        return kwargs

    def with_tables(
        self, geometry: DetectorGeometry | None = None, optics: IceModel | None = None
    ) -> Detector:
        """Return the detector with another geometry or medium; None keeps its own.

        A geometry with other positions makes another telescope. Its name gets a
        checksum of the positions, since files of one name may hold different modules.
        Modules away from those of IceCube may be anywhere: their site is not known.
        Positions count from the centre, or from the zero of the detector's files.
        """
        if geometry is not None:
            origin_3 = torch.tensor(self.pulses.origin, dtype=torch.float64)
            low_3, high_3 = geometry.position_S3.aminmax(dim=0)
            middle_3 = (low_3 + high_3) / 2
            if (middle_3 - origin_3).norm() < middle_3.norm():
                geometry = geometry.moved(self.pulses.origin)
        telescope, site = self.telescope, self.site
        if geometry is not None and not self._has_places_of(geometry):
            places = geometry.position_S3.double().contiguous().numpy().tobytes()
            digest = hashlib.sha256(places).hexdigest()[:8]
            telescope = f"{self.telescope} with geometry {digest}"
            if self.telescope == ICECUBE:
                own = self.modules_or_icecube86
                near_S = own.nearest_dom(geometry.position_S3) >= 0
                site = site if near_S.float().mean() > 0.25 else None
        return replace(
            self,
            geometry=self.geometry if geometry is None else geometry,
            optics=self.optics if optics is None else optics,
            telescope=telescope,
            site=site,
        )

    def _has_places_of(self, geometry: DetectorGeometry) -> bool:
        """Return whether modules are at the positions of this detector's modules."""
        if self.modules is None and self.telescope != ICECUBE:
            return True  # the detector's own were not known
        own = self.modules_or_icecube86
        if self.pulses.sensor_id is None:  # pulses have positions of their own
            reach = 1.0 if self.medium == "ice" else SWAY
            return bool((own.nearest_dom(geometry.position_S3, reach) >= 0).all())
        return len(own) == len(geometry) and torch.allclose(
            own.position_S3, geometry.position_S3, rtol=0.0, atol=1.0
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for manifests, without pulses, geometry and optics."""
        return {name: to_plain(getattr(self, name)) for name in _PLAIN}

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        pulses: PulseMap,
        geometry: DetectorGeometry | None = None,
        optics: IceModel | None = None,
    ) -> Detector:
        """Rebuild the detector from `to_dict`, pulses, geometry and optics.

        Raises:
            ValueError: A value is missing or unknown.
        """
        made: dict[str, Any] = {"pulses": pulses, "geometry": geometry}
        made["optics"] = optics
        site = values.get("site")
        if isinstance(site, Mapping) and site.get("latitude") == ROUNDED_SOUTH_POLE:
            made["site"] = SOUTH_POLE
        return from_plain(cls, {**values, **made}, "detector.")

    @classmethod
    def from_pulse_map(
        cls,
        pulses: PulseMap,
        geometry: DetectorGeometry | None = None,
        optics: IceModel | None = None,
    ) -> Detector:
        """Return the detector of a pulse map.

        Named pulse maps belong to the registered detectors. Any other pulse map gives a
        detector of its own name, in ice, with the scales of IceCube.
        """
        is_icecube = pulses.name in ("kaggle", "simulated", ICECUBE)
        vectors = [v for v in PMT_DIRECTIONS if set(v) <= set(pulses.extra)]
        detector = cls(
            name=pulses.name,
            pulses=pulses,
            geometry=None if is_icecube else geometry,
            optics=optics,
            medium="ice" if pulses.ice != NO_ICE else MEDIUM_OF.get(pulses.name, "ice"),
            vectors=tuple(vectors),
            site=SOUTH_POLE if is_icecube else None,
            telescope=ICECUBE if is_icecube else pulses.name,
        )
        return detector.with_tables(geometry) if is_icecube else detector
