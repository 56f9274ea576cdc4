"""SimulationConfig: topologies of events, their energies, the detector's noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from graphnet_icecube2nd.config import from_plain
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.ice import ICE

# In the order of their codes: a muon from outside; a muon that starts inside with a
# shower; a shower; the two showers of a tau neutrino; muons of an air shower.
TOPOLOGIES = (
    "through_going_track",
    "starting_track",
    "cascade",
    "double_cascade",
    "muon_bundle",
)
BLOCK_EVENTS = 256  # events from one stream of random numbers
SMALL = 100.0  # m, unit of positions of small detectors


_FRACTIONS = dict(zip(TOPOLOGIES, (0.40, 0.12, 0.355, 0.015, 0.11), strict=True))


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Physics of the events that `simulate` makes.

    The defaults give the pulses per event of the competition's data: quartiles and
    95% quantile agree within 15%, the 99% quantile within a factor of 1.5.

    Args:
        fractions: Share of each topology among the events, 0 or above; they are
            normalised to a sum of 1. Missing topologies do not occur.
        energy_range: Lowest and highest neutrino energy, GeV.
        spectral_index: Index g of the spectrum E^-g within the energy range.
        double_cascade_range: Lowest and highest energy of the tau neutrinos of double
            cascades, GeV, instead of `energy_range`. At lower energies the two cascades
            cannot be distinguished.
        noise_rate: Uncorrelated noise rate of a DOM with rde 1, or of each PMT if a
            DOM has several, Hz.
        time_jitter: Standard deviation of the time of a pulse, ns.
        charge_spread: Standard deviation of the charge of one photoelectron, p.e.
        merge_time: Interval in which photoelectrons of a PMT merge into one pulse, ns.
        dom_efficiency: Factor of the efficiency of all DOMs.
        systematics: Whether each event has its own ice and DOMs: scattering length,
            absorption length and efficiency within 10% of the nominal ones, and the
            sensitivity to light from below (hole ice) from 0.45 to 0.95 instead of
            0.75, as in SnowStorm (arXiv:1909.01530). The truth has the drawn values.

    Raises:
        ValueError: A value is out of range; the message gives its name and the range.
    """

    fractions: Mapping[str, float] = field(default_factory=_FRACTIONS.copy)
    energy_range: tuple[float, float] = (100.0, 1e6)
    spectral_index: float = 2.15
    double_cascade_range: tuple[float, float] = (3e4, 3e6)
    noise_rate: float = 440.0
    time_jitter: float = 3.0
    charge_spread: float = 0.3
    merge_time: float = 10.0
    dom_efficiency: float = 1.0
    systematics: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.fractions) - set(TOPOLOGIES))
        if unknown:
            raise ValueError(
                f"unknown topology {', '.join(unknown)}; choose from "
                f"{', '.join(TOPOLOGIES)}"
            )
        shares = [float(self.fractions.get(name, 0.0)) for name in TOPOLOGIES]
        if not (all(0 <= share < math.inf for share in shares) and sum(shares) > 0):
            raise ValueError(
                f"fractions must be 0 or above, at least one above 0; got "
                f"{dict(self.fractions)}"
            )
        total = sum(shares)
        whole = {n: s / total for n, s in zip(TOPOLOGIES, shares, strict=True) if s}
        object.__setattr__(self, "fractions", whole)
        for name in ("energy_range", "double_cascade_range"):
            low, high = (float(value) for value in getattr(self, name))
            if not 1.0 <= low < high <= 1e9:
                raise ValueError(
                    f"{name} must be two energies from 1 to 1e9 GeV, the lower first; "
                    f"got {low:g} and {high:g}"
                )
            object.__setattr__(self, name, (low, high))
        for name, low, high in (
            ("spectral_index", 0.0, 5.0),
            ("noise_rate", 0.0, 1e5),
            ("time_jitter", 0.1, 100.0),
            ("charge_spread", 0.0, 1.0),
            ("merge_time", 1.0, 1000.0),
            ("dom_efficiency", 0.1, 10.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # this form rejects NaN too
                raise ValueError(
                    f"{name} must be from {low:g} to {high:g}; got {value}"
                )

    @classmethod
    def of(cls, detector: Detector | None, **changes: Any) -> SimulationConfig:
        """Return the configuration that suits a detector.

        Noise and pulses are those of its modules. In water the spectral index is 1.4,
        because low energies are hardly seen; a detector of about 100 m (ORCA) gets 1
        GeV to 1 TeV and no double cascades.

        Args:
            detector: The detector; None for IceCube-86.
            **changes: Other values of fields.

        Raises:
            ValueError: A value is out of range.
        """
        if detector is None:
            return cls(**changes)
        module = detector.module
        values: dict[str, Any] = {
            name: getattr(module, name)
            for name in ("noise_rate", "time_jitter", "charge_spread", "merge_time")
        }
        if detector.medium != ICE:
            values["spectral_index"] = 1.4
            if detector.scales.position <= SMALL:
                shares = dict(zip(TOPOLOGIES, (0.2, 0.35, 0.35, 0.0, 0.1), strict=True))
                values |= {"fractions": shares, "energy_range": (1.0, 1e3)}
        return cls(**{**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SimulationConfig:
        """Rebuild a configuration from `to_dict`.

        Raises:
            ValueError: A name is unknown or a value is out of range.
        """
        return from_plain(cls, values)
