"""`build_model`: models by name, with weights from the package or from files.

    build_model("t_d32")                                   (B, 3), kappa * direction
    build_model("t_d32", tasks=["direction", "energy"])    {"direction": (B, 3), ...}
    build_model("t_sim", weights="simulated")              weights of the package
    build_model("b_d32", weights="checkpoint.pth")         weights of any origin

Weights of the package are named after the model and a tag for data and recipe:
`t_sim.simulated`. A card beside each file describes its training and its performance.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.models.model import FIXED, Model
from graphnet_icecube2nd.models.registry import Tasks, list_models, new_model
from graphnet_icecube2nd.models.weights import (
    RUN_MODEL,
    load_model,
    load_weights,
)

FOLDER = Path(__file__).with_name("data")


def build_model(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    tasks: Tasks | None = None,
    detector: Detector | str | None = None,
    weighting: str = FIXED,
    **overrides: Any,
) -> Model:
    """Build a model by name.

    Args:
        name: Name from `list_models()`.
        weights: Weights of the model. Default: random; `simulated`: those of the
            package, `NAME.simulated`; otherwise a file from `save_model`, a run's
            folder, or a checkpoint of Lightning, of the competition or of GraphNeT. No
            code from the file is run.
        tasks: Names of tasks, or their options by name, including `weight`. The result
            of `forward` is then a dict, (B, K) by task. Default: only the direction,
            as published, with `forward` returning (B, 3).
        detector: Detector of the events to read, a name or a `Detector`; default:
            columns and scales of IceCube-86. Weights that know their detector keep it.
        weighting: Weighting of the tasks' losses: `fixed`, or `learned` (Kendall).
        **overrides: Constructor arguments that replace those of the named model.

    Raises:
        ValueError: A model, task, detector or weights of the package are unknown; the
            message gives the nearest names.
        TypeError: A constructor argument is unknown.
        CheckpointError: The weights do not fit the model.
        OSError: The file does not exist.
    """
    model = new_model(
        name, tasks=tasks, detector=detector, weighting=weighting, **overrides
    )
    if weights is None:
        return model
    packaged = f"{name}.{weights}"
    path = Path(weights)
    if packaged in list_pretrained():
        path = FOLDER / f"{packaged}.safetensors"
    elif not path.exists() and not path.suffix:
        raise ValueError(
            f"no weights {str(weights)!r} for {name}: there is no such file, and the "
            f"package has {', '.join(list_pretrained())}"
        )
    load_weights(model, path)
    return model.eval()


def list_pretrained() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_pretrained(name: str) -> Model:
    """Return a trained model of the package in evaluation mode.

    Args:
        name: Name from `list_pretrained()`, such as `t_sim.simulated`.

    Raises:
        ValueError: The package has no weights of this name.
    """
    if name not in list_pretrained():
        raise ValueError(
            f"no weights named {name!r} in the package; choose from "
            f"{', '.join(list_pretrained())}"
        )
    return load_model(FOLDER / f"{name}.safetensors").to(torch.float32)


def find_model(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> Model:
    """Return a trained model in evaluation mode.

    `name` is that of weights of the package (`t_sim.simulated`), a run's folder, or a
    file from `save_model`. With `weights`, a file of any origin, it is a model's
    (`b_d32`).
    """
    if weights is not None:
        return build_model(str(name), weights=weights)
    if str(name) in list_models() and not Path(name).exists():
        raise ValueError(
            f"{name} is a model without weights: give a file of weights (--weights, "
            f"weights=...), or choose from {', '.join(list_pretrained())}"
        )
    # Weights are used in float32 whatever type they are stored in. So a copy of the
    # package's file gives the same answers.
    return load_model(model_file(name)).to(torch.float32)


def model_file(name: str | os.PathLike[str]) -> Path:
    """Return the file of a trained model; arguments and errors as in `find_model`."""
    path = Path(name)
    if str(name) in list_pretrained():
        return FOLDER / f"{name}.safetensors"
    if (path / RUN_MODEL).is_file():
        return path / RUN_MODEL
    if path.is_dir():
        raise ValueError(
            f"{path} holds no {RUN_MODEL}: it is not a run, or its training has not "
            "finished"
        )
    if path.is_file():
        return path
    raise ValueError(
        f"no model {str(name)!r}: it is neither a run, a file nor weights of the "
        f"package ({', '.join(list_pretrained())})"
    )
