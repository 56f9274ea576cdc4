"""Random numbers that depend only on their keys.

A number is a hash of (seed, epoch, stream, event, counters). It is the same in any
batch, order and process, and needs no numbers before it. All functions work on whole
arrays. Shape letters: B events, T pulses, E events to draw for, N numbers drawn; `...`
any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SELECTION_STREAM = 0  # augmentations begin at 1

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_LARGEST_MEAN = 500.0  # exp(-mean) is a normal number up to 708
# Rounds of the Feistel network, with a margin. In half a million draws ten rounds on
# five numbers still show a bias; four rounds on more than 64 numbers show none.
_TURNS = 6
_SMALL_TURNS = 18
_SMALL = 8  # rows, for 64 numbers or fewer


@dataclass(frozen=True, kw_only=True)
class RandomKey:
    """Key of the random numbers for one purpose."""

    seed: int  # any integer; only its last 64 bits count
    epoch: int = 0  # each epoch has other numbers for the same event
    stream: int = 0  # separates users of random numbers, such as two augmentations

    def of_events(self, event_id_B: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return a key for each event, (B,), from event ids (B,) int64."""
        # An array of one: numpy warns if a scalar overflows, but not if an array does.
        key = np.zeros(1, np.uint64)
        for part in (self.seed, self.epoch, self.stream):
            key = combine(key, np.uint64(part % 2**64))
        return combine(key, event_id_B)


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step (Steele, Lea and Flood, OOPSLA 2014), modulo 2**64."""
    mixed = value + _GAMMA
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def combine(
    key: NDArray[np.uint64], counter: NDArray[np.integer[Any]] | np.uint64 | int
) -> NDArray[np.uint64]:
    """Return keys of counters (modulo 2**64) under keys; both broadcast.

    They are practically independent of each other and of `key`.
    """
    if isinstance(counter, np.ndarray):
        return mix(key ^ counter.astype(np.uint64))
    return mix(key ^ np.uint64(counter))


def pulse_keys(
    key_B: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return a key (T,) for each pulse, from its event's key and its position in it."""
    lengths = np.diff(offsets)
    position_T = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return combine(np.repeat(key_B, lengths), position_T)


def uniform(key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a number from 0 to 1, 1 excluded, for each key; (...) float64."""
    number: NDArray[np.float64] = (key >> np.uint64(11)) * 2.0**-53
    return number


def normal(key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a standard normal number for each key; (...) float64.

    Box and Muller (Ann. Math. Stat. 29, 1958), with the two halves of the key. So no
    number exceeds 6.8 sigma, as one in 10**11 would.
    """
    # Half a step is added, so that the logarithm never meets 0.
    radius = ((key >> np.uint64(32)) + 0.5) * 2.0**-32
    angle = (key & np.uint64(0xFFFFFFFF)) * (2 * math.pi * 2.0**-32)
    number: NDArray[np.float64] = np.sqrt(-2.0 * np.log(radius)) * np.cos(angle)
    return number


def poisson(
    mean_B: NDArray[np.float64], key_B: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return a Poisson number (B,) for each finite mean, by inversion.

    The work grows with the largest mean. A mean above 500 is divided into equal parts,
    whose numbers are added.
    """
    total_B = np.zeros(len(mean_B), np.int64)
    parts_B = np.ceil(mean_B / _LARGEST_MEAN)
    for part in range(int(parts_B.max(initial=0))):
        event = np.flatnonzero(parts_B > part)
        part_mean = mean_B[event] / parts_B[event]
        drawn = uniform(combine(key_B[event], part))
        chance = np.exp(-part_mean)
        below = chance.copy()  # probability of `number` or fewer
        number = 0
        # Rounding may keep the sum below the drawn value; the probability of more is 0
        # by then.
        while len(event := event[more := (drawn >= below) & (chance > 0)]):
            number += 1
            total_B[event] += 1
            part_mean, drawn = part_mean[more], drawn[more]
            chance = chance[more] * part_mean / number
            below = below[more] + chance
    return total_B


def draw_without_replacement(
    size_E: NDArray[np.int64], count_E: NDArray[np.int64], key_E: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Draw `count` distinct numbers 0 to size - 1, at random, for each of many events.

    They are (N,), the first event first, in no particular order within an event. They
    are the images of 0 to count - 1 under a bijection of {0 .. size - 1} chosen by the
    key: the generalised Feistel network of Black and Rogaway, "Ciphers with arbitrary
    finite domains" (CT-RSA 2002). It works on a rectangle of `rows` x `columns` cells
    that is slightly larger than `size`; a number outside `size` is mapped again.
    """
    rows_E = np.ceil(np.sqrt(size_E)).astype(np.uint64)
    columns_E = (size_E.astype(np.uint64) + rows_E - np.uint64(1)) // rows_E
    size_N, rows_N, columns_N, key_N = (
        np.repeat(values_E, count_E)
        for values_E in (size_E.astype(np.uint64), rows_E, columns_E, key_E)
    )
    # On Windows numpy before 2.0 counts in 32 bits by default.
    end_E = np.cumsum(count_E, dtype=np.int64)
    number_N = np.arange(end_E[-1]) - np.repeat(end_E - count_E, count_E)
    drawn_N = _shuffle(number_N.view(np.uint64), rows_N, columns_N, key_N)
    while len(outside := np.flatnonzero(drawn_N >= size_N)):
        cells = (drawn_N, rows_N, columns_N, key_N)
        drawn_N[outside] = _shuffle(*(values_N[outside] for values_N in cells))
    drawn: NDArray[np.int64] = drawn_N.view(np.int64)
    return drawn


def _shuffle(
    cell_N: NDArray[np.uint64],
    rows_N: NDArray[np.uint64],
    columns_N: NDArray[np.uint64],
    key_N: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Map the numbers of a rectangle's cells one to one onto each other, (N,)."""
    row_N = cell_N // columns_N
    column_N = cell_N - row_N * columns_N
    cells = (row_N, column_N, rows_N, columns_N, key_N)
    row_N, column_N = _turn(*cells, turns=range(_TURNS))
    small = np.flatnonzero(rows_N <= _SMALL)
    if len(small):
        cells = (row_N, column_N, rows_N, columns_N, key_N)
        row_N[small], column_N[small] = _turn(
            *(values_N[small] for values_N in cells), turns=range(_TURNS, _SMALL_TURNS)
        )
    return row_N * columns_N + column_N


def _turn(
    row_N: NDArray[np.uint64],
    column_N: NDArray[np.uint64],
    rows_N: NDArray[np.uint64],
    columns_N: NDArray[np.uint64],
    key_N: NDArray[np.uint64],
    *,
    turns: range,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Move rows by columns and columns by rows; the number of rounds is even."""
    for turn in turns:
        # Each is moved by a random function of the other. The move can be undone, so no
        # two cells become one. The function is SplitMix64's step without the parts that
        # have no effect if the key is mixed and only the upper half is used.
        step_N = column_N ^ key_N
        step_N ^= np.uint64(turn << 32)
        step_N *= np.uint64(0xBF58476D1CE4E5B9)
        step_N ^= step_N >> np.uint64(32)
        step_N *= np.uint64(0x94D049BB133111EB)
        step_N >>= np.uint64(32)
        step_N *= rows_N
        step_N >>= np.uint64(32)  # 0 to rows - 1
        step_N += row_N
        # A value below 0 wraps around to a huge number, so this is the remainder.
        np.minimum(step_N, step_N - rows_N, out=step_N)
        row_N, column_N = column_N, step_N
        rows_N, columns_N = columns_N, rows_N
    return row_N, column_N
