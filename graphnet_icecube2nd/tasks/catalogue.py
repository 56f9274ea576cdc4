"""Tasks by name; those of the package are registered when this is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.energy import Energy
from graphnet_icecube2nd.tasks.task import TASKS, Task
from graphnet_icecube2nd.tasks.track import Track

OWN = (Direction, Energy, Track)


def build_task(name: str, **kwargs: Any) -> Task:
    """Return a task by name.

    Args:
        name: One of `list_tasks()`.
        **kwargs: Constructor arguments of the task.

    Raises:
        ValueError: No such task, with the nearest names; or no such argument.
    """
    task_class = TASKS.get(name)
    try:
        task: Task = task_class(**kwargs)
    except TypeError as error:
        raise ValueError(f"task {name!r}: {error}") from None
    task.options = dict(kwargs)
    return task


def list_tasks(pattern: str = "*") -> list[str]:
    """Return the names of the tasks that match; `*` and `?` as in a shell."""
    return TASKS.names(pattern)


def build_tasks(
    tasks: Sequence[str] | Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Task], dict[str, float]]:
    """Return tasks by name, and the weights of their losses.

    Args:
        tasks: Names; or options by name: `weight` (default 1) and constructor
            arguments.

    Raises:
        ValueError: No task, one twice, an unknown name or argument, a weight below 0.
    """
    names = list(tasks)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks are one or several different names, got {names}")
    options = dict(tasks) if isinstance(tasks, Mapping) else {n: {} for n in names}
    built, weights = {}, {}
    for name, given in options.items():
        kwargs = dict(given)
        weight = float(kwargs.pop("weight", 1.0))
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the weight of task {name!r} must be 0 or more: {weight}")
        built[name] = build_task(name, **kwargs)
        weights[name] = weight
    return built, weights
