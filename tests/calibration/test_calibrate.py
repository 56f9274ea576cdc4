"""A calibration beside the weights it belongs to, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import torch

from graphnet_icecube2nd import (
    EventStore,
    EventTable,
    build_model,
    load_model,
    save_model,
)
from graphnet_icecube2nd.calibration.fit import (
    calibrate,
    calibrate_table,
    calibrated_table,
)
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    CalibrationFile,
    calibration_path,
    load_bundle,
)
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import (
    containment,
    fit_calibration,
    kappa_to_radius,
)

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


def thrown(
    num: int, factor: float, seed: int = 0, tail: float = 0.0
) -> tuple[EventTable, EventTruth]:
    """Directions thrown about true ones with kappa; the table promises factor times."""
    rng = np.random.default_rng(seed)
    kappa_B = 10 ** rng.uniform(0.5, 4, num)
    angle_B = kappa_to_radius(kappa_B, rng.uniform(0.001, 0.999, num)).numpy()
    lost_B = rng.random(num) < tail
    angle_B = np.where(lost_B, rng.uniform(0, np.pi, num), angle_B)
    phi_B = rng.uniform(0, 2 * np.pi, num)
    found_B3 = np.stack(
        [
            np.sin(angle_B) * np.cos(phi_B),
            np.sin(angle_B) * np.sin(phi_B),
            np.cos(angle_B),
        ],
        axis=1,
    )
    ids = rng.permutation(10 * num)[:num].astype(np.int64)
    table = EventTable.of_directions(
        name="thrown",
        event_id=ids,
        direction_B3=found_B3,
        kappa_B=factor * kappa_B,
        status_B=np.full(num, "ok"),
    )
    zeros = np.zeros(num)
    columns = {"event_id": ids, "azimuth": zeros, "zenith": zeros}
    order = rng.permutation(num)
    truth = EventTruth.from_columns({k: v[order] for k, v in columns.items()}, "made")
    return table, truth


@pytest.mark.parametrize("method", ["temperature", "isotonic", "none"])
@pytest.mark.parametrize("tail", [0.0, 0.15])
def test_calibrated_contours_hold_their_share(method: str, tail: float) -> None:
    table, truth = thrown(20_000, 4.0, tail=tail)
    found = calibrate_table(table, truth, method=method)
    assert found.before[0.5] < 0.35
    for level, held in found.after.items():
        assert held == pytest.approx(level, abs=0.012)
    for third in found.thirds:
        if method == "isotonic" or not tail:
            assert third[0.5] == pytest.approx(0.5, abs=0.02)
            assert third[0.9] == pytest.approx(0.9, abs=0.02)
    assert len(found.thirds) == 3
    # And of other events of that kind.
    other, other_truth = thrown(20_000, 4.0, seed=5, tail=tail)
    after = calibrated_table(other, found.file.calibration)
    angle_B = other_truth.angles(after.of_events(other_truth.event_id))
    radii = after.of_events(other_truth.event_id).radii
    for name, level in (("radius_50", 0.5), ("radius_90", 0.9)):
        assert np.mean(angle_B <= radii[name]) == pytest.approx(level, abs=0.012)


def test_levels_are_the_radii_read_backwards() -> None:
    rng = np.random.default_rng(1)
    kappa = 10 ** rng.uniform(0, 4, 2000)
    angle = kappa_to_radius(kappa / 3, rng.uniform(0, 1, 2000)).numpy()
    calibration = fit_calibration(kappa, angle)
    level = calibration.level(kappa, angle)
    for nominal in (0.1, 0.5, 0.9):
        inside = angle <= calibration.radius(kappa, nominal)
        assert (inside == (level <= nominal)).mean() > 0.999
    plain = fit_calibration(kappa, angle, "none", levels=False)
    np.testing.assert_allclose(plain.level(kappa, angle), containment(kappa, angle))


def test_the_file_lies_beside_the_weights_and_is_found(
    simulated: EventStore, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    save_model(build_model("t_sim", **SIZES), path)
    trained = load_bundle(path)
    assert trained.calibration is None
    numbers = np.arange(len(simulated))
    options = InferenceConfig(max_pulses=24)
    found = calibrate(trained, simulated, numbers, options=options)
    assert found.file.fitted_on["max_pulses"] == 24
    assert found.file.fitted_on["events"] == 256
    beside = calibration_path(path)
    assert beside == tmp_path / "mine.calibration.json"
    found.file.save(beside)
    assert load_bundle(path).calibration == found.file.calibration
    assert load_bundle(path, calibration="none").calibration is None
    named = tmp_path / "elsewhere.json"
    beside.rename(named)
    assert load_bundle(path).calibration is None
    assert load_bundle(path, calibration=named).calibration == found.file.calibration
    # Other weights in the same file: the calibration is not theirs.
    named.rename(beside)
    model = load_model(path)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save_model(model, path)
    with pytest.raises(ValueError, match=r"mine\.calibration\.json was fitted on"):
        load_bundle(path)
    load_bundle(path, calibration="none")


def test_tasks_that_cannot_be_calibrated_leave_the_others(
    simulated: EventStore, tmp_path: Path
) -> None:
    """An untrained track score that is higher for cascades."""
    torch.manual_seed(0)
    path = tmp_path / "three.safetensors"
    model = build_model("t_sim", tasks=["direction", "energy", "track"], **SIZES)
    save_model(model, path)
    numbers = np.arange(len(simulated))
    options = InferenceConfig(max_pulses=24)

    def fitted() -> tuple[set[str], str]:
        found = calibrate(load_bundle(path), simulated, numbers, options=options)
        return set(found.file.calibrations), " ".join(found.notices)

    tasks, notices = fitted()
    if tasks == {"direction", "energy", "track"}:  # then the opposite score is wrong
        with torch.no_grad():
            for value in model.tasks["track"].head.parameters():
                value.neg_()
        save_model(model, path)
        tasks, notices = fitted()
    assert tasks == {"direction", "energy"}
    assert "track is not calibrated: a calibration of track needs scores" in notices


def test_folders_have_it_inside(tmp_path: Path) -> None:
    assert calibration_path(tmp_path) == tmp_path / "calibration.json"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"calibration": {"method": "isotonic"}, "weights": ""}']
)
def test_what_is_no_calibration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.json is (not a calibration|damaged)"):
        CalibrationFile.load(path)


def test_too_few_events(tmp_path: Path) -> None:
    table, truth = thrown(50, 1.0)
    with pytest.raises(ValueError, match="100 events"):
        calibrate_table(table, truth)
    (notice,) = calibrate_table(*thrown(199, 1.0)).notices
    assert "(199; 200 needed)" in notice
    assert not calibrate_table(*thrown(200, 1.0)).notices
    table, truth = thrown(500, 1.0)
    with pytest.raises(ValueError, match="method must be one of"):
        calibrate_table(table, truth, method="magic")


def test_directions_that_point_the_other_way_are_refused() -> None:
    table, truth = thrown(1000, 1.0)
    turned = turned_to(table, -table.direction_B3)
    with pytest.raises(ValueError, match=r"more than 90 degrees off: .*flight"):
        calibrate_table(turned, truth)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    calibrate_table(turned_to(table, vectors), truth)  # a guess is no slip


def turned_to(table: EventTable, direction_B3: Any) -> EventTable:
    names = ("direction_x", "direction_y", "direction_z")
    return table.with_columns(dict(zip(names, direction_B3.T, strict=True)))


def test_contours_of_the_table_are_the_calibrated_ones() -> None:
    table, truth = thrown(1000, 1.0)
    calibration = calibrate_table(table, truth).file.calibration
    assert list(calibrated_table(table, calibration).radii) == [
        "radius_50",
        "radius_90",
    ]
    radius_B = kappa_to_radius(table.kappa_B, 0.68).numpy()
    table = table.with_columns({"radius_68": radius_B})
    found = calibrated_table(table, calibration).radii
    assert list(found) == ["radius_68"]
    np.testing.assert_allclose(
        found["radius_68"], calibration.radius(table.kappa_B, 0.68)
    )


def test_back_and_forth(tmp_path: Path) -> None:
    table, truth = thrown(500, 2.0)
    file: Any = calibrate_table(table, truth).file
    file.save(tmp_path / "c.json")
    assert CalibrationFile.load(tmp_path / "c.json") == file
