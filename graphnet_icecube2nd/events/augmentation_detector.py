"""Augmentations that need the detector: noise of its DOMs, turns about its axis.

How they are used stands in `augmentation.py`. Shape letters: T pulses, B events, N
noise pulses, S DOMs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    HLC,
    RDE,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.augmentation_pulses import check_number
from graphnet_icecube2nd.events.events import (
    Events,
    add_pulses,
    floating,
    need_column,
    per_pulse,
)
from graphnet_icecube2nd.events.random_numbers import (
    RandomKey,
    combine,
    normal,
    poisson,
    pulse_keys,
    uniform,
)

DIRECTION = "direction"
_NOISE_CHARGE_SIGMA = 0.3  # p.e.
_DISCRIMINATOR = 0.25  # p.e.


@dataclass(frozen=True, kw_only=True)
class AddNoise:
    """Add pulses of uncorrelated noise.

    Their number is Poisson, with the rates of all DOMs times the time from the event's
    first pulse to its last; an event that selection has cut gets the share of it that
    selection would have kept. Times are uniform in that range. A DOM's rate goes with
    its relative efficiency. Noise is auxiliary. `n_pulses` goes up with the pulses, and
    the event may get longer than `max_pulses`.

    Simplified: in IceCube more than half of the noise comes in bursts of one DOM, and
    its spectrum of charges has an exponential part besides the normal one. Here charges
    are normal, 1 +- 0.3 p.e., and those below the discriminator's 0.25 are put there.

    Args:
        rate_per_dom: Hz, of a DOM of relative efficiency 1. The default is the average
            hit rate in the ice: 560 Hz, and 780 Hz for high-efficiency DOMs, of which
            230 to 250 Hz are uncorrelated (M. G. Aartsen et al., "The IceCube Neutrino
            Observatory: Instrumentation and Online Systems", JINST 12 P03012 (2017),
            arXiv:1612.05093, section "Dark Noise"). It is what a simulation without
            noise lacks; events that have theirs, as IceCube's and the competition's
            do, want a small part of it.
        margin: ns that the range is longer at either end; default none.

    Raises:
        ValueError: Either is below 0 or no number; on use: a column that a noise pulse
            would have no value for.
    """

    kind: ClassVar[str] = "add_noise"
    rate_per_dom: float = 560.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_number(self, "rate_per_dom")
        check_number(self, "margin")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with noise, in the order of time."""
        need_column(events, self.kind, TIME)
        offsets, key_B = events.offsets.numpy(), key.of_events(events.event_id.numpy())
        time_T = events.columns[TIME].double().numpy()
        first_B = np.minimum.reduceat(time_T, offsets[:-1]) - self.margin
        range_B = np.maximum.reduceat(time_T, offsets[:-1]) + self.margin - first_B
        geometry = detector.places
        rate_S = self.rate_per_dom * 1e-9 * geometry.rde_S.numpy()  # per ns
        kept_B = np.diff(offsets) / events.n_pulses.numpy()
        num_B = poisson(rate_S.sum() * range_B * kept_B, combine(key_B, 0))
        key_N = pulse_keys(combine(key_B, 1), np.append(0, np.cumsum(num_B)))
        time_N = np.repeat(first_B, num_B)
        time_N += np.repeat(range_B, num_B) * uniform(combine(key_N, 0))
        if not events.columns[TIME].is_floating_point():
            time_N = np.rint(time_N)
        rate_to_S = np.cumsum(rate_S)
        drawn_N = uniform(combine(key_N, 1)) * rate_to_S[-1]
        dom_N = np.searchsorted(rate_to_S, drawn_N, side="right")
        dom_N = dom_N.clip(max=len(rate_S) - 1)
        charge_N = 1.0 + _NOISE_CHARGE_SIGMA * normal(combine(key_N, 2))
        position_N3 = geometry.position_S3.numpy()[dom_N]
        made = {
            **dict(zip((X, Y, Z), position_N3.T, strict=True)),
            TIME: time_N,
            CHARGE: charge_N.clip(min=_DISCRIMINATOR),
            AUXILIARY: np.ones(len(dom_N)),
            HLC: np.zeros(len(dom_N)),
            RDE: geometry.rde_S.numpy()[dom_N],
            SENSOR_ID: dom_N,
        }
        if unknown := sorted(set(events.columns) - set(made)):
            raise ValueError(
                f"{self.kind} has no values for column {', '.join(unknown)}; it has "
                f"them for {', '.join(made)}"
            )
        return add_pulses(events, made, num_B)


@dataclass(frozen=True, kw_only=True)
class RotateAboutZ:
    """Turn every event about the z axis, its pulses and its true direction alike.

    IceCube is not symmetric: a turned event lies between the strings, and the model
    learns on DOMs that are not there. Small angles do less harm; the full turn makes
    use of the symmetry of physics (but for the tilt and anisotropy of the ice) at the
    price of that of the detector.

    It acts on x, y, z, which are looked up first where there is only a `sensor_id`, and
    so is the efficiency of DOMs where no column gives it: a turned place is no DOM's
    any more. The detector's `vectors`, such as PMT directions, turn with the event.

    Args:
        max_angle: rad; angles are uniform between plus and minus this. Default: pi.
        azimuths: Columns of the truth that are azimuths; those there are turn, and so
            does `direction`. Other truth stays: a vertex would be wrong.

    Raises:
        ValueError: `max_angle` is not in 0 to pi; on use: no place of the pulses.
    """

    kind: ClassVar[str] = "rotate_about_z"
    max_angle: float = math.pi
    azimuths: tuple[str, ...] = (
        *("azimuth", "injection_azimuth"),
        *("azimuth_source", "initial_state_azimuth"),
    )

    def __post_init__(self) -> None:
        check_number(self, "max_angle", up_to=math.pi)
        # A YAML file brings a list.
        object.__setattr__(self, "azimuths", tuple(self.azimuths))

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each turned."""
        angle_B = self.max_angle * (
            2 * uniform(key.of_events(events.event_id.numpy())) - 1
        )
        columns = _with_places(events, self.kind, detector)
        angle_T = per_pulse(events, angle_B)
        for x, y, _ in ((X, Y, Z), *detector.vectors):
            if x in columns and y in columns:
                columns[x], columns[y] = _turn(columns[x], columns[y], angle_T)
        truth = dict(events.truth)
        if DIRECTION in truth:
            x_B, y_B, z_B = truth[DIRECTION].unbind(-1)
            turned = (*_turn(x_B, y_B, angle_B), z_B)
            truth[DIRECTION] = torch.stack(turned, -1)
        for name in set(self.azimuths) & truth.keys():
            azimuth_B = truth[name] + torch.from_numpy(angle_B).to(truth[name].dtype)
            azimuth_B = azimuth_B.remainder(2 * math.pi)
            # A tiny negative angle rounds up to one full turn.
            truth[name] = azimuth_B.where(azimuth_B < 2 * math.pi, 0.0)
        return replace(events, columns=columns, truth=truth)


def _with_places(events: Events, kind: str, detector: Detector) -> dict[str, Tensor]:
    """Return the columns, x, y, z and an efficiency among them."""
    columns, geometry = dict(events.columns), detector.places
    if not {X, Y, Z} <= columns.keys():
        need_column(events, kind, SENSOR_ID, instead_of="x, y, z")
        position_T3 = geometry.lookup(columns[SENSOR_ID].long()).float()
        columns.update(zip((X, Y, Z), position_T3.unbind(1), strict=True))
    elif not {SENSOR_ID, RDE} & columns.keys():
        position_T3 = torch.stack([columns[axis].double() for axis in (X, Y, Z)], 1)
        dom_T = geometry.nearest_dom(position_T3)
        rde_T = geometry.rde_S[dom_T.clamp(min=0)].where(dom_T >= 0, 1.0)
        columns[RDE] = rde_T.float()
    return columns


def _turn(x: Tensor, y: Tensor, angle: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Turn vectors from x towards y; all (T,), or (B,) for events."""
    x, y = floating(x), floating(y)
    cosine, sine = torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle))
    return (x * cosine - y * sine).to(x.dtype), (x * sine + y * cosine).to(y.dtype)
