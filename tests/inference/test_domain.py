"""The domain guard: what a model may be used on, and when widths are calibrated."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import (
    Detector,
    EventStore,
    PulseMap,
    PulseReconstructor,
    build_detector,
    build_model,
    reconstruct,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.presets import as_detector
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.evaluation import measure_robustness
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference import DomainError, InferenceConfig, load_bundle
from graphnet_icecube2nd.inference.domain import Domain
from graphnet_icecube2nd.models.weights import input_of, save_model

NAME = "t_sim.simulated"
KAGGLE = build_detector("kaggle")
KM3NET = build_detector("km3net").pulses
ICECUBE86 = DetectorGeometry.icecube86()


@pytest.fixture(scope="module")
def pulses(pulses: dict[str, Any]) -> dict[str, Any]:
    """Columns of some simulated events."""
    chosen = pulses["event_id"] < 40
    return {name: values[chosen] for name, values in pulses.items()}


def moved(factor: float = 1.0, order: Any = slice(None)) -> DetectorGeometry:
    return replace(
        ICECUBE86,
        name="moved",
        position_S3=ICECUBE86.position_S3[order] * factor,
        string_S=ICECUBE86.string_S[order],
        rde_S=ICECUBE86.rde_S[order],
    )


def quietly(*args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reconstruct(*args, **kwargs)


def refused(words: str, **kwargs: Any) -> Any:
    return pytest.param(kwargs, words, id=words)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        refused("km3net", detector="km3net"),
        refused(
            "first_pulse",
            detector=replace(
                KAGGLE, pulses=replace(KAGGLE.pulses, time_reference="first_pulse")
            ),
        ),
        refused(
            "first_triggered",
            detector=replace(
                KAGGLE, pulses=replace(KAGGLE.pulses, time_reference="first_triggered")
            ),
        ),
        refused("time=6000.0", detector=replace(KAGGLE, scales=Scales(time=6e3))),
        refused("with geometry", geometry=moved(0.3)),
        refused("with geometry", detector="kaggle", geometry=moved(0.3)),
        # All modules are IceCube's, but pulses name others by the same number.
        refused("with geometry", geometry=moved(order=torch.arange(5159, -1, -1))),
    ],
)
def test_another_detector_is_refused(kwargs: dict[str, Any], words: str) -> None:
    if kwargs.get("detector") == "km3net":
        hits: dict[str, Any] = {name: np.ones(3) for name in KM3NET.columns()}
        hits |= {name: np.ones(3) for name in KM3NET.extra}
    else:
        hits = {
            "time": [9800.0, 9900.0, 10100.0],
            "charge": [1.0, 1.0, 1.0],
            "sensor_id": [100, 2000, 3000],
            "auxiliary": [False, False, False],
        }
    columns = {"event_id": [1, 1, 1], **hits}
    with pytest.raises(DomainError, match=words) as caught:
        reconstruct(columns, NAME, **kwargs)
    advice = r"--detector icecube86 --clock window .*--unknown-detector"
    assert re.search(advice, str(caught.value))
    found = quietly(columns, NAME, unknown_detector=True, **kwargs)
    assert found.num_calibrated == 0
    assert not found.columns()["calibrated"].any()


def test_the_order_of_features_counts() -> None:
    upgrade = build_detector("upgrade")
    config = InputConfig.of(upgrade)
    turned = replace(
        upgrade,
        pulses=replace(upgrade.pulses, extra=upgrade.pulses.extra[::-1]),
        vectors=(),
    )
    model = build_model("t_sim", detector=upgrade, dim=32, dim_base=8, depth=1)
    assert model.input_config == config
    with pytest.raises(DomainError, match="reads the features"):
        PulseReconstructor(model, turned)


def test_another_clock_of_a_calibration(pulses: dict[str, Any]) -> None:
    """Whether stored or given, a calibration holds for the clock it was fitted on."""
    running = replace(
        KAGGLE, pulses=replace(KAGGLE.pulses, time_reference="first_pulse")
    )
    bundle = load_bundle(NAME)
    assert quietly(pulses, bundle, detector=KAGGLE).num_calibrated > 30
    for calibration in ("stored", dict(bundle.calibrations)):
        found = quietly(
            pulses,
            bundle,
            detector=running,
            unknown_detector=True,
            calibration=calibration,
        )
        assert found.num_calibrated == 0


def test_a_feature_of_the_training_that_the_data_lack(pulses: dict[str, Any]) -> None:
    """Widths are calibrated only if the calibration was fitted without it, too."""
    less = replace(KAGGLE, pulses=replace(KAGGLE.pulses, auxiliary=None))
    bundle = load_bundle(NAME)
    assert bundle.source is not None
    found = quietly(pulses, bundle, detector=less)
    assert found.num_calibrated == 0
    assert re.search("no column hlc .* not auxiliary", " ".join(found.notices))
    on = {**bundle.source.fitted_on, "missing_columns": "auxiliary"}
    fitted = replace(bundle.source, fitted_on=on)
    again = quietly(pulses, replace(bundle, source=fitted), detector=less)
    assert again.num_calibrated > 30
    trained = InputConfig.from_dict(InputConfig.of(less).to_dict())
    assert not Domain(trained, less, InferenceConfig()).differences
    plain = bundle.calibrated(dict(bundle.calibrations))
    assert quietly(pulses, plain, detector=less).num_calibrated == 0


def test_max_pulses_of_the_calibration(pulses: dict[str, Any]) -> None:
    """The widths of the shipped model would not hold with another number."""
    options = InferenceConfig(max_pulses=64)
    words = r"max_pulses 192 .* 64, .*--calibration none.*--max-pulses 64"
    with pytest.raises(DomainError, match=words):
        reconstruct(pulses, NAME, options=options)
    with pytest.raises(DomainError, match=words):
        PulseReconstructor(NAME, options=options)
    with pytest.warns(UserWarning, match="max_pulses"):
        found = reconstruct(pulses, NAME, options=options, calibration="none")
    assert found.num_calibrated == 0
    other = InferenceConfig(selection="first")
    with pytest.raises(DomainError, match=r"uniform .* first.*calibrate\(.*options"):
        reconstruct(pulses, NAME, options=other)


def test_a_calibration_of_some_tasks(pulses: dict[str, Any]) -> None:
    """A row is called calibrated if all its widths are."""
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
    model = build_model("t_sim", tasks=["direction", "energy"], **sizes).eval()
    calibration = {"direction": load_bundle(NAME).calibrations["direction"]}
    with pytest.warns(UserWarning, match="no calibration of energy"):
        found = reconstruct(pulses, model, calibration=calibration)
    assert found.num_calibrated == 0


def test_tables_in_place_of_a_detectors_own() -> None:
    orca = build_detector("orca150")
    assert orca.modules is not None
    for given in ("orca150", orca):
        other = as_detector(given, geometry=moved())
        assert (other.medium, other.scales) == (orca.medium, orca.scales)
        assert other.telescope.startswith("orca150 with geometry "), given
        assert len(other.modules_or_icecube86) == len(ICECUBE86)
    same = as_detector("kaggle", geometry=replace(ICECUBE86, name="copy"))
    assert same.telescope == "icecube86"
    scaled = {as_detector("kaggle", geometry=moved(f)).telescope for f in (0.5, 0.6)}
    assert len(scaled) == 2  # two files may have one name


def test_one_of_detector_and_pulse_map(pulses: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pulse_map"):
        reconstruct(pulses, NAME, detector="kaggle", pulse_map=PulseMap.kaggle())


def test_weights_keep_what_they_were_trained_on(tmp_path: Path) -> None:
    packaged = build_model("t_sim", weights="simulated", detector="prometheus")
    assert packaged.input_config is not None
    assert packaged.input_config.telescope == "icecube86"
    assert packaged.input_config.ranges
    # Scales are saved, and weights of before have IceCube's.
    sea = Detector(
        name="sea", pulses=PulseMap(name="sea"), scales=Scales(position=50.0)
    )
    model = build_model("t_sim", dim=32, dim_base=8, depth=1, detector=sea)
    save_model(model, tmp_path / "sea.safetensors")
    read = input_of(tmp_path / "sea.safetensors")
    assert read is not None
    assert read.scales == Scales(position=50.0)
    before = {k: v for k, v in read.to_dict().items() if k != "scales"}
    assert InputConfig.from_dict(before).scales == Scales()


def test_columns_that_are_not_read(pulses: dict[str, Any]) -> None:
    width = np.ones(len(pulses["time"]))
    found = quietly({**pulses, "width": width}, NAME)
    assert any("width" in text for text in found.notices)
    assert found.num_calibrated > 30


def test_robustness_is_of_directions(simulated: EventStore) -> None:
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
    model = build_model("t_sim", tasks=["energy"], **sizes).eval()
    with pytest.raises(ValueError, match="energy"):
        measure_robustness(model, simulated)
