"""Particles that make light (tracks and cascades), drawn with their truth.

Shape letters: B events, C cascades of an event (2; with energy 0 if there is none), L
showers along a track (padded with energy 0), N places along it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import Volume
from graphnet_icecube2nd.simulation.interactions import (
    CHARGED,
    NEUTRAL,
    NUCLEONS_PER_GRAM,
    cross_section,
    draw_bjorken_x,
    draw_inelasticity,
    earth_transmission,
    muon_flux_underground,
    scattering_angles,
)
from graphnet_icecube2nd.simulation.light import (
    MUON_RADIATIVE_LOSS,
    SIDE_SENSITIVITY,
    muon_energy_after,
    muon_range,
    shower_light,
)
from graphnet_icecube2nd.simulation.muon_losses import (
    draw_losses,
    even_loss,
)
from graphnet_icecube2nd.simulation.rows import Array, Index, Rows

Columns = dict[str, Any]

TAU_DECAY_LENGTH = 4.9e-5  # m/GeV: c tau / mass
TAU_TO_MUON = 0.174  # share of the decays; they are left out
TAU_TO_ELECTRON = 0.178 / (1.0 - TAU_TO_MUON)  # share of the other decays
TAU_TO_HADRONS = (3.0, 2.0)  # Beta distribution of the visible share; mean 0.6
NEUTRAL_CURRENT = 0.25  # share of the cascades in which only the hadrons make light
TAU_CASCADE = 0.25  # share of tau neutrinos among the other cascades, at low energies
MARGIN = 60.0  # m around the DOMs, in which interactions are drawn
MARGIN_PER_DECADE = 25.0  # m more for cascades, per decade of energy above 100 GeV
NEAR = 500.0  # m around the sphere of the DOMs, in which tracks have showers
MOST_SHOWERS = 12  # along a track near the detector; more are added to the last
# Exponents of the bundles' zenith distribution, numbers of muons and energies.
BUNDLE_ZENITH, BUNDLE_MUONS, BUNDLE_ENERGY = 3.5, 1.8, 2.7
BUNDLE_LEAST_ENERGY = 150.0  # GeV, of each muon at the entry
SHALLOWEST = 500.0  # m; the measured flux of muons is not known above
SYSTEMATIC_RANGE = 0.1  # of lengths and efficiency: 0.9 to 1.1
HOLE_ICE_RANGE = (0.45, 0.95)  # of the sensitivity to light from below


@dataclass(frozen=True, kw_only=True, eq=False)
class Particles(Rows):
    """Sources of light in B events, their origin, and what the light goes through."""

    topology_B: NDArray[np.int64]  # indices in TOPOLOGIES
    pdg_B: Index  # of the neutrino, or 13 for muon bundles
    interaction_B: Index  # 1 charged current, 2 neutral current, 0 for bundles
    direction_B3: Array  # flight direction of the neutrino or bundle, unit vectors
    # GeV: of the neutrino, or of all muons of a bundle where they enter the
    # neighbourhood of the detector.
    energy_B: Array
    inelasticity_B: Array  # share of the energy that goes to hadrons; NaN for bundles
    vertex_B3: Array  # m, interaction point of the neutrino, or entry of a bundle
    time_B: Array  # ns, time at the vertex
    track_direction_B3: Array  # flight direction of the muons, unit vectors
    track_length_B: Array  # m, of the muons; 0 without muons
    track_energy_B: Array  # GeV, of each muon at the vertex
    muons_B: Array  # number of muons
    # Tracks near the detector; before it they have lost energy in showers, too.
    near_B: Array  # m from the vertex, where the neighbourhood begins
    near_energy_B: Array  # GeV, of each muon there
    even_loss_B: Array  # 1/m of ice, radiative loss without the showers
    stopping_B: Array  # losses per metre over those in ice
    shower_distance_BL: Array  # m from the vertex; infinite if there is no such shower
    shower_energy_BL: Array  # GeV
    shower_after_BL: Array  # GeV, energy of the muon after the shower
    cascade_distance_BC: Array  # m, distance of a cascade from the vertex
    cascade_direction_BC3: Array  # unit vectors
    cascade_energy_BC: Array  # GeV, electromagnetic energy with the same light
    visible_energy_B: Array  # GeV, see `visible_energy`
    # Of the draw. Neutrinos: GeV cm3 sr, see `generation_weight`. Bundles: cm2 sr,
    # times their vertical intensity at the vertex.
    generation_B: Array
    # Changes of ice and modules; see `light.Optics`.
    scattering_B: Array
    absorption_B: Array
    efficiency_B: Array
    side_B: Array

    def track_energy_at(self, distance_BN: Array) -> Array:
        """Return a muon's energy at distances from the vertex near the detector, GeV.

        Distances are (B, N) m; the energy is 0 where the muon has stopped.
        """
        from_BN = np.broadcast_to(self.near_B[:, None], distance_BN.shape)
        energy_BN = np.broadcast_to(self.near_energy_B[:, None], distance_BN.shape)
        most = int(np.isfinite(self.shower_distance_BL).sum(axis=1).max(initial=0))
        for shower in range(most):
            place_B1 = self.shower_distance_BL[:, shower, None]
            after_B1 = self.shower_after_BL[:, shower, None]
            passed_BN = place_B1 <= distance_BN
            from_BN = np.where(passed_BN, place_B1, from_BN)
            energy_BN = np.where(passed_BN, after_B1, energy_BN)
        flown_BN = np.maximum(distance_BN - from_BN, 0.0)
        flown_BN *= self.stopping_B[:, None]
        even_B1 = self.even_loss_B[:, None]
        return muon_energy_after(energy_BN, flown_BN, even_B1)


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
            pieces.append(_particles(topology_B[place], drawn, config, volume, rng))
    order = np.argsort(np.concatenate(places))
    return Particles.join(pieces).take(order)


def _particles(
    topology_B: NDArray[np.int64],
    drawn: Columns,
    config: SimulationConfig,
    volume: Volume,
    rng: np.random.Generator,
) -> Particles:
    """Return particles from drawn columns; what a topology does not have is 0."""
    num = len(topology_B)
    zero_B = np.zeros(num)
    has_track = "track_energy_B" in drawn
    columns: Columns = {
        "time_B": zero_B,
        "track_energy_B": zero_B,
        "track_direction_B3": drawn["direction_B3"],
        "muons_B": np.full(num, float(has_track)),
        "cascade_distance_BC": np.zeros((num, 2)),
        "cascade_energy_BC": np.zeros((num, 2)),
        "cascade_direction_BC3": np.stack([drawn["direction_B3"]] * 2, axis=1),
        "visible_energy_B": zero_B,
        "stopping_B": np.full(num, volume.stopping),
        **drawn,
    }
    columns |= _optics(num, config, rng)
    if has_track:
        columns |= _track(columns, volume, rng)
    else:
        columns |= {
            **dict.fromkeys(("near_B", "near_energy_B", "track_length_B"), zero_B),
            "even_loss_B": np.ones(num),
            "shower_distance_BL": np.full((num, MOST_SHOWERS), np.inf),
            "shower_energy_BL": np.zeros((num, MOST_SHOWERS)),
            "shower_after_BL": np.zeros((num, MOST_SHOWERS)),
        }
    particles = Particles(topology_B=topology_B, **columns)
    if not has_track:
        return particles
    return replace(particles, visible_energy_B=_visible(particles, volume))


def _optics(num: int, config: SimulationConfig, rng: np.random.Generator) -> Columns:
    """Return the changes of ice and modules: those of SnowStorm (arXiv:1909.01530)."""
    names = ("scattering_B", "absorption_B", "efficiency_B")
    if not config.systematics:
        changes = dict.fromkeys(names, np.ones(num))
        changes["side_B"] = np.full(num, SIDE_SENSITIVITY)
    else:
        low, high = 1.0 - SYSTEMATIC_RANGE, 1.0 + SYSTEMATIC_RANGE
        changes = {name: rng.uniform(low, high, num) for name in names}
        changes["side_B"] = rng.uniform(*HOLE_ICE_RANGE, num)
    changes["efficiency_B"] = config.dom_efficiency * changes["efficiency_B"]
    return changes


def _track(columns: Columns, volume: Volume, rng: np.random.Generator) -> Columns:
    """Return what muons lose: the mean loss for several muons, else showers."""
    energy_B, direction_B3 = columns["track_energy_B"], columns["track_direction_B3"]
    to_centre_B3 = volume.centre - columns["vertex_B3"]
    closest_B = np.sum(to_centre_B3 * direction_B3, axis=1)
    reach, stopping = volume.reach + NEAR, volume.stopping
    single = np.flatnonzero(columns["muons_B"] == 1)
    farthest = stopping * np.maximum(closest_B[single] + reach, 0.0)
    losses = draw_losses(energy_B[single], farthest, rng)
    losses = replace(
        losses,
        length_B=losses.length_B / stopping,
        distance_BL=losses.distance_BL / stopping,
    )
    length_B = muon_range(energy_B) / stopping
    even_B = np.full(len(energy_B), MUON_RADIATIVE_LOSS)
    length_B[single], even_B[single] = losses.length_B, even_loss()
    near_B = np.clip(closest_B - reach, 0.0, length_B)
    shape = (len(energy_B), MOST_SHOWERS)
    distance_BL, loss_BL = np.full(shape, np.inf), np.zeros(shape)
    after_BL, near_energy_B = (
        np.zeros(shape),
        muon_energy_after(energy_B, stopping * near_B),
    )
    # Showers before the neighbourhood give the energy there; the others are kept.
    near = near_B[single, None]
    is_before = (losses.distance_BL < near) & (losses.energy_BL > 0)
    number = is_before.sum(axis=1)
    padded = {
        "distance": np.pad(losses.distance_BL, ((0, 0), (1, 0))),
        "after": np.concatenate([energy_B[single, None], losses.after_BL], axis=1),
    }
    from_distance, from_energy = (
        np.take_along_axis(padded[name], number[:, None], axis=1)[:, 0]
        for name in ("distance", "after")
    )
    near_energy_B[single] = muon_energy_after(
        from_energy, stopping * (near_B[single] - from_distance), even_loss()
    )
    is_kept = (losses.distance_BL >= near) & (losses.energy_BL > 0)
    row, column = np.nonzero(is_kept)
    place = np.minimum(np.cumsum(is_kept, axis=1)[row, column] - 1, MOST_SHOWERS - 1)
    distance_BL[single[row], place] = losses.distance_BL[row, column]
    after_BL[single[row], place] = losses.after_BL[row, column]
    np.add.at(loss_BL, (single[row], place), losses.energy_BL[row, column])
    return {
        "track_length_B": length_B,
        "near_B": near_B,
        "near_energy_B": near_energy_B,
        "even_loss_B": even_B,
        "shower_distance_BL": distance_BL,
        "shower_energy_BL": loss_BL,
        "shower_after_BL": after_BL,
    }


def _visible(particles: Particles, volume: Volume) -> Array:
    """Return cascades in the cylinder and what the muons lose in it, (B,) GeV."""
    enters_B, leaves_B = _through_cylinder(
        particles.vertex_B3, particles.track_direction_B3, volume
    )
    enters_B, leaves_B = np.maximum(enters_B, 0.0), np.maximum(leaves_B, 0.0)
    crosses_B = np.isfinite(enters_B) & np.isfinite(leaves_B)
    ends_BN = np.stack([enters_B, leaves_B], axis=1)
    ends_BN = np.where(crosses_B[:, None], ends_BN, 0.0)
    energy_BN = particles.track_energy_at(ends_BN)
    lost_B = np.where(crosses_B, energy_BN[:, 0] - energy_BN[:, 1], 0.0)
    result: Array = particles.visible_energy_B + particles.muons_B * lost_B
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class _Neutrinos:
    """Neutrinos that have interacted, with the directions of what is left."""

    energy_B: Array  # GeV
    pdg_B: Index
    interaction_B: Index
    inelasticity_B: Array
    direction_B3: Array
    lepton_direction_B3: Array
    hadron_direction_B3: Array

    @property
    def lepton_B(self) -> Array:
        """Energy of the lepton, (B,) GeV."""
        result: Array = (1.0 - self.inelasticity_B) * self.energy_B
        return result

    @property
    def hadrons_B(self) -> Array:
        """Light of the hadrons as electromagnetic energy, (B,) GeV."""
        return shower_light(self.inelasticity_B * self.energy_B)

    def columns(self) -> Columns:
        """Return the fields of `Particles` that follow."""
        names = ("energy", "pdg", "interaction", "inelasticity")
        columns = {f"{name}_B": getattr(self, f"{name}_B") for name in names}
        return {**columns, "direction_B3": self.direction_B3}


def _through_going(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw muons from outside; their start is uniform along their possible range."""
    direction = _isotropic(num, rng)  # of the muon
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    neutrinos = _interact(energy, _signs(14, num, rng), rng, lepton=direction)
    margin = _track_margin(energy, volume)
    enters = _entry(direction, volume, margin, rng)
    # Muons do not start above the surface of the ice.
    climb = np.maximum(-direction[:, 2], 1e-9)
    ice_above = np.maximum(volume.surface - enters[:, 2], 0.0) / climb
    # No muon flies farther than with its even losses alone.
    farthest = muon_range(neutrinos.lepton_B, even_loss()) / volume.stopping
    possible = np.minimum(farthest, ice_above)
    before = rng.random(num) * possible
    size = _area(direction, volume, margin) * possible
    return {
        **neutrinos.columns(),
        "vertex_B3": enters - before[:, None] * direction,
        # The clock is 0 where the muon reaches the neighbourhood of the DOMs.
        "time_B": -before / SPEED_OF_LIGHT,
        "track_energy_B": neutrinos.lepton_B,
        "track_direction_B3": direction,
        "cascade_energy_BC": _pair(neutrinos.hadrons_B),
        "cascade_direction_BC3": _pair(neutrinos.hadron_direction_B3),
        "generation_B": _generation(neutrinos, size, 0.5, config, config.energy_range),
    }


def _starting(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw muon neutrinos, charged current inside: a hadronic shower and a muon."""
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    neutrinos = _interact(energy, _signs(14, num, rng), rng)
    vertex, size = _inside(volume, _track_margin(energy, volume), rng)
    return {
        **neutrinos.columns(),
        "vertex_B3": vertex,
        "track_energy_B": neutrinos.lepton_B,
        "track_direction_B3": neutrinos.lepton_direction_B3,
        "cascade_energy_BC": _pair(neutrinos.hadrons_B),
        "cascade_direction_BC3": _pair(neutrinos.hadron_direction_B3),
        "visible_energy_B": neutrinos.hadrons_B,
        "generation_B": _generation(neutrinos, size, 0.5, config, config.energy_range),
    }


def _cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw electron neutrinos with a charged current, or any neutral current.

    Below the range of double cascades, tau neutrinos are among them.
    """
    energy = _power_law(num, config.energy_range, config.spectral_index, rng)
    is_neutral = rng.random(num) < NEUTRAL_CURRENT
    has_taus = energy < config.double_cascade_range[0]
    is_tau = ~is_neutral & has_taus & (rng.random(num) < TAU_CASCADE)
    flavour = np.where(is_neutral, 12 + 2 * rng.integers(3, size=num), 12)
    flavour = np.where(is_tau, 16, flavour)
    interaction = np.where(is_neutral, NEUTRAL, CHARGED)
    neutrinos = _interact(energy, _signs(flavour, num, rng), rng, interaction)
    lepton = np.where(is_tau, _tau_light(neutrinos.lepton_B, rng), neutrinos.lepton_B)
    light = neutrinos.hadrons_B + np.where(is_neutral, 0.0, lepton)
    # Lepton and hadrons of a charged current together go along the neutrino.
    direction = np.where(
        is_neutral[:, None], neutrinos.hadron_direction_B3, neutrinos.direction_B3
    )
    vertex, size = _inside(volume, _margin(energy, volume), rng)
    size = np.where(is_tau, (1.0 - TAU_TO_MUON) * size, size)
    tau_share = np.where(has_taus, TAU_CASCADE, 0.0)
    charged = (1.0 - NEUTRAL_CURRENT) * np.where(is_tau, tau_share, 1.0 - tau_share)
    chosen = 0.5 * np.where(is_neutral, NEUTRAL_CURRENT / 3.0, charged)
    return {
        **neutrinos.columns(),
        "vertex_B3": vertex,
        "cascade_energy_BC": _pair(light),
        "cascade_direction_BC3": _pair(direction),
        "visible_energy_B": light,
        "generation_B": _generation(
            neutrinos, size, chosen, config, config.energy_range
        ),
    }


def _double_cascade(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw tau neutrinos with a charged current: hadrons, and the decay of the tau."""
    borders = config.double_cascade_range
    energy = _power_law(num, borders, config.spectral_index, rng)
    neutrinos = _interact(energy, _signs(16, num, rng), rng)
    flown = rng.exponential(TAU_DECAY_LENGTH * neutrinos.lepton_B)
    vertex, size = _inside(volume, _margin(energy, volume), rng)
    size *= 1.0 - TAU_TO_MUON
    decay = _tau_light(neutrinos.lepton_B, rng)
    return {
        **neutrinos.columns(),
        "vertex_B3": vertex,
        "cascade_distance_BC": _pair(np.zeros(num), flown),
        "cascade_energy_BC": _pair(neutrinos.hadrons_B, decay),
        "cascade_direction_BC3": _pair(
            neutrinos.hadron_direction_B3, neutrinos.lepton_direction_B3
        ),
        "visible_energy_B": neutrinos.hadrons_B + decay,
        "generation_B": _generation(neutrinos, size, 0.5, config, borders),
    }


def _bundle(
    num: int, config: SimulationConfig, volume: Volume, rng: np.random.Generator
) -> Columns:
    """Draw parallel muons of an air shower, as one bright track from above."""
    # cos(zenith)**3.5 is roughly their distribution at IceCube's depth.
    power = BUNDLE_ZENITH + 1.0
    cosine = np.maximum(rng.random(num) ** (1 / power), 0.05)
    direction = -_unit_vectors(cosine, 2 * np.pi * rng.random(num))
    muons = np.minimum(np.floor(rng.random(num) ** (-1 / BUNDLE_MUONS)), 300.0)
    muon = BUNDLE_LEAST_ENERGY * rng.random(num) ** (-1 / (BUNDLE_ENERGY - 1.0))
    margin = _track_margin(muon, volume)
    return {
        "direction_B3": direction,
        "pdg_B": np.full(num, 13),
        "interaction_B": np.zeros(num, np.int64),
        "energy_B": muons * muon,
        "inelasticity_B": np.full(num, np.nan),
        "vertex_B3": _entry(direction, volume, margin, rng),
        "track_energy_B": muon,
        "muons_B": muons,
        "generation_B": 2 * np.pi / power * _area(direction, volume, margin) * 1e4,
    }


def bundle_flux(particles: Particles, volume: Volume) -> Array:
    """Return the vertical intensity of drawn bundles at their entry, (B,) 1/(cm2 s sr).

    The measured flux of muons above the lowest energy that is drawn, divided by the
    mean number of muons in a bundle; and its spectrum there over the drawn one.
    """
    depth = np.maximum(volume.surface - particles.vertex_B3[:, 2], SHALLOWEST)
    least, drawn = BUNDLE_LEAST_ENERGY, BUNDLE_ENERGY - 1.0
    energy = np.maximum(particles.track_energy_B, least)
    # Number above an energy, so that its slope is the spectrum.
    ends = [
        muon_flux_underground(depth, factor * energy, volume.density)
        for factor in (1.0, 1.001)
    ]
    spectrum = (ends[0] - ends[1]) / (0.001 * energy)
    ratio = spectrum / (drawn * least**drawn * energy ** -(drawn + 1.0))
    muons = np.arange(1, 301)
    mean = float(np.sum(muons**-BUNDLE_MUONS))
    # A horizontal area sees cos(zenith) of the intensity's cos(zenith)**3.5.
    per_intensity = 2 * np.pi / (BUNDLE_ZENITH + 2.0)
    result: Array = ratio / per_intensity / mean
    return result


def _interact(
    energy: Array,
    pdg: Index,
    rng: np.random.Generator,
    interaction: Index | None = None,
    lepton: Array | None = None,
) -> _Neutrinos:
    """Draw interactions: y, and isotropic directions with the angles between them.

    Args:
        energy: Energies (B,), GeV.
        pdg: PDG codes (B,).
        rng: Random numbers.
        interaction: Types (B,); default: charged currents.
        lepton: Flight directions (B, 3) of the leptons; default: drawn.
    """
    inelasticity = draw_inelasticity(energy, pdg, rng)
    bjorken_x = draw_bjorken_x(energy, inelasticity, rng)
    to_lepton, to_hadrons = scattering_angles(energy, inelasticity, bjorken_x)
    if lepton is None:
        direction = _isotropic(len(energy), rng)
        aside = _beside(direction, rng)
        lepton = _tilted(direction, aside, to_lepton)
    else:
        beside = _beside(lepton, rng)
        direction = _tilted(lepton, beside, -to_lepton)
        aside = _tilted(beside, lepton, to_lepton)  # across the neutrino's direction
    if interaction is None:
        interaction = np.full(len(energy), CHARGED)
    return _Neutrinos(
        energy_B=energy,
        pdg_B=pdg,
        interaction_B=interaction,
        inelasticity_B=inelasticity,
        direction_B3=direction,
        lepton_direction_B3=lepton,
        hadron_direction_B3=_tilted(direction, aside, -to_hadrons),
    )


def _generation(
    neutrinos: _Neutrinos,
    size: Array,  # m3, volume of the possible vertices
    chosen: Array | float,  # probability of this PDG code and interaction
    config: SimulationConfig,
    borders: tuple[float, float],  # GeV
) -> Array:
    """Return volume and 4 pi over the densities of the draw, (B,) GeV cm3 sr."""
    low, high = borders
    power = 1.0 - config.spectral_index
    if abs(power) < 1e-9:
        total = np.log(high / low)
    else:
        total = (high**power - low**power) / power
    density = neutrinos.energy_B**-config.spectral_index / total
    result: Array = 4 * np.pi * size * 1e6 / (density * chosen)
    return result


def generation_weight(particles: Particles, volume: Volume) -> Array:
    """Return the rate for a flux of 1 per drawn neutrino, (B,) GeV cm2 sr.

    The volume of the draw, times nucleons and cross section, and the probability to
    arrive through the Earth. Bundles have 0.
    """
    rows = np.flatnonzero(particles.interaction_B > 0)
    some = particles.take(rows)
    nucleons = some.generation_B * volume.density * NUCLEONS_PER_GRAM
    arrives = earth_transmission(
        some.energy_B, some.pdg_B, -some.direction_B3[:, 2], volume.surface
    )
    weight = np.zeros(len(particles))
    weight[rows] = arrives * nucleons
    weight[rows] *= cross_section(some.energy_B, some.pdg_B, some.interaction_B)
    return weight


def _tau_light(energy: Array, rng: np.random.Generator) -> Array:
    """Draw the light of decays of taus without muons, (B,) GeV electromagnetic.

    Electrons have the share z of the energy with the density 5/3 - 3 z^2 + 4/3 z^3
    (unpolarised); the share of hadrons has a Beta distribution with the mean 0.6.
    """
    share = np.linspace(0.0, 1.0, 201)
    electrons = share * (5.0 - 3.0 * share**2 + share**3) / 3.0
    drawn = np.interp(rng.random(len(energy)), electrons, share)
    hadrons = shower_light(rng.beta(*TAU_TO_HADRONS, len(energy)) * energy)
    is_electron = rng.random(len(energy)) < TAU_TO_ELECTRON
    return np.where(is_electron, drawn * energy, hadrons)


def _signs(flavour: Index | int, num: int, rng: np.random.Generator) -> Index:
    """Return PDG codes, half of them of antineutrinos."""
    result: Index = flavour * (1 - 2 * rng.integers(2, size=num))
    return result


def _pair(first: Array, second: Array | float = 0.0) -> Array:
    """Return values of both cascades, (B, C) or (B, C, 3)."""
    return np.stack(np.broadcast_arrays(first, second), axis=1)


def _tilted(direction: Array, aside: Array, angle: Array) -> Array:
    """Return directions (B, 3) turned by angles (B,) rad towards `aside`."""
    result: Array = np.cos(angle)[:, None] * direction
    result += np.sin(angle)[:, None] * aside
    return result


def _beside(direction: Array, rng: np.random.Generator) -> Array:
    """Draw unit vectors perpendicular to directions, (B, 3)."""
    first, second = across(direction)
    return _tilted(first, second, 2 * np.pi * rng.random(len(direction)))


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


def _margin(energy: Array, volume: Volume) -> Array:
    """Return the margin of cascades around the DOMs, (B,) m.

    It grows with the energy: above 100 GeV, or everywhere in a clear medium, where
    dimmer cascades are not seen from far away.
    """
    energy = energy if volume.is_clear else np.maximum(energy, 100.0)
    result: Array = MARGIN + MARGIN_PER_DECADE * np.log10(energy / 100.0)
    return result


def _track_margin(energy: Array, volume: Volume) -> Array:
    """Return the margin of tracks around the DOMs, (B,) m.

    In a clear medium it is 10 m at 1 GeV and 30 m at 100 GeV: a muon is short and dim
    there, and its light has a short way.
    """
    if not volume.is_clear:
        return np.full(len(energy), MARGIN)
    return np.minimum(10.0 + 10.0 * np.log10(energy), MARGIN)


def _inside(
    volume: Volume, grown: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw points in the cylinder with a margin around it; return its size, too, m3."""
    num = len(grown)
    radius = (volume.radius + grown) * np.sqrt(rng.random(num))
    angle = 2 * np.pi * rng.random(num)
    low, high = volume.bottom - grown, volume.top + grown
    z = low + rng.random(num) * (high - low)
    x, y = volume.x + radius * np.cos(angle), volume.y + radius * np.sin(angle)
    size = np.pi * (volume.radius + grown) ** 2 * (high - low)
    return np.stack([x, y, z], axis=-1), size


def _area(direction_B3: Array, volume: Volume, margin_B: Array) -> Array:
    """Return the area of the cylinder with its margin, seen along directions, m2."""
    radius = volume.radius + margin_B
    height = volume.top - volume.bottom + 2 * margin_B
    cosine = np.abs(direction_B3[:, 2])
    lid, side = np.pi * radius**2, 2 * radius * height
    result: Array = lid * cosine + side * np.sqrt(1.0 - cosine**2)
    return result


def _entry(
    direction_B3: Array, volume: Volume, margin_B: Array, rng: np.random.Generator
) -> Array:
    """Draw entry points of lines into the cylinder around DOMs and margin, (B, 3) m.

    Lines of each direction are uniform across it, as in a flux.
    """
    entry = np.empty((len(direction_B3), 3))
    missing = np.arange(len(direction_B3))
    while len(missing):
        direction, margin = direction_B3[missing], margin_B[missing]
        line = _line(direction, volume, margin, rng)
        inside = _through_cylinder(line, direction, volume, margin)[0]
        hits = np.isfinite(inside)
        entry[missing[hits]] = line[hits] + inside[hits, None] * direction[hits]
        missing = missing[~hits]
    return entry


def _line(
    direction_B3: Array, volume: Volume, margin_B: Array, rng: np.random.Generator
) -> Array:
    """Draw points far ahead of the detector, uniform on a disk across the flight."""
    num, reach = len(direction_B3), volume.reach + 2 * margin_B
    radius, angle = reach * np.sqrt(rng.random(num)), 2 * np.pi * rng.random(num)
    aside = _tilted(*across(direction_B3), angle)
    return volume.centre + radius[:, None] * aside - reach[:, None] * direction_B3


def across(direction: Array) -> tuple[Array, Array]:
    """Return two unit vectors perpendicular to each direction (..., 3).

    T. Duff et al., Journal of Computer Graphics Techniques 6 (2017) 1.
    """
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    sign = np.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    first = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    return first, np.stack([b, sign + y * y * a, -y], axis=-1)


def _through_cylinder(
    point_B3: Array,
    direction_B3: Array,
    volume: Volume,
    margin_B: Array | float = MARGIN,
) -> tuple[Array, Array]:
    """Return distances to entry and exit of lines, (B,) m; infinite if they miss."""
    radius = volume.radius + margin_B
    x, y = point_B3[:, 0] - volume.x, point_B3[:, 1] - volume.y
    u, v, w = direction_B3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Between the planes of top and bottom, and within the circle.
        ends = (volume.bottom - margin_B, volume.top + margin_B)
        planes = np.stack([end - point_B3[:, 2] for end in ends]) / w
        square, half = u**2 + v**2, x * u + y * v
        root = np.sqrt(half**2 - square * (x**2 + y**2 - radius**2))
        circle = np.stack([-half - root, -half + root]) / square
    enters = np.fmax(planes.min(axis=0), circle[0])
    leaves = np.fmin(planes.max(axis=0), circle[1])
    outside = (square == 0) & (x**2 + y**2 > radius**2)  # vertical lines
    misses = np.isnan(root) | ~(enters < leaves) | outside
    return np.where(misses, np.inf, enters), np.where(misses, np.inf, leaves)
