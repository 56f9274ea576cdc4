"""Augmentations: what each does, what it depends on, that an event is never empty."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    angles_to_unit_vector,
    opening_angle,
    unit_vector_to_angles,
    wrap_azimuth,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.augmentation import (
    AddNoise,
    Augmentation,
    ChargeScale,
    DropDoms,
    DropPmts,
    DropStrings,
    MaskTo,
    RotateAboutZ,
    TimeJitter,
    TimeOffset,
    apply_augmentations,
    augmentation_from_dict,
    augmentation_to_dict,
)
from graphnet_icecube2nd.events.events import Events, time_order

DETECTOR = build_detector("icecube86")
GEOMETRY = DETECTOR.modules_or_icecube86
ALL: tuple[Augmentation, ...] = (
    TimeJitter(sigma=3.0),
    TimeOffset(sigma=40.0),
    ChargeScale(sigma=0.1, pulse_sigma=0.2),
    DropDoms(probability=0.3),
    DropStrings(probability=0.3),
    AddNoise(rate_per_dom=300.0),
    RotateAboutZ(max_angle=2.0),
)
EACH = pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.kind)


def make_events(
    lengths: list[int], *, places: bool = False, seed: int = 0, window: float = 1e4
) -> Events:
    """Events of random pulses in the order of time, with ids 100, 103, ..."""
    generator = torch.Generator().manual_seed(seed)
    num_pulses, num_events = sum(lengths), len(lengths)
    event = torch.arange(num_events).repeat_interleave(torch.tensor(lengths))
    time = 6000 + window * torch.rand(num_pulses, generator=generator)
    dom = torch.randint(len(GEOMETRY), (num_pulses,), generator=generator)
    columns: dict[str, Tensor] = {
        "time": time[time_order(time, event.numpy())],
        "charge": 0.3 + torch.rand(num_pulses, generator=generator),
        "auxiliary": torch.rand(num_pulses, generator=generator) < 0.8,
    }
    if places:
        position = GEOMETRY.position_S3[dom].float()
        columns.update(zip("xyz", position.unbind(1), strict=True))
    else:
        columns["sensor_id"] = dom.to(torch.int16)
    zenith = math.pi * torch.rand(num_events, generator=generator)
    azimuth = 2 * math.pi * torch.rand(num_events, generator=generator)
    return Events(
        columns=columns,
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        n_pulses=torch.tensor(lengths),
        event_id=100 + 3 * torch.arange(num_events),
        truth={
            "direction": angles_to_unit_vector(zenith, azimuth),
            "zenith": zenith,
            "azimuth": azimuth,
            "energy": torch.ones(num_events),
        },
    )


def take(events: Events, chosen: list[int]) -> Events:
    """Some of the events, in the order given."""
    rows = [
        torch.arange(*events.offsets[event : event + 2].tolist()) for event in chosen
    ]
    return Events(
        columns={
            name: value[torch.cat(rows)] for name, value in events.columns.items()
        },
        offsets=torch.tensor([0, *map(len, rows)]).cumsum(0),
        n_pulses=events.n_pulses[chosen],
        event_id=events.event_id[chosen],
        truth={name: value[chosen] for name, value in events.truth.items()},
    )


def apply(
    events: Events, *augmentations: Augmentation, seed: int = 1, epoch: int = 0
) -> Events:
    return apply_augmentations(
        events, augmentations, seed=seed, epoch=epoch, detector=DETECTOR
    )


def same(a: Events, b: Events) -> bool:
    tables = [(a.columns, b.columns), (a.truth, b.truth)]
    return all(
        getattr(a, name).tolist() == getattr(b, name).tolist()
        for name in ("offsets", "n_pulses", "event_id")
    ) and all(
        one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in tables
    )


def event_of_pulse(events: Events) -> Tensor:
    lengths = events.offsets.diff()
    return torch.arange(len(lengths)).repeat_interleave(lengths)


class TestAll:
    @EACH
    @pytest.mark.parametrize("places", [False, True])
    def test_not_on_the_batch(self, augmentation: Augmentation, places: bool) -> None:
        events = make_events([40, 1, 7, 300, 25], places=places)
        together = apply(events, augmentation)
        for chosen in ([3, 0, 4, 2, 1], [2], [3], [1]):
            part = apply(take(events, chosen), augmentation)
            assert same(part, take(together, chosen))

    @EACH
    def test_on_seed_epoch_and_place_in_the_list(
        self, augmentation: Augmentation
    ) -> None:
        events = make_events([60, 80])
        seen = [
            apply(events, augmentation, seed=seed, epoch=epoch)
            for seed in (1, 2)
            for epoch in (0, 1)
        ]
        seen.append(apply(events, TimeOffset(sigma=0.0), augmentation))
        for index, one in enumerate(seen):
            assert not any(same(one, other) for other in seen[:index])
        assert same(seen[0], apply(events, augmentation))

    @EACH
    def test_nothing_global_nothing_changed(self, augmentation: Augmentation) -> None:
        events, copy = make_events([60, 80]), make_events([60, 80])
        state = torch.random.get_rng_state()
        apply(events, augmentation)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert same(events, copy)

    @settings(max_examples=40, deadline=None)
    @given(
        lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
        chosen=st.lists(st.sampled_from(range(len(ALL))), max_size=5, unique=True),
        cut=st.integers(0, 1000),
        places=st.booleans(),
    )
    def test_what_comes_out(
        self, lengths: list[int], chosen: list[int], cut: int, places: bool
    ) -> None:
        """Whole events in the order of time; n_pulses follows; types stay."""
        events = make_events(lengths, places=places)
        events = replace(events, n_pulses=events.n_pulses + cut)
        changed = apply(events, *(ALL[index] for index in sorted(chosen)))
        num_pulses = int(changed.offsets[-1])
        assert changed.offsets.diff().min() >= 1
        gained = changed.offsets.diff() - events.offsets.diff()
        assert torch.equal(changed.n_pulses, events.n_pulses + gained)
        assert torch.equal(changed.event_id, events.event_id)
        assert set(events.columns) <= set(changed.columns)
        for name, value in changed.columns.items():
            assert value.shape == (num_pulses,)
            assert value.dtype == events.columns.get(name, torch.empty(0)).dtype
        event = event_of_pulse(changed).numpy()
        in_order = time_order(changed.columns["time"], event)
        assert torch.equal(in_order, torch.arange(num_pulses))
        assert (changed.columns["charge"] > 0).all()

    def test_none(self) -> None:
        events = make_events([5])
        assert apply(events) is events

    def test_your_own(self) -> None:
        def only_first(events: Events, key: object, detector: Detector) -> Events:
            return take(events, [0])

        assert len(apply(make_events([3, 4]), only_first).event_id) == 1


class TestTime:
    def test_jitter(self) -> None:
        events = make_events([20_000], window=0.0)
        shift = apply(events, TimeJitter(sigma=3.0)).columns["time"] - 6000
        assert float(shift.mean()) == pytest.approx(0, abs=0.1)
        assert float(shift.std()) == pytest.approx(3, rel=0.02)

    def test_columns_stay_together(self) -> None:
        events = make_events([500, 300])
        number = torch.arange(800)
        columns = {**events.columns, "number": number, "before": events.columns["time"]}
        moved = apply(replace(events, columns=columns), TimeJitter(sigma=50.0))
        order = moved.columns["number"]
        assert not torch.equal(order, number)
        assert sorted(order.tolist()) == number.tolist()
        for name in ("charge", "sensor_id"):
            assert torch.equal(moved.columns[name], events.columns[name][order])
        shift = moved.columns["time"] - moved.columns["before"]
        assert float(shift.std()) == pytest.approx(50, rel=0.1)

    def test_offset(self) -> None:
        events = make_events([3] * 5000, window=0.0)
        shift = apply(events, TimeOffset(sigma=40.0)).columns["time"] - 6000
        shift = shift.reshape(-1, 3)
        assert float(shift.std(1).max()) == 0
        assert float(shift[:, 0].mean()) == pytest.approx(0, abs=2.5)
        assert float(shift[:, 0].std()) == pytest.approx(40, rel=0.04)

    def test_whole_nanoseconds_become_fractions(self) -> None:
        events = make_events([50])
        time = events.columns["time"].long()
        events = replace(events, columns={**events.columns, "time": time})
        for augmentation in (TimeJitter(sigma=1.0), TimeOffset(sigma=1.0)):
            moved = apply(events, augmentation).columns["time"]
            assert moved.dtype == torch.float64
            assert (moved != moved.round()).any()

    @pytest.mark.parametrize("start", [0.0, -3e6, 1e18])
    @pytest.mark.parametrize("num_events", [3, 4000])
    def test_time_order(self, start: float, num_events: int) -> None:
        """Also where one float64 does not tell event and time apart."""
        rng = np.random.default_rng(0)
        event = np.sort(rng.integers(0, num_events, 20_000))
        time = start + rng.integers(0, 50, 20_000) * (1e16 if start > 1 else 0.1)
        order = time_order(torch.from_numpy(time), event)
        assert order.tolist() == np.lexsort((time, event)).tolist()


class TestChargeScale:
    def test_one_factor_an_event(self) -> None:
        events = make_events([4] * 5000)
        ratio = apply(events, ChargeScale(sigma=0.1)).columns["charge"]
        ratio = (ratio / events.columns["charge"]).log().reshape(-1, 4)
        assert float(ratio.std(1).max()) < 1e-6
        assert float(ratio[:, 0].mean()) == pytest.approx(0, abs=0.006)
        assert float(ratio[:, 0].std()) == pytest.approx(0.1, rel=0.05)

    def test_and_one_a_pulse(self) -> None:
        events = make_events([4] * 5000)
        scale = ChargeScale(sigma=0.1, pulse_sigma=0.3)
        ratio = apply(events, scale).columns["charge"] / events.columns["charge"]
        ratio = ratio.log().reshape(-1, 4)
        assert float(ratio.var(1).mean() ** 0.5) == pytest.approx(0.3, rel=0.03)
        assert float(ratio.var()) == pytest.approx(0.1**2 + 0.3**2, rel=0.05)

    def test_no_charge(self) -> None:
        events = make_events([4])
        events = replace(events, columns={"time": events.columns["time"]})
        with pytest.raises(ValueError, match="charge_scale needs column charge;"):
            apply(events, ChargeScale(sigma=0.1))


class TestDrop:
    @pytest.mark.parametrize("places", [False, True])
    @pytest.mark.parametrize("kind", [DropDoms, DropStrings])
    def test_whole_doms_or_strings(self, kind: type, places: bool) -> None:
        """A few DOMs with many pulses: all of a DOM's go, or none."""
        dom = torch.tensor([5, 65, 66, 4000, 4001]).repeat(80)
        events = make_events([400] * 50)
        columns = {"time": events.columns["time"], "sensor_id": dom.repeat(50)}
        if places:
            position = GEOMETRY.position_S3[columns["sensor_id"]].float()
            columns.update(zip("xyz", position.unbind(1), strict=True))
            hidden = columns.pop("sensor_id")
        changed = apply(
            replace(events, columns={**columns, "label": dom.repeat(50)}),
            kind(probability=0.4),
        )
        assert not places or len(hidden) == 20_000
        label = changed.columns["label"]
        group = GEOMETRY.string_S[label] if kind is DropStrings else label
        found = set()
        for event in range(50):
            inside = event_of_pulse(changed) == event
            names, counts = group[inside].unique(return_counts=True)
            full = {"drop_doms": {80}, "drop_strings": {80, 160}}[kind.kind]  # type: ignore[attr-defined]
            assert set(counts.tolist()) <= full
            found.add(tuple(names.tolist()))
        assert len(found) > 4  # not the same ones in every event

    @pytest.mark.parametrize("kind", [DropDoms, DropStrings])
    def test_share(self, kind: Any) -> None:
        events = make_events([500] * 100)
        left = apply(events, kind(probability=0.2)).offsets.diff() / 500
        assert float(left.mean()) == pytest.approx(0.8, abs=0.01)
        assert torch.equal(apply(events, kind(probability=0.0)).offsets, events.offsets)

    def test_never_empty(self) -> None:
        """Where all would go, all stay; about that often."""
        events = make_events([1] * 3000 + [2] * 3000)
        left = apply(events, DropDoms(probability=0.6)).offsets.diff()
        assert (left[:3000] == 1).all()
        one, two = ((left[3000:] == n).float().mean() for n in (1, 2))
        assert float(one) == pytest.approx(2 * 0.6 * 0.4, abs=0.03)
        assert float(two) == pytest.approx(0.4**2 + 0.6**2, abs=0.03)

    def test_places_of_both_signs_of_zero(self) -> None:
        events = make_events([2] * 300)
        x = torch.tensor([0.0, -0.0]).repeat(300)
        columns = {"time": events.columns["time"], "x": x, "y": x, "z": x}
        left = apply(replace(events, columns=columns), DropDoms(probability=0.5))
        assert set(left.offsets.diff().tolist()) == {2}

    def test_nothing_to_tell_doms_apart(self) -> None:
        events = make_events([2])
        events = replace(events, columns={"time": events.columns["time"]})
        with pytest.raises(ValueError, match=r"needs column x \(or sensor_id\)"):
            apply(events, DropDoms(probability=0.5))


ORCA = build_detector("orca115")
PMTS = torch.nn.functional.normalize(
    torch.tensor([[1.0, 0, 0.5], [0, 1, 0], [0, 1, 2]])
)


def sea_events(lengths: list[int], strings: list[int]) -> tuple[Events, Tensor, Tensor]:
    """Hits on a few modules of some strings, and their module and PMT, (T,) each.

    Modules are up to 3 m from their place, in the coordinates of the files.
    """
    generator = torch.Generator().manual_seed(7)
    events, modules = make_events(lengths), ORCA.modules_or_icecube86
    num = sum(lengths)
    rows = torch.isin(modules.string_S, torch.tensor(strings)).nonzero()[:, 0]
    dom_T = rows[torch.randint(len(rows), (num,), generator=generator)]
    pmt_T = torch.randint(len(PMTS), (num,), generator=generator)
    sway_S3 = 1.5 * torch.rand(len(modules), 3, generator=generator)
    place_T3 = (modules.position_S3 + sway_S3)[dom_T] + torch.tensor(ORCA.pulses.origin)
    columns = {
        "time": events.columns["time"],
        **dict(zip("xyz", place_T3.float().unbind(1), strict=True)),
        **dict(zip(ORCA.vectors[0], PMTS[pmt_T].unbind(1), strict=True)),
        "place": torch.arange(num),
    }
    return replace(events, columns=columns), dom_T, pmt_T


class TestGeometry:
    @pytest.mark.parametrize("kind", [DropDoms, DropStrings, DropPmts])
    def test_whole_units_and_nothing_else(self, kind: Any) -> None:
        events, dom_T, pmt_T = sea_events([600] * 30, [1, 2, 5])
        unit_T = {
            "drop_doms": dom_T,
            "drop_strings": ORCA.modules_or_icecube86.string_S[dom_T],
            "drop_pmts": 10 * dom_T + pmt_T,
        }[kind.kind]
        kept = apply_augmentations(
            events, [kind(probability=0.4)], seed=1, detector=ORCA
        )
        keep_T = torch.isin(events.columns["place"], kept.columns["place"])
        dropped = set()
        for event in range(30):
            inside = slice(600 * event, 600 * (event + 1))
            left, gone = (
                set(unit_T[inside][which].tolist())
                for which in (keep_T[inside], ~keep_T[inside])
            )
            assert left
            assert not left & gone
            dropped.add(tuple(sorted(gone)))
        assert len(dropped) > 3
        assert float(keep_T.double().mean()) == pytest.approx(0.6, abs=0.15)

    @pytest.mark.parametrize(
        ("mask", "numbers"),
        [
            (MaskTo(strings=(2, 3)), {2, 3}),
            (MaskTo(detector="orca10"), {1, 2, 3, 4, 5, 6, 7, 9, 11, 16}),
        ],
    )
    def test_only_some_strings(self, mask: MaskTo, numbers: set[int]) -> None:
        events, dom_T, _ = sea_events([200, 1], [2, 16, 50, 60, 90])
        last = ORCA.modules_or_icecube86.position_S3[-1] + torch.tensor(
            ORCA.pulses.origin
        )
        for axis, value in zip("xyz", last.tolist(), strict=True):
            events.columns[axis][-1] = value  # string 115
        truth = {**events.truth, "pid": torch.tensor([12, 14])}
        events = replace(events, truth=truth)
        kept = apply_augmentations(events, [mask], seed=1, detector=ORCA)
        string_T = ORCA.modules_or_icecube86.string_S[dom_T[:200]]
        wanted = torch.isin(string_T, torch.tensor(sorted(numbers)))
        assert kept.columns["place"].tolist() == [*wanted.nonzero()[:, 0].tolist(), 200]
        assert kept.n_pulses.tolist() == [int(wanted.sum()), 1]
        for name in ("direction", "azimuth", "energy"):
            assert torch.equal(kept.truth[name][0], events.truth[name][0])
            assert kept.truth[name][1].isnan().all()
        assert kept.truth["pid"].tolist() == [12, 14]

    @pytest.mark.parametrize(
        ("augmentation", "name", "words"),
        [
            (DropPmts(probability=0.1), "icecube86", "drop_pmts .*icecube86"),
            (MaskTo(strings=(1, 116)), "orca115", "orca115 .*116.* 1 to 115"),
            (MaskTo(detector="orca10"), "orca6", "km3net_orca6.*fewer"),
            (MaskTo(detector="orca6"), "prometheus", "prometheus.*--geometry"),
            (MaskTo(strings=(1,)), "arca115", "8 m .*arca115"),
        ],
    )
    def test_what_is_not_there(
        self, augmentation: Augmentation, name: str, words: str
    ) -> None:
        events, _, _ = sea_events([20], [1])
        if name == "icecube86":
            events = make_events([20])
        with pytest.raises(ValueError, match=words):
            apply_augmentations(
                events, [augmentation], seed=1, detector=build_detector(name)
            )


class TestAddNoise:
    def test_how_many(self) -> None:
        events = make_events([2] * 4000)
        edges = torch.tensor([5000.0, 15_000.0]).repeat(4000)
        events = replace(events, columns={**events.columns, "time": edges})
        added = apply(events, AddNoise(rate_per_dom=200.0)).offsets.diff() - 2
        mean = 200 * 1e-9 * 1e4 * float(GEOMETRY.rde_S.sum())
        assert float(added.double().mean()) == pytest.approx(mean, rel=0.02)
        assert float(added.double().var()) == pytest.approx(mean, rel=0.08)
        wider = apply(events, AddNoise(rate_per_dom=200.0, margin=5e3))
        added = wider.offsets.diff() - 2
        assert float(added.double().mean()) == pytest.approx(2 * mean, rel=0.02)
        # Of an event that was cut to a tenth, a tenth of the noise is left.
        events = replace(events, n_pulses=10 * events.n_pulses)
        added = apply(events, AddNoise(rate_per_dom=200.0)).offsets.diff() - 2
        assert float(added.double().mean()) == pytest.approx(mean / 10, rel=0.05)

    @pytest.mark.parametrize("places", [False, True])
    def test_what_they_are(self, places: bool) -> None:
        events = make_events([30] * 400, places=places)
        flags = {
            "hlc": ~events.columns["auxiliary"],
            "rde": torch.full((12_000,), 7.0),
            "auxiliary": events.columns["auxiliary"].to(torch.uint8),
        }
        events = replace(events, columns={**events.columns, **flags})
        noisy = apply(events, AddNoise())
        event = event_of_pulse(noisy)
        new = noisy.columns["rde"] < 7
        for name, value in events.columns.items():
            assert torch.equal(noisy.columns[name][~new], value)
        noise = {name: value[new] for name, value in noisy.columns.items()}
        count = int(new.sum())
        assert count > 5000
        assert (noise["auxiliary"] == 1).all()
        assert not noise["hlc"].any()
        assert float(noise["charge"].min()) >= 0.25
        assert float(noise["charge"].mean()) == pytest.approx(1, abs=0.02)
        assert float(noise["charge"].std()) == pytest.approx(0.3, abs=0.02)
        time = events.columns["time"].reshape(400, 30)
        first, last = (edge.values[event[new]] for edge in (time.min(1), time.max(1)))
        where = (noise["time"] - first) / (last - first)
        assert float(where.min()) >= 0
        assert float(where.max()) <= 1
        assert float(where.mean()) == pytest.approx(0.5, abs=0.02)
        if places:
            position = torch.stack([noise[axis] for axis in "xyz"], 1)
            dom = GEOMETRY.nearest_dom(position, 0.01)
            assert (dom >= 0).all()
        else:
            dom = noise["sensor_id"].long()
        assert torch.equal(noise["rde"], GEOMETRY.rde_S[dom].float())
        assert len(dom.unique()) > 0.6 * len(GEOMETRY)
        efficient = (GEOMETRY.rde_S > 1.1)[dom].double().mean()
        rate = GEOMETRY.rde_S
        wanted = float(rate[rate > 1.1].sum() / rate.sum())
        assert float(efficient) == pytest.approx(wanted, abs=0.02)

    def test_whole_nanoseconds_stay_whole(self) -> None:
        events = make_events([30])
        time = events.columns["time"].long()
        events = replace(events, columns={**events.columns, "time": time})
        assert apply(events, AddNoise()).columns["time"].dtype == torch.int64

    def test_one_pulse_has_no_time_for_noise(self) -> None:
        events = make_events([1, 1])
        assert apply(events, AddNoise()) is events

    def test_column_of_its_own(self) -> None:
        events = make_events([30])
        columns = {**events.columns, "pmt_dir_x": torch.ones(30)}
        with pytest.raises(ValueError, match="no values for column pmt_dir_x"):
            apply(replace(events, columns=columns), AddNoise())

    def test_comes_before_turning(self) -> None:
        events = make_events([30])
        with pytest.raises(ValueError, match="add_noise must come before rotate"):
            apply(events, RotateAboutZ(), AddNoise())


class TestRotateAboutZ:
    @pytest.mark.parametrize("places", [False, True])
    def test_pulses_and_truth_turn_alike(self, places: bool) -> None:
        events = make_events([20] * 200, places=places)
        if places:
            before = torch.stack([events.columns[axis] for axis in "xyz"], 1)
        else:
            before = GEOMETRY.lookup(events.columns["sensor_id"]).float()
        turned = apply(events, RotateAboutZ())
        after = torch.stack([turned.columns[axis] for axis in "xyz"], 1)
        assert torch.equal(after[:, 2], before[:, 2])
        assert not torch.allclose(after[:, :2], before[:, :2], atol=10)
        # What a model can learn from: how the pulses lie to the direction.
        event = event_of_pulse(events)
        for vectors in (events.truth["direction"], turned.truth["direction"]):
            assert torch.allclose(vectors.norm(dim=1), torch.ones(200), atol=1e-6)
        along_before = (before * events.truth["direction"][event]).sum(1)
        along_after = (after * turned.truth["direction"][event]).sum(1)
        assert torch.allclose(along_before, along_after, atol=1e-3)

    def test_angles_stay_those_of_the_direction(self) -> None:
        events = make_events([2] * 500)
        turned = apply(events, RotateAboutZ())
        direction = turned.truth["direction"]
        zenith, azimuth = unit_vector_to_angles(direction)
        assert torch.equal(turned.truth["zenith"], events.truth["zenith"])
        assert torch.allclose(zenith, events.truth["zenith"], atol=1e-5)
        assert torch.equal(turned.truth["energy"], events.truth["energy"])
        named = turned.truth["azimuth"]
        assert (named >= 0).all()
        assert (named < 2 * math.pi).all()
        again = angles_to_unit_vector(zenith, named)
        assert float(opening_angle(again, direction).max()) < 1e-5
        angle = (azimuth - events.truth["azimuth"]).remainder(2 * math.pi)
        counts = torch.histc(angle, 5, 0, 2 * math.pi)
        assert float(counts.min()) > 60  # of 100: any angle

    def test_small_angles(self) -> None:
        events = make_events([2] * 500)
        turned = apply(events, RotateAboutZ(max_angle=0.1))
        difference = turned.truth["azimuth"] - events.truth["azimuth"]
        angle = (difference + math.pi).remainder(2 * math.pi) - math.pi
        assert 0.09 < float(angle.max()) < 0.1001
        assert -0.09 > float(angle.min()) > -0.1001

    def test_from_x_towards_y(self) -> None:
        events = make_events([1], places=True)
        start = {"x": torch.tensor([500.0]), "y": torch.zeros(1)}
        events = replace(
            events,
            columns={**events.columns, **start},
            truth={"azimuth": torch.zeros(1)},
        )
        turned = apply(events, RotateAboutZ())
        x, y = turned.columns["x"], turned.columns["y"]
        azimuth = torch.atan2(y, x).remainder(2 * math.pi)
        assert torch.allclose(azimuth, turned.truth["azimuth"], atol=1e-5)

    def test_other_names(self) -> None:
        events = make_events([2] * 3)
        azimuth = events.truth["azimuth"]
        events = replace(events, truth={"injection_azimuth": azimuth, "phi": azimuth})
        truth = apply(events, RotateAboutZ()).truth
        assert not torch.equal(truth["injection_azimuth"], azimuth)
        assert torch.equal(truth["phi"], azimuth)
        truth = apply(events, RotateAboutZ(azimuths=("phi",))).truth
        assert not torch.equal(truth["phi"], azimuth)

    def test_all_vectors_of_the_truth_turn(self) -> None:
        """Reconstructed tracks and positions keep their angles to the direction."""
        events = make_events([2] * 50)
        truth, tilt = dict(events.truth), torch.linspace(0.1, 3.0, 50)
        truth["jmuon_azimuth"] = wrap_azimuth(truth["azimuth"] + tilt)
        x, y = (300 * part(truth["jmuon_azimuth"]) for part in (torch.cos, torch.sin))
        for names in ("jmuon_position_?", "v?", "?", "dir_?_reco"):
            truth |= {names.replace("?", "x"): x, names.replace("?", "y"): y}
            truth[names.replace("?", "z")] = x
        for name in (
            *("bjorken_x", "bjorken_y", "max_pulses", "w2list_by", "energy_x0"),
            *("azimuth_sigma", "position_x_sigma"),
        ):
            truth[name] = x
        turned = apply(replace(events, truth=truth), RotateAboutZ()).truth
        angle = turned["azimuth"] - truth["azimuth"]
        for name in truth.keys() - {"azimuth", "direction"}:
            value, before = turned[name], truth["jmuon_azimuth"] + angle
            if name == "jmuon_azimuth":
                torch.testing.assert_close(
                    value, wrap_azimuth(before), rtol=0, atol=1e-5
                )
            elif name in ("jmuon_position_x", "vx", "x", "dir_x_reco"):
                torch.testing.assert_close(value, 300 * before.cos(), rtol=0, atol=1e-2)
            elif name in ("jmuon_position_y", "vy", "y", "dir_y_reco"):
                torch.testing.assert_close(value, 300 * before.sin(), rtol=0, atol=1e-2)
            else:
                assert torch.equal(value, truth[name])
        del truth["vy"]
        with pytest.raises(ValueError, match="vx and vy"):
            apply(replace(events, truth=truth), RotateAboutZ())

    def test_efficiency_is_remembered(self) -> None:
        """No DOM is near a turned place."""
        events = make_events([200], places=True)
        turned = apply(events, RotateAboutZ())
        places = torch.stack([events.columns[axis] for axis in "xyz"], 1)
        rde = GEOMETRY.rde_S[GEOMETRY.nearest_dom(places)].float()
        assert torch.equal(turned.columns["rde"], rde)
        assert "rde" not in apply(make_events([200]), RotateAboutZ()).columns

    @pytest.mark.parametrize("name", ["upgrade", "orca115", "orca6", "arca21"])
    def test_vectors_of_the_detector(self, name: str) -> None:
        detector = build_detector(name)
        ((x, y, z),) = detector.vectors
        events = make_events([50], places=True)
        looks = {x: torch.ones(50), y: torch.zeros(50), z: torch.ones(50)}
        events = replace(events, columns={**events.columns, **looks})
        turned = apply_augmentations(
            events, [RotateAboutZ()], seed=1, detector=detector
        )
        azimuth = (turned.truth["azimuth"] - events.truth["azimuth"]).expand(50)
        assert torch.allclose(turned.columns[x], azimuth.cos(), atol=1e-5)
        assert torch.allclose(turned.columns[y], azimuth.sin(), atol=1e-5)
        assert torch.equal(turned.columns[z], looks[z])

    def test_an_unknown_azimuth_stays_unknown(self) -> None:
        events = make_events([2, 3])
        azimuth = torch.tensor([1.0, torch.nan])
        events = replace(events, truth={**events.truth, "azimuth": azimuth})
        turned = apply(events, RotateAboutZ()).truth["azimuth"]
        assert turned.isnan().tolist() == [False, True]

    def test_no_place(self) -> None:
        events = make_events([2])
        events = replace(events, columns={"time": events.columns["time"]})
        with pytest.raises(ValueError, match=r"needs column sensor_id \(or x, y, z\)"):
            apply(events, RotateAboutZ())


class TestPlainValues:
    @EACH
    def test_round_trip(self, augmentation: Augmentation) -> None:
        values = augmentation_to_dict(augmentation)
        assert augmentation_from_dict(json.loads(json.dumps(values))) == augmentation

    def test_defaults_may_be_left_out(self) -> None:
        assert augmentation_from_dict({"kind": "add_noise"}) == AddNoise()
        made = augmentation_from_dict({"kind": "time_jitter", "sigma": 2})
        assert made == TimeJitter(sigma=2)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"kind": "blur"}, "no augmentation 'blur'; .* time_jitter, "),
            ({"sigma": 1.0}, "no augmentation None"),
            ({"kind": "time_jitter", "width": 1}, "time_jitter .* width; .* sigma"),
            ({"kind": "time_jitter"}, "time_jitter needs sigma"),
            ({"kind": "drop_doms", "probability": 1.0}, "from 0, below 1; got 1.0"),
            ({"kind": "mask_to"}, "mask_to needs either"),
            ({"kind": "mask_to", "detector": "orca6", "strings": [1]}, "needs either"),
            ({"kind": "mask_to", "detector": "orca7"}, "'orca7'.*orca6"),
            ({"kind": "mask_to", "strings": [1], "within": 0.0}, "within .*above 0"),
        ],
    )
    def test_errors(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            augmentation_from_dict(values)

    def test_your_own_has_none(self) -> None:
        with pytest.raises(ValueError, match=r"time_jitter.* not function"):
            augmentation_to_dict(lambda events, key, geometry: events)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize(
    ("kind", "name", "needed"),
    [
        (TimeJitter, "sigma", {}),
        (TimeOffset, "sigma", {}),
        (ChargeScale, "sigma", {}),
        (ChargeScale, "pulse_sigma", {"sigma": 0.1}),
        (DropDoms, "probability", {}),
        (DropStrings, "probability", {}),
        (AddNoise, "rate_per_dom", {}),
        (AddNoise, "margin", {}),
        (RotateAboutZ, "max_angle", {}),
    ],
)
def test_numbers_are_checked(
    kind: Any, name: str, needed: dict[str, float], value: object
) -> None:
    with pytest.raises(ValueError, match=f"{kind.kind}: {name} must be a finite num"):
        kind(**{**needed, name: value})


def test_too_large_an_angle() -> None:
    with pytest.raises(ValueError, match=r"from 0, up to 3\.14159; got 3\.2"):
        RotateAboutZ(max_angle=3.2)
