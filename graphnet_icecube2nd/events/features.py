"""Feature matrix from pulses and geometry, for columns of a file or of a store.

The columns of a file are checked first, so that an error names column, event and
allowed range. A store's pulses were checked when it was written: `FeatureBuilder` makes
the same features faster, because it looks up those that depend on the DOM alone in a
precomputed table. Shape letters: T pulses, B events, S DOMs, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    ABSORPTION,
    AUXILIARY,
    CHARGE,
    HLC,
    QE,
    RDE,
    SCATTERING,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector, FeatureUnits
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import NO_ICE, TRIGGER_MASK, PulseMap
from graphnet_icecube2nd.errors import PulseError
from graphnet_icecube2nd.events.batch import EventNames, check_offsets
from graphnet_icecube2nd.events.events import relative_times

# What the features x, y and z count from: the detector's centre, or the event's centre
# of charge, see `centre_positions`.
POSITIONS = DETECTOR, CHARGE_CENTRE = ("detector", "charge_centre")
WINDOW_LIMIT = 1e7  # ns; a hundred times a readout window
LARGEST = 1e38  # largest value allowed; float32 reaches 3.4e38
MOST_CHARGE = 1e6  # p.e. of a pulse that count as its light
SMALLEST_CHARGE = float(np.finfo(np.float32).smallest_subnormal)  # p.e.
QE_TOLERANCE = 1.0  # m, maximum distance from a pulse to the DOM of its efficiency


def pulse_features(
    columns: Mapping[str, Any],
    offsets: Tensor,
    pulse_map: PulseMap | Detector,
    *,
    geometry: DetectorGeometry | None = None,
    ice: IceModel | None = None,
    event_id: Sequence[Any] | Tensor | None = None,
) -> Tensor:
    """Build the feature matrix of a batch of events from the columns of a file.

    Args:
        columns: Arrays or tensors (T,) by column name; other columns are ignored.
        offsets: Borders of the events, (B + 1,) int64.
        pulse_map: Meaning of the columns, as a pulse map or a detector.
        geometry: DOMs, if `pulse_map` is a pulse map; default: IceCube-86.
        ice: Ice, if `pulse_map` is a pulse map; default: IceCube's.
        event_id: Names of the B events in messages, numbers or strings.

    Returns:
        (T, F) float32, columns as in `pulse_map.feature_names`.

    Raises:
        ValueError: A column is missing or of a wrong type, a value is out of range, or
            an event has no pulses; the message names column, event and allowed range.
    """
    if isinstance(pulse_map, PulseMap):
        detector = Detector.from_pulse_map(pulse_map, geometry, ice)
    else:
        detector = pulse_map
    places = detector.modules_or_icecube86
    raw = check_pulses(
        columns, offsets, detector.pulses, geometry=places, event_id=event_id
    )
    if detector.pulses.is_relative:
        raw[TIME], _ = relative_times(raw, offsets, detector.clock)
    scaled = {
        quantity: detector.pulses.scale(quantity, value, detector.scales)
        for quantity, value in raw.items()
    }
    return assemble_features(scaled, detector)


def check_pulses(
    columns: Mapping[str, Any],
    offsets: Tensor,
    pulse_map: PulseMap,
    *,
    geometry: DetectorGeometry | None = None,
    event_id: Sequence[Any] | Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the columns of a pulse map after checking that their values are possible.

    Args:
        columns: Arrays or tensors (T,) by column name.
        offsets: Borders of the events, (B + 1,) int64.
        pulse_map: Meaning of the columns.
        geometry: DOMs that a sensor_id may name; default: IceCube-86.
        event_id: Names of the B events in messages, numbers or strings.

    Returns:
        (T,) float64 tensors by quantity.

    Raises:
        ValueError: A value is wrong as for `pulse_features`.
    """
    check_offsets(offsets)
    events = EventNames(offsets, event_id)
    events.check_not_empty()
    raw = read_quantities(columns, int(offsets[-1]), pulse_map, geometry)
    for quantity, good_T, allowed in _checks(raw, pulse_map, geometry):
        if good_T.all():
            continue
        pulse = int(good_T.argmin())
        index = events.index_of(pulse)
        raise PulseError(
            f"{events.name(index)}, pulse {pulse - int(offsets[index])}: column "
            f"{pulse_map.column(quantity)!r} is {float(raw[quantity][pulse]):g}; it "
            f"{allowed} ({int((~good_T).sum())} of {len(good_T)} pulses are not)",
            pulse,
        )
    return raw


def pulse_faults(
    columns: Mapping[str, Any],
    num_pulses: int,
    pulse_map: PulseMap,
    *,
    geometry: DetectorGeometry | None = None,
) -> tuple[dict[str, Tensor], NDArray[np.str_]]:
    """Return the columns, as `check_pulses`, and the fault of each pulse, (T,).

    A fault is a text such as "bad charge", or "" if there is none.
    """
    raw = read_quantities(columns, num_pulses, pulse_map, geometry)
    fault_T = np.full(num_pulses, "", object)
    for quantity, good_T, _ in _checks(raw, pulse_map, geometry):
        fault_T[~good_T & (fault_T == "")] = f"bad {quantity}"
    return raw, fault_T.astype(np.str_)


def event_faults(
    fault_T: NDArray[np.str_], length_B: NDArray[np.int64]
) -> NDArray[np.str_]:
    """Return the fault of each event's first faulty pulse, (B,); "" if none."""
    event_T = np.repeat(np.arange(len(length_B)), length_B)
    bad_N = np.flatnonzero(fault_T != "")
    event_M, first_M = np.unique(event_T[bad_N], return_index=True)
    fault_B = np.full(len(length_B), "", fault_T.dtype)
    fault_B[event_M] = fault_T[bad_N[first_M]]
    return fault_B


def read_quantities(
    columns: Mapping[str, Any],
    num_pulses: int,
    pulse_map: PulseMap,
    geometry: DetectorGeometry | None = None,
) -> dict[str, Tensor]:
    """Return the columns that a pulse map names, (T,) float64 by quantity.

    An rde that is not above 0, such as the filler -1 or NaN, is unknown; it is replaced
    by that of the DOM, or by 1 if there is no DOM. The arguments are those of
    `pulse_faults`.
    """
    raw: dict[str, Tensor] = {}
    for column, quantity in pulse_map.columns().items():
        if column in columns:
            # Only differences matter here. Integers are subtracted before they become
            # float64, which has steps of 256 ns for ns since 1970.
            relative = quantity == TIME and pulse_map.is_relative
            raw[quantity] = _numbers(columns[column], column, num_pulses, relative)
            if quantity == HLC and column == TRIGGER_MASK:
                mask_T = raw[quantity]
                raw[quantity] = mask_T.ne(0).double().where(mask_T.isfinite(), mask_T)
    if missing := pulse_map.missing(raw):
        # A user must decide to leave out a column of the pulse map, and set it to None
        # there.
        wanted = [
            pulse_map.column(q) + " (or x, y, z)" * (q == SENSOR_ID) for q in missing
        ]
        raise ValueError(
            f"pulse map {pulse_map.name!r} needs column {', '.join(wanted)}; found "
            f"{', '.join(map(str, columns))}. For files without it use "
            f"{pulse_map.code_without(missing[0])}"
        )
    if RDE in raw and not (known_T := raw[RDE] > 0).all():
        geometry = geometry or DetectorGeometry.icecube86()
        if SENSOR_ID in raw:
            dom_T = raw[SENSOR_ID].nan_to_num(-1).clamp(-1, len(geometry)).long()
            dom_T = dom_T.where(dom_T < len(geometry), -1)
        else:
            position_T3 = torch.stack([raw[X], raw[Y], raw[Z]], dim=1)
            position_T3 = position_T3 - torch.tensor(pulse_map.origin)
            dom_T = geometry.nearest_dom(position_T3, QE_TOLERANCE)
        rde_T = geometry.rde_S[dom_T.clamp(min=0)].where(dom_T >= 0, 1.0)
        raw[RDE] = raw[RDE].where(known_T, rde_T)
    return raw


def _checks(
    raw: Mapping[str, Tensor], pulse_map: PulseMap, geometry: DetectorGeometry | None
) -> Iterator[tuple[str, NDArray[np.bool_], str]]:
    """Yield quantity, possible values (T,) bool, and the rule for them."""
    geometry = geometry or DetectorGeometry.icecube86()
    for quantity, tensor in raw.items():
        value = tensor.numpy()  # numpy compares several times as fast
        # float32 must hold the values and their differences.
        yield quantity, np.abs(value) <= LARGEST, f"must be finite, within {LARGEST:g}"
        if quantity == CHARGE:
            yield quantity, value >= SMALLEST_CHARGE, "must be above 0 p.e."
        if quantity == TIME and not pulse_map.is_relative:
            allowed = (
                f"must be a time in the readout window, within {WINDOW_LIMIT:g} ns; "
                "for a running clock set time_reference='first_pulse' in the pulse map"
            )
            yield quantity, np.abs(value) <= WINDOW_LIMIT, allowed
        if quantity in (AUXILIARY, HLC):
            yield quantity, (value == 0) | (value == 1), "must be 0 or 1"
        if quantity == SENSOR_ID:
            known = (value >= 0) & (value < len(geometry)) & (value == np.rint(value))
            allowed = f"must be a whole number from 0 to {len(geometry) - 1}"
            yield quantity, known, allowed


def assemble_features(scaled: Mapping[str, Tensor], detector: Detector) -> Tensor:
    """Join columns from `PulseMap.scale` into features (T, F) float32.

    Columns that a file does not have are derived from the detector.
    """
    pulse_map, geometry = detector.pulses, detector.modules_or_icecube86
    scale = detector.scales.position
    made = dict(scaled)
    if not {X, Y, Z} <= made.keys():
        position_T3 = geometry.lookup(made[SENSOR_ID].long())
        made.update(zip((X, Y, Z), (position_T3 / scale).unbind(1), strict=True))
    zero_T = torch.zeros_like(made[TIME])
    if HLC in made:
        made[AUXILIARY] = made[HLC]  # `PulseMap.scale` has inverted it
    made.setdefault(AUXILIARY, zero_T)
    made.setdefault(CHARGE, zero_T)  # log10 of 1 p.e.
    if RDE in made and pulse_map.qe == "rde":
        made[QE] = made[RDE]
    else:
        if SENSOR_ID in made:
            dom_T = made[SENSOR_ID].long()
        else:
            position_T3 = torch.stack([made[X], made[Y], made[Z]], dim=1) * scale
            dom_T = geometry.nearest_dom(position_T3, QE_TOLERANCE)
        flag_T = geometry.high_qe_flag(pulse_map.qe)[dom_T.clamp(min=0)]
        made[QE] = flag_T.where(dom_T >= 0, 0.0)
    made[SCATTERING] = made[ABSORPTION] = zero_T
    if pulse_map.ice != NO_ICE:
        lengths_T2 = detector.medium_optics.scaled_at(made[Z] * scale, pulse_map.ice)
        made[SCATTERING], made[ABSORPTION] = lengths_T2.unbind(1)
    return torch.stack(
        [made[name].to(torch.float32) for name in pulse_map.feature_names], dim=1
    )


class FeatureBuilder:
    """Builds feature matrices of pulses that were checked before.

    Args:
        detector: Detector with the meaning and the scaling of the quantities.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        dom_S = torch.arange(len(detector.modules_or_icecube86))
        zero_S = torch.zeros(len(dom_S), dtype=torch.float64)
        of_doms = dict.fromkeys((TIME, *detector.pulses.extra), zero_S)
        # Features that depend on the DOM, (S, F) float32, 0 elsewhere.
        self._table_SF = assemble_features({SENSOR_ID: dom_S, **of_doms}, detector)

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the feature matrix (T, F) float32.

        Args:
            columns: Tensors (T,) by quantity in physical units, with times on the clock
                of the pulse map.
        """
        pulse_map = self.detector.pulses
        scaled = {name: self._scale(name, value) for name, value in columns.items()}
        if X in columns:
            return assemble_features(scaled, self.detector)
        # A row of the table has a DOM's features; those of the pulse are filled in.
        dom_T = scaled.pop(SENSOR_ID).to(torch.int32)
        features_TF = torch.nn.functional.embedding(dom_T, self._table_SF)
        feature_of = {HLC: AUXILIARY, RDE: QE}  # `PulseMap.scale` has inverted HLC
        for quantity, value_T in scaled.items():
            if quantity != RDE or pulse_map.qe == "rde":
                name = feature_of.get(quantity, quantity)
                features_TF[:, pulse_map.feature_names.index(name)] = value_T
        return features_TF

    def _scale(self, quantity: str, value_T: Tensor) -> Tensor:
        if quantity == SENSOR_ID:
            return value_T
        pulse_map, scales = self.detector.pulses, self.detector.scales
        if quantity == TIME and pulse_map.is_relative:
            return value_T / scales.time
        if not value_T.is_floating_point():
            value_T = value_T.to(torch.float32)
        return pulse_map.scale(quantity, value_T, scales)


def pulse_light(
    features_TF: Tensor,
    names: Sequence[str],
    units: FeatureUnits,
    event_T: Tensor,
    num_events: int,
) -> Tensor:
    """Return the light of each pulse, (T,): its charge [p.e.], or 1 without charges.

    Auxiliary pulses, which are likelier noise, have none if their event has others.

    Args:
        features_TF: Features.
        names: Their F names.
        units: Their meaning.
        event_T: Event of each pulse.
        num_events: Number of events.
    """
    light_T = features_TF.new_ones(len(features_TF))
    if CHARGE in names:
        charge_T = units.physical(CHARGE, features_TF[:, names.index(CHARGE)])
        light_T = charge_T.clamp(1e-6, MOST_CHARGE)
    if AUXILIARY in names:
        good_T = (features_TF[:, names.index(AUXILIARY)] == 0).to(light_T.dtype)
        num_good_B = good_T.new_zeros(num_events).index_add(0, event_T, good_T)
        has_good_T = num_good_B.index_select(0, event_T) > 0
        light_T = light_T * good_T.where(has_good_T, 1.0)
    return light_T


def placed_features(
    features_TF: Tensor, offsets: Tensor, detector: Detector, positions: str
) -> tuple[Tensor, Tensor | None]:
    """Return features whose positions count from a point of `POSITIONS`.

    Also returns what was subtracted from them, (B, 3) m, or None if nothing was. The
    other arguments are those of `centre_positions`.
    """
    if positions == DETECTOR:
        return features_TF, None
    return centre_positions(features_TF, offsets, detector)


def centre_positions(
    features_TF: Tensor, offsets: Tensor, detector: Detector
) -> tuple[Tensor, Tensor]:
    """Let the features x, y, z of each event count from its centre of charge.

    The centre is the mean position of the event's light (`pulse_light`) in the batch.
    Features made from the position in the detector, such as those of the ice, stay.

    Args:
        features_TF: Features of `FeatureBuilder`.
        offsets: Borders of the events, (B + 1,); events may be empty.
        detector: Detector of the features.

    Returns:
        The features (T, F), and what was subtracted, (B, 3) m, 0 for empty events.
    """
    names = detector.pulses.feature_names
    first, num_events = names.index(X), len(offsets) - 1
    assert names[first : first + 3] == (X, Y, Z)
    event_T = torch.arange(num_events).repeat_interleave(offsets.diff())
    light_T = pulse_light(
        features_TF.double(), names, detector.units, event_T, num_events
    )
    position_T3 = features_TF[:, first : first + 3].double()
    light_T4 = torch.cat([light_T[:, None] * position_T3, light_T[:, None]], dim=1)
    light_B4 = light_T4.new_zeros(num_events, 4).index_add(0, event_T, light_T4)
    centre_B3 = light_B4[:, :3] / light_B4[:, 3:].where(light_B4[:, 3:] > 0, 1.0)
    centred_TF = features_TF.clone()
    centred_TF[:, first : first + 3] = (position_T3 - centre_B3[event_T]).to(
        features_TF.dtype
    )
    return centred_TF, (centre_B3 * detector.scales.position).float()


def _numbers(value: Any, column: str, num_pulses: int, relative: bool) -> Tensor:
    if isinstance(value, Tensor) and not value.is_complex():
        value = value.detach().to("cpu", torch.float64).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"column {column!r} must be numbers, got {array.dtype} "
            f"({type(array.flat[0]).__name__ if array.size else 'empty'})"
        )
    if array.shape != (num_pulses,):
        raise ValueError(
            f"column {column!r} has shape {array.shape}; there are {num_pulses} pulses"
        )
    if relative and array.dtype.kind in "iu" and array.size:
        array = array - array.min()
    return torch.from_numpy(array.astype(np.float64))
