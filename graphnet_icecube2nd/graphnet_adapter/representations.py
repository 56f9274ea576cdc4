"""From a table of pulses to what the backbones read, in GraphNeT's terms.

`PackedPulses` is a data representation of its own, without edges; `DeepIcePulses` is
the same step as a node definition, for graphs of GraphNeT's making. Both check, select
and assemble the pulses of an event with a `PulseReader`.

Shape letters: T pulses of the event, C columns of the file, F features, K kept pulses,
M positions of modules met so far.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from graphnet.models.data_representation import DataRepresentation
from graphnet.models.data_representation.graphs.nodes import NodeDefinition
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    HLC,
    QE,
    RDE,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.events import event_order
from graphnet_icecube2nd.events.features import (
    WINDOW_LIMIT,
    assemble_features,
    check_pulses,
)
from graphnet_icecube2nd.events.selection import check_selection, select_pulses
from graphnet_icecube2nd.graphnet_adapter.detectors import (
    PulseMapDetector,
    as_detector,
)

PLACE = (X, Y, Z, SENSOR_ID)
ORDERED_BY = (TIME, *PLACE, CHARGE, AUXILIARY, HLC)  # what `event_order` looks at
MOST_PLACES = 2**17  # smeared positions would otherwise fill the memory


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
        if wrong := [c for c in perturbation_dict or {} if known.get(c) in flags]:
            raise ValueError(f"perturbation_dict: {', '.join(wrong)} cannot be smeared")

    def forward(
        self,
        input_features: NDArray[Any],
        input_feature_names: list[str],
        truth_dicts: list[dict[str, Any]] | None = None,
        **further: Any,
    ) -> Data:
        """Make the `Data` of one event from raw values (T, C), as GraphNeT does.

        Raises:
            ValueError: A value cannot be true; the message names column, allowed range,
                and event, by the first entry of `truth_dicts`.
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

    The detector is `pulse_map`: the name of a registered one (`kaggle`, `icecube86`,
    ...), a `PulseMap`, or what its `to_dict` gives. Its switches can be set: `qe` is
    `rde` or `published`, `ice` is `correct`, `mirrored` or `none`; None leaves them as
    they are. The graph definition sets `input_feature_names`; the other arguments are
    those of `PackedPulses`.

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


class PulseReader:
    """What `PackedPulses` and `DeepIcePulses` have in common; arguments as theirs."""

    def __init__(
        self,
        detector: Detector,
        max_pulses: int,
        selection: str,
        seed: int | None,
        geometry: str | None,
        ice_table: str | None,
    ) -> None:
        check_selection(selection, max_pulses)
        if geometry is not None:
            detector = replace(detector, geometry=DetectorGeometry.from_file(geometry))
        if ice_table is not None:
            detector = replace(detector, optics=IceModel.from_file(ice_table))
        self.detector, self.pulse_map = detector, detector.pulses
        self._known = self.pulse_map.columns()
        self.max_pulses = max_pulses
        self.selection = selection
        self.seed = seed
        self._checked_names: set[tuple[str, ...]] = set()
        self._row_of_place: dict[bytes, int] = {}
        self._place_MF = np.empty((0, len(self.pulse_map.feature_names)), np.float32)

    def check_columns(self, names: Sequence[str]) -> None:
        """See that columns of these names make up the features; ValueError if not."""
        given = {self._known[name] for name in names if name in self._known}
        missing = self.pulse_map.missing(given)
        if missing:
            wanted = ", ".join(self.pulse_map.column(q) for q in missing)
            raise ValueError(
                f"pulse map {self.pulse_map.name!r} needs column {wanted}; "
                f"given are {', '.join(names)}. {self._hint(names, missing[0])}"
            )
        if self.selection == "hlc_first" and not given & {AUXILIARY, HLC}:
            raise ValueError("selection 'hlc_first' needs a column auxiliary or hlc")

    def _hint(self, names: Sequence[str], quantity: str) -> str:
        for known in ("kaggle", "icecube86", "prometheus"):
            others = PulseMap.by_name(known)
            place_and_time = {others.x, others.y, others.z, others.time}
            if known != self.pulse_map.name and place_and_time <= set(names):
                return (
                    f"Are these the columns of {known!r}? Then say so as the pulse map"
                )
        return f"For files without it: {self.pulse_map.how_without(quantity)}"

    def checked(
        self,
        values: NDArray[Any],
        names: Sequence[str],
        truth_dicts: Sequence[dict[str, Any]] | None,
    ) -> NDArray[np.float64]:
        """Return the raw values (T, C) in float64, checked; long events in time order.

        ValueError names event, pulse and column of a value that no pulse can have.
        """
        raw_TC = _as_numbers(values, names)
        if not len(raw_TC):
            return raw_TC
        if tuple(names) not in self._checked_names or not self._is_good(raw_TC, names):
            raw = check_pulses(
                {name: raw_TC[:, index] for index, name in enumerate(names)},
                torch.tensor([0, len(raw_TC)]),
                self.pulse_map,
                geometry=self.detector.places,
                event_id=_event_name(truth_dicts),
            )
            if RDE in raw:  # some may have been unknown
                raw_TC[:, list(names).index(str(self.pulse_map.rde))] = raw[RDE]
            self._checked_names.add(tuple(names))
        if self.pulse_map.time_reference == "first_pulse":
            # Here and not in float32, where a clock of 1e8 ns ticks every 8 ns.
            time_T = raw_TC[:, list(names).index(self.pulse_map.time)]
            time_T -= time_T.min()
        if len(raw_TC) > self.max_pulses:
            order_T = self._order(torch.from_numpy(raw_TC), names)
            raw_TC = raw_TC[order_T.numpy()]
        return raw_TC

    def _is_good(self, raw_TC: NDArray[np.float64], names: Sequence[str]) -> bool:
        """Return whether `check_pulses` would pass the values; quick, for one event."""
        for name, value_T in zip(names, raw_TC.T, strict=True):
            quantity = self._known.get(name)
            if quantity is None:
                continue
            low, high = value_T.min(), value_T.max()  # NaN where there is one
            good = -np.inf < low and high < np.inf
            if quantity in (CHARGE, RDE):
                good = good and low > 0
            elif quantity == TIME and self.pulse_map.time_reference == "window":
                good = low >= -WINDOW_LIMIT and high <= WINDOW_LIMIT
            elif quantity in (AUXILIARY, HLC):
                good = bool(((value_T == 0) | (value_T == 1)).all())
            elif quantity == SENSOR_ID:
                good = low >= 0 and high < len(self.detector.places)
                good = good and bool((value_T == np.round(value_T)).all())
            if not good:
                return False
        return True

    def _order(self, value_TC: Tensor, names: Sequence[str]) -> Tensor:
        """Return the order of pulses by time and then by what they are, (T,).

        Whatever order the rows have, the order of pulses that differ is one.
        """
        known = self._known
        columns = dict(zip(names, value_TC.unbind(1), strict=True))
        others = [n for n in columns if known.get(n) not in ORDERED_BY]
        order_T = torch.arange(len(value_TC))
        if others:
            order_T = torch.from_numpy(np.lexsort([columns[n].numpy() for n in others]))
        ordered = {
            known[n]: v[order_T].numpy() for n, v in columns.items() if n in known
        }
        one_event_T = np.zeros(len(order_T), np.int64)
        return order_T[torch.from_numpy(event_order(ordered, one_event_T))]

    def _check_scaled(self, scaled: dict[str, Tensor]) -> None:
        """Raise ValueError of scaled values that another detector or a smear made."""
        for quantity, value in scaled.items():
            if quantity in (AUXILIARY, HLC, RDE):
                good, allowed = (value == 0) | (value == 1), "0 or 1"
            else:
                good, allowed = value.isfinite(), "finite"
            if not bool(good.all()):
                pulse = int((~good).nonzero()[0])
                raise ValueError(
                    f"column {self.pulse_map.column(quantity)!r} is "
                    f"{float(value[pulse]):g} after scaling, at pulse {pulse}; it must "
                    f"be {allowed}. Is the value allowed, and the detector a pulse-map "
                    "detector?"
                )

    def features(
        self, scaled_TC: Tensor, names: Sequence[str], *, checked: bool
    ) -> Tensor:
        """Select pulses of one event and build their features, (K, F).

        `checked` says that the values come from `checked`, scaled by the detector.
        """
        if not len(scaled_TC):
            if not checked:
                raise ValueError("an event has no pulses")
            return scaled_TC.new_empty(0, len(self.pulse_map.feature_names))
        if not checked and len(scaled_TC) > self.max_pulses:
            scaled_TC = scaled_TC[self._order(scaled_TC, names)]
        scaled = {
            self._known[name]: value
            for name, value in zip(names, scaled_TC.unbind(1), strict=True)
            if name in self._known
        }
        if not (checked and np.isfinite(scaled_TC.numpy()).all()):
            self._check_scaled(scaled)
        if len(scaled_TC) > self.max_pulses:
            # An event is told from others by its content: a node definition knows
            # nothing else of it.
            content = zlib.crc32(np.ascontiguousarray(scaled_TC.numpy()).tobytes())
            kept, _ = select_pulses(
                torch.tensor([0, len(scaled_TC)]),
                self.max_pulses,
                selection=self.selection,
                auxiliary=scaled.get(AUXILIARY, scaled.get(HLC)),
                event_id=torch.tensor([content]),
                seed=self.seed,
            )
            scaled = {quantity: value[kept] for quantity, value in scaled.items()}
        return self._assembled(scaled)

    def _assembled(self, scaled: Mapping[str, Tensor]) -> Tensor:
        """Return what `assemble_features` does, (K, F), looking places up once.

        What a pulse owes to its place (efficiency, ice, the place of a DOM number) is
        kept by the place; the rest is the pulse's own.
        """
        place = torch.stack([scaled[q] for q in PLACE if q in scaled], dim=1).numpy()
        keys = np.ascontiguousarray(place).view(f"V{place.itemsize * place.shape[1]}")
        key_K = keys.ravel().tolist()
        row_K = [self._row_of_place.get(key, -1) for key in key_K]
        if -1 in row_K:
            self._look_up(key_K, scaled)
            row_K = [self._row_of_place[key] for key in key_K]
        features_KF = self._place_MF[row_K]
        for index, name in enumerate(self.pulse_map.feature_names):
            source = name
            if name == QE and self.pulse_map.qe == "rde":
                source = RDE
            elif name == AUXILIARY and HLC in scaled:
                source = HLC
            if source in scaled:
                features_KF[:, index] = scaled[source].numpy()
        return torch.from_numpy(features_KF)

    def _look_up(self, key_K: list[bytes], scaled: Mapping[str, Tensor]) -> None:
        """Add the features of places that were not met before."""
        if len(self._row_of_place) > MOST_PLACES:
            self._row_of_place.clear()
            self._place_MF = self._place_MF[:0]
        first = len(self._row_of_place)
        new = {key: k for k, key in enumerate(key_K) if key not in self._row_of_place}
        pulses = torch.tensor(list(new.values()))
        values = assemble_features(
            {quantity: value[pulses] for quantity, value in scaled.items()},
            self.detector,
        )
        self._row_of_place.update({key: first + m for m, key in enumerate(new)})
        self._place_MF = np.concatenate([self._place_MF, values.numpy()])


def _as_numbers(values: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Return a copy (T, C) in float64; None, which is SQL's NULL, becomes NaN."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        for index, name in enumerate(names):
            try:
                np.array(values[:, index], dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"column {name!r} must be numbers: {error}") from None
        raise


def _event_name(truth_dicts: Sequence[dict[str, Any]] | None) -> list[Any] | None:
    """Return the event's key, which GraphNeT's datasets put first, in a list."""
    if not truth_dicts or not truth_dicts[0]:
        return None
    names = np.ravel(next(iter(truth_dicts[0].values())))[:1].tolist()
    # SQL joins make floats of numbers.
    return [int(n) if isinstance(n, float) and n.is_integer() else n for n in names]
