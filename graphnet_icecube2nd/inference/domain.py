"""The domain guard: is a model used on what it was trained on?

Shape letters: B events, T pulses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference.inference_config import READING, InferenceConfig
from graphnet_icecube2nd.store.manifest import N_PULSES

# Share of the events outside the trained range of a quantity that is worth a warning.
# By construction 0.2% of the training events lie outside.
WORTH_A_WARNING = 0.02
EVENTS = "events"
UNITS = {X: " m", Y: " m", Z: " m", TIME: " ns", CHARGE: " p.e."}


def identity(known: InputConfig | Detector) -> dict[str, Any]:
    """Return what tells detectors apart, as plain values."""
    return {
        "telescope": known.telescope,
        "clock": known.clock,
        "scales": asdict(known.scales),
    }


class DomainError(ValueError):
    """A model is used on what it does not know, or its calibration does not hold for.

    That is another detector or clock than those of the training, or another
    `max_pulses` or selection than those of the calibration that is stored with it.
    """


class Domain:
    """What a model was trained on, beside what it is used on.

    Without a `config`, how the events of the training were read, nothing is compared.
    `columns` are those of the pulses, some of which the model may not read.

    Raises:
        DomainError: Another detector or clock, other scales or features, and
            `unknown_detector` is not set.
    """

    def __init__(
        self,
        config: InputConfig | None,
        detector: Detector,
        options: InferenceConfig,
        *,
        unknown_detector: bool = False,
        columns: Collection[str] = (),
    ) -> None:
        self.config, self.detector = config, detector
        # Events that were compared, and those outside the ranges by quantity.
        self.counts: Counter[str] = Counter()
        # Why the data are of another detector, in words; what else is read otherwise
        # than in the training; and what else is worth knowing.
        self.faults: list[str] = []
        self.differences: list[str] = []
        self.notices: list[str] = []
        if config is None:
            return
        self.faults = _faults(config, detector)
        if self.faults and not unknown_detector:
            raise DomainError(
                f"{'; '.join(self.faults)}. Its answers would mean little. To use it "
                "all the same, without calibrated widths: --unknown-detector "
                "(unknown_detector=True)"
            )
        self.differences += self.faults
        for name in READING:
            trained, asked = getattr(config, name), getattr(options, name)
            if trained != asked:
                self.differences.append(
                    f"the model was trained with {name} {trained}, and is used with "
                    f"{asked}"
                )
        known = {*config.features, *detector.pulses.columns()}
        extra = [name for name in detector.pulses.extra if name not in config.features]
        self.add_unread([*extra, *(name for name in columns if name not in known)])

    def add_unread(self, names: Iterable[str]) -> None:
        """Note columns of the data that the model does not read."""
        if text := ", ".join(names):
            self.notices.append(f"columns that the model does not read: {text}")

    def check_values(
        self,
        columns: Mapping[str, NDArray[Any]],
        offsets: NDArray[np.int64],
        n_pulses_B: NDArray[np.integer[Any]],
    ) -> NDArray[np.bool_]:
        """Count events outside the trained ranges; return which are inside, (B,).

        Columns are pulses (T,) by quantity, in physical units and by the detector's
        clock; offsets (B + 1,) are borders of events, which may be empty; `n_pulses_B`
        counts pulses before selection.
        """
        num_events = len(offsets) - 1
        self.counts[EVENTS] += num_events
        inside_B = np.ones(num_events, bool)
        if self.config is None or not self.config.ranges:
            return inside_B
        values = {name: np.asarray(value) for name, value in columns.items()}
        if SENSOR_ID in values and X not in values:
            position_S3 = self.detector.places.position_S3.numpy()
            sensor_T = values[SENSOR_ID].astype(np.int64)
            values.update(zip((X, Y, Z), position_S3[sensor_T].T, strict=True))
        length_B = np.diff(offsets)
        event_T = np.repeat(np.arange(num_events), length_B)
        for name, (low, high) in self.config.ranges.items():
            if name == N_PULSES:
                out_B = (n_pulses_B < low) | (n_pulses_B > high)
                out_B &= length_B > 0
            elif name in values and len(event_T):
                out_T = (values[name] < low) | (values[name] > high)
                # Most pulses, not a few of noise at the edge.
                num_out_B = np.bincount(event_T, out_T, num_events)
                out_B = num_out_B / np.maximum(length_B, 1) > 0.5
            else:
                continue
            self.counts[name] += int(out_B.sum())
            inside_B &= ~out_B
        return inside_B

    def warnings(self) -> list[str]:
        """Return what is worth a warning, in words."""
        texts = []
        ranges = {} if self.config is None else self.config.ranges
        for name, (low, high) in ranges.items():
            share = self.counts[name] / max(1, self.counts[EVENTS])
            if share < WORTH_A_WARNING:
                continue
            hint = ""
            if name == TIME and self.detector.clock == "window":
                hint = (
                    "; if the times do not count in IceCube's readout window, give a "
                    "pulse map with time_reference='first_pulse'"
                )
            texts.append(
                f"{name}: {share:.1%} of the events lie outside the range that the "
                f"model was trained on, {low:g} to {high:g}{UNITS.get(name, '')}{hint}"
            )
        if texts:
            texts.append("widths of such events are not called calibrated")
        return [*self.differences, *texts]


def _faults(config: InputConfig, detector: Detector) -> list[str]:
    """Return why data are not of the detector of the training, in words."""
    faults = []
    if detector.telescope != config.telescope:
        faults.append(
            f"the model was trained on detector {config.telescope!r}, the data are of "
            f"{detector.telescope!r}"
        )
    if detector.clock != config.clock:
        faults.append(
            f"the model was trained on times of clock {config.clock!r}, the data have "
            f"{detector.clock!r} (time_reference of the pulse map)"
        )
    if detector.scales != config.scales:
        faults.append(
            f"the model was trained with {config.scales}, detector {detector.name!r} "
            f"has {detector.scales}"
        )
    features = detector.pulses.feature_names[: len(config.features)]
    if features != config.features:
        faults.append(
            f"the model reads the features {', '.join(config.features)}, detector "
            f"{detector.name!r} gives {', '.join(features)}"
        )
    return faults
