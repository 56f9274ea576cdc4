"""Weights of whatever origin into a model of ours.

Told apart by their names: our own files and checkpoints of a run, the competition's,
and state dicts of GraphNeT models with one of our backbones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.models.competition import FROM_YXZ, published_name
from graphnet_icecube2nd.models.model import TaskModel
from graphnet_icecube2nd.models.weights import (
    check_fit,
    read_state,
)

# What stands before our names in other files: our Lightning module, GraphNeT's
# `StandardModel` with our backbone.
MODULE, GRAPHNET = "model.", "backbone.model."
BACKBONE = "backbone."  # of a `TaskModel`
# The last layer of DeepIce, by its name where the direction is one of several tasks.
HEAD = {f"head.{part}": f"tasks.direction.head.{part}" for part in ("weight", "bias")}
RUN_MODEL = "model.safetensors"  # of a run's folder
AVERAGE = "average.model."  # of a run's checkpoint: rather this than the raw weights


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of a file's weights.

    Args:
        origin: The file.
        kind: `own`, `competition` or `graphnet`.
        loaded: Names of the model that were filled.
        missing: Names of the model that keep their random weights.
        unused: Names of the file that the model does not have.
        misshapen: Names in both, of different shapes; not loaded.
    """

    origin: str
    kind: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was and was not loaded, in words; every name that was not."""
        lines = [f"{len(self.loaded)} weights loaded from {self.origin} ({self.kind})"]
        for what in ("missing", "misshapen", "unused"):
            names = getattr(self, what)
            if names:
                lines.append(f"  {what}: {len(names)}: {', '.join(names)}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module, source: str | os.PathLike[str], *, partial: bool = False
) -> LoadReport:
    """Fill a model with weights of a file.

    Args:
        model: The model, filled in place.
        source: A safetensors file, a run's folder, a checkpoint of Lightning or torch;
            no code of it is run.
        partial: Take what fits by name and shape, and report the rest.

    Returns:
        What was and was not loaded.

    Raises:
        CheckpointError: Something does not fit and `partial` is not asked, or nothing
            fits at all; the model is then left as it was.
        ValueError: The file cannot be read as weights alone.
        OSError: There is no such file.
    """
    path = Path(source)
    if path.is_dir():  # a run
        path = path / RUN_MODEL
    kind, state = _in_our_names(model, read_state(path))
    targets = dict(model.state_dict(keep_vars=True))
    if not partial:
        check_fit(targets, state)
    fitting = [n for n in targets if n in state and state[n].shape == targets[n].shape]
    if not fitting:
        raise CheckpointError(
            f"{path} has no weight that fits the model; its first names are "
            f"{', '.join(list(state)[:3])}"
        )
    with torch.no_grad():
        for name in fitting:
            targets[name].copy_(state[name])
    return LoadReport(
        origin=str(path),
        kind=kind,
        loaded=tuple(fitting),
        missing=tuple(n for n in targets if n not in state),
        unused=tuple(n for n in state if n not in targets),
        misshapen=tuple(
            n for n in targets if n in state and state[n].shape != targets[n].shape
        ),
    )


def _in_our_names(
    model: nn.Module, state: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor]]:
    """Return where a state dict comes from, and it by the names of the model."""
    kind = "own"
    if any(name.startswith(AVERAGE) for name in state):
        state = _below(state, AVERAGE)
    if any(name.startswith(GRAPHNET) for name in state):
        kind, state = "graphnet", {**_below(state, GRAPHNET), **_graphnet_head(state)}
    elif state and all(name.startswith(MODULE) for name in state):
        state = _below(state, MODULE)
    elif any(name.startswith("module.") for name in state):
        state = _below(state, "module.")
    if "cls_token.weight" in state:
        kind, state = "competition", _from_competition(model, state)
    return kind, _in_form_of(model, state)


def _from_competition(
    model: nn.Module, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return published weights by the names of DeepIce, its last layer turned."""
    names = (n.removeprefix(BACKBONE) for n in model.state_dict())
    ours = {published_name(name): name for name in (*names, *HEAD)}
    turned = {
        name: value[FROM_YXZ] if name.startswith("proj_out.") else value
        for name, value in state.items()
    }
    return {ours.get(name, name): value for name, value in turned.items()}


def _in_form_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of DeepIce as those of a backbone with tasks, or back."""
    has_tasks = any(name.startswith(BACKBONE) for name in state)
    wants_tasks = isinstance(model, TaskModel)
    if wants_tasks and not has_tasks:
        return {HEAD.get(n, f"{BACKBONE}{n}"): value for n, value in state.items()}
    if has_tasks and not wants_tasks:
        back = {ours: plain for plain, ours in HEAD.items()}
        return {
            back.get(name, name.removeprefix(BACKBONE)): value
            for name, value in state.items()
        }
    return dict(state)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n[len(prefix) :]: v for n, v in state.items() if n.startswith(prefix)}


def _graphnet_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the last layer, which GraphNeT's tasks keep as `_affine`."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for part in ("weight", "bias"):
            if name.endswith(f"_affine.{part}") and value.shape[0] == 3:
                found[f"head.{part}"] = value
    return found
