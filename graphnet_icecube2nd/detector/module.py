"""Module: what an optical module sees, and how its pulses make an event.

Numbers of the simulation, simplified. Sources: IceCube arXiv:1612.05093; KM3NeT:
directions of the PMTs from the detector files of km3net-testdata (MIT), photocathode
and efficiency arXiv:1601.07459, rates of potassium-40 arXiv:1906.02704, filter
arXiv:2506.05881; P-ONE arXiv:2111.13133; Baikal-GVD arXiv:1808.10353. Shape letters: P
PMTs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Conditions of an event, simplified.

    Modules with one PMT are local coincidences if a neighbour on the string (the next
    two) has a pulse within `local_window`; `modules` of them within `window` make an
    event. A module with several PMTs is one if two of its PMTs have pulses within
    `local_window`; an event is one such module with others, `modules` in all, or with
    pulses, `pulses` in all, each within a distance and not farther in time than light
    flies in the medium, and `extra`.

    Args:
        local_window: Window of a local coincidence, ns.
        modules: Modules with local coincidences.
        window: Window of an event, ns; of modules with one PMT.
        least_charge: Least charge of a pulse in a local coincidence, p.e.; of modules
            with one PMT.
        distance: Largest distance of the modules, m.
        pulses: Pulses with any or no local coincidence; 0 for no such trigger.
        pulses_distance: Largest distance of these pulses, m.
        extra: Time in addition to the flight of light, ns.
    """

    local_window: float = 1000.0
    modules: int = 8
    window: float = 5000.0
    least_charge: float = 0.0
    distance: float = np.inf
    pulses: int = 0
    pulses_distance: float = 0.0
    extra: float = 20.0


@dataclass(frozen=True, kw_only=True)
class Module:
    """An optical module. The default is IceCube's: one PMT that looks down.

    Args:
        name: Name for lists and messages.
        rings: Rings of PMTs: zenith angle of the direction in which they look [deg],
            their number, azimuth of the first [deg]. None: one PMT that looks down,
            whose light is not divided.
        area: Effective area for photons of 300 to 600 nm of the Cherenkov spectrum,
            m2, the mean over all sides.
        radius: Distance of a PMT from the centre of the module, m.
        noise_rate: Rate of single pulses of a PMT, Hz.
        coincidence_rates: Rates of twofold, threefold, ... coincidences within a
            module by decays of potassium-40, Hz.
        time_jitter: Standard deviation of the time of a pulse, ns.
        charge_spread: Standard deviation of the charge of one photoelectron, p.e.
        merge_time: Interval in which photoelectrons of a PMT merge into one pulse, ns.
        trigger: Conditions of an event.
    """

    name: str = "IceCube DOM"
    rings: tuple[tuple[float, int, float], ...] = ()
    area: float = 0.003
    radius: float = 0.0
    noise_rate: float = 440.0
    coincidence_rates: tuple[float, ...] = ()
    time_jitter: float = 3.0
    charge_spread: float = 0.3
    merge_time: float = 10.0
    trigger: Trigger = Trigger()

    @property
    def pmts(self) -> int:
        """Number of PMTs."""
        return sum(number for _, number, _ in self.rings) or 1

    @property
    def directions_P3(self) -> NDArray[np.float64]:
        """Directions in which the PMTs look, unit vectors, (P, 3)."""
        looks = []
        for zenith, number, first in self.rings or ((180.0, 1, 0.0),):
            azimuth = np.radians(first + 360.0 / number * np.arange(number))
            angle = np.full(number, np.radians(zenith))
            flat = np.sin(angle)
            looks.append(
                np.stack(
                    [flat * np.cos(azimuth), flat * np.sin(azimuth), np.cos(angle)], 1
                )
            )
        return np.concatenate(looks)


ICECUBE_DOM = Module()
# Photocathode of 45.4 cm2, which an average side sees with 30% because of the ring of
# reflectors around it, at an efficiency of 10% for the Cherenkov spectrum after 20 to
# 80 m of water.
KM3NET_AREA = 45.4e-4 * 0.30 * 0.10
# The trigger of ORCA: four modules, or one and eight pulses around it.
ORCA_DOM = Module(
    name="KM3NeT DOM",
    rings=(
        *((56.2, 6, 30.0), (72.8, 6, 0.0), (107.2, 6, 30.0)),
        *((123.8, 6, 0.0), (148.0, 6, 30.0), (180.0, 1, 0.0)),
    ),
    area=31 * KM3NET_AREA,
    radius=0.2,
    noise_rate=7000.0,
    coincidence_rates=(500.0, 50.0, 5.0, 0.5),
    time_jitter=2.0,
    charge_spread=0.4,
    merge_time=26.0,
    trigger=Trigger(
        local_window=10.0,
        modules=4,
        distance=70.0,
        pulses=8,
        pulses_distance=30.0,
    ),
)
ARCA_DOM = replace(
    ORCA_DOM, trigger=Trigger(local_window=25.0, modules=4, distance=150.0)
)
# Two hemispheres of eight PMTs.
PONE_MODULE = replace(
    ORCA_DOM,
    name="P-ONE module",
    rings=((38.0, 4, 0.0), (70.0, 4, 45.0), (110.0, 4, 0.0), (142.0, 4, 45.0)),
    area=16 * KM3NET_AREA,
    merge_time=10.0,
    trigger=Trigger(local_window=20.0, modules=4, distance=250.0),
)
# Only local coincidences are read out, so noise is coincidences, also those by chance.
TRIDENT_MODULE = replace(
    ARCA_DOM,
    name="TRIDENT hDOM",
    noise_rate=0.0,
    coincidence_rates=(1000.0, 50.0, 5.0, 0.5),
    merge_time=10.0,
)
# The same PMT as IceCube's of high efficiency, in water with light of its own.
BAIKAL_MODULE = Module(
    name="Baikal-GVD OM",
    area=0.003 * 1.35,
    noise_rate=25e3,
    trigger=Trigger(local_window=100.0, modules=4, least_charge=1.5),
)
