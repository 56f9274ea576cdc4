"""GraphNeT data representations: a table of pulses -> features for the backbones.

`PackedPulses` is a data representation without edges; `DeepIcePulses` is the same step
as a node definition, for GraphNeT's graphs. Both check, select and assemble the pulses
of an event with a `PulseReader`.

Shape letters: T pulses of the event, C columns of the file, F features, K kept pulses,
M positions of modules in the cache.
"""

from __future__ import annotations

import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, chain
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
    TIME_ORIGIN,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.events import (
    clock_zeros,
    event_order,
    untriggered_note,
)
from graphnet_icecube2nd.events.features import (
    DETECTOR,
    POSITIONS,
    WINDOW_LIMIT,
    assemble_features,
    check_pulses,
    placed_features,
)
from graphnet_icecube2nd.events.selection import check_selection, select_pulses
from graphnet_icecube2nd.graphnet_adapter.detectors import (
    PulseMapDetector,
    as_detector,
)

PLACE = (X, Y, Z, SENSOR_ID)
ORDERED_BY = (TIME, *PLACE, CHARGE, AUXILIARY, HLC)  # columns that `event_order` uses
TORCH_DTYPES = {np.dtype(t) for t in ("f8", "f4", "i8", "i4", "?")}
MOST_PLACES = 2**17  # limits the memory when positions are smeared


class PackedPulses(DataRepresentation):
    """Selected pulses of an event and their features, without edges.

    Raw values are checked first. Columns may have any order; unused columns are
    allowed, and rde may be missing. `Data.n_pulses` is the number of pulses before
    selection, which the length feature needs. The selection from a long event does not
    depend on the order of rows. `predict_events` gives a row for an event without
    pulses, but models cannot be trained on it.

    Use `collate_events` in data loaders: GraphNeT's collate function drops events of
    one pulse without a message.

    Args:
        detector: A pulse-map detector of this package.
        max_pulses: Maximum pulses per event.
        selection: Rule of the selection: `uniform`, `hlc_first` or `first`; see
            `select_pulses`.
        seed: Random seed of the selection. With a seed an event always keeps the same
            pulses; without, every reading selects new ones.
        input_feature_names: Columns in their order; default: those of the detector.
        perturbation_dict: Standard deviations by column, as in GraphNeT; not for
            flags and ids.
        geometry: csv file of DOMs that replaces the detector's; see
            `DetectorGeometry`.
        ice_table: Text file of ice properties that replaces the detector's.
        dtype: Type of the features.
        positions: Point from which positions count: `detector`, its centre, or
            `charge_centre`, that of each event; `Data.centre` is then what was
            subtracted, (1, 3) m.

    Raises:
        ValueError: The selection is unknown, a column that a feature needs is missing,
            or a flag or id is to be smeared.
        TypeError: The detector is not a pulse-map detector.
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
        positions: str = DETECTOR,
    ) -> None:
        check_one_of("positions", positions, POSITIONS)
        if not isinstance(detector, PulseMapDetector):
            raise TypeError(
                "detector must be a pulse-map detector of graphnet_icecube2nd, got "
                f"{type(detector).__name__}, which scales columns differently"
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
        self._reader.positions = positions
        self._reader.check_columns(self._input_feature_names)
        known = detector.pulse_map.columns()
        flags = (AUXILIARY, HLC, RDE, SENSOR_ID)
        if wrong := [c for c in perturbation_dict or {} if known.get(c) in flags]:
            raise ValueError(
                f"perturbation_dict: {', '.join(wrong)} cannot be smeared, because "
                "flags and ids are not continuous"
            )

    def forward(
        self,
        input_features: NDArray[Any],
        input_feature_names: list[str],
        truth_dicts: list[dict[str, Any]] | None = None,
        custom_label_functions: dict[str, Callable[..., Any]] | None = None,
        loss_weight_column: str | None = None,
        loss_weight: float | None = None,
        loss_weight_default_value: float | None = None,
        data_path: str | None = None,
    ) -> Data:
        """Make the `Data` of one event from raw values (T, C).

        The arguments are those of GraphNeT's `DataRepresentation.forward`.

        Raises:
            ValueError: A value is outside its allowed range; the message names column,
                range and event (the first entry of `truth_dicts`).
        """
        return self.graphs(
            input_features,
            np.array([0, len(input_features)]),
            input_feature_names,
            [truth_dicts or []],
            custom_label_functions,
            loss_weight_column,
            None if loss_weight is None else [loss_weight],
            loss_weight_default_value,
            data_path,
        )[0]

    def graphs(
        self,
        values_TC: NDArray[Any],
        offsets: NDArray[np.int64],
        names: list[str],
        truth_dicts: Sequence[Sequence[dict[str, Any]]],
        custom_label_functions: dict[str, Callable[..., Any]] | None = None,
        loss_weight_column: str | None = None,
        loss_weights: Sequence[Any] | NDArray[Any] | None = None,
        loss_weight_default_value: float | None = None,
        data_path: str | None = None,
    ) -> list[Data]:
        """Make the `Data` of B events together; each equals that of `forward`.

        Args:
            values_TC: Raw values of all events, one after the other, (T, C).
            offsets: Borders of the events, (B + 1,) int64.
            names: The C columns.
            truth_dicts: Dictionaries of the truth for each event.
            custom_label_functions: Functions of labels by name.
            loss_weight_column: Name of the loss weight.
            loss_weights: Loss weight of each event.
            loss_weight_default_value: Loss weight of events without one.
            data_path: Path of the data set.

        Raises:
            ValueError: A value is outside its allowed range, see `forward`; or the
                columns are not in the order of `input_feature_names` and there is a
                `perturbation_dict`.
        """
        if self._perturbation_dict and list(names) != list(self._input_feature_names):
            raise ValueError(
                "with a perturbation_dict the columns must be in the order of "
                f"input_feature_names: {', '.join(self._input_feature_names)}; "
                f"got {', '.join(names)}"
            )
        raw_TC, origin_B = self._reader.checked(values_TC, names, offsets, truth_dicts)
        raw_TC = torch.from_numpy(self._perturb_input(raw_TC)).to(self.dtype).numpy()
        scaled_TC = self._detector.scaled(raw_TC, names)
        features_KF, kept_B = self._reader.features(
            scaled_TC, names, offsets, checked=True
        )
        features_KF, centre_B3 = placed_features(
            features_KF,
            torch.tensor([0, *accumulate(kept_B)]),
            self._reader.detector,
            self._reader.positions,
        )
        num_pulses_B = torch.from_numpy((offsets[1:] - offsets[:-1]).astype(np.int32))
        shared: Any = {
            "features": self.output_feature_names,
            "units": self._reader.detector.units,
            "graph_definition": type(self).__name__,
            "data_representation": type(self).__name__,
        }
        if data_path is not None:
            shared["dataset_path"] = data_path
        graphs = []
        of_events = (
            features_KF.to(self.dtype).split_with_sizes(kept_B),
            num_pulses_B.unbind(0),
            _truth_tensors(truth_dicts),
        )
        for b, (x, n_pulses, truth) in enumerate(zip(*of_events, strict=True)):
            # A dict, because PyG takes 2 us to set an attribute of `Data`.
            values = {"x": x, "n_pulses": n_pulses, **shared}
            if origin_B is not None:
                values[TIME_ORIGIN] = origin_B[b]
            if centre_B3 is not None:
                values["centre"] = centre_B3[b : b + 1]
            if loss_weights is not None:
                self._add_loss_weights(
                    values,
                    loss_weight_column,
                    loss_weights[b],
                    loss_weight_default_value,
                )
            data = Data()
            data._store._mapping.update(values, **truth)
            if custom_label_functions:
                self._add_custom_labels(data, custom_label_functions)
            graphs.append(data)
        return graphs

    def _set_output_feature_names(self, input_feature_names: list[str]) -> list[str]:
        return list(self._reader.pulse_map.feature_names)


class DeepIcePulses(NodeDefinition):
    """Selection and features of `PackedPulses` as a node definition.

    It is for `GraphDefinition` and its subclasses. Their detector must be a pulse-map
    detector of this package or one with the same scales, such as GraphNeT's
    `IceCubeKaggle` (but not its `IceCube86`). A node definition gets values after
    scaling in float32, so errors cannot name the event, and times beyond 1e7 ns lose
    their nanoseconds, which `PackedPulses` keeps. Positions count from the detector's
    centre; weights for those from the centre of charge need `PackedPulses`.

    Args:
        input_feature_names: Columns; the graph definition sets them.
        pulse_map: Name of a registered detector (`kaggle`, `icecube86`, ...), a
            `PulseMap`, or the result of its `to_dict`.
        max_pulses: Maximum pulses per event.
        selection: Rule of the selection, see `PackedPulses`.
        seed: Random seed of the selection, see `PackedPulses`.
        qe: Rule for DOMs of high quantum efficiency: `rde` or `published`. Default:
            that of the pulse map.
        ice: Ice properties: `correct`, `mirrored` or `none`. Default: those of the
            pulse map.
        geometry: csv file of DOMs that replaces the detector's.
        ice_table: Text file of ice properties that replaces the detector's.

    Raises:
        ValueError: A choice is unknown, or a column that a feature needs is missing.
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
        offsets = np.array([0, len(x)])
        features_KF, _ = self._reader.features(
            x.numpy(), self._columns, offsets, checked=False
        )
        return features_KF


def collate_events(graphs: Sequence[Data]) -> Batch:
    """Join all events to one batch, including those of a single pulse.

    The batch equals that of PyG's `Batch.from_data_list`, but values that PyG only
    concatenates are joined here at once, which is faster.

    Raises:
        ValueError: There is no event.
    """
    graphs = list(graphs)
    if not graphs:
        raise ValueError("a batch needs at least one event")
    joined: dict[str, Any] = {}
    slices = {}
    if all(type(graph) is Data for graph in graphs):
        values_of = [graph._store._mapping for graph in graphs]
        one_each = torch.arange(len(graphs) + 1)
        for name, first in values_of[0].items():
            # PyG shifts values called index or batch, and counts the nodes of x.
            if name in ("x", "face", "ptr") or "index" in name or "batch" in name:
                continue
            values = [of_graph[name] for of_graph in values_of]
            if type(first) is Tensor and first.layout == torch.strided:
                if first.dim():
                    sizes = torch.tensor([0, *map(len, values)])
                    joined[name], slices[name] = torch.cat(values), sizes.cumsum(0)
                else:
                    joined[name], slices[name] = torch.stack(values), one_each
            elif type(first) is str:
                joined[name], slices[name] = values, one_each
    batch = Batch.from_data_list(graphs, exclude_keys=list(joined))
    batch._store._mapping.update(joined)
    batch._slice_dict.update(slices)
    no_shift_B = torch.zeros(len(graphs), dtype=torch.int64)
    for name, values in joined.items():
        batch._inc_dict[name] = no_shift_B if type(values) is Tensor else None
    return batch


class PulseReader:
    """Check, selection and features of pulses for `PackedPulses` and `DeepIcePulses`.

    The arguments are theirs.
    """

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
        self.positions = DETECTOR
        self.seed = seed
        self._columns: dict[tuple[str, ...], PulseColumns] = {}
        self._row_of_place: dict[bytes, int] = {}
        self._place_MF = np.empty((0, len(self.pulse_map.feature_names)), np.float32)

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that these columns give all features.

        Raises:
            ValueError: A column is missing.
        """
        given = {self._known[name] for name in names if name in self._known}
        missing = self.pulse_map.missing(given)
        if missing:
            wanted = ", ".join(self.pulse_map.column(q) for q in missing)
            raise ValueError(
                f"pulse map {self.pulse_map.name!r} needs column {wanted}, found only "
                f"{', '.join(names)}. {self._hint(names, missing[0])}"
            )
        if self.selection == "hlc_first" and not given & {AUXILIARY, HLC}:
            raise ValueError(
                "selection 'hlc_first' needs a column auxiliary or hlc, found "
                f"{', '.join(names)}"
            )

    def _hint(self, names: Sequence[str], quantity: str) -> str:
        for known in ("kaggle", "icecube86", "prometheus"):
            others = PulseMap.by_name(known)
            place_and_time = {others.x, others.y, others.z, others.time}
            if known != self.pulse_map.name and place_and_time <= set(names):
                return f"The columns look like those of pulse map {known!r}; use it"
        return f"For files without it: {self.pulse_map.code_without(quantity)}"

    def columns(self, names: Sequence[str]) -> PulseColumns:
        """Return the meaning of columns; ValueError if one is missing."""
        key = tuple(names)
        if key not in self._columns:
            self.check_columns(names)
            self._columns[key] = PulseColumns(key, self.detector)
        return self._columns[key]

    def checked(
        self,
        values: NDArray[Any],
        names: Sequence[str],
        offsets: NDArray[np.int64],
        truth_dicts: Sequence[Sequence[dict[str, Any]]],
    ) -> tuple[NDArray[np.float64], Tensor | None]:
        """Return a checked copy (T, C) in float64, with long events in time order.

        Also returns what was subtracted from the times, see `_time_origins`.

        Raises:
            ValueError: A value is outside its allowed range; the message names event,
                pulse and column.
        """
        raw_TC, columns = _as_numbers(values, names), self.columns(names)
        if len(raw_TC) and not columns.are_good(raw_TC):
            for b, truth in enumerate(truth_dicts):
                event_TC = raw_TC[offsets[b] : offsets[b + 1]]
                if len(event_TC):
                    self._check_event(event_TC, names, truth)
        origin_B = self._time_origins(raw_TC, names, offsets)
        if origin_B is not None:  # in float64: float32 has steps of 8 ns at 1e8 ns
            time_T = raw_TC[:, columns.quantities.index(TIME)]
            time_T -= np.repeat(origin_B.numpy(), np.diff(offsets))
        self._put_in_order(raw_TC, columns, offsets)
        return raw_TC, origin_B

    def _time_origins(
        self, values: NDArray[Any], names: Sequence[str], offsets: NDArray[np.int64]
    ) -> Tensor | None:
        """Return what `checked` subtracts from the times of each event, (B,) ns.

        It is None for the clock `window`, and NaN for events without pulses.

        Warns:
            UserWarning: Events lack the pulse that the clock needs.
        """
        if not self.pulse_map.is_relative:
            return None
        columns = dict(zip(self.columns(names).quantities, values.T, strict=True))
        columns[TIME] = np.asarray(columns[TIME], np.float64)
        origin_B = np.full(len(offsets) - 1, np.nan)
        full_B = offsets[:-1] < offsets[1:]
        origin_B[full_B], num_untriggered = clock_zeros(
            columns, np.append(0, offsets[1:][full_B]), self.pulse_map.time_reference
        )
        if num_untriggered:
            warnings.warn(untriggered_note(num_untriggered), stacklevel=2)
        return torch.from_numpy(origin_B)

    def _check_event(
        self,
        raw_TC: NDArray[np.float64],
        names: Sequence[str],
        truth_dicts: Sequence[dict[str, Any]],
    ) -> None:
        raw = check_pulses(
            dict(zip(names, raw_TC.T, strict=True)),
            torch.tensor([0, len(raw_TC)]),
            self.pulse_map,
            geometry=self.detector.modules_or_icecube86,
            event_id=_event_name(truth_dicts),
        )
        if RDE in raw:  # `check_pulses` has filled in unknown values
            raw_TC[:, self.columns(names).quantities.index(RDE)] = raw[RDE]

    def _put_in_order(
        self,
        value_TC: NDArray[Any],
        columns: PulseColumns,
        offsets: NDArray[np.int64],
    ) -> None:
        """Sort the pulses of long events, in place."""
        length_B = offsets[1:] - offsets[:-1]
        for b in (length_B > self.max_pulses).nonzero()[0]:
            event_TC = value_TC[offsets[b] : offsets[b + 1]]
            event_TC[:] = event_TC[columns.order(event_TC)]

    def features(
        self,
        value_TC: NDArray[Any],
        names: Sequence[str],
        offsets: NDArray[np.int64],
        *,
        checked: bool,
    ) -> tuple[Tensor, list[int]]:
        """Select pulses of events and build their features.

        Args:
            value_TC: Scaled values, (T, C).
            names: The C columns.
            offsets: Borders of the events, (B + 1,).
            checked: Whether the values come from the method `checked`.

        Returns:
            The features (K, F), and the number of kept pulses of each event.

        Raises:
            ValueError: A scaled value is not finite, or a flag is not 0 or 1.
        """
        columns = self.columns(names)
        good = np.isfinite(value_TC).all()
        if not checked:
            value_TC = np.array(value_TC)
            self._put_in_order(value_TC, columns, offsets)
            flag_TW = value_TC[:, columns.flags]
            good = good and ((flag_TW == 0) | (flag_TW == 1)).all()
        if not good:
            self._refuse_scaled(value_TC, columns)
        length_B = offsets[1:] - offsets[:-1]
        if length_B.max() > self.max_pulses:
            auxiliary = None
            if self.selection == "hlc_first":
                flags = [q in (AUXILIARY, HLC) for q in columns.quantities]
                auxiliary = torch.from_numpy(value_TC[:, flags].sum(axis=1))
            kept, kept_offsets = select_pulses(
                torch.from_numpy(offsets),
                self.max_pulses,
                selection=self.selection,
                auxiliary=auxiliary,
                event_id=self._contents(value_TC, offsets),
                seed=self.seed,
            )
            value_TC, length_B = value_TC[kept.numpy()], kept_offsets.diff().numpy()
        features_KF = torch.from_numpy(self._assembled(value_TC, columns))
        return features_KF, length_B.tolist()

    def _contents(
        self, value_TC: NDArray[Any], offsets: NDArray[np.int64]
    ) -> Tensor | None:
        """Return numbers of the events for the seeded selection, (B,).

        They are hashes of the pulses, because a node definition does not get event ids.
        """
        if self.seed is None:
            return None
        events = np.split(value_TC, offsets[1:-1])
        content = [zlib.crc32(event.tobytes()) for event in events]
        return torch.tensor(content)

    def _refuse_scaled(self, value_TC: NDArray[Any], columns: PulseColumns) -> None:
        """Raise ValueError for the first scaled value that is not allowed."""
        for index, quantity in enumerate(columns.quantities):
            value_T = value_TC[:, index]
            good_T, allowed = np.isfinite(value_T), "finite"
            if index in columns.flags:
                good_T, allowed = (value_T == 0) | (value_T == 1), "0 or 1"
            if quantity and not good_T.all():
                pulse = int(good_T.argmin())
                raise ValueError(
                    f"pulse {pulse}: column {self.pulse_map.column(quantity)!r} must "
                    f"be {allowed} after scaling, found {value_T[pulse]:g}. Check the "
                    "value in the data, and that the detector is a pulse-map detector"
                )

    def _assembled(
        self, value_KC: NDArray[Any], columns: PulseColumns
    ) -> NDArray[np.float32]:
        """Return the features of `assemble_features`, (K, F), with a cache of modules.

        Features of the module (efficiency, ice, position) are cached by its position.
        """
        place = np.ascontiguousarray(value_KC[:, columns.place])
        key_K = place.view(f"V{place.itemsize * place.shape[1]}").ravel().tolist()
        try:
            features_KF = self._features_of_places(key_K)
        except KeyError:
            self._look_up(key_K, value_KC, columns)
            features_KF = self._features_of_places(key_K)
        features_KF[:, columns.own_features] = value_KC[:, columns.own]
        return features_KF

    def _features_of_places(self, key_K: list[bytes]) -> NDArray[np.float32]:
        row_of = self._row_of_place.__getitem__
        row_K = np.fromiter(map(row_of, key_K), np.intp, len(key_K))
        features_KF: NDArray[np.float32] = self._place_MF.take(row_K, axis=0)
        return features_KF

    def _look_up(
        self, key_K: list[bytes], value_KC: NDArray[Any], columns: PulseColumns
    ) -> None:
        """Add the features of new positions to the cache."""
        if len(self._row_of_place) > MOST_PLACES:
            self._row_of_place.clear()
            self._place_MF = self._place_MF[:0]
        first = len(self._row_of_place)
        new = {key: k for k, key in enumerate(key_K) if key not in self._row_of_place}
        value_CM = torch.from_numpy(value_KC[list(new.values())]).unbind(1)
        scaled = dict(zip(columns.quantities, value_CM, strict=True))
        values = assemble_features(scaled, self.detector)
        self._row_of_place.update({key: first + m for m, key in enumerate(new)})
        self._place_MF = np.concatenate([self._place_MF, values.numpy()])


class PulseColumns:
    """Meaning and allowed ranges of the C columns of a table of pulses.

    Args:
        names: The columns.
        detector: Detector that gives their meaning.
    """

    def __init__(self, names: Sequence[str], detector: Detector) -> None:
        pulse_map, largest = detector.pulses, float(np.finfo(np.float64).max)
        known = pulse_map.columns()
        self.quantities = [known.get(name, "") for name in names]  # "" if not used
        ranges: dict[str, tuple[float, float]] = {
            "": (-np.inf, np.inf),
            CHARGE: (float(np.nextafter(0.0, 1.0)), largest),
            RDE: (float(np.nextafter(0.0, 1.0)), largest),
            SENSOR_ID: (0, len(detector.modules_or_icecube86) - 1),
            AUXILIARY: (0, 1),
            HLC: (0, 1),
        }
        if pulse_map.time_reference == "window":
            ranges[TIME] = (-WINDOW_LIMIT, WINDOW_LIMIT)
        bounds = [ranges.get(q, (-largest, largest)) for q in self.quantities]
        self._low_C, self._high_C = np.array(bounds).T
        self._whole = self._of(AUXILIARY, HLC, SENSOR_ID)
        self.flags = self._of(AUXILIARY, HLC, RDE)  # 0 or 1 after scaling
        self.place = _quick_index(self._of(*PLACE))
        feature_of = {name: name for name in pulse_map.feature_names}
        feature_of |= {HLC: AUXILIARY, **({RDE: QE} if pulse_map.qe == "rde" else {})}
        own = [i for i, q in enumerate(self.quantities) if q in feature_of]
        self.own_features = _quick_index(
            [
                pulse_map.feature_names.index(feature_of[self.quantities[index]])
                for index in own
            ]
        )
        self.own = _quick_index(own)

    def _of(self, *quantities: str) -> list[int]:
        return [i for i, q in enumerate(self.quantities) if q in quantities]

    def are_good(self, raw_TC: NDArray[np.float64]) -> bool:
        """Return False if `check_pulses` might refuse a value; a fast test."""
        # If a column has a NaN, its minimum is NaN and not above the bound.
        return bool(
            (raw_TC.min(axis=0) >= self._low_C).all()
            and (raw_TC.max(axis=0) <= self._high_C).all()
            and all((raw_TC[:, w] == np.rint(raw_TC[:, w])).all() for w in self._whole)
        )

    def order(self, value_TC: NDArray[Any]) -> NDArray[np.int64]:
        """Return the order of pulses by time and then by all other values, (T,).

        The sorted pulses do not depend on the order of rows.
        """
        columns = list(zip(self.quantities, value_TC.T, strict=True))
        one_event_T = np.zeros(len(value_TC), np.int64)
        others = [value_T for q, value_T in columns if q not in ORDERED_BY]
        if not others:
            return event_order(dict(columns), one_event_T)
        order_T = np.lexsort(others)
        ordered = {q: value_T[order_T] for q, value_T in columns}
        sorted_T: NDArray[np.int64] = order_T[event_order(ordered, one_event_T)]
        return sorted_T


def _quick_index(columns: list[int]) -> Any:
    """Return contiguous columns as a slice, which is four times as fast."""
    if columns and columns == list(range(columns[0], columns[-1] + 1)):
        return slice(columns[0], columns[-1] + 1)
    return columns


def _as_numbers(values: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Return a copy (T, C) in float64, column-major; None (SQL NULL) becomes NaN."""
    try:
        return np.array(values, dtype=np.float64, order="F")
    except (TypeError, ValueError):
        for index, name in enumerate(names):
            try:
                np.array(values[:, index], dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"column {name!r} must have only numbers: {error}"
                ) from None
        raise


def _event_name(truth_dicts: Sequence[dict[str, Any]] | None) -> list[Any] | None:
    """Return a list with the event's number, the first value of its truth."""
    if not truth_dicts or not truth_dicts[0]:
        return None
    names = np.ravel(next(iter(truth_dicts[0].values())))[:1].tolist()
    # SQL joins turn integers into floats.
    return [int(n) if isinstance(n, float) and n.is_integer() else n for n in names]


def _truth_tensors(
    truth_dicts: Sequence[Sequence[dict[str, Any]]],
) -> list[dict[str, Tensor]]:
    """Return `torch.tensor` of all truth values of each event, as GraphNeT does.

    Values of one type become one tensor first, because each call takes 3 us. Values
    that are not numbers are left out, as in GraphNeT.
    """
    tensors: list[dict[str, Any]] = []
    for dicts in truth_dicts:
        found: dict[str, Any] = {}
        for key, value in chain.from_iterable(truth.items() for truth in dicts):
            is_one = type(value) is np.ndarray and value.shape == (1,)
            if type(value) is not int and not (is_one and value.dtype in TORCH_DTYPES):
                try:
                    value = torch.tensor(value)
                except TypeError:
                    continue
            found[key] = value
        tensors.append(found)
    alike = defaultdict(list)
    for found in tensors:
        for key, value in found.items():
            if type(value) is not Tensor:
                alike[getattr(value, "dtype", int)].append((found, key, value))
    for dtype, entries in alike.items():
        values = [value for _, _, value in entries]
        joined = np.array(values, np.int64 if dtype is int else dtype)
        parts = torch.from_numpy(joined).unbind(0)
        for (found, key, _), part in zip(entries, parts, strict=True):
            found[key] = part
    return tensors
