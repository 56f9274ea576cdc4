"""Vertex: labels, first light, every way from pulses to the columns, widths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import (
    Detector,
    EventStore,
    PackedBatch,
    PulseMap,
    PulseReconstructor,
    build_detector,
    build_model,
    build_task,
    load_model,
    prepare,
    save_model,
)
from graphnet_icecube2nd.detector.pulse_map import LabelColumns
from graphnet_icecube2nd.events.augmentation import (
    AddNoise,
    Augmentation,
    DropDoms,
    FirstPulseAt,
    Mirror,
    RotateAboutZ,
    TimeJitter,
    TimeOffset,
    TimeShift,
)
from graphnet_icecube2nd.events.features import POSITIONS, pulse_features
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference.predictor import predict_events
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.ensemble_model import EnsembleModel
from graphnet_icecube2nd.nn.first_light import first_light
from graphnet_icecube2nd.tasks.label import make_label
from graphnet_icecube2nd.tasks.vertex import VertexCalibration

NAN = float("nan")
SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
NAMES = ("vertex_x", "vertex_y", "vertex_z", "vertex_time")
KAGGLE = build_detector("kaggle")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {
                "position": [[1.0, 2.0, 3.0], [-1.0, -1.0, -1.0], [4.0, NAN, 6.0]],
                "interaction_time": [9e3, -1.0, 1e4],
            },
            [[1.0, 2.0, 3.0, 9e3, 1.0], None, None],
        ),
        (
            {
                "position": [[1.0, -1.0, -1.0]] * 4,
                "vertex_time": [5.0] * 4,
                "topology": [
                    *("cascade", "through_going_track"),
                    *("muon_bundle", "starting_track"),
                ],
            },
            [[1.0, -1.0, -1.0, 5.0, 1.0], None, None, [1.0, -1.0, -1.0, 5.0, 1.0]],
        ),
        # The clock of a store whose times count from the first pulse.
        (
            {
                "true_pos": [[7.0, 8.0, 9.0]],
                "vertex_time": [1000.0],
                "time_origin": [900.0],
            },
            [[7.0, 8.0, 9.0, 100.0, 1.0]],
        ),
        ({"injection_position": [[7.0, 8.0, 9.0]]}, [[7.0, 8.0, 9.0, 0.0, 0.0]]),
        ({"initial_state": [[7, 8, 9]]}, [[7.0, 8.0, 9.0, 0.0, 0.0]]),
    ],
)
def test_labels(columns: dict[str, Any], expected: list[Any]) -> None:
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        array = np.array(values)
        if array.ndim == 2:
            arrays |= {f"{name}_{x}": array[:, i] for i, x in enumerate("xyz")}
        else:
            arrays[name] = array
    found = make_label("vertex", arrays, LabelColumns())
    rows = [[NAN] * 5 if row is None else row for row in expected]
    np.testing.assert_array_equal(found, rows)
    target = build_task("vertex").target({"vertex": torch.from_numpy(found)})
    assert target.shape == (len(rows), 5)


def batch_of(columns: dict[str, Any], offsets: Any, detector: Detector) -> PackedBatch:
    borders = torch.as_tensor(offsets)
    return PackedBatch(
        features=pulse_features(columns, borders, detector),
        offsets=borders,
        n_pulses=borders.diff(),
        names=detector.pulses.feature_names,
        units=detector.units,
    )


SEA = replace(
    build_detector("icecube86"),
    name="sea",
    pulses=PulseMap(
        name="sea", charge="charge", hlc="hlc", ice="none", origin=(100.0, 0.0, -2000.0)
    ),
)


class TestFirstLight:
    def test_by_hand(self) -> None:
        """30% of 10 p.e.: one of 1 p.e. and 2 of the 4 p.e. of the next pulse."""
        columns = {
            "x": [150.0, 200.0, 130.0, 900.0],
            "y": [0.0, 4.0, 2.0, 900.0],
            "z": [-2000.0, -2010.0, -1990.0, 900.0],
            "time": [9_000.0, 10_000.0, 9_300.0, 100.0],
            "charge": [1.0, 5.0, 4.0, 1e4],
            "hlc": [1, 1, 1, 0],  # the last one is noise
        }
        columns = {name: np.array(values) for name, values in columns.items()}
        found = first_light(batch_of(columns, [0, 4], SEA))
        # In the coordinates of the file, not of the detector's centre.
        expected = [(150 + 2 * 130) / 3, 4 / 3, (-2000 - 2 * 1990) / 3, 9_200.0]
        np.testing.assert_allclose(found[0], expected, atol=5e-3)
        # If all are noise, all count: 30% of 10,010 p.e. are of the last pulse.
        noise = {**columns, "hlc": np.zeros(4)}
        found = first_light(batch_of(noise, [0, 4], SEA))
        np.testing.assert_allclose(found[0], [900, 900, 900, 100], atol=0.05)

    def test_other_events_and_the_order_of_pulses_do_not_matter(
        self, simulated: EventStore
    ) -> None:
        batch = EventReader(simulated).batch(np.arange(23))
        found = first_light(batch)
        for event in (0, 7, 22):
            rows = slice(*batch.offsets[event : event + 2].tolist())
            turned = batch.features[rows].flip(0)
            alone = PackedBatch.from_events(
                [turned], names=batch.names, units=batch.units
            )
            torch.testing.assert_close(
                first_light(alone)[0], found[event], rtol=0, atol=0.02
            )

    def test_it_is_near_the_vertex(self, simulated: EventStore) -> None:
        batch = EventReader(simulated, truth=("vertex",)).batch(np.arange(256))
        assert batch.truth is not None
        truth = batch.truth["vertex"]
        known_B = truth.isfinite().all(dim=1)
        passing = simulated.whole_event_column("topology")
        passing = np.isin(passing, ["through_going_track", "muon_bundle"])
        assert known_B.tolist() == (~passing).tolist()
        apart_B4 = (first_light(batch) - truth[:, :4])[known_B]
        assert float(apart_B4[:, :3].norm(dim=1).median()) < 70
        assert 0 < float(apart_B4[:, 3].median()) < 600

    def test_a_batch_without_units(self, simulated: EventStore) -> None:
        batch = EventReader(simulated).batch(np.arange(3))
        model = build_model("t_sim", tasks=["vertex"], **SIZES)
        with pytest.raises(ValueError, match=r"units=detector\.units"):
            model(replace(batch, units=None))


@pytest.fixture(scope="module")
def sea_store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    return make_sea_store(tmp_path_factory.mktemp("sea"))


@pytest.fixture(scope="module")
def triggered_store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    clock = {"time_reference": "first_triggered", "hlc": "hlc"}
    return make_sea_store(tmp_path_factory.mktemp("triggered"), **clock)


def make_sea_store(folder: Path, **changes: Any) -> EventStore:
    """Events of a running clock, in coordinates of their own, with a vertex."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(5)
    length_B = rng.integers(5, 60, 24)
    event = np.repeat(np.arange(24), length_B)
    when_B = 1e8 + 1e6 * np.arange(24.0)
    truth = pd.DataFrame(
        {
            "event_no": np.arange(24),
            "azimuth": rng.uniform(0, 6, 24),
            "zenith": rng.uniform(0, 3, 24),
            **{f"position_{x}": rng.normal(0, 90, 24) for x in "xyz"},
            "interaction_time": when_B,
        }
    )
    pulses = pd.DataFrame(
        {
            "event_no": event,
            **{
                x: truth[f"position_{x}"].to_numpy()[event]
                + rng.normal(0, 20, len(event))
                for x in "xyz"
            },
            "time": when_B[event] + rng.exponential(300, len(event)),
            "charge": rng.gamma(2.0, 1.0, len(event)),
            "hlc": rng.random(len(event)) < 0.5,
        }
    )
    import sqlite3

    with sqlite3.connect(folder / "sea.db") as database:
        pulses.to_sql("pulses", database, index=False)
        truth.to_sql("truth", database, index=False)
    prepare(
        folder / "sea.db",
        folder / "store",
        pulse_map=PulseMap(
            **{"name": "sea", "time_reference": "first_pulse", "ice": "none", **changes}
        ),
        angles="origin",
        workers=1,
    )
    return EventStore(folder / "store")


AUGMENTATIONS = {
    "time_shift": TimeShift(shift=-700.0),
    "time_offset": TimeOffset(sigma=900.0),
    "first_pulse_at": FirstPulseAt(time=0.0),
    "rotate": RotateAboutZ(),
    **{f"mirror_{axis}": Mirror(axis=axis) for axis in "xyz"},
}


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("which", ["simulated", "sea_store", "triggered_store"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_vertex_moves_with_its_pulses(
    request: pytest.FixtureRequest, which: str, name: str, positions: str
) -> None:
    """Its distance to the first light stays, along every direction."""
    store, events = request.getfixturevalue(which), np.arange(24)
    changes: list[Augmentation] = [AUGMENTATIONS[name]]
    truth = ("vertex", "direction")
    before, after = (
        EventReader(
            store, truth=truth, augmentations=changed, positions=positions
        ).batch(events)
        for changed in ([], changes)
    )
    apart = []
    for batch in (before, after):
        assert batch.truth is not None
        place_B4 = batch.truth["vertex"][:, :4] - first_light(batch)
        direction_B3 = batch.truth["direction"]
        along_B = (place_B4[:, :3] * direction_B3).sum(dim=1)
        apart.append(torch.cat([place_B4, along_B[:, None]], dim=1))
    torch.testing.assert_close(
        apart[1][:, 3:], apart[0][:, 3:], rtol=0, atol=0.2, equal_nan=True
    )
    if name.startswith("time") or name.startswith("first"):
        torch.testing.assert_close(apart[1], apart[0], rtol=0, atol=0.2, equal_nan=True)
    else:
        assert not torch.equal(after.truth["vertex"], before.truth["vertex"])  # type: ignore[index]


@pytest.mark.parametrize("which", ["sea_store", "triggered_store"])
def test_pulses_that_change_move_a_running_clock(
    request: pytest.FixtureRequest, which: str
) -> None:
    """The label stays true to the pulses, whichever pulse is the first one."""
    events, origin = np.arange(24), None
    store = request.getfixturevalue(which)
    for changes in ([], [TimeJitter(sigma=50.0)], [DropDoms(probability=0.5)]):
        reader = EventReader(store, truth=("vertex",), augmentations=changes)
        raw = reader.raw(events)
        when_B = raw.truth["vertex"][:, 3]
        last_B = torch.segment_reduce(
            raw.columns["time"], "max", lengths=raw.offsets.diff()
        )
        if changes and isinstance(changes[0], DropDoms):
            # Times of the pulses that stay, since the vertex, are those of the file.
            kept = set((raw.columns["time"] - when_B.repeat_interleave(
                raw.offsets.diff())).round().tolist())  # fmt: skip
            assert kept <= origin
        elif not changes:
            all_T = raw.columns["time"] - when_B.repeat_interleave(raw.offsets.diff())
            origin = {t + step for t in all_T.round().tolist() for step in (-1, 0, 1)}
            assert bool((when_B < 0).all()), "light comes after the vertex"
        assert bool((last_B > when_B).all())


@pytest.fixture
def model() -> Any:
    torch.manual_seed(3)
    model = build_model(
        "t_sim", tasks=["direction", "vertex"], detector="kaggle", **SIZES
    )
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


class TestEveryWay:
    @pytest.mark.parametrize("positions", POSITIONS)
    def test_store_memory_and_file(
        self, model: Any, simulated: EventStore, tmp_path: Path, positions: str
    ) -> None:
        model.input_config = replace(model.input_config, positions=positions)
        table = predict_events(model, simulated)
        save_model(model, tmp_path / "m.safetensors")
        again = predict_events(load_model(tmp_path / "m.safetensors"), simulated)
        reader = EventReader(simulated, max_pulses=None)
        raw = reader.raw(np.arange(len(simulated)))
        columns = {name: value.numpy() for name, value in raw.columns.items()}
        memory = PulseReconstructor(model, "kaggle", calibration="none")(
            columns, raw.offsets.numpy(), event_id=raw.event_id.numpy()
        )
        light = first_light(reader.batch(np.arange(len(simulated))))
        centred = EventReader(simulated, max_pulses=None, positions=positions)
        parts = centred.batch(np.arange(len(simulated))).split([7, len(simulated) - 7])
        found = torch.cat([first_light(part) for part in parts])
        torch.testing.assert_close(found, light, rtol=0, atol=0.01)
        loaded = load_model(tmp_path / "m.safetensors")
        assert loaded.input_config == model.input_config
        for axis, name in enumerate(NAMES):
            assert np.array_equal(again.columns[name], table.columns[name])
            np.testing.assert_allclose(memory[name], table.columns[name], atol=0.02)
            # Answers are absolute, near the first light.
            apart = np.abs(table.columns[name] - light[:, axis].numpy())
            assert np.median(apart) < 200
        assert np.ptp(table.columns["vertex_x"]) > 300
        one = PulseReconstructor(model, "kaggle", calibration="none")(
            {n: v[: int(raw.offsets[1])] for n, v in columns.items()}
        )
        assert one["vertex_z"] == pytest.approx(memory["vertex_z"][0], abs=0.02)
        assert one["vertex_sigma"] > 0

    def test_ensemble_in_absolute_coordinates(
        self, model: Any, simulated: EventStore
    ) -> None:
        torch.manual_seed(8)
        other = build_model(
            "t_sim", tasks=["direction", "vertex"], detector="kaggle", **SIZES
        ).eval()
        both = EnsembleModel([model, other], weights=[3, 1])
        batch = EventReader(simulated).batch(np.arange(9))
        with torch.no_grad():
            members = [one.predict(batch) for one in (model, other)]
            joined = both.predict(batch)
        for name in NAMES:
            expected = 0.75 * members[0][name] + 0.25 * members[1][name]
            torch.testing.assert_close(joined[name], expected, rtol=0, atol=0.02)

    def test_short_floats_keep_nanoseconds(
        self, model: Any, simulated: EventStore
    ) -> None:
        batch = EventReader(simulated).batch(np.arange(16))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            short = model.outputs(batch)["vertex"]
        assert short.dtype == torch.float32
        steps = short[:, 3].frac()
        assert len(steps.unique()) > 8

    def test_the_clock_of_the_first_pulse(self, sea_store: EventStore) -> None:
        detector = sea_store.detector
        model = build_model("t_sim", tasks=["vertex"], detector=detector, **SIZES)
        table = predict_events(model.eval(), sea_store)
        assert np.abs(table.columns["vertex_time"]).max() < 1e4  # not 1e8
        config = model.input_config
        assert isinstance(config, InputConfig)
        assert config.clock == "first_pulse"


class TestWidths:
    def outputs(self, num: int = 6000) -> tuple[Any, Any]:
        """Widths three times too small, and a time that is 40 ns late."""
        rng = np.random.default_rng(3)
        target = np.column_stack(
            [rng.normal(0, 200, (num, 3)), rng.normal(1e4, 300, num), np.ones(num)]
        )
        target[::5, 3:] = 0.0  # these have no time
        scale_B2 = np.exp(rng.uniform(1, 3, (num, 1))) * [[1.0, 4.0]]
        wrong = 3 * 1.134 * rng.normal(size=(num, 4)) * scale_B2[:, [0, 0, 0, 1]]
        point_B4 = target[:, :4] + wrong + [0, 0, 0, 40.0]
        return np.column_stack([point_B4, np.log(scale_B2)]), target

    def test_they_hold_after_calibration(self) -> None:
        task = build_task("vertex")
        output, target = self.outputs()
        calibration = task.calibrate(output, target)
        assert isinstance(calibration, VertexCalibration)
        again = task.read_calibration(calibration.to_dict())
        assert again == calibration
        found = []
        for one in (None, calibration):
            columns = task.predict_calibrated(torch.from_numpy(output), one)
            plain = {name: value.numpy() for name, value in columns.items()}
            found.append((task.calibration_figures(plain, target), plain))
        (before, plain), (after, calibrated) = found
        assert before["inside_68"] < 0.4
        assert before["time_inside_68"] < 0.4
        assert after["inside_68"] == pytest.approx(0.68, abs=0.02)
        assert after["time_inside_68"] == pytest.approx(0.68, abs=0.02)
        assert np.array_equal(plain["vertex_x"], calibrated["vertex_x"])
        late = (calibrated["vertex_time"] - target[:, 3])[target[:, 4] > 0]
        assert abs(np.median(late)) < 5

    def test_without_times_only_the_position_counts(self) -> None:
        task = build_task("vertex")
        output, target = self.outputs(400)
        target[:, 3:] = 0.0
        calibration = task.calibrate(output, target)
        assert calibration.time_widths == ()
        columns = task.predict_calibrated(torch.from_numpy(output), calibration)
        assert np.array_equal(columns["vertex_time"], output[:, 3])
        tensor = torch.from_numpy(output).requires_grad_()
        task.loss(tensor, torch.from_numpy(target)).sum().backward()
        assert tensor.grad is not None
        used = tensor.grad.abs().sum(dim=0) > 0
        assert used.tolist() == [True, True, True, False, True, False]

    @pytest.mark.parametrize("likelihood", ["student", "gaussian", "quantile"])
    def test_the_loss_is_least_at_the_true_width(self, likelihood: str) -> None:
        task = build_task("vertex", likelihood=likelihood)
        rng, num = np.random.default_rng(1), 20_000
        target = torch.zeros(num, 5)
        target[:, 4] = 1.0
        error_B4 = torch.from_numpy(rng.normal(size=(num, 4)))
        grid = torch.linspace(-0.6, 0.6, 25)
        losses = []
        for step in grid:
            output = torch.zeros(num, 6, dtype=torch.float64)
            output[:, :3] = 30 * error_B4[:, :3]
            output[:, 4] = np.log(30) + step
            output[:, 5] = np.log(200.0)
            losses.append(float(task.loss(output, target).mean()))
        best = float(grid[int(np.argmin(losses))])
        columns = task.predict(output)
        width = float(columns["vertex_sigma"][0]) * np.exp(best - float(grid[-1]))
        # A Student t of the same central 68% is not the best fit to a normal one.
        assert width == pytest.approx(30, rel=0.12 if likelihood == "student" else 0.06)

    def test_disagreeing_members_are_wide(self) -> None:
        task = build_task("vertex")
        outputs = torch.zeros(3, 2, 6)
        outputs[..., 4:] = np.log(10.0)
        outputs[1, 1, :3], outputs[1, 1, 3] = 90.0, 600.0
        outputs[2, :, 0] = torch.nan  # left out
        columns = task.predict(task.combine(outputs, [1, 1, 1]))
        assert columns["vertex_x"].tolist() == [0.0, 45.0]
        assert float(columns["vertex_sigma"][1]) > 3 * float(columns["vertex_sigma"][0])
        assert float(columns["vertex_time_sigma"][1]) > 150

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"widths": [2.0, 1.0]}, "widths .* must increase"),
            ({"factors": [1.0]}, "factors .* must have 2"),
            ({"factors": [1.0, 0.0]}, "factors must be above 0"),
            ({"time_widths": [1.0]}, "time_shifts .* must have 1"),
            ({"widths": [], "factors": []}, "widths .* must have 1"),
            ({"widths": [1.0, NAN]}, "must be finite"),
        ],
    )
    def test_a_stored_calibration_is_checked(
        self, change: dict[str, Any], message: str
    ) -> None:
        good = {"widths": [1.0, 2.0], "factors": [1.0, 1.1]}
        assert VertexCalibration.from_dict(good).widths == (1.0, 2.0)
        with pytest.raises(ValueError, match=message):
            VertexCalibration.from_dict({**good, **change})


def test_section_of_the_report() -> None:
    """Errors along and across the flight, tables without widths, missing answers."""
    task, num = build_task("vertex"), 500
    rng = np.random.default_rng(2)
    place_B3, origin = rng.normal(0, 100, (num, 3)), np.array([0.0, 0.0, 1.0])
    target = np.column_stack([place_B3, np.full(num, 1e4), np.ones(num)])
    target[:50, 3:] = 0.0
    wrong = place_B3 + np.array([3.0, 4.0, -12.0])  # the flight is along -z
    ours = {
        **dict(zip(NAMES[:3], wrong.T, strict=True)),
        "vertex_time": np.full(num, 1e4 + 20.0),
        "vertex_sigma": np.full(num, 5.0),
        "vertex_time_sigma": np.full(num, 10.0),
    }
    ours["vertex_x"] = np.where(np.arange(num) == 7, NAN, ours["vertex_x"])
    theirs = dict(zip(NAMES[:3], place_B3.T, strict=True))
    known = {
        "direction": np.tile(origin, (num, 1)),
        "energy": np.geomspace(1e2, 1e5, num),
    }
    keep = np.arange(num) != 7
    known = {name: values[keep] for name, values in known.items()}
    section = task.report_section({"ours": ours, "theirs": theirs}, target, {})
    assert "along_bias_m" not in section.rows[0]
    ours, theirs = (
        {name: values[keep] for name, values in table.items()}
        for table in (ours, theirs)
    )
    section = task.report_section({"ours": ours, "theirs": theirs}, target[keep], known)
    row, other = section.rows
    assert row["events"] == num - 1
    assert row["distance_m"] == pytest.approx(13.0)
    assert row["horizontal_m"] == pytest.approx(5.0)
    assert row["vertical_m"] == pytest.approx(12.0)
    assert row["along_bias_m"] == pytest.approx(12.0)
    assert row["across_m"] == pytest.approx(5.0)
    assert row["time_bias_ns"] == pytest.approx(20.0)
    assert row["inside_68"] == pytest.approx(2 / 3)
    assert row["time_pull_68"] == pytest.approx(2.0)
    # Errors of 3, 4 and -12 m beside widths of 5 m; spheres of 7.7, 9.4 and 12.6 m.
    contained = {"x_68": 1, "y_68": 1, "z_68": 0}
    contained |= {"region_50": 0, "region_68": 0, "region_90": 0}
    assert {name: row[f"inside_{name}"] for name in contained} == contained
    assert other["distance_m"] == 0.0
    assert "inside_68" not in other
    bins = [one for one in section.further[0].rows if one["quantity"] == "energy"]
    assert len(bins) == 2 * 6
    assert all(one["distance_m"] in (0.0, pytest.approx(13.0)) for one in bins)
    # With weights: only the events of the last tenth count, whose error is larger.
    weight = (np.arange(num - 1) > 450).astype(float)
    far = {**ours, "vertex_z": ours["vertex_z"] - 100.0 * weight}
    section = task.report_section(
        {"far": far}, target[keep], {**known, "weight": weight}
    )
    (row,) = section.rows
    assert row["distance_m"] == pytest.approx(np.hypot(112.0, 5.0))
    assert row["effective_events"] == pytest.approx(weight.sum())
    assert {*section.figures} == {"vertex_errors", "vertex_widths"} == {
        *section.captions
    }  # fmt: skip
    # Normal errors of the predicted width.
    width_B = np.geomspace(1.0, 100.0, num)
    error_B3 = rng.normal(0, width_B[:, None] / 0.994458, (num, 3))
    normal = dict(zip(NAMES[:3], (place_B3 + error_B3).T, strict=True))
    normal |= {"vertex_sigma": width_B}
    pulses = {"n_pulses": np.arange(num), "energy": np.geomspace(1e2, 1e5, num)}
    section = task.report_section({"normal": normal}, target, pulses)
    (row,), (by_bin,) = section.rows, section.further
    for name in ("x_68", "y_68", "z_68", "region_50", "region_68", "region_90"):
        share = int(name[-2:]) / 100
        assert row[f"inside_{name}"] == pytest.approx(share, abs=0.06)
        assert row[f"inside_{name}_low"] < share < row[f"inside_{name}_high"]
        assert {one["quantity"] for one in by_bin.rows if f"inside_{name}" in one} == {
            "energy", "pulses",
        }  # fmt: skip
    panels = by_bin.figures["vertex_regions_by_bin"]
    assert {*by_bin.figures} == {*by_bin.captions}
    lines = [c.y[0] for c in panels[0].curves if c.style == "reference"]
    assert lines == [0.5, 0.9]
    nothing = {name: np.array([NAN]) for name in NAMES[:3]}
    empty = task.report_section({"t": nothing}, target[:1], {})
    assert empty.rows == [{"table": "t", "events": 0, "without_answer": 1}]


def test_noise_moves_the_first_light_little(simulated: EventStore) -> None:
    events = np.arange(64)
    plain = first_light(EventReader(simulated).batch(events))
    noise: list[Augmentation] = [AddNoise()]
    noisy = first_light(EventReader(simulated, augmentations=noise).batch(events))
    apart_B = (noisy - plain)[:, :3].norm(dim=1)
    assert float(apart_B.median()) < 5
