"""From a pulse table to what the backbones read, in GraphNeT's terms.

`PackedPulses` is a data representation of its own, without edges; `DeepIcePulses` is
the same step as a node definition, for graphs of GraphNeT's making. Shape letters:
T pulses of the event, C columns of the file, F features, K kept pulses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from graphnet.models.data_representation import DataRepresentation
from graphnet.models.data_representation.graphs.nodes import NodeDefinition
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphnet_icecube2nd.conventions import AUXILIARY, HLC, RDE, SENSOR_ID
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.graphnet_adapter.detectors import (
    PulseMapDetector,
    as_detector,
)
from graphnet_icecube2nd.graphnet_adapter.pulse_reader import PulseReader


class PackedPulses(DataRepresentation):
    """An event as its selected pulses and their features; no edges.

    The raw values are checked before anything is made of them. `Data.n_pulses` is the
    number of pulses before selection, which the length feature needs. Use
    `collate_events` in data loaders: GraphNeT's own collate function drops events of
    one pulse without a message. Which pulses of a long event are kept does not depend
    on the order of rows. An event without pulses becomes an empty one, of which
    `predict_events` makes a row; models cannot be trained on it.

    Args:
        detector: A pulse-map detector of this package.
        max_pulses: Longer events are cut to this many pulses.
        selection: `uniform`, `hlc_first` or `first`; see `select_pulses`.
        seed: Seed of the selection: with a seed an event always keeps the same pulses,
            whichever worker reads it; without, every reading keeps others.
        input_feature_names: Columns in the order they come; default the detector's.
        perturbation_dict: Standard deviations by column, as in GraphNeT; not for
            flags and ids.
        geometry: csv file of DOMs in place of the detector's; see `DetectorGeometry`.
        ice_table: Text file of ice properties in place of the detector's.
        dtype: Of the features.

    Columns may come in any order, with more than are needed, and without rde.

    Raises:
        ValueError: Unknown selection, or columns that do not make up the features.
        TypeError: Not a pulse-map detector.
    """

    def __init__(
        self,
        detector: PulseMapDetector,
        max_pulses: int = 192,
        selection: str = "uniform",
        seed: int | None = None,
        input_feature_names: list[str] | None = None,
        perturbation_dict: dict[str, float] | None = None,
        geometry: str | None = None,
        ice_table: str | None = None,
        dtype: torch.dtype = torch.float,
    ) -> None:
        if not isinstance(detector, PulseMapDetector):
            raise TypeError(
                "PackedPulses needs a pulse-map detector of graphnet_icecube2nd, got "
                f"{type(detector).__name__}, which scales columns in its own way"
            )
        super().__init__(
            detector=detector,
            input_feature_names=input_feature_names,
            dtype=dtype,
            perturbation_dict=perturbation_dict,
            seed=seed,
        )
        self._reader = PulseReader(
            detector.detector, max_pulses, selection, seed, geometry, ice_table
        )
        self._reader.check_columns(self._input_feature_names)
        known = detector.pulse_map.columns()
        flags = (AUXILIARY, HLC, RDE, SENSOR_ID)
        wrong = [c for c in perturbation_dict or {} if known.get(c) in flags]
        if wrong:
            raise ValueError(f"perturbation_dict: {', '.join(wrong)} cannot be smeared")

    def forward(
        self,
        input_features: NDArray[Any],
        input_feature_names: list[str],
        truth_dicts: list[dict[str, Any]] | None = None,
        **further: Any,
    ) -> Data:
        """Make the `Data` of one event.

        Args:
            input_features: (T, C) raw values.
            input_feature_names: C column names.
            truth_dicts: As in GraphNeT; the first entry names the event in messages.
            **further: As in GraphNeT.

        Raises:
            ValueError: A value cannot be true; names event, column, allowed range.
        """
        raw_TC = self._reader.checked(input_features, input_feature_names, truth_dicts)
        data = super().forward(raw_TC, input_feature_names, truth_dicts, **further)
        features = self._reader.features(data.x, input_feature_names, checked=True)
        data.x = features.to(self.dtype)
        data.features = self.output_feature_names  # as GraphNeT's graphs have it
        return data

    def _validate_input(
        self, input_features: NDArray[Any], input_feature_names: list[str]
    ) -> None:
        # In place of GraphNeT's check, which wants the very columns it was made with:
        # its datasets drop columns that a file does not have.
        if list(input_feature_names) != list(self._input_feature_names):
            if self._perturbation_dict:
                raise ValueError(
                    "with a perturbation_dict the columns must come as they were "
                    f"named: {', '.join(self._input_feature_names)}; got "
                    f"{', '.join(input_feature_names)}"
                )
            self._reader.check_columns(input_feature_names)

    def _set_output_feature_names(self, input_feature_names: list[str]) -> list[str]:
        return list(self._reader.pulse_map.feature_names)


class DeepIcePulses(NodeDefinition):
    """The same selection and features as a node definition.

    For `GraphDefinition` and its heirs, whose detector must be a pulse-map detector of
    this package or one that scales alike, as GraphNeT's `IceCubeKaggle` does; its
    `IceCube86` does not. A node definition sees values only after they were scaled in
    float32: so messages cannot name the event, and times of a clock that runs beyond
    1e7 ns lose their nanoseconds, which `PackedPulses` keeps.

    Args:
        input_feature_names: Columns; set by the graph definition.
        pulse_map: The detector: the name of a registered one (`kaggle`, `icecube86`,
            ...), a `PulseMap`, or what its `to_dict` gives.
        max_pulses: Longer events are cut to this many pulses.
        selection: `uniform`, `hlc_first` or `first`.
        seed: With a seed an event always keeps the same pulses.
        qe: `rde` or `published`; None leaves it to the pulse map.
        ice: `correct`, `mirrored` or `none`; None leaves it to the pulse map.
        geometry: csv file of DOMs in place of the detector's.
        ice_table: Text file of ice properties in place of the detector's.

    Raises:
        ValueError: Unknown choice, or columns that do not make up the features.
    """

    def __init__(
        self,
        input_feature_names: list[str] | None = None,
        pulse_map: str | PulseMap | dict[str, Any] = "kaggle",
        max_pulses: int = 192,
        selection: str = "uniform",
        seed: int | None = None,
        qe: str | None = None,
        ice: str | None = None,
        geometry: str | None = None,
        ice_table: str | None = None,
    ) -> None:
        detector = as_detector(pulse_map)
        chosen = detector.pulses
        chosen = replace(chosen, qe=qe or chosen.qe, ice=ice or chosen.ice)
        detector = replace(detector, pulses=chosen)
        reader = PulseReader(detector, max_pulses, selection, seed, geometry, ice_table)
        self._reader = reader  # before the base class, which asks for the names
        super().__init__(input_feature_names=input_feature_names)

    def _define_output_feature_names(self, input_feature_names: list[str]) -> list[str]:
        self._reader.check_columns(input_feature_names)
        self._columns = input_feature_names
        return list(self._reader.pulse_map.feature_names)

    def _construct_nodes(self, x: Tensor) -> Tensor:
        return self._reader.features(x, self._columns, checked=False)


def collate_events(graphs: Sequence[Data]) -> Batch:
    """Join events to a batch and keep every one, also those of a single pulse."""
    if not graphs:
        raise ValueError("a batch needs at least one event")
    return Batch.from_data_list(list(graphs))
