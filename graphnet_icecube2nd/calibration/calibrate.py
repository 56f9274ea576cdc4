"""Makes a trained model's kappa honest on events that it was not trained on.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.inference.calibration_file import SEEN, CalibrationFile
from graphnet_icecube2nd.inference.model_bundle import TrainedModel
from graphnet_icecube2nd.inference.predictor import (
    InferenceConfig,
    Progress,
    network_events,
)
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import NO_DIRECTION, EventTruth
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    containment,
)
from graphnet_icecube2nd.tasks.direction.calibration_fit import FEWEST, fit_calibration
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS, radii_of
from graphnet_icecube2nd.tasks.direction.metrics import kappa_to_radius

LEVELS = (0.1, 0.5, 0.68, 0.9, 0.99)
TURNED = 0.7  # share beyond 90 degrees that guessing does not reach


@dataclass(frozen=True, kw_only=True)
class CalibrationCheck:
    """A calibration, and what its contours held of events it was not fitted on.

    Args:
        file: The calibration, fitted on all events, to be stored.
        before: Share of true directions inside contours by level, as the model has it.
        after: The same with each half of the events calibrated by the other; empty
            where there are too few for that.
        thirds: `after` of the third of the events with the smallest kappas, of the
            middle one and of the largest: contours should hold their share in each.
    """

    file: CalibrationFile
    before: Mapping[float, float]
    after: Mapping[float, float]
    thirds: tuple[Mapping[float, float], ...] = ()


def calibrate(
    model: TrainedModel,
    store: EventStore,
    events: NDArray[np.int64],
    *,
    method: str = "isotonic",
    options: InferenceConfig | None = None,
    on_progress: Progress | None = None,
) -> CalibrationCheck:
    """Fit a calibration of a model's kappa.

    Args:
        model: The model, on the device it is to run on.
        store: Events with directions.
        events: Numbers of events that the model was not trained on.
        method: `none` (levels alone), `temperature`, `isotonic`; see `fit_calibration`.
        options: How events are seen; default: the model's own.
        on_progress: Called with new events and pulses.

    Raises:
        ValueError: Too few events with a direction; an unknown method.
    """
    options = options or model.options
    table = network_events(
        model.network, store, events, options=options, on_progress=on_progress
    )
    checked = calibrate_table(table, EventTruth.of(store, events), method=method)
    fitted_on = {
        "store": store.path.name,
        "store_digest": store.manifest.digest(),
        "events": len(events),
        **{name: getattr(options, name) for name in SEEN},
    }
    file = replace(
        checked.file, weights=weights_digest(model.network), fitted_on=fitted_on
    )
    return replace(checked, file=file)


def calibrate_table(
    table: EventTable, truth: EventTruth, *, method: str = "isotonic"
) -> CalibrationCheck:
    """Fit a calibration of a table's kappa, whoever made the table.

    Args:
        table: Directions with kappa, not calibrated yet.
        truth: Of events that the maker was not trained on.
        method: As `calibrate`.

    What both have is taken.

    Raises:
        ValueError: Too few events with a direction; an unknown method; a table whose
            contours are calibrated already; a true direction that is not finite;
            directions that point the other way.
    """
    if has_own_contours(table):
        raise ValueError(
            f"table {table.name!r} is calibrated already: its radii are not those of "
            "its kappa. Reconstruct with --calibration none first"
        )
    truth = truth.of_events(truth.event_id[np.isin(truth.event_id, table.event_id)])
    truth.check_finite()
    _check_way(truth.angles(table), table.name)
    some = table.of_events(truth.event_id)
    angle_B = truth.angles(some)
    good_B = some.is_ok & np.isfinite(some.kappa_B)
    kappa_B, angle_B = some.kappa_B[good_B], angle_B[good_B]
    calibration = fit_calibration(kappa_B, angle_B, method)
    fitted_on = {"table": table.name, "events": len(truth.event_id)}
    found = CalibrationCheck(
        file=CalibrationFile(calibration=calibration, fitted_on=fitted_on),
        before=_held(containment(kappa_B, angle_B)),
        after={},
    )
    if len(kappa_B) < 2 * FEWEST:
        return found
    level_B = cross_fitted_levels(kappa_B, angle_B, method)
    thirds = np.array_split(np.argsort(kappa_B, kind="stable"), 3)
    return replace(
        found,
        after=_held(level_B),
        thirds=tuple(_held(level_B[third]) for third in thirds),
    )


def _check_way(angle_B: NDArray[np.float64], name: str) -> None:
    """Raise ValueError if directions are worse than guesses: turned round, no doubt."""
    share = float((angle_B > NO_DIRECTION).mean()) if len(angle_B) else 0.0
    if share > TURNED:
        raise ValueError(
            f"{share:.0%} of the directions of {name!r} are more than 90 degrees off: "
            "do they point along the flight (angles, --result-angles flight), or does "
            "the truth (--truth-angles)?"
        )


def cross_fitted_levels(
    kappa_B: NDArray[np.float64], angle_B: NDArray[np.float64], method: str
) -> NDArray[np.float64]:
    """Return the level of the calibrated contour on which each truth lies, (B,).

    Each half of the events is calibrated by the other, so a perfect fit of noise does
    not look like an honest kappa.
    """
    half_B = np.arange(len(kappa_B)) % 2 == 0
    level_B = np.empty(len(kappa_B))
    for here_B in (half_B, ~half_B):
        calibration = fit_calibration(kappa_B[~here_B], angle_B[~here_B], method)
        level_B[here_B] = calibration.level(kappa_B[here_B], angle_B[here_B])
    return level_B


def calibrated_table(table: EventTable, calibration: KappaCalibration) -> EventTable:
    """Return a table with calibrated kappa and radii.

    Args:
        table: Directions with kappa as their maker has it.
        calibration: Of that maker.

    Returns:
        It, with radii of the contours that it had, or of those of 50% and 90%.
    """
    radii = radii_of(
        np.where(table.is_ok, table.kappa_B, np.nan),
        calibration,
        tuple(table.levels) or CONTOURS,
    )
    return replace(table, kappa_B=calibration.kappa(table.kappa_B), radii=radii)


def has_own_contours(table: EventTable) -> bool:
    """Return whether a table's radii are other than its kappas', of a calibration."""
    known_B = table.is_ok & np.isfinite(table.kappa_B) & (table.kappa_B >= 0)
    for level, given_B in table.levels.items():
        radius_B = kappa_to_radius(table.kappa_B[known_B], level).numpy()
        same = np.isclose(
            given_B[known_B], radius_B, rtol=1e-3, atol=1e-6, equal_nan=True
        )
        if not same.all():
            return True
    return False


def _held(
    level_B: NDArray[np.float64], levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    return {level: float((level_B <= level).mean()) for level in levels}
