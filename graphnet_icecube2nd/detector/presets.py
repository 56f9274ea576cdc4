"""The detectors that come with the package, each a short function.

Five of them describe files (`kaggle`, `icecube86`, `upgrade`, `prometheus`, `km3net`);
the others are detectors with their modules, medium, scales and site. Scales keep the
ratio of position and time, so the interval's speed is 18 everywhere.

Sources: positions as said at the head of each table (GraphNeT, Prometheus); sites from
the experiments' papers: IceCube arXiv:1612.05093, KM3NeT arXiv:1601.07459, P-ONE
arXiv:2005.09493, TRIDENT arXiv:2207.04519, Baikal-GVD arXiv:1808.10353.
"""

from __future__ import annotations

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.detector import (
    DETECTORS,
    ICECUBE,
    PMT_DIRECTIONS,
    Detector,
    Site,
    register_detector,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import LabelColumns, PulseMap, Scales

SOUTH_POLE = Site(latitude=-89.99, longitude=-63.4530, height=885.0)
CAPO_PASSERO = Site(latitude=36.27, longitude=16.10, height=-3450.0)
TOULON = Site(latitude=42.80, longitude=6.03, height=-2440.0)
CASCADIA = Site(latitude=47.75, longitude=-127.73, height=-2660.0)
SOUTH_CHINA_SEA = Site(latitude=17.4, longitude=114.0, height=-3475.0)
BAIKAL = Site(latitude=51.77, longitude=104.42, height=-800.0)

# Of IceCube, in coordinates whose z counts from the surface of the ice, m.
ICECUBE_CENTRE = (0.0, 0.0, -DETECTOR_CENTRE_DEPTH)
SMALL = Scales(position=100.0, time=6.0e3)  # detectors of some 100 m
LARGE = Scales(position=2000.0, time=1.2e5)  # detectors of some kilometres
# A PMT direction is -1 to 1: sixteen waves over that range tell PMTs apart.
DIRECTION_WAVES = (64.0, 64.0, 64.0)
TOT_WAVES = 1024.0

_ORCA_HITS = {
    "extra": ("tot", *PMT_DIRECTIONS[1]),
    "extra_scale": (255.0, 1.0, 1.0, 1.0),
}
_NUBENCH = {
    "charge": "charge",
    "labels": LabelColumns(
        azimuth="initial_state_azimuth", zenith="initial_state_zenith", angles="flight"
    ),
}


def build_detector(name: str) -> Detector:
    """Return a detector by name.

    Args:
        name: One of `list_detectors()`.

    Raises:
        ValueError: No such detector; the message has the nearest names.
    """
    return DETECTORS.get(name)()


def list_detectors(pattern: str = "*") -> list[str]:
    """Return the names of the detectors that match; `*` and `?` as in a shell."""
    return DETECTORS.names(pattern)


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
    """The strings 79 to 86 of IceCube-86, more densely instrumented."""
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
def gen2() -> Detector:
    """IceCube-Gen2 with IceCube-86, as simulated with Prometheus."""
    return _around_icecube("gen2", LARGE)


@register_detector
def prometheus() -> Detector:
    """Photons of Prometheus, of any detector whose modules are not known."""
    return Detector(name="prometheus", pulses=PulseMap.prometheus())


@register_detector
def prometheus_icecube() -> Detector:
    """IceCube-86, as simulated with Prometheus."""
    return _around_icecube("prometheus_icecube", Scales())


@register_detector
def prometheus_upgrade() -> Detector:
    """The seven strings of the IceCube Upgrade, as simulated with Prometheus."""
    return _around_icecube("prometheus_upgrade", SMALL)


@register_detector
def demo_ice() -> Detector:
    """Prometheus' demonstration grid of 81 strings, in ice."""
    return _prometheus("demo_ice", "demo", "ice", (0.0, 0.0, -2000.0), LARGE, None)


@register_detector
def demo_water() -> Detector:
    """Prometheus' demonstration grid of 81 strings, in water."""
    return _prometheus("demo_water", "demo", "water", (0.0, 0.0, -2000.0), LARGE, None)


@register_detector
def km3net() -> Detector:
    """Hits of KM3NeT, of ORCA or ARCA, as GraphNeT's converter and HDF5 files have."""
    return Detector(
        name="km3net",
        pulses=PulseMap.km3net(),
        medium="water",
        extra_waves=(TOT_WAVES,),
    )


@register_detector
def orca115() -> Detector:
    """KM3NeT/ORCA with 115 strings: hits with ToT and the direction of their PMT."""
    return Detector(
        name="orca115",
        pulses=PulseMap.km3net(name="orca115", **_ORCA_HITS),
        medium="water",
        vectors=PMT_DIRECTIONS[1:],
        scales=SMALL,
        extra_waves=(TOT_WAVES, *DIRECTION_WAVES),
        site=TOULON,
    )


@register_detector
def orca150() -> Detector:
    """KM3NeT/ORCA of 150 strings, as simulated with Prometheus."""
    return _prometheus("orca150", "orca150", "water", (0.0, 0.0, 95.45), SMALL, TOULON)


@register_detector
def arca115() -> Detector:
    """KM3NeT/ARCA with 115 strings, as simulated with Prometheus."""
    return _prometheus(
        "arca115", "arca115", "water", (0.0, 0.0, -3194.0), Scales(), CAPO_PASSERO
    )


@register_detector
def gvd() -> Detector:
    """A cluster of Baikal-GVD, as simulated with Prometheus."""
    return _prometheus("gvd", "gvd", "water", (0.0, 0.0, -970.0), Scales(), BAIKAL)


@register_detector
def trident() -> Detector:
    """TRIDENT, as simulated with Prometheus."""
    centre = (0.0, 0.0, -3090.0)
    return _prometheus("trident", "trident", "water", centre, LARGE, SOUTH_CHINA_SEA)


@register_detector
def pone() -> Detector:
    """Three strings of P-ONE, as simulated with Prometheus."""
    return _prometheus("pone", "pone", "water", (0.0, 0.0, 0.0), Scales(), CASCADIA)


@register_detector
def nubench_hexagon() -> Detector:
    """NuBench's Hexagon: the modules of IceCube-86, in water."""
    centre = (0.0, 0.0, -1972.0)
    return _nubench("hexagon", "prometheus_icecube", "water", centre, Scales())


@register_detector
def nubench_hexagon_ice() -> Detector:
    """NuBench's Hexagon Ice LE: the modules of IceCube-86, in ice."""
    return _nubench(
        "hexagon_ice", "prometheus_icecube", "ice", ICECUBE_CENTRE, Scales()
    )


@register_detector
def nubench_flower_s() -> Detector:
    """NuBench's Flower S, like ORCA."""
    return _nubench("flower_s", "orca150", "water", (0.0, 0.0, 95.45), SMALL)


@register_detector
def nubench_flower_l() -> Detector:
    """NuBench's Flower L, like ARCA."""
    return _nubench("flower_l", "arca115", "water", (0.0, 0.0, -3194.0), Scales())


@register_detector
def nubench_flower_xl() -> Detector:
    """NuBench's Flower XL, like TRIDENT."""
    return _nubench("flower_xl", "trident", "water", (0.0, 0.0, -3090.0), LARGE)


@register_detector
def nubench_cluster() -> Detector:
    """NuBench's Cluster, like a cluster of Baikal-GVD."""
    return _nubench("cluster", "gvd", "water", (0.0, 0.0, -970.0), Scales())


@register_detector
def nubench_triangle() -> Detector:
    """NuBench's Triangle, like three strings of P-ONE."""
    return _nubench("triangle", "pone", "water", (0.0, 0.0, 0.0), Scales())


def _icecube(pulses: PulseMap) -> Detector:
    return Detector(
        name=pulses.name,
        pulses=pulses,
        geometry=DetectorGeometry.icecube86(),
        site=SOUTH_POLE,
        telescope=ICECUBE,
    )


def _around_icecube(name: str, scales: Scales) -> Detector:
    """Return a detector at IceCube, as simulated with Prometheus."""
    return Detector(
        name=name,
        pulses=PulseMap.prometheus(ice="correct", origin=ICECUBE_CENTRE),
        geometry=DetectorGeometry.from_package(name).moved(ICECUBE_CENTRE),
        scales=scales,
        site=SOUTH_POLE,
    )


def _prometheus(
    name: str,
    table: str,
    medium: str,
    centre: tuple[float, float, float],
    scales: Scales,
    site: Site | None,
) -> Detector:
    return Detector(
        name=name,
        pulses=PulseMap.prometheus(origin=centre),
        geometry=DetectorGeometry.from_package(table).moved(centre),
        medium=medium,
        scales=scales,
        site=site,
    )


def _nubench(
    name: str,
    table: str,
    medium: str,
    centre: tuple[float, float, float],
    scales: Scales,
) -> Detector:
    ice = "correct" if medium == "ice" else "none"
    return Detector(
        name=f"nubench_{name}",
        pulses=PulseMap.prometheus(name="nubench", origin=centre, ice=ice, **_NUBENCH),
        geometry=DetectorGeometry.from_package(table).moved(centre),
        medium=medium,
        scales=scales,
    )
