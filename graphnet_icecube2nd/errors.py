"""Errors that tell callers more than their message."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint does not fit the model; the message names every key at fault."""


class PulseError(ValueError):
    """A value of a pulse that cannot be true.

    Args:
        message: What was found, where, and what is allowed.
        pulse: Index of the pulse among the T pulses of the batch.
    """

    def __init__(self, message: str, pulse: int) -> None:
        super().__init__(message)
        self.pulse = pulse


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a validation is not finite.

    Args:
        message: What is not finite, and in which step.
        event_id: Events at fault; for a gradient, to which single events cannot be
            assigned, all events of the step on this rank.
    """

    def __init__(self, message: str, event_id: list[int]) -> None:
        super().__init__(message)
        self.event_id = event_id
