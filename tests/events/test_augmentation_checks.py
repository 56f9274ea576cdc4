"""Checks of what a model leans on: each change by hand, and events that are lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.augmentation import (
    LOST,
    Augmentation,
    ChargeFactor,
    FirstPulseAt,
    Mirror,
    SwitchOff,
    TimeShift,
    apply_augmentations,
    first_times,
)
from graphnet_icecube2nd.events.events import Events

DETECTOR = build_detector("icecube86")
GEOMETRY = DETECTOR.modules_or_icecube86
# Two events: three pulses and two; the second has no HLC pulse.
EVENTS = Events(
    columns={
        "sensor_id": torch.tensor([0, 61, 5000, 7, 7], dtype=torch.int16),
        "time": torch.tensor([6000, 9000, 9500, 7000, 8000]),
        "charge": torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0]),
        "auxiliary": torch.tensor([True, False, False, True, True]),
    },
    offsets=torch.tensor([0, 3, 5]),
    n_pulses=torch.tensor([3, 2]),
    event_id=torch.tensor([10, 11]),
    truth={"direction": torch.tensor([[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]])},
)


def apply(events: Events, *augmentations: Augmentation, seed: int = 1) -> Events:
    return apply_augmentations(events, augmentations, seed=seed, detector=DETECTOR)


def places(events: Events) -> Events:
    """The same with x, y, z in place of sensor_id."""
    columns = dict(events.columns)
    position_T3 = GEOMETRY.position_S3[columns.pop("sensor_id").long()].float()
    columns.update(zip("xyz", position_T3.unbind(1), strict=True))
    return replace(events, columns=columns)


def test_shift_and_factor() -> None:
    moved = apply(EVENTS, TimeShift(shift=-1000.0), ChargeFactor(factor=1.25))
    assert moved.columns["time"].tolist() == [5000, 8000, 8500, 6000, 7000]
    assert moved.columns["charge"].tolist() == [1.25, 2.5, 0.625, 1.875, 1.25]
    assert EVENTS.columns["time"].tolist() == [6000, 9000, 9500, 7000, 8000]


def test_first_pulse() -> None:
    """Times since the first pulse, or the first HLC pulse where there is one."""
    any_pulse = apply(EVENTS, FirstPulseAt(time=0.0)).columns["time"]
    assert any_pulse.tolist() == [0, 3000, 3500, 0, 1000]
    hlc = apply(EVENTS, FirstPulseAt(time=100.0, hlc=True)).columns["time"]
    assert hlc.tolist() == [-2900, 100, 600, 100, 1100]
    assert first_times(EVENTS).tolist() == [6000, 7000]
    assert first_times(EVENTS, hlc=True).tolist() == [9000, 7000]
    flagged = {**EVENTS.columns, "hlc": ~EVENTS.columns["auxiliary"]}
    del flagged["auxiliary"]
    as_hlc = replace(EVENTS, columns=flagged)
    assert first_times(as_hlc, hlc=True).tolist() == [9000, 7000]


@pytest.mark.parametrize(("axis", "place"), [("x", 0), ("y", 1), ("z", 2)])
def test_mirror(axis: str, place: int) -> None:
    mirrored = apply(EVENTS, Mirror(axis=axis))
    expected_T3 = GEOMETRY.position_S3[EVENTS.columns["sensor_id"].long()].float()
    expected_T3[:, place] *= -1
    for name, column in zip("xyz", expected_T3.unbind(1), strict=True):
        torch.testing.assert_close(mirrored.columns[name], column)
    direction = EVENTS.truth["direction"].clone()
    direction[:, place] *= -1
    torch.testing.assert_close(mirrored.truth["direction"], direction)
    twice = apply(EVENTS, Mirror(axis=axis), Mirror(axis=axis))
    torch.testing.assert_close(twice.truth["direction"], EVENTS.truth["direction"])
    assert Mirror(axis=axis).signs == tuple(-1.0 if p == place else 1 for p in range(3))


@pytest.mark.parametrize("name", ["upgrade", "orca115"])
def test_mirror_turns_the_vectors_of_the_detector(name: str) -> None:
    detector = build_detector(name)
    ((x, _, z),) = detector.vectors
    look = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    events = replace(EVENTS, columns={**places(EVENTS).columns, x: look, z: look})
    mirrored = apply_augmentations(
        events, [Mirror(axis="z")], seed=1, detector=detector
    )
    torch.testing.assert_close(mirrored.columns[z], -look)
    torch.testing.assert_close(mirrored.columns[x], look)


def many(num_events: int, doms: list[int]) -> Events:
    """Events alike but for their ids, with a pulse in each of some DOMs."""
    num = len(doms)
    return Events(
        columns={
            "sensor_id": torch.tensor(doms * num_events),
            "time": torch.arange(num * num_events).float(),
        },
        offsets=num * torch.arange(num_events + 1),
        n_pulses=torch.full((num_events,), num),
        event_id=torch.arange(num_events),
        truth={},
    )


def test_switch_off_doms_and_strings() -> None:
    """Two DOMs of one string and one of another: what goes together, how often."""
    events = many(4000, [0, 1, 600])
    for unit, on_one in (("dom", False), ("string", True)):
        off = apply(events, SwitchOff(unit=unit, share=0.3))
        kept = [set(part.tolist()) for part in _split(off, "sensor_id")]
        lost = off.truth[LOST].numpy()
        together = [({0, 1} <= k) or not ({0, 1} & k) for k in kept]
        assert all(together) is on_one
        # Of lost events all is kept: a share of 0.3 ** independent units.
        expected = 0.3**2 if on_one else 0.3**3
        assert lost.mean() == pytest.approx(expected, abs=4 * (expected / 4000) ** 0.5)
        assert all(kept[e] == {0, 1, 600} for e in np.flatnonzero(lost))
        has_600 = np.array([600 in k for k in kept]) & ~lost
        assert has_600.mean() == pytest.approx(0.7, abs=0.03)
        assert off.n_pulses.tolist() == off.offsets.diff().tolist()


def test_switch_off_by_place() -> None:
    """Without sensor ids, DOMs and strings are told apart by where they are."""
    events = many(2000, [0, 1, 600])
    for unit in ("dom", "string"):
        off = apply(places(events), SwitchOff(unit=unit, share=0.5))
        x_of = GEOMETRY.position_S3[[0, 600], 0].float()
        z_of = GEOMETRY.position_S3[[0, 1], 2].float()
        alone = 0
        split = zip(_split(off, "x"), _split(off, "z"), strict=True)
        for (x, z), lost in zip(split, off.truth[LOST].tolist(), strict=True):
            here = z[torch.isclose(x, x_of[0])]
            alone += len(here) == 1 and not lost
            assert bool(torch.isin(here.round(), z_of.round()).all())
        assert (alone == 0) is (unit == "string")


def test_lost_adds_up() -> None:
    """Lost by either of two switches is lost."""
    events = many(500, [3])
    first, second = SwitchOff(unit="dom", share=0.5), SwitchOff(unit="dom", share=0.2)
    one = apply(events, first).truth[LOST]
    both = apply(events, first, second).truth[LOST]
    assert bool(both[one].all())
    assert one.double().mean() == pytest.approx(0.5, abs=0.1)
    assert both.double().mean() == pytest.approx(0.6, abs=0.1)
    assert not apply(events, SwitchOff(unit="dom", share=0.0)).truth[LOST].any()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="axis must be one of x, y, z; got 'w'"):
        Mirror(axis="w")
    with pytest.raises(ValueError, match="unit must be one of dom, string; got 'day'"):
        SwitchOff(unit="day", share=0.1)
    with pytest.raises(ValueError, match="share must be a finite number from 0, below"):
        SwitchOff(unit="dom", share=1.0)
    with pytest.raises(ValueError, match="charge_factor: factor must be"):
        ChargeFactor(factor=-1.0)
    with pytest.raises(ValueError, match="factor must be a finite number above 0; got"):
        ChargeFactor(factor=0.0)
    with pytest.raises(ValueError, match="shift must be a finite number; got nan"):
        TimeShift(shift=float("nan"))
    with pytest.raises(ValueError, match="time must be a finite number; got inf"):
        FirstPulseAt(time=float("inf"))
    bare = replace(EVENTS, columns={"sensor_id": EVENTS.columns["sensor_id"]})
    for augmentation, column in (
        (TimeShift(shift=1.0), "time"),
        (FirstPulseAt(time=0.0), "time"),
        (ChargeFactor(factor=2.0), "charge"),
    ):
        with pytest.raises(ValueError, match=f"needs column {column}"):
            apply(bare, augmentation)
    timed = {k: v for k, v in EVENTS.columns.items() if k in ("sensor_id", "time")}
    with pytest.raises(ValueError, match=r"needs column auxiliary \(or hlc\)"):
        apply(replace(EVENTS, columns=timed), FirstPulseAt(time=0.0, hlc=True))
    with pytest.raises(ValueError, match=r"needs column x \(or sensor_id\)"):
        apply(
            replace(EVENTS, columns={"time": timed["time"]}),
            SwitchOff(unit="string", share=0.5),
        )


def _split(events: Events, name: str) -> tuple[torch.Tensor, ...]:
    return events.columns[name].split(events.offsets.diff().tolist())
