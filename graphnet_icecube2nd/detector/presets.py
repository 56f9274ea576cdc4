"""The detectors of the package: functions, and two tables.

Five of them describe files (`kaggle`, `icecube86`, `upgrade`, `prometheus`, `km3net`);
the others have modules, medium, scales and site. All scales have the same ratio of
position and time, so the interval's speed is 18 everywhere.

Sources: the head of each table gives those of the positions (GraphNeT, Prometheus).
Sites are from the experiments' papers: IceCube arXiv:1612.05093, KM3NeT
arXiv:1601.07459, P-ONE arXiv:2005.09493, TRIDENT arXiv:2207.04519, Baikal-GVD
arXiv:1808.10353.
"""

from __future__ import annotations

import os
from dataclasses import replace

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.detector import (
    DETECTORS,
    ICECUBE,
    Detector,
    register_detector,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import (
    NO_ICE,
    PMT_DIRECTIONS,
    PulseMap,
    Scales,
)
from graphnet_icecube2nd.detector.site import (
    ARCA,
    BAIKAL,
    CASCADIA,
    ORCA,
    SOUTH_CHINA_SEA,
    SOUTH_POLE,
    Site,
)

SMALL = Scales(position=100.0, time=6.0e3)  # detectors of about 100 m
USUAL = Scales()
LARGE = Scales(position=2000.0, time=1.2e5)  # detectors of a few kilometres
# A PMT direction lies in -1 to 1: sixteen waves over that range separate PMTs.
DIRECTION_WAVES = (64.0, 64.0, 64.0)
TOT_WAVES = 1024.0

ICECUBE_Z = -DETECTOR_CENTRE_DEPTH  # m, if z counts from the surface of the ice
# Detectors as simulated with Prometheus: table of modules, medium, z of the centre in
# the table's coordinates [m], scales and site.
PROMETHEUS = {
    "gen2": ("gen2", "ice", ICECUBE_Z, LARGE, SOUTH_POLE),  # with IceCube-86
    "prometheus_icecube": ("prometheus_icecube", "ice", ICECUBE_Z, USUAL, SOUTH_POLE),
    "prometheus_upgrade": ("prometheus_upgrade", "ice", ICECUBE_Z, SMALL, SOUTH_POLE),
    "demo_ice": ("demo", "ice", -2000.0, LARGE, None),  # a grid of 81 strings
    "demo_water": ("demo", "water", -2000.0, LARGE, None),
    "orca150": ("orca150", "water", 95.45, SMALL, ORCA),  # KM3NeT/ORCA, 150 strings
    "arca115": ("arca115", "water", -3194.0, USUAL, ARCA),  # KM3NeT/ARCA
    "gvd": ("gvd", "water", -970.0, USUAL, BAIKAL),  # a cluster of Baikal-GVD
    "trident": ("trident", "water", -3090.0, LARGE, SOUTH_CHINA_SEA),
    "pone": ("pone", "water", 0.0, USUAL, CASCADIA),  # three strings of P-ONE
}
# The same for NuBench's data sets, which give no site.
NUBENCH = {
    "nubench_hexagon": ("prometheus_icecube", "water", -1972.0, USUAL),
    "nubench_hexagon_ice": ("prometheus_icecube", "ice", ICECUBE_Z, USUAL),  # Ice LE
    "nubench_flower_s": ("orca150", "water", 95.45, SMALL),
    "nubench_flower_l": ("arca115", "water", -3194.0, USUAL),
    "nubench_flower_xl": ("trident", "water", -3090.0, LARGE),
    "nubench_cluster": ("gvd", "water", -970.0, USUAL),
    "nubench_triangle": ("pone", "water", 0.0, USUAL),
}


def build_detector(name: str) -> Detector:
    """Build a detector by name.

    Args:
        name: Name from `list_detectors()`.

    Raises:
        ValueError: The name is unknown; the message gives the nearest names.
    """
    return DETECTORS.get(name)()


def list_detectors(pattern: str = "*") -> list[str]:
    """Return the names of the matching detectors; `*` and `?` work as in a shell."""
    return DETECTORS.names(pattern)


def as_detector(
    given: Detector | PulseMap | str,
    geometry: DetectorGeometry | str | os.PathLike[str] | None = None,
    ice: IceModel | str | os.PathLike[str] | None = None,
) -> Detector:
    """Return a detector given as an object, a pulse map or a name, with other tables.

    Raises ValueError if the name is unknown or a file is not such a table.
    """
    if isinstance(geometry, str | os.PathLike):
        geometry = DetectorGeometry.from_file(geometry)
    if isinstance(ice, str | os.PathLike):
        ice = IceModel.from_file(ice)
    if isinstance(given, str):
        given = build_detector(given)
    if isinstance(given, PulseMap):
        return Detector.from_pulse_map(given, geometry, ice)
    return given.with_tables(geometry, ice)


@register_detector
def kaggle() -> Detector:
    """IceCube-86 in the columns of the competition's files."""
    return _icecube(PulseMap.kaggle())


@register_detector
def icecube86() -> Detector:
    """IceCube-86 in the columns of GraphNeT's IceCube extractors."""
    return _icecube(PulseMap.icecube86())


@register_detector
def deepcore() -> Detector:
    """Strings 79 to 86 of IceCube-86, which are more densely instrumented."""
    every = DetectorGeometry.icecube86()
    here = every.string_S >= 79
    geometry = DetectorGeometry(
        name="deepcore",
        position_S3=every.position_S3[here],
        string_S=every.string_S[here],
        rde_S=every.rde_S[here],
    )
    return Detector(
        name="deepcore",
        pulses=PulseMap.icecube86(),
        geometry=geometry,
        site=SOUTH_POLE,
        telescope=ICECUBE,
    )


@register_detector
def upgrade() -> Detector:
    """IceCube-86 with the IceCube Upgrade; pulses have the direction of their PMT."""
    return Detector(
        name="upgrade",
        pulses=PulseMap.upgrade(),
        geometry=DetectorGeometry.from_package("upgrade"),
        vectors=PMT_DIRECTIONS[:1],
        site=SOUTH_POLE,
    )


@register_detector
def prometheus() -> Detector:
    """Prometheus photons of any detector whose modules are not known."""
    return Detector(name="prometheus", pulses=PulseMap.prometheus())


@register_detector
def km3net() -> Detector:
    """KM3NeT hits of ORCA or ARCA, in the columns of GraphNeT and of HDF5 files."""
    return Detector(
        name="km3net",
        pulses=PulseMap.km3net(),
        medium="water",
        extra_waves=(TOT_WAVES,),
    )


@register_detector
def orca115() -> Detector:
    """KM3NeT/ORCA with 115 strings; hits have ToT and the direction of their PMT."""
    return Detector(
        name="orca115",
        pulses=PulseMap.km3net(
            name="orca115",
            extra=("tot", *PMT_DIRECTIONS[1]),
            extra_scale=(255.0, 1.0, 1.0, 1.0),
        ),
        medium="water",
        vectors=PMT_DIRECTIONS[1:],
        scales=SMALL,
        extra_waves=(TOT_WAVES, *DIRECTION_WAVES),
        site=ORCA,
    )


def _icecube(pulses: PulseMap) -> Detector:
    return Detector(
        name=pulses.name,
        pulses=pulses,
        geometry=DetectorGeometry.icecube86(),
        site=SOUTH_POLE,
        telescope=ICECUBE,
    )


def _register_simulated(
    name: str,
    pulses: PulseMap,
    table: str,
    medium: str,
    z: float,
    scales: Scales,
    site: Site | None = None,
) -> None:
    """Register a detector of one of the tables above."""

    def build() -> Detector:
        centre = (0.0, 0.0, z)
        return Detector(
            name=name,
            pulses=replace(pulses, origin=centre),
            geometry=DetectorGeometry.from_package(table).moved(centre),
            medium=medium,
            scales=scales,
            site=site,
        )

    DETECTORS.add(name, build)


for _name, _row in PROMETHEUS.items():
    # IceCube's ice is meaningful at its site only.
    _ice = "correct" if _row[-1] is SOUTH_POLE else NO_ICE
    _register_simulated(_name, PulseMap.prometheus(ice=_ice), *_row)
for _name, _modules in NUBENCH.items():
    _ice = "correct" if _modules[1] == "ice" else NO_ICE
    _pulses = PulseMap.prometheus(
        name="nubench",
        charge="charge",
        ice=_ice,
        azimuth="initial_state_azimuth",
        zenith="initial_state_zenith",
    )
    _register_simulated(_name, _pulses, *_modules)
