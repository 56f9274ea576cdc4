"""What words on the command line mean."""

from __future__ import annotations


def numbers(text: str, option: str) -> list[float]:
    """Return numbers with commas between.

    Raises:
        ValueError: It is something else; names the option.
    """
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} must be numbers with commas between, got {text!r}"
        ) from None


def shares(text: str, option: str) -> list[float]:
    """Return percentages with commas between as shares, 0 to 1.

    Raises:
        ValueError: It is something else; names the option.
    """
    found = numbers(text, option)
    if not all(0 < percent < 100 for percent in found):
        raise ValueError(f"{option} lie between 0 and 100 percent, got {text!r}")
    return [percent / 100 for percent in found]
