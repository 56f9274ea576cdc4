"""Photoelectrons into pulses: merged, with charges, coincidences and the trigger.

Shape letters: B events, E photoelectrons, T pulses, S DOMs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME_OFFSET
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import Array
from graphnet_icecube2nd.simulation.photoelectrons import Index, Photoelectrons
from graphnet_icecube2nd.simulation.rows import Rows

COINCIDENCE_WINDOW = 1000.0  # ns, of the local-coincidence rule
TRIGGER_TIME = TIME_OFFSET  # ns, where the trigger is on the clock of an event
READOUT_BEFORE = 4000.0  # ns, kept before the trigger begins
READOUT_AFTER = 6000.0  # ns, kept after it ends
CHARGE_STEP = 0.025  # p.e., in which charges are known
_CLOCK = 2.0**24  # ns, more than any event lasts: keeps DOMs apart in one sort key


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """So many DOMs in coincidence within a time."""

    doms: int  # DOMs with HLC pulses, each counted at its first
    window: float  # ns
    deepcore: bool  # whether only DeepCore's DOMs count


# IceCube's, arXiv:1612.05093, the second without the strings around DeepCore.
TRIGGERS = (
    Trigger(doms=8, window=5000.0, deepcore=False),
    Trigger(doms=3, window=2500.0, deepcore=True),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulses(Rows):
    """Pulses of many events, by event, DOM and time."""

    event_T: Index
    dom_T: Index
    time_T: Array  # ns
    charge_T: Array  # p.e.
    hlc_T: NDArray[np.bool_]  # a neighbour within two DOMs saw something within 1 us


def draw_noise(
    photoelectrons: Photoelectrons,
    num_events: int,
    rate: float,  # Hz, of a DOM of rde 1
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> Photoelectrons:
    """Draw uncorrelated noise around the light of each event.

    Uniform in time from READOUT_BEFORE and the longest trigger before the first to
    READOUT_AFTER after the last photoelectron, so that it fills any readout; a DOM's
    rate goes with its rde. Events without light get none.
    """
    first_B, last_B = np.full(num_events, np.inf), np.full(num_events, -np.inf)
    np.minimum.at(first_B, photoelectrons.event_E, photoelectrons.time_E)
    np.maximum.at(last_B, photoelectrons.event_E, photoelectrons.time_E)
    lit = np.flatnonzero(np.isfinite(first_B))
    begin = first_B[lit] - READOUT_BEFORE - TRIGGERS[0].window
    span = last_B[lit] + READOUT_AFTER - begin
    share_S = np.cumsum(detector.rde_S)
    number = rng.poisson(rate * 1e-9 * share_S[-1] * span)
    total = int(number.sum())
    dom_E = np.searchsorted(share_S, rng.random(total) * share_S[-1], side="right")
    time_E = np.repeat(begin, number) + rng.random(total) * np.repeat(span, number)
    return Photoelectrons(
        event_E=np.repeat(lit, number),
        dom_E=np.minimum(dom_E, len(detector) - 1),
        time_E=time_E,
        weight_E=np.ones(total),
    )


def make_pulses(
    photoelectrons: Photoelectrons,
    detector: SimulatedDetector,
    merge_time: float,  # ns
    charge_spread: float,  # p.e., of the charge of one photoelectron
    rng: np.random.Generator,
) -> Pulses:
    """Merge photoelectrons into pulses, give them charges, find coincidences.

    Counted from the first photoelectron of a DOM, those in one interval of
    `merge_time` make one pulse, at the time of its first. Its charge is normal around
    their number; steps of 0.025 p.e., one at least.
    """
    num_doms = len(detector)
    channel_E = photoelectrons.event_E * num_doms + photoelectrons.dom_E
    start = float(photoelectrons.time_E.min(initial=0.0))
    key_E = channel_E * _CLOCK + (photoelectrons.time_E - start)
    order = np.argsort(key_E)
    channel_E, time_E = channel_E[order], photoelectrons.time_E[order]
    new_channel = np.ones(len(order), bool)
    new_channel[1:] = channel_E[1:] != channel_E[:-1]
    begin = np.flatnonzero(new_channel)
    since = time_E - np.repeat(time_E[begin], np.diff(np.append(begin, len(order))))
    interval = (since / merge_time).astype(np.int64)
    new_pulse = new_channel.copy()
    new_pulse[1:] |= interval[1:] != interval[:-1]
    first = np.flatnonzero(new_pulse)
    count_T = np.zeros(0)
    if len(first):
        count_T = np.add.reduceat(photoelectrons.weight_E[order], first)
    spread = charge_spread * np.sqrt(count_T) * rng.standard_normal(len(first))
    steps = np.maximum(np.round((count_T + spread) / CHARGE_STEP), 1.0)
    channel_T, time_T = channel_E[first], time_E[first]
    return Pulses(
        event_T=channel_T // num_doms,
        dom_T=channel_T % num_doms,
        time_T=time_T,
        charge_T=steps * CHARGE_STEP,
        hlc_T=find_coincidences(channel_T, time_T, detector),
    )


def find_coincidences(
    channel_T: Index, time_T: Array, detector: SimulatedDetector
) -> NDArray[np.bool_]:
    """Return which pulses have a neighbour: the local-coincidence rule.

    A pulse on one of the two DOMs below or above on the same string, within 1000 ns.
    Channels are event * number of DOMs + DOM; pulses are in the order of channel and
    time.
    """
    num_doms = len(detector)
    start = float(time_T.min(initial=0.0))
    key_T = channel_T * _CLOCK + (time_T - start)
    dom_T = channel_T % num_doms
    hlc_T = np.zeros(len(key_T), bool)
    for other_S in detector.neighbour_SN.T:
        asks = np.flatnonzero((other_S[dom_T] >= 0) & ~hlc_T)
        step = other_S[dom_T[asks]] - dom_T[asks]
        sought = key_T[asks] + step * _CLOCK
        place = np.searchsorted(key_T, sought - COINCIDENCE_WINDOW)
        found = place < len(key_T)
        found[found] = key_T[place[found]] <= sought[found] + COINCIDENCE_WINDOW
        hlc_T[asks[found]] = True
    return hlc_T


def find_triggers(
    pulses: Pulses, num_events: int, detector: SimulatedDetector
) -> tuple[Array, Array]:
    """Return when the trigger of each event begins and ends, (B,) ns; NaN if none does.

    From the first DOM of the first fulfilled condition to the last of the last.
    """
    begin_B, end_B = np.full(num_events, np.inf), np.full(num_events, -np.inf)
    hlc = pulses.take(pulses.hlc_T)
    channel = hlc.event_T * len(detector) + hlc.dom_T
    is_first = np.ones(len(channel), bool)
    is_first[1:] = channel[1:] != channel[:-1]
    launches = hlc.take(is_first)
    launches = launches.take(np.lexsort((launches.time_T, launches.event_T)))
    for trigger in TRIGGERS:
        counted = launches
        if trigger.deepcore:
            counted = launches.take(detector.is_deepcore_S[launches.dom_T])
        last = trigger.doms - 1
        event, time = counted.event_T, counted.time_T
        if len(event) <= last:
            continue
        fulfilled = np.flatnonzero(
            (event[last:] == event[:-last])
            & (time[last:] - time[:-last] <= trigger.window)
        )
        np.minimum.at(begin_B, event[fulfilled], time[fulfilled])
        np.maximum.at(end_B, event[fulfilled], time[fulfilled + last])
    return (
        np.where(np.isfinite(begin_B), begin_B, np.nan),
        np.where(np.isfinite(end_B), end_B, np.nan),
    )
