"""`build_model`: models by name with their weights, from the package or from files.

    build_model("t_d32")                                   (B, 3), kappa * direction
    build_model("t_d32", tasks=["direction", "energy"])    {"direction": (B, 3), ...}
    build_model("t_sim", weights="simulated")              weights of the package
    build_model("b_d32", weights="checkpoint.pth")         weights of any origin

The name of weights in the package is the model's and a tag that says data and recipe:
`t_sim.simulated`. Beside each file lies its card: what it was trained on, for how long,
how good it is.
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
        name: One of `list_models()`.
        weights: None: random. `simulated`: of the package, `NAME.simulated`. Else a
            file of any origin: of `save_model`, a run's folder, a checkpoint of
            Lightning, of the competition or of GraphNeT. No code of it is run.
        tasks: Names of tasks, or their options by name, among them `weight`; None: the
            direction alone, as published: `forward` gives (B, 3). With tasks it gives a
            dict, (B, K) by task.
        detector: Whose events it is to read, a name or a `Detector`; default: those
            with the columns and scales of IceCube-86. Weights that know their own
            detector keep it.
        weighting: Of the tasks' losses: `fixed`, or `learned` (Kendall).
        **overrides: Constructor arguments that replace the named model's.

    Raises:
        ValueError: No such model, task, detector or weights of the package; the message
            has the nearest names.
        TypeError: No such constructor argument.
        CheckpointError: The weights do not fit the model.
        OSError: There is no such file.
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
            f"no weights {str(weights)!r} of {name}: no such file, and the package has "
            f"{', '.join(list_pretrained())}"
        )
    load_weights(model, path)
    return model.eval()


def list_pretrained() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_pretrained(name: str) -> Model:
    """Return a trained model that comes with the package, in evaluation mode.

    Args:
        name: One of `list_pretrained()`, as `t_sim.simulated`.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in list_pretrained():
        raise ValueError(
            f"no weights named {name!r} in the package; there are "
            f"{', '.join(list_pretrained())}"
        )
    return load_model(FOLDER / f"{name}.safetensors").to(torch.float32)


def find_model(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> Model:
    """Return a trained model by whatever names it, in evaluation mode.

    `name` is that of weights of the package (`t_sim.simulated`), a run's folder, a file
    of `save_model`, or with `weights`, a file of any origin, that of a model (`b_d32`).
    """
    path = Path(name)
    if weights is not None:
        return build_model(str(name), weights=weights)
    if str(name) in list_pretrained():
        return load_pretrained(str(name))
    if (path / RUN_MODEL).is_file():
        return load_model(path / RUN_MODEL)
    if path.is_dir():
        raise ValueError(
            f"{path} holds no {RUN_MODEL}: it is no run, or one that has not finished"
        )
    if path.is_file():
        # Weights are float32 in use, whatever they are stored as, as those of the
        # package: a copy of its file must give the same answers.
        return load_model(path).to(torch.float32)
    if str(name) in list_models():
        raise ValueError(
            f"{name} is a model without weights: give weights (--weights), or take one "
            f"of {', '.join(list_pretrained())}"
        )
    raise ValueError(
        f"no model {str(name)!r}: no run, no file, and not among the weights of the "
        f"package ({', '.join(list_pretrained())})"
    )
