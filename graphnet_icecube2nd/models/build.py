"""Backbones and models by name, with random weights.

`pretrained.build_model` is the public function; it knows weights besides.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.models import published
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.model import FIXED, Model, TaskModel
from graphnet_icecube2nd.models.registry import MODELS
from graphnet_icecube2nd.tasks.catalogue import build_tasks
from graphnet_icecube2nd.tasks.direction.direction import Direction

OWN = published  # its import registers the models of the package
Tasks = Sequence[str] | Mapping[str, Mapping[str, Any]]


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the known models that match, `*` and `?` as in a shell."""
    return MODELS.names(pattern)


def build_backbone(
    name: str, detector: Detector | None = None, **overrides: Any
) -> nn.Module:
    """Return a backbone by name: latent vectors (B, dim) of a `PackedBatch`.

    Args:
        name: One of `list_models()`.
        detector: Whose events it is to read: its extra columns and scales.
        **overrides: Constructor arguments that replace the named model's.

    Raises:
        ValueError: No such model; the message has the nearest names.
        TypeError: No such constructor argument.
    """
    built = _build(name, detector, overrides)
    return built.without_head() if isinstance(built, DeepIce) else built


def new_model(
    name: str,
    *,
    tasks: Tasks | None = None,
    detector: Detector | str | None = None,
    weighting: str = FIXED,
    **overrides: Any,
) -> Model:
    """Return a model by name, with random weights; arguments as `build_model`."""
    if isinstance(detector, str):
        detector = build_detector(detector)
    built = _build(name, detector, overrides)
    model: Model
    if tasks is None and isinstance(built, DeepIce):
        built.model_name = name
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
    """Return the model that `Model.describe` describes, with random weights.

    A name that is not registered or an unknown argument is a ValueError.
    """
    try:
        return new_model(
            described["model"],
            tasks=described.get("tasks"),
            weighting=described.get("weighting", FIXED),
            **described["kwargs"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no description of a model: {error}") from None


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
