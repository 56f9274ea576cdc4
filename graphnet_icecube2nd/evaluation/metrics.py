"""How good tables of directions are, in numbers: whole, by bins, side by side.

All tables are judged by the same events. An event without a direction counts as pi / 2,
what guessing gives. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bootstrap import (
    RESAMPLES,
    paired_intervals,
    resampled_quantiles,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import coverage, pulls

FEWEST_RESAMPLES, ENOUGH_RESAMPLES = 20, 400  # at all; of many events
QUANTILES = {"median": 0.5, "q68": 0.68, "q90": 0.9}

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and the ends of its 95% bootstrap interval, rad."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedTable:
    """A table of directions beside the truth.

    Args:
        table: Its rows, in the order of the truth's events.
        angle_B: (B,) opening angles, rad; pi / 2 where there is no direction.
    """

    table: EventTable
    angle_B: Array

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.table.name

    @cached_property
    def has_kappa_B(self) -> NDArray[np.bool_]:
        """(B,) which events have a direction and a concentration."""
        kappa_B = self.table.kappa_B
        good_B: NDArray[np.bool_] = (
            self.table.is_ok & np.isfinite(kappa_B) & (kappa_B > 0)
        )
        return good_B

    @property
    def kappa(self) -> Array:
        """(b,) concentrations of the events that have one."""
        kappa: Array = self.table.kappa_B[self.has_kappa_B]
        return kappa

    @property
    def angle(self) -> Array:
        """(b,) opening angles of the same events, rad."""
        angle: Array = self.angle_B[self.has_kappa_B]
        return angle


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A table in a row of numbers, angles in rad.

    Args:
        table: Its name.
        events: How many, those without a direction included.
        failed: How many have none.
        mean: The competition's score.
        median, q68, q90: Half, 68%, 90% of the events are closer.
        difference: Of the mean from the first table's; above 0 is worse. Paired.
        pull: Median of opening angle times the root of kappa, 1.18 if kappa is honest
            and large; NaN where the table has no kappa.
        inside_50, inside_90: Share of true directions within the contours that are to
            hold half and nine tenths: the table's own radii, else those of its kappa.
    """

    table: str
    events: int
    failed: int
    mean: Estimate
    median: Estimate
    q68: Estimate
    q90: Estimate
    difference: Estimate
    pull: float
    inside_50: float
    inside_90: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Tables of directions and the truth of the events that all of them have.

    Args:
        truth: Of those events.
        tables: Beside it.
        left_out: Events of the truth that some table does not have.
        unknown: By table: how many of its events are not judged, for the truth or
            another table does not have them.
        resamples: Of the bootstrap.
    """

    truth: EventTruth
    tables: tuple[EvaluatedTable, ...]
    left_out: int
    unknown: Mapping[str, int]
    resamples: int = RESAMPLES

    @cached_property
    def summaries(self) -> list[Summary]:
        """A row for each table, in their order."""
        everything = np.ones(len(self.truth.event_id), bool)
        return [self.summary(number, everything) for number in range(len(self.tables))]

    def summary(self, number: int, chosen_B: NDArray[np.bool_]) -> Summary:
        """Return a table's row for some of the events.

        Args:
            number: Which table.
            chosen_B: (B,) which events, one at least.
        """
        evaluated = self.tables[number]
        angle = evaluated.angle_B[chosen_B]
        first = self.tables[0].angle_B[chosen_B]
        quantiles = resampled_quantiles(
            angle, list(QUANTILES.values()), resamples=self.resamples
        )
        intervals = paired_intervals(
            np.stack([angle, angle - first]), resamples=self._resamples(len(angle))
        )
        good = evaluated.has_kappa_B & chosen_B
        kappa, known = evaluated.table.kappa_B[good], evaluated.angle_B[good]
        return Summary(
            table=evaluated.name,
            events=len(angle),
            failed=int((~evaluated.table.is_ok & chosen_B).sum()),
            mean=_estimate(angle.mean(), intervals[0]),
            **{
                name: _estimate(np.quantile(angle, share), interval)
                for (name, share), interval in zip(
                    QUANTILES.items(), quantiles, strict=True
                )
            },
            difference=_estimate((angle - first).mean(), intervals[1]),
            pull=float(np.median(pulls(kappa, known))) if len(kappa) else float("nan"),
            inside_50=_inside(evaluated, good, 0.5),
            inside_90=_inside(evaluated, good, 0.9),
        )

    def _resamples(self, num_events: int) -> int:
        """Fewer for many events, whose intervals are narrow and alike."""
        return min(self.resamples, max(ENOUGH_RESAMPLES, int(2e8 / num_events)))


def evaluate(
    tables: Sequence[EventTable],
    truth: EventTruth,
    *,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Put tables of directions beside the truth.

    Args:
        tables: One or more, of different names; the first is what others are compared
            with.
        truth: Of their events and perhaps more: what all tables have is judged.
            Numbers of pulses that it does not have are the first table's that has.
        resamples: Of the bootstrap.

    Raises:
        ValueError: No table, two of one name, no event that all have, an event whose
            true direction is not finite.
    """
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"tables need names of their own (NAME=FILE), got {', '.join(names)!r}"
        )
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"resamples must be {FEWEST_RESAMPLES} or more: {resamples}")
    known_B = np.ones(len(truth.event_id), bool)
    for table in tables:
        known_B &= np.isin(truth.event_id, table.event_id)
        if not known_B.any():
            raise ValueError(
                f"table {table.name!r} has no event that the truth"
                + (" and the tables before" if table is not tables[0] else "")
                + " have: are the event numbers those of the same files?"
            )
    some = truth.of_events(truth.event_id[known_B])
    some.check_finite()
    for table in tables:
        if not table.is_ok.any():
            raise ValueError(
                f"table {table.name!r} has no event of status ok; it has "
                f"{', '.join(sorted(set(table.status_B.tolist())))}"
            )
    judged = tuple(
        EvaluatedTable(table=table.of_events(some.event_id), angle_B=some.angles(table))
        for table in tables
    )
    counts = (e.table.n_pulses_B for e in judged if e.table.n_pulses_B is not None)
    n_pulses_B = next(counts, None)
    if n_pulses_B is not None and not some.knows_pulses:
        some = replace(some, n_pulses_B=n_pulses_B)
    return Evaluation(
        truth=some,
        tables=judged,
        left_out=int((~known_B).sum()),
        unknown={table.name: len(table) - len(some.event_id) for table in tables},
        resamples=resamples,
    )


def _estimate(value: float, interval: Array) -> Estimate:
    return Estimate(value=float(value), low=float(interval[0]), high=float(interval[1]))


def _inside(
    evaluated: EvaluatedTable, good_B: NDArray[np.bool_], level: float
) -> float:
    """Return the share of true directions within a contour; NaN without any."""
    if not good_B.any():
        return float("nan")
    radius_B = evaluated.table.levels.get(level)
    if radius_B is not None:
        return float((evaluated.angle_B[good_B] <= radius_B[good_B]).mean())
    kappa_B = evaluated.table.kappa_B
    return float(coverage(kappa_B[good_B], evaluated.angle_B[good_B], [level])[0])
