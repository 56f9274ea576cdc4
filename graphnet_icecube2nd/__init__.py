"""Reconstruction of neutrino-telescope events from pulses, with calibrated widths.

The package reconstructs direction, energy, and track or cascade. It contains DeepIce,
the 2nd place of "IceCube - Neutrinos in Deep Ice", and works with GraphNeT. The core
needs PyTorch, numpy and safetensors; `graphnet_icecube2nd.graphnet_adapter` connects it
to GraphNeT.

Most users need the names below; each room has more (`.detector`, `.tasks`, `.models`,
`.training`, `.inference`, `.results`, `.calibration`, `.evaluation`, `.report`, ...).
A name is imported when it is first used, so that the command line answers before torch
is loaded.
"""

from typing import TYPE_CHECKING

from graphnet_icecube2nd.lazy import lazy_names
from graphnet_icecube2nd.version import __version__ as __version__

if TYPE_CHECKING:
    from graphnet_icecube2nd.calibration.fit import calibrate
    from graphnet_icecube2nd.conventions import FEATURE_NAMES
    from graphnet_icecube2nd.detector.detector import Detector, register_detector
    from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
    from graphnet_icecube2nd.detector.pulse_map import PulseMap
    from graphnet_icecube2nd.evaluation.metrics import evaluate
    from graphnet_icecube2nd.events.batch import PackedBatch
    from graphnet_icecube2nd.events.events import Events
    from graphnet_icecube2nd.events.input_config import InputConfig
    from graphnet_icecube2nd.inference.pulse_reconstruction import PulseReconstructor
    from graphnet_icecube2nd.inference.reconstruction import reconstruct
    from graphnet_icecube2nd.loading.datamodule import EventDataModule
    from graphnet_icecube2nd.models.deepice import DeepIce
    from graphnet_icecube2nd.models.hybrid import DeepIceGNN
    from graphnet_icecube2nd.models.pretrained import build_model
    from graphnet_icecube2nd.models.registry import list_models, register_model
    from graphnet_icecube2nd.models.weights import (
        load_competition_weights,
        load_model,
        save_model,
    )
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.simulation.production import simulate
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.preparation import prepare
    from graphnet_icecube2nd.tasks.catalogue import build_task, list_tasks
    from graphnet_icecube2nd.tasks.direction.losses import (
        AngularDistanceLoss,
        CombinedDirectionLoss,
        VonMisesFisherLoss,
    )
    from graphnet_icecube2nd.tasks.task import Task, register_task
    from graphnet_icecube2nd.training.recipe import Recipe
    from graphnet_icecube2nd.training.run import train
    from graphnet_icecube2nd.training.transfer import finetune, pretrain

_MODULES = {
    "AngularDistanceLoss": "tasks.direction.losses",
    "CombinedDirectionLoss": "tasks.direction.losses",
    "DeepIce": "models.deepice",
    "DeepIceGNN": "models.hybrid",
    "Detector": "detector.detector",
    "EventDataModule": "loading.datamodule",
    "EventStore": "store.event_store",
    "EventTable": "results.event_table",
    "Events": "events.events",
    "FEATURE_NAMES": "conventions",
    "InputConfig": "events.input_config",
    "PackedBatch": "events.batch",
    "PulseMap": "detector.pulse_map",
    "PulseReconstructor": "inference.pulse_reconstruction",
    "Recipe": "training.recipe",
    "Task": "tasks.task",
    "VonMisesFisherLoss": "tasks.direction.losses",
    "build_detector": "detector.presets",
    "build_model": "models.pretrained",
    "build_task": "tasks.catalogue",
    "calibrate": "calibration.fit",
    "evaluate": "evaluation.metrics",
    "finetune": "training.transfer",
    "list_detectors": "detector.presets",
    "list_models": "models.registry",
    "list_tasks": "tasks.catalogue",
    "load_competition_weights": "models.weights",
    "load_model": "models.weights",
    "prepare": "store.preparation",
    "pretrain": "training.transfer",
    "reconstruct": "inference.reconstruction",
    "register_detector": "detector.detector",
    "register_model": "models.registry",
    "register_task": "tasks.task",
    "save_model": "models.weights",
    "simulate": "simulation.production",
    "train": "training.run",
}

__all__ = ["FEATURE_NAMES", "Events", "InputConfig", "PackedBatch", "PulseMap"]
__all__ += ["Detector", "build_detector", "list_detectors", "register_detector"]
__all__ += ["Task", "build_task", "list_tasks", "register_task"]
__all__ += ["AngularDistanceLoss", "CombinedDirectionLoss", "VonMisesFisherLoss"]
__all__ += ["DeepIce", "DeepIceGNN", "build_model", "list_models", "register_model"]
__all__ += ["load_competition_weights", "load_model", "save_model"]
__all__ += ["EventDataModule", "EventStore", "prepare", "simulate"]
__all__ += ["Recipe", "finetune", "pretrain", "train"]
__all__ += ["EventTable", "PulseReconstructor", "calibrate", "evaluate", "reconstruct"]

__getattr__, __dir__, _ = lazy_names(__name__, _MODULES)
