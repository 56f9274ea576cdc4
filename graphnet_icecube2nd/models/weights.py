"""Weights in files: state dicts read without running code, models as safetensors.

Nothing here executes code from a file: what torch wrote is read with
`weights_only=True`, safetensors holds tensors and text only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.models.build import model_of
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.published import CLASSES
from graphnet_icecube2nd.models.registry import MODELS

Source = str | os.PathLike[str] | Mapping[str, Tensor]
FORMAT = 2  # of the metadata; 0.1.0 wrote none
METADATA_KEY = "graphnet_icecube2nd"


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to one safetensors file: names, arguments, tasks, input, weights.

    The file appears whole or not at all.

    Args:
        model: The model.
        path: Where to; the suffix `.safetensors` is usual.

    Raises:
        ValueError: A model that `load_model` could not build: without a task, or of a
            backbone that is not registered.
    """
    if not isinstance(model, Model) or not model.task_map:
        raise ValueError(
            "save_model writes models with their last layers, as build_model gives "
            f"them; got {type(model).__name__}"
            + (" without a task" if isinstance(model, Model) else "")
        )
    if model.model_name not in MODELS.names():
        raise ValueError(
            f"the backbone {model.model_name!r} is not registered (register_model), "
            "so nobody could load the file"
        )
    described = {"format": FORMAT, **model.describe()}
    with torch.device("meta"):
        again = model_of(described)
    if type(again) is not type(model) or set(again.state_dict()) != set(
        model.state_dict()
    ):
        raise ValueError(
            f"load_model would build a {type(again).__name__} of "
            f"{model.model_name!r} with other weights than this "
            f"{type(model).__name__}; save_model writes registered models with their "
            "last layers"
        )
    if model.input_config is not None:
        described["input"] = model.input_config.to_dict()
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(described)}
    with write_whole(path) as partial:
        partial.touch()
        usual = partial.stat().st_mode  # safetensors allows its owner only
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(usual)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read what `save_model` wrote, in this release or an earlier one.

    Args:
        path: The file.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: Not such a file, or of a model or task that is not registered.
        CheckpointError: Its weights do not fit its arguments.
    """
    state = _read_safetensors(Path(path))
    described = read_description(path)
    if described is None:
        raise ValueError(f"{path} has weights but no model: not from save_model")
    try:
        model = model_of(described)
        if described.get("input") is not None:
            model.input_config = InputConfig.from_dict(described["input"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    check_fit(dict(model.state_dict()), state)
    if floating := [v.dtype for v in state.values() if v.is_floating_point()]:
        model.to(floating[0])
    model.load_state_dict(state)
    return model.eval()


def read_description(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return what a safetensors file says of its model; None: nothing."""
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        return None
    try:
        described: dict[str, Any] = json.loads(text)
        if "class" in described:  # of 0.1.0
            named = described["class"]
            if named not in CLASSES:
                raise ValueError(f"holds a {named!r}; known are {', '.join(CLASSES)}")
            described["model"] = CLASSES[named]
        if not isinstance(described["kwargs"], dict):
            raise TypeError("kwargs are no mapping")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: metadata of no model: {error}") from None
    return described


def weights_digest(model: nn.Module) -> str:
    """Return a checksum of a model's weights, and of its arguments if it has `kwargs`.

    It is the same whatever file the weights came from.
    """
    digest = hashlib.sha256()
    arguments = getattr(model, "kwargs", None)
    if callable(arguments):
        digest.update(json.dumps(arguments(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().reshape(-1)  # single numbers too
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def check_fit(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Check that `state` has the names and shapes of `targets`, all values finite.

    CheckpointError names each key that is missing, surplus or misshapen.
    """
    faults = [f"missing: {name}" for name in targets if name not in state]
    faults += [f"surplus: {name}" for name in state if name not in targets]
    faults += [
        f"misshapen: {name} is {tuple(state[name].shape)}, should be "
        f"{tuple(target.shape)}"
        for name, target in targets.items()
        if name in state and state[name].shape != target.shape
    ]
    if faults:
        raise CheckpointError(
            f"the checkpoint does not fit the model in {len(faults)} keys."
            f"{_hint(targets, state)}\n  " + "\n  ".join(faults)
        )
    nonfinite = [name for name in targets if not bool(state[name].isfinite().all())]
    if nonfinite:
        raise CheckpointError(f"weights that are not finite: {', '.join(nonfinite)}")


def _hint(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if state and all(name.startswith("module.") for name in state):
        return " Each begins with 'module.': saved from DataParallel; take it off."
    if "class_token" in state and "class_token" not in targets:
        return " These are weights of this package: use load_model or load_state_dict."
    if "cls_token.weight" in state and "cls_token.weight" not in targets:
        return " These are published weights: use load_competition_weights."
    return ""


def read_state(source: Source) -> dict[str, Tensor]:
    """Read a state dict from a file without running code from it, or check one."""
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    else:
        state, origin = _read_file(Path(source)), str(source)
    if isinstance(state.get("state_dict"), Mapping):  # as trainers like to save
        state = dict(state["state_dict"])
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{origin} holds a {type(value).__name__} under {name!r}; a state dict "
                "of tensors is needed"
            )
    return state


def _read_file(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights alone ({type(error).__name__}): it is "
            "no file of torch's, perhaps a failed download, or it holds more than "
            "tensors, and code from a file is never run"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); for a published checkpoint use "
            "load_competition_weights"
        ) from error
