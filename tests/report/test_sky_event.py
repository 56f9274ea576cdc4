"""Sky maps of events of tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("astropy_healpix")

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.conventions import angles_to_unit_vector
from graphnet_icecube2nd.report.sky.map import sky_map_of_event
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.radial_law import RadialLaw

DIRECTION = np.asarray(angles_to_unit_vector(1.1, 4.2))
MJD = 56000.25
# Kappa is worth half; the 50% contour is then that of 35%, the 90% one of 97%.
LONG_TAILS = KappaCalibration(
    method="temperature",
    log_kappa=(0.0,),
    log_calibrated=(float(np.log10(0.5)),),
    levels=(0.0, 0.5, 0.9),
    depths=((0.0, float(-np.log(0.65)), float(-np.log(0.03))),),
    num_events=1000,
)


def table(**changes: Any) -> EventTable:
    values: dict[str, Any] = {
        "name": "found",
        "event_id": np.array([7, 8, 9]),
        "direction_B3": np.stack([DIRECTION, -DIRECTION, np.full(3, np.nan)]),
        "kappa_B": np.array([100.0, np.nan, np.nan]),
        "status_B": np.array(["ok", "ok", "no pulses"]),
    }
    return EventTable.of_directions(**(values | changes))


def test_an_event_of_a_table() -> None:
    made = sky_map_of_event(table(), 7, levels=(0.5,), nside=32, order="nested")
    assert (made.event_id, made.kappa, made.levels) == (7, 100.0, (0.5,))
    assert (made.nside, made.order) == (32, "nested")
    np.testing.assert_allclose(made.direction, DIRECTION)
    assert made.law == RadialLaw.of_kappa(100.0)
    calibrated = sky_map_of_event(table(), 7, calibration=LONG_TAILS, mjd=MJD)
    assert calibrated.mjd == MJD
    assert calibrated.contour(0.9).radius == pytest.approx(
        float(kappa_to_radius(50.0, 0.97))
    )


def test_radii_of_a_table_are_kept() -> None:
    """Results of a calibrated reconstruction have them."""
    own = {
        f"radius_{level}": np.full(3, float(kappa_to_radius(100.0, level / 100)))
        for level in (50, 90)
    }
    assert sky_map_of_event(table(radii=own), 7).law == RadialLaw.of_kappa(100.0)
    calibrated = table(
        radii={"radius_50": np.full(3, 0.1), "radius_90": np.full(3, 0.4)}
    )
    made = sky_map_of_event(calibrated, 7)
    assert made.contour(0.5).radius == pytest.approx(0.1)
    assert made.contour(0.9).radius == pytest.approx(0.4)
    assert made.contour(0.5).pixel_area == pytest.approx(
        made.contour(0.5).area, rel=0.03
    )
    with pytest.raises(ValueError, match="found is calibrated already"):
        sky_map_of_event(calibrated, 7, calibration=LONG_TAILS)
    wrong = table(radii={"radius_50": np.full(3, 0.4), "radius_90": np.full(3, 0.1)})
    with pytest.raises(ValueError, match="event 7 of found: radii must"):
        sky_map_of_event(wrong, 7)


def test_events_without_a_map() -> None:
    for event, words in (
        (8, "event 8 of found has no kappa"),
        (9, "event 9 of found has no direction: no pulses"),
        (10, "has no event 10"),
    ):
        with pytest.raises(ValueError, match=words):
            sky_map_of_event(table(), event)
