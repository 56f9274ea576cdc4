"""Pulse-map detectors: what the columns of a pulse table mean, for GraphNeT.

GraphNeT's own detectors scale charge and efficiency in other ways than the models here
were trained with; these scale as `PulseMap` says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from graphnet.models.detector import Detector
from torch import Tensor

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.graphnet_adapter.labels import OriginDirection


class _ColumnMap(dict[str, Callable[[Tensor], Tensor]]):
    """Scaling by column; a column that no feature needs is left as it is."""

    def __missing__(self, column: str) -> Callable[[Tensor], Tensor]:
        return _unscaled


def _unscaled(value_T: Tensor) -> Tensor:
    return value_T


def as_pulse_map(value: PulseMap | dict[str, Any] | str) -> PulseMap:
    """Return a pulse map given as such, as a dict from a file, or by name.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, PulseMap):
        return value
    if isinstance(value, str):
        return PulseMap.by_name(value)
    if isinstance(value, dict):
        return PulseMap.from_dict(value)
    raise ValueError(
        "pulse_map must be a PulseMap, what its to_dict() gives, or a name; got "
        f"{type(value).__name__}"
    )


class PulseMapDetector(Detector):
    """A GraphNeT detector made from any `PulseMap`.

    Args:
        pulse_map: The pulse map, or what its `to_dict` gives; configuration files
            hold the latter.
        replace_with_identity: Extra columns to leave unscaled. Only those: from the
            others further features are made.

    Raises:
        ValueError: As `PulseMap`, or a column that has to be scaled.
    """

    string_id_column = "string"
    sensor_id_column = "sensor_id"

    def __init__(
        self,
        pulse_map: PulseMap | dict[str, Any],
        replace_with_identity: list[str] | None = None,
    ) -> None:
        super().__init__(replace_with_identity=replace_with_identity)
        self._set_pulse_map(as_pulse_map(pulse_map))

    @property
    def pulse_map(self) -> PulseMap:
        """What the columns mean."""
        return self._pulse_map

    def feature_map(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the scaling of each column, by its name in the file."""
        return _ColumnMap(
            {
                column: partial(self._pulse_map.scale, quantity)
                for column, quantity in self._pulse_map.columns().items()
            }
        )

    def direction_label(self, key: str = "direction") -> OriginDirection:
        """Return the label that reads this pulse map's angles as they are meant."""
        return OriginDirection(
            key=key,
            azimuth_key=self._pulse_map.labels.azimuth,
            zenith_key=self._pulse_map.labels.zenith,
            angles=self._pulse_map.labels.angles,
        )

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

    def _set_pulse_map(self, pulse_map: PulseMap) -> None:
        self._pulse_map = pulse_map
        self.xyz = [pulse_map.x, pulse_map.y, pulse_map.z]
        unscaled = self._replace_with_identity or []
        if needed := [column for column in unscaled if column not in pulse_map.extra]:
            raise ValueError(
                f"replace_with_identity: {', '.join(needed)} must be scaled, for "
                "further features are made of it; only extra columns need not "
                f"({', '.join(pulse_map.extra) or 'there are none'})"
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
        Detector.__init__(self, replace_with_identity=replace_with_identity)
        switches = {"qe": qe, "ice": ice, "angles": angles}
        absent = dict.fromkeys(self._absent)
        named = PulseMap.by_name(self._name).to_dict()
        self._set_pulse_map(
            PulseMap.from_dict({**named, **absent, **switches, **(changes or {})})
        )


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
        angles: `flight` or `origin`: what the file's injection angles mean. To be
            said, for files differ; `detector.angles.infer_angle_convention` tells.
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
        Detector.__init__(self, replace_with_identity=replace_with_identity)
        self._set_pulse_map(PulseMap.prometheus(angles=angles, ice=ice, origin=origin))
