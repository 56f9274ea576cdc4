"""Answers of a task beside its labels, for the task's section of the report.

Directions have an evaluation of their own, `evaluation.metrics`; this is that of every
other task, registered by whomever. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.label import DIRECTION, ENERGY, has_label
from graphnet_icecube2nd.tasks.section import Section


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskEvaluation:
    """A task's answers of one or several tables, for the same events.

    Args:
        task: Name of the task.
        event_id: (B,) events with a label, and an answer in all of the tables.
        tables: The task's columns, (B,) each, by table.
        target: (B, ...) what the task's target is of the truth.
        known: Further truth, (B,) each: `energy` (GeV, NaN where it is not known),
            `n_pulses`.
        section: What the report says of it.
    """

    task: str
    event_id: NDArray[np.int64]
    tables: Mapping[str, Mapping[str, NDArray[Any]]]
    target: NDArray[np.float64]
    known: Mapping[str, NDArray[Any]]
    section: Section


def other_tasks(tables: Sequence[EventTable]) -> dict[str, list[EventTable]]:
    """Return tables by task, of the tasks other than the direction that they have."""
    names = sorted({task for table in tables for task in table.tasks} - {DIRECTION})
    return {name: [t for t in tables if name in t.tasks] for name in names}


def shared_events(tables: Sequence[EventTable], truth: EventTruth) -> NDArray[np.bool_]:
    """Return which events of the truth are in all of some tables, (B,)."""
    shared_B = np.ones(len(truth), bool)
    for table in tables:
        shared_B &= np.isin(truth.event_id, table.event_id)
    return shared_B


def with_pulses(truth: EventTruth, tables: Sequence[EventTable]) -> EventTruth:
    """Return a truth with numbers of pulses: else the first table's that has them.

    Args:
        truth: Of B events.
        tables: Rows of the same events.
    """
    counts = [table.n_pulses_B for table in tables if table.n_pulses_B is not None]
    if truth.knows_pulses or not counts:
        return truth
    return replace(truth, n_pulses_B=counts[0])


def evaluate_task(
    name: str, tables: Sequence[EventTable], truth: EventTruth
) -> tuple[TaskEvaluation | None, list[str]]:
    """Put the answers of a task beside the truth.

    Args:
        name: A registered task.
        tables: That have its columns.
        truth: Of their events and perhaps more.

    Returns:
        The evaluation, or None where nothing can be judged; and notes: which events
        are left out, or why nothing can be judged.
    """
    task = build_task(name)
    if reason := truth.lacking(task):
        return None, [f"{name} is not judged: {reason}"]
    some = truth.of_events(truth.event_id[shared_events(tables, truth)])
    rows = [table.of_events(some.event_id) for table in tables]
    some = with_pulses(some, rows)
    target = some.target(task)
    labelled_B = has_label(target)
    notes = []
    if (~labelled_B).any():
        notes.append(unlabelled_note(some, name, int((~labelled_B).sum())))
    good_B = labelled_B
    for table in rows:
        answered_B = table.has_answer(name)
        if count := int((labelled_B & ~answered_B).sum()):
            notes.append(
                f"{count:,} of {int(labelled_B.sum()):,} events have no answer of "
                f"{name} in table {table.name!r} and are not judged in {name}"
            )
        good_B = good_B & answered_B
    if not good_B.any():
        reason = "no event has a label, and an answer in all of the tables"
        return None, [*notes, f"{name} is not judged: {reason}"]
    known: dict[str, NDArray[Any]] = {}
    if np.isfinite(some.energy_B).any():
        known[ENERGY] = some.energy_B[good_B]
    if some.knows_pulses:
        known[N_PULSES] = some.n_pulses_B[good_B]
    columns = {
        table.name: {c: v[good_B] for c, v in table.task_columns(name).items()}
        for table in rows
    }
    try:
        section = task.report_section(columns, target[good_B], known)
    except KeyError as error:
        wanted = {column.name for column in task.columns}
        for table_name, values in columns.items():
            if error.args[0] in wanted - set(values):
                reason = f"table {table_name!r} has no column {error.args[0]}"
                return None, [*notes, f"{name} is not judged: {reason}"]
        raise
    found = TaskEvaluation(
        task=name,
        event_id=some.event_id[good_B],
        tables=columns,
        target=target[good_B],
        known=known,
        section=section,
    )
    return found, notes


def unlabelled_note(truth: EventTruth, task: str, count: int) -> str:
    """Return a sentence that counts events without a label."""
    return (
        f"{count:,} of {len(truth):,} events have no "
        f"{truth.description(build_task(task))} and are not judged in {task}"
    )
