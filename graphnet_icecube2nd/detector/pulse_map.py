"""PulseMap: the meaning, unit and scaling of a file's columns.

A pulse map is a named set of pulses, such as `SplitInIcePulses`; every experiment and
every file names its columns differently. A new detector is a new `PulseMap`, made with
keywords or by changing one of those below. Shape letters: T pulses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.config import from_plain, to_plain
from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    AZIMUTH,
    CHARGE,
    CHARGE_DECADES,
    FEATURE_NAMES,
    HLC,
    POSITION_SCALE,
    RDE,
    SENSOR_ID,
    TIME,
    TIME_OFFSET,
    TIME_SCALE,
    ZENITH,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.geometry import HIGH_QE_RULES
from graphnet_icecube2nd.detector.ice import ICE_PROFILES
from graphnet_icecube2nd.errors import check_one_of

WINDOW = "window"
TIME_REFERENCES = (WINDOW, "first_pulse", "first_triggered")
ANGLE_CONVENTIONS = ("origin", "flight")
NO_ICE = "none"
UNNAMED = "columns"  # name of a pulse map that is only columns of the user
NAMED_PULSE_MAPS = ("kaggle", "icecube86", "upgrade", "prometheus", "km3net")
# Column names of the direction of a PMT.
PMT_DIRECTIONS = (
    ("pmt_dir_x", "pmt_dir_y", "pmt_dir_z"),
    ("dir_x", "dir_y", "dir_z"),
)
# KM3NeT's bit mask of the triggers of a hit: any value but 0 is a trigger.
TRIGGER_MASK = "trig"
TOT = "tot"  # KM3NeT's time over threshold, ns
_QUANTITIES = (X, Y, Z, TIME, CHARGE, AUXILIARY, HLC, RDE, SENSOR_ID)


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """Columns of a truth table that hold the direction, and their convention.

    Args:
        azimuth: Column of the azimuth, rad.
        zenith: Column of the zenith, rad.
        angles: Convention of the angles. `origin`: where the particle came from, as in
            IceCube; `flight`: where it goes.

    Raises:
        ValueError: The convention is unknown.
    """

    azimuth: str = AZIMUTH
    zenith: str = ZENITH
    angles: str = "origin"

    def __post_init__(self) -> None:
        check_one_of("angles", self.angles, ANGLE_CONVENTIONS)


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Units of the features: divisors of positions, times and charges.

    The defaults are those of the published models.

    Args:
        position: Unit of the features x, y, z, in m.
        time: Unit of the feature time, in ns.
        time_offset: Time at which the feature time is 0 in a readout window, ns.
        charge_decades: Decades of charge in one unit of the feature charge.

    Raises:
        ValueError: A scale is not positive and finite.
    """

    position: float = POSITION_SCALE
    time: float = TIME_SCALE
    time_offset: float = TIME_OFFSET
    charge_decades: float = CHARGE_DECADES

    def __post_init__(self) -> None:
        for name in ("position", "time", "charge_decades"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"scales: {name} must be above 0, got {value}")

    @property
    def interval_speed(self) -> float:
        """Speed of light, 0.3 m/ns as in the published code, in units of features."""
        return 0.3 * self.time / self.position


DEFAULT_SCALES = Scales()


@dataclass(frozen=True, kw_only=True)
class PulseMap:
    """The meaning of the columns of a pulse table.

    None as a column name says that the file has no such column. A missing charge counts
    as 1 p.e., a missing hlc and auxiliary as "not auxiliary". Quantum efficiency comes
    from `rde`, else from the DOM of `sensor_id`, else from the DOM within 1 m, else it
    is 0.

    Args:
        name: Name in messages and files.
        x: Column of the DOM position along x, m. Without x, y and z the position comes
            from `sensor_id`.
        y: Column of the DOM position along y, m.
        z: Column of the DOM position along z, m.
        time: Column of the pulse time, ns.
        charge: Column of the charge, p.e., above 0.
        auxiliary: Column of a flag that is True (1) if the pulse is not HLC.
        hlc: Column of the opposite flag; it is inverted on reading.
        rde: Column of the relative DOM efficiency.
        sensor_id: Column of the row in the detector geometry.
        extra: More columns that go to the model under their own names.
        extra_scale: Divisor of each extra column.
        origin: Detector centre x, y, z in the file's coordinates, m; it is subtracted.
        time_reference: Clock of the pulse times. `window`: IceCube's readout window,
            with the trigger near 10,000 ns. `first_pulse`: only differences matter; the
            event's first pulse becomes 0. `first_triggered`: the same with the first
            pulse that has the trigger flag (hlc, or not auxiliary), which noise before
            the event does not move; in an event without one, the first pulse.
        qe: Rule for DOMs of high efficiency: `rde`, or `published` with the error of
            the competition code, which needs IceCube-86's sensor_id or positions.
        ice: Ice profile: `correct`, `mirrored` (as in the training of the published
            weights), or `none` where IceCube's ice is not meaningful: both features
            are 0.
        labels: Columns of the truth of such pulses.
        only_triggered: Whether there are only pulses of the trigger; None: unknown.

    Raises:
        ValueError: A choice is unknown, or there is neither position nor sensor_id.
    """

    name: str
    x: str | None = X
    y: str | None = Y
    z: str | None = Z
    time: str = TIME
    charge: str | None = None
    auxiliary: str | None = None
    hlc: str | None = None
    rde: str | None = None
    sensor_id: str | None = None
    extra: tuple[str, ...] = ()
    extra_scale: tuple[float, ...] = ()
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    time_reference: str = WINDOW
    qe: str = "rde"
    ice: str = "correct"
    labels: LabelColumns = LabelColumns()
    only_triggered: bool | None = None

    def __post_init__(self) -> None:
        # YAML files give lists.
        for name in ("extra", "extra_scale", "origin"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for problem in self._problems():
            raise ValueError(f"pulse map {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        for name, allowed in (
            ("time_reference", TIME_REFERENCES),
            ("qe", HIGH_QE_RULES),
            ("ice", (*ICE_PROFILES, NO_ICE)),
        ):
            if getattr(self, name) not in allowed:
                yield (
                    f"{name} must be one of {', '.join(allowed)}; got "
                    f"{getattr(self, name)!r}"
                )
        if not self.time:
            yield "a time column is needed"
        if len(self.origin) != 3:
            yield f"origin must be x, y, z, got {self.origin}"
        if self.sensor_id is None and None in (self.x, self.y, self.z):
            yield "columns x, y, z or a sensor_id are needed"
        if self.auxiliary is not None and self.hlc is not None:
            yield "auxiliary and hlc are one flag in two polarities; name one of them"
        if self.time_reference == "first_triggered" and AUXILIARY in self.absent:
            yield (
                "time_reference 'first_triggered' needs a column hlc or auxiliary; "
                "without one use 'first_pulse'"
            )
        if len(self.extra_scale) != len(self.extra):
            yield f"{len(self.extra)} extra columns, but {len(self.extra_scale)} scales"
        if 0 in self.extra_scale:
            yield "an extra_scale is 0"
        if clash := set(self.extra) & set(FEATURE_NAMES):
            yield f"extra column {', '.join(sorted(clash))} has the name of a feature"
        used = [*filter(None, (getattr(self, q) for q in _QUANTITIES)), *self.extra]
        if twice := sorted({column for column in used if used.count(column) > 1}):
            yield f"column {', '.join(twice)} stands for two quantities"

    @classmethod
    def kaggle(cls, **changes: Any) -> PulseMap:
        """The competition's batches: sensor_id, time, charge, auxiliary.

        x, y, z exist once the geometry has been joined, as GraphNeT users do.
        """
        columns = {CHARGE: CHARGE, AUXILIARY: AUXILIARY, SENSOR_ID: SENSOR_ID}
        return cls(**{"name": "kaggle", **columns, **changes})

    @classmethod
    def icecube86(cls, **changes: Any) -> PulseMap:
        """Column names of GraphNeT's IceCube extractors: dom_x, dom_time, hlc, ..."""
        return cls(**{"name": "icecube86", **_ICECUBE_FRAMES, **changes})

    @classmethod
    def upgrade(cls, **changes: Any) -> PulseMap:
        """IceCube Upgrade: as icecube86, with the direction of each PMT."""
        extra = {"extra": PMT_DIRECTIONS[0], "extra_scale": (1.0, 1.0, 1.0)}
        return cls(**{"name": "upgrade", **_ICECUBE_FRAMES, **extra, **changes})

    @classmethod
    def prometheus(cls, **changes: Any) -> PulseMap:
        """Prometheus photons: position and time, no charge, any detector and medium.

        Prometheus's own angles are those of the flight, as its raw photon files
        confirm. Files made from them may have reversed angles: in GraphNeT's example
        database the pulses say `origin`. Check yours with
        `detector.angles.infer_angle_convention`, best with vertices, and set
        `angles=...`. Prometheus's geometry tables lie a kilometre or more below their
        origin; `origin=(0, 0, -1948.07)` centres its IceCube.
        """
        columns = {
            "x": "sensor_pos_x",
            "y": "sensor_pos_y",
            "z": "sensor_pos_z",
            "time": "t",
            "azimuth": "injection_azimuth",
            "zenith": "injection_zenith",
            "angles": "flight",
            "time_reference": "first_pulse",
            "ice": NO_ICE,
        }
        return cls(**{"name": "prometheus", **columns, **changes})

    @classmethod
    def km3net(cls, **changes: Any) -> PulseMap:
        """KM3NeT hits of ORCA or ARCA: position, time of a running clock, tot, trig.

        The time over threshold (`tot`, ns, one byte) grows with the light but is not a
        charge: the model gets it under its own name. `trig`, a hit that took part in
        the trigger, replaces hlc: it also marks, by coincidences, pulses that are
        likelier light than noise, and models and pulse selection use the flag for this.
        `hlc=None` leaves it out. Positions need not count from the middle of the
        detector; `origin` gives its centre.
        """
        columns = {
            "time": "t",
            "hlc": "trig",
            "extra": (TOT,),
            "extra_scale": (255.0,),
            "azimuth": "azimuth_source",
            "zenith": "zenith_source",
            "time_reference": "first_pulse",
            "ice": NO_ICE,
        }
        return cls(**{"name": "km3net", **columns, **changes})

    @classmethod
    def by_name(cls, name: str, **changes: Any) -> PulseMap:
        """Return one of the pulse maps above.

        Raises:
            ValueError: The name is unknown.
        """
        if name not in NAMED_PULSE_MAPS:
            raise ValueError(
                f"no pulse map {name!r}; choose from {', '.join(NAMED_PULSE_MAPS)}"
            )
        made: PulseMap = getattr(cls, name)(**changes)
        return made

    def with_columns(self, columns: Mapping[str, str | None]) -> PulseMap:
        """Return the map with other columns for some quantities; None removes one.

        Raises:
            ValueError: A quantity is unknown, or needed.
        """
        known = (*_QUANTITIES, AZIMUTH, ZENITH)
        for quantity, column in columns.items():
            check_one_of("quantity of a column", quantity, known)
            if column is None and quantity in (AZIMUTH, ZENITH):
                raise ValueError(f"{quantity} needs the name of a column")
        return replace(self, **columns)  # type: ignore[arg-type]

    def as_published(self) -> PulseMap:
        """Return the map with the errors of the competition code, for its weights."""
        return replace(self, qe="published", ice="mirrored")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Column names of the feature matrix."""
        return FEATURE_NAMES + self.extra

    def columns(self) -> dict[str, str]:
        """Return the quantity of each file column: {file column: quantity}."""
        named = {getattr(self, quantity): quantity for quantity in _QUANTITIES}
        named.pop(None, None)
        return {**named, **{column: column for column in self.extra}}

    def column(self, quantity: str) -> str:
        """Return the file column of a quantity that this pulse map has."""
        name = quantity if quantity in self.extra else getattr(self, quantity)
        return str(name)

    @property
    def is_relative(self) -> bool:
        """Whether times count from a pulse of the event."""
        return self.time_reference != WINDOW

    @property
    def absent(self) -> tuple[str, ...]:
        """Features that all pulses share, because the map has no column for them."""
        charge = (CHARGE,) * (self.charge is None)
        return charge + (AUXILIARY,) * (self.auxiliary is None and self.hlc is None)

    def missing(self, given: Collection[str]) -> list[str]:
        """Return the quantities that this map names but that are missing.

        Position and sensor_id replace each other, and either replaces rde.
        """
        named = list(self.columns().values())
        optional = {RDE}
        if {X, Y, Z} <= set(given):
            optional |= {SENSOR_ID}
        elif SENSOR_ID in named:
            optional |= {X, Y, Z}  # the message asks for one of the two only
        return [q for q in named if q not in given and q not in optional]

    def scale(
        self, quantity: str, value_T: Tensor, scales: Scales = DEFAULT_SCALES
    ) -> Tensor:
        """Scale one column as models read it.

        Args:
            quantity: Quantity of the column, a value of `columns()`.
            value_T: Values (T,) in the file's unit; times of one event, or relative.
                Times of the clock `first_triggered` must be relative.
            scales: Units of the features.

        Returns:
            (T,) scaled values. `hlc` becomes auxiliary, `rde` the high-QE flag.
        """
        if quantity == TIME and self.time_reference == "first_pulse":
            first = value_T.min() if value_T.numel() else 0.0
            return (value_T - first) / scales.time
        if zero_and_unit := self.zero_and_unit(quantity, scales):
            zero, unit = zero_and_unit
            return (value_T - zero) / unit
        if quantity == CHARGE:
            return torch.log10(value_T) / scales.charge_decades
        if quantity == HLC:
            if self.hlc == TRIGGER_MASK:
                value_T = (value_T != 0).to(value_T.dtype)
            return 1.0 - value_T  # an invalid flag stays invalid and is reported later
        if quantity == RDE:
            return (value_T > 1.1).to(value_T.dtype)
        return value_T

    def unscale(
        self, quantity: str, value_T: Tensor, scales: Scales = DEFAULT_SCALES
    ) -> Tensor:
        """Return physical values of a feature; the inverse of `scale`.

        Args:
            quantity: Feature made from the column of its name: `x`, `y`, `z`, `time`,
                `charge`, or one of `extra`.
            value_T: Scaled values (T,).
            scales: Units of the features.

        Returns:
            (T,) m, ns or p.e.; times of a running clock are relative.
        """
        if quantity == CHARGE:
            return 10.0 ** (value_T * scales.charge_decades)
        if quantity == TIME and self.is_relative:
            return value_T * scales.time
        zero, unit = self.zero_and_unit(quantity, scales) or (0.0, 1.0)
        return value_T * unit + zero

    def zero_and_unit(
        self, quantity: str, scales: Scales = DEFAULT_SCALES
    ) -> tuple[float, float] | None:
        """Return the offset and the divisor that `scale` applies to a column.

        None means that it does something else.
        """
        if quantity in (X, Y, Z):
            return self.origin[(X, Y, Z).index(quantity)], scales.position
        if quantity == TIME and self.time_reference != "first_pulse":
            return 0.0 if self.is_relative else scales.time_offset, scales.time
        if quantity in self.extra:
            return 0.0, self.extra_scale[self.extra.index(quantity)]
        return None

    def code_without(self, quantity: str) -> str:
        """Return, for messages, this pulse map's code without a quantity."""
        if self.name in NAMED_PULSE_MAPS:
            return f"PulseMap.{self.name}({quantity}=None)"
        return f"PulseMap(..., {quantity}=None)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that YAML and JSON can hold."""
        plain: dict[str, Any] = to_plain(self)
        if self.only_triggered is None:
            del plain["only_triggered"]
        labels = plain.pop("labels")
        return {**plain, **labels}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PulseMap:
        """Rebuild a pulse map from `to_dict`.

        Raises:
            ValueError: This is not a mapping, or a name or a type is wrong.
        """
        if isinstance(values, Mapping):
            labels = {name: values[name] for name in _LABELS if name in values}
            own = {name: v for name, v in values.items() if name not in labels}
            values = {**own, "labels": labels}
        return from_plain(cls, values, "pulse_map.")


_LABELS = tuple(field.name for field in fields(LabelColumns))


def _with_label_names(init: Callable[..., None]) -> Callable[..., None]:
    """Let PulseMap accept azimuth, zenith and angles, its fields in 0.1.0."""

    @wraps(init)
    def make(self: PulseMap, **values: Any) -> None:
        given = {name: values.pop(name) for name in _LABELS if name in values}
        labels = values.pop("labels", LabelColumns())
        init(self, **values, labels=replace(labels, **given))

    return make


PulseMap.__init__ = _with_label_names(PulseMap.__init__)  # type: ignore[method-assign]

_ICECUBE_FRAMES = {
    "x": "dom_x",
    "y": "dom_y",
    "z": "dom_z",
    "time": "dom_time",
    "charge": "charge",
    "hlc": "hlc",
    "rde": "rde",
}
