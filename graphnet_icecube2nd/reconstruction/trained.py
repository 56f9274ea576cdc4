"""A trained model with all that belongs to it: how it sees events, its calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphnet_icecube2nd.direction.calibration import KappaCalibration
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.pretrained import FOLDER, find_model, list_pretrained
from graphnet_icecube2nd.reconstruction.calibration_file import (
    CalibrationFile,
    place_beside,
)
from graphnet_icecube2nd.reconstruction.ensemble_file import (
    FILE as ENSEMBLE,
)
from graphnet_icecube2nd.reconstruction.ensemble_file import (
    EnsembleFile,
    EnsembleModel,
)
from graphnet_icecube2nd.reconstruction.network import NetworkOptions

Network = DeepIce | EnsembleModel


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model, or an ensemble, ready to reconstruct.

    Args:
        name: What it is called.
        network: The model.
        options: How it sees events.
        calibration: Makes its kappa honest; None where none was stored with it.
    """

    name: str
    network: Network
    options: NetworkOptions = field(default_factory=NetworkOptions)
    calibration: KappaCalibration | None = None


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
            or a file of `icecube2nd calibrate`.

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
        model = find_model(name, weights)
        found = TrainedModel(name=Path(name).name or str(name), network=model)
    if str(calibration) == "none":
        return found
    path = place_beside(place) if str(calibration) == "stored" else Path(calibration)
    if str(calibration) == "stored" and not path.is_file():
        return found
    stored = CalibrationFile.load(path)
    stored.check_belongs_to(found.network, path)
    return replace(found, calibration=stored.calibration)


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


def is_ensemble(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is an ensemble's folder or its YAML."""
    path = Path(name)
    return path.name == ENSEMBLE or (path / ENSEMBLE).is_file()
