"""Configurations: written, read, and giving the same predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)

from graphnet.data.dataset import Dataset, SQLiteDataset
from graphnet.models import Model, StandardModel
from graphnet.models.data_representation import KNNGraph
from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa
from graphnet.utilities.config import DatasetConfig, ModelConfig

import graphnet_icecube2nd.graphnet_adapter as adapter
from graphnet_icecube2nd import PulseMap, build_model, load_competition_weights
from graphnet_icecube2nd.errors import CheckpointError

pytestmark = pytest.mark.graphnet

SMALL = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
PUBLISHED = {"qe": "published", "ice": "mirrored"}
ICECUBE86 = ["dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde"]


def make_model(backbone: Any = None, **switches: str) -> StandardModel:
    backbone = backbone or adapter.DeepIceGNNBackbone(**SMALL)
    detector = adapter.IceCube86PulseMapDetector(**switches)
    return StandardModel(
        data_representation=adapter.PackedPulses(detector),
        backbone=backbone,
        tasks=[
            DirectionReconstructionWithKappa(
                hidden_size=backbone.nb_outputs,
                target_labels="direction",
                loss_function=adapter.CombinedDirection(),
            )
        ],
    )


def make_dataset(database: str, **changes: Any) -> SQLiteDataset:
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector(), seed=0)
    arguments = {
        "path": database,
        "pulsemaps": ["pulses"],
        "features": list(ICECUBE86),
        "truth": ["azimuth", "zenith"],
        "data_representation": representation,
        "labels": {"direction": adapter.OriginDirection(angles="flight")},
    }
    return SQLiteDataset(**{**arguments, **changes})


COMPONENTS = [
    adapter.DeepIceBackbone(**SMALL),
    adapter.DeepIceGNNBackbone(**SMALL, extra_features=["pmt_dir_x"]),
    adapter.KagglePulseMapDetector(qe="published", ice="mirrored"),
    adapter.IceCube86PulseMapDetector(),
    adapter.UpgradePulseMapDetector(),
    adapter.PrometheusPulseMapDetector(angles="origin"),
    adapter.PulseMapDetector(PulseMap.kaggle(charge=None).to_dict()),
    adapter.KagglePulseMapDetector(angles="flight", changes={"auxiliary": None}),
    adapter.PackedPulses(adapter.KagglePulseMapDetector(), max_pulses=7, seed=1),
    adapter.DeepIcePulses(pulse_map="icecube86", selection="first"),
    adapter.ExactVonMisesFisher3DLoss(normalisation="published"),
    adapter.AngularDistance(),
    adapter.CombinedDirection(vmf_weight=0.1),
]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: type(c).__name__)
def test_components_come_back_from_yaml_without_trust(
    component: Any, tmp_path: Path
) -> None:
    component.save_config(str(tmp_path / "c.yml"))
    again = Model.from_config(str(tmp_path / "c.yml"))
    assert type(again) is type(component)
    assert again.config.as_dict() == component.config.as_dict()


def test_nested_components_come_back_without_trust(tmp_path: Path) -> None:
    graph = KNNGraph(
        detector=adapter.IceCube86PulseMapDetector(),
        node_definition=adapter.DeepIcePulses(pulse_map="icecube86", max_pulses=5),
        input_feature_names=list(ICECUBE86),
    )
    graph.save_config(str(tmp_path / "g.yml"))
    again = Model.from_config(str(tmp_path / "g.yml"))
    assert isinstance(again._node_definition, adapter.DeepIcePulses)
    assert isinstance(again._detector, adapter.IceCube86PulseMapDetector)
    assert again.config.as_dict() == graph.config.as_dict()


def test_model_config_object_builds_our_classes() -> None:
    config = ModelConfig(class_name="DeepIceBackbone", arguments=SMALL)
    assert isinstance(config._construct_model(), adapter.DeepIceBackbone)


def test_standard_model_from_yaml_predicts_the_same(
    database: str, tmp_path: Path
) -> None:
    model = make_model()
    model.save_config(str(tmp_path / "model.yml"))
    model.save_state_dict(str(tmp_path / "model.pth"))
    # The optimiser's class is what GraphNeT asks trust for, with any backbone.
    again = Model.from_config(str(tmp_path / "model.yml"), trust=True)
    again.load_state_dict(str(tmp_path / "model.pth"))
    dataset = make_dataset(database)
    batch = adapter.collate_events([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        first, second = model.eval()(batch)[0], again.eval()(batch)[0]
    assert first.shape == (10, 4)
    assert bool(first.isfinite().all())
    assert torch.equal(first, second)


def test_dataset_from_yaml_gives_the_same_events(database: str, tmp_path: Path) -> None:
    dataset = make_dataset(database)
    dataset.config.dump(str(tmp_path / "dataset.yml"))
    again = Dataset.from_config(str(tmp_path / "dataset.yml"))
    assert isinstance(again, SQLiteDataset)
    for index in range(len(dataset)):
        one, other = dataset[index], again[index]
        assert torch.equal(one.x, other.x), "the seed of the selection comes along"
        assert torch.equal(one.direction, other.direction)
        assert one.n_pulses == other.n_pulses
    loaded = DatasetConfig.load(str(tmp_path / "dataset.yml"))
    selected = {"train": "event_no < 105", "test": "event_no >= 105"}
    loaded.selection = selected
    parts = Dataset.from_config(loaded)
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "test": 5}


def test_label_of_graphnets_config_form_is_ours(database: str, tmp_path: Path) -> None:
    make_dataset(database).config.dump(str(tmp_path / "dataset.yml"))
    label = DatasetConfig.load(str(tmp_path / "dataset.yml")).labels["direction"]
    assert label["class_name"] == "OriginDirection"
    assert label["arguments"]["angles"] == "flight"


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Published names and shapes, with weights drawn anew."""
    folder = Path(__file__).parents[1] / "golden"
    meta = json.loads((folder / f"{name}.json").read_text())
    rng = np.random.default_rng(0)
    state = {
        key: torch.from_numpy(rng.normal(0, 0.05, shape).astype(np.float32))
        for key, shape in meta["state_dict"].items()
    }
    return meta, state


@pytest.mark.parametrize(
    ("name", "backbone_class", "further"),
    [
        ("deepice_small", adapter.DeepIceBackbone, {}),
        ("v22_small", adapter.DeepIceGNNBackbone, {}),
        ("v23_small", adapter.DeepIceGNNBackbone, {"n_rel": 4, "knn_features": 4}),
    ],
)
def test_competition_weights_fill_backbone_and_task(
    name: str, backbone_class: Any, further: dict[str, int], database: str
) -> None:
    meta, state = golden(name)
    sizes = {**meta["kwargs"], **further}
    model = make_model(backbone_class(**sizes), **PUBLISHED)
    assert load_competition_weights(model, state) is model
    plain = build_model("s_gnn" if "v2" in name else "s_d32", **sizes)
    load_competition_weights(plain, state)
    dataset = make_dataset(database)
    batch = adapter.collate_events([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        prediction = model.eval()(batch)[0]
        vector = plain.eval()(model.backbone._packed(batch))
    torch.testing.assert_close(
        prediction[:, :3] * prediction[:, 3:], vector, rtol=1e-4, atol=1e-5
    )


def test_a_checkpoint_that_does_not_fit_leaves_the_standard_model_alone() -> None:
    meta, state = golden("v22_small")
    model = make_model(adapter.DeepIceGNNBackbone(**meta["kwargs"]), **PUBLISHED)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    del state["proj_out.bias"]
    with pytest.raises(CheckpointError, match=r"missing: proj_out\.bias"):
        load_competition_weights(model, state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_on_other_features_than_theirs_get_a_warning() -> None:
    meta, state = golden("v22_small")
    model = make_model(adapter.DeepIceGNNBackbone(**meta["kwargs"]))
    with pytest.warns(UserWarning, match="qe='rde', ice='correct'; competition"):
        load_competition_weights(model, state)
    meta, state = golden("deepice_small")  # reads neither
    model = make_model(adapter.DeepIceBackbone(**meta["kwargs"]))
    load_competition_weights(model, state)


def test_a_pulse_map_itself_goes_into_yaml(tmp_path: Path) -> None:
    pulse_map = PulseMap.kaggle(sensor_id=None, extra=("tot",), extra_scale=(9.0,))
    detector = adapter.PulseMapDetector(pulse_map)
    representation = adapter.PackedPulses(detector)
    representation.save_config(str(tmp_path / "c.yml"))
    again = Model.from_config(str(tmp_path / "c.yml"))
    assert again._detector.pulse_map == pulse_map
    nodes = adapter.DeepIcePulses(pulse_map=pulse_map)
    nodes.save_config(str(tmp_path / "n.yml"))
    assert isinstance(Model.from_config(str(tmp_path / "n.yml")), adapter.DeepIcePulses)
