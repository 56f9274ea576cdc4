"""Calibrations of a model's tasks, beside the weights they belong to.

    RUN/calibration.json                      of a run, or of an ensemble's folder
    weights.calibration.json                  of a single file weights.safetensors

Their checksum of the weights says that they are of those very weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Calibration

FILE, SUFFIX = "calibration.json", ".calibration.json"
# Options of the inference that change what a width is worth.
SEEN = ("max_pulses", "selection", "precision", "published_features")


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """What a calibration file says.

    Args:
        calibrations: By task.
        weights: Checksum of the weights they belong to; empty for a table of results
            whose model is not ours.
        fitted_on: Which events, how many, how they were read; plain values.
    """

    calibrations: Mapping[str, Calibration]
    weights: str = ""
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibration(self) -> KappaCalibration | None:
        """The direction's calibration; None: there is none."""
        found = self.calibrations.get(Direction.name)
        return found if isinstance(found, KappaCalibration) else None

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
        """Read what `save` wrote, in this release or an earlier one.

        Raises:
            OSError: There is no such file.
            ValueError: It is something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            given = values.get("calibrations")
            if given is None:  # release 0.1.0 knew the direction only
                given = {Direction.name: values["calibration"]}
            return cls(
                calibrations={
                    name: build_task(name).read_calibration(of_task)
                    for name, of_task in given.items()
                },
                weights=str(values["weights"]),
                fitted_on=dict(values["fitted_on"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration: {error!r}") from None

    def check_belongs_to(self, model: nn.Module, path: Path) -> None:
        """See that it was fitted on these weights.

        Raises:
            ValueError: On others.
        """
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
