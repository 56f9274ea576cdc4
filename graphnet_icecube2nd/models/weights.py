"""Weights in files: models of this package, and weights of whatever origin into them.

Nothing here executes code from a file: what torch wrote is read with
`weights_only=True`, safetensors holds tensors and text only.

`save_model` and `load_model` are for models of this package. `load_weights` takes any
file and tells them apart by the names in them: our own files and checkpoints of a run,
those of the competition, and state dicts of GraphNeT models with one of our backbones.

Published checkpoints are plain state dicts of the classes in
github.com/DrHB/icecube-2nd-place. They were trained on directions in the order y, x, z;
the last layer is turned to x, y, z on the way in.
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
from graphnet_icecube2nd.models.model import Model, TaskModel
from graphnet_icecube2nd.models.registry import CLASSES, MODELS, model_of

Source = str | os.PathLike[str] | Mapping[str, Tensor]
FORMAT = 2  # of the metadata; 0.1.0 wrote none
METADATA_KEY = "graphnet_icecube2nd"
RUN_MODEL = "model.safetensors"  # of a run's folder
# What stands before our names in other files: of DataParallel, our Lightning module,
# the average of the weights in a run's checkpoint, GraphNeT's `StandardModel`.
PARALLEL, MODULE, AVERAGE = "module.", "model.", "average.model."
GRAPHNET = "backbone.model."
BACKBONE = "backbone."  # of a `TaskModel`
LAST = ("head.", "tasks.")  # last layers, of a DeepIce and of a `TaskModel`
# The last layer of DeepIce, by its name where the direction is one of several tasks.
HEAD = {f"head.{part}": f"tasks.direction.head.{part}" for part in ("weight", "bias")}

# Ours -> published, as patterns that are replaced one after the other.
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
# What keys and shapes do not show of the published checkpoints, by file name.
PUBLISHED_SWITCHES = {
    "baselineV3_BE_globalrel_d32_0_6ema": {"n_rel": 1},
    "baselineV3_BE_globalrel_d64_0_3emaFT_2": {"n_rel": 1},
    "VFTV3_4RELFT_7": {"n_rel": 4},
    "V22FT6_1": {"n_rel": 1, "knn_features": 3},
    "V23FT5_6": {"n_rel": 4, "knn_features": 4},
}


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to one safetensors file: names, arguments, tasks, input, weights.

    The file appears whole or not at all.

    Args:
        model: The model.
        path: Where to; the suffix `.safetensors` is usual.

    Raises:
        ValueError: A model that `load_model` could not build: without a task, or of a
            backbone that is not registered.
    """
    if not isinstance(model, Model) or not model.task_map:
        raise ValueError(
            "save_model writes models with their last layers, as build_model gives "
            f"them; got {type(model).__name__}"
            + (" without a task" if isinstance(model, Model) else "")
        )
    if model.model_name not in MODELS.names():
        raise ValueError(
            f"the backbone {model.model_name!r} is not registered (register_model), "
            "so nobody could load the file"
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
        usual = partial.stat().st_mode  # safetensors allows its owner only
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(usual)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read what `save_model` wrote, in this release or an earlier one.

    Args:
        path: The file.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: Not such a file, or of a model or task that is not registered.
        CheckpointError: Its weights do not fit its arguments.
    """
    state = _read_safetensors(Path(path))
    described = read_description(path)
    if described is None:
        raise ValueError(f"{path} has weights but no model: not from save_model")
    with naming(path):
        _check_sizes(described["kwargs"], sum(v.numel() for v in state.values()))
        with torch.device("meta"):  # sizes that do not fit cost no memory
            check_fit(dict(model_of(described).state_dict()), state)
        model = model_of(described)
        model.input_config = _input_in(described)
    if floating := [v.dtype for v in state.values() if v.is_floating_point()]:
        model.to(floating[0])
    model.load_state_dict(state)
    return model.eval()


def _check_sizes(kwargs: Mapping[str, Any], num_weights: int) -> None:
    """Raise ValueError for an argument above the number of all weights."""
    for name, value in kwargs.items():
        if isinstance(value, int) and value > num_weights:
            raise ValueError(f"{name} is {value:g}, with {num_weights} weights in all")


def read_description(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return what a safetensors file says of its model; None: nothing."""
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    if text is None:
        return None
    described = parse_json(text, path, "its metadata")
    if "class" in described:  # of 0.1.0
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
                f"{path} is damaged: its metadata describe no model: {name} is "
                f"{described.get(name)!r}"
            )
    return described


def input_of(path: str | os.PathLike[str]) -> InputConfig | None:
    """Return how the events of a file of weights were read; None: it does not say."""
    is_ours = Path(path).suffix == ".safetensors"
    return _input_in(read_description(path)) if is_ours else None


def _input_in(described: Mapping[str, Any] | None) -> InputConfig | None:
    given = (described or {}).get("input")
    return None if given is None else InputConfig.from_dict(given)


def weights_digest(model: nn.Module) -> str:
    """Return a checksum of a model's weights, and of its arguments if it has `kwargs`.

    It is the same whatever file the weights came from.
    """
    digest = hashlib.sha256()
    arguments = getattr(model, "kwargs", None)
    if callable(arguments):
        digest.update(json.dumps(arguments(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().reshape(-1)  # single numbers too
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


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
    with naming(path):
        return _fill(model, path, partial)


def _fill(model: nn.Module, path: Path, partial: bool) -> LoadReport:
    config = input_of(path)
    kind, state = _in_our_names(model, read_state(path))
    targets = dict(model.state_dict(keep_vars=True))
    if kind == "graphnet" and not any(name.startswith(LAST) for name in targets):
        # A backbone alone has no use for the last layers of a whole model.
        state = {n: v for n, v in state.items() if not n.startswith(LAST)}
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
    if config is not None:
        model.input_config = config  # type: ignore[assignment]
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
        raise CheckpointError(f"weights that are not finite: {', '.join(nonfinite)}")


def _hint(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if state and all(name.startswith("module.") for name in state):
        return " Each begins with 'module.': saved from DataParallel; take it off."
    if "class_token" in state and "class_token" not in targets:
        return " These are weights of this package: use load_model or load_state_dict."
    if "cls_token.weight" in state and "cls_token.weight" not in targets:
        return " These are published weights: use load_competition_weights."
    return ""


def read_state(source: Source) -> dict[str, Tensor]:
    """Read a state dict from a file without running code from it, or check one."""
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    else:
        state, origin = _read_file(Path(source)), str(source)
    if isinstance(state.get("state_dict"), Mapping):  # as trainers like to save
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
            "no file of torch's, perhaps a failed download, or it holds more than "
            "tensors, and code from a file is never run"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); for a published checkpoint use "
            "load_competition_weights"
        ) from error
