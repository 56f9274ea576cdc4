"""Robustness of a model's score when data differ from its simulation.

A perturbation changes the pulses or their selection. The default list covers clocks,
gains, noise, dead DOMs, symmetry, the start of the window and the maximum number of
pulses. All rows use the same events and the same seed, so a row differs from the
baseline only by its perturbation. The bootstrap is paired, so a difference is known far
better than the scores themselves.

Shape letters: B events, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import AUXILIARY, CHARGE, HLC, TIME
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable
from graphnet_icecube2nd.events.augmentation import (
    AXES,
    LOST,
    AddNoise,
    Augmentation,
    ChargeFactor,
    ChargeScale,
    FirstPulseAt,
    Mirror,
    SwitchOff,
    TimeJitter,
    TimeShift,
    first_times,
)
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.events.selection import SELECTIONS
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import (
    NO_PULSES,
    event_reader,
    predict_events,
)
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.statistics import RESAMPLES, paired_intervals
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.direction.direction import Direction

INSIDE = 0.68  # level of the contour whose coverage is reported
BASELINE, AS_STORED = "baseline", "as stored"
AT_ONCE = 1024  # events read together
LENGTHS = (96, 192, 384)

Array = NDArray[np.float64]
Numbers = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Change to the events in one row of a robustness report."""

    group: str  # kind of change, such as `time jitter`; rows of a group stand together
    strength: str  # amount of the change, with its unit
    augmentations: tuple[Augmentation, ...] = ()  # changes to the kept pulses
    selection: str | None = None  # selection of pulses; None: the baseline's
    max_pulses: int | None = None  # L; None: the baseline's
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of the true direction
    published: str = ""  # published result, with its source

    @property
    def name(self) -> str:
        """Group and strength; unique among the rows."""
        return f"{self.group}, {self.strength}"

    def options(self, options: InferenceConfig) -> InferenceConfig:
        """Return the configuration of this row, given that of the baseline."""
        return replace(
            options,
            selection=self.selection or options.selection,
            max_pulses=self.max_pulses or options.max_pulses,
        )


@dataclass(frozen=True, kw_only=True)
class RobustnessRow:
    """Score under a perturbation, and its difference from the baseline.

    Args:
        group: Kind of perturbation.
        strength: Amount of the perturbation, with its unit.
        events: Number of events, including those without a direction.
        no_pulses: Number of events without pulses after the perturbation.
        not_finite: Number of events with a result that is not finite.
        mean: Mean opening angle, rad, the competition's score; an event without a
            direction counts as pi / 2, the mean of a random direction.
        difference: `mean` minus the baseline's, rad; above 0 is worse.
        low: Lower end of the 95% interval of `difference`, rad.
        high: Upper end of the 95% interval of `difference`, rad.
        median: Median opening angle, deg.
        pull: Median of opening angle times the root of kappa: 1.18 if kappa is
            calibrated and large.
        inside: Share of true directions inside the 68% contours; below 0.68, kappa is
            too large.
        published: Published result, with its source; empty if none is known.
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
    """Return the rows of randomly drawn events (None: all) of a store, ascending."""
    if num_events is None:
        return np.arange(len(store))
    if not 1 <= num_events <= len(store):
        raise ValueError(
            f"{store.path} has {len(store)} events: the number of events must be 1 to "
            f"{len(store)}, found {num_events}"
        )
    draw = np.random.default_rng(seed).choice(len(store), num_events, replace=False)
    return np.sort(draw)


def measure_robustness(
    model: Model,
    store: EventStore,
    numbers: Numbers | None = None,
    *,
    perturbations: Sequence[Perturbation] | None = None,
    options: InferenceConfig | None = None,
    resamples: int = RESAMPLES,
    on_progress: Progress | None = None,
) -> list[RobustnessRow]:
    """Measure how the score of a model changes under perturbations.

    Args:
        model: Model or ensemble with a direction task, on the device that it runs on.
        store: Events with true directions.
        numbers: Rows of the events in the store, (B,); None: all events.
        perturbations: Perturbations, the baseline first; default: all that the store
            allows.
        options: How the model reads events; its seed is the seed of all random draws.
        resamples: Number of resamples of the bootstrap.
        on_progress: Called with the numbers of new events and pulses, for each pass of
            the network.

    Returns:
        Rows, one for each perturbation, in their order.

    Raises:
        ValueError: The model has no directions, there is no event or no true direction,
            there is not exactly one baseline, two rows have one name, or the store does
            not allow a perturbation.
    """
    if Direction.name not in model.task_map:
        raise ValueError(
            "robustness needs a model with the task direction, found only "
            f"{', '.join(model.task_map)}"
        )
    options = options or InferenceConfig()
    chosen = np.arange(len(store)) if numbers is None else np.asarray(numbers, np.int64)
    if not len(chosen):
        raise ValueError("numbers must name at least one event, found none")
    truth = EventTruth.of(store, chosen)
    truth.check_finite()
    if perturbations is None:
        perturbations = default_perturbations(store, chosen, options)
    _check_names(perturbations)
    tables: dict[object, EventTable] = {}
    evaluated: list[EvaluatedTable] = []
    for asked in perturbations:
        key = _what_is_seen(asked, options)
        if key not in tables:
            tables[key] = _reconstructed(
                model, store, chosen, asked, options, on_progress
            )
        turned = replace(truth, direction_B3=truth.direction_B3 * asked.signs)
        angle_B = turned.angles(tables[key])
        evaluated.append(EvaluatedTable(table=tables[key], angle_B=angle_B))
    baseline_B = evaluated[0].angle_B
    intervals = paired_intervals(
        np.stack([one.angle_B - baseline_B for one in evaluated]),
        resamples=resamples,
        seed=options.seed,
    )
    return [
        _row(asked, one, baseline_B, interval)
        for asked, one, interval in zip(
            perturbations, evaluated, intervals, strict=True
        )
    ]


def num_passes(perturbations: Sequence[Perturbation], options: InferenceConfig) -> int:
    """Return the number of network passes; rows with the same input share one."""
    return len({_what_is_seen(asked, options) for asked in perturbations})


def default_perturbations(
    store: EventStore, numbers: Numbers, options: InferenceConfig
) -> list[Perturbation]:
    """Return the perturbations that a store allows, the baseline first.

    Rows whose columns the store lacks are left out. Noise needs a DOM table of the
    store's detector; noise and mirrors need its centre at 0. If times count from a
    pulse of the event, shifting an event changes nothing, and those rows are left out.
    The median in the `first pulse` rows is that of these events.
    """
    known = store.pulse_map.columns()
    quantities = {known[column] for column in store.pulse_columns if column in known}
    has_flag = bool(quantities & {AUXILIARY, HLC})
    changes: dict[str, dict[str, Augmentation]] = {}  # by group and strength
    if TIME in quantities:
        sigmas = (1.0, 3.0, 10.0, 30.0)
        changes["time jitter"] = {f"{s:g} ns": TimeJitter(sigma=s) for s in sigmas}
        if not store.pulse_map.is_relative:
            changes["time offset of the event"] = {
                f"{shift:+,.0f} ns": TimeShift(shift=shift)
                for shift in (-1000.0, -100.0, 100.0, 1000.0)
            }
            changes["start of the window taken away"] = _first_pulses(
                store, numbers, options, has_flag
            )
    if CHARGE in quantities:
        factors = (0.8, 0.9, 1.1, 1.25)
        changes["charge scale"] = {f"x {f:g}": ChargeFactor(factor=f) for f in factors}
        changes["charge jitter of the pulse"] = {
            f"{s:.0%}": ChargeScale(sigma=0.0, pulse_sigma=s) for s in (0.1, 0.3)
        }
    rates = (50.0, 200.0, 560.0)
    if _allows(store, AddNoise(rate_per_dom=rates[0])):
        changes["added noise"] = {
            f"{rate:g} Hz a DOM": AddNoise(rate_per_dom=rate) for rate in rates
        }
    changes["DOMs off"] = {
        f"{share:.0%}": SwitchOff(unit="dom", share=share)
        for share in (0.01, 0.03, 0.1, 0.3)
    }
    all_of_them = len(np.unique(store.geometry.string_S.numpy()))
    changes["strings off"] = {
        f"{n} in {all_of_them}": SwitchOff(unit="string", share=n / all_of_them)
        for n in (1, 5, 10)
        if n < all_of_them
    }
    rows = [Perturbation(group=BASELINE, strength=AS_STORED)]
    rows += [
        Perturbation(group=group, strength=strength, augmentations=(change,))
        for group, by_strength in changes.items()
        for strength, change in by_strength.items()
    ]
    mirrors = [] if any(store.pulse_map.origin) else _mirrors()
    return rows + mirrors + _selections(options, has_flag)


def _first_pulses(
    store: EventStore, numbers: Numbers, options: InferenceConfig, has_flag: bool
) -> dict[str, Augmentation]:
    """Return shifts of the first pulse to 0 ns and to the events' median time."""
    changes: dict[str, Augmentation] = {}
    for hlc in (False, True) if has_flag else (False,):
        first_B = first_times_of(store, numbers, options, hlc=hlc)
        if not len(first_B):
            continue
        what = "first HLC pulse" if hlc else "first pulse"
        median = round(float(np.median(first_B)))
        for time, where in ((0.0, "0 ns"), (float(median), f"median, {median:,} ns")):
            changes[f"{what} at {where}"] = FirstPulseAt(time=time, hlc=hlc)
    return changes


def _mirrors() -> list[Perturbation]:
    rows = []
    for mirror in (Mirror(axis=axis) for axis in AXES):
        alone = Perturbation(
            group="mirrored",
            strength=f"{mirror.axis}, truth not",
            augmentations=(mirror,),
        )
        rows += [replace(alone, strength=mirror.axis, signs=mirror.signs), alone]
    return rows


def _selections(options: InferenceConfig, has_flag: bool) -> list[Perturbation]:
    ways = [
        Perturbation(group="selection", strength=way, selection=way)
        for way in SELECTIONS
        if way != options.selection and (has_flag or way != "hlc_first")
    ]
    return ways + [
        Perturbation(group="longest event", strength=f"L = {most}", max_pulses=most)
        for most in LENGTHS
        if most != options.max_pulses
    ]


def _allows(store: EventStore, change: Augmentation) -> bool:
    """Return whether a store has the DOMs and columns that an augmentation needs."""
    full = np.flatnonzero(store.whole_event_column(N_PULSES) > 0)
    try:
        EventReader(store, truth=(), augmentations=(change,)).raw(full[:1])
    except ValueError:
        return False
    return True


def _what_is_seen(asked: Perturbation, options: InferenceConfig) -> object:
    """Return what the network's output depends on; the truth does not belong to it."""
    return (asked.augmentations, asked.options(options))


def _check_names(perturbations: Sequence[Perturbation]) -> None:
    names = [asked.name for asked in perturbations]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"perturbations need different names, found {twice} twice")
    groups = [asked.group for asked in perturbations]
    if groups[:1] != [BASELINE] or groups.count(BASELINE) > 1:
        raise ValueError(
            f"the first perturbation, and no other, must be of group {BASELINE!r}; "
            f"found {', '.join(groups) or 'none'}"
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
    # Events that have pulses in the store but none after the perturbation.
    lost_B = np.zeros(len(numbers), np.bool_)
    for rows, events in read_in_chunks(store, numbers, seen, asked.augmentations):
        marked = events.truth.get(LOST)
        if marked is None:  # this perturbation removes no pulses
            break
        lost_B[rows] = marked.numpy()
    columns = {
        name: np.where(lost_B, np.nan, values)
        for name, values in table.columns.items()
        if values.dtype.kind == "f"
    }
    status_B = np.where(lost_B, NO_PULSES, table.status_B)
    return replace(table, columns={**table.columns, **columns}, status_B=status_B)


def first_times_of(
    store: EventStore, numbers: Numbers, options: InferenceConfig, *, hlc: bool = False
) -> NDArray[np.float64]:
    """Return the time of the first kept pulse (or HLC pulse) of each event, ns."""
    chunks = read_in_chunks(store, numbers, options)
    times = [first_times(events, hlc=hlc) for _, events in chunks]
    return np.concatenate(times) if times else np.empty(0)


def read_in_chunks(
    store: EventStore,
    numbers: Numbers,
    options: InferenceConfig,
    augmentations: tuple[Augmentation, ...] = (),
) -> Iterator[tuple[NDArray[np.int64], Events]]:
    """Yield batches of kept pulses, and their events as indices into `numbers`."""
    reader = event_reader(store, options, augmentations)
    numbers = np.asarray(numbers, np.int64)
    full = np.flatnonzero(store.whole_event_column(N_PULSES)[numbers] > 0)
    for start in range(0, len(full), AT_ONCE):
        rows = full[start : start + AT_ONCE]
        yield rows, reader.raw(numbers[rows])


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
