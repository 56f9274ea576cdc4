"""Convention of a file's angles (origin or flight), inferred from its pulses.

IceCube's zenith and azimuth say where a particle came from, those of some simulations
where it goes, and files made from other files do not always say which. Light is found
downstream of the vertex, and later downstream than upstream, so pulses can decide.
Shape letters: T pulses, B events.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import angles_to_unit_vector

UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class AngleEvidence:
    """Evidence of a file's pulses on the convention of its angles."""

    convention: str  # `origin`, `flight`, or `undecided` within three standard errors
    # Mean cosine between the direction in which the light spreads and that of the
    # angles; below 0 for `origin`.
    mean_cosine: float
    standard_error: float  # of the mean
    num_events: int  # events with enough pulses


def infer_angle_convention(
    position_T3: Tensor,
    time_T: Tensor,
    offsets: Tensor,
    zenith_B: Tensor,
    azimuth_B: Tensor,
    vertex_B3: Tensor | None = None,
    min_pulses: int = 3,
) -> AngleEvidence:
    """Compare the direction in which the light spreads with that of the angles.

    With vertices, light spreads from the vertex to the centre of the pulses; this is
    the better test for events that start near the detector. Without vertices, it
    spreads in the direction in which pulse times grow (the velocity of a line fit).

    Args:
        position_T3: DOM positions, (T, 3) m.
        time_T: Pulse times, (T,) ns.
        offsets: Borders of the events, (B + 1,) int64.
        zenith_B: Zenith as in the file, (B,) rad.
        azimuth_B: Azimuth as in the file, (B,) rad.
        vertex_B3: Start of the light, (B, 3) m, if the file has it.
        min_pulses: Minimum pulses of an event that counts.

    Returns:
        The evidence; use more events if it is `undecided`.

    Raises:
        ValueError: Fewer than two events have enough pulses.
    """
    direction_B3 = angles_to_unit_vector(zenith_B.double(), azimuth_B.double())
    cosines = []
    borders = offsets.tolist()
    for event, (start, stop) in enumerate(pairwise(borders)):
        if stop - start < min_pulses:
            continue
        position, time = position_T3[start:stop].double(), time_T[start:stop].double()
        centre = position.mean(0)
        if vertex_B3 is not None:
            way = centre - vertex_B3[event].double()
        else:
            way = (time - time.mean()) @ (position - centre)
        if float(way.norm()) > 0:
            cosines.append(way @ direction_B3[event] / way.norm())
    if len(cosines) < 2:
        raise ValueError(
            f"{len(cosines)} events of {len(borders) - 1} have {min_pulses} or more "
            "pulses; at least 2 are needed: use a file with more events"
        )
    cosine_B = torch.stack(cosines)
    mean = float(cosine_B.mean())
    error = float(cosine_B.std()) / len(cosines) ** 0.5
    convention = "flight" if mean > 0 else "origin"
    return AngleEvidence(
        convention=UNDECIDED if abs(mean) <= 3 * error else convention,
        mean_cosine=mean,
        standard_error=error,
        num_events=len(cosines),
    )
