"""Cross sections, inelasticity, angles, the Earth, fluxes, losses: their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from graphnet_icecube2nd.simulation.interactions import (
    CHARGED,
    NEUTRAL,
    astrophysical_flux,
    atmospheric_flux,
    column_depth,
    cross_section,
    draw_bjorken_x,
    draw_inelasticity,
    earth_transmission,
    inelasticity_parameters,
    muon_flux_underground,
    scattering_angles,
)
from graphnet_icecube2nd.simulation.light import MUON_RADIATIVE_LOSS, muon_range
from graphnet_icecube2nd.simulation.muon_losses import (
    LEAST_SHARE,
    draw_losses,
    even_loss,
    loss_density,
    losses_per_metre,
)

NUM = 20000


def integral(values: np.ndarray, places: np.ndarray) -> float:
    return float(np.sum(0.5 * (values[1:] + values[:-1]) * np.diff(places)))


def neutrinos(energy: float, pdg: int = 14) -> tuple[np.ndarray, np.ndarray]:
    return np.full(NUM, energy), np.full(NUM, pdg)


@pytest.mark.parametrize(
    ("pdg", "interaction", "energy", "expected"),
    [  # R. Gandhi et al., hep-ph/9807264, tables 1 and 2
        (14, CHARGED, 1e2, 0.697e-36),
        (14, CHARGED, 1e3, 0.625e-35),
        (14, CHARGED, 1e4, 0.454e-34),
        (14, CHARGED, 1e6, 0.634e-33),
        (-14, CHARGED, 1e2, 0.349e-36),
        (-14, CHARGED, 1e3, 0.338e-35),
        (-14, CHARGED, 1e4, 0.292e-34),
        (14, NEUTRAL, 1e2, 0.217e-36),
        (14, NEUTRAL, 1e4, 0.155e-34),
        (-14, NEUTRAL, 1e4, 0.106e-34),
    ],
)
def test_cross_sections_of_an_older_calculation(
    pdg: int, interaction: int, energy: float, expected: float
) -> None:
    found = cross_section(np.array([energy]), np.array([pdg]), np.array([interaction]))
    assert float(found[0]) == pytest.approx(expected, rel=0.16)


def test_cross_sections_have_no_step() -> None:
    energy = np.array([9999.0, 10001.0])
    for pdg in (14, -14):
        for interaction in (CHARGED, NEUTRAL):
            low, high = cross_section(energy, np.full(2, pdg), np.full(2, interaction))
            assert high / low == pytest.approx(1.0002, abs=2e-4)


@pytest.mark.parametrize(
    ("energy", "pdg", "mean"),
    [(1e2, 14, 0.477), (1e4, 14, 0.426), (1e6, 14, 0.273), (1e2, -14, 0.340)],
)
def test_inelasticity_has_its_density(energy: float, pdg: int, mean: float) -> None:
    energies, codes = neutrinos(energy, pdg)
    drawn = draw_inelasticity(energies, codes, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(mean, abs=0.01)
    power, square = (a[0] for a in inelasticity_parameters(energies, codes))
    y = np.linspace(0, 1, 20001) ** (1 / power)  # equal steps of y ** power
    density = 1 + square * (1 - y) ** 2
    distribution = np.cumsum(density) / density.sum()
    for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
        expected = y[np.searchsorted(distribution, quantile)]
        assert (drawn < expected).mean() == pytest.approx(quantile, abs=0.015)


def test_bjorken_x_has_its_density() -> None:
    energy, y = 1e5, 0.3
    drawn = draw_bjorken_x(
        np.full(NUM, energy), np.full(NUM, y), np.random.default_rng(2)
    )
    x = np.exp(np.linspace(np.log(1e-8), 0, 20001))
    density = x**0.8 * (1 - x) ** 2.6 / (1 + 2 * 0.939 * energy * x * y / 80.4**2) ** 2
    distribution = np.cumsum(density) / density.sum()
    for quantile in (0.1, 0.5, 0.9):
        expected = x[np.searchsorted(distribution, quantile)]
        assert (drawn < expected).mean() == pytest.approx(quantile, abs=0.015)


def test_angle_follows_from_the_momentum_transfer() -> None:
    """Q2 = 2 m E x y = 4 E E' sin^2(angle / 2)."""
    energy, y, x = 500.0, 0.4, 0.2
    lepton, hadron = (
        float(a[0]) for a in scattering_angles(*(np.array([v]) for v in (energy, y, x)))
    )
    transfer = 4 * energy * (1 - y) * energy * np.sin(lepton / 2) ** 2
    assert transfer == pytest.approx(2 * 0.939 * energy * x * y)
    muon = (1 - y) * energy
    assert muon * np.sin(lepton) == pytest.approx(
        np.tan(hadron) * (energy - muon * np.cos(lepton))
    )


def test_matter_through_the_earth() -> None:
    """The model's mass is that of the Earth; the vertical path 1.1e10 g/cm2."""
    up, level, down = column_depth(np.array([-1.0, 0.0, 1.0]), 1948.0)
    assert up == pytest.approx(1.09e10, rel=0.01)
    assert down == pytest.approx(1948.0e2 * 0.92, rel=1e-3)
    # 158 km through ice of 1.9 km: sqrt(2 R h).
    assert level == pytest.approx(np.sqrt(2 * 6371 * 1.948) * 1e5 * 0.92, rel=0.01)
    cosine = np.linspace(-1, 1, 50)
    assert (np.diff(column_depth(cosine, 1948.0)) < 0).all()
    # Half of the neutrinos through the centre are lost at 20 TeV.
    energy = np.array([1e2, 2.2e4, 1e6])
    found = earth_transmission(energy, np.full(3, 14), np.full(3, -1.0), 1948.0)
    assert found[0] > 0.98
    assert found[1] == pytest.approx(0.48, abs=0.05)
    assert found[2] < 0.01
    column = column_depth(np.array([-1.0]), 1948.0)
    total = sum(
        cross_section(energy, np.full(3, 14), np.full(3, i)) for i in (CHARGED, NEUTRAL)
    )
    np.testing.assert_allclose(found, np.exp(-total * 6.022e23 * column), rtol=1e-9)


def test_fluxes_are_those_of_their_sources() -> None:
    """Values of nuflux's H3a_SIBYLL23C_conv, both signs; arXiv:2001.09520."""
    for energy, cosine, muon, electron in (
        (1e3, -0.9, 2.504e-11, 1.164e-12),
        (1e3, 0.01, 7.931e-11, 7.544e-12),
        (1e5, 0.5, 2.606e-18, 1.367e-19),
    ):
        for flavour, expected in ((14, muon), (12, electron)):
            found = atmospheric_flux(
                np.full(2, energy), np.full(2, cosine), np.array([flavour, -flavour])
            )
            assert found.sum() == pytest.approx(expected, rel=0.2)
            assert 0.5 < found[0] / found.sum() < 0.65
    codes = np.array([12, -14, 16, 13])
    found = astrophysical_flux(np.full(4, 1e5), codes)
    np.testing.assert_allclose(found, [0.83e-18, 0.83e-18, 0.83e-18, 0.0])
    assert atmospheric_flux(np.full(1, 1e3), np.zeros(1), np.array([16])) == 0
    # 1.95 km of ice: 2.9e-7 muons per cm2 and second.
    depth = np.array([1950.0])
    total, bright = (
        muon_flux_underground(depth, least, 0.92) for least in (0.0, 150.0)
    )
    assert float(total[0]) == pytest.approx(2.8e-7, rel=0.1)
    assert bright < 0.5 * total


def test_losses_of_muons_have_their_density_and_mean() -> None:
    """All losses above and below the threshold together are b."""
    share = np.exp(np.linspace(np.log(1e-9), 0, 400001))
    total = integral(share * loss_density(share) * share, np.log(share))
    assert total == pytest.approx(MUON_RADIATIVE_LOSS, rel=0.01)
    hard = share > LEAST_SHARE
    number = integral((loss_density(share) * share)[hard], np.log(share[hard]))
    assert losses_per_metre() == pytest.approx(number, rel=1e-3)
    assert 0.3 < even_loss() / MUON_RADIATIVE_LOSS < 0.7

    length = 100.0
    energy = np.full(NUM, 1e6)
    drawn = draw_losses(energy, np.full(NUM, length), np.random.default_rng(3))
    exists = np.isfinite(drawn.distance_BL)
    assert exists.sum() == pytest.approx(NUM * number * length, rel=0.06)
    assert (np.diff(np.where(exists, drawn.distance_BL, 1e9), axis=1) >= 0).all()
    before = drawn.after_BL + drawn.energy_BL
    v = (drawn.energy_BL / np.where(exists, before, 1))[exists]
    assert LEAST_SHARE <= v.min() <= v.max() <= 1.0
    for border in (0.1, 0.3):
        rest = integral(
            (loss_density(share) * share)[share > border], np.log(share[share > border])
        )
        assert (v > border).mean() == pytest.approx(rest / number, abs=0.03)
    # On average they lose what the mean loss says.
    lost = 1e6 - np.exp(-even_loss() * length) * 1e6 + drawn.energy_BL.sum(axis=1)
    expected = 1e6 * (1 - np.exp(-MUON_RADIATIVE_LOSS * length))
    assert lost.mean() == pytest.approx(expected, rel=0.05)


def test_muons_stop_where_their_energy_ends() -> None:
    energy = np.full(2000, 3e3)
    far = np.full(2000, 1e5)
    drawn = draw_losses(energy, far, np.random.default_rng(4))
    assert drawn.length_B.max() < float(muon_range(np.array(3e3), even_loss())) + 1e-6
    # Fluctuations shorten the median, not by much.
    mean = float(muon_range(np.array(3e3)))
    assert 0.8 * mean < np.median(drawn.length_B) < 1.15 * mean
    beyond = (drawn.distance_BL > drawn.length_B[:, None]) & np.isfinite(
        drawn.distance_BL
    )
    assert (drawn.energy_BL[beyond] == 0).all()
    assert (drawn.energy_BL[~beyond & np.isfinite(drawn.distance_BL)] > 0).all()
