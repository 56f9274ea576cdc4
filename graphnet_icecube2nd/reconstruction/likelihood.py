"""The likelihood of a simulated event: the simulation's own, as data are read.

Photoelectrons of a DOM are a Poisson process of rate light(t) + noise, so

    log L = sum over photoelectrons of log(light(t) + noise) - sum over DOMs of light,

which holds both the arrival times and the DOMs that saw nothing. A pulse counts as many
photoelectrons as its charge says; of those after its first it is known that they came
before its interval ended, and light(t) is taken in the middle of that time. Shape
letters: K hypotheses, S DOMs near light, G groups of the other DOMs, T times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.reconstruction.event_pulses import EventPulses
from graphnet_icecube2nd.reconstruction.hypothesis import Hypotheses, Seed
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import Arrival
from graphnet_icecube2nd.simulation.pandel import log_density

Array = NDArray[np.float64]

NEAR = 100.0  # m around DOMs with HLC pulses, where every DOM is asked by itself
FAR = 400.0  # m, beyond which DOMs without pulses are not asked
_AT_ONCE = 2**15  # hypotheses x pulses, or x DOMs


class EventLikelihood:
    """The likelihood of one event.

    Args:
        pulses: The pulses of the event, with their DOMs.
        detector: The DOMs and the ice it was simulated with.
        config: Noise and jitter it was simulated with.

    Raises:
        ValueError: More or fewer than one event, pulses without a DOM.
    """

    def __init__(
        self, pulses: EventPulses, detector: SimulatedDetector, config: SimulationConfig
    ) -> None:
        if len(pulses.event_id) != 1:
            raise ValueError(f"one event is needed, got {len(pulses.event_id)}")
        if len(pulses.dom_T) and pulses.dom_T.min() < 0:
            raise ValueError(
                f"event {pulses.event_id[0]}: the likelihood needs the DOM (sensor_id) "
                "of every pulse"
            )
        self.pulses, self.detector, self.config = pulses, detector, config
        lit = pulses.hlc_T if pulses.hlc_T.any() else np.ones(len(pulses.dom_T), bool)
        anchor = detector.position_S3[np.unique(pulses.dom_T[lit])]
        groups = detector.groups
        away_G = _nearest(groups.centre_G3, anchor)
        is_near_G = away_G < NEAR
        doms = groups.dom_GK[is_near_G].ravel()
        self.dom_S = np.unique(np.concatenate([doms, pulses.dom_T]))
        is_far_G = ~is_near_G & (away_G < FAR)
        # A DOM with pulses is asked by itself, and not with its group once more.
        lonely = ~np.isin(groups.dom_GK[is_far_G], self.dom_S)
        lonely &= np.arange(groups.dom_GK.shape[1]) < groups.size_G[is_far_G, None]
        rde_GK = np.where(lonely, detector.rde_S[groups.dom_GK[is_far_G]], 0.0)
        self._rde_G = rde_GK.sum(axis=1)
        self._place_G3 = groups.centre_G3[is_far_G]
        self._place_S3 = detector.position_S3[self.dom_S]
        self._rde_S = detector.rde_S[self.dom_S]
        row = np.searchsorted(self.dom_S, pulses.dom_T)
        more = np.maximum(np.rint(pulses.charge_T), 1.0) - 1.0
        several = np.flatnonzero(more)
        later = _middle_of_rest(pulses.time_T, row, config.merge_time)[several]
        self._time_T = np.concatenate([pulses.time_T, later])
        self._row_T = np.concatenate([row, row[several]])
        self._count_T = np.concatenate([np.ones(len(row)), more[several]])
        self._noise_T = config.noise_rate * 1e-9 * self._rde_S[self._row_T]

    def of_seeds(self, topology: str, seeds: Sequence[Seed]) -> Array:
        """Return log L of seeds, (K,), as `__call__`."""
        rows = max(1, _AT_ONCE // max(len(self._row_T), len(self.dom_S)))
        values = []
        for first in range(0, len(seeds), rows):
            hypotheses = Hypotheses(topology, Seed.stack(seeds[first : first + rows]))
            num = len(seeds[first : first + rows])
            values.append(self(hypotheses, np.zeros((num, len(hypotheses.names)))))
        return np.concatenate(values)

    def __call__(self, hypotheses: Hypotheses, numbers_KN: Array) -> Array:
        """Return log L of hypotheses, (K,); without terms that are the same for all."""
        medium, row_T = self.detector.medium, self._row_T
        light_K = np.zeros(len(numbers_KN))
        # With an unlit DOM a pulse is noise, whatever the hypothesis.
        density_KT = np.broadcast_to(self._noise_T, (len(numbers_KN), len(row_T))).copy()
        for arrival in hypotheses.arrivals(numbers_KN, self._place_S3, medium):
            mean_KS = arrival.mean * self._rde_S
            light_K += mean_KS.sum(axis=1)
            density_KT += mean_KS[:, row_T] * self._times(arrival)
        for arrival in hypotheses.arrivals(numbers_KN, self._place_G3, medium):
            light_K += arrival.mean @ self._rde_G
        result: Array = np.log(density_KT) @ self._count_T - light_K
        return result

    def _times(self, arrival: Arrival) -> Array:
        """Return the density of each pulse's time, (K, T) 1/ns."""
        row_T = self._row_T
        delay_KT = self._time_T - arrival.time[:, row_T]
        rate_KT = np.broadcast_to(arrival.rate, arrival.time.shape)[:, row_T]
        # Far outside there is only noise; there the formula need not be asked.
        asked = (delay_KT > -12 * self.config.time_jitter) & (delay_KT < 8000.0)
        density_KT = np.zeros(delay_KT.shape)
        density_KT[asked] = np.exp(
            log_density(
                delay_KT[asked],
                arrival.shape[:, row_T][asked],
                rate_KT[asked],
                self.config.time_jitter,
            )
        )
        return density_KT


def _nearest(place_G3: Array, anchor_A3: Array) -> Array:
    """Return how far each place is from the nearest anchor, (G,) m."""
    from scipy.spatial import cKDTree

    distance_G: Array = cKDTree(anchor_A3).query(place_G3)[0]
    return distance_G


def _middle_of_rest(
    time_T: Array, row_T: NDArray[np.int64], merge_time: float
) -> Array:
    """Return the middle of what is left of each pulse's interval, (T,) ns."""
    begin_S = np.full(int(row_T.max(initial=0)) + 1, np.inf)
    np.minimum.at(begin_S, row_T, time_T)
    # A hundredth of a nanosecond, as times are in single precision.
    interval = np.floor((time_T - begin_S[row_T] + 0.01) / merge_time)
    end = begin_S[row_T] + (interval + 1.0) * merge_time
    middle: Array = 0.5 * (time_T + np.maximum(end, time_T))
    return middle
