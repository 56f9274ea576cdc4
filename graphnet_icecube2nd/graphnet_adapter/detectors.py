"""Detectors of this package as GraphNeT detectors: the columns of a pulse table.

They scale columns as `PulseMap.scale` does, which the models of this package need.
GraphNeT's own detectors scale charge and efficiency differently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from graphnet.models.detector import Detector as GraphnetDetector
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import AUXILIARY, SENSOR_ID, TIME
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.events import relative_times
from graphnet_icecube2nd.graphnet_adapter.tasks import OriginDirection, TaskLabel


def as_detector(value: PulseMap | dict[str, Any] | str) -> Detector:
    """Return the detector of a name, of a `PulseMap` or of plain values of either.

    Raises:
        ValueError: `value` is none of these.
    """
    if isinstance(value, str):
        return build_detector(value)
    if isinstance(value, dict) and "pulses" in value:
        pulses = PulseMap.from_dict(value["pulses"])
        detector = Detector.from_dict(value, pulses)
        if detector.name not in list_detectors():
            return detector
        known = build_detector(detector.name)
        if known.telescope != detector.telescope:  # other modules
            return detector
        return replace(detector, geometry=known.geometry, optics=known.optics)
    if isinstance(value, dict):
        value = PulseMap.from_dict(value)
    if not isinstance(value, PulseMap):
        raise ValueError(
            "pulse_map must be the name of a detector, a PulseMap, the result of its "
            "to_dict(), or that of a detector's with its pulses; got "
            f"{type(value).__name__}"
        )
    return Detector.from_pulse_map(value)


class PulseMapDetector(GraphnetDetector):
    """A GraphNeT detector made from any detector or pulse map of this package.

    Args:
        pulse_map: Name of a registered detector (see `list_detectors`), with its
            scales, geometry and medium; or a `PulseMap`, or the result of its
            `to_dict`, as in configuration files; or that of a `Detector`, with the
            former as `pulses`.
        replace_with_identity: Extra columns to leave unscaled. The other columns must
            be scaled, because features are made from them.

    Raises:
        ValueError: The pulse map is not valid (see `PulseMap`), or a column of
            `replace_with_identity` must be scaled.
    """

    string_id_column = "string"
    sensor_id_column = "sensor_id"

    def __init__(
        self,
        pulse_map: PulseMap | dict[str, Any] | str,
        replace_with_identity: list[str] | None = None,
    ) -> None:
        super().__init__(replace_with_identity=replace_with_identity)
        self.detector = as_detector(pulse_map)
        self.pulse_map = pulses = self.detector.pulses
        unscaled = replace_with_identity or []
        self._scaling = {
            column: partial(pulses.scale, quantity, scales=self.detector.scales)
            for column, quantity in pulses.columns().items()
            if column not in unscaled
        }
        self._plans: dict[Any, Any] = {}  # see `scaled`
        self.xyz = [pulses.x, pulses.y, pulses.z]
        if needed := [column for column in unscaled if column not in pulses.extra]:
            raise ValueError(
                f"replace_with_identity: {', '.join(needed)} must be scaled, because "
                "features are made from it. Name only extra columns "
                f"({', '.join(pulses.extra) or 'there are none'})"
            )

    def feature_map(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the scaling of each column by its name; unused columns keep values."""
        return defaultdict(lambda: self._identity, self._scaling)

    def forward(self, input_features: Tensor, input_feature_names: list[str]) -> Tensor:
        """Return the scaled columns of one event, (T, C).

        GraphNeT scales each column alone, but the clock `first_triggered` needs the
        column of the flag, too.
        """
        if self.pulse_map.time_reference == "first_triggered":
            known = self.pulse_map.columns()
            quantities = [known.get(name, "") for name in input_feature_names]
            columns = dict(zip(quantities, input_features.unbind(1), strict=True))
            offsets = torch.tensor([0, len(input_features)])
            time_T, _ = relative_times(columns, offsets, self.pulse_map.time_reference)
            input_features = input_features.clone()
            input_features[:, quantities.index(TIME)] = time_T
        scaled_TC: Tensor = super().forward(input_features, input_feature_names)
        return scaled_TC

    def scaled(self, value_TC: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
        """Return the scaled columns, (T, C), as a call of the detector, but faster."""
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
        """Return zeros and units of columns (C,), and the scalings of the others."""
        zero_and_unit, others = [(0.0, 1.0)] * len(names), []
        known, feature_map = self.pulse_map.columns(), self.feature_map()
        for index, name in enumerate(names):
            linear = None
            if name in known and feature_map[name] is self._scaling.get(name):
                linear = self.pulse_map.zero_and_unit(known[name], self.detector.scales)
            if known.get(name) in (AUXILIARY, SENSOR_ID):
                linear = (0.0, 1.0)
            if linear is None:
                others.append((index, feature_map[name]))
            else:
                zero_and_unit[index] = linear
        zero_C, unit_C = np.array(zero_and_unit, dtype).reshape(-1, 2).T
        return zero_C, unit_C, others

    def direction_label(self, key: str = "direction") -> OriginDirection:
        """Return the direction label with this pulse map's columns and convention."""
        return OriginDirection(key=key, **self._angle_columns())

    def task_labels(self, *labels: str) -> dict[str, TaskLabel]:
        """Return labels by name, for the argument `labels` of GraphNeT's datasets.

        Args:
            *labels: Labels of `tasks.label` (`direction`, `energy`, `track`), or
                columns of the truth. The dataset must read the columns that they need.
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
        """GraphNeT's table of sensors, which these detectors do not have.

        Raises:
            ValueError: Always: inactive sensors and masks are not supported.
        """
        raise ValueError(
            f"{type(self).__name__} has no geometry table in GraphNeT's format, so "
            "add_inactive_sensors, sensor_mask and string_mask cannot be used"
        )


class _NamedPulseMapDetector(PulseMapDetector):
    """A named pulse map, with its switches as arguments.

    Args:
        qe: Rule for DOMs of high quantum efficiency: `rde` or `published`.
        ice: Ice properties: `correct`, `mirrored` (for published weights) or `none`.
        angles: Convention of the truth's angles: `origin` or `flight`.
        changes: Other fields of the `PulseMap`, e.g. `{"hlc": None}` for a file
            without that column.
        replace_with_identity: Extra columns to leave unscaled.
    """

    _name: str
    _absent: tuple[str, ...] = ()  # columns that GraphNeT's files lack

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
    """Pulses of the competition: x, y, z, time, charge, auxiliary."""

    _name = "kaggle"
    _absent = ("sensor_id",)


class IceCube86PulseMapDetector(_NamedPulseMapDetector):
    """GraphNeT's IceCube columns: dom_x, dom_y, dom_z, dom_time, charge, hlc, rde."""

    _name = "icecube86"


class UpgradePulseMapDetector(_NamedPulseMapDetector):
    """Pulses of IceCube-Upgrade: columns of IceCube-86 and pmt_dir_x, _y, _z.

    Models need `extra_features=("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")`.
    """

    _name = "upgrade"


class PrometheusPulseMapDetector(PulseMapDetector):
    """Photons of Prometheus: sensor_pos_x, sensor_pos_y, sensor_pos_z, t; no charge.

    Args:
        angles: Convention of the injection angles: `flight` or `origin`. Files differ;
            `detector.angles.infer_angle_convention` finds it from the hits.
        ice: Ice properties: `none`, except for detectors in IceCube's ice.
        origin: Centre of the detector in the file's coordinates, m, such as
            (0, 0, -1948.07) for Prometheus's IceCube.
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
