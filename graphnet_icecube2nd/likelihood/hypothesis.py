"""What an event may have been: numbers of a fit into particles that make light.

A hypothesis is a vector of numbers near 0, of unit size where the fit should look:
steps from a seed in place, time and direction, and logarithms of energies. Shape
letters: K hypotheses, N numbers of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.simulation.light import (
    Arrival,
    Medium,
    cascade_arrival,
    muon_energy_after,
    muon_range,
    track_arrival,
)
from graphnet_icecube2nd.simulation.particles import across
from graphnet_icecube2nd.simulation.rows import Array, Rows

# How far one unit of a number goes.
STEP_PLACE = 5.0  # m
STEP_TIME = 10.0  # ns
STEP_DIRECTION = 0.05  # rad
STEP_ENERGY = 0.1  # decades
STEP_LENGTH = 5.0  # m

BEFORE = 1500.0  # m, how far from its place a track may begin
_ENERGIES = (0.0, 8.0)  # decades of GeV that a fit may use

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
class Seed(Rows):
    """Where K fits begin."""

    place: Array  # (K, 3) a point of the track, or the vertex, m
    time: Array  # (K,) when the particle is there, ns
    direction: Array  # (K, 3) flight, unit vector
    muon: Array  # (K,) energy of a muon at the place, GeV
    back: Array  # (K,) m from where the track begins to the place
    cascade: Array  # (K,) energy of the cascade, GeV
    second: Array  # (K,) energy of the second cascade, GeV
    flown: Array  # (K,) m between the cascades
    muons: Array  # (K,) their number

    @classmethod
    def of(cls, place: Array, time: float, direction: Array, **sizes: float) -> Seed:
        """Return one seed (K = 1), with something for the sizes that are not given."""
        usual = {"muon": 1e3, "back": BEFORE, "cascade": 1e3, "second": 1e3}
        every = {**usual, "flown": 10.0, "muons": 1.0, "time": time, **sizes}
        return cls(
            place=np.array([place], dtype=np.float64),
            direction=np.array([direction], dtype=np.float64),
            **{name: np.array([float(size)]) for name, size in every.items()},
        )


def number_names(topology: str) -> list[str]:
    """Return the name of each of the N numbers of a topology."""
    return [name for name in NUMBERS[topology] for _ in range(_SIZES.get(name, 1))]


def around(topology: str, seed: Seed, numbers_KN: Array) -> Seed:
    """Return the K seeds that vectors of numbers around a seed, or K seeds, stand for.

    Where all numbers are 0 it is the seed itself.
    """
    names = np.array(number_names(topology))
    columns = {name: numbers_KN[:, names == name] for name in NUMBERS[topology]}
    a, b = across(seed.direction)
    turn = STEP_DIRECTION * columns["direction"]
    direction = seed.direction + turn[:, :1] * a + turn[:, 1:] * b
    if "place" in columns:
        place = seed.place + STEP_PLACE * columns["place"]
    else:
        step = STEP_PLACE * columns["across"]
        place = seed.place + step[:, :1] * a + step[:, 1:] * b
    sizes = {}
    for name in ("muon", "back", "cascade", "second", "flown", "muons"):
        size = np.broadcast_to(getattr(seed, name), len(numbers_KN))
        if name in columns:
            step = columns[name][:, 0]
            if name == "flown":
                size = np.abs(size + STEP_LENGTH * step)
            elif name == "back":
                size = np.clip(size + STEP_LENGTH * step, -BEFORE, BEFORE)
            else:
                decades = np.log10(size) + STEP_ENERGY * step
                size = 10.0 ** np.clip(decades, *_ENERGIES)
        sizes[name] = size
    return Seed(
        place=place,
        time=seed.time + STEP_TIME * columns["time"][:, 0],
        direction=direction / np.linalg.norm(direction, axis=1, keepdims=True),
        **sizes,
    )


def arrivals(
    topology: str, seeds: Seed, dom_S3: Array, medium: Medium
) -> list[Arrival]:
    """Return the light of each source of K seeds at DOMs [m], (K, S) each."""
    names = NUMBERS[topology]
    seeds = seeds.take((slice(None), None))  # (K, 1): the same for every DOM
    place, time, direction = seeds.place, seeds.time, seeds.direction
    found = []
    if "muon" in names:
        place = place - seeds.back[..., None] * direction
        time = time - seeds.back / SPEED_OF_LIGHT
        energy = np.maximum(muon_energy_after(seeds.muon, -seeds.back), 0.1)
        found.append(
            track_arrival(
                start=place,
                direction=direction,
                time=time,
                length=muon_range(energy),
                energy=energy,
                muons=seeds.muons,
                dom=dom_S3,
                medium=medium,
            )
        )
    for name, along in (("cascade", np.zeros(())), ("second", seeds.flown)):
        if name in names:
            found.append(
                cascade_arrival(
                    position=place + along[..., None] * direction,
                    direction=direction,
                    time=time + along / SPEED_OF_LIGHT,
                    energy=getattr(seeds, name),
                    dom=dom_S3,
                    medium=medium,
                )
            )
    return found
