"""Quantities of events that follow from their pulses alone, without a model.

Shape letters: T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.events.events import Events, auxiliary_of, per_pulse
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES

AT_ONCE = 4096  # events read together
N_HLC, TOTAL_CHARGE, HLC_CHARGE = "n_hlc", "charge_pe", "hlc_charge_pe"
FIELDS = (
    *(N_PULSES, N_HLC, "n_doms", TOTAL_CHARGE, HLC_CHARGE),
    *("duration_ns", "time_spread_ns", "charge_centre_r_m", "charge_centre_z_m"),
)

Array = NDArray[np.float64]


def event_quantities(
    store: EventStore, events: NDArray[np.int64] | None = None
) -> dict[str, Array]:
    """Return quantities of a store's events, (B,) each, by name.

    - n_pulses, n_hlc, n_doms: numbers of pulses, of HLC pulses, and of DOMs with light;
    - charge_pe, hlc_charge_pe: their charge, p.e.;
    - duration_ns, time_spread_ns: time from first to last pulse, and the
      charge-weighted standard deviation of the times;
    - charge_centre_r_m, charge_centre_z_m: horizontal distance from the detector's
      centre and height of the charge-weighted mean position.

    Times and positions are those of HLC pulses, or of all pulses if the store has no
    flag; they are NaN for an event without such pulses. Quantities that need a column
    that the store lacks are left out.

    Args:
        store: Event store.
        events: Rows of the store, (B,); default: all.
    """
    rows = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    length_B = store.whole_event_column(N_PULSES)[rows]
    full = np.flatnonzero(length_B > 0)
    reader = EventReader(store, max_pulses=None, truth=())
    position_S3 = store.geometry.position_S3.numpy()
    origin = store.pulse_map.origin
    found: dict[str, Array] = {N_PULSES: length_B.astype(np.float64)}
    for start in range(0, len(full), AT_ONCE):
        some = full[start : start + AT_ONCE]
        events_here = reader.raw(rows[some])
        for name, value_B in _quantities(events_here, position_S3, origin).items():
            empty = (
                0.0 if name in (N_HLC, "n_doms", TOTAL_CHARGE, HLC_CHARGE) else np.nan
            )
            column = found.setdefault(name, np.full(len(rows), empty))
            column[some] = value_B
    return {name: found[name] for name in FIELDS if name in found}


def _quantities(
    events: Events, position_S3: Array, origin: Sequence[float]
) -> dict[str, Array]:
    """Return the quantities of events that have pulses, (B,) each.

    `origin` is the detector's centre in columns of positions; `position_S3` has it
    subtracted already.
    """
    columns = {name: value.double().numpy() for name, value in events.columns.items()}
    num = len(events.event_id)
    event_T = per_pulse(events, np.arange(num))

    def total(value_T: Array) -> Array:
        total_B: Array = np.bincount(event_T, value_T, num).astype(np.float64)
        return total_B

    found: dict[str, Array] = {}
    one_T = np.ones(len(event_T))
    charge_T = columns.get(CHARGE, one_T)
    flag = auxiliary_of(events.columns)
    is_hlc_T = one_T if flag is None else (flag.numpy() == 0).astype(np.float64)
    if flag is not None:
        found[N_HLC] = total(is_hlc_T)
    if CHARGE in columns:
        found[TOTAL_CHARGE] = total(charge_T)
        if flag is not None:
            found[HLC_CHARGE] = total(charge_T * is_hlc_T)
    if SENSOR_ID in columns:
        sensor_T = columns[SENSOR_ID].astype(np.int64)
        dom_T = np.unique(event_T * (sensor_T.max() + 1) + sensor_T)
        found["n_doms"] = (
            np.bincount(dom_T // (sensor_T.max() + 1), minlength=num) * 1.0
        )
    weight_T = charge_T * is_hlc_T
    with np.errstate(invalid="ignore", divide="ignore"):
        sum_B = total(weight_T)
        if TIME in columns:
            time_T = columns[TIME]
            kept = is_hlc_T > 0
            first_B, last_B = np.full(num, np.inf), np.full(num, -np.inf)
            np.minimum.at(first_B, event_T[kept], time_T[kept])
            np.maximum.at(last_B, event_T[kept], time_T[kept])
            has_time_B = np.isfinite(first_B)
            found["duration_ns"] = np.where(has_time_B, last_B - first_B, np.nan)
            # Times since the first pulse, so that squares are exact.
            since_T = time_T - np.where(has_time_B, first_B, 0.0)[event_T]
            mean_B = total(weight_T * since_T) / sum_B
            square_B = total(weight_T * (since_T - mean_B[event_T]) ** 2) / sum_B
            found["time_spread_ns"] = np.sqrt(square_B)
        if {X, Y, Z} <= set(columns):
            position = [columns[n] - o for n, o in zip((X, Y, Z), origin, strict=True)]
        elif SENSOR_ID in columns:
            position = list(position_S3[columns[SENSOR_ID].astype(np.int64)].T)
        else:
            return found
        x_B, y_B, z_B = (total(weight_T * axis) / sum_B for axis in position)
        found["charge_centre_r_m"], found["charge_centre_z_m"] = np.hypot(x_B, y_B), z_B
    return found
