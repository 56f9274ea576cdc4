"""The published config.json, its keys and its command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")

from graphnet_icecube2nd import DeepIce, DeepIceGNN
from graphnet_icecube2nd.published.published_config import (
    DEFAULTS,
    PublishedConfig,
    published_notes,
    read_published_config,
)
from graphnet_icecube2nd.training.recipe import (
    OPENING_ANGLE,
    as_published,
    write_recipe,
)
from graphnet_icecube2nd.training.recipes import find_recipe
from graphnet_icecube2nd.training.run import first_model

# As in the published repository (commit of April 2023), whose README documents it.
CONFIG = {
    "SELECTION": "total",
    "OUT": "BASELINE",
    "PATH": "data/",
    "NUM_WORKERS": 4,
    "SEED": 2023,
    "BS": 32,
    "BS_VALID": 32,
    "L": 192,
    "L_VALID": 192,
    "EPOCHS": 8,
    "LR_MAX": 5e-4,
    "MODEL": "DeepIceModel",
    "MOMS": [0.95, 0.95, 0.95],
    "DIV": 25,
    "DIV_FINAL": 25,
    "EMA": False,
    "MODEL_KWARGS": {"dim": 384, "dim_base": 128, "depth": 8, "head_size": 32},
    "WEIGHTS": False,
    "LOSS_FUNC": "loss_vms",
    "METRIC": "loss",
}


def read(folder: Path, *overrides: str, **changes: Any) -> PublishedConfig:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return read_published_config(path, overrides)


def test_it_is_understood(tmp_path: Path) -> None:
    config = read(tmp_path)
    (stage,) = config.recipe.stages
    assert (config.data, config.out) == (Path("data/"), Path("BASELINE"))
    assert config.num_workers == 4
    assert (stage.lr_max, stage.epochs, stage.momenta) == (5e-4, 1.0, (0.95,) * 3)
    assert (stage.loss, config.recipe.monitor) == ("vmf", OPENING_ANGLE)
    model = first_model(config.recipe)
    assert type(model) is DeepIce
    assert (model.dim, model.config.depth, model.config.n_rel) == (384, 8, 1)
    assert config.notes == published_notes(config.recipe)


CHANGES: list[tuple[str, str, str, Any]] = [
    ("SELECTION", "short", "data.length_class", "short"),
    ("SEED", "7", "seed", 7),
    ("BS", "16", "stages.0.batch_size", 16),
    ("BS_VALID", "64", "data.validation_batch_size", 64),
    ("L", "96", "stages.0.max_pulses", 96),
    ("L_VALID", "512", "data.validation_max_pulses", 512),
    ("EPOCHS", "4", "stages.0.epochs", 0.5),
    ("LR_MAX", "2e-5", "stages.0.lr_max", 2e-5),
    ("MOMS", "false", "stages.0.momenta", (0.95, 0.85, 0.95)),
    ("MOMS", "[0.9, 0.8, 0.9]", "stages.0.momenta", (0.9, 0.8, 0.9)),
    ("DIV", "15", "stages.0.div", 15),
    ("DIV_FINAL", "10", "stages.0.div_final", 10),
    ("EMA", "true", "stages.0.ema", True),
    ("LOSS_FUNC", "loss_comb", "stages.0.loss", "combined"),
    ("MODEL_KWARGS.depth", "12", "model_kwargs.depth", 12),
    ("MODEL_KWARGS.n_rel", "4", "model_kwargs.n_rel", 4),
    ("WEIGHTS", "a.pth", "stages.0.weights", "a.pth"),
    ("MODEL", "EncoderWithDirectionReconstructionV22", "model", "s_gnn"),
]


@pytest.mark.parametrize(("key", "text", "place", "value"), CHANGES)
def test_every_key_can_be_overridden(
    tmp_path: Path, key: str, text: str, place: str, value: Any
) -> None:
    recipe: Any = read(tmp_path, key, text).recipe
    for step in place.split("."):
        if step.isdecimal():
            recipe = recipe[int(step)]
        elif isinstance(recipe, dict):
            recipe = recipe[step]
        else:
            recipe = getattr(recipe, step)
    assert recipe == value


def test_the_others() -> None:
    covered = {key.split(".")[0] for key, *_ in CHANGES}
    assert set(DEFAULTS) - covered == {"OUT", "PATH", "NUM_WORKERS", "METRIC"}
    assert DEFAULTS == CONFIG


def test_paths_workers_and_metric(tmp_path: Path) -> None:
    config = read(
        tmp_path, "OUT", "mine", "PATH", "there", "NUM_WORKERS", "2", "METRIC",
        "loss_vms",
    )  # fmt: skip
    assert (config.out, config.data) == (Path("mine"), Path("there"))
    assert (config.num_workers, config.recipe.monitor) == (2, "loss")


@pytest.mark.parametrize(
    ("name", "kwargs", "graph"),
    [
        ("EncoderWithDirectionReconstructionV22", {"dim": 64, "head_size": 32}, (1, 3)),
        ("EncoderWithDirectionReconstructionV23", {"dim": 64, "head_size": 32}, (4, 4)),
    ],
)
def test_published_hybrids(
    tmp_path: Path, name: str, kwargs: dict[str, int], graph: tuple[int, int]
) -> None:
    config = read(tmp_path, MODEL=name, MODEL_KWARGS={**kwargs, "dim_base": 16})
    model = first_model(config.recipe)
    assert isinstance(model, DeepIceGNN)
    assert (model.kwargs()["n_rel"], model.kwargs()["knn_features"]) == graph
    assert model.config.depth == 8  # the default of those classes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["LRMAX", "1"], "LRMAX is unknown; did you mean LR_MAX"),
        (["LR_MAX"], "found only 'LR_MAX'"),
        (["LR_MAX", "fast"], "LR_MAX must be a number, .*'fast'"),
        (["BS", "1.5"], "BS must be a whole number from 1"),
        (["EMA", "1"], "EMA must be true or false"),
        (["MOMS", "0.9"], "MOMS must be false or three numbers"),
        (["MODEL", "DeepIceModell"], "did you mean DeepIceModel"),
        (["LOSS_FUNC", "loss_vmf"], "LOSS_FUNC must be one of loss_vms"),
        (["METRIC", "loss_comb"], "METRIC must be loss"),
        (["L.x", "1"], "L.x: only MODEL_KWARGS"),
        (["SELECTION", "tiny"], "length_class must be one of"),
    ],
)
def test_bad_values_say_what(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *overrides)
    with pytest.raises(ValueError, match="EPOCH is unknown; did you mean EPOCHS"):
        read(tmp_path, EPOCH=3)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        read_published_config(tmp_path / "config.json")


def test_weights_of_a_name_that_no_file_has(tmp_path: Path) -> None:
    """They are looked for when they are read."""
    name = f"there/models/{10_000 * 'a'}.pth"
    assert read(tmp_path, "WEIGHTS", name).recipe.stages[0].weights == name


@pytest.mark.parametrize(
    ("epochs", "name", "is_last"),
    [
        (8, "model_7.pth", True),
        (8, "model_3.pth", False),
        (8, "model_15.pth", False),
        (8, "model.pth", False),
        (4, "model_7.pth", True),  # as the README says; there is no other eighth
        (4, "model_3.pth", True),
        (4, "model_2.pth", False),
        (16, "model_7.pth", False),
        (16, "model_15.pth", True),
    ],
)
def test_weights_of_a_run_by_their_published_name(
    tmp_path: Path, epochs: int, name: str, is_last: bool
) -> None:
    """No other weights than those that the published code has under the name."""
    run = tmp_path / "B_MODEL_32"
    run.mkdir()
    (run / "model.safetensors").touch()
    write_recipe(read(tmp_path, "EPOCHS", str(epochs)).recipe, run / "recipe.yaml")
    published = str(run / "models" / name)
    if is_last:
        config = read(tmp_path, "WEIGHTS", published)
        assert config.recipe.stages[0].weights == str(run / "model.safetensors")
        return
    with pytest.raises(ValueError, match=f"WEIGHTS .*{name}: .* last weights"):
        read(tmp_path, "WEIGHTS", published)


def test_weights_that_are_there_are_taken(tmp_path: Path) -> None:
    """Theirs beside a run of ours, and paths that have nothing to do with one."""
    run = tmp_path / "B_MODEL_32"
    (run / "models").mkdir(parents=True)
    (run / "model.safetensors").touch()
    (run / "models" / "model_3.pth").touch()
    for path in (run / "models" / "model_3.pth", tmp_path / "models" / "model_3.pth"):
        config = read(tmp_path, "WEIGHTS", str(path))
        assert config.recipe.stages[0].weights == str(path)


NOTES: list[tuple[list[str], str]] = [
    ([], "learning rate to 1e-5 and ignores LR_MAX; here it is 0.0005"),
    (["EPOCHS", "4"], "8 sub-epochs and ignores EPOCHS; here it is 4 of 1/8"),
    ([], "steps every 128 events, as fastai counts samples; here every 4096"),
    (["BS", "16"], "steps every 256 events"),
    ([], "float16 under autocast; here it is float32"),
    ([], "independent random eighths"),
    ([], "vmf above kappa 100"),
    ([], "efficiency and ice features"),
    ([], "eps to 1e-7 but uses 1e-8; as here"),
    (["EMA", "true"], "saves the raw weights; here the average"),
    ([], "(DataParallel); here each device has BS"),
    (["LOSS_FUNC", "loss_comb"], "loss_comb end in an AttributeError"),
    (["METRIC", "loss_vms"], "METRIC is not loss"),
]


class TestNotes:
    @pytest.mark.parametrize(("overrides", "text"), NOTES)
    def test_what_is_done_otherwise_is_said(
        self, tmp_path: Path, overrides: list[str], text: str
    ) -> None:
        notes = read(tmp_path, *overrides).notes
        assert len([note for note in notes if text in note]) == 1, notes

    def test_what_is_not_otherwise_is_not(self, tmp_path: Path) -> None:
        notes = " ".join(read(tmp_path, "LR_MAX", "1e-5").notes)
        for text in ("LR_MAX", "EPOCHS", "average", "loss_comb", "METRIC", "README"):
            assert text not in notes

    def test_as_published_leaves_what_it_does_not_turn_on(self, tmp_path: Path) -> None:
        config = read(tmp_path, "EMA", "true", "LOSS_FUNC", "loss_comb", "EPOCHS", "16")
        left = " ".join(published_notes(as_published(config.recipe)))
        for text in ("steps every", "eighths", "vmf", "ice features", "average"):
            assert text not in left
        for text in ("LR_MAX", "EPOCHS", "float16", "DataParallel", "loss_comb"):
            assert text in left
        theirs = replace(as_published(config.recipe), precision="float16")
        assert "float16" not in " ".join(published_notes(theirs))

    def test_of_recipes_with_several_stages(self) -> None:
        recipe = find_recipe("s_d32")
        notes = " ".join(published_notes(recipe))
        assert "here it is 0.0005, 2e-05, 1e-05, 5e-06" in notes
        assert "here it starts with the best" in notes
        assert "here it starts with the best" not in " ".join(
            published_notes(as_published(recipe))
        )
