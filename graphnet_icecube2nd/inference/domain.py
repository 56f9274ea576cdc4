"""The domain guard: it compares data with the training of a model.

Shape letters: B events, T pulses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    RDE,
    SENSOR_ID,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.detector.detector import ICECUBE, Detector
from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.detector.pulse_map import UNNAMED
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference.inference_config import READING, InferenceConfig
from graphnet_icecube2nd.store.manifest import N_PULSES

# Fraction of events outside the trained range of a quantity that gives a warning. The
# ranges leave out 0.2% of the training events.
WORTH_A_WARNING = 0.02
EVENTS = "events"
PULSES = {True: "pulses of the trigger only", False: "all pulses"}
UNITS = {X: " m", Y: " m", Z: " m", TIME: " ns", CHARGE: " p.e."}


# What replaces a column that the data lack.
REPLACED = {
    CHARGE: "no column charge: every pulse counts as 1 p.e.",
    AUXILIARY: "no column hlc or auxiliary: every pulse counts as not auxiliary",
    RDE: "no column rde: the efficiency in the table of DOMs is used",
}


def identity(known: InputConfig | Detector) -> dict[str, Any]:
    """Return the properties by which detectors differ, as plain values."""
    absent = _absent(known)
    source = known if isinstance(known, InputConfig) else known.pulses
    only = source.only_triggered
    return {
        "telescope": known.telescope,
        "clock": known.clock,
        "scales": asdict(known.scales),
        **({} if absent is None else {"missing_columns": ", ".join(absent) or "none"}),
        **({} if only is None else {"only_triggered": only}),
    }


def _absent(known: InputConfig | Detector) -> tuple[str, ...] | None:
    """Return the features without a column; None if not known."""
    if isinstance(known, InputConfig):
        if known.absent is not None or known.detector not in list_detectors():
            return known.absent
        known = build_detector(known.detector)
    return known.pulses.absent


class DomainError(ValueError):
    """The data have another detector or clock than the training of the model.

    Or `max_pulses` or selection differ from those of the stored calibration.
    """


class Domain:
    """Comparison of the training of a model with the data that it is used on.

    Args:
        config: Reading of the training events; None compares nothing.
        detector: Detector of the data.
        options: Reading of the data.
        unknown_detector: Whether another detector or clock is allowed.
        columns: Pulse columns of the data, some of which the model may not read.

    Attributes:
        counts: Number of compared events, and of those outside each range.
        faults: Reasons why the data belong to another detector.
        lacking: Columns of the training that the data lack, and what replaces them.
        differences: The faults, and differences in reading from the training.
        notices: Columns that the model does not read, and a missing rde.

    Raises:
        DomainError: Detector, clock, scales or features differ, and
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
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.differences: list[str] = []
        self.notices: list[str] = []
        self.lacking: list[str] = []
        if config is None:
            return
        scales = options.scales or detector.scales
        self.faults = _faults(config, replace(detector, scales=scales))
        if self.faults and not unknown_detector:
            advice, presets = "", list_detectors()
            names = [n for n in (config.detector, config.telescope) if n in presets]
            if names:
                advice = (
                    "Files of the model's detector are read with --detector "
                    f"{names[0]} --clock {config.clock} (detector={names[0]!r}, "
                    f"clock={config.clock!r}). "
                )
            raise DomainError(
                f"{'; '.join(self.faults)}. Its answers would be unreliable. {advice}"
                "Use --unknown-detector (unknown_detector=True) to get them anyway, "
                "without calibrated widths"
            )
        self.differences += self.faults
        for name in READING:
            trained, asked = getattr(config, name), getattr(options, name)
            if name != "scales" and trained != asked:
                self.differences.append(
                    f"the model was trained with {name} {trained} but is used with "
                    f"{asked}"
                )
        pulses, trained = detector.pulses, _absent(config)
        if trained is not None:
            self.lacking = [
                f"{REPLACED[name]}, but the model was trained with such a column"
                for name in pulses.absent
                if name not in trained
            ]
            self.differences += self.lacking
        without = pulses.rde is None or (columns and pulses.rde not in columns)
        if detector.telescope == ICECUBE and pulses.sensor_id is None and without:
            self.notices.append(REPLACED[RDE])
        known = {*config.features, *pulses.columns()}
        extra = [name for name in pulses.extra if name not in config.features]
        self.add_unread([*extra, *(name for name in columns if name not in known)])

    def add_unread(self, names: Iterable[str]) -> None:
        """Add a notice of columns that the model does not read."""
        if text := ", ".join(names):
            self.notices.append(f"columns that the model does not read: {text}")

    def check_values(
        self,
        columns: Mapping[str, NDArray[Any]],
        offsets: NDArray[np.int64],
        n_pulses_B: NDArray[np.integer[Any]],
    ) -> NDArray[np.bool_]:
        """Count events outside the trained ranges; return True for those inside, (B,).

        Args:
            columns: Pulses (T,) by quantity, in physical units and the detector's
                clock.
            offsets: Borders of the events, (B + 1,); events may be empty.
            n_pulses_B: Number of pulses before selection, (B,).
        """
        num_events = len(offsets) - 1
        self.counts[EVENTS] += num_events
        inside_B = np.ones(num_events, bool)
        if self.config is None or not self.config.ranges:
            return inside_B
        values = {name: np.asarray(value) for name, value in columns.items()}
        if SENSOR_ID in values and X not in values:
            position_S3 = self.detector.modules_or_icecube86.position_S3.numpy()
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
                # More than half of the pulses, because noise reaches the edges.
                num_out_B = np.bincount(event_T, out_T, num_events)
                out_B = num_out_B / np.maximum(length_B, 1) > 0.5
            else:
                continue
            self.counts[name] += int(out_B.sum())
            inside_B &= ~out_B
        return inside_B

    def warnings(self) -> list[str]:
        """Return the texts of all warnings."""
        texts = []
        ranges = {} if self.config is None else self.config.ranges
        for name, (low, high) in ranges.items():
            share = self.counts[name] / max(1, self.counts[EVENTS])
            if share < WORTH_A_WARNING:
                continue
            hint = ""
            if name == TIME and self.detector.clock == "window":
                hint = (
                    ". If the times are not relative to IceCube's readout window, use "
                    "a pulse map with time_reference='first_pulse'"
                )
            texts.append(
                f"{name}: {share:.1%} of the events are outside the range of the "
                f"training, {low:g} to {high:g}{UNITS.get(name, '')}{hint}"
            )
        if texts:
            texts.append("events outside the ranges are not marked as calibrated")
        return [*self.differences, *texts]


def _faults(config: InputConfig, detector: Detector) -> list[str]:
    """Return the reasons why data do not belong to the detector of the training."""
    faults = []
    if detector.telescope != config.telescope:
        hint, theirs = "", config.telescope
        if detector.telescope == UNNAMED and theirs == ICECUBE:
            hint = (
                " (if these are pulses of IceCube-86, read them with --detector "
                "icecube86, detector='icecube86')"
            )
        faults.append(
            f"the model was trained on detector {theirs!r}, the data are "
            f"from {detector.telescope!r}{hint}"
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
    pair = config.only_triggered, detector.pulses.only_triggered
    if None not in pair and pair[0] != pair[1]:
        trained, given = (PULSES[bool(only)] for only in pair)
        faults.append(
            f"the model was trained on {trained}, the data have {given}: prepare them "
            f"with{'' if pair[0] else 'out'} --triggered-hits (triggered_hits)"
        )
    features = detector.pulses.feature_names[: len(config.features)]
    if features != config.features:
        faults.append(
            f"the model reads the features {', '.join(config.features)}, detector "
            f"{detector.name!r} gives {', '.join(features)}"
        )
    return faults
