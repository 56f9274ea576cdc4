"""Weights that a stage starts from, of every origin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphnet_icecube2nd import build_model, save_model
from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.models.weights import load_weights
from graphnet_icecube2nd.training.module import freeze

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


def fresh(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return build_model("t_sim", **{**SIZES, **changes})


def equal(ours: Any, theirs: Any) -> bool:
    states = ours.state_dict(), theirs.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_our_own_file_and_a_run(tmp_path: Path) -> None:
    source = fresh(1)
    save_model(source, tmp_path / "model.safetensors")
    for where in (tmp_path / "model.safetensors", tmp_path):
        model = fresh(2)
        report = load_weights(model, where)
        assert equal(model, source)
        assert report.kind == "own"
        assert len(report.loaded) == len(source.state_dict())
        assert "missing" not in report.text


def test_a_checkpoint_of_a_run_gives_the_average(tmp_path: Path) -> None:
    raw, average = fresh(1), fresh(2)
    state = {f"model.{n}": v for n, v in raw.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resume.ckpt")
    model = fresh(3)
    load_weights(model, tmp_path / "resume.ckpt")
    assert equal(model, raw)
    state |= {f"average.model.{n}": v for n, v in average.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resume.ckpt")
    load_weights(model, tmp_path / "resume.ckpt")
    assert equal(model, average)


def test_competition_checkpoint(golden: Callable[[str], Any], tmp_path: Path) -> None:
    """Also as DataParallel saved it, as the published code did."""
    reference = golden("deepice_small")
    expected = reference.model()
    for name in ("", "module."):
        state = {name + key: v for key, v in reference.state_dict.items()}
        torch.save(state, tmp_path / "model_7.pth")
        model = reference.empty_model()
        report = load_weights(model, tmp_path / "model_7.pth")
        assert report.kind == "competition"
        assert equal(model, expected), "the last layer is turned to x, y, z"


def test_graphnet_state_dict(tmp_path: Path) -> None:
    """Names as a StandardModel with our backbone has them."""
    source = fresh(1)
    state = {
        f"backbone.model.{name}": value
        for name, value in source.state_dict().items()
        if not name.startswith("head.")
    }
    state |= {
        f"_tasks.0._affine.{name}": value
        for name, value in source.head.state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    model = fresh(2)
    report = load_weights(model, tmp_path / "weights.pth")
    assert report.kind == "graphnet"
    assert equal(model, source)


def test_partial_is_explicit_and_lists_names(tmp_path: Path) -> None:
    source = fresh(1, depth=2, dim_base=16)
    save_model(source, tmp_path / "model.safetensors")
    model = fresh(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"surplus: encoder\.1"):
        load_weights(model, tmp_path / "model.safetensors")
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    report = load_weights(model, tmp_path / "model.safetensors", partial=True)
    assert "embedding.project.0.weight" in report.misshapen
    assert all(name.startswith("encoder.1.") for name in report.unused)
    assert not report.missing
    for name, value in model.state_dict().items():
        kept = before if name in report.misshapen else source.state_dict()
        assert torch.equal(value, kept[name]), name
    for names in (report.misshapen, report.unused):
        assert all(name in report.text for name in names)


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no weight that fits"):
        load_weights(fresh(), tmp_path / "other.pth", partial=True)


def test_freeze_by_name() -> None:
    model = fresh()
    frozen = freeze(model, ("embedding", "local.0.mlp"))
    assert frozen
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith(("embedding.", "local.0.mlp."))
        assert (name in frozen) == is_frozen == (not parameter.requires_grad)
    with pytest.raises(ValueError, match=r"freeze .*'local\.0\.ml'"):
        freeze(model, ("local.0.ml",))


def test_weights_of_more_tasks_fill_a_model_of_fewer(tmp_path: Path) -> None:
    """The direction alone, with or without the last layer of its own."""
    path = tmp_path / "three.safetensors"
    source = fresh(1, tasks=["direction", "energy", "track"], weighting="learned")
    save_model(source, path)
    head = source.tasks["direction"].head.weight
    alone, plain = fresh(2, tasks=["direction"], weighting="learned"), fresh(3)
    report = load_weights(alone, path)
    assert "tasks.energy.head.weight" in report.unused
    assert torch.equal(alone.tasks["direction"].head.weight, head)
    load_weights(plain, path)
    assert torch.equal(plain.head.weight, head)
    # A task that the file lacks is an error.
    with pytest.raises(CheckpointError, match=r"missing: tasks\.vertex"):
        load_weights(fresh(4, tasks=["direction", "vertex"]), path)
