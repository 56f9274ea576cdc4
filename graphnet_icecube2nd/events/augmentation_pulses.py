"""Augmentations of pulses: times moved, charges scaled, DOMs and strings dropped.

How they are used stands in `augmentation.py`. Shape letters: T pulses, B events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.events import (
    Events,
    floating,
    keep_pulses,
    need_column,
    per_pulse,
    time_order,
    with_columns,
)
from graphnet_icecube2nd.events.random_numbers import (
    RandomKey,
    combine,
    normal,
    pulse_keys,
    uniform,
)


@dataclass(frozen=True, kw_only=True)
class TimeJitter:
    """Move every pulse in time on its own, by a normal number.

    Args:
        sigma: ns.

    Raises:
        ValueError: `sigma` is below 0 or no number.
    """

    kind: ClassVar[str] = "time_jitter"
    sigma: float

    def __post_init__(self) -> None:
        check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with pulses moved, in the order of time."""
        offsets = events.offsets.numpy()
        shift_T = self.sigma * normal(
            pulse_keys(key.of_events(events.event_id.numpy()), offsets)
        )
        moved = _shifted(events, self.kind, shift_T)
        event_T = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        order = time_order(moved.columns[TIME], event_T)
        columns = {name: value[order] for name, value in moved.columns.items()}
        return replace(moved, columns=columns)


@dataclass(frozen=True, kw_only=True)
class TimeOffset:
    """Move every event in time as a whole, by a normal number.

    Args:
        sigma: ns.

    Raises:
        ValueError: `sigma` is below 0 or no number.
    """

    kind: ClassVar[str] = "time_offset"
    sigma: float

    def __post_init__(self) -> None:
        check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each moved."""
        shift_B = self.sigma * normal(key.of_events(events.event_id.numpy()))
        return _shifted(events, self.kind, per_pulse(events, shift_B))


@dataclass(frozen=True, kw_only=True)
class ChargeScale:
    """Multiply charges by log-normal factors of median 1.

    Args:
        sigma: Of the natural logarithm of the factor that an event's pulses share;
            0.1 is about 10%.
        pulse_sigma: The same for a further factor of each pulse; default none.

    Raises:
        ValueError: Either is below 0 or no number; on use: there is no charge.
    """

    kind: ClassVar[str] = "charge_scale"
    sigma: float
    pulse_sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number(self, "sigma")
        check_number(self, "pulse_sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with charges scaled."""
        need_column(events, self.kind, CHARGE)
        key_B = key.of_events(events.event_id.numpy())
        log_T = per_pulse(events, self.sigma * normal(combine(key_B, 0)))
        if self.pulse_sigma > 0:
            key_T = pulse_keys(combine(key_B, 1), events.offsets.numpy())
            log_T += self.pulse_sigma * normal(key_T)
        charge_T = floating(events.columns[CHARGE])
        factor_T = torch.from_numpy(np.exp(log_T)).to(charge_T.dtype)
        return with_columns(events, {CHARGE: charge_T * factor_T})


@dataclass(frozen=True, kw_only=True)
class DropDoms:
    """Take all pulses of some DOMs away, other DOMs in every event.

    A DOM is known by its `sensor_id`, else by its x, y, z. An event of which nothing
    would be left stays as it was. `n_pulses` goes down with the pulses.

    Args:
        probability: Of each DOM, 0 to 1, 1 excluded.

    Raises:
        ValueError: `probability` is out of range; on use: nothing tells DOMs apart.
    """

    kind: ClassVar[str] = "drop_doms"
    probability: float

    def __post_init__(self) -> None:
        check_number(self, "probability", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer DOMs."""
        key_T = per_pulse(events, key.of_events(events.event_id.numpy()))
        if SENSOR_ID in events.columns:
            key_T = combine(key_T, events.columns[SENSOR_ID].long().numpy())
        else:
            key_T = _combine_places(events, self.kind, key_T, (X, Y, Z))
        return keep_pulses(events, uniform(key_T) >= self.probability)


@dataclass(frozen=True, kw_only=True)
class DropStrings:
    """Take all pulses of some strings away, other strings in every event.

    A string is the geometry's, by `sensor_id`; else the DOMs of one x, y. An event of
    which nothing would be left stays as it was. `n_pulses` goes down with the pulses.

    Args:
        probability: Of each string, 0 to 1, 1 excluded.

    Raises:
        ValueError: `probability` is out of range; on use: nothing tells strings apart.
    """

    kind: ClassVar[str] = "drop_strings"
    probability: float

    def __post_init__(self) -> None:
        check_number(self, "probability", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer strings."""
        key_T = per_pulse(events, key.of_events(events.event_id.numpy()))
        if SENSOR_ID in events.columns:
            string_T = detector.places.string_S[events.columns[SENSOR_ID].long()]
            key_T = combine(key_T, string_T.numpy())
        else:
            key_T = _combine_places(events, self.kind, key_T, (X, Y))
        return keep_pulses(events, uniform(key_T) >= self.probability)


def check_number(
    augmentation: Any, name: str, *, up_to: float = math.inf, below: float = math.inf
) -> None:
    """See that an argument of an augmentation is a number in its range.

    Args:
        augmentation: The augmentation.
        name: Which argument; 0 or above, and finite.
        up_to: The largest value allowed.
        below: What it must be below of.

    Raises:
        ValueError: It is not.
    """
    value = getattr(augmentation, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value <= up_to and value < below:
        return
    limit = f", below {below:g}" if below < math.inf else ""
    limit = f", up to {up_to:g}" if up_to < math.inf else limit
    raise ValueError(
        f"{augmentation.kind}: {name} must be a finite number from 0{limit}; got "
        f"{value!r}"
    )


def _shifted(events: Events, kind: str, shift_T: NDArray[np.float64]) -> Events:
    need_column(events, kind, TIME)
    time_T = floating(events.columns[TIME])
    moved_T = time_T + torch.from_numpy(shift_T).to(time_T.dtype)
    return with_columns(events, {TIME: moved_T})


def _combine_places(
    events: Events, kind: str, key_T: NDArray[np.uint64], axes: tuple[str, ...]
) -> NDArray[np.uint64]:
    """Return keys of what is at one place: equal coordinates, equal keys."""
    for axis in axes:
        need_column(events, kind, axis, instead_of=SENSOR_ID)
        # Bit by bit, once -0 is 0.
        bits_T = (events.columns[axis].double() + 0.0).numpy().view(np.int64)
        key_T = combine(key_T, bits_T)
    return key_T
