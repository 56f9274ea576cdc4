"""Exceptions with more than a message, and helpers for error messages."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

# Exceptions that values of an unexpected type or size can cause.
ODD_VALUES = (
    *(ArithmeticError, AttributeError, IndexError, KeyError, TypeError),
    *(RuntimeError, UnicodeError, csv.Error),
)


class CheckpointError(ValueError):
    """A checkpoint does not fit the model; the message names every key at fault."""


class PulseError(ValueError):
    """A pulse has a value that is not possible.

    Args:
        message: Value found, its place, and the allowed range.
        pulse: Index of the pulse among the T pulses of the batch.
    """

    def __init__(self, message: str, pulse: int) -> None:
        super().__init__(message)
        self.pulse = pulse


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a validation value is not finite.

    Args:
        message: Quantity that is not finite, and its step.
        event_id: Events at fault. A gradient cannot be assigned to single events, so
            it has all events of the step on this rank.
    """

    def __init__(self, message: str, event_id: list[int]) -> None:
        super().__init__(message)
        self.event_id = event_id


def check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError if a value is not one of the allowed ones."""
    if value not in [*allowed]:  # a value may be a list
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ValueError unless an option is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, found {value!r}")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless an option is above 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, found {value}")


@contextmanager
def naming(file: object, what: str = "") -> Iterator[None]:
    """Turn errors about the content of a file into ValueErrors that name the file.

    Use it only around code that takes the values of a file apart. `what` begins the
    message of a file that cannot be understood: `no calibration`.
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
