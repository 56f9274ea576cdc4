"""Weights that come with the package, by name.

A name is the model's and a tag that says data and recipe: `t_sim.simulated`. Beside
each file lies its card: what it was trained on, for how long, how good it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from graphnet_icecube2nd.models.checkpoint_loading import RUN_MODEL, load_weights
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.registry import build_model, list_models
from graphnet_icecube2nd.models.weights import load_model

FOLDER = Path(__file__).with_name("data")


def list_pretrained() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_pretrained(name: str) -> DeepIce:
    """Return a trained model that comes with the package, in evaluation mode.

    Args:
        name: One of `list_pretrained()`, as `t_sim.simulated`.

    Raises:
        ValueError: There is none of that name.
    """
    return load_model(_path(name, ".safetensors")).to(torch.float32)


def find_model(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> DeepIce:
    """Return a trained model by whatever names it, in evaluation mode.

    Args:
        name: Weights of the package (`t_sim.simulated`), a run's folder, a file of
            `save_model`, or with `weights` the name of a model (`b_d32`).
        weights: A file of weights of any origin, see `models.any_origin`.

    Raises:
        ValueError: There is nothing of that name; says what there is.
        CheckpointError: The weights do not fit the model.
    """
    path = Path(name)
    if weights is not None:
        model = build_model(str(name))
        load_weights(model, weights)
        return model.eval()
    if str(name) in list_pretrained():
        return load_pretrained(str(name))
    if (path / RUN_MODEL).is_file():
        return load_model(path / RUN_MODEL)
    if path.is_dir():
        raise ValueError(f"{path} holds no {RUN_MODEL}: no run, or one that goes on")
    if path.is_file():
        return load_model(path)
    if str(name) in list_models():
        raise ValueError(
            f"{name} is a model without weights: give weights (--weights), or take one "
            f"of {', '.join(list_pretrained())}"
        )
    raise ValueError(
        f"no model {str(name)!r}: no run, no file, and not among the weights of the "
        f"package ({', '.join(list_pretrained())})"
    )


def pretrained_card(name: str) -> str:
    """Return the card of weights in the package, Markdown.

    Raises:
        ValueError: There are none of that name.
    """
    return _path(name, ".md").read_text(encoding="utf-8")


def _path(name: str, suffix: str) -> Path:
    if name not in list_pretrained():
        raise ValueError(
            f"no weights named {name!r} in the package; there are "
            f"{', '.join(list_pretrained())}"
        )
    return FOLDER / f"{name}{suffix}"
