"""Pre-training and fine-tuning: layers, frozen modules, new features, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import (
    FEATURE_NAMES,
    EventStore,
    InputConfig,
    PackedBatch,
    finetune,
    load_model,
    pretrain,
    register_model,
    save_model,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap, Scales
from graphnet_icecube2nd.inference.model_bundle import load_bundle
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.model import Model, layers_of
from graphnet_icecube2nd.models.registry import MODELS, new_model
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.store import prepare_frames
from graphnet_icecube2nd.tasks.masked_pulses import (
    MASKED,
    OF_PLACE,
    TIME_UNIT,
    MaskedPulses,
)
from graphnet_icecube2nd.training import Recipe, Stage, TrainerConfig, train
from graphnet_icecube2nd.training.module import TrainingModule, freeze, layer_groups
from graphnet_icecube2nd.training.run import check_model
from graphnet_icecube2nd.training.transfer import METHODS, finetune_recipe

SIZES = {"dim": 32, "dim_base": 8, "depth": 2, "head_size": 16, "depth_rel": 1}
TWO = ["direction", "energy"]
STAGE = Stage(lr_max=1e-3)


def small(name: str = "t_sim", tasks: Any = TWO, **kwargs: Any) -> Model:
    torch.manual_seed(3)
    return new_model(name, tasks=tasks, **{**SIZES, **kwargs})


class Pool(nn.Module):
    """A mean of what a layer with dropout says of the pulses."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.dim, self.given = 8, layers
        self.layer = nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        if layers is not None:
            self.layers = lambda: layers

    def forward(self, batch: PackedBatch) -> Tensor:
        latent_TD = self.layer(batch.features)
        return torch.segment_reduce(latent_TD, "mean", lengths=batch.lengths)


@pytest.fixture
def pool() -> Any:
    @register_model
    def dropout_pool(layers: Any = (("layer.0",), ("layer.1",))) -> nn.Module:
        return Pool(layers)

    yield "dropout_pool"
    del MODELS._entries["dropout_pool"]


@pytest.mark.parametrize(
    ("name", "tasks"), [("t_sim", TWO), ("t_sim", None), ("s_gnn", TWO)]
)
def test_learning_rates_of_layers(name: str, tasks: Any) -> None:
    model = small(name, tasks)
    groups = layer_groups(model, 0.5)
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {names[id(p)]: g["factor"] for g in groups for p in g["params"]}
    assert rates.keys() == set(names.values())
    backbone = "" if tasks is None else "backbone."
    # Head, two encoder blocks, one block before the class token, the embedding.
    for prefix, factor in (
        ("head." if tasks is None else "tasks.", 1.0),
        (f"{backbone}encoder.1.", 0.5),
        (f"{backbone}encoder.0.", 0.25),
        (f"{backbone}class_token", 0.25),
        (f"{backbone}local.0.", 0.125),
        (f"{backbone}embedding.", 0.0625),
        (f"{backbone}interval.", 0.0625),
    ):
        found = {rate for n, rate in rates.items() if n.startswith(prefix)}
        assert found == {factor}, prefix
    (graph,) = {r for n, r in rates.items() if ".graph." in n} or {0.0625}
    assert graph == 0.0625
    module: Any = TrainingModule(model, replace(STAGE, layer_decay=0.5))
    module.trainer = SimpleNamespace(
        precision_plugin=None, global_step=0, estimated_stepping_batches=10
    )
    optimiser = module.configure_optimizers()
    module.on_before_optimizer_step(optimiser)
    start = STAGE.schedule().learning_rate_at(0)
    used = {names[id(p)]: g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert used == {n: pytest.approx(start * rates[n]) for n in used}


def test_a_layer_wise_run_resumes_to_the_bit(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Callable[[Path], dict[str, Any]],
) -> None:
    stage = replace(tiny.stages[0], layer_decay=0.5, freeze=("embedding",))
    recipe = replace(tiny, stages=(stage,), tasks={"direction": {}, "energy": {}})
    plain = replace(recipe, stages=(replace(stage, layer_decay=1.0),))

    def stop(rows: list[Any]) -> None:
        raise RuntimeError("stopped")

    for name, made in (("calm", recipe), ("plain", plain)):
        train(made, simulated, tmp_path / name, machine=quiet)
    with pytest.raises(RuntimeError, match="stopped"):
        train(recipe, simulated, tmp_path / "cut", machine=quiet, on_row=stop)
    train(recipe, simulated, tmp_path / "cut", machine=quiet, resume=True)
    calm, cut, plain_ = (weights_of(tmp_path / n) for n in ("calm", "cut", "plain"))
    assert all(torch.equal(calm[name], cut[name]) for name in calm)
    assert not torch.equal(calm["backbone.class_token"], plain_["backbone.class_token"])


@pytest.mark.parametrize("tasks", [TWO, None])
def test_frozen_modules_have_no_gradient(
    tasks: Any, make_batch: Callable[..., PackedBatch]
) -> None:
    model = small(tasks=tasks)
    frozen = freeze(model, ("backbone",))
    outputs = model.outputs(make_batch([3, 5]))
    torch.stack([output.sum() for output in outputs.values()]).sum().backward()
    heads = [n for n, p in model.named_parameters() if p.grad is not None]
    assert {name.split(".")[0] for name in heads} == {"tasks" if tasks else "head"}
    assert {*frozen, *heads} == {n for n, _ in model.named_parameters()}
    # A name counts from the model or from its backbone.
    again = small(tasks=tasks)
    assert freeze(again, ("encoder.1",)) == freeze(again, ("backbone.encoder.1",))


def test_frozen_modules_stay_in_evaluation_mode(pool: str) -> None:
    model = new_model(pool, tasks=TWO)
    module = TrainingModule(model, replace(STAGE, freeze=("layer.1", "layer.2")[:1]))
    layer: Any = model.backbone
    for _ in range(2):
        assert [part.training for part in layer.layer] == [True, False, True]
        module.eval()
        module.train()
    whole = TrainingModule(
        new_model(pool, tasks=TWO), replace(STAGE, freeze=("layer",))
    )
    assert not any(part.training for part in whole.model.backbone.modules())  # type: ignore[operator, union-attr]
    assert whole.model.tasks.training  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("stage", "kwargs", "words"),
    [
        ({"layer_decay": 0.5}, {"layers": None}, r"Pool.*layers\(\)"),
        ({"layer_decay": 0.5}, {"layers": [["layer.0"]]}, r"layer\.1\.weight"),
        ({"layer_decay": 0.5}, {"layers": [["lair"]]}, "'lair'"),
        ({"freeze": ("lair",)}, {}, r"backbone, layer\.0, layer\.1, tasks.*'lair'"),
        ({"freeze": ("backbone", "tasks")}, {}, r"stages\.0\.freeze.*nothing"),
    ],
)
def test_wrong_names_are_refused(
    stage: dict[str, Any], kwargs: dict[str, Any], words: str, pool: str, tiny: Recipe
) -> None:
    recipe = replace(
        tiny,
        model=pool,
        model_kwargs=kwargs,
        stages=(replace(tiny.stages[0], **stage),),
        tasks={"direction": {}},
    )
    with pytest.raises(ValueError, match=words):
        check_model(recipe)


@pytest.mark.parametrize("decay", [0.0, 1.1, -1.0])
def test_layer_decay_is_a_share(decay: float) -> None:
    with pytest.raises(ValueError, match=f"layer_decay .*{decay}"):
        replace(STAGE, layer_decay=decay)


@pytest.mark.parametrize("name", ["t_sim", "s_gnn"])
@pytest.mark.parametrize("known", [(), ("tot",)])
def test_a_model_with_more_features_answers_as_before(
    name: str,
    known: tuple[str, ...],
    tmp_path: Path,
    make_batch: Callable[..., PackedBatch],
) -> None:
    before = small(name, extra_features=known).eval()
    save_model(before, tmp_path / "before.safetensors")
    width = before.backbone.embedding.project[0].out_features  # type: ignore[union-attr]
    names = ("dir_x", *known, "dir_y")
    torch.manual_seed(4)
    grown = new_model(
        name,
        tasks=["energy", "track"],
        **{**SIZES, "extra_features": names, "embedding_width": width},
    ).eval()
    report = load_weights(grown, tmp_path / "before.safetensors", partial=True)
    assert any("embedding.project.0" in n for n in report.grown)
    assert {n.split(".")[1] for n in report.missing if "extra.scale" not in n} == {
        "track"
    }
    batch = make_batch([4, 9, 2], names=(*FEATURE_NAMES, *sorted(names)))
    torch.testing.assert_close(
        grown.outputs(batch)["energy"], before.outputs(batch)["energy"]
    )
    save_model(grown, tmp_path / "grown.safetensors")
    again = load_model(tmp_path / "grown.safetensors")
    assert torch.equal(again.outputs(batch)["track"], grown.outputs(batch)["track"])


def sea(*extra: str) -> Detector:
    return Detector(
        name="sea",
        pulses=PulseMap(
            name="sea",
            charge="charge",
            auxiliary="auxiliary",
            time_reference="first_pulse",
            ice="none",
            extra=extra,
            extra_scale=(1.0,) * len(extra),
        ),
        medium="water",
        scales=Scales(position=100.0, time=6e3),
        extra_waves=(64.0,) * len(extra),
    )


@pytest.fixture(scope="module")
def sea_store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    """150 events with pulses of a sea, with time over threshold."""
    import pyarrow as pa

    generator = np.random.default_rng(5)
    length_B = generator.integers(3, 12, 150)
    event_T = np.repeat(np.arange(150), length_B)
    pulses = {
        "event_id": event_T,
        **{axis: generator.normal(0, 50, len(event_T)) for axis in "xyz"},
        "time": generator.uniform(0, 900, len(event_T)),
        "charge": generator.uniform(0.5, 2, len(event_T)),
        "auxiliary": generator.integers(0, 2, len(event_T)),
        "tot": generator.uniform(0, 1, len(event_T)),
    }
    truth = {
        "event_id": np.arange(150),
        "azimuth": generator.uniform(0, 6, 150),
        "zenith": generator.uniform(0, 3, 150),
        "energy": generator.uniform(1e2, 1e4, 150),
    }
    out = tmp_path_factory.mktemp("sea") / "store"
    prepare_frames(pa.table(pulses), pa.table(truth), out, detector=sea("tot"))
    return EventStore(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of IceCube for direction and track."""
    path = tmp_path_factory.mktemp("source") / "ice.safetensors"
    model = small(tasks=["direction", "track"])
    model.input_config = InputConfig(max_pulses=20, clock="first_pulse")
    save_model(model, path)
    return path


def test_the_first_answers_are_those_of_the_model(
    source: Path,
    sea_store: EventStore,
    quiet: TrainerConfig,
    tmp_path: Path,
    notices: list[str],
) -> None:
    still = {"epochs": 1.0, "lr_max": 1e-12, "weight_decay": 0.0}
    run = finetune(
        source,
        sea_store,
        tmp_path / "run",
        tasks=TWO,
        overrides={f"stages.0.{name}": value for name, value in still.items()},
        machine=quiet,
    )
    note = json.loads((tmp_path / "run" / "run.json").read_text())["finetuned_from"]
    assert note["model"] == str(source)
    assert (note["kept_tasks"], note["new_tasks"]) == (["direction"], ["energy"])
    assert (note["left_out_tasks"], note["new_features"]) == (["track"], ["tot"])
    told = "\n".join(notices)
    for words in ("direction", "energy", "track", "tot", "icecube86", "500 m"):
        assert words in told
    config = run.model.input_config
    assert config is not None
    assert (config.telescope, config.scales) == ("sea", Scales())
    reader = EventReader(sea_store, max_pulses=20, scales=Scales(), truth=())
    batch = reader.batch(np.arange(40))
    torch.testing.assert_close(
        run.model.outputs(batch)["direction"],
        load_model(source).outputs(batch)["direction"],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str, source: Path, sea_store: EventStore) -> None:
    model = load_model(source)
    recipe = finetune_recipe(model, source, sea_store, method=method, scales="store")
    assert set(recipe.tasks) == {"direction", "track"}
    assert recipe.data.scales is None
    assert recipe.stages[0].max_pulses == 20
    check_model(recipe)
    frozen = [set(stage.freeze) for stage in recipe.stages]
    decay = recipe.stages[-1].layer_decay
    lower = {"embedding", "interval", "local.0"}
    assert (frozen, decay < 1) == {
        "full": ([set()], False),
        "frozen": ([{"backbone"}], False),
        "layer-wise": ([set()], True),
        "staged": ([{"backbone"}, lower, set()], True),
    }[method]
    assert [stage.weights for stage in recipe.stages[1:]] == [None] * len(frozen[1:])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "fast"}, "full, frozen, layer-wise, staged.*'fast'"),
        ({"scales": "mine"}, "model, store.*'mine'"),
        ({"tasks": ["energi"]}, "energi.*energy"),
        ({"overrides": {"model_kwargs.depth": 3}}, r"encoder\.2"),
        ({"overrides": {"stages.0.weights": None}}, r"stages\.0\.weights"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, Any],
    words: str,
    source: Path,
    sea_store: EventStore,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=words):
        finetune(source, sea_store, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_store_without_a_column_of_the_model(
    simulated: EventStore, tmp_path: Path
) -> None:
    save_model(small(extra_features=("tot",)), tmp_path / "tot.safetensors")
    with pytest.raises(ValueError, match="tot"):
        finetune(tmp_path / "tot.safetensors", simulated, tmp_path / "run")


def test_pretraining_without_truth(
    tiny: Recipe,
    quiet: TrainerConfig,
    make_store: Callable[..., EventStore],
    sea_store: EventStore,
    tmp_path: Path,
    make_batch: Callable[..., PackedBatch],
) -> None:
    """Its loss falls; its weights are what a fine-tuning begins with."""
    store = make_store({1: [12, 30, 1] * 40}, with_truth=False)
    assert not store.has_directions
    sizes = {f"model_kwargs.{name}": value for name, value in SIZES.items()}
    stage = {"epochs": 6.0, "lr_max": 5e-3, "max_pulses": 20, "accumulate_events": 32}
    values = {**sizes, **{f"stages.0.{name}": v for name, v in stage.items()}}
    run = pretrain(store, tmp_path / "first", overrides=values, machine=quiet)
    losses = [row["validation_loss"] for row in run.rows]
    assert min(losses) < losses[0] - 0.1
    assert {"distance", "time_error", "light_error"} <= {
        name.partition("/")[2] for name in run.rows[0]
    }
    model = run.model
    batch = make_batch([7, 2, 1])
    assert torch.equal(
        model.outputs(batch)["masked_pulses"], model.outputs(batch)["masked_pulses"]
    )
    with pytest.raises(ValueError, match=r"without truth.*finetune"):
        load_bundle(tmp_path / "first")
    with pytest.raises(ValueError, match=r"without truth.*--tasks"):
        finetune(tmp_path / "first", sea_store, tmp_path / "second")
    second = finetune(
        tmp_path / "first",
        sea_store,
        tmp_path / "second",
        tasks=["energy"],
        method="frozen",
        overrides={"stages.0.epochs": 1.0},
        machine=quiet,
    )
    after, before = second.model.state_dict(), model.state_dict()
    name = "backbone.encoder.0.attention.fn.qkv.weight"
    assert torch.equal(after[name], before[name])
    assert "tasks.energy.head.weight" in after


def test_masked_pulses() -> None:
    """Only what is masked changes, of some pulses the place, of others the light."""
    generator = torch.Generator().manual_seed(1)
    features_TF = torch.rand(3000, 10, generator=generator)
    features_TF[:, 5].round_()
    batch = PackedBatch.from_events(
        features_TF.split([1499, 1500, 1]), names=(*FEATURE_NAMES, "tot")
    )
    task = MaskedPulses(share=0.3, light="tot").eval()
    masked = task.mask(batch)
    columns = {name: masked.batch.column(name) for name in batch.names}
    hidden = {name: value == MASKED for name, value in columns.items()}
    for names in (("x", "y", "z"), ("time", "charge")):
        assert all(torch.equal(hidden[name], hidden[names[0]]) for name in names)
    place, light, either = hidden["x"], hidden["time"], hidden["tot"]
    assert not (place & light).any()
    assert torch.equal(place | light, either)
    assert float(either.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(place.sum() / either.sum()) == pytest.approx(0.5, abs=0.06)
    assert not either[-1]  # the event has no other pulse
    assert torch.equal(either.nonzero()[:, 0], masked.index)
    assert torch.equal(columns["auxiliary"], batch.column("auxiliary"))
    for name, value in columns.items():
        changed = hidden[name] | (place if name in OF_PLACE else False)
        assert torch.equal(value[~changed], batch.column(name)[~changed])
    visible = ~either[:1499]
    mean = batch.column("time")[:1499][visible].mean()
    row = int(masked.index[0])
    expected = (batch.column("time")[row] - mean) / TIME_UNIT
    torch.testing.assert_close(masked.target[0, 3], expected, rtol=1e-3, atol=1e-3)
    assert not torch.equal(task.train().mask(batch).index, task.mask(batch).index)
    with pytest.raises(ValueError, match="'charges'"):
        MaskedPulses(light="charges").mask(batch)


def test_a_backbone_without_latents_of_pulses(pool: str) -> None:
    with pytest.raises(ValueError, match=r"masked_pulses.*pulse_latents.*Pool"):
        new_model(pool, tasks=["masked_pulses"])


def test_layers_are_all_weights() -> None:
    model = small()
    layers = layers_of(model)
    names = [name for layer in layers for name in layer]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    assert all(name.startswith("tasks.") for name in layers[-1])
