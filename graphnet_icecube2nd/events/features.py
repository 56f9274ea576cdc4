"""Pulses and geometry into the feature matrix.

Raw columns are checked first, so that a wrong value is named by column, event and
allowed range before anything is computed from it. Shape letters: T pulses, B events,
F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import NO_ICE, PulseMap
from graphnet_icecube2nd.errors import PulseError
from graphnet_icecube2nd.events.batch import EventNames, check_offsets
from graphnet_icecube2nd.events.events import since_first_pulse

WINDOW_LIMIT = 1e7  # ns; a hundred times a readout window
QE_TOLERANCE = 1.0  # m, how far from a DOM a pulse may sit to have its efficiency


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
        columns: (T,) arrays or tensors by column name; more than needed is fine.
        offsets: (B + 1,) int64 borders of the events.
        pulse_map: What the columns mean: a pulse map, or a detector.
        geometry: With a pulse map: the DOMs; default IceCube-86.
        ice: With a pulse map: the ice; default IceCube's.
        event_id: B numbers or strings, to name events in messages.

    Returns:
        (T, F) float32, columns as `pulse_map.feature_names`.

    Raises:
        ValueError: A missing column, a wrong type, a value out of range, an event
            without pulses; the message names column, event and what is allowed.
    """
    if isinstance(pulse_map, PulseMap):
        detector = Detector.of_pulses(pulse_map, geometry, ice)
    else:
        detector = pulse_map
    raw = check_pulses(
        columns,
        offsets,
        detector.pulses,
        geometry=detector.places,
        event_id=event_id,
    )
    if detector.clock == "first_pulse":
        raw[TIME] = since_first_pulse(raw[TIME], offsets)
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
    """Take the columns a pulse map names and see that their values can be true.

    Args:
        columns: (T,) arrays or tensors by column name.
        offsets: (B + 1,) int64 borders of the events.
        pulse_map: What the columns mean.
        geometry: The DOMs that a sensor_id may name; default IceCube-86.
        event_id: B numbers or strings, to name events in messages.

    Returns:
        (T,) float64 tensors by quantity.

    Raises:
        ValueError: As `pulse_features`.
    """
    geometry = geometry or DetectorGeometry.icecube86()
    check_offsets(offsets)
    num_pulses = int(offsets[-1])
    events = EventNames(offsets, event_id)
    events.check_not_empty()
    raw: dict[str, Tensor] = {}
    for column, quantity in pulse_map.columns().items():
        if column in columns:
            # Only differences count then, and integers are taken off before float64,
            # which counts seconds since 1970 in steps of 256 ns.
            relative = quantity == TIME and pulse_map.time_reference == "first_pulse"
            raw[quantity] = _numbers(columns[column], column, num_pulses, relative)
    _check_complete(raw, columns, pulse_map)

    def check(value: NDArray[Any], good: NDArray[np.bool_], allowed: str) -> None:
        _check(pulse_map.column(quantity), value, good, allowed, events)

    for quantity, tensor in raw.items():
        value = tensor.numpy()  # numpy compares several times as fast
        check(value, np.isfinite(value), "must be finite")
        if quantity == CHARGE:
            check(value, value > 0, "must be above 0 p.e.")
        if quantity == TIME and pulse_map.time_reference == "window":
            allowed = (
                f"must be a time in the readout window, within {WINDOW_LIMIT:g} ns; "
                "for a running clock, say time_reference='first_pulse' in the pulse map"
            )
            inside = (value >= -WINDOW_LIMIT) & (value <= WINDOW_LIMIT)
            check(value, inside, allowed)
        if quantity in (AUXILIARY, HLC):
            check(value, (value == 0) | (value == 1), "must be 0 or 1")
        if quantity == SENSOR_ID:
            known = (value >= 0) & (value < len(geometry)) & (value == np.rint(value))
            allowed = f"must be a whole number from 0 to {len(geometry) - 1}"
            check(value, known, allowed)
    return raw


def assemble_features(scaled: Mapping[str, Tensor], detector: Detector) -> Tensor:
    """Join scaled columns into the feature matrix; derive what a file does not have.

    Args:
        scaled: (T,) tensors by quantity, as `PulseMap.scale` gives them.
        detector: Says what a missing column becomes.

    Returns:
        (T, F) float32.
    """
    pulse_map, scale = detector.pulses, detector.scales.position
    made = dict(scaled)
    if not {X, Y, Z} <= made.keys():
        position = detector.places.lookup(made[SENSOR_ID].long())
        for axis, name in enumerate((X, Y, Z)):
            made[name] = position[:, axis] / scale
    zero_T = torch.zeros_like(made[TIME])
    if HLC in made:
        made[AUXILIARY] = made[HLC]  # `PulseMap.scale` has turned it
    made.setdefault(AUXILIARY, zero_T)
    made.setdefault(CHARGE, zero_T)  # log10 of 1 p.e.
    made[QE] = _high_qe(made, detector)
    made[SCATTERING] = made[ABSORPTION] = zero_T
    if pulse_map.ice != NO_ICE:
        lengths_T2 = detector.medium_optics.scaled_at(made[Z] * scale, pulse_map.ice)
        made[SCATTERING], made[ABSORPTION] = lengths_T2.unbind(1)
    return torch.stack(
        [made[name].to(torch.float32) for name in pulse_map.feature_names], dim=1
    )


def _high_qe(made: Mapping[str, Tensor], detector: Detector) -> Tensor:
    pulse_map, geometry = detector.pulses, detector.places
    if RDE in made and pulse_map.qe == "rde":
        return made[RDE]
    if SENSOR_ID in made:
        dom_T = made[SENSOR_ID].long()
    else:
        position = torch.stack([made[X], made[Y], made[Z]], dim=1)
        position = position * detector.scales.position
        dom_T = geometry.nearest_dom(position, QE_TOLERANCE)
    flag_T = geometry.high_qe_flag(pulse_map.qe)[dom_T.clamp(min=0)]
    return flag_T.where(dom_T >= 0, 0.0)


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


def _check_complete(
    raw: Mapping[str, Tensor], columns: Mapping[str, Any], pulse_map: PulseMap
) -> None:
    # A column that the pulse map names and the file lacks is an error: to do without
    # it is a decision, and is written into the pulse map as None.
    missing = pulse_map.missing(raw)
    if missing:
        wanted = [
            pulse_map.column(q) + " (or x, y, z)" * (q == SENSOR_ID) for q in missing
        ]
        raise ValueError(
            f"pulse map {pulse_map.name!r} needs column {', '.join(wanted)}; there is "
            f"{', '.join(map(str, columns))}. For files without it: "
            f"{pulse_map.how_without(missing[0])}"
        )


def _check(
    column: str,
    value: NDArray[Any],
    good: NDArray[np.bool_],
    allowed: str,
    events: EventNames,
) -> None:
    if good.all():
        return
    pulse = int(good.argmin())
    index = events.index_of(pulse)
    raise PulseError(
        f"{events.name(index)}, pulse {pulse - int(events.offsets[index])}: column "
        f"{column!r} is {float(value[pulse]):g}; it {allowed} "
        f"({int((~good).sum())} of {len(good)} pulses are not)",
        pulse,
    )
