"""A trained model with all that belongs to it, by whatever names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import torch

from graphnet_icecube2nd import (
    EventStore,
    build_model,
    reconstruct,
    save_model,
    simulate,
)
from graphnet_icecube2nd.calibration.fit import calibrate
from graphnet_icecube2nd.inference import DomainError
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import as_bundle, load_bundle
from graphnet_icecube2nd.inference.pulse_reconstruction import PulseReconstructor
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.width import WidthCalibration

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
RECIPE = """
stages: [{max_pulses: 96}, {max_pulses: 128}]
data: {validation_max_pulses: null, selection: hlc_first, features: published}
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(build_model("t_sim", **SIZES), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_shipped_model_comes_with_a_calibrated_kappa(tmp_path: Path) -> None:
    trained = load_bundle("t_sim.simulated")
    assert trained.calibration is not None
    simulate(tmp_path / "s", num_events=1024, seed=77, workers=1)
    found = reconstruct(tmp_path / "s", trained)
    angle = EventTruth.load(tmp_path / "s").angles(found.table())
    columns = found.columns()
    for name, level in (("radius_50", 0.5), ("radius_90", 0.9)):
        held = np.mean(angle <= columns[name])
        assert held == pytest.approx(level, abs=3 * np.sqrt(0.25 / 1024))


def test_a_run_says_how_its_model_saw_events(weights: Path) -> None:
    (weights.parent / "recipe.yaml").write_text(RECIPE)
    expected = InferenceConfig(
        max_pulses=128, selection="hlc_first", published_features=True
    )
    assert load_bundle(weights.parent).options == expected
    assert load_bundle(weights).options == expected
    other = weights.rename(weights.with_name("other.safetensors"))
    assert load_bundle(other).options == InferenceConfig()


def test_a_calibration_is_of_events_seen_in_a_way(
    weights: Path, simulated: EventStore, tmp_path: Path
) -> None:
    options = InferenceConfig(max_pulses=24, selection="first")
    plain = load_bundle(weights)
    numbers = np.arange(len(simulated))
    calibrate(plain, simulated, numbers, options=options).file.save(
        tmp_path / "model.calibration.json"
    )
    trained = load_bundle(weights)
    assert trained.options == options
    reconstruct(simulated, trained)  # no warning
    other = InferenceConfig(max_pulses=48, selection="first")
    words = "max_pulses 24 .*48"
    with pytest.raises(DomainError, match=words):
        reconstruct(simulated, trained, options=other)
    with pytest.raises(DomainError, match=words):
        reconstruct(simulated, trained, tmp_path / "r.parquet", options=other)
    with pytest.raises(DomainError, match=words):
        PulseReconstructor(trained, options=other)
    own = reconstruct(simulated, trained)
    assert own.num_calibrated == own.statuses["ok"]
    # No warning, and nothing is called calibrated then.
    found = reconstruct(simulated, trained, options=other, calibration="none")
    assert found.num_calibrated == 0
    assert not found.columns()["calibrated"].any()
    assert not PulseReconstructor(
        trained, options=other, calibration="none"
    ).maker.calibrations
    # The precision changes widths less: they are not called calibrated.
    rough = replace(options, precision="bfloat16")
    with pytest.warns(UserWarning, match="precision float32"):
        found = reconstruct(simulated, trained, options=rough)
    assert found.num_calibrated == 0
    ours = PulseReconstructor(trained)
    assert ours.maker.calibrations == trained.calibrations
    for none in ("none", None):
        assert not PulseReconstructor(trained, calibration=none).maker.calibrations
    with pytest.raises(ValueError, match=r"got .mine"):
        reconstruct(simulated, trained, calibration="mine")


def test_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="no model 'nothing'"):
        load_bundle("nothing")
    with pytest.raises(FileNotFoundError):
        load_bundle("t_sim.simulated", calibration="nothing.json")


def test_a_calibration_is_of_the_kind_of_its_task() -> None:
    bundle = as_bundle(build_model("t_sim", tasks=["direction", "energy"], **SIZES))
    kappa = KappaCalibration(method="none", log_kappa=(0.0,), log_calibrated=(0.0,))
    width = WidthCalibration(values=(3.0,), shifts=(0.0,), factors=(1.0,))
    right = {"direction": kappa, "energy": width}
    assert bundle.calibrated(right).calibrations == right
    for wrong, message in (
        ({"direction": width}, "'direction' .*KappaCalibration.*WidthCalibration"),
        ({"energy": kappa}, "'energy' .*WidthCalibration.*KappaCalibration"),
    ):
        with pytest.raises(ValueError, match=message):
            bundle.calibrated(wrong)
        with pytest.raises(ValueError, match=message):
            PulseReconstructor(bundle, calibration=wrong)
