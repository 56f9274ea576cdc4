"""Which pulses of a long event are kept.

A model's cost grows with the square of an event's length, and one event in a
thousand has over 19,000 pulses; so a long event is cut to `max_pulses`, always in
the order it came. What is kept follows from an event's length (and its flags, for
`hlc_first`), at a cost that does not grow with it: no pulse need be read that is not
kept. Shape letters: T pulses, B events, K kept pulses, E long events, L pulses kept
of each, N drawn at random, H HLC pulses of the long events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.events.random_numbers import (
    SELECTION_STREAM,
    RandomKey,
    draw_without_replacement,
)

SELECTIONS = ("uniform", "hlc_first", "first")

ReadAuxiliary = Callable[[int], NDArray[np.bool_]]


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
    border = offsets.numpy()
    read_auxiliary = None
    if auxiliary is not None:
        flag_T = auxiliary.numpy()

        def read_auxiliary(event: int) -> NDArray[np.bool_]:
            flag: NDArray[np.bool_] = flag_T[border[event] : border[event + 1]] > 0.5
            return flag

    length_B = np.diff(border)
    long_E, position_EL = select_positions(
        length_B,
        max_pulses,
        selection=selection,
        read_auxiliary=read_auxiliary,
        event_id=None if event_id is None else event_id.numpy(),
        seed=seed,
        epoch=epoch,
    )
    if not len(long_E):
        return torch.arange(int(border[-1])), offsets
    kept_B = np.minimum(length_B, max_pulses)
    kept_border = np.zeros_like(border)
    np.cumsum(kept_B, out=kept_border[1:])
    kept_K = np.arange(kept_border[-1])
    kept_K += np.repeat(border[:-1] - kept_border[:-1], kept_B)
    place_EL = kept_border[long_E, None] + np.arange(max_pulses)
    kept_K[place_EL] = border[long_E, None] + position_EL
    return torch.from_numpy(kept_K), torch.from_numpy(kept_border)


def select_positions(
    length_B: NDArray[np.integer[Any]],
    max_pulses: int,
    *,
    selection: str = "uniform",
    read_auxiliary: ReadAuxiliary | None = None,
    event_id: NDArray[np.int64] | None = None,
    seed: int | None = None,
    epoch: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the pulses of long events, as `select_pulses`, without having any at hand.

    Returns the indices of the events of more than `max_pulses` L pulses in the batch,
    (E,), and of the pulses that each of them keeps, (E, L), ascending. `hlc_first`
    calls `read_auxiliary`, which gives an event's flags (length,), once for each.
    """
    check_selection(selection, max_pulses)
    if selection == "hlc_first" and read_auxiliary is None:
        raise ValueError("selection 'hlc_first' needs the auxiliary column")
    long_E = np.flatnonzero(length_B > max_pulses)
    shape = (len(long_E), max_pulses)
    if not len(long_E):
        return long_E, np.zeros(shape, np.int64)
    if selection == "first":
        return long_E, np.tile(np.arange(max_pulses), (len(long_E), 1))
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    id_E = long_E if event_id is None else event_id[long_E]
    key = RandomKey(seed=seed, epoch=epoch, stream=SELECTION_STREAM)
    key_E = key.of_events(id_E)
    length_E = length_B[long_E].astype(np.int64)
    if read_auxiliary is None or selection == "uniform":
        count_E = np.full(len(long_E), max_pulses)
        position_EL = draw_without_replacement(length_E, count_E, key_E).reshape(shape)
    else:
        hlc = []
        for event, length in zip(long_E.tolist(), length_E.tolist(), strict=True):
            auxiliary = read_auxiliary(event)
            if auxiliary.dtype != np.bool_ or auxiliary.shape != (length,):
                raise ValueError(
                    f"read_auxiliary must give ({length},) bool for event {event}, got "
                    f"{auxiliary.shape} {auxiliary.dtype}"
                )
            hlc.append(np.flatnonzero(~auxiliary))
        position_EL = _hlc_first(hlc, length_E, max_pulses, key_E)
    position_EL.sort(axis=1)
    return long_E, position_EL


def check_selection(selection: str, max_pulses: int) -> None:
    """Raise ValueError for an unknown selection, or no whole number from 1."""
    if selection not in SELECTIONS:
        raise ValueError(
            f"unknown selection {selection!r}; choose from {', '.join(SELECTIONS)}"
        )
    if not isinstance(max_pulses, int) or max_pulses < 1:
        raise ValueError(
            f"max_pulses must be a whole number, at least 1, got {max_pulses!r}"
        )


def _hlc_first(
    hlc: list[NDArray[np.int64]],
    length_E: NDArray[np.int64],
    max_pulses: int,
    key_E: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Return the positions kept, (E, L), unsorted; `hlc` are E arrays of positions."""
    hlc_H, num_hlc_E = np.concatenate(hlc), np.array([len(part) for part in hlc])
    start_E = np.cumsum(num_hlc_E) - num_hlc_E
    enough_E = num_hlc_E >= max_pulses
    # Drawn are HLC pulses where there are enough of them, else others beside them all.
    size_E = np.where(enough_E, num_hlc_E, length_E - num_hlc_E)
    count_E = np.where(enough_E, max_pulses, max_pulses - num_hlc_E)
    rank_N = draw_without_replacement(size_E, count_E, key_E)
    event_N = np.repeat(np.arange(len(hlc)), count_E)
    # The r-th of the others stands behind as many HLC pulses as have r or fewer others
    # before them. One search for all events: each has a range of numbers of its own.
    event_H = np.repeat(np.arange(len(hlc)), num_hlc_E)
    others_before_H = hlc_H - (np.arange(len(hlc_H)) - start_E[event_H])
    span = int(length_E.max()) + 1
    found_N = np.searchsorted(
        others_before_H + span * event_H, rank_N + span * event_N, side="right"
    )
    drawn_N = rank_N + found_N - start_E[event_N]
    is_hlc_N = enough_E[event_N]
    drawn_N[is_hlc_N] = hlc_H[(start_E[event_N] + rank_N)[is_hlc_N]]
    position_EL = np.empty((len(hlc), max_pulses), np.int64)
    is_drawn_EL: NDArray[np.bool_] = np.arange(max_pulses) < count_E[:, None]
    position_EL[is_drawn_EL] = drawn_N
    position_EL[~is_drawn_EL] = hlc_H[~enough_E[event_H]]
    return position_EL
