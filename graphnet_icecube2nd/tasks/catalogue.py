"""Tasks by name; importing this module registers those of the package."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.energy import Energy
from graphnet_icecube2nd.tasks.inelasticity import Inelasticity, VisibleInelasticity
from graphnet_icecube2nd.tasks.label import (
    ENERGY_COLUMNS,
    TOPOLOGY,
    VERTEX_TIME_COLUMNS,
)
from graphnet_icecube2nd.tasks.masked_pulses import MaskedPulses
from graphnet_icecube2nd.tasks.neutrino import Neutrino
from graphnet_icecube2nd.tasks.task import TASKS, Task, register_task
from graphnet_icecube2nd.tasks.topology import Topology
from graphnet_icecube2nd.tasks.track import Track
from graphnet_icecube2nd.tasks.vertex import Vertex
from graphnet_icecube2nd.tasks.visible_energy import VisibleEnergy

OWN = (
    *(Direction, Energy, VisibleEnergy, Inelasticity, VisibleInelasticity),
    *(Vertex, Topology, Track, Neutrino),
)
register_task(MaskedPulses)
# Columns of all results, for any task; event_no is event_id in SQLite.
STATUS = "status"
RESERVED = ("event_id", "event_no", "n_pulses", STATUS, "calibrated")
# Affixes of names of reconstructed quantities, in GraphNeT and other packages.
PREDICTION = "_pred"
MARKS_AFTER, MARKS_BEFORE = (PREDICTION, "_reco"), ("pred_", "reco_")


def build_task(name: str, **kwargs: Any) -> Task:
    """Build a task by name.

    Args:
        name: Name from `list_tasks()`.
        **kwargs: Constructor arguments of the task.

    Raises:
        ValueError: The name is unknown (the message gives the nearest names), or a
            constructor argument is.
    """
    task_class = TASKS.get(name)
    try:
        task: Task = task_class(**kwargs)
    except TypeError as error:
        raise ValueError(f"task {name!r}: {error}") from None
    return task


def list_tasks(pattern: str = "*") -> list[str]:
    """Return the names of the matching tasks; `*` and `?` work as in a shell.

    They are those that answer; `masked_pulses` is only for pre-training.
    """
    return [name for name in TASKS.names(pattern) if TASKS.get(name).columns]  # type: ignore[attr-defined]


def are_results(columns: Collection[str]) -> bool:
    """Return whether a table with these columns contains results, not only truth.

    Results of this package have a status, or widths, and the columns of a task. Other
    packages mark theirs with a name, `zenith_pred`, `zenith_reco` or `reco_zenith`;
    the table may also contain truth.
    """
    return any(map(is_marked, columns)) or are_our_results(columns)


def are_our_results(columns: Collection[str]) -> bool:
    """Return whether columns are results with this package's names, without truth."""
    tasks = [build_task(name) for name in list_tasks()]
    answers = {column.name for task in tasks for column in task.columns}
    truth = {"azimuth", "zenith", *ENERGY_COLUMNS, TOPOLOGY, *VERTEX_TIME_COLUMNS}
    answers -= truth.union(*(task.truth for task in tasks))
    answers.add("calibrated")  # also with a task that is not registered here
    return bool({STATUS, "kappa"} & set(columns) and answers & set(columns))


def is_marked(column: str) -> bool:
    """Return whether a column's name marks a reconstructed quantity."""
    name = column.lower()
    return name.endswith(MARKS_AFTER) or name.startswith(MARKS_BEFORE)


def build_tasks(
    tasks: Sequence[str] | Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Task], dict[str, float]]:
    """Return tasks by name, and the weights of their losses.

    Accepts names, or options by name: `weight` (default: `Task.default_weight`; 1 for a
    single task) and constructor arguments. Raises ValueError for no task, a repeated
    one, an unknown name or argument, a weight below 0, or two tasks with one column.
    """
    names = distinct_tasks(tasks)
    if not names:
        raise ValueError("tasks must name one task at least, found none")
    options = dict(tasks) if isinstance(tasks, Mapping) else {n: {} for n in names}
    built, weights = {}, {}
    for name, given in options.items():
        kwargs = {key: value for key, value in given.items() if key != "weight"}
        built[name] = build_task(name, **kwargs)
        default = 1.0 if len(options) == 1 else built[name].default_weight
        weight = given.get("weight", default)
        weights[name] = task_weight(weight, f"tasks.{name}.weight")
    _check_columns(built)
    return built, weights


def distinct_tasks(names: Iterable[str]) -> list[str]:
    """Return names of tasks as a list; ValueError if one is repeated."""
    names = list(names)
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"tasks must be different, found {repeated[0]!r} more than once: name it "
            "once"
        )
    return names


def task_weight(value: Any, where: str) -> float:
    """Return the weight of a task's loss; messages call it `where`."""
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(f"{where} must be a number, 0 or more, found {value!r}")
    return weight


def _check_columns(tasks: Mapping[str, Task]) -> None:
    """Raise ValueError if tasks would overwrite columns of results."""
    owner: dict[str, str] = {}
    for name, task in tasks.items():
        for column in (column.name for column in task.columns):
            if column in RESERVED:
                raise ValueError(
                    f"task {name!r} has a column {column!r}, which all results have: "
                    "rename the column"
                )
            if column in owner:
                raise ValueError(
                    f"tasks {owner[column]!r} and {name!r} both have a column "
                    f"{column!r}: rename one, or leave a task out"
                )
            owner[column] = name
