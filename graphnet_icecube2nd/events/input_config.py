"""InputConfig: the preparation of the events on which a model was trained.

The metadata of every saved model contains it, so that reconstruction needs only the
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphnet_icecube2nd.config import from_plain, to_plain
from graphnet_icecube2nd.conventions import FEATURE_NAMES
from graphnet_icecube2nd.detector.detector import ICECUBE, Detector
from graphnet_icecube2nd.detector.pulse_map import (
    DEFAULT_SCALES,
    TIME_REFERENCES,
    Scales,
)
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.features import DETECTOR, POSITIONS
from graphnet_icecube2nd.events.selection import check_selection


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Preparation of the events on which a model was trained.

    Args:
        detector: Name of the detector.
        telescope: Name of the physical telescope; see `Detector`.
        clock: Clock of the times. `window`: IceCube's readout window; `first_pulse`:
            times since the event's first pulse; `first_triggered`: since its first
            pulse with the trigger flag.
        scales: Units of the features.
        features: Columns of the batches, in order.
        max_pulses: Maximum pulses per event; longer events were cut.
        selection: Rule for the pulses kept of longer events: `uniform`, `hlc_first` or
            `first`.
        positions: Point from which x, y and z count: `detector`, its centre, or
            `charge_centre`, that of each event (see `features.centre_positions`).
        published_features: Whether efficiency and ice had the errors of the
            competition's code.
        absent: Features for which the training had no column, see `PulseMap.absent`;
            None if not recorded (models of earlier releases).
        only_triggered: Whether the training had only pulses of the trigger; None if not
            known, see `PulseMap`.
        ranges: Smallest and largest value of quantities for 99.8% of the training
            events: `x`, `y`, `z` [m], `time` [ns], `charge` [p.e.], `n_pulses`.

    Raises:
        ValueError: A value is not allowed; the message begins with its name.
    """

    detector: str = ICECUBE
    telescope: str = ICECUBE
    clock: str = "window"
    scales: Scales = DEFAULT_SCALES
    features: tuple[str, ...] = FEATURE_NAMES
    max_pulses: int = 192
    selection: str = "uniform"
    positions: str = DETECTOR
    published_features: bool = False
    absent: tuple[str, ...] | None = None
    only_triggered: bool | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if self.absent is not None:
            object.__setattr__(self, "absent", tuple(self.absent))
        ranges = {
            str(name): (float(low), float(high))
            for name, (low, high) in self.ranges.items()
        }
        object.__setattr__(self, "ranges", ranges)
        check_one_of("clock", self.clock, TIME_REFERENCES)
        check_one_of("positions", self.positions, POSITIONS)
        check_selection(self.selection, self.max_pulses)

    @classmethod
    def of(cls, detector: Detector, **changes: Any) -> InputConfig:
        """Return the configuration for events of a detector."""
        return cls(
            **{
                "detector": detector.name,
                "telescope": detector.telescope,
                "clock": detector.clock,
                "scales": detector.scales,
                "features": detector.pulses.feature_names,
                "absent": detector.pulses.absent,
                "only_triggered": detector.pulses.only_triggered,
                **changes,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and YAML."""
        plain: dict[str, Any] = to_plain(self)
        if self.only_triggered is None:
            del plain["only_triggered"]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputConfig:
        """Rebuild a configuration from `to_dict`.

        Raises:
            ValueError: A name is unknown or a value is not allowed.
        """
        return from_plain(cls, values)
