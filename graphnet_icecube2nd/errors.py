"""Errors that tell callers more than their message, and what errors have in common."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from contextlib import contextmanager

# What values of another type or size than expected can lead to.
ODD_VALUES = (
    *(ArithmeticError, AttributeError, IndexError, KeyError, TypeError),
    *(RuntimeError, UnicodeError, csv.Error),
)


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


def check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError for a value that is none of those that are allowed."""
    if value not in [*allowed]:  # a value may be a list
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


@contextmanager
def naming(file: object, what: str = "") -> Iterator[None]:
    """Let errors of what a file says name the file; they are ValueErrors then.

    To be used around what takes the values of a file apart, and nothing else. `what`
    says what the file is if it cannot be read: `no calibration`.
    """
    start = f"{file} is {what}: " if what else f"{file}: "
    try:
        yield
    except ODD_VALUES as error:
        raise ValueError(f"{start}a value is not as expected: {error!r}") from error
    except ValueError as error:
        if str(file) not in str(error):
            error.args = (f"{start}{error}", *error.args[1:])
        raise
