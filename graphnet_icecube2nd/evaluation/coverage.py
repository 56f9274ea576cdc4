"""Calibration of kappa: coverage, pulls, expected and observed opening angles.

Recalibrated figures are of events that the calibration was not fitted on: each half of
the events is calibrated by the other. A table that brings contours of a calibration is
judged by those. Shape letters: B events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.calibration.fit import has_own_contours
from graphnet_icecube2nd.evaluation.bootstrap import resampled_quantiles
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.tasks.direction.calibration import (
    FEWEST,
    containment,
    fit_calibration,
    kappa_to_radius,
    pulls,
)

LEVELS = tuple(round(level / 100, 2) for level in (*range(10, 100, 5), 99))
GIVEN, TEMPERATURE, ISOTONIC = "as given", "temperature", "isotonic"
WAYS = (GIVEN, TEMPERATURE, ISOTONIC)
ENOUGH = 4 * FEWEST  # events that halves can be fitted and looked at
NUM_BINS = 12  # of events in the order of kappa
PULL_EDGES = np.linspace(0.0, 5.0, 51)
MOST_KAPPAS = 2000  # that a density is averaged over

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibrated:
    """A table's kappa in one of the ways, for the events that have one.

    Args:
        kappa: (b,) concentrations.
        level: (b,) nominal level of the contour on which each truth lies.
        median: (b,) rad, radius of the contour that is to hold half.
    """

    kappa: Array
    level: Array
    median: Array


class CalibrationView:
    """A table's kappas against what they are worth.

    Args:
        evaluated: The table.
    """

    def __init__(self, evaluated: EvaluatedTable) -> None:
        self.evaluated = evaluated
        num = len(evaluated.kappa)
        # Kappa with contours of its own was calibrated: not once more.
        self.is_calibrated = has_own_contours(evaluated.table)
        can_be = num >= ENOUGH and not self.is_calibrated
        ways = () if num < FEWEST else WAYS if can_be else (GIVEN,)
        self.ways = {way: _recalibrated(evaluated, way) for way in ways}

    def coverage(self) -> list[Row]:
        """Return what contours hold, for each way and level.

        Columns: table, way (one of `WAYS`), events (that have a kappa), level (the
        share that contours are to hold), held (the share that they hold), error (its
        standard error).
        """
        rows = []
        for way, seen in self.ways.items():
            # A calibrated table has the radii of some contours, and no kappa of others.
            own = tuple(self.evaluated.table.levels)
            num = len(seen.level)
            for level in own if self.is_calibrated else LEVELS:
                held = float((seen.level <= level).mean())
                if self.is_calibrated:
                    held = self.evaluated.inside(level, self.evaluated.has_kappa_B)
                error = float(np.sqrt(held * (1 - held) / num))
                row = {"table": self.evaluated.name, "way": way, "events": num}
                rows.append(row | {"level": level, "held": held, "error": error})
        return rows

    def expected(self) -> list[Row]:
        """Return how far events are off against what they say, in bins of kappa.

        Columns: table, way (one of `WAYS`), events (in the bin), kappa (median, as
        given or recalibrated), expected_deg (median opening angle that the kappas
        promise), observed_deg (median opening angle), low_deg and high_deg (ends of
        its 95% interval).
        """
        rows = []
        angle = np.degrees(self.evaluated.angle)
        for way, seen in self.ways.items():
            order = np.argsort(-seen.kappa, kind="stable")
            for some in np.array_split(order, NUM_BINS):
                low, high = resampled_quantiles(angle[some], [0.5])[0].tolist()
                rows.append(
                    {
                        "table": self.evaluated.name,
                        "way": way,
                        "events": len(some),
                        "kappa": float(np.median(seen.kappa[some])),
                        "expected_deg": float(np.degrees(np.median(seen.median[some]))),
                        "observed_deg": float(np.median(angle[some])),
                        "low_deg": low,
                        "high_deg": high,
                    }
                )
        return rows

    def pull_density(self, way: str) -> Array:
        """Return the density of pulls in the bins of `PULL_EDGES`, (50,).

        Events beyond the last edge count in the total.
        """
        pull = pulls(self.ways[way].kappa, self.evaluated.angle)
        count, _ = np.histogram(pull, PULL_EDGES)
        density: Array = count / len(pull) / np.diff(PULL_EDGES)
        return density


def _recalibrated(evaluated: EvaluatedTable, way: str) -> Recalibrated:
    kappa, angle = evaluated.kappa, evaluated.angle
    if way == GIVEN:
        median = kappa_to_radius(kappa, 0.5).numpy()
        radius = evaluated.table.levels.get(0.5)
        if radius is not None:  # its own, of a calibration perhaps
            median = radius[evaluated.has_kappa_B]
        return Recalibrated(kappa=kappa, level=containment(kappa, angle), median=median)
    half = np.arange(len(kappa)) % 2 == 0
    made = {name: np.empty(len(kappa)) for name in ("kappa", "level", "median")}
    for here in (half, ~half):
        calibration = fit_calibration(kappa[~here], angle[~here], way)
        made["kappa"][here] = calibration.kappa(kappa[here])
        made["level"][here] = calibration.level(kappa[here], angle[here])
        made["median"][here] = calibration.radius(kappa[here], 0.5)
    return Recalibrated(**made)


def calibrated_pull_density(kappa: Array) -> Array:
    """Return the density of pulls of calibrated kappas, in the bins of `PULL_EDGES`.

    Of large kappas it is Rayleigh's; a small one cannot be far off in its own units,
    because the sky ends opposite the direction.

    Args:
        kappa: (b,) concentrations.
    """
    some = np.sort(kappa)[:: max(1, len(kappa) // MOST_KAPPAS)]
    angle = np.minimum(PULL_EDGES[:, None] / np.sqrt(some), np.pi)
    inside = containment(np.broadcast_to(some, angle.shape), angle).mean(axis=1)
    density: Array = np.diff(inside) / np.diff(PULL_EDGES)
    return density
