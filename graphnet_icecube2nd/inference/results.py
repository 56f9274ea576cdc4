"""From outputs of a model to rows of results: calibrations where they hold.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.inference.domain import Domain, identity
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import ModelBundle
from graphnet_icecube2nd.inference.predictor import Outputs, table_of_outputs
from graphnet_icecube2nd.models.weights import weights_digest
from graphnet_icecube2nd.results.event_table import CALIBRATED, VALID
from graphnet_icecube2nd.results.result_files import OK, Columns
from graphnet_icecube2nd.tasks.direction.direction import CONTOURS
from graphnet_icecube2nd.tasks.task import Calibration, Task
from graphnet_icecube2nd.version import __version__


@dataclass(kw_only=True)
class ResultMaker:
    """Makes rows of results of a model on data of one detector."""

    bundle: ModelBundle
    options: InferenceConfig  # how events are read
    domain: Domain  # the model's training beside the data
    calibrations: Mapping[str, Calibration]  # those of the bundle that hold here
    contours: Sequence[float]  # shares of the contours whose radii are columns
    reasons: list[str]  # why stored calibrations are not applied; empty: they are

    @classmethod
    def of(
        cls,
        bundle: ModelBundle,
        detector: Detector,
        options: InferenceConfig,
        contours: Sequence[float] = CONTOURS,
        *,
        unknown_detector: bool = False,
        columns: Collection[str] = (),
    ) -> ResultMaker:
        """Compare model and data, and choose the calibrations that hold.

        A calibration holds for the detector and the reading that it was fitted on; one
        without a file holds for the detector of the training.

        Raises:
            DomainError: Another detector or clock, and `unknown_detector` is not set;
                another `max_pulses` or selection than the stored calibration's.
        """
        config = bundle.model.input_config
        domain = Domain.compare(
            config,
            detector,
            options,
            unknown_detector=unknown_detector,
            columns=columns,
        )
        reasons = bundle.read_otherwise(options)
        if bundle.source is not None:
            trained = {} if config is None else identity(config)
            fitted = {**trained, **bundle.source.fitted_on}
            reasons += [
                f"the calibration was fitted on data of {name} {fitted[name]!r}, the "
                f"data have {value!r}"
                for name, value in identity(detector).items()
                if name in fitted and fitted[name] != value
            ]
        elif bundle.calibrations:
            reasons += domain.faults
        return cls(
            bundle=bundle,
            options=options,
            domain=domain,
            calibrations={} if reasons else bundle.calibrations,
            contours=contours,
            reasons=reasons,
        )

    def rows(
        self,
        outputs: Outputs,
        event_id: NDArray[np.int64],
        length_B: NDArray[np.integer[Any]],
        inside_B: NDArray[np.bool_],
    ) -> Columns:
        """Return the columns of results, (B,) by name; see `Predictor.outputs`."""
        table = table_of_outputs(
            "",
            self.bundle.model.task_map,
            outputs,
            event_id,
            length_B,
            self.calibrations,
            self.contours,
        )
        is_calibrated = bool(self.calibrations) and not self._not_calibrated
        calibrated_B = inside_B & (table.status_B == OK) & is_calibrated
        return table.with_columns({CALIBRATED: calibrated_B}).to_columns()

    @property
    def _not_calibrated(self) -> list[str]:
        """Tasks that could be calibrated and are not."""
        return [
            name
            for name, task in self.bundle.model.task_map.items()
            if type(task).calibrate is not Task.calibrate
            and name not in self.calibrations
        ]

    @property
    def notices(self) -> list[str]:
        """What is worth a warning, in words."""
        texts = [*self.domain.notices, *self.domain.warnings()]
        if self.calibrations and self._not_calibrated:
            texts.append(
                f"the calibration says nothing of {', '.join(self._not_calibrated)}, "
                "so no row is called calibrated"
            )
        if self.reasons:
            texts.append(
                f"{'; '.join(self.reasons)}: the calibration is not applied. Calibrate "
                "for these data (icecube2nd calibrate)"
            )
        return texts

    def metadata(self) -> dict[str, Any]:
        """Return what a file of results should say of itself, plain values."""
        config = self.bundle.model.input_config
        return {
            "model": self.bundle.name,
            "weights": weights_digest(self.bundle.model),
            "tasks": list(self.bundle.model.task_map),
            "calibrated_tasks": sorted(self.calibrations),
            "input": None if config is None else config.to_dict(),
            "notices": self.notices,
            "software": __version__,
        }


def without_full_columns(
    columns: Columns, failed: Collection[str] | None = None
) -> Columns:
    """Return columns without `TASK_is_valid` of tasks that never failed.

    Args:
        columns: (B,) by name.
        failed: Tasks that failed for some event; default: as the columns say.
    """
    failed = failed_tasks(columns) if failed is None else failed
    return {
        name: values
        for name, values in columns.items()
        if not name.endswith(VALID) or name.removesuffix(VALID) in failed
    }


def failed_tasks(columns: Columns) -> set[str]:
    """Return the tasks without an answer for some event that has others."""
    ok_B = columns["status"] == OK
    return {
        name.removesuffix(VALID)
        for name, values in columns.items()
        if name.endswith(VALID) and not values[ok_B].all()
    }
