"""InferenceConfig: reading of events, batch size and precision of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.features import DETECTOR, POSITIONS
from graphnet_icecube2nd.events.input_config import InputConfig

PRECISIONS = ("float32", "bfloat16")
# Names of `InputConfig`.
READING = ("max_pulses", "selection", "positions", "published_features", "scales")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Reading of events, batch size and precision of a reconstruction.

    Args:
        max_pulses: Maximum pulses per event.
        selection: Rule of the selection: `uniform`, `hlc_first` or `first`.
        seed: Random seed of the selection.
        batch_size: Number of events per batch.
        precision: Precision of the model: `float32`, or `bfloat16` (autocast).
        positions: Point from which positions count: `detector` or `charge_centre`.
        published_features: Whether efficiency and ice have the errors of the
            competition's code, which its weights need.
        scales: Units of the features, if they are not those of the model's detector,
            as those of a model that was carried over from another one; default: those
            of the detector of the data.

    Raises:
        ValueError: A value is not allowed.
    """

    max_pulses: int = 192
    selection: str = "uniform"
    seed: int = 0
    batch_size: int = 64
    precision: str = "float32"
    positions: str = DETECTOR
    published_features: bool = False
    scales: Scales | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}"
            )
        check_one_of("positions", self.positions, POSITIONS)
        for name in ("max_pulses", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")

    @classmethod
    def of(cls, config: InputConfig | None, **changes: Any) -> InferenceConfig:
        """Return the reading of a model's training, or the defaults, with changes."""
        known = {} if config is None else {n: getattr(config, n) for n in READING}
        if config is not None and config.scales == usual_scales(config.detector):
            known["scales"] = None
        return cls(**{**known, **changes})


def usual_scales(detector: str) -> Scales:
    """Return the scales of a registered detector, or the defaults."""
    known = detector in list_detectors()
    return build_detector(detector).scales if known else Scales()
