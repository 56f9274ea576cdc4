"""One event's table of pulses into features: checked, selected, assembled.

Shape letters: T pulses of the event, C columns of the file, F features, K kept pulses.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    HLC,
    RDE,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.features import assemble_features, check_pulses
from graphnet_icecube2nd.events.selection import check_selection, select_pulses


class PulseReader:
    """What `PackedPulses` and `DeepIcePulses` do alike.

    Args:
        pulse_map: What the columns mean.
        max_pulses: Longer events are cut to this many pulses.
        selection: One of `SELECTIONS`.
        seed: Of the selection; None for another one at every reading.
        geometry: csv file of DOMs in place of IceCube-86's, or None.
        ice_table: Text file of ice properties in place of IceCube's, or None.

    Raises:
        ValueError: Unknown selection, or a file that cannot be read as a table.
    """

    def __init__(
        self,
        pulse_map: PulseMap,
        max_pulses: int,
        selection: str,
        seed: int | None,
        geometry: str | None,
        ice_table: str | None,
    ) -> None:
        check_selection(selection, max_pulses)
        self.pulse_map = pulse_map
        self.max_pulses = max_pulses
        self.selection = selection
        self.seed = seed
        self.detector = Detector.of_pulses(
            pulse_map,
            None if geometry is None else DetectorGeometry.from_csv(geometry),
            None if ice_table is None else IceModel.from_file(ice_table),
        )

    def check_columns(self, names: Sequence[str]) -> None:
        """See that columns of these names make up the features; ValueError if not."""
        known = self.pulse_map.columns()
        given = {known[name] for name in names if name in known}
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
        """Return the raw values (T, C) in float64, or say what is wrong with them."""
        raw_TC = _as_numbers(values, names)
        offsets = torch.tensor([0, len(raw_TC)])
        columns = {name: raw_TC[:, index] for index, name in enumerate(names)}
        check_pulses(
            columns,
            offsets,
            self.pulse_map,
            geometry=self.detector.places,
            event_id=_event_name(truth_dicts),
        )
        if self.pulse_map.time_reference == "first_pulse":
            # Here and not in float32, where a clock of 1e8 ns ticks every 8 ns.
            time_T = columns[self.pulse_map.time]
            time_T -= time_T.min()
        return raw_TC

    def _check_scaled(self, scaled: dict[str, Tensor], num_pulses: int) -> None:
        """See what can be seen after scaling: a detector not ours, a smeared value."""
        if num_pulses == 0:
            raise ValueError("an event has no pulses")
        for quantity, value in scaled.items():
            if quantity in (AUXILIARY, HLC, RDE):
                good, allowed = (value == 0) | (value == 1), "0 or 1"
            else:
                good, allowed = value.isfinite(), "finite"
            if not bool(good.all()):
                pulse = int((~good).nonzero()[0])
                raise ValueError(
                    f"column {self.pulse_map.column(quantity)!r} is "
                    f"{float(value[pulse]):g} after "
                    f"scaling, at pulse {pulse}; it must be {allowed}. Is the value "
                    "allowed, and the detector a pulse-map detector?"
                )

    def features(self, scaled_TC: Tensor, names: Sequence[str]) -> Tensor:
        """Select pulses of one event and build their features, (K, F)."""
        known = self.pulse_map.columns()
        scaled = {
            known[name]: value
            for name, value in zip(names, scaled_TC.unbind(1), strict=True)
            if name in known
        }
        self._check_scaled(scaled, len(scaled_TC))
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
        return assemble_features(scaled, self.detector)


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
