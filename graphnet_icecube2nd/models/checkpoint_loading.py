"""Weights of whatever origin into a model of ours.

Files are told apart by the names in them: our own files and checkpoints of a run, those
of the competition, and state dicts of GraphNeT models with one of our backbones.

Published checkpoints are plain state dicts of the classes in
github.com/DrHB/icecube-2nd-place. They were trained on directions in the order y, x, z;
the last layer is turned to x, y, z on the way in.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import CheckpointError
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.model import TaskModel
from graphnet_icecube2nd.models.weights import Source, check_fit, read_state

RUN_MODEL = "model.safetensors"  # of a run's folder
# What stands before our names in other files: of DataParallel, our Lightning module,
# the average of the weights in a run's checkpoint, GraphNeT's `StandardModel`.
PARALLEL, MODULE, AVERAGE = "module.", "model.", "average.model."
GRAPHNET = "backbone.model."
BACKBONE = "backbone."  # of a `TaskModel`
# The last layer of DeepIce, by its name where the direction is one of several tasks.
HEAD = {f"head.{part}": f"tasks.direction.head.{part}" for part in ("weight", "bias")}

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


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of a file's weights."""

    origin: str  # the file
    kind: str  # `own`, `competition` or `graphnet`
    loaded: tuple[str, ...]  # names of the model that were filled
    missing: tuple[str, ...] = ()  # names of the model that keep their random weights
    unused: tuple[str, ...] = ()  # names of the file that the model does not have
    misshapen: tuple[str, ...] = ()  # names in both, of different shapes; not loaded

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
    shared = [name for name in targets if name in state]
    fitting = [n for n in shared if state[n].shape == targets[n].shape]
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
        misshapen=tuple(n for n in shared if n not in fitting),
    )


def _in_our_names(
    model: nn.Module, state: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor]]:
    """Return where a state dict comes from, and it by the names of the model."""
    kind = "own"
    if any(name.startswith(AVERAGE) for name in state):  # rather than the raw weights
        state = _below(state, AVERAGE)
    if any(name.startswith(GRAPHNET) for name in state):
        kind, state = "graphnet", _from_graphnet(state)
    elif state and all(name.startswith(MODULE) for name in state):
        state = _below(state, MODULE)
    elif any(name.startswith(PARALLEL) for name in state):
        state = _below(state, PARALLEL)
    if "cls_token.weight" in state:
        kind, state = "competition", _from_competition(model, state)
    return kind, _in_form_of(model, state)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n[len(prefix) :]: v for n, v in state.items() if n.startswith(prefix)}


def _from_graphnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `StandardModel` by the names of a `TaskModel`.

    Tasks of GraphNeT keep their last layer as `_affine`, a `TaskHead` keeps `tasks`.
    """
    ours = {f"{BACKBONE}{n}": v for n, v in _below(state, GRAPHNET).items()}
    for name, value in state.items():
        if head := re.fullmatch(r"_tasks\.\d+\.(tasks\..+)", name):
            ours[head[1]] = value
        elif (affine := re.search(r"_affine\.(weight|bias)$", name)) and len(
            value
        ) == 3:
            ours[HEAD[f"head.{affine[1]}"]] = value
    return ours


def _from_competition(
    model: nn.Module, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return published weights by the names of DeepIce, its last layer turned."""
    names = (n.removeprefix(BACKBONE) for n in model.state_dict())
    ours = {published_name(name): name for name in (*names, *HEAD)}
    return {ours.get(n, n): _in_order_xyz(n, value) for n, value in state.items()}


def _in_order_xyz(published: str, value: Tensor) -> Tensor:
    """Return a published weight; of the last layer with its rows y, x, z turned."""
    return value[[1, 0, 2]] if published.startswith("proj_out.") else value


def _in_form_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of DeepIce as those of a backbone with tasks, or back."""
    has_tasks = any(name.startswith(BACKBONE) for name in state)
    wants_tasks = isinstance(model, TaskModel)
    if wants_tasks and not has_tasks:
        return {HEAD.get(n, f"{BACKBONE}{n}"): value for n, value in state.items()}
    if has_tasks and not wants_tasks:
        back = {ours: plain for plain, ours in HEAD.items()}
        return {back.get(n, n.removeprefix(BACKBONE)): v for n, v in state.items()}
    return dict(state)


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
    targets = dict(core.state_dict(keep_vars=True))
    if not isinstance(core.head, nn.Linear):
        head = _outer_head(model, core.dim)
        targets.update({"head.weight": head.weight, "head.bias": head.bias})
    targets = {published_name(name): tensor for name, tensor in targets.items()}
    check_fit(targets, state)
    if not isinstance(source, Mapping):
        _check_switches(core, Path(source).stem)
    if isinstance(core, DeepIceGNN):
        _warn_of_features(model)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(_in_order_xyz(name, state[name]))
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


def _check_switches(core: DeepIce, stem: str) -> None:
    kwargs = core.kwargs()
    for name, value in PUBLISHED_SWITCHES.get(stem, {}).items():
        if kwargs[name] != value:
            raise CheckpointError(
                f"{stem} was trained with {name}={value}; the model has "
                f"{name}={kwargs[name]}"
            )


def _warn_of_features(model: nn.Module) -> None:
    for module in model.modules():
        pulse_map = getattr(module, "pulse_map", None)
        if isinstance(pulse_map, PulseMap) and pulse_map != pulse_map.as_published():
            warnings.warn(
                f"pulse map {pulse_map.name!r} has qe={pulse_map.qe!r}, "
                f"ice={pulse_map.ice!r}; competition weights learned with "
                "qe='published', ice='mirrored'",
                UserWarning,
                stacklevel=3,
            )
