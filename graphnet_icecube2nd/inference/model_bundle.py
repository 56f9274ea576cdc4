"""ModelBundle: a trained model with its reading of events and its calibrations.

    RUN/calibration.json           calibration of a run, or of an ensemble's folder
    weights.calibration.json       calibration of a single file weights.safetensors

A calibration file has the checksum of its weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from graphnet_icecube2nd.config import from_plain, read_yaml
from graphnet_icecube2nd.errors import naming
from graphnet_icecube2nd.files import read_json, write_json
from graphnet_icecube2nd.inference.domain import DomainError
from graphnet_icecube2nd.inference.ensemble_file import FILE as ENSEMBLE
from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.pretrained import FOLDER, find_model, list_pretrained
from graphnet_icecube2nd.models.weights import RUN_MODEL, weights_digest
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Calibration, Task

GivenCalibration = KappaCalibration | Mapping[str, Calibration] | str | None
STORED, NONE = "stored", "none"
FILE, SUFFIX = "calibration.json", ".calibration.json"
RECIPE = "recipe.yaml"  # describes the reading of events in runs of release 0.1.0
# Options that change the widths. A difference in one of the first two from those of the
# calibration is an error, unless the user gives `calibration="none"`.
SEEN = ("max_pulses", "selection", "precision", "positions", "published_features")
CHOSEN = SEEN[:2]


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """Content of a calibration file.

    Args:
        calibrations: Calibrations by task.
        weights: Checksum of the weights; empty if it was fitted on a table of results.
        fitted_on: Description of the events of the fit and their reading.
    """

    calibrations: Mapping[str, Calibration]
    weights: str = ""
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibration(self) -> KappaCalibration | None:
        """Calibration of the direction, or None."""
        return _of_direction(self.calibrations)

    @property
    def what(self) -> str:
        """Short text on the events of the fit."""
        store = self.fitted_on.get("store", "a table")
        events = max((c.num_events for c in self.calibrations.values()), default=0)
        return f"{events:,} events of {store}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, completely or not at all."""
        values = {
            "calibrations": {n: c.to_dict() for n, c in self.calibrations.items()},
            "weights": self.weights,
            "fitted_on": dict(self.fitted_on),
        }
        write_json(Path(path), values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationFile:
        """Read a file of `save`, also of an earlier release.

        Raises:
            ValueError: The file is not a calibration.
        """
        values = read_json(path)
        with naming(path, "not a calibration"):
            given = values.get("calibrations")
            if given is None:  # release 0.1.0 had only the direction
                given = {Direction.name: values["calibration"]}
            made = cls(
                calibrations={
                    name: build_task(name).read_calibration(of_task)
                    for name, of_task in given.items()
                },
                weights=str(values["weights"]),
                fitted_on=dict(values["fitted_on"]),
            )
            from_plain(InferenceConfig, made.seen(), "fitted_on.")
            return made

    def check_belongs_to(self, model: Model, path: Path) -> None:
        """Raise ValueError if it was not fitted on these weights."""
        if not self.weights:
            raise ValueError(
                f"{path} was fitted on a table of results, so it does not belong to "
                "these weights. Apply it to tables (icecube2nd calibrate --apply)"
            )
        if self.weights != weights_digest(model):
            raise ValueError(
                f"{path} was fitted on other weights. Calibrate again (icecube2nd "
                "calibrate), or leave it out (--calibration none, calibration='none')"
            )

    def seen(self) -> dict[str, Any]:
        """Return the reading of the events of the fit, by option of the inference."""
        return {k: v for k, v in self.fitted_on.items() if k in SEEN}


def calibration_path(weights: str | os.PathLike[str]) -> Path:
    """Return the path of the calibration file of a run, an ensemble or a file."""
    path = Path(weights)
    if path.is_dir():
        return path / FILE
    return path.with_name(path.name.removesuffix(".safetensors") + SUFFIX)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBundle:
    """A model or an ensemble, with its reading of events and its calibrations.

    Args:
        name: Name of the model.
        model: The model.
        options: Reading of events: that of the training, or that of the calibration.
        calibrations: Calibrations by task; empty if there are none.
        source: File of the calibrations; None if they were given or there are none.
        place: File or folder of the weights; None for a model in memory.
    """

    name: str
    model: Model
    options: InferenceConfig = field(default_factory=InferenceConfig)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    source: CalibrationFile | None = None
    place: Path | None = None

    @property
    def calibration(self) -> KappaCalibration | None:
        """Calibration of the direction, or None."""
        return _of_direction(self.calibrations)

    def calibrated(self, calibration: GivenCalibration = STORED) -> ModelBundle:
        """Return the bundle with other calibrations.

        Args:
            calibration: `stored` for its own, `none` or None for none, calibrations by
                task, or a `KappaCalibration` of the direction.

        Raises:
            ValueError: The text is unknown, the model lacks the task, or the task has
                another type of calibration.
        """
        if calibration is None or calibration == NONE:
            return replace(self, calibrations={}, source=None)
        if calibration == STORED:
            return self
        if isinstance(calibration, KappaCalibration):
            calibration = {Direction.name: calibration}
        if not isinstance(calibration, Mapping):
            raise ValueError(
                f"calibration must be {STORED!r}, {NONE!r}, a KappaCalibration or "
                f"calibrations by task, got {calibration!r}"
            )
        if unknown := [t for t in calibration if t not in self.model.task_map]:
            raise ValueError(
                f"calibration: the model has no task {unknown[0]!r}; it has "
                f"{', '.join(self.model.task_map)}"
            )
        for name, given in calibration.items():
            _check_kind(self.model.task_map[name], given)
        return replace(self, calibrations=dict(calibration), source=None)

    def read_otherwise(self, options: InferenceConfig) -> list[str]:
        """Return the differences in reading from the events of the calibration.

        Raises:
            DomainError: The stored calibration was fitted with another `max_pulses` or
                selection.
        """
        if self.source is None:
            return []
        differences = {
            name: f"the calibration was fitted with {name} {fitted} but is used with "
            f"{getattr(options, name)}"
            for name, fitted in self.source.seen().items()
            if getattr(options, name) != fitted
        }
        if refused := [text for name, text in differences.items() if name in CHOSEN]:
            fit = (
                f"icecube2nd calibrate MODEL --max-pulses {options.max_pulses}; add "
                "--data and --out for weights of the package, then use --calibration"
            )
            if "selection" in differences:
                fit = "`calibrate(model, options=InferenceConfig(...))` in Python"
            raise DomainError(
                f"{'; '.join(refused)}, so its widths would be wrong. Use the value of "
                "the calibration, reconstruct without calibration (--calibration none, "
                f"calibration='none'), or calibrate again ({fit})"
            )
        return list(differences.values())


def load_bundle(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    calibration: str | os.PathLike[str] = STORED,
) -> ModelBundle:
    """Return a trained model or an ensemble by name.

    Args:
        name: Name of weights of the package (`t_sim.simulated`), folder of a run,
            folder or YAML of an ensemble, file of `save_model`, or, with `weights`,
            name of a model.
        weights: File of weights of any origin.
        calibration: `stored` for the calibration beside the weights, if there is one;
            `none`; or a file of `icecube2nd calibrate` for these weights.

    Raises:
        ValueError: The name is unknown, or the calibration belongs to other weights.
        CheckpointError: The weights do not fit the model.
        OSError: A file is missing.
    """
    place = weights_place(name, weights)
    model: Model
    if weights is None and is_ensemble(name):
        described = EnsembleFile.load(name)
        called, model = described.name, described.model(place)
        options = described.options
    else:
        called, model = Path(name).name or str(name), find_model(name, weights)
        if not any(task.columns for task in model.task_map.values()):
            raise ValueError(
                f"{name} was trained without truth and has no answers: fine-tune it "
                "first (icecube2nd finetune, finetune())"
            )
        options = InferenceConfig.of(model.input_config)
        if model.input_config is None:
            options = _options_of_run(place)
    bundle = ModelBundle(name=called, model=model, options=options, place=place)
    is_stored = str(calibration) == STORED
    path = calibration_path(place) if is_stored else Path(calibration)
    if str(calibration) == NONE or (is_stored and not path.is_file()):
        return bundle
    stored = CalibrationFile.load(path)
    stored.check_belongs_to(model, path)
    return replace(
        bundle,
        calibrations=stored.calibrations,
        source=stored,
        options=replace(options, **stored.seen()),
    )


def as_bundle(model: ModelBundle | Model | str | os.PathLike[str]) -> ModelBundle:
    """Return a bundle of a model, of a name (see `load_bundle`) or of a bundle."""
    if isinstance(model, ModelBundle):
        return model
    if isinstance(model, str | os.PathLike):
        return load_bundle(model)
    return ModelBundle(
        name="network", model=model, options=InferenceConfig.of(model.input_config)
    )


def weights_place(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> Path:
    """Return the file or folder of a trained model's weights."""
    if weights is not None:
        return Path(weights)
    if str(name) in list_pretrained():
        return FOLDER / f"{name}.safetensors"
    path = Path(name)
    return path.parent if path.name == ENSEMBLE else path


def is_ensemble(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is the folder or the YAML of an ensemble."""
    path = Path(name)
    return path.name == ENSEMBLE or (path / ENSEMBLE).is_file()


def _of_direction(
    calibrations: Mapping[str, Calibration],
) -> KappaCalibration | None:
    found = calibrations.get(Direction.name)
    return found if isinstance(found, KappaCalibration) else None


def _check_kind(task: Task, calibration: Calibration) -> None:
    """Raise ValueError if a calibration has not the type that the task fits."""
    if type(task).predict_calibrated is Task.predict_calibrated:
        raise ValueError(
            f"task {task.name!r} cannot be calibrated, got a "
            f"{type(calibration).__name__}. Leave it out"
        )
    try:
        kind = get_type_hints(type(task).calibrate).get("return", Calibration)
        is_right = isinstance(calibration, kind)
    except (NameError, TypeError):  # a plugin may lack the annotation
        return
    if not is_right:
        raise ValueError(
            f"calibration of task {task.name!r} must be a "
            f"{getattr(kind, '__name__', kind)}, got a {type(calibration).__name__}. "
            f"Use the result of `calibrate` for {task.name!r}"
        )


def _options_of_run(place: Path) -> InferenceConfig:
    """Return the reading of events of a run of release 0.1.0, from its recipe."""
    recipe = (place if place.is_dir() else place.parent) / RECIPE
    if not recipe.is_file() or (place.is_file() and place.name != RUN_MODEL):
        return InferenceConfig()
    with naming(recipe):
        values = read_yaml(recipe)
        data = values["data"]
        options = {
            "max_pulses": data["validation_max_pulses"]
            or values["stages"][-1]["max_pulses"],
            "selection": data["selection"],
            "published_features": data["features"] == "published",
        }
        return from_plain(InferenceConfig, options)
