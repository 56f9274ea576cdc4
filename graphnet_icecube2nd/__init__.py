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
    from graphnet_icecube2nd.conventions import FEATURE_NAMES
    from graphnet_icecube2nd.detector.pulse_map import PulseMap
    from graphnet_icecube2nd.direction.equatorial import to_equatorial
    from graphnet_icecube2nd.direction.losses import (
        AngularDistanceLoss,
        CombinedDirectionLoss,
        VonMisesFisherLoss,
    )
    from graphnet_icecube2nd.events.batch import PackedBatch
    from graphnet_icecube2nd.loading.datamodule import EventDataModule
    from graphnet_icecube2nd.models.competition import load_competition_weights
    from graphnet_icecube2nd.models.deepice import DeepIce
    from graphnet_icecube2nd.models.hybrid import DeepIceGNN
    from graphnet_icecube2nd.models.pretrained import list_pretrained, load_pretrained
    from graphnet_icecube2nd.models.registry import (
        build_model,
        list_models,
        register_model,
    )
    from graphnet_icecube2nd.models.weights import load_model, save_model
    from graphnet_icecube2nd.reconstruction.calibrate import calibrate, calibrate_table
    from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
    from graphnet_icecube2nd.reconstruction.ensemble_fit import fit_ensemble
    from graphnet_icecube2nd.reconstruction.network import NetworkOptions
    from graphnet_icecube2nd.reconstruction.pulse_reconstruction import (
        PulseReconstructor,
    )
    from graphnet_icecube2nd.reconstruction.reconstruct import reconstruct
    from graphnet_icecube2nd.reconstruction.trained import TrainedModel, find_trained
    from graphnet_icecube2nd.reconstruction.truth import EventTruth
    from graphnet_icecube2nd.report.evaluation.judged import evaluate
    from graphnet_icecube2nd.report.evaluation.report import write_evaluation
    from graphnet_icecube2nd.report.event.page import write_event_page
    from graphnet_icecube2nd.report.robustness.scores import robustness
    from graphnet_icecube2nd.report.sky.map import SkyMap, sky_map
    from graphnet_icecube2nd.report.sky.picture import draw_sky_map
    from graphnet_icecube2nd.simulation.configuration import SimulationConfig
    from graphnet_icecube2nd.simulation.simulate import simulate
    from graphnet_icecube2nd.simulation.stream import SimulatedStream
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.prepare import prepare, prepare_frames
    from graphnet_icecube2nd.training.as_store import as_store
    from graphnet_icecube2nd.training.published_config import read_published_config
    from graphnet_icecube2nd.training.recipe import DataOptions, Recipe, Stage
    from graphnet_icecube2nd.training.run import train
    from graphnet_icecube2nd.training.trainer import Machine
    from graphnet_icecube2nd.training.tune import tune

__all__ = [
    "FEATURE_NAMES",
    "AngularDistanceLoss",
    "CombinedDirectionLoss",
    "DataOptions",
    "DeepIce",
    "DeepIceGNN",
    "DirectionTable",
    "EventDataModule",
    "EventStore",
    "EventTruth",
    "Machine",
    "NetworkOptions",
    "PackedBatch",
    "PulseMap",
    "PulseReconstructor",
    "Recipe",
    "SimulatedStream",
    "SimulationConfig",
    "SkyMap",
    "Stage",
    "TrainedModel",
    "VonMisesFisherLoss",
    "as_store",
    "build_model",
    "calibrate",
    "calibrate_table",
    "draw_sky_map",
    "evaluate",
    "find_trained",
    "fit_ensemble",
    "list_models",
    "list_pretrained",
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
    "AngularDistanceLoss": "direction.losses",
    "CombinedDirectionLoss": "direction.losses",
    "DataOptions": "training.recipe",
    "DeepIce": "models.deepice",
    "DeepIceGNN": "models.hybrid",
    "DirectionTable": "reconstruction.direction_table",
    "EventDataModule": "loading.datamodule",
    "EventStore": "store.event_store",
    "EventTruth": "reconstruction.truth",
    "Machine": "training.trainer",
    "NetworkOptions": "reconstruction.network",
    "PackedBatch": "events.batch",
    "PulseMap": "detector.pulse_map",
    "PulseReconstructor": "reconstruction.pulse_reconstruction",
    "Recipe": "training.recipe",
    "SimulatedStream": "simulation.stream",
    "SimulationConfig": "simulation.configuration",
    "SkyMap": "report.sky.map",
    "Stage": "training.recipe",
    "TrainedModel": "reconstruction.trained",
    "VonMisesFisherLoss": "direction.losses",
    "as_store": "training.as_store",
    "build_model": "models.registry",
    "calibrate": "reconstruction.calibrate",
    "calibrate_table": "reconstruction.calibrate",
    "draw_sky_map": "report.sky.picture",
    "evaluate": "report.evaluation.judged",
    "find_trained": "reconstruction.trained",
    "fit_ensemble": "reconstruction.ensemble_fit",
    "list_models": "models.registry",
    "list_pretrained": "models.pretrained",
    "load_competition_weights": "models.competition",
    "load_model": "models.weights",
    "load_pretrained": "models.pretrained",
    "prepare": "store.prepare",
    "prepare_frames": "store.prepare",
    "read_published_config": "training.published_config",
    "reconstruct": "reconstruction.reconstruct",
    "register_model": "models.registry",
    "robustness": "report.robustness.scores",
    "save_model": "models.weights",
    "simulate": "simulation.simulate",
    "sky_map": "report.sky.map",
    "to_equatorial": "direction.equatorial",
    "train": "training.run",
    "tune": "training.tune",
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
