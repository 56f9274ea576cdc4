"""Pre-training without truth, and fine-tuning of a trained model.

A fine-tuning begins with the weights of a model, which may be of another detector, and
have fewer features and other tasks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.conventions import CHARGE
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.models.model import BACKBONE, Model, backbone_of, layers_of
from graphnet_icecube2nd.models.pretrained import find_model, model_file
from graphnet_icecube2nd.models.weights import LoadReport, load_weights
from graphnet_icecube2nd.nn.embedding import POSITION_WAVES
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.catalogue import distinct_tasks
from graphnet_icecube2nd.tasks.masked_pulses import MaskedPulses
from graphnet_icecube2nd.training.history import Row
from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, Stage, overridden
from graphnet_icecube2nd.training.run import (
    TrainedRun,
    first_model,
    is_first_process,
    run_recipe,
    train,
)
from graphnet_icecube2nd.training.run_folder import begun_stages, detector_of
from graphnet_icecube2nd.training.trainer import TrainerConfig

LOGGER = logging.getLogger(__name__)
METHODS = ("full", "frozen", "layer-wise", "staged")
OF_MODEL, OF_STORE = "model", "store"  # whose scales the features have
FINETUNED = "finetuned_from"  # key in run.json
FIRST = Stage(lr_max=3e-4, epochs=10.0, pct_start=0.1, accumulate_events=64)
OF_STAGES = ("loss", "normalisation")  # options of the direction that stages set


def pretrain(
    data: EventStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str = "t_sim",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    machine: TrainerConfig | None = None,
    on_row: Callable[[list[Row]], None] | None = None,
) -> TrainedRun:
    """Train the backbone of a model on events without truth.

    Part of the pulses is masked, and the model learns to predict their position, or
    time and light, see `MaskedPulses`. `finetune` then takes the run for its tasks.

    Args:
        data: Store, with or without truth, or its path.
        out: Folder of the run.
        model: Name of a model, one of `list_models()`, with `pulse_latents`.
        overrides: Values of the recipe to replace, as in `train`, such as
            `tasks.masked_pulses.share=0.4`.
        resume: Resume the run in `out`; start a run if there is none.
        machine: Devices, loggers and checkpoints.
        on_row: Function that is called with all measurements after each sub-epoch.

    Raises:
        ValueError: The model has no latent vectors of pulses, or a value is not
            allowed as in `train`.
    """
    store = data if isinstance(data, EventStore) else EventStore(data)
    return train(
        pretrain_recipe(model, store),
        store,
        out,
        overrides=overrides,
        resume=resume,
        machine=machine,
        on_row=on_row,
    )


def pretrain_recipe(model: str, store: EventStore) -> Recipe:
    """Return the recipe of a pre-training; arguments as for `pretrain`."""
    pulses, vectors = store.pulse_map, store.detector.vectors
    light = [CHARGE] if CHARGE not in pulses.absent else []
    light += [n for n in pulses.extra if not any(n in vector for vector in vectors)]
    stage = replace(FIRST, lr_max=1e-3, max_pulses=96)
    return Recipe(
        name="pretrain",
        model=model,
        stages=(stage,),
        tasks={MaskedPulses.name: {"light": light[0] if light else ""}},
        data=DataConfig(num_sub_epochs=1),
    )


def finetune(
    model: str | os.PathLike[str],
    data: EventStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tasks: Iterable[str] | None = None,
    method: str = "full",
    scales: str = OF_MODEL,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    machine: TrainerConfig | None = None,
    on_row: Callable[[list[Row]], None] | None = None,
) -> TrainedRun:
    """Train a model further, on other events, tasks, features, or another detector.

    The backbone of the model is taken over, and the last layers of tasks that it has;
    other tasks get new ones. Extra columns of the store that the model does not know,
    such as PMT directions, are read by new weights of 0, so that the first answers are
    those of the model. Notices tell what is taken over, new and left out; `run.json`
    has it too. The run has a recipe as any other, see `finetune_recipe`.

    Args:
        model: Name of weights of the package, folder of a run, or file of `save_model`.
        data: Store with the labels of the tasks, or its path.
        out: Folder of the run.
        tasks: Names of the tasks; default: those of the model.
        method: `full`: all weights are trained; `frozen`: only the last layers;
            `layer-wise`: all, with smaller learning rates in lower layers; `staged`:
            first the last layers, then also the upper half of the backbone, then all.
        scales: Units of the features: `model`, those of its training, or `store`, those
            of the store's detector.
        overrides: Values of the recipe to replace, as in `train`.
        resume: Resume the run in `out`; start a run if there is none.
        machine: Devices, loggers and checkpoints.
        on_row: Function that is called with all measurements after each sub-epoch.

    Raises:
        ValueError: The model reads a column that the store lacks, its backbone does not
            fit the recipe, or a value is not allowed as in `train`.
    """
    print_notices()
    store = data if isinstance(data, EventStore) else EventStore(data)
    file = model_file(model)
    known = find_model(file)
    recipe = finetune_recipe(
        known, file, store, tasks=tasks, method=method, scales=scales
    )
    recipe = overridden(recipe, overrides) if overrides else recipe
    note = _transfer(known, recipe, store)
    if is_first_process() and not begun_stages(Path(out)):
        for text in _texts(note):
            LOGGER.info(text)
    return run_recipe(
        recipe,
        store,
        out,
        resume=resume,
        machine=machine,
        on_row=on_row,
        note={FINETUNED: note},
    )


def finetune_recipe(
    model: Model,
    weights: str | os.PathLike[str],
    store: EventStore,
    *,
    tasks: Iterable[str] | None = None,
    method: str = "full",
    scales: str = OF_MODEL,
) -> Recipe:
    """Return the recipe of a fine-tuning; arguments and errors as for `finetune`.

    Args:
        model: The trained model.
        weights: Its file.
        store: Store of the events.
        tasks: Names of the tasks.
        method: Choice of the trained weights.
        scales: Units of the features.
    """
    check_one_of("method", method, METHODS)
    check_one_of("scales", scales, (OF_MODEL, OF_STORE))
    config = model.input_config or InputConfig()
    own_scales = scales == OF_STORE or config.scales == store.detector.scales
    first = replace(
        FIRST,
        max_pulses=config.max_pulses,
        weights=os.path.abspath(weights),
        partial=True,
    )
    return Recipe(
        name=f"finetune_{method.replace('-', '_')}",
        model=model.model_name,
        model_kwargs=_model_kwargs(model, store),
        stages=_stages(method, first, model),
        tasks=_tasks(model, tasks),
        data=DataConfig(
            selection=config.selection,
            positions=config.positions,
            features="published" if config.published_features else "store",
            scales=None if own_scales else config.scales,
            num_sub_epochs=1,
        ),
    )


def _stages(method: str, first: Stage, model: Model) -> tuple[Stage, ...]:
    """Return the stages of a method."""
    heads = replace(first, lr_max=1e-3, freeze=(BACKBONE[:-1],))
    if method == "full":
        return (first,)
    if method == "frozen":
        return (heads,)
    if method == "layer-wise":
        return (replace(first, lr_max=5e-4, layer_decay=0.75),)
    layers_of(model)  # raises if there are none
    layers: Sequence[Sequence[str]] = backbone_of(model)[0].layers()  # type: ignore[operator]
    lower = [name for names in layers[: len(layers) // 2] for name in names]
    later = replace(first, weights=None, partial=False)
    return (
        replace(heads, epochs=3.0),
        replace(later, epochs=3.0, freeze=tuple(lower)),
        replace(later, epochs=4.0, layer_decay=0.75),
    )


def _tasks(model: Model, names: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    """Return the options of the tasks; those that the model has keep theirs."""
    answering = [name for name, task in model.task_map.items() if task.columns]
    chosen = answering if names is None else distinct_tasks(names)
    if not chosen:
        raise ValueError(
            f"{model.model_name} was trained without truth and has no task: name the "
            "tasks to train (--tasks direction,energy; tasks=['direction', 'energy'])"
        )
    options: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for name in options.keys() & model.task_map.keys():
        task, weight = model.task_map[name], model.task_weights[name]
        given = task.describe()
        options[name] = {k: v for k, v in given.items() if k not in OF_STAGES}
        if len(chosen) > 1 and len(answering) > 1 and weight != task.default_weight:
            options[name]["weight"] = weight
    return options


def _model_kwargs(model: Model, store: EventStore) -> dict[str, Any]:
    """Return the arguments of the model's backbone, with the store's extra columns."""
    kwargs = dict(model.describe()["kwargs"])
    backbone: Any = backbone_of(model)[0]
    pulses, known = store.pulse_map, tuple(kwargs.get("extra_features", ()))
    if lacking := [name for name in known if name not in pulses.extra]:
        raise ValueError(
            f"{store.path} must have the columns {', '.join(known)} that the model "
            f"reads, found {', '.join(pulses.extra) or 'none'}: prepare the store with "
            f"{', '.join(lacking)}, or choose a model that does not read them"
        )
    new = _new_features(model, store.detector)
    if new:
        waves = dict(zip(pulses.extra, store.detector.extra_waves, strict=False))
        before = dict(zip(known, kwargs.get("extra_waves", ()), strict=False))
        kwargs |= {
            "extra_features": [*known, *new],
            "extra_waves": [
                *(before.get(name, POSITION_WAVES) for name in known),
                *(waves.get(name, POSITION_WAVES) for name in new),
            ],
            "embedding_width": backbone.embedding.project[0].out_features,
        }
    return kwargs


def _new_features(model: Model, detector: Detector) -> list[str]:
    """Return the extra columns of a detector that the model can learn to read."""
    if not hasattr(backbone_of(model)[0], "columns_of"):
        return []
    known = model.describe()["kwargs"].get("extra_features", ())
    return [name for name in detector.pulses.extra if name not in known]


def _transfer(model: Model, recipe: Recipe, store: EventStore) -> dict[str, Any]:
    """Return what the first stage takes over, as plain values for `run.json`.

    Raises ValueError if the backbone does not fit.
    """
    stage = recipe.stages[0]
    if stage.weights is None:
        raise ValueError("stages.0.weights must be the file of the model, found none")
    begun = first_model(recipe, 0, detector_of(recipe, store))
    report = load_weights(begun, stage.weights, partial=True)
    if lost := _lost(begun, report):
        raise ValueError(
            f"the backbone of {stage.weights} must fit the recipe's model, but "
            f"{', '.join(lost[:3])}{', ...' * (len(lost) > 3)} are missing or have "
            "another shape: leave model and model_kwargs as they are, or use `train` "
            "with stages.0.weights and stages.0.partial=true"
        )
    kept = [name for name in begun.task_map if name in model.task_map]
    misfits = [n for n in kept if any(f"tasks.{n}." in w for w in report.misshapen)]
    return {
        "model": stage.weights,
        "method": recipe.name,
        "taken_over": len(report.loaded),
        "kept_tasks": [name for name in kept if name not in misfits],
        "new_tasks": [n for n in begun.task_map if n not in kept or n in misfits],
        "left_out_tasks": [n for n in model.task_map if n not in kept],
        "new_features": _new_features(model, store.detector),
        "grown": list(report.grown),
        "new_weights": [*report.missing, *report.misshapen],
        "left_out_weights": list(report.unused),
        "differences": _differences(model, recipe, store),
    }


def _lost(model: Model, report: LoadReport) -> list[str]:
    """Return weights of the backbone that were not loaded."""
    _, prefix = backbone_of(model)
    return [
        name
        for name in (*report.missing, *report.misshapen)
        if (name.startswith(prefix) if prefix else not name.startswith("head."))
        and not name.endswith("embedding.extra.scale")  # of new features
    ]


def _differences(model: Model, recipe: Recipe, store: EventStore) -> list[str]:
    """Return texts on how the store differs from the events of the model's training."""
    config, texts = model.input_config, []
    if config is None:
        return ["the model does not know how its events were read"]
    detector = store.detector
    if config.telescope != detector.telescope:
        texts.append(
            f"the model was trained on {config.telescope}, the store has events of "
            f"{detector.telescope}"
        )
    if config.scales != detector.scales:
        used = "the store's" if recipe.data.scales is None else "the model's"
        texts.append(
            f"features have {used} units; the model's are {_units(config.scales)}, "
            f"the store's {_units(detector.scales)}"
        )
    if config.clock != detector.clock:
        texts.append(
            f"times count on the clock {detector.clock!r}, in the model's training on "
            f"{config.clock!r}: its first answers are poor until all weights have "
            "been trained"
        )
    absent = [n for n in detector.pulses.absent if n not in (config.absent or ())]
    if config.absent is not None and absent:
        texts.append(
            f"the store has no column {', '.join(absent)}, which the training had"
        )
    return texts


def _units(scales: Scales) -> str:
    return f"{scales.position:g} m and {scales.time:g} ns"


def _texts(note: Mapping[str, Any]) -> list[str]:
    """Return what is taken over, new and left out as text."""
    names = {
        "last layers kept": note["kept_tasks"],
        "new last layers": note["new_tasks"],
        "left out": note["left_out_tasks"],
        "new features, with weights of 0": note["new_features"],
    }
    return [
        f"{note['taken_over']} weights of {note['model']} are taken over",
        *(f"  {what}: {', '.join(of)}" for what, of in names.items() if of),
        *(f"  {text}" for text in note["differences"]),
    ]
