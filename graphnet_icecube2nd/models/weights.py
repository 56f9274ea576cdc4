"""Weights in files: models of this package, and weights of any origin.

Nothing here executes code from a file: torch files are read with `weights_only=True`,
and safetensors files have only tensors and text.

`save_model` and `load_model` are for models of this package. `load_weights` accepts any
file and distinguishes them by the names in them: files and checkpoints of this package,
those of the competition, and state dicts of GraphNeT models with one of our backbones.

Published checkpoints are state dicts of the classes in
github.com/DrHB/icecube-2nd-place. They were trained on directions in the order y, x, z;
loading reorders the last layer to x, y, z.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import CheckpointError, naming
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.files import parse_json, write_whole
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.model import BACKBONE, Model, TaskModel, backbone_of
from graphnet_icecube2nd.models.registry import CLASSES, MODELS, model_of

Source = str | os.PathLike[str] | Mapping[str, Tensor]
FORMAT = 2  # version of the metadata; 0.1.0 wrote none
METADATA_KEY = "graphnet_icecube2nd"
RUN_MODEL = "model.safetensors"  # in a run's folder
# Prefixes of our names in other files: DataParallel, our Lightning module, the averaged
# weights in a run's checkpoint, GraphNeT's `StandardModel`.
PARALLEL, MODULE, AVERAGE = "module.", "model.", "average.model."
GRAPHNET = "backbone.model."
LAST = ("head.", "tasks.")  # last layers of a DeepIce and of a `TaskModel`
OF_TASK = re.compile(r"(?:tasks|log_variance)\.(\w+)")  # a name of weights of a task
# Name of DeepIce's last layer if the direction is one of several tasks.
HEAD = {f"head.{part}": f"tasks.direction.head.{part}" for part in ("weight", "bias")}

# Ours -> published, as patterns that are replaced in order.
PUBLISHED_NAMES = (
    (r"^class_token", "cls_token.weight"),
    (r"^head\.", "proj_out."),
    (r"^interval\.project\.", "rel_pos.proj."),
    (r"^embedding\.position\.", "extractor.pos."),
    (r"^embedding\.charge\.", "extractor.emb_charge."),
    (r"^embedding\.time\.", "extractor.time."),
    (r"^embedding\.auxiliary\.", "extractor.aux_emb."),
    (r"^embedding\.length\.", "extractor.emb2."),
    (r"^embedding\.project\.", "extractor.proj."),
    (r"^local\.(\d+)\.attention\.fn\.output\.", r"sandwich.\1.attn.proj."),
    (r"^encoder\.(\d+)\.attention\.fn\.output\.", r"blocks.\1.attn.out_proj."),
    (r"^local\.", "sandwich."),
    (r"^encoder\.", "blocks."),
    (r"\.attention\.norm\.", ".norm1."),
    (r"\.attention\.scale", ".gamma_1"),
    (r"\.attention\.fn\.query\.", ".attn.proj_q."),
    (r"\.attention\.fn\.key\.", ".attn.proj_k."),
    (r"\.attention\.fn\.value\.", ".attn.proj_v."),
    (r"\.attention\.fn\.qkv\.", ".attn.in_proj_"),
    (r"\.mlp\.norm\.", ".norm2."),
    (r"\.mlp\.scale", ".gamma_2"),
    (r"\.mlp\.fn\.expand\.", ".mlp.fc1."),
    (r"\.mlp\.fn\.contract\.", ".mlp.fc2."),
    (r"^graph\.convolutions\.(\d+)\.mlp\.", r"local_root._conv_layers.\1.nn."),
    (r"^graph\.combine\.", "local_root._post_processing."),
    (r"^graph\.readout\.", "local_root._readout."),
)
# Properties of published checkpoints that keys and shapes do not show, by file name.
PUBLISHED_SWITCHES = {
    "baselineV3_BE_globalrel_d32_0_6ema": {"n_rel": 1},
    "baselineV3_BE_globalrel_d64_0_3emaFT_2": {"n_rel": 1},
    "VFTV3_4RELFT_7": {"n_rel": 4},
    "V22FT6_1": {"n_rel": 1, "knn_features": 3},
    "V23FT5_6": {"n_rel": 4, "knn_features": 4},
}


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to one safetensors file: names, arguments, tasks, input, weights.

    The file is written completely or not at all.

    Args:
        model: Model with its last layers.
        path: Path of the file, usually ending in `.safetensors`.

    Raises:
        ValueError: `load_model` could not build the model, because it has no task or
            its backbone is not registered.
    """
    if not isinstance(model, Model) or not model.task_map:
        raise ValueError(
            "save_model writes models with their last layers, as build_model returns "
            f"them; got {type(model).__name__}"
            + (" without a task" if isinstance(model, Model) else "")
        )
    if model.model_name not in MODELS.names():
        raise ValueError(
            f"the backbone {model.model_name!r} is not registered, so the file could "
            "not be loaded: register it with register_model"
        )
    described = {"format": FORMAT, **model.describe()}
    with torch.device("meta"):
        again = model_of(described)
    if type(again) is not type(model) or set(again.state_dict()) != set(
        model.state_dict()
    ):
        raise ValueError(
            f"load_model would build a {type(again).__name__} of "
            f"{model.model_name!r} with other weights than this "
            f"{type(model).__name__}; save_model writes registered models with their "
            "last layers"
        )
    if model.input_config is not None:
        described["input"] = model.input_config.to_dict()
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(described)}
    with write_whole(path) as partial:
        usual = partial.stat().st_mode  # safetensors gives access to the owner only
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(usual)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a file from `save_model`, of this release or an earlier one.

    Args:
        path: Path of the file.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: The file is not from `save_model`, or its model or a task is not
            registered.
        CheckpointError: The weights do not fit the arguments.
    """
    state = _read_safetensors(Path(path))
    described = read_description(path)
    if described is None:
        raise ValueError(
            f"{path} has weights but no model, so it is not from save_model: use "
            "load_weights, which fills a given model"
        )
    with naming(path):
        _check_sizes(described["kwargs"], sum(v.numel() for v in state.values()))
        with torch.device("meta"):  # wrong sizes then cost no memory
            check_fit(dict(model_of(described).state_dict()), state)
        model = model_of(described)
        model.input_config = _input_in(described)
    if floating := [v.dtype for v in state.values() if v.is_floating_point()]:
        model.to(floating[0])
    model.load_state_dict(state)
    return model.eval()


def _check_sizes(kwargs: Mapping[str, Any], num_weights: int) -> None:
    """Raise ValueError if an argument is above the number of all weights."""
    for name, value in kwargs.items():
        if isinstance(value, int) and value > num_weights:
            raise ValueError(f"{name} is {value:g}, with {num_weights} weights in all")


def read_description(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the description of the model in a safetensors file, None without one."""
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if text is None:
        return None
    described = parse_json(text, path, "its metadata")
    if "class" in described:  # written by 0.1.0
        named = described["class"]
        if not isinstance(named, str) or named not in CLASSES:
            raise ValueError(
                f"{path} holds a {named!r}; known are {', '.join(CLASSES)}"
            )
        described["model"] = CLASSES[named]
    kinds = {"model": str, "kwargs": dict, "tasks": dict | None, "weighting": str}
    for name, kind in kinds.items():
        is_needed = name in ("model", "kwargs")
        if (name in described or is_needed) and not isinstance(
            described.get(name), kind
        ):
            raise ValueError(
                f"{path} is damaged: its metadata do not describe a model: {name} is "
                f"{described.get(name)!r}"
            )
    return described


def input_of(path: str | os.PathLike[str]) -> InputConfig | None:
    """Return the InputConfig in a file of weights, None without one."""
    is_ours = Path(path).suffix == ".safetensors"
    return _input_in(read_description(path)) if is_ours else None


def _input_in(described: Mapping[str, Any] | None) -> InputConfig | None:
    given = (described or {}).get("input")
    return None if given is None else InputConfig.from_dict(given)


def weights_digest(model: nn.Module) -> str:
    """Return a checksum of a model's weights, and of its `kwargs` if it has any.

    It does not depend on the file of the weights.
    """
    digest = hashlib.sha256()
    arguments = getattr(model, "kwargs", None)
    if callable(arguments):
        digest.update(json.dumps(arguments(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().reshape(-1)  # scalars too
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading a file's weights."""

    origin: str  # the file
    kind: str  # `own`, `competition` or `graphnet`
    loaded: tuple[str, ...]  # names in the model that were filled
    missing: tuple[str, ...] = ()  # names in the model that keep their random weights
    unused: tuple[str, ...] = ()  # names in the file that the model does not have
    misshapen: tuple[str, ...] = ()  # names in both, of different shapes; not loaded
    # Names in the model with columns of 0 for features that the file does not know.
    grown: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Summary in words, with every name that was not loaded."""
        lines = [f"{len(self.loaded)} weights loaded from {self.origin} ({self.kind})"]
        for what in ("grown", "missing", "misshapen", "unused"):
            names = getattr(self, what)
            if names:
                lines.append(f"  {what}: {len(names)}: {', '.join(names)}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module, source: str | os.PathLike[str], *, partial: bool = False
) -> LoadReport:
    """Fill a model with weights from a file.

    Args:
        model: Model to fill in place.
        source: File or folder of weights: a safetensors file, a run's folder, a
            checkpoint of Lightning or torch; no code from it is run. It may have more
            tasks than the model.
        partial: Whether weights that fit by name and shape are loaded, and the others
            reported. Weights that read the features grow by columns of 0 if the model
            has more extra features, and the same `embedding_width`: its answers are
            then those of the file.

    Returns:
        A report of the weights that were and were not loaded.

    Raises:
        CheckpointError: Something does not fit and `partial` is not set, or nothing
            fits; the model is then unchanged.
        ValueError: The file cannot be read as weights alone.
        OSError: The file does not exist.
    """
    path = Path(source)
    if path.is_dir():  # a run
        path = path / RUN_MODEL
    with naming(path):
        return _fill(model, path, partial)


def _fill(model: nn.Module, path: Path, partial: bool) -> LoadReport:
    config = input_of(path)
    kind, state = _in_our_names(model, read_state(path))
    targets = dict(model.state_dict(keep_vars=True))
    if kind == "graphnet" and not any(name.startswith(LAST) for name in targets):
        # A backbone alone does not need the last layers of a whole model.
        state = {n: v for n, v in state.items() if not n.startswith(LAST)}
    if not partial:
        check_fit(targets, _of_its_tasks(targets, state))
    shared = [name for name in targets if name in state]
    grown = _grown(model, path, targets, state) if partial else {}
    state.update(grown)
    fitting = [n for n in shared if state[n].shape == targets[n].shape]
    if not fitting:
        raise CheckpointError(
            f"{path} has no weight that fits the model; its first names are "
            f"{', '.join(list(state)[:3])}"
        )
    with torch.no_grad():
        for name in fitting:
            targets[name].copy_(state[name])
    if config is not None:
        model.input_config = config  # type: ignore[assignment]
    return LoadReport(
        origin=str(path),
        kind=kind,
        loaded=tuple(fitting),
        missing=tuple(n for n in targets if n not in state),
        unused=tuple(n for n in state if n not in targets),
        misshapen=tuple(n for n in shared if n not in fitting),
        grown=tuple(grown),
    )


def _grown(
    model: nn.Module,
    path: Path,
    targets: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return weights with columns of 0 for extra features that the file lacks."""
    is_ours = path.suffix == ".safetensors"
    described = (read_description(path) if is_ours else None) or {"kwargs": {}}
    known = described["kwargs"].get("extra_features", ())
    backbone, prefix = backbone_of(model)
    give = getattr(backbone, "columns_of", None)
    grown = {}
    for name, columns in ({} if give is None else give(known)).items():
        name = f"{prefix}{name}"
        ours, theirs = targets[name], state.get(name)
        if theirs is None or theirs.shape != (len(ours), len(columns)):
            continue
        if ours.shape != theirs.shape:
            grown[name] = torch.zeros_like(ours, dtype=theirs.dtype)
            grown[name][:, columns] = theirs
    return grown


def _of_its_tasks(
    targets: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights without those of tasks that the model does not have."""
    has = {found[1] for name in targets if (found := OF_TASK.match(name))}
    return {
        name: value
        for name, value in state.items()
        if not (found := OF_TASK.match(name)) or found[1] in has
    }


def _in_our_names(
    model: nn.Module, state: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor]]:
    """Return the origin of a state dict, and its weights by the model's names."""
    kind = "own"
    if any(name.startswith(AVERAGE) for name in state):  # preferred to raw weights
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

    GraphNeT's tasks name their last layer `_affine`; a `TaskHead` has `tasks`.
    """
    ours = {f"{BACKBONE}{n}": v for n, v in _below(state, GRAPHNET).items()}
    for name, value in state.items():
        head = re.fullmatch(r"_tasks\.\d+\.(tasks\..+)", name)
        affine = re.search(r"_affine\.(weight|bias)$", name)
        if head:
            ours[head[1]] = value
        elif affine and len(value) == 3:
            ours[HEAD[f"head.{affine[1]}"]] = value
    return ours


def _from_competition(
    model: nn.Module, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return published weights by DeepIce's names, with the last layer reordered."""
    names = (n.removeprefix(BACKBONE) for n in model.state_dict())
    ours = {published_name(name): name for name in (*names, *HEAD)}
    return {ours.get(n, n): _in_order_xyz(n, value) for n, value in state.items()}


def _in_order_xyz(published: str, value: Tensor) -> Tensor:
    """Return a published weight; rows of the last layer change from y, x, z order."""
    return value[[1, 0, 2]] if published.startswith("proj_out.") else value


def _in_form_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of DeepIce as those of a backbone with tasks, or the reverse."""
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

    Every key must fit: a missing or surplus key or a wrong shape is an error, and the
    model is then unchanged. Published file names also tell which blocks use the
    interval and how the graph is built, which no key shows. A hybrid in a GraphNeT
    model whose pulse map is not `as_published()` causes a warning, because its weights
    were trained with the published efficiency and ice features.

    Args:
        model: Model to fill: `DeepIce`, `DeepIceGNN`, or a module that contains exactly
            one of them without its last layer, and that layer elsewhere, such as the
            `_affine` of the task in GraphNeT's `StandardModel`.
        source: Checkpoint, as a `.pth` or `.safetensors` file or a state dict.

    Returns:
        The model, filled in place.

    Raises:
        CheckpointError: Keys or shapes do not fit; the message names each.
        ValueError: The file is not such a checkpoint, or `model` contains none of our
            models.
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
    """Return the name in the published code of one of our parameters."""
    for pattern, published in PUBLISHED_NAMES:
        name = re.sub(pattern, published, name)
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
    # GraphNeT's learned tasks name their last layer `_affine`.
    heads = [
        module
        for name, module in model.named_modules()
        if name.endswith("_affine")
        and isinstance(module, nn.Linear)
        and (module.in_features, module.out_features) == (dim, 3)
    ]
    if len(heads) != 1:
        raise ValueError(
            f"competition weights need one task with a layer from {dim} to 3; "
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
                f"ice={pulse_map.ice!r}; competition weights were trained with "
                "qe='published', ice='mirrored': use PulseMap.as_published()",
                UserWarning,
                stacklevel=3,
            )


def check_fit(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Check that `state` has the names and shapes of `targets`, all values finite.

    CheckpointError names each key that is missing, surplus or misshapen.
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
    nonfinite = [name for name in targets if not bool(state[name].isfinite().all())]
    if nonfinite:
        raise CheckpointError(
            f"the checkpoint has weights that are not finite: {', '.join(nonfinite)}"
        )


def _hint(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if state and all(name.startswith("module.") for name in state):
        return " All begin with 'module.', as DataParallel saves them; remove it."
    if "class_token" in state and "class_token" not in targets:
        return " These are weights of this package: use load_model or load_state_dict."
    if "cls_token.weight" in state and "cls_token.weight" not in targets:
        return " These are published weights: use load_competition_weights."
    return ""


def read_state(source: Source) -> dict[str, Tensor]:
    """Read a state dict from a file without running its code, or check a given one."""
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    else:
        state, origin = _read_file(Path(source)), str(source)
    if isinstance(state.get("state_dict"), Mapping):  # as trainers often save
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
            "not a torch file (perhaps a failed download), or it contains more than "
            "tensors. Code from a file is never run"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}); for a published checkpoint "
            "use load_competition_weights"
        ) from error
