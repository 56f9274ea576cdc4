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
from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN

Source = str | os.PathLike[str] | Mapping[str, Tensor]
CLASSES = {"DeepIce": DeepIce, "DeepIceGNN": DeepIceGNN}
METADATA_KEY = "graphnet_icecube2nd"


def save_model(model: DeepIce, path: str | os.PathLike[str]) -> None:
    """Write a model, arguments and weights, to one safetensors file.

    The file appears whole or not at all.

    Args:
        model: The model.
        path: Where to; the suffix `.safetensors` is usual.

    Raises:
        ValueError: A class that `load_model` could not build, or no last layer.
    """
    if type(model) not in CLASSES.values() or not isinstance(model.head, nn.Linear):
        raise ValueError(
            f"save_model writes {' and '.join(CLASSES)} with their last layer, got "
            f"{type(model).__name__} with {type(model.head).__name__} as head"
        )
    config = {"class": type(model).__name__, "kwargs": model.kwargs()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(config)}
    with write_whole(path) as partial:
        partial.touch()
        usual = partial.stat().st_mode  # safetensors allows its owner only
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(usual)


def load_model(path: str | os.PathLike[str]) -> DeepIce:
    """Read what `save_model` wrote.

    Args:
        path: The file.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: Not such a file.
        CheckpointError: Its weights do not fit its arguments.
    """
    state = _read_safetensors(Path(path))
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        raise ValueError(f"{path} has weights but no model: not from save_model")
    config: dict[str, Any] = json.loads(text)
    if config["class"] not in CLASSES:
        raise ValueError(
            f"{path} holds a {config['class']!r}; known are {', '.join(CLASSES)}"
        )
    model = CLASSES[config["class"]](**config["kwargs"])
    check_fit(dict(model.state_dict()), state)
    model.to(state["class_token"].dtype)
    model.load_state_dict(state)
    return model.eval()


def weights_digest(model: nn.Module) -> str:
    """Return a checksum of a model: its weights, and its arguments where it says them.

    The same whatever file the weights came from.
    """
    digest = hashlib.sha256()
    arguments = getattr(model, "kwargs", None)
    if callable(arguments):
        digest.update(json.dumps(arguments(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_fit(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """See that two sets of tensors have the same names and shapes.

    Args:
        targets: What is to be filled.
        state: What is there to fill it.

    Raises:
        CheckpointError: A key is missing, too many or misshapen; names each.
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
    wild = [name for name in targets if not bool(state[name].isfinite().all())]
    if wild:
        raise CheckpointError(f"weights that are not finite: {', '.join(wild)}")


def _hint(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if state and all(name.startswith("module.") for name in state):
        return " Each begins with 'module.': saved from DataParallel; take it off."
    if "class_token" in state and "class_token" not in targets:
        return " These are weights of this package: use load_model or load_state_dict."
    if "cls_token.weight" in state and "cls_token.weight" not in targets:
        return " These are published weights: use load_competition_weights."
    return ""


def read_state(source: Source) -> dict[str, Tensor]:
    """Read a state dict without running code from it.

    Args:
        source: A `.safetensors` file, any other file as torch writes it, or a state
            dict.

    Raises:
        ValueError: It cannot be read as tensors alone.
    """
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
