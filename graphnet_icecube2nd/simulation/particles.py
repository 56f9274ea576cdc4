"""Particles that make light: tracks and cascades, drawn with their truth.

Shape letters: B events, C cascades of an event (2; of energy 0 where there is none).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH, SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.configuration import TOPOLOGIES, SimulationConfig
from graphnet_icecube2nd.simulation.light import (
    muon_range,
    shower_light,
)

Array = NDArray[np.float64]

CASCADES = 2
TAU_DECAY_LENGTH = 4.9e-5  # m/GeV: c tau / mass
TAU_VISIBLE = 0.65  # of its energy, what its decay shows on average
NEUTRAL_CURRENT = 0.25  # of the cascades: only the hadrons shine
MARGIN = 60.0  # m around the DOMs, in which interactions are drawn
MARGIN_PER_DECADE = 25.0  # m more for cascades, per decade of energy above 100 GeV


@dataclass(frozen=True, kw_only=True, eq=False)
class Particles:
    """What makes light in B events, and where it comes from.

    Args:
        topology_B: (B,) places in TOPOLOGIES.
        direction_B3: (B, 3) where all of it flies, unit vectors.
        energy_B: (B,) of the neutrino, or of all muons of a bundle where they enter
            the neighbourhood of the detector; GeV.
        inelasticity_B: (B,) share of the neutrino's energy that goes to hadrons; NaN
            for bundles.
        vertex_B3: (B, 3) where the neutrino interacts; where a bundle enters; m.
        time_B: (B,) when, ns.
        track_length_B: (B,) of the muons, m; 0 without any.
        track_energy_B: (B,) of each muon at the vertex, GeV.
        muons_B: (B,) their number.
        cascade_distance_BC: (B, C) how far along the flight a cascade lies, m.
        cascade_energy_BC: (B, C) electromagnetic energy that shines alike, GeV.
    """

    topology_B: NDArray[np.int64]
    direction_B3: Array
    energy_B: Array
    inelasticity_B: Array
    vertex_B3: Array
    time_B: Array
    track_length_B: Array
    track_energy_B: Array
    muons_B: Array
    cascade_distance_BC: Array
    cascade_energy_BC: Array

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.topology_B)

    def take(self, index: NDArray[np.int64] | slice) -> Particles:
        """Return some of the events."""
        return Particles(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def join(cls, pieces: list[Particles]) -> Particles:
        """Return all events of several."""
        names = [entry.name for entry in fields(cls)]
        return cls(
            **{
                n: np.concatenate([getattr(piece, n) for piece in pieces])
                for n in names
            }
        )


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The cylinder around the DOMs, in which there is something to be seen.

    Args:
        x, y: Its axis, m.
        radius: m.
        bottom, top: z, m.
    """

    x: float
    y: float
    radius: float
    bottom: float
    top: float

    @classmethod
    def around(cls, position_S3: Array) -> Volume:
        """Return the cylinder around DOMs (S, 3)."""
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
    def centre(self) -> Array:
        """(3,) m."""
        return np.array([self.x, self.y, 0.5 * (self.bottom + self.top)])

    @property
    def reach(self) -> float:
        """Radius of the sphere around it, m."""
        return float(np.hypot(self.radius, 0.5 * (self.top - self.bottom)))


def draw_particles(
    topology_B: NDArray[np.int64],
    config: SimulationConfig,
    volume: Volume,
    rng: np.random.Generator,
) -> Particles:
    """Draw events of given topologies, whether or not they will trigger.

    Args:
        topology_B: (B,) places in TOPOLOGIES.
        config: Energies.
        volume: Where the DOMs are.
        rng: Where the random numbers come from.
    """
    draw = (_through_going, _starting, _cascade, _double_cascade, _bundle)
    pieces, places = [], []
    for topology in range(len(TOPOLOGIES)):
        place = np.flatnonzero(topology_B == topology)
        if len(place):
            places.append(place)
            pieces.append(draw[topology](len(place), config, volume, rng))
    order = np.argsort(np.concatenate(places))
    return Particles.join(pieces).take(order)


def _through_going(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Particles:
    """A muon from outside; where it began is uniform along what it can go."""
    direction = _isotropic(num, rng)
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    inelasticity = _inelasticity(num, rng)
    muon = (1.0 - inelasticity) * energy
    enters = _entry(direction, volume, rng)
    # Not from above the surface of the ice.
    climb = np.maximum(-direction[:, 2], 1e-9)
    ice_above = np.maximum(DETECTOR_CENTRE_DEPTH - enters[:, 2], 0.0) / climb
    # Those that end within the margin are not seen.
    farthest = np.maximum(muon_range(muon) - 0.7 * MARGIN, 0.0)
    before = rng.random(num) * np.minimum(farthest, ice_above)
    vertex = enters - before[:, None] * direction
    return _particles(
        "through_going_track",
        direction,
        energy,
        vertex,
        # The clock is 0 where the muon comes into the neighbourhood of the DOMs.
        time=-before / SPEED_OF_LIGHT,
        inelasticity=inelasticity,
        track_energy=muon,
        cascades=[(np.zeros(num), shower_light(inelasticity * energy))],
    )


def _starting(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Particles:
    """A muon neutrino's charged current inside: a hadronic shower and a muon."""
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    inelasticity = _inelasticity(num, rng)
    return _particles(
        "starting_track",
        _isotropic(num, rng),
        energy,
        _inside(num, volume, np.zeros(num), rng),
        inelasticity=inelasticity,
        track_energy=(1.0 - inelasticity) * energy,
        cascades=[(np.zeros(num), shower_light(inelasticity * energy))],
    )


def _cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Particles:
    """An electron neutrino's charged current, or any neutral current."""
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    inelasticity = _inelasticity(num, rng)
    is_neutral = rng.random(num) < NEUTRAL_CURRENT
    electron = np.where(is_neutral, 0.0, (1.0 - inelasticity) * energy)
    margin = MARGIN_PER_DECADE * np.log10(np.maximum(energy, 100.0) / 100.0)
    return _particles(
        "cascade",
        _isotropic(num, rng),
        energy,
        _inside(num, volume, margin, rng),
        inelasticity=inelasticity,
        cascades=[(np.zeros(num), electron + shower_light(inelasticity * energy))],
    )


def _double_cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Particles:
    """A tau neutrino's charged current: hadrons, and the decay of the tau."""
    energies = config.double_cascade_range
    energy = _power_law(num, energies, config.spectral_index, rng)
    inelasticity = _inelasticity(num, rng)
    tau = (1.0 - inelasticity) * energy
    flown = rng.exponential(TAU_DECAY_LENGTH * tau)
    return _particles(
        "double_cascade",
        _isotropic(num, rng),
        energy,
        _inside(num, volume, np.zeros(num), rng),
        inelasticity=inelasticity,
        cascades=[
            (np.zeros(num), shower_light(inelasticity * energy)),
            (flown, TAU_VISIBLE * tau),
        ],
    )


def _bundle(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Particles:
    """Parallel muons of an air shower, as one bright track from above."""
    # cos(zenith)**3.5, which is roughly what is left of them at IceCube's depth.
    cosine = np.maximum(rng.random(num) ** (1 / 4.5), 0.05)
    azimuth = 2 * np.pi * rng.random(num)
    sine = np.sqrt(1 - cosine**2)
    direction = -np.stack(
        [sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=-1
    )
    muons = np.minimum(np.floor(rng.random(num) ** (-1 / 1.8)), 300.0)
    muon = 150.0 * rng.random(num) ** (-1 / 1.7)  # GeV, E**-2.7
    return _particles(
        "muon_bundle",
        direction,
        muons * muon,
        _entry(direction, volume, rng),
        inelasticity=np.full(num, np.nan),
        track_energy=muon,
        muons=muons,
    )


def _particles(
    topology: str,
    direction: Array,
    energy: Array,
    vertex: Array,
    *,
    inelasticity: Array,
    time: Array | None = None,
    track_energy: Array | None = None,
    muons: Array | None = None,
    cascades: list[tuple[Array, Array]] | None = None,
) -> Particles:
    """Fill in what a topology does not have."""
    num = len(energy)
    distance, shine = np.zeros((2, num, CASCADES))
    for column, (along, light) in enumerate(cascades or []):
        distance[:, column], shine[:, column] = along, light
    has_track = track_energy is not None
    muon = np.zeros(num) if track_energy is None else track_energy
    return Particles(
        topology_B=np.full(num, TOPOLOGIES.index(topology)),
        direction_B3=direction,
        energy_B=energy,
        inelasticity_B=inelasticity,
        vertex_B3=vertex,
        time_B=np.zeros(num) if time is None else time,
        track_length_B=muon_range(muon),
        track_energy_B=muon,
        muons_B=np.full(num, float(has_track)) if muons is None else muons,
        cascade_distance_BC=distance,
        cascade_energy_BC=shine,
    )


def _isotropic(num: int, rng: np.random.Generator) -> Array:
    cosine, azimuth = 2 * rng.random(num) - 1, 2 * np.pi * rng.random(num)
    sine = np.sqrt(1 - cosine**2)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=-1)


def _power_law(
    num: int, borders: tuple[float, float], index: float, rng: np.random.Generator
) -> Array:
    """Draw energies of a density E**-index."""
    low, high = borders
    power = 1.0 - index
    drawn = rng.random(num)
    if abs(power) < 1e-9:
        energy: Array = low * (high / low) ** drawn
    else:
        energy = (low**power + drawn * (high**power - low**power)) ** (1.0 / power)
    return energy


def _inelasticity(num: int, rng: np.random.Generator) -> Array:
    """Draw shares of energy that go to hadrons: density 1.5 (1 - y)**0.5, mean 0.4.

    Roughly the measured mean of 0.3 to 0.5 between 1 PeV and 1 TeV (arXiv:1808.07629).
    """
    share: Array = 1.0 - rng.random(num) ** (1 / 1.5)
    return share


def _inside(
    num: int, volume: Volume, margin_B: Array, rng: np.random.Generator
) -> Array:
    """Draw points uniformly in the cylinder and a margin around it, (B, 3) m."""
    grown = MARGIN + margin_B
    radius = (volume.radius + grown) * np.sqrt(rng.random(num))
    angle = 2 * np.pi * rng.random(num)
    low, high = volume.bottom - grown, volume.top + grown
    z = low + rng.random(num) * (high - low)
    x, y = volume.x + radius * np.cos(angle), volume.y + radius * np.sin(angle)
    return np.stack([x, y, z], axis=-1)


def _entry(direction_B3: Array, volume: Volume, rng: np.random.Generator) -> Array:
    """Draw where lines enter the cylinder around the DOMs and a margin, (B, 3) m.

    Lines of each direction are uniform across it, as a flux has them.
    """
    entry = np.empty((len(direction_B3), 3))
    missing = np.arange(len(direction_B3))
    while len(missing):
        line, direction = (
            _line(direction_B3[missing], volume, rng),
            direction_B3[missing],
        )
        inside = _distance_to_cylinder(line, direction, volume)
        hits = np.isfinite(inside)
        entry[missing[hits]] = line[hits] + inside[hits, None] * direction[hits]
        missing = missing[~hits]
    return entry


def _line(direction_B3: Array, volume: Volume, rng: np.random.Generator) -> Array:
    """Draw points far before the detector, uniform on a disk across the flight."""
    num, reach = len(direction_B3), volume.reach + 2 * MARGIN
    radius, angle = reach * np.sqrt(rng.random(num)), 2 * np.pi * rng.random(num)
    # Two axes across the flight, from the coordinate axis that is farthest from it.
    helper = np.zeros((num, 3))
    helper[np.arange(num), np.abs(direction_B3).argmin(axis=1)] = 1.0
    first = np.cross(direction_B3, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(direction_B3, first)
    across = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    point: Array = volume.centre + radius[:, None] * across - reach * direction_B3
    return point


def _distance_to_cylinder(
    point_B3: Array, direction_B3: Array, volume: Volume
) -> Array:
    """Return how far lines fly until they enter, (B,) m; infinite if they miss."""
    radius = volume.radius + MARGIN
    x, y = point_B3[:, 0] - volume.x, point_B3[:, 1] - volume.y
    u, v, w = direction_B3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Between the planes of top and bottom, and within the circle.
        planes = (
            np.array([[volume.bottom - MARGIN], [volume.top + MARGIN]]) - point_B3[:, 2]
        ) / w
        square, half = u**2 + v**2, x * u + y * v
        root = np.sqrt(half**2 - square * (x**2 + y**2 - radius**2))
        circle = np.stack([-half - root, -half + root]) / square
    enters = np.fmax(planes.min(axis=0), circle[0])
    leaves = np.fmin(planes.max(axis=0), circle[1])
    misses = np.isnan(root) | ~(enters < leaves)
    return np.where(misses, np.inf, enters)
