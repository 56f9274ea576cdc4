"""Augmentations: changes to events, for training and for checks of a model.

Training augmentations keep events realistic. The result depends only on (seed, epoch,
event_id) and on the event's own pulses, so batches and workers do not change it. The
checks (`TimeShift`, `FirstPulseAt`, `ChargeFactor`, `Mirror`, `SwitchOff`) show which
inputs a model depends on. An augmentation acts on all events of a batch at once, on
columns in physical units, before features are made. Its constructor raises ValueError
for an argument out of range; a call raises ValueError if a column is missing.

The order is: selection, augmentations, features. A store reads only pulses that the
selection keeps, so augmentations see no others. `AddNoise` may then lift an event above
`max_pulses`; to keep that limit, apply the same selection again. Pulses are sorted by
time again if times have changed. If only time differences matter
(`PulseMap.is_relative`), the reader moves the pulse from which times count back to its
time before the augmentations.

Shape letters: T pulses, B events, N noise pulses, S DOMs.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
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
from graphnet_icecube2nd.detector.detector import ICECUBE, SWAY, Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry, strings_like
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.events import (
    Events,
    add_pulses,
    clock_zeros,
    floating,
    keep_pulses,
    need_column,
    per_pulse,
    time_order,
    with_columns,
)
from graphnet_icecube2nd.events.features import QE_TOLERANCE
from graphnet_icecube2nd.events.random_numbers import (
    SELECTION_STREAM,
    RandomKey,
    combine,
    normal,
    poisson,
    pulse_keys,
    uniform,
)

DIRECTION, VERTEX = "direction", "vertex"  # labels; a vertex is x, y, z, time, ...
LOST = "lost"  # (B,) bool in the truth: no pulse of the event is left
AXES = (X, Y, Z)
ZERO = (0.0, 0.0, 0.0)  # about which vectors turn that are no places
_UNITS = {"dom": AXES, "string": (X, Y)}  # coordinates that identify one
# Names of azimuths, and of x or y of vectors (position_x, dir_y_pred, vx), but not of
# their widths. Bjorken x is no vector.
_NO_WIDTH = "(?!.*(?:kappa|sigma|err|unc|width))"
_AZIMUTH = re.compile(f"azimuth{_NO_WIDTH}", re.IGNORECASE)
_COMPONENT = re.compile(rf"^((?!bjorken).*(?:_|\bv)|)[xy](?=_|$){_NO_WIDTH}")
# A component of a position, which counts from the zero of the files.
_PLACE = re.compile(r"pos|vert|^x(?=_|$)", re.IGNORECASE)
_NOISE_CHARGE_SIGMA = 0.3  # p.e.
_DISCRIMINATOR = 0.25  # p.e.


class Augmentation(Protocol):
    """Any callable of this form that changes events."""

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the changed events; the given events are not changed.

        Args:
            events: Events to change.
            key: Key of the random numbers.
            detector: Detector of the events, in its coordinates.
        """


@dataclass(frozen=True, kw_only=True)
class TimeJitter:
    """Shift each pulse in time by a normally distributed number.

    Args:
        sigma: Standard deviation of the shift, ns.
    """

    kind: ClassVar[str] = "time_jitter"
    sigma: float

    def __post_init__(self) -> None:
        _check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with shifted pulses, sorted by time."""
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
    """Shift each event in time by a normally distributed number.

    Args:
        sigma: Standard deviation of the shift, ns.
    """

    kind: ClassVar[str] = "time_offset"
    sigma: float

    def __post_init__(self) -> None:
        _check_number(self, "sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the shifted events."""
        shift_B = self.sigma * normal(key.of_events(events.event_id.numpy()))
        return _shifted_events(events, self.kind, shift_B)


@dataclass(frozen=True, kw_only=True)
class ChargeScale:
    """Multiply charges by log-normal factors with median 1.

    Args:
        sigma: Width of the natural logarithm of the factor that all pulses of an event
            share; 0.1 is about 10%.
        pulse_sigma: Width of a further factor for each pulse; default: none.
    """

    kind: ClassVar[str] = "charge_scale"
    sigma: float
    pulse_sigma: float = 0.0

    def __post_init__(self) -> None:
        _check_number(self, "sigma")
        _check_number(self, "pulse_sigma")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with scaled charges."""
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
    """Removes all pulses of some strings, DOMs or PMTs."""

    kind: ClassVar[str]
    unit: ClassVar[str]
    probability: float

    def __post_init__(self) -> None:
        _check_number(self, "probability", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        key_T = _unit_keys(events, self.kind, self.unit, key, detector)
        return keep_pulses(events, uniform(key_T) >= self.probability)


class DropDoms(_Drop):
    """Remove all pulses of some DOMs, with other DOMs in every event.

    A DOM is identified by its `sensor_id`, else by its x, y, z; in water, where the
    current moves modules with several PMTs, it is the nearest one of the geometry. An
    event that would lose all pulses is not changed. `n_pulses` decreases with the
    pulses.

    Args:
        probability: Probability to remove a DOM, 0 to 1, 1 excluded.
    """

    kind, unit = "drop_doms", "dom"


class DropStrings(_Drop):
    """Remove all pulses of some strings, with other strings in every event.

    `sensor_id` gives the string of the geometry; without it a string is the DOMs with
    the same x, y. An event that would lose all pulses is not changed. `n_pulses`
    decreases with the pulses.

    Args:
        probability: Probability to remove a string, 0 to 1, 1 excluded.
    """

    kind, unit = "drop_strings", "string"


class DropPmts(_Drop):
    """Remove all pulses of some PMTs, with other PMTs in every event.

    A PMT is identified by its DOM, as in `DropDoms`, and by its direction, so the
    detector must have one. An event that would lose all pulses is not changed.
    `n_pulses` decreases with the pulses.

    Args:
        probability: Probability to remove a PMT, 0 to 1, 1 excluded.
    """

    kind, unit = "drop_pmts", "pmt"


@dataclass(frozen=True, kw_only=True)
class MaskTo:
    """Keep only the pulses on some strings, such as those of a smaller detector.

    An event without a pulse on them keeps all pulses, because a batch needs some, but
    loses its labels: it is not trained on. `n_pulses` decreases with the pulses. The
    strings are those of the detector's geometry. All pulses of an event are read, and
    the selection cuts what is left.

    Args:
        detector: Name of the detector whose strings are kept, by their positions (see
            `geometry.strings_like`).
        strings: Numbers of the strings, instead of `detector`.
        within: Maximum distance of a string from that of `detector`, m.
    """

    kind: ClassVar[str] = "mask_to"
    needs_all_pulses: ClassVar[bool] = True
    detector: str = ""
    strings: tuple[int, ...] = ()
    within: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strings", tuple(self.strings))  # YAML has lists
        _check_number(self, "within", least=None, above=0.0)
        if bool(self.detector) == bool(self.strings):
            raise ValueError(
                f"{self.kind} needs either `detector`, a name, or `strings`, numbers; "
                f"got detector={self.detector!r}, strings={list(self.strings)}"
            )
        if self.detector:
            build_detector(self.detector)  # raises if there is none

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer pulses, and without labels if none is left."""
        keep_T = self.keeps(events.columns, detector)
        lost_B = ~np.logical_or.reduceat(keep_T, events.offsets.numpy()[:-1])
        kept = keep_pulses(events, keep_T)
        if not lost_B.any():
            return kept
        lost = torch.from_numpy(lost_B)
        truth = {
            name: torch.where(lost.view(-1, *[1] * (value.ndim - 1)), torch.nan, value)
            if value.is_floating_point()
            else value
            for name, value in kept.truth.items()
        }
        return replace(kept, truth=truth)

    def keeps(
        self, columns: Mapping[str, Tensor], detector: Detector
    ) -> NDArray[np.bool_]:
        """Return which pulses, columns (T,) by quantity, are on the strings, (T,)."""
        geometry = need_modules(self.kind, columns, detector)
        string_S = torch.isin(geometry.string_S, torch.tensor(self.numbers(detector)))
        dom_T = modules_of(self.kind, columns, detector)
        keep_T: NDArray[np.bool_] = string_S[dom_T].numpy()
        return keep_T

    def numbers(self, detector: Detector) -> list[int]:
        """Return the numbers of the kept strings of a detector."""
        geometry = detector.modules_or_icecube86
        if not self.strings:
            return _strings_like(geometry, self.detector, self.within)
        known = set(geometry.string_S.tolist())
        if unknown := [number for number in self.strings if number not in known]:
            raise ValueError(
                f"{self.kind}: {detector.name} has no string {unknown[0]}; it has "
                f"{min(known)} to {max(known)}"
            )
        return list(self.strings)


@lru_cache(maxsize=16)
def _strings_like(geometry: DetectorGeometry, name: str, within: float) -> list[int]:
    other = build_detector(name).modules
    if other is None:
        raise ValueError(f"{MaskTo.kind}: the modules of {name} are not known")
    return strings_like(geometry, other, within)


@dataclass(frozen=True, kw_only=True)
class AddNoise:
    """Add pulses of uncorrelated noise.

    Their number is Poisson distributed. Its mean is the sum of all DOMs' rates times
    the time from the event's first pulse to its last; an event that the selection has
    cut gets the share that the selection would have kept. Times are uniform in that
    range. The rate of a DOM is proportional to its relative efficiency. Noise pulses
    are auxiliary. `n_pulses` increases with the pulses, and the event may get longer
    than `max_pulses`.

    The model is simplified. In IceCube more than half of the noise comes in bursts of
    one DOM, and its charge spectrum has an exponential part besides the normal one.
    Here charges are normal, 1 +- 0.3 p.e., with a minimum of 0.25, the discriminator.

    Args:
        rate_per_dom: Rate [Hz] of a DOM with relative efficiency 1. The default is the
            average hit rate in the ice: 560 Hz, and 780 Hz for high-efficiency DOMs, of
            which 230 to 250 Hz are uncorrelated (M. G. Aartsen et al., "The IceCube
            Neutrino Observatory: Instrumentation and Online Systems", JINST 12 P03012
            (2017), arXiv:1612.05093, section "Dark Noise"). It suits a simulation
            without noise. Events with noise of their own, as IceCube's and the
            competition's, need a small part of it.
        margin: Extension of the time range at either end, ns; default: none.
    """

    kind: ClassVar[str] = "add_noise"
    rate_per_dom: float = 560.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_number(self, "rate_per_dom")
        _check_number(self, "margin")

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with noise, sorted by time."""
        need_column(events, self.kind, TIME)
        offsets, key_B = events.offsets.numpy(), key.of_events(events.event_id.numpy())
        time_T = events.columns[TIME].double().numpy()
        first_B = np.minimum.reduceat(time_T, offsets[:-1]) - self.margin
        range_B = np.maximum.reduceat(time_T, offsets[:-1]) + self.margin - first_B
        geometry = detector.modules_or_icecube86
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
                f"{self.kind} has no values for column {', '.join(unknown)}, only for "
                f"{', '.join(noise)}: leave the augmentation or the column out"
            )
        return add_pulses(events, noise, num_B)


@dataclass(frozen=True, kw_only=True)
class RotateAboutZ:
    """Rotate every event about the z axis, its pulses and its true direction alike.

    IceCube is not symmetric: a rotated event lies between the strings, and the model
    learns from DOMs that do not exist. Small angles do less harm. The full rotation
    uses the symmetry of physics (except tilt and anisotropy of the ice) but breaks
    that of the detector.

    The rotation acts on x, y, z. If there is only a `sensor_id`, positions are looked
    up first, and so are efficiencies that no column gives, because no DOM is at a
    rotated position. The detector's `vectors`, such as PMT directions, rotate too.

    Args:
        max_angle: Maximum angle, rad; angles are uniform between plus and minus this.
            Default: pi.
        azimuths: Further truth columns that are azimuths. Columns with `azimuth` in
            their names rotate, and so do x and y of vectors (`jmuon_position_x`,
            `jmuon_position_y`) and the labels `direction` and `vertex`. Other truth
            does not change.
    """

    kind: ClassVar[str] = "rotate_about_z"
    max_angle: float = math.pi
    azimuths: tuple[str, ...] = (
        *("azimuth", "injection_azimuth"),
        *("azimuth_source", "initial_state_azimuth"),
    )

    def __post_init__(self) -> None:
        _check_number(self, "max_angle", up_to=math.pi)
        # YAML files give lists.
        object.__setattr__(self, "azimuths", tuple(self.azimuths))

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the rotated events."""
        number_B = uniform(key.of_events(events.event_id.numpy()))
        angle_B = self.max_angle * (2 * number_B - 1)
        angle_T = per_pulse(events, angle_B)
        columns = _with_places(events, self.kind, detector)
        centre = detector.pulses.origin
        columns[X], columns[Y] = _turn(columns[X], columns[Y], angle_T, centre)
        for x, y, _ in detector.vectors:
            if x in columns and y in columns:
                columns[x], columns[y] = _turn(columns[x], columns[y], angle_T)
        truth = dict(events.truth)
        for name in {DIRECTION, VERTEX} & truth.keys():
            x_B, y_B, *others = truth[name].unbind(-1)
            about = centre if name == VERTEX else ZERO
            truth[name] = torch.stack([*_turn(x_B, y_B, angle_B, about), *others], -1)
        for x, y in _horizontal_pairs(truth, self.kind):
            about = centre if _PLACE.search(x) else ZERO
            truth[x], truth[y] = _turn(truth[x], truth[y], angle_B, about)
        for name in truth.keys() & {*self.azimuths, *filter(_AZIMUTH.search, truth)}:
            azimuth_B = truth[name] + torch.from_numpy(angle_B).to(truth[name].dtype)
            truth[name] = wrap_azimuth(azimuth_B)  # NaN (no label) stays NaN
        return replace(events, columns=columns, truth=truth)


def _horizontal_pairs(truth: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    """Return columns of the truth that are x and y of vectors.

    Raises:
        ValueError: One of the two is missing, so that the other cannot rotate.
    """
    pairs = []
    for name in filter(_COMPONENT.search, truth):
        x, y = (_COMPONENT.sub(rf"\1{axis}", name) for axis in "xy")
        if {x, y} <= truth.keys():
            pairs.append((x, y))
        else:
            raise ValueError(
                f"{kind} needs {x} and {y} in the truth, found only {name}: read both, "
                "or leave it out"
            )
    return list(dict.fromkeys(pairs))


@dataclass(frozen=True, kw_only=True)
class TimeShift:
    """Shift all events in time by the same amount; a check.

    Args:
        shift: Shift in time, ns, of either sign.
    """

    kind: ClassVar[str] = "time_shift"
    shift: float

    def __post_init__(self) -> None:
        _check_number(self, "shift", least=None)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the shifted events."""
        shift_B = np.full(len(events.event_id), self.shift)
        return _shifted_events(events, self.kind, shift_B)


@dataclass(frozen=True, kw_only=True)
class FirstPulseAt:
    """Shift every event so that its first pulse is at a given time; a check.

    This removes the information in the event's position within its readout window: a
    window that opens a fixed time before the interaction reveals the interaction time.

    Args:
        time: New time of the first pulse, ns.
        hlc: Whether the first HLC pulse is used, which is rarely noise. An event
            without HLC pulses uses its first pulse.
    """

    kind: ClassVar[str] = "first_pulse_at"
    time: float
    hlc: bool = False

    def __post_init__(self) -> None:
        _check_number(self, "time", least=None)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the shifted events."""
        shift_B = self.time - first_times(events, hlc=self.hlc)
        return _shifted_events(events, self.kind, shift_B)


@dataclass(frozen=True, kw_only=True)
class ChargeFactor:
    """Multiply all charges by the same factor; a check.

    Args:
        factor: Factor on the charges, above 0.
    """

    kind: ClassVar[str] = "charge_factor"
    factor: float

    def __post_init__(self) -> None:
        _check_number(self, "factor", least=None, above=0.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with scaled charges."""
        need_column(events, self.kind, CHARGE)
        charge_T = floating(events.columns[CHARGE])
        return with_columns(events, {CHARGE: charge_T * self.factor})


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Mirror every event in the plane at 0 across one axis; a check.

    Pulses, the detector's `vectors` (directions of PMTs) and the labels `direction`
    and `vertex` are mirrored; other truth does not change. Ice and efficiency are those
    of the new position, or of the DOM if there is a `sensor_id`: an event mirrored in z
    then has light from ice that is not there.

    Args:
        axis: Axis across which to mirror: `x`, `y` or `z`.
    """

    kind: ClassVar[str] = "mirror"
    axis: str

    def __post_init__(self) -> None:
        check_one_of(f"{self.kind}: axis", self.axis, AXES)

    @property
    def signs(self) -> tuple[float, float, float]:
        """Factors on the components of a vector."""
        x, y, z = (-1.0 if axis == self.axis else 1.0 for axis in AXES)
        return x, y, z

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the mirrored events."""
        # A rotation by 0 looks up positions if there is only a sensor_id.
        placed = RotateAboutZ(max_angle=0.0)(events, key, detector)
        columns = {
            name: -floating(placed.columns[name])
            for name in [v[AXES.index(self.axis)] for v in (AXES, *detector.vectors)]
            if name in placed.columns
        }
        truth = dict(events.truth)
        for name in {DIRECTION, VERTEX} & truth.keys():
            signs = torch.ones(truth[name].shape[-1])
            signs[:3] = torch.tensor(self.signs)
            truth[name] = truth[name] * signs
        return replace(with_columns(placed, columns), truth=truth)


@dataclass(frozen=True, kw_only=True)
class SwitchOff:
    """Remove all pulses of some DOMs or strings, others in every event; a check.

    It works as `DropDoms` and `DropStrings`, but an event that would lose all pulses is
    marked as `lost` in the truth. It keeps its pulses, because a batch needs them.

    Args:
        unit: Unit to switch off: `dom` or `string`.
        share: Probability to switch one off, 0 to 1, 1 excluded.
    """

    kind: ClassVar[str] = "switch_off"
    unit: str
    share: float

    def __post_init__(self) -> None:
        check_one_of(f"{self.kind}: unit", self.unit, _UNITS)
        _check_number(self, "share", below=1.0)

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the events with fewer pulses, and `lost` (B,) in their truth."""
        key_T = _unit_keys(events, self.kind, self.unit, key, detector, to_mm=True)
        keep_T = uniform(key_T) >= self.share
        start_B = events.offsets.numpy()[:-1]
        lost_B = torch.from_numpy(~np.logical_or.reduceat(keep_T, start_B))
        if LOST in events.truth:
            lost_B |= events.truth[LOST]
        kept = keep_pulses(events, keep_T)
        return replace(kept, truth={**kept.truth, LOST: lost_B})


# They use no positions, except as names of DOMs or from the detector's centre, which
# may be anywhere.
PLACELESS = (
    *(TimeJitter, TimeOffset, TimeShift, FirstPulseAt, ChargeScale, ChargeFactor),
    *(DropDoms, DropStrings, DropPmts, MaskTo, SwitchOff, RotateAboutZ),
)

# Training augmentations, which recipes can name.
_KINDS: dict[str, Any] = {
    augmentation.kind: augmentation
    for augmentation in (
        *(TimeJitter, TimeOffset, ChargeScale),
        *(DropDoms, DropStrings, DropPmts, MaskTo, AddNoise, RotateAboutZ),
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
    """Apply augmentations in order and return the events.

    The random numbers depend on an augmentation's position in the list, so one may
    occur twice. A new epoch changes the same event differently.
    """
    check_order(augmentations)
    for place, augmentation in enumerate(augmentations):
        key = RandomKey(seed=seed, epoch=epoch, stream=SELECTION_STREAM + 1 + place)
        events = augmentation(events, key, detector)
    return events


def check_order(augmentations: Sequence[Augmentation]) -> None:
    """Raise ValueError if noise is added, at unrotated DOMs, after a rotation."""
    turned = False
    for augmentation in augmentations:
        if turned and isinstance(augmentation, AddNoise):
            raise ValueError(
                f"{AddNoise.kind} must come before {RotateAboutZ.kind}, because its "
                "pulses are at DOMs that have not been rotated: change the order"
            )
        turned |= isinstance(augmentation, RotateAboutZ)


def augmentation_to_dict(augmentation: Augmentation) -> dict[str, Any]:
    """Return `kind` and arguments as plain values for YAML and JSON."""
    for kind, known in _KINDS.items():
        if isinstance(augmentation, known):
            return {"kind": kind, **to_plain(augmentation)}
    raise ValueError(
        f"only {', '.join(_KINDS)} can be stored as plain values, not "
        f"{type(augmentation).__name__}"
    )


def augmentation_from_dict(values: Mapping[str, Any]) -> Augmentation:
    """Rebuild an augmentation from `augmentation_to_dict`; defaults may be left out."""
    arguments = dict(values)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"no augmentation {kind!r}; kind must be one of {', '.join(_KINDS)}"
        )
    known = fields(_KINDS[kind])
    names = [field.name for field in known]
    if unknown := sorted(set(arguments) - set(names)):
        raise ValueError(
            f"{kind} has no argument {', '.join(map(str, unknown))}; known are "
            f"{', '.join(names)}"
        )
    needed = [field.name for field in known if field.default is MISSING]
    if missing := [name for name in needed if name not in arguments]:
        raise ValueError(f"{kind} needs {', '.join(missing)}")
    augmentation: Augmentation = _KINDS[kind](**arguments)
    return augmentation


def first_times(events: Events, *, hlc: bool = False) -> NDArray[np.float64]:
    """Return the time [ns] of each event's first (HLC) pulse, (B,)."""
    kind = FirstPulseAt.kind
    need_column(events, kind, TIME)
    if hlc and HLC not in events.columns:
        need_column(events, kind, AUXILIARY, instead_of=HLC)
    clock = "first_triggered" if hlc else "first_pulse"
    first_B, _ = clock_zeros(events.columns, events.offsets.numpy(), clock)
    return first_B.astype(np.float64)


def _check_number(
    augmentation: Any,
    name: str,
    *,
    least: float | None = 0.0,
    above: float | None = None,
    up_to: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError if an argument is not a finite number within its limits."""
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
    """Return the events with times increased by `shift` [ns], () or (T,)."""
    need_column(events, kind, TIME)
    time_T = floating(events.columns[TIME])
    moved_T = time_T + torch.from_numpy(np.asarray(shift)).to(time_T.dtype)
    return with_columns(events, {TIME: moved_T})


def _shifted_events(events: Events, kind: str, shift_B: NDArray[np.float64]) -> Events:
    """Return the events with times, also of vertices, increased by `shift_B` [ns]."""
    moved = _shifted(events, kind, per_pulse(events, shift_B))
    truth = moved_truth(events.truth, time_B=torch.from_numpy(shift_B))
    return replace(moved, truth=truth)


def moved_truth(truth: Mapping[str, Tensor], time_B: Tensor) -> dict[str, Tensor]:
    """Return the truth of events whose times have increased by `time_B` [ns]."""
    moved = dict(truth)
    if VERTEX in moved:
        shift_B5 = torch.zeros_like(moved[VERTEX])
        shift_B5[:, 3] = time_B
        moved[VERTEX] = moved[VERTEX] + shift_B5
    return moved


def _unit_keys(
    events: Events,
    kind: str,
    unit: str,
    key: RandomKey,
    detector: Detector,
    *,
    to_mm: bool = False,
) -> NDArray[np.uint64]:
    """Return keys (T,) that are equal for pulses of one event and one unit.

    A unit is a `string`, a `dom` or a `pmt`. Without `sensor_id` the position
    identifies DOMs, exactly or to the millimetre, unless they move.
    """
    key_T = per_pulse(events, key.of_events(events.event_id.numpy()))
    if unit == "pmt":
        for name in _pmt_direction(events, kind, detector):
            number_T = (events.columns[name].double() * 1e3).round().long()
            key_T = combine(key_T, number_T.numpy())
    moves = bool(detector.vectors) and detector.medium != "ice"
    if SENSOR_ID in events.columns or (moves and detector.modules is not None):
        unit_T = modules_of(kind, events.columns, detector)
        if unit == "string":
            unit_T = detector.modules_or_icecube86.string_S[unit_T]
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


def _pmt_direction(events: Events, kind: str, detector: Detector) -> Sequence[str]:
    """Return the columns of the direction of PMTs; ValueError if there are none."""
    for vector in detector.vectors:
        if set(vector) <= events.columns.keys():
            return vector
    raise ValueError(
        f"{kind} needs the directions of PMTs, which detector {detector.name!r} does "
        f"not have; the events have {', '.join(events.columns)}"
    )


def need_modules(
    kind: str, columns: Mapping[str, Tensor], detector: Detector
) -> DetectorGeometry:
    """Return the modules on which pulses are; ValueError if they are not known."""
    is_icecube = detector.telescope == ICECUBE or SENSOR_ID in columns
    if detector.modules is None and not is_icecube:
        raise ValueError(
            f"{kind} needs the modules of detector {detector.name!r}, which are not "
            "known: prepare the store with --detector or --geometry"
        )
    return detector.modules_or_icecube86


def modules_of(kind: str, columns: Mapping[str, Tensor], detector: Detector) -> Tensor:
    """Return the row in the geometry of the module of each pulse, (T,).

    It is the `sensor_id`, or else the module nearest to x, y, z. Raises ValueError if
    there is none nearby.
    """
    if SENSOR_ID in columns:
        return columns[SENSOR_ID].long()
    geometry = need_modules(kind, columns, detector)
    place_T3 = torch.stack([columns[axis].double() for axis in AXES], 1)
    place_T3 = place_T3 - torch.tensor(detector.pulses.origin)
    reach = SWAY if detector.medium != "ice" else QE_TOLERANCE
    dom_T = geometry.nearest_dom(place_T3, reach)
    if len(far := (dom_T < 0).nonzero()):
        place = ", ".join(f"{value:.1f}" for value in place_T3[far[0, 0]].tolist())
        raise ValueError(
            f"{kind}: pulses must be within {reach:g} m of a module of "
            f"{detector.name!r}, found one at {place} m from its centre "
            f"({len(far):,} of {len(dom_T):,} are further away): prepare the store "
            "with the geometry of its events"
        )
    return dom_T


def _with_places(events: Events, kind: str, detector: Detector) -> dict[str, Tensor]:
    """Return the columns with x, y, z and an efficiency."""
    columns, geometry = dict(events.columns), detector.modules_or_icecube86
    origin_3 = torch.tensor(detector.pulses.origin, dtype=torch.float64)
    if not set(AXES) <= columns.keys():
        need_column(events, kind, SENSOR_ID, instead_of="x, y, z")
        position_T3 = geometry.lookup(columns[SENSOR_ID].long()) + origin_3
        columns.update(zip(AXES, position_T3.float().unbind(1), strict=True))
    elif not {SENSOR_ID, RDE} & columns.keys():
        position_T3 = torch.stack([columns[axis].double() for axis in AXES], 1)
        dom_T = geometry.nearest_dom(position_T3 - origin_3)
        rde_T = geometry.rde_S[dom_T.clamp(min=0)].where(dom_T >= 0, 1.0)
        columns[RDE] = rde_T.float()
    return columns


def _turn(
    x: Tensor,
    y: Tensor,
    angle: NDArray[np.float64],
    centre: Sequence[float] = ZERO,
) -> tuple[Tensor, Tensor]:
    """Rotate vectors from x towards y about a centre; all (T,), or (B,) for events."""
    x, y = floating(x) - centre[0], floating(y) - centre[1]
    cosine, sine = torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle))
    turned = (x * cosine - y * sine).to(x.dtype), (x * sine + y * cosine).to(y.dtype)
    return turned[0] + centre[0], turned[1] + centre[1]
