"""Changes to events that ask what a model leans on; checks, not for training.

They have the form of the augmentations in `augmentation.py` and go where those go, but
are the same for every event where those are drawn. Shape letters: T pulses, B events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    HLC,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.augmentation_detector import DIRECTION, RotateAboutZ
from graphnet_icecube2nd.events.augmentation_pulses import check_number
from graphnet_icecube2nd.events.events import (
    Events,
    floating,
    keep_pulses,
    need_column,
    per_pulse,
    with_columns,
)
from graphnet_icecube2nd.events.random_numbers import RandomKey, combine, uniform

LOST = "lost"  # (B,) bool among the truth: nothing is left of the event
AXES = (X, Y, Z)
_LOOKS = ("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")  # where a PMT looks, as `AXES`
_UNITS = {"dom": AXES, "string": (X, Y)}  # what tells one from another


@dataclass(frozen=True, kw_only=True)
class TimeShift:
    """Move all events in time by one and the same amount.

    Args:
        shift: ns, of either sign.

    Raises:
        ValueError: On use: there is no time.
    """

    kind: ClassVar[str] = "time_shift"
    shift: float

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, later by `shift`."""
        need_column(events, self.kind, TIME)
        return with_columns(events, {TIME: floating(events.columns[TIME]) + self.shift})


@dataclass(frozen=True, kw_only=True)
class FirstPulseAt:
    """Move every event so that its first pulse at hand comes at one time.

    Takes away what the place of an event in its readout window tells: a window that
    opens a fixed time before the interaction gives the time of the interaction away.

    Args:
        time: ns, where the first pulse comes to be.
        hlc: Take the first HLC pulse, which is seldom noise; of an event without any
            the first of all.

    Raises:
        ValueError: On use: there is no time, or neither hlc nor auxiliary.
    """

    kind: ClassVar[str] = "first_pulse_at"
    time: float
    hlc: bool = False

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each moved."""
        shift_B = self.time - first_times(events, hlc=self.hlc)
        time_T = floating(events.columns[TIME])
        shift_T = torch.from_numpy(per_pulse(events, shift_B)).to(time_T.dtype)
        return with_columns(events, {TIME: time_T + shift_T})


@dataclass(frozen=True, kw_only=True)
class ChargeFactor:
    """Multiply all charges by one factor.

    Args:
        factor: Above 0.

    Raises:
        ValueError: `factor` is below 0 or no number; on use: there is no charge.
    """

    kind: ClassVar[str] = "charge_factor"
    factor: float

    def __post_init__(self) -> None:
        check_number(self, "factor")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with charges scaled."""
        need_column(events, self.kind, CHARGE)
        return with_columns(
            events, {CHARGE: floating(events.columns[CHARGE]) * self.factor}
        )


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Mirror every event in the plane at 0 across one axis.

    Pulses move, also where PMTs look, and `direction` among the truth; other truth
    stays. Ice and efficiency are those of the new place, or of the DOM where there is a
    `sensor_id`: an event mirrored in z has its light from ice that is not there.

    Args:
        axis: `x`, `y` or `z`.

    Raises:
        ValueError: Another axis; on use: no place of the pulses.
    """

    kind: ClassVar[str] = "mirror"
    axis: str

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(
                f"{self.kind}: axis must be one of {', '.join(AXES)}; got {self.axis!r}"
            )

    @property
    def signs(self) -> tuple[float, float, float]:
        """What a vector's components are multiplied by."""
        x, y, z = (-1.0 if axis == self.axis else 1.0 for axis in AXES)
        return x, y, z

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the mirrored events."""
        # A turn by nothing looks the places up where there is only a sensor_id.
        placed = RotateAboutZ(max_angle=0.0)(events, key, detector)
        place = AXES.index(self.axis)
        columns = {
            name: -floating(placed.columns[name])
            for name in (self.axis, _LOOKS[place])
            if name in placed.columns
        }
        truth = dict(events.truth)
        if DIRECTION in truth:
            truth[DIRECTION] = truth[DIRECTION] * torch.tensor(self.signs)
        return replace(with_columns(placed, columns), truth=truth)


@dataclass(frozen=True, kw_only=True)
class SwitchOff:
    """Take all pulses of some DOMs or strings away, others in every event.

    As `DropDoms` and `DropStrings`, but an event of which nothing is left is marked:
    `lost` among the truth. It keeps its pulses, for a batch needs one at least.

    Args:
        unit: `dom` or `string`.
        share: Chance of each to be off, 0 to 1, 1 excluded.

    Raises:
        ValueError: Another unit or share; on use: nothing tells them apart.
    """

    kind: ClassVar[str] = "switch_off"
    unit: str
    share: float

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise ValueError(
                f"{self.kind}: unit must be one of {', '.join(_UNITS)}; got "
                f"{self.unit!r}"
            )
        check_number(self, "share", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer pulses, and `lost` (B,) among their truth."""
        key_T = per_pulse(events, key.of_events(events.event_id.numpy()))
        keep_T = uniform(self._unit_keys(events, key_T, detector)) >= self.share
        start_B = events.offsets.numpy()[:-1]
        lost_B = torch.from_numpy(~np.logical_or.reduceat(keep_T, start_B))
        if LOST in events.truth:
            lost_B |= events.truth[LOST]
        kept = keep_pulses(events, keep_T)
        return replace(kept, truth={**kept.truth, LOST: lost_B})

    def _unit_keys(
        self, events: Events, key_T: NDArray[np.uint64], detector: Detector
    ) -> NDArray[np.uint64]:
        """Return keys (T,), equal for pulses of one event and one DOM or string."""
        if SENSOR_ID in events.columns:
            unit_T = events.columns[SENSOR_ID].long()
            if self.unit == "string":
                unit_T = detector.places.string_S[unit_T]
            return combine(key_T, unit_T.numpy())
        for axis in _UNITS[self.unit]:
            need_column(events, self.kind, axis, instead_of=SENSOR_ID)
            millimetre_T = (events.columns[axis].double() * 1e3).round().long()
            key_T = combine(key_T, millimetre_T.numpy())
        return key_T


def first_times(events: Events, *, hlc: bool = False) -> NDArray[np.float64]:
    """Return when the first pulse of each event came, ns, (B,).

    Args:
        events: The events.
        hlc: Of HLC pulses, in events that have any.

    Raises:
        ValueError: There is no time, or neither hlc nor auxiliary.
    """
    kind = FirstPulseAt.kind
    need_column(events, kind, TIME)
    start_B = events.offsets.numpy()[:-1]
    time_T = events.columns[TIME].double().numpy()
    first_B: NDArray[np.float64] = np.minimum.reduceat(time_T, start_B)
    if not hlc:
        return first_B
    if HLC not in events.columns:
        need_column(events, kind, AUXILIARY, instead_of=HLC)
        is_hlc_T = events.columns[AUXILIARY].numpy() == 0
    else:
        is_hlc_T = events.columns[HLC].numpy() != 0
    hlc_B = np.minimum.reduceat(np.where(is_hlc_T, time_T, np.inf), start_B)
    return np.where(np.isfinite(hlc_B), hlc_B, first_B)
