"""InputConfig: how the events were read that a model was trained on.

It lies in the metadata of every saved model, so that reconstruction asks the file and
nobody else.
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
from graphnet_icecube2nd.events.selection import check_selection


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What a model was trained on.

    Args:
        detector: Name of the detector.
        telescope: The physical telescope behind it, see `Detector`.
        clock: `window`: IceCube's readout window; `first_pulse`: times since the
            event's first pulse.
        scales: Units of the features.
        features: Columns of the batches, in their order.
        max_pulses: Longer events were cut to this many pulses.
        selection: Which pulses were kept then: `uniform`, `hlc_first`, `first`.
        published_features: Efficiency and ice had the slips of the competition's code.
        ranges: Smallest and largest value of quantities that 99.8% of the training
            events have: `x`, `y`, `z` [m], `time` [ns], `charge` [p.e.], `n_pulses`.

    Raises:
        ValueError: A value that is not allowed; the message begins with its name.
    """

    detector: str = ICECUBE
    telescope: str = ICECUBE
    clock: str = "window"
    scales: Scales = DEFAULT_SCALES
    features: tuple[str, ...] = FEATURE_NAMES
    max_pulses: int = 192
    selection: str = "uniform"
    published_features: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        ranges = {
            str(name): (float(low), float(high))
            for name, (low, high) in self.ranges.items()
        }
        object.__setattr__(self, "ranges", ranges)
        check_one_of("clock", self.clock, TIME_REFERENCES)
        check_selection(self.selection, self.max_pulses)

    @classmethod
    def of(cls, detector: Detector, **changes: Any) -> InputConfig:
        """Return the configuration of events of a detector."""
        return cls(
            **{
                "detector": detector.name,
                "telescope": detector.telescope,
                "clock": detector.clock,
                "scales": detector.scales,
                "features": detector.pulses.feature_names,
                **changes,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and YAML can hold."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputConfig:
        """Rebuild what `to_dict` gave.

        Raises:
            ValueError: An unknown name or a value that is not allowed.
        """
        return from_plain(cls, values)
