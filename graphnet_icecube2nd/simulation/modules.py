"""Modules with several PMTs: which PMT sees the light, noise, pulses, trigger.

A channel is a PMT: its number is DOM * PMTs of a DOM + PMT. Shape letters: S DOMs, P
PMTs of a DOM, E photoelectrons, T pulses, B events, L local coincidences.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.simulation.detector import GOLDEN_ANGLE, SimulatedDetector
from graphnet_icecube2nd.simulation.rows import Array, Index

# Angular acceptance of a PMT in its ring of reflectors, ((c + a) / (1 + a))^b with the
# cosine c between the PMT's direction and that to the source: within 15% of KM3NeT's
# simulation (JINST 8 (2013) T03006) where it is above 5% of its maximum.
_SHIFT, _POWER = 0.3, 2.3
_CHUNK = 2**15  # photoelectrons at once

# Time over threshold of KM3NeT's PMTs: that of one photoelectron [ns], the time of the
# exponential tail [ns], the slope for many [ns/p.e.], the saturation [ns], the
# threshold [p.e.]. Slope, saturation and threshold are parameters of KM3NeT's
# simulation; tail and the median of one photoelectron (nominally 26.4 ns,
# arXiv:1601.07459) are those of its simulated files.
TOT_ONE, TOT_TAIL, TOT_SLOPE, TOT_MOST, THRESHOLD = 25.5, 14.0, 7.0, 210.0, 0.24
LONGEST_TOT = 255  # one byte


def time_over_threshold(charge_T: Array, span_T: Array | float = 0.0) -> Array:
    """Return the time over threshold of pulses, (T,) ns.

    It grows as the logarithm of the charge up to 1 p.e., then by 7 ns per p.e., and
    saturates at 210 ns: 10 ns for 0.33 p.e., 25 for 1, 32 for 2, 76 for 9.
    Photoelectrons that follow each other lengthen it by the time between the first and
    the last.

    Args:
        charge_T: Charges, p.e., above 0.
        span_T: Times from the first to the last photoelectron, ns.
    """
    low = TOT_ONE + TOT_TAIL * np.log(np.minimum(charge_T, 1.0))
    straight = np.maximum(low, 0.0) + TOT_SLOPE * np.maximum(charge_T - 1.0, 0.0)
    saturated = straight / np.sqrt(1.0 + (straight / TOT_MOST) ** 2)
    result: Array = np.minimum(saturated + span_T, LONGEST_TOT)
    return result


def acceptance(cosine: Array) -> Array:
    """Return the acceptance of a PMT over its mean over all sides, (...).

    Args:
        cosine: Cosine between the PMT's direction and that to the source.
    """
    seen = np.maximum(cosine + _SHIFT, 0.0) / (1.0 + _SHIFT)
    mean = 0.5 * (1.0 + _SHIFT) / (_POWER + 1.0)
    result: Array = seen**_POWER / mean
    return result


@cache
def _brightest(looks: bytes) -> float:
    """Return the largest acceptance of a module over its mean."""
    look_P3 = np.frombuffer(looks, np.float64).reshape(-1, 3)
    turn = GOLDEN_ANGLE * np.arange(2000)
    z = 1.0 - (2.0 * np.arange(2000) + 1.0) / 2000
    flat = np.sqrt(1.0 - z**2)
    side_N3 = np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)
    return 1.02 * float(acceptance(side_N3 @ look_P3.T).mean(axis=1).max())


def brightest_side(detector: SimulatedDetector) -> float:
    """Return the acceptance of a module for light from its best side over the mean."""
    return _brightest(detector.module.directions_P3.tobytes())


def draw_channels(
    dom_E: Index,
    flight_E3: Array,
    detector: SimulatedDetector,
    rng: np.random.Generator,
) -> Index:
    """Draw the channel that each photoelectron is in, (E,); -1 if no PMT sees it.

    Of `brightest_side` photoelectrons per expected one, those are seen that the PMTs
    accept from the direction of their light. Unscattered light flies along `flight_E3`,
    whose length is its share of the light; the other light comes from any side.
    """
    look_SP3 = detector.pmt_direction_SP3
    num_pmts = look_SP3.shape[1]
    most = brightest_side(detector)
    channel_E = np.full(len(dom_E), -1)
    for first in range(0, len(dom_E), _CHUNK):
        some = slice(first, first + _CHUNK)
        dom, flight = dom_E[some], flight_E3[some].astype(np.float64)
        share = np.linalg.norm(flight, axis=1)
        scattered = np.flatnonzero(rng.random(len(dom)) >= share)
        source = -flight / np.maximum(share, 1e-12)[:, None]
        source[scattered] = isotropic(len(scattered), rng)
        seen = acceptance(np.einsum("epk,ek->ep", look_SP3[dom], source)) / num_pmts
        total = np.cumsum(seen, axis=1)
        wanted = rng.random(len(dom)) * most
        pmt = np.sum(total <= wanted[:, None], axis=1)
        channel_E[some] = np.where(pmt < num_pmts, dom * num_pmts + pmt, -1)
    return channel_E


def isotropic(num: int, rng: np.random.Generator) -> Array:
    """Draw unit vectors, (num, 3)."""
    vector = rng.standard_normal((num, 3))
    result: Array = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    return result


def draw_coincidences(
    events: Index,
    begin: Array,
    span: Array,
    detector: SimulatedDetector,
    jitter: float,
    rng: np.random.Generator,
) -> tuple[Index, Index, Array]:
    """Draw pulses of decays of potassium-40 that several PMTs of a module see.

    A decay is near the module, so that its photoelectrons come from one side, at one
    time but for the PMTs' jitter, and in different PMTs.

    Args:
        events: Events B' with noise.
        begin: Begin of the noise of each, (B',) ns.
        span: Length of the noise of each, (B',) ns.
        detector: The detector.
        jitter: Standard deviation of the times, ns.
        rng: Random numbers.

    Returns:
        Events, channels and times [ns] of the pulses, (E,) each.
    """
    look_SP3 = detector.pmt_direction_SP3
    num_pmts = look_SP3.shape[1]
    pieces = []
    for extra, rate in enumerate(detector.module.coincidence_rates):
        number = rng.poisson(rate * 1e-9 * len(detector) * span)
        event = np.repeat(np.arange(len(events)), number)
        dom = rng.integers(len(detector), size=len(event))
        time = begin[event] + rng.random(len(event)) * span[event]
        side = isotropic(len(event), rng)
        seen = acceptance(np.einsum("epk,ek->ep", look_SP3[dom], side))
        # The PMTs with the largest keys: drawn without repetition, by their acceptance.
        key = np.log(np.maximum(seen, 1e-30)) - np.log(
            -np.log(rng.random(seen.shape) + 1e-300)
        )
        pmt = np.argsort(-key, axis=1)[:, : extra + 2]
        channel = dom[:, None] * num_pmts + pmt
        when = time[:, None] + jitter * rng.standard_normal(pmt.shape)
        pieces.append(
            (np.repeat(events[event], pmt.shape[1]), channel.ravel(), when.ravel())
        )
    if not pieces:
        empty = np.zeros(0, np.int64)
        return empty, empty, np.zeros(0)
    event, channel, when = (
        np.concatenate(column) for column in zip(*pieces, strict=True)
    )
    return event, channel, when


def may_trigger(
    event_E: Index, channel_E: Index, num_events: int, detector: SimulatedDetector
) -> NDArray[np.bool_]:
    """Return which events may have a trigger once noise is added, (B,).

    All modules but one need two photoelectrons, or half of the pulses must be light.

    Args:
        event_E: Event of each photoelectron.
        channel_E: Channel of each photoelectron.
        num_events: Number of events B.
        detector: The detector.
    """
    trigger, num_doms = detector.module.trigger, len(detector)
    key_E = event_E * num_doms + channel_E // detector.module.pmts
    key, number = np.unique(key_E, return_counts=True)
    several_B = np.bincount(key[number > 1] // num_doms, minlength=num_events)
    may_B: NDArray[np.bool_] = several_B >= trigger.modules - 1
    if trigger.pulses:
        total_B = np.bincount(event_E, minlength=num_events)
        may_B |= (total_B >= trigger.pulses // 2) & (several_B > 0)
    return may_B


def find_module_triggers(
    event_T: Index,
    channel_T: Index,
    time_T: Array,
    num_events: int,
    detector: SimulatedDetector,
) -> tuple[NDArray[np.bool_], Array, Array]:
    """Return which pulses are part of a trigger, and when it begins and ends.

    Args:
        event_T: Event of each pulse; pulses are sorted by event.
        channel_T: Channel of each pulse.
        time_T: Time of each pulse, ns.
        num_events: Number of events B.
        detector: The detector.

    Returns:
        Flags of the pulses, (T,); begin and end [ns] of each event's trigger, (B,), NaN
        without one.
    """
    trigger, num_pmts = detector.module.trigger, detector.module.pmts
    dom_T = channel_T // num_pmts
    order = np.lexsort((time_T, dom_T, event_T))
    event, dom, time, channel = (a[order] for a in (event_T, dom_T, time_T, channel_T))
    # Local coincidences: a pulse with the next one of its module.
    is_next = (event[1:] == event[:-1]) & (dom[1:] == dom[:-1])
    is_next &= time[1:] - time[:-1] <= trigger.local_window
    is_next &= channel[1:] != channel[:-1]
    first = np.flatnonzero(is_next)
    local = np.zeros(len(event), bool)
    local[first] = local[first + 1] = True
    # One per module and run of such pulses.
    new = np.append(True, np.diff(first) > 1) if len(first) else np.zeros(0, bool)
    row_L = first[new]
    used = np.zeros(len(event), bool)
    found = _connected(event, dom, time, row_L, row_L, trigger.distance, detector)
    seed, other = found
    enough = _modules_of(seed, dom[other], len(event)) >= trigger.modules
    used[other[enough[seed]]] = True
    # All pulses of the coincidences that are used.
    run = np.cumsum(np.isin(np.arange(len(event)), row_L)) - 1
    is_used = used[row_L][np.maximum(run, 0)] if len(row_L) else used
    used = local & is_used & (run >= 0)
    if trigger.pulses:
        every = np.arange(len(event))
        reach = trigger.pulses_distance
        seed, other = _connected(event, dom, time, row_L, every, reach, detector)
        number = np.bincount(seed, minlength=len(event))
        used[other[(number >= trigger.pulses)[seed]]] = True
    begin_B, end_B = np.full(num_events, np.inf), np.full(num_events, -np.inf)
    np.minimum.at(begin_B, event[used], time[used])
    np.maximum.at(end_B, event[used], time[used])
    triggered_T = np.zeros(len(event), bool)
    triggered_T[order] = used
    return (
        triggered_T,
        np.where(np.isfinite(begin_B), begin_B, np.nan),
        np.where(np.isfinite(end_B), end_B, np.nan),
    )


def _connected(
    event: Index,
    dom: Index,
    time: Array,
    seeds: Index,
    others: Index,
    distance: float,
    detector: SimulatedDetector,
) -> tuple[Index, Index]:
    """Return pairs of rows, of a seed and another pulse, that light may connect."""
    low = np.searchsorted(event[others], event[seeds], side="left")
    high = np.searchsorted(event[others], event[seeds], side="right")
    extra, speed = detector.module.trigger.extra, detector.medium.speed
    found = []
    for first, stop in _batches(high - low):
        number = (high - low)[first:stop]
        seed = np.repeat(seeds[first:stop], number)
        begin = np.repeat(low[first:stop] - np.cumsum(number) + number, number)
        other = others[begin + np.arange(len(seed))]
        lag = np.abs(time[other] - time[seed])
        near = np.flatnonzero(lag <= distance / speed + extra)
        seed, other = seed[near], other[near]
        step = detector.position_S3[dom[other]] - detector.position_S3[dom[seed]]
        away = np.sqrt(np.sum(step * step, axis=1))
        kept = (away <= distance) & (lag[near] <= away / speed + extra)
        found.append((seed[kept], other[kept]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    seed, other = (np.concatenate(column) for column in zip(*found, strict=True))
    return seed, other


def _batches(number: Index, most: int = 2**21) -> list[tuple[int, int]]:
    """Return ranges of rows with at most that number of pairs, or one row."""
    total = np.cumsum(number)
    borders, first = [0], 0
    while first < len(number):
        before = int(total[first - 1]) if first else 0
        first = max(first + 1, int(np.searchsorted(total, before + most, side="right")))
        borders.append(first)
    return list(pairwise(borders))


def _modules_of(seed: Index, dom: Index, num: int) -> Index:
    """Return the number of modules connected with each seed, (num,)."""
    if not len(seed):
        return np.zeros(num, np.int64)
    pair = np.unique(seed * (int(dom.max()) + 1) + dom)
    return np.bincount(pair // (int(dom.max()) + 1), minlength=num)
