"""Which pulses of a long event are kept.

A model's cost grows with the square of an event's length, and one event in a
thousand has over 19,000 pulses; so a long event is cut to `max_pulses`, always in
the order it came. Shape letters: T pulses, B events, K kept pulses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SELECTIONS = ("uniform", "hlc_first", "first")


def select_pulses(
    offsets: Tensor,
    max_pulses: int,
    *,
    selection: str = "uniform",
    auxiliary: Tensor | None = None,
    event_id: Tensor | None = None,
    seed: int | None = None,
    epoch: int = 0,
) -> tuple[Tensor, Tensor]:
    """Choose at most `max_pulses` pulses of every event of a batch.

    `uniform` keeps a random subset, which is what the published code does: it means
    to take HLC pulses first but indexes a permutation by position. `hlc_first` does
    what it meant: all HLC pulses (auxiliary false) before any other, at random among
    equals. `first` keeps the first ones.

    The choice is a function of (seed, epoch, event) alone: neither the batch an
    event sits in nor the number of workers changes it.

    Args:
        offsets: (B + 1,) int64 borders of the events.
        max_pulses: Longest event allowed, at least 1.
        selection: One of `SELECTIONS`.
        auxiliary: (T,) true where the pulse is not HLC; `hlc_first` needs it.
        event_id: (B,) int64, what tells events apart; default: position in batch.
        seed: Seed of the choice; None draws one from torch's global generator.
        epoch: A new epoch shows other pulses of the same event.

    Returns:
        Indices of the kept pulses (K,) int64, ascending, and their offsets
        (B + 1,) int64.

    Raises:
        ValueError: Unknown selection, `max_pulses` below 1, no auxiliary for
            `hlc_first`.
    """
    check_selection(selection, max_pulses)
    if selection == "hlc_first" and auxiliary is None:
        raise ValueError("selection 'hlc_first' needs the auxiliary column")
    lengths = offsets.diff()
    if int(lengths.max()) <= max_pulses:
        return torch.arange(int(offsets[-1])), offsets
    event_T = np.repeat(np.arange(len(lengths)), lengths.numpy())
    position_T = np.arange(len(event_T)) - offsets.numpy()[event_T]
    if selection == "first":
        rank_T = position_T
    else:
        ids = np.arange(len(lengths)) if event_id is None else event_id.numpy()
        key_T = _random_keys(ids[event_T], position_T, seed, epoch)
        if auxiliary is not None and selection == "hlc_first":
            order_T = np.lexsort((key_T, auxiliary.numpy() > 0.5, event_T))
        else:
            order_T = np.lexsort((key_T, event_T))
        # Events are contiguous, so after sorting within events the position of a
        # pulse in its event is its rank.
        rank_T = np.empty_like(position_T)
        rank_T[order_T] = position_T
    kept = torch.from_numpy(np.flatnonzero(rank_T < max_pulses))
    kept_offsets = torch.zeros_like(offsets)
    torch.cumsum(lengths.clamp(max=max_pulses), 0, out=kept_offsets[1:])
    return kept, kept_offsets


def check_selection(selection: str, max_pulses: int) -> None:
    """See that a way of selecting is one.

    Raises:
        ValueError: Unknown selection, or `max_pulses` no whole number from 1.
    """
    if selection not in SELECTIONS:
        raise ValueError(
            f"unknown selection {selection!r}; choose from {', '.join(SELECTIONS)}"
        )
    if not isinstance(max_pulses, int) or max_pulses < 1:
        raise ValueError(
            f"max_pulses must be a whole number, at least 1, got {max_pulses!r}"
        )


def _random_keys(
    event_T: NDArray[np.int64],
    position_T: NDArray[np.int64],
    seed: int | None,
    epoch: int,
) -> NDArray[np.uint64]:
    """Return a random number per pulse that depends on nothing but its arguments."""
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    key_T = _mix(np.full(1, seed % 2**64, dtype=np.uint64))
    for part in (np.full(1, epoch), event_T, position_T):
        key_T = _mix(key_T ^ part.astype(np.uint64))
    return key_T


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step (Steele, Lea and Flood, OOPSLA 2014), modulo 2**64."""
    mixed = value + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    last: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return last
