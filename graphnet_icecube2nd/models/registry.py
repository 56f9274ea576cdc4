"""Backbones and models by name, with random weights, including the competition's.

Sizes are those of the published `predict.py`, which fit the checkpoints; the published
README trains `s_d32` as "B model 32", and the write-up calls it S.
`pretrained.build_model` is the public function, which also loads weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.model import FIXED, Model, TaskModel
from graphnet_icecube2nd.registry import Registry
from graphnet_icecube2nd.tasks.catalogue import build_tasks
from graphnet_icecube2nd.tasks.direction.direction import Direction

ModelBuilder = Callable[..., nn.Module]
MODELS: Registry[ModelBuilder] = Registry("model")
Tasks = Sequence[str] | Mapping[str, Mapping[str, Any]]
# Classes named in files of 0.1.0.
CLASSES = {"DeepIce": "deepice", "DeepIceGNN": "deepice_gnn"}
LARGE = {"dim": 768, "dim_base": 192, "depth": 12}
SMALL = {"dim": 384, "dim_base": 128}


def register_model(builder: ModelBuilder) -> ModelBuilder:
    """Register a function that builds a backbone under the function's name.

    Args:
        builder: Function that accepts constructor arguments as keywords, which override
            its own. It returns a module with `dim`, whose `forward` returns latent
            vectors (B, dim) of a `PackedBatch`, and which may have
            `pulse_latents(batch)`, (T, dim).

    Raises:
        ValueError: The name is already registered.
    """
    return MODELS.add(builder.__name__, builder)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the matching models; `*` and `?` work as in a shell."""
    return MODELS.names(pattern)


def build_backbone(
    name: str, detector: Detector | None = None, **overrides: Any
) -> nn.Module:
    """Build a backbone by name; it returns latent vectors (B, dim) of a `PackedBatch`.

    Args:
        name: Name from `list_models()`.
        detector: Detector of the events to read: its extra columns and scales.
        **overrides: Constructor arguments that replace those of the named model.

    Raises:
        ValueError: The name is unknown; the message gives the nearest names.
        TypeError: A constructor argument is unknown.
    """
    built = _build(name, detector, overrides)
    return built.without_head() if isinstance(built, DeepIce) else built


def new_model(
    name: str,
    *,
    tasks: Tasks | None = None,
    detector: Detector | str | None = None,
    weighting: str = FIXED,
    published: bool = False,
    **overrides: Any,
) -> Model:
    """Return a model by name, with random weights; arguments as for `build_model`.

    With `published`, a model that was published with a last layer for the direction
    keeps it, as without `tasks`; its task is the direction of `tasks`.
    """
    if isinstance(detector, str):
        detector = build_detector(detector)
    built = _build(name, detector, overrides)
    model: Model
    if isinstance(built, DeepIce) and (tasks is None or published):
        built.model_name = name
        if tasks is not None:
            built.set_task(build_tasks(tasks)[0][Direction.name])
        model = built
    else:
        backbone = built.without_head() if isinstance(built, DeepIce) else built
        made, weights = build_tasks([Direction.name] if tasks is None else tasks)
        model = TaskModel(
            backbone,
            made,
            weights=weights,
            weighting=weighting,
            model_name=name,
            model_kwargs=overrides,
        )
    if detector is not None:
        model.input_config = InputConfig.of(detector)
    return model


def model_of(described: Mapping[str, Any]) -> Model:
    """Rebuild a model, with random weights, from the values of `Model.describe`.

    Raises ValueError for a name that is not registered or an unknown argument.
    """
    try:
        return new_model(
            described["model"],
            tasks=described.get("tasks"),
            weighting=described.get("weighting", FIXED),
            **described["kwargs"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this does not describe a model: {error}") from None


def _build(
    name: str, detector: Detector | None, overrides: Mapping[str, Any]
) -> nn.Module:
    builder = MODELS.get(name)
    wanted = {} if detector is None else detector.model_kwargs()
    if wanted:
        with torch.device("meta"):
            understood = isinstance(builder(**overrides), DeepIce)
        known = inspect.signature(builder).parameters
        wanted = {
            key: value
            for key, value in wanted.items()
            if (understood or key in known) and key not in overrides
        }
    return builder(**wanted, **overrides)


@register_model
def deepice(**overrides: Any) -> DeepIce:
    """DeepIce of any size; default sizes are those of its class."""
    return DeepIce(**overrides)


@register_model
def deepice_gnn(**overrides: Any) -> DeepIceGNN:
    """DeepIceGNN of any size; default sizes are those of its class."""
    return DeepIceGNN(**overrides)


@register_model
def b_d32(**overrides: Any) -> DeepIce:
    """Large, heads of 32 (checkpoint baselineV3_BE_globalrel_d32_0_6ema)."""
    return DeepIce(**{**LARGE, "head_size": 32, **overrides})


@register_model
def b_d64(**overrides: Any) -> DeepIce:
    """Large, heads of 64 (checkpoint baselineV3_BE_globalrel_d64_0_3emaFT_2)."""
    return DeepIce(**{**LARGE, "head_size": 64, **overrides})


@register_model
def b_d32_4rel(**overrides: Any) -> DeepIce:
    """Large, with the interval in all four first blocks (checkpoint VFTV3_4RELFT_7)."""
    return DeepIce(**{**LARGE, "head_size": 32, "n_rel": 4, **overrides})


@register_model
def s_gnn(**overrides: Any) -> DeepIceGNN:
    """Small hybrid, the published V22 (checkpoint V22FT6_1)."""
    sizes = {"depth": 8, "head_size": 32, "n_rel": 1, "knn_features": 3}
    return DeepIceGNN(**{**SMALL, **sizes, **overrides})


@register_model
def b_gnn(**overrides: Any) -> DeepIceGNN:
    """Large hybrid, the published V23 (checkpoint V23FT5_6)."""
    sizes = {"head_size": 64, "n_rel": 4, "knn_features": 4}
    return DeepIceGNN(**{**LARGE, **sizes, **overrides})


@register_model
def s_d32(**overrides: Any) -> DeepIce:
    """Small: the published README's "B model 32"."""
    return DeepIce(**{**SMALL, "depth": 12, "head_size": 32, **overrides})


@register_model
def t_d32(**overrides: Any) -> DeepIce:
    """Tiny, not published: can be trained on one machine."""
    sizes = {"dim": 192, "dim_base": 96, "depth": 12, "head_size": 32}
    return DeepIce(**{**sizes, **overrides})


@register_model
def t_sim(**overrides: Any) -> DeepIce:
    """Smaller than `t_d32`: trains on simulated events in hours on two cores."""
    sizes = {"dim": 128, "dim_base": 32, "depth": 4, "head_size": 32, "depth_rel": 2}
    return DeepIce(**{**sizes, **overrides})
