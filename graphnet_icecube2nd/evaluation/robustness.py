"""How a model's score moves when data are not as its simulation has them.

All rows see the same events with the same seed, so a row and the baseline differ by the
perturbation alone, and differences are known far better than the scores themselves: the
bootstrap draws events for both at once. Shape letters: B events, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.bootstrap import RESAMPLES, paired_intervals
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable
from graphnet_icecube2nd.evaluation.perturbations import (
    BASELINE,
    Perturbation,
    default_perturbations,
    read_in_chunks,
)
from graphnet_icecube2nd.events.augmentation import LOST
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import (
    NO_PULSES,
    Progress,
    predict_events,
)
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.direction.direction import Direction

INSIDE = 0.68  # the contour whose coverage is reported

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RobustnessRow:
    """What a perturbation does to the score.

    Args:
        group: What is otherwise than in the baseline.
        strength: How much, with its unit.
        events: How many, those without a direction included.
        no_pulses: How many of them have no pulse (left).
        not_finite: How many the network gave no number for.
        mean: Opening angle, rad, the competition's score; events without a direction
            count as pi / 2, what guessing gives.
        difference: Of `mean` from the baseline's, rad; above 0 is worse.
        low, high: Ends of its 95% interval, rad.
        median: Opening angle, deg.
        pull: Median of opening angle times the root of kappa: 1.18 if kappa is
            calibrated and large.
        inside: Share of true directions within the contours that are to hold 68%:
            below it, kappa promises too much.
        published: What others found, with the source; empty: nothing is known.
    """

    group: str
    strength: str
    events: int
    no_pulses: int
    not_finite: int
    mean: float
    difference: float
    low: float
    high: float
    median: float
    pull: float
    inside: float
    published: str


def choose_events(
    store: EventStore, num_events: int | None, seed: int
) -> NDArray[np.int64]:
    """Return numbers of some events of a store, in its order; None for all.

    Args:
        store: The store.
        num_events: How many; drawn from all, without repetition.
        seed: Another seed draws others.

    Raises:
        ValueError: Fewer than 1, or more than there are.
    """
    if num_events is None:
        return np.arange(len(store))
    if not 1 <= num_events <= len(store):
        raise ValueError(
            f"events must be 1 to {len(store)}, which {store.path} has; got "
            f"{num_events}"
        )
    draw = np.random.default_rng(seed).choice(len(store), num_events, replace=False)
    return np.sort(draw)


def measure_robustness(
    model: Model,
    store: EventStore,
    numbers: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    perturbations: Sequence[Perturbation] | None = None,
    options: InferenceConfig | None = None,
    resamples: int = RESAMPLES,
    on_progress: Progress | None = None,
) -> list[RobustnessRow]:
    """Return how the score of a model moves under perturbations.

    Args:
        model: A model or an ensemble with directions, on the device it is to run on.
        store: Events with true directions.
        numbers: (B,) which of them; None for all.
        perturbations: The baseline first; default: all that the store allows.
        options: How the network sees events; its seed is that of everything drawn.
        resamples: Of the bootstrap.
        on_progress: Called with new events and pulses, for each network run.

    Returns:
        A row for each perturbation, in their order.

    Raises:
        ValueError: A model without directions, no event, no true direction, no or two
            baselines, two rows of one name, a perturbation that the store does not
            allow.
    """
    if Direction.name not in model.task_map:
        raise ValueError(
            "robustness is measured with directions, and the model has only "
            f"{', '.join(model.task_map)}"
        )
    options = options or InferenceConfig()
    chosen = np.arange(len(store)) if numbers is None else np.asarray(numbers, np.int64)
    if not len(chosen):
        raise ValueError("there is no event to perturb")
    truth = EventTruth.of(store, chosen)
    truth.check_finite()
    if perturbations is None:
        perturbations = default_perturbations(store, chosen, options)
    _check_names(perturbations)
    tables: dict[object, EventTable] = {}
    for asked in perturbations:
        key = _what_is_seen(asked, options)
        if key not in tables:
            tables[key] = _reconstructed(
                model, store, chosen, asked, options, on_progress
            )
    found = [tables[_what_is_seen(asked, options)] for asked in perturbations]
    angle_RB = np.stack(
        [
            replace(truth, direction_B3=truth.direction_B3 * asked.signs).angles(table)
            for table, asked in zip(found, perturbations, strict=True)
        ]
    )
    intervals = paired_intervals(
        angle_RB - angle_RB[0], resamples=resamples, seed=options.seed
    )
    return [
        _row(asked, EvaluatedTable(table=table, angle_B=angle_B), angle_RB[0], interval)
        for asked, table, angle_B, interval in zip(
            perturbations, found, angle_RB, intervals, strict=True
        )
    ]


def num_passes(perturbations: Sequence[Perturbation], options: InferenceConfig) -> int:
    """Return how often a network runs over the events: once for rows seen alike."""
    return len({_what_is_seen(asked, options) for asked in perturbations})


def _what_is_seen(asked: Perturbation, options: InferenceConfig) -> object:
    """Return what a network's answers depend on: the truth is not among it."""
    return (asked.augmentations, asked.options(options))


def _check_names(perturbations: Sequence[Perturbation]) -> None:
    names = [asked.name for asked in perturbations]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two perturbations have one name: {twice}")
    groups = [asked.group for asked in perturbations]
    if groups[:1] != [BASELINE] or groups.count(BASELINE) > 1:
        raise ValueError(
            f"the first perturbation, and no other, must be of group {BASELINE!r}; "
            f"got {', '.join(groups) or 'none'}"
        )


def _reconstructed(
    model: Model,
    store: EventStore,
    numbers: NDArray[np.int64],
    asked: Perturbation,
    options: InferenceConfig,
    on_progress: Progress | None,
) -> EventTable:
    """Return directions of perturbed events; those without pulses have none."""
    seen = asked.options(options)
    table = predict_events(
        model,
        store,
        numbers,
        name=asked.name,
        options=seen,
        augmentations=asked.augmentations,
        on_progress=on_progress,
    )
    # Events with pulses in the store, and none once perturbed.
    lost_B = np.zeros(len(numbers), np.bool_)
    for rows, events in read_in_chunks(store, numbers, seen, asked.augmentations):
        marked = events.truth.get(LOST)
        if marked is None:  # nothing in this perturbation takes pulses away
            break
        lost_B[rows] = marked.numpy()
    columns = {
        name: np.where(lost_B, np.nan, values)
        for name, values in table.columns.items()
        if values.dtype.kind == "f"
    }
    status_B = np.where(lost_B, NO_PULSES, table.status_B)
    return replace(table, columns={**table.columns, **columns}, status_B=status_B)


def _row(
    asked: Perturbation, evaluated: EvaluatedTable, baseline_B: Array, interval: Array
) -> RobustnessRow:
    """Return a perturbation's row; `baseline_B` are the baseline's angles, rad."""
    table, angle_B = evaluated.table, evaluated.angle_B
    everything = np.ones(len(table), bool)
    no_pulses = table.status_B == NO_PULSES
    low, high = interval.tolist()
    return RobustnessRow(
        group=asked.group,
        strength=asked.strength,
        events=len(table),
        no_pulses=int(no_pulses.sum()),
        not_finite=int((~table.is_ok & ~no_pulses).sum()),
        mean=float(angle_B.mean()),
        difference=float((angle_B - baseline_B).mean()),
        low=low,
        high=high,
        median=float(np.degrees(np.median(angle_B))),
        pull=evaluated.median_pull(everything),
        inside=evaluated.inside(INSIDE, everything),
        published=asked.published,
    )
