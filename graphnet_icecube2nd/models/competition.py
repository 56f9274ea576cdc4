"""The competition's checkpoints into our models, strictly.

Published checkpoints are plain state dicts of the classes in
github.com/DrHB/icecube-2nd-place. They were trained on directions in the order y, x, z;
the last layer is turned to x, y, z on the way in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.weights import (
    Source,
    check_fit,
    read_state,
)

# Ours -> published, as patterns on whole names; the first that fits counts.
PUBLISHED_NAMES = (
    (r"class_token", "cls_token.weight"),
    (r"head\.", "proj_out."),
    (r"interval\.project\.", "rel_pos.proj."),
    (r"embedding\.position\.", "extractor.pos."),
    (r"embedding\.charge\.", "extractor.emb_charge."),
    (r"embedding\.time\.", "extractor.time."),
    (r"embedding\.auxiliary\.", "extractor.aux_emb."),
    (r"embedding\.length\.", "extractor.emb2."),
    (r"embedding\.project\.", "extractor.proj."),
    (r"local\.(\d+)\.(attention|mlp)\.", r"sandwich.\1.\2."),
    (r"encoder\.(\d+)\.(attention|mlp)\.", r"blocks.\1.\2."),
    (r"graph\.convolutions\.(\d+)\.mlp\.", r"local_root._conv_layers.\1.nn."),
    (r"graph\.combine\.", "local_root._post_processing."),
    (r"graph\.readout\.", "local_root._readout."),
)
PUBLISHED_NAMES_IN_BLOCK = (
    (r"attention\.norm\.", "norm1."),
    (r"attention\.scale", "gamma_1"),
    (r"attention\.fn\.query\.", "attn.proj_q."),
    (r"attention\.fn\.key\.", "attn.proj_k."),
    (r"attention\.fn\.value\.", "attn.proj_v."),
    (r"attention\.fn\.qkv\.", "attn.in_proj_"),
    (r"mlp\.norm\.", "norm2."),
    (r"mlp\.scale", "gamma_2"),
    (r"mlp\.fn\.expand\.", "mlp.fc1."),
    (r"mlp\.fn\.contract\.", "mlp.fc2."),
)
PUBLISHED_OUTPUT = {"local": "attn.proj.", "encoder": "attn.out_proj."}
# What keys and shapes do not show of the published checkpoints, by file name.
PUBLISHED_SWITCHES = {
    "baselineV3_BE_globalrel_d32_0_6ema": {"n_rel": 1},
    "baselineV3_BE_globalrel_d64_0_3emaFT_2": {"n_rel": 1},
    "VFTV3_4RELFT_7": {"n_rel": 4},
    "V22FT6_1": {"n_rel": 1, "knn_features": 3},
    "V23FT5_6": {"n_rel": 4, "knn_features": 4},
}
FROM_YXZ = [1, 0, 2]  # rows of the published last layer, in our order x, y, z


def load_competition_weights(model: nn.Module, source: Source) -> nn.Module:
    """Fill a model with a checkpoint of the published code.

    Strict both ways: a key that is missing, too many or of another shape is an error,
    and then the model is left as it was. Files under their published names also tell
    which blocks see the interval and what the graph is built on, which no key shows.
    A hybrid in a GraphNeT model whose pulse map is not `as_published()` gets a warning:
    its weights learned on the published efficiency and ice features.

    Args:
        model: `DeepIce`, `DeepIceGNN`, or a module that holds exactly one of them
            without its last layer and that layer elsewhere, as GraphNeT's
            `StandardModel` with our backbone does (its task's `_affine`).
        source: A `.pth` or `.safetensors` file, or a state dict.

    Returns:
        The model, filled in place.

    Raises:
        CheckpointError: Keys or shapes do not fit, naming each.
        ValueError: The file is no such checkpoint, or `model` holds no model of ours.
    """
    state = read_state(source)
    core = _find_deepice(model)
    targets = _published_targets(model, core)
    check_fit(targets, state)
    if not isinstance(source, Mapping):
        _check_switches(core, Path(source).stem)
    _warn_of_features(model, core)
    with torch.no_grad():
        for name, target in targets.items():
            value = state[name]
            target.copy_(value[FROM_YXZ] if name.startswith("proj_out.") else value)
    return model


def published_name(name: str) -> str:
    """Return what the published code calls a parameter of ours."""
    room = name.split(".", 1)[0]
    for pattern, published in PUBLISHED_NAMES:
        renamed, hits = re.subn("^" + pattern, published, name)
        if hits:
            name = renamed
            break
    if room in PUBLISHED_OUTPUT:
        output = (r"attention\.fn\.output\.", PUBLISHED_OUTPUT[room])
        for pattern, published in (*PUBLISHED_NAMES_IN_BLOCK, output):
            name = re.sub(r"(?<=\d\.)" + pattern, published, name)
    return name


def _find_deepice(model: nn.Module) -> DeepIce:
    if not isinstance(model, nn.Module):
        raise ValueError(f"a model is needed, e.g. build_model('s_gnn'), got {model!r}")
    models = [module for module in model.modules() if isinstance(module, DeepIce)]
    if len(models) != 1:
        raise ValueError(
            f"competition weights need a model with one DeepIce in it; "
            f"{type(model).__name__} holds {len(models)}"
        )
    return models[0]


def _check_switches(core: DeepIce, stem: str) -> None:
    kwargs = core.kwargs()
    for name, value in PUBLISHED_SWITCHES.get(stem, {}).items():
        if kwargs[name] != value:
            raise CheckpointError(
                f"{stem} was trained with {name}={value}; the model has "
                f"{name}={kwargs[name]}"
            )


def _warn_of_features(model: nn.Module, core: DeepIce) -> None:
    pulse_maps = [getattr(module, "pulse_map", None) for module in model.modules()]
    for pulse_map in pulse_maps:
        if (
            isinstance(core, DeepIceGNN)
            and isinstance(pulse_map, PulseMap)
            and pulse_map != pulse_map.as_published()
        ):
            warnings.warn(
                f"pulse map {pulse_map.name!r} has qe={pulse_map.qe!r}, "
                f"ice={pulse_map.ice!r}; competition weights learned with "
                "qe='published', ice='mirrored'",
                UserWarning,
                stacklevel=3,
            )


def _published_targets(model: nn.Module, core: DeepIce) -> dict[str, Tensor]:
    """Return the model's parameters by published name."""
    state = dict(core.state_dict(keep_vars=True))
    if not isinstance(core.head, nn.Linear):
        head = _outer_head(model, core.dim)
        state.update({"head.weight": head.weight, "head.bias": head.bias})
    return {published_name(name): tensor for name, tensor in state.items()}


def _outer_head(model: nn.Module, dim: int) -> nn.Linear:
    # GraphNeT's learned tasks call their last layer `_affine`.
    heads = [
        module
        for name, module in model.named_modules()
        if name.endswith("_affine")
        and isinstance(module, nn.Linear)
        and (module.in_features, module.out_features) == (dim, 3)
    ]
    if len(heads) != 1:
        raise ValueError(
            f"competition weights end in a layer from {dim} to 3; "
            f"{type(model).__name__} has {len(heads)} tasks with such a layer"
        )
    return heads[0]
