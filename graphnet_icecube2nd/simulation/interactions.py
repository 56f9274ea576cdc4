"""Neutrinos: cross sections, shares of energy, angles, absorption in the Earth, fluxes.

Shape letters: B events, N rows of a table. PDG codes: 12, 14 and 16 are neutrinos of
electron, muon and tau; antineutrinos have negative codes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.simulation.rows import Array, Index

CHARGED, NEUTRAL = 1, 2  # interaction types, as in icetray and GraphNeT
NUCLEON_MASS = 0.939  # GeV
W_MASS_SQUARED = 80.4**2  # GeV2
NUCLEONS_PER_GRAM = 6.022e23

# A. Connolly, R. S. Thorne, D. Waters, arXiv:1102.0691, table 3: C0 to C4 of
# log10(cross section / cm2) above 10 TeV, for (antineutrino, interaction).
_CROSS_SECTION = {
    (False, CHARGED): (-1.826, -17.31, -6.406, 1.431, -17.91),
    (False, NEUTRAL): (-1.826, -17.31, -6.448, 1.431, -18.61),
    (True, CHARGED): (-1.033, -15.95, -7.247, 1.569, -17.72),
    (True, NEUTRAL): (-1.033, -15.95, -7.296, 1.569, -18.30),
}
# cm2/GeV, slope of the charged current at low energies: Particle Data Group, Review of
# Particle Physics, "Neutrino cross section measurements". Neutral currents have 0.31
# and 0.35 of it (R. Gandhi et al., hep-ph/9807264).
_SLOPE = {
    (False, CHARGED): 0.677e-38,
    (False, NEUTRAL): 0.31 * 0.677e-38,
    (True, CHARGED): 0.334e-38,
    (True, NEUTRAL): 0.35 * 0.334e-38,
}
_MATCHED = 1e4  # GeV, where both forms are equal

# Mean inelasticity of charged currents at 100 GeV, 1 TeV, ..., 1 EeV (R. Gandhi et al.,
# hep-ph/9512364, table 3), and the strength of (1 - y)^2 beside the constant.
_MEAN_ENERGIES = np.logspace(2, 9, 8)
_MEANS = {
    False: (0.477, 0.472, 0.426, 0.332, 0.273, 0.250, 0.237, 0.225),
    True: (0.340, 0.354, 0.345, 0.301, 0.266, 0.249, 0.237, 0.225),
}
_SQUARES = {
    False: (0.304, 0.40, 0.55, 0.80, 1.0, 1.0, 1.0, 1.0),
    True: (5.33, 4.5, 3.0, 1.6, 1.0, 1.0, 1.0, 1.0),
}
# Density of Bjorken x without the propagator of the W: x^-0.2 (1 - x)^2.6, with a mean
# of 0.18 as measured at low energies.
_X_POWERS = (-0.2, 2.6)
_LOG_X = np.linspace(np.log(1e-7), np.log(0.999), 72)

EARTH_RADIUS = 6371.0  # km
# Preliminary Reference Earth Model (A. M. Dziewonski and D. L. Anderson, Phys. Earth
# Planet. Inter. 25 (1981) 297): outer radius of a shell, km, and its density, g/cm3, as
# polynomial in radius / EARTH_RADIUS. The outermost 3 km are ice here.
_SHELLS = (
    (1221.5, (13.0885, 0.0, -8.8381)),
    (3480.0, (12.5815, -1.2638, -3.6426, -5.5281)),
    (5701.0, (7.9565, -6.4761, 5.5283, -3.0807)),
    (5771.0, (5.3197, -1.4836)),
    (5971.0, (11.2494, -8.0298)),
    (6151.0, (7.1089, -3.8045)),
    (6346.6, (2.6910, 0.6924)),
    (6356.0, (2.900,)),
    (6368.0, (2.600,)),
    (EARTH_RADIUS, (0.92,)),
)

# Atmospheric neutrinos and antineutrinos together, from decays of pions, kaons and
# muons. The form is T. Gaisser's; its values were fitted here to the model
# H3a_SIBYLL23C_conv of nuflux (Hillas-Gaisser primaries, SIBYLL 2.3c) from 100 GeV to 3
# PeV: root mean square of the ratio 4% (muon neutrinos) and 7% (electron neutrinos),
# maximum 24%.
_NEUTRINO_SHARE = {12: 0.55, 14: 0.61}  # of neutrinos, without antineutrinos
# Flux per flavour, both signs: IceCube, arXiv:2001.09520.
_ASTROPHYSICAL = (1.66e-18, 2.53)  # 1/(GeV cm2 s sr) at 100 TeV, spectral index


def cross_section(energy_B: Array, pdg_B: Index, interaction_B: Index) -> Array:
    """Return cross sections of neutrinos and a nucleon, (B,) cm2.

    They follow arXiv:1102.0691 above 10 TeV. Below, they are proportional to the energy
    with a suppression by the W's propagator that joins both. Neutrinos of all flavours
    have the same cross section.

    Args:
        energy_B: Energies, GeV.
        pdg_B: PDG codes; antineutrinos are negative.
        interaction_B: 1 charged current, 2 neutral current.
    """
    energy_B = np.asarray(energy_B, np.float64)
    result_B = np.zeros(len(energy_B))
    for (is_anti, interaction), slope in _SLOPE.items():
        rows = ((pdg_B < 0) == is_anti) & (interaction_B == interaction)
        energy = energy_B[rows]
        high = _high_energy(np.maximum(energy, _MATCHED), is_anti, interaction)
        # (1 + energy / e0)^-1/2 equals the other form at _MATCHED.
        matched = _high_energy(np.array([_MATCHED]), is_anti, interaction)[0]
        e0 = _MATCHED / ((slope * _MATCHED / matched) ** 2 - 1.0)
        low = slope * energy / np.sqrt(1.0 + energy / e0)
        result_B[rows] = np.where(energy < _MATCHED, low, high)
    return result_B


def _high_energy(energy: Array, is_anti: bool, interaction: int) -> Array:
    c0, c1, c2, c3, c4 = _CROSS_SECTION[is_anti, interaction]
    logarithm = np.log(np.log10(energy) - c0)
    power: Array = c1 + c2 * logarithm + c3 * logarithm**2 + c4 / logarithm
    return 10.0**power


def draw_inelasticity(energy_B: Array, pdg_B: Index, rng: np.random.Generator) -> Array:
    """Draw Bjorken y, the share of the energy that goes to hadrons, (B,).

    The density is proportional to y^(l - 1) (1 + e (1 - y)^2), the form of
    arXiv:1808.07629. Its l follows from the mean inelasticity of hep-ph/9512364, which
    falls from 0.48 (neutrinos) and 0.34 (antineutrinos) at 100 GeV to 0.27 at 1 PeV;
    e falls from 0.3 and 5.3 to 1, where sea quarks dominate. Neutral currents have the
    density of charged currents.
    """
    power_B, square_B = inelasticity_parameters(energy_B, pdg_B)
    # A mixture of y^(l - 1) and y^(l - 1) (1 - y)^2.
    weight_B = 2.0 * square_B / ((power_B + 1.0) * (power_B + 2.0))
    is_second_B = rng.random(len(power_B)) * (1.0 + weight_B) < weight_B
    drawn_B: Array = rng.beta(power_B, np.where(is_second_B, 3.0, 1.0))
    return np.clip(drawn_B, 1e-6, 1.0 - 1e-6)


def inelasticity_parameters(energy_B: Array, pdg_B: Index) -> tuple[Array, Array]:
    """Return l and e of the density of `draw_inelasticity`, (B,) each."""
    log_B = np.log(energy_B)
    power_B, square_B = np.empty(len(log_B)), np.empty(len(log_B))
    for is_anti in (False, True):
        rows = (pdg_B < 0) == is_anti
        for result_B, values_N in zip(
            (power_B, square_B), _inelasticity_table(is_anti), strict=True
        ):
            result_B[rows] = np.interp(log_B[rows], np.log(_MEAN_ENERGIES), values_N)
    return power_B, square_B


@cache
def _inelasticity_table(is_anti: bool) -> tuple[Array, Array]:
    """Return l and e at the energies of the table, (N,) each."""
    power = np.linspace(0.2, 1.5, 2601)
    powers = []
    for mean, square in zip(_MEANS[is_anti], _SQUARES[is_anti], strict=True):
        first, second = power + 1.0, power + 2.0
        numerator = power * (2.0 * square + second * (power + 3.0))
        means = numerator / ((power + 3.0) * (2.0 * square + first * second))
        powers.append(np.interp(mean, means, power))
    return np.array(powers), np.array(_SQUARES[is_anti])


def draw_bjorken_x(
    energy_B: Array, inelasticity_B: Array, rng: np.random.Generator
) -> Array:
    """Draw Bjorken x of interactions with known y, (B,).

    The density is x^-0.2 (1 - x)^2.6 / (1 + Q2 / M_W^2)^2 with Q2 = 2 m E x y. It is a
    rough form of the nucleon's quarks.
    """
    first, second = _X_POWERS
    x_N = np.exp(_LOG_X)
    quarks_N = x_N ** (first + 1.0) * (1.0 - x_N) ** second  # per unit of log x
    scale_B = 2.0 * NUCLEON_MASS * energy_B * inelasticity_B / W_MASS_SQUARED
    density_BN = quarks_N / (1.0 + scale_B[:, None] * x_N) ** 2
    total_BN = np.cumsum(density_BN, axis=1)
    wanted_B = rng.random(len(scale_B)) * total_BN[:, -1]
    row_B = np.sum(total_BN < wanted_B[:, None], axis=1)
    step = _LOG_X[1] - _LOG_X[0]
    within_B = rng.random(len(scale_B)) - 0.5
    x_B: Array = np.exp(_LOG_X[row_B] + step * within_B)
    return np.minimum(x_B, 1.0)


def scattering_angles(
    energy_B: Array, inelasticity_B: Array, bjorken_x_B: Array
) -> tuple[Array, Array]:
    """Return the angles of lepton and hadrons to the neutrino, (B,) rad each.

    sin^2(angle / 2) of the lepton is m x y / (2 E (1 - y)) with the nucleon's mass m;
    the hadrons have the opposite transverse momentum.
    """
    square_B = NUCLEON_MASS * bjorken_x_B * inelasticity_B
    square_B = square_B / (2.0 * energy_B * (1.0 - inelasticity_B))
    lepton_B = 2.0 * np.arcsin(np.sqrt(np.minimum(square_B, 1.0)))
    momentum_B = (1.0 - inelasticity_B) * energy_B
    aside_B = momentum_B * np.sin(lepton_B)
    hadron_B: Array = np.arctan2(aside_B, energy_B - momentum_B * np.cos(lepton_B))
    return lepton_B, hadron_B


def column_depth(cos_zenith_B: Array, depth: float) -> Array:
    """Return the matter that neutrinos cross to a detector, (B,) g/cm2.

    Args:
        cos_zenith_B: Cosines of the zenith of their origin.
        depth: Depth of the detector, m.
    """
    cosine_N, column_N = _columns(float(depth))
    result: Array = np.interp(cos_zenith_B, cosine_N, column_N)
    return result


@cache
def _columns(depth: float) -> tuple[Array, Array]:
    """Return column depths for 801 cosines of the zenith."""
    cosine_N = np.linspace(-1.0, 1.0, 801)
    radius = EARTH_RADIUS - depth / 1000.0
    # Distance along the direction to a shell of radius r, forward and backward.
    closest_N = radius * np.sqrt(1.0 - cosine_N**2)
    along_N = -radius * cosine_N  # to the closest point; negative if it is behind
    column_N = np.zeros(len(cosine_N))
    nodes = (np.arange(64) + 0.5) / 32.0 - 1.0  # from -1 to 1
    inner = 0.0
    for outer, density in _SHELLS:
        for sign in (-1.0, 1.0):
            ends = []
            for border in (inner, outer):
                half_N = np.sqrt(np.maximum(border**2 - closest_N**2, 0.0))
                ends.append(np.maximum(along_N + sign * half_N, 0.0))
            low_N, high_N = np.minimum(*ends), np.maximum(*ends)
            middle_N, half_N = 0.5 * (low_N + high_N), 0.5 * (high_N - low_N)
            for node in nodes:
                place_N = middle_N + node * half_N - along_N
                r_N = np.sqrt(closest_N**2 + place_N**2) / EARTH_RADIUS
                rho_N = sum(c * r_N**power for power, c in enumerate(density))
                column_N += half_N / 32.0 * rho_N * 1e5
        inner = outer
    return cosine_N, column_N


def earth_transmission(
    energy_B: Array, pdg_B: Index, cos_zenith_B: Array, depth: float
) -> Array:
    """Return the probability that neutrinos cross the Earth without interaction, (B,).

    Both currents count; neutrinos that a neutral current or the decay of a tau gives
    back at a lower energy are left out.
    """
    total_B = sum(
        cross_section(energy_B, pdg_B, np.full(len(energy_B), interaction))
        for interaction in (CHARGED, NEUTRAL)
    )
    column_B = column_depth(cos_zenith_B, depth)
    result: Array = np.exp(-total_B * NUCLEONS_PER_GRAM * column_B)
    return result


def atmospheric_flux(energy_B: Array, cos_zenith_B: Array, pdg_B: Index) -> Array:
    """Return the conventional atmospheric flux, (B,) 1/(GeV cm2 s sr).

    It has Gaisser's form with values fitted to nuflux's H3a_SIBYLL23C_conv, which it
    matches within 24% (root mean square 4% for muon neutrinos, 7% for electron
    neutrinos) from 100 GeV to 3 PeV. Tau neutrinos have none. Neutrinos of charmed
    hadrons are left out.

    Args:
        energy_B: Energies, GeV.
        cos_zenith_B: Cosines of the zenith of their origin at the detector.
        pdg_B: PDG codes.
    """
    cosine_B = _cosine_in_the_atmosphere(cos_zenith_B)
    pion_B = energy_B * cosine_B / 115.0
    muon_B = (
        0.0168
        * energy_B**-2.6167
        * (1.0 + energy_B / 131281.0) ** -0.7486
        * (1.0 / (1.0 + 6.8793 * pion_B) + 0.2273 / (1.0 + 0.20411 * pion_B))
    )
    electron_B = (
        0.00877
        * energy_B**-2.442
        * (1.0 + energy_B / 77390.0) ** -0.9937
        * (1.0 / (1.0 + 52.1 * pion_B) + 1.324e-5)
    )
    flavour_B = np.abs(pdg_B)
    result_B = np.zeros(len(energy_B))
    for flavour, both_B in ((12, electron_B), (14, muon_B)):
        share = _NEUTRINO_SHARE[flavour]
        share_B = np.where(pdg_B > 0, share, 1.0 - share)
        result_B += np.where(flavour_B == flavour, share_B * both_B, 0.0)
    return result_B


def _cosine_in_the_atmosphere(cos_zenith_B: Array) -> Array:
    """Return the cosine of the zenith where the neutrino is produced, (B,).

    D. Chirkin, hep-ph/0407078, for the curvature of the atmosphere.
    """
    c_B = np.abs(cos_zenith_B)
    p = (0.102573, -0.068287, 0.958633, 0.0407253, 0.817285)
    top_B = c_B**2 + p[0] ** 2 + p[1] * c_B ** p[2] + p[3] * c_B ** p[4]
    result: Array = np.sqrt(top_B / (1.0 + p[0] ** 2 + p[1] + p[3]))
    return result


def astrophysical_flux(energy_B: Array, pdg_B: Index) -> Array:
    """Return the diffuse astrophysical flux, (B,) 1/(GeV cm2 s sr).

    arXiv:2001.09520: 1.66e-18 (E / 100 TeV)^-2.53 for each flavour, half of it
    antineutrinos, isotropic.
    """
    scale, index = _ASTROPHYSICAL
    is_neutrino: NDArray[np.bool_] = np.isin(np.abs(pdg_B), (12, 14, 16))
    result: Array = np.where(is_neutrino, 0.5 * scale * (energy_B / 1e5) ** -index, 0.0)
    return result


def muon_flux_underground(
    depth_B: Array, least_energy: Array | float, density: float
) -> Array:
    """Return the flux of atmospheric muons through a horizontal area, (B,) 1/(cm2 s).

    D. Mei and A. Hime, astro-ph/0512125, for a flat surface: their flux at a depth, and
    the share of their spectrum there, (E + 693 GeV (1 - exp(-0.4 h / km)))^-3.77, that
    is above an energy.

    Args:
        depth_B: Depths, m.
        least_energy: Lowest energy of the muons at that depth, GeV.
        density: Density of ice or water, g/cm3.
    """
    depth_B = depth_B * density / 1000.0  # km of water
    flux_B = 67.97e-6 * np.exp(-depth_B / 0.285) + 2.071e-6 * np.exp(-depth_B / 0.698)
    scale_B = 693.0 * (1.0 - np.exp(-0.4 * depth_B))
    result: Array = flux_B * (1.0 + least_energy / scale_B) ** -2.77
    return result
