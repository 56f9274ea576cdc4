"""What may be otherwise in data than in simulation: perturbations of a store's events.

Each is a change to pulses, or another way of choosing them; the list asks what IceCube
people ask: clocks, gains, noise, dead DOMs, symmetry, the start of the window, the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import AUXILIARY, CHARGE, HLC, TIME
from graphnet_icecube2nd.events.augmentation import (
    AXES,
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
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES

BASELINE = "baseline"
AS_STORED = "as stored"
AT_ONCE = 1024  # events read together
LENGTHS = (96, 192, 384)


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One row of a robustness report: what is done to events.

    Args:
        group: What is otherwise, as `time jitter`; rows of a group stand together.
        strength: How much, with its unit.
        augmentations: Changes to the kept pulses.
        selection: Which pulses are kept, where not as in the baseline.
        max_pulses: L, where not as in the baseline.
        signs: What the true direction is multiplied by, x, y, z.
        published: What others found, with the source; empty: nothing is known.
    """

    group: str
    strength: str
    augmentations: tuple[Augmentation, ...] = ()
    selection: str | None = None
    max_pulses: int | None = None
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)
    published: str = ""

    @property
    def name(self) -> str:
        """Group and strength, which no other row has."""
        return f"{self.group}, {self.strength}"

    def options(self, options: InferenceConfig) -> InferenceConfig:
        """Return how the network sees events, given how it sees the baseline's."""
        return replace(
            options,
            selection=self.selection or options.selection,
            max_pulses=self.max_pulses or options.max_pulses,
        )


def default_perturbations(
    store: EventStore,
    numbers: Sequence[int] | NDArray[np.int64],
    options: InferenceConfig,
) -> list[Perturbation]:
    """Return the perturbations that a store allows, the baseline first.

    Left out is what a store has no columns for, and noise where it has no DOM table of
    its detector. Where times count from an event's first pulse, moving whole events
    changes nothing, and those rows are left out too.

    Args:
        store: The store.
        numbers: (B,) the events; their first pulses' median is where `first pulse`
            rows put them.
        options: How the network sees events.
    """
    known = store.pulse_map.columns()
    quantities = {known[column] for column in store.pulse_columns if column in known}
    has_flag = bool(quantities & {AUXILIARY, HLC})
    rows = [Perturbation(group=BASELINE, strength=AS_STORED)]
    if TIME in quantities:
        jitters = {f"{s:g} ns": TimeJitter(sigma=s) for s in (1.0, 3.0, 10.0, 30.0)}
        rows += _group("time jitter", jitters)
        if store.pulse_map.time_reference != "first_pulse":
            shifts = (-1000.0, -100.0, 100.0, 1000.0)
            rows += _group(
                "time offset of the event",
                {f"{shift:+,.0f} ns": TimeShift(shift=shift) for shift in shifts},
            )
            rows += _first_pulses(store, numbers, options, has_flag)
    if CHARGE in quantities:
        rows += _group(
            "charge scale",
            {f"x {f:g}": ChargeFactor(factor=f) for f in (0.8, 0.9, 1.1, 1.25)},
        )
        rows += _group(
            "charge jitter of the pulse",
            {f"{s:.0%}": ChargeScale(sigma=0.0, pulse_sigma=s) for s in (0.1, 0.3)},
        )
    rates = (50.0, 200.0, 560.0)
    noise = {f"{rate:g} Hz a DOM": AddNoise(rate_per_dom=rate) for rate in rates}
    if _allows(store, tuple(noise.values())[:1]):
        rows += _group("added noise", noise)
    shares = (0.01, 0.03, 0.1, 0.3)
    dead = {f"{share:.0%}": SwitchOff(unit="dom", share=share) for share in shares}
    num_strings = len(np.unique(store.geometry.string_S.numpy()))
    strings = {
        f"{number} in {num_strings}": SwitchOff(
            unit="string", share=number / num_strings
        )
        for number in (1, 5, 10)
        if number < num_strings
    }
    rows += _group("DOMs off", dead) + _group("strings off", strings)
    return rows + _mirrors() + _selections(options, has_flag)


def first_times_of(
    store: EventStore,
    numbers: Sequence[int] | NDArray[np.int64],
    options: InferenceConfig,
    *,
    hlc: bool = False,
) -> NDArray[np.float64]:
    """Return when the first kept pulse of events came, ns; (B,) but for empty events.

    Args:
        store: The store.
        numbers: (B,) the events.
        options: How pulses are chosen.
        hlc: Of HLC pulses, in events that have any.
    """
    chunks = read_in_chunks(store, numbers, options)
    times = [first_times(events, hlc=hlc) for _, events in chunks]
    return np.concatenate(times) if times else np.empty(0)


def read_in_chunks(
    store: EventStore,
    numbers: Sequence[int] | NDArray[np.int64],
    options: InferenceConfig,
    augmentations: tuple[Augmentation, ...] = (),
) -> Iterator[tuple[NDArray[np.int64], Events]]:
    """Yield the kept pulses of the events that have any, and rows in `numbers`.

    Args:
        store: The store.
        numbers: (B,) the events.
        options: How pulses are chosen.
        augmentations: Changes to the kept pulses.
    """
    reader = EventReader(
        store,
        max_pulses=options.max_pulses,
        selection=options.selection,
        seed=options.seed,
        truth=(),
        augmentations=augmentations,
    )
    numbers = np.asarray(numbers, np.int64)
    full = np.flatnonzero(store.whole_event_column(N_PULSES)[numbers] > 0)
    for start in range(0, len(full), AT_ONCE):
        rows = full[start : start + AT_ONCE]
        yield rows, reader.raw(numbers[rows])


def _group(group: str, changes: Mapping[str, Augmentation]) -> list[Perturbation]:
    """Return a row for each change to pulses, by its strength."""
    return [
        Perturbation(group=group, strength=strength, augmentations=(change,))
        for strength, change in changes.items()
    ]


def _first_pulses(
    store: EventStore,
    numbers: Sequence[int] | NDArray[np.int64],
    options: InferenceConfig,
    has_flag: bool,
) -> list[Perturbation]:
    """Return rows without the start of the window; the median keeps times likely."""
    changes = {}
    for hlc in (False, True) if has_flag else (False,):
        first_B = first_times_of(store, numbers, options, hlc=hlc)
        if not len(first_B):
            continue
        what = "first HLC pulse" if hlc else "first pulse"
        median = round(float(np.median(first_B)))
        for time, where in ((0.0, "0 ns"), (float(median), f"median, {median:,} ns")):
            changes[f"{what} at {where}"] = FirstPulseAt(time=time, hlc=hlc)
    return _group("start of the window taken away", changes)


def _mirrors() -> list[Perturbation]:
    rows = []
    for axis in AXES:
        mirror = Mirror(axis=axis)
        for signs, words in ((mirror.signs, ""), ((1.0, 1.0, 1.0), ", truth not")):
            rows.append(
                Perturbation(
                    group="mirrored",
                    strength=f"{axis}{words}",
                    augmentations=(mirror,),
                    signs=signs,
                )
            )
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


def _allows(store: EventStore, augmentations: tuple[Augmentation, ...]) -> bool:
    """Say whether a store's DOMs and columns do for augmentations."""
    full = np.flatnonzero(store.whole_event_column(N_PULSES) > 0)
    try:
        reader = EventReader(store, truth=(), augmentations=augmentations)
        reader.raw(full[:1])
    except ValueError:
        return False
    return True
