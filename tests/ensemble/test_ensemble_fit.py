"""An ensemble of trained models, made and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import torch

from graphnet_icecube2nd import EventStore, build_model, save_model
from graphnet_icecube2nd.ensemble import ensemble_fit as room
from graphnet_icecube2nd.ensemble.ensemble_fit import fit_ensemble
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import load_bundle
from graphnet_icecube2nd.inference.predictor import (
    predict_events,
)
from graphnet_icecube2nd.results.truth import EventTruth

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
OPTIONS = InferenceConfig(max_pulses=24)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    paths = []
    for seed in range(3):
        torch.manual_seed(seed)
        path = folder / f"m{seed}.safetensors"
        model = build_model("t_sim", **SIZES)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_model(model, path)
        paths.append(path)
    return paths


def test_it_is_found_and_answers_as_its_yaml_says(
    members: list[Path], simulated: EventStore, tmp_path: Path
) -> None:
    seen = []
    found = fit_ensemble(
        members, simulated, tmp_path / "e", options=OPTIONS,
        on_progress=lambda events, pulses: seen.append(events),
    )  # fmt: skip
    assert sum(seen) == found.num_events == 256  # read once for all members
    assert [m.name for m in found.ensemble.members] == ["m0", "m1", "m2"]
    assert set(found.angles) == {
        *("weighted", "equal", "directions", "densities", "m0", "m1", "m2")
    }
    trained = load_bundle(tmp_path / "e")
    assert trained.name == "e"
    assert trained.options == OPTIONS
    truth = EventTruth.of(simulated)
    alone = [
        predict_events(load_bundle(m).model, simulated, options=OPTIONS)
        for m in members
    ]
    for member, table in zip(("m0", "m1", "m2"), alone, strict=True):
        assert truth.angles(table).mean() == pytest.approx(
            found.angles[member], abs=1e-4
        )
    weights = [m.weight for m in found.ensemble.members]
    expected = sum(
        w * t.kappa_B[:, None] * t.direction_B3
        for w, t in zip(weights, alone, strict=True)
    )
    together = predict_events(trained.model, simulated, options=OPTIONS)
    np.testing.assert_allclose(
        together.kappa_B[:, None] * together.direction_B3, expected, atol=2e-4
    )


def test_the_best_way_is_chosen(
    members: list[Path],
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit = room.fit_weights

    def leaning(*arguments: Any) -> Any:
        fitted = fit(*arguments)
        return type(fitted)(
            weights=fitted.weights,
            angles={**fitted.angles, "densities": 0.001, "directions": 0.002},
        )

    monkeypatch.setattr(room, "fit_weights", leaning)
    some = np.arange(128)
    found = fit_ensemble(
        members[:2], simulated, tmp_path / "e", events=some, method="best",
        options=OPTIONS, name="two",
    )  # fmt: skip
    # Not the product of densities, which points where equal weights do.
    assert found.ensemble.method == "directions"
    assert [m.weight for m in found.ensemble.members] == [1.0, 1.0]
    assert found.ensemble.name == "two"
    assert found.num_events == 128


def test_names_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/m_3", "a/m", "b/m", "c/m", "equal")]
    assert room._names(paths) == ["m_3", "m", "m_2", "m_4", "equal_2"]


def test_one_model_twice_has_two_names(
    members: list[Path], simulated: EventStore, tmp_path: Path
) -> None:
    found = fit_ensemble(
        [members[0]] * 3,
        simulated,
        tmp_path / "e",
        options=OPTIONS,
        method="directions",
    )
    assert [m.name for m in found.ensemble.members] == ["m0", "m0_2", "m0_3"]
    assert found.angles["weighted"] == pytest.approx(found.angles["m0"], abs=1e-5)


def test_what_is_refused(
    members: list[Path], simulated: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    with pytest.raises(ValueError, match="two members or more, found 1"):
        fit_ensemble(members[:1], simulated, out)
    with pytest.raises(ValueError, match="method must be one of"):
        fit_ensemble(members, simulated, out, method="sum")
    with pytest.raises(ValueError, match=r"100 events with pulses and a .*, found 5"):
        fit_ensemble(members, simulated, out, events=np.arange(5))
    torch.manual_seed(0)
    other = tmp_path / "run" / "model.safetensors"
    other.parent.mkdir()
    save_model(build_model("t_sim", **SIZES), other)
    recipe = "data: {validation_max_pulses: 8, selection: first, features: store}"
    (other.parent / "recipe.yaml").write_text(recipe)
    with pytest.raises(ValueError, match=r"m0 has .*192.*run has .*8"):
        fit_ensemble([members[0], other.parent], simulated, out)
    with pytest.raises(ValueError, match="no model 'm9'"):
        fit_ensemble(["m9", *members], simulated, out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="e must be new or empty"):
        fit_ensemble(members, simulated, out)


def test_events_without_a_direction_are_left_out(
    members: list[Path],
    simulated: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notices: list[str],
) -> None:
    column = EventStore.whole_event_column

    def spoil(gone: slice) -> None:
        def spoilt(self: EventStore, name: str) -> Any:
            values = np.array(column(self, name))
            if name == "azimuth":
                values[gone] = -999.0
            return values

        monkeypatch.setattr(EventStore, "whole_event_column", spoilt)

    spoil(slice(3, 13))
    notices.clear()
    found = fit_ensemble(members[:2], simulated, tmp_path / "e", options=OPTIONS)
    assert "10 of 256 events have no true direction" in notices[0]
    assert found.num_events == 246
    monkeypatch.undo()
    some = np.r_[0:3, 13:256]
    clean = fit_ensemble(
        members[:2], simulated, tmp_path / "c", options=OPTIONS, events=some
    )
    assert found.angles == clean.angles
    assert found.ensemble == replace(clean.ensemble, name="e")
    spoil(slice(None))
    with pytest.raises(ValueError, match=r"none of 256 events has true direction"):
        fit_ensemble(members[:2], simulated, tmp_path / "n", options=OPTIONS)


def test_members_that_do_not_fit_together_are_named(
    simulated: EventStore, tmp_path: Path
) -> None:
    paths = []
    for name, tasks in (
        ("both", ["direction", "energy"]),
        ("other", {"direction": {}, "energy": {"likelihood": "gaussian"}}),
        ("one", ["direction"]),
    ):
        paths.append(tmp_path / f"{name}.safetensors")
        save_model(build_model("t_sim", tasks=tasks, **SIZES), paths[-1])
    with pytest.raises(ValueError, match=r"both has .*student.*other has .*gaussian"):
        fit_ensemble(paths[:2], simulated, tmp_path / "e", options=OPTIONS)
    with pytest.warns(UserWarning, match=r"not answer energy.*one has direction"):
        fit_ensemble([paths[0], paths[2]], simulated, tmp_path / "e", options=OPTIONS)
    with pytest.warns(UserWarning, match="not answer energy"):
        load_bundle(tmp_path / "e")
