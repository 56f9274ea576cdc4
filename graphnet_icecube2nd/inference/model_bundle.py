"""A trained model with all that belongs to it: how it sees events, its calibration."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphnet_icecube2nd.config import load_yaml
from graphnet_icecube2nd.inference.calibration_file import (
    CalibrationFile,
    place_beside,
)
from graphnet_icecube2nd.inference.ensemble_file import (
    FILE as ENSEMBLE,
)
from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
from graphnet_icecube2nd.inference.predictor import InferenceConfig
from graphnet_icecube2nd.models.checkpoint_loading import RUN_MODEL
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.pretrained import FOLDER, find_model, list_pretrained
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration

Network = Model
Calibration = KappaCalibration | str | None
STORED, NONE = "stored", "none"
RECIPE = "recipe.yaml"  # of a run: how its model saw events


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model, or an ensemble, ready to reconstruct.

    Args:
        name: What it is called.
        network: The model.
        options: How it sees events: as it was trained, or as its calibration was
            fitted.
        calibration: Makes its kappa honest; None where none was stored with it.
        source: The calibration's file; None as before.
    """

    name: str
    network: Network
    options: InferenceConfig = field(default_factory=InferenceConfig)
    calibration: KappaCalibration | None = None
    source: CalibrationFile | None = None

    def calibrated(self, calibration: Calibration = STORED) -> TrainedModel:
        """Return it with another calibration.

        Args:
            calibration: `stored`: its own; `none` or None: none; or another one.

        Raises:
            ValueError: Another word.
        """
        if isinstance(calibration, KappaCalibration):
            return replace(self, calibration=calibration, source=None)
        if calibration is None or calibration == NONE:
            return replace(self, calibration=None, source=None)
        if calibration != STORED:
            raise ValueError(
                f"calibration must be {STORED}, {NONE} or a KappaCalibration, got "
                f"{calibration!r}"
            )
        return self


def find_trained(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    calibration: str | os.PathLike[str] = "stored",
) -> TrainedModel:
    """Return a trained model, or an ensemble, by whatever names it.

    Args:
        name: Weights of the package (`t_sim.simulated`), a run's folder, an ensemble's
            folder or YAML, a file of `save_model`, or with `weights` a model's name.
        weights: A file of weights of any origin.
        calibration: `stored`: what lies beside the weights, if anything does; `none`;
            or a file of `icecube2nd calibrate`, of these very weights.

    Raises:
        ValueError: There is nothing of that name; a calibration of other weights.
        CheckpointError: The weights do not fit the model.
        OSError: A file is not there.
    """
    place = weights_place(name, weights)
    if weights is None and is_ensemble(name):
        described = EnsembleFile.load(name)
        found = TrainedModel(
            name=described.name,
            network=described.model(place),
            options=described.options,
        )
    else:
        found = TrainedModel(
            name=Path(name).name or str(name),
            network=find_model(name, weights),
            options=_options_of_run(place),
        )
    if str(calibration) == NONE:
        return found
    is_stored = str(calibration) == STORED
    path = place_beside(place) if is_stored else Path(calibration)
    if is_stored and not path.is_file():
        return found
    stored = CalibrationFile.load(path)
    stored.check_belongs_to(found.network, path)
    return replace(
        found,
        calibration=stored.calibration,
        source=stored,
        options=replace(found.options, **stored.seen()),
    )


def as_trained(model: TrainedModel | Network | str | os.PathLike[str]) -> TrainedModel:
    """Return a model by name, or as it is, with all that belongs to it.

    Raises:
        ValueError: As `find_trained`.
    """
    if isinstance(model, TrainedModel):
        return model
    if isinstance(model, str | os.PathLike):
        return find_trained(model)
    return TrainedModel(name="network", network=model)


def warn_if_seen_otherwise(trained: TrainedModel, options: InferenceConfig) -> None:
    """Warn where a calibration was fitted on events that were seen otherwise."""
    if trained.source is None:
        return
    for name, fitted in trained.source.seen().items():
        asked = getattr(options, name)
        if asked != fitted:
            warnings.warn(
                f"kappa was calibrated with {name} {fitted}, and is used with {asked}: "
                "calibrate for that, or do without",
                stacklevel=3,
            )


def weights_place(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> Path:
    """Return the file or folder where a trained model's weights lie."""
    if weights is not None:
        return Path(weights)
    if str(name) in list_pretrained():
        return FOLDER / f"{name}.safetensors"
    path = Path(name)
    return path.parent if path.name == ENSEMBLE else path


def _options_of_run(place: Path) -> InferenceConfig:
    """Return how a run's model saw events; of other weights the usual ones."""
    recipe = (place if place.is_dir() else place.parent) / RECIPE
    if not recipe.is_file() or (place.is_file() and place.name != RUN_MODEL):
        return InferenceConfig()
    values = load_yaml(recipe.read_text(encoding="utf-8"), str(recipe))
    data = values["data"]
    longest = data["validation_max_pulses"] or values["stages"][-1]["max_pulses"]
    return InferenceConfig(
        max_pulses=longest,
        selection=data["selection"],
        published_features=data["features"] == "published",
    )


def is_ensemble(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is an ensemble's folder or its YAML."""
    path = Path(name)
    return path.name == ENSEMBLE or (path / ENSEMBLE).is_file()
