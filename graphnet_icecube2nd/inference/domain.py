"""The domain guard: is a model used on what it was trained on?

Shape letters: B events, T pulses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import CHARGE, SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.store.manifest import N_PULSES

# Share of the events outside the trained range of a quantity from which it is said.
# By construction 0.2% of the training events lie outside.
WORTH_A_WARNING = 0.02
EVENTS = "events"
READ_OTHERWISE = ("max_pulses", "selection", "published_features")
UNITS = {X: "m", Y: "m", Z: "m", TIME: "ns", CHARGE: "p.e."}


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


@dataclass(kw_only=True)
class Domain:
    """What a model was trained on, beside what it is used on."""

    # How the events of the training were read; None: the model's file does not say.
    config: InputConfig | None
    # Why the data are of another detector, in words; empty: they are not.
    faults: list[str] = field(default_factory=list)
    # `faults`, and what else is read otherwise than in the training.
    differences: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # what else is worth knowing
    num_events: int = 0  # that were compared
    num_outside: dict[str, int] = field(default_factory=dict)  # by quantity
    clock: str = "window"

    @classmethod
    def compare(
        cls,
        config: InputConfig | None,
        detector: Detector,
        options: InferenceConfig,
        *,
        unknown_detector: bool = False,
        columns: Collection[str] = (),
    ) -> Domain:
        """Compare a model's detector, clock, columns and reading with those of data.

        Raises:
            DomainError: Another detector or clock, other scales or features, and
                `unknown_detector` is not set.
        """
        domain = cls(config=config, clock=detector.clock)
        if config is None:
            return domain
        faults = []
        if detector.telescope != config.telescope:
            faults.append(
                f"the model was trained on detector {config.telescope!r}, the data are "
                f"of {detector.telescope!r}"
            )
        if detector.clock != config.clock:
            faults.append(
                f"the model was trained on times of clock {config.clock!r}, the data "
                f"have {detector.clock!r} (time_reference of the pulse map)"
            )
        if detector.scales != config.scales:
            faults.append(
                f"the model was trained with {config.scales}, detector "
                f"{detector.name!r} has {detector.scales}"
            )
        features = detector.pulses.feature_names[: len(config.features)]
        if features != config.features:
            faults.append(
                f"the model reads the features {', '.join(config.features)}, detector "
                f"{detector.name!r} gives {', '.join(features)}"
            )
        if faults and not unknown_detector:
            raise DomainError(
                f"{'; '.join(faults)}. Its answers would mean little. To use it all "
                "the same, without calibrated widths: --unknown-detector "
                "(unknown_detector=True)"
            )
        domain.faults = faults
        domain.differences += faults
        for name in READ_OTHERWISE:
            trained, asked = getattr(config, name), getattr(options, name)
            if trained != asked:
                domain.differences.append(
                    f"the model was trained with {name} {trained}, and is used with "
                    f"{asked}"
                )
        known = {*config.features, *detector.pulses.columns()}
        extra = [name for name in detector.pulses.extra if name not in config.features]
        extra += [name for name in columns if name not in known]
        domain.add_unread(extra)
        return domain

    def add_unread(self, names: Iterable[str]) -> None:
        """Note columns of the data that the model does not read."""
        if text := ", ".join(names):
            self.notices.append(f"columns that the model does not read: {text}")

    def check_values(
        self,
        columns: Mapping[str, NDArray[Any]],
        offsets: NDArray[np.int64],
        n_pulses_B: NDArray[np.integer[Any]],
        detector: Detector,
    ) -> NDArray[np.bool_]:
        """Count events outside the trained ranges; return which are inside, (B,).

        Args:
            columns: (T,) pulses by quantity, physical units; times relative to the
                first pulse where the clock is that.
            offsets: (B + 1,) borders of the events, which may be empty.
            n_pulses_B: (B,) pulses of each event before selection.
            detector: Gives positions to pulses that only have a sensor_id.
        """
        num_events = len(offsets) - 1
        self.num_events += num_events
        inside_B = np.ones(num_events, bool)
        if self.config is None or not self.config.ranges:
            return inside_B
        values = {name: np.asarray(value) for name, value in columns.items()}
        if SENSOR_ID in values and X not in values:
            place_S3 = detector.places.position_S3.numpy()
            sensor_T = values[SENSOR_ID].astype(np.int64)
            values.update(zip((X, Y, Z), place_S3[sensor_T].T, strict=True))
        event_T = np.repeat(np.arange(num_events), np.diff(offsets))
        for name, (low, high) in self.config.ranges.items():
            if name == N_PULSES:
                out_B = (n_pulses_B < low) | (n_pulses_B > high)
                out_B &= np.diff(offsets) > 0
            elif name in values and len(event_T):
                out_T = (values[name] < low) | (values[name] > high)
                # Most pulses, not a few of noise at the edge.
                share_B = np.bincount(event_T, out_T, num_events)
                count_B = np.maximum(np.diff(offsets), 1)
                out_B = share_B / count_B > 0.5
            else:
                continue
            self.num_outside[name] = self.num_outside.get(name, 0) + int(out_B.sum())
            inside_B &= ~out_B
        return inside_B

    def counts(self) -> Counter[str]:
        """Return the number of events that were compared, and of those outside."""
        return Counter({EVENTS: self.num_events, **self.num_outside})

    def add(self, counts: Mapping[str, int]) -> None:
        """Add what was counted elsewhere, see `counts`."""
        total = self.counts() + Counter(counts)
        self.num_events = total.pop(EVENTS, 0)
        self.num_outside = dict(total)

    def warnings(self) -> list[str]:
        """Return what is worth a warning, in words."""
        texts = []
        for name, number in self.num_outside.items():
            if self.config is None or not self.num_events:
                continue
            share = number / self.num_events
            if share < WORTH_A_WARNING:
                continue
            low, high = self.config.ranges[name]
            unit = f" {UNITS[name]}" if name in UNITS else ""
            hint = ""
            if name == TIME and self.clock == "window":
                hint = (
                    "; if the times do not count in IceCube's readout window, give a "
                    "pulse map with time_reference='first_pulse'"
                )
            texts.append(
                f"{name}: {share:.1%} of the events lie outside the range that the "
                f"model was trained on, {low:g} to {high:g}{unit}{hint}"
            )
        if texts:
            texts.append("widths of such events are not called calibrated")
        return [*self.differences, *texts]
