"""The detectors of the package: one short function each, and two tables.

Five of them describe files (`kaggle`, `icecube86`, `upgrade`, `prometheus`, `km3net`);
the others have modules, medium, scales and site. All scales have the same ratio of
position and time, so the interval's speed is 18 everywhere.

Sources: the head of each table gives those of the positions; `site` those of the
sites. PMTs of a module: IceCube arXiv:1612.05093, Upgrade arXiv:1908.09441, Gen2's
Technical Design Report, KM3NeT arXiv:1601.07459, P-ONE arXiv:2111.13133, TRIDENT
arXiv:2207.04519, Baikal-GVD arXiv:1808.10353.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.detector import (
    DETECTORS,
    ICECUBE,
    Detector,
    register_detector,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import LAKE_WATER, IceModel
from graphnet_icecube2nd.detector.module import (
    ARCA_DOM,
    BAIKAL_MODULE,
    ICECUBE_DOM,
    ORCA_DOM,
    PONE_MODULE,
    TRIDENT_MODULE,
    Module,
)
from graphnet_icecube2nd.detector.pulse_map import (
    NO_ICE,
    PMT_DIRECTIONS,
    TOT,
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
# Sources of positions, for lists; the heads of the tables say more.
GRAPHNET, KM3NET = "GraphNeT's tables", "KM3NeT's detector files"
ORCA_PART = "KM3NeT's detector files, nearest strings of the footprint"

ICECUBE_Z = -DETECTOR_CENTRE_DEPTH  # m, if z counts from the surface of the ice
# Detectors as simulated with Prometheus: table of modules, medium, z of the centre in
# the table's coordinates [m], scales, site, and the real module or its PMTs (modules in
# ice are simulated as DOMs). Modules have no PMTs in Prometheus itself.
PROMETHEUS = {
    "gen2": ("gen2", "ice", ICECUBE_Z, LARGE, SOUTH_POLE, 18),  # with IceCube-86
    "prometheus_icecube": ("prometheus_icecube", "ice", ICECUBE_Z, USUAL, SOUTH_POLE),
    "prometheus_upgrade": ("prometheus_upgrade", "ice", ICECUBE_Z, SMALL, SOUTH_POLE),
    "prometheus_arca": ("arca115", "water", -3194.0, USUAL, ARCA, ARCA_DOM),
    "demo_ice": ("demo", "ice", -2000.0, LARGE, None),  # a grid of 81 strings
    "demo_water": ("demo", "water", -2000.0, LARGE, None),
    "orca150": ("orca150", "water", 95.45, SMALL, ORCA, ORCA_DOM),  # 150 strings
    # A cluster of Baikal-GVD
    "gvd": ("gvd", LAKE_WATER, -970.0, USUAL, BAIKAL, BAIKAL_MODULE),
    "trident": ("trident", "water", -3090.0, LARGE, SOUTH_CHINA_SEA, TRIDENT_MODULE),
    # Three strings of P-ONE, whose final layout is not decided.
    "pone": ("pone", "water", 0.0, USUAL, CASCADIA, PONE_MODULE),
}
# The same for NuBench's data sets. The site is that of the telescope with this layout.
NUBENCH = {
    "nubench_hexagon": ("prometheus_icecube", "water", -1972.0, USUAL, None),
    # Ice LE
    "nubench_hexagon_ice": ("prometheus_icecube", "ice", ICECUBE_Z, USUAL, SOUTH_POLE),
    "nubench_flower_s": ("orca150", "water", 95.45, SMALL, ORCA),
    "nubench_flower_l": ("arca115", "water", -3194.0, USUAL, ARCA),
    "nubench_flower_xl": ("trident", "water", -3090.0, LARGE, SOUTH_CHINA_SEA),
    "nubench_cluster": ("gvd", "water", -970.0, USUAL, BAIKAL),
    "nubench_triangle": ("pone", "water", 0.0, USUAL, CASCADIA),
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
        source=GRAPHNET,
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
        pmts=24,
        source=GRAPHNET,
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
        module=ORCA_DOM,
    )


@register_detector
def orca115() -> Detector:
    """KM3NeT/ORCA with 115 strings, as in KM3NeT's simulations."""
    return _km3net("orca115", DetectorGeometry.from_package("km3net_orca115"))


@register_detector
def orca6() -> Detector:
    """KM3NeT/ORCA with its first 6 strings, as surveyed."""
    return _km3net("orca6", DetectorGeometry.from_package("km3net_orca6"))


@register_detector
def orca10() -> Detector:
    """KM3NeT/ORCA with 10 strings; not surveyed, see `_orca_strings`."""
    return _km3net("orca10", _orca_strings("orca10", 10), ORCA_PART)


@register_detector
def orca23() -> Detector:
    """KM3NeT/ORCA with 23 strings; not surveyed, see `_orca_strings`."""
    return _km3net("orca23", _orca_strings("orca23", 23), ORCA_PART)


@register_detector
def arca115() -> Detector:
    """KM3NeT/ARCA, a building block of 115 strings, as in KM3NeT's simulations."""
    return _km3net("arca115", DetectorGeometry.from_package("km3net_arca115"))


@register_detector
def arca21() -> Detector:
    """KM3NeT/ARCA with 21 strings, as surveyed in 2022."""
    return _km3net("arca21", DetectorGeometry.from_package("km3net_arca21"))


@register_detector
def baikal_gvd() -> Detector:
    """Baikal-GVD of 2021: 8 clusters of 8 strings with 36 modules.

    Positions are computed: 7 strings of a cluster are 60 m around the eighth, clusters
    are 300 m apart (here on a hexagonal grid), modules 15 m, from 1275 to 750 m below
    the surface. Source: arXiv:1808.10353.
    """
    turn_7 = torch.arange(7, dtype=torch.float64) * (2 * torch.pi / 7)
    ring_72 = 60.0 * torch.stack([turn_7.cos(), turn_7.sin()], 1)
    strings_82 = torch.cat([ring_72.new_zeros(1, 2), ring_72])
    step_N2 = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)).double()
    skew_22 = step_N2.new_tensor([[1.0, 0.0], [0.5, 0.75**0.5]])
    centre_N2 = 300.0 * step_N2 @ skew_22
    near_8 = centre_N2.norm(dim=1).round().argsort(stable=True)[:8]
    place_82 = (centre_N2[near_8][:, None] + strings_82).flatten(0, 1)
    z = -1275.0 + 15.0 * torch.arange(36, dtype=torch.float64)
    modules = _upright("baikal_gvd", place_82, z)
    return _simulated(
        "baikal_gvd",
        PulseMap.prometheus(),
        modules,
        LAKE_WATER,
        -1012.5,
        USUAL,
        BAIKAL,
        BAIKAL_MODULE,
        source="computed from the spacing in arXiv:1808.10353",
    )


def _icecube(pulses: PulseMap) -> Detector:
    return Detector(
        name=pulses.name,
        pulses=pulses,
        geometry=DetectorGeometry.icecube86(),
        site=SOUTH_POLE,
        telescope=ICECUBE,
        source=GRAPHNET,
    )


def _km3net(name: str, modules: DetectorGeometry, source: str = KM3NET) -> Detector:
    """Return a KM3NeT detector; hits have ToT and the direction of their PMT.

    The centre of the modules is the origin of positions, in the coordinates of KM3NeT's
    files: x is UTM easting, y UTM northing, z counts from the sea floor.
    """
    low_3, high_3 = modules.position_S3.aminmax(dim=0)
    centre = ((low_3 + high_3) / 2).round().tolist()
    is_orca = name.startswith("orca")
    return Detector(
        name=name,
        pulses=PulseMap.km3net(
            name=name,
            extra=(TOT, *PMT_DIRECTIONS[1]),
            extra_scale=(255.0, 1.0, 1.0, 1.0),
            origin=centre,
        ),
        geometry=modules.moved(centre),
        medium="water",
        vectors=PMT_DIRECTIONS[1:],
        scales=SMALL if is_orca else USUAL,
        extra_waves=(TOT_WAVES, *DIRECTION_WAVES),
        site=ORCA if is_orca else ARCA,
        module=ORCA_DOM if is_orca else ARCA_DOM,
        source=source,
    )


def _orca_strings(name: str, number: int) -> DetectorGeometry:
    """Return the strings of ORCA's footprint that are nearest to the first six.

    Where KM3NeT installed its strings after the first six is not public. The footprint
    is that of the simulations, whose distances were 1.15 times smaller than those in
    the sea: moved and enlarged, its strings 1 to 6 are within 3 m of those surveyed.
    """
    whole = DetectorGeometry.from_package("km3net_orca115")
    first_S = whole.string_S <= 6
    centre_3 = whole.position_S3[first_S].mean(0)
    away_S = (whole.position_S3 - centre_3)[:, :2].norm(dim=1)
    strings = whole.string_S[away_S.argsort(stable=True)].tolist()
    nearest = torch.tensor(list(dict.fromkeys(strings))[:number])
    here_S = torch.isin(whole.string_S, nearest)
    scale_3 = centre_3.new_tensor([1.15, 1.15, 1.0])
    surveyed_3 = DetectorGeometry.from_package("km3net_orca6").position_S3.mean(0)
    return DetectorGeometry(
        name=name,
        position_S3=(whole.position_S3[here_S] - centre_3) * scale_3 + surveyed_3,
        string_S=whole.string_S[here_S],
        rde_S=whole.rde_S[here_S],
    )


def _upright(name: str, place_N2: Tensor, z_M: Tensor) -> DetectorGeometry:
    """Return modules at heights (M,) on upright strings at x and y (N, 2), m."""
    num, steps = len(place_N2), len(z_M)
    xy_S2 = place_N2.repeat_interleave(steps, 0)
    return DetectorGeometry(
        name=name,
        position_S3=torch.cat([xy_S2, z_M.repeat(num)[:, None]], 1),
        string_S=torch.arange(1, num + 1).repeat_interleave(steps),
        rde_S=z_M.new_ones(num * steps),
    )


def _simulated(
    name: str,
    pulses: PulseMap,
    modules: DetectorGeometry,
    medium: str,
    z: float,
    scales: Scales,
    site: Site | None,
    module: Module | int = ICECUBE_DOM,
    source: str = GRAPHNET,
) -> Detector:
    """Return a detector in Prometheus' columns; z is the height of its centre, m."""
    centre = (0.0, 0.0, z)
    return Detector(
        name=name,
        pulses=replace(pulses, origin=centre),
        geometry=modules.moved(centre),
        medium=medium,
        scales=scales,
        site=site,
        pmts=module if isinstance(module, int) else module.pmts,
        module=ICECUBE_DOM if isinstance(module, int) else module,
        source=source,
    )


def _register_simulated(name: str, pulses: PulseMap, table: Any, *values: Any) -> None:
    """Register a detector of one of the tables above."""

    def build() -> Detector:
        modules = DetectorGeometry.from_package(table)
        return _simulated(name, pulses, modules, *values)

    DETECTORS.add(name, build)


for _name, _row in PROMETHEUS.items():
    # IceCube's ice is meaningful at its site only.
    _ice = "correct" if _row[4] is SOUTH_POLE else NO_ICE
    _register_simulated(_name, PulseMap.prometheus(ice=_ice), *_row)
for _name, _row in NUBENCH.items():
    _ice = "correct" if _row[1] == "ice" else NO_ICE
    _pulses = PulseMap.prometheus(
        name="nubench",
        charge="charge",
        ice=_ice,
        azimuth="initial_state_azimuth",
        zenith="initial_state_zenith",
    )
    _register_simulated(_name, _pulses, *_row)
