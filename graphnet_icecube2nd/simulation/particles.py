"""Particles that make light (tracks and cascades), drawn with their truth.

Shape letters: B events, C cascades of an event (2; with energy 0 if there is none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH, SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import Volume
from graphnet_icecube2nd.simulation.light import muon_range, shower_light
from graphnet_icecube2nd.simulation.rows import Array, Rows

Columns = dict[str, Array]

TAU_DECAY_LENGTH = 4.9e-5  # m/GeV: c tau / mass
TAU_VISIBLE = 0.65  # average visible share of the energy in a decay
NEUTRAL_CURRENT = 0.25  # share of the cascades in which only the hadrons make light
MARGIN = 60.0  # m around the DOMs, in which interactions are drawn
MARGIN_PER_DECADE = 25.0  # m more for cascades, per decade of energy above 100 GeV


@dataclass(frozen=True, kw_only=True, eq=False)
class Particles(Rows):
    """Sources of light in B events, and their origin."""

    topology_B: NDArray[np.int64]  # indices in TOPOLOGIES
    direction_B3: Array  # common flight direction, unit vectors
    # GeV: of the neutrino, or of all muons of a bundle where they enter the
    # neighbourhood of the detector.
    energy_B: Array
    inelasticity_B: Array  # share of the energy that goes to hadrons; NaN for bundles
    vertex_B3: Array  # m, interaction point of the neutrino, or entry of a bundle
    time_B: Array  # ns, time at the vertex
    track_length_B: Array  # m, of the muons; 0 without muons
    track_energy_B: Array  # GeV, of each muon at the vertex
    muons_B: Array  # number of muons
    cascade_distance_BC: Array  # m, distance of a cascade from the vertex
    cascade_energy_BC: Array  # GeV, electromagnetic energy with the same light


def draw_particles(
    topology_B: NDArray[np.int64],
    config: SimulationConfig,
    volume: Volume,
    rng: np.random.Generator,
) -> Particles:
    """Draw events of given topologies, before any trigger."""
    pieces, places = [], []
    # In the order of TOPOLOGIES.
    draws = (_through_going, _starting, _cascade, _double_cascade, _bundle)
    for topology, draw in enumerate(draws):
        place = np.flatnonzero(topology_B == topology)
        if len(place):
            places.append(place)
            drawn = draw(len(place), config, volume, rng)
            pieces.append(_particles(topology_B[place], drawn))
    order = np.argsort(np.concatenate(places))
    return Particles.join(pieces).take(order)


def _particles(topology_B: NDArray[np.int64], drawn: Columns) -> Particles:
    """Return particles from drawn columns; what a topology does not have is 0."""
    zero_B = np.zeros(len(topology_B))
    has_track = "track_energy_B" in drawn
    columns: dict[str, Any] = {
        "time_B": zero_B,
        "track_energy_B": zero_B,
        "muons_B": np.full(len(topology_B), float(has_track)),
        "cascade_distance_BC": np.zeros((len(topology_B), 2)),
        "cascade_energy_BC": np.zeros((len(topology_B), 2)),
        **drawn,
    }
    length_B = muon_range(columns["track_energy_B"])
    return Particles(topology_B=topology_B, track_length_B=length_B, **columns)


def _through_going(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw muons from outside; their start is uniform along their possible range."""
    direction = _isotropic(num, rng)
    neutrino = _neutrino(num, config.energy_range, config, rng)
    enters = _entry(direction, volume, rng)
    # Muons do not start above the surface of the ice.
    climb = np.maximum(-direction[:, 2], 1e-9)
    ice_above = np.maximum(DETECTOR_CENTRE_DEPTH - enters[:, 2], 0.0) / climb
    # Muons that end before the margin are not seen.
    muon = _lepton(neutrino)
    farthest = np.maximum(muon_range(muon) - 0.7 * MARGIN, 0.0)
    before = rng.random(num) * np.minimum(farthest, ice_above)
    return {
        **neutrino,
        "direction_B3": direction,
        "vertex_B3": enters - before[:, None] * direction,
        # The clock is 0 where the muon reaches the neighbourhood of the DOMs.
        "time_B": -before / SPEED_OF_LIGHT,
        "track_energy_B": muon,
        "cascade_energy_BC": _cascades(_hadrons(neutrino)),
    }


def _starting(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw muon neutrinos, charged current inside: a hadronic shower and a muon."""
    neutrino = _neutrino(num, config.energy_range, config, rng)
    return {
        **neutrino,
        **_inside(num, volume, 0.0, rng),
        "track_energy_B": _lepton(neutrino),
        "cascade_energy_BC": _cascades(_hadrons(neutrino)),
    }


def _cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw electron neutrinos with a charged current, or any neutral current."""
    neutrino = _neutrino(num, config.energy_range, config, rng)
    is_neutral = rng.random(num) < NEUTRAL_CURRENT
    electron = np.where(is_neutral, 0.0, _lepton(neutrino))
    decades = np.log10(np.maximum(neutrino["energy_B"], 100.0) / 100.0)
    return {
        **neutrino,
        **_inside(num, volume, MARGIN_PER_DECADE * decades, rng),
        "cascade_energy_BC": _cascades(electron + _hadrons(neutrino)),
    }


def _double_cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw tau neutrinos with a charged current: hadrons, and the decay of the tau."""
    neutrino = _neutrino(num, config.double_cascade_range, config, rng)
    tau = _lepton(neutrino)
    flown = rng.exponential(TAU_DECAY_LENGTH * tau)
    return {
        **neutrino,
        **_inside(num, volume, 0.0, rng),
        "cascade_distance_BC": _cascades(np.zeros(num), flown),
        "cascade_energy_BC": _cascades(_hadrons(neutrino), TAU_VISIBLE * tau),
    }


def _bundle(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw parallel muons of an air shower, as one bright track from above."""
    # cos(zenith)**3.5 is roughly their distribution at IceCube's depth.
    cosine = np.maximum(rng.random(num) ** (1 / 4.5), 0.05)
    direction = -_unit_vectors(cosine, 2 * np.pi * rng.random(num))
    muons = np.minimum(np.floor(rng.random(num) ** (-1 / 1.8)), 300.0)
    muon = 150.0 * rng.random(num) ** (-1 / 1.7)  # GeV, E**-2.7
    return {
        "direction_B3": direction,
        "energy_B": muons * muon,
        "inelasticity_B": np.full(num, np.nan),
        "vertex_B3": _entry(direction, volume, rng),
        "track_energy_B": muon,
        "muons_B": muons,
    }


def _neutrino(
    num: int,
    borders: tuple[float, float],
    config: SimulationConfig,
    rng: np.random.Generator,
) -> Columns:
    """Draw energies, and the shares of them that go to hadrons.

    The shares have the density 1.5 (1 - y)**0.5 with the mean 0.4: roughly the measured
    mean of 0.3 to 0.5 between 1 PeV and 1 TeV (arXiv:1808.07629).
    """
    return {
        "energy_B": _power_law(num, borders, config.spectral_index, rng),
        "inelasticity_B": 1.0 - rng.random(num) ** (1 / 1.5),
    }


def _lepton(neutrino: Columns) -> Array:
    """Return the energy of the lepton in a charged current, (B,) GeV."""
    return (1.0 - neutrino["inelasticity_B"]) * neutrino["energy_B"]


def _hadrons(neutrino: Columns) -> Array:
    """Return the light of the hadrons as electromagnetic energy, (B,) GeV."""
    return shower_light(neutrino["inelasticity_B"] * neutrino["energy_B"])


def _cascades(first_B: Array, second_B: Array | float = 0.0) -> Array:
    """Return values of both cascades, (B, C)."""
    return np.stack(np.broadcast_arrays(first_B, second_B), axis=-1)


def _unit_vectors(cosine_B: Array, azimuth_B: Array) -> Array:
    sine_B = np.sqrt(1 - cosine_B**2)
    x_B, y_B = sine_B * np.cos(azimuth_B), sine_B * np.sin(azimuth_B)
    return np.stack([x_B, y_B, cosine_B], axis=-1)


def _isotropic(num: int, rng: np.random.Generator) -> Array:
    cosine, azimuth = 2 * rng.random(num) - 1, 2 * np.pi * rng.random(num)
    return _unit_vectors(cosine, azimuth)


def _power_law(
    num: int, borders: tuple[float, float], index: float, rng: np.random.Generator
) -> Array:
    """Draw energies with a density E**-index."""
    low, high = borders
    power = 1.0 - index
    drawn = rng.random(num)
    if abs(power) < 1e-9:
        energy: Array = low * (high / low) ** drawn
    else:
        energy = (low**power + drawn * (high**power - low**power)) ** (1.0 / power)
    return energy


def _inside(
    num: int, volume: Volume, margin_B: Array | float, rng: np.random.Generator
) -> Columns:
    """Draw isotropic directions, and points in the cylinder with a margin around it."""
    direction = _isotropic(num, rng)
    grown = MARGIN + margin_B
    radius = (volume.radius + grown) * np.sqrt(rng.random(num))
    angle = 2 * np.pi * rng.random(num)
    low, high = volume.bottom - grown, volume.top + grown
    z = low + rng.random(num) * (high - low)
    x, y = volume.x + radius * np.cos(angle), volume.y + radius * np.sin(angle)
    return {"direction_B3": direction, "vertex_B3": np.stack([x, y, z], axis=-1)}


def _entry(direction_B3: Array, volume: Volume, rng: np.random.Generator) -> Array:
    """Draw entry points of lines into the cylinder around DOMs and margin, (B, 3) m.

    Lines of each direction are uniform across it, as in a flux.
    """
    entry = np.empty((len(direction_B3), 3))
    missing = np.arange(len(direction_B3))
    while len(missing):
        direction = direction_B3[missing]
        line = _line(direction, volume, rng)
        inside = _distance_to_cylinder(line, direction, volume)
        hits = np.isfinite(inside)
        entry[missing[hits]] = line[hits] + inside[hits, None] * direction[hits]
        missing = missing[~hits]
    return entry


def _line(direction_B3: Array, volume: Volume, rng: np.random.Generator) -> Array:
    """Draw points far ahead of the detector, uniform on a disk across the flight."""
    num, reach = len(direction_B3), volume.reach + 2 * MARGIN
    radius, angle = reach * np.sqrt(rng.random(num)), 2 * np.pi * rng.random(num)
    first, second = across(direction_B3)
    aside = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    return volume.centre + radius[:, None] * aside - reach * direction_B3


def across(direction: Array) -> tuple[Array, Array]:
    """Return two unit vectors perpendicular to each direction (..., 3)."""
    # The first uses the coordinate axis that is farthest from the direction.
    helper = np.zeros_like(direction)
    smallest = np.abs(direction).argmin(axis=-1)
    np.put_along_axis(helper, smallest[..., None], 1.0, axis=-1)
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return first, np.cross(direction, first)


def _distance_to_cylinder(
    point_B3: Array, direction_B3: Array, volume: Volume
) -> Array:
    """Return the distance to the entry of lines, (B,) m; infinite if they miss."""
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
