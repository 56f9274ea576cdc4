"""Which way a file's angles point, asked of its pulses.

IceCube's zenith and azimuth say where a particle came from, some simulations' say
where it goes, and files made from one another do not always say which. Light is found
downstream of the vertex and later downstream than upstream; so pulses can tell.
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
    """What the pulses of a file say about its angles."""

    convention: str  # `origin`, `flight`, or `undecided` within three standard errors
    # Mean cosine between the way the light spreads and the angles' direction; below 0
    # for `origin`.
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
    """Compare the way the light spreads with the direction the angles give.

    With vertices, the light's way is from the vertex to the centre of the pulses; that
    is the better test for events that start near the detector. Without, it is the
    direction in which pulse times grow (the velocity of a line fit).

    Args:
        position_T3: (T, 3) m.
        time_T: (T,) ns.
        offsets: (B + 1,) int64 borders of the events.
        zenith_B: (B,) rad, as in the file.
        azimuth_B: (B,) rad, as in the file.
        vertex_B3: (B, 3) m, where the particle began to shine, if the file knows.
        min_pulses: Events with fewer pulses do not count.

    Returns:
        The evidence; ask for more events if it is `undecided`.

    Raises:
        ValueError: No event has enough pulses.
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
            "pulses; at least 2 are needed"
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
