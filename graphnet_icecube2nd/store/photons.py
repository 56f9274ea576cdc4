"""Pulses from raw photons, such as those of Prometheus: a simple response of modules.

Without it every photon is a pulse, as in GraphNeT's tables of Prometheus' photons. With
it a share of the photons is kept, their times are smeared, and photons that reach a
module together are one pulse, with their number as charge. Pulses of NuBench
(arXiv:2511.13111) are of this kind. Noise, angular acceptance and the charge of the PMT
are not simulated. Shape letters: T photons, B events, G good photons, P pulses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.config import from_plain
from graphnet_icecube2nd.conventions import AUXILIARY, CHARGE, HLC, TIME, X, Y, Z
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import check_whole
from graphnet_icecube2nd.events.random_numbers import (
    RandomKey,
    combine,
    normal,
    pulse_keys,
    uniform,
)
from graphnet_icecube2nd.store.readers.source import EventChunk, Source

PHOTON_STREAM = -1  # of random numbers; those of augmentations are above


@dataclass(frozen=True, kw_only=True)
class PhotonResponse:
    """Conversion of photons to pulses; the same for an event in any order of events.

    Args:
        acceptance: Share of the photons that are kept, above 0 up to 1.
        time_spread: Standard deviation of the time of a photon, ns.
        merge_time: A photon joins the pulse of its module that began at most this time
            before, ns. The time of the pulse is the mean of its photons, and their
            number is its charge. 0 merges none.
        seed: Random seed of acceptance and times.

    Raises:
        ValueError: A value is out of its range; the message begins with its name.
    """

    acceptance: float = 1.0
    time_spread: float = 0.0
    merge_time: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.acceptance <= 1:
            raise ValueError(
                f"acceptance must be above 0 and up to 1, found {self.acceptance}"
            )
        for name in ("time_spread", "merge_time"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be 0 or more, found {getattr(self, name)}"
                )
        check_whole("seed", self.seed, 0)

    @classmethod
    def of(cls, source: Source, values: Mapping[str, Any]) -> Source:
        """Return a source whose photons become pulses.

        Raises:
            ValueError: A name or value is not allowed, or the source has charges,
                flags of hits or no positions, so that it does not have single photons.
        """
        response, pulse_map = from_plain(cls, values, "photons."), source.pulse_map
        given = set(pulse_map.columns().values())
        if {CHARGE, AUXILIARY, HLC} & given or not {X, Y, Z} <= given:
            raise ValueError(
                f"photons={dict(values)} needs single photons with positions and no "
                f"charges or flags of hits, but pulse map {pulse_map.name!r} reads "
                f"{', '.join(pulse_map.columns())}. Leave --photons (photons) out, or "
                "name the pulse map of the photons"
            )
        columns = source.pulse_columns
        if response.merge_time:
            if CHARGE in columns:
                raise ValueError(
                    f"photons: column {CHARGE!r} cannot be kept: pulses get the number "
                    "of their photons as charge"
                )
            pulse_map = replace(pulse_map, charge=CHARGE)
            columns = (*columns, CHARGE)
        return replace(
            source, photons=response, pulse_map=pulse_map, pulse_columns=columns
        )

    def __call__(self, chunk: EventChunk, pulse_map: PulseMap) -> EventChunk:
        """Return the pulses of a chunk of photons, in order of event and time."""
        quantity_of = {q: column for column, q in pulse_map.columns().items()}
        num_events = len(chunk.event_id)
        key_B = RandomKey(seed=self.seed, stream=PHOTON_STREAM).of_events(
            chunk.event_id.astype(np.int64)
        )
        key_T = pulse_keys(key_B, chunk.offsets)
        index_T = np.flatnonzero(uniform(combine(key_T, 0)) < self.acceptance)
        event_T = np.repeat(np.arange(num_events), np.diff(chunk.offsets))[index_T]
        time_T = np.asarray(chunk.columns[quantity_of[TIME]])[index_T]
        if self.time_spread:
            jitter_T = self.time_spread * normal(combine(key_T[index_T], 1))
            time_T = time_T.astype(np.float64) + jitter_T
        count_P = np.ones(len(index_T))
        if self.merge_time:
            place = [np.asarray(chunk.columns[quantity_of[q]]) for q in (X, Y, Z)]
            keys = [event_T, *(values[index_T] for values in place)]
            first_P, time_P, count_P = self._merged(keys, time_T.astype(np.float64))
            index_T, event_T, time_T = index_T[first_P], event_T[first_P], time_P
        order_P = np.lexsort((time_T, event_T))
        index_P = index_T[order_P]
        columns = {
            name: np.asarray(values)[index_P] for name, values in chunk.columns.items()
        }
        columns[quantity_of[TIME]] = time_T[order_P]
        if self.merge_time:
            columns[CHARGE] = count_P[order_P]
        length_B = np.bincount(event_T, minlength=num_events)
        offsets = np.append(0, np.cumsum(length_B))
        return replace(chunk, columns=columns, offsets=offsets, first_row=None)

    def _merged(
        self, keys: list[NDArray[Any]], time_T: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the first photon of each pulse, its time, and its photons, (P,) each.

        Photons of one pulse have the same keys, (T,) each. A photon with a value that
        is not finite is a pulse of its own, which the conversion then refuses.
        """
        finite_T = np.isfinite(time_T)
        for key in keys:
            finite_T &= np.isfinite(key)
        bad = np.flatnonzero(~finite_T)
        order_G = np.flatnonzero(finite_T)
        order_G = order_G[np.lexsort([k[order_G] for k in (time_T, *keys[::-1])])]
        begins_G = np.ones(len(order_G), bool)
        begins_G[1:] = np.any([np.diff(key[order_G]) != 0 for key in keys], axis=0)
        time_G = time_T[order_G]
        # Modules one after the other on one axis, so far apart that no pulse has two.
        # Long gaps are cut short: one absurd time would cost all others precision.
        apart = 2 * self.merge_time
        step_G = np.diff(time_G, prepend=time_G[:1]).clip(max=apart)
        along_G = np.cumsum(np.where(begins_G, apart, step_G))
        end_G = np.searchsorted(along_G, along_G + self.merge_time, side="right")
        ends, start = end_G.tolist(), 0
        starts: list[int] = []
        while start < len(ends):
            starts.append(start)
            start = max(ends[start], start + 1)
        begin_P = np.array(starts, np.int64)
        count_P = np.diff(np.append(begin_P, len(order_G))).astype(np.float64)
        first_P = order_G[begin_P]
        later_P = np.zeros(len(begin_P))
        if len(begin_P):
            pulse_G = np.repeat(np.arange(len(begin_P)), count_P.astype(np.int64))
            late_G = time_G - time_G[begin_P][pulse_G]
            later_P = np.bincount(pulse_G, late_G, len(begin_P)) / count_P
        return (
            np.concatenate([first_P, bad]),
            np.concatenate([time_T[first_P] + later_P, time_T[bad]]),
            np.concatenate([count_P, np.ones(len(bad))]),
        )
