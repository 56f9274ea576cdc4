"""InferenceConfig: how a model reads events when it reconstructs, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphnet_icecube2nd.events.input_config import InputConfig

PRECISIONS = ("float32", "bfloat16")
READING = ("max_pulses", "selection", "published_features")  # as in `InputConfig`


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a model reads events, and how fast.

    Args:
        max_pulses: Longer events are cut to this many pulses.
        selection: Pulses that are kept then: `uniform`, `hlc_first`, `first`.
        seed: Random seed of that selection.
        batch_size: Events of a batch.
        precision: `float32`, or `bfloat16` (autocast).
        published_features: Efficiency and ice with the slips of the competition's code,
            for its weights.

    Raises:
        ValueError: A value that is not allowed.
    """

    max_pulses: int = 192
    selection: str = "uniform"
    seed: int = 0
    batch_size: int = 64
    precision: str = "float32"
    published_features: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}"
            )
        for name in ("max_pulses", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")

    @classmethod
    def of(cls, config: InputConfig | None, **changes: Any) -> InferenceConfig:
        """Return how a model was trained to read events; the defaults of None."""
        known = {} if config is None else {n: getattr(config, n) for n in READING}
        return cls(**{**known, **changes})
