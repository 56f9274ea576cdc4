"""Augmentations: changes to events, for training and for checks of a model.

Those for training leave an event likely. What an event becomes depends on (seed, epoch,
event_id) and its own pulses alone, so neither batches nor workers change it. The checks
(`TimeShift`, `FirstPulseAt`, `ChargeFactor`, `Mirror`, `SwitchOff`) ask what a model
leans on. Each acts on all events of a batch at once, on columns in physical units,
before features are made of them. It raises ValueError for an argument out of its range
when it is made, and for a column that it needs and events lack when it is used.

The order is: selection, then augmentations, then features. A store reads only the
pulses that selection keeps, so augmentations see no others. `AddNoise` may then lift an
event over `max_pulses`; who needs that bound cuts such an event again, with the same
selection. Pulses come out in the order of time where times have changed. Where only
time differences count (`time_reference="first_pulse"`), the reader puts the
first pulse at hand back to where it was before the augmentations.

Shape letters: T pulses, B events, N noise pulses, S DOMs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from graphnet_icecube2nd.config import to_plain
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
    wrap_azimuth,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.events import (
    Events,
    add_pulses,
    floating,
    keep_pulses,
    need_column,
    per_pulse,
    time_order,
    with_columns,
)
from graphnet_icecube2nd.events.random_numbers import (
    SELECTION_STREAM,
    RandomKey,
    combine,
    normal,
    poisson,
    pulse_keys,
    uniform,
)

DIRECTION = "direction"
LOST = "lost"  # (B,) bool among the truth: nothing is left of the event
AXES = (X, Y, Z)
_UNITS = {"dom": AXES, "string": (X, Y)}  # coordinates that tell one from another
_NOISE_CHARGE_SIGMA = 0.3  # p.e.
_DISCRIMINATOR = 0.25  # p.e.


class Augmentation(Protocol):
    """Something that changes events; your own may be any callable of this form."""

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the changed events; those given are left as they are.

        Args:
            events: The events.
            key: What random numbers are drawn from.
            detector: Whose events they are, in its coordinates.
        """


@dataclass(frozen=True, kw_only=True)
class TimeJitter:
    """Move every pulse in time on its own, by a normal number.

    Args:
        sigma: ns.
    """

    kind: ClassVar[str] = "time_jitter"
    sigma: float

    def __post_init__(self) -> None:
        _check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with pulses moved, in the order of time."""
        offsets, key_B = events.offsets.numpy(), key.of_events(events.event_id.numpy())
        shift_T = self.sigma * normal(pulse_keys(key_B, offsets))
        moved = _shifted(events, self.kind, shift_T)
        event_T = np.repeat(np.arange(len(key_B)), np.diff(offsets))
        order = time_order(moved.columns[TIME], event_T)
        return with_columns(
            moved, {name: value[order] for name, value in moved.columns.items()}
        )


@dataclass(frozen=True, kw_only=True)
class TimeOffset:
    """Move every event in time as a whole, by a normal number.

    Args:
        sigma: ns.
    """

    kind: ClassVar[str] = "time_offset"
    sigma: float

    def __post_init__(self) -> None:
        _check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each moved."""
        shift_B = self.sigma * normal(key.of_events(events.event_id.numpy()))
        return _shifted(events, self.kind, per_pulse(events, shift_B))


@dataclass(frozen=True, kw_only=True)
class ChargeScale:
    """Multiply charges by log-normal factors of median 1.

    Args:
        sigma: Width of the natural logarithm of the factor that an event's pulses
            share; 0.1 is about 10%.
        pulse_sigma: The same for a further factor of each pulse; default none.
    """

    kind: ClassVar[str] = "charge_scale"
    sigma: float
    pulse_sigma: float = 0.0

    def __post_init__(self) -> None:
        _check_number(self, "sigma")
        _check_number(self, "pulse_sigma")

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
class _Drop:
    """Takes all pulses of some DOMs or strings away."""

    kind: ClassVar[str]
    unit: ClassVar[str]
    probability: float

    def __post_init__(self) -> None:
        _check_number(self, "probability", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        key_T = _unit_keys(events, self.kind, self.unit, key, detector)
        return keep_pulses(events, uniform(key_T) >= self.probability)


class DropDoms(_Drop):
    """Take all pulses of some DOMs away, other DOMs in every event.

    A DOM is known by its `sensor_id`, else by its x, y, z. An event of which nothing
    would be left stays as it was. `n_pulses` goes down with the pulses.

    Args:
        probability: Chance of each DOM, 0 to 1, 1 excluded.
    """

    kind, unit = "drop_doms", "dom"


class DropStrings(_Drop):
    """Take all pulses of some strings away, other strings in every event.

    A string is the geometry's, by `sensor_id`; else the DOMs of one x, y. An event of
    which nothing would be left stays as it was. `n_pulses` goes down with the pulses.

    Args:
        probability: Chance of each string, 0 to 1, 1 excluded.
    """

    kind, unit = "drop_strings", "string"


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
    """

    kind: ClassVar[str] = "add_noise"
    rate_per_dom: float = 560.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_number(self, "rate_per_dom")
        _check_number(self, "margin")

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
        noise = {
            **dict(zip(AXES, geometry.position_S3.numpy()[dom_N].T, strict=True)),
            TIME: time_N,
            CHARGE: charge_N.clip(min=_DISCRIMINATOR),
            AUXILIARY: np.ones(len(dom_N)),
            HLC: np.zeros(len(dom_N)),
            RDE: geometry.rde_S.numpy()[dom_N],
            SENSOR_ID: dom_N,
        }
        if unknown := sorted(set(events.columns) - set(noise)):
            raise ValueError(
                f"{self.kind} has no values for column {', '.join(unknown)}; it has "
                f"them for {', '.join(noise)}"
            )
        return add_pulses(events, noise, num_B)


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
    """

    kind: ClassVar[str] = "rotate_about_z"
    max_angle: float = math.pi
    azimuths: tuple[str, ...] = (
        *("azimuth", "injection_azimuth"),
        *("azimuth_source", "initial_state_azimuth"),
    )

    def __post_init__(self) -> None:
        _check_number(self, "max_angle", up_to=math.pi)
        # A YAML file brings a list.
        object.__setattr__(self, "azimuths", tuple(self.azimuths))

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each turned."""
        number_B = uniform(key.of_events(events.event_id.numpy()))
        angle_B = self.max_angle * (2 * number_B - 1)
        angle_T = per_pulse(events, angle_B)
        columns = _with_places(events, self.kind, detector)
        for x, y, _ in (AXES, *detector.vectors):
            if x in columns and y in columns:
                columns[x], columns[y] = _turn(columns[x], columns[y], angle_T)
        truth = dict(events.truth)
        if DIRECTION in truth:
            x_B, y_B, z_B = truth[DIRECTION].unbind(-1)
            turned = (*_turn(x_B, y_B, angle_B), z_B)
            truth[DIRECTION] = torch.stack(turned, -1)
        for name in set(self.azimuths) & truth.keys():
            azimuth_B = truth[name] + torch.from_numpy(angle_B).to(truth[name].dtype)
            truth[name] = wrap_azimuth(azimuth_B)  # NaN, no label, stays
        return replace(events, columns=columns, truth=truth)


@dataclass(frozen=True, kw_only=True)
class TimeShift:
    """Move all events in time by one and the same amount; a check.

    Args:
        shift: ns, of either sign.
    """

    kind: ClassVar[str] = "time_shift"
    shift: float

    def __post_init__(self) -> None:
        _check_number(self, "shift", least=None)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, later by `shift`."""
        return _shifted(events, self.kind, self.shift)


@dataclass(frozen=True, kw_only=True)
class FirstPulseAt:
    """Move every event so that its first pulse at hand comes at one time; a check.

    Takes away what the place of an event in its readout window tells: a window that
    opens a fixed time before the interaction gives the time of the interaction away.

    Args:
        time: ns, where the first pulse comes to be.
        hlc: Take the first HLC pulse, which is seldom noise; of an event without any
            the first of all.
    """

    kind: ClassVar[str] = "first_pulse_at"
    time: float
    hlc: bool = False

    def __post_init__(self) -> None:
        _check_number(self, "time", least=None)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events, each moved."""
        shift_B = self.time - first_times(events, hlc=self.hlc)
        return _shifted(events, self.kind, per_pulse(events, shift_B))


@dataclass(frozen=True, kw_only=True)
class ChargeFactor:
    """Multiply all charges by one factor; a check.

    Args:
        factor: Above 0.
    """

    kind: ClassVar[str] = "charge_factor"
    factor: float

    def __post_init__(self) -> None:
        _check_number(self, "factor", least=None, above=0.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with charges scaled."""
        need_column(events, self.kind, CHARGE)
        charge_T = floating(events.columns[CHARGE])
        return with_columns(events, {CHARGE: charge_T * self.factor})


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Mirror every event in the plane at 0 across one axis; a check.

    Pulses move, the detector's `vectors` (where PMTs look) with them, and `direction`
    among the truth; other truth stays. Ice and efficiency are those of the new place,
    or of the DOM where there is a `sensor_id`: an event mirrored in z has its light
    from ice that is not there.

    Args:
        axis: `x`, `y` or `z`.
    """

    kind: ClassVar[str] = "mirror"
    axis: str

    def __post_init__(self) -> None:
        check_one_of(f"{self.kind}: axis", self.axis, AXES)

    @property
    def signs(self) -> tuple[float, float, float]:
        """What a vector's components are multiplied by."""
        x, y, z = (-1.0 if axis == self.axis else 1.0 for axis in AXES)
        return x, y, z

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the mirrored events."""
        # A turn by nothing looks the places up where there is only a sensor_id.
        placed = RotateAboutZ(max_angle=0.0)(events, key, detector)
        columns = {
            name: -floating(placed.columns[name])
            for name in [v[AXES.index(self.axis)] for v in (AXES, *detector.vectors)]
            if name in placed.columns
        }
        truth = dict(events.truth)
        if DIRECTION in truth:
            truth[DIRECTION] = truth[DIRECTION] * torch.tensor(self.signs)
        return replace(with_columns(placed, columns), truth=truth)


@dataclass(frozen=True, kw_only=True)
class SwitchOff:
    """Take all pulses of some DOMs or strings away, others in every event; a check.

    As `DropDoms` and `DropStrings`, but an event of which nothing is left is marked:
    `lost` among the truth. It keeps its pulses, for a batch needs one at least.

    Args:
        unit: `dom` or `string`.
        share: Chance of each to be off, 0 to 1, 1 excluded.
    """

    kind: ClassVar[str] = "switch_off"
    unit: str
    share: float

    def __post_init__(self) -> None:
        check_one_of(f"{self.kind}: unit", self.unit, _UNITS)
        _check_number(self, "share", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer pulses, and `lost` (B,) among their truth."""
        key_T = _unit_keys(events, self.kind, self.unit, key, detector, to_mm=True)
        keep_T = uniform(key_T) >= self.share
        start_B = events.offsets.numpy()[:-1]
        lost_B = torch.from_numpy(~np.logical_or.reduceat(keep_T, start_B))
        if LOST in events.truth:
            lost_B |= events.truth[LOST]
        kept = keep_pulses(events, keep_T)
        return replace(kept, truth={**kept.truth, LOST: lost_B})


# Those for training, which recipes can name.
_KINDS: dict[str, Any] = {
    augmentation.kind: augmentation
    for augmentation in (
        *(TimeJitter, TimeOffset, ChargeScale),
        *(DropDoms, DropStrings, AddNoise, RotateAboutZ),
    )
}


def apply_augmentations(
    events: Events,
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int = 0,
    detector: Detector,
) -> Events:
    """Return the events after all augmentations, one after the other.

    An augmentation draws its numbers by its place in the list, so that one may stand
    there twice. A new epoch changes the same event in another way.
    """
    check_order(augmentations)
    for place, augmentation in enumerate(augmentations):
        key = RandomKey(seed=seed, epoch=epoch, stream=SELECTION_STREAM + 1 + place)
        events = augmentation(events, key, detector)
    return events


def check_order(augmentations: Sequence[Augmentation]) -> None:
    """Raise ValueError if noise comes after a turn, at DOMs that have not turned."""
    turned = False
    for augmentation in augmentations:
        if turned and isinstance(augmentation, AddNoise):
            raise ValueError(
                f"{AddNoise.kind} must come before {RotateAboutZ.kind}: its pulses are "
                "at DOMs that have not been turned"
            )
        turned |= isinstance(augmentation, RotateAboutZ)


def augmentation_to_dict(augmentation: Augmentation) -> dict[str, Any]:
    """Return plain values that YAML and JSON can hold: `kind` and its arguments."""
    for kind, known in _KINDS.items():
        if isinstance(augmentation, known):
            return {"kind": kind, **to_plain(augmentation)}
    raise ValueError(
        f"only {', '.join(_KINDS)} can be written down, not "
        f"{type(augmentation).__name__}"
    )


def augmentation_from_dict(values: Mapping[str, Any]) -> Augmentation:
    """Rebuild what `augmentation_to_dict` gave; what has a default may be left out."""
    arguments = dict(values)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"no augmentation {kind!r}; kind is one of {', '.join(_KINDS)}"
        )
    known = fields(_KINDS[kind])
    names = [field.name for field in known]
    if unknown := sorted(set(arguments) - set(names)):
        raise ValueError(
            f"{kind} has no {', '.join(map(str, unknown))}; it has {', '.join(names)}"
        )
    needed = [field.name for field in known if field.default is MISSING]
    if missing := [name for name in needed if name not in arguments]:
        raise ValueError(f"{kind} needs {', '.join(missing)}")
    augmentation: Augmentation = _KINDS[kind](**arguments)
    return augmentation


def first_times(events: Events, *, hlc: bool = False) -> NDArray[np.float64]:
    """Return when each event's first pulse came, ns, (B,); its first HLC, if any."""
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


def _check_number(
    augmentation: Any,
    name: str,
    *,
    least: float | None = 0.0,
    above: float | None = None,
    up_to: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError if an argument is no finite number within its bounds."""
    value = getattr(augmentation, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    bounds = [
        (words, bound, holds)
        for words, bound, holds in (
            (" from", least, operator.ge),
            (" above", above, operator.gt),
            (", up to", up_to, operator.le),
            (", below", below, operator.lt),
        )
        if bound is not None
    ]
    is_number = is_number and math.isfinite(value)
    if is_number and all(holds(value, bound) for _, bound, holds in bounds):
        return
    limit = "".join(f"{words} {bound:g}" for words, bound, _ in bounds)
    raise ValueError(
        f"{augmentation.kind}: {name} must be a finite number{limit}; got {value!r}"
    )


def _shifted(events: Events, kind: str, shift: ArrayLike) -> Events:
    """Return the events with times later by shift, ns, () or (T,)."""
    need_column(events, kind, TIME)
    time_T = floating(events.columns[TIME])
    moved_T = time_T + torch.from_numpy(np.asarray(shift)).to(time_T.dtype)
    return with_columns(events, {TIME: moved_T})


def _unit_keys(
    events: Events,
    kind: str,
    unit: str,
    key: RandomKey,
    detector: Detector,
    *,
    to_mm: bool = False,
) -> NDArray[np.uint64]:
    """Return keys (T,), equal for pulses of one event and one DOM or string.

    Without `sensor_id`, places tell them apart: bit by bit, or to the millimetre.
    """
    key_T = per_pulse(events, key.of_events(events.event_id.numpy()))
    if SENSOR_ID in events.columns:
        unit_T = events.columns[SENSOR_ID].long()
        if unit == "string":
            unit_T = detector.places.string_S[unit_T]
        return combine(key_T, unit_T.numpy())
    for axis in _UNITS[unit]:
        need_column(events, kind, axis, instead_of=SENSOR_ID)
        place_T = events.columns[axis].double()
        if to_mm:
            number_T = (place_T * 1e3).round().long()
        else:
            number_T = (place_T + 0.0).view(torch.int64)  # -0 becomes 0 first
        key_T = combine(key_T, number_T.numpy())
    return key_T


def _with_places(events: Events, kind: str, detector: Detector) -> dict[str, Tensor]:
    """Return the columns, x, y, z and an efficiency among them."""
    columns, geometry = dict(events.columns), detector.places
    if not set(AXES) <= columns.keys():
        need_column(events, kind, SENSOR_ID, instead_of="x, y, z")
        position_T3 = geometry.lookup(columns[SENSOR_ID].long()).float()
        columns.update(zip(AXES, position_T3.unbind(1), strict=True))
    elif not {SENSOR_ID, RDE} & columns.keys():
        position_T3 = torch.stack([columns[axis].double() for axis in AXES], 1)
        dom_T = geometry.nearest_dom(position_T3)
        rde_T = geometry.rde_S[dom_T.clamp(min=0)].where(dom_T >= 0, 1.0)
        columns[RDE] = rde_T.float()
    return columns


def _turn(x: Tensor, y: Tensor, angle: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Turn vectors from x towards y; all (T,), or (B,) for events."""
    x, y = floating(x), floating(y)
    cosine, sine = torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle))
    return (x * cosine - y * sine).to(x.dtype), (x * sine + y * cosine).to(y.dtype)
