"""Scores under perturbations, with networks that answer by a rule one can work out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, PackedBatch, PulseMap, build_model
from graphnet_icecube2nd.evaluation.robustness import (
    BASELINE,
    Perturbation,
    RobustnessRow,
    choose_events,
    default_perturbations,
    measure_robustness,
    num_passes,
)
from graphnet_icecube2nd.events.augmentation import (
    FirstPulseAt,
    Mirror,
    SwitchOff,
    TimeShift,
)
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.task import Task

BASE = Perturbation(group=BASELINE, strength="as stored")


class Rule(Model):
    """A model that gives kappa 4 times what a function makes of the batch, (B, 3)."""

    def __init__(self, answer: Callable[[PackedBatch], Tensor]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.direction = build_task("direction")
        self.answer = answer

    @property
    def task_map(self) -> dict[str, Task]:
        return {"direction": self.direction}

    def outputs(self, batch: PackedBatch, shared: Any = None) -> dict[str, Tensor]:
        return {"direction": self.scale * self.answer(batch)}


def column(batch: PackedBatch, name: str) -> list[Tensor]:
    values = batch.features[:, list(batch.names).index(name)]
    return list(values.split(batch.offsets.diff().tolist()))


def up(batch: PackedBatch) -> Tensor:
    return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(batch.offsets) - 1, 3)


def late(batch: PackedBatch) -> Tensor:
    """Up if the first pulse comes after 10,000 ns (feature 0), else down."""
    sign = torch.stack([t.min() for t in column(batch, "time")]).sign()
    return torch.stack([0 * sign, 0 * sign, sign], 1)


def centre(batch: PackedBatch) -> Tensor:
    """The way to the mean place of the pulses."""
    axes = [torch.stack([v.mean() for v in column(batch, axis)]) for axis in "xyz"]
    return nn.functional.normalize(torch.stack(axes, 1), dim=1)


def test_a_network_that_always_says_up(simulated: EventStore) -> None:
    """Its opening angle is the zenith of the truth, whatever is done to the pulses."""
    zenith = simulated.whole_event_column(simulated.pulse_map.labels.zenith)[:100]
    jitter = Perturbation(
        group="shift",
        strength="9 ns",
        augmentations=(TimeShift(shift=9.0),),
        published="x",
    )
    mirror = Mirror(axis="z")
    flipped = Perturbation(
        group="mirrored", strength="z", augmentations=(mirror,), signs=mirror.signs
    )
    base, shifted, mirrored = measure_robustness(
        Rule(up), simulated, range(100), perturbations=[BASE, jitter, flipped]
    )
    assert base.mean == pytest.approx(zenith.mean(), abs=1e-5)
    assert base.median == pytest.approx(np.degrees(np.median(zenith)), abs=1e-3)
    assert base.pull == pytest.approx(2 * np.median(zenith), abs=1e-4)
    # The cap of kappa 4 that holds 68%: its cosine by the closed form.
    edge = np.arccos(1 + np.log(1 - 0.68 * (1 - np.exp(-8))) / 4)
    assert base.inside == pytest.approx((zenith < edge).mean())
    assert (base.difference, base.low, base.high) == (0.0, 0.0, 0.0)
    assert (shifted.mean, shifted.difference) == (base.mean, 0.0)
    assert (shifted.published, base.published) == ("x", "")
    assert mirrored.mean == pytest.approx(np.pi - zenith.mean(), abs=1e-5)
    assert mirrored.difference == pytest.approx(mirrored.mean - base.mean)
    assert mirrored.low < mirrored.difference < mirrored.high
    few = measure_robustness(
        Rule(up), simulated, range(100), perturbations=[BASE, flipped], resamples=5
    )
    assert few[1].difference == mirrored.difference
    assert (few[1].low, few[1].high) != (mirrored.low, mirrored.high)


def test_absolute_times(simulated: EventStore) -> None:
    """A network that reads the clock: moved by enough, all of its answers turn."""
    options = InferenceConfig(max_pulses=8, selection="first")
    rows = measure_robustness(
        Rule(late),
        simulated,
        perturbations=[
            BASE,
            *(
                Perturbation(group="shift", strength=f"{s}", augmentations=(change,))
                for s, change in (
                    ("early", TimeShift(shift=-1e6)),
                    ("late", TimeShift(shift=1e6)),
                    ("zero", FirstPulseAt(time=0.0)),
                )
            ),
        ],
        options=options,
    )
    zenith = EventTruth.of(simulated).direction_B3[:, 2]
    zenith = np.arccos(zenith)
    expected = (np.pi - zenith).mean(), zenith.mean(), (np.pi - zenith).mean()
    for row, mean in zip(rows[1:], expected, strict=True):
        assert row.mean == pytest.approx(mean, abs=1e-5)


def test_a_mirrored_network_follows(simulated: EventStore) -> None:
    """One that points to the pulses turns with them: no difference, if truth does."""
    mirror = Mirror(axis="x")
    asked = [
        BASE,
        *(
            Perturbation(
                group="mirrored", strength=words, augmentations=(mirror,), signs=signs
            )
            for words, signs in (("x", mirror.signs), ("not", (1.0, 1.0, 1.0)))
        ),
    ]
    options = InferenceConfig()
    assert num_passes(asked, options) == 2
    base, followed, left = measure_robustness(
        Rule(centre), simulated, perturbations=asked, options=options
    )
    assert followed.difference == pytest.approx(0.0, abs=1e-6)
    assert followed.mean == pytest.approx(base.mean)
    assert abs(left.difference) > 1e-3


def test_events_without_pulses_are_counted(
    make_store: Callable[..., EventStore],
) -> None:
    """Empty in the store, or emptied: pi / 2, and said."""
    store = make_store({1: [0, *[1] * 300]})
    off = Perturbation(
        group="DOMs off",
        strength="50%",
        augmentations=(SwitchOff(unit="dom", share=0.5),),
    )
    base, half = measure_robustness(Rule(up), store, perturbations=[BASE, off])
    assert (base.events, base.no_pulses) == (301, 1)
    assert half.no_pulses == pytest.approx(1 + 150, abs=35)
    zenith = store.whole_event_column("zenith")[
        store.whole_event_column("n_pulses") > 0
    ]
    assert base.mean == pytest.approx((zenith.sum() + np.pi / 2) / 301, abs=1e-5)
    assert np.abs(half.difference) > 0
    nothing = Rule(lambda batch: up(batch) * float("nan"))
    row = measure_robustness(nothing, store, perturbations=[BASE])[0]
    assert (row.no_pulses, row.not_finite) == (1, 300)
    assert row.mean == pytest.approx(np.pi / 2)
    assert np.isnan(row.pull)
    assert np.isnan(row.inside)


def test_the_seed_and_the_selection_reach_the_network(
    simulated: EventStore, fill_weights: Callable[..., Any]
) -> None:
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
    model = fill_weights(build_model("t_sim", **sizes))
    long = np.argsort(simulated.whole_event_column("n_pulses"))[-12:]
    asked = [
        BASE,
        Perturbation(group="selection", strength="first", selection="first"),
        Perturbation(group="longest event", strength="L = 64", max_pulses=64),
        Perturbation(
            group="DOMs off",
            strength="10%",
            augmentations=(SwitchOff(unit="dom", share=0.1),),
        ),
    ]

    def means(seed: int) -> list[float]:
        options = InferenceConfig(max_pulses=32, seed=seed)
        rows = measure_robustness(
            model, simulated, long, perturbations=asked, options=options
        )
        return [row.mean for row in rows]

    once = means(1)
    assert len(set(once)) == 4
    assert means(1) == once
    other = means(2)
    assert other[1] == pytest.approx(once[1], abs=1e-6)  # the first draw nothing
    assert other[0] != once[0]
    assert other[3] != once[3]


def test_all_defaults_run(
    simulated: EventStore, fill_weights: Callable[..., Any]
) -> None:
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
    model = fill_weights(build_model("t_sim", **sizes))
    options, counted = InferenceConfig(max_pulses=64), [0, 0]

    def progress(events: int, pulses: int) -> None:
        counted[0] += events
        counted[1] += pulses

    asked = default_perturbations(simulated, range(20), options)
    rows = measure_robustness(
        model, simulated, range(20), options=options, on_progress=progress, resamples=20
    )
    assert [(r.group, r.strength) for r in rows] == [
        (p.group, p.strength) for p in asked
    ]
    assert counted[0] == 20 * num_passes(asked, options)
    for row in rows[1:]:
        assert row.mean == pytest.approx(rows[0].mean + row.difference)
        assert row.low <= row.high
    # Every perturbation does something: a network at random weights sees all of it.
    assert all(row.difference != 0 for row in rows[1:]), [
        (r.group, r.strength) for r in rows[1:] if r.difference == 0
    ]


def test_a_centre_elsewhere(make_store: Callable[..., EventStore]) -> None:
    """What turns or adds positions is left out, and the rest runs."""
    store = make_store(
        {1: [30, 40]}, pulse_map=PulseMap.kaggle(origin=(0.0, 0.0, -1948.0))
    )
    rows = measure_robustness(Rule(up), store, range(2), resamples=20)
    groups = {row.group for row in rows}
    assert {"time jitter", "charge scale", "DOMs off", "strings off"} < groups
    assert not {"added noise", "mirrored"} & groups


def test_choose_events(simulated: EventStore) -> None:
    assert choose_events(simulated, None, 0).tolist() == list(range(256))
    some = choose_events(simulated, 30, 0)
    assert len(set(some.tolist())) == 30
    assert some.tolist() == sorted(some.tolist())
    assert some.tolist() == choose_events(simulated, 30, 0).tolist()
    assert some.tolist() != choose_events(simulated, 30, 1).tolist()
    for bad in (0, 257):
        with pytest.raises(ValueError, match=f"must be 1 to 256.*found {bad}"):
            choose_events(simulated, bad, 0)


def test_what_is_refused(simulated: EventStore) -> None:
    model = Rule(up)
    with pytest.raises(ValueError, match="at least one event"):
        measure_robustness(model, simulated, [])
    with pytest.raises(ValueError, match=r"different names.*baseline, as stored"):
        measure_robustness(model, simulated, [0], perturbations=[BASE, BASE])
    other = Perturbation(group="other", strength="1")
    with pytest.raises(ValueError, match=r"the first perturbation.*found other"):
        measure_robustness(model, simulated, [0], perturbations=[other, BASE])
    with pytest.raises(ValueError, match="found none"):
        measure_robustness(model, simulated, [0], perturbations=[])


def test_every_number_of_a_row_is_documented() -> None:
    text = RobustnessRow.__doc__ or ""
    assert all(field.name in text for field in fields(RobustnessRow))
