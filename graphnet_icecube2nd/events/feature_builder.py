"""Features of stored pulses: the same numbers as `pulse_features`, made faster.

A store's pulses were checked when it was written, so they are not checked again; and
what a feature owes to the DOM alone is looked up in a table made once. Shape letters:
T pulses, B events, S DOMs, F features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    ABSORPTION,
    AUXILIARY,
    HLC,
    QE,
    RDE,
    SCATTERING,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.pulse_map import NO_ICE
from graphnet_icecube2nd.events.features import assemble_features


class FeatureBuilder:
    """Builds feature matrices of pulses whose values are known to be good.

    Args:
        detector: What the quantities mean and how they are scaled.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.pulse_map = detector.pulses
        self._table_SF = _dom_features(detector)

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the feature matrix (T, F) float32.

        Args:
            columns: (T,) tensors by quantity, physical units; times relative to the
                event's first pulse where the pulse map says so.
        """
        scaled = {
            quantity: self._scale(quantity, value)
            for quantity, value in columns.items()
            if quantity != SENSOR_ID
        }
        if HLC in scaled:
            scaled[AUXILIARY] = scaled.pop(HLC)
        if X in columns:
            return self._from_places(scaled, columns)
        # A row of the table is a DOM's features; those of the pulse are filled in.
        dom_T = columns[SENSOR_ID].to(torch.int32)
        features_TF = torch.nn.functional.embedding(dom_T, self._table_SF)
        names = self.pulse_map.feature_names
        for quantity, value_T in scaled.items():
            name = QE if quantity == RDE else quantity
            if name == QE and self.pulse_map.qe != "rde":
                continue
            features_TF[:, names.index(name)] = value_T
        return features_TF

    def _scale(self, quantity: str, value_T: Tensor) -> Tensor:
        if quantity == TIME and self.pulse_map.time_reference == "first_pulse":
            return value_T / self.detector.scales.time
        if not value_T.is_floating_point():
            value_T = value_T.to(torch.float32)
        return self.pulse_map.scale(quantity, value_T, self.detector.scales)

    def _from_places(
        self, scaled: dict[str, Tensor], columns: Mapping[str, Tensor]
    ) -> Tensor:
        if SENSOR_ID in columns:
            scaled[SENSOR_ID] = columns[SENSOR_ID]
        return assemble_features(scaled, self.detector)


def _dom_features(detector: Detector) -> Tensor:
    """Return what a feature matrix holds of each DOM, (S, F) float32, 0 elsewhere."""
    pulse_map, geometry = detector.pulses, detector.places
    scale = detector.scales.position
    names = pulse_map.feature_names
    table_SF = torch.zeros(len(geometry), len(names))
    for axis, name in enumerate((X, Y, Z)):
        column_S = geometry.position_S3[:, axis] / scale
        table_SF[:, names.index(name)] = column_S.float()
    table_SF[:, names.index(QE)] = geometry.high_qe_flag(pulse_map.qe)
    if pulse_map.ice != NO_ICE:
        # As pulse by pulse: from the scaled z, so that the last bit is the same.
        z_S = geometry.position_S3[:, 2] / scale * scale
        lengths_S2 = detector.medium_optics.scaled_at(z_S, pulse_map.ice)
        table_SF[:, names.index(SCATTERING)] = lengths_S2[:, 0]
        table_SF[:, names.index(ABSORPTION)] = lengths_S2[:, 1]
    return table_SF
