"""A trained model with what belongs to it: how it reads events, its calibrations.

    RUN/calibration.json                      of a run, or of an ensemble's folder
    weights.calibration.json                  of a single file weights.safetensors

A calibration file holds a checksum of the weights that it belongs to.
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
RECIPE = "recipe.yaml"  # of a run of release 0.1.0: how its model read events
# Options of the inference that change what a width is worth; where one of the first two
# differs from the calibration's, the user has to say `calibration="none"`.
SEEN = ("max_pulses", "selection", "precision", "published_features")
CHOSEN = SEEN[:2]


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """What a calibration file says."""

    calibrations: Mapping[str, Calibration]  # by task
    weights: str = ""  # checksum of the weights; empty for a table of another's model
    fitted_on: Mapping[str, Any] = field(default_factory=dict)  # events, how read

    @property
    def calibration(self) -> KappaCalibration | None:
        """The direction's calibration; None: there is none."""
        return _of_direction(self.calibrations)

    @property
    def what(self) -> str:
        """What it was fitted on, in words."""
        store = self.fitted_on.get("store", "a table")
        events = max((c.num_events for c in self.calibrations.values()), default=0)
        return f"{events:,} events of {store}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        values = {
            "calibrations": {n: c.to_dict() for n, c in self.calibrations.items()},
            "weights": self.weights,
            "fitted_on": dict(self.fitted_on),
        }
        write_json(Path(path), values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationFile:
        """Read what `save` wrote in this or an earlier release, else ValueError."""
        values = read_json(path)
        with naming(path, "no calibration"):
            given = values.get("calibrations")
            if given is None:  # release 0.1.0 knew the direction only
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
                f"{path} was fitted on a table of results, not on these weights: apply "
                "it to tables of that kind (icecube2nd calibrate --apply)"
            )
        if self.weights != weights_digest(model):
            raise ValueError(
                f"{path} was fitted on other weights: calibrate again "
                "(icecube2nd calibrate), or do without (--calibration none)"
            )

    def seen(self) -> dict[str, Any]:
        """Return how events were read, as options of the inference."""
        return {k: v for k, v in self.fitted_on.items() if k in SEEN}


def place_beside(weights: str | os.PathLike[str]) -> Path:
    """Return where the calibration of weights lies: a folder's, or a file's."""
    path = Path(weights)
    if path.is_dir():
        return path / FILE
    return path.with_name(path.name.removesuffix(".safetensors") + SUFFIX)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBundle:
    """A model, or an ensemble, ready to reconstruct.

    Args:
        name: Name of the model.
        model: The model.
        options: How it reads events: as it was trained, or as its calibration was
            fitted.
        calibrations: Calibrations by task; empty if none was stored with it.
        source: The calibrations' file; None: they were given, or there are none.
        place: File or folder of the weights; None: a model in memory.
    """

    name: str
    model: Model
    options: InferenceConfig = field(default_factory=InferenceConfig)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    source: CalibrationFile | None = None
    place: Path | None = None

    @property
    def calibration(self) -> KappaCalibration | None:
        """The direction's calibration; None: there is none."""
        return _of_direction(self.calibrations)

    def calibrated(self, calibration: GivenCalibration = STORED) -> ModelBundle:
        """Return it with other calibrations.

        Args:
            calibration: `stored`: its own; `none` or None: none; or others, by task,
                or a `KappaCalibration` of the direction.

        Raises:
            ValueError: Another word, of a task that the model does not have, or of
                another kind than the task's.
        """
        if calibration is None or calibration == NONE:
            return replace(self, calibrations={}, source=None)
        if calibration == STORED:
            return self
        if isinstance(calibration, KappaCalibration):
            calibration = {Direction.name: calibration}
        if not isinstance(calibration, Mapping):
            raise ValueError(
                f"calibration must be {STORED}, {NONE}, a KappaCalibration or "
                f"calibrations by task, got {calibration!r}"
            )
        if unknown := [t for t in calibration if t not in self.model.task_map]:
            raise ValueError(
                f"calibration of task {unknown[0]!r}: the model has "
                f"{', '.join(self.model.task_map)}"
            )
        for name, given in calibration.items():
            _check_kind(self.model.task_map[name], given)
        return replace(self, calibrations=dict(calibration), source=None)

    def read_otherwise(self, options: InferenceConfig) -> list[str]:
        """Return what differs from how events were read for the calibration.

        Raises:
            DomainError: The stored calibration was fitted with another `max_pulses` or
                selection; names both, and the ways out.
        """
        if self.source is None:
            return []
        differences = {
            name: f"the calibration was fitted with {name} {fitted}, and is used with "
            f"{getattr(options, name)}"
            for name, fitted in self.source.seen().items()
            if getattr(options, name) != fitted
        }
        if refused := [text for name, text in differences.items() if name in CHOSEN]:
            fit = (
                f"icecube2nd calibrate MODEL --max-pulses {options.max_pulses}; for "
                "weights of the package with --data and --out, then --calibration"
            )
            if "selection" in differences:
                fit = "`calibrate(model, options=InferenceConfig(...))` in Python"
            raise DomainError(
                f"{'; '.join(refused)}. Its widths would not hold. Read events as the "
                "calibration needs it, reconstruct without it (calibration='none', "
                f"--calibration none), or fit one for this ({fit})"
            )
        return list(differences.values())


def load_bundle(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    calibration: str | os.PathLike[str] = STORED,
) -> ModelBundle:
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
    model: Model
    if weights is None and is_ensemble(name):
        described = EnsembleFile.load(name)
        called, model = described.name, described.model(place)
        options = described.options
    else:
        called, model = Path(name).name or str(name), find_model(name, weights)
        options = InferenceConfig.of(model.input_config)
        if model.input_config is None:
            options = _options_of_run(place)
    bundle = ModelBundle(name=called, model=model, options=options, place=place)
    is_stored = str(calibration) == STORED
    path = place_beside(place) if is_stored else Path(calibration)
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
    """Return a model by name, see `load_bundle`, or as it is, as a bundle."""
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


def _of_direction(
    calibrations: Mapping[str, Calibration],
) -> KappaCalibration | None:
    found = calibrations.get(Direction.name)
    return found if isinstance(found, KappaCalibration) else None


def _check_kind(task: Task, calibration: Calibration) -> None:
    """Raise ValueError if a calibration is not of the kind that the task fits."""
    if type(task).predict_calibrated is Task.predict_calibrated:
        raise ValueError(
            f"task {task.name!r} has no calibration, found a "
            f"{type(calibration).__name__}: leave it out"
        )
    try:
        kind = get_type_hints(type(task).calibrate).get("return", Calibration)
        is_right = isinstance(calibration, kind)
    except (NameError, TypeError):  # the annotation of a plugin may say nothing
        return
    if not is_right:
        raise ValueError(
            f"calibration of task {task.name!r} must be a "
            f"{getattr(kind, '__name__', kind)}, found a {type(calibration).__name__}: "
            f"give what `calibrate` fitted for {task.name!r}"
        )


def _options_of_run(place: Path) -> InferenceConfig:
    """Return how a run of 0.1.0 read events, whose model does not say it itself."""
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
