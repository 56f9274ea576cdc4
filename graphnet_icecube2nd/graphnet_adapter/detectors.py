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


class PulseMapDetector(Detector):
    """A GraphNeT detector made from any `PulseMap`.

    Args:
        pulse_map: The pulse map as `PulseMap.to_dict` gives it, so that it fits into
            a configuration file.
        replace_with_identity: Columns to leave unscaled, as in GraphNeT.

    Raises:
        ValueError: As `PulseMap`.
    """

    string_id_column = "string"
    sensor_id_column = "sensor_id"

    def __init__(
        self,
        pulse_map: dict[str, Any],
        replace_with_identity: list[str] | None = None,
    ) -> None:
        super().__init__(replace_with_identity=replace_with_identity)
        self._set_pulse_map(PulseMap.from_dict(pulse_map))

    @property
    def pulse_map(self) -> PulseMap:
        """What the columns mean."""
        return self._pulse_map

    def feature_map(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the scaling of each column, by its name in the file."""
        return {
            column: partial(self._pulse_map.scale, quantity)
            for column, quantity in self._pulse_map.columns().items()
        }

    def _set_pulse_map(self, pulse_map: PulseMap) -> None:
        self._pulse_map = pulse_map
        self.xyz = [pulse_map.x, pulse_map.y, pulse_map.z]


class _NamedPulseMapDetector(PulseMapDetector):
    """A pulse map known by name, with its switches as arguments.

    Args:
        qe: `rde` or `published`: which DOMs count as of high quantum efficiency.
        ice: `correct`, `mirrored` (for published weights) or `none`.
        replace_with_identity: Columns to leave unscaled, as in GraphNeT.
    """

    _name: str
    _changes: dict[str, Any]

    def __init__(
        self,
        qe: str = "rde",
        ice: str = "correct",
        replace_with_identity: list[str] | None = None,
    ) -> None:
        Detector.__init__(self, replace_with_identity=replace_with_identity)
        self._set_pulse_map(
            PulseMap.by_name(self._name, qe=qe, ice=ice, **self._changes)
        )


class KagglePulseMapDetector(_NamedPulseMapDetector):
    """The competition's pulses: x, y, z, time, charge, auxiliary."""

    _name = "kaggle"
    _changes: dict[str, Any] = {"sensor_id": None}  # noqa: RUF012


class IceCube86PulseMapDetector(_NamedPulseMapDetector):
    """GraphNeT's IceCube columns: dom_x, dom_y, dom_z, dom_time, charge, hlc, rde."""

    _name = "icecube86"
    _changes: dict[str, Any] = {}  # noqa: RUF012


class UpgradePulseMapDetector(_NamedPulseMapDetector):
    """IceCube-Upgrade: as IceCube-86, and pmt_dir_x, pmt_dir_y, pmt_dir_z.

    The models need `extra_features=("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")`.
    """

    _name = "upgrade"
    _changes: dict[str, Any] = {}  # noqa: RUF012


class PrometheusPulseMapDetector(PulseMapDetector):
    """Prometheus photons: sensor_pos_x, sensor_pos_y, sensor_pos_z, t; no charge.

    Args:
        angles: `flight` or `origin`: what the file's injection angles mean.
        ice: `none`, unless the detector hangs in IceCube's ice and coordinates.
        replace_with_identity: Columns to leave unscaled, as in GraphNeT.
    """

    string_id_column = "sensor_string_id"

    def __init__(
        self,
        angles: str = "flight",
        ice: str = "none",
        replace_with_identity: list[str] | None = None,
    ) -> None:
        Detector.__init__(self, replace_with_identity=replace_with_identity)
        self._set_pulse_map(PulseMap.prometheus(angles=angles, ice=ice))
