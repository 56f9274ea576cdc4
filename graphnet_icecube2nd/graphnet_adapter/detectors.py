"""Detectors of this package as GraphNeT's: what the columns of a pulse table mean.

GraphNeT's own detectors scale charge and efficiency in other ways than the models here
were trained with; these scale as `PulseMap.scale` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from graphnet.models.detector import Detector as GraphnetDetector
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import AUXILIARY, SENSOR_ID
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.graphnet_adapter.tasks import OriginDirection, TaskLabel


def as_detector(value: PulseMap | dict[str, Any] | str) -> Detector:
    """Return the detector named, or the one of which only a pulse map is known.

    ValueError: `value` is no name, `PulseMap` or what its `to_dict` gives.
    """
    if isinstance(value, str):
        return build_detector(value)
    if isinstance(value, dict):
        value = PulseMap.from_dict(value)
    if not isinstance(value, PulseMap):
        raise ValueError(
            "pulse_map must be the name of a detector, a PulseMap, or what its "
            f"to_dict() gives; got {type(value).__name__}"
        )
    return Detector.of_pulses(value)


class PulseMapDetector(GraphnetDetector):
    """A GraphNeT detector made from any detector or pulse map of this package.

    Args:
        pulse_map: Name of a registered detector (see `list_detectors`), whose scales,
            geometry and medium count too; or a `PulseMap`, or what its `to_dict`
            gives, as configuration files hold it.
        replace_with_identity: Extra columns to leave unscaled. Only those: from the
            others further features are made.

    Raises:
        ValueError: As `PulseMap`, or a column that has to be scaled.
    """

    string_id_column = "string"
    sensor_id_column = "sensor_id"

    def __init__(
        self,
        pulse_map: PulseMap | dict[str, Any] | str,
        replace_with_identity: list[str] | None = None,
    ) -> None:
        super().__init__(replace_with_identity=replace_with_identity)
        self.detector = as_detector(pulse_map)  # as the core knows it
        self.pulse_map = pulses = self.detector.pulses  # what the columns mean
        unscaled = replace_with_identity or []
        self._scaling = {
            column: partial(pulses.scale, quantity, scales=self.detector.scales)
            for column, quantity in pulses.columns().items()
            if column not in unscaled
        }
        self._plans: dict[Any, Any] = {}  # of `scaled`
        self.xyz = [pulses.x, pulses.y, pulses.z]
        if needed := [column for column in unscaled if column not in pulses.extra]:
            raise ValueError(
                f"replace_with_identity: {', '.join(needed)} must be scaled, for "
                "further features are made of it; only extra columns need not "
                f"({', '.join(pulses.extra) or 'there are none'})"
            )

    def feature_map(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the scaling of each column, by its name in the file.

        A column that no feature needs is left as it is.
        """
        return defaultdict(lambda: self._identity, self._scaling)

    def scaled(self, value_TC: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
        """Return what calling the detector returns, (T, C), in a third of the time."""
        key = (tuple(names), value_TC.dtype)
        if key not in self._plans:
            self._plans[key] = self._plan(names, value_TC.dtype)
        zero_C, unit_C, others = self._plans[key]
        scaled_TC: NDArray[Any] = (value_TC - zero_C) / unit_C
        for index, scaling in others:
            column_T = torch.from_numpy(value_TC[:, index])
            scaled_TC[:, index] = scaling(column_T).numpy()
        return scaled_TC

    def _plan(
        self, names: Sequence[str], dtype: Any
    ) -> tuple[NDArray[Any], NDArray[Any], list[tuple[int, Any]]]:
        """Return zeros and units of columns (C,), and the columns without."""
        zero_and_unit, others = [(0.0, 1.0)] * len(names), []
        known, feature_map = self.pulse_map.columns(), self.feature_map()
        for index, name in enumerate(names):
            linear = None
            if name in known and feature_map[name] is self._scaling.get(name):
                linear = self.pulse_map.zero_and_unit(known[name], self.detector.scales)
            if known.get(name) in (AUXILIARY, SENSOR_ID):
                linear = (0.0, 1.0)  # they stay as they are
            if linear is None:
                others.append((index, feature_map[name]))
            else:
                zero_and_unit[index] = linear
        zero_C, unit_C = np.array(zero_and_unit, dtype).reshape(-1, 2).T
        return zero_C, unit_C, others

    def direction_label(self, key: str = "direction") -> OriginDirection:
        """Return the label that reads this pulse map's angles as they are meant."""
        return OriginDirection(key=key, **self._angle_columns())

    def task_labels(self, *labels: str) -> dict[str, TaskLabel]:
        """Return labels by name, as the argument `labels` of GraphNeT's datasets.

        Args:
            *labels: Labels of `tasks.label` (`direction`, `energy`, `track`), or
                columns of the truth. The dataset must read what they are made of.
        """
        return {name: TaskLabel(name, **self._angle_columns()) for name in labels}

    def _angle_columns(self) -> dict[str, str]:
        labels = self.pulse_map.labels
        return {
            "azimuth_key": labels.azimuth,
            "zenith_key": labels.zenith,
            "angles": labels.angles,
        }

    @property
    def geometry_table(self) -> Any:
        """Nothing: GraphNeT's inactive sensors and masks are not supported.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{type(self).__name__} has no geometry table of GraphNeT's form, which "
            "add_inactive_sensors, sensor_mask and string_mask need"
        )


class _NamedPulseMapDetector(PulseMapDetector):
    """A pulse map known by name, with its switches as arguments.

    Args:
        qe: `rde` or `published`: which DOMs count as of high quantum efficiency.
        ice: `correct`, `mirrored` (for published weights) or `none`.
        angles: `origin` or `flight`: what the angles of the truth mean.
        changes: Other fields of the `PulseMap`, e.g. `{"hlc": None}` for a file
            without that column.
        replace_with_identity: Extra columns to leave unscaled.
    """

    _name: str
    _absent: tuple[str, ...] = ()  # columns that GraphNeT's files do not have

    def __init__(
        self,
        qe: str = "rde",
        ice: str = "correct",
        angles: str = "origin",
        changes: dict[str, Any] | None = None,
        replace_with_identity: list[str] | None = None,
    ) -> None:
        switches = {"qe": qe, "ice": ice, "angles": angles}
        absent = dict.fromkeys(self._absent)
        named = PulseMap.by_name(self._name).to_dict()
        pulse_map = {**named, **absent, **switches, **(changes or {})}
        super().__init__(pulse_map, replace_with_identity)


class KagglePulseMapDetector(_NamedPulseMapDetector):
    """The competition's pulses: x, y, z, time, charge, auxiliary."""

    _name = "kaggle"
    _absent = ("sensor_id",)


class IceCube86PulseMapDetector(_NamedPulseMapDetector):
    """GraphNeT's IceCube columns: dom_x, dom_y, dom_z, dom_time, charge, hlc, rde."""

    _name = "icecube86"


class UpgradePulseMapDetector(_NamedPulseMapDetector):
    """IceCube-Upgrade: as IceCube-86, and pmt_dir_x, pmt_dir_y, pmt_dir_z.

    The models need `extra_features=("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")`.
    """

    _name = "upgrade"


class PrometheusPulseMapDetector(PulseMapDetector):
    """Prometheus photons: sensor_pos_x, sensor_pos_y, sensor_pos_z, t; no charge.

    Args:
        angles: `flight` or `origin`: what the file's injection angles mean. Files
            differ; `detector.angles.infer_angle_convention` tells.
        ice: `none`, unless the detector hangs in IceCube's ice.
        origin: The detector's centre in the file's coordinates, m. Prometheus tables
            lie deep below their origin: for its IceCube (0, 0, -1948.07).
        replace_with_identity: Extra columns to leave unscaled.
    """

    string_id_column = "sensor_string_id"

    def __init__(
        self,
        angles: str,
        ice: str = "none",
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
        replace_with_identity: list[str] | None = None,
    ) -> None:
        pulse_map = PulseMap.prometheus(angles=angles, ice=ice, origin=origin)
        super().__init__(pulse_map, replace_with_identity)
