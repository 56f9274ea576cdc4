"""Evaluation of results tables against the truth: directions and every other task.

All tables of a task are evaluated on the events that have a label and are in every
table; the other events are counted. An event without a predicted direction counts as
pi / 2, the mean opening angle of a random direction. Shape letters: B events, b events
with a kappa.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import degrees
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import TIME_ORIGIN
from graphnet_icecube2nd.detector.pulse_map import WINDOW
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK, real_numbers
from graphnet_icecube2nd.results.truth import (
    EventTruth,
    flipped_directions_note,
    missing_direction,
)
from graphnet_icecube2nd.statistics import (
    RESAMPLES,
    effective_events,
    is_weighted,
    mean,
    paired_intervals,
    quantile,
    quantile_intervals,
)
from graphnet_icecube2nd.tasks.bins import WEIGHT
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.direction.calibration import containment, pulls
from graphnet_icecube2nd.tasks.label import DIRECTION, VERTEX, has_label
from graphnet_icecube2nd.tasks.section import Section
from graphnet_icecube2nd.tasks.vertex import TIME as VERTEX_TIME
from graphnet_icecube2nd.tasks.vertex import TIME_KNOWN
from graphnet_icecube2nd.tasks.vertex import TIME_WIDTH as VERTEX_TIME_SIGMA

LOGGER = logging.getLogger(__name__)
FEWEST_RESAMPLES, ENOUGH_RESAMPLES = 20, 400  # minimum; used for many events
# Median error of a vertex's time, ns, that only another clock explains: light crosses a
# detector in less.
FAR_TIME = 5000.0
QUANTILES = {"median": 0.5, "q68": 0.68, "q90": 0.9}
ESTIMATES = {"mean": "rad", "difference": "rad", **dict.fromkeys(QUANTILES, "deg")}

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]  # (B,) True for chosen events


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An angle and the ends of its 95% bootstrap interval, rad."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedTable:
    """A table of directions and its opening angles to the truth."""

    table: EventTable  # rows in the order of the truth's events
    angle_B: Array  # opening angles, rad; pi / 2 where there is no direction
    given_weight_B: Array | None = None  # weights of the events; None: 1 each

    @cached_property
    def weight_B(self) -> Array:
        """Weights of the events, (B,)."""
        num = len(self.angle_B)
        return np.ones(num) if self.given_weight_B is None else self.given_weight_B

    @property
    def weight(self) -> Array:
        """Weights of the events that have a concentration, (b,)."""
        weight: Array = self.weight_B[self.has_kappa_B]
        return weight

    @cached_property
    def has_kappa_B(self) -> Chosen:
        """True for events that have a direction and a concentration, (B,)."""
        kappa_B = self.table.kappa_B
        good_B: Chosen = self.table.is_ok & np.isfinite(kappa_B) & (kappa_B > 0)
        return good_B

    @property
    def kappa(self) -> Array:
        """Concentrations of the events that have one, (b,)."""
        kappa: Array = self.table.kappa_B[self.has_kappa_B]
        return kappa

    @property
    def angle(self) -> Array:
        """Opening angles of the events that have a concentration, (b,), rad."""
        angle: Array = self.angle_B[self.has_kappa_B]
        return angle

    @classmethod
    def of(cls, table: EventTable, truth: EventTruth) -> EvaluatedTable:
        """Compare a table with the truth; ValueError if it lacks an event."""
        some = table.of_events(truth.event_id)
        angle_B = truth.angles(some)
        return cls(table=some, angle_B=angle_B, given_weight_B=truth.weight_B)

    def num_failed(self, chosen_B: Chosen) -> int:
        """Return the number of chosen events that have no predicted direction."""
        return int((~self.table.is_ok & chosen_B).sum())

    def median_pull(self, chosen_B: Chosen) -> float:
        """Return the median pull of the chosen events; NaN if none has a kappa."""
        good_B = self.has_kappa_B & chosen_B & (self.weight_B > 0)
        if not good_B.any():
            return float("nan")
        pull = pulls(self.table.kappa_B[good_B], self.angle_B[good_B])
        return float(quantile(pull, [0.5], self.weight_B[good_B])[0])

    def inside(self, level: float, chosen_B: Chosen) -> float:
        """Return the share of true directions inside the contours of a level.

        The contours have the table's own radii, or else the radii of its kappa. NaN if
        no chosen event has a kappa.
        """
        good_B = self.has_kappa_B & chosen_B & (self.weight_B > 0)
        if not good_B.any():
            return float("nan")
        radius_B, angle = self.table.levels.get(level), self.angle_B[good_B]
        if radius_B is not None:
            is_inside = angle <= radius_B[good_B]
        else:
            is_inside = containment(self.table.kappa_B[good_B], angle) <= level
        return mean(is_inside, self.weight_B[good_B])


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures of a table of directions, angles in rad."""

    table: str
    events: int  # including those without a predicted direction
    effective: float | None  # effective number of weighted events
    failed: int  # events without a predicted direction
    mean: Estimate  # the competition's score
    median: Estimate  # 50%, 68% and 90% quantiles of the opening angle
    q68: Estimate
    q90: Estimate
    difference: Estimate  # mean minus the first table's, paired; above 0 is worse
    pull: float  # median of angle * sqrt(kappa): 1.18 if kappa is calibrated; or NaN
    inside_50: float  # share of true directions inside the 50% contours
    inside_90: float  # the same for the 90% contours

    def to_row(self) -> Row:
        """Return the figures as columns of a report, with units in their names."""
        row: Row = {"table": self.table, "events": self.events}
        if self.effective is not None:
            row["effective_events"] = self.effective
        row["failed"] = self.failed
        for name, unit in ESTIMATES.items():
            for end, angle in asdict(getattr(self, name)).items():
                column = f"{name}_{unit}" if end == "value" else f"{name}_{end}_{unit}"
                row[column] = degrees(angle) if unit == "deg" else angle
        held = {"inside_50": self.inside_50, "inside_90": self.inside_90}
        return row | {"median_pull": self.pull} | held


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskEvaluation:
    """Results of a task in one or several tables, for the same events."""

    task: str
    truth: EventTruth  # of the B events with a label, and a result in all tables
    tables: Mapping[str, Mapping[str, NDArray[Any]]]  # columns, (B,) each, by table
    target: NDArray[np.float64]  # (B, ...) target of the task, made from the truth
    section: Section  # section of the report

    @property
    def event_id(self) -> NDArray[np.int64]:
        """Event numbers, (B,)."""
        return self.truth.event_id

    @property
    def known(self) -> Mapping[str, NDArray[Any]]:
        """Other truth of the events, (B, ...) each; see `EventTruth.known`."""
        return self.truth.known()


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Evaluated results tables and the truth of the events that all of them have."""

    truth: EventTruth  # events whose directions are evaluated
    tables: tuple[EvaluatedTable, ...] = ()  # those that have directions
    left_out: int = 0  # events of the truth missing in a table of directions
    # By table of directions: number of events missing in the truth or another table.
    unknown: Mapping[str, int] = field(default_factory=dict)
    resamples: int = RESAMPLES  # number of resamples of the bootstrap
    tasks: tuple[TaskEvaluation, ...] = ()  # the other tasks that can be evaluated
    notes: tuple[str, ...] = ()  # events and tasks that are not evaluated, and why

    @property
    def remarks(self) -> list[str]:
        """Sentences that name the events and tasks that are not evaluated."""
        lines = [
            f"{number:,} events of {name} are not evaluated"
            for name, number in self.unknown.items()
            if number
        ]
        if self.left_out:
            lines.append(
                f"{self.left_out:,} events of the truth are missing in a table"
            )
        return [*lines, *self.notes]

    @cached_property
    def summaries(self) -> list[Summary]:
        """Figures of each table, in their order."""
        return self.summaries_of(np.ones(len(self.truth), bool))

    def summaries_of(self, chosen_B: Chosen) -> list[Summary]:
        """Return figures of each table for the chosen events, at least one event."""
        return [self._summary(evaluated, chosen_B) for evaluated in self.tables]

    def _summary(self, evaluated: EvaluatedTable, chosen_B: Chosen) -> Summary:
        angle, weight = evaluated.angle_B[chosen_B], evaluated.weight_B[chosen_B]
        first = self.tables[0].angle_B[chosen_B]
        # Many events need fewer resamples: their intervals are narrow.
        resamples = min(self.resamples, max(ENOUGH_RESAMPLES, int(2e8 / len(angle))))
        shares = list(QUANTILES.values())
        values = [mean(angle, weight), mean(angle - first, weight)]
        values += quantile(angle, shares, weight).tolist()
        given = weight if is_weighted(weight) else None
        intervals = paired_intervals(
            np.stack([angle, angle - first]), given, resamples=resamples
        ).tolist()
        intervals += quantile_intervals(
            angle, shares, given, resamples=self.resamples
        ).tolist()
        estimates = {
            name: Estimate(value=float(value), low=low, high=high)
            for name, value, (low, high) in zip(
                ESTIMATES, values, intervals, strict=True
            )
        }
        return Summary(
            table=evaluated.table.name,
            events=len(angle),
            effective=None if given is None else effective_events(weight),
            failed=evaluated.num_failed(chosen_B),
            **estimates,
            pull=evaluated.median_pull(chosen_B),
            inside_50=evaluated.inside(0.5, chosen_B),
            inside_90=evaluated.inside(0.9, chosen_B),
        )


def evaluate(
    tables: Sequence[EventTable],
    truth: EventTruth,
    *,
    resamples: int = RESAMPLES,
    weight: str | None = None,
) -> Evaluation:
    """Evaluate results tables against the truth: directions and every other task.

    Directions are evaluated if tables have them. Another task is evaluated if a table
    has its columns and the truth has its labels. `notes` says what is not evaluated.

    Args:
        tables: One or more tables with different names; the first one is the reference
            of comparisons.
        truth: Truth of the tables' events, and possibly of more events. If it has no
            numbers of pulses, those of the first table that has them are used.
        resamples: Number of resamples of the bootstrap.
        weight: Column of the truth, or of a table, with the events' weights, 0 or more;
            default: all events count alike. Truth of a store and tables of files keep
            such a column if they are loaded with `columns=(weight,)`.

    Raises:
        ValueError: No table, two tables with one name, no common event, no event with
            status ok, nothing that can be evaluated, or bad weights.
    """
    _check(tables, truth, resamples)
    if weight is not None:
        truth = _weighted(truth, tables, weight)
    pointing = [table for table in tables if table.has_direction]
    notes = [note for table in tables for note in table.notes]
    nothing = truth.of_events(truth.event_id[:0])
    evaluation = Evaluation(truth=nothing, resamples=resamples)
    if pointing and truth.has(DIRECTION):
        evaluation = _evaluate_directions(pointing, truth, resamples)
        notes += evaluation.notes
    elif pointing:
        notes.append(f"direction is not evaluated: {missing_direction(truth)}")
    tasks = []
    for name in sorted({task for table in tables for task in table.tasks}):
        if name == DIRECTION:
            continue
        having = [table for table in tables if name in table.tasks]
        evaluated, task_notes = _evaluate_task(name, having, truth)
        notes += task_notes
        if evaluated is not None:
            tasks.append(evaluated)
    if not tasks and not evaluation.tables:
        raise ValueError("nothing can be evaluated. " + "; ".join(notes))
    return replace(evaluation, tasks=tuple(tasks), notes=tuple(notes))


def _check(tables: Sequence[EventTable], truth: EventTruth, resamples: int) -> None:
    """Raise ValueError unless tables have distinct names, results and common events."""
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "tables must have different names (give them as NAME=FILE), found "
            f"{', '.join(names)!r}"
        )
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(
            f"resamples must be {FEWEST_RESAMPLES} or more, found {resamples}"
        )
    for number, table in enumerate(tables):
        if not _shared_events(tables[: number + 1], truth).any():
            raise ValueError(
                f"table {table.name!r} has no event that the truth"
                + (" and the tables before" if number else "")
                + " have: check that the event numbers come from the same files"
            )
        if not (table.status_B == OK).any():
            raise ValueError(
                f"table {table.name!r} must have events of status ok, found only "
                f"{', '.join(sorted(set(table.status_B.tolist())))}"
            )


def _weighted(
    truth: EventTruth, tables: Sequence[EventTable], column: str
) -> EventTruth:
    """Return the truth with weights from a column of its own or of the tables.

    An event that no table has keeps NaN, which is refused where it is evaluated.
    """
    if column in truth.columns:
        values = truth.columns[column]
        weight_B = real_numbers(values, f"weights in column {column} of the truth")
        return replace(truth, weight_B=weight_B, weight_name=column)
    having = [table for table in tables if column in table.columns]
    if not having:
        known = {*truth.columns, *(name for table in tables for name in table.columns)}
        raise ValueError(
            f"the weights' column {column!r} must be in the truth or in a table of "
            f"results, found only {', '.join(sorted(known))}"
        )
    weight_B = np.full(len(truth), np.nan)
    for table in having:
        here_B = np.isin(truth.event_id, table.event_id)
        values = table.of_events(truth.event_id[here_B]).columns[column]
        found = real_numbers(values, f"weights in column {column} of {table.name!r}")
        old = weight_B[here_B]
        differ = ~np.isnan(old) & (old != found)
        if differ.any():
            row = int(differ.argmax())
            raise ValueError(
                f"event {truth.event_id[here_B][row]} must have one weight, found "
                f"{old[row]:g} and, in table {table.name!r}, {found[row]:g} in the "
                f"column {column}"
            )
        weight_B[here_B] = found
    return replace(truth, weight_B=weight_B, weight_name=column)


def _evaluate_directions(
    tables: Sequence[EventTable], truth: EventTruth, resamples: int
) -> Evaluation:
    """Evaluate tables of directions on the events that have a true direction."""
    shared_B = _shared_events(tables, truth)
    shared = truth.of_events(truth.event_id[shared_B])
    some = shared.with_directions()
    notes = []
    if unlabelled := len(shared) - len(some):
        notes.append(_unlabelled_note(shared, DIRECTION, unlabelled))
    some.check_weights()
    evaluated = tuple(EvaluatedTable.of(table, some) for table in tables)
    for one in evaluated:
        angle = one.angle_B[one.table.is_ok]
        if note := flipped_directions_note(angle, one.table.name):
            notes.append(note)
            LOGGER.warning(note)
    return Evaluation(
        truth=_with_pulses(some, [one.table for one in evaluated]),
        tables=evaluated,
        left_out=int((~shared_B).sum()),
        unknown={table.name: len(table) - len(shared) for table in tables},
        resamples=resamples,
        notes=tuple(notes),
    )


def _shared_events(tables: Sequence[EventTable], truth: EventTruth) -> Chosen:
    """Return which events of the truth are in all tables, (B,)."""
    shared_B = np.ones(len(truth), bool)
    for table in tables:
        shared_B &= np.isin(truth.event_id, table.event_id)
    return shared_B


def _with_pulses(truth: EventTruth, tables: Sequence[EventTable]) -> EventTruth:
    """Return the truth with numbers of pulses, if need be those of a table."""
    counts = [table.n_pulses_B for table in tables if table.n_pulses_B is not None]
    if truth.knows_pulses or not counts:
        return truth
    return replace(truth, n_pulses_B=counts[0])


def _evaluate_task(
    name: str, tables: Sequence[EventTable], truth: EventTruth
) -> tuple[TaskEvaluation | None, list[str]]:
    """Evaluate a registered task.

    Returns the evaluation, or None if nothing can be evaluated, and notes: the events
    that are left out, or the reason.
    """
    task = build_task(name)
    if reason := truth.lacking(task):
        return None, [f"{name} is not evaluated: {reason}"]
    some = truth.of_events(truth.event_id[_shared_events(tables, truth)])
    rows = [table.of_events(some.event_id) for table in tables]
    some = _with_pulses(some, rows)
    target = some.target(task)
    labelled_B = has_label(target)
    notes: list[str] = []
    if name == VERTEX:
        rows, notes = _on_clock_of(some, rows, target)
    if (~labelled_B).any():
        notes.append(_unlabelled_note(some, name, int((~labelled_B).sum())))
    good_B = labelled_B
    for table in rows:
        answered_B = table.has_answer(name)
        if count := int((labelled_B & ~answered_B).sum()):
            notes.append(
                f"{count:,} of {int(labelled_B.sum()):,} events have no result of "
                f"{name} in table {table.name!r} and are not evaluated in {name}"
            )
        good_B = good_B & answered_B
    if not good_B.any():
        reason = "no event has a label and a result in all tables"
        return None, [*notes, f"{name} is not evaluated: {reason}"]
    some = some.of_events(some.event_id[good_B])
    some.check_weights()
    target, known = target[good_B], some.known()
    columns = {
        table.name: {c: v[good_B] for c, v in table.task_columns(name).items()}
        for table in rows
    }
    try:
        section = task.report_section(columns, target, known)
    except KeyError as error:
        wanted = {column.name for column in task.columns}
        for table_name, values in columns.items():
            if error.args[0] in wanted - set(values):
                reason = f"table {table_name!r} has no column {error.args[0]}"
                return None, [*notes, f"{name} is not evaluated: {reason}"]
        raise
    if is_weighted(known.get(WEIGHT)) and not any(
        "effective_events" in row for row in section.rows
    ):
        notes.append(f"{name}: the task's section of the report does not use weights")
    evaluation = TaskEvaluation(
        task=name,
        truth=some,
        tables=columns,
        target=target,
        section=section,
    )
    return evaluation, notes


def _on_clock_of(
    truth: EventTruth, tables: Sequence[EventTable], target: Array
) -> tuple[list[EventTable], list[str]]:
    """Return tables whose times of vertices count as those of the truth, and notes.

    Times of another clock are converted where the truth has what a store subtracted
    from them, and left out otherwise, as are those whose clock is not known and which
    are too far away to be of the same one.
    """
    found, notes = list[EventTable](), list[str]()
    timed_B = target[:, TIME_KNOWN] > 0  # False for NaN
    for table in tables:
        given, time_B = table.clock, table.columns.get(VERTEX_TIME)
        if time_B is None or not timed_B.any():
            found.append(table)
            continue
        if given == WINDOW and TIME_ORIGIN in truth.columns:
            origin_B = np.asarray(truth.columns[TIME_ORIGIN], np.float64)
            time_B, given = time_B - origin_B, truth.clock
            table = table.with_columns({VERTEX_TIME: time_B})
        reason = ""
        if given and truth.clock and given != truth.clock:
            reason = f"they count on clock {given}, those of the truth on {truth.clock}"
        elif not given:
            off_B = (time_B - target[:, 3])[timed_B]
            off_B = off_B[np.isfinite(off_B)]
            middle = float(np.median(off_B)) if len(off_B) else 0.0
            if abs(middle) > FAR_TIME:
                reason = f"their median is {middle:,.0f} ns from that of the truth"
        if reason:
            notes.append(
                f"times of vertices of table {table.name!r} are not compared: {reason}."
                " Give the store that was reconstructed as the truth"
            )
            LOGGER.warning(notes[-1])
            dropped = (VERTEX_TIME, VERTEX_TIME_SIGMA)
            kept = {n: v for n, v in table.columns.items() if n not in dropped}
            table = replace(table, columns=kept)
        found.append(table)
    return found, notes


def _unlabelled_note(truth: EventTruth, task: str, count: int) -> str:
    """Return a sentence that counts events without a label."""
    return (
        f"{count:,} of {len(truth):,} events have no "
        f"{truth.description(build_task(task))} and are not evaluated in {task}"
    )
