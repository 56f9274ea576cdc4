"""How good tables of results are, side by side: directions in numbers, other tasks.

All tables are judged by the same events. An event without a predicted direction counts
as pi / 2, what guessing gives; one without a true direction is left out and counted.
Tasks other than the direction are in `evaluation.tasks`. Shape letters: B events.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import degrees

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bootstrap import (
    RESAMPLES,
    paired_intervals,
    resampled_quantiles,
)
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.evaluation.tasks import (
    TaskEvaluation,
    evaluate_task,
    other_tasks,
    shared_events,
    unlabelled_note,
    with_pulses,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.results.truth import EventTruth, missing_direction
from graphnet_icecube2nd.tasks.direction.calibration import coverage, pulls
from graphnet_icecube2nd.tasks.label import DIRECTION

LOGGER = logging.getLogger(__name__)
TURNED = 0.7  # share of directions more than 90 degrees off: opposite, no doubt
FEWEST_RESAMPLES, ENOUGH_RESAMPLES = 20, 400  # at all; of many events
QUANTILES = {"median": 0.5, "q68": 0.68, "q90": 0.9}
ESTIMATES = {"mean": "rad", "difference": "rad", **dict.fromkeys(QUANTILES, "deg")}

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

    @classmethod
    def of(cls, table: EventTable, truth: EventTruth) -> EvaluatedTable:
        """Put a table beside the truth.

        Raises:
            ValueError: The table lacks an event of the truth.
        """
        some = table.of_events(truth.event_id)
        return cls(table=some, angle_B=truth.angles(some))

    def num_failed(self, chosen_B: NDArray[np.bool_]) -> int:
        """Return how many of some events, (B,) bool, have no predicted direction."""
        return int((~self.table.is_ok & chosen_B).sum())

    def median_pull(self, chosen_B: NDArray[np.bool_]) -> float:
        """Return the median pull of some events, (B,) bool; NaN without any kappa."""
        good_B = self.has_kappa_B & chosen_B
        if not good_B.any():
            return float("nan")
        return float(np.median(pulls(self.table.kappa_B[good_B], self.angle_B[good_B])))

    def inside(self, level: float, chosen_B: NDArray[np.bool_]) -> float:
        """Return the share of true directions within contours; NaN without any.

        Args:
            level: Share that the contours are to hold: with the table's own radii, else
                those of its kappa.
            chosen_B: (B,) which events.
        """
        good_B = self.has_kappa_B & chosen_B
        if not good_B.any():
            return float("nan")
        radius_B, angle = self.table.levels.get(level), self.angle_B[good_B]
        if radius_B is not None:
            return float((angle <= radius_B[good_B]).mean())
        return float(coverage(self.table.kappa_B[good_B], angle, [level])[0])


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
        pull: Median of opening angle times the root of kappa, 1.18 if kappa is
            calibrated and large; NaN where the table has no kappa.
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

    def to_row(self) -> Row:
        """Return the columns of a report; units stand in their names."""
        row: Row = {"table": self.table, "events": self.events, "failed": self.failed}
        for name, unit in ESTIMATES.items():
            for end, angle in asdict(getattr(self, name)).items():
                column = f"{name}_{unit}" if end == "value" else f"{name}_{end}_{unit}"
                row[column] = degrees(angle) if unit == "deg" else angle
        row |= {"median_pull": self.pull, "inside_50": self.inside_50}
        return row | {"inside_90": self.inside_90}


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Tables of results and the truth of the events that all of them have.

    Args:
        truth: Of the events whose directions are judged.
        tables: Tables that have directions, beside it; none: no direction is judged.
        left_out: Events of the truth that some table of directions does not have.
        unknown: By table of directions: how many of its events are not judged, for the
            truth or another table does not have them.
        resamples: Of the bootstrap.
        tasks: The other tasks that tables have columns of and the truth has labels of.
        notes: Sentences: which events and tasks are not judged, and why.
    """

    truth: EventTruth
    tables: tuple[EvaluatedTable, ...] = ()
    left_out: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    resamples: int = RESAMPLES
    tasks: tuple[TaskEvaluation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """Which events and tasks are not judged, in sentences."""
        lines = [
            f"{number:,} events of {name} are not judged"
            for name, number in self.unknown.items()
            if number
        ]
        if self.left_out:
            lines.append(
                f"{self.left_out:,} events of the truth are not in every table"
            )
        return [*lines, *self.notes]

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
        values = [angle.mean(), (angle - first).mean()]
        values += np.quantile(angle, list(QUANTILES.values())).tolist()
        intervals = paired_intervals(
            np.stack([angle, angle - first]), resamples=self._resamples(len(angle))
        ).tolist()
        intervals += resampled_quantiles(
            angle, list(QUANTILES.values()), resamples=self.resamples
        ).tolist()
        estimates = {
            name: Estimate(value=float(value), low=low, high=high)
            for name, value, (low, high) in zip(
                ESTIMATES, values, intervals, strict=True
            )
        }
        return Summary(
            table=evaluated.name,
            events=len(angle),
            failed=evaluated.num_failed(chosen_B),
            **estimates,
            pull=evaluated.median_pull(chosen_B),
            inside_50=evaluated.inside(0.5, chosen_B),
            inside_90=evaluated.inside(0.9, chosen_B),
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
    """Put tables of results beside the truth: directions, and every other task.

    Directions are judged where tables have them. Another task is judged where a table
    has its columns and the truth its labels. What cannot be judged is said in `notes`.

    Args:
        tables: One or more, of different names; the first is what others are compared
            with.
        truth: Of their events and perhaps more: what all tables of a task have is
            judged. Numbers of pulses that it does not have are the first table's that
            has.
        resamples: Of the bootstrap.

    Raises:
        ValueError: No table, two of one name, no event that all have, no event of
            status ok, nothing that can be judged.
    """
    _check(tables, truth, resamples)
    pointing = [table for table in tables if table.has_direction]
    notes: list[str] = []
    nothing = truth.of_events(truth.event_id[:0])
    evaluation = Evaluation(truth=nothing, resamples=resamples)
    if pointing and truth.has(DIRECTION):
        evaluation = _evaluate_directions(pointing, truth, resamples)
        notes += evaluation.notes
    elif pointing:
        notes.append(f"direction is not judged: {missing_direction(truth)}")
    tasks = []
    for name, having in other_tasks(tables).items():
        evaluated, said = evaluate_task(name, having, truth)
        notes += said
        if evaluated is not None:
            tasks.append(evaluated)
    if not tasks and not evaluation.tables:
        raise ValueError("nothing can be judged. " + "; ".join(notes))
    return replace(evaluation, tasks=tuple(tasks), notes=tuple(notes))


def _check(tables: Sequence[EventTable], truth: EventTruth, resamples: int) -> None:
    """Raise ValueError unless tables have names, answers, and events in common."""
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"tables need names of their own (NAME=FILE), got {', '.join(names)!r}"
        )
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f"resamples must be {FEWEST_RESAMPLES} or more: {resamples}")
    for number, table in enumerate(tables):
        if not shared_events(tables[: number + 1], truth).any():
            raise ValueError(
                f"table {table.name!r} has no event that the truth"
                + (" and the tables before" if number else "")
                + " have: are the event numbers those of the same files?"
            )
        if not (table.status_B == OK).any():
            raise ValueError(
                f"table {table.name!r} has no event of status ok; it has "
                f"{', '.join(sorted(set(table.status_B.tolist())))}"
            )


def _evaluate_directions(
    tables: Sequence[EventTable], truth: EventTruth, resamples: int
) -> Evaluation:
    """Put tables of directions beside the truth; events without a true one are left."""
    shared_B = shared_events(tables, truth)
    shared = truth.of_events(truth.event_id[shared_B])
    some = shared.with_directions()
    notes = []
    if unlabelled := len(shared) - len(some):
        notes.append(unlabelled_note(shared, DIRECTION, unlabelled))
    evaluated = tuple(EvaluatedTable.of(table, some) for table in tables)
    for found in evaluated:
        angle = found.angle_B[found.table.is_ok]
        share = float((angle > np.pi / 2).mean()) if len(angle) else 0.0
        if share > TURNED:
            notes.append(
                f"{share:.0%} of the directions of table {found.name!r} are more than "
                "90 degrees off: check whether they point along the flight of the "
                "neutrino (--result-angles flight), or the truth does (--truth-angles "
                "flight)"
            )
            LOGGER.warning(notes[-1])
    return Evaluation(
        truth=with_pulses(some, [found.table for found in evaluated]),
        tables=evaluated,
        left_out=int((~shared_B).sum()),
        unknown={table.name: len(table) - len(shared) for table in tables},
        resamples=resamples,
        notes=tuple(notes),
    )
