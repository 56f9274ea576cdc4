"""A calibration of kappa beside the weights it belongs to.

    RUN/calibration.json                      of a run, or of an ensemble's folder
    weights.calibration.json                  of a single file weights.safetensors

It is of those very weights: their checksum stands in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.store.manifest import write_json
from graphnet_icecube2nd.tasks.direction.calibration import KappaCalibration

FILE, SUFFIX = "calibration.json", ".calibration.json"
# Options of the network that change what kappa is worth.
SEEN = ("max_pulses", "selection", "precision", "published_features")


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """What a calibration file says.

    Args:
        calibration: The calibration.
        weights: Checksum of the weights it belongs to; empty for a table of
            directions whose model is not ours.
        fitted_on: What events, how many, how they were seen; plain values.
    """

    calibration: KappaCalibration
    weights: str = ""
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """What it was fitted on, in words."""
        store = self.fitted_on.get("store", "a table")
        return f"{self.calibration.num_events:,} events of {store}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        values = asdict(self) | {"calibration": self.calibration.to_dict()}
        write_json(Path(path), values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationFile:
        """Read what `save` wrote.

        Raises:
            OSError: There is no such file.
            ValueError: It is something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                calibration=KappaCalibration.from_dict(values["calibration"]),
                weights=str(values["weights"]),
                fitted_on=dict(values["fitted_on"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration: {error!r}") from None

    def check_belongs_to(self, model: nn.Module, path: Path) -> None:
        """See that it was fitted on these weights.

        Raises:
            ValueError: On others.
        """
        if not self.weights:
            raise ValueError(
                f"{path} was fitted on a table of directions, not on these weights: "
                "apply it to tables of that kind (icecube2nd calibrate --apply)"
            )
        if self.weights != weights_digest(model):
            raise ValueError(
                f"{path} was fitted on other weights: calibrate again "
                "(icecube2nd calibrate), or do without (--calibration none)"
            )

    def seen(self) -> dict[str, Any]:
        """Return how events were seen, as options of the network."""
        return {k: v for k, v in self.fitted_on.items() if k in SEEN}


def place_beside(weights: str | os.PathLike[str]) -> Path:
    """Return where the calibration of weights lies: a folder's, or a file's."""
    path = Path(weights)
    if path.is_dir():
        return path / FILE
    return path.with_name(path.name.removesuffix(".safetensors") + SUFFIX)
