"""Checkpoints of the published code into our models, and our own files."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graphnet_icecube2nd import (
    DeepIce,
    DeepIceGNN,
    PackedBatch,
    build_model,
    load_competition_weights,
    load_model,
    save_model,
)
from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.models import weights
from graphnet_icecube2nd.models.model import TaskModel
from graphnet_icecube2nd.models.registry import build_backbone
from graphnet_icecube2nd.models.weights import published_name
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.energy import Energy
from graphnet_icecube2nd.tasks.track import Track

ALL = (
    *("deepice_small", "deepice_small_4rel", "v22_small", "v23_small"),
    *("b_d32", "b_d64", "b_d32_4rel", "s_gnn", "b_gnn"),
)
SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
KEY = "sandwich.1.attn.proj_q.weight"
SURPLUS = "blocks.2.norm1.weight"


@pytest.fixture(params=["deepice_small", "v22_small"])
def reference(request: pytest.FixtureRequest, golden: Callable[[str], Any]) -> Any:
    return golden(request.param)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class TestNames:
    @pytest.mark.parametrize("name", ALL)
    def test_one_to_one(self, golden: Callable[[str], Any], name: str) -> None:
        reference = golden(name)
        with torch.device("meta"):
            state = reference.empty_model().state_dict()
        published = [published_name(key) for key in state]
        assert len(set(published)) == len(published)
        assert set(published) == set(reference.meta["state_dict"])
        for key, tensor in state.items():
            shape = reference.meta["state_dict"][published_name(key)]
            assert list(tensor.shape) == shape, key

    def test_hand_made_cases(self) -> None:
        for ours, theirs in (
            ("class_token", "cls_token.weight"),
            ("head.bias", "proj_out.bias"),
            ("interval.project.weight", "rel_pos.proj.weight"),
            ("embedding.length.scale", "extractor.emb2.scale"),
            ("local.3.attention.fn.query.weight", "sandwich.3.attn.proj_q.weight"),
            ("local.0.attention.fn.output.bias", "sandwich.0.attn.proj.bias"),
            ("encoder.11.attention.fn.qkv.bias", "blocks.11.attn.in_proj_bias"),
            ("encoder.0.attention.fn.output.bias", "blocks.0.attn.out_proj.bias"),
            ("encoder.10.mlp.scale", "blocks.10.gamma_2"),
            ("encoder.1.mlp.fn.contract.weight", "blocks.1.mlp.fc2.weight"),
            (
                "graph.convolutions.2.mlp.0.weight",
                "local_root._conv_layers.2.nn.0.weight",
            ),
        ):
            assert published_name(ours) == theirs


class TestCompetitionWeights:
    def test_fills_everything(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        before = snapshot(model)
        assert load_competition_weights(model, state) is model
        for name, tensor in model.state_dict().items():
            published = state[published_name(name)]
            if name.startswith("head."):
                published = published[[1, 0, 2]]  # theirs is y, x, z
            assert torch.equal(tensor, published), name
            assert not torch.equal(tensor, before[name]), name

    def test_source_is_not_kept(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        load_competition_weights(model, state)
        before = snapshot(model)
        for tensor in state.values():
            tensor.zero_()
        assert_untouched(model, before)

    def test_read_out_stays_frozen(self, golden: Callable[[str], Any]) -> None:
        model = golden("v22_small").model()
        frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert len(frozen) == 4
        assert all(name.startswith("graph.readout.") for name in frozen)

    def test_missing(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        before = snapshot(model)
        del state[KEY], state["cls_token.weight"]
        with pytest.raises(CheckpointError, match="in 2 keys") as caught:
            load_competition_weights(model, state)
        assert f"missing: {KEY}" in str(caught.value)
        assert "missing: cls_token.weight" in str(caught.value)
        assert_untouched(model, before)

    def test_surplus(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        before = snapshot(model)
        state[SURPLUS] = torch.zeros(64)
        with pytest.raises(CheckpointError, match=f"surplus: {SURPLUS}"):
            load_competition_weights(model, state)
        assert_untouched(model, before)

    def test_misshapen(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        before = snapshot(model)
        state[KEY] = state[KEY][:-1]
        with pytest.raises(CheckpointError, match=f"misshapen: {KEY}") as caught:
            load_competition_weights(model, state)
        assert "is (63, 64), should be (64, 64)" in str(caught.value)
        assert_untouched(model, before)

    def test_all_faults_are_named_at_once(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        before = snapshot(model)
        state["proj_out.weight"] = torch.zeros(4, 64)
        state[SURPLUS] = torch.zeros(64)
        del state[KEY]
        with pytest.raises(CheckpointError, match="in 3 keys") as caught:
            load_competition_weights(model, state)
        for name in ("proj_out.weight", SURPLUS, KEY):
            assert name in str(caught.value)
        assert_untouched(model, before)

    def test_of_another_model(self, golden: Callable[[str], Any]) -> None:
        plain = golden("deepice_small").empty_model()
        with pytest.raises(CheckpointError, match=r"surplus: local_root\._conv"):
            load_competition_weights(plain, golden("v22_small").state_dict)

    def test_no_tensor(self, reference: Any) -> None:
        model, state = reference.empty_model(), reference.state_dict
        with pytest.raises(ValueError, match=f"a float under {KEY!r}"):
            load_competition_weights(model, {**state, KEY: 1.0})
        with pytest.raises(ValueError, match="a dict under 'model'"):
            load_competition_weights(model, {"model": state})


class LastLayerElsewhere(nn.Module):
    """As GraphNeT's StandardModel has it: a backbone, and tasks with `_affine`."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.backbone = DeepIce(**SIZES)
        self.backbone.head = nn.Identity()
        self.tasks = nn.ModuleList(
            nn.ModuleDict({"_affine": nn.Linear(32, width)}) for width in widths
        )


class TestLastLayerElsewhere:
    @staticmethod
    def state() -> dict[str, Tensor]:
        state = DeepIce(**SIZES).state_dict()
        return {published_name(n): torch.randn_like(t) for n, t in state.items()}

    def test_is_found(self) -> None:
        model, state = LastLayerElsewhere(1, 3), self.state()
        load_competition_weights(model, state)
        layer = model.tasks[1]["_affine"]
        assert torch.equal(layer.weight, state["proj_out.weight"][[1, 0, 2]])
        assert torch.equal(layer.bias, state["proj_out.bias"][[1, 0, 2]])
        assert torch.equal(model.backbone.class_token, state["cls_token.weight"])

    @pytest.mark.parametrize("widths", [(), (1,), (3, 3)])
    def test_must_be_one(self, widths: tuple[int, ...]) -> None:
        model = LastLayerElsewhere(*widths)
        before = snapshot(model)
        message = f"has {widths.count(3)} tasks with such a layer"
        with pytest.raises(ValueError, match=message):
            load_competition_weights(model, self.state())
        assert_untouched(model, before)

    def test_must_hold_one_model(self) -> None:
        for model in (nn.Linear(3, 3), nn.ModuleList(2 * [nn.Identity()])):
            with pytest.raises(ValueError, match="holds 0"):
                load_competition_weights(model, self.state())
        both = nn.ModuleList([DeepIce(**SIZES), DeepIce(**SIZES)])
        with pytest.raises(ValueError, match="holds 2"):
            load_competition_weights(both, self.state())


class WritesAFile:
    """Unpickled, it runs code: what must not happen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class TestFiles:
    @pytest.mark.parametrize("kind", [str, Path])
    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_load(
        self, reference: Any, tmp_path: Path, suffix: str, kind: type
    ) -> None:
        path = tmp_path / f"weights.{suffix}"
        if suffix == "pth":
            torch.save(reference.state_dict, path)
        else:
            save_file(reference.state_dict, path)
        model = load_competition_weights(reference.empty_model(), kind(path))
        wanted = reference.model()
        assert_untouched(model, wanted.state_dict())

    def test_old_pth(self, reference: Any, tmp_path: Path) -> None:
        """The format before PyTorch 1.6, which the zip reader does not know."""
        path = tmp_path / "weights.pth"
        torch.save(reference.state_dict, path, _use_new_zipfile_serialization=False)
        model = load_competition_weights(reference.empty_model(), path)
        assert_untouched(model, reference.model().state_dict())

    @pytest.mark.parametrize("is_zip", [True, False])
    def test_code_in_a_file_does_not_run(
        self, reference: Any, tmp_path: Path, is_zip: bool
    ) -> None:
        trace, path = tmp_path / "it ran", tmp_path / "weights.pth"
        state = {**reference.state_dict, "surprise": WritesAFile(trace)}
        torch.save(state, path, _use_new_zipfile_serialization=is_zip)
        model = reference.empty_model()
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"(?i)code from a file is never run"):
            load_competition_weights(model, path)
        assert not trace.exists()
        assert_untouched(model, before)
        # The trap is a real one.
        pickle.loads(pickle.dumps(WritesAFile(trace)))
        assert trace.exists()

    def test_a_pickled_model_is_refused(self, reference: Any, tmp_path: Path) -> None:
        path = tmp_path / "model.pth"
        torch.save(reference.model(), path)
        with pytest.raises(ValueError, match=r"model\.pth cannot be read as weights"):
            load_competition_weights(reference.empty_model(), path)

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("content", [b"", b"weights", b"\x08" + 40 * b"\0"])
    def test_not_a_checkpoint(
        self, reference: Any, tmp_path: Path, suffix: str, content: bytes
    ) -> None:
        path = tmp_path / f"something.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"something\.{suffix}"):
            load_competition_weights(reference.empty_model(), path)

    def test_not_a_state_dict(self, reference: Any, tmp_path: Path) -> None:
        path = tmp_path / "list.pth"
        torch.save([torch.zeros(3)], path)
        with pytest.raises(ValueError, match="holds a list, not a state dict"):
            load_competition_weights(reference.empty_model(), path)

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_no_such_file(self, reference: Any, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(FileNotFoundError):
            load_competition_weights(
                reference.empty_model(), tmp_path / f"nowhere.{suffix}"
            )


MODELS: list[Callable[[], DeepIce]] = [
    lambda: DeepIce(**SIZES),
    lambda: DeepIce(**SIZES, n_rel=0, depth_rel=2, use_checkpoint=True),
    lambda: DeepIce(**SIZES, extra_features=("tot", "pmt_dir_x")),
    lambda: DeepIceGNN(**SIZES, knn_features=4),
    lambda: DeepIceGNN(**SIZES, extra_features=["tot"]),
]


class TestOwnFiles:
    @pytest.mark.parametrize("build", MODELS)
    def test_round_trip(
        self,
        build: Callable[[], DeepIce],
        tmp_path: Path,
        make_batch: Callable[..., PackedBatch],
    ) -> None:
        model, path = build(), tmp_path / "model.safetensors"
        save_model(model, path)
        again = load_model(path)
        assert type(again) is type(model)
        assert again.kwargs() == model.kwargs()
        assert not again.training
        assert_untouched(again, model.state_dict())
        names = (*PackedBatch.names, *model.kwargs()["extra_features"])
        batch = make_batch([7, 1], names=names)
        with torch.no_grad():
            assert torch.equal(again(batch), model(batch))

    def test_any_suffix(self, tmp_path: Path) -> None:
        """`.safetensors` is usual, not required."""
        model = DeepIce(**SIZES)
        save_model(model, tmp_path / "model.icecube")
        again = load_model(tmp_path / "model.icecube")
        assert_untouched(again, model.state_dict())

    def test_replaces_an_older_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_text("old")
        save_model(DeepIce(**SIZES), str(path))
        assert load_model(str(path)).kwargs()["dim"] == 32
        assert os.listdir(tmp_path) == ["model.safetensors"]

    @pytest.mark.parametrize("there_was", [None, b"the one before"])
    def test_whole_or_not_at_all(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        there_was: bytes | None,
    ) -> None:
        path = tmp_path / "model.safetensors"
        if there_was is not None:
            path.write_bytes(there_was)

        def disk_full(tensors: Any, partial: str, **_: Any) -> None:
            Path(partial).write_bytes(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(weights, "save_file", disk_full)
        with pytest.raises(OSError, match="no space left"):
            save_model(DeepIce(**SIZES), path)
        left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert left == ({} if there_was is None else {path.name: there_was})

    @pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
    def test_others_may_read_it(self, tmp_path: Path) -> None:
        """As of any file one writes: what the umask leaves."""
        path, plain = tmp_path / "model.safetensors", tmp_path / "plain"
        save_model(DeepIce(**SIZES), path)
        plain.touch()
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    def test_weights_without_a_model(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.safetensors"
        save_file(DeepIce(**SIZES).state_dict(), path)
        with pytest.raises(ValueError, match="has weights but no model"):
            load_model(path)

    def test_unknown_class(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        metadata = {"graphnet_icecube2nd": '{"class": "Else", "kwargs": {}}'}
        save_file(DeepIce(**SIZES).state_dict(), path, metadata=metadata)
        with pytest.raises(ValueError, match=r"'Else'; known are DeepIce, DeepIceGNN"):
            load_model(path)

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            "3",
            "{}",
            '{"model": 5, "kwargs": {}}',
            '{"model": "deepice", "kwargs": []}',
            '{"model": "deepice", "kwargs": {}, "tasks": [null]}',
            '{"class": ["DeepIce"], "kwargs": {}}',
            '{"model": "deepice", "kwargs": {"dim": -32}}',
            '{"model": "deepice", "kwargs": {"dim": "32"}}',
            '{"model": "deepice", "kwargs": {"depth": null}}',
            '{"model": "deepice", "kwargs": {"depth": 1000000000}}',
            '{"model": "deepice", "kwargs": {}, "tasks": {"direction": 3}}',
            '{"model": "deepice", "kwargs": {}, "input": 3}',
        ],
    )
    def test_metadata_of_other_types(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "odd.safetensors"
        metadata = {"graphnet_icecube2nd": text}
        save_file({"a": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"odd\.safetensors"):
            load_model(path)

    def test_weights_that_do_not_fit(self, tmp_path: Path) -> None:
        model, path = DeepIce(**SIZES), tmp_path / "model.safetensors"
        model.head = nn.Linear(32, 4)
        save_model(model, path)
        with pytest.raises(CheckpointError, match=r"head\.weight is \(4, 32\)"):
            load_model(path)

    def test_trained_weights_do_not_change_with_the_file(self, tmp_path: Path) -> None:
        """Tensors are the model's own, not views of the file."""
        path = tmp_path / "model.safetensors"
        save_model(DeepIce(**SIZES), path)
        again = load_model(path)
        before = snapshot(again)
        path.write_bytes(bytes(np.zeros(path.stat().st_size, dtype=np.uint8)))
        assert_untouched(again, before)


@pytest.mark.parametrize(
    ("stem", "wrong", "right"),
    [
        ("VFTV3_4RELFT_7", {"n_rel": 1}, {"n_rel": 4}),
        ("V22FT6_1", {"n_rel": 1, "knn_features": 4}, {"n_rel": 1, "knn_features": 3}),
        ("V23FT5_6", {"n_rel": 1, "knn_features": 4}, {"n_rel": 4, "knn_features": 4}),
    ],
)
def test_published_file_names_tell_what_no_key_shows(
    stem: str, wrong: dict[str, int], right: dict[str, int], tmp_path: Path
) -> None:
    """1 interval block or 4, a graph in 3 dimensions or 4: the same keys."""
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
    model_class = DeepIceGNN if "knn_features" in right else DeepIce
    source = model_class(**sizes, **right)
    state = {
        published_name(key): value[[1, 0, 2]] if key.startswith("head.") else value
        for key, value in source.state_dict().items()
    }
    torch.save(state, tmp_path / f"{stem}.pth")
    with pytest.raises(CheckpointError, match=f"{stem} was trained with"):
        load_competition_weights(
            model_class(**sizes, **wrong), tmp_path / f"{stem}.pth"
        )
    filled = load_competition_weights(
        model_class(**sizes, **right), tmp_path / f"{stem}.pth"
    )
    for key, value in source.state_dict().items():
        assert torch.equal(filled.state_dict()[key], value), key


def test_only_what_can_be_loaded_is_saved(tmp_path: Path) -> None:
    class Mine(DeepIce):
        pass

    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16}
    headless = DeepIce(**sizes)
    headless.head = torch.nn.Identity()
    for model in (Mine(**sizes), headless):
        with pytest.raises(ValueError, match="with their last layers"):
            save_model(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    save_model(DeepIce(**sizes).double(), tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.class_token.dtype == torch.float64


class TestMessagesThatHelp:
    def refused(self, state: dict[str, torch.Tensor]) -> str:
        model = DeepIce(dim=32, dim_base=8, depth=1, head_size=16)
        with pytest.raises(CheckpointError) as caught:
            load_competition_weights(model, state)
        return str(caught.value)

    def published(self) -> dict[str, torch.Tensor]:
        source = DeepIce(dim=32, dim_base=8, depth=1, head_size=16).state_dict()
        return {published_name(key): value for key, value in source.items()}

    def test_every_key_is_named(self) -> None:
        message = self.refused({})
        assert message.count("missing:") == len(self.published())
        for key in self.published():
            assert f"missing: {key}\n" in message + "\n"

    def test_the_hint_comes_first(self) -> None:
        state = {f"module.{key}": value for key, value in self.published().items()}
        assert "DataParallel" in self.refused(state).splitlines()[0]

    def test_prefix(self) -> None:
        state = {f"module.{key}": value for key, value in self.published().items()}
        assert "DataParallel" in self.refused(state)

    def test_our_own_weights(self) -> None:
        own = DeepIce(dim=32, dim_base=8, depth=1, head_size=16).state_dict()
        assert "use load_model or load_state_dict" in self.refused(own)

    def test_not_finite(self) -> None:
        state = self.published()
        state["proj_out.bias"] = torch.tensor([0.0, float("nan"), 0.0])
        assert "weights that are not finite: proj_out.bias" in self.refused(state)

    def test_no_model(self) -> None:
        with pytest.raises(ValueError, match="a model is needed"):
            load_competition_weights("s_gnn", {})  # type: ignore[arg-type]


def test_learned_weights_of_tasks_have_a_checksum() -> None:
    """They are single numbers."""
    model = build_model(
        "t_sim", tasks=["direction", "energy"], weighting="learned", dim=32, depth=1
    )
    before = weights.weights_digest(model)
    with torch.no_grad():
        model.get_parameter("log_variance.energy").fill_(0.5)
    assert weights.weights_digest(model) != before


@pytest.mark.parametrize(
    "energy", [Energy("gaussian"), Energy(likelihood="gaussian")], ids=["place", "name"]
)
def test_options_of_tasks_made_as_objects_are_saved(
    energy: Energy, tmp_path: Path
) -> None:
    model = TaskModel(
        build_backbone("t_sim", **SIZES),
        {"energy": energy, "direction": Direction(contours=(0.68,))},
        model_name="t_sim",
        model_kwargs=SIZES,
    )
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    output = torch.tensor([[0.0, 0.5, 1.0]])
    for name, task in model.task_map.items():
        expected = task.predict(output[:, : task.num_outputs])
        found = again.task_map[name].predict(output[:, : task.num_outputs])
        assert found.keys() == expected.keys()
        for column, value in expected.items():
            assert torch.equal(found[column], value), column


def test_a_subclass_of_a_task_records_its_own_arguments() -> None:
    class Wide(Energy):
        def __init__(self, factor: float = 1.0, **options: Any) -> None:
            super().__init__(likelihood="gaussian")
            self.factor, self.more = factor, options

    class Same(Wide):
        pass

    for kind in (Wide, Same):
        assert kind(2.0, depth=3).describe() == {"factor": 2.0, "depth": 3}
        assert copy.deepcopy(kind(factor=2.0)).describe() == {"factor": 2.0}
        assert kind().describe() == {}
    assert Track().describe() == {}
