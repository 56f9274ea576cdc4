"""What an event may have been: numbers of a fit into particles that make light.

A hypothesis is a vector of numbers near 0, of unit size where the fit should look:
steps from a seed in place, time and direction, and logarithms of energies. Shape
letters: K hypotheses, N numbers of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.light import (
    MUON_LOSS,
    MUON_RADIATIVE_LOSS,
    Arrival,
    Medium,
    cascade_arrival,
    muon_range,
    track_arrival,
)

Array = NDArray[np.float64]

# How far one unit of a number goes.
STEP_PLACE = 5.0  # m
STEP_TIME = 10.0  # ns
STEP_DIRECTION = 0.05  # rad
STEP_ENERGY = 0.1  # decades
STEP_LENGTH = 5.0  # m

BEFORE = 1500.0  # m, how far from its place a track may begin
_ENERGIES = (0.0, 8.0)  # decades of GeV that a fit may use
_CRITICAL = MUON_LOSS / MUON_RADIATIVE_LOSS

# The numbers of each topology. `across` is a place in the plane across the flight,
# where a muon has its energy; it begins `back` before.
_TRACK = ("across", "time", "direction", "muon", "back", "cascade")
NUMBERS = {
    "through_going_track": _TRACK,
    "starting_track": _TRACK,
    "cascade": ("place", "time", "direction", "cascade"),
    "double_cascade": ("place", "time", "direction", "cascade", "second", "flown"),
    "muon_bundle": ("across", "time", "direction", "muon", "muons"),
}
_SIZES = {"across": 2, "place": 3, "direction": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Seed:
    """Where a fit begins; or K such, with a first axis for them.

    Args:
        place: (..., 3) a point of the track, or the vertex, m.
        time: (...) when, ns.
        direction: (..., 3) of flight, unit vector.
        muon: (...) energy of a muon at the place, GeV.
        back: (...) m from where the track begins to the place.
        cascade: (...) energy of the cascade, GeV.
        second: (...) energy of the second cascade, GeV.
        flown: (...) m between the cascades.
        muons: (...) how many.
    """

    place: Array
    time: Array
    direction: Array
    muon: Array
    back: Array
    cascade: Array
    second: Array
    flown: Array
    muons: Array

    @classmethod
    def of(cls, place: Array, time: float, direction: Array, **sizes: float) -> Seed:
        """Return one seed, with something for the sizes that are not given."""
        usual = {"muon": 1e3, "back": BEFORE, "cascade": 1e3, "second": 1e3}
        every = {**usual, "flown": 10.0, "muons": 1.0, "time": time, **sizes}
        return cls(
            place=np.asarray(place, dtype=np.float64),
            direction=np.asarray(direction, dtype=np.float64),
            **{name: np.asarray(float(size)) for name, size in every.items()},
        )

    @classmethod
    def stack(cls, seeds: Sequence[Seed]) -> Seed:
        """Return several as one."""
        names = [entry.name for entry in fields(cls)]
        return cls(**{n: np.stack([getattr(seed, n) for seed in seeds]) for n in names})

    def take(self, index: int | NDArray[np.int64]) -> Seed:
        """Return one, or some, of K seeds."""
        return Seed(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Vectors of numbers around a seed, as what makes light.

    Args:
        topology: One of NUMBERS.
        seed: Where all numbers are 0; of K seeds, each vector has its own.
    """

    topology: str
    seed: Seed

    @property
    def names(self) -> tuple[str, ...]:
        """The N numbers, by name."""
        return tuple(
            name for name in NUMBERS[self.topology] for _ in range(_SIZES.get(name, 1))
        )

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        return across(self.seed.direction)

    def around(self, numbers_KN: Array) -> Seed:
        """Return the K seeds that vectors of numbers stand for."""
        columns = self._columns(numbers_KN)
        sizes = ("muon", "back", "cascade", "second", "flown", "muons")
        return Seed(
            place=self._places(columns),
            time=self._times(columns),
            direction=self._directions(columns),
            **{name: self._size(name, columns, len(numbers_KN)) for name in sizes},
        )

    def arrivals(
        self, numbers_KN: Array, dom_S3: Array, medium: Medium
    ) -> list[Arrival]:
        """Return the light of each source at DOMs, (K, S) each.

        Args:
            numbers_KN: (K, N).
            dom_S3: (S, 3) m.
            medium: The ice.
        """
        columns, names = self._columns(numbers_KN), NUMBERS[self.topology]
        place = self._places(columns)[:, None]
        direction = self._directions(columns)[:, None]
        time = self._times(columns)[:, None]

        def size(name: str) -> Array:
            return self._size(name, columns, len(numbers_KN))[:, None]

        found = []
        if "muon" in names:
            back = size("back")
            place = place - back[..., None] * direction
            time = time - back / SPEED_OF_LIGHT
            grown = np.exp(MUON_RADIATIVE_LOSS * back)
            energy = np.maximum((size("muon") + _CRITICAL) * grown - _CRITICAL, 0.1)
            found.append(
                track_arrival(
                    start=place,
                    direction=direction,
                    time=time,
                    length=muon_range(energy),
                    energy=energy,
                    muons=size("muons"),
                    dom=dom_S3,
                    medium=medium,
                )
            )
        flown = size("flown")
        for name, along in (("cascade", np.zeros_like(flown)), ("second", flown)):
            if name in names:
                found.append(
                    cascade_arrival(
                        position=place + along[..., None] * direction,
                        direction=direction,
                        time=time + along / SPEED_OF_LIGHT,
                        energy=size(name),
                        dom=dom_S3,
                        medium=medium,
                    )
                )
        return found

    def _directions(self, columns: dict[str, Array]) -> Array:
        a, b = self._axes
        step = STEP_DIRECTION * columns["direction"]
        direction = self.seed.direction + step[:, :1] * a + step[:, 1:] * b
        unit: Array = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        return unit

    def _places(self, columns: dict[str, Array]) -> Array:
        if "place" in columns:
            place: Array = self.seed.place + STEP_PLACE * columns["place"]
            return place
        a, b = self._axes
        step = STEP_PLACE * columns["across"]
        place = self.seed.place + step[:, :1] * a + step[:, 1:] * b
        return place

    def _times(self, columns: dict[str, Array]) -> Array:
        time: Array = self.seed.time + STEP_TIME * columns["time"][:, 0]
        return time

    def _size(self, name: str, columns: dict[str, Array], num: int) -> Array:
        """Return energies [GeV], numbers of muons, or lengths [m], (K,)."""
        seed = np.broadcast_to(getattr(self.seed, name), num)
        if name not in columns:
            return seed
        step = columns[name][:, 0]
        if name == "flown":
            size: Array = np.abs(seed + STEP_LENGTH * step)
        elif name == "back":
            size = np.clip(seed + STEP_LENGTH * step, -BEFORE, BEFORE)
        else:
            decades = np.log10(seed) + STEP_ENERGY * step
            size = 10.0 ** np.clip(decades, *_ENERGIES)
        return size

    def _columns(self, numbers_KN: Array) -> dict[str, Array]:
        columns, first = {}, 0
        for name in NUMBERS[self.topology]:
            stop = first + _SIZES.get(name, 1)
            columns[name] = numbers_KN[:, first:stop]
            first = stop
        return columns


def across(direction: Array) -> tuple[Array, Array]:
    """Return two unit vectors across each direction (..., 3)."""
    helper = np.zeros_like(direction)
    smallest = np.abs(direction).argmin(axis=-1)
    np.put_along_axis(helper, smallest[..., None], 1.0, axis=-1)
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    second = np.cross(direction, first)
    return first, second
