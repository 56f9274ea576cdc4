"""Weights that come with the package, by name.

A name is the model's and a tag that says data and recipe: `t_sim.simulated`. Beside
each file lies its card: what it was trained on, for how long, how good it is.
"""

from __future__ import annotations

from pathlib import Path

import torch

from graphnet_icecube2nd.models.deepice import DeepIce
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
