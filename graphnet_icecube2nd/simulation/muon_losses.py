"""Muons and what they lose on their way: evenly below a threshold, showers above it.

Shape letters: B muons, L losses of a muon, padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from graphnet_icecube2nd.simulation.light import (
    MUON_RADIATIVE_LOSS,
    muon_energy_after,
    muon_range,
)
from graphnet_icecube2nd.simulation.rows import Array, Rows

# Losses of a larger share v of the muon's energy are showers; smaller ones are even.
LEAST_SHARE = 0.05
# Shares of the mean radiative loss, roughly those of ice above 1 TeV: pair production,
# and bremsstrahlung with photonuclear interactions.
_PAIRS, _HARD = 0.5, 0.5
# v of typical pairs: a quarter of their loss is in v above 0.01.
_PAIR_SHARE = 1.55e-3
_SHARES = np.exp(np.linspace(np.log(LEAST_SHARE), 0.0, 2001))


def loss_density(share: Array) -> Array:
    """Return losses per metre and per unit of the share v, (...) 1/m.

    Bremsstrahlung (and photonuclear interactions) has (4/3 - 4/3 v + v^2) / v, complete
    screening; pairs have a tail 2 a / (v + a)^3 with a = 0.00155. Both are normalised
    to their part of the mean loss b, so that the integral of v is b.
    """
    hard = _HARD * (4.0 / 3.0 * (1.0 - share) + share**2) / share
    pairs = _PAIRS * 2.0 * _PAIR_SHARE / (share + _PAIR_SHARE) ** 3
    result: Array = MUON_RADIATIVE_LOSS * (hard + pairs)
    return result


@cache
def _table() -> tuple[Array, float, float]:
    """Return the distribution function at `_SHARES`, losses per m, even part of b."""
    density = loss_density(_SHARES)
    width = np.diff(_SHARES)
    number = np.append(0.0, np.cumsum(0.5 * (density[1:] + density[:-1]) * width))
    lost = density * _SHARES
    showers = float(np.sum(0.5 * (lost[1:] + lost[:-1]) * width))
    return number / number[-1], float(number[-1]), MUON_RADIATIVE_LOSS - showers


def even_loss() -> float:
    """Return the part of the radiative loss that is not in showers, 1/m."""
    return _table()[2]


def losses_per_metre() -> float:
    """Return the number of showers per metre; it does not depend on the energy."""
    return _table()[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class MuonLosses(Rows):
    """Showers along muons, in the order of their distance."""

    length_B: Array  # m, where the muon has stopped
    distance_BL: Array  # m from the start; infinite if there is no such shower
    energy_BL: Array  # GeV, 0 if there is none
    after_BL: Array  # GeV, energy of the muon after the shower


def draw_losses(
    energy_B: Array, farthest_B: Array, rng: np.random.Generator
) -> MuonLosses:
    """Draw the showers of muons.

    Args:
        energy_B: Energies at the start, GeV.
        farthest_B: Distances from the start up to which showers are drawn, m, 0 or
            above; muons lose the mean beyond.
        rng: Random numbers.
    """
    distribution, per_metre, even = _table()
    # A muon does not fly farther than with the even losses alone.
    farthest_B = np.minimum(farthest_B, muon_range(energy_B, even))
    number_B = rng.poisson(per_metre * farthest_B)
    most = int(number_B.max(initial=0))
    exists_BL = np.arange(most) < number_B[:, None]
    place_BL = rng.random((len(energy_B), most)) * farthest_B[:, None]
    distance_BL = np.sort(np.where(exists_BL, place_BL, np.inf), axis=1)
    share_BL = np.interp(rng.random(distance_BL.shape), distribution, _SHARES)
    loss_BL, after_BL = np.zeros(distance_BL.shape), np.zeros(distance_BL.shape)
    left_B, from_B = energy_B.astype(np.float64), np.zeros(len(energy_B))
    for loss in range(most):
        exists = np.flatnonzero(exists_BL[:, loss])
        to = distance_BL[exists, loss]
        left = muon_energy_after(left_B[exists], to - from_B[exists], even)
        loss_BL[exists, loss] = share_BL[exists, loss] * left
        after_BL[exists, loss] = left - loss_BL[exists, loss]
        # The last shower before the muon stops says where it stops.
        flies = left > 0
        left_B[exists[flies]] = after_BL[exists[flies], loss]
        from_B[exists[flies]] = to[flies]
    beyond_B = muon_energy_after(left_B, farthest_B - from_B, even)
    return MuonLosses(
        length_B=np.where(
            beyond_B > 0,
            farthest_B + muon_range(beyond_B),
            from_B + muon_range(left_B, even),
        ),
        distance_BL=distance_BL,
        energy_BL=loss_BL,
        after_BL=after_BL,
    )
