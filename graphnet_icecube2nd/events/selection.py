"""Selection of the pulses that are kept of a long event.

A model's cost grows with the square of an event's length, and one event in a thousand
has over 19,000 pulses. So a long event is cut to `max_pulses`, without changing the
order of its pulses. The selection depends on the event's length (and flags, for
`hlc_first`); its cost does not grow with the length, and pulses that are not kept need
not be read. Shape letters: T pulses, B events, K kept pulses, E long events, L pulses
kept of each, N drawn at random, H HLC pulses of the long events.
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

    `uniform` keeps a random subset, as the published code does (it intends to take HLC
    pulses first but indexes a permutation by position). `hlc_first` does what it
    intends: all HLC pulses (auxiliary false) before any other, at random among equals.
    `first` keeps the first pulses.

    The choice depends only on (seed, epoch, event), not on the batch or the number of
    workers.

    Args:
        offsets: Borders of the events, (B + 1,) int64.
        max_pulses: Maximum pulses per event, at least 1.
        selection: Rule of the selection, one of `SELECTIONS`.
        auxiliary: True if the pulse is not HLC, (T,); `hlc_first` needs it.
        event_id: Number of each event, (B,) int64; default: position in the batch.
        seed: Random seed of the selection; default: from torch's global generator.
        epoch: Epoch of the selection; each epoch keeps other pulses of an event.

    Returns:
        Indices of the kept pulses (K,) int64, ascending, and their offsets
        (B + 1,) int64.

    Raises:
        ValueError: The selection is unknown, `max_pulses` is below 1, or auxiliary is
            missing for `hlc_first`.
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
    """Choose the pulses of long events, as `select_pulses`, without reading pulses.

    Returns the indices of the events with more than `max_pulses` L pulses, (E,), and of
    the pulses kept in each, (E, L), ascending. `hlc_first` calls `read_auxiliary` once
    for each of these events; it must return the event's flags (length,).
    """
    check_selection(selection, max_pulses)
    if selection == "hlc_first" and read_auxiliary is None:
        raise ValueError(
            "selection 'hlc_first' needs the auxiliary column: give it, or choose "
            "another selection"
        )
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
    """Raise ValueError if selection is unknown or max_pulses not an integer >= 1."""
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
    """Return the kept positions, (E, L), unsorted; `hlc` are E arrays of positions."""
    hlc_H, num_hlc_E = np.concatenate(hlc), np.array([len(part) for part in hlc])
    start_E = np.cumsum(num_hlc_E) - num_hlc_E
    enough_E = num_hlc_E >= max_pulses
    # HLC pulses are drawn if there are enough; else all are kept and others are drawn.
    size_E = np.where(enough_E, num_hlc_E, length_E - num_hlc_E)
    count_E = np.where(enough_E, max_pulses, max_pulses - num_hlc_E)
    rank_N = draw_without_replacement(size_E, count_E, key_E)
    event_N = np.repeat(np.arange(len(hlc)), count_E)
    # The r-th other pulse follows all HLC pulses that have at most r others before
    # them. One search serves all events, as each has its own range of numbers.
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
