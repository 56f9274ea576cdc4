"""Recipes: values that fit, names that are known, texts that come back."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("yaml")

from graphnet_icecube2nd import DeepIce
from graphnet_icecube2nd.config import from_plain, load_yaml, to_plain
from graphnet_icecube2nd.tasks.energy import Energy
from graphnet_icecube2nd.training.recipe import (
    DataConfig,
    Recipe,
    Stage,
    as_published,
    overridden,
    parse_override,
    read_recipe,
    recipe_text,
    write_recipe,
)
from graphnet_icecube2nd.training.recipes import (
    describe_recipe,
    find_recipe,
    list_recipes,
    register_recipe,
)
from graphnet_icecube2nd.training.run import check_model, first_model

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


def rates(name: str) -> list[tuple[float, float, float, bool, str]]:
    return [
        (s.lr_max, s.div, s.div_final, s.ema, s.loss) for s in find_recipe(name).stages
    ]


def test_stages_of_the_published_readme() -> None:
    assert rates("s_d32") == [
        (5e-4, 25, 25, False, "vmf"),
        (2e-5, 25, 25, False, "vmf"),
        (1e-5, 25, 25, True, "vmf"),
        (0.5e-5, 25, 25, True, "combined"),
    ]
    assert [ema for *_, ema, _ in rates("s_d32_early_ema")] == [False, True, True, True]
    large = [
        (1e-4, 25, 25, False, "vmf"),
        (1e-5, 25, 25, False, "vmf"),
        (0.5e-5, 15, 15, True, "combined"),
        (0.35e-5, 10, 10, True, "combined"),
        (1e-6, 10, 10, True, "combined"),
    ]
    for name in ("b_d64", "b_d32", "b_d32_4rel", "s_gnn", "b_gnn"):
        assert rates(name) == large, name
        assert find_recipe(name).model == name


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_whole(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert describe_recipe(name)
    check_model(recipe)
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe
    assert find_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_defaults_follow_the_write_up() -> None:
    stage, data = Stage(lr_max=1e-3), DataConfig()
    assert (stage.batch_size, stage.max_pulses, stage.accumulate_events) == (
        32,
        192,
        4096,
    )
    assert (stage.weight_decay, stage.eps, stage.gradient_clip) == (0.05, 1e-8, 3.0)
    assert (stage.ema_decay, stage.save_ema, stage.next_from) == (0.9998, True, "best")
    assert (stage.pct_start, stage.momenta) == (0.01, (0.95, 0.85, 0.95))
    assert (data.num_sub_epochs, data.sub_epochs) == (8, "partition")


def test_published_turns_every_switch() -> None:
    recipe = as_published(find_recipe("s_d32"))
    for stage in recipe.stages:
        assert stage.accumulate_events == 128
        assert not stage.save_ema
        assert (stage.next_from, stage.normalisation) == ("last", "published")
    assert (recipe.data.sub_epochs, recipe.data.features) == ("published", "published")


@pytest.mark.parametrize("batch_size", [1, 8, 16, 24, 32, 48, 100, 512, 8192])
def test_published_steps_are_fastais(batch_size: int) -> None:
    """Its callback counts the samples of batches, and steps when they are n_acc."""
    n_acc, batches = 4096 // batch_size, 1
    while batches * batch_size < n_acc:
        batches += 1
    recipe = find_recipe(
        "s_d32", [f"stages.{n}.batch_size={batch_size}" for n in range(4)]
    )
    for stage in as_published(recipe).stages:
        assert stage.accumulate_events == batches * batch_size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=2e-5", 2e-5),
        ("a=1", 1),
        ("a=-.5E+3", -500.0),
        ("a=true", True),
        ("a=null", None),
        ("a=[x, y]", ["x", "y"]),
        ("a=5819e2b2fd", "5819e2b2fd"),  # of a checksum
        ("a=energy > 100 and zenith < 1", "energy > 100 and zenith < 1"),
        ("a={b: ", "{b:"),
    ],
)
def test_values_of_overrides(text: str, value: Any) -> None:
    assert parse_override(text) == ("a", value)


def test_overrides_reach_every_depth() -> None:
    recipe = overridden(
        find_recipe("s_d32"),
        [
            "stages.2.lr_max=2e-5",
            "model_kwargs.depth=8",
            "data.length_class=short",
            "stages.0.momenta=[0.9, 0.8, 0.7]",
        ],
    )
    assert recipe.stages[2].lr_max == 2e-5
    assert recipe.stages[1].lr_max == 2e-5  # as it was
    assert recipe.model_kwargs == {"depth": 8}
    assert recipe.data.length_class == "short"
    assert recipe.stages[0].momenta == (0.9, 0.8, 0.7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stages.0.lrmax=1",
            r"stages\.0\.lrmax is unknown; did you mean stages\.0\.lr",
        ),
        ("seeds=1", "seeds is unknown; did you mean seed"),
        ("stages.7.ema=true", "stages has 4 "),
        ("stages.0.ema=1", r"stages\.0\.ema must be true or false, got 1"),
        ("stages.0.batch_size=1.5", "must be a whole number, got 1.5"),
        ("stages.0.lr_max=fast", "must be a number, got 'fast'"),
        ("stages.0.lr_max=-1", r"stages\.0\.lr_max must be above 0"),
        ("stages.0.momenta=[0.9]", "must have 3 values"),
        ("stages.0.loss=vms", "must be one of vmf, combined, angle; got 'vms'"),
        ("stages.0.epochs=0.3", "must be a whole number of sub-epochs of 1/8"),
        ("stages.0.patience=0", "patience must be a whole number from 1"),
        ("stages.0.ema_decay=1.0", "ema_decay must be from 0 to 1"),
        ("data.augmentations=[{kind: jitter}]", "no augmentation 'jitter'"),
        ("data.validation_fraction=1.0", "validation_fraction must be between"),
        ("data=3", "data must be a mapping"),
        ("precision=half", "precision must be one of float32, bfloat16, float16"),
        ("lr_max", "NAME=VALUE"),
        ("model.depth=3", "model is 's_d32'"),
    ],
)
def test_bad_overrides_say_what_and_where(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_recipe("s_d32", [override])


def test_bad_models_and_names_say_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean s_d32"):
        find_recipe("s_d33")
    with pytest.raises(ValueError, match=r"model_kwargs\.depht is unknown.*depth"):
        check_model(find_recipe("s_d32", ["model_kwargs.depht=3"]))
    with pytest.raises(ValueError, match="did you mean"):
        check_model(find_recipe("s_d32", ["model=s_d33"]))
    with pytest.raises(ValueError, match=r"freeze .*'embed'"):
        check_model(find_recipe("s_d32", ["stages.0.freeze=[embed]"]))
    with pytest.raises(FileNotFoundError, match=r"weights.* nowhere\.pth"):
        check_model(find_recipe("s_d32", ["stages.0.weights=nowhere.pth"]))
    with pytest.raises(ValueError, match="already registered"):
        register_recipe(s_d32)


def s_d32() -> Recipe:
    raise AssertionError("never called")


def test_a_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: t_d32\nstages:\n- lr_max: 1e-4\n")
    recipe = read_recipe(path)
    assert recipe == Recipe(name="mine", model="t_d32", stages=(Stage(lr_max=1e-4),))
    path.write_text("name: mine\nmodel: t_d32\nstages:\n- ema: true\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: stages\.0\.lr_max must be giv"):
        read_recipe(path)
    path.write_text("name: [")
    with pytest.raises(ValueError, match=r"mine\.yaml .*YAML"):
        read_recipe(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="YAML"):
        read_recipe(path)


def test_text_holds_every_value() -> None:
    recipe = find_recipe("t_sim")
    values = load_yaml(recipe_text(recipe), "text")
    assert set(values) == {field.name for field in fields(Recipe)}
    assert set(values["stages"][0]) == {field.name for field in fields(Stage)}
    assert set(values["data"]) == {field.name for field in fields(DataConfig)}
    assert from_plain(Recipe, to_plain(recipe)) == recipe


def test_losses_of_a_stage() -> None:
    prediction = torch.tensor([[0.0, 0.0, 200.0]])
    direction = torch.tensor([[0.0, 0.1, 0.995]])
    values = []
    for loss in ("vmf", "combined", "angle"):
        for normalisation in ("exact", "published"):
            stage = Stage(lr_max=1.0, loss=loss, normalisation=normalisation)
            recipe = Recipe(
                name="r", model="t_d32", model_kwargs=SIZES, stages=(stage,)
            )
            (task,) = first_model(recipe).task_map.values()
            values.append(task.loss(prediction, direction))
    vmf, vmf_published, combined, combined_published, angle, angle_too = values
    assert angle == angle_too
    assert vmf != vmf_published
    torch.testing.assert_close(combined, angle + 0.05 * vmf)
    torch.testing.assert_close(combined_published, angle + 0.05 * vmf_published)


class TestTasks:
    def test_none_is_the_direction_as_published(self) -> None:
        recipe = find_recipe("t_sim")
        assert recipe.tasks == {}
        assert isinstance(first_model(replace(recipe, model_kwargs=SIZES)), DeepIce)
        options = recipe.task_options(2)
        assert options == {"direction": {"loss": "combined", "normalisation": "exact"}}
        assert recipe.monitor == "direction/opening_angle"
        assert replace(recipe, monitor="angle") == recipe, "as 0.1.0 called it"

    def test_options_of_a_stage_replace_those_of_the_recipe(self) -> None:
        recipe = find_recipe(
            "t_sim",
            [
                "tasks={direction: {}, energy: {weight: 0.1, likelihood: gaussian}}",
                "stages.1.tasks.energy.weight=0.5",
            ],
        )
        energies = [recipe.task_options(n)["energy"] for n in range(3)]
        assert [given["weight"] for given in energies] == [0.1, 0.5, 0.1]
        assert energies[1]["likelihood"] == "gaussian"
        small = replace(recipe, model_kwargs=SIZES)
        first, second = first_model(small), first_model(small, 1)
        assert first.task_weights["energy"] == 0.1
        assert second.task_weights["energy"] == 0.5
        for name, value in first.state_dict().items():
            assert torch.equal(second.state_dict()[name], value), name

    def test_an_override_adds_a_task(self) -> None:
        recipe = find_recipe("t_sim", ["tasks.energy.weight=0.1"])
        assert recipe.tasks == {"direction": {}, "energy": {"weight": 0.1}}
        more = overridden(recipe, ["tasks.track.weight=2", "stages.0.lr_max=1e-4"])
        assert list(more.tasks) == ["direction", "energy", "track"]
        assert from_plain(Recipe, to_plain(more)) == more

    def test_default_monitor(self) -> None:
        recipe = find_recipe("t_sim")
        assert replace(recipe, tasks=["energy"]).monitor == "loss"
        both = replace(recipe, tasks=["energy", "direction"])
        assert both.monitor == "direction/opening_angle"
        assert not both.higher_is_better
        track = replace(recipe, tasks=("track",), monitor="track/auc")
        assert track.higher_is_better
        assert not replace(track, monitor="track/loss").higher_is_better

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["tasks={energi: {}}"], r"tasks\.energi: .*did you mean energy"),
            (["tasks.energy.wait=1"], r"tasks\.energy\.wait .*tasks\.energy\.weight"),
            (["tasks.energy=3"], r"tasks\.energy must be a mapping"),
            (["tasks.energy.weight=-1"], r"^tasks\.energy\.weight must .*-1"),
            (["tasks.energy.weight=abc"], r"^tasks\.energy\.weight must .*'abc'"),
            (
                ["stages.1.tasks.direction.weight=abc"],
                r"^stages\.1\.tasks\.direction\.weight must .*'abc'",
            ),
            (["tasks.direction.weight=0"], r"stages\.0: .*tasks\.direction\.weight"),
            (["stages.1.tasks.direction.weight=0"], r"stages\.1: .* every task"),
            (
                ["tasks.energy.weight=1", "monitor=energy/inside_68"],
                "'energy/inside_68'.*energy/loss",
            ),
            (["tasks.energy.likelihood=normal"], "likelihood .* got 'normal'"),
            (
                ["stages.1.tasks.energy.weight=1"],
                r"stages\.1\.tasks\.energy .*direction",
            ),
            (["stages.1.tasks.direction.los=vmf"], r"mean stages\.1\.tasks\.direction"),
            (["tasks.direction.loss=vmf"], r"stages\.2\.loss is 'combined'"),
            (["monitor=energy/log10_error"], "unknown"),
            (["monitor=direction/angle"], "did you mean direction/opening_angle"),
            (
                ["tasks.track.weight=1", "monitor=track/auk"],
                "did you mean track/auc",
            ),
            (["weighting=learnt"], "weighting must be one of fixed, learned"),
            (["weighting=learned"], "weighting 'learned' needs tasks"),
        ],
    )
    def test_mistakes_are_named(self, overrides: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            find_recipe("t_sim", overrides)

    def test_a_task_is_named_once(self) -> None:
        with pytest.raises(ValueError, match="'energy' more than once"):
            replace(find_recipe("t_sim"), tasks=["energy", "track", "energy"])

    def test_a_task_may_have_weight_0_beside_others(self) -> None:
        recipe = find_recipe("t_sim", ["tasks.energy.weight=0"])
        assert recipe.task_options(0)["energy"]["weight"] == 0

    def test_a_metric_of_unknown_sign_is_no_monitor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torchmetrics = pytest.importorskip("torchmetrics")
        both = {
            "mean": torchmetrics.MeanMetric(),
            "error": torchmetrics.MeanAbsoluteError(),
            "score": torchmetrics.R2Score(),
        }
        monkeypatch.setattr(Energy, "collect", lambda self: both)
        recipe = replace(find_recipe("t_sim"), tasks=["energy"])
        with pytest.raises(ValueError, match=r"'energy/mean'.*higher_is_better"):
            replace(recipe, monitor="energy/mean")
        assert not replace(recipe, monitor="energy/error").higher_is_better
        assert replace(recipe, monitor="energy/score").higher_is_better
        monkeypatch.setattr(Energy, "higher_is_better", ("mean",))
        assert replace(recipe, monitor="energy/mean").higher_is_better
