"""DeepIce, the 2nd place of "IceCube - Neutrinos in Deep Ice", for GraphNeT.

Pulses go in, a unit vector and its kappa come out. This core needs PyTorch, numpy and
safetensors; `graphnet_icecube2nd.graphnet_adapter` hands it to GraphNeT.

Names below are imported when they are first asked for, so that the command line
answers before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphnet_icecube2nd.version import __version__ as __version__

if TYPE_CHECKING:
    from graphnet_icecube2nd.calibration.calibrate import calibrate, calibrate_table
    from graphnet_icecube2nd.conventions import FEATURE_NAMES
    from graphnet_icecube2nd.detector.pulse_map import PulseMap
    from graphnet_icecube2nd.ensemble.ensemble_fit import fit_ensemble
    from graphnet_icecube2nd.evaluation.metrics import evaluate
    from graphnet_icecube2nd.evaluation.robustness import robustness
    from graphnet_icecube2nd.events.batch import PackedBatch
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig
    from graphnet_icecube2nd.inference.model_bundle import ModelBundle, load_bundle
    from graphnet_icecube2nd.inference.pulse_reconstruction import (
        PulseReconstructor,
    )
    from graphnet_icecube2nd.inference.reconstruct import reconstruct
    from graphnet_icecube2nd.loading.datamodule import EventDataModule
    from graphnet_icecube2nd.models.build import list_models
    from graphnet_icecube2nd.models.competition import load_competition_weights
    from graphnet_icecube2nd.models.deepice import DeepIce
    from graphnet_icecube2nd.models.hybrid import DeepIceGNN
    from graphnet_icecube2nd.models.pretrained import (
        build_model,
        list_pretrained,
        load_pretrained,
    )
    from graphnet_icecube2nd.models.registry import register_model
    from graphnet_icecube2nd.models.weights import load_model, save_model
    from graphnet_icecube2nd.published.as_store import as_store
    from graphnet_icecube2nd.published.published_config import read_published_config
    from graphnet_icecube2nd.report.evaluation.report import write_evaluation
    from graphnet_icecube2nd.report.event.page import write_event_page
    from graphnet_icecube2nd.report.sky.map import SkyMap, sky_map
    from graphnet_icecube2nd.report.sky.picture import draw_sky_map
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.simulation.configuration import SimulationConfig
    from graphnet_icecube2nd.simulation.simulate import simulate
    from graphnet_icecube2nd.simulation.stream import SimulatedStream
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.prepare import prepare, prepare_frames
    from graphnet_icecube2nd.tasks.direction.equatorial import to_equatorial
    from graphnet_icecube2nd.tasks.direction.losses import (
        AngularDistanceLoss,
        CombinedDirectionLoss,
        VonMisesFisherLoss,
    )
    from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, Stage
    from graphnet_icecube2nd.training.run import train
    from graphnet_icecube2nd.training.trainer import TrainerConfig
    from graphnet_icecube2nd.tuning.tune import tune

__all__ = [
    "FEATURE_NAMES",
    "AngularDistanceLoss",
    "CombinedDirectionLoss",
    "DataConfig",
    "DeepIce",
    "DeepIceGNN",
    "EventDataModule",
    "EventStore",
    "EventTable",
    "EventTruth",
    "InferenceConfig",
    "ModelBundle",
    "PackedBatch",
    "PulseMap",
    "PulseReconstructor",
    "Recipe",
    "SimulatedStream",
    "SimulationConfig",
    "SkyMap",
    "Stage",
    "TrainerConfig",
    "VonMisesFisherLoss",
    "as_store",
    "build_model",
    "calibrate",
    "calibrate_table",
    "draw_sky_map",
    "evaluate",
    "fit_ensemble",
    "list_models",
    "list_pretrained",
    "load_bundle",
    "load_competition_weights",
    "load_model",
    "load_pretrained",
    "prepare",
    "prepare_frames",
    "read_published_config",
    "reconstruct",
    "register_model",
    "robustness",
    "save_model",
    "simulate",
    "sky_map",
    "to_equatorial",
    "train",
    "tune",
    "write_evaluation",
    "write_event_page",
]

_MODULES = {
    "FEATURE_NAMES": "conventions",
    "AngularDistanceLoss": "tasks.direction.losses",
    "CombinedDirectionLoss": "tasks.direction.losses",
    "DataConfig": "training.recipe",
    "DeepIce": "models.deepice",
    "DeepIceGNN": "models.hybrid",
    "EventTable": "results.event_table",
    "EventDataModule": "loading.datamodule",
    "EventStore": "store.event_store",
    "EventTruth": "results.truth",
    "TrainerConfig": "training.trainer",
    "InferenceConfig": "inference.inference_config",
    "PackedBatch": "events.batch",
    "PulseMap": "detector.pulse_map",
    "PulseReconstructor": "inference.pulse_reconstruction",
    "Recipe": "training.recipe",
    "SimulatedStream": "simulation.stream",
    "SimulationConfig": "simulation.configuration",
    "SkyMap": "report.sky.map",
    "Stage": "training.recipe",
    "ModelBundle": "inference.model_bundle",
    "VonMisesFisherLoss": "tasks.direction.losses",
    "as_store": "published.as_store",
    "build_model": "models.pretrained",
    "calibrate": "calibration.calibrate",
    "calibrate_table": "calibration.calibrate",
    "draw_sky_map": "report.sky.picture",
    "evaluate": "evaluation.metrics",
    "load_bundle": "inference.model_bundle",
    "fit_ensemble": "ensemble.ensemble_fit",
    "list_models": "models.build",
    "list_pretrained": "models.pretrained",
    "load_competition_weights": "models.competition",
    "load_model": "models.weights",
    "load_pretrained": "models.pretrained",
    "prepare": "store.prepare",
    "prepare_frames": "store.prepare",
    "read_published_config": "published.published_config",
    "reconstruct": "inference.reconstruct",
    "register_model": "models.registry",
    "robustness": "evaluation.robustness",
    "save_model": "models.weights",
    "simulate": "simulation.simulate",
    "sky_map": "report.sky.map",
    "to_equatorial": "tasks.direction.equatorial",
    "train": "training.run",
    "tune": "tuning.tune",
    "write_evaluation": "report.evaluation.report",
    "write_event_page": "report.event.page",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what there is, imported or not."""
    return sorted({*globals(), *__all__})
